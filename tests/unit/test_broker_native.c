/* Calls of native sessions on what they lease: done, fail, extend, release by (id, epoch); and how a lease
 * ends otherwise. What is stale is refused and changes nothing. */
#include "tests/unit/broker_native_rig.h"

struct world {
    struct nr r;
    struct broker_queue *work; /* result -> results, dead -> dead, lease 100 ms, three attempts */
    struct broker_queue *results;
    struct broker_queue *dead;
};

static void init(struct world *w)
{
    struct broker_queue_conf c = nr_conf("results", "dead");

    nr_init(&w->r);
    c.lease_ms = 100;
    c.max_attempts = 3;
    c.retry_ms = 0;
    w->work = nr_declare(&w->r, "work", &c);
    w->results = nr_queue(&w->r, "results");
    w->dead = nr_queue(&w->r, "dead");
}

/* All that may be said of that lease is stale; nothing but the counters has changed. */
static void assert_stale(struct world *w, struct nr_lease l)
{
    struct broker_stats before = nr_stats(&w->r), after;
    struct broker_view v0 = {0}, v1 = {0};
    bool was_there = broker_view_task(w->r.b, l.id, &v0);

    assert_int_equal(nr_done(&w->r, l, "stale"), BROKER_REPLY_STALE);
    assert_int_equal(w->r.fx.list[0].id, l.id);
    assert_int_equal(w->r.fx.list[0].epoch, l.epoch);
    assert_int_equal(nr_fail(&w->r, l, "stale", true), BROKER_REPLY_STALE);
    assert_int_equal(nr_fail(&w->r, l, "stale", false), BROKER_REPLY_STALE);
    assert_int_equal(nr_extend(&w->r, l, 1), BROKER_REPLY_STALE);
    assert_int_equal(nr_about(&w->r, BROKER_RELEASE, l), BROKER_REPLY_STALE);
    after = nr_stats(&w->r);
    assert_int_equal(after.stale, before.stale + 5);
    before.stale = after.stale;
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(broker_view_task(w->r.b, l.id, &v1), was_there);
    assert_memory_equal(&v0, &v1, sizeof(v0));
}

static void everything_but_the_lease_itself_is_stale(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a"), b = nr_put(&w.r, 0, w.work, "b"),
             c = nr_put(&w.r, 0, w.work, "c");
    struct nr_lease l = nr_get(&w.r, 1, w.work, a), lb = nr_get(&w.r, 2, w.work, b);

    assert_stale(&w, (struct nr_lease){.s = 1, .id = a, .epoch = l.epoch + 1});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = a, .epoch = l.epoch - 1});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = a, .epoch = UINT32_MAX});
    assert_stale(&w, (struct nr_lease){.s = 2, .id = a, .epoch = l.epoch});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = b, .epoch = lb.epoch});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = c, .epoch = 0});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = c, .epoch = 1});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = 0, .epoch = 1});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = c + 1, .epoch = 1});
    assert_stale(&w, (struct nr_lease){.s = 1, .id = UINT64_MAX, .epoch = 1});
    assert_int_equal(nr_queue_stats(&w.r, w.work).stale, 35);
    assert_int_equal(nr_done(&w.r, l, "v"), BROKER_REPLY_OK);
    assert_stale(&w, l); /* twice */
    assert_payload(&(struct broker_view){.payload = nr_view(&w.r, a).payload}, "v");
    nr_deinit(&w.r);
}

