#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "master/core/broker.h"
#include "worker/backoff.h"

static void test_grows_to_the_ceiling(void **state)
{
    static const uint64_t ceilings_ms[] = {200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    struct backoff b = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(ceilings_ms) / sizeof(ceilings_ms[0]); i++) {
        struct backoff copy = b;

        assert_int_equal(backoff_next_ms(&copy, 0), BACKOFF_LEAST_MS);
        copy = b;
        /* The largest number below the ceiling that a random can give. */
        assert_int_equal(backoff_next_ms(&copy, (uint32_t)(ceilings_ms[i] - BACKOFF_LEAST_MS)),
                         ceilings_ms[i]);
        assert_int_equal(backoff_next_ms(&b, (uint32_t)(ceilings_ms[i] - BACKOFF_LEAST_MS + 1)),
                         BACKOFF_LEAST_MS);
    }
}

static void test_every_random_stays_in_range(void **state)
{
    struct backoff b = {0};

    (void)state;
    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t ms = backoff_next_ms(&b, i * 2654435761u);

        assert_in_range(ms, BACKOFF_LEAST_MS, BACKOFF_MOST_MS);
    }
}

/* A worker whose master was restarted is back long before its leases are given to others. */
static void test_well_below_the_grace(void **state)
{
    struct broker_queue_conf conf;

    (void)state;
    broker_queue_conf_init(&conf);
    assert_true(BACKOFF_MOST_MS * 5 <= conf.grace_ms);
}

static void test_failures_do_not_wrap(void **state)
{
    struct backoff b = {.failures = UINT32_MAX};

    (void)state;
    assert_int_equal(backoff_next_ms(&b, 4900), BACKOFF_MOST_MS);
    assert_int_equal(b.failures, UINT32_MAX);
}

static void test_reset(void **state)
{
    struct backoff b = {0};

    (void)state;
    for (int i = 0; i < 10; i++)
        backoff_next_ms(&b, 0);
    backoff_reset(&b);
    assert_in_range(backoff_next_ms(&b, 12345), BACKOFF_LEAST_MS, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_to_the_ceiling),
        cmocka_unit_test(test_every_random_stays_in_range),
        cmocka_unit_test(test_well_below_the_grace),
        cmocka_unit_test(test_failures_do_not_wrap),
        cmocka_unit_test(test_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
