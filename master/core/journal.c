/* Noting what changed. A list of ids in chunks, of which one more than needed is there as a rule, so that a
 * note has room; what an id's task is, is looked up when it is collected. */
#include "master/core/journal.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal_impl.h"
#include "master/core/lease.h"
#include "master/core/purge.h"
#include "master/core/queue.h"

_Static_assert(sizeof(struct journal_lead) == JOURNAL_LEAD_BYTES, "what stands before each slot");

int broker_journal_enable(struct broker *b)
{
    struct journal *j;

    TQ_ASSERT(b->journal == NULL && b->stats.queues == 0 && b->stats.tasks == 0);
    j = tq_calloc(1, sizeof(*j));
    if (j == NULL)
        return TQ_ENOMEM;
    j->first = j->last = tq_malloc(sizeof(*j->first));
    if (j->first == NULL) {
        tq_free(j);
        return TQ_ENOMEM;
    }
    j->first->next = NULL;
    j->first->count = 0;
    j->next_place = 1;
    j->wait = JOURNAL_NO_WAIT; /* what time it is, and that nothing has been counted yet */
    slab_set_lead(b->slab, JOURNAL_LEAD_BYTES);
    b->journal = j;
    return TQ_OK;
}

static void free_chunks(struct journal_chunk *c)
{
    while (c != NULL) {
        struct journal_chunk *next = c->next;

        tq_free(c);
        c = next;
    }
}

void journal_free(struct broker *b)
{
    struct journal *j = b->journal;
    struct journal_freed *f, *next;

    if (j == NULL)
        return;
    HASH_ITER(hh, j->freed, f, next)
    {
        HASH_DEL(j->freed, f);
        tq_free(f);
    }
    free_chunks(j->first);
    free_chunks(j->spare);
    tq_free(j->homes.list);
    tq_free(j);
    b->journal = NULL;
}

bool broker_journal_has_news(const struct broker *b)
{
    return b->journal->wait != JOURNAL_NOTHING;
}

bool broker_journal_failed(const struct broker *b)
{
    return b->journal->failed;
}

uint64_t broker_journal_live_bytes(const struct broker *b)
{
    const struct journal *j = b->journal;

    return j->live_bytes + j->live_queues * JOURNAL_QUEUE_OP_BYTES;
}

uint64_t broker_journal_live_tasks(const struct broker *b)
{
    return b->journal->live_tasks;
}

uint64_t broker_journal_next_id(const struct broker *b)
{
    return ids_next(b->ids);
}

/* ---- the list ---- */

static void add_spare(struct journal *j)
{
    struct journal_chunk *c = tq_malloc(sizeof(*c));

    if (c == NULL)
        return; /* there is room for a while, and the next one tries again */
    c->next = NULL;
    j->spare = c;
    j->spare_count = 1;
}

static bool next_chunk(struct journal *j)
{
    struct journal_chunk *c;

    if (j->spare == NULL)
        add_spare(j);
    c = j->spare;
    if (c == NULL)
        return false;
    j->spare = c->next;
    j->spare_count--;
    c->next = NULL;
    c->count = 0;
    j->last->next = c;
    j->last = c;
    return true;
}

static void push(struct journal *j, uint64_t id, uint32_t home, enum journal_entry_kind kind)
{
    struct journal_chunk *c = j->last;

    if (c->count >= JOURNAL_CHUNK_ENTRIES / 2) {
        if (c->count == JOURNAL_CHUNK_ENTRIES && !next_chunk(j)) {
            j->failed = true;
            return;
        }
        c = j->last;
        if (j->spare == NULL)
            add_spare(j);
    }
    c->entries[c->count++] = (struct journal_entry){.id = id, .home = home, .kind = kind};
}

/* ---- tasks ---- */

static inline bool is_told(uint32_t flags)
{
    return (flags & (LEAD_MEMORY | LEAD_RECORDED)) != LEAD_MEMORY;
}

static void note(struct broker *b, uint32_t slot, uint32_t what, enum journal_wait wait)
{
    struct journal *j = b->journal;
    struct journal_lead *l = journal_lead(b, slot);

    if (!is_told(l->home))
        return;
    if (wait > j->wait)
        j->wait = wait;
    l->home |= what | LEAD_NOTED;
}

