/* The model of test_broker_outcomes_model.c: what each task is, where it stands, who holds it and who waits
 * for it, moved by calls that know nothing of how the broker does it; and the comparison with what can be
 * seen of the broker. */
#ifndef TESTS_UNIT_OUTCOMES_MODEL_H
#define TESTS_UNIT_OUTCOMES_MODEL_H

#include <inttypes.h>

#include "tests/unit/broker_native_rig.h"

#define TASKS     120
#define KEYS      6
#define LIST_MAX  256
#define WAITS_MAX 64
#define SESSIONS  6

enum { WORK, PLAIN, RESULTS, DEAD, REPLY0, REPLY1, QUEUES };
enum m_kind { M_TASK, M_RESULT, M_DEAD };
enum m_where { M_READY, M_DELAYED, M_LEASED, M_KEPT };

#define OWN_POLICY (-1)
#define OWN_NONE   (-2)
#define NO_KEY     (-1)
#define NO_VALUE   (-1)

struct m_task {
    uint64_t id, of;
    enum m_kind kind;
    enum m_where where;
    int q, from, own, key, s, value;
    uint32_t epoch; /* of the last hand-out of the task, or of the result: what takes a place begins anew */
    uint32_t last_epoch; /* of all hand-outs under that id */
    uint32_t attempts, attempts_before, max_attempts, tries;
    uint64_t due_ms, expires_ms, limit_ms, grace_ms;
    uint32_t retention_ms;
    enum broker_task_outcome outcome;
    char error[8];
};

struct m_list {
    uint64_t ids[LIST_MAX];
    int n;
};

struct m_wait {
    int s;
    uint64_t token, id;
};

struct m_told { /* an effect that has to come */
    uint64_t token, id;
    enum broker_task_outcome outcome;
    int value, s;
};

struct m_queue {
    struct broker_queue *q;
    struct broker_queue_conf conf;
    struct m_list ready;
    int64_t unfinished;
};

struct m_session {
    struct m_list held; /* oldest first */
    struct broker_lease_name freed[LIST_MAX];
    int freed_count;
    bool detached, silent;
};

struct model {
    struct nr r;
    uint64_t random;
    struct m_task tasks[TASKS];
    int count;
    struct m_queue q[QUEUES];
    struct m_session s[SESSIONS];
    struct m_wait waits[WAITS_MAX];
    int wait_count;
    struct m_told told[WAITS_MAX];
    int told_count;
    bool is_late;                     /* there was no memory to tell them; a little later there is */
    struct broker_lease_name old[64]; /* leases that there were once */
    uint64_t last_id;
    int next_value;
    uint64_t accepted, ended, revived, dead, results, removed, stale, resumed, refused;
};

static inline uint32_t below(struct model *m, uint32_t n)
{
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((m->random >> 33) % n);
}

static inline bool one_in(struct model *m, uint32_t n)
{
    return below(m, n) == 0;
}

/* ---- lists ---- */

static inline void add(struct m_list *l, int at, uint64_t id)
{
    assert_true(l->n < LIST_MAX);
    memmove(&l->ids[at + 1], &l->ids[at], (size_t)(l->n - at) * sizeof(id));
    l->ids[at] = id;
    l->n++;
}

static inline void take_away(struct m_list *l, uint64_t id)
{
    for (int i = 0; i < l->n; i++)
        if (l->ids[i] == id) {
            l->n--;
            memmove(&l->ids[i], &l->ids[i + 1], (size_t)(l->n - i) * sizeof(id));
            return;
        }
    fail_msg("%" PRIu64 " is not in the list", id);
}

static inline struct m_task *find(struct model *m, uint64_t id)
{
    for (int i = 0; i < m->count; i++)
        if (m->tasks[i].id == id)
            return &m->tasks[i];
    return NULL;
}

static inline struct m_task *any_task(struct model *m)
{
    return m->count > 0 ? &m->tasks[below(m, (uint32_t)m->count)] : NULL;
}

/* ---- what happens to a task ---- */

/* Out of where it stands. */
static inline void leave(struct model *m, struct m_task *t)
{
    if (t->where == M_READY)
        take_away(&m->q[t->q].ready, t->id);
    else if (t->where == M_LEASED)
        take_away(&m->s[t->s].held, t->id);
}

static inline void enter(struct model *m, struct m_task *t, int q, bool front)
{
    t->where = M_READY;
    t->q = q;
    add(&m->q[q].ready, front ? 0 : m->q[q].ready.n, t->id);
}

