/* Ids: from a task's 64-bit id to its slot, and to the time when the id was given out. Ids are given out in
 * ascending order and are never given again; each stands in a block of IDS_BLOCK consecutive ones, which goes
 * when the last of its ids has gone. 4 bytes an id, and 8 more for one that was given out in another
 * millisecond than the one before it. Nothing here ever takes longer than one block, at any number of ids;
 * there is no table that is copied when it grows. Pure; one thread. */
#ifndef MASTER_CORE_IDS_H
#define MASTER_CORE_IDS_H

#include "common/bytes.h"

#define IDS_BLOCK 256u
#define IDS_MAX   (((uint64_t)1 << 56) - 1) /* the greatest id, and the latest ms */

struct ids; /* opaque */

/* `first`: the first id to be given out, 1 to IDS_MAX. NULL when out of memory. */
struct ids *ids_new(uint64_t first);
void ids_free(struct ids *t); /* NULL is fine */

/* The next id, for a slot (not SLAB_NONE), at now_ms (up to IDS_MAX). 0; TQ_ENOMEM, TQ_ELIMIT (there is none
 * after IDS_MAX): no id was used. */
int ids_add(struct ids *t, uint32_t slot, uint64_t now_ms, uint64_t *ret_id);
/* One that was given out before, in another life, in any order. TQ_ENOMEM; TQ_EEXISTS: it is there;
 * TQ_EINVAL: 0 or not below the next id, or at_ms above IDS_MAX. */
int ids_restore(struct ids *t, uint64_t id, uint32_t slot, uint64_t at_ms);
/* Ids below `next` were given out in another life. TQ_EINVAL: it is below ids_next already, or there is none
 * such. */
int ids_skip(struct ids *t, uint64_t next);
/* The slot, or 0 (SLAB_NONE) for an id that was never given out or has gone. */
uint32_t ids_find(const struct ids *t, uint64_t id);
/* When the id was given out; only for an id that is there. */
uint64_t ids_at_ms(const struct ids *t, uint64_t id);
/* Another slot for an id that is there. */
void ids_move(struct ids *t, uint64_t id, uint32_t slot);
/* The id has gone; it was there. */
void ids_remove(struct ids *t, uint64_t id);

uint64_t ids_next(const struct ids *t);  /* what ids_add would give out */
uint64_t ids_count(const struct ids *t); /* that are there */
/* The first id that is there and >= from, or 0: for walks in pieces. *budget bounds the work, in blocks and
 * table places looked at, and is taken down; when it is used up before an answer, *ret_resume is where to go
 * on, else 0. Ascending order. */
uint64_t ids_walk(const struct ids *t, uint64_t from, unsigned *budget, uint64_t *ret_resume);
uint64_t ids_bytes(const struct ids *t); /* memory in use */

/* For tests. */
#define IDS_CALL_WORK_MAX 8192u
struct ids_stats {
    uint64_t pieces; /* of memory in use: of a block its ids and its marks, and what finds blocks */
    uint64_t work;   /* bytes cleared, moved or looked through so far, but for single fields: one call adds
                        IDS_CALL_WORK_MAX at most */
};
void ids_get_stats(const struct ids *t, struct ids_stats *ret_stats);

#endif
