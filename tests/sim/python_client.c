/* Python's clients: one call at a time, through the events that the master's Python dialect makes of them.
 * What they hold is done with at their next sign of progress; the model hears of each call here. */
#include <inttypes.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/endpoint.h"
#include "proto/python/emit.h"
#include "tests/sim/sim.h"

enum phase { P_IDLE, P_WORKING, P_PUT, P_DONE };

struct sim_python {
    struct endpoint endpoint; /* first */
    struct sim_actor *actor;
    bool open, waits, dead;
    int session, conn; /* the model's */
    enum phase phase;
    int call;     /* the model's call of a get; M_NONE: none */
    int put_item; /* of a put that is not answered; M_NONE: none */
    bool calling; /* the reply is to come now, or the call waits */
    bool held;    /* it has come, and waits for the disk */
    bool sealed, gave_item;
    bool is_new_work; /* its put: it held nothing */
    struct sim_held need;
    int q; /* of what it has */
    uint64_t id;
    uint32_t epoch;
    int task;
};

static void step(struct sim_python *p, struct broker_event *ev)
{
    struct sim *s = p->actor->sim;
    int rv;

    ev->session = &p->endpoint.session;
    rv = s->host.step(s, ev);
    TQ_ASSERT(rv == TQ_OK);
}

/* ---- what the model hears ---- */

/* The session's leases: of explicit queues, or the others; the newest, or the oldest. */
static struct m_item *held(struct sim_python *p, bool of_explicit, bool is_newest)
{
    struct model *m = p->actor->sim->model;
    struct m_item *found = NULL;

    for (int i = 0; i < m->live_count; i++) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->state == M_LEASED && t->session == p->session &&
            (m->q[t->q].ack == BROKER_ACK_EXPLICIT) == of_explicit &&
            (found == NULL || (t->held_seq > found->held_seq) == is_newest))
            found = t;
    }
    return found;
}

static int held_count(const struct sim_python *p)
{
    const struct model *m = p->actor->sim->model;
    int count = 0;

    for (int i = 0; i < m->live_count; i++) {
        const struct m_item *t = &m->items[m->live[i]];

        count += t->state == M_LEASED && t->session == p->session && m->q[t->q].ack != BROKER_ACK_EXPLICIT;
    }
    return count;
}

static void delivered(struct sim_python *p)
{
    struct model *m = p->actor->sim->model;

    for (int i = m->live_count - 1; i >= 0; i--) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->state != M_LEASED || t->session != p->session || t->delivered)
            continue;
        t->delivered = true;
        if (m->q[t->q].ack == BROKER_ACK_GET)
            m_acknowledge(m, t);
    }
}

static void progress(struct sim_python *p)
{
    struct m_item *t;

    while ((t = held(p, false, false)) != NULL)
        m_acknowledge(p->actor->sim->model, t);
}

static void begin(struct sim_python *p)
{
    m_step_begins(p->actor->sim->model, false);
    delivered(p); /* or it would not call */
    p->calling = true;
}

/* ---- calls ---- */

static void get(struct sim_python *p, int q, enum broker_wait_mode mode, uint64_t wait_ms)
{
    struct sim *s = p->actor->sim;
    struct m_call *c;
    struct broker_event ev = {
        .kind = BROKER_GET, .queue = s->queues[q], .wait_mode = mode, .wait_ms = wait_ms};

    sim_note(s, "%s: get %s", p->actor->name, m_queue_names[q]);
    begin(p);
    progress(p);
    c = m_call_new(s->model, p->conn, 0, M_GET);
    c->is_get = true;
    c->q = p->q = q;
    c->max = 1;
    c->parked = mode != BROKER_NO_WAIT;
    c->must_answer = !c->parked;
    c->until = mode == BROKER_WAIT_MS ? s->now_ms + wait_ms : M_NEVER;
    p->call = (int)(c - s->model->calls);
    step(p, &ev);
    p->waits = p->calling;
    sim_after_step(s);
}

