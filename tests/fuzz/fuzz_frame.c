/* The frame reader against a plain reading of the whole input. Byte 0: the cap; byte 1: how the rest is cut
 * (0: not at all); the rest: the stream. */
#include "common/assert.h"
#include "common/err.h"
#include "proto/frame.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next frame of the whole stream, the slow and plain way. */
static int plain_next(struct tq_span *in, uint64_t max_bytes, struct tq_span *ret)
{
    uint64_t n;
    size_t header = 4;

    if (in->len < 4)
        return TQ_FRAME_MORE;
    n = tq_load_be32(in->data);
    if (n == 0xffffffffu) {
        header = 12;
        if (in->len < 12)
            return TQ_FRAME_MORE;
        n = tq_load_be64(in->data + 4);
    } else if (n & 0x80000000u) {
        return TQ_EPROTO;
    }
    if (n > max_bytes)
        return TQ_ELIMIT;
    if (in->len - header < n)
        return TQ_FRAME_MORE;
    *ret = tq_span(in->data + header, (size_t)n);
    *in = tq_span(in->data + header + n, in->len - header - (size_t)n);
    return TQ_FRAME_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t caps[] = {0, 1, 16, 256, 4096, 1u << 20, 64u << 20, SIZE_MAX};
    struct tq_frame_reader r;
    struct tq_span plain, piece, payload, expected;
    struct cutter cutter;
    size_t max_bytes;
    size_t arrived = 0;
    int rv = TQ_FRAME_MORE;

    if (size < 2)
        return 0;
    max_bytes = caps[data[0] % 8];
    plain = tq_span(data + 2, size - 2);
    cutter_init(&cutter, data[1], plain);
    tq_frame_reader_init(&r, max_bytes);
    while (rv >= 0 && cutter_next(&cutter, &piece)) {
        arrived += piece.len;
        while ((rv = tq_frame_next(&r, &piece, &payload)) == TQ_FRAME_OK) {
            TQ_ASSERT(plain_next(&plain, max_bytes, &expected) == TQ_FRAME_OK);
            TQ_ASSERT(tq_span_eq(payload, expected));
            TQ_ASSERT(!tq_frame_partial(&r));
        }
        TQ_ASSERT(rv < 0 || piece.len == 0);
        TQ_ASSERT(r.acc.cap <= 256 || r.acc.cap <= 2 * arrived);
        TQ_ASSERT(r.acc.cap <= max_bytes);
    }
    TQ_ASSERT(plain_next(&plain, max_bytes, &expected) == rv);
    TQ_ASSERT(rv < 0 || tq_frame_partial(&r) == (plain.len > 0));
    if (rv < 0) {
        piece = tq_span("\0\0\0\0", 4);
        TQ_ASSERT(tq_frame_next(&r, &piece, &payload) == rv && r.acc.data == NULL);
    }
    cutter_deinit(&cutter);
    tq_frame_reader_deinit(&r);
    return 0;
}
