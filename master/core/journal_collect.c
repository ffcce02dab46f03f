/* Writing down what changed, as it is now. One pass; if there is no memory for it on the way, what was done
 * so far is undone. */
#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal_impl.h"
#include "master/core/lease.h"
#include "master/core/ops_extra.h"
#include "master/core/ops_queue.h"
#include "master/core/queue.h"

/* The head of a task's op, and of its parts: op, mask, state, flags, format, and numbers. */
#define TASK_BOUND (5u + 12u * OPS_VARINT_MAX + 1u)
#define END_BOUND  (1u + OPS_VARINT_MAX)
#define AHEAD      4u /* so many tasks are fetched into the cache before they are written */

struct collect {
    struct broker *b;
    struct tq_buf *out;
    uint64_t segment;
};

/* Where n more bytes can be written, or NULL with *ret. */
static inline uint8_t *room(struct collect *c, size_t n, int *ret)
{
    if (c->out->cap - c->out->len < n) {
        *ret = tq_buf_reserve(c->out, n);
        if (*ret != TQ_OK)
            return NULL;
    }
    *ret = TQ_OK;
    return c->out->data + c->out->len;
}

static inline void wrote(struct collect *c, const uint8_t *end)
{
    c->out->len = (size_t)(end - c->out->data);
}

/* ---- tasks ---- */

static const struct broker_lease *lease_to_tell(const struct broker *b, const struct broker_task *t,
                                                uint32_t slot)
{
    switch (broker_task_state(t)) {
    case BROKER_TASK_LEASED:
        return broker_lease_of(b, slot);
    case BROKER_TASK_READY:
        return journal_find_freed(b, t);
    default:
        return NULL;
    }
}

static uint8_t *put_payload(uint8_t *at, const struct broker_payload *p)
{
    *at++ = p->format;
    if (p->format == BROKER_PYTHON) {
        at = ops_put(at, p->item_off);
        at = ops_put(at, p->item_len);
    }
    at = ops_put(at, p->len);
    memcpy(at, p->data, p->len);
    return at + p->len;
}

static uint8_t *put_lease(uint8_t *at, const struct broker_lease *l)
{
    at = ops_put(at, l->session->durable_id);
    at = ops_put(at, l->since_ms);
    at = ops_put(at, l->limit_ms + 1); /* never is 0 */
    *at++ = l->delivered;
    return at;
}

static int put_task(struct collect *c, uint32_t slot, uint32_t lead)
{
    struct broker *b = c->b;
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_lease *l = lease_to_tell(b, t, slot);
    bool is_full = (lead & (LEAD_RECORDED | LEAD_FULL)) != LEAD_RECORDED;
    bool is_kept = broker_task_state(t) == BROKER_TASK_KEPT;
    struct broker_payload p = {0};
    unsigned mask = 0;
    size_t bound = TASK_BOUND;
    uint8_t *at;
    int rv;

    if (is_full) {
        broker_task_payload(b, slot, &p);
        bound += p.len;
        mask |= OPS_FULL | (p.data != NULL ? OPS_PAYLOAD : 0);
    }
    if ((is_full || (lead & LEAD_MORE) != 0) && broker_task_extra(t) != NULL) {
        bound += ops_extra_bound(t);
        mask |= OPS_EXTRA;
    }
    if (l != NULL)
        mask |= OPS_LEASE;
    at = room(c, bound, &rv);
    if (at == NULL)
        return rv;
    *at++ = OPS_TASK;
    at = ops_put(at, broker_task_id(t));
    at = ops_put(at, is_kept ? 0 : broker_task_queue(b, t)->serial);
    *at++ = (uint8_t)mask;
    *at++ = (uint8_t)broker_task_state(t);
    *at++ = (uint8_t)(broker_task_flags(t) & (TASK_RESULT | TASK_DEAD | TASK_NO_VALUE));
    at = ops_put(at, t->attempts);
    at = ops_put(at, t->epoch);
    at = ops_put(at, ops_zigzag(journal_place(b, slot)));
    if (is_full)
        at = ops_put(at, ids_at_ms(b->ids, broker_task_id(t)));
    if ((mask & OPS_EXTRA) != 0)
        at = ops_put_extra(at, t);
    if ((mask & OPS_PAYLOAD) != 0)
        at = put_payload(at, &p);
    if (l != NULL)
        at = put_lease(at, l);
    wrote(c, at);
    if (is_full)
        journal_set_home(b, slot, c->segment);
    return TQ_OK;
}

static int put_end(struct collect *c, uint64_t id)
{
    int rv;
    uint8_t *at = room(c, END_BOUND, &rv);

    if (at == NULL)
        return rv;
    *at++ = OPS_END;
    wrote(c, ops_put(at, id));
    return TQ_OK;
}

