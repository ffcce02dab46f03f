#include "master/log/format.h"

#include <isa-l/crc.h>
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/format_impl.h"

#define CRC_PIECE_BYTES (1u << 30) /* the library counts in int */

static const uint8_t magic[8] = {'t', 'a', 's', 'k', 'q', 'l', 'o', 'g'};

/* ---- CRC32C ---- */

uint32_t log_crc(uint32_t crc, const void *p, size_t n)
{
    const uint8_t *at = p;

    crc = ~crc;
    while (n > 0) {
        size_t piece = n < CRC_PIECE_BYTES ? n : CRC_PIECE_BYTES;

        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)piece, crc);
        at += piece;
        n -= piece;
    }
    return ~crc;
}

uint32_t log_seed(const uint8_t uuid[LOG_UUID_BYTES], uint64_t number)
{
    uint8_t n[8];

    log_store64(n, number);
    return log_crc(log_crc(0, uuid, LOG_UUID_BYTES), n, sizeof(n));
}

/* ---- the header of a segment ---- */

enum {
    SEGMENT_MAGIC = 0,
    SEGMENT_VERSION = 8,
    SEGMENT_CRC = 12,
    SEGMENT_UUID = 16,
    SEGMENT_NUMBER = 32,
    SEGMENT_FIRST_INDEX = 40,
    SEGMENT_FIRST_TERM = 48,
    SEGMENT_BYTES = 56,
    SEGMENT_CREATED_MS = 64,
};

static uint32_t segment_header_crc(const uint8_t *in)
{
    static const uint8_t none[4];
    uint32_t crc = log_crc(0, in, SEGMENT_CRC);

    crc = log_crc(crc, none, sizeof(none));
    return log_crc(crc, in + SEGMENT_CRC + 4, LOG_SEGMENT_HEADER_BYTES - SEGMENT_CRC - 4);
}

void log_segment_header_put(uint8_t out[LOG_SEGMENT_HEADER_BYTES], const struct log_segment_header *h)
{
    memset(out, 0, LOG_SEGMENT_HEADER_BYTES);
    memcpy(out + SEGMENT_MAGIC, magic, sizeof(magic));
    log_store32(out + SEGMENT_VERSION, LOG_VERSION);
    memcpy(out + SEGMENT_UUID, h->uuid, LOG_UUID_BYTES);
    log_store64(out + SEGMENT_NUMBER, h->number);
    log_store64(out + SEGMENT_FIRST_INDEX, h->first_index);
    log_store64(out + SEGMENT_FIRST_TERM, h->first_term);
    log_store64(out + SEGMENT_BYTES, h->bytes);
    log_store64(out + SEGMENT_CREATED_MS, h->created_ms);
    log_store32(out + SEGMENT_CRC, segment_header_crc(out));
}

/* The crc comes before the version: a flipped bit in the version is damage, not a newer version. */
int log_segment_header_get(struct tq_span in, struct log_segment_header *ret, const char **ret_why)
{
    const uint8_t *p = in.data;

    if (in.len < LOG_SEGMENT_HEADER_BYTES) {
        *ret_why = "the file is too short for a segment's header";
        return TQ_EINVAL;
    }
    if (memcmp(p + SEGMENT_MAGIC, magic, sizeof(magic)) != 0) {
        *ret_why = "this is no segment of a log";
        return TQ_EINVAL;
    }
    if (segment_header_crc(p) != log_load32(p + SEGMENT_CRC)) {
        *ret_why = "the checksum of the segment's header is wrong";
        return TQ_EINVAL;
    }
    if (log_load32(p + SEGMENT_VERSION) != LOG_VERSION) {
        *ret_why = "the segment is of a version that this program does not know";
        return TQ_EUNSUPPORTED;
    }
    ret->number = log_load64(p + SEGMENT_NUMBER);
    ret->first_index = log_load64(p + SEGMENT_FIRST_INDEX);
    ret->first_term = log_load64(p + SEGMENT_FIRST_TERM);
    ret->bytes = log_load64(p + SEGMENT_BYTES);
    ret->created_ms = log_load64(p + SEGMENT_CREATED_MS);
    memcpy(ret->uuid, p + SEGMENT_UUID, LOG_UUID_BYTES);
    if (ret->number == 0 || ret->number > LOG_NUMBER_MAX || ret->first_index == 0 ||
        ret->first_index > LOG_NUMBER_MAX || ret->bytes < LOG_SEGMENT_HEADER_BYTES ||
        ret->bytes > LOG_SEGMENT_MAX_BYTES) {
        *ret_why = "the segment's header makes no sense";
        return TQ_EINVAL;
    }
    return TQ_OK;
}

/* ---- records ---- */

