#include "proto/native/convert.h"

#include "common/err.h"
#include "proto/native/convert_pickle.h"
#include "proto/native/convert_text.h"
#include "proto/native/mp.h"
#include "proto/python/item.h"

#define EXT_TIMESTAMP (-1)
#define HEADER_BYTES  4
#define TUPLE2_BYTES  1
#define STOP_BYTES    1

/* ---- timestamps ---- */

#define DAY_S          86400
#define YEAR_1_S       (-62135596800) /* 0001-01-01T00:00:00Z, Python's datetime.min */
#define YEAR_10000_S   253402300800
#define DATETIME_BYTES 10

/* Of the memo: what every timestamp needs is written once. */
struct clock_memo {
    bool there;
    uint32_t datetime; /* the class */
    uint32_t utc;
};

struct conversion {
    struct tq_mp in;
    struct tq_emit e;
    struct tq_embed embed;
    struct clock_memo clock;
};

/* False: no valid timestamp, or none that Python's datetime can hold. */
static bool read_timestamp(struct tq_span bytes, int64_t *ret_s, uint32_t *ret_us)
{
    uint64_t word;
    uint32_t ns = 0;
    int64_t s;

    switch (bytes.len) {
    case 4:
        s = tq_load_be32(bytes.data);
        break;
    case 8:
        word = tq_load_be64(bytes.data);
        ns = (uint32_t)(word >> 34);
        s = (int64_t)(word & 0x3ffffffff);
        break;
    case 12:
        ns = tq_load_be32(bytes.data);
        s = (int64_t)tq_load_be64(bytes.data + 4);
        break;
    default:
        return false;
    }
    *ret_s = s;
    *ret_us = ns / 1000;
    return ns < 1000000000 && s >= YEAR_1_S && s < YEAR_10000_S;
}

/* The bytes that datetime's own pickles have: year, month, day, hour, minute, second, microsecond. */
static void datetime_state(int64_t s, uint32_t us, uint8_t state[DATETIME_BYTES])
{
    uint64_t from_year_1 = (uint64_t)(s - YEAR_1_S);
    uint32_t second = (uint32_t)(from_year_1 % DAY_S);
    /* Years that begin in March, so that a leap day is a year's last: day 0 is 0000-03-01. */
    uint32_t day = (uint32_t)(from_year_1 / DAY_S) + 306;
    uint32_t era = day / 146097; /* of 400 years */
    uint32_t of_era = day % 146097;
    uint32_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint32_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint32_t month = (5 * of_year + 2) / 153; /* 0 is March */
    uint32_t year = era * 400 + year_of_era + (month >= 10);

    state[0] = (uint8_t)(year >> 8);
    state[1] = (uint8_t)year;
    state[2] = (uint8_t)(month < 10 ? month + 3 : month - 9);
    state[3] = (uint8_t)(of_year - (153 * month + 2) / 5 + 1);
    state[4] = (uint8_t)(second / 3600);
    state[5] = (uint8_t)(second / 60 % 60);
    state[6] = (uint8_t)(second % 60);
    state[7] = (uint8_t)(us >> 16);
    state[8] = (uint8_t)(us >> 8);
    state[9] = (uint8_t)us;
}

/* datetime.datetime(state, utc); utc is datetime.timezone(datetime.timedelta(0)). */
static void emit_datetime(struct conversion *c, const uint8_t state[DATETIME_BYTES])
{
    struct tq_emit *e = &c->e;
    bool first = !c->clock.there;

    if (first) {
        c->clock = (struct clock_memo){true, c->embed.memo_count, c->embed.memo_count + 1};
        c->embed.memo_count += 2;
        tq_emit_global(e, "datetime", "datetime");
        tq_embed_put(&c->embed, c->clock.datetime);
    } else {
        tq_embed_get(&c->embed, c->clock.datetime);
    }
    tq_embed_bytes(&c->embed, tq_span(state, DATETIME_BYTES));
    if (first) {
        tq_emit_global(e, "datetime", "timezone");
        tq_emit_global(e, "datetime", "timedelta");
        tq_emit_tuple_n(e, 0);
        tq_emit_reduce(e);
        tq_emit_tuple_n(e, 1);
        tq_emit_reduce(e);
        tq_embed_put(&c->embed, c->clock.utc);
    } else {
        tq_embed_get(&c->embed, c->clock.utc);
    }
    tq_emit_tuple_n(e, 2);
    tq_emit_reduce(e);
}

/* ---- values that are no containers ---- */

static void emit_u64(struct tq_emit *e, uint64_t v)
{
    uint8_t out[11] = {0x8a, 9}; /* LONG1, little-endian two's complement */

    if (v <= INT64_MAX) {
        tq_emit_int(e, (int64_t)v);
        return;
    }
    for (unsigned i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)(v >> (8 * i));
    tq_emit_raw(e, tq_span(out, sizeof(out)));
}

