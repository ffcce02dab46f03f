/* Raw tasks and queues come to life: see restore_impl.h. While they are linked the broker has no journal, so
 * that nothing of it is noted: it is in the log as it is. What comes of it then (leases that nobody holds any
 * more go back) is, with the journal, like any other step. */
#include <inttypes.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal_impl.h"
#include "master/core/keys.h"
#include "master/core/lease.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/restore_impl.h"
#include "master/core/restore_sort.h"
#include "master/core/session.h"
#include "master/core/timer.h"

struct finish {
    struct broker_restore *r;
    struct broker *b;
    struct journal *journal; /* the broker's, which has none for a while */
    struct broker_session *(*session_of)(void *ctx, uint64_t durable_id);
    void *ctx;
    struct broker_session nobody;  /* holds leases whose sessions have gone */
    struct restore_list placed;    /* READY and DELAYED, by |place| */
    struct restore_list purged;    /* of those, what is being purged */
    struct restore_list leased;    /* by since_ms */
    struct restore_list kept;      /* by ended_ms */
    struct restore_list unordered; /* of those that are placed */
    char less_text[BROKER_TEXT_MAX];
};

/* ---- queues ---- */

static int make_queue(struct finish *f, const struct restore_queue *rq, struct broker_queue **ret,
                      char text[RESTORE_TEXT_MAX])
{
    const struct ops_queue *def = rq->def;
    struct broker *b = f->b;
    struct broker_queue *q;
    int rv;

    b->queue_next_serial = rq->serial - 1;
    rv = broker_queue_new(b, (const char *)def->name.data, def->name.len, &def->conf, &q);
    if (rv != TQ_OK)
        return rv == TQ_ELIMIT ? restore_refuse(text, "too many queues") : rv;
    q->shut_down = (def->flags & OPS_QUEUE_SHUT_DOWN) != 0;
    q->removed = (def->flags & OPS_QUEUE_REMOVED) != 0;
    q->purged_place = def->purged_place;
    if (def->conf.durability != BROKER_DURABILITY_MEMORY) /* else they are of other times */
        q->stats = rq->counts.stats;
    *ret = q;
    if (q->removed) {
        DL_APPEND2(b->removed, q, removed_prev, removed_next);
        broker_queue_mark(b, q); /* if nothing is left of it, it goes at the end of this step */
        return TQ_OK;
    }
    rv = broker_find(b, def->name) != NULL ? TQ_EEXISTS : broker_queue_watch_idle(b, q);
    if (rv == TQ_OK) {
        HASH_ADD_KEYPTR(hh, b->by_name, q->name, (unsigned)def->name.len, q);
        if (q->hh.tbl == NULL)
            rv = TQ_ENOMEM;
    }
    if (rv != TQ_OK) {
        broker_queue_free(b, q);
        return rv == TQ_EEXISTS ? restore_refuse(text, "two queues have one name") : rv;
    }
    b->names_changed++;
    b->stats.queues++;
    return TQ_OK;
}

/* In the order in which they were declared. */
static int make_queues(struct finish *f, char text[RESTORE_TEXT_MAX])
{
    struct broker_restore *r = f->r;
    struct restore_list list = {0};
    int rv = TQ_OK;

    for (uint32_t i = 1; i <= r->queue_count && rv == TQ_OK; i++)
        if (r->queues[i]->def != NULL)
            rv = restore_list_add(&list, r->queues[i]->serial, i);
    if (rv == TQ_OK)
        rv = restore_list_sort(&list);
    for (size_t i = 0; i < list.count && rv == TQ_OK; i++) {
        struct restore_queue *rq = r->queues[list.items[i].slot];

        rv = make_queue(f, rq, &rq->queue, text);
    }
    restore_list_deinit(&list);
    f->b->queue_next_serial = r->time.next_queue_serial - 1;
    return rv;
}

static bool has_memory_queue(const struct broker *b)
{
    for (uint32_t i = 0; i < b->queue_cap; i++)
        if (b->queues[i] != NULL && b->queues[i]->conf.durability == BROKER_DURABILITY_MEMORY)
            return true;
    return false;
}

/* What was not recorded, or whose record was lost, may have had ids that the last TIME does not know: none of
 * them is given again. */
