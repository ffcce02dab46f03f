/* A native client: its connection, what it has in hand, what it believes. It knows only what reached it. */
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "tests/sim/sim.h"

#define ANSWER_MS 20000u /* a request that does not wait is given up after that */

void sim_tick_in(struct sim_actor *a, uint32_t ms)
{
    sim_at(a->sim, a->sim->now_ms + ms, EV_TICK, a->index, ++a->tick_gen);
}

/* ---- requests ---- */

void sim_begin(struct sim_actor *a, const char *method, enum m_method m, int q, bool waits, uint32_t pairs,
               struct tq_mp_out *o)
{
    struct sim *s = a->sim;
    size_t start;

    TQ_ASSERT(a->call_count < SIM_CALLS);
    tq_buf_clear(&s->out);
    *o = tq_mp_out(&s->out);
    tq_mp_frame_begin(o, &start);
    tq_mp_put_array(o, 4);
    tq_mp_put_u64(o, 0);
    tq_mp_put_u64(o, ++a->msgid);
    tq_mp_put_cstr(o, method);
    tq_mp_put_map(o, pairs);
    a->calls[a->call_count++] =
        (struct sim_call){.msgid = a->msgid, .sent_at = s->now_ms, .method = m, .q = q, .waits = waits};
}

void sim_finish(struct sim_actor *a, struct tq_mp_out *o)
{
    struct sim *s = a->sim;
    int rv = tq_mp_frame_end(o, 0);

    TQ_ASSERT(rv == TQ_OK && a->link >= 0);
    a->said_ms = s->now_ms;
    sim_send(s->links[a->link], tq_buf_span(&s->out));
}

/* ---- what comes ---- */

static uint64_t number(struct tq_mp *in)
{
    uint64_t v = 0;

    if (!tq_mp_u64(in, &v))
        (void)tq_mp_skip(in);
    return v;
}

static bool field(struct tq_mp map, const char *name, struct tq_mp *ret)
{
    uint32_t pairs = 0;
    struct tq_span key;

    if (!tq_mp_map(&map, &pairs))
        return false;
    for (uint32_t i = 0; i < pairs && tq_mp_str(&map, &key); i++) {
        if (tq_span_is(key, name)) {
            *ret = map;
            return true;
        }
        (void)tq_mp_skip(&map);
    }
    return false;
}

static bool names(struct tq_mp at, uint32_t count, const struct sim_hand *h)
{
    uint32_t two;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t id, epoch;

        (void)tq_mp_array(&at, &two);
        id = number(&at);
        epoch = number(&at);
        if (id == h->id && epoch == h->epoch)
            return true;
    }
    return false;
}

/* Those that are named are dropped, or (keep) those that are not. */
static void drop_hand(struct sim_actor *a, struct tq_mp list, bool keep)
{
    uint32_t count = 0;

    (void)tq_mp_array(&list, &count);
    for (int i = 0; i < a->hand_count;) {
        if (names(list, count, &a->hand[i]) == keep)
            i++;
        else
            a->hand[i] = a->hand[--a->hand_count];
    }
}

static void welcome(struct sim_actor *a, struct tq_mp result)
{
    struct tq_mp at;
    struct tq_span token;

    a->ready = true;
    if (!a->has_session)
        return;
    if (field(result, "token", &at) && tq_mp_bin(&at, &token) && token.len == sizeof(a->token)) {
        memcpy(a->token_before, a->token, sizeof(a->token));
        memcpy(a->token, token.data, token.len);
        a->has_token = true;
    }
    /* A worker that does not look goes on with what it had, and will hear that it is stale. */
    if (field(result, "leases", &at) && !sim_chance(a->sim, 100))
        drop_hand(a, at, true);
}

static void take_tasks(struct sim_actor *a, const struct sim_call *c, struct tq_mp at)
{
    struct sim *s = a->sim;
    uint32_t count = 0, parts = 0;

    (void)tq_mp_array(&at, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct sim_hand h = {.q = c->q};
        struct tq_span body = {0};
        struct tq_mp outcome;

        (void)tq_mp_array(&at, &parts);
        h.id = number(&at);
        h.epoch = (uint32_t)number(&at);
        (void)number(&at);
        (void)tq_mp_raw(&at, &body);
        h.task = sim_value_in(body.data, body.len);
        h.is_task = true;
        if (parts > 4) {
            h.is_task = !field(at, "outcome", &outcome);
            (void)tq_mp_skip(&at);
        }
        h.ready_at = s->now_ms + (s->calm                ? sim_below(s, 20)
                                  : sim_below(s, 4) == 0 ? sim_below(s, 1500)
                                                         : sim_below(s, 60));
        if (a->hand_count < SIM_HAND)
            a->hand[a->hand_count++] = h;
    }
}

static void remember_ids(struct sim_actor *a, struct tq_mp at)
{
    uint32_t count = 0;

    (void)tq_mp_array(&at, &count);
    for (uint32_t i = 0; i < count; i++)
        a->ids[a->id_count++ % 32] = number(&at);
}

