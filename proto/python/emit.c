#include "proto/python/emit.h"

#include "common/assert.h"
#include "common/err.h"

/* Opcodes as named in CPython's Lib/pickletools.py. */
enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_NONE = 'N',
    OP_REDUCE = 'R',
    OP_GLOBAL = 'c',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_EMPTY_DICT = '}',
    OP_SETITEMS = 'u',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_LONG1 = 0x8a,
    OP_BINFLOAT = 'G',
    OP_BINUNICODE = 'X',
    OP_PROTO = 0x80,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
};

/* Every Python that has 32-bit frame lengths reads them signed. */
#define FRAME_PAYLOAD_MAX_BYTES 0x7fffffffu
#define FRAME_HEADER_BYTES      4

static void put(struct tq_emit *e, const void *p, size_t n)
{
    if (e->err == TQ_OK)
        e->err = tq_buf_append(e->buf, p, n);
}

static void put_op(struct tq_emit *e, uint8_t op)
{
    put(e, &op, 1);
}

/* Little-endian, as all of pickle's integers but the float. */
static void put_op_le(struct tq_emit *e, uint8_t op, uint64_t v, unsigned bytes)
{
    uint8_t out[9] = {op};

    for (unsigned i = 0; i < bytes; i++)
        out[1 + i] = (uint8_t)(v >> (8 * i));
    put(e, out, 1 + bytes);
}

void tq_emit_begin(struct tq_emit *e, struct tq_buf *buf)
{
    static const uint8_t begin[] = {0, 0, 0, 0, OP_PROTO, 2};

    *e = (struct tq_emit){.buf = buf, .start = buf->len};
    put(e, begin, sizeof(begin));
}

int tq_emit_end(struct tq_emit *e)
{
    size_t payload;

    put_op(e, OP_STOP);
    if (e->err == TQ_OK) {
        payload = e->buf->len - e->start - FRAME_HEADER_BYTES;
        if (payload > FRAME_PAYLOAD_MAX_BYTES)
            e->err = TQ_ELIMIT;
        else
            tq_store_be32(e->buf->data + e->start, (uint32_t)payload);
    }
    if (e->err != TQ_OK)
        e->buf->len = e->start;
    return e->err;
}

void tq_emit_none(struct tq_emit *e)
{
    put_op(e, OP_NONE);
}

void tq_emit_bool(struct tq_emit *e, bool v)
{
    put_op(e, v ? OP_NEWTRUE : OP_NEWFALSE);
}

void tq_emit_int(struct tq_emit *e, int64_t v)
{
    uint8_t out[10] = {OP_LONG1, 8};

    if (v >= 0 && v <= 0xff) {
        put_op_le(e, OP_BININT1, (uint64_t)v, 1);
    } else if (v >= 0 && v <= 0xffff) {
        put_op_le(e, OP_BININT2, (uint64_t)v, 2);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        put_op_le(e, OP_BININT, (uint64_t)v, 4);
    } else {
        for (unsigned i = 0; i < 8; i++)
            out[2 + i] = (uint8_t)((uint64_t)v >> (8 * i));
        put(e, out, sizeof(out));
    }
}

void tq_emit_float(struct tq_emit *e, double v)
{
    uint8_t out[9] = {OP_BINFLOAT};
    uint64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    tq_store_be32(out + 1, (uint32_t)(bits >> 32));
    tq_store_be32(out + 5, (uint32_t)bits);
    put(e, out, sizeof(out));
}

/* Bytes of the UTF-8 sequence at p as Python decodes it ("surrogatepass": lone surrogates are let
 * through), or 0 when there is none. */
static size_t utf8_sequence(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    uint32_t c;

    if (len < 2)
        return len;
    if (n < len)
        return 0;
    c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c >= least[len] && c <= 0x10ffff ? len : 0;
}

static size_t utf8_valid_prefix(struct tq_span s)
{
    size_t at = 0;
    size_t step;

    while (at < s.len) {
        step = utf8_sequence(s.data + at, s.len - at);
        if (step == 0)
            break;
        at += step;
    }
    return at;
}

void tq_emit_str(struct tq_emit *e, struct tq_span utf8)
{
    static const uint8_t replacement[] = {0xef, 0xbf, 0xbd};
    size_t op_at = e->buf->len;
    size_t valid;
    size_t n;

    if (e->err == TQ_OK && utf8.len > FRAME_PAYLOAD_MAX_BYTES)
        e->err = TQ_ELIMIT;
    put_op_le(e, OP_BINUNICODE, utf8.len, 4);
    for (;;) {
        valid = utf8_valid_prefix(utf8);
        put(e, utf8.data, valid);
        if (valid == utf8.len || e->err != TQ_OK)
            break;
        put(e, replacement, sizeof(replacement));
        utf8 = tq_span(utf8.data + valid + 1, utf8.len - valid - 1);
    }
    if (e->err != TQ_OK)
        return;
    n = e->buf->len - op_at - 5;
    if (n > FRAME_PAYLOAD_MAX_BYTES) {
        e->err = TQ_ELIMIT;
        return;
    }
    for (unsigned i = 0; i < 4; i++)
        e->buf->data[op_at + 1 + i] = (uint8_t)(n >> (8 * i));
}

void tq_emit_cstr(struct tq_emit *e, const char *utf8)
{
    tq_emit_str(e, tq_span_str(utf8));
}

void tq_emit_mark(struct tq_emit *e)
{
    put_op(e, OP_MARK);
}

void tq_emit_tuple(struct tq_emit *e)
{
    put_op(e, OP_TUPLE);
}

void tq_emit_tuple_n(struct tq_emit *e, unsigned n)
{
    static const uint8_t ops[] = {OP_EMPTY_TUPLE, OP_TUPLE1, OP_TUPLE2, OP_TUPLE3};

    TQ_ASSERT(n < sizeof(ops));
    put_op(e, ops[n]);
}

void tq_emit_empty_dict(struct tq_emit *e)
{
    put_op(e, OP_EMPTY_DICT);
}

void tq_emit_setitems(struct tq_emit *e)
{
    put_op(e, OP_SETITEMS);
}

void tq_emit_global(struct tq_emit *e, const char *module, const char *name)
{
    /* The two names are lines of text in the stream. */
    TQ_ASSERT(strchr(module, '\n') == NULL && strchr(name, '\n') == NULL);
    put_op(e, OP_GLOBAL);
    put(e, module, strlen(module));
    put_op(e, '\n');
    put(e, name, strlen(name));
    put_op(e, '\n');
}

void tq_emit_reduce(struct tq_emit *e)
{
    put_op(e, OP_REDUCE);
}

void tq_emit_raw(struct tq_emit *e, struct tq_span opcodes)
{
    put(e, opcodes.data, opcodes.len);
}
