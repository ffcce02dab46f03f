/* The messages of the manager protocol: requests and replies as 2.7, 3.6 and 3.13 really pickle them, our
 * own ones read back, and broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/manager.h"
#include "tests/lib/guard.h"

#define LITERAL(s)                                                                                           \
    {                                                                                                        \
        .data = (const uint8_t *)(s), .len = sizeof(s) - 1                                                   \
    }
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define IDENT    "7f46b78c5a90"

/* clang-format off */
static const struct tq_span g_dummy[] = {
    LITERAL("\x80\x02(NU\x05" "dummyq\x00)}q\x01tq\x02."), /* 2.7 */
    LITERAL("\x80\x03(NX\x05\x00\x00\x00" "dummyq\x00)}q\x01tq\x02."), /* 3.6 */
    LITERAL("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00(N\x8c\x05" "dummy\x94)}\x94t\x94."), /* 3.13 */
};
static const struct tq_span g_create[] = {
    LITERAL("\x80\x02(NU\x06" "createq\x00U\x0eget_task_queueq\x01\x85q\x02}q\x03tq\x04."), /* 2.7 */
    LITERAL("\x80\x03(NX\x06\x00\x00\x00" "createq\x00X\x0e\x00\x00\x00get_task_queueq\x01\x85q\x02}q\x03tq\x04."), /* 3.6 */
    LITERAL("\x80\x04\x95#\x00\x00\x00\x00\x00\x00\x00(N\x8c\x06" "create\x94\x8c\x0eget_task_queue\x94\x85\x94}\x94t\x94."), /* 3.13 */
};
static const struct tq_span g_get[] = {
    LITERAL("\x80\x02(U\x0c" "7f46b78c5a90q\x00U\x03getq\x01)}q\x02U\x07timeoutq\x03K\x01stq\x04."), /* 2.7 */
    LITERAL("\x80\x03(X\x0c\x00\x00\x00" "7f46b78c5a90q\x00X\x03\x00\x00\x00getq\x01)}q\x02X\x07\x00\x00\x00timeoutq\x03K\x01stq\x04."), /* 3.6 */
    LITERAL("\x80\x04\x95)\x00\x00\x00\x00\x00\x00\x00(\x8c\x0c" "7f46b78c5a90\x94\x8c\x03get\x94)}\x94\x8c\x07timeout\x94K\x01st\x94."), /* 3.13 */
};
static const struct tq_span g_put[] = {
    LITERAL("\x80\x02(U\x0c" "7f46b78c5a90q\x00U\x03putq\x01h\x01\x88\x86q\x02}q\x03U\x07timeoutq\x04G@\x04\x00\x00\x00\x00\x00\x00stq\x05."), /* 2.7 */
    LITERAL("\x80\x03(X\x0c\x00\x00\x00" "7f46b78c5a90q\x00X\x03\x00\x00\x00putq\x01h\x01\x88\x86q\x02}q\x03X\x07\x00\x00\x00timeoutq\x04G@\x04\x00\x00\x00\x00\x00\x00stq\x05."), /* 3.6 */
    LITERAL("\x80\x04\x95" "4\x00\x00\x00\x00\x00\x00\x00(\x8c\x0c" "7f46b78c5a90\x94\x8c\x03put\x94h\x01\x88\x86\x94}\x94\x8c\x07timeout\x94G@\x04\x00\x00\x00\x00\x00\x00st\x94."), /* 3.13 */
};
static const struct tq_span g_putkw[] = {
    LITERAL("\x80\x02(U\x0c" "7f46b78c5a90q\x00U\x03putq\x01}q\x02U\x07timeoutq\x03K\x01s\x85q\x04}q\x05h\x03K\x05stq\x06."), /* 2.7 */
    LITERAL("\x80\x03(X\x0c\x00\x00\x00" "7f46b78c5a90q\x00X\x03\x00\x00\x00putq\x01}q\x02X\x07\x00\x00\x00timeoutq\x03K\x01s\x85q\x04}q\x05h\x03K\x05stq\x06."), /* 3.6 */
    LITERAL("\x80\x04\x95" "1\x00\x00\x00\x00\x00\x00\x00(\x8c\x0c" "7f46b78c5a90\x94\x8c\x03put\x94}\x94\x8c\x07timeout\x94K\x01s\x85\x94}\x94h\x03K\x05st\x94."), /* 3.13 */
};
static const struct tq_span g_empty[] = {
    LITERAL("\x80\x02U\x06#ERRORq\x00" "cQueue\x0a" "Empty\x0aq\x01)Rq\x02\x86q\x03."), /* 2.7 */
    LITERAL("\x80\x03X\x06\x00\x00\x00#ERRORq\x00" "cqueue\x0a" "Empty\x0aq\x01)Rq\x02\x86q\x03."), /* 3.6 */
    LITERAL("\x80\x04\x95\x22\x00\x00\x00\x00\x00\x00\x00\x8c\x06#ERROR\x94\x8c\x06_queue\x94\x8c\x05" "Empty\x94\x93\x94)R\x94\x86\x94."), /* 3.13 */
};
static const struct tq_span g_value[] = {
    LITERAL("\x80\x02U\x06#ERRORq\x00" "cexceptions\x0aValueError\x0aq\x01U\x01xq\x02\x85q\x03Rq\x04\x86q\x05."), /* 2.7 */
    LITERAL("\x80\x03X\x06\x00\x00\x00#ERRORq\x00" "cbuiltins\x0aValueError\x0aq\x01X\x01\x00\x00\x00xq\x02\x85q\x03Rq\x04\x86q\x05."), /* 3.6 */
    LITERAL("\x80\x04\x95.\x00\x00\x00\x00\x00\x00\x00\x8c\x06#ERROR\x94\x8c\x08" "builtins\x94\x8c\x0aValueError\x94\x93\x94\x8c\x01x\x94\x85\x94R\x94\x86\x94."), /* 3.13 */
};
static const struct tq_span g_ret[] = {
    LITERAL("\x80\x02U\x07#RETURNq\x00M\xe1\x10\x86q\x01."), /* 2.7 */
    LITERAL("\x80\x03X\x07\x00\x00\x00#RETURNq\x00M\xe1\x10\x86q\x01."), /* 3.6 */
    LITERAL("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x07#RETURN\x94M\xe1\x10\x86\x94."), /* 3.13 */
};
static const struct tq_span g_created[] = {
    LITERAL("\x80\x02U\x07#RETURNq\x00U\x0c" "7f46b78c5a90q\x01U\x05" "emptyq\x02U\x03getq\x03\x86q\x04\x86q\x05\x86q\x06."), /* 2.7 */
    LITERAL("\x80\x03X\x07\x00\x00\x00#RETURNq\x00X\x0c\x00\x00\x00" "7f46b78c5a90q\x01X\x05\x00\x00\x00" "emptyq\x02X\x03\x00\x00\x00getq\x03\x86q\x04\x86q\x05\x86q\x06."), /* 3.6 */
    LITERAL("\x80\x04\x95.\x00\x00\x00\x00\x00\x00\x00\x8c\x07#RETURN\x94\x8c\x0c" "7f46b78c5a90\x94\x8c\x05" "empty\x94\x8c\x03get\x94\x86\x94\x86\x94\x86\x94."), /* 3.13 */
};
static const struct tq_span g_tb[] = {
    LITERAL("\x80\x02U\x0a#TRACEBACKq\x00U\x0bKeyError: 1q\x01\x86q\x02."), /* 2.7 */
    LITERAL("\x80\x03X\x0a\x00\x00\x00#TRACEBACKq\x00X\x0b\x00\x00\x00KeyError: 1q\x01\x86q\x02."), /* 3.6 */
    LITERAL("\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x0a#TRACEBACK\x94\x8c\x0bKeyError: 1\x94\x86\x94."), /* 3.13 */
};
static const struct tq_span g_uns[] = {
    LITERAL("\x80\x02U\x0f#UNSERIALIZABLEq\x00U\x01xq\x01\x86q\x02."), /* 2.7 */
    LITERAL("\x80\x03X\x0f\x00\x00\x00#UNSERIALIZABLEq\x00X\x01\x00\x00\x00xq\x01\x86q\x02."), /* 3.6 */
    LITERAL("\x80\x04\x95\x19\x00\x00\x00\x00\x00\x00\x00\x8c\x0f#UNSERIALIZABLE\x94\x8c\x01x\x94\x86\x94."), /* 3.13 */
};
/* clang-format on */

