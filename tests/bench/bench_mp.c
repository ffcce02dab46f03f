/* What msgpack costs: ns a value for the walk, the cursor and the writer, on a frame of 128 tasks of 100
 * bytes, beside msgpack-c's unpacker and packer; and how fast the walk is on bytes and on headers alone.
 * Each number is the best of many short rounds.
 *
 *   bench_mp [--json] [MILLISECONDS]        a measure, 300 by default */
#include "common/assert.h"
#include "common/err.h"
#include "proto/native/mp.h"
#include "tests/bench/measure.h"

#include <msgpack.h>

#define TASKS        128
#define BODY_BYTES   100
#define TASK_VALUES  7 /* {"id": n, "epoch": n, "body": bytes} */
#define FRAME_VALUES (5 + TASKS * TASK_VALUES)
#define BUF_MAX      (1u << 26)

static struct tq_buf frame = TQ_BUF_NULL(BUF_MAX);
static struct tq_buf scratch = TQ_BUF_NULL(BUF_MAX);
static uint8_t body[BODY_BYTES];
static msgpack_sbuffer packed;
static uint64_t sum; /* of what was read, so that it is read */

static void write_frame(struct tq_buf *buf)
{
    struct tq_mp_out o = tq_mp_out(buf);
    size_t start;

    tq_buf_clear(buf);
    tq_mp_frame_begin(&o, &start);
    tq_mp_put_array(&o, 4);
    tq_mp_put_u64(&o, 1);
    tq_mp_put_u64(&o, 77);
    tq_mp_put_nil(&o);
    tq_mp_put_array(&o, TASKS);
    for (uint64_t i = 0; i < TASKS; i++) {
        tq_mp_put_map(&o, 3);
        tq_mp_put_cstr(&o, "id");
        tq_mp_put_u64(&o, 1000000 + i);
        tq_mp_put_cstr(&o, "epoch");
        tq_mp_put_u64(&o, 1);
        tq_mp_put_cstr(&o, "body");
        tq_mp_put_bin(&o, tq_span(body, sizeof(body)));
    }
    TQ_ASSERT(tq_mp_frame_end(&o, start) == TQ_OK);
}

static void run_write(void)
{
    write_frame(&scratch);
}

static void run_walk(void)
{
    const char *why;

    TQ_ASSERT(tq_mp_walk_all(tq_span(frame.data + 4, frame.len - 4), &why) == TQ_OK);
}

static void run_read(void)
{
    struct tq_mp c = tq_mp_of(tq_span(frame.data + 4, frame.len - 4));
    struct tq_span key, bytes;
    uint64_t kind = 0, msgid = 0, id, epoch;
    uint32_t n, pairs;

    TQ_ASSERT(tq_mp_array(&c, &n) && n == 4 && tq_mp_u64(&c, &kind) && tq_mp_u64(&c, &msgid) &&
              tq_mp_nil(&c) && tq_mp_array(&c, &n));
    sum += kind + msgid;
    while (n-- > 0) {
        TQ_ASSERT(tq_mp_map(&c, &pairs) && pairs == 3);
        TQ_ASSERT(tq_mp_str(&c, &key) && tq_mp_u64(&c, &id));
        TQ_ASSERT(tq_mp_str(&c, &key) && tq_mp_u64(&c, &epoch));
        TQ_ASSERT(tq_mp_str(&c, &key) && tq_mp_bin(&c, &bytes));
        sum += id + epoch + bytes.len + bytes.data[0] + key.len;
    }
    TQ_ASSERT(tq_mp_peek(&c) == TQ_MP_END);
}

/* Each value skipped but the containers, as one does with fields that one does not know. */
static void run_skip(void)
{
    struct tq_mp c = tq_mp_of(tq_span(frame.data + 4, frame.len - 4));
    uint32_t n, pairs;

    TQ_ASSERT(tq_mp_array(&c, &n) && tq_mp_skip(&c) && tq_mp_skip(&c) && tq_mp_skip(&c) &&
              tq_mp_array(&c, &n));
    while (n-- > 0) {
        TQ_ASSERT(tq_mp_map(&c, &pairs));
        for (uint32_t i = 0; i < 2 * pairs; i++)
            TQ_ASSERT(tq_mp_skip(&c));
    }
    TQ_ASSERT(tq_mp_peek(&c) == TQ_MP_END);
}

static void peer_key(msgpack_packer *p, const char *key)
{
    msgpack_pack_str(p, strlen(key));
    msgpack_pack_str_body(p, key, strlen(key));
}

static void run_peer_write(void)
{
    msgpack_packer p;

    msgpack_sbuffer_clear(&packed);
    msgpack_packer_init(&p, &packed, msgpack_sbuffer_write);
    msgpack_pack_array(&p, 4);
    msgpack_pack_uint64(&p, 1);
    msgpack_pack_uint64(&p, 77);
    msgpack_pack_nil(&p);
    msgpack_pack_array(&p, TASKS);
    for (uint64_t i = 0; i < TASKS; i++) {
        msgpack_pack_map(&p, 3);
        peer_key(&p, "id");
        msgpack_pack_uint64(&p, 1000000 + i);
        peer_key(&p, "epoch");
        msgpack_pack_uint64(&p, 1);
        peer_key(&p, "body");
        msgpack_pack_bin(&p, sizeof(body));
        msgpack_pack_bin_body(&p, body, sizeof(body));
    }
}

