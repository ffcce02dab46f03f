/* The broker rule by rule: what queue.Queue does, who waits, join, shutdown, order. */
#include "tests/unit/broker_rig.h"

#include "master/core/queue.h"

RIG_DEFINE_LESS

#define FIFO BROKER_FIFO
#define AUTO BROKER_ACK_AUTO

static void fifo_lifo_and_priority_come_out_in_their_order(void **state)
{
    static const int64_t in[] = {5, 1, 4, 1, 3}, lifo[] = {3, 1, 4, 1, 5}, sorted[] = {1, 1, 3, 4, 5};
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *f = rig_queue(&r, "f", BROKER_FIFO, AUTO, 0);
    struct broker_queue *l = rig_queue(&r, "l", BROKER_LIFO, AUTO, 0);
    struct broker_queue *p = rig_queue(&r, "p", BROKER_PRIORITY, AUTO, -3);

    for (size_t i = 0; i < 5; i++) {
        rig_put_ok(&r, 0, f, in[i]);
        rig_put_ok(&r, 0, l, in[i]);
        rig_put_ok(&r, 0, p, in[i]);
    }
    rig_number(&r, 1, p, BROKER_QSIZE, 5);
    rig_number(&r, 1, p, BROKER_FULL, 0);
    rig_number(&r, 1, p, BROKER_EMPTY, 0);
    for (size_t i = 0; i < 5; i++) {
        rig_get_item(&r, 1, f, in[i], 1);
        rig_get_item(&r, 2, l, lifo[i], 1);
        rig_get_item(&r, 3, p, sorted[i], 1);
    }
    rig_number(&r, 1, p, BROKER_QSIZE, 0);
    rig_number(&r, 1, p, BROKER_EMPTY, 1);
    rig_deinit(&r);
}

static void get_on_empty_replies_or_waits(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);

    rig_get_outcome(&r, 0, q, BROKER_REPLY_EMPTY);
    /* A wait of 0 ms is none. */
    struct broker_event ev = rig_call(&r, BROKER_GET, 0, q, 0);
    ev.wait_mode = BROKER_WAIT_MS;
    rig_step(&r, &ev);
    assert_false(rig_expect(&r, 0, ev.token, BROKER_REPLY_EMPTY)->was_parked);
    rig_none(&r);

    uint64_t t = rig_get(&r, 0, q, 50);
    rig_none(&r);
    assert_true(broker_session_parked(&r.s[0]));
    rig_pass(&r, 49);
    rig_none(&r);
    rig_pass(&r, 1);
    assert_true(rig_expect(&r, 0, t, BROKER_REPLY_EMPTY)->was_parked);
    rig_none(&r);
    assert_false(broker_session_parked(&r.s[0]));

    /* Longer than the clock has numbers for: for ever. */
    ev = rig_call(&r, BROKER_GET, 0, q, 1);
    ev.wait_ms = UINT64_MAX;
    rig_step(&r, &ev);
    rig_pass(&r, UINT32_MAX);
    rig_none(&r);
    uint64_t p = rig_put(&r, 1, q, 7, 0);
    rig_expect(&r, 1, p, BROKER_REPLY_NONE);
    rig_expect_item(&r, 0, ev.token, 7, 1);
    rig_none(&r);
    rig_deinit(&r);
}

static void getters_are_served_first_come_first_served(void **state)
{
    struct rig r;
    uint64_t t[6];

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, AUTO, 1);

    for (int i = 0; i < 6; i++)
        t[i] = rig_get(&r, i, q, i % 2 ? -1 : 1000);
    rig_none(&r);
    for (int i = 0; i < 6; i++) {
        uint64_t p = rig_put(&r, 10, q, 100 - i, 0);

        rig_expect(&r, 10, p, BROKER_REPLY_NONE);
        rig_expect_item(&r, i, t[i], 100 - i, 1);
        assert_true(r.fx.list[1].was_parked);
        rig_none(&r);
        rig_number(&r, 11, q, BROKER_QSIZE, 0);
    }
    rig_pass(&r, 2000); /* served waits have no deadline any more */
    rig_deinit(&r);
}

