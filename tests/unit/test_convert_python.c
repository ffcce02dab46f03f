/* msgpack values as the frames that Python reads, and the way there and back. Whether Python agrees is what
 * tests/integration/test_convert.py asks. */
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

/* Behind something that is there already. */
static int convert(struct tq_span value, struct tq_buf *out, uint32_t *ret_item_off, uint32_t *ret_item_len)
{
    uint8_t *copy = guard_copy(value.data, value.len);
    int rv;

    tq_buf_clear(out);
    assert_int_equal(tq_buf_append(out, "before", 6), TQ_OK);
    rv = tq_convert_to_python(tq_span(copy, value.len), out, ret_item_off, ret_item_len);
    guard_free(copy, value.len);
    assert_memory_equal(out->data, "before", 6);
    if (rv != TQ_OK) {
        assert_int_equal(out->len, 6);
        return rv;
    }
    tq_buf_consume(out, 6);
    return TQ_OK;
}

/* A frame that is a reply, with the item where it is said to be. */
static void check_frame(const struct tq_buf *frame, uint32_t item_off, uint32_t item_len)
{
    struct tq_pickle p;
    const char *why = "";

    assert_int_equal(tq_load_be32(frame->data), frame->len - 4);
    if (tq_pickle_scan(&p, tq_span(frame->data + 4, frame->len - 4), &why) != TQ_OK)
        fail_msg("%s", why);
    assert_int_equal(p.top_count, 2);
    assert_int_equal(p.top[1].end, frame->len - 4 - 2);
    assert_true(p.top[1].start + 4 >= item_off);
    assert_int_equal(item_off + item_len + 2, frame->len);
    assert_memory_equal(frame->data + item_off - 12, RETURN, 12);
    tq_pickle_deinit(&p);
}

#define P3 "\x80\3"
#define P4 "\x80\4"

#define DATETIME     "cdatetime\ndatetime\nq\0"
#define UTC          "cdatetime\ntimezone\ncdatetime\ntimedelta\n)R\x85Rq\1"
#define WHEN(state)  DATETIME "C\x0a" state UTC "\x86R"
#define AGAIN(state) "h\0C\x0a" state "h\1\x86R"
#define TIME_96(s)   "\xc7\x0c\xff" s

