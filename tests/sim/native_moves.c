/* What native clients ask for. */
#include <stdio.h>
#include <string.h>

#include "common/assert.h"
#include "tests/sim/sim.h"

#define IN_HAND_MAX 14

static int one_of(struct sim *s, const int *list, int count)
{
    return list[sim_below(s, (uint32_t)count)];
}

static void put_lease(struct tq_mp_out *o, const struct sim_hand *h, uint32_t parts)
{
    tq_mp_put_array(o, parts);
    tq_mp_put_u64(o, h->id);
    tq_mp_put_u64(o, h->epoch);
}

static void put_queue(struct tq_mp_out *o, int q)
{
    tq_mp_put_cstr(o, "q");
    tq_mp_put_cstr(o, m_queue_names[q]);
}

static void put_wait(struct tq_mp_out *o, int64_t wait_ms)
{
    tq_mp_put_cstr(o, "wait_ms");
    tq_mp_put_i64(o, wait_ms);
}

static int64_t some_wait(struct sim *s)
{
    switch (sim_below(s, 5)) {
    case 0:
        return 0;
    case 1:
        return s->calm ? 200 : -1;
    case 2:
        return 1 + sim_below(s, 20);
    default:
        return 1 + sim_below(s, 2500);
    }
}

/* ---- hello ---- */

void sim_hello(struct sim_actor *a)
{
    struct sim *s = a->sim;
    uint32_t named = a->hand_count < M_BATCH ? (uint32_t)a->hand_count : M_BATCH;
    bool token = a->has_session && a->has_token;
    struct tq_mp_out o;

    if (sim_chance(s, 100))
        named = sim_below(s, named + 1); /* it has lost some */
    sim_begin(a, "hello", M_HELLO, M_NONE, false,
              1u + a->has_session + (token ? 2u : 0u) + (a->heartbeat_ms > 0), &o);
    tq_mp_put_cstr(&o, "version");
    tq_mp_put_u64(&o, 1);
    if (a->has_session) {
        tq_mp_put_cstr(&o, "worker");
        tq_mp_put_cstr(&o, a->name);
    }
    if (token) {
        bool forged = !s->calm && sim_chance(s, 60);
        uint8_t bytes[NATIVE_TOKEN_BYTES];

        /* One that did not write the last one down has the one before. */
        memcpy(bytes, !s->calm && sim_chance(s, 60) ? a->token_before : a->token, sizeof(bytes));
        if (forged) /* one byte of it is another */
            bytes[sim_below(s, sizeof(bytes))] ^= 1;
        tq_mp_put_cstr(&o, "token");
        tq_mp_put_bin(&o, tq_span(bytes, sizeof(bytes)));
        tq_mp_put_cstr(&o, "leases");
        tq_mp_put_array(&o, named);
        for (uint32_t i = 0; i < named; i++)
            put_lease(&o, &a->hand[i], 2);
    }
    if (a->heartbeat_ms > 0) {
        tq_mp_put_cstr(&o, "heartbeat_ms");
        tq_mp_put_u64(&o, a->heartbeat_ms);
    }
    sim_finish(a, &o);
}

/* ---- put ---- */

struct options {
    bool key, priority, delay, ttl, attempts, result, retention;
};

static unsigned count_options(const struct options *p)
{
    return (unsigned)p->key + p->priority + p->delay + p->ttl + p->attempts + p->result + p->retention;
}

static struct options some_options(struct sim_actor *a, int q)
{
    struct sim *s = a->sim;
    const struct sim_plan *p = &s->plan;

    if (a->faithful || q == Q_BOUND)
        return (struct options){0};
    return (struct options){.key = p->keys && sim_chance(s, 300),
                            .priority = p->priorities && q == Q_PRIO && sim_chance(s, 700),
                            .delay = p->delays && sim_chance(s, 200),
                            .ttl = p->ttls && sim_chance(s, 200),
                            .attempts = p->fails && sim_chance(s, 200),
                            .result = p->replies && a->own >= 0 && sim_chance(s, 500),
                            .retention = sim_chance(s, 200)};
}

