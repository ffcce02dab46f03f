/* Two brokers are the same: all that can be seen of them, and all that decides what they do next. Indexes,
 * slots and handles are their own; queues are named by serials. */
#ifndef TESTS_UNIT_JOURNAL_SAME_H
#define TESTS_UNIT_JOURNAL_SAME_H

#include "tests/unit/journal_world.h"

#define SAME(a, b)                                                                                           \
    do {                                                                                                     \
        if ((a) != (b))                                                                                      \
            fail_msg("%s is %lld, and %s is %lld", #a, (long long)(a), #b, (long long)(b));                  \
    } while (0)

static inline void same_span(struct tq_span a, struct tq_span b, const char *what, uint64_t id)
{
    if (!tq_span_eq(a, b))
        fail_msg("%s of %llu: '%.*s' and '%.*s'", what, (unsigned long long)id, (int)a.len,
                 (const char *)a.data, (int)b.len, (const char *)b.data);
}

static inline void same_view(const struct broker_view *a, const struct broker_view *b)
{
    SAME(a->id, b->id);
    SAME(a->of, b->of);
    SAME(a->queue != NULL, b->queue != NULL);
    if (a->queue != NULL)
        SAME(a->queue->serial, b->queue->serial);
    SAME(a->payload.data != NULL, b->payload.data != NULL);
    SAME(a->payload.format, b->payload.format);
    SAME(a->payload.item_off, b->payload.item_off);
    SAME(a->payload.item_len, b->payload.item_len);
    if (a->payload.data != NULL)
        same_span(tq_span(a->payload.data, a->payload.len), tq_span(b->payload.data, b->payload.len), "body",
                  a->id);
    same_span(a->key, b->key, "key", a->id);
    same_span(a->trace, b->trace, "trace", a->id);
    same_span(a->worker, b->worker, "worker", a->id);
    same_span(a->error, b->error, "error", a->id);
    SAME(a->priority, b->priority);
    SAME(a->epoch, b->epoch);
    SAME(a->attempt, b->attempt);
    SAME(a->put_ms, b->put_ms);
    SAME(a->due_ms, b->due_ms);
    SAME(a->expires_ms, b->expires_ms);
    SAME(a->outcome, b->outcome);
    SAME(a->tries, b->tries);
    SAME(a->started_ms, b->started_ms);
    SAME(a->ended_ms, b->ended_ms);
    SAME(a->code, b->code);
    assert_string_equal(a->state, b->state);
    assert_string_equal(a->from, b->from);
}

/* ---- tasks ---- */

static inline uint32_t same_serial(const struct broker *b, uint32_t index, uint32_t serial)
{
    const struct broker_queue *q = broker_queue_of(b, index, serial);

    return q != NULL ? q->serial : 0;
}

static inline uint64_t same_timer(const struct broker_extra *x)
{
    return x->timer != NULL ? x->timer->deadline.at_ms : UINT64_MAX;
}

static inline void same_extra(const struct broker *a, const struct broker_extra *x, const struct broker *b,
                              const struct broker_extra *y)
{
    SAME(x->of, y->of);
    SAME(x->result == TASK_POLICY, y->result == TASK_POLICY);
    SAME(x->result == TASK_NO_QUEUE, y->result == TASK_NO_QUEUE);
    SAME(same_serial(a, x->result, x->result_serial), same_serial(b, y->result, y->result_serial));
    SAME(same_serial(a, x->from, x->from_serial), same_serial(b, y->from, y->from_serial));
    SAME(x->retention_ms, y->retention_ms);
    SAME(x->max_attempts, y->max_attempts);
    SAME(x->gives_way, y->gives_way);
    if (x->timer == NULL || y->timer == NULL || x->timer->deadline.at_ms > a->now_ms ||
        y->timer->deadline.at_ms > b->now_ms) /* what is due is due, whenever that was */
        SAME(same_timer(x), same_timer(y));
}

static inline bool same_key_is_known(const struct broker *b, const struct broker_extra *x)
{
    for (uint32_t i = 0; x->key != NULL && i < b->queue_cap; i++)
        if (b->queues[i] != NULL && b->queues[i]->serial == x->key->queue_serial)
            return true;
    return false;
}

static inline void same_task(const struct broker *a, uint32_t slot_a, const struct broker *b, uint32_t slot_b)
{
    struct broker_task *t = broker_task_at(a->slab, slot_a), *u = broker_task_at(b->slab, slot_b);
    const struct broker_extra *x = broker_task_extra(t), *y = broker_task_extra(u);
    enum broker_task_state state = broker_task_state(t);
    const unsigned shown = TASK_EXTRA | TASK_EXTERNAL | TASK_PYTHON | TASK_RESULT | TASK_DEAD | TASK_NO_VALUE;
    struct broker_view v, w;

    if (state != broker_task_state(u) || t->epoch != u->epoch || t->attempts != u->attempts)
        fail_msg("task %llu: state %d, epoch %u, attempts %u; and state %d, epoch %u, attempts %u",
                 (unsigned long long)broker_task_id(t), (int)state, t->epoch, t->attempts,
                 (int)broker_task_state(u), u->epoch, u->attempts);
    broker_view_slot(a, slot_a, &v);
    broker_view_slot(b, slot_b, &w);
    same_view(&v, &w);
    SAME(state, broker_task_state(u));
    SAME(broker_task_flags(t) & shown, broker_task_flags(u) & shown);
    SAME(t->attempts, u->attempts);
    if (state == BROKER_TASK_READY || state == BROKER_TASK_DELAYED)
        SAME(journal_place(a, slot_a), journal_place(b, slot_b));
    if (x == NULL)
        return;
    same_extra(a, x, b, y);
    if (!(state != BROKER_TASK_KEPT && broker_task_is_purged(a, slot_a))) {
        SAME(same_key_is_known(a, x), same_key_is_known(b, y));
    }
}

static inline void same_tasks(const struct broker *a, const struct broker *b)
{
    uint64_t id, from = 1;

    SAME(ids_next(a->ids), ids_next(b->ids));
    do {
        unsigned budget = UINT32_MAX;
        uint64_t resume;

        id = ids_walk(a->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        if (id == 0)
            continue;
        if (ids_find(b->ids, id) == SLAB_NONE)
            fail_msg("task %llu has gone, state %d", (unsigned long long)id,
                     (int)broker_task_state(broker_task_at(a->slab, ids_find(a->ids, id))));
        same_task(a, ids_find(a->ids, id), b, ids_find(b->ids, id));
    } while (from != 0);
    SAME(ids_count(a->ids), ids_count(b->ids));
}

/* ---- queues ---- */

/* The next living one of the list from *slot on; its id, or 0. */
static inline uint64_t same_next(const struct broker *b, uint32_t *slot)
{
    while (*slot != SLAB_NONE) {
        const struct broker_task *t = broker_task_at(b->slab, *slot);

        *slot = t->link;
        if (broker_task_state(t) != BROKER_TASK_GONE)
            return broker_task_id(t);
    }
    return 0;
}

static inline void same_lists(const struct broker *a, uint32_t x, const struct broker *b, uint32_t y,
                              const char *what)
{
    uint64_t id, other;

    do {
        id = same_next(a, &x);
        other = same_next(b, &y);
        if (id != other)
            fail_msg("%s: %llu and %llu", what, (unsigned long long)id, (unsigned long long)other);
    } while (id != 0);
}

/* The order in which a heap empties, on a copy of it: ids, 0 at the end. The caller frees. */
static inline uint64_t *same_drained(const struct broker *b, const struct broker_heap *heap)
{
    struct broker_heap h = *heap;
    uint64_t *ids = calloc(h.count + 1, sizeof(*ids));
    char text[BROKER_TEXT_MAX];
    size_t n = 0;

    assert_non_null(ids);
    h.list = malloc((h.count + 1) * sizeof(*h.list));
    assert_non_null(h.list);
    if (h.count > 0)
        memcpy(h.list, heap->list, h.count * sizeof(*h.list));
    while (h.count > 0) {
        uint32_t slot;

        assert_int_equal(broker_heap_pop(b, &h, &slot, text), 0);
        if (broker_task_state(broker_task_at(b->slab, slot)) != BROKER_TASK_GONE)
            ids[n++] = broker_task_id(broker_task_at(b->slab, slot));
    }
    free(h.list);
    return ids;
}

static inline void same_heaps(const struct broker *a, const struct broker_queue *x, const struct broker *b,
                              const struct broker_queue *y)
{
    uint64_t *p = same_drained(a, &x->heap), *q = same_drained(b, &y->heap);

    for (size_t i = 0; p[i] != 0 || q[i] != 0; i++)
        SAME(p[i], q[i]);
    free(p);
    free(q);
}

static inline void same_conf(const struct broker_queue_conf *a, const struct broker_queue_conf *b)
{
    const struct broker_queue_conf x = *a, y = *b;

    SAME(x.result != NULL, y.result != NULL);
    SAME(x.dead != NULL, y.dead != NULL);
    if (x.result != NULL)
        assert_string_equal(x.result, y.result);
    if (x.dead != NULL)
        assert_string_equal(x.dead, y.dead);
    SAME(x.kind, y.kind);
    SAME(x.ack, y.ack);
    SAME(x.durability, y.durability);
    SAME(x.factory_made, y.factory_made);
    SAME(x.paused, y.paused);
    SAME(x.reject_full, y.reject_full);
    SAME(x.maxsize, y.maxsize);
    SAME(x.max_attempts, y.max_attempts);
    SAME(x.max_deliveries, y.max_deliveries);
    SAME(x.lease_ms, y.lease_ms);
    SAME(x.grace_ms, y.grace_ms);
    SAME(x.retry_ms, y.retry_ms);
    SAME(x.retry_max_ms, y.retry_max_ms);
    SAME(x.ttl_ms, y.ttl_ms);
    SAME(x.retention_ms, y.retention_ms);
    SAME(x.rate_per_s, y.rate_per_s);
    SAME(x.rate_burst, y.rate_burst);
    SAME(x.concurrency, y.concurrency);
    SAME(x.expires_ms, y.expires_ms);
}

static inline void same_queue(const struct broker *a, const struct broker_queue *x, const struct broker *b,
                              const struct broker_queue *y)
{
    struct broker_queue_stats p, q;

    assert_string_equal(x->name, y->name);
    SAME(x->serial, y->serial);
    same_conf(&x->conf, &y->conf);
    SAME(x->shut_down, y->shut_down);
    SAME(x->removed, y->removed);
    same_lists(a, x->head, b, y->head, "list");
    same_heaps(a, x, b, y);
    broker_get_queue_stats(a, x, &p);
    broker_get_queue_stats(b, y, &q);
    if (x->conf.kind == BROKER_PRIORITY)
        p.oldest_ms = q.oldest_ms; /* of whatever stands at the top of a heap with tombstones */
    if (x->removed)
        p.unfinished = q.unfinished; /* nobody can join it */
    SAME(p.puts, q.puts);
    SAME(p.unfinished, q.unfinished);
    SAME(p.dropped, q.dropped);
    SAME(p.returned, q.returned);
    SAME(p.body_bytes, q.body_bytes);
    assert_memory_equal(&p, &q, offsetof(struct broker_queue_stats, paused)); /* and the other numbers */
    SAME(x->purging, y->purging);
}

static inline void same_queues(const struct broker *a, const struct broker *b)
{
    const struct broker_queue *x = a->by_name, *y = b->by_name;
    size_t n = 0, m = 0;

    SAME(a->queue_next_serial, b->queue_next_serial);
    for (; x != NULL && y != NULL; x = x->hh.next, y = y->hh.next)
        same_queue(a, x, b, y);
    SAME(x, y);
    DL_FOREACH2(a->removed, x, removed_next)
    {
        n++;
        for (y = b->removed; y != NULL && y->serial != x->serial; y = y->removed_next)
            ;
        if (y == NULL)
            fail_msg("queue %u, which was removed, has gone", x->serial);
        else
            same_queue(a, x, b, y);
    }
    DL_FOREACH2(b->removed, y, removed_next)
    {
        m++;
    }
    SAME(n, m);
}

/* ---- sessions, and the rest ---- */

static inline void same_leases(const struct broker_lease *x, const struct broker_lease *y, bool is_freed)
{
    for (; x != NULL && y != NULL; x = x->next, y = y->next) {
        SAME(x->id, y->id);
        SAME(x->epoch, y->epoch);
        SAME(x->since_ms, y->since_ms);
        SAME(x->attempts, y->attempts);
        SAME(x->list, y->list);
        if (is_freed)
            continue;
        SAME(x->limit_ms, y->limit_ms);
        SAME(x->delivered, y->delivered);
        SAME(x->armed, y->armed);
        if (x->armed)
            SAME(x->deadline.at_ms, y->deadline.at_ms);
    }
    assert_true(x == NULL && y == NULL);
}

static inline void same_sessions(const struct world *a, const struct world *b)
{
    for (int s = 0; s < WORLD_SESSIONS; s++) {
        const struct broker_session *x = &a->s[s], *y = &b->s[s];

        SAME(x->open, y->open);
        SAME(x->native, y->native);
        SAME(x->durable_id, y->durable_id);
        SAME(x->silent, y->silent);
        SAME(x->wait_count, y->wait_count);
        same_leases(x->held, y->held, false);
        same_leases(x->freed, y->freed, x->native);
    }
}

static inline void same_stats(const struct broker *a, const struct broker *b)
{
    struct broker_stats x, y;

    broker_get_stats(a, &x);
    broker_get_stats(b, &y);
    x.memory_bytes = y.memory_bytes;
    SAME(x.tasks, y.tasks);
    SAME(x.body_bytes, y.body_bytes);
    SAME(x.kept, y.kept);
    SAME(x.returned, y.returned);
    SAME(x.dropped, y.dropped);
    assert_memory_equal(&x, &y, sizeof(x));
    SAME(a->kept_bytes, b->kept_bytes);
}

static inline void same_worlds(const struct world *a, const struct world *b)
{
    SAME(a->b->now_ms, b->b->now_ms);
    same_tasks(a->b, b->b);
    same_queues(a->b, b->b);
    same_sessions(a, b);
    same_lists(a->b, a->b->kept_first, b->b, b->b->kept_first, "kept");
    same_stats(a->b, b->b);
    SAME(a->b->journal->next_place, b->b->journal->next_place);
}

/* What both worlds told whoever asked, since they were last asked. */
static inline void same_effects(struct world *a, struct world *b)
{
    SAME(a->fx.count, b->fx.count);
    for (size_t i = 0; i < a->fx.count; i++) {
        const struct broker_effect *x = &a->fx.list[i], *y = &b->fx.list[i];

        SAME(x->session - a->s, y->session - b->s);
        SAME(x->token, y->token);
        SAME(x->outcome, y->outcome);
        SAME(x->was_parked, y->was_parked);
        SAME(x->id, y->id);
        SAME(x->epoch, y->epoch);
        SAME(x->attempt, y->attempt);
        SAME(x->number, y->number);
        SAME(x->copy != NULL, y->copy != NULL);
        if (x->copy != NULL) { /* its queue may be gone by now */
            x->copy->queue = y->copy->queue = NULL;
            same_view(x->copy, y->copy);
        }
        SAME(x->text != NULL, y->text != NULL);
        if (x->text != NULL)
            assert_string_equal(x->text, y->text);
    }
    broker_effects_clear(&a->fx);
    broker_effects_clear(&b->fx);
}

#endif
