/* Results that are kept: those that nobody asked for give way at the limit of memory; and a task that is
 * acknowledged without a word on its result leaves one if somebody will ask for it. */
#include "master/core/kept.h"
#include "tests/unit/broker_world.h"

#define ONE (BROKER_BODY_OVERHEAD_BYTES + 1u) /* what a body of one byte is charged with */

static void init_limit(struct nr *r, uint64_t memory_bytes)
{
    nr_init_limits(
        r, &(struct broker_limits){.queues = 100, .held_per_session = 1000000, .memory_bytes = memory_bytes});
}

/* Its id: a task was put and done, and its result is kept. */
static uint64_t run(struct nr *r, struct broker_queue *q, const struct broker_put_options *o)
{
    uint64_t id = nr_put_with(r, 0, q, "x", o);

    assert_int_equal(nr_done(r, nr_get(r, 1, q, id), "v"), BROKER_REPLY_OK);
    assert_string_equal(nr_view(r, id).state, "done");
    return id;
}

static struct broker_event put_of(struct nr *r, int s, struct broker_queue *q, const char *body,
                                  int64_t wait_ms)
{
    struct broker_event ev = nr_event(r, BROKER_PUT, s);

    ev.queue = q;
    ev.payload = nr_payload(body);
    ev.wait_mode = wait_ms != 0 ? BROKER_WAIT_MS : BROKER_NO_WAIT;
    ev.wait_ms = (uint64_t)wait_ms;
    return ev;
}

static struct broker_event python(struct nr *r, enum broker_event_kind kind, struct broker_queue *q)
{
    struct broker_event ev = nr_event(r, kind, NR_PYTHON);

    ev.queue = q;
    return ev;
}

static void native_puts_are_told_that_it_is_the_memory(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    struct broker_event ev;
    struct nr r;

    (void)state;
    init_limit(&r, 8 * ONE + 7); /* new work may take 7 of them */
    struct broker_queue *q = nr_queue(&r, "q");
    c.maxsize = 1;
    struct broker_queue *small = nr_declare(&r, "small", &c);
    for (int i = 0; i < 6; i++)
        nr_put(&r, 0, q, "x");
    nr_put(&r, 0, small, "x");
    ev = put_of(&r, 0, q, "x", 0);
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NO_MEMORY);
    ev = put_of(&r, 0, small, "x", 0);
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_FULL);
    ev = put_of(&r, NR_PYTHON, q, "x", 0);
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_FULL);
    /* When the wait ends, too. */
    struct broker_event native = put_of(&r, 0, q, "x", 50), py = put_of(&r, NR_PYTHON, q, "x", 60),
                        full = put_of(&r, 0, small, "x", 70);
    nr_step(&r, &native);
    nr_step(&r, &py);
    nr_step(&r, &full);
    nr_pass(&r, 50);
    assert_int_equal(nr_find(&r, native.token)->outcome, BROKER_REPLY_NO_MEMORY);
    nr_pass(&r, 10);
    assert_int_equal(nr_find(&r, py.token)->outcome, BROKER_REPLY_FULL);
    nr_pass(&r, 10);
    assert_int_equal(nr_find(&r, full.token)->outcome, BROKER_REPLY_FULL);
    nr_deinit(&r);
}

static void the_oldest_results_give_way(void **state)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);
    struct broker_put_options asked[] = {
        {.key = tq_span_str("k")}, {.has_result = true}, {.has_retention = true, .retention_ms = 60000}};
    uint64_t stay[4], ids[20];
    struct nr r;

    (void)state;
    init_limit(&r, 16 * ONE);
    struct broker_queue *q = nr_queue(&r, "q");
    c.retention_ms = 70000;
    struct broker_queue *keeps = nr_declare(&r, "keeps", &c);
    for (int i = 0; i < 3; i++)
        stay[i] = run(&r, q, &asked[i]);
    stay[3] = run(&r, keeps, NULL);
    /* 14 fit; the put of each needs the room of one. */
    for (int i = 0; i < 20; i++)
        ids[i] = run(&r, q, NULL);
    assert_int_equal(nr_stats(&r).kept_dropped, 10);
    assert_int_equal(nr_stats(&r).kept, 14);
    for (int i = 0; i < 20; i++)
        assert_int_equal(nr_is_gone(&r, ids[i]), i < 10);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nr_view(&r, stay[i]).outcome, BROKER_OUTCOME_OK);
    /* Tasks take the place of all of them, but not of those that were asked for. */
    for (int i = 0; i < 10; i++)
        nr_put(&r, 0, q, "x");
    assert_int_equal(nr_stats(&r).kept, 4);
    struct broker_event ev = put_of(&r, 0, q, "x", 0);
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NO_MEMORY);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nr_view(&r, stay[i]).outcome, BROKER_OUTCOME_OK);
    /* They end by their retention as before. */
    nr_pass(&r, 300000);
    assert_int_equal(nr_stats(&r).kept, 0);
    nr_deinit(&r);
}

