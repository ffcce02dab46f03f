/* A second, simple-minded broker to compare the real one with: arrays, no memory management, heapq as the
 * Python source has it. It tells the effects that a step must have. */
#ifndef TESTS_UNIT_BROKER_MODEL_H
#define TESTS_UNIT_BROKER_MODEL_H

#include "tests/unit/broker_rig.h"

#define MODEL_QUEUES 4
#define MODEL_ITEMS  4096

struct m_item {
    int64_t key;
    uint32_t attempt; /* deaths so far */
    bool delivered;
    int q;
};

struct m_list {
    int at[MODEL_ITEMS];
    int n;
};

struct m_session {
    struct m_list held;
    int wait; /* broker_event_kind of the parked call, or -1 */
    int wait_q, wait_item;
    uint64_t token, due_ms, due_seq; /* due_ms UINT64_MAX: for ever */
};

struct m_queue {
    struct broker_queue_conf conf;
    struct m_list ready, getters, putters, joiners;
    uint64_t unfinished;
    bool shut_down;
};

struct m_effect {
    int s, q, item; /* item -1: none */
    uint64_t token;
    enum broker_outcome outcome;
    int64_t number;
    uint32_t attempt;
    bool was_parked;
};

struct model {
    struct m_item items[MODEL_ITEMS];
    int item_count;
    struct m_session s[RIG_SESSIONS];
    struct m_queue q[MODEL_QUEUES];
    struct m_effect fx[64];
    int fx_count;
    uint64_t now_ms, due_seq, acked, dropped;
    uint32_t held_max;
};

static inline void m_insert(struct m_list *l, int place, int v)
{
    for (int i = l->n++; i > place; i--)
        l->at[i] = l->at[i - 1];
    l->at[place] = v;
}

static inline int m_remove_at(struct m_list *l, int place)
{
    int v = l->at[place];

    for (l->n--; place < l->n; place++)
        l->at[place] = l->at[place + 1];
    return v;
}

static inline void m_remove(struct m_list *l, int v)
{
    for (int i = 0; i < l->n; i++)
        if (l->at[i] == v) {
            m_remove_at(l, i);
            return;
        }
}

/* heapq._siftdown and _siftup */
static inline void m_siftdown(struct model *m, int *heap, int startpos, int pos)
{
    int newitem = heap[pos];

    while (pos > startpos && m->items[newitem].key < m->items[heap[(pos - 1) >> 1]].key) {
        heap[pos] = heap[(pos - 1) >> 1];
        pos = (pos - 1) >> 1;
    }
    heap[pos] = newitem;
}

static inline void m_siftup(struct model *m, int *heap, int endpos, int pos)
{
    int startpos = pos, newitem = heap[pos], childpos = 2 * pos + 1;

    while (childpos < endpos) {
        int rightpos = childpos + 1;

        if (rightpos < endpos && !(m->items[heap[childpos]].key < m->items[heap[rightpos]].key))
            childpos = rightpos;
        heap[pos] = heap[childpos];
        pos = childpos;
        childpos = 2 * pos + 1;
    }
    heap[pos] = newitem;
    m_siftdown(m, heap, startpos, pos);
}

static inline void m_push(struct model *m, struct m_queue *q, int item, bool front)
{
    if (q->conf.kind == BROKER_PRIORITY) {
        m_insert(&q->ready, q->ready.n, item);
        m_siftdown(m, q->ready.at, 0, q->ready.n - 1);
    } else {
        m_insert(&q->ready, front || q->conf.kind == BROKER_LIFO ? 0 : q->ready.n, item);
    }
}

static inline int m_pop(struct model *m, struct m_queue *q)
{
    int last, top;

    if (q->conf.kind != BROKER_PRIORITY)
        return m_remove_at(&q->ready, 0);
    last = m_remove_at(&q->ready, q->ready.n - 1);
    if (q->ready.n == 0)
        return last;
    top = q->ready.at[0];
    q->ready.at[0] = last;
    m_siftup(m, q->ready.at, q->ready.n, 0);
    return top;
}

static inline void m_reply(struct model *m, int s, int q, uint64_t token, enum broker_outcome outcome,
                           int64_t number)
{
    m->fx[m->fx_count++] =
        (struct m_effect){.s = s, .q = q, .item = -1, .token = token, .outcome = outcome, .number = number};
}

static inline void m_hand_out(struct model *m, int s, int qi, uint64_t token)
{
    int item = m_pop(m, &m->q[qi]);

    m->items[item].delivered = false;
    m_insert(&m->s[s].held, m->s[s].held.n, item);
    m_reply(m, s, qi, token, BROKER_REPLY_ITEM, 0);
    m->fx[m->fx_count - 1].item = item;
    m->fx[m->fx_count - 1].attempt = m->items[item].attempt + 1;
}

