/* Items as msgpack. Whether Python agrees is what tests/integration/test_convert.py asks; the way back is in
 * test_convert_python.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/native/convert.h"
#include "proto/native/mp.h"
#include "proto/python/item.h"
#include "tests/lib/guard.h"

#define BYTES(text) text, sizeof(text) - 1
#define RETURN      "X\7\0\0\0#RETURN"
#define MAX_BYTES   (64u << 20)

static uint8_t g_frame[1 << 21];
static uint32_t g_item_off;

/* A reply frame in g_frame; its length. */
static size_t make_frame(const void *prefix, size_t prefix_len, const void *item, size_t item_len)
{
    uint8_t *out = g_frame + 4;

    assert_true(prefix_len + item_len + 64 < sizeof(g_frame));
    memcpy(out, "\x80\4", 2);
    out += 2;
    memcpy(out, prefix, prefix_len);
    out += prefix_len;
    memcpy(out, RETURN, 12);
    out += 12;
    g_item_off = (uint32_t)(out - g_frame);
    memcpy(out, item, item_len);
    out += item_len;
    memcpy(out, "\x86.", 2);
    out += 2;
    tq_store_be32(g_frame, (uint32_t)(out - g_frame - 4));
    return (size_t)(out - g_frame);
}

/* What g_frame's item is as msgpack; behind something that is there already. */
static int convert(size_t frame_len, size_t item_len, size_t max_bytes, struct tq_buf *out)
{
    uint8_t *copy = guard_copy(g_frame, frame_len);
    const char *why = NULL;
    int rv;

    tq_buf_clear(out);
    assert_int_equal(tq_buf_append(out, "before", 6), TQ_OK);
    rv = tq_convert_to_msgpack(tq_span(copy, frame_len), g_item_off, (uint32_t)item_len, max_bytes, out);
    guard_free(copy, frame_len);
    assert_memory_equal(out->data, "before", 6);
    if (rv != TQ_OK) {
        assert_int_equal(out->len, 6);
        return rv;
    }
    tq_buf_consume(out, 6);
    assert_true(out->len <= max_bytes);
    if (tq_mp_walk_all(tq_buf_span(out), &why) != TQ_OK)
        fail_msg("%s", why);
    return rv;
}

static bool is_pickle(const struct tq_buf *value, struct tq_span *ret_pickle)
{
    struct tq_mp in = tq_mp_of(tq_buf_span(value));
    int8_t type = 0;

    return tq_mp_ext(&in, &type, ret_pickle) && type == TQ_EXT_PICKLE && tq_mp_peek(&in) == TQ_MP_END;
}

#define NONE "", 0

