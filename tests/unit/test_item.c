/* Items: what the master sends on, byte by byte, and how it compares. Whether Python agrees is what
 * tests/integration/test_item_fidelity.py asks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/item.h"
#include "tests/lib/guard.h"

#define BYTES(text) text, sizeof(text) - 1
#define RETURN      "X\7\0\0\0#RETURN"

/* The item of (ident, 'put', (item,), {}) or (ident, 'put', (), {'item': item}). */
static struct tq_pk_range find_item(const struct tq_pickle *p)
{
    struct tq_pk_range *list = NULL;
    struct tq_pk_range item;
    uint32_t count = 0;

    assert_int_equal(p->top_count, 4);
    assert_int_equal(tq_pk_children(p, p->top[2], &list, &count), TQ_OK);
    if (count == 0) {
        assert_int_equal(tq_pk_children(p, p->top[3], &list, &count), TQ_OK);
        assert_int_equal(count, 2);
        item = list[1];
    } else {
        item = list[0];
    }
    tq_free(list);
    return item;
}

static int item_of(const void *data, size_t n, struct tq_body **ret_body)
{
    uint8_t *copy = guard_copy(data, n);
    struct tq_pickle p;
    const char *why = NULL;
    int rv = tq_pickle_scan(&p, tq_span(copy, n), &why);

    if (rv == TQ_OK) {
        rv = tq_item_from_request(&p, find_item(&p), ret_body);
        tq_pickle_deinit(&p);
    } else if (rv == TQ_EPROTO) {
        fail_msg("%s", why);
    }
    guard_free(copy, n);
    return rv;
}

