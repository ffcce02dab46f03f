/* Leases: who holds which task, since when, until when. A lease stands in one session's list; a native
 * session may also have freed ones, which name a task that went back to its queue. Leases come from a pool
 * and are named by handles too, because a task has only 4 bytes for it. */
#ifndef MASTER_CORE_LEASE_H
#define MASTER_CORE_LEASE_H

#include "master/core/broker.h"

#define BROKER_CHUNK_LEASES 256u /* so many are made at a time */

enum broker_lease_list { LEASE_HELD, LEASE_HELD_EXPLICIT, LEASE_FREED };

struct broker_lease {
    struct tq_deadline deadline; /* kind BROKER_DEADLINE; set while limit_ms or silence bounds it. timer.h
                                    tells whose it is. Ranked: of those that end in the same millisecond the
                                    newest comes first, so that the tasks, each put to the front, stand in
                                    their old order then */
    struct broker_lease *prev, *next; /* in its session's list, oldest first */
    struct broker_session *session;
    struct broker_queue *queue; /* of its task; NULL: freed */
    uint64_t id;
    uint64_t since_ms;
    uint64_t limit_ms; /* lease_ms and extend: when it ends; UINT64_MAX: never */
    uint32_t epoch;
    uint32_t deaf_ms; /* broker.deaf_ms as it was when the deadline was set */
    uint32_t slot;    /* of its task; SLAB_NONE: freed */
    uint32_t handle;  /* its own */
    uint8_t attempts; /* the task's when it was handed out, for freed ones that are resumed */
    uint8_t list;     /* enum broker_lease_list */
    bool delivered;   /* Python: the reply reached the socket. Native ones count as delivered at once */
    bool armed;       /* the deadline was set, and was not cleared since; if not set now, it came due */
};

/* Room for n more leases, so that broker_lease_grant cannot fail. TQ_ENOMEM. */
int broker_lease_reserve(struct broker *b, uint32_t n);
/* A ready task, out of its queue, is handed to the session: READY -> LEASED, epoch + 1. For native sessions
 * the deadline is set from the queue's lease_ms (room for it was reserved, too). */
struct broker_lease *broker_lease_grant(struct broker *b, struct broker_session *s, uint32_t slot);
struct broker_lease *broker_lease_at(const struct broker *b, uint32_t handle);
/* The lease of a LEASED task. */
struct broker_lease *broker_lease_of(const struct broker *b, uint32_t slot);
/* The session's lease (id, epoch), or NULL. O(1). */
struct broker_lease *broker_lease_find(const struct broker *b, const struct broker_session *s, uint64_t id,
                                       uint32_t epoch);
/* Ends the lease: out of its list, its pool place free. The task is still LEASED and belongs to the caller.
 */
uint32_t broker_lease_end(struct broker *b, struct broker_lease *l);
/* The same, but the lease stays with its session as a freed one. */
uint32_t broker_lease_free_task(struct broker *b, struct broker_lease *l);
/* A freed lease is forgotten. */
void broker_lease_forget(struct broker *b, struct broker_lease *l);
/* Sets or clears the deadline from limit_ms and, if its session is silent, its queue's grace_ms from now.
 * Never fails for a lease that was granted. */
void broker_lease_sync(struct broker *b, struct broker_lease *l);
struct broker_lease *broker_lease_of_deadline(struct tq_deadline *d);
void broker_lease_pool_deinit(struct broker *b);

/* Ways for a lease to end. The task goes on as said; whoever waits is marked. */

/* Well, by a Python session: broker_task_ack, of which a plain task has only broker_task_end. stats.acked. */
void broker_lease_ack(struct broker *b, struct broker_lease *l);
/* Given back unrun: to the front, attempts unchanged. stats.bounced. */
void broker_lease_bounce(struct broker *b, struct broker_lease *l);
/* Its session died, fell silent for too long, or time is up: attempts + 1 (if it was delivered) and to the
 * front, or the end by max_deliveries (outcome.h). as_freed: the session may resume it. stats.returned. */
void broker_lease_return(struct broker *b, struct broker_lease *l, bool as_freed);

#endif
