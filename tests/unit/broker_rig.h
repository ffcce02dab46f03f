/* A broker with a clock, some sessions and bodies that are (key, id) pairs, for the broker's tests. After
 * each step the broker's invariants are checked, and every effect has to be expected. */
#ifndef TESTS_UNIT_BROKER_RIG_H
#define TESTS_UNIT_BROKER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker.h"
#include "master/core/broker_check.h"
#include "tests/unit/broker_journal_rig.h"

#define RIG_SESSIONS 16
#define RIG_NO_ORDER INT64_MIN /* a key that cannot be compared with others */

struct rig {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    size_t seen; /* effects that were expected already */
    uint64_t now_ms;
    struct broker_session s[RIG_SESSIONS];
    uint64_t token;
    struct jr j; /* its journal, if the test is played with one */
};

struct rig_body {
    int64_t key;
    int64_t id;
};

static inline struct rig_body rig_body_read(const struct broker_payload *p)
{
    struct rig_body rb;

    assert_true(p->len >= sizeof(rb));
    memcpy(&rb, p->data, sizeof(rb));
    return rb;
}

static inline struct tq_body *rig_body_new(int64_t key, int64_t id, uint32_t len)
{
    struct rig_body rb = {.key = key, .id = id};
    struct tq_body *body = tq_body_new(len < sizeof(rb) ? (uint32_t)sizeof(rb) : len);

    assert_non_null(body);
    memcpy(body->data, &rb, sizeof(rb));
    body->flavor = TQ_BODY_PYTHON_REPLY;
    return body;
}

/* A Python item; borrowed from the body. */
static inline struct broker_payload rig_payload(struct tq_body *body)
{
    return (struct broker_payload){
        .data = body->data, .len = body->len, .format = BROKER_PYTHON, .body = body};
}

extern int rig_less_result; /* what the next comparisons return instead of 0; defined by RIG_DEFINE_LESS */
extern long rig_less_calls; /* so many comparisons until one says that there is no order; < 0: never */
int rig_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
             char text[BROKER_TEXT_MAX]);

#define RIG_DEFINE_LESS                                                                                      \
    int rig_less_result;                                                                                     \
    long rig_less_calls = -1;                                                                                \
    int rig_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,             \
                 char text[BROKER_TEXT_MAX])                                                                 \
    {                                                                                                        \
        struct rig_body x = rig_body_read(a), y = rig_body_read(b);                                          \
                                                                                                             \
        if (rig_less_calls >= 0 && rig_less_calls-- == 0)                                                    \
            x.key = RIG_NO_ORDER;                                                                            \
        if (rig_less_result < 0)                                                                             \
            return rig_less_result;                                                                          \
        if (x.key == RIG_NO_ORDER || y.key == RIG_NO_ORDER) {                                                \
            snprintf(text, BROKER_TEXT_MAX, "no order between %lld and %lld", (long long)x.id,               \
                     (long long)y.id);                                                                       \
            return 1;                                                                                        \
        }                                                                                                    \
        *ret_less = x.key < y.key;                                                                           \
        return 0;                                                                                            \
    }

static inline void rig_check(struct rig *r)
{
    const char *broken = broker_check(r->b);

    if (broken != NULL)
        fail_msg("broken rule: %s", broken);
}

static inline int rig_try(struct rig *r, const struct broker_event *ev)
{
    int rv = broker_step(r->b, r->now_ms, ev, &r->fx);

    rig_check(r);
    jr_turn(&r->j, r->b);
    return rv;
}

static inline void rig_step(struct rig *r, const struct broker_event *ev)
{
    assert_int_equal(rig_try(r, ev), 0);
}

static inline void rig_init_limits(struct rig *r, const struct broker_limits *limits)
{
    memset(r, 0, sizeof(*r));
    tq_deadlines_init(&r->deadlines);
    r->now_ms = 1000;
    r->b = broker_new(&r->deadlines, limits, rig_less);
    assert_non_null(r->b);
    jr_init(&r->j, r->b);
    for (size_t i = 0; i < RIG_SESSIONS; i++)
        rig_step(r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &r->s[i]});
    rig_less_result = 0;
}

