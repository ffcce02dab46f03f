/* A whole session. Byte 0: flags; byte 1: how the rest is cut (0: not at all); the rest: what the peer
 * sends. */
#include "common/mem.h"
#include "proto/session.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SERVER = 1, MD5_REFUSED = 2, RHEL = 4, REPAIR = 8, TIGHT = 16 };

static const struct tq_session_limits wide = {256, 6, 1u << 26}, tight = {64, 2, 300};
static const struct tq_auth_key key = {.secret = {(const uint8_t *)"abc", 3}, .name = "abc"};
static struct tq_auth_registry registry;

struct run {
    struct tq_session s;
    const struct tq_session_limits *limits;
    bool repaired;
    bool opened;
    bool failed;
    size_t sent_bytes;
};

/* The answer is the first whole frame in `stream`. */
static bool repair_stream(uint8_t *stream, size_t len, struct tq_span sent)
{
    uint64_t n;
    size_t header = 4;

    if (len < 12 || sent.len != 4 + 59)
        return false;
    n = tq_load_be32(stream);
    if (n == 0xffffffffu) {
        header = 12;
        n = tq_load_be64(stream + 4);
    }
    if (n > 256 || n > len - header)
        return false;
    return repair_answer(stream + header, (size_t)n, tq_span(sent.data + 15, 48), key.secret);
}

static void check_event(struct run *r, const struct tq_session_event *ev)
{
    TQ_ASSERT(ev->send.len == 0 || ev->kind == TQ_SESSION_SEND || ev->kind == TQ_SESSION_FAIL);
    r->sent_bytes += ev->send.len;
    TQ_ASSERT(r->sent_bytes < 256);
    switch (ev->kind) {
    case TQ_SESSION_SEND:
        TQ_ASSERT(!r->opened && ev->send.len > 4);
        break;
    case TQ_SESSION_OPEN:
        TQ_ASSERT(!r->opened && r->repaired && r->s.open && r->s.handshake == NULL);
        TQ_ASSERT(registry.nonces == NULL);
        r->opened = true;
        break;
    case TQ_SESSION_FRAME:
        TQ_ASSERT(r->opened && ev->frame.len <= r->limits->frame_bytes);
        TQ_ASSERT(!r->s.server || r->s.dialect != TQ_DIALECT_NONE);
        break;
    case TQ_SESSION_FAIL:
        TQ_ASSERT(ev->err < 0 && ev->err == r->s.err);
        TQ_ASSERT(!r->failed || ev->send.len == 0);
        TQ_ASSERT(registry.nonces == NULL && r->s.frames.acc.data == NULL);
        r->failed = true;
        break;
    case TQ_SESSION_MORE:
        TQ_ASSERT(r->opened || r->s.frames.acc.cap <= r->limits->preauth_frame_bytes);
        break;
    }
}

static void feed(struct run *r, struct cutter *c, uint8_t *stream, size_t len, bool repair)
{
    struct tq_span in;

    while (!r->failed && cutter_next(c, &in)) {
        struct tq_session_event ev;

        do {
            tq_session_next(&r->s, &in, &ev);
            check_event(r, &ev);
            if (ev.kind == TQ_SESSION_SEND && !r->s.server && ev.send.len == 4 + 59 && repair) {
                /* Our challenge is out: cut anew behind it, so that the answer is still to come. */
                size_t at = len - c->rest.len - in.len;

                r->repaired = repair_stream(stream + at, len - at, ev.send);
                c->rest = tq_span(stream + at, len - at);
                break;
            }
        } while (ev.kind != TQ_SESSION_MORE && ev.kind != TQ_SESSION_FAIL);
        TQ_ASSERT(ev.kind != TQ_SESSION_MORE || in.len == 0);
    }
    cutter_deinit(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run r = {0};
    struct cutter cutter;
    struct tq_span send, nothing = {0};
    struct tq_session_event ev;
    uint8_t *stream;
    uint8_t flags;

    if (size < 2)
        return 0;
    flags = data[0];
    stream = malloc(size);
    TQ_ASSERT(stream != NULL);
    memcpy(stream, data + 2, size - 2);
    r.limits = flags & TIGHT ? &tight : &wide;
    if (flags & SERVER)
        TQ_ASSERT(tq_session_init_server(&r.s, r.limits, &registry, &key, 1, flags & MD5_REFUSED) == TQ_OK);
    else
        TQ_ASSERT(tq_session_init_client(&r.s, r.limits, &registry, &key, flags & RHEL) == TQ_OK);
    TQ_ASSERT(tq_session_start(&r.s, &send) == TQ_OK);
    if (flags & SERVER && flags & REPAIR)
        r.repaired = repair_stream(stream, size - 2, send);
    cutter_init(&cutter, data[1], tq_span(stream, size - 2));
    feed(&r, &cutter, stream, size - 2, flags & REPAIR);
    if (r.failed) {
        tq_session_next(&r.s, &nothing, &ev);
        TQ_ASSERT(ev.kind == TQ_SESSION_FAIL);
        check_event(&r, &ev);
    }
    tq_session_deinit(&r.s);
    TQ_ASSERT(registry.nonces == NULL);
    free(stream);
    return 0;
}
