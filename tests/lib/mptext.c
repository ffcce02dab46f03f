#include "tests/lib/mptext.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"

/* ---- text to msgpack ---- */

struct reader {
    const char *at;
    struct tq_mp_out o;
    bool bad;
};

static char peek(struct reader *r)
{
    while (*r->at == ' ' || *r->at == '\n')
        r->at++;
    return *r->at;
}

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static struct tq_span read_word(struct reader *r)
{
    const char *from = r->at;

    while (word_char(*r->at))
        r->at++;
    return tq_span(from, (size_t)(r->at - from));
}

/* 'text' with \xNN, \' and \\ in it. */
static void read_string(struct reader *r, struct tq_buf *s)
{
    if (*r->at++ != '\'') {
        r->bad = true;
        return;
    }
    while (*r->at != '\'' && *r->at != '\0') {
        unsigned byte = (unsigned char)*r->at++;

        if (byte == '\\' && *r->at == 'x') {
            char hex[3] = {r->at[1], r->at[1] != '\0' ? r->at[2] : '\0', '\0'};
            char *end;

            byte = (unsigned)strtoul(hex, &end, 16);
            r->bad |= end != hex + 2;
            if (r->bad)
                return;
            r->at += 3;
        } else if (byte == '\\') {
            byte = (unsigned char)*r->at++;
        }
        TQ_ASSERT(tq_buf_append_u8(s, (uint8_t)byte) == 0);
    }
    r->bad |= *r->at != '\'';
    r->at += *r->at == '\'';
}

static void read_value(struct reader *r);

static void read_number(struct reader *r)
{
    char *end, *float_end;
    long long i = strtoll(r->at, &end, 10);
    unsigned long long u = strtoull(r->at, NULL, 10);
    double d = strtod(r->at, &float_end);

    r->bad |= end == r->at && float_end == r->at;
    if (float_end > end) {
        tq_mp_put_float(&r->o, d);
        end = float_end;
    } else if (*r->at == '-') {
        tq_mp_put_i64(&r->o, i);
    } else {
        tq_mp_put_u64(&r->o, u);
    }
    r->at = end;
}

static void read_word_value(struct reader *r)
{
    struct tq_buf s = TQ_BUF_NULL(1u << 24);
    struct tq_span word;

    if (*r->at == '\'') {
        read_string(r, &s);
        tq_mp_put_str(&r->o, tq_buf_span(&s));
    } else if (r->at[0] == 'b' && r->at[1] == '\'') {
        r->at++;
        read_string(r, &s);
        tq_mp_put_bin(&r->o, tq_buf_span(&s));
    } else if (r->at[0] == 'x' && (isdigit((unsigned char)r->at[1]) || r->at[1] == '-')) {
        long type = strtol(r->at + 1, (char **)(uintptr_t)&r->at, 10);

        read_string(r, &s);
        tq_mp_put_ext(&r->o, (int8_t)type, tq_buf_span(&s));
    } else {
        word = read_word(r);
        if (tq_span_is(word, "nil"))
            tq_mp_put_nil(&r->o);
        else if (tq_span_is(word, "true") || tq_span_is(word, "false"))
            tq_mp_put_bool(&r->o, word.data[0] == 't');
        else
            r->bad = true;
    }
    tq_buf_deinit(&s);
}

/* The elements up to `close`, into a buffer of their own; how many. */
static uint32_t read_elements(struct reader *r, char close, struct tq_buf *into)
{
    struct tq_mp_out outer = r->o;
    uint32_t count = 0;

    r->o = tq_mp_out(into);
    r->at++;
    while (!r->bad && peek(r) != close) {
        if (close == '}') {
            if (word_char(*r->at) && !(r->at[0] == 'b' && r->at[1] == '\'') &&
                !isdigit((unsigned char)*r->at))
                tq_mp_put_str(&r->o, read_word(r));
            else
                read_value(r);
            r->bad |= peek(r) != ':';
            r->at += !r->bad;
        }
        read_value(r);
        count++;
        if (peek(r) == ',')
            r->at++;
        else
            r->bad |= *r->at != close;
    }
    r->at += !r->bad;
    r->o = outer;
    return count;
}

