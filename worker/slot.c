#include "worker/slot.h"

#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/native/convert.h"
#include "proto/native/mp.h"
#include "worker/agent.h"

#define CALL_MS          10000 /* reply to a call that does not wait */
#define GET_GRACE_MS     10000 /* beyond the timeout that the get carries */
#define IDENT_MAX_BYTES  256
#define RESULT_MAX_BYTES (1u << 20)
#define TASK_MAX_BYTES   INT32_MAX

/* The steps of JOIN, in stock Python's order; the last is the session. */
enum join_step {
    JOIN_DUMMY,
    JOIN_CREATE_FROM,
    JOIN_INCREF_FROM,
    JOIN_DECREF_FROM,
    JOIN_CREATE_TO,
    JOIN_INCREF_TO,
    JOIN_DECREF_TO,
    JOIN_SESSION,
};

enum leave_step { LEAVE_DECREF_FROM, LEAVE_DECREF_TO, LEAVE_DONE };

static void join(struct slot *s);
static void join_step(struct slot *s);
static void leave_step(struct slot *s);
static void next(struct slot *s);

/* ---- state ---- */

static void enter(struct slot *s, enum slot_state to)
{
#define TO(x) (1u << (SLOT_##x))
    static const unsigned allowed[] = {
        [SLOT_NEW] = TO(JOIN) | TO(CLOSING),
        [SLOT_JOIN] = TO(JOIN) | TO(POLL) | TO(PUT) | TO(LEAVE) | TO(CLOSING),
        [SLOT_POLL] = TO(POLL) | TO(JOIN) | TO(RUN) | TO(LEAVE) | TO(CLOSING),
        [SLOT_RUN] = TO(JOIN) | TO(PUT) | TO(CLOSING),
        [SLOT_PUT] = TO(JOIN) | TO(POLL) | TO(LEAVE) | TO(CLOSING),
        [SLOT_LEAVE] = TO(CLOSING),
        [SLOT_CLOSING] = TO(GONE),
    };
#undef TO

    TQ_ASSERT(s->state < SLOT_GONE && (allowed[s->state] & 1u << to) != 0);
    s->state = to;
}

static void maybe_gone(struct slot *s)
{
    if (s->state != SLOT_CLOSING || s->running || !pym_conn_is_idle(&s->session) ||
        !pym_conn_is_idle(&s->control))
        return;
    enter(s, SLOT_GONE);
    agent_on_part_gone(s->agent);
}

void slot_abort(struct slot *s)
{
    if (s->state == SLOT_CLOSING || s->state == SLOT_GONE)
        return;
    enter(s, SLOT_CLOSING);
    if (s->running)
        s->agent->runner->ops->cancel(s->agent->runner, &s->job);
    pym_conn_close(&s->control);
    pym_conn_close(&s->session);
    maybe_gone(s);
}

bool slot_is_busy(const struct slot *s)
{
    return s->running || s->has_result;
}

static bool over(const struct slot *s)
{
    return s->state == SLOT_CLOSING || s->state == SLOT_GONE;
}

static void no_memory(struct slot *s)
{
    agent_on_trouble(s->agent, AGENT_TROUBLE_PEER, LINK_OUT_OF_MEMORY, "out of memory");
    slot_abort(s);
}

/* ---- replies ---- */

/* Why a call was refused, in the peer's words: the class of the exception, or the last line of the text. */
static void read_reason(struct slot *s, const struct tq_py_reply *r)
{
    struct tq_span text = r->kind_text;
    struct tq_pk_value v;

    if (r->kind == TQ_PY_REPLY_ERROR && r->error_name.len > 0)
        text = r->error_name;
    else if (r->kind == TQ_PY_REPLY_TRACEBACK && tq_pk_decode(&r->pickle, r->value, &v) == TQ_OK &&
             v.kind == TQ_PK_STR)
        text = v.bytes;
    while (text.len > 0 && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == '-'))
        text.len--;
    for (size_t i = text.len; i > 0; i--)
        if (text.data[i - 1] == '\n') {
            text = tq_span(text.data + i, text.len - i);
            break;
        }
    tq_log_quote(s->reason, sizeof(s->reason), text.data, text.len);
}

