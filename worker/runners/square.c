#include "worker/runners/square.h"

#include <math.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/native/convert.h"
#include "proto/native/mp.h"
#include "proto/python/pickle.h"

#define QUOTED_MAX_BYTES 200

static int appendf(struct tq_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int appendf(struct tq_buf *buf, const char *fmt, ...)
{
    char text[512]; /* a double in %.0f has at most 310 characters */
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(text))
        return TQ_ELIMIT;
    return tq_buf_append(buf, text, (size_t)n);
}

/* "%d * %d = %d" of the two texts. */
static int put_line(struct tq_buf *result, struct tq_span n, struct tq_span product)
{
    int rv = tq_buf_reserve(result, 2 * n.len + product.len + 6);

    if (rv == TQ_OK)
        rv = tq_buf_append(result, n.data, n.len);
    if (rv == TQ_OK)
        rv = tq_buf_append_str(result, " * ");
    if (rv == TQ_OK)
        rv = tq_buf_append(result, n.data, n.len);
    if (rv == TQ_OK)
        rv = tq_buf_append_str(result, " = ");
    if (rv == TQ_OK)
        rv = tq_buf_append(result, product.data, product.len);
    return rv;
}

/* %d truncates towards zero; from 2^53 on doubles are whole already. No "-0". */
static void float_text(double v, char out[320])
{
    if (v > -9007199254740992.0 && v < 9007199254740992.0)
        snprintf(out, 320, "%lld", (long long)v);
    else
        snprintf(out, 320, "%.0f", v);
}

static int square_float(double v, struct tq_buf *shown, struct tq_buf *result)
{
    char n[320], product[320];
    double squared = v * v;
    int rv;

    if (!isfinite(squared)) {
        rv = isnan(v)   ? appendf(result, "error: cannot square nan (float)")
             : isinf(v) ? appendf(result, "error: cannot square %s (float)", v < 0 ? "-inf" : "inf")
                        : appendf(result, "error: cannot square %.17g (float): the square is infinite", v);
        return rv != TQ_OK ? rv : 1;
    }
    float_text(v, n);
    float_text(squared, product);
    rv = tq_buf_append_str(shown, n);
    if (rv == TQ_OK)
        rv = put_line(result, tq_span_str(n), tq_span_str(product));
    return rv;
}

/* Little-endian two's complement of any length. NULL when out of memory. */
static BIGNUM *number_from_bytes(struct tq_span bytes)
{
    BIGNUM *n = BN_lebin2bn(bytes.data, (int)bytes.len, NULL);
    BIGNUM *modulus;

    if (n == NULL || bytes.len == 0 || (bytes.data[bytes.len - 1] & 0x80) == 0)
        return n;
    modulus = BN_new();
    if (modulus == NULL || !BN_set_bit(modulus, (int)(8 * bytes.len)) || !BN_sub(n, n, modulus)) {
        BN_free(n);
        n = NULL;
    }
    BN_free(modulus);
    return n;
}

static int square_number(const BIGNUM *n, struct tq_buf *shown, struct tq_buf *result)
{
    BIGNUM *squared = BN_new();
    BN_CTX *ctx = BN_CTX_new();
    char *n_text = BN_bn2dec(n);
    char *squared_text = NULL;
    int rv = TQ_ENOMEM;

    if (squared != NULL && ctx != NULL && n_text != NULL && BN_sqr(squared, n, ctx))
        squared_text = BN_bn2dec(squared);
    if (squared_text != NULL)
        rv = tq_buf_append_str(shown, n_text);
    if (rv == TQ_OK)
        rv = put_line(result, tq_span_str(n_text), tq_span_str(squared_text));
    OPENSSL_free(squared_text);
    OPENSSL_free(n_text);
    BN_CTX_free(ctx);
    BN_free(squared);
    return rv;
}

/* Decimal digits with a sign, as protocol 0 writes ints. NULL when out of memory. */
static BIGNUM *number_from_text(struct tq_span text)
{
    BIGNUM *n = NULL;
    char *copy = tq_malloc(text.len + 1);

    if (copy == NULL)
        return NULL;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    if (BN_dec2bn(&n, copy) == 0) {
        BN_free(n);
        n = NULL;
    }
    tq_free(copy);
    return n;
}

static int square_big(struct tq_span bytes, bool decimal, struct tq_buf *shown, struct tq_buf *result)
{
    BIGNUM *n;
    int rv;

    if (bytes.len > (decimal ? SQUARE_INT_MAX_DIGITS : SQUARE_INT_MAX_BYTES)) {
        rv = appendf(result, "error: cannot square an int of more than %d digits (int)",
                     SQUARE_INT_MAX_DIGITS);
        return rv != TQ_OK ? rv : 1;
    }
    n = decimal ? number_from_text(bytes) : number_from_bytes(bytes);
    if (n == NULL)
        return TQ_ENOMEM;
    rv = square_number(n, shown, result);
    BN_free(n);
    return rv;
}

static int square_int(int64_t v, struct tq_buf *shown, struct tq_buf *result)
{
    uint8_t bytes[8];
    char n[24], product[24];
    int rv;

    if (v < -INT32_MAX || v > INT32_MAX) {
        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)((uint64_t)v >> (8 * i));
        return square_big(tq_span(bytes, sizeof(bytes)), false, shown, result);
    }
    snprintf(n, sizeof(n), "%lld", (long long)v);
    snprintf(product, sizeof(product), "%lld", (long long)(v * v));
    rv = tq_buf_append_str(shown, n);
    if (rv == TQ_OK)
        rv = put_line(result, tq_span_str(n), tq_span_str(product));
    return rv;
}

