/* Random calls of native sessions against a small model that knows of each id what it is, where it stands,
 * who holds it and what may happen to it. After each step all that can be seen of every task has to be what
 * the model says; what comes due by itself has to be allowed by the time. Every accepted task ends once: in a
 * result, in a dead letter, or removed; whoever waits for it is told that end; whatever is said of a lease
 * that is not held is refused and changes nothing. */
#include "tests/lib/effort.h"
#include "tests/unit/outcomes_model.h"

#define SEEDS EFFORT(40, 4)
#define STEPS 6000

/* ---- calls ---- */

static int any_session(struct model *m)
{
    for (int tries = 0; tries < 20; tries++) {
        int s = (int)below(m, SESSIONS);

        if (!m->s[s].detached)
            return s;
    }
    return -1;
}

static void do_put(struct model *m, int s)
{
    int q = one_in(m, 3) ? PLAIN : WORK;
    struct broker_put_options o = {0};
    struct m_task t = {.q = q,
                       .from = -1,
                       .own = OWN_POLICY,
                       .key = NO_KEY,
                       .where = M_READY,
                       .value = m->next_value++,
                       .retention_ms = BROKER_RETENTION_AUTO,
                       .max_attempts = m->q[q].conf.max_attempts};
    struct broker_event ev = nr_event(&m->r, BROKER_PUT, s);
    const struct m_task *known = NULL;
    uint64_t ttl_ms = m->q[q].conf.ttl_ms;
    char value[16], key[8];

    if (m->count > TASKS / 2)
        return;
    if (one_in(m, 3)) {
        t.key = (int)below(m, KEYS);
        key_name(t.key, key);
        o.key = tq_span_str(key);
        for (int i = 0; i < m->count; i++) {
            const struct m_task *x = &m->tasks[i];

            if (x->key == t.key && x->of == 0 && (x->kind == M_TASK ? x->q : x->from) == q)
                known = x;
        }
    }
    if (one_in(m, 3)) {
        t.own = one_in(m, 4) ? OWN_NONE : REPLY0 + (int)below(m, 2);
        o.has_result = true;
        o.result = t.own == OWN_NONE ? NULL : m->q[t.own].q;
    }
    if (one_in(m, 4)) {
        t.where = M_DELAYED;
        o.delay_ms = 1 + below(m, 300);
        t.due_ms = m->r.now_ms + o.delay_ms;
    }
    if (one_in(m, 5))
        ttl_ms = o.ttl_ms = 1 + below(m, 600);
    if (one_in(m, 5))
        t.max_attempts = o.max_attempts = (uint8_t)(1 + below(m, 4));
    if (one_in(m, 5)) {
        o.has_retention = true;
        t.retention_ms = o.retention_ms = one_in(m, 3) ? 0 : below(m, 500);
    }
    if (ttl_ms > 0)
        t.expires_ms = m->r.now_ms + ttl_ms;
    snprintf(value, sizeof(value), "%d", t.value);
    ev.queue = m->q[q].q;
    ev.payload = nr_payload(value);
    ev.options = &o;
    nr_call(&m->r, &ev);
    if (known != NULL) {
        assert_int_equal(m->r.fx.list[0].outcome, BROKER_REPLY_KNOWN);
        assert_int_equal(m->r.fx.list[0].id, known->id);
        assert_int_equal(m->r.fx.list[0].copy != NULL, known->kind != M_TASK);
        expect_told(m, 1);
        return;
    }
    assert_int_equal(m->r.fx.list[0].outcome, BROKER_REPLY_OK);
    t.id = m->r.fx.list[0].id;
    assert_true(t.id > m->last_id);
    m->last_id = t.id;
    m->accepted++;
    m->q[q].unfinished++;
    if (t.where == M_READY)
        add(&m->q[q].ready, m->q[q].ready.n, t.id);
    m->tasks[m->count++] = t;
    expect_told(m, 1);
}

