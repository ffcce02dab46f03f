/* Time: a task's one timer (until it is due, until it expires, until its retention ends), and the one place
 * where a deadline node of the broker's comes in. Nodes of several owners share the kind BROKER_DEADLINE: a
 * subkind in the upper bits of tq_deadline.kind tells them apart. Nodes of things that must not fail (timers,
 * queues, retry, trash) stand in the heap from the start, at "never" while there is nothing to wait for: one
 * that is set can always be moved. */
#ifndef MASTER_CORE_TIMER_H
#define MASTER_CORE_TIMER_H

#include "master/core/broker.h"
#include "master/core/broker_impl.h"
#include "master/core/task.h"

enum broker_node { /* tq_deadline.kind = BROKER_DEADLINE | node << 8: whoever pops compares the low byte */
                   NODE_WAIT,
                   NODE_LEASE,
                   NODE_TIMER,
                   NODE_RATE,
                   NODE_IDLE,
                   NODE_RETRY, /* memory ran out in the middle of waking waiters */
                   NODE_TRASH,
};

#define BROKER_NEVER UINT64_MAX

static inline uint32_t broker_node_kind(enum broker_node n)
{
    return BROKER_DEADLINE | (uint32_t)n << 8;
}

struct broker_timer {
    struct tq_deadline deadline;
    uint32_t slot;
};

/* Sets the task's timer as its state and extra say: DELAYED until the smaller of due_ms and expires_ms; READY
 * and KEPT until expires_ms; otherwise (and without an extra) never. The node is made when the task is made
 * (prepare), so this cannot fail. Called by broker_task_set_state. */
void broker_timer_sync(struct broker *b, uint32_t slot);
/* The task, which has an extra, has a timer now, set to never. TQ_ENOMEM. Fine to repeat. */
int broker_timer_prepare(struct broker *b, uint32_t slot);
/* The task moved to another slot. NULL is fine. */
void broker_timer_move(struct broker_timer *t, uint32_t slot);
/* The task ends or is succeeded by one that needs none: cleared and freed. NULL is fine. */
void broker_timer_free(struct broker *b, struct broker_timer *t);

/* A task that is READY or about to be: its time to live has ended, whether its timer was looked at or not. */
static inline bool broker_task_is_overdue(const struct broker *b, uint32_t slot)
{
    const struct broker_extra *x = broker_task_extra(broker_task_at(b->slab, slot));

    return x != NULL && x->expires_ms != 0 && x->expires_ms <= b->now_ms;
}
/* Ends an overdue task, which is out of list, heap and lease (READY and taken, LEASED and let go, DELAYED and
 * out of its list). When there is no memory for what takes its place, it is DELAYED until there is: it is not
 * handed out any more. Cannot fail. */
void broker_task_expire(struct broker *b, uint32_t slot);

/* a + b, or never. */
static inline uint64_t broker_after(uint64_t at_ms, uint64_t ms)
{
    return ms > BROKER_NEVER - at_ms ? BROKER_NEVER : at_ms + ms;
}

/* BROKER_DUE: 0; TQ_ENOMEM: not even a reply could be recorded, the node is set again. */
int broker_on_due(struct broker *b, struct tq_deadline *d, struct broker_effects *out);

#endif
