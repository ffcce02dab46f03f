#include "proto/python/manager.h"

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/manager_text.h"

int tq_py_text(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret_text)
{
    struct tq_pk_value v;
    int rv = tq_pk_decode(p, r, &v);

    if (rv != TQ_OK)
        return rv;
    if (v.kind != TQ_PK_STR)
        return TQ_EINVAL;
    if (v.escaped) {
        if (v.bytes.len > 0 && memchr(v.bytes.data, '\\', v.bytes.len) != NULL)
            return TQ_EINVAL;
        /* STRING carries its quotes, UNICODE has none. */
        if (v.bytes.len >= 2 && (v.bytes.data[0] == '\'' || v.bytes.data[0] == '"') &&
            v.bytes.data[v.bytes.len - 1] == v.bytes.data[0])
            v.bytes = tq_span(v.bytes.data + 1, v.bytes.len - 2);
    }
    *ret_text = v.bytes;
    return TQ_OK;
}

static int fail(const char **ret_why, const char *why)
{
    *ret_why = why;
    return TQ_EPROTO;
}

static int parse_ident(struct tq_py_request *r)
{
    struct tq_pk_value v;
    int rv = tq_pk_decode(&r->pickle, r->pickle.top[0], &v);

    if (rv != TQ_OK)
        return rv;
    r->ident_none = v.kind == TQ_PK_NONE;
    /* Control requests ignore it whatever it is, and no object has an ident that is not a string. */
    if (tq_py_text(&r->pickle, r->pickle.top[0], &r->ident) != TQ_OK)
        r->ident = tq_span(NULL, 0);
    return TQ_OK;
}

static int parse_args(struct tq_py_request *r, const char **ret_why)
{
    struct tq_pk_range *list = NULL;
    struct tq_pk_value v;
    uint32_t count = 0;
    int rv = tq_pk_decode(&r->pickle, r->pickle.top[2], &v);

    if (rv != TQ_OK)
        return rv;
    if (v.kind != TQ_PK_TUPLE && v.kind != TQ_PK_LIST)
        return fail(ret_why, "args is not a tuple");
    rv = tq_pk_children(&r->pickle, r->pickle.top[2], &list, &count);
    if (rv == TQ_EINVAL)
        return fail(ret_why, "args is not a plain tuple");
    if (rv == TQ_ELIMIT)
        return fail(ret_why, "too many arguments");
    if (rv != TQ_OK)
        return rv;
    if (count > TQ_PY_ARGS_MAX) {
        tq_free(list);
        return fail(ret_why, "too many arguments");
    }
    for (uint32_t i = 0; i < count; i++)
        r->args[i] = list[i];
    r->arg_count = count;
    tq_free(list);
    return TQ_OK;
}

/* One key of the dict; a key that comes again replaces its value, as in Python. */
static int add_kwarg(struct tq_py_request *r, struct tq_pk_range key, struct tq_pk_range value,
                     const char **ret_why)
{
    struct tq_span name;
    uint32_t i;
    int rv = tq_py_text(&r->pickle, key, &name);

    if (rv == TQ_EINVAL)
        return fail(ret_why, "keywords must be strings");
    if (rv != TQ_OK)
        return rv;
    for (i = 0; i < r->kwarg_count; i++)
        if (tq_span_eq(r->kwargs[i].name, name))
            break;
    if (i == TQ_PY_ARGS_MAX)
        return fail(ret_why, "too many arguments");
    r->kwargs[i] = (struct tq_py_kwarg){.name = name, .value = value};
    if (i == r->kwarg_count)
        r->kwarg_count++;
    return TQ_OK;
}

static int parse_kwargs(struct tq_py_request *r, const char **ret_why)
{
    struct tq_pk_range *list = NULL;
    struct tq_pk_value v;
    uint32_t count = 0;
    int rv = tq_pk_decode(&r->pickle, r->pickle.top[3], &v);

    if (rv != TQ_OK)
        return rv;
    if (v.kind != TQ_PK_DICT)
        return fail(ret_why, "kwds is not a dict");
    rv = tq_pk_children(&r->pickle, r->pickle.top[3], &list, &count);
    if (rv == TQ_EINVAL)
        return fail(ret_why, "kwds is not a plain dict");
    if (rv == TQ_ELIMIT)
        return fail(ret_why, "too many arguments");
    for (uint32_t i = 0; rv == TQ_OK && i + 1 < count; i += 2)
        rv = add_kwarg(r, list[i], list[i + 1], ret_why);
    tq_free(list);
    return rv;
}

static int parse(struct tq_py_request *r, const char **ret_why)
{
    int rv;

    if (r->pickle.top_count != 4)
        return fail(ret_why, "not a request of four parts");
    rv = tq_py_text(&r->pickle, r->pickle.top[1], &r->function);
    if (rv == TQ_EINVAL)
        return fail(ret_why, "the function's name is not a string");
    if (rv == TQ_OK)
        rv = parse_ident(r);
    if (rv == TQ_OK)
        rv = parse_args(r, ret_why);
    if (rv == TQ_OK)
        rv = parse_kwargs(r, ret_why);
    return rv;
}

int tq_py_request_parse(struct tq_py_request *r, struct tq_span frame, const char **ret_why)
{
    int rv;

    *r = (struct tq_py_request){0};
    *ret_why = "malformed request";
    rv = tq_pickle_scan(&r->pickle, frame, ret_why);
    if (rv != TQ_OK)
        return rv;
    rv = parse(r, ret_why);
    if (rv != TQ_OK)
        tq_pickle_deinit(&r->pickle);
    return rv;
}

void tq_py_request_deinit(struct tq_py_request *r)
{
    tq_pickle_deinit(&r->pickle);
}
