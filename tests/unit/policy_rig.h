/* Native sessions, texts as bodies, and policies, over the broker's rig. */
#ifndef TESTS_UNIT_POLICY_RIG_H
#define TESTS_UNIT_POLICY_RIG_H

#include <string.h>

#include "tests/unit/broker_rig.h"

#define NEVER UINT64_MAX

typedef struct broker_put_options options;

static inline void p_open(struct rig *r, int s)
{
    rig_step(r, &(struct broker_event){.kind = BROKER_SESSION_CLOSE, .session = &r->s[s]});
    r->s[s].native = true;
    r->s[s].worker = tq_span_str("w");
    rig_step(r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &r->s[s]});
}

/* The first half of the sessions is native. */
static inline void p_init(struct rig *r)
{
    rig_init(r);
    for (int s = 0; s < RIG_SESSIONS / 2; s++)
        p_open(r, s);
}

static inline struct broker_queue_conf p_conf(void)
{
    struct broker_queue_conf c;

    broker_queue_conf_init(&c);
    c.factory_made = true;
    c.retention_ms = 0; /* nothing is kept unless a test wants it */
    return c;
}

static inline struct broker_queue *p_queue(struct rig *r, const char *name, const struct broker_queue_conf *c)
{
    struct broker_queue *q = NULL;

    assert_int_equal(broker_declare(r->b, name, c, &q), 0);
    return q;
}

static inline struct broker_queue *p_plain(struct rig *r, const char *name)
{
    struct broker_queue_conf c = p_conf();

    return p_queue(r, name, &c);
}

static inline struct broker_payload p_text(const char *text)
{
    return (struct broker_payload){
        .data = (const uint8_t *)text, .len = (uint32_t)strlen(text), .format = BROKER_MSGPACK};
}

static inline void p_is(const struct broker_payload *p, const char *text)
{
    if (text == NULL) {
        assert_null(p->data);
        return;
    }
    assert_non_null(p->data);
    assert_int_equal(p->len, strlen(text));
    assert_memory_equal(p->data, text, p->len);
}

/* The next effect. */
static inline const struct broker_effect *p_expect(struct rig *r, int s, uint64_t token,
                                                   enum broker_outcome outcome)
{
    const struct broker_effect *e;

    if (r->seen >= r->fx.count)
        fail_msg("expected an effect, there is none");
    e = &r->fx.list[r->seen++];
    if (e->outcome != outcome)
        fail_msg("expected outcome %d, got %d", (int)outcome, (int)e->outcome);
    assert_ptr_equal(e->session, &r->s[s]);
    assert_int_equal(e->token, token);
    return e;
}

static inline uint64_t p_put_wait(struct rig *r, int s, struct broker_queue *q, const char *text,
                                  const options *o, int64_t wait_ms)
{
    struct broker_event ev = rig_call(r, BROKER_PUT, s, q, wait_ms);

    ev.payload = p_text(text);
    ev.options = o;
    rig_step(r, &ev);
    return ev.token;
}

/* The id. */
static inline uint64_t p_put(struct rig *r, struct broker_queue *q, const char *text, const options *o)
{
    uint64_t id = p_expect(r, 0, p_put_wait(r, 0, q, text, o, 0), BROKER_REPLY_OK)->id;

    rig_none(r);
    assert_int_not_equal(id, 0);
    return id;
}

static inline void p_put_fails(struct rig *r, struct broker_queue *q, const options *o,
                               enum broker_outcome outcome)
{
    p_expect(r, 0, p_put_wait(r, 0, q, "no", o, 0), outcome);
    rig_none(r);
}

static inline uint64_t p_get(struct rig *r, int s, struct broker_queue *q, uint32_t max, int64_t wait_ms)
{
    struct broker_event ev = rig_call(r, BROKER_GET, s, q, wait_ms);

    ev.max = max;
    rig_step(r, &ev);
    return ev.token;
}

struct held {
    uint64_t id;
    uint32_t epoch;
    uint32_t attempt;
};

static inline struct held p_task(struct rig *r, int s, uint64_t token, const char *text)
{
    const struct broker_effect *e = p_expect(r, s, token, BROKER_REPLY_TASK);
    struct broker_view v;

    assert_true(broker_view_lease(r->b, e, &v));
    p_is(&v.payload, text);
    assert_int_equal(v.id, e->id);
    assert_int_equal(v.attempt, e->attempt);
    return (struct held){.id = e->id, .epoch = e->epoch, .attempt = e->attempt};
}

