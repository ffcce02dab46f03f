/* What the broker itself costs, in nanoseconds per task: a Python producer's put, a Python worker's get, and
 * the acknowledgement that comes with its next get; and a native cycle: put, get, done, and the result taken,
 * in batches; the same with a journal that is collected after each batch. No sockets. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/assert.h"
#include "master/core/broker.h"
#include "master/core/journal.h"

#define BODY_BYTES 100u

static const size_t depths[] = {0, 100000};

static int first_byte_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                           char text[BROKER_TEXT_MAX])
{
    (void)text;
    *ret_less = memcmp(a->data, b->data, 4) < 0;
    return 0;
}

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts); /* other programs do not count */
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

struct bench {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    struct broker_session producer;
    struct broker_session worker;
    struct broker_session collector;
    struct broker_queue **queues;
    uint8_t body[BODY_BYTES];
    uint32_t random;
    uint64_t sum; /* of what was read */
    bool has_journal;
    struct tq_buf ops; /* what was collected last */
    double collect_ns;
    uint64_t ops_bytes;
};

static uint32_t next_random(struct bench *n)
{
    n->random = n->random * 1664525u + 1013904223u;
    return n->random;
}

/* What a dialect does with an item: it finds its bytes. */
static void look(struct bench *n, const struct broker_effect *e)
{
    struct broker_view view;

    TQ_ASSERT(broker_view_lease(n->b, e, &view));
    n->sum += view.payload.data[BODY_BYTES - 1];
}

static void step(struct bench *n, const struct broker_event *ev, enum broker_outcome outcome)
{
    int rv = broker_step(n->b, 1, ev, &n->fx);

    TQ_ASSERT(rv == 0);
    TQ_ASSERT(n->fx.count == 0 || n->fx.list[0].outcome == outcome);
    if (n->fx.count > 0 && n->fx.list[n->fx.count - 1].outcome == BROKER_REPLY_ITEM)
        look(n, &n->fx.list[n->fx.count - 1]);
    broker_effects_clear(&n->fx);
}

static struct broker_payload payload(struct bench *n, enum broker_format format)
{
    tq_store_be32(n->body, next_random(n));
    return (struct broker_payload){.data = n->body, .len = BODY_BYTES, .format = (uint8_t)format};
}

static void put(struct bench *n, struct broker_queue *q)
{
    step(n,
         &(struct broker_event){
             .kind = BROKER_PUT, .session = &n->producer, .queue = q, .payload = payload(n, BROKER_PYTHON)},
         BROKER_REPLY_NONE);
}

static void get(struct bench *n, struct broker_queue *q)
{
    step(n, &(struct broker_event){.kind = BROKER_GET, .session = &n->worker, .queue = q}, BROKER_REPLY_ITEM);
    step(n, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &n->worker}, BROKER_REPLY_ITEM);
}

static void set_up(struct bench *n, enum broker_kind kind, size_t queue_count, bool native, bool has_journal)
{
    struct broker_queue_conf conf;

    broker_queue_conf_init(&conf);
    conf.kind = kind;
    *n = (struct bench){.random = 1};
    n->producer.native = n->worker.native = n->collector.native = native;
    tq_deadlines_init(&n->deadlines);
    n->b = broker_new(&n->deadlines, &(struct broker_limits){.queues = UINT32_MAX}, first_byte_less);
    n->queues = malloc(queue_count * sizeof(struct broker_queue *));
    TQ_ASSERT(n->b != NULL && n->queues != NULL);
    tq_buf_init(&n->ops, SIZE_MAX);
    if (has_journal)
        TQ_ASSERT(broker_journal_enable(n->b) == 0);
    n->has_journal = has_journal;
    for (size_t i = 0; i < queue_count; i++) {
        char name[32];

        snprintf(name, sizeof(name), "queue-%zu", i);
        TQ_ASSERT(broker_declare(n->b, name, &conf, &n->queues[i]) == 0);
    }
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->producer}, BROKER_REPLY_NONE);
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->worker}, BROKER_REPLY_NONE);
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->collector}, BROKER_REPLY_NONE);
}

