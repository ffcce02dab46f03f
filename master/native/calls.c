/* Requests that step the broker, from their token to their end. A request is on the stack while it runs; if
 * it has to wait it goes to the heap, with the same token. */
#include "master/native/native_impl.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/mem.h"

/* ---- tables: slots that are named by index, and tell their lives apart by gen ---- */

int native_table_add(struct native_table *t, void *p, uint32_t *ret_index)
{
    uint32_t i = t->free;

    if (i == 0) {
        if (t->count == t->cap) {
            uint32_t cap = t->cap > 0 ? t->cap * 2 : 16;
            struct native_slot *slots = tq_realloc(t->slots, cap * sizeof(*slots));

            if (slots == NULL)
                return TQ_ENOMEM;
            t->slots = slots;
            t->cap = cap;
        }
        t->slots[t->count] = (struct native_slot){0};
        i = ++t->count;
    } else {
        t->free = t->slots[i - 1].next_free;
    }
    t->slots[i - 1].p = p;
    t->slots[i - 1].gen++;
    t->used++;
    *ret_index = i - 1;
    return TQ_OK;
}

void native_table_remove(struct native_table *t, uint32_t index)
{
    TQ_ASSERT(index < t->count && t->slots[index].p != NULL);
    t->slots[index].p = NULL;
    t->slots[index].next_free = t->free;
    t->free = index + 1;
    t->used--;
}

static uint32_t token_index(uint64_t token)
{
    return (uint32_t)token - 1;
}

struct native_call *native_call_by_token(const struct native *n, uint64_t token)
{
    uint32_t i = token_index(token);

    if (i >= n->calls.count || n->calls.slots[i].gen != (uint32_t)(token >> 32))
        return NULL;
    return n->calls.slots[i].p;
}

/* ---- the life of a call ---- */

int native_call_begin(struct native_call *call, struct native_conn *c, uint32_t msgid,
                      enum native_method method)
{
    struct native_table *t = &c->native->calls;
    uint32_t i;
    int rv;

    *call = (struct native_call){.conn = c, .msgid = msgid, .method = (uint8_t)method};
    rv = native_table_add(t, call, &i);
    if (rv != TQ_OK)
        return rv;
    call->token = (uint64_t)t->slots[i].gen << 32 | (i + 1);
    return TQ_OK;
}

void native_put_state_free(struct native *n, struct native_put *put)
{
    native_buf_give(n, &put->ids);
    native_buf_give(n, &put->known);
    n->parked_bytes -= put->copy_bytes;
    tq_free(put->copy);
    put->copy = NULL;
    put->copy_bytes = 0;
}

void native_call_free(struct native_call *call)
{
    struct native *n = call->conn->native;

    native_table_remove(&n->calls, token_index(call->token));
    if (call->put != NULL)
        native_put_state_free(n, call->put);
    if (call->tally != NULL)
        native_buf_give(n, &call->tally->refused);
    if (!call->waits)
        return;
    DL_DELETE(call->conn->calls, call);
    call->conn->call_count--;
    if (call->method == NATIVE_WAIT)
        tq_free(call->queue_name);
    tq_free(call->put);
    tq_free(call->tally);
    tq_free(call);
}

/* What the broker has parked under this token is not wanted any more. */
static void cancel_in_broker(const struct native_call *call)
{
    struct native_host *h = call->conn->native->host;
    struct broker_event ev = {
        .kind = BROKER_CANCEL, .session = &call->conn->session->ep.session, .token = call->token};

    (void)h->step(h->ctx, &ev);
}

static struct native_call *to_heap(const struct native_call *call)
{
    struct native_call *kept = tq_malloc(sizeof(*kept));
    struct native_put *put = NULL;
    struct native_tally *tally = NULL;

    if (call->put != NULL)
        put = tq_malloc(sizeof(*put));
    if (call->tally != NULL)
        tally = tq_malloc(sizeof(*tally));
    if (kept == NULL || (put == NULL) != (call->put == NULL) || (tally == NULL) != (call->tally == NULL)) {
        tq_free(kept);
        tq_free(put);
        tq_free(tally);
        return NULL;
    }
    *kept = *call;
    if (put != NULL)
        *put = *call->put;
    if (tally != NULL)
        *tally = *call->tally;
    kept->put = put;
    kept->tally = tally;
    kept->waits = true;
    return kept;
}

struct native_call *native_call_settle(struct native_call *call)
{
    struct native *n = call->conn->native;
    struct native_call *kept;

    if (call->ended) {
        native_call_free(call);
        return NULL;
    }
    kept = to_heap(call);
    if (kept == NULL) {
        native_call_cancel(call, CODE_MEMORY, NATIVE_NO_MEMORY);
        return NULL;
    }
    n->calls.slots[token_index(call->token)].p = kept;
    DL_APPEND(kept->conn->calls, kept);
    kept->conn->call_count++;
    return kept;
}

void native_calls_drop(struct native_conn *c)
{
    while (c->calls != NULL) {
        c->calls->ended = true;
        native_call_free(c->calls);
    }
}

void native_call_cancel(struct native_call *call, enum native_code code, const char *text)
{
    cancel_in_broker(call);
    call->ended = true;
    if (call->put != NULL)
        native_put_cut(call, code, text);
    else if (call->method == NATIVE_DONE || call->method == NATIVE_FAIL)
        native_get_none(call, code, text);
    else
        native_reply_error(call->conn, call->msgid, code, text);
    native_call_free(call);
}

