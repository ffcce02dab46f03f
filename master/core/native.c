/* What native sessions say of tasks: each lease by its (id, epoch), each task by its id. */
#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/effects.h"
#include "master/core/idwait.h"
#include "master/core/journal_impl.h"
#include "master/core/lease.h"
#include "master/core/outcome.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/task.h"
#include "master/core/timer.h"

static struct broker_effect *reply(const struct broker_event *ev, struct broker_effects *out,
                                   enum broker_outcome outcome)
{
    struct broker_effect *e = broker_effects_add(out, ev->session, ev->token, outcome);

    e->id = ev->id;
    e->epoch = ev->epoch;
    return e;
}

static int refuse(const struct broker_event *ev, struct broker_effects *out, const char *why)
{
    char *text = tq_strdup(why);

    reply(ev, out, text != NULL ? BROKER_REPLY_REFUSED : BROKER_REPLY_NO_MEMORY)->text = text;
    return TQ_OK;
}

static int stale(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    uint32_t slot = broker_find_task(b, ev->id);

    b->stats.stale++;
    if (slot != SLAB_NONE) {
        const struct broker_task *t = broker_task_at(b->slab, slot);

        if (broker_task_state(t) != BROKER_TASK_KEPT) {
            broker_task_queue(b, t)->stats.stale++;
            journal_touch_counts(b, broker_task_queue(b, t));
        }
    }
    reply(ev, out, BROKER_REPLY_STALE);
    return TQ_OK;
}

/* Of a result or a dead letter: it has been dealt with; broker_end_prepare knows. */
int broker_on_done(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_lease *l = broker_lease_find(b, ev->session, ev->id, ev->epoch);
    struct broker_end_plan plan;

    if (l == NULL)
        return stale(b, ev, out);
    if (ev->payload.data != NULL && ev->payload.len > BROKER_SMALL_VALUE_BYTES &&
        broker_payload_cost(&ev->payload) > b->room[BROKER_COMPLETION]) {
        reply(ev, out, BROKER_REPLY_NO_SPACE);
        return TQ_OK;
    }
    if (broker_end_prepare(b, l->slot,
                           &(struct broker_ending){.outcome = BROKER_OUTCOME_OK,
                                                   .value = ev->payload.data != NULL ? &ev->payload : NULL,
                                                   .worker = ev->session->worker,
                                                   .started_ms = l->since_ms,
                                                   .result_to = ev->result_to,
                                                   .result_to_last = ev->result_to_last},
                           &plan) != TQ_OK) {
        reply(ev, out, BROKER_REPLY_NO_MEMORY);
        return TQ_OK;
    }
    broker_end_commit(b, broker_lease_end(b, l), &plan);
    reply(ev, out, BROKER_REPLY_OK);
    return TQ_OK;
}

/* What comes back to a queue that was removed could never be handed out again: its fail is its end. */
static bool is_final(struct broker_task *t, const struct broker_queue *q, const struct broker_failure *f)
{
    const struct broker_extra *x = broker_task_extra(t);
    uint8_t max = x != NULL && x->max_attempts > 0 ? x->max_attempts : q->conf.max_attempts;

    if (q->removed)
        return true;
    if ((broker_task_flags(t) & TASK_DEAD) != 0)
        return false;
    if ((broker_task_flags(t) & TASK_RESULT) != 0)
        return f->final;
    return f->final || (max > 0 && t->attempts >= max);
}

