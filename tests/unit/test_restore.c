/* What a broker is after its ops: tasks, by hand. Queues and leases: test_restore_queues.c; how a log is
 * refused: test_restore_bad.c; whole lives: test_journal_model.c. */
#include "tests/unit/ops_rig.h"

#define HOUR_MS 3600000u

static void nothing_comes_of_nothing(void **state)
{
    struct ops o = {.buf = TQ_BUF_NULL(100)};
    struct nr r;

    (void)state;
    ops_init(&r);
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).queues, 0);
    assert_int_equal(nr_put(&r, 0, nr_queue(&r, "q"), "x"), 1);
    nr_deinit(&r);
}

static void places_make_the_order(void **state)
{
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_kind_queue(&o, 1, "fifo", BROKER_FIFO);
    ops_kind_queue(&o, 2, "lifo", BROKER_LIFO);
    for (uint32_t serial = 1; serial <= 2; serial++) {
        uint64_t id = serial * 10;

        ops_ready(&o, id, serial, (int64_t)id + 5, "a");
        ops_ready(&o, id + 1, serial, -(int64_t)id - 1, "b");
        ops_ready(&o, id + 2, serial, (int64_t)id, "c");
        ops_ready(&o, id + 3, serial, -(int64_t)id - 7, "d");
    }
    ops_init(&r);
    ops_restore(&r, &o);
    ops_drain(&r, "fifo", IDS(13, 11, 12, 10));
    ops_drain(&r, "lifo", IDS(23, 21, 22, 20));
    nr_deinit(&r);
}

static void new_tasks_go_on_behind_them(void **state)
{
    struct ops o = ops_record();
    struct broker_queue *q;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 7, "q");
    ops_ready(&o, 5, 7, 5, "a");
    ops_init(&r);
    ops_restore(&r, &o);
    q = ops_find(&r, "q");
    assert_int_equal(nr_put(&r, 0, q, "b"), 1000); /* ids go on */
    assert_int_equal(journal_place(r.b, ids_find(r.b->ids, 1000)), 1000);
    assert_int_equal(nr_queue(&r, "other")->serial, 100);
    ops_drain(&r, "q", IDS(5, 1000));
    nr_deinit(&r);
}

static void priorities(void **state)
{
    static const int32_t numbers[] = {3, -1, 3, 0, -1};
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_kind_queue(&o, 1, "p", BROKER_PRIORITY);
    for (uint64_t i = 0; i < 5; i++)
        ops_task(&o, &(struct ops_t){.id = i + 1,
                                     .serial = 1,
                                     .mask = OPS_FULL,
                                     .state = BROKER_TASK_READY,
                                     .place = (int64_t)(20 - i),
                                     .body = "x",
                                     .x = &(struct ops_x){.priority = numbers[i]}});
    ops_ready(&o, 6, 1, -30, "could not be ordered");
    ops_init(&r);
    ops_restore(&r, &o);
    ops_drain(&r, "p", IDS(6, 2, 5, 4, 1, 3));
    nr_deinit(&r);
}

static int less_result;

static int no_order(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                    char text[BROKER_TEXT_MAX])
{
    (void)a, (void)b, (void)ret_less;
    snprintf(text, BROKER_TEXT_MAX, "no order");
    return less_result;
}

/* What cannot be ordered any more must not be lost. */
static void what_has_no_order_stands_before_the_heap(void **state)
{
    struct ops o = ops_record();
    struct ops_t t = {.serial = 1,
                      .mask = OPS_FULL,
                      .state = BROKER_TASK_READY,
                      .is_python = true,
                      .item_len = 4,
                      .body = "item"};
    struct nr r;

    (void)state;
    ops_kind_queue(&o, 1, "p", BROKER_PRIORITY);
    for (t.id = 1; t.id <= 3; t.id++) {
        t.place = (int64_t)t.id;
        ops_task(&o, &t);
    }
    ops_init(&r);
    r.b->less = no_order;
    less_result = 1;
    ops_restore(&r, &o);
    assert_int_equal(journal_place(r.b, ids_find(r.b->ids, 2)), -1000);
    assert_int_equal(journal_place(r.b, ids_find(r.b->ids, 3)), -1001);
    ops_drain(&r, "p", IDS(3, 2, 1));
    nr_deinit(&r);
}

