/* Requests, as they reach the master: what each has to do is done to the model, and what has to be answered
 * is noted. */
#include <inttypes.h>
#include <string.h>

#include "common/assert.h"
#include "master/core/broker.h"
#include "tests/sim/model.h"
#include "tests/sim/sim.h"

/* All fields that any request may have; values as they came. */
struct fields {
    int q;
    bool has_q, has_id, has_token;
    int64_t wait_ms;
    uint64_t id, ms;
    uint32_t max, call, heartbeat_ms;
    bool take, or_to;
    int key, to;
    struct tq_span worker, token, tasks, opts, done, fail, get, ids, leases;
    int64_t concurrency, maxsize, max_attempts, lease_ms;
};

static int queue_of(struct tq_span name)
{
    for (int i = 0; i < M_QUEUES; i++)
        if (tq_span_is(name, m_queue_names[i]))
            return i;
    return M_NONE;
}

static int key_of(struct tq_span key)
{
    int n = 0;

    for (size_t i = 1; i < key.len; i++)
        n = n * 10 + (key.data[i] - '0');
    return n;
}

static uint64_t number(struct tq_mp *in)
{
    uint64_t v = 0;
    bool is_read = tq_mp_u64(in, &v);

    TQ_ASSERT(is_read);
    return v;
}

static struct tq_span bytes(struct tq_mp *in)
{
    struct tq_span v = {0};
    bool is_read = tq_mp_str(in, &v) || tq_mp_bin(in, &v);

    TQ_ASSERT(is_read);
    return v;
}

static bool read_value_field(struct fields *f, struct tq_span name, struct tq_mp *in)
{
    if (tq_span_is(name, "q")) {
        f->q = queue_of(bytes(in));
        f->has_q = true;
    } else if (tq_span_is(name, "wait_ms")) {
        (void)tq_mp_i64(in, &f->wait_ms);
    } else if (tq_span_is(name, "max")) {
        f->max = (uint32_t)number(in);
    } else if (tq_span_is(name, "take")) {
        (void)tq_mp_bool(in, &f->take);
    } else if (tq_span_is(name, "id")) {
        f->id = number(in);
        f->has_id = true;
    } else if (tq_span_is(name, "ms")) {
        f->ms = number(in);
    } else if (tq_span_is(name, "call")) {
        f->call = (uint32_t)number(in);
    } else if (tq_span_is(name, "heartbeat_ms")) {
        f->heartbeat_ms = (uint32_t)number(in);
    } else if (tq_span_is(name, "key")) {
        f->key = key_of(bytes(in));
    } else if (tq_span_is(name, "to")) {
        f->to = queue_of(bytes(in));
    } else if (tq_span_is(name, "or_to")) {
        f->to = queue_of(bytes(in));
        f->or_to = true;
    } else if (tq_span_is(name, "worker")) {
        f->worker = bytes(in);
    } else if (tq_span_is(name, "token")) {
        f->token = bytes(in);
        f->has_token = true;
    } else {
        return false;
    }
    return true;
}

static void read_field(struct fields *f, struct tq_span name, struct tq_mp *in)
{
    struct {
        const char *name;
        struct tq_span *into;
    } raw[] = {{"tasks", &f->tasks}, {"opts", &f->opts}, {"done", &f->done},    {"fail", &f->fail},
               {"get", &f->get},     {"ids", &f->ids},   {"leases", &f->leases}};
    struct {
        const char *name;
        int64_t *into;
    } policies[] = {{"concurrency", &f->concurrency},
                    {"maxsize", &f->maxsize},
                    {"max_attempts", &f->max_attempts},
                    {"lease_ms", &f->lease_ms}};

    if (read_value_field(f, name, in))
        return;
    for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++)
        if (tq_span_is(name, raw[i].name)) {
            (void)tq_mp_raw(in, raw[i].into);
            return;
        }
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
        if (tq_span_is(name, policies[i].name)) {
            *policies[i].into = (int64_t)number(in);
            return;
        }
    (void)tq_mp_skip(in);
}