void journal_note_task(struct broker *b, uint32_t slot, uint32_t what, enum journal_wait wait)
{
    bool was_noted;

    if (b->journal == NULL)
        return;
    was_noted = (journal_lead(b, slot)->home & LEAD_NOTED) != 0;
    note(b, slot, what, wait);
    if (!was_noted && (journal_lead(b, slot)->home & LEAD_NOTED) != 0)
        push(b->journal, broker_task_id(broker_task_at(b->slab, slot)), 0, ENTRY_TASK);
}

/* It is not there any more: what it was at home with is given back when that is written. */
static void note_end(struct broker *b, uint32_t slot, enum journal_wait wait)
{
    struct journal *j = b->journal;
    struct journal_lead *l = journal_lead(b, slot);
    struct broker_task *t = broker_task_at(b->slab, slot);

    if ((l->home & LEAD_RECORDED) != 0) {
        if (wait > j->wait)
            j->wait = wait;
        push(j, broker_task_id(t), l->home & JOURNAL_HOME_MASK, ENTRY_END);
        j->live_tasks--;
        j->live_bytes -= broker_task_op_bytes(t);
    }
    l->home = 0;
}

static inline bool stands_in_queue(enum broker_task_state s)
{
    return s == BROKER_TASK_READY || s == BROKER_TASK_DELAYED || s == BROKER_TASK_LEASED;
}

/* What of it nobody waits for: a delay that is over, a retention that ends (with a wait of its own:
 * broker_on_remove), a result that took its task's place (journal_succeed has said it). */
static enum journal_wait wait_of(const struct broker_queue *q, enum broker_task_state from,
                                 enum broker_task_state to)
{
    if (q == NULL || (from == BROKER_TASK_DELAYED && to == BROKER_TASK_READY))
        return JOURNAL_NO_WAIT;
    return to == BROKER_TASK_LEASED ? JOURNAL_WRITTEN : journal_wait_of(&q->conf);
}

/* A task that is not recorded: its id is not to be given again all the same. */
static void tell_ids(struct broker *b)
{
    if (ids_next(b->ids) - b->journal->told_id >= JOURNAL_ID_STEP)
        journal_raise(b, JOURNAL_NO_WAIT);
}

void journal_note_state(struct broker *b, uint32_t slot, enum broker_task_state from,
                        enum broker_task_state to, struct broker_queue *q)
{
    struct journal_lead *l = journal_lead(b, slot);
    bool was_memory = from != BROKER_TASK_NEW && (l->home & LEAD_MEMORY) != 0;
    enum journal_wait wait = wait_of(q, from, to);

    if (q != NULL && from == BROKER_TASK_NEW) {
        l->home &= ~LEAD_MEMORY;
        if (q->conf.durability == BROKER_DURABILITY_MEMORY) {
            l->home |= LEAD_MEMORY;
            tell_ids(b);
        }
    }
    if (q != NULL) {
        q->journal.unrecorded += stands_in_queue(to) && (l->home & LEAD_MEMORY) != 0;
        q->journal.unrecorded -= stands_in_queue(from) && was_memory;
        journal_touch_counts(b, q);
    }
    if (to == BROKER_TASK_GONE)
        note_end(b, slot, wait);
    else
        journal_note_task(b, slot, to == BROKER_TASK_LEASED ? 0 : LEAD_MORE, wait);
}

void journal_succeed(struct broker *b, uint32_t old_slot, uint32_t new_slot)
{
    struct journal *j = b->journal;
    struct journal_lead *old, *l;
    struct broker_task *t;

    if (j == NULL)
        return;
    old = journal_lead(b, old_slot);
    l = journal_lead(b, new_slot);
    t = broker_task_at(b->slab, old_slot);
    if (is_told(old->home))
        journal_raise(b, broker_task_state(t) != BROKER_TASK_KEPT
                             ? journal_wait_of(&broker_task_queue(b, t)->conf)
                             : JOURNAL_SYNCED);
    l->home = old->home;
    if ((old->home & LEAD_RECORDED) != 0) {
        l->home |= LEAD_FULL;
        j->live_bytes += broker_task_op_bytes(broker_task_at(b->slab, new_slot)) - broker_task_op_bytes(t);
    }
    old->home &= LEAD_MEMORY; /* so that its end is none, and its queue counts it out */
}

void journal_move_lead(struct broker *b, uint32_t from, uint32_t to)
{
    struct journal_lead *l;

    if (b->journal == NULL)
        return;
    l = journal_lead(b, from);
    *journal_lead(b, to) = *l;
    if ((l->home & LEAD_RECORDED) != 0)
        b->journal->live_bytes += broker_task_op_bytes(broker_task_at(b->slab, to)) -
                                  broker_task_op_bytes(broker_task_at(b->slab, from));
    l->home = 0;
}