static void nothing_gives_way_in_vain(void **state)
{
    char large[15 * ONE];
    struct broker_event ev;
    struct nr r;

    (void)state;
    init_limit(&r, 16 * ONE);
    memset(large, 'x', sizeof(large));
    large[sizeof(large) - 1] = 0;
    struct broker_queue *q = nr_queue(&r, "q");
    uint64_t first = run(&r, q, NULL), second = run(&r, q, NULL);
    run(&r, q, NULL);
    nr_put(&r, 0, q, "task");
    ev = put_of(&r, 0, q, large, 0);
    ev.payload.len = 13 * ONE; /* there would be room for it, but for the task */
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NO_MEMORY);
    assert_int_equal(nr_stats(&r).kept_dropped, 0);
    ev.payload.len = 10 * ONE - 10; /* in the place of one of them */
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).kept_dropped, 1);
    assert_true(nr_is_gone(&r, first));
    assert_false(nr_is_gone(&r, second));
    nr_deinit(&r);
}

/* A result that is larger than its task finds room, too; and one in the middle of the list may go first. */
static void results_give_way_to_results(void **state)
{
    char large[4 * ONE + 1];
    uint64_t ids[12];
    struct nr r;

    (void)state;
    init_limit(&r, 16 * ONE);
    memset(large, 'x', sizeof(large));
    large[4 * ONE] = 0;
    struct broker_queue *q = nr_queue(&r, "q");
    for (int i = 0; i < 12; i++)
        ids[i] = run(&r, q, NULL);
    assert_int_equal(nr_by_id(&r, BROKER_REMOVE, 0, ids[1]), BROKER_REPLY_OK);
    nr_put(&r, 0, q, "x");
    struct nr_lease l = nr_get(&r, 1, q, 0);
    assert_int_equal(nr_done(&r, l, large), BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).kept_dropped, 0);
    nr_put(&r, 0, q, "y");
    assert_int_equal(nr_stats(&r).kept_dropped, 3);
    assert_false(nr_is_gone(&r, ids[4]));
    l = nr_get(&r, 1, q, 0);
    assert_int_equal(nr_done(&r, l, large), BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).kept_dropped, 5);
    assert_true(nr_is_gone(&r, ids[5]));
    assert_false(nr_is_gone(&r, ids[6]));
    nr_deinit(&r);
}

/* A step is short: who waits gets the room in several, who does not wait is told. */
static void a_bounded_number_gives_way_in_a_step(void **state)
{
    const uint32_t many = 2 * BROKER_GIVE_WAY_MAX + 10;
    uint64_t limit = (uint64_t)many * ONE;
    struct broker_event ev;
    struct nr r;

    (void)state;
    init_limit(&r, limit + limit / 7 + 8); /* new work may take all of it */
    struct broker_queue *q = nr_queue(&r, "q");
    for (uint32_t i = 0; i < many; i++) { /* as run, but quicker: no check of so many after each */
        ev = put_of(&r, 0, q, "x", 0);
        assert_int_equal(broker_step(r.b, r.now_ms, &ev, &r.fx), 0);
        ev = nr_event(&r, BROKER_GET, 1);
        ev.queue = q;
        ev.max = 1;
        broker_effects_clear(&r.fx);
        assert_int_equal(broker_step(r.b, r.now_ms, &ev, &r.fx), 0);
        ev = nr_event(&r, BROKER_DONE, 1);
        ev.id = r.fx.list[0].id;
        ev.epoch = r.fx.list[0].epoch;
        ev.payload = nr_payload("v");
        broker_effects_clear(&r.fx);
        assert_int_equal(broker_step(r.b, r.now_ms, &ev, &r.fx), 0);
        broker_effects_clear(&r.fx);
    }
    assert_int_equal(nr_stats(&r).kept, many);
    uint8_t *large = tq_calloc(1, (size_t)limit);
    assert_non_null(large);
    ev = put_of(&r, 0, q, "", 0);
    ev.payload =
        (struct broker_payload){.data = large, .len = (uint32_t)(limit - BROKER_BODY_OVERHEAD_BYTES)};
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NO_MEMORY);
    assert_int_equal(nr_stats(&r).kept_dropped, BROKER_GIVE_WAY_MAX);
    ev = put_of(&r, 0, q, "", 1000);
    ev.payload =
        (struct broker_payload){.data = large, .len = (uint32_t)(limit - BROKER_BODY_OVERHEAD_BYTES)};
    nr_step(&r, &ev);
    assert_int_equal(nr_stats(&r).kept_dropped, 2 * BROKER_GIVE_WAY_MAX);
    assert_null(nr_find(&r, ev.token));
    nr_pass(&r, 1);
    assert_int_equal(nr_find(&r, ev.token)->outcome, BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).kept, 0);
    tq_free(large);
    nr_deinit(&r);
}