static const struct {
    const char *what;
    const char *request;
    size_t request_len;
    const char *reply; /* NULL: refused */
    size_t reply_len;
    const char *item;
    size_t item_len;
} items[] = {
    {"a number", BYTES("\x80\4\x95\0\0\0\0\0\0\0\0(\x8c\1i\x94\x8c\3put\x94K\5\x85\x94}\x94t\x94."),
     BYTES("\x80\4" RETURN "K\5\x86."), BYTES("K\5")},
    {"protocol 3 stays", BYTES("\x80\3(X\1\0\0\0iq\0X\3\0\0\0putq\1](K\1K\2e\x85q\3}q\4tq\5."),
     BYTES("\x80\3" RETURN "](K\1K\2e\x86."), BYTES("](K\1K\2e")},
    {"protocol 5 becomes 4", BYTES("\x80\5(\x8c\1i\x94\x8c\3put\x94N\x85\x94}\x94t\x94."),
     BYTES("\x80\4" RETURN "N\x86."), BYTES("N")},
    {"no protocol becomes 2", BYTES("(S'i'\np0\nS'put'\np1\n(I5\ntp2\n(dp3\ntp4\n."),
     BYTES("\x80\2" RETURN "I5\n\x86."), BYTES("I5\n")},
    {"memo writes without references", BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94\x8c\1x\x94\x85\x94}\x94t\x94."),
     BYTES("\x80\4" RETURN "\x8c\1x\x94\x86."), BYTES("\x8c\1x\x94")},
    {"the word put", BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94h\1\x85\x94}\x94t\x94."),
     BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94"
           "1" RETURN "h\1\x86."),
     BYTES("h\1")},
    {"a reference into itself, implicit",
     BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94]\x94h\2a\x85\x94}\x94t\x94."),
     BYTES("\x80\4N\x94\x94"
           "0" RETURN "]\x94h\2a\x86."),
     BYTES("]\x94h\2a")},
    {"a reference into itself, explicit", BYTES("\x80\2(U\1iq\0U\3putq\1]q\2h\2a\x85q\3}q\4tq\5."),
     BYTES("\x80\2" RETURN "]q\2h\2a\x86."), BYTES("]q\2h\2a")},
    {"frames go",
     BYTES("\x80\4(\x8c\1i\x8c\3put]\x95\1\0\0\0\0\0\0\0N\x95\2\0\0\0\0\0\0\0a\x95\3\0\0\0\0\0\0\0\x85}t."),
     BYTES("\x80\4" RETURN "]Na\x86."), BYTES("]Na")},
    {"a bytearray", BYTES("\x80\5(\x8c\1i\x8c\3put\x96\2\0\0\0\0\0\0\0ab\x94\x85}t."),
     BYTES("\x80\4" RETURN "cbuiltins\nbytearray\nB\2\0\0\0ab\x85R\x94\x86."),
     BYTES("cbuiltins\nbytearray\nB\2\0\0\0ab\x85R\x94")},
    {"an empty bytearray in front of a reference",
     BYTES("\x80\5(\x8c\1i\x94\x8c\3put)}(\x8c\5"
           "block\x96\0\0\0\0\0\0\0\0\x94\x8c\4itemh\0u0}\x8c\4itemh\0st."),
     BYTES("\x80\4(\x8c\1i\x94\x8c\3put)}(\x8c\5"
           "blockcbuiltins\nbytearray\nB\0\0\0\0\x85R\x94\x8c\4itemh\0u0}\x8c\4item"
           "1" RETURN "h\0\x86."),
     BYTES("h\0")},
    {"by keyword, marks and values left", BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94)}\x94(\x8c\4item\x94h\3ut."),
     BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94)}\x94(\x8c\4item\x94"
           "11" RETURN "h\3\x86."),
     BYTES("h\3")},
    {"a list of four", BYTES("]q\0(U\1iq\1U\3putq\2h\1\x85}e."),
     BYTES("\x80\2]q\0(U\1iq\1U\3putq\2"
           "10" RETURN "h\1\x86."),
     BYTES("h\1")},
    {"mixed indices", BYTES("\x80\4(\x8c\1iq\x09\x8c\3put\x94]\x94h\2a\x85}t."),
     BYTES("\x80\4(\x8c\1iq\x09\x8c\3put\x94"
           "1" RETURN "]\x94h\2a\x86."),
     BYTES("]\x94h\2a")},
    {"written into behind its end", BYTES("(U\1iU\3put]q\7\x85}h\7K\5a0t."), NULL, 0, NULL, 0},
    {"written into behind its end, in bulk", BYTES("(U\1iU\3put]q\7\x85}h\7(K\5K\6e0t."), NULL, 0, NULL, 0},
    {"built behind its end", BYTES("(U\1iU\3putcm\nX\n)Rq\7\x85}h\7}b0t."), NULL, 0, NULL, 0},
    {"the envelope itself", BYTES("(U\1iU\3put)}q\7U\4itemh\7st."), NULL, 0, NULL, 0},
    {"the envelope itself, in bulk", BYTES("(U\1iU\3put)}q\7(U\4itemh\7ut."), NULL, 0, NULL, 0},
    {"the envelope itself, a step further",
     BYTES("]q\7(U\1iU\3put]q\x08h\7aq\x09"
           "0h\x08\x85}e."),
     NULL, 0, NULL, 0},
    {"a copy of what stands before", BYTES("(U\1iU\3put2\x85}t."), NULL, 0, NULL, 0},
};

static void show(const char *name, const uint8_t *p, size_t n)
{
    fprintf(stderr, "%s:", name);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, p[i] > ' ' && p[i] < 127 ? " %c" : " %02x", p[i]);
    fprintf(stderr, "\n");
}

static void test_items(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        struct tq_body *body = NULL;
        int rv = item_of(items[i].request, items[i].request_len, &body);

        if (items[i].reply == NULL) {
            if (rv != TQ_EPROTO)
                fail_msg("%s: %d", items[i].what, rv);
            continue;
        }
        if (rv != TQ_OK)
            fail_msg("%s: %d", items[i].what, rv);
        assert_int_equal(body->refs, 1);
        assert_int_equal(body->flavor, TQ_BODY_PYTHON_REPLY);
        assert_int_equal(tq_load_be32(body->data), body->len - 4);
        if (!tq_span_eq(tq_span(body->data + 4, body->len - 4),
                        tq_span(items[i].reply, items[i].reply_len))) {
            show("got ", body->data + 4, body->len - 4);
            show("want", (const uint8_t *)items[i].reply, items[i].reply_len);
            fail_msg("%s", items[i].what);
        }
        assert_true(tq_span_eq(tq_span(body->data + body->item_off, body->item_len),
                               tq_span(items[i].item, items[i].item_len)));
        tq_body_unref(body);
    }
}

