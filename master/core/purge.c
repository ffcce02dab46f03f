#include "master/core/purge.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/effects.h"
#include "master/core/idwait.h"
#include "master/core/journal_impl.h"
#include "master/core/outcome.h"
#include "master/core/queue.h"
#include "master/core/task.h"
#include "master/core/timer.h"

#define EXTRA_PIECES 4u   /* its timer and key */
#define BODY_BYTES   512u /* so many of them are another piece: to unmap a page takes longer than a task */
#define NOT_DONE     1    /* the budget is used up */

static bool is_trash_colour(const struct broker_queue *q, const struct broker_task *t)
{
    return (q->trash_colours >> broker_task_colour(t) & 1) != 0;
}

bool broker_task_is_purged(const struct broker *b, uint32_t slot)
{
    const struct broker_task *t = broker_task_at(b->slab, slot);
    enum broker_task_state state = broker_task_state(t);

    return (state == BROKER_TASK_READY || state == BROKER_TASK_DELAYED) &&
           is_trash_colour(broker_task_queue(b, t), t);
}

uint32_t broker_find_task(const struct broker *b, uint64_t id)
{
    uint32_t slot = ids_find(b->ids, id);

    return slot != SLAB_NONE && !broker_task_is_purged(b, slot) ? slot : SLAB_NONE;
}

/* A submitter with a reply queue of its own is told there. */
static bool has_reply_queue(const struct broker *b, struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);

    return x != NULL && (broker_task_flags(t) & (TASK_RESULT | TASK_DEAD)) == 0 &&
           broker_queue_of(b, x->result, x->result_serial) != NULL;
}

static unsigned pieces_of(const struct broker *b, uint32_t slot)
{
    const struct broker_task *t = broker_task_at(b->slab, slot);
    unsigned flags = broker_task_flags(t);
    unsigned pieces = 1;

    if ((flags & TASK_EXTRA) != 0)
        pieces += EXTRA_PIECES;
    if ((flags & TASK_EXTERNAL) != 0)
        pieces += (unsigned)(broker_task_cost(b, slot) / BODY_BYTES);
    return pieces;
}

/* It is its queue's again, as far as the numbers go, so that it can end as others do. */
static void count_in(struct broker *b, struct broker_queue *q, bool is_delayed)
{
    q->purging--;
    if (is_delayed) {
        q->delayed++;
        b->stats.delayed++;
    } else {
        q->ready++;
    }
}

static void count_out(struct broker *b, struct broker_queue *q, bool is_delayed)
{
    q->purging++;
    if (is_delayed) {
        q->delayed--;
        b->stats.delayed--;
    } else {
        q->ready--;
    }
}

/* TQ_ENOMEM: it is still there. */
static int end_one(struct broker *b, const struct broker_trash *tr, uint32_t slot, bool is_quiet)
{
    struct broker_ending ending = {.outcome = (enum broker_task_outcome)tr->outcome};
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = tr->queue;
    bool is_delayed = broker_task_state(t) == BROKER_TASK_DELAYED;
    int rv;

    if (broker_task_state(t) == BROKER_TASK_GONE) { /* a tombstone */
        broker_task_drop_tombstone(b, slot);
        return TQ_OK;
    }
    count_in(b, q, is_delayed);
    if (!is_quiet && has_reply_queue(b, t)) {
        q->unfinished++; /* the purge took it off already */
        rv = broker_task_finish(b, slot, &ending);
        if (rv != TQ_OK) {
            q->unfinished--;
            count_out(b, q, is_delayed);
        }
        return rv;
    }
    if (!is_quiet)
        broker_idwait_ended(b, broker_task_id(t), slot, ending.outcome);
    broker_task_end(b, slot);
    return TQ_OK;
}

/* The next one: where its slot stands, or NULL. */
static uint32_t *next_of(struct broker_trash *tr)
{
    if (tr->head != SLAB_NONE)
        return &tr->head;
    if (tr->heap_count > 0)
        return &tr->heap[tr->heap_count - 1];
    return tr->delayed_head != SLAB_NONE ? &tr->delayed_head : NULL;
}