static void read_fields(struct fields *f, struct tq_mp *in)
{
    uint32_t pairs = 0;

    *f = (struct fields){.q = M_NONE,
                         .key = M_NONE,
                         .to = M_NONE,
                         .max = 1,
                         .concurrency = -1,
                         .maxsize = -1,
                         .max_attempts = -1,
                         .lease_ms = -1};
    (void)tq_mp_map(in, &pairs);
    for (uint32_t i = 0; i < pairs; i++) {
        struct tq_span name = bytes(in);

        read_field(f, name, in);
    }
}

/* An array's elements come next in *in. */
static uint32_t elements(struct tq_span raw, struct tq_mp *in)
{
    uint32_t count = 0;

    *in = tq_mp_of(raw);
    if (raw.len > 0)
        (void)tq_mp_array(in, &count);
    TQ_ASSERT(count <= M_BATCH);
    return count;
}

static uint64_t until(const struct model *m, int64_t wait_ms)
{
    return wait_ms < 0 ? M_NEVER : m->now + (uint64_t)wait_ms;
}

static void refuse(struct m_call *c, uint64_t id)
{
    c->refused[c->refused_count++] = id;
}

/* ---- put ---- */

static void read_options(struct m_item *t, struct tq_mp *in)
{
    uint32_t pairs = 0;
    int64_t signed_number = 0;

    if (!tq_mp_map(in, &pairs)) {
        (void)tq_mp_skip(in);
        return;
    }
    for (uint32_t i = 0; i < pairs; i++) {
        struct tq_span name = bytes(in);

        if (tq_span_is(name, "key")) {
            t->key = key_of(bytes(in));
        } else if (tq_span_is(name, "priority")) {
            (void)tq_mp_i64(in, &signed_number);
            t->prio = (int)signed_number;
        } else if (tq_span_is(name, "delay_ms")) {
            t->delay = number(in);
        } else if (tq_span_is(name, "ttl_ms")) {
            t->ttl = number(in);
        } else if (tq_span_is(name, "max_attempts")) {
            t->max_attempts = (uint32_t)number(in);
        } else if (tq_span_is(name, "retention_ms")) {
            t->retention = (uint32_t)number(in);
        } else if (tq_span_is(name, "result")) {
            t->own = tq_mp_nil(in) ? M_NONE : queue_of(bytes(in));
        } else {
            (void)tq_mp_skip(in);
        }
    }
}

static void on_put(struct model *m, struct m_call *c, struct fields *f)
{
    struct tq_mp in;
    bool is_bounded;

    c->is_new_work = !m_holds(m, m_session_of(m, c->conn));
    is_bounded = m->q[f->q].maxsize > 0 || (c->is_new_work && m->no_room);
    c->q = f->q;
    c->count = c->fail_at = elements(f->tasks, &in);
    c->parked = is_bounded && f->wait_ms != 0; /* may be */
    c->must_answer = !c->parked;
    c->until = until(m, f->wait_ms);
    for (uint32_t i = 0; i < c->count; i++) {
        uint32_t parts = 0;
        struct tq_span body = {0};
        struct m_item *t, *first;

        (void)tq_mp_array(&in, &parts);
        (void)tq_mp_raw(&in, &body);
        t = m_new(m, f->q, sim_value_in(body.data, body.len));
        t->call = (int)(c - m->calls);
        c->items[i] = (int)(t - m->items);
        if (parts > 1)
            read_options(t, &in);
        first = m_by_key(m, f->q, t->key);
        if (first != NULL) {
            m->known++;
            c->known[i] = true;
            c->items[i] = (int)(first - m->items);
            m_move(m, t, M_GONE, t->q);
        } else if (!is_bounded) {
            m_accept(m, t);
        } else {
            t->lo = m->place;
            t->hi = INT64_MAX;
        }
    }
}

/* ---- get, done ---- */

static void park_get(struct model *m, struct m_call *c, const struct fields *f)
{
    c->q = f->q;
    c->is_get = true;
    c->max = f->max;
    c->take = f->take;
    c->parked = f->wait_ms != 0;
    c->must_answer = !c->parked;
    c->until = until(m, f->wait_ms);
}

static struct m_named read_lease(struct tq_mp *in, uint32_t *ret_parts)
{
    struct m_named name;

    *ret_parts = 0;
    (void)tq_mp_array(in, ret_parts);
    TQ_ASSERT(*ret_parts >= 2);
    name.id = number(in);
    name.epoch = (uint32_t)number(in);
    *ret_parts -= 2;
    return name;
}

