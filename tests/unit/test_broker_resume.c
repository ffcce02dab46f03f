/* Sessions whose connection went away: what becomes of their leases, and what they get back. */
#include "tests/unit/broker_native_rig.h"

struct world {
    struct nr r;
    struct broker_queue *work; /* result -> results, grace 200 ms */
    struct broker_queue *results;
    uint64_t ids[4];
    struct nr_lease l[3]; /* session 1 holds the first three */
    struct broker_lease_name names[3];
};

static void init_conf(struct world *w, struct broker_queue_conf c)
{
    nr_init(&w->r);
    c.grace_ms = 200;
    c.max_attempts = 3;
    w->work = nr_declare(&w->r, "work", &c);
    w->results = nr_queue(&w->r, "results");
    for (int i = 0; i < 4; i++)
        w->ids[i] = nr_put(&w->r, 0, w->work, "x");
    for (int i = 0; i < 3; i++) {
        w->l[i] = nr_get(&w->r, 1, w->work, w->ids[i]);
        w->names[i] = (struct broker_lease_name){.id = w->l[i].id, .epoch = w->l[i].epoch};
    }
}

static void init(struct world *w)
{
    init_conf(w, nr_conf("results", NULL));
}

static void assert_state(struct world *w, int i, const char *state)
{
    assert_string_equal(nr_view(&w->r, w->ids[i]).state, state);
}

static void a_freed_task_is_at_once_somebody_elses(void **state)
{
    struct broker_event get;
    struct world w;

    (void)state;
    init(&w);
    nr_get(&w.r, 2, w.work, w.ids[3]);
    get = nr_event(&w.r, BROKER_GET, 2);
    get.queue = w.work;
    get.max = 1;
    get.wait_mode = BROKER_WAIT_FOREVER;
    nr_step(&w.r, &get);
    nr_detach(&w.r, 1, true);
    assert_int_equal(w.r.fx.list[0].id, w.ids[0]); /* the oldest first, as it stood */
    assert_int_equal(w.r.fx.list[0].attempt, 2);
    assert_int_equal(nr_get(&w.r, 2, w.work, w.ids[1]).attempt, 2);
    assert_int_equal(nr_stats(&w.r).returned, 3);
    nr_deinit(&w.r);
}

static void done_of_a_freed_lease_is_stale_until_it_is_resumed(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(nr_done(&w.r, w.l[i], "v"), BROKER_REPLY_STALE);
        assert_int_equal(nr_extend(&w.r, w.l[i], 5), BROKER_REPLY_STALE);
        assert_int_equal(nr_about(&w.r, BROKER_RELEASE, w.l[i]), BROKER_REPLY_STALE);
        assert_int_equal(nr_fail(&w.r, w.l[i], "v", true), BROKER_REPLY_STALE);
        assert_state(&w, i, "ready");
    }
    struct nr_lease other = nr_get(&w.r, 2, w.work, w.ids[0]);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 2);
    assert_int_equal(w.r.fx.list[0].id, w.ids[1]);
    assert_int_equal(w.r.fx.list[0].epoch, w.l[1].epoch);
    assert_int_equal(w.r.fx.list[1].id, w.ids[2]);
    assert_int_equal(nr_done(&w.r, w.l[0], "late"), BROKER_REPLY_STALE);
    assert_int_equal(nr_done(&w.r, w.l[1], "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_view(&w.r, w.ids[1]).tries, 1); /* it was the same hand-out all the time */
    assert_int_equal(nr_done(&w.r, other, "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_view(&w.r, w.ids[0]).tries, 2);
    assert_span(nr_view(&w.r, w.ids[0]).worker, "w2");
    assert_int_equal(nr_stats(&w.r).resumed, 2);
    nr_get(&w.r, 3, w.work, w.ids[3]);
    nr_get_nothing(&w.r, 3, w.work);
    nr_deinit(&w.r);
}

static void what_was_done_meanwhile_is_not_resumed(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, true);
    /* The result of the first stands under its id; the second was given back unrun by another; the third is
     * gone. */
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 2, w.work, w.ids[0]), "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_about(&w.r, BROKER_RELEASE, nr_get(&w.r, 2, w.work, w.ids[1])), BROKER_REPLY_OK);
    assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, w.ids[2]), BROKER_REPLY_OK);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(nr_done(&w.r, w.l[i], "late"), BROKER_REPLY_STALE);
    assert_state(&w, 0, "done");
    assert_state(&w, 1, "ready");
    nr_deinit(&w.r);
}