static void put_task(struct sim_actor *a, struct tq_mp_out *o, int q)
{
    struct sim *s = a->sim;
    struct options p = some_options(a, q);
    char text[6000], key[12];
    size_t len = SIM_TAG_LEN;

    memset(text, 'x', sizeof(text));
    (void)sim_value(s, text);
    text[SIM_TAG_LEN] = 'x';
    tq_mp_put_array(o, count_options(&p) > 0 ? 2 : 1);
    if (sim_chance(s, 50))
        len = 700;
    if (s->disk != NULL && sim_chance(s, 300)) /* so that segments of the log get full */
        len = SIM_TAG_LEN + sim_below(s, sizeof(text) - SIM_TAG_LEN - 1);
    len += (len & 0xff) == '~'; /* which begins a value */
    tq_mp_put_str(o, tq_span(text, len));
    if (count_options(&p) == 0)
        return;
    tq_mp_put_map(o, count_options(&p));
    if (p.key) {
        (void)snprintf(key, sizeof(key), "k%u", sim_below(s, 12));
        tq_mp_put_cstr(o, "key");
        tq_mp_put_cstr(o, key);
    }
    if (p.priority) {
        tq_mp_put_cstr(o, "priority");
        tq_mp_put_i64(o, (int64_t)sim_below(s, 7) - 3);
    }
    if (p.delay) {
        tq_mp_put_cstr(o, "delay_ms");
        tq_mp_put_u64(o, 1 + sim_below(s, sim_chance(s, 500) ? 30 : 3000));
    }
    if (p.ttl) {
        tq_mp_put_cstr(o, "ttl_ms");
        tq_mp_put_u64(o, 1 + sim_below(s, sim_chance(s, 500) ? 200 : 6000));
    }
    if (p.attempts) {
        tq_mp_put_cstr(o, "max_attempts");
        tq_mp_put_u64(o, 1 + sim_below(s, 4));
    }
    if (p.result) {
        tq_mp_put_cstr(o, "result");
        if (sim_chance(s, 200))
            tq_mp_put_nil(o);
        else
            tq_mp_put_cstr(o, m_queue_names[a->own]);
    }
    if (p.retention) {
        tq_mp_put_cstr(o, "retention_ms");
        tq_mp_put_u64(o, 500 + sim_below(s, 20000));
    }
}

static void put(struct sim_actor *a)
{
    struct sim *s = a->sim;
    int q = one_of(s, a->puts, a->put_count);
    uint32_t count = 1 + (sim_chance(s, 300) ? sim_below(s, 6) : 0);
    int64_t wait_ms = q == Q_BOUND ? some_wait(s) : 0;
    struct tq_mp_out o;

    if (count > a->puts_left)
        count = a->puts_left;
    a->puts_left -= count;
    sim_begin(a, "put", M_PUT, q, wait_ms != 0, 3, &o);
    put_queue(&o, q);
    tq_mp_put_cstr(&o, "tasks");
    tq_mp_put_array(&o, count);
    for (uint32_t i = 0; i < count; i++)
        put_task(a, &o, q);
    put_wait(&o, wait_ms);
    sim_finish(a, &o);
}

/* ---- get ---- */

/* 4 fields. */
static void put_get(struct sim_actor *a, struct tq_mp_out *o, int q, int64_t wait_ms, bool take)
{
    put_queue(o, q);
    tq_mp_put_cstr(o, "max");
    tq_mp_put_u64(o, 1 + sim_below(a->sim, a->credit));
    put_wait(o, wait_ms);
    tq_mp_put_cstr(o, "take");
    tq_mp_put_bool(o, take);
}

static bool may_take(struct sim_actor *a)
{
    return a->sim->plan.takes && a->role == ROLE_COLLECTOR && !a->sim->calm && sim_chance(a->sim, 100);
}

static void get(struct sim_actor *a)
{
    struct sim *s = a->sim;
    int q = one_of(s, a->queues, a->queue_count);
    int64_t wait_ms = some_wait(s);
    bool take = may_take(a);
    struct tq_mp_out o;

    sim_begin(a, "get", M_GET, take ? M_NONE : q, wait_ms != 0, 4, &o);
    put_get(a, &o, q, wait_ms, take);
    sim_finish(a, &o);
    if (take) /* not to be answered for */
        a->calls[a->call_count - 1].method = M_METHODS;
}

