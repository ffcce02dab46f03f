/* A broker with a clock and native sessions, for the tests of leases, results and dead letters. Each call
 * gives back its own reply; what else the step did stands in the list behind it. After each step the broker's
 * invariants are checked. */
#ifndef TESTS_UNIT_BROKER_NATIVE_RIG_H
#define TESTS_UNIT_BROKER_NATIVE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker.h"
#include "master/core/broker_check.h"
#include "tests/unit/broker_journal_rig.h"

#define NR_SESSIONS 8

struct nr {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx; /* of the last step */
    uint64_t now_ms;
    uint64_t token;
    uint64_t durable_id;                  /* the last that a session got */
    struct broker_session s[NR_SESSIONS]; /* the last one is a Python client's */
    struct jr j;                          /* its journal, if the test is played with one */
};

#define NR_PYTHON (NR_SESSIONS - 1)

/* A lease that a session was given. */
struct nr_lease {
    int s;
    uint64_t id;
    uint32_t epoch;
    uint32_t attempt;
};

static inline int nr_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                          char text[BROKER_TEXT_MAX])
{
    size_t n = a->len < b->len ? a->len : b->len;
    int order = memcmp(a->data, b->data, n);

    (void)text;
    *ret_less = order != 0 ? order < 0 : a->len < b->len;
    return 0;
}

static inline int nr_try(struct nr *r, const struct broker_event *ev)
{
    const char *broken;
    int rv;

    broker_effects_clear(&r->fx);
    rv = broker_step(r->b, r->now_ms, ev, &r->fx);
    tq_mem_fail_after(-1, 0);
    broken = broker_check(r->b);
    if (broken != NULL)
        fail_msg("broken rule: %s", broken);
    jr_turn(&r->j, r->b);
    return rv;
}

static inline void nr_step(struct nr *r, const struct broker_event *ev)
{
    assert_int_equal(nr_try(r, ev), 0);
}

static inline void nr_open(struct nr *r, int s)
{
    static const char *const names[NR_SESSIONS] = {"w0", "w1", "w2", "w3", "w4", "w5", "w6", "python"};

    r->s[s] = (struct broker_session){.native = s != NR_PYTHON,
                                      .durable_id = s != NR_PYTHON ? ++r->durable_id : 0,
                                      .worker = tq_span_str(names[s])};
    nr_step(r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &r->s[s]});
}

static inline void nr_init_limits(struct nr *r, const struct broker_limits *limits)
{
    memset(r, 0, sizeof(*r));
    tq_deadlines_init(&r->deadlines);
    r->now_ms = 1000;
    r->b = broker_new(&r->deadlines, limits, nr_less);
    assert_non_null(r->b);
    jr_init(&r->j, r->b);
    for (int i = 0; i < NR_SESSIONS; i++)
        nr_open(r, i);
}

static inline void nr_init(struct nr *r)
{
    nr_init_limits(r, &(struct broker_limits){.queues = 100, .held_per_session = 1000});
}

static inline void nr_deinit(struct nr *r)
{
    jr_deinit(&r->j);
    broker_free(r->b);
    assert_int_equal(r->deadlines.count, 0);
    broker_effects_deinit(&r->fx);
    tq_deadlines_deinit(&r->deadlines);
}

static inline struct broker_queue_conf nr_conf(const char *result, const char *dead)
{
    struct broker_queue_conf c;

    broker_queue_conf_init(&c);
    c.result = result;
    c.dead = dead;
    return c;
}

static inline struct broker_queue *nr_declare(struct nr *r, const char *name,
                                              const struct broker_queue_conf *c)
{
    struct broker_queue *q = NULL;

    assert_int_equal(broker_declare(r->b, name, c, &q), 0);
    return q;
}

static inline struct broker_queue *nr_queue(struct nr *r, const char *name)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);

    return nr_declare(r, name, &c);
}

static inline struct broker_event nr_event(struct nr *r, enum broker_event_kind kind, int s)
{
    return (struct broker_event){.kind = kind, .session = &r->s[s], .token = ++r->token};
}

static inline struct broker_payload nr_payload(const char *text)
{
    return (struct broker_payload){.data = (const uint8_t *)text, .len = (uint32_t)strlen(text)};
}

/* The reply of the call that was just made: the first effect. */
static inline const struct broker_effect *nr_reply(const struct nr *r, const struct broker_event *ev)
{
    const struct broker_effect *e;

    if (r->fx.count == 0)
        fail_msg("expected a reply, there is none");
    e = &r->fx.list[0];
    assert_ptr_equal(e->session, ev->session);
    assert_int_equal(e->token, ev->token);
    return e;
}

