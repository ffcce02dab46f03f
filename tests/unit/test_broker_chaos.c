/* Everything at once, at random: both kinds of sessions, all events, queues with all policies that come and
 * go, a memory limit, new work that is refused, allocations that fail; every third time with a journal. The
 * broker's invariants hold after each step, every native call is answered once, and nothing is left in the
 * end. */
#include "tests/lib/effort.h"
#include "tests/unit/broker_rig.h"

#include <stdlib.h>

#include "master/core/broker_impl.h"
#include "master/core/lease.h"
#include "master/core/queue.h"

RIG_DEFINE_LESS

#ifndef SEEDS
#define SEEDS EFFORT(600, 40)
#endif
#define STEPS    500
#define QUEUES   5
#define CALLS    4096
#define PYTHONS  6 /* the first sessions are Python's */
#define PARKED   4 /* of one session */
#define MEMORY   12000
#define HELD_MAX 5

static uint64_t rng_state;
static uint64_t running_seeds[2]; /* told when a test fails; BROKER_SEED plays that one alone */

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 20) % below);
}

static bool one_in(uint32_t n)
{
    return rng(n) == 0;
}

struct chaos {
    struct rig r;
    struct broker_queue *q[QUEUES];
    bool open_calls[CALLS]; /* by token: asked, and not answered */
    uint64_t last_id;
    uint64_t ids[64]; /* some that were given out */
    struct broker_lease_name leases[64];
    uint32_t at;
    bool fails; /* allocations do */
    uint64_t durable_id;
};

static const char *const names[QUEUES] = {"a", "b", "c", "d", "e"};

static void declare(struct chaos *c, int i)
{
    struct broker_queue_conf conf;

    broker_queue_conf_init(&conf);
    conf.kind = (enum broker_kind)rng(3);
    conf.ack = (enum broker_ack)rng(3);
    conf.durability = one_in(2) ? BROKER_DURABILITY_FSYNC : (enum broker_durability)rng(3);
    conf.maxsize = rng(6);
    conf.factory_made = one_in(2);
    conf.paused = one_in(8);
    conf.reject_full = one_in(4);
    conf.max_attempts = (uint8_t)rng(4);
    conf.max_deliveries = (uint8_t)rng(4);
    conf.lease_ms = one_in(3) ? rng(60) : 0;
    conf.grace_ms = rng(100);
    conf.retry_ms = rng(30);
    conf.retry_max_ms = 100;
    conf.ttl_ms = one_in(3) ? rng(200) : 0;
    conf.retention_ms = one_in(2) ? BROKER_RETENTION_AUTO : rng(300);
    conf.rate_per_s = one_in(4) ? 1 + rng(300) : 0;
    conf.concurrency = one_in(4) ? 1 + rng(4) : 0;
    conf.expires_ms = one_in(6) ? 50 + rng(200) : 0;
    conf.result = one_in(2) ? names[rng(QUEUES)] : NULL;
    conf.dead = one_in(2) ? names[rng(QUEUES)] : NULL;
    if (c->q[i] != NULL && one_in(2)) {
        conf.kind = broker_queue_conf(c->q[i])->kind;
        conf.ack = broker_queue_conf(c->q[i])->ack;
        (void)broker_reconfigure(c->r.b, c->r.now_ms, c->q[i], &conf, &c->r.fx);
        rig_check(&c->r);
        return;
    }
    if (c->q[i] != NULL)
        broker_remove(c->r.b, c->q[i], &c->r.fx);
    c->q[i] = NULL;
    (void)broker_declare(c->r.b, names[i], &conf, &c->q[i]);
    if (c->q[i] != NULL)
        broker_queue_set_user(c->q[i], &c->q[i]);
    rig_check(&c->r);
}

static void on_gone(void *ctx, struct broker_queue *q)
{
    struct broker_queue **place = broker_queue_user(q);

    (void)ctx;
    assert_ptr_equal(*place, q);
    *place = NULL;
}

static void note_answer(struct chaos *c, const struct broker_effect *e)
{
    assert_true(e->token < CALLS);
    if (!c->open_calls[e->token])
        fail_msg("an answer too many: outcome %d to call %d", (int)e->outcome, (int)e->token);
    c->open_calls[e->token] = false;
}