static void queues_may_come_after_their_tasks(void **state)
{
    struct ops o = ops_record(), late = {.buf = TQ_BUF_NULL(1000)};
    struct broker_restore *res;
    char text[RESTORE_TEXT_MAX];
    struct nr r;

    (void)state;
    ops_ready(&o, 1, 2, 1, "a"); /* its queue's op was moved forward */
    ops_plain_queue(&o, 3, "first by name, second by serial");
    ops_free(&o);
    o = ops_record();
    ops_ready(&o, 1, 2, 1, "a");
    ops_plain_queue(&o, 3, "third");
    ops_time(&late, 1000, 1000, 100);
    ops_plain_queue(&late, 2, "second");
    ops_counts(&late, 2, 9, 100);
    ops_init(&r);
    res = broker_restore_begin(r.b, world_no_host, NULL);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 4, text), 0);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&late.buf), 9, text), 0);
    assert_int_equal(broker_restore_finish(res, r.now_ms, ops_session_of, &r, text), 0);
    assert_null(broker_check(r.b));
    assert_string_equal(broker_queue_name(broker_next_queue(r.b, NULL)), "second");
    assert_int_equal(nr_queue_stats(&r, ops_find(&r, "second")).unfinished, 9);
    ops_free(&o);
    ops_free(&late);
    ops_open_others(&r);
    ops_drain(&r, "second", IDS(1));
    nr_deinit(&r);
}

/* Ops of what was moved forward in the log, or is gone by then, are passed over. */
static void deltas_of_the_unknown(void **state)
{
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_task(&o, &(struct ops_t){.id = 5, .serial = 1, .state = BROKER_TASK_READY, .place = 3});
    ops_task(&o, &(struct ops_t){
                     .id = 6, .serial = 2, .state = BROKER_TASK_READY, .place = 3, .x = &(struct ops_x){0}});
    ops_end(&o, 7);
    ops_gone(&o, 8);
    ops_counts(&o, 9, 3, 3);
    ops_ready(&o, 10, 1, 4, "there");
    ops_end(&o, 10);
    ops_task(&o, &(struct ops_t){.id = 10, .serial = 1, .state = BROKER_TASK_READY, .place = 3});
    ops_init(&r);
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).tasks, 0);
    assert_int_equal(nr_stats(&r).queues, 1);
    nr_deinit(&r);
}

static void deltas_change_what_they_say(void **state)
{
    const struct ops_x before = {.trace = "trace", .priority = 0, .key = "k", .key_queue = 1};
    const struct ops_x after = {.trace = "trace", .error = "it broke", .code = 3, .key = "k", .key_queue = 1};
    struct ops_t t = {.id = 5,
                      .serial = 1,
                      .mask = OPS_FULL,
                      .state = BROKER_TASK_READY,
                      .place = 3,
                      .body = "body",
                      .x = &before};
    struct broker_view v;
    struct ops o = ops_record();
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_task(&o, &t);
    t = (struct ops_t){.id = 5,
                       .serial = 1,
                       .state = BROKER_TASK_LEASED,
                       .place = 3,
                       .epoch = 1,
                       .since_ms = OPS_NOW - 9,
                       .session = 77};
    ops_task(&o, &t);
    t = (struct ops_t){.id = 5,
                       .serial = 1,
                       .state = BROKER_TASK_READY,
                       .place = -9,
                       .epoch = 1,
                       .attempts = 1,
                       .x = &after};
    ops_task(&o, &t);
    ops_init(&r);
    ops_restore(&r, &o);
    v = nr_view(&r, 5);
    assert_payload(&v, "body");
    assert_span(v.error, "it broke");
    assert_span(v.key, "k");
    assert_int_equal(v.code, 3);
    assert_int_equal(v.attempt, 2);
    assert_int_equal(v.epoch, 1);
    assert_int_equal(v.put_ms, OPS_NOW - 1000 + 5);
    assert_string_equal(v.state, "ready");
    nr_deinit(&r);
}

