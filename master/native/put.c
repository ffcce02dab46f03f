/* put: one task after the other, each a step of the broker. If one has to wait for room, the rest of the
 * request is kept, and goes on when that one is in. */
#include "master/native/native_impl.h"

#include <stdio.h>

#include "common/mem.h"

#define MS_MAX ((int64_t)1 << 53)

struct option_fields {
    struct tq_span key, trace, result;
    int64_t priority;
    uint64_t delay_ms, ttl_ms;
    uint32_t max_attempts, retention_ms;
};

enum { OPT_KEY, OPT_PRIORITY, OPT_DELAY, OPT_TTL, OPT_ATTEMPTS, OPT_RESULT, OPT_RETENTION, OPT_TRACE };

static const struct native_field option_list[] = {
    [OPT_KEY] =
        NATIVE_FIELD(struct option_fields, key, FIELD_BYTES, .nil = true, .least = 1, .most = BROKER_KEY_MAX),
    [OPT_PRIORITY] =
        NATIVE_FIELD(struct option_fields, priority, FIELD_I64, .least = INT32_MIN, .most = INT32_MAX),
    [OPT_DELAY] = NATIVE_FIELD(struct option_fields, delay_ms, FIELD_U64, .most = MS_MAX),
    [OPT_TTL] = NATIVE_FIELD(struct option_fields, ttl_ms, FIELD_U64, .most = MS_MAX),
    [OPT_ATTEMPTS] =
        NATIVE_FIELD(struct option_fields, max_attempts, FIELD_U32, .least = 1, .most = BROKER_ATTEMPTS_MAX),
    [OPT_RESULT] = NATIVE_FIELD(struct option_fields, result, FIELD_TEXT, .nil_said = true),
    [OPT_RETENTION] = NATIVE_FIELD(struct option_fields, retention_ms, FIELD_U32,
                                   .most = (int64_t)BROKER_RETENTION_AUTO - 1),
    [OPT_TRACE] = NATIVE_FIELD(struct option_fields, trace, FIELD_BYTES, .nil = true, .least = 1,
                               .most = BROKER_TRACE_MAX),
};

/* A map of options, on top of those that are in *opts already. */
static bool parse_options(struct native_conn *c, struct tq_mp *in, const char *what,
                          struct broker_put_options *opts, struct native_bad *bad)
{
    struct option_fields f = {0};
    uint32_t said, nils;

    if (!native_parse_map(in, &NATIVE_FIELDS(option_list), &f, &said, &nils, what, bad))
        return false;
    if (said & 1u << OPT_KEY)
        opts->key = f.key;
    if (said & 1u << OPT_PRIORITY)
        opts->priority = (int32_t)f.priority;
    if (said & 1u << OPT_DELAY)
        opts->delay_ms = f.delay_ms;
    if (said & 1u << OPT_TTL)
        opts->ttl_ms = f.ttl_ms;
    if (said & 1u << OPT_ATTEMPTS)
        opts->max_attempts = (uint8_t)f.max_attempts;
    if (said & 1u << OPT_RETENTION) {
        opts->has_retention = true;
        opts->retention_ms = f.retention_ms;
    }
    if (said & 1u << OPT_TRACE)
        opts->trace = f.trace;
    if (!(said & 1u << OPT_RESULT))
        return true;
    opts->has_result = true;
    opts->result = NULL;
    if (nils & 1u << OPT_RESULT)
        return true;
    opts->result = native_find_queue(c->native, f.result, "result", bad);
    return opts->result != NULL && native_may(c, KEY_LOOK, "put with a result", opts->result, bad);
}

/* ---- one after the other ---- */

static void refuse(struct native_put *p, enum native_code code, const char *text)
{
    p->refused = code;
    (void)snprintf(p->refused_text, sizeof(p->refused_text), "%s", text);
}

