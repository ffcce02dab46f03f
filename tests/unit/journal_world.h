/* Two worlds that live the same life: one broker that never stops, and one that is read anew from its journal
 * now and then. What a crash means is done to the first one by hand (world_crash_by_hand); after that both
 * have to be the same (journal_same.h), and stay it. */
#ifndef TESTS_UNIT_JOURNAL_WORLD_H
#define TESTS_UNIT_JOURNAL_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include <utlist.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_check.h"
#include "master/core/broker_impl.h"
#include "master/core/idwait.h"
#include "master/core/journal_impl.h"
#include "master/core/kept.h"
#include "master/core/keys.h"
#include "master/core/lease.h"
#include "master/core/outcome.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/restore_impl.h"
#include "master/core/task.h"
#include "master/core/timer.h"
#include "master/core/wait.h"

#define WORLD_SESSIONS 10
#define WORLD_QUEUES   6
#define WORLD_LEASES   1024

struct world {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    struct broker_session s[WORLD_SESSIONS];
    struct broker_queue *q[WORLD_QUEUES];
    int64_t first_place; /* what its restart began with */
    uint64_t first_id;
    bool was_closed; /* its log */
};

static const char *const world_names[WORLD_QUEUES] = {"a", "b", "c", "d", "e", "f"};

/* ---- the log: records, each out of its segment ---- */

struct world_record {
    uint64_t segment;
    uint8_t *bytes;
    size_t len;
};

struct world_log {
    struct world_record *list;
    size_t first, count, cap; /* those before `first` were dropped */
    uint64_t segment;         /* that is written */
};

static inline void world_log_deinit(struct world_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->list[i].bytes);
    free(log->list);
    *log = (struct world_log){0};
}

/* What is new becomes a record. */
static inline enum journal_wait world_collect(struct broker *b, struct world_log *log)
{
    struct tq_buf out = TQ_BUF_NULL(64u << 20);
    enum journal_wait wait;
    bool has_news = broker_journal_has_news(b);

    assert_int_equal(broker_journal_collect(b, log->segment, &out, &wait), 0);
    assert_false(broker_journal_has_news(b));
    assert_false(broker_journal_failed(b));
    assert_int_equal(wait != JOURNAL_NOTHING, has_news);
    assert_int_equal(out.len > 0, has_news);
    if (out.len > 0) {
        if (log->count == log->cap) {
            log->cap = log->cap > 0 ? 2 * log->cap : 64;
            log->list = realloc(log->list, log->cap * sizeof(*log->list));
            assert_non_null(log->list);
        }
        log->list[log->count] =
            (struct world_record){.segment = log->segment, .bytes = malloc(out.len), .len = out.len};
        assert_non_null(log->list[log->count].bytes);
        memcpy(log->list[log->count++].bytes, out.data, out.len);
    }
    tq_buf_deinit(&out);
    return wait;
}

/* Records of segments that nothing is at home in any more. */
static inline void world_release(struct broker *b, struct world_log *log)
{
    uint64_t oldest = broker_journal_oldest(b);

    while (log->first < log->count && log->list[log->first].segment < oldest)
        log->first++;
}

/* ---- worlds ---- */

static inline void world_check(const struct world *w)
{
    const char *broken = broker_check(w->b);

    if (broken != NULL)
        fail_msg("broken rule: %s", broken);
}

static inline struct world *world_new(const struct broker_limits *limits, broker_less_fn less)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    tq_deadlines_init(&w->deadlines);
    w->b = broker_new(&w->deadlines, limits, less);
    assert_non_null(w->b);
    assert_int_equal(broker_journal_enable(w->b), 0);
    return w;
}

static inline void world_free(struct world *w)
{
    broker_free(w->b);
    assert_int_equal(w->deadlines.count, 0);
    broker_effects_deinit(&w->fx);
    tq_deadlines_deinit(&w->deadlines);
    free(w);
}

static inline int world_try(struct world *w, uint64_t now_ms, const struct broker_event *ev)
{
    int rv = broker_step(w->b, now_ms, ev, &w->fx);

    world_check(w);
    return rv;
}

static inline void world_step(struct world *w, uint64_t now_ms, const struct broker_event *ev)
{
    assert_int_equal(world_try(w, now_ms, ev), 0);
}

static inline void world_open(struct world *w, uint64_t now_ms, int s, bool native, uint64_t durable_id,
                              const char *worker)
{
    w->s[s] =
        (struct broker_session){.native = native, .durable_id = durable_id, .worker = tq_span_str(worker)};
    world_step(w, now_ms, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &w->s[s]});
}

