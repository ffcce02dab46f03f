/* Tasks that do not end well: retries, dead letters, notices, and tasks that are taken away. */
#include "master/core/outcome.h"
#include "tests/unit/broker_world.h"

static void a_final_fail_makes_a_dead_letter(void **state)
{
    struct broker_put_options o = {.key = tq_span_str("k"), .trace = tq_span_str("t")};
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = nr_put_with(&w.r, 0, w.work, "the body", &o);
    uint64_t t = nr_wait(&w.r, 2, id);
    struct nr_lease l = nr_get(&w.r, 1, w.work, id);
    assert_int_equal(nr_fail(&w.r, l, "it broke", false), BROKER_REPLY_OK); /* max_attempts is 1 */
    assert_int_equal(w.r.fx.list[0].number, 0);
    assert_int_equal(nr_find(&w.r, t)->copy->outcome, BROKER_OUTCOME_FAILED);
    struct broker_view v = nr_view(&w.r, id);
    assert_string_equal(v.state, "dead");
    assert_ptr_equal(v.queue, w.dead);
    assert_payload(&v, "the body");
    assert_span(v.key, "k");
    assert_span(v.trace, "t");
    assert_span(v.error, "it broke");
    assert_span(v.worker, "w1");
    assert_int_equal(v.code, 7);
    assert_int_equal(v.outcome, BROKER_OUTCOME_FAILED);
    assert_string_equal(v.from, "work");
    assert_int_equal(v.tries, 1);
    assert_int_equal(v.attempt, 1);
    assert_int_equal(nr_stats(&w.r).dead, 1);
    assert_int_equal(nr_queue_stats(&w.r, w.work).dead, 1);
    assert_int_equal(nr_queue_stats(&w.r, w.work).failed, 1);
    assert_int_equal(nr_queue_stats(&w.r, w.work).unfinished, 0);
    nr_get_nothing(&w.r, 3, w.results);
    /* It never goes by failing to handle it. */
    for (int i = 0; i < 4; i++) {
        l = nr_get(&w.r, 3, w.dead, id);
        assert_int_equal(nr_fail(&w.r, l, "no idea", true), BROKER_REPLY_OK);
        assert_int_equal(w.r.fx.list[0].number, 1);
        assert_string_equal(nr_view(&w.r, id).state, "delayed");
        assert_int_equal(nr_view(&w.r, id).outcome, BROKER_OUTCOME_FAILED);
        nr_pass(&w.r, 600000);
    }
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 3, w.dead, id), NULL), BROKER_REPLY_OK);
    assert_true(nr_is_gone(&w.r, id));
    nr_deinit(&w.r);
}

static void who_has_a_queue_of_his_own_gets_a_notice(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = put_own(&w, w.work, "body", w.reply), id2 = put_own(&w, w.work, "body", w.dead);
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, w.work, id), "why", true), BROKER_REPLY_OK);
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, w.work, id2), "why", true), BROKER_REPLY_OK);
    assert_string_equal(nr_view(&w.r, id).state, "dead");
    struct nr_lease l = nr_get(&w.r, 2, w.reply, 0);
    assert_int_not_equal(l.id, id);
    struct broker_view v = nr_view(&w.r, l.id);
    assert_int_equal(v.of, id);
    assert_payload(&v, NULL);
    assert_span(v.error, "why");
    assert_span(v.worker, "w1");
    assert_int_equal(v.outcome, BROKER_OUTCOME_FAILED);
    assert_string_equal(v.from, "work");
    nr_get_nothing(&w.r, 2, w.reply); /* the other's own queue has its dead letter itself */
    assert_int_equal(nr_done(&w.r, l, NULL), BROKER_REPLY_OK);
    assert_true(nr_is_gone(&w.r, l.id));
    assert_int_equal(broker_queue_size(w.dead), 2);
    nr_deinit(&w.r);
}