static const struct {
    const char *value;
    size_t value_len;
    const char *proto;
    const char *item; /* NULL: refused */
    size_t item_len;
} values[] = {
    {BYTES("\xc0"), P3, BYTES("N")},
    {BYTES("\xc2"), P3, BYTES("\x89")},
    {BYTES("\xc3"), P3, BYTES("\x88")},
    {BYTES("\0"), P3, BYTES("K\0")},
    {BYTES("\xcc\xff"), P3, BYTES("K\xff")},
    {BYTES("\xcd\xff\xff"), P3, BYTES("M\xff\xff")},
    {BYTES("\xce\0\1\0\0"), P3, BYTES("J\0\0\1\0")},
    {BYTES("\xce\xff\xff\xff\xff"), P3, BYTES("\x8a\x08\xff\xff\xff\xff\0\0\0\0")},
    {BYTES("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), P3, BYTES("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f")},
    {BYTES("\xcf\x80\0\0\0\0\0\0\0"), P3, BYTES("\x8a\x09\0\0\0\0\0\0\0\x80\0")},
    {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), P3, BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0")},
    {BYTES("\xd3\0\0\0\0\0\0\0\1"), P3, BYTES("K\1")},
    {BYTES("\xff"), P3, BYTES("J\xff\xff\xff\xff")},
    {BYTES("\xd3\x80\0\0\0\0\0\0\0"), P3, BYTES("\x8a\x08\0\0\0\0\0\0\0\x80")},
    {BYTES("\xca?\xc0\0\0"), P3, BYTES("G?\xf8\0\0\0\0\0\0")},
    {BYTES("\xcb\x7f\xf8\0\0\0\0\0\0"), P3, BYTES("G\x7f\xf8\0\0\0\0\0\0")},
    {BYTES("\xa0"), P3, BYTES("X\0\0\0\0")},
    {BYTES("\xa3\xe2\x82\xac"), P3, BYTES("X\3\0\0\0\xe2\x82\xac")},
    {BYTES("\xd9\1a"), P3, BYTES("X\1\0\0\0a")},
    {BYTES("\xa1\xff"), P3, BYTES("C\1\xff")},
    {BYTES("\xa3\xed\xb0\x80"), P3, BYTES("C\3\xed\xb0\x80")},
    {BYTES("\xc4\0"), P3, BYTES("C\0")},
    {BYTES("\xc4\2\0\xff"), P3, BYTES("C\2\0\xff")},
    /* containers */
    {BYTES("\x90"), P3, BYTES("]")},
    {BYTES("\x80"), P3, BYTES("}")},
    {BYTES("\x91\1"), P3, BYTES("]K\1a")},
    {BYTES("\x92\1\2"), P3, BYTES("](K\1K\2e")},
    {BYTES("\xdc\0\1\1"), P3, BYTES("]K\1a")},
    {BYTES("\x81\1\2"), P3, BYTES("}K\1K\2s")},
    {BYTES("\x82\1\2\3\4"), P3, BYTES("}(K\1K\2K\3K\4u")},
    {BYTES("\x92\x91\x90\x81\1\x80"), P3, BYTES("](]]a}K\1}se")},
    {BYTES("\x93\1\x92\2\3\4"), P3, BYTES("](K\1](K\2K\3eK\4e")},
    /* keys */
    {BYTES("\x81\x90\1"), P3, BYTES("})K\1s")},
    {BYTES("\x81\x91\1\x91\1"), P3, BYTES("}K\1\x85]K\1as")},
    {BYTES("\x81\x93\1\x92\2\3\4\xc0"), P3, BYTES("}K\1K\2K\3\x86K\4\x87Ns")},
    {BYTES("\x81\x94\1\2\3\4\xc0"), P3, BYTES("}(K\1K\2K\3K\4tNs")},
    {BYTES("\x81\x80\xc0"), P3, BYTES("})Ns")},
    {BYTES("\x81\x81\1\2\xc0"), P3, BYTES("}K\1K\2\x86\x85Ns")},
    {BYTES("\x81\x82\1\x90\2\x81\3\4\x80"), P3, BYTES("}K\1)\x86K\2K\3K\4\x86\x85\x86\x86}s")},
    {BYTES("\x81\x84\1\1\2\2\3\3\4\4\xc0"), P3, BYTES("}(K\1K\1\x86K\2K\2\x86K\3K\3\x86K\4K\4\x86tNs")},
    {BYTES("\x82\x91\x91\1\x81\x91\2\x90\3\4"), P3, BYTES("}(K\1\x85\x85}K\2\x85]sK\3K\4u")},
    /* exts of others */
    {BYTES("\xd4\5x"), P3, BYTES("K\5C\1x\x86")},
    {BYTES("\xc7\0\x80"), P3, BYTES("J\x80\xff\xff\377C\0\x86")},
    {BYTES("\xd5\xfeok"), P3, BYTES("J\xfe\xff\xff\377C\2ok\x86")},
    {BYTES("\x81\xd4\5x\xc0"), P3, BYTES("}K\5C\1x\x86Ns")},
    /* timestamps */
    {BYTES("\xd6\xff\0\0\0\0"), P3, BYTES(WHEN("\7\xb2\1\1\0\0\0\0\0\0"))},
    {BYTES("\xd6\xff\xff\xff\xff\xff"), P3, BYTES(WHEN("\x08\x3a\2\7\6\x1c\x0f\0\0\0"))},
    {BYTES("\xd7\xff\xee\x6b\x27\xfc\0\0\0\1"), P3, BYTES(WHEN("\7\xb2\1\1\0\0\1\x0f\x42\x3f"))},
    {BYTES("\xd7\xff\xee\x6b\x28\0\0\0\0\1"), P3, BYTES("J\xff\xff\xff\377C\x08\xee\x6b\x28\0\0\0\0\1\x86")},
    {BYTES(TIME_96("\0\0\x3\xe7\xff\xff\xff\xff\xff\xff\xff\xff")), P3,
     BYTES(WHEN("\7\xb1\x0c\x1f\x17\x3b\x3b\0\0\0"))},
    {BYTES(TIME_96("\x3b\x9a\xc9\xff\xff\xff\xff\xff\xff\xff\xff\xff")), P3,
     BYTES(WHEN("\7\xb1\x0c\x1f\x17\x3b\x3b\x0f\x42\x3f"))},
    {BYTES(TIME_96("\0\0\0\0\xff\xff\xff\xf1\x88\x6e\x09\0")), P3, BYTES(WHEN("\0\1\1\1\0\0\0\0\0\0"))},
    {BYTES(TIME_96("\0\0\0\0\xff\xff\xff\xf1\x88\x6e\x08\xff")), P3,
     BYTES("J\xff\xff\xff\377C\x0c\0\0\0\0\xff\xff\xff\xf1\x88\x6e\x08\xff\x86")},
    {BYTES(TIME_96("\0\0\0\0\0\0\0\x3a\xff\xf4\x41\x7f")), P3,
     BYTES(WHEN("\x27\x0f\x0c\x1f\x17\x3b\x3b\0\0\0"))},
    {BYTES(TIME_96("\0\0\0\0\0\0\0\x3a\xff\xf4\x41\x80")), P3,
     BYTES("J\xff\xff\xff\377C\x0c\0\0\0\0\0\0\0\x3a\xff\xf4\x41\x80\x86")},
    {BYTES(TIME_96("\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")), P3,
     BYTES("J\xff\xff\xff\377C\x0c\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff\x86")},
    {BYTES(TIME_96("\xff\xff\xff\xff\0\0\0\0\0\0\0\1")), P3,
     BYTES("J\xff\xff\xff\377C\x0c\xff\xff\xff\xff\0\0\0\0\0\0\0\1\x86")},
    {BYTES("\xd5\xff\0\0"), P3, BYTES("J\xff\xff\xff\377C\2\0\0\x86")},
    {BYTES("\xc7\0\xff"), P3, BYTES("J\xff\xff\xff\377C\0\x86")},
    /* 29 February of 2000, 1 March of 1900 and 2100 */
    {BYTES("\x93\xd6\xff\x38\xbb\x0c\0" TIME_96(
         "\0\0\0\0\xff\xff\xff\xff\x7c\xa3\x4a\0") "\xd6\xff\xf4\xd4\x1f\x80"),
     P3,
     BYTES("](" WHEN("\7\xd0\2\x1d\0\0\0\0\0\0") AGAIN("\7\x6c\3\1\0\0\0\0\0\0")
               AGAIN("\x08\x34\3\1\0\0\0\0\0\0") "e")},
    /* pickles inside */
    {BYTES("\x91\xd6PK\5\x85."), P3, BYTES("]K\5\205a")},
    {BYTES("\x91\xc7\6P\x80\3K\5\x85."), P3, BYTES("]K\5\205a")},
    {BYTES("\x91\xc7\6P\x80\4K\5\x85."), P4, BYTES("]K\5\205a")},
    {BYTES("\x91\xc7\6P\x80\5K\5\x85."), P4, BYTES("]K\5\205a")},
    {BYTES("\x91\xc7\x0fP\x80\4\x95\3\0\0\0\0\0\0\0K\5\x85."), P4, BYTES("]K\5\205a")},
    {BYTES("\x91\xc7\x0bP\x80\3]q\5h\5aq\6."), P3, BYTES("]]q\0h\0aa")},
    {BYTES("\x91\xc7\x0dP\x80\4N\x94\x94"
           "0]\x94h\2a\x94."),
     P4, BYTES("]N0]q\0h\0aa")},
    {BYTES("\x92\xc7\x08P\x80\4]\x94h\0a.\xc7\x08P\x80\4]\x94h\0a."), P4, BYTES("](]q\0h\0a]q\1h\1ae")},
    {BYTES("\x93\xd6\xff\0\0\0\0\xc7\x08P\x80\4]\x94h\0a.\xd6\xff\0\0\0\0"), P4,
     BYTES("](" WHEN("\7\xb2\1\1\0\0\0\0\0\0") "]q\2h\2a" AGAIN("\7\xb2\1\1\0\0\0\0\0\0") "e")},
    {BYTES("\x91\xc7\x14P]p1\ng1\na]r\1\0\0\0j\2\0\0\0."), P3, NULL, 0}, /* not there */
    {BYTES("\x91\xc7\x14P(]p1\ng1\naNr\2\0\0\0g2\nt."), P3, BYTES("](]q\0h\0aNq\1h\1ta")},
    {BYTES("\x91\xc7\x0eP\x80\5\x96\2\0\0\0\0\0\0\0ab."), P4, BYTES("]cbuiltins\nbytearray\nC\2ab\x85Ra")},
    {BYTES("\x91\xc7\x0aP\x80\3cm\nX\n)R."), P3, BYTES("]cm\nX\n)Ra")},
    /* names of Python 2 */
    {BYTES("\x91\xc7\x0aP\x80\2cm\nX\n)R."), P3, BYTES("]cpickle\nloads\nC\x0a\x80\2cm\nX\n)R.\x85Ra")},
    {BYTES("\x91\xc7\7P(im\nX\n."), P3, BYTES("]cpickle\nloads\nC\7(im\nX\n.\x85Ra")},
    {BYTES("\x91\xc7\3P\x82\5."), P3, BYTES("]cpickle\nloads\nC\3\x82\5.\x85Ra")},
    {BYTES("\x91\xc7\5P\x80\3\x82\5."), P3, BYTES("]\x82\5a")},
    /* pickles alone */
    {BYTES("\xd5PN."), "\x80\2", BYTES("N")},
    {BYTES("\xd6P\x80\2N."), "\x80\2", BYTES("N")},
    {BYTES("\xd6P\x80\3N."), P3, BYTES("N")},
    {BYTES("\xd6P\x80\5N."), P4, BYTES("N")},
    {BYTES("\xc7\x0bP\x80\3]q\5h\5aq\6."), P3, BYTES("]q\5h\5aq\6")},
    {BYTES("\xc7\x0aP\x80\2cm\nX\n)R."), "\x80\2", BYTES("cm\nX\n)R")},
    /* no pickles */
    {BYTES("\xc7\0P"), P3, NULL, 0},
    {BYTES("\xd4PN"), P3, NULL, 0},
    {BYTES("\x91\xd4PN"), P3, NULL, 0},
    {BYTES("\x91\xd4P."), P3, NULL, 0},
    {BYTES("\x92\1\xc7\3PN0."), P3, NULL, 0},
    {BYTES("\x92\1\xd5P0."), P3, NULL, 0},
    {BYTES("\x92\1\xc7\3Pa.."), P3, NULL, 0},
    {BYTES("\x92\1\xc7\3P(N."), P3, NULL, 0},
    {BYTES("\x92\1\xc7\3Ph\0."), P3, NULL, 0},
    {BYTES("\x92\1\xd6PPx\n."), P3, NULL, 0},
};

static void show(const char *name, const uint8_t *p, size_t n)
{
    fprintf(stderr, "%s:", name);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, p[i] > ' ' && p[i] < 127 ? " %c" : " %02x", p[i]);
    fprintf(stderr, "\n");
}

static void test_values(void **state)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct tq_span value = tq_span(values[i].value, values[i].value_len);
        uint8_t wanted[512];
        uint32_t off, len;
        const char *why = "";
        size_t n = 14;
        int rv;

        if (tq_mp_walk_all(value, &why) != TQ_OK)
            fail_msg("value %zu: %s", i, why);
        rv = convert(value, &out, &off, &len);
        if (values[i].item == NULL) {
            if (rv != TQ_EPROTO)
                fail_msg("value %zu: %d", i, rv);
            continue;
        }
        if (rv != TQ_OK)
            fail_msg("value %zu: %d", i, rv);
        check_frame(&out, off, len);
        memcpy(wanted, values[i].proto, 2);
        memcpy(wanted + 2, RETURN, 12);
        memcpy(wanted + n, values[i].item, values[i].item_len);
        n += values[i].item_len;
        memcpy(wanted + n, "\x86.", 2);
        n += 2;
        if (!tq_span_eq(tq_span(out.data + 4, out.len - 4), tq_span(wanted, n))) {
            show("got ", out.data + 4, out.len - 4);
            show("want", wanted, n);
            fail_msg("value %zu", i);
        }
    }
    tq_buf_deinit(&out);
}

