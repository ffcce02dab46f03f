/* Borrowed bytes, and big-endian loads and stores. */
#ifndef TQ_COMMON_BYTES_H
#define TQ_COMMON_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A borrowed run of bytes: whoever hands it out says how long it stays valid. */
struct tq_span {
    const uint8_t *data;
    size_t len;
};

static inline struct tq_span tq_span(const void *data, size_t len)
{
    return (struct tq_span){.data = data, .len = len};
}

static inline struct tq_span tq_span_str(const char *s)
{
    return tq_span(s, strlen(s));
}

static inline bool tq_span_eq(struct tq_span a, struct tq_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool tq_span_is(struct tq_span a, const char *s)
{
    return tq_span_eq(a, tq_span_str(s));
}

static inline uint32_t tq_load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline uint64_t tq_load_be64(const uint8_t *p)
{
    return (uint64_t)tq_load_be32(p) << 32 | tq_load_be32(p + 4);
}

static inline void tq_store_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

#endif
