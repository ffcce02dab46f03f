#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/emit.h"

static void assert_frame(const struct tq_buf *buf, const char *payload, size_t n)
{
    assert_int_equal(buf->len, n + 4);
    assert_int_equal(tq_load_be32(buf->data), n);
    assert_memory_equal(buf->data + 4, payload, n);
}

/* The text of a literal, without its NUL. */
#define ASSERT_FRAME(buf, literal) assert_frame(buf, literal, sizeof(literal) - 1)

static void test_scalars(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1024);
    struct tq_emit e;

    (void)state;
    tq_emit_begin(&e, &buf);
    tq_emit_none(&e);
    tq_emit_bool(&e, true);
    tq_emit_bool(&e, false);
    tq_emit_float(&e, 1.5);
    tq_emit_float(&e, -0.0);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    ASSERT_FRAME(&buf, "\x80\x02N\x88\x89G\x3f\xf8\0\0\0\0\0\0G\x80\0\0\0\0\0\0\0.");
    tq_buf_deinit(&buf);
}

static void test_ints_take_the_shortest_form(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1024);
    struct tq_emit e;

    (void)state;
    tq_emit_begin(&e, &buf);
    tq_emit_int(&e, 0);
    tq_emit_int(&e, 255);
    tq_emit_int(&e, 256);
    tq_emit_int(&e, 65535);
    tq_emit_int(&e, 65536);
    tq_emit_int(&e, -1);
    tq_emit_int(&e, INT32_MIN);
    tq_emit_int(&e, (int64_t)INT32_MAX + 1);
    tq_emit_int(&e, INT64_MIN);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    ASSERT_FRAME(&buf, "\x80\x02K\0K\xffM\0\1M\xff\xffJ\0\0\1\0J\xff\xff\xff\xffJ\0\0\0\x80"
                       "\x8a\x08\0\0\0\x80\0\0\0\0\x8a\x08\0\0\0\0\0\0\0\x80.");
    tq_buf_deinit(&buf);
}

static void test_containers_and_calls(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1024);
    struct tq_emit e;

    (void)state;
    tq_emit_begin(&e, &buf);
    tq_emit_mark(&e);
    for (unsigned n = 0; n <= 3; n++)
        tq_emit_tuple_n(&e, n);
    tq_emit_tuple(&e);
    tq_emit_empty_dict(&e);
    tq_emit_setitems(&e);
    tq_emit_global(&e, "queue", "Empty");
    tq_emit_reduce(&e);
    tq_emit_raw(&e, tq_span_str("raw"));
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    ASSERT_FRAME(&buf, "\x80\x02()\x85\x86\x87t}ucqueue\nEmpty\nRraw.");
    tq_buf_deinit(&buf);
}

static void test_frames_follow_one_another(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1024);
    struct tq_emit e;

    (void)state;
    tq_emit_begin(&e, &buf);
    tq_emit_none(&e);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    tq_emit_begin(&e, &buf);
    tq_emit_bool(&e, true);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    assert_int_equal(buf.len, 16);
    assert_memory_equal(buf.data, "\0\0\0\4\x80\2N.\0\0\0\4\x80\2\x88.", 16);
    tq_buf_deinit(&buf);
}

static void check_str(struct tq_span in, const char *out, size_t out_len)
{
    struct tq_buf buf = TQ_BUF_NULL(4096);
    struct tq_emit e;

    tq_emit_begin(&e, &buf);
    tq_emit_str(&e, in);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    assert_int_equal(buf.len, 4 + 2 + 5 + out_len + 1);
    assert_int_equal(buf.data[6], 'X');
    assert_int_equal(buf.data[7], out_len);
    assert_int_equal(buf.data[8] | buf.data[9] | buf.data[10], 0);
    assert_memory_equal(buf.data + 11, out, out_len);
    tq_buf_deinit(&buf);
}

#define REPLACED "\xef\xbf\xbd"

static void test_strings_always_decode(void **state)
{
    static const struct {
        const char *in;
        const char *out; /* NULL: unchanged */
    } cases[] = {
        {"", NULL},
        {"plain", NULL},
        {"\xc2\x80\xdf\xbf", NULL},
        {"\xe0\xa0\x80\xef\xbf\xbf", NULL},
        {"\xed\xa0\x80", NULL}, /* a lone surrogate */
        {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", NULL},
        {"\x80", REPLACED},
        {"a\xff"
         "b",
         "a" REPLACED "b"},
        {"\xc0\xaf", REPLACED REPLACED},                           /* overlong */
        {"\xe0\x9f\xbf", REPLACED REPLACED REPLACED},              /* overlong */
        {"\xf4\x90\x80\x80", REPLACED REPLACED REPLACED REPLACED}, /* past U+10FFFF */
        {"\xc3", REPLACED},
        {"\xe2\x82", REPLACED REPLACED},
        {"\xf0\x9f\x90"
         "x",
         REPLACED REPLACED REPLACED "x"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *out = cases[i].out != NULL ? cases[i].out : cases[i].in;

        check_str(tq_span_str(cases[i].in), out, strlen(out));
    }
    check_str(tq_span("a\0b", 3), "a\0b", 3);
}

static void test_first_error_stays_and_cuts_back(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(40);
    struct tq_emit e;

    (void)state;
    assert_int_equal(tq_buf_append_str(&buf, "before"), TQ_OK);
    tq_emit_begin(&e, &buf);
    tq_emit_cstr(&e, "a string that is longer than all the room there is");
    tq_emit_none(&e);
    assert_int_equal(tq_emit_end(&e), TQ_ELIMIT);
    assert_true(tq_span_is(tq_buf_span(&buf), "before"));
    tq_buf_deinit(&buf);
}

static void test_each_allocation_failing(void **state)
{
    (void)state;
    for (long n = 0; n < 2; n++) {
        struct tq_buf buf = TQ_BUF_NULL(4096);
        struct tq_emit e;
        char text[200];

        memset(text, 'x', sizeof(text));
        tq_mem_fail_after(n, 1);
        tq_emit_begin(&e, &buf);
        tq_emit_str(&e, tq_span(text, sizeof(text)));
        tq_emit_none(&e);
        assert_int_equal(tq_emit_end(&e), TQ_ENOMEM);
        assert_int_equal(buf.len, 0);
        tq_mem_fail_after(-1, 0);
        tq_buf_deinit(&buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_ints_take_the_shortest_form),
        cmocka_unit_test(test_containers_and_calls),
        cmocka_unit_test(test_frames_follow_one_another),
        cmocka_unit_test(test_strings_always_decode),
        cmocka_unit_test(test_first_error_stays_and_cuts_back),
        cmocka_unit_test(test_each_allocation_failing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
