/* Redis lists: RPUSH, BLMPOP (BLPOP when one at a time), RPUSH of the results. No lease, no acknowledgement.
 */
#ifndef TESTS_BENCH_CYCLE_REDIS_H
#define TESTS_BENCH_CYCLE_REDIS_H

#include "tests/bench/cycle.h"

static const struct system_ops redis_many_ops;

static void redis_open(struct conn *c)
{
    (void)c;
}

static void redis_push_many(struct conn *c, const char *list, unsigned n)
{
    char text[64];
    static const char body[] = "\r\n$100\r\n";
    out_add(c, text, (size_t)snprintf(text, sizeof text, "*%u\r\n$5\r\nRPUSH\r\n$1\r\n%s", n + 2, list));
    for (unsigned i = 0; i < n; i++) {
        out_add(c, body, sizeof body - 1);
        memset(out_room(c, BODY_BYTES), 'x', BODY_BYTES);
        c->out_len += BODY_BYTES;
    }
    out_add(c, "\r\n", 2);
}

static void redis_push(struct conn *c, const char *list, unsigned n);

static void redis_put(struct conn *c, unsigned n)
{
    redis_push(c, "t", n);
    c->in_flight += n;
}

static void redis_ask(struct conn *c)
{
    const char *list = c->role == WORKER ? "t" : "r";
    char text[128];
    int n;
    if (c->window == 1)
        n = snprintf(text, sizeof text, "*3\r\n$5\r\nBLPOP\r\n$1\r\n%s\r\n$1\r\n0\r\n", list);
    else
        n = snprintf(text, sizeof text,
                     "*7\r\n$6\r\nBLMPOP\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n%s\r\n$4\r\nLEFT\r\n$5\r\nCOUNT\r\n$%"
                     "d\r\n%u\r\n",
                     list,
                     c->window < 10     ? 1
                     : c->window < 100  ? 2
                     : c->window < 1000 ? 3
                                        : 4,
                     c->window);
    out_add(c, text, (size_t)n);
}

static void redis_next(struct conn *c)
{
    if (c->role == WORKER)
        redis_push(c, "r", c->held_count);
    c->held_count = 0;
    redis_ask(c);
}

/* A line "Xnumber\r\n" at *at: its number, and *at behind it; -1: not whole yet. */
static long redis_number(const struct conn *c, size_t *at, char kind)
{
    const uint8_t *p = c->in + *at;
    const uint8_t *nl = c->in_len > *at ? memchr(p, '\n', c->in_len - *at) : NULL;
    if (!nl)
        return -1;
    if (p[0] != (uint8_t)kind)
        die("redis: an answer of another kind");
    *at = (size_t)(nl - c->in) + 1;
    return strtol((const char *)p + 1, NULL, 10);
}

/* A bulk string; false: not whole yet. */
static bool redis_bulk(const struct conn *c, size_t *at)
{
    long n = redis_number(c, at, '$');
    if (n < 0 || c->in_len - *at < (size_t)n + 2)
        return false;
    *at += (size_t)n + 2;
    return true;
}

static bool redis_pop(struct conn *c)
{
    size_t at = c->in_at;
    long n = redis_number(c, &at, '*');
    if (n != 2 || !redis_bulk(c, &at))
        return false;
    if (c->window == 1) {
        if (!redis_bulk(c, &at))
            return false;
        n = 1;
    } else {
        n = redis_number(c, &at, '*');
        for (long i = 0; i < n; i++)
            if (!redis_bulk(c, &at))
                return false;
        if (n < 0)
            return false;
    }
    for (long i = 0; i < n; i++)
        hold(c, 0, 0);
    c->in_at = at;
    return true;
}

static void redis_parse(struct conn *c)
{
    while (c->in_at < c->in_len) {
        size_t at = c->in_at;
        if (c->in[at] == '*') {
            if (!redis_pop(c))
                return;
        } else {
            if (redis_number(c, &at, ':') < 0)
                return;
            c->in_at = at;
            if (c->role == PRODUCER)
                c->in_flight -= c->ops == &redis_many_ops ? c->chunk : 1;
        }
    }
}

static const struct system_ops redis_ops = {"redis",   "redis-server", redis_open, redis_put,
                                            redis_ask, redis_next,     redis_parse};
static const struct system_ops redis_many_ops = {"redis-many", "redis-server", redis_open, redis_put,
                                                 redis_ask,    redis_next,     redis_parse};

static void redis_push(struct conn *c, const char *list, unsigned n)
{
    if (c->ops == &redis_many_ops && n > 0) {
        redis_push_many(c, list, n);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        redis_push_many(c, list, 1);
}

#endif