static int collect_task(struct collect *c, struct journal_entry *e, uint32_t slot)
{
    struct journal_lead *l;
    int rv;

    if (slot == SLAB_NONE)
        return TQ_OK; /* it has ended: that is an entry of its own, if the log knows of it */
    l = journal_lead(c->b, slot);
    e->home = l->home;
    if ((l->home & LEAD_MEMORY) != 0) { /* it went over into such a queue */
        rv = (l->home & LEAD_RECORDED) != 0 ? put_end(c, e->id) : TQ_OK;
        if (rv == TQ_OK)
            journal_unset_home(c->b, slot);
    } else {
        rv = put_task(c, slot, l->home);
    }
    if (rv == TQ_OK)
        l->home &= ~(LEAD_NOTED | LEAD_FULL | LEAD_MORE);
    return rv;
}

static void restore_task(struct collect *c, const struct journal_entry *e)
{
    struct journal *j = c->b->journal;
    uint32_t slot = ids_find(c->b->ids, e->id);

    if (slot == SLAB_NONE)
        return;
    if ((e->home & LEAD_RECORDED) != 0)
        journal_set_home(c->b, slot, journal_segment(&j->homes, e->home));
    else
        journal_unset_home(c->b, slot);
    journal_lead(c->b, slot)->home = e->home;
}

/* ---- the list ---- */

static int collect_entry(struct collect *c, struct journal_entry *e, uint32_t slot)
{
    struct journal_homes *h = &c->b->journal->homes;
    uint8_t *at;
    int rv;

    switch ((enum journal_entry_kind)e->kind) {
    case ENTRY_TASK:
        return collect_task(c, e, slot);
    case ENTRY_END:
        rv = put_end(c, e->id);
        break;
    default:
        at = room(c, OPS_GONE_BOUND, &rv);
        if (at != NULL)
            wrote(c, ops_put_gone(at, (uint32_t)e->id));
    }
    if (rv == TQ_OK)
        --*journal_count_at(h, journal_segment(h, e->home));
    return rv;
}

static void restore_entries(struct collect *c, const struct journal_chunk *until, uint32_t n)
{
    struct journal_homes *h = &c->b->journal->homes;

    for (struct journal_chunk *k = c->b->journal->first;; k = k->next) {
        uint32_t count = k == until ? n : k->count;

        for (uint32_t i = 0; i < count; i++)
            if (k->entries[i].kind == ENTRY_TASK)
                restore_task(c, &k->entries[i]);
            else
                ++*journal_count_at(h, journal_segment(h, k->entries[i].home));
        if (k == until)
            return;
    }
}

static inline uint32_t slot_of(const struct broker *b, const struct journal_chunk *k, uint32_t i)
{
    uint32_t slot;

    if (i >= k->count || k->entries[i].kind != ENTRY_TASK)
        return SLAB_NONE;
    slot = ids_find(b->ids, k->entries[i].id);
    if (slot != SLAB_NONE)
        __builtin_prefetch(journal_lead(b, slot));
    return slot;
}

static int collect_entries(struct collect *c)
{
    for (struct journal_chunk *k = c->b->journal->first; k != NULL; k = k->next) {
        uint32_t slots[AHEAD];

        for (uint32_t i = 0; i < AHEAD; i++)
            slots[i] = slot_of(c->b, k, i);
        for (uint32_t i = 0; i < k->count; i++) {
            int rv = collect_entry(c, &k->entries[i], slots[i % AHEAD]);

            if (rv != TQ_OK) {
                restore_entries(c, k, i);
                return rv;
            }
            slots[i % AHEAD] = slot_of(c->b, k, i + AHEAD);
        }
    }
    return TQ_OK;
}

/* One chunk stays, and some are kept. */
static void forget_entries(struct journal *j)
{
    struct journal_chunk *c = j->first->next, *next;

    for (; c != NULL; c = next) {
        next = c->next;
        if (j->spare_count == JOURNAL_SPARE_CHUNKS) {
            tq_free(c);
            continue;
        }
        c->next = j->spare;
        j->spare = c;
        j->spare_count++;
    }
    j->first->next = NULL;
    j->first->count = 0;
    j->last = j->first;
}

/* ---- queues and counters ---- */

/* Without those whose tasks are not recorded: after a restart nobody is to wait for their end. */
static uint64_t unfinished_of(const struct broker_queue *q)
{
    return q->unfinished - (q->journal.unrecorded < q->unfinished ? q->journal.unrecorded : q->unfinished);
}

static void read_counts(const struct broker_queue *q, uint64_t ret[JOURNAL_COUNTS])
{
    const struct broker_queue_stats *s = &q->stats;
    const uint64_t counts[JOURNAL_COUNTS] = {
        unfinished_of(q), s->puts,    s->gets, s->done,    s->failed, s->retried,
        s->returned,      s->expired, s->dead, s->dropped, s->stale,
    };

    memcpy(ret, counts, sizeof(counts));
}

