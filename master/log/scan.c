#include "master/log/scan.h"

#include "common/err.h"
#include "common/mem.h"
#include "master/log/format_impl.h"

#define SUM_STEP_BYTES 1024u
#define POLYNOMIAL     0x82f63b78u /* of CRC32C, lowest power first */

/* ---- arithmetic: a crc's register is a polynomial, and n more bytes multiply it by x^8n ---- */

static uint32_t times(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (uint32_t bit = (uint32_t)1 << 31; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* The register after n more zero bytes. */
static uint32_t shifted(const struct log_scan *s, uint32_t reg, uint64_t n)
{
    for (unsigned k = 0; n != 0; k++, n >>= 1)
        if (n & 1)
            reg = times(s->power[k], reg);
    return reg;
}

/* The register that begins at 0, without the two negations of the checksum. */
static uint32_t run(uint32_t reg, const uint8_t *p, uint64_t n)
{
    return ~log_crc(~reg, p, (size_t)n);
}

void log_scan_init(struct log_scan *s, struct tq_span segment, uint32_t seed, uint64_t from)
{
    *s = (struct log_scan){.segment = segment, .seed = seed, .from = from};
    s->power[0] = (uint32_t)1 << (31 - 8); /* x^8: one byte */
    for (unsigned k = 1; k < LOG_SCAN_POWERS; k++)
        s->power[k] = times(s->power[k - 1], s->power[k - 1]);
}

void log_scan_deinit(struct log_scan *s)
{
    tq_free(s->sums);
    s->sums = NULL;
}

static int make_sums(struct log_scan *s)
{
    uint64_t steps = (s->segment.len - s->from) / SUM_STEP_BYTES;

    s->sums = tq_malloc((size_t)(steps + 1) * sizeof(s->sums[0]));
    if (s->sums == NULL)
        return TQ_ENOMEM;
    s->sums[0] = 0;
    for (uint64_t i = 0; i < steps; i++)
        s->sums[i + 1] = run(s->sums[i], s->segment.data + s->from + i * SUM_STEP_BYTES, SUM_STEP_BYTES);
    return TQ_OK;
}

/* Over all from s->from up to here. */
static uint32_t sum_up_to(const struct log_scan *s, uint64_t offset)
{
    uint64_t step = (offset - s->from) / SUM_STEP_BYTES;
    uint64_t at = s->from + step * SUM_STEP_BYTES;

    return run(s->sums[step], s->segment.data + at, offset - at);
}

static bool crc_is_good(const struct log_scan *s, uint64_t offset, const struct log_record_header *h)
{
    uint8_t first[8] = {0};
    uint64_t rest = offset + sizeof(first), end = offset + LOG_RECORD_HEADER_BYTES + h->len;
    uint32_t reg;

    log_store32(first, h->len);
    reg = run(~s->seed, first, sizeof(first));
    reg = sum_up_to(s, end) ^ shifted(s, sum_up_to(s, rest) ^ reg, end - rest);
    return ~reg == h->crc;
}

int log_scan_next(struct log_scan *s, uint64_t from, uint64_t after, uint64_t *ret_offset,
                  struct log_record_header *ret)
{
    const uint8_t *p = s->segment.data;
    struct log_record_header h;
    struct tq_span payload;
    const char *why;

    for (uint64_t at = from; at + LOG_RECORD_HEADER_BYTES <= s->segment.len; at += 8) {
        if (log_load64(p + at + RECORD_INDEX) <= after)
            continue;
        log_record_header_load(p + at, &h);
        if (!log_record_is_plausible(&h, s->segment.len - at))
            continue;
        if (s->sums == NULL && make_sums(s) != TQ_OK)
            return TQ_ENOMEM;
        if (!crc_is_good(s, at, &h) ||
            log_record_get(tq_span(p + at, s->segment.len - at), s->seed, &h, &payload, &why) != TQ_OK)
            continue;
        *ret_offset = at;
        *ret = h;
        return 1;
    }
    return 0;
}

int log_scan_rest(struct log_scan *s, uint64_t after, struct log_scan_rest *ret)
{
    struct log_record_header h;
    uint64_t at = s->from;
    int rv;

    *ret = (struct log_scan_rest){0};
    while ((rv = log_scan_next(s, at, after, &at, &h)) == 1) {
        ret->records++;
        ret->end = at + log_record_bytes(h.len);
        if (h.index > ret->last_index)
            ret->last_index = h.index;
        if (h.synced > ret->synced) {
            ret->synced = h.synced;
            ret->synced_index = h.index;
            ret->synced_offset = at;
        }
        at = ret->end;
    }
    return rv;
}