static int skip_unknown_ids(struct finish *f)
{
    uint64_t next = ids_next(f->b->ids);
    uint64_t most = IDS_MAX + 1 - next;

    if (!f->r->has_times || (f->r->was_closed && !has_memory_queue(f->b)))
        return TQ_OK;
    return ids_skip(f->b->ids, next + (JOURNAL_ID_SKIP < most ? JOURNAL_ID_SKIP : most));
}

/* ---- what is there ---- */

/* The index of a queue by its serial, or one that no queue has. */
static uint32_t index_of(struct broker_restore *r, uint32_t serial)
{
    struct restore_queue *rq = r->last;

    if (rq == NULL || rq->serial != serial)
        HASH_FIND(hh, r->by_serial, &serial, sizeof(serial), rq);
    if (rq == NULL || rq->queue == NULL)
        return TASK_QUEUE_MAX;
    r->last = rq;
    return rq->queue->index;
}

static uint64_t distance(int64_t place)
{
    return place < 0 ? 0 - (uint64_t)place : (uint64_t)place;
}

/* The same order as numbers without a sign. */
static uint64_t ascending(int64_t place)
{
    return (uint64_t)place ^ (uint64_t)1 << 63;
}

/* One task, from raw numbers to those of the broker, and into the list that it is linked from. */
static int look_at(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    struct broker_restore *r = f->r;
    struct broker_task *t = broker_task_at(f->b->slab, slot);
    enum broker_task_state state = restore_state(t);
    struct broker_queue *q = state != BROKER_TASK_KEPT ? r->queues[t->queue]->queue : NULL;
    struct broker_extra *x = broker_task_extra(t);
    int64_t place = journal_place(f->b, slot);

    if (q == NULL && state != BROKER_TASK_KEPT) {
        if (r->orphans == NULL)
            return restore_refuse(text, "task %" PRIu64 " is in a queue that is not there",
                                  broker_task_id(t));
        ++*r->orphans;
        f->b->journal = f->journal;
        restore_drop(r, slot);
        f->b->journal = NULL;
        return TQ_OK;
    }
    t->queue = (q != NULL ? q->index : 0) & TASK_QUEUE_MAX;
    if (x != NULL && x->result != TASK_POLICY && x->result != TASK_NO_QUEUE)
        x->result = index_of(r, x->result_serial);
    if (x != NULL && x->from_serial != 0)
        x->from = index_of(r, x->from_serial);
    if (state == BROKER_TASK_KEPT)
        return restore_list_add(&f->kept, x->ended_ms, slot);
    if (state == BROKER_TASK_LEASED) /* those of the same ms stay in the order of their places */
        return restore_list_add(&f->leased, ascending(place), slot);
    if (q->removed || distance(place) <= q->purged_place)
        return restore_list_add(&f->purged, ascending(place), slot);
    return restore_list_add(&f->placed, distance(place), slot);
}

