/* Waiting: for a result, for all to be done; and the end of waiting. */
#include "master/native/native_impl.h"

#include "common/mem.h"

/* ---- wait ---- */

struct wait_fields {
    uint64_t id;
    struct tq_span q, key;
    int64_t wait_ms;
};

enum { WAIT_ID, WAIT_Q, WAIT_KEY };

static const struct native_field wait_list[] = {
    [WAIT_ID] = NATIVE_FIELD(struct wait_fields, id, FIELD_U64, .nil = true, .most = INT64_MAX),
    [WAIT_Q] = NATIVE_FIELD(struct wait_fields, q, FIELD_TEXT, .nil = true),
    [WAIT_KEY] =
        NATIVE_FIELD(struct wait_fields, key, FIELD_BYTES, .nil = true, .least = 1, .most = BROKER_KEY_MAX),
    NATIVE_WAIT_FIELD(struct wait_fields),
};

/* Who may put to or get from the queue of the task. */
static bool may_wait_for(struct native_conn *c, uint64_t id, struct native_bad *bad)
{
    struct broker_view v;

    if (!broker_view_task(c->native->host->broker, id, &v))
        return native_bad(bad, CODE_UNKNOWN, "there is no task %llu (any more)", (unsigned long long)id);
    return native_may_task(c, KEY_PUT | KEY_GET, "wait", &v, bad);
}

static bool parse_wait(struct native_request *r, struct wait_fields *f, struct broker_event *ev,
                       struct native_bad *bad)
{
    struct native_conn *c = r->conn;
    uint32_t said;

    if (!native_params(&r->params, &NATIVE_FIELDS(wait_list), f, &said, bad))
        return false;
    if (said & 1u << WAIT_ID) {
        if (!may_wait_for(c, f->id, bad))
            return false;
        ev->id = f->id;
    } else {
        if (!(said & 1u << WAIT_KEY))
            return native_bad(bad, CODE_BAD_REQUEST, "id is missing, or q and key");
        ev->queue = native_find_queue(c->native, f->q, "q", bad);
        if (ev->queue == NULL || !native_may(c, KEY_PUT | KEY_GET, "wait", ev->queue, bad))
            return false;
        ev->key = f->key;
    }
    native_wait_mode(f->wait_ms, &ev->wait_mode, &ev->wait_ms);
    return ev->wait_mode == BROKER_NO_WAIT || native_call_may_wait(c, bad);
}