static void read_effects(struct chaos *c)
{
    for (; c->r.seen < c->r.fx.count; c->r.seen++) {
        const struct broker_effect *e = &c->r.fx.list[c->r.seen];
        struct broker_view v;
        switch (e->outcome) {
        case BROKER_REPLY_TASK:
        case BROKER_REPLY_ITEM:
            c->ids[c->at % 64] = e->id;
            c->leases[c->at++ % 64] = (struct broker_lease_name){.id = e->id, .epoch = e->epoch};
            if (e->copy == NULL && broker_view_lease(c->r.b, e, &v))
                assert_int_equal(v.id, e->id);
            if (e->outcome == BROKER_REPLY_ITEM)
                note_answer(c, e);
            else
                assert_true(c->open_calls[e->token]);
            break;
        case BROKER_REPLY_LEASE:
            break;
        case BROKER_TOLD_LOST:
            assert_int_equal(e->token, 0);
            break;
        default:
            if (e->outcome == BROKER_REPLY_OK && e->id > 0)
                c->ids[c->at++ % 64] = e->id;
            note_answer(c, e);
        }
    }
    broker_effects_clear(&c->r.fx);
    c->r.seen = 0;
}

/* Calls of it that were parked have no answer any more. */
static void forget_parked(struct chaos *c, int s, uint64_t token)
{
    const struct broker_wait *w;

    for (w = c->r.s[s].waits; w != NULL; w = w->session_next)
        if (token == 0 || w->token == token)
            c->open_calls[w->token] = false;
}

static void open_session(struct chaos *c, int s)
{
    c->r.s[s].native = s >= PYTHONS;
    c->r.s[s].durable_id = s >= PYTHONS && one_in(2) ? ++c->durable_id : 0;
    c->r.s[s].worker = tq_span_str(one_in(2) ? "w1" : "worker-2");
    rig_step(&c->r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &c->r.s[s]});
}

static void random_put(struct chaos *c, struct broker_event *ev, struct broker_put_options *o)
{
    static const char *const keys[] = {"k1", "k2", "key-three"};
    static uint8_t bytes[2000];
    struct rig_body rb = {.key = one_in(12) ? RIG_NO_ORDER : (int64_t)rng(5), .id = (int64_t)rng(1000)};
    uint32_t len = (uint32_t)sizeof(rb) + (one_in(4) ? rng(1200) : rng(100));

    if (!ev->session->native || one_in(4)) {
        ev->payload = rig_payload(rig_body_new(rb.key, rb.id, len));
        if (!one_in(3)) { /* the same without a body */
            memcpy(bytes, ev->payload.data, len);
            tq_body_unref(ev->payload.body);
            ev->payload.body = NULL;
            ev->payload.data = bytes;
        }
    } else {
        ev->payload = (struct broker_payload){.data = bytes, .len = len, .format = BROKER_MSGPACK};
    }
    if (!ev->session->native || one_in(3))
        return;
    *o = (struct broker_put_options){
        .key = one_in(2) ? tq_span_str(keys[rng(3)]) : tq_span("", 0),
        .trace = one_in(4) ? tq_span_str("00-trace") : tq_span("", 0),
        .priority = one_in(2) ? (int32_t)rng(3) - 1 : 0,
        .delay_ms = one_in(3) ? rng(80) : 0,
        .ttl_ms = one_in(3) ? 1 + rng(150) : 0,
        .max_attempts = (uint8_t)rng(3),
        .has_result = one_in(3),
        .result = c->q[rng(QUEUES)],
        .has_retention = one_in(3),
        .retention_ms = rng(200),
    };
    ev->options = o;
}

static const enum broker_event_kind python_calls[] = {
    BROKER_PUT,   BROKER_PUT,   BROKER_PUT,  BROKER_GET,       BROKER_GET,  BROKER_GET,
    BROKER_QSIZE, BROKER_EMPTY, BROKER_FULL, BROKER_TASK_DONE, BROKER_JOIN, BROKER_TASK_DONE,
};
static const enum broker_event_kind native_calls[] = {
    BROKER_PUT,     BROKER_PUT,    BROKER_PUT,   BROKER_PUT,  BROKER_GET,   BROKER_GET,  BROKER_GET,
    BROKER_GET,     BROKER_DONE,   BROKER_DONE,  BROKER_DONE, BROKER_FAIL,  BROKER_FAIL, BROKER_EXTEND,
    BROKER_RELEASE, BROKER_REMOVE, BROKER_RETRY, BROKER_WAIT, BROKER_PURGE, BROKER_JOIN,
};

