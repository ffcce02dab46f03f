/* Purge: out of the queue at once, out of memory in slices, and right for everybody meanwhile. */
#include "master/core/purge.h"

#include <time.h>

#include "tests/unit/policy_rig.h"

RIG_DEFINE_LESS

#define MILLION 1000000

static void all_that_waits_is_gone(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct rig r;
        struct broker_queue_conf c = p_conf();

        p_init(&r);
        c.kind = kinds[k];
        c.maxsize = 5;
        struct broker_queue *q = p_queue(&r, "q", &c);
        uint64_t a = p_put(&r, q, "a", NULL);
        struct held h = p_take(&r, 1, q, "a");
        uint64_t b = p_put(&r, q, "b", NULL);
        uint64_t x = p_put(&r, q, "x", NULL);
        uint64_t d = p_put(&r, q, "d", &(options){.delay_ms = 50, .ttl_ms = 90});
        p_put(&r, q, "e", &(options){.key = tq_span_str("k")});
        p_put(&r, q, "f", NULL);
        p_expect(&r, 2, p_by_id(&r, BROKER_REMOVE, 2, x, 0), BROKER_REPLY_OK); /* a tombstone */
        rig_none(&r);
        uint64_t y = p_put(&r, q, "y", NULL);
        uint64_t put = p_put_wait(&r, 3, q, "new", NULL, -1);
        uint64_t join = rig_do(&r, BROKER_JOIN, 9, q);
        uint64_t wb = p_wait(&r, 4, b, -1), wd = p_wait(&r, 5, d, -1), wa = p_wait(&r, 4, a, -1);
        rig_none(&r);

        assert_int_equal(p_purge(&r, q), 5);
        p_expect(&r, 3, put, BROKER_REPLY_OK);
        p_result(&r, 4, wb, b, BROKER_OUTCOME_PURGED);
        p_result(&r, 5, wd, d, BROKER_OUTCOME_PURGED);
        rig_none(&r);
        assert_int_equal(broker_queue_size(q), 1);
        assert_int_equal(rig_stats(&r).tasks, 2); /* `new` and the leased one */
        assert_int_equal(rig_stats(&r).delayed, 0);
        assert_int_equal(rig_stats(&r).dropped, 6);
        assert_int_equal(p_stats(&r, q).dropped, 6);
        assert_int_equal(p_stats(&r, q).unfinished, 2);
        assert_int_equal(p_next_ms(&r), NEVER); /* timers have gone with their tasks */
        p_expect(&r, 4, p_wait(&r, 4, y, -1), BROKER_REPLY_UNKNOWN);
        rig_none(&r);
        p_put(&r, q, "e2", &(options){.key = tq_span_str("k")});
        p_done(&r, 1, h, "done");
        p_result(&r, 4, wa, a, BROKER_OUTCOME_OK);
        rig_none(&r);
        assert_int_equal(p_purge(&r, q), 2);
        p_expect(&r, 9, join, BROKER_REPLY_NONE);
        rig_none(&r);
        assert_int_equal(p_purge(&r, q), 0);
        rig_none(&r);
        assert_int_equal(rig_stats(&r).tasks, 0);
        rig_deinit(&r);
    }
}

static void a_submitter_is_told_in_its_reply_queue(void **state)
{
    struct rig r;
    struct broker_view v;

    (void)state;
    p_init(&r);
    struct broker_queue *q = p_plain(&r, "q"), *mine = p_plain(&r, "mine"), *gone = p_plain(&r, "gone");
    uint64_t a = p_put(&r, q, "a", &(options){.has_result = true, .result = mine});
    p_put(&r, q, "b", &(options){.has_result = true, .result = gone});
    p_put(&r, q, "c", &(options){.has_result = true});
    uint64_t w = p_get(&r, 1, mine, 9, -1);
    broker_remove(r.b, gone, &r.fx);
    uint64_t join = rig_do(&r, BROKER_JOIN, 9, q);
    rig_none(&r);
    assert_int_equal(p_purge(&r, q), 3);
    p_expect(&r, 9, join, BROKER_REPLY_NONE);
    const struct broker_effect *e = p_expect(&r, 1, w, BROKER_REPLY_TASK);
    assert_int_equal(e->id, a);
    assert_true(broker_view_lease(r.b, e, &v));
    assert_int_equal(v.outcome, BROKER_OUTCOME_PURGED);
    assert_string_equal(v.from, "q");
    assert_null(v.payload.data);
    p_end(&r, 1, w, 1);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).tasks, 1);
    assert_int_equal(rig_stats(&r).dropped, 3);
    assert_int_equal(p_stats(&r, q).unfinished, 0);
    rig_deinit(&r);
}

