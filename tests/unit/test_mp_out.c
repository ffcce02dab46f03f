/* Writing msgpack: the shortest encoding, a value whole or not at all, an error that sticks; and frames. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/native/mp.h"
#include "tests/unit/mp_encodings.h"

static void put(struct tq_mp_out *o, const struct encoding *e)
{
    struct tq_span payload = tq_span(NULL, 0);
    double real;

    if (e->type >= TQ_MP_STR && e->value > 0)
        payload = tq_span(e->bytes + e->len - e->value, e->value);
    switch (e->type) {
    case TQ_MP_NIL:
        tq_mp_put_nil(o);
        break;
    case TQ_MP_BOOL:
        tq_mp_put_bool(o, e->value != 0);
        break;
    case TQ_MP_UINT:
        tq_mp_put_u64(o, e->value);
        break;
    case TQ_MP_INT:
        tq_mp_put_i64(o, (int64_t)e->value);
        break;
    case TQ_MP_FLOAT:
        memcpy(&real, &e->value, sizeof(real));
        tq_mp_put_float(o, real);
        break;
    case TQ_MP_STR:
        tq_mp_put_str(o, payload);
        break;
    case TQ_MP_BIN:
        tq_mp_put_bin(o, payload);
        break;
    case TQ_MP_EXT:
        tq_mp_put_ext(o, e->ext_type, payload);
        break;
    case TQ_MP_ARRAY:
        tq_mp_put_array(o, (uint32_t)e->value);
        tq_mp_put_raw(o, payload); /* values of a byte each */
        break;
    default:
        tq_mp_put_map(o, (uint32_t)e->value);
        tq_mp_put_raw(o, tq_span(e->bytes + e->len - 2 * e->value, 2 * e->value));
        break;
    }
}

static void test_shortest_is_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(encodings); i++) {
        const struct encoding *e = &encodings[i];
        struct tq_buf buf = TQ_BUF_NULL(64);
        struct tq_mp_out o = tq_mp_out(&buf);
        struct tq_buf tight = TQ_BUF_NULL(0);

        /* With nothing allocated, with room, and with just so much room as it needs. */
        put(&o, e);
        assert_int_equal(o.err, TQ_OK);
        assert_int_equal(tq_span_eq(tq_buf_span(&buf), tq_span(e->bytes, e->len)), !e->longer);
        assert_true(e->type == TQ_MP_FLOAT || buf.len <= e->len);
        tq_buf_clear(&buf);
        put(&o, e);
        assert_int_equal(tq_span_eq(tq_buf_span(&buf), tq_span(e->bytes, e->len)), !e->longer);
        tq_buf_init(&tight, buf.len);
        o = tq_mp_out(&tight);
        put(&o, e);
        assert_int_equal(o.err, TQ_OK);
        assert_true(tq_span_eq(tq_buf_span(&tight), tq_buf_span(&buf)));
        if (e->type == TQ_MP_UINT && e->value <= INT64_MAX) {
            tq_buf_clear(&tight);
            tq_mp_put_i64(&o, (int64_t)e->value);
            assert_true(tq_span_eq(tq_buf_span(&tight), tq_buf_span(&buf)));
        }
        tq_buf_deinit(&tight);
        tq_buf_deinit(&buf);
    }
}

/* All kinds, and payloads and counts on both sides of each limit. */
static void put_all(struct tq_mp_out *o, uint8_t *payload, size_t payload_max)
{
    static const size_t sizes[] = {0, 1, 2, 3, 4, 8, 16, 17, 31, 32, 255, 256, 65535, 65536};

    for (size_t i = 0; i < COUNT(encodings); i++)
        put(o, &encodings[i]);
    tq_mp_put_cstr(o, "text");
    for (size_t i = 0; i < COUNT(sizes) && sizes[i] <= payload_max; i++) {
        tq_mp_put_str(o, tq_span(payload, sizes[i]));
        tq_mp_put_bin(o, tq_span(payload, sizes[i]));
        tq_mp_put_ext(o, 7, tq_span(payload, sizes[i]));
        tq_mp_put_array(o, (uint32_t)sizes[i]);
        tq_mp_put_raw(o, tq_span(payload, sizes[i]));
        tq_mp_put_map(o, (uint32_t)sizes[i] / 2);
        tq_mp_put_raw(o, tq_span(payload, sizes[i] / 2 * 2));
    }
}

