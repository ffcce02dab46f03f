/* What the broker's files share. */
#ifndef MASTER_CORE_BROKER_IMPL_H
#define MASTER_CORE_BROKER_IMPL_H

#include "master/core/broker.h"
#include "master/core/wait.h"

/* When memory ran out in the middle of waking waiters, and for a due node that could not be answered. */
#define BROKER_RETRY_MS 10u

struct broker {
    struct tq_deadlines *deadlines;
    struct tq_deadline retry; /* always set, mostly to never, so that moving it cannot fail */
    struct broker_limits limits;
    broker_less_fn less;
    struct broker_queue *by_name;
    struct broker_queue *removed; /* those that still have leases or waiters */
    struct broker_queue *marked;
    struct broker_queue *short_of_memory[BROKER_MEMORY_CLASSES];
    struct broker_session *sessions;
    struct broker_stats stats; /* tasks, leased, body_bytes: broker_task_set_state writes them */
    uint64_t now_ms;
    bool changed; /* this step changed what a log has to keep */
};

/* Wakes who can be woken, until nobody can or memory runs out; what is left then is tried again in the
 * next step or after BROKER_RETRY_MS. */
void broker_settle(struct broker *b, struct broker_effects *out);

/* May the session's body come in? What it acknowledges by that counts as gone. Nobody is overtaken: no,
 * while an earlier one of the class waits. */
bool broker_memory_admits(const struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                          const struct tq_body *body);
/* The same but for those who wait. */
bool broker_memory_fits(const struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                        const struct tq_body *body);
/* The most that bodies of all tasks may cost when one of that class comes in. */
uint64_t broker_memory_ceiling(const struct broker *b, enum broker_memory_class c);

#endif
