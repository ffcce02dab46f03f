/* Tasks out and back: get, done, fail, extend, release. */
#include "master/native/native_impl.h"

#include "common/assert.h"
#include "common/mem.h"

#define MS_MAX ((int64_t)1 << 53)

/* ---- replies with tasks ---- */

static void deliver_begin(struct native_call *call)
{
    struct native_delivery *d = &call->conn->native->delivery;

    d->token = call->token;
    d->count = 0;
    d->bounced_count = 0;
    d->declined = native_is_behind(call->conn);
    d->out = native_reply_begin(call->conn, call->msgid);
    tq_mp_put_map(&d->out.o, 1 + native_tally_pairs(call->tally));
    native_tally_put(&d->out.o, call->tally);
    tq_mp_put_cstr(&d->out.o, "tasks");
    d->count_at = native_array_begin(&d->out.o);
}

/* True: it is noted, to go back to the front. */
static bool bounce_later(struct native_delivery *d, const struct broker_effect *fx)
{
    if (d->bounced_count == d->bounced_cap) {
        uint32_t cap = d->bounced_cap > 0 ? d->bounced_cap * 2 : 64;
        struct broker_lease_name *list = tq_realloc(d->bounced, cap * sizeof(*list));

        if (list == NULL)
            return false;
        d->bounced = list;
        d->bounced_cap = cap;
    }
    d->bounced[d->bounced_count++] = (struct broker_lease_name){.id = fx->id, .epoch = fx->epoch};
    return true;
}

static void deliver_task(struct native_call *call, const struct broker_effect *fx)
{
    struct native *n = call->conn->native;
    struct native_delivery *d = &n->delivery;
    size_t used = d->out.conn->out.len - d->out.start;
    size_t body_max = n->host->limits.frame_bytes;
    struct broker_view space;
    const struct broker_view *v = &space;
    bool info;

    if (fx->copy != NULL) {
        v = fx->copy;
        /* It cannot go back: of a Python item that becomes much larger as msgpack, the pickle is sent. */
        if (d->count > 0)
            body_max = v->payload.len + 64u;
    } else {
        if ((d->declined || (d->count > 0 && used > n->host->limits.reply_bytes)) && bounce_later(d, fx))
            return;
        if (!broker_view_lease(n->host->broker, fx, &space))
            return;
    }
    info = native_has_info(v);
    tq_mp_put_array(&d->out.o, info ? 5 : 4);
    tq_mp_put_u64(&d->out.o, fx->id);
    tq_mp_put_u64(&d->out.o, fx->epoch);
    tq_mp_put_u64(&d->out.o, fx->attempt);
    native_put_payload(&d->out.o, &v->payload, body_max);
    if (info)
        native_put_info(&d->out.o, n, v);
    d->count++;
}

static void deliver_end(struct native_call *call)
{
    struct native *n = call->conn->native;
    struct native_delivery *d = &n->delivery;

    native_array_end(&d->out.o, d->count_at, d->count);
    (void)native_out_end(&d->out);
    d->token = 0;
    call->ended = true;
    while (d->bounced_count > 0) { /* the last one first, so that the first one is in front */
        const struct broker_lease_name *l = &d->bounced[--d->bounced_count];
        struct broker_event ev = {.kind = BROKER_BOUNCE,
                                  .more = d->bounced_count > 0,
                                  .session = &call->conn->session->ep.session,
                                  .id = l->id,
                                  .epoch = l->epoch};

        (void)n->host->step(n->host->ctx, &ev);
    }
    if (d->bounced_cap > 4096) {
        tq_free(d->bounced);
        d->bounced = NULL;
        d->bounced_cap = 0;
    }
}