static void bodies_of_all_sizes(void **state)
{
    static char body[3001];
    struct ops o = ops_record();
    struct broker_view v;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    memset(body, 'x', 3000);
    for (uint64_t i = 1; i <= 30; i++) {
        struct ops_t t = {.id = i,
                          .serial = 1,
                          .mask = OPS_FULL,
                          .state = BROKER_TASK_READY,
                          .place = (int64_t)i,
                          .body = body + 3000 - (i - 1) * 100,
                          .is_python = i % 2 == 0,
                          .item_off = i,
                          .item_len = i};
        struct ops_t delta = {.id = i,
                              .serial = 1,
                              .state = BROKER_TASK_READY,
                              .place = (int64_t)i,
                              .x = &(struct ops_x){.of = 3}};

        ops_task(&o, &t);
        if (i % 3 == 0)
            ops_task(&o, &delta);
        if (i % 5 == 0)
            ops_task(&o, &t); /* once more, in full */
    }
    ops_init(&r);
    ops_restore(&r, &o);
    for (uint64_t i = 1; i <= 30; i++) {
        v = nr_view(&r, i);
        assert_int_equal(v.payload.len, (i - 1) * 100);
        assert_int_equal(v.payload.format, i % 2 == 0 ? BROKER_PYTHON : BROKER_MSGPACK);
        assert_int_equal(v.payload.item_off, i % 2 == 0 ? i : 0);
        for (uint32_t k = 0; k < v.payload.len; k++)
            assert_int_equal(v.payload.data[k], 'x');
    }
    nr_deinit(&r);
}

/* ---- time ---- */

static void delays(void **state)
{
    struct ops o = ops_record();
    struct ops_x due = {.due = OPS_NOW + 5000}, over = {.due = OPS_NOW + 10};
    struct ops_t t = {.serial = 1, .mask = OPS_FULL, .state = BROKER_TASK_DELAYED, .body = "x"};
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    t.id = 1, t.place = 1, t.x = &due;
    ops_task(&o, &t);
    t.id = 2, t.place = 2, t.x = &over;
    ops_task(&o, &t);
    ops_ready(&o, 3, 1, 3, "now");
    ops_init(&r);
    r.now_ms += 1000; /* as long as nobody was there */
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).delayed, 2);
    assert_string_equal(nr_view(&r, 2).state, "delayed");
    nr_pass(&r, 0);
    assert_string_equal(nr_view(&r, 2).state, "ready");
    ops_drain(&r, "q", IDS(3, 2));
    nr_pass(&r, 4000);
    ops_drain(&r, "q", IDS(1));
    nr_deinit(&r);
}

static void time_to_live_ends_meanwhile(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, "dead");
    struct ops o = ops_record();
    struct broker_view v;
    struct nr r;

    (void)state;
    ops_queue(&o, 1, "q", 0, 0, &c);
    ops_plain_queue(&o, 2, "dead");
    ops_task(&o, &(struct ops_t){.id = 1,
                                 .serial = 1,
                                 .mask = OPS_FULL,
                                 .state = BROKER_TASK_READY,
                                 .place = 1,
                                 .body = "x",
                                 .x = &(struct ops_x){.expires = OPS_NOW + 10}});
    ops_init(&r);
    r.now_ms += HOUR_MS;
    ops_restore(&r, &o);
    nr_get_nothing(&r, 0, ops_find(&r, "q")); /* it is never handed out */
    v = nr_view(&r, 1);
    assert_string_equal(v.state, "dead");
    assert_int_equal(v.outcome, BROKER_OUTCOME_EXPIRED);
    assert_string_equal(v.from, "q");
    nr_deinit(&r);
}

static void results_are_kept_until_their_retention_ends(void **state)
{
    const struct ops_x x = {.expires = OPS_NOW + 500,
                            .ended = OPS_NOW - 10,
                            .from = 1,
                            .outcome = BROKER_OUTCOME_OK,
                            .key = "the key",
                            .key_queue = 1,
                            .has_retention = true,
                            .retention = 510,
                            .tries = 2,
                            .worker = "w9"};
    struct ops o = ops_record();
    struct broker_event ev;
    struct broker_view v;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_task(&o, &(struct ops_t){.id = 4,
                                 .mask = OPS_FULL,
                                 .state = BROKER_TASK_KEPT,
                                 .flags = TASK_RESULT,
                                 .epoch = 2,
                                 .body = "value",
                                 .x = &x});
    ops_init(&r);
    ops_restore(&r, &o);
    v = nr_view(&r, 4);
    assert_string_equal(v.state, "done");
    assert_string_equal(v.from, "q");
    assert_span(v.worker, "w9");
    assert_null(v.queue);
    assert_int_equal(nr_stats(&r).kept, 1);
    ev = nr_event(&r, BROKER_PUT, 0);
    ev.queue = ops_find(&r, "q");
    ev.payload = nr_payload("once more");
    ev.options = &(struct broker_put_options){.key = tq_span_str("the key")};
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_KNOWN);
    assert_int_equal(r.fx.list[0].id, 4);
    assert_payload(r.fx.list[0].copy, "value");
    nr_pass(&r, 501);
    assert_true(nr_is_gone(&r, 4));
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_OK);
    nr_deinit(&r);
}

