/* A random life, twice: a broker that never stops, and one whose journal is read into a new one again and
 * again, from what is left of the log when old segments were emptied and dropped. After each restart both are
 * the same, and they stay the same through whatever comes then. */
#include "tests/unit/journal_same.h"

#include "tests/lib/effort.h"

#ifndef SEEDS
#define SEEDS EFFORT(300, 6)
#endif
#define STEPS       260
#define PYTHONS     3 /* the first sessions are Python's, the next two native without a durable id */
#define SHORT_LIVED 5
#define PARKED      3
#define START_MS    100000

static uint64_t rng_state;
static uint64_t running_seed; /* told when a test fails; BROKER_SEED plays that one alone */

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

#define PICK(list) ((list)[rng(sizeof(list) / sizeof((list)[0]))])

/* Python's items: a key and then an id that no other has, so that any two have an order. */
struct item {
    int64_t key;
    uint64_t id;
};

static int item_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                     char text[BROKER_TEXT_MAX])
{
    struct item x, y;

    (void)text;
    assert_true(a->len >= sizeof(x) && b->len >= sizeof(y));
    memcpy(&x, a->data, sizeof(x));
    memcpy(&y, b->data, sizeof(y));
    *ret_less = x.key != y.key ? x.key < y.key : x.id < y.id;
    return 0;
}

struct life {
    struct world *steady, *mortal;
    struct world_log log;
    uint64_t now_ms, token, durable_id, item_id;
    uint64_t ids[32]; /* some that were given out */
    struct broker_lease_name leases[32];
    uint32_t at;
    uint64_t move_at, move_to; /* a move under way; move_to 0: none */
    unsigned restarts;
    bool has_memory; /* some queues do not last */
};

/* ---- both worlds ---- */

/* An event without its pointers, which are each world's own. */
struct move {
    struct broker_event ev;
    int s, q, result_to; /* -1: none */
    struct broker_put_options options;
    bool has_options;
    int result;
};

static int step_one(struct life *f, struct world *w, const struct move *m)
{
    struct broker_event ev = m->ev;
    struct broker_put_options o = m->options;

    ev.session = &w->s[m->s];
    ev.queue = m->q >= 0 ? w->q[m->q] : NULL;
    ev.result_to = m->result_to >= 0 ? w->q[m->result_to] : NULL;
    o.result = m->result >= 0 ? w->q[m->result] : NULL;
    ev.options = m->has_options ? &o : NULL;
    return world_try(w, f->now_ms, &ev);
}

static void remember(struct life *f)
{
    for (size_t i = 0; i < f->steady->fx.count; i++) {
        const struct broker_effect *e = &f->steady->fx.list[i];

        if (e->id == 0)
            continue;
        f->ids[f->at % 32] = e->id;
        if (e->outcome == BROKER_REPLY_TASK || e->outcome == BROKER_REPLY_ITEM)
            f->leases[f->at % 32] = (struct broker_lease_name){.id = e->id, .epoch = e->epoch};
        f->at++;
    }
}

static void step(struct life *f, const struct move *m)
{
    assert_int_equal(step_one(f, f->steady, m), 0);
    assert_int_equal(step_one(f, f->mortal, m), 0);
    remember(f);
    same_effects(f->steady, f->mortal);
}

static void open_session(struct life *f, int s)
{
    static const char *const workers[] = {"w1", "worker-2"};
    uint64_t durable_id = s >= SHORT_LIVED ? ++f->durable_id : 0;
    const char *worker = PICK(workers);

    world_open(f->steady, f->now_ms, s, s >= PYTHONS, durable_id, worker);
    world_open(f->mortal, f->now_ms, s, s >= PYTHONS, durable_id, worker);
}

