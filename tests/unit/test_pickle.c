/* The pickle reader: what it accepts and refuses, and what it says about the values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/pickle.h"
#include "tests/lib/guard.h"

#define BYTES(text) text, sizeof(text) - 1
#define SPAN(text)  tq_span(text, sizeof(text) - 1)

/* A get with a keyword argument as 3.8 to 3.13 send it, and as 3.6 does. */
#define GET_4                                                                                                \
    "\x80\x04\x95)\0\0\0\0\0\0\0(\x8c\x0c"                                                                   \
    "7f46b78c5a90\x94\x8c\3get\x94)}\x94\x8c\7timeout\x94K\1st\x94."
#define GET_3                                                                                                \
    "\x80\3(X\x0c\0\0\0"                                                                                     \
    "7f46b78c5a90q\0X\3\0\0\0getq\1)}q\2X\7\0\0\0timeoutq\3K\1stq\4."

/* ---- accepted and refused ---- */

static const struct {
    const char *bytes;
    size_t len;
    const char *why; /* NULL: accepted */
} scans[] = {
    {BYTES(GET_4), NULL},
    {BYTES(GET_3), NULL},
    {BYTES("N."), NULL},
    {BYTES("\x80\5N."), NULL},
    {BYTES("\x95\xff\xff\xff\xff\xff\xff\xff\xffN\x95\1\0\0\0\0\0\0\0."), NULL}, /* FRAME says nothing */
    {BYTES("(N0t."), NULL},
    {BYTES("(NN1N."), NULL},
    {BYTES("N(0."), NULL},
    {BYTES("N\x94\x94\x94h\2\x86."), NULL},
    {BYTES("Np0\ng0\n\x86."), NULL},
    {BYTES("Nr\x80\0\0\0j\x80\0\0\0\x86."), NULL},
    {BYTES("]2a."), NULL},
    {BYTES("(i__main__\nX\n."), NULL},
    {BYTES("(c__main__\nX\no."), NULL},
    {BYTES("\x82\1."), NULL},
    {BYTES(""), "truncated"},
    {BYTES("N"), "truncated"},
    {BYTES("\x80"), "truncated"},
    {BYTES("X\5\0\0\0abcd."), "truncated"},
    {BYTES("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f."), "truncated"},
    {BYTES("\x8e\0\0\0\0\0\0\0\x80."), "truncated"},
    {BYTES("\x96\xff\xff\xff\xff\xff\xff\xff\xff."), "truncated"},
    {BYTES("\x8b\xff\xff\xff\x7f."), "truncated"},
    {BYTES("B\xff\xff\xff\xff."), "truncated"},
    {BYTES("I12345678"), "truncated"},
    {BYTES("cmodule\nname"), "truncated"},
    {BYTES("cmodule\n"), "truncated"},
    {BYTES("\x95\0\0\0\0\0\0\0"), "truncated"},
    {BYTES("\x8b\xff\xff\xff\xff."), "negative length"},
    {BYTES("T\0\0\0\x80."), "negative length"},
    {BYTES("\xff."), "unknown opcode"},
    {BYTES("\x99."), "unknown opcode"},
    {BYTES("\0."), "unknown opcode"},
    {BYTES("Pid\n."), "refused opcode"},
    {BYTES("NQ."), "refused opcode"},
    {BYTES("\x97."), "refused opcode"},
    {BYTES("N\x98."), "refused opcode"},
    {BYTES("\x80\6N."), "unsupported pickle protocol"},
    {BYTES("N\x80\4."), "PROTO inside the pickle"},
    {BYTES("."), "stack underflow"},
    {BYTES("("), "truncated"},
    {BYTES("(."), "stack underflow"},
    {BYTES("0N."), "stack underflow"},
    {BYTES("2."), "stack underflow"},
    {BYTES("(2."), "stack underflow"},
    {BYTES("N\x86."), "stack underflow"},
    {BYTES("N(N\x86."), "stack underflow"},
    {BYTES("\x94N."), "stack underflow"},
    {BYTES("N(\x94t."), "stack underflow"},
    {BYTES("Na."), "stack underflow"},
    {BYTES("(Ne."), "stack underflow"},
    {BYTES("]((Ne."), "stack underflow"},
    {BYTES("(o."), "stack underflow"},
    {BYTES("Nt."), "no mark"},
    {BYTES("N1."), "no mark"},
    {BYTES("]Ne."), "no mark"},
    {BYTES("(NNNd."), "odd number of items"},
    {BYTES("}(Nu."), "odd number of items"},
    {BYTES("NN."), "values left at STOP"},
    {BYTES("(N."), "values left at STOP"},
    {BYTES("N.N."), "bytes behind STOP"},
    {BYTES("h\0."), "memo entry not there"},
    {BYTES("Nq\1h\0."), "memo entry not there"},
    {BYTES("g1x\n."), "memo entry not there"},
    {BYTES("g\n."), "memo entry not there"},
    {BYTES("g-1\n."), "memo entry not there"},
    {BYTES("j\xff\xff\xff\xff."), "memo entry not there"},
    {BYTES("Nq\1q\1."), "memo entry written twice"},
    {BYTES("N\x94q\0."), "memo entry written twice"},
    {BYTES("Nq\1\x94\x94."), "memo entry written twice"},
    {BYTES("Nr\0(k\xee."), "memo index out of range"}, /* 4,000,000,000 */
    {BYTES("Nr\0\0\0\x80."), "memo index out of range"},
    {BYTES("Np4000000000\n."), "memo index out of range"},
    {BYTES("Np99999999999999999999999\n."), "memo index out of range"},
    {BYTES("Np-1\n."), "memo index out of range"},
    {BYTES("Np\n."), "memo index out of range"},
};

