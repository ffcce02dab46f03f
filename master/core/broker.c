#include "master/core/broker.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/journal_impl.h"
#include "master/core/lease.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/session.h"
#include "master/core/task.h"
#include "master/core/timer.h"

static int set_to_never(struct broker *b, struct tq_deadline *d, enum broker_node kind)
{
    d->kind = broker_node_kind(kind);
    return tq_deadline_set(b->deadlines, d, BROKER_NEVER);
}

struct broker *broker_new(struct tq_deadlines *dl, const struct broker_limits *limits, broker_less_fn less)
{
    struct broker *b = tq_calloc(1, sizeof(*b));

    if (b == NULL)
        return NULL;
    b->deadlines = dl;
    b->limits = *limits;
    b->less = less;
    b->names_changed = 1;
    b->room[BROKER_NEW_WORK] = b->room[BROKER_COMPLETION] = UINT64_MAX;
    b->slab = slab_new();
    b->ids = ids_new(1);
    if (b->slab == NULL || b->ids == NULL || set_to_never(b, &b->retry, NODE_RETRY) != TQ_OK ||
        set_to_never(b, &b->trash_deadline, NODE_TRASH) != TQ_OK) {
        broker_free(b);
        return NULL;
    }
    return b;
}

/* Results that were kept. */
static void free_kept(struct broker *b)
{
    uint64_t id, from = 1;

    do {
        unsigned budget = UINT32_MAX;
        uint64_t resume;

        id = ids_walk(b->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        if (id != 0)
            broker_task_end(b, ids_find(b->ids, id));
    } while (from != 0);
}

void broker_free(struct broker *b)
{
    struct broker_queue *q, *next;

    if (b == NULL)
        return;
    journal_free(b); /* what ends now is no news */
    while (b->sessions != NULL)
        broker_session_close(b, b->sessions, BROKER_CLOSE_RETURN);
    broker_trash_free(b);
    HASH_ITER(hh, b->by_name, q, next)
    {
        HASH_DEL(b->by_name, q);
        broker_queue_free(b, q);
    }
    while (b->removed != NULL) {
        q = b->removed;
        DL_DELETE2(b->removed, q, removed_prev, removed_next);
        broker_queue_free(b, q);
    }
    if (b->ids != NULL)
        free_kept(b);
    TQ_ASSERT(b->stats.tasks == 0 && b->stats.body_bytes == 0 && b->stats.waiting == 0 &&
              b->external_bytes == 0);
    broker_lease_pool_deinit(b);
    tq_deadline_clear(b->deadlines, &b->retry);
    tq_deadline_clear(b->deadlines, &b->trash_deadline);
    ids_free(b->ids);
    slab_free(b->slab);
    tq_free(b->queues);
    tq_free(b->free_queues);
    tq_free(b);
}

int broker_declare(struct broker *b, const char *name, const struct broker_queue_conf *conf,
                   struct broker_queue **ret_queue)
{
    size_t len = strnlen(name, BROKER_QUEUE_NAME_MAX + 1);
    struct broker_queue *q;
    int rv;

    if (!broker_queue_name_is_good(name, len) || !broker_conf_is_good(conf, name) ||
        (conf->kind == BROKER_PRIORITY && b->less == NULL))
        return TQ_EINVAL;
    if (broker_find(b, tq_span(name, len)) != NULL)
        return TQ_EEXISTS;
    if (b->stats.queues >= b->limits.queues)
        return TQ_ELIMIT;
    rv = broker_queue_new(b, name, len, conf, &q);
    if (rv != TQ_OK)
        return rv;
    rv = broker_queue_watch_idle(b, q);
    if (rv == TQ_OK) {
        HASH_ADD_KEYPTR(hh, b->by_name, q->name, (unsigned)len, q);
        if (q->hh.tbl == NULL)
            rv = TQ_ENOMEM;
    }
    if (rv != TQ_OK) {
        broker_queue_free(b, q);
        return rv;
    }
    b->names_changed++;
    b->stats.queues++;
    journal_note_queue(b, q, JOURNAL_SYNCED);
    *ret_queue = q;
    return TQ_OK;
}

struct broker_queue *broker_find(struct broker *b, struct tq_span name)
{
    struct broker_queue *q = NULL;

    if (name.len == 0 || name.len > BROKER_QUEUE_NAME_MAX)
        return NULL;
    HASH_FIND(hh, b->by_name, name.data, (unsigned)name.len, q);
    return q;
}

const char *broker_queue_name(const struct broker_queue *q)
{
    return q->name;
}

const struct broker_queue_conf *broker_queue_conf(const struct broker_queue *q)
{
    return &q->conf;
}

uint64_t broker_queue_size(const struct broker_queue *q)
{
    return q->ready;
}

bool broker_queue_shut_down(const struct broker_queue *q)
{
    return q->shut_down;
}

struct broker_queue *broker_next_queue(struct broker *b, const struct broker_queue *q)
{
    return q == NULL ? b->by_name : q->hh.next;
}

struct broker_queue *broker_queue_from(struct broker *b, uint32_t from, uint32_t *ret_index)
{
    for (uint32_t i = from; i < b->queue_cap; i++) {
        if (b->queues[i] == NULL || b->queues[i]->removed)
            continue;
        *ret_index = i;
        return b->queues[i];
    }
    return NULL;
}

void broker_queue_set_user(struct broker_queue *q, void *user)
{
    q->user = user;
}

void *broker_queue_user(const struct broker_queue *q)
{
    return q->user;
}

void broker_on_queue_gone(struct broker *b, void (*fn)(void *ctx, struct broker_queue *q), void *ctx)
{
    b->on_queue_gone = fn;
    b->on_queue_gone_ctx = ctx;
}

void broker_get_stats(const struct broker *b, struct broker_stats *ret_stats)
{
    struct slab_stats slab;

    slab_get_stats(b->slab, &slab);
    *ret_stats = b->stats;
    ret_stats->memory_bytes = slab.mapped_bytes + ids_bytes(b->ids) + b->external_bytes;
}

static uint64_t count_waits(const struct broker_wait *list)
{
    const struct broker_wait *w;
    uint64_t n = 0;

    DL_FOREACH(list, w)
    {
        n++;
    }
    return n;
}

/* The first task that would be handed out, or (a heap whose top is a tombstone) one of the next; SLAB_NONE.
 */
static uint32_t front_of(const struct broker *b, const struct broker_queue *q)
{
    uint32_t slot = q->head;
    size_t i = 0;

    for (;;) {
        if (slot == SLAB_NONE) {
            if (i == q->heap.count)
                return SLAB_NONE;
            slot = q->heap.list[i++];
        }
        if (broker_task_state(broker_task_at(b->slab, slot)) != BROKER_TASK_GONE)
            return slot;
        slot = i == 0 ? broker_task_at(b->slab, slot)->link : SLAB_NONE;
    }
}

void broker_get_queue_stats(const struct broker *b, const struct broker_queue *q,
                            struct broker_queue_stats *ret_stats)
{
    uint32_t front = q->ready > 0 ? front_of(b, q) : SLAB_NONE;

    *ret_stats = q->stats;
    ret_stats->ready = q->ready;
    ret_stats->delayed = q->delayed;
    ret_stats->leased = q->leased;
    ret_stats->unfinished = q->unfinished;
    ret_stats->waiting_gets = count_waits(q->getters);
    ret_stats->waiting_puts = count_waits(q->putters);
    ret_stats->paused = q->conf.paused;
    ret_stats->shut_down = q->shut_down;
    if (front != SLAB_NONE)
        ret_stats->oldest_ms = ids_at_ms(b->ids, broker_task_id(broker_task_at(b->slab, front)));
}

void broker_finish_step(struct broker *b, struct broker_effects *out)
{
    broker_settle(b, out);
    b->gave_way = 0;
}

void broker_refuse_new_work(struct broker *b, uint64_t now_ms, bool refuse, struct broker_effects *out)
{
    struct broker_queue *q;

    TQ_ASSERT(now_ms >= b->now_ms);
    b->now_ms = now_ms; /* who waited may go on, from now on */
    b->refuses = refuse;
    DL_FOREACH2(b->short_of_memory[BROKER_NEW_WORK], q, short_next)
    {
        broker_queue_mark(b, q); /* one that brings a completion may stand behind its first putter */
    }
    broker_finish_step(b, out);
}

void broker_set_room(struct broker *b, uint64_t now_ms, uint64_t new_work_bytes, uint64_t completion_bytes,
                     struct broker_effects *out)
{
    bool has_grown =
        new_work_bytes > b->room[BROKER_NEW_WORK] || completion_bytes > b->room[BROKER_COMPLETION];

    TQ_ASSERT(now_ms >= b->now_ms);
    b->now_ms = now_ms;
    b->room[BROKER_NEW_WORK] = new_work_bytes;
    b->room[BROKER_COMPLETION] = completion_bytes;
    if (has_grown &&
        (b->short_of_memory[BROKER_NEW_WORK] != NULL || b->short_of_memory[BROKER_COMPLETION] != NULL))
        broker_finish_step(b, out);
}

/* While the host is deaf a deadline waits on by steps that get longer, and at its end there is a while left
 * in which what was said meanwhile is heard. */
#define DEAF_STEP_MS 100u

void broker_was_deaf(struct broker *b, uint64_t ms, bool is_deaf)
{
    b->deaf_ms += (uint32_t)ms;
    b->is_deaf = is_deaf;
}

uint64_t broker_deaf_ms(const struct broker *b, uint32_t *at)
{
    uint64_t ms = (uint32_t)(b->deaf_ms - *at);

    *at = b->deaf_ms;
    if (!b->is_deaf)
        return ms;
    return ms > DEAF_STEP_MS / 2 ? ms * 2 : DEAF_STEP_MS;
}

void broker_queue_detach(struct broker *b, struct broker_queue *q)
{
    TQ_ASSERT(!q->removed);
    HASH_DEL(b->by_name, q);
    b->names_changed++;
    b->stats.queues--;
    q->removed = true; /* first: nothing comes in any more, not even results of what is dropped */
    DL_APPEND2(b->removed, q, removed_prev, removed_next);
    broker_drop_all(b, q);
    broker_queue_clear_short(b, q);
    broker_queue_unwatch(b, q);
    broker_queue_mark(b, q);
    journal_note_queue(b, q, JOURNAL_SYNCED);
}

void broker_remove(struct broker *b, struct broker_queue *q, struct broker_effects *out)
{
    broker_queue_detach(b, q);
    broker_finish_step(b, out);
}