static void due_one(struct life *f, struct world *w)
{
    struct tq_deadline *d;

    while ((d = tq_deadlines_pop_due(&w->deadlines, f->now_ms)) != NULL)
        world_step(w, f->now_ms, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
    world_find_queues(w);
}

/* A millisecond at a time, so that what comes due does so in its own, and at the same time in both. */
static void pass_time(struct life *f, uint64_t ms)
{
    do {
        uint64_t next_ms = tq_deadlines_next_ms(&f->steady->deadlines);
        uint64_t other_ms = tq_deadlines_next_ms(&f->mortal->deadlines);
        uint64_t until_ms = f->now_ms + ms;

        next_ms = other_ms < next_ms ? other_ms : next_ms;
        next_ms = next_ms < f->now_ms ? f->now_ms : next_ms;
        if (next_ms > until_ms)
            next_ms = until_ms;
        ms = until_ms - next_ms;
        f->now_ms = next_ms;
        due_one(f, f->steady);
        due_one(f, f->mortal);
        remember(f);
        same_effects(f->steady, f->mortal);
    } while (ms > 0);
}

/* ---- queues ---- */

static struct broker_queue_conf random_conf(const struct life *f)
{
    struct broker_queue_conf c;

    broker_queue_conf_init(&c);
    c.kind = (enum broker_kind)rng(3);
    c.ack = (enum broker_ack)rng(3);
    c.durability = (enum broker_durability)rng(2); /* both last, one way or the other */
    if (f->has_memory && one_in(3))
        c.durability = BROKER_DURABILITY_MEMORY;
    c.maxsize = one_in(3) ? rng(8) : 0;
    c.factory_made = one_in(2);
    c.paused = one_in(12);
    c.reject_full = one_in(4);
    c.max_attempts = (uint8_t)rng(4);
    c.max_deliveries = (uint8_t)rng(4);
    c.lease_ms = one_in(3) ? rng(60) : 0;
    c.grace_ms = rng(100);
    c.retry_ms = rng(30);
    c.retry_max_ms = 100;
    c.ttl_ms = one_in(4) ? rng(300) : 0;
    c.retention_ms = one_in(2) ? BROKER_RETENTION_AUTO : rng(300);
    c.rate_per_s = one_in(6) ? 100 + rng(300) : 0;
    c.concurrency = one_in(6) ? 1 + rng(4) : 0;
    c.expires_ms = one_in(8) ? 50 + rng(200) : 0;
    c.result = one_in(2) ? PICK(world_names) : NULL;
    c.dead = one_in(2) ? PICK(world_names) : NULL;
    return c;
}

static void declare_one(struct life *f, struct world *w, int i, const struct broker_queue_conf *c, bool anew)
{
    struct broker_queue_conf conf = *c;

    if (w->q[i] != NULL && !anew) {
        conf.kind = w->q[i]->conf.kind;
        conf.ack = w->q[i]->conf.ack;
        (void)broker_reconfigure(w->b, f->now_ms, w->q[i], &conf, &w->fx);
    } else {
        if (w->q[i] != NULL)
            broker_remove(w->b, w->q[i], &w->fx);
        w->q[i] = NULL;
        (void)broker_declare(w->b, world_names[i], &conf, &w->q[i]);
    }
    world_check(w);
}

static void declare(struct life *f, int i)
{
    struct broker_queue_conf c = random_conf(f);
    bool anew = one_in(2);

    declare_one(f, f->steady, i, &c, anew);
    declare_one(f, f->mortal, i, &c, anew);
    same_effects(f->steady, f->mortal);
}

/* ---- calls ---- */

static void random_body(struct life *f, struct move *m, uint8_t bytes[2000])
{
    struct item item = {.key = (int64_t)rng(4), .id = ++f->item_id};
    uint32_t len = (uint32_t)sizeof(item) + (one_in(5) ? rng(1200) : rng(100));

    memset(bytes, (int)rng(256), len);
    memcpy(bytes, &item, sizeof(item));
    m->ev.payload = (struct broker_payload){.data = bytes, .len = len, .format = BROKER_MSGPACK};
    if (m->s < PYTHONS || one_in(4)) {
        m->ev.payload.format = BROKER_PYTHON;
        m->ev.payload.item_off = rng(8);
        m->ev.payload.item_len = rng(8);
    }
}

static void random_options(struct move *m)
{
    static const char *const keys[] = {"k1", "k2", "key-three"};

    if (m->s < PYTHONS || one_in(3))
        return;
    m->has_options = true;
    m->result = one_in(2) ? (int)rng(WORLD_QUEUES) : -1;
    m->options = (struct broker_put_options){
        .key = one_in(2) ? tq_span_str(PICK(keys)) : tq_span("", 0),
        .trace = one_in(4) ? tq_span_str("00-trace") : tq_span("", 0),
        .priority = one_in(3) ? (int32_t)rng(3) - 1 : 0,
        .delay_ms = one_in(4) ? rng(80) : 0,
        .ttl_ms = one_in(5) ? 1 + rng(300) : 0,
        .max_attempts = (uint8_t)rng(3),
        .has_result = one_in(3),
        .has_retention = one_in(3),
        .retention_ms = rng(300),
    };
}

static const enum broker_event_kind python_calls[] = {
    BROKER_PUT, BROKER_PUT,       BROKER_PUT,       BROKER_GET,   BROKER_GET,
    BROKER_GET, BROKER_TASK_DONE, BROKER_TASK_DONE, BROKER_QSIZE, BROKER_JOIN,
};
static const enum broker_event_kind native_calls[] = {
    BROKER_PUT,  BROKER_PUT,  BROKER_PUT,    BROKER_PUT,     BROKER_PUT,    BROKER_GET,   BROKER_GET,
    BROKER_GET,  BROKER_GET,  BROKER_DONE,   BROKER_DONE,    BROKER_FAIL,   BROKER_FAIL,  BROKER_FAIL,
    BROKER_FAIL, BROKER_WAIT, BROKER_EXTEND, BROKER_RELEASE, BROKER_REMOVE, BROKER_RETRY, BROKER_JOIN,
};

static bool is_about_lease(enum broker_event_kind kind)
{
    return kind == BROKER_DONE || kind == BROKER_FAIL || kind == BROKER_EXTEND || kind == BROKER_RELEASE;
}

static void random_call(struct life *f, int s)
{
    struct broker_failure failure = {.error = tq_span_str("it broke"),
                                     .code = 3,
                                     .final = one_in(4),
                                     .has_delay = one_in(3),
                                     .delay_ms = rng(50)};
    const struct broker_lease *held = f->steady->s[s].held;
    struct broker_lease_name name = PICK(f->leases);
    struct move m = {.s = s, .q = (int)rng(WORLD_QUEUES), .result_to = -1, .result = -1};
    uint8_t bytes[2000];

    if (f->steady->q[m.q] == NULL)
        return;
    if (held != NULL && !one_in(4))
        name = (struct broker_lease_name){.id = held->id, .epoch = held->epoch};
    m.ev = (struct broker_event){
        .kind = s < PYTHONS ? PICK(python_calls) : PICK(native_calls),
        .token = ++f->token,
        .wait_mode = (enum broker_wait_mode)rng(3),
        .wait_ms = rng(60),
        .max = 1 + rng(4),
        .max_bytes = one_in(3) ? rng(400) : 0,
        .take = one_in(6),
        .id = name.id,
        .epoch = name.epoch,
        .failure = &failure,
    };
    if (one_in(400)) {
        m.ev.kind = BROKER_SHUTDOWN;
        m.ev.immediate = one_in(2);
    } else if (s >= PYTHONS && one_in(80)) {
        m.ev.kind = BROKER_PURGE;
    }
    if (!is_about_lease(m.ev.kind) && one_in(2))
        m.ev.id = PICK(f->ids);
    if (m.ev.kind == BROKER_PUT || (m.ev.kind == BROKER_DONE && !one_in(4)))
        random_body(f, &m, bytes);
    if (m.ev.kind == BROKER_PUT)
        random_options(&m);
    if (m.ev.kind == BROKER_DONE && one_in(4))
        m.result_to = (int)rng(WORLD_QUEUES);
    if (m.ev.kind == BROKER_WAIT && one_in(3))
        m.ev.key = tq_span_str("k1"), m.ev.id = 0;
    else if (m.ev.kind == BROKER_WAIT)
        m.q = -1;
    step(f, &m);
}

static void resume(struct life *f, int s)
{
    struct broker_lease_name names[32];
    struct move m = {.ev = {.kind = BROKER_RESUME, .token = ++f->token, .leases = names},
                     .s = s,
                     .q = -1,
                     .result_to = -1};
    const struct broker_lease *lists[] = {f->steady->s[s].held, f->steady->s[s].freed}, *l;

    for (int i = 0; i < 2; i++)
        DL_FOREACH(lists[i], l)
        {
            if (m.ev.lease_count < 32 && !one_in(4))
                names[m.ev.lease_count++] = (struct broker_lease_name){.id = l->id, .epoch = l->epoch};
        }
    step(f, &m);
}

static void detach(struct life *f, int s)
{
    step(f, &(struct move){
                .ev = {.kind = BROKER_DETACH, .free_now = one_in(2)}, .s = s, .q = -1, .result_to = -1});
}

static void other_event(struct life *f, int s)
{
    struct broker_lease_name name = PICK(f->leases);
    const struct broker_wait *w = f->steady->s[s].waits;
    struct move m = {.s = s, .q = -1, .result_to = -1};
    uint32_t what = rng(100);

    if (s >= PYTHONS && what < 50) {
        if (f->steady->s[s].silent)
            resume(f, s);
        else
            detach(f, s);
        return;
    }
    m.ev.close_mode = (enum broker_close_mode)rng(2);
    m.ev.id = name.id;
    m.ev.epoch = name.epoch;
    m.ev.token = w != NULL ? w->token : 0;
    m.ev.kind = what >= 93  ? BROKER_SESSION_CLOSE
                : what < 75 ? (s < PYTHONS ? BROKER_DELIVERED : BROKER_BOUNCE)
                            : BROKER_CANCEL;
    step(f, &m);
    if (m.ev.kind == BROKER_SESSION_CLOSE)
        open_session(f, s);
}

static void random_step(struct life *f)
{
    int s = (int)rng(WORLD_SESSIONS);
    const struct broker_session *session = &f->steady->s[s];

    if (session->wait_count >= (session->native ? PARKED : 1) || one_in(5))
        other_event(f, s);
    else if (session->silent)
        resume(f, s);
    else
        random_call(f, s);
}

/* ---- the log ---- */

static void random_log(struct life *f)
{
    struct broker *b = f->mortal->b;
    struct world_log nothing = {.segment = 1};
    uint64_t noted;
    unsigned budget = 1 + rng(40);

    if (one_in(3))
        (void)world_collect(b, &f->log);
    if (one_in(12))
        f->log.segment += 1 + rng(3);
    if (f->move_to == 0 && one_in(15) && f->log.segment > 2) {
        f->move_to = f->log.segment - 1 - rng(2);
        f->move_at = 0;
    }
    if (f->move_to != 0 && broker_journal_move(b, f->move_to, &f->move_at, &budget, &noted))
        f->move_to = 0;
    if (one_in(20))
        world_release(b, &f->log);
    if (one_in(10)) { /* it has a journal for the sake of places, and nobody reads it */
        (void)world_collect(f->steady->b, &nothing);
        world_log_deinit(&nothing);
    }
}

static void restart(struct life *f)
{
    struct world *next;

    (void)world_collect(f->mortal->b, &f->log);
    if (one_in(2))
        world_release(f->mortal->b, &f->log);
    f->now_ms += one_in(2) ? 0 : rng(200);
    next = world_restore(f->mortal, &f->log, f->now_ms, one_in(2));
    world_free(f->mortal);
    f->mortal = next;
    world_crash_by_hand(f->steady, f->mortal, f->now_ms);
    world_find_queues(f->steady);
    if (f->has_memory)
        world_forget_memory(f->steady, f->mortal);
    world_forget_small(f->steady, f->mortal);
    same_worlds(f->steady, f->mortal);
    f->log.segment += rng(2);
    f->move_to = 0;
    f->restarts++;
    for (int s = 0; s < SHORT_LIVED; s++)
        open_session(f, s);
    pass_time(f, 0);
}

/* From any earlier end of what is left of the log, a broker comes to life, even if what was dropped had been
 * moved to where it was cut off. */
static void restore_a_part(struct life *f)
{
    struct world *w = world_new(&f->mortal->b->limits, item_less);
    struct broker_restore *r;
    char text[RESTORE_TEXT_MAX];
    uint64_t orphans;

    r = world_read(w, &f->log, f->log.first + rng((uint32_t)(f->log.count - f->log.first) + 1));
    broker_restore_drop_orphans(r, &orphans);
    if (broker_restore_finish(r, f->now_ms, world_session_of, w, text) != 0)
        fail_msg("finish: %s", text);
    world_check(w);
    assert_true(f->log.first > 0 || orphans == 0);
    world_free(w);
}

static void play(uint64_t seed)
{
    struct broker_limits limits = {.queues = 9, .held_per_session = 7};
    struct life *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    running_seed = seed;
    rng_state = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++)
        rng(2);
    if (one_in(4))
        limits.memory_bytes = 20000;
    f->has_memory = one_in(3);
    f->now_ms = START_MS;
    f->log.segment = 1;
    f->steady = world_new(&limits, item_less);
    f->mortal = world_new(&limits, item_less);
    f->steady->b->now_ms = f->mortal->b->now_ms = START_MS;
    for (int s = 0; s < WORLD_SESSIONS; s++)
        open_session(f, s);
    for (int i = 0; i < WORLD_QUEUES; i++)
        declare(f, i);
    for (int i = 0; i < STEPS; i++) {
        random_step(f);
        if (one_in(30) || f->steady->q[i % WORLD_QUEUES] == NULL)
            declare(f, i % WORLD_QUEUES);
        random_log(f);
        if (one_in(3))
            pass_time(f, rng(16));
        if (one_in(30))
            restart(f);
        if (one_in(60))
            restore_a_part(f);
    }
    restart(f);
    assert_true(f->restarts > 1);
    world_free(f->steady);
    world_free(f->mortal);
    world_log_deinit(&f->log);
    free(f);
}