static int scan_guarded(const void *data, size_t n, const char **ret_why)
{
    uint8_t *copy = guard_copy(data, n);
    struct tq_pickle p;
    int rv = tq_pickle_scan(&p, tq_span(copy, n), ret_why);

    if (rv == TQ_OK)
        tq_pickle_deinit(&p);
    guard_free(copy, n);
    return rv;
}

static void test_scan(void **state)
{
    const char *why = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(scans) / sizeof(scans[0]); i++) {
        int rv = scan_guarded(scans[i].bytes, scans[i].len, &why);

        if (scans[i].why == NULL && rv != TQ_OK)
            fail_msg("case %zu: refused: %s", i, why);
        if (scans[i].why != NULL && (rv != TQ_EPROTO || strcmp(why, scans[i].why) != 0))
            fail_msg("case %zu: %d %s, not %s", i, rv, why, scans[i].why);
    }
}

/* Long inputs take another way (counted beforehand); each small case again behind 600 bytes that are thrown
 * away. */
static void test_scan_long(void **state)
{
    const char *why = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(scans) / sizeof(scans[0]); i++) {
        uint8_t data[1024] = "B\x58\2\0\0";
        size_t n = 5 + 600;
        int rv;

        if (scans[i].len > 0 && (uint8_t)scans[i].bytes[0] == 0x80)
            continue; /* PROTO must be the first */
        data[n++] = '0';
        memcpy(data + n, scans[i].bytes, scans[i].len);
        rv = scan_guarded(data, n + scans[i].len, &why);
        if (scans[i].why == NULL && rv != TQ_OK)
            fail_msg("case %zu: refused: %s", i, why);
        if (scans[i].why != NULL && (rv != TQ_EPROTO || strcmp(why, scans[i].why) != 0))
            fail_msg("case %zu: %d %s, not %s", i, rv, why, scans[i].why);
    }
}

static void test_scan_cut(void **state)
{
    static const char *const whole[] = {GET_4, GET_3};
    static const size_t lens[] = {sizeof(GET_4) - 1, sizeof(GET_3) - 1};
    const char *why = NULL;

    (void)state;
    for (int i = 0; i < 2; i++) {
        for (size_t n = 0; n < lens[i]; n++) {
            assert_int_equal(scan_guarded(whole[i], n, &why), TQ_EPROTO);
            assert_string_equal(why, "truncated");
        }
        assert_int_equal(scan_guarded(whole[i], lens[i], &why), TQ_OK);
    }
}

static void test_scan_too_large(void **state)
{
    struct tq_pickle p;
    const char *why = NULL;

    (void)state;
    assert_int_equal(tq_pickle_scan(&p, tq_span("N.", (size_t)INT32_MAX + 1), &why), TQ_ELIMIT);
}

/* ---- values ---- */

