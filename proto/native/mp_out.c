#include "common/assert.h"
#include "common/err.h"
#include "proto/native/mp.h"

#define HEAD_BYTES_MAX    9 /* the first byte, and a number of 8 */
#define FRAME_START_BYTES 4
#define FRAME_BYTES_MAX   INT32_MAX

/* A first byte and a number of 1, 2, 4 or 8 bytes; their length. */
static inline size_t encode(uint8_t p[HEAD_BYTES_MAX], uint8_t first, uint64_t v, unsigned bytes)
{
    p[0] = first;
    switch (bytes) {
    case 1:
        p[1] = (uint8_t)v;
        break;
    case 2:
        p[1] = (uint8_t)(v >> 8);
        p[2] = (uint8_t)v;
        break;
    case 4:
        tq_store_be32(p + 1, (uint32_t)v);
        break;
    default:
        tq_store_be32(p + 1, (uint32_t)(v >> 32));
        tq_store_be32(p + 5, (uint32_t)v);
        break;
    }
    return 1 + bytes;
}

/* Head and bytes, both or none. */
static void add(struct tq_mp_out *o, const uint8_t *head, size_t head_len, struct tq_span bytes)
{
    struct tq_buf *b = o->buf;

    if (o->err != TQ_OK)
        return;
    if (bytes.len > UINT32_MAX) {
        o->err = TQ_ELIMIT;
        return;
    }
    o->err = tq_buf_reserve(b, head_len + bytes.len);
    if (o->err != TQ_OK)
        return;
    memcpy(b->data + b->len, head, head_len);
    if (bytes.len > 0)
        memcpy(b->data + b->len + head_len, bytes.data, bytes.len);
    b->len += head_len + bytes.len;
}

static void add_number(struct tq_mp_out *o, uint8_t first, uint64_t v, unsigned bytes)
{
    uint8_t *p = tq_mp_room(o, 1 + bytes);
    uint8_t head[HEAD_BYTES_MAX];

    if (p != NULL)
        encode(p, first, v, bytes);
    else
        add(o, head, encode(head, first, v, bytes), tq_span(NULL, 0));
}

void tq_mp_add_u64(struct tq_mp_out *o, uint64_t v)
{
    if (v <= 0xff)
        add_number(o, 0xcc, v, 1);
    else if (v <= 0xffff)
        add_number(o, 0xcd, v, 2);
    else if (v <= UINT32_MAX)
        add_number(o, 0xce, v, 4);
    else
        add_number(o, 0xcf, v, 8);
}

void tq_mp_add_negative(struct tq_mp_out *o, int64_t v)
{
    uint64_t bits = (uint64_t)v;

    if (v >= INT8_MIN)
        add_number(o, 0xd0, bits, 1);
    else if (v >= INT16_MIN)
        add_number(o, 0xd1, bits, 2);
    else if (v >= INT32_MIN)
        add_number(o, 0xd2, bits, 4);
    else
        add_number(o, 0xd3, bits, 8);
}

void tq_mp_put_float(struct tq_mp_out *o, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    add_number(o, 0xcb, bits, 8);
}

void tq_mp_add_str(struct tq_mp_out *o, struct tq_span utf8)
{
    uint8_t head[HEAD_BYTES_MAX];
    size_t n;

    if (utf8.len <= 31) {
        head[0] = (uint8_t)(0xa0 | utf8.len);
        n = 1;
    } else if (utf8.len <= 0xff)
        n = encode(head, 0xd9, utf8.len, 1);
    else if (utf8.len <= 0xffff)
        n = encode(head, 0xda, utf8.len, 2);
    else
        n = encode(head, 0xdb, utf8.len, 4);
    add(o, head, n, utf8);
}

void tq_mp_add_bin(struct tq_mp_out *o, struct tq_span bytes)
{
    uint8_t head[HEAD_BYTES_MAX];
    size_t n;

    if (bytes.len <= 0xff)
        n = encode(head, 0xc4, bytes.len, 1);
    else if (bytes.len <= 0xffff)
        n = encode(head, 0xc5, bytes.len, 2);
    else
        n = encode(head, 0xc6, bytes.len, 4);
    add(o, head, n, bytes);
}

void tq_mp_add_array(struct tq_mp_out *o, uint32_t count)
{
    if (count <= 0xffff)
        add_number(o, 0xdc, count, 2);
    else
        add_number(o, 0xdd, count, 4);
}

void tq_mp_add_map(struct tq_mp_out *o, uint32_t pairs)
{
    if (pairs <= 0xffff)
        add_number(o, 0xde, pairs, 2);
    else
        add_number(o, 0xdf, pairs, 4);
}

void tq_mp_put_ext(struct tq_mp_out *o, int8_t type, struct tq_span bytes)
{
    uint8_t head[HEAD_BYTES_MAX];
    size_t n = 1;

    switch (bytes.len) {
    case 1:
        head[0] = 0xd4;
        break;
    case 2:
        head[0] = 0xd5;
        break;
    case 4:
        head[0] = 0xd6;
        break;
    case 8:
        head[0] = 0xd7;
        break;
    case 16:
        head[0] = 0xd8;
        break;
    default:
        if (bytes.len <= 0xff)
            n = encode(head, 0xc7, bytes.len, 1);
        else if (bytes.len <= 0xffff)
            n = encode(head, 0xc8, bytes.len, 2);
        else
            n = encode(head, 0xc9, bytes.len, 4);
        break;
    }
    head[n++] = (uint8_t)type;
    add(o, head, n, bytes);
}

void tq_mp_put_raw(struct tq_mp_out *o, struct tq_span encoded)
{
    if (o->err == TQ_OK)
        o->err = tq_buf_append(o->buf, encoded.data, encoded.len);
}

void tq_mp_frame_begin(struct tq_mp_out *o, size_t *ret_start)
{
    static const uint8_t length[FRAME_START_BYTES];

    *ret_start = o->buf->len;
    tq_mp_put_raw(o, tq_span(length, sizeof(length)));
}

int tq_mp_frame_end(struct tq_mp_out *o, size_t start)
{
    struct tq_buf *b = o->buf;

    TQ_ASSERT(start <= b->len && (o->err != TQ_OK || b->len - start >= FRAME_START_BYTES));
    if (o->err == TQ_OK && b->len - start - FRAME_START_BYTES > FRAME_BYTES_MAX)
        o->err = TQ_ELIMIT;
    if (o->err != TQ_OK) {
        b->len = start;
        return o->err;
    }
    tq_store_be32(b->data + start, (uint32_t)(b->len - start - FRAME_START_BYTES));
    return TQ_OK;
}
