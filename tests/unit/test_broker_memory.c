/* The memory limit, and what happens when an allocation fails anywhere. */
#include "tests/unit/broker_rig.h"

#include <utlist.h>

#include "master/core/broker_impl.h"
#include "master/core/lease.h"
#include "master/core/queue.h"
#include "master/core/task.h"

RIG_DEFINE_LESS

#define FIFO BROKER_FIFO
#define AUTO BROKER_ACK_AUTO

/* A body that costs n bytes. */
static uint64_t put_cost(struct rig *r, int s, struct broker_queue *q, int64_t id, uint32_t cost,
                         int64_t wait_ms)
{
    return rig_put_len(r, s, q, id, id, cost - BROKER_BODY_OVERHEAD_BYTES, wait_ms);
}

static void put_cost_ok(struct rig *r, int s, struct broker_queue *q, int64_t id, uint32_t cost)
{
    rig_expect(r, s, put_cost(r, s, q, id, cost, 0), BROKER_REPLY_NONE);
    rig_none(r);
}

/* 8000 bytes: 7000 for new work. */
static void init_8000(struct rig *r)
{
    rig_init_limits(r, &(struct broker_limits){.queues = 9, .memory_bytes = 8000});
}

static void a_put_over_the_limit_finds_the_queue_full(void **state)
{
    struct rig r;

    (void)state;
    init_8000(&r);
    struct broker_queue *a = rig_queue(&r, "a", FIFO, AUTO, 0);
    struct broker_queue *b = rig_queue(&r, "b", FIFO, AUTO, 0);

    rig_expect(&r, 0, put_cost(&r, 0, a, 1, 7001, -1), BROKER_REPLY_NO_MEMORY); /* it would wait for ever */
    rig_none(&r);
    put_cost_ok(&r, 0, a, 1, 3000);
    put_cost_ok(&r, 0, b, 2, 4000);
    rig_expect(&r, 0, put_cost(&r, 0, b, 3, 200, 0), BROKER_REPLY_FULL);
    rig_none(&r);
    rig_number(&r, 0, b, BROKER_FULL, 0); /* Python's full() knows maxsize only */
    uint64_t t = put_cost(&r, 0, b, 3, 200, 40);
    rig_pass(&r, 40);
    rig_expect(&r, 0, t, BROKER_REPLY_FULL);
    rig_none(&r);

    /* Those who wait get in as memory comes free, wherever that happens, the big one not overtaken. */
    uint64_t big = put_cost(&r, 1, a, 4, 3500, -1);
    uint64_t small = put_cost(&r, 2, b, 5, 200, -1);
    uint64_t same = put_cost(&r, 3, a, 6, 200, -1);
    rig_expect(&r, 4, put_cost(&r, 4, b, 7, 150, 0), BROKER_REPLY_FULL);
    rig_none(&r);
    rig_get_item(&r, 5, a, 1, 1);
    rig_delivered(&r, 5);
    rig_none(&r);                      /* a lease still takes memory */
    uint64_t e = rig_get(&r, 5, a, 0); /* acknowledges: 3000 free, 3500 asked */
    rig_expect(&r, 5, e, BROKER_REPLY_EMPTY);
    rig_none(&r);
    uint64_t g = rig_get(&r, 5, b, 0);
    rig_expect_item(&r, 5, g, 2, 1);
    rig_none(&r);
    e = rig_do(&r, BROKER_TASK_DONE, 5, b);
    rig_expect(&r, 5, e, BROKER_REPLY_NONE);
    rig_expect(&r, 1, big, BROKER_REPLY_NONE);
    rig_expect(&r, 2, small, BROKER_REPLY_NONE);
    rig_expect(&r, 3, same, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_deinit(&r);
}

static void the_last_eighth_is_for_results(void **state)
{
    struct rig r;

    (void)state;
    init_8000(&r);
    struct broker_queue *task = rig_queue(&r, "task", FIFO, AUTO, 0);
    struct broker_queue *result = rig_queue(&r, "result", FIFO, AUTO, 0);
    struct broker_queue *more = rig_queue(&r, "more", FIFO, AUTO, 0);

    for (int i = 0; i < 7; i++)
        put_cost_ok(&r, 0, task, i, 1000);
    uint64_t w = put_cost(&r, 0, more, 50, 120, -1); /* a producer waits */
    rig_get_item(&r, 1, task, 0, 1);
    rig_get_item(&r, 2, task, 1, 1);
    rig_get_item(&r, 3, task, 2, 1);
    /* Results get in although they are bigger than the task that they end, ... */
    put_cost_ok(&r, 1, result, 100, 1500);
    assert_int_equal(rig_stats(&r).body_bytes, 7500);
    rig_expect(&r, 1, put_cost(&r, 1, result, 101, 200, 0), BROKER_REPLY_FULL); /* it holds nothing now */
    rig_none(&r);
    /* A queue's putters are served in their order even so. */
    rig_expect(&r, 2, put_cost(&r, 2, more, 51, 200, 0), BROKER_REPLY_FULL);
    rig_none(&r);
    /* ... up to the limit, which is never exceeded; then they wait, before new work. */
    rig_expect(&r, 2, put_cost(&r, 2, result, 102, 1600, 0), BROKER_REPLY_FULL);
    rig_none(&r);
    uint64_t w2 = put_cost(&r, 2, result, 102, 1600, -1);
    uint64_t w3 = put_cost(&r, 3, result, 103, 1200, 5000);
    rig_none(&r);
    uint64_t g = rig_get(&r, 4, result, 0);
    rig_expect_item(&r, 4, g, 100, 1);
    rig_none(&r);
    rig_get(&r, 4, more, 0); /* acknowledges result 100 */
    rig_expect(&r, 4, r.token, BROKER_REPLY_EMPTY);
    rig_expect(&r, 2, w2, BROKER_REPLY_NONE);
    rig_expect(&r, 3, w3, BROKER_REPLY_NONE);
    rig_expect(&r, 0, w, BROKER_REPLY_NONE); /* two tasks ended with those results */
    rig_none(&r);
    rig_deinit(&r);
}

static void parked_puts_have_a_limit_too(void **state)
{
    struct rig r;

    (void)state;
    init_8000(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 1);

    put_cost_ok(&r, 0, q, 1, 1000);
    put_cost(&r, 1, q, 2, 5000, -1);
    rig_expect(&r, 2, put_cost(&r, 2, q, 3, 3001, -1), BROKER_REPLY_NO_MEMORY);
    put_cost(&r, 3, q, 3, 3000, 10);
    rig_none(&r);
    rig_pass(&r, 10);
    r.seen++;
    rig_none(&r);
    assert_int_equal(rig_stats(&r).parked_bytes, 5000);
    rig_deinit(&r);
}

/* Who waits for memory on a queue that is then shut down, removed, cancelled or full is not waited for. */
static void waits_for_memory_end_in_every_way(void **state)
{
    struct rig r;

    (void)state;
    init_8000(&r);
    struct broker_queue *q[5];
    for (int i = 0; i < 5; i++) {
        char name[2] = {(char)('a' + i), 0};
        q[i] = rig_queue(&r, name, FIFO, AUTO, 1);
    }
    put_cost_ok(&r, 0, q[4], 1, 7000);
    uint64_t w0 = put_cost(&r, 0, q[0], 2, 900, -1), w1 = put_cost(&r, 1, q[1], 3, 900, -1);
    put_cost(&r, 2, q[2], 4, 900, -1);
    uint64_t w3 = put_cost(&r, 3, q[2], 5, 900, -1), w4 = put_cost(&r, 4, q[3], 6, 900, 77);
    rig_none(&r);
    uint64_t d = rig_shutdown(&r, 5, q[0], false);
    rig_expect(&r, 5, d, BROKER_REPLY_NONE);
    rig_expect(&r, 0, w0, BROKER_REPLY_SHUTDOWN);
    broker_remove(r.b, q[1], &r.fx);
    rig_expect(&r, 1, w1, BROKER_REPLY_SHUTDOWN);
    rig_step(&r, &(struct broker_event){.kind = BROKER_CANCEL, .session = &r.s[2]});
    rig_pass(&r, 77);
    rig_expect(&r, 4, w4, BROKER_REPLY_FULL);
    rig_none(&r);
    uint64_t w5 = put_cost(&r, 5, q[2], 7, 900, -1); /* behind w3: q[2] has room for one */
    uint64_t w6 = put_cost(&r, 6, q[3], 8, 900, -1);
    rig_get_item(&r, 7, q[4], 1, 1);
    d = rig_do(&r, BROKER_TASK_DONE, 7, q[4]);
    rig_expect(&r, 7, d, BROKER_REPLY_NONE);
    rig_expect(&r, 3, w3, BROKER_REPLY_NONE);
    rig_expect(&r, 6, w6, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_get(&r, 8, q[2], 0);
    rig_expect_item(&r, 8, r.token, 5, 1);
    rig_expect(&r, 5, w5, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_deinit(&r);
}

/* Everything that can be told of the state, as text. */
static void dump_task(struct rig *r, const char *prefix, uint32_t slot, FILE *out)
{
    struct broker_payload p;

    broker_task_payload(r->b, slot, &p);
    fprintf(out, " %s%d/%d", prefix, (int)rig_body_read(&p).id, broker_task_at(r->b->slab, slot)->attempts);
}

static void dump_queue(struct rig *r, const struct broker_queue *q, FILE *out)
{
    const struct broker_wait *const lists[] = {q->getters, q->putters, q->joiners};
    const struct broker_wait *w;

    fprintf(out, "queue %s unfinished %d shut %d:", q->name, (int)q->unfinished, q->shut_down);
    for (uint32_t slot = q->head; slot != SLAB_NONE; slot = broker_task_at(r->b->slab, slot)->link)
        dump_task(r, "", slot, out);
    for (size_t i = 0; i < q->heap.count; i++)
        dump_task(r, "h", q->heap.list[i], out);
    for (size_t i = 0; i < 3; i++)
        DL_FOREACH(lists[i], w)
        {
            fprintf(out, " wait %d of %d", w->kind, (int)(w->session - r->s));
        }
    fprintf(out, "\n");
}

static void dump_held(struct rig *r, const char *prefix, const struct broker_lease *list, FILE *out)
{
    const struct broker_lease *l;

    DL_FOREACH(list, l)
    {
        dump_task(r, prefix, l->slot, out);
        fprintf(out, "/%d", l->delivered);
    }
}

static char *dump(struct rig *r, struct broker_queue *const *queues, size_t queue_count)
{
    struct broker_stats st = rig_stats(r);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    for (size_t i = 0; i < queue_count; i++)
        dump_queue(r, queues[i], out);
    for (int i = 0; i < RIG_SESSIONS; i++) {
        fprintf(out, "session %d:", i);
        dump_held(r, "", r->s[i].held, out);
        dump_held(r, "e", r->s[i].held_explicit, out);
        fprintf(out, "\n");
    }
    fprintf(out, "puts %d gets %d acked %d returned %d tasks %d bytes %d\n", (int)st.puts, (int)st.gets,
            (int)st.acked, (int)st.returned, (int)st.tasks, (int)st.body_bytes);
    fclose(out);
    return text;
}

enum { A, P, E, PAIR_QUEUES }; /* auto fifo of 2; priority of 2; explicit, no limit */

struct line {
    enum broker_event_kind kind;
    int s, q, key;
    int64_t wait_ms;
};

/* Every kind of step, with parked calls that others wake, several of them at once. */
static const struct line script[] = {
    {BROKER_GET, 1, A, 0, 60000},
    {BROKER_GET, 2, A, 0, -1},
    {BROKER_PUT, 0, A, 1, 0},
    {BROKER_PUT, 0, A, 2, 0},
    {BROKER_PUT, 0, A, 3, 0},
    {BROKER_PUT, 0, A, 4, 0},
    {BROKER_PUT, 0, A, 5, 60000},
    {BROKER_PUT, 3, A, 6, -1},
    {BROKER_JOIN, 4, A, 0, 0},
    {BROKER_DELIVERED, 1, A, 0, 0},
    {BROKER_PUT, 1, P, 9, 0},
    {BROKER_PUT, 2, P, 8, 0},
    {BROKER_PUT, 5, P, 7, -1},
    {BROKER_PUT, 6, P, -1, 60000},
    {BROKER_GET, 7, P, 0, 0},
    {BROKER_GET, 7, P, 0, 0},
    {BROKER_PUT, 8, P, -1, 0},
    {BROKER_GET, 9, A, 0, 0},
    {BROKER_PUT, 0, E, 20, 0},
    {BROKER_PUT, 8, E, 21, 0},
    {BROKER_PUT, 8, E, 22, 0},
    {BROKER_GET, 10, E, 0, 0},
    {BROKER_GET, 10, E, 0, 0},
    {BROKER_GET, 10, E, 0, 0},
    {BROKER_GET, 11, E, 0, -1},
    {BROKER_GET, 12, E, 0, 60000},
    {BROKER_SESSION_CLOSE, 10, E, 0, 0},
    {BROKER_TASK_DONE, 11, E, 0, 0},
    {BROKER_QSIZE, 11, E, 0, 0},
    {BROKER_GET, 13, P, 0, 0},
    {BROKER_SESSION_CLOSE, 13, P, 0, 0},
    {BROKER_JOIN, 14, P, 0, 0},
    {BROKER_GET, 15, A, 0, 0},
    {BROKER_TASK_DONE, 15, A, 0, 0},
    {BROKER_SHUTDOWN, 15, P, 1, 0},
    {BROKER_SHUTDOWN, 15, A, 1, 0},
    {BROKER_TASK_DONE, 9, A, 0, 0},
    {BROKER_TASK_DONE, 9, A, 0, 0},
    {BROKER_TASK_DONE, 9, A, 0, 0},
    {BROKER_TASK_DONE, 9, A, 0, 0},
};

#define SCRIPT_LINES (sizeof(script) / sizeof(script[0]))

struct world {
    struct rig r;
    struct broker_queue *queues[PAIR_QUEUES];
};

static void world_init(struct world *w)
{
    rig_init(&w->r);
    w->queues[A] = rig_queue(&w->r, "a", FIFO, AUTO, 2);
    w->queues[P] = rig_queue(&w->r, "p", BROKER_PRIORITY, AUTO, 2);
    w->queues[E] = rig_queue(&w->r, "e", FIFO, BROKER_ACK_EXPLICIT, 0);
}

/* The line is stepped with the fail_at-th allocation failing (none: < 0). Whether it had its effect. */
static bool world_line(struct world *w, size_t i, long fail_at, long repeat)
{
    const struct line *l = &script[i];
    struct broker_event ev = rig_call(&w->r, l->kind, l->s, w->queues[l->q], l->wait_ms);
    size_t count = w->r.fx.count;
    char *before = dump(&w->r, w->queues, PAIR_QUEUES);
    char *after;
    bool done;
    int rv;

    ev.payload =
        rig_payload(rig_body_new(l->key < 0 ? RIG_NO_ORDER : l->key, (int64_t)i, i % 3 == 0 ? 600 : 0));
    ev.close_mode = BROKER_CLOSE_RETURN;
    ev.immediate = l->key != 0;
    ev.token = i;
    tq_mem_fail_after(fail_at, repeat);
    rv = broker_step(w->r.b, w->r.now_ms, &ev, &w->r.fx);
    tq_mem_fail_after(-1, 0);
    rig_check(&w->r);
    done = rv == 0 && !(w->r.fx.count > count && w->r.fx.list[count].outcome == BROKER_REPLY_NO_MEMORY);
    if (!done) {
        after = dump(&w->r, w->queues, PAIR_QUEUES);
        assert_true(rv == 0 || rv == TQ_ENOMEM);
        assert_int_equal(w->r.fx.count, rv == 0 ? count + 1 : count);
        /* That a new call came in shows in `delivered` of what its session holds, and may. */
        for (char *s = before; (s = strstr(s, "/0\n")) != NULL; s++)
            s[1] = '1';
        for (char *s = after; (s = strstr(s, "/0\n")) != NULL; s++)
            s[1] = '1';
        assert_string_equal(before, after);
        free(after);
    } else if (l->kind == BROKER_SESSION_CLOSE) {
        ev.kind = BROKER_SESSION_OPEN;
        rig_step(&w->r, &ev);
    }
    free(before);
    tq_body_unref(ev.payload.body);
    return done;
}

/* Outcomes other than NO_MEMORY, and TYPE_ERROR which becomes NO_MEMORY when its text finds no room. */
static void clear_effects(struct world *w)
{
    broker_effects_deinit(&w->r.fx);
    w->r.seen = 0;
}

/* For each line and each allocation in it: it fails, nothing has happened; the same call again leads
 * where it would have led; waiters that could not be woken for want of memory are woken by the clock. */
static void run_script(long repeat)
{
    char *reached[SCRIPT_LINES];
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < SCRIPT_LINES; i++) {
        assert_true(world_line(&w, i, -1, 0));
        rig_pass(&w.r, 20);
        clear_effects(&w);
        reached[i] = dump(&w.r, w.queues, PAIR_QUEUES);
    }
    rig_deinit(&w.r);
    for (size_t broken = 0; broken < SCRIPT_LINES; broken++) {
        bool more = true;

        for (long n = 0; more; n++) {
            unsigned long start;

            world_init(&w);
            for (size_t i = 0; i < SCRIPT_LINES; i++) {
                char *now;

                if (i == broken) {
                    start = tq_mem_count();
                    bool done = world_line(&w, i, n, repeat);
                    more = !done || (long)(tq_mem_count() - start) > n + 1; /* + the body */
                    if (done && script[i].kind == BROKER_SESSION_CLOSE)
                        more = n < 8; /* its own part cannot fail; what it wakes can */
                    if (!done)
                        assert_true(world_line(&w, i, -1, 0));
                } else {
                    assert_true(world_line(&w, i, -1, 0));
                }
                rig_pass(&w.r, 20);
                clear_effects(&w);
                now = dump(&w.r, w.queues, PAIR_QUEUES);
                assert_string_equal(now, reached[i]);
                free(now);
            }
            rig_deinit(&w.r);
            assert_true(n < 100);
        }
    }
    for (size_t i = 0; i < SCRIPT_LINES; i++)
        free(reached[i]);
}

static void one_failed_allocation_changes_nothing(void **state)
{
    (void)state;
    run_script(1);
}

static void several_failed_allocations_change_nothing(void **state)
{
    (void)state;
    run_script(3);
}

static void setting_up_may_fail_too(void **state)
{
    struct tq_deadlines dl;
    struct broker_queue_conf conf;
    struct broker_queue *q = NULL;
    struct broker *b = NULL;
    long n;

    (void)state;
    broker_queue_conf_init(&conf);
    tq_deadlines_init(&dl);
    for (n = 0; b == NULL; n++) {
        tq_mem_fail_after(n, 1);
        b = broker_new(&dl, &(struct broker_limits){.queues = 1000}, rig_less);
        tq_mem_fail_after(-1, 0);
    }
    assert_true(n > 2);
    for (int i = 0; i < 300; i++) { /* through the table's growth */
        char name[16];
        int rv = TQ_ENOMEM;

        snprintf(name, sizeof(name), "q%d", i);
        for (n = 0; rv != TQ_OK; n++) {
            tq_mem_fail_after(n, 1);
            rv = broker_declare(b, name, &conf, &q);
            tq_mem_fail_after(-1, 0);
            assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
            assert_null(broker_check(b));
            assert_int_equal(broker_find(b, tq_span_str(name)) != NULL, rv == TQ_OK);
        }
        assert_true(n > 1);
    }
    broker_free(b);
    tq_deadlines_deinit(&dl);
}

/* A due node that cannot be answered comes again. */
static void a_timeout_without_memory_comes_later(void **state)
{
    struct tq_deadline *d;
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);
    uint64_t t = rig_get(&r, 0, q, 10);

    broker_effects_deinit(&r.fx);
    r.now_ms += 10;
    d = tq_deadlines_pop_due(&r.deadlines, r.now_ms);
    assert_non_null(d);
    tq_mem_fail_after(0, 1);
    assert_int_equal(rig_try(&r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d}), TQ_ENOMEM);
    tq_mem_fail_after(-1, 0);
    rig_none(&r);
    rig_pass(&r, 10);
    rig_expect(&r, 0, t, BROKER_REPLY_EMPTY);
    rig_deinit(&r);
}

