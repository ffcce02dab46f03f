/* A heap of slots with CPython's heapq order, comparison by comparison: equal items come out in the same
 * order as from a stock PriorityQueue. A comparison may fail; then nothing has changed. Order: the priority
 * number, then Python's items before native ones, then broker_less_fn for two Python items, ids for two
 * native ones. Buried slots stay in it until they come to the top; the queue drops them there. */
#ifndef MASTER_CORE_HEAP_H
#define MASTER_CORE_HEAP_H

#include "master/core/broker.h"

struct broker_heap {
    uint32_t *list;
    size_t count; /* with tombstones */
    size_t cap;
    size_t buried; /* of those that count counts */
};

#define BROKER_HEAP_UNORDERED 1 /* two items cannot be ordered; text says why */

/* Room for n slots in all. TQ_ENOMEM. */
int broker_heap_reserve(struct broker_heap *h, size_t n);
/* There is room. 0, BROKER_HEAP_UNORDERED, TQ_ENOMEM (from less). */
int broker_heap_push(const struct broker *b, struct broker_heap *h, uint32_t slot,
                     char text[BROKER_TEXT_MAX]);
/* The heap is not empty. 0, BROKER_HEAP_UNORDERED, TQ_ENOMEM (from less). */
int broker_heap_pop(const struct broker *b, struct broker_heap *h, uint32_t *ret_slot,
                    char text[BROKER_TEXT_MAX]);
/* False also for two that cannot be compared (any more). */
bool broker_heap_is_before(const struct broker *b, uint32_t x, uint32_t y);
/* One of its slots is a tombstone now. When those are the most of it, it is built anew without them. */
void broker_heap_bury(struct broker *b, struct broker_heap *h);
/* Gives memory back when much more is held than `keep` slots and the tombstones need. */
void broker_heap_trim(struct broker_heap *h, size_t keep);
void broker_heap_deinit(struct broker_heap *h);

#endif
