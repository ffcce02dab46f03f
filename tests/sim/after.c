/* What has to hold after each step, and at the end. */
#include <inttypes.h>
#include <string.h>

#include "master/core/broker.h"
#include "tests/sim/model.h"
#include "tests/sim/sim.h"

void m_step_begins(struct model *m, bool timers)
{
    m->place++;
    m->timers = timers;
    m->piecemeal = false;
    m->now = m->sim->now_ms;
    if (timers)
        m_on_time(m);
}

bool m_expiry_at(const struct model *m, uint64_t at)
{
    for (int i = 0; i < m->live_count; i++) {
        const struct m_item *t = &m->items[m->live[i]];

        if (t->expires == at || (t->state == M_LEASED && (t->limit == at || t->grace == at)))
            return true;
    }
    return false;
}

/* ---- order ---- */

/* Is r before h in its queue, for sure? */
static bool goes_before(const struct m_queue *q, const struct m_item *r, const struct m_item *h)
{
    if (q->kind != BROKER_PRIORITY)
        return r->hi < h->lo;
    if (r->prio != h->prio)
        return r->prio < h->prio;
    return r->id < h->id && r->id != 0;
}

static void check_order(struct model *m, const struct m_item *h, int from)
{
    const struct m_queue *q = &m->q[from];

    for (int i = 0; i < m->live_count; i++) {
        const struct m_item *r = &m->items[m->live[i]];

        if (r->state == M_READY && r->q == from && r != h && !r->handed_now && !r->in_step &&
            goes_before(q, r, h))
            sim_fail(m->sim, "%" PRIu64 " was handed out from %s before %" PRIu64, h->id, q->name, r->id);
    }
}

/* Those that came in one frame came in their order. */
static void check_orders(struct model *m)
{
    for (int i = 0; i < m->handed_count; i++) {
        struct m_item *h = &m->items[m->handed[i]];

        /* it may have gone back within the step, and have another place now */
        if (h->state == M_LEASED || h->state == M_GONE || h->state == M_KEPT)
            check_order(m, h, m->handed_q[i]);
    }
    for (int i = 0; i < m->handed_count; i++)
        m->items[m->handed[i]].handed_now = false;
    m->handed_count = 0;
}

/* ---- nobody waits for what is there ---- */

static void check_rate(struct model *m, struct m_queue *q)
{
    uint64_t rate = q->rate_per_s, most = (q->rate_burst > 0 ? q->rate_burst : rate) * 1000 + 999;

    if (rate == 0)
        return;
    q->tokens += (m->now - q->tokens_ms) * rate;
    q->tokens_ms = m->now;
    if (q->tokens > most)
        q->tokens = most;
    if (q->handed_now * 1000 > q->tokens)
        sim_fail(m->sim, "%u were handed out from %s, which has %" PRIu64 " thousandths of tokens",
                 q->handed_now, q->name, q->tokens);
    q->tokens -= q->handed_now * 1000;
}

static bool may_hand_out(const struct m_queue *q)
{
    return !q->paused && (q->concurrency == 0 || q->counts[M_LEASED] < q->concurrency) &&
           (q->rate_per_s == 0 || q->tokens >= 2000);
}

static void check_call(struct model *m, struct m_call *c)
{
    struct m_queue *q = c->q >= 0 ? &m->q[c->q] : NULL;

    if (c->must_answer)
        sim_fail(m->sim, "method %d of connection %d was not answered", (int)c->method, c->conn);
    if (c->until <= m->now && m->timers)
        sim_fail(m->sim, "method %d of connection %d waits beyond its time, %" PRIu64, (int)c->method,
                 c->conn, c->until);
    if (c->ended)
        sim_fail(m->sim, "a wait for %" PRIu64 " was not answered when that ended", c->id);
    if (q != NULL && c->is_get && q->counts[M_READY] > 0 && may_hand_out(q))
        sim_fail(m->sim, "connection %d waits for a task of %s, where %u are ready", c->conn, q->name,
                 q->counts[M_READY]);
    if (q != NULL && c->method == M_JOIN && q->unfinished == 0 && q->counts[M_PENDING] == 0)
        sim_fail(m->sim, "connection %d waits for %s, where all is done", c->conn, q->name);
    if (q != NULL && c->method == M_PUT && c->parked && q->maxsize == 0 && !m->no_room)
        sim_fail(m->sim, "connection %d waits for room for %s, and there is some again", c->conn, q->name);
    if (q != NULL && c->method == M_PUT && c->parked && !(c->is_new_work && m->no_room) &&
        q->counts[M_READY] + q->counts[M_DELAYED] + c->count < q->maxsize && q->orphans == 0 &&
        q->counts[M_PENDING] <= c->count)
        sim_fail(m->sim, "connection %d waits for room in %s, where there is some", c->conn, q->name);
}