/* A result is one that was computed for this task under this lease. */
static void check_value(struct model *m, const struct m_item *t, const struct m_named *name, int value)
{
    if (t->kind == M_TASK && value >= 0 &&
        (m->computed[value].id != name->id || m->computed[value].epoch != name->epoch ||
         m->computed[value].task != t->val))
        sim_fail(m->sim, "%" PRIu64 " gets a result that was not computed for it", name->id);
}

static void on_done_one(struct model *m, struct m_call *c, struct tq_mp *in, int to)
{
    uint32_t parts = 0;
    struct m_named name = read_lease(in, &parts);
    struct m_item *t = m_lease(m, m_session_of(m, c->conn), name.id, name.epoch);
    struct tq_span raw = {0};
    int value = M_NONE;

    if (parts > 0 && tq_mp_raw(in, &raw))
        value = sim_value_in(raw.data, raw.len);
    if (t == NULL) {
        m->stale++;
        refuse(c, name.id);
        return;
    }
    c->ok++;
    check_value(m, t, &name, value);
    m_end(m, t, O_OK, value, to);
}

static void on_fail_one(struct model *m, struct m_call *c, struct tq_mp *in, int to)
{
    uint32_t parts = 0, pairs = 0;
    struct m_named name = read_lease(in, &parts);
    struct m_item *t = m_lease(m, m_session_of(m, c->conn), name.id, name.epoch);
    bool final = false, has_delay = false;
    uint64_t delay_ms = 0;

    if (parts > 0 && tq_mp_map(in, &pairs)) {
        for (uint32_t i = 0; i < pairs; i++) {
            struct tq_span key = bytes(in);

            if (tq_span_is(key, "final")) {
                (void)tq_mp_bool(in, &final);
            } else if (tq_span_is(key, "delay_ms")) {
                has_delay = true;
                delay_ms = number(in);
            } else {
                (void)tq_mp_skip(in);
            }
        }
    }
    if (t == NULL) {
        m->stale++;
        refuse(c, name.id);
        return;
    }
    c->ok++;
    m_fail(m, t, final, has_delay, delay_ms, to);
}

static void on_done(struct model *m, struct m_call *c, struct fields *f)
{
    struct tq_mp in;
    uint32_t count = elements(f->done, &in);

    m->to_last = f->or_to;
    for (uint32_t i = 0; i < count; i++)
        on_done_one(m, c, &in, f->to);
    count = elements(f->fail, &in);
    for (uint32_t i = 0; i < count; i++)
        on_fail_one(m, c, &in, f->to);
    c->must_answer = f->get.len == 0;
    if (f->get.len > 0) {
        struct fields get;

        in = tq_mp_of(f->get);
        read_fields(&get, &in);
        park_get(m, c, &get);
    }
}

static void on_leases(struct model *m, struct m_call *c, struct fields *f)
{
    struct tq_mp in;
    struct m_named names[M_BATCH];
    uint32_t count = elements(f->leases, &in), parts;

    for (uint32_t i = 0; i < count; i++)
        names[i] = read_lease(&in, &parts);
    for (uint32_t i = 0; i < count; i++) {
        const struct m_named *n = &names[c->method == M_RELEASE ? count - 1 - i : i];
        struct m_item *t = m_lease(m, m_session_of(m, c->conn), n->id, n->epoch);
        uint64_t ms = f->ms;

        if (t == NULL) {
            m->stale++;
            refuse(c, n->id);
            continue;
        }
        c->ok++;
        if (c->method == M_RELEASE) {
            t->session = M_NONE;
            t->limit = M_NEVER;
            m_to_front(m, t);
            m_changed(m, t->q, false);
            continue;
        }
        if (ms == 0)
            ms = m->q[t->q].lease_ms;
        t->limit = ms > 0 ? m->now + ms : M_NEVER;
        m_changed(m, t->q, false);
    }
}

/* ---- waiting ---- */