static int waiting_gets(const struct sim_actor *a)
{
    int count = 0;

    for (int i = 0; i < a->call_count; i++)
        count += a->calls[i].method == M_GET || a->calls[i].method == M_DONE;
    return count;
}

static bool wants_more(const struct sim_actor *a)
{
    return a->queue_count > 0 && waiting_gets(a) < 2 &&
           a->hand_count + (waiting_gets(a) + 1) * (int)a->credit <= IN_HAND_MAX;
}

/* ---- done, fail, extend, release ---- */

static void put_failure(struct sim_actor *a, struct tq_mp_out *o)
{
    struct sim *s = a->sim;
    bool final = sim_chance(s, 200), delay = sim_chance(s, 300);

    tq_mp_put_map(o, 1u + final + delay);
    tq_mp_put_cstr(o, "error");
    tq_mp_put_cstr(o, "it broke");
    if (final) {
        tq_mp_put_cstr(o, "final");
        tq_mp_put_bool(o, true);
    }
    if (delay) {
        tq_mp_put_cstr(o, "delay_ms");
        tq_mp_put_u64(o, sim_chance(s, 400) ? 0 : sim_below(s, 800));
    }
}

static void put_done(struct sim_actor *a, struct tq_mp_out *o, const struct sim_hand *h)
{
    struct sim *s = a->sim;
    bool has_value = h->is_task && !sim_chance(s, 50);
    char text[SIM_TAG_LEN + 1];
    int value;

    put_lease(o, h, has_value ? 3 : 2);
    if (!has_value)
        return;
    value = sim_value(s, text);
    s->model->computed[value].id = h->id;
    s->model->computed[value].epoch = h->epoch;
    s->model->computed[value].task = h->task;
    tq_mp_put_cstr(o, text);
}

static void settle(struct sim_actor *a, const struct sim_hand *done, uint32_t done_count,
                   const struct sim_hand *failed, uint32_t failed_count)
{
    struct sim *s = a->sim;
    bool more = wants_more(a) && sim_chance(s, 600), to = !a->faithful && sim_chance(s, 100);
    int q = more ? one_of(s, a->queues, a->queue_count) : M_NONE;
    int64_t wait_ms = more ? some_wait(s) : 0;
    struct tq_mp_out o;

    sim_begin(a, done_count > 0 ? "done" : "fail", M_DONE, q, wait_ms != 0, 2u + more + to, &o);
    if (to) {
        tq_mp_put_cstr(&o, sim_chance(s, 600) ? "or_to" : "to");
        tq_mp_put_cstr(&o, m_queue_names[sim_chance(s, 500) ? Q_RESULT : Q_REPLY0]);
    }
    tq_mp_put_cstr(&o, "done");
    tq_mp_put_array(&o, done_count);
    for (uint32_t i = 0; i < done_count; i++)
        put_done(a, &o, &done[i]);
    tq_mp_put_cstr(&o, "fail");
    tq_mp_put_array(&o, failed_count);
    for (uint32_t i = 0; i < failed_count; i++) {
        put_lease(&o, &failed[i], 3);
        put_failure(a, &o);
    }
    if (more) {
        tq_mp_put_cstr(&o, "get");
        tq_mp_put_map(&o, 4);
        put_get(a, &o, q, wait_ms, false);
    }
    sim_finish(a, &o);
}

static void leases(struct sim_actor *a, const char *method, enum m_method m, const struct sim_hand *list,
                   uint32_t count)
{
    struct sim *s = a->sim;
    bool ms = m == M_EXTEND && sim_chance(s, 700);
    struct tq_mp_out o;

    sim_begin(a, method, m, M_NONE, false, 1u + ms, &o);
    tq_mp_put_cstr(&o, "leases");
    tq_mp_put_array(&o, count);
    for (uint32_t i = 0; i < count; i++)
        put_lease(&o, &list[i], 2);
    if (ms) {
        tq_mp_put_cstr(&o, "ms");
        tq_mp_put_u64(&o, 1 + sim_below(s, 4000));
    }
    sim_finish(a, &o);
}

