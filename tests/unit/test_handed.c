/* What Python sessions are handed: values, records of results that are not OK, and what has no Python form.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/python/handed.h"
#include "proto/python/manager.h"

#define ROOM 4096

static struct broker_view view_of(const void *value, size_t len)
{
    return (struct broker_view){
        .id = 77,
        .of = 77,
        .payload = {.data = value, .len = (uint32_t)len, .format = BROKER_MSGPACK},
        .from = "",
    };
}

/* The reply's value, and that it is a reply. */
static void parse(struct tq_py_reply *r, const struct tq_buf *buf)
{
    const char *why = "";

    assert_true(buf->len > 4);
    assert_int_equal(tq_load_be32(buf->data), buf->len - 4);
    assert_int_equal(tq_py_reply_parse(r, tq_span(buf->data + 4, buf->len - 4), &why), TQ_OK);
    assert_int_equal(r->kind, TQ_PY_REPLY_RETURN);
}

static void assert_reply(const struct broker_view *v, int result, enum tq_pk_kind kind, int64_t integer,
                         const void *bytes, size_t len)
{
    struct tq_buf buf = TQ_BUF_NULL(ROOM);
    struct tq_py_reply r;
    struct tq_pk_value value;

    assert_int_equal(pyhanded_reply(v, &buf), result);
    parse(&r, &buf);
    assert_int_equal(tq_pk_decode(&r.pickle, r.value, &value), 0);
    assert_int_equal(value.kind, kind);
    if (kind == TQ_PK_INT)
        assert_int_equal(value.integer, integer);
    if (bytes != NULL) {
        assert_int_equal(value.bytes.len, len);
        assert_memory_equal(value.bytes.data, bytes, len);
    }
    tq_py_reply_deinit(&r);
    tq_buf_deinit(&buf);
}

static void values(void **state)
{
    struct broker_view v = view_of("\x2a", 1);

    (void)state;
    assert_false(pyhanded_is_frame(&v));
    assert_reply(&v, PYHANDED_VALUE, TQ_PK_INT, 42, NULL, 0);
    v.outcome = BROKER_OUTCOME_OK; /* a result is its value alone */
    assert_reply(&v, PYHANDED_VALUE, TQ_PK_INT, 42, NULL, 0);
    v.outcome = BROKER_OUTCOME_FAILED; /* a dead letter is its body as it was */
    assert_reply(&v, PYHANDED_VALUE, TQ_PK_INT, 42, NULL, 0);
    v = view_of(NULL, 0);
    v.outcome = BROKER_OUTCOME_OK;
    assert_false(pyhanded_is_frame(&v));
    assert_reply(&v, PYHANDED_VALUE, TQ_PK_NONE, 0, NULL, 0);
    v = view_of("frame", 5);
    v.payload.format = BROKER_PYTHON;
    assert_true(pyhanded_is_frame(&v));
}

static void no_python_form(void **state)
{
    static const uint8_t bad_pickle[] = {0xc7, 3, 80, 'a', 'b', 'c'};
    struct broker_view v = view_of(bad_pickle, sizeof(bad_pickle));
    struct tq_buf buf = TQ_BUF_NULL(70);
    struct tq_buf before = TQ_BUF_NULL(24);
    uint8_t zeros[41] = {0xdc, 0, 38};

    (void)state;
    assert_reply(&v, PYHANDED_BYTES, TQ_PK_BYTES, 0, bad_pickle, sizeof(bad_pickle));
    /* 38 times 0: two bytes each as a pickle */
    v = view_of(zeros, sizeof(zeros));
    assert_int_equal(pyhanded_reply(&v, &buf), PYHANDED_BYTES);
    tq_buf_deinit(&buf);
    assert_int_equal(tq_buf_append(&before, "abc", 3), TQ_OK);
    assert_int_equal(pyhanded_reply(&v, &before), TQ_ELIMIT);
    assert_int_equal(before.len, 3);
    assert_memory_equal(before.data, "abc", 3);
    tq_buf_deinit(&before);
}

struct field {
    struct tq_span name;
    struct tq_pk_value value;
};

static const struct tq_pk_value *field(const struct field *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (tq_span_is(list[i].name, name))
            return &list[i].value;
    }
    return NULL;
}

static size_t read_record(const struct broker_view *v, struct tq_buf *buf, struct tq_py_reply *r,
                          struct field *list, size_t max)
{
    struct tq_pk_range *parts = NULL;
    struct tq_pk_value name;
    uint32_t count = 0;

    tq_buf_clear(buf);
    assert_int_equal(pyhanded_reply(v, buf), PYHANDED_VALUE);
    parse(r, buf);
    assert_int_equal(tq_pk_children(&r->pickle, r->value, &parts, &count), 0);
    assert_true(count % 2 == 0 && count / 2 <= max);
    for (uint32_t i = 0; i < count; i += 2) {
        assert_int_equal(tq_pk_decode(&r->pickle, parts[i], &name), 0);
        assert_int_equal(name.kind, TQ_PK_STR);
        list[i / 2].name = name.bytes;
        assert_int_equal(tq_pk_decode(&r->pickle, parts[i + 1], &list[i / 2].value), 0);
    }
    tq_free(parts);
    return count / 2;
}

