/* Long random histories: the broker and a simple model of it have the same effects, step by step; nothing
 * that was accepted is lost or doubled; and under random lack of memory the books still balance. Every fourth
 * history has a journal. */
#include "tests/lib/effort.h"
#include "tests/unit/broker_model.h"

#include <stdlib.h>

#include "master/core/queue.h"

RIG_DEFINE_LESS

#define SEEDS       EFFORT(1500, 100)
#define STEPS       600
#define CHAOS_SEEDS EFFORT(800, 50)

static uint64_t rng_state;
static uint64_t running_seed; /* told when a test fails; BROKER_SEED plays that one alone */

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 20) % below);
}

static void rng_seed(uint64_t seed)
{
    rng_state = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++)
        rng(2);
}

struct play {
    struct rig r;
    struct model m;
    struct broker_queue *q[MODEL_QUEUES];
    struct broker_lease_name handed[MODEL_ITEMS]; /* the item's last hand-out */
};

static void play_init(struct play *p, uint64_t seed)
{
    memset(p, 0, sizeof(*p));
    jr_on = seed % 4 == 0;
    rng_seed(seed);
    rig_init_limits(&p->r, &(struct broker_limits){.queues = MODEL_QUEUES, .held_per_session = 3});
    p->m.held_max = 3;
    p->m.now_ms = p->r.now_ms;
    for (int i = 0; i < MODEL_QUEUES; i++) {
        char name[2] = {(char)('a' + i), 0};

        broker_queue_conf_init(&p->m.q[i].conf);
        p->m.q[i].conf.kind = (enum broker_kind)rng(3);
        p->m.q[i].conf.ack = rng(2) ? BROKER_ACK_AUTO : (enum broker_ack)rng(3);
        p->m.q[i].conf.maxsize = (int64_t)rng(5) - 1;
        assert_int_equal(broker_declare(p->r.b, name, &p->m.q[i].conf, &p->q[i]), 0);
    }
    for (int i = 0; i < RIG_SESSIONS; i++)
        p->m.s[i].wait = -1;
}

/* The effects of a queue come in the model's order; those of different queues may interleave. */
static void compare_effects(struct play *p)
{
    bool used[64] = {false};

    assert_int_equal(p->r.fx.count, p->m.fx_count);
    for (size_t i = 0; i < p->r.fx.count; i++) {
        const struct broker_effect *e = &p->r.fx.list[i];
        const struct m_effect *x = NULL;
        int s = (int)((struct broker_session *)e->session - p->r.s);

        for (int k = 0; k < p->m.fx_count && x == NULL; k++)
            if (!used[k] && p->m.fx[k].token == e->token) {
                x = &p->m.fx[k];
                used[k] = true;
                for (int before = 0; before < k; before++)
                    assert_true(used[before] || p->m.fx[before].q != x->q);
            }
        assert_non_null(x);
        assert_int_equal(s, x->s);
        assert_int_equal(e->outcome, x->outcome);
        assert_int_equal(e->number, x->number);
        assert_int_equal(e->was_parked, x->was_parked);
        assert_int_equal(e->attempt, x->attempt);
        assert_int_equal(e->slot != 0, x->item >= 0);
        if (x->item >= 0) {
            assert_int_equal(rig_handed(&p->r, e).id, x->item);
            p->handed[x->item] = (struct broker_lease_name){.id = e->id, .epoch = e->epoch};
        }
    }
    p->m.fx_count = 0;
    broker_effects_clear(&p->r.fx);
}

static void compare_books(struct play *p)
{
    struct broker_stats st = rig_stats(&p->r);
    uint64_t ready = 0, held = 0;

    for (int i = 0; i < MODEL_QUEUES; i++) {
        assert_int_equal(broker_queue_size(p->q[i]), p->m.q[i].ready.n);
        ready += (uint64_t)p->m.q[i].ready.n;
    }
    for (int s = 0; s < RIG_SESSIONS; s++) {
        held += (uint64_t)p->m.s[s].held.n;
        assert_int_equal(broker_session_parked(&p->r.s[s]), p->m.s[s].wait >= 0);
    }
    assert_int_equal(st.leased, held);
    assert_int_equal(st.tasks, ready + held);
    assert_int_equal(st.acked, p->m.acked);
    assert_int_equal(st.dropped, p->m.dropped);
    assert_int_equal(st.puts, st.acked + st.dropped + st.tasks); /* nothing lost, nothing doubled */
}

static void step_both(struct play *p, struct broker_event *ev, int s, int q)
{
    int item = -1;

    if (ev->kind == BROKER_PUT) {
        item = p->m.item_count++;
        assert_true(item < MODEL_ITEMS);
        p->m.items[item] = (struct m_item){.key = (int64_t)rng(4), .q = q};
        ev->payload = rig_payload(rig_body_new(p->m.items[item].key, item, rng(8) ? 0 : rng(1000)));
    }
    rig_step(&p->r, ev);
    tq_body_unref(ev->payload.body);
    switch (ev->kind) {
    case BROKER_DUE:
    case BROKER_SESSION_OPEN:
        break;
    case BROKER_SESSION_CLOSE:
        m_close(&p->m, s, ev->close_mode);
        break;
    case BROKER_CANCEL:
        if (p->m.s[s].wait >= 0)
            m_unpark(&p->m, s);
        break;
    case BROKER_DELIVERED:
        m_delivered(&p->m, s);
        break;
    default:
        m_call(&p->m, ev, s, q, item);
    }
    compare_effects(p);
    compare_books(p);
}

