#include "master/core/lease.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/journal_impl.h"
#include "master/core/outcome.h"
#include "master/core/policy.h"
#include "master/core/queue.h"
#include "master/core/task.h"
#include "master/core/timer.h"

#define IDLE_CHUNKS 64u /* that are kept when no lease is left */

/* ---- the pool ---- */

static void thread_chunk(struct broker_lease_pool *p, uint32_t number)
{
    struct broker_lease *chunk = p->chunks[number];

    for (uint32_t i = BROKER_CHUNK_LEASES; i > 0; i--) {
        chunk[i - 1].handle = number * BROKER_CHUNK_LEASES + i; /* never 0 */
        chunk[i - 1].next = p->free;
        p->free = &chunk[i - 1];
    }
    p->free_count += BROKER_CHUNK_LEASES;
}

static int add_chunk(struct broker_lease_pool *p)
{
    struct broker_lease *chunk;

    if (p->chunk_count == p->chunk_cap) {
        uint32_t cap = p->chunk_cap > 0 ? p->chunk_cap * 2 : 4;
        struct broker_lease **chunks = tq_realloc(p->chunks, cap * sizeof(struct broker_lease *));

        if (chunks == NULL)
            return TQ_ENOMEM;
        p->chunks = chunks;
        p->chunk_cap = cap;
    }
    chunk = tq_calloc(BROKER_CHUNK_LEASES, sizeof(*chunk));
    if (chunk == NULL)
        return TQ_ENOMEM;
    p->chunks[p->chunk_count] = chunk;
    thread_chunk(p, p->chunk_count++);
    return TQ_OK;
}

/* No lease is left: what a peak took is given back. */
static void trim(struct broker_lease_pool *p)
{
    while (p->chunk_count > IDLE_CHUNKS)
        tq_free(p->chunks[--p->chunk_count]);
    p->free = NULL;
    p->free_count = 0;
    for (uint32_t i = p->chunk_count; i > 0; i--)
        thread_chunk(p, i - 1);
}

int broker_lease_reserve(struct broker *b, uint32_t n)
{
    while (b->leases.free_count < n)
        if (add_chunk(&b->leases) != TQ_OK)
            return TQ_ENOMEM;
    /* Native ones keep a place for their deadline from the hand-out on. */
    if (tq_deadlines_reserve(b->deadlines, n) != TQ_OK)
        return TQ_ENOMEM;
    tq_deadlines_unreserve(b->deadlines, n);
    return TQ_OK;
}

void broker_lease_pool_deinit(struct broker *b)
{
    TQ_ASSERT(b->leases.free_count == b->leases.chunk_count * BROKER_CHUNK_LEASES);
    for (uint32_t i = 0; i < b->leases.chunk_count; i++)
        tq_free(b->leases.chunks[i]);
    tq_free(b->leases.chunks);
    b->leases = (struct broker_lease_pool){0};
}

struct broker_lease *broker_lease_at(const struct broker *b, uint32_t handle)
{
    return &b->leases.chunks[(handle - 1) / BROKER_CHUNK_LEASES][(handle - 1) % BROKER_CHUNK_LEASES];
}

/* ---- leases ---- */

static struct broker_lease **list_of(struct broker_session *s, uint8_t list, uint32_t **ret_count)
{
    switch ((enum broker_lease_list)list) {
    case LEASE_HELD:
        *ret_count = &s->held_count;
        return &s->held;
    case LEASE_HELD_EXPLICIT:
        *ret_count = &s->held_explicit_count;
        return &s->held_explicit;
    default:
        *ret_count = &s->freed_count;
        return &s->freed;
    }
}

static void enter_list(struct broker_lease *l, enum broker_lease_list which)
{
    uint32_t *count;
    struct broker_lease **list = list_of(l->session, (uint8_t)which, &count);

    l->list = (uint8_t)which;
    DL_APPEND(*list, l);
    ++*count;
}

static void leave_list(struct broker_lease *l)
{
    uint32_t *count;
    struct broker_lease **list = list_of(l->session, l->list, &count);

    DL_DELETE(*list, l);
    --*count;
}

struct broker_lease *broker_lease_grant(struct broker *b, struct broker_session *s, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    struct broker_lease *l = b->leases.free;
    int rv;

    TQ_ASSERT(b->leases.free_count > 0 && t->epoch < BROKER_EPOCH_MAX);
    b->leases.free = l->next;
    b->leases.free_count--;
    broker_task_set_state(b, slot, BROKER_TASK_LEASED);
    t->epoch++;
    t->link = l->handle;
    /* Each field by name: clearing so much by rep stos costs more than all the rest. */
    l->deadline = (struct tq_deadline){.kind = broker_node_kind(NODE_LEASE),
                                       .seq = TQ_DEADLINE_RANK_MAX - b->leases.granted++};
    l->session = s;
    l->queue = q;
    l->id = broker_task_id(t);
    l->since_ms = b->now_ms;
    l->limit_ms = UINT64_MAX;
    l->epoch = t->epoch;
    l->deaf_ms = b->deaf_ms;
    l->slot = slot;
    l->attempts = t->attempts;
    l->delivered = s->native;
    l->armed = false;
    if (s->native) {
        rv = tq_deadlines_reserve(b->deadlines, 1);
        TQ_ASSERT(rv == TQ_OK); /* there was room for it: broker_lease_reserve */
        if (q->conf.lease_ms > 0) {
            l->limit_ms = broker_after(b->now_ms, q->conf.lease_ms);
            broker_lease_sync(b, l);
        }
    }
    enter_list(l, !s->native && q->conf.ack == BROKER_ACK_EXPLICIT ? LEASE_HELD_EXPLICIT : LEASE_HELD);
    return l;
}