/* Who waits for a result gets it, however short memory is when it comes. */
static void a_result_that_is_being_told_does_not_give_way(void **state)
{
    struct broker_event ev, done;
    struct nr r;

    (void)state;
    init_limit(&r, 8 * ONE); /* new work: 7 */
    struct broker_queue *q = nr_queue(&r, "q");
    for (int i = 0; i < 6; i++)
        nr_put(&r, 0, q, "x");
    uint64_t id = nr_put(&r, 0, q, "x");
    struct nr_lease l;
    do
        l = nr_get(&r, 1, q, 0);
    while (l.id != id);
    uint64_t t = nr_wait(&r, 2, id);
    done = nr_event(&r, BROKER_DONE, 1);
    done.id = l.id;
    done.epoch = l.epoch;
    done.payload = nr_payload("v");
    done.more = true; /* nobody is served yet */
    assert_int_equal(nr_call(&r, &done), BROKER_REPLY_OK);
    ev = put_of(&r, 0, q, "x", 0);
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NO_MEMORY);
    const struct broker_effect *e = nr_find(&r, t);
    assert_non_null(e);
    assert_payload(e->copy, "v");
    ev = put_of(&r, 0, q, "x", 0); /* he has it: now it may */
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_OK);
    assert_int_equal(nr_stats(&r).kept_dropped, 1);
    nr_deinit(&r);
}

/* ---- acknowledged without a result ---- */

enum how { NEXT_GET, TASK_DONE, ACK_GET, CLEAN_CLOSE, PUT_ELSEWHERE, TAKEN, HOWS };

/* A task of the queue is taken and acknowledged in one of the ways. */
static void acknowledge(struct world *w, enum how how, struct broker_queue *q)
{
    struct broker_event get = python(&w->r, BROKER_GET, q), ev;

    if (how == TAKEN) {
        get = nr_event(&w->r, BROKER_GET, 3);
        get.queue = q;
        get.max = 1;
        get.take = true;
        assert_int_equal(nr_call(&w->r, &get), BROKER_REPLY_TASK);
        return;
    }
    assert_int_equal(nr_call(&w->r, &get), BROKER_REPLY_ITEM);
    w->r.now_ms += 20;
    nr_step(&w->r, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &w->r.s[NR_PYTHON]});
    if (how == NEXT_GET) {
        get.token = ++w->r.token;
        assert_int_equal(nr_call(&w->r, &get), BROKER_REPLY_EMPTY);
    } else if (how == TASK_DONE) {
        ev = python(&w->r, BROKER_TASK_DONE, q);
        assert_int_equal(nr_call(&w->r, &ev), BROKER_REPLY_NONE);
    } else if (how == CLEAN_CLOSE) {
        nr_step(&w->r, &(struct broker_event){.kind = BROKER_SESSION_CLOSE,
                                              .session = &w->r.s[NR_PYTHON],
                                              .close_mode = BROKER_CLOSE_ACK});
        struct broker_effects fx = w->r.fx; /* what it told to others is looked at below */
        w->r.fx = (struct broker_effects){0};
        nr_open(&w->r, NR_PYTHON);
        broker_effects_deinit(&w->r.fx);
        w->r.fx = fx;
    } else if (how == PUT_ELSEWHERE) {
        ev = put_of(&w->r, NR_PYTHON, w->dead, "v", 0);
        assert_int_equal(nr_call(&w->r, &ev), BROKER_REPLY_NONE);
    }
}