static inline struct broker_session *world_session_of(void *ctx, uint64_t durable_id)
{
    struct world *w = ctx;

    for (int s = 0; s < WORLD_SESSIONS; s++)
        if (w->s[s].open && w->s[s].durable_id == durable_id)
            return &w->s[s];
    return NULL;
}

static inline int world_no_host(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment,
                                char text[RESTORE_TEXT_MAX])
{
    (void)ctx, (void)bytes, (void)segment;
    snprintf(text, RESTORE_TEXT_MAX, "op %u", op);
    return TQ_EINVAL;
}

/* The log's records up to `count`, into a world with nothing in it. */
static inline struct broker_restore *world_read(struct world *w, const struct world_log *log, size_t count)
{
    struct broker_restore *r = broker_restore_begin(w->b, world_no_host, NULL);
    char text[RESTORE_TEXT_MAX];

    assert_non_null(r);
    for (size_t i = log->first; i < count; i++) {
        const struct world_record *rec = &log->list[i];

        if (broker_restore_ops(r, tq_span(rec->bytes, rec->len), rec->segment, text) != 0)
            fail_msg("record %zu: %s", i, text);
    }
    return r;
}

static inline void world_find_queues(struct world *w)
{
    for (int i = 0; i < WORLD_QUEUES; i++)
        w->q[i] = broker_find(w->b, tq_span_str(world_names[i]));
}

/* A new world out of `old`'s log. Its sessions that have a durable id are there again, silent. */
static inline struct world *world_restore(const struct world *old, const struct world_log *log,
                                          uint64_t now_ms, bool was_closed)
{
    struct world *w = world_new(&old->b->limits, old->b->less);
    struct broker_restore *r = world_read(w, log, log->count);
    char text[RESTORE_TEXT_MAX];

    assert_true(broker_restore_now_ms(r) <= now_ms);
    for (int s = 0; s < WORLD_SESSIONS; s++) {
        if (!old->s[s].open || old->s[s].durable_id == 0)
            continue;
        w->s[s] = (struct broker_session){
            .native = true, .durable_id = old->s[s].durable_id, .worker = old->s[s].worker};
        for (int i = 0; i < 2; i++) /* unchecked: there are raw tasks */
            assert_int_equal(
                broker_step(w->b, now_ms,
                            &(struct broker_event){.kind = i == 0 ? BROKER_SESSION_OPEN : BROKER_DETACH,
                                                   .session = &w->s[s]},
                            &w->fx),
                0);
    }
    w->first_place = (int64_t)r->time.next_place;
    w->first_id = r->time.next_id;
    w->was_closed = was_closed;
    if (was_closed)
        broker_restore_was_closed(r);
    if (broker_restore_finish(r, now_ms, world_session_of, w, text) != 0)
        fail_msg("finish: %s", text);
    world_find_queues(w);
    world_check(w);
    return w;
}

/* ---- a crash, done to a broker that lives on ---- */

static inline bool world_is_unrecorded(const struct world *w, uint32_t slot)
{
    return (journal_lead(w->b, slot)->home & LEAD_MEMORY) != 0;
}

/* One that no journal knows has never been. */
static inline void world_vanish(struct world *w, uint32_t slot)
{
    struct broker_task *t = broker_task_at(w->b->slab, slot);
    enum broker_task_state state = broker_task_state(t);
    struct broker_queue *q = state != BROKER_TASK_KEPT ? broker_task_queue(w->b, t) : NULL;

    assert_false(broker_task_is_purged(w->b, slot));
    if (state == BROKER_TASK_READY)
        assert_true(broker_queue_unlink(w->b, q, &slot));
    else if (state == BROKER_TASK_DELAYED)
        broker_queue_undelay(w->b, q, slot);
    else if (state == BROKER_TASK_LEASED)
        (void)broker_lease_end(w->b, broker_lease_of(w->b, slot));
    if (q != NULL && q->unfinished > 0)
        q->unfinished--;
    broker_task_end(w->b, slot);
}

