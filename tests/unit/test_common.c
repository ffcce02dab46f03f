/* The small parts everything stands on: buffers, the deadline heap, the allocation hook, error texts,
 * bodies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/body.h"
#include "common/buf.h"
#include "common/deadline.h"
#include "common/err.h"
#include "common/mem.h"

static void test_bytes(void **state)
{
    uint8_t b[8] = {0x80, 1, 2, 0xff, 0xfe, 0, 0, 7};
    uint8_t out[4];

    (void)state;
    assert_int_equal(tq_load_be32(b), 0x800102ffu);
    assert_true(tq_load_be64(b) == 0x800102fffe000007u);
    tq_store_be32(out, 0x800102ffu);
    assert_memory_equal(out, b, 4);
    assert_true(tq_span_is(tq_span("abc", 3), "abc"));
    assert_false(tq_span_is(tq_span("abc", 2), "abc"));
    assert_false(tq_span_is(tq_span("abcd", 4), "abc"));
    assert_true(tq_span_eq(tq_span(NULL, 0), tq_span("x", 0)));
    assert_false(tq_span_eq(tq_span("a\0b", 3), tq_span("a\0c", 3)));
}

static void test_errors_have_texts_of_their_own(void **state)
{
#define CODE(name, code, text) TQ_##name,
    static const int codes[] = {TQ_OK, TQ_ERR_LIST(CODE)};
#undef CODE
    const size_t n = sizeof(codes) / sizeof(codes[0]);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_string_not_equal(tq_strerror(codes[i]), tq_strerror(12345));
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(codes[i], codes[j]);
            assert_string_not_equal(tq_strerror(codes[i]), tq_strerror(codes[j]));
        }
        /* No errno, no libuv code. */
        assert_true(codes[i] == TQ_OK || codes[i] < -7000);
    }
    assert_non_null(tq_strerror(-1));
    assert_non_null(tq_strerror(1));
}

static void test_mem_fails_where_told(void **state)
{
    unsigned long before = tq_mem_count();
    void *a, *b, *c, *grown;
    char *s;

    (void)state;
    tq_mem_fail_after(1, 2);
    a = tq_malloc(10);
    b = tq_malloc(10);
    c = tq_calloc(1, 10);
    s = tq_strdup("back again");
    assert_non_null(a);
    assert_null(b);
    assert_null(c);
    assert_string_equal(s, "back again");

    tq_mem_fail_after(0, 1);
    assert_null(tq_realloc(a, 20));
    grown = tq_realloc(a, 20);
    assert_non_null(grown);

    tq_mem_fail_after(0, 1);
    tq_mem_fail_after(-1, 0);
    c = tq_calloc(3, 2);
    assert_non_null(c);
    assert_memory_equal(c, "\0\0\0\0\0\0", 6);
    assert_int_equal(tq_mem_count() - before, 7);
    tq_free(c);
    tq_free(grown);
    tq_free(s);
    tq_free(NULL);
}

static void test_buf_against_a_model(void **state)
{
    enum { MAX = 3000, STEPS = 20000 };
    static uint8_t model[MAX];
    size_t model_len = 0;
    struct tq_buf b;
    unsigned limited = 0;

    (void)state;
    srand(7);
    tq_buf_init(&b, MAX);
    for (int i = 0; i < STEPS; i++) {
        uint8_t bytes[400];
        size_t n = (size_t)rand() % sizeof(bytes);

        for (size_t k = 0; k < n; k++)
            bytes[k] = (uint8_t)rand();
        if (rand() % 2) {
            int rv = tq_buf_append(&b, bytes, n);

            if (model_len + n > MAX) {
                assert_int_equal(rv, TQ_ELIMIT);
                limited++;
            } else {
                assert_int_equal(rv, TQ_OK);
                if (n > 0)
                    memcpy(model + model_len, bytes, n);
                model_len += n;
            }
        } else {
            n = n < model_len ? n : model_len;
            tq_buf_consume(&b, n);
            model_len -= n;
            memmove(model, model + n, model_len);
        }
        assert_true(b.len <= b.cap);
        assert_true(tq_span_eq(tq_buf_span(&b), tq_span(model, model_len)));
    }
    assert_true(limited > 0);
    tq_buf_clear(&b);
    assert_int_equal(b.len, 0);
    tq_buf_deinit(&b);
    assert_null(b.data);
    assert_int_equal(tq_buf_append_str(&b, "usable again"), TQ_OK);
    assert_int_equal(tq_buf_append_u8(&b, '!'), TQ_OK);
    assert_true(tq_span_is(tq_buf_span(&b), "usable again!"));
    tq_buf_deinit(&b);
}