int broker_on_fail(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_lease *l = broker_lease_find(b, ev->session, ev->id, ev->epoch);
    struct broker_end_plan plan;
    struct broker_ending e;
    struct broker_queue *q;
    struct broker_task *t;
    uint8_t attempts;
    bool final;

    if (l == NULL)
        return stale(b, ev, out);
    t = broker_task_at(b->slab, l->slot);
    q = broker_task_queue(b, t);
    attempts = t->attempts;
    if (t->attempts < UINT8_MAX)
        t->attempts++;
    e = (struct broker_ending){.outcome = BROKER_OUTCOME_FAILED,
                               .worker = ev->session->worker,
                               .started_ms = l->since_ms,
                               .failure = ev->failure,
                               .result_to = ev->result_to,
                               .result_to_last = ev->result_to_last};
    final = is_final(t, q, ev->failure);
    /* A dead letter has its task's body. */
    if (final && broker_task_cost(b, l->slot) > b->room[BROKER_COMPLETION]) {
        t->attempts = attempts;
        reply(ev, out, BROKER_REPLY_NO_SPACE);
        return TQ_OK;
    }
    if (final && broker_end_prepare(b, l->slot, &e, &plan) != TQ_OK) {
        t->attempts = attempts;
        reply(ev, out, BROKER_REPLY_NO_MEMORY);
        return TQ_OK;
    }
    b->stats.failed++;
    q->stats.failed++;
    if (final) {
        broker_end_commit(b, broker_lease_end(b, l), &plan);
    } else {
        b->stats.retried++;
        q->stats.retried++;
        broker_task_retry(b, broker_lease_end(b, l), &e);
    }
    reply(ev, out, BROKER_REPLY_OK)->number = final ? 0 : 1;
    return TQ_OK;
}

int broker_on_extend(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_lease *l = broker_lease_find(b, ev->session, ev->id, ev->epoch);
    uint64_t ms = ev->wait_ms;

    if (l == NULL)
        return stale(b, ev, out);
    if (ms == 0)
        ms = broker_task_queue(b, broker_task_at(b->slab, l->slot))->conf.lease_ms;
    l->limit_ms = ms > 0 ? broker_after(b->now_ms, ms) : BROKER_NEVER;
    l->deaf_ms = b->deaf_ms;
    broker_lease_sync(b, l);
    journal_note_task(b, l->slot, 0, JOURNAL_WRITTEN);
    reply(ev, out, BROKER_REPLY_OK);
    return TQ_OK;
}

int broker_on_release(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_lease *l = broker_lease_find(b, ev->session, ev->id, ev->epoch);

    if (l == NULL)
        return stale(b, ev, out);
    broker_lease_bounce(b, l);
    reply(ev, out, BROKER_REPLY_OK);
    return TQ_OK;
}

/* A leased task is taken from whoever has it, who is told. There is room for that effect. */
static uint32_t seize(struct broker *b, uint32_t slot, struct broker_effects *out)
{
    struct broker_lease *l = broker_lease_of(b, slot);
    struct broker_session *s = l->session;
    struct broker_effect *e;

    if (s->native && !s->silent) {
        e = broker_effects_add(out, s, 0, BROKER_TOLD_LOST);
        e->id = l->id;
        e->epoch = l->epoch;
    }
    return broker_lease_end(b, l);
}

/* 0, TQ_ENOMEM with nothing changed. */
static int cancel(struct broker *b, uint32_t slot, struct broker_effects *out)
{
    static const struct broker_ending ending = {.outcome = BROKER_OUTCOME_CANCELED};
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_end_plan plan;

    switch (broker_task_state(t)) {
    case BROKER_TASK_READY:
    case BROKER_TASK_DELAYED:
        return broker_task_finish_linked(b, slot, &ending);
    case BROKER_TASK_LEASED:
        if (broker_end_prepare(b, slot, &ending, &plan) != TQ_OK)
            return TQ_ENOMEM;
        broker_end_commit(b, seize(b, slot, out), &plan);
        return TQ_OK;
    default:
        TQ_ASSERT(broker_task_state(t) == BROKER_TASK_KEPT);
        broker_idwait_ended(b, broker_task_id(t), slot, BROKER_OUTCOME_CANCELED);
        b->stats.dropped++;
        broker_task_end(b, slot);
        journal_raise(b, JOURNAL_SYNCED); /* whoever asked for it is told */
        return TQ_OK;
    }
}

int broker_on_remove(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    uint32_t slot = broker_find_task(b, ev->id);
    size_t at = out->count;

    reply(ev, out, slot != SLAB_NONE ? BROKER_REPLY_OK : BROKER_REPLY_UNKNOWN);
    if (slot != SLAB_NONE && (broker_effects_reserve(out) != TQ_OK || cancel(b, slot, out) != TQ_OK))
        out->list[at].outcome = BROKER_REPLY_NO_MEMORY;
    return TQ_OK;
}