static void each_hand_out_has_an_epoch_of_its_own(void **state)
{
    struct world w;
    struct nr_lease old[8], l;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a");
    for (int i = 0; i < 8; i++) {
        old[i] = l = nr_get(&w.r, 1 + i % 2, w.work, a);
        assert_int_equal(l.attempt, 1);
        assert_int_equal(nr_about(&w.r, BROKER_RELEASE, l), BROKER_REPLY_OK);
        for (int k = 0; k <= i; k++) {
            assert_true(k == 0 || old[k].epoch > old[k - 1].epoch);
            assert_stale(&w, old[k]);
        }
    }
    l = nr_get(&w.r, 1, w.work, a);
    for (int k = 0; k < 8; k++)
        assert_stale(&w, old[k]);
    assert_int_equal(nr_done(&w.r, l, "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&w.r).bounced, 8);
    nr_deinit(&w.r);
}

/* The session that did a task holds its result, under the same id: what it says once more of the task is not
 * said of the result. */
static void a_repeated_done_does_not_take_the_result(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a");
    struct nr_lease task = nr_get(&w.r, 1, w.work, a), result;
    assert_int_equal(nr_done(&w.r, task, "v"), BROKER_REPLY_OK);
    result = nr_get(&w.r, 1, w.results, a);
    assert_stale(&w, task);
    for (uint32_t epoch = 0; epoch < result.epoch; epoch++)
        assert_stale(&w, (struct nr_lease){.s = 1, .id = a, .epoch = epoch});
    assert_int_equal(nr_done(&w.r, result, NULL), BROKER_REPLY_OK);
    assert_stale(&w, result);
    nr_deinit(&w.r);
}

static void a_lease_ends_by_time_and_can_be_extended(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a"), b = nr_put(&w.r, 0, w.work, "b");
    struct nr_lease la = nr_get(&w.r, 1, w.work, a), lb = nr_get(&w.r, 1, w.work, b);
    nr_pass(&w.r, 50);
    assert_int_equal(nr_extend(&w.r, la, 0), BROKER_REPLY_OK); /* again 100 */
    assert_int_equal(nr_extend(&w.r, lb, 51), BROKER_REPLY_OK);
    nr_pass(&w.r, 50);
    assert_string_equal(nr_view(&w.r, b).state, "leased");
    assert_int_equal(w.r.fx.count, 0);
    nr_pass(&w.r, 1);
    assert_non_null(nr_find_told(&w.r, lb));
    assert_int_equal(w.r.fx.count, 1);
    assert_stale(&w, lb);
    assert_string_equal(nr_view(&w.r, b).state, "ready");
    assert_string_equal(nr_view(&w.r, a).state, "leased");
    assert_int_equal(nr_get(&w.r, 2, w.work, b).attempt, 2);
    nr_pass(&w.r, 49);
    assert_non_null(nr_find_told(&w.r, la));
    assert_int_equal(nr_stats(&w.r).returned, 2);
    /* As long as one likes. */
    la = nr_get(&w.r, 1, w.work, a);
    assert_int_equal(nr_extend(&w.r, la, UINT64_MAX), BROKER_REPLY_OK);
    nr_pass(&w.r, 10000000);
    assert_string_equal(nr_view(&w.r, a).state, "leased");
    assert_int_equal(nr_extend(&w.r, la, 1), BROKER_REPLY_OK); /* or less */
    nr_pass(&w.r, 1);
    assert_non_null(nr_find_told(&w.r, la));
    nr_deinit(&w.r);
}

/* Each goes to the front: the newest first, so that all stand as they stood. */
static void leases_that_end_together_keep_their_order(void **state)
{
    struct nr_lease l[6];
    struct world w;
    uint64_t ids[6];

    (void)state;
    init(&w);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 6 && round == 0; i++)
            ids[i] = nr_put(&w.r, 0, w.work, "x");
        for (int i = 0; i < 6; i++)
            l[i] = nr_get(&w.r, 1 + i % 2, w.work, ids[i]); /* two sessions */
        if (round == 1) {                                   /* whichever was extended last */
            nr_pass(&w.r, 10);
            for (int i = 0; i < 6; i++)
                assert_int_equal(nr_extend(&w.r, l[(i * 5 + 2) % 6], 100), BROKER_REPLY_OK);
        }
        if (round == 2) { /* one session is silent when its time is up */
            nr_pass(&w.r, 10);
            nr_detach(&w.r, 2, false);
        }
        nr_pass(&w.r, 100);
        assert_int_equal(nr_queue_stats(&w.r, w.work).ready, 6);
    }
    for (int i = 0; i < 6; i++)
        nr_get(&w.r, 3, w.work, ids[i]);
    nr_deinit(&w.r);
}

