/* A load generator that speaks Python's manager dialect: many sessions in one process on plain epoll, with
 * requests written once, so that it costs the machine little beside the server it measures. It works against
 * task-master and against a stock Python BaseManager server alike; ratios come from the same client.
 *
 *   cycle    N sessions; each puts a task, gets one, puts a result, gets one, and again
 *   connect  handshake, dummy request, close: per second, or with --burst all N at the same instant
 *   parked   N sessions blocked in get: the server's memory for each, then one item handed to each
 *
 * Loopback only, bounded in count and time. See README.md beside this file. */

#include "common/assert.h"
#include "tests/bench/pyload_options.h"

#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define REPLY_MAX 2048 /* reply bytes around a body */

enum conn_state { CONN_NONE, CONN_HANDSHAKE, CONN_ACCEPT, CONN_IDLE, CONN_BUSY, CONN_LEAVING, CONN_DONE };

struct conn {
    int fd;
    uint8_t state; /* enum conn_state */
    uint8_t op;    /* step of the cycle whose reply is awaited */
    bool producer;
    struct py_handshake handshake;
    uint32_t have; /* bytes in `in` */
    uint8_t *in;
    uint64_t begun_ns; /* the connection, or the running cycle */
    uint64_t sent_ns;  /* the running operation */
};

enum loss { LOSS_NONE, LOSS_REFUSED, LOSS_RESET, LOSS_CLOSED, LOSS_PROTOCOL, LOSS_TIMEOUT, LOSS_KINDS };

static const char *const loss_names[LOSS_KINDS] = {NULL, "refused", "reset", "closed", "protocol", "timeout"};

