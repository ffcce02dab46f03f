/* Task cycles over the wire: put, take, result stored and acknowledged, result taken; task-master's native
 * dialect beside Redis lists and beanstalkd, on loopback, in turns, with the same driver. Prints server CPU
 * per cycle, cycles a second, and latencies; and what only task-master is asked: memory a task, idle workers,
 * many queues, purge. A program, never a test.
 *
 *   bench_cycle [--bin DIR] [--systems taskq,redis,redis-many,beanstalkd]
 *               [--only batched,single,alone,memory,idle,queues,purge] [--reps N] [--scale PERCENT] */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/bench/cycle_beanstalkd.h"
#include "tests/bench/cycle_redis.h"
#include "tests/bench/cycle_taskq.h"

#define REPS_MAX    32
#define SYSTEMS_MAX 4

static const char *bin_dir = "build/bin";
static unsigned scale = 100;

/* ---- servers ---- */

struct server {
    const struct system_ops *ops;
    pid_t pid;
    uint16_t port;
};

static struct server running;

static void stop_server(void)
{
    if (running.pid <= 0)
        return;
    kill(running.pid, SIGKILL);
    waitpid(running.pid, NULL, 0);
    running.pid = 0;
}

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        die("no free port");
    close(fd);
    return ntohs(a.sin_port);
}

static int try_connect(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        die("socket");
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void exec_server(const struct system_ops *ops, uint16_t port, int cpu)
{
    char text[32], address[48], program[4096];
    int null = open("/dev/null", O_RDWR);
    (void)dup2(null, 0);
    (void)dup2(null, 1);
    (void)dup2(null, 2);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)cpu, &set);
        (void)sched_setaffinity(0, sizeof set, &set);
    }
    snprintf(text, sizeof text, "%u", port);
    if (ops == &redis_ops || ops == &redis_many_ops) {
        execlp("redis-server", "redis-server", "--port", text, "--save", "", "--appendonly", "no", "--bind",
               "127.0.0.1", (char *)NULL);
    } else if (ops == &beanstalkd_ops) {
        execlp("beanstalkd", "beanstalkd", "-l", "127.0.0.1", "-p", text, (char *)NULL);
    } else {
        snprintf(program, sizeof program, "%s/task-master", bin_dir);
        snprintf(address, sizeof address, "127.0.0.1:%u", port);
        (void)setenv("TASKQ_AUTHKEY", taskq_secret, 1);
        execl(program, "task-master", "--listen", address, "--max-queues", "200000", (char *)NULL);
    }
    _exit(127);
}

static bool start_server(const struct system_ops *ops, int cpu)
{
    uint16_t port = free_port();
    int status;
    running = (struct server){.ops = ops, .port = port, .pid = fork()};
    if (running.pid < 0)
        die("fork");
    if (running.pid == 0)
        exec_server(ops, port, cpu);
    for (;;) {
        int fd = try_connect(port);
        if (fd >= 0) {
            close(fd);
            return true;
        }
        if (waitpid(running.pid, &status, WNOHANG) == running.pid) {
            running.pid = 0;
            return false; /* not installed */
        }
        usleep(2000);
    }
}

static struct conn *open_conn(enum role role, unsigned window, unsigned chunk)
{
    struct conn *c = must(calloc(1, sizeof *c));
    *c = (struct conn){.role = role, .window = window, .chunk = chunk, .ops = running.ops};
    c->held = must(calloc(window, sizeof *c->held));
    c->fd = try_connect(running.port);
    if (c->fd < 0)
        die("connect");
    c->ops->open(c);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl");
    return c;
}

static void close_conn(struct conn *c)
{
    close(c->fd);
    if (c->ops == &taskq_ops) {
        struct taskq_state *s = c->state;
        tq_buf_deinit(&s->buf);
        free(s);
    }
    free(c->in);
    free(c->out);
    free(c->held);
    free(c);
}

/* ---- the driver ---- */

struct run {
    int epoll;
    uint64_t total, put, got;
    bool alone; /* the next put only when the last result is there */
    uint64_t put_at_ns;
    struct hist latency;
    struct conn *producer; /* of `alone` */
};

