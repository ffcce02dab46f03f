#include "master/core/slab.h"

#include "common/assert.h"
#include "common/mem.h"

#define REGION_BYTES ((size_t)SLAB_REGION_CHUNKS * SLAB_CHUNK_BYTES)
#define SELF_BYTES   ((sizeof(struct slab) / TQ_PAGES_UNIT_BYTES + 1) * TQ_PAGES_UNIT_BYTES)
#define FREE_NONE    UINT16_MAX

#define FINE_STEP_BYTES 2u
#define FINE_MAX_BYTES  256u
#define FINE_MAX_BITS   8u
#define FINE_CLASSES    ((FINE_MAX_BYTES - SLAB_SLOT_MIN_BYTES) / FINE_STEP_BYTES + 1)
/* From there on 8 classes to each doubling. */
#define COARSE_CLASSES 8u

_Static_assert(sizeof(struct slab_chunk) == 32, "a power of two, so that it lies in one cache line");
_Static_assert(SLAB_CHUNK_BYTES / SLAB_SLOT_MIN_BYTES <= 1u << SLAB_INDEX_BITS, "an index fits a handle");
_Static_assert(SLAB_CHUNKS <= 1ull << (32 - SLAB_INDEX_BITS), "a chunk's number fits a handle");
_Static_assert(SLAB_REGION_CHUNKS == 64, "the chunks of a region are the bits of a uint64_t");
_Static_assert(SLAB_SLOT_MAX_BYTES == (FINE_MAX_BYTES << 3) + (FINE_MAX_BYTES << 3) / COARSE_CLASSES &&
                   SLAB_CLASSES == FINE_CLASSES + 3 * COARSE_CLASSES + 1,
               "three doublings, and one step more: a lead on top of them");
_Static_assert(SLAB_CHUNK_BYTES % TQ_PAGES_UNIT_BYTES == 0, "a chunk's pages can be dropped");

static inline unsigned class_of(size_t n)
{
    unsigned bits;

    TQ_ASSERT(n > 0 && n <= SLAB_SLOT_MAX_BYTES);
    if (n <= SLAB_SLOT_MIN_BYTES)
        return 0;
    if (n <= FINE_MAX_BYTES)
        return (unsigned)(n - SLAB_SLOT_MIN_BYTES + 1) / FINE_STEP_BYTES;
    n--;
    bits = 31u - (unsigned)__builtin_clz((unsigned)n);
    return FINE_CLASSES + COARSE_CLASSES * (bits - FINE_MAX_BITS) +
           (unsigned)(n >> (bits - 3)) % COARSE_CLASSES;
}

static size_t class_bytes(unsigned class)
{
    unsigned doubling;

    if (class < FINE_CLASSES)
        return SLAB_SLOT_MIN_BYTES + FINE_STEP_BYTES * class;
    class -= FINE_CLASSES;
    doubling = class / COARSE_CLASSES;
    return (size_t)(COARSE_CLASSES + class % COARSE_CLASSES + 1) << (FINE_MAX_BITS - 3 + doubling);
}

size_t slab_cost(size_t n)
{
    size_t capacity = SLAB_CHUNK_BYTES / class_bytes(class_of(n));

    return (SLAB_CHUNK_BYTES + capacity - 1) / capacity;
}

struct slab *slab_new(void)
{
    struct slab *s = tq_pages_alloc(SELF_BYTES);

    if (s == NULL)
        return NULL;
    s->used[0] = 1; /* chunk 0 has no memory, so that no handle is SLAB_NONE */
    s->chunks_end = 1;
    return s;
}

void slab_free(struct slab *s)
{
    if (s == NULL)
        return;
    for (size_t r = 0; r * SLAB_REGION_CHUNKS < s->chunks_end; r++)
        if (s->base[r] != NULL)
            tq_pages_free(s->base[r], REGION_BYTES);
    tq_pages_free(s, SELF_BYTES);
}

void slab_set_lead(struct slab *s, unsigned bytes)
{
    TQ_ASSERT(s->slots == 0 && s->chunks == 0 && bytes % 2 == 0);
    s->lead = bytes;
}

/* Where the slot begins, with its lead. */
static unsigned char *start_of(const struct slab *s, const struct slab_chunk *c, uint32_t index)
{
    return c->base - s->lead + (size_t)index * c->slot_bytes;
}

/* Behind the first one, which is being filled: so while there is less and less, the others run empty instead
 * of each being filled up halfway through. */
static void room_push(struct slab *s, struct slab_chunk *c, uint32_t number)
{
    uint32_t head = s->room[c->class];

    c->prev = head;
    if (head == 0) {
        c->next = 0;
        s->room[c->class] = number;
        return;
    }
    c->next = s->chunk[head].next;
    s->chunk[head].next = number;
    if (c->next != 0)
        s->chunk[c->next].prev = number;
}

static void room_remove(struct slab *s, struct slab_chunk *c)
{
    if (c->prev != 0)
        s->chunk[c->prev].next = c->next;
    else
        s->room[c->class] = c->next;
    if (c->next != 0)
        s->chunk[c->next].prev = c->prev;
}

/* The lowest number that is free, so that what is in use stays together; 0 when there is none. Its region is
 * mapped. */