static int look_at_all(struct finish *f, char text[RESTORE_TEXT_MAX])
{
    uint64_t id, from = 1;
    int rv = restore_list_reserve(&f->placed, ids_count(f->b->ids));

    while (rv == TQ_OK && from != 0) {
        unsigned budget = UINT32_MAX;
        uint64_t resume;

        id = ids_walk(f->b->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        if (id != 0)
            rv = look_at(f, ids_find(f->b->ids, id), text);
    }
    return rv;
}

static int sort_all(struct finish *f, char text[RESTORE_TEXT_MAX])
{
    struct broker_restore *r = f->r;
    int rv = restore_list_sort(&f->placed);

    if (rv == TQ_OK)
        rv = restore_list_sort(&f->purged);
    if (rv == TQ_OK)
        rv = restore_list_sort(&f->kept);
    if (rv == TQ_OK)
        rv = restore_list_sort(&f->leased);
    for (size_t i = 0; i < f->leased.count; i++)
        f->leased.items[i].key =
            r->leases[broker_task_at(f->b->slab, f->leased.items[i].slot)->link].since_ms;
    if (rv == TQ_OK)
        rv = restore_list_sort(&f->leased);
    if (rv != TQ_OK)
        return rv;
    for (size_t i = 1; i < f->placed.count; i++)
        if (f->placed.items[i].key == f->placed.items[i - 1].key)
            return restore_refuse(text, "two tasks have the place %" PRIu64, f->placed.items[i].key);
    return TQ_OK;
}

/* ---- tasks ---- */

static int take_key(struct finish *f, struct broker_task *t, struct broker_extra *x, uint32_t serial,
                    char text[RESTORE_TEXT_MAX])
{
    struct restore_queue *rq;

    HASH_FIND(hh, f->r->by_serial, &serial, sizeof(serial), rq);
    if (rq == NULL || rq->queue == NULL)
        return TQ_OK; /* nobody can ask for it any more */
    if (broker_key_find(f->b, rq->queue, broker_task_key(t)) != NULL)
        return restore_refuse(text, "task %" PRIu64 " has the key of another one", broker_task_id(t));
    x->key = broker_key_add(f->b, rq->queue, broker_task_key(t), broker_task_id(t));
    return x->key != NULL ? TQ_OK : TQ_ENOMEM;
}

/* Timer and key. A key of what is being purged has been forgotten, or may be somebody else's by now. */
static int equip(struct finish *f, uint32_t slot, bool is_purged, char text[RESTORE_TEXT_MAX])
{
    struct broker_task *t = broker_task_at(f->b->slab, slot);
    struct broker_extra *x = broker_task_extra(t);
    uint32_t key_serial;
    int rv = TQ_OK;

    if (x == NULL)
        return TQ_OK;
    key_serial = x->prev;
    x->prev = SLAB_NONE;
    if (x->expires_ms != 0 || restore_state(t) == BROKER_TASK_DELAYED ||
        ((broker_task_flags(t) & TASK_RESULT) != 0 && x->retention_ms > 0))
        rv = broker_timer_prepare(f->b, slot);
    if (rv == TQ_OK && key_serial != 0 && !is_purged)
        rv = take_key(f, t, x, key_serial, text);
    return rv;
}

/* While the master was down nobody could lengthen a lease or hand in what was finished: its worker gets the
 * time of a new one, and at least that in which it may come back. */
static uint64_t limit_of(const struct broker *b, const struct broker_queue *q, const struct restore_lease *rl)
{
    uint32_t ms = q->conf.lease_ms > q->conf.grace_ms ? q->conf.lease_ms : q->conf.grace_ms;
    uint64_t least = broker_after(b->now_ms, ms);

    return rl->limit_ms > least ? rl->limit_ms : least;
}

/* Into the session's hands; room was reserved. */
static struct broker_lease *hand_over(struct finish *f, uint32_t slot, const struct restore_lease *rl,
                                      struct broker_session *s)
{
    struct broker *b = f->b;
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_lease *l;

    broker_task_set_colour(t, broker_task_queue(b, t)->colour);
    broker_task_set_state(b, slot, BROKER_TASK_READY);
    t->epoch--; /* it is no new hand-out */
    l = broker_lease_grant(b, s, slot);
    l->since_ms = rl->since_ms;
    l->limit_ms = limit_of(b, broker_task_queue(b, t), rl);
    return l;
}

static struct broker_session *owner_of(struct finish *f, const struct restore_lease *rl)
{
    struct broker_session *s = rl->session != 0 ? f->session_of(f->ctx, rl->session) : NULL;

    TQ_ASSERT(s == NULL || (s->open && s->native));
    return s;
}

/* A task in its queue may have a lease that was freed, and that its session may still resume: it was handed
 * out with an attempt less. It is LEASED then, as if the lease had just been freed. Room was reserved. */
static void remember_freed(struct finish *f, uint32_t slot)
{
    struct broker_task *t = broker_task_at(f->b->slab, slot);
    const struct restore_lease *rl;
    struct broker_session *s;
    struct broker_lease *l;

    if (t->link == 0)
        return;
    rl = &f->r->leases[t->link];
    t->link = 0;
    s = owner_of(f, rl);
    if (s == NULL)
        return;
    l = hand_over(f, slot, rl, s);
    if (l->attempts > 0)
        l->attempts--;
    (void)broker_lease_free_task(f->b, l);
}

static void link_last(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    struct broker_extra *x = broker_task_extra(broker_task_at(b->slab, slot));

    broker_task_at(b->slab, slot)->link = SLAB_NONE;
    if (x != NULL)
        x->prev = q->tail;
    if (q->tail != SLAB_NONE)
        broker_task_at(b->slab, q->tail)->link = slot;
    else
        q->head = slot;
    q->tail = slot;
}

static void link_first(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    struct broker_extra *next;

    broker_task_at(b->slab, slot)->link = q->head;
    if (q->head != SLAB_NONE) {
        next = broker_task_extra(broker_task_at(b->slab, q->head));
        if (next != NULL)
            next->prev = slot;
    } else {
        q->tail = slot;
    }
    q->head = slot;
}

/* Room for all that it takes. */
static int prepare(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    struct broker_task *t = broker_task_at(f->b->slab, slot);
    int rv = equip(f, slot, false, text);

    if (rv == TQ_OK)
        rv = broker_queue_reserve(broker_task_queue(f->b, t));
    return rv == TQ_OK && t->link != 0 ? broker_lease_reserve(f->b, 1) : rv;
}

/* The next one in the order in which they came where they stand. */
static int link_one(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    struct broker *b = f->b;
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    enum broker_task_state state = restore_state(t);
    bool is_first = journal_place(b, slot) < 0;
    bool is_in_heap = q->conf.kind == BROKER_PRIORITY && state == BROKER_TASK_READY && !is_first;
    int rv = prepare(f, slot, text);

    if (rv == TQ_OK && is_in_heap)
        rv = broker_heap_push(b, &q->heap, slot, f->less_text);
    if (rv == BROKER_HEAP_UNORDERED)
        return restore_list_add(&f->unordered, 0, slot);
    if (rv != TQ_OK)
        return rv;
    remember_freed(f, slot);
    broker_task_set_colour(t, q->colour);
    if (state == BROKER_TASK_DELAYED)
        broker_queue_relink_delayed(b, q, slot);
    else if (is_in_heap)
        t->link = TASK_IN_HEAP;
    else if (is_first)
        link_first(b, q, slot);
    else
        link_last(b, q, slot);
    broker_task_set_state(b, slot, state);
    return TQ_OK;
}

/* What can no longer be ordered goes to the front, as it would if it came back now. */
static int link_unordered(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    struct broker_queue *q = broker_task_queue(f->b, broker_task_at(f->b->slab, slot));

    (void)text;
    remember_freed(f, slot);
    broker_task_set_colour(broker_task_at(f->b->slab, slot), q->colour);
    link_first(f->b, q, slot);
    broker_task_set_state(f->b, slot, BROKER_TASK_READY);
    return TQ_OK;
}

static int lease_one(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    const struct restore_lease *rl = &f->r->leases[broker_task_at(f->b->slab, slot)->link];
    struct broker_session *s = owner_of(f, rl);
    struct broker_lease *l;
    int rv = prepare(f, slot, text);

    if (rv != TQ_OK)
        return rv;
    l = hand_over(f, slot, rl, s != NULL ? s : &f->nobody);
    if (s != NULL)
        broker_lease_sync(f->b, l);
    else if (f->r->was_closed && rl->session == 0)
        l->delivered = false; /* its session ended because the master stopped: that is no attempt */
    return TQ_OK;
}

/* Its purge goes on by slices, beginning now. */
static int purge_one(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    struct broker_task *t = broker_task_at(f->b->slab, slot);
    enum broker_task_state state = restore_state(t);
    const struct broker_queue *q = broker_task_queue(f->b, t);
    struct restore_queue *rq;
    int rv = equip(f, slot, true, text);

    if (rv != TQ_OK)
        return rv;
    HASH_FIND(hh, f->r->by_serial, &q->serial, sizeof(q->serial), rq);
    TQ_ASSERT(rq != NULL);
    return broker_purge_restore(f->b, rq->queue, slot, state, &rq->trash);
}

static int keep_one(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX])
{
    int rv = equip(f, slot, false, text);

    if (rv == TQ_OK)
        broker_task_set_state(f->b, slot, BROKER_TASK_KEPT);
    return rv;
}