/* Fills the list of effects up to `free_count` free places. */
static void fill_effects(struct rig *r, struct broker_queue *q, size_t free_count)
{
    do {
        rig_do(r, BROKER_QSIZE, 15, q);
    } while (r->fx.cap - r->fx.count != free_count);
    r->seen = r->fx.count;
}

/* A task that stays, so that the tables are there. */
static void have_room(struct rig *r)
{
    rig_put_ok(r, 14, rig_queue(r, "other", FIFO, AUTO, 0), 99);
}

/* An item is put while session 0 is parked in get, and session 0 cannot be told. Token of the get. */
static uint64_t put_without_wake_up(struct rig *r, struct broker_queue *q)
{
    uint64_t t = rig_get(r, 0, q, -1);
    struct broker_event ev;

    fill_effects(r, q, 1);
    ev = rig_call(r, BROKER_PUT, 1, q, 0);
    ev.payload = rig_payload(rig_body_new(1, 1, 0));
    tq_mem_fail_after(1, 1); /* the task is made, the list cannot grow */
    assert_int_equal(rig_try(r, &ev), 0);
    tq_mem_fail_after(-1, 0);
    tq_body_unref(ev.payload.body);
    rig_expect(r, 1, ev.token, BROKER_REPLY_NONE);
    rig_none(r);
    assert_int_equal(broker_queue_size(q), 1);
    return t;
}