static const struct {
    const char *prefix;
    size_t prefix_len;
    const char *item;
    size_t item_len;
    const char *value; /* NULL: an ext */
    size_t value_len;
} items[] = {
    /* scalars */
    {NONE, BYTES("N"), BYTES("\xc0")},
    {NONE, BYTES("N\x94"), BYTES("\xc0")},
    {NONE, BYTES("\x88"), BYTES("\xc3")},
    {NONE, BYTES("\x89"), BYTES("\xc2")},
    {NONE, BYTES("I01\n"), BYTES("\xc3")},
    {NONE, BYTES("I00\n"), BYTES("\xc2")},
    {NONE, BYTES("I1\n"), BYTES("\1")},
    {NONE, BYTES("L-1L\n"), BYTES("\xff")},
    {NONE, BYTES("K\x7f"), BYTES("\x7f")},
    {NONE, BYTES("K\x80"), BYTES("\xcc\x80")},
    {NONE, BYTES("K\xff"), BYTES("\xcc\xff")},
    {NONE, BYTES("M\0\1"), BYTES("\xcd\1\0")},
    {NONE, BYTES("M\xff\xff"), BYTES("\xcd\xff\xff")},
    {NONE, BYTES("J\0\0\1\0"), BYTES("\xce\0\1\0\0")},
    {NONE, BYTES("J\xe0\xff\xff\xff"), BYTES("\xe0")},
    {NONE, BYTES("J\xdf\xff\xff\xff"), BYTES("\xd0\xdf")},
    {NONE, BYTES("J\x7f\xff\xff\xff"), BYTES("\xd1\xff\x7f")},
    {NONE, BYTES("J\xff\x7f\xff\xff"), BYTES("\xd2\xff\xff\x7f\xff")},
    {NONE, BYTES("\x8a\0"), BYTES("\0")},
    {NONE, BYTES("\x8a\5\xff\xff\xff\xff\0"), BYTES("\xce\xff\xff\xff\xff")},
    {NONE, BYTES("\x8a\5\0\0\0\0\1"), BYTES("\xcf\0\0\0\1\0\0\0\0")},
    {NONE, BYTES("\x8a\5\xff\xff\xff\x7f\xff"), BYTES("\xd3\xff\xff\xff\xff\x7f\xff\xff\xff")},
    {NONE, BYTES("\x8a\x08\0\0\0\0\0\0\0\x80"), BYTES("\xd3\x80\0\0\0\0\0\0\0")},
    {NONE, BYTES("\x8a\x09\0\0\0\0\0\0\0\x80\0"), BYTES("\xcf\x80\0\0\0\0\0\0\0")},
    {NONE, BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0"),
     BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff")},
    {NONE, BYTES("\x8b\x0a\0\0\0\1\0\0\0\0\0\0\x80\0\0"), BYTES("\xcf\x80\0\0\0\0\0\0\1")},
    {NONE, BYTES("L18446744073709551615L\n"), BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff")},
    {NONE, BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff"), NULL, 0},
    {NONE, BYTES("\x8a\x09\0\0\0\0\0\0\0\0\1"), NULL, 0},
    {NONE, BYTES("L18446744073709551616L\n"), NULL, 0},
    {NONE, BYTES("L-9223372036854775809L\n"), NULL, 0},
    {NONE, BYTES("Ix\n"), NULL, 0},
    {NONE, BYTES("G?\xf8\0\0\0\0\0\0"), BYTES("\xcb?\xf8\0\0\0\0\0\0")},
    {NONE, BYTES("G\x7f\xf8\0\0\0\0\0\0"), BYTES("\xcb\x7f\xf8\0\0\0\0\0\0")},
    {NONE, BYTES("G\xff\xf0\0\0\0\0\0\0"), BYTES("\xcb\xff\xf0\0\0\0\0\0\0")},
    {NONE, BYTES("F1.5\n"), BYTES("\xcb?\xf8\0\0\0\0\0\0")},
    {NONE, BYTES("X\0\0\0\0"), BYTES("\xa0")},
    {NONE, BYTES("\x8c\3abc"),
     BYTES("\xa3"
           "abc")},
    {NONE, BYTES("\x8d\3\0\0\0\0\0\0\0abc"),
     BYTES("\xa3"
           "abc")},
    {NONE, BYTES("\x8c\5\xc3\xa4\xe2\x82\xac"), BYTES("\xa5\xc3\xa4\xe2\x82\xac")},
    {NONE, BYTES("\x8c\4\xf4\x8f\xbf\xbf"), BYTES("\xa4\xf4\x8f\xbf\xbf")},
    {NONE,
     BYTES("\x8c\x09\xe2\x82\xac"
           "12345\0"),
     BYTES("\xa9\xe2\x82\xac"
           "12345\0")},
    {NONE, BYTES("\x8c\3\xed\xb0\x80"), NULL, 0}, /* a lone surrogate */
    {NONE, BYTES("\x8c\3\xed\x9f\xbf"), BYTES("\xa3\xed\x9f\xbf")},
    {NONE, BYTES("\x8c\3\xee\x80\x80"), BYTES("\xa3\xee\x80\x80")},
    {NONE, BYTES("\x8c\1\x80"), NULL, 0},             /* no UTF-8, which Python cannot load */
    {NONE, BYTES("\x8c\2\xc1\xbf"), NULL, 0},         /* overlong */
    {NONE, BYTES("\x8c\3\xe0\x9f\xbf"), NULL, 0},     /* overlong */
    {NONE, BYTES("\x8c\4\xf0\x8f\xbf\xbf"), NULL, 0}, /* overlong */
    {NONE, BYTES("\x8c\4\xf4\x90\x80\x80"), NULL, 0}, /* above U+10FFFF */
    {NONE, BYTES("\x8c\4\xf5\x80\x80\x80"), NULL, 0},
    {NONE, BYTES("\x8c\2\xe2\x82"), NULL, 0}, /* cut */
    {NONE, BYTES("\x8c\3\xe2\x82x"), NULL, 0},
    {NONE, BYTES("Vabc\n"),
     BYTES("\xa3"
           "abc")},
    {NONE, BYTES("V\xe4\\u20ac\\U0001f40d\\n\n"), BYTES("\xab\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x8d\\n")},
    {NONE, BYTES("V\\\\u20ac\\\\\\u20ac\n"), BYTES("\xac\\\\u20ac\\\\\xe2\x82\xac")},
    {NONE, BYTES("V\\ud800\n"), NULL, 0},
    {NONE, BYTES("V\\U00110000\n"), NULL, 0},
    {NONE, BYTES("S'a\\x41\\n'\n"),
     BYTES("\xa3"
           "aA\n")},
    {NONE, BYTES("S'\\x80'\n"), NULL, 0}, /* the str of Python 2 is loaded as ASCII */
    {NONE, BYTES("U\1a"),
     BYTES("\xa1"
           "a")},
    {NONE, BYTES("U\1\x80"), NULL, 0},
    {NONE, BYTES("T\2\0\0\0\xc3\xa4"), NULL, 0},
    {NONE, BYTES("C\0"), BYTES("\xc4\0")},
    {NONE, BYTES("C\2\xff\0"), BYTES("\xc4\2\xff\0")},
    {NONE, BYTES("B\2\0\0\0\xff\0\x94"), BYTES("\xc4\2\xff\0")},
    {NONE, BYTES("\x8e\2\0\0\0\0\0\0\0\xff\0"), BYTES("\xc4\2\xff\0")},
    /* bytes below protocol 3 */
    {NONE, BYTES("c_codecs\nencode\nX\3\0\0\0a\xc3\xa9X\6\0\0\0latin1\x86R"), BYTES("\xc4\2a\xe9")},
    {NONE, BYTES("c_codecs\nencode\nq\1X\1\0\0\0aq\2X\6\0\0\0latin1q\3\x86q\4Rq\5"), BYTES("\xc4\1a")},
    {NONE, BYTES("c_codecs\nencode\np0\n(V\xe9\\u000a\np1\nVlatin1\np2\ntp3\nRp4\n"), BYTES("\xc4\2\xe9\n")},
    {NONE, BYTES("(c_codecs\nencode\nq\1X\1\0\0\0aq\2X\6\0\0\0latin1q\3\x86q\4Rq\5h\1h\2h\3\x86Rh\5h\2t"),
     BYTES("\x94\xc4\1a\xc4\1a\xc4\1a\xa1"
           "a")},
    {NONE, BYTES("c__builtin__\nbytes\n)R"), BYTES("\xc4\0")},
    {NONE, BYTES("cbuiltins\nbytes\n(tR"), BYTES("\xc4\0")},
    {NONE, BYTES("](c__builtin__\nbytes\nq\0)Rq\1h\0)Rh\1e"), BYTES("\x93\xc4\0\xc4\0\xc4\0")},
    {NONE, BYTES("c_codecs\nencode\nX\3\0\0\0\xe2\x82\xacX\6\0\0\0latin1\x86R"), NULL, 0},
    {NONE, BYTES("c_codecs\nencode\nX\1\0\0\0aX\5\0\0\0utf-8\x86R"), NULL, 0},
    {NONE, BYTES("c_codecs\nencode\nX\1\0\0\0aK\1\x86R"), NULL, 0},
    {NONE, BYTES("c_codecs\nencode\nX\1\0\0\0a\x85R"), NULL, 0},
    {NONE, BYTES("c_codecs\nencode\n"), NULL, 0},
    {NONE, BYTES("c_codecs\nencodes\nX\1\0\0\0aX\6\0\0\0latin1\x86R"), NULL, 0},
    {NONE, BYTES("c__builtin__\nbytes\nK\5\x85R"), NULL, 0},
    {NONE, BYTES("]c__builtin__\nbytes\na"), NULL, 0},
    {NONE, BYTES("K\1)R"), NULL, 0},
    /* containers */
    {NONE, BYTES(")"), BYTES("\x90")},
    {NONE, BYTES("]"), BYTES("\x90")},
    {NONE, BYTES("](e"), BYTES("\x90")},
    {NONE, BYTES("(l"), BYTES("\x90")},
    {NONE, BYTES("}"), BYTES("\x80")},
    {NONE, BYTES("(d"), BYTES("\x80")},
    {NONE, BYTES("(t"), BYTES("\x90")},
    {NONE, BYTES("K\1\x85"), BYTES("\x91\1")},
    {NONE, BYTES("K\1K\2\x86"), BYTES("\x92\1\2")},
    {NONE, BYTES("K\1K\2K\3\x87"), BYTES("\x93\1\2\3")},
    {NONE, BYTES("(K\1K\2K\3K\4t"), BYTES("\x94\1\2\3\4")},
    {NONE, BYTES("K\1\x85\x85\x85"), BYTES("\x91\x91\x91\1")},
    {NONE, BYTES("]K\1a"), BYTES("\x91\1")},
    {NONE, BYTES("](K\1K\2eK\3a(K\4e"), BYTES("\x94\1\2\3\4")},
    {NONE, BYTES("](K\1](K\2]e)eK\3a"), BYTES("\x94\1\x92\2\x90\x90\3")},
    {NONE, BYTES("(lp0\nI1\na(lp1\nI2\naa"), BYTES("\x92\1\x91\2")},
    {NONE, BYTES("(K\1K\2l"), BYTES("\x92\1\2")},
    {NONE, BYTES("(K\1K\2d"), BYTES("\x81\1\2")},
    {NONE, BYTES("}K\1K\2s"), BYTES("\x81\1\2")},
    {NONE, BYTES("}(K\1K\2K\3K\4uK\5Ns"), BYTES("\x83\1\2\3\4\5\xc0")},
    {NONE, BYTES("(dp0\nI1\nI2\ns"), BYTES("\x81\1\2")},
    {NONE, BYTES("}(NN\x88K\1G\0\0\0\0\0\0\0\0K\2K\1K\2\x86K\3C\1bK\4u"),
     BYTES("\x85\xc0\xc0\xc3\1\xcb\0\0\0\0\0\0\0\0\2\x92\1\2\3\xc4\1b\4")},
    /* keys that Python would not take, and values that it does */
    {NONE, BYTES("}]Ns"), NULL, 0},
    {NONE, BYTES("}}Ns"), NULL, 0},
    {NONE, BYTES("}(](K\1eNK\1Nu"), NULL, 0},
    {NONE, BYTES("}(K\1N}K\2K\3sNu"), NULL, 0},
    {NONE, BYTES("}K\1]\x86\x85Ns"), NULL, 0},
    {NONE, BYTES("}K\1(NNd\x86Ns"), NULL, 0},
    {NONE, BYTES("(]Nd"), NULL, 0},
    {NONE, BYTES("(K\1]\x85Nd"), NULL, 0},
    {NONE, BYTES("]q\1}h\1Ns\x86"), NULL, 0},
    {NONE, BYTES("]\x85q\1}h\1Ns\x86"), NULL, 0},
    {NONE, BYTES("}(K\1]K\2}u"), BYTES("\x82\1\x90\2\x80")},
    {NONE, BYTES("}K\1]\x85s"), BYTES("\x81\1\x91\x90")},
    {NONE, BYTES("(K\1]K\2}d"), BYTES("\x82\1\x90\2\x80")},
    {NONE, BYTES("}K\1\x85](}K\2]s]es"), BYTES("\x81\x91\1\x92\x81\2\x90\x90")},
    {NONE, BYTES("]q\1}Nh\1s\x86"), BYTES("\x92\x90\x81\xc0\x90")},
    /* shared parts */
    {NONE, BYTES("]q\1(K\5eh\1\x86"), BYTES("\x92\x91\5\x91\5")},
    {NONE, BYTES("]\x94(K\5e\x85\x94h\1h\0\x87"), BYTES("\x93\x91\x91\5\x91\x91\5\x91\5")},
    {NONE, BYTES("(]q\1(K\5K\6eh\1}q\2Nh\1sh\2h\2t"),
     BYTES("\x95\x92\5\6\x92\5\6\x81\xc0\x92\5\6\x81\xc0\x92\5\6\x81\xc0\x92\5\6")},
    {NONE, BYTES("\x8c\1k\x94h\0h\0h\0\x87\x86"), BYTES("\x92\xa1k\x93\xa1k\xa1k\xa1k")},
    {NONE, BYTES("]q\1h\1\x86"), BYTES("\x92\x90\x90")},
    {NONE, BYTES("]q\1](h\1h\1e\x86"), BYTES("\x92\x90\x92\x90\x90")},
    {NONE, BYTES("Nq\1h\1q\2h\2\x87"), BYTES("\x93\xc0\xc0\xc0")},
    {NONE, BYTES("Nr\0\1\0\0jg\0\0\0g0\n\x87"), NULL, 0}, /* not there */
    {NONE, BYTES("Nr\0\1\0\0j\0\1\0\0g256\n\x87"), BYTES("\x93\xc0\xc0\xc0")},
    {NONE, BYTES("Nr\0\2\0\0j\0\2\0\0\x86"), NULL, 0}, /* as high as the pickle reader would not have it */
    {NONE, BYTES("h\0"), NULL, 0},
    {NONE, BYTES("Nq\1q\1\x85"), NULL, 0},
    /* ... of the envelope */
    {BYTES("(\x8c\1i\x94\x8c\3put\x94"
           "1"),
     BYTES("h\1"), BYTES("\xa3put")},
    {BYTES("(\x8c\1i\x94\x8c\3put\x94)}\x94(\x8c\4item\x94"
           "11"),
     BYTES("h\3h\1\x86"), BYTES("\x92\xa4item\xa3put")},
    {BYTES("N\x94\x94"
           "0"),
     BYTES("]\x94(h\2e"), NULL, 0},
    {BYTES("N\x94\x94"
           "0"),
     BYTES("]\x94K\1ah\2\x86"), BYTES("\x92\x91\1\x91\1")},
    {BYTES("(cm\nX\n)\x81\x94}(K\1K\2u]\x94(K\1h\0e"
           "1"),
     BYTES("K\7"), BYTES("\7")},
    {BYTES("(cm\nX\n)\x81\x94}b"
           "1"),
     BYTES("h\0\x85"), NULL, 0},
    {BYTES("(cm\nX\n)\x81\x94}b]\x94(K\1h\0e"
           "1"),
     BYTES("h\1\x85"), NULL, 0},
    {BYTES("(\x8f\x94(K\1\x90K\5\x94]\x94K\1a"
           "1"),
     BYTES("h\1h\2\x86"), BYTES("\x92\5\x91\1")},
    /* what is dropped above a value is not mistaken for it */
    {BYTES("NK\1"
           "0q\1"
           "0"),
     BYTES("h\1"), NULL, 0},
    {BYTES("NK\1"
           "0\x85q\1"
           "0"),
     BYTES("h\1"), NULL, 0},
    {BYTES("]q\1N0K\1a0"), BYTES("h\1"), NULL, 0},
    {BYTES("NK\1"), BYTES("K\2"), BYTES("\2")}, /* one opcode needs no look at what is in front of it */
    {BYTES("NK\1"), BYTES("K\2\x85"), NULL, 0},
    /* not plain */
    {NONE, BYTES("]q\1h\1a"), NULL, 0},
    {NONE, BYTES("}q\1Kx(h\1h\1us"), NULL, 0},
    {NONE, BYTES("]q\1(h\1K\1K\2e"), NULL, 0},
    {NONE, BYTES("]q\1(}q\2(K\1h\1K\2h\2K\3K\4uK\1e"), NULL, 0},
    {NONE, BYTES("](q\1](h\1h\1ee"), NULL, 0},
    {BYTES("(cm\nX\n\x94"
           "1"),
     BYTES("h\0"), NULL, 0},
    {NONE, BYTES("](K\1\x8f\x94(K\2\x90K\3e"), NULL, 0},
    {NONE, BYTES("(K\1\x91"), NULL, 0},
    {NONE, BYTES("cm\nX\n"), NULL, 0},
    {NONE, BYTES("\x8c\1m\x8c\1X\x93)R"), NULL, 0},
    {NONE, BYTES("(im\nX\n"), NULL, 0},
    {NONE, BYTES("(cm\nX\nK\1o"), NULL, 0},
    {NONE, BYTES("\x96\0\0\0\0\0\0\0\0"), NULL, 0},
    {NONE, BYTES("\x82\5"), NULL, 0},
    {NONE, BYTES("]}b"), NULL, 0},
    {NONE, BYTES("N2\x86"), NULL, 0},
    {NONE, BYTES("NN0"), NULL, 0},
    {NONE, BYTES("N(NN1"), NULL, 0},
    {NONE,
     BYTES("]q\1"
           "0h\1"),
     NULL, 0},
    {NONE, BYTES("]K\1aq\1h\1\x86"), NULL, 0}, /* memoized late */
    {NONE, BYTES("]q\1h\1K\1a\x86"), NULL, 0}, /* filled through a reference */
    {NONE, BYTES("]K\1K\2s"), NULL, 0},
    {NONE, BYTES("}K\1a"), NULL, 0},
    {NONE, BYTES("]\x85K\1a"), NULL, 0},
    {NONE, BYTES("(K\1K\2lK\3a"), NULL, 0},
    {NONE, BYTES("}(K\1u"), NULL, 0},
    /* no pickle at all */
    {NONE, BYTES("("), NULL, 0},
    {NONE, BYTES("NN"), NULL, 0},
    {NONE, BYTES("\x94"), NULL, 0},
    {NONE, BYTES("(\x94"), NULL, 0},
    {NONE, BYTES("t"), NULL, 0},
    {NONE, BYTES("(e"), NULL, 0},
    {NONE, BYTES("((e"), NULL, 0},
    {NONE, BYTES("N(\x86"), NULL, 0},
    {NONE, BYTES("Na"), NULL, 0},
    {NONE, BYTES("a"), NULL, 0},
    {NONE, BYTES("N\x80\2"), NULL, 0},
    {NONE, BYTES("N."), NULL, 0},
    {NONE, BYTES("Px\n"), NULL, 0},
    {NONE, BYTES("\xff"), NULL, 0},
    {NONE, BYTES("\x8c\5ab"), NULL, 0},
    {BYTES("0"), BYTES("]"), NULL, 0},
    {BYTES("1"), BYTES("]"), NULL, 0},
    {BYTES("(N"), BYTES("]"), NULL, 0},
    {BYTES("X"), BYTES("]"), NULL, 0},
    {BYTES("N2"), BYTES("]"), NULL, 0},
};

static void show(const char *name, const uint8_t *p, size_t n)
{
    fprintf(stderr, "%s:", name);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, p[i] > ' ' && p[i] < 127 ? " %c" : " %02x", p[i]);
    fprintf(stderr, "\n");
}

static void check_pickle(size_t which, const struct tq_buf *value)
{
    static uint8_t wanted[1024] = {0x80, 4};
    size_t n = 2;
    struct tq_span pickle;

    memcpy(wanted + n, items[which].prefix, items[which].prefix_len);
    n += items[which].prefix_len;
    memcpy(wanted + n, items[which].item, items[which].item_len);
    n += items[which].item_len;
    wanted[n++] = '.';
    if (!is_pickle(value, &pickle) || !tq_span_eq(pickle, tq_span(wanted, n))) {
        show("got ", value->data, value->len);
        show("want", wanted, n);
        fail_msg("item %zu", which);
    }
}

static void test_items(void **state)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        size_t n = make_frame(items[i].prefix, items[i].prefix_len, items[i].item, items[i].item_len);

        assert_int_equal(convert(n, items[i].item_len, MAX_BYTES, &out), TQ_OK);
        if (items[i].value == NULL) {
            check_pickle(i, &out);
        } else if (!tq_span_eq(tq_buf_span(&out), tq_span(items[i].value, items[i].value_len))) {
            show("got ", out.data, out.len);
            show("want", (const uint8_t *)items[i].value, items[i].value_len);
            fail_msg("item %zu", i);
        }
    }
    tq_buf_deinit(&out);
}

