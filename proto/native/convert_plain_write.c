/* Writing: from the last token to the first, from the end of the output to its beginning. */
#include "proto/native/convert_plain_tokens.h"
#include "proto/native/convert_text.h"
#include "proto/native/mp.h"

#include "common/assert.h"
#include "common/err.h"
#include "proto/python/pickle_ops.h"

/* ---- scalars ---- */

static uint64_t str_size(uint64_t len)
{
    return len + (len <= 31 ? 1 : len <= 0xff ? 2 : len <= 0xffff ? 3 : 5);
}

static uint64_t int_size(int64_t v)
{
    if (v >= 0)
        return v <= 0x7f ? 1 : v <= 0xff ? 2 : v <= 0xffff ? 3 : v <= UINT32_MAX ? 5 : 9;
    return v >= -32 ? 1 : v >= INT8_MIN ? 2 : v >= INT16_MIN ? 3 : v >= INT32_MIN ? 5 : 9;
}

/* A TQ_PK_BIGINT, which is no int64_t. */
static bool big_u64(const struct tq_pk_value *v, uint64_t *ret)
{
    const uint8_t *p = v->bytes.data;
    uint64_t n = 0;

    if (!v->escaped) {
        if (v->bytes.len != 9 || p[8] != 0)
            return false;
        for (unsigned i = 8; i > 0; i--)
            n = n << 8 | p[i - 1];
    } else {
        for (size_t i = 0; i < v->bytes.len; i++)
            if (p[i] == '-' || __builtin_mul_overflow(n, 10u, &n) ||
                __builtin_add_overflow(n, (uint64_t)(p[i] - '0'), &n))
                return false;
    }
    *ret = n;
    return true;
}

bool tq_plain_scalar_size(const struct tq_pk_value *v, uint64_t *ret_size)
{
    uint64_t n;

    switch (v->kind) {
    case TQ_PK_NONE:
    case TQ_PK_BOOL:
        *ret_size = 1;
        return true;
    case TQ_PK_INT:
        *ret_size = int_size(v->integer);
        return true;
    case TQ_PK_BIGINT:
        *ret_size = 9;
        return big_u64(v, &n);
    case TQ_PK_FLOAT:
        *ret_size = 9;
        return true;
    case TQ_PK_STR:
        if (!tq_text_utf8_len(v, &n))
            return false;
        *ret_size = str_size(n);
        return true;
    case TQ_PK_BYTES:
        *ret_size = bin_size(v->bytes.len);
        return true;
    default:
        return false;
    }
}

/* Only the head of a str or bin; the size tells how long it is, for no other length has the same. */
static uint8_t *write_head(uint8_t *out, size_t size, bool bin)
{
    size_t len;

    if (size <= 32 && !bin) {
        *out = (uint8_t)(0xa0 | (size - 1));
        return out + 1;
    }
    if (size <= 0xff + 2) {
        out[0] = bin ? 0xc4 : 0xd9;
        out[1] = (uint8_t)(size - 2);
        return out + 2;
    }
    if (size <= 0xffff + 3) {
        len = size - 3;
        out[0] = bin ? 0xc5 : 0xda;
        out[1] = (uint8_t)(len >> 8);
        out[2] = (uint8_t)len;
        return out + 3;
    }
    out[0] = bin ? 0xc6 : 0xdb;
    tq_store_be32(out + 1, (uint32_t)(size - 5));
    return out + 5;
}

void tq_plain_scalar_write(const struct tq_pk_value *v, uint8_t *out, size_t size)
{
    struct tq_buf window = {.data = out, .cap = size, .max = size};
    struct tq_mp_out o = tq_mp_out(&window);
    uint64_t n = 0;

    switch (v->kind) {
    case TQ_PK_BOOL:
        tq_mp_put_bool(&o, v->boolean);
        break;
    case TQ_PK_INT:
        tq_mp_put_i64(&o, v->integer);
        break;
    case TQ_PK_BIGINT:
        big_u64(v, &n);
        tq_mp_put_u64(&o, n);
        break;
    case TQ_PK_FLOAT:
        tq_mp_put_float(&o, v->real);
        break;
    case TQ_PK_STR:
        tq_text_put_utf8(v, write_head(out, size, false));
        return;
    case TQ_PK_BYTES:
        tq_mp_put_bin(&o, v->bytes);
        break;
    default:
        tq_mp_put_nil(&o);
        break;
    }
    TQ_ASSERT(o.err == TQ_OK && window.len == size);
}

