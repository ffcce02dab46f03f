/* Policies of queues: rate, concurrency, pause, what a change of them does, and queues that nobody uses. */
#include "tests/unit/policy_rig.h"

RIG_DEFINE_LESS

static struct broker_queue *limited(struct rig *r, uint32_t rate, uint32_t burst)
{
    struct broker_queue_conf c = p_conf();

    c.rate_per_s = rate;
    c.rate_burst = burst;
    return p_queue(r, "q", &c);
}

static void fill(struct rig *r, struct broker_queue *q, int n)
{
    for (int i = 0; i < n; i++)
        p_put(r, q, "t", NULL);
}

/* Gets until it is empty handed. */
static int drain(struct rig *r, struct broker_queue *q)
{
    for (int n = 0;; n++) {
        uint64_t token = p_get(r, 1, q, 1, 0);

        if (r->fx.list[r->seen].outcome == BROKER_REPLY_EMPTY) {
            p_expect(r, 1, token, BROKER_REPLY_EMPTY);
            rig_none(r);
            return n;
        }
        p_done(r, 1, p_served(r, 1, token, "t"), NULL);
        rig_none(r);
    }
}

static void a_burst_then_the_rate(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 10, 4);
    fill(&r, q, 20);
    assert_int_equal(drain(&r, q), 4);
    rig_pass(&r, 99);
    assert_int_equal(drain(&r, q), 0);
    rig_pass(&r, 1);
    assert_int_equal(drain(&r, q), 1);
    rig_pass(&r, 250);
    assert_int_equal(drain(&r, q), 2);
    rig_pass(&r, 50); /* the half token was kept */
    assert_int_equal(drain(&r, q), 1);
    rig_pass(&r, 100000);
    assert_int_equal(drain(&r, q), 4); /* no more than the burst is ever saved */
    rig_deinit(&r);
}

static void the_burst_is_the_rate_unless_said(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 7, 0);
    fill(&r, q, 20);
    assert_int_equal(drain(&r, q), 7);
    rig_pass(&r, 2000);
    assert_int_equal(drain(&r, q), 7);
    rig_deinit(&r);
}

/* 3 a second is a token in 333.3 ms: nothing is rounded away, however often one asks. */
static void a_rate_does_not_drift(void **state)
{
    struct rig r;
    int n = 0;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 3, 2);
    fill(&r, q, 303);
    assert_int_equal(drain(&r, q), 2);
    for (int ms = 1; ms <= 100000; ms++) {
        r.now_ms++;
        n += ms % 7 == 0 ? drain(&r, q) : 0;
    }
    assert_int_equal(n + drain(&r, q), 300);
    rig_deinit(&r);
}

static void who_waits_gets_the_token_in_its_millisecond(void **state)
{
    static const uint64_t at[] = {334, 667, 1000, 1334, 1667, 2000};
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 3, 1);
    fill(&r, q, 8);
    uint64_t start = r.now_ms;
    assert_int_equal(drain(&r, q), 1);
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        uint64_t token = p_get(&r, 1, q, 5, -1);

        assert_int_equal(p_next_ms(&r), start + at[i]);
        rig_pass(&r, start + at[i] - 1 - r.now_ms);
        rig_none(&r);
        rig_pass(&r, 1);
        p_done(&r, 1, p_served(&r, 1, token, "t"), NULL);
        rig_none(&r);
    }
    rig_deinit(&r);
}