static inline bool m_full(const struct m_queue *q)
{
    return q->conf.maxsize > 0 && q->ready.n >= q->conf.maxsize;
}

static inline enum broker_ack m_ack_of(const struct model *m, int item)
{
    return m->q[m->items[item].q].conf.ack;
}

static inline void m_progress(struct model *m, int s)
{
    struct m_list *held = &m->s[s].held;

    for (int i = held->n - 1; i >= 0; i--)
        if (m_ack_of(m, held->at[i]) != BROKER_ACK_EXPLICIT) {
            m_remove_at(held, i);
            m->acked++;
        }
}

static inline void m_delivered(struct model *m, int s)
{
    struct m_list *held = &m->s[s].held;

    for (int i = held->n - 1; i >= 0; i--) {
        m->items[held->at[i]].delivered = true;
        if (m_ack_of(m, held->at[i]) == BROKER_ACK_GET) {
            m_remove_at(held, i);
            m->acked++;
        }
    }
}

static inline void m_unpark(struct model *m, int s)
{
    struct m_queue *q = &m->q[m->s[s].wait_q];

    m_remove(&q->getters, s);
    m_remove(&q->putters, s);
    m_remove(&q->joiners, s);
    m->s[s].wait = -1;
}

static inline void m_accept(struct model *m, int s, int qi, int item)
{
    m_push(m, &m->q[qi], item, false);
    m->q[qi].unfinished++;
    m_progress(m, s);
}

static inline void m_answer(struct model *m, int s, enum broker_outcome outcome)
{
    if (outcome == BROKER_REPLY_ITEM)
        m_hand_out(m, s, m->s[s].wait_q, m->s[s].token);
    else
        m_reply(m, s, m->s[s].wait_q, m->s[s].token, outcome, 0);
    m->fx[m->fx_count - 1].was_parked = true;
    m_unpark(m, s);
}

static inline void m_settle(struct model *m, int qi)
{
    struct m_queue *q = &m->q[qi];

    for (;;) {
        if (q->getters.n > 0 && q->ready.n > 0) {
            m_answer(m, q->getters.at[0], BROKER_REPLY_ITEM);
        } else if (q->shut_down && q->putters.n > 0) {
            m_answer(m, q->putters.at[0], BROKER_REPLY_SHUTDOWN);
        } else if (q->shut_down && q->getters.n > 0) {
            m_answer(m, q->getters.at[0], BROKER_REPLY_SHUTDOWN);
        } else if (q->joiners.n > 0 && q->unfinished == 0) {
            m_answer(m, q->joiners.at[0], BROKER_REPLY_NONE);
        } else if (q->putters.n > 0 && !m_full(q)) {
            int s = q->putters.at[0];

            m_accept(m, s, qi, m->s[s].wait_item);
            m_answer(m, s, BROKER_REPLY_NONE);
        } else {
            return;
        }
    }
}

static inline void m_park(struct model *m, const struct broker_event *ev, int s, int qi, int item)
{
    struct m_session *ms = &m->s[s];
    struct m_queue *q = &m->q[qi];

    ms->wait = (int)ev->kind;
    ms->wait_q = qi;
    ms->wait_item = item;
    ms->token = ev->token;
    ms->due_ms = UINT64_MAX;
    if (ev->kind != BROKER_JOIN && ev->wait_mode == BROKER_WAIT_MS) {
        ms->due_ms = m->now_ms + ev->wait_ms;
        ms->due_seq = m->due_seq++;
    }
    struct m_list *l = ev->kind == BROKER_GET   ? &q->getters
                       : ev->kind == BROKER_PUT ? &q->putters
                                                : &q->joiners;
    m_insert(l, l->n, s);
}

static inline uint32_t m_explicit_count(const struct model *m, int s)
{
    uint32_t n = 0;

    for (int i = 0; i < m->s[s].held.n; i++)
        n += m_ack_of(m, m->s[s].held.at[i]) == BROKER_ACK_EXPLICIT;
    return n;
}

static inline void m_task_done(struct model *m, int s, int qi, uint64_t token)
{
    struct m_list *held = &m->s[s].held;

    m_progress(m, s);
    if (m->q[qi].conf.ack == BROKER_ACK_EXPLICIT)
        for (int i = 0; i < held->n; i++)
            if (m->items[held->at[i]].q == qi) {
                m_remove_at(held, i);
                m->acked++;
                break;
            }
    m_reply(m, s, qi, token, m->q[qi].unfinished > 0 ? BROKER_REPLY_NONE : BROKER_REPLY_TOO_MANY_DONE, 0);
    if (m->q[qi].unfinished > 0)
        m->q[qi].unfinished--;
}

