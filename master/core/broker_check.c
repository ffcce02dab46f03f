#include "master/core/broker_check.h"

#include <utlist.h>

#include "master/core/broker_check_impl.h"
#include "master/core/broker_impl.h"
#include "master/core/idwait.h"
#include "master/core/keys.h"
#include "master/core/lease.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/task.h"
#include "master/core/timer.h"

struct sums {
    uint64_t ready, delayed, leased, purging, waiting, result_waiting;
    uint64_t body_bytes, queue_bytes, parked_bytes, external_bytes, queues, indexes, tombstones, parked_puts;
    uint64_t held, freed, unset_lease_nodes;
    /* as found by a walk over the ids */
    uint64_t id_ready, id_delayed, id_leased, id_kept, id_gives_way, id_bytes;
};

static bool node_is_good(const struct broker *b, const struct tq_deadline *d, enum broker_node kind)
{
    return d->kind == broker_node_kind(kind) &&
           (!tq_deadline_is_set(d) || b->deadlines->heap[d->place - 1] == d);
}

static void add_external(const struct broker *b, uint32_t slot, struct sums *sums)
{
    struct broker_payload p;

    broker_task_payload(b, slot, &p);
    if (p.body != NULL)
        sums->external_bytes += p.len;
}

/* ---- tasks: all that the ids know ---- */

static const char *check_timer(const struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_extra *x = broker_task_extra(t);
    enum broker_task_state state = broker_task_state(t);
    bool is_bound = state == BROKER_TASK_READY || state == BROKER_TASK_DELAYED || state == BROKER_TASK_KEPT;
    bool is_purged = state != BROKER_TASK_KEPT && broker_task_is_purged(b, slot);
    uint64_t at_ms = UINT64_MAX;

    RULE(state != BROKER_TASK_DELAYED || (x != NULL && x->timer != NULL));
    RULE(state != BROKER_TASK_KEPT || (x != NULL && x->timer != NULL && x->expires_ms != 0));
    if (x == NULL)
        return NULL;
    RULE(!is_bound || x->expires_ms == 0 || x->timer != NULL);
    if (x->timer == NULL)
        return NULL;
    RULE(x->timer->slot == slot);
    RULE(node_is_good(b, &x->timer->deadline, NODE_TIMER));
    RULE(tq_deadline_is_set(&x->timer->deadline));
    if (state == BROKER_TASK_DELAYED)
        at_ms = x->due_ms;
    if (is_bound && x->expires_ms != 0 && x->expires_ms < at_ms)
        at_ms = x->expires_ms;
    /* Later: there was no memory for its end. Earlier, or never: the purge that it waits for does not care.
     */
    RULE(is_purged || x->timer->deadline.at_ms == at_ms ||
         (at_ms <= b->now_ms && x->timer->deadline.at_ms <= b->now_ms + BROKER_RETRY_MS));
    return NULL;
}

static const char *check_task(const struct broker *b, uint64_t id, struct sums *sums)
{
    uint32_t slot = ids_find(b->ids, id);
    struct broker_task *t;
    const struct broker_extra *x;

    RULE(slot != SLAB_NONE);
    t = broker_task_at(b->slab, slot);
    x = broker_task_extra(t);
    RULE(broker_task_id(t) == id);
    switch (broker_task_state(t)) {
    case BROKER_TASK_READY:
        sums->id_ready++;
        break;
    case BROKER_TASK_DELAYED:
        sums->id_delayed++;
        break;
    case BROKER_TASK_LEASED:
        sums->id_leased++;
        RULE(t->link != 0 && broker_lease_of(b, slot)->slot == slot);
        break;
    case BROKER_TASK_KEPT:
        sums->id_kept++;
        RULE((broker_task_flags(t) & TASK_RESULT) != 0);
        sums->id_gives_way += x->gives_way;
        break;
    default:
        return "a task with an id is NEW or GONE";
    }
    RULE((broker_task_flags(t) & TASK_NO_VALUE) == 0 ||
         (broker_task_flags(t) & (TASK_EXTERNAL | TASK_PYTHON)) == 0);
    RULE(x == NULL || x->key == NULL || x->key->id == id);
    RULE(x == NULL || x->key == NULL || tq_span_eq(broker_task_key(t), tq_span(x->key->name, x->key->len)));
    sums->id_bytes += broker_task_cost(b, slot);
    add_external(b, slot, sums);
    return check_timer(b, slot);
}