static void without_a_queue_for_the_dead_failures_are_results(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "not-there");
    struct world w;

    (void)state;
    init(&w);
    struct broker_queue *q = nr_declare(&w.r, "other", &c);
    uint64_t id = nr_put(&w.r, 0, q, "a"), own = put_own(&w, q, "b", w.reply);
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, q, id), "why", true), BROKER_REPLY_OK);
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, q, own), "why", true), BROKER_REPLY_OK);
    nr_get(&w.r, 2, w.results, id);
    nr_get(&w.r, 2, w.reply, own);
    struct broker_view v = nr_view(&w.r, own);
    assert_payload(&v, NULL);
    assert_int_equal(v.outcome, BROKER_OUTCOME_FAILED);
    assert_int_equal(v.of, own);
    assert_span(v.error, "why");
    assert_int_equal(nr_stats(&w.r).dead, 0);
    /* The queue is there from now on. */
    w.dead = nr_queue(&w.r, "not-there");
    id = nr_put(&w.r, 0, q, "a");
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, q, id), "why", true), BROKER_REPLY_OK);
    nr_get(&w.r, 2, w.dead, id);
    nr_deinit(&w.r);
}

static void retries_come_by_backoff_and_show_their_last_error(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "dead");
    struct broker_put_options o = {.max_attempts = 2};
    struct world w;

    (void)state;
    init(&w);
    c.max_attempts = 3;
    c.retry_ms = 100;
    c.retry_max_ms = 150;
    struct broker_queue *q = nr_declare(&w.r, "tries", &c);
    uint64_t id = nr_put(&w.r, 0, q, "a"), id2 = nr_put_with(&w.r, 0, q, "b", &o);
    uint64_t due[2];

    for (uint32_t i = 0; i < 2; i++) {
        struct nr_lease l = nr_get(&w.r, 1, q, i == 0 ? id : 0);
        assert_int_equal(l.id, id);
        assert_int_equal(l.attempt, i + 1);
        assert_int_equal(nr_fail(&w.r, l, i == 0 ? "first" : "second", false), BROKER_REPLY_OK);
        assert_int_equal(w.r.fx.list[0].number, 1);
        struct broker_view v = nr_view(&w.r, id);
        assert_string_equal(v.state, "delayed");
        assert_int_equal(v.outcome, BROKER_OUTCOME_NONE);
        assert_span(v.error, i == 0 ? "first" : "second");
        assert_span(v.worker, "w1");
        assert_int_equal(v.code, 7);
        assert_int_equal(v.attempt, i + 2);
        assert_payload(&v, "a");
        due[i] = v.due_ms - w.r.now_ms;
        assert_true(due[i] >= (i == 0 ? 50 : 75) && due[i] <= (i == 0 ? 100 : 150));
        if (i == 0) { /* the other one has two attempts */
            assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, q, id2), "x", false), BROKER_REPLY_OK);
            assert_int_equal(w.r.fx.list[0].number, 1);
        }
        nr_get_nothing(&w.r, 1, q);
        nr_pass(&w.r, due[i] - 1);
        assert_string_equal(nr_view(&w.r, id).state, "delayed");
        nr_pass(&w.r, 1);
        assert_string_equal(nr_view(&w.r, id).state, "ready");
        assert_span(nr_view(&w.r, id).error, i == 0 ? "first" : "second");
        if (i == 0) {
            struct nr_lease l2;

            nr_pass(&w.r, 100);
            l = nr_get(&w.r, 2, q, 0);
            l2 = nr_get(&w.r, 2, q, 0);
            if (l.id == id2) {
                struct nr_lease t = l;
                l = l2;
                l2 = t;
            }
            assert_int_equal(l2.id, id2);
            assert_int_equal(nr_fail(&w.r, l2, "last", false), BROKER_REPLY_OK);
            assert_int_equal(w.r.fx.list[0].number, 0);
            assert_string_equal(nr_view(&w.r, id2).state, "dead");
            assert_int_equal(nr_view(&w.r, id2).tries, 2);
            assert_int_equal(nr_about(&w.r, BROKER_RELEASE, l), BROKER_REPLY_OK);
        }
    }
    struct nr_lease l = nr_get(&w.r, 3, q, id);
    assert_int_equal(nr_done(&w.r, l, "at last"), BROKER_REPLY_OK);
    assert_span(nr_view(&w.r, id).error, "");
    assert_int_equal(nr_view(&w.r, id).tries, 3);
    assert_int_equal(nr_stats(&w.r).retried, 3);
    nr_deinit(&w.r);
}

