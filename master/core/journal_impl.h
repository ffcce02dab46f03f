/* What the journal's own files share, and what the broker's others tell it: see journal.h. */
#ifndef MASTER_CORE_JOURNAL_IMPL_H
#define MASTER_CORE_JOURNAL_IMPL_H

#include "common/hash.h"
#include "master/core/broker_impl.h"
#include "master/core/journal.h"
#include "master/core/journal_ops.h"
#include "master/core/task.h"

/* Segments are known by their lower bits in a lead: two that have something at home are never so far apart
 * that this is not clear. TQ_ELIMIT then (8 TiB of segments of the least size). */
#define JOURNAL_HOME_BITS 27u
#define JOURNAL_HOME_MASK ((1u << JOURNAL_HOME_BITS) - 1)

/* Flags of a lead, above those bits. */
#define LEAD_RECORDED (1u << 27) /* the log has it; `home` says where */
#define LEAD_NOTED    (1u << 28) /* it stands in the list of what changed */
#define LEAD_FULL     (1u << 29) /* all of it is to be written, even if it is recorded */
#define LEAD_MORE     (1u << 30) /* its extra is to be written, if it has one */
#define LEAD_MEMORY   (1u << 31) /* it came into a queue with durability=memory: not to be recorded */

/* Before each slot. */
struct journal_lead {
    uint32_t home;      /* JOURNAL_HOME_BITS of the segment's number, and flags */
    uint16_t place_low; /* of its place, 48 bits with its sign; 0: it never stood anywhere */
    int32_t place_high;
} __attribute__((packed, aligned(2)));

/* At a million a second in four and a half years. Then the journal fails: an order that is not known would
 * not be one. */
#define JOURNAL_PLACE_MAX (((int64_t)1 << 47) - 1)

enum journal_entry_kind { ENTRY_TASK, ENTRY_END, ENTRY_GONE };

struct journal_entry {
    uint64_t id;   /* GONE: the queue's serial */
    uint32_t home; /* END, GONE: JOURNAL_HOME_BITS of it. TASK: used while it is collected */
    uint32_t kind;
};

#define JOURNAL_CHUNK_ENTRIES 511u
#define JOURNAL_SPARE_CHUNKS  16u /* as many are kept */

struct journal_chunk {
    struct journal_chunk *next;
    uint32_t count;
    struct journal_entry entries[JOURNAL_CHUNK_ENTRIES];
};

/* What is at home in a segment: how much, and among which ids its tasks are, so that they are found without a
 * look at all that there are. Ids come in runs: what is put, what is done, what is moved. */
#define JOURNAL_RANGES 3u

struct journal_home {
    uint64_t count;
    uint64_t first[JOURNAL_RANGES], last[JOURNAL_RANGES]; /* first 0: the range is empty */
};

/* The segments from `base` on: at their number modulo cap, a power of two. All places of the table that stand
 * for none of base to end - 1 are 0. */
struct journal_homes {
    struct journal_home *list;
    uint64_t cap;
    uint64_t base, end;
};

/* A freed lease that its session may resume, by the task's id: the latest. */
struct journal_freed {
    uint64_t id;
    uint32_t handle;
    UT_hash_handle hh;
};

#define JOURNAL_TOTALS 14u /* counters of struct broker_stats that only grow */

/* Ids of tasks that are not recorded are written (TIME) every so many at the latest. */
#define JOURNAL_ID_STEP ((uint64_t)1 << 16)

struct journal {
    enum journal_wait wait; /* of what was noted; NOTHING: nothing was */
    bool failed;
    struct journal_chunk *first, *last; /* of what changed; never empty */
    struct journal_chunk *spare;        /* list */
    uint32_t spare_count;
    struct broker_queue *queues; /* list: those that changed, or whose counters may have */
    int64_t next_place;          /* what is put somewhere next gets this number */
    uint64_t told_id;            /* the next id, as it was written last */
    struct journal_homes homes;
    uint64_t live_tasks, live_bytes, live_queues; /* that are recorded */
    struct journal_freed *freed;
    bool totals_recorded, totals_noted;
    uint64_t totals_home;
    uint64_t totals[JOURNAL_TOTALS]; /* as they were written last */
};

void journal_free(struct broker *b);

/* ---- leads ---- */

static inline struct journal_lead *journal_lead(const struct broker *b, uint32_t slot)
{
    return (struct journal_lead *)(void *)((char *)slab_at(b->slab, slot) - JOURNAL_LEAD_BYTES);
}
static inline int64_t journal_place(const struct broker *b, uint32_t slot)
{
    const struct journal_lead *l = journal_lead(b, slot);

    return (int64_t)((uint64_t)(int64_t)l->place_high << 16 | l->place_low);
}
static inline void journal_set_place(const struct broker *b, uint32_t slot, int64_t place)
{
    struct journal_lead *l = journal_lead(b, slot);

    l->place_low = (uint16_t)place;
    l->place_high = (int32_t)(place >> 16);
}
static inline void journal_clear_lead(struct broker *b, uint32_t slot)
{
    if (b->journal != NULL)
        *journal_lead(b, slot) = (struct journal_lead){0};
}