/* "(VALUE t." and the like: the only child of the top-level tuple. */
struct rig {
    struct tq_pickle p;
    struct tq_pk_range r;
    uint8_t bytes[1200];
    size_t len;
};

static void rig_open(struct rig *rig, const char *opcodes, size_t n, size_t padding)
{
    const char *why = NULL;

    rig->len = 0;
    if (padding > 0) { /* an element in front, so that the small sizes are passed */
        static const uint8_t head[] = "(B\0\0\0\0";

        memcpy(rig->bytes, head, 6);
        rig->bytes[2] = (uint8_t)padding;
        rig->bytes[3] = (uint8_t)(padding >> 8);
        memset(rig->bytes + 6, 'h', padding);
        rig->len = 6 + padding;
    } else {
        rig->bytes[rig->len++] = '(';
    }
    memcpy(rig->bytes + rig->len, opcodes, n);
    rig->len += n;
    memcpy(rig->bytes + rig->len, "t.", 2);
    rig->len += 2;
    if (tq_pickle_scan(&rig->p, tq_span(rig->bytes, rig->len), &why) != TQ_OK)
        fail_msg("%s", why);
    assert_true(rig->p.top_count >= 1);
    assert_false(rig->p.top_is_list);
    rig->r = rig->p.top[rig->p.top_count - 1];
}

