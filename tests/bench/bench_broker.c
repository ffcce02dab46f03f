/* What the broker itself costs: one producer's put, one worker's get, and the acknowledgement that comes
 * with its next get, in nanoseconds per task. No sockets. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/assert.h"
#include "master/core/broker.h"

#define BODY_BYTES 100u

static int first_byte_less(const struct tq_body *a, const struct tq_body *b, bool *ret_less,
                           char text[BROKER_TEXT_MAX])
{
    (void)text;
    *ret_less = memcmp(a->data, b->data, 4) < 0;
    return 0;
}

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

struct bench {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    struct broker_session producer;
    struct broker_session worker;
    struct broker_queue **queues;
    uint32_t random;
};

static uint32_t next_random(struct bench *n)
{
    n->random = n->random * 1664525u + 1013904223u;
    return n->random;
}

static void step(struct bench *n, const struct broker_event *ev, enum broker_outcome outcome)
{
    int rv = broker_step(n->b, 0, ev, &n->fx);

    TQ_ASSERT(rv == 0);
    TQ_ASSERT(n->fx.count == 0 || n->fx.list[0].outcome == outcome);
    broker_effects_clear(&n->fx);
}

static void put(struct bench *n, struct broker_queue *q)
{
    struct tq_body *body = tq_body_new(BODY_BYTES);
    uint32_t key = next_random(n);

    TQ_ASSERT(body != NULL);
    memset(body->data, 'x', BODY_BYTES);
    tq_store_be32(body->data, key);
    step(n, &(struct broker_event){.kind = BROKER_PUT, .session = &n->producer, .queue = q, .body = body},
         BROKER_REPLY_NONE);
    tq_body_unref(body);
}

static void get(struct bench *n, struct broker_queue *q)
{
    step(n, &(struct broker_event){.kind = BROKER_GET, .session = &n->worker, .queue = q}, BROKER_REPLY_ITEM);
    step(n, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &n->worker}, BROKER_REPLY_ITEM);
}

static void set_up(struct bench *n, enum broker_kind kind, size_t queue_count)
{
    struct broker_queue_conf conf = {.kind = kind, .ack = BROKER_ACK_AUTO};

    *n = (struct bench){.random = 1};
    tq_deadlines_init(&n->deadlines);
    n->b = broker_new(&n->deadlines, &(struct broker_limits){.queues = UINT32_MAX}, first_byte_less);
    n->queues = malloc(queue_count * sizeof(struct broker_queue *));
    TQ_ASSERT(n->b != NULL && n->queues != NULL);
    for (size_t i = 0; i < queue_count; i++) {
        char name[32];

        snprintf(name, sizeof(name), "queue-%zu", i);
        TQ_ASSERT(broker_declare(n->b, name, &conf, &n->queues[i]) == 0);
    }
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->producer}, BROKER_REPLY_NONE);
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->worker}, BROKER_REPLY_NONE);
}

static void tear_down(struct bench *n)
{
    broker_free(n->b);
    broker_effects_deinit(&n->fx);
    tq_deadlines_deinit(&n->deadlines);
    free(n->queues);
}

/* There are queue_count queues, `used` of them are used in turn, in large steps through memory; `depth` tasks
 * stand in those all the time. */
static double cycle_ns(enum broker_kind kind, size_t queue_count, size_t used, size_t depth, size_t cycles)
{
    struct bench n;
    double start;

    set_up(&n, kind, queue_count);
    for (size_t i = 0; i < depth; i++)
        put(&n, n.queues[i % used]);
    for (size_t i = 0; i < used; i++) /* every queue is used once before the clock starts */
        put(&n, n.queues[i]), get(&n, n.queues[i]);
    start = now_ns();
    for (size_t i = 0; i < cycles; i++) {
        struct broker_queue *q = n.queues[i * 7919 % used];

        put(&n, q);
        get(&n, q);
    }
    start = (now_ns() - start) / (double)cycles;
    tear_down(&n);
    return start;
}

/* A worker is parked in get when the put comes. */
static double hand_off_ns(size_t cycles)
{
    struct bench n;
    double start;

    set_up(&n, BROKER_FIFO, 1);
    start = now_ns();
    for (size_t i = 0; i < cycles; i++) {
        step(&n,
             &(struct broker_event){.kind = BROKER_GET,
                                    .session = &n.worker,
                                    .queue = n.queues[0],
                                    .wait_mode = BROKER_WAIT_MS,
                                    .wait_ms = 1000},
             BROKER_REPLY_NONE);
        put(&n, n.queues[0]);
        step(&n, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &n.worker}, BROKER_REPLY_ITEM);
    }
    start = (now_ns() - start) / (double)cycles;
    tear_down(&n);
    return start;
}

static double fill_and_drain_ns(size_t depth)
{
    struct bench n;
    double start;

    set_up(&n, BROKER_FIFO, 1);
    start = now_ns();
    for (size_t i = 0; i < depth; i++)
        put(&n, n.queues[0]);
    for (size_t i = 0; i < depth; i++)
        get(&n, n.queues[0]);
    start = (now_ns() - start) / (double)depth;
    tear_down(&n);
    return start;
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {
        [BROKER_FIFO] = "fifo", [BROKER_LIFO] = "lifo", [BROKER_PRIORITY] = "priority"};
    static const size_t queue_counts[] = {1, 100000, 100000}, used[] = {1, 1, 100000};
    static const size_t depths[] = {0, 100000};
    size_t cycles = argc > 1 ? (size_t)strtoull(argv[1], NULL, 10) : 1000000;

    printf("put + get + delivered + acknowledged, %u-byte bodies, ns per task\n", BODY_BYTES);
    for (int kind = BROKER_FIFO; kind <= BROKER_PRIORITY; kind++)
        for (size_t q = 0; q < 3; q++)
            for (size_t d = 0; d < 2; d++)
                printf("%-8s  queues %6zu, used %6zu, standing tasks %6zu  %7.1f\n", kinds[kind],
                       queue_counts[q], used[q], depths[d],
                       cycle_ns((enum broker_kind)kind, queue_counts[q], used[q], depths[d], cycles));
    printf("fifo, hand-off to a parked get                                %7.1f\n", hand_off_ns(cycles));
    printf("fifo, %7zu in, then all out                                 %7.1f\n", cycles,
           fill_and_drain_ns(cycles));
    return 0;
}