/* What may stand behind an item: an object that is built there, its class a reference. */
static void test_tail(void **state)
{
    static const char request[] = "\x80\4(\x8c\1i\x8c\3put]cm\nX\n\x94h\0)\x81}b\x87}t.";
    struct tq_body *body = NULL;

    (void)state;
    assert_int_equal(item_of(request, sizeof(request) - 1, &body), TQ_OK);
    assert_int_equal(body->item_len, 1);
    tq_body_unref(body);
}

/* More frames than are remembered. */
static void test_many_frames(void **state)
{
    enum { FRAMES = 300 };
    static const uint8_t frame[9] = {0x95, 1};
    uint8_t data[FRAMES * 12 + 64];
    uint8_t *out = data;
    struct tq_body *body = NULL;

    (void)state;
    memcpy(out, "\x80\4(U\1iU\3put(", 12);
    out += 12;
    for (int i = 0; i < FRAMES; i++) {
        *out++ = 'K';
        *out++ = (uint8_t)i;
        memcpy(out, frame, sizeof(frame));
        out += sizeof(frame);
    }
    memcpy(out, "t\x85}t.", 5);
    out += 5;
    assert_int_equal(item_of(data, (size_t)(out - data), &body), TQ_OK);
    assert_int_equal(body->item_len, 2 * FRAMES + 2);
    for (int i = 0; i < FRAMES; i++) {
        assert_int_equal(body->data[body->item_off + 1 + (uint32_t)i * 2], 'K');
        assert_int_equal(body->data[body->item_off + 2 + (uint32_t)i * 2], (uint8_t)i);
    }
    tq_body_unref(body);
}

/* ---- comparisons ---- */

/* An item from its opcodes; memo indices begin at 1 ('put' is 0). */
static struct tq_body *item_from(const char *opcodes, size_t n)
{
    static uint8_t data[1 << 16];
    struct tq_body *body = NULL;
    size_t len = 0;

    memcpy(data, "(U\1iU\3putq\0", 11);
    len = 11;
    memcpy(data + len, opcodes, n);
    len += n;
    memcpy(data + len, "\x85}t.", 4);
    len += 4;
    assert_int_equal(item_of(data, len, &body), TQ_OK);
    return body;
}

#define TYPES(a, b) "'<' not supported between instances of '" a "' and '" b "'"