static void backoff_grows_with_jitter_and_has_an_end(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    uint64_t different = 0;

    (void)state;
    for (uint32_t attempt = 1; attempt < 250; attempt++) {
        uint64_t most = attempt < 11 ? 1000u << (attempt - 1) : 600000u;

        if (most > 600000)
            most = 600000;
        for (uint64_t id = 1; id < 50; id++) {
            uint64_t ms = broker_backoff_ms(&c, id, attempt);

            assert_true(ms <= most && ms >= most / 2);
            assert_int_equal(ms, broker_backoff_ms(&c, id, attempt));
            different += ms != broker_backoff_ms(&c, id + 1, attempt);
        }
    }
    assert_true(different > 12000);
    c.retry_ms = 0;
    assert_int_equal(broker_backoff_ms(&c, 5, 3), 0);
    c.retry_ms = 5000;
    c.retry_max_ms = 10;
    assert_true(broker_backoff_ms(&c, 5, 1) <= 10);
    c.retry_ms = c.retry_max_ms = UINT32_MAX;
    assert_true(broker_backoff_ms(&c, 5, 200) >= UINT32_MAX / 2);
}

static void a_retry_without_delay_goes_to_the_front(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "dead");
    struct world w;

    (void)state;
    init(&w);
    c.max_attempts = 0;
    c.retry_ms = 0;
    struct broker_queue *q = nr_declare(&w.r, "tries", &c);
    uint64_t a = nr_put(&w.r, 0, q, "a"), b = nr_put(&w.r, 0, q, "b");
    struct nr_lease l = {0};

    for (uint32_t i = 0; i < 300; i++) {
        l = nr_get(&w.r, 1, q, a);
        assert_int_equal(l.attempt, i < 255 ? i + 1 : 256u);
        assert_int_equal(nr_fail(&w.r, l, "again", false), BROKER_REPLY_OK);
    }
    l = nr_get(&w.r, 1, q, a);
    assert_int_equal(nr_fail_with(&w.r, l, &(struct broker_failure){.has_delay = true, .delay_ms = 30}),
                     BROKER_REPLY_OK);
    assert_int_equal(nr_view(&w.r, a).due_ms, w.r.now_ms + 30);
    l = nr_get(&w.r, 1, q, b);
    assert_int_equal(
        nr_fail_with(&w.r, l, &(struct broker_failure){.has_delay = true, .delay_ms = UINT64_MAX}),
        BROKER_REPLY_OK);
    nr_pass(&w.r, 1000000);
    assert_string_equal(nr_view(&w.r, b).state, "delayed");
    assert_string_equal(nr_view(&w.r, a).state, "ready");
    nr_deinit(&w.r);
}

static void deaths_end_a_task_only_if_the_queue_says_so(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "dead");
    struct world w;

    (void)state;
    init(&w);
    c.max_deliveries = 2;
    struct broker_queue *q = nr_declare(&w.r, "mortal", &c);
    uint64_t a = put_own(&w, q, "a", w.reply), b = nr_put(&w.r, 0, w.work, "b");

    for (int i = 0; i < 3; i++) {
        nr_get(&w.r, 2, w.work, b);
        nr_close(&w.r, 2);
    }
    nr_get(&w.r, 1, q, a);
    nr_close(&w.r, 1);
    nr_get(&w.r, 1, q, a);
    nr_close(&w.r, 1);
    struct broker_view v = nr_view(&w.r, a);
    assert_string_equal(v.state, "dead");
    assert_int_equal(v.outcome, BROKER_OUTCOME_LOST);
    assert_int_equal(v.tries, 2);
    assert_span(v.worker, "w1");
    struct nr_lease l = nr_get(&w.r, 2, w.reply, 0);
    assert_int_equal(nr_view(&w.r, l.id).of, a);
    assert_int_equal(nr_view(&w.r, l.id).outcome, BROKER_OUTCOME_LOST);
    assert_int_equal(nr_stats(&w.r).returned, 5);
    nr_deinit(&w.r);
}