/* Results that nobody asked to be kept give way in the order of their ends. */
static void kept_ones_give_way(void **state)
{
    struct ops_x x = {.expires = OPS_NOW + HOUR_MS,
                      .from = 1,
                      .outcome = BROKER_OUTCOME_OK,
                      .has_retention = true,
                      .retention = HOUR_MS,
                      .gives_way = true};
    struct ops_t t = {
        .mask = OPS_FULL, .state = BROKER_TASK_KEPT, .flags = TASK_RESULT, .body = "v", .x = &x};
    struct ops o = ops_record();
    struct broker_queue *q;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    for (t.id = 1; t.id <= 3; t.id++) {
        x.ended = OPS_NOW - 10 * t.id;
        ops_task(&o, &t);
    }
    ops_init(&r);
    ops_restore(&r, &o);
    q = ops_find(&r, "q");
    r.b->limits.memory_bytes = 400; /* of which new work has 350: less than there is */
    (void)nr_put(&r, 0, q, "x");
    assert_true(nr_is_gone(&r, 3));
    assert_false(nr_is_gone(&r, 2));
    (void)nr_put(&r, 0, q, "x");
    assert_true(nr_is_gone(&r, 2));
    assert_int_equal(nr_stats(&r).kept_dropped, 2);
    nr_deinit(&r);
}

/* All that was acknowledged comes back, whatever the limit is now. */
static void more_than_memory_allows(void **state)
{
    struct ops o = ops_record();
    struct broker_event ev;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    for (uint64_t id = 1; id <= 9; id++)
        ops_ready(&o, id, 1, (int64_t)id, "0123456789");
    ops_init(&r);
    r.b->limits.memory_bytes = 500;
    ops_restore(&r, &o);
    assert_int_equal(nr_stats(&r).body_bytes, 9 * (10 + BROKER_BODY_OVERHEAD_BYTES));
    ev = nr_event(&r, BROKER_PUT, 0);
    ev.queue = ops_find(&r, "q");
    ev.payload = nr_payload("x");
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NO_MEMORY);
    ops_drain(&r, "q", IDS(1, 2, 3, 4, 5, 6, 7, 8, 9));
    nr_deinit(&r);
}

/* ---- the log goes on ---- */

struct host {
    unsigned ops;
    uint64_t segment;
};

static int on_host(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment, char text[RESTORE_TEXT_MAX])
{
    struct host *h = ctx;

    h->ops++;
    h->segment = segment;
    snprintf(text, RESTORE_TEXT_MAX, "not this one");
    assert_true(op == OPS_HOST + 3 && tq_span_is(bytes, "session"));
    return h->ops == 3 ? TQ_EINVAL : 0;
}

/* A record may have nothing else. */
static void ops_of_others(void **state)
{
    struct ops o = {.buf = TQ_BUF_NULL(100)};
    struct host h = {0};
    struct broker_restore *res;
    char text[RESTORE_TEXT_MAX];
    struct nr r;

    (void)state;
    ops_byte(&o, OPS_HOST + 3);
    ops_text(&o, "session");
    ops_init(&r);
    res = broker_restore_begin(r.b, on_host, &h);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 8, text), 0);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 9, text), 0);
    assert_int_equal(h.segment, 9);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 9, text), TQ_EINVAL);
    assert_string_equal(text, "not this one");
    broker_restore_abandon(res);
    broker_restore_abandon(NULL);
    ops_free(&o);
    nr_deinit(&r);
}