static void lives_are_the_same(void **state)
{
    const char *seed_text = getenv("BROKER_SEED");
    uint64_t only = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 0;

    (void)state;
    for (uint64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : SEEDS); seed++)
        play(seed);
}

/* ---- a purge that a crash interrupts ---- */

#define PURGED (3 * PURGE_SLICE / 2)

static void put_and_purge(struct world *w, const struct broker_queue_conf *conf)
{
    struct broker_queue_conf plain;
    struct broker_event ev = {.session = &w->s[0], .token = 1};
    struct broker_put_options told = {.has_result = true}, late = {.delay_ms = 1000};

    broker_queue_conf_init(&plain);
    assert_int_equal(broker_declare(w->b, "a", conf, &w->q[0]), 0);
    assert_int_equal(broker_declare(w->b, "b", &plain, &w->q[1]), 0);
    world_open(w, START_MS, 0, true, 0, "w");
    ev.queue = w->q[0];
    told.result = w->q[1];
    for (uint64_t i = 0; i < PURGED + 3; i++) {
        struct item item = {.key = (int64_t)(i * 7 % 100), .id = i};

        ev.kind = i == PURGED ? BROKER_PURGE : BROKER_PUT;
        ev.payload = (struct broker_payload){
            .data = (const uint8_t *)&item, .len = sizeof(item), .format = BROKER_PYTHON};
        ev.options = i % 50 == 0 ? &told : i % 500 == 7 ? &late : NULL;
        assert_int_equal(broker_step(w->b, START_MS, &ev, &w->fx), 0);
        broker_effects_clear(&w->fx);
    }
    assert_true(w->q[0]->purging > 0);
    assert_int_equal(w->q[0]->ready, 2);
}