static struct tq_body *new_body(const char *text)
{
    struct tq_buf frame = TQ_BUF_NULL(4096);
    struct tq_body *body;
    struct tq_emit e;
    size_t from, to;
    int rv;

    tq_emit_begin(&e, &frame);
    tq_emit_cstr(&e, "#RETURN");
    from = frame.len;
    tq_emit_cstr(&e, text);
    to = frame.len;
    tq_emit_tuple_n(&e, 2);
    rv = tq_emit_end(&e);
    TQ_ASSERT(rv == TQ_OK);
    body = tq_body_new((uint32_t)frame.len);
    TQ_ASSERT(body != NULL);
    memcpy(body->data, frame.data, frame.len);
    body->item_off = (uint32_t)from;
    body->item_len = (uint32_t)(to - from);
    body->flavor = TQ_BODY_PYTHON_REPLY;
    tq_buf_deinit(&frame);
    return body;
}

/* Is this put the result of what the session has? */
static struct m_item *result_of(struct sim_python *p, int q)
{
    const struct model *m = p->actor->sim->model;
    struct m_item *t = held(p, false, true);

    if (held_count(p) != 1 || !t->delivered || m->q[t->q].ack != BROKER_ACK_AUTO || t->kind != M_TASK)
        return NULL;
    /* Where the worker thinks that it goes, or where it goes. */
    return m->q[t->q].result == q || t->own == q ? t : NULL;
}

static void put(struct sim_python *p, int q, bool is_result, uint64_t wait_ms)
{
    struct sim *s = p->actor->sim;
    char text[SIM_TAG_LEN + 1];
    int value = sim_value(s, text);
    struct tq_body *body = new_body(text);
    struct m_item *task;
    struct broker_event ev = {.kind = BROKER_PUT,
                              .queue = s->queues[q],
                              .wait_mode = wait_ms > 0 ? BROKER_WAIT_MS : BROKER_NO_WAIT,
                              .wait_ms = wait_ms,
                              .payload = {.data = body->data,
                                          .len = body->len,
                                          .format = BROKER_PYTHON,
                                          .item_off = body->item_off,
                                          .item_len = body->item_len,
                                          .body = body}};

    sim_note(s, "%s: put %s %s", p->actor->name, m_queue_names[q], text);
    begin(p);
    if (is_result) {
        s->model->computed[value].id = p->id;
        s->model->computed[value].epoch = p->epoch;
        s->model->computed[value].task = p->task;
    }
    task = result_of(p, q);
    p->put_item = M_NONE;
    if (task != NULL) {
        if (is_result && task->id != p->id)
            sim_fail(s, "the model mistakes a result");
        m_end_uncounted(s->model, task, value);
    } else {
        struct m_item *t = m_new(s->model, q, value);

        p->put_item = (int)(t - s->model->items);
        t->call = M_CALLS;
        t->lo = s->model->place;
        t->hi = INT64_MAX;
        p->is_new_work = !m_holds(s->model, p->session);
        if (s->model->q[q].maxsize == 0 && !(p->is_new_work && s->model->no_room)) {
            m_accept(s->model, t);
            progress(p);
        }
    }
    step(p, &ev);
    tq_body_unref(body);
    p->waits = p->calling;
    sim_after_step(s);
}

static void task_done(struct sim_python *p, int q)
{
    struct sim *s = p->actor->sim;
    struct broker_event ev = {.kind = BROKER_TASK_DONE, .queue = s->queues[q]};
    struct m_item *t;

    sim_note(s, "%s: task_done %s", p->actor->name, m_queue_names[q]);
    begin(p);
    progress(p);
    if (s->model->q[q].ack == BROKER_ACK_EXPLICIT && (t = held(p, true, false)) != NULL)
        m_acknowledge(s->model, t);
    m_unfinish(s->model, q);
    step(p, &ev);
    sim_after_step(s);
}

