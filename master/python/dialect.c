#include "master/python/dialect_impl.h"

#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/access/access.h"
#include "master/python/call.h"
#include "master/python/handed.h"

#define NAME_MAX_BYTES 100

static struct pypeer *session_of(const struct peer *p)
{
    return peer_is_half_open(p) || peer_is_native(p) ? NULL : p->python;
}

static bool has_session(const struct peer *p)
{
    const struct pypeer *py = session_of(p);

    return py != NULL && py->broker_open;
}

bool pydialect_waits(const struct peer *p)
{
    return has_session(p) && broker_session_parked(&p->python->endpoint.session);
}

const char *pydialect_name(const struct peer *p)
{
    const struct pypeer *py = session_of(p);

    return py != NULL ? py->name : NULL;
}

/* ---- rights ---- */

static enum key_right right_of(enum pymethod method)
{
    switch (method) {
    case PY_METHOD_PUT:
    case PY_METHOD_PUT_NOWAIT:
    case PY_METHOD_JOIN:
        return KEY_PUT;
    case PY_METHOD_GET:
    case PY_METHOD_GET_NOWAIT:
    case PY_METHOD_TASK_DONE:
        return KEY_GET;
    case PY_METHOD_SHUTDOWN:
        return KEY_MANAGE;
    default:
        return KEY_LOOK;
    }
}

/* False, and the refusal sent, when the peer's key may not call it. */
static bool may_call(struct peer *p, enum pymethod method, const struct broker_queue *queue)
{
    char text[ACCESS_TEXT_MAX];

    if (access_allowed(p, right_of(method), pymethod_name(method), queue, text))
        return true;
    pypeer_error(p, TQ_PY_PERMISSION_ERROR, text);
    return false;
}

void pydialect_rights_changed(struct peer *p)
{
    struct broker_event cancel = {.kind = BROKER_CANCEL};
    enum pymethod method;
    char text[ACCESS_TEXT_MAX];

    if (!pydialect_waits(p))
        return;
    cancel.session = &p->python->endpoint.session;
    method = (enum pymethod)p->python->call_method;
    if (!p->revoked &&
        access_allowed(p, right_of(method), pymethod_name(method), p->python->call_queue, text))
        return;
    (void)server_step(p->server, &cancel);
    if (p->revoked || p->state != PEER_SESSION)
        return;
    if (peer_still_waits(p))
        pypeer_error(p, TQ_PY_PERMISSION_ERROR, text);
    peer_resume_later(p);
}

/* ---- sessions ---- */

static void on_effect(struct endpoint *ep, struct broker_effect *fx);

bool pypeer_begin_session(struct peer *p, struct tq_span name)
{
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN};
    struct pypeer *py;

    if (name.len > NAME_MAX_BYTES)
        name.len = NAME_MAX_BYTES;
    py = tq_calloc(1, sizeof(*py) + name.len + 1);
    if (py == NULL) {
        peer_close(p, "out of memory");
        return false;
    }
    py->peer = p;
    py->endpoint.on_effect = on_effect;
    if (name.len > 0)
        memcpy(py->name, name.data, name.len);
    py->endpoint.session.worker = tq_span_str(py->name);
    p->python = py;
    ev.session = &py->endpoint.session;
    if (server_step(p->server, &ev) != 0) {
        peer_close(p, "out of memory");
        return false;
    }
    py->broker_open = true;
    pyrefs_session_open(&py->refs, pyrefs_classify(name.data, name.len));
    peer_set_state(p, PEER_SESSION);
    tq_deadline_clear(&p->server->deadlines, &p->deadline);
    peer_keepalive(p);
    return true;
}

/* ---- calls in a session ---- */

static void reply_text(struct peer *p, const struct pyobject *o)
{
    char text[BROKER_QUEUE_NAME_MAX + 40];

    snprintf(text, sizeof(text), "<taskq queue '%s'>", broker_queue_name(o->queue));
    (void)pypeer_send(p, tq_py_reply_str(pypeer_scratch(p), tq_span_str(text)));
}

static void step(struct peer *p, struct broker_event *ev)
{
    ev->session = &p->python->endpoint.session;
    if (server_step(p->server, ev) != 0)
        pypeer_error(p, TQ_PY_MEMORY_ERROR, "task-master is out of memory");
}

