/* Tasks and time: delays, retries, time to live. */
#include "tests/unit/policy_rig.h"

RIG_DEFINE_LESS

static void delayed_tasks_come_out_when_they_are_due(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = p_plain(&r, "q");
    p_put(&r, q, "30a", &(options){.delay_ms = 30});
    p_put(&r, q, "10", &(options){.delay_ms = 10});
    p_put(&r, q, "30b", &(options){.delay_ms = 30});
    p_put(&r, q, "20", &(options){.delay_ms = 20});
    p_put(&r, q, "now", NULL);
    assert_int_equal(rig_stats(&r).delayed, 4);
    assert_int_equal(p_stats(&r, q).delayed, 4);
    assert_int_equal(broker_queue_size(q), 1);
    p_take(&r, 1, q, "now");
    p_empty(&r, q);
    uint64_t w = p_get(&r, 1, q, 9, -1);
    rig_pass(&r, 9);
    rig_none(&r);
    rig_pass(&r, 1);
    p_served(&r, 1, w, "10");
    rig_pass(&r, 25); /* all at once, in the order of their times, equal ones in that of their puts */
    uint64_t t = p_get(&r, 1, q, 9, 0);
    p_task(&r, 1, t, "20");
    p_task(&r, 1, t, "30a");
    p_task(&r, 1, t, "30b");
    p_end(&r, 1, t, 3);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).delayed, 0);
    assert_int_equal(p_next_ms(&r), NEVER);
    rig_deinit(&r);
}

static void delayed_tasks_take_room_and_are_expected_by_join(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.maxsize = 1;
    struct broker_queue *q = p_queue(&r, "q", &c);
    p_put(&r, q, "a", &(options){.delay_ms = 5});
    p_put_fails(&r, q, NULL, BROKER_REPLY_FULL);
    uint64_t put = p_put_wait(&r, 2, q, "b", &(options){.delay_ms = 7}, -1);
    uint64_t join = rig_do(&r, BROKER_JOIN, 9, q);
    rig_none(&r);
    rig_pass(&r, 5);
    rig_none(&r);
    uint64_t t = p_get(&r, 1, q, 1, 0);
    struct held h = p_task(&r, 1, t, "a");
    p_end(&r, 1, t, 1);
    p_expect(&r, 2, put, BROKER_REPLY_OK); /* and its delay begins only now */
    rig_none(&r);
    p_done(&r, 1, h, NULL);
    rig_none(&r);
    rig_pass(&r, 6);
    p_empty(&r, q);
    rig_pass(&r, 1);
    p_done(&r, 1, p_take(&r, 1, q, "b"), NULL);
    p_expect(&r, 9, join, BROKER_REPLY_NONE);
    rig_deinit(&r);
}

static void a_delay_without_end_is_no_overflow(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = p_plain(&r, "q");
    uint64_t id = p_put(&r, q, "a", &(options){.delay_ms = UINT64_MAX, .ttl_ms = UINT64_MAX});
    uint64_t other = p_put(&r, q, "b", &(options){.delay_ms = UINT64_MAX - 5, .ttl_ms = UINT64_MAX - 2});
    rig_pass(&r, UINT64_MAX / 4);
    p_empty(&r, q);
    assert_int_equal(rig_stats(&r).delayed, 2);
    p_expect(&r, 1, p_by_id(&r, BROKER_REMOVE, 1, id, 0), BROKER_REPLY_OK);
    p_expect(&r, 1, p_by_id(&r, BROKER_REMOVE, 1, other, 0), BROKER_REPLY_OK);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).tasks, 0);
    assert_int_equal(p_next_ms(&r), NEVER);
    rig_deinit(&r);
}

/* Retries and delayed puts stand in one order. */
static void retries_and_delays_come_in_the_order_of_their_times(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.max_attempts = 9;
    struct broker_queue *q = p_queue(&r, "q", &c);
    static const uint64_t delays[] = {40, 10, 30};
    static const char *const names[] = {"40", "10", "30"};
    for (int i = 0; i < 3; i++) {
        struct broker_failure f = {.has_delay = true, .delay_ms = delays[i]};

        p_put(&r, q, names[i], NULL);
        p_lease_call(&r, BROKER_FAIL, 1, p_take(&r, 1, q, names[i]), &(struct broker_event){.failure = &f},
                     BROKER_REPLY_OK);
        rig_none(&r);
    }
    p_put(&r, q, "20", &(options){.delay_ms = 20});
    p_put(&r, q, "40 too", &(options){.delay_ms = 40});
    rig_pass(&r, 100);
    uint64_t t = p_get(&r, 1, q, 9, 0);
    assert_int_equal(p_task(&r, 1, t, "10").attempt, 2);
    assert_int_equal(p_task(&r, 1, t, "20").attempt, 1);
    p_task(&r, 1, t, "30");
    p_task(&r, 1, t, "40");
    p_task(&r, 1, t, "40 too");
    p_end(&r, 1, t, 5);
    rig_deinit(&r);
}