/* Those that give way are all in the list, the oldest first. */
static const char *check_kept(const struct broker *b, const struct sums *sums)
{
    uint32_t prev = SLAB_NONE;
    uint64_t count = 0, bytes = 0, ended_ms = 0;

    for (uint32_t slot = b->kept_first; slot != SLAB_NONE; slot = broker_task_at(b->slab, slot)->link) {
        struct broker_task *t = broker_task_at(b->slab, slot);
        const struct broker_extra *x = broker_task_extra(t);

        RULE(broker_task_state(t) == BROKER_TASK_KEPT && x->gives_way && x->prev == prev);
        RULE(x->ended_ms >= ended_ms);
        ended_ms = x->ended_ms;
        bytes += broker_task_cost(b, slot);
        prev = slot;
        count++;
    }
    RULE(prev == b->kept_last && count == sums->id_gives_way && bytes == b->kept_bytes);
    return NULL;
}

static const char *check_ids(const struct broker *b, struct sums *sums)
{
    uint64_t id, from = 1, count = 0;

    do {
        unsigned budget = UINT32_MAX;
        uint64_t resume = 0;

        id = ids_walk(b->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        if (id == 0)
            continue;
        ALL(check_task(b, id, sums));
        count++;
    } while (from != 0);
    RULE(count == ids_count(b->ids));
    return NULL;
}

/* ---- queues ---- */

static const char *check_waits(const struct broker *b, const struct broker_queue *q,
                               const struct broker_wait *list, enum broker_wait_kind kind, struct sums *sums)
{
    const struct broker_wait *w;

    DL_FOREACH(list, w)
    {
        RULE(w->kind == kind);
        RULE(w->queue == q);
        RULE(w->session->open);
        RULE(node_is_good(b, &w->deadline, NODE_WAIT));
        RULE((broker_wait_slot(w) != SLAB_NONE) == (kind == BROKER_WAIT_PUT));
        if (kind == BROKER_WAIT_PUT) {
            const struct broker_task *t = broker_task_at(b->slab, w->slot);

            RULE(broker_task_state(t) == BROKER_TASK_NEW);
            RULE(broker_task_id(t) == 0);
            RULE(broker_task_queue(b, t) == q);
            sums->parked_bytes += broker_task_cost(b, w->slot);
            sums->parked_puts++;
            add_external(b, w->slot, sums);
        }
        sums->waiting++;
    }
    return NULL;
}

/* One that is linked, and lives. */
static const char *check_member(const struct broker *b, const struct broker_queue *q, uint32_t slot,
                                enum broker_task_state state)
{
    const struct broker_task *t = broker_task_at(b->slab, slot);

    RULE(broker_task_state(t) == state);
    RULE(broker_task_queue(b, t) == q);
    RULE(broker_task_id(t) != 0);
    RULE(ids_find(b->ids, broker_task_id(t)) == slot);
    RULE(broker_task_colour(t) == q->colour);
    return NULL;
}

static const char *check_tombstone(const struct broker *b, uint32_t slot, struct sums *sums)
{
    const struct broker_extra *x = broker_task_extra(broker_task_at(b->slab, slot));

    RULE(x == NULL || (x->timer == NULL && x->key == NULL));
    add_external(b, slot, sums);
    sums->tombstones++;
    return NULL;
}

static const char *check_list(const struct broker *b, const struct broker_queue *q, struct sums *sums,
                              uint64_t *ready, uint64_t *body_bytes)
{
    uint32_t prev = SLAB_NONE, buried = 0;
    bool sweep_seen = q->sweep == SLAB_NONE;

    for (uint32_t slot = q->head; slot != SLAB_NONE; slot = broker_task_at(b->slab, slot)->link) {
        struct broker_task *t = broker_task_at(b->slab, slot);
        const struct broker_extra *x = broker_task_extra(t);

        RULE(t->link != TASK_IN_HEAP);
        RULE(x == NULL || x->prev == prev);
        if (broker_task_state(t) == BROKER_TASK_GONE) {
            ALL(check_tombstone(b, slot, sums));
            RULE((broker_task_flags(t) & TASK_EXTERNAL) == 0);
            buried++;
        } else {
            ALL(check_member(b, q, slot, BROKER_TASK_READY));
            *body_bytes += broker_task_cost(b, slot);
            ++*ready;
        }
        sweep_seen |= slot == q->sweep;
        prev = slot;
    }
    RULE(q->tail == prev);
    RULE(q->buried == buried);
    RULE(sweep_seen);
    return NULL;
}

static const char *check_heap(const struct broker *b, const struct broker_queue *q, struct sums *sums,
                              uint64_t *ready, uint64_t *body_bytes)
{
    size_t buried = 0;

    RULE(q->heap.count <= q->heap.cap);
    RULE(q->conf.kind == BROKER_PRIORITY || q->heap.cap == 0);
    RULE(q->conf.kind != BROKER_PRIORITY ||
         q->heap.cap >= q->ready + q->delayed + q->leased + q->heap.buried);
    for (size_t i = 0; i < q->heap.count; i++) {
        uint32_t slot = q->heap.list[i];

        RULE(broker_task_at(b->slab, slot)->link == TASK_IN_HEAP);
        RULE(i == 0 || !broker_heap_is_before(b, slot, q->heap.list[(i - 1) / 2]));
        if (broker_task_state(broker_task_at(b->slab, slot)) == BROKER_TASK_GONE) {
            ALL(check_tombstone(b, slot, sums));
            buried++;
        } else {
            ALL(check_member(b, q, slot, BROKER_TASK_READY));
            *body_bytes += broker_task_cost(b, slot);
            ++*ready;
        }
    }
    RULE(q->heap.buried == buried);
    return NULL;
}

static const char *check_delayed(const struct broker *b, const struct broker_queue *q, uint64_t *body_bytes)
{
    uint32_t prev = SLAB_NONE;
    uint64_t count = 0;

    for (uint32_t slot = q->delayed_head; slot != SLAB_NONE; slot = broker_task_at(b->slab, slot)->link) {
        struct broker_task *t = broker_task_at(b->slab, slot);

        ALL(check_member(b, q, slot, BROKER_TASK_DELAYED));
        RULE(broker_task_extra(t)->prev == prev);
        *body_bytes += broker_task_cost(b, slot);
        prev = slot;
        count++;
    }
    RULE(count == q->delayed);
    return NULL;
}

/* Nobody waits who could be served, except after a failed allocation. */
static const char *check_served(const struct broker *b, const struct broker_queue *q)
{
    const struct broker_wait *w;

    if (q->marked)
        return NULL;
    RULE(q->getters == NULL || q->ready == 0 || !broker_queue_may_hand_out(b, q) ||
         (q->conf.rate_per_s > 0 && q->rate_deadline.at_ms <= b->now_ms)); /* due, and not looked at yet */
    RULE(!q->shut_down || ((q->getters == NULL || q->ready > 0) && q->putters == NULL));
    RULE(q->joiners == NULL || q->unfinished > 0);
    RULE(q->putters == NULL || broker_queue_is_full(q) || q->is_short);
    RULE(!q->removed || (q->getters == NULL && q->putters == NULL && q->joiners == NULL));
    RULE(!q->removed || q->leased > 0 || q->purging > 0);
    w = broker_next_putter(b, q);
    if (q->is_short && b->retry.at_ms == UINT64_MAX && w != NULL && !broker_queue_is_full(q) &&
        b->short_of_memory[q->short_class] == q)
        RULE(!broker_memory_fits(b, w->memory_class, w->session, broker_task_cost(b, w->slot)));
    return NULL;
}

static const char *check_queue(const struct broker *b, struct broker_queue *q, struct sums *sums)
{
    uint64_t ready = 0, body_bytes = 0;

    RULE(b->queues[q->index] == q);
    ALL(check_list(b, q, sums, &ready, &body_bytes));
    ALL(check_heap(b, q, sums, &ready, &body_bytes));
    ALL(check_delayed(b, q, &body_bytes));
    ALL(check_waits(b, q, q->getters, BROKER_WAIT_GET, sums));
    ALL(check_waits(b, q, q->putters, BROKER_WAIT_PUT, sums));
    ALL(check_waits(b, q, q->joiners, BROKER_WAIT_JOIN, sums));
    ALL(check_served(b, q));
    RULE(ready == q->ready);
    RULE(!q->removed || (q->ready == 0 && q->delayed == 0));
    RULE((q->trash_colours >> q->colour & 1) == 0);
    RULE(q->trash_colours != 0 || q->purging == 0);
    RULE(!tq_deadline_is_set(&q->rate_deadline) || node_is_good(b, &q->rate_deadline, NODE_RATE));
    RULE(!tq_deadline_is_set(&q->idle_deadline) || node_is_good(b, &q->idle_deadline, NODE_IDLE));
    sums->ready += q->ready;
    sums->delayed += q->delayed;
    sums->leased += q->leased;
    sums->purging += q->purging;
    sums->body_bytes += body_bytes;
    sums->queue_bytes += q->stats.body_bytes;
    return NULL;
}

static const char *check_queues(const struct broker *b, struct sums *sums)
{
    struct broker_queue *q;

    for (q = b->by_name; q != NULL; q = q->hh.next) {
        RULE(!q->removed);
        ALL(check_queue(b, q, sums));
        sums->queues++;
    }
    RULE(b->stats.queues == sums->queues);
    sums->indexes = sums->queues;
    DL_FOREACH2(b->removed, q, removed_next)
    {
        RULE(q->removed);
        ALL(check_queue(b, q, sums));
        sums->indexes++;
    }
    RULE(sums->indexes + b->free_queue_count == b->queue_cap);
    DL_FOREACH2(b->marked, q, marked_next)
    {
        RULE(q->marked);
        RULE(b->more || b->retry.at_ms <= b->now_ms + BROKER_RETRY_MS);
    }
    for (int c = 0; c < BROKER_MEMORY_CLASSES; c++)
        DL_FOREACH2(b->short_of_memory[c], q, short_next)
        {
            RULE(q->is_short);
            RULE(q->short_class == c);
            RULE(!q->removed);
        }
    return NULL;
}

/* What a purge has left to free. */
static const char *check_trash(const struct broker *b, struct sums *sums)
{
    const struct broker_trash *tr;
    uint64_t tasks = 0;

    DL_FOREACH(b->trash, tr)
    {
        const uint32_t heads[] = {tr->head, tr->delayed_head};

        RULE((tr->queue->trash_colours >> tr->colour & 1) != 0);
        for (size_t i = 0; i < 2; i++)
            for (uint32_t slot = heads[i]; slot != SLAB_NONE; slot = broker_task_at(b->slab, slot)->link) {
                if (broker_task_state(broker_task_at(b->slab, slot)) == BROKER_TASK_GONE) {
                    ALL(check_tombstone(b, slot, sums));
                    continue;
                }
                RULE(broker_task_is_purged(b, slot));
                RULE(broker_task_colour(broker_task_at(b->slab, slot)) == tr->colour);
                sums->body_bytes += broker_task_cost(b, slot);
                tasks++;
            }
        for (size_t i = 0; i < tr->heap_count; i++) {
            if (broker_task_state(broker_task_at(b->slab, tr->heap[i])) == BROKER_TASK_GONE) {
                ALL(check_tombstone(b, tr->heap[i], sums));
                continue;
            }
            RULE(broker_task_is_purged(b, tr->heap[i]));
            sums->body_bytes += broker_task_cost(b, tr->heap[i]);
            tasks++;
        }
    }
    RULE(tasks == sums->purging);
    RULE((b->trash != NULL) == (b->trash_deadline.at_ms != UINT64_MAX));
    return NULL;
}

/* ---- sessions ---- */

static const char *check_held(const struct broker *b, const struct broker_session *s,
                              const struct broker_lease *list, enum broker_lease_list which, uint32_t count,
                              struct sums *sums)
{
    const struct broker_lease *l;
    uint32_t n = 0;

    DL_FOREACH(list, l)
    {
        const struct broker_task *t = broker_task_at(b->slab, l->slot);

        RULE(broker_lease_at(b, l->handle) == l);
        RULE(l->session == s);
        RULE(l->list == (uint8_t)which);
        RULE(broker_task_state(t) == BROKER_TASK_LEASED);
        RULE(t->link == l->handle);
        RULE(broker_task_id(t) == l->id);
        RULE(t->epoch == l->epoch);
        RULE(broker_task_queue(b, t) == l->queue);
        RULE(node_is_good(b, &l->deadline, NODE_LEASE));
        RULE(tq_deadline_is_set(&l->deadline) == l->armed);
        if (s->native) {
            RULE(which == LEASE_HELD);
            RULE(l->armed == (s->silent || l->limit_ms != UINT64_MAX));
            RULE(!l->armed || l->deadline.at_ms <= l->limit_ms || l->limit_ms <= b->now_ms);
            sums->unset_lease_nodes += !l->armed;
        } else {
            RULE(!l->armed);
            RULE((l->queue->conf.ack == BROKER_ACK_EXPLICIT) == (which == LEASE_HELD_EXPLICIT));
            RULE(l->queue->conf.ack != BROKER_ACK_GET || !l->delivered);
        }
        sums->body_bytes += broker_task_cost(b, l->slot);
        sums->held++;
        n++;
    }
    RULE(n == count);
    return NULL;
}

static const char *check_freed(const struct broker *b, const struct broker_session *s, struct sums *sums)
{
    const struct broker_lease *l;
    uint32_t n = 0;

    DL_FOREACH(s->freed, l)
    {
        RULE(broker_lease_at(b, l->handle) == l);
        RULE(l->session == s);
        RULE(l->list == LEASE_FREED);
        RULE(l->slot == SLAB_NONE && l->queue == NULL && !l->armed && !tq_deadline_is_set(&l->deadline));
        n++;
    }
    RULE(n == s->freed_count);
    sums->freed += n;
    return NULL;
}

static const char *check_session(const struct broker *b, const struct broker_session *s, struct sums *sums)
{
    const struct broker_wait *w;
    uint32_t n = 0;

    RULE(s->open);
    ALL(check_held(b, s, s->held, LEASE_HELD, s->held_count, sums));
    if (s->native)
        ALL(check_freed(b, s, sums));
    else
        ALL(check_held(b, s, s->held_explicit, LEASE_HELD_EXPLICIT, s->held_explicit_count, sums));
    DL_FOREACH2(s->waits, w, session_next)
    {
        RULE(w->session == s);
        RULE(w->kind != BROKER_WAIT_RESULT || w->idwait != NULL);
        sums->result_waiting += w->kind == BROKER_WAIT_RESULT;
        n++;
    }
    RULE(n == s->wait_count);
    RULE(s->native || n <= 1);
    sums->waiting += n;
    return NULL;
}

static const char *check_sessions(const struct broker *b, struct sums *sums)
{
    uint64_t in_queues = sums->waiting;
    const struct broker_lease *l;
    const struct broker_session *s;
    uint64_t free_leases = 0;

    sums->waiting = 0;
    DL_FOREACH(b->sessions, s)
    {
        ALL(check_session(b, s, sums));
    }
    RULE(sums->waiting == in_queues + sums->result_waiting);
    RULE(sums->held == sums->leased);
    for (l = b->leases.free; l != NULL; l = l->next) {
        RULE(l->session == NULL);
        free_leases++;
    }
    RULE(free_leases == b->leases.free_count);
    RULE(free_leases + sums->held + sums->freed == (uint64_t)b->leases.chunk_count * BROKER_CHUNK_LEASES);
    RULE(b->deadlines->reserved == sums->unset_lease_nodes);
    return NULL;
}

static const char *check_idwaits(const struct broker *b, const struct sums *sums)
{
    const struct broker_idwait *i;
    const struct broker_wait *w;
    uint64_t waits = 0;

    for (i = b->idwaits; i != NULL; i = i->hh.next) {
        RULE(i->waits != NULL);
        RULE(!i->ended || b->more || b->retry.at_ms <= b->now_ms + BROKER_RETRY_MS);
        RULE(i->ended || ids_find(b->ids, i->id) != SLAB_NONE);
        DL_FOREACH(i->waits, w)
        {
            RULE(w->kind == BROKER_WAIT_RESULT);
            RULE(w->idwait == i);
            RULE(node_is_good(b, &w->deadline, NODE_WAIT));
            waits++;
        }
    }
    RULE(waits == sums->result_waiting);
    return NULL;
}

const char *broker_check(const struct broker *b)
{
    struct sums sums = {0};
    struct slab_stats slab;

    ALL(check_queues(b, &sums));
    ALL(check_trash(b, &sums));
    ALL(check_ids(b, &sums));
    ALL(check_sessions(b, &sums));
    ALL(check_idwaits(b, &sums));
    RULE(sums.id_ready + sums.id_delayed == sums.ready + sums.delayed + sums.purging);
    RULE(sums.id_leased == sums.leased);
    RULE(sums.id_kept == b->stats.kept);
    ALL(check_kept(b, &sums));
    RULE(b->stats.leased == sums.leased);
    RULE(b->stats.delayed == sums.delayed);
    RULE(b->stats.tasks == ids_count(b->ids));
    RULE(b->stats.waiting == sums.waiting);
    RULE(b->stats.body_bytes == sums.id_bytes);
    RULE(sums.queue_bytes == sums.body_bytes);
    RULE(b->stats.parked_bytes == sums.parked_bytes);
    RULE(b->external_bytes == sums.external_bytes);
    RULE(b->limits.memory_bytes == 0 || b->stats.body_bytes <= b->limits.memory_bytes ||
         b->stats.body_bytes <= b->restored_bytes);
    slab_get_stats(b->slab, &slab);
    RULE(slab.slots == ids_count(b->ids) + sums.tombstones + sums.parked_puts);
    ALL(broker_check_journal(b));
    return NULL;
}
