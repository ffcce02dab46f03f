#include "master/core/ids_tree.h"

#include "common/assert.h"

#define PLACES     (1u << IDS_TREE_NODE_BITS)
#define HEIGHT_MAX ((IDS_TREE_NUMBER_BITS + IDS_TREE_NODE_BITS - 1) / IDS_TREE_NODE_BITS)

struct node {
    uint64_t mask; /* the places that are taken */
    uint32_t place[PLACES];
};

_Static_assert(PLACES == 64, "the places of a node are the bits of its mask");
_Static_assert(sizeof(struct node) % 8 == 0, "a slot of as many bytes is aligned");

static inline struct node *node_at(const struct ids_tree *t, uint32_t handle)
{
    return slab_at(t->slab, handle);
}

/* Nodes of height 1 have leaves. */
static inline unsigned place_of(uint64_t number, unsigned height)
{
    return (unsigned)(number >> IDS_TREE_NODE_BITS * (height - 1)) % PLACES;
}

static inline bool is_below_root(const struct ids_tree *t, uint64_t number)
{
    return t->root != SLAB_NONE && number >> IDS_TREE_NODE_BITS * t->height == t->prefix;
}

uint32_t ids_tree_take_cleared(struct ids_tree *t, size_t n)
{
    uint32_t handle = slab_take(t->slab, n);

    if (handle != SLAB_NONE) {
        memset(slab_at(t->slab, handle), 0, n);
        t->work += n;
    }
    return handle;
}

void *ids_tree_climb(const struct ids_tree *t, uint64_t number)
{
    uint32_t at = t->root;

    if (!is_below_root(t, number))
        return NULL;
    for (unsigned height = t->height; height > 0; height--) {
        at = node_at(t, at)->place[place_of(number, height)];
        if (at == SLAB_NONE)
            return NULL;
    }
    return slab_at(t->slab, at);
}

/* Takes the root away while it has but one place. */
static void lower(struct ids_tree *t)
{
    while (t->root != SLAB_NONE && t->height > 0) {
        const struct node *n = node_at(t, t->root);
        unsigned place = (unsigned)__builtin_ctzll(n->mask);
        uint32_t root = t->root;

        if ((n->mask & (n->mask - 1)) != 0)
            return;
        t->prefix = t->prefix << IDS_TREE_NODE_BITS | place;
        t->root = n->place[place];
        t->height--;
        slab_give(t->slab, root);
    }
}

/* Frees a leaf, or what was made of the way to one, with the nodes that become empty by it. */
static void cut(struct ids_tree *t, uint64_t number)
{
    uint32_t path[HEIGHT_MAX + 1], at = t->root;
    unsigned height = t->height;

    for (; at != SLAB_NONE && height > 0; height--) {
        path[height] = at;
        at = node_at(t, at)->place[place_of(number, height)];
    }
    if (at != SLAB_NONE)
        slab_give(t->slab, at);
    while (height < t->height) {
        struct node *n = node_at(t, path[++height]);

        n->place[place_of(number, height)] = SLAB_NONE;
        n->mask &= ~((uint64_t)1 << place_of(number, height));
        if (n->mask != 0)
            return;
        slab_give(t->slab, path[height]);
    }
    t->root = SLAB_NONE;
}

void ids_tree_cut(struct ids_tree *t, uint64_t number)
{
    unsigned at = number % IDS_TREE_RECENT;

    TQ_ASSERT(is_below_root(t, number));
    if (t->recent_number[at] == number)
        t->recent[at] = NULL;
    cut(t, number);
    lower(t);
}

/* A root above the root, until the number is below it. SLAB_NONE when out of memory: the tree may be higher
 * than it need be. */
static uint32_t heighten(struct ids_tree *t, uint64_t number)
{
    while (!is_below_root(t, number)) {
        uint32_t above = ids_tree_take_cleared(t, sizeof(struct node));
        unsigned place = t->prefix % PLACES;

        if (above == SLAB_NONE)
            return SLAB_NONE;
        node_at(t, above)->mask = (uint64_t)1 << place;
        node_at(t, above)->place[place] = t->root;
        t->root = above;
        t->prefix >>= IDS_TREE_NODE_BITS;
        t->height++;
    }
    return t->root;
}

void *ids_tree_make(struct ids_tree *t, uint64_t number, size_t n)
{
    uint32_t at = t->root;

    TQ_ASSERT(number >> IDS_TREE_NUMBER_BITS == 0);
    if (at == SLAB_NONE) {
        at = t->root = ids_tree_take_cleared(t, n);
        t->prefix = number;
        t->height = 0;
        return at != SLAB_NONE ? slab_at(t->slab, at) : NULL;
    }
    at = heighten(t, number);
    for (unsigned height = t->height; at != SLAB_NONE && height > 0; height--) {
        struct node *parent = node_at(t, at);
        unsigned place = place_of(number, height);

        if (parent->place[place] == SLAB_NONE)
            parent->place[place] = ids_tree_take_cleared(t, height > 1 ? sizeof(*parent) : n);
        parent->mask |= (uint64_t)1 << place; /* without a child too: cut, below, takes it away again */
        at = parent->place[place];
    }
    if (at != SLAB_NONE)
        return slab_at(t->slab, at);
    if (is_below_root(t, number))
        cut(t, number);
    lower(t);
    return NULL;
}

void *ids_tree_next(const struct ids_tree *t, uint64_t *number)
{
    uint32_t at = t->root;
    uint64_t first = t->prefix << IDS_TREE_NODE_BITS * t->height; /* below the root */
    unsigned height = t->height;

    if (at == SLAB_NONE || (*number > first && !is_below_root(t, *number)))
        return NULL;
    if (*number < first)
        *number = first;
    while (height > 0) {
        const struct node *n = node_at(t, at);
        unsigned shift = IDS_TREE_NODE_BITS * (height - 1);
        unsigned place = place_of(*number, height);
        uint64_t left = n->mask >> place << place;

        if (left == 0) { /* from the root to what comes behind this node */
            *number = ((*number >> (shift + IDS_TREE_NODE_BITS)) + 1) << (shift + IDS_TREE_NODE_BITS);
            if (!is_below_root(t, *number))
                return NULL;
            at = t->root;
            height = t->height;
            continue;
        }
        if ((unsigned)__builtin_ctzll(left) != place) /* then from the beginning of that place */
            *number = ((*number >> shift) - place + (unsigned)__builtin_ctzll(left)) << shift;
        at = n->place[__builtin_ctzll(left)];
        height--;
    }
    return slab_at(t->slab, at);
}
