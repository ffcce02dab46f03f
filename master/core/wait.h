/* A parked call: a get on an empty queue, a put on a full one, a join, a wait for a result. */
#ifndef MASTER_CORE_WAIT_H
#define MASTER_CORE_WAIT_H

#include "master/core/broker.h"
#include "master/core/slab.h"

enum broker_wait_kind { BROKER_WAIT_GET, BROKER_WAIT_PUT, BROKER_WAIT_JOIN, BROKER_WAIT_RESULT };

struct broker_queue;

/* Bodies over the memory limit are refused by class: the last eighth is for those who hold a lease. */
enum broker_memory_class { BROKER_COMPLETION, BROKER_NEW_WORK, BROKER_MEMORY_CLASSES };

struct broker_idwait;

struct broker_wait {
    struct tq_deadline deadline;     /* timer.h tells whose it is */
    struct broker_wait *prev, *next; /* in the queue's list of its kind, or the idwait's; first come first */
    struct broker_wait *session_prev, *session_next;
    struct broker_session *session;
    union {
        struct broker_queue *queue;
        struct broker_idwait *idwait; /* RESULT: all who wait for the same id (idwait.h) */
    };
    uint64_t token;
    union {
        uint32_t slot;      /* PUT: the task, NEW */
        uint32_t max_bytes; /* GET */
    };
    uint16_t max; /* a get's tasks */
    uint8_t kind; /* enum broker_wait_kind */
    union {
        uint8_t memory_class; /* PUT: enum broker_memory_class */
        bool take;            /* GET */
    };
};

static inline uint32_t broker_wait_slot(const struct broker_wait *w)
{
    return w->kind == BROKER_WAIT_PUT ? w->slot : SLAB_NONE;
}

/* Parks the call of ev (not RESULT: idwait.h does that with the two below); take_slot is owned by the wait on
 * success. TQ_ENOMEM. */
int broker_wait_park(struct broker *b, enum broker_wait_kind kind, const struct broker_event *ev,
                     uint32_t take_slot, enum broker_memory_class memory_class);
/* Why a put of the session does not get in: FULL, or, to those who know the difference, NO_SPACE or
 * NO_MEMORY. */
enum broker_outcome broker_no_room(const struct broker *b, const struct broker_session *s,
                                   const struct broker_queue *q, enum broker_memory_class c);
/* A wait of ev's session with its deadline set, in no list of a queue. NULL when out of memory. */
struct broker_wait *broker_wait_new(struct broker *b, enum broker_wait_kind kind,
                                    const struct broker_event *ev);
/* Frees it: out of its session, deadline cleared. It is in no list of a queue any more. */
void broker_wait_free(struct broker *b, struct broker_wait *w);
/* Ends the wait; the task of a put is the caller's now. */
uint32_t broker_wait_end(struct broker *b, struct broker_wait *w);
/* Ends the wait; a put's task never was. What stands behind it may go ahead. */
void broker_wait_drop(struct broker *b, struct broker_wait *w);
struct broker_wait *broker_wait_of_deadline(struct tq_deadline *d);
/* The session's parked call with that token, or NULL. */
struct broker_wait *broker_wait_find(const struct broker_session *s, uint64_t token);

#endif
