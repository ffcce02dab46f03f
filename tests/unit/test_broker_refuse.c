/* New work is refused while the log has no room for it: whoever holds nothing waits or is told; completions
 * go on. */
#include "tests/unit/broker_native_rig.h"

static struct broker_queue *queue(struct nr *r, const char *name, int64_t maxsize, bool reject_full)
{
    struct broker_queue_conf c = nr_conf("results", "dead");

    c.maxsize = maxsize;
    c.reject_full = reject_full;
    return nr_declare(r, name, &c);
}

/* A put of a session; wait_ms -1: for ever. Its token. */
static uint64_t put(struct nr *r, int s, struct broker_queue *q, const char *body, int64_t wait_ms)
{
    struct broker_event ev = nr_event(r, BROKER_PUT, s);

    ev.queue = q;
    ev.payload = nr_payload(body);
    ev.payload.format = s == NR_PYTHON ? BROKER_PYTHON : BROKER_MSGPACK;
    ev.wait_mode = wait_ms < 0 ? BROKER_WAIT_FOREVER : wait_ms > 0 ? BROKER_WAIT_MS : BROKER_NO_WAIT;
    ev.wait_ms = wait_ms > 0 ? (uint64_t)wait_ms : 0;
    nr_step(r, &ev);
    return ev.token;
}

static void assert_outcome(const struct nr *r, uint64_t token, enum broker_outcome outcome)
{
    const struct broker_effect *e = nr_find(r, token);

    assert_true(e != NULL && e->outcome == outcome);
}

static void refuse(struct nr *r, bool yes)
{
    broker_effects_clear(&r->fx);
    broker_refuse_new_work(r->b, r->now_ms, yes, &r->fx);
    jr_check(r->b);
}

static void new_work_is_refused_by_name(void **state)
{
    struct broker_put_options o = {.key = tq_span_str("k")};
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = queue(&r, "q", 2, false), *reject = queue(&r, "reject", 2, true);
    uint64_t id = nr_put_with(&r, 0, q, "1", &o);

    refuse(&r, true);
    assert_int_equal(r.fx.count, 0);
    assert_outcome(&r, put(&r, 0, q, "2", 0), BROKER_REPLY_NO_SPACE);
    assert_outcome(&r, put(&r, NR_PYTHON, q, "2", 0), BROKER_REPLY_FULL);
    assert_outcome(&r, put(&r, 0, reject, "2", -1), BROKER_REPLY_NO_SPACE);
    assert_int_equal(broker_queue_size(q), 1);
    /* It would be no new one. */
    struct broker_event ev = nr_event(&r, BROKER_PUT, 0);
    ev.queue = q;
    ev.payload = nr_payload("2");
    ev.options = &o;
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_KNOWN);
    assert_int_equal(r.fx.list[0].id, id);
    /* Whoever waits until time is up is told the same. */
    uint64_t native = put(&r, 0, q, "3", 20), python = put(&r, NR_PYTHON, q, "3", 30);
    assert_int_equal(r.fx.count, 0);
    nr_pass(&r, 20);
    assert_outcome(&r, native, BROKER_REPLY_NO_SPACE);
    nr_pass(&r, 10);
    assert_outcome(&r, python, BROKER_REPLY_FULL);
    refuse(&r, false);
    nr_put(&r, 0, q, "4");
    /* A full queue is full. */
    refuse(&r, true);
    assert_outcome(&r, put(&r, 0, q, "5", 0), BROKER_REPLY_FULL);
    nr_deinit(&r);
}

static void those_who_wait_are_served_when_it_ends(void **state)
{
    struct nr r;
    uint64_t t[4];

    (void)state;
    nr_init(&r);
    struct broker_queue *a = queue(&r, "a", 0, false), *b = queue(&r, "b", 2, false);

    refuse(&r, true);
    for (int i = 0; i < 3; i++)
        t[i] = put(&r, i, i == 1 ? a : b, "x", -1);
    t[3] = put(&r, NR_PYTHON, b, "x", -1);
    assert_int_equal(nr_stats(&r).waiting, 4);
    refuse(&r, true); /* again: nothing */
    assert_int_equal(r.fx.count, 0);
    refuse(&r, false);
    assert_int_equal(r.fx.count, 3);
    for (int i = 0; i < 3; i++)
        assert_outcome(&r, t[i], BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).waiting, 1); /* b is full */
    nr_get(&r, 3, b, 0);
    assert_outcome(&r, t[3], BROKER_REPLY_NONE);
    nr_deinit(&r);
}