void native_get_none(struct native_call *call, enum native_code code, const char *text)
{
    struct native_out out = native_reply_begin(call->conn, call->msgid);

    tq_mp_put_map(&out.o, 1u + native_tally_pairs(call->tally) + (code != CODE_NONE));
    native_tally_put(&out.o, call->tally);
    tq_mp_put_cstr(&out.o, "tasks");
    tq_mp_put_array(&out.o, 0);
    if (code != CODE_NONE) {
        tq_mp_put_cstr(&out.o, "get_error");
        tq_mp_put_array(&out.o, 2);
        tq_mp_put_cstr(&out.o, native_code_names[code]);
        tq_mp_put_cstr(&out.o, text);
    }
    (void)native_out_end(&out);
    call->ended = true;
}

void native_get_effect(struct native_call *call, struct broker_effect *fx)
{
    struct native_delivery *d = &call->conn->native->delivery;

    switch (fx->outcome) {
    case BROKER_REPLY_TASK:
        if (d->token == 0)
            deliver_begin(call);
        deliver_task(call, fx);
        break;
    case BROKER_REPLY_END:
        if (d->token == 0)
            deliver_begin(call);
        deliver_end(call);
        break;
    case BROKER_REPLY_EMPTY:
        native_get_none(call, CODE_NONE, "");
        break;
    default:
        if (call->tally != NULL)
            native_get_none(call, native_code_of(fx->outcome), native_text_of(fx));
        else
            native_reply_error(call->conn, call->msgid, native_code_of(fx->outcome), native_text_of(fx));
        call->ended = true;
    }
}

/* ---- get ---- */

struct get_fields {
    struct tq_span q;
    uint32_t max;
    int64_t wait_ms;
    bool take;
};

static const struct native_field get_list[] = {
    NATIVE_FIELD(struct get_fields, q, FIELD_TEXT, 0),
    NATIVE_FIELD(struct get_fields, max, FIELD_U32, .least = 1, .most = UINT32_MAX),
    NATIVE_WAIT_FIELD(struct get_fields),
    NATIVE_FIELD(struct get_fields, take, FIELD_BOOL, 0),
};

static bool check_get(struct native_conn *c, const struct get_fields *f, struct broker_queue **ret_q,
                      struct native_bad *bad)
{
    *ret_q = native_find_queue(c->native, f->q, "q", bad);
    if (*ret_q == NULL || !native_may(c, KEY_GET, "get", *ret_q, bad))
        return false;
    if (f->max > c->native->host->limits.batch)
        return native_bad(bad, CODE_BAD_REQUEST, "max must be 1 to %u", c->native->host->limits.batch);
    return f->wait_ms == 0 || native_call_may_wait(c, bad);
}

