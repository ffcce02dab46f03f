#include "master/core/ids.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/ids_tree.h"

/* Blocks stand by 16 in the leaves of a tree; their ids and marks are slots of the tree's slab. */
#define LEAF_BLOCKS 16u
#define LEAF_IDS    (LEAF_BLOCKS * IDS_BLOCK)
#define BLOCK_BYTES (IDS_BLOCK * sizeof(uint32_t))

_Static_assert(IDS_MAX / LEAF_IDS >> IDS_TREE_NUMBER_BITS == 0, "every leaf has its number in the tree");
_Static_assert(IDS_BLOCK * sizeof(uint64_t) <= SLAB_SLOT_MAX_BYTES, "the marks of a block fit a slot");

/* A mark says that from this id of the block on, up to the next mark, ids were given out at that ms: the ms
 * times IDS_BLOCK, and the id's place in the block. In the order of places. What is before the first was at
 * base_ms. */
struct block {
    uint32_t *slots; /* of its ids, SLAB_NONE where there is none; NULL: no such block */
    uint64_t base_ms;
    uint32_t slots_handle;
    uint32_t marks_handle; /* SLAB_NONE: no room for any */
    uint16_t live;
    uint16_t marks;
};

struct leaf {
    struct block block[LEAF_BLOCKS];
};

struct ids {
    struct ids_tree tree;
    uint64_t next;
    uint64_t count;
    uint64_t work;
};

struct ids *ids_new(uint64_t first)
{
    struct ids *t;

    TQ_ASSERT(first >= 1 && first <= IDS_MAX);
    t = tq_calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    t->next = first;
    t->tree.slab = slab_new();
    if (t->tree.slab == NULL) {
        tq_free(t);
        return NULL;
    }
    return t;
}

void ids_free(struct ids *t)
{
    if (t != NULL)
        slab_free(t->tree.slab);
    tq_free(t);
}

/* ---- blocks ---- */

static inline struct block *block_in(struct leaf *leaf, uint64_t id)
{
    return &leaf->block[id / IDS_BLOCK % LEAF_BLOCKS];
}

static inline struct block *block_of(const struct ids *t, uint64_t id)
{
    struct leaf *leaf = ids_tree_find(&t->tree, id / LEAF_IDS);

    return leaf != NULL && block_in(leaf, id)->slots != NULL ? block_in(leaf, id) : NULL;
}

/* The block of an id that is there. */
static inline struct block *block_there(struct ids *t, uint64_t id)
{
    struct leaf *leaf = ids_tree_find(&t->tree, id / LEAF_IDS);
    struct block *b = leaf != NULL ? block_in(leaf, id) : NULL;

    TQ_ASSERT(b != NULL && b->slots != NULL && b->slots[id % IDS_BLOCK] != SLAB_NONE);
    ids_tree_remember(&t->tree, id / LEAF_IDS, leaf);
    return b;
}

static void leaf_end_if_empty(struct ids *t, const struct leaf *leaf, uint64_t number)
{
    t->work += sizeof(*leaf);
    for (unsigned i = 0; i < LEAF_BLOCKS; i++)
        if (leaf->block[i].slots != NULL)
            return;
    ids_tree_cut(&t->tree, number);
}

/* Made if there is none: then its ids are given out at at_ms. NULL when out of memory. */
static struct block *block_make(struct ids *t, uint64_t id, uint64_t at_ms)
{
    uint64_t number = id / LEAF_IDS;
    struct leaf *leaf = ids_tree_find(&t->tree, number);
    struct block *b;

    if (leaf == NULL)
        leaf = ids_tree_make(&t->tree, number, sizeof(*leaf));
    if (leaf == NULL)
        return NULL;
    b = block_in(leaf, id);
    if (b->slots == NULL) {
        uint32_t handle = ids_tree_take_cleared(&t->tree, BLOCK_BYTES);

        if (handle == SLAB_NONE) {
            leaf_end_if_empty(t, leaf, number);
            return NULL;
        }
        *b = (struct block){.slots = slab_at(t->tree.slab, handle), .slots_handle = handle, .base_ms = at_ms};
    }
    ids_tree_remember(&t->tree, number, leaf);
    return b;
}