/* 0: all of it has gone; NOT_DONE; TQ_ENOMEM: not even the next one could end. */
static int slice(struct broker *b, struct broker_trash *tr, unsigned *budget, bool is_quiet)
{
    uint32_t *place;

    while ((place = next_of(tr)) != NULL) {
        uint32_t slot = *place, next = broker_task_at(b->slab, slot)->link;
        unsigned pieces = pieces_of(b, slot);
        int rv;

        if (*budget == 0)
            return NOT_DONE;
        rv = end_one(b, tr, slot, is_quiet);
        if (rv != TQ_OK)
            return rv;
        *budget -= pieces < *budget ? pieces : *budget;
        if (place == &tr->head || place == &tr->delayed_head)
            *place = next;
        else
            tr->heap_count--;
    }
    return TQ_OK;
}

static void forget(struct broker_trash *tr)
{
    tr->queue->trash_colours &= (uint8_t) ~(1u << tr->colour);
    tq_free(tr->heap);
    tq_free(tr);
}

static void next_slice_at(struct broker *b, uint64_t at_ms)
{
    if (at_ms < b->trash_deadline.at_ms)
        (void)tq_deadline_set(b->deadlines, &b->trash_deadline, at_ms); /* set: it can be moved */
}

/* The queue's next colour, which nothing in the trash has. */
static int new_colour(const struct broker_queue *q, uint8_t *ret_colour)
{
    for (unsigned i = 1; i < TASK_COLOURS; i++) {
        unsigned c = (q->colour + i) % TASK_COLOURS;

        if ((q->trash_colours >> c & 1) == 0) {
            *ret_colour = (uint8_t)c;
            return TQ_OK;
        }
    }
    return TQ_ELIMIT;
}

/* All that is in the queue goes into tr; the queue is as new. TQ_ENOMEM. */
static int empty_into(struct broker *b, struct broker_queue *q, struct broker_trash *tr, uint8_t next_colour)
{
    uint64_t n = q->ready + q->delayed;
    struct broker_queue_lists lists;
    int rv = broker_queue_give_up(b, q, &lists);

    if (rv != TQ_OK)
        return rv;
    tr->queue = q;
    tr->head = lists.head;
    tr->delayed_head = lists.delayed;
    tr->heap = lists.heap.list;
    tr->heap_count = lists.heap.count;
    tr->colour = q->colour;
    q->trash_colours |= (uint8_t)(1u << q->colour);
    q->colour = next_colour;
    q->unfinished -= n < q->unfinished ? n : q->unfinished;
    q->stats.dropped += n;
    b->stats.dropped += n;
    if (b->journal != NULL) {
        q->purged_place = (uint64_t)b->journal->next_place - 1;
        journal_note_queue(b, q, journal_wait_of(&q->conf));
    }
    return TQ_OK;
}

int broker_purge_ready(struct broker *b, struct broker_queue *q, enum broker_task_outcome outcome)
{
    unsigned budget = PURGE_SLICE;
    struct broker_trash *tr;
    uint8_t next_colour;
    int rv;

    if (q->head == SLAB_NONE && q->delayed_head == SLAB_NONE && q->heap.count == 0)
        return TQ_OK;
    rv = new_colour(q, &next_colour);
    if (rv != TQ_OK)
        return rv;
    tr = tq_calloc(1, sizeof(*tr));
    if (tr == NULL || empty_into(b, q, tr, next_colour) != TQ_OK) {
        tq_free(tr);
        return TQ_ENOMEM;
    }
    tr->outcome = (uint8_t)outcome;
    broker_queue_mark(b, q);
    rv = slice(b, tr, &budget, false);
    if (rv == TQ_OK) {
        forget(tr);
        return TQ_OK;
    }
    DL_APPEND(b->trash, tr);
    next_slice_at(b, broker_after(b->now_ms, rv == NOT_DONE ? 1 : BROKER_RETRY_MS));
    return TQ_OK;
}