static void step_get(struct native_call *call, const struct get_fields *f)
{
    struct broker_event ev = {.kind = BROKER_GET,
                              .queue = call->queue,
                              .max = f->max,
                              .max_bytes = call->conn->native->host->limits.reply_bytes,
                              .take = f->take};

    native_wait_mode(f->wait_ms, &ev.wait_mode, &ev.wait_ms);
    if (native_step(call, &ev) == TQ_OK)
        return;
    if (call->tally != NULL)
        native_get_none(call, CODE_MEMORY, NATIVE_NO_MEMORY);
    else
        native_reply_error(call->conn, call->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
    call->ended = true;
}

void native_request_get(struct native_request *r)
{
    struct get_fields f = {.max = 1};
    struct native_call call;
    struct native_bad bad;
    struct broker_queue *q;

    if (!native_params(&r->params, &NATIVE_FIELDS(get_list), &f, NULL, &bad) ||
        !check_get(r->conn, &f, &q, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_GET) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    call.queue = q;
    step_get(&call, &f);
    (void)native_call_settle(&call);
}

/* ---- the tally of what was accepted ---- */

unsigned native_tally_pairs(const struct native_tally *t)
{
    return t == NULL ? 0 : 1u + (t->refused_count > 0);
}

void native_tally_put(struct tq_mp_out *o, const struct native_tally *t)
{
    if (t == NULL)
        return;
    tq_mp_put_cstr(o, "ok");
    tq_mp_put_u64(o, t->ok);
    if (t->refused_count == 0)
        return;
    tq_mp_put_cstr(o, "refused");
    tq_mp_put_array(o, t->refused_count);
    tq_mp_put_raw(o, tq_buf_span(&t->refused));
}

void native_tally_refuse(struct native_call *call, enum native_code code)
{
    struct native_tally *t = call->tally;
    struct tq_mp_out o = tq_mp_out(&t->refused);

    if (t->refused.data == NULL)
        native_buf_take(call->conn->native, &t->refused, (size_t)BROKER_GET_MAX * 64);
    t->refused_count++;
    tq_mp_put_array(&o, 2);
    tq_mp_put_u64(&o, call->id);
    tq_mp_put_cstr(&o, native_code_names[code]);
    if (o.err != 0)
        native_close(call->conn, NATIVE_CLOSE_NOW, "out of memory for its reply");
}

void native_tally_effect(struct native_call *call, struct broker_effect *fx)
{
    if (fx->outcome == BROKER_REPLY_OK)
        call->tally->ok++;
    else
        native_tally_refuse(call, native_code_of(fx->outcome));
}

/* A step for one of them: its reply has come when this returns. */
void native_tally_step(struct native_call *call, struct broker_event *ev)
{
    call->id = ev->id;
    if (native_step(call, ev) != TQ_OK)
        native_tally_refuse(call, CODE_MEMORY);
}

void native_tally_reply(struct native_call *call)
{
    struct native_out out = native_reply_begin(call->conn, call->msgid);

    tq_mp_put_map(&out.o, native_tally_pairs(call->tally));
    native_tally_put(&out.o, call->tally);
    (void)native_out_end(&out);
    call->ended = true;
}

/* ---- done and fail ---- */

struct done_fields {
    struct tq_span done, fail, get, to, or_to;
};

static const struct native_field done_list[] = {
    NATIVE_FIELD(struct done_fields, done, FIELD_ARRAY, .nil = true),
    NATIVE_FIELD(struct done_fields, fail, FIELD_ARRAY, .nil = true),
    NATIVE_FIELD(struct done_fields, get, FIELD_MAP, .nil = true),
    NATIVE_FIELD(struct done_fields, to, FIELD_TEXT, .nil = true),
    NATIVE_FIELD(struct done_fields, or_to, FIELD_TEXT, .nil = true),
};

struct failure_fields {
    struct tq_span error;
    int64_t code;
    uint64_t delay_ms;
    bool final;
};

enum { FAILURE_ERROR, FAILURE_CODE, FAILURE_FINAL, FAILURE_DELAY };

static const struct native_field failure_list[] = {
    [FAILURE_ERROR] = NATIVE_FIELD(struct failure_fields, error, FIELD_TEXT, .nil = true),
    [FAILURE_CODE] = NATIVE_FIELD(struct failure_fields, code, FIELD_I64, .nil = true, .least = INT32_MIN,
                                  .most = INT32_MAX),
    [FAILURE_FINAL] = NATIVE_FIELD(struct failure_fields, final, FIELD_BOOL, 0),
    [FAILURE_DELAY] = NATIVE_FIELD(struct failure_fields, delay_ms, FIELD_U64, .nil = true, .most = MS_MAX),
};

struct done_request {
    struct tq_mp done, fail; /* at their first element */
    uint32_t done_count, fail_count;
    struct broker_queue *to;
    bool to_last;
    bool get;
    struct get_fields get_fields;
    struct broker_queue *get_queue;
};

static bool parse_failure(struct tq_mp *in, uint32_t parts, struct broker_failure *ret,
                          struct native_bad *bad)
{
    struct failure_fields f = {0};
    uint32_t said = 0;

    *ret = (struct broker_failure){0};
    if (parts == 0 || tq_mp_nil(in))
        return true;
    if (!native_parse_map(in, &NATIVE_FIELDS(failure_list), &f, &said, NULL, "fail", bad))
        return false;
    if (f.error.len > BROKER_ERROR_MAX) {
        f.error.len = BROKER_ERROR_MAX;
        /* not within a character */
        while (f.error.len > BROKER_ERROR_MAX - 4 && (f.error.data[f.error.len] & 0xc0) == 0x80)
            f.error.len--;
    }
    *ret = (struct broker_failure){.error = f.error,
                                   .code = (int32_t)f.code,
                                   .final = f.final,
                                   .has_delay = (said & 1u << FAILURE_DELAY) != 0,
                                   .delay_ms = f.delay_ms};
    return true;
}

/* All of them are looked at before the first one is done. */
static bool check_entries(const struct native *n, struct tq_span array, bool fail, struct tq_mp *ret_at,
                          uint32_t *ret_count, struct native_bad *bad)
{
    const char *name = fail ? "fail" : "done";
    struct tq_mp at = tq_mp_of(array);
    struct broker_lease_name lease;
    struct broker_failure failure;
    struct tq_mp rest = {0};
    uint32_t parts = 0;

    if (array.len == 0)
        return true;
    (void)tq_mp_array(&at, ret_count);
    if (*ret_count > n->host->limits.batch)
        return native_bad(bad, CODE_BAD_REQUEST, "%s must have at most %u elements", name,
                          n->host->limits.batch);
    *ret_at = at;
    for (uint32_t i = 0; i < *ret_count; i++) {
        if (!native_parse_lease(&at, &lease, &rest, &parts))
            return native_bad(bad, CODE_BAD_REQUEST, "%s[%u] must be [id, epoch, %s]", name, i,
                              fail ? "failure" : "value");
        if (fail && !parse_failure(&rest, parts, &failure, bad))
            return false;
    }
    return true;
}

static bool parse_done(struct native_request *r, struct done_request *d, struct native_bad *bad)
{
    struct native_conn *c = r->conn;
    struct done_fields f = {0};

    if (!native_params(&r->params, &NATIVE_FIELDS(done_list), &f, NULL, bad))
        return false;
    if (f.done.len == 0 && f.fail.len == 0)
        return native_bad(bad, CODE_BAD_REQUEST, "done or fail is missing: [[id, epoch, ...], ...]");
    if (!check_entries(c->native, f.done, false, &d->done, &d->done_count, bad) ||
        !check_entries(c->native, f.fail, true, &d->fail, &d->fail_count, bad))
        return false;
    if (f.to.data != NULL) {
        d->to = native_find_queue(c->native, f.to, "to", bad);
        if (d->to == NULL || !native_may(c, KEY_PUT, "have results put", d->to, bad))
            return false;
    } else if (f.or_to.data != NULL) { /* a default: fine if it is not to be had */
        struct native_bad none;

        d->to_last = true;
        d->to = broker_find(c->native->host->broker, f.or_to);
        if (d->to != NULL && !native_may(c, KEY_PUT, "have results put", d->to, &none))
            d->to = NULL;
    }
    if (f.get.len > 0) {
        struct tq_mp in = tq_mp_of(f.get);

        d->get = true;
        if (!native_parse_map(&in, &NATIVE_FIELDS(get_list), &d->get_fields, NULL, NULL, "get", bad) ||
            !check_get(c, &d->get_fields, &d->get_queue, bad))
            return false;
    }
    return true;
}

static void step_done(struct native_call *call, struct done_request *d)
{
    struct broker_event ev = {.kind = BROKER_DONE, .result_to = d->to, .result_to_last = d->to_last};
    struct broker_lease_name lease = {0};
    struct tq_mp rest = {0};
    uint32_t parts = 0;

    for (uint32_t i = 0; i < d->done_count; i++) {
        struct tq_span value = {0};

        (void)native_parse_lease(&d->done, &lease, &rest, &parts);
        if (parts > 0)
            (void)tq_mp_raw(&rest, &value);
        ev.id = lease.id;
        ev.epoch = lease.epoch;
        ev.payload = (struct broker_payload){.data = value.data,
                                             .len = (uint32_t)value.len,
                                             .format = BROKER_MSGPACK,
                                             .item_len = (uint32_t)value.len};
        ev.more = d->get || i + 1 < d->done_count || d->fail_count > 0;
        native_tally_step(call, &ev);
    }
}

static void step_fail(struct native_call *call, struct done_request *d)
{
    struct broker_failure failure;
    struct broker_event ev = {
        .kind = BROKER_FAIL, .failure = &failure, .result_to = d->to, .result_to_last = d->to_last};
    struct broker_lease_name lease = {0};
    struct native_bad bad;
    struct tq_mp rest = {0};
    uint32_t parts = 0;

    for (uint32_t i = 0; i < d->fail_count; i++) {
        (void)native_parse_lease(&d->fail, &lease, &rest, &parts);
        (void)parse_failure(&rest, parts, &failure, &bad);
        ev.id = lease.id;
        ev.epoch = lease.epoch;
        ev.more = d->get || i + 1 < d->fail_count;
        native_tally_step(call, &ev);
    }
}

void native_request_done(struct native_request *r, enum native_method method)
{
    struct done_request d = {.get_fields = {.max = 1}};
    struct native_tally tally = {0};
    struct native_call call;
    struct native_bad bad;

    if (!parse_done(r, &d, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, method) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    call.tally = &tally;
    step_done(&call, &d);
    step_fail(&call, &d);
    if (d.get) {
        call.queue = d.get_queue;
        step_get(&call, &d.get_fields);
    } else {
        native_tally_reply(&call);
    }
    (void)native_call_settle(&call);
}

/* ---- extend, release ---- */

struct lease_fields {
    struct tq_span leases;
    uint64_t ms;
};

static const struct native_field lease_list[] = {
    NATIVE_FIELD(struct lease_fields, leases, FIELD_ARRAY, 0),
    NATIVE_FIELD(struct lease_fields, ms, FIELD_U64, .nil = true, .most = MS_MAX),
};

/* *ret_leases is from tq_malloc. */
static bool parse_leases(struct native_request *r, struct lease_fields *f,
                         struct broker_lease_name **ret_leases, uint32_t *ret_count, struct native_bad *bad)
{
    uint32_t most = r->conn->native->host->limits.batch;
    struct broker_lease_name *leases;
    struct tq_mp at, rest;
    uint32_t parts = 0;

    if (!native_params(&r->params, &NATIVE_FIELDS(lease_list), f, NULL, bad))
        return false;
    at = tq_mp_of(f->leases);
    if (!tq_mp_array(&at, ret_count) || *ret_count > most)
        return native_bad(bad, CODE_BAD_REQUEST, "leases must be an array of up to %u [id, epoch]", most);
    leases = tq_malloc((*ret_count + 1) * sizeof(*leases));
    if (leases == NULL)
        return native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
    for (uint32_t i = 0; i < *ret_count; i++) {
        if (!native_parse_lease(&at, &leases[i], &rest, &parts)) {
            tq_free(leases);
            return native_bad(bad, CODE_BAD_REQUEST, "leases[%u] must be [id, epoch]", i);
        }
    }
    *ret_leases = leases;
    return true;
}

/* What is released goes to the front, so the last one is released first: they come out in the order in which
 * they were named. */
void native_request_leases(struct native_request *r, enum native_method method)
{
    struct broker_event ev = {.kind = method == NATIVE_EXTEND ? BROKER_EXTEND : BROKER_RELEASE};
    struct broker_lease_name *leases = NULL;
    struct native_tally tally = {0};
    struct lease_fields f = {0};
    struct native_call call;
    struct native_bad bad;
    uint32_t count = 0;

    if (!parse_leases(r, &f, &leases, &count, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, method) != TQ_OK) {
        tq_free(leases);
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    TQ_ASSERT(leases != NULL);
    call.tally = &tally;
    ev.wait_ms = f.ms;
    for (uint32_t i = 0; i < count; i++) {
        const struct broker_lease_name *l = &leases[method == NATIVE_RELEASE ? count - 1 - i : i];

        ev.id = l->id;
        ev.epoch = l->epoch;
        ev.more = i + 1 < count;
        native_tally_step(&call, &ev);
    }
    tq_free(leases);
    native_tally_reply(&call);
    (void)native_call_settle(&call);
}
