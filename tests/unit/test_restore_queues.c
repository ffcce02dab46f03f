/* What a broker is after its ops: queues, counters and leases, by hand. */
#include "tests/unit/ops_rig.h"

#define HOUR_MS 3600000u

/* ---- leases ---- */

static void leases_wait_for_their_session(void **state)
{
    struct broker_lease_name names[] = {{2, 1}};
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q"); /* its grace is 30 s */
    ops_leased(&o, 1, 1, 1, 77, OPS_NOW - 50);
    ops_leased(&o, 2, 1, 2, 77, OPS_NOW - 90);
    ops_leased(&o, 3, 1, 3, 78, OPS_NOW - 70);
    ops_init(&r);
    r.now_ms += HOUR_MS;
    ops_session(&r, 3, 77);
    ops_session(&r, 4, 78);
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).leased, 3);
    assert_int_equal(r.s[3].held->id, 2); /* the oldest first */
    assert_int_equal(r.s[3].held->since_ms, OPS_NOW - 90);
    assert_int_equal(r.s[3].held->next->id, 1);
    nr_get_nothing(&r, 0, ops_find(&r, "q"));
    nr_pass(&r, 29999);
    assert_int_equal(nr_resume(&r, 3, names, 1), 1);
    assert_int_equal(nr_done(&r, (struct nr_lease){.s = 3, .id = 2, .epoch = 1}, "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_view(&r, 1).attempt, 1); /* not named: given back unrun */
    nr_pass(&r, 1);
    assert_int_equal(nr_stats(&r).leased, 0); /* 78 did not come */
    assert_int_equal(nr_view(&r, 3).attempt, 2);
    ops_drain(&r, "q", IDS(3, 1));
    nr_deinit(&r);
}

/* Those of sessions that are not there go back in their old order, and an attempt more; but a session that
 * ended because the master stopped in good order has attempted nothing. */
static void leases_of_nobody_go_back(void **state)
{
    (void)state;
    for (int was_closed = 0; was_closed <= 1; was_closed++) {
        struct ops o = ops_record();
        struct nr r;

        ops_plain_queue(&o, 1, "q");
        ops_ready(&o, 9, 1, 9, "behind them");
        ops_leased(&o, 1, 1, 1, 0, OPS_NOW - 60);
        ops_leased(&o, 2, 1, 2, 5, OPS_NOW - 60);
        ops_leased(&o, 3, 1, -3, 0, OPS_NOW - 60);
        ops_leased(&o, 4, 1, 4, 0, OPS_NOW - 99);
        ops_init(&r);
        ops_restore_good(&r, &o, was_closed != 0);
        assert_int_equal(nr_stats(&r).returned, 4);
        for (uint64_t id = 1; id <= 4; id++)
            assert_int_equal(nr_view(&r, id).attempt, was_closed != 0 && id != 2 ? 1 : 2);
        assert_int_equal(nr_view(&r, 9).attempt, 1);
        ops_drain(&r, "q", IDS(4, 3, 1, 2, 9));
        nr_deinit(&r);
    }
}

static void max_deliveries_count(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, "dead");
    struct ops o = ops_record();
    struct broker_view v;
    struct nr r;

    (void)state;
    c.max_deliveries = 1;
    ops_queue(&o, 1, "q", 0, 0, &c);
    ops_plain_queue(&o, 2, "dead");
    ops_leased(&o, 1, 1, 1, 0, OPS_NOW - 60);
    ops_counts(&o, 1, 1, 0);
    ops_init(&r);
    ops_restore_good(&r, &o, false);
    v = nr_view(&r, 1);
    assert_string_equal(v.state, "dead");
    assert_int_equal(v.outcome, BROKER_OUTCOME_LOST);
    assert_int_equal(v.started_ms, OPS_NOW - 60);
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "q")).unfinished, 0);
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "dead")).unfinished, 1);
    assert_int_equal(nr_stats(&r).dead, 1);
    nr_deinit(&r);
}