static void what_expires_is_a_dead_letter_too(void **state)
{
    struct broker_put_options o = {.ttl_ms = 40, .has_result = true};
    struct world w;

    (void)state;
    init(&w);
    o.result = w.reply;
    uint64_t a = nr_put_with(&w.r, 0, w.work, "a", &o), b = nr_put_with(&w.r, 0, w.nowhere, "b", &o);
    o.delay_ms = 60;
    uint64_t d = nr_put_with(&w.r, 0, w.work, "d", &o);
    uint64_t t = nr_wait(&w.r, 2, b);
    struct nr_lease l;

    nr_pass(&w.r, 39);
    assert_string_equal(nr_view(&w.r, a).state, "ready");
    assert_string_equal(nr_view(&w.r, d).state, "delayed");
    nr_pass(&w.r, 1);
    (void)t;
    struct broker_view v = nr_view(&w.r, a);
    assert_string_equal(v.state, "dead");
    assert_int_equal(v.outcome, BROKER_OUTCOME_EXPIRED);
    assert_int_equal(v.tries, 0);
    assert_int_equal(v.started_ms, 0);
    assert_payload(&v, "a");
    assert_int_equal(nr_view(&w.r, d).outcome, BROKER_OUTCOME_EXPIRED);
    assert_int_equal(nr_view(&w.r, b).outcome, BROKER_OUTCOME_EXPIRED);
    assert_ptr_equal(nr_view(&w.r, b).queue, w.reply);
    for (int i = 0; i < 3; i++) {
        l = nr_get(&w.r, 3, w.reply, 0);
        v = nr_view(&w.r, l.id);
        assert_true(v.of == a || v.of == b || v.of == d);
        assert_int_equal(v.outcome, BROKER_OUTCOME_EXPIRED);
    }
    nr_get_nothing(&w.r, 3, w.reply);
    assert_int_equal(nr_stats(&w.r).expired, 3);
    assert_int_equal(nr_queue_stats(&w.r, w.work).expired, 2);
    nr_deinit(&w.r);
}

/* A task that an admin takes away, in each of its states, with and without a queue of its submitter's own. */
static void removed_tasks_are_gone_and_who_waits_is_told(void **state)
{
    (void)state;
    for (int where = 0; where < 3; where++)
        for (int own = 0; own < 2; own++) {
            struct broker_put_options o = {0};
            struct nr_lease l = {0};
            struct world w;

            init(&w);
            o.has_result = own != 0;
            o.result = own ? w.reply : NULL;
            o.delay_ms = where == 1 ? 1000 : 0;
            nr_put(&w.r, 0, w.work, "before");
            uint64_t id = nr_put_with(&w.r, 0, w.work, "a", &o);
            nr_put(&w.r, 0, w.work, "after");
            if (where == 2) {
                nr_get(&w.r, 2, w.work, 0);
                l = nr_get(&w.r, 1, w.work, id);
            }
            uint64_t t = nr_wait(&w.r, 3, id);
            assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, id), BROKER_REPLY_OK);
            assert_int_equal(nr_find(&w.r, t)->outcome, BROKER_REPLY_RESULT);
            assert_int_equal(nr_find(&w.r, t)->copy->outcome, BROKER_OUTCOME_CANCELED);
            assert_int_equal(nr_find(&w.r, t)->copy->id, id);
            assert_int_equal(nr_find_told(&w.r, l) != NULL, where == 2);
            assert_int_equal(nr_stats(&w.r).dropped, 1);
            assert_int_equal(nr_queue_stats(&w.r, w.work).unfinished, 2);
            if (where == 2)
                assert_int_equal(nr_done(&w.r, l, "late"), BROKER_REPLY_STALE);
            if (own) {
                assert_ptr_equal(nr_view(&w.r, id).queue, w.reply);
                assert_int_equal(nr_view(&w.r, id).outcome, BROKER_OUTCOME_CANCELED);
                l = nr_get(&w.r, 4, w.reply, id);
                assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, id), BROKER_REPLY_OK);
                assert_non_null(nr_find_told(&w.r, l));
            }
            assert_true(nr_is_gone(&w.r, id));
            assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, id), BROKER_REPLY_UNKNOWN);
            assert_int_equal(nr_stats(&w.r).tasks, 2);
            nr_pass(&w.r, 2000);
            assert_int_equal(broker_queue_size(w.work), where == 2 ? 1 : 2);
            nr_deinit(&w.r);
        }
}