static int collect_queue(struct collect *c, const struct broker_queue *q)
{
    uint64_t counts[JOURNAL_COUNTS];
    bool is_memory = q->conf.durability == BROKER_DURABILITY_MEMORY;
    uint8_t *at;
    int rv;

    read_counts(q, counts);
    if (!q->journal.is_news && (is_memory || memcmp(counts, q->journal.counts, sizeof(counts)) == 0))
        return TQ_OK;
    at = room(c, ops_queue_bound(q) + OPS_COUNTS_BOUND, &rv);
    if (at == NULL)
        return rv;
    if (q->journal.is_news)
        at = ops_put_queue(at, q);
    if (!is_memory)
        at = ops_put_counts(at, q, unfinished_of(q));
    wrote(c, at);
    return TQ_OK;
}

static int collect_queues(struct collect *c)
{
    int rv = TQ_OK;

    for (const struct broker_queue *q = c->b->journal->queues; q != NULL && rv == TQ_OK; q = q->journal.next)
        rv = collect_queue(c, q);
    return rv;
}

static void settle_queues(struct collect *c)
{
    struct journal *j = c->b->journal;
    struct broker_queue *q, *next;

    for (q = j->queues; q != NULL; q = next) {
        next = q->journal.next;
        if (q->journal.is_news)
            journal_set_queue_home(c->b, q, c->segment);
        read_counts(q, q->journal.counts);
        q->journal.noted = q->journal.is_news = false;
    }
    j->queues = NULL;
}

static void read_totals(const struct broker_stats *s, uint64_t ret[JOURNAL_TOTALS])
{
    const uint64_t totals[JOURNAL_TOTALS] = {
        s->puts,    s->gets,  s->acked,   s->failed, s->retried, s->returned,     s->bounced,
        s->resumed, s->stale, s->expired, s->dead,   s->dropped, s->kept_dropped, s->known,
    };

    memcpy(ret, totals, sizeof(totals));
}

static bool totals_changed(const struct broker *b)
{
    uint64_t totals[JOURNAL_TOTALS];

    read_totals(&b->stats, totals);
    return !b->journal->totals_recorded || b->journal->totals_noted ||
           memcmp(totals, b->journal->totals, sizeof(totals)) != 0;
}

static int collect_time(struct collect *c)
{
    const struct ops_time t = {.now_ms = c->b->now_ms,
                               .next_id = ids_next(c->b->ids),
                               .next_place = (uint64_t)c->b->journal->next_place,
                               .next_queue_serial = c->b->queue_next_serial + 1};
    int rv;
    uint8_t *at = room(c, OPS_TIME_BOUND, &rv);

    if (at != NULL)
        wrote(c, ops_put_time(at, &t));
    return rv;
}

static int collect_totals(struct collect *c)
{
    int rv;
    uint8_t *at = room(c, OPS_TOTALS_BOUND, &rv);

    if (at != NULL)
        wrote(c, ops_put_totals(at, &c->b->stats));
    return rv;
}

static void settle_totals(struct collect *c)
{
    struct journal *j = c->b->journal;

    if (j->totals_recorded)
        --*journal_count_at(&j->homes, j->totals_home);
    ++*journal_count_at(&j->homes, c->segment);
    j->totals_home = c->segment;
    j->totals_recorded = true;
    j->totals_noted = false;
    read_totals(&c->b->stats, j->totals);
}

int broker_journal_collect(struct broker *b, uint64_t segment, struct tq_buf *out,
                           enum journal_wait *ret_wait)
{
    struct collect c = {.b = b, .out = out, .segment = segment};
    struct journal *j = b->journal;
    size_t len = out->len;
    bool has_totals;
    int rv;

    *ret_wait = JOURNAL_NOTHING;
    if (j->wait == JOURNAL_NOTHING)
        return TQ_OK;
    rv = journal_reserve_segment(b, segment);
    has_totals = totals_changed(b);
    if (rv == TQ_OK)
        rv = collect_time(&c);
    if (rv == TQ_OK)
        rv = collect_queues(&c);
    if (rv == TQ_OK && has_totals)
        rv = collect_totals(&c);
    if (rv == TQ_OK)
        rv = collect_entries(&c); /* the last that can fail: it undoes what it did */
    if (rv != TQ_OK) {
        out->len = len;
        return rv;
    }
    settle_queues(&c);
    if (has_totals)
        settle_totals(&c);
    forget_entries(j);
    j->told_id = ids_next(b->ids);
    *ret_wait = j->wait;
    j->wait = JOURNAL_NOTHING;
    return TQ_OK;
}