static void run_peer_read(void)
{
    msgpack_unpacked result;
    size_t off = 0;

    msgpack_unpacked_init(&result);
    TQ_ASSERT(msgpack_unpack_next(&result, packed.data, packed.size, &off) == MSGPACK_UNPACK_SUCCESS);
    sum += result.data.via.array.size;
    msgpack_unpacked_destroy(&result);
}

/* The best time of one call, in ns. */
static double best_ns(void (*run)(void), uint64_t ms)
{
    uint64_t until_ns = now_ns() + ms * 1000000u;
    uint64_t calls = 1, took;
    double best = 1e18;

    do {
        uint64_t begun_ns = now_ns();

        for (uint64_t i = 0; i < calls; i++)
            run();
        took = now_ns() - begun_ns;
        if ((double)took / (double)calls < best)
            best = (double)took / (double)calls;
        if (took < 200000) /* 0.2 ms: long for the clock, short enough to be left alone */
            calls *= 2;
    } while (now_ns() < until_ns);
    return best;
}

static void fill(void (*put)(struct tq_mp_out *o, uint32_t i), uint32_t count)
{
    struct tq_mp_out o = tq_mp_out(&frame);

    tq_buf_clear(&frame);
    tq_mp_put_raw(&o, tq_span("\0\0\0\0", 4));
    tq_mp_put_array(&o, count);
    for (uint32_t i = 0; i < count; i++)
        put(&o, i);
    TQ_ASSERT(o.err == TQ_OK);
}

static void put_body(struct tq_mp_out *o, uint32_t i)
{
    (void)i;
    tq_mp_put_bin(o, tq_span(body, sizeof(body)));
}

static void put_small(struct tq_mp_out *o, uint32_t i)
{
    tq_mp_put_u64(o, i & 0x7f);
}

static void put_mixed(struct tq_mp_out *o, uint32_t i)
{
    i = i * 2654435761u >> 16;
    if (i % 4 == 0)
        tq_mp_put_array(o, 0);
    else
        tq_mp_put_u64(o, i & (i % 4 == 1 ? 0x7f : 0xffffffff));
}

int main(int argc, char **argv)
{
    struct report r = {.json = argc > 1 && strcmp(argv[1], "--json") == 0};
    char **args = argv + 1 + (r.json ? 1 : 0);
    int arg_count = argc - 1 - (r.json ? 1 : 0);
    uint64_t ms = arg_count > 0 ? strtoul(args[0], NULL, 10) : 300;
    double ns;

    if (arg_count > 1 || ms < 1 || ms > 60000) {
        fputs("usage: bench_mp [--json] [MILLISECONDS (1 to 60000)]\n", stderr);
        return 2;
    }
    write_frame(&frame);
    msgpack_sbuffer_init(&packed);
    run_peer_write();
    if (packed.size != frame.len - 4 || memcmp(packed.data, frame.data + 4, packed.size) != 0) {
        fputs("bench_mp: msgpack-c writes the frame differently\n", stderr);
        return 1;
    }
    report_number(&r, "frame_bytes", (double)frame.len, "bytes");
    report_number(&r, "frame_values", FRAME_VALUES, "");
    report_number(&r, "walk_ns_per_value", best_ns(run_walk, ms) / FRAME_VALUES, "ns");
    report_number(&r, "cursor_ns_per_value", best_ns(run_read, ms) / FRAME_VALUES, "ns");
    report_number(&r, "cursor_skip_ns_per_value", best_ns(run_skip, ms) / FRAME_VALUES, "ns");
    report_number(&r, "writer_ns_per_value", best_ns(run_write, ms) / FRAME_VALUES, "ns");
    report_number(&r, "msgpack_c_unpack_ns_per_value", best_ns(run_peer_read, ms) / FRAME_VALUES, "ns");
    report_number(&r, "msgpack_c_pack_ns_per_value", best_ns(run_peer_write, ms) / FRAME_VALUES, "ns");
    fill(put_body, 4096);
    ns = best_ns(run_walk, ms);
    report_number(&r, "walk_bodies_gbytes_per_s", (double)frame.len / ns, "GB/s");
    report_number(&r, "walk_bodies_per_us", 4096 / ns * 1000, "1/us");
    fill(put_small, 65535);
    report_number(&r, "walk_small_headers_per_us", 65535 / best_ns(run_walk, ms) * 1000, "1/us");
    fill(put_mixed, 65535);
    report_number(&r, "walk_random_headers_per_us", 65535 / best_ns(run_walk, ms) * 1000, "1/us");
    report_end(&r);
    if (!r.json)
        printf("(%llu)\n", (unsigned long long)(sum & 1));
    msgpack_sbuffer_destroy(&packed);
    tq_buf_deinit(&frame);
    tq_buf_deinit(&scratch);
    return 0;
}