static void read_value(struct reader *r) /* NOLINT(misc-no-recursion): the input is a test's */
{
    struct tq_buf inside = TQ_BUF_NULL(1u << 24);
    uint32_t count;
    char c = peek(r);

    if (c == '[' || c == '{') {
        count = read_elements(r, c == '[' ? ']' : '}', &inside);
        if (c == '[')
            tq_mp_put_array(&r->o, count);
        else
            tq_mp_put_map(&r->o, count);
        tq_mp_put_raw(&r->o, tq_buf_span(&inside));
        tq_buf_deinit(&inside);
    } else if (c == '-' || isdigit((unsigned char)c)) {
        read_number(r);
    } else {
        read_word_value(r);
    }
}

bool mptext_encode(const char *text, struct tq_buf *out)
{
    struct reader r = {.at = text, .o = tq_mp_out(out)};

    read_value(&r);
    return !r.bad && r.o.err == 0 && peek(&r) == '\0';
}

/* ---- msgpack to text ---- */

static void write_string(FILE *f, struct tq_span s, const char *before)
{
    fprintf(f, "%s'", before);
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < ' ' || s.data[i] > '~')
            fprintf(f, "\\x%02x", s.data[i]);
        else
            fprintf(f, "%s%c", s.data[i] == '\'' || s.data[i] == '\\' ? "\\" : "", s.data[i]);
    }
    fputc('\'', f);
}

static bool is_word(struct tq_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!word_char((char)s.data[i]))
            return false;
    }
    return s.len > 0 && !isdigit(s.data[0]);
}

static void write_value(FILE *f, struct tq_mp *c);

static void write_container(FILE *f, struct tq_mp *c) /* NOLINT(misc-no-recursion): walked */
{
    uint32_t count;
    bool map = !tq_mp_array(c, &count);

    if (map)
        TQ_ASSERT(tq_mp_map(c, &count));
    fputc(map ? '{' : '[', f);
    for (uint32_t i = 0; i < count; i++) {
        struct tq_mp key = *c;
        struct tq_span word;

        if (i > 0)
            fputc(',', f);
        if (map && tq_mp_str(&key, &word) && is_word(word)) {
            fprintf(f, "%.*s", (int)word.len, (const char *)word.data);
            *c = key;
        } else if (map) {
            write_value(f, c);
        }
        if (map)
            fputc(':', f);
        write_value(f, c);
    }
    fputc(map ? '}' : ']', f);
}

static void write_value(FILE *f, struct tq_mp *c) /* NOLINT(misc-no-recursion): walked */
{
    struct tq_span s;
    uint64_t u;
    int64_t i;
    double d;
    bool b;
    int8_t type;
    char before[8];

    if (tq_mp_nil(c)) {
        fputs("nil", f);
    } else if (tq_mp_bool(c, &b)) {
        fputs(b ? "true" : "false", f);
    } else if (tq_mp_u64(c, &u)) {
        fprintf(f, "%llu", (unsigned long long)u);
    } else if (tq_mp_i64(c, &i)) {
        fprintf(f, "%lld", (long long)i);
    } else if (tq_mp_float(c, &d)) {
        fprintf(f, "%#.17g", d);
    } else if (tq_mp_str(c, &s)) {
        write_string(f, s, "");
    } else if (tq_mp_bin(c, &s)) {
        write_string(f, s, "b");
    } else if (tq_mp_ext(c, &type, &s)) {
        (void)snprintf(before, sizeof(before), "x%d", type);
        write_string(f, s, before);
    } else {
        write_container(f, c);
    }
}

char *mptext_decode(struct tq_span value)
{
    struct tq_mp c = tq_mp_of(value);
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    TQ_ASSERT(f != NULL);
    write_value(f, &c);
    TQ_ASSERT(fclose(f) == 0 && text != NULL);
    return text;
}

bool mptext_match(const char *pattern, const char *text)
{
    const char *star = NULL, *from = text;

    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            from = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}