/* Cut after each byte: whatever is left, there is a value. */
static void test_cut(void **state)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        for (size_t cut = 1; cut < items[i].item_len; cut++) {
            size_t n = make_frame(items[i].prefix, items[i].prefix_len, items[i].item, cut);

            assert_int_equal(convert(n, cut, MAX_BYTES, &out), TQ_OK);
        }
        for (size_t cut = 1; cut < items[i].prefix_len; cut++) {
            size_t n = make_frame(items[i].prefix, cut, items[i].item, items[i].item_len);

            assert_int_equal(convert(n, items[i].item_len, MAX_BYTES, &out), TQ_OK);
        }
    }
    tq_buf_deinit(&out);
}

/* ---- sizes ---- */

/* Strings, bytes and containers around the lengths at which the header changes. */
static void test_headers(void **state)
{
    static const uint32_t counts[] = {15, 16, 31, 32, 255, 256, 65535, 65536};
    static uint8_t item[400000];
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        uint32_t count = counts[i];
        uint8_t le[4] = {(uint8_t)count, (uint8_t)(count >> 8), (uint8_t)(count >> 16), 0};
        struct tq_mp in;
        struct tq_span bytes = tq_span(NULL, 0);
        uint32_t n = 0;

        for (int kind = 0; kind < 2; kind++) {
            item[0] = kind == 0 ? 'X' : 'B';
            memcpy(item + 1, le, 4);
            memset(item + 5, 'x', count);
            /* Alone, and in a tuple. */
            for (size_t more = 0; more < 2; more++) {
                item[5 + count] = 0x85;
                assert_int_equal(
                    convert(make_frame("", 0, item, 5 + count + more), 5 + count + more, MAX_BYTES, &out),
                    TQ_OK);
                in = tq_mp_of(tq_buf_span(&out));
                assert_true(more == 0 || tq_mp_array(&in, &n));
                assert_true(kind == 0 ? tq_mp_str(&in, &bytes) : tq_mp_bin(&in, &bytes));
                assert_true(tq_span_eq(bytes, tq_span(item + 5, count)));
            }
        }
        memcpy(item, "](", 2);
        memset(item + 2, 'N', count);
        item[2 + count] = 'e';
        assert_int_equal(convert(make_frame("", 0, item, 3 + count), 3 + count, MAX_BYTES, &out), TQ_OK);
        in = tq_mp_of(tq_buf_span(&out));
        assert_true(tq_mp_array(&in, &n));
        assert_int_equal(n, count);
        memcpy(item, "}(", 2);
        for (uint32_t k = 0; k < count; k++)
            memcpy(item + 2 + k * 4, (uint8_t[]){'M', (uint8_t)k, (uint8_t)(k >> 8), 'N'}, 4);
        item[2 + count * 4] = 'u';
        assert_int_equal(convert(make_frame("", 0, item, 3 + count * 4), 3 + count * 4, MAX_BYTES, &out),
                         TQ_OK);
        in = tq_mp_of(tq_buf_span(&out));
        assert_true(tq_mp_map(&in, &n));
        assert_int_equal(n, count);
    }
    tq_buf_deinit(&out);
}

