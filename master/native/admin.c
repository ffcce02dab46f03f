/* Queues as a whole, and tasks by their ids: delete, purge, pause, resume, remove, retry. */
#include "master/native/native_impl.h"

struct queue_fields {
    struct tq_span q;
};

static const struct native_field queue_list[] = {
    NATIVE_FIELD(struct queue_fields, q, FIELD_TEXT, 0),
};

static bool set_paused(struct native_conn *c, struct broker_queue *q, bool paused, struct native_bad *bad)
{
    struct native_host *h = c->native->host;
    struct broker_queue_conf conf = *broker_queue_conf(q);

    conf.paused = paused;
    return h->reconfigure(h->ctx, q, &conf) == TQ_OK || native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
}

static bool delete_queue(struct native_conn *c, struct broker_queue *q, struct native_bad *bad)
{
    struct native_host *h = c->native->host;

    return h->remove(h->ctx, q) == TQ_OK ||
           native_bad(bad, CODE_REFUSED, "this queue belongs to the task-master and stays: purge it instead");
}

static void purge(struct native_request *r, struct broker_queue *q)
{
    struct broker_event ev = {.kind = BROKER_PURGE, .queue = q};
    struct native_call call;

    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_PURGE) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    if (native_step(&call, &ev) != TQ_OK)
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
    call.ended = true;
    (void)native_call_settle(&call);
}

void native_purge_effect(struct native_call *call, struct broker_effect *fx)
{
    struct native_out out;

    call->ended = true;
    if (fx->outcome != BROKER_REPLY_OK) {
        native_reply_error(call->conn, call->msgid, native_code_of(fx->outcome), native_text_of(fx));
        return;
    }
    out = native_reply_begin(call->conn, call->msgid);
    tq_mp_put_map(&out.o, 1);
    tq_mp_put_cstr(&out.o, "dropped");
    tq_mp_put_i64(&out.o, fx->number);
    (void)native_out_end(&out);
}