static const struct {
    const char *bytes;
    size_t len;
    enum tq_pk_kind kind;
    int64_t integer; /* also of bool */
    double real;
    const char *text; /* of STR and BYTES, BIGINT */
    bool escaped;
    bool truth;
    const char *type;
} values[] = {
    {BYTES("N"), TQ_PK_NONE, 0, 0, NULL, false, false, "NoneType"},
    {BYTES("\x88"), TQ_PK_BOOL, 1, 0, NULL, false, true, "bool"},
    {BYTES("\x89"), TQ_PK_BOOL, 0, 0, NULL, false, false, "bool"},
    {BYTES("I01\n"), TQ_PK_BOOL, 1, 0, NULL, false, true, "bool"},
    {BYTES("I00\n"), TQ_PK_BOOL, 0, 0, NULL, false, false, "bool"},
    {BYTES("I0\n"), TQ_PK_INT, 0, 0, NULL, false, false, "int"},
    {BYTES("I-12\n"), TQ_PK_INT, -12, 0, NULL, false, true, "int"},
    {BYTES("I9223372036854775807\n"), TQ_PK_INT, INT64_MAX, 0, NULL, false, true, "int"},
    {BYTES("L-9223372036854775808L\n"), TQ_PK_INT, INT64_MIN, 0, NULL, false, true, "int"},
    {BYTES("L9223372036854775808L\n"), TQ_PK_BIGINT, 0, 0, "9223372036854775808", true, true, "int"},
    {BYTES("L-99999999999999999999L\n"), TQ_PK_BIGINT, 0, 0, "-99999999999999999999", true, true, "int"},
    {BYTES("K\xff"), TQ_PK_INT, 255, 0, NULL, false, true, "int"},
    {BYTES("M\xff\xff"), TQ_PK_INT, 65535, 0, NULL, false, true, "int"},
    {BYTES("J\xff\xff\xff\xff"), TQ_PK_INT, -1, 0, NULL, false, true, "int"},
    {BYTES("\x8a\0"), TQ_PK_INT, 0, 0, NULL, false, false, "int"},
    {BYTES("\x8a\2\0\x80"), TQ_PK_INT, -32768, 0, NULL, false, true, "int"},
    {BYTES("\x8a\x09\0\0\0\0\0\0\0\0\0"), TQ_PK_INT, 0, 0, NULL, false, false, "int"},
    {BYTES("\x8b\2\0\0\0\xff\xff"), TQ_PK_INT, -1, 0, NULL, false, true, "int"},
    {BYTES("\x8a\x09\1\1\1\1\1\1\1\1\1"), TQ_PK_BIGINT, 0, 0, "\1\1\1\1\1\1\1\1\1", false, true, "int"},
    {BYTES("G?\xf8\0\0\0\0\0\0"), TQ_PK_FLOAT, 0, 1.5, NULL, false, true, "float"},
    {BYTES("G\x80\0\0\0\0\0\0\0"), TQ_PK_FLOAT, 0, -0.0, NULL, false, false, "float"},
    {BYTES("F-2.5e3\n"), TQ_PK_FLOAT, 0, -2500, NULL, false, true, "float"},
    {BYTES("\x8c\0"), TQ_PK_STR, 0, 0, "", false, false, "str"},
    {BYTES("\x8c\3abc"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("X\3\0\0\0abc\x94\x95\xff\xff\xff\xff\xff\xff\xff\xff"), TQ_PK_STR, 0, 0, "abc", false, true,
     "str"},
    {BYTES("\x8d\3\0\0\0\0\0\0\0abcq\7"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("Vabc\n"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("Va\\u0062\n"), TQ_PK_STR, 0, 0, "a\\u0062", true, true, "str"},
    {BYTES("Va\xe4\n"), TQ_PK_STR, 0, 0, "a\xe4", true, true, "str"},
    {BYTES("S'abc'\np0\n"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("S\"a\\n\"\n"), TQ_PK_STR, 0, 0, "a\\n", true, true, "str"},
    {BYTES("U\3abc"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("T\3\0\0\0abc"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("C\2ab"), TQ_PK_BYTES, 0, 0, "ab", false, true, "bytes"},
    {BYTES("B\0\0\0\0"), TQ_PK_BYTES, 0, 0, "", false, false, "bytes"},
    {BYTES("\x8e\2\0\0\0\0\0\0\0ab"), TQ_PK_BYTES, 0, 0, "ab", false, true, "bytes"},
    {BYTES(")"), TQ_PK_TUPLE, 0, 0, NULL, false, false, "tuple"},
    {BYTES("\x8c\1a\x85\x94"), TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("\x8c\1aK\1\x86"), TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("\x8c\1aK\1N\x87"), TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("(t"), TQ_PK_TUPLE, 0, 0, NULL, false, false, "tuple"},
    {BYTES("(NNNNt\x94"), TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("]\x94"), TQ_PK_LIST, 0, 0, NULL, false, false, "list"},
    {BYTES("]\x94(NNe"), TQ_PK_LIST, 0, 0, NULL, false, true, "list"},
    {BYTES("(lp0\nNa"), TQ_PK_LIST, 0, 0, NULL, false, true, "list"},
    {BYTES("}"), TQ_PK_DICT, 0, 0, NULL, false, false, "dict"},
    {BYTES("(dp0\nNNs"), TQ_PK_DICT, 0, 0, NULL, false, true, "dict"},
    {BYTES("\x8f\x94"), TQ_PK_SET, 0, 0, NULL, false, false, "set"},
    {BYTES("\x8f\x94(N\x90"), TQ_PK_SET, 0, 0, NULL, false, true, "set"},
    {BYTES("cbuiltins\nset\n](K\1K\2e\x85R"), TQ_PK_SET, 0, 0, NULL, false, true, "set"},
    {BYTES("c__builtin__\nset\nq\0]\x85Rq\1"), TQ_PK_SET, 0, 0, NULL, false, false, "set"},
    {BYTES("(N\x91"), TQ_PK_OTHER, 0, 0, NULL, false, true, "frozenset"},
    {BYTES("\x96\1\0\0\0\0\0\0\0a"), TQ_PK_OTHER, 0, 0, NULL, false, true, "bytearray"},
    {BYTES("cbuiltins\ncomplex\nNN\x86R"), TQ_PK_OTHER, 0, 0, NULL, false, true, "complex"},
    {BYTES("cm\nX\n)\x81}b"), TQ_PK_OTHER, 0, 0, NULL, false, true, "object"},
    {BYTES("cm\nX\n"), TQ_PK_OTHER, 0, 0, NULL, false, true, "object"},
    {BYTES("\x82\1"), TQ_PK_OTHER, 0, 0, NULL, false, true, "object"},
    {BYTES("N2"), TQ_PK_OTHER, 0, 0, NULL, false, true, "object"},
    /* Through the memo: which of the values that begin at one place is meant is told by the index. */
    {BYTES("\x8c\1a\x94\x85\x94\x85\x94h\0"), TQ_PK_STR, 0, 0, "a", false, true, "str"},
    {BYTES("\x8c\1a\x94\x85\x94\x85\x94h\1"), TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("\x8c\1aq\5\x85q\3h\5"), TQ_PK_STR, 0, 0, "a", false, true, "str"},
    {BYTES("\x8c\1aq\5\x85q\3j\3\0\0\0"), TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("Vabc\np4\ng4\n\x94"), TQ_PK_STR, 0, 0, "abc", false, true, "str"},
    {BYTES("]\x94(NNeh\0"), TQ_PK_LIST, 0, 0, NULL, false, true, "list"},
    {BYTES("]\x94h\0"), TQ_PK_LIST, 0, 0, NULL, false, false, "list"},
    {BYTES("]\x94h\0aK\1ah\0"), TQ_PK_LIST, 0, 0, NULL, false, true, "list"},
    {BYTES("N\x94h\0\x94h\1\x94h\2"), TQ_PK_NONE, 0, 0, NULL, false, false, "NoneType"},
    /* A recursive tuple: what was built first is thrown away. */
    {BYTES("]\x94h\0\x85\x94"
           "a0h\1"),
     TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
    {BYTES("(]\x94(h\0NNNt\x94"
           "aNNN1h\1"),
     TQ_PK_TUPLE, 0, 0, NULL, false, true, "tuple"},
};

static void check_value(const struct rig *rig, size_t i)
{
    struct tq_pk_value v;
    int rv = tq_pk_decode(&rig->p, rig->r, &v);

    if (rv != TQ_OK || v.kind != values[i].kind)
        fail_msg("value %zu: %d, kind %d, not %d", i, rv, v.kind, values[i].kind);
    if (v.kind == TQ_PK_BOOL)
        assert_int_equal(v.boolean, values[i].integer);
    if (v.kind == TQ_PK_INT)
        assert_true(v.integer == values[i].integer);
    if (v.kind == TQ_PK_FLOAT)
        assert_memory_equal(&v.real, &values[i].real, sizeof(v.real));
    if (values[i].text != NULL && !tq_span_is(v.bytes, values[i].text))
        fail_msg("value %zu: %.*s", i, (int)v.bytes.len, (const char *)v.bytes.data);
    assert_int_equal(v.escaped, values[i].escaped);
    if (tq_pk_truth(&rig->p, rig->r) != values[i].truth)
        fail_msg("value %zu: truth", i);
    assert_string_equal(tq_pk_type_name(&rig->p, rig->r), values[i].type);
}

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct rig rig;

        for (size_t padding = 0; padding <= 600; padding += 600) {
            rig_open(&rig, values[i].bytes, values[i].len, padding);
            check_value(&rig, i);
            tq_pickle_deinit(&rig.p);
        }
    }
}

/* Explicit and implicit indices in one pickle: MEMOIZE takes the number of entries so far. */
static void test_mixed_memo(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        enum tq_pk_kind kind;
    } cases[] = {
        {BYTES("\x8c\1aq\0\x85\x94h\0"), TQ_PK_STR},
        {BYTES("\x8c\1aq\0\x85\x94h\1"), TQ_PK_TUPLE},
        {BYTES("Nq\x09\x8c\1a\x94\x85\x94h\1"), TQ_PK_STR},
        {BYTES("Nq\x09\x8c\1a\x94\x85\x94h\2"), TQ_PK_TUPLE},
        {BYTES("Nq\x09\x8c\1a\x94\x85\x94h\x09"), TQ_PK_NONE},
    };
    struct tq_pk_value v;
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig_open(&rig, cases[i].bytes, cases[i].len, 0);
        assert_int_equal(tq_pk_decode(&rig.p, rig.r, &v), TQ_OK);
        if (v.kind != cases[i].kind)
            fail_msg("case %zu: kind %d", i, v.kind);
        tq_pickle_deinit(&rig.p);
    }
}

static void test_bad_scalars(void **state)
{
    static const char *const texts[] = {"I\n",  "Ix\n",  "I-\n",   "L\n",  "L1x\n",    "F\n",
                                        "Fx\n", "F1 \n", "Sabc\n", "S'\n", "S'abc\"\n"};
    struct tq_pk_value v;
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        rig_open(&rig, texts[i], strlen(texts[i]), 0);
        assert_int_equal(tq_pk_decode(&rig.p, rig.r, &v), TQ_EPROTO);
        tq_pickle_deinit(&rig.p);
    }
}

/* ---- requests and children ---- */

static void expect_str(const struct tq_pickle *p, struct tq_pk_range r, const char *text)
{
    struct tq_pk_value v;

    assert_int_equal(tq_pk_decode(p, r, &v), TQ_OK);
    assert_int_equal(v.kind, TQ_PK_STR);
    assert_true(tq_span_is(v.bytes, text));
}

static void test_request(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        int proto, highest;
        bool list;
    } requests[] = {
        {BYTES(GET_4), 4, 4, false},
        {BYTES(GET_3), 3, 2, false},
        /* protocol 0, and a list of four */
        {BYTES("(V7f46b78c5a90\np0\nVget\np1\n(t(dp2\nVtimeout\np3\nI1\nstp4\n."), 0, 0, false},
        {BYTES("](X\x0c\0\0\0"
               "7f46b78c5a90U\3get)}(U\7timeoutK\1ue."),
         0, 1, true},
        /* the words through the memo */
        {BYTES("\x80\4(\x8c\x0c"
               "7f46b78c5a90\x94\x8c\3get\x94\x8c\7timeout\x94"
               "0)}\x94h\2K\1st\x94."),
         4, 4, false},
    };
    struct tq_pickle p;
    struct tq_pk_range *list = NULL;
    struct tq_pk_value v;
    const char *why = NULL;
    uint32_t count = 9;

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        uint8_t *copy = guard_copy(requests[i].bytes, requests[i].len);

        assert_int_equal(tq_pickle_scan(&p, tq_span(copy, requests[i].len), &why), TQ_OK);
        assert_int_equal(p.proto, requests[i].proto);
        assert_int_equal(p.highest_proto, requests[i].highest);
        assert_int_equal(p.top_is_list, requests[i].list);
        assert_int_equal(p.top_count, 4);
        expect_str(&p, p.top[0], "7f46b78c5a90");
        expect_str(&p, p.top[1], "get");
        assert_int_equal(tq_pk_children(&p, p.top[2], &list, &count), TQ_OK);
        assert_null(list);
        assert_int_equal(count, 0);
        assert_int_equal(tq_pk_children(&p, p.top[3], &list, &count), TQ_OK);
        assert_int_equal(count, 2);
        expect_str(&p, list[0], "timeout");
        assert_int_equal(tq_pk_decode(&p, list[1], &v), TQ_OK);
        assert_int_equal(v.kind, TQ_PK_INT);
        assert_int_equal(v.integer, 1);
        tq_free(list);
        assert_int_equal(tq_pk_children(&p, p.top[1], &list, &count), TQ_EINVAL);
        tq_pickle_deinit(&p);
        guard_free(copy, requests[i].len);
    }
}

