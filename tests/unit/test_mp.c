/* Reading msgpack: each encoding is walked, read by its reader and by no other, and refused when it is cut;
 * what is hostile is refused at the header that says so; and bytes that nobody walked are harmless. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <unistd.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/native/mp.h"
#include "tests/lib/guard.h"
#include "tests/unit/mp_encodings.h"

/* What the cursor holds now, whatever it is, in the terms of the table. */
struct seen {
    bool nil, boolean, u64, u32, i64, real, str, bin, array, map, ext;
    bool truth;
    uint64_t u64_value;
    uint32_t u32_value;
    int64_t i64_value;
    double real_value;
    struct tq_span span;
    uint32_t count;
    int8_t ext_type;
    size_t used;
};

static void stays(bool read, const struct tq_mp *before, const struct tq_mp *after, struct seen *s)
{
    assert_ptr_equal(after->end, before->end);
    if (!read) {
        assert_ptr_equal(after->at, before->at);
        return;
    }
    assert_true(after->at > before->at && after->at <= before->end);
    s->used = (size_t)(after->at - before->at);
}

static struct seen look(struct tq_mp at)
{
    struct seen s = {.nil = false};
    struct tq_mp c = at;

#define TRY(field, call)                                                                                     \
    c = at;                                                                                                  \
    s.field = (call);                                                                                        \
    stays(s.field, &at, &c, &s)
    TRY(nil, tq_mp_nil(&c));
    TRY(boolean, tq_mp_bool(&c, &s.truth));
    TRY(u64, tq_mp_u64(&c, &s.u64_value));
    TRY(u32, tq_mp_u32(&c, &s.u32_value));
    TRY(i64, tq_mp_i64(&c, &s.i64_value));
    TRY(real, tq_mp_float(&c, &s.real_value));
    TRY(str, tq_mp_str(&c, &s.span));
    TRY(bin, tq_mp_bin(&c, &s.span));
    TRY(array, tq_mp_array(&c, &s.count));
    TRY(map, tq_mp_map(&c, &s.count));
    TRY(ext, tq_mp_ext(&c, &s.ext_type, &s.span));
#undef TRY
    if (s.str || s.bin || s.ext)
        assert_true(s.span.data + s.span.len == at.at + s.used);
    return s;
}

static bool sees_nothing(const struct seen *s)
{
    return !(s->nil || s->boolean || s->u64 || s->u32 || s->i64 || s->real || s->str || s->bin || s->array ||
             s->map || s->ext);
}

/* What was read is what the table says, and no other reader took it. */
static void check_seen(const struct encoding *e, const struct seen *s)
{
    uint64_t bits;
    bool sized = e->type == TQ_MP_STR || e->type == TQ_MP_BIN || e->type == TQ_MP_EXT;

    assert_int_equal(s->nil, e->type == TQ_MP_NIL);
    assert_int_equal(s->boolean, e->type == TQ_MP_BOOL);
    assert_int_equal(s->u64, e->type == TQ_MP_UINT);
    assert_int_equal(s->u32, e->type == TQ_MP_UINT && e->value <= UINT32_MAX);
    assert_int_equal(s->i64, e->type == TQ_MP_INT || (e->type == TQ_MP_UINT && e->value <= INT64_MAX));
    assert_int_equal(s->real, e->type == TQ_MP_FLOAT);
    assert_int_equal(s->str, e->type == TQ_MP_STR);
    assert_int_equal(s->bin, e->type == TQ_MP_BIN);
    assert_int_equal(s->array, e->type == TQ_MP_ARRAY);
    assert_int_equal(s->map, e->type == TQ_MP_MAP);
    assert_int_equal(s->ext, e->type == TQ_MP_EXT);
    assert_true(!s->boolean || s->truth == (e->value != 0));
    assert_true(!s->u64 || s->u64_value == e->value);
    assert_true(!s->u32 || s->u32_value == e->value);
    assert_true(!s->i64 || (uint64_t)s->i64_value == e->value);
    memcpy(&bits, &s->real_value, sizeof(bits));
    assert_true(!s->real || bits == e->value);
    assert_true(!sized || (s->span.len == e->value &&
                           memcmp(s->span.data, e->bytes + e->len - e->value, e->value) == 0));
    assert_true(!(s->array || s->map) || s->count == e->value);
    assert_true(!s->ext || s->ext_type == e->ext_type);
    if (!s->array && !s->map)
        assert_int_equal(s->used, e->len);
}

