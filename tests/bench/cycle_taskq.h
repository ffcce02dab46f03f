/* task-master's native dialect: put, get, done with its result and the next tasks in one frame. */
#ifndef TESTS_BENCH_CYCLE_TASKQ_H
#define TESTS_BENCH_CYCLE_TASKQ_H

#include "common/err.h"
#include "proto/native/mp.h"
#include "proto/session.h"
#include "tests/bench/cycle.h"

struct taskq_state {
    struct tq_session session;
    struct tq_buf buf;
    size_t start;
};

static struct tq_mp_out taskq_begin(struct conn *c, const char *method, uint32_t fields)
{
    struct taskq_state *s = c->state;
    struct tq_mp_out o;
    tq_buf_clear(&s->buf);
    o = tq_mp_out(&s->buf);
    tq_mp_frame_begin(&o, &s->start);
    tq_mp_put_array(&o, 4);
    tq_mp_put_u64(&o, 0);
    tq_mp_put_u64(&o, c->msgid++ & UINT32_MAX);
    tq_mp_put_cstr(&o, method);
    tq_mp_put_map(&o, fields);
    return o;
}

static void taskq_end(struct conn *c, struct tq_mp_out *o)
{
    struct taskq_state *s = c->state;
    if (tq_mp_frame_end(o, s->start) != TQ_OK)
        die("taskq: no frame");
    out_add(c, s->buf.data, s->buf.len);
}

static bool taskq_frame(struct conn *c, struct tq_span *ret_payload)
{
    size_t n;
    if (c->in_len - c->in_at < 4)
        return false;
    n = tq_load_be32(c->in + c->in_at);
    if (c->in_len - c->in_at - 4 < n)
        return false;
    *ret_payload = tq_span(c->in + c->in_at + 4, n);
    c->in_at += 4 + n;
    return true;
}

/* [1, msgid, error, result]: the cursor at result. */
static struct tq_mp taskq_result(struct tq_span payload)
{
    struct tq_mp m = tq_mp_of(payload);
    struct tq_span error, text;
    uint32_t n = 0;
    uint64_t type = 0, msgid = 0;
    if (!tq_mp_array(&m, &n) || !tq_mp_u64(&m, &type) || type != 1 || !tq_mp_u64(&m, &msgid))
        die("taskq: no reply");
    if (tq_mp_nil(&m))
        return m;
    errno = 0;
    if (tq_mp_array(&m, &n) && tq_mp_str(&m, &error) && tq_mp_str(&m, &text))
        fprintf(stderr, "taskq: %.*s: %.*s\n", (int)error.len, (const char *)error.data, (int)text.len,
                (const char *)text.data);
    die("taskq: an error");
    return m;
}

static void taskq_call(struct conn *c, struct tq_mp_out *o)
{
    struct tq_span payload;
    taskq_end(c, o);
    blocking_flush(c);
    while (!taskq_frame(c, &payload))
        blocking_read(c);
    (void)taskq_result(payload);
}

static const char taskq_secret[] = "a-key-for-the-benchmark-only";

static void taskq_handshake(struct conn *c, struct taskq_state *s)
{
    static struct tq_auth_registry registry;
    static const struct tq_session_limits limits = {256, 6, 1u << 30};
    struct tq_auth_key key = {.secret = tq_span_str(taskq_secret), .name = "authkey"};
    struct tq_span send;
    tq_auth_registry_init(&registry);
    if (tq_session_init_client(&s->session, &limits, &registry, &key, false) != TQ_OK ||
        tq_session_start(&s->session, &send) != TQ_OK)
        die("taskq: no session");
    while (!s->session.open) {
        struct tq_session_event ev;
        struct tq_span in;
        blocking_read(c);
        in = tq_span(c->in + c->in_at, c->in_len - c->in_at);
        do {
            tq_session_next(&s->session, &in, &ev);
            if (ev.kind == TQ_SESSION_FAIL)
                die("taskq: the handshake failed");
            if (ev.kind == TQ_SESSION_SEND) {
                out_add(c, ev.send.data, ev.send.len);
                blocking_flush(c);
            }
        } while (ev.kind != TQ_SESSION_MORE && ev.kind != TQ_SESSION_OPEN);
        c->in_at = c->in_len - in.len;
    }
    tq_session_deinit(&s->session);
}

static void taskq_open(struct conn *c)
{
    static unsigned number;
    struct taskq_state *s = must(calloc(1, sizeof *s));
    char name[32];
    struct tq_mp_out o;
    tq_buf_init(&s->buf, 64 << 20);
    c->state = s;
    taskq_handshake(c, s);
    o = taskq_begin(c, "hello", c->role == PRODUCER ? 1 : 2);
    tq_mp_put_cstr(&o, "version");
    tq_mp_put_u64(&o, 1);
    if (c->role != PRODUCER) {
        snprintf(name, sizeof name, "bench-%u", number++);
        tq_mp_put_cstr(&o, "worker");
        tq_mp_put_cstr(&o, name);
    }
    taskq_call(c, &o);
}

