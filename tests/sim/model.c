/* Items, and how each goes on: from the put to its end. */
#include "tests/sim/model.h"

#include <inttypes.h>
#include <string.h>

#include "master/core/broker.h"
#include "tests/sim/sim.h"

#define DEFAULT_RETENTION_MS 300000u
#define SLOTS                16384u

const char *const m_queue_names[M_QUEUES] = {"task_queue", "result_queue", "dead",    "prio",
                                             "bound",      "lifo",         "scratch", "explicit",
                                             "once",       "fifo",         "reply0",  "reply1"};

static const char *const outcome_names[] = {"none", "ok", "failed", "expired", "lost", "canceled", "purged"};

static uint64_t after(const struct model *m, uint64_t ms)
{
    return m->now + ms;
}

void m_init(struct model *m, struct sim *s)
{
    m->sim = s;
    m->now = s->now_ms;
    for (size_t i = 0; i < SLOTS; i++)
        m->of_value[i] = M_NONE;
}

/* ---- items ---- */

struct m_item *m_new(struct model *m, int q, int val)
{
    struct m_item *t;

    if (m->item_count == M_ITEMS)
        sim_fail(m->sim, "the model has no room for more tasks");
    t = &m->items[m->item_count];
    *t = (struct m_item){.val = val,
                         .res = M_NONE,
                         .q = q,
                         .from = q,
                         .key = M_NONE,
                         .key_q = q,
                         .own = M_POLICY,
                         .retention = M_AUTO,
                         .session = M_NONE,
                         .freed_by = M_NONE,
                         .limit = M_NEVER,
                         .grace = M_NEVER,
                         .call = M_NONE,
                         .live_at = m->live_count};
    m->live[m->live_count++] = m->item_count++;
    m->q[q].counts[M_PENDING]++;
    if (val >= 0)
        m->of_value[val] = (int)(t - m->items);
    return t;
}

static uint32_t slot_of(uint64_t id)
{
    return (uint32_t)((id * 0x9e3779b97f4a7c15u) >> 32) % SLOTS;
}

struct m_item *m_by_id(struct model *m, uint64_t id)
{
    for (uint32_t i = slot_of(id); m->by_id[i] != 0; i = (i + 1) % SLOTS)
        if (m->items[m->by_id[i] - 1].id == id)
            return &m->items[m->by_id[i] - 1];
    return NULL;
}

void m_name(struct model *m, struct m_item *t, uint64_t id)
{
    uint32_t i = slot_of(id);

    if (t->id == id)
        return;
    if (t->id != 0)
        sim_fail(m->sim, "one task has two ids, %" PRIu64 " and %" PRIu64, t->id, id);
    if (m_by_id(m, id) != NULL)
        sim_fail(m->sim, "two tasks have the id %" PRIu64, id);
    while (m->by_id[i] != 0)
        i = (i + 1) % SLOTS;
    t->id = id;
    m->by_id[i] = (int)(t - m->items) + 1;
}

struct m_item *m_by_key(struct model *m, int q, int key)
{
    for (int i = 0; key >= 0 && i < m->live_count; i++) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->key == key && t->key_q == q && t->state != M_PENDING)
            return t;
    }
    return NULL;
}

void m_move(struct model *m, struct m_item *t, enum m_state to, int q)
{
    if (t->state == M_PENDING && t->call == M_NONE && t->of == 0)
        m->q[t->q].orphans--;
    m->q[t->q].counts[t->state]--;
    t->state = to;
    t->q = q;
    m->q[q].counts[to]++;
    if (to != M_GONE)
        return;
    m->live[t->live_at] = m->live[--m->live_count];
    m->items[m->live[t->live_at]].live_at = t->live_at;
}

/* Its put was cut, and is seen to be in now. */
static void adopt(struct model *m, struct m_item *t, uint64_t id)
{
    int64_t lo = t->lo;
    bool hard = m->hard;

    m_name(m, t, id);
    m_accept(m, t);
    m->hard = hard; /* that was some time ago */
    t->lo = lo;
    t->hi = INT64_MAX;
}

struct m_item *m_known(struct model *m, uint64_t id)
{
    struct m_item *t = m_by_id(m, id);

    for (int i = 0; t == NULL && i < m->live_count; i++)
        if (m->items[m->live[i]].told == id && m->items[m->live[i]].state == M_PENDING)
            adopt(m, t = &m->items[m->live[i]], id);
    return t;
}