static void a_lease_has_its_limit(void **state)
{
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_task(&o, &(struct ops_t){.id = 1,
                                 .serial = 1,
                                 .mask = OPS_FULL,
                                 .state = BROKER_TASK_LEASED,
                                 .epoch = 4,
                                 .place = 1,
                                 .body = "x",
                                 .session = 77,
                                 .since_ms = OPS_NOW - 5,
                                 .limit_ms = OPS_NOW + 700});
    ops_init(&r);
    ops_session(&r, 3, 77);
    ops_restore(&r, &o);
    assert_int_equal(nr_resume(&r, 3, (struct broker_lease_name[]){{1, 4}}, 1), 1);
    nr_pass(&r,
            29999); /* as long as its grace at least: nobody could lengthen it while the master was down */
    assert_int_equal(nr_stats(&r).leased, 1);
    nr_pass(&r, 1);
    assert_int_equal(nr_stats(&r).leased, 0);
    nr_deinit(&r);
}

static void freed_leases_may_be_resumed(void **state)
{
    struct ops_t t = {.serial = 1,
                      .mask = OPS_FULL,
                      .state = BROKER_TASK_READY,
                      .epoch = 3,
                      .attempts = 2,
                      .body = "x",
                      .session = 77,
                      .since_ms = OPS_NOW - 80};
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    t.id = 1, t.place = -1;
    ops_task(&o, &t);
    t.id = 2, t.place = -2;
    ops_task(&o, &t);
    t.id = 3, t.place = -3, t.session = 5; /* who is not there */
    ops_task(&o, &t);
    ops_init(&r);
    ops_session(&r, 3, 77);
    ops_restore(&r, &o);
    assert_int_equal(r.s[3].freed_count, 2);
    assert_int_equal(nr_stats(&r).leased, 0);
    nr_get(&r, 0, ops_find(&r, "q"), 3);
    nr_get(&r, 0, ops_find(&r, "q"), 2);
    assert_int_equal(nr_resume(&r, 3, (struct broker_lease_name[]){{1, 3}, {2, 3}}, 2), 1);
    assert_int_equal(r.s[3].held->id, 1);
    assert_int_equal(r.s[3].held->since_ms, OPS_NOW - 80);
    assert_int_equal(nr_view(&r, 1).attempt, 2); /* as when it was handed out */
    assert_int_equal(nr_done(&r, (struct nr_lease){.s = 3, .id = 1, .epoch = 3}, "v"), BROKER_REPLY_OK);
    nr_deinit(&r);
}

/* ---- queues ---- */

static void dead_letters_know_where_they_came_from(void **state)
{
    const struct ops_x x = {.ended = OPS_NOW - 5,
                            .from = 4,
                            .outcome = BROKER_OUTCOME_FAILED,
                            .key = "k",
                            .key_queue = 4,
                            .has_result = true,
                            .result = 3,
                            .tries = 1,
                            .error = "why"};
    const struct ops_x lost = {
        .ended = OPS_NOW - 5, .from = 2, .outcome = BROKER_OUTCOME_FAILED, .has_result = true, .result = 2};
    struct ops_t t = {
        .serial = 9, .mask = OPS_FULL, .state = BROKER_TASK_READY, .flags = TASK_DEAD, .body = "x"};
    struct ops o = ops_record();
    struct broker_extra *extra;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 9, "dead");
    ops_plain_queue(&o, 4, "q");
    ops_plain_queue(&o, 3, "answers");
    ops_plain_queue(&o, 2, "gone");
    t.id = 1, t.place = 1, t.x = &x;
    ops_task(&o, &t);
    t.id = 2, t.place = 2, t.x = &lost;
    ops_task(&o, &t);
    ops_gone(&o, 2);
    ops_init(&r);
    ops_restore(&r, &o);
    assert_string_equal(nr_view(&r, 1).from, "q");
    assert_string_equal(nr_view(&r, 2).from, "");
    extra = broker_task_extra(broker_task_at(r.b->slab, ids_find(r.b->ids, 2)));
    assert_true(extra->result != TASK_POLICY && extra->result != TASK_NO_QUEUE);
    assert_null(broker_queue_of(r.b, extra->result, extra->result_serial));
    assert_int_equal(nr_by_id(&r, BROKER_RETRY, 0, 1), BROKER_REPLY_OK);
    assert_int_equal(nr_done(&r, nr_get(&r, 0, ops_find(&r, "q"), 1), "v"), BROKER_REPLY_OK);
    assert_ptr_equal(nr_view(&r, 1).queue, ops_find(&r, "answers"));
    nr_deinit(&r);
}

