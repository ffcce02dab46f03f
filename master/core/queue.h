/* A named queue: what stands in it, who waits for it. */
#ifndef MASTER_CORE_QUEUE_H
#define MASTER_CORE_QUEUE_H

#include "common/hash.h"
#include "master/core/broker.h"
#include "master/core/heap.h"
#include "master/core/journal.h"
#include "master/core/wait.h"

#define JOURNAL_COUNTS 11u /* `unfinished`, and the counters of a queue that only grow */

/* Serials are never used again: at ten thousand declarations a second in five days. */
#define BROKER_SERIAL_MAX (UINT32_MAX - 1)

/* What the journal knows of a queue. */
struct journal_queue {
    uint64_t home;                   /* the segment that has its last QUEUE op */
    uint64_t counts[JOURNAL_COUNTS]; /* as they were written last */
    uint64_t unrecorded; /* tasks in it, or leased from it, that came while durability was memory */
    bool recorded;
    bool noted;   /* it is in journal.queues */
    bool is_news; /* QUEUE is to be written, and not only counters that changed */
    struct broker_queue *prev, *next;
};

struct broker_queue {              /* what every put and get touches comes first, for the cache's sake */
    struct broker_queue_conf conf; /* its strings are the queue's own */
    /* Ready tasks as slots, singly linked, next one first; those with an extra know the one before them too
     * and are unlinked at once, others are buried. A priority queue has only those here that came back and
     * could not be ordered any more; the others are in the heap. */
    uint32_t head, tail;
    uint32_t sweep;  /* the list is swept of tombstones up to this slot; SLAB_NONE: from its head on */
    uint32_t buried; /* tombstones in the list */
    uint32_t index;  /* in broker.queues */
    uint32_t serial; /* never two the same in a broker's life */
    bool shut_down;
    bool removed; /* not in the table any more; goes with its last lease */
    bool marked;
    bool is_short;
    uint8_t short_class;   /* enum broker_memory_class, while is_short */
    uint8_t colour;        /* of what comes in now (purge.h) */
    uint8_t trash_colours; /* bits: those of what is still in broker.trash */
    uint64_t ready;
    uint64_t delayed;
    uint64_t leased;
    uint64_t unfinished; /* puts minus task_done, what join waits for */
    struct broker_wait *getters;
    struct broker_wait *putters;
    uint64_t used_ms;                /* for expiry, see below */
    struct broker_queue_stats stats; /* the counters that only grow, and body_bytes */
    struct broker_heap
        heap;              /* has room for all ready, delayed and leased tasks, so that each can come back */
    uint32_t delayed_head; /* DELAYED tasks, doubly linked (link, extra->prev), in no order */
    uint32_t names_seen;
    /* What conf.result and conf.dead mean, as of broker.names_changed when that was names_seen. */
    struct broker_queue *result, *dead;
    struct broker_wait *joiners;
    /* Rate limit: a token bucket (policy.h). */
    struct tq_deadline rate_deadline; /* set while somebody waits for a token */
    uint64_t rate_at_ms;
    uint64_t rate_millitokens;
    /* Expiry: removed when used_ms is expires_ms ago; the deadline is moved lazily. */
    struct tq_deadline idle_deadline;
    uint64_t purging; /* tasks of it that are still in broker.trash */
    /* Only with a journal. */
    uint64_t purged_place; /* what was ready or delayed when this was the last place is being purged */
    struct journal_queue journal;
    void *user;
    struct broker_queue *marked_prev; /* waiters have to be looked at */
    struct broker_queue *marked_next;
    struct broker_queue *short_prev; /* its first putter waits for memory */
    struct broker_queue *short_next;
    struct broker_queue *removed_prev;
    struct broker_queue *removed_next;
    UT_hash_handle hh;
    char name[]; /* with a 0 at the end */
};

/* TQ_ENOMEM; TQ_ELIMIT: too many queues, or serials. The queue is in no table yet. */
int broker_queue_new(struct broker *b, const char *name, size_t name_len,
                     const struct broker_queue_conf *conf, struct broker_queue **ret_queue);
/* With what stands in it. Leases and waits are over. */
void broker_queue_free(struct broker *b, struct broker_queue *q);
void broker_queue_free_if_removed(struct broker *b, struct broker_queue *q);
/* Copies conf and its strings over the queue's. TQ_ENOMEM. */
int broker_queue_set_conf(struct broker_queue *q, const struct broker_queue_conf *conf);