/* A request's children come from what the scan kept: no pass over them again. */
static void test_near_and_far_agree(void **state)
{
    /* Tuples of 0 to 20 numbers, alone in args (near up to 8) and nested one deeper (never near). */
    struct tq_pickle p;
    const char *why = NULL;

    (void)state;
    for (unsigned n = 0; n <= 20; n++) {
        struct tq_pk_range *near = NULL, *outer = NULL, *inner = NULL;
        uint32_t near_count = 99, outer_count = 99, inner_count = 99;
        uint8_t data[256];
        size_t len = 0;

        data[len++] = '(';
        for (int twice = 0; twice < 2; twice++) {
            data[len++] = '(';
            for (unsigned i = 0; i < n; i++) {
                data[len++] = 'K';
                data[len++] = (uint8_t)i;
            }
            data[len++] = 't';
        }
        memcpy(data + len, "\x85t.", 3);
        len += 3;
        assert_int_equal(tq_pickle_scan(&p, tq_span(data, len), &why), TQ_OK);
        assert_int_equal(p.top_count, 2);
        assert_int_equal(tq_pk_children(&p, p.top[0], &near, &near_count), TQ_OK);
        assert_int_equal(tq_pk_children(&p, p.top[1], &outer, &outer_count), TQ_OK);
        assert_int_equal(outer_count, 1);
        assert_int_equal(outer[0].start, p.top[1].start); /* the same start, told apart by the end */
        assert_int_equal(tq_pk_children(&p, outer[0], &inner, &inner_count), TQ_OK);
        assert_int_equal(near_count, n);
        assert_int_equal(inner_count, n);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(near[i].end - near[i].start, 2);
            assert_int_equal(inner[i].end - inner[i].start, 2);
            assert_int_equal(data[near[i].start + 1], i);
            assert_int_equal(data[inner[i].start + 1], i);
        }
        tq_free(near);
        tq_free(outer);
        tq_free(inner);
        tq_pickle_deinit(&p);
    }
}

