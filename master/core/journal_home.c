/* Homes: how much that is still there was written to which segment last, and how old segments become empty.
 */
#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal_impl.h"
#include "master/core/queue.h"

#define CAP_MIN 64u

/* Nothing is at home in the first ones any more. The last one stays. */
static void advance(struct journal_homes *h)
{
    while (h->base + 1 < h->end && *journal_count_at(h, h->base) == 0)
        h->base++;
}

static int grow(struct journal_homes *h, uint64_t need)
{
    uint64_t cap = h->cap > 0 ? h->cap : CAP_MIN;
    uint64_t *counts;

    while (cap < need)
        cap *= 2;
    counts = tq_calloc(cap, sizeof(*counts));
    if (counts == NULL)
        return TQ_ENOMEM;
    for (uint64_t s = h->base; s < h->end; s++)
        counts[s & (cap - 1)] = *journal_count_at(h, s);
    tq_free(h->counts);
    h->counts = counts;
    h->cap = cap;
    return TQ_OK;
}

int journal_reserve_segment(struct broker *b, uint64_t segment)
{
    struct journal_homes *h = &b->journal->homes;

    if (h->end > 0) {
        TQ_ASSERT(segment + 1 >= h->end && segment < UINT64_MAX);
        advance(h);
        if (h->base + 1 == h->end && *journal_count_at(h, h->base) == 0)
            h->base = segment; /* there is nothing anywhere */
    } else {
        h->base = segment;
    }
    if (segment - h->base > JOURNAL_HOME_MASK)
        return TQ_ELIMIT;
    if (segment - h->base >= h->cap && grow(h, segment - h->base + 1) != TQ_OK)
        return TQ_ENOMEM;
    h->end = segment + 1;
    return TQ_OK;
}

void journal_set_home(struct broker *b, uint32_t slot, uint64_t segment)
{
    struct journal *j = b->journal;
    struct journal_lead *l = journal_lead(b, slot);

    if ((l->home & LEAD_RECORDED) != 0) {
        --*journal_count_at(&j->homes, journal_segment(&j->homes, l->home));
    } else {
        j->live_tasks++;
        j->live_bytes += broker_task_op_bytes(broker_task_at(b->slab, slot));
    }
    ++*journal_count_at(&j->homes, segment);
    l->home = (l->home & ~JOURNAL_HOME_MASK) | LEAD_RECORDED | ((uint32_t)segment & JOURNAL_HOME_MASK);
}

void journal_unset_home(struct broker *b, uint32_t slot)
{
    struct journal *j = b->journal;
    struct journal_lead *l = journal_lead(b, slot);

    if ((l->home & LEAD_RECORDED) == 0)
        return;
    --*journal_count_at(&j->homes, journal_segment(&j->homes, l->home));
    j->live_tasks--;
    j->live_bytes -= broker_task_op_bytes(broker_task_at(b->slab, slot));
    l->home &= ~(LEAD_RECORDED | JOURNAL_HOME_MASK);
}

void journal_set_queue_home(struct broker *b, struct broker_queue *q, uint64_t segment)
{
    struct journal *j = b->journal;

    if (q->journal.recorded)
        --*journal_count_at(&j->homes, q->journal.home);
    else
        j->live_queues++;
    ++*journal_count_at(&j->homes, segment);
    q->journal.recorded = true;
    q->journal.home = segment;
}

void journal_unset_queue_home(struct broker *b, struct broker_queue *q)
{
    if (!q->journal.recorded)
        return;
    --*journal_count_at(&b->journal->homes, q->journal.home);
    b->journal->live_queues--;
    q->journal.recorded = false;
}

uint64_t broker_journal_oldest(struct broker *b)
{
    struct journal_homes *h = &b->journal->homes;

    if (!b->journal->totals_recorded)
        return 0; /* nothing was collected yet */
    advance(h);
    TQ_ASSERT(*journal_count_at(h, h->base) > 0); /* the totals, if nothing else */
    return h->base;
}

/* ---- moving ---- */

#define PIECE_BYTES 1024u               /* so much that is noted is one more piece of work */
#define QUEUES_FROM ((uint64_t)1 << 60) /* *at from here on: index of a queue */

static void spend(unsigned *budget, uint64_t pieces)
{
    *budget -= pieces < *budget ? (unsigned)pieces : *budget;
}

static uint64_t move_task(struct broker *b, uint64_t id, uint64_t segment)
{
    uint32_t slot = ids_find(b->ids, id);
    const struct journal_lead *l = journal_lead(b, slot);

    if ((l->home & LEAD_RECORDED) == 0 || (l->home & LEAD_FULL) != 0 ||
        journal_segment(&b->journal->homes, l->home) > segment)
        return 0;
    journal_note_task(b, slot, LEAD_FULL | LEAD_MORE, JOURNAL_NO_WAIT);
    return broker_task_op_bytes(broker_task_at(b->slab, slot));
}

/* The next id from *at on. False: there is none left. */
static bool move_next(struct broker *b, uint64_t segment, uint64_t *at, unsigned *budget, uint64_t *bytes)
{
    uint64_t resume, id = ids_walk(b->ids, *at, budget, &resume), n;

    if (id == 0) {
        *at = resume;
        return resume != 0;
    }
    n = move_task(b, id, segment);
    *bytes += n;
    spend(budget, 1 + n / PIECE_BYTES);
    *at = id + 1;
    return true;
}

static void move_totals(struct broker *b, uint64_t segment)
{
    struct journal *j = b->journal;

    if (!j->totals_recorded || j->totals_home > segment)
        return;
    j->totals_noted = true;
    journal_raise(b, JOURNAL_NO_WAIT);
}

bool broker_journal_move(struct broker *b, uint64_t segment, uint64_t *at, unsigned *budget,
                         uint64_t *ret_noted_bytes)
{
    *ret_noted_bytes = 0;
    if (*at < QUEUES_FROM) {
        *at = *at > 0 ? *at : 1;
        while (*budget > 0 && move_next(b, segment, at, budget, ret_noted_bytes))
            ;
        if (*at != 0 && *at < QUEUES_FROM && *budget == 0)
            return false;
        *at = QUEUES_FROM;
    }
    for (; *at - QUEUES_FROM < b->queue_cap; ++*at) {
        struct broker_queue *q = b->queues[*at - QUEUES_FROM];

        if (*budget == 0)
            return false;
        spend(budget, 1);
        if (q == NULL || !q->journal.recorded || q->journal.is_news || q->journal.home > segment)
            continue;
        journal_note_queue(b, q, JOURNAL_NO_WAIT);
        *ret_noted_bytes += JOURNAL_QUEUE_OP_BYTES;
    }
    move_totals(b, segment);
    return true;
}
