#include "master/python/dialect.h"

#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/python/call.h"

#define SHOWN_MAX 120

/* ---- replies ---- */

/* Sends what stands in the scratch buffer, where `rv` is what composing it gave. */
static bool send_scratch(struct peer *p, int rv)
{
    if (rv != TQ_OK) {
        peer_close(p, tq_strerror(rv));
        return false;
    }
    return peer_send(p, tq_buf_span(&p->server->scratch), NULL);
}

static struct tq_buf *scratch(struct peer *p)
{
    tq_buf_clear(&p->server->scratch);
    return &p->server->scratch;
}

static void reply_traceback(struct peer *p, const char *text)
{
    (void)send_scratch(p, tq_py_reply_traceback(scratch(p), text));
}

static void reply_error(struct peer *p, enum tq_py_exception kind, const char *text)
{
    (void)send_scratch(p, tq_py_reply_error(scratch(p), kind, text));
}

static void reply_none(struct peer *p)
{
    (void)send_scratch(p, tq_py_reply_none(scratch(p)));
}

static const char *shown(char out[SHOWN_MAX], struct tq_span name)
{
    return tq_log_quote(out, SHOWN_MAX, name.data, name.len);
}

static void reply_key_error(struct peer *p, struct tq_span name, const char *hint)
{
    char text[SHOWN_MAX + 200];
    char quoted[SHOWN_MAX];

    snprintf(text, sizeof(text), "%s\nKeyError: '%s'", hint, shown(quoted, name));
    reply_traceback(p, text);
}

/* ---- control requests: one to a connection ---- */

static uint64_t now_ms(const struct peer *p)
{
    return server_now_ms(p->server);
}

static bool str_arg(const struct tq_py_request *r, uint32_t i, struct tq_span *ret)
{
    struct tq_pk_value v;

    if (i >= r->arg_count || tq_pk_decode(&r->pickle, r->args[i], &v) != 0 || v.kind != TQ_PK_STR)
        return false;
    *ret = v.bytes;
    return true;
}

static void control_dummy(struct peer *p, const struct tq_py_request *r)
{
    (void)r;
    reply_none(p);
}

static void reply_created(struct peer *p, struct pyobject *o)
{
    struct server *s = p->server;
    char ident[PYREGISTRY_IDENT_MAX];
    struct pyrefs_key key = {.object = o->number, .serial = pyregistry_next_ident(s->registry, o, ident)};

    o->refcount++;
    pyrefs_create(&s->refs, key);
    (void)send_scratch(
        p, tq_py_reply_created(scratch(p), tq_span_str(ident), pymethod_exposed, PYMETHOD_EXPOSED_COUNT));
}

static void create_made(struct peer *p, const struct tq_py_request *r)
{
    struct server *s = p->server;
    struct broker_queue_conf conf = {.kind = BROKER_FIFO, .ack = BROKER_ACK_AUTO, .factory_made = true};
    struct broker_queue *queue;
    struct broker_effects none = {0};
    struct pyobject *object;
    char text[PYCALL_TEXT_MAX];
    char whole[PYCALL_TEXT_MAX + 32];
    char name[64];
    int rv;

    if (pycall_bind_factory(r, &conf.maxsize, text) != 0) {
        snprintf(whole, sizeof(whole), "TypeError: %s", text);
        reply_traceback(p, whole);
        return;
    }
    rv = pyregistry_fresh_name(s->registry, name);
    if (rv == TQ_OK)
        rv = broker_declare(s->broker, name, &conf, &queue);
    if (rv == TQ_OK) {
        rv = pyregistry_make(s->registry, queue, &object);
        if (rv != TQ_OK)
            broker_remove(s->broker, queue, &none);
    }
    if (rv != TQ_OK) {
        tq_log(TQ_LOG_WARN, "NO-NEW-QUEUE", "peer=%s err=\"%s\" remedy=\"raise --max-queues\"", peer_text(p),
               tq_strerror(rv));
        snprintf(whole, sizeof(whole), "RuntimeError: no queue can be made: %s%s", tq_strerror(rv),
                 rv == TQ_ELIMIT ? " (--max-queues)" : "");
        reply_traceback(p, whole);
        return;
    }
    reply_created(p, object);
}

