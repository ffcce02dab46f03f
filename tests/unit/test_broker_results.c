/* Results: where they go, how long they are there, and what can be seen of them. */
#include "tests/unit/broker_world.h"

static void a_result_tells_all(void **state)
{
    struct broker_put_options o = {.key = tq_span_str("k1"), .trace = tq_span_str("00-ab-cd-01")};
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = nr_put_with(&w.r, 0, w.work, "body", &o);
    struct broker_view v = nr_view(&w.r, id);
    assert_string_equal(v.state, "ready");
    assert_int_equal(v.outcome, BROKER_OUTCOME_NONE);
    assert_int_equal(v.of, id);
    assert_ptr_equal(v.queue, w.work);
    w.r.now_ms = 1100;
    struct nr_lease l = nr_get(&w.r, 1, w.work, id);
    assert_int_equal(l.attempt, 1);
    assert_true(broker_view_lease(w.r.b, &w.r.fx.list[0], &v));
    assert_payload(&v, "body");
    assert_span(v.trace, "00-ab-cd-01");
    assert_string_equal(v.state, "leased");
    w.r.now_ms = 1250;
    assert_int_equal(nr_done(&w.r, l, "value"), BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.count, 1);
    v = nr_view(&w.r, id);
    assert_string_equal(v.state, "done");
    assert_ptr_equal(v.queue, w.results);
    assert_payload(&v, "value");
    assert_span(v.key, "k1");
    assert_span(v.trace, "00-ab-cd-01");
    assert_span(v.worker, "w1");
    assert_span(v.error, "");
    assert_int_equal(v.outcome, BROKER_OUTCOME_OK);
    assert_string_equal(v.from, "work");
    assert_int_equal(v.tries, 1);
    assert_int_equal(v.put_ms, 1000);
    assert_int_equal(v.started_ms, 1100);
    assert_int_equal(v.ended_ms, 1250);
    assert_int_equal(v.of, id);
    assert_int_equal(broker_queue_size(w.results), 1);
    assert_int_equal(broker_queue_size(w.work), 0);
    assert_int_equal(nr_queue_stats(&w.r, w.work).done, 1);
    assert_int_equal(nr_queue_stats(&w.r, w.work).unfinished, 0);
    assert_int_equal(nr_queue_stats(&w.r, w.results).puts, 1);
    assert_int_equal(nr_queue_stats(&w.r, w.results).unfinished, 1);
    assert_int_equal(nr_stats(&w.r).acked, 1);
    /* It is there once, and can be collected once. */
    l = nr_get(&w.r, 2, w.results, id);
    nr_get_nothing(&w.r, 3, w.results);
    assert_int_equal(nr_done(&w.r, l, NULL), BROKER_REPLY_OK);
    nr_get_nothing(&w.r, 3, w.results);
    assert_int_equal(nr_queue_stats(&w.r, w.results).unfinished, 0);
    nr_deinit(&w.r);
}

static void results_go_where_they_were_asked_to(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t ids[4] = {put_own(&w, w.work, "a", w.reply), put_own(&w, w.work, "b", NULL),
                       nr_put(&w.r, 0, w.work, "c"), nr_put(&w.r, 0, w.nowhere, "d")};
    struct broker_queue *to[4] = {w.reply, NULL, w.dead, NULL};

    for (int i = 0; i < 4; i++) {
        struct nr_lease l = nr_get(&w.r, 1, i < 3 ? w.work : w.nowhere, ids[i]);
        struct broker_event ev = nr_event(&w.r, BROKER_DONE, 1);

        ev.id = l.id;
        ev.epoch = l.epoch;
        ev.payload = nr_payload("v");
        ev.result_to = i < 3 ? w.dead : NULL; /* a queue like others, when one asks for it */
        assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_OK);
        struct broker_view v = nr_view(&w.r, ids[i]);
        assert_ptr_equal(v.queue, to[i]);
        assert_string_equal(v.state, "done");
        assert_payload(&v, "v");
    }
    assert_int_equal(nr_stats(&w.r).kept, 2);
    nr_deinit(&w.r);
}

