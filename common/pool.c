#include "common/pool.h"

#include <string.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/mem.h"

#define UNIT_BYTES      TQ_PAGES_UNIT_BYTES
#define CELL_CLASS_0    512u /* what a smaller one costs */
#define CELL_CLASS_BITS 9u
#define CELLS_UNITS     (TQ_POOL_CELLS_BYTES / UNIT_BYTES)
#define BLOCK_BYTES     ((size_t)16 << 20) /* about */
#define BLOCK_RUNS_MIN  2u
#define BLOCK_RUNS_MAX  64u
#define POPULATE_BYTES  16384u /* to touch so much page by page takes longer than to ask for it */

#define CELL_WORDS (TQ_POOL_CELLS_BYTES / CELL_CLASS_0 / 64)

/* The word before each allocation. The lowest two bits tell what it is. */
#define TAG_CELL  0u /* the rest: its struct tq_pool_cells */
#define TAG_RUN   1u /* it is alone in its run, which begins before this word */
#define TAG_OWN   2u /* a mapping of so many bytes (the rest), which begins before this word */
#define TAG_FREE  3u /* it was alone in its run, and was freed */
#define TAG_BITS  2u
#define TAG_BYTES sizeof(uint64_t)

struct tq_pool_block {
    struct tq_pool_block *prev, *next; /* blocks of its class with free runs */
    unsigned char *base;
    size_t bytes;
    uint64_t free; /* a bit for each run: is neither in use nor warm */
    uint64_t all;
    uint32_t run_bytes;
    uint8_t class;
};

struct tq_pool_run { /* stands at its beginning */
    struct tq_pool_block *block;
    struct tq_pool_run *prev, *next;             /* warm ones */
    struct tq_pool_run *class_prev, *class_next; /* of its class */
    size_t touched;                              /* so many of its bytes have memory */
};

struct tq_pool_cells {
    struct tq_pool_run run;
    struct tq_pool_cells *prev, *next; /* those of its class that have room */
    uint64_t free[CELL_WORDS];         /* a bit for each cell */
    uint32_t cell_bytes;
    uint32_t inverse; /* 2^32 / cell_bytes, rounded up */
    uint16_t live;
    uint16_t capacity;
    uint16_t used; /* no cell from here on was ever in use */
    uint8_t class;
};

/* Not at the beginning of a page, where large buffers of others begin: to copy between two places at the same
 * offset in their pages stalls the processor (measured: up to half as slow again). */
#define RUN_HEAD  3072u
#define CELL_HEAD ((uint32_t)(sizeof(struct tq_pool_cells) + 15) / 16 * 16)

_Static_assert(sizeof(struct tq_pool_run) + TAG_BYTES <= RUN_HEAD && RUN_HEAD % 8 == 0 && TAG_BYTES == 8,
               "8-byte alignment");
_Static_assert(TQ_POOL_CELL_MAX_BYTES + TAG_BYTES == 10u << 11, "the last class of 8 to a doubling");
_Static_assert(TQ_POOL_CELL_CLASSES == 1 + 5 * 8 + 2, "512, five doublings, two more");
_Static_assert(TQ_POOL_RUN_MAX_BYTES + RUN_HEAD == (size_t)160 * UNIT_BYTES, "the last class");

static uint64_t tag_of(const void *at)
{
    uint64_t tag;

    memcpy(&tag, (const unsigned char *)at - TAG_BYTES, sizeof(tag));
    return tag;
}

static void *tagged(unsigned char *at, uint64_t tag)
{
    memcpy(at, &tag, sizeof(tag));
    return at + TAG_BYTES;
}

/* ---- classes: 8 for each doubling of cells, 4 for each of runs ---- */

static unsigned cell_class(size_t n)
{
    unsigned bits;

    if (n <= CELL_CLASS_0)
        return 0;
    n--;
    bits = 31u - (unsigned)__builtin_clz((unsigned)n);
    return 8 * (bits - CELL_CLASS_BITS) + (unsigned)(n >> (bits - 3)) % 8 + 1;
}

static uint32_t cell_class_bytes(unsigned class)
{
    if (class == 0)
        return CELL_CLASS_0;
    class --;
    return (8 + class % 8 + 1) << (CELL_CLASS_BITS - 3 + class / 8);
}

static unsigned run_class(size_t n)
{
    unsigned units = (unsigned)((n + UNIT_BYTES - 1) / UNIT_BYTES), bits;

    if (units <= 8)
        return units - 1;
    units--;
    bits = 31u - (unsigned)__builtin_clz(units);
    return 8 + 4 * (bits - 3) + (units >> (bits - 2)) % 4;
}

static uint32_t run_class_bytes(unsigned class)
{
    TQ_ASSERT(class < TQ_POOL_RUN_CLASSES);
    if (class < 8)
        return (class + 1) * UNIT_BYTES;
    class -= 8;
    return ((4 + class % 4 + 1) << (1 + class / 4)) * UNIT_BYTES;
}

/* ---- blocks ---- */

static struct tq_pool_block *block_open(struct tq_pool *p, unsigned class)
{
    size_t run_bytes = run_class_bytes(class), runs = BLOCK_BYTES / run_bytes;
    struct tq_pool_block *b = tq_malloc(sizeof(*b));

