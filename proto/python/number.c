#include "proto/python/number.h"

#include <math.h>

#include "common/err.h"

/* Python refuses longer decimal texts (sys.set_int_max_str_digits). */
#define DIGITS_MAX     4300
#define MAGNITUDE_SIZE 1800 /* bytes for so many digits: 4300 * log2(10) / 8 = 1786 */

/* An integer: sign and magnitude. The magnitude is read byte by byte, little-endian, from bytes (plain or
 * two's complement). */
struct integer {
    bool negative;
    bool complement; /* bytes are the two's complement of the magnitude */
    const uint8_t *bytes;
    size_t len;
    size_t first; /* index of the lowest byte that is not 0; the two's complement turns there */
    uint8_t own[MAGNITUDE_SIZE];
};

static uint8_t magnitude_byte(const struct integer *n, size_t i)
{
    if (i >= n->len)
        return 0;
    if (!n->complement || i < n->first)
        return n->bytes[i];
    return i == n->first ? (uint8_t)(0u - n->bytes[i]) : (uint8_t)~n->bytes[i];
}

static void integer_finish(struct integer *n)
{
    n->first = 0;
    while (n->complement && n->first < n->len && n->bytes[n->first] == 0)
        n->first++;
    while (n->len > 0 && magnitude_byte(n, n->len - 1) == 0)
        n->len--;
}

static int integer_from_text(struct integer *n, struct tq_span text)
{
    size_t i = 0;

    n->negative = text.len > 0 && text.data[0] == '-';
    if (n->negative)
        i++;
    if (text.len - i > DIGITS_MAX)
        return TQ_ELIMIT;
    n->complement = false;
    n->bytes = n->own;
    n->len = 0;
    for (; i < text.len; i++) {
        unsigned carry = (unsigned)(text.data[i] - '0');

        for (size_t k = 0; k < n->len; k++) {
            carry += n->own[k] * 10u;
            n->own[k] = (uint8_t)carry;
            carry >>= 8;
        }
        if (carry > 0)
            n->own[n->len++] = (uint8_t)carry;
    }
    return TQ_OK;
}

static int integer_from_value(struct integer *n, const struct tq_pk_value *v)
{
    if (v->kind == TQ_PK_BIGINT && v->escaped) {
        int rv = integer_from_text(n, v->bytes);

        if (rv != TQ_OK)
            return rv;
    } else if (v->kind == TQ_PK_BIGINT) {
        n->bytes = v->bytes.data;
        n->len = v->bytes.len;
        n->negative = n->len > 0 && (n->bytes[n->len - 1] & 0x80);
        n->complement = n->negative;
    } else {
        int64_t i = v->kind == TQ_PK_BOOL ? v->boolean : v->integer;
        uint64_t magnitude = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;

        n->negative = i < 0;
        n->complement = false;
        n->bytes = n->own;
        n->len = 8;
        for (size_t k = 0; k < 8; k++)
            n->own[k] = (uint8_t)(magnitude >> (8 * k));
    }
    integer_finish(n);
    return TQ_OK;
}

static enum tq_order flip(enum tq_order order, bool do_flip)
{
    if (!do_flip || order == TQ_UNORDERED)
        return order;
    return (enum tq_order)(-(int)order);
}

static enum tq_order order_of(bool less, bool greater)
{
    return less ? TQ_LESS : greater ? TQ_GREATER : TQ_EQUAL;
}

static enum tq_order compare_integers(const struct integer *a, const struct integer *b)
{
    if (a->negative != b->negative)
        return a->negative ? TQ_LESS : TQ_GREATER;
    if (a->len != b->len)
        return flip(order_of(a->len < b->len, true), a->negative);
    for (size_t i = a->len; i > 0; i--) {
        uint8_t x = magnitude_byte(a, i - 1);
        uint8_t y = magnitude_byte(b, i - 1);

        if (x != y)
            return flip(order_of(x < y, true), a->negative);
    }
    return TQ_EQUAL;
}

