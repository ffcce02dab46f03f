/* The question whether a Python session ended by a clean exit or by a death, as sequences of what the wire
 * shows of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "master/pyrefs.h"

#define TASK   1
#define RESULT 2

static struct pyrefs refs;
static struct pyrefs_addr host = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}};
static struct pyrefs_addr other_host = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}};
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

/* A proxy is made: create, incref, decref on three connections. */
static void make_proxy(uint64_t object)
{
    pyrefs_create(&refs, &host, object, now++);
    pyrefs_incref(&refs, &host, object, now++);
    assert_null(pyrefs_decref(&refs, &host, object, now++));
}

static void open_main(struct pyrefs_session *s)
{
    pyrefs_session_open(s, PYREFS_MAIN);
}

static void use(struct pyrefs_session *s, uint64_t object)
{
    pyrefs_session_use(&refs, s, &host, object, now);
}

static enum pyrefs_verdict end(struct pyrefs_session *s, uint64_t held)
{
    uint64_t until = 0;
    enum pyrefs_verdict v = pyrefs_session_close(&refs, s, held, now, &until);

    if (v == PYREFS_UNSURE)
        assert_int_equal(until, now + PYREFS_SETTLE_MS);
    return v;
}

/* A worker as the example's: two proxies, a session that uses both. Later nothing else happens there. */
static void start_worker(struct pyrefs_session *s)
{
    make_proxy(TASK);
    make_proxy(RESULT);
    open_main(s);
    use(s, TASK);
    use(s, RESULT);
    now += PYREFS_SETTLE_MS + 1;
}

static void farewell(void)
{
    (void)pyrefs_decref(&refs, &host, TASK, now++);
    (void)pyrefs_decref(&refs, &host, RESULT, now++);
}

static void clean_exit_is_left(void **state)
{
    struct pyrefs_session s;

    (void)state;
    start_worker(&s);
    farewell();
    assert_int_equal(end(&s, TASK), PYREFS_LEFT);
}

static void kill_is_death(void **state)
{
    struct pyrefs_session s;

    (void)state;
    start_worker(&s);
    assert_int_equal(end(&s, TASK), PYREFS_DIED);
}

static void creation_decrefs_excuse_nobody(void **state)
{
    struct pyrefs_session a;

    (void)state;
    start_worker(&a);
    make_proxy(TASK); /* another process comes up */
    now += PYREFS_SETTLE_MS + 1;
    assert_int_equal(end(&a, TASK), PYREFS_DIED);
}

static void one_farewell_excuses_one_close(void **state)
{
    struct pyrefs_session a, b;

    (void)state;
    start_worker(&a);
    start_worker(&b);
    farewell();
    assert_int_equal(end(&a, TASK), PYREFS_LEFT);
    assert_int_equal(end(&b, TASK), PYREFS_DIED);
}

static void farewell_of_an_idle_session_is_used_up(void **state)
{
    struct pyrefs_session a, b;

    (void)state;
    start_worker(&a);
    start_worker(&b);
    farewell();
    assert_int_equal(end(&a, 0), PYREFS_LEFT); /* held nothing */
    assert_int_equal(end(&b, TASK), PYREFS_DIED);
}

static void farewell_from_elsewhere_does_not_count(void **state)
{
    struct pyrefs_session a;

    (void)state;
    start_worker(&a);
    (void)pyrefs_decref(&refs, &other_host, TASK, now);
    assert_int_equal(end(&a, TASK), PYREFS_DIED);
}

static void farewell_of_nobody_is_forgotten(void **state)
{
    struct pyrefs_session a;

    (void)state;
    make_proxy(TASK); /* a process that never called anything */
    (void)pyrefs_decref(&refs, &host, TASK, now);
    start_worker(&a);
    assert_int_equal(end(&a, TASK), PYREFS_DIED);
}

static void old_farewell_does_not_excuse_a_kill(void **state)
{
    struct pyrefs_session a, b;

    (void)state;
    start_worker(&a);
    start_worker(&b);
    make_proxy(TASK); /* a second proxy of a process, dropped early: a farewell without a close */
    (void)pyrefs_decref(&refs, &host, TASK, now);
    now += PYREFS_FRESH_MS + 1;
    assert_int_equal(end(&a, TASK), PYREFS_DIED);
    assert_int_equal(end(&b, TASK), PYREFS_DIED);
}

static void proxy_dropped_early_then_clean_exit(void **state)
{
    struct pyrefs_session a;

    (void)state;
    start_worker(&a);
    (void)pyrefs_decref(&refs, &host, TASK, now); /* del task */
    now += 10 * PYREFS_FRESH_MS;
    (void)pyrefs_decref(&refs, &host, RESULT, now); /* the exit, an hour later */
    assert_int_equal(end(&a, TASK), PYREFS_LEFT);
}

