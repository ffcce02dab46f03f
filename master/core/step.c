/* Events: each handler does what can fail first. 0, or TQ_ENOMEM with nothing changed. */
#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker_impl.h"
#include "master/core/deliver.h"
#include "master/core/effects.h"
#include "master/core/idwait.h"
#include "master/core/journal_impl.h"
#include "master/core/lease.h"
#include "master/core/outcome.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/session.h"
#include "master/core/task.h"
#include "master/core/timer.h"

void broker_drop_all(struct broker *b, struct broker_queue *q)
{
    uint64_t n = q->ready + q->delayed;

    if (broker_purge_ready(b, q, BROKER_OUTCOME_PURGED) == TQ_OK)
        return;
    q->unfinished -= n < q->unfinished ? n : q->unfinished;
    broker_queue_drop_ready(b, q);
}

static int reply(const struct broker_event *ev, struct broker_effects *out, enum broker_outcome outcome,
                 int64_t number)
{
    broker_effects_add(out, ev->session, ev->token, outcome)->number = number;
    return TQ_OK;
}

static int reply_ok(const struct broker_event *ev, struct broker_effects *out)
{
    return reply(ev, out, ev->session->native ? BROKER_REPLY_OK : BROKER_REPLY_NONE, 0);
}

static int reply_refused(const struct broker_event *ev, struct broker_effects *out, const char *why)
{
    char *text = tq_strdup(why);
    struct broker_effect *e = broker_effects_add(
        out, ev->session, ev->token, text != NULL ? BROKER_REPLY_REFUSED : BROKER_REPLY_NO_MEMORY);

    e->text = text;
    return TQ_OK;
}

static bool may_wait(const struct broker_event *ev)
{
    return ev->wait_mode == BROKER_WAIT_FOREVER || (ev->wait_mode == BROKER_WAIT_MS && ev->wait_ms > 0);
}

/* ---- put ---- */

static int park_put(struct broker *b, const struct broker_event *ev, enum broker_memory_class c,
                    struct broker_effects *out)
{
    uint32_t slot;

    if (b->limits.memory_bytes > 0 &&
        b->stats.parked_bytes + broker_payload_cost(&ev->payload) > b->limits.memory_bytes)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    slot = broker_put_make(b, ev);
    if (slot == SLAB_NONE || broker_wait_park(b, BROKER_WAIT_PUT, ev, slot, c) != TQ_OK) {
        broker_task_discard(b, slot);
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    }
    /* Who waits for room waits in the queue; who waits for memory is to be found from the broker too. */
    broker_queue_mark(b, ev->queue);
    return TQ_OK;
}

/* There is room for it. */
static int accept_put(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_session *s = ev->session;
    char text[BROKER_TEXT_MAX];
    struct broker_effect *e;
    uint32_t slot;
    int rv;

    if (!s->native && s->held_count == 1) {
        rv = broker_put_as_result(b, ev);
        if (rv == TQ_OK)
            broker_session_progress(b, s);
        if (rv != 1)
            return reply(ev, out, rv == TQ_OK ? BROKER_REPLY_NONE : BROKER_REPLY_NO_MEMORY, 0);
    }
    slot = broker_put_make(b, ev);
    if (slot == SLAB_NONE)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    rv = broker_put_accept(b, ev->queue, slot, text);
    if (rv != TQ_OK) {
        broker_task_discard(b, slot);
        broker_effects_add_error(out, s, ev->token, rv, text);
        return TQ_OK;
    }
    if (!s->native)
        broker_session_progress(b, s);
    e = broker_effects_add(out, s, ev->token, s->native ? BROKER_REPLY_OK : BROKER_REPLY_NONE);
    e->id = broker_task_id(broker_task_at(b->slab, slot));
    return TQ_OK;
}

/* Those who wait come first, but for whoever has to wait until new work is taken again. */
static bool stands_behind(const struct broker *b, const struct broker_queue *q, enum broker_memory_class c)
{
    if (q->putters == NULL)
        return false;
    return !b->refuses || c != BROKER_COMPLETION ||
           broker_next_putter(b, q)->memory_class == BROKER_COMPLETION;
}