static void control_create(struct peer *p, const struct tq_py_request *r)
{
    struct tq_span typeid_name;
    struct pyobject *o;
    char text[SHOWN_MAX + 120];
    char quoted[SHOWN_MAX];

    if (!str_arg(r, 0, &typeid_name)) {
        reply_traceback(p, "TypeError: create() needs the name of a registered type");
        return;
    }
    o = pyregistry_by_typeid(p->server->registry, typeid_name);
    if (o == NULL && pyregistry_is_factory(typeid_name)) {
        create_made(p, r);
        return;
    }
    if (o == NULL) {
        reply_key_error(p, typeid_name,
                        "no queue of this task-master answers to this name: start it with --queue NAME "
                        "(it answers to get_NAME, too) or --queue NAME,typeid=...");
        return;
    }
    if (r->arg_count > 1 || r->kwarg_count > 0) {
        snprintf(text, sizeof(text), "TypeError: %s() takes 0 positional arguments but %u was given",
                 shown(quoted, typeid_name), r->arg_count - 1 + r->kwarg_count);
        reply_traceback(p, text);
        return;
    }
    reply_created(p, o);
}

static struct pyobject *object_arg(struct peer *p, const struct tq_py_request *r, struct pyrefs_key *ret_key)
{
    struct tq_span ident;
    struct pyobject *o;

    if (!str_arg(r, 0, &ident)) {
        reply_traceback(p, "TypeError: the ident of an object is missing");
        return NULL;
    }
    o = pyregistry_by_ident(p->server->registry, ident, &ret_key->serial);
    if (o == NULL)
        reply_key_error(p, ident, "this task-master has no such object (any more)");
    else
        ret_key->object = o->number;
    return o;
}

static void control_incref(struct peer *p, const struct tq_py_request *r)
{
    struct pyrefs_key key;
    struct pyobject *o = object_arg(p, r, &key);

    if (o == NULL)
        return;
    o->refcount++;
    pyrefs_incref(&p->server->refs, key);
    reply_none(p);
}

static void control_decref(struct peer *p, const struct tq_py_request *r)
{
    struct server *s = p->server;
    struct pyrefs_key key;
    struct pyobject *o = object_arg(p, r, &key);
    struct pyrefs_session *waited;

    if (o == NULL)
        return;
    if (o->refcount > 0)
        o->refcount--;
    waited = pyrefs_decref(&s->refs, key, now_ms(p));
    if (waited != NULL)
        pydialect_limbo_over((struct peer *)(void *)((char *)waited - offsetof(struct peer, refs)),
                             BROKER_CLOSE_ACK);
    reply_none(p);
    if (o->refcount == 0 && !o->declared) {
        struct broker_queue *queue = o->queue;

        pyregistry_drop(s->registry, o);
        server_remove_queue(s, queue);
    }
}

static void control_accept(struct peer *p, const struct tq_py_request *r)
{
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN, .session = &p->endpoint.session};
    struct tq_span name;

    if (!str_arg(r, 0, &name))
        name = tq_span("", 0);
    if (name.len > 100)
        name.len = 100;
    p->name = tq_calloc(1, name.len + 1);
    if (p->name == NULL || server_step(p->server, &ev) != 0) {
        peer_close(p, "out of memory");
        return;
    }
    if (name.len > 0)
        memcpy(p->name, name.data, name.len);
    p->broker_open = true;
    pyrefs_session_open(&p->refs, pyrefs_classify(name.data, name.len));
    peer_set_state(p, PEER_SESSION);
    tq_deadline_clear(&p->server->deadlines, &p->deadline);
    peer_keepalive(p);
    reply_none(p);
}

