/* The question whether a Python session ended by a clean exit or by a death, as sequences of what the wire
 * shows of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/pyrefs.h"

#define TASK 1

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

static void answer_decref(struct pyrefs_farewell *f)
{
    memset(f, 0, sizeof(*f));
    assert_int_equal(pyrefs_farewell_begin(&refs, f, &host, TASK, now++), TQ_OK);
}

static void open_main(struct pyrefs_session *s)
{
    pyrefs_session_open(s, PYREFS_MAIN);
}

static enum pyrefs_verdict end(struct pyrefs_session *s)
{
    return pyrefs_session_end(&refs, s, &host);
}

/* The only decision that is due now. */
static void expect_decided(const struct pyrefs_session *s, enum pyrefs_verdict wanted)
{
    enum pyrefs_verdict verdict;

    assert_ptr_equal(pyrefs_next_decided(&refs, &verdict), s);
    assert_int_equal(verdict, wanted);
}

static void expect_nothing_decided(void)
{
    enum pyrefs_verdict verdict;

    assert_null(pyrefs_next_decided(&refs, &verdict));
}

static void clean_exit_is_left(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell f;

    (void)state;
    open_main(&s);
    answer_decref(&f);
    assert_int_equal(end(&s), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_decided(&s, PYREFS_LEFT);
    expect_nothing_decided();
}

static void kill_is_death_at_once(void **state)
{
    struct pyrefs_session s;

    (void)state;
    open_main(&s);
    assert_int_equal(end(&s), PYREFS_DIED);
}

static void decref_of_a_creation_excuses_nobody(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell f;

    (void)state;
    open_main(&s);
    answer_decref(&f); /* another process makes a proxy: its decref ends, and no session of its own does */
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_nothing_decided();
    assert_int_equal(end(&s), PYREFS_DIED);
}

static void session_that_ended_before_the_answer_died(void **state)
{
    struct pyrefs_session killed;
    struct pyrefs_session leaver;
    struct pyrefs_farewell early;
    struct pyrefs_farewell late;

    (void)state;
    open_main(&killed);
    open_main(&leaver);
    answer_decref(&early);
    assert_int_equal(end(&killed), PYREFS_UNSURE);
    answer_decref(&late);
    assert_int_equal(end(&leaver), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &late));
    expect_decided(&leaver, PYREFS_LEFT);
    expect_nothing_decided(); /* the early one may still be the killed one's */
    assert_null(pyrefs_farewell_end(&refs, &early));
    expect_decided(&killed, PYREFS_LEFT);
}

/* A process is killed between another one's answer and that one's close. */
static void death_beside_a_farewell(void **state)
{
    struct pyrefs_session killed;
    struct pyrefs_session leaver;
    struct pyrefs_farewell f;

    (void)state;
    open_main(&killed);
    open_main(&leaver);
    answer_decref(&f);
    assert_int_equal(end(&killed), PYREFS_UNSURE);
    assert_int_equal(end(&leaver), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_decided(&killed, PYREFS_DIED);
    expect_decided(&leaver, PYREFS_LEFT);
    expect_nothing_decided();
}

static void two_leave_at_once(void **state)
{
    struct pyrefs_session a, b;
    struct pyrefs_farewell fa, fb;

    (void)state;
    open_main(&a);
    open_main(&b);
    answer_decref(&fa);
    answer_decref(&fb);
    assert_int_equal(end(&a), PYREFS_UNSURE);
    assert_int_equal(end(&b), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &fa));
    expect_decided(&b, PYREFS_LEFT); /* whichever: both left */
    expect_nothing_decided();
    assert_null(pyrefs_farewell_end(&refs, &fb));
    expect_decided(&a, PYREFS_LEFT);
}

/* The first one's farewell ends late, after the second one has left, too. */
static void two_leave_one_after_the_other(void **state)
{
    struct pyrefs_session a, b;
    struct pyrefs_farewell fa, fb;

    (void)state;
    open_main(&a);
    open_main(&b);
    answer_decref(&fa);
    assert_int_equal(end(&a), PYREFS_UNSURE);
    answer_decref(&fb);
    assert_int_equal(end(&b), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &fa));
    expect_decided(&a, PYREFS_LEFT);
    expect_nothing_decided();
    assert_null(pyrefs_farewell_end(&refs, &fb));
    expect_decided(&b, PYREFS_LEFT);
}