static inline void world_vanish_all(struct world *w)
{
    uint64_t id, from = 1;

    do {
        unsigned budget = UINT32_MAX;
        uint64_t resume;

        id = ids_walk(w->b->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        if (id != 0 && world_is_unrecorded(w, ids_find(w->b->ids, id)))
            world_vanish(w, ids_find(w->b->ids, id));
    } while (from != 0);
}

struct world_lease {
    struct broker_lease *l;
    uint64_t since_ms;
    int64_t place;
};

static inline int world_oldest_first(const void *a, const void *b)
{
    const struct world_lease *x = a, *y = b;

    if (x->since_ms != y->since_ms)
        return x->since_ms < y->since_ms ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* Those of sessions that come back, or of the others. */
static inline size_t world_leases(struct world *w, bool durable, struct world_lease out[WORLD_LEASES])
{
    struct broker_lease *l;
    size_t n = 0;

    for (int s = 0; s < WORLD_SESSIONS; s++) {
        struct broker_lease *lists[] = {w->s[s].held, w->s[s].native ? NULL : w->s[s].held_explicit};

        for (int i = 0; i < 2 && (w->s[s].durable_id != 0) == durable; i++)
            DL_FOREACH(lists[i], l)
            {
                assert_true(n < WORLD_LEASES);
                out[n++] = (struct world_lease){
                    .l = l, .since_ms = l->since_ms, .place = journal_place(w->b, l->slot)};
            }
    }
    qsort(out, n, sizeof(out[0]), world_oldest_first);
    return n;
}

static inline void world_return_lost(struct world *w, bool was_closed)
{
    struct world_lease leases[WORLD_LEASES];

    for (size_t n = world_leases(w, false, leases); n > 0; n--) {
        struct broker_lease *l = leases[n - 1].l;

        l->session->worker = tq_span("", 0); /* its name has gone with it */
        l->delivered = !was_closed;          /* nobody knows */
        broker_lease_return(w->b, l, false);
    }
}

/* A session's leases stand in the order of their hand-outs, also those that it had got back. */
static inline void world_order_leases(struct world *w, const struct world *restored)
{
    struct world_lease leases[WORLD_LEASES];
    size_t n = world_leases(w, true, leases);

    for (size_t i = 0; i < n; i++) {
        struct broker_lease *l = leases[i].l;
        uint64_t at_ms = l->deadline.at_ms;

        DL_DELETE(l->session->held, l);
        DL_APPEND(l->session->held, l);
        assert_true(tq_deadline_is_set(&l->deadline)); /* it waits out its grace */
        if (l->limit_ms != UINT64_MAX) {               /* what an earlier restart gave it is in no record */
            const struct broker_queue_conf *c = broker_queue_conf(l->queue);
            uint64_t least = w->b->now_ms + (c->lease_ms > c->grace_ms ? c->lease_ms : c->grace_ms);
            uint64_t limit_ms = broker_lease_of(restored->b, ids_find(restored->b->ids, l->id))->limit_ms;

            assert_true(limit_ms == least || (limit_ms > least && limit_ms <= l->limit_ms));
            l->limit_ms = limit_ms;
            broker_lease_sync(w->b, l);
            at_ms = l->deadline.at_ms;
        }
        tq_deadline_clear(&w->deadlines, &l->deadline);
        l->deadline.seq = TQ_DEADLINE_RANK_MAX - w->b->leases.granted++;
        assert_int_equal(tq_deadline_set_ranked(&w->deadlines, &l->deadline, at_ms), 0);
    }
}

struct world_kept {
    uint32_t slot;
    uint64_t ended_ms, id;
};

static inline int world_ended_first(const void *a, const void *b)
{
    const struct world_kept *x = a, *y = b;

    if (x->ended_ms != y->ended_ms)
        return x->ended_ms < y->ended_ms ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Of results that ended in the same millisecond, any may give way first. */
static inline void world_order_kept(struct world *w)
{
    struct world_kept kept[WORLD_LEASES];
    size_t n = 0;

    while (w->b->kept_first != SLAB_NONE) {
        struct broker_task *t = broker_task_at(w->b->slab, w->b->kept_first);

        assert_true(n < WORLD_LEASES);
        kept[n++] = (struct world_kept){
            .slot = w->b->kept_first, .ended_ms = broker_task_extra(t)->ended_ms, .id = broker_task_id(t)};
        broker_kept_leave(w->b, w->b->kept_first);
    }
    qsort(kept, n, sizeof(kept[0]), world_ended_first);
    for (size_t i = 0; i < n; i++)
        broker_kept_enter(w->b, kept[i].slot);
}

/* Freed leases of tasks that were handed out since cannot be resumed, and are not remembered. */
static inline void world_forget_stale(struct world *w, struct broker_session *s)
{
    struct broker_lease *l, *next;

    DL_FOREACH_SAFE(s->freed, l, next)
    {
        uint32_t slot = ids_find(w->b->ids, l->id);
        const struct broker_task *t = slot != SLAB_NONE ? broker_task_at(w->b->slab, slot) : NULL;

        if (t == NULL || broker_task_state(t) != BROKER_TASK_READY || t->epoch != l->epoch ||
            broker_task_is_purged(w->b, slot))
            broker_lease_forget(w->b, l);
    }
}

/* No id is given again. */
static inline void world_skip_ids(struct world *w, const struct world *restored)
{
    uint64_t skip = restored->was_closed ? 0 : JOURNAL_ID_SKIP;

    for (uint32_t i = 0; i < w->b->queue_cap; i++)
        if (w->b->queues[i] != NULL && w->b->queues[i]->conf.durability == BROKER_DURABILITY_MEMORY)
            skip = JOURNAL_ID_SKIP;
    assert_int_equal(ids_skip(w->b->ids, restored->first_id + skip), 0);
}

static inline void world_queue_by_hand(struct world *w, struct broker_queue *q)
{
    uint64_t there = q->ready + q->delayed + q->leased;

    if (q->conf.durability == BROKER_DURABILITY_MEMORY) {
        q->unfinished = there;
        q->stats = (struct broker_queue_stats){.body_bytes = q->stats.body_bytes};
    }
    assert_int_equal(broker_queue_watch_idle(w->b, q), 0);
}

static inline struct broker_queue *world_by_serial(const struct broker *b, uint32_t serial)
{
    for (uint32_t i = 0; i < b->queue_cap; i++)
        if (b->queues[i] != NULL && b->queues[i]->serial == serial)
            return b->queues[i];
    fail_msg("queue %u has gone", serial);
    return NULL;
}

/* What was never recorded took numbers, and was counted, and nobody knows. */
static inline void world_forget_memory(struct world *w, const struct world *restored)
{
    struct broker *b = w->b;
    struct broker_stats was = b->stats;

    b->stats = restored->b->stats;
    b->stats.tasks = was.tasks;
    b->stats.delayed = was.delayed;
    b->stats.leased = was.leased;
    b->stats.kept = was.kept;
    b->stats.body_bytes = was.body_bytes;
    for (uint32_t i = 0; i < b->queue_cap; i++)
        if (b->queues[i] != NULL) {
            uint64_t body_bytes = b->queues[i]->stats.body_bytes;

            b->queues[i]->stats = world_by_serial(restored->b, b->queues[i]->serial)->stats;
            b->queues[i]->stats.body_bytes = body_bytes;
        }
}

/* Counters of what changes nothing else go with what is written next. */
static inline void world_forget_small(struct world *w, const struct world *restored)
{
    struct broker *b = w->b;

    assert_true(b->stats.stale >= restored->b->stats.stale && b->stats.known >= restored->b->stats.known);
    b->stats.stale = restored->b->stats.stale;
    b->stats.known = restored->b->stats.known;
    for (uint32_t i = 0; i < b->queue_cap; i++)
        if (b->queues[i] != NULL) {
            uint64_t stale = world_by_serial(restored->b, b->queues[i]->serial)->stats.stale;

            assert_true(b->queues[i]->stats.stale >= stale);
            b->queues[i]->stats.stale = stale;
        }
}

/* All that a crash and a restart at now_ms change, as it did to `restored`. */
static inline void world_crash_by_hand(struct world *w, const struct world *restored, uint64_t now_ms)
{
    struct broker *b = w->b;
    struct broker_queue *q, *next;

    b->now_ms = now_ms;
    for (int s = 0; s < WORLD_SESSIONS; s++)
        while (w->s[s].waits != NULL)
            broker_wait_drop(b, w->s[s].waits);
    world_vanish_all(w);
    world_skip_ids(w, restored);
    b->journal->next_place = restored->first_place;
    HASH_ITER(hh, b->by_name, q, next)
    world_queue_by_hand(w, q);
    for (int s = 0; s < WORLD_SESSIONS; s++)
        if (w->s[s].open && w->s[s].durable_id != 0) {
            world_forget_stale(w, &w->s[s]);
            broker_session_detach(b, &w->s[s], false);
        }
    world_order_leases(w, restored);
    world_order_kept(w);
    world_return_lost(w, restored->was_closed);
    for (int s = 0; s < WORLD_SESSIONS; s++)
        if (w->s[s].open && w->s[s].durable_id == 0)
            (void)broker_step(b, now_ms,
                              &(struct broker_event){.kind = BROKER_SESSION_CLOSE,
                                                     .session = &w->s[s],
                                                     .close_mode = BROKER_CLOSE_RETURN},
                              &w->fx);
    broker_finish_step(b, &w->fx);
    assert_int_equal(w->fx.count, 0);
    world_check(w);
}

#endif
