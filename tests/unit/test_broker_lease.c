/* Leases: what acknowledges, what comes back, and where it then stands. */
#include "tests/unit/broker_rig.h"

RIG_DEFINE_LESS

#define FIFO BROKER_FIFO
#define AUTO BROKER_ACK_AUTO

struct pair {
    struct rig r;
    struct broker_queue *task;
    struct broker_queue *result;
};

/* Session 1 holds item 1 of `task`, delivered; 2 and 3 stand behind it. */
static void pair_init(struct pair *p, enum broker_ack ack)
{
    rig_init(&p->r);
    p->task = rig_queue(&p->r, "task", FIFO, ack, 0);
    p->result = rig_queue(&p->r, "result", BROKER_PRIORITY, AUTO, 2);
    for (int i = 1; i <= 3; i++)
        rig_put_ok(&p->r, 0, p->task, i);
    rig_get_item(&p->r, 1, p->task, 1, 1);
    rig_delivered(&p->r, 1);
}

static void assert_held(struct pair *p, uint64_t leased, uint64_t acked)
{
    assert_int_equal(rig_stats(&p->r).leased, leased);
    assert_int_equal(rig_stats(&p->r).acked, acked);
}

static void auto_is_acknowledged_by_progress(void **state)
{
    struct pair p;

    (void)state;
    pair_init(&p, AUTO);
    assert_held(&p, 1, 0);
    rig_put_ok(&p.r, 1, p.result, 10); /* the same step */
    assert_held(&p, 0, 1);
    rig_get_item(&p.r, 1, p.task, 2, 1);
    assert_held(&p, 1, 1);
    rig_get_outcome(&p.r, 1, p.result, BROKER_REPLY_ITEM); /* a get of any queue */
    assert_held(&p, 1, 2);
    rig_get_outcome(&p.r, 1, p.result, BROKER_REPLY_EMPTY); /* even if it finds nothing */
    assert_held(&p, 0, 3);
    rig_get_item(&p.r, 1, p.task, 3, 1);
    rig_get(&p.r, 1, p.task, -1); /* even if it parks */
    assert_held(&p, 0, 4);
    rig_close(&p.r, 1, BROKER_CLOSE_RETURN);
    rig_none(&p.r);
    rig_put_ok(&p.r, 0, p.task, 4);
    rig_get_item(&p.r, 1, p.task, 4, 1);
    rig_done(&p.r, 1, p.result, BROKER_REPLY_NONE); /* task_done of any queue */
    assert_held(&p, 0, 5);
    rig_put_ok(&p.r, 0, p.task, 5);
    rig_get_item(&p.r, 1, p.task, 5, 1);
    rig_done(&p.r, 1, p.result, BROKER_REPLY_TOO_MANY_DONE); /* the work is done all the same */
    assert_held(&p, 0, 6);
    rig_put_ok(&p.r, 0, p.task, 6);
    rig_get_item(&p.r, 1, p.task, 6, 1);
    rig_expect(&p.r, 2, rig_shutdown(&p.r, 2, p.result, false), BROKER_REPLY_NONE);
    rig_none(&p.r);
    rig_get_outcome(&p.r, 1, p.result, BROKER_REPLY_SHUTDOWN);
    assert_held(&p, 0, 7);
    rig_deinit(&p.r);
}

