/* Slots: where tasks stand. A slot is a run of bytes of any size up to SLAB_SLOT_MAX_BYTES, named by a 32-bit
 * handle that is half as long as a pointer. Slots of one size class lie in chunks of SLAB_CHUNK_BYTES; the
 * memory of a chunk that is empty is given back to the system (the last few are kept, so that a put and a get
 * in turn ask the system for nothing). Classes are 2 bytes apart up to 256 bytes, then never more than an
 * eighth, so a 100-byte task costs its own bytes and little else. A slot's bytes do not move. Pure; one
 * thread. */
#ifndef MASTER_CORE_SLAB_H
#define MASTER_CORE_SLAB_H

#include "common/bytes.h"

#define SLAB_CHUNK_BYTES    65536u
#define SLAB_SLOT_MIN_BYTES 16u   /* what a smaller one costs */
#define SLAB_SLOT_MAX_BYTES 2304u /* with a lead */
#define SLAB_IDLE_CHUNKS    8u    /* as many empty ones are kept, at most */
#define SLAB_NONE           0u    /* no handle */

struct slab; /* private, see below */

struct slab *slab_new(void);    /* NULL when out of memory */
void slab_free(struct slab *s); /* with all slots; NULL is fine */
/* From now on each slot has so many bytes (even) before what slab_at tells, which are its owner's, too: n in
 * the following is without them. No slot is taken yet. */
void slab_set_lead(struct slab *s, unsigned bytes);

/* A slot of n bytes (1 to SLAB_SLOT_MAX_BYTES less the lead), uninitialised, 2-byte aligned; better so if its
 * class is a multiple of more than 2 (a slot of 512 bytes without a lead lies at a multiple of 512).
 * SLAB_NONE when out of memory or of handles (64 GiB); tests make the n-th fail as they do with any
 * allocation (common/mem.h). The same calls in the same order give the same handles. */
uint32_t slab_take(struct slab *s, size_t n);
/* The slot's n is known from its chunk. O(1). */
void slab_give(struct slab *s, uint32_t handle);
/* O(1), two loads. */
static inline void *slab_at(const struct slab *s, uint32_t handle);
/* How many bytes the slot has: at least what was asked for. */
static inline size_t slab_size(const struct slab *s, uint32_t handle);
/* A slot of n bytes, its lead among them, would cost so much. */
size_t slab_cost(size_t n);

struct slab_stats {
    uint64_t slots;
    uint64_t chunks;       /* with memory, the empty ones that are kept too */
    uint64_t mapped_bytes; /* chunks and tables */
    uint64_t system_calls; /* that took memory from the system or gave it back, so far */
};
void slab_get_stats(const struct slab *s, struct slab_stats *ret_stats);

/* ---- private: only for the inline functions and slab.c ---- */

#define SLAB_INDEX_BITS    12u /* of a handle; the rest is the chunk's number, which is never 0 */
#define SLAB_CHUNKS        (1u << 20)
#define SLAB_REGION_CHUNKS 64u /* chunks come from the system by as many */
#define SLAB_REGIONS       (SLAB_CHUNKS / SLAB_REGION_CHUNKS)
#define SLAB_CLASSES       146u

struct slab_chunk {      /* 32 bytes: one never lies in two cache lines */
    unsigned char *base; /* of its first slot, behind its lead */
    uint32_t prev;       /* in the list of its class's chunks that have room */
    uint32_t next;
    uint16_t slot_bytes;
    uint16_t capacity;
    uint16_t live;
    uint16_t bump; /* slots from here on were not touched since the chunk was empty */
    uint16_t free; /* the first of those that were given back; each begins with the next one's index */
    uint8_t class;
    bool idle; /* is noted in slab.idle */
};

/* One mapping, of which only what is used is touched. */
struct slab {
    uint64_t slots;
    uint64_t chunks;
    uint64_t system_calls;
    uint32_t chunks_end;               /* chunks from this number on were never used */
    uint32_t idle_at;                  /* the oldest in idle */
    uint32_t lead;                     /* bytes before each slot */
    uint32_t idle[SLAB_IDLE_CHUNKS];   /* chunks that were empty of late, and may be it still */
    uint32_t room[SLAB_CLASSES];       /* heads of the lists */
    uint64_t full[SLAB_REGIONS / 64];  /* a bit for each region: all its chunks are in use */
    uint64_t used[SLAB_REGIONS];       /* a bit for each chunk */
    unsigned char *base[SLAB_REGIONS]; /* NULL: not mapped */
    struct slab_chunk chunk[SLAB_CHUNKS];
};

static inline void *slab_at(const struct slab *s, uint32_t handle)
{
    const struct slab_chunk *c = &s->chunk[handle >> SLAB_INDEX_BITS];

    return c->base + (size_t)(handle & ((1u << SLAB_INDEX_BITS) - 1)) * c->slot_bytes;
}

static inline size_t slab_size(const struct slab *s, uint32_t handle)
{
    return s->chunk[handle >> SLAB_INDEX_BITS].slot_bytes - s->lead;
}

#endif
