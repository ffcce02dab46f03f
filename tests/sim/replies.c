/* Frames of the master: each reply has to be the one that the model expects. */
#include <inttypes.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker.h"
#include "tests/sim/model.h"
#include "tests/sim/sim.h"

#define FORGET_MS 30000u /* a session without connection is kept so long */

/* ---- calls ---- */

struct m_call *m_call_new(struct model *m, int conn, uint32_t msgid, enum m_method method)
{
    int i = 0;

    while (i < m->call_count && m->calls[i].used)
        i++;
    if (i == M_CALLS)
        sim_fail(m->sim, "the model has no room for more calls");
    if (i == m->call_count)
        m->call_count++;
    m->calls[i] = (struct m_call){
        .used = true, .conn = conn, .msgid = msgid, .method = method, .until = M_NEVER, .q = M_NONE};
    return &m->calls[i];
}

struct m_call *m_call_find(struct model *m, int conn, uint32_t msgid)
{
    for (int i = 0; i < m->call_count; i++)
        if (m->calls[i].used && m->calls[i].conn == conn && m->calls[i].msgid == msgid)
            return &m->calls[i];
    return NULL;
}

/* It ends without a word. What it wanted to put is in, or is not: it will be seen. */
void m_call_drop(struct model *m, struct m_call *c)
{
    c->used = false;
    if (c->method != M_PUT)
        return;
    for (uint32_t i = 0; i < c->count; i++) {
        struct m_item *t = &m->items[c->items[i]];

        if (c->known[i] || t->state != M_PENDING)
            continue;
        if (m->q[t->q].maxsize == 0) { /* it waited for the disk: none of it is in */
            m_move(m, t, M_GONE, t->q);
            continue;
        }
        t->call = M_NONE;
        m->q[t->q].orphans++;
    }
}

/* ---- reading ---- */

static struct tq_span text(struct tq_mp *in)
{
    struct tq_span v = {0};

    if (!tq_mp_str(in, &v))
        (void)tq_mp_bin(in, &v);
    return v;
}

static uint64_t number(struct tq_mp *in)
{
    uint64_t v = 0;

    if (!tq_mp_u64(in, &v))
        (void)tq_mp_skip(in);
    return v;
}

/* The value of a field of the map; false: there is none. */
static bool field(struct tq_mp map, const char *name, struct tq_mp *ret)
{
    uint32_t pairs = 0;

    if (!tq_mp_map(&map, &pairs))
        return false;
    for (uint32_t i = 0; i < pairs; i++) {
        if (tq_span_is(text(&map), name)) {
            *ret = map;
            return true;
        }
        (void)tq_mp_skip(&map);
    }
    return false;
}

static uint64_t field_number(struct tq_mp map, const char *name)
{
    struct tq_mp at;

    return field(map, name, &at) ? number(&at) : 0;
}

static void field_text(struct tq_mp map, const char *name, char *out, size_t size)
{
    struct tq_mp at;
    struct tq_span v = {0};

    if (field(map, name, &at))
        v = text(&at);
    if (v.len >= size)
        v.len = size - 1;
    if (v.len > 0)
        memcpy(out, v.data, v.len);
    out[v.len] = '\0';
}

static const char *const outcomes[] = {"none", "ok", "failed", "expired", "lost", "canceled", "purged"};

/* ---- replies ---- */

static void on_hello(struct model *m, struct m_call *c, struct tq_mp result)
{
    struct m_session *s = &m->sessions[c->session];
    struct tq_mp at;
    struct tq_span token;
    bool resumed = false;
    uint32_t count = 0, mine = 0;

    if (!s->has_worker)
        return;
    if (!field(result, "token", &at) || (token = text(&at)).len != sizeof(s->token))
        sim_fail(m->sim, "hello without a token");
    memcpy(s->token, token.data, sizeof(s->token));
    s->has_token = true;
    if (field(result, "resumed", &at))
        (void)tq_mp_bool(&at, &resumed);
    if (!resumed && c->resumed && s->detached_ms + FORGET_MS < m->now)
        c->resumed = false; /* forgotten */
    if (resumed != c->resumed)
        sim_fail(m->sim, "a session is %s, but should be %s", resumed ? "resumed" : "new",
                 c->resumed ? "resumed" : "new");
    if (field(result, "leases", &at))
        (void)tq_mp_array(&at, &count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t two;
        uint64_t id, epoch;

        (void)tq_mp_array(&at, &two);
        id = number(&at);
        epoch = number(&at);
        if (m_lease(m, c->session, id, (uint32_t)epoch) == NULL)
            sim_fail(m->sim, "session %d has [%" PRIu64 ", %" PRIu64 "] now, which is not its own",
                     c->session, id, epoch);
    }
    for (int i = 0; i < m->live_count; i++)
        mine += m->items[m->live[i]].state == M_LEASED && m->items[m->live[i]].session == c->session;
    if (mine != count)
        sim_fail(m->sim, "session %d has %u leases after its hello, but should have %u", c->session, count,
                 mine);
}