void token_value(const struct tq_plain *p, uint32_t token, struct tq_pk_value *v)
{
    const uint8_t *data = p->input.data;
    uint32_t next = tq_pk_op_end(data, token, (uint32_t)p->input.len, &tq_pk_ops[data[token]]);

    TQ_ASSERT(tq_pk_scalar(data, token, next, v) == TQ_OK);
}

/* ---- everything ---- */

/* Containers that are open, and the references through which they were reached. A memo entry of a reference
 * is one more step; no pickler makes these. */
#define OPEN_MAX (2 * TQ_MP_DEPTH_MAX + 16)

enum open_kind {
    OPEN_ARRAY,
    OPEN_MAP,
    OPEN_INTO_LIST, /* then the container goes on */
    OPEN_INTO_DICT,
    OPEN_RETURN, /* from a reference, to the token `left` */
};

struct open {
    uint16_t kind;
    bool in_key;    /* it is a dict's key, or part of one */
    uint32_t left;  /* values that are to come */
    uint32_t count; /* for the header */
};

struct writer {
    const struct tq_plain *p;
    uint8_t *out;
    size_t at;       /* what is written begins here */
    uint32_t cursor; /* behind the token that comes next */
    uint32_t open_count;
    uint32_t depth; /* of containers */
    struct open open[OPEN_MAX];
};

static uint8_t *room(struct writer *w, uint64_t n)
{
    TQ_ASSERT(n <= w->at);
    w->at -= (size_t)n;
    return w->out + w->at;
}

static void write_container_head(struct writer *w, bool map, uint32_t count)
{
    uint32_t n = head_size(count);
    struct tq_buf window = {.data = room(w, n), .cap = n, .max = n};
    struct tq_mp_out o = tq_mp_out(&window);

    if (map)
        tq_mp_put_map(&o, count);
    else
        tq_mp_put_array(&o, count);
}

static void write_scalar(struct writer *w, uint32_t token)
{
    struct tq_pk_value v;
    uint64_t size = 0;

    token_value(w->p, token, &v);
    if (v.kind == TQ_PK_STR && !v.escaped)
        size = str_size(v.bytes.len); /* it was looked at once */
    else
        tq_plain_scalar_size(&v, &size);
    tq_plain_scalar_write(&v, room(w, size), (size_t)size);
}

static void write_latin1(struct writer *w)
{
    const uint32_t *tokens = w->p->tokens;
    uint32_t text = tokens[w->cursor - (LATIN1_TOKENS - 1)];
    struct tq_pk_value v;
    uint64_t len = 0;
    uint64_t size;

    if (!token_is_scalar(text))
        text = tokens[w->p->memo[token_arg(text)].last - 1];
    token_value(w->p, text, &v);
    tq_text_latin1_len(&v, &len);
    size = bin_size(len);
    tq_text_put_latin1(&v, write_head(room(w, size), (size_t)size, true));
    w->cursor -= LATIN1_TOKENS;
}

/* Is the value that comes next a key, or part of one? Pairs are read from behind, the value first. */
static bool next_in_key(const struct writer *w)
{
    const struct open *top;

    if (w->open_count == 0)
        return false;
    top = &w->open[w->open_count - 1];
    return top->in_key || ((top->kind == OPEN_MAP || top->kind == OPEN_INTO_DICT) && top->left % 2 == 1);
}