/* No room for the reply of a getter: the item stays, and the clock brings it. */
static void a_wake_up_without_memory_comes_later(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);

    have_room(&r);
    uint64_t t = put_without_wake_up(&r, q);

    rig_pass(&r, 9);
    rig_none(&r);
    rig_pass(&r, 1);
    rig_expect_item(&r, 0, t, 1, 1);
    rig_none(&r);
    assert_int_equal(tq_deadlines_next_ms(&r.deadlines), UINT64_MAX);
    rig_deinit(&r);
}

static void a_late_wake_up_is_not_overtaken(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);

    have_room(&r);
    uint64_t t = put_without_wake_up(&r, q);
    uint64_t g = rig_get(&r, 2, q, 0);

    rig_expect(&r, 2, g, BROKER_REPLY_EMPTY);
    rig_expect_item(&r, 0, t, 1, 1);
    rig_none(&r);
    t = put_without_wake_up(&r, q);
    g = rig_get(&r, 2, q, -1);
    rig_expect_item(&r, 0, t, 1, 1);
    rig_none(&r);
    uint64_t p = rig_put(&r, 3, q, 5, 0);
    rig_expect(&r, 3, p, BROKER_REPLY_NONE);
    rig_expect_item(&r, 2, g, 5, 1);
    rig_none(&r);
    rig_deinit(&r);
}