static void submitters_with_queues_of_their_own_do_not_mix(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    struct broker_queue *mine[2] = {w.reply, nr_queue(&w.r, "reply2")};
    uint64_t ids[6];

    for (int i = 0; i < 6; i++)
        ids[i] = put_own(&w, w.work, "x", mine[i % 2]);
    for (int i = 0; i < 6; i++)
        assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.work, ids[i]), "y"), BROKER_REPLY_OK);
    nr_get_nothing(&w.r, 2, w.results);
    for (int i = 0; i < 6; i++)
        nr_get(&w.r, 2, mine[i % 2], ids[i]);
    nr_get_nothing(&w.r, 2, mine[0]);
    nr_get_nothing(&w.r, 2, mine[1]);
    nr_deinit(&w.r);
}

static void a_reply_queue_that_went_leaves_its_results_to_wait(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = put_own(&w, w.work, "a", w.reply), b = put_own(&w, w.work, "b", w.reply);
    struct nr_lease la = nr_get(&w.r, 1, w.work, a), lb = nr_get(&w.r, 1, w.work, b);

    broker_remove(w.r.b, w.reply, &w.r.fx);
    w.reply = nr_queue(&w.r, "reply"); /* another one: not theirs */
    assert_int_equal(nr_done(&w.r, la, "v"), BROKER_REPLY_OK);
    assert_null(nr_view(&w.r, a).queue);
    nr_get_nothing(&w.r, 2, w.reply);
    nr_get_nothing(&w.r, 2, w.results);
    assert_int_equal(nr_fail(&w.r, lb, "no", true), BROKER_REPLY_OK); /* no notice either */
    nr_get_nothing(&w.r, 2, w.reply);
    nr_get(&w.r, 2, w.dead, b);
    nr_deinit(&w.r);
}

static void kept_results_are_there_until_their_retention_ends(void **state)
{
    struct broker_put_options o = {.has_retention = true, .retention_ms = 50};
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = nr_put_with(&w.r, 0, w.nowhere, "a", &o), id2 = nr_put(&w.r, 0, w.nowhere, "b");
    uint64_t t1 = nr_wait(&w.r, 2, id), t2 = nr_wait(&w.r, 3, id);
    assert_int_equal(w.r.fx.count, 0);
    struct nr_lease l = nr_get(&w.r, 1, w.nowhere, id);
    assert_int_equal(nr_done(&w.r, l, "v"), BROKER_REPLY_OK);
    assert_int_equal(w.r.fx.count, 3);
    assert_int_equal(w.r.fx.list[1].token, t1);
    assert_int_equal(w.r.fx.list[2].token, t2);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(w.r.fx.list[i].outcome, BROKER_REPLY_RESULT);
        assert_payload(w.r.fx.list[i].copy, "v");
        assert_span(w.r.fx.list[i].copy->worker, "w1");
        assert_string_equal(w.r.fx.list[i].copy->from, "nowhere");
        assert_int_equal(w.r.fx.list[i].copy->id, id);
    }
    nr_pass(&w.r, 49);
    t1 = nr_wait(&w.r, 2, id);
    assert_int_equal(nr_find(&w.r, t1)->outcome, BROKER_REPLY_RESULT);
    nr_pass(&w.r, 1);
    assert_true(nr_is_gone(&w.r, id));
    t1 = nr_wait(&w.r, 2, id);
    assert_int_equal(nr_find(&w.r, t1)->outcome, BROKER_REPLY_UNKNOWN);
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.nowhere, id2), "v"), BROKER_REPLY_OK);
    nr_pass(&w.r, 299999);
    nr_view(&w.r, id2);
    nr_pass(&w.r, 1);
    assert_true(nr_is_gone(&w.r, id2));
    assert_int_equal(nr_stats(&w.r).tasks, 0);
    nr_deinit(&w.r);
}

