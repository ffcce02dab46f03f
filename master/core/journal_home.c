/* Homes: how much that is still there was written to which segment last, and how old segments become empty.
 */
#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal_impl.h"
#include "master/core/queue.h"

#define CAP_MIN   64u
#define RANGE_GAP 65536u /* an id that is so far from all ranges begins a new one, if one is left */

/* Nothing is at home in the first ones any more. The last one stays. */
static void advance(struct journal_homes *h)
{
    while (h->base + 1 < h->end && *journal_count_at(h, h->base) == 0)
        *journal_home_at(h, h->base++) = (struct journal_home){0};
}

static int grow(struct journal_homes *h, uint64_t need)
{
    uint64_t cap = h->cap > 0 ? h->cap : CAP_MIN;
    struct journal_home *list;

    while (cap < need)
        cap *= 2;
    list = tq_calloc(cap, sizeof(*list));
    if (list == NULL)
        return TQ_ENOMEM;
    for (uint64_t s = h->base; s < h->end; s++)
        list[s & (cap - 1)] = *journal_home_at(h, s);
    tq_free(h->list);
    h->list = list;
    h->cap = cap;
    return TQ_OK;
}

int journal_reserve_segment(struct broker *b, uint64_t segment)
{
    struct journal_homes *h = &b->journal->homes;

    if (h->end > 0) {
        TQ_ASSERT(segment + 1 >= h->end && segment < UINT64_MAX);
        advance(h);
        if (h->base + 1 == h->end && *journal_count_at(h, h->base) == 0) { /* there is nothing anywhere */
            *journal_home_at(h, h->base) = (struct journal_home){0};
            h->base = segment;
        }
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

/* The id comes into one of its ranges, or the nearest one is extended to it. */
static void add_to_ranges(struct journal_home *home, uint64_t id)
{
    uint64_t least = UINT64_MAX;
    unsigned best = 0;

    for (unsigned i = 0; i < JOURNAL_RANGES; i++) {
        uint64_t distance = RANGE_GAP;

        if (home->first[i] != 0)
            distance = id < home->first[i]  ? home->first[i] - id
                       : id > home->last[i] ? id - home->last[i]
                                            : 0;
        if (distance < least) {
            least = distance;
            best = i;
        }
    }
    if (home->first[best] == 0)
        home->first[best] = home->last[best] = id;
    else if (id < home->first[best])
        home->first[best] = id;
    else if (id > home->last[best])
        home->last[best] = id;
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
    add_to_ranges(journal_home_at(&j->homes, segment), broker_task_id(broker_task_at(b->slab, slot)));
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

#define PIECE_BYTES    1024u               /* so much that is noted is one more piece of work */
#define PIECE_SEGMENTS 64u                 /* so are so many whose ranges are looked at */
#define TASKS_FROM     ((uint64_t)1 << 60) /* *at from here on: an id; below: the index of a queue */

static void spend(unsigned *budget, uint64_t pieces)
{
    *budget -= pieces < *budget ? (unsigned)pieces : *budget;
}

static uint64_t last_to_move(const struct journal_homes *h, uint64_t segment)
{
    return segment < h->end ? segment : h->end - 1;
}

static bool is_empty_up_to(const struct journal_homes *h, uint64_t segment)
{
    for (uint64_t s = h->base; s <= segment; s++)
        if (*journal_count_at(h, s) > 0)
            return false;
    return true;
}

/* The first id >= from that may have its home in one of them, and up to where that holds. */
static bool next_range(const struct journal_homes *h, uint64_t segment, uint64_t from, uint64_t *ret_first,
                       uint64_t *ret_last)
{
    *ret_first = UINT64_MAX;
    *ret_last = 0;
    for (uint64_t s = h->base; s <= segment; s++) {
        const struct journal_home *home = journal_home_at(h, s);

        for (unsigned i = 0; i < JOURNAL_RANGES; i++) {
            uint64_t first = home->first[i] > from ? home->first[i] : from;

            if (home->first[i] == 0 || home->last[i] < from || first >= *ret_first)
                continue;
            *ret_first = first;
            *ret_last = home->last[i];
        }
    }
    return *ret_first != UINT64_MAX;
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

/* Ids from *at to `last`: *at is behind the last one that was looked at. */
static void move_range(struct broker *b, uint64_t segment, uint64_t last, uint64_t *at, unsigned *budget,
                       uint64_t *bytes)
{
    while (*budget > 0 && *at <= last) {
        uint64_t resume, id = ids_walk(b->ids, *at, budget, &resume), n;

        if (id == 0 || id > last) {
            *at = id != 0 ? id : resume != 0 ? resume : last + 1;
            continue;
        }
        n = move_task(b, id, segment);
        *bytes += n;
        spend(budget, n / PIECE_BYTES); /* ids_walk took one */
        *at = id + 1;
    }
}

static bool move_tasks(struct broker *b, uint64_t segment, uint64_t *at, unsigned *budget, uint64_t *bytes)
{
    const struct journal_homes *h = &b->journal->homes;
    uint64_t id = *at - TASKS_FROM, last;

    while (*budget > 0) {
        if (!next_range(h, segment, id, &id, &last))
            return true;
        spend(budget, (segment - h->base) / PIECE_SEGMENTS);
        move_range(b, segment, last, &id, budget, bytes);
        *at = TASKS_FROM + id;
    }
    return false;
}

static bool move_queues(struct broker *b, uint64_t segment, uint64_t *at, unsigned *budget, uint64_t *bytes)
{
    for (; *at < b->queue_cap; ++*at) {
        struct broker_queue *q = b->queues[*at];

        if (*budget == 0)
            return false;
        spend(budget, 1);
        if (q == NULL || !q->journal.recorded || q->journal.is_news || q->journal.home > segment)
            continue;
        journal_note_queue(b, q, JOURNAL_NO_WAIT);
        *bytes += JOURNAL_QUEUE_OP_BYTES;
    }
    return true;
}

static void move_totals(struct broker *b, uint64_t segment)
{
    struct journal *j = b->journal;

    if (j->totals_home > segment)
        return;
    j->totals_noted = true;
    journal_raise(b, JOURNAL_NO_WAIT);
}

bool broker_journal_move(struct broker *b, uint64_t segment, uint64_t *at, unsigned *budget,
                         uint64_t *ret_noted_bytes)
{
    const struct journal_homes *h = &b->journal->homes;

    *ret_noted_bytes = 0;
    if (!b->journal->totals_recorded || segment < h->base)
        return true;
    segment = last_to_move(h, segment);
    if (is_empty_up_to(h, segment))
        return true;
    if (*at < TASKS_FROM) {
        move_totals(b, segment);
        if (!move_queues(b, segment, at, budget, ret_noted_bytes))
            return false;
        *at = TASKS_FROM + 1;
    }
    return move_tasks(b, segment, at, budget, ret_noted_bytes);
}
