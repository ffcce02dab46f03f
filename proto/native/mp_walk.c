#include "common/err.h"
#include "proto/native/mp.h"

/* What tq_mp_after says of first bytes behind which a length or a count stands. */
enum {
    NEVER = TQ_MP_AFTER_MAX + 1,
    LEN_8,
    LEN_16,
    LEN_32,
    EXT_8, /* a length, and then the type */
    EXT_16,
    EXT_32,
    FEW_VALUES, /* fixarray */
    FEW_PAIRS,  /* fixmap */
    VALUES_16,
    VALUES_32,
    PAIRS_16,
    PAIRS_32,
};

/* clang-format off */
const uint8_t tq_mp_after[256] = {
    /* 00..7f positive fixint, e0..ff negative fixint: nothing */
    [0x80] = FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,
             FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,  FEW_PAIRS,
    [0x90] = FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES,
             FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES, FEW_VALUES,
    [0xa0] = 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, /* fixstr */
             16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    [0xc0] = 0, NEVER, 0, 0,                  /* nil, -, false, true */
    [0xc4] = LEN_8, LEN_16, LEN_32,           /* bin */
    [0xc7] = EXT_8, EXT_16, EXT_32,
    [0xca] = 4, 8,                            /* float */
    [0xcc] = 1, 2, 4, 8,                      /* uint */
    [0xd0] = 1, 2, 4, 8,                      /* int */
    [0xd4] = 2, 3, 5, 9, 17,                  /* fixext: type and 1 to 16 */
    [0xd9] = LEN_8, LEN_16, LEN_32,           /* str */
    [0xdc] = VALUES_16, VALUES_32, PAIRS_16, PAIRS_32,
};
/* clang-format on */

static const char truncated[] = "truncated";

/* Where the walk stands. The values that must still come, in all open containers together, need a byte each;
 * spare_bytes are left beyond these, and everything that is longer than a byte is paid from them. So nothing
 * is accepted that the input cannot hold, and there is always a byte to read while a value is owed. */
struct walk {
    const uint8_t *at;
    uint64_t owed_count;
    uint64_t spare_bytes;
    /* Of each container: what is owed when its last value has come. Those that are complete are taken off
     * only when the next one is opened, so that a scalar costs nothing here. */
    uint64_t owed_after[TQ_MP_DEPTH_MAX];
    unsigned depth;
};

static uint64_t load(const uint8_t *p, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return p[0];
    case 2:
        return (uint64_t)p[0] << 8 | p[1];
    default:
        return tq_load_be32(p);
    }
}

/* A header whose length field has that many bytes, and `more` bytes besides. */
static inline bool walk_sized(struct walk *w, unsigned length_bytes, unsigned more)
{
    uint64_t n;

    if (w->spare_bytes < length_bytes)
        return false;
    n = length_bytes + more + load(w->at + 1, length_bytes);
    if (w->spare_bytes < n)
        return false;
    w->spare_bytes -= n;
    w->at += 1 + n;
    return true;
}

static inline const char *walk_open(struct walk *w, unsigned count_bytes, unsigned factor)
{
    uint64_t n;

    if (w->spare_bytes < count_bytes)
        return truncated;
    n = factor * (count_bytes == 0 ? *w->at & 0xfu : load(w->at + 1, count_bytes));
    if (w->spare_bytes - count_bytes < n)
        return "a count beyond the bytes left";
    while (w->depth > 0 && w->owed_count <= w->owed_after[w->depth - 1])
        w->depth--;
    if (w->depth == TQ_MP_DEPTH_MAX)
        return "nested too deep";
    w->owed_after[w->depth++] = w->owed_count - 1;
    w->owed_count += n;
    w->spare_bytes -= count_bytes + n;
    w->at += 1 + count_bytes;
    return NULL;
}

/* The value that begins with a byte of that kind, or the header if it is a container; NULL or why not. */
static inline const char *walk_header(struct walk *w, uint8_t kind)
{
    switch (kind) {
    case LEN_8:
        return walk_sized(w, 1, 0) ? NULL : truncated;
    case LEN_16:
        return walk_sized(w, 2, 0) ? NULL : truncated;
    case LEN_32:
        return walk_sized(w, 4, 0) ? NULL : truncated;
    case EXT_8:
        return walk_sized(w, 1, 1) ? NULL : truncated;
    case EXT_16:
        return walk_sized(w, 2, 1) ? NULL : truncated;
    case EXT_32:
        return walk_sized(w, 4, 1) ? NULL : truncated;
    case FEW_VALUES:
        return walk_open(w, 0, 1);
    case VALUES_16:
        return walk_open(w, 2, 1);
    case VALUES_32:
        return walk_open(w, 4, 1);
    case FEW_PAIRS:
        return walk_open(w, 0, 2);
    case PAIRS_16:
        return walk_open(w, 2, 2);
    case PAIRS_32:
        return walk_open(w, 4, 2);
    default:
        return "the byte 0xc1";
    }
}

/* NULL, and *ret_end is behind the value; or why not. */
static const char *walk(const uint8_t *at, size_t left, const uint8_t **ret_end)
{
    struct walk w;
    const char *why;

    if (left == 0)
        return truncated;
    w.at = at;
    w.owed_count = 1;
    w.spare_bytes = left - 1;
    w.depth = 0;
    do {
        uint8_t first = *w.at;
        uint8_t kind;

        /* The table alone would do. But the next byte's place waits for the table; branches are guessed. */
        if (first <= 0x7f) {
            w.at++;
            continue;
        }
        kind = (first & 0xe0) == 0xa0 ? first & 0x1f : tq_mp_after[first];
        if (kind <= TQ_MP_AFTER_MAX) {
            if (w.spare_bytes < kind)
                return truncated;
            w.spare_bytes -= kind;
            w.at += 1 + kind;
        } else {
            why = walk_header(&w, kind);
            if (why != NULL)
                return why;
        }
    } while (--w.owed_count > 0);
    *ret_end = w.at;
    return NULL;
}

int tq_mp_walk(struct tq_span in, size_t *ret_len, const char **ret_why)
{
    const uint8_t *end;
    const char *why = walk(in.data, in.len, &end);

    if (why != NULL) {
        *ret_why = why;
        return TQ_EPROTO;
    }
    *ret_len = (size_t)(end - in.data);
    return TQ_OK;
}

int tq_mp_walk_all(struct tq_span in, const char **ret_why)
{
    size_t len;
    int rv = tq_mp_walk(in, &len, ret_why);

    if (rv == TQ_OK && len != in.len) {
        *ret_why = "bytes behind the value";
        return TQ_EPROTO;
    }
    return rv;
}

const uint8_t *tq_mp_get_end(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *ret;

    return walk(at, (size_t)(end - at), &ret) == NULL ? ret : NULL;
}