static bool is_full(const struct m_queue *q)
{
    return q->counts[M_READY] + q->counts[M_DELAYED] + q->counts[M_PENDING] > q->maxsize;
}

static void on_put(struct model *m, struct m_call *c, struct tq_mp result)
{
    struct tq_mp ids;
    uint32_t count = 0, known = 0;
    bool was_waiting = c->parked;

    if (!field(result, "ids", &ids) || !tq_mp_array(&ids, &count))
        sim_fail(m->sim, "put without ids");
    /* What it held when it was put may have ended since: the rest is new work then. */
    if (count < c->count && c->error == NULL && !m->no_room &&
        (m->q[c->q].maxsize == 0 || !is_full(&m->q[c->q])))
        sim_fail(m->sim, "a put of %u was cut at %u, and the queue is not full", c->count, count);
    for (uint32_t i = 0; i < c->count; i++) {
        struct m_item *t = &m->items[c->items[i]];

        if (i >= count) {
            if (t->state == M_PENDING)
                m_move(m, t, M_GONE, t->q);
            continue;
        }
        m_name(m, t, number(&ids));
        if (t->state == M_PENDING) {
            int64_t lo = t->lo;

            m_accept(m, t);
            if (m->q[t->q].maxsize > 0) /* it may have come in at any time since */
                t->lo = lo;
            t->in_step = was_waiting;
        }
    }
    if (field(result, "known", &ids))
        (void)tq_mp_array(&ids, &known);
    for (uint32_t i = 0; i < c->count && i < count; i++)
        known -= c->known[i];
    if (known != 0)
        sim_fail(m->sim, "put: other keys are known than should be");
}

static void on_tally(struct model *m, struct m_call *c, struct tq_mp result)
{
    struct tq_mp at;
    uint32_t count = 0;

    if (field_number(result, "ok") != c->ok)
        sim_fail(m->sim, "%" PRIu64 " of them were accepted, but %u should be", field_number(result, "ok"),
                 c->ok);
    if (field(result, "refused", &at))
        (void)tq_mp_array(&at, &count);
    if (count != c->refused_count)
        sim_fail(m->sim, "%u of them were refused, but %u should be", count, c->refused_count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t two = 0;
        uint64_t id;

        (void)tq_mp_array(&at, &two);
        id = number(&at);
        (void)tq_mp_skip(&at);
        if (id != c->refused[i])
            sim_fail(m->sim, "%" PRIu64 " was refused, but %" PRIu64 " should be", id, c->refused[i]);
    }
}

static void on_task(struct model *m, struct m_call *c, struct tq_mp *at)
{
    struct m_handout h = {.take = c->take};
    struct tq_span body = {0};
    char outcome[16] = "";
    uint32_t parts = 0;

    (void)tq_mp_array(at, &parts);
    h.id = number(at);
    h.epoch = (uint32_t)number(at);
    h.attempt = (uint32_t)number(at);
    (void)tq_mp_raw(at, &body);
    h.value = sim_value_in(body.data, body.len);
    if (parts > 4) {
        h.of = field_number(*at, "of");
        field_text(*at, "outcome", outcome, sizeof(outcome));
        (void)tq_mp_skip(at);
    }
    h.outcome = outcome[0] != '\0' ? outcome : NULL;
    (void)m_hand_out(m, c->q, m_session_of(m, c->conn), &h);
}

static void on_get(struct model *m, struct m_call *c, struct tq_mp result)
{
    struct tq_mp at;
    uint32_t count = 0;

    if (!field(result, "tasks", &at) || !tq_mp_array(&at, &count))
        sim_fail(m->sim, "a get without tasks");
    if (count > c->max)
        sim_fail(m->sim, "a get of %u got %u", c->max, count);
    if (count == 0 && c->parked && c->until > m->now)
        sim_fail(m->sim, "a get ended with nothing before its time, %" PRIu64, c->until);
    for (uint32_t i = 0; i < count; i++)
        on_task(m, c, &at);
}