static void assert_span(struct tq_span s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.data, text, s.len);
}

static void parse_request(struct tq_py_request *r, struct tq_span frame)
{
    const char *why = NULL;

    assert_int_equal(tq_py_request_parse(r, frame, &why), TQ_OK);
}

static void assert_request_fails(const char *bytes, size_t n, const char *why_expected)
{
    struct tq_py_request r;
    const char *why = NULL;

    assert_int_equal(tq_py_request_parse(&r, tq_span(bytes, n), &why), TQ_EPROTO);
    assert_non_null(why);
    if (why_expected != NULL)
        assert_string_equal(why, why_expected);
}

#define ASSERT_REQUEST_FAILS(literal, why) assert_request_fails(literal, sizeof(literal) - 1, why)

static void test_control_requests(void **state)
{
    struct tq_py_request r;
    struct tq_pk_value v;

    (void)state;
    for (size_t i = 0; i < COUNT(g_dummy); i++) {
        parse_request(&r, g_dummy[i]);
        assert_true(r.ident_none);
        assert_span(r.function, "dummy");
        assert_int_equal(r.arg_count, 0);
        assert_int_equal(r.kwarg_count, 0);
        tq_py_request_deinit(&r);
        parse_request(&r, g_create[i]);
        assert_true(r.ident_none);
        assert_span(r.function, "create");
        assert_int_equal(r.arg_count, 1);
        assert_int_equal(tq_pk_decode(&r.pickle, r.args[0], &v), TQ_OK);
        assert_int_equal(v.kind, TQ_PK_STR);
        assert_span(v.bytes, "get_task_queue");
        tq_py_request_deinit(&r);
    }
}

