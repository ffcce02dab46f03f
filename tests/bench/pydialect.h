/* The client's side of Python's manager dialect for load generators: the handshake of either age and the
 * requests as Python 3.8 to 3.13 pickles them (protocol 4, framed, memoized), written once and sent many
 * times. It trusts the server it measures; the product's own reader and writer are in proto/. */
#ifndef TESTS_BENCH_PYDIALECT_H
#define TESTS_BENCH_PYDIALECT_H

#include "common/assert.h"
#include "common/bytes.h"
#include "common/digest.h"

#include <stdio.h>

#define PY_FRAME_MAX     256 /* of the handshake, header not counted */
#define PY_IDENT_MAX     255
#define PY_NONCE_BYTES   48 /* "{sha256}" and 40 */
#define PY_MAC_MAX_BYTES 64

struct py_client {
    struct tq_span key;
    bool modern; /* 3.12 and later: tagged SHA-256; else MD5 */
};

enum py_handshake_state { PY_WAIT_CHALLENGE, PY_WAIT_WELCOME, PY_WAIT_ANSWER, PY_AUTHENTICATED };

struct py_handshake {
    uint8_t state; /* enum py_handshake_state */
    uint8_t nonce_len;
    uint8_t nonce[PY_NONCE_BYTES];
};

/* A request, header included. */
struct py_request {
    size_t len;
    size_t mark; /* where the body of a put begins */
    uint8_t *data;
    size_t cap;
};

static inline size_t py_frame(uint8_t *out, const void *payload, size_t n)
{
    tq_store_be32(out, (uint32_t)n);
    memcpy(out + 4, payload, n);
    return n + 4;
}

static inline bool py_is(struct tq_span a, const char *text)
{
    return tq_span_is(a, text);
}

/* Appends the MAC of `message` as a client of that age answers it; the length, 0 on failure. */
static inline size_t py_mac(const struct py_client *c, struct tq_span message, bool tagged, uint8_t *out)
{
    size_t at = 0;
    if (tagged) {
        memcpy(out, "{sha256}", 8);
        at = 8;
    }
    enum tq_digest digest = tagged ? TQ_SHA256 : TQ_MD5;
    if (tq_hmac(digest, c->key, message, out + at) < 0)
        return 0;
    return at + tq_digest_bytes(digest);
}

/* One frame of the handshake. 0: *ret_len bytes of `out` are to be sent, and h->state tells whether that was
 * the last; -1: the server is not one, or has another key. */
static inline int py_handshake_feed(const struct py_client *c, struct py_handshake *h, struct tq_span in,
                                    uint8_t out[PY_FRAME_MAX + 4], size_t *ret_len)
{
    static const char challenge[] = "#CHALLENGE#";
    const size_t challenge_len = sizeof challenge - 1;
    uint8_t payload[PY_FRAME_MAX];
    size_t n;

    switch (h->state) {
    case PY_WAIT_CHALLENGE:
        if (in.len <= challenge_len || memcmp(in.data, challenge, challenge_len) != 0)
            return -1;
        in = tq_span(in.data + challenge_len, in.len - challenge_len);
        n = py_mac(c, in, c->modern && in.len != 20, payload);
        if (n == 0)
            return -1;
        h->state = PY_WAIT_WELCOME;
        break;
    case PY_WAIT_WELCOME:
        if (!py_is(in, "#WELCOME#"))
            return -1;
        h->nonce_len = 0;
        if (c->modern) {
            memcpy(h->nonce, "{sha256}", 8);
            h->nonce_len = 8;
        }
        n = c->modern ? 40 : 20;
        if (tq_random_bytes(h->nonce + h->nonce_len, n) < 0)
            return -1;
        h->nonce_len = (uint8_t)(h->nonce_len + n);
        memcpy(payload, challenge, challenge_len);
        memcpy(payload + challenge_len, h->nonce, h->nonce_len);
        n = challenge_len + h->nonce_len;
        h->state = PY_WAIT_ANSWER;
        break;
    case PY_WAIT_ANSWER: {
        uint8_t expected[PY_MAC_MAX_BYTES];
        size_t len = py_mac(c, tq_span(h->nonce, h->nonce_len), in.len != 16, expected);
        if (len == 0 || !tq_span_eq(in, tq_span(expected, len)))
            return -1;
        n = 9;
        memcpy(payload, "#WELCOME#", n);
        h->state = PY_AUTHENTICATED;
        break;
    }
    default:
        return -1;
    }
    *ret_len = py_frame(out, payload, n);
    return 0;
}

