/* The durable modes, on one disk in one run: task-master with a data directory, Redis with appendfsync
 * always, and beanstalkd -b -f0: whole cycles in batches, 64 producers that wait for each put, and one alone
 * beside a bare write and fdatasync. And what only task-master is asked: recovery of a million tasks, the
 * longest stall and the disk's use while space is reclaimed beside a million live ones, and its system calls.
 * A program, never a test.
 *
 *   bench_durable [--bin DIR] [--data DIR] [--systems taskq,taskq-mem,redis,beanstalkd]
 *                 [--only batched,producers,alone,recovery,reclaim,calls] [--reps N] [--scale PERCENT]
 *
 * Data goes to a new folder in --data (default: beside --bin), which should be on the disk that matters. */
#include <ftw.h>
#include <sys/stat.h>

#include "tests/bench/cycle_drive.h"

#define SYSTEMS_MAX 4
#define REPS_MAX    32

/* The same without a data directory: what durability costs. */
static const struct system_ops memory_ops = {"taskq-mem", "task-master", taskq_open, taskq_put,
                                             taskq_ask,   taskq_next,    taskq_parse};

static char data_root[4096];
static char data_now[4200];
static unsigned reps = 3;

/* ---- folders ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void clean_up(void)
{
    stop_server();
    if (data_root[0] != '\0')
        remove_tree(data_root);
}

static void on_signal(int number)
{
    exit(128 + number); /* clean_up */
}

/* An empty one for the next server. */
static void new_data(void)
{
    static unsigned number;
    if (data_now[0] != '\0')
        remove_tree(data_now);
    snprintf(data_now, sizeof data_now, "%s/%u", data_root, number++);
    if (mkdir(data_now, 0700) != 0)
        die(data_now);
    data_dir = data_now;
}

static void start_taskq(void)
{
    if (!start_server(&taskq_ops, -1))
        die("no task-master in --bin, or it does not start with --data-dir");
}

/* One of the master's counters. */
static uint64_t stat_of(struct conn *c, const char *name)
{
    struct tq_mp_out o = taskq_begin(c, "stats", 0);
    struct tq_span payload, key;
    struct tq_mp m;
    uint32_t pairs = 0;
    uint64_t v = 0;

    (void)fcntl(c->fd, F_SETFL, 0);
    taskq_end(c, &o);
    blocking_flush(c);
    while (!taskq_frame(c, &payload))
        blocking_read(c);
    m = taskq_result(payload);
    if (!tq_mp_map(&m, &pairs))
        die("stats");
    for (uint32_t i = 0; i < pairs; i++) {
        if (!tq_mp_str(&m, &key))
            die("stats");
        if (tq_span_is(key, name) && tq_mp_u64(&m, &v))
            return v;
        (void)tq_mp_skip(&m);
    }
    return 0;
}

/* ---- one shape, all systems ---- */

struct result {
    double rate[REPS_MAX], cpu_us[REPS_MAX], syncs[REPS_MAX], bytes[REPS_MAX], moved[REPS_MAX];
    unsigned done;
};

static unsigned slower(const struct system_ops *ops)
{
    return ops == &beanstalkd_ops ? 50 : 1; /* it syncs for each command */
}

static struct outcome batched(void)
{
    struct shape shape = {"batched", 2, 2, 2, 1024, 256, 2000000, false};
    shape.total /= slower(running.ops);
    return cycles(&shape);
}

static struct outcome producers(void)
{
    const unsigned count = 64;
    struct conn *list[64];
    struct run r = {.epoll = epoll_create1(0), .total = 300000ull * scale / 100 / slower(running.ops)};
    struct epoll_event events[64];
    struct outcome o = {0};
    struct cpu before = {0}, after = {0};
    uint64_t start, answered = 0;