/* The limit is exact, for values and for exts; and so is the buffer's ceiling. */
static void test_limits(void **state)
{
    static const char *const all[] = {"C\5abcde", "](K\1K\2e", "]K\1a\x85", "cm\nX\n)R", "h\1"};

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
        size_t item_len = strlen(all[i]);
        size_t n = make_frame("", 0, all[i], item_len);
        size_t len;

        assert_int_equal(convert(n, item_len, MAX_BYTES, &out), TQ_OK);
        len = out.len;
        assert_int_equal(convert(n, item_len, len, &out), TQ_OK);
        assert_int_equal(out.len, len);
        assert_int_equal(convert(n, item_len, len - 1, &out), TQ_ELIMIT);
        assert_int_equal(convert(n, item_len, 0, &out), TQ_ELIMIT);
        out.max = 6 + len;
        assert_int_equal(convert(n, item_len, MAX_BYTES, &out), TQ_OK);
        out.max--;
        assert_int_equal(convert(n, item_len, MAX_BYTES, &out), TQ_ELIMIT);
        tq_buf_deinit(&out);
    }
}

/* What is too large with its shared parts written out is an ext. */
static void test_limit_of_shared(void **state)
{
    static const char item[] =
        "\x8c\x40"
        "0123456789012345678901234567890123456789012345678901234567890123\x94h\0h\0\x87";
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    size_t n = make_frame("", 0, BYTES(item));
    struct tq_span pickle;

    (void)state;
    assert_int_equal(convert(n, sizeof(item) - 1, 1 + 3 * 66, &out), TQ_OK);
    assert_int_equal(out.len, 1 + 3 * 66);
    assert_int_equal(convert(n, sizeof(item) - 1, 3 * 66, &out), TQ_OK);
    assert_true(is_pickle(&out, &pickle));
    assert_true(out.len < 100);
    tq_buf_deinit(&out);
}