/* ---- places ---- */

static void set_place(struct m_item *t, int64_t place)
{
    t->lo = t->hi = place;
}

/* What the clock does at once has no order in itself. */
static int64_t next_place(struct model *m)
{
    return m->timers ? m->place : ++m->place;
}

static void to_back(struct model *m, struct m_item *t, int q)
{
    int64_t place = next_place(m);

    m_move(m, t, M_READY, q);
    t->in_step = m->piecemeal || m->timers;
    set_place(t, m->q[q].kind == BROKER_LIFO ? -place : place);
}

static bool is_over(const struct model *m, const struct m_item *t)
{
    return t->kind == M_TASK && t->expires != 0 && t->expires <= m->now;
}

void m_to_front(struct model *m, struct m_item *t)
{
    if (is_over(m, t)) {
        m_end(m, t, O_EXPIRED, M_NONE, M_NONE);
        return;
    }
    m_move(m, t, M_READY, t->q);
    t->in_step = m->piecemeal || m->timers;
    set_place(t, -next_place(m));
}

/* It is in: what was said of time counts from now on. */
void m_accept(struct model *m, struct m_item *t)
{
    struct m_queue *q = &m->q[t->q];
    uint64_t ttl = t->ttl > 0 ? t->ttl : q->ttl_ms;

    if (t->accepted++ > 0)
        sim_fail(m->sim, "task %d was accepted twice", t->val);
    t->lives = 1;
    m_changed(m, t->q, true);
    m->accepted++;
    q->unfinished++;
    if (ttl > 0)
        t->expires = after(m, ttl);
    if (t->delay > 0) {
        m_move(m, t, M_DELAYED, t->q);
        t->due_lo = t->due_hi = after(m, t->delay);
    } else {
        to_back(m, t, t->q);
    }
    t->call = M_NONE;
}

/* ---- ends ---- */

void m_unfinish(struct model *m, int q)
{
    if (m->q[q].unfinished > 0)
        m->q[q].unfinished--;
}

static void tell(struct model *m, const struct m_item *t, enum m_outcome outcome, int value)
{
    for (int i = 0; i < m->call_count; i++) {
        struct m_call *c = &m->calls[i];

        if (!c->used || c->method != M_WAIT || !c->parked || c->ended || c->id != t->id || t->id == 0)
            continue;
        c->ended = true;
        c->outcome = outcome;
        c->value = value;
    }
}

static void count_end(struct model *m, struct m_item *t)
{
    m->ends++;
    if (t->ends++ > 0)
        sim_fail(m->sim, "task %" PRIu64 " has two ends", t->id);
}

static void keep(struct model *m, struct m_item *t)
{
    t->expires = after(m, t->retention);
    m_move(m, t, M_KEPT, t->q);
}

static void be_gone(struct model *m, struct m_item *t)
{
    m_move(m, t, M_GONE, t->q);
}

/* Of the result queues that may be meant. */
static int result_queue(const struct model *m, const struct m_item *t, int result_to)
{
    if (t->own != M_POLICY)
        return t->own;
    if (result_to >= 0 && !(m->to_last && m->q[t->q].result >= 0))
        return result_to;
    return m->q[t->q].result;
}

static void leave_lease(struct m_item *t)
{
    t->session = M_NONE;
    t->limit = t->grace = M_NEVER;
}

static void forget_freed(struct m_item *t)
{
    t->freed_by = M_NONE;
}

static void dead_letter(struct model *m, struct m_item *t, enum m_outcome outcome)
{
    int from = t->q, own = t->own;

    m->dead++;
    t->kind = M_DEAD;
    t->outcome = outcome;
    t->from = from;
    t->attempts = 0;
    t->expires = 0;
    forget_freed(t);
    to_back(m, t, m->q[from].dead);
    m->q[t->q].unfinished++;
    tell(m, t, outcome, t->val);
    if (own >= 0 && own != t->q) {
        struct m_item *n = m_new(m, own, M_NONE);

        n->kind = M_RESULT;
        n->of = t->id;
        n->outcome = outcome;
        n->from = from;
        n->retention = 0;
        n->accepted = n->lives = 1;
        to_back(m, n, own);
        m->q[own].unfinished++;
    }
}