static void delayed_tasks_of_a_priority_queue_go_by_priority(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.kind = BROKER_PRIORITY;
    struct broker_queue *q = p_queue(&r, "q", &c);
    p_put(&r, q, "low", &(options){.priority = 5});
    p_put(&r, q, "high", &(options){.priority = -5, .delay_ms = 10});
    p_put(&r, q, "mid", &(options){.priority = 0, .delay_ms = 10});
    rig_pass(&r, 10);
    uint64_t t = p_get(&r, 1, q, 9, 0);
    p_task(&r, 1, t, "high");
    p_task(&r, 1, t, "mid");
    p_task(&r, 1, t, "low");
    p_end(&r, 1, t, 3);
    rig_deinit(&r);
}

/* ---- time to live ---- */

static void time_to_live_ends_to_the_millisecond(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct rig r;
        struct broker_queue_conf c = p_conf();

        p_init(&r);
        c.kind = kinds[k];
        c.ttl_ms = 100;
        struct broker_queue *q = p_queue(&r, "q", &c);
        p_put(&r, q, "a", NULL);
        rig_pass(&r, 99);
        p_done(&r, 1, p_take(&r, 1, q, "a"), NULL);
        rig_none(&r);
        p_put(&r, q, "b", NULL);
        p_put(&r, q, "c", &(options){.ttl_ms = 101}); /* its own, not the queue's */
        p_put(&r, q, "d", NULL);
        assert_int_equal(p_next_ms(&r), r.now_ms + 100);
        rig_pass(&r, 100);
        assert_int_equal(broker_queue_size(q), 1);
        p_take(&r, 1, q, "c");
        p_empty(&r, q);
        assert_int_equal(rig_stats(&r).expired, 2);
        assert_int_equal(p_stats(&r, q).expired, 2);
        rig_deinit(&r);
    }
}

static void nobody_gets_what_has_expired_even_before_the_timer_is_looked_at(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.ttl_ms = 100;
    struct broker_queue *q = p_queue(&r, "q", &c);
    rig_put_ok(&r, 9, q, 1); /* Python's, too */
    p_put(&r, q, "b", NULL);
    p_put(&r, q, "c", &(options){.ttl_ms = 200});
    r.now_ms += 100; /* and no BROKER_DUE */
    p_take(&r, 1, q, "c");
    p_empty(&r, q);
    assert_int_equal(rig_stats(&r).expired, 2);
    p_put(&r, q, "d", NULL);
    r.now_ms += 100;
    p_empty(&r, q);
    rig_get(&r, 9, q, -1); /* one that waits gets none either */
    rig_none(&r);
    rig_deinit(&r);
}

static void a_leased_task_lives_until_it_comes_back(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.ttl_ms = 100;
    c.max_attempts = 9;
    c.retry_ms = 0;
    struct broker_queue *q = p_queue(&r, "q", &c);
    p_put(&r, q, "a", NULL);
    struct held h = p_take(&r, 1, q, "a");
    rig_pass(&r, 100000);
    p_done(&r, 1, h, NULL); /* in time all the same */
    rig_none(&r);
    assert_int_equal(rig_stats(&r).expired, 0);
    for (int way = 0; way < 4; way++) {
        p_put(&r, q, "b", NULL);
        h = p_take(&r, 1, q, "b");
        uint64_t w = p_wait(&r, 2, h.id, -1), g = p_get(&r, 3, q, 1, -1);

        rig_pass(&r, 50);
        if (way < 2) { /* back in time, and expires in its time */
            p_release(&r, 1, h);
            h = p_task(&r, 3, g, "b");
            p_end(&r, 3, g, 1);
            rig_none(&r);
            p_release(&r, 3, h);
            rig_none(&r);
            rig_pass(&r, 49);
            rig_none(&r);
            assert_int_equal(broker_queue_size(q), 1);
            rig_pass(&r, 1);
        } else if (way == 2) {
            rig_pass(&r, 50);
            rig_none(&r);
            p_release(&r, 1, h);
        } else {
            rig_pass(&r, 50);
            rig_none(&r);
            p_fail(&r, 1, h, false);
        }
        p_result(&r, 2, w, h.id, BROKER_OUTCOME_EXPIRED);
        rig_none(&r);
        assert_int_equal(rig_stats(&r).expired, way + 1);
        if (way >= 2) {
            rig_step(&r, &(struct broker_event){.kind = BROKER_CANCEL, .session = &r.s[3], .token = g});
            rig_none(&r);
        }
    }
    rig_deinit(&r);
}