static void results_and_dead_letters_can_be_removed(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t ids[3] = {nr_put(&w.r, 0, w.work, "a"), nr_put(&w.r, 0, w.work, "b"),
                       nr_put(&w.r, 0, w.nowhere, "c")};
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.work, 0), "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, w.work, 0), "v", true), BROKER_REPLY_OK);
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.nowhere, 0), "v"), BROKER_REPLY_OK);
    for (int i = 0; i < 3; i++) {
        nr_view(&w.r, ids[i]);
        assert_int_equal(nr_by_id(&w.r, BROKER_REMOVE, 0, ids[i]), BROKER_REPLY_OK);
        assert_true(nr_is_gone(&w.r, ids[i]));
    }
    assert_int_equal(nr_stats(&w.r).tasks, 0);
    assert_int_equal(nr_stats(&w.r).dropped, 3);
    assert_int_equal(nr_queue_stats(&w.r, w.results).unfinished, 0);
    nr_get_nothing(&w.r, 1, w.results);
    nr_get_nothing(&w.r, 1, w.dead);
    nr_deinit(&w.r);
}

static void a_dead_letter_can_be_tried_again(void **state)
{
    struct broker_put_options o = {.key = tq_span_str("k"), .max_attempts = 2, .has_result = true};
    struct world w;

    (void)state;
    init(&w);
    o.result = w.reply;
    uint64_t id = nr_put_with(&w.r, 0, w.work, "a", &o), other = nr_put(&w.r, 0, w.work, "b");
    struct nr_lease first = nr_get(&w.r, 1, w.work, id), dead;
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 0, id), BROKER_REPLY_REFUSED);
    assert_non_null(w.r.fx.list[0].text);
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 0, other), BROKER_REPLY_REFUSED);
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 0, 99), BROKER_REPLY_UNKNOWN);
    assert_int_equal(nr_fail(&w.r, first, "why", true), BROKER_REPLY_OK);
    dead = nr_get(&w.r, 2, w.dead, id);
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 0, id), BROKER_REPLY_REFUSED); /* session 2 looks at it */
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 2, id), BROKER_REPLY_OK);
    assert_int_equal(nr_done(&w.r, dead, NULL), BROKER_REPLY_STALE);
    assert_int_equal(nr_done(&w.r, first, "late"), BROKER_REPLY_STALE);
    struct broker_view v = nr_view(&w.r, id);
    assert_string_equal(v.state, "ready");
    assert_int_equal(v.outcome, BROKER_OUTCOME_NONE);
    assert_int_equal(v.tries, 0);
    assert_int_equal(v.attempt, 1);
    assert_span(v.error, "why");
    assert_span(v.key, "k");
    assert_string_equal(v.from, "");
    assert_ptr_equal(v.queue, w.work);
    assert_int_equal(nr_queue_stats(&w.r, w.work).unfinished, 2);
    assert_int_equal(nr_queue_stats(&w.r, w.dead).unfinished, 0);
    /* Behind the other one, with what its put said of it. */
    nr_get(&w.r, 1, w.work, other);
    struct nr_lease l = nr_get(&w.r, 1, w.work, id);
    assert_true(l.epoch > dead.epoch);
    assert_int_equal(l.attempt, 1);
    assert_int_equal(nr_fail(&w.r, l, "again", false), BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.list[0].number, 1);
    nr_pass(&w.r, 1000);
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.work, id), "v"), BROKER_REPLY_OK);
    nr_get(&w.r, 2, w.reply, 0); /* the notice of its first end */
    nr_get(&w.r, 2, w.reply, id);
    nr_deinit(&w.r);
}

