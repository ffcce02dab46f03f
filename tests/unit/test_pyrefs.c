/* The question whether a Python session ended by a clean exit or by a death, as sequences of the requests
 * that Python sends in each case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "master/python/refs.h"

static const struct pyrefs_key task = {1, 100};
static const struct pyrefs_key result = {2, 101};
static const struct pyrefs_key others_task = {1, 102};

static struct pyrefs refs;
static uint64_t now;

static int setup(void **state)
{
    (void)state;
    pyrefs_init(&refs, 1000);
    now = 1000000;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pyrefs_deinit(&refs);
    return 0;
}

static void make_proxy(struct pyrefs_key key)
{
    pyrefs_create(&refs, key);
    pyrefs_incref(&refs, key);
    (void)pyrefs_decref(&refs, key, now++);
}

/* A process with a proxy of each queue; its session has taken an item and put one. */
static void start(struct pyrefs_session *s, enum pyrefs_class kind)
{
    pyrefs_session_open(s, kind);
    pyrefs_session_use(&refs, s, task, true);
    pyrefs_session_use(&refs, s, result, false);
}

static enum pyrefs_verdict end(struct pyrefs_session *s)
{
    return pyrefs_session_end(&refs, s, true, false, now++);
}

static void clean_exit_is_left(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    make_proxy(result);
    start(&s, PYREFS_MAIN);
    (void)pyrefs_decref(&refs, result, now++);
    (void)pyrefs_decref(&refs, task, now++);
    assert_int_equal(end(&s), PYREFS_LEFT);
    assert_int_equal(refs.count, 0); /* nothing is kept of it */
}

static void kill_is_death(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    make_proxy(result);
    start(&s, PYREFS_MAIN);
    assert_int_equal(end(&s), PYREFS_DIED);
}

static void who_holds_nothing_has_left(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    start(&s, PYREFS_MAIN);
    assert_int_equal(pyrefs_session_end(&refs, &s, false, true, now), PYREFS_LEFT);
}

/* The garbage collector closes the session before the decref has arrived. */
static void decref_on_its_way(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    make_proxy(others_task);
    start(&s, PYREFS_MAIN);
    assert_int_equal(pyrefs_session_end(&refs, &s, true, true, now), PYREFS_UNSURE);
    assert_null(pyrefs_decref(&refs, others_task, now++));
    assert_ptr_equal(pyrefs_decref(&refs, task, now++), &s);

    make_proxy(task);
    start(&s, PYREFS_MAIN);
    assert_int_equal(pyrefs_session_end(&refs, &s, true, true, now), PYREFS_UNSURE);
    pyrefs_session_over(&refs, &s); /* nothing came */
    assert_null(pyrefs_decref(&refs, task, now++));
}

/* Garbage in the middle of a decref: the others' decrefs and the end of the session come before it. */
static void decref_behind_those_of_garbage(void **state)
{
    struct pyrefs_session s;

    (void)state;
    assert_false(pyrefs_farewell_lately(&refs, now));
    make_proxy(task);
    make_proxy(others_task);
    start(&s, PYREFS_MAIN);
    assert_false(pyrefs_farewell_lately(&refs, now)); /* the decref of a creation is none */
    assert_null(pyrefs_decref(&refs, others_task, now));
    assert_true(pyrefs_farewell_lately(&refs, now + PYREFS_WAIT_MS));
    assert_int_equal(pyrefs_session_end(&refs, &s, true, pyrefs_farewell_lately(&refs, now), now),
                     PYREFS_UNSURE);
    assert_ptr_equal(pyrefs_decref(&refs, task, now++), &s);
    assert_false(pyrefs_farewell_lately(&refs, now + PYREFS_WAIT_MS));
}

