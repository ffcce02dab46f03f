/* Ops written by hand, as journal_ops.h says that they look, and a broker that is restored from them. */
#ifndef TESTS_UNIT_OPS_RIG_H
#define TESTS_UNIT_OPS_RIG_H

#include "master/core/journal_ops.h"
#include "master/core/ops_extra.h"
#include "tests/unit/broker_native_rig.h"
#include "tests/unit/journal_world.h"

#define OPS_NOW 1000000u

struct ops {
    struct tq_buf buf;
};

static inline void ops_number(struct ops *o, uint64_t v)
{
    uint8_t bytes[OPS_VARINT_MAX];

    assert_int_equal(tq_buf_append(&o->buf, bytes, (size_t)(ops_put(bytes, v) - bytes)), 0);
}

static inline void ops_byte(struct ops *o, unsigned v)
{
    assert_int_equal(tq_buf_append_u8(&o->buf, (uint8_t)v), 0);
}

static inline void ops_text(struct ops *o, const char *text)
{
    size_t len = text != NULL ? strlen(text) : 0;

    ops_number(o, len);
    assert_int_equal(tq_buf_append(&o->buf, text, len), 0);
}

static inline void ops_time(struct ops *o, uint64_t next_id, uint64_t next_place, uint64_t next_serial)
{
    ops_byte(o, OPS_TIME);
    ops_number(o, OPS_NOW);
    ops_number(o, next_id);
    ops_number(o, next_place);
    ops_number(o, next_serial);
}

/* A record of many ids, places and queues. */
static inline struct ops ops_record(void)
{
    struct ops o = {.buf = TQ_BUF_NULL(1u << 24)};

    ops_time(&o, 1000, 1000, 100);
    return o;
}

static inline void ops_free(struct ops *o)
{
    tq_buf_deinit(&o->buf);
}

static inline void ops_queue(struct ops *o, uint32_t serial, const char *name, unsigned flags,
                             uint64_t purged_place, const struct broker_queue_conf *c)
{
    ops_byte(o, OPS_QUEUE);
    ops_number(o, serial);
    ops_text(o, name);
    ops_byte(o, flags);
    ops_number(o, purged_place);
    ops_byte(o, c->kind);
    ops_byte(o, c->ack);
    ops_byte(o, c->durability);
    ops_number(o, ops_zigzag(c->maxsize));
    ops_byte(o, c->max_attempts);
    ops_byte(o, c->max_deliveries);
    ops_number(o, c->lease_ms);
    ops_number(o, c->grace_ms);
    ops_number(o, c->retry_ms);
    ops_number(o, c->retry_max_ms);
    ops_number(o, c->ttl_ms);
    ops_number(o, c->retention_ms);
    ops_number(o, c->rate_per_s);
    ops_number(o, c->rate_burst);
    ops_number(o, c->concurrency);
    ops_number(o, c->expires_ms);
    ops_text(o, c->result);
    ops_text(o, c->dead);
}

static inline void ops_plain_queue(struct ops *o, uint32_t serial, const char *name)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);

    ops_queue(o, serial, name, 0, 0, &c);
}

static inline void ops_kind_queue(struct ops *o, uint32_t serial, const char *name, enum broker_kind kind)
{
    struct broker_queue_conf c = nr_conf(NULL, NULL);

    c.kind = kind;
    ops_queue(o, serial, name, 0, 0, &c);
}

static inline void ops_counts(struct ops *o, uint32_t serial, uint64_t unfinished, uint64_t first)
{
    ops_byte(o, OPS_COUNTS);
    ops_number(o, serial);
    ops_number(o, unfinished);
    for (uint64_t i = 0; i < 10; i++)
        ops_number(o, first + i);
}

static inline void ops_totals(struct ops *o, uint64_t first)
{
    ops_byte(o, OPS_TOTALS);
    for (uint64_t i = 0; i < 14; i++)
        ops_number(o, first + i);
}

static inline void ops_end(struct ops *o, uint64_t id)
{
    ops_byte(o, OPS_END);
    ops_number(o, id);
}

static inline void ops_gone(struct ops *o, uint32_t serial)
{
    ops_byte(o, OPS_GONE);
    ops_number(o, serial);
}

/* What is 0 is not there, as in the op. */
struct ops_x {
    uint64_t due, expires, started, ended, of;
    bool has_result;
    uint32_t result, from;
    bool has_retention;
    uint32_t retention;
    int32_t priority, code;
    uint8_t outcome, max_attempts, tries;
    bool gives_way;
    const char *key;
    uint32_t key_queue;
    const char *trace, *worker, *error;
};