static void pass_time(struct play *p, uint64_t ms)
{
    struct tq_deadline *d;

    p->r.now_ms += ms;
    p->m.now_ms += ms;
    while ((d = tq_deadlines_pop_due(&p->r.deadlines, p->r.now_ms)) != NULL) {
        int s = m_due(&p->m);

        assert_true(s >= 0);
        rig_step(&p->r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
        m_answer(&p->m, s, p->m.s[s].wait == BROKER_PUT ? BROKER_REPLY_FULL : BROKER_REPLY_EMPTY);
        compare_effects(p);
        compare_books(p);
    }
    assert_int_equal(m_due(&p->m), -1);
}

static void session_ends(struct play *p, int s)
{
    struct broker_event ev = {.kind = BROKER_SESSION_CLOSE,
                              .session = &p->r.s[s],
                              .close_mode = rng(2) ? BROKER_CLOSE_RETURN : BROKER_CLOSE_ACK};

    step_both(p, &ev, s, 0);
    ev.kind = BROKER_SESSION_OPEN;
    step_both(p, &ev, s, 0);
}

/* Something that is no call: time, delivery, cancel, a bounce, the end of a session. */
static void random_happening(struct play *p, int s)
{
    struct broker_event ev = {.session = &p->r.s[s]};
    const struct m_list *held = &p->m.s[s].held;
    uint32_t what = rng(100);

    if (what < 40) {
        ev.kind = BROKER_DELIVERED;
        step_both(p, &ev, s, 0);
    } else if (what < 60) {
        pass_time(p, rng(30));
    } else if (what < 75 && held->n > 0) {
        int item = held->at[held->n - 1];

        ev.kind = BROKER_BOUNCE;
        ev.id = p->handed[item].id;
        ev.epoch = p->handed[item].epoch;
        rig_step(&p->r, &ev);
        m_bounce(&p->m, s, item);
        compare_effects(p);
        compare_books(p);
    } else if (what < 85) {
        ev.kind = BROKER_CANCEL;
        step_both(p, &ev, s, 0);
    } else {
        session_ends(p, s);
    }
}

static void random_call(struct play *p, int s)
{
    static const enum broker_event_kind kinds[] = {
        BROKER_PUT,   BROKER_PUT,   BROKER_PUT,  BROKER_PUT,       BROKER_GET,       BROKER_GET,
        BROKER_GET,   BROKER_GET,   BROKER_GET,  BROKER_TASK_DONE, BROKER_TASK_DONE, BROKER_TASK_DONE,
        BROKER_QSIZE, BROKER_EMPTY, BROKER_FULL, BROKER_JOIN,
    };
    int q = (int)rng(MODEL_QUEUES);
    struct broker_event ev = rig_call(&p->r, kinds[rng(sizeof(kinds) / sizeof(kinds[0]))], s, p->q[q], 0);

    ev.wait_mode = (enum broker_wait_mode)rng(3);
    ev.wait_ms = rng(40);
    if (rng(400) == 0) {
        ev.kind = BROKER_SHUTDOWN;
        ev.immediate = rng(2);
    }
    step_both(p, &ev, s, q);
}

/* At the end all sessions die; whatever is not acknowledged can be had from the queues, once. */
static void drain(struct play *p)
{
    bool seen[MODEL_ITEMS] = {false};
    uint64_t left = 0, tasks;

    for (int s = 0; s < RIG_SESSIONS; s++)
        session_ends(p, s);
    tasks = rig_stats(&p->r).tasks;
    for (int q = 0; q < MODEL_QUEUES; q++)
        while (p->m.q[q].ready.n > 0) {
            int next_session = (int)rng(RIG_SESSIONS);
            struct broker_event ev = rig_call(&p->r, BROKER_GET, next_session, p->q[q], 0);

            rig_step(&p->r, &ev);
            assert_int_equal(p->r.fx.count, 1);
            if (p->r.fx.list[0].outcome == BROKER_REPLY_ITEM) {
                int64_t id = rig_handed(&p->r, &p->r.fx.list[0]).id;

                assert_false(seen[id]);
                seen[id] = true;
                left++;
            }
            m_call(&p->m, &ev, next_session, q, -1);
            compare_effects(p);
            compare_books(p);
            ev = rig_call(&p->r, BROKER_TASK_DONE, next_session, p->q[q], 0); /* room for the next */
            step_both(p, &ev, next_session, q);
        }
    assert_int_equal(left, tasks);
}

static void the_broker_does_what_the_model_does(void **state)
{
    struct play *p = malloc(sizeof(*p));
    uint64_t only = getenv("BROKER_SEED") != NULL ? strtoull(getenv("BROKER_SEED"), NULL, 10) : 0;

    (void)state;
    assert_non_null(p);
    for (uint64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : SEEDS); seed++) {
        running_seed = seed;
        play_init(p, seed);
        for (int i = 0; i < STEPS; i++) {
            int s = (int)rng(RIG_SESSIONS);

            if (broker_session_parked(&p->r.s[s]) || rng(3) == 0)
                random_happening(p, s);
            else
                random_call(p, s);
        }
        drain(p);
        rig_deinit(&p->r);
    }
    free(p);
}