/* The integer part of a finite |d| >= 1 as an integer: at most 1024 bits. */
static void integer_from_double(struct integer *n, double d)
{
    int exponent;
    uint64_t mantissa =
        (uint64_t)ldexp(frexp(fabs(d), &exponent), 53); /* |d| = mantissa * 2^(exponent - 53) */
    unsigned shift;

    n->negative = d < 0;
    n->complement = false;
    n->bytes = n->own;
    if (exponent < 53) {
        mantissa >>= 53 - exponent;
        exponent = 53;
    }
    shift = (unsigned)(exponent - 53);
    memset(n->own, 0, shift / 8 + 9);
    n->len = shift / 8 + 8;
    for (size_t k = 0; k < 8; k++)
        n->own[shift / 8 + k] = (uint8_t)(mantissa >> (8 * k));
    if (shift % 8 != 0) { /* 53 bits and 7 more fit 8 bytes */
        mantissa <<= shift % 8;
        for (size_t k = 0; k < 8; k++)
            n->own[shift / 8 + k] = (uint8_t)(mantissa >> (8 * k));
    }
    integer_finish(n);
}

static int compare_integer_double(const struct tq_pk_value *a, double d, enum tq_order *ret_order)
{
    struct integer whole;
    struct integer n;
    double fraction;
    double whole_d;
    enum tq_order order;
    int rv;

    if (isnan(d)) {
        *ret_order = TQ_UNORDERED;
        return TQ_OK;
    }
    rv = integer_from_value(&n, a);
    if (rv != TQ_OK)
        return rv;
    if (isinf(d)) {
        *ret_order = d > 0 ? TQ_LESS : TQ_GREATER;
        return TQ_OK;
    }
    fraction = modf(d, &whole_d);
    if (whole_d == 0) {
        whole.negative = false;
        whole.len = 0;
    } else {
        integer_from_double(&whole, whole_d);
    }
    order = compare_integers(&n, &whole);
    if (order == TQ_EQUAL && fraction != 0)
        order = fraction > 0 ? TQ_LESS : TQ_GREATER;
    *ret_order = order;
    return TQ_OK;
}

bool tq_number_is(const struct tq_pk_value *v)
{
    return v->kind >= TQ_PK_BOOL && v->kind <= TQ_PK_FLOAT;
}

int tq_number_compare(const struct tq_pk_value *a, const struct tq_pk_value *b, enum tq_order *ret_order)
{
    _Static_assert(TQ_PK_BOOL < TQ_PK_INT && TQ_PK_INT < TQ_PK_BIGINT && TQ_PK_BIGINT < TQ_PK_FLOAT, "order");
    struct integer x;
    struct integer y;
    int rv;

    if (a->kind <= TQ_PK_INT && b->kind <= TQ_PK_INT) {
        int64_t i = a->kind == TQ_PK_BOOL ? a->boolean : a->integer;
        int64_t k = b->kind == TQ_PK_BOOL ? b->boolean : b->integer;

        *ret_order = order_of(i<k, i> k);
        return TQ_OK;
    }
    if (a->kind == TQ_PK_FLOAT && b->kind == TQ_PK_FLOAT) {
        *ret_order =
            isnan(a->real) || isnan(b->real) ? TQ_UNORDERED : order_of(a->real<b->real, a->real> b->real);
        return TQ_OK;
    }
    if (b->kind == TQ_PK_FLOAT)
        return compare_integer_double(a, b->real, ret_order);
    if (a->kind == TQ_PK_FLOAT) {
        rv = compare_integer_double(b, a->real, ret_order);
        if (rv == TQ_OK)
            *ret_order = flip(*ret_order, true);
        return rv;
    }
    rv = integer_from_value(&x, a);
    if (rv == TQ_OK)
        rv = integer_from_value(&y, b);
    if (rv == TQ_OK)
        *ret_order = compare_integers(&x, &y);
    return rv;
}