static void what_a_dead_session_held_for_too_long_expires(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.ttl_ms = 100;
    struct broker_queue *q = p_queue(&r, "q", &c);
    rig_put_ok(&r, 8, q, 1);
    rig_put_ok(&r, 8, q, 2);
    rig_get_item(&r, 9, q, 1, 1);
    rig_delivered(&r, 9);
    rig_pass(&r, 99);
    rig_get_item(&r, 10, q, 2, 1);
    rig_delivered(&r, 10);
    rig_close(&r, 10, BROKER_CLOSE_RETURN); /* in time */
    rig_get_item(&r, 10, q, 2, 2);
    rig_delivered(&r, 10);
    rig_pass(&r, 1);
    rig_close(&r, 9, BROKER_CLOSE_RETURN);
    rig_close(&r, 10, BROKER_CLOSE_RETURN);
    rig_get_outcome(&r, 11, q, BROKER_REPLY_EMPTY);
    assert_int_equal(rig_stats(&r).expired, 2);
    assert_int_equal(rig_stats(&r).tasks, 0);
    rig_deinit(&r);
}

static void a_delayed_task_may_expire_before_it_is_due(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = p_plain(&r, "q");
    uint64_t a = p_put(&r, q, "a", &(options){.delay_ms = 100, .ttl_ms = 60});
    p_put(&r, q, "b", &(options){.delay_ms = 50, .ttl_ms = 60});
    uint64_t c = p_put(&r, q, "c", &(options){.delay_ms = 60, .ttl_ms = 60});
    uint64_t wa = p_wait(&r, 1, a, -1), wc = p_wait(&r, 2, c, -1);
    rig_pass(&r, 50);
    p_take(&r, 3, q, "b");
    rig_pass(&r, 9);
    rig_none(&r);
    rig_pass(&r, 1);
    p_result(&r, 1, wa, a, BROKER_OUTCOME_EXPIRED);
    p_result(&r, 2, wc, c, BROKER_OUTCOME_EXPIRED);
    rig_none(&r);
    p_empty(&r, q);
    assert_int_equal(rig_stats(&r).delayed, 0);
    rig_deinit(&r);
}

static void an_expired_task_becomes_a_dead_letter(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();
    struct broker_view v;

    (void)state;
    p_init(&r);
    struct broker_queue *dead = p_plain(&r, "dead");
    c.dead = "dead";
    c.ttl_ms = 10;
    struct broker_queue *q = p_queue(&r, "q", &c);
    uint64_t id = p_put(&r, q, "a", NULL);
    rig_pass(&r, 10);
    assert_int_equal(broker_queue_size(dead), 1);
    assert_true(broker_view_task(r.b, id, &v));
    assert_int_equal(v.outcome, BROKER_OUTCOME_EXPIRED);
    assert_string_equal(v.from, "q");
    p_is(&v.payload, "a");
    rig_pass(&r, 100000); /* it does not expire again */
    assert_int_equal(p_take(&r, 1, dead, "a").id, id);
    assert_int_equal(rig_stats(&r).dead, 1);
    rig_deinit(&r);
}

/* Memory for the dead letter fails in every place: the task is not handed out, and is tried again. */
static void expiry_without_memory_is_tried_again(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_PRIORITY};
    bool was_parked = false;

    (void)state;
    for (int i = 0; i < 6; i++) {
        for (long n = 0;; n++) {
            struct rig r;
            struct broker_queue_conf c = p_conf();
            long fails = i / 2 == 2 ? 1000 : 1;

            p_init(&r);
            struct broker_queue *dead = p_plain(&r, "dead");
            c.dead = "dead";
            c.ttl_ms = 10;
            c.kind = kinds[i % 2];
            struct broker_queue *q = p_queue(&r, "q", &c);
            p_put(&r, q, "a", NULL);
            p_put(&r, q, "b", &(options){.ttl_ms = 5000});
            r.now_ms += 10;
            if (i / 2 == 0) { /* by its timer */
                struct tq_deadline *d = tq_deadlines_pop_due(&r.deadlines, r.now_ms);

                assert_non_null(d);
                tq_mem_fail_after(n, fails);
                rig_step(&r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
            } else { /* by a get */
                struct broker_event ev = rig_call(&r, BROKER_GET, 1, q, 0);

                ev.max = 1;
                tq_mem_fail_after(n, fails);
                rig_step(&r, &ev);
            }
            tq_mem_fail_after(-1, 0);
            bool had_memory = broker_queue_size(dead) == 1;
            /* It does not come due for ever, meanwhile. The timer of a task that the get did not come to
             * does. */
            assert_true(rig_stats(&r).delayed == 0 || p_next_ms(&r) > r.now_ms);
            was_parked |= rig_stats(&r).delayed == 1;

            for (size_t e = 0; e < r.fx.count; e++) { /* never the expired one */
                struct broker_view v;

                if (broker_view_lease(r.b, &r.fx.list[e], &v))
                    p_is(&v.payload, "b");
            }
            r.seen = r.fx.count;
            rig_none(&r);
            rig_pass(&r, 10);
            assert_int_equal(broker_queue_size(dead), 1);
            assert_int_equal(rig_stats(&r).expired, 1);
            p_take(&r, 2, dead, "a");
            rig_deinit(&r);
            if (had_memory) {
                assert_true(n > 0);
                break;
            }
        }
    }
    assert_true(was_parked);
}