/* Parses; s->refused and s->reason tell whether it was #RETURN. TQ_EPROTO, TQ_ENOMEM: nothing to deinit. */
static int parse_reply(struct slot *s, struct tq_py_reply *r, struct tq_span frame)
{
    const char *why;
    int rv = tq_py_reply_parse(r, frame, &why);

    s->unreadable = rv != TQ_OK;
    if (rv != TQ_OK) {
        snprintf(s->reason, sizeof(s->reason), "a reply that cannot be read: %s",
                 rv == TQ_EPROTO ? why : tq_strerror(rv));
        s->refused = true;
        return rv;
    }
    s->refused = r->kind != TQ_PY_REPLY_RETURN;
    s->unreadable = r->kind == TQ_PY_REPLY_OTHER;
    if (s->refused)
        read_reason(s, r);
    return TQ_OK;
}

/* (ident, exposed) */
static int read_ident(struct tq_buf *ident, const struct tq_py_reply *r)
{
    struct tq_pk_range *list = NULL;
    struct tq_pk_value v;
    uint32_t count;
    int rv = tq_pk_children(&r->pickle, r->value, &list, &count);

    if (rv == TQ_OK && count != 2)
        rv = TQ_EPROTO;
    if (rv == TQ_OK)
        rv = tq_pk_decode(&r->pickle, list[0], &v);
    if (rv == TQ_OK && (v.kind != TQ_PK_STR || v.escaped || v.bytes.len == 0))
        rv = TQ_EPROTO;
    if (rv == TQ_OK) {
        tq_buf_clear(ident);
        rv = tq_buf_append(ident, v.bytes.data, v.bytes.len);
    }
    tq_free(list);
    return rv;
}

/* ---- control calls: each on a connection of its own ---- */

static void take_control_reply(struct slot *s, struct tq_span frame)
{
    struct tq_py_reply r;
    int rv;

    if (parse_reply(s, &r, frame) != TQ_OK)
        return;
    if (!s->refused && s->state == SLOT_JOIN && (s->step == JOIN_CREATE_FROM || s->step == JOIN_CREATE_TO)) {
        rv = read_ident(s->step == JOIN_CREATE_FROM ? &s->from_ident : &s->to_ident, &r);
        if (rv != TQ_OK) {
            s->refused = true;
            s->unreadable = true;
            snprintf(s->reason, sizeof(s->reason), "not an answer to create: %s", tq_strerror(rv));
        }
    }
    tq_py_reply_deinit(&r);
}

/* The queue has no such name: get_X was asked first, X comes next, then nothing is left. */
static void create_refused(struct slot *s, bool from)
{
    struct agent *a = s->agent;
    bool *plain = from ? &a->from_plain : &a->to_plain;
    char text[LINK_TEXT_MAX];

    if (!s->tried_plain) {
        s->tried_plain = true;
        *plain = !*plain;
        join_step(s);
        return;
    }
    snprintf(text, sizeof(text), "%s has no queue '%s' (%.100s): name one that it has by --%s", a->peer.name,
             from ? a->conf->from : a->conf->to, s->reason, from ? "from" : "to");
    *plain = false;
    agent_on_trouble(a, AGENT_TROUBLE_QUEUE, LINK_FINE, text);
    if (!over(s))
        join(s);
}

static void join_step_done(struct slot *s)
{
    struct agent *a = s->agent;
    char text[LINK_TEXT_MAX];

    if (s->refused && !s->unreadable && (s->step == JOIN_CREATE_FROM || s->step == JOIN_CREATE_TO)) {
        create_refused(s, s->step == JOIN_CREATE_FROM);
        return;
    }
    if (s->refused) {
        snprintf(text, sizeof(text), "%s refused a call: %s", a->peer.name, s->reason);
        agent_on_trouble(a, AGENT_TROUBLE_CALL, LINK_FINE, text);
        if (!over(s))
            join(s);
        return;
    }
    s->from_held |= s->step == JOIN_INCREF_FROM;
    s->to_held |= s->step == JOIN_INCREF_TO;
    s->tried_plain = false;
    s->step++;
    join_step(s);
}

static void on_control_event(struct pym_conn *c, enum pym_event ev, struct tq_span frame)
{
    struct slot *s = TICK_OWNER(c, struct slot, control);

    switch (ev) {
    case PYM_OPEN:
        (void)pym_conn_call(c, tq_buf_span(&s->request), CALL_MS); /* if it fails, PYM_CLOSED says so */
        return;
    case PYM_REPLY:
        take_control_reply(s, frame);
        pym_conn_close(c);
        return;
    case PYM_CLOSED:
        break;
    }
    if (s->state == SLOT_LEAVE) {
        s->step = c->link.failure == LINK_FINE ? s->step + 1 : LEAVE_DONE;
        leave_step(s);
    } else if (s->state == SLOT_JOIN && c->link.failure == LINK_FINE) {
        join_step_done(s);
    } else if (s->state == SLOT_JOIN) {
        agent_on_trouble(s->agent, AGENT_TROUBLE_PEER, c->link.failure, c->link.text);
        if (!over(s))
            join(s);
    }
    maybe_gone(s);
}