static void purges_go_on(void **state)
{
    struct broker_limits limits = {.queues = 9};

    (void)state;
    for (int kind = BROKER_FIFO; kind <= BROKER_PRIORITY; kind++) {
        struct life f = {.now_ms = START_MS, .log.segment = 1};
        struct broker_queue_conf conf;

        broker_queue_conf_init(&conf);
        conf.kind = (enum broker_kind)kind;
        f.steady = world_new(&limits, item_less);
        put_and_purge(f.steady, &conf);
        (void)world_collect(f.steady->b, &f.log);
        f.mortal = world_restore(f.steady, &f.log, f.now_ms, true);
        world_crash_by_hand(f.steady, f.mortal, f.now_ms);
        same_worlds(f.steady, f.mortal);
        assert_true(f.mortal->q[0]->purging > 0);
        f.now_ms++;
        pass_time(&f, 20);
        assert_int_equal(f.mortal->q[0]->purging, 0);
        if (kind !=
            BROKER_PRIORITY) /* of a heap, those who are told are told in the order in which they came */
            same_worlds(f.steady, f.mortal);
        SAME(f.steady->q[1]->ready, f.mortal->q[1]->ready);
        world_free(f.steady);
        world_free(f.mortal);
        world_log_deinit(&f.log);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives_are_the_same),
        cmocka_unit_test(purges_go_on),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    if (failed > 0)
        print_message("the last seed was %llu\n", (unsigned long long)running_seed);
    return failed;
}