static void taskq_body(struct tq_mp_out *o)
{
    static const uint8_t body[BODY_BYTES] = {1};
    tq_mp_put_bin(o, tq_span(body, BODY_BYTES - 2)); /* 100 bytes with its header */
}

static void taskq_put_to(struct conn *c, const char *queue, unsigned n)
{
    struct tq_mp_out o = taskq_begin(c, "put", 2);
    tq_mp_put_cstr(&o, "q");
    tq_mp_put_cstr(&o, queue);
    tq_mp_put_cstr(&o, "tasks");
    tq_mp_put_array(&o, n);
    for (unsigned i = 0; i < n; i++) {
        tq_mp_put_array(&o, 1);
        taskq_body(&o);
    }
    taskq_end(c, &o);
    c->in_flight += n;
}

static void taskq_put(struct conn *c, unsigned n)
{
    taskq_put_to(c, "task_queue", n);
}

static void taskq_get_params(struct conn *c, struct tq_mp_out *o)
{
    tq_mp_put_map(o, 3);
    tq_mp_put_cstr(o, "q");
    tq_mp_put_cstr(o, c->role == WORKER ? "task_queue" : "result_queue");
    tq_mp_put_cstr(o, "max");
    tq_mp_put_u64(o, c->window);
    tq_mp_put_cstr(o, "wait_ms");
    tq_mp_put_i64(o, -1);
}

static void taskq_ask(struct conn *c)
{
    struct taskq_state *s = c->state;
    struct tq_mp_out o;
    tq_buf_clear(&s->buf);
    o = tq_mp_out(&s->buf);
    tq_mp_frame_begin(&o, &s->start);
    tq_mp_put_array(&o, 4);
    tq_mp_put_u64(&o, 0);
    tq_mp_put_u64(&o, c->msgid++ & UINT32_MAX);
    tq_mp_put_cstr(&o, "get");
    taskq_get_params(c, &o);
    taskq_end(c, &o);
}

static void taskq_next(struct conn *c)
{
    struct tq_mp_out o = taskq_begin(c, "done", 2);
    tq_mp_put_cstr(&o, "done");
    tq_mp_put_array(&o, c->held_count);
    for (unsigned i = 0; i < c->held_count; i++) {
        tq_mp_put_array(&o, c->role == WORKER ? 3 : 2);
        tq_mp_put_u64(&o, c->held[i].id);
        tq_mp_put_u64(&o, c->held[i].epoch);
        if (c->role == WORKER)
            taskq_body(&o);
    }
    tq_mp_put_cstr(&o, "get");
    taskq_get_params(c, &o);
    taskq_end(c, &o);
    c->held_count = 0;
}

static void taskq_tasks(struct conn *c, struct tq_mp *m)
{
    uint32_t n = 0, parts = 0;
    if (!tq_mp_array(m, &n))
        die("taskq: tasks");
    for (uint32_t i = 0; i < n; i++) {
        uint64_t id = 0, epoch = 0;
        if (!tq_mp_array(m, &parts) || parts < 4 || !tq_mp_u64(m, &id) || !tq_mp_u64(m, &epoch))
            die("taskq: a task");
        for (uint32_t k = 2; k < parts; k++)
            if (!tq_mp_skip(m))
                die("taskq: a task");
        hold(c, id, epoch);
    }
}

static void taskq_parse(struct conn *c)
{
    struct tq_span payload, name;
    while (taskq_frame(c, &payload)) {
        struct tq_mp m = taskq_result(payload);
        uint32_t fields = 0, ids = 0;
        if (!tq_mp_map(&m, &fields))
            die("taskq: a result");
        for (uint32_t i = 0; i < fields; i++) {
            if (!tq_mp_str(&m, &name))
                die("taskq: a field");
            if (tq_span_is(name, "tasks")) {
                taskq_tasks(c, &m);
            } else if (tq_span_is(name, "ids")) {
                struct tq_mp at = m;
                if (!tq_mp_array(&at, &ids))
                    die("taskq: ids");
                c->in_flight -= ids;
                (void)tq_mp_skip(&m);
            } else if (tq_span_is(name, "refused")) {
                die("taskq: refused");
            } else if (!tq_mp_skip(&m)) {
                die("taskq: a value");
            }
        }
    }
}

static const struct system_ops taskq_ops = {"taskq",   "task-master", taskq_open, taskq_put,
                                            taskq_ask, taskq_next,    taskq_parse};

#endif
