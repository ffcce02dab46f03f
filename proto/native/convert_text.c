#include "proto/native/convert_text.h"

#include "proto/python/text.h"

/* Bytes of ASCII at the start of s. */
static size_t ascii_prefix(struct tq_span s)
{
    size_t at = 0;
    uint64_t word;

    for (; s.len - at >= sizeof(word); at += sizeof(word)) {
        memcpy(&word, s.data + at, sizeof(word));
        if (word & 0x8080808080808080u)
            break;
    }
    while (at < s.len && s.data[at] < 0x80)
        at++;
    return at;
}

/* Bytes of the sequence at p, of which the first is no ASCII; 0 when it is malformed. */
static size_t sequence(const uint8_t *p, size_t n)
{
    size_t len = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

    if (len == 0 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong, a surrogate, above U+10FFFF. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

bool tq_utf8_valid(struct tq_span s)
{
    for (;;) {
        size_t n = ascii_prefix(s);

        if (n == s.len)
            return true;
        s = tq_span(s.data + n, s.len - n);
        n = sequence(s.data, s.len);
        if (n == 0)
            return false;
        s = tq_span(s.data + n, s.len - n);
    }
}

/* STRING, BINSTRING, SHORT_BINSTRING: the str of Python 2, which Python 3 loads only if it is ASCII. */
static bool is_old_str(const struct tq_pk_value *v)
{
    return v->opcode == 'S' || v->opcode == 'T' || v->opcode == 'U';
}

static uint64_t utf8_bytes(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

bool tq_text_utf8_len(const struct tq_pk_value *v, uint64_t *ret_len)
{
    struct tq_text_reader r = tq_text_reader(v);
    uint32_t max = is_old_str(v) ? 0x7f : 0x10ffff;
    uint64_t len = 0;

    if (!v->escaped) {
        *ret_len = v->bytes.len;
        return is_old_str(v) ? ascii_prefix(v->bytes) == v->bytes.len : tq_utf8_valid(v->bytes);
    }
    for (;;) {
        uint32_t c = tq_text_next(&r);

        if (c == TQ_TEXT_END)
            break;
        if (c > max || (c >= 0xd800 && c <= 0xdfff))
            return false;
        len += utf8_bytes(c);
    }
    *ret_len = len;
    return true;
}

bool tq_text_latin1_len(const struct tq_pk_value *v, uint64_t *ret_len)
{
    struct tq_text_reader r = tq_text_reader(v);
    uint32_t max = is_old_str(v) ? 0x7f : 0xff;
    uint64_t len = 0;

    if (!v->escaped && !tq_utf8_valid(v->bytes))
        return false;
    for (;;) {
        uint32_t c = tq_text_next(&r);

        if (c == TQ_TEXT_END)
            break;
        if (c > max)
            return false;
        len++;
    }
    *ret_len = len;
    return true;
}

void tq_text_put_utf8(const struct tq_pk_value *v, uint8_t *out)
{
    struct tq_text_reader r = tq_text_reader(v);

    if (!v->escaped) {
        if (v->bytes.len > 0)
            memcpy(out, v->bytes.data, v->bytes.len);
        return;
    }
    for (;;) {
        uint32_t c = tq_text_next(&r);

        if (c == TQ_TEXT_END)
            return;
        if (c < 0x80) {
            *out++ = (uint8_t)c;
            continue;
        }
        if (c < 0x800) {
            *out++ = (uint8_t)(0xc0 | c >> 6);
        } else if (c < 0x10000) {
            *out++ = (uint8_t)(0xe0 | c >> 12);
            *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        } else {
            *out++ = (uint8_t)(0xf0 | c >> 18);
            *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
            *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        }
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    }
}

void tq_text_put_latin1(const struct tq_pk_value *v, uint8_t *out)
{
    struct tq_text_reader r = tq_text_reader(v);

    for (uint32_t c = tq_text_next(&r); c != TQ_TEXT_END; c = tq_text_next(&r))
        *out++ = (uint8_t)c;
}