static inline void p_end(struct rig *r, int s, uint64_t token, int64_t n)
{
    assert_int_equal(p_expect(r, s, token, BROKER_REPLY_END)->number, n);
}

/* A parked get is served with one task. */
static inline struct held p_served(struct rig *r, int s, uint64_t token, const char *text)
{
    struct held h = p_task(r, s, token, text);

    p_end(r, s, token, 1);
    rig_none(r);
    return h;
}

static inline struct held p_take(struct rig *r, int s, struct broker_queue *q, const char *text)
{
    return p_served(r, s, p_get(r, s, q, 1, 0), text);
}

static inline void p_empty(struct rig *r, struct broker_queue *q)
{
    p_expect(r, 7, p_get(r, 7, q, 1, 0), BROKER_REPLY_EMPTY);
    rig_none(r);
}

/* A call about a lease: its reply comes first, what it sets off is for the caller. */
static inline void p_lease_call(struct rig *r, enum broker_event_kind kind, int s, struct held h,
                                const struct broker_event *more, enum broker_outcome outcome)
{
    struct broker_event ev = more != NULL ? *more : (struct broker_event){0};

    ev.kind = kind;
    ev.session = &r->s[s];
    ev.token = ++r->token;
    ev.id = h.id;
    ev.epoch = h.epoch;
    rig_step(r, &ev);
    p_expect(r, s, ev.token, outcome);
}

static inline void p_done(struct rig *r, int s, struct held h, const char *value)
{
    struct broker_event ev = {0};

    if (value != NULL)
        ev.payload = p_text(value);
    p_lease_call(r, BROKER_DONE, s, h, &ev, BROKER_REPLY_OK);
}

static inline void p_fail(struct rig *r, int s, struct held h, bool final)
{
    struct broker_failure f = {.error = tq_span_str("broken"), .code = 3, .final = final};

    p_lease_call(r, BROKER_FAIL, s, h, &(struct broker_event){.failure = &f}, BROKER_REPLY_OK);
}

static inline void p_release(struct rig *r, int s, struct held h)
{
    p_lease_call(r, BROKER_RELEASE, s, h, NULL, BROKER_REPLY_OK);
}

static inline uint64_t p_by_id(struct rig *r, enum broker_event_kind kind, int s, uint64_t id,
                               int64_t wait_ms)
{
    struct broker_event ev = rig_call(r, kind, s, NULL, wait_ms);

    ev.id = id;
    rig_step(r, &ev);
    return ev.token;
}

static inline uint64_t p_wait(struct rig *r, int s, uint64_t id, int64_t wait_ms)
{
    return p_by_id(r, BROKER_WAIT, s, id, wait_ms);
}

static inline const struct broker_view *p_result(struct rig *r, int s, uint64_t token, uint64_t id,
                                                 enum broker_task_outcome outcome)
{
    const struct broker_effect *e = p_expect(r, s, token, BROKER_REPLY_RESULT);

    assert_int_equal(e->id, id);
    assert_non_null(e->copy);
    assert_int_equal(e->copy->id, id);
    assert_int_equal(e->copy->outcome, outcome);
    assert_non_null(e->copy->from);
    return e->copy;
}

static inline int64_t p_purge(struct rig *r, struct broker_queue *q)
{
    struct broker_event ev = rig_call(r, BROKER_PURGE, 0, q, 0);

    rig_step(r, &ev);
    return p_expect(r, 0, ev.token, BROKER_REPLY_OK)->number;
}

static inline void p_reconfigure(struct rig *r, struct broker_queue *q, const struct broker_queue_conf *c)
{
    assert_int_equal(broker_reconfigure(r->b, r->now_ms, q, c, &r->fx), 0);
    rig_check(r);
}

static inline struct broker_queue_stats p_stats(const struct rig *r, const struct broker_queue *q)
{
    struct broker_queue_stats st;

    broker_get_queue_stats(r->b, q, &st);
    return st;
}

static inline uint64_t p_next_ms(const struct rig *r)
{
    return tq_deadlines_next_ms(&r->deadlines);
}

#endif