static void completions_go_on(void **state)
{
    struct broker_event get;
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *work = queue(&r, "work", 0, false);
    struct broker_queue *results = nr_queue(&r, "results"), *dead = nr_queue(&r, "dead");

    for (int i = 0; i < 5; i++)
        nr_put(&r, 0, work, "x");
    refuse(&r, true);
    uint64_t waits = put(&r, 0, results, "new", -1);
    assert_int_equal(nr_done(&r, nr_get(&r, 1, work, 0), "r"), BROKER_REPLY_OK);
    assert_int_equal(nr_fail(&r, nr_get(&r, 1, work, 0), "no", true), BROKER_REPLY_OK);
    assert_int_equal(broker_queue_size(results), 1);
    assert_int_equal(broker_queue_size(dead), 1);
    /* A put of a session that holds something, past those who hold nothing. */
    struct nr_lease l = nr_get(&r, 2, work, 0);
    assert_outcome(&r, put(&r, 2, results, "more", 0), BROKER_REPLY_OK);
    assert_int_equal(broker_queue_size(results), 2);
    assert_int_equal(nr_done(&r, l, NULL), BROKER_REPLY_OK);
    assert_outcome(&r, put(&r, 2, results, "more", 0), BROKER_REPLY_NO_SPACE); /* now it holds nothing */
    get = nr_event(&r, BROKER_GET, NR_PYTHON);
    get.queue = work;
    assert_int_equal(nr_call(&r, &get), BROKER_REPLY_ITEM);
    assert_outcome(&r, put(&r, NR_PYTHON, results, "result", 0), BROKER_REPLY_NONE);
    assert_int_equal(broker_queue_size(results), 4);
    assert_null(nr_find(&r, waits));
    refuse(&r, false);
    assert_outcome(&r, waits, BROKER_REPLY_OK);
    assert_int_equal(broker_queue_size(results), 5);
    nr_deinit(&r);
}

/* Who waits for room in a queue: those who bring completions go first as long as the others may not. */
static void completions_that_wait_go_first(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *work = queue(&r, "work", 0, false), *small = queue(&r, "small", 1, false);

    nr_put(&r, 0, work, "1");
    nr_put(&r, 0, work, "2");
    nr_put(&r, 0, small, "1");
    nr_get(&r, 2, work, 0);
    nr_get(&r, 3, work, 0);
    uint64_t fresh = put(&r, 0, small, "new", -1), first = put(&r, 2, small, "first", -1);
    refuse(&r, true);
    uint64_t second = put(&r, 3, small, "second", -1), python = put(&r, NR_PYTHON, small, "new", -1);
    nr_get(&r, 4, small, 0);
    assert_null(nr_find(&r, fresh));
    assert_outcome(&r, first, BROKER_REPLY_OK);
    nr_get(&r, 4, small, 0);
    assert_outcome(&r, second, BROKER_REPLY_OK);
    nr_get(&r, 4, small, 0);
    assert_int_equal(broker_queue_size(small), 0);
    assert_int_equal(nr_stats(&r).waiting, 2);
    /* There is room now, so one that comes has not to wait at all. */
    assert_outcome(&r, put(&r, 2, small, "third", 0), BROKER_REPLY_OK);
    assert_outcome(&r, put(&r, 2, small, "fourth", 0), BROKER_REPLY_FULL);
    refuse(&r, false);
    assert_int_equal(r.fx.count, 0); /* it is full */
    nr_get(&r, 4, small, 0);
    assert_outcome(&r, fresh, BROKER_REPLY_OK);
    nr_get(&r, 4, small, 0);
    assert_outcome(&r, python, BROKER_REPLY_NONE);
    nr_deinit(&r);
}

static void it_goes_with_the_memory_limit(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    char large[2001];
    struct nr r;

    (void)state;
    nr_init_limits(&r, &(struct broker_limits){.queues = 9, .memory_bytes = 8000}); /* 7000 for new work */
    struct broker_queue *a = nr_declare(&r, "a", &c), *b = nr_declare(&r, "b", &c);

    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = 0;
    for (int i = 0; i < 3; i++)
        nr_put(&r, 0, a, large);
    struct nr_lease l = nr_get(&r, 5, a, 0);
    uint64_t new_a = put(&r, 1, a, large, -1), new_b = put(&r, 2, b, large, -1);
    refuse(&r, true);
    uint64_t done_b = put(&r, 5, b, large, -1); /* no memory, even for a completion */
    assert_int_equal(nr_stats(&r).waiting, 3);
    struct nr_lease l2 = nr_get(&r, 5, a, 0);
    assert_int_equal(nr_done(&r, l2, NULL), BROKER_REPLY_OK);
    assert_outcome(&r, done_b, BROKER_REPLY_OK);
    assert_int_equal(nr_done(&r, l, NULL), BROKER_REPLY_OK);
    assert_null(nr_find(&r, new_a));
    refuse(&r, false);
    assert_outcome(&r, new_a, BROKER_REPLY_OK);
    assert_null(nr_find(&r, new_b));
    assert_int_equal(nr_done(&r, nr_get(&r, 5, a, 0), NULL), BROKER_REPLY_OK);
    assert_outcome(&r, new_b, BROKER_REPLY_OK);
    nr_deinit(&r);
}

static void without_memory_they_are_served_later(void **state)
{
    (void)state;
    for (long n = 0; n < 6; n++) {
        struct nr r;
        uint64_t t;

        nr_init(&r);
        struct broker_queue *q = queue(&r, "q", 0, false);
        refuse(&r, true);
        t = put(&r, 0, q, "x", -1);
        broker_effects_deinit(&r.fx);
        tq_mem_fail_after(n, 1);
        broker_refuse_new_work(r.b, r.now_ms, false, &r.fx);
        tq_mem_fail_after(-1, 0);
        jr_check(r.b);
        if (r.fx.count == 0)
            nr_pass(&r, 20);
        assert_outcome(&r, t, BROKER_REPLY_OK);
        assert_int_equal(broker_queue_size(q), 1);
        nr_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_work_is_refused_by_name),
        cmocka_unit_test(those_who_wait_are_served_when_it_ends),
        cmocka_unit_test(completions_go_on),
        cmocka_unit_test(completions_that_wait_go_first),
        cmocka_unit_test(it_goes_with_the_memory_limit),
        cmocka_unit_test(without_memory_they_are_served_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