/* A call of the peer; `item` is the put's. */
static inline void m_call(struct model *m, const struct broker_event *ev, int s, int qi, int item)
{
    struct m_queue *q = &m->q[qi];
    bool may_wait =
        ev->wait_mode == BROKER_WAIT_FOREVER || (ev->wait_mode == BROKER_WAIT_MS && ev->wait_ms > 0);

    m_delivered(m, s);
    switch (ev->kind) {
    case BROKER_PUT:
        if (q->shut_down) {
            m_reply(m, s, qi, ev->token, BROKER_REPLY_SHUTDOWN, 0);
        } else if (!m_full(q)) {
            m_accept(m, s, qi, item);
            m_reply(m, s, qi, ev->token, BROKER_REPLY_NONE, 0);
        } else if (may_wait) {
            m_park(m, ev, s, qi, item);
        } else {
            m_reply(m, s, qi, ev->token, BROKER_REPLY_FULL, 0);
        }
        break;
    case BROKER_GET:
        m_progress(m, s);
        if (q->shut_down && q->ready.n == 0)
            m_reply(m, s, qi, ev->token, BROKER_REPLY_SHUTDOWN, 0);
        else if (q->conf.ack == BROKER_ACK_EXPLICIT && m_explicit_count(m, s) >= m->held_max)
            m_reply(m, s, qi, ev->token, BROKER_REPLY_TOO_MANY_HELD, 0);
        else if (q->ready.n > 0)
            m_hand_out(m, s, qi, ev->token);
        else if (may_wait)
            m_park(m, ev, s, qi, -1);
        else
            m_reply(m, s, qi, ev->token, BROKER_REPLY_EMPTY, 0);
        break;
    case BROKER_QSIZE:
        m_reply(m, s, qi, ev->token, BROKER_REPLY_INT, q->ready.n);
        break;
    case BROKER_EMPTY:
        m_reply(m, s, qi, ev->token, BROKER_REPLY_BOOL, q->ready.n == 0);
        break;
    case BROKER_FULL:
        m_reply(m, s, qi, ev->token, BROKER_REPLY_BOOL, m_full(q));
        break;
    case BROKER_TASK_DONE:
        m_task_done(m, s, qi, ev->token);
        break;
    case BROKER_JOIN:
        if (q->unfinished > 0)
            m_park(m, ev, s, qi, -1);
        else
            m_reply(m, s, qi, ev->token, BROKER_REPLY_NONE, 0);
        break;
    default: /* BROKER_SHUTDOWN */
        q->shut_down = true;
        while (ev->immediate && q->ready.n > 0) {
            m_pop(m, q);
            m->dropped++;
            if (q->unfinished > 0)
                q->unfinished--;
        }
        m_reply(m, s, qi, ev->token, BROKER_REPLY_NONE, 0);
    }
    m_settle(m, qi);
}

static inline void m_close(struct model *m, int s, enum broker_close_mode mode)
{
    struct m_list *held = &m->s[s].held;

    if (m->s[s].wait >= 0)
        m_unpark(m, s);
    for (int pass = 0; pass < 2; pass++) /* the explicit ones first */
        for (int i = held->n - 1; i >= 0; i--) {
            int item = held->at[i];
            bool is_explicit = m_ack_of(m, item) == BROKER_ACK_EXPLICIT;

            if (is_explicit != (pass == 0))
                continue;
            m_remove_at(held, i);
            if (mode == BROKER_CLOSE_ACK && !is_explicit && m->items[item].delivered) {
                m->acked++;
                continue;
            }
            m->items[item].attempt += m->items[item].delivered;
            m_push(m, &m->q[m->items[item].q], item, true);
        }
    for (int q = 0; q < MODEL_QUEUES; q++)
        m_settle(m, q);
}

static inline void m_bounce(struct model *m, int s, int item)
{
    m_remove(&m->s[s].held, item);
    m_push(m, &m->q[m->items[item].q], item, true);
    m_settle(m, m->items[item].q);
}

/* Which session's wait is due next, or -1. */
static inline int m_due(const struct model *m)
{
    int first = -1;

    for (int s = 0; s < RIG_SESSIONS; s++) {
        const struct m_session *a = &m->s[s];

        if (a->wait < 0 || a->due_ms > m->now_ms)
            continue;
        if (first < 0 || a->due_ms < m->s[first].due_ms ||
            (a->due_ms == m->s[first].due_ms && a->due_seq < m->s[first].due_seq))
            first = s;
    }
    return first;
}

#endif
