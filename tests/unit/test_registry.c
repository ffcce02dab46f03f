/* What Python clients see of the queues: names come and go with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/python/registry.h"

static struct tq_deadlines deadlines;
static struct broker *b;
static struct pyregistry *r;

static int setup(void **state)
{
    struct broker_limits limits = {.queues = 100};

    (void)state;
    tq_deadlines_init(&deadlines);
    b = broker_new(&deadlines, &limits, NULL);
    r = pyregistry_new();
    return b != NULL && r != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pyregistry_free(r);
    broker_free(b);
    tq_deadlines_deinit(&deadlines);
    return 0;
}

static struct broker_queue *queue(const char *name)
{
    struct broker_queue_conf conf;
    struct broker_queue *q;

    broker_queue_conf_init(&conf);
    assert_int_equal(broker_declare(b, name, &conf, &q), TQ_OK);
    return q;
}

static struct pyobject *by_typeid(const char *name)
{
    return pyregistry_by_typeid(r, tq_span_str(name));
}

static void declared_and_dropped(void **state)
{
    struct broker_queue *q = queue("jobs");
    struct pyobject *o;
    struct pyobject *again;
    char ident[PYREGISTRY_IDENT_MAX];
    uint64_t serial;
    uint64_t found;

    (void)state;
    assert_int_equal(pyregistry_declare(r, q, &o), TQ_OK);
    assert_ptr_equal(broker_queue_user(q), o);
    assert_ptr_equal(by_typeid("jobs"), o);
    assert_ptr_equal(by_typeid("get_jobs"), o);
    assert_null(by_typeid("get_"));
    assert_int_equal(pyregistry_add_typeid(r, q, "work"), TQ_OK);
    assert_int_equal(pyregistry_add_typeid(r, q, "work"), TQ_OK); /* it has it */
    assert_ptr_equal(by_typeid("work"), o);
    serial = pyregistry_next_ident(r, o, ident);
    assert_ptr_equal(pyregistry_by_ident(r, tq_span_str(ident), &found), o);
    assert_true(found == serial);

    pyregistry_drop(r, o);
    assert_null(broker_queue_user(q));
    assert_null(by_typeid("jobs"));
    assert_null(by_typeid("get_jobs"));
    assert_null(by_typeid("work"));
    assert_null(pyregistry_by_ident(r, tq_span_str(ident), &found));

    assert_int_equal(pyregistry_declare(r, q, &again), TQ_OK);
    assert_ptr_equal(by_typeid("get_jobs"), again);
    assert_true(again->number > 1); /* another object to whoever remembers numbers */
}

static void taken_names(void **state)
{
    struct broker_queue *jobs = queue("jobs");
    struct broker_queue *get_jobs = queue("get_jobs");
    struct broker_queue *late = queue("late");
    struct broker_queue *get_late = queue("get_late");
    struct broker_queue *factory = queue("Queue");
    struct pyobject *o;
    struct pyobject *other;

    (void)state;
    assert_int_equal(pyregistry_declare(r, jobs, &o), TQ_OK);
    assert_int_equal(pyregistry_declare(r, get_jobs, &other), TQ_EEXISTS);
    assert_null(broker_queue_user(get_jobs));
    assert_ptr_equal(by_typeid("get_jobs"), o);
    assert_null(by_typeid("get_get_jobs"));
    /* the other way round: its second name is taken, and the first is given back */
    assert_int_equal(pyregistry_declare(r, get_late, &other), TQ_OK);
    assert_int_equal(pyregistry_declare(r, late, &o), TQ_EEXISTS);
    assert_null(by_typeid("late"));
    assert_ptr_equal(by_typeid("get_late"), other);
    assert_int_equal(pyregistry_add_typeid(r, get_late, "jobs"), TQ_EEXISTS);
    assert_int_equal(pyregistry_declare(r, factory, &o), TQ_EEXISTS);
    assert_null(by_typeid("Queue"));
}

static void made_by_clients(void **state)
{
    char name[64];
    struct broker_queue *q;
    struct pyobject *o;
    uint64_t serial;

    (void)state;
    assert_int_equal(pyregistry_fresh_name(r, name), TQ_OK);
    q = queue(name);
    assert_int_equal(pyregistry_make(r, q, &o), TQ_OK);
    assert_ptr_equal(broker_queue_user(q), o);
    assert_false(o->declared);
    assert_ptr_equal(pyregistry_by_ident(r, tq_span_str(name), &serial), o);
    assert_null(by_typeid(name));
    o->refcount = 1;
    assert_int_equal(pyregistry_count(r), 1);
    pyregistry_drop(r, o);
    assert_null(pyregistry_by_ident(r, tq_span_str(name), &serial));
    assert_int_equal(pyregistry_count(r), 0);
}

static void out_of_memory(void **state)
{
    struct broker_queue *q = queue("jobs");

    (void)state;
    for (long n = 0;; n++) {
        struct pyobject *o;
        int rv;

        tq_mem_fail_after(n, 1);
        rv = pyregistry_declare(r, q, &o);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK) {
            assert_true(n >= 3);
            assert_ptr_equal(by_typeid("get_jobs"), o);
            return;
        }
        assert_int_equal(rv, TQ_ENOMEM);
        assert_null(broker_queue_user(q));
        assert_null(by_typeid("jobs"));
        assert_null(by_typeid("get_jobs"));
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(declared_and_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(taken_names, setup, teardown),
        cmocka_unit_test_setup_teardown(made_by_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
