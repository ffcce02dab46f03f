/* The square runner: its words against Python's, and its contract as a runner. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/native/convert.h"
#include "proto/native/mp.h"
#include "proto/python/emit.h"
#include "worker/runner.h"
#include "worker/runners/square.h"

/* The task that a Python item of these opcodes is to a runner. */
struct task {
    struct tq_buf body;
};

static void task_init(struct task *t, struct tq_span opcodes)
{
    struct tq_buf frame = TQ_BUF_NULL(1u << 20);
    struct tq_emit e;
    size_t item_off;

    tq_emit_begin(&e, &frame);
    tq_emit_cstr(&e, "#RETURN");
    item_off = frame.len;
    tq_emit_raw(&e, opcodes);
    tq_emit_tuple_n(&e, 2);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    tq_buf_init(&t->body, 1u << 20);
    assert_int_equal(tq_convert_to_msgpack(tq_buf_span(&frame), (uint32_t)item_off, (uint32_t)opcodes.len,
                                           1u << 20, &t->body),
                     TQ_OK);
    tq_buf_deinit(&frame);
}

static void task_deinit(struct task *t)
{
    tq_buf_deinit(&t->body);
}

static void assert_text(const struct tq_buf *buf, const char *text)
{
    if (!tq_span_is(tq_buf_span(buf), text))
        fail_msg("'%.*s' is not '%s'", (int)buf->len, (const char *)buf->data, text);
}

/* shown NULL: it is refused, with this text. */
static void check(struct tq_span opcodes, const char *shown, const char *result)
{
    struct tq_buf out_shown = TQ_BUF_NULL(1u << 20);
    struct tq_buf out_result = TQ_BUF_NULL(1u << 20);
    struct task t;

    task_init(&t, opcodes);
    assert_int_equal(square_task(tq_buf_span(&t.body), &out_shown, &out_result), shown != NULL ? 0 : 1);
    assert_text(&out_shown, shown != NULL ? shown : "");
    assert_text(&out_result, result);
    task_deinit(&t);
    tq_buf_deinit(&out_shown);
    tq_buf_deinit(&out_result);
}

#define CHECK(opcodes, shown, result) check(tq_span(opcodes, sizeof(opcodes) - 1), shown, result)

static void test_ints(void **state)
{
    (void)state;
    CHECK("K\0", "0", "0 * 0 = 0");
    CHECK("M\xe1\x10", "4321", "4321 * 4321 = 18671041");
    CHECK("J\xff\xff\xff\xff", "-1", "-1 * -1 = 1");
    CHECK("J\xff\xff\xff\x7f", "2147483647", "2147483647 * 2147483647 = 4611686014132420609");
    CHECK("J\0\0\0\x80", "-2147483648", "-2147483648 * -2147483648 = 4611686018427387904");
    CHECK("\x8a\5\0\0\0\x80\0", "2147483648", "2147483648 * 2147483648 = 4611686018427387904");
    CHECK("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "9223372036854775807",
          "9223372036854775807 * 9223372036854775807 = 85070591730234615847396907784232501249");
    CHECK("\x8a\x08\0\0\0\0\0\0\0\x80", "-9223372036854775808",
          "-9223372036854775808 * -9223372036854775808 = 85070591730234615865843651857942052864");
    CHECK("\x8a\0", "0", "0 * 0 = 0");
    CHECK("I42\n", "42", "42 * 42 = 1764");
}

static void test_big_ints(void **state)
{
    (void)state;
    /* 2^64, -2^64, -(2^64) - 1, 2^63 */
    CHECK("\x8a\x09\0\0\0\0\0\0\0\0\1", "18446744073709551616",
          "18446744073709551616 * 18446744073709551616 = 340282366920938463463374607431768211456");
    CHECK("\x8a\x09\0\0\0\0\0\0\0\0\xff", "-18446744073709551616",
          "-18446744073709551616 * -18446744073709551616 = 340282366920938463463374607431768211456");
    CHECK("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\xfe", "-18446744073709551617",
          "-18446744073709551617 * -18446744073709551617 = 340282366920938463500268095579187314689");
    CHECK("\x8a\x09\0\0\0\0\0\0\0\x80\0", "9223372036854775808",
          "9223372036854775808 * 9223372036854775808 = 85070591730234615865843651857942052864");
    /* Protocol 0 writes decimal text. */
    CHECK("L18446744073709551616L\n", "18446744073709551616",
          "18446744073709551616 * 18446744073709551616 = 340282366920938463463374607431768211456");
    CHECK("L-18446744073709551616L\n", "-18446744073709551616",
          "-18446744073709551616 * -18446744073709551616 = 340282366920938463463374607431768211456");
}