/* A worker exits while another one makes its proxies: its farewell may be taken for the other's last step. */
static void exit_amid_a_creation_waits_and_is_left(void **state)
{
    struct pyrefs_session a;

    (void)state;
    start_worker(&a);
    pyrefs_create(&refs, &host, TASK, now++);
    pyrefs_incref(&refs, &host, TASK, now++);
    (void)pyrefs_decref(&refs, &host, TASK, now++); /* a's farewell, in truth */
    assert_int_equal(end(&a, TASK), PYREFS_UNSURE);
    assert_ptr_equal(pyrefs_decref(&refs, &host, TASK, now++), &a);
}

static void kill_amid_a_creation_waits_and_is_death(void **state)
{
    struct pyrefs_session a;

    (void)state;
    start_worker(&a);
    pyrefs_create(&refs, &host, TASK, now++);
    pyrefs_incref(&refs, &host, TASK, now++);
    assert_int_equal(end(&a, TASK), PYREFS_UNSURE);
    assert_null(pyrefs_decref(&refs, &host, TASK, now++));
    assert_int_equal(pyrefs_decide(&refs, &a, now + PYREFS_SETTLE_MS), PYREFS_DIED);
}

static void process_killed_while_making_a_proxy_is_forgotten(void **state)
{
    struct pyrefs_session a;

    (void)state;
    pyrefs_create(&refs, &host, TASK, now++);
    pyrefs_incref(&refs, &host, TASK, now++); /* and never the decref */
    start_worker(&a);
    now += PYREFS_SETTLE_MS + 1;
    farewell();
    assert_int_equal(end(&a, TASK), PYREFS_LEFT);
}

static void threads_and_pools_are_not_judged(void **state)
{
    struct pyrefs_session s;

    (void)state;
    make_proxy(TASK);
    now += PYREFS_SETTLE_MS + 1;
    pyrefs_session_open(&s, PYREFS_THREAD);
    use(&s, TASK);
    assert_int_equal(end(&s, TASK), PYREFS_LEFT);
    pyrefs_session_open(&s, PYREFS_POOL);
    use(&s, TASK);
    assert_int_equal(end(&s, TASK), PYREFS_LEFT);
}

static void forked_child_is_judged(void **state)
{
    struct pyrefs_session child;

    (void)state;
    make_proxy(TASK);
    pyrefs_incref(&refs, &host, TASK, now++); /* the child takes a reference of its own */
    now += PYREFS_SETTLE_MS + 1;
    pyrefs_session_open(&child, PYREFS_CHILD);
    use(&child, TASK);
    assert_int_equal(end(&child, TASK), PYREFS_DIED);

    pyrefs_incref(&refs, &host, TASK, now++);
    pyrefs_session_open(&child, PYREFS_CHILD);
    use(&child, TASK);
    (void)pyrefs_decref(&refs, &host, TASK, now++);
    assert_int_equal(end(&child, TASK), PYREFS_LEFT);
}

static void spawned_child_is_not_judged(void **state)
{
    struct pyrefs_session child;

    (void)state;
    make_proxy(TASK);
    now += PYREFS_SETTLE_MS + 1;
    pyrefs_session_open(&child, PYREFS_CHILD);
    use(&child, TASK);
    assert_int_equal(end(&child, TASK), PYREFS_LEFT);
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
        {"ForkProcess-1", PYREFS_CHILD},
        {"Process-1:2", PYREFS_CHILD},
        {"SpawnProcess-2", PYREFS_CHILD},
        {"", PYREFS_CHILD},
        {"MainProcess2", PYREFS_CHILD},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(pyrefs_classify(cases[i].name, strlen(cases[i].name)), cases[i].kind);
}

static void ceiling_forgets_the_oldest(void **state)
{
    struct pyrefs_session a;
    struct pyrefs small;

    (void)state;
    pyrefs_init(&small, 4);
    open_main(&a);
    pyrefs_session_use(&small, &a, &host, TASK, now); /* pinned by a session */
    for (uint64_t i = 100; i < 1000; i++)
        pyrefs_create(&small, &host, i, now);
    assert_true(small.count <= 4);
    pyrefs_session_forget(&small, &a);
    pyrefs_deinit(&small);
}

static void without_memory_it_is_a_death(void **state)
{
    struct pyrefs_session a;

    (void)state;
    open_main(&a);
    tq_mem_fail_after(0, 1);
    use(&a, TASK);
    tq_mem_fail_after(-1, 0);
    assert_int_equal(end(&a, TASK), PYREFS_DIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(clean_exit_is_left),
        T(kill_is_death),
        T(creation_decrefs_excuse_nobody),
        T(one_farewell_excuses_one_close),
        T(farewell_of_an_idle_session_is_used_up),
        T(farewell_from_elsewhere_does_not_count),
        T(farewell_of_nobody_is_forgotten),
        T(old_farewell_does_not_excuse_a_kill),
        T(proxy_dropped_early_then_clean_exit),
        T(exit_amid_a_creation_waits_and_is_left),
        T(kill_amid_a_creation_waits_and_is_death),
        T(process_killed_while_making_a_proxy_is_forgotten),
        T(threads_and_pools_are_not_judged),
        T(forked_child_is_judged),
        T(spawned_child_is_not_judged),
        T(names),
        T(ceiling_forgets_the_oldest),
        T(without_memory_it_is_a_death),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