static void a_result_that_nobody_keeps_is_still_told(void **state)
{
    struct broker_put_options o = {.has_retention = true, .retention_ms = 0};
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put_with(&w.r, 0, w.nowhere, "a", &o), b = nr_put_with(&w.r, 0, w.nowhere, "b", &o);
    uint64_t t = nr_wait(&w.r, 2, a);

    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.nowhere, a), "va"), BROKER_REPLY_OK);
    assert_int_equal(nr_find(&w.r, t)->outcome, BROKER_REPLY_RESULT);
    assert_payload(nr_find(&w.r, t)->copy, "va");
    assert_int_equal(nr_find(&w.r, t)->copy->outcome, BROKER_OUTCOME_OK);
    assert_true(nr_is_gone(&w.r, a));
    t = nr_wait(&w.r, 2, b);
    assert_int_equal(nr_fail(&w.r, nr_get(&w.r, 1, w.nowhere, b), "broken", true), BROKER_REPLY_OK);
    assert_int_equal(nr_find(&w.r, t)->copy->outcome, BROKER_OUTCOME_FAILED);
    assert_span(nr_find(&w.r, t)->copy->error, "broken");
    assert_true(nr_is_gone(&w.r, b));
    assert_int_equal(nr_stats(&w.r).tasks, 0);
    nr_deinit(&w.r);
}

static void a_key_answers_until_the_retention_ends(void **state)
{
    struct broker_put_options o = {.key = tq_span_str("k")};
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = nr_put_with(&w.r, 0, w.work, "a", &o);
    struct broker_event ev = nr_event(&w.r, BROKER_PUT, 2);
    ev.queue = w.work;
    ev.payload = nr_payload("again");
    ev.options = &o;
    assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_KNOWN);
    assert_int_equal(w.r.fx.list[0].id, id);
    assert_null(w.r.fx.list[0].copy);
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.work, id), "v"), BROKER_REPLY_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_KNOWN);
        assert_int_equal(w.r.fx.list[0].id, id);
        assert_payload(w.r.fx.list[0].copy, "v");
        if (i == 0) /* collected */
            assert_int_equal(nr_done(&w.r, nr_get(&w.r, 3, w.results, id), NULL), BROKER_REPLY_OK);
    }
    assert_int_equal(nr_stats(&w.r).kept, 1);
    nr_pass(&w.r, 300000);
    assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_OK);
    assert_true(w.r.fx.list[0].id > id);
    nr_deinit(&w.r);
}

static void leases_of_a_removed_queue_still_end(void **state)
{
    struct broker_queue_conf c = nr_conf("results", "dead");
    struct world w;

    (void)state;
    init(&w);
    c.max_attempts = 5;
    struct broker_queue *q = nr_declare(&w.r, "short", &c);
    uint64_t a = nr_put(&w.r, 0, q, "a"), b = nr_put(&w.r, 0, q, "b"), d = nr_put(&w.r, 0, q, "d");
    struct nr_lease la = nr_get(&w.r, 1, q, a), lb = nr_get(&w.r, 1, q, b), ld = nr_get(&w.r, 1, q, d);

    broker_remove(w.r.b, q, &w.r.fx);
    assert_int_equal(nr_done(&w.r, la, "v"), BROKER_REPLY_OK);
    assert_int_equal(nr_fail(&w.r, lb, "why", false), BROKER_REPLY_OK); /* it could not come back */
    assert_int_equal(nr_done(&w.r, ld, "v"), BROKER_REPLY_OK);
    nr_get(&w.r, 2, w.results, a);
    nr_get(&w.r, 2, w.results, d);
    nr_get(&w.r, 2, w.dead, b);
    assert_string_equal(nr_view(&w.r, a).from, "");
    nr_deinit(&w.r);
}

static void a_priority_queue_orders_results_as_tasks(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    struct broker_queue_conf cw = nr_conf("ordered", NULL);
    struct world w;
    uint64_t ids[5];

    (void)state;
    init(&w);
    c.kind = cw.kind = BROKER_PRIORITY;
    struct broker_queue *ordered = nr_declare(&w.r, "ordered", &c);
    struct broker_queue *q = nr_declare(&w.r, "work2", &cw);
    struct nr_lease l[5];

    for (int i = 0; i < 5; i++) {
        struct broker_put_options o = {.priority = (i * 2) % 5};

        ids[i] = nr_put_with(&w.r, 0, q, "x", &o);
    }
    for (int i = 0; i < 5; i++)
        l[i] = nr_get(&w.r, 1, q, 0);
    for (int i = 4; i >= 0; i--)
        assert_int_equal(nr_done(&w.r, l[i], "v"), BROKER_REPLY_OK);
    for (int i = 0; i < 5; i++)
        nr_get(&w.r, 2, ordered, ids[(i * 3) % 5]);
    nr_deinit(&w.r);
}