/* LONG4 of n bytes with only the top bit below the sign set. */
static void long_of(struct tq_buf *ops, uint32_t n)
{
    uint8_t head[5] = {0x8b, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), 0};

    assert_int_equal(tq_buf_append(ops, head, sizeof(head)), TQ_OK);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(tq_buf_append_u8(ops, i == n - 1 ? 0x40 : 0), TQ_OK);
}

static void test_largest_int(void **state)
{
    struct tq_buf ops = TQ_BUF_NULL(1u << 20);
    struct tq_buf shown = TQ_BUF_NULL(1u << 20);
    struct tq_buf result = TQ_BUF_NULL(1u << 20);
    struct task t;

    (void)state;
    long_of(&ops, SQUARE_INT_MAX_BYTES);
    task_init(&t, tq_buf_span(&ops));
    assert_int_equal(square_task(tq_buf_span(&t.body), &shown, &result), 0);
    assert_int_equal(shown.len, SQUARE_INT_MAX_DIGITS);
    task_deinit(&t);
    tq_buf_clear(&ops);
    long_of(&ops, SQUARE_INT_MAX_BYTES + 1);
    check(tq_buf_span(&ops), NULL, "error: cannot square an int of more than 39457 digits (int)");
    tq_buf_deinit(&ops);
    tq_buf_deinit(&shown);
    tq_buf_deinit(&result);
}

static void test_bools(void **state)
{
    (void)state;
    CHECK("\x88", "1", "1 * 1 = 1");
    CHECK("\x89", "0", "0 * 0 = 0");
    CHECK("I01\n", "1", "1 * 1 = 1");
}

static void check_float(double v, const char *shown, const char *result)
{
    struct tq_buf ops = TQ_BUF_NULL(16);
    struct tq_emit e = {.buf = &ops};

    tq_emit_float(&e, v);
    assert_int_equal(e.err, TQ_OK);
    check(tq_buf_span(&ops), shown, result);
    tq_buf_deinit(&ops);
}

static void test_floats(void **state)
{
    (void)state;
    check_float(3.7, "3", "3 * 3 = 13");
    check_float(-3.7, "-3", "-3 * -3 = 13");
    check_float(-0.5, "0", "0 * 0 = 0");
    check_float(-0.0, "0", "0 * 0 = 0");
    check_float(9007199254740993.0, "9007199254740992",
                "9007199254740992 * 9007199254740992 = 81129638414606681695789005144064");
    check_float(1e23, "99999999999999991611392",
                "99999999999999991611392 * 99999999999999991611392 = "
                "9999999999999998663747590131240811450955988992");
    check_float(1e200, NULL, "error: cannot square 9.9999999999999997e+199 (float): the square is infinite");
    check_float((double)INFINITY, NULL, "error: cannot square inf (float)");
    check_float(-(double)INFINITY, NULL, "error: cannot square -inf (float)");
    check_float((double)NAN, NULL, "error: cannot square nan (float)");
    check_float(DBL_MIN, "0", "0 * 0 = 0");
}

static void test_others(void **state)
{
    (void)state;
    CHECK("X\3\0\0\0abc", NULL, "error: cannot square 'abc' (str)");
    CHECK("X\5\0\0\0a'\\\n\x7f", NULL, "error: cannot square 'a\\'\\\\\\x0a\\x7f' (str)");
    CHECK("X\3\0\0\0\xe2\x82\xac", NULL, "error: cannot square '\xe2\x82\xac' (str)");
    CHECK("C\2a\xff", NULL, "error: cannot square b'a\\xff' (bytes)");
    CHECK("N", NULL, "error: cannot square None (NoneType)");
    CHECK("]", NULL, "error: cannot square a value (list)");
    CHECK("}", NULL, "error: cannot square a value (dict)");
    CHECK(")", NULL, "error: cannot square a value (list)"); /* a tuple is an array, too */
    CHECK("cdecimal\nDecimal\nX\1\0\0\0"
          "1\x85R",
          NULL, "error: cannot square a value (Decimal)");
}