/* ---- large ones: without the rig's look at everything after each step ---- */

static void quick_step(struct rig *r, const struct broker_event *ev)
{
    assert_int_equal(broker_step(r->b, r->now_ms, ev, &r->fx), 0);
}

static void fill(struct rig *r, struct broker_queue *q, int n, const options *o)
{
    for (int i = 0; i < n; i++) {
        struct broker_event ev = rig_call(r, BROKER_PUT, 0, q, 0);

        ev.payload = p_text("a body of some length, as they are");
        ev.options = o;
        quick_step(r, &ev);
        p_expect(r, 0, ev.token, BROKER_REPLY_OK);
        rig_none(r);
    }
}

static uint64_t quick_purge(struct rig *r, struct broker_queue *q, enum broker_outcome outcome)
{
    struct broker_event ev = rig_call(r, BROKER_PURGE, 0, q, 0);

    quick_step(r, &ev);
    return (uint64_t)p_expect(r, 0, ev.token, outcome)->number;
}

/* One millisecond, with one slice if there is one: how many tasks it took away. */
static uint64_t one_slice(struct rig *r)
{
    uint64_t before = rig_stats(r).tasks;
    struct tq_deadline *d;

    r->now_ms++;
    while ((d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL)
        quick_step(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
    return before - rig_stats(r).tasks;
}

static void a_million_tasks_go_in_slices(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = p_plain(&r, "q");
    uint64_t empty_bytes = rig_stats(&r).memory_bytes;
    fill(&r, q, MILLION, NULL);
    uint64_t full_bytes = rig_stats(&r).memory_bytes, bodies = rig_stats(&r).body_bytes;
    assert_true(full_bytes - empty_bytes > 50ull * MILLION);

    assert_int_equal(quick_purge(&r, q, BROKER_REPLY_OK), MILLION);
    assert_int_equal(broker_queue_size(q), 0);
    assert_int_equal(p_stats(&r, q).unfinished, 0);
    assert_int_equal(MILLION - rig_stats(&r).tasks, PURGE_SLICE);
    assert_true(rig_stats(&r).body_bytes < bodies);
    rig_none(&r);
    for (uint64_t left = MILLION - PURGE_SLICE; left > 0;) {
        uint64_t n = one_slice(&r);

        assert_true(n > 0 && n <= PURGE_SLICE); /* each millisecond some, and none too many */
        left -= n;
        assert_int_equal(rig_stats(&r).tasks, left);
        assert_true(rig_stats(&r).memory_bytes <= full_bytes);
    }
    assert_int_equal(one_slice(&r), 0);
    rig_none(&r);
    rig_check(&r);
    assert_int_equal(rig_stats(&r).body_bytes, 0);
    assert_true(rig_stats(&r).memory_bytes - empty_bytes < (full_bytes - empty_bytes) / 20);
    rig_deinit(&r);
}

static void a_priority_queue_goes_in_slices_too(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.kind = BROKER_PRIORITY;
    struct broker_queue *q = p_queue(&r, "q", &c);
    fill(&r, q, 50000, NULL);
    fill(&r, q, 3000, &(options){.delay_ms = 100000});
    struct held held[5];
    uint64_t t = p_get(&r, 1, q, 5, 0);
    for (int i = 0; i < 5; i++)
        held[i] = p_task(&r, 1, t, "a body of some length, as they are");
    p_end(&r, 1, t, 5);
    rig_none(&r);
    assert_int_equal(quick_purge(&r, q, BROKER_REPLY_OK), 52995);
    rig_none(&r);
    rig_check(&r);
    for (uint64_t n; (n = one_slice(&r)) > 0;)
        assert_true(n <= PURGE_SLICE);
    rig_check(&r);
    assert_int_equal(rig_stats(&r).tasks, 5);
    for (int i = 0; i < 5; i++)
        p_release(&r, 1, held[i]); /* there is room for them */
    rig_none(&r);
    assert_int_equal(broker_queue_size(q), 5);
    rig_deinit(&r);
}

/* A purge that is under way: q has 20,000 tasks less. */
struct mid {
    struct rig r;
    struct broker_queue *q;
    uint64_t first, keyed, delayed; /* ids of purged ones that are still there */
    struct held held[4];            /* leased before the purge, by session 1 */
};

static void mid_init(struct mid *m, const struct broker_queue_conf *c)
{
    struct rig *r = &m->r;

    p_init(r);
    m->q = p_queue(r, "q", c);
    for (int i = 0; i < 4; i++) {
        p_put(r, m->q, "held", NULL);
        m->held[i] = p_take(r, 1, m->q, "held");
    }
    fill(r, m->q, 19997, NULL);
    m->first = p_put(r, m->q, "last", NULL);
    m->keyed = p_put(r, m->q, "keyed", &(options){.key = tq_span_str("k"), .ttl_ms = 3});
    m->delayed = p_put(r, m->q, "delayed", &(options){.delay_ms = 2});
    assert_int_equal(quick_purge(r, m->q, BROKER_REPLY_OK), 20000);
    rig_none(r);
    rig_check(r);
    assert_true(rig_stats(r).tasks > 15000);
}

static void run_out(struct mid *m, uint64_t tasks)
{
    while (one_slice(&m->r) > 0)
        ;
    rig_check(&m->r);
    assert_int_equal(rig_stats(&m->r).tasks, tasks);
}

static void what_is_purged_is_not_there(void **state)
{
    struct mid m;
    struct rig *r = &m.r;
    struct broker_view v;
    uint64_t resume = 0;
    unsigned budget = 100000;

    (void)state;
    struct broker_queue_conf c = p_conf();
    mid_init(&m, &c);
    p_empty(r, m.q);
    p_expect(r, 2, p_wait(r, 2, m.first, -1), BROKER_REPLY_UNKNOWN);
    p_expect(r, 2, p_by_id(r, BROKER_REMOVE, 2, m.first, 0), BROKER_REPLY_UNKNOWN);
    p_expect(r, 2, p_by_id(r, BROKER_REMOVE, 2, m.delayed, 0), BROKER_REPLY_UNKNOWN);
    rig_none(r);
    assert_false(broker_view_task(r->b, m.first, &v));
    for (uint64_t from = 1; broker_view_next(r->b, from, &budget, &v, &resume); from = v.id + 1)
        assert_string_equal(v.state, "leased");
    /* The key is free for another task, which keeps it. */
    uint64_t id = p_put(r, m.q, "keyed too", &(options){.key = tq_span_str("k")});
    assert_int_not_equal(id, m.keyed);
    rig_pass(r, 1);
    rig_pass(r, 2); /* timers of purged tasks come due: nothing comes of it */
    p_put(r, m.q, "new", NULL);
    assert_int_equal(p_expect(r, 0, p_put_wait(r, 0, m.q, "no", &(options){.key = tq_span_str("k")}, 0),
                              BROKER_REPLY_KNOWN)
                         ->id,
                     id);
    rig_none(r);
    p_take(r, 2, m.q, "keyed too");
    p_take(r, 2, m.q, "new");
    p_empty(r, m.q);
    run_out(&m, 6);
    assert_int_equal(rig_stats(r).expired, 0);
    rig_deinit(r);
}

/* It was in somebody's hands when the purge came. */
static void what_was_leased_survives(void **state)
{
    struct mid m;
    struct rig *r = &m.r;

    (void)state;
    struct broker_queue_conf c = p_conf();
    c.max_attempts = 9;
    c.retry_ms = 1;
    mid_init(&m, &c);
    uint64_t w0 = p_wait(r, 2, m.held[0].id, -1);
    p_release(r, 1, m.held[0]);
    rig_none(r);
    m.held[0] = p_take(r, 2, m.q, "held"); /* and is handed out while the purge runs */
    p_fail(r, 1, m.held[1], false);        /* is retried: delayed */
    rig_none(r);
    p_empty(r, m.q);
    assert_int_equal(p_stats(r, m.q).delayed, 1);
    p_done(r, 1, m.held[2], NULL);
    rig_none(r);
    p_put(r, m.q, "new", NULL);
    p_release(r, 3, p_take(r, 3, m.q, "new")); /* put after the purge */
    rig_none(r);
    p_take(r, 3, m.q, "new");
    rig_pass(r, 1);
    assert_int_equal(rig_stats(r).tasks > 6000, 1); /* it still runs */
    p_release(r, 2, m.held[0]);
    rig_none(r);
    p_take(r, 2, m.q, "held");
    assert_int_equal(p_take(r, 2, m.q, "held").id, m.held[1].id);
    run_out(&m, 4);
    p_release(r, 1, m.held[3]); /* the purge is over */
    rig_none(r);
    p_take(r, 1, m.q, "held");
    assert_int_equal(p_stats(r, m.q).unfinished, 4);
    assert_int_equal(rig_stats(r).dropped, 20000);
    (void)w0;
    rig_deinit(r);
}

/* Their colour is that of tasks which are being purged: a second purge takes those that came back, no other.
 */
static void what_came_back_is_purged_by_the_next_one(void **state)
{
    struct mid m;
    struct rig *r = &m.r;

    (void)state;
    struct broker_queue_conf c = p_conf();
    mid_init(&m, &c);
    p_release(r, 1, m.held[0]);
    rig_none(r);
    p_release(r, 1, m.held[1]);
    rig_none(r);
    p_take(r, 1, m.q, "held");
    assert_int_equal(quick_purge(r, m.q, BROKER_REPLY_OK), 1);
    rig_none(r);
    p_release(r, 1, m.held[2]); /* leased at both */
    rig_none(r);
    p_take(r, 1, m.q, "held");
    p_empty(r, m.q);
    run_out(&m, 3);
    assert_int_equal(p_stats(r, m.q).unfinished, 3);
    rig_deinit(r);
}

/* Results and retried dead letters have ids from before the purge. */
static void what_comes_in_meanwhile_stays_whatever_its_id(void **state)
{
    struct mid m;
    struct rig *r = &m.r;

    (void)state;
    struct broker_queue_conf c = p_conf(), to = p_conf();
    mid_init(&m, &c);
    run_out(&m, 4);
    to.result = "q";
    struct broker_queue *work = p_queue(r, "work", &to);
    p_put(r, work, "w", NULL);
    struct held h = p_take(r, 2, work, "w");
    c.dead = "dead";
    struct broker_queue *dead = p_plain(r, "dead");
    p_reconfigure(r, m.q, &c);
    p_fail(r, 1, m.held[0], true);
    rig_none(r);
    assert_int_equal(broker_queue_size(dead), 1);
    fill(r, m.q, 10000, NULL);
    assert_int_equal(quick_purge(r, m.q, BROKER_REPLY_OK), 10000);
    rig_none(r);

    p_done(r, 2, h, "result");
    p_expect(r, 3, p_by_id(r, BROKER_RETRY, 3, m.held[0].id, 0), BROKER_REPLY_OK);
    rig_none(r);
    assert_int_equal(broker_queue_size(m.q), 2);
    assert_int_equal(p_take(r, 4, m.q, "result").id, h.id);
    h = p_take(r, 4, m.q, "held");
    assert_int_equal(h.id, m.held[0].id);
    p_release(r, 4, h);
    rig_none(r);
    p_take(r, 4, m.q, "held");
    run_out(&m, 5);
    rig_deinit(r);
}

static void the_queue_may_be_removed_meanwhile(void **state)
{
    struct mid m;
    struct rig *r = &m.r;

    (void)state;
    struct broker_queue_conf c = p_conf();
    mid_init(&m, &c);
    fill(r, m.q, 9000, NULL);
    uint64_t w = p_get(r, 3, p_plain(r, "other"), 1, -1);
    uint64_t wait = p_wait(r, 4, m.held[0].id, -1);
    broker_remove(r->b, m.q, &r->fx);
    rig_none(r);
    rig_check(r);
    m.q = p_plain(r, "q"); /* another one of that name, and its tasks are its own */
    p_put(r, m.q, "new", NULL);
    p_release(r, 1, m.held[0]);
    p_result(r, 4, wait, m.held[0].id, BROKER_OUTCOME_PURGED);
    p_done(r, 1, m.held[1], NULL);
    p_done(r, 1, m.held[2], NULL);
    rig_none(r);
    run_out(&m, 2);
    p_done(r, 1, m.held[3], NULL); /* the last of it */
    rig_none(r);
    p_take(r, 2, m.q, "new");
    assert_int_equal(rig_stats(r).queues, 2);
    (void)w;
    rig_deinit(r);
}

static void shutdown_at_once_goes_in_slices_too(void **state)
{
    struct mid m;
    struct rig *r = &m.r;

    (void)state;
    struct broker_queue_conf c = p_conf();
    mid_init(&m, &c);
    fill(r, m.q, 9000, NULL);
    uint64_t before = rig_stats(r).tasks;
    rig_expect(r, 9, rig_shutdown(r, 9, m.q, true), BROKER_REPLY_NONE);
    rig_none(r);
    assert_int_equal(broker_queue_size(m.q), 0);
    assert_true(before - rig_stats(r).tasks <= PURGE_SLICE);
    run_out(&m, 4);
    rig_deinit(r);
}

static void the_broker_may_end_meanwhile(void **state)
{
    struct mid m;

    (void)state;
    struct broker_queue_conf c = p_conf();
    mid_init(&m, &c);
    rig_deinit(&m.r);
    mid_init(&m, &c);
    broker_remove(m.r.b, m.q, &m.r.fx);
    rig_deinit(&m.r);
}

static void purges_of_a_queue_overlap_up_to_a_limit(void **state)
{
    struct mid m;
    struct rig *r = &m.r;

    (void)state;
    struct broker_queue_conf c = p_conf();
    mid_init(&m, &c);
    for (int i = 2; i <= 7; i++) {
        fill(r, m.q, 5000, NULL);
        assert_int_equal(quick_purge(r, m.q, BROKER_REPLY_OK), 5000);
        rig_none(r);
    }
    rig_check(r);
    fill(r, m.q, 10, NULL);
    struct broker_event ev = rig_call(r, BROKER_PURGE, 0, m.q, 0);
    quick_step(r, &ev);
    assert_non_null(p_expect(r, 0, ev.token, BROKER_REPLY_REFUSED)->text);
    rig_none(r);
    assert_int_equal(broker_queue_size(m.q), 10);
    p_expect(r, 2, p_wait(r, 2, m.first, 0), BROKER_REPLY_UNKNOWN);
    rig_none(r);
    for (int i = 0; i < 5; i++) /* the first one is over then */
        one_slice(r);
    rig_check(r);
    assert_int_equal(quick_purge(r, m.q, BROKER_REPLY_OK), 10);
    rig_none(r);
    run_out(&m, 4);
    rig_deinit(r);
}

static void many_purges_share_the_slices(void **state)
{
    struct rig r;
    struct broker_queue *q[20];
    uint64_t left = 20 * 4500;

    (void)state;
    p_init(&r);
    for (int i = 0; i < 20; i++) {
        char name[16];

        snprintf(name, sizeof(name), "q%d", i);
        q[i] = p_plain(&r, name);
        fill(&r, q[i], 4500, NULL);
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(quick_purge(&r, q[i], BROKER_REPLY_OK), 4500);
    left = rig_stats(&r).tasks;
    assert_int_equal(left, 20 * 500);
    for (uint64_t n; (n = one_slice(&r)) > 0; left -= n)
        assert_true(n <= PURGE_SLICE);
    assert_int_equal(left, 0);
    rig_none(&r);
    rig_check(&r);
    rig_deinit(&r);
}

/* What is dear to free counts for more. */
static void large_bodies_and_extras_make_smaller_slices(void **state)
{
    struct rig r;
    static uint8_t large[1 << 20];

    (void)state;
    p_init(&r);
    struct broker_queue *q = p_plain(&r, "q"), *keyed = p_plain(&r, "keyed");
    for (int i = 0; i < 200; i++) {
        struct broker_event ev = rig_call(&r, BROKER_PUT, 0, q, 0);

        ev.payload = (struct broker_payload){.data = large, .len = sizeof(large), .format = BROKER_MSGPACK};
        quick_step(&r, &ev);
        p_expect(&r, 0, ev.token, BROKER_REPLY_OK);
        rig_none(&r);
    }
    quick_purge(&r, q, BROKER_REPLY_OK);
    assert_true(rig_stats(&r).tasks >= 100 && rig_stats(&r).tasks < 200);
    while (one_slice(&r) > 0)
        ;
    fill(&r, keyed, 4000, &(options){.ttl_ms = 100000});
    quick_purge(&r, keyed, BROKER_REPLY_OK);
    assert_true(rig_stats(&r).tasks >= 3000 && rig_stats(&r).tasks < 4000);
    rig_none(&r);
    rig_deinit(&r);
}

static void whoever_waits_for_memory_gets_it_slice_by_slice(void **state)
{
    struct rig r;

    (void)state;
    rig_init_limits(&r, &(struct broker_limits){.queues = 9, .memory_bytes = 10000 * 130});
    p_open(&r, 0);
    p_open(&r, 1);
    struct broker_queue *q = p_plain(&r, "q"), *other = p_plain(&r, "other");
    fill(&r, q, 8750, NULL); /* seven eighths of the limit */
    static uint8_t large[700000];
    struct broker_event ev = rig_call(&r, BROKER_PUT, 1, other, -1);
    ev.payload = (struct broker_payload){.data = large, .len = sizeof(large), .format = BROKER_MSGPACK};
    quick_step(&r, &ev);
    quick_purge(&r, q, BROKER_REPLY_OK);
    rig_none(&r); /* one slice is not enough */
    assert_int_equal(one_slice(&r), 4000 - 1);
    p_expect(&r, 1, ev.token, BROKER_REPLY_OK);
    rig_none(&r);
    rig_deinit(&r);
}

/* Each allocation of a purge fails in turn; so do those of results for reply queues in a slice. */
static void without_memory_a_purge_is_refused_or_goes_on_later(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind += 2) {
        for (long n = 0;; n++) {
            struct rig r;
            struct broker_queue_conf c = p_conf();

            p_init(&r);
            c.kind = (enum broker_kind)kind;
            struct broker_queue *q = p_queue(&r, "q", &c), *mine = p_plain(&r, "mine");
            p_put(&r, q, "held", NULL);
            p_take(&r, 1, q, "held");
            p_put(&r, q, "a", NULL);
            uint64_t b = p_put(&r, q, "b", &(options){.has_result = true, .result = mine});
            uint64_t w = p_wait(&r, 2, b, -1);
            struct broker_event ev = rig_call(&r, BROKER_PURGE, 0, q, 0);
            rig_none(&r);
            tq_mem_fail_after(n, 1);
            int rv = rig_try(&r, &ev);
            tq_mem_fail_after(-1, 0);
            if (rv == 0 && r.fx.list[0].outcome == BROKER_REPLY_NO_MEMORY) {
                r.seen = 1;
                rig_none(&r);
                rv = TQ_ENOMEM;
            }
            if (rv != 0) {
                assert_int_equal(broker_queue_size(q), 2);
                assert_int_equal(rig_stats(&r).dropped, 0);
                ev.token = ++r.token;
                rig_step(&r, &ev);
            }
            assert_int_equal(p_expect(&r, 0, ev.token, BROKER_REPLY_OK)->number, 2);
            assert_int_equal(broker_queue_size(q), 0);
            rig_pass(&r, 10);
            p_result(&r, 2, w, b, BROKER_OUTCOME_PURGED);
            rig_none(&r);
            assert_int_equal(broker_queue_size(mine), 1);
            assert_int_equal(p_stats(&r, q).unfinished, 1);
            assert_int_equal(rig_stats(&r).tasks, 2);
            rig_deinit(&r);
            if (n > 30)
                break;
        }
    }
}

/* ---- 100,000 queues ---- */

static void come_due(struct rig *r)
{
    struct tq_deadline *d;

    while ((d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL)
        quick_step(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
}

/* CPU time of 1,000 rounds of everything that one queue can do; the best of five. */
static clock_t work_of_one(struct rig *r, struct broker_queue *q)
{
    clock_t best = 0;

    for (int try = 0; try < 5; try++) {
        clock_t took = clock();

        for (int i = 0; i < 1000; i++) {
            struct broker_event put = rig_call(r, BROKER_PUT, 0, q, 0),
                                get = rig_call(r, BROKER_GET, 0, q, 0);
            struct broker_queue_conf c = *broker_queue_conf(q);

            put.payload = p_text("x");
            put.options = &(options){.key = tq_span_str("k"), .ttl_ms = 5, .delay_ms = (uint64_t)(i % 3)};
            quick_step(r, &put);
            p_expect(r, 0, put.token, BROKER_REPLY_OK);
            r->now_ms += 2;
            come_due(r);
            get.max = 1;
            get.take = true;
            quick_step(r, &get);
            r->seen = r->fx.count; /* EMPTY or a task, as the rate says */
            quick_purge(r, q, BROKER_REPLY_OK);
            assert_int_equal(broker_reconfigure(r->b, r->now_ms, q, &c, &r->fx), 0);
            rig_none(r);
        }
        took = clock() - took;
        best = try == 0 || took < best ? took : best;
    }
    return best;
}

static struct broker_queue *many(struct rig *r, int n)
{
    struct broker_queue *q = NULL;
    struct broker_queue_conf c = p_conf();

    rig_init_limits(r, &(struct broker_limits){.queues = (uint32_t)n});
    p_open(r, 0);
    c.rate_per_s = 1000;
    c.expires_ms = 1000000;
    c.concurrency = 1;
    for (int i = 0; i < n; i++) {
        char name[16];

        snprintf(name, sizeof(name), "q%d", i);
        assert_int_equal(broker_declare(r->b, name, &c, &q), 0);
    }
    come_due(r); /* new queues look at the clock once; then nothing comes due for a long time */
    assert_int_equal(p_next_ms(r), r->now_ms + 1000000);
    return q;
}

/* A walk over all queues would take a hundred times as long, and more. */
static void a_hundred_thousand_queues_do_not_slow_one(void **state)
{
    struct rig r;

    (void)state;
    clock_t alone = work_of_one(&r, many(&r, 1));
    rig_deinit(&r);
    clock_t among_many = work_of_one(&r, many(&r, 100000));
    assert_true(among_many < 10 * alone);

    r.now_ms += 1000000; /* all of them expire */
    come_due(&r);
    r.now_ms += 1000000;
    come_due(&r);
    assert_int_equal(rig_stats(&r).queues, 0);
    rig_check(&r);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_waits_is_gone),
        cmocka_unit_test(a_submitter_is_told_in_its_reply_queue),
        cmocka_unit_test(a_million_tasks_go_in_slices),
        cmocka_unit_test(a_priority_queue_goes_in_slices_too),
        cmocka_unit_test(what_is_purged_is_not_there),
        cmocka_unit_test(what_was_leased_survives),
        cmocka_unit_test(what_came_back_is_purged_by_the_next_one),
        cmocka_unit_test(what_comes_in_meanwhile_stays_whatever_its_id),
        cmocka_unit_test(the_queue_may_be_removed_meanwhile),
        cmocka_unit_test(shutdown_at_once_goes_in_slices_too),
        cmocka_unit_test(the_broker_may_end_meanwhile),
        cmocka_unit_test(purges_of_a_queue_overlap_up_to_a_limit),
        cmocka_unit_test(many_purges_share_the_slices),
        cmocka_unit_test(large_bodies_and_extras_make_smaller_slices),
        cmocka_unit_test(whoever_waits_for_memory_gets_it_slice_by_slice),
        cmocka_unit_test(without_memory_a_purge_is_refused_or_goes_on_later),
        cmocka_unit_test(a_hundred_thousand_queues_do_not_slow_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