struct load {
    struct options opt;
    int epoll;
    struct conn *conns;
    uint32_t conn_count;
    uint32_t opened;     /* sockets opened so far */
    uint32_t connecting; /* not yet ready */
    uint32_t ready;      /* sessions accepted */
    uint32_t left;       /* conns that ended */
    uint64_t deadline_ns;
    bool stop;
    uint8_t *scratch;
    size_t in_cap;
    struct py_request requests[4]; /* the steps of a cycle */
    struct py_request dummy;
    struct py_request accept;
    char ident[2][PY_IDENT_MAX + 1]; /* of the task and the result queue */
    /* what is measured */
    struct hist op_hist;
    struct hist whole_hist; /* cycles, connections, or hand-outs */
    uint64_t done;
    uint64_t put_count;
    uint64_t put_sum; /* of the numbers put, and of those taken: nothing may be lost or doubled */
    uint64_t took_count;
    uint64_t took_sum;
    uint64_t lost[LOSS_KINDS];
    uint64_t *put_ns; /* parked: when item i was put */
    uint64_t end_ns;
};

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("bench_pyload: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static void *need(size_t n)
{
    void *p = calloc(1, n);
    if (!p)
        die("out of memory");
    return p;
}

/* ---- connections ---- */

static void conn_end(struct load *l, struct conn *c, enum loss loss)
{
    if (c->state == CONN_HANDSHAKE || c->state == CONN_ACCEPT)
        l->connecting--;
    close(c->fd);
    c->fd = -1;
    c->state = CONN_DONE;
    l->left++;
    l->lost[loss]++;
    if (loss != LOSS_NONE && l->opt.mode != MODE_CONNECT)
        die("a session was lost (%s) after %llu operations", loss_names[loss], (unsigned long long)l->done);
}

static void conn_send(struct load *l, struct conn *c, const uint8_t *p, size_t n)
{
    ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
    if (sent == (ssize_t)n)
        return;
    /* Each request waits for its reply, so an empty socket buffer is too small, or the peer is gone. */
    conn_end(l, c, sent < 0 && (errno == EPIPE || errno == ECONNRESET) ? LOSS_RESET : LOSS_PROTOCOL);
}

static int socket_open(const struct options *opt, bool blocking)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        die("socket: %s (open files: %u sessions need as many)", strerror(errno), opt->sessions);
    if (!opt->nagle)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Starts a connection. The server speaks first, so readable means connected. */
static void conn_open(struct load *l, struct conn *c)
{
    c->fd = socket_open(&l->opt, false);
    c->state = CONN_HANDSHAKE;
    c->have = 0;
    c->handshake.state = PY_WAIT_CHALLENGE;
    c->begun_ns = now_ns();
    l->opened++;
    l->connecting++;
    if (connect(c->fd, (const struct sockaddr *)&l->opt.address, sizeof l->opt.address) != 0 &&
        errno != EINPROGRESS) {
        conn_end(l, c, LOSS_REFUSED);
        return;
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void cycle_reply(struct load *l, struct conn *c, struct tq_span value);
static void parked_reply(struct load *l, struct conn *c, struct tq_span value);

/* The session or control connection is authenticated: its first request. */
static void conn_authenticated(struct load *l, struct conn *c)
{
    const struct py_request *r = l->opt.mode == MODE_CONNECT ? &l->dummy : &l->accept;
    c->state = CONN_ACCEPT;
    conn_send(l, c, r->data, r->len);
}

static void conn_frame(struct load *l, struct conn *c, struct tq_span frame)
{
    if (c->state == CONN_HANDSHAKE) {
        uint8_t out[PY_FRAME_MAX + 4];
        size_t n = 0;
        if (py_handshake_feed(&l->opt.client, &c->handshake, frame, out, &n) < 0) {
            conn_end(l, c, LOSS_PROTOCOL);
            return;
        }
        conn_send(l, c, out, n);
        if (c->handshake.state == PY_AUTHENTICATED && c->state == CONN_HANDSHAKE)
            conn_authenticated(l, c);
        return;
    }
    struct tq_span value = py_returned(frame);
    if (!value.data) {
        conn_end(l, c, LOSS_PROTOCOL);
        return;
    }
    if (c->state == CONN_ACCEPT) {
        l->connecting--;
        c->state = CONN_IDLE;
        l->ready++;
        if (l->opt.mode == MODE_CONNECT) {
            /* The server closes first, so no port of ours is left waiting. */
            c->state = CONN_LEAVING;
            l->end_ns = now_ns();
            hist_add(&l->whole_hist, l->end_ns - c->begun_ns);
            l->done++;
        }
        return;
    }
    if (c->state != CONN_BUSY)
        conn_end(l, c, LOSS_PROTOCOL);
    else if (l->opt.mode == MODE_CYCLE)
        cycle_reply(l, c, value);
    else
        parked_reply(l, c, value);
}

static void conn_readable(struct load *l, struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->have, l->in_cap - c->have, 0);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        enum loss loss = errno == ECONNREFUSED ? LOSS_REFUSED : LOSS_RESET;
        conn_end(l, c, c->state == CONN_LEAVING ? LOSS_NONE : loss);
        return;
    }
    if (n == 0) {
        conn_end(l, c, c->state == CONN_LEAVING ? LOSS_NONE : LOSS_CLOSED);
        return;
    }
    c->have += (uint32_t)n;
    uint32_t at = 0;
    while (c->state != CONN_DONE && c->have - at >= 4) {
        uint32_t len = tq_load_be32(c->in + at);
        if (len > l->in_cap - 4) {
            conn_end(l, c, LOSS_PROTOCOL);
            return;
        }
        if (c->have - at - 4 < len)
            break;
        conn_frame(l, c, tq_span(c->in + at + 4, len));
        at += 4 + len;
    }
    if (at > 0 && at < c->have)
        memmove(c->in, c->in + at, c->have - at);
    c->have -= at;
}

/* One turn of the loop, at most `wait_ms` long. */
static void load_turn(struct load *l, int wait_ms)
{
    struct epoll_event events[256];
    int n = epoll_wait(l->epoll, events, 256, wait_ms);
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->fd >= 0)
            conn_readable(l, c);
    }
}

static void load_check_time(const struct load *l, const char *what)
{
    if (now_ns() >= l->deadline_ns)
        die("%s: not done within --timeout %.0f s (%u of %u sessions ready)", what, l->opt.timeout_seconds,
            l->ready, l->conn_count);
}

/* Opens all sessions, at most `window` of them in the handshake at once, and waits until all are ready. */
static void load_open_sessions(struct load *l)
{
    uint32_t next = 0;
    while (l->ready < l->conn_count) {
        while (next < l->conn_count && l->connecting < l->opt.window)
            conn_open(l, &l->conns[next++]);
        load_turn(l, 100);
        load_check_time(l, "opening the sessions");
    }
}

/* ---- control requests, one at a time ---- */

