#include "master/core/timer.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/effects.h"
#include "master/core/idwait.h"
#include "master/core/lease.h"
#include "master/core/outcome.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/queue.h"

/* The node a deadline is embedded in. */
#define OWNER(d, type, member) ((type *)(void *)((char *)(d)-offsetof(type, member)))

static void move(struct broker *b, struct tq_deadline *d, uint64_t at_ms)
{
    int rv;

    if (tq_deadline_is_set(d) && d->at_ms == at_ms)
        return;
    rv = tq_deadline_set(b->deadlines, d, at_ms);
    TQ_ASSERT(rv == TQ_OK); /* it has its place, or it was popped just now and that place is free */
}

int broker_timer_prepare(struct broker *b, uint32_t slot)
{
    struct broker_extra *x = broker_task_extra(broker_task_at(b->slab, slot));
    struct broker_timer *t;

    TQ_ASSERT(x != NULL);
    if (x->timer != NULL)
        return TQ_OK;
    t = tq_malloc(sizeof(*t));
    if (t == NULL)
        return TQ_ENOMEM;
    *t = (struct broker_timer){.deadline = {.kind = broker_node_kind(NODE_TIMER)}, .slot = slot};
    if (tq_deadline_set(b->deadlines, &t->deadline, BROKER_NEVER) != TQ_OK) {
        tq_free(t);
        return TQ_ENOMEM;
    }
    x->timer = t;
    return TQ_OK;
}

void broker_timer_move(struct broker_timer *t, uint32_t slot)
{
    if (t != NULL)
        t->slot = slot;
}

void broker_timer_free(struct broker *b, struct broker_timer *t)
{
    if (t == NULL)
        return;
    tq_deadline_clear(b->deadlines, &t->deadline);
    tq_free(t);
}

void broker_timer_sync(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_extra *x = broker_task_extra(t);
    enum broker_task_state state = broker_task_state(t);
    uint64_t at_ms = BROKER_NEVER;

    if (x == NULL || x->timer == NULL)
        return;
    if (state == BROKER_TASK_DELAYED)
        at_ms = x->due_ms;
    if ((state == BROKER_TASK_DELAYED || state == BROKER_TASK_READY || state == BROKER_TASK_KEPT) &&
        x->expires_ms != 0 && x->expires_ms < at_ms)
        at_ms = x->expires_ms;
    move(b, &x->timer->deadline, at_ms);
}

void broker_task_expire(struct broker *b, uint32_t slot)
{
    struct broker_ending ending = {.outcome = BROKER_OUTCOME_EXPIRED};
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    uint64_t again_ms = broker_after(b->now_ms, BROKER_RETRY_MS);

    if (broker_task_finish(b, slot, &ending) == TQ_OK)
        return;
    TQ_ASSERT(!q->removed);
    broker_queue_delay(b, q, slot, again_ms);
    move(b, &broker_task_extra(t)->timer->deadline,
         again_ms); /* or it came due for ever: expires_ms is over */
}

static void on_timer(struct broker *b, struct broker_timer *timer)
{
    struct broker_ending ending = {.outcome = BROKER_OUTCOME_EXPIRED};
    uint32_t slot = timer->slot;
    struct broker_task *t = broker_task_at(b->slab, slot);

    move(b, &timer->deadline, BROKER_NEVER);
    if (broker_task_is_purged(b, slot))
        return; /* it is on its way out */
    if (broker_task_state(t) == BROKER_TASK_KEPT) {
        broker_task_end(b, slot);
    } else if (broker_task_is_overdue(b, slot)) {
        if (broker_task_finish_linked(b, slot, &ending) != TQ_OK)
            move(b, &timer->deadline, broker_after(b->now_ms, BROKER_RETRY_MS));
    } else {
        struct broker_queue *q = broker_task_queue(b, t);

        TQ_ASSERT(broker_task_state(t) == BROKER_TASK_DELAYED); /* others are set to never */
        broker_queue_undelay(b, q, slot);
        broker_queue_return(b, q, slot, true);
    }
}