static void block_end(struct ids *t, struct block *b, uint64_t id)
{
    slab_give(t->tree.slab, b->slots_handle);
    if (b->marks_handle != SLAB_NONE)
        slab_give(t->tree.slab, b->marks_handle);
    *b = (struct block){0};
    leaf_end_if_empty(t, ids_tree_find(&t->tree, id / LEAF_IDS), id / LEAF_IDS);
}

/* ---- marks ---- */

static uint64_t *marks_of(const struct ids *t, const struct block *b)
{
    return b->marks > 0 ? slab_at(t->tree.slab, b->marks_handle) : NULL;
}

/* How many of the marks stand at the place or before it. */
static unsigned marks_until(const uint64_t *marks, unsigned count, unsigned place)
{
    unsigned low = 0;

    if (count > 0 && marks[count - 1] % IDS_BLOCK <= place)
        return count; /* so it is for a new id */
    while (low < count) {
        unsigned middle = (low + count) / 2;

        if (marks[middle] % IDS_BLOCK <= place)
            low = middle + 1;
        else
            count = middle;
    }
    return low;
}

/* What governs a place with `until` marks up to it. */
static uint64_t at_ms_of(const struct block *b, const uint64_t *marks, unsigned until)
{
    return until > 0 ? marks[until - 1] / IDS_BLOCK : b->base_ms;
}

/* Room for `more` marks, as far as a block can have them. */
static int marks_reserve(struct ids *t, struct block *b, unsigned more)
{
    size_t want = (b->marks + more < IDS_BLOCK ? b->marks + more : IDS_BLOCK) * sizeof(uint64_t);
    size_t now = b->marks_handle != SLAB_NONE ? slab_size(t->tree.slab, b->marks_handle) : 0;
    uint32_t handle;

    if (want <= now)
        return TQ_OK;
    if (want < 2 * now)
        want = 2 * now;
    handle = slab_take(t->tree.slab, want);
    if (handle == SLAB_NONE)
        return TQ_ENOMEM;
    if (b->marks_handle != SLAB_NONE) {
        memcpy(slab_at(t->tree.slab, handle), slab_at(t->tree.slab, b->marks_handle),
               b->marks * sizeof(uint64_t));
        slab_give(t->tree.slab, b->marks_handle);
        t->work += b->marks * sizeof(uint64_t);
    }
    b->marks_handle = handle;
    return TQ_OK;
}

/* There is room. A mark that stands at the place is replaced. */
static void mark_put(struct ids *t, struct block *b, unsigned place, uint64_t at_ms)
{
    uint64_t *marks = slab_at(t->tree.slab, b->marks_handle);
    unsigned i = marks_until(marks, b->marks, place);

    if (i > 0 && marks[i - 1] % IDS_BLOCK == place) {
        i--;
    } else {
        memmove(marks + i + 1, marks + i, (b->marks - i) * sizeof(uint64_t));
        t->work += (b->marks - i) * sizeof(uint64_t);
        b->marks++;
    }
    marks[i] = at_ms * IDS_BLOCK + place;
}

/* The place, which is free, is of at_ms now, and those after it, up to the next mark, stay of what they were
 * if any of them is there. TQ_ENOMEM: nothing has changed. */
static int mark(struct ids *t, struct block *b, unsigned place, uint64_t at_ms)
{
    const uint64_t *marks = marks_of(t, b);
    unsigned until = marks_until(marks, b->marks, place), after = place + 1;
    unsigned end = until < b->marks ? (unsigned)(marks[until] % IDS_BLOCK) : IDS_BLOCK;
    uint64_t was_ms = at_ms_of(b, marks, until);

    if (was_ms == at_ms)
        return TQ_OK;
    if (marks_reserve(t, b, 2) != TQ_OK)
        return TQ_ENOMEM;
    while (after < end && b->slots[after] == SLAB_NONE)
        after++;
    t->work += (after - place) * sizeof(b->slots[0]);
    mark_put(t, b, place, at_ms);
    if (after < end)
        mark_put(t, b, place + 1, was_ms);
    return TQ_OK;
}

/* ---- ids ---- */

static int put(struct ids *t, uint64_t id, uint32_t slot, uint64_t at_ms)
{
    struct block *b = block_make(t, id, at_ms);

    if (b == NULL || mark(t, b, id % IDS_BLOCK, at_ms) != TQ_OK)
        return TQ_ENOMEM; /* a new block needs no mark, so none is left empty */
    b->slots[id % IDS_BLOCK] = slot;
    b->live++;
    t->count++;
    return TQ_OK;
}