/* is_ack: no queue gets it, but it is kept as long as if one did. */
static void to_result(struct model *m, struct m_item *t, enum m_outcome outcome, int value, int result_to,
                      bool is_ack)
{
    int to = result_queue(m, t, result_to), from = t->q;
    uint32_t retention = t->retention != M_AUTO ? t->retention : m->q[from].retention_ms;

    if (retention == M_AUTO)
        retention = to < 0 || t->key >= 0 ? DEFAULT_RETENTION_MS : 0;
    if (is_ack)
        to = M_NONE;
    t->outcome = outcome;
    t->from = from;
    t->attempts = 0;
    t->expires = 0;
    t->retention = retention;
    t->res = outcome == O_OK ? value : M_NONE;
    forget_freed(t);
    tell(m, t, outcome, t->res);
    if (to < 0)
        count_end(m, t);
    if (to < 0 && retention == 0) {
        be_gone(m, t);
        return;
    }
    t->kind = M_RESULT;
    if (to < 0) {
        keep(m, t);
        return;
    }
    to_back(m, t, to);
    m->q[to].unfinished++;
}

static void end_item(struct model *m, struct m_item *t, enum m_outcome outcome, int value, int result_to,
                     bool counted)
{
    bool is_drop = outcome == O_CANCELED || outcome == O_PURGED;

    m_changed(m, t->q, true);
    leave_lease(t);
    if (counted)
        m_unfinish(m, t->q);
    if (t->kind != M_TASK) {
        count_end(m, t);
        if (t->kind == M_RESULT && !is_drop && t->retention > 0)
            keep(m, t);
        else
            be_gone(m, t);
    } else if (is_drop && t->own < 0) {
        count_end(m, t);
        tell(m, t, outcome, M_NONE);
        be_gone(m, t);
    } else if (!is_drop && outcome != O_OK && m->q[t->q].dead >= 0) {
        dead_letter(m, t, outcome);
    } else {
        to_result(m, t, outcome, value, result_to, false);
    }
}

void m_end(struct model *m, struct m_item *t, enum m_outcome outcome, int value, int result_to)
{
    end_item(m, t, outcome, value, result_to, true);
}

/* By a Python worker's put: task_done is still to come. */
void m_end_uncounted(struct model *m, struct m_item *t, int value)
{
    end_item(m, t, O_OK, value, M_NONE, false);
}

/* Does anybody want to know how it ends? */
static bool is_asked_for(const struct model *m, const struct m_item *t)
{
    if (t->key >= 0 || t->own == M_NONE || t->retention != M_AUTO)
        return true;
    for (int i = 0; i < m->call_count; i++) {
        const struct m_call *c = &m->calls[i];

        if (c->used && c->method == M_WAIT && c->parked && !c->ended && c->id == t->id)
            return true;
    }
    return false;
}

/* A Python session has gone on: what it had is done with, without a word on its result. */
void m_acknowledge(struct model *m, struct m_item *t)
{
    m_changed(m, t->q, true);
    leave_lease(t);
    if (t->kind == M_TASK && is_asked_for(m, t)) {
        to_result(m, t, O_OK, M_NONE, M_NONE, true);
        return;
    }
    count_end(m, t);
    if (t->kind == M_RESULT && t->retention > 0)
        keep(m, t);
    else
        be_gone(m, t);
}

void m_return(struct model *m, struct m_item *t, bool as_freed)
{
    const struct m_queue *q = &m->q[t->q];
    uint32_t before = t->attempts;
    int session = t->session;
    bool delivered = t->delivered;
    enum m_kind kind = t->kind;

    m_changed(m, t->q, false);
    leave_lease(t);
    if (delivered && t->attempts < 255)
        t->attempts++;
    if (delivered && t->kind == M_TASK && q->max_deliveries > 0 && t->attempts >= q->max_deliveries) {
        m_end(m, t, O_LOST, M_NONE, M_NONE);
        return;
    }
    m_to_front(m, t);
    if (t->state != M_READY || t->kind != kind || !as_freed)
        return;
    t->freed_by = session;
    t->freed_attempts = before;
}

static bool is_final(const struct model *m, const struct m_item *t, bool said_final)
{
    uint32_t max = t->max_attempts > 0 ? t->max_attempts : m->q[t->q].max_attempts;

    if (t->kind == M_DEAD)
        return false;
    if (t->kind == M_RESULT)
        return said_final;
    return said_final || (max > 0 && t->attempts >= max);
}

