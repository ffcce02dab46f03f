/* The framing: whole, byte by byte, cut everywhere, at an unreadable page, with failing allocations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/frame.h"
#include "tests/lib/guard.h"

#define BYTES(text) text, sizeof(text) - 1

/* A stream and what must come of it. */
static const struct {
    const char *what;
    const char *bytes;
    size_t len;
    size_t max;
    const char *frames[4]; /* payloads, up to NULL */
    int end;               /* TQ_FRAME_MORE or the error behind them */
    size_t used;           /* bytes taken when the error shows; 0: all */
} cases[] = {
    {"nothing", BYTES(""), 256, {NULL}, TQ_FRAME_MORE, 0},
    {"one frame", BYTES("\0\0\0\3abc"), 256, {"abc"}, TQ_FRAME_MORE, 0},
    {"empty frame", BYTES("\0\0\0\0"), 256, {""}, TQ_FRAME_MORE, 0},
    {"empty frames are frames", BYTES("\0\0\0\0\0\0\0\0\0\0\0\1x"), 256, {"", "", "x"}, TQ_FRAME_MORE, 0},
    {"three in a row", BYTES("\0\0\0\1a\0\0\0\2bb\0\0\0\3ccc"), 3, {"a", "bb", "ccc"}, TQ_FRAME_MORE, 0},
    {"long form", BYTES("\xff\xff\xff\xff\0\0\0\0\0\0\0\2hi"), 256, {"hi"}, TQ_FRAME_MORE, 0},
    {"long form, empty", BYTES("\xff\xff\xff\xff\0\0\0\0\0\0\0\0"), 256, {""}, TQ_FRAME_MORE, 0},
    {"long form between short ones",
     BYTES("\0\0\0\1a\xff\xff\xff\xff\0\0\0\0\0\0\0\2hi\0\0\0\1b"),
     256,
     {"a", "hi", "b"},
     TQ_FRAME_MORE,
     0},
    {"at the cap", BYTES("\0\0\0\4four"), 4, {"four"}, TQ_FRAME_MORE, 0},
    {"over the cap by one", BYTES("\0\0\0\5fiver"), 4, {NULL}, TQ_ELIMIT, 4},
    {"cap of nothing", BYTES("\0\0\0\0\0\0\0\1x"), 0, {""}, TQ_ELIMIT, 8},
    {"the largest length", BYTES("\x7f\xff\xff\xff"), 256, {NULL}, TQ_ELIMIT, 4},
    {"the most negative length", BYTES("\x80\0\0\0"), 256, {NULL}, TQ_EPROTO, 4},
    {"minus two", BYTES("\xff\xff\xff\xfexx"), 256, {NULL}, TQ_EPROTO, 4},
    {"minus two, no cap", BYTES("\xff\xff\xff\xfexx"), SIZE_MAX, {NULL}, TQ_EPROTO, 4},
    {"long form over the cap", BYTES("\xff\xff\xff\xff\0\0\0\0\0\0\1\1"), 256, {NULL}, TQ_ELIMIT, 12},
    {"long form, 2^40", BYTES("\xff\xff\xff\xff\0\0\1\0\0\0\0\0"), 1u << 26, {NULL}, TQ_ELIMIT, 12},
    {"long form, 2^63 - 1",
     BYTES("\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff"),
     1u << 26,
     {NULL},
     TQ_ELIMIT,
     12},
    {"long form, all ones",
     BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
     1u << 26,
     {NULL},
     TQ_ELIMIT,
     12},
    {"HTTP", BYTES("GET / HTTP/1.1\r\n\r\n"), 256, {NULL}, TQ_ELIMIT, 4},
    {"TLS", BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), 256, {NULL}, TQ_ELIMIT, 4},
    {"a good frame, then a bad one", BYTES("\0\0\0\2ok\xff\0\0\0..."), 256, {"ok"}, TQ_EPROTO, 10},
};

static const size_t case_count = sizeof(cases) / sizeof(cases[0]);

/* Feeds one piece from memory that ends at an unreadable page; counts and checks the frames. */
static int feed(struct tq_frame_reader *r, size_t c, size_t from, size_t to, size_t *frame, size_t *used)
{
    size_t n = to - from;
    uint8_t *piece = guard_copy(cases[c].bytes + from, n);
    struct tq_span in = tq_span(piece, n);
    struct tq_span payload;
    int rv;

    while ((rv = tq_frame_next(r, &in, &payload)) == TQ_FRAME_OK) {
        assert_true(*frame < 4 && cases[c].frames[*frame] != NULL);
        assert_true(tq_span_is(payload, cases[c].frames[*frame]));
        ++*frame;
    }
    if (rv == TQ_FRAME_MORE)
        assert_int_equal(in.len, 0);
    *used += n - in.len;
    guard_free(piece, n);
    return rv;
}