static void emit_text(struct conversion *c, struct tq_span text)
{
    uint8_t head[5] = {'X'}; /* BINUNICODE */

    if (!tq_utf8_valid(text) || text.len > INT32_MAX) {
        tq_embed_bytes(&c->embed, text);
        return;
    }
    for (unsigned i = 0; i < 4; i++)
        head[1 + i] = (uint8_t)(text.len >> (8 * i));
    tq_emit_raw(&c->e, tq_span(head, sizeof(head)));
    tq_emit_raw(&c->e, text);
}

static int emit_ext(struct conversion *c, int8_t type, struct tq_span bytes)
{
    uint8_t state[DATETIME_BYTES];
    int64_t s;
    uint32_t us;

    if (type == TQ_EXT_PICKLE)
        return tq_embed_pickle(&c->embed, bytes);
    if (type == EXT_TIMESTAMP && read_timestamp(bytes, &s, &us)) {
        datetime_state(s, us, state);
        emit_datetime(c, state);
        return TQ_OK;
    }
    tq_emit_int(&c->e, type);
    tq_embed_bytes(&c->embed, bytes);
    tq_emit_tuple_n(&c->e, 2);
    return TQ_OK;
}

/* TQ_EPROTO: it is none, or was not walked. */
static int emit_scalar(struct conversion *c, enum tq_mp_type type)
{
    struct tq_span bytes;
    uint64_t u;
    int64_t i;
    double real;
    bool truth;
    int8_t ext;

    switch (type) {
    case TQ_MP_NIL:
        if (!tq_mp_nil(&c->in))
            break;
        tq_emit_none(&c->e);
        return TQ_OK;
    case TQ_MP_BOOL:
        if (!tq_mp_bool(&c->in, &truth))
            break;
        tq_emit_bool(&c->e, truth);
        return TQ_OK;
    case TQ_MP_UINT:
        if (!tq_mp_u64(&c->in, &u))
            break;
        emit_u64(&c->e, u);
        return TQ_OK;
    case TQ_MP_INT:
        if (!tq_mp_i64(&c->in, &i))
            break;
        tq_emit_int(&c->e, i);
        return TQ_OK;
    case TQ_MP_FLOAT:
        if (!tq_mp_float(&c->in, &real))
            break;
        tq_emit_float(&c->e, real);
        return TQ_OK;
    case TQ_MP_STR:
        if (!tq_mp_str(&c->in, &bytes))
            break;
        emit_text(c, bytes);
        return TQ_OK;
    case TQ_MP_BIN:
        if (!tq_mp_bin(&c->in, &bytes))
            break;
        tq_embed_bytes(&c->embed, bytes);
        return TQ_OK;
    case TQ_MP_EXT:
        if (!tq_mp_ext(&c->in, &ext, &bytes))
            break;
        return emit_ext(c, ext, bytes);
    default:
        break;
    }
    return TQ_EPROTO;
}

/* ---- containers ---- */

enum open_kind {
    OPEN_LIST,
    OPEN_DICT,
    OPEN_TUPLE, /* an array in a key */
    OPEN_PAIRS, /* a map in a key: the tuple of its pairs */
};

struct open {
    uint32_t kind;
    uint32_t left;  /* values that are to come */
    uint32_t count; /* elements or pairs */
};

static void emit_op(struct conversion *c, uint8_t opcode)
{
    tq_emit_raw(&c->e, tq_span(&opcode, 1));
}

static bool is_tuple(const struct open *o)
{
    return o->kind == OPEN_TUPLE || o->kind == OPEN_PAIRS;
}

static void open_container(struct conversion *c, const struct open *o)
{
    if (is_tuple(o)) {
        if (o->count > 3)
            tq_emit_mark(&c->e);
        return;
    }
    emit_op(c, o->kind == OPEN_LIST ? ']' : '}');
    if (o->count > 1)
        tq_emit_mark(&c->e);
}

static void close_container(struct conversion *c, const struct open *o)
{
    if (is_tuple(o)) {
        if (o->count > 3)
            tq_emit_tuple(&c->e);
        else
            tq_emit_tuple_n(&c->e, o->count);
    } else if (o->count > 1) {
        emit_op(c, o->kind == OPEN_LIST ? 'e' : 'u'); /* APPENDS, SETITEMS */
    } else if (o->count == 1) {
        emit_op(c, o->kind == OPEN_LIST ? 'a' : 's'); /* APPEND, SETITEM */
    }
}

/* The header of an array or a map. */
static int read_container(struct conversion *c, enum tq_mp_type type, bool in_key, struct open *ret)
{
    uint32_t n;

    if (type == TQ_MP_ARRAY && tq_mp_array(&c->in, &n)) {
        *ret = (struct open){.kind = in_key ? OPEN_TUPLE : OPEN_LIST, .left = n, .count = n};
        return TQ_OK;
    }
    if (type == TQ_MP_MAP && tq_mp_map(&c->in, &n) && n <= UINT32_MAX / 2) {
        *ret = (struct open){.kind = in_key ? OPEN_PAIRS : OPEN_DICT, .left = 2 * n, .count = n};
        return TQ_OK;
    }
    return TQ_EPROTO;
}

