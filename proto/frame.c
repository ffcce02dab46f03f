#include "proto/frame.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

/* Length field of the long form. */
#define LONG_FORM 0xffffffffu

#define LONG_HEADER_BYTES 12

/* First allocation for a frame in pieces: most requests that do not fit one read are small. */
#define FIRST_BYTES 256

static void free_acc(struct tq_frame_reader *r)
{
    tq_free(r->acc.data);
    r->acc.data = NULL;
    r->acc.len = r->acc.cap = 0;
}

void tq_frame_reader_init(struct tq_frame_reader *r, size_t max_bytes)
{
    *r = (struct tq_frame_reader){.max_bytes = max_bytes};
}

void tq_frame_reader_deinit(struct tq_frame_reader *r)
{
    free_acc(r);
    *r = (struct tq_frame_reader){.max_bytes = r->max_bytes};
}

void tq_frame_reader_set_max(struct tq_frame_reader *r, size_t max_bytes)
{
    TQ_ASSERT(!tq_frame_partial(r));
    r->max_bytes = max_bytes;
}

bool tq_frame_partial(const struct tq_frame_reader *r)
{
    return r->header_len > 0;
}

void tq_frame_reader_trim(struct tq_frame_reader *r)
{
    if (tq_frame_partial(r))
        return;
    free_acc(r);
    r->delivered = false;
}

static int fail(struct tq_frame_reader *r, int err)
{
    free_acc(r);
    r->err = (int16_t)err;
    return err;
}

/* True when the header has n bytes. */
static bool fill_header(struct tq_frame_reader *r, struct tq_span *in, uint8_t n)
{
    while (r->header_len < n) {
        if (in->len == 0)
            return false;
        r->header[r->header_len++] = *in->data++;
        in->len--;
    }
    return true;
}

static int read_header(struct tq_frame_reader *r, struct tq_span *in)
{
    uint32_t n;

    if (!fill_header(r, in, TQ_FRAME_HEADER_BYTES))
        return TQ_FRAME_MORE;
    n = tq_load_be32(r->header);
    if (n == LONG_FORM) {
        if (!fill_header(r, in, LONG_HEADER_BYTES))
            return TQ_FRAME_MORE;
        r->length = tq_load_be64(r->header + TQ_FRAME_HEADER_BYTES);
    } else if (n > INT32_MAX) {
        return fail(r, TQ_EPROTO);
    } else {
        r->length = n;
    }
    if (r->length > r->max_bytes)
        return fail(r, TQ_ELIMIT);
    r->have_length = true;
    return TQ_FRAME_OK;
}

/* Keeps n more bytes of the frame. Capacity at most doubles and never passes the frame's length. */
static int accumulate(struct tq_frame_reader *r, struct tq_span *in, size_t n)
{
    size_t length = (size_t)r->length; /* <= max_bytes */

    if (r->acc.cap - r->acc.len < n) {
        size_t need = r->acc.len + n;
        size_t cap = r->acc.cap <= SIZE_MAX / 2 ? r->acc.cap * 2 : SIZE_MAX;
        uint8_t *data;

        if (cap < FIRST_BYTES)
            cap = FIRST_BYTES;
        if (cap < need)
            cap = need;
        if (cap > length)
            cap = length;
        data = tq_realloc(r->acc.data, cap);
        if (data == NULL)
            return fail(r, TQ_ENOMEM);
        r->acc.data = data;
        r->acc.cap = cap;
    }
    memcpy(r->acc.data + r->acc.len, in->data, n);
    r->acc.len += n;
    in->data += n;
    in->len -= n;
    return TQ_OK;
}

int tq_frame_next(struct tq_frame_reader *r, struct tq_span *in, struct tq_span *ret_payload)
{
    size_t missing;
    int rv;

    if (r->err != TQ_OK)
        return r->err;
    if (r->delivered)
        tq_frame_reader_trim(r);
    if (!r->have_length) {
        rv = read_header(r, in);
        if (rv != TQ_FRAME_OK)
            return rv;
    }

    missing = (size_t)r->length - r->acc.len;
    if (r->acc.len == 0 && in->len >= missing) {
        *ret_payload = tq_span(in->data, missing);
        if (missing > 0) {
            in->data += missing;
            in->len -= missing;
        }
    } else {
        if (in->len == 0)
            return TQ_FRAME_MORE;
        rv = accumulate(r, in, in->len < missing ? in->len : missing);
        if (rv != TQ_OK)
            return rv;
        if (r->acc.len < r->length)
            return TQ_FRAME_MORE;
        *ret_payload = tq_span(r->acc.data, r->acc.len);
        r->delivered = true;
    }
    r->header_len = 0;
    r->have_length = false;
    return TQ_FRAME_OK;
}

size_t tq_frame_header(uint8_t out[12], uint64_t n)
{
    if (n <= INT32_MAX) {
        tq_store_be32(out, (uint32_t)n);
        return TQ_FRAME_HEADER_BYTES;
    }
    tq_store_be32(out, LONG_FORM);
    tq_store_be32(out + 4, (uint32_t)(n >> 32));
    tq_store_be32(out + 8, (uint32_t)n);
    return LONG_HEADER_BYTES;
}