static void a_result_in_the_place_of_a_freed_task_is_not_resumed(void **state)
{
    struct broker_queue_conf c = nr_conf("results", NULL);
    struct world w;

    (void)state;
    c.ttl_ms = 50; /* ends without another hand-out */
    init_conf(&w, c);
    nr_detach(&w.r, 1, true);
    nr_pass(&w.r, 50);
    assert_int_equal(nr_view(&w.r, w.ids[0]).outcome, BROKER_OUTCOME_EXPIRED);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 0);
    assert_int_equal(broker_queue_size(w.results), 4);
    nr_deinit(&w.r);
}

static void what_is_not_named_goes_back(void **state)
{
    struct broker_lease_name names[4];
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, true);
    nr_get(&w.r, 3, w.work, w.ids[0]);
    assert_int_equal(nr_resume(&w.r, 1, &w.names[2], 1), 1);
    assert_int_equal(w.r.s[1].freed_count, 0);
    /* What was freed and not named is forgotten; a later resume does not bring it back. */
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 1);
    assert_state(&w, 1, "ready");
    assert_int_equal(nr_get(&w.r, 1, w.work, w.ids[1]).attempt, 2);
    /* Held: given back to the front in old order, attempts as they were. */
    nr_detach(&w.r, 1, false);
    names[0] = (struct broker_lease_name){.id = w.ids[3], .epoch = 1};
    names[1] = (struct broker_lease_name){.id = w.ids[2], .epoch = w.l[2].epoch + 1};
    names[2] = (struct broker_lease_name){.id = UINT64_MAX, .epoch = UINT32_MAX};
    names[3] = names[1];
    assert_int_equal(nr_resume(&w.r, 1, names, 4), 0);
    assert_int_equal(nr_get(&w.r, 2, w.work, w.ids[2]).attempt, 1);
    assert_int_equal(nr_get(&w.r, 2, w.work, w.ids[1]).attempt, 2);
    assert_int_equal(nr_get(&w.r, 2, w.work, w.ids[3]).attempt, 1);
    nr_deinit(&w.r);
}

static void a_silent_session_has_its_grace(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, false);
    assert_int_equal(w.r.fx.count, 0);
    nr_pass(&w.r, 199);
    for (int i = 0; i < 3; i++)
        assert_state(&w, i, "leased");
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 3);
    nr_pass(&w.r, 1000); /* it is heard of again: no grace runs */
    for (int i = 0; i < 3; i++)
        assert_state(&w, i, "leased");
    nr_detach(&w.r, 1, false);
    nr_pass(&w.r, 200);
    for (int i = 0; i < 3; i++)
        assert_state(&w, i, "ready");
    assert_int_equal(w.r.fx.count, 0); /* nobody is there to be told */
    assert_int_equal(nr_done(&w.r, w.l[0], "v"), BROKER_REPLY_STALE);
    /* It may come back even then. */
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(nr_done(&w.r, w.l[i], "v"), BROKER_REPLY_OK);
    nr_deinit(&w.r);
}

/* The host did not listen: the grace ends later by that time, and never before it listens again. */
static void a_grace_does_not_run_while_nobody_listens(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, false);
    nr_pass(&w.r, 150);
    broker_was_deaf(w.r.b, 0, true);
    for (int i = 0; i < 50; i++) {
        nr_pass(&w.r, 100);
        broker_was_deaf(w.r.b, 100, true);
    }
    assert_state(&w, 0, "leased");
    broker_was_deaf(w.r.b, 0, false);
    nr_pass(&w.r, 50);
    for (int i = 0; i < 3; i++)
        assert_state(&w, i, "leased");
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 3);
    nr_detach(&w.r, 1, false); /* what was before counts no more */
    nr_pass(&w.r, 199);
    assert_state(&w, 0, "leased");
    nr_pass(&w.r, 1);
    for (int i = 0; i < 3; i++)
        assert_state(&w, i, "ready");
    nr_deinit(&w.r);
}

static void a_short_deafness_adds_as_much(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, false);
    nr_pass(&w.r, 50);
    broker_was_deaf(w.r.b, 0, true);
    nr_pass(&w.r, 30);
    broker_was_deaf(w.r.b, 30, false);
    nr_pass(&w.r, 149);
    assert_state(&w, 0, "leased");
    nr_pass(&w.r, 1);
    assert_state(&w, 0, "ready");
    nr_deinit(&w.r);
}