static void a_result_that_does_not_fit_is_refused_and_the_lease_stays(void **state)
{
    struct broker_limits limits = {.queues = 10, .memory_bytes = 4000, .held_per_session = 100};
    struct broker_queue_conf c = nr_conf("results", NULL);
    char large[4096];
    struct nr r;

    (void)state;
    memset(large, 'x', sizeof(large));
    large[sizeof(large) - 1] = 0;
    nr_init_limits(&r, &limits);
    struct broker_queue *q = nr_declare(&r, "work", &c), *results = nr_queue(&r, "results");
    uint64_t id = nr_put(&r, 0, q, "a");
    struct nr_lease l = nr_get(&r, 1, q, id);

    assert_int_equal(nr_done(&r, l, large), BROKER_REPLY_NO_MEMORY);
    assert_string_equal(nr_view(&r, id).state, "leased");
    large[3800] = 0;
    assert_int_equal(nr_done(&r, l, large), BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).body_bytes, 3800 + BROKER_BODY_OVERHEAD_BYTES);
    nr_get(&r, 2, results, id);
    assert_payload(&(struct broker_view){.payload = nr_view(&r, id).payload}, large);
    nr_deinit(&r);
}

static void results_come_by_maxsize_and_shutdown(void **state)
{
    struct broker_queue_conf c = nr_conf("small", NULL);
    struct broker_queue_conf cs = nr_conf(NULL, NULL);
    struct world w;

    (void)state;
    init(&w);
    cs.maxsize = 1;
    struct broker_queue *small = nr_declare(&w.r, "small", &cs), *q = nr_declare(&w.r, "q", &c);
    uint64_t ids[3];

    for (int i = 0; i < 3; i++)
        ids[i] = nr_put(&w.r, 0, q, "x");
    for (int i = 0; i < 3; i++) {
        if (i == 2) {
            struct broker_event ev = nr_event(&w.r, BROKER_SHUTDOWN, 0);

            ev.queue = small;
            nr_step(&w.r, &ev);
        }
        assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, q, ids[i]), "v"), BROKER_REPLY_OK);
    }
    assert_int_equal(broker_queue_size(small), 3);
    for (int i = 0; i < 3; i++)
        nr_get(&w.r, 2, small, ids[i]);
    nr_deinit(&w.r);
}