    if (b == NULL)
        return NULL;
    runs = runs > BLOCK_RUNS_MAX ? BLOCK_RUNS_MAX : runs < BLOCK_RUNS_MIN ? BLOCK_RUNS_MIN : runs;
    *b = (struct tq_pool_block){
        .base = tq_pages_alloc(runs * run_bytes),
        .bytes = runs * run_bytes,
        .all = UINT64_MAX >> (64 - runs),
        .run_bytes = (uint32_t)run_bytes,
        .class = (uint8_t) class,
    };
    p->system_calls++;
    if (b->base == NULL) {
        tq_free(b);
        return NULL;
    }
    b->free = b->all;
    tq_mem_poison(b->base, b->bytes);
    DL_PREPEND(p->blocks[class], b);
    p->mappings++;
    p->mapped_bytes += b->bytes;
    return b;
}

static void block_close(struct tq_pool *p, struct tq_pool_block *b)
{
    DL_DELETE(p->blocks[b->class], b);
    p->system_calls++;
    p->mappings--;
    p->mapped_bytes -= b->bytes;
    tq_pages_free(b->base, b->bytes);
    tq_free(b);
}

/* ---- runs ---- */

static void warm_remove(struct tq_pool *p, struct tq_pool_run *r)
{
    DL_DELETE(p->warm, r);
    DL_DELETE2(p->warm_of_class[r->block->class], r, class_prev, class_next);
    p->warm_bytes -= r->touched;
}

