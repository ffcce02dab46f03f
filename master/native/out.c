#include "master/native/native_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/native/convert.h"
#include "proto/native/convert_text.h"

const char *const native_code_names[CODE_COUNT] = {
    [CODE_NONE] = "",
    [CODE_PROTOCOL] = "protocol",
    [CODE_BAD_REQUEST] = "bad_request",
    [CODE_UNKNOWN_METHOD] = "unknown_method",
    [CODE_HELLO_FIRST] = "hello_first",
    [CODE_VERSION] = "version",
    [CODE_QUEUE_UNKNOWN] = "queue_unknown",
    [CODE_QUEUE_EXISTS] = "queue_exists",
    [CODE_QUEUE_CLOSED] = "queue_closed",
    [CODE_FULL] = "full",
    [CODE_MEMORY] = "memory",
    [CODE_NO_SPACE] = "no_space",
    [CODE_TOO_MANY] = "too_many",
    [CODE_STALE] = "stale",
    [CODE_UNKNOWN] = "unknown",
    [CODE_REFUSED] = "refused",
    [CODE_DENIED] = "denied",
    [CODE_CANCELED] = "canceled",
    [CODE_WORKER_TAKEN] = "worker_taken",
    [CODE_EXISTS] = "exists",
    [CODE_PERMISSION] = "permission",
    [CODE_IO] = "io",
};

/* ---- buffers: memory only while there is something in them ---- */

void native_buf_take(struct native *n, struct tq_buf *b, size_t max)
{
    if (n->spare_count > 0)
        *b = n->spares[--n->spare_count];
    else
        tq_buf_init(b, max);
    b->max = max;
}

void native_buf_give(struct native *n, struct tq_buf *b)
{
    if (b->data != NULL && b->cap <= NATIVE_SCRATCH_MAX && n->spare_count < NATIVE_SPARES) {
        n->spares[n->spare_count] = *b;
        n->spares[n->spare_count++].len = 0;
        *b = (struct tq_buf){.max = b->max};
    } else {
        tq_buf_deinit(b);
    }
}

void native_written(struct native_conn *c)
{
    if (c->native != NULL)
        native_buf_give(c->native, &c->out);
}

void native_take_output(struct native_conn *c, struct tq_buf *ret_buf)
{
    *ret_buf = c->out;
    c->out = (struct tq_buf){.max = ret_buf->max};
}

void native_give_back(struct native *n, struct tq_buf *buf)
{
    native_buf_give(n, buf);
}

/* ---- dirty connections ---- */

void native_mark_dirty(struct native_conn *c)
{
    struct native *n = c->native;

    if (c->dirty)
        return;
    c->dirty = true;
    c->dirty_next = NULL;
    *(n->dirty != NULL ? &n->dirty_last->dirty_next : &n->dirty) = c;
    n->dirty_last = c;
}

void native_unmark_dirty(struct native_conn *c)
{
    struct native *n = c->native;
    struct native_conn **at = &n->dirty, *before = NULL;

    if (!c->dirty)
        return;
    c->dirty = false;
    while (*at != c) { /* it is short: those of one turn of the loop */
        before = *at;
        at = &before->dirty_next;
    }
    *at = c->dirty_next;
    if (n->dirty_last == c)
        n->dirty_last = before;
}

struct native_conn *native_next_dirty(struct native *n)
{
    struct native_conn *c = n->dirty;

    if (c != NULL)
        native_unmark_dirty(c);
    return c;
}

bool native_has_dirty(const struct native *n)
{
    return n->dirty != NULL;
}

void native_close(struct native_conn *c, enum native_closing how, const char *why)
{
    if (c->closing >= how)
        return;
    c->closing = (uint8_t)how;
    c->close_why = why;
    native_mark_dirty(c);
}

bool native_wants_input(const struct native_conn *c)
{
    return c->closing == NATIVE_STAYS && c->out.len + c->unsent <= c->native->host->limits.output_bytes / 2;
}

/* ---- frames ---- */

bool native_is_behind(const struct native_conn *c)
{
    return c->out.len + c->unsent > c->native->host->limits.output_bytes;
}

/* Large replies are declined for who is behind (get, wait); the others are small, and go on for as much as
 * one frame may take, so that nobody is cut for what it had no time to read. Beyond that it is closed. */
static void check_output(struct native_conn *c)
{
    struct native *n = c->native;

    if (!native_is_behind(c) || c->closing != NATIVE_STAYS ||
        c->out.len + c->unsent <= (uint64_t)n->host->limits.output_bytes + n->host->limits.frame_bytes)
        return;
    n->counters.not_reading++;
    native_close(c, NATIVE_CLOSE_NOW, "it does not read its replies");
}

static struct native_out frame_begin(struct native_conn *c)
{
    struct native_out out = {.conn = c};