/* Whatever another process does with proxies of the same queue. */
static void others_do_not_count(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    start(&s, PYREFS_MAIN);
    make_proxy(others_task);
    (void)pyrefs_decref(&refs, others_task, now++);
    assert_int_equal(end(&s), PYREFS_DIED);

    make_proxy(task);
    start(&s, PYREFS_MAIN);
    pyrefs_create(&refs, others_task);
    pyrefs_incref(&refs, others_task); /* and dies in the middle */
    (void)pyrefs_decref(&refs, task, now++);
    assert_int_equal(end(&s), PYREFS_LEFT);
}

static void proxy_dropped_long_before_the_exit(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    make_proxy(result);
    start(&s, PYREFS_MAIN);
    (void)pyrefs_decref(&refs, task, now++); /* del task */
    now += 1000 * PYREFS_FRESH_MS;
    (void)pyrefs_decref(&refs, result, now++);
    assert_int_equal(end(&s), PYREFS_LEFT);
}

/* The item was taken through one of two proxies of the same queue. */
static void the_proxy_that_took_it_decides(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    make_proxy(others_task);
    pyrefs_session_open(&s, PYREFS_MAIN);
    pyrefs_session_use(&refs, &s, task, true);
    pyrefs_session_use(&refs, &s, others_task, true);
    (void)pyrefs_decref(&refs, task, now++); /* a temporary proxy */
    assert_int_equal(end(&s), PYREFS_DIED);
}

static void more_proxies_than_a_session_remembers(void **state)
{
    struct pyrefs_session s;

    (void)state;
    pyrefs_session_open(&s, PYREFS_MAIN);
    for (uint64_t i = 1; i <= 3 * PYREFS_USED_MAX; i++) {
        make_proxy((struct pyrefs_key){i, i});
        pyrefs_session_use(&refs, &s, (struct pyrefs_key){i, i}, true);
    }
    for (uint64_t i = 1; i <= 3 * PYREFS_USED_MAX; i++)
        (void)pyrefs_decref(&refs, (struct pyrefs_key){i, i}, now++);
    assert_int_equal(end(&s), PYREFS_LEFT);
    assert_int_equal(refs.count, 0);
}

static void after_a_restart(void **state)
{
    struct pyrefs_session s;

    (void)state;
    start(&s, PYREFS_MAIN); /* idents that this process never gave */
    assert_int_equal(end(&s), PYREFS_DIED);
    start(&s, PYREFS_MAIN);
    (void)pyrefs_decref(&refs, task, now++);
    assert_int_equal(end(&s), PYREFS_LEFT);
}

static void threads_pools_and_spawned_children_are_not_judged(void **state)
{
    static const enum pyrefs_class kinds[] = {PYREFS_THREAD, PYREFS_POOL, PYREFS_SPAWNED, PYREFS_CHILD};
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        start(&s, kinds[i]);
        assert_int_equal(end(&s), PYREFS_LEFT);
    }
}

static void forked_child_is_judged(void **state)
{
    struct pyrefs_session child;

    (void)state;
    make_proxy(task);
    pyrefs_incref(&refs, task);
    start(&child, PYREFS_CHILD);
    assert_int_equal(end(&child), PYREFS_DIED);

    pyrefs_incref(&refs, task);
    start(&child, PYREFS_CHILD);
    (void)pyrefs_decref(&refs, task, now++);
    assert_int_equal(end(&child), PYREFS_LEFT);
}

/* A family: each farewell is for one of them, and for a while. */
static void one_farewell_excuses_one_of_a_family(void **state)
{
    struct pyrefs_session a, b;

    (void)state;
    make_proxy(task);
    pyrefs_incref(&refs, task);
    pyrefs_incref(&refs, task);
    start(&a, PYREFS_MAIN);
    start(&b, PYREFS_MAIN);
    (void)pyrefs_decref(&refs, task, now++);
    assert_int_equal(end(&a), PYREFS_LEFT);
    assert_int_equal(end(&b), PYREFS_DIED);

    start(&a, PYREFS_MAIN);
    (void)pyrefs_decref(&refs, task, now); /* a child that never called */
    now += PYREFS_FRESH_MS + 1;
    assert_int_equal(end(&a), PYREFS_DIED);
}