static void check_queues(struct model *m)
{
    for (int i = 0; i < M_QUEUES; i++) {
        struct m_queue *q = &m->q[i];

        if (q->handed_now > 0 && q->concurrency > 0 && q->counts[M_LEASED] > q->concurrency)
            sim_fail(m->sim, "%u are leased from %s, which allows %u", q->counts[M_LEASED], q->name,
                     q->concurrency);
        check_rate(m, q);
        q->handed_now = 0;
    }
}

void m_step_ended(struct model *m)
{
    struct sim *s = m->sim;

    check_orders(m);
    check_queues(m);
    for (int i = 0; i < m->call_count; i++)
        if (m->calls[i].used)
            check_call(m, &m->calls[i]);
    while (m->call_count > 0 && !m->calls[m->call_count - 1].used)
        m->call_count--;
    for (int i = 0; i < m->lost_count; i++)
        if (!m->conns[m->lost[i].conn].expect_close)
            sim_fail(s, "connection %d was not told that [%" PRIu64 ", %u] is lost", m->lost[i].conn,
                     m->lost[i].id, m->lost[i].epoch);
    m->lost_count = 0;
    for (int i = 0; i < s->link_count; i++)
        if (m->conns[i].open && m->conns[i].expect_close)
            sim_fail(s, "connection %d was not closed", i);
    for (int i = 0; i < m->live_count; i++)
        m->items[m->live[i]].in_step = false;
}

void m_closed_by_master(struct model *m, int conn)
{
    if (!m->conns[conn].open)
        return;
    if (!m->conns[conn].expect_close)
        sim_fail(m->sim, "connection %d was closed by the master", conn);
    m->conns[conn].open = false;
    m->conns[conn].expect_close = false;
}

/* ---- the end ---- */

bool m_is_drained(const struct model *m)
{
    for (int i = 0; i < M_QUEUES; i++) {
        const uint32_t *n = m->q[i].counts;

        if (n[M_READY] + n[M_DELAYED] + n[M_LEASED] + n[M_PENDING] - m->q[i].orphans > 0)
            return false;
    }
    return true;
}

void m_explain(struct model *m)
{
    for (int i = 0; i < m->live_count; i++) {
        const struct m_item *t = &m->items[m->live[i]];
        const struct m_session *s = t->session >= 0 ? &m->sessions[t->session] : NULL;

        if (t->state == M_KEPT || (t->state == M_PENDING && t->call == M_NONE))
            continue;
        sim_fail(m->sim,
                 "task %" PRIu64
                 " (value %d) of %s is not done: state %d, session %s, connection %d, limit %" PRIu64,
                 t->id, t->val, m->q[t->q].name, (int)t->state, s != NULL ? s->worker : "none",
                 s != NULL ? s->conn : M_NONE, t->limit);
    }
    sim_fail(m->sim, "not all is done");
}

/* Each task that was accepted has one end, and each that was not has none. */
void m_check_end(struct model *m)
{
    for (int i = 0; i < m->item_count; i++) {
        const struct m_item *t = &m->items[i];

        if (t->ends != (t->accepted > 0 ? 1u : 0u))
            sim_fail(m->sim, "task %" PRIu64 " (value %d) was accepted %u times and has %u ends", t->id,
                     t->val, t->accepted, t->ends);
        if (t->accepted > 0 && t->id == 0)
            sim_fail(m->sim, "a task (value %d) was accepted without an id", t->val);
        if (t->state != M_GONE && !(t->state == M_PENDING && t->call == M_NONE) && t->state != M_KEPT)
            sim_fail(m->sim, "task %" PRIu64 " is still there, in state %d in %s", t->id, (int)t->state,
                     m->q[t->q].name);
    }
}