static void on_wait(struct model *m, struct m_call *c, struct fields *f)
{
    struct m_item *t = f->has_id ? m_known(m, f->id) : m_by_key(m, f->q, f->key);

    c->until = until(m, f->wait_ms);
    if (t == NULL || t->state == M_GONE) {
        c->error = "unknown";
        return;
    }
    c->id = t->id;
    if (t->kind != M_TASK) {
        c->ended = true;
        c->outcome = t->outcome;
        c->value = t->kind == M_DEAD ? t->val : t->res;
        return;
    }
    c->parked = f->wait_ms != 0;
    c->must_answer = !c->parked;
}

static void on_join(struct model *m, struct m_call *c, struct fields *f)
{
    c->q = f->q;
    c->until = until(m, f->wait_ms);
    c->parked = f->wait_ms != 0 && (m->q[f->q].unfinished > 0 || m->q[f->q].counts[M_PENDING] > 0);
    c->must_answer = !c->parked;
}

static void on_cancel(struct model *m, struct m_call *c, struct fields *f)
{
    struct m_call *other = m_call_find(m, c->conn, f->call);

    c->number = other != NULL && other != c && other->parked;
    if (c->number) {
        other->error = "canceled";
        other->parked = false;
        other->must_answer = true;
    }
}

/* ---- admins ---- */

static void on_ids(struct model *m, struct m_call *c, struct fields *f)
{
    struct tq_mp in;
    uint32_t count = elements(f->ids, &in);

    for (uint32_t i = 0; i < count; i++) {
        uint64_t id = number(&in);
        struct m_item *t = m_known(m, id);

        if (t == NULL || t->state == M_GONE) {
            refuse(c, id);
        } else if (c->method == M_REMOVE) {
            c->ok++;
            m_remove(m, t);
        } else if (m_retry(m, t, m_session_of(m, c->conn))) {
            c->ok++;
        } else {
            refuse(c, id);
        }
    }
}

static void on_declare(struct model *m, const struct fields *f)
{
    struct m_queue *q = &m->q[f->q];
    const struct m_queue before = *q;

    if (f->concurrency >= 0)
        q->concurrency = (uint32_t)f->concurrency;
    if (f->maxsize >= 0)
        q->maxsize = (uint32_t)f->maxsize;
    if (f->max_attempts >= 0)
        q->max_attempts = (uint32_t)f->max_attempts;
    if (f->lease_ms >= 0)
        q->lease_ms = (uint32_t)f->lease_ms;
    if (memcmp(&before, q, sizeof(before)) != 0)
        m_changed(m, M_NONE, true);
}

/* ---- hello, bye ---- */

static void new_session(struct model *m, struct m_call *c, const struct fields *f)
{
    int session = m_session_new(m);
    struct m_session *s = &m->sessions[session];

    s->has_worker = f->worker.len > 0;
    if (s->has_worker)
        m_changed(m, M_NONE, true);
    TQ_ASSERT(f->worker.len < sizeof(s->worker));
    if (s->has_worker)
        memcpy(s->worker, f->worker.data, f->worker.len);
    s->heartbeat_ms = f->heartbeat_ms;
    s->conn = c->conn;
    s->heard_ms = m->now;
    m->conns[c->conn].session = session;
    c->session = session;
}

static void take_session(struct model *m, struct m_call *c, const struct fields *f, struct m_session *s)
{
    struct m_named names[M_BATCH];
    struct tq_mp in;
    uint32_t count = elements(f->leases, &in), parts;
    int session = (int)(s - m->sessions), old = s->conn;

    for (uint32_t i = 0; i < count; i++)
        names[i] = read_lease(&in, &parts);
    if (old >= 0) { /* the new connection takes it over */
        m_leave(m, old, true);
        m->conns[old].expect_close = true;
    }
    s->conn = c->conn;
    s->heartbeat_ms = f->heartbeat_ms;
    s->heard_ms = m->now;
    m->conns[c->conn].session = session;
    c->session = session;
    c->resumed = true;
    memcpy(s->token_before, f->token.data, sizeof(s->token_before));
    s->unconfirmed = true;
    m_changed(m, M_NONE, true);
    m_resume(m, session, names, count);
}

static bool is_token(const struct m_session *s, const struct fields *f)
{
    return f->has_token && s->has_token &&
           (memcmp(s->token, f->token.data, sizeof(s->token)) == 0 ||
            (s->unconfirmed && memcmp(s->token_before, f->token.data, sizeof(s->token)) == 0));
}