static void finish(struct native_call *call)
{
    struct native_put *p = call->put;
    struct native_out out;

    call->ended = true;
    if (p->index == 0 && p->refused != CODE_NONE) {
        native_reply_error(call->conn, call->msgid, p->refused, p->refused_text);
        return;
    }
    out = native_reply_begin(call->conn, call->msgid);
    tq_mp_put_map(&out.o, 1u + (p->known_count > 0) + (p->refused != CODE_NONE));
    tq_mp_put_cstr(&out.o, "ids");
    tq_mp_put_array(&out.o, p->index);
    tq_mp_put_raw(&out.o, tq_buf_span(&p->ids));
    if (p->known_count > 0) {
        tq_mp_put_cstr(&out.o, "known");
        tq_mp_put_array(&out.o, p->known_count);
        tq_mp_put_raw(&out.o, tq_buf_span(&p->known));
    }
    if (p->refused != CODE_NONE) {
        tq_mp_put_cstr(&out.o, "refused");
        tq_mp_put_array(&out.o, 3);
        tq_mp_put_u64(&out.o, p->index);
        tq_mp_put_cstr(&out.o, native_code_names[p->refused]);
        tq_mp_put_cstr(&out.o, p->refused_text);
    }
    (void)native_out_end(&out);
}

void native_put_cut(struct native_call *call, enum native_code code, const char *text)
{
    refuse(call->put, code, text);
    finish(call);
}

/* The task's options; *ret: NULL when it has none. */
static bool next_options(struct native_call *call, uint32_t parts, struct broker_put_options *space,
                         const struct broker_put_options **ret, struct native_bad *bad)
{
    struct native_put *p = call->put;

    *ret = p->opts.len > 0 ? &p->common : NULL;
    if (parts < 2 || tq_mp_nil(&p->at))
        return true;
    *space = p->common;
    *ret = space;
    return parse_options(call->conn, &p->at, "options", space, bad);
}

static int step_next(struct native_call *call, struct broker_event *ev)
{
    struct native_put *p = call->put;
    struct broker_put_options space;
    struct native_bad bad;
    struct tq_span body = {0};
    uint32_t parts = 0;
    int rv;

    (void)tq_mp_array(&p->at, &parts);
    (void)tq_mp_raw(&p->at, &body);
    if (!next_options(call, parts, &space, &ev->options, &bad)) {
        refuse(p, bad.code, bad.text);
        ev->options = NULL;
        return TQ_OK;
    }
    for (uint32_t i = 2; i < parts; i++)
        (void)tq_mp_skip(&p->at);
    ev->payload = (struct broker_payload){.data = body.data,
                                          .len = (uint32_t)body.len,
                                          .format = BROKER_MSGPACK,
                                          .item_len = (uint32_t)body.len};
    rv = native_step(call, ev);
    ev->options = NULL;
    if (rv != TQ_OK)
        refuse(p, CODE_MEMORY, NATIVE_NO_MEMORY);
    return rv;
}

static void set_wait(const struct native_call *call, struct broker_event *ev)
{
    const struct native_put *p = call->put;
    uint64_t now;

    ev->wait_mode = BROKER_NO_WAIT;
    if (p->until_ms == UINT64_MAX) {
        ev->wait_mode = BROKER_WAIT_FOREVER;
    } else if (p->until_ms > 0 && (now = native_now(call->conn->native)) < p->until_ms) {
        ev->wait_mode = BROKER_WAIT_MS;
        ev->wait_ms = p->until_ms - now;
    }
}

/* Until it has ended, or one has no reply yet. `together`: whoever waits for tasks is served after the last
 * one; not in a queue that may become full, where they make room. */
static void run(struct native_call *call, bool together)
{
    struct native_put *p = call->put;
    struct broker_event ev = {.kind = BROKER_PUT, .queue = call->queue};
    size_t max_bytes = call->conn->native->host->limits.reply_bytes;

    set_wait(call, &ev);
    p->stepping = true;
    while (p->refused == CODE_NONE && p->index < p->count) {
        uint32_t before = p->index;

        ev.more = together && p->index + 1 < p->count;
        (void)step_next(call, &ev);
        if (p->index == before && p->refused == CODE_NONE)
            break;
        if (p->known.len > max_bytes && p->refused == CODE_NONE && p->index < p->count)
            refuse(p, CODE_TOO_MANY, "the records of known tasks fill this reply: put the rest again");
    }
    p->stepping = false;
    if (p->refused != CODE_NONE || p->index == p->count)
        finish(call);
}