/* What no walk has seen: refused, and not read behind its end. */
static void test_cut(void **state)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    uint8_t deep[TQ_MP_DEPTH_MAX + 2];
    uint32_t off, len;

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        for (size_t cut = 0; cut < values[i].value_len; cut++)
            assert_int_equal(convert(tq_span(values[i].value, cut), &out, &off, &len), TQ_EPROTO);
    assert_int_equal(convert(tq_span("\xc1", 1), &out, &off, &len), TQ_EPROTO);
    memset(deep, 0x91, sizeof(deep));
    deep[TQ_MP_DEPTH_MAX + 1] = 1;
    assert_int_equal(convert(tq_span(deep, sizeof(deep)), &out, &off, &len), TQ_EPROTO);
    assert_int_equal(convert(tq_span(deep + 1, sizeof(deep) - 1), &out, &off, &len), TQ_OK);
    check_frame(&out, off, len);
    tq_buf_deinit(&out);
}

/* The ceiling is exact. */
static void test_limits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
        struct tq_span value = tq_span(values[i].value, values[i].value_len);
        uint32_t off, len;
        size_t n;

        if (values[i].item == NULL)
            continue;
        assert_int_equal(convert(value, &out, &off, &len), TQ_OK);
        n = out.len;
        tq_buf_deinit(&out);
        out.max = 6 + n - 1;
        assert_int_equal(convert(value, &out, &off, &len), TQ_ELIMIT);
        out.max = 8;
        assert_int_equal(convert(value, &out, &off, &len), TQ_ELIMIT);
        out.max = 6 + n;
        assert_int_equal(convert(value, &out, &off, &len), TQ_OK);
        tq_buf_deinit(&out);
    }
}

