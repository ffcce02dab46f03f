/* What the benchmarks of whole cycles share (bench_cycle.c, bench_durable.c): servers, connections, and the
 * driver that keeps a number of producers, workers and collectors at work with any of the systems. */
#ifndef TESTS_BENCH_CYCLE_DRIVE_H
#define TESTS_BENCH_CYCLE_DRIVE_H

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

static const char *bin_dir = "build/bin";
static unsigned scale = 100;
static int server_stdout = -1; /* where its ready line goes */
static const char *data_dir;   /* of the server that is started; NULL: it keeps all in memory */

/* ---- servers ---- */

struct server {
    const struct system_ops *ops;
    pid_t pid;
    uint16_t port;
};

static struct server running;

static inline void end_server(int signal)
{
    if (running.pid <= 0)
        return;
    kill(running.pid, signal);
    waitpid(running.pid, NULL, 0);
    running.pid = 0;
}

static inline void stop_server(void)
{
    end_server(SIGKILL);
}

static inline uint16_t free_port(void)
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

static inline int try_connect(uint16_t port)
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

static inline void exec_redis(const char *port)
{
    if (data_dir)
        execlp("redis-server", "redis-server", "--port", port, "--save", "", "--appendonly", "yes",
               "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0", "--dir", data_dir, "--bind",
               "127.0.0.1", (char *)NULL);
    else
        execlp("redis-server", "redis-server", "--port", port, "--save", "", "--appendonly", "no", "--bind",
               "127.0.0.1", (char *)NULL);
}

static inline void exec_beanstalkd(const char *port)
{
    if (data_dir)
        execlp("beanstalkd", "beanstalkd", "-l", "127.0.0.1", "-p", port, "-b", data_dir, "-f0",
               (char *)NULL);
    else
        execlp("beanstalkd", "beanstalkd", "-l", "127.0.0.1", "-p", port, (char *)NULL);
}

static const char *const *server_before; /* words of a program that runs task-master; NULL: none does */

static inline void exec_taskq(const char *port)
{
    const char *words[32];
    char address[48], program[4096];
    size_t n = 0;

    snprintf(program, sizeof program, "%s/task-master", bin_dir);
    snprintf(address, sizeof address, "127.0.0.1:%s", port);
    (void)setenv("TASKQ_AUTHKEY", taskq_secret, 1);
    for (size_t i = 0; server_before && server_before[i] && n < 20; i++)
        words[n++] = server_before[i];
    words[n++] = program;
    words[n++] = "--listen";
    words[n++] = address;
    words[n++] = "--max-queues";
    words[n++] = "200000";
    if (data_dir) {
        words[n++] = "--data-dir";
        words[n++] = data_dir;
    }
    words[n] = NULL;
    execvp(words[0], (char *const *)(uintptr_t)words);
}

static inline void exec_server(const struct system_ops *ops, uint16_t port, int cpu)
{
    char text[32];
    int null = open("/dev/null", O_RDWR);
    (void)dup2(null, 0);
    (void)dup2(server_stdout >= 0 ? server_stdout : null, 1);
    (void)dup2(null, 2);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)cpu, &set);
        (void)sched_setaffinity(0, sizeof set, &set);
    }
    snprintf(text, sizeof text, "%u", port);
    if (ops == &redis_ops || ops == &redis_many_ops)
        exec_redis(text);
    else if (ops == &beanstalkd_ops)
        exec_beanstalkd(text);
    else
        exec_taskq(text);
    _exit(127);
}

static inline bool start_server(const struct system_ops *ops, int cpu)
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

static inline struct conn *open_conn(enum role role, unsigned window, unsigned chunk)
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

static inline void close_conn(struct conn *c)
{
    close(c->fd);
    if (c->ops->open == taskq_open) {
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

static inline void watch(const struct run *r, struct conn *c, int op)
{
    struct epoll_event e = {.events = EPOLLIN | (c->out_at < c->out_len ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(r->epoll, op, c->fd, &e) != 0)
        die("epoll_ctl");
}

static inline void flush(const struct run *r, struct conn *c)
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

static inline void produce(struct run *r, struct conn *c)
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

static inline void act(struct run *r, struct conn *c)
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

static inline void readable(struct run *r, struct conn *c)
{
    blocking_read(c); /* there is something */
    c->ops->parse(c);
    act(r, c);
    flush(r, c);
}

static inline void loop(struct run *r)
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

static inline struct outcome cycles(const struct shape *shape)
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

static inline void finish_call(struct conn *c, struct tq_mp_out *o)
{
    (void)fcntl(c->fd, F_SETFL, 0);
    taskq_call(c, o);
}

static inline void put_many(struct conn *c, const char *queue, uint64_t n)
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

static inline void call_declare(struct conn *c, const char *queue)
{
    struct tq_mp_out o = taskq_begin(c, "declare", 1);
    tq_mp_put_cstr(&o, "q");
    tq_mp_put_cstr(&o, queue);
    finish_call(c, &o);
}

static inline void ping(struct conn *c)
{
    struct tq_mp_out o = taskq_begin(c, "ping", 0);
    finish_call(c, &o);
}

/* ---- for the reports ---- */

static inline int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static inline double median(double *list, unsigned n)
{
    qsort(list, n, sizeof *list, by_value);
    return list[n / 2];
}

static inline bool named(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

#endif