/* ---- depth and shared parts that grow ---- */

static bool nests(const char *begin, const char *end, uint32_t depth, const char *innermost)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    static uint8_t item[8192];
    struct tq_span pickle;
    size_t n = 0;
    bool plain;

    for (uint32_t i = 0; i < depth; i++) {
        memcpy(item + n, begin, strlen(begin));
        n += strlen(begin);
    }
    memcpy(item + n, innermost, strlen(innermost));
    n += strlen(innermost);
    for (uint32_t i = 0; i < depth; i++) {
        memcpy(item + n, end, strlen(end));
        n += strlen(end);
    }
    assert_int_equal(convert(make_frame("", 0, item, n), n, MAX_BYTES, &out), TQ_OK);
    plain = !is_pickle(&out, &pickle);
    tq_buf_deinit(&out);
    return plain;
}

static void test_depth(void **state)
{
    static const char *const pairs[][2] = {
        {"", "\x85"}, {"]", "a"}, {"](", "e"}, {"}K\1", "s"}, {"(K\1N", "t"}};
    static const char *const empty[] = {")", "]", "}", "(t"};

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        assert_true(nests(pairs[i][0], pairs[i][1], TQ_MP_DEPTH_MAX, "N"));
        assert_false(nests(pairs[i][0], pairs[i][1], TQ_MP_DEPTH_MAX + 1, "N"));
        assert_false(nests(pairs[i][0], pairs[i][1], 1000, "N"));
        for (size_t k = 0; k < sizeof(empty) / sizeof(empty[0]); k++) {
            assert_true(nests(pairs[i][0], pairs[i][1], TQ_MP_DEPTH_MAX - 1, empty[k]));
            assert_false(nests(pairs[i][0], pairs[i][1], TQ_MP_DEPTH_MAX, empty[k]));
        }
    }
}

