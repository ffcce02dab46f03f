/* Who is dropped when there are too many connections that are not authenticated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/halfopen.h"

static struct halfopen_addr v4(uint8_t last)
{
    return (struct halfopen_addr){{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last}};
}

static struct halfopen_entry *add(struct halfopen *h, struct halfopen_entry *e, struct halfopen_addr addr)
{
    struct halfopen_entry *drop = (struct halfopen_entry *)1;

    assert_int_equal(halfopen_add(h, e, &addr, &drop), TQ_OK);
    return drop;
}

static void the_oldest_goes(void **state)
{
    struct halfopen h;
    struct halfopen_entry e[4] = {{0}};

    (void)state;
    halfopen_init(&h, 3, 100);
    for (int i = 0; i < 3; i++)
        assert_null(add(&h, &e[i], v4((uint8_t)i)));
    assert_ptr_equal(add(&h, &e[3], v4(9)), &e[0]);
    halfopen_remove(&h, &e[0], false);
    assert_int_equal(h.count, 3);
    for (int i = 1; i < 4; i++)
        halfopen_remove(&h, &e[i], false);
    assert_int_equal(h.count, 0);
    halfopen_deinit(&h);
}

static void one_source_cannot_take_all(void **state)
{
    struct halfopen h;
    struct halfopen_entry e[5] = {{0}};

    (void)state;
    halfopen_init(&h, 100, 2);
    assert_null(add(&h, &e[0], v4(1)));
    assert_null(add(&h, &e[1], v4(2)));
    assert_null(add(&h, &e[2], v4(1)));
    assert_ptr_equal(add(&h, &e[3], v4(1)), &e[0]); /* the oldest of its own source */
    halfopen_remove(&h, &e[0], false);
    assert_null(add(&h, &e[4], v4(2)));
    for (int i = 1; i < 5; i++)
        halfopen_remove(&h, &e[i], false);
    halfopen_deinit(&h);
}

static void known_sources_are_spared(void **state)
{
    struct halfopen h;
    struct halfopen_entry e[4] = {{0}};

    (void)state;
    halfopen_init(&h, 2, 100);
    assert_null(add(&h, &e[0], v4(1)));
    halfopen_remove(&h, &e[0], true); /* logged in: known from now on */
    assert_null(add(&h, &e[0], v4(1)));
    assert_null(add(&h, &e[1], v4(2)));
    assert_ptr_equal(add(&h, &e[2], v4(1)), &e[1]);
    halfopen_remove(&h, &e[1], false);
    assert_ptr_equal(add(&h, &e[3], v4(1)), &e[0]); /* nobody else is left */
    halfopen_remove(&h, &e[0], false);
    halfopen_remove(&h, &e[2], false);
    halfopen_remove(&h, &e[3], false);
    halfopen_remove(&h, &e[3], false); /* repeatable */
    halfopen_deinit(&h);
}

static void a_v6_network_is_one_source(void **state)
{
    struct halfopen h;
    struct halfopen_entry e[3] = {{0}};
    struct halfopen_addr a = {{0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}};
    struct halfopen_addr b = a;
    struct halfopen_addr c = a;

    (void)state;
    b.bytes[15] = 2;
    c.bytes[7] = 2;
    halfopen_init(&h, 100, 1);
    assert_null(add(&h, &e[0], a));
    assert_null(add(&h, &e[1], c));
    assert_ptr_equal(add(&h, &e[2], b), &e[0]);
    for (int i = 0; i < 3; i++)
        halfopen_remove(&h, &e[i], false);
    halfopen_deinit(&h);
}

static void no_memory(void **state)
{
    struct halfopen h;
    struct halfopen_entry e = {0};
    struct halfopen_entry *drop = NULL;
    struct halfopen_addr addr = v4(1);
    int rv;

    (void)state;
    halfopen_init(&h, 10, 10);
    for (long n = 0;; n++) {
        tq_mem_fail_after(n, 1);
        rv = halfopen_add(&h, &e, &addr, &drop);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK)
            break;
        assert_int_equal(rv, TQ_ENOMEM);
        assert_null(e.source);
        assert_int_equal(h.count, 0);
    }
    halfopen_remove(&h, &e, false);
    halfopen_deinit(&h);
}

static void sources_that_are_remembered_are_bounded(void **state)
{
    struct halfopen h;

    (void)state;
    halfopen_init(&h, 10, 10);
    for (unsigned i = 0; i < 10000; i++) {
        struct halfopen_entry e = {0};
        struct halfopen_addr addr = v4((uint8_t)i);

        addr.bytes[14] = (uint8_t)(i >> 8);
        assert_null(add(&h, &e, addr));
        halfopen_remove(&h, &e, true);
    }
    assert_true(h.idle_count <= 4096);
    halfopen_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_goes),
        cmocka_unit_test(one_source_cannot_take_all),
        cmocka_unit_test(known_sources_are_spared),
        cmocka_unit_test(a_v6_network_is_one_source),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(sources_that_are_remembered_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