static void on_reply(struct sim_actor *a, struct tq_mp *in)
{
    uint32_t msgid = (uint32_t)number(in);
    struct sim_call c;
    struct tq_mp at;
    int i = 0;

    while (i < a->call_count && a->calls[i].msgid != msgid)
        i++;
    if (i == a->call_count)
        return;
    c = a->calls[i];
    a->calls[i] = a->calls[--a->call_count];
    if (!tq_mp_nil(in)) {
        if (c.method == M_HELLO) { /* later, then */
            sim_hang_up(a->sim->links[a->link], false);
            sim_native_lost(a);
            a->retry_ms = a->sim->now_ms + 500 + sim_below(a->sim, 3000);
        }
        return;
    }
    if (c.method == M_HELLO)
        welcome(a, *in);
    else if (c.method == M_PUT && field(*in, "ids", &at))
        remember_ids(a, at);
    else if ((c.method == M_GET || c.method == M_DONE) && field(*in, "tasks", &at))
        take_tasks(a, &c, at);
}

void sim_native_frame(struct sim_actor *a, struct tq_span payload)
{
    struct tq_mp in = tq_mp_of(payload), at;
    uint32_t count = 0;
    struct tq_span name;

    (void)tq_mp_array(&in, &count);
    if (number(&in) == 1)
        on_reply(a, &in);
    else if (tq_mp_str(&in, &name) && tq_span_is(name, "lost") && field(in, "leases", &at) &&
             !sim_chance(a->sim, 300)) /* or it was not looking */
        drop_hand(a, at, false);
}

/* ---- its connection ---- */

void sim_native_lost(struct sim_actor *a)
{
    struct sim *s = a->sim;

    a->link = -1;
    a->ready = false;
    a->call_count = 0;
    a->retry_ms = s->now_ms + sim_below(s, s->calm ? 100 : 600);
    if (!s->calm && sim_chance(s, 50))
        a->retry_ms += sim_below(s, 45000);
}

static void give_up(struct sim_actor *a, bool abrupt)
{
    sim_hang_up(a->sim->links[a->link], abrupt);
    sim_native_lost(a);
}

static void crash(struct sim_actor *a)
{
    sim_note(a->sim, "%s crashes", a->name);
    a->hand_count = 0;
    if (sim_chance(a->sim, 500))
        a->has_token = false;
    if (a->link >= 0)
        give_up(a, true);
}

/* Trouble, now and then. True: it has some. */
static bool trouble(struct sim_actor *a)
{
    struct sim *s = a->sim;
    const struct sim_plan *p = &s->plan;

    if (s->calm || a->faithful || a->role == ROLE_ADMIN || a->link < 0 || !sim_chance(s, p->loss))
        return false;
    switch (sim_below(s, 6)) {
    case 0:
        if (p->crashes)
            crash(a);
        break;
    case 1:
        if (p->freezes) {
            a->frozen_until = s->now_ms + sim_below(s, 20000);
            sim_note(s, "%s stands still", a->name);
        }
        break;
    case 2:
        if (p->duplicates && a->has_session) { /* it comes again, its old connection is still there */
            sim_note(s, "%s connects twice", a->name);
            a->ready = false;
            a->call_count = 0;
            a->link = -1;
            a->retry_ms = s->now_ms;
        }
        break;
    case 3:
        if (p->late)
            s->links[a->link]->frozen_until = s->now_ms + sim_below(s, 12000);
        break;
    case 4:
        if (p->cuts)
            give_up(a, sim_chance(s, 500));
        break;
    default:
        if (p->cuts)
            sim_cut(s->links[a->link]);
    }
    return true;
}

static bool waits_too_long(const struct sim_actor *a)
{
    for (int i = 0; i < a->call_count; i++)
        if (!a->calls[i].waits && a->calls[i].sent_at + ANSWER_MS < a->sim->now_ms)
            return true;
    return false;
}

static void ping(struct sim_actor *a)
{
    struct tq_mp_out o;

    sim_begin(a, "ping", M_PING, M_NONE, false, 0, &o);
    sim_finish(a, &o);
}

void sim_native_tick(struct sim_actor *a)
{
    struct sim *s = a->sim;
    uint64_t quiet = s->now_ms - a->said_ms;

    if (a->link < 0 && a->retry_ms <= s->now_ms && !sim_is_up(s)) {
        a->retry_ms = s->now_ms + 1 + sim_below(s, 200);
    } else if (a->link < 0 && a->retry_ms <= s->now_ms) {
        a->link = sim_connect(s, a->index)->index;
        a->call_count = 0;
        sim_hello(a);
    } else if (a->link >= 0 && waits_too_long(a)) {
        give_up(a, false);
    } else if (!trouble(a) && a->link >= 0 && a->ready) {
        if (a->call_count < SIM_CALLS - 8)
            sim_native_moves(a);
        if (a->link >= 0 && a->call_count < SIM_CALLS &&
            ((a->heartbeat_ms > 0 && quiet >= a->heartbeat_ms / 2) || quiet > 8000))
            ping(a);
    }
    sim_tick_in(a, 1 + sim_below(s, 2 * a->pace_ms));
}