/* ---- there and back ---- */

static void to_msgpack(const struct tq_buf *frame, uint32_t off, uint32_t len, struct tq_buf *out)
{
    tq_buf_clear(out);
    assert_int_equal(tq_convert_to_msgpack(tq_buf_span(frame), off, len, MAX_BYTES, out), TQ_OK);
}

/* A value comes back as it was or, when Python has another idea of it, as something that stays. Frames that
 * are kept as items compare as equal. */
static void test_there_and_back(void **state)
{
    struct tq_buf frame = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf back = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf again = TQ_BUF_NULL(MAX_BYTES);
    size_t same = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct tq_span value = tq_span(values[i].value, values[i].value_len);
        char text[TQ_ITEM_TEXT_MAX];
        struct tq_body *body;
        uint32_t off, len;
        bool less = true;
        int rv;

        if (values[i].item == NULL)
            continue;
        assert_int_equal(convert(value, &frame, &off, &len), TQ_OK);
        to_msgpack(&frame, off, len, &back);
        same += tq_span_eq(value, tq_buf_span(&back));
        body = tq_body_new((uint32_t)frame.len);
        memcpy(body->data, frame.data, frame.len);
        body->item_off = off;
        body->item_len = len;
        rv = tq_item_less(body, body, &less, text);
        assert_true((rv == TQ_OK && !less) || rv == 1);
        tq_body_unref(body);
        assert_int_equal(convert(tq_buf_span(&back), &frame, &off, &len), TQ_OK);
        to_msgpack(&frame, off, len, &again);
        if (!tq_span_eq(tq_buf_span(&back), tq_buf_span(&again)))
            fail_msg("value %zu", i);
    }
    assert_true(same > 30);
    tq_buf_deinit(&frame);
    tq_buf_deinit(&back);
    tq_buf_deinit(&again);
}