static void control_get_methods(struct peer *p, const struct tq_py_request *r)
{
    struct tq_pk_range state;
    struct tq_pk_range *parts = NULL;
    struct tq_pk_value v = {.kind = TQ_PK_NONE};
    uint32_t count = 0;
    uint64_t serial;

    /* the argument is a Token: an object whose state is (typeid, address, id) */
    if (r->arg_count != 1 || tq_pk_reduce_args(&r->pickle, r->args[0], true, &state) != 0 ||
        tq_pk_children(&r->pickle, state, &parts, &count) != 0 || count != 3 ||
        tq_pk_decode(&r->pickle, parts[2], &v) != 0 || v.kind != TQ_PK_STR)
        reply_traceback(p, "TypeError: get_methods() needs a Token");
    else if (pyregistry_by_ident(p->server->registry, v.bytes, &serial) == NULL)
        reply_key_error(p, v.bytes, "this task-master has no such object (any more)");
    else
        (void)send_scratch(p, tq_py_reply_names(scratch(p), pymethod_exposed, PYMETHOD_EXPOSED_COUNT));
    tq_free(parts);
}

static void control_number_of_objects(struct peer *p, const struct tq_py_request *r)
{
    (void)r;
    (void)send_scratch(p, tq_py_reply_int(scratch(p), (int64_t)pyregistry_count(p->server->registry)));
}

static void control_debug_info(struct peer *p, const struct tq_py_request *r)
{
    struct tq_buf text = TQ_BUF_NULL(16 * 1024 * 1024);
    int rv = pyregistry_debug_info(p->server->registry, &text);

    (void)r;
    if (rv == TQ_OK)
        rv = tq_py_reply_str(scratch(p), tq_buf_span(&text));
    tq_buf_deinit(&text);
    (void)send_scratch(p, rv);
}

static void control_shutdown(struct peer *p, const struct tq_py_request *r)
{
    struct tq_buf *buf = scratch(p);
    int rv;

    (void)r;
    if (!p->server->config->allow_shutdown) {
        tq_log(TQ_LOG_WARN, "SHUTDOWN-REFUSED", "peer=%s", peer_text(p));
        reply_traceback(p,
                        "PermissionError: this task-master is shared and does not obey shutdown(): stop it "
                        "where it runs, or start it with --allow-shutdown");
        return;
    }
    tq_log(TQ_LOG_INFO, "SHUTDOWN", "peer=%s", peer_text(p));
    rv = tq_py_reply_none(buf); /* Python's server sends the reply twice, and its clients expect no less */
    if (rv == TQ_OK)
        rv = tq_py_reply_none(buf);
    (void)send_scratch(p, rv);
    server_stop(p->server, "a client asked for it", 0);
}

static const struct {
    const char *name;
    unsigned least; /* arguments */
    unsigned most;
    void (*handle)(struct peer *p, const struct tq_py_request *r);
} controls[] = {
    {"dummy", 0, 0, control_dummy},
    {"create", 1, TQ_PY_ARGS_MAX, control_create},
    {"incref", 1, 1, control_incref},
    {"decref", 1, 1, control_decref},
    {"accept_connection", 1, 1, control_accept},
    {"get_methods", 1, 1, control_get_methods},
    {"number_of_objects", 0, 0, control_number_of_objects},
    {"debug_info", 0, 0, control_debug_info},
    {"shutdown", 0, 0, control_shutdown},
};

static void control(struct peer *p, const struct tq_py_request *r)
{
    char text[SHOWN_MAX + 80];
    char quoted[SHOWN_MAX];

    p->server->counters.control_calls++;
    for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
        if (!tq_span_is(r->function, controls[i].name))
            continue;
        if (r->arg_count >= controls[i].least && r->arg_count <= controls[i].most) {
            controls[i].handle(p, r);
            return;
        }
        snprintf(text, sizeof(text), "TypeError: %s() takes %u argument%s but %u were given",
                 controls[i].name, controls[i].least, controls[i].least == 1 ? "" : "s", r->arg_count);
        reply_traceback(p, text);
        return;
    }
    snprintf(text, sizeof(text), "AssertionError: '%s' unrecognized", shown(quoted, r->function));
    reply_traceback(p, text);
}

/* ---- calls in a session ---- */

static void reply_text(struct peer *p, const struct pyobject *o)
{
    char text[BROKER_QUEUE_NAME_MAX + 40];

    snprintf(text, sizeof(text), "<taskq queue '%s'>", broker_queue_name(o->queue));
    (void)send_scratch(p, tq_py_reply_str(scratch(p), tq_span_str(text)));
}