/* What no Python item becomes. */
static void test_msgpack_alone(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *shown, *result;
    } cases[] = {
        {"\xcf\x80\0\0\0\0\0\0\0", 9, "9223372036854775808",
         "9223372036854775808 * 9223372036854775808 = 85070591730234615865843651857942052864"},
        {"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9, "18446744073709551615",
         "18446744073709551615 * 18446744073709551615 = 340282366920938463426481119284349108225"},
        {"\xca\x3f\xc0\0\0", 5, "1", "1 * 1 = 2"}, /* float 32: 1.5 */
        {"\xd4\x05x", 3, NULL, "error: cannot square a value (ext)"},
        {"\xd4\x50x", 3, NULL, "error: cannot square a value (bad pickle)"},
        {"\xc7\x06\x50\x80\x02K\x07.x", 9, NULL, "error: cannot square a value (bad pickle)"},
        {"\xc7\x05\x50\x80\x02K\x07.", 8, "7", "7 * 7 = 49"},
        {"\xc7\x04\x50\x80\x02N.", 7, NULL, "error: cannot square a value (NoneType)"},
    };
    struct tq_buf shown = TQ_BUF_NULL(4096);
    struct tq_buf result = TQ_BUF_NULL(4096);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rv = square_task(tq_span(cases[i].bytes, cases[i].len), &shown, &result);

        assert_int_equal(rv, cases[i].shown != NULL ? 0 : 1);
        assert_text(&shown, cases[i].shown != NULL ? cases[i].shown : "");
        assert_text(&result, cases[i].result);
    }
    tq_buf_deinit(&shown);
    tq_buf_deinit(&result);
}

static void test_long_strings_are_cut_between_characters(void **state)
{
    struct tq_buf ops = TQ_BUF_NULL(4096);
    struct tq_buf expected = TQ_BUF_NULL(4096);

    (void)state;
    /* 199 bytes, then a character of two bytes across the limit of 200. */
    assert_int_equal(tq_buf_append(&ops, "X\xcf\0\0\0", 5), TQ_OK);
    assert_int_equal(tq_buf_append_str(&expected, "error: cannot square '"), TQ_OK);
    for (int i = 0; i < 199; i++) {
        assert_int_equal(tq_buf_append_str(&ops, "x"), TQ_OK);
        assert_int_equal(tq_buf_append_str(&expected, "x"), TQ_OK);
    }
    assert_int_equal(tq_buf_append(&ops, "\xc3\xa4yyyyyy", 8), TQ_OK);
    assert_int_equal(tq_buf_append(&expected, "...' (str)", 11), TQ_OK);
    check(tq_buf_span(&ops), NULL, (const char *)expected.data);
    tq_buf_deinit(&ops);
    tq_buf_deinit(&expected);
}

static void test_each_allocation_failing(void **state)
{
    static const char *const ops[] = {"K\x07", "\x8a\x09\1\1\1\1\1\1\1\1\1", "L18446744073709551616L\n", "N"};

    (void)state;
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        struct task t;
        int rv = TQ_ENOMEM;

        task_init(&t, tq_span_str(ops[i]));
        for (long n = 0; rv < 0; n++) {
            struct tq_buf shown = TQ_BUF_NULL(4096);
            struct tq_buf result = TQ_BUF_NULL(4096);

            tq_mem_fail_after(n, 1);
            rv = square_task(tq_buf_span(&t.body), &shown, &result);
            tq_mem_fail_after(-1, 0);
            assert_true(rv >= 0 || rv == TQ_ENOMEM);
            tq_buf_deinit(&shown);
            tq_buf_deinit(&result);
            assert_true(n < 50);
        }
        task_deinit(&t);
    }
}

/* ---- the runner ---- */

struct job {
    struct runner_job base;
    unsigned done;
    int status;
};

static char g_said[64];
static unsigned g_said_count;
static bool g_inside; /* a call into the runner is on the stack */

static void on_say(const char *line)
{
    snprintf(g_said, sizeof(g_said), "%s", line);
    g_said_count++;
}

static void on_done(struct runner_job *base, int status)
{
    struct job *job = (struct job *)base;

    assert_false(g_inside);
    job->done++;
    job->status = status;
}

struct bench {
    uv_loop_t loop;
    struct ticker ticker;
    struct runner *runner;
};

