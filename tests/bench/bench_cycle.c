/* Task cycles over the wire: put, take, result stored and acknowledged, result taken; task-master's native
 * dialect beside Redis lists and beanstalkd, on loopback, in turns, with the same driver. Prints server CPU
 * per cycle, cycles a second, and latencies; and what only task-master is asked: memory a task, idle workers,
 * many queues, purge. A program, never a test.
 *
 *   bench_cycle [--bin DIR] [--systems taskq,redis,redis-many,beanstalkd]
 *               [--only batched,single,alone,memory,idle,queues,purge] [--reps N] [--scale PERCENT] */
#include "tests/bench/cycle_drive.h"

#define REPS_MAX    32
#define SYSTEMS_MAX 4

static void bench_memory(void)
{
    const uint64_t n = 1000000;
    struct shape drain = {"drain", 0, 1, 1, 1000, 1000, n, false};
    struct conn *c = open_conn(PRODUCER, 1000, 1000);
    long before = status_read(running.pid, "VmRSS"), full, after;
    uint64_t start = now_ns();

    put_many(c, "task_queue", n);
    full = status_read(running.pid, "VmRSS");
    printf("memory  %-10s %8.1f bytes a queued task of 100 bytes, at 1 M (put in %.2f s)\n",
           running.ops->name, (double)(full - before) * 1024 / (double)n, (double)(now_ns() - start) / 1e9);
    scale = 100;
    (void)cycles(&drain); /* takes all that is there */
    after = status_read(running.pid, "VmRSS");
    printf("memory  %-10s %8.1f MiB more than before, after the drain\n", running.ops->name,
           (double)(after - before) / 1024);
    close_conn(c);
}

static void bench_idle(void)
{
    const unsigned n = 10000;
    struct conn **list = must(calloc(n, sizeof(struct conn *)));
    struct run r = {.epoll = epoll_create1(0)};
    struct conn *probe = open_conn(WORKER, 1, 1);
    long before = status_read(running.pid, "VmRSS"), after;

    for (unsigned i = 0; i < n; i++) {
        struct conn *c = list[i] = open_conn(WORKER, 1, 1);
        c->ops->ask(c);
        flush(&r, c);
        free(c->in);
        free(c->out);
        c->in = c->out = NULL;
        c->in_cap = c->out_cap = c->out_len = c->out_at = c->in_len = c->in_at = 0;
    }
    ping(probe);
    after = status_read(running.pid, "VmRSS");
    printf("idle    %-10s %8.0f bytes a native worker that waits in get, at %u\n", running.ops->name,
           (double)(after - before) * 1024 / n, n);
    for (unsigned i = 0; i < n; i++)
        close_conn(list[i]);
    close_conn(probe);
    close(r.epoll);
    free(list);
}

/* put and get of one task on queues in turn, `depth` requests in flight; us of CPU an operation */
static double queue_ops(struct conn *c, unsigned queues, unsigned ops, unsigned depth)
{
    struct cpu before, after;
    char name[32];
    unsigned at = 0;

    (void)cpu_read(running.pid, &before);
    for (unsigned done = 0; done < ops; done += depth) {
        unsigned first = at;
        uint64_t seen = 0;
        for (unsigned i = 0; i < depth; i++) {
            snprintf(name, sizeof name, "q-%u", at);
            taskq_put_to(c, name, 1);
            at = (at + 7919) % queues;
        }
        for (unsigned i = 0; i < depth; i++) {
            struct tq_mp_out o = taskq_begin(c, "get", 2);
            snprintf(name, sizeof name, "q-%u", first);
            tq_mp_put_cstr(&o, "q");
            tq_mp_put_cstr(&o, name);
            tq_mp_put_cstr(&o, "take");
            tq_mp_put_bool(&o, true);
            taskq_end(c, &o);
            first = (first + 7919) % queues;
        }
        c->in_flight = 0;
        blocking_flush(c);
        while (seen < 2 * depth) {
            struct tq_span payload;
            blocking_read(c);
            while (taskq_frame(c, &payload)) {
                (void)taskq_result(payload);
                seen++;
            }
        }
    }
    (void)cpu_read(running.pid, &after);
    return (double)(after.total_ns - before.total_ns) / 1000.0 / (ops * 2.0);
}

static void bench_queues(void)
{
    static const unsigned depths[] = {1, 64};
    const unsigned many = 100000, few = 100;
    struct conn *c = open_conn(PRODUCER, 1000, 1000);
    double before_us[2], few_us[2], all_us[2];
    char name[32];
    long before, after;

    (void)fcntl(c->fd, F_SETFL, 0);
    for (unsigned i = 0; i < few; i++) {
        snprintf(name, sizeof name, "q-%u", i);
        call_declare(c, name);
    }
    for (unsigned d = 0; d < 2; d++)
        before_us[d] = queue_ops(c, few, 3000 * depths[d], depths[d]);
    before = status_read(running.pid, "VmRSS");
    for (unsigned i = few; i < many; i++) {
        snprintf(name, sizeof name, "q-%u", i);
        call_declare(c, name);
    }
    after = status_read(running.pid, "VmRSS");
    for (unsigned d = 0; d < 2; d++) {
        few_us[d] = queue_ops(c, few, 3000 * depths[d], depths[d]);
        all_us[d] = queue_ops(c, many, 3000 * depths[d], depths[d]);
        printf("queues  %-10s %2u in flight: %.3f us an operation with %u queues; with %u queues %.3f us "
               "(%.2f times) on %u of "
               "them, %.3f us (%.2f times) on all in turn\n",
               running.ops->name, depths[d] * 2, before_us[d], few, many, few_us[d], few_us[d] / before_us[d],
               few, all_us[d], all_us[d] / before_us[d]);
    }
    printf("queues  %-10s %.0f bytes a queue\n", running.ops->name,
           (double)(after - before) * 1024 / (many - few));
    close_conn(c);
}