/* A value of the innermost container is complete. */
static void count_value(struct conversion *c, struct open *o)
{
    o->left--;
    if (o->kind == OPEN_PAIRS && o->left % 2 == 0)
        tq_emit_tuple_n(&c->e, 2);
}

static int emit_value(struct conversion *c)
{
    struct open open[TQ_MP_DEPTH_MAX];
    uint32_t depth = 0;

    for (;;) {
        struct open *o = depth > 0 ? &open[depth - 1] : NULL;
        enum tq_mp_type type = tq_mp_peek(&c->in);
        bool in_key = o != NULL && (is_tuple(o) || (o->kind == OPEN_DICT && o->left % 2 == 0));
        int rv;

        if (type == TQ_MP_ARRAY || type == TQ_MP_MAP) {
            if (depth == TQ_MP_DEPTH_MAX)
                return TQ_EPROTO;
            rv = read_container(c, type, in_key, &open[depth]);
            if (rv != TQ_OK)
                return rv;
            o = &open[depth++];
            open_container(c, o);
        } else {
            rv = emit_scalar(c, type);
            if (rv != TQ_OK)
                return rv;
            if (o != NULL)
                count_value(c, o);
        }
        while (depth > 0 && open[depth - 1].left == 0) {
            close_container(c, &open[--depth]);
            if (depth > 0)
                count_value(c, &open[depth - 1]);
        }
        if (depth == 0)
            return TQ_OK;
        if (c->e.err != TQ_OK)
            return c->e.err;
    }
}

/* ---- frames ---- */

#define ROOM_BYTES 32 /* what a frame has around a value of one opcode, and a little more */

/* A frame up to the item: the length, PROTO 3 (bytes are of that protocol), BINUNICODE '#RETURN'. */
static const uint8_t beginning[] = {0, 0, 0, 0, 0x80, 3, 'X', 7, 0, 0, 0, '#', 'R', 'E', 'T', 'U', 'R', 'N'};

/* An ext alone: the pickle is what a request for the item would have had, and is kept as such. */
static int keep_pickle(struct tq_span pickle, struct tq_buf *out, uint32_t *ret_item_off,
                       uint32_t *ret_item_len)
{
    struct tq_body *body;
    struct tq_pickle p;
    const char *why;
    int rv = tq_pickle_scan(&p, pickle, &why);

    if (rv != TQ_OK)
        return rv == TQ_ENOMEM ? rv : TQ_EPROTO;
    rv = tq_item_from_request(&p, p.value, &body);
    tq_pickle_deinit(&p);
    if (rv != TQ_OK)
        return rv;
    rv = tq_buf_append(out, body->data, body->len);
    *ret_item_off = body->item_off;
    *ret_item_len = body->item_len;
    tq_body_unref(body);
    return rv;
}

static bool is_pickle_alone(struct tq_span value, struct tq_span *ret_pickle)
{
    struct tq_mp in = tq_mp_of(value);
    int8_t type;

    return tq_mp_peek(&in) == TQ_MP_EXT && tq_mp_ext(&in, &type, ret_pickle) && type == TQ_EXT_PICKLE;
}

int tq_convert_to_python(struct tq_span value, struct tq_buf *out, uint32_t *ret_item_off,
                         uint32_t *ret_item_len)
{
    struct conversion c = {.in = tq_mp_of(value), .e = {.buf = out, .start = out->len}};
    struct tq_span pickle;
    size_t start = out->len;
    int rv = TQ_OK;

    if (is_pickle_alone(value, &pickle))
        return keep_pickle(pickle, out, ret_item_off, ret_item_len);
    /* Most bodies need no more than that. */
    if (value.len < out->max - start && out->max - start - value.len >= ROOM_BYTES)
        rv = tq_buf_reserve(out, value.len + ROOM_BYTES);
    c.embed = (struct tq_embed){.e = &c.e, .proto = 3};
    tq_emit_raw(&c.e, tq_span(beginning, sizeof(beginning)));
    if (rv == TQ_OK)
        rv = emit_value(&c);
    if (rv != TQ_OK && c.e.err == TQ_OK)
        c.e.err = rv;
    tq_emit_tuple_n(&c.e, 2);
    rv = tq_emit_end(&c.e);
    if (rv != TQ_OK)
        return rv;
    out->data[start + HEADER_BYTES + 1] = c.embed.proto;
    *ret_item_off = sizeof(beginning);
    *ret_item_len = (uint32_t)(out->len - start - sizeof(beginning) - TUPLE2_BYTES - STOP_BYTES);
    return TQ_OK;
}