static void auto_is_not_acknowledged_by_anything_else(void **state)
{
    struct pair p;

    (void)state;
    pair_init(&p, AUTO);
    rig_number(&p.r, 1, p.task, BROKER_QSIZE, 2);
    rig_number(&p.r, 1, p.task, BROKER_EMPTY, 0);
    rig_number(&p.r, 1, p.task, BROKER_FULL, 0);
    rig_expect(&p.r, 1, rig_do(&p.r, BROKER_JOIN, 1, p.result), BROKER_REPLY_NONE);
    rig_none(&p.r);
    rig_put_ok(&p.r, 0, p.result, 1);
    rig_expect(&p.r, 1, rig_put_len(&p.r, 1, p.result, RIG_NO_ORDER, 1, 0, 0), BROKER_REPLY_TYPE_ERROR);
    rig_none(&p.r);
    assert_held(&p, 1, 0);
    rig_put_ok(&p.r, 0, p.result, 2);
    rig_expect(&p.r, 1, rig_put(&p.r, 1, p.result, 10, 0), BROKER_REPLY_FULL);
    uint64_t t = rig_put(&p.r, 1, p.result, 10, 20); /* waits */
    assert_held(&p, 1, 0);
    rig_pass(&p.r, 20);
    rig_expect(&p.r, 1, t, BROKER_REPLY_FULL);
    assert_held(&p, 1, 0);
    rig_none(&p.r);
    /* A put that waited acknowledges when it gets in. */
    t = rig_put(&p.r, 1, p.result, 10, -1);
    uint64_t g = rig_get(&p.r, 5, p.result, 0);
    rig_expect_item(&p.r, 5, g, 1, 1);
    rig_expect(&p.r, 1, t, BROKER_REPLY_NONE);
    rig_none(&p.r);
    assert_held(&p, 1, 1); /* session 5's */
    rig_get_item(&p.r, 1, p.task, 2, 1);
    rig_expect(&p.r, 1, rig_shutdown(&p.r, 1, p.result, false), BROKER_REPLY_NONE);
    rig_expect(&p.r, 1, rig_put(&p.r, 1, p.result, 10, -1), BROKER_REPLY_SHUTDOWN);
    rig_none(&p.r);
    assert_held(&p, 2, 1);
    rig_close(&p.r, 1, BROKER_CLOSE_RETURN);
    rig_get_item(&p.r, 1, p.task, 2, 2);
    rig_deinit(&p.r);
}

static void explicit_is_acknowledged_by_task_done_on_its_queue(void **state)
{
    const struct broker_queue *oldest;
    struct pair p;

    (void)state;
    pair_init(&p, BROKER_ACK_EXPLICIT);
    assert_int_equal(broker_session_held(&p.r.s[1], &oldest), 0);
    assert_null(oldest);
    rig_put_ok(&p.r, 1, p.result, 10);
    rig_get_item(&p.r, 1, p.task, 2, 1);
    rig_get_outcome(&p.r, 1, p.result, BROKER_REPLY_ITEM);
    assert_held(&p, 3, 0);
    rig_done(&p.r, 1, p.result, BROKER_REPLY_NONE); /* progress for the auto one only */
    assert_held(&p, 2, 1);
    rig_done(&p.r, 1, p.task, BROKER_REPLY_NONE); /* item 1 */
    assert_held(&p, 1, 2);
    /* Someone else's task_done acknowledges nothing of ours. */
    rig_done(&p.r, 2, p.task, BROKER_REPLY_NONE);
    assert_held(&p, 1, 2);
    rig_get_item(&p.r, 1, p.task, 3, 1);
    rig_close(&p.r, 1, BROKER_CLOSE_ACK); /* a clean end does not acknowledge explicit ones */
    assert_held(&p, 0, 2);
    rig_get_item(&p.r, 2, p.task, 2, 2);
    rig_get_item(&p.r, 2, p.task, 3, 1); /* it was never reported delivered */
    rig_done(&p.r, 2, p.task, BROKER_REPLY_NONE);
    rig_done(&p.r, 2, p.task, BROKER_REPLY_TOO_MANY_DONE); /* 3: done although the count says otherwise */
    assert_held(&p, 0, 4);
    rig_deinit(&p.r);
}

static void a_session_holds_so_many_and_no_more(void **state)
{
    struct rig r;

    (void)state;
    rig_init_limits(&r, &(struct broker_limits){.queues = 9, .held_per_session = 2});
    struct broker_queue *q = rig_queue(&r, "q", FIFO, BROKER_ACK_EXPLICIT, 0);
    struct broker_queue *a = rig_queue(&r, "a", FIFO, AUTO, 0);

    for (int i = 1; i <= 4; i++) {
        rig_put_ok(&r, 0, q, i);
        rig_put_ok(&r, 0, a, i);
    }
    rig_get_item(&r, 1, q, 1, 1);
    rig_get_item(&r, 1, q, 2, 1);
    rig_get_outcome(&r, 1, q, BROKER_REPLY_TOO_MANY_HELD);
    rig_expect(&r, 1, rig_get(&r, 1, q, -1), BROKER_REPLY_TOO_MANY_HELD);
    rig_none(&r);
    rig_get_item(&r, 1, a, 1, 1); /* not of explicit queues: the last one ends with the next get */
    rig_get_item(&r, 1, a, 2, 1);
    rig_get_item(&r, 2, q, 3, 1);
    rig_done(&r, 1, q, BROKER_REPLY_NONE);
    rig_get_item(&r, 1, q, 4, 1);
    rig_deinit(&r);
}