static void start_control(struct slot *s, const char *function, const struct tq_span *arg)
{
    int rv;

    s->refused = false;
    tq_buf_clear(&s->request);
    rv = tq_py_call_control(&s->request, function, arg, arg != NULL ? 1 : 0);
    if (rv == TQ_OK)
        rv = pym_conn_open(&s->control, &s->agent->peer, on_control_event);
    if (rv != TQ_OK)
        no_memory(s);
}

static void start_create(struct slot *s, bool from)
{
    const struct agent *a = s->agent;
    bool plain = from ? a->from_plain : a->to_plain;
    char typeid[AGENT_TYPEID_MAX + 8];
    struct tq_span arg;

    snprintf(typeid, sizeof(typeid), "%s%s", plain ? "" : "get_", from ? a->conf->from : a->conf->to);
    arg = tq_span_str(typeid);
    start_control(s, "create", &arg);
}

/* ---- the session ---- */

/* What becomes of a result when the session ended before its put was answered:
 *
 * The put was written, wholly or in part: it may have been done. It is not sent again, or the task could be
 * answered twice; it is lost if the server never read what the kernel took.
 *
 * The put was not written: a Python server forgot the task when it answered the get, and the result is the
 * only trace of it, so it is kept and put after the next join. */
static void settle_result(struct slot *s)
{
    if (!s->has_result)
        return;
    if (s->put_written) {
        tq_log(TQ_LOG_WARN, "PUT-UNKNOWN",
               "peer=%s effect=\"the connection ended before a result was "
               "confirmed; it is not sent again\"",
               s->agent->peer.name);
        s->has_result = false;
    }
    s->put_written = false;
}

static void on_session_closed(struct slot *s)
{
    struct agent *a = s->agent;
    const struct pym_conn *c = &s->session;

    s->session_up = false;
    if (s->state == SLOT_LEAVE || over(s)) {
        maybe_gone(s);
        return;
    }
    if (s->state == SLOT_POLL && c->link.failure != LINK_FINE)
        agent_return_turns(a, 1);
    if (!s->running)
        settle_result(s);
    /* A master that ends once it has its last result is no trouble for a worker that wanted no more. */
    if (c->link.failure != LINK_FINE && (slot_is_busy(s) || agent_wants_tasks(a)))
        agent_on_trouble(a, AGENT_TROUBLE_PEER, c->link.failure, c->link.text);
    if (over(s))
        return;
    if (!s->running)
        join(s);
}

/* The peer answered a call of the session with something that is no answer; the session ends. */
static void session_refused(struct slot *s, const char *call)
{
    char text[LINK_TEXT_MAX];

    snprintf(text, sizeof(text), "%s refused a %s: %s", s->agent->peer.name, call, s->reason);
    agent_on_trouble(s->agent, AGENT_TROUBLE_CALL, LINK_FINE, text);
    pym_conn_close(&s->session);
}

/* Starts the job. The task becomes msgpack, as runners want it. */
static int start_job(struct slot *s, const struct tq_py_reply *r)
{
    struct agent *a = s->agent;
    struct tq_buf value = TQ_BUF_NULL(TASK_MAX_BYTES);
    struct tq_body *item = NULL;
    struct runner_task task;
    int rv = tq_item_from_request(&r->pickle, r->value, &item);

    if (rv == TQ_OK)
        rv = tq_convert_to_msgpack(tq_span(item->data, item->len), item->item_off, item->item_len,
                                   TASK_MAX_BYTES, &value);
    tq_body_unref(item);
    if (rv == TQ_OK) {
        task = (struct runner_task){.body = tq_buf_span(&value)};
        rv = a->runner->ops->start(a->runner, &s->job, &task);
    }
    tq_buf_deinit(&value);
    return rv;
}

static void take_poll_reply(struct slot *s, struct tq_span frame)
{
    struct agent *a = s->agent;
    struct tq_py_reply r;
    int rv;

    if (parse_reply(s, &r, frame) != TQ_OK) {
        session_refused(s, "get");
        return;
    }
    if (!s->refused) {
        agent_on_task(a);
        enter(s, SLOT_RUN);
        rv = start_job(s, &r);
        s->running = rv == TQ_OK;
        if (rv != TQ_OK) {
            snprintf(s->reason, sizeof(s->reason), "%s", tq_strerror(rv));
            tq_log(TQ_LOG_ERROR, "TASK-FAILED", "reason=\"%s\"", s->reason);
            pym_conn_close(&s->session);
        }
        tq_py_reply_deinit(&r);
        return;
    }
    if (tq_py_reply_is_empty_error(&r)) {
        agent_on_empty(a, 1);
        tq_py_reply_deinit(&r);
        next(s);
        return;
    }
    tq_py_reply_deinit(&r);
    session_refused(s, "get");
}