void m_fail(struct model *m, struct m_item *t, bool final, bool has_delay, uint64_t delay_ms, int result_to)
{
    const struct m_queue *q = &m->q[t->q];
    uint64_t least = delay_ms, most = delay_ms;

    m_changed(m, t->q, true);
    if (t->attempts < 255)
        t->attempts++;
    if (is_final(m, t, final)) {
        m_end(m, t, O_FAILED, M_NONE, result_to);
        return;
    }
    m->retried++;
    leave_lease(t);
    if (!has_delay) { /* with jitter */
        most = (uint64_t)q->retry_ms << (t->attempts < 32 ? t->attempts - 1 : 31);
        if (most > q->retry_max_ms)
            most = q->retry_max_ms;
        least = most - most / 2;
    }
    if (most == 0) {
        m_to_front(m, t);
        return;
    }
    m_move(m, t, M_DELAYED, t->q);
    t->lo = INT64_MAX; /* not there yet */
    t->due_lo = after(m, least);
    t->due_hi = after(m, most);
}

/* ---- by an admin ---- */

void m_remove(struct model *m, struct m_item *t)
{
    m->removed++;
    m_changed(m, t->q, true);
    if (t->state == M_KEPT) {
        be_gone(m, t);
        return;
    }
    if (t->state == M_LEASED) {
        const struct m_session *s = &m->sessions[t->session];

        if (!s->python && !s->silent && s->conn >= 0)
            m->lost[m->lost_count++] = (struct m_lost){.conn = s->conn, .id = t->id, .epoch = t->epoch};
    }
    m_end(m, t, O_CANCELED, M_NONE, M_NONE);
}

bool m_retry(struct model *m, struct m_item *t, int session)
{
    if (t->kind != M_DEAD || (t->state == M_LEASED && t->session != session))
        return false;
    m_changed(m, t->q, true);
    m_changed(m, t->from, true);
    leave_lease(t);
    m_unfinish(m, t->q);
    t->kind = M_TASK;
    t->outcome = O_NONE;
    t->attempts = 0;
    t->lives++;
    forget_freed(t);
    t->expires = m->q[t->from].ttl_ms > 0 ? after(m, m->q[t->from].ttl_ms) : 0;
    to_back(m, t, t->from);
    m->q[t->q].unfinished++;
    return true;
}

uint32_t m_purge(struct model *m, int q)
{
    uint32_t count = 0;
    bool timers = m->timers;

    m->timers = true; /* in no order that is promised */
    m->place++;
    for (int i = m->live_count - 1; i >= 0; i--) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->q != q || (t->state != M_READY && t->state != M_DELAYED))
            continue;
        count++;
        m_end(m, t, O_PURGED, M_NONE, M_NONE);
    }
    m->timers = timers;
    return count;
}

/* ---- leases ---- */

struct m_item *m_lease(struct model *m, int session, uint64_t id, uint32_t epoch)
{
    struct m_item *t = m_by_id(m, id);

    return t != NULL && t->state == M_LEASED && t->session == session && t->epoch == epoch ? t : NULL;
}

static struct m_item *find_handed(struct model *m, const struct m_handout *h)
{
    struct m_item *t = m_by_id(m, h->id);

    if (t != NULL)
        return t;
    if (h->of != 0) { /* the first one that has no id yet */
        for (int i = 0; i < m->live_count; i++) {
            struct m_item *n = &m->items[m->live[i]];

            if (n->of == h->of && n->id == 0 && n->state == M_READY && (t == NULL || n < t))
                t = n;
        }
        if (t != NULL)
            return t;
    }
    if (h->value >= 0 && m->of_value[h->value] >= 0) {
        t = &m->items[m->of_value[h->value]];
        if (t->id == 0)
            return t;
    }
    sim_fail(m->sim, "%" PRIu64 " was handed out (value %d), which nobody put", h->id, h->value);
}