static void tear_down(struct bench *n)
{
    broker_free(n->b);
    broker_effects_deinit(&n->fx);
    tq_deadlines_deinit(&n->deadlines);
    tq_buf_deinit(&n->ops);
    free(n->queues);
}

/* The end of a turn. */
static void collect(struct bench *n)
{
    enum journal_wait wait;
    double start;

    if (!n->has_journal)
        return;
    start = now_ns();
    tq_buf_clear(&n->ops);
    TQ_ASSERT(broker_journal_collect(n->b, 1, &n->ops, &wait) == 0);
    n->collect_ns += now_ns() - start;
    n->ops_bytes += n->ops.len;
}

/* There are queue_count queues, `used` of them are used in turn, in large steps through memory; `depth` tasks
 * stand in those all the time. */
static double cycle_ns(enum broker_kind kind, size_t queue_count, size_t used, size_t depth, size_t cycles)
{
    struct bench n;
    double start;

    set_up(&n, kind, queue_count, false, false);
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

    set_up(&n, BROKER_FIFO, 1, false, false);
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

    set_up(&n, BROKER_FIFO, 1, false, false);
    start = now_ns();
    for (size_t i = 0; i < depth; i++)
        put(&n, n.queues[0]);
    for (size_t i = 0; i < depth; i++)
        get(&n, n.queues[0]);
    start = (now_ns() - start) / (double)depth;
    tear_down(&n);
    return start;
}

/* ---- native, in batches ---- */

static void native_put(struct bench *n, struct broker_queue *q, size_t batch)
{
    for (size_t i = 0; i < batch; i++) {
        struct broker_event ev = {.kind = BROKER_PUT,
                                  .more = i + 1 < batch,
                                  .session = &n->producer,
                                  .queue = q,
                                  .payload = payload(n, BROKER_MSGPACK)};

        TQ_ASSERT(broker_step(n->b, 1, &ev, &n->fx) == 0);
    }
    TQ_ASSERT(n->fx.count == batch && n->fx.list[0].outcome == BROKER_REPLY_OK);
    broker_effects_clear(&n->fx);
}

static size_t native_get(struct bench *n, struct broker_queue *q, size_t batch,
                         struct broker_lease_name *ret_leases)
{
    struct broker_event ev = {.kind = BROKER_GET, .session = &n->worker, .queue = q, .max = (uint32_t)batch};
    size_t count;

    TQ_ASSERT(broker_step(n->b, 1, &ev, &n->fx) == 0);
    count = n->fx.count - 1;
    TQ_ASSERT(n->fx.list[count].outcome == BROKER_REPLY_END);
    for (size_t i = 0; i < count; i++) {
        const struct broker_effect *e = &n->fx.list[i];

        look(n, e);
        ret_leases[i] = (struct broker_lease_name){.id = e->id, .epoch = e->epoch};
    }
    broker_effects_clear(&n->fx);
    return count;
}

static void native_done(struct bench *n, const struct broker_lease_name *leases, size_t batch)
{
    for (size_t i = 0; i < batch; i++) {
        struct broker_event ev = {.kind = BROKER_DONE,
                                  .more = i + 1 < batch,
                                  .session = &n->worker,
                                  .id = leases[i].id,
                                  .epoch = leases[i].epoch,
                                  .payload = payload(n, BROKER_MSGPACK)};

        TQ_ASSERT(broker_step(n->b, 1, &ev, &n->fx) == 0);
    }
    TQ_ASSERT(n->fx.count == batch && n->fx.list[0].outcome == BROKER_REPLY_OK);
    broker_effects_clear(&n->fx);
}

static void native_collect(struct bench *n, struct broker_queue *q, size_t batch)
{
    struct broker_event ev = {
        .kind = BROKER_GET, .session = &n->collector, .queue = q, .max = (uint32_t)batch, .take = true};

    TQ_ASSERT(broker_step(n->b, 1, &ev, &n->fx) == 0);
    TQ_ASSERT(n->fx.count == batch + 1 && n->fx.list[0].outcome == BROKER_REPLY_TASK);
    for (size_t i = 0; i < batch; i++)
        n->sum += n->fx.list[i].copy->payload.data[BODY_BYTES - 1];
    broker_effects_clear(&n->fx);
}

