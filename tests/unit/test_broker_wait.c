/* wait(id): who is told what of a task's end, and when. */
#include "tests/unit/policy_rig.h"

RIG_DEFINE_LESS

static struct broker_queue *keeping(struct rig *r, uint32_t retention_ms)
{
    struct broker_queue_conf c = p_conf();

    c.retention_ms = retention_ms;
    c.max_attempts = 1;
    return p_queue(r, "q", &c);
}

static void all_who_wait_get_the_result(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, 1000);
    uint64_t id = p_put(&r, q, "a", NULL);
    p_expect(&r, 1, p_wait(&r, 1, id, 0), BROKER_REPLY_EMPTY);
    uint64_t w1 = p_wait(&r, 1, id, -1), w2 = p_wait(&r, 2, id, 500), w3 = p_wait(&r, 1, id, -1);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).waiting, 3);
    struct held h = p_take(&r, 3, q, "a");
    rig_none(&r);
    p_done(&r, 3, h, "answer");
    const struct broker_view *v = p_result(&r, 1, w1, id, BROKER_OUTCOME_OK);
    p_is(&v->payload, "answer");
    assert_string_equal(v->from, "q");
    assert_true(r.fx.list[r.seen - 1].was_parked);
    p_is(&p_result(&r, 2, w2, id, BROKER_OUTCOME_OK)->payload, "answer");
    p_is(&p_result(&r, 1, w3, id, BROKER_OUTCOME_OK)->payload, "answer");
    rig_none(&r);
    assert_int_equal(rig_stats(&r).waiting, 0);
    /* And whoever comes later, until its retention ends. */
    rig_pass(&r, 999);
    p_is(&p_result(&r, 4, p_wait(&r, 4, id, 0), id, BROKER_OUTCOME_OK)->payload, "answer");
    rig_none(&r);
    rig_pass(&r, 1);
    p_expect(&r, 4, p_wait(&r, 4, id, -1), BROKER_REPLY_UNKNOWN);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).tasks, 0);
    rig_deinit(&r);
}

/* However many wait for it. It lives as long as the last effect that tells of it. */
static void a_large_result_is_there_once(void **state)
{
    enum { WAITERS = 50, BYTES = 1 << 20 };
    struct tq_body *body = tq_body_new(BYTES);
    struct broker_event ev = {.kind = BROKER_DONE};
    const uint8_t *data = body->data;
    uint64_t tokens[WAITERS];
    struct rig r;

    (void)state;
    memset(body->data, 5, BYTES);
    p_init(&r);
    struct broker_queue *q = keeping(&r, 1000);
    uint64_t id = p_put(&r, q, "a", NULL);
    for (int i = 0; i < WAITERS; i++)
        tokens[i] = p_wait(&r, 1, id, -1);
    rig_none(&r);
    ev.payload = (struct broker_payload){.data = body->data, .len = BYTES, .body = body};
    p_lease_call(&r, BROKER_DONE, 2, p_take(&r, 2, q, "a"), &ev, BROKER_REPLY_OK);
    for (int i = 0; i < WAITERS; i++) {
        const struct broker_view *v = p_result(&r, 1, tokens[i], id, BROKER_OUTCOME_OK);

        assert_ptr_equal(v->payload.data, data);
        assert_ptr_equal(v->payload.body, body);
    }
    assert_int_equal(body->refs, 1 + 1 + WAITERS); /* ours, the task's, the effects' */
    tq_body_unref(body);
    rig_pass(&r, 1000); /* it is kept no longer; no effect tells of it any more */
    rig_none(&r);
    assert_int_equal(rig_stats(&r).tasks, 0);
    rig_deinit(&r);
}

static void who_waits_already_gets_a_result_that_nobody_keeps(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, 0);
    uint64_t id = p_put(&r, q, "a", NULL);
    uint64_t w = p_wait(&r, 1, id, -1);
    p_done(&r, 2, p_take(&r, 2, q, "a"), "answer");
    p_is(&p_result(&r, 1, w, id, BROKER_OUTCOME_OK)->payload, "answer");
    p_expect(&r, 1, p_wait(&r, 1, id, -1), BROKER_REPLY_UNKNOWN);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).tasks, 0);
    rig_deinit(&r);
}

