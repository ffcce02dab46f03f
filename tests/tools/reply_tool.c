/* Writes every reply that the master can compose itself, for interpreters to load: for each one a line
 * "NAME HEX-OF-THE-PICKLE" on stdout. */
#include <stdio.h>

#include "common/err.h"
#include "proto/python/manager.h"

static int g_failed;

static void show(const char *name, struct tq_buf *buf, int rv)
{
    if (rv != TQ_OK || buf->len < 4 || tq_load_be32(buf->data) != buf->len - 4) {
        fprintf(stderr, "%s: %s, %zu bytes\n", name, tq_strerror(rv), buf->len);
        g_failed = 1;
        return;
    }
    printf("%s ", name);
    for (size_t i = 4; i < buf->len; i++)
        printf("%02x", buf->data[i]);
    printf("\n");
    tq_buf_clear(buf);
}

static void show_values(struct tq_buf *buf)
{
    static const char *const exposed[] = {"empty", "full", "get"};
    static const int64_t ints[] = {0,      -1,        255,       256,        65535,     65536,
                                   -32769, INT32_MAX, INT32_MIN, 4294967296, INT64_MAX, INT64_MIN};
    char name[40];

    show("none", buf, tq_py_reply_none(buf));
    show("true", buf, tq_py_reply_bool(buf, true));
    show("false", buf, tq_py_reply_bool(buf, false));
    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        snprintf(name, sizeof(name), "int:%lld", (long long)ints[i]);
        show(name, buf, tq_py_reply_int(buf, ints[i]));
    }
    show("str:empty", buf, tq_py_reply_str(buf, tq_span(NULL, 0)));
    show("str:text", buf, tq_py_reply_str(buf, tq_span_str("h\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x8d")));
    show("str:surrogate", buf, tq_py_reply_str(buf, tq_span_str("\xed\xa0\x80")));
    show("str:not-utf8", buf, tq_py_reply_str(buf, tq_span_str("a\xff\xc0\x80z\xe2\x82")));
    show("created", buf, tq_py_reply_created(buf, tq_span_str("7f46b78c5a90"), exposed, 3));
    show("names", buf, tq_py_reply_names(buf, exposed, 2));
    show("names:none", buf, tq_py_reply_names(buf, exposed, 0));
}

static void show_errors(struct tq_buf *buf)
{
    static const struct {
        const char *name;
        enum tq_py_exception kind;
    } kinds[] = {
        {"error:Empty", TQ_PY_EMPTY},
        {"error:Full", TQ_PY_FULL},
        {"error:ShutDown", TQ_PY_SHUTDOWN},
        {"error:ValueError", TQ_PY_VALUE_ERROR},
        {"error:TypeError", TQ_PY_TYPE_ERROR},
        {"error:OverflowError", TQ_PY_OVERFLOW_ERROR},
        {"error:RuntimeError", TQ_PY_RUNTIME_ERROR},
        {"error:MemoryError", TQ_PY_MEMORY_ERROR},
        {"error:PermissionError", TQ_PY_PERMISSION_ERROR},
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        show(kinds[i].name, buf, tq_py_reply_error(buf, kinds[i].kind, i < 3 ? NULL : "the \"text\"\n"));
    show("error:no-text", buf, tq_py_reply_error(buf, TQ_PY_VALUE_ERROR, NULL));
    show("traceback", buf, tq_py_reply_traceback(buf, "KeyError: 'x'"));
    show("unserializable", buf, tq_py_reply_unserializable(buf, "an object"));
}

static void show_calls(struct tq_buf *buf)
{
    struct tq_span args[2] = {tq_span_str("get_task_queue"), tq_span_str("second")};
    struct tq_span ident = tq_span_str("7f46b78c5a90");

    show("call:dummy", buf, tq_py_call_control(buf, "dummy", NULL, 0));
    show("call:create", buf, tq_py_call_control(buf, "create", args, 2));
    show("call:get", buf, tq_py_call_get(buf, ident, 1.5));
    show("call:get-forever", buf, tq_py_call_get(buf, ident, -1));
    show("call:put", buf, tq_py_call_put_str(buf, ident, tq_span_str("3 * 3 = 9")));
    show("call:qsize", buf, tq_py_call_method(buf, ident, "qsize"));
}

int main(void)
{
    struct tq_buf buf;

    tq_buf_init(&buf, 4096);
    show_values(&buf);
    show_errors(&buf);
    show_calls(&buf);
    tq_buf_deinit(&buf);
    return g_failed;
}
