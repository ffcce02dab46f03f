/* How long a broker takes to come back: a million queued tasks of 100 bytes, from the records of their puts;
 * the same in a random order, each of them having been handed out and given back once; and a million results
 * that are kept. Milliseconds of CPU time for the ops, for what comes after them, and bytes of ops. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker.h"
#include "master/core/restore.h"
#include "tests/bench/measure.h"

#define TASKS      1000000u
#define BODY_BYTES 100u
#define BATCH      100u /* puts in a record */
#define BLOCK      1000u
#define NOW_MS     1000000u

struct bench {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    struct broker_session s;
    struct broker_queue *q;
    struct tq_buf log; /* length (4 bytes), record, and so on */
    uint32_t random;
};

static void init(struct bench *n)
{
    struct broker_limits limits = {.queues = 10};

    *n = (struct bench){.log = TQ_BUF_NULL((size_t)1 << 32), .s = {.native = true}, .random = 1};
    tq_deadlines_init(&n->deadlines);
    n->b = broker_new(&n->deadlines, &limits, NULL);
    TQ_ASSERT(n->b != NULL && broker_journal_enable(n->b) == TQ_OK);
}

static void deinit(struct bench *n)
{
    broker_free(n->b);
    broker_effects_deinit(&n->fx);
    tq_deadlines_deinit(&n->deadlines);
    tq_buf_deinit(&n->log);
}

static void step(struct bench *n, const struct broker_event *ev)
{
    int rv = broker_step(n->b, NOW_MS, ev, &n->fx);

    TQ_ASSERT(rv == TQ_OK);
}

static void collect(struct bench *n)
{
    enum journal_wait wait;
    uint32_t len = (uint32_t)n->log.len;
    int rv = tq_buf_append(&n->log, &len, sizeof(len));

    if (rv == TQ_OK)
        rv = broker_journal_collect(n->b, 1, &n->log, &wait);
    TQ_ASSERT(rv == TQ_OK);
    len = (uint32_t)(n->log.len - len - sizeof(len));
    memcpy(n->log.data + n->log.len - len - sizeof(len), &len, sizeof(len));
}

static void put_all(struct bench *n)
{
    struct broker_queue_conf conf;
    uint8_t body[BODY_BYTES] = {0};
    struct broker_event ev = {
        .kind = BROKER_PUT, .session = &n->s, .payload = {.data = body, .len = BODY_BYTES}};
    int rv;

    broker_queue_conf_init(&conf);
    conf.max_attempts = 0; /* a fail is always retried */
    rv = broker_declare(n->b, "tasks", &conf, &n->q);
    TQ_ASSERT(rv == TQ_OK);
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->s});
    ev.queue = n->q;
    for (uint32_t i = 0; i < TASKS; i++) {
        step(n, &ev);
        broker_effects_clear(&n->fx);
        if (i % BATCH == BATCH - 1)
            collect(n);
    }
}

/* Blocks of tasks are taken, and given back to the front one by one, in a random order. */
static void stir(struct bench *n)
{
    for (uint32_t done = 0; done < TASKS; done += BLOCK) {
        struct broker_event ev = {.kind = BROKER_GET, .session = &n->s, .queue = n->q, .max = BLOCK};
        struct broker_effect got[BLOCK];

        step(n, &ev);
        memcpy(got, n->fx.list, sizeof(got));
        broker_effects_clear(&n->fx);
        collect(n);
        for (uint32_t left = BLOCK; left > 0; left--) {
            uint32_t at;

            n->random = n->random * 1664525u + 1013904223u;
            at = (n->random >> 8) % left;
            step(n, &(struct broker_event){.kind = BROKER_FAIL,
                                           .session = &n->s,
                                           .id = got[at].id,
                                           .epoch = got[at].epoch,
                                           .failure = &(struct broker_failure){.has_delay = true}});
            broker_effects_clear(&n->fx);
            got[at] = got[left - 1];
        }
        collect(n);
    }
}

static void finish_all(struct bench *n)
{
    for (uint32_t done = 0; done < TASKS; done += BLOCK) {
        struct broker_event ev = {.kind = BROKER_GET, .session = &n->s, .queue = n->q, .max = BLOCK};
        struct broker_effect got[BLOCK];

        step(n, &ev);
        memcpy(got, n->fx.list, sizeof(got));
        broker_effects_clear(&n->fx);
        for (uint32_t i = 0; i < BLOCK; i++) {
            uint8_t value[BODY_BYTES] = {0};

            step(n, &(struct broker_event){.kind = BROKER_DONE,
                                           .session = &n->s,
                                           .id = got[i].id,
                                           .epoch = got[i].epoch,
                                           .payload = {.data = value, .len = BODY_BYTES}});
            broker_effects_clear(&n->fx);
        }
        collect(n);
    }
}

static int no_host(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment, char text[RESTORE_TEXT_MAX])
{
    (void)ctx, (void)op, (void)bytes, (void)segment, (void)text;
    return TQ_EINVAL;
}

static struct broker_session *no_session(void *ctx, uint64_t durable_id)
{
    (void)ctx, (void)durable_id;
    return NULL;
}

static void restore(struct bench *from, const char *what)
{
    struct bench n;
    struct broker_restore *r;
    char text[RESTORE_TEXT_MAX];
    struct broker_stats st;
    uint64_t start_ns, ops_ns;
    int rv = TQ_OK;

    init(&n);
    start_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    r = broker_restore_begin(n.b, no_host, NULL);
    for (size_t at = 0; at < from->log.len && rv == TQ_OK;) {
        uint32_t len;

        memcpy(&len, from->log.data + at, sizeof(len));
        at += sizeof(len);
        rv = broker_restore_ops(r, tq_span(from->log.data + at, len), 1, text);
        at += len;
    }
    ops_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_ns;
    if (rv == TQ_OK)
        rv = broker_restore_finish(r, NOW_MS, no_session, NULL, text);
    TQ_ASSERT(rv == TQ_OK);
    start_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_ns;
    broker_get_stats(n.b, &st);
    TQ_ASSERT(st.tasks == TASKS);
    printf("%-28s ops %4.0f ms, finish %4.0f ms, of %zu MB\n", what, (double)ops_ns / 1e6,
           (double)(start_ns - ops_ns) / 1e6, from->log.len >> 20);
    deinit(&n);
}

int main(void)
{
    struct bench n;

    for (int what = 0; what < 3; what++) {
        init(&n);
        put_all(&n);
        if (what == 1)
            stir(&n);
        else if (what == 2)
            finish_all(&n);
        restore(&n, what == 0 ? "queued" : what == 1 ? "queued, stirred" : "results kept");
        step(&n, &(struct broker_event){.kind = BROKER_SESSION_CLOSE, .session = &n.s});
        deinit(&n);
    }
    return 0;
}