    for (unsigned i = 0; i < count; i++) {
        list[i] = open_conn(PRODUCER, 1, 1);
        watch(&r, list[i], EPOLL_CTL_ADD);
    }
    if (cpu_read(running.pid, &before) != 0)
        die("no CPU time");
    start = now_ns();
    for (unsigned i = 0; i < count; i++) {
        produce(&r, list[i]);
        flush(&r, list[i]);
    }
    while (answered < r.total) {
        int n = epoll_wait(r.epoll, events, 64, 20000);
        if (n == 0)
            die("nothing moved for 20 s");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            readable(&r, c);
        }
        answered = r.put;
        for (unsigned i = 0; i < count; i++)
            answered -= list[i]->in_flight;
    }
    o.cycles_per_s = (double)r.total * 1e9 / (double)(now_ns() - start);
    if (cpu_read(running.pid, &after) != 0)
        die("no CPU time");
    o.cpu_us = (double)(after.total_ns - before.total_ns) / 1000.0 / (double)r.total;
    for (unsigned i = 0; i < count; i++)
        close_conn(list[i]);
    close(r.epoll);
    return o;
}

static void compare(const char *name, const char *unit, struct outcome (*fn)(void), double operations,
                    const struct system_ops *const *systems, unsigned count)
{
    static struct result results[SYSTEMS_MAX];

    memset(results, 0, sizeof results);
    operations = operations * scale / 100;
    for (unsigned rep = 0; rep < reps; rep++) {
        for (unsigned s = 0; s < count; s++) {
            struct result *r = &results[s];
            struct outcome o;
            new_data();
            if (systems[s] == &memory_ops)
                data_dir = NULL;
            if (!start_server(systems[s], -1)) {
                if (rep == 0)
                    printf("%-10s %-10s is not installed\n", name, systems[s]->name);
                continue;
            }
            o = fn();
            r->rate[r->done] = o.cycles_per_s;
            r->cpu_us[r->done] = o.cpu_us;
            if (systems[s] == &taskq_ops) {
                struct conn *c = open_conn(PRODUCER, 1, 1);
                r->syncs[r->done] = (double)stat_of(c, "log_syncs");
                r->bytes[r->done] = (double)stat_of(c, "log_written_bytes");
                r->moved[r->done] = (double)stat_of(c, "log_moved_bytes");
                close_conn(c);
            }
            r->done++;
            stop_server();
        }
    }
    for (unsigned s = 0; s < count; s++) {
        struct result *r = &results[s];
        if (r->done == 0)
            continue;
        printf("%-10s %-10s %9.0f %s/s  %7.3f us server CPU each", name, systems[s]->name,
               median(r->rate, r->done), unit, median(r->cpu_us, r->done));
        if (r->syncs[0] > 0)
            printf("  %.0f for each sync, %.0f bytes of log each, %.0f of them moved forward",
                   operations / median(r->syncs, r->done), median(r->bytes, r->done) / operations,
                   median(r->moved, r->done) / operations);
        printf("\n");
    }
    fflush(stdout);
}

/* ---- one alone, beside the bare disk ---- */

struct probe {
    int fd;
    off_t at;
};

static void probe_open(struct probe *p, const char *name, bool written)
{
    static const char zeros[1 << 20];
    char path[4300];

    snprintf(path, sizeof path, "%s/%s", data_root, name);
    p->fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    p->at = 0;
    if (p->fd < 0 || posix_fallocate(p->fd, 0, 2 << 20) != 0)
        die("probe");
    for (int i = 0; written && i < 2; i++)
        if (pwrite(p->fd, zeros, sizeof zeros, (off_t)i << 20) != (ssize_t)sizeof zeros)
            die("probe");
    if (fsync(p->fd) != 0)
        die("fsync");
}

/* What a put of 100 bytes takes in a log: behind one another. */
static uint64_t probe_once(struct probe *p)
{
    static const char record[192];
    uint64_t start = now_ns();

    if (pwrite(p->fd, record, sizeof record, p->at) != (ssize_t)sizeof record || fdatasync(p->fd) != 0)
        die("fdatasync");
    p->at += (off_t)sizeof record;
    return now_ns() - start;
}

/* How the disk is just now: on a shared one that says whether the numbers behind it mean anything. */
static void show_disk(void)
{
    struct hist *h = must(calloc(1, sizeof *h));
    struct probe p;

    probe_open(&p, "disk", true);
    for (unsigned i = 0; i < 200; i++)
        hist_add(h, probe_once(&p));
    close(p.fd);
    printf("disk       a bare write + fdatasync takes %.0f us (p50), %.0f us (p99)\n", hist_us(h, 0.5),
           hist_us(h, 0.99));
    fflush(stdout);
    free(h);
}