static void work(struct sim_actor *a)
{
    struct sim *s = a->sim;
    const struct sim_plan *p = &s->plan;
    struct sim_hand done[8], failed[8], back[8], longer[8];
    uint32_t done_count = 0, failed_count = 0, back_count = 0, longer_count = 0;

    for (int i = 0; i < a->hand_count && done_count + failed_count + back_count < 8;) {
        struct sim_hand h = a->hand[i];

        if (h.ready_at > s->now_ms) {
            i++;
            continue;
        }
        if (!s->calm && p->leases && !a->faithful && longer_count < 8 && sim_chance(s, 100)) {
            longer[longer_count++] = h;
            a->hand[i++].ready_at += sim_below(s, 400);
            continue;
        }
        a->hand[i] = a->hand[--a->hand_count];
        if (!s->calm && p->fails && !a->faithful && sim_chance(s, h.is_task ? 150 : 10))
            failed[failed_count++] = h;
        else if (!s->calm && p->releases && !a->faithful && sim_chance(s, 80))
            back[back_count++] = h;
        else
            done[done_count++] = h;
        /* An answer that is given twice: the second is stale. */
        if (!s->calm && !a->faithful && sim_chance(s, 40) && a->hand_count < IN_HAND_MAX) {
            a->hand[a->hand_count] = h;
            a->hand[a->hand_count++].ready_at = s->now_ms + sim_below(s, 3000);
        }
    }
    if (longer_count > 0)
        leases(a, "extend", M_EXTEND, longer, longer_count);
    if (back_count > 0)
        leases(a, "release", M_RELEASE, back, back_count);
    if (done_count + failed_count > 0)
        settle(a, done, done_count, failed, failed_count);
}

/* ---- others ---- */

static void look_for(struct sim_actor *a)
{
    struct sim *s = a->sim;
    int64_t wait_ms = some_wait(s);
    struct tq_mp_out o;

    if (a->id_count == 0 || sim_chance(s, 200)) {
        char key[12];

        (void)snprintf(key, sizeof(key), "k%u", sim_below(s, 12));
        sim_begin(a, "wait", M_WAIT, M_NONE, wait_ms != 0, 3, &o);
        put_queue(&o, one_of(s, a->puts, a->put_count));
        tq_mp_put_cstr(&o, "key");
        tq_mp_put_cstr(&o, key);
    } else {
        sim_begin(a, "wait", M_WAIT, M_NONE, wait_ms != 0, 2, &o);
        tq_mp_put_cstr(&o, "id");
        tq_mp_put_u64(&o, a->ids[sim_below(s, a->id_count < 32 ? a->id_count : 32)]);
    }
    put_wait(&o, wait_ms);
    sim_finish(a, &o);
}

static void of_queue(struct sim_actor *a, const char *method, enum m_method m, int q)
{
    struct tq_mp_out o;

    sim_begin(a, method, m, M_NONE, false, 1, &o);
    put_queue(&o, q);
    sim_finish(a, &o);
}

/* It goes as it should, with what it has in hand. */
static void bye(struct sim_actor *a)
{
    struct tq_mp_out o;

    sim_begin(a, "bye", M_BYE, M_NONE, false, 0, &o);
    sim_finish(a, &o);
    a->hand_count = 0;
    a->ready = false;
    a->has_token = false;
}

static void join(struct sim_actor *a)
{
    struct sim *s = a->sim;
    int64_t wait_ms = some_wait(s);
    struct tq_mp_out o;

    sim_begin(a, "join", M_JOIN, M_NONE, wait_ms != 0, 2, &o);
    put_queue(&o, (int)sim_below(s, M_QUEUES));
    put_wait(&o, wait_ms);
    sim_finish(a, &o);
}

static void cancel(struct sim_actor *a, uint32_t call)
{
    struct tq_mp_out o;

    sim_begin(a, "cancel", M_CANCEL, M_NONE, false, 1, &o);
    tq_mp_put_cstr(&o, "call");
    tq_mp_put_u64(&o, call);
    sim_finish(a, &o);
}