static int each(struct finish *f, const struct restore_list *list,
                int (*fn)(struct finish *f, uint32_t slot, char text[RESTORE_TEXT_MAX]),
                char text[RESTORE_TEXT_MAX])
{
    int rv = TQ_OK;

    for (size_t i = 0; i < list->count && rv == TQ_OK; i++)
        rv = fn(f, list->items[i].slot, text);
    return rv;
}

static int link_all(struct finish *f, char text[RESTORE_TEXT_MAX])
{
    int rv = TQ_OK;

    /* First: what comes later has another colour. From the end, as each comes before those that are there. */
    for (size_t i = f->purged.count; i > 0 && rv == TQ_OK; i--)
        rv = purge_one(f, f->purged.items[i - 1].slot, text);
    if (rv == TQ_OK)
        rv = each(f, &f->placed, link_one, text);
    if (rv == TQ_OK)
        rv = each(f, &f->unordered, link_unordered, text);
    if (rv == TQ_OK)
        rv = each(f, &f->leased, lease_one, text);
    if (rv == TQ_OK)
        rv = each(f, &f->kept, keep_one, text);
    return rv;
}

/* ---- then ---- */

/* What was not recorded has gone: nobody will say that it is done. (It may be less than what is there: who
 * says task_done more often than there were gets is believed.) */