/* A rate that is no divisor of a second's milliseconds, or comes in faster than one a millisecond. */
static void who_waits_gets_the_whole_rate_with_the_smallest_burst(void **state)
{
    static const uint32_t rates[] = {7, 700, 999, 1000, 1001, 2500};

    (void)state;
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        struct rig r;
        uint32_t n = 0;

        p_init(&r);
        struct broker_queue *q = limited(&r, rates[i], 1);
        uint32_t at_once = (rates[i] + 999) / 1000;
        uint64_t end_ms = r.now_ms + 1000;
        fill(&r, q, (int)(rates[i] + at_once));
        assert_int_equal(drain(&r, q), at_once);
        while (r.now_ms < end_ms) {
            uint64_t token = p_get(&r, 1, q, 1, -1);

            if (r.fx.count == r.seen)
                rig_pass(&r, p_next_ms(&r) - r.now_ms);
            if (r.now_ms > end_ms || r.fx.count == r.seen)
                break;
            p_done(&r, 1, p_served(&r, 1, token, "t"), NULL);
            rig_none(&r);
            n++;
        }
        n += (uint32_t)drain(&r, q);
        assert_int_equal(n, rates[i]);
        rig_deinit(&r);
    }
}

static void a_batch_takes_the_tokens_there_are(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 1000, 3);
    fill(&r, q, 10);
    uint64_t token = p_get(&r, 1, q, 10, 0);
    for (int i = 0; i < 3; i++)
        p_task(&r, 1, token, "t");
    p_end(&r, 1, token, 3);
    rig_none(&r);
    /* First come, first served, also when tokens are short. */
    uint64_t a = p_get(&r, 1, q, 10, -1), b = p_get(&r, 2, q, 10, -1);
    rig_none(&r);
    rig_pass(&r, 2);
    p_task(&r, 1, a, "t");
    p_task(&r, 1, a, "t");
    p_end(&r, 1, a, 2);
    rig_none(&r);
    rig_pass(&r, 1);
    p_served(&r, 2, b, "t");
    rig_deinit(&r);
}

static void the_largest_rate_and_the_longest_time_do_not_overflow(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 512, 4);
    fill(&r, q, 9);
    assert_int_equal(drain(&r, q), 4);
    r.now_ms += 1ull << 55; /* 2^64 millitokens */
    assert_int_equal(drain(&r, q), 4);
    rig_deinit(&r);
    p_init(&r);
    q = limited(&r, UINT32_MAX, UINT32_MAX);
    fill(&r, q, 5);
    r.now_ms = 1ull << 55;
    assert_int_equal(drain(&r, q), 5);
    fill(&r, q, 5);
    r.now_ms = (1ull << 56) - 100000; /* no later moment is known */
    assert_int_equal(drain(&r, q), 5);
    struct broker_queue_conf c = p_conf();
    c.rate_per_s = 1;
    c.rate_burst = 2;
    p_reconfigure(&r, q, &c); /* the bucket held billions */
    fill(&r, q, 5);
    assert_int_equal(drain(&r, q), 2);
    rig_pass(&r, 1000);
    assert_int_equal(drain(&r, q), 1);
    rig_deinit(&r);
}

static void limited_queues_cost_nothing_while_idle(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue_conf c = p_conf();
    c.rate_per_s = 5;
    c.concurrency = 2;
    for (int i = 0; i < 90; i++) {
        char name[16];

        snprintf(name, sizeof(name), "q%d", i);
        struct broker_queue *q = p_queue(&r, name, &c);
        fill(&r, q, 3);
        p_done(&r, 1, p_take(&r, 1, q, "t"), NULL);
        rig_none(&r);
    }
    assert_int_equal(p_next_ms(&r), NEVER);
    rig_deinit(&r);
}

static void so_many_leases_and_no_more(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.concurrency = 2;
    struct broker_queue *q = p_queue(&r, "q", &c);
    fill(&r, q, 9);
    uint64_t token = p_get(&r, 1, q, 9, 0);
    struct held a = p_task(&r, 1, token, "t"), b = p_task(&r, 1, token, "t");
    p_end(&r, 1, token, 2);
    rig_none(&r);
    p_empty(&r, q);
    uint64_t w2 = p_get(&r, 2, q, 1, -1), w3 = p_get(&r, 3, q, 1, -1), w4 = p_get(&r, 4, q, 1, -1);
    rig_none(&r);
    p_done(&r, 1, a, NULL);
    struct held h2 = p_task(&r, 2, w2, "t");
    p_end(&r, 2, w2, 1);
    rig_none(&r);
    p_fail(&r, 1, b, true);
    p_task(&r, 3, w3, "t");
    p_end(&r, 3, w3, 1);
    rig_none(&r);
    rig_close(&r, 3, BROKER_CLOSE_RETURN); /* a death makes room, too */
    p_served(&r, 4, w4, "t");
    p_empty(&r, q);
    uint64_t w5 = p_get(&r, 5, q, 1, -1);
    p_release(&r, 2, h2);
    p_served(&r, 5, w5, "t");
    rig_deinit(&r);
}