bool native_call_may_wait(const struct native_conn *c, struct native_bad *bad)
{
    if (c->call_count < c->native->host->limits.calls)
        return true;
    return native_bad(bad, CODE_TOO_MANY, "%u requests of this connection wait already: no more than that",
                      c->call_count);
}

struct native_call *native_call_by_msgid(struct native_conn *c, uint32_t msgid)
{
    struct native_call *call;

    DL_FOREACH(c->calls, call)
    {
        if (call->msgid == msgid)
            return call;
    }
    return NULL;
}

int native_step(struct native_call *call, struct broker_event *ev)
{
    struct native_host *h = call->conn->native->host;

    ev->session = &call->conn->session->ep.session;
    ev->token = call->token;
    return h->step(h->ctx, ev);
}

/* ---- effects ---- */

enum native_code native_code_of(enum broker_outcome outcome)
{
    switch (outcome) {
    case BROKER_REPLY_FULL:
        return CODE_FULL;
    case BROKER_REPLY_SHUTDOWN:
        return CODE_QUEUE_CLOSED;
    case BROKER_REPLY_NO_MEMORY:
        return CODE_MEMORY;
    case BROKER_REPLY_NO_SPACE:
        return CODE_NO_SPACE;
    case BROKER_REPLY_TOO_MANY_HELD:
        return CODE_TOO_MANY;
    case BROKER_REPLY_STALE:
        return CODE_STALE;
    case BROKER_REPLY_UNKNOWN:
        return CODE_UNKNOWN;
    default:
        return CODE_REFUSED;
    }
}

const char *native_text_of(const struct broker_effect *fx)
{
    switch (fx->outcome) {
    case BROKER_REPLY_FULL:
        return "the queue is full, and the time to wait is over";
    case BROKER_REPLY_SHUTDOWN:
        return "the queue was shut down, or it has gone";
    case BROKER_REPLY_NO_MEMORY:
        return "no room in memory: later, or never if the body is larger than --max-memory-bytes lets in";
    case BROKER_REPLY_NO_SPACE:
        return "no room left on the disk of --data-dir: later; results of what is in hand are taken";
    case BROKER_REPLY_TOO_MANY_HELD:
        return "this session holds as many leases as one may (--max-held-per-session): say done first";
    case BROKER_REPLY_STALE:
        return "not a lease of this session, or not any more";
    case BROKER_REPLY_UNKNOWN:
        return "there is no such task, result or dead letter (any more)";
    default:
        return fx->text != NULL ? fx->text : "this cannot be done with it";
    }
}

static void told_lost(struct native_conn *c, const struct broker_effect *fx)
{
    struct native_out out = native_notify_begin(c, "lost");

    c->native->counters.lost_told++;
    tq_mp_put_map(&out.o, 1);
    tq_mp_put_cstr(&out.o, "leases");
    tq_mp_put_array(&out.o, 1);
    tq_mp_put_array(&out.o, 2);
    tq_mp_put_u64(&out.o, fx->id);
    tq_mp_put_u64(&out.o, fx->epoch);
    (void)native_out_end(&out);
}

static void resume_effect(struct native *n, const struct broker_effect *fx)
{
    struct tq_mp_out o = tq_mp_out(&n->scratch);

    if (fx->outcome != BROKER_REPLY_LEASE)
        return;
    n->resumed_count++;
    tq_mp_put_array(&o, 2);
    tq_mp_put_u64(&o, fx->id);
    tq_mp_put_u64(&o, fx->epoch);
    if (o.err != 0)
        n->resuming->ended = true; /* the reply cannot be written: see native_hello */
}

/* The call has gone, and its tasks go to the next in line. */
static void nobody_waits(struct native_session *s, const struct broker_effect *fx)
{
    struct broker_event ev = {
        .kind = BROKER_BOUNCE, .session = &s->ep.session, .id = fx->id, .epoch = fx->epoch};

    if (fx->outcome == BROKER_REPLY_TASK && fx->copy == NULL)
        (void)s->native->host->step(s->native->host->ctx, &ev);
}

void native_on_effect(struct endpoint *ep, struct broker_effect *fx)
{
    struct native_session *s = native_session_of_endpoint(ep);
    struct native_call *call;

    if (fx->outcome == BROKER_TOLD_LOST) {
        if (s->conn != NULL)
            told_lost(s->conn, fx);
        return;
    }
    call = native_call_by_token(s->native, fx->token);
    if (call == NULL || call->ended) {
        nobody_waits(s, fx);
        return;
    }
    switch ((enum native_method)call->method) {
    case NATIVE_HELLO:
        resume_effect(s->native, fx);
        return;
    case NATIVE_PUT:
        native_put_effect(call, fx);
        break;
    case NATIVE_GET:
        native_get_effect(call, fx);
        break;
    case NATIVE_DONE:
    case NATIVE_FAIL:
        if (call->queue != NULL)
            native_get_effect(call, fx);
        else
            native_tally_effect(call, fx);
        break;
    case NATIVE_EXTEND:
    case NATIVE_RELEASE:
    case NATIVE_REMOVE:
    case NATIVE_RETRY:
        native_tally_effect(call, fx);
        break;
    case NATIVE_WAIT:
        native_wait_effect(call, fx);
        break;
    case NATIVE_JOIN:
        native_join_effect(call, fx);
        break;
    case NATIVE_PURGE:
        native_purge_effect(call, fx);
        break;
    default:
        TQ_ASSERT(false);
    }
    if (call->ended && call->waits)
        native_call_free(call);
}