static const struct {
    const char *bytes;
    size_t len;
    const char *digits; /* the children's values: BININT1 each, '-' for other kinds */
} children[] = {
    {BYTES("](K\1K\2e\x94(K\3e"), "123"}, /* two batches */
    {BYTES("]K\1aK\2a"), "12"},
    {BYTES("(K\1K\2lK\3a"), "123"},
    {BYTES("(K\1K\2dK\3K\4s(K\5K\6u"), "123456"},
    {BYTES("\x8f(K\1\x90(K\2\x90"), "12"},
    {BYTES("K\1K\2\x86\x94h\0"), "12"},
    {BYTES("]\x94(K\1K\2eh\0"), "12"},
    {BYTES("(]\x94(K\1K\2eNth\0"), "12"},
    {BYTES("cbuiltins\nset\n](K\1K\2e\x85R"), "12"},
    {BYTES("K\1NK\2\x87"), "1-2"},
    {BYTES("K\1K\2"
           "00K\3K\4\x86"),
     "34"}, /* what was thrown away does not count */
    {BYTES("]\x94h\0\x85\x94"
           "a0h\1"),
     "-"},
    {BYTES("(K\1K\2K\3K\4K\5K\6K\7K\x08K\x09K\1K\2K\3K\4K\5K\6K\7K\x08K\x09t"), "123456789123456789"},
};