static inline enum broker_outcome nr_call(struct nr *r, const struct broker_event *ev)
{
    nr_step(r, ev);
    return nr_reply(r, ev)->outcome;
}

/* ---- calls ---- */

static inline uint64_t nr_put_with(struct nr *r, int s, struct broker_queue *q, const char *body,
                                   const struct broker_put_options *options)
{
    struct broker_event ev = nr_event(r, BROKER_PUT, s);

    ev.queue = q;
    ev.payload = nr_payload(body);
    ev.options = options;
    assert_int_equal(nr_call(r, &ev), BROKER_REPLY_OK);
    assert_true(r->fx.list[0].id > 0);
    return r->fx.list[0].id;
}

static inline uint64_t nr_put(struct nr *r, int s, struct broker_queue *q, const char *body)
{
    return nr_put_with(r, s, q, body, NULL);
}

/* One task, which is there; id 0: any. */
static inline struct nr_lease nr_get(struct nr *r, int s, struct broker_queue *q, uint64_t id)
{
    struct broker_event ev = nr_event(r, BROKER_GET, s);
    const struct broker_effect *e;

    ev.queue = q;
    ev.max = 1;
    assert_int_equal(nr_call(r, &ev), BROKER_REPLY_TASK);
    e = &r->fx.list[0];
    if (id != 0)
        assert_int_equal(e->id, id);
    assert_int_equal(r->fx.list[1].outcome, BROKER_REPLY_END);
    assert_int_equal(r->fx.list[1].number, 1);
    return (struct nr_lease){.s = s, .id = e->id, .epoch = e->epoch, .attempt = e->attempt};
}

static inline void nr_get_nothing(struct nr *r, int s, struct broker_queue *q)
{
    struct broker_event ev = nr_event(r, BROKER_GET, s);

    ev.queue = q;
    ev.max = 1;
    assert_int_equal(nr_call(r, &ev), BROKER_REPLY_EMPTY);
}

static inline enum broker_outcome nr_about(struct nr *r, enum broker_event_kind kind, struct nr_lease l)
{
    struct broker_event ev = nr_event(r, kind, l.s);

    ev.id = l.id;
    ev.epoch = l.epoch;
    return nr_call(r, &ev);
}

static inline enum broker_outcome nr_done(struct nr *r, struct nr_lease l, const char *value)
{
    struct broker_event ev = nr_event(r, BROKER_DONE, l.s);

    ev.id = l.id;
    ev.epoch = l.epoch;
    if (value != NULL)
        ev.payload = nr_payload(value);
    return nr_call(r, &ev);
}

static inline enum broker_outcome nr_fail_with(struct nr *r, struct nr_lease l,
                                               const struct broker_failure *f)
{
    struct broker_event ev = nr_event(r, BROKER_FAIL, l.s);

    ev.id = l.id;
    ev.epoch = l.epoch;
    ev.failure = f;
    return nr_call(r, &ev);
}

static inline enum broker_outcome nr_fail(struct nr *r, struct nr_lease l, const char *error, bool final)
{
    return nr_fail_with(r, l,
                        &(struct broker_failure){.error = tq_span_str(error), .code = 7, .final = final});
}

static inline enum broker_outcome nr_extend(struct nr *r, struct nr_lease l, uint64_t ms)
{
    struct broker_event ev = nr_event(r, BROKER_EXTEND, l.s);

    ev.id = l.id;
    ev.epoch = l.epoch;
    ev.wait_ms = ms;
    return nr_call(r, &ev);
}

/* REMOVE, RETRY. */
static inline enum broker_outcome nr_by_id(struct nr *r, enum broker_event_kind kind, int s, uint64_t id)
{
    struct broker_event ev = nr_event(r, kind, s);

    ev.id = id;
    return nr_call(r, &ev);
}

/* Waits for ever; the token. A reply that came at once stands in fx. */
static inline uint64_t nr_wait(struct nr *r, int s, uint64_t id)
{
    struct broker_event ev = nr_event(r, BROKER_WAIT, s);

    ev.id = id;
    ev.wait_mode = BROKER_WAIT_FOREVER;
    nr_step(r, &ev);
    return ev.token;
}