/* Whoever waits is served after steps with `more`, of which none was the last. */
static void serve_others(struct native_conn *c)
{
    struct native_host *h = c->native->host;
    struct broker_event ev = {.kind = BROKER_CANCEL, .session = &c->session->ep.session};

    (void)h->step(h->ctx, &ev);
}

static void add_known(struct native_call *call, const struct broker_effect *fx)
{
    struct native_put *p = call->put;
    struct native *n = call->conn->native;
    struct tq_mp_out o = tq_mp_out(&p->known);
    struct broker_view v;

    tq_mp_put_array(&o, 3);
    tq_mp_put_u64(&o, p->index);
    if (fx->copy != NULL) {
        tq_mp_put_cstr(&o, fx->copy->state);
        native_put_record(&o, n, fx->copy, false, true);
    } else {
        tq_mp_put_cstr(&o, broker_view_task(n->host->broker, fx->id, &v) ? v.state : "done");
        tq_mp_put_nil(&o);
    }
    p->known_count++;
    if (o.err != 0)
        native_close(call->conn, NATIVE_CLOSE_NOW, "out of memory for its reply");
}

static void taken_in(struct native_call *call, const struct broker_effect *fx)
{
    struct native_put *p = call->put;
    struct tq_mp_out o = tq_mp_out(&p->ids);

    if (p->ids.data == NULL)
        native_buf_take(call->conn->native, &p->ids, (size_t)BROKER_GET_MAX * 9);
    tq_mp_put_u64(&o, fx->id);
    if (o.err != 0)
        native_close(call->conn, NATIVE_CLOSE_NOW, "out of memory for its reply");
    if (fx->outcome == BROKER_REPLY_KNOWN) {
        if (p->known.data == NULL)
            native_buf_take(call->conn->native, &p->known, INT32_MAX);
        add_known(call, fx);
    }
    p->index++;
}

void native_put_effect(struct native_call *call, struct broker_effect *fx)
{
    struct native_put *p = call->put;

    if (fx->outcome == BROKER_REPLY_OK || fx->outcome == BROKER_REPLY_KNOWN)
        taken_in(call, fx);
    else
        refuse(p, native_code_of(fx->outcome), native_text_of(fx));
    if (p->stepping)
        return;
    if (p->opts.len > 0 && p->index < p->count && p->refused == CODE_NONE) {
        /* queues that options name may have gone meanwhile */
        struct tq_mp in = tq_mp_of(p->opts);
        struct native_bad bad;

        p->common = (struct broker_put_options){0};
        if (!parse_options(call->conn, &in, "opts", &p->common, &bad))
            refuse(p, bad.code, bad.text);
    }
    run(call, false);
}

/* ---- the request ---- */

struct put_fields {
    struct tq_span q, tasks, opts;
    int64_t wait_ms;
};

static const struct native_field put_list[] = {
    NATIVE_FIELD(struct put_fields, q, FIELD_TEXT, 0),
    NATIVE_FIELD(struct put_fields, tasks, FIELD_ARRAY, 0),
    NATIVE_FIELD(struct put_fields, opts, FIELD_RAW, .nil = true),
    NATIVE_WAIT_FIELD(struct put_fields),
};

/* All tasks are looked at before the first one is put: a request that is wrong changes nothing. */
static bool check_tasks(struct native_conn *c, struct native_put *p, struct native_bad *bad)
{
    struct tq_mp at = p->at;

    for (uint32_t i = 0; i < p->count; i++) {
        struct broker_put_options opts = p->common;
        uint32_t parts;
        char what[40];

        if (!tq_mp_array(&at, &parts) || parts == 0)
            return native_bad(bad, CODE_BAD_REQUEST, "tasks[%u] must be [body] or [body, options]", i);
        (void)tq_mp_skip(&at);
        if (parts >= 2 && !tq_mp_nil(&at)) {
            (void)snprintf(what, sizeof(what), "tasks[%u]", i);
            if (!parse_options(c, &at, what, &opts, bad))
                return false;
        }
        for (uint32_t k = 2; k < parts; k++)
            (void)tq_mp_skip(&at);
    }
    return true;
}