static void test_children(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++) {
        for (size_t padding = 0; padding <= 600; padding += 600) {
            struct tq_pk_range *list = NULL;
            uint32_t count = 99;
            struct rig rig;

            rig_open(&rig, children[i].bytes, children[i].len, padding);
            assert_int_equal(tq_pk_children(&rig.p, rig.r, &list, &count), TQ_OK);
            if (count != strlen(children[i].digits))
                fail_msg("case %zu: %u children", i, count);
            for (uint32_t k = 0; k < count; k++) {
                struct tq_pk_value v;

                assert_int_equal(tq_pk_decode(&rig.p, list[k], &v), TQ_OK);
                if (v.kind == TQ_PK_INT)
                    assert_int_equal(v.integer, children[i].digits[k] - '0');
                else
                    assert_int_equal(children[i].digits[k], '-');
            }
            tq_free(list);
            tq_pickle_deinit(&rig.p);
        }
    }
}

static void test_no_children(void **state)
{
    static const char *const opcodes[] = {"N",      "K\1",   "U\1a", "cm\nX\n)R",
                                          "(N\x91", "]K\1b", "N2",   "(K\1cm\nX\no"};

    (void)state;
    for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
        struct tq_pk_range *list = NULL;
        uint32_t count;
        struct rig rig;

        rig_open(&rig, opcodes[i], strlen(opcodes[i]), 0);
        assert_int_equal(tq_pk_children(&rig.p, rig.r, &list, &count), TQ_EINVAL);
        rig.r.end = rig.r.start;
        assert_int_equal(tq_pk_children(&rig.p, rig.r, &list, &count), TQ_EINVAL);
        tq_pickle_deinit(&rig.p);
    }
}

/* ---- classes ---- */