static void on_wait(struct model *m, struct m_call *c, struct tq_mp result)
{
    struct tq_mp record, at;
    char outcome[16];
    struct tq_span raw = {0};
    int value = M_NONE;

    if (field_number(result, "id") != c->id)
        sim_fail(m->sim, "a wait for %" PRIu64 " tells of another", c->id);
    if (!field(result, "result", &record)) {
        if (c->ended)
            sim_fail(m->sim, "a wait for %" PRIu64 ", which has ended, tells no result", c->id);
        if (c->parked && c->until > m->now)
            sim_fail(m->sim, "a wait for %" PRIu64 " ended before its time", c->id);
        return;
    }
    if (!c->ended)
        sim_fail(m->sim, "a wait for %" PRIu64 ", which has not ended, tells a result", c->id);
    field_text(record, "outcome", outcome, sizeof(outcome));
    if (strcmp(outcome, outcomes[c->outcome]) != 0)
        sim_fail(m->sim, "a wait for %" PRIu64 " tells outcome %s, but it is %s", c->id, outcome,
                 outcomes[c->outcome]);
    if (field(record, "value", &at) && tq_mp_raw(&at, &raw))
        value = sim_value_in(raw.data, raw.len);
    if (value != c->value)
        sim_fail(m->sim, "a wait for %" PRIu64 " tells the value %d, but it is %d", c->id, value, c->value);
}

static void on_join(struct model *m, struct m_call *c, struct tq_mp result)
{
    uint64_t told = field_number(result, "unfinished");
    const struct m_queue *q = &m->q[c->q];

    /* Of what is pending some is in, perhaps; and the clock does many things, of which this is one. */
    if (q->counts[M_PENDING] > 0 || m->timers)
        return;
    if (told != (uint64_t)q->unfinished)
        sim_fail(m->sim, "join tells %" PRIu64 " unfinished in %s, but there are %" PRId64, told, q->name,
                 q->unfinished);
    if (told > 0 && c->parked && c->until > m->now)
        sim_fail(m->sim, "join ended before its time");
}

static void expect(struct model *m, const struct m_queue *q, struct tq_mp result, const char *name,
                   uint64_t least, uint64_t most)
{
    uint64_t told = field_number(result, name);

    if (told < least || told > most)
        sim_fail(m->sim, "stats of %s tell %s=%" PRIu64 ", but it is %" PRIu64 " to %" PRIu64, q->name, name,
                 told, least, most);
}

static void on_stats(struct model *m, const struct m_call *c, struct tq_mp result)
{
    const struct m_queue *q = &m->q[c->q];
    uint64_t gets = 0, maybe = q->orphans, unsure = 0;

    for (int i = 0; i < m->call_count; i++)
        gets += m->calls[i].used && m->calls[i].parked && m->calls[i].is_get && m->calls[i].q == c->q;
    for (int i = 0; i < m->live_count; i++) {
        const struct m_item *t = &m->items[m->live[i]];

        unsure += t->q == c->q && t->state == M_DELAYED && t->due_lo <= m->now;
        maybe += t->q == c->q && t->state == M_PENDING && t->call != M_NONE;
    }
    expect(m, q, result, "ready", q->counts[M_READY], q->counts[M_READY] + maybe + unsure);
    expect(m, q, result, "delayed", q->counts[M_DELAYED] - unsure, q->counts[M_DELAYED]);
    expect(m, q, result, "leased", q->counts[M_LEASED], q->counts[M_LEASED]);
    expect(m, q, result, "waiting_gets", gets, gets);
    expect(m, q, result, "unfinished", (uint64_t)q->unfinished, (uint64_t)q->unfinished + maybe);
    expect(m, q, result, "gets", q->handed, q->handed);
}

static void on_result(struct model *m, struct m_call *c, struct tq_mp result)
{
    struct tq_mp at;
    bool found = false;

    switch (c->method) {
    case M_HELLO:
        on_hello(m, c, result);
        break;
    case M_PUT:
        on_put(m, c, result);
        break;
    case M_GET:
        on_get(m, c, result);
        break;
    case M_DONE:
        on_tally(m, c, result);
        if (c->is_get)
            on_get(m, c, result);
        break;
    case M_EXTEND:
    case M_RELEASE:
    case M_REMOVE:
    case M_RETRY:
        on_tally(m, c, result);
        break;
    case M_WAIT:
        on_wait(m, c, result);
        break;
    case M_JOIN:
        on_join(m, c, result);
        break;
    case M_CANCEL:
        if (!field(result, "found", &at) || !tq_mp_bool(&at, &found) || found != (c->number != 0))
            sim_fail(m->sim, "cancel tells found=%d, but it is %d", found, (int)c->number);
        break;
    case M_PURGE:
        if (field_number(result, "dropped") != (uint64_t)c->number)
            sim_fail(m->sim, "purge dropped %" PRIu64 ", but there were %" PRId64,
                     field_number(result, "dropped"), c->number);
        break;
    case M_STATS:
        if (c->q >= 0)
            on_stats(m, c, result);
        break;
    default:
        break;
    }
}