static void a_due_lease_without_memory_keeps_its_place(void **state)
{
    struct tq_deadline *due[3];
    struct broker_event ev = {.kind = BROKER_DUE};
    struct world w;
    uint64_t ids[3];

    (void)state;
    init(&w);
    for (int i = 0; i < 3; i++)
        ids[i] = nr_put(&w.r, 0, w.work, "x");
    for (int i = 0; i < 3; i++)
        nr_get(&w.r, 1, w.work, ids[i]);
    w.r.now_ms += 100;
    for (int i = 0; i < 3; i++) {
        due[i] = tq_deadlines_pop_due(&w.r.deadlines, w.r.now_ms);
        assert_non_null(due[i]);
        ev.deadline = due[i];
        broker_effects_deinit(&w.r.fx);
        tq_mem_fail_after(0, 1);
        assert_int_equal(nr_try(&w.r, &ev), TQ_ENOMEM);
    }
    nr_pass(&w.r, 1000);
    for (int i = 0; i < 3; i++)
        nr_get(&w.r, 2, w.work, ids[i]);
    nr_deinit(&w.r);
}

static void a_lease_without_a_limit_stays(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    struct broker_queue *q = nr_queue(&w.r, "patient");
    uint64_t a = nr_put(&w.r, 0, q, "a");
    struct nr_lease l = nr_get(&w.r, 1, q, a);
    nr_pass(&w.r, UINT32_MAX);
    assert_int_equal(nr_extend(&w.r, l, 10), BROKER_REPLY_OK); /* this one wants one */
    assert_int_equal(nr_extend(&w.r, l, 0), BROKER_REPLY_OK);  /* the queue's: none */
    nr_pass(&w.r, UINT32_MAX);
    assert_int_equal(nr_done(&w.r, l, NULL), BROKER_REPLY_OK);
    nr_deinit(&w.r);
}

static void what_is_released_stands_at_the_front_as_it_was(void **state)
{
    struct world w;
    struct nr_lease l[3];

    (void)state;
    init(&w);
    uint64_t ids[4];
    for (int i = 0; i < 4; i++)
        ids[i] = nr_put(&w.r, 0, w.work, "x");
    for (int i = 0; i < 3; i++)
        l[i] = nr_get(&w.r, 1, w.work, ids[i]);
    for (int i = 2; i >= 0; i--)
        assert_int_equal(nr_about(&w.r, BROKER_RELEASE, l[i]), BROKER_REPLY_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nr_get(&w.r, 2, w.work, ids[i]).attempt, 1);
    nr_deinit(&w.r);
}