static void counters_go_on(void **state)
{
    struct ops o = ops_record();
    struct broker_queue_stats q;
    struct broker_stats st;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_counts(&o, 1, 7, 20);
    ops_totals(&o, 50);
    ops_ready(&o, 1, 1, 1, "12345");
    ops_init(&r);
    ops_restore(&r, &o);
    q = nr_queue_stats(&r, ops_find(&r, "q"));
    assert_int_equal(q.unfinished, 7);
    assert_int_equal(q.puts, 20);
    assert_int_equal(q.gets, 21);
    assert_int_equal(q.done, 22);
    assert_int_equal(q.failed, 23);
    assert_int_equal(q.retried, 24);
    assert_int_equal(q.returned, 25);
    assert_int_equal(q.expired, 26);
    assert_int_equal(q.dead, 27);
    assert_int_equal(q.dropped, 28);
    assert_int_equal(q.stale, 29);
    assert_int_equal(q.body_bytes, 5 + BROKER_BODY_OVERHEAD_BYTES);
    st = nr_stats(&r);
    assert_int_equal(st.puts, 50);
    assert_int_equal(st.gets, 51);
    assert_int_equal(st.acked, 52);
    assert_int_equal(st.failed, 53);
    assert_int_equal(st.retried, 54);
    assert_int_equal(st.returned, 55);
    assert_int_equal(st.bounced, 56);
    assert_int_equal(st.resumed, 57);
    assert_int_equal(st.stale, 58);
    assert_int_equal(st.expired, 59);
    assert_int_equal(st.dead, 60);
    assert_int_equal(st.dropped, 61);
    assert_int_equal(st.kept_dropped, 62);
    assert_int_equal(st.known, 63);
    assert_int_equal(st.tasks, 1);
    assert_int_equal(st.queues, 1);
    nr_deinit(&r);
}

static void joins_wait_for_what_is_there(void **state)
{
    struct broker_queue_conf memory = nr_conf(NULL, NULL);
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    memory.durability = BROKER_DURABILITY_MEMORY;
    ops_plain_queue(&o, 1, "few"); /* task_done was said too often */
    ops_counts(&o, 1, 1, 0);
    ops_queue(&o, 2, "memory", 0, 0, &memory);
    ops_counts(&o, 2, 90, 0); /* from when it was another */
    for (uint64_t id = 1; id <= 6; id++)
        ops_ready(&o, id, id > 4 ? 2 : 1, (int64_t)id, "x");
    ops_init(&r);
    ops_restore(&r, &o);
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "few")).unfinished, 1);
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "memory")).unfinished, 2);
    /* Ids of what was not recorded are not given again. */
    assert_int_equal(nr_put(&r, 0, ops_find(&r, "few"), "x"), 1000 + JOURNAL_ID_SKIP);
    nr_deinit(&r);
}

static void policies(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "dead");
    const struct broker_queue_conf *got;
    struct ops o = ops_record();
    struct broker_event ev;
    struct nr r;

    (void)state;
    c.ack = BROKER_ACK_EXPLICIT;
    c.durability = BROKER_DURABILITY_INTERVAL;
    c.maxsize = -5;
    c.max_deliveries = 250;
    c.lease_ms = 1;
    c.grace_ms = 2;
    c.retry_ms = 3;
    c.retry_max_ms = 4;
    c.ttl_ms = UINT64_MAX;
    c.retention_ms = 6;
    c.rate_per_s = 7;
    c.rate_burst = UINT32_MAX;
    c.concurrency = 9;
    c.expires_ms = 10;
    ops_queue(&o, 1, "q", OPS_QUEUE_FACTORY | OPS_QUEUE_PAUSED | OPS_QUEUE_REJECT_FULL | OPS_QUEUE_SHUT_DOWN,
              0, &c);
    ops_init(&r);
    ops_restore(&r, &o);
    got = broker_queue_conf(ops_find(&r, "q"));
    assert_true(got->factory_made && got->paused && got->reject_full);
    assert_int_equal(got->ack, BROKER_ACK_EXPLICIT);
    assert_int_equal(got->durability, BROKER_DURABILITY_INTERVAL);
    assert_int_equal(got->maxsize, -5);
    assert_int_equal(got->max_attempts, 1);
    assert_int_equal(got->max_deliveries, 250);
    assert_int_equal(got->lease_ms, 1);
    assert_int_equal(got->grace_ms, 2);
    assert_int_equal(got->retry_ms, 3);
    assert_int_equal(got->retry_max_ms, 4);
    assert_true(got->ttl_ms == UINT64_MAX);
    assert_int_equal(got->retention_ms, 6);
    assert_int_equal(got->rate_per_s, 7);
    assert_int_equal(got->rate_burst, UINT32_MAX);
    assert_int_equal(got->concurrency, 9);
    assert_int_equal(got->expires_ms, 10);
    assert_string_equal(got->result, "results");
    assert_string_equal(got->dead, "dead");
    assert_true(broker_queue_shut_down(ops_find(&r, "q")));
    ev = nr_event(&r, BROKER_PUT, 0);
    ev.queue = ops_find(&r, "q");
    ev.payload = nr_payload("x");
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_SHUTDOWN);
    nr_pass(&r, 9);
    assert_non_null(broker_find(r.b, tq_span_str("q")));
    nr_pass(&r, 11); /* nobody has used it since */
    assert_null(broker_find(r.b, tq_span_str("q")));
    nr_deinit(&r);
}