static void bench_open(struct bench *b, uint64_t sleep_ms)
{
    struct runner_env env = {.ticker = &b->ticker, .say = on_say, .sleep_ms = sleep_ms};
    const struct runner_ops *ops = runner_builtin_find("square");

    assert_non_null(ops);
    assert_int_equal(uv_loop_init(&b->loop), 0);
    ticker_open(&b->ticker, &b->loop);
    assert_int_equal(ops->open(&env, &b->runner), TQ_OK);
    g_said_count = 0;
}

static void bench_close(struct bench *b)
{
    b->runner->ops->close(b->runner);
    ticker_close(&b->ticker);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&b->loop), 0);
}

static int start(struct bench *b, struct job *job, const char *ops)
{
    struct task t;
    struct runner_task task;
    int rv;

    *job = (struct job){.base = {.on_done = on_done}};
    tq_buf_init(&job->base.result, 4096);
    task_init(&t, tq_span_str(ops));
    task = (struct runner_task){.body = tq_buf_span(&t.body)};
    g_inside = true;
    rv = b->runner->ops->start(b->runner, &job->base, &task);
    g_inside = false;
    task_deinit(&t);
    return rv;
}

static void test_each_start_is_done_once(void **state)
{
    struct bench b;
    struct job jobs[3];

    (void)state;
    bench_open(&b, 1);
    assert_int_equal(start(&b, &jobs[0], "K\x07"), TQ_OK);
    assert_string_equal(g_said, "run task 7 * 7...");
    assert_int_equal(start(&b, &jobs[1], "N"), TQ_OK);
    assert_int_equal(start(&b, &jobs[2], "K\x08"), TQ_OK);
    assert_int_equal(g_said_count, 2);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(jobs[i].done, 1);
        assert_int_equal(jobs[i].status, i == 1 ? RUNNER_FAILED : TQ_OK);
    }
    assert_text(&jobs[0].base.result, "\xaa"
                                      "7 * 7 = 49"); /* msgpack */
    assert_true(jobs[1].base.final);
    assert_int_equal(jobs[1].base.code, 0);
    assert_text(&jobs[1].base.result, "error: cannot square None (NoneType)");
    assert_text(&jobs[2].base.result, "\xaa"
                                      "8 * 8 = 64");
    for (int i = 0; i < 3; i++)
        tq_buf_deinit(&jobs[i].base.result);
    bench_close(&b);
}

static void test_cancel(void **state)
{
    struct bench b;
    struct job job;

    (void)state;
    bench_open(&b, 3600000);
    assert_int_equal(start(&b, &job, "K\x07"), TQ_OK);
    g_inside = true;
    b.runner->ops->cancel(b.runner, &job.base);
    b.runner->ops->cancel(b.runner, &job.base);
    g_inside = false;
    uv_run(&b.loop, UV_RUN_DEFAULT);
    assert_int_equal(job.done, 1);
    assert_int_equal(job.status, TQ_ECANCELED);
    tq_buf_deinit(&job.base.result);
    bench_close(&b);
}

static void test_start_without_memory(void **state)
{
    struct bench b;
    struct job job;
    int rv = TQ_ENOMEM;

    (void)state;
    bench_open(&b, 0);
    for (long n = 0; rv != TQ_OK; n++) {
        struct task t;
        struct runner_task task;

        job = (struct job){.base = {.on_done = on_done}};
        tq_buf_init(&job.base.result, 4096);
        task_init(&t, tq_span_str("K\x07"));
        task = (struct runner_task){.body = tq_buf_span(&t.body)};
        tq_mem_fail_after(n, 1);
        rv = b.runner->ops->start(b.runner, &job.base, &task);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
        uv_run(&b.loop, UV_RUN_DEFAULT);
        assert_int_equal(job.done, rv == TQ_OK ? 1 : 0);
        task_deinit(&t);
        tq_buf_deinit(&job.base.result);
        assert_true(n < 50);
    }
    bench_close(&b);
}

static void test_unknown_builtin(void **state)
{
    (void)state;
    assert_null(runner_builtin_find("cube"));
    assert_null(runner_builtin_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ints),
        cmocka_unit_test(test_big_ints),
        cmocka_unit_test(test_largest_int),
        cmocka_unit_test(test_bools),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_msgpack_alone),
        cmocka_unit_test(test_long_strings_are_cut_between_characters),
        cmocka_unit_test(test_each_allocation_failing),
        cmocka_unit_test(test_each_start_is_done_once),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_start_without_memory),
        cmocka_unit_test(test_unknown_builtin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