/* MARK, a leaf of 500 bytes, and levels in which the one before is twice; each is in the memo. */
static size_t doubling(uint8_t *item, uint32_t levels)
{
    size_t n = 7;

    memcpy(item, "(B\xf4\1\0\0", 6);
    memset(item + 6, 'x', 500);
    item[506] = 0x94;
    n = 507;
    for (uint8_t i = 0; i < levels; i++) {
        const uint8_t level[] = {'h', i, 'h', i, 0x86, 0x94};

        memcpy(item + n, level, sizeof(level));
        n += sizeof(level);
    }
    return n;
}

static void test_shared_depth(void **state)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    uint8_t item[1024];
    struct tq_span pickle;
    size_t n = 0;

    (void)state;
    /* A chain of tuples, each of which is memoized and gone before the next refers to it: 32 of them, 31
     * references. */
    for (uint32_t levels = 31; levels <= 33; levels++) {
        item[0] = '(';
        item[1] = 'N';
        item[2] = 0x85;
        item[3] = 0x94;
        n = 4;
        for (uint8_t i = 1; i < levels; i++) {
            const uint8_t level[] = {'h', (uint8_t)(i - 1), 0x85, 0x94};

            memcpy(item + n, level, sizeof(level));
            n += sizeof(level);
        }
        item[n++] = 't';
        assert_int_equal(convert(make_frame("", 0, item, n), n, MAX_BYTES, &out), TQ_OK);
        assert_int_equal(is_pickle(&out, &pickle), levels + 1 > TQ_MP_DEPTH_MAX);
    }
    /* References to references to references: a value of one byte that is far away. */
    n = 0;
    item[n++] = '(';
    item[n++] = 'N';
    item[n++] = 0x94;
    for (uint8_t i = 0; i < 200; i++) {
        const uint8_t level[] = {'h', i, 0x94};

        memcpy(item + n, level, sizeof(level));
        n += sizeof(level);
    }
    item[n++] = 't';
    assert_int_equal(convert(make_frame("", 0, item, n), n, MAX_BYTES, &out), TQ_OK);
    assert_true(is_pickle(&out, &pickle));
    tq_buf_deinit(&out);
}