/* Purged up to place 50; one came after that. Who has a reply queue is told there. */
static void purges_go_on(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    const struct ops_x told = {.has_result = true, .result = 2, .key = "k", .key_queue = 1};
    const struct ops_x untold = {.key = "k", .key_queue = 1, .due = OPS_NOW + 9};
    const struct ops_x late = {.has_result = true, .result = 2, .key = "k", .key_queue = 1};
    struct ops_t t = {.serial = 1, .mask = OPS_FULL, .state = BROKER_TASK_READY, .body = "x"};
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_queue(&o, 1, "q", 0, 50, &c);
    ops_counts(&o, 1, 1, 10);
    ops_plain_queue(&o, 2, "answers");
    t.id = 1, t.place = 50, t.x = &told;
    ops_task(&o, &t);
    t.id = 2, t.place = 3, t.x = &untold, t.state = BROKER_TASK_DELAYED;
    ops_task(&o, &t);
    ops_ready(&o, 3, 1, -49, "plain");
    t.id = 4, t.place = 51, t.x = &late, t.state = BROKER_TASK_READY; /* it has the key now */
    ops_task(&o, &t);
    ops_ready(&o, 5, 2, 7, "an earlier answer");
    ops_init(&r);
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).tasks, 5);
    assert_true(nr_is_gone(&r, 1) && nr_is_gone(&r, 2) && nr_is_gone(&r, 3));
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "q")).ready, 1);
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "q")).unfinished, 1);
    nr_pass(&r, 1);
    assert_int_equal(nr_stats(&r).tasks, 3);
    assert_int_equal(nr_view(&r, 1).outcome, BROKER_OUTCOME_PURGED);
    ops_drain(&r, "q", IDS(4));
    ops_drain(&r, "answers", IDS(5, 1));
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "q")).dropped, 10 + 8); /* by the purge, then */
    nr_deinit(&r);
}

static void removed_queues_wait_for_their_leases(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_queue(&o, 1, "q", OPS_QUEUE_REMOVED, 0, &c);
    ops_queue(&o, 2, "q", OPS_QUEUE_REMOVED, 0, &c); /* nothing is left of it */
    ops_queue(&o, 3, "q", OPS_QUEUE_REMOVED, 0, &c); /* its lease comes back at once */
    ops_queue(&o, 4, "q", 0, 0, &c);
    ops_leased(&o, 1, 1, 1, 77, OPS_NOW - 8);
    ops_ready(&o, 2, 1, 9, "was being purged");
    ops_leased(&o, 3, 3, 3, 0, OPS_NOW - 8);
    ops_ready(&o, 4, 4, 4, "lives");
    ops_init(&r);
    ops_session(&r, 3, 77);
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).queues, 1);
    nr_pass(&r, 1);
    assert_int_equal(nr_stats(&r).tasks, 2);
    assert_non_null(r.b->removed);
    assert_null(r.b->removed->removed_next);
    assert_int_equal(nr_resume(&r, 3, (struct broker_lease_name[]){{1, 1}}, 1), 1);
    assert_int_equal(nr_done(&r, (struct nr_lease){.s = 3, .id = 1, .epoch = 1}, "v"), BROKER_REPLY_OK);
    assert_null(r.b->removed);
    ops_drain(&r, "q", IDS(4));
    nr_deinit(&r);
}