/* Nor does the time until which it could not say that it goes on. */
static void a_lease_has_its_time_although_nobody_listens(void **state)
{
    struct broker_queue_conf c = nr_conf("results", NULL);
    struct world w;

    (void)state;
    c.lease_ms = 100;
    init_conf(&w, c);
    nr_pass(&w.r, 99);
    broker_was_deaf(w.r.b, 0, true);
    for (int i = 0; i < 10; i++) {
        nr_pass(&w.r, 100);
        broker_was_deaf(w.r.b, 100, i < 9);
    }
    assert_int_equal(nr_extend(&w.r, w.l[0], 100), BROKER_REPLY_OK);
    nr_detach(&w.r, 1, false); /* the others' time goes on as it is */
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 3);
    nr_pass(&w.r, 100);
    assert_state(&w, 0, "ready");
    assert_state(&w, 1, "leased");
    nr_pass(&w.r, 3000);
    assert_state(&w, 1, "ready");
    assert_non_null(nr_find_told(&w.r, w.l[1]));
    nr_deinit(&w.r);
}

static void time_that_is_up_cannot_be_resumed(void **state)
{
    struct broker_queue_conf c = nr_conf("results", NULL);
    struct world w;

    (void)state;
    c.lease_ms = 100;
    init_conf(&w, c);
    nr_detach(&w.r, 1, false);
    nr_pass(&w.r, 99);
    assert_state(&w, 0, "leased");
    nr_pass(&w.r, 1);
    for (int i = 0; i < 3; i++)
        assert_state(&w, i, "ready");
    assert_int_equal(w.r.fx.count, 0);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 0);
    nr_deinit(&w.r);
}

static void a_resumed_lease_has_its_time_anew(void **state)
{
    struct broker_queue_conf c = nr_conf("results", NULL);
    struct world w;

    (void)state;
    c.lease_ms = 100;
    init_conf(&w, c);
    nr_pass(&w.r, 60);
    nr_detach(&w.r, 1, true);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 3);
    nr_pass(&w.r, 99);
    assert_state(&w, 0, "leased");
    nr_pass(&w.r, 1);
    assert_non_null(nr_find_told(&w.r, w.l[0])); /* the last one that was told: the newest goes first */
    nr_deinit(&w.r);
}

static void a_detached_session_waits_for_nothing(void **state)
{
    struct broker_event get;
    struct world w;

    (void)state;
    init(&w);
    for (int i = 0; i < 5; i++) {
        get = nr_event(&w.r, BROKER_GET, 2);
        get.queue = w.results;
        get.max = 1;
        get.wait_mode = BROKER_WAIT_FOREVER;
        nr_step(&w.r, &get);
        nr_wait(&w.r, 2, w.ids[i % 3]);
    }
    assert_int_equal(nr_stats(&w.r).waiting, 10);
    nr_detach(&w.r, 2, false);
    assert_int_equal(w.r.fx.count, 0);
    assert_int_equal(nr_stats(&w.r).waiting, 0);
    assert_int_equal(nr_done(&w.r, w.l[0], "v"), BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.count, 1);
    nr_detach(&w.r, 2, true);
    assert_int_equal(nr_resume(&w.r, 2, NULL, 0), 0);
    nr_deinit(&w.r);
}

static void a_silent_session_is_not_told(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, false);
    assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, w.ids[0]), BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.count, 1);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 2);
    nr_deinit(&w.r);
}

static void a_closed_session_is_forgotten(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    nr_detach(&w.r, 1, true);
    nr_close(&w.r, 1);
    assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nr_get(&w.r, 2, w.work, w.ids[i]).attempt, i < 3 ? 2 : 1);
    nr_close(&w.r, 2);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nr_get(&w.r, 3, w.work, w.ids[i]).attempt, i < 3 ? 3 : 2);
    nr_deinit(&w.r);
}

static void a_collector_resumes_results(void **state)
{
    struct broker_lease_name name;
    struct world w;

    (void)state;
    init(&w);
    assert_int_equal(nr_done(&w.r, w.l[0], "v"), BROKER_REPLY_OK);
    struct nr_lease l = nr_get(&w.r, 4, w.results, w.ids[0]);
    name = (struct broker_lease_name){.id = l.id, .epoch = l.epoch};
    nr_detach(&w.r, 4, true);
    assert_state(&w, 0, "done");
    assert_int_equal(nr_resume(&w.r, 4, &name, 1), 1);
    nr_get_nothing(&w.r, 3, w.results);
    assert_int_equal(nr_done(&w.r, l, NULL), BROKER_REPLY_OK);
    assert_true(nr_is_gone(&w.r, w.ids[0]));
    nr_deinit(&w.r);
}