static void a_dead_letter_whose_queue_went_cannot_be_tried_again(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "dead");
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a");
    struct nr_lease l = nr_get(&w.r, 1, w.work, a);
    struct broker_event ev = nr_event(&w.r, BROKER_SHUTDOWN, 0);

    ev.queue = w.work;
    assert_int_equal(nr_fail(&w.r, l, "why", true), BROKER_REPLY_OK);
    nr_step(&w.r, &ev);
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 0, a), BROKER_REPLY_REFUSED);
    broker_remove(w.r.b, w.work, &w.r.fx);
    w.work = nr_declare(&w.r, "work", &c); /* another one */
    assert_int_equal(nr_by_id(&w.r, BROKER_RETRY, 0, a), BROKER_REPLY_REFUSED);
    assert_string_equal(nr_view(&w.r, a).from, "");
    assert_string_equal(nr_view(&w.r, a).state, "dead");
    nr_deinit(&w.r);
}

static void long_errors_are_cut_between_characters(void **state)
{
    static const uint8_t lemon[] = {0xf0, 0x9f, 0x8d, 0x8b};
    char error[BROKER_ERROR_MAX + 100];
    struct world w;

    (void)state;
    init(&w);
    for (size_t shift = 0; shift < 4; shift++) {
        uint64_t id = nr_put(&w.r, 0, w.work, "a");
        struct broker_failure f = {.error = tq_span(error, sizeof(error)), .final = true};

        memset(error, 'x', sizeof(error));
        for (size_t i = shift; i + 4 <= sizeof(error); i += 4)
            memcpy(&error[i], lemon, sizeof(lemon));
        assert_int_equal(nr_fail_with(&w.r, nr_get(&w.r, 1, w.work, id), &f), BROKER_REPLY_OK);
        struct tq_span kept = nr_view(&w.r, id).error;
        assert_int_equal(kept.len, shift == 0 ? BROKER_ERROR_MAX : BROKER_ERROR_MAX - 4 + shift);
        assert_memory_equal(kept.data, error, kept.len);
    }
    nr_deinit(&w.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_final_fail_makes_a_dead_letter),
        cmocka_unit_test(who_has_a_queue_of_his_own_gets_a_notice),
        cmocka_unit_test(without_a_queue_for_the_dead_failures_are_results),
        cmocka_unit_test(retries_come_by_backoff_and_show_their_last_error),
        cmocka_unit_test(backoff_grows_with_jitter_and_has_an_end),
        cmocka_unit_test(a_retry_without_delay_goes_to_the_front),
        cmocka_unit_test(deaths_end_a_task_only_if_the_queue_says_so),
        cmocka_unit_test(what_expires_is_a_dead_letter_too),
        cmocka_unit_test(removed_tasks_are_gone_and_who_waits_is_told),
        cmocka_unit_test(results_and_dead_letters_can_be_removed),
        cmocka_unit_test(a_dead_letter_can_be_tried_again),
        cmocka_unit_test(a_dead_letter_whose_queue_went_cannot_be_tried_again),
        cmocka_unit_test(long_errors_are_cut_between_characters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