static void step(struct peer *p, struct broker_event *ev)
{
    ev->session = &p->endpoint.session;
    if (server_step(p->server, ev) != 0)
        reply_error(p, TQ_PY_MEMORY_ERROR, "task-master is out of memory");
}

/* Python's ShutDown comes before all other decisions. */
static bool shut_down_first(const struct pyobject *o, bool put)
{
    return broker_queue_shut_down(o->queue) && (put || broker_queue_size(o->queue) == 0);
}

static void call_put_get(struct peer *p, const struct tq_py_request *r, const struct pyobject *o,
                         const struct pycall *c)
{
    bool put = c->method == PY_METHOD_PUT || c->method == PY_METHOD_PUT_NOWAIT;
    struct broker_event ev = {.kind = put ? BROKER_PUT : BROKER_GET, .queue = o->queue};
    bool looks = !put || broker_queue_conf(o->queue)->maxsize > 0;
    char text[PYCALL_TEXT_MAX];
    const char *why = NULL;
    int rv;

    if (!shut_down_first(o, put)) {
        switch (pycall_wait(c, r, looks, &ev.wait_mode, &ev.wait_ms, text)) {
        case PYCALL_WAIT_OK:
            break;
        case PYCALL_WAIT_OVERFLOW:
            p->call_overflow = true;
            break;
        case PYCALL_WAIT_VALUE_ERROR:
            reply_error(p, TQ_PY_VALUE_ERROR, "'timeout' must be a non-negative number");
            return;
        case PYCALL_WAIT_TYPE_ERROR:
            reply_error(p, TQ_PY_TYPE_ERROR, text);
            return;
        }
    }
    if (put) {
        rv = tq_item_from_request(&r->pickle, pycall_item(c), &ev.body);
        if (rv != TQ_OK) {
            why = rv == TQ_ENOMEM ? "task-master is out of memory" : "the item's pickle cannot be kept";
            reply_error(p, rv == TQ_ENOMEM ? TQ_PY_MEMORY_ERROR : TQ_PY_VALUE_ERROR, why);
            return;
        }
    }
    step(p, &ev);
    tq_body_unref(ev.body); /* the broker took a reference of its own */
}

static void call_other(struct peer *p, const struct tq_py_request *r, const struct pyobject *o,
                       const struct pycall *c)
{
    struct broker_event ev = {.queue = o->queue};

    switch (c->method) {
    case PY_METHOD_QSIZE:
        ev.kind = BROKER_QSIZE;
        break;
    case PY_METHOD_EMPTY:
        ev.kind = BROKER_EMPTY;
        break;
    case PY_METHOD_FULL:
        ev.kind = BROKER_FULL;
        break;
    case PY_METHOD_TASK_DONE:
        ev.kind = BROKER_TASK_DONE;
        break;
    case PY_METHOD_JOIN:
        ev.kind = BROKER_JOIN;
        break;
    case PY_METHOD_SHUTDOWN:
        ev.kind = BROKER_SHUTDOWN;
        ev.immediate = pycall_immediate(c, r);
        break;
    case PY_METHOD_STR:
    case PY_METHOD_REPR:
        reply_text(p, o);
        return;
    case PY_METHOD_GETVALUE:
        (void)send_scratch(p, tq_py_reply_unserializable(scratch(p), "cannot pickle '_thread.lock' object"));
        return;
    default:
        TQ_ASSERT(false);
    }
    step(p, &ev);
}

static void not_exposed(struct peer *p, struct tq_span function)
{
    char text[SHOWN_MAX + 240];
    char quoted[SHOWN_MAX];

    snprintf(
        text, sizeof(text),
        "AttributeError: method '%s' of <class 'queue.Queue'> object is not in exposed=('empty', 'full', "
        "'get', 'get_nowait', 'join', 'put', 'put_nowait', 'qsize', 'shutdown', 'task_done')",
        shown(quoted, function));
    reply_traceback(p, text);
}