static void test_each_encoding(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(encodings); i++) {
        const struct encoding *e = &encodings[i];
        uint8_t *bytes = guard_copy(e->bytes, e->len);
        struct tq_mp c = tq_mp_of(tq_span(bytes, e->len));
        struct tq_span raw = tq_span(NULL, 0);
        const char *why = NULL;
        size_t len = 99;
        struct seen s;

        assert_int_equal(tq_mp_walk(tq_span(bytes, e->len), &len, &why), TQ_OK);
        assert_int_equal(len, e->len);
        assert_int_equal(tq_mp_walk_all(tq_span(bytes, e->len), &why), TQ_OK);
        assert_null(why);
        if (tq_mp_peek(&c) != e->type)
            fail_msg("encoding %zu is peeked as %d", i, (int)tq_mp_peek(&c));
        s = look(c);
        check_seen(e, &s);
        assert_true(tq_mp_raw(&c, &raw));
        assert_true(raw.data == bytes && raw.len == e->len);
        assert_int_equal(tq_mp_peek(&c), TQ_MP_END);
        s = look(c);
        assert_true(sees_nothing(&s));
        assert_false(tq_mp_raw(&c, &raw));
        assert_false(tq_mp_skip(&c));
        guard_free(bytes, e->len);
    }
}

static void test_bytes_behind_a_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(encodings); i++) {
        const struct encoding *e = &encodings[i];
        uint8_t both[64];
        const char *why = NULL;
        size_t len = 99;

        memcpy(both, e->bytes, e->len);
        both[e->len] = 0xc1;
        assert_int_equal(tq_mp_walk(tq_span(both, e->len + 1), &len, &why), TQ_OK);
        assert_int_equal(len, e->len);
        assert_int_equal(tq_mp_walk_all(tq_span(both, e->len + 1), &why), TQ_EPROTO);
        assert_string_equal(why, "bytes behind the value");
    }
}

static void test_each_encoding_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(encodings); i++) {
        const struct encoding *e = &encodings[i];
        bool container = e->type == TQ_MP_ARRAY || e->type == TQ_MP_MAP;

        for (size_t n = 0; n < e->len; n++) {
            uint8_t *bytes = guard_copy(e->bytes, n);
            struct tq_mp c = tq_mp_of(tq_span(bytes, n));
            const char *why = NULL;
            size_t len = 99;
            struct seen s = look(c);

            assert_int_equal(tq_mp_walk(tq_span(bytes, n), &len, &why), TQ_EPROTO);
            assert_int_equal(len, 99);
            if (!container)
                assert_string_equal(why, "truncated");
            assert_true(strcmp(why, "truncated") == 0 || strcmp(why, "a count beyond the bytes left") == 0);
            assert_true(sees_nothing(&s)); /* a count is not told either when that many are not there */
            assert_false(tq_mp_skip(&c));
            assert_ptr_equal(c.at, bytes);
            tq_mp_peek(&c);
            guard_free(bytes, n);
        }
    }
}

static void test_no_input_at_all(void **state)
{
    struct tq_mp c = tq_mp_of(tq_span(NULL, 0));
    struct seen s = look(c);
    const char *why = NULL;
    size_t len;

    (void)state;
    assert_int_equal(tq_mp_peek(&c), TQ_MP_END);
    assert_true(sees_nothing(&s));
    assert_false(tq_mp_skip(&c));
    assert_int_equal(tq_mp_walk(tq_span(NULL, 0), &len, &why), TQ_EPROTO);
    assert_string_equal(why, "truncated");
    assert_int_equal(tq_mp_walk_all(tq_span(NULL, 0), &why), TQ_EPROTO);
}

/* ---- hostile input ---- */

/* The reason to refuse an input of `len` bytes that begins so. What the walk must not need to see is an
 * unreadable page. */
