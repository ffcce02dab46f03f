#include "common/body.h"

#include "common/assert.h"
#include "common/mem.h"

struct tq_body *tq_body_new(uint32_t len)
{
    struct tq_body *b = tq_malloc(sizeof(*b) + len);

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
    if (--b->refs == 0)
        tq_free(b);
}