#define PHASES 4
#define ROUND  1024u /* tasks, so that the clock itself does not count */

static void native_ns(size_t batch, size_t depth, size_t cycles, bool has_journal, double ret_ns[PHASES + 2])
{
    struct broker_lease_name *leases = malloc(ROUND * sizeof(*leases));
    struct broker_queue_conf conf;
    struct bench n;

    TQ_ASSERT(leases != NULL);
    set_up(&n, BROKER_FIFO, 2, true, has_journal);
    conf = *broker_queue_conf(n.queues[0]);
    conf.result = broker_queue_name(n.queues[1]);
    TQ_ASSERT(broker_reconfigure(n.b, 1, n.queues[0], &conf, &n.fx) == 0);
    for (size_t i = 0; i < depth; i++)
        native_put(&n, n.queues[0], 1);
    collect(&n);
    n.collect_ns = 0, n.ops_bytes = 0;
    memset(ret_ns, 0, PHASES * sizeof(*ret_ns));
    for (size_t i = 0; i < cycles; i += ROUND) {
        double at[PHASES + 1];

        at[0] = now_ns();
        for (size_t k = 0; k < ROUND; k += batch)
            native_put(&n, n.queues[0], batch), collect(&n);
        at[1] = now_ns();
        for (size_t k = 0; k < ROUND; k += batch)
            TQ_ASSERT(native_get(&n, n.queues[0], batch, leases + k) == batch), collect(&n);
        at[2] = now_ns();
        for (size_t k = 0; k < ROUND; k += batch)
            native_done(&n, leases + k, batch), collect(&n);
        at[3] = now_ns();
        for (size_t k = 0; k < ROUND; k += batch)
            native_collect(&n, n.queues[1], batch), collect(&n);
        at[4] = now_ns();
        for (int p = 0; p < PHASES; p++)
            ret_ns[p] += (at[p + 1] - at[p]) / (double)cycles;
    }
    ret_ns[PHASES] = n.collect_ns / (double)cycles;
    ret_ns[PHASES + 1] = (double)n.ops_bytes / (double)cycles;
    tear_down(&n);
    free(leases);
}

static void show_native(size_t batch, size_t depth, size_t cycles, bool has_journal)
{
    double ns[PHASES + 2];

    native_ns(batch, depth, cycles, has_journal, ns);
    printf("native, batches of %3zu, standing tasks %6zu: put %5.1f, get %5.1f, done %5.1f, collect %5.1f: "
           "%7.1f",
           batch, depth, ns[0], ns[1], ns[2], ns[3], ns[0] + ns[1] + ns[2] + ns[3]);
    if (has_journal)
        printf(", of it for a journal %.1f (%.0f bytes)", ns[PHASES], ns[PHASES + 1]);
    printf("\n");
}

static void show_python(size_t cycles)
{
    static const char *const kinds[] = {
        [BROKER_FIFO] = "fifo", [BROKER_LIFO] = "lifo", [BROKER_PRIORITY] = "priority"};
    static const size_t queue_counts[] = {1, 100000, 100000}, used[] = {1, 1, 100000};

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
}

int main(int argc, char **argv)
{
    size_t cycles = argc > 1 ? (size_t)strtoull(argv[1], NULL, 10) : 1000000;
    const char *only = argc > 2 ? argv[2] : ""; /* python, native; one, batch, journal: for profilers */

    if (strcmp(only, "one") == 0) {
        printf("fifo %.1f\n", cycle_ns(BROKER_FIFO, 1, 1, 0, cycles));
        return 0;
    }
    if (strcmp(only, "batch") == 0) {
        show_native(128, 0, cycles, false);
        return 0;
    }
    if (strcmp(only, "journal") == 0) {
        show_native(128, 0, cycles, true);
        return 0;
    }
    if (strcmp(only, "native") != 0)
        show_python(cycles);
    if (strcmp(only, "python") != 0)
        for (size_t batch = 1; batch <= 128; batch *= 128)
            for (size_t d = 0; d < 2; d++)
                for (int journal = 0; journal < 2; journal++)
                    show_native(batch, depths[d], cycles, journal);
    return 0;
}
