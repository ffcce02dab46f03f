#include "master/core/ops_extra.h"

#include "master/core/journal_ops.h"
#include "master/core/keys.h"

/* The mask, the numbers, the lengths of the texts. */
#define FIXED_MAX_BYTES (19u * OPS_VARINT_MAX)

static uint32_t fields_of(struct broker_task *t, const struct broker_extra *x)
{
    uint32_t fields = 0;

    fields |= broker_task_state(t) == BROKER_TASK_DELAYED && x->due_ms != 0 ? EXTRA_DUE : 0;
    fields |= x->expires_ms != 0 ? EXTRA_EXPIRES : 0;
    fields |= x->started_ms != 0 ? EXTRA_STARTED : 0;
    fields |= x->ended_ms != 0 ? EXTRA_ENDED : 0;
    fields |= x->of != 0 ? EXTRA_OF : 0;
    fields |= x->result != TASK_POLICY ? EXTRA_RESULT : 0;
    fields |= x->from_serial != 0 ? EXTRA_FROM : 0;
    fields |= x->retention_ms != BROKER_RETENTION_AUTO ? EXTRA_RETENTION : 0;
    fields |= x->priority != 0 ? EXTRA_PRIORITY : 0;
    fields |= x->code != 0 ? EXTRA_CODE : 0;
    fields |= x->outcome != BROKER_OUTCOME_NONE ? EXTRA_OUTCOME : 0;
    fields |= x->max_attempts != 0 ? EXTRA_MAX_ATTEMPTS : 0;
    fields |= x->tries != 0 ? EXTRA_TRIES : 0;
    fields |= x->gives_way ? EXTRA_GIVES_WAY : 0;
    fields |= x->key_len != 0 ? EXTRA_KEY : 0;
    fields |= x->key_len != 0 && x->key != NULL ? EXTRA_KEY_QUEUE : 0;
    fields |= x->trace_len != 0 ? EXTRA_TRACE : 0;
    fields |= x->worker_len != 0 ? EXTRA_WORKER : 0;
    fields |= x->error_len != 0 ? EXTRA_ERROR : 0;
    return fields;
}

static uint8_t *put_text(uint8_t *at, struct tq_span s)
{
    at = ops_put(at, s.len);
    memcpy(at, s.data, s.len);
    return at + s.len;
}

static uint8_t *put_if(uint8_t *at, bool is_there, uint64_t v)
{
    return is_there ? ops_put(at, v) : at;
}

static uint8_t *put_byte_if(uint8_t *at, bool is_there, uint8_t v)
{
    if (is_there)
        *at++ = v;
    return at;
}

size_t ops_extra_bound(struct broker_task *t)
{
    return FIXED_MAX_BYTES + broker_task_key(t).len + broker_task_trace(t).len + broker_task_worker(t).len +
           broker_task_error(t).len;
}

uint8_t *ops_put_extra(uint8_t *at, struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);
    uint32_t fields = fields_of(t, x);

    at = ops_put(at, fields);
    at = put_if(at, fields & EXTRA_DUE, x->due_ms);
    at = put_if(at, fields & EXTRA_EXPIRES, x->expires_ms);
    at = put_if(at, fields & EXTRA_STARTED, x->started_ms);
    at = put_if(at, fields & EXTRA_ENDED, x->ended_ms);
    at = put_if(at, fields & EXTRA_OF, x->of);
    at = put_if(at, fields & EXTRA_RESULT, x->result != TASK_NO_QUEUE ? x->result_serial : 0);
    at = put_if(at, fields & EXTRA_FROM, x->from_serial);
    at = put_if(at, fields & EXTRA_RETENTION, x->retention_ms);
    at = put_if(at, fields & EXTRA_PRIORITY, ops_zigzag(x->priority));
    at = put_if(at, fields & EXTRA_CODE, ops_zigzag(x->code));
    at = put_byte_if(at, fields & EXTRA_OUTCOME, x->outcome);
    at = put_byte_if(at, fields & EXTRA_MAX_ATTEMPTS, x->max_attempts);
    at = put_byte_if(at, fields & EXTRA_TRIES, x->tries);
    if ((fields & EXTRA_KEY) != 0)
        at = put_text(at, broker_task_key(t));
    at = put_if(at, fields & EXTRA_KEY_QUEUE, x->key != NULL ? x->key->queue_serial : 0);
    if ((fields & EXTRA_TRACE) != 0)
        at = put_text(at, broker_task_trace(t));
    if ((fields & EXTRA_WORKER) != 0)
        at = put_text(at, broker_task_worker(t));
    if ((fields & EXTRA_ERROR) != 0)
        at = put_text(at, broker_task_error(t));
    return at;
}