static void check_end(struct tq_frame_reader *r, size_t c, int rv, size_t frames, size_t used)
{
    struct tq_span in = tq_span("\0\0\0\0", 4), payload;

    if (rv != cases[c].end)
        fail_msg("%s: %s", cases[c].what, tq_strerror(rv));
    assert_true(frames == 4 || cases[c].frames[frames] == NULL);
    assert_int_equal(used, cases[c].used ? cases[c].used : cases[c].len);
    if (rv < 0) { /* it stays failed, and holds nothing */
        assert_int_equal(tq_frame_next(r, &in, &payload), rv);
        assert_int_equal(in.len, 4);
        assert_null(r->acc.data);
    } else {
        assert_false(tq_frame_partial(r));
    }
    tq_frame_reader_deinit(r);
}

static void test_whole(void **state)
{
    (void)state;
    for (size_t c = 0; c < case_count; c++) {
        unsigned long before = tq_mem_count();
        struct tq_frame_reader r;
        size_t frames = 0, used = 0;
        int rv;

        tq_frame_reader_init(&r, cases[c].max);
        rv = feed(&r, c, 0, cases[c].len, &frames, &used);
        check_end(&r, c, rv, frames, used);
        assert_int_equal(tq_mem_count(), before); /* nothing is copied, and nothing made for a bad header */
    }
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    for (size_t c = 0; c < case_count; c++) {
        struct tq_frame_reader r;
        size_t frames = 0, used = 0;
        int rv = TQ_FRAME_MORE;

        tq_frame_reader_init(&r, cases[c].max);
        for (size_t i = 0; i < cases[c].len && rv == TQ_FRAME_MORE; i++)
            rv = feed(&r, c, i, i + 1, &frames, &used);
        check_end(&r, c, rv, frames, used);
    }
}

static void test_cut_at_each_length(void **state)
{
    (void)state;
    for (size_t c = 0; c < case_count; c++) {
        for (size_t cut = 0; cut <= cases[c].len; cut++) {
            struct tq_frame_reader r;
            size_t frames = 0, used = 0;
            int rv;

            tq_frame_reader_init(&r, cases[c].max);
            rv = feed(&r, c, 0, cut, &frames, &used);
            if (rv == TQ_FRAME_MORE)
                rv = feed(&r, c, cut, cases[c].len, &frames, &used);
            check_end(&r, c, rv, frames, used);
        }
    }
}

/* Prefixes that end the input: partial says so, and deinit frees what is held. */
static void test_partial(void **state)
{
    static const char bytes[] = "\0\0\0\3abc\xff\xff\xff\xff\0\0\0\0\0\0\0\2hi";
    const size_t len = sizeof(bytes) - 1;

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        struct tq_frame_reader r;
        struct tq_span in = tq_span(bytes, cut), payload;

        tq_frame_reader_init(&r, 100);
        while (tq_frame_next(&r, &in, &payload) == TQ_FRAME_OK)
            ;
        assert_int_equal(tq_frame_partial(&r), cut != 0 && cut != 7 && cut != len);
        tq_frame_reader_deinit(&r);
    }
}

static void test_zero_copy(void **state)
{
    static const uint8_t bytes[] = "\0\0\0\5inner\0\0\0\4next";
    struct tq_frame_reader r;
    struct tq_span in, payload;

    (void)state;
    tq_frame_reader_init(&r, 100);
    tq_mem_fail_after(0, 1); /* any allocation would fail */
    in = tq_span(bytes, 3);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_MORE);
    in = tq_span(bytes + 3, sizeof(bytes) - 4);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_OK);
    assert_ptr_equal(payload.data, bytes + 4); /* although its header came in two pieces */
    assert_int_equal(payload.len, 5);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_OK);
    assert_ptr_equal(payload.data, bytes + 13);
    tq_mem_fail_after(-1, 0);
    tq_frame_reader_deinit(&r);
}

static void test_cap_changes_between_frames(void **state)
{
    struct tq_frame_reader r;
    struct tq_span in = tq_span("\0\0\0\2ab\0\0\0\3abc\0\0\0\3abc", 20), payload;

    (void)state;
    tq_frame_reader_init(&r, 2);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_OK);
    tq_frame_reader_set_max(&r, 3);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_OK);
    assert_true(tq_span_is(payload, "abc"));
    tq_frame_reader_set_max(&r, 2);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_ELIMIT);
    tq_frame_reader_deinit(&r);
}

/* A large announced length costs nothing; memory follows what arrives, at most doubling, and is given
 * back by the call after the delivery. */
static void test_memory_follows_arrival(void **state)
{
    enum { LENGTH = 5 * 1000 * 1000, PIECE = 1000 };
    static uint8_t piece[PIECE];
    struct tq_frame_reader r;
    struct tq_span in, payload;
    size_t sent = 0;
    unsigned long before = tq_mem_count();
    int rv = TQ_FRAME_MORE;

    (void)state;
    tq_frame_reader_init(&r, 64u << 20);
    in = tq_span("\0\x4c\x4b\x40", 4);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_MORE);
    assert_null(r.acc.data);
    while (rv == TQ_FRAME_MORE) {
        memset(piece, (int)(sent / PIECE % 251), PIECE);
        in = tq_span(piece, PIECE);
        rv = tq_frame_next(&r, &in, &payload);
        sent += PIECE;
        assert_true(r.acc.cap <= 2 * sent && r.acc.cap <= LENGTH);
    }
    assert_int_equal(rv, TQ_FRAME_OK);
    assert_int_equal(sent, LENGTH);
    assert_int_equal(payload.len, LENGTH);
    for (size_t i = 0; i < LENGTH; i += 97)
        assert_int_equal(payload.data[i], i / PIECE % 251);
    assert_true(tq_mem_count() - before < 20); /* doubling, not creeping */
    assert_false(tq_frame_partial(&r));
    in = tq_span(NULL, 0);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_MORE);
    assert_null(r.acc.data);
    tq_frame_reader_deinit(&r);
}

