/* msgpack against msgpack-c, the reference in C: the same values are the same bytes, each reads what the
 * other wrote, and the walk accepts what msgpack-c accepts. MP_SEED plays one seed alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <msgpack.h>

#include "common/err.h"
#include "proto/native/mp.h"
#include "tests/lib/guard.h"

#define COUNT(a)  (sizeof(a) / sizeof((a)[0]))
#define BUF_MAX   (16u << 20)
#define BIG_BYTES 65537

static uint64_t running_seed;
static uint64_t rng_state;

static void rng_seed(uint64_t seed)
{
    running_seed = seed;
    rng_state = seed * 0xd1342543de82ef95u;
}

static uint64_t rng(void)
{
    uint64_t x = rng_state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t below(uint64_t n)
{
    return rng() % n;
}

#define CHECK(expr)                                                                                          \
    do {                                                                                                     \
        if (!(expr))                                                                                         \
            fail_msg("seed %llu: %s", (unsigned long long)running_seed, #expr);                              \
    } while (0)

static void each_seed(uint64_t count, void (*play)(void))
{
    const char *one = getenv("MP_SEED");

    for (uint64_t seed = 0; seed < count; seed++) {
        if (one != NULL && strtoull(one, NULL, 10) != seed)
            continue;
        rng_seed(seed);
        play();
    }
}

/* ---- values made from a seed ---- */

/* Writes into both. */
struct both {
    struct tq_mp_out ours;
    msgpack_packer theirs;
};

static uint8_t payload[BIG_BYTES];

static uint64_t edge_integer(void)
{
    uint64_t v = (uint64_t)1 << below(64);

    return v - 1 + below(3) + (below(4) == 0 ? rng() : 0);
}

static uint32_t edge_size(void)
{
    static const uint32_t edges[] = {15, 16, 31, 32, 255, 256};

    if (below(300) == 0)
        return 65535 + (uint32_t)below(3);
    return below(6) == 0 ? edges[below(COUNT(edges))] : (uint32_t)below(20);
}

static void make_scalar(struct both *b)
{
    uint64_t v = edge_integer();
    double real;
    bool truth = v & 1;

    switch (below(5)) {
    case 0:
        tq_mp_put_nil(&b->ours);
        msgpack_pack_nil(&b->theirs);
        break;
    case 1:
        tq_mp_put_bool(&b->ours, truth);
        truth ? msgpack_pack_true(&b->theirs) : msgpack_pack_false(&b->theirs);
        break;
    case 2:
        tq_mp_put_u64(&b->ours, v);
        msgpack_pack_uint64(&b->theirs, v);
        break;
    case 3:
        tq_mp_put_i64(&b->ours, (int64_t)v);
        msgpack_pack_int64(&b->theirs, (int64_t)v);
        break;
    default:
        v = below(3) == 0 ? 0x7ff0000000000000u | below(2) << 63 | below(2) << 51 : rng();
        memcpy(&real, &v, sizeof(real));
        tq_mp_put_float(&b->ours, real);
        msgpack_pack_double(&b->theirs, real);
        break;
    }
}

static void make_sized(struct both *b)
{
    uint32_t n = edge_size();
    const char *bytes = (const char *)payload + below(BIG_BYTES - n + 1);
    int8_t type = (int8_t)(below(256) - 128);

    switch (below(3)) {
    case 0:
        tq_mp_put_str(&b->ours, tq_span(bytes, n));
        msgpack_pack_str(&b->theirs, n);
        msgpack_pack_str_body(&b->theirs, bytes, n);
        break;
    case 1:
        tq_mp_put_bin(&b->ours, tq_span(bytes, n));
        msgpack_pack_bin(&b->theirs, n);
        msgpack_pack_bin_body(&b->theirs, bytes, n);
        break;
    default:
        tq_mp_put_ext(&b->ours, type, tq_span(bytes, n));
        msgpack_pack_ext(&b->theirs, n, type);
        msgpack_pack_ext_body(&b->theirs, bytes, n);
        break;
    }
}

static void make(struct both *b, unsigned depth_left)
{
    uint64_t kind = below(4);
    uint32_t n;

    if (depth_left == 0 || kind < 2) {
        kind == 0 ? make_sized(b) : make_scalar(b);
        return;
    }
    n = depth_left == 1 ? edge_size() : (uint32_t)below(5);
    if (kind == 2) {
        tq_mp_put_array(&b->ours, n);
        msgpack_pack_array(&b->theirs, n);
    } else {
        tq_mp_put_map(&b->ours, n);
        msgpack_pack_map(&b->theirs, n);
        n *= 2;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (n > 1000)
            make_scalar(b);
        else
            make(b, depth_left - 1);
    }
}

/* ---- the cursor beside msgpack-c's object ---- */

static bool bytes_are(struct tq_span ours, const char *theirs, uint32_t n)
{
    return ours.len == n && (n == 0 || memcmp(ours.data, theirs, n) == 0);
}

