/* Who waits for the result of a task: any number of calls per id. */
#ifndef MASTER_CORE_IDWAIT_H
#define MASTER_CORE_IDWAIT_H

#include "common/hash.h"
#include "master/core/broker.h"
#include "master/core/wait.h"

struct broker_idwait {
    uint64_t id;
    struct broker_wait *waits; /* first come first */
    bool ended;                /* in broker.ended: to be served */
    uint8_t outcome;           /* enum broker_task_outcome, once it has ended */
    struct broker_view *copy;  /* what is shown when nothing stands under the id any more, or NULL */
    struct broker_idwait *ended_prev, *ended_next;
    UT_hash_handle hh;
};

/* Does anybody wait for it, or has not been served yet? */
bool broker_idwait_has(const struct broker *b, uint64_t id);
/* BROKER_WAIT: replies at once with RESULT, UNKNOWN or EMPTY, or parks. */
int broker_on_wait(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
/* The task of that id has ended: its result or dead letter stands under the same id (slot: SLAB_NONE), or
 * (outcome CANCELED, PURGED, and results that nobody keeps) nothing will. Then `slot` is what those who wait
 * are shown: the result that nobody keeps, or the task itself. The copy is made now; if there is no memory
 * for it, they are shown id and outcome. Marks those who wait; they are served at the end of the step. Cheap
 * when nobody waits at all. */
void broker_idwait_ended(struct broker *b, uint64_t id, uint32_t slot, enum broker_task_outcome outcome);
/* Serves one of them: 0; 1: nobody is left; TQ_ENOMEM. Called by broker_settle. */
int broker_idwait_serve(struct broker *b, struct broker_effects *out);
/* A parked wait for a result ends (time is up, canceled): out of its list; then broker_wait_free. */
void broker_idwait_leave(struct broker *b, struct broker_wait *w);

/* view.c */

/* What can be seen of any task by its slot, purged ones too. Borrowed. */
void broker_view_slot(const struct broker *b, uint32_t slot, struct broker_view *ret_view);
/* A copy of it, in one block, and with a reference to its body if that is large. NULL when out of memory. */
struct broker_view *broker_view_copy(const struct broker_view *v);
void broker_view_free(struct broker_view *copy); /* NULL is fine */

#endif