static void a_put_on_a_full_queue_replies_or_waits(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 2);

    rig_number(&r, 0, q, BROKER_FULL, 0);
    rig_put_ok(&r, 0, q, 1);
    rig_put_ok(&r, 0, q, 2);
    rig_number(&r, 0, q, BROKER_FULL, 1);
    rig_expect(&r, 0, rig_put(&r, 0, q, 99, 0), BROKER_REPLY_FULL);
    rig_none(&r);
    uint64_t t = rig_put(&r, 0, q, 98, 30);
    rig_none(&r);
    rig_pass(&r, 30);
    assert_true(rig_expect(&r, 0, t, BROKER_REPLY_FULL)->was_parked);
    rig_none(&r);

    /* Parked putters come in one by one, in the order of their calls. */
    uint64_t t3 = rig_put(&r, 1, q, 3, -1);
    uint64_t t4 = rig_put(&r, 2, q, 4, 500);
    uint64_t t5 = rig_put(&r, 3, q, 5, -1);
    rig_none(&r);
    rig_number(&r, 0, q, BROKER_QSIZE, 2);
    for (int i = 0; i < 3; i++) {
        uint64_t tokens[] = {t3, t4, t5};
        uint64_t g = rig_get(&r, 9, q, 0);

        rig_expect_item(&r, 9, g, 1 + i, 1);
        assert_true(rig_expect(&r, 1 + i, tokens[i], BROKER_REPLY_NONE)->was_parked);
        rig_none(&r);
        rig_number(&r, 0, q, BROKER_QSIZE, 2);
    }
    rig_get_item(&r, 9, q, 4, 1);
    rig_get_item(&r, 9, q, 5, 1);
    rig_get_outcome(&r, 9, q, BROKER_REPLY_EMPTY);
    rig_deinit(&r);
}