static uint32_t number_take(struct slab *s)
{
    size_t word = 0, region, bit;

    while (word < SLAB_REGIONS / 64 && s->full[word] == UINT64_MAX)
        word++;
    if (word == SLAB_REGIONS / 64)
        return 0;
    region = word * 64 + (size_t)__builtin_ctzll(~s->full[word]);
    if (s->base[region] == NULL) {
        s->system_calls++;
        s->base[region] = tq_pages_alloc(REGION_BYTES);
        if (s->base[region] == NULL)
            return 0;
    }
    bit = (size_t)__builtin_ctzll(~s->used[region]);
    s->used[region] |= (uint64_t)1 << bit;
    if (s->used[region] == UINT64_MAX)
        s->full[word] |= (uint64_t)1 << region % 64;
    return (uint32_t)(region * SLAB_REGION_CHUNKS + bit);
}

/* Gives its memory back; the region goes with the last of its chunks (but not the first one, which holds
 * chunk 0). */
static void number_give(struct slab *s, uint32_t number)
{
    size_t region = number / SLAB_REGION_CHUNKS;

    s->system_calls++;
    s->used[region] &= ~((uint64_t)1 << number % SLAB_REGION_CHUNKS);
    s->full[region / 64] &= ~((uint64_t)1 << region % 64);
    if (s->used[region] == 0) {
        tq_pages_free(s->base[region], REGION_BYTES);
        s->base[region] = NULL;
    } else {
        tq_pages_drop(start_of(s, &s->chunk[number], 0), SLAB_CHUNK_BYTES);
    }
}

/* An empty chunk for the class, in the list of those that have room; 0 when out of memory. */
static uint32_t chunk_open(struct slab *s, unsigned class)
{
    uint32_t number = number_take(s);
    size_t bytes = class_bytes(class);
    struct slab_chunk *c = &s->chunk[number];

    if (number == 0)
        return 0;
    if (s->chunks_end <= number)
        s->chunks_end = number + 1;
    *c = (struct slab_chunk){
        .base = s->base[number / SLAB_REGION_CHUNKS] +
                (size_t)(number % SLAB_REGION_CHUNKS) * SLAB_CHUNK_BYTES + s->lead,
        .slot_bytes = (uint16_t)bytes,
        .capacity = (uint16_t)(SLAB_CHUNK_BYTES / bytes),
        .free = FREE_NONE,
        .class = (uint8_t) class,
    };
    tq_mem_poison(start_of(s, c, 0), SLAB_CHUNK_BYTES);
    room_push(s, c, number);
    s->chunks++;
    return number;
}

static void chunk_close(struct slab *s, uint32_t number)
{
    struct slab_chunk *c = &s->chunk[number];

    room_remove(s, c);
    tq_mem_unpoison(start_of(s, c, 0), SLAB_CHUNK_BYTES);
    number_give(s, number);
    *c = (struct slab_chunk){0};
    s->chunks--;
}

/* It stays as it is until SLAB_IDLE_CHUNKS others have become empty after it; if it is empty then, it goes.
 * So at most one goes at a time. */
static void chunk_rest(struct slab *s, struct slab_chunk *c, uint32_t number)
{
    uint32_t oldest = s->idle[s->idle_at];

    c->free = FREE_NONE;
    c->bump = 0; /* the next ones lie side by side again */
    if (c->idle)
        return;
    if (oldest != 0) {
        s->chunk[oldest].idle = false;
        if (s->chunk[oldest].live == 0)
            chunk_close(s, oldest);
    }
    c->idle = true;
    s->idle[s->idle_at] = number;
    s->idle_at = (s->idle_at + 1) % SLAB_IDLE_CHUNKS;
}

uint32_t slab_take(struct slab *s, size_t n)
{
    unsigned class = class_of(n + s->lead);
    uint32_t number = s->room[class], index;
    struct slab_chunk *c;

    if (tq_mem_must_fail())
        return SLAB_NONE;
    if (number == 0) {
        number = chunk_open(s, class);
        if (number == 0)
            return SLAB_NONE;
    }
    c = &s->chunk[number];
    if (c->free != FREE_NONE) {
        unsigned char *slot = start_of(s, c, c->free);

        index = c->free;
        tq_mem_unpoison(slot, c->slot_bytes);
        memcpy(&c->free, slot, sizeof(c->free));
    } else {
        index = c->bump++;
        tq_mem_unpoison(start_of(s, c, index), c->slot_bytes);
    }
    if (++c->live == c->capacity)
        room_remove(s, c);
    s->slots++;
    return number << SLAB_INDEX_BITS | index;
}

void slab_give(struct slab *s, uint32_t handle)
{
    uint32_t number = handle >> SLAB_INDEX_BITS;
    uint16_t index = handle & ((1u << SLAB_INDEX_BITS) - 1);
    struct slab_chunk *c = &s->chunk[number];
    unsigned char *slot;

    TQ_ASSERT(index < c->bump && index != c->free && c->live > 0); /* else it is not one that is taken */
    slot = start_of(s, c, index);
    memcpy(slot, &c->free, sizeof(c->free));
    tq_mem_poison(slot, c->slot_bytes);
    c->free = index;
    if (c->live == c->capacity)
        room_push(s, c, number);
    s->slots--;
    if (--c->live == 0)
        chunk_rest(s, c, number);
}

void slab_get_stats(const struct slab *s, struct slab_stats *ret_stats)
{
    size_t regions = (s->chunks_end + SLAB_REGION_CHUNKS - 1) / SLAB_REGION_CHUNKS;

    *ret_stats = (struct slab_stats){
        .slots = s->slots,
        .chunks = s->chunks,
        .mapped_bytes = s->chunks * SLAB_CHUNK_BYTES + offsetof(struct slab, used) +
                        regions * (sizeof(s->used[0]) + sizeof(s->base[0])) +
                        s->chunks_end * sizeof(s->chunk[0]),
        .system_calls = s->system_calls,
    };
}