static void test_session_requests(void **state)
{
    struct tq_py_request r;
    struct tq_pk_value v;

    (void)state;
    for (size_t i = 0; i < COUNT(g_get); i++) {
        parse_request(&r, g_get[i]);
        assert_false(r.ident_none);
        assert_span(r.ident, IDENT);
        assert_span(r.function, "get");
        assert_int_equal(r.arg_count, 0);
        assert_int_equal(r.kwarg_count, 1);
        assert_span(r.kwargs[0].name, "timeout");
        assert_int_equal(tq_pk_decode(&r.pickle, r.kwargs[0].value, &v), TQ_OK);
        assert_int_equal(v.kind, TQ_PK_INT);
        assert_int_equal(v.integer, 1);
        tq_py_request_deinit(&r);
        /* The item is a reference to the method's name. */
        parse_request(&r, g_put[i]);
        assert_span(r.function, "put");
        assert_int_equal(r.arg_count, 2);
        assert_int_equal(tq_pk_decode(&r.pickle, r.args[0], &v), TQ_OK);
        assert_int_equal(v.kind, TQ_PK_STR);
        assert_span(v.bytes, "put");
        assert_true(tq_pk_truth(&r.pickle, r.args[1]));
        assert_int_equal(r.kwarg_count, 1);
        assert_int_equal(tq_pk_decode(&r.pickle, r.kwargs[0].value, &v), TQ_OK);
        assert_int_equal(v.kind, TQ_PK_FLOAT);
        tq_py_request_deinit(&r);
        /* The keyword is a reference into the item. */
        parse_request(&r, g_putkw[i]);
        assert_int_equal(r.arg_count, 1);
        assert_int_equal(r.kwarg_count, 1);
        assert_span(r.kwargs[0].name, "timeout");
        assert_int_equal(tq_pk_decode(&r.pickle, r.kwargs[0].value, &v), TQ_OK);
        assert_int_equal(v.integer, 5);
        tq_py_request_deinit(&r);
    }
}