static void bench_purge(void)
{
    struct conn *c = open_conn(PRODUCER, 1000, 1000);
    struct conn *pinger = open_conn(PRODUCER, 1, 1);
    struct hist *quiet = must(calloc(1, sizeof *quiet)), *busy = must(calloc(1, sizeof *busy));

    put_many(c, "task_queue", 1000000);
    for (int phase = 0; phase < 2; phase++) {
        uint64_t until = now_ns() + 1500000000u;
        if (phase == 1) {
            struct tq_mp_out o = taskq_begin(c, "purge", 1);
            tq_mp_put_cstr(&o, "q");
            tq_mp_put_cstr(&o, "task_queue");
            taskq_end(c, &o);
            blocking_flush(c);
        }
        while (now_ns() < until) {
            uint64_t start = now_ns();
            ping(pinger);
            hist_add(phase == 0 ? quiet : busy, now_ns() - start);
        }
    }
    printf("purge   %-10s a ping takes %.0f us (p50), %.0f us (most) beside nothing; %.0f us (p50), %.0f us "
           "(most) while 1 M "
           "tasks are purged\n",
           running.ops->name, hist_us(quiet, 0.5), (double)quiet->max_ns / 1000, hist_us(busy, 0.5),
           (double)busy->max_ns / 1000);
    free(quiet);
    free(busy);
    close_conn(c);
    close_conn(pinger);
}

/* ---- the program ---- */

static const struct shape shapes[] = {
    {"batched", 1, 2, 1, 128, 64, 1000000, false},
    {"single", 8, 64, 8, 1, 1, 150000, false},
    {"alone", 1, 1, 1, 1, 1, 30000, true},
};

static void compare(const struct shape *shape, const struct system_ops *const *systems, unsigned count,
                    unsigned reps)
{
    static double rate[SYSTEMS_MAX][REPS_MAX], cpu[SYSTEMS_MAX][REPS_MAX], p50[SYSTEMS_MAX][REPS_MAX],
        p99[SYSTEMS_MAX][REPS_MAX];
    unsigned done[SYSTEMS_MAX] = {0};
    cpu_set_t all;

    (void)sched_getaffinity(0, sizeof all, &all);
    for (unsigned rep = 0; rep < reps; rep++) {
        for (unsigned s = 0; s < count; s++) {
            struct outcome o;
            if (!start_server(systems[s], shape->alone ? 0 : -1)) {
                if (rep == 0)
                    printf("%-7s %-10s is not installed\n", shape->name, systems[s]->name);
                continue;
            }
            if (shape->alone) {
                cpu_set_t set;
                CPU_ZERO(&set);
                CPU_SET(0, &set);
                (void)sched_setaffinity(0, sizeof set, &set);
            }
            o = cycles(shape);
            stop_server();
            (void)sched_setaffinity(0, sizeof all, &all);
            rate[s][done[s]] = o.cycles_per_s;
            cpu[s][done[s]] = o.cpu_us;
            p50[s][done[s]] = o.p50_us;
            p99[s][done[s]++] = o.p99_us;
        }
    }
    for (unsigned s = 0; s < count; s++) {
        if (done[s] == 0)
            continue;
        printf("%-7s %-10s %9.0f cycles/s  %7.3f us server CPU a cycle", shape->name, systems[s]->name,
               median(rate[s], done[s]), median(cpu[s], done[s]));
        if (shape->alone)
            printf("  whole cycle p50 %.1f us, p99 %.1f us", median(p50[s], done[s]),
                   median(p99[s], done[s]));
        printf("\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } others[] = {
        {"memory", bench_memory}, {"idle", bench_idle}, {"queues", bench_queues}, {"purge", bench_purge}};
    const struct system_ops *const all[] = {&taskq_ops, &redis_ops, &redis_many_ops, &beanstalkd_ops};
    const struct system_ops *systems[SYSTEMS_MAX];
    const char *only = NULL, *which = "taskq,redis,redis-many,beanstalkd";
    unsigned count = 0, reps = 3;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--bin") == 0)
            bin_dir = argv[i + 1];
        else if (strcmp(argv[i], "--systems") == 0)
            which = argv[i + 1];
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--reps") == 0)
            reps = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--scale") == 0)
            scale = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else
            reps = 0;
    }
    if (argc % 2 == 0 || reps < 1 || reps > REPS_MAX || scale < 1 || scale > 1000) {
        fprintf(
            stderr,
            "usage: bench_cycle [--bin DIR] [--systems LIST] [--only LIST] [--reps N] [--scale PERCENT]\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    atexit(stop_server);
    for (unsigned i = 0; i < SYSTEMS_MAX; i++)
        if (named(which, all[i]->name))
            systems[count++] = all[i];
    for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (!only || named(only, shapes[i].name))
            compare(&shapes[i], systems, count, reps);
    for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++) {
        if ((only && !named(only, others[i].name)) || !named(which, "taskq"))
            continue;
        if (!start_server(&taskq_ops, -1))
            die("no task-master in --bin");
        others[i].fn();
        stop_server();
        fflush(stdout);
    }
    return 0;
}