static void results_can_be_given_back(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t a = nr_put(&w.r, 0, w.work, "a"), b = nr_put(&w.r, 0, w.work, "b");
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.work, a), "va"), BROKER_REPLY_OK);
    assert_int_equal(nr_done(&w.r, nr_get(&w.r, 1, w.work, b), "vb"), BROKER_REPLY_OK);
    struct nr_lease l = nr_get(&w.r, 2, w.results, a);
    assert_int_equal(nr_about(&w.r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    (void)nr_get(&w.r, 2, w.results, a);
    nr_close(&w.r, 2); /* the collector died */
    for (int i = 0; i < 3; i++) {
        l = nr_get(&w.r, 3, w.results, a);
        assert_int_equal(l.attempt, i + 2);
        assert_int_equal(nr_fail(&w.r, l, "not now", false), BROKER_REPLY_OK); /* whatever max_attempts is */
        assert_int_equal(w.r.fx.list[0].number, 1);
        struct broker_view v = nr_view(&w.r, a);
        assert_int_equal(v.outcome, BROKER_OUTCOME_OK);
        assert_payload(&v, "va");
        assert_int_equal(v.tries, 1);
        assert_span(v.worker, "w1"); /* it still tells of the task */
        assert_span(v.error, "");
        struct nr_lease lb = nr_get(&w.r, 3, w.results, b);
        assert_int_equal(nr_about(&w.r, BROKER_RELEASE, lb), BROKER_REPLY_OK);
        nr_pass(&w.r, 10000);
        lb = nr_get(&w.r, 3, w.results, b); /* a retry stands at the end */
        lb.s = 3;
        l = nr_get(&w.r, 3, w.results, a);
        assert_int_equal(nr_about(&w.r, BROKER_RELEASE, lb), BROKER_REPLY_OK);
        assert_int_equal(nr_about(&w.r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    }
    l = nr_get(&w.r, 3, w.results, a);
    assert_int_equal(nr_fail(&w.r, l, "never", true), BROKER_REPLY_OK);
    assert_true(nr_is_gone(&w.r, a));
    assert_int_equal(nr_stats(&w.r).dead, 0);
    nr_deinit(&w.r);
}

static struct broker_event python(struct nr *r, enum broker_event_kind kind, struct broker_queue *q)
{
    struct broker_event ev = nr_event(r, kind, NR_PYTHON);

    ev.queue = q;
    return ev;
}

static enum broker_outcome python_put(struct nr *r, struct broker_queue *q, const char *body)
{
    struct broker_event ev = python(r, BROKER_PUT, q);

    ev.payload = nr_payload(body);
    ev.payload.format = BROKER_PYTHON;
    ev.payload.item_len = ev.payload.len;
    return nr_call(r, &ev);
}

static void a_put_of_a_python_worker_is_its_tasks_result(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = nr_put(&w.r, 0, w.work, "a"), own = put_own(&w, w.work, "b", w.reply);
    uint64_t t = nr_wait(&w.r, 2, id);
    struct broker_event get = python(&w.r, BROKER_GET, w.work);

    assert_int_equal(nr_call(&w.r, &get), BROKER_REPLY_ITEM);
    assert_int_equal(w.r.fx.list[0].id, id);
    nr_step(&w.r, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &w.r.s[NR_PYTHON]});
    assert_int_equal(python_put(&w.r, w.results, "va"), BROKER_REPLY_NONE);
    assert_payload(nr_find(&w.r, t)->copy, "va");
    struct broker_view v = nr_view(&w.r, id);
    assert_ptr_equal(v.queue, w.results);
    assert_int_equal(v.payload.format, BROKER_PYTHON);
    assert_span(v.worker, "python");
    assert_int_equal(v.outcome, BROKER_OUTCOME_OK);
    assert_int_equal(nr_stats(&w.r).leased, 0);
    assert_int_equal(nr_stats(&w.r).acked, 1);
    assert_int_equal(nr_stats(&w.r).puts, 3);
    assert_int_equal(nr_queue_stats(&w.r, w.work).unfinished, 2); /* task_done counts those */
    /* It knows one queue for results; the task says where its own goes. */
    assert_int_equal(nr_call(&w.r, &get), BROKER_REPLY_ITEM);
    assert_int_equal(w.r.fx.list[0].id, own);
    nr_step(&w.r, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &w.r.s[NR_PYTHON]});
    assert_int_equal(python_put(&w.r, w.results, "vb"), BROKER_REPLY_NONE);
    nr_get(&w.r, 2, w.reply, own);
    /* Not its result: it holds nothing, or it is for another queue. */
    assert_int_equal(python_put(&w.r, w.results, "more"), BROKER_REPLY_NONE);
    nr_get(&w.r, 3, w.results, id);
    assert_int_equal(broker_queue_size(w.results), 1);
    uint64_t third = nr_put(&w.r, 0, w.work, "c");
    assert_int_equal(nr_call(&w.r, &get), BROKER_REPLY_ITEM);
    nr_step(&w.r, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &w.r.s[NR_PYTHON]});
    assert_int_equal(python_put(&w.r, w.reply, "elsewhere"), BROKER_REPLY_NONE);
    assert_true(nr_is_gone(&w.r, third)); /* acknowledged without a result that is known as such */
    assert_int_equal(broker_queue_size(w.reply), 1);
    nr_deinit(&w.r);
}

static void a_python_result_may_go_to_the_submitters_own_queue(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t own = put_own(&w, w.work, "b", w.reply);
    struct broker_event get = python(&w.r, BROKER_GET, w.work);

    assert_int_equal(nr_call(&w.r, &get), BROKER_REPLY_ITEM);
    assert_int_equal(python_put(&w.r, w.reply, "vb"), BROKER_REPLY_NONE);
    nr_get(&w.r, 2, w.reply, own);
    nr_deinit(&w.r);
}