static void names(void **state)
{
    static const struct {
        const char *name;
        enum pyrefs_class kind;
    } cases[] = {
        {"MainProcess", PYREFS_MAIN},
        {"MainProcess|Thread-1", PYREFS_THREAD},
        {"MainProcess|Thread-1 (work)", PYREFS_THREAD},
        {"ForkPoolWorker-3", PYREFS_POOL},
        {"SpawnPoolWorker-12", PYREFS_POOL},
        {"ForkProcess-1", PYREFS_MAIN},
        {"ForkProcess-1:2", PYREFS_MAIN},
        {"Process-1:2", PYREFS_CHILD},
        {"SpawnProcess-2", PYREFS_SPAWNED},
        {"ForkServerProcess-1", PYREFS_SPAWNED},
        {"", PYREFS_CHILD},
        {"MainProcess2", PYREFS_CHILD},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(pyrefs_classify(cases[i].name, strlen(cases[i].name)), cases[i].kind);
}

/* Processes that were killed leave their idents behind: those are bounded, and an open session's is kept. */
static void ceiling_forgets_the_oldest(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(task);
    start(&s, PYREFS_MAIN);
    for (uint64_t i = 1000; i < 10000; i++)
        make_proxy((struct pyrefs_key){1, i});
    assert_int_equal(refs.count, 1000);
    (void)pyrefs_decref(&refs, task, now++);
    assert_int_equal(end(&s), PYREFS_LEFT);
}

/* A session that others judge (its key was revoked) takes nobody's farewell with it. */
static void a_forgotten_session_takes_no_farewell(void **state)
{
    struct pyrefs_session revoked;
    struct pyrefs_session other;

    (void)state;
    make_proxy(task);
    pyrefs_incref(&refs, task); /* a child was forked: both use the same ident */
    pyrefs_session_open(&revoked, PYREFS_MAIN);
    pyrefs_session_use(&refs, &revoked, task, true);
    pyrefs_session_open(&other, PYREFS_MAIN);
    pyrefs_session_use(&refs, &other, task, true);
    assert_null(pyrefs_decref(&refs, task, now++)); /* the other one's */
    pyrefs_session_forget(&refs, &revoked);
    assert_int_equal(end(&other), PYREFS_LEFT);

    start(&revoked, PYREFS_MAIN);
    assert_int_equal(pyrefs_session_end(&refs, &revoked, true, true, now), PYREFS_UNSURE);
    pyrefs_session_forget(&refs, &revoked);
    assert_null(pyrefs_decref(&refs, task, now++)); /* nobody waits for it any more */
}

static void without_memory_it_is_a_death(void **state)
{
    struct pyrefs_session s;

    (void)state;
    for (long n = 0; n < 2; n++) {
        pyrefs_session_open(&s, PYREFS_MAIN);
        tq_mem_fail_after(n, 100);
        pyrefs_session_use(&refs, &s, task, true);
        tq_mem_fail_after(-1, 0);
        assert_int_equal(end(&s), PYREFS_DIED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(clean_exit_is_left),
        T(kill_is_death),
        T(who_holds_nothing_has_left),
        T(decref_on_its_way),
        T(decref_behind_those_of_garbage),
        T(others_do_not_count),
        T(proxy_dropped_long_before_the_exit),
        T(the_proxy_that_took_it_decides),
        T(more_proxies_than_a_session_remembers),
        T(after_a_restart),
        T(threads_pools_and_spawned_children_are_not_judged),
        T(forked_child_is_judged),
        T(one_farewell_excuses_one_of_a_family),
        T(names),
        T(ceiling_forgets_the_oldest),
        T(a_forgotten_session_takes_no_farewell),
        T(without_memory_it_is_a_death),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