static inline void tell(struct model *m, const struct m_task *t, enum broker_task_outcome outcome, int value)
{
    for (int i = 0; i < m->wait_count; i++)
        if (m->waits[i].id == t->id) {
            m->told[m->told_count++] = (struct m_told){.token = m->waits[i].token,
                                                       .id = t->id,
                                                       .outcome = outcome,
                                                       .value = value,
                                                       .s = m->waits[i].s};
            m->waits[i--] = m->waits[--m->wait_count];
        }
}

static inline void forget(struct model *m, struct m_task *t)
{
    *t = m->tasks[--m->count];
}

/* The result or dead letter t is dealt with, or taken away (drop). */
static inline void collect(struct model *m, struct m_task *t, bool drop)
{
    if (t->where != M_KEPT)
        m->q[t->q].unfinished--;
    leave(m, t);
    if (t->kind == M_RESULT && !drop && t->retention_ms > 0) {
        t->where = M_KEPT;
        t->expires_ms = m->r.now_ms + t->retention_ms;
    } else {
        forget(m, t);
    }
}

/* A notice has an id that the model cannot know: the one that was not there before. */
static inline void find_notice(struct model *m, const struct m_task *of, int own, const char *error)
{
    struct m_task *t = &m->tasks[m->count++];
    struct broker_view v;
    uint64_t resume;
    unsigned budget = 1000000;

    assert_true(broker_view_next(m->r.b, m->last_id + 1, &budget, &v, &resume));
    assert_true(m->count < TASKS);
    m->last_id = v.id;
    *t = *of;
    t->id = v.id;
    t->of = of->id;
    t->kind = M_RESULT;
    t->value = NO_VALUE;
    t->key = of->key;
    t->epoch = t->last_epoch = t->attempts = t->retention_ms = 0;
    memcpy(t->error, error, sizeof(t->error));
    m->q[own].unfinished++;
    enter(m, t, own, false);
}

/* A task ends. error: NULL for its last one. */
static inline void end(struct model *m, struct m_task *t, enum broker_task_outcome outcome, int value,
                       const char *error)
{
    const struct broker_queue_conf *c = &m->q[t->q].conf;
    bool drop = outcome == BROKER_OUTCOME_CANCELED;
    bool dead = !drop && outcome != BROKER_OUTCOME_OK && c->dead != NULL;
    int to = t->own >= 0 ? t->own : t->own == OWN_POLICY && c->result != NULL ? RESULTS : -1;

    assert_int_equal(t->kind, M_TASK);
    assert_int_equal(t->outcome, BROKER_OUTCOME_NONE);
    m->ended++;
    m->q[t->q].unfinished--;
    leave(m, t);
    if (drop && t->own < 0) {
        tell(m, t, outcome, NO_VALUE);
        m->removed++;
        forget(m, t);
        return;
    }
    t->from = t->q;
    t->outcome = outcome;
    t->tries = t->attempts + (outcome == BROKER_OUTCOME_OK ? 1 : 0);
    t->attempts = t->epoch = 0;
    t->expires_ms = t->due_ms = 0;
    if (outcome == BROKER_OUTCOME_OK)
        error = "";
    if (error != NULL)
        snprintf(t->error, sizeof(t->error), "%s", error);
    if (dead) {
        m->dead++;
        t->kind = M_DEAD;
        to = DEAD;
    } else {
        m->results++;
        t->kind = M_RESULT;
        t->value = value;
        if (t->retention_ms == BROKER_RETENTION_AUTO)
            t->retention_ms = c->retention_ms;
        if (t->retention_ms == BROKER_RETENTION_AUTO)
            t->retention_ms = to < 0 || t->key != NO_KEY ? 300000 : 0;
    }
    tell(m, t, outcome, t->value);
    if (to >= 0) {
        m->q[to].unfinished++;
        enter(m, t, to, false);
    } else if (t->retention_ms > 0) {
        t->where = M_KEPT;
        t->expires_ms = m->r.now_ms + t->retention_ms;
    } else {
        forget(m, t);
        return;
    }
    if (dead && t->own >= 0)
        find_notice(m, t, t->own, t->error);
}

static inline bool is_over(const struct model *m, const struct m_task *t)
{
    return t->kind == M_TASK && t->expires_ms != 0 && t->expires_ms <= m->r.now_ms;
}

/* It comes back to the front, unless its time is over. */
static inline void back(struct model *m, struct m_task *t)
{
    if (is_over(m, t)) {
        end(m, t, BROKER_OUTCOME_EXPIRED, NO_VALUE, NULL);
        return;
    }
    leave(m, t);
    enter(m, t, t->q, true);
}

