/* A parked call: a get on an empty queue, a put on a full one, a join. */
#ifndef MASTER_CORE_WAIT_H
#define MASTER_CORE_WAIT_H

#include "master/core/broker.h"

enum broker_wait_kind { BROKER_WAIT_GET, BROKER_WAIT_PUT, BROKER_WAIT_JOIN };

/* Bodies over the memory limit are refused by class: the last eighth is for those who hold a lease. */
enum broker_memory_class { BROKER_COMPLETION, BROKER_NEW_WORK, BROKER_MEMORY_CLASSES };

struct broker_wait {
    struct tq_deadline deadline;
    struct broker_wait *prev; /* in the queue's list of its kind, first come first */
    struct broker_wait *next;
    struct broker_session *session;
    struct broker_queue *queue;
    struct broker_task *task; /* a put's, not accepted yet */
    uint64_t token;
    uint8_t kind;         /* enum broker_wait_kind */
    uint8_t memory_class; /* enum broker_memory_class, of a put */
};

/* Parks the call of ev; take_task is owned by the wait on success. TQ_ENOMEM. */
int broker_wait_park(struct broker *b, enum broker_wait_kind kind, const struct broker_event *ev,
                     struct broker_task *take_task, enum broker_memory_class memory_class);
/* Ends the wait; the task of a put is the caller's now. */
struct broker_task *broker_wait_end(struct broker *b, struct broker_wait *w);
/* Ends the wait; a put's task never was. What stands behind it may go ahead. */
void broker_wait_drop(struct broker *b, struct broker_wait *w);
struct broker_wait *broker_wait_of_deadline(struct tq_deadline *d);

#endif