static void a_result_in_a_queue_is_seen_by_wait_too(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    struct broker_queue *results = p_plain(&r, "results");
    c.result = "results";
    struct broker_queue *q = p_queue(&r, "q", &c);
    uint64_t id = p_put(&r, q, "a", NULL);
    uint64_t w = p_wait(&r, 1, id, -1);
    p_done(&r, 2, p_take(&r, 2, q, "a"), "answer");
    p_is(&p_result(&r, 1, w, id, BROKER_OUTCOME_OK)->payload, "answer");
    struct held h = p_take(&r, 3, results, "answer"); /* leased by a collector */
    p_is(&p_result(&r, 1, p_wait(&r, 1, id, -1), id, BROKER_OUTCOME_OK)->payload, "answer");
    p_done(&r, 3, h, NULL);
    p_expect(&r, 1, p_wait(&r, 1, id, -1), BROKER_REPLY_UNKNOWN);
    rig_deinit(&r);
}

/* A batch of `more` events: the result may be gone again before anybody is served. */
static void a_result_that_is_taken_at_once_is_told_all_the_same(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    struct broker_queue *results = p_plain(&r, "results");
    c.result = "results";
    struct broker_queue *q = p_queue(&r, "q", &c);
    uint64_t ids[2] = {p_put(&r, q, "a", NULL), p_put(&r, q, "b", NULL)};
    uint64_t w[2] = {p_wait(&r, 1, ids[0], -1), p_wait(&r, 1, ids[1], -1)};
    struct held h[2] = {p_take(&r, 2, q, "a"), p_take(&r, 2, q, "b")};
    for (int i = 0; i < 2; i++) {
        struct broker_event done = {.kind = BROKER_DONE,
                                    .more = true,
                                    .session = &r.s[2],
                                    .token = ++r.token,
                                    .id = h[i].id,
                                    .epoch = h[i].epoch,
                                    .payload = p_text(i == 0 ? "one" : "two")};

        assert_int_equal(broker_step(r.b, r.now_ms, &done, &r.fx), 0);
        p_expect(&r, 2, done.token, BROKER_REPLY_OK);
    }
    struct broker_event get = rig_call(&r, BROKER_GET, 2, results, 0);
    get.max = 1;
    get.take = true;
    rig_step(&r, &get);
    const struct broker_effect *e = p_expect(&r, 2, get.token, BROKER_REPLY_TASK);
    assert_non_null(e->copy);
    p_is(&e->copy->payload, "one");
    p_end(&r, 2, get.token, 1);
    p_is(&p_result(&r, 1, w[0], ids[0], BROKER_OUTCOME_OK)->payload, "one");
    p_is(&p_result(&r, 1, w[1], ids[1], BROKER_OUTCOME_OK)->payload, "two");
    rig_deinit(&r);
}

static void failures_are_results_too(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    struct broker_queue *dead = p_plain(&r, "dead");
    struct broker_queue *q = keeping(&r, 0);
    c.dead = "dead";
    struct broker_queue *d = p_queue(&r, "d", &c);
    uint64_t id = p_put(&r, q, "a", NULL), id2 = p_put(&r, d, "b", NULL);
    uint64_t w = p_wait(&r, 1, id, -1), w2 = p_wait(&r, 1, id2, -1);
    p_fail(&r, 2, p_take(&r, 2, q, "a"), false);
    const struct broker_view *v = p_result(&r, 1, w, id, BROKER_OUTCOME_FAILED);
    assert_int_equal(v->code, 3);
    assert_int_equal(v->error.len, 6);
    assert_memory_equal(v->error.data, "broken", 6);
    rig_none(&r);
    p_fail(&r, 2, p_take(&r, 2, d, "b"), true);
    p_result(&r, 1, w2, id2, BROKER_OUTCOME_FAILED);
    rig_none(&r);
    p_result(&r, 3, p_wait(&r, 3, id2, -1), id2, BROKER_OUTCOME_FAILED); /* the dead letter */
    rig_none(&r);
    assert_int_equal(broker_queue_size(dead), 1);
    rig_deinit(&r);
}