/* The call, if it waits now. */
static struct native_call *step_or_fail(struct native_call *call, struct broker_event *ev)
{
    if (native_step(call, ev) != TQ_OK) {
        native_reply_error(call->conn, call->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        call->ended = true;
    }
    return native_call_settle(call);
}

void native_request_wait(struct native_request *r)
{
    struct broker_event ev = {.kind = BROKER_WAIT};
    struct wait_fields f = {0};
    struct native_call call, *kept;
    struct native_bad bad;

    if (!parse_wait(r, &f, &ev, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_WAIT) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    call.id = ev.id;
    kept = step_or_fail(&call, &ev);
    if (kept == NULL || ev.queue == NULL)
        return;
    /* A queue may go while a result of it is waited for: its name is what rights are asked for by then. */
    kept->queue_name = tq_strdup(broker_queue_name(ev.queue));
    if (kept->queue_name == NULL)
        native_call_cancel(kept, CODE_MEMORY, NATIVE_NO_MEMORY);
}

void native_wait_effect(struct native_call *call, struct broker_effect *fx)
{
    struct native *n = call->conn->native;
    struct broker_view v;
    struct native_out out;
    uint64_t id = fx->copy != NULL ? fx->copy->id : fx->id != 0 ? fx->id : call->id;
    bool there = fx->copy != NULL;

    call->ended = true;
    if (fx->outcome == BROKER_REPLY_EMPTY)
        there = broker_view_task(n->host->broker, id, &v);
    if (!there) {
        enum native_code code =
            fx->outcome == BROKER_REPLY_EMPTY ? CODE_UNKNOWN : native_code_of(fx->outcome);

        native_reply_error(call->conn, call->msgid, code,
                           code == CODE_UNKNOWN ? "there is no such task (any more)" : native_text_of(fx));
        return;
    }
    if (fx->copy != NULL && native_is_behind(call->conn)) {
        native_reply_error(call->conn, call->msgid, CODE_TOO_MANY,
                           "replies that you have not read yet: read them, then ask for this result again");
        return;
    }
    out = native_reply_begin(call->conn, call->msgid);
    tq_mp_put_map(&out.o, fx->copy != NULL ? 3 : 2);
    tq_mp_put_cstr(&out.o, "id");
    tq_mp_put_u64(&out.o, id);
    tq_mp_put_cstr(&out.o, "state");
    tq_mp_put_cstr(&out.o, fx->copy != NULL ? fx->copy->state : v.state);
    if (fx->copy != NULL) {
        tq_mp_put_cstr(&out.o, "result");
        native_put_record(&out.o, n, fx->copy, false, true);
    }
    (void)native_out_end(&out);
}

/* ---- join ---- */

struct join_fields {
    struct tq_span q;
    int64_t wait_ms;
};

static const struct native_field join_list[] = {
    NATIVE_FIELD(struct join_fields, q, FIELD_TEXT, 0),
    NATIVE_WAIT_FIELD(struct join_fields),
};

void native_request_join(struct native_request *r)
{
    struct broker_event ev = {.kind = BROKER_JOIN};
    struct join_fields f = {0};
    struct native_call call;
    struct native_bad bad;

    if (!native_params(&r->params, &NATIVE_FIELDS(join_list), &f, NULL, &bad) ||
        (ev.queue = native_find_queue(r->conn->native, f.q, "q", &bad)) == NULL ||
        !native_may(r->conn, KEY_PUT, "join", ev.queue, &bad) ||
        (f.wait_ms != 0 && !native_call_may_wait(r->conn, &bad))) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_JOIN) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    native_wait_mode(f.wait_ms, &ev.wait_mode, &ev.wait_ms);
    call.queue = ev.queue;
    (void)step_or_fail(&call, &ev);
}

void native_join_effect(struct native_call *call, struct broker_effect *fx)
{
    struct broker_queue_stats stats = {0};
    struct native_out out;

    call->ended = true;
    if (fx->outcome != BROKER_REPLY_NONE && fx->outcome != BROKER_REPLY_EMPTY &&
        fx->outcome != BROKER_REPLY_OK) {
        native_reply_error(call->conn, call->msgid, native_code_of(fx->outcome), native_text_of(fx));
        return;
    }
    if (fx->outcome == BROKER_REPLY_EMPTY)
        broker_get_queue_stats(call->conn->native->host->broker, call->queue, &stats);
    out = native_reply_begin(call->conn, call->msgid);
    tq_mp_put_map(&out.o, 1);
    tq_mp_put_cstr(&out.o, "unfinished");
    tq_mp_put_u64(&out.o, stats.unfinished);
    (void)native_out_end(&out);
}

/* ---- cancel, ping ---- */

struct cancel_fields {
    uint32_t call;
};

static const struct native_field cancel_list[] = {
    NATIVE_FIELD(struct cancel_fields, call, FIELD_U32, .most = UINT32_MAX),
};

void native_request_cancel(struct native_request *r)
{
    struct cancel_fields f = {0};
    struct native_call *call;
    struct native_bad bad;
    struct native_out out;
    uint32_t said;

    if (!native_params(&r->params, &NATIVE_FIELDS(cancel_list), &f, &said, &bad) ||
        (said == 0 && !native_bad(&bad, CODE_BAD_REQUEST, "call is missing: the msgid of a request"))) {
        native_bad_reply(r, &bad);
        return;
    }
    call = native_call_by_msgid(r->conn, f.call);
    if (call != NULL)
        native_call_cancel(call, CODE_CANCELED, "canceled by cancel");
    if (r->notification)
        return;
    out = native_reply_begin(r->conn, r->msgid);
    tq_mp_put_map(&out.o, 1);
    tq_mp_put_cstr(&out.o, "found");
    tq_mp_put_bool(&out.o, call != NULL);
    (void)native_out_end(&out);
}

void native_request_ping(struct native_request *r)
{
    struct native_out out = native_reply_begin(r->conn, r->msgid);

    tq_mp_put_map(&out.o, 1);
    tq_mp_put_cstr(&out.o, "now_ms");
    native_put_ms(&out.o, r->conn->native, native_now(r->conn->native));
    (void)native_out_end(&out);
}

/* ---- rights that changed ---- */

static bool may_wait_at(struct native_conn *c, struct tq_span name, struct native_bad *bad)
{
    struct native_host *h = c->native->host;

    bad->code = CODE_DENIED;
    return h->allowed(h->ctx, c, KEY_PUT | KEY_GET, "wait", broker_find(h->broker, name), name, bad->text);
}

static bool still_allowed(struct native_call *call, struct native_bad *bad)
{
    struct native_conn *c = call->conn;

    switch ((enum native_method)call->method) {
    case NATIVE_PUT:
        return native_may(c, KEY_PUT, "put", call->queue, bad);
    case NATIVE_JOIN:
        return native_may(c, KEY_PUT, "join", call->queue, bad);
    case NATIVE_WAIT:
        return call->queue_name != NULL ? may_wait_at(c, tq_span_str(call->queue_name), bad)
                                        : may_wait_for(c, call->id, bad);
    case NATIVE_BACKUP:
        return native_may_backup(c, bad);
    default:
        return native_may(c, KEY_GET, "get", call->queue, bad);
    }
}

void native_rights_changed(struct native_conn *c, bool revoked)
{
    struct native_call *call, *next;
    struct native_bad bad;

    if (c->session == NULL)
        return;
    if (revoked)
        native_close(c, NATIVE_CLOSE_NOW, "its key is gone");
    /* Ending one may serve others, which go from the list, too: begin again then. */
    for (call = c->calls; call != NULL; call = next) {
        next = call->next;
        if (call->checked || (!revoked && still_allowed(call, &bad))) {
            call->checked = true;
            continue;
        }
        native_call_cancel(call, revoked ? CODE_DENIED : bad.code, revoked ? "its key is gone" : bad.text);
        next = c->calls;
    }
    for (call = c->calls; call != NULL; call = call->next)
        call->checked = false;
}