struct ops_t {
    uint64_t id;
    uint32_t serial;
    unsigned mask, state, flags; /* the mask's PAYLOAD, EXTRA and LEASE come of what follows */
    uint64_t attempts, epoch;
    int64_t place;
    const char *body; /* NULL: none */
    bool is_python;
    uint64_t item_off, item_len;
    const struct ops_x *x;
    uint64_t session, since_ms, limit_ms; /* since_ms 0: no lease; limit_ms 0: never */
};

static inline void ops_extra(struct ops *o, const struct ops_x *x)
{
    ops_number(o, (x->due ? EXTRA_DUE : 0u) | (x->expires ? EXTRA_EXPIRES : 0u) |
                      (x->started ? EXTRA_STARTED : 0u) | (x->ended ? EXTRA_ENDED : 0u) |
                      (x->of ? EXTRA_OF : 0u) | (x->has_result ? EXTRA_RESULT : 0u) |
                      (x->from ? EXTRA_FROM : 0u) | (x->has_retention ? EXTRA_RETENTION : 0u) |
                      (x->priority ? EXTRA_PRIORITY : 0u) | (x->code ? EXTRA_CODE : 0u) |
                      (x->outcome ? EXTRA_OUTCOME : 0u) | (x->max_attempts ? EXTRA_MAX_ATTEMPTS : 0u) |
                      (x->tries ? EXTRA_TRIES : 0u) | (x->gives_way ? EXTRA_GIVES_WAY : 0u) |
                      (x->key ? EXTRA_KEY : 0u) | (x->key_queue ? EXTRA_KEY_QUEUE : 0u) |
                      (x->trace ? EXTRA_TRACE : 0u) | (x->worker ? EXTRA_WORKER : 0u) |
                      (x->error ? EXTRA_ERROR : 0u));
    const uint64_t first[] = {x->due, x->expires, x->started, x->ended, x->of};

    for (size_t i = 0; i < 5; i++)
        if (first[i] != 0)
            ops_number(o, first[i]);
    if (x->has_result)
        ops_number(o, x->result);
    if (x->from)
        ops_number(o, x->from);
    if (x->has_retention)
        ops_number(o, x->retention);
    if (x->priority)
        ops_number(o, ops_zigzag(x->priority));
    if (x->code)
        ops_number(o, ops_zigzag(x->code));
    if (x->outcome)
        ops_byte(o, x->outcome);
    if (x->max_attempts)
        ops_byte(o, x->max_attempts);
    if (x->tries)
        ops_byte(o, x->tries);
    if (x->key)
        ops_text(o, x->key);
    if (x->key_queue)
        ops_number(o, x->key_queue);
    if (x->trace)
        ops_text(o, x->trace);
    if (x->worker)
        ops_text(o, x->worker);
    if (x->error)
        ops_text(o, x->error);
}

static inline void ops_task(struct ops *o, const struct ops_t *t)
{
    ops_byte(o, OPS_TASK);
    ops_number(o, t->id);
    ops_number(o, t->serial);
    ops_byte(o, t->mask | (t->x != NULL ? OPS_EXTRA : 0u) | (t->body != NULL ? OPS_PAYLOAD : 0u) |
                    (t->since_ms != 0 ? OPS_LEASE : 0u));
    ops_byte(o, t->state);
    ops_byte(o, t->flags);
    ops_number(o, t->attempts);
    ops_number(o, t->epoch);
    ops_number(o, ops_zigzag(t->place));
    if ((t->mask & OPS_FULL) != 0)
        ops_number(o, OPS_NOW - 1000 + t->id % 1000);
    if (t->x != NULL)
        ops_extra(o, t->x);
    if (t->body != NULL) {
        ops_byte(o, t->is_python ? BROKER_PYTHON : BROKER_MSGPACK);
        if (t->is_python) {
            ops_number(o, t->item_off);
            ops_number(o, t->item_len);
        }
        ops_text(o, t->body);
    }
    if (t->since_ms != 0) {
        ops_number(o, t->session);
        ops_number(o, t->since_ms);
        ops_number(o, t->limit_ms != 0 ? t->limit_ms + 1 : 0);
        ops_byte(o, 1);
    }
}

/* READY, with nothing but its body. */
static inline void ops_ready(struct ops *o, uint64_t id, uint32_t serial, int64_t place, const char *body)
{
    ops_task(o, &(struct ops_t){.id = id,
                                .serial = serial,
                                .mask = OPS_FULL,
                                .state = BROKER_TASK_READY,
                                .place = place,
                                .body = body});
}

