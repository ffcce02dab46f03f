/* Connections: frames in, messages to those who handle them. */
#include "master/native/native_impl.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/mem.h"

struct native *native_new(struct native_host *host)
{
    struct native *n = tq_calloc(1, sizeof(*n));

    if (n == NULL)
        return NULL;
    n->host = host;
    native_journal_init(n);
    if (native_roster_init(n) != TQ_OK) {
        tq_free(n);
        return NULL;
    }
    return n;
}

void native_free(struct native *n)
{
    if (n == NULL)
        return;
    TQ_ASSERT(n->dirty == NULL);
    native_roster_deinit(n);
    native_journal_deinit(n);
    TQ_ASSERT(n->calls.used == 0);
    tq_free(n->calls.slots);
    tq_free(n->delivery.bounced);
    while (n->spare_count > 0)
        tq_buf_deinit(&n->spares[--n->spare_count]);
    tq_free(n);
}

const struct native_counters *native_counters(const struct native *n)
{
    return &n->counters;
}

void native_open(struct native *n, struct native_conn *c, uint32_t key)
{
    *c = (struct native_conn){.native = n, .key = key, .heard_ms = native_now(n)};
}

void native_closed(struct native_conn *c, enum native_closed how)
{
    struct native *n = c->native;

    if (n == NULL)
        return;
    native_session_leave(c, how);
    native_unmark_dirty(c);
    tq_buf_deinit(&c->out);
    c->native = NULL;
}

void native_stop(struct native *n)
{
    struct native_session *s;
    uint32_t i = 0;

    n->stopping = true;
    for (; (s = native_roster_at(n, i, &i)) != NULL; i++) {
        struct native_out out;

        if (s->conn == NULL || s->conn->closing != NATIVE_STAYS)
            continue;
        out = native_notify_begin(s->conn, "bye");
        tq_mp_put_map(&out.o, 1);
        tq_mp_put_cstr(&out.o, "text");
        tq_mp_put_cstr(&out.o, "task-master stops: connect again later");
        (void)native_out_end(&out);
    }
}

/* ---- methods ---- */

/* Those that come most often are first. */
static const struct {
    const char *name;
    uint8_t len;
    uint8_t method;
} methods[] = {
#define METHOD(name_, method_)                                                                               \
    {                                                                                                        \
        name_, sizeof(name_) - 1, method_                                                                    \
    }
    METHOD("done", NATIVE_DONE),       METHOD("get", NATIVE_GET),         METHOD("put", NATIVE_PUT),
    METHOD("wait", NATIVE_WAIT),       METHOD("ping", NATIVE_PING),       METHOD("fail", NATIVE_FAIL),
    METHOD("extend", NATIVE_EXTEND),   METHOD("release", NATIVE_RELEASE), METHOD("cancel", NATIVE_CANCEL),
    METHOD("join", NATIVE_JOIN),       METHOD("hello", NATIVE_HELLO),     METHOD("bye", NATIVE_BYE),
    METHOD("declare", NATIVE_DECLARE), METHOD("delete", NATIVE_DELETE),   METHOD("purge", NATIVE_PURGE),
    METHOD("pause", NATIVE_PAUSE),     METHOD("resume", NATIVE_RESUME),   METHOD("remove", NATIVE_REMOVE),
    METHOD("retry", NATIVE_RETRY),     METHOD("stats", NATIVE_STATS),     METHOD("queues", NATIVE_QUEUES),
    METHOD("tasks", NATIVE_TASKS),     METHOD("workers", NATIVE_WORKERS), METHOD("backup", NATIVE_BACKUP),
#undef METHOD
};
#define METHOD_COUNT (sizeof(methods) / sizeof(methods[0]))

_Static_assert(METHOD_COUNT == NATIVE_METHODS, "each method has a name");

static enum native_method method_of(struct tq_span name)
{
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (methods[i].len == name.len && memcmp(methods[i].name, name.data, name.len) == 0)
            return (enum native_method)methods[i].method;
    }
    return NATIVE_METHODS;
}

const char *native_method_name(enum native_method method)
{
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (methods[i].method == method)
            return methods[i].name;
    }
    return "?";
}