static bool parse_put(struct native_request *r, struct native_put *p, struct broker_queue **ret_q,
                      struct native_bad *bad)
{
    struct native_conn *c = r->conn;
    struct put_fields f = {0};

    if (!native_params(&r->params, &NATIVE_FIELDS(put_list), &f, NULL, bad))
        return false;
    *ret_q = native_find_queue(c->native, f.q, "q", bad);
    if (*ret_q == NULL || !native_may(c, KEY_PUT, "put", *ret_q, bad))
        return false;
    p->at = tq_mp_of(f.tasks);
    if (!tq_mp_array(&p->at, &p->count) || p->count == 0 || p->count > c->native->host->limits.batch)
        return native_bad(bad, CODE_BAD_REQUEST, "tasks must be an array of 1 to %u tasks",
                          c->native->host->limits.batch);
    if (f.opts.len > 0) {
        struct tq_mp in = tq_mp_of(f.opts);

        if (!parse_options(c, &in, "opts", &p->common, bad))
            return false;
    }
    p->opts = f.opts;
    if (f.wait_ms != 0 && !native_call_may_wait(c, bad))
        return false;
    if (f.wait_ms < 0)
        p->until_ms = UINT64_MAX;
    else if (f.wait_ms > 0)
        p->until_ms = native_now(c->native) + (uint64_t)f.wait_ms;
    return check_tasks(c, p, bad);
}

/* What is kept of puts that wait: all together, and of one connection not more than one frame. */
static bool may_keep(const struct native_conn *c, size_t bytes)
{
    const struct native_limits *limits = &c->native->host->limits;
    size_t kept = bytes;

    for (const struct native_call *call = c->calls; call != NULL; call = call->next) {
        if (call->put != NULL)
            kept += call->put->copy_bytes;
    }
    return kept <= limits->frame_bytes && bytes <= limits->parked_bytes &&
           c->native->parked_bytes <= limits->parked_bytes - bytes;
}

/* The frame goes; what is still to do is copied out of it. */
static bool keep_rest(struct native_call *call)
{
    struct native_put *p = call->put;
    size_t rest = p->index + 1 < p->count ? (size_t)(p->at.end - p->at.at) : 0;
    size_t opts = p->opts.len;

    if (rest == 0) {
        p->at = (struct tq_mp){0};
        p->opts = (struct tq_span){0};
        return true;
    }
    if (!may_keep(call->conn, rest + opts))
        return false;
    p->copy = tq_malloc(rest + opts);
    if (p->copy == NULL)
        return false;
    p->copy_bytes = rest + opts;
    call->conn->native->parked_bytes += p->copy_bytes;
    memcpy(p->copy, p->at.at, rest);
    if (opts > 0)
        memcpy(p->copy + rest, p->opts.data, opts);
    p->at = (struct tq_mp){.at = p->copy, .end = p->copy + rest};
    p->opts = tq_span(p->copy + rest, opts);
    return true;
}

void native_request_put(struct native_request *r)
{
    struct native_put p = {0};
    struct native_bad bad;
    struct native_call call;
    struct broker_queue *q;
    bool together, waits;

    if (!parse_put(r, &p, &q, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_PUT) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    call.put = &p;
    call.queue = q;
    together = broker_queue_conf(q)->maxsize <= 0;
    run(&call, together);
    if (!call.ended && !keep_rest(&call)) {
        native_call_cancel(&call, CODE_MEMORY, "no room to keep the rest of this put while it waits");
        return;
    }
    waits = native_call_settle(&call) != NULL;
    if (together && (waits || p.refused != CODE_NONE))
        serve_others(r->conn);
}
