/* A queue's lists and heap: tasks that leave it from the middle, and the tombstones that they may leave. */
#include "tests/unit/broker_native_rig.h"

#include <stdlib.h>

#include "master/core/broker_impl.h"
#include "master/core/lease.h"
#include "master/core/queue.h"
#include "master/core/task.h"

static uint64_t rng_state = 1;

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 20) % below);
}

static struct broker_queue *queue_of(struct nr *r, enum broker_kind kind)
{
    struct broker_queue_conf conf = nr_conf(NULL, NULL);

    conf.kind = kind;
    return nr_declare(r, "q", &conf);
}

static uint64_t slots(const struct nr *r)
{
    struct slab_stats st;

    slab_get_stats(r->b->slab, &st);
    return st.slots;
}

static struct broker_stats stats(const struct nr *r)
{
    struct broker_stats st;

    broker_get_stats(r->b, &st);
    return st;
}

static uint32_t slot_of(const struct nr *r, uint64_t id)
{
    return ids_find(r->b->ids, id);
}

/* A step of the broker without a look at all its rules, of which there are too many for a long run. */
static enum broker_outcome quick(struct nr *r, const struct broker_event *ev)
{
    broker_effects_clear(&r->fx);
    assert_int_equal(broker_step(r->b, r->now_ms, ev, &r->fx), 0);
    return r->fx.list[0].outcome;
}

static uint64_t quick_put(struct nr *r, struct broker_queue *q, const struct broker_put_options *o)
{
    struct broker_event ev = nr_event(r, BROKER_PUT, 0);

    ev.queue = q;
    ev.payload = nr_payload("a body");
    ev.options = o;
    assert_int_equal(quick(r, &ev), BROKER_REPLY_OK);
    return r->fx.list[0].id;
}

static uint64_t quick_take(struct nr *r, struct broker_queue *q)
{
    struct broker_event ev = nr_event(r, BROKER_GET, 1);

    ev.queue = q;
    ev.max = 1;
    ev.take = true;
    assert_int_equal(quick(r, &ev), BROKER_REPLY_TASK);
    return r->fx.list[0].id;
}

static void quick_remove(struct nr *r, uint64_t id)
{
    struct broker_event ev = nr_event(r, BROKER_REMOVE, 2);

    ev.id = id;
    assert_int_equal(quick(r, &ev), BROKER_REPLY_OK);
}

static void a_task_with_an_extra_is_unlinked_at_once(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO};
    const struct broker_put_options extra = {.trace = tq_span_str("t")};

    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (int which = 0; which < 5; which++)
            for (int mask = 0; mask < 32; mask++) { /* which of five have an extra */
                struct nr r;
                uint64_t ids[5];

                if ((mask >> which & 1) == 0)
                    continue;
                nr_init(&r);
                struct broker_queue *q = queue_of(&r, kinds[k]);
                for (int i = 0; i < 5; i++)
                    ids[i] = nr_put_with(&r, 0, q, "x", mask >> i & 1 ? &extra : NULL);
                assert_int_equal(nr_by_id(&r, BROKER_REMOVE, 2, ids[which]), BROKER_REPLY_OK);
                assert_int_equal(slots(&r), 4);
                assert_int_equal(q->buried, 0);
                for (int i = 0; i < 5; i++) {
                    int at = kinds[k] == BROKER_LIFO ? 4 - i : i;

                    if (at != which)
                        nr_get(&r, 1, q, ids[at]);
                }
                nr_get_nothing(&r, 1, q);
                nr_deinit(&r);
            }
}

static void one_without_is_buried_and_passed_over(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};

    (void)state;
    for (size_t k = 0; k < 3; k++)
        for (int mask = 1; mask < 64; mask++) { /* which of six go */
            struct nr r;
            uint64_t ids[6];

            nr_init(&r);
            struct broker_queue *q = queue_of(&r, kinds[k]);
            for (int i = 0; i < 6; i++)
                ids[i] = nr_put(&r, 0, q, "x");
            for (int i = 0; i < 6; i++)
                if (mask >> i & 1)
                    assert_int_equal(nr_by_id(&r, BROKER_REMOVE, 2, ids[i]), BROKER_REPLY_OK);
            for (int i = 0; i < 6; i++) {
                int at = kinds[k] == BROKER_LIFO ? 5 - i : i;

                if ((mask >> at & 1) == 0)
                    nr_get(&r, 1, q, ids[at]);
            }
            nr_get_nothing(&r, 1, q);
            nr_close(&r, 1); /* all comes back */
            assert_int_equal(q->ready, 6 - __builtin_popcount((unsigned)mask));
            broker_effects_clear(&r.fx);
            broker_remove(r.b, q, &r.fx);
            assert_null(broker_check(r.b));
            assert_int_equal(slots(&r), 0);
            nr_deinit(&r);
        }
}