static void test_odd_but_legal_requests(void **state)
{
    static const struct tq_span list_of_four = LITERAL("\x80\x02](X\1\0\0\0iX\4\0\0\0full]}e.");
    static const struct tq_span protocol_0 = LITERAL("(S'i'\nV\x66ull\n(t(dt.");
    static const struct tq_span ident_int = LITERAL("\x80\x02(K\1X\4\0\0\0full)}t.");
    static const struct tq_span same_key = LITERAL("\x80\x02(NX\1\0\0\0f)}(X\1\0\0\0kK\1X\1\0\0\0kK\2ut.");
    struct tq_py_request r;
    struct tq_pk_value v;

    (void)state;
    parse_request(&r, list_of_four);
    assert_span(r.ident, "i");
    assert_span(r.function, "full");
    tq_py_request_deinit(&r);
    parse_request(&r, protocol_0);
    assert_span(r.ident, "i");
    assert_span(r.function, "full");
    tq_py_request_deinit(&r);
    parse_request(&r, ident_int);
    assert_false(r.ident_none);
    assert_int_equal(r.ident.len, 0);
    tq_py_request_deinit(&r);
    parse_request(&r, same_key);
    assert_int_equal(r.kwarg_count, 1);
    assert_int_equal(tq_pk_decode(&r.pickle, r.kwargs[0].value, &v), TQ_OK);
    assert_int_equal(v.integer, 2);
    tq_py_request_deinit(&r);
}

static void test_bad_requests(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(4096);
    struct tq_span args[TQ_PY_ARGS_MAX + 1];
    struct tq_py_request r;
    struct tq_emit e;

    (void)state;
    ASSERT_REQUEST_FAILS("", "truncated");
    ASSERT_REQUEST_FAILS("\x80\x02N.", "not a request of four parts");
    ASSERT_REQUEST_FAILS("\x80\x02NN\x86.", "not a request of four parts");
    ASSERT_REQUEST_FAILS("\x80\x02(NNNNNt.", "not a request of four parts");
    ASSERT_REQUEST_FAILS("\x80\x02(NK\1)}t.", "the function's name is not a string");
    ASSERT_REQUEST_FAILS("\x80\x02(NU\1fN}t.", "args is not a tuple");
    ASSERT_REQUEST_FAILS("\x80\x02(NU\1f)Nt.", "kwds is not a dict");
    ASSERT_REQUEST_FAILS("\x80\x02(NU\1f)}K\1K\2st.", "keywords must be strings");
    ASSERT_REQUEST_FAILS("\x80\x02(NU\1f)}t.trailing", NULL);
    for (size_t i = 0; i < COUNT(args); i++)
        args[i] = tq_span_str("x");
    assert_int_equal(tq_py_call_control(&buf, "f", args, TQ_PY_ARGS_MAX), TQ_OK);
    parse_request(&r, tq_span(buf.data + 4, buf.len - 4));
    assert_int_equal(r.arg_count, TQ_PY_ARGS_MAX);
    tq_py_request_deinit(&r);
    tq_buf_clear(&buf);
    assert_int_equal(tq_py_call_control(&buf, "f", args, TQ_PY_ARGS_MAX + 1), TQ_OK);
    assert_request_fails((const char *)buf.data + 4, buf.len - 4, "too many arguments");
    tq_buf_clear(&buf);
    tq_emit_begin(&e, &buf);
    tq_emit_mark(&e);
    tq_emit_none(&e);
    tq_emit_cstr(&e, "f");
    tq_emit_tuple_n(&e, 0);
    tq_emit_empty_dict(&e);
    tq_emit_mark(&e);
    for (char c = 'a'; c <= 'a' + TQ_PY_ARGS_MAX; c++) {
        tq_emit_str(&e, tq_span(&c, 1));
        tq_emit_none(&e);
    }
    tq_emit_setitems(&e);
    tq_emit_tuple(&e);
    assert_int_equal(tq_emit_end(&e), TQ_OK);
    assert_request_fails((const char *)buf.data + 4, buf.len - 4, "too many arguments");
    tq_buf_deinit(&buf);
}

