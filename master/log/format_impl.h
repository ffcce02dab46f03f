/* Where things stand in a record, for those that read logs; and the search for records. */
#ifndef MASTER_LOG_FORMAT_IMPL_H
#define MASTER_LOG_FORMAT_IMPL_H

#include "master/log/format.h"

enum {
    RECORD_LEN = 0,
    RECORD_CRC = 4,
    RECORD_INDEX = 8,
    RECORD_SYNCED = 16,
    RECORD_TERM = 24,
    RECORD_TYPE = 32,
    RECORD_FLAGS = 34,
    RECORD_RESERVED = 36,
};

static inline uint32_t log_load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t log_load64(const uint8_t *p)
{
    return (uint64_t)log_load32(p) | (uint64_t)log_load32(p + 4) << 32;
}

static inline void log_store32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void log_store64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

void log_record_header_load(const uint8_t *p, struct log_record_header *ret);
/* What a header must say, whatever its crc is. */
bool log_record_is_plausible(const struct log_record_header *h, uint64_t room);

#endif
