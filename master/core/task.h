/* A task: a body on its way through a queue. One function writes the state and the counters with it.
 *
 *   NEW ---> READY <---> LEASED        NEW: made for a put that is not accepted yet
 *    |         |            |          READY: in its queue
 *    +---------+-----> GONE <+         LEASED: held by a session
 */
#ifndef MASTER_CORE_TASK_H
#define MASTER_CORE_TASK_H

#include "master/core/broker.h"

enum broker_task_state { BROKER_TASK_NEW, BROKER_TASK_READY, BROKER_TASK_LEASED, BROKER_TASK_GONE };

struct broker_task {
    struct broker_task *prev; /* in the queue's list while ready, in the session's while leased */
    struct broker_task *next;
    struct broker_queue *queue;
    struct broker_session *session; /* while leased */
    struct tq_body *body;
    uint32_t attempt; /* hand-outs that ended with a death */
    uint8_t state;    /* enum broker_task_state; broker_task_set_state writes it */
    bool delivered;   /* while leased: the reply reached the socket */
};

/* State NEW, with a reference to the body of its own. NULL when out of memory. */
struct broker_task *broker_task_new(struct broker_queue *q, struct tq_body *body);
void broker_task_set_state(struct broker *b, struct broker_task *t, enum broker_task_state to);
/* READY and out of its queue, or LEASED and out of its session's list -> GONE, and freed. The queue may
 * go with it when it was removed before. */
void broker_task_end(struct broker *b, struct broker_task *t);
/* NEW -> GONE, and freed: it never was in its queue. NULL is fine. */
void broker_task_discard(struct broker *b, struct broker_task *t);

static inline uint64_t broker_body_cost(const struct tq_body *body)
{
    return (uint64_t)body->len + BROKER_BODY_OVERHEAD_BYTES;
}

#endif