static void test_requests_cut_at_each_length(void **state)
{
    const struct tq_span *const tables[] = {g_dummy, g_create, g_get, g_put, g_putkw};
    struct tq_py_request r;
    const char *why;

    (void)state;
    for (size_t t = 0; t < COUNT(tables); t++)
        for (size_t i = 0; i < COUNT(g_dummy); i++)
            for (size_t n = 0; n <= tables[t][i].len; n++) {
                uint8_t *copy = guard_copy(tables[t][i].data, n);
                int rv = tq_py_request_parse(&r, tq_span(copy, n), &why);

                assert_int_equal(rv, n < tables[t][i].len ? TQ_EPROTO : TQ_OK);
                if (rv == TQ_OK)
                    tq_py_request_deinit(&r);
                else
                    assert_string_equal(why, "truncated");
                guard_free(copy, n);
            }
}

/* Any byte may be another one: no crash, and what is accepted lies inside the input. */
static void test_requests_with_each_byte_changed(void **state)
{
    struct tq_py_request r;
    const char *why;

    (void)state;
    for (size_t i = 0; i < COUNT(g_putkw); i++)
        for (size_t at = 0; at < g_putkw[i].len; at++)
            for (unsigned byte = 0; byte < 256; byte++) {
                uint8_t *copy = guard_copy(g_putkw[i].data, g_putkw[i].len);
                int rv;

                copy[at] = (uint8_t)byte;
                rv = tq_py_request_parse(&r, tq_span(copy, g_putkw[i].len), &why);
                if (rv == TQ_OK) {
                    assert_true(r.function.data >= copy &&
                                r.function.data + r.function.len <= copy + g_putkw[i].len);
                    tq_py_request_deinit(&r);
                } else {
                    assert_int_equal(rv, TQ_EPROTO);
                }
                guard_free(copy, g_putkw[i].len);
            }
}

static void parse_reply(struct tq_py_reply *r, struct tq_span frame)
{
    const char *why = NULL;

    assert_int_equal(tq_py_reply_parse(r, frame, &why), TQ_OK);
}

static void test_replies_of_python(void **state)
{
    struct tq_py_reply r;
    struct tq_pk_value v;

    (void)state;
    for (size_t i = 0; i < COUNT(g_ret); i++) {
        parse_reply(&r, g_ret[i]);
        assert_int_equal(r.kind, TQ_PY_REPLY_RETURN);
        assert_int_equal(tq_pk_decode(&r.pickle, r.value, &v), TQ_OK);
        assert_int_equal(v.integer, 4321);
        assert_false(tq_py_reply_is_empty_error(&r));
        tq_py_reply_deinit(&r);
        parse_reply(&r, g_empty[i]);
        assert_int_equal(r.kind, TQ_PY_REPLY_ERROR);
        assert_true(tq_py_reply_is_empty_error(&r));
        tq_py_reply_deinit(&r);
        parse_reply(&r, g_value[i]);
        assert_int_equal(r.kind, TQ_PY_REPLY_ERROR);
        assert_span(r.error_name, "ValueError");
        assert_false(tq_py_reply_is_empty_error(&r));
        tq_py_reply_deinit(&r);
        parse_reply(&r, g_tb[i]);
        assert_int_equal(r.kind, TQ_PY_REPLY_TRACEBACK);
        assert_int_equal(tq_pk_decode(&r.pickle, r.value, &v), TQ_OK);
        assert_span(v.bytes, "KeyError: 1");
        tq_py_reply_deinit(&r);
        parse_reply(&r, g_uns[i]);
        assert_int_equal(r.kind, TQ_PY_REPLY_OTHER);
        assert_span(r.kind_text, "#UNSERIALIZABLE");
        tq_py_reply_deinit(&r);
    }
}

