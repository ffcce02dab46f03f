/* Memory for what peers send: large, of any size, as many as there are, and gone all at once after a backlog.
 * malloc's heap would give back hundreds of MiB in one call then, or nothing, because one small thing lies at
 * its end. Here memory goes back in pieces of TQ_POOL_CELLS_BYTES, or of one allocation that is larger, with
 * the last call that gives up a part of it; what was freed last is kept (TQ_POOL_WARM_BYTES), so that who
 * takes and gives in turn asks the system for nothing.
 *
 * Up to TQ_POOL_CELL_MAX_BYTES: cells of one size side by side in a run of TQ_POOL_CELLS_BYTES. Up to
 * TQ_POOL_RUN_MAX_BYTES: a run of its own. Runs of one size lie in blocks, which are mappings: the system
 * allows a process only some 65,000 of those. A run takes address space in units of 64 KiB, but memory only
 * for pages that are touched. Above: a mapping of its own. One thread. */
#ifndef TQ_COMMON_POOL_H
#define TQ_COMMON_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TQ_POOL_CELL_MAX_BYTES 20472u
#define TQ_POOL_CELLS_BYTES    262144u
#define TQ_POOL_RUN_MAX_BYTES  10482688u /* 8 MiB, and what senders add to that */
/* So much that is free is kept, at most, or one single run. */
#define TQ_POOL_WARM_BYTES (4u << 20)

#define TQ_POOL_CELL_CLASSES 43u
#define TQ_POOL_RUN_CLASSES  25u

struct tq_pool_run;   /* private, as is the pool */
struct tq_pool_cells; /* a run with cells */
struct tq_pool_block;

struct tq_pool {                                            /* zeroed: an empty one */
    struct tq_pool_cells *cells[TQ_POOL_CELL_CLASSES];      /* those that have room */
    struct tq_pool_block *blocks[TQ_POOL_RUN_CLASSES];      /* those that have room */
    struct tq_pool_run *warm_of_class[TQ_POOL_RUN_CLASSES]; /* the newest first */
    struct tq_pool_run *warm;                               /* all of them, the newest first */
    size_t live;
    size_t warm_bytes;
    size_t mappings;
    size_t mapped_bytes;
    uint64_t system_calls; /* that took memory from the system or gave it back, so far */
};

/* n bytes (1 or more), uninitialised, aligned to 8; NULL when out of memory. Tests make the n-th fail as they
 * do with any allocation (common/mem.h). */
void *tq_pool_alloc(struct tq_pool *p, size_t n);
void tq_pool_free(struct tq_pool *p, void *at); /* not NULL */
/* What is kept goes back to the system. */
void tq_pool_trim(struct tq_pool *p);

#endif