static void a_parked_put_enters_by_the_order_of_its_kind(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *l = rig_queue(&r, "l", BROKER_LIFO, AUTO, 2);
    struct broker_queue *p = rig_queue(&r, "p", BROKER_PRIORITY, AUTO, 2);

    rig_put_ok(&r, 0, l, 1);
    rig_put_ok(&r, 0, l, 2);
    uint64_t t = rig_put(&r, 1, l, 3, -1);
    uint64_t g = rig_get(&r, 2, l, 0);
    rig_expect_item(&r, 2, g, 2, 1);
    rig_expect(&r, 1, t, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_get_item(&r, 2, l, 3, 1);
    rig_get_item(&r, 2, l, 1, 1);

    rig_put_ok(&r, 0, p, 10);
    rig_put_ok(&r, 0, p, 20);
    t = rig_put(&r, 1, p, 5, -1);
    g = rig_get(&r, 2, p, 0);
    rig_expect_item(&r, 2, g, 10, 1);
    rig_expect(&r, 1, t, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_get_item(&r, 2, p, 5, 1);
    rig_get_item(&r, 2, p, 20, 1);
    rig_deinit(&r);
}

static void join_waits_for_task_done_of_every_put(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 2);

    rig_done(&r, 0, q, BROKER_REPLY_TOO_MANY_DONE);
    rig_expect(&r, 0, rig_do(&r, BROKER_JOIN, 0, q), BROKER_REPLY_NONE);
    rig_none(&r);
    rig_put_ok(&r, 0, q, 1);
    rig_put_ok(&r, 0, q, 2);
    uint64_t p = rig_put(&r, 1, q, 3, -1); /* counts when it enters */
    uint64_t j4 = rig_do(&r, BROKER_JOIN, 4, q);
    uint64_t j5 = rig_do(&r, BROKER_JOIN, 5, q);
    rig_none(&r);
    rig_done(&r, 2, q, BROKER_REPLY_NONE);
    uint64_t d = rig_do(&r, BROKER_TASK_DONE, 2, q);
    rig_expect(&r, 2, d, BROKER_REPLY_NONE);
    rig_expect(&r, 4, j4, BROKER_REPLY_NONE);
    rig_expect(&r, 5, j5, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_done(&r, 2, q, BROKER_REPLY_TOO_MANY_DONE);

    uint64_t g = rig_get(&r, 2, q, 0);
    rig_expect_item(&r, 2, g, 1, 1);
    rig_expect(&r, 1, p, BROKER_REPLY_NONE);
    rig_none(&r);
    j4 = rig_do(&r, BROKER_JOIN, 4, q);
    rig_none(&r);
    rig_get_item(&r, 2, q, 2, 1); /* get does not count */
    rig_get_item(&r, 2, q, 3, 1);
    d = rig_do(&r, BROKER_TASK_DONE, 2, q);
    rig_expect(&r, 2, d, BROKER_REPLY_NONE);
    rig_expect(&r, 4, j4, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_deinit(&r);
}

static void an_item_that_comes_back_counts_once(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);

    rig_put_ok(&r, 0, q, 1);
    rig_get_item(&r, 1, q, 1, 1);
    rig_delivered(&r, 1);
    rig_close(&r, 1, BROKER_CLOSE_RETURN);
    rig_get_item(&r, 1, q, 1, 2);
    rig_done(&r, 1, q, BROKER_REPLY_NONE);
    rig_done(&r, 1, q, BROKER_REPLY_TOO_MANY_DONE);
    rig_deinit(&r);
}

static void shutdown_lets_gets_drain(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 1);
    struct broker_queue *e = rig_queue(&r, "e", FIFO, AUTO, 1);

    rig_put_ok(&r, 0, q, 1);
    uint64_t p = rig_put(&r, 1, q, 2, -1);
    uint64_t j = rig_do(&r, BROKER_JOIN, 2, q);
    uint64_t d = rig_shutdown(&r, 3, q, false);
    rig_expect(&r, 3, d, BROKER_REPLY_NONE);
    assert_true(rig_expect(&r, 1, p, BROKER_REPLY_SHUTDOWN)->was_parked);
    rig_none(&r);
    assert_true(broker_queue_shut_down(q));
    assert_false(broker_queue_shut_down(e));
    rig_expect(&r, 0, rig_put(&r, 0, q, 3, -1), BROKER_REPLY_SHUTDOWN);
    rig_none(&r);
    rig_number(&r, 0, q, BROKER_QSIZE, 1);
    rig_get_item(&r, 4, q, 1, 1);
    rig_get_outcome(&r, 5, q, BROKER_REPLY_SHUTDOWN);
    rig_expect(&r, 5, rig_get(&r, 5, q, -1), BROKER_REPLY_SHUTDOWN);
    rig_none(&r);
    /* What comes back after the shutdown is still to be had. */
    rig_close(&r, 4, BROKER_CLOSE_RETURN);
    rig_get_item(&r, 5, q, 1, 1);
    d = rig_do(&r, BROKER_TASK_DONE, 5, q);
    rig_expect(&r, 5, d, BROKER_REPLY_NONE);
    rig_expect(&r, 2, j, BROKER_REPLY_NONE);
    rig_none(&r);

    uint64_t g1 = rig_get(&r, 1, e, -1), g2 = rig_get(&r, 2, e, 100);
    d = rig_shutdown(&r, 3, e, false);
    rig_expect(&r, 3, d, BROKER_REPLY_NONE);
    rig_expect(&r, 1, g1, BROKER_REPLY_SHUTDOWN);
    rig_expect(&r, 2, g2, BROKER_REPLY_SHUTDOWN);
    rig_none(&r);
    rig_deinit(&r);
}

static void immediate_shutdown_drops_and_counts_down(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        struct rig r;

        rig_init(&r);
        struct broker_queue *q = rig_queue(&r, "q", kinds[k], AUTO, 3);

        for (int i = 0; i < 3; i++)
            rig_put_ok(&r, 0, q, i);
        uint64_t p = rig_put(&r, 1, q, 9, 60000);
        uint64_t j = rig_do(&r, BROKER_JOIN, 2, q);
        uint64_t g = rig_get(&r, 3, q, 0); /* one is out: the join waits for it */
        rig_expect_item(&r, 3, g, kinds[k] == BROKER_LIFO ? 2 : 0, 1);
        rig_expect(&r, 1, p, BROKER_REPLY_NONE);
        rig_none(&r);
        rig_expect(&r, 4, rig_shutdown(&r, 4, q, true), BROKER_REPLY_NONE);
        rig_none(&r);
        rig_number(&r, 4, q, BROKER_QSIZE, 0);
        rig_get_outcome(&r, 5, q, BROKER_REPLY_SHUTDOWN);
        uint64_t d = rig_do(&r, BROKER_TASK_DONE, 3, q);
        rig_expect(&r, 3, d, BROKER_REPLY_NONE);
        rig_expect(&r, 2, j, BROKER_REPLY_NONE);
        rig_none(&r);
        assert_int_equal(rig_stats(&r).dropped, 3);
        assert_int_equal(rig_stats(&r).body_bytes, 0);
        rig_deinit(&r);

        /* The count never falls below zero, and joins are woken by the shutdown itself. */
        rig_init(&r);
        q = rig_queue(&r, "q", kinds[k], AUTO, 0);
        rig_put_ok(&r, 0, q, 1);
        rig_put_ok(&r, 0, q, 2);
        rig_done(&r, 0, q, BROKER_REPLY_NONE);
        j = rig_do(&r, BROKER_JOIN, 2, q);
        d = rig_shutdown(&r, 4, q, true);
        rig_expect(&r, 4, d, BROKER_REPLY_NONE);
        rig_expect(&r, 2, j, BROKER_REPLY_NONE);
        rig_none(&r);
        rig_done(&r, 0, q, BROKER_REPLY_TOO_MANY_DONE);
        rig_deinit(&r);
    }
}