static uint64_t put_once(struct conn *c)
{
    uint64_t start = now_ns();

    c->ops->put(c, 1);
    blocking_flush(c);
    while (c->in_flight > 0) {
        blocking_read(c);
        c->ops->parse(c);
    }
    return now_ns() - start;
}

static void bench_alone(const struct system_ops *ops)
{
    const unsigned blocks = 20 * scale / 100 + 1, each = 100;
    struct hist *puts = must(calloc(1, sizeof *puts)), *fresh = must(calloc(1, sizeof *fresh)),
                *again = must(calloc(1, sizeof *again));
    struct probe allocated, written;
    struct conn *c;

    new_data();
    if (!start_server(ops, -1))
        return;
    probe_open(&allocated, "allocated", false);
    probe_open(&written, "written", true);
    c = open_conn(PRODUCER, 1, 1);
    (void)fcntl(c->fd, F_SETFL, 0);
    for (unsigned i = 0; i < 50; i++)
        (void)put_once(c);
    for (unsigned b = 0; b < blocks; b++) {
        for (unsigned i = 0; i < each; i++)
            hist_add(fresh, probe_once(&allocated));
        for (unsigned i = 0; i < each; i++)
            hist_add(puts, put_once(c));
        for (unsigned i = 0; i < each; i++)
            hist_add(again, probe_once(&written));
    }
    printf("alone      %-10s put p50 %.0f us, p99 %.0f us; write + fdatasync: into allocated space p50 %.0f "
           "us, p99 "
           "%.0f us (%.2f times, %.2f times), over written space p50 %.0f us (%.2f times)\n",
           ops->name, hist_us(puts, 0.5), hist_us(puts, 0.99), hist_us(fresh, 0.5), hist_us(fresh, 0.99),
           hist_us(puts, 0.5) / hist_us(fresh, 0.5), hist_us(puts, 0.99) / hist_us(fresh, 0.99),
           hist_us(again, 0.5), hist_us(puts, 0.5) / hist_us(again, 0.5));
    fflush(stdout);
    close_conn(c);
    close(allocated.fd);
    close(written.fd);
    stop_server();
    free(puts);
    free(fresh);
    free(again);
}

/* ---- recovery ---- */

static uint64_t start_and_time(char line[256])
{
    uint16_t port = free_port();
    int ends[2];
    uint64_t start, took;
    ssize_t n;

    if (pipe(ends) != 0)
        die("pipe");
    server_stdout = ends[1];
    start = now_ns();
    running = (struct server){.ops = &taskq_ops, .port = port, .pid = fork()};
    if (running.pid < 0)
        die("fork");
    if (running.pid == 0)
        exec_server(&taskq_ops, port, -1);
    close(ends[1]);
    server_stdout = -1;
    n = read(ends[0], line, 255);
    took = now_ns() - start;
    close(ends[0]);
    if (n <= 0)
        die("it did not become ready");
    line[n] = '\0';
    return took;
}

static void bench_recovery(void)
{
    const uint64_t tasks = 10000ull * scale;
    double took[REPS_MAX];
    char line[256];
    struct conn *c;
    uint64_t disk, live;

    new_data();
    start_taskq();
    c = open_conn(PRODUCER, 1000, 1000);
    put_many(c, "task_queue", tasks);
    disk = stat_of(c, "disk_bytes");
    live = stat_of(c, "log_live_bytes");
    close_conn(c);
    for (unsigned rep = 0; rep < reps; rep++) {
        stop_server(); /* kill -9 */
        took[rep] = (double)start_and_time(line) / 1e9;
    }
    c = open_conn(PRODUCER, 1, 1);
    printf("recovery   taskq      %.2f s from exec to the ready line with %llu queued tasks (%.0f MiB live, "
           "%.0f MiB of "
           "files; recovered %llu in %llu ms), %ld MiB of memory\n",
           median(took, reps), (unsigned long long)tasks, (double)live / 1048576, (double)disk / 1048576,
           (unsigned long long)stat_of(c, "recovered_tasks"), (unsigned long long)stat_of(c, "recovered_ms"),
           status_read(running.pid, "VmRSS") / 1024);
    fflush(stdout);
    close_conn(c);
    stop_server();
}