/* Homes are known again: the first record after that moves nothing, and oldest is where the oldest stands. */
static void homes(void **state)
{
    static const uint64_t segments[] = {3, 4, 9};
    struct broker_restore *res;
    struct world_log log = {.segment = 12};
    char text[RESTORE_TEXT_MAX];
    struct nr r;

    (void)state;
    ops_init(&r);
    res = broker_restore_begin(r.b, world_no_host, NULL);
    for (uint64_t i = 0; i < 3; i++) {
        struct ops o = ops_record();

        ops_plain_queue(&o, (uint32_t)(i % 2) + 1, i % 2 == 0 ? "a" : "b"); /* "a" is moved forward */
        ops_ready(&o, i + 1, 1, (int64_t)i + 1, "x");
        assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), segments[i], text), 0);
        ops_free(&o);
    }
    assert_int_equal(broker_restore_finish(res, r.now_ms, ops_session_of, &r, text), 0);
    assert_int_equal(broker_journal_oldest(r.b), 0); /* until something was written */
    assert_int_equal(broker_journal_live_tasks(r.b), 3);
    (void)world_collect(r.b, &log);
    assert_int_equal(broker_journal_oldest(r.b), 3);
    ops_open_others(&r);
    nr_done(&r, nr_get(&r, 0, ops_find(&r, "a"), 1), NULL);
    assert_int_equal(nr_by_id(&r, BROKER_REMOVE, 0, 1), BROKER_REPLY_OK); /* its result was kept */
    (void)world_collect(r.b, &log);
    assert_int_equal(broker_journal_oldest(r.b), 4); /* task 2, queue "b" */
    nr_done(&r, nr_get(&r, 0, ops_find(&r, "a"), 2), NULL);
    assert_int_equal(nr_by_id(&r, BROKER_REMOVE, 0, 2), BROKER_REPLY_OK);
    (void)world_collect(r.b, &log);
    assert_int_equal(broker_journal_oldest(r.b), 4);
    broker_remove(r.b, ops_find(&r, "b"), &r.fx);
    (void)world_collect(r.b, &log);
    assert_int_equal(broker_journal_oldest(r.b), 9);
    world_log_deinit(&log);
    nr_deinit(&r);
}

static void many_tasks_in_any_order(void **state)
{
    enum { MANY = 20000 };
    struct ops o = {.buf = TQ_BUF_NULL(1u << 24)};
    struct broker_queue *q;
    uint64_t place = 1;
    struct nr r;

    (void)state;
    ops_time(&o, MANY + 1, 3 * MANY, 10);
    ops_plain_queue(&o, 1, "q");
    for (uint64_t i = 0; i < MANY; i++) {
        place = (place + 12345) % 32003; /* each once: a prime */
        ops_ready(&o, i + 1, 1, place % 3 == 0 ? -(int64_t)place - 1 : (int64_t)place + 1, "x");
    }
    ops_init(&r);
    r.b->limits.held_per_session = 0;
    ops_restore(&r, &o);
    q = ops_find(&r, "q");
    assert_int_equal(q->ready, MANY);
    for (uint32_t slot = q->head, next; slot != SLAB_NONE; slot = next) {
        next = broker_task_at(r.b->slab, slot)->link;
        if (next != SLAB_NONE)
            assert_true(journal_place(r.b, slot) < journal_place(r.b, next));
    }
    nr_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_comes_of_nothing),
        cmocka_unit_test(places_make_the_order),
        cmocka_unit_test(new_tasks_go_on_behind_them),
        cmocka_unit_test(priorities),
        cmocka_unit_test(what_has_no_order_stands_before_the_heap),
        cmocka_unit_test(queues_may_come_after_their_tasks),
        cmocka_unit_test(deltas_of_the_unknown),
        cmocka_unit_test(deltas_change_what_they_say),
        cmocka_unit_test(bodies_of_all_sizes),
        cmocka_unit_test(delays),
        cmocka_unit_test(time_to_live_ends_meanwhile),
        cmocka_unit_test(results_are_kept_until_their_retention_ends),
        cmocka_unit_test(kept_ones_give_way),
        cmocka_unit_test(more_than_memory_allows),
        cmocka_unit_test(ops_of_others),
        cmocka_unit_test(homes),
        cmocka_unit_test(many_tasks_in_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