static void control_read(int fd, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = recv(fd, p, n, 0);
        if (got < 0)
            die("control connection: %s", strerror(errno));
        if (got == 0)
            die("control connection: the server closed it (is the key right?)");
        p += got;
        n -= (size_t)got;
    }
}

static size_t control_frame(struct load *l, int fd)
{
    uint8_t head[4];
    control_read(fd, head, sizeof head);
    uint32_t n = tq_load_be32(head);
    if (n > l->in_cap)
        die("control connection: a reply of %u bytes", n);
    control_read(fd, l->scratch, n);
    return n;
}

static void control_write(int fd, const uint8_t *p, size_t n)
{
    if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("control connection: %s", strerror(errno));
}

/* (None, function, (arg,), {}) on a connection of its own, as Python does it. The reply's value lies in
 * the scratch buffer. */
static struct tq_span control_call(struct load *l, const char *function, const char *arg)
{
    struct timeval limit = {.tv_sec = 10};
    struct py_handshake h = {.state = PY_WAIT_CHALLENGE};
    uint8_t out[PY_FRAME_MAX + 4];
    uint8_t data[2 * PY_IDENT_MAX + 64];
    struct py_request r = {.data = data, .cap = sizeof data};
    size_t n = 0;
    int fd = socket_open(&l->opt, true);

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)&l->opt.address, sizeof l->opt.address) != 0)
        die("connect: %s", strerror(errno));
    while (h.state != PY_AUTHENTICATED) {
        size_t len = control_frame(l, fd);
        if (py_handshake_feed(&l->opt.client, &h, tq_span(l->scratch, len), out, &n) < 0)
            die("the handshake failed: wrong key, or not a manager");
        control_write(fd, out, n);
    }
    py_request(&r, NULL, function, arg, 0);
    control_write(fd, r.data, r.len);
    struct tq_span value = py_returned(tq_span(l->scratch, control_frame(l, fd)));
    close(fd);
    if (!value.data)
        die("%s(%s) was refused", function, arg ? arg : "");
    return value;
}

/* What `manager.connect(); manager.get_task_queue(); manager.get_result_queue()` sends. */
static void load_get_queues(struct load *l)
{
    const char *const typeids[2] = {l->opt.task_typeid, l->opt.result_typeid};
    control_call(l, "dummy", NULL);
    for (int i = 0; i < 2; i++) {
        if (py_first_string(control_call(l, "create", typeids[i]), l->ident[i]) < 0)
            die("create(%s): the reply holds no ident", typeids[i]);
        control_call(l, "incref", l->ident[i]);
        control_call(l, "decref", l->ident[i]);
    }
}

static void request_init(struct py_request *r, const char *ident, const char *function, const char *arg,
                         size_t body_bytes)
{
    r->cap = body_bytes + 2 * PY_IDENT_MAX + 64;
    r->data = need(r->cap);
    py_request(r, ident, function, arg, body_bytes);
}

/* ---- items ---- */

/* Where a taken item's body begins: x stands in its end and in none of the opcodes behind it. */
static const uint8_t *find_body(struct tq_span value, size_t body_bytes)
{
    for (size_t n = value.len; n >= body_bytes; n--)
        if (value.data[n - 1] == 'x')
            return value.data + n - body_bytes;
    return NULL;
}

static void number_write(uint8_t *p, uint64_t v)
{
    for (int i = BODY_NUMBER_BYTES - 1; i >= 0; i--, v >>= 4)
        p[i] = (uint8_t) "0123456789abcdef"[v & 15];
}