static void a_put_that_cannot_be_ordered_is_not_kept(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, AUTO, 3);

    rig_put_ok(&r, 0, q, 2);
    rig_put_ok(&r, 0, q, 1);
    uint64_t t = rig_put_len(&r, 0, q, RIG_NO_ORDER, 77, 0, 0);
    assert_string_equal(rig_expect(&r, 0, t, BROKER_REPLY_TYPE_ERROR)->text, "no order between 77 and 1");
    rig_none(&r);
    rig_number(&r, 0, q, BROKER_QSIZE, 2);
    rig_put_ok(&r, 0, q, 3);
    t = rig_put_len(&r, 0, q, RIG_NO_ORDER, 78, 0, -1); /* full: the comparison comes later */
    uint64_t t4 = rig_put(&r, 2, q, 4, -1);
    rig_none(&r);
    uint64_t g = rig_get(&r, 1, q, 0);
    rig_expect_item(&r, 1, g, 1, 1);
    assert_true(rig_expect(&r, 0, t, BROKER_REPLY_TYPE_ERROR)->was_parked);
    rig_expect(&r, 2, t4, BROKER_REPLY_NONE); /* the room that the other did not take */
    rig_none(&r);
    for (int i = 2; i <= 4; i++)
        rig_get_item(&r, 1, q, i, 1);
    for (int i = 0; i < 4; i++)
        rig_done(&r, 1, q, BROKER_REPLY_NONE);
    rig_done(&r, 1, q, BROKER_REPLY_TOO_MANY_DONE); /* the refused ones did not count */

    /* No memory to compare: refused as well. */
    rig_put_ok(&r, 0, q, 1);
    rig_less_result = TQ_ENOMEM;
    rig_expect(&r, 0, rig_put(&r, 0, q, 2, 0), BROKER_REPLY_NO_MEMORY);
    rig_none(&r);
    rig_less_result = 0;
    rig_number(&r, 0, q, BROKER_QSIZE, 1);
    rig_deinit(&r);
}

static void a_get_that_cannot_order_loses_nothing(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, AUTO, 0);
    struct broker_queue *o = rig_queue(&r, "o", FIFO, AUTO, 0);

    for (int i = 1; i <= 7; i++)
        rig_put_ok(&r, 0, q, i);
    rig_put_ok(&r, 0, o, 50);
    rig_get_item(&r, 1, o, 50, 1);
    rig_less_result = TQ_ENOMEM;
    rig_get_outcome(&r, 1, q, BROKER_REPLY_NO_MEMORY);
    rig_less_result = 0;
    assert_int_equal(r.s[1].held_count, 1); /* no effect at all: the lease stands */
    rig_number(&r, 0, q, BROKER_QSIZE, 7);
    for (int i = 1; i <= 7; i++)
        rig_get_item(&r, 1, q, i, 1);

    /* 8, 9 and one without order: the heap takes it while it is compared with nothing. */
    rig_expect(&r, 0, rig_put_len(&r, 0, q, RIG_NO_ORDER, 70, 0, 0), BROKER_REPLY_NONE);
    rig_none(&r);
    rig_get_item(&r, 2, q, 70, 1);
    rig_put_ok(&r, 0, q, 8);
    rig_put_ok(&r, 0, q, 9);
    rig_close(&r, 2, BROKER_CLOSE_RETURN); /* 70 comes back: not lost, and before the others */
    rig_number(&r, 0, q, BROKER_QSIZE, 3);
    rig_get_item(&r, 2, q, 70, 1);
    rig_get_item(&r, 2, q, 8, 1);
    rig_get_item(&r, 2, q, 9, 1);
    rig_deinit(&r);
}

