/* beanstalkd: put, reserve, put of the result, delete; pipelined as far as a reserve allows. */
#ifndef TESTS_BENCH_CYCLE_BEANSTALKD_H
#define TESTS_BENCH_CYCLE_BEANSTALKD_H

#include "tests/bench/cycle.h"

static void beanstalkd_open(struct conn *c)
{
    static const char *const hello[] = {"use t\r\n", "watch t\r\nignore default\r\nuse r\r\n",
                                        "watch r\r\nignore default\r\n"};
    static const unsigned answers[] = {1, 3, 2};
    unsigned lines = 0;
    out_add(c, hello[c->role], strlen(hello[c->role]));
    blocking_flush(c);
    while (lines < answers[c->role]) {
        blocking_read(c);
        lines = 0;
        for (size_t i = 0; i < c->in_len; i++)
            lines += c->in[i] == '\n';
    }
    c->in_at = c->in_len = 0;
}

static void beanstalkd_put(struct conn *c, unsigned n)
{
    static const char head[] = "put 0 0 600 100\r\n";
    for (unsigned i = 0; i < n; i++) {
        out_add(c, head, sizeof head - 1);
        memset(out_room(c, BODY_BYTES), 'x', BODY_BYTES);
        c->out_len += BODY_BYTES;
        out_add(c, "\r\n", 2);
    }
    if (c->role == PRODUCER)
        c->in_flight += n;
}

/* A reserve that waits holds up whatever is sent behind it, so there is one of those, alone; while there are
 * tasks, as many as the window that do not wait. */
static void beanstalkd_ask(struct conn *c)
{
    static const char now[] = "reserve-with-timeout 0\r\n";
    if (!c->more || c->window == 1) {
        out_add(c, "reserve\r\n", 9);
        c->waits = 1;
        return;
    }
    for (c->waits = 0; c->waits < c->window; c->waits++)
        out_add(c, now, sizeof now - 1);
}

static void beanstalkd_next(struct conn *c)
{
    char text[48];
    if (c->role == WORKER)
        beanstalkd_put(c, c->held_count);
    for (unsigned i = 0; i < c->held_count; i++)
        out_add(c, text,
                (size_t)snprintf(text, sizeof text, "delete %llu\r\n", (unsigned long long)c->held[i].id));
    c->more = c->held_count > 0;
    c->held_count = 0;
    beanstalkd_ask(c);
}

static void beanstalkd_parse(struct conn *c)
{
    while (c->in_at < c->in_len) {
        const uint8_t *p = c->in + c->in_at;
        const uint8_t *nl = memchr(p, '\n', c->in_len - c->in_at);
        size_t line;
        if (!nl)
            return;
        line = (size_t)(nl - p) + 1;
        if (p[0] == 'R') { /* RESERVED <id> <bytes> */
            if (c->in_len - c->in_at < line + BODY_BYTES + 2)
                return;
            hold(c, strtoull((const char *)p + 9, NULL, 10), 0);
            c->waits--;
            line += BODY_BYTES + 2;
        } else if (p[0] == 'T') { /* TIMED_OUT */
            c->waits--;
        } else if (p[0] == 'I') {
            if (c->role == PRODUCER)
                c->in_flight--;
        } else if (p[0] != 'D') {
            die("beanstalkd: an unexpected answer");
        }
        c->in_at += line;
    }
}

static const struct system_ops beanstalkd_ops = {"beanstalkd",    "beanstalkd",   beanstalkd_open,
                                                 beanstalkd_put,  beanstalkd_ask, beanstalkd_next,
                                                 beanstalkd_parse};

#endif