static void watch(const struct run *r, struct conn *c, int op)
{
    struct epoll_event e = {.events = EPOLLIN | (c->out_at < c->out_len ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(r->epoll, op, c->fd, &e) != 0)
        die("epoll_ctl");
}

static void flush(const struct run *r, struct conn *c)
{
    while (c->out_at < c->out_len) {
        ssize_t n = write(c->fd, c->out + c->out_at, c->out_len - c->out_at);
        if (n < 0 && errno == EAGAIN) {
            watch(r, c, EPOLL_CTL_MOD);
            return;
        }
        if (n < 0)
            die("write");
        c->out_at += (size_t)n;
    }
}

static void produce(struct run *r, struct conn *c)
{
    while (r->put < r->total && c->in_flight + c->chunk <= c->window) {
        c->ops->put(c, c->chunk);
        r->put += c->chunk;
        if (r->alone) {
            r->put_at_ns = now_ns();
            break;
        }
    }
}

static void act(struct run *r, struct conn *c)
{
    if (c->role == PRODUCER) {
        if (!r->alone)
            produce(r, c);
        return;
    }
    if (c->waits > 0 || (c->held_count == 0 && c->ops != &beanstalkd_ops))
        return;
    if (c->role == COLLECTOR && c->held_count > 0) {
        r->got += c->held_count;
        if (r->alone) {
            hist_add(&r->latency, now_ns() - r->put_at_ns);
            produce(r, r->producer);
            flush(r, r->producer);
        }
    }
    c->ops->next(c);
}

static void readable(struct run *r, struct conn *c)
{
    blocking_read(c); /* there is something */
    c->ops->parse(c);
    act(r, c);
    flush(r, c);
}

static void loop(struct run *r)
{
    struct epoll_event events[128];
    while (r->got < r->total) {
        int n = epoll_wait(r->epoll, events, 128, 20000);
        if (n == 0)
            die("nothing moved for 20 s");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) != 0) {
                flush(r, c);
                watch(r, c, EPOLL_CTL_MOD);
            }
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0)
                readable(r, c);
        }
    }
}

struct shape {
    const char *name;
    unsigned producers, workers, collectors, window, chunk;
    uint64_t total;
    bool alone;
};

struct outcome {
    double cycles_per_s, cpu_us, p50_us, p99_us;
};

static struct outcome cycles(const struct shape *shape)
{
    unsigned count = shape->producers + shape->workers + shape->collectors;
    struct conn **list = must(calloc(count, sizeof(struct conn *)));
    struct run *r = must(calloc(1, sizeof *r));
    struct outcome o = {0};
    struct cpu before, after;
    uint64_t start;

    r->epoll = epoll_create1(0);
    r->alone = shape->alone;
    r->total = shape->total * scale / 100 / shape->chunk * shape->chunk;
    for (unsigned i = 0; i < count; i++) {
        enum role role = i < shape->collectors                    ? COLLECTOR
                         : i < shape->collectors + shape->workers ? WORKER
                                                                  : PRODUCER;
        /* alone: the answer to a put may come after its result */
        list[i] = open_conn(role, role == PRODUCER && shape->alone ? 8 : shape->window, shape->chunk);
        watch(r, list[i], EPOLL_CTL_ADD);
        r->producer = list[i];
        if (role != PRODUCER) {
            list[i]->ops->ask(list[i]);
            flush(r, list[i]);
        }
    }
    if (cpu_read(running.pid, &before) != 0)
        die("no CPU time");
    start = now_ns();
    for (unsigned i = shape->collectors + shape->workers; i < count; i++) {
        produce(r, list[i]);
        flush(r, list[i]);
    }
    loop(r);
    o.cycles_per_s = (double)r->total * 1e9 / (double)(now_ns() - start);
    if (cpu_read(running.pid, &after) != 0)
        die("no CPU time");
    o.cpu_us = (double)(after.total_ns - before.total_ns) / 1000.0 / (double)r->total;
    o.p50_us = hist_us(&r->latency, 0.5);
    o.p99_us = hist_us(&r->latency, 0.99);
    for (unsigned i = 0; i < count; i++)
        close_conn(list[i]);
    close(r->epoll);
    free(list);
    free(r);
    return o;
}

/* ---- blocking calls to task-master, for what only it is asked ---- */

static void finish_call(struct conn *c, struct tq_mp_out *o)
{
    (void)fcntl(c->fd, F_SETFL, 0);
    taskq_call(c, o);
}

static void call_queue(struct conn *c, const char *method, const char *queue)
{
    struct tq_mp_out o = taskq_begin(c, method, 1);
    tq_mp_put_cstr(&o, "q");
    tq_mp_put_cstr(&o, queue);
    finish_call(c, &o);
}

static void put_many(struct conn *c, const char *queue, uint64_t n)
{
    (void)fcntl(c->fd, F_SETFL, 0);
    for (uint64_t i = 0; i < n; i += 1000) {
        taskq_put_to(c, queue, 1000);
        blocking_flush(c);
        while (c->in_flight > 0) {
            blocking_read(c);
            taskq_parse(c);
        }
    }
}

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

static void ping(struct conn *c)
{
    struct tq_mp_out o = taskq_begin(c, "ping", 0);
    finish_call(c, &o);
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
        call_queue(c, "declare", name);
    }
    for (unsigned d = 0; d < 2; d++)
        before_us[d] = queue_ops(c, few, 3000 * depths[d], depths[d]);
    before = status_read(running.pid, "VmRSS");
    for (unsigned i = few; i < many; i++) {
        snprintf(name, sizeof name, "q-%u", i);
        call_queue(c, "declare", name);
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

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *list, unsigned n)
{
    qsort(list, n, sizeof *list, by_value);
    return list[n / 2];
}

static bool named(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

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