/* ---- what changed ---- */

/* Whoever is told of this queue's changes waits for that. */
static inline enum journal_wait journal_wait_of(const struct broker_queue_conf *c)
{
    return c->durability == BROKER_DURABILITY_FSYNC ? JOURNAL_SYNCED : JOURNAL_WRITTEN;
}
static inline void journal_raise(struct broker *b, enum journal_wait wait)
{
    if (b->journal != NULL && wait > b->journal->wait)
        b->journal->wait = wait;
}
/* By broker_task_set_state, when it is done. q: the queue, or NULL for KEPT ones that come or go. */
void journal_note_state(struct broker *b, uint32_t slot, enum broker_task_state from,
                        enum broker_task_state to, struct broker_queue *q);
/* Something of a task changed that is no state. `what`: LEAD_FULL, LEAD_MORE, or 0: what is always
 * written. */
void journal_note_task(struct broker *b, uint32_t slot, uint32_t what, enum journal_wait wait);
void journal_note_queue(struct broker *b, struct broker_queue *q, enum journal_wait wait);
/* `unfinished` or a counter. */
void journal_note_counts(struct broker *b, struct broker_queue *q, enum journal_wait wait);
/* Counters only: they go with what is written next. */
void journal_touch_counts(struct broker *b, struct broker_queue *q);
/* Before it is freed. */
void journal_queue_gone(struct broker *b, struct broker_queue *q);
/* Before old_slot is GONE and its id goes over. */
void journal_succeed(struct broker *b, uint32_t old_slot, uint32_t new_slot);
/* The task goes on in another slot; both are whole. */
void journal_move_lead(struct broker *b, uint32_t from, uint32_t to);
/* Its payload or texts are about to change in place; then what they are now counts. */
void journal_before_rewrite(struct broker *b, uint32_t slot);
void journal_after_rewrite(struct broker *b, uint32_t slot);
/* A lease entered its session's list of freed ones, or leaves it. */
void journal_freed(struct broker *b, const struct broker_lease *l);
void journal_unfreed(struct broker *b, const struct broker_lease *l);
/* The freed lease that is the task's, which is READY, or NULL. */
const struct broker_lease *journal_find_freed(const struct broker *b, const struct broker_task *t);

/* The task is put somewhere: at the end, or at the front. */
static inline int64_t journal_next_place(struct journal *j)
{
    if (j->next_place == JOURNAL_PLACE_MAX) {
        j->failed = true;
        return j->next_place;
    }
    return j->next_place++;
}
static inline void journal_put_last(const struct broker *b, uint32_t slot)
{
    if (b->journal != NULL)
        journal_set_place(b, slot, journal_next_place(b->journal));
}
static inline void journal_put_first(const struct broker *b, uint32_t slot)
{
    if (b->journal != NULL)
        journal_set_place(b, slot, -journal_next_place(b->journal));
}

/* ---- homes (journal_home.c) ---- */

/* Room to count what is at home in that segment, which is not lower than any before. TQ_ENOMEM, TQ_ELIMIT. */
int journal_reserve_segment(struct broker *b, uint64_t segment);
/* The task's, which may have one already; room was reserved. It is recorded now. */
void journal_set_home(struct broker *b, uint32_t slot, uint64_t segment);
/* It is not recorded any more. Fine if it never was. */
void journal_unset_home(struct broker *b, uint32_t slot);
void journal_set_queue_home(struct broker *b, struct broker_queue *q, uint64_t segment);

/* The segment that those bits mean. */
static inline uint64_t journal_segment(const struct journal_homes *h, uint32_t home)
{
    return h->base + ((home - (uint32_t)h->base) & JOURNAL_HOME_MASK);
}
static inline struct journal_home *journal_home_at(const struct journal_homes *h, uint64_t segment)
{
    return &h->list[segment & (h->cap - 1)];
}
static inline uint64_t *journal_count_at(const struct journal_homes *h, uint64_t segment)
{
    return &journal_home_at(h, segment)->count;
}

/* About how many bytes its full op takes (task.c). It changes only where journal_move_lead, _succeed and
 * _before_rewrite are called. */
uint64_t broker_task_op_bytes(struct broker_task *t);
#define JOURNAL_QUEUE_OP_BYTES 256u /* the same of a queue, roughly */

#endif