static void test_class(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *module, *name;
        bool args, state;
    } cases[] = {
        {BYTES("c_queue\nEmpty\n"), "_queue", "Empty", false, false},
        {BYTES("c_queue\nEmpty\nq\2)Rq\3"), "_queue", "Empty", true, false},
        {BYTES("\x8c\6_queue\x94\x8c\5"
               "Empty\x94\x93\x94)R\x94"),
         "_queue", "Empty", true, false},
        {BYTES("\x8c\6_queue\x94\x8c\5"
               "Empty\x94\x93\x94)\x81\x94}b"),
         "_queue", "Empty", true, true},
        {BYTES("cm\nX\n)}\x92"), "m", "X", true, false},
        {BYTES("(K\1im\nX\n"), "m", "X", false, false},
        {BYTES("(cm\nX\nK\1oNb"), "m", "X", false, true},
        /* the second instance of a class: it and its names are references */
        {BYTES("cm\nX\n\x94)R\x94h\0)Rh\0\x85"
               "0h\0)R"),
         "m", "X", true, false},
        {BYTES("\x8c\1m\x94\x8c\1X\x94\x93\x94"
               "0h\0h\1\x93)R"),
         "m", "X", true, false},
        {BYTES("cm\nX\n)\x81\x94(K\1tbh\0"), "m", "X", true, true},
        {BYTES("N"), NULL, NULL, false, false},
        {BYTES("N)R"), NULL, NULL, true, false},
        {BYTES("NN\x93"), NULL, NULL, false, false},
        {BYTES("]"), NULL, NULL, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tq_span module, name;
        struct tq_pk_range args;
        struct rig rig;
        int rv;

        rig_open(&rig, cases[i].bytes, cases[i].len, 0);
        rv = tq_pk_class_of(&rig.p, rig.r, &module, &name);
        if (rv != (cases[i].module != NULL ? TQ_OK : TQ_ENOTFOUND))
            fail_msg("case %zu: %d", i, rv);
        if (cases[i].module != NULL) {
            assert_true(tq_span_is(module, cases[i].module));
            assert_true(tq_span_is(name, cases[i].name));
        }
        assert_int_equal(tq_pk_reduce_args(&rig.p, rig.r, false, &args),
                         cases[i].args ? TQ_OK : TQ_ENOTFOUND);
        assert_int_equal(tq_pk_reduce_args(&rig.p, rig.r, true, &args),
                         cases[i].state ? TQ_OK : TQ_ENOTFOUND);
        tq_pickle_deinit(&rig.p);
    }
}

/* The Token of a get_methods request: NEWOBJ, and BUILD with its state. */
static void test_token(void **state)
{
    static const char request[] = "\x80\4(N\x8c\x0bget_methods\x94\x8c\1m\x94\x8c\5Token\x94\x93\x94)\x81\x94"
                                  "\x8c\6typeid\x94N\x8c\2id\x94\x87\x94"
                                  "b\x85\x94}\x94t\x94.";
    struct tq_pickle p;
    struct tq_pk_range *args = NULL, *parts = NULL;
    struct tq_pk_range token_state;
    const char *why = NULL;
    uint32_t count;

    (void)state;
    assert_int_equal(tq_pickle_scan(&p, SPAN(request), &why), TQ_OK);
    assert_int_equal(tq_pk_children(&p, p.top[2], &args, &count), TQ_OK);
    assert_int_equal(count, 1);
    assert_int_equal(tq_pk_reduce_args(&p, args[0], true, &token_state), TQ_OK);
    assert_int_equal(tq_pk_children(&p, token_state, &parts, &count), TQ_OK);
    assert_int_equal(count, 3);
    expect_str(&p, parts[0], "typeid");
    expect_str(&p, parts[2], "id");
    tq_free(args);
    tq_free(parts);
    tq_pickle_deinit(&p);
}

/* ---- memory that fails ---- */

static void test_out_of_memory(void **state)
{
    enum { COUNT = 700 };
    uint8_t data[4 * COUNT + 8];
    size_t len = 0;
    long n = 0;

    (void)state;
    data[len++] = '(';
    data[len++] = '(';
    for (int i = 0; i < COUNT; i++) {
        data[len++] = 'K';
        data[len++] = (uint8_t)i;
        data[len++] = 0x94;
    }
    memcpy(data + len, "tt.", 3);
    len += 3;
    for (;; n++) {
        struct tq_pickle p;
        struct tq_pk_range *list = NULL;
        const char *why = NULL;
        uint32_t count = 0;
        int rv;

        tq_mem_fail_after(n, 1);
        rv = tq_pickle_scan(&p, tq_span(data, len), &why);
        if (rv == TQ_OK) {
            rv = tq_pk_children(&p, p.top[0], &list, &count);
            tq_pickle_deinit(&p);
            tq_free(list);
        }
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK)
            break;
        assert_int_equal(rv, TQ_ENOMEM);
    }
    assert_true(n >= 4); /* stack, memo, stack of the runs, list */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan),
        cmocka_unit_test(test_scan_long),
        cmocka_unit_test(test_scan_cut),
        cmocka_unit_test(test_scan_too_large),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_mixed_memo),
        cmocka_unit_test(test_bad_scalars),
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_near_and_far_agree),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_no_children),
        cmocka_unit_test(test_class),
        cmocka_unit_test(test_token),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
