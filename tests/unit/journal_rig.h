/* A broker with a journal, some queues, and what its last turn wrote. */
#ifndef TESTS_UNIT_JOURNAL_RIG_H
#define TESTS_UNIT_JOURNAL_RIG_H

#include "master/core/broker_impl.h"
#include "master/core/journal_impl.h"
#include "master/core/queue.h"
#include "tests/unit/journal_read.h"

struct jw {
    struct nr r;
    struct read read; /* the last record */
    struct tq_buf ops;
    struct broker_queue *work, *results, *dead, *plain; /* plain: without result or dead */
};

static inline void jw_turn(struct jw *w)
{
    read_turn(&w->r, &w->read, &w->ops);
}

/* The record says this much of tasks, and who is told waits for that. */
static inline void jw_expect(struct jw *w, size_t tasks, size_t ends, enum journal_wait wait)
{
    jw_turn(w);
    assert_int_equal(w->read.tasks, tasks);
    assert_int_equal(w->read.ends, ends);
    assert_int_equal(w->read.wait, wait);
}

static inline struct broker_queue *jw_queue(struct jw *w, const char *name, enum broker_kind kind,
                                            enum broker_durability d, const char *result, const char *dead)
{
    struct broker_queue_conf c = nr_conf(result, dead);

    c.kind = kind;
    c.durability = d;
    c.max_attempts = 2;
    c.retry_ms = 100;
    return nr_declare(&w->r, name, &c);
}

static inline struct jw *jw_new(void)
{
    struct jw *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    nr_init(&w->r);
    if (!w->r.j.is_on)
        assert_int_equal(broker_journal_enable(w->r.b), 0);
    w->r.j.is_on = false; /* the test says when */
    w->read.segment = 1;
    tq_buf_init(&w->ops, SIZE_MAX);
    w->work = jw_queue(w, "work", BROKER_FIFO, BROKER_DURABILITY_FSYNC, "results", "dead");
    w->results = jw_queue(w, "results", BROKER_FIFO, BROKER_DURABILITY_FSYNC, NULL, NULL);
    w->dead = jw_queue(w, "dead", BROKER_FIFO, BROKER_DURABILITY_FSYNC, NULL, NULL);
    w->plain = jw_queue(w, "plain", BROKER_FIFO, BROKER_DURABILITY_FSYNC, NULL, NULL);
    jw_turn(w);
    return w;
}

static inline void jw_free(struct jw *w)
{
    nr_deinit(&w->r);
    tq_buf_deinit(&w->ops);
    free(w);
}

/* A task that is recorded. */
static inline uint64_t jw_put(struct jw *w, struct broker_queue *q, const char *body)
{
    uint64_t id = nr_put(&w->r, 0, q, body);

    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    return id;
}

/* Many plain ones, without the checks of each step. */
static inline void jw_put_many(struct jw *w, struct broker_queue *q, const char *body, int n)
{
    struct broker_event ev = nr_event(&w->r, BROKER_PUT, 0);

    ev.queue = q;
    ev.payload = nr_payload(body);
    for (int i = 0; i < n; i++)
        assert_int_equal(broker_step(w->r.b, w->r.now_ms, &ev, &w->r.fx), 0);
    jr_check(w->r.b);
}

/* And handed out. */
static inline struct nr_lease jw_get(struct jw *w, struct broker_queue *q)
{
    struct nr_lease l = nr_get(&w->r, 1, q, 0);

    jw_expect(w, 1, 0, JOURNAL_WRITTEN);
    return l;
}

static inline const struct read_op *jw_task(struct jw *w, uint64_t id)
{
    const struct read_op *o = read_of(&w->read, OPS_TASK, id);

    if (o == NULL)
        fail_msg("nothing is written of %llu", (unsigned long long)id);
    return o;
}

#endif