/* Python's ShutDown comes before all other decisions. */
static bool shut_down_first(const struct pyobject *o, bool put)
{
    return broker_queue_shut_down(o->queue) && (put || broker_queue_size(o->queue) == 0);
}

static struct broker_payload pyitem_payload(struct tq_body *body)
{
    return (struct broker_payload){.data = body->data,
                                   .len = body->len,
                                   .format = BROKER_PYTHON,
                                   .item_off = body->item_off,
                                   .item_len = body->item_len,
                                   .body = body};
}

static void call_put_get(struct peer *p, const struct tq_py_request *r, const struct pyobject *o,
                         const struct pycall *c)
{
    bool put = c->method == PY_METHOD_PUT || c->method == PY_METHOD_PUT_NOWAIT;
    struct broker_event ev = {.kind = put ? BROKER_PUT : BROKER_GET, .queue = o->queue};
    bool looks = !put || broker_queue_conf(o->queue)->maxsize > 0;
    char text[PYCALL_TEXT_MAX];
    struct tq_body *body = NULL;
    const char *why = NULL;
    int rv;

    if (!shut_down_first(o, put)) {
        switch (pycall_wait(c, r, looks, &ev.wait_mode, &ev.wait_ms, text)) {
        case PYCALL_WAIT_OK:
            break;
        case PYCALL_WAIT_OVERFLOW:
            p->python->call_overflow = true;
            break;
        case PYCALL_WAIT_VALUE_ERROR:
            pypeer_error(p, TQ_PY_VALUE_ERROR, "'timeout' must be a non-negative number");
            return;
        case PYCALL_WAIT_TYPE_ERROR:
            pypeer_error(p, TQ_PY_TYPE_ERROR, text);
            return;
        }
    }
    if (put) {
        rv = tq_item_from_request(&r->pickle, pycall_item(c), &body);
        if (rv != TQ_OK) {
            why = rv == TQ_ENOMEM ? "task-master is out of memory" : "the item's pickle cannot be kept";
            pypeer_error(p, rv == TQ_ENOMEM ? TQ_PY_MEMORY_ERROR : TQ_PY_VALUE_ERROR, why);
            return;
        }
        ev.payload = pyitem_payload(body);
    }
    step(p, &ev);
    tq_body_unref(body); /* the broker has a reference of its own, or a copy */
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
        (void)pypeer_send(
            p, tq_py_reply_unserializable(pypeer_scratch(p), "cannot pickle '_thread.lock' object"));
        return;
    default:
        TQ_ASSERT(false);
    }
    step(p, &ev);
}

static void not_exposed(struct peer *p, struct tq_span function)
{
    char text[PYPEER_SHOWN_MAX + 240];
    char quoted[PYPEER_SHOWN_MAX];

    snprintf(
        text, sizeof(text),
        "AttributeError: method '%s' of <class 'queue.Queue'> object is not in exposed=('empty', 'full', "
        "'get', 'get_nowait', 'join', 'put', 'put_nowait', 'qsize', 'shutdown', 'task_done')",
        pypeer_shown(quoted, function));
    pypeer_traceback(p, text);
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
    p->python->call_overflow = false;
    if (o == NULL) {
        pypeer_key_error(p, r->ident_none ? tq_span_str("None") : r->ident,
                         "this task-master has no such object (any more)");
        return;
    }
    if (method == PY_METHOD_NONE) {
        not_exposed(p, r->function);
        return;
    }
    if (!may_call(p, method, o->queue))
        return;
    p->python->call_method = (uint8_t)method;
    p->python->call_queue = o->queue;
    key.object = o->number;
    pyrefs_session_use(&s->refs, &p->python->refs, key,
                       method == PY_METHOD_GET || method == PY_METHOD_GET_NOWAIT);
    if (pycall_bind(&c, r, method, text) != 0)
        pypeer_error(p, TQ_PY_TYPE_ERROR, text);
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
        pypeer_error(p, TQ_PY_MEMORY_ERROR, "task-master is out of memory");
        return;
    }
    p->server->counters.protocol_errors++;
    tq_log(TQ_LOG_WARN, "BAD-REQUEST", "peer=%s why=\"%s\"", peer_text(p), why);
    snprintf(text, sizeof(text), "UnpicklingError: %s", why);
    pypeer_traceback(p, text);
}