/* Ids that the last record does not know may have been given out all the same. */
static void ids_after_a_crash(void **state)
{
    (void)state;
    for (int was_closed = 0; was_closed <= 1; was_closed++) {
        struct ops o = ops_record();
        struct broker_restore *res;
        char text[RESTORE_TEXT_MAX];
        struct nr r;

        ops_plain_queue(&o, 1, "q");
        ops_init(&r);
        res = broker_restore_begin(r.b, world_no_host, NULL);
        assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 1, text), 0);
        if (was_closed)
            broker_restore_was_closed(res);
        assert_int_equal(broker_restore_finish(res, r.now_ms, ops_session_of, &r, text), 0);
        ops_open_others(&r);
        assert_int_equal(nr_put(&r, 0, ops_find(&r, "q"), "x"), 1000 + (was_closed ? 0 : JOURNAL_ID_SKIP));
        ops_free(&o);
        nr_deinit(&r);
    }
}

/* A log in which nothing was ever said begins with 1, and ids end where they end. */
static void ids_at_both_ends(void **state)
{
    static const uint64_t next_ids[] = {0, IDS_MAX - 3};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ops o = {.buf = TQ_BUF_NULL(100)};
        struct broker_restore *res;
        char text[RESTORE_TEXT_MAX];
        struct broker_event ev;
        struct nr r;

        if (next_ids[i] != 0)
            ops_time(&o, next_ids[i], 1, 1);
        ops_init(&r);
        res = broker_restore_begin(r.b, world_no_host, NULL);
        assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 1, text), 0);
        assert_int_equal(broker_restore_finish(res, r.now_ms, ops_session_of, &r, text), 0);
        ops_open_others(&r);
        ev = nr_event(&r, BROKER_PUT, 0);
        ev.queue = nr_queue(&r, "q");
        ev.payload = nr_payload("x");
        assert_int_equal(nr_call(&r, &ev), i == 0 ? BROKER_REPLY_OK : BROKER_REPLY_NO_MEMORY);
        assert_int_equal(r.fx.list[0].id, i == 0);
        ops_free(&o);
        nr_deinit(&r);
    }
}

/* However many came and went: their numbers are used again, and only serials end. */
static void queues_come_and_go(void **state)
{
    struct ops o = {.buf = TQ_BUF_NULL(1u << 24)};
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    struct broker_restore *res;
    char text[RESTORE_TEXT_MAX];
    struct broker_queue *q;
    struct nr r;

    (void)state;
    ops_time(&o, 100000, 100000, BROKER_SERIAL_MAX);
    for (uint32_t i = 1; i < 2000; i++) {
        ops_plain_queue(&o, i, "q");
        ops_ready(&o, i, i, (int64_t)i, "x");
        ops_task(&o, &(struct ops_t){.id = i, .serial = i, .state = BROKER_TASK_READY, .place = -(int64_t)i});
        if (i % 3 == 0) /* it goes on elsewhere, as results do */
            ops_ready(&o, i, 2000 + i, (int64_t)i, "y");
        ops_gone(&o, i);
        ops_end(&o, i);
    }
    ops_init(&r);
    res = broker_restore_begin(r.b, world_no_host, NULL);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 1, text), 0);
    assert_true(res->queue_count <= 3);
    broker_restore_was_closed(res);
    assert_int_equal(broker_restore_finish(res, r.now_ms, ops_session_of, &r, text), 0);
    assert_int_equal(nr_stats(&r).queues, 0);
    assert_int_equal(nr_queue(&r, "last")->serial, BROKER_SERIAL_MAX);
    assert_int_equal(broker_declare(r.b, "more", &c, &q), TQ_ELIMIT);
    ops_free(&o);
    nr_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_wait_for_their_session),
        cmocka_unit_test(leases_of_nobody_go_back),
        cmocka_unit_test(max_deliveries_count),
        cmocka_unit_test(a_lease_has_its_limit),
        cmocka_unit_test(freed_leases_may_be_resumed),
        cmocka_unit_test(dead_letters_know_where_they_came_from),
        cmocka_unit_test(counters_go_on),
        cmocka_unit_test(joins_wait_for_what_is_there),
        cmocka_unit_test(policies),
        cmocka_unit_test(purges_go_on),
        cmocka_unit_test(removed_queues_wait_for_their_leases),
        cmocka_unit_test(ids_after_a_crash),
        cmocka_unit_test(ids_at_both_ends),
        cmocka_unit_test(queues_come_and_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
