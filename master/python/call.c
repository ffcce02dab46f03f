#include "master/python/call.h"

#include <math.h>
#include <stdio.h>

#include "common/assert.h"

/* Longest wait that CPython's clock can count, in seconds (2^63 ns). */
#define WAIT_MAX_S 9223372036.0

struct signature {
    enum pymethod method;
    const char *name;
    uint8_t count;    /* parameters, without self */
    uint8_t required; /* the first ones */
    const char *params[PYCALL_PARAMS_MAX];
};

static const struct signature signatures[] = {
    {PY_METHOD_EMPTY, "empty", 0, 0, {NULL}},
    {PY_METHOD_FULL, "full", 0, 0, {NULL}},
    {PY_METHOD_GET, "get", 2, 0, {"block", "timeout"}},
    {PY_METHOD_GET_NOWAIT, "get_nowait", 0, 0, {NULL}},
    {PY_METHOD_JOIN, "join", 0, 0, {NULL}},
    {PY_METHOD_PUT, "put", 3, 1, {"item", "block", "timeout"}},
    {PY_METHOD_PUT_NOWAIT, "put_nowait", 1, 1, {"item"}},
    {PY_METHOD_QSIZE, "qsize", 0, 0, {NULL}},
    {PY_METHOD_SHUTDOWN, "shutdown", 1, 0, {"immediate"}},
    {PY_METHOD_TASK_DONE, "task_done", 0, 0, {NULL}},
    {PY_METHOD_STR, "__str__", 0, 0, {NULL}},
    {PY_METHOD_REPR, "__repr__", 0, 0, {NULL}},
    {PY_METHOD_GETVALUE, "#GETVALUE", 0, 0, {NULL}},
};

const char *const pymethod_exposed[PYMETHOD_EXPOSED_COUNT] = {
    "empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "shutdown", "task_done"};

enum pymethod pymethod_by_name(struct tq_span name)
{
    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
        if (tq_span_is(name, signatures[i].name))
            return signatures[i].method;
    }
    return PY_METHOD_NONE;
}

const char *pymethod_name(enum pymethod method)
{
    size_t i = (size_t)method - 1; /* the table has the enum's order */

    TQ_ASSERT(i < sizeof(signatures) / sizeof(signatures[0]) && signatures[i].method == method);
    return signatures[i].name;
}

static int find_param(const struct signature *s, struct tq_span name)
{
    for (int i = 0; i < s->count; i++) {
        if (tq_span_is(name, s->params[i]))
            return i;
    }
    return -1;
}

/* At most 100 bytes of a name from the wire. */
static int shown(struct tq_span name)
{
    return (int)(name.len < 100 ? name.len : 100);
}

static int bind_params(const struct signature *s, struct pycall *c, const struct tq_py_request *r,
                       char text[PYCALL_TEXT_MAX])
{
    for (uint32_t i = 0; i < r->arg_count && i < s->count; i++) {
        c->given[i] = true;
        c->value[i] = r->args[i];
    }
    for (uint32_t i = 0; i < r->kwarg_count; i++) {
        struct tq_span name = r->kwargs[i].name;
        int at = find_param(s, name);

        if (at < 0) {
            snprintf(text, PYCALL_TEXT_MAX, "Queue.%s() got an unexpected keyword argument '%.*s'", s->name,
                     shown(name), (const char *)name.data);
            return 1;
        }
        if (c->given[at]) {
            snprintf(text, PYCALL_TEXT_MAX, "Queue.%s() got multiple values for argument '%s'", s->name,
                     s->params[at]);
            return 1;
        }
        c->given[at] = true;
        c->value[at] = r->kwargs[i].value;
    }
    if (r->arg_count > s->count) {
        /* Python counts self */
        if (s->required == s->count)
            snprintf(text, PYCALL_TEXT_MAX, "Queue.%s() takes %u positional argument%s but %u were given",
                     s->name, s->count + 1u, s->count > 0 ? "s" : "", r->arg_count + 1u);
        else
            snprintf(text, PYCALL_TEXT_MAX,
                     "Queue.%s() takes from %u to %u positional arguments but %u were given", s->name,
                     s->required + 1u, s->count + 1u, r->arg_count + 1u);
        return 1;
    }
    if (s->required > 0 && !c->given[0]) {
        snprintf(text, PYCALL_TEXT_MAX, "Queue.%s() missing 1 required positional argument: '%s'", s->name,
                 s->params[0]);
        return 1;
    }
    return 0;
}

int pycall_bind(struct pycall *c, const struct tq_py_request *r, enum pymethod method,
                char text[PYCALL_TEXT_MAX])
{
    const struct signature *s = NULL;
    *c = (struct pycall){.method = method};
    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
        if (signatures[i].method == method)
            s = &signatures[i];
    }
    if (s == NULL)
        return 1;
    if (r->arg_count == 0 && r->kwarg_count == 0 && s->required == 0)
        return 0;
    return bind_params(s, c, r, text);
}