/* Near enough to Python's repr to recognise the value: quotes, and escapes for what cannot be seen. */
static int put_repr(struct tq_buf *result, struct tq_span s, bool text)
{
    size_t n = s.len < QUOTED_MAX_BYTES ? s.len : QUOTED_MAX_BYTES;
    int rv;

    /* Do not cut a character in two. */
    while (text && n > 0 && n < s.len && (s.data[n] & 0xc0) == 0x80)
        n--;
    rv = tq_buf_append_str(result, text ? "'" : "b'");
    for (size_t i = 0; i < n && rv == TQ_OK; i++) {
        if (s.data[i] == '\'' || s.data[i] == '\\')
            rv = appendf(result, "\\%c", s.data[i]);
        else if (s.data[i] < 0x20 || s.data[i] == 0x7f || (!text && s.data[i] >= 0x80))
            rv = appendf(result, "\\x%02x", s.data[i]);
        else
            rv = tq_buf_append_u8(result, s.data[i]);
    }
    if (rv == TQ_OK)
        rv = tq_buf_append_str(result, n < s.len ? "...'" : "'");
    return rv;
}

/* "error: cannot square SHOWN (TYPE)" */
static int refuse(struct tq_buf *result, const char *shown, struct tq_span type)
{
    int rv = appendf(result, "error: cannot square %s (", shown);

    if (rv == TQ_OK)
        rv = tq_buf_append(result, type.data, type.len);
    if (rv == TQ_OK)
        rv = tq_buf_append_str(result, ")");
    return rv != TQ_OK ? rv : 1;
}

static int refuse_run(struct tq_buf *result, struct tq_span bytes, bool text)
{
    int rv = tq_buf_append_str(result, "error: cannot square ");

    if (rv == TQ_OK)
        rv = put_repr(result, bytes, text);
    if (rv == TQ_OK)
        rv = tq_buf_append_str(result, text ? " (str)" : " (bytes)");
    return rv != TQ_OK ? rv : 1;
}

/* What has no msgpack form: large ints, and what only Python can make. */
static int square_value(const struct tq_pickle *p, struct tq_buf *shown, struct tq_buf *result)
{
    struct tq_span module, name;
    struct tq_pk_value v;
    int rv = tq_pk_decode(p, p->value, &v);

    if (rv != TQ_OK)
        return rv;
    switch (v.kind) {
    case TQ_PK_INT:
        return square_int(v.integer, shown, result);
    case TQ_PK_BIGINT:
        return square_big(v.bytes, v.escaped, shown, result);
    case TQ_PK_FLOAT:
        return square_float(v.real, shown, result);
    case TQ_PK_STR:
    case TQ_PK_BYTES:
        return refuse_run(result, v.bytes, v.kind == TQ_PK_STR);
    default:
        break;
    }
    if (v.kind != TQ_PK_OTHER || tq_pk_class_of(p, p->value, &module, &name) != TQ_OK ||
        name.len > QUOTED_MAX_BYTES)
        name = tq_span_str(tq_pk_type_name(p, p->value));
    return refuse(result, "a value", name);
}

static int square_pickle(struct tq_span bytes, struct tq_buf *shown, struct tq_buf *result)
{
    struct tq_pickle p;
    const char *why;
    int rv = tq_pickle_scan(&p, bytes, &why);

    if (rv == TQ_ENOMEM)
        return rv;
    if (rv == TQ_OK) {
        rv = square_value(&p, shown, result);
        tq_pickle_deinit(&p);
    }
    return rv == TQ_EPROTO || rv == TQ_ELIMIT ? refuse(result, "a value", tq_span_str("bad pickle")) : rv;
}

/* More than an int64_t holds. */
static int square_u64(uint64_t v, struct tq_buf *shown, struct tq_buf *result)
{
    uint8_t bytes[9] = {0};

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    return square_big(tq_span(bytes, sizeof(bytes)), false, shown, result);
}

int square_task(struct tq_span body, struct tq_buf *shown, struct tq_buf *result)
{
    struct tq_mp c = tq_mp_of(body);
    enum tq_mp_type type = tq_mp_peek(&c);
    struct tq_span bytes;
    uint64_t large;
    int64_t number;
    double real;
    bool truth;
    int8_t ext;

    tq_buf_clear(shown);
    tq_buf_clear(result);
    if (tq_mp_i64(&c, &number))
        return square_int(number, shown, result);
    if (tq_mp_u64(&c, &large))
        return square_u64(large, shown, result);
    if (tq_mp_bool(&c, &truth))
        return square_int(truth ? 1 : 0, shown, result);
    if (tq_mp_float(&c, &real))
        return square_float(real, shown, result);
    if (tq_mp_str(&c, &bytes))
        return refuse_run(result, bytes, true);
    if (tq_mp_bin(&c, &bytes))
        return refuse_run(result, bytes, false);
    if (tq_mp_nil(&c))
        return refuse(result, "None", tq_span_str("NoneType"));
    if (tq_mp_ext(&c, &ext, &bytes) && ext == TQ_EXT_PICKLE)
        return square_pickle(bytes, shown, result);
    return refuse(result, "a value",
                  tq_span_str(type == TQ_MP_ARRAY ? "list"
                              : type == TQ_MP_MAP ? "dict"
                                                  : "ext"));
}
