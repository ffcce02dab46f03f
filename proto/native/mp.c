#include "proto/native/mp.h"

#define REPEAT_8(x)  x, x, x, x, x, x, x, x
#define REPEAT_16(x) REPEAT_8(x), REPEAT_8(x)
#define REPEAT_32(x) REPEAT_16(x), REPEAT_16(x)

/* clang-format off */
const uint8_t tq_mp_types[256] = {
    [0x00] = REPEAT_32(TQ_MP_UINT), REPEAT_32(TQ_MP_UINT), REPEAT_32(TQ_MP_UINT), REPEAT_32(TQ_MP_UINT),
    [0x80] = REPEAT_16(TQ_MP_MAP),
    [0x90] = REPEAT_16(TQ_MP_ARRAY),
    [0xa0] = REPEAT_32(TQ_MP_STR),
    [0xc0] = TQ_MP_NIL, TQ_MP_END, TQ_MP_BOOL, TQ_MP_BOOL,
    [0xc4] = TQ_MP_BIN, TQ_MP_BIN, TQ_MP_BIN,
    [0xc7] = TQ_MP_EXT, TQ_MP_EXT, TQ_MP_EXT,
    [0xca] = TQ_MP_FLOAT, TQ_MP_FLOAT,
    [0xcc] = TQ_MP_UINT, TQ_MP_UINT, TQ_MP_UINT, TQ_MP_UINT,
    [0xd0] = TQ_MP_INT, TQ_MP_INT, TQ_MP_INT, TQ_MP_INT, /* by their sign: tq_mp_peek */
    [0xd4] = TQ_MP_EXT, TQ_MP_EXT, TQ_MP_EXT, TQ_MP_EXT, TQ_MP_EXT,
    [0xd9] = TQ_MP_STR, TQ_MP_STR, TQ_MP_STR,
    [0xdc] = TQ_MP_ARRAY, TQ_MP_ARRAY,
    [0xde] = TQ_MP_MAP, TQ_MP_MAP,
    [0xe0] = REPEAT_32(TQ_MP_INT),
};
/* clang-format on */

static const struct tq_mp_got nothing = {.next = NULL};

/* An unsigned number of 1, 2, 4 or 8 bytes behind the first byte. */
static struct tq_mp_got number(const uint8_t *at, const uint8_t *end, unsigned bytes)
{
    struct tq_mp_got got;

    if ((size_t)(end - at) <= bytes)
        return nothing;
    got.next = at + 1 + bytes;
    switch (bytes) {
    case 1:
        got.value = at[1];
        break;
    case 2:
        got.value = (uint64_t)at[1] << 8 | at[2];
        break;
    case 4:
        got.value = tq_load_be32(at + 1);
        break;
    default:
        got.value = tq_load_be64(at + 1);
        break;
    }
    return got;
}

/* Any integer: its 64 bits, and whether they are to be read as negative. */
static struct tq_mp_got integer(const uint8_t *at, const uint8_t *end, bool *ret_negative)
{
    struct tq_mp_got got;
    unsigned bytes;

    *ret_negative = false;
    if (at == end)
        return nothing;
    if (*at <= 0x7f)
        return (struct tq_mp_got){.next = at + 1, .value = *at};
    if (*at >= 0xe0) {
        *ret_negative = true;
        return (struct tq_mp_got){.next = at + 1, .value = UINT64_MAX << 8 | *at};
    }
    if (*at < 0xcc || *at > 0xd3)
        return nothing;
    bytes = 1u << (*at & 3);
    got = number(at, end, bytes);
    if (*at >= 0xd0 && got.next != NULL && got.value >> (8 * bytes - 1) != 0) {
        *ret_negative = true;
        if (bytes < 8)
            got.value |= UINT64_MAX << (8 * bytes);
    }
    return got;
}

struct tq_mp_got tq_mp_get_u64(const uint8_t *at, const uint8_t *end)
{
    bool negative;
    struct tq_mp_got got = integer(at, end, &negative);

    return negative ? nothing : got;
}

struct tq_mp_got tq_mp_get_i64(const uint8_t *at, const uint8_t *end)
{
    bool negative;
    struct tq_mp_got got = integer(at, end, &negative);

    return !negative && got.value > INT64_MAX ? nothing : got;
}

struct tq_mp_got tq_mp_get_float(const uint8_t *at, const uint8_t *end)
{
    struct tq_mp_got got;
    uint32_t bits;
    float single;
    double wide;

    if (at == end || (*at != 0xca && *at != 0xcb))
        return nothing;
    got = number(at, end, *at == 0xca ? 4 : 8);
    if (*at == 0xca && got.next != NULL) {
        bits = (uint32_t)got.value;
        memcpy(&single, &bits, sizeof(single));
        wide = (double)single;
        memcpy(&got.value, &wide, sizeof(got.value));
    }
    return got;
}

/* A length behind the first byte, whose 8, 16 and 32 bit forms have consecutive first bytes; `more` bytes
 * and `factor` times as many as it says must be there. */
static struct tq_mp_got counted(const uint8_t *at, const uint8_t *end, unsigned bytes, unsigned more,
                                unsigned factor)
{
    struct tq_mp_got got = number(at, end, bytes);

    if (got.next == NULL || (uint64_t)(end - got.next) < more + factor * got.value)
        return nothing;
    return got;
}

/* The same where the count is in the first byte. */
static struct tq_mp_got few(const uint8_t *at, const uint8_t *end, unsigned count, unsigned more,
                            unsigned factor)
{
    if ((size_t)(end - at) - 1 < more + factor * count)
        return nothing;
    return (struct tq_mp_got){.next = at + 1, .value = count};
}

struct tq_mp_got tq_mp_get_str(const uint8_t *at, const uint8_t *end)
{
    if (at == end)
        return nothing;
    if ((*at & 0xe0) == 0xa0)
        return few(at, end, *at & 0x1fu, 0, 1);
    if (*at < 0xd9 || *at > 0xdb)
        return nothing;
    return counted(at, end, 1u << (*at - 0xd9), 0, 1);
}

struct tq_mp_got tq_mp_get_bin(const uint8_t *at, const uint8_t *end)
{
    if (at == end || *at < 0xc4 || *at > 0xc6)
        return nothing;
    return counted(at, end, 1u << (*at - 0xc4), 0, 1);
}

struct tq_mp_got tq_mp_get_array(const uint8_t *at, const uint8_t *end)
{
    if (at == end)
        return nothing;
    if ((*at & 0xf0) == 0x90)
        return few(at, end, *at & 0xfu, 0, 1);
    if (*at != 0xdc && *at != 0xdd)
        return nothing;
    return counted(at, end, *at == 0xdc ? 2 : 4, 0, 1);
}

struct tq_mp_got tq_mp_get_map(const uint8_t *at, const uint8_t *end)
{
    if (at == end)
        return nothing;
    if ((*at & 0xf0) == 0x80)
        return few(at, end, *at & 0xfu, 0, 2);
    if (*at != 0xde && *at != 0xdf)
        return nothing;
    return counted(at, end, *at == 0xde ? 2 : 4, 0, 2);
}

struct tq_mp_got tq_mp_get_ext(const uint8_t *at, const uint8_t *end)
{
    if (at == end)
        return nothing;
    if (*at >= 0xd4 && *at <= 0xd8) /* fixext: 1, 2, 4, 8, 16 */
        return few(at, end, 1u << (*at - 0xd4), 1, 1);
    if (*at < 0xc7 || *at > 0xc9)
        return nothing;
    return counted(at, end, 1u << (*at - 0xc7), 1, 1);
}