/* Python's order: `timeout is None`, then `timeout < 0`, then the wait itself. */
static enum pycall_wait_result timed(const struct tq_py_request *r, struct tq_pk_range timeout,
                                     enum broker_wait_mode *ret_mode, uint64_t *ret_wait_ms,
                                     char text[PYCALL_TEXT_MAX])
{
    struct tq_pk_value v;
    double seconds;

    if (tq_pk_decode(&r->pickle, timeout, &v) != 0)
        v = (struct tq_pk_value){.kind = TQ_PK_OTHER};
    switch (v.kind) {
    case TQ_PK_NONE:
        *ret_mode = BROKER_WAIT_FOREVER;
        return PYCALL_WAIT_OK;
    case TQ_PK_BOOL:
        seconds = v.boolean ? 1 : 0;
        break;
    case TQ_PK_INT:
        seconds = (double)v.integer;
        break;
    case TQ_PK_FLOAT:
        seconds = v.real;
        break;
    case TQ_PK_BIGINT: /* two's complement, little-endian: the last byte has the sign */
        seconds = v.bytes.len > 0 && (v.bytes.data[v.bytes.len - 1] & 0x80) != 0 ? -1.0 : HUGE_VAL;
        break;
    default:
        snprintf(text, PYCALL_TEXT_MAX, "'<' not supported between instances of '%s' and 'int'",
                 tq_pk_type_name(&r->pickle, timeout));
        return PYCALL_WAIT_TYPE_ERROR;
    }
    if (isnan(seconds) || seconds < 0)
        return PYCALL_WAIT_VALUE_ERROR;
    if (seconds > WAIT_MAX_S) {
        *ret_mode = BROKER_NO_WAIT;
        return PYCALL_WAIT_OVERFLOW;
    }
    *ret_mode = BROKER_WAIT_MS;
    *ret_wait_ms = (uint64_t)ceil(seconds * 1000.0);
    return PYCALL_WAIT_OK;
}

enum pycall_wait_result pycall_wait(const struct pycall *c, const struct tq_py_request *r, bool looks,
                                    enum broker_wait_mode *ret_mode, uint64_t *ret_wait_ms,
                                    char text[PYCALL_TEXT_MAX])
{
    unsigned block = c->method == PY_METHOD_PUT ? 1 : 0;
    enum pycall_wait_result result;

    *ret_wait_ms = 0;
    *ret_mode = BROKER_NO_WAIT;
    if (c->method == PY_METHOD_GET_NOWAIT || c->method == PY_METHOD_PUT_NOWAIT)
        return PYCALL_WAIT_OK;
    *ret_mode = BROKER_WAIT_FOREVER;
    if (c->given[block] && !tq_pk_truth(&r->pickle, c->value[block])) {
        *ret_mode = BROKER_NO_WAIT;
        return PYCALL_WAIT_OK;
    }
    if (!c->given[block + 1])
        return PYCALL_WAIT_OK;
    result = timed(r, c->value[block + 1], ret_mode, ret_wait_ms, text);
    if (looks || result == PYCALL_WAIT_OK)
        return result;
    *ret_mode = BROKER_WAIT_FOREVER;
    return PYCALL_WAIT_OK;
}

struct tq_pk_range pycall_item(const struct pycall *c)
{
    return c->value[0];
}

bool pycall_immediate(const struct pycall *c, const struct tq_py_request *r)
{
    return c->given[0] && tq_pk_truth(&r->pickle, c->value[0]);
}

int pycall_bind_factory(const struct tq_py_request *r, int64_t *ret_maxsize, char text[PYCALL_TEXT_MAX])
{
    static const struct signature factory = {PY_METHOD_NONE, "__init__", 1, 0, {"maxsize"}};
    struct tq_py_request args = *r; /* without the typeid in front */
    struct pycall c = {0};
    struct tq_pk_value v;

    *ret_maxsize = 0;
    args.arg_count--;
    for (uint32_t i = 0; i < args.arg_count; i++)
        args.args[i] = r->args[i + 1];
    if (bind_params(&factory, &c, &args, text) != 0)
        return 1;
    if (!c.given[0])
        return 0;
    if (tq_pk_decode(&r->pickle, c.value[0], &v) != 0)
        v = (struct tq_pk_value){.kind = TQ_PK_OTHER};
    if (v.kind == TQ_PK_INT)
        *ret_maxsize = v.integer;
    else if (v.kind == TQ_PK_BOOL)
        *ret_maxsize = v.boolean;
    else {
        snprintf(text, PYCALL_TEXT_MAX, "maxsize must be an int, not '%s'",
                 tq_pk_type_name(&r->pickle, c.value[0]));
        return 1;
    }
    return 0;
}