static void handle(struct native_request *r, enum native_method method)
{
    switch (method) {
    case NATIVE_HELLO:
        native_hello(r);
        break;
    case NATIVE_PUT:
        native_request_put(r);
        break;
    case NATIVE_GET:
        native_request_get(r);
        break;
    case NATIVE_DONE:
    case NATIVE_FAIL:
        native_request_done(r, method);
        break;
    case NATIVE_EXTEND:
    case NATIVE_RELEASE:
        native_request_leases(r, method);
        break;
    case NATIVE_WAIT:
        native_request_wait(r);
        break;
    case NATIVE_JOIN:
        native_request_join(r);
        break;
    case NATIVE_CANCEL:
        native_request_cancel(r);
        break;
    case NATIVE_PING:
        native_request_ping(r);
        break;
    case NATIVE_BYE:
        native_bye(r);
        break;
    case NATIVE_DECLARE:
        native_request_declare(r);
        break;
    case NATIVE_DELETE:
    case NATIVE_PURGE:
    case NATIVE_PAUSE:
    case NATIVE_RESUME:
        native_request_queue(r, method);
        break;
    case NATIVE_REMOVE:
    case NATIVE_RETRY:
        native_request_ids(r, method);
        break;
    case NATIVE_STATS:
        native_request_stats(r);
        break;
    case NATIVE_QUEUES:
        native_request_queues(r);
        break;
    case NATIVE_TASKS:
        native_request_tasks(r);
        break;
    case NATIVE_WORKERS:
        native_request_workers(r);
        break;
    case NATIVE_BACKUP:
        native_request_backup(r);
        break;
    case NATIVE_METHODS:
        break;
    }
}

static void request(struct native_request *r, struct tq_span name)
{
    enum native_method method = method_of(name);

    r->conn->native->counters.requests++;
    if (r->conn->session == NULL && method != NATIVE_HELLO)
        native_reply_errorf(r->conn, r->msgid, CODE_HELLO_FIRST,
                            "say hello first: \"%s\" is not answered before it", native_quote(name));
    else if (method == NATIVE_METHODS)
        native_reply_errorf(r->conn, r->msgid, CODE_UNKNOWN_METHOD, "there is no method \"%s\" in version %u",
                            native_quote(name), NATIVE_VERSION);
    else
        handle(r, method);
}

static void notification(struct native_request *r, struct tq_span name)
{
    enum native_method method = method_of(name);

    r->notification = true;
    if (r->conn->session == NULL)
        return;
    if (method == NATIVE_CANCEL || method == NATIVE_BYE)
        handle(r, method);
}

/* ---- messages ---- */

static bool read_name(struct tq_mp *in, struct tq_span *ret)
{
    return tq_mp_str(in, ret) || tq_mp_bin(in, ret);
}

/* NULL, or why it is no message. */
static const char *take_message(struct native_conn *c, struct tq_span payload)
{
    struct native_request r = {.conn = c, .params = tq_mp_of(payload)};
    struct tq_span name;
    uint32_t count;
    uint64_t type;

    if (!tq_mp_array(&r.params, &count) || count < 3 || !tq_mp_u64(&r.params, &type))
        return "a message is [0, msgid, method, params] or [2, method, params]";
    if (type == 0 && count == 4) {
        if (!tq_mp_u32(&r.params, &r.msgid))
            return "msgid must be a whole number, 0 to 4294967295";
        if (!read_name(&r.params, &name))
            return "the method must be a string";
        request(&r, name);
        return NULL;
    }
    if (type != 2 || count != 3)
        return "a message is [0, msgid, method, params] or [2, method, params]";
    if (!read_name(&r.params, &name))
        return "the method must be a string";
    notification(&r, name);
    return NULL;
}

/* It has got hello's reply, and with it the new token: nobody sends anything after it who has not; but what
 * comes while that reply stands unwritten was sent before it. */
static void confirm(const struct native_conn *c)
{
    struct native_session *s = c->session;

    if (s == NULL || !s->unconfirmed || c->out.len > 0 || c->unsent > 0)
        return;
    s->unconfirmed = false;
    native_journal_note(s);
}

void native_frame(struct native_conn *c, struct tq_span payload)
{
    const char *why = NULL;

    if (c->native == NULL || c->closing != NATIVE_STAYS)
        return;
    c->native->counters.frames++;
    c->heard_ms = native_now(c->native);
    confirm(c);
    if (tq_mp_walk_all(payload, &why) == TQ_OK)
        why = take_message(c, payload);
    if (why != NULL)
        native_protocol_error(c, why);
}
