/* What bodies of all sizes cost the broker: put and taken in turn (nothing else there, and with 64 MiB of
 * them standing in the queue), filled in and drained first in first out, filled in and purged; the longest
 * that one call took (CPU time, so that other programs do not count), and what is resident after it. Each
 * case runs in a process of its own. */
#include <inttypes.h>
#include <sys/wait.h>

#include "common/assert.h"
#include "common/mem.h"
#include "master/core/broker.h"
#include "tests/bench/measure.h"
#include "tests/lib/rss.h"

#define STANDING_BYTES (64u << 20)
#define CYCLE_BYTES    (1u << 30) /* as many are put and taken, but no more than CYCLES_MAX */
#define CYCLES_MAX     1000000u
#define ROUNDS         5u /* the best one counts */

struct bench {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    struct broker_session producer;
    struct broker_session worker;
    struct broker_queue *q;
    uint8_t *bytes;
    uint32_t len;
    uint64_t now_ms;
    uint64_t worst_ns; /* of one step, and what it was */
    const char *worst;
    uint64_t sum;
};

static uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void step(struct bench *n, const struct broker_event *ev)
{
    TQ_ASSERT(broker_step(n->b, n->now_ms, ev, &n->fx) == 0);
}

static void lap(struct bench *n, uint64_t since_ns, const char *what)
{
    uint64_t took_ns = cpu_ns() - since_ns;

    if (took_ns > n->worst_ns) {
        n->worst_ns = took_ns;
        n->worst = what;
    }
}

static void put(struct bench *n)
{
    struct broker_event ev = {
        .kind = BROKER_PUT,
        .session = &n->producer,
        .queue = n->q,
        .payload = {.data = n->bytes, .len = n->len, .format = BROKER_MSGPACK},
    };

    step(n, &ev);
    TQ_ASSERT(n->fx.list[0].outcome == BROKER_REPLY_OK);
    broker_effects_clear(&n->fx);
}

/* Handed out and done, without a value. */
static void get(struct bench *n)
{
    struct broker_event ev = {.kind = BROKER_GET, .session = &n->worker, .queue = n->q, .max = 1};
    struct broker_view view;

    step(n, &ev);
    TQ_ASSERT(n->fx.list[0].outcome == BROKER_REPLY_TASK && broker_view_lease(n->b, &n->fx.list[0], &view));
    for (size_t i = 0; i < view.payload.len; i += 4096)
        n->sum += view.payload.data[i];
    ev = (struct broker_event){
        .kind = BROKER_DONE, .session = &n->worker, .id = n->fx.list[0].id, .epoch = n->fx.list[0].epoch};
    broker_effects_clear(&n->fx);
    step(n, &ev);
    TQ_ASSERT(n->fx.list[0].outcome == BROKER_REPLY_OK);
    broker_effects_clear(&n->fx);
}

static void set_up(struct bench *n, uint32_t len)
{
    struct broker_limits limits = {.queues = 1};
    struct broker_queue_conf conf;

    broker_queue_conf_init(&conf);
    conf.retention_ms = 0; /* a result without a value that nobody waits for */
    *n = (struct bench){.len = len, .now_ms = 1, .worst = ""};
    n->bytes = malloc(len);
    n->producer.native = n->worker.native = true;
    tq_deadlines_init(&n->deadlines);
    n->b = broker_new(&n->deadlines, &limits, NULL);
    TQ_ASSERT(n->b != NULL && n->bytes != NULL && broker_declare(n->b, "q", &conf, &n->q) == 0);
    memset(n->bytes, 7, len);
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->producer});
    step(n, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &n->worker});
}