static void what_python_takes_counts_until_it_has_arrived(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.concurrency = 1;
    c.ack = BROKER_ACK_GET;
    struct broker_queue *q = p_queue(&r, "q", &c);
    for (int i = 1; i <= 3; i++)
        rig_put_ok(&r, 8, q, i);
    rig_get_item(&r, 9, q, 1, 1);
    uint64_t token = rig_get(&r, 10, q, -1);
    rig_none(&r);
    rig_delivered(&r, 9);
    rig_expect_item(&r, 10, token, 2, 1);
    rig_none(&r);
    rig_get_outcome(&r, 9, q, BROKER_REPLY_EMPTY);
    rig_deinit(&r);
}

static void a_paused_queue_takes_and_does_not_give(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.paused = true;
    c.maxsize = 2;
    struct broker_queue *q = p_queue(&r, "q", &c);
    p_put(&r, q, "a", NULL);
    p_put(&r, q, "b", NULL);
    p_put_fails(&r, q, NULL, BROKER_REPLY_FULL);
    p_empty(&r, q);
    assert_true(p_stats(&r, q).paused);
    uint64_t t1 = p_get(&r, 1, q, 1, -1), t9 = rig_get(&r, 9, q, -1), t2 = p_get(&r, 2, q, 9, 50);
    uint64_t put = p_put_wait(&r, 3, q, "c", NULL, -1);
    rig_none(&r);
    rig_pass(&r, 50);
    p_expect(&r, 2, t2, BROKER_REPLY_EMPTY);
    rig_none(&r);
    c.paused = false;
    p_reconfigure(&r, q, &c);
    p_task(&r, 1, t1, "a");
    p_end(&r, 1, t1, 1);
    assert_int_equal(p_expect(&r, 9, t9, BROKER_REPLY_ITEM)->attempt, 1);
    p_expect(&r, 3, put, BROKER_REPLY_OK);
    rig_none(&r);
    p_take(&r, 2, q, "c");
    c.paused = true;
    p_reconfigure(&r, q, &c);
    rig_none(&r);
    p_put(&r, q, "d", NULL);
    p_empty(&r, q);
    rig_deinit(&r);
}

static void another_maxsize_counts_at_once(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.maxsize = 1;
    struct broker_queue *q = p_queue(&r, "q", &c);
    p_put(&r, q, "a", NULL);
    uint64_t b = p_put_wait(&r, 1, q, "b", NULL, -1), d = p_put_wait(&r, 2, q, "c", NULL, -1);
    uint64_t e = p_put_wait(&r, 3, q, "d", NULL, -1);
    rig_none(&r);
    c.maxsize = 3;
    p_reconfigure(&r, q, &c);
    p_expect(&r, 1, b, BROKER_REPLY_OK);
    p_expect(&r, 2, d, BROKER_REPLY_OK);
    rig_none(&r);
    c.maxsize = 1; /* nothing is thrown away; it is full until there is room */
    p_reconfigure(&r, q, &c);
    rig_none(&r);
    p_take(&r, 4, q, "a");
    p_take(&r, 4, q, "b");
    uint64_t g = p_get(&r, 4, q, 1, 0);
    p_task(&r, 4, g, "c");
    p_end(&r, 4, g, 1);
    p_expect(&r, 3, e, BROKER_REPLY_OK);
    rig_none(&r);
    c.reject_full = true; /* whoever waits already goes on waiting */
    p_reconfigure(&r, q, &c);
    p_expect(&r, 1, p_put_wait(&r, 1, q, "e", NULL, -1), BROKER_REPLY_FULL);
    rig_none(&r);
    c.maxsize = 0;
    p_reconfigure(&r, q, &c);
    p_put(&r, q, "f", NULL);
    rig_deinit(&r);
}