static void get_is_acknowledged_by_delivery(void **state)
{
    static const enum broker_event_kind calls[] = {BROKER_PUT,   BROKER_GET,     BROKER_QSIZE,
                                                   BROKER_EMPTY, BROKER_FULL,    BROKER_TASK_DONE,
                                                   BROKER_JOIN,  BROKER_SHUTDOWN};
    const struct broker_queue *oldest;

    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct pair p;

        pair_init(&p, BROKER_ACK_GET);
        assert_held(&p, 0, 1); /* delivered: gone */
        rig_get_item(&p.r, 1, p.task, 2, 1);
        assert_int_equal(broker_session_held(&p.r.s[1], &oldest), 0);
        assert_held(&p, 1, 1);
        struct broker_event ev = rig_call(&p.r, calls[i], 1, p.result, 0);
        ev.payload = rig_payload(rig_body_new(1, 1, 0));
        rig_step(&p.r, &ev); /* whoever asks again got what it asked before */
        tq_body_unref(ev.payload.body);
        p.r.seen++;
        assert_held(&p, 0, 2);
        rig_none(&p.r);
        rig_get_item(&p.r, 1, p.task, 3, 1);
        rig_close(&p.r, 1, i % 2 ? BROKER_CLOSE_ACK : BROKER_CLOSE_RETURN);
        rig_get_item(&p.r, 2, p.task, 3, 1); /* never delivered: back, and nobody's fault */
        rig_deinit(&p.r);
    }
}

static void a_clean_close_acknowledges_what_was_delivered(void **state)
{
    const struct broker_queue *oldest;
    struct pair p;

    (void)state;
    pair_init(&p, AUTO);
    assert_int_equal(broker_session_held(&p.r.s[1], &oldest), 1);
    assert_ptr_equal(oldest, p.task);
    rig_close(&p.r, 1, BROKER_CLOSE_ACK);
    assert_held(&p, 0, 1);
    rig_get_item(&p.r, 1, p.task, 2, 1); /* on its way */
    assert_int_equal(broker_session_held(&p.r.s[1], &oldest), 0);
    assert_null(oldest);
    rig_close(&p.r, 1, BROKER_CLOSE_ACK);
    assert_held(&p, 0, 1);
    rig_get_item(&p.r, 1, p.task, 2, 1);
    rig_deinit(&p.r);
}

static void a_death_gives_back_to_the_front(void **state)
{
    struct pair p;

    (void)state;
    pair_init(&p, AUTO);
    rig_close(&p.r, 1, BROKER_CLOSE_RETURN);
    rig_number(&p.r, 2, p.task, BROKER_QSIZE, 3);
    rig_get_item(&p.r, 1, p.task, 1, 2);
    rig_delivered(&p.r, 1);
    rig_close(&p.r, 1, BROKER_CLOSE_RETURN);
    rig_get_item(&p.r, 1, p.task, 1, 3);
    rig_close(&p.r, 1, BROKER_CLOSE_RETURN); /* undelivered: does not count */
    rig_get_item(&p.r, 1, p.task, 1, 3);
    rig_get_item(&p.r, 1, p.task, 2, 1);
    assert_int_equal(rig_stats(&p.r).returned, 3);
    rig_deinit(&p.r);
}

/* A session with many leases dies: they stand in front in their old order, and go to those who wait first. */
static void many_come_back_in_order(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        struct rig r;
        int up = kinds[k] == BROKER_LIFO ? -1 : 1;
        int first = kinds[k] == BROKER_LIFO ? 5 : 1;

        rig_init(&r);
        struct broker_queue *q = rig_queue(&r, "q", kinds[k], BROKER_ACK_EXPLICIT, 5);
        for (int i = 1; i <= 5; i++)
            rig_put_ok(&r, 0, q, i);
        for (int i = 0; i < 4; i++)
            rig_get_item(&r, 1, q, first + i * up, 1);
        rig_close(&r, 1, BROKER_CLOSE_RETURN);
        for (int i = 0; i < 5; i++)
            rig_get_item(&r, 1, q, first + i * up, i < 3 ? 2 : 1); /* the next get proved delivery */
        rig_delivered(&r, 1);
        uint64_t t2 = rig_get(&r, 2, q, -1), t3 = rig_get(&r, 3, q, 1000);
        rig_none(&r);
        rig_close(&r, 1, BROKER_CLOSE_RETURN);
        rig_expect_item(&r, 2, t2, first, 3);
        rig_expect_item(&r, 3, t3, first + up, 3);
        rig_none(&r);
        rig_number(&r, 2, q, BROKER_QSIZE, 3);
        for (int i = 2; i < 5; i++)
            rig_get_item(&r, 1, q, first + i * up, i == 2 ? 3 : 2);
        rig_deinit(&r);
    }
}