    check_output(c);
    if (c->out.data == NULL)
        native_buf_take(c->native, &c->out, (size_t)INT32_MAX + 64);
    out.o = tq_mp_out(&c->out);
    if (c->closing == NATIVE_CLOSE_NOW)
        out.o.err = TQ_ECLOSED;
    tq_mp_frame_begin(&out.o, &out.start);
    return out;
}

struct native_out native_reply_begin(struct native_conn *c, uint32_t msgid)
{
    struct native_out out = frame_begin(c);

    tq_mp_put_array(&out.o, 4);
    tq_mp_put_u64(&out.o, 1);
    tq_mp_put_u64(&out.o, msgid);
    tq_mp_put_nil(&out.o);
    return out;
}

struct native_out native_notify_begin(struct native_conn *c, const char *method)
{
    struct native_out out = frame_begin(c);

    tq_mp_put_array(&out.o, 3);
    tq_mp_put_u64(&out.o, 2);
    tq_mp_put_cstr(&out.o, method);
    return out;
}

bool native_out_end(struct native_out *out)
{
    int rv = tq_mp_frame_end(&out->o, out->start);

    if (rv == TQ_OK)
        native_mark_dirty(out->conn);
    else
        native_close(out->conn, NATIVE_CLOSE_NOW,
                     rv == TQ_ENOMEM ? "out of memory for its reply" : "a reply became too long");
    return rv == TQ_OK;
}

void native_reply_empty(struct native_conn *c, uint32_t msgid)
{
    struct native_out out = native_reply_begin(c, msgid);

    tq_mp_put_map(&out.o, 0);
    (void)native_out_end(&out);
}

void native_reply_error(struct native_conn *c, uint32_t msgid, enum native_code code, const char *text)
{
    struct native_out out = frame_begin(c);

    c->native->counters.errors++;
    tq_mp_put_array(&out.o, 4);
    tq_mp_put_u64(&out.o, 1);
    tq_mp_put_u64(&out.o, msgid);
    tq_mp_put_array(&out.o, 2);
    tq_mp_put_cstr(&out.o, native_code_names[code]);
    tq_mp_put_cstr(&out.o, text);
    tq_mp_put_nil(&out.o);
    (void)native_out_end(&out);
}