/* [1, x, 2] where x loses its order while it stands there: the pop compares the last item with x. */
static void an_unordered_pop_is_a_type_error(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, AUTO, 0);
    struct tq_body *x = rig_body_new(5, 500, 2000); /* large ones are not copied */
    struct broker_event ev = rig_call(&r, BROKER_PUT, 0, q, 0);
    struct rig_body no_order = {.key = RIG_NO_ORDER, .id = 500};

    rig_put_ok(&r, 0, q, 1);
    ev.payload = rig_payload(x);
    rig_step(&r, &ev);
    rig_expect(&r, 0, ev.token, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_put_ok(&r, 0, q, 2);
    memcpy(x->data, &no_order, sizeof(no_order));
    uint64_t t = rig_get(&r, 1, q, 0);
    assert_string_equal(rig_expect(&r, 1, t, BROKER_REPLY_TYPE_ERROR)->text, "no order between 2 and 500");
    rig_none(&r);
    rig_number(&r, 0, q, BROKER_QSIZE, 3);
    no_order.key = 5;
    memcpy(x->data, &no_order, sizeof(no_order));
    rig_get_item(&r, 1, q, 1, 1);
    rig_get_item(&r, 1, q, 2, 1);
    rig_get_item(&r, 1, q, 500, 1);
    tq_body_unref(x);
    rig_deinit(&r);
}

/* Items that come back stand in order, then cannot be compared any more: the getter is told, they stay. */
static void an_unordered_hand_out_is_a_type_error(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, BROKER_ACK_EXPLICIT, 0);

    for (int i = 1; i <= 3; i++)
        rig_put_ok(&r, 0, q, i);
    for (int i = 1; i <= 3; i++)
        rig_get_item(&r, 1, q, i, 1);
    uint64_t t = rig_get(&r, 2, q, 1000);
    rig_none(&r);
    rig_less_calls = 2; /* two to put three back */
    rig_close(&r, 1, BROKER_CLOSE_RETURN);
    assert_true(rig_expect(&r, 2, t, BROKER_REPLY_TYPE_ERROR)->was_parked);
    rig_none(&r);
    rig_number(&r, 2, q, BROKER_QSIZE, 3);
    for (int i = 1; i <= 3; i++)
        rig_get_item(&r, 2, q, i, i < 3 ? 2 : 1);
    rig_deinit(&r);
}

static void cancel_and_close_end_a_parked_call(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 1);
    struct broker_event ev = rig_call(&r, BROKER_PUT, 2, q, 100);

    rig_step(&r, &(struct broker_event){.kind = BROKER_CANCEL, .session = &r.s[0]}); /* nothing parked */
    rig_get(&r, 0, q, 100);
    uint64_t t1 = rig_get(&r, 1, q, -1);
    rig_step(&r, &(struct broker_event){.kind = BROKER_CANCEL, .session = &r.s[0]});
    assert_false(broker_session_parked(&r.s[0]));
    rig_none(&r);
    uint64_t p = rig_put(&r, 3, q, 1, 0);
    rig_expect(&r, 3, p, BROKER_REPLY_NONE);
    rig_expect_item(&r, 1, t1, 1, 1);
    rig_none(&r);
    rig_put_ok(&r, 3, q, 2);

    struct tq_body *body = rig_body_new(5, 5, 2000);
    ev.payload = rig_payload(body);
    rig_step(&r, &ev);
    assert_int_equal(body->refs, 2);
    assert_int_equal(rig_stats(&r).parked_bytes, body->len + BROKER_BODY_OVERHEAD_BYTES);
    uint64_t t6 = rig_put(&r, 4, q, 6, -1);
    rig_close(&r, 2, BROKER_CLOSE_ACK); /* its put never was */
    assert_int_equal(body->refs, 1);
    tq_body_unref(body);
    uint64_t g = rig_get(&r, 5, q, 0);
    rig_expect_item(&r, 5, g, 2, 1);
    rig_expect(&r, 4, t6, BROKER_REPLY_NONE);
    rig_none(&r);
    rig_get(&r, 0, q, 0);
    r.seen++;
    uint64_t j = rig_do(&r, BROKER_JOIN, 6, q);
    (void)j;
    rig_close(&r, 6, BROKER_CLOSE_RETURN);
    rig_pass(&r, 1000);
    assert_int_equal(rig_stats(&r).waiting, 0);
    rig_deinit(&r);
}