static void count_unfinished(const struct restore_queue *rq)
{
    struct broker_queue *q = rq->queue;

    if (rq->has_counts && q->conf.durability != BROKER_DURABILITY_MEMORY)
        q->unfinished = rq->counts.unfinished;
    else
        q->unfinished = q->ready + q->delayed + q->leased;
}

/* The journal is there again. */
static void tell_journal(struct finish *f)
{
    const struct broker_session *s;
    const struct broker_lease *l;

    for (uint32_t i = 1; i <= f->r->queue_count; i++) {
        const struct restore_queue *rq = f->r->queues[i];

        if (rq->queue == NULL)
            continue;
        count_unfinished(rq);
        --*journal_count_at(&f->journal->homes, rq->home); /* so far its op was there */
        journal_set_queue_home(f->b, rq->queue, rq->home);
    }
    for (size_t i = 0; i < f->unordered.count; i++) {
        journal_put_first(f->b, f->unordered.items[i].slot);
        journal_note_task(f->b, f->unordered.items[i].slot, 0, JOURNAL_WRITTEN);
    }
    DL_FOREACH(f->b->sessions, s)
    {
        if (!s->native)
            continue;
        DL_FOREACH(s->freed, l)
        {
            journal_freed(f->b, l);
        }
    }
}

static void go_on(struct finish *f)
{
    struct broker_effects nothing = {0};
    struct broker *b = f->b;

    b->restored_bytes = b->stats.body_bytes;
    broker_session_close(b, &f->nobody, BROKER_CLOSE_RETURN);
    broker_finish_step(b, &nothing);
    TQ_ASSERT(nothing.count == 0);
    broker_effects_deinit(&nothing);
}

int broker_restore_finish(struct broker_restore *r, uint64_t now_ms,
                          struct broker_session *(*session_of)(void *ctx, uint64_t durable_id), void *ctx,
                          char text[RESTORE_TEXT_MAX])
{
    struct broker *b = r->b;
    struct finish f = {.r = r,
                       .b = b,
                       .journal = b->journal,
                       .session_of = session_of,
                       .ctx = ctx,
                       .nobody = {.native = true}};
    int rv;

    TQ_ASSERT(now_ms >= r->time.now_ms && now_ms >= b->now_ms);
    text[0] = '\0';
    b->now_ms = now_ms;
    f.journal->next_place = (int64_t)r->time.next_place;
    b->journal = NULL;
    broker_session_open(b, &f.nobody);
    rv = make_queues(&f, text);
    if (rv == TQ_OK)
        rv = skip_unknown_ids(&f);
    if (rv == TQ_OK)
        rv = look_at_all(&f, text);
    if (rv == TQ_OK)
        rv = sort_all(&f, text);
    if (rv == TQ_OK)
        rv = link_all(&f, text);
    b->journal = f.journal;
    if (rv == TQ_OK) {
        tell_journal(&f);
        go_on(&f);
    } else {
        broker_session_close(b, &f.nobody, BROKER_CLOSE_RETURN);
        restore_drop_raw(r);
    }
    restore_list_deinit(&f.placed);
    restore_list_deinit(&f.purged);
    restore_list_deinit(&f.leased);
    restore_list_deinit(&f.kept);
    restore_list_deinit(&f.unordered);
    restore_free(r);
    return rv;
}
