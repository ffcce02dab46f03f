/* The inline half of mp.h; included by it alone. A cursor's address never leaves these functions, so that the
 * compiler can keep a local one in registers: calls take its two pointers and return the new one. */
#ifndef TQ_PROTO_NATIVE_MP_INLINE_H
#define TQ_PROTO_NATIVE_MP_INLINE_H

#include "proto/native/mp.h"

/* By first byte. tq_mp_after: how many bytes follow it, if that alone says so, else something above
 * TQ_MP_AFTER_MAX. tq_mp_types: enum tq_mp_type; the signed integers are TQ_MP_INT there. */
#define TQ_MP_AFTER_MAX 0x3f
extern const uint8_t tq_mp_after[256];
extern const uint8_t tq_mp_types[256];

/* Where the reading goes on, NULL if nothing could be read, and what was read: the integer, or a length or
 * count with `next` at what it counts (for ext: at the type). */
struct tq_mp_got {
    const uint8_t *next;
    uint64_t value;
};

struct tq_mp_got tq_mp_get_u64(const uint8_t *at, const uint8_t *end);
struct tq_mp_got tq_mp_get_i64(const uint8_t *at, const uint8_t *end);   /* value: cast to int64_t */
struct tq_mp_got tq_mp_get_float(const uint8_t *at, const uint8_t *end); /* value: the bits of a double */
struct tq_mp_got tq_mp_get_str(const uint8_t *at, const uint8_t *end);
struct tq_mp_got tq_mp_get_bin(const uint8_t *at, const uint8_t *end);
struct tq_mp_got tq_mp_get_array(const uint8_t *at, const uint8_t *end);
struct tq_mp_got tq_mp_get_map(const uint8_t *at, const uint8_t *end);
struct tq_mp_got tq_mp_get_ext(const uint8_t *at, const uint8_t *end);
/* The end of the value; NULL if it is not whole. */
const uint8_t *tq_mp_get_end(const uint8_t *at, const uint8_t *end);

static inline struct tq_mp tq_mp_of(struct tq_span walked)
{
    return (struct tq_mp){.at = walked.data, .end = walked.len > 0 ? walked.data + walked.len : walked.data};
}

static inline size_t tq_mp_left(const struct tq_mp *c)
{
    return (size_t)(c->end - c->at);
}

static inline enum tq_mp_type tq_mp_peek(const struct tq_mp *c)
{
    enum tq_mp_type type;

    if (c->at == c->end)
        return TQ_MP_END;
    type = (enum tq_mp_type)tq_mp_types[*c->at];
    /* int 8 to int 64: the sign is in the byte behind. */
    if (type == TQ_MP_INT && *c->at < 0xe0 && tq_mp_left(c) > 1 && c->at[1] < 0x80)
        return TQ_MP_UINT;
    return type;
}

static inline bool tq_mp_nil(struct tq_mp *c)
{
    if (c->at == c->end || *c->at != 0xc0)
        return false;
    c->at++;
    return true;
}

static inline bool tq_mp_bool(struct tq_mp *c, bool *ret)
{
    if (c->at == c->end || (*c->at | 1) != 0xc3)
        return false;
    *ret = *c->at++ & 1;
    return true;
}

static inline bool tq_mp_u64(struct tq_mp *c, uint64_t *ret)
{
    struct tq_mp_got got;

    if (c->at != c->end && *c->at <= 0x7f) {
        *ret = *c->at++;
        return true;
    }
    if (tq_mp_left(c) > 4 && *c->at == 0xce) { /* an id */
        *ret = tq_load_be32(c->at + 1);
        c->at += 5;
        return true;
    }
    got = tq_mp_get_u64(c->at, c->end);
    if (got.next == NULL)
        return false;
    c->at = got.next;
    *ret = got.value;
    return true;
}

static inline bool tq_mp_u32(struct tq_mp *c, uint32_t *ret)
{
    struct tq_mp ahead = *c;
    uint64_t v;

    if (!tq_mp_u64(&ahead, &v) || v > UINT32_MAX)
        return false;
    *c = ahead;
    *ret = (uint32_t)v;
    return true;
}

