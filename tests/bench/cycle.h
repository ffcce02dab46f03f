/* What bench_cycle.c and its systems (cycle_taskq.h, cycle_redis.h, cycle_beanstalkd.h) share: one
 * connection with a role, and the five things that a system must be able to do on it. */
#ifndef TESTS_BENCH_CYCLE_H
#define TESTS_BENCH_CYCLE_H

#include "tests/bench/measure.h"

#define BODY_BYTES 100

enum role { PRODUCER, WORKER, COLLECTOR };

struct held {
    uint64_t id;
    uint64_t epoch;
};

struct conn {
    int fd;
    enum role role;
    unsigned window; /* puts in flight, or tasks asked for */
    unsigned chunk;  /* puts in one request; divides the window */
    const struct system_ops *ops;
    uint8_t *in; /* [in_at, in_len) is not parsed yet */
    size_t in_at, in_len, in_cap;
    uint8_t *out; /* [out_at, out_len) is not written yet */
    size_t out_at, out_len, out_cap;
    unsigned in_flight; /* puts without an answer */
    struct held *held;  /* tasks or results in hand */
    unsigned held_count;
    unsigned waits; /* beanstalkd: requests for tasks without an answer */
    bool more;      /* beanstalkd: there were tasks last time */
    void *state;    /* the system's own */
    uint64_t msgid;
};

struct system_ops {
    const char *name;
    const char *program; /* to be found in the PATH, or beside us */
    /* Blocking: handshake and whatever makes the connection one of its role. */
    void (*open)(struct conn *c);
    void (*put)(struct conn *c, unsigned n);
    /* The first request for up to c->window tasks or results. */
    void (*ask)(struct conn *c);
    /* Worker: results for all that it holds; collector: acknowledges them. And asks again. Empties held. */
    void (*next)(struct conn *c);
    /* Takes what is complete out of the input: puts that were answered are taken off in_flight, tasks are
     * added to held. */
    void (*parse)(struct conn *c);
};

static inline void die(const char *what)
{
    fprintf(stderr, "bench: %s%s%s\n", what, errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    exit(1);
}

static inline void *must(void *p)
{
    if (!p)
        die("out of memory");
    return p;
}

static inline uint8_t *out_room(struct conn *c, size_t n)
{
    if (c->out_at == c->out_len)
        c->out_at = c->out_len = 0;
    if (c->out_cap - c->out_len < n) {
        c->out_cap = (c->out_cap + n) * 2;
        c->out = must(realloc(c->out, c->out_cap));
    }
    return c->out + c->out_len;
}

static inline void out_add(struct conn *c, const void *p, size_t n)
{
    memcpy(out_room(c, n), p, n);
    c->out_len += n;
}

static inline void hold(struct conn *c, uint64_t id, uint64_t epoch)
{
    if (c->held_count >= c->window)
        die("more tasks than asked for");
    c->held[c->held_count++] = (struct held){id, epoch};
}

/* For `open`: writes all, reads some. */
static inline void blocking_flush(struct conn *c)
{
    while (c->out_at < c->out_len) {
        ssize_t n = write(c->fd, c->out + c->out_at, c->out_len - c->out_at);
        if (n <= 0)
            die("write");
        c->out_at += (size_t)n;
    }
}

static inline void blocking_read(struct conn *c)
{
    ssize_t n;
    if (c->in_at > 0) {
        memmove(c->in, c->in + c->in_at, c->in_len - c->in_at);
        c->in_len -= c->in_at;
        c->in_at = 0;
    }
    if (c->in_cap - c->in_len < 65536) {
        c->in_cap = c->in_cap * 2 + 131072;
        c->in = must(realloc(c->in, c->in_cap));
    }
    errno = 0;
    n = read(c->fd, c->in + c->in_len, c->in_cap - c->in_len);
    if (n <= 0)
        die("the server closed a connection");
    c->in_len += (size_t)n;
}

#endif