/* The effect of the last step with that token, or NULL. */
static inline const struct broker_effect *nr_find(const struct nr *r, uint64_t token)
{
    for (size_t i = 0; i < r->fx.count; i++)
        if (r->fx.list[i].token == token)
            return &r->fx.list[i];
    return NULL;
}

static inline const struct broker_effect *nr_find_told(const struct nr *r, struct nr_lease l)
{
    for (size_t i = 0; i < r->fx.count; i++) {
        const struct broker_effect *e = &r->fx.list[i];

        if (e->outcome == BROKER_TOLD_LOST && e->session == &r->s[l.s] && e->id == l.id &&
            e->epoch == l.epoch)
            return e;
    }
    return NULL;
}

static inline void nr_detach(struct nr *r, int s, bool free_now)
{
    nr_step(r, &(struct broker_event){.kind = BROKER_DETACH, .session = &r->s[s], .free_now = free_now});
}

static inline void nr_close(struct nr *r, int s)
{
    nr_step(r, &(struct broker_event){
                   .kind = BROKER_SESSION_CLOSE, .session = &r->s[s], .close_mode = BROKER_CLOSE_RETURN});
    nr_open(r, s);
}

/* How many leases it has then. */
static inline int64_t nr_resume(struct nr *r, int s, const struct broker_lease_name *names, uint32_t count)
{
    struct broker_event ev = nr_event(r, BROKER_RESUME, s);

    ev.leases = names;
    ev.lease_count = count;
    nr_step(r, &ev);
    assert_true(r->fx.count > 0);
    for (size_t i = 0; i < r->fx.count; i++) {
        assert_int_equal(r->fx.list[i].token, ev.token);
        if (r->fx.list[i].outcome == BROKER_REPLY_END) {
            assert_int_equal(r->fx.list[i].number, (int64_t)i);
            return r->fx.list[i].number;
        }
        assert_int_equal(r->fx.list[i].outcome, BROKER_REPLY_LEASE);
    }
    fail_msg("no end of the resume");
    return -1;
}

/* One node that is due by then, if there is one: its effects stand in fx. */
static inline bool nr_due(struct nr *r, uint64_t until_ms)
{
    uint64_t next_ms = tq_deadlines_next_ms(&r->deadlines);
    struct tq_deadline *d;

    if (next_ms > until_ms)
        return false;
    if (next_ms > r->now_ms)
        r->now_ms = next_ms;
    d = tq_deadlines_pop_due(&r->deadlines, r->now_ms);
    assert_non_null(d);
    assert_int_equal(d->kind & 0xff, BROKER_DEADLINE);
    nr_step(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
    return true;
}

/* Time passes; what comes due is sent in. The effects are those of the last of it that had any. */
static inline void nr_pass(struct nr *r, uint64_t ms)
{
    uint64_t until_ms = r->now_ms + ms;
    struct broker_effects last = {0};

    broker_effects_clear(&r->fx);
    while (nr_due(r, until_ms))
        if (r->fx.count > 0) {
            broker_effects_deinit(&last);
            last = r->fx;
            r->fx = (struct broker_effects){0};
        }
    broker_effects_deinit(&r->fx);
    r->fx = last;
    r->now_ms = until_ms;
}

/* ---- what can be seen ---- */

static inline struct broker_view nr_view(const struct nr *r, uint64_t id)
{
    struct broker_view v;

    if (!broker_view_task(r->b, id, &v))
        fail_msg("nothing can be seen of %llu", (unsigned long long)id);
    assert_int_equal(v.id, id);
    return v;
}

static inline bool nr_is_gone(const struct nr *r, uint64_t id)
{
    struct broker_view v;

    return !broker_view_task(r->b, id, &v);
}

static inline void assert_span(struct tq_span s, const char *text)
{
    if (!tq_span_is(s, text))
        fail_msg("'%.*s', expected '%s'", (int)s.len, (const char *)s.data, text);
}

static inline void assert_payload(const struct broker_view *v, const char *text)
{
    if (text == NULL)
        assert_null(v->payload.data);
    else
        assert_span(tq_span(v->payload.data, v->payload.len), text);
}

static inline struct broker_stats nr_stats(const struct nr *r)
{
    struct broker_stats st;

    broker_get_stats(r->b, &st);
    return st;
}

static inline struct broker_queue_stats nr_queue_stats(const struct nr *r, const struct broker_queue *q)
{
    struct broker_queue_stats st;

    broker_get_queue_stats(r->b, q, &st);
    return st;
}

#endif