void pydialect_frame(struct peer *p, struct tq_span frame)
{
    struct tq_py_request r;
    const char *why = "";
    int rv;

    if (frame.len == 0) { /* Python's server ends the session at it, too */
        p->server->counters.protocol_errors++;
        tq_log(TQ_LOG_WARN, "PEER-PROTOCOL", "peer=%s: an empty frame", peer_text(p));
        peer_close(p, "an empty frame");
        return;
    }
    if (pydialect_waits(p)) {
        /* Python sends behind a waiting call only after Ctrl-C: it has given the call up, and would take its
         * reply for this request's. */
        struct broker_event ev = {.kind = BROKER_CANCEL, .session = &p->python->endpoint.session};

        p->server->counters.canceled_calls++;
        (void)server_step(p->server, &ev);
    }
    rv = tq_py_request_parse(&r, frame, &why);
    if (rv != TQ_OK)
        bad_request(p, rv, why);
    else if (p->state == PEER_FIRST)
        pycontrol_request(p, &r);
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

void pydialect_written(struct peer *p)
{
    struct broker_event ev = {.kind = BROKER_DELIVERED};

    if (!has_session(p) || !p->python->wants_delivered)
        return;
    p->python->wants_delivered = false;
    ev.session = &p->python->endpoint.session;
    (void)server_step(p->server, &ev);
}

static void bounce(struct peer *p, const struct broker_effect *fx)
{
    struct broker_event ev = {
        .kind = BROKER_BOUNCE, .session = &p->python->endpoint.session, .id = fx->id, .epoch = fx->epoch};

    (void)server_step(p->server, &ev);
}

/* Not an item of Python's own. False: it is not handed over, and the call has its error. */
static bool compose_handed(struct peer *p, const struct broker_effect *fx, const struct broker_view *v)
{
    int rv = pyhanded_reply(v, pypeer_scratch(p));

    if (rv == PYHANDED_VALUE)
        return true;
    if (rv == PYHANDED_BYTES) {
        tq_log(TQ_LOG_WARN, "NOT-FOR-PYTHON",
               "peer=%s task=%llu queue=%s: it has no Python form, and is handed out as bytes of msgpack",
               peer_text(p), (unsigned long long)v->id, v->queue != NULL ? broker_queue_name(v->queue) : "-");
        return true;
    }
    bounce(p, fx); /* whoever calls next may find memory for it */
    pypeer_error(p, TQ_PY_MEMORY_ERROR, "task-master has no memory to hand this item out; it stays queued");
    return false;
}

static void deliver(struct peer *p, const struct broker_effect *fx)
{
    struct broker_view v;
    bool sent;

    if (!broker_view_lease(p->server->broker, fx, &v)) {
        pypeer_error(p, TQ_PY_RUNTIME_ERROR,
                     "the item was removed while it was handed out; get the next one");
        return;
    }
    if (!pyhanded_is_frame(&v)) {
        if (!compose_handed(p, fx, &v))
            return;
        p->python->wants_delivered = true;
        sent = pypeer_send(p, TQ_OK);
    } else {
        p->python->wants_delivered = true;
        sent = peer_send(p, tq_span(v.payload.data, v.payload.len),
                         v.payload.body != NULL ? tq_body_ref(v.payload.body) : NULL);
    }
    if (sent)
        pydialect_written(p);
}

static void reply_effect(struct peer *p, const struct broker_effect *fx)
{
    bool gone = p->state != PEER_SESSION || !p->python->broker_open;

    if (gone || p->write != NULL || (fx->was_parked && !peer_still_waits(p))) {
        /* Nobody waits for this reply any more: an item goes to the next in line, at once. */
        if (!gone && fx->outcome == BROKER_REPLY_ITEM)
            bounce(p, fx);
        return;
    }
    switch (fx->outcome) {
    case BROKER_REPLY_NONE:
        pypeer_none(p);
        break;
    case BROKER_REPLY_BOOL:
        (void)pypeer_send(p, tq_py_reply_bool(pypeer_scratch(p), fx->number != 0));
        break;
    case BROKER_REPLY_INT:
        (void)pypeer_send(p, tq_py_reply_int(pypeer_scratch(p), fx->number));
        break;
    case BROKER_REPLY_ITEM:
        deliver(p, fx);
        break;
    case BROKER_REPLY_EMPTY:
    case BROKER_REPLY_FULL:
        if (p->python->call_overflow)
            pypeer_error(p, TQ_PY_OVERFLOW_ERROR, "timestamp out of range for platform time_t");
        else
            pypeer_error(p, fx->outcome == BROKER_REPLY_EMPTY ? TQ_PY_EMPTY : TQ_PY_FULL, NULL);
        break;
    case BROKER_REPLY_SHUTDOWN:
        pypeer_error(p, TQ_PY_SHUTDOWN, NULL);
        break;
    case BROKER_REPLY_TOO_MANY_DONE:
        pypeer_error(p, TQ_PY_VALUE_ERROR, "task_done() called too many times");
        break;
    case BROKER_REPLY_TYPE_ERROR:
        pypeer_error(p, TQ_PY_TYPE_ERROR, fx->text != NULL ? fx->text : "items that cannot be ordered");
        break;
    case BROKER_REPLY_TOO_MANY_HELD:
        pypeer_error(p, TQ_PY_RUNTIME_ERROR,
                     "this session holds too many items that it has not acknowledged: call task_done(), or "
                     "raise --max-held-per-session");
        break;
    case BROKER_REPLY_NO_MEMORY:
        pypeer_error(p, TQ_PY_MEMORY_ERROR, "task-master is out of memory");
        break;
    default:
        TQ_ASSERT(false); /* native sessions get the others */
    }
}

static void on_effect(struct endpoint *ep, struct broker_effect *fx)
{
    struct peer *p = ((struct pypeer *)(void *)ep)->peer;

    reply_effect(p, fx);
    peer_resume_later(p);
}

/* ---- the end of a session ---- */

static void end_session(struct peer *p, enum broker_close_mode mode)
{
    struct pypeer *py = p->python;
    struct broker_event ev = {
        .kind = BROKER_SESSION_CLOSE, .session = &py->endpoint.session, .close_mode = mode};
    const struct broker_queue *queue;
    uint32_t held = broker_session_held(&py->endpoint.session, &queue);

    if (mode == BROKER_CLOSE_RETURN && held > 0) {
        p->server->counters.returned_items += held;
        tq_log(TQ_LOG_INFO, "WORKER-DIED", "peer=%s items=%u: back to the front of their queue", peer_text(p),
               held);
    }
    py->broker_open = false;
    (void)server_step(p->server, &ev);
}

bool pydialect_closed(struct peer *p)
{
    struct server *s = p->server;
    struct broker_event cancel = {.kind = BROKER_CANCEL};
    const struct broker_queue *queue;
    enum pyrefs_verdict verdict;
    struct pypeer *py;

    if (!has_session(p))
        return false;
    py = p->python;
    if (p->revoked) { /* nobody with its key can say farewell any more */
        pyrefs_session_forget(&s->refs, &py->refs);
        end_session(p, BROKER_CLOSE_RETURN);
        return false;
    }
    verdict = pyrefs_session_end(&s->refs, &py->refs, broker_session_held(&py->endpoint.session, &queue) > 0,
                                 !s->stopped && (halfopen_count_of(&s->halfopen, &p->addr) > 0 ||
                                                 pyrefs_farewell_lately(&s->refs, server_now_ms(s))),
                                 server_now_ms(s));
    if (verdict == PYREFS_UNSURE) {
        if (tq_deadline_set(&s->deadlines, &p->deadline, server_now_ms(s) + PYREFS_WAIT_MS) == TQ_OK) {
            cancel.session = &py->endpoint.session;
            (void)server_step(s, &cancel); /* a call that waits ends now in any case */
            return true;
        }
        pyrefs_session_over(&s->refs, &py->refs);
        verdict = PYREFS_DIED;
    }
    end_session(p, verdict == PYREFS_LEFT ? BROKER_CLOSE_ACK : BROKER_CLOSE_RETURN);
    return false;
}

void pydialect_limbo_over(struct peer *p, enum broker_close_mode mode)
{
    if (p->revoked)
        pyrefs_session_forget(&p->server->refs, &p->python->refs);
    else
        pyrefs_session_over(&p->server->refs, &p->python->refs);
    end_session(p, mode);
    peer_limbo_done(p);
}

void pydialect_free(struct peer *p)
{
    struct pypeer *py = session_of(p);

    if (py == NULL)
        return;
    TQ_ASSERT(!py->broker_open);
    tq_free(py);
    p->python = NULL;
}