static void records(void **state)
{
    struct broker_view v = view_of(NULL, 0);
    struct tq_buf buf = TQ_BUF_NULL(ROOM);
    struct tq_py_reply r;
    struct field list[20];
    size_t n;

    (void)state;
    v.outcome = BROKER_OUTCOME_LOST;
    n = read_record(&v, &buf, &r, list, 20);
    assert_int_equal(n, 3); /* what there is not is left out */
    assert_int_equal(field(list, n, "id")->integer, 77);
    assert_true(tq_span_is(field(list, n, "outcome")->bytes, "lost"));
    assert_int_equal(field(list, n, "attempt")->integer, 0);
    tq_py_reply_deinit(&r);

    v = (struct broker_view){.id = UINT64_MAX,
                             .of = 5,
                             .outcome = BROKER_OUTCOME_FAILED,
                             .error = tq_span_str("it\xff broke"),
                             .code = -9,
                             .tries = 3,
                             .worker = tq_span_str("w1"),
                             .from = "jobs",
                             .key = tq_span_str("k"),
                             .trace = tq_span_str("00-t"),
                             .put_ms = 1,
                             .started_ms = 2,
                             .ended_ms = 3};
    n = read_record(&v, &buf, &r, list, 20);
    assert_int_equal(n, 13);
    assert_true(field(list, n, "id")->integer == INT64_MAX);
    assert_int_equal(field(list, n, "of")->integer, 5);
    assert_true(tq_span_is(field(list, n, "outcome")->bytes, "failed"));
    assert_true(tq_span_is(field(list, n, "error")->bytes, "it\xef\xbf\xbd broke"));
    assert_int_equal(field(list, n, "code")->integer, -9);
    assert_int_equal(field(list, n, "attempt")->integer, 3);
    assert_true(tq_span_is(field(list, n, "worker")->bytes, "w1"));
    assert_true(tq_span_is(field(list, n, "from")->bytes, "jobs"));
    assert_true(tq_span_is(field(list, n, "key")->bytes, "k"));
    assert_true(tq_span_is(field(list, n, "trace")->bytes, "00-t"));
    assert_int_equal(field(list, n, "put_ms")->integer, 1);
    assert_int_equal(field(list, n, "started_ms")->integer, 2);
    assert_int_equal(field(list, n, "ended_ms")->integer, 3);
    tq_py_reply_deinit(&r);
    tq_buf_deinit(&buf);
}

static void outcome_names(void **state)
{
    static const char *const names[] = {
        [BROKER_OUTCOME_FAILED] = "failed", [BROKER_OUTCOME_EXPIRED] = "expired",
        [BROKER_OUTCOME_LOST] = "lost",     [BROKER_OUTCOME_CANCELED] = "canceled",
        [BROKER_OUTCOME_PURGED] = "purged",
    };

    (void)state;
    for (unsigned i = BROKER_OUTCOME_FAILED; i <= BROKER_OUTCOME_PURGED; i++) {
        struct broker_view v = view_of(NULL, 0);
        struct tq_buf buf = TQ_BUF_NULL(ROOM);
        struct tq_py_reply r;
        struct field list[20];
        size_t n;

        v.outcome = (enum broker_task_outcome)i;
        n = read_record(&v, &buf, &r, list, 20);
        assert_true(tq_span_is(field(list, n, "outcome")->bytes, names[i]));
        tq_py_reply_deinit(&r);
        tq_buf_deinit(&buf);
    }
}

static void out_of_memory(void **state)
{
    static const uint8_t list[] = {0x93, 1, 0xa1, 'x', 0xc7, 5, 80, 0x80, 2, ']', 'N', 'a'}; /* bad pickle */
    struct broker_view views[3];

    (void)state;
    views[0] = view_of("\x2a", 1);
    views[1] = view_of(NULL, 0);
    views[1].outcome = BROKER_OUTCOME_EXPIRED;
    views[2] = view_of(list, sizeof(list));
    for (size_t i = 0; i < 3; i++) {
        for (long n = 0;; n++) {
            struct tq_buf buf = TQ_BUF_NULL(ROOM);
            int rv;

            tq_mem_fail_after(n, 1);
            rv = pyhanded_reply(&views[i], &buf);
            tq_mem_fail_after(-1, 0);
            if (rv < 0) {
                assert_int_equal(rv, TQ_ENOMEM);
                assert_int_equal(buf.len, 0);
            }
            tq_buf_deinit(&buf);
            if (rv >= 0)
                break;
            assert_true(n < 100);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),        cmocka_unit_test(no_python_form), cmocka_unit_test(records),
        cmocka_unit_test(outcome_names), cmocka_unit_test(out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