static void test_trim(void **state)
{
    struct tq_frame_reader r;
    struct tq_span in = tq_span("\0\0\0\4ab", 6), payload;

    (void)state;
    tq_frame_reader_init(&r, 100);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_MORE);
    tq_frame_reader_trim(&r); /* a frame that is still arriving is kept */
    in = tq_span("cd", 2);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_OK);
    assert_true(tq_span_is(payload, "abcd"));
    assert_non_null(r.acc.data);
    tq_frame_reader_trim(&r);
    assert_null(r.acc.data);
    in = tq_span("\0\0\0\1x", 5);
    assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_FRAME_OK);
    assert_true(tq_span_is(payload, "x"));
    tq_frame_reader_deinit(&r);
}

static void test_without_memory(void **state)
{
    static const char bytes[] = "\0\0\3\xe8"; /* 1,000 */
    uint8_t body[999] = {0};

    (void)state;
    for (long n = 0; n < 3; n++) {
        struct tq_frame_reader r;
        struct tq_span in = tq_span(bytes, 4), payload;
        int rv;

        tq_frame_reader_init(&r, 1000);
        tq_mem_fail_after(n, 1);
        rv = tq_frame_next(&r, &in, &payload);
        for (size_t i = 0; i < sizeof(body) && rv == TQ_FRAME_MORE; i++) {
            in = tq_span(body + i, 1);
            rv = tq_frame_next(&r, &in, &payload);
        }
        tq_mem_fail_after(-1, 0);
        assert_int_equal(rv, TQ_ENOMEM);
        assert_null(r.acc.data);
        in = tq_span("\0\0\0\1x", 5);
        assert_int_equal(tq_frame_next(&r, &in, &payload), TQ_ENOMEM);
        tq_frame_reader_deinit(&r);
    }
}

static void test_header(void **state)
{
    static const struct {
        uint64_t n;
        size_t len;
        const char *bytes;
    } headers[] = {
        {0, 4, "\0\0\0\0"},
        {59, 4, "\0\0\0\73"},
        {0x7fffffff, 4, "\x7f\xff\xff\xff"},
        {0x80000000, 12, "\xff\xff\xff\xff\0\0\0\0\x80\0\0\0"},
        {0x123456789abcdef0, 12, "\xff\xff\xff\xff\x12\x34\x56\x78\x9a\xbc\xde\xf0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        uint8_t out[12];

        assert_int_equal(tq_frame_header(out, headers[i].n), headers[i].len);
        assert_memory_equal(out, headers[i].bytes, headers[i].len);
    }
}

/* Random frames, cut at random, come out as they went in. */
static void test_random_streams(void **state)
{
    enum { FRAMES = 40, MAX = 3000 };
    static uint8_t stream[FRAMES * (MAX + 12)];
    size_t at[FRAMES], length[FRAMES];

    (void)state;
    srand(3);
    for (int round = 0; round < 200; round++) {
        struct tq_frame_reader r;
        size_t len = 0, from = 0, frame = 0;
        size_t longest_piece = 1u << rand() % 14;

        for (size_t f = 0; f < FRAMES; f++) {
            size_t n = rand() % 3 == 0 ? 0 : (size_t)rand() % MAX;

            if (rand() % 4 == 0) { /* the long form of a short length */
                memcpy(stream + len, "\xff\xff\xff\xff\0\0\0\0", 8);
                len += 8;
                tq_store_be32(stream + len, (uint32_t)n);
                len += 4;
            } else {
                len += tq_frame_header(stream + len, n);
            }
            at[f] = len;
            length[f] = n;
            for (size_t i = 0; i < n; i++)
                stream[len++] = (uint8_t)rand();
        }
        tq_frame_reader_init(&r, MAX);
        while (from < len) {
            size_t n = 1 + (size_t)rand() % longest_piece;
            struct tq_span in, payload;

            if (n > len - from)
                n = len - from;
            in = tq_span(stream + from, n);
            from += n;
            while (tq_frame_next(&r, &in, &payload) == TQ_FRAME_OK) {
                assert_true(frame < FRAMES);
                assert_true(tq_span_eq(payload, tq_span(stream + at[frame], length[frame])));
                frame++;
            }
            assert_int_equal(r.err, TQ_OK);
        }
        assert_int_equal(frame, FRAMES);
        tq_frame_reader_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_cut_at_each_length),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_zero_copy),
        cmocka_unit_test(test_cap_changes_between_frames),
        cmocka_unit_test(test_memory_follows_arrival),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_random_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