static struct broker_queue *queue_for(struct world *w, enum how how)
{
    struct broker_queue_conf c = nr_conf("results", NULL);

    if (how != ACK_GET)
        return w->work;
    c.ack = BROKER_ACK_GET;
    return nr_declare(&w->r, "once", &c);
}

static void assert_result(const struct broker_view *v, enum how how)
{
    assert_int_equal(v->outcome, BROKER_OUTCOME_OK);
    assert_payload(v, NULL);
    assert_span(v->worker, how == TAKEN ? "w3" : "python");
    assert_int_equal(v->tries, 1);
    assert_int_equal(v->started_ms, 1000);
    assert_int_equal(v->ended_ms, how == TAKEN ? 1000 : 1020);
    assert_string_equal(v->state, "done");
}

static void a_task_with_a_key_leaves_a_result(void **state)
{
    struct broker_put_options asked[] = {
        {.key = tq_span_str("k")}, {.has_result = true}, {.has_retention = true, .retention_ms = 60000}};

    (void)state;
    for (int how = 0; how < HOWS; how++)
        for (int i = 0; i < 3; i++) {
            struct broker_event ev;
            struct broker_view v;
            struct world w;

            init(&w);
            struct broker_queue *q = queue_for(&w, (enum how)how);
            uint64_t id = nr_put_with(&w.r, 0, q, "body", &asked[i]);
            uint64_t t = nr_wait(&w.r, 2, id);
            acknowledge(&w, (enum how)how, q);
            const struct broker_effect *e = nr_find(&w.r, t);
            assert_non_null(e);
            assert_result(e->copy, (enum how)how);
            v = nr_view(&w.r, id);
            assert_result(&v, (enum how)how);
            assert_null(v.queue);
            assert_int_equal(broker_queue_size(w.results), 0); /* no queue gets what nobody said */
            assert_int_equal(nr_stats(&w.r).acked, 1);
            assert_int_equal(nr_queue_stats(&w.r, q).done, 1);
            assert_int_equal(nr_queue_stats(&w.r, q).unfinished, how == TAKEN || how == TASK_DONE ? 0 : 1);
            if (i == 0) { /* put again: known, not a second task */
                ev = put_of(&w.r, 0, q, "body", 0);
                ev.options = &asked[0];
                assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_KNOWN);
                assert_int_equal(w.r.fx.list[0].id, id);
                assert_result(w.r.fx.list[0].copy, (enum how)how);
            }
            nr_pass(&w.r, i == 2 ? 59900 : 299900);
            assert_false(nr_is_gone(&w.r, id));
            nr_pass(&w.r, 100);
            assert_true(nr_is_gone(&w.r, id));
            if (i == 0)
                assert_int_not_equal(nr_put_with(&w.r, 0, q, "body", &asked[0]), id);
            nr_deinit(&w.r);
        }
}

static void a_plain_task_leaves_nothing(void **state)
{
    (void)state;
    for (int how = 0; how < HOWS; how++)
        for (int waited = 0; waited < 2; waited++) {
            struct world w;

            init(&w);
            struct broker_queue *q = queue_for(&w, (enum how)how);
            uint64_t id = nr_put(&w.r, 0, q, "body");
            uint64_t t = waited ? nr_wait(&w.r, 2, id) : 0;
            acknowledge(&w, (enum how)how, q);
            if (waited) { /* but who waits is told all */
                assert_non_null(nr_find(&w.r, t));
                assert_result(nr_find(&w.r, t)->copy, (enum how)how);
            }
            assert_true(nr_is_gone(&w.r, id));
            assert_int_equal(nr_stats(&w.r).acked, 1);
            assert_int_equal(nr_stats(&w.r).kept, 0);
            nr_deinit(&w.r);
        }
}

static void who_waits_for_a_plain_task_makes_it_stay_where_it_would(void **state)
{
    struct world w;

    (void)state;
    init(&w);
    uint64_t id = nr_put(&w.r, 0, w.nowhere, "body"); /* no result queue: kept, if anything is */
    nr_wait(&w.r, 2, id);
    acknowledge(&w, NEXT_GET, w.nowhere);
    struct broker_view v = nr_view(&w.r, id);
    assert_result(&v, NEXT_GET);
    nr_deinit(&w.r);
}

