/* The log on disk (docs/log-format.md is the same for people). All numbers are little-endian.
 *
 * A data directory has
 *   %016llx.log     segments, by number in hex; consecutive ones, the highest is the one that is written
 *   %016llx.spare   segments of tomorrow: allocated, perhaps with the bytes of an old segment in them;
 * numbers go on behind the last segment's. There always is the next one, even if there was no room for it and
 * it is empty: so the last segment cannot vanish without being missed lock            held (flock) by the
 * process that has the directory Anything else is left alone; what `repair` cuts is kept in %016llx-%llu.cut
 * (segment, offset).
 *
 * A segment: a header of LOG_SEGMENT_HEADER_BYTES, then records one after another, each at a multiple of 8,
 * then whatever was there before (zeros, or records of an older life, whose index is below the header's
 * first_index). A segment is named only when its header is on disk, all of its bytes are allocated, and the
 * one before it is synced to its end: so of all segments only the last can end in something that was never
 * synced.
 *
 * A record: a header of LOG_RECORD_HEADER_BYTES, the payload, zeros up to a multiple of 8. Indexes are
 * consecutive, over segments too. `synced` is the index up to which all was on stable storage before this
 * record's write began: a bad record whose index is at or below the `synced` of a good one behind it was
 * acknowledged, and is damage, not the end of the log.
 *
 * The crc is CRC32C (Castagnoli) of the record from its first byte to the end of its payload, with the crc's
 * own 4 bytes taken as 0 (of a segment's header: of all of it). A record's begins with the seed of its
 * segment, which comes from uuid and number: what an older life of the file left there, or what somebody put
 * into a body so that it looks like a record, is none.
 *
 * version 1   2026-11: the first. */
#ifndef MASTER_LOG_FORMAT_H
#define MASTER_LOG_FORMAT_H

#include "common/bytes.h"

#define LOG_VERSION              1u
#define LOG_SEGMENT_HEADER_BYTES 128u
#define LOG_RECORD_HEADER_BYTES  40u
#define LOG_UUID_BYTES           16u
#define LOG_PAYLOAD_MAX          (1u << 31) /* bytes; a reader takes less than what is left of the segment */
#define LOG_SEGMENT_MIN_BYTES    (64u * 1024)
#define LOG_SEGMENT_MAX_BYTES    (1ull << 32) /* a reader believes no header that says more */

#define LOG_NUMBER_MAX ((uint64_t)1 << 62) /* of a segment, and its first index */
#define LOG_INDEX_MAX  ((uint64_t)1 << 63)

enum log_type {
    LOG_CONFIG = 1, /* the members of the cluster, one so far: u32 count, then for each its uuid. Record 1 */
    LOG_OPS = 2,    /* changes of the broker's state (core/journal_ops.h); applied whole or not at all */
    LOG_START = 3,  /* u64: segments below this number are not needed, and may be missing */
    LOG_MARK = 4,   /* nothing: it says `synced` */
    LOG_CLOSED = 5, /* nothing: a stop in good order. What follows was written by another process */
};
/* A type that a reader does not know is an error, but with this bit it is passed over. */
#define LOG_TYPE_OPTIONAL 0x8000u

struct log_segment_header {
    uint8_t uuid[LOG_UUID_BYTES]; /* of the data directory */
    uint64_t number;              /* from 1 on */
    uint64_t first_index;
    uint64_t first_term;
    uint64_t bytes; /* of the file */
    uint64_t created_ms;
};

struct log_record_header {
    uint32_t len; /* of the payload */
    uint32_t crc;
    uint64_t index; /* from 1 on */
    uint64_t synced;
    uint64_t term;     /* 1 as long as there is one master */
    uint16_t type;     /* enum log_type */
    uint16_t flags;    /* 0 */
    uint32_t reserved; /* 0 */
};

/* What a record takes in a segment. */
static inline uint64_t log_record_bytes(uint32_t payload_len)
{
    return ((uint64_t)LOG_RECORD_HEADER_BYTES + payload_len + 7) & ~(uint64_t)7;
}

void log_segment_header_put(uint8_t out[LOG_SEGMENT_HEADER_BYTES], const struct log_segment_header *h);
/* 0; TQ_EINVAL: it is none (text says why: magic, crc); TQ_EUNSUPPORTED: of a version that is not known. */
int log_segment_header_get(struct tq_span in, struct log_segment_header *ret, const char **ret_why);

/* Writes the header before a payload that stands behind it already, and the zeros after it; h->crc is
 * computed. `out` has log_record_bytes(h->len). */
void log_record_seal(uint8_t *out, struct log_record_header *h, uint32_t seed);
/* The record at the beginning of `in` (which goes up to the end of the segment). 0 and its header and payload
 * (borrowed); TQ_EINVAL: no good record stands here (ret_why says what is wrong; *ret has what the header
 * says if the header is all there). Looks at no byte outside of `in`, whatever a length says. */
int log_record_get(struct tq_span in, uint32_t seed, struct log_record_header *ret,
                   struct tq_span *ret_payload, const char **ret_why);

uint32_t log_crc(uint32_t crc, const void *p, size_t n); /* CRC32C; begin with 0 */
/* What the crc of a record in this segment begins with, in place of 0. */
uint32_t log_seed(const uint8_t uuid[LOG_UUID_BYTES], uint64_t number);

/* Names. ret_number; false: it is none of ours. */
void log_segment_name(char out[64], uint64_t number);
void log_spare_name(char out[64], uint64_t number);
bool log_name_parse(const char *name, uint64_t *ret_number, bool *ret_spare);

#endif