void journal_before_rewrite(struct broker *b, uint32_t slot)
{
    if (b->journal != NULL && (journal_lead(b, slot)->home & LEAD_RECORDED) != 0)
        b->journal->live_bytes -= broker_task_op_bytes(broker_task_at(b->slab, slot));
}

void journal_after_rewrite(struct broker *b, uint32_t slot)
{
    if (b->journal == NULL)
        return;
    if ((journal_lead(b, slot)->home & LEAD_RECORDED) != 0)
        b->journal->live_bytes += broker_task_op_bytes(broker_task_at(b->slab, slot));
    journal_note_task(b, slot, LEAD_FULL,
                      journal_wait_of(&broker_task_queue(b, broker_task_at(b->slab, slot))->conf));
}

/* ---- queues ---- */

void journal_touch_counts(struct broker *b, struct broker_queue *q)
{
    struct journal *j = b->journal;

    if (j == NULL || q->journal.noted)
        return;
    q->journal.noted = true;
    DL_APPEND2(j->queues, q, journal.prev, journal.next);
}

void journal_note_counts(struct broker *b, struct broker_queue *q, enum journal_wait wait)
{
    if (b->journal == NULL || q->conf.durability == BROKER_DURABILITY_MEMORY)
        return;
    journal_raise(b, wait);
    journal_touch_counts(b, q);
}

void journal_note_queue(struct broker *b, struct broker_queue *q, enum journal_wait wait)
{
    if (b->journal == NULL)
        return;
    journal_raise(b, wait);
    journal_touch_counts(b, q);
    q->journal.is_news = true;
}

void journal_queue_gone(struct broker *b, struct broker_queue *q)
{
    struct journal *j = b->journal;

    if (j == NULL)
        return;
    if (q->journal.noted)
        DL_DELETE2(j->queues, q, journal.prev, journal.next);
    q->journal.noted = false;
    if (!q->journal.recorded)
        return;
    journal_raise(b, JOURNAL_NO_WAIT);
    push(j, q->serial, (uint32_t)q->journal.home & JOURNAL_HOME_MASK, ENTRY_GONE);
    j->live_queues--;
}

/* ---- freed leases ---- */

static struct journal_freed *find_freed(const struct journal *j, uint64_t id)
{
    struct journal_freed *f = NULL;

    HASH_FIND(hh, j->freed, &id, sizeof(id), f);
    return f;
}

void journal_freed(struct broker *b, const struct broker_lease *l)
{
    struct journal *j = b->journal;
    struct journal_freed *f;

    if (j == NULL || l->session->durable_id == 0)
        return;
    f = find_freed(j, l->id);
    if (f != NULL) {
        f->handle = l->handle;
        return;
    }
    /* Without memory for it, it cannot be resumed after a restart: then the task is run once more. */
    f = tq_calloc(1, sizeof(*f));
    if (f == NULL)
        return;
    f->id = l->id;
    f->handle = l->handle;
    HASH_ADD(hh, j->freed, id, sizeof(f->id), f);
    if (f->hh.tbl == NULL)
        tq_free(f);
}

/* The task stands in its queue as if it had never been handed out, and the log must not say otherwise. */
static void note_unfreed(struct broker *b, const struct broker_lease *l)
{
    uint32_t slot = ids_find(b->ids, l->id);
    const struct broker_task *t = slot != SLAB_NONE ? broker_task_at(b->slab, slot) : NULL;

    if (t != NULL && broker_task_state(t) == BROKER_TASK_READY && t->epoch == l->epoch)
        journal_note_task(b, slot, 0, journal_wait_of(&broker_task_queue(b, t)->conf));
}

void journal_unfreed(struct broker *b, const struct broker_lease *l)
{
    struct journal_freed *f = b->journal != NULL ? find_freed(b->journal, l->id) : NULL;

    if (f == NULL || f->handle != l->handle)
        return;
    HASH_DEL(b->journal->freed, f);
    tq_free(f);
    note_unfreed(b, l);
}

const struct broker_lease *journal_find_freed(const struct broker *b, const struct broker_task *t)
{
    const struct journal_freed *f;
    const struct broker_lease *l;

    if (b->journal->freed == NULL)
        return NULL;
    f = find_freed(b->journal, broker_task_id(t));
    l = f != NULL ? broker_lease_at(b, f->handle) : NULL;
    return l != NULL && l->epoch == t->epoch ? l : NULL;
}