static const char *refused(const void *begin, size_t begin_len, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *base = mmap(NULL, page + len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *start = base + page - begin_len;
    unsigned long allocations = tq_mem_count();
    const char *why = NULL;
    size_t ret_len = 99;

    assert_true(base != MAP_FAILED && begin_len <= page);
    assert_int_equal(mprotect(base, page, PROT_READ | PROT_WRITE), 0);
    memcpy(start, begin, begin_len);
    assert_int_equal(tq_mp_walk(tq_span(start, len), &ret_len, &why), TQ_EPROTO);
    assert_int_equal(ret_len, 99);
    assert_int_equal(tq_mem_count(), allocations);
    assert_int_equal(munmap(base, page + len), 0);
    return why;
}

static void test_counts_are_refused_at_their_header(void **state)
{
    static const char count[] = "a count beyond the bytes left";

    (void)state;
    assert_string_equal(refused(BYTES("\xdd\xff\xff\xff\xff"), 5), count);
    assert_string_equal(refused(BYTES("\xdd\xff\xff\xff\xff"), 64u << 20), count);
    assert_string_equal(refused(BYTES("\xdf\x40\0\0\0"), 5), count);
    assert_string_equal(refused(BYTES("\xdf\x40\0\0\0"), 64u << 20), count);
    /* Twice 2^31 pairs is 2^32: nothing wraps. */
    assert_string_equal(refused(BYTES("\xdf\x80\0\0\0"), 64u << 20), count);
    assert_string_equal(refused(BYTES("\xdf\xff\xff\xff\xff"), 64u << 20), count);
    /* One more than there are bytes. */
    assert_string_equal(refused(BYTES("\x92"), 2), count);
    assert_string_equal(refused(BYTES("\x81"), 2), count);
    assert_string_equal(refused(BYTES("\xdc\x10\x01"), 3 + 0x1000), count);
    assert_string_equal(refused(BYTES("\xde\x08\x01"), 3 + 0x1001), count);
    assert_string_equal(refused(BYTES("\xdd\0\1\0\1"), 5 + 0x10000), count);
    /* Each would fit, all of them do not: what the first still owes counts. */
    assert_string_equal(refused(BYTES("\xdc\xff\xff\xdc\xff\xff"), 24000 * 3), count);
    assert_string_equal(refused(BYTES("\x92\xdc\xff\xff"), 4 + 0xffff), count);
    assert_string_equal(refused(BYTES("\x93\x92\1\x92\1\x91"), 8), count);
    assert_string_equal(refused(BYTES("\x82\1\xdc\xff\xff"), 5 + 0xffff + 1), count);
}

static void test_lengths_are_refused_at_their_header(void **state)
{
    (void)state;
    assert_string_equal(refused(BYTES("\xdb\xff\xff\xff\xff"), 1u << 20), "truncated");
    assert_string_equal(refused(BYTES("\xc6\xff\xff\xff\xff"), 1u << 20), "truncated");
    assert_string_equal(refused(BYTES("\xc9\xff\xff\xff\xff"), 1u << 20), "truncated");
    assert_string_equal(refused(BYTES("\xc6\0\1\0\0"), 5 + 0xffff), "truncated");
    assert_string_equal(refused(BYTES("\xc9\0\1\0\0"), 5 + 0x10000), "truncated"); /* the type is missing */
    assert_string_equal(refused(BYTES("\xc5\xff\xff"), 3 + 0xfffe), "truncated");
    assert_string_equal(refused(BYTES("\xc4\xff"), 2 + 0xfe), "truncated");
    assert_string_equal(refused(BYTES("\xbf"), 31), "truncated");
    /* It fits, but not with the value that must follow. */
    assert_string_equal(refused(BYTES("\x92\xc5\x10\0"), 4 + 0x1000), "truncated");
    assert_string_equal(refused(BYTES("\x92\xa4"), 6), "truncated");
    assert_string_equal(refused(BYTES("\x93\xc0\xcb"), 11), "truncated");
}

static void test_the_byte_that_is_nothing(void **state)
{
    struct tq_mp c = tq_mp_of(SPAN("\xc1\0\0"));
    struct seen s = look(c);

    (void)state;
    assert_string_equal(refused(BYTES("\xc1"), 10), "the byte 0xc1");
    assert_string_equal(refused(BYTES("\x93\1\xc1"), 10), "the byte 0xc1");
    assert_true(sees_nothing(&s));
    assert_false(tq_mp_skip(&c));
    assert_int_equal(tq_mp_peek(&c), TQ_MP_END);
}

/* `depth` containers inside each other, each the `place`-th of three values. */
static size_t nest(uint8_t *out, size_t depth, unsigned place)
{
    size_t n = 0;

    for (size_t i = 0; i < depth; i++) {
        out[n++] = 0x93;
        for (unsigned k = 0; k < place; k++)
            out[n++] = 0xc0;
    }
    out[n++] = 0xc0; /* the innermost one's value at that place */
    for (size_t i = 0; i < depth; i++)
        for (unsigned k = place + 1; k < 3; k++)
            out[n++] = 0xc0;
    return n;
}

static void test_depth(void **state)
{
    static uint8_t bytes[200 * 1000];
    const char *why = NULL;
    size_t len, n;

    (void)state;
    for (unsigned place = 0; place < 3; place++) {
        for (size_t depth = 1; depth <= 40; depth++) {
            n = nest(bytes, depth, place);
            assert_int_equal(tq_mp_walk(tq_span(bytes, n), &len, &why),
                             depth <= TQ_MP_DEPTH_MAX ? TQ_OK : TQ_EPROTO);
            assert_string_equal(depth <= TQ_MP_DEPTH_MAX ? "nested too deep" : why, "nested too deep");
        }
    }
    /* Empty ones are containers, too. */
    memset(bytes, 0x91, sizeof(bytes));
    bytes[31] = 0x90;
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, 32), &why), TQ_OK);
    bytes[31] = 0x91;
    bytes[32] = 0x90;
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, 33), &why), TQ_EPROTO);
    assert_string_equal(why, "nested too deep");
    bytes[32] = 0x80;
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, 33), &why), TQ_EPROTO);
    bytes[32] = 0xa0;
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, 33), &why), TQ_OK);
    /* 100,000 levels end at the first one too many. */
    bytes[32] = 0x91;
    assert_string_equal(refused(bytes, 33, 100000), "nested too deep");
    memset(bytes, 0x81, sizeof(bytes));
    for (size_t i = 1; i < 66; i += 2)
        bytes[i] = 1;
    assert_string_equal(refused(bytes, 65, 200000), "nested too deep");
}