static int on_put(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;
    struct broker_session *s = ev->session;
    uint64_t cost = broker_payload_cost(&ev->payload);
    enum broker_memory_class c =
        s->held_count + (s->native ? 0 : s->held_explicit_count) > 0 ? BROKER_COMPLETION : BROKER_NEW_WORK;
    const char *why;
    int rv;

    if (q->shut_down)
        return reply(ev, out, BROKER_REPLY_SHUTDOWN, 0);
    if (ev->options != NULL) {
        why = broker_put_refusal(ev);
        if (why != NULL)
            return reply_refused(ev, out, why);
        rv = broker_put_known(b, q, ev->options->key, s, ev->token, false, out);
        if (rv != BROKER_NOTHING)
            return rv == TQ_OK ? TQ_OK : reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    }
    if (cost > broker_memory_ceiling(b, c))
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    if (stands_behind(b, q, c) || broker_queue_is_full(q) || !broker_memory_admits(b, c, s, cost)) {
        if (!may_wait(ev) || q->conf.reject_full)
            return reply(ev, out, broker_no_room(b, s, q, c), 0);
        return park_put(b, ev, c, out);
    }
    return accept_put(b, ev, out);
}

/* ---- get ---- */

static int on_get(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;
    struct broker_session *s = ev->session;
    enum broker_outcome outcome = BROKER_REPLY_EMPTY;
    struct broker_want want = {
        .session = s,
        .queue = q,
        .token = ev->token,
        .max = s->native && ev->max > 0 ? ev->max : 1,
        .max_bytes = ev->max_bytes,
        .take = s->native && ev->take,
    };
    int rv = BROKER_NOTHING;

    if (q->getters == NULL) /* who waits for memory to be woken is not overtaken */
        rv = broker_hand_out(b, &want, out);
    if (rv == TQ_ENOMEM)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    if (rv == TQ_OK)
        return TQ_OK;
    if (q->shut_down && q->ready == 0) {
        outcome = BROKER_REPLY_SHUTDOWN;
    } else if (!want.take && broker_held_left(b, s, q) == 0) {
        outcome = BROKER_REPLY_TOO_MANY_HELD;
    } else if (may_wait(ev)) {
        if (broker_wait_park(b, BROKER_WAIT_GET, ev, SLAB_NONE, BROKER_NEW_WORK) != TQ_OK)
            return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
        if (!s->native)
            broker_session_progress(b, s);
        return TQ_OK;
    }
    if (!s->native)
        broker_session_progress(b, s);
    return reply(ev, out, outcome, 0);
}

/* ---- the other calls of Python's queue ---- */

static int on_qsize(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    (void)b;
    return reply(ev, out, BROKER_REPLY_INT, (int64_t)ev->queue->ready);
}

static int on_empty(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    (void)b;
    return reply(ev, out, BROKER_REPLY_BOOL, ev->queue->ready == 0);
}

static int on_full(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    (void)b;
    return reply(ev, out, BROKER_REPLY_BOOL, broker_queue_is_full(ev->queue));
}

static int on_task_done(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;

    /* What the session has finished is finished, even if the count says otherwise. */
    broker_session_progress(b, ev->session);
    if (q->conf.ack == BROKER_ACK_EXPLICIT)
        broker_session_ack_explicit(b, ev->session, q);
    if (q->unfinished == 0)
        return reply(ev, out, BROKER_REPLY_TOO_MANY_DONE, 0);
    journal_note_counts(b, q, journal_wait_of(&q->conf));
    if (--q->unfinished == 0 && q->joiners != NULL)
        broker_queue_mark(b, q);
    return reply(ev, out, BROKER_REPLY_NONE, 0);
}

static int on_join(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    if (ev->queue->unfinished == 0)
        return reply_ok(ev, out);
    if (ev->session->native && !may_wait(ev))
        return reply(ev, out, BROKER_REPLY_EMPTY, 0);
    if (broker_wait_park(b, BROKER_WAIT_JOIN, ev, SLAB_NONE, BROKER_NEW_WORK) != TQ_OK)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    return TQ_OK;
}

