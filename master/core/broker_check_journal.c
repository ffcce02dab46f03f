/* The journal's part of broker_check. */
#include <utlist.h>

#include "master/core/broker_check_impl.h"
#include "master/core/broker_impl.h"
#include "master/core/journal_impl.h"
#include "master/core/lease.h"
#include "master/core/queue.h"
#include "master/core/task.h"

struct recount {
    uint64_t homes; /* a sum of what stands for each segment, for each thing at home there */
    uint64_t noted, recorded, bytes;
};

static uint64_t stands_for(uint64_t segment)
{
    uint64_t x = (segment + 1) * 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static const char *count_home(const struct journal *j, struct recount *rc, uint64_t segment)
{
    RULE(segment >= j->homes.base && segment < j->homes.end);
    rc->homes += stands_for(segment);
    return NULL;
}

static bool is_in_a_range(const struct journal_home *home, uint64_t id)
{
    for (unsigned i = 0; i < JOURNAL_RANGES; i++)
        if (home->first[i] != 0 && home->first[i] <= id && id <= home->last[i])
            return true;
    return false;
}

static const char *check_lead(const struct broker *b, uint64_t id, struct recount *rc)
{
    const struct journal *j = b->journal;
    uint32_t slot = ids_find(b->ids, id);
    struct broker_task *t = broker_task_at(b->slab, slot);
    uint32_t lead = journal_lead(b, slot)->home;
    int64_t place = journal_place(b, slot);
    enum broker_task_state state = broker_task_state(t);

    /* Whatever is not in the log is about to be, or never. */
    RULE((lead & (LEAD_RECORDED | LEAD_NOTED | LEAD_MEMORY)) != 0 || j->failed);
    RULE((lead & (LEAD_RECORDED | LEAD_NOTED | LEAD_MEMORY)) != (LEAD_RECORDED | LEAD_MEMORY) || j->failed);
    RULE((lead & LEAD_NOTED) != 0 || (lead & (LEAD_FULL | LEAD_MORE)) == 0 || j->failed);
    RULE((state != BROKER_TASK_READY && state != BROKER_TASK_DELAYED) || place != 0);
    RULE((place < 0 ? -place : place) < j->next_place);
    rc->noted += (lead & LEAD_NOTED) != 0;
    if ((lead & LEAD_RECORDED) == 0)
        return NULL;
    RULE(is_in_a_range(journal_home_at(&j->homes, journal_segment(&j->homes, lead)), id));
    rc->recorded++;
    rc->bytes += broker_task_op_bytes(t);
    return count_home(j, rc, journal_segment(&j->homes, lead));
}

static const char *check_leads(const struct broker *b, struct recount *rc)
{
    uint64_t id, from = 1;

    do {
        unsigned budget = UINT32_MAX;
        uint64_t resume = 0;

        id = ids_walk(b->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        if (id != 0)
            ALL(check_lead(b, id, rc));
    } while (from != 0);
    return NULL;
}

static bool is_tombstone(const struct broker *b, uint32_t slot)
{
    return broker_task_state(broker_task_at(b->slab, slot)) == BROKER_TASK_GONE;
}

/* From a list's head to its tail, and those that are being purged are all before the others. */
static const char *check_order(const struct broker *b, const struct broker_queue *q)
{
    int64_t last = INT64_MIN;

    for (uint32_t slot = q->head; slot != SLAB_NONE; slot = broker_task_at(b->slab, slot)->link) {
        int64_t place = journal_place(b, slot);

        if (is_tombstone(b, slot))
            continue;
        RULE(place > last);
        RULE((uint64_t)(place < 0 ? -place : place) > q->purged_place);
        RULE(q->conf.kind != BROKER_PRIORITY || place < 0);
        last = place;
    }
    for (size_t i = 0; i < q->heap.count; i++)
        RULE(is_tombstone(b, q->heap.list[i]) ||
             journal_place(b, q->heap.list[i]) > (int64_t)q->purged_place);
    for (uint32_t slot = q->delayed_head; slot != SLAB_NONE; slot = broker_task_at(b->slab, slot)->link)
        RULE(journal_place(b, slot) > (int64_t)q->purged_place);
    return NULL;
}

static const char *check_queue(const struct broker *b, const struct broker_queue *q, struct recount *rc)
{
    RULE(q->journal.recorded || q->journal.is_news);
    RULE(q->journal.noted || !q->journal.is_news);
    RULE(q->purged_place < (uint64_t)b->journal->next_place);
    if (q->journal.recorded)
        ALL(count_home(b->journal, rc, q->journal.home));
    return check_order(b, q);
}

static const char *check_queues(const struct broker *b, struct recount *rc)
{
    const struct broker_queue *q;
    uint64_t noted = 0, recorded = 0, listed = 0;

    for (uint32_t i = 0; i < b->queue_cap; i++) {
        q = b->queues[i];
        if (q == NULL)
            continue;
        noted += q->journal.noted;
        recorded += q->journal.recorded;
        ALL(check_queue(b, q, rc));
    }
    DL_FOREACH2(b->journal->queues, q, journal.next)
    {
        RULE(q->journal.noted);
        listed++;
    }
    RULE(listed == noted);
    RULE(recorded == b->journal->live_queues);
    return NULL;
}

/* What has ended counts until that is written. */
static const char *check_list(const struct broker *b, struct recount *rc)
{
    const struct journal *j = b->journal;
    uint64_t alive = 0;

    for (const struct journal_chunk *c = j->first; c != NULL; c = c->next) {
        RULE(c->count == JOURNAL_CHUNK_ENTRIES || c->next == NULL);
        RULE(c->next != NULL || c == j->last);
        for (uint32_t i = 0; i < c->count; i++) {
            const struct journal_entry *e = &c->entries[i];
            uint32_t slot = e->kind == ENTRY_GONE ? SLAB_NONE : ids_find(b->ids, e->id);

            RULE(j->wait != JOURNAL_NOTHING);
            RULE(e->kind != ENTRY_END || slot == SLAB_NONE);
            if (e->kind != ENTRY_TASK) {
                ALL(count_home(j, rc, journal_segment(&j->homes, e->home)));
                continue;
            }
            RULE(slot == SLAB_NONE || (journal_lead(b, slot)->home & LEAD_NOTED) != 0);
            alive += slot != SLAB_NONE;
        }
    }
    RULE(alive == rc->noted || j->failed);
    return NULL;
}

static const char *check_freed(const struct broker *b)
{
    for (const struct journal_freed *f = b->journal->freed; f != NULL; f = f->hh.next) {
        const struct broker_lease *l = broker_lease_at(b, f->handle);

        RULE(l->session != NULL && l->list == LEASE_FREED && l->id == f->id);
    }
    return NULL;
}

static const char *compare_homes(const struct journal *j, const struct recount *rc)
{
    uint64_t sum = 0;

    for (uint64_t i = j->homes.base; i < j->homes.end; i++)
        sum += *journal_count_at(&j->homes, i) * stands_for(i);
    RULE(sum == rc->homes);
    return NULL;
}

const char *broker_check_journal(const struct broker *b)
{
    const struct journal *j = b->journal;
    struct recount rc = {0};

    if (j == NULL)
        return NULL;
    ALL(check_leads(b, &rc));
    ALL(check_queues(b, &rc));
    ALL(check_list(b, &rc));
    ALL(check_freed(b));
    if (j->totals_recorded)
        ALL(count_home(j, &rc, j->totals_home));
    RULE(rc.recorded == j->live_tasks);
    RULE(rc.bytes == j->live_bytes);
    return j->failed ? NULL : compare_homes(j, &rc);
}