/* A thread drops its last proxy: the farewell is its own and must not excuse a process that is killed. */
static void farewell_of_a_thread_is_its_own(void **state)
{
    struct pyrefs_session thread, killed;
    struct pyrefs_farewell f;

    (void)state;
    pyrefs_session_open(&thread, PYREFS_THREAD);
    open_main(&killed);
    answer_decref(&f);
    assert_int_equal(end(&killed), PYREFS_UNSURE);
    assert_int_equal(end(&thread), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_decided(&killed, PYREFS_DIED);
    expect_decided(&thread, PYREFS_LEFT);
}

static void farewell_from_elsewhere_does_not_count(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell f = {0};

    (void)state;
    open_main(&s);
    assert_int_equal(pyrefs_farewell_begin(&refs, &f, &other_host, TASK, now), TQ_OK);
    assert_int_equal(end(&s), PYREFS_DIED);
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_nothing_decided();
    assert_null(pyrefs_farewell_end(&refs, &f)); /* repeatable */
}

static void threads_and_pools_are_not_judged(void **state)
{
    struct pyrefs_session s;

    (void)state;
    pyrefs_session_open(&s, PYREFS_THREAD);
    assert_int_equal(end(&s), PYREFS_LEFT);
    pyrefs_session_open(&s, PYREFS_POOL);
    assert_int_equal(end(&s), PYREFS_LEFT);
}

static void begin_proxy(void)
{
    pyrefs_create(&refs, &host, TASK, now++);
    pyrefs_incref(&refs, &host, TASK, now++);
}

static void make_proxy(void)
{
    struct pyrefs_farewell f;

    begin_proxy();
    answer_decref(&f);
    assert_null(pyrefs_farewell_end(&refs, &f));
}

/* A process is killed just while another one makes a proxy. */
static void kill_amid_a_creation_is_death(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell f;

    (void)state;
    open_main(&s);
    begin_proxy();
    answer_decref(&f); /* the last step of the creation */
    assert_int_equal(end(&s), PYREFS_UNSURE);
    assert_ptr_equal(pyrefs_farewell_end(&refs, &f), &s);
    expect_nothing_decided();
    make_proxy(); /* further creations explain their own decrefs */
    expect_nothing_decided();
    pyrefs_session_forget(&refs, &s); /* its time is over */
    expect_nothing_decided();
}

/* A process leaves just while another one makes a proxy: its farewell is taken for the last step of that. */
static void exit_amid_a_creation_is_left(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell own, creation;

    (void)state;
    open_main(&s);
    begin_proxy();
    answer_decref(&own);
    assert_int_equal(end(&s), PYREFS_UNSURE);
    assert_ptr_equal(pyrefs_farewell_end(&refs, &own), &s);
    expect_nothing_decided();
    answer_decref(&creation); /* one more than the row explains */
    expect_decided(&s, PYREFS_LEFT);
    expect_nothing_decided();
    assert_null(pyrefs_farewell_end(&refs, &creation));
}

/* The same, and the creation's last step comes before the leaver's close. */
static void creation_ends_before_the_leaver(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell own, creation;

    (void)state;
    open_main(&s);
    begin_proxy();
    answer_decref(&own);
    answer_decref(&creation);
    assert_int_equal(end(&s), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &own));
    expect_decided(&s, PYREFS_LEFT);
    assert_null(pyrefs_farewell_end(&refs, &creation));
    expect_nothing_decided();
}

/* The creation's own decref came first: the leaver's is a plain farewell. */
static void exit_after_a_creation_is_left(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell own, creation;

    (void)state;
    open_main(&s);
    begin_proxy();
    answer_decref(&creation);
    answer_decref(&own);
    assert_int_equal(end(&s), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &own));
    expect_decided(&s, PYREFS_LEFT);
    assert_null(pyrefs_farewell_end(&refs, &creation));
    expect_nothing_decided();
}

static void open_child(struct pyrefs_session *child)
{
    pyrefs_session_open(child, PYREFS_CHILD);
    pyrefs_session_use(&refs, child, &host, TASK, now);
    pyrefs_session_use(&refs, child, &host, TASK, now);
}

static void forked_child_is_judged(void **state)
{
    struct pyrefs_session child;
    struct pyrefs_farewell f;

    (void)state;
    make_proxy();
    pyrefs_incref(&refs, &host, TASK, now++); /* the child takes a reference of its own */
    open_child(&child);
    assert_int_equal(end(&child), PYREFS_DIED);

    pyrefs_incref(&refs, &host, TASK, now++);
    open_child(&child);
    answer_decref(&f);
    assert_int_equal(end(&child), PYREFS_UNSURE);
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_decided(&child, PYREFS_LEFT);
}

