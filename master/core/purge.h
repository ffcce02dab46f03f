/* Purge: what is ready and delayed is out of the queue in one step; what it takes to free it comes in slices
 * of PURGE_SLICE pieces of work, one a millisecond, so that a purge of millions holds nobody up. What fits
 * into one slice is gone at once.
 *
 * Purged tasks stay READY or DELAYED, under their ids, until a slice comes to them. Their colour tells them
 * apart: tasks get their queue's colour when they come in; a purge gives the queue another one. (Ids do not
 * tell: results and retried dead letters come in under old ones.) A leased task was not waiting when the
 * purge came: it stays, and gets the queue's present colour when it comes back. */
#ifndef MASTER_CORE_PURGE_H
#define MASTER_CORE_PURGE_H

#include "master/core/broker.h"
#include "master/core/task.h"

#define PURGE_SLICE 4000u /* pieces: a plain task is one, one with an extra or a large body some more */

/* What a queue gave up by one purge. */
struct broker_trash {
    struct broker_trash *prev, *next; /* first come first */
    struct broker_queue *queue;       /* stays until this has gone: removed or not */
    uint32_t head;                    /* its list's first slot */
    uint32_t delayed_head;            /* its delayed tasks */
    uint32_t *heap;                   /* its heap's slots, tombstones too */
    size_t heap_count;
    uint8_t colour;
    uint8_t outcome; /* enum broker_task_outcome, for those who wait for a result */
};

/* BROKER_PURGE. `unfinished` goes down by what was ready and delayed (joiners are woken). */
int broker_on_purge(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
/* The same for shutdown(immediate) and for a queue that is removed; b->stats.dropped is counted. TQ_ENOMEM,
 * TQ_ELIMIT (TASK_COLOURS - 1 purges of it are under way): nothing has changed, the caller drops at once. */
int broker_purge_ready(struct broker *b, struct broker_queue *q, enum broker_task_outcome outcome);
/* A task that is LEASED (its lease is over) or DELAYED (out of its list) comes back into a queue that was
 * removed: it ends. The queue may be gone then. Cannot fail. */
void broker_purge_returned(struct broker *b, uint32_t slot);
/* NODE_TRASH came due: one slice. */
void broker_trash_due(struct broker *b);
/* All of it, at once; nobody waits any more. */
void broker_trash_free(struct broker *b);

/* A task that is NEW, with its id, and was being purged in another life: READY or DELAYED as it was, and the
 * purge goes on with it. *trash: that of the queue; NULL at first, before anything is put into the queue.
 * TQ_ENOMEM. */
int broker_purge_restore(struct broker *b, struct broker_queue *q, uint32_t slot,
                         enum broker_task_state state, struct broker_trash **trash);

/* READY or DELAYED, but purged: to be treated as not there. */
bool broker_task_is_purged(const struct broker *b, uint32_t slot);
/* The slot of an id; SLAB_NONE: it is not there, or purged. */
uint32_t broker_find_task(const struct broker *b, uint64_t id);

#endif