/* ---- requests ---- */

static inline void py_put(struct py_request *r, const void *p, size_t n)
{
    TQ_ASSERT(r->len + n <= r->cap);
    memcpy(r->data + r->len, p, n);
    r->len += n;
}

static inline void py_put_u8(struct py_request *r, uint8_t v)
{
    py_put(r, &v, 1);
}

static inline void py_put_str(struct py_request *r, const char *s)
{
    size_t n = strlen(s);
    TQ_ASSERT(n <= 255);
    py_put_u8(r, 0x8c); /* SHORT_BINUNICODE */
    py_put_u8(r, (uint8_t)n);
    py_put(r, s, n);
    py_put_u8(r, 0x94); /* MEMOIZE */
}

static inline void py_put_bytes(struct py_request *r, size_t n)
{
    if (n <= 255) {
        py_put_u8(r, 'C'); /* SHORT_BINBYTES */
        py_put_u8(r, (uint8_t)n);
    } else {
        uint8_t head[5] = {'B', (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
        py_put(r, head, sizeof head); /* BINBYTES, little-endian */
    }
    r->mark = r->len;
    for (size_t i = 0; i < n; i++)
        py_put_u8(r, 'x');
    py_put_u8(r, 0x94);
}

/* (ident, function, args, {}) with at most one argument: a string, or `body_bytes` bytes, or none. ident
 * NULL is None. data has room for all of it: body_bytes + 2 * PY_IDENT_MAX + 64. */
static inline void py_request(struct py_request *r, const char *ident, const char *function, const char *arg,
                              size_t body_bytes)
{
    static const uint8_t head[] = {0, 0, 0, 0, 0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0};
    r->len = 0;
    r->mark = 0;
    py_put(r, head, sizeof head);
    py_put_u8(r, '('); /* MARK */
    if (ident)
        py_put_str(r, ident);
    else
        py_put_u8(r, 'N');
    py_put_str(r, function);
    if (arg)
        py_put_str(r, arg);
    else if (body_bytes > 0)
        py_put_bytes(r, body_bytes);
    if (arg || body_bytes > 0)
        py_put(r, "\x85\x94", 2); /* TUPLE1, MEMOIZE */
    else
        py_put_u8(r, ')');       /* EMPTY_TUPLE */
    py_put(r, "}\x94t\x94.", 5); /* EMPTY_DICT, MEMOIZE, TUPLE, MEMOIZE, STOP */
    tq_store_be32(r->data, (uint32_t)(r->len - 4));
    uint64_t framed = r->len - sizeof head;
    for (unsigned i = 0; i < 8; i++)
        r->data[7 + i] = (uint8_t)(framed >> (8 * i));
}

/* ---- replies ---- */

/* What follows '#RETURN' in a reply; an empty span when it is no #RETURN. An item's reply may begin with a
 * replay of its request's memo entries, so the word is looked for. */
static inline struct tq_span py_returned(struct tq_span reply)
{
    const uint8_t *p = memmem(reply.data, reply.len, "#RETURN", 7);
    if (!p)
        return tq_span(NULL, 0);
    p += 7;
    return tq_span(p, reply.len - (size_t)(p - reply.data));
}

/* The first string of a returned value: the ident in the reply to create. 0 or -1. */
static inline int py_first_string(struct tq_span value, char out[PY_IDENT_MAX + 1])
{
    const uint8_t *p = value.data;
    const uint8_t *end = p + value.len;
    while (p < end) {
        size_t n;
        if (*p == 0x94 || *p == '(') { /* MEMOIZE, MARK */
            p++;
            continue;
        }
        if (*p == 'q' || *p == 'r') { /* BINPUT, LONG_BINPUT */
            p += *p == 'q' ? 2 : 5;
            continue;
        }
        if (*p == 0x8c && end - p >= 2) {
            n = p[1];
            p += 2;
        } else if (*p == 'X' && end - p >= 5) {
            n = (size_t)p[1] | (size_t)p[2] << 8 | (size_t)p[3] << 16 | (size_t)p[4] << 24;
            p += 5;
        } else {
            return -1;
        }
        if (n == 0 || n > PY_IDENT_MAX || (size_t)(end - p) < n)
            return -1;
        memcpy(out, p, n);
        out[n] = '\0';
        return 0;
    }
    return -1;
}

#endif