static void another_rate_counts_from_now_on(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = limited(&r, 1, 1);
    struct broker_queue_conf c = *broker_queue_conf(q);
    fill(&r, q, 9);
    assert_int_equal(drain(&r, q), 1);
    uint64_t token = p_get(&r, 1, q, 1, -1);
    assert_int_equal(p_next_ms(&r), r.now_ms + 1000);
    rig_pass(&r, 500); /* half a token at the old rate */
    c.rate_per_s = 100;
    p_reconfigure(&r, q, &c);
    rig_none(&r);
    assert_int_equal(p_next_ms(&r), r.now_ms + 5);
    rig_pass(&r, 5);
    p_done(&r, 1, p_served(&r, 1, token, "t"), NULL);
    rig_none(&r);
    token = p_get(&r, 1, q, 1, -1);
    c.rate_per_s = 0;
    p_reconfigure(&r, q, &c);
    p_done(&r, 1, p_served(&r, 1, token, "t"), NULL);
    rig_none(&r);
    assert_int_equal(p_next_ms(&r), NEVER);
    c.rate_per_s = 2; /* a limit that comes to an unlimited queue begins with a full bucket */
    c.rate_burst = 3;
    p_reconfigure(&r, q, &c);
    assert_int_equal(drain(&r, q), 3);
    c.concurrency = 1;
    c.rate_per_s = 0;
    p_reconfigure(&r, q, &c);
    p_take(&r, 1, q, "t");
    token = p_get(&r, 2, q, 9, -1);
    c.concurrency = 2;
    p_reconfigure(&r, q, &c);
    p_served(&r, 2, token, "t");
    rig_deinit(&r);
}

static void times_are_those_of_the_policy_when_it_began(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.lease_ms = 100;
    c.ttl_ms = 1000;
    struct broker_queue *q = p_queue(&r, "q", &c);
    uint64_t start = r.now_ms;
    p_put(&r, q, "a", NULL);
    p_put(&r, q, "b", NULL);
    p_put(&r, q, "c", NULL);
    struct held a = p_take(&r, 1, q, "a");
    c.lease_ms = 50;
    c.ttl_ms = 200;
    p_reconfigure(&r, q, &c);
    struct held b = p_take(&r, 2, q, "b");
    p_put(&r, q, "d", NULL);
    rig_pass(&r, 50); /* the new lease ends, the old one does not */
    assert_int_equal(p_expect(&r, 2, 0, BROKER_TOLD_LOST)->id, b.id);
    rig_none(&r);
    rig_pass(&r, 50);
    assert_int_equal(p_expect(&r, 1, 0, BROKER_TOLD_LOST)->id, a.id);
    rig_none(&r);
    assert_int_equal(p_stats(&r, q).ready, 4);
    rig_pass(&r, 100); /* d has 200 ms */
    assert_int_equal(p_stats(&r, q).ready, 3);
    rig_pass(&r, start + 999 - r.now_ms);
    assert_int_equal(p_stats(&r, q).ready, 3);
    rig_pass(&r, 1);
    assert_int_equal(p_stats(&r, q).ready, 0);
    assert_int_equal(rig_stats(&r).expired, 4);
    rig_deinit(&r);
}

