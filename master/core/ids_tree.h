/* Where ids.c keeps its leaves: a sparse array by number, in a slab of its own, so that what empties goes
 * back to the system. A tree of 64 places to a node, as high as the leaves that there are need, not as their
 * numbers are: above the root all of them share `prefix`. Nothing is copied when it grows. The leaves used
 * last are remembered, so that in the usual order (new ids at the end, old ones at the beginning) nobody
 * climbs it. Pure. */
#ifndef MASTER_CORE_IDS_TREE_H
#define MASTER_CORE_IDS_TREE_H

#include "master/core/slab.h"

#define IDS_TREE_NODE_BITS   6u
#define IDS_TREE_NUMBER_BITS 44u /* of a leaf's number */
#define IDS_TREE_RECENT      8u

struct ids_tree {
    struct slab *slab; /* whoever has the tree may take slots of it, too */
    uint64_t work;     /* bytes cleared */
    uint64_t prefix;
    unsigned height; /* of nodes above a leaf; 0: the root is one */
    uint32_t root;   /* SLAB_NONE: there is nothing */
    uint64_t recent_number[IDS_TREE_RECENT];
    void *recent[IDS_TREE_RECENT]; /* at its number modulo IDS_TREE_RECENT */
};

/* A slot of n bytes, all 0. SLAB_NONE when out of memory. */
uint32_t ids_tree_take_cleared(struct ids_tree *t, size_t n);
/* The leaf, of n bytes, all 0: it is not there. NULL when out of memory: nothing has changed. */
void *ids_tree_make(struct ids_tree *t, uint64_t number, size_t n);
/* Frees the leaf: it is there. */
void ids_tree_cut(struct ids_tree *t, uint64_t number);
/* The first leaf from number on, which is set to its own; NULL: there is none. */
void *ids_tree_next(const struct ids_tree *t, uint64_t *number);

/* NULL: it is not there. */
void *ids_tree_climb(const struct ids_tree *t, uint64_t number);
static inline void *ids_tree_find(const struct ids_tree *t, uint64_t number)
{
    unsigned at = number % IDS_TREE_RECENT;

    return t->recent[at] != NULL && t->recent_number[at] == number ? t->recent[at]
                                                                   : ids_tree_climb(t, number);
}
static inline void ids_tree_remember(struct ids_tree *t, uint64_t number, void *leaf)
{
    t->recent_number[number % IDS_TREE_RECENT] = number;
    t->recent[number % IDS_TREE_RECENT] = leaf;
}

#endif