static inline void rig_init(struct rig *r)
{
    rig_init_limits(r, &(struct broker_limits){.queues = 100, .held_per_session = 100});
}

static inline void rig_none(struct rig *r)
{
    assert_int_equal(r->fx.count, r->seen);
    broker_effects_clear(&r->fx);
    r->seen = 0;
}

static inline void rig_deinit(struct rig *r)
{
    rig_none(r);
    jr_deinit(&r->j);
    broker_free(r->b);
    assert_int_equal(r->deadlines.count, 0);
    broker_effects_deinit(&r->fx);
    tq_deadlines_deinit(&r->deadlines);
}

static inline struct broker_queue *rig_queue(struct rig *r, const char *name, enum broker_kind kind,
                                             enum broker_ack ack, int64_t maxsize)
{
    struct broker_queue_conf conf;
    struct broker_queue *q = NULL;

    broker_queue_conf_init(&conf);
    conf.kind = kind;
    conf.ack = ack;
    conf.maxsize = maxsize;
    conf.factory_made = true;
    assert_int_equal(broker_declare(r->b, name, &conf, &q), 0);
    return q;
}

/* Calls give back their token. A wait of -1 is for ever, 0 none. */
static inline struct broker_event rig_call(struct rig *r, enum broker_event_kind kind, int s,
                                           struct broker_queue *q, int64_t wait_ms)
{
    return (struct broker_event){
        .kind = kind,
        .session = &r->s[s],
        .queue = q,
        .token = ++r->token,
        .wait_mode = wait_ms < 0    ? BROKER_WAIT_FOREVER
                     : wait_ms == 0 ? BROKER_NO_WAIT
                                    : BROKER_WAIT_MS,
        .wait_ms = wait_ms < 0 ? 0 : (uint64_t)wait_ms,
    };
}

static inline uint64_t rig_put_len(struct rig *r, int s, struct broker_queue *q, int64_t key, int64_t id,
                                   uint32_t len, int64_t wait_ms)
{
    struct broker_event ev = rig_call(r, BROKER_PUT, s, q, wait_ms);

    ev.payload = rig_payload(rig_body_new(key, id, len));
    rig_step(r, &ev);
    tq_body_unref(ev.payload.body);
    return ev.token;
}

/* The id is the key. */
static inline uint64_t rig_put(struct rig *r, int s, struct broker_queue *q, int64_t id, int64_t wait_ms)
{
    return rig_put_len(r, s, q, id, id, 0, wait_ms);
}

static inline uint64_t rig_get(struct rig *r, int s, struct broker_queue *q, int64_t wait_ms)
{
    struct broker_event ev = rig_call(r, BROKER_GET, s, q, wait_ms);

    rig_step(r, &ev);
    return ev.token;
}

static inline uint64_t rig_do(struct rig *r, enum broker_event_kind kind, int s, struct broker_queue *q)
{
    struct broker_event ev = rig_call(r, kind, s, q, 0);

    rig_step(r, &ev);
    return ev.token;
}

static inline uint64_t rig_shutdown(struct rig *r, int s, struct broker_queue *q, bool immediate)
{
    struct broker_event ev = rig_call(r, BROKER_SHUTDOWN, s, q, 0);

    ev.immediate = immediate;
    rig_step(r, &ev);
    return ev.token;
}

/* The session is opened again at once. */
static inline void rig_close(struct rig *r, int s, enum broker_close_mode mode)
{
    struct broker_event ev = {.kind = BROKER_SESSION_CLOSE, .session = &r->s[s], .close_mode = mode};

    rig_step(r, &ev);
    ev.kind = BROKER_SESSION_OPEN;
    rig_step(r, &ev);
}