/* Where a value of the sequence ends. */
static bool is_whole(struct tq_span all, size_t n)
{
    size_t at = 0, len;
    const char *why;

    while (at < n) {
        if (tq_mp_walk(tq_span(all.data + at, all.len - at), &len, &why) != TQ_OK)
            fail_msg("%s", why);
        at += len;
    }
    return at == n;
}

static void test_values_are_whole_at_the_ceiling(void **state)
{
    uint8_t payload[256] = {0};
    struct tq_buf all = TQ_BUF_NULL(1u << 20);
    struct tq_mp_out o = tq_mp_out(&all);

    (void)state;
    put_all(&o, payload, sizeof(payload));
    assert_int_equal(o.err, TQ_OK);
    assert_true(is_whole(tq_buf_span(&all), all.len));
    for (size_t max = 0; max < all.len; max++) {
        struct tq_buf buf;
        size_t len;

        tq_buf_init(&buf, max);
        o = tq_mp_out(&buf);
        put_all(&o, payload, sizeof(payload));
        assert_int_equal(o.err, TQ_ELIMIT);
        assert_memory_equal(buf.len > 0 ? buf.data : payload, buf.len > 0 ? all.data : payload, buf.len);
        len = buf.len;
        tq_mp_put_nil(&o); /* would fit in most */
        tq_mp_put_str(&o, tq_span(payload, 0));
        tq_mp_put_raw(&o, tq_span(payload, 0));
        assert_int_equal(buf.len, len);
        assert_int_equal(o.err, TQ_ELIMIT);
        tq_buf_deinit(&buf);
    }
    tq_buf_deinit(&all);
}

static void test_each_allocation_fails(void **state)
{
    static uint8_t payload[65536];
    struct tq_buf all = TQ_BUF_NULL(4u << 20);
    struct tq_mp_out o = tq_mp_out(&all);
    long failed = 0;

    (void)state;
    put_all(&o, payload, sizeof(payload));
    assert_int_equal(o.err, TQ_OK);
    assert_true(is_whole(tq_buf_span(&all), all.len));
    for (long n = 0;; n++) {
        struct tq_buf buf = TQ_BUF_NULL(4u << 20);
        int err;

        o = tq_mp_out(&buf);
        tq_mem_fail_after(n, 1); /* only that one: what follows could be written, and is not */
        put_all(&o, payload, sizeof(payload));
        tq_mem_fail_after(-1, 0);
        err = o.err;
        if (err == TQ_OK) {
            assert_true(tq_span_eq(tq_buf_span(&buf), tq_buf_span(&all)));
        } else {
            failed++;
            assert_int_equal(err, TQ_ENOMEM);
            assert_true(buf.len < all.len);
            assert_true(buf.len == 0 || memcmp(buf.data, all.data, buf.len) == 0);
        }
        tq_buf_deinit(&buf);
        if (err == TQ_OK)
            break;
    }
    assert_true(failed >= 5);
    tq_buf_deinit(&all);
}

static void test_payloads_over_32_bits(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(SIZE_MAX);
    struct tq_span huge = tq_span("", (size_t)UINT32_MAX + 1); /* refused before it is looked at */
    struct tq_mp_out o = tq_mp_out(&buf);

    (void)state;
    tq_mp_put_str(&o, huge);
    assert_int_equal(o.err, TQ_ELIMIT);
    o = tq_mp_out(&buf);
    tq_mp_put_bin(&o, huge);
    assert_int_equal(o.err, TQ_ELIMIT);
    o = tq_mp_out(&buf);
    tq_mp_put_ext(&o, 1, huge);
    assert_int_equal(o.err, TQ_ELIMIT);
    assert_int_equal(buf.len, 0);
    tq_buf_deinit(&buf);
}

