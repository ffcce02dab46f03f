/* The log's bytes: headers and records as they are documented, every damaged bit, every length, and the
 * search for records among bytes that are none. */
#include "tests/unit/log_image.h"

#include "master/log/format_impl.h"
#include "master/log/scan.h"
#include "tests/lib/guard.h"

static const uint8_t uuid[LOG_UUID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 16) % below);
}

static void test_crc(void **state)
{
    static const uint8_t zeros[32];
    uint8_t bytes[300];

    (void)state;
    assert_int_equal(log_crc(0, "123456789", 9), 0xe3069283);
    assert_int_equal(log_crc(0, zeros, 32), 0x8a9136aa); /* RFC 3720, B.4 */
    assert_int_equal(log_crc(0, NULL, 0), 0);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i);
    for (unsigned cut = 0; cut <= sizeof(bytes); cut++)
        assert_int_equal(log_crc(log_crc(0, bytes, cut), bytes + cut, sizeof(bytes) - cut),
                         log_crc(0, bytes, sizeof(bytes)));
}

static void test_names(void **state)
{
    static const char *const bad[] = {"",
                                      "0000000000000001",
                                      "0000000000000001.lo",
                                      "0000000000000001.logs",
                                      "000000000000001.log",
                                      "00000000000000001.log",
                                      "000000000000000A.log",
                                      "0000000000000000.log",
                                      "4000000000000001.log",
                                      "ffffffffffffffff.spare",
                                      "0000000000000001-128.cut",
                                      "lock"};
    char name[64];
    uint64_t number = 77;
    bool spare = true;

    (void)state;
    log_segment_name(name, 0x1234abcd);
    assert_string_equal(name, "000000001234abcd.log");
    assert_true(log_name_parse(name, &number, &spare) && number == 0x1234abcd && !spare);
    log_spare_name(name, LOG_NUMBER_MAX);
    assert_string_equal(name, "4000000000000000.spare");
    assert_true(log_name_parse(name, &number, &spare) && number == LOG_NUMBER_MAX && spare);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(log_name_parse(bad[i], &number, &spare));
}

/* As docs/log-format.md has them. */
static void test_layout(void **state)
{
    static const uint8_t head[72] = {
        't',  'a',  's',  'k',  'q',  'l',  'o', 'g',                                /* magic */
        1,    0,    0,    0,    0,    0,    0,   0,                                  /* version, crc */
        1,    2,    3,    4,    5,    6,    7,   8,   9, 10, 11, 12, 13, 14, 15, 16, /* uuid */
        0x22, 0x21, 0,    0,    0,    0,    0,   0,                                  /* number */
        0x33, 0x32, 0x31, 0,    0,    0,    0,   0,                                  /* first index */
        0x44, 0,    0,    0,    0,    0,    0,   0,                                  /* first term */
        0x00, 0x00, 0x10, 0,    0,    0,    0,   0,                                  /* bytes */
        0x66, 0x65, 0x64, 0x63, 0x62, 0x61, 0,   0,                                  /* created_ms */
    };
    static const uint8_t record[48] = {5,    0,    0,   0,   0,  0, 0, 0, /* len, crc */
                                       0x88, 0x77, 0,   0,   0,  0, 0, 0, /* index */
                                       0x99, 0x66, 0,   0,   0,  0, 0, 0, /* synced */
                                       3,    0,    0,   0,   0,  0, 0, 0, /* term */
                                       2,    0,    0,   0,   0,  0, 0, 0, /* type, flags, reserved */
                                       'h',  'e',  'l', 'l', 'o'};
    struct log_segment_header h = {.number = 0x2122,
                                   .first_index = 0x313233,
                                   .first_term = 0x44,
                                   .bytes = 0x100000,
                                   .created_ms = 0x616263646566};
    struct log_record_header r = {.len = 5, .index = 0x7788, .synced = 0x6699, .term = 3, .type = LOG_OPS};
    uint8_t out[LOG_SEGMENT_HEADER_BYTES], want[LOG_SEGMENT_HEADER_BYTES] = {0};
    uint32_t seed = log_seed(uuid, 0x2122);

    (void)state;
    memcpy(h.uuid, uuid, sizeof(uuid));
    log_segment_header_put(out, &h);
    memcpy(want, head, sizeof(head));
    log_store32(want + 12, log_crc(0, want, sizeof(want)));
    assert_memory_equal(out, want, sizeof(want));

    memset(out, 0xee, sizeof(out));
    memcpy(out + LOG_RECORD_HEADER_BYTES, "hello", 5);
    log_record_seal(out, &r, seed);
    memcpy(want, record, sizeof(record));
    assert_int_equal(seed, log_crc(log_crc(0, uuid, 16), "\x22\x21\0\0\0\0\0\0", 8));
    assert_int_equal(r.crc, log_crc(seed, want, 45));
    log_store32(want + 4, r.crc);
    assert_memory_equal(out, want, sizeof(record));
    assert_int_equal(out[48], 0xee);
    assert_int_equal(log_record_bytes(5), 48);
    assert_int_equal(log_record_bytes(0), 40);
}