#define PICK(list) ((list)[rng(sizeof(list) / sizeof((list)[0]))])

/* One call; the session may have it. */
static void random_call(struct chaos *c, int s, bool more)
{
    struct broker_failure failure = {.error = tq_span_str("it broke"),
                                     .code = 3,
                                     .final = one_in(3),
                                     .has_delay = one_in(3),
                                     .delay_ms = rng(50)};
    struct broker_queue *q = c->q[rng(QUEUES)];
    const struct broker_lease *held = c->r.s[s].held;
    struct broker_lease_name name = PICK(c->leases);
    enum broker_event_kind kind = s < PYTHONS ? PICK(python_calls) : PICK(native_calls);
    struct broker_event ev = rig_call(&c->r, kind, s, q, 0);
    struct broker_put_options options;
    int rv;

    tq_mem_fail_after(-1, 0);
    if (q == NULL)
        return;
    if (held != NULL && !one_in(4))
        name = (struct broker_lease_name){.id = held->id, .epoch = held->epoch};
    ev.more = more;
    ev.wait_mode = (enum broker_wait_mode)rng(3);
    ev.wait_ms = rng(60);
    ev.max = 1 + rng(6);
    ev.max_bytes = one_in(3) ? rng(400) : 0;
    ev.take = one_in(4);
    ev.id = one_in(2) ? PICK(c->ids) : name.id;
    ev.epoch = name.epoch;
    if (kind == BROKER_DONE || kind == BROKER_FAIL || kind == BROKER_EXTEND || kind == BROKER_RELEASE)
        ev.id = name.id;
    ev.failure = &failure;
    if (one_in(300)) {
        ev.kind = BROKER_SHUTDOWN;
        ev.immediate = one_in(2);
    }
    if (ev.kind == BROKER_PUT || (ev.kind == BROKER_DONE && !one_in(4)))
        random_put(c, &ev, &options);
    if (ev.kind == BROKER_DONE && one_in(4))
        ev.result_to = c->q[rng(QUEUES)];
    if (ev.kind == BROKER_WAIT && one_in(3))
        ev.key = tq_span_str("k1"), ev.id = 0;
    c->open_calls[ev.token] = true;
    if (c->fails && one_in(3))
        tq_mem_fail_after((long)rng(6), 1 + (long)rng(4));
    rv = rig_try(&c->r, &ev);
    tq_body_unref(ev.payload.body);
    assert_true(rv == 0 || (rv == TQ_ENOMEM && c->fails));
    if (rv != 0)
        c->open_calls[ev.token] = false;
}

static void detach_and_resume(struct chaos *c, int s)
{
    struct broker_event ev = {.kind = BROKER_DETACH, .session = &c->r.s[s], .free_now = one_in(2)};
    struct broker_lease_name leases[4];

    if (!c->r.s[s].silent) {
        forget_parked(c, s, 0);
        rig_step(&c->r, &ev);
        read_effects(c);
        return;
    }
    for (size_t i = 0; i < 4; i++)
        leases[i] = PICK(c->leases);
    ev = rig_call(&c->r, BROKER_RESUME, s, NULL, 0);
    ev.leases = leases;
    ev.lease_count = rng(5);
    c->open_calls[ev.token] = true;
    if (rig_try(&c->r, &ev) != 0) {
        assert_true(c->fails);
        c->open_calls[ev.token] = false;
    }
    read_effects(c);
}