static int open_one(struct writer *w, enum open_kind kind, uint32_t left, uint32_t count)
{
    bool in_key = next_in_key(w);

    if (w->open_count == OPEN_MAX)
        return TQ_PLAIN_NOT;
    if (kind != OPEN_RETURN && ++w->depth > TQ_MP_DEPTH_MAX)
        return TQ_PLAIN_NOT;
    w->open[w->open_count++] =
        (struct open){.kind = (uint16_t)kind, .in_key = in_key, .left = left, .count = count};
    return TQ_OK;
}

/* A value is complete, and so may be what it is in. True: all is. */
static bool finish_value(struct writer *w)
{
    while (w->open_count > 0) {
        struct open *top = &w->open[w->open_count - 1];

        if (top->kind == OPEN_RETURN) {
            w->cursor = top->left;
        } else {
            if (--top->left > 0)
                return false;
            w->depth--;
            if (top->kind == OPEN_ARRAY || top->kind == OPEN_MAP)
                write_container_head(w, top->kind == OPEN_MAP, top->count);
        }
        w->open_count--;
        if (top->kind == OPEN_INTO_LIST || top->kind == OPEN_INTO_DICT)
            return false;
    }
    return true;
}

/* An empty one is a value at once. */
static int write_empty(struct writer *w, bool map)
{
    if (w->depth == TQ_MP_DEPTH_MAX)
        return TQ_PLAIN_NOT;
    write_container_head(w, map, 0);
    return TQ_OK;
}

static int write_misc(struct writer *w, uint32_t what)
{
    switch (what) {
    case MISC_LATIN1:
        write_latin1(w);
        return TQ_OK;
    case MISC_NO_BYTES:
        write_head(room(w, bin_size(0)), bin_size(0), true);
        w->cursor -= NO_BYTES_TOKENS;
        return TQ_OK;
    default:
        return TQ_PLAIN_NOT;
    }
}

#define GOES_ON 2 /* the value is not complete */

static int write_token(struct writer *w, uint32_t token)
{
    uint32_t type = token_type(token);
    uint32_t arg = token_arg(token);
    uint32_t from;
    int rv;

    /* What Python would not take for a key. */
    if ((type == TOKEN_LIST || type == TOKEN_DICT || type == TOKEN_INTO || type == TOKEN_MAP) &&
        next_in_key(w))
        return TQ_PLAIN_NOT;
    switch (type) {
    case TOKEN_SCALAR:
        write_scalar(w, token);
        return TQ_OK;
    case TOKEN_MEMO:
        return GOES_ON;
    case TOKEN_GET:
        from = w->cursor;
        w->cursor = w->p->memo[arg].last;
        rv = open_one(w, OPEN_RETURN, from, 0);
        return rv == TQ_OK ? GOES_ON : rv;
    case TOKEN_INTO:
        rv = open_one(w, arg & INTO_DICT ? OPEN_INTO_DICT : OPEN_INTO_LIST, arg & INTO_MAX, 0);
        return rv == TQ_OK ? GOES_ON : rv;
    case TOKEN_LIST:
    case TOKEN_DICT:
        if (arg == 0)
            return write_empty(w, type == TOKEN_DICT);
        write_container_head(w, type == TOKEN_DICT, arg);
        return TQ_OK;
    case TOKEN_ARRAY:
    case TOKEN_MAP:
        if (arg == 0)
            return write_empty(w, type == TOKEN_MAP);
        rv = open_one(w, type == TOKEN_MAP ? OPEN_MAP : OPEN_ARRAY, type == TOKEN_MAP ? 2 * arg : arg, arg);
        return rv == TQ_OK ? GOES_ON : rv;
    default:
        return write_misc(w, arg);
    }
}

int tq_plain_write(const struct tq_plain *p, uint8_t *out)
{
    struct writer w = {.p = p, .out = out, .at = p->item_size, .cursor = p->token_count};

    for (;;) {
        int rv;

        TQ_ASSERT(w.cursor > 0);
        rv = write_token(&w, p->tokens[--w.cursor]);
        if (rv == GOES_ON)
            continue;
        if (rv != TQ_OK)
            return rv;
        if (finish_value(&w))
            break;
    }
    TQ_ASSERT(w.at == 0);
    return TQ_OK;
}