/* What it takes goes back to the system, now. */
static void run_drop(struct tq_pool *p, struct tq_pool_run *r)
{
    struct tq_pool_block *b = r->block;
    uint64_t bit = (uint64_t)1 << (size_t)((unsigned char *)r - b->base) / b->run_bytes;
    size_t touched = (r->touched + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;

    if (b->free == 0) /* behind the first one: so, while there is less and less, others become empty */
        DL_APPEND_ELEM(p->blocks[b->class], p->blocks[b->class], b);
    b->free |= bit;
    if (b->free == b->all) {
        block_close(p, b);
        return;
    }
    p->system_calls++;
    tq_mem_poison(r, b->run_bytes);
    tq_pages_drop(r, touched);
}

static struct tq_pool_run *run_take(struct tq_pool *p, unsigned class)
{
    struct tq_pool_run *r = p->warm_of_class[class];
    struct tq_pool_block *b = p->blocks[class];

    if (r != NULL) {
        warm_remove(p, r);
        return r;
    }
    if (b == NULL)
        b = block_open(p, class);
    if (b == NULL)
        return NULL;
    r = (struct tq_pool_run *)(void *)(b->base + (size_t)__builtin_ctzll(b->free) * b->run_bytes);
    b->free &= b->free - 1;
    if (b->free == 0)
        DL_DELETE(p->blocks[class], b);
    tq_mem_unpoison(r, sizeof(*r));
    *r = (struct tq_pool_run){.block = b};
    return r;
}

/* It stays warm until there is too much of it. */
static void run_give(struct tq_pool *p, struct tq_pool_run *r)
{
    tq_mem_poison(r + 1, r->block->run_bytes - sizeof(*r));
    DL_PREPEND(p->warm, r);
    DL_PREPEND2(p->warm_of_class[r->block->class], r, class_prev, class_next);
    p->warm_bytes += r->touched;
    while (p->warm_bytes > TQ_POOL_WARM_BYTES && p->warm->next != NULL) {
        struct tq_pool_run *oldest = p->warm->prev;

        warm_remove(p, oldest);
        run_drop(p, oldest);
    }
}

/* ---- cells ---- */

/* Behind the first one, which is being filled: as with blocks. */
static void cells_with_room(struct tq_pool *p, struct tq_pool_cells *c)
{
    struct tq_pool_cells **list = &p->cells[c->class];

    if (*list == NULL)
        DL_APPEND(*list, c);
    else
        DL_APPEND_ELEM(*list, *list, c);
}

static void cells_without_room(struct tq_pool *p, struct tq_pool_cells *c)
{
    struct tq_pool_cells *list = p->cells[c->class];

    TQ_ASSERT(c != list || c->next != NULL || c->prev == c);
    DL_DELETE(list, c);
    p->cells[c->class] = list;
}

static struct tq_pool_cells *cells_open(struct tq_pool *p, unsigned class)
{
    struct tq_pool_run *r = run_take(p, CELLS_UNITS - 1);
    struct tq_pool_cells *c = (struct tq_pool_cells *)(void *)r;
    uint32_t cell_bytes = cell_class_bytes(class), capacity;

    if (r == NULL)
        return NULL;
    capacity = (TQ_POOL_CELLS_BYTES - CELL_HEAD) / cell_bytes;
    tq_mem_unpoison(c, sizeof(*c));
    *c = (struct tq_pool_cells){
        .run = *r,
        .cell_bytes = cell_bytes,
        .inverse = UINT32_MAX / cell_bytes + 1,
        .capacity = (uint16_t)capacity,
        .class = (uint8_t) class,
    };
    for (uint32_t i = 0; i < capacity; i += 64)
        c->free[i / 64] = capacity - i < 64 ? ((uint64_t)1 << (capacity - i)) - 1 : UINT64_MAX;
    cells_with_room(p, c);
    return c;
}

/* The one at the lowest address, so that what comes one after the other lies side by side. */
static void *cell_alloc(struct tq_pool *p, size_t n)
{
    unsigned class = cell_class(n + TAG_BYTES), word = 0, index;
    struct tq_pool_cells *c = p->cells[class];
    unsigned char *cell;

    if (c == NULL)
        c = cells_open(p, class);
    if (c == NULL)
        return NULL;
    while (c->free[word] == 0)
        word++;
    index = word * 64 + (unsigned)__builtin_ctzll(c->free[word]);
    c->free[word] &= c->free[word] - 1;
    if (c->used <= index)
        c->used = (uint16_t)(index + 1);
    if (++c->live == c->capacity)
        cells_without_room(p, c);
    cell = (unsigned char *)c + CELL_HEAD + (size_t)index * c->cell_bytes;
    tq_mem_unpoison(cell, TAG_BYTES + n);
    return tagged(cell, (uintptr_t)c | TAG_CELL);
}

static void cell_free(struct tq_pool *p, struct tq_pool_cells *c, const unsigned char *cell)
{
    uint32_t offset = (uint32_t)(cell - (unsigned char *)c) - CELL_HEAD;
    uint32_t index = (uint32_t)((uint64_t)offset * c->inverse >> 32);
    uint64_t bit = (uint64_t)1 << index % 64;

    TQ_ASSERT(index * c->cell_bytes == offset && (c->free[index / 64] & bit) == 0); /* else it is none */
    tq_mem_poison(cell, c->cell_bytes);
    c->free[index / 64] |= bit;
    if (c->live-- == c->capacity)
        cells_with_room(p, c);
    if (c->live > 0)
        return;
    cells_without_room(p, c);
    if (c->run.touched < CELL_HEAD + (size_t)c->used * c->cell_bytes)
        c->run.touched = CELL_HEAD + (size_t)c->used * c->cell_bytes;
    run_give(p, &c->run);
}

/* ---- allocations ---- */

static void *run_alloc(struct tq_pool *p, size_t n)
{
    struct tq_pool_run *r = run_take(p, run_class(n + RUN_HEAD));

    if (r == NULL)
        return NULL;
    tq_mem_unpoison(r, n + RUN_HEAD);
    if (r->touched == 0 && n >= POPULATE_BYTES)
        tq_pages_populate(r, n + RUN_HEAD);
    if (r->touched < n + RUN_HEAD)
        r->touched = n + RUN_HEAD;
    return tagged((unsigned char *)r + RUN_HEAD - TAG_BYTES, TAG_RUN);
}

static void *own_alloc(struct tq_pool *p, size_t n)
{
    size_t bytes = (n + RUN_HEAD + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    unsigned char *base = bytes > n ? tq_pages_alloc_huge(bytes) : NULL;

    if (base == NULL)
        return NULL;
    p->system_calls++;
    p->mappings++;
    p->mapped_bytes += bytes;
    tq_mem_poison(base + RUN_HEAD + n, bytes - RUN_HEAD - n);
    return tagged(base + RUN_HEAD - TAG_BYTES, bytes | TAG_OWN);
}

void *tq_pool_alloc(struct tq_pool *p, size_t n)
{
    void *at;

    TQ_ASSERT(n > 0);
    if (tq_mem_must_fail())
        return NULL;
    if (n <= TQ_POOL_CELL_MAX_BYTES)
        at = cell_alloc(p, n);
    else if (n <= TQ_POOL_RUN_MAX_BYTES)
        at = run_alloc(p, n);
    else
        at = own_alloc(p, n);
    if (at != NULL)
        p->live++;
    return at;
}

void tq_pool_free(struct tq_pool *p, void *at)
{
    uint64_t tag = tag_of(at);
    uint64_t rest = tag >> TAG_BITS << TAG_BITS;

    TQ_ASSERT(p->live > 0);
    p->live--;
    switch (tag & ((1u << TAG_BITS) - 1)) {
    case TAG_CELL:
        cell_free(p, (struct tq_pool_cells *)(uintptr_t)rest, (unsigned char *)at - TAG_BYTES);
        return;
    case TAG_RUN:
        (void)tagged((unsigned char *)at - TAG_BYTES, TAG_FREE);
        run_give(p, (struct tq_pool_run *)(void *)((unsigned char *)at - RUN_HEAD));
        return;
    case TAG_OWN:
        p->system_calls++;
        p->mappings--;
        p->mapped_bytes -= (size_t)rest;
        tq_pages_free((unsigned char *)at - RUN_HEAD, (size_t)rest);
        return;
    default:
        TQ_ASSERT(false); /* freed before, or none of ours */
    }
}

void tq_pool_trim(struct tq_pool *p)
{
    while (p->warm != NULL) {
        struct tq_pool_run *newest = p->warm;

        warm_remove(p, newest);
        run_drop(p, newest);
    }
}