static bool number_read(const uint8_t *p, uint64_t *ret_v)
{
    uint64_t v = 0;
    for (int i = 0; i < BODY_NUMBER_BYTES; i++) {
        uint8_t c = p[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *ret_v = v;
    return true;
}

static void send_put(struct load *l, struct conn *c, struct py_request *r, uint64_t number)
{
    number_write(r->data + r->mark, number);
    l->put_count++;
    l->put_sum += number * number;
    c->state = CONN_BUSY;
    conn_send(l, c, r->data, r->len);
}

static uint64_t take_item(struct load *l, struct tq_span value)
{
    uint64_t number = 0;
    const uint8_t *p = find_body(value, l->opt.body_bytes);
    if (!p || !number_read(p, &number))
        die("a reply to get holds no item of ours (other clients at work, or items left in the queue?)");
    l->took_count++;
    l->took_sum += number * number;
    return number;
}

static void check_items(const struct load *l)
{
    if (l->put_count != l->took_count || l->put_sum != l->took_sum)
        die("%llu items were put, %llu taken, %s", (unsigned long long)l->put_count,
            (unsigned long long)l->took_count, l->put_sum == l->took_sum ? "the same" : "not the same ones");
}

/* ---- the server, from outside ---- */

static void server_cpu(const struct load *l, struct cpu *ret_cpu)
{
    memset(ret_cpu, 0, sizeof *ret_cpu);
    if (l->opt.server_pid && cpu_read(l->opt.server_pid, ret_cpu) < 0)
        die("cannot read the CPU time of process %ld", (long)l->opt.server_pid);
}

/* CPU microseconds per one of `count` things: of the server, and of this program. */
static void report_cpu(struct load *l, const char *name, const struct cpu *from, const struct cpu *to,
                       uint64_t own_ns, double count)
{
    char full[64];
    struct report *r = &l->opt.report;
    if (count <= 0)
        count = 1;
    if (l->opt.server_pid) {
        double ticks = (double)(to->user_ns - from->user_ns + to->system_ns - from->system_ns);
        snprintf(full, sizeof full, "server_cpu_us_per_%s", name);
        report_number(r, full, (double)(to->total_ns - from->total_ns) / 1000.0 / count, "us");
        double user = ticks > 0 ? (double)(to->user_ns - from->user_ns) / ticks : 0;
        report_number(r, "server_user_percent", 100.0 * user, "%");
    }
    snprintf(full, sizeof full, "client_cpu_us_per_%s", name);
    report_number(r, full, (double)own_ns / 1000.0 / count, "us");
}

/* Waits until the server has come to rest: all that was sent to it is done. */
static void server_settle(struct load *l)
{
    struct cpu before;
    struct cpu after;
    server_cpu(l, &after);
    do {
        before = after;
        load_turn(l, 100);
        usleep(100000);
        server_cpu(l, &after);
        load_check_time(l, "waiting for the server to come to rest");
    } while (after.total_ns - before.total_ns > 1000000);
}

/* ---- mode cycle ---- */

static void cycle_step(struct load *l, struct conn *c, unsigned op, uint64_t now)
{
    c->op = (uint8_t)op;
    c->sent_ns = now;
    if (op == 0 || op == 2) {
        send_put(l, c, &l->requests[op], l->put_count);
        return;
    }
    c->state = CONN_BUSY;
    conn_send(l, c, l->requests[op].data, l->requests[op].len);
}

static void cycle_reply(struct load *l, struct conn *c, struct tq_span value)
{
    uint64_t now = now_ns();
    hist_add(&l->op_hist, now - c->sent_ns);
    if (c->op == 1 || c->op == 3)
        take_item(l, value);
    if (c->op < 3) {
        cycle_step(l, c, c->op + 1u, now);
        return;
    }
    hist_add(&l->whole_hist, now - c->begun_ns);
    l->done++;
    if (l->opt.count > 0 && l->done + l->conn_count > l->opt.count)
        l->stop = true;
    if (l->stop) {
        conn_end(l, c, LOSS_NONE);
        return;
    }
    c->begun_ns = now;
    cycle_step(l, c, 0, now);
}

static void run_cycle(struct load *l)
{
    struct cpu from;
    struct cpu to;
    struct report *r = &l->opt.report;
    load_get_queues(l);
    for (unsigned op = 0; op < 4; op++)
        request_init(&l->requests[op], l->ident[op / 2], op % 2 ? "get" : "put", NULL,
                     op % 2 ? 0 : l->opt.body_bytes);
    load_open_sessions(l);
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < l->conn_count; i++) {
        l->conns[i].begun_ns = now;
        cycle_step(l, &l->conns[i], 0, now);
    }
    uint64_t warm_ns = now + (uint64_t)(l->opt.warmup_seconds * 1e9);
    while (l->opt.count == 0 && now_ns() < warm_ns)
        load_turn(l, 10);
    memset(&l->op_hist, 0, sizeof l->op_hist);
    memset(&l->whole_hist, 0, sizeof l->whole_hist);
    l->done = 0;

    server_cpu(l, &from);
    uint64_t own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t begun_ns = now_ns();
    uint64_t stop_ns = begun_ns + (uint64_t)(l->opt.seconds * 1e9);
    while (l->left < l->conn_count) {
        load_turn(l, 10);
        if (now_ns() >= stop_ns)
            l->stop = true;
        load_check_time(l, "the cycles");
    }
    double wall = (double)(now_ns() - begun_ns) / 1e9;
    own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
    server_cpu(l, &to);
    check_items(l);
    report_number(r, "sessions", l->conn_count, "");
    report_number(r, "cycles", (double)l->done, "");
    report_number(r, "seconds", wall, "s");
    report_number(r, "cycles_per_s", (double)l->done / wall, "1/s");
    report_number(r, "operations_per_s", (double)l->op_hist.count / wall, "1/s");
    report_cpu(l, "cycle", &from, &to, own_ns, (double)l->op_hist.count / 4);
    if (l->opt.server_pid)
        report_number(r, "server_cpu_us_per_operation",
                      (double)(to.total_ns - from.total_ns) / 1000.0 / (double)l->op_hist.count, "us");
    report_latency(r, "operation", &l->op_hist);
    report_latency(r, "cycle", &l->whole_hist);
}

/* ---- mode connect ---- */

static void run_connect(struct load *l)
{
    struct cpu from;
    struct cpu to;
    struct report *r = &l->opt.report;
    control_call(l, "dummy", NULL); /* is it there at all, and is the key right? */
    server_cpu(l, &from);
    uint64_t own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t begun_ns = now_ns();
    uint64_t stop_ns = begun_ns + (uint64_t)(l->opt.seconds * 1e9);
    uint64_t count = l->opt.burst ? l->conn_count : l->opt.count;
    for (uint32_t i = 0; i < l->conn_count; i++)
        conn_open(l, &l->conns[i]);
    double open_s = (double)(now_ns() - begun_ns) / 1e9;
    l->end_ns = begun_ns;
    while (l->left < l->conn_count && now_ns() < l->deadline_ns) {
        load_turn(l, 10);
        l->stop = l->opt.burst || now_ns() >= stop_ns;
        for (uint32_t i = 0; i < l->conn_count && !l->stop; i++)
            if (l->conns[i].state == CONN_DONE && (count == 0 || l->opened < count)) {
                l->left--;
                conn_open(l, &l->conns[i]);
            }
    }
    server_cpu(l, &to);
    own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
    for (uint32_t i = 0; i < l->conn_count; i++)
        if (l->conns[i].state == CONN_HANDSHAKE || l->conns[i].state == CONN_ACCEPT)
            conn_end(l, &l->conns[i], LOSS_TIMEOUT);
    double wall = (double)(l->end_ns - begun_ns) / 1e9;
    report_number(r, "connections", (double)l->opened, "");
    report_number(r, "completed", (double)l->done, "");
    report_number(r, "lost", (double)(l->opened - l->done), "");
    for (unsigned kind = 1; kind < LOSS_KINDS; kind++) {
        char name[32];
        snprintf(name, sizeof name, "lost_%s", loss_names[kind]);
        if (l->lost[kind] > 0)
            report_number(r, name, (double)l->lost[kind], "");
    }
    if (l->opt.burst)
        report_number(r, "opening_seconds", open_s, "s");
    report_number(r, "seconds", wall, "s");
    report_number(r, "connections_per_s", wall > 0 ? (double)l->done / wall : 0, "1/s");
    report_cpu(l, "connection", &from, &to, own_ns, (double)l->done);
    report_latency(r, "connection", &l->whole_hist);
}

/* ---- mode parked ---- */

static void parked_put(struct load *l, struct conn *c)
{
    if (l->put_count >= l->conn_count - l->opt.producers) {
        c->state = CONN_IDLE;
        return;
    }
    c->sent_ns = now_ns();
    l->put_ns[l->put_count] = c->sent_ns;
    send_put(l, c, &l->requests[0], l->put_count);
}

static void parked_reply(struct load *l, struct conn *c, struct tq_span value)
{
    uint64_t now = now_ns();
    if (c->producer) {
        hist_add(&l->op_hist, now - c->sent_ns);
        parked_put(l, c);
        return;
    }
    uint64_t number = take_item(l, value);
    if (number >= l->conn_count)
        die("an item of another run is in the queue");
    hist_add(&l->whole_hist, now - l->put_ns[number]);
    c->state = CONN_IDLE;
    l->end_ns = now;
    l->done++;
}

static void report_memory(struct load *l, long before_kib, long after_kib, uint32_t parked)
{
    struct report *r = &l->opt.report;
    report_number(r, "sessions", parked, "");
    if (!l->opt.server_pid)
        return;
    report_number(r, "server_rss_before_kib", (double)before_kib, "KiB");
    report_number(r, "server_rss_parked_kib", (double)after_kib, "KiB");
    report_number(r, "bytes_per_session", (double)(after_kib - before_kib) * 1024.0 / parked, "bytes");
    report_number(r, "server_threads", (double)status_read(l->opt.server_pid, "Threads"), "");
}

static void run_parked(struct load *l)
{
    struct cpu from;
    struct cpu to;
    struct report *r = &l->opt.report;
    uint32_t parked = l->conn_count - l->opt.producers;
    long before_kib = -1;
    long after_kib = -1;
    load_get_queues(l);
    request_init(&l->requests[0], l->ident[0], "put", NULL, l->opt.body_bytes);
    request_init(&l->requests[1], l->ident[0], "get", NULL, 0);
    l->put_ns = need((size_t)l->conn_count * sizeof *l->put_ns);
    if (l->opt.server_pid)
        before_kib = status_read(l->opt.server_pid, "VmRSS");
    load_open_sessions(l);
    for (uint32_t i = 0; i < l->conn_count; i++) {
        struct conn *c = &l->conns[i];
        c->producer = i >= parked;
        if (c->producer)
            continue;
        c->state = CONN_BUSY;
        conn_send(l, c, l->requests[1].data, l->requests[1].len);
    }
    server_settle(l);
    if (l->opt.server_pid)
        after_kib = status_read(l->opt.server_pid, "VmRSS");

    server_cpu(l, &from);
    uint64_t own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t begun_ns = now_ns();
    for (uint32_t i = parked; i < l->conn_count; i++)
        parked_put(l, &l->conns[i]);
    while (l->done < parked) {
        load_turn(l, 100);
        load_check_time(l, "handing out");
    }
    server_cpu(l, &to);
    own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
    check_items(l);
    report_memory(l, before_kib, after_kib, parked);
    report_number(r, "handout_seconds", (double)(l->end_ns - begun_ns) / 1e9, "s");
    report_cpu(l, "handout", &from, &to, own_ns, parked);
    report_latency(r, "handout", &l->whole_hist);
}

int main(int argc, char **argv)
{
    static struct load l = {
        .opt = {.client = {.modern = true},
                .window = 64,
                .producers = 1,
                .seconds = 3,
                .warmup_seconds = 0.5,
                .timeout_seconds = 60,
                .body_bytes = 100,
                .task_typeid = "get_task_queue",
                .result_typeid = "get_result_queue"},
    };
    struct rlimit files;
    parse_options(&l.opt, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l.epoll < 0)
        die("epoll_create1: %s", strerror(errno));
    l.in_cap = l.opt.mode == MODE_CONNECT ? REPLY_MAX : REPLY_MAX + l.opt.body_bytes;
    l.scratch = need(l.in_cap);
    l.conn_count = l.opt.sessions;
    l.conns = need(l.conn_count * sizeof *l.conns);
    uint8_t *in = need(l.conn_count * l.in_cap);
    for (uint32_t i = 0; i < l.conn_count; i++) {
        l.conns[i].fd = -1;
        l.conns[i].in = in + i * l.in_cap;
    }
    request_init(&l.dummy, NULL, "dummy", NULL, 0);
    /* A thread's session: what it holds is acknowledged when it closes. */
    request_init(&l.accept, NULL, "accept_connection", "MainProcess|Thread-1 (load)", 0);
    l.deadline_ns = now_ns() + (uint64_t)(l.opt.timeout_seconds * 1e9);
    if (l.opt.mode == MODE_CYCLE)
        run_cycle(&l);
    else if (l.opt.mode == MODE_CONNECT)
        run_connect(&l);
    else
        run_parked(&l);
    report_end(&l.opt.report);
    return 0;
}