static void test_buf_ceiling(void **state)
{
    struct tq_buf b = TQ_BUF_NULL(10);
    struct tq_buf none = TQ_BUF_NULL(0);

    (void)state;
    assert_int_equal(tq_buf_reserve(&b, SIZE_MAX), TQ_ELIMIT);
    assert_int_equal(tq_buf_reserve(&b, 11), TQ_ELIMIT);
    assert_null(b.data);
    assert_int_equal(tq_buf_append(&b, "0123456789", 10), TQ_OK);
    assert_int_equal(tq_buf_append_u8(&b, 'x'), TQ_ELIMIT);
    assert_int_equal(tq_buf_reserve(&b, SIZE_MAX - 5), TQ_ELIMIT);
    assert_true(tq_span_is(tq_buf_span(&b), "0123456789"));
    tq_buf_deinit(&b);

    assert_int_equal(tq_buf_append(&none, NULL, 0), TQ_OK);
    assert_int_equal(tq_buf_append_u8(&none, 0), TQ_ELIMIT);
    tq_buf_deinit(&none);
}

static void test_buf_without_memory(void **state)
{
    struct tq_buf b = TQ_BUF_NULL(1000);

    (void)state;
    tq_mem_fail_after(0, 1);
    assert_int_equal(tq_buf_append_str(&b, "abc"), TQ_ENOMEM);
    assert_int_equal(b.len, 0);
    assert_int_equal(tq_buf_append_str(&b, "abc"), TQ_OK);
    tq_mem_fail_after(0, 1);
    assert_int_equal(tq_buf_reserve(&b, 900), TQ_ENOMEM);
    assert_true(tq_span_is(tq_buf_span(&b), "abc"));
    tq_mem_fail_after(-1, 0);
    tq_buf_deinit(&b);
}

static void test_body(void **state)
{
    struct tq_body *b = tq_body_new(5);

    (void)state;
    assert_non_null(b);
    assert_int_equal(b->refs, 1);
    assert_int_equal(b->len, 5);
    memcpy(b->data, "hello", 5);
    assert_ptr_equal(tq_body_ref(b), b);
    tq_body_unref(b);
    assert_memory_equal(b->data, "hello", 5);
    tq_body_unref(b);
    tq_body_unref(NULL);
    tq_mem_fail_after(0, 1);
    assert_null(tq_body_new(5));
    tq_mem_fail_after(-1, 0);
}

/* ---- deadline heap against a plain array ---- */

enum { NODES = 300, STEPS = 60000 };

struct model {
    struct tq_deadlines heap;
    struct tq_deadline node[NODES];
    bool set[NODES];
    uint64_t at[NODES];
    uint64_t order[NODES];
    uint64_t next_order;
};

static int model_first(const struct model *m)
{
    int first = -1;

    for (int i = 0; i < NODES; i++) {
        if (m->set[i] && (first < 0 || m->at[i] < m->at[first] ||
                          (m->at[i] == m->at[first] && m->order[i] < m->order[first])))
            first = i;
    }
    return first;
}

static void check_heap(const struct model *m)
{
    size_t count = 0;

    for (int i = 0; i < NODES; i++) {
        assert_int_equal(tq_deadline_is_set(&m->node[i]), m->set[i]);
        count += m->set[i];
    }
    assert_int_equal(m->heap.count, count);
    for (size_t i = 0; i < m->heap.count; i++) {
        assert_int_equal(m->heap.heap[i]->place, i + 1);
        assert_true(i == 0 || m->heap.heap[(i - 1) / 2]->at_ms <= m->heap.heap[i]->at_ms);
    }
}