/* ---- reclaiming ---- */

static volatile sig_atomic_t enough;

static void on_enough(int number)
{
    (void)number;
    enough = 1;
}

/* How long it takes until the loop has an answer out: a new connection's challenge, which waits for nothing
 * else; and a ping, which waits for the disk if anything changed in its turn of the loop. */
struct waits {
    struct hist challenge, ping;
};

struct pinger {
    pid_t pid;
    int pipe;
};

static void time_challenge(struct hist *h)
{
    uint8_t byte;
    uint64_t start = now_ns();
    int fd = try_connect(running.port);

    if (fd < 0 || read(fd, &byte, 1) != 1)
        die("no challenge");
    hist_add(h, now_ns() - start);
    close(fd);
}

/* A process that asks some hundred times a second until it is told to stop. */
static struct pinger pinger_start(void)
{
    int ends[2];
    struct pinger p;

    if (pipe(ends) != 0)
        die("pipe");
    p = (struct pinger){.pid = fork(), .pipe = ends[0]};
    if (p.pid < 0)
        die("fork");
    if (p.pid == 0) {
        struct waits *w = must(calloc(1, sizeof *w));
        struct conn *c = open_conn(PRODUCER, 1, 1);
        struct sigaction a = {.sa_handler = on_enough, .sa_flags = SA_RESTART};
        (void)sigaction(SIGUSR1, &a, NULL);
        close(ends[0]);
        while (!enough) {
            uint64_t start = now_ns();
            ping(c);
            hist_add(&w->ping, now_ns() - start);
            time_challenge(&w->challenge);
            usleep(1000);
        }
        (void)!write(ends[1], w, sizeof *w);
        _exit(0);
    }
    close(ends[1]);
    return p;
}

static void pinger_end(struct pinger *p, struct waits *ret)
{
    size_t have = 0;
    ssize_t n;

    kill(p->pid, SIGUSR1);
    while (have < sizeof *ret && (n = read(p->pipe, (char *)ret + have, sizeof *ret - have)) > 0)
        have += (size_t)n;
    if (have < sizeof *ret)
        die("the pinger ended early");
    close(p->pipe);
    (void)waitpid(p->pid, NULL, 0);
}

static void show_waits(const char *name, const char *when, const struct waits *w)
{
    printf("reclaim    %-10s %s: a challenge takes %.0f us (p50), %.0f us (p999), %.1f ms (most); a ping "
           "%.0f us, %.0f us, "
           "%.1f ms (with the disk's time)\n",
           name, when, hist_us(&w->challenge, 0.5), hist_us(&w->challenge, 0.999),
           (double)w->challenge.max_ns / 1e6, hist_us(&w->ping, 0.5), hist_us(&w->ping, 0.999),
           (double)w->ping.max_ns / 1e6);
}

static void request_get(struct conn *c, const char *queue, bool with_done)
{
    struct tq_mp_out o = taskq_begin(c, with_done ? "done" : "get", with_done ? 2 : 3);
    if (with_done) {
        tq_mp_put_cstr(&o, "done");
        tq_mp_put_array(&o, c->held_count);
        for (unsigned i = 0; i < c->held_count; i++) {
            tq_mp_put_array(&o, 2);
            tq_mp_put_u64(&o, c->held[i].id);
            tq_mp_put_u64(&o, c->held[i].epoch);
        }
        tq_mp_put_cstr(&o, "get");
        tq_mp_put_map(&o, 3);
    }
    tq_mp_put_cstr(&o, "q");
    tq_mp_put_cstr(&o, queue);
    tq_mp_put_cstr(&o, "max");
    tq_mp_put_u64(&o, c->window);
    tq_mp_put_cstr(&o, "wait_ms");
    tq_mp_put_i64(&o, -1);
    taskq_end(c, &o);
    c->held_count = 0;
}