static void a_removed_task_is_canceled(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, 0);
    uint64_t a = p_put(&r, q, "a", NULL), b = p_put(&r, q, "b", NULL);
    uint64_t c = p_put(&r, q, "c", &(options){.delay_ms = 10});
    p_take(&r, 2, q, "a");
    uint64_t ids[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        uint64_t w = p_wait(&r, 1, ids[i], -1), cancel = p_by_id(&r, BROKER_REMOVE, 3, ids[i], 0);

        p_expect(&r, 3, cancel, BROKER_REPLY_OK);
        if (i == 0)
            p_expect(&r, 2, 0, BROKER_TOLD_LOST);
        assert_null(p_result(&r, 1, w, ids[i], BROKER_OUTCOME_CANCELED)->payload.data);
        p_expect(&r, 1, p_wait(&r, 1, ids[i], -1), BROKER_REPLY_UNKNOWN);
        rig_none(&r);
    }
    rig_deinit(&r);
}

static void a_wait_ends_by_time_by_cancel_and_with_its_session(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, 1000);
    uint64_t id = p_put(&r, q, "a", NULL);
    uint64_t w1 = p_wait(&r, 1, id, 20), w2 = p_wait(&r, 1, id, 30);
    p_wait(&r, 2, id, -1);
    uint64_t w4 = p_wait(&r, 3, id, -1);
    rig_pass(&r, 19);
    rig_none(&r);
    rig_pass(&r, 1);
    const struct broker_effect *e = p_expect(&r, 1, w1, BROKER_REPLY_EMPTY);
    assert_int_equal(e->id, id);
    assert_true(e->was_parked);
    rig_none(&r);
    rig_step(&r, &(struct broker_event){.kind = BROKER_CANCEL, .session = &r.s[1], .token = w2});
    rig_close(&r, 2, BROKER_CLOSE_RETURN);
    rig_none(&r);
    assert_int_equal(rig_stats(&r).waiting, 1);
    p_done(&r, 4, p_take(&r, 4, q, "a"), NULL);
    assert_null(p_result(&r, 3, w4, id, BROKER_OUTCOME_OK)->payload.data);
    rig_none(&r);
    p_expect(&r, 3, p_wait(&r, 3, 0, -1), BROKER_REPLY_UNKNOWN);
    p_expect(&r, 3, p_wait(&r, 3, id + 1, -1), BROKER_REPLY_UNKNOWN);
    p_expect(&r, 3, p_wait(&r, 3, UINT64_MAX, -1), BROKER_REPLY_UNKNOWN);
    rig_none(&r);
    /* Those that are still parked go with the broker. */
    id = p_put(&r, q, "b", NULL);
    p_wait(&r, 3, id, -1);
    p_wait(&r, 1, id, 10);
    rig_deinit(&r);
}

static void a_wait_may_name_the_key(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, 1000);
    uint64_t id = p_put(&r, q, "a", &(options){.key = tq_span_str("k")});
    struct broker_event ev = rig_call(&r, BROKER_WAIT, 1, q, -1);
    ev.key = tq_span_str("k");
    rig_step(&r, &ev);
    rig_none(&r);
    p_done(&r, 4, p_take(&r, 4, q, "a"), "answer");
    p_is(&p_result(&r, 1, ev.token, id, BROKER_OUTCOME_OK)->payload, "answer");
    rig_none(&r);
    ev.token = ++r.token;
    rig_step(&r, &ev);
    p_is(&p_result(&r, 1, ev.token, id, BROKER_OUTCOME_OK)->payload, "answer");
    ev.key = tq_span_str("other");
    ev.token = ++r.token;
    rig_step(&r, &ev);
    p_expect(&r, 1, ev.token, BROKER_REPLY_UNKNOWN);
    ev.key = (struct tq_span){0};
    rig_step(&r, &ev);
    p_expect(&r, 1, ev.token, BROKER_REPLY_UNKNOWN);
    rig_deinit(&r);
}

