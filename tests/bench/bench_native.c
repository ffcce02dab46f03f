/* What the native dialect and the broker cost together, without sockets: ns per whole cycle of a task (put,
 * taken, done with a result, result taken), in batches. usage: bench_native [BATCH [ROUNDS]] */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/assert.h"
#include "tests/lib/native_host.h"

#define BODY_BYTES 100

struct batch {
    struct tq_buf frame;
    struct tq_mp_out o;
};

static void begin(struct batch *b, const char *method, uint32_t pairs)
{
    tq_buf_clear(&b->frame);
    b->o = tq_mp_out(&b->frame);
    tq_mp_put_array(&b->o, 4);
    tq_mp_put_u64(&b->o, 0);
    tq_mp_put_u64(&b->o, 1);
    tq_mp_put_cstr(&b->o, method);
    tq_mp_put_map(&b->o, pairs);
}

static void make_put(struct batch *b, unsigned count)
{
    static const uint8_t body[BODY_BYTES];

    begin(b, "put", 2);
    tq_mp_put_cstr(&b->o, "q");
    tq_mp_put_cstr(&b->o, "task_queue");
    tq_mp_put_cstr(&b->o, "tasks");
    tq_mp_put_array(&b->o, count);
    for (unsigned i = 0; i < count; i++) {
        tq_mp_put_array(&b->o, 1);
        tq_mp_put_bin(&b->o, tq_span(body, sizeof(body)));
    }
}

static void put_get(struct tq_mp_out *o, const char *queue, unsigned count, bool take)
{
    tq_mp_put_cstr(o, "q");
    tq_mp_put_cstr(o, queue);
    tq_mp_put_cstr(o, "max");
    tq_mp_put_u64(o, count);
    if (take) {
        tq_mp_put_cstr(o, "take");
        tq_mp_put_bool(o, true);
    }
}

/* done for all of a reply's tasks, and the next ones. */
static void make_done(struct batch *b, struct tq_span reply, unsigned max)
{
    struct tq_mp m = tq_mp_of(tq_span(reply.data + 4, reply.len - 4));
    struct tq_span name;
    uint32_t count, pairs;
    static const uint8_t result[BODY_BYTES];

    TQ_ASSERT(tq_mp_array(&m, &count));
    for (unsigned i = 0; i < 3; i++)
        TQ_ASSERT(tq_mp_skip(&m));
    TQ_ASSERT(tq_mp_map(&m, &pairs));
    while (tq_mp_str(&m, &name) && !tq_span_is(name, "tasks"))
        TQ_ASSERT(tq_mp_skip(&m));
    TQ_ASSERT(tq_mp_array(&m, &count) && count == max);
    begin(b, "done", 2);
    tq_mp_put_cstr(&b->o, "get");
    tq_mp_put_map(&b->o, 2);
    put_get(&b->o, "task_queue", max, false);
    tq_mp_put_cstr(&b->o, "done");
    tq_mp_put_array(&b->o, count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id;
        uint32_t epoch, parts;

        TQ_ASSERT(tq_mp_array(&m, &parts) && tq_mp_u64(&m, &id) && tq_mp_u32(&m, &epoch));
        for (uint32_t k = 2; k < parts; k++)
            TQ_ASSERT(tq_mp_skip(&m));
        tq_mp_put_array(&b->o, 3);
        tq_mp_put_u64(&b->o, id);
        tq_mp_put_u64(&b->o, epoch);
        tq_mp_put_bin(&b->o, tq_span(result, sizeof(result)));
    }
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The master's part alone is timed. */
static uint64_t send(struct native_client *c, const struct tq_buf *frame)
{
    uint64_t start = now_ns();

    native_frame(&c->conn, tq_buf_span(frame));
    return now_ns() - start;
}

static void read(struct native_rig *r, struct native_client *c)
{
    (void)native_next_dirty(r->native);
    TQ_ASSERT(c->conn.out.len > 4);
}

int main(int argc, char **argv)
{
    static const struct broker_limits limits = {.queues = 10};
    unsigned count = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 128;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20000;
    struct batch put = {.frame = TQ_BUF_NULL(1u << 24)}, done = put, get = put, take = put;
    struct native_client *p, *w, *c;
    uint64_t put_ns = 0, done_ns = 0, take_ns = 0;
    struct native_rig r;

    TQ_ASSERT(count > 0 && rounds > 0);
    TQ_ASSERT(native_rig_init(&r, &limits));
    r.host.limits.reply_bytes = 1u << 24;
    r.host.limits.batch = 10000;
    p = native_rig_connect(&r, 0);
    w = native_rig_connect(&r, 0);
    c = native_rig_connect(&r, 0);
    TQ_ASSERT(p != NULL && w != NULL && c != NULL);
    begin(&put, "hello", 1);
    tq_mp_put_cstr(&put.o, "version");
    tq_mp_put_u64(&put.o, 1);
    native_rig_send(p, tq_buf_span(&put.frame));
    native_rig_send(c, tq_buf_span(&put.frame));
    native_rig_send(w, tq_buf_span(&put.frame));
    make_put(&put, count);
    begin(&get, "get", 2);
    put_get(&get.o, "task_queue", count, false);
    begin(&take, "get", 3);
    put_get(&take.o, "result_queue", count, true);
    native_rig_send(p, tq_buf_span(&put.frame));
    (void)send(w, &get.frame);
    for (unsigned i = 0; i < rounds; i++) {
        read(&r, w);
        make_done(&done, tq_buf_span(&w->conn.out), count);
        native_written(&w->conn);
        put_ns += send(p, &put.frame);
        read(&r, p);
        native_written(&p->conn);
        done_ns += send(w, &done.frame);
        take_ns += send(c, &take.frame);
        (void)native_next_dirty(r.native);
        (void)native_next_dirty(r.native);
        native_written(&c->conn);
    }
    printf("batch %u: put %.0f, done with result and next tasks %.0f, result taken %.0f; cycle %.0f ns\n",
           count, (double)put_ns / count / rounds, (double)done_ns / count / rounds,
           (double)take_ns / count / rounds, (double)(put_ns + done_ns + take_ns) / count / rounds);
    native_rig_deinit(&r);
    tq_buf_deinit(&put.frame);
    tq_buf_deinit(&done.frame);
    tq_buf_deinit(&get.frame);
    tq_buf_deinit(&take.frame);
    return 0;
}
