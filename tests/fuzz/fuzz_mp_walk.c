/* msgpack. The walk against a plain one; the readers at many places of the input, walked or not, which must
 * stay within it; and what was walked is written anew, which must mean the same and not grow. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "proto/native/mp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PLACES_MAX 64
#define CUT        SIZE_MAX

static uint64_t number(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* The length of the value at the start of the input, the slow and plain way, with the specification's table
 * of first bytes; CUT if it is refused. */
static size_t plain(const uint8_t *p, size_t n, unsigned depth)
{
    static const uint8_t field_bytes[32] = {
        0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, /* c0: nil to uint 64 */
        1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4, /* d0: int 8 to map 32 */
    };
    size_t at = 1;
    uint64_t bytes = 0, values = 0, field;
    uint8_t first;

    if (n == 0)
        return CUT;
    first = p[0];
    if (first >= 0xa0 && first <= 0xbf)
        bytes = first - 0xa0u;
    if (first >= 0x90 && first <= 0x9f)
        values = first - 0x90u;
    if (first >= 0x80 && first <= 0x8f)
        values = 2 * (first - 0x80u);
    if (first >= 0xd4 && first <= 0xd8)
        bytes = 1 + (1u << (first - 0xd4));
    if (first == 0xc1)
        return CUT;
    if (first >= 0xc0 && first <= 0xdf) {
        if (n - 1 < field_bytes[first - 0xc0])
            return CUT;
        field = number(p + 1, field_bytes[first - 0xc0]);
        at += field_bytes[first - 0xc0];
        if ((first >= 0xc4 && first <= 0xc6) || (first >= 0xd9 && first <= 0xdb))
            bytes = field;
        if (first >= 0xc7 && first <= 0xc9)
            bytes = field + 1;
        if (first == 0xdc || first == 0xdd)
            values = field;
        if (first == 0xde || first == 0xdf)
            values = 2 * field;
    }
    if (bytes > n - at)
        return CUT;
    at += (size_t)bytes;
    if ((first >= 0x80 && first <= 0x9f) || (first >= 0xdc && first <= 0xdf)) {
        if (depth == TQ_MP_DEPTH_MAX)
            return CUT;
        for (uint64_t i = 0; i < values; i++) {
            size_t len = plain(p + at, n - at, depth + 1);

            if (len == CUT)
                return CUT;
            at += len;
        }
    }
    return at;
}

static void check_moved(bool read, const struct tq_mp *before, const struct tq_mp *after)
{
    TQ_ASSERT(after->end == before->end);
    if (read)
        TQ_ASSERT(after->at > before->at && after->at <= before->end);
    else
        TQ_ASSERT(after->at == before->at);
}

/* Every reader at one place. `whole`: how long the value there is, or CUT. */
static void read_all(const struct tq_mp *here, size_t whole)
{
    struct tq_span span = tq_span(NULL, 0);
    enum tq_mp_type type = tq_mp_peek(here);
    struct tq_mp c;
    uint64_t u64;
    int64_t i64;
    uint32_t n;
    double real;
    int8_t ext;
    bool truth, read, container = type == TQ_MP_ARRAY || type == TQ_MP_MAP;
    unsigned readers = 0;

#define TRY(call, wanted, also)                                                                              \
    c = *here;                                                                                               \
    read = (call);                                                                                           \
    check_moved(read, here, &c);                                                                             \
    TQ_ASSERT(!read || type == (wanted) || type == (also));                                                  \
    TQ_ASSERT(!read || container || c.at == here->at + whole);                                               \
    readers += read
    TRY(tq_mp_nil(&c), TQ_MP_NIL, TQ_MP_NIL);
    TRY(tq_mp_bool(&c, &truth), TQ_MP_BOOL, TQ_MP_BOOL);
    TRY(tq_mp_u32(&c, &n), TQ_MP_UINT, TQ_MP_UINT);
    TRY(tq_mp_u64(&c, &u64), TQ_MP_UINT, TQ_MP_UINT);
    TRY(tq_mp_i64(&c, &i64), TQ_MP_UINT, TQ_MP_INT);
    TRY(tq_mp_float(&c, &real), TQ_MP_FLOAT, TQ_MP_FLOAT);
    TRY(tq_mp_str(&c, &span), TQ_MP_STR, TQ_MP_STR);
    TRY(tq_mp_bin(&c, &span), TQ_MP_BIN, TQ_MP_BIN);
    TRY(tq_mp_ext(&c, &ext, &span), TQ_MP_EXT, TQ_MP_EXT);
    TRY(tq_mp_array(&c, &n), TQ_MP_ARRAY, TQ_MP_ARRAY);
    TQ_ASSERT(!read || n <= tq_mp_left(&c));
    TRY(tq_mp_map(&c, &n), TQ_MP_MAP, TQ_MP_MAP);
    TQ_ASSERT(!read || (uint64_t)n * 2 <= tq_mp_left(&c));
#undef TRY
    TQ_ASSERT(span.data == NULL || (span.data >= here->at && span.len <= (size_t)(here->end - span.data)));
    TQ_ASSERT(whole == CUT || readers > 0);
    c = *here;
    TQ_ASSERT(tq_mp_raw(&c, &span) == (whole != CUT));
    TQ_ASSERT(whole == CUT || (span.data == here->at && span.len == whole && c.at == here->at + whole));
    c = *here;
    TQ_ASSERT(tq_mp_skip(&c) == (whole != CUT));
    TQ_ASSERT(c.at == here->at + (whole != CUT ? whole : 0));
}