static inline void died(struct model *m, struct m_task *t)
{
    const struct broker_queue_conf *c = &m->q[t->q].conf;

    t->attempts++;
    if (t->kind == M_TASK && c->max_deliveries > 0 && t->attempts >= c->max_deliveries)
        end(m, t, BROKER_OUTCOME_LOST, NO_VALUE, NULL);
    else
        back(m, t);
}

/* ---- the broker has to agree ---- */

static const char *state_of(const struct m_task *t)
{
    static const char *const ended[] = {[M_TASK] = "ready", [M_RESULT] = "done", [M_DEAD] = "dead"};

    return t->where == M_LEASED ? "leased" : t->where == M_DELAYED ? "delayed" : ended[t->kind];
}

static inline void key_name(int key, char name[8])
{
    if (key == NO_KEY)
        name[0] = 0;
    else
        snprintf(name, 8, "key%d", key);
}

static inline void assert_value(const struct broker_payload *p, int value)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", value);
    if (value == NO_VALUE)
        assert_null(p->data);
    else
        assert_span(tq_span(p->data, p->len), text);
}

static inline void compare(struct model *m, const struct m_task *t)
{
    struct broker_view v = nr_view(&m->r, t->id);
    char key[8];

    key_name(t->key, key);
    assert_string_equal(v.state, state_of(t));
    assert_ptr_equal(v.queue, t->where == M_KEPT ? NULL : m->q[t->q].q);
    assert_int_equal(v.of, t->of != 0 ? t->of : t->id);
    assert_int_equal(v.attempt, t->attempts + 1);
    assert_int_equal(v.outcome, t->outcome);
    assert_int_equal(v.tries, t->tries);
    assert_int_equal(v.expires_ms, t->expires_ms);
    assert_int_equal(v.due_ms, t->where == M_DELAYED ? t->due_ms : 0);
    assert_value(&v.payload, t->value);
    assert_span(v.key, key);
    assert_span(v.error, t->error);
    assert_string_equal(v.from, t->kind == M_TASK ? "" : broker_queue_name(m->q[t->from].q));
    if (t->where == M_LEASED)
        assert_int_equal(v.epoch, t->epoch);
}

static inline void agree(struct model *m)
{
    struct broker_stats st = nr_stats(&m->r);
    uint64_t leased = 0, delayed = 0, kept = 0;

    for (int i = 0; i < m->count; i++) {
        compare(m, &m->tasks[i]);
        leased += m->tasks[i].where == M_LEASED;
        delayed += m->tasks[i].where == M_DELAYED;
        kept += m->tasks[i].where == M_KEPT;
    }
    assert_int_equal(st.tasks, m->count);
    assert_int_equal(st.leased, leased);
    assert_int_equal(st.delayed, delayed);
    assert_int_equal(st.kept, kept);
    assert_int_equal(st.waiting, m->wait_count + m->told_count);
    assert_int_equal(st.stale, m->stale);
    assert_int_equal(st.dead, m->dead);
    for (int i = 0; i < QUEUES; i++) {
        assert_int_equal(broker_queue_size(m->q[i].q), m->q[i].ready.n);
        assert_int_equal(nr_queue_stats(&m->r, m->q[i].q).unfinished, m->q[i].unfinished);
    }
    for (int i = 0; i < SESSIONS; i++)
        assert_int_equal(m->r.s[i].held_count, m->s[i].held.n);
}

/* The effects behind the first `own` ones tell whoever waited for what ended, each once. */
static inline void expect_told(struct model *m, size_t own)
{
    for (size_t i = own; i < m->r.fx.count; i++) {
        const struct broker_effect *e = &m->r.fx.list[i];
        int k = 0;

        while (k < m->told_count && m->told[k].token != e->token)
            k++;
        if (k == m->told_count)
            fail_msg("nobody waits for effect %zu (outcome %d)", i, (int)e->outcome);
        assert_int_equal(e->outcome, BROKER_REPLY_RESULT);
        assert_ptr_equal(e->session, &m->r.s[m->told[k].s]);
        assert_int_equal(e->copy->id, m->told[k].id);
        assert_int_equal(e->copy->outcome, m->told[k].outcome);
        if (!m->is_late) /* or the result was collected meanwhile, without memory for a copy */
            assert_value(&e->copy->payload, m->told[k].value);
        m->told[k] = m->told[--m->told_count];
    }
    assert_true(m->told_count == 0 || m->is_late);
    agree(m);
}

#endif