/* In a queue of which nobody takes anything, tombstones take at most as much room as what lives. */
static void tombstones_do_not_pile_up(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};
    enum { STANDING = 500, ROUNDS = 20000 };
    uint64_t *ids = malloc(STANDING * sizeof(*ids));

    (void)state;
    assert_non_null(ids);
    for (size_t k = 0; k < 3; k++) {
        uint64_t most = 0;
        struct nr r;

        nr_init(&r);
        struct broker_queue *q = queue_of(&r, kinds[k]);
        for (size_t i = 0; i < STANDING; i++)
            ids[i] = quick_put(&r, q, NULL);
        for (int i = 0; i < ROUNDS; i++) {
            uint32_t which = rng(STANDING);

            quick_remove(&r, ids[which]);
            ids[which] = quick_put(&r, q, NULL);
            if (slots(&r) > most)
                most = slots(&r);
            if (i % 1000 == 0)
                assert_null(broker_check(r.b));
        }
        assert_true(most > STANDING); /* else this tests nothing */
        assert_true(most < STANDING * 2 + 100);
        for (size_t i = 0; i < STANDING; i++)
            assert_true(quick_take(&r, q) > 0);
        assert_int_equal(slots(&r), 0);
        nr_deinit(&r);
    }
    free(ids);
}

/* Puts of all kinds, takes, removals, leases that come back, against an array. */
static void a_long_random_history_keeps_the_order(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};
    enum { MOST = 60, STEPS = 6000 };
    const struct broker_put_options options[] = {
        {.trace = tq_span_str("t")}, {.key = tq_span_str("k")}, {.ttl_ms = 1000000}, {.max_attempts = 3}};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        uint64_t model[MOST];
        size_t n = 0;
        struct nr r;

        nr_init(&r);
        struct broker_queue *q = queue_of(&r, kinds[k]);
        for (int i = 0; i < STEPS; i++) {
            uint32_t what = rng(10);

            if (n < MOST && (what < 5 || n == 0)) {
                const struct broker_put_options *o = rng(2) ? &options[rng(4)] : NULL;
                struct broker_event ev = nr_event(&r, BROKER_PUT, 0);

                ev.queue = q;
                ev.payload = nr_payload("body");
                ev.options = o;
                if (quick(&r, &ev) == BROKER_REPLY_OK)
                    model[n++] = r.fx.list[0].id;
                else
                    assert_int_equal(r.fx.list[0].outcome, BROKER_REPLY_KNOWN);
            } else if (n > 0 && what < 7) {
                size_t at = rng((uint32_t)n);

                quick_remove(&r, model[at]);
                memmove(&model[at], &model[at + 1], (n - at - 1) * sizeof(*model));
                n--;
            } else if (n > 0) {
                size_t at = kinds[k] == BROKER_LIFO ? n - 1 : 0;

                if (what == 9) { /* there and back */
                    struct nr_lease l = nr_get(&r, 1, q, model[at]);

                    assert_int_equal(nr_about(&r, BROKER_RELEASE, l), BROKER_REPLY_OK);
                    continue;
                }
                assert_int_equal(quick_take(&r, q), model[at]);
                memmove(&model[at], &model[at + 1], (n - at - 1) * sizeof(*model));
                n--;
            }
            if (i % 50 == 0)
                assert_null(broker_check(r.b));
        }
        nr_deinit(&r);
    }
}

/* The tombstone of a large body that has to be compared still keeps it; that of a list does not. */
static void large_bodies_of_tombstones(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_PRIORITY};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct tq_body *bodies[20];
        uint64_t ids[20];
        struct nr r;

        nr_init(&r);
        struct broker_queue *q = queue_of(&r, kinds[k]);
        for (int i = 0; i < 20; i++) {
            struct broker_event ev = nr_event(&r, BROKER_PUT, NR_PYTHON);

            bodies[i] = tq_body_new(1000);
            memset(bodies[i]->data, 'a' + i, 1000);
            ev.queue = q;
            ev.payload = (struct broker_payload){
                .data = bodies[i]->data, .len = 1000, .format = BROKER_PYTHON, .body = bodies[i]};
            assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NONE);
            ids[i] = r.fx.list[0].id;
            assert_int_equal(bodies[i]->refs, 2);
        }
        for (int i = 1; i < 20; i += 2) {
            assert_int_equal(nr_by_id(&r, BROKER_REMOVE, 2, ids[i]), BROKER_REPLY_OK);
            assert_int_equal(bodies[i]->refs, kinds[k] == BROKER_FIFO ? 1 : 2);
        }
        for (int i = 0; i < 20; i += 2)
            nr_get(&r, 1, q, ids[i]);
        for (int i = 1; i < 20; i += 2)
            assert_int_equal(bodies[i]->refs, i < 19 || kinds[k] == BROKER_FIFO ? 1 : 2);
        nr_deinit(&r);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(bodies[i]->refs, 1);
            tq_body_unref(bodies[i]);
        }
    }
}