int ids_add(struct ids *t, uint32_t slot, uint64_t now_ms, uint64_t *ret_id)
{
    int rv;

    TQ_ASSERT(slot != SLAB_NONE && now_ms <= IDS_MAX);
    if (t->next > IDS_MAX)
        return TQ_ELIMIT;
    rv = put(t, t->next, slot, now_ms);
    if (rv == TQ_OK)
        *ret_id = t->next++;
    return rv;
}

int ids_restore(struct ids *t, uint64_t id, uint32_t slot, uint64_t at_ms)
{
    TQ_ASSERT(slot != SLAB_NONE);
    if (id == 0 || id >= t->next || at_ms > IDS_MAX)
        return TQ_EINVAL;
    if (ids_find(t, id) != SLAB_NONE)
        return TQ_EEXISTS;
    return put(t, id, slot, at_ms);
}

int ids_skip(struct ids *t, uint64_t next)
{
    uint64_t was = t->next;
    struct block *b;

    if (next < was || next > IDS_MAX + 1)
        return TQ_EINVAL;
    t->next = next;
    b = was <= IDS_MAX && was / IDS_BLOCK != next / IDS_BLOCK ? block_of(t, was) : NULL;
    if (b != NULL && b->live == 0) /* it was only there because of the next id */
        block_end(t, b, was);
    return TQ_OK;
}

uint32_t ids_find(const struct ids *t, uint64_t id)
{
    const struct block *b = block_of(t, id);

    return b != NULL ? b->slots[id % IDS_BLOCK] : SLAB_NONE;
}

uint64_t ids_at_ms(const struct ids *t, uint64_t id)
{
    const struct block *b = block_of(t, id);
    const uint64_t *marks;

    TQ_ASSERT(b != NULL && b->slots[id % IDS_BLOCK] != SLAB_NONE);
    marks = marks_of(t, b);
    return at_ms_of(b, marks, marks_until(marks, b->marks, id % IDS_BLOCK));
}

void ids_move(struct ids *t, uint64_t id, uint32_t slot)
{
    TQ_ASSERT(slot != SLAB_NONE);
    block_there(t, id)->slots[id % IDS_BLOCK] = slot;
}

void ids_remove(struct ids *t, uint64_t id)
{
    struct block *b = block_there(t, id);

    b->slots[id % IDS_BLOCK] = SLAB_NONE;
    b->live--;
    t->count--;
    if (b->live == 0 && id / IDS_BLOCK != t->next / IDS_BLOCK) /* the next id's block is wanted again */
        block_end(t, b, id);
}

uint64_t ids_next(const struct ids *t)
{
    return t->next;
}

uint64_t ids_count(const struct ids *t)
{
    return t->count;
}

uint64_t ids_walk(const struct ids *t, uint64_t from, unsigned *budget, uint64_t *ret_resume)
{
    *ret_resume = 0;
    while (from < t->next) {
        uint64_t number = from / LEAF_IDS, block_from;
        struct leaf *leaf = ids_tree_next(&t->tree, &number);

        if (leaf == NULL)
            return 0;
        if (number != from / LEAF_IDS)
            from = number * LEAF_IDS;
        do {
            const struct block *b = block_in(leaf, from);

            if (*budget == 0) {
                *ret_resume = from;
                return 0;
            }
            --*budget;
            block_from = from / IDS_BLOCK * IDS_BLOCK;
            for (; b->slots != NULL && from < block_from + IDS_BLOCK; from++)
                if (b->slots[from % IDS_BLOCK] != SLAB_NONE)
                    return from;
            from = block_from + IDS_BLOCK;
        } while (from % LEAF_IDS != 0);
    }
    return 0;
}

uint64_t ids_bytes(const struct ids *t)
{
    struct slab_stats st;

    slab_get_stats(t->tree.slab, &st);
    return sizeof(*t) + st.mapped_bytes;
}

void ids_get_stats(const struct ids *t, struct ids_stats *ret_stats)
{
    struct slab_stats st;

    slab_get_stats(t->tree.slab, &st);
    *ret_stats = (struct ids_stats){.pieces = st.slots, .work = t->work + t->tree.work};
}