static const struct {
    const char *a;
    size_t a_len;
    const char *b;
    size_t b_len;
    int less;         /* 1, 0, -1: incomparable */
    const char *text; /* of that */
} pairs[] = {
    {BYTES("K\1"), BYTES("K\2"), 1, NULL},
    {BYTES("K\2"), BYTES("K\1"), 0, NULL},
    {BYTES("K\2"), BYTES("K\2"), 0, NULL},
    {BYTES("\x89"), BYTES("K\1"), 1, NULL},
    {BYTES("\x88"), BYTES("K\1"), 0, NULL},
    {BYTES("J\xff\xff\xff\xff"), BYTES("\x89"), 1, NULL},
    /* 2^53 + 1 against 2.0^53, both ways */
    {BYTES("\x8a\7\1\0\0\0\0\0\x20"), BYTES("GC@\0\0\0\0\0\0"), 0, NULL},
    {BYTES("GC@\0\0\0\0\0\0"), BYTES("\x8a\7\1\0\0\0\0\0\x20"), 1, NULL},
    /* 2^63 - 1, 2^63 against 2.0^63 */
    {BYTES("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), BYTES("GC\xe0\0\0\0\0\0\0"), 1, NULL},
    {BYTES("\x8a\x09\0\0\0\0\0\0\0\x80\0"), BYTES("GC\xe0\0\0\0\0\0\0"), 0, NULL},
    {BYTES("GC\xe0\0\0\0\0\0\0"), BYTES("\x8a\x09\0\0\0\0\0\0\0\x80\0"), 0, NULL},
    {BYTES("GC\xe0\0\0\0\0\0\0"), BYTES("\x8a\x09\1\0\0\0\0\0\0\x80\0"), 1, NULL},
    /* -2^63 and -2^63 - 1 */
    {BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff"), BYTES("\x8a\x08\0\0\0\0\0\0\0\x80"), 1, NULL},
    {BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff"), BYTES("G\xc3\xe0\0\0\0\0\0\0"), 1, NULL},
    {BYTES("\x8a\x08\0\0\0\0\0\0\0\x80"), BYTES("G\xc3\xe0\0\0\0\0\0\0"), 0, NULL},
    /* big against infinity and NaN; decimal text against binary */
    {BYTES("\x8a\x09\0\0\0\0\0\0\0\0\1"), BYTES("G\x7f\xf0\0\0\0\0\0\0"), 1, NULL},
    {BYTES("G\x7f\xf0\0\0\0\0\0\0"), BYTES("\x8a\x09\0\0\0\0\0\0\0\0\1"), 0, NULL},
    {BYTES("G\xff\xf0\0\0\0\0\0\0"), BYTES("\x8a\x09\0\0\0\0\0\0\0\0\x80"), 1, NULL},
    {BYTES("G\x7f\xf8\0\0\0\0\0\0"), BYTES("K\1"), 0, NULL},
    {BYTES("K\1"), BYTES("G\x7f\xf8\0\0\0\0\0\0"), 0, NULL},
    {BYTES("L18446744073709551616L\n"), BYTES("\x8a\x09\0\0\0\0\0\0\0\0\1"), 0, NULL},
    {BYTES("L18446744073709551615L\n"), BYTES("\x8a\x09\0\0\0\0\0\0\0\0\1"), 1, NULL},
    {BYTES("L-18446744073709551617L\n"), BYTES("\x8a\x09\0\0\0\0\0\0\0\0\xff"), 1, NULL},
    {BYTES("K\1"), BYTES("G?\xf8\0\0\0\0\0\0"), 1, NULL},
    {BYTES("K\2"), BYTES("G?\xf8\0\0\0\0\0\0"), 0, NULL},
    {BYTES("J\xff\xff\xff\xff"), BYTES("G\xbf\xf8\0\0\0\0\0\0"), 0, NULL},
    {BYTES("\x89"), BYTES("G\0\0\0\0\0\0\0\1"), 1, NULL},
    {BYTES("\x89"), BYTES("G\x80\0\0\0\0\0\0\0"), 0, NULL},
    /* texts: by code point, not by UTF-16; the empty one first */
    {BYTES("X\0\0\0\0"), BYTES("X\1\0\0\0\0"), 1, NULL},
    {BYTES("X\3\0\0\0\xef\xbf\xbf"), BYTES("X\4\0\0\0\xf0\x90\x80\x80"), 1, NULL},
    {BYTES("X\3\0\0\0\xed\xb0\x80"), BYTES("X\3\0\0\0\xee\x80\x80"), 1, NULL},
    {BYTES("Va\\u20ac\n"), BYTES("X\4\0\0\0a\xe2\x82\xac"), 0, NULL},
    {BYTES("Va\\u20ab\n"), BYTES("X\4\0\0\0a\xe2\x82\xac"), 1, NULL},
    {BYTES("V\xe4\n"), BYTES("X\2\0\0\0\xc3\xa4"), 0, NULL},
    {BYTES("V\\U0001f40d\n"), BYTES("X\4\0\0\0\xf0\x9f\x90\x8e"), 1, NULL},
    {BYTES("V\\n\n"), BYTES("S'\\\\n'\n"), 0, NULL},
    {BYTES("S'\\n\\x41\\101'\n"), BYTES("U\3\nAB"), 1, NULL},
    {BYTES("S'\\n\\x41\\101'\n"), BYTES("U\3\nAA"), 0, NULL},
    {BYTES("C\1\x80"), BYTES("C\1\x7f"), 0, NULL},
    {BYTES("C\1\x7f"), BYTES("C\2\x7f\0"), 1, NULL},
    /* sequences */
    {BYTES(")"), BYTES("N\x85"), 1, NULL},
    {BYTES("N\x85"), BYTES(")"), 0, NULL},
    {BYTES("K\1N\x86"), BYTES("K\2K\1\x86"), 1, NULL},
    {BYTES("K\1K\1\x86"), BYTES("K\1K\2\x86"), 1, NULL},
    {BYTES("](K\1K\1e"), BYTES("](G?\xf0\0\0\0\0\0\0K\1K\0e"), 1, NULL},
    {BYTES("K\1}K\1\x87"), BYTES("K\1}K\2\x87"), 1, NULL},
    {BYTES("}(K\1K\2K\3K\4uK\1\x86"), BYTES("}(K\3K\4K\1K\2uK\2\x86"), 1, NULL},
    {BYTES("\x8f(K\1K\2\x90K\1\x86"), BYTES("cbuiltins\nset\n](K\2K\1e\x85RK\2\x86"), 1, NULL},
    {BYTES("]q\1(K\5eh\1\x86"), BYTES("]q\1(K\5e](K\6e\x86"), 1, NULL},
    {BYTES("h\0"), BYTES("U\3puu"), 1, NULL},
    {BYTES("h\0K\1\x86"), BYTES("U\3putK\2\x86"), 1, NULL},
    /* incomparable */
    {BYTES("N"), BYTES("N"), -1, TYPES("NoneType", "NoneType")},
    {BYTES("K\1"), BYTES("U\1a"), -1, TYPES("int", "str")},
    {BYTES("C\1a"), BYTES("U\1a"), -1, TYPES("bytes", "str")},
    {BYTES("G\0\0\0\0\0\0\0\0"), BYTES(")"), -1, TYPES("float", "tuple")},
    {BYTES("]"), BYTES(")"), -1, TYPES("list", "tuple")},
    {BYTES("}"), BYTES("}"), -1, TYPES("dict", "dict")},
    {BYTES("\x8f"), BYTES("\x88"), -1, TYPES("set", "bool")},
    {BYTES("K\1}(K\1K\2u\x86"), BYTES("K\1}(K\1K\3u\x86"), -1, TYPES("dict", "dict")},
    {BYTES("K\1}(K\1K\2u\x86"), BYTES("K\1}(K\2K\2u\x86"), -1, TYPES("dict", "dict")},
    {BYTES("K\1\x8a\x09\0\0\0\0\0\0\0\0\1\x86"), BYTES("K\1N\x86"), -1, TYPES("int", "NoneType")},
    {BYTES("cm\nA.Task\n)\x81}b"), BYTES("\x96\0\0\0\0\0\0\0\0"), -1, TYPES("Task", "bytearray")},
    {BYTES("cbuiltins\ncomplex\nNN\x86R"), BYTES("cm\nX\n"), -1, TYPES("complex", "object")},
    {BYTES("c_codecs\nencode\n)R"), BYTES("ccopyreg\n_reconstructor\n)R"), -1, TYPES("object", "object")},
    {BYTES("cm\nbad name\n)R"), BYTES("K\1"), -1, TYPES("object", "int")},
    {BYTES("Ix\n"), BYTES("K\1"), -1, "item with a malformed value"},
};

static void test_less(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct tq_body *a = item_from(pairs[i].a, pairs[i].a_len);
        struct tq_body *b = item_from(pairs[i].b, pairs[i].b_len);
        char text[TQ_ITEM_TEXT_MAX] = "";
        bool less = false;
        int rv = tq_item_less(a, b, &less, text);

        if (rv != (pairs[i].less < 0 ? 1 : TQ_OK) || (rv == TQ_OK && less != pairs[i].less))
            fail_msg("pair %zu: %d, %d %s", i, rv, less, text);
        if (rv == 1)
            assert_string_equal(text, pairs[i].text);
        tq_body_unref(a);
        tq_body_unref(b);
    }
}

static int less_of(const char *opcodes, size_t n, char text[TQ_ITEM_TEXT_MAX])
{
    struct tq_body *a = item_from(opcodes, n);
    struct tq_body *b = item_from(opcodes, n);
    bool less = true;
    int rv = tq_item_less(a, b, &less, text);

    if (rv == TQ_OK)
        assert_false(less);
    tq_body_unref(a);
    tq_body_unref(b);
    return rv;
}

static void test_less_depth(void **state)
{
    char text[TQ_ITEM_TEXT_MAX] = "";
    uint8_t data[400];

    (void)state;
    memset(data, 0x85, sizeof(data));
    data[0] = ')';
    assert_int_equal(less_of((char *)data, 199, text), TQ_OK);
    assert_int_equal(less_of((char *)data, 300, text), 1);
    assert_string_equal(text, "maximum recursion depth exceeded in comparison");
    /* a list in itself */
    assert_int_equal(less_of("]q\1h\1a", 6, text), 1);
    assert_string_equal(text, "maximum recursion depth exceeded in comparison");
}

/* Each level holds the one below twice: 2^60 leaves. */
static void test_less_work(void **state)
{
    char text[TQ_ITEM_TEXT_MAX] = "";
    uint8_t data[1024] = "]q\1";
    size_t n = 3;

    (void)state;
    for (uint8_t i = 1; i <= 60; i++) {
        const uint8_t level[] = {'h', i, 0x86, 'q', (uint8_t)(i + 1)};

        memcpy(data + n, level, sizeof(level));
        n += sizeof(level);
    }
    assert_int_equal(less_of((char *)data, n, text), 1);
    assert_string_equal(text, "items too large to compare");
}

/* Decimal text of more digits than Python takes. */
static void test_less_digits(void **state)
{
    static char data[5000];
    char text[TQ_ITEM_TEXT_MAX] = "";

    (void)state;
    memset(data, '7', sizeof(data));
    data[0] = 'I';
    data[4301] = '\n';
    assert_int_equal(less_of(data, 4302, text), TQ_OK);
    data[4301] = '7';
    data[4302] = '\n';
    assert_int_equal(less_of(data, 4303, text), 1);
}

/* ---- memory that fails ---- */

static void test_out_of_memory(void **state)
{
    /* A large item with references into the envelope; compared with itself. */
    static uint8_t data[8192];
    size_t n = 0;
    long step = 0;

    (void)state;
    data[n++] = '(';
    for (int i = 0; i < 900; i++) {
        const uint8_t element[] = {'h', 0, 0x94, 'K', (uint8_t)i, '0'};

        memcpy(data + n, element, i % 2 ? sizeof(element) : 2);
        n += i % 2 ? sizeof(element) : 2;
    }
    data[n++] = 't';
    for (;; step++) {
        uint8_t request[8300];
        struct tq_body *body = NULL;
        struct tq_pickle p;
        const char *why = NULL;
        char text[TQ_ITEM_TEXT_MAX];
        bool less;
        int rv;

        memcpy(request, "(U\1i\x94U\3put", 10);
        memcpy(request + 10, data, n);
        memcpy(request + 10 + n, "\x85}t.", 4);
        tq_mem_fail_after(step, 1);
        rv = tq_pickle_scan(&p, tq_span(request, n + 14), &why);
        if (rv == TQ_OK) {
            struct tq_pk_range *list = NULL;
            uint32_t count;

            rv = tq_pk_children(&p, p.top[2], &list, &count);
            if (rv == TQ_OK)
                rv = tq_item_from_request(&p, list[0], &body);
            tq_free(list);
            tq_pickle_deinit(&p);
        }
        if (rv == TQ_OK)
            rv = tq_item_less(body, body, &less, text);
        tq_body_unref(body);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK)
            break;
        assert_int_equal(rv, TQ_ENOMEM);
    }
    assert_true(step > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),       cmocka_unit_test(test_tail),
        cmocka_unit_test(test_many_frames), cmocka_unit_test(test_less),
        cmocka_unit_test(test_less_depth),  cmocka_unit_test(test_less_work),
        cmocka_unit_test(test_less_digits), cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
