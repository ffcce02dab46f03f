/* The promise of pickle.h: at most 4 bytes of memory per byte of input plus 4 KiB, for any input. This
 * program has allocation functions of its own, which count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/pickle.h"

#define LARGE 1000000u

static size_t g_now;
static size_t g_peak;

struct block {
    _Alignas(16) size_t size;
    uint8_t data[];
};

/* In place of common/mem.c. */
void *tq_malloc(size_t n)
{
    struct block *b = malloc(sizeof(*b) + n);

    assert_non_null(b);
    b->size = n;
    g_now += n;
    if (g_now > g_peak)
        g_peak = g_now;
    return b->data;
}

void tq_free(void *p)
{
    struct block *b;

    if (p == NULL)
        return;
    b = (struct block *)((uint8_t *)p - offsetof(struct block, data));
    g_now -= b->size;
    free(b);
}

void *tq_calloc(size_t count, size_t n)
{
    void *p = tq_malloc(count * n);

    memset(p, 0, count * n);
    return p;
}

void *tq_realloc(void *p, size_t n)
{
    void *moved = tq_malloc(n);

    if (p != NULL) {
        size_t old = ((struct block *)((uint8_t *)p - offsetof(struct block, data)))->size;

        memcpy(moved, p, old < n ? old : n);
        tq_free(p);
    }
    return moved;
}

char *tq_strdup(const char *s)
{
    return strcpy(tq_malloc(strlen(s) + 1), s);
}

void tq_mem_fail_after(long allocations, long repeat)
{
    (void)allocations;
    (void)repeat;
    fail();
}

unsigned long tq_mem_count(void)
{
    return 0;
}

/* head, `count` times the unit, tail. */
static const struct {
    const char *what;
    const char *head;
    size_t head_len;
    const char *unit;
    size_t unit_len;
    const char *tail;
    size_t tail_len;
    uint32_t count;
    int rv;
} inputs[] = {
#define B(text) text, sizeof(text) - 1
    {"numbers in a tuple", B("("), B("N"), B("t."), LARGE, TQ_OK},
    {"numbers without an end", B(""), B("N"), B(""), LARGE, TQ_EPROTO},
    {"marks", B(""), B("("), B(""), LARGE, TQ_EPROTO},
    {"marks that are closed", B("N"), B("(1"), B("."), LARGE, TQ_OK},
    {"entries of one value", B("N"), B("\x94"), B("."), LARGE, TQ_OK},
    {"values and entries", B("("), B("N\x94"), B("t."), LARGE, TQ_OK},
    {"values, entries, references", B("("), B("N\x94h\0"), B("t."), LARGE, TQ_OK},
    {"pushed and popped", B("N"), B("N0"), B("."), LARGE, TQ_OK},
    {"copies", B("(N"), B("2"), B("t."), LARGE, TQ_OK},
    {"nested tuples", B(")"), B("\x85"), B("."), LARGE, TQ_OK},
    {"nested tuples with entries", B(")"), B("\x85\x94"), B("."), LARGE, TQ_OK},
    {"nested lists", B(""), B("]"), B("."), LARGE, TQ_EPROTO},
    {"nested marks and tuples", B("(((((((("), B("t"), B("."), 8, TQ_OK},
    {"frames", B("N"), B("\x95\xff\xff\xff\xff\xff\xff\xff\xff"), B("."), LARGE / 8, TQ_OK},
    {"empty lists", B("("), B("]"), B("l."), LARGE, TQ_OK},
    {"small: entries", B("N"), B("\x94"), B("."), 500, TQ_OK},
    {"small: values and entries", B("("), B("N\x94"), B("t."), 254, TQ_OK},
    {"small: the highest index", B("N"), B("q\xff"), B("."), 1, TQ_OK},
    {"a declared length of 2 GiB", B("\x8b\xff\xff\xff\x7f"), B("x"), B("."), LARGE, TQ_EPROTO},
    {"a declared length of 2 GiB alone", B("\x8b\xff\xff\xff\x7f"), B("x"), B("."), 0, TQ_EPROTO},
    {"a declared length of 2^63", B("\x8d\0\0\0\0\0\0\0\x80"), B("x"), B("."), LARGE, TQ_EPROTO},
    {"index 4,000,000,000", B("Nr\0(k\xee"), B("0N"), B("."), LARGE, TQ_EPROTO},
    {"index 4,000,000,000 alone", B("Nr\0(k\xee"), B("x"), B("."), 0, TQ_EPROTO},
    {"index 2^31 in text", B("Np2147483648\n"), B("0N"), B("."), LARGE, TQ_EPROTO},
    {"an index as high as fits", B("Nr\xfa\x84\x1e\0"), B("0N"), B("."), LARGE, TQ_EPROTO},
    {"an index as high as is left over", B("Nr@B\x0f\0"), B("0N"), B("."), LARGE, TQ_OK},
    {"a line without an end", B("I"), B("1"), B(""), LARGE, TQ_EPROTO},
    {"lines", B("("), B("I1\n"), B("t."), LARGE / 4, TQ_OK},
    {"a dict", B("}("), B("NN"), B("u."), LARGE, TQ_OK},
    {"single items", B("}"), B("NNs"), B("."), LARGE, TQ_OK},
    {"instances", B("("), B("(im\nX\n"), B("t."), LARGE / 8, TQ_OK},
#undef B
};