void native_reply_errorf(struct native_conn *c, uint32_t msgid, enum native_code code, const char *fmt, ...)
{
    char text[NATIVE_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    native_reply_error(c, msgid, code, text);
}

void native_protocol_error(struct native_conn *c, const char *why)
{
    struct native_out out;

    c->native->counters.protocol_errors++;
    out = native_notify_begin(c, "error");
    tq_mp_put_map(&out.o, 2);
    tq_mp_put_cstr(&out.o, "code");
    tq_mp_put_cstr(&out.o, native_code_names[CODE_PROTOCOL]);
    tq_mp_put_cstr(&out.o, "text");
    tq_mp_put_cstr(&out.o, why);
    (void)native_out_end(&out);
    native_close(c, NATIVE_CLOSE_FLUSHED, why);
}

/* ---- counted while they are written ---- */

struct native_map native_map_begin(struct tq_mp_out *o, bool wide)
{
    static const uint8_t room[3] = {0xde, 0, 0};
    struct native_map m = {.o = o, .at = o->buf->len, .wide = wide};

    if (wide)
        tq_mp_put_raw(o, tq_span(room, 3));
    else
        tq_mp_put_map(o, 0);
    return m;
}

void native_map_end(struct native_map *m)
{
    uint8_t *at;

    if (m->o->err != 0)
        return;
    at = m->o->buf->data + m->at;
    if (m->wide) {
        at[1] = (uint8_t)(m->pairs >> 8);
        at[2] = (uint8_t)m->pairs;
    } else {
        TQ_ASSERT(m->pairs <= 15);
        at[0] = (uint8_t)(0x80 | m->pairs);
    }
}

size_t native_array_begin(struct tq_mp_out *o)
{
    static const uint8_t room[3] = {0xdc, 0, 0};
    size_t at = o->buf->len;

    tq_mp_put_raw(o, tq_span(room, 3));
    return at;
}

void native_array_end(struct tq_mp_out *o, size_t at, uint32_t count)
{
    TQ_ASSERT(count <= UINT16_MAX);
    if (o->err != 0)
        return;
    o->buf->data[at + 1] = (uint8_t)(count >> 8);
    o->buf->data[at + 2] = (uint8_t)count;
}

/* ---- bodies and records ---- */

void native_put_payload(struct tq_mp_out *o, const struct broker_payload *p, size_t max_bytes)
{
    struct tq_span bytes = tq_span(p->data, p->len);
    int rv;

    if (p->data == NULL) {
        tq_mp_put_nil(o);
        return;
    }
    if (p->format == BROKER_MSGPACK) {
        tq_mp_put_raw(o, bytes);
        return;
    }
    if (o->err != 0)
        return;
    rv = tq_convert_to_msgpack(bytes, p->item_off, p->item_len, max_bytes, o->buf);
    if (rv != TQ_OK)
        o->err = rv;
}

void native_put_ms(struct tq_mp_out *o, const struct native *n, uint64_t broker_ms)
{
    tq_mp_put_i64(o, (int64_t)broker_ms + n->host->unix_offset_ms);
}

static bool is_ascii(struct tq_span s)
{
    uint8_t all = 0;

    for (size_t i = 0; i < s.len; i++)
        all |= s.data[i];
    return all < 0x80;
}

void native_put_text(struct tq_mp_out *o, struct tq_span text)
{
    if (is_ascii(text) || tq_utf8_valid(text))
        tq_mp_put_str(o, text);
    else
        tq_mp_put_bin(o, text);
}

static const char *outcome_name(enum broker_task_outcome outcome)
{
    switch (outcome) {
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
    case BROKER_OUTCOME_NONE:
        break;
    }
    return "";
}

/* Inline, so that the length of `key` is known to the compiler: every result has most of these fields. */
static inline __attribute__((always_inline)) void put_span(struct native_map *m, const char *key,
                                                           struct tq_span v)
{
    if (v.len == 0)
        return;
    native_key(m, key);
    native_put_text(m->o, v);
}

static inline __attribute__((always_inline)) void put_time(struct native_map *m, const struct native *n,
                                                           const char *key, uint64_t ms)
{
    if (ms == 0)
        return;
    native_key(m, key);
    native_put_ms(m->o, n, ms);
}

/* What is known of a task by anybody, and what a result or dead letter tells on top of it. */
static void put_common(struct native_map *m, const struct native *n, const struct broker_view *v)
{
    put_span(m, "key", v->key);
    put_span(m, "trace", v->trace);
    if (v->priority != 0) {
        native_key(m, "priority");
        tq_mp_put_i64(m->o, v->priority);
    }
    if (v->outcome == BROKER_OUTCOME_NONE)
        put_time(m, n, "expires_ms", v->expires_ms);
    put_span(m, "error", v->error);
    if (v->code != 0) {
        native_key(m, "code");
        tq_mp_put_i64(m->o, v->code);
    }
    if (v->outcome == BROKER_OUTCOME_NONE)
        return;
    native_key(m, "outcome");
    tq_mp_put_cstr(m->o, outcome_name(v->outcome));
    if (v->tries > 0) {
        native_key(m, "attempt");
        tq_mp_put_u64(m->o, v->tries);
    }
    if (v->of != 0 && v->of != v->id) {
        native_key(m, "of");
        tq_mp_put_u64(m->o, v->of);
    }
    put_span(m, "worker", v->worker);
    if (v->from != NULL && v->from[0] != '\0')
        put_span(m, "from", tq_span_str(v->from));
    put_time(m, n, "put_ms", v->put_ms);
    put_time(m, n, "started_ms", v->started_ms);
    put_time(m, n, "ended_ms", v->ended_ms);
}

bool native_has_info(const struct broker_view *v)
{
    return v->outcome != BROKER_OUTCOME_NONE || v->key.len > 0 || v->trace.len > 0 || v->error.len > 0 ||
           v->priority != 0 || v->expires_ms != 0 || v->code != 0;
}

void native_put_info(struct tq_mp_out *o, const struct native *n, const struct broker_view *v)
{
    struct native_map m = native_map_begin(o, false);

    put_common(&m, n, v);
    native_map_end(&m);
}

void native_put_record(struct tq_mp_out *o, const struct native *n, const struct broker_view *v, bool listed,
                       bool value)
{
    struct native_map m = native_map_begin(o, true);

    native_key(&m, "id");
    tq_mp_put_u64(o, v->id);
    if (v->outcome == BROKER_OUTCOME_NONE) {
        native_key(&m, "attempt");
        tq_mp_put_u64(o, v->attempt);
    }
    if (listed) {
        native_key(&m, "state");
        tq_mp_put_cstr(o, v->state);
        if (v->queue != NULL) {
            native_key(&m, "q");
            tq_mp_put_cstr(o, broker_queue_name(v->queue));
        }
        put_time(&m, n, "due_ms", v->due_ms);
        if (v->outcome == BROKER_OUTCOME_NONE)
            put_time(&m, n, "put_ms", v->put_ms);
    }
    if (value && v->payload.data != NULL) {
        native_key(&m, "value");
        native_put_payload(o, &v->payload, n->host->limits.frame_bytes);
    }
    put_common(&m, n, v);
    native_map_end(&m);
}

/* ---- text ---- */

const char *native_quote(struct tq_span bytes)
{
    static char quoted[4][NATIVE_QUOTED_MAX];
    static unsigned next;
    char *out = quoted[next++ % 4];

    return tq_log_quote(out, NATIVE_QUOTED_MAX, bytes.data, bytes.len);
}

void native_log(const struct native *n, enum native_log_level level, const char *id, const char *fmt, ...)
{
    char text[NATIVE_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    n->host->log(n->host->ctx, level, id, text);
}