static void call(struct peer *p, const struct tq_py_request *r)
{
    struct server *s = p->server;
    enum pymethod method = pymethod_by_name(r->function);
    struct pyrefs_key key = {0};
    struct pyobject *o = r->ident_none ? NULL : pyregistry_by_ident(s->registry, r->ident, &key.serial);
    struct pycall c;
    char text[PYCALL_TEXT_MAX];

    s->counters.calls++;
    p->call_overflow = false;
    if (o == NULL) {
        reply_key_error(p, r->ident_none ? tq_span_str("None") : r->ident,
                        "this task-master has no such object (any more)");
        return;
    }
    if (method == PY_METHOD_NONE) {
        not_exposed(p, r->function);
        return;
    }
    key.object = o->number;
    pyrefs_session_use(&s->refs, &p->refs, key, method == PY_METHOD_GET || method == PY_METHOD_GET_NOWAIT);
    if (pycall_bind(&c, r, method, text) != 0)
        reply_error(p, TQ_PY_TYPE_ERROR, text);
    else if (method == PY_METHOD_PUT || method == PY_METHOD_PUT_NOWAIT || method == PY_METHOD_GET ||
             method == PY_METHOD_GET_NOWAIT)
        call_put_get(p, r, o, &c);
    else
        call_other(p, r, o, &c);
}

static void bad_request(struct peer *p, int rv, const char *why)
{
    char text[160];

    if (rv == TQ_ENOMEM) {
        reply_error(p, TQ_PY_MEMORY_ERROR, "task-master is out of memory");
        return;
    }
    p->server->counters.protocol_errors++;
    tq_log(TQ_LOG_WARN, "BAD-REQUEST", "peer=%s why=\"%s\"", peer_text(p), why);
    snprintf(text, sizeof(text), "UnpicklingError: %s", why);
    reply_traceback(p, text);
}

void pydialect_frame(struct peer *p, struct tq_span frame)
{
    struct tq_py_request r;
    const char *why = "";
    int rv;

    if (p->session.dialect != TQ_DIALECT_PYTHON) {
        p->server->counters.protocol_errors++;
        tq_log(TQ_LOG_WARN, "PEER-PROTOCOL", "peer=%s: it speaks a dialect that this version does not have",
               peer_text(p));
        peer_close(p, "unknown dialect");
        return;
    }
    if (frame.len == 0) { /* Python's server ends the session at it, too */
        p->server->counters.protocol_errors++;
        tq_log(TQ_LOG_WARN, "PEER-PROTOCOL", "peer=%s: an empty frame", peer_text(p));
        peer_close(p, "an empty frame");
        return;
    }
    if (p->broker_open && broker_session_parked(&p->endpoint.session)) {
        /* Python sends behind a waiting call only after Ctrl-C: it has given the call up, and would take its
         * reply for this request's. */
        struct broker_event ev = {.kind = BROKER_CANCEL, .session = &p->endpoint.session};

        p->server->counters.canceled_calls++;
        (void)server_step(p->server, &ev);
    }
    rv = tq_py_request_parse(&r, frame, &why);
    if (rv != TQ_OK)
        bad_request(p, rv, why);
    else if (p->state == PEER_FIRST)
        control(p, &r);
    else
        call(p, &r);
    if (rv == TQ_OK)
        tq_py_request_deinit(&r);
    if (p->state == PEER_FIRST) { /* one control request to a connection, as Python's server has it */
        p->close_after_write = true;
        if (p->write == NULL)
            peer_close(p, "answered");
    }
}

/* ---- effects ---- */

static void deliver(struct peer *p, struct broker_effect *fx)
{
    struct tq_body *body = fx->body;

    fx->body = NULL;
    p->wants_delivered = true;
    if (peer_send(p, tq_span(NULL, 0), body)) {
        struct broker_event ev = {.kind = BROKER_DELIVERED, .session = &p->endpoint.session};

        p->wants_delivered = false;
        (void)server_step(p->server, &ev);
    }
}

static void bounce(struct peer *p, const struct broker_effect *fx)
{
    struct broker_event ev = {
        .kind = BROKER_BOUNCE, .session = &p->endpoint.session, .task = fx->task, .queue = NULL};

    (void)server_step(p->server, &ev);
}