static void drop_pending(struct model *m, const struct m_call *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct m_item *t = &m->items[c->items[i]];

        if (!c->known[i] && t->state == M_PENDING)
            m_move(m, t, M_GONE, t->q);
    }
}

static void on_error(struct model *m, struct m_call *c, struct tq_span code)
{
    if (c->method == M_PUT && c->error == NULL && c->is_new_work && m->no_room &&
        (tq_span_is(code, "no_space") || tq_span_is(code, "full"))) {
        if (c->parked && c->until > m->now)
            sim_fail(m->sim, "put ended before its time, for lack of room");
        drop_pending(m, c);
        return;
    }
    if (c->method == M_PUT && c->error == NULL && tq_span_is(code, "full")) {
        if (!is_full(&m->q[c->q]) || m->q[c->q].maxsize == 0)
            sim_fail(m->sim, "put to %s finds it full, which it is not", m->q[c->q].name);
        if (c->parked && c->until > m->now)
            sim_fail(m->sim, "put ended before its time");
        drop_pending(m, c);
        return;
    }
    if (c->method == M_PUT)
        drop_pending(m, c);
    if (c->error == NULL || !tq_span_is(code, c->error))
        sim_fail(m->sim, "method %d gets the error %.*s, but should get %s", (int)c->method, (int)code.len,
                 (const char *)code.data, c->error != NULL ? c->error : "none");
}

/* A canceled put tells what is in; a canceled done tells so beside what was done. */
static bool is_canceled(const struct m_call *c, struct tq_mp result)
{
    struct tq_mp at;

    return c->error != NULL && strcmp(c->error, "canceled") == 0 &&
           (field(result, "get_error", &at) || field(result, "refused", &at));
}

static void on_reply(struct model *m, int conn, struct tq_mp *in)
{
    uint32_t msgid = (uint32_t)number(in);
    struct m_call *c = m_call_find(m, conn, msgid);
    uint32_t two = 0;

    if (c == NULL)
        sim_fail(m->sim, "a reply to nothing: connection %d, msgid %u", conn, msgid);
    if (tq_mp_nil(in)) {
        if (c->error != NULL && !is_canceled(c, *in))
            sim_fail(m->sim, "method %d is answered, but should get the error %s", (int)c->method, c->error);
        on_result(m, c, *in);
    } else {
        (void)tq_mp_array(in, &two);
        on_error(m, c, text(in));
    }
    c->used = false;
}

static void on_lost(struct model *m, int conn, struct tq_mp params)
{
    struct tq_mp at;
    uint32_t count = 0, two;

    if (field(params, "leases", &at))
        (void)tq_mp_array(&at, &count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id;
        uint32_t epoch;
        int k = 0;

        (void)tq_mp_array(&at, &two);
        id = number(&at);
        epoch = (uint32_t)number(&at);
        while (k < m->lost_count &&
               (m->lost[k].conn != conn || m->lost[k].id != id || m->lost[k].epoch != epoch))
            k++;
        if (k == m->lost_count && !m->conns[conn].expect_close)
            sim_fail(m->sim, "[%" PRIu64 ", %u] is told lost, but is not", id, epoch);
        if (k < m->lost_count)
            m->lost[k] = m->lost[--m->lost_count];
    }
}

void m_output(struct model *m, int conn, struct tq_span payload)
{
    struct tq_mp in = tq_mp_of(payload);
    uint32_t count = 0;
    const char *why = "";
    struct tq_span name;

    if (tq_mp_walk_all(payload, &why) != TQ_OK || !tq_mp_array(&in, &count))
        sim_fail(m->sim, "the master wrote what is no message: %s", why);
    if (number(&in) == 1) {
        on_reply(m, conn, &in);
        return;
    }
    name = text(&in);
    if (tq_span_is(name, "lost"))
        on_lost(m, conn, in);
    else
        sim_fail(m->sim, "the master says %.*s", (int)name.len, (const char *)name.data);
}