static void a_done_wakes_who_waits_for_results(void **state)
{
    struct world w;
    struct broker_event get, join;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a");
    struct nr_lease l = nr_get(&w.r, 1, w.work, a);
    get = nr_event(&w.r, BROKER_GET, 2);
    get.queue = w.results;
    get.max = 10;
    get.wait_mode = BROKER_WAIT_FOREVER;
    nr_step(&w.r, &get);
    assert_int_equal(w.r.fx.count, 0);
    join = nr_event(&w.r, BROKER_JOIN, 3);
    join.queue = w.work;
    join.wait_mode = BROKER_WAIT_FOREVER;
    nr_step(&w.r, &join);
    assert_int_equal(w.r.fx.count, 0);
    assert_int_equal(nr_done(&w.r, l, "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_find(&w.r, get.token)->outcome, BROKER_REPLY_TASK);
    assert_int_equal(nr_find(&w.r, get.token)->id, a);
    assert_int_equal(nr_find(&w.r, join.token)->outcome, BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.count, 4); /* done; task and end; join */
    /* All of one request before anybody is woken. */
    uint64_t ids[3];
    for (int i = 0; i < 3; i++)
        ids[i] = nr_put(&w.r, 0, w.work, "x");
    get.token = ++w.r.token;
    nr_step(&w.r, &get);
    struct nr_lease ls[3];
    for (int i = 0; i < 3; i++)
        ls[i] = nr_get(&w.r, 1, w.work, ids[i]);
    for (int i = 0; i < 3; i++) {
        struct broker_event done = nr_event(&w.r, BROKER_DONE, 1);

        done.id = ls[i].id;
        done.epoch = ls[i].epoch;
        done.more = i < 2;
        assert_int_equal(nr_call(&w.r, &done), BROKER_REPLY_OK);
        assert_int_equal(w.r.fx.count, i < 2 ? 1 : 5);
    }
    assert_int_equal(w.r.fx.list[4].number, 3);
    nr_deinit(&w.r);
}

static void a_python_sessions_lease_is_not_a_native_ones(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a");
    struct broker_event get = nr_event(&w.r, BROKER_GET, NR_PYTHON);

    get.queue = w.work;
    assert_int_equal(nr_call(&w.r, &get), BROKER_REPLY_ITEM);
    uint32_t epoch = w.r.fx.list[0].epoch;
    assert_stale(&w, (struct nr_lease){.s = 1, .id = a, .epoch = epoch});
    /* It is not told, it cannot be. */
    assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, a), BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.count, 1);
    nr_deinit(&w.r);
}

static void seen(void *ctx, const struct broker_view *v)
{
    uint64_t **next = ctx;

    assert_string_equal(v->state, "leased");
    *(*next)++ = v->id;
}

static void lists_show_what_is_there_and_who_has_it(void **state)
{
    struct world w;
    uint64_t ids[600], leased[3], *next = leased;
    struct broker_view v;

    (void)state;
    init(&w);
    for (int i = 0; i < 600; i++)
        ids[i] = nr_put(&w.r, 0, w.work, "x");
    for (int i = 0; i < 3; i++)
        nr_get(&w.r, 1, w.work, ids[i]);
    broker_session_leases(w.r.b, &w.r.s[1], seen, &next);
    assert_ptr_equal(next, leased + 3);
    assert_memory_equal(leased, ids, sizeof(leased));
    for (int i = 10; i < 600; i += 3)
        assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, ids[i]), BROKER_REPLY_OK);
    for (unsigned each = 1; each < 1000; each = each * 7 + 1) {
        uint64_t from = 0;
        int at = 0, calls = 0;

        for (;;) {
            unsigned budget = each;
            uint64_t resume = 77;

            assert_true(++calls < 5000);
            if (broker_view_next(w.r.b, from, &budget, &v, &resume)) {
                if (at >= 10 && (at - 10) % 3 == 0)
                    at++;
                assert_int_equal(v.id, ids[at++]);
                assert_true(resume > v.id);
            } else if (resume == 0) {
                break;
            } else {
                assert_int_equal(budget, 0);
                assert_true(resume > from);
            }
            from = resume;
        }
        assert_int_equal(at, 600);
    }
    nr_deinit(&w.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_but_the_lease_itself_is_stale),
        cmocka_unit_test(each_hand_out_has_an_epoch_of_its_own),
        cmocka_unit_test(a_repeated_done_does_not_take_the_result),
        cmocka_unit_test(a_lease_ends_by_time_and_can_be_extended),
        cmocka_unit_test(leases_that_end_together_keep_their_order),
        cmocka_unit_test(a_due_lease_without_memory_keeps_its_place),
        cmocka_unit_test(a_lease_without_a_limit_stays),
        cmocka_unit_test(what_is_released_stands_at_the_front_as_it_was),
        cmocka_unit_test(a_done_wakes_who_waits_for_results),
        cmocka_unit_test(a_python_sessions_lease_is_not_a_native_ones),
        cmocka_unit_test(lists_show_what_is_there_and_who_has_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