void pydialect_effect(struct peer *p, struct broker_effect *fx)
{
    bool gone = p->state != PEER_SESSION || !p->broker_open;

    if (gone || p->write != NULL || (fx->was_parked && !peer_still_waits(p))) {
        /* Nobody waits for this reply any more: an item goes to the next in line, at once. */
        if (!gone && fx->outcome == BROKER_REPLY_ITEM)
            bounce(p, fx);
        return;
    }
    switch (fx->outcome) {
    case BROKER_REPLY_NONE:
        reply_none(p);
        break;
    case BROKER_REPLY_BOOL:
        (void)send_scratch(p, tq_py_reply_bool(scratch(p), fx->number != 0));
        break;
    case BROKER_REPLY_INT:
        (void)send_scratch(p, tq_py_reply_int(scratch(p), fx->number));
        break;
    case BROKER_REPLY_ITEM:
        deliver(p, fx);
        break;
    case BROKER_REPLY_EMPTY:
    case BROKER_REPLY_FULL:
        if (p->call_overflow)
            reply_error(p, TQ_PY_OVERFLOW_ERROR, "timestamp out of range for platform time_t");
        else
            reply_error(p, fx->outcome == BROKER_REPLY_EMPTY ? TQ_PY_EMPTY : TQ_PY_FULL, NULL);
        break;
    case BROKER_REPLY_SHUTDOWN:
        reply_error(p, TQ_PY_SHUTDOWN, NULL);
        break;
    case BROKER_REPLY_TOO_MANY_DONE:
        reply_error(p, TQ_PY_VALUE_ERROR, "task_done() called too many times");
        break;
    case BROKER_REPLY_TYPE_ERROR:
        reply_error(p, TQ_PY_TYPE_ERROR, fx->text != NULL ? fx->text : "items that cannot be ordered");
        break;
    case BROKER_REPLY_TOO_MANY_HELD:
        reply_error(p, TQ_PY_RUNTIME_ERROR,
                    "this session holds too many items that it has not acknowledged: call task_done(), or "
                    "raise --max-held-per-session");
        break;
    case BROKER_REPLY_NO_MEMORY:
        reply_error(p, TQ_PY_MEMORY_ERROR, "task-master is out of memory");
        break;
    }
}

/* ---- the end of a session ---- */

static void close_session(struct peer *p, enum broker_close_mode mode)
{
    struct broker_event ev = {
        .kind = BROKER_SESSION_CLOSE, .session = &p->endpoint.session, .close_mode = mode};

    p->broker_open = false;
    (void)server_step(p->server, &ev);
}

static void end_session(struct peer *p, enum broker_close_mode mode)
{
    const struct broker_queue *queue;
    uint32_t held = broker_session_held(&p->endpoint.session, &queue);

    if (mode == BROKER_CLOSE_RETURN && held > 0) {
        p->server->counters.returned_items += held;
        tq_log(TQ_LOG_INFO, "WORKER-DIED", "peer=%s items=%u: back to the front of their queue", peer_text(p),
               held);
    }
    close_session(p, mode);
}

bool pydialect_closed(struct peer *p)
{
    struct server *s = p->server;
    struct broker_event cancel = {.kind = BROKER_CANCEL, .session = &p->endpoint.session};
    const struct broker_queue *queue;
    enum pyrefs_verdict verdict;

    if (!p->broker_open)
        return false;
    verdict = pyrefs_session_end(&s->refs, &p->refs, broker_session_held(&p->endpoint.session, &queue) > 0,
                                 !s->stopped && halfopen_count_of(&s->halfopen, &p->addr) > 0, now_ms(p));
    if (verdict == PYREFS_UNSURE) {
        if (tq_deadline_set(&s->deadlines, &p->deadline, now_ms(p) + PYREFS_WAIT_MS) == TQ_OK) {
            (void)server_step(s, &cancel); /* a call that waits ends now in any case */
            return true;
        }
        pyrefs_session_over(&s->refs, &p->refs);
        verdict = PYREFS_DIED;
    }
    end_session(p, verdict == PYREFS_LEFT ? BROKER_CLOSE_ACK : BROKER_CLOSE_RETURN);
    return false;
}

void pydialect_limbo_over(struct peer *p, enum broker_close_mode mode)
{
    pyrefs_session_over(&p->server->refs, &p->refs);
    end_session(p, mode);
    peer_limbo_done(p);
}