/* Requests whose items only Python can read: the frame that is made of the ext is the one that a stock
 * consumer would have had. */
static void test_faithful(void **state)
{
    static const struct {
        const char *request;
        size_t request_len;
    } requests[] = {
        {BYTES("\x80\4\x95\0\0\0\0\0\0\0\0(\x8c\1i\x94\x8c\3put\x94\x8f\x94(K\1\x90\x85\x94}\x94t\x94.")},
        {BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94]\x94h\2a\x85\x94}\x94t\x94.")},           /* a pad */
        {BYTES("\x80\4(\x8c\1i\x94\x8c\3put\x94\x8f\x94(h\1h\0\x90\x85\x94}\x94t\x94.")}, /* a replay */
        {BYTES(
            "\x80\4(\x8c\1i\x94\x8c\3put\x94)}\x94(\x8c\4item\x94\x8f\x94(h\3\x90ut\x94.")}, /* two marks */
        {BYTES("\x80\2(U\1iq\0U\3putq\1]q\2h\2a\x85q\3}q\4tq\5.")},
        {BYTES("\x80\3]q\0(U\1iq\1U\3putq\2cm\nX\nh\1\x85R\x85}e.")},
        {BYTES("\x80\5(\x8c\1i\x8c\3put\x96\2\0\0\0\0\0\0\0ab\x94\x85}t.")},
        {BYTES("(S'i'\np0\nS'put'\np1\n((cm\nX\np2\ng1\ng2\nttp3\n(dp4\ntp5\n.")},
    };
    struct tq_buf value = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf frame = TQ_BUF_NULL(MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct tq_pk_range *list = NULL;
        struct tq_body *body = NULL;
        struct tq_pickle p;
        uint32_t count = 0, off, len;
        const char *why = "";

        assert_int_equal(tq_pickle_scan(&p, tq_span(requests[i].request, requests[i].request_len), &why),
                         TQ_OK);
        assert_int_equal(tq_pk_children(&p, p.top[2], &list, &count), TQ_OK);
        if (count == 0)
            assert_int_equal(tq_pk_children(&p, p.top[3], &list, &count), TQ_OK);
        assert_int_equal(tq_item_from_request(&p, list[count - 1], &body), TQ_OK);
        tq_free(list);
        tq_pickle_deinit(&p);
        tq_buf_clear(&value);
        assert_int_equal(tq_convert_to_msgpack(tq_span(body->data, body->len), body->item_off, body->item_len,
                                               MAX_BYTES, &value),
                         TQ_OK);
        assert_int_equal(convert(tq_buf_span(&value), &frame, &off, &len), TQ_OK);
        if (!tq_span_eq(tq_buf_span(&frame), tq_span(body->data, body->len))) {
            show("got ", frame.data, frame.len);
            show("want", body->data, body->len);
            fail_msg("request %zu", i);
        }
        assert_int_equal(off, body->item_off);
        assert_int_equal(len, body->item_len);
        tq_body_unref(body);
    }
    tq_buf_deinit(&value);
    tq_buf_deinit(&frame);
}