/* ---- what comes back ---- */

static void on_item(struct sim_python *p, const struct broker_effect *fx)
{
    static const char *const outcomes[] = {NULL, "ok", "failed", "expired", "lost", "canceled", "purged"};
    struct sim *s = p->actor->sim;
    struct broker_view v;
    struct m_handout h = {.id = fx->id, .epoch = fx->epoch, .attempt = fx->attempt, .value = M_NONE};

    if (!broker_view_lease(s->broker, fx, &v))
        sim_fail(s, "%s gets an item without a lease", p->actor->name);
    if (v.payload.data != NULL)
        h.value = sim_value_in(v.payload.data, v.payload.len);
    h.of = v.of != v.id ? v.of : 0;
    h.outcome = outcomes[v.outcome];
    (void)m_hand_out(s->model, p->q, p->session, &h);
    p->id = fx->id;
    p->epoch = fx->epoch;
    p->task = h.value;
    sim_note(s, "%s: got [%" PRIu64 ", %u]%s", p->actor->name, fx->id, fx->epoch,
             p->dead ? ", but is dead" : "");
}

/* The reply with the item is being written to its socket. */
static void write_item(struct sim_python *p)
{
    struct sim *s = p->actor->sim;
    struct broker_event ev = {.kind = BROKER_DELIVERED};

    if (p->dead && sim_chance(s, 500)) { /* the master saw so: to the next in line */
        struct m_item *t = m_lease(s->model, p->session, p->id, p->epoch);

        ev.kind = BROKER_BOUNCE;
        ev.id = p->id;
        ev.epoch = p->epoch;
        if (t != NULL) {
            t->session = M_NONE;
            m_to_front(s->model, t);
        }
        step(p, &ev);
        return;
    }
    if (sim_chance(s, 300))
        return; /* the socket is full: its next call will say that it came */
    delivered(p);
    step(p, &ev);
}

static void put_answered(struct sim_python *p, const struct broker_effect *fx)
{
    struct sim *s = p->actor->sim;
    struct m_item *t = &s->model->items[p->put_item];

    TQ_ASSERT(p->put_item >= 0);
    if (fx->outcome == BROKER_REPLY_NONE) {
        m_name(s->model, t, fx->id);
        if (t->state == M_PENDING) {
            int64_t lo = t->lo;

            m_accept(s->model, t);
            if (s->model->q[t->q].maxsize > 0)
                t->lo = lo;
            t->in_step = true;
            progress(p);
        }
    } else if (fx->outcome == BROKER_REPLY_FULL && t->state == M_PENDING) {
        const struct m_queue *q = &s->model->q[t->q];

        if (!(p->is_new_work && s->model->no_room) &&
            (q->maxsize == 0 ||
             q->counts[M_READY] + q->counts[M_DELAYED] + q->counts[M_PENDING] <= q->maxsize))
            sim_fail(s, "%s finds %s full, which it is not", p->actor->name, q->name);
        m_move(s->model, t, M_GONE, t->q);
    } else {
        sim_fail(s, "%s: put is answered by %d", p->actor->name, (int)fx->outcome);
    }
    p->put_item = M_NONE;
}

/* The client has its reply. */
static void arrive(struct sim_python *p)
{
    p->held = p->sealed = false;
    if (p->gave_item)
        write_item(p);
    if (!p->dead)
        sim_tick_in(p->actor, 1 + sim_below(p->actor->sim, p->phase == P_WORKING ? 200 : 20));
}