static inline bool tq_mp_i64(struct tq_mp *c, int64_t *ret)
{
    struct tq_mp_got got;

    if (c->at != c->end && (*c->at <= 0x7f || *c->at >= 0xe0)) {
        *ret = *c->at <= 0x7f ? *c->at : (int64_t)*c->at - 256;
        c->at++;
        return true;
    }
    got = tq_mp_get_i64(c->at, c->end);
    if (got.next == NULL)
        return false;
    c->at = got.next;
    *ret = (int64_t)got.value;
    return true;
}

static inline bool tq_mp_float(struct tq_mp *c, double *ret)
{
    struct tq_mp_got got = tq_mp_get_float(c->at, c->end);

    if (got.next == NULL)
        return false;
    c->at = got.next;
    memcpy(ret, &got.value, sizeof(*ret));
    return true;
}

static inline bool tq_mp_str(struct tq_mp *c, struct tq_span *ret)
{
    struct tq_mp_got got;

    if (c->at != c->end && (*c->at & 0xe0) == 0xa0 && (*c->at & 0x1fu) < tq_mp_left(c))
        got = (struct tq_mp_got){.next = c->at + 1, .value = *c->at & 0x1f};
    else
        got = tq_mp_get_str(c->at, c->end);
    if (got.next == NULL)
        return false;
    *ret = tq_span(got.next, (size_t)got.value);
    c->at = got.next + got.value;
    return true;
}

static inline bool tq_mp_bin(struct tq_mp *c, struct tq_span *ret)
{
    struct tq_mp_got got;

    if (tq_mp_left(c) >= 2 && *c->at == 0xc4 && c->at[1] <= tq_mp_left(c) - 2)
        got = (struct tq_mp_got){.next = c->at + 2, .value = c->at[1]};
    else
        got = tq_mp_get_bin(c->at, c->end);
    if (got.next == NULL)
        return false;
    *ret = tq_span(got.next, (size_t)got.value);
    c->at = got.next + got.value;
    return true;
}

static inline bool tq_mp_array(struct tq_mp *c, uint32_t *ret_count)
{
    struct tq_mp_got got;

    if (c->at != c->end && (*c->at & 0xf0) == 0x90 && (*c->at & 0xfu) < tq_mp_left(c)) {
        *ret_count = *c->at++ & 0xf;
        return true;
    }
    got = tq_mp_get_array(c->at, c->end);
    if (got.next == NULL)
        return false;
    c->at = got.next;
    *ret_count = (uint32_t)got.value;
    return true;
}

static inline bool tq_mp_map(struct tq_mp *c, uint32_t *ret_pairs)
{
    struct tq_mp_got got;

    if (c->at != c->end && (*c->at & 0xf0) == 0x80 && 2 * (*c->at & 0xfu) < tq_mp_left(c)) {
        *ret_pairs = *c->at++ & 0xf;
        return true;
    }
    got = tq_mp_get_map(c->at, c->end);
    if (got.next == NULL)
        return false;
    c->at = got.next;
    *ret_pairs = (uint32_t)got.value;
    return true;
}

static inline bool tq_mp_ext(struct tq_mp *c, int8_t *ret_type, struct tq_span *ret)
{
    struct tq_mp_got got = tq_mp_get_ext(c->at, c->end);

    if (got.next == NULL)
        return false;
    *ret_type = (int8_t)*got.next;
    *ret = tq_span(got.next + 1, (size_t)got.value);
    c->at = got.next + 1 + got.value;
    return true;
}

static inline bool tq_mp_skip(struct tq_mp *c)
{
    const uint8_t *end;

    if (c->at != c->end && tq_mp_after[*c->at] <= TQ_MP_AFTER_MAX && tq_mp_after[*c->at] < tq_mp_left(c)) {
        c->at += 1 + tq_mp_after[*c->at];
        return true;
    }
    if (tq_mp_left(c) >= 2 && (*c->at == 0xc4 || *c->at == 0xd9) && c->at[1] <= tq_mp_left(c) - 2) {
        c->at += 2 + c->at[1]; /* bin or str with a length of one byte */
        return true;
    }
    end = tq_mp_get_end(c->at, c->end);
    if (end == NULL)
        return false;
    c->at = end;
    return true;
}

static inline bool tq_mp_raw(struct tq_mp *c, struct tq_span *ret)
{
    const uint8_t *start = c->at;

    if (!tq_mp_skip(c))
        return false;
    *ret = tq_span(start, (size_t)(c->at - start));
    return true;
}

/* ---- the writer: a value goes where there is room already, else by a call that makes some ---- */