/* Each allocation fails in turn: the call says so and nothing has changed, or it is done. */
static void ends_happen_whole_or_not_at_all(void **state)
{
    static const enum broker_event_kind kinds[] = {BROKER_DONE, BROKER_FAIL, BROKER_REMOVE, BROKER_RETRY};
    char large[2000];

    (void)state;
    memset(large, 'x', sizeof(large));
    large[sizeof(large) - 1] = 0;
    for (size_t k = 0; k < 4; k++)
        for (int variant = 0; variant < 4; variant++) {
            int refused = 0;

            for (long n = 0;; n++) {
                struct broker_put_options o = {.key = tq_span_str("k"), .has_result = (variant & 1) != 0};
                struct broker_failure f = {.error = tq_span_str("why"), .final = true};
                struct broker_stats before, after;
                struct broker_event ev;
                struct nr_lease l;
                struct world w;

                init(&w);
                o.result = w.reply;
                uint64_t id =
                    nr_put_with(&w.r, 0, w.work, (variant & 2) != 0 ? large : "x", variant == 0 ? NULL : &o);
                l = nr_get(&w.r, 1, w.work, id);
                if (kinds[k] == BROKER_RETRY)
                    assert_int_equal(nr_fail_with(&w.r, l, &f), BROKER_REPLY_OK);
                uint64_t t = kinds[k] != BROKER_RETRY ? nr_wait(&w.r, 2, id) : 0;
                ev = nr_event(&w.r, kinds[k], 1);
                ev.id = l.id;
                ev.epoch = l.epoch;
                ev.failure = &f;
                if (kinds[k] == BROKER_DONE)
                    ev.payload = nr_payload((variant & 2) != 0 ? large : "v");
                before = nr_stats(&w.r);
                tq_mem_fail_after(n, 1);
                int rv = nr_try(&w.r, &ev);
                after = nr_stats(&w.r);
                bool done = rv == 0 && w.r.fx.list[0].outcome == BROKER_REPLY_OK;
                if (!done) {
                    assert_true(rv == TQ_ENOMEM || w.r.fx.list[0].outcome == BROKER_REPLY_NO_MEMORY);
                    before.memory_bytes = after.memory_bytes;
                    assert_memory_equal(&before, &after, sizeof(before));
                    refused++;
                    assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_OK);
                    assert_true(t == 0 || nr_find(&w.r, t) != NULL);
                } else if (t != 0 && nr_find(&w.r, t) == NULL) { /* told a little later */
                    nr_pass(&w.r, 100);
                    assert_non_null(nr_find(&w.r, t));
                }
                if (kinds[k] == BROKER_DONE)
                    assert_int_equal(nr_view(&w.r, id).outcome, BROKER_OUTCOME_OK);
                nr_deinit(&w.r);
                if (done && n > 30)
                    break;
            }
            if (kinds[k] != BROKER_REMOVE)
                assert_true(refused > 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_tells_all),
        cmocka_unit_test(results_go_where_they_were_asked_to),
        cmocka_unit_test(submitters_with_queues_of_their_own_do_not_mix),
        cmocka_unit_test(a_reply_queue_that_went_leaves_its_results_to_wait),
        cmocka_unit_test(kept_results_are_there_until_their_retention_ends),
        cmocka_unit_test(a_result_that_nobody_keeps_is_still_told),
        cmocka_unit_test(a_key_answers_until_the_retention_ends),
        cmocka_unit_test(leases_of_a_removed_queue_still_end),
        cmocka_unit_test(a_priority_queue_orders_results_as_tasks),
        cmocka_unit_test(a_result_that_does_not_fit_is_refused_and_the_lease_stays),
        cmocka_unit_test(results_come_by_maxsize_and_shutdown),
        cmocka_unit_test(results_can_be_given_back),
        cmocka_unit_test(a_put_of_a_python_worker_is_its_tasks_result),
        cmocka_unit_test(a_python_result_may_go_to_the_submitters_own_queue),
        cmocka_unit_test(ends_happen_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