/* ---- much, and memory that fails ---- */

/* An array of 100 pickles, each with 300 entries that it refers to. */
static size_t many_pickles(uint8_t *value)
{
    size_t n = 0;

    memcpy(value, "\xdc\0\x64", 3);
    n = 3;
    for (int i = 0; i < 100; i++) {
        size_t head = n;
        size_t len;

        n += 4;
        memcpy(value + n, "\x80\4(", 3);
        n += 3;
        for (uint32_t k = 0; k < 300; k++) {
            const uint8_t entry[] = {'N', 0x94, 'j', (uint8_t)k, (uint8_t)(k >> 8), 0, 0};

            memcpy(value + n, entry, sizeof(entry));
            n += sizeof(entry);
        }
        memcpy(value + n, "t.", 2);
        n += 2;
        len = n - head - 4;
        memcpy(value + head, (uint8_t[]){0xc8, (uint8_t)(len >> 8), (uint8_t)len, 'P'}, 4);
    }
    return n;
}

static void test_many_entries(void **state)
{
    static uint8_t value[300000];
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf back = TQ_BUF_NULL(MAX_BYTES);
    size_t n = many_pickles(value);
    uint32_t off, len;

    (void)state;
    assert_int_equal(convert(tq_span(value, n), &out, &off, &len), TQ_OK);
    check_frame(&out, off, len);
    to_msgpack(&out, off, len, &back);
    assert_int_equal(back.len, 3 + 100 * (3 + 600)); /* it was plain after all */
    tq_buf_deinit(&out);
    tq_buf_deinit(&back);
}

static void fail_each(struct tq_span value, long least)
{
    struct tq_buf out = TQ_BUF_NULL(MAX_BYTES);
    uint32_t off, len;
    long step = 0;
    int rv;

    for (;; step++) {
        tq_mem_fail_after(step, 1);
        rv = tq_convert_to_python(value, &out, &off, &len);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK)
            break;
        assert_int_equal(rv, TQ_ENOMEM);
        assert_int_equal(out.len, 0);
    }
    assert_true(step >= least);
    tq_buf_deinit(&out);
}

static void test_out_of_memory(void **state)
{
    static uint8_t value[300000];
    size_t n = many_pickles(value);

    (void)state;
    fail_each(tq_span("\x92\1\xa1x", 4), 1);
    fail_each(tq_span(value, n), 200);
    /* The first of them alone. */
    fail_each(tq_span(value + 3, (n - 3) / 100), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_faithful),      cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