static void test_create_reply_of_python(void **state)
{
    struct tq_py_reply r;
    struct tq_pk_value v;

    (void)state;
    for (size_t i = 0; i < COUNT(g_created); i++) {
        struct tq_pk_range *list;
        uint32_t count;

        parse_reply(&r, g_created[i]);
        assert_int_equal(tq_pk_children(&r.pickle, r.value, &list, &count), TQ_OK);
        assert_int_equal(count, 2);
        assert_int_equal(tq_pk_decode(&r.pickle, list[0], &v), TQ_OK);
        assert_span(v.bytes, IDENT);
        tq_free(list);
        tq_py_reply_deinit(&r);
    }
}

static void assert_error_reply(struct tq_buf *buf, int rv, const char *module, const char *name)
{
    struct tq_py_reply r;

    assert_int_equal(rv, TQ_OK);
    assert_int_equal(tq_load_be32(buf->data), buf->len - 4);
    parse_reply(&r, tq_span(buf->data + 4, buf->len - 4));
    assert_int_equal(r.kind, TQ_PY_REPLY_ERROR);
    assert_span(r.error_module, module);
    assert_span(r.error_name, name);
    tq_py_reply_deinit(&r);
    tq_buf_clear(buf);
}

static void test_own_errors_read_back(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(4096);

    (void)state;
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_EMPTY, NULL), "queue", "Empty");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_FULL, NULL), "queue", "Full");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_SHUTDOWN, NULL), "queue", "ShutDown");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_VALUE_ERROR, "x"), "builtins", "ValueError");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_TYPE_ERROR, "x"), "builtins", "TypeError");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_OVERFLOW_ERROR, "x"), "builtins", "OverflowError");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_RUNTIME_ERROR, "x"), "builtins", "RuntimeError");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_MEMORY_ERROR, NULL), "builtins", "MemoryError");
    assert_error_reply(&buf, tq_py_reply_error(&buf, TQ_PY_PERMISSION_ERROR, "x"), "builtins",
                       "PermissionError");
    tq_buf_deinit(&buf);
}

static void test_own_calls_read_back(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(4096);
    struct tq_py_request r;
    struct tq_pk_value v;

    (void)state;
    assert_int_equal(tq_py_call_get(&buf, tq_span_str(IDENT), 1.5), TQ_OK);
    parse_request(&r, tq_span(buf.data + 4, buf.len - 4));
    assert_span(r.function, "get");
    assert_int_equal(r.kwarg_count, 1);
    assert_int_equal(tq_pk_decode(&r.pickle, r.kwargs[0].value, &v), TQ_OK);
    assert_true(v.real >= 1.5 && v.real <= 1.5);
    tq_py_request_deinit(&r);
    tq_buf_clear(&buf);
    assert_int_equal(tq_py_call_get(&buf, tq_span_str(IDENT), -1), TQ_OK);
    parse_request(&r, tq_span(buf.data + 4, buf.len - 4));
    assert_int_equal(r.kwarg_count, 0);
    tq_py_request_deinit(&r);
    tq_buf_clear(&buf);
    assert_int_equal(tq_py_call_put_str(&buf, tq_span_str(IDENT), tq_span_str("3 * 3 = 9")), TQ_OK);
    parse_request(&r, tq_span(buf.data + 4, buf.len - 4));
    assert_span(r.ident, IDENT);
    assert_int_equal(r.arg_count, 1);
    assert_int_equal(tq_pk_decode(&r.pickle, r.args[0], &v), TQ_OK);
    assert_span(v.bytes, "3 * 3 = 9");
    tq_py_request_deinit(&r);
    tq_buf_clear(&buf);
    assert_int_equal(tq_py_call_method(&buf, tq_span_str(IDENT), "qsize"), TQ_OK);
    parse_request(&r, tq_span(buf.data + 4, buf.len - 4));
    assert_span(r.function, "qsize");
    tq_py_request_deinit(&r);
    tq_buf_deinit(&buf);
}