void native_request_queue(struct native_request *r, enum native_method method)
{
    struct native_conn *c = r->conn;
    struct queue_fields f = {0};
    struct broker_queue *q;
    struct native_bad bad;
    bool good;

    if (!native_params(&r->params, &NATIVE_FIELDS(queue_list), &f, NULL, &bad) ||
        (q = native_find_queue(c->native, f.q, "q", &bad)) == NULL ||
        !native_may(c, KEY_MANAGE, native_method_name(method), q, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (method == NATIVE_PURGE) {
        purge(r, q);
        return;
    }
    good =
        method == NATIVE_DELETE ? delete_queue(c, q, &bad) : set_paused(c, q, method == NATIVE_PAUSE, &bad);
    if (good)
        native_reply_empty(c, r->msgid);
    else
        native_bad_reply(r, &bad);
}

/* ---- remove, retry ---- */

struct ids_fields {
    struct tq_span ids, q;
    uint64_t from;
    uint32_t max;
};

static const struct native_field ids_list[] = {
    NATIVE_FIELD(struct ids_fields, ids, FIELD_ARRAY, .nil = true),
    NATIVE_FIELD(struct ids_fields, q, FIELD_TEXT, .nil = true),
    NATIVE_FIELD(struct ids_fields, from, FIELD_U64, .nil = true, .most = INT64_MAX),
    NATIVE_FIELD(struct ids_fields, max, FIELD_U32, .least = 1, .most = UINT32_MAX),
};

struct ids_request {
    enum native_method method;
    struct tq_mp at;
    uint32_t count;
    struct broker_queue *queue; /* retry: of all in it; else NULL */
    uint64_t from, next;
    uint32_t max;
    const struct broker_queue *allowed; /* asked already */
    const struct broker_queue *denied;
};

static bool parse_ids(struct native_request *r, struct ids_request *ids, struct native_bad *bad)
{
    struct native_conn *c = r->conn;
    uint32_t most = c->native->host->limits.batch;
    struct ids_fields f = {.max = most < NATIVE_PAGE_MAX ? most : NATIVE_PAGE_MAX};
    struct tq_mp at;
    uint64_t id;

    if (!native_params(&r->params, &NATIVE_FIELDS(ids_list), &f, NULL, bad))
        return false;
    if (f.max > most)
        return native_bad(bad, CODE_BAD_REQUEST, "max must be 1 to %u", most);
    ids->max = f.max;
    ids->from = f.from;
    if (f.ids.len == 0 && ids->method == NATIVE_RETRY && f.q.data != NULL) {
        ids->queue = native_find_queue(c->native, f.q, "q", bad);
        return ids->queue != NULL && native_may(c, KEY_MANAGE, "retry", ids->queue, bad);
    }
    at = tq_mp_of(f.ids);
    if (!tq_mp_array(&at, &ids->count) || ids->count > most)
        return native_bad(bad, CODE_BAD_REQUEST, "ids must be an array of up to %u ids", most);
    ids->at = at;
    for (uint32_t i = 0; i < ids->count; i++) {
        if (!tq_mp_u64(&at, &id))
            return native_bad(bad, CODE_BAD_REQUEST, "ids[%u] must be an id", i);
    }
    return true;
}

/* Each queue is asked for once, as long as its tasks come one after the other. */
static bool may_manage(struct native_conn *c, struct ids_request *ids, const struct broker_view *v)
{
    const struct broker_queue *q = native_task_queue(c->native, v);
    struct native_bad bad;

    if (q == ids->allowed && q != NULL)
        return true;
    if (q == ids->denied && q != NULL)
        return false;
    if (native_may_task(c, KEY_MANAGE, native_method_name(ids->method), v, &bad)) {
        ids->allowed = q;
        return true;
    }
    ids->denied = q;
    return false;
}

static void step_ids(struct native_call *call, struct ids_request *ids)
{
    struct native *n = call->conn->native;
    struct broker_event ev = {.kind = ids->method == NATIVE_REMOVE ? BROKER_REMOVE : BROKER_RETRY};
    struct broker_view v;

    for (uint32_t i = 0; i < ids->count; i++) {
        (void)tq_mp_u64(&ids->at, &ev.id);
        call->id = ev.id;
        if (!broker_view_task(n->host->broker, ev.id, &v))
            native_tally_refuse(call, CODE_UNKNOWN);
        else if (!may_manage(call->conn, ids, &v))
            native_tally_refuse(call, CODE_DENIED);
        else
            native_tally_step(call, &ev);
    }
}

/* Dead letters of a queue, oldest id first; as many as one request may look at. */
static void step_queue(struct native_call *call, struct ids_request *ids)
{
    struct native *n = call->conn->native;
    struct broker_event ev = {.kind = BROKER_RETRY};
    unsigned budget = NATIVE_LOOK_BUDGET;
    struct broker_view v;
    uint64_t from = ids->from;

    ids->next = 0;
    for (uint32_t done = 0; broker_view_next(n->host->broker, from, &budget, &v, &ids->next);) {
        from = v.id + 1;
        if (v.queue != ids->queue || strcmp(v.state, "dead") != 0)
            continue;
        if (done++ == ids->max) {
            ids->next = v.id;
            return;
        }
        ev.id = v.id;
        native_tally_step(call, &ev);
    }
}

void native_request_ids(struct native_request *r, enum native_method method)
{
    struct ids_request ids = {.method = method};
    struct native_tally tally = {0};
    struct native_call call;
    struct native_bad bad;
    struct native_out out;

    if (!parse_ids(r, &ids, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, method) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    call.tally = &tally;
    if (ids.queue != NULL)
        step_queue(&call, &ids);
    else
        step_ids(&call, &ids);
    out = native_reply_begin(r->conn, r->msgid);
    tq_mp_put_map(&out.o, native_tally_pairs(&tally) + (ids.next != 0));
    native_tally_put(&out.o, &tally);
    if (ids.next != 0) {
        tq_mp_put_cstr(&out.o, "next");
        tq_mp_put_u64(&out.o, ids.next);
    }
    (void)native_out_end(&out);
    call.ended = true;
    (void)native_call_settle(&call);
}