static void head_is(const uint8_t *in, size_t len, int want)
{
    struct log_segment_header h;
    const char *why = NULL;
    uint8_t *p = guard_copy(in, len);

    assert_int_equal(log_segment_header_get(tq_span(p, len), &h, &why), want);
    assert_true((why == NULL) == (want == TQ_OK));
    guard_free(p, len);
}

static void test_segment_header(void **state)
{
    struct log_segment_header h = {.number = 7, .first_index = 9, .first_term = 1, .bytes = 65536}, got;
    static const struct log_segment_header nonsense[] = {
        {.number = 0, .first_index = 1, .bytes = 65536},
        {.number = LOG_NUMBER_MAX + 1, .first_index = 1, .bytes = 65536},
        {.number = 1, .first_index = 0, .bytes = 65536},
        {.number = 1, .first_index = LOG_NUMBER_MAX + 1, .bytes = 65536},
        {.number = 1, .first_index = 1, .bytes = LOG_SEGMENT_HEADER_BYTES - 1},
        {.number = 1, .first_index = 1, .bytes = LOG_SEGMENT_MAX_BYTES + 1},
    };
    uint8_t out[LOG_SEGMENT_HEADER_BYTES + 8];
    const char *why;

    (void)state;
    memset(out, 0x55, sizeof(out));
    log_segment_header_put(out, &h);
    assert_int_equal(log_segment_header_get(tq_span(out, sizeof(out)), &got, &why), TQ_OK);
    assert_memory_equal(&got, &h, sizeof(h));
    for (size_t len = 0; len < LOG_SEGMENT_HEADER_BYTES; len++)
        head_is(out, len, TQ_EINVAL);
    for (unsigned bit = 0; bit < 8 * LOG_SEGMENT_HEADER_BYTES; bit++) {
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        head_is(out, LOG_SEGMENT_HEADER_BYTES, TQ_EINVAL);
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    log_store32(out + 8, 2); /* what a later release writes, its checksum is good */
    log_store32(out + 12, 0);
    log_store32(out + 12, log_crc(0, out, LOG_SEGMENT_HEADER_BYTES));
    head_is(out, LOG_SEGMENT_HEADER_BYTES, TQ_EUNSUPPORTED);
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        log_segment_header_put(out, &nonsense[i]);
        head_is(out, LOG_SEGMENT_HEADER_BYTES, TQ_EINVAL);
    }
}

static int record_get(const uint8_t *in, size_t len, uint32_t seed)
{
    struct log_record_header h;
    struct tq_span payload;
    const char *why = NULL;
    uint8_t *p = guard_copy(in, len);
    int rv = log_record_get(tq_span(p, len), seed, &h, &payload, &why);

    assert_true((why == NULL) == (rv == TQ_OK));
    guard_free(p, len);
    return rv;
}