static void test_bad_replies(void **state)
{
    static const struct tq_span bad[] = {
        LITERAL(""),
        LITERAL("\x80\x02N."),
        LITERAL("\x80\x02U\7#RETURN\x85."),
        LITERAL("\x80\x02(U\7#RETURNNNt."),
        LITERAL("\x80\x02K\1N\x86."),
    };
    struct tq_py_reply r;
    const char *why;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        why = NULL;
        assert_int_equal(tq_py_reply_parse(&r, bad[i], &why), TQ_EPROTO);
        assert_non_null(why);
    }
    for (size_t i = 0; i < COUNT(g_empty); i++)
        for (size_t n = 0; n < g_empty[i].len; n++) {
            uint8_t *copy = guard_copy(g_empty[i].data, n);

            assert_int_equal(tq_py_reply_parse(&r, tq_span(copy, n), &why), TQ_EPROTO);
            guard_free(copy, n);
        }
}

static void test_error_without_a_class(void **state)
{
    static const struct tq_span frame = LITERAL("\x80\x02U\6#ERRORN\x86.");
    struct tq_py_reply r;

    (void)state;
    parse_reply(&r, frame);
    assert_int_equal(r.kind, TQ_PY_REPLY_ERROR);
    assert_int_equal(r.error_name.len, 0);
    assert_false(tq_py_reply_is_empty_error(&r));
    tq_py_reply_deinit(&r);
}

/* Each allocation failing in turn until none is left to fail. */
static void test_each_allocation_failing(void **state)
{
    struct tq_py_request request;
    struct tq_py_reply reply;
    struct tq_buf shutdown = TQ_BUF_NULL(4096);
    const char *why;
    int rv = TQ_ENOMEM;

    (void)state;
    for (long n = 0; rv != TQ_OK; n++) {
        tq_mem_fail_after(n, 1);
        rv = tq_py_request_parse(&request, g_putkw[2], &why);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
        assert_true(n < 100);
    }
    tq_py_request_deinit(&request);
    assert_int_equal(tq_py_reply_error(&shutdown, TQ_PY_SHUTDOWN, NULL), TQ_OK);
    rv = TQ_ENOMEM;
    for (long n = 0; rv != TQ_OK; n++) {
        tq_mem_fail_after(n, 1);
        rv = tq_py_reply_parse(&reply, tq_span(shutdown.data + 4, shutdown.len - 4), &why);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
        assert_true(n < 100);
    }
    assert_span(reply.error_name, "ShutDown");
    tq_py_reply_deinit(&reply);
    tq_buf_deinit(&shutdown);
}

static void test_a_full_buffer_is_left_alone(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(30);

    (void)state;
    assert_int_equal(tq_py_reply_none(&buf), TQ_OK);
    assert_int_equal(buf.len, 21);
    assert_int_equal(tq_py_reply_none(&buf), TQ_ELIMIT);
    assert_int_equal(buf.len, 21);
    tq_buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_requests),
        cmocka_unit_test(test_session_requests),
        cmocka_unit_test(test_odd_but_legal_requests),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_requests_cut_at_each_length),
        cmocka_unit_test(test_requests_with_each_byte_changed),
        cmocka_unit_test(test_replies_of_python),
        cmocka_unit_test(test_create_reply_of_python),
        cmocka_unit_test(test_own_errors_read_back),
        cmocka_unit_test(test_own_calls_read_back),
        cmocka_unit_test(test_bad_replies),
        cmocka_unit_test(test_error_without_a_class),
        cmocka_unit_test(test_each_allocation_failing),
        cmocka_unit_test(test_a_full_buffer_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
