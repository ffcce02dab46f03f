#include "proto/python/manager.h"

#include "common/err.h"
#include "proto/python/manager_text.h"

int tq_py_call_control(struct tq_buf *buf, const char *function, const struct tq_span *args, size_t count)
{
    struct tq_emit e;

    tq_emit_begin(&e, buf);
    tq_emit_mark(&e);
    tq_emit_none(&e);
    tq_emit_cstr(&e, function);
    tq_emit_mark(&e);
    for (size_t i = 0; i < count; i++)
        tq_emit_str(&e, args[i]);
    tq_emit_tuple(&e);
    tq_emit_empty_dict(&e);
    tq_emit_tuple(&e);
    return tq_emit_end(&e);
}

static void begin_call(struct tq_emit *e, struct tq_buf *buf, struct tq_span ident, const char *method)
{
    tq_emit_begin(e, buf);
    tq_emit_mark(e);
    tq_emit_str(e, ident);
    tq_emit_cstr(e, method);
}

int tq_py_call_get(struct tq_buf *buf, struct tq_span ident, double timeout_s)
{
    struct tq_emit e;

    begin_call(&e, buf, ident, "get");
    tq_emit_tuple_n(&e, 0);
    tq_emit_empty_dict(&e);
    if (timeout_s >= 0) {
        tq_emit_mark(&e);
        tq_emit_cstr(&e, "timeout");
        tq_emit_float(&e, timeout_s);
        tq_emit_setitems(&e);
    }
    tq_emit_tuple(&e);
    return tq_emit_end(&e);
}

int tq_py_call_put_str(struct tq_buf *buf, struct tq_span ident, struct tq_span utf8)
{
    struct tq_emit e;

    begin_call(&e, buf, ident, "put");
    tq_emit_str(&e, utf8);
    tq_emit_tuple_n(&e, 1);
    tq_emit_empty_dict(&e);
    tq_emit_tuple(&e);
    return tq_emit_end(&e);
}

#define REPLY_PROTO_AT 5  /* of a reply frame: length, PROTO, its argument */
#define REPLY_FRONT_AT 6  /* what the item's references need */
#define REPLY_KIND_LEN 12 /* '#RETURN', just before the item */

int tq_py_call_put_item(struct tq_buf *buf, struct tq_span ident, const struct tq_item_frame *item)
{
    uint32_t front_end = item->item_off - REPLY_KIND_LEN;
    size_t start = buf->len;
    struct tq_emit e;

    tq_emit_begin(&e, buf);
    tq_emit_raw(&e, tq_span(item->frame.data + REPLY_FRONT_AT, front_end - REPLY_FRONT_AT));
    tq_emit_mark(&e);
    tq_emit_str(&e, ident);
    tq_emit_cstr(&e, "put");
    tq_emit_raw(&e, tq_span(item->frame.data + item->item_off, item->item_len));
    tq_emit_tuple_n(&e, 1);
    tq_emit_empty_dict(&e);
    tq_emit_tuple(&e);
    if (e.err == TQ_OK) /* names of classes are read by it */
        buf->data[start + REPLY_PROTO_AT] = item->frame.data[REPLY_PROTO_AT];
    return tq_emit_end(&e);
}

int tq_py_call_method(struct tq_buf *buf, struct tq_span ident, const char *method)
{
    struct tq_emit e;

    begin_call(&e, buf, ident, method);
    tq_emit_tuple_n(&e, 0);
    tq_emit_empty_dict(&e);
    tq_emit_tuple(&e);
    return tq_emit_end(&e);
}

/* Our own master's ShutDown is computed, so it has no class to read: it is known by its opcodes.
 * 1: it is not that. */
static int is_computed_shutdown(const struct tq_py_reply *r)
{
    struct tq_buf buf = TQ_BUF_NULL(256);
    struct tq_emit e = {.buf = &buf};
    struct tq_span value = tq_span(r->pickle.input.data + r->value.start, r->value.end - r->value.start);
    bool same;

    tq_py_emit_shutdown_class(&e);
    tq_emit_tuple_n(&e, 0);
    tq_emit_reduce(&e);
    same = e.err == TQ_OK && tq_span_eq(value, tq_buf_span(&buf));
    tq_buf_deinit(&buf);
    return e.err != TQ_OK ? e.err : same ? TQ_OK : 1;
}

static int parse_error(struct tq_py_reply *r)
{
    int rv = tq_pk_class_of(&r->pickle, r->value, &r->error_module, &r->error_name);

    if (rv != TQ_ENOTFOUND)
        return rv;
    rv = is_computed_shutdown(r);
    if (rv == TQ_OK) {
        r->error_module = tq_span_str("queue");
        r->error_name = tq_span_str("ShutDown");
    }
    /* Any other exception is legal and has no name that we could tell. */
    return rv < 0 ? rv : TQ_OK;
}

int tq_py_reply_parse(struct tq_py_reply *r, struct tq_span frame, const char **ret_why)
{
    int rv;

    *r = (struct tq_py_reply){0};
    *ret_why = "malformed reply";
    rv = tq_pickle_scan(&r->pickle, frame, ret_why);
    if (rv != TQ_OK)
        return rv;
    if (r->pickle.top_count != 2 || tq_py_text(&r->pickle, r->pickle.top[0], &r->kind_text) != TQ_OK) {
        *ret_why = "not a reply of two parts";
        rv = TQ_EPROTO;
        goto failed;
    }
    r->value = r->pickle.top[1];
    if (tq_span_is(r->kind_text, "#RETURN"))
        r->kind = TQ_PY_REPLY_RETURN;
    else if (tq_span_is(r->kind_text, "#TRACEBACK"))
        r->kind = TQ_PY_REPLY_TRACEBACK;
    else if (tq_span_is(r->kind_text, "#ERROR"))
        r->kind = TQ_PY_REPLY_ERROR;
    else
        r->kind = TQ_PY_REPLY_OTHER;
    if (r->kind == TQ_PY_REPLY_ERROR)
        rv = parse_error(r);
    if (rv == TQ_OK)
        return TQ_OK;
failed:
    tq_pickle_deinit(&r->pickle);
    return rv;
}

void tq_py_reply_deinit(struct tq_py_reply *r)
{
    tq_pickle_deinit(&r->pickle);
}

bool tq_py_reply_is_empty_error(const struct tq_py_reply *r)
{
    static const char *const modules[] = {"queue", "_queue", "Queue"};

    if (r->kind != TQ_PY_REPLY_ERROR || !tq_span_is(r->error_name, "Empty"))
        return false;
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++)
        if (tq_span_is(r->error_module, modules[i]))
            return true;
    return false;
}