void log_record_header_load(const uint8_t *p, struct log_record_header *ret)
{
    *ret = (struct log_record_header){
        .len = log_load32(p + RECORD_LEN),
        .crc = log_load32(p + RECORD_CRC),
        .index = log_load64(p + RECORD_INDEX),
        .synced = log_load64(p + RECORD_SYNCED),
        .term = log_load64(p + RECORD_TERM),
        .type = (uint16_t)(p[RECORD_TYPE] | p[RECORD_TYPE + 1] << 8),
        .flags = (uint16_t)(p[RECORD_FLAGS] | p[RECORD_FLAGS + 1] << 8),
        .reserved = log_load32(p + RECORD_RESERVED),
    };
}

static uint32_t record_crc(const uint8_t *p, uint32_t seed, uint32_t len)
{
    uint8_t first[8] = {p[0], p[1], p[2], p[3]};

    return log_crc(log_crc(seed, first, sizeof(first)), p + sizeof(first),
                   (size_t)LOG_RECORD_HEADER_BYTES - sizeof(first) + len);
}

void log_record_seal(uint8_t *out, struct log_record_header *h, uint32_t seed)
{
    uint64_t end = (uint64_t)LOG_RECORD_HEADER_BYTES + h->len;

    TQ_ASSERT(h->len <= LOG_PAYLOAD_MAX && h->index >= 1 && h->synced < h->index);
    log_store32(out + RECORD_LEN, h->len);
    log_store64(out + RECORD_INDEX, h->index);
    log_store64(out + RECORD_SYNCED, h->synced);
    log_store64(out + RECORD_TERM, h->term);
    out[RECORD_TYPE] = (uint8_t)h->type;
    out[RECORD_TYPE + 1] = (uint8_t)(h->type >> 8);
    out[RECORD_FLAGS] = (uint8_t)h->flags;
    out[RECORD_FLAGS + 1] = (uint8_t)(h->flags >> 8);
    log_store32(out + RECORD_RESERVED, h->reserved);
    memset(out + end, 0, (size_t)(log_record_bytes(h->len) - end));
    h->crc = record_crc(out, seed, h->len);
    log_store32(out + RECORD_CRC, h->crc);
}

bool log_record_is_plausible(const struct log_record_header *h, uint64_t room)
{
    return h->len <= LOG_PAYLOAD_MAX && log_record_bytes(h->len) <= room && h->index >= 1 &&
           h->index <= LOG_INDEX_MAX && h->synced < h->index;
}

static bool padding_is_zero(const uint8_t *p, uint32_t len)
{
    uint64_t end = (uint64_t)LOG_RECORD_HEADER_BYTES + len;
    uint8_t any = 0;

    for (uint64_t i = end; i < log_record_bytes(len); i++)
        any |= p[i];
    return any == 0;
}

int log_record_get(struct tq_span in, uint32_t seed, struct log_record_header *ret,
                   struct tq_span *ret_payload, const char **ret_why)
{
    if (in.len < LOG_RECORD_HEADER_BYTES) {
        *ret_why = "the segment ends within a record's header";
        return TQ_EINVAL;
    }
    log_record_header_load(in.data, ret);
    if (ret->len > LOG_PAYLOAD_MAX || log_record_bytes(ret->len) > in.len) {
        *ret_why = "the record is longer than what is left of the segment";
        return TQ_EINVAL;
    }
    if (record_crc(in.data, seed, ret->len) != ret->crc) {
        *ret_why = "the record's checksum is wrong";
        return TQ_EINVAL;
    }
    if (!log_record_is_plausible(ret, in.len)) {
        *ret_why = "the record's index makes no sense";
        return TQ_EINVAL;
    }
    if (!padding_is_zero(in.data, ret->len)) {
        *ret_why = "the bytes that fill up the record are not zero";
        return TQ_EINVAL;
    }
    *ret_payload = tq_span(in.data + LOG_RECORD_HEADER_BYTES, ret->len);
    return TQ_OK;
}

/* ---- names ---- */

#define NUMBER_DIGITS 16

void log_segment_name(char out[64], uint64_t number)
{
    snprintf(out, 64, "%016llx.log", (unsigned long long)number);
}

void log_spare_name(char out[64], uint64_t number)
{
    snprintf(out, 64, "%016llx.spare", (unsigned long long)number);
}

bool log_name_parse(const char *name, uint64_t *ret_number, bool *ret_spare)
{
    uint64_t number = 0;

    for (int i = 0; i < NUMBER_DIGITS; i++) {
        char c = name[i];

        if (c >= '0' && c <= '9')
            number = number << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false; /* the end of the string, too */
    }
    if (number == 0 || number > LOG_NUMBER_MAX)
        return false;
    if (strcmp(name + NUMBER_DIGITS, ".log") == 0)
        *ret_spare = false;
    else if (strcmp(name + NUMBER_DIGITS, ".spare") == 0)
        *ret_spare = true;
    else
        return false;
    *ret_number = number;
    return true;
}