int broker_on_purge(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    uint64_t n = ev->queue->ready + ev->queue->delayed;
    int rv = broker_purge_ready(b, ev->queue, BROKER_OUTCOME_PURGED);
    struct broker_effect *e;

    if (rv == TQ_ELIMIT) {
        char *text = tq_strdup("earlier purges of this queue are still under way");

        e = broker_effects_add(out, ev->session, ev->token,
                               text != NULL ? BROKER_REPLY_REFUSED : BROKER_REPLY_NO_MEMORY);
        e->text = text;
        return TQ_OK;
    }
    e = broker_effects_add(out, ev->session, ev->token,
                           rv == TQ_OK ? BROKER_REPLY_OK : BROKER_REPLY_NO_MEMORY);
    e->number = rv == TQ_OK ? (int64_t)n : 0;
    return TQ_OK;
}

void broker_purge_returned(struct broker *b, uint32_t slot)
{
    struct broker_ending ending = {.outcome = BROKER_OUTCOME_PURGED};
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);

    b->stats.dropped++;
    q->stats.dropped++;
    if (has_reply_queue(b, t) && broker_task_finish(b, slot, &ending) == TQ_OK)
        return;
    broker_queue_finished_one(b, q);
    broker_idwait_ended(b, broker_task_id(t), slot, ending.outcome);
    broker_task_end(b, slot);
}

void broker_trash_due(struct broker *b)
{
    unsigned budget = PURGE_SLICE;
    struct broker_trash *tr;

    while ((tr = b->trash) != NULL) {
        struct broker_queue *q = tr->queue;
        int rv = slice(b, tr, &budget, false);

        if (rv != TQ_OK) {
            DL_DELETE(b->trash, tr); /* one for which there is no memory does not stop the others for ever */
            if (rv == NOT_DONE)
                DL_PREPEND(b->trash, tr);
            else
                DL_APPEND(b->trash, tr);
            next_slice_at(b, broker_after(b->now_ms, rv == NOT_DONE ? 1 : BROKER_RETRY_MS));
            return;
        }
        DL_DELETE(b->trash, tr);
        forget(tr);
        broker_queue_free_if_removed(b, q);
    }
}

void broker_trash_free(struct broker *b)
{
    struct broker_trash *tr;

    while ((tr = b->trash) != NULL) {
        struct broker_queue *q = tr->queue;
        unsigned budget = UINT32_MAX;

        DL_DELETE(b->trash, tr);
        while (slice(b, tr, &budget, true) != TQ_OK)
            budget = UINT32_MAX;
        forget(tr);
        broker_queue_free_if_removed(b, q);
    }
}

int broker_purge_restore(struct broker *b, struct broker_queue *q, uint32_t slot,
                         enum broker_task_state state, struct broker_trash **trash)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_trash *tr = *trash;
    uint8_t next_colour;
    int rv;

    if (tr == NULL) {
        rv = new_colour(q, &next_colour);
        TQ_ASSERT(rv == TQ_OK && q->ready == 0 && q->delayed == 0);
        tr = tq_calloc(1, sizeof(*tr));
        if (tr == NULL)
            return TQ_ENOMEM;
        tr->queue = q;
        tr->colour = q->colour;
        tr->outcome = BROKER_OUTCOME_PURGED;
        q->trash_colours |= (uint8_t)(1u << q->colour);
        q->colour = next_colour;
        DL_APPEND(b->trash, tr);
        next_slice_at(b, b->now_ms);
        *trash = tr;
    }
    broker_task_set_colour(t, tr->colour);
    t->link = tr->head;
    tr->head = slot;
    broker_task_set_state(b, slot, state);
    count_out(b, q, state == BROKER_TASK_DELAYED);
    return TQ_OK;
}
