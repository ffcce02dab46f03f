/* Tasks go out to a session, and come in from one: the same for a call that is answered at once and for one
 * that waited. */
#ifndef MASTER_CORE_DELIVER_H
#define MASTER_CORE_DELIVER_H

#include "master/core/broker.h"
#include "master/core/wait.h"

#define BROKER_NOTHING 2 /* (1 is BROKER_HEAP_UNORDERED) there is nothing that may be handed out */

struct broker_want {
    struct broker_session *session;
    struct broker_queue *queue;
    uint64_t token;
    uint32_t max;
    uint32_t max_bytes; /* 0: no limit */
    bool take;
    bool was_parked;
};

/* How many more leases of the queue the session may hold. */
uint32_t broker_held_left(const struct broker *b, const struct broker_session *s,
                          const struct broker_queue *q);
/* Hands out what is ready and allowed, with the whole reply to that (or the reply that it cannot be
 * ordered). BROKER_NOTHING, TQ_ENOMEM: no reply, and nothing changed but that tasks have expired. */
int broker_hand_out(struct broker *b, const struct broker_want *want, struct broker_effects *out);

/* Why the put is refused, or NULL. */
const char *broker_put_refusal(const struct broker_event *ev);
/* The put's task: NEW, without an id; its times are relative. SLAB_NONE when out of memory. */
uint32_t broker_put_make(struct broker *b, const struct broker_event *ev);
/* The task of a put gets its id and its place: READY or DELAYED. 0, BROKER_HEAP_UNORDERED with text,
 * TQ_ENOMEM: it is as it was. */
int broker_put_accept(struct broker *b, struct broker_queue *q, uint32_t slot, char text[BROKER_TEXT_MAX]);
/* A task with that key is there: the whole reply. BROKER_NOTHING: there is none, and no reply. Room for the
 * reply was reserved. */
int broker_put_known(struct broker *b, struct broker_queue *q, struct tq_span key, struct broker_session *s,
                     uint64_t token, bool was_parked, struct broker_effects *out);

#endif
