/* A master that was killed comes back as it was at the end of some turn: the model goes back to that, and on
 * as a master does that starts. What clients did and know stays. */
#include <string.h>

#include "common/assert.h"
#include "common/mem.h"
#include "master/core/broker.h"
#include "tests/sim/model.h"
#include "tests/sim/sim.h"

struct m_snapshot {
    struct m_snapshot *next;
    uint64_t label;
    int item_count, live_count, session_count;
    struct m_queue q[M_QUEUES];
    struct m_session *sessions;
    int *live;            /* and behind that */
    struct m_item *items; /* those that live: nothing happens to the others any more */
};

void m_changed(struct model *m, int q, bool is_hard)
{
    m->soft = true;
    if (is_hard && (q < 0 || !m->q[q].interval))
        m->hard = true;
}

static void snapshot_free(struct m_snapshot *p)
{
    tq_free(p->sessions);
    tq_free(p->live);
    tq_free(p->items);
    tq_free(p);
}

static void *copy(const void *from, size_t n)
{
    void *p = tq_malloc(n > 0 ? n : 1);

    TQ_ASSERT(p != NULL);
    if (n > 0)
        memcpy(p, from, n);
    return p;
}

void m_snapshot(struct model *m, struct m_snapshot **list, uint64_t label)
{
    struct m_snapshot *p = tq_calloc(1, sizeof(*p));

    TQ_ASSERT(p != NULL);
    p->label = label;
    p->item_count = m->item_count;
    p->live_count = m->live_count;
    p->session_count = m->session_count;
    memcpy(p->q, m->q, sizeof(p->q));
    p->sessions = copy(m->sessions, (size_t)m->session_count * sizeof(*m->sessions));
    p->live = copy(m->live, (size_t)m->live_count * sizeof(*m->live));
    p->items = tq_malloc((size_t)(m->live_count + 1) * sizeof(*p->items));
    TQ_ASSERT(p->items != NULL);
    for (int i = 0; i < m->live_count; i++)
        p->items[i] = m->items[m->live[i]];
    while (*list != NULL)
        list = &(*list)->next;
    *list = p;
}

void m_snapshot_trim(struct m_snapshot **list, uint64_t label)
{
    while (*list != NULL && (*list)->next != NULL && (*list)->next->label <= label) {
        struct m_snapshot *first = *list;

        *list = first->next;
        snapshot_free(first);
    }
}

void m_snapshot_drop(struct m_snapshot **list)
{
    while (*list != NULL) {
        struct m_snapshot *first = *list;

        *list = first->next;
        snapshot_free(first);
    }
}

/* ---- back ---- */

/* Those that came later were never there. */
static void undo_items(struct model *m, const struct m_snapshot *p)
{
    for (int i = p->item_count; i < m->item_count; i++)
        if (m->items[i].val >= 0 && m->of_value[m->items[i].val] == i)
            m->of_value[m->items[i].val] = M_NONE;
    m->item_count = p->item_count;
    m->live_count = p->live_count;
    memcpy(m->live, p->live, (size_t)p->live_count * sizeof(*p->live));
    for (int i = 0; i < p->live_count; i++) {
        struct m_item *t = &m->items[p->live[i]];
        uint64_t told = t->id != 0 ? t->id : t->told;

        *t = p->items[i];
        t->told = told;
    }
    memset(m->by_id, 0, sizeof(m->by_id));
    for (int i = 0; i < m->item_count; i++) {
        uint64_t id = m->items[i].id;

        m->items[i].id = 0;
        if (id != 0)
            m_name(m, &m->items[i], id);
    }
}

/* Nobody waits any more. What a put wanted is in, or is not: it will be seen. */
static void drop_calls(struct model *m)
{
    for (int i = 0; i < m->call_count; i++)
        m->calls[i].used = false;
    m->call_count = 0;
    for (int i = m->live_count - 1; i >= 0; i--) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->state != M_PENDING || t->call == M_NONE || t->of != 0)
            continue;
        /* Python's would have been answered at once, and what waited for the disk has none of it in. */
        if (t->call == M_CALLS || m->q[t->q].maxsize == 0) {
            m_move(m, t, M_GONE, t->q);
            continue;
        }
        t->call = M_NONE;
        m->q[t->q].orphans++;
    }
}

/* What was handed out may have been delivered; but a stop in good order is nobody's attempt. */
static void as_delivered(struct model *m, int session, bool delivered)
{
    for (int i = 0; i < m->live_count; i++) {
        struct m_item *t = &m->items[m->live[i]];

        if (t->state == M_LEASED && t->session == session)
            t->delivered = delivered;
    }
}

/* While the master was down nobody could lengthen them. */
static void lengthen_leases(struct model *m, int session)
{
    for (int i = 0; i < m->live_count; i++) {
        struct m_item *t = &m->items[m->live[i]];
        uint64_t ms = m->q[t->q].lease_ms > m->q[t->q].grace_ms ? m->q[t->q].lease_ms : m->q[t->q].grace_ms;

        if (t->state == M_LEASED && t->session == session && t->limit < m->now + ms)
            t->limit = m->now + ms;
    }
}

/* Sessions with a worker id are silent from now on; the others have ended with the process. */
static void leave_sessions(struct model *m, bool was_closed)
{
    for (int i = 0; i < m->session_count; i++) {
        struct m_session *s = &m->sessions[i];

        if (!s->used)
            continue;
        s->conn = M_NONE;
        if (s->python || !s->has_worker) {
            as_delivered(m, i, !was_closed);
            m_session_end(m, i, false);
            continue;
        }
        s->detached_ms = m->now;
        s->is_restored = true;
        lengthen_leases(m, i);
        m_detach(m, i, false);
    }
}

bool m_rollback(struct model *m, struct m_snapshot **list, uint64_t label, bool was_closed)
{
    struct m_snapshot *p = *list;

    if (p == NULL || p->label > label)
        return false;
    while (p->next != NULL && p->next->label <= label)
        p = p->next;
    m_snapshot_drop(&p->next); /* earlier ones stay: the power may go before this one is on stable storage */
    undo_items(m, p);
    memcpy(m->q, p->q, sizeof(m->q));
    memcpy(m->sessions, p->sessions, (size_t)p->session_count * sizeof(*p->sessions));
    m->session_count = p->session_count;
    for (size_t i = 0; i < sizeof(m->conns) / sizeof(m->conns[0]); i++)
        m->conns[i] = (struct m_conn){.session = M_NONE};
    m->lost_count = m->handed_count = 0;
    m_step_begins(m, false);
    m->timers = true; /* in no order that is promised */
    drop_calls(m);
    leave_sessions(m, was_closed);
    for (int i = 0; i < M_QUEUES; i++) {
        struct m_queue *q = &m->q[i];

        q->tokens = (q->rate_burst > 0 ? q->rate_burst : q->rate_per_s) * 1000;
        q->tokens_ms = m->now;
        q->handed_now = 0;
    }
    return true;
}
