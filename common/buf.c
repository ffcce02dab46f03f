#include "common/buf.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

void tq_buf_init(struct tq_buf *b, size_t max_bytes)
{
    *b = (struct tq_buf)TQ_BUF_NULL(max_bytes);
}

void tq_buf_deinit(struct tq_buf *b)
{
    tq_free(b->data);
    b->data = NULL;
    b->len = 0;
    b->cap = 0;
}

int tq_buf_reserve(struct tq_buf *b, size_t n)
{
    size_t cap;
    uint8_t *data;

    if (n > b->max || b->len > b->max - n)
        return TQ_ELIMIT;
    if (b->cap - b->len >= n)
        return TQ_OK;
    cap = b->cap + b->cap / 2;
    if (cap < b->len + n)
        cap = b->len + n;
    if (cap < 64)
        cap = 64;
    if (cap > b->max)
        cap = b->max; /* b->len + n is within it */
    data = tq_realloc(b->data, cap);
    if (data == NULL)
        return TQ_ENOMEM;
    b->data = data;
    b->cap = cap;
    return TQ_OK;
}

int tq_buf_append(struct tq_buf *b, const void *p, size_t n)
{
    int rv = tq_buf_reserve(b, n);

    if (rv != TQ_OK)
        return rv;
    if (n > 0)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    return TQ_OK;
}

int tq_buf_append_str(struct tq_buf *b, const char *s)
{
    return tq_buf_append(b, s, strlen(s));
}

int tq_buf_append_u8(struct tq_buf *b, uint8_t v)
{
    return tq_buf_append(b, &v, 1);
}

void tq_buf_consume(struct tq_buf *b, size_t n)
{
    TQ_ASSERT(n <= b->len);
    if (n > 0 && n < b->len)
        memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}
