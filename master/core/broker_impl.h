/* What the broker's files share. */
#ifndef MASTER_CORE_BROKER_IMPL_H
#define MASTER_CORE_BROKER_IMPL_H

#include "master/core/broker.h"
#include "master/core/ids.h"
#include "master/core/slab.h"
#include "master/core/wait.h"

/* When memory ran out in the middle of waking waiters, and for a due node that could not be answered. */
#define BROKER_RETRY_MS 10u

struct broker_lease_pool {
    struct broker_lease **chunks;
    uint32_t chunk_count, chunk_cap;
    struct broker_lease *free;
    uint64_t granted; /* so many so far: a lease's rank among those that end in the same millisecond */
    uint32_t free_count;
};

struct broker {
    struct tq_deadlines *deadlines;
    struct tq_deadline retry;          /* always set, mostly to never, so that moving it cannot fail */
    struct tq_deadline trash_deadline; /* so is this */
    struct broker_limits limits;
    broker_less_fn less;
    struct slab *slab;
    struct ids *ids;
    struct broker_lease_pool leases;
    struct broker_queue **queues; /* by index; NULL: free */
    uint32_t *free_queues;        /* indexes that are free; has queue_cap places */
    uint32_t queue_cap, free_queue_count;
    uint32_t queue_next_serial;
    uint32_t names_changed; /* counts declarations and removals: names may mean other queues now */
    struct broker_queue *by_name;
    struct broker_queue *removed; /* those that still have leases, waiters or trash */
    struct broker_queue *marked;
    struct broker_queue *short_of_memory[BROKER_MEMORY_CLASSES];
    struct broker_keys *keys;
    struct broker_idwait *idwaits;
    struct broker_idwait *ended; /* list: the result is there, those who wait are to be served */
    struct broker_trash *trash;  /* list */
    uint32_t kept_first,
        kept_last; /* results that give way (kept.h), SLAB_NONE: none; what their bodies cost */
    uint64_t kept_bytes;
    uint32_t gave_way; /* so many in this step */
    struct broker_session *sessions;
    void (*on_queue_gone)(void *ctx, struct broker_queue *q);
    void *on_queue_gone_ctx;
    struct broker_stats
        stats;               /* tasks, leased, delayed, kept, body_bytes: broker_task_set_state writes them */
    uint64_t external_bytes; /* of bodies that tasks have references to */
    uint64_t restored_bytes; /* of bodies, when the broker was read from its journal: maybe above the limit */
    uint64_t now_ms;
    uint32_t deaf_ms; /* so long, so far (broker_was_deaf); only differences count */
    bool is_deaf;
    struct journal *journal;              /* NULL: there is none */
    bool more;                            /* another event of the same request follows */
    bool refuses;                         /* new work (broker_refuse_new_work) */
    uint64_t room[BROKER_MEMORY_CLASSES]; /* broker_set_room */
};

/* The step is over: who waits is served. */
void broker_finish_step(struct broker *b, struct broker_effects *out);
/* Ends all that is ready and delayed, as PURGED: at once, or as a purge does when it is much. */
void broker_drop_all(struct broker *b, struct broker_queue *q);
/* broker_remove without the end of the step. */
void broker_queue_detach(struct broker *b, struct broker_queue *q);

/* Wakes who can be woken, until nobody can or memory runs out; what is left then is tried again in the
 * next step or after BROKER_RETRY_MS. */
void broker_settle(struct broker *b, struct broker_effects *out);

/* What has come in takes from the room of the log. */
static inline void broker_take_room(struct broker *b, uint64_t cost)
{
    for (int c = 0; c < BROKER_MEMORY_CLASSES; c++)
        if (b->room[c] != UINT64_MAX)
            b->room[c] -= cost < b->room[c] ? cost : b->room[c];
}

/* May the session's body come in? New work may not while it is refused. Kept results that nobody asked for
 * give way to it (kept.h). What it acknowledges by that counts as gone (s: NULL if it acknowledges nothing).
 * Nobody is overtaken: no, while an earlier one of the class waits. */
bool broker_memory_admits(struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                          uint64_t body_cost);
/* Who of the putters that wait, if any, is next: the first; while new work is refused, the first that brings
 * a completion. */
struct broker_wait *broker_next_putter(const struct broker *b, const struct broker_queue *q);
/* The same but for those who wait, and nothing gives way. */
bool broker_memory_fits(const struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                        uint64_t body_cost);
/* The most that bodies of all tasks may cost when one of that class comes in. */
uint64_t broker_memory_ceiling(const struct broker *b, enum broker_memory_class c);

#endif