static bool get_if(struct tq_span *in, bool is_there, uint64_t *v)
{
    return !is_there || ops_get(in, v);
}

static bool get_u32_if(struct tq_span *in, bool is_there, uint32_t *v)
{
    uint64_t got;

    if (!is_there)
        return true;
    if (!ops_get_max(in, UINT32_MAX, &got))
        return false;
    *v = (uint32_t)got;
    return true;
}

static bool get_i32_if(struct tq_span *in, bool is_there, int32_t *v)
{
    uint64_t got;

    if (!is_there)
        return true;
    if (!ops_get_max(in, UINT32_MAX, &got)) /* the zigzag of 32 bits has 32 bits */
        return false;
    *v = (int32_t)ops_unzigzag(got);
    return true;
}

static bool get_byte_if(struct tq_span *in, bool is_there, uint8_t *v)
{
    return !is_there || ops_get_u8(in, v);
}

/* What is there is not empty. */
static bool get_text_if(struct tq_span *in, bool is_there, size_t max, struct tq_span *v)
{
    return !is_there || (ops_get_text(in, max, v) && v->len > 0);
}

bool ops_get_extra(struct tq_span *in, struct broker_extra_spec *ret, uint32_t *ret_key_serial)
{
    struct broker_extra *x = &ret->fixed;
    /* The extra is packed: its fields have no addresses of their own type. */
    uint64_t due_ms = 0, expires_ms = 0, started_ms = 0, ended_ms = 0, of = 0, f;
    uint32_t result = 0, from = 0, retention_ms = BROKER_RETENTION_AUTO;
    int32_t priority = 0, code = 0;
    uint8_t outcome = 0, max_attempts = 0, tries = 0;

    *ret = (struct broker_extra_spec){
        .key = {.len = 0}, .trace = {.len = 0}, .worker = {.len = 0}, .error = {.len = 0}};
    *ret_key_serial = 0;
    if (!ops_get_max(in, EXTRA_ALL, &f) || ((f & EXTRA_KEY_QUEUE) != 0 && (f & EXTRA_KEY) == 0))
        return false;
    if (!get_if(in, f & EXTRA_DUE, &due_ms) || !get_if(in, f & EXTRA_EXPIRES, &expires_ms) ||
        !get_if(in, f & EXTRA_STARTED, &started_ms) || !get_if(in, f & EXTRA_ENDED, &ended_ms) ||
        !get_if(in, f & EXTRA_OF, &of) || !get_u32_if(in, f & EXTRA_RESULT, &result) ||
        !get_u32_if(in, f & EXTRA_FROM, &from) || !get_u32_if(in, f & EXTRA_RETENTION, &retention_ms) ||
        !get_i32_if(in, f & EXTRA_PRIORITY, &priority) || !get_i32_if(in, f & EXTRA_CODE, &code) ||
        !get_byte_if(in, f & EXTRA_OUTCOME, &outcome) ||
        !get_byte_if(in, f & EXTRA_MAX_ATTEMPTS, &max_attempts) ||
        !get_byte_if(in, f & EXTRA_TRIES, &tries) ||
        !get_text_if(in, f & EXTRA_KEY, BROKER_KEY_MAX, &ret->key) ||
        !get_u32_if(in, f & EXTRA_KEY_QUEUE, ret_key_serial) ||
        !get_text_if(in, f & EXTRA_TRACE, BROKER_TRACE_MAX, &ret->trace) ||
        !get_text_if(in, f & EXTRA_WORKER, BROKER_WORKER_MAX, &ret->worker) ||
        !get_text_if(in, f & EXTRA_ERROR, BROKER_ERROR_MAX, &ret->error))
        return false;
    if (outcome > BROKER_OUTCOME_PURGED || max_attempts > BROKER_ATTEMPTS_MAX)
        return false;
    x->due_ms = due_ms;
    x->expires_ms = expires_ms;
    x->started_ms = started_ms;
    x->ended_ms = ended_ms;
    x->of = of;
    x->result = (f & EXTRA_RESULT) == 0 ? TASK_POLICY : result == 0 ? TASK_NO_QUEUE : 0;
    x->result_serial = result;
    x->from_serial = from;
    x->retention_ms = retention_ms;
    x->priority = priority;
    x->code = code;
    x->outcome = outcome;
    x->max_attempts = max_attempts;
    x->tries = tries;
    x->gives_way = (f & EXTRA_GIVES_WAY) != 0;
    return true;
}