static void do_get(struct model *m, int s, int q, bool take)
{
    struct broker_event ev = nr_event(&m->r, BROKER_GET, s);
    int n = m->q[q].ready.n;

    ev.queue = m->q[q].q;
    ev.max = 1 + below(m, 4);
    ev.take = take;
    nr_call(&m->r, &ev);
    n = n < (int)ev.max ? n : (int)ev.max;
    if (n == 0)
        assert_int_equal(m->r.fx.list[0].outcome, BROKER_REPLY_EMPTY);
    for (int i = 0; i < n; i++) {
        const struct broker_effect *e = &m->r.fx.list[i];
        struct m_task *t = find(m, m->q[q].ready.ids[0]);
        struct broker_view v;

        assert_int_equal(e->outcome, BROKER_REPLY_TASK);
        assert_int_equal(e->id, t->id);
        assert_int_equal(e->attempt, t->attempts + 1);
        assert_true(e->epoch > t->last_epoch);
        t->last_epoch = t->epoch = e->epoch;
        if (take) {
            assert_value(&e->copy->payload, t->value);
            collect(m, t, false);
            continue;
        }
        assert_true(broker_view_lease(m->r.b, e, &v));
        assert_value(&v.payload, t->value);
        leave(m, t);
        t->where = M_LEASED;
        t->s = s;
        t->attempts_before = t->attempts;
        t->limit_ms = m->q[q].conf.lease_ms > 0 ? m->r.now_ms + m->q[q].conf.lease_ms : UINT64_MAX;
        t->grace_ms = UINT64_MAX;
        add(&m->s[s].held, m->s[s].held.n, t->id);
        m->old[below(m, 64)] = (struct broker_lease_name){.id = t->id, .epoch = t->epoch};
    }
    expect_told(m, n == 0 ? 1 : (size_t)n + 1);
}

/* Makes a call, sometimes with an allocation that fails; true: it was refused for that, and the model is told
 * nothing of it. */
static bool is_refused(struct model *m, const struct broker_event *ev)
{
    int rv;

    if (one_in(m, 5)) {
        tq_mem_fail_after((long)below(m, 5), 1);
        m->is_late = true;
    }
    rv = nr_try(&m->r, ev);
    if (rv == 0 && nr_reply(&m->r, ev)->outcome != BROKER_REPLY_NO_MEMORY)
        return false;
    assert_true(m->is_late && (rv == 0 || rv == TQ_ENOMEM));
    m->refused++;
    expect_told(m, rv == 0 ? 1 : 0);
    return true;
}

/* A lease that the session holds; false: none. */
static bool any_lease(struct model *m, int s, struct nr_lease *ret)
{
    const struct m_list *held = &m->s[s].held;
    const struct m_task *t;

    if (held->n == 0)
        return false;
    t = find(m, held->ids[below(m, (uint32_t)held->n)]);
    *ret = (struct nr_lease){.s = s, .id = t->id, .epoch = t->epoch};
    return true;
}

static void done_one(struct model *m, struct nr_lease l, bool more)
{
    struct broker_event ev = nr_event(&m->r, BROKER_DONE, l.s);
    struct m_task *t = find(m, l.id);
    int v = one_in(m, 8) ? NO_VALUE : m->next_value++;
    char value[16];

    snprintf(value, sizeof(value), "%d", v);
    ev.id = l.id;
    ev.epoch = l.epoch;
    ev.more = more;
    if (v != NO_VALUE)
        ev.payload = nr_payload(value);
    if (is_refused(m, &ev))
        return;
    assert_int_equal(m->r.fx.list[0].outcome, BROKER_REPLY_OK);
    if (t->kind == M_TASK)
        end(m, t, BROKER_OUTCOME_OK, v, NULL);
    else
        collect(m, t, false);
    if (more)
        assert_int_equal(m->r.fx.count, 1);
    else
        expect_told(m, 1);
}

/* Several of one request. */
static void do_done(struct model *m, int s)
{
    struct nr_lease l;
    int n = (int)below(m, 3);

    if (!any_lease(m, s, &l))
        return;
    while (n-- > 0 && m->s[s].held.n > 1) {
        done_one(m, l, true);
        any_lease(m, s, &l);
    }
    done_one(m, l, false);
}