/* Time passes; what comes due is sent in. */
static inline void rig_pass(struct rig *r, uint64_t ms)
{
    struct tq_deadline *d;

    r->now_ms += ms;
    while ((d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL) {
        assert_int_equal(d->kind & 0xff, BROKER_DEADLINE);
        rig_step(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
    }
}

/* The next effect. */
static inline const struct broker_effect *rig_expect(struct rig *r, int s, uint64_t token,
                                                     enum broker_outcome outcome)
{
    const struct broker_effect *e;

    if (r->seen >= r->fx.count)
        fail_msg("expected an effect, there is none");
    e = &r->fx.list[r->seen++];
    assert_ptr_equal(e->session, &r->s[s]);
    assert_int_equal(e->token, token);
    assert_int_equal(e->outcome, outcome);
    assert_int_equal(e->slot != 0,
                     outcome == BROKER_REPLY_ITEM || (outcome == BROKER_REPLY_TASK && !e->copy));
    assert_int_equal(e->text != NULL, outcome == BROKER_REPLY_TYPE_ERROR || outcome == BROKER_REPLY_REFUSED);
    return e;
}

/* What was handed out. */
static inline struct rig_body rig_handed(struct rig *r, const struct broker_effect *e)
{
    struct broker_view v;

    assert_true(broker_view_lease(r->b, e, &v));
    assert_int_equal(v.id, e->id);
    assert_int_equal(v.epoch, e->epoch);
    assert_int_equal(v.attempt, e->attempt);
    return rig_body_read(&v.payload);
}

static inline struct broker_lease_name rig_expect_item(struct rig *r, int s, uint64_t token, int64_t id,
                                                       uint32_t attempt)
{
    const struct broker_effect *e = rig_expect(r, s, token, BROKER_REPLY_ITEM);

    assert_int_equal(rig_handed(r, e).id, id);
    assert_int_equal(e->attempt, attempt);
    return (struct broker_lease_name){.id = e->id, .epoch = e->epoch};
}

/* Calls with a reply at once, which is the step's only effect. */
static inline void rig_put_ok(struct rig *r, int s, struct broker_queue *q, int64_t id)
{
    rig_expect(r, s, rig_put(r, s, q, id, 0), BROKER_REPLY_NONE);
    rig_none(r);
}

static inline struct broker_lease_name rig_get_item(struct rig *r, int s, struct broker_queue *q, int64_t id,
                                                    uint32_t attempt)
{
    struct broker_lease_name t = rig_expect_item(r, s, rig_get(r, s, q, 0), id, attempt);

    rig_none(r);
    return t;
}

static inline void rig_get_outcome(struct rig *r, int s, struct broker_queue *q, enum broker_outcome outcome)
{
    rig_expect(r, s, rig_get(r, s, q, 0), outcome);
    rig_none(r);
}

static inline void rig_done(struct rig *r, int s, struct broker_queue *q, enum broker_outcome outcome)
{
    rig_expect(r, s, rig_do(r, BROKER_TASK_DONE, s, q), outcome);
    rig_none(r);
}

static inline void rig_number(struct rig *r, int s, struct broker_queue *q, enum broker_event_kind kind,
                              int64_t number)
{
    const struct broker_effect *e =
        rig_expect(r, s, rig_do(r, kind, s, q), kind == BROKER_QSIZE ? BROKER_REPLY_INT : BROKER_REPLY_BOOL);

    assert_int_equal(e->number, number);
    rig_none(r);
}

static inline void rig_bounce(struct rig *r, int s, struct broker_lease_name l)
{
    rig_step(
        r, &(struct broker_event){.kind = BROKER_BOUNCE, .session = &r->s[s], .id = l.id, .epoch = l.epoch});
}

static inline void rig_delivered(struct rig *r, int s)
{
    rig_step(r, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &r->s[s]});
}

static inline struct broker_stats rig_stats(const struct rig *r)
{
    struct broker_stats st;

    broker_get_stats(r->b, &st);
    return st;
}

#endif
