#include "worker/backoff.h"

uint64_t backoff_next_ms(struct backoff *b, uint32_t random)
{
    uint64_t ceiling_ms = BACKOFF_MOST_MS;

    if (b->failures < 16 && ((uint64_t)2 * BACKOFF_LEAST_MS << b->failures) < BACKOFF_MOST_MS)
        ceiling_ms = (uint64_t)2 * BACKOFF_LEAST_MS << b->failures;
    if (b->failures < UINT32_MAX)
        b->failures++;
    return BACKOFF_LEAST_MS + random % (ceiling_ms - BACKOFF_LEAST_MS + 1);
}

void backoff_reset(struct backoff *b)
{
    b->failures = 0;
}
