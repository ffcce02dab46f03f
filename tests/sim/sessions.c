/* Sessions and their connections, as the checker knows them. */
#include <string.h>

#include "tests/sim/model.h"
#include "tests/sim/sim.h"

int m_session_new(struct model *m)
{
    if (m->session_count == M_SESSIONS)
        sim_fail(m->sim, "the model has no room for more sessions");
    m->sessions[m->session_count] = (struct m_session){.used = true, .conn = M_NONE};
    return m->session_count++;
}

int m_session_of(const struct model *m, int conn)
{
    return m->conns[conn].open ? m->conns[conn].session : M_NONE;
}

bool m_holds(const struct model *m, int session)
{
    for (int i = 0; i < m->live_count; i++)
        if (m->items[m->live[i]].state == M_LEASED && m->items[m->live[i]].session == session)
            return true;
    return false;
}

struct m_session *m_worker(struct model *m, struct tq_span worker)
{
    for (int i = 0; i < m->session_count; i++) {
        struct m_session *s = &m->sessions[i];

        if (s->used && s->has_worker && tq_span_is(worker, s->worker))
            return s;
    }
    return NULL;
}

/* The session's leases, the newest first; NULL: there are none but those that were looked at (`before`). */
static struct m_item *newest(struct model *m, int session, uint64_t before)
{
    struct m_item *found = NULL;

    for (int i = 0; i < m->live_count; i++) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->state == M_LEASED && t->session == session && t->held_seq < before &&
            (found == NULL || t->held_seq > found->held_seq))
            found = t;
    }
    return found;
}

static void forget_freed(struct model *m, int session)
{
    for (int i = 0; i < m->live_count; i++)
        if (m->items[m->live[i]].freed_by == session)
            m->items[m->live[i]].freed_by = M_NONE;
}

static void drop_calls(struct model *m, int conn)
{
    for (int i = 0; i < m->call_count; i++)
        if (m->calls[i].used && m->calls[i].conn == conn)
            m_call_drop(m, &m->calls[i]);
}

/* released: what it holds was not run. */
void m_session_end(struct model *m, int session, bool released)
{
    struct m_session *s = &m->sessions[session];
    uint64_t before = UINT64_MAX;
    bool timers = m->timers;
    struct m_item *t;

    m->timers |= s->is_restored;
    if (s->conn >= 0) {
        drop_calls(m, s->conn);
        m->conns[s->conn].session = M_NONE;
    }
    while ((t = newest(m, session, before)) != NULL) {
        before = t->held_seq;
        if (released) {
            t->session = M_NONE;
            t->limit = t->grace = M_NEVER;
            m_to_front(m, t);
        } else {
            m_return(m, t, false);
        }
    }
    forget_freed(m, session);
    s->used = false;
    m->timers = timers;
}

void m_conn_opened(struct model *m, int conn)
{
    m->conns[conn] = (struct m_conn){.open = true, .session = M_NONE};
}

void m_conn_heard(struct model *m, int conn)
{
    int session = m_session_of(m, conn);

    if (session >= 0)
        m->sessions[session].heard_ms = m->now;
}

void m_detach(struct model *m, int session, bool free_now)
{
    uint64_t before = UINT64_MAX;
    bool timers = m->timers;
    struct m_item *t;

    m->timers |= m->sessions[session].is_restored;
    while ((t = newest(m, session, before)) != NULL) {
        before = t->held_seq;
        if (free_now)
            m_return(m, t, true);
        else
            t->grace = m->now + m->q[t->q].grace_ms;
    }
    m->timers = timers;
    m->sessions[session].silent = !free_now;
}

void m_leave(struct model *m, int conn, bool fell_silent)
{
    int session = m->conns[conn].session;
    struct m_session *s;

    if (session < 0)
        return;
    s = &m->sessions[session];
    if (!s->has_worker) {
        m_session_end(m, session, false);
        return;
    }
    drop_calls(m, conn);
    m->conns[conn].session = M_NONE;
    s->conn = M_NONE;
    s->detached_ms = m->now;
    m_detach(m, session, !fell_silent);
}

void m_conn_ended(struct model *m, int conn, bool fell_silent)
{
    if (!m->conns[conn].open)
        return;
    m_leave(m, conn, fell_silent);
    m->conns[conn].open = false;
}

static bool is_named(const struct m_named *named, uint32_t count, const struct m_item *t)
{
    for (uint32_t i = 0; i < count; i++)
        if (named[i].id == t->id && named[i].epoch == t->epoch)
            return true;
    return false;
}

/* What was freed, the last freed (that is the oldest) first: they are its own again in their old order. */
static void take_back(struct model *m, int session, const struct m_named *named, uint32_t count)
{
    for (;;) {
        struct m_item *next = NULL;

        for (int i = 0; i < m->live_count; i++) {
            struct m_item *t = &m->items[m->live[i]];

            if (t->freed_by == session && (next == NULL || t->held_seq < next->held_seq))
                next = t;
        }
        if (next == NULL)
            return;
        next->freed_by = M_NONE;
        if (next->state != M_READY || !is_named(named, count, next))
            continue;
        m_move(m, next, M_LEASED, next->q);
        next->session = session;
        next->attempts = next->freed_attempts;
        next->delivered = true;
        next->held_seq = ++m->held_seq;
        next->limit = m->q[next->q].lease_ms > 0 ? m->now + m->q[next->q].lease_ms : M_NEVER;
        m->resumed++;
    }
}

void m_resume(struct model *m, int session, const struct m_named *named, uint32_t count)
{
    uint64_t before = UINT64_MAX;
    bool timers = m->timers;
    struct m_item *t;

    m->timers |= m->sessions[session].is_restored;
    m->sessions[session].silent = false;
    while ((t = newest(m, session, before)) != NULL) {
        before = t->held_seq;
        t->grace = M_NEVER;
        if (is_named(named, count, t))
            continue;
        t->session = M_NONE;
        t->limit = M_NEVER;
        m_to_front(m, t);
    }
    take_back(m, session, named, count);
    m->timers = timers;
}

void m_sessions_on_time(struct model *m)
{
    for (int i = 0; i < m->session_count; i++) {
        struct m_session *s = &m->sessions[i];
        int conn = s->conn;

        if (!s->used || conn < 0 || s->heartbeat_ms == 0 ||
            s->heard_ms + 3 * (uint64_t)s->heartbeat_ms > m->now)
            continue;
        m->silences++;
        m_leave(m, conn, true);
        m->conns[conn].expect_close = true;
    }
}