/* One header or scalar; how many values it brings. */
static uint64_t copy_one(struct tq_mp *c, struct tq_mp_out *o)
{
    struct tq_span span;
    uint64_t u64;
    int64_t i64;
    uint32_t n;
    double real;
    int8_t ext;
    bool truth;

    if (tq_mp_nil(c)) {
        tq_mp_put_nil(o);
    } else if (tq_mp_bool(c, &truth)) {
        tq_mp_put_bool(o, truth);
    } else if (tq_mp_u64(c, &u64)) {
        tq_mp_put_u64(o, u64);
    } else if (tq_mp_i64(c, &i64)) {
        tq_mp_put_i64(o, i64);
    } else if (tq_mp_peek(c) == TQ_MP_FLOAT && *c->at == 0xca) { /* it would grow */
        TQ_ASSERT(tq_mp_raw(c, &span));
        tq_mp_put_raw(o, span);
    } else if (tq_mp_float(c, &real)) {
        tq_mp_put_float(o, real);
    } else if (tq_mp_str(c, &span)) {
        tq_mp_put_str(o, span);
    } else if (tq_mp_bin(c, &span)) {
        tq_mp_put_bin(o, span);
    } else if (tq_mp_ext(c, &ext, &span)) {
        tq_mp_put_ext(o, ext, span);
    } else if (tq_mp_array(c, &n)) {
        tq_mp_put_array(o, n);
        return n;
    } else {
        TQ_ASSERT(tq_mp_map(c, &n));
        tq_mp_put_map(o, n);
        return (uint64_t)n * 2;
    }
    return 0;
}

static int copy(struct tq_span walked, struct tq_buf *out)
{
    struct tq_mp c = tq_mp_of(walked);
    struct tq_mp_out o = tq_mp_out(out);
    uint64_t reads = 0;

    for (uint64_t owed = 1; owed > 0; owed--) {
        owed += copy_one(&c, &o);
        TQ_ASSERT(++reads <= walked.len); /* no value without a byte */
    }
    TQ_ASSERT(tq_mp_peek(&c) == TQ_MP_END && tq_mp_left(&c) == 0);
    return o.err;
}

static void check_copies(struct tq_span walked)
{
    struct tq_buf first, second, tight;
    const char *why;

    tq_buf_init(&first, walked.len);
    TQ_ASSERT(copy(walked, &first) == TQ_OK); /* the shortest encoding is no longer */
    TQ_ASSERT(tq_mp_walk_all(tq_buf_span(&first), &why) == TQ_OK);
    tq_buf_init(&second, first.len);
    TQ_ASSERT(copy(tq_buf_span(&first), &second) == TQ_OK);
    TQ_ASSERT(tq_span_eq(tq_buf_span(&first), tq_buf_span(&second)));
    tq_buf_init(&tight, first.len - 1);
    TQ_ASSERT(copy(walked, &tight) == TQ_ELIMIT && tight.len < first.len);
    TQ_ASSERT(tight.len == 0 || memcmp(tight.data, first.data, tight.len) == 0);
    tq_buf_deinit(&tight);
    tq_buf_deinit(&second);
    tq_buf_deinit(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    struct tq_span in;
    size_t whole, len = 0;
    const char *why = NULL;
    int rv;

    TQ_ASSERT(bytes != NULL);
    if (size > 0)
        memcpy(bytes, data, size);
    in = tq_span(bytes, size);
    whole = plain(bytes, size, 0);
    rv = tq_mp_walk(in, &len, &why);
    TQ_ASSERT(rv == (whole == CUT ? TQ_EPROTO : TQ_OK));
    TQ_ASSERT(rv == TQ_OK ? len == whole && why == NULL : why != NULL && len == 0);
    TQ_ASSERT(tq_mp_walk_all(in, &why) == (whole == size ? TQ_OK : TQ_EPROTO));
    for (size_t i = 0; i <= size && i < PLACES_MAX; i++) {
        size_t at = size < PLACES_MAX ? i : i * (size / PLACES_MAX) + i % 3;
        struct tq_mp c = {.at = bytes + at, .end = bytes + size};

        if (at <= size)
            read_all(&c, plain(bytes + at, size - at, 0));
    }
    if (rv == TQ_OK)
        check_copies(tq_span(bytes, whole));
    free(bytes);
    return 0;
}