/* The queues that conf.result and conf.dead name, or NULL. */
struct broker_queue *broker_queue_result(struct broker *b, struct broker_queue *q);
struct broker_queue *broker_queue_dead(struct broker *b, struct broker_queue *q);

/* A NEW task that has its id, at the end that its kind says; NEW -> READY. 0, BROKER_HEAP_UNORDERED with
 * text, TQ_ENOMEM. */
int broker_queue_push(struct broker *b, struct broker_queue *q, uint32_t slot, char text[BROKER_TEXT_MAX]);
/* Room in the heap for one more task of this queue that will be ready some time: delayed, leased. TQ_ENOMEM.
 */
int broker_queue_reserve(struct broker_queue *q);
/* The next task out of the queue, which is not empty (q->ready > 0); it stays READY: the caller leases or
 * ends it. 0, BROKER_HEAP_UNORDERED with text, TQ_ENOMEM; nothing changed then. */
int broker_queue_take(struct broker *b, struct broker_queue *q, uint32_t *ret_slot,
                      char text[BROKER_TEXT_MAX]);
/* A task that is LEASED (its lease is over), DELAYED and out of the list of delayed ones, or NEW (with its
 * id; room was reserved) becomes READY: at the front, or (at_end) where a put would put it; or it ends if the
 * queue was removed or its time to live is over. A READY one that was taken stays so and
 * goes back, too. Cannot fail. */
void broker_queue_return(struct broker *b, struct broker_queue *q, uint32_t slot, bool at_end);
/* A READY task is taken out of the middle and stays READY: true; its slot may have changed then. Or it cannot
 * be unlinked, and was copied to a new slot which is READY and unlinked, the old one being a tombstone: true,
 * too. False when there is no memory for that. */
bool broker_queue_unlink(struct broker *b, struct broker_queue *q, uint32_t *slot);
/* A task that is NEW (with its id), LEASED (its lease is over) or READY (and taken) and has an extra and a
 * timer -> DELAYED, and linked. Room was reserved. Cannot fail. */
void broker_queue_delay(struct broker *b, struct broker_queue *q, uint32_t slot, uint64_t due_ms);
/* A DELAYED task out of the list of delayed ones; it stays DELAYED. */
void broker_queue_undelay(struct broker *b, struct broker_queue *q, uint32_t slot);
/* And in again. */
void broker_queue_relink_delayed(struct broker *b, struct broker_queue *q, uint32_t slot);
/* A slot in the list or heap has become a tombstone (state GONE). */
void broker_queue_entomb(struct broker *b, struct broker_queue *q, uint32_t slot);
/* What the queue gave up: slots, with tombstones among them. */
struct broker_queue_lists {
    uint32_t head;    /* of the list of ready ones */
    uint32_t delayed; /* of the list of delayed ones */
    struct broker_heap heap;
};
/* The queue gives up all that is ready and delayed in O(1), and keeps room for what is leased. Their slots
 * stay as they are; q->purging counts them instead of q->ready, q->delayed and stats.delayed. TQ_ENOMEM. */
int broker_queue_give_up(struct broker *b, struct broker_queue *q, struct broker_queue_lists *ret);
/* Ends all ready and delayed tasks, at once, as PURGED. */
void broker_queue_drop_ready(struct broker *b, struct broker_queue *q);

/* Its waiters are looked at before the step ends. */
void broker_queue_mark(struct broker *b, struct broker_queue *q);
void broker_queue_unmark(struct broker *b, struct broker_queue *q);
/* In or out of the list of those whose first putter waits for memory. */
void broker_queue_set_short(struct broker *b, struct broker_queue *q, enum broker_memory_class c);
void broker_queue_clear_short(struct broker *b, struct broker_queue *q);

/* Python's full(): ready and delayed tasks count. */
static inline bool broker_queue_is_full(const struct broker_queue *q)
{
    return q->conf.maxsize > 0 && q->ready + q->delayed >= (uint64_t)q->conf.maxsize;
}

/* Gives memory back after a drain. */
static inline void broker_queue_trim(struct broker_queue *q)
{
    if (q->heap.cap > 0)
        broker_heap_trim(&q->heap, q->ready + q->delayed + q->leased);
}

#endif