/* Where a task moves to another slot, all who know it by its slot know the new one. */
static void a_task_that_moves_is_found(void **state)
{
    const struct broker_failure failure = {.error = tq_span_str("an error"), .code = 9};
    const struct broker_put_options o = {
        .key = tq_span_str("key"), .trace = tq_span_str("trace"), .ttl_ms = 5000};
    struct broker_view v;
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf(NULL, NULL);
    conf.max_attempts = 9;
    conf.retry_ms = 100;
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    uint64_t id = nr_put_with(&r, 0, q, "body", &o);
    uint32_t slot = slot_of(&r, id);
    for (uint32_t attempt = 1; attempt < 5; attempt++) {
        struct nr_lease l = nr_get(&r, 1, q, id);

        assert_int_equal(l.attempt, attempt);
        assert_int_equal(nr_fail_with(&r, l, &failure), BROKER_REPLY_OK);
        assert_true(attempt > 1 || slot_of(&r, id) != slot);
        assert_true(broker_view_task(r.b, id, &v));
        assert_string_equal(v.state, "delayed");
        assert_true(tq_span_is(v.key, "key"));
        assert_true(tq_span_is(v.trace, "trace"));
        assert_true(tq_span_is(v.error, "an error"));
        assert_true(tq_span_is(v.worker, "w1"));
        assert_int_equal(v.code, 9);
        assert_int_equal(v.expires_ms, 6000);
        assert_int_equal(v.payload.len, 4);
        assert_memory_equal(v.payload.data, "body", 4);
        assert_true(nr_due(&r, r.now_ms + 2000));
    }
    assert_true(nr_due(&r, 6000));
    assert_int_equal(q->ready, 0);
    nr_deinit(&r);
}

static void errors_are_cut_between_characters(void **state)
{
    char text[BROKER_ERROR_MAX + 50];
    struct broker_view v;

    (void)state;
    for (size_t pad = 0; pad < 4; pad++) {
        struct nr r;

        nr_init(&r);
        struct broker_queue_conf conf = nr_conf(NULL, NULL);
        conf.max_attempts = 9;
        struct broker_queue *q = nr_declare(&r, "q", &conf);
        uint64_t id = nr_put(&r, 0, q, "body");
        memset(text, 'x', sizeof(text));
        for (size_t i = pad; i + 3 <= sizeof(text); i += 3)
            text[i] = '\xe2', text[i + 1] = '\x82', text[i + 2] = '\xac';
        struct broker_failure f = {.error = tq_span(text, sizeof(text))};
        assert_int_equal(nr_fail_with(&r, nr_get(&r, 1, q, id), &f), BROKER_REPLY_OK);
        assert_true(broker_view_task(r.b, id, &v));
        assert_true(v.error.len <= BROKER_ERROR_MAX && v.error.len > BROKER_ERROR_MAX - 3);
        assert_int_equal((v.error.len - pad) % 3, 0);
        nr_deinit(&r);
    }
}

static void a_million_tasks_take_128_bytes_each(void **state)
{
    enum { TASKS = 1000000 };
    static const char body[101] = "a body of a hundred bytes";
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    uint64_t before = stats(&r).memory_bytes;
    struct broker_event ev = nr_event(&r, BROKER_PUT, 0);
    ev.queue = q;
    ev.payload = (struct broker_payload){.data = (const uint8_t *)body, .len = 100};
    for (int i = 0; i < TASKS; i++) {
        r.now_ms += i % 100 == 0; /* 100 a millisecond */
        assert_int_equal(quick(&r, &ev), BROKER_REPLY_OK);
    }
    assert_true(stats(&r).memory_bytes - before <= (uint64_t)TASKS * 128);
    assert_true(stats(&r).memory_bytes - before > (uint64_t)TASKS * 100);
    ev = nr_event(&r, BROKER_GET, 1);
    ev.queue = q;
    ev.max = 1000;
    ev.take = true;
    for (int i = 0; i < TASKS / 1000; i++)
        assert_int_equal(quick(&r, &ev), BROKER_REPLY_TASK);
    assert_int_equal(stats(&r).tasks, 0);
    assert_true(stats(&r).memory_bytes - before < 4000000); /* given back, but for what is kept at hand */
    nr_deinit(&r);
}