static void do_fail(struct model *m, int s)
{
    struct broker_event ev = nr_event(&m->r, BROKER_FAIL, s);
    struct broker_failure f = {.final = one_in(m, 6)};
    struct nr_lease l;
    struct m_task *t;
    char error[8];
    bool final;

    if (!any_lease(m, s, &l))
        return;
    t = find(m, l.id);
    snprintf(error, sizeof(error), "e%u", below(m, 1000));
    f.error = tq_span_str(error);
    if (one_in(m, 2)) {
        f.has_delay = true;
        f.delay_ms = one_in(m, 3) ? 0 : below(m, 300);
    }
    final = t->kind == M_RESULT ? f.final
            : t->kind == M_DEAD ? false
                                : f.final || (t->max_attempts > 0 && t->attempts + 1 >= t->max_attempts);
    ev.id = l.id;
    ev.epoch = l.epoch;
    ev.failure = &f;
    if (!final)
        nr_call(&m->r, &ev); /* without memory it would go on without its error */
    else if (is_refused(m, &ev))
        return;
    assert_int_equal(m->r.fx.list[0].outcome, BROKER_REPLY_OK);
    t->attempts++;
    assert_int_equal(m->r.fx.list[0].number, !final);
    if (final && t->kind == M_RESULT) {
        collect(m, t, false);
    } else if (final) {
        end(m, t, BROKER_OUTCOME_FAILED, NO_VALUE, error);
    } else {
        uint64_t most = (uint64_t)m->q[t->q].conf.retry_ms << (t->attempts - 1);
        uint64_t max = m->q[t->q].conf.retry_max_ms;

        most = most < max ? most : max;
        if (t->kind == M_TASK)
            memcpy(t->error, error, sizeof(error));
        if (f.has_delay && f.delay_ms == 0) {
            back(m, t);
        } else {
            leave(m, t);
            t->where = M_DELAYED;
            t->due_ms = nr_view(&m->r, l.id).due_ms;
            if (f.has_delay)
                assert_int_equal(t->due_ms, m->r.now_ms + f.delay_ms);
            else
                assert_true(t->due_ms >= m->r.now_ms + most / 2 && t->due_ms <= m->r.now_ms + most);
        }
    }
    expect_told(m, 1);
}

