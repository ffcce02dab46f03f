/* A named queue: what stands in it, who waits for it. */
#ifndef MASTER_CORE_QUEUE_H
#define MASTER_CORE_QUEUE_H

#include "common/hash.h"
#include "master/core/broker.h"
#include "master/core/heap.h"
#include "master/core/wait.h"

struct broker_queue { /* what every put and get touches comes first, for the cache's sake */
    struct broker_queue_conf conf;
    /* Ready tasks, next one first. A priority queue has only those here that came back and could not be
     * ordered any more; the others are in the heap. */
    struct broker_task *list;
    uint64_t ready;
    uint64_t leased;
    uint64_t unfinished; /* puts minus task_done, what join waits for */
    struct broker_wait *getters;
    struct broker_wait *putters;
    bool shut_down;
    bool removed; /* not in the table any more; goes with its last lease */
    bool marked;
    bool is_short;
    uint8_t short_class;     /* enum broker_memory_class, while is_short */
    struct broker_heap heap; /* has room for all ready and leased tasks, so that each can come back */
    struct broker_wait *joiners;
    struct broker_queue *marked_prev; /* waiters have to be looked at */
    struct broker_queue *marked_next;
    struct broker_queue *short_prev; /* its first putter waits for memory */
    struct broker_queue *short_next;
    struct broker_queue *removed_prev;
    struct broker_queue *removed_next;
    UT_hash_handle hh;
    char name[]; /* with a 0 at the end */
};

/* TQ_ENOMEM. The queue is in no table yet. */
int broker_queue_new(const char *name, size_t name_len, const struct broker_queue_conf *conf,
                     struct broker_queue **ret_queue);
/* With what stands in it. Leases and waits are over. */
void broker_queue_free(struct broker *b, struct broker_queue *q);
void broker_queue_free_if_removed(struct broker *b, struct broker_queue *q);

/* A new task, at the end that its kind says; NEW -> READY. 0, BROKER_HEAP_UNORDERED with text, TQ_ENOMEM. */
int broker_queue_push(struct broker *b, struct broker_queue *q, struct broker_task *t,
                      char text[BROKER_TEXT_MAX]);
/* The next task out of the queue, which is not empty; it stays READY: the caller leases or ends it. 0,
 * BROKER_HEAP_UNORDERED with text, TQ_ENOMEM; nothing changed then. */
int broker_queue_take(struct broker *b, struct broker_queue *q, struct broker_task **ret_task,
                      char text[BROKER_TEXT_MAX]);
/* A leased task that is out of its session's list comes back, to the front; or ends if the queue is removed.
 */
void broker_queue_return(struct broker *b, struct broker_queue *q, struct broker_task *t);
/* Ends all ready tasks. */
void broker_queue_drop_ready(struct broker *b, struct broker_queue *q);

/* Its waiters are looked at before the step ends. */
void broker_queue_mark(struct broker *b, struct broker_queue *q);
void broker_queue_unmark(struct broker *b, struct broker_queue *q);
/* In or out of the list of those whose first putter waits for memory. */
void broker_queue_set_short(struct broker *b, struct broker_queue *q, enum broker_memory_class c);
void broker_queue_clear_short(struct broker *b, struct broker_queue *q);

/* Python's full(). */
static inline bool broker_queue_is_full(const struct broker_queue *q)
{
    return q->conf.maxsize > 0 && q->ready >= (uint64_t)q->conf.maxsize;
}

/* Gives memory back after a drain. */
static inline void broker_queue_trim(struct broker_queue *q)
{
    if (q->heap.cap > 0)
        broker_heap_trim(&q->heap, q->ready + q->leased);
}

#endif