static int on_shutdown(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;

    q->shut_down = true;
    journal_note_queue(b, q, JOURNAL_SYNCED);
    if (ev->immediate)
        broker_drop_all(b, q);
    broker_queue_mark(b, q);
    return reply_ok(ev, out);
}

/* ---- events without a reply ---- */

static void cancel(struct broker *b, const struct broker_event *ev)
{
    struct broker_session *s = ev->session;
    struct broker_wait *w = s->native ? broker_wait_find(s, ev->token) : s->waits;

    if (w != NULL)
        broker_wait_drop(b, w);
}

static void bounce(struct broker *b, const struct broker_event *ev)
{
    struct broker_lease *l = broker_lease_find(b, ev->session, ev->id, ev->epoch);

    if (l != NULL)
        broker_lease_bounce(b, l);
}

static void on_other(struct broker *b, const struct broker_event *ev)
{
    struct broker_session *s = ev->session;

    switch (ev->kind) {
    case BROKER_SESSION_OPEN:
        broker_session_open(b, s);
        break;
    case BROKER_SESSION_CLOSE:
        broker_session_close(b, s, ev->close_mode);
        break;
    case BROKER_DETACH:
        broker_session_detach(b, s, ev->free_now);
        break;
    case BROKER_CANCEL:
        cancel(b, ev);
        break;
    case BROKER_DELIVERED:
        broker_session_delivered(b, s);
        break;
    default:
        TQ_ASSERT(ev->kind == BROKER_BOUNCE);
        bounce(b, ev);
    }
}

typedef int (*call_fn)(struct broker *b, const struct broker_event *ev, struct broker_effects *out);

/* Calls of the peer: those get a reply. */
static const call_fn calls[] = {
    [BROKER_PUT] = on_put,
    [BROKER_GET] = on_get,
    [BROKER_QSIZE] = on_qsize,
    [BROKER_EMPTY] = on_empty,
    [BROKER_FULL] = on_full,
    [BROKER_TASK_DONE] = on_task_done,
    [BROKER_JOIN] = on_join,
    [BROKER_SHUTDOWN] = on_shutdown,
    [BROKER_DONE] = broker_on_done,
    [BROKER_FAIL] = broker_on_fail,
    [BROKER_EXTEND] = broker_on_extend,
    [BROKER_RELEASE] = broker_on_release,
    [BROKER_WAIT] = broker_on_wait,
    [BROKER_REMOVE] = broker_on_remove,
    [BROKER_RETRY] = broker_on_retry,
    [BROKER_PURGE] = broker_on_purge,
    [BROKER_RESUME] = broker_session_resume,
};

int broker_step(struct broker *b, uint64_t now_ms, const struct broker_event *ev, struct broker_effects *out)
{
    size_t kind = (size_t)ev->kind;
    int rv = TQ_OK;

    TQ_ASSERT(now_ms >= b->now_ms);
    b->now_ms = now_ms;
    if (kind < sizeof(calls) / sizeof(calls[0]) && calls[kind] != NULL) {
        TQ_ASSERT(ev->session->open && (ev->session->native || ev->session->waits == NULL));
        rv = broker_effects_reserve(out);
        if (rv != TQ_OK)
            return rv;
        if (!ev->session->native)
            broker_session_delivered(b, ev->session); /* or it would not ask for more */
        rv = calls[kind](b, ev, out);
    } else if (ev->kind == BROKER_DUE) {
        rv = broker_on_due(b, ev->deadline, out);
    } else {
        TQ_ASSERT(ev->session->open || ev->kind == BROKER_SESSION_OPEN);
        on_other(b, ev);
    }
    if (rv != TQ_OK)
        return rv;
    b->more = ev->more;
    if (ev->more)
        b->gave_way = 0;
    else
        broker_finish_step(b, out);
    return TQ_OK;
}