/* ---- frames ---- */

static void test_frames(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(100);
    struct tq_mp_out o = tq_mp_out(&buf);
    size_t start;

    (void)state;
    tq_mp_frame_begin(&o, &start);
    assert_int_equal(start, 0);
    assert_int_equal(tq_mp_frame_end(&o, start), TQ_OK); /* an empty one */
    tq_mp_frame_begin(&o, &start);
    assert_int_equal(start, 4);
    tq_mp_put_array(&o, 2);
    tq_mp_put_u64(&o, 300);
    tq_mp_put_cstr(&o, "x");
    assert_int_equal(tq_mp_frame_end(&o, start), TQ_OK);
    assert_true(tq_span_eq(tq_buf_span(&buf), SPAN("\0\0\0\0"
                                                   "\0\0\0\6\x92\xcd\1\x2c\xa1x")));
    tq_buf_deinit(&buf);
}

static void test_a_frame_that_fails_is_gone(void **state)
{
    static const uint8_t zeros[90];
    struct tq_buf buf = TQ_BUF_NULL(100);
    struct tq_mp_out o = tq_mp_out(&buf);
    size_t start;

    (void)state;
    tq_mp_put_cstr(&o, "kept");
    tq_mp_frame_begin(&o, &start);
    tq_mp_put_bin(&o, tq_span(zeros, 80));
    tq_mp_put_bin(&o, tq_span(zeros, 90));
    tq_mp_put_nil(&o);
    assert_int_equal(tq_mp_frame_end(&o, start), TQ_ELIMIT);
    assert_true(tq_span_eq(tq_buf_span(&buf), SPAN("\xa4kept")));
    tq_mp_frame_begin(&o, &start); /* it sticks */
    tq_mp_put_nil(&o);
    assert_int_equal(tq_mp_frame_end(&o, start), TQ_ELIMIT);
    assert_int_equal(buf.len, 5);
    o = tq_mp_out(&buf); /* and a new writer may tell so */
    tq_mp_frame_begin(&o, &start);
    tq_mp_put_nil(&o);
    assert_int_equal(tq_mp_frame_end(&o, start), TQ_OK);
    assert_true(tq_span_eq(tq_buf_span(&buf), SPAN("\xa4kept\0\0\0\1\xc0")));
    tq_buf_deinit(&buf);

    tq_buf_init(&buf, 3); /* no room for the length */
    o = tq_mp_out(&buf);
    tq_mp_frame_begin(&o, &start);
    assert_int_equal(tq_mp_frame_end(&o, start), TQ_ELIMIT);
    assert_int_equal(buf.len, 0);
    tq_buf_deinit(&buf);
}

static void test_the_largest_frame(void **state)
{
    uint8_t begin[8] = {0};
    /* Only the length is written, so that only it need be there. */
    struct tq_buf buf = {.data = begin, .len = 4 + (size_t)INT32_MAX, .cap = SIZE_MAX, .max = SIZE_MAX};
    struct tq_mp_out o = tq_mp_out(&buf);

    (void)state;
    assert_int_equal(tq_mp_frame_end(&o, 0), TQ_OK);
    assert_memory_equal(begin, "\x7f\xff\xff\xff\0\0\0\0", 8);
    buf.len++;
    memset(begin, 0, sizeof(begin));
    assert_int_equal(tq_mp_frame_end(&o, 0), TQ_ELIMIT);
    assert_int_equal(buf.len, 0);
    assert_memory_equal(begin, "\0\0\0\0\0\0\0\0", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shortest_is_written),
        cmocka_unit_test(test_values_are_whole_at_the_ceiling),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_payloads_over_32_bits),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_a_frame_that_fails_is_gone),
        cmocka_unit_test(test_the_largest_frame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