static void test_record(void **state)
{
    (void)state;
    for (uint32_t len = 0; len < 41; len++) {
        struct log_record_header h = {.len = len, .index = 12, .synced = 11, .term = 1, .type = LOG_MARK};
        struct log_record_header got;
        uint8_t out[LOG_RECORD_HEADER_BYTES + 48];
        size_t all = (size_t)log_record_bytes(len);
        uint32_t seed = log_seed(uuid, 3);
        struct tq_span payload;
        const char *why;

        memset(out, 'x', sizeof(out));
        log_record_seal(out, &h, seed);
        assert_int_equal(log_record_get(tq_span(out, sizeof(out)), seed, &got, &payload, &why), TQ_OK);
        assert_memory_equal(&got, &h, sizeof(h));
        assert_true(payload.data == out + LOG_RECORD_HEADER_BYTES && payload.len == len);
        assert_int_equal(record_get(out, all, seed), TQ_OK);
        assert_int_equal(record_get(out, all, log_seed(uuid, 2)), TQ_EINVAL);
        for (size_t cut = 0; cut < all; cut++)
            assert_int_equal(record_get(out, cut, seed), TQ_EINVAL);
        for (size_t bit = 0; bit < 8 * all; bit++) {
            out[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(record_get(out, all, seed), TQ_EINVAL);
            out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

/* Good checksums over what nobody writes. */
static void test_nonsense_record(void **state)
{
    static const struct {
        uint64_t index, synced;
    } bad[] = {{0, 0}, {5, 5}, {5, 6}, {5, UINT64_MAX}, {LOG_INDEX_MAX + 1, 4}, {UINT64_MAX, 4}};
    uint8_t bytes[LOG_RECORD_HEADER_BYTES] = {0};

    (void)state;
    bytes[RECORD_TYPE] = LOG_MARK;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        log_store32(bytes + RECORD_CRC, 0);
        log_store64(bytes + RECORD_INDEX, bad[i].index);
        log_store64(bytes + RECORD_SYNCED, bad[i].synced);
        log_store32(bytes + RECORD_CRC, log_crc(9, bytes, sizeof(bytes)));
        assert_int_equal(record_get(bytes, sizeof(bytes), 9), TQ_EINVAL);
    }
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(record_get(bytes, sizeof(bytes), 9), TQ_EINVAL);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(record_get(bytes, sizeof(bytes), 9), TQ_EINVAL);
}

/* ---- the search ---- */

/* The same, the long way. */
static bool slow_next(struct tq_span s, uint32_t seed, uint64_t from, uint64_t after, uint64_t *ret_offset)
{
    for (uint64_t at = from; at < s.len; at += 8) {
        struct log_record_header h;
        struct tq_span payload;
        const char *why;

        if (log_record_get(tq_span(s.data + at, s.len - at), seed, &h, &payload, &why) == TQ_OK &&
            h.index > after) {
            *ret_offset = at;
            return true;
        }
    }
    return false;
}

static void compare_searches(struct tq_span s, uint32_t seed, uint64_t begin, uint64_t after)
{
    struct log_scan scan;
    uint64_t from = begin;

    log_scan_init(&scan, s, seed, begin);
    for (;;) {
        uint64_t want = 0, got = 0;
        struct log_record_header h;
        bool there = slow_next(s, seed, from, after, &want);

        assert_int_equal(log_scan_next(&scan, from, after, &got, &h), there);
        if (!there)
            break;
        assert_int_equal(got, want);
        from = got + 8 * (1 + rng(3));
    }
    log_scan_deinit(&scan);
}

/* Good records, headers that look like some, noise and zeros, over and over. */
static void test_search(void **state)
{
    uint32_t seed = log_seed(uuid, 5);

    (void)state;
    rng_state = 88172645463325252u;
    for (unsigned round = 0; round < 60; round++) {
        size_t len = 3000 + rng(9000), at = 0;
        uint8_t *bytes = malloc(len);

        assert_non_null(bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = round % 3 == 0 ? 0 : (uint8_t)rng(256);
        while (at + 400 < len) {
            struct log_record_header h = {
                .len = rng(300), .index = 100 + rng(50), .synced = rng(100), .term = 1, .type = LOG_OPS};

            log_record_seal(bytes + at, &h, rng(4) == 0 ? seed + 1 : seed);
            if (rng(4) == 0)
                bytes[at + rng(40 + h.len)] ^= 0x10;
            at += log_record_bytes(h.len) + 8 * rng(8);
        }
        uint8_t *p = guard_copy(bytes, len);

        compare_searches(tq_span(p, len), seed, 8 * rng(60), 90 + rng(60));
        guard_free(p, len);
        free(bytes);
    }
}

/* A header at every place that there is, each of which claims a length of half of all. */
static void test_search_is_not_slow(void **state)
{
    size_t len = 2u << 20;
    uint8_t *bytes = calloc(1, len);
    struct log_record_header h = {.len = 40, .index = 9, .synced = 8, .term = 1, .type = LOG_OPS};
    struct log_scan scan;
    uint64_t found = 0;

    (void)state;
    assert_non_null(bytes);
    for (size_t at = 0; at + 40 <= len; at += 40) {
        log_store32(bytes + at, at < len / 2 ? (uint32_t)(len / 2 - 40) : 0);
        log_store64(bytes + at + RECORD_INDEX, 1000);
    }
    log_record_seal(bytes + len - 80, &h, 1);
    log_scan_init(&scan, tq_span(bytes, len), 1, 0);
    assert_int_equal(log_scan_next(&scan, 0, 8, &found, &h), 1);
    assert_int_equal(found, len - 80);
    assert_int_equal(log_scan_next(&scan, 0, 9, &found, &h), 0);
    log_scan_deinit(&scan);
    free(bytes);
}

static void test_search_without_memory(void **state)
{
    uint8_t bytes[200] = {0};
    struct log_record_header h = {.len = 3, .index = 9, .synced = 8, .term = 1, .type = LOG_OPS};
    struct log_scan_rest rest;
    struct log_scan scan;
    uint64_t found;

    (void)state;
    log_record_seal(bytes + 8, &h, 1);
    h.index = 7;
    h.synced = 2;
    log_record_seal(bytes + 104, &h, 1);
    log_scan_init(&scan, tq_span(bytes, sizeof(bytes)), 1, 0);
    tq_mem_fail_after(0, 1);
    assert_int_equal(log_scan_next(&scan, 0, 1, &found, &h), TQ_ENOMEM);
    tq_mem_fail_after(0, 1);
    assert_int_equal(log_scan_rest(&scan, 1, &rest), TQ_ENOMEM);
    tq_mem_fail_after(-1, 0);
    assert_int_equal(log_scan_rest(&scan, 1, &rest), TQ_OK);
    assert_true(rest.records == 2 && rest.last_index == 9 && rest.end == 152 && rest.synced == 8 &&
                rest.synced_index == 9 && rest.synced_offset == 8);
    assert_int_equal(log_scan_rest(&scan, 9, &rest), TQ_OK);
    assert_true(rest.records == 0 && rest.end == 0 && rest.synced == 0);
    log_scan_deinit(&scan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_segment_header),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_nonsense_record),
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_search_is_not_slow),
        cmocka_unit_test(test_search_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