static void a_resume_never_holds_more_than_it_may(void **state)
{
    struct broker_limits limits = {.queues = 10, .held_per_session = 2};
    struct broker_lease_name names[4];
    struct nr r;

    (void)state;
    nr_init_limits(&r, &limits);
    struct broker_queue *q = nr_queue(&r, "q");
    for (int i = 0; i < 4; i++)
        nr_put(&r, 0, q, "x");
    for (int i = 0; i < 4; i++) { /* a session that takes more after each cut, and names it all at last */
        struct nr_lease l = nr_get(&r, 1, q, 0);

        names[i] = (struct broker_lease_name){.id = l.id, .epoch = l.epoch};
        if (i % 2 == 1 && i < 3)
            nr_detach(&r, 1, true);
        if (i == 1) { /* others do not take them meanwhile: put ahead of nobody */
            struct nr_lease l0 = nr_get(&r, 2, q, names[0].id), l1 = nr_get(&r, 2, q, names[1].id);

            (void)l0;
            (void)l1;
            nr_detach(&r, 2, true);
        }
    }
    nr_detach(&r, 1, true);
    assert_true(nr_resume(&r, 1, names, 4) <= 2);
    assert_true(r.s[1].held_count <= 2);
    nr_deinit(&r);
}

static void a_resume_without_memory_changes_nothing(void **state)
{
    (void)state;
    for (int free_now = 0; free_now < 2; free_now++) {
        int refused = 0;

        for (long n = 0; n < 12; n++) {
            struct broker_stats before, after;
            struct broker_event ev;
            struct world w;

            init(&w);
            nr_detach(&w.r, 1, free_now != 0);
            before = nr_stats(&w.r);
            ev = nr_event(&w.r, BROKER_RESUME, 1);
            ev.leases = w.names;
            ev.lease_count = 3;
            broker_effects_deinit(&w.r.fx); /* even room for the reply is to be found */
            tq_mem_fail_after(n, 1);
            if (nr_try(&w.r, &ev) != 0) {
                after = nr_stats(&w.r);
                before.memory_bytes = after.memory_bytes;
                assert_memory_equal(&before, &after, sizeof(before));
                assert_int_equal(nr_resume(&w.r, 1, w.names, 3), 3);
                refused++;
            }
            for (int i = 0; i < 3; i++) {
                struct broker_view v = nr_view(&w.r, w.ids[i]);
                bool is_leased = strcmp(v.state, "leased") == 0;

                assert_int_equal(nr_done(&w.r, w.l[i], "v"),
                                 is_leased ? BROKER_REPLY_OK : BROKER_REPLY_STALE);
                assert_true(is_leased || free_now);
            }
            nr_deinit(&w.r);
        }
        assert_true(refused >= 2);
    }
}

/* What is resumed leaves a tombstone in the heap, and needs a place there when it comes back. */
static void resumed_tasks_have_room_in_a_full_heap(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    struct broker_lease_name names[4];
    struct broker_queue *q;
    struct nr r;

    (void)state;
    nr_init(&r);
    c.kind = BROKER_PRIORITY;
    q = nr_declare(&r, "prio", &c);
    for (unsigned i = 0; i < 16; i++) /* as many as a heap begins with */
        nr_put(&r, 0, q, "x");
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 4; i++) {
            struct nr_lease l = nr_get(&r, 1, q, 0);

            names[i] = (struct broker_lease_name){.id = l.id, .epoch = l.epoch};
        }
        nr_detach(&r, 1, true);
        assert_int_equal(nr_resume(&r, 1, names, 4), 4);
        nr_detach(&r, 1, true);
        assert_int_equal(nr_queue_stats(&r, q).ready, 16);
        assert_int_equal(nr_resume(&r, 1, NULL, 0), 0);
    }
    nr_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_freed_task_is_at_once_somebody_elses),
        cmocka_unit_test(done_of_a_freed_lease_is_stale_until_it_is_resumed),
        cmocka_unit_test(what_was_done_meanwhile_is_not_resumed),
        cmocka_unit_test(a_result_in_the_place_of_a_freed_task_is_not_resumed),
        cmocka_unit_test(what_is_not_named_goes_back),
        cmocka_unit_test(a_silent_session_has_its_grace),
        cmocka_unit_test(a_grace_does_not_run_while_nobody_listens),
        cmocka_unit_test(a_short_deafness_adds_as_much),
        cmocka_unit_test(a_lease_has_its_time_although_nobody_listens),
        cmocka_unit_test(time_that_is_up_cannot_be_resumed),
        cmocka_unit_test(a_resumed_lease_has_its_time_anew),
        cmocka_unit_test(a_detached_session_waits_for_nothing),
        cmocka_unit_test(a_silent_session_is_not_told),
        cmocka_unit_test(a_closed_session_is_forgotten),
        cmocka_unit_test(a_collector_resumes_results),
        cmocka_unit_test(a_resume_never_holds_more_than_it_may),
        cmocka_unit_test(resumed_tasks_have_room_in_a_full_heap),
        cmocka_unit_test(a_resume_without_memory_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
