#include "proto/python/text.h"

#define END TQ_TEXT_END

int tq_span_compare(struct tq_span a, struct tq_span b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n > 0 ? memcmp(a.data, b.data, n) : 0;

    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

static unsigned hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - (unsigned)'0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - (unsigned)'a' + 10 : 16;
}

/* n hex digits at r->pos; END when there are not so many. */
static uint32_t read_hex(struct tq_text_reader *r, int n)
{
    uint32_t v = 0;

    if (r->end - r->pos < n)
        return END;
    for (int i = 0; i < n; i++) {
        unsigned digit = hex_digit(r->pos[i]);

        if (digit > 15)
            return END;
        v = v << 4 | digit;
    }
    r->pos += n;
    return v;
}

/* Behind a backslash. */
static uint32_t read_repr_escape(struct tq_text_reader *r)
{
    static const char names[] = "\\'\"abfnrtv";
    static const char values[] = "\\'\"\a\b\f\n\r\t\v";
    uint8_t c = *r->pos;
    const char *name = c != 0 ? strchr(names, c) : NULL;
    uint32_t v = 0;

    if (name != NULL) {
        r->pos++;
        return (uint8_t)values[name - names];
    }
    if (c == 'x') {
        r->pos++;
        v = read_hex(r, 2);
        return v == END ? 'x' : v;
    }
    if (c < '0' || c > '7')
        return '\\';
    for (int i = 0; i < 3 && r->pos < r->end && *r->pos >= '0' && *r->pos <= '7'; i++)
        v = v << 3 | (uint32_t)(*r->pos++ - '0');
    return v & 0xff;
}

static uint32_t read_utf8(struct tq_text_reader *r)
{
    uint8_t c = *r->pos++;
    int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
    uint32_t v = more == 3 ? c & 7u : more == 2 ? c & 15u : more == 1 ? c & 31u : c;

    for (; more > 0 && r->pos < r->end; more--)
        v = v << 6 | (*r->pos++ & 0x3fu);
    return v;
}

uint32_t tq_text_next(struct tq_text_reader *r)
{
    uint8_t c;

    if (r->pos == r->end)
        return END;
    if (r->form != 'V' && r->form != 'S')
        return read_utf8(r);
    c = *r->pos++;
    if (c != '\\' || r->pos == r->end)
        return c;
    if (r->form == 'S')
        return read_repr_escape(r);
    if (r->literal || *r->pos == '\\') { /* two of them are two, whatever follows */
        r->literal = !r->literal;
        return '\\';
    }
    if (*r->pos == 'u' || *r->pos == 'U') {
        int digits = *r->pos == 'u' ? 4 : 8;
        uint32_t v;

        r->pos++;
        v = read_hex(r, digits);
        if (v != END)
            return v;
        r->pos--;
    }
    return '\\';
}

struct tq_text_reader tq_text_reader(const struct tq_pk_value *v)
{
    return (struct tq_text_reader){.pos = v->bytes.data,
                                   .end = v->bytes.data + v->bytes.len,
                                   .form = v->escaped ? v->opcode : (uint8_t)'X'};
}

int tq_text_compare(const struct tq_pk_value *a, const struct tq_pk_value *b)
{
    struct tq_text_reader x;
    struct tq_text_reader y;

    /* The order of UTF-8 bytes is that of the code points, surrogates included. */
    if (!a->escaped && !b->escaped)
        return tq_span_compare(a->bytes, b->bytes);
    x = tq_text_reader(a);
    y = tq_text_reader(b);
    for (;;) {
        uint32_t c = tq_text_next(&x);
        uint32_t d = tq_text_next(&y);

        if (c != d) {
            if (c == END || d == END)
                return c == END ? -1 : 1;
            return c < d ? -1 : 1;
        }
        if (c == END)
            return 0;
    }
}