static void a_change_that_cannot_be_changes_nothing(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.result = "results";
    struct broker_queue *q = p_queue(&r, "q", &c);
    struct broker_queue_conf bad = c;
    bad.kind = BROKER_LIFO;
    assert_int_equal(broker_reconfigure(r.b, r.now_ms, q, &bad, &r.fx), TQ_EINVAL);
    bad = c;
    bad.ack = BROKER_ACK_EXPLICIT;
    assert_int_equal(broker_reconfigure(r.b, r.now_ms, q, &bad, &r.fx), TQ_EINVAL);
    bad = c;
    bad.dead = "no such name";
    assert_int_equal(broker_reconfigure(r.b, r.now_ms, q, &bad, &r.fx), TQ_EINVAL);
    bad.dead = "q"; /* itself */
    assert_int_equal(broker_reconfigure(r.b, r.now_ms, q, &bad, &r.fx), TQ_EINVAL);
    bad = c;
    bad.max_attempts = BROKER_ATTEMPTS_MAX + 1;
    assert_int_equal(broker_reconfigure(r.b, r.now_ms, q, &bad, &r.fx), TQ_EINVAL);

    struct broker_queue_conf next = c;
    next.factory_made = false; /* stays */
    next.rate_per_s = 2;
    next.expires_ms = 5000;
    next.result = "others";
    next.dead = "dead";
    next.concurrency = 7;
    for (long n = 0;; n++) {
        tq_mem_fail_after(n, 1);
        int rv = broker_reconfigure(r.b, r.now_ms, q, &next, &r.fx);
        tq_mem_fail_after(-1, 0);
        rig_check(&r);
        if (rv == TQ_OK) {
            assert_true(n >= 2);
            break;
        }
        assert_int_equal(rv, TQ_ENOMEM);
        assert_string_equal(broker_queue_conf(q)->result, "results");
        assert_null(broker_queue_conf(q)->dead);
        assert_int_equal(broker_queue_conf(q)->concurrency, 0);
        assert_int_equal(p_next_ms(&r), NEVER);
    }
    assert_string_equal(broker_queue_conf(q)->result, "others");
    assert_string_equal(broker_queue_conf(q)->dead, "dead");
    assert_int_equal(broker_queue_conf(q)->concurrency, 7);
    assert_true(broker_queue_conf(q)->factory_made);
    assert_int_equal(p_next_ms(&r), r.now_ms + 5000);
    rig_deinit(&r);
}

/* ---- queues that expire ---- */

static struct broker_queue *gone;
static int gone_count;

static void on_gone(void *ctx, struct broker_queue *q)
{
    assert_ptr_equal(broker_queue_user(q), ctx);
    gone = q;
    gone_count++;
}

static struct broker_queue *expiring(struct rig *r, uint32_t ms)
{
    struct broker_queue_conf c = p_conf();
    struct broker_queue *q;

    p_init(r);
    gone = NULL;
    gone_count = 0;
    c.expires_ms = ms;
    broker_on_queue_gone(r->b, on_gone, r);
    q = p_queue(r, "q", &c);
    broker_queue_set_user(q, r);
    rig_pass(r, 0); /* what time it is a new queue learns by the first step */
    return q;
}

static void assert_there(struct rig *r, bool is_there)
{
    rig_none(r);
    assert_int_equal(broker_find(r->b, tq_span_str("q")) != NULL, is_there);
    assert_int_equal(gone_count, !is_there);
}

static void a_queue_that_nobody_uses_goes(void **state)
{
    struct rig r;

    (void)state;
    struct broker_queue *q = expiring(&r, 1000);
    rig_pass(&r, 600);
    p_put(&r, q, "a", NULL); /* used */
    rig_pass(&r, 999);
    assert_there(&r, true);
    rig_pass(&r, 1);
    assert_there(&r, false);
    assert_ptr_equal(gone, q);
    assert_int_equal(rig_stats(&r).tasks, 0); /* with what was in it */
    assert_int_equal(rig_stats(&r).queues, 0);
    rig_deinit(&r);
}