/* Each allocation fails in turn: nobody is forgotten, and each is told once. */
static void without_memory_they_are_served_later(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        for (long n = 0;; n++) {
            struct rig r;
            bool was_late;

            p_init(&r);
            struct broker_queue *q = keeping(&r, way == 0 ? 1000 : 0);
            uint64_t id = p_put(&r, q, "a", NULL);
            uint64_t w[3] = {p_wait(&r, 1, id, -1), p_wait(&r, 2, id, -1), p_wait(&r, 2, id, -1)};
            struct held h = p_take(&r, 3, q, "a");
            struct broker_event ev = {.kind = way == 2 ? BROKER_REMOVE : BROKER_DONE,
                                      .session = &r.s[3],
                                      .token = ++r.token,
                                      .id = h.id,
                                      .epoch = h.epoch,
                                      .payload = p_text("answer")};
            rig_none(&r);
            tq_mem_fail_after(n, 1);
            int rv = rig_try(&r, &ev);
            tq_mem_fail_after(-1, 0);
            if (rv != 0 || r.fx.list[0].outcome == BROKER_REPLY_NO_MEMORY) {
                r.seen = r.fx.count;
                rig_none(&r);
                ev.token = ++r.token;
                rig_step(&r, &ev);
            }
            p_expect(&r, 3, ev.token, BROKER_REPLY_OK);
            if (way == 2)
                p_expect(&r, 3, 0, BROKER_TOLD_LOST);
            was_late = r.fx.count - r.seen < 3;
            if (was_late)
                rig_pass(&r, 10);
            for (int i = 0; i < 3; i++) {
                const struct broker_view *v = p_result(
                    &r, i == 0 ? 1 : 2, w[i], id, way == 2 ? BROKER_OUTCOME_CANCELED : BROKER_OUTCOME_OK);

                if (way == 0)
                    p_is(&v->payload, "answer");
            }
            rig_none(&r);
            assert_int_equal(rig_stats(&r).waiting, 0);
            rig_deinit(&r);
            if (n > 40)
                break;
        }
    }
}

static void a_wait_without_memory_is_refused(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct rig r;
        enum broker_outcome got = BROKER_REPLY_NO_MEMORY;

        p_init(&r);
        struct broker_queue *q = keeping(&r, 1000);
        uint64_t id = p_put(&r, q, "a", NULL);
        struct broker_event ev = rig_call(&r, BROKER_WAIT, 1, NULL, 10);

        ev.id = id;
        tq_mem_fail_after(n, 1);
        int rv = rig_try(&r, &ev);
        tq_mem_fail_after(-1, 0);
        if (rv == 0 && r.fx.count == 0) {
            assert_true(n > 2);
            rig_deinit(&r);
            break;
        }
        if (rv == 0)
            got = r.fx.list[r.seen++].outcome;
        assert_int_equal(got, BROKER_REPLY_NO_MEMORY);
        assert_int_equal(rig_stats(&r).waiting, 0);
        rig_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_who_wait_get_the_result),
        cmocka_unit_test(a_large_result_is_there_once),
        cmocka_unit_test(who_waits_already_gets_a_result_that_nobody_keeps),
        cmocka_unit_test(a_result_in_a_queue_is_seen_by_wait_too),
        cmocka_unit_test(a_result_that_is_taken_at_once_is_told_all_the_same),
        cmocka_unit_test(failures_are_results_too),
        cmocka_unit_test(a_removed_task_is_canceled),
        cmocka_unit_test(a_wait_ends_by_time_by_cancel_and_with_its_session),
        cmocka_unit_test(a_wait_may_name_the_key),
        cmocka_unit_test(without_memory_they_are_served_later),
        cmocka_unit_test(a_wait_without_memory_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