/* 1 KB that would be 500 * 2^200 bytes: an ext, and nothing of it was written, whatever the caller would
 * take. */
static void test_bombs(void **state)
{
    static uint8_t item[2048];
    struct tq_buf out = TQ_BUF_NULL(SIZE_MAX);
    struct tq_span pickle;
    size_t n;

    (void)state;
    for (uint32_t levels = 4; levels <= 200; levels += 4) {
        n = doubling(item, levels);
        item[n++] = 't';
        assert_int_equal(convert(make_frame("", 0, item, n), n, SIZE_MAX, &out), TQ_OK);
        assert_int_equal(is_pickle(&out, &pickle), levels > 8);
        assert_true(out.cap < 4 << 20);
    }
    /* In the envelope. */
    n = doubling(item, 8);
    item[n++] = '1';
    assert_int_equal(convert(make_frame(item, n, "h\x08", 2), 2, SIZE_MAX, &out), TQ_OK);
    assert_false(is_pickle(&out, &pickle));
    assert_int_equal(out.len, 256 * 503 + 255);
    n = doubling(item, 200);
    item[n++] = '1';
    assert_int_equal(convert(make_frame(item, n, "h\xc8", 2), 2, SIZE_MAX, &out), TQ_OK);
    assert_true(is_pickle(&out, &pickle));
    tq_buf_deinit(&out);
}