static size_t make(size_t i, uint8_t *data)
{
    size_t n = inputs[i].head_len;

    memcpy(data, inputs[i].head, n);
    for (uint32_t k = 0; k < inputs[i].count; k++) {
        memcpy(data + n, inputs[i].unit, inputs[i].unit_len);
        n += inputs[i].unit_len;
    }
    memcpy(data + n, inputs[i].tail, inputs[i].tail_len);
    return n + inputs[i].tail_len;
}

static void check_bound(size_t i, const char *what, size_t n)
{
    if (g_peak > 4 * n + 4096)
        fail_msg("%s, %s: %zu bytes for %zu", inputs[i].what, what, g_peak, n);
}

static void test_bound(void **state)
{
    uint8_t *data = malloc(LARGE * 9 + 64);

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        size_t n = make(i, data);
        /* Exactly as large, for tools that look for reads behind the end. */
        uint8_t *exact = malloc(n);
        struct tq_pickle p;
        const char *why = "";
        int rv;

        assert_non_null(exact);
        memcpy(exact, data, n);
        g_peak = g_now = 0;
        rv = tq_pickle_scan(&p, tq_span(exact, n), &why);
        check_bound(i, "scan", n);
        if (rv != inputs[i].rv)
            fail_msg("%s: %d, %s", inputs[i].what, rv, why);
        if (rv == TQ_OK) {
            struct tq_pk_range *list = NULL;
            struct tq_pk_value v;
            uint32_t count = 0;

            /* What a server asks of a request, of a value that is hostile as a whole. */
            assert_int_equal(tq_pk_decode(&p, p.value, &v), TQ_OK);
            tq_pk_truth(&p, p.value);
            check_bound(i, "decode", 2 * n);
            if (tq_pk_children(&p, p.value, &list, &count) == TQ_OK)
                tq_free(list);
            check_bound(i, "children", 3 * n);
            tq_pickle_deinit(&p);
        }
        assert_int_equal(g_now, 0);
        free(exact);
    }
    free(data);
}

/* An ordinary request takes nothing from the heap. */
static void test_small_takes_nothing(void **state)
{
    static const char request[] = "\x80\4(\x8c\x0c"
                                  "7f46b78c5a90\x94\x8c\3get\x94)}\x94\x8c\7timeout\x94K\1st\x94.";
    struct tq_pickle p;
    const char *why = "";

    (void)state;
    g_peak = 0;
    assert_int_equal(tq_pickle_scan(&p, tq_span(request, sizeof(request) - 1), &why), TQ_OK);
    assert_int_equal(g_peak, 0);
    tq_pickle_deinit(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_small_takes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