static void model_set(struct model *m, int i, uint64_t at_ms)
{
    assert_int_equal(tq_deadline_set(&m->heap, &m->node[i], at_ms), TQ_OK);
    m->set[i] = true;
    m->at[i] = at_ms;
    m->order[i] = m->next_order++;
}

static void model_pop_all(struct model *m, uint64_t now_ms)
{
    struct tq_deadline *n;

    while ((n = tq_deadlines_pop_due(&m->heap, now_ms)) != NULL) {
        int first = model_first(m);

        assert_true(first >= 0);
        assert_ptr_equal(n, &m->node[first]);
        assert_true(m->at[first] <= now_ms);
        m->set[first] = false;
    }
    assert_true(model_first(m) < 0 || m->at[model_first(m)] > now_ms);
}

static void test_deadlines_against_a_model(void **state)
{
    struct model m = {0};
    uint64_t now_ms = 0;

    (void)state;
    srand(11);
    tq_deadlines_init(&m.heap);
    for (int step = 0; step < STEPS; step++) {
        int i = rand() % NODES;
        int first;

        switch (rand() % 8) {
        case 0:
            now_ms += (uint64_t)(rand() % 20);
            model_pop_all(&m, now_ms);
            break;
        case 1:
        case 2:
            tq_deadline_clear(&m.heap, &m.node[i]);
            m.set[i] = false;
            break;
        default: /* few different moments, so that many are equal */
            model_set(&m, i, now_ms + (uint64_t)(rand() % 30));
            break;
        }
        first = model_first(&m);
        assert_true(tq_deadlines_next_ms(&m.heap) == (first < 0 ? UINT64_MAX : m.at[first]));
        if (step % 64 == 0)
            check_heap(&m);
    }
    model_pop_all(&m, UINT64_MAX);
    check_heap(&m);
    assert_true(tq_deadlines_next_ms(&m.heap) == UINT64_MAX);
    tq_deadlines_deinit(&m.heap);
}

static void test_deadlines_of_equal_moments_go_by_rank(void **state)
{
    struct tq_deadlines d;
    struct tq_deadline n[100] = {0};

    (void)state;
    tq_deadlines_init(&d);
    for (unsigned i = 0; i < 100; i++) {
        n[i].seq = TQ_DEADLINE_RANK_MAX - i; /* even ones are ranked, the last one first */
        assert_int_equal(i % 2 == 0 ? tq_deadline_set_ranked(&d, &n[i], 7) : tq_deadline_set(&d, &n[i], 5),
                         TQ_OK);
    }
    for (unsigned i = 0; i < 100; i += 2) /* to move them changes nothing */
        assert_int_equal(tq_deadline_set_ranked(&d, &n[i * 37 % 100], 5), TQ_OK);
    for (unsigned i = 0; i < 50; i++)
        assert_ptr_equal(tq_deadlines_pop_due(&d, 5), &n[98 - 2 * i]);
    for (unsigned i = 0; i < 50; i++)
        assert_ptr_equal(tq_deadlines_pop_due(&d, 5), &n[1 + 2 * i]);
    assert_null(tq_deadlines_pop_due(&d, UINT64_MAX));
    tq_deadlines_deinit(&d);
}

static void test_deadlines_equal_moments_keep_order(void **state)
{
    struct tq_deadlines d;
    struct tq_deadline n[100] = {0};

    (void)state;
    tq_deadlines_init(&d);
    for (int i = 0; i < 100; i++)
        assert_int_equal(tq_deadline_set(&d, &n[i], 5), TQ_OK);
    assert_int_equal(tq_deadline_set(&d, &n[0], 5), TQ_OK); /* set again: behind the others */
    assert_null(tq_deadlines_pop_due(&d, 4));
    for (int i = 1; i < 100; i++)
        assert_ptr_equal(tq_deadlines_pop_due(&d, 5), &n[i]);
    assert_ptr_equal(tq_deadlines_pop_due(&d, 5), &n[0]);
    assert_null(tq_deadlines_pop_due(&d, 5));
    tq_deadlines_deinit(&d);
}