void tq_mp_add_u64(struct tq_mp_out *o, uint64_t v);
void tq_mp_add_negative(struct tq_mp_out *o, int64_t v);
void tq_mp_add_str(struct tq_mp_out *o, struct tq_span utf8);
void tq_mp_add_bin(struct tq_mp_out *o, struct tq_span bytes);
void tq_mp_add_array(struct tq_mp_out *o, uint32_t count);
void tq_mp_add_map(struct tq_mp_out *o, uint32_t pairs);

static inline struct tq_mp_out tq_mp_out(struct tq_buf *buf)
{
    return (struct tq_mp_out){.buf = buf};
}

/* Where n bytes may be written at once, taken already; NULL: not without growing, or an error sticks. */
static inline uint8_t *tq_mp_room(struct tq_mp_out *o, size_t n)
{
    struct tq_buf *b = o->buf;
    size_t at = b->len;

    if (o->err != 0 || b->cap - at < n)
        return NULL;
    b->len = at + n;
    return b->data + at;
}

/* The values of one byte. */
static inline void tq_mp_put_byte(struct tq_mp_out *o, uint8_t first)
{
    uint8_t *p = tq_mp_room(o, 1);

    if (p != NULL)
        *p = first;
    else
        tq_mp_put_raw(o, tq_span(&first, 1));
}

static inline void tq_mp_put_nil(struct tq_mp_out *o)
{
    tq_mp_put_byte(o, 0xc0);
}

static inline void tq_mp_put_bool(struct tq_mp_out *o, bool v)
{
    tq_mp_put_byte(o, v ? 0xc3 : 0xc2);
}

static inline void tq_mp_put_u64(struct tq_mp_out *o, uint64_t v)
{
    uint8_t *p;

    if (v <= 0x7f) {
        tq_mp_put_byte(o, (uint8_t)v);
    } else if (v > UINT32_MAX && (p = tq_mp_room(o, 9)) != NULL) { /* a time */
        p[0] = 0xcf;
        tq_store_be32(p + 1, (uint32_t)(v >> 32));
        tq_store_be32(p + 5, (uint32_t)v);
    } else if (v > UINT16_MAX && v <= UINT32_MAX && (p = tq_mp_room(o, 5)) != NULL) { /* an id */
        p[0] = 0xce;
        tq_store_be32(p + 1, (uint32_t)v);
    } else {
        tq_mp_add_u64(o, v);
    }
}

static inline void tq_mp_put_i64(struct tq_mp_out *o, int64_t v)
{
    if (v >= 0)
        tq_mp_put_u64(o, (uint64_t)v);
    else if (v >= -32)
        tq_mp_put_byte(o, (uint8_t)(v & 0xff));
    else
        tq_mp_add_negative(o, v);
}

static inline void tq_mp_put_str(struct tq_mp_out *o, struct tq_span utf8)
{
    uint8_t *p = utf8.len <= 31 ? tq_mp_room(o, 1 + utf8.len) : NULL;

    if (p == NULL) {
        tq_mp_add_str(o, utf8);
        return;
    }
    *p = (uint8_t)(0xa0 | utf8.len);
    if (utf8.len > 0)
        memcpy(p + 1, utf8.data, utf8.len);
}

static inline void tq_mp_put_cstr(struct tq_mp_out *o, const char *utf8)
{
    tq_mp_put_str(o, tq_span_str(utf8));
}

static inline void tq_mp_put_bin(struct tq_mp_out *o, struct tq_span bytes)
{
    uint8_t *p = bytes.len <= 0xff ? tq_mp_room(o, 2 + bytes.len) : NULL;

    if (p == NULL) {
        tq_mp_add_bin(o, bytes);
        return;
    }
    p[0] = 0xc4;
    p[1] = (uint8_t)bytes.len;
    if (bytes.len > 0)
        memcpy(p + 2, bytes.data, bytes.len);
}

static inline void tq_mp_put_array(struct tq_mp_out *o, uint32_t count)
{
    if (count <= 15)
        tq_mp_put_byte(o, (uint8_t)(0x90 | count));
    else
        tq_mp_add_array(o, count);
}

static inline void tq_mp_put_map(struct tq_mp_out *o, uint32_t pairs)
{
    if (pairs <= 15)
        tq_mp_put_byte(o, (uint8_t)(0x80 | pairs));
    else
        tq_mp_add_map(o, pairs);
}

#endif