static void spawned_child_is_not_judged(void **state)
{
    struct pyrefs_session child;

    (void)state;
    make_proxy();
    open_child(&child);
    assert_int_equal(end(&child), PYREFS_LEFT);
}

static void forked_child_that_never_calls_leaves_no_trace(void **state)
{
    struct pyrefs_session spawned;
    struct pyrefs_farewell f;

    (void)state;
    make_proxy();
    pyrefs_incref(&refs, &host, TASK, now++);
    answer_decref(&f);
    assert_null(pyrefs_farewell_end(&refs, &f));
    open_child(&spawned);
    assert_int_equal(end(&spawned), PYREFS_LEFT);
}

static void references_of_long_ago_make_nobody_a_fork(void **state)
{
    struct pyrefs_session child;
    struct pyrefs_session pool;

    (void)state;
    pyrefs_incref(&refs, &host, TASK, now++);
    now += PYREFS_FORK_MS + 1;
    open_child(&child);
    assert_int_equal(end(&child), PYREFS_LEFT);

    pyrefs_incref(&refs, &host, TASK, now++); /* a pool's worker: its own */
    pyrefs_session_open(&pool, PYREFS_POOL);
    pyrefs_session_use(&refs, &pool, &host, TASK, now);
    open_child(&child);
    assert_int_equal(end(&child), PYREFS_LEFT);
    assert_int_equal(end(&pool), PYREFS_LEFT);
}

static void row_that_died_in_the_middle_is_forgotten(void **state)
{
    struct pyrefs_session child;

    (void)state;
    pyrefs_create(&refs, &host, TASK, now++); /* and never the incref */
    now += PYREFS_ROW_MS + 1;
    pyrefs_incref(&refs, &host, TASK, now++); /* so this one is a fork's */
    open_child(&child);
    assert_int_equal(end(&child), PYREFS_DIED);
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

static void ceiling_forgets_the_oldest(void **state)
{
    struct pyrefs small;

    (void)state;
    pyrefs_init(&small, 4);
    for (uint64_t i = 100; i < 1000; i++)
        pyrefs_create(&small, &host, i, now);
    assert_int_equal(small.count, 4);
    pyrefs_deinit(&small);
}

static void daemon_stops_amid_a_farewell(void **state)
{
    struct pyrefs_session s;
    struct pyrefs_farewell f;

    (void)state;
    open_main(&s);
    answer_decref(&f);
    assert_int_equal(end(&s), PYREFS_UNSURE);
    pyrefs_session_forget(&refs, &s);
    pyrefs_session_forget(&refs, &s); /* repeatable */
    assert_null(pyrefs_farewell_end(&refs, &f));
    expect_nothing_decided();
}

static void without_memory_it_is_a_death(void **state)
{
    struct pyrefs_session s;

    (void)state;
    for (long n = 0;; n++) {
        struct pyrefs_farewell f = {0};
        int rv;

        open_main(&s);
        tq_mem_fail_after(n, 1);
        rv = pyrefs_farewell_begin(&refs, &f, &host, TASK, now);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK) {
            assert_int_equal(end(&s), PYREFS_UNSURE);
            assert_null(pyrefs_farewell_end(&refs, &f));
            expect_decided(&s, PYREFS_LEFT);
            break;
        }
        assert_int_equal(rv, TQ_ENOMEM);
        assert_null(pyrefs_farewell_end(&refs, &f));
        assert_int_equal(end(&s), PYREFS_DIED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(clean_exit_is_left),
        T(kill_is_death_at_once),
        T(decref_of_a_creation_excuses_nobody),
        T(session_that_ended_before_the_answer_died),
        T(death_beside_a_farewell),
        T(two_leave_at_once),
        T(two_leave_one_after_the_other),
        T(farewell_of_a_thread_is_its_own),
        T(farewell_from_elsewhere_does_not_count),
        T(threads_and_pools_are_not_judged),
        T(kill_amid_a_creation_is_death),
        T(exit_amid_a_creation_is_left),
        T(creation_ends_before_the_leaver),
        T(exit_after_a_creation_is_left),
        T(forked_child_is_judged),
        T(spawned_child_is_not_judged),
        T(forked_child_that_never_calls_leaves_no_trace),
        T(references_of_long_ago_make_nobody_a_fork),
        T(row_that_died_in_the_middle_is_forgotten),
        T(names),
        T(ceiling_forgets_the_oldest),
        T(daemon_stops_amid_a_farewell),
        T(without_memory_it_is_a_death),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
