#include "master/core/journal_ops.h"

bool ops_get(struct tq_span *in, uint64_t *ret)
{
    const uint8_t *at = in->data, *end = in->data + in->len;
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64 && at < end; shift += 7) {
        uint8_t byte = *at++;

        if (shift == 63 && byte > 1)
            return false;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) != 0)
            continue;
        if (byte == 0 && shift > 0)
            return false;
        *in = tq_span(at, (size_t)(end - at));
        *ret = v;
        return true;
    }
    return false;
}

bool ops_get_max(struct tq_span *in, uint64_t max, uint64_t *ret)
{
    return ops_get(in, ret) && *ret <= max;
}

bool ops_get_u8(struct tq_span *in, uint8_t *ret)
{
    if (in->len == 0)
        return false;
    *ret = in->data[0];
    *in = tq_span(in->data + 1, in->len - 1);
    return true;
}

bool ops_get_text(struct tq_span *in, size_t max, struct tq_span *ret)
{
    uint64_t len;

    if (!ops_get(in, &len) || len > max || len > in->len)
        return false;
    *ret = tq_span(in->data, (size_t)len);
    *in = tq_span(in->data + len, in->len - (size_t)len);
    return true;
}