static void names_are_checked_and_queues_limited(void **state)
{
    struct rig r;
    struct broker_queue_conf conf;
    struct broker_queue *q = NULL;
    char name[BROKER_QUEUE_NAME_MAX + 2];

    (void)state;
    rig_init_limits(&r, &(struct broker_limits){.queues = 3});
    broker_queue_conf_init(&conf);
    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    static const char *const bad[] = {"", "a b", "a/b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(broker_declare(r.b, bad[i], &conf, &q), TQ_EINVAL);
    assert_int_equal(broker_declare(r.b, name, &conf, &q), TQ_EINVAL);
    assert_null(broker_find(r.b, tq_span_str(name)));
    name[BROKER_QUEUE_NAME_MAX] = '\0';
    assert_int_equal(broker_declare(r.b, name, &conf, &q), 0);
    assert_ptr_equal(broker_find(r.b, tq_span_str(name)), q);
    assert_string_equal(broker_queue_name(q), name);
    assert_int_equal(broker_declare(r.b, name, &conf, &q), TQ_EEXISTS);
    conf.kind = BROKER_LIFO;
    conf.ack = BROKER_ACK_GET;
    conf.maxsize = 7;
    assert_int_equal(broker_declare(r.b, "A.b_c-9", &conf, &q), 0);
    conf.maxsize = 0;
    assert_int_equal(broker_queue_conf(q)->maxsize, 7);
    assert_int_equal(broker_queue_conf(q)->ack, BROKER_ACK_GET);
    conf.kind = (enum broker_kind)9;
    assert_int_equal(broker_declare(r.b, "x", &conf, &q), TQ_EINVAL);
    conf.kind = BROKER_FIFO;
    conf.ack = (enum broker_ack)9;
    assert_int_equal(broker_declare(r.b, "x", &conf, &q), TQ_EINVAL);
    conf.ack = BROKER_ACK_AUTO;
    conf.dead = "x"; /* itself */
    assert_int_equal(broker_declare(r.b, "x", &conf, &q), TQ_EINVAL);
    conf.dead = "x2";
    assert_int_equal(broker_declare(r.b, "x", &conf, &q), 0);
    conf.dead = NULL;
    assert_int_equal(broker_declare(r.b, "y", &conf, &q), TQ_ELIMIT);
    assert_null(broker_find(r.b, tq_span("", 0)));
    assert_null(broker_find(r.b, tq_span_str("nope")));
    broker_remove(r.b, q, &r.fx);
    assert_null(broker_find(r.b, tq_span_str("x")));
    assert_int_equal(broker_declare(r.b, "y", &conf, &q), 0);
    rig_deinit(&r);

    struct tq_deadlines dl;
    tq_deadlines_init(&dl);
    struct broker *b = broker_new(&dl, &(struct broker_limits){.queues = 3}, NULL);
    conf.kind = BROKER_PRIORITY;
    assert_int_equal(broker_declare(b, "p", &conf, &q), TQ_EINVAL);
    broker_free(b);
    tq_deadlines_deinit(&dl);
}

static void a_removed_queue_answers_its_waiters_and_outlives_its_leases(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_PRIORITY};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct rig r;

        rig_init(&r);
        struct broker_queue *q = rig_queue(&r, "q", kinds[k], AUTO, 2);
        struct broker_queue *e = rig_queue(&r, "e", kinds[k], BROKER_ACK_EXPLICIT, 0);

        for (int i = 0; i < 6; i++)
            rig_put_ok(&r, 0, e, i);
        for (int i = 0; i < 3; i++)
            rig_get_item(&r, i, e, i, 1);
        rig_put_ok(&r, 0, q, 1);
        rig_put_ok(&r, 0, q, 2);
        struct broker_lease_name t = rig_get_item(&r, 3, q, 1, 1);
        rig_put_ok(&r, 0, q, 3);
        uint64_t p = rig_put(&r, 4, q, 4, -1), j = rig_do(&r, BROKER_JOIN, 5, q);
        rig_none(&r);
        broker_remove(r.b, q, &r.fx);
        rig_check(&r);
        rig_expect(&r, 4, p, BROKER_REPLY_SHUTDOWN);
        rig_expect(&r, 5, j, BROKER_REPLY_SHUTDOWN);
        rig_none(&r);
        broker_remove(r.b, e, &r.fx);
        rig_check(&r);
        rig_none(&r);
        assert_int_equal(rig_stats(&r).leased, 4);
        assert_int_equal(rig_stats(&r).tasks, 4);
        q = rig_queue(&r, "q", FIFO, AUTO, 0); /* the name is free */
        rig_get_outcome(&r, 0, q, BROKER_REPLY_EMPTY);

        rig_bounce(&r, 3, t);
        rig_close(&r, 0, BROKER_CLOSE_RETURN);
        rig_close(&r, 1, BROKER_CLOSE_ACK);
        assert_int_equal(rig_stats(&r).tasks, 1); /* session 2 holds it still, at the end too */
        rig_none(&r);
        rig_deinit(&r);
    }
}