/* The task that a dead letter was, for the queue that it came from. SLAB_NONE when out of memory. */
static uint32_t revive(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_extra *x = broker_task_extra(t);
    uint64_t ttl_ms = q->conf.ttl_ms;
    struct broker_extra_spec spec = {
        .fixed = {.started_ms = x->started_ms,
                  .ended_ms = x->ended_ms,
                  .result = x->result,
                  .result_serial = x->result_serial,
                  .retention_ms = x->retention_ms,
                  .priority = x->priority,
                  .code = x->code,
                  .max_attempts = x->max_attempts},
        .key = broker_task_key(t),
        .trace = broker_task_trace(t),
        .worker = broker_task_worker(t),
        .error = broker_task_error(t),
    };
    struct broker_payload body;
    uint32_t revived;

    if (ttl_ms > 0)
        spec.fixed.expires_ms = broker_after(b->now_ms, ttl_ms);
    broker_task_payload(b, slot, &body);
    revived = broker_task_new(b, q, &body, &spec, 0);
    if (revived == SLAB_NONE)
        return SLAB_NONE;
    if ((ttl_ms > 0 && broker_timer_prepare(b, revived) != TQ_OK) || broker_queue_reserve(q) != TQ_OK) {
        broker_task_discard(b, revived);
        return SLAB_NONE;
    }
    return revived;
}

/* Out of where it stands; it may move by that. TQ_ENOMEM. */
static int take_out(struct broker *b, uint32_t *slot)
{
    struct broker_task *t = broker_task_at(b->slab, *slot);
    struct broker_queue *q = broker_task_queue(b, t);

    switch (broker_task_state(t)) {
    case BROKER_TASK_READY:
        if (!broker_queue_unlink(b, q, slot))
            return TQ_ENOMEM;
        break;
    case BROKER_TASK_DELAYED:
        broker_queue_undelay(b, q, *slot);
        break;
    default:
        TQ_ASSERT(broker_task_state(t) == BROKER_TASK_LEASED);
        (void)broker_lease_end(b, broker_lease_of(b, *slot));
        break;
    }
    if (q->putters != NULL)
        broker_queue_mark(b, q);
    return TQ_OK;
}

int broker_on_retry(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    uint32_t slot = broker_find_task(b, ev->id);
    uint32_t revived;
    struct broker_extra *x;
    struct broker_queue *q;
    struct broker_task *t;

    if (slot == SLAB_NONE) {
        reply(ev, out, BROKER_REPLY_UNKNOWN);
        return TQ_OK;
    }
    t = broker_task_at(b->slab, slot);
    if ((broker_task_flags(t) & TASK_DEAD) == 0)
        return refuse(ev, out, "it is no dead letter");
    if (broker_task_state(t) == BROKER_TASK_LEASED && broker_lease_of(b, slot)->session != ev->session)
        return refuse(ev, out, "another session holds it");
    x = broker_task_extra(t);
    q = broker_queue_of(b, x->from, x->from_serial);
    if (q == NULL)
        return refuse(ev, out, "the queue that it came from has gone");
    if (q->shut_down)
        return refuse(ev, out, "the queue that it came from is shut down");
    revived = revive(b, q, slot);
    if (revived == SLAB_NONE || take_out(b, &slot) != TQ_OK) {
        broker_task_discard(b, revived);
        reply(ev, out, BROKER_REPLY_NO_MEMORY);
        return TQ_OK;
    }
    t = broker_task_at(b->slab, slot);
    broker_queue_finished_one(b, broker_task_queue(b, t));
    broker_task_at(b->slab, revived)->epoch = t->epoch < BROKER_EPOCH_MAX ? t->epoch + 1 : t->epoch;
    broker_task_succeed(b, slot, revived); /* the dead letter's queue may be gone now */
    q->unfinished++;
    broker_queue_return(b, q, revived, true);
    reply(ev, out, BROKER_REPLY_OK);
    return TQ_OK;
}