static void take_put_reply(struct slot *s, struct tq_span frame)
{
    struct tq_py_reply r;

    if (parse_reply(s, &r, frame) == TQ_OK)
        tq_py_reply_deinit(&r);
    s->put_written = false; /* it was answered: done, or for certain not done */
    if (s->refused) {
        session_refused(s, "put");
        return;
    }
    s->has_result = false;
    next(s);
}

static void take_accept_reply(struct slot *s, struct tq_span frame)
{
    struct tq_py_reply r;

    if (parse_reply(s, &r, frame) == TQ_OK)
        tq_py_reply_deinit(&r);
    if (s->refused) {
        session_refused(s, "session");
        return;
    }
    s->session_up = true;
    agent_on_up(s->agent, true);
    next(s);
}

static void on_session_event(struct pym_conn *c, enum pym_event ev, struct tq_span frame)
{
    struct slot *s = TICK_OWNER(c, struct slot, session);
    struct tq_span name = tq_span_str(s->agent->conf->name);

    switch (ev) {
    case PYM_OPEN:
        tq_buf_clear(&s->request);
        if (tq_py_call_control(&s->request, "accept_connection", &name, 1) != TQ_OK)
            no_memory(s);
        else
            (void)pym_conn_call(c, tq_buf_span(&s->request), CALL_MS);
        return;
    case PYM_REPLY:
        if (s->state == SLOT_JOIN)
            take_accept_reply(s, frame);
        else if (s->state == SLOT_POLL)
            take_poll_reply(s, frame);
        else if (s->state == SLOT_PUT)
            take_put_reply(s, frame);
        return;
    case PYM_CLOSED:
        on_session_closed(s);
        return;
    }
}

static void poll(struct slot *s)
{
    const struct agent_conf *conf = s->agent->conf;

    enter(s, SLOT_POLL);
    tq_buf_clear(&s->request);
    if (tq_py_call_get(&s->request, tq_buf_span(&s->from_ident), (double)conf->poll_timeout_ms / 1000) !=
        TQ_OK)
        no_memory(s);
    else
        (void)pym_conn_call(&s->session, tq_buf_span(&s->request), conf->poll_timeout_ms + GET_GRACE_MS);
}

/* A failure is text to Python's own masters, which have no other word for it. */
static int as_item(const struct slot *s, struct tq_buf *frame, struct tq_item_frame *ret)
{
    struct tq_buf text = TQ_BUF_NULL(RESULT_MAX_BYTES + 16);
    struct tq_mp_out o = tq_mp_out(&text);
    int rv;

    if (s->failed)
        tq_mp_put_str(&o, tq_buf_span(&s->job.result));
    else
        tq_mp_put_raw(&o, tq_buf_span(&s->job.result));
    rv = o.err;
    if (rv == TQ_OK)
        rv = tq_convert_to_python(tq_buf_span(&text), frame, &ret->item_off, &ret->item_len);
    ret->frame = tq_buf_span(frame);
    tq_buf_deinit(&text);
    return rv;
}

static int write_put(struct slot *s)
{
    struct tq_buf frame = TQ_BUF_NULL(2 * RESULT_MAX_BYTES);
    struct tq_item_frame item;
    int rv = as_item(s, &frame, &item);

    if (rv == TQ_OK)
        rv = tq_py_call_put_item(&s->request, tq_buf_span(&s->to_ident), &item);
    tq_buf_deinit(&frame);
    return rv;
}

/* No time limit: a put into a full queue waits as long as the queue is full. */
static void put(struct slot *s)
{
    int rv;

    enter(s, SLOT_PUT);
    tq_buf_clear(&s->request);
    rv = write_put(s);
    if (rv == TQ_OK) {
        s->put_written = pym_conn_call(&s->session, tq_buf_span(&s->request), 0) == TQ_OK;
    } else if (rv == TQ_ENOMEM) {
        no_memory(s);
    } else {
        tq_log(TQ_LOG_ERROR, "TASK-FAILED", "reason=\"its result is nothing for Python: %s\"",
               tq_strerror(rv));
        s->has_result = false;
        pym_conn_close(&s->session);
    }
}