static void removal_serves_parked_gets(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", FIFO, AUTO, 0);
    uint64_t g0 = rig_get(&r, 0, q, 10), g1 = rig_get(&r, 1, q, -1);

    broker_remove(r.b, q, &r.fx);
    rig_expect(&r, 0, g0, BROKER_REPLY_SHUTDOWN);
    rig_expect(&r, 1, g1, BROKER_REPLY_SHUTDOWN);
    rig_pass(&r, 100);
    rig_deinit(&r);
}

static void memory_comes_back_after_a_drain(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    struct broker_queue *q = rig_queue(&r, "q", BROKER_PRIORITY, AUTO, 0);

    for (int i = 0; i < 1000; i++)
        rig_put_len(&r, 0, q, i % 7, i, 0, 0), r.seen++;
    assert_true(q->heap.cap >= 1000);
    for (int i = 0; i < 1000; i++)
        rig_get(&r, 1, q, 0), r.seen++;
    rig_get(&r, 1, q, 0), r.seen++;
    assert_true(q->heap.cap <= 16);
    assert_int_equal(rig_stats(&r).body_bytes, 0);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifo_lifo_and_priority_come_out_in_their_order),
        cmocka_unit_test(get_on_empty_replies_or_waits),
        cmocka_unit_test(getters_are_served_first_come_first_served),
        cmocka_unit_test(a_put_on_a_full_queue_replies_or_waits),
        cmocka_unit_test(a_parked_put_enters_by_the_order_of_its_kind),
        cmocka_unit_test(join_waits_for_task_done_of_every_put),
        cmocka_unit_test(an_item_that_comes_back_counts_once),
        cmocka_unit_test(shutdown_lets_gets_drain),
        cmocka_unit_test(immediate_shutdown_drops_and_counts_down),
        cmocka_unit_test(a_put_that_cannot_be_ordered_is_not_kept),
        cmocka_unit_test(a_get_that_cannot_order_loses_nothing),
        cmocka_unit_test(an_unordered_pop_is_a_type_error),
        cmocka_unit_test(an_unordered_hand_out_is_a_type_error),
        cmocka_unit_test(cancel_and_close_end_a_parked_call),
        cmocka_unit_test(names_are_checked_and_queues_limited),
        cmocka_unit_test(a_removed_queue_answers_its_waiters_and_outlives_its_leases),
        cmocka_unit_test(removal_serves_parked_gets),
        cmocka_unit_test(memory_comes_back_after_a_drain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