static void do_release(struct model *m, int s)
{
    struct nr_lease l;

    if (!any_lease(m, s, &l))
        return;
    assert_int_equal(nr_about(&m->r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    back(m, find(m, l.id));
    expect_told(m, 1);
}

static void do_extend(struct model *m, int s)
{
    uint64_t ms = one_in(m, 3) ? 0 : 1 + below(m, 800);
    struct nr_lease l;
    struct m_task *t;

    if (!any_lease(m, s, &l))
        return;
    assert_int_equal(nr_extend(&m->r, l, ms), BROKER_REPLY_OK);
    t = find(m, l.id);
    ms = ms > 0 ? ms : m->q[t->q].conf.lease_ms;
    t->limit_ms = ms > 0 ? m->r.now_ms + ms : UINT64_MAX;
    expect_told(m, 1);
}

/* Something that the session does not hold: an old epoch, another's lease, one that was freed. */
static void do_stale(struct model *m, int s)
{
    static const enum broker_event_kind kinds[] = {BROKER_DONE, BROKER_FAIL, BROKER_EXTEND, BROKER_RELEASE};
    struct broker_failure f = {.error = tq_span_str("stale"), .final = one_in(m, 2)};
    struct broker_event ev = nr_event(&m->r, kinds[below(m, 4)], s);
    const struct m_task *t = any_task(m);

    if (one_in(m, 2)) {
        const struct broker_lease_name *old = &m->old[below(m, 64)];

        ev.id = old->id;
        ev.epoch = old->epoch;
    } else if (m->s[s].freed_count > 0 && one_in(m, 2)) {
        const struct broker_lease_name *freed = &m->s[s].freed[below(m, (uint32_t)m->s[s].freed_count)];

        ev.id = freed->id;
        ev.epoch = freed->epoch;
    } else if (t != NULL) {
        ev.id = t->id + below(m, 2);
        ev.epoch = t->epoch + below(m, 3) - 1;
    }
    t = find(m, ev.id);
    if (t != NULL && t->where == M_LEASED && t->s == s && t->epoch == ev.epoch)
        return;
    ev.failure = &f;
    ev.payload = nr_payload("stale");
    assert_int_equal(nr_call(&m->r, &ev), BROKER_REPLY_STALE);
    m->stale++;
    expect_told(m, 1);
}

/* ---- sessions come and go ---- */

static void forget_waits(struct model *m, int s)
{
    for (int i = 0; i < m->wait_count; i++)
        if (m->waits[i].s == s)
            m->waits[i--] = m->waits[--m->wait_count];
    for (int i = 0; i < m->told_count; i++)
        if (m->told[i].s == s)
            m->told[i--] = m->told[--m->told_count];
}

static void give_back_all(struct model *m, int s, bool as_freed)
{
    struct m_session *ms = &m->s[s];

    while (ms->held.n > 0) {
        struct m_task *t = find(m, ms->held.ids[ms->held.n - 1]);

        if (as_freed)
            ms->freed[ms->freed_count++] = (struct broker_lease_name){.id = t->id, .epoch = t->epoch};
        died(m, t);
    }
}

static void do_close(struct model *m, int s)
{
    struct broker_event ev = {
        .kind = BROKER_SESSION_CLOSE, .session = &m->r.s[s], .close_mode = BROKER_CLOSE_RETURN};

    forget_waits(m, s);
    nr_step(&m->r, &ev);
    give_back_all(m, s, false);
    expect_told(m, 0);
    m->s[s].freed_count = 0;
    m->s[s].detached = m->s[s].silent = false;
    nr_open(&m->r, s);
}

static void do_detach(struct model *m, int s)
{
    bool free_now = one_in(m, 2);
    struct m_session *ms = &m->s[s];

    if (ms->freed_count + ms->held.n > LIST_MAX / 2)
        return;
    forget_waits(m, s);
    nr_detach(&m->r, s, free_now);
    ms->detached = true;
    if (free_now) {
        give_back_all(m, s, true);
    } else {
        ms->silent = true;
        for (int i = 0; i < ms->held.n; i++) {
            struct m_task *t = find(m, ms->held.ids[i]);

            t->grace_ms = m->r.now_ms + m->q[t->q].conf.grace_ms;
        }
    }
    expect_told(m, 0);
}

static void do_resume(struct model *m, int s)
{
    struct broker_lease_name names[LIST_MAX];
    bool keep[LIST_MAX] = {false}, expected[TASKS] = {false};
    struct m_session *ms = &m->s[s];
    struct m_list were = ms->held;
    uint32_t n = 0;
    int64_t count;

    for (int i = 0; i < were.n; i++) {
        struct m_task *t = find(m, were.ids[i]);

        keep[i] = !one_in(m, 5);
        if (keep[i])
            names[n++] = (struct broker_lease_name){.id = t->id, .epoch = t->epoch};
        else if (one_in(m, 2)) /* as good as not named */
            names[n++] = (struct broker_lease_name){.id = t->id, .epoch = t->epoch + 1};
    }
    for (int i = 0; i < ms->freed_count; i++)
        if (!one_in(m, 5))
            names[n++] = ms->freed[i];
    if (one_in(m, 3))
        names[n++] = m->old[below(m, 64)];
    for (uint32_t i = n; i > 1; i--) { /* in any order */
        struct broker_lease_name t = names[i - 1];
        uint32_t k = below(m, i);

        names[i - 1] = names[k];
        names[k] = t;
    }
    for (uint32_t i = 0; i < n; i++) /* the old one may just be a held one that was not to be named */
        for (int k = 0; k < were.n; k++)
            if (were.ids[k] == names[i].id && find(m, names[i].id)->epoch == names[i].epoch)
                keep[k] = true;
    count = nr_resume(&m->r, s, names, n);
    for (int i = were.n - 1; i >= 0; i--)
        if (!keep[i])
            back(m, find(m, were.ids[i]));
    for (int i = 0; i < ms->freed_count; i++) {
        struct m_task *t = find(m, ms->freed[i].id);
        bool named = false;

        for (uint32_t k = 0; k < n; k++)
            named |= names[k].id == ms->freed[i].id && names[k].epoch == ms->freed[i].epoch;
        if (!named || t == NULL || t->where != M_READY || t->epoch != ms->freed[i].epoch)
            continue;
        leave(m, t);
        t->where = M_LEASED;
        t->s = s;
        t->attempts = t->attempts_before;
        t->limit_ms = m->q[t->q].conf.lease_ms > 0 ? m->r.now_ms + m->q[t->q].conf.lease_ms : UINT64_MAX;
        add(&ms->held, ms->held.n, t->id);
        m->resumed++;
    }
    assert_int_equal(count, ms->held.n);
    for (int i = 0; i < ms->held.n;
         i++) { /* these, each once; its order is the one that counts from now on */
        struct m_task *t = find(m, m->r.fx.list[i].id);

        assert_true(t != NULL && t->where == M_LEASED && t->s == s && !expected[t - m->tasks]);
        assert_int_equal(m->r.fx.list[i].epoch, t->epoch);
        expected[t - m->tasks] = true;
        t->grace_ms = UINT64_MAX;
        ms->held.ids[i] = t->id;
    }
    ms->freed_count = 0;
    ms->detached = ms->silent = false;
    expect_told(m, (size_t)count + 1);
}

/* ---- by id ---- */

static void do_wait(struct model *m, int s)
{
    uint64_t id = m->last_id > 0 ? 1 + below(m, (uint32_t)m->last_id) : 1;
    const struct m_task *t = any_task(m);
    uint64_t token;

    if (t != NULL && !one_in(m, 5))
        id = t->id;
    t = find(m, id);
    if (m->wait_count == WAITS_MAX / 2)
        return;
    token = nr_wait(&m->r, s, id);
    if (t != NULL && t->kind == M_TASK) {
        m->waits[m->wait_count++] = (struct m_wait){.s = s, .token = token, .id = id};
        expect_told(m, 0);
        return;
    }
    assert_int_equal(m->r.fx.list[0].token, token);
    assert_int_equal(m->r.fx.list[0].outcome, t != NULL ? BROKER_REPLY_RESULT : BROKER_REPLY_UNKNOWN);
    if (t != NULL) {
        assert_int_equal(m->r.fx.list[0].copy->outcome, t->outcome);
        assert_value(&m->r.fx.list[0].copy->payload, t->value);
    }
    expect_told(m, 1);
}

static void do_cancel(struct model *m)
{
    struct broker_event ev = {.kind = BROKER_CANCEL};
    uint32_t i;

    if (m->wait_count == 0)
        return;
    i = below(m, (uint32_t)m->wait_count);
    ev.session = &m->r.s[m->waits[i].s];
    ev.token = m->waits[i].token;
    m->waits[i] = m->waits[--m->wait_count];
    nr_step(&m->r, &ev);
    expect_told(m, 0);
}

static void do_remove(struct model *m, int s)
{
    struct broker_event ev = nr_event(&m->r, BROKER_REMOVE, s);
    struct m_task *t = any_task(m);
    uint64_t id = one_in(m, 10) || t == NULL ? m->last_id + 1 : t->id;
    size_t own = 1;

    t = find(m, id);
    ev.id = id;
    if (is_refused(m, &ev))
        return;
    assert_int_equal(m->r.fx.list[0].outcome, t != NULL ? BROKER_REPLY_OK : BROKER_REPLY_UNKNOWN);
    if (t != NULL && t->where == M_LEASED && !m->s[t->s].silent) {
        assert_non_null(nr_find_told(&m->r, (struct nr_lease){.s = t->s, .id = id, .epoch = t->epoch}));
        own = 2;
    }
    if (t != NULL && t->kind == M_TASK)
        end(m, t, BROKER_OUTCOME_CANCELED, NO_VALUE, NULL);
    else if (t != NULL)
        collect(m, t, true);
    expect_told(m, own);
}

/* Who was to be told of its end, but was not yet: it has not ended any more. */
static void wait_again(struct model *m, uint64_t id)
{
    for (int i = 0; i < m->told_count; i++)
        if (m->told[i].id == id) {
            m->waits[m->wait_count++] =
                (struct m_wait){.s = m->told[i].s, .token = m->told[i].token, .id = id};
            m->told[i--] = m->told[--m->told_count];
        }
}

static void do_retry(struct model *m, int s)
{
    struct broker_event ev = nr_event(&m->r, BROKER_RETRY, s);
    struct m_task *t = any_task(m);
    enum broker_outcome outcome;

    if (m->q[DEAD].ready.n > 0 && !one_in(m, 4))
        t = find(m, m->q[DEAD].ready.ids[below(m, (uint32_t)m->q[DEAD].ready.n)]);
    if (t == NULL)
        return;
    ev.id = t->id;
    if (is_refused(m, &ev))
        return;
    outcome = m->r.fx.list[0].outcome;
    if (t->kind != M_DEAD || (t->where == M_LEASED && t->s != s)) {
        assert_int_equal(outcome, BROKER_REPLY_REFUSED);
        expect_told(m, 1);
        return;
    }
    assert_int_equal(outcome, BROKER_REPLY_OK);
    m->revived++;
    wait_again(m, t->id);
    leave(m, t);
    m->q[t->q].unfinished--;
    m->q[t->from].unfinished++;
    t->kind = M_TASK;
    t->outcome = BROKER_OUTCOME_NONE;
    t->tries = t->attempts = t->epoch = 0;
    enter(m, t, t->from, false);
    expect_told(m, 1);
}

/* ---- time ---- */

/* What may happen to the task by itself now. */
static bool is_due(const struct model *m, const struct m_task *t)
{
    uint64_t now_ms = m->r.now_ms;

    switch (t->where) {
    case M_LEASED:
        return t->limit_ms <= now_ms || (m->s[t->s].silent && t->grace_ms <= now_ms);
    case M_DELAYED:
        return t->due_ms <= now_ms || is_over(m, t);
    case M_READY:
        return is_over(m, t);
    default:
        return t->expires_ms <= now_ms;
    }
}

static void comes_due(struct model *m, struct m_task *t)
{
    struct m_session *ms = &m->s[t->s];

    switch (t->where) {
    case M_LEASED:
        if (t->limit_ms > m->r.now_ms)
            ms->freed[ms->freed_count++] = (struct broker_lease_name){.id = t->id, .epoch = t->epoch};
        died(m, t);
        return;
    case M_KEPT:
        forget(m, t);
        return;
    default:
        if (is_over(m, t)) {
            end(m, t, BROKER_OUTCOME_EXPIRED, NO_VALUE, NULL);
        } else {
            leave(m, t);
            enter(m, t, t->q, false);
        }
    }
}

static bool has_changed(struct model *m, const struct m_task *t)
{
    struct broker_view v;

    return !broker_view_task(m->r.b, t->id, &v) || strcmp(v.state, state_of(t)) != 0;
}

static void do_pass(struct model *m, uint64_t ms)
{
    uint64_t until_ms = m->r.now_ms + ms;

    while (nr_due(&m->r, until_ms)) {
        size_t own = 0;

        for (int i = 0; i < m->count; i++) {
            struct m_task *t = &m->tasks[i];

            if (!is_due(m, t) || !has_changed(m, t))
                continue;
            if (t->where == M_LEASED && t->limit_ms <= m->r.now_ms && !m->s[t->s].silent) {
                assert_non_null(
                    nr_find_told(&m->r, (struct nr_lease){.s = t->s, .id = t->id, .epoch = t->epoch}));
                own = 1;
            }
            comes_due(m, t);
            break; /* one at a time; all others have to be as they were */
        }
        expect_told(m, own);
    }
    m->r.now_ms = until_ms;
    if (ms >= 20) {
        assert_int_equal(m->told_count, 0);
        m->is_late = false;
    }
    for (int i = 0; i < m->count; i++)
        assert_false(is_due(m, &m->tasks[i]));
}

/* ---- runs ---- */

static void declare(struct model *m, int q, const char *name, struct broker_queue_conf c)
{
    m->q[q].q = nr_declare(&m->r, name, &c);
    m->q[q].conf = c;
}

static void model_init(struct model *m, uint64_t seed)
{
    struct broker_queue_conf work = nr_conf("results", "dead"), plain = nr_conf(NULL, NULL);
    struct broker_queue_conf results = nr_conf(NULL, NULL);

    memset(m, 0, sizeof(*m));
    nr_init(&m->r);
    m->random = seed * 0x9e3779b97f4a7c15u + 1;
    work.max_attempts = 3;
    work.max_deliveries = 3;
    work.lease_ms = 400;
    work.grace_ms = 150;
    work.retry_ms = 80;
    work.retry_max_ms = 200;
    plain.max_attempts = 2;
    plain.grace_ms = 300;
    plain.retention_ms = 700;
    plain.ttl_ms = 5000;
    results.lease_ms = 1000;
    declare(m, WORK, "work", work);
    declare(m, PLAIN, "plain", plain);
    declare(m, RESULTS, "results", results);
    declare(m, DEAD, "dead", results);
    declare(m, REPLY0, "reply0", results);
    declare(m, REPLY1, "reply1", results);
}

static void one_step(struct model *m)
{
    int s = any_session(m);
    uint32_t what = below(m, 100);

    if (s < 0 || what < 8) {
        int back_again = (int)below(m, SESSIONS);

        if (m->s[back_again].detached && !one_in(m, 8))
            do_resume(m, back_again);
        else if (!m->s[back_again].detached && !one_in(m, 4))
            do_detach(m, back_again);
        else if (one_in(m, 3))
            do_resume(m, back_again); /* says again what it holds */
        else
            do_close(m, back_again);
        return;
    }
    if (what < 22)
        do_put(m, s);
    else if (what < 40)
        do_get(m, s, (int)below(m, 2), false);
    else if (what < 47)
        do_get(m, s, RESULTS + (int)below(m, QUEUES - RESULTS), one_in(m, 2));
    else if (what < 60)
        do_done(m, s);
    else if (what < 67)
        do_fail(m, s);
    else if (what < 71)
        do_release(m, s);
    else if (what < 74)
        do_extend(m, s);
    else if (what < 81)
        do_stale(m, s);
    else if (what < 87)
        do_wait(m, s);
    else if (what < 89)
        do_cancel(m);
    else if (what < 91)
        do_remove(m, s);
    else if (what < 93)
        do_retry(m, s);
    else
        do_pass(m, one_in(m, 40) ? 400000 : one_in(m, 6) ? 2000 : 1 + below(m, 200));
}

/* All that is left ends, and is collected. */
static void drain(struct model *m)
{
    for (int s = 0; s < SESSIONS; s++)
        do_close(m, s);
    for (int round = 0; m->count > 0; round++) {
        assert_true(round < 1000);
        for (int q = 0; q < QUEUES; q++)
            while (m->q[q].ready.n > 0) {
                do_get(m, 0, q, false);
                while (m->s[0].held.n > 0)
                    do_done(m, 0);
            }
        do_pass(m, 400000);
    }
    for (int q = 0; q < QUEUES; q++)
        assert_int_equal(m->q[q].unfinished, 0);
    assert_int_equal(m->wait_count, 0);
    assert_int_equal(m->accepted + m->revived, m->ended);
    assert_int_equal(m->ended, m->results + m->dead + m->removed);
}

static void every_task_ends_once(void **state)
{
    static struct model m;
    uint64_t results = 0, dead = 0, removed = 0, revived = 0, resumed = 0, stale = 0, refused = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        jr_on = seed % 4 == 0;
        model_init(&m, seed);
        for (int i = 0; i < STEPS; i++)
            one_step(&m);
        drain(&m);
        results += m.results;
        dead += m.dead;
        removed += m.removed;
        revived += m.revived;
        resumed += m.resumed;
        stale += m.stale;
        refused += m.refused;
        nr_deinit(&m.r);
    }
    /* All of it has been met often. */
    assert_true(results > 200 * SEEDS && dead > 50 * SEEDS && removed > 20 * SEEDS);
    assert_true(revived > 20 * SEEDS && resumed > 20 * SEEDS && stale > 200 * SEEDS);
    assert_true(refused > 20 * SEEDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_ends_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
