#include "common/body.h"

#include "common/assert.h"
#include "common/mem.h"
#include "common/pool.h"

static struct tq_pool pool;

static bool is_pooled(uint32_t len)
{
#ifdef TQ_MEM_POISON
    (void)len;
    return false;
#else
    return len > TQ_BODY_SMALL_MAX;
#endif
}

struct tq_body *tq_body_new(uint32_t len)
{
    size_t n = sizeof(struct tq_body) + len;
    struct tq_body *b = is_pooled(len) ? tq_pool_alloc(&pool, n) : tq_malloc(n);

    if (b == NULL)
        return NULL;
    *b = (struct tq_body){.refs = 1, .len = len};
    return b;
}

struct tq_body *tq_body_ref(struct tq_body *b)
{
    TQ_ASSERT(b->refs > 0 && b->refs < UINT32_MAX);
    b->refs++;
    return b;
}

void tq_body_unref(struct tq_body *b)
{
    if (b == NULL)
        return;
    TQ_ASSERT(b->refs > 0);
    if (--b->refs > 0)
        return;
    if (is_pooled(b->len))
        tq_pool_free(&pool, b);
    else
        tq_free(b);
}
