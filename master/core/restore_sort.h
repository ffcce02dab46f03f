/* Lists of slots in the order of a number: stable, and quick if they are nearly in order already, as what is
 * found by ascending ids is. */
#ifndef MASTER_CORE_RESTORE_SORT_H
#define MASTER_CORE_RESTORE_SORT_H

#include <stddef.h>
#include <stdint.h>

struct restore_item {
    uint64_t key;
    uint32_t slot;
};

struct restore_list {
    struct restore_item *items;
    size_t count, cap;
};

/* Room for n in all; TQ_ENOMEM. */
int restore_list_reserve(struct restore_list *l, uint64_t n);
int restore_list_add(struct restore_list *l, uint64_t key, uint32_t slot); /* TQ_ENOMEM */
/* Ascending keys; equal ones stay in their order. O(n log k) for k runs that ascend already. TQ_ENOMEM. */
int restore_list_sort(struct restore_list *l);
void restore_list_deinit(struct restore_list *l);

#endif