/* Whatever allocation fails: the acknowledgement stands, and the key stays taken. */
static void an_acknowledgement_is_not_lost_without_memory(void **state)
{
    char large[2000];

    (void)state;
    memset(large, 'x', sizeof(large));
    large[sizeof(large) - 1] = 0;
    for (int size = 0; size < 2; size++) {
        int nameless = 0;

        for (long n = 0; n < 12; n++) {
            struct broker_put_options o = {.key = tq_span_str("k"), .trace = tq_span_str("00-ab")};
            struct broker_event get, ev;
            struct broker_view v;
            struct world w;

            init(&w);
            uint64_t id = nr_put_with(&w.r, 0, w.work, size == 0 ? "x" : large, &o);
            get = python(&w.r, BROKER_GET, w.work);
            assert_int_equal(nr_call(&w.r, &get), BROKER_REPLY_ITEM);
            nr_step(&w.r, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &w.r.s[NR_PYTHON]});
            /* The slab has no slot for a result yet, so that it asks for memory. */
            tq_mem_fail_after(n, 1000);
            ev = python(&w.r, BROKER_TASK_DONE, w.work);
            assert_int_equal(nr_try(&w.r, &ev), 0);
            assert_int_equal(w.r.fx.list[0].outcome, BROKER_REPLY_NONE);
            v = nr_view(&w.r, id);
            assert_int_equal(v.outcome, BROKER_OUTCOME_OK);
            assert_payload(&v, NULL);
            assert_string_equal(v.state, "done");
            assert_int_equal(v.tries, 1);
            assert_span(v.key, "k");
            assert_span(v.trace, "00-ab");
            assert_string_equal(v.from, "work");
            nameless += v.worker.len == 0;
            assert_int_equal(nr_stats(&w.r).acked, 1);
            assert_int_equal(nr_stats(&w.r).body_bytes, BROKER_BODY_OVERHEAD_BYTES);
            assert_int_equal(nr_queue_stats(&w.r, w.work).body_bytes, 0);
            ev = put_of(&w.r, 0, w.work, "x", 0);
            ev.options = &o;
            assert_int_equal(nr_call(&w.r, &ev), BROKER_REPLY_KNOWN);
            nr_pass(&w.r, 300000);
            assert_true(nr_is_gone(&w.r, id));
            nr_deinit(&w.r);
        }
        assert_true(nameless > 0 && nameless < 12);
    }
}

/* The hand-out itself says so when there is no memory for what the acknowledgement will need. */
static void a_hand_out_without_memory_changes_nothing(void **state)
{
    (void)state;
    for (int take = 0; take < 2; take++) {
        int refused = 0;

        for (long n = 0; n < 20; n++) {
            struct broker_put_options o = {.key = tq_span_str("k")};
            struct broker_event get;
            struct world w;

            init(&w);
            uint64_t id = nr_put_with(&w.r, 0, w.work, "x", &o);
            get = nr_event(&w.r, BROKER_GET, take ? 3 : NR_PYTHON);
            get.queue = w.work;
            get.max = 1;
            get.take = take;
            tq_mem_fail_after(n, 1000);
            int rv = nr_try(&w.r, &get);
            if (rv != 0 || w.r.fx.list[0].outcome == BROKER_REPLY_NO_MEMORY) {
                refused++;
                assert_string_equal(nr_view(&w.r, id).state, "ready");
                assert_int_equal(nr_stats(&w.r).acked, 0);
                assert_int_equal(nr_call(&w.r, &get), take ? BROKER_REPLY_TASK : BROKER_REPLY_ITEM);
            }
            assert_false(nr_is_gone(&w.r, id));
            nr_deinit(&w.r);
        }
        assert_true(refused > 1 && refused < 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native_puts_are_told_that_it_is_the_memory),
        cmocka_unit_test(the_oldest_results_give_way),
        cmocka_unit_test(nothing_gives_way_in_vain),
        cmocka_unit_test(results_give_way_to_results),
        cmocka_unit_test(a_bounded_number_gives_way_in_a_step),
        cmocka_unit_test(a_result_that_is_being_told_does_not_give_way),
        cmocka_unit_test(a_task_with_a_key_leaves_a_result),
        cmocka_unit_test(a_plain_task_leaves_nothing),
        cmocka_unit_test(who_waits_for_a_plain_task_makes_it_stay_where_it_would),
        cmocka_unit_test(an_acknowledgement_is_not_lost_without_memory),
        cmocka_unit_test(a_hand_out_without_memory_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