static void test_deadlines_without_memory(void **state)
{
    enum { N = 200 };
    struct tq_deadlines d;
    struct tq_deadline n[N] = {0};
    unsigned failed = 0;

    (void)state;
    tq_deadlines_init(&d);
    for (int i = 0; i < N; i++) {
        tq_mem_fail_after(0, 1);
        if (tq_deadline_set(&d, &n[i], (uint64_t)i) != TQ_OK) {
            failed++;
            assert_false(tq_deadline_is_set(&n[i]));
            if (i > 0) /* a set node can be moved all the same */
                assert_int_equal(tq_deadline_set(&d, &n[0], 0), TQ_OK);
            tq_mem_fail_after(-1, 0);
            assert_int_equal(tq_deadline_set(&d, &n[i], (uint64_t)i), TQ_OK);
        }
    }
    tq_mem_fail_after(-1, 0);
    assert_true(failed >= 2);
    for (int i = 0; i < N; i++)
        assert_ptr_equal(tq_deadlines_pop_due(&d, N), &n[i]);
    tq_deadlines_deinit(&d);
}

/* Places that were reserved are there whatever others set meanwhile. */
static void test_deadlines_keep_places(void **state)
{
    enum { N = 300, KEPT = 40 };
    struct tq_deadline n[N] = {0}, kept[KEPT] = {0};
    struct tq_deadlines d;

    (void)state;
    tq_deadlines_init(&d);
    for (int i = 0; i < KEPT; i++) {
        int rv;

        tq_mem_fail_after(0, 1);
        rv = tq_deadlines_reserve(&d, 1);
        assert_true(rv == TQ_OK || (rv == TQ_ENOMEM && d.reserved == (size_t)i));
        tq_mem_fail_after(-1, 0);
        if (rv != TQ_OK)
            assert_int_equal(tq_deadlines_reserve(&d, 1), TQ_OK);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(tq_deadline_set(&d, &n[i], 10), TQ_OK);
    while (d.count + d.reserved < d.cap) /* no place is left but those */
        assert_int_equal(tq_deadlines_reserve(&d, 1), TQ_OK);
    tq_mem_fail_after(0, 1000);
    assert_int_equal(tq_deadline_set(&d, &kept[0], 5), TQ_ENOMEM);
    for (int i = 0; i < KEPT; i++) {
        tq_deadlines_unreserve(&d, 1);
        assert_int_equal(tq_deadline_set(&d, &kept[i], 5), TQ_OK);
    }
    tq_deadline_clear(&d, &kept[0]);
    assert_int_equal(tq_deadlines_reserve(&d, 1), TQ_OK); /* its own place */
    assert_int_equal(tq_deadline_set(&d, &kept[0], 5), TQ_ENOMEM);
    tq_mem_fail_after(-1, 0);
    for (int i = 1; i < KEPT; i++)
        assert_ptr_equal(tq_deadlines_pop_due(&d, 5), &kept[i]);
    tq_deadlines_unreserve(&d, d.reserved);
    tq_deadlines_deinit(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_errors_have_texts_of_their_own),
        cmocka_unit_test(test_mem_fails_where_told),
        cmocka_unit_test(test_buf_against_a_model),
        cmocka_unit_test(test_buf_ceiling),
        cmocka_unit_test(test_buf_without_memory),
        cmocka_unit_test(test_body),
        cmocka_unit_test(test_deadlines_against_a_model),
        cmocka_unit_test(test_deadlines_equal_moments_keep_order),
        cmocka_unit_test(test_deadlines_of_equal_moments_go_by_rank),
        cmocka_unit_test(test_deadlines_without_memory),
        cmocka_unit_test(test_deadlines_keep_places),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