struct broker_lease *broker_lease_of(const struct broker *b, uint32_t slot)
{
    return broker_lease_at(b, broker_task_at(b->slab, slot)->link);
}

struct broker_lease *broker_lease_find(const struct broker *b, const struct broker_session *s, uint64_t id,
                                       uint32_t epoch)
{
    uint32_t slot = ids_find(b->ids, id);
    struct broker_lease *l;

    if (slot == SLAB_NONE || broker_task_state(broker_task_at(b->slab, slot)) != BROKER_TASK_LEASED)
        return NULL;
    l = broker_lease_of(b, slot);
    return l->session == s && l->epoch == epoch ? l : NULL;
}

void broker_lease_sync(struct broker *b, struct broker_lease *l)
{
    uint64_t at_ms;
    int rv;

    TQ_ASSERT(l->session->native && l->queue != NULL);
    l->limit_ms = broker_after(l->limit_ms, (uint32_t)(b->deaf_ms - l->deaf_ms));
    l->deaf_ms = b->deaf_ms;
    at_ms = l->limit_ms;
    if (l->session->silent) {
        uint64_t grace_ms = broker_after(b->now_ms, l->queue->conf.grace_ms);

        at_ms = grace_ms < at_ms ? grace_ms : at_ms;
    }
    if (at_ms != UINT64_MAX) {
        if (!l->armed)
            tq_deadlines_unreserve(b->deadlines, 1); /* the place is its own now */
        rv = tq_deadline_set_ranked(b->deadlines, &l->deadline, at_ms);
        TQ_ASSERT(rv == TQ_OK);
        l->armed = true;
    } else if (l->armed) {
        tq_deadline_clear(b->deadlines, &l->deadline);
        rv = tq_deadlines_reserve(b->deadlines, 1);
        TQ_ASSERT(rv == TQ_OK);
        l->armed = false;
    }
}

/* The task is let go; the lease is in no list and has no deadline. */
static uint32_t let_go(struct broker *b, struct broker_lease *l)
{
    uint32_t slot = l->slot;

    TQ_ASSERT(l->list != LEASE_FREED && slot != SLAB_NONE);
    if (l->session->native) {
        if (l->armed)
            tq_deadline_clear(b->deadlines, &l->deadline); /* or it came due, and its place is free already */
        else
            tq_deadlines_unreserve(b->deadlines, 1);
    }
    l->armed = false;
    leave_list(l);
    broker_queue_touch(b, l->queue);
    broker_task_at(b->slab, slot)->link = 0;
    return slot;
}

static void give_back(struct broker *b, struct broker_lease *l)
{
    l->session = NULL;
    l->next = b->leases.free;
    b->leases.free = l;
    b->leases.free_count++;
    if (b->leases.chunk_count > IDLE_CHUNKS &&
        b->leases.free_count == b->leases.chunk_count * BROKER_CHUNK_LEASES)
        trim(&b->leases);
}

uint32_t broker_lease_end(struct broker *b, struct broker_lease *l)
{
    uint32_t slot = let_go(b, l);

    give_back(b, l);
    return slot;
}

uint32_t broker_lease_free_task(struct broker *b, struct broker_lease *l)
{
    uint32_t slot = let_go(b, l);

    l->slot = SLAB_NONE;
    l->queue = NULL;
    enter_list(l, LEASE_FREED);
    journal_freed(b, l);
    return slot;
}

void broker_lease_forget(struct broker *b, struct broker_lease *l)
{
    TQ_ASSERT(l->list == LEASE_FREED);
    journal_unfreed(b, l);
    leave_list(l);
    give_back(b, l);
}

struct broker_lease *broker_lease_of_deadline(struct tq_deadline *d)
{
    return (struct broker_lease *)(void *)((char *)d - offsetof(struct broker_lease, deadline));
}

/* ---- ways for a lease to end ---- */

void broker_lease_ack(struct broker *b, struct broker_lease *l)
{
    const struct broker_session *s = l->session;
    struct broker_queue *q = l->queue;
    uint64_t since_ms = l->since_ms;
    uint32_t slot = broker_lease_end(b, l);
    struct broker_task *t = broker_task_at(b->slab, slot);

    if ((broker_task_flags(t) & TASK_EXTRA) != 0 || b->idwaits != NULL) {
        broker_task_ack(b, slot, s, since_ms);
        return;
    }
    b->stats.acked++;
    q->stats.done++;
    broker_task_end(b, slot);
}

void broker_lease_bounce(struct broker *b, struct broker_lease *l)
{
    struct broker_queue *q = l->queue;

    b->stats.bounced++;
    broker_queue_return(b, q, broker_lease_end(b, l), false);
}

void broker_lease_return(struct broker *b, struct broker_lease *l, bool as_freed)
{
    struct broker_ending e = {
        .outcome = BROKER_OUTCOME_LOST, .worker = l->session->worker, .started_ms = l->since_ms};
    struct broker_queue *q = l->queue;
    bool delivered = l->delivered;
    uint32_t slot = as_freed ? broker_lease_free_task(b, l) : broker_lease_end(b, l);
    struct broker_task *t = broker_task_at(b->slab, slot);

    b->stats.returned++;
    q->stats.returned++;
    if (delivered && t->attempts < UINT8_MAX)
        t->attempts++;
    /* Without memory for what takes its place it is handed out once more. */
    if (delivered && q->conf.max_deliveries > 0 && t->attempts >= q->conf.max_deliveries &&
        (broker_task_flags(t) & (TASK_RESULT | TASK_DEAD)) == 0 && broker_task_finish(b, slot, &e) == TQ_OK)
        return;
    broker_queue_return(b, q, slot, false);
}