static void same(struct tq_mp *c, const msgpack_object *o)
{
    struct tq_span span = tq_span(NULL, 0);
    enum tq_mp_type type = tq_mp_peek(c);
    uint64_t u = 0;
    int64_t i = 0;
    double real = 0;
    uint32_t n = 0;
    int8_t ext = 0;
    bool truth = false;

    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        CHECK(type == TQ_MP_NIL && tq_mp_nil(c));
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        CHECK(type == TQ_MP_BOOL && tq_mp_bool(c, &truth) && truth == o->via.boolean);
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        CHECK(type == TQ_MP_UINT && tq_mp_u64(c, &u) && u == o->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        CHECK(type == TQ_MP_INT && tq_mp_i64(c, &i) && i == o->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        CHECK(type == TQ_MP_FLOAT && tq_mp_float(c, &real) && memcmp(&real, &o->via.f64, sizeof(real)) == 0);
        break;
    case MSGPACK_OBJECT_STR:
        CHECK(type == TQ_MP_STR && tq_mp_str(c, &span) && bytes_are(span, o->via.str.ptr, o->via.str.size));
        break;
    case MSGPACK_OBJECT_BIN:
        CHECK(type == TQ_MP_BIN && tq_mp_bin(c, &span) && bytes_are(span, o->via.bin.ptr, o->via.bin.size));
        break;
    case MSGPACK_OBJECT_EXT:
        CHECK(type == TQ_MP_EXT && tq_mp_ext(c, &ext, &span) && ext == o->via.ext.type &&
              bytes_are(span, o->via.ext.ptr, o->via.ext.size));
        break;
    case MSGPACK_OBJECT_ARRAY:
        CHECK(type == TQ_MP_ARRAY && tq_mp_array(c, &n) && n == o->via.array.size);
        for (uint32_t k = 0; k < n; k++)
            same(c, &o->via.array.ptr[k]);
        break;
    case MSGPACK_OBJECT_MAP:
        CHECK(type == TQ_MP_MAP && tq_mp_map(c, &n) && n == o->via.map.size);
        for (uint32_t k = 0; k < n; k++) {
            same(c, &o->via.map.ptr[k].key);
            same(c, &o->via.map.ptr[k].val);
        }
        break;
    default:
        fail_msg("seed %llu: a type that msgpack has not", (unsigned long long)running_seed);
    }
}

/* Both read the bytes and see the same; what msgpack-c says is returned. */
static msgpack_unpack_return read_both(struct tq_span in)
{
    uint8_t *guarded = guard_copy(in.data, in.len);
    struct tq_mp c = tq_mp_of(tq_span(guarded, in.len));
    msgpack_unpacked result;
    msgpack_unpack_return theirs;
    const char *why = "";
    size_t off = 0, len = 0;
    int ours = tq_mp_walk(tq_span(guarded, in.len), &len, &why);

    /* msgpack-c has no opinion: it counts no empty container, and its own stack may be shorter. */
    bool silent = ours != TQ_OK && strcmp(why, "nested too deep") == 0;

    msgpack_unpacked_init(&result);
    theirs = msgpack_unpack_next(&result, (const char *)in.data, in.len, &off);
    if (!silent && (ours == TQ_OK) != (theirs == MSGPACK_UNPACK_SUCCESS))
        fail_msg("seed %llu: walk %d (%s), msgpack-c %d", (unsigned long long)running_seed, ours, why,
                 (int)theirs);
    if (ours == TQ_OK) {
        struct tq_mp skipping = c;

        CHECK(len == off);
        same(&c, &result.data);
        CHECK(c.at == guarded + len);
        CHECK(tq_mp_skip(&skipping) && skipping.at == c.at);
    }
    msgpack_unpacked_destroy(&result);
    guard_free(guarded, in.len);
    return theirs;
}

static void play_value(void)
{
    struct tq_buf buf = TQ_BUF_NULL(BUF_MAX);
    msgpack_sbuffer packed;
    struct both b = {.ours = tq_mp_out(&buf)};
    const char *why;
    size_t step;

    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&b.theirs, &packed, msgpack_sbuffer_write);
    make(&b, (unsigned)below(5));
    CHECK(b.ours.err == TQ_OK);
    CHECK(tq_span_eq(tq_buf_span(&buf), tq_span(packed.data, packed.size)));
    CHECK(tq_mp_walk_all(tq_buf_span(&buf), &why) == TQ_OK);
    CHECK(read_both(tq_buf_span(&buf)) == MSGPACK_UNPACK_SUCCESS);
    /* Every prefix; of a large value, a few hundred. */
    step = 1 + buf.len / 400;
    for (size_t n = 0; n < buf.len; n += step)
        CHECK(tq_mp_walk_all(tq_span(buf.data, n), &why) == TQ_EPROTO &&
              (strcmp(why, "truncated") == 0 || strcmp(why, "a count beyond the bytes left") == 0));
    msgpack_sbuffer_destroy(&packed);
    tq_buf_deinit(&buf);
}