static void put_and_get_in_turn(struct bench *n, size_t standing)
{
    size_t cycles = CYCLE_BYTES / n->len < CYCLES_MAX ? CYCLE_BYTES / n->len : CYCLES_MAX;
    uint64_t best_ns = UINT64_MAX;

    for (size_t i = 0; i < standing; i++)
        put(n);
    for (unsigned r = 0; r < ROUNDS; r++) {
        uint64_t start = cpu_ns(), took_ns;

        for (size_t i = 0; i < cycles; i++)
            put(n), get(n);
        took_ns = cpu_ns() - start;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    printf("%8" PRIu32 " B  in turn, %7zu standing: %10.0f ns each, %8.1f MB/s\n", n->len, standing,
           (double)best_ns / (double)cycles, (double)n->len * (double)cycles * 1000.0 / (double)best_ns);
}

/* Warm: the first use of anything takes memory that stays. */
static int64_t resident_before(struct bench *n)
{
    int64_t resident, mapped;

    put(n), get(n);
    rss_read(&resident, &mapped);
    return resident;
}

static void report(struct bench *n, const char *what, size_t count, int64_t before, int64_t full, uint64_t ns)
{
    int64_t after, mapped;

    rss_read(&after, &mapped);
    printf("%8" PRIu32
           " B  %s %8zu: %8.0f ns each, longest call %8.3f ms (%s); resident %.1f -> %.1f -> %.1f MiB\n",
           n->len, what, count, (double)ns / (double)count, (double)n->worst_ns / 1e6, n->worst,
           (double)before / 1048576.0, (double)full / 1048576.0, (double)after / 1048576.0);
}

static int64_t fill(struct bench *n, size_t count)
{
    int64_t full, mapped;

    for (size_t i = 0; i < count; i++) {
        uint64_t since = cpu_ns();

        put(n);
        lap(n, since, "put");
    }
    rss_read(&full, &mapped);
    return full;
}

static void fill_and_drain(struct bench *n, size_t count)
{
    int64_t before = resident_before(n), full;
    uint64_t start = cpu_ns();

    full = fill(n, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t since = cpu_ns();

        get(n);
        lap(n, since, "get and done");
    }
    report(n, "drain", count, before, full, cpu_ns() - start);
}

static void fill_and_purge(struct bench *n, size_t count)
{
    struct broker_event ev = {.kind = BROKER_PURGE, .session = &n->producer, .queue = n->q};
    int64_t before = resident_before(n), full;
    uint64_t start = cpu_ns(), since;
    struct broker_stats st;

    full = fill(n, count);
    since = cpu_ns();
    step(n, &ev);
    lap(n, since, "purge");
    broker_effects_clear(&n->fx);
    for (broker_get_stats(n->b, &st); st.tasks > 0; broker_get_stats(n->b, &st)) {
        struct tq_deadline *d;

        n->now_ms++;
        while ((d = tq_deadlines_pop_due(&n->deadlines, n->now_ms)) != NULL) {
            since = cpu_ns();
            step(n, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
            lap(n, since, "slice of the purge");
        }
        broker_effects_clear(&n->fx);
    }
    report(n, "purge", count, before, full, cpu_ns() - start);
}

static void run(void (*fn)(struct bench *n, size_t count), uint32_t len, size_t count)
{
    struct bench n;
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    TQ_ASSERT(pid >= 0);
    if (pid == 0) {
        set_up(&n, len);
        fn(&n, count);
        fflush(stdout);
        _exit(0);
    }
    TQ_ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(int argc, char **argv)
{
    static const struct {
        uint32_t len;
        size_t count;
    } cases[] = {
        {100, 1000000}, {1000, 500000}, {3072, 200000},  {16384, 50000},
        {65536, 20000}, {262144, 4000}, {1048576, 1000}, {8388608, 100},
    };
    uint32_t only = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (only != 0 && only != cases[i].len)
            continue;
        run(put_and_get_in_turn, cases[i].len, 0);
        run(put_and_get_in_turn, cases[i].len, STANDING_BYTES / cases[i].len);
        run(fill_and_drain, cases[i].len, cases[i].count);
        run(fill_and_purge, cases[i].len, cases[i].count);
    }
    return 0;
}