/* A queue is removed, its waiters cannot be told; then they are, or the broker ends before. */
static void a_removal_without_memory_is_told_later(void **state)
{
    (void)state;
    for (int told = 0; told < 2; told++) {
        struct rig r;

        rig_init(&r);
        struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);
        uint64_t g0 = rig_get(&r, 0, q, -1), g1 = rig_get(&r, 1, q, 9000);

        fill_effects(&r, q, 1);
        tq_mem_fail_after(0, 1);
        broker_remove(r.b, q, &r.fx);
        tq_mem_fail_after(-1, 0);
        rig_check(&r);
        rig_expect(&r, 0, g0, BROKER_REPLY_SHUTDOWN);
        rig_none(&r);
        assert_true(broker_session_parked(&r.s[1]));
        if (told) {
            rig_pass(&r, 10);
            rig_expect(&r, 1, g1, BROKER_REPLY_SHUTDOWN);
        }
        rig_deinit(&r);
    }
}

static void a_deadline_without_memory_parks_nothing(void **state)
{
    struct tq_deadline others[62] = {0}; /* the broker has two of its own */
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);
    for (size_t i = 0; i < 62; i++)
        assert_int_equal(tq_deadline_set(&r.deadlines, &others[i], UINT64_MAX), 0);
    rig_number(&r, 0, q, BROKER_QSIZE, 0);
    struct broker_event ev = rig_call(&r, BROKER_GET, 0, q, 50);
    tq_mem_fail_after(1, 1);
    assert_int_equal(rig_try(&r, &ev), 0);
    tq_mem_fail_after(-1, 0);
    rig_expect(&r, 0, ev.token, BROKER_REPLY_NO_MEMORY);
    rig_none(&r);
    assert_false(broker_session_parked(&r.s[0]));
    uint64_t t = rig_get(&r, 0, q, 50);
    rig_pass(&r, 50);
    rig_expect(&r, 0, t, BROKER_REPLY_EMPTY);
    for (size_t i = 0; i < 62; i++)
        tq_deadline_clear(&r.deadlines, &others[i]);
    rig_deinit(&r);
    broker_free(NULL);
}

