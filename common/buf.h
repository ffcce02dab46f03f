/* An owned, growing byte buffer with a ceiling that is fixed at init: no buffer without one. */
#ifndef TQ_COMMON_BUF_H
#define TQ_COMMON_BUF_H

#include "common/bytes.h"

struct tq_buf {
    uint8_t *data;
    size_t len; /* bytes in use */
    size_t cap; /* bytes allocated */
    size_t max; /* ceiling of len */
};

#define TQ_BUF_NULL(max_bytes)                                                                               \
    {                                                                                                        \
        .max = (max_bytes)                                                                                   \
    }

void tq_buf_init(struct tq_buf *b, size_t max_bytes);
void tq_buf_deinit(struct tq_buf *b); /* frees; the buffer is empty and usable afterwards */

/* Room for n more bytes. TQ_ELIMIT over the ceiling, TQ_ENOMEM; the content is untouched then. */
int tq_buf_reserve(struct tq_buf *b, size_t n);
int tq_buf_append(struct tq_buf *b, const void *p, size_t n);
int tq_buf_append_str(struct tq_buf *b, const char *s);
int tq_buf_append_u8(struct tq_buf *b, uint8_t v);
/* Drops the first n bytes (n <= len). */
void tq_buf_consume(struct tq_buf *b, size_t n);

static inline void tq_buf_clear(struct tq_buf *b)
{
    b->len = 0;
}

static inline struct tq_span tq_buf_span(const struct tq_buf *b)
{
    return tq_span(b->data, b->len);
}

#endif
