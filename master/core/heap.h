/* A heap of tasks with CPython's heapq order, comparison by comparison: equal items come out in the same
 * order as from a stock PriorityQueue. A comparison may fail; then nothing has changed. */
#ifndef MASTER_CORE_HEAP_H
#define MASTER_CORE_HEAP_H

#include "master/core/broker.h"

struct broker_heap {
    struct broker_task **list;
    size_t count;
    size_t cap;
};

#define BROKER_HEAP_UNORDERED 1 /* two items cannot be ordered; text says why */

/* Room for n tasks in all, which is at most one more than there was room for before. TQ_ENOMEM. */
int broker_heap_reserve(struct broker_heap *h, size_t n);
/* There is room. 0, BROKER_HEAP_UNORDERED, TQ_ENOMEM (from less). */
int broker_heap_push(struct broker_heap *h, struct broker_task *t, broker_less_fn less,
                     char text[BROKER_TEXT_MAX]);
/* The heap is not empty. 0, BROKER_HEAP_UNORDERED, TQ_ENOMEM (from less). */
int broker_heap_pop(struct broker_heap *h, broker_less_fn less, struct broker_task **ret_task,
                    char text[BROKER_TEXT_MAX]);
/* Gives memory back when much more is held than `keep` tasks need. */
void broker_heap_trim(struct broker_heap *h, size_t keep);
void broker_heap_deinit(struct broker_heap *h);

#endif