static void a_new_queue_counts_from_its_declaration(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    gone_count = 0;
    r.now_ms += 3600000; /* no step for an hour */
    struct broker_queue_conf c = p_conf();
    c.expires_ms = 1000;
    p_queue(&r, "q", &c);
    rig_pass(&r, 0);
    assert_non_null(broker_find(r.b, tq_span_str("q")));
    rig_pass(&r, 999);
    assert_non_null(broker_find(r.b, tq_span_str("q")));
    rig_pass(&r, 1);
    assert_null(broker_find(r.b, tq_span_str("q")));
    rig_deinit(&r);
}

static void whoever_waits_or_holds_keeps_it(void **state)
{
    struct rig r;

    (void)state;
    struct broker_queue *q = expiring(&r, 1000);
    uint64_t t = p_get(&r, 1, q, 1, 2500);
    rig_pass(&r, 2499);
    assert_there(&r, true);
    rig_pass(&r, 1);
    p_expect(&r, 1, t, BROKER_REPLY_EMPTY);
    rig_pass(&r, 999); /* from the end of the wait on */
    assert_there(&r, true);
    p_put(&r, q, "a", NULL);
    struct held h = p_take(&r, 1, q, "a");
    rig_pass(&r, 5300);
    assert_there(&r, true);
    p_done(&r, 1, h, NULL);
    rig_none(&r);
    rig_pass(&r, 999);
    assert_there(&r, true);
    rig_pass(&r, 1);
    assert_there(&r, false);
    rig_deinit(&r);
}

static void who_waits_for_a_task_of_it_is_told(void **state)
{
    struct rig r;

    (void)state;
    struct broker_queue *q = expiring(&r, 1000);
    uint64_t id = p_put(&r, q, "a", NULL);
    uint64_t w = p_wait(&r, 1, id, -1);
    rig_pass(&r, 1000);
    p_result(&r, 1, w, id, BROKER_OUTCOME_PURGED);
    assert_there(&r, false);
    rig_deinit(&r);
}

static void expiry_may_come_and_go_by_reconfigure(void **state)
{
    struct rig r;

    (void)state;
    struct broker_queue *q = expiring(&r, 1000);
    struct broker_queue_conf c = *broker_queue_conf(q);
    rig_pass(&r, 900);
    c.expires_ms = 0;
    p_reconfigure(&r, q, &c);
    rig_pass(&r, 100000);
    assert_there(&r, true);
    c.expires_ms = 300;
    p_reconfigure(&r, q, &c);
    rig_pass(&r, 299);
    assert_there(&r, true);
    rig_pass(&r, 1);
    assert_there(&r, false);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_then_the_rate),
        cmocka_unit_test(the_burst_is_the_rate_unless_said),
        cmocka_unit_test(a_rate_does_not_drift),
        cmocka_unit_test(who_waits_gets_the_token_in_its_millisecond),
        cmocka_unit_test(who_waits_gets_the_whole_rate_with_the_smallest_burst),
        cmocka_unit_test(a_batch_takes_the_tokens_there_are),
        cmocka_unit_test(the_largest_rate_and_the_longest_time_do_not_overflow),
        cmocka_unit_test(limited_queues_cost_nothing_while_idle),
        cmocka_unit_test(so_many_leases_and_no_more),
        cmocka_unit_test(what_python_takes_counts_until_it_has_arrived),
        cmocka_unit_test(a_paused_queue_takes_and_does_not_give),
        cmocka_unit_test(another_maxsize_counts_at_once),
        cmocka_unit_test(another_rate_counts_from_now_on),
        cmocka_unit_test(times_are_those_of_the_policy_when_it_began),
        cmocka_unit_test(a_change_that_cannot_be_changes_nothing),
        cmocka_unit_test(a_queue_that_nobody_uses_goes),
        cmocka_unit_test(a_new_queue_counts_from_its_declaration),
        cmocka_unit_test(whoever_waits_or_holds_keeps_it),
        cmocka_unit_test(who_waits_for_a_task_of_it_is_told),
        cmocka_unit_test(expiry_may_come_and_go_by_reconfigure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