static inline void ops_leased(struct ops *o, uint64_t id, uint32_t serial, int64_t place, uint64_t session,
                              uint64_t since_ms)
{
    ops_task(o, &(struct ops_t){.id = id,
                                .serial = serial,
                                .mask = OPS_FULL,
                                .state = BROKER_TASK_LEASED,
                                .epoch = 1,
                                .place = place,
                                .body = "leased",
                                .session = session,
                                .since_ms = since_ms});
}

/* ---- restoring ---- */

/* A broker in the native rig with a journal and no sessions but those that are opened. */
static inline void ops_init(struct nr *r)
{
    memset(r, 0, sizeof(*r));
    tq_deadlines_init(&r->deadlines);
    r->now_ms = OPS_NOW;
    r->b =
        broker_new(&r->deadlines, &(struct broker_limits){.queues = 100, .held_per_session = 1000}, nr_less);
    assert_non_null(r->b);
    assert_int_equal(broker_journal_enable(r->b), 0);
}

static inline struct broker_session *ops_session_of(void *ctx, uint64_t durable_id)
{
    struct nr *r = ctx;

    for (int s = 0; s < NR_SESSIONS; s++)
        if (r->s[s].open && r->s[s].durable_id == durable_id)
            return &r->s[s];
    return NULL;
}

/* Session s is there again, silent, before the tasks are. */
static inline void ops_session(struct nr *r, int s, uint64_t durable_id)
{
    r->s[s] =
        (struct broker_session){.native = true, .durable_id = durable_id, .worker = tq_span_str("again")};
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            broker_step(r->b, r->now_ms,
                        &(struct broker_event){.kind = i == 0 ? BROKER_SESSION_OPEN : BROKER_DETACH,
                                               .session = &r->s[s]},
                        &r->fx),
            0);
}

static inline void ops_open_others(struct nr *r)
{
    for (int s = 0; s < NR_SESSIONS; s++)
        if (!r->s[s].open)
            nr_open(r, s);
}

/* One record out of segment 1. The result of ops, or of finish. */
static inline int ops_restore_as(struct nr *r, struct tq_span bytes, bool was_closed,
                                 char text[RESTORE_TEXT_MAX])
{
    struct broker_restore *res = broker_restore_begin(r->b, world_no_host, NULL);
    int rv;

    if (res == NULL)
        return TQ_ENOMEM;
    if (was_closed)
        broker_restore_was_closed(res);
    rv = broker_restore_ops(res, bytes, 1, text);
    if (broker_restore_now_ms(res) > r->now_ms)
        r->now_ms = broker_restore_now_ms(res);
    if (rv == 0)
        return broker_restore_finish(res, r->now_ms, ops_session_of, r, text);
    broker_restore_abandon(res);
    return rv;
}

/* Of a log that was closed, so that ids go on as they say. */
static inline int ops_restore_try(struct nr *r, struct tq_span bytes, char text[RESTORE_TEXT_MAX])
{
    return ops_restore_as(r, bytes, true, text);
}

/* It has to be good; sessions were opened before. Takes the ops. */
static inline void ops_restore_good(struct nr *r, struct ops *o, bool was_closed)
{
    char text[RESTORE_TEXT_MAX] = "";
    const char *broken;

    if (ops_restore_as(r, tq_buf_span(&o->buf), was_closed, text) != 0)
        fail_msg("refused: %s", text);
    ops_free(o);
    broken = broker_check(r->b);
    if (broken != NULL)
        fail_msg("broken rule: %s", broken);
    ops_open_others(r);
}

static inline void ops_restore(struct nr *r, struct ops *o)
{
    ops_restore_good(r, o, true);
}

static inline struct broker_queue *ops_find(struct nr *r, const char *name)
{
    struct broker_queue *q = broker_find(r->b, tq_span_str(name));

    assert_non_null(q);
    return q;
}

/* Takes all that is ready, by session 7 (NR_PYTHON - 1 is native): the ids have to be these; 0 ends them. */
static inline void ops_drain(struct nr *r, const char *name, const uint64_t *ids)
{
    struct broker_queue *q = ops_find(r, name);

    for (; *ids != 0; ids++)
        nr_get(r, 0, q, *ids);
    nr_get_nothing(r, 0, q);
}

#define IDS(...) ((const uint64_t[]){__VA_ARGS__, 0})

#endif