static void a_put_without_memory_for_its_timer_is_refused(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct rig r;

        p_init(&r);
        struct broker_queue *q = p_plain(&r, "q");
        struct broker_event ev = rig_call(&r, BROKER_PUT, 0, q, 0);

        ev.payload = p_text("a");
        ev.options = &(options){.delay_ms = 10, .ttl_ms = 20, .key = tq_span_str("key")};
        tq_mem_fail_after(n, 1);
        int rv = rig_try(&r, &ev);
        tq_mem_fail_after(-1, 0);
        bool is_ok = rv == 0 && r.fx.list[r.seen].outcome == BROKER_REPLY_OK;

        if (rv == 0)
            r.seen++;
        rig_none(&r);
        assert_int_equal(rig_stats(&r).tasks, is_ok ? 1 : 0);
        assert_int_equal(p_next_ms(&r), is_ok ? r.now_ms + 10 : NEVER);
        rig_deinit(&r);
        if (is_ok) {
            assert_true(n > 3);
            break;
        }
    }
}

/* Not even the effect can be recorded: the node comes due again. */
static void without_memory_a_due_node_comes_again(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct rig r;
        struct broker_queue_conf c = p_conf();
        struct tq_deadline *d;
        uint64_t token = 0;

        p_init(&r);
        c.lease_ms = 50;
        struct broker_queue *q = p_queue(&r, "q", &c);
        if (way == 0) {
            p_put(&r, q, "a", NULL);
            p_take(&r, 1, q, "a");
        } else {
            token = p_get(&r, 1, q, 1, 50);
        }
        rig_none(&r);
        broker_effects_deinit(&r.fx);
        r.now_ms += 50;
        d = tq_deadlines_pop_due(&r.deadlines, r.now_ms);
        assert_non_null(d);
        tq_mem_fail_after(0, 1);
        int rv = rig_try(&r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
        tq_mem_fail_after(-1, 0);
        assert_int_equal(rv, TQ_ENOMEM);
        assert_int_equal(rig_stats(&r).leased, way == 0);
        rig_pass(&r, 9);
        rig_none(&r);
        rig_pass(&r, 1);
        p_expect(&r, 1, token, way == 0 ? BROKER_TOLD_LOST : BROKER_REPLY_EMPTY);
        rig_none(&r);
        assert_int_equal(rig_stats(&r).leased, 0);
        assert_int_equal(rig_stats(&r).returned, way == 0);
        rig_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delayed_tasks_come_out_when_they_are_due),
        cmocka_unit_test(delayed_tasks_take_room_and_are_expected_by_join),
        cmocka_unit_test(a_delay_without_end_is_no_overflow),
        cmocka_unit_test(retries_and_delays_come_in_the_order_of_their_times),
        cmocka_unit_test(delayed_tasks_of_a_priority_queue_go_by_priority),
        cmocka_unit_test(time_to_live_ends_to_the_millisecond),
        cmocka_unit_test(nobody_gets_what_has_expired_even_before_the_timer_is_looked_at),
        cmocka_unit_test(a_leased_task_lives_until_it_comes_back),
        cmocka_unit_test(what_a_dead_session_held_for_too_long_expires),
        cmocka_unit_test(a_delayed_task_may_expire_before_it_is_due),
        cmocka_unit_test(an_expired_task_becomes_a_dead_letter),
        cmocka_unit_test(expiry_without_memory_is_tried_again),
        cmocka_unit_test(without_memory_a_due_node_comes_again),
        cmocka_unit_test(a_put_without_memory_for_its_timer_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