static void on_effect(struct endpoint *ep, struct broker_effect *fx)
{
    struct sim_python *p = (struct sim_python *)(void *)ep;
    struct sim *s = p->actor->sim;
    struct m_call *c = p->call != M_NONE ? &s->model->calls[p->call] : NULL;

    if (!p->calling)
        sim_fail(s, "%s gets a reply to nothing", p->actor->name);
    p->calling = p->waits = p->gave_item = false;
    if (c != NULL) {
        c->used = false;
        p->call = M_NONE;
        if (fx->outcome == BROKER_REPLY_EMPTY && c->parked && c->until > s->now_ms)
            sim_fail(s, "%s: get ended before its time", p->actor->name);
        if (fx->outcome == BROKER_REPLY_ITEM)
            on_item(p, fx);
        else if (fx->outcome != BROKER_REPLY_EMPTY)
            sim_fail(s, "%s: get is answered by %d", p->actor->name, (int)fx->outcome);
        p->gave_item = fx->outcome == BROKER_REPLY_ITEM;
        p->phase = p->gave_item ? P_WORKING : P_IDLE;
    } else if (p->put_item != M_NONE) {
        put_answered(p, fx);
    } else if (fx->outcome != BROKER_REPLY_NONE && fx->outcome != BROKER_REPLY_TOO_MANY_DONE) {
        sim_fail(s, "%s is answered by %d", p->actor->name, (int)fx->outcome);
    }
    if (s->disk != NULL)
        p->held = true;
    else
        arrive(p);
}

/* ---- its life ---- */

void sim_python_open(struct sim_actor *a)
{
    struct sim *s = a->sim;
    struct sim_python *p = a->python;
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN};

    if (p == NULL) {
        p = a->python = tq_calloc(1, sizeof(*p));
        TQ_ASSERT(p != NULL);
    }
    *p = (struct sim_python){.actor = a, .call = M_NONE, .put_item = M_NONE, .open = true};
    p->endpoint.on_effect = on_effect;
    p->endpoint.session.worker = tq_span_str(a->name);
    p->session = m_session_new(s->model);
    s->model->sessions[p->session].python = true;
    p->conn = SIM_LINKS - 1 - a->index;
    s->model->conns[p->conn] = (struct m_conn){.open = true, .session = p->session};
    step(p, &ev);
}

static void end(struct sim_python *p, enum broker_close_mode mode)
{
    struct sim *s = p->actor->sim;
    struct broker_event ev = {.kind = BROKER_SESSION_CLOSE, .close_mode = mode};
    struct m_item *t;

    sim_note(s, "%s %s", p->actor->name, mode == BROKER_CLOSE_ACK ? "leaves" : "died");
    m_step_begins(s->model, false);
    if (p->call != M_NONE)
        s->model->calls[p->call].used = false;
    if (p->put_item != M_NONE && s->model->items[p->put_item].state == M_PENDING)
        m_move(s->model, &s->model->items[p->put_item], M_GONE, s->model->items[p->put_item].q);
    while ((t = held(p, true, true)) != NULL)
        m_return(s->model, t, false);
    while ((t = held(p, false, true)) != NULL) {
        if (mode == BROKER_CLOSE_ACK && t->delivered)
            m_acknowledge(s->model, t);
        else
            m_return(s->model, t, false);
    }
    s->model->sessions[p->session].used = false;
    s->model->conns[p->conn].open = false;
    p->open = p->calling = p->waits = p->held = p->sealed = false;
    p->call = p->put_item = M_NONE;
    step(p, &ev);
    sim_after_step(s);
}

/* ---- with a disk ---- */

void sim_python_seal(struct sim_actor *a, struct log_need need)
{
    struct sim_python *p = a->python;
    const struct sim_disk *d = a->sim->disk;

    if (p == NULL || !p->held || p->sealed)
        return;
    p->sealed = true;
    p->need = (struct sim_held){.need = need, .soft = d->soft, .hard = d->hard};
}

void sim_python_release(struct sim_actor *a)
{
    struct sim_python *p = a->python;
    struct sim *s = a->sim;

    if (p == NULL || !p->sealed || !store_is_met(s->disk->store, p->need.need))
        return;
    sim_disk_sent(s, p->need.soft, p->need.hard);
    m_step_begins(s->model, false);
    arrive(p);
    sim_after_step(s);
}