/* Memory that cannot be given back is kept. */
static void a_heap_that_cannot_shrink_works_on(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, AUTO, 0);
    rig_put_ok(&r, 0, q, 0);
    rig_get_item(&r, 1, q, 0, 1); /* a first lease, so that the next ones need no memory */
    for (int i = 0; i < 33; i++)
        rig_put_ok(&r, 0, q, i);
    assert_int_equal(q->heap.cap, 64);
    tq_mem_fail_after(0, 1000);
    for (int i = 0; i < 33; i++)
        rig_get_item(&r, 1, q, i, 1);
    tq_mem_fail_after(-1, 0);
    assert_int_equal(q->heap.cap, 64);
    rig_get_outcome(&r, 1, q, BROKER_REPLY_EMPTY);
    assert_int_equal(q->heap.cap, 32);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_over_the_limit_finds_the_queue_full),
        cmocka_unit_test(the_last_eighth_is_for_results),
        cmocka_unit_test(parked_puts_have_a_limit_too),
        cmocka_unit_test(waits_for_memory_end_in_every_way),
        cmocka_unit_test(one_failed_allocation_changes_nothing),
        cmocka_unit_test(several_failed_allocations_change_nothing),
        cmocka_unit_test(setting_up_may_fail_too),
        cmocka_unit_test(a_timeout_without_memory_comes_later),
        cmocka_unit_test(a_wake_up_without_memory_comes_later),
        cmocka_unit_test(a_late_wake_up_is_not_overtaken),
        cmocka_unit_test(a_removal_without_memory_is_told_later),
        cmocka_unit_test(a_deadline_without_memory_parks_nothing),
        cmocka_unit_test(a_heap_that_cannot_shrink_works_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
