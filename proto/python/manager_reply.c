#include "proto/python/manager.h"

#include "common/assert.h"
#include "proto/python/manager_text.h"

/* Every reply is a tuple (kind, value): the kind first, then the value, then end_reply. */
static void begin_reply(struct tq_emit *e, struct tq_buf *buf, const char *kind)
{
    tq_emit_begin(e, buf);
    tq_emit_cstr(e, kind);
}

static int end_reply(struct tq_emit *e)
{
    tq_emit_tuple_n(e, 2);
    return tq_emit_end(e);
}

int tq_py_reply_none(struct tq_buf *buf)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#RETURN");
    tq_emit_none(&e);
    return end_reply(&e);
}

int tq_py_reply_bool(struct tq_buf *buf, bool v)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#RETURN");
    tq_emit_bool(&e, v);
    return end_reply(&e);
}

int tq_py_reply_int(struct tq_buf *buf, int64_t v)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#RETURN");
    tq_emit_int(&e, v);
    return end_reply(&e);
}

int tq_py_reply_str(struct tq_buf *buf, struct tq_span utf8)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#RETURN");
    tq_emit_str(&e, utf8);
    return end_reply(&e);
}

static void emit_names(struct tq_emit *e, const char *const *names, size_t count)
{
    tq_emit_mark(e);
    for (size_t i = 0; i < count; i++)
        tq_emit_cstr(e, names[i]);
    tq_emit_tuple(e);
}

int tq_py_reply_created(struct tq_buf *buf, struct tq_span ident, const char *const *exposed, size_t count)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#RETURN");
    tq_emit_str(&e, ident);
    emit_names(&e, exposed, count);
    tq_emit_tuple_n(&e, 2);
    return end_reply(&e);
}

int tq_py_reply_names(struct tq_buf *buf, const char *const *names, size_t count)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#RETURN");
    emit_names(&e, names, count);
    return end_reply(&e);
}

void tq_py_emit_shutdown_class(struct tq_emit *e)
{
    /* getattr(import_module('queue'), 'ShutDown', queue.Empty): naming queue.ShutDown itself would not
     * load before 3.13. */
    tq_emit_global(e, "builtins", "getattr");
    tq_emit_global(e, "importlib", "import_module");
    tq_emit_cstr(e, "queue");
    tq_emit_tuple_n(e, 1);
    tq_emit_reduce(e);
    tq_emit_cstr(e, "ShutDown");
    tq_emit_global(e, "queue", "Empty");
    tq_emit_tuple_n(e, 3);
    tq_emit_reduce(e);
}

static void emit_class(struct tq_emit *e, enum tq_py_exception kind)
{
    static const struct {
        const char *module;
        const char *name;
    } classes[] = {
        /* Not `_queue Empty`, which is what 3.7 and later write: 3.6 cannot import that. */
        [TQ_PY_EMPTY] = {"queue", "Empty"},
        [TQ_PY_FULL] = {"queue", "Full"},
        [TQ_PY_VALUE_ERROR] = {"builtins", "ValueError"},
        [TQ_PY_TYPE_ERROR] = {"builtins", "TypeError"},
        [TQ_PY_OVERFLOW_ERROR] = {"builtins", "OverflowError"},
        [TQ_PY_RUNTIME_ERROR] = {"builtins", "RuntimeError"},
        [TQ_PY_MEMORY_ERROR] = {"builtins", "MemoryError"},
        [TQ_PY_PERMISSION_ERROR] = {"builtins", "PermissionError"},
    };

    if (kind == TQ_PY_SHUTDOWN) {
        tq_py_emit_shutdown_class(e);
        return;
    }
    TQ_ASSERT((size_t)kind < sizeof(classes) / sizeof(classes[0]) && classes[kind].module != NULL);
    tq_emit_global(e, classes[kind].module, classes[kind].name);
}

int tq_py_reply_error(struct tq_buf *buf, enum tq_py_exception kind, const char *text)
{
    struct tq_emit e;

    begin_reply(&e, buf, "#ERROR");
    emit_class(&e, kind);
    if (text != NULL)
        tq_emit_cstr(&e, text);
    tq_emit_tuple_n(&e, text != NULL ? 1 : 0);
    tq_emit_reduce(&e);
    return end_reply(&e);
}

static int reply_text(struct tq_buf *buf, const char *kind, const char *text)
{
    struct tq_emit e;

    begin_reply(&e, buf, kind);
    tq_emit_cstr(&e, text);
    return end_reply(&e);
}

int tq_py_reply_traceback(struct tq_buf *buf, const char *text)
{
    return reply_text(buf, "#TRACEBACK", text);
}

int tq_py_reply_unserializable(struct tq_buf *buf, const char *text)
{
    return reply_text(buf, "#UNSERIALIZABLE", text);
}
