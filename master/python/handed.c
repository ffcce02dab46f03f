#include "master/python/handed.h"

#include "common/err.h"
#include "proto/native/convert.h"
#include "proto/python/manager.h"

static const char *outcome_name(enum broker_task_outcome outcome)
{
    switch (outcome) {
    case BROKER_OUTCOME_NONE:
        break;
    case BROKER_OUTCOME_OK:
        return "ok";
    case BROKER_OUTCOME_FAILED:
        return "failed";
    case BROKER_OUTCOME_EXPIRED:
        return "expired";
    case BROKER_OUTCOME_LOST:
        return "lost";
    case BROKER_OUTCOME_CANCELED:
        return "canceled";
    case BROKER_OUTCOME_PURGED:
        return "purged";
    }
    return "";
}

bool pyhanded_is_frame(const struct broker_view *v)
{
    return v->payload.data != NULL && v->payload.format == BROKER_PYTHON;
}

/* ---- records ---- */

static void put_int(struct tq_emit *e, const char *name, uint64_t value)
{
    tq_emit_cstr(e, name);
    tq_emit_int(e, value <= INT64_MAX ? (int64_t)value : INT64_MAX);
}

static void put_text(struct tq_emit *e, const char *name, struct tq_span text)
{
    if (text.len == 0)
        return;
    tq_emit_cstr(e, name);
    tq_emit_str(e, text);
}

static void put_ms(struct tq_emit *e, const char *name, uint64_t ms)
{
    if (ms != 0)
        put_int(e, name, ms);
}

static int reply_record(const struct broker_view *v, struct tq_buf *out)
{
    struct tq_emit e;

    tq_emit_begin(&e, out);
    tq_emit_cstr(&e, "#RETURN");
    tq_emit_empty_dict(&e);
    tq_emit_mark(&e);
    put_int(&e, "id", v->id);
    if (v->of != v->id)
        put_int(&e, "of", v->of);
    put_text(&e, "outcome", tq_span_str(outcome_name(v->outcome)));
    put_text(&e, "error", v->error);
    if (v->code != 0) {
        tq_emit_cstr(&e, "code");
        tq_emit_int(&e, v->code);
    }
    put_int(&e, "attempt", v->tries);
    put_text(&e, "worker", v->worker);
    put_text(&e, "from", tq_span_str(v->from));
    put_text(&e, "key", v->key);
    put_text(&e, "trace", v->trace);
    put_ms(&e, "put_ms", v->put_ms);
    put_ms(&e, "started_ms", v->started_ms);
    put_ms(&e, "ended_ms", v->ended_ms);
    tq_emit_setitems(&e);
    tq_emit_tuple_n(&e, 2);
    return tq_emit_end(&e);
}

/* ---- values ---- */

static int reply_bytes(struct tq_span bytes, struct tq_buf *out)
{
    uint8_t head[5] = {'B', (uint8_t)bytes.len, (uint8_t)(bytes.len >> 8), (uint8_t)(bytes.len >> 16),
                       (uint8_t)(bytes.len >> 24)}; /* BINBYTES */
    struct tq_emit e;

    tq_emit_begin(&e, out);
    tq_emit_cstr(&e, "#RETURN");
    tq_emit_raw(&e, tq_span(head, sizeof(head)));
    tq_emit_raw(&e, bytes);
    tq_emit_tuple_n(&e, 2);
    return tq_emit_end(&e);
}

int pyhanded_reply(const struct broker_view *v, struct tq_buf *out)
{
    struct tq_span value = tq_span(v->payload.data, v->payload.len);
    bool bad_end = v->outcome != BROKER_OUTCOME_NONE && v->outcome != BROKER_OUTCOME_OK;
    uint32_t item_off;
    uint32_t item_len;
    int rv;

    if (value.data == NULL) /* a dead letter has its body, a result that is not OK has no value */
        return bad_end ? reply_record(v, out) : tq_py_reply_none(out);
    rv = tq_convert_to_python(value, out, &item_off, &item_len);
    if (rv != TQ_EPROTO && rv != TQ_ELIMIT)
        return rv;
    rv = reply_bytes(value, out);
    return rv == TQ_OK ? PYHANDED_BYTES : rv;
}