/* Many beside each other are no depth, whichever of them are complete when the next is opened. */
static void test_breadth(void **state)
{
    static uint8_t bytes[70000];
    const char *why = NULL;
    size_t n = 3;

    (void)state;
    memcpy(bytes, "\xdc\x27\x10", 3); /* 10,000 of [[], [0], 0] */
    for (size_t i = 0; i < 10000; i++, n += 5)
        memcpy(bytes + n, "\x93\x90\x91\0\0", 5);
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, n), &why), TQ_OK);
    bytes[n] = 0;
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, n + 1), &why), TQ_EPROTO);
    assert_string_equal(why, "bytes behind the value");
    assert_int_equal(tq_mp_walk_all(tq_span(bytes, n - 1), &why), TQ_EPROTO);
    /* 31 levels beneath each of the 10,000 is still within the limit, and 32 are not. */
    for (size_t depth = 31; depth <= 32; depth++) {
        memcpy(bytes, "\x95", 1);
        n = 1;
        for (size_t i = 0; i < 5; i++)
            n += nest(bytes + n, depth, (unsigned)i % 3);
        assert_int_equal(tq_mp_walk_all(tq_span(bytes, n), &why), depth == 31 ? TQ_OK : TQ_EPROTO);
    }
}

/* ---- bytes that nobody walked ---- */

static uint64_t rng_state;

static uint64_t rng(void)
{
    uint64_t x = rng_state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void test_cursor_on_any_bytes(void **state)
{
    static const uint8_t firsts[] = {0xc1, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb,
                                     0xcd, 0xcf, 0xd0, 0xd3, 0xd8, 0xd9, 0xda, 0xdb, 0xdc,
                                     0xdd, 0xde, 0xdf, 0x9f, 0x8f, 0xbf, 0xff, 0x01, 0x00};

    (void)state;
    for (uint64_t seed = 0; seed < 3000; seed++) {
        uint8_t bytes[40];
        uint8_t *guarded;
        size_t n;
        struct tq_mp c;

        rng_state = seed;
        n = rng() % sizeof(bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = rng() % 2 ? firsts[rng() % COUNT(firsts)] : (uint8_t)rng();
        guarded = guard_copy(bytes, n);
        c = tq_mp_of(tq_span(guarded, n));
        while (tq_mp_peek(&c) != TQ_MP_END || c.at != c.end) {
            struct tq_mp skipping = c;
            struct seen s = look(c); /* which checks that it stays within its bytes */

            if (tq_mp_peek(&c) == TQ_MP_ARRAY)
                assert_true(!s.array || s.count <= tq_mp_left(&c) - s.used);
            if (tq_mp_peek(&c) == TQ_MP_MAP)
                assert_true(!s.map || (uint64_t)s.count * 2 <= tq_mp_left(&c) - s.used);
            if (tq_mp_skip(&skipping)) {
                assert_false(sees_nothing(&s));
                assert_true(skipping.at > c.at && skipping.at <= c.end);
                assert_true(s.array || s.map || skipping.at == c.at + s.used);
            } else {
                assert_true(s.array || s.map || sees_nothing(&s));
            }
            c.at += !sees_nothing(&s) && rng() % 2 ? s.used : 1; /* into the middle of values, too */
        }
        guard_free(guarded, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_encoding),
        cmocka_unit_test(test_bytes_behind_a_value),
        cmocka_unit_test(test_each_encoding_cut),
        cmocka_unit_test(test_no_input_at_all),
        cmocka_unit_test(test_counts_are_refused_at_their_header),
        cmocka_unit_test(test_lengths_are_refused_at_their_header),
        cmocka_unit_test(test_the_byte_that_is_nothing),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_breadth),
        cmocka_unit_test(test_cursor_on_any_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