static void test_same_bytes_same_values(void **state)
{
    (void)state;
    each_seed(4000, play_value);
}

/* ---- encodings that neither would write ---- */

static void put_big_endian(struct tq_buf *buf, uint8_t first, uint64_t v, unsigned bytes)
{
    uint8_t head[9] = {first};

    for (unsigned i = 0; i < bytes; i++)
        head[1 + i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
    assert_int_equal(tq_buf_append(buf, head, 1 + bytes), TQ_OK);
}

static void make_longer(struct tq_buf *buf, unsigned depth_left)
{
    static const struct {
        uint8_t first;
        uint8_t length_bytes;
        uint8_t more;
        uint8_t factor; /* 0: bytes follow, else values */
    } forms[] = {{0xd9, 1, 0, 0}, {0xda, 2, 0, 0}, {0xdb, 4, 0, 0}, {0xc4, 1, 0, 0}, {0xc5, 2, 0, 0},
                 {0xc6, 4, 0, 0}, {0xc7, 1, 1, 0}, {0xc8, 2, 1, 0}, {0xc9, 4, 1, 0}, {0xdc, 2, 0, 1},
                 {0xdd, 4, 0, 1}, {0xde, 2, 0, 2}, {0xdf, 4, 0, 2}};
    size_t form = below(COUNT(forms) + 4);
    uint64_t n = below(6);

    if (form >= COUNT(forms) || (depth_left == 0 && forms[form].factor > 0)) {
        /* uint and int of 8 to 64 bits, float 32 and 64 */
        uint8_t first = (uint8_t)(0xca + below(10));

        put_big_endian(buf, first, below(3) == 0 ? below(200) - 100 : rng(),
                       first < 0xcc ? 4u << (first - 0xca) : 1u << (first & 3));
        return;
    }
    put_big_endian(buf, forms[form].first, n, forms[form].length_bytes);
    if (forms[form].factor == 0)
        assert_int_equal(tq_buf_append(buf, payload + below(100), n + forms[form].more), TQ_OK);
    for (uint64_t i = 0; i < n * forms[form].factor; i++)
        make_longer(buf, depth_left - 1);
}

/* Signalling NaNs of 32 bits become quiet when they are widened, as msgpack-c's do; so both say the same. */
static void play_longer(void)
{
    struct tq_buf buf = TQ_BUF_NULL(BUF_MAX);

    make_longer(&buf, (unsigned)below(5));
    CHECK(read_both(tq_buf_span(&buf)) == MSGPACK_UNPACK_SUCCESS);
    tq_buf_deinit(&buf);
}

static void test_longer_encodings(void **state)
{
    (void)state;
    each_seed(20000, play_longer);
}

/* ---- any bytes ---- */

/* msgpack-c allocates what a header declares, so it is only asked about small counts. */
static void tame(uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t zeros = bytes[i] == 0xdd || bytes[i] == 0xdf   ? 3
                       : bytes[i] == 0xdc || bytes[i] == 0xde ? 1
                                                              : 0;

        for (size_t k = 1; k <= zeros && i + k < n; k++)
            bytes[i + k] = 0;
    }
}

static size_t accepted, refused;

static void play_bytes(void)
{
    uint8_t bytes[300];
    size_t n = 1 + below(below(4) == 0 ? sizeof(bytes) : 40);
    uint64_t range = below(3);

    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)rng();
        if (range > 0 && below(8) != 0) /* small containers and strings, long enough to get somewhere */
            bytes[i] = (uint8_t)(range == 1 ? 0x80 + bytes[i] % 0x80 : 0x90 + bytes[i] % 4);
    }
    tame(bytes, n);
    if (read_both(tq_span(bytes, n)) == MSGPACK_UNPACK_SUCCESS)
        accepted++;
    else
        refused++;
}

static void play_mutant(void)
{
    struct tq_buf buf = TQ_BUF_NULL(BUF_MAX);
    size_t n;

    make_longer(&buf, 3);
    n = buf.len;
    for (uint64_t flips = 1 + below(3); flips > 0; flips--)
        buf.data[below(n)] ^= (uint8_t)(1u << below(8));
    if (below(4) == 0)
        n -= below(n);
    tame(buf.data, n);
    if (read_both(tq_span(buf.data, n)) == MSGPACK_UNPACK_SUCCESS)
        accepted++;
    else
        refused++;
    tq_buf_deinit(&buf);
}

static void test_any_bytes(void **state)
{
    (void)state;
    accepted = refused = 0;
    each_seed(30000, play_bytes);
    each_seed(15000, play_mutant);
    if (getenv("MP_SEED") == NULL) { /* both happen often, or nothing is tested */
        assert_true(accepted > 5000);
        assert_true(refused > 5000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_same_values),
        cmocka_unit_test(test_longer_encodings),
        cmocka_unit_test(test_any_bytes),
    };

    rng_seed(1);
    for (size_t i = 0; i < BIG_BYTES; i++)
        payload[i] = (uint8_t)rng();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
