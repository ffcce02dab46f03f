/* Log lines: their form, the rate limit, and that no value can break a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/log.h"

static char lines[64][4096];
static size_t lines_count;
static struct tq_log_time now;

static void keep_line(const char *line, size_t len)
{
    assert_true(len < sizeof lines[0] && lines_count < 64);
    assert_int_equal(line[len - 1], '\n');
    assert_null(memchr(line, '\n', len - 1));
    memcpy(lines[lines_count], line, len - 1);
    lines[lines_count++][len - 1] = '\0';
}

static struct tq_log_time fake_now(void)
{
    return now;
}

/* Each test starts in a second of its own, far behind the last. */
static int setup(void **state)
{
    (void)state;
    now.wall_ms = UINT64_C(1700000000123);
    now.mono_ms += 1000000;
    tq_log_init("task-master", TQ_LOG_INFO);
    tq_log_hook(keep_line, fake_now);
    tq_log_flush();
    lines_count = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    now.mono_ms += 1000000;
    tq_log_flush();
    tq_log_hook(NULL, NULL);
    return 0;
}

static void test_form(void **state)
{
    (void)state;
    tq_log(TQ_LOG_WARN, "AUTH-FAILED", "peer=\"%s\" tries=%d", "10.0.0.1:99", 3);
    tq_log(TQ_LOG_ERROR, "BARE", "%s", "");
    assert_int_equal(lines_count, 2);
    assert_string_equal(lines[0],
                        "2023-11-14T22:13:20.123Z task-master warn AUTH-FAILED peer=\"10.0.0.1:99\" tries=3");
    assert_string_equal(lines[1], "2023-11-14T22:13:20.123Z task-master error BARE ");
}

static void test_levels(void **state)
{
    (void)state;
    assert_false(tq_log_enabled(TQ_LOG_DEBUG));
    assert_true(tq_log_enabled(TQ_LOG_INFO));
    tq_log(TQ_LOG_DEBUG, "QUIET", "a=%d", 1);
    assert_int_equal(lines_count, 0);
    tq_log_init("task-worker", TQ_LOG_DEBUG);
    tq_log(TQ_LOG_DEBUG, "LOUD", "a=%d", 1);
    assert_string_equal(lines[0], "2023-11-14T22:13:20.123Z task-worker debug LOUD a=1");
}

static void test_rate_limit_is_per_id_and_told_later(void **state)
{
    (void)state;
    for (int i = 0; i < 25; i++)
        tq_log(TQ_LOG_WARN, "FLOOD", "i=%d", i);
    assert_int_equal(lines_count, 10);
    assert_non_null(strstr(lines[9], "FLOOD i=9"));

    tq_log(TQ_LOG_WARN, "OTHER", "i=%d", 0);
    assert_int_equal(lines_count, 11);

    now.mono_ms += 999;
    tq_log(TQ_LOG_WARN, "FLOOD", "i=%d", 25);
    tq_log_flush();
    assert_int_equal(lines_count, 11);

    now.mono_ms += 1;
    tq_log(TQ_LOG_WARN, "FLOOD", "i=%d", 26);
    assert_int_equal(lines_count, 13);
    assert_non_null(strstr(lines[11], " warn FLOOD suppressed=16"));
    assert_non_null(strstr(lines[12], "FLOOD i=26"));
}

static void test_suppressed_is_told_by_another_line_or_a_flush(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++)
        tq_log(TQ_LOG_INFO, "FLOOD-A", "i=%d", i);
    now.mono_ms += 1000;
    tq_log(TQ_LOG_INFO, "OTHER-A", "%s", "");
    assert_int_equal(lines_count, 12);
    assert_non_null(strstr(lines[10], "FLOOD-A suppressed=2"));

    for (int i = 0; i < 11; i++)
        tq_log(TQ_LOG_INFO, "FLOOD-A", "i=%d", i);
    now.mono_ms += 5000;
    tq_log_flush();
    assert_int_equal(lines_count, 23);
    assert_non_null(strstr(lines[22], "FLOOD-A suppressed=1"));
    tq_log_flush();
    assert_int_equal(lines_count, 23);
}

static void test_no_value_breaks_a_line(void **state)
{
    char longer[5000];

    (void)state;
    tq_log(TQ_LOG_INFO, "FORGED", "name=%s", "a\n2023-01-01T00:00:00.000Z x error FAKE\r\x1b[2J\x7f");
    assert_int_equal(lines_count, 1);
    assert_non_null(strstr(lines[0], "name=a?2023-01-01T00:00:00.000Z x error FAKE??[2J?"));

    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    tq_log(TQ_LOG_INFO, "LONG", "name=%s more=1", longer);
    assert_int_equal(lines_count, 2);
    assert_in_range(strlen(lines[1]), 1000, 2047);
    assert_string_equal(lines[1] + strlen(lines[1]) - 4, "x...");
}

static void test_more_ids_than_places(void **state)
{
    static char ids[300][16];

    (void)state;
    for (int i = 0; i < 300; i++)
        snprintf(ids[i], sizeof ids[i], "ID-%d", i);
    for (int i = 0; i < 300; i++) {
        lines_count = 0;
        now.mono_ms += 2000;
        tq_log(TQ_LOG_INFO, ids[i], "i=%d", i);
        assert_int_equal(lines_count, 1);
        assert_non_null(strstr(lines[0], ids[i]));
    }
}

static void assert_quoted(const char *bytes, size_t n, size_t out_size, const char *want)
{
    char out[64];

    memset(out, '#', sizeof out);
    assert_ptr_equal(tq_log_quote(out, out_size, bytes, n), out);
    assert_string_equal(out, want);
    assert_int_equal(out[out_size], '#');
}

static void test_quote(void **state)
{
    (void)state;
    assert_quoted("", 0, 4, "");
    assert_quoted("plain text", 10, 32, "plain text");
    assert_quoted("a\"b\\c", 5, 32, "a\\\"b\\\\c");
    assert_quoted("\0\n\x7f\xff", 4, 32, "\\x00\\x0a\\x7f\\xff");
    assert_quoted("abc", 3, 4, "abc");
    assert_quoted("abcd", 4, 4, "...");
    assert_quoted("abcdefgh", 8, 8, "abcd...");
    assert_quoted("abcdefg", 7, 8, "abcdefg");
    /* An escape is never cut in two. */
    assert_quoted("abc\ndef", 7, 8, "abc...");
    assert_quoted("ab\n", 3, 7, "ab\\x0a");
    assert_quoted("ab\n", 3, 6, "ab...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_form, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rate_limit_is_per_id_and_told_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_suppressed_is_told_by_another_line_or_a_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_value_breaks_a_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_ids_than_places, setup, teardown),
        cmocka_unit_test(test_quote),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