static int on_wait_due(struct broker *b, struct tq_deadline *d, struct broker_effects *out)
{
    struct broker_wait *w = broker_wait_of_deadline(d);
    struct broker_effect *e;

    if (broker_effects_reserve(out) != TQ_OK) {
        move(b, d, broker_after(b->now_ms, BROKER_RETRY_MS));
        return TQ_ENOMEM;
    }
    e = broker_effects_add(out, w->session, w->token,
                           w->kind == BROKER_WAIT_PUT
                               ? broker_no_room(b, w->session, w->queue, w->memory_class)
                               : BROKER_REPLY_EMPTY);
    e->was_parked = true;
    e->id = w->kind == BROKER_WAIT_RESULT ? w->idwait->id : 0;
    broker_wait_drop(b, w);
    return TQ_OK;
}

/* It could not be extended, nor could its session come back, for so long. */
static bool lease_waits_on(struct broker *b, struct broker_lease *l)
{
    uint64_t ms = broker_deaf_ms(b, &l->deaf_ms);
    uint64_t at_ms = broker_after(b->now_ms, ms);
    int rv;

    if (ms == 0)
        return false;
    l->limit_ms = broker_after(l->limit_ms > b->now_ms ? l->limit_ms : b->now_ms, ms);
    rv = tq_deadline_set_ranked(b->deadlines, &l->deadline, at_ms);
    TQ_ASSERT(rv == TQ_OK); /* its place is free */
    return true;
}

/* Time was up, and the session is told, or its session has been silent for too long, and may still come back
 * and resume it. */
static int on_lease_due(struct broker *b, struct tq_deadline *d, struct broker_effects *out)
{
    struct broker_lease *l = broker_lease_of_deadline(d);
    bool is_over = l->limit_ms <= b->now_ms;

    if (lease_waits_on(b, l))
        return TQ_OK;
    if (is_over && !l->session->silent) {
        struct broker_effect *e;

        if (broker_effects_reserve(out) != TQ_OK) {
            int rv = tq_deadline_set_ranked(b->deadlines, d, broker_after(b->now_ms, BROKER_RETRY_MS));

            TQ_ASSERT(rv == TQ_OK); /* its place is free */
            return TQ_ENOMEM;
        }
        e = broker_effects_add(out, l->session, 0, BROKER_TOLD_LOST);
        e->id = l->id;
        e->epoch = l->epoch;
    }
    broker_lease_return(b, l, !is_over);
    return TQ_OK;
}

int broker_on_due(struct broker *b, struct tq_deadline *d, struct broker_effects *out)
{
    TQ_ASSERT((d->kind & 0xff) == BROKER_DEADLINE && !tq_deadline_is_set(d));
    switch ((enum broker_node)(d->kind >> 8)) {
    case NODE_WAIT:
        return on_wait_due(b, d, out);
    case NODE_LEASE:
        return on_lease_due(b, d, out);
    case NODE_TIMER:
        on_timer(b, OWNER(d, struct broker_timer, deadline));
        return TQ_OK;
    case NODE_RATE:
        move(b, d, BROKER_NEVER);
        broker_rate_due(b, OWNER(d, struct broker_queue, rate_deadline));
        return TQ_OK;
    case NODE_IDLE:
        move(b, d, BROKER_NEVER);
        broker_idle_due(b, OWNER(d, struct broker_queue, idle_deadline));
        return TQ_OK;
    case NODE_RETRY:
        move(b, d, BROKER_NEVER); /* the end of the step tries again */
        return TQ_OK;
    case NODE_TRASH:
        move(b, d, BROKER_NEVER);
        broker_trash_due(b);
        return TQ_OK;
    }
    TQ_ASSERT(false);
    return TQ_OK;
}