/* n tasks through a queue: put, taken, done; a few thousand on their way. The worker goes on asking. */
static void churn(struct conn *producer, struct conn *worker, const char *queue, uint64_t n, bool *ret_asked)
{
    struct run r = {.epoll = epoll_create1(0)};
    struct epoll_event events[2];
    uint64_t put = 0, taken = 0;

    (void)fcntl(producer->fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(worker->fd, F_SETFL, O_NONBLOCK);
    watch(&r, producer, EPOLL_CTL_ADD);
    watch(&r, worker, EPOLL_CTL_ADD);
    if (!*ret_asked)
        request_get(worker, queue, false);
    *ret_asked = true;
    flush(&r, worker);
    while (taken < n || producer->in_flight > 0) {
        int count;
        while (put < n && producer->in_flight + 1000 <= 4000) {
            taskq_put_to(producer, queue, 1000);
            put += 1000;
        }
        flush(&r, producer);
        count = epoll_wait(r.epoll, events, 2, 20000);
        if (count == 0)
            die("nothing moved for 20 s");
        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) != 0) {
                flush(&r, c);
                watch(&r, c, EPOLL_CTL_MOD);
            }
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
                blocking_read(c);
                taskq_parse(c);
            }
            if (c == worker && worker->held_count > 0) {
                taken += worker->held_count;
                request_get(worker, queue, true);
                flush(&r, worker);
            }
        }
    }
    close(r.epoll);
}

/* Nothing is kept of what is done. */
static void declare_churn(struct conn *c)
{
    struct tq_mp_out o = taskq_begin(c, "declare", 2);
    tq_mp_put_cstr(&o, "q");
    tq_mp_put_cstr(&o, "churn");
    tq_mp_put_cstr(&o, "retention_ms");
    tq_mp_put_i64(&o, 0);
    finish_call(c, &o);
}

/* Live tasks in one queue, ten times as many through another one. In memory too, where nothing is reclaimed:
 * what the machine itself does to such a load. */
static void bench_reclaim(bool durable)
{
    const uint64_t live = 10000ull * scale / 1000 * 1000,
                   all = 100000ull * scale / (durable ? 10000 : 40000) * 10000;
    const char *name = durable ? "taskq" : "taskq-mem";
    struct waits *quiet = must(calloc(1, sizeof *quiet)), *busy = must(calloc(1, sizeof *busy));
    uint64_t start, most_disk = 0, live_bytes;
    struct conn *c, *worker;
    struct pinger p;
    bool asked = false;

    new_data();
    if (!durable)
        data_dir = NULL;
    start_taskq();
    c = open_conn(PRODUCER, 1000, 1000);
    worker = open_conn(WORKER, 1000, 1000);
    put_many(c, "result_queue", live);
    declare_churn(c);
    p = pinger_start();
    usleep(1000000);
    pinger_end(&p, quiet);
    p = pinger_start();
    start = now_ns();
    for (unsigned part = 0; part < 10; part++) {
        uint64_t disk;
        churn(c, worker, "churn", all / 10, &asked);
        disk = stat_of(c, "disk_bytes");
        most_disk = disk > most_disk ? disk : most_disk;
    }
    printf("reclaim    %-10s %.0f put/done cycles/s beside %llu live tasks, %llu in all\n", name,
           (double)all * 1e9 / (double)(now_ns() - start), (unsigned long long)live, (unsigned long long)all);
    pinger_end(&p, busy);
    show_waits(name, "beside nothing", quiet);
    show_waits(name, "meanwhile", busy);
    live_bytes = stat_of(c, "log_live_bytes");
    if (durable)
        printf("reclaim    %-10s disk %.0f MiB at most, live %.0f MiB: live x %.2f + 2 segments; %.0f MiB of "
               "live records "
               "moved, %.0f MiB written in all, %llu syncs, longest sync %.1f ms\n",
               name, (double)most_disk / 1048576, (double)live_bytes / 1048576,
               ((double)most_disk - 2 * 16777216.0) / (double)live_bytes,
               (double)stat_of(c, "log_moved_bytes") / 1048576,
               (double)stat_of(c, "log_written_bytes") / 1048576, (unsigned long long)stat_of(c, "log_syncs"),
               (double)stat_of(c, "sync_ns_max") / 1e6);
    fflush(stdout);
    close_conn(worker);
    close_conn(c);
    stop_server();
    free(quiet);
    free(busy);
}