static void on_job_done(struct runner_job *job, int status)
{
    struct slot *s = TICK_OWNER(job, struct slot, job);

    s->running = false;
    if (over(s)) {
        maybe_gone(s);
        return;
    }
    s->has_result = status >= 0;
    s->failed = status == RUNNER_FAILED;
    if (status < 0 && status != TQ_ECANCELED)
        tq_log(TQ_LOG_ERROR, "TASK-FAILED", "reason=\"%s\"", tq_strerror(status));
    if (!s->session_up) {
        settle_result(s);
        join(s);
    } else if (s->has_result) {
        put(s);
    } else {
        pym_conn_close(&s->session);
    }
}

/* ---- the round ---- */

/* The session is up and nothing is asked on it. */
static void next(struct slot *s)
{
    if (s->has_result) {
        put(s);
    } else if (agent_turns(s->agent) > 0) {
        agent_take_turns(s->agent, 1);
        poll(s);
    } else {
        enter(s, SLOT_LEAVE);
        s->step = LEAVE_DECREF_FROM;
        leave_step(s);
    }
}

static void join(struct slot *s)
{
    if (!s->has_result && !agent_wants_tasks(s->agent)) {
        slot_abort(s);
        return;
    }
    enter(s, SLOT_JOIN);
    s->step = JOIN_DUMMY;
    s->tried_plain = false;
    /* References taken at a server that is gone are gone with it; at one that is not, they stay, as those of
     * a Python process that was killed do. */
    s->from_held = false;
    s->to_held = false;
    join_step(s);
}

static void join_step(struct slot *s)
{
    struct tq_span from = tq_buf_span(&s->from_ident);
    struct tq_span to = tq_buf_span(&s->to_ident);

    switch ((enum join_step)s->step) {
    case JOIN_DUMMY:
        start_control(s, "dummy", NULL);
        break;
    case JOIN_CREATE_FROM:
        start_create(s, true);
        break;
    case JOIN_INCREF_FROM:
        start_control(s, "incref", &from);
        break;
    case JOIN_DECREF_FROM:
        start_control(s, "decref", &from);
        break;
    case JOIN_CREATE_TO:
        start_create(s, false);
        break;
    case JOIN_INCREF_TO:
        start_control(s, "incref", &to);
        break;
    case JOIN_DECREF_TO:
        start_control(s, "decref", &to);
        break;
    case JOIN_SESSION:
        if (pym_conn_open(&s->session, &s->agent->peer, on_session_event) != TQ_OK)
            no_memory(s);
        break;
    }
}

/* Both decrefs go out before the session closes: by them the master sees that it was left, not lost. */
static void leave_step(struct slot *s)
{
    struct tq_span from = tq_buf_span(&s->from_ident);
    struct tq_span to = tq_buf_span(&s->to_ident);

    if (s->step == LEAVE_DECREF_FROM && !s->from_held)
        s->step++;
    if (s->step == LEAVE_DECREF_TO && !s->to_held)
        s->step++;
    /* Whoever is not there needs no farewell. */
    if (link_peer_is_down(&s->agent->peer))
        s->step = LEAVE_DONE;
    if (s->step == LEAVE_DECREF_FROM)
        start_control(s, "decref", &from);
    else if (s->step == LEAVE_DECREF_TO)
        start_control(s, "decref", &to);
    else
        slot_abort(s);
}

void slot_start(struct slot *s)
{
    join(s);
}

void slot_stop(struct slot *s)
{
    switch (s->state) {
    case SLOT_NEW:
        slot_abort(s);
        break;
    case SLOT_JOIN:
        /* Once it may hold references it goes on, so as to leave in good order. */
        if (!s->has_result && (s->step == JOIN_DUMMY || link_peer_is_down(&s->agent->peer)))
            slot_abort(s);
        break;
    case SLOT_POLL:
        /* The get that waits could still be answered with a task, which a Python server would lose if we went
         * away. */
        break;
    default:
        break;
    }
}

void slot_init(struct slot *s, struct agent *a)
{
    *s = (struct slot){.agent = a};
    tq_buf_init(&s->request, 2 * RESULT_MAX_BYTES + 4096);
    tq_buf_init(&s->from_ident, IDENT_MAX_BYTES);
    tq_buf_init(&s->to_ident, IDENT_MAX_BYTES);
    tq_buf_init(&s->job.result, RESULT_MAX_BYTES);
    s->job.on_done = on_job_done;
}

void slot_deinit(struct slot *s)
{
    TQ_ASSERT(s->state == SLOT_NEW || s->state == SLOT_GONE);
    tq_buf_deinit(&s->request);
    tq_buf_deinit(&s->from_ident);
    tq_buf_deinit(&s->to_ident);
    tq_buf_deinit(&s->job.result);
}