static void other_event(struct chaos *c, int s)
{
    struct broker_event ev = {.session = &c->r.s[s], .close_mode = (enum broker_close_mode)rng(2)};
    struct broker_lease_name name = PICK(c->leases);
    const struct broker_wait *w = c->r.s[s].waits;
    uint32_t what = rng(100);

    if (s >= PYTHONS && what < 30) {
        detach_and_resume(c, s);
        return;
    }
    if (what < 60) {
        ev.kind = s < PYTHONS ? BROKER_DELIVERED : BROKER_BOUNCE;
        ev.id = name.id;
        ev.epoch = name.epoch;
    } else if (what < 80) {
        ev.kind = BROKER_CANCEL;
        ev.token = w != NULL ? w->token : 0;
        forget_parked(c, s, ev.token);
    } else {
        ev.kind = BROKER_SESSION_CLOSE;
        forget_parked(c, s, 0);
    }
    rig_step(&c->r, &ev);
    if (ev.kind == BROKER_SESSION_CLOSE)
        open_session(c, s);
}

static void pass_time(struct chaos *c, uint64_t ms)
{
    struct tq_deadline *d;

    c->r.now_ms += ms;
    while ((d = tq_deadlines_pop_due(&c->r.deadlines, c->r.now_ms)) != NULL) {
        int rv = rig_try(&c->r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});

        assert_true(rv == 0 || (rv == TQ_ENOMEM && c->fails));
        read_effects(c);
    }
}

static void random_step(struct chaos *c)
{
    int s = (int)rng(RIG_SESSIONS);
    const struct broker_session *session = &c->r.s[s];

    if (session->wait_count >= (session->native ? PARKED : 1) || one_in(4)) {
        other_event(c, s);
    } else if (session->silent) {
        detach_and_resume(c, s);
    } else if (session->native && one_in(4)) {
        for (uint32_t i = rng(5); i > 0 && session->wait_count < PARKED; i--)
            random_call(c, s, true);
        rig_step(&c->r, &(struct broker_event){.kind = BROKER_CANCEL, .session = &c->r.s[s]});
    } else {
        random_call(c, s, false);
    }
}

static void play(uint64_t seed, bool fails)
{
    struct chaos *c = calloc(1, sizeof(*c));

    assert_non_null(c);
    running_seeds[fails] = seed;
    rng_state = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++)
        rng(2);
    c->fails = fails;
    jr_on = seed % 3 == 0;
    rig_init_limits(
        &c->r, &(struct broker_limits){.queues = 9, .memory_bytes = MEMORY, .held_per_session = HELD_MAX});
    broker_on_queue_gone(c->r.b, on_gone, c);
    for (int s = PYTHONS; s < RIG_SESSIONS; s++) {
        rig_step(&c->r, &(struct broker_event){.kind = BROKER_SESSION_CLOSE, .session = &c->r.s[s]});
        open_session(c, s);
    }
    for (int i = 0; i < QUEUES; i++)
        declare(c, i);
    for (int i = 0; i < STEPS; i++) {
        if (fails && one_in(3))
            tq_mem_fail_after((long)rng(6), 1 + (long)rng(4));
        random_step(c);
        read_effects(c);
        if (one_in(40) || c->q[i % QUEUES] == NULL)
            declare(c, i % QUEUES);
        if (one_in(40)) {
            broker_refuse_new_work(c->r.b, c->r.now_ms, one_in(2), &c->r.fx);
            rig_check(&c->r);
        }
        read_effects(c);
        pass_time(c, rng(10));
        tq_mem_fail_after(-1, 0);
        if (one_in(2))
            broker_effects_deinit(&c->r.fx); /* so that there is something to allocate */
        assert_true(rig_stats(&c->r).body_bytes <= MEMORY);
        assert_true(rig_stats(&c->r).parked_bytes <= MEMORY);
    }
    rig_deinit(&c->r);
    free(c);
}

static void run(bool fails)
{
    const char *seed_text = getenv("BROKER_SEED");
    uint64_t only = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 0;

    for (uint64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : SEEDS); seed++)
        play(seed, fails);
}

static void the_invariants_hold(void **state)
{
    (void)state;
    run(false);
}

static void the_invariants_hold_without_memory(void **state)
{
    (void)state;
    run(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_invariants_hold),
        cmocka_unit_test(the_invariants_hold_without_memory),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    if (failed > 0)
        print_message("the last seeds were %llu and %llu\n", (unsigned long long)running_seeds[0],
                      (unsigned long long)running_seeds[1]);
    return failed;
}