/* Queues that come and go, items without order, a memory limit, allocations that fail: the invariants hold
 * and every accepted put is acknowledged, dropped or still there. The effects are not predicted. */

static void chaos_event(struct rig *r, struct broker_queue **q, struct broker_event *ev, int s)
{
    static const enum broker_event_kind kinds[] = {BROKER_PUT, BROKER_PUT,       BROKER_GET,
                                                   BROKER_GET, BROKER_TASK_DONE, BROKER_JOIN};
    uint32_t what = rng(100);

    *ev = rig_call(r, kinds[rng(6)], s, q[rng(MODEL_QUEUES)], 0);
    ev->wait_mode = (enum broker_wait_mode)rng(3);
    ev->wait_ms = rng(40);
    ev->close_mode = (enum broker_close_mode)rng(2);
    if (broker_session_parked(&r->s[s]) || what < 20)
        ev->kind = what < 10 ? BROKER_DELIVERED : what < 15 ? BROKER_CANCEL : BROKER_SESSION_CLOSE;
    if (what == 99 && !broker_session_parked(&r->s[s])) {
        ev->kind = BROKER_SHUTDOWN;
        ev->immediate = rng(2);
    }
    if (ev->kind == BROKER_PUT)
        ev->payload = rig_payload(rig_body_new(rng(8) ? (int64_t)rng(4) : RIG_NO_ORDER, (int64_t)what,
                                               rng(8) ? rng(300) : rng(700)));
}

static void chaos_queue(struct rig *r, struct broker_queue **q, int i)
{
    static unsigned serial;
    struct broker_queue_conf conf;
    char name[24];

    broker_queue_conf_init(&conf);
    conf.kind = (enum broker_kind)rng(3);
    conf.ack = (enum broker_ack)rng(3);
    conf.maxsize = (int64_t)rng(4);
    conf.factory_made = true;

    if (q[i] != NULL)
        broker_remove(r->b, q[i], &r->fx);
    snprintf(name, sizeof(name), "q%u", serial++);
    tq_mem_fail_after(-1, 0);
    assert_int_equal(broker_declare(r->b, name, &conf, &q[i]), 0);
}

static void chaos_time(struct rig *r)
{
    struct tq_deadline *d;

    r->now_ms += rng(20);
    while ((d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL)
        (void)rig_try(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
}

static void check_books(const struct rig *r)
{
    struct broker_stats st = rig_stats(r);

    assert_int_equal(st.puts, st.acked + st.dropped + st.tasks);
    assert_true(st.body_bytes <= 1500);
    assert_true(st.parked_bytes <= 1500);
}

static void the_books_balance_in_chaos(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CHAOS_SEEDS; seed++) {
        struct broker_queue *q[MODEL_QUEUES] = {NULL};
        struct rig r;

        running_seed = seed;
        rng_seed(seed + 1000000);
        jr_on = seed % 4 == 0;
        rig_init_limits(&r,
                        &(struct broker_limits){.queues = 99, .memory_bytes = 1500, .held_per_session = 3});
        for (int i = 0; i < MODEL_QUEUES; i++)
            chaos_queue(&r, q, i);
        for (int i = 0; i < STEPS; i++) {
            struct broker_event ev;
            int s = (int)rng(RIG_SESSIONS);

            chaos_event(&r, q, &ev, s);
            if (rng(3) == 0)
                tq_mem_fail_after((long)rng(4), 1 + (long)rng(3));
            int rv = rig_try(&r, &ev);
            if (rng(60) == 0)
                chaos_queue(&r, q, (int)rng(MODEL_QUEUES));
            chaos_time(&r);
            tq_mem_fail_after(-1, 0);
            tq_body_unref(ev.payload.body);
            if (ev.kind == BROKER_SESSION_CLOSE) {
                assert_int_equal(rv, 0);
                rig_step(&r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &r.s[s]});
            }
            check_books(&r);
            if (rng(2))
                broker_effects_deinit(&r.fx); /* so that there is something to allocate */
            else
                broker_effects_clear(&r.fx);
        }
        rig_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_broker_does_what_the_model_does),
        cmocka_unit_test(the_books_balance_in_chaos),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    if (failed > 0)
        print_message("the last seed was %llu\n", (unsigned long long)running_seed);
    return failed;
}