static void cancel_some(struct sim_actor *a)
{
    struct sim *s = a->sim;

    if (!s->calm && !a->faithful && a->call_count > 0 && sim_chance(s, 20))
        cancel(a, a->calls[sim_below(s, (uint32_t)a->call_count)].msgid);
    for (int i = 0; s->calm && i < a->call_count; i++)
        if (a->calls[i].waits && a->calls[i].sent_at + 2000 < s->now_ms) {
            a->calls[i].sent_at = s->now_ms; /* now it waits for that */
            cancel(a, a->calls[i].msgid);
            return;
        }
}

/* An admin learns ids from nobody in particular. */
static void of_ids(struct sim_actor *a, const char *method, enum m_method m)
{
    struct sim *s = a->sim;
    uint32_t count = 1 + sim_below(s, 5);
    uint64_t ids[5];
    struct tq_mp_out o;

    for (uint32_t i = 0; i < count; i++) {
        const struct sim_actor *b = &s->actors[sim_below(s, (uint32_t)s->actor_count)];
        unsigned known = b->id_count < 32 ? b->id_count : 32;
        uint64_t id =
            known > 0 ? b->ids[sim_below(s, known)] : 1000000 + sim_below(s, 1000); /* nobody has it */

        if (m == M_RETRY && a->hand_count > 0)
            id = a->hand[sim_below(s, (uint32_t)a->hand_count)].id;
        /* Only the first is anything: each of them is a step of its own, after which others go on. */
        if (i > 0)
            id = 2000000 + i;
        ids[i] = id;
    }
    sim_begin(a, method, m, M_NONE, false, 1, &o);
    tq_mp_put_cstr(&o, "ids");
    tq_mp_put_array(&o, count);
    for (uint32_t i = 0; i < count; i++)
        tq_mp_put_u64(&o, ids[i]);
    sim_finish(a, &o);
}

static void declare(struct sim_actor *a)
{
    static const char *const fields[] = {"concurrency", "maxsize", "max_attempts", "lease_ms"};
    struct sim *s = a->sim;
    uint32_t which = sim_below(s, 4);
    int q = which == 1 ? Q_BOUND : which == 0 ? Q_LIFO : which == 2 ? Q_TASK : Q_PRIO;
    static const uint32_t values[4][3] = {{0, 1, 3}, {2, 4, 7}, {1, 2, 4}, {0, 700, 3000}};
    struct tq_mp_out o;

    sim_begin(a, "declare", M_DECLARE, M_NONE, false, 3, &o);
    put_queue(&o, q);
    tq_mp_put_cstr(&o, "update");
    tq_mp_put_bool(&o, true);
    tq_mp_put_cstr(&o, fields[which]);
    tq_mp_put_u64(&o, values[which][sim_below(s, 3)]);
    sim_finish(a, &o);
}

static void manage(struct sim_actor *a)
{
    struct sim *s = a->sim;
    int q = (int)sim_below(s, M_QUEUES);

    if (s->calm || !s->plan.admin || !sim_chance(s, 400)) {
        of_queue(a, s->calm ? "resume" : "stats", s->calm ? M_RESUME : M_STATS, q);
        return;
    }
    switch (sim_below(s, 8)) {
    case 0:
        of_queue(a, "pause", M_PAUSE, q);
        break;
    case 1:
    case 2:
        of_queue(a, "resume", M_RESUME, q);
        break;
    case 3:
        of_queue(a, "purge", M_PURGE, Q_SCRATCH);
        break;
    case 4:
        of_ids(a, "remove", M_REMOVE);
        break;
    case 5:
    case 6:
        of_ids(a, "retry", M_RETRY);
        break;
    default:
        declare(a);
    }
}

void sim_native_moves(struct sim_actor *a)
{
    struct sim *s = a->sim;

    if (a->role == ROLE_ADMIN)
        manage(a);
    work(a);
    if (a->puts_left > 0 && !s->calm && sim_chance(s, 500))
        put(a);
    if (s->plan.waits && !s->calm && a->put_count > 0 && sim_chance(s, 60))
        look_for(a);
    if (s->plan.waits && !s->calm && sim_chance(s, 20))
        join(a);
    cancel_some(a);
    if (wants_more(a) && sim_chance(s, 700))
        get(a);
    if (!s->calm && !a->faithful && s->plan.releases && sim_chance(s, 3))
        bye(a);
}