void sim_python_crash(struct sim_actor *a)
{
    struct sim_python *p = a->python;

    if (p == NULL)
        return;
    *p = (struct sim_python){.actor = a, .call = M_NONE, .put_item = M_NONE};
    sim_tick_in(a, 1 + sim_below(a->sim, 300));
}

void sim_python_close(struct sim_actor *a)
{
    if (a->python->open && sim_is_up(a->sim))
        end(a->python, BROKER_CLOSE_RETURN);
}

void sim_python_shut(struct sim *s)
{
    for (int i = 0; i < s->actor_count; i++) {
        tq_free(s->actors[i].python);
        s->actors[i].python = NULL;
    }
}

/* It dies, at any point; the master learns of it a little later. */
static bool dies(struct sim_python *p)
{
    struct sim *s = p->actor->sim;

    if (s->calm || !s->plan.crashes || !sim_chance(s, 40))
        return false;
    p->dead = true;
    sim_tick_in(p->actor, 1 + sim_below(s, 300));
    return true;
}

static void produce(struct sim_python *p)
{
    struct sim_actor *a = p->actor;
    struct sim *s = a->sim;

    if (a->puts_left == 0 || s->calm)
        return;
    a->puts_left--;
    put(p, a->puts[sim_below(s, (uint32_t)a->put_count)], false,
        sim_chance(s, 500) ? 1 + sim_below(s, 800) : 0);
}

static void work(struct sim_python *p)
{
    struct sim_actor *a = p->actor;
    struct sim *s = a->sim;

    switch (p->phase) {
    case P_IDLE:
        get(p, a->queues[sim_below(s, (uint32_t)a->queue_count)],
            s->calm || sim_chance(s, 700) ? BROKER_WAIT_MS
            : sim_chance(s, 500)          ? BROKER_NO_WAIT
                                          : BROKER_WAIT_FOREVER,
            1 + sim_below(s, s->calm ? 100 : 1500));
        break;
    case P_WORKING:
        p->phase = P_PUT;
        if (s->model->q[p->q].result >= 0 && !sim_chance(s, 50))
            put(p, s->model->q[p->q].result, true, 0);
        break;
    case P_PUT:
        p->phase = P_DONE;
        if (s->calm || !sim_chance(s, 100))
            task_done(p, p->q);
        break;
    case P_DONE:
        p->phase = P_IDLE;
        if (!s->calm && sim_chance(s, 30))
            end(p, BROKER_CLOSE_ACK);
        break;
    }
}

void sim_python_tick(struct sim_actor *a)
{
    struct sim *s = a->sim;
    struct sim_python *p = a->python;

    if (!sim_is_up(s)) {
        sim_tick_in(a, 1 + sim_below(s, 300));
        return;
    }
    if (p == NULL || !p->open) {
        sim_python_open(a);
    } else if (p->dead) {
        end(p, BROKER_CLOSE_RETURN);
    } else if (!dies(p) && !p->held) {
        if (p->waits) { /* Ctrl-C, now and then: the call is given up */
            struct broker_event cancel = {.kind = BROKER_CANCEL};

            if (s->calm || sim_chance(s, 100)) {
                sim_note(s, "%s gives its call up", a->name);
                m_step_begins(s->model, false);
                if (p->call != M_NONE)
                    s->model->calls[p->call].used = false;
                if (p->put_item != M_NONE && s->model->items[p->put_item].state == M_PENDING)
                    m_move(s->model, &s->model->items[p->put_item], M_GONE, s->model->items[p->put_item].q);
                p->call = p->put_item = M_NONE;
                p->calling = p->waits = false;
                p->phase = P_IDLE;
                step(p, &cancel);
                sim_after_step(s);
            }
        } else if (a->role == ROLE_PY_PRODUCER) {
            produce(p);
        } else {
            work(p);
        }
    }
    sim_tick_in(a, 1 + sim_below(s, p != NULL && p->dead ? 300 : 2 * a->pace_ms));
}
