#include "proto/native/convert.h"

#include "common/assert.h"
#include "common/err.h"
#include "proto/native/convert_plain.h"
#include "proto/native/mp.h"
#include "proto/python/pickle_ops.h"

#define HEADER_BYTES   4          /* the frame's length */
#define PROTO_BYTES    2          /* PROTO and its argument */
#define RETURN_BYTES   12         /* BINUNICODE '#RETURN', in front of the item */
#define EXPANSION      16u        /* shared parts: so many times the frame's length, */
#define EXPANSION_FREE (1u << 20) /* and this */

/* The item is one scalar: 0. 1: it is not, or has no msgpack form, or one that is too large. */
static int scalar_alone(struct tq_span frame, uint32_t start, uint32_t end, size_t max_bytes,
                        struct tq_buf *out)
{
    const struct tq_pk_op *op = &tq_pk_ops[frame.data[start]];
    struct tq_pk_value v;
    uint64_t size;
    uint32_t next;
    int rv;

    if (op->act != PK_ACT_PUSH || op->kind == TQ_PK_OTHER)
        return 1;
    next = tq_pk_op_end(frame.data, start, end, op);
    if (next == TQ_PK_CUT || next == TQ_PK_BAD || tq_pk_skip_trailing(frame.data, next, end) != end ||
        tq_pk_scalar(frame.data, start, next, &v) != TQ_OK || !tq_plain_scalar_size(&v, &size))
        return 1;
    if (size > max_bytes)
        return 1; /* perhaps the ext is smaller */
    rv = tq_buf_reserve(out, (size_t)size);
    if (rv != TQ_OK)
        return rv == TQ_ELIMIT ? 1 : rv;
    tq_plain_scalar_write(&v, out->data + out->len, (size_t)size);
    out->len += (size_t)size;
    return TQ_OK;
}

/* 1: not plain, or too large when its shared parts are written out. */
static int whole_tree(struct tq_span frame, uint32_t start, uint32_t end, size_t max_bytes,
                      struct tq_buf *out)
{
    struct tq_plain plain;
    uint64_t max = EXPANSION_FREE + (uint64_t)frame.len * EXPANSION;
    int rv;

    if (max > max_bytes)
        max = max_bytes;
    if (max > INT32_MAX)
        max = INT32_MAX;
    rv = tq_plain_read(&plain, frame, HEADER_BYTES + PROTO_BYTES, start - RETURN_BYTES,
                       (struct tq_pk_range){start, end}, (uint32_t)max);
    if (rv == TQ_OK) {
        rv = tq_buf_reserve(out, tq_plain_size(&plain));
        if (rv == TQ_ELIMIT)
            rv = TQ_PLAIN_NOT;
    }
    if (rv == TQ_OK)
        rv = tq_plain_write(&plain, out->data + out->len);
    if (rv == TQ_OK)
        out->len += tq_plain_size(&plain);
    tq_plain_deinit(&plain);
    return rv;
}

static size_t ext_head(uint8_t head[6], size_t len)
{
    static const uint8_t fixed[] = {[1] = 0xd4, [2] = 0xd5, [4] = 0xd6, [8] = 0xd7, [16] = 0xd8};
    size_t n = 0;

    if (len < sizeof(fixed) && fixed[len] != 0) {
        head[n++] = fixed[len];
    } else if (len <= 0xff) {
        head[n++] = 0xc7;
        head[n++] = (uint8_t)len;
    } else if (len <= 0xffff) {
        head[n++] = 0xc8;
        head[n++] = (uint8_t)(len >> 8);
        head[n++] = (uint8_t)len;
    } else {
        head[n++] = 0xc9;
        tq_store_be32(head + n, (uint32_t)len);
        n += 4;
    }
    head[n++] = TQ_EXT_PICKLE;
    return n;
}

/* The frame without '#RETURN' and its tuple. Neither has a memo entry, so that the item's opcodes, and those
 * that the frame has in front for the sake of their references, mean the same as before. */
static int as_pickle(struct tq_span frame, uint32_t start, uint32_t end, size_t max_bytes, struct tq_buf *out)
{
    size_t front = start - RETURN_BYTES - HEADER_BYTES;
    size_t item = end - start;
    uint8_t head[6];
    size_t head_len = ext_head(head, front + item + 1);
    size_t size = head_len + front + item + 1;
    uint8_t *to;
    int rv;

    if (size > max_bytes)
        return TQ_ELIMIT;
    rv = tq_buf_reserve(out, size);
    if (rv != TQ_OK)
        return rv;
    to = out->data + out->len;
    memcpy(to, head, head_len);
    memcpy(to + head_len, frame.data + HEADER_BYTES, front);
    memcpy(to + head_len + front, frame.data + start, item);
    to[size - 1] = PK_STOP;
    out->len += size;
    return TQ_OK;
}

int tq_convert_to_msgpack(struct tq_span frame, uint32_t item_off, uint32_t item_len, size_t max_bytes,
                          struct tq_buf *out)
{
    uint32_t end = item_off + item_len;
    int rv;

    TQ_ASSERT(frame.len <= (size_t)INT32_MAX + HEADER_BYTES && item_len > 0 && end > item_off &&
              end <= frame.len && item_off >= HEADER_BYTES + PROTO_BYTES + RETURN_BYTES);
    rv = scalar_alone(frame, item_off, end, max_bytes, out);
    if (rv == 1)
        rv = whole_tree(frame, item_off, end, max_bytes, out);
    if (rv == 1)
        rv = as_pickle(frame, item_off, end, max_bytes, out);
    return rv;
}