/* ---- system calls ---- */

static void show_file(const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "strace:") == NULL)
            printf("           %s", line);
    if (f)
        fclose(f);
}

static void count_calls(const char *name, struct outcome (*fn)(void), double operations)
{
    static char path[4300];
    static const char *words[] = {
        "strace",
        "-D",
        "-f",
        "-c",
        "-S",
        "calls",
        "-e",
        "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg,read,recvfrom,futex,"
        "epoll_wait,sched_yield,renameat,fallocate",
        "-o",
        path,
        NULL};
    unsigned all = scale;

    new_data();
    snprintf(path, sizeof path, "%s/calls", data_root);
    (void)unlink(path);
    server_before = words;
    scale = scale < 10 ? 1 : scale / 10;
    if (!start_server(&taskq_ops, -1)) {
        printf("calls      strace is not installed, or not allowed\n");
    } else {
        struct stat st;
        (void)fn();
        end_server(SIGTERM);
        for (int i = 0; i < 500 && (stat(path, &st) != 0 || st.st_size == 0); i++)
            usleep(10000); /* strace writes it when task-master has ended */
        printf("calls      taskq      %s, %.0f operations, under strace -f -c:\n", name,
               operations * scale / 100);
        show_file(path);
    }
    scale = all;
    server_before = NULL;
    fflush(stdout);
}

/* ---- the program ---- */

static int usage(void)
{
    fprintf(
        stderr,
        "usage: bench_durable [--bin DIR] [--data DIR] [--systems LIST] [--only LIST] [--reps N] [--scale "
        "PERCENT]\n");
    return 2;
}

int main(int argc, char **argv)
{
    const struct system_ops *const all[] = {&taskq_ops, &memory_ops, &redis_ops, &beanstalkd_ops};
    const struct system_ops *systems[SYSTEMS_MAX];
    const char *only = NULL, *which = "taskq,taskq-mem,redis,beanstalkd", *data = NULL;
    unsigned count = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--bin") == 0)
            bin_dir = argv[i + 1];
        else if (strcmp(argv[i], "--data") == 0)
            data = argv[i + 1];
        else if (strcmp(argv[i], "--systems") == 0)
            which = argv[i + 1];
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--reps") == 0)
            reps = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--scale") == 0)
            scale = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else
            return usage();
    }
    if (argc % 2 == 0 || reps < 1 || reps > REPS_MAX || scale < 1 || scale > 1000)
        return usage();
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    snprintf(data_root, sizeof data_root, "%s/bench-data-XXXXXX", data ? data : bin_dir);
    if (!mkdtemp(data_root)) {
        data_root[0] = '\0';
        die("no folder for the data: give one by --data");
    }
    atexit(clean_up);
    for (unsigned i = 0; i < SYSTEMS_MAX; i++)
        if (named(which, all[i]->name))
            systems[count++] = all[i];
    show_disk();
    if (!only || named(only, "batched"))
        compare("batched", "cycles", batched, 2000000, systems, count);
    if (!only || named(only, "producers"))
        compare("producers", "puts", producers, 300000, systems, count);
    for (unsigned i = 0; i < count && (!only || named(only, "alone")); i++)
        if (systems[i] != &memory_ops)
            bench_alone(systems[i]);
    show_disk();
    if (named(which, "taskq") && (!only || named(only, "recovery")))
        bench_recovery();
    for (int durable = 1; durable >= 0; durable--)
        if (named(which, durable ? "taskq" : "taskq-mem") && (!only || named(only, "reclaim")))
            bench_reclaim(durable);
    if (named(which, "taskq") && (!only || named(only, "calls"))) {
        count_calls("batched cycles", batched, 2000000);
        count_calls("64 producers", producers, 300000);
    }
    return 0;
}