static void on_hello(struct model *m, struct m_call *c, struct fields *f)
{
    struct m_session *s = f->worker.len > 0 ? m_worker(m, f->worker) : NULL;

    c->session = M_NONE;
    if (m->conns[c->conn].session >= 0) {
        c->error = "refused";
        return;
    }
    if (s != NULL && is_token(s, f)) {
        /* The master may have forgotten it, if it holds nothing; then there is nothing to give back. */
        take_session(m, c, f, s);
        return;
    }
    if (s != NULL && s->conn >= 0) {
        c->error = "worker_taken";
        return;
    }
    if (s != NULL)
        m_session_end(m, (int)(s - m->sessions), false);
    new_session(m, c, f);
}

static void on_bye(struct model *m, struct m_call *c)
{
    int session = m_session_of(m, c->conn);

    m->sessions[session].conn = M_NONE; /* its calls end, this one is answered */
    for (int i = 0; i < m->call_count; i++)
        if (m->calls[i].used && m->calls[i].conn == c->conn && &m->calls[i] != c)
            m_call_drop(m, &m->calls[i]);
    m->conns[c->conn].session = M_NONE;
    m_session_end(m, session, true);
    m->conns[c->conn].expect_close = true;
}

/* ---- all ---- */

static const char *const method_names[M_METHODS] = {
    "hello", "put", "get",   "done",   "extend", "release", "wait",  "join",    "cancel",
    "ping",  "bye", "pause", "resume", "purge",  "remove",  "retry", "declare", "stats"};

static void handle(struct model *m, struct m_call *c, struct fields *f)
{
    switch (c->method) {
    case M_HELLO:
        on_hello(m, c, f);
        break;
    case M_PUT:
        on_put(m, c, f);
        break;
    case M_GET:
        park_get(m, c, f);
        break;
    case M_DONE:
        on_done(m, c, f);
        break;
    case M_EXTEND:
    case M_RELEASE:
        on_leases(m, c, f);
        break;
    case M_WAIT:
        on_wait(m, c, f);
        break;
    case M_JOIN:
        on_join(m, c, f);
        break;
    case M_CANCEL:
        on_cancel(m, c, f);
        break;
    case M_BYE:
        on_bye(m, c);
        break;
    case M_PAUSE:
    case M_RESUME:
        if (m->q[f->q].paused != (c->method == M_PAUSE))
            m_changed(m, M_NONE, true);
        m->q[f->q].paused = c->method == M_PAUSE;
        break;
    case M_PURGE:
        c->number = m_purge(m, f->q);
        break;
    case M_REMOVE:
    case M_RETRY:
        on_ids(m, c, f);
        break;
    case M_DECLARE:
        on_declare(m, f);
        break;
    case M_STATS:
        c->q = f->q;
        break;
    case M_PING:
    case M_METHODS:
        break;
    }
}

void m_request(struct model *m, int conn, struct tq_span payload)
{
    struct tq_mp in = tq_mp_of(payload);
    enum m_method method = M_HELLO;
    struct tq_span name = {0};
    struct fields f;
    uint32_t count = 0;
    uint32_t msgid;
    struct m_call *c;

    (void)tq_mp_array(&in, &count);
    TQ_ASSERT(count == 4 && number(&in) == 0);
    msgid = (uint32_t)number(&in);
    name = bytes(&in);
    while (method < M_METHODS && !tq_span_is(name, method_names[method]))
        method++;
    if (tq_span_is(name, "fail"))
        method = M_DONE; /* the same under another name */
    TQ_ASSERT(method < M_METHODS);
    read_fields(&f, &in);
    c = m_call_new(m, conn, msgid, method);
    c->must_answer = true;
    m->piecemeal = method == M_RETRY || method == M_REMOVE;
    /* Who says something has heard the last reply, if it was sent. */
    if (m_session_of(m, conn) >= 0 && m->sim->links[conn]->held_bytes.len == 0)
        m->sessions[m_session_of(m, conn)].unconfirmed = false;
    if (method != M_HELLO && m_session_of(m, conn) < 0)
        c->error = "hello_first";
    else
        handle(m, c, &f);
}