static void leases_give_memory_back_after_a_peak(void **state)
{
    enum { TASKS = 40000, BATCH = 10000 };
    struct nr r;

    (void)state;
    nr_init_limits(&r, &(struct broker_limits){.queues = 1});
    struct broker_queue *q = nr_queue(&r, "q");
    for (int round = 0; round < 3; round++) {
        uint32_t most;

        for (int i = 0; i < TASKS && round == 0; i++)
            quick_put(&r, q, NULL);
        for (int i = 0; i < TASKS / BATCH; i++) {
            struct broker_event ev = nr_event(&r, BROKER_GET, 1 + i % 2);

            ev.queue = q;
            ev.max = BATCH;
            assert_int_equal(quick(&r, &ev), BROKER_REPLY_TASK);
        }
        most = r.b->leases.chunk_count;
        assert_true(most >= TASKS / BROKER_CHUNK_LEASES);
        nr_close(&r, 1);
        assert_int_equal(r.b->leases.chunk_count, most);
        nr_close(&r, 2);
        assert_true(r.b->leases.chunk_count <= 64);
        assert_int_equal(q->ready, TASKS);
    }
    nr_deinit(&r);
}

static void queues_are_listed_by_index(void **state)
{
    struct broker_queue *q[40];
    uint32_t index;
    struct nr r;

    (void)state;
    nr_init(&r);
    assert_null(broker_queue_from(r.b, 0, &index));
    for (int i = 0; i < 40; i++) {
        char name[16];

        snprintf(name, sizeof(name), "q%d", i);
        q[i] = nr_queue(&r, name);
    }
    for (int i = 0; i < 40; i += 2)
        broker_remove(r.b, q[i], &r.fx);
    size_t n = 0;
    for (uint32_t from = 0; broker_queue_from(r.b, from, &index) != NULL; from = index + 1)
        n++;
    assert_int_equal(n, 20);
    n = 0;
    for (struct broker_queue *p = broker_next_queue(r.b, NULL); p != NULL; p = broker_next_queue(r.b, p))
        assert_ptr_equal(p, q[1 + 2 * n++]); /* in the order of declaration */
    for (int i = 0; i < 40; i += 2) {        /* their places are given again */
        char name[16];

        snprintf(name, sizeof(name), "q%d", i);
        q[i] = nr_queue(&r, name);
        assert_true(q[i]->index < 40);
    }
    broker_queue_set_user(q[3], &r);
    assert_ptr_equal(broker_queue_user(q[3]), &r);
    assert_null(broker_queue_user(q[4]));
    nr_deinit(&r);
}

/* What conf.result means changes as queues come and go. */
static void names_are_looked_up_anew(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf("results", "dead");
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    assert_null(broker_queue_result(r.b, q));
    struct broker_queue *results = nr_queue(&r, "results");
    assert_ptr_equal(broker_queue_result(r.b, q), results);
    assert_null(broker_queue_dead(r.b, q));
    broker_remove(r.b, results, &r.fx);
    assert_null(broker_queue_result(r.b, q));
    results = nr_queue(&r, "results");
    struct broker_queue *dead = nr_queue(&r, "dead");
    assert_ptr_equal(broker_queue_result(r.b, q), results);
    assert_ptr_equal(broker_queue_dead(r.b, q), dead);
    conf.result = "dead";
    assert_int_equal(broker_reconfigure(r.b, r.now_ms, q, &conf, &r.fx), 0);
    assert_ptr_equal(broker_queue_result(r.b, q), dead);
    nr_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_with_an_extra_is_unlinked_at_once),
        cmocka_unit_test(one_without_is_buried_and_passed_over),
        cmocka_unit_test(tombstones_do_not_pile_up),
        cmocka_unit_test(a_long_random_history_keeps_the_order),
        cmocka_unit_test(large_bodies_of_tombstones),
        cmocka_unit_test(a_task_that_moves_is_found),
        cmocka_unit_test(errors_are_cut_between_characters),
        cmocka_unit_test(a_million_tasks_take_128_bytes_each),
        cmocka_unit_test(leases_give_memory_back_after_a_peak),
        cmocka_unit_test(queues_are_listed_by_index),
        cmocka_unit_test(names_are_looked_up_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