static void check_handed(struct model *m, const struct m_item *t, int q, const struct m_handout *h)
{
    struct sim *s = m->sim;
    int value = t->kind == M_RESULT ? t->res : t->val;

    if (t->q != q)
        sim_fail(s, "%" PRIu64 " was handed out from %s, but it is in %s", h->id, m_queue_names[q],
                 m_queue_names[t->q]);
    if (t->state == M_DELAYED ? t->due_lo > m->now : t->state != M_READY)
        sim_fail(s, "%" PRIu64 " was handed out in state %d (due %" PRIu64 ", leased by session %d)", h->id,
                 (int)t->state, t->due_lo, t->session);
    if (is_over(m, t))
        sim_fail(s, "%" PRIu64 " was handed out, but its time was over at %" PRIu64, h->id, t->expires);
    if (m->q[q].paused)
        sim_fail(s, "%" PRIu64 " was handed out from %s, which is paused", h->id, m_queue_names[q]);
    if (h->epoch <= t->epoch && t->epoch != 0)
        sim_fail(s, "%" PRIu64 " was handed out with epoch %u after epoch %u", h->id, h->epoch, t->epoch);
    if (h->attempt != t->attempts + 1)
        sim_fail(s, "%" PRIu64 " was handed out as attempt %u, but it is attempt %u", h->id, h->attempt,
                 t->attempts + 1);
    if (h->value != value)
        sim_fail(s, "%" PRIu64 " has the value %d, but should have %d", h->id, h->value, value);
    if ((h->outcome == NULL) != (t->kind == M_TASK) ||
        (h->outcome != NULL && strcmp(h->outcome, outcome_names[t->outcome]) != 0))
        sim_fail(s, "%" PRIu64 " has the outcome %s, but should have %s", h->id,
                 h->outcome != NULL ? h->outcome : "none", outcome_names[t->outcome]);
}

/* For good: no lease. */
static void take(struct model *m, struct m_item *t)
{
    m_unfinish(m, t->q);
    m_acknowledge(m, t);
}

struct m_item *m_hand_out(struct model *m, int q, int session, const struct m_handout *h)
{
    struct m_item *t = find_handed(m, h);
    struct m_queue *queue = &m->q[q];

    if (t->state == M_PENDING) { /* its put was answered in this step, or never will be */
        adopt(m, t, h->id);
        if (t->state == M_DELAYED)
            sim_fail(m->sim, "%" PRIu64 " was handed out without its delay", h->id);
    }
    m_name(m, t, h->id);
    check_handed(m, t, q, h);
    m_changed(m, q, false);
    if (t->state == M_DELAYED)
        t->hi = m->place;
    m->handouts++;
    queue->handed++;
    queue->handed_now++;
    t->epoch = h->epoch;
    t->freed_by = M_NONE;
    t->handed_now = true;
    if (m->handed_count < 512) {
        m->handed_q[m->handed_count] = q;
        m->handed[m->handed_count++] = (int)(t - m->items);
    }
    if (h->take) {
        take(m, t);
        return t;
    }
    m_move(m, t, M_LEASED, q);
    t->session = session;
    t->delivered = !m->sessions[session].python;
    t->held_seq = ++m->held_seq;
    t->grace = M_NEVER;
    t->limit = t->delivered && queue->lease_ms > 0 ? after(m, queue->lease_ms) : M_NEVER;
    return t;
}

/* ---- time ---- */

static void lease_on_time(struct model *m, struct m_item *t)
{
    const struct m_session *s = &m->sessions[t->session];

    if (t->limit <= m->now) {
        if (!s->silent && s->conn >= 0)
            m->lost[m->lost_count++] = (struct m_lost){.conn = s->conn, .id = t->id, .epoch = t->epoch};
        m_return(m, t, false);
    } else if (t->grace <= m->now) {
        m_return(m, t, true);
    }
}

static void delay_on_time(struct model *m, struct m_item *t)
{
    if (t->expires != 0 && t->expires <= m->now) {
        m_end(m, t, O_EXPIRED, M_NONE, M_NONE);
        return;
    }
    if (t->due_lo <= m->now && t->lo == INT64_MAX)
        t->lo = m->q[t->q].kind == BROKER_LIFO ? INT64_MIN : m->place;
    if (t->due_hi <= m->now) {
        int64_t lo = t->due_lo < t->due_hi ? t->lo : INT64_MAX;

        to_back(m, t, t->q);
        if (lo < t->lo)
            t->lo = lo;
        if (m->q[t->q].kind == BROKER_LIFO && lo != INT64_MAX)
            t->hi = INT64_MAX;
    }
}

void m_on_time(struct model *m)
{
    m_sessions_on_time(m);
    for (int i = m->live_count - 1; i >= 0; i--) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->state == M_DELAYED)
            delay_on_time(m, t);
        else if (t->state == M_READY && is_over(m, t))
            m_end(m, t, O_EXPIRED, M_NONE, M_NONE);
        else if (t->state == M_LEASED)
            lease_on_time(m, t);
        else if (t->state == M_KEPT && t->expires <= m->now)
            be_gone(m, t);
    }
}