/* ---- much, and memory that fails ---- */

/* 3000 rows {'id': i, (1, None): None}; each third one is there twice, the second time as a reference. */
static size_t large_item(uint8_t *item)
{
    size_t n = 2;

    memcpy(item, "](", 2);
    for (uint32_t i = 0; i < 3000; i++) {
        const uint8_t row[] = {'}', 0x94, '(', 0x8c, 2,    'i', 'd', 0x94, 'M', (uint8_t)i, (uint8_t)(i >> 8),
                               'K', 1,    'N', 0x86, 0x94, 'N', 'u'};
        const uint8_t get[] = {'j', (uint8_t)(3 * i), (uint8_t)(3 * i >> 8), 0, 0};

        memcpy(item + n, row, sizeof(row));
        n += sizeof(row);
        if (i % 3 == 2) {
            memcpy(item + n, get, sizeof(get));
            n += sizeof(get);
        }
    }
    item[n++] = 'e';
    return n;
}

static void test_large(void **state)
{
    static uint8_t item[100000];
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    size_t n = large_item(item);
    struct tq_mp in;
    uint32_t count = 0;

    (void)state;
    assert_int_equal(convert(make_frame("", 0, item, n), n, MAX_BYTES, &out), TQ_OK);
    in = tq_mp_of(tq_buf_span(&out));
    assert_true(tq_mp_array(&in, &count));
    assert_int_equal(count, 4000);
    for (uint32_t i = 0; i < 4000; i++) {
        /* Rows of 3, then the last of them again. */
        uint32_t wanted = i / 4 * 3 + (i % 4 == 3 ? 2 : i % 4);
        uint32_t pairs, got, elements;
        struct tq_span key;

        assert_true(tq_mp_map(&in, &pairs) && pairs == 2);
        assert_true(tq_mp_str(&in, &key) && tq_span_is(key, "id"));
        assert_true(tq_mp_u32(&in, &got));
        assert_int_equal(got, wanted);
        assert_true(tq_mp_array(&in, &elements) && elements == 2 && tq_mp_skip(&in) && tq_mp_nil(&in));
        assert_true(tq_mp_nil(&in));
    }
    assert_int_equal(tq_mp_peek(&in), TQ_MP_END);
    tq_buf_deinit(&out);
}

static void test_out_of_memory(void **state)
{
    static uint8_t item[100000];
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    size_t n = large_item(item);
    size_t frame_len = make_frame("", 0, item, n);
    long step = 0;
    int rv;

    (void)state;
    for (;; step++) {
        tq_mem_fail_after(step, 1);
        rv = tq_convert_to_msgpack(tq_span(g_frame, frame_len), g_item_off, (uint32_t)n, MAX_BYTES, &out);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK)
            break;
        assert_int_equal(rv, TQ_ENOMEM);
        assert_int_equal(out.len, 0);
    }
    assert_true(step > 20);
    tq_buf_deinit(&out);
    /* One opcode, and a pickle. */
    for (int i = 0; i < 2; i++) {
        n = i == 0 ? 7 : 8;
        frame_len = make_frame("", 0, i == 0 ? "C\5abcde" : "cm\nXY\n)R", n);
        tq_mem_fail_after(0, 1);
        rv = tq_convert_to_msgpack(tq_span(g_frame, frame_len), g_item_off, (uint32_t)n, MAX_BYTES, &out);
        tq_mem_fail_after(-1, 0);
        assert_int_equal(rv, TQ_ENOMEM);
    }
    tq_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),           cmocka_unit_test(test_cut),
        cmocka_unit_test(test_headers),         cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limit_of_shared), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_shared_depth),    cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_large),           cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