static void what_comes_back_may_overfill_a_queue(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_LIFO, AUTO, 1);

    rig_put_ok(&r, 0, q, 1);
    rig_get_item(&r, 1, q, 1, 1);
    rig_put_ok(&r, 0, q, 2);
    uint64_t t = rig_put(&r, 0, q, 3, -1);
    rig_close(&r, 1, BROKER_CLOSE_RETURN);
    rig_none(&r);
    rig_number(&r, 2, q, BROKER_QSIZE, 2);
    rig_get_item(&r, 2, q, 1, 1); /* the putter still has no room */
    uint64_t g = rig_get(&r, 2, q, 0);
    rig_expect_item(&r, 2, g, 2, 1);
    rig_expect(&r, 0, t, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_deinit(&r);
}

static void a_bounce_goes_to_the_next_or_to_the_front(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);
    uint64_t t1 = rig_get(&r, 1, q, -1), t2 = rig_get(&r, 2, q, -1);
    uint64_t p = rig_put(&r, 0, q, 7, 0);

    rig_expect(&r, 0, p, BROKER_REPLY_NONE);
    struct broker_lease_name t = rig_expect_item(&r, 1, t1, 7, 1);
    rig_none(&r);
    rig_bounce(&r, 1, t);
    t = rig_expect_item(&r, 2, t2, 7, 1);
    rig_none(&r);
    rig_put_ok(&r, 0, q, 8);
    rig_bounce(&r, 2, t);
    rig_none(&r);
    assert_true(r.s[2].open);
    rig_get_item(&r, 3, q, 7, 1);
    rig_get_item(&r, 3, q, 8, 1);
    assert_int_equal(rig_stats(&r).bounced, 2);
    rig_deinit(&r);
}

static void a_stock_loop_leaves_one_result_for_each_task(void **state)
{
    struct rig r;

    (void)state;
    for (int dies_after = 0; dies_after < 4; dies_after++) { /* get's reply, its delivery, work, put */
        rig_init(&r);
        struct broker_queue *task = rig_queue(&r, "task_queue", FIFO, AUTO, 0);
        struct broker_queue *result = rig_queue(&r, "result_queue", FIFO, AUTO, 0);

        rig_put_ok(&r, 0, task, 1);
        rig_get_item(&r, 1, task, 1, 1);
        if (dies_after > 0)
            rig_delivered(&r, 1);
        if (dies_after == 3)
            rig_put_ok(&r, 1, result, 1);
        rig_close(&r, 1, BROKER_CLOSE_RETURN);
        if (dies_after < 3) {
            rig_get_item(&r, 2, task, 1, dies_after > 0 ? 2 : 1);
            rig_put_ok(&r, 2, result, 1);
        }
        rig_get_outcome(&r, 2, task, BROKER_REPLY_EMPTY);
        rig_get_item(&r, 3, result, 1, 1);
        rig_get_outcome(&r, 4, result, BROKER_REPLY_EMPTY);
        rig_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_is_acknowledged_by_progress),
        cmocka_unit_test(auto_is_not_acknowledged_by_anything_else),
        cmocka_unit_test(explicit_is_acknowledged_by_task_done_on_its_queue),
        cmocka_unit_test(a_session_holds_so_many_and_no_more),
        cmocka_unit_test(get_is_acknowledged_by_delivery),
        cmocka_unit_test(a_clean_close_acknowledges_what_was_delivered),
        cmocka_unit_test(a_death_gives_back_to_the_front),
        cmocka_unit_test(many_come_back_in_order),
        cmocka_unit_test(what_comes_back_may_overfill_a_queue),
        cmocka_unit_test(a_bounce_goes_to_the_next_or_to_the_front),
        cmocka_unit_test(a_stock_loop_leaves_one_result_for_each_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
