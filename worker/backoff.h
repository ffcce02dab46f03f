/* Waiting times between attempts: exponential with jitter, so that a thousand workers that lost their
 * master do not come back in the same instant. Pure: the random number is the caller's. */
#ifndef WORKER_BACKOFF_H
#define WORKER_BACKOFF_H

#include <stdint.h>

#define BACKOFF_LEAST_MS 100
#define BACKOFF_MOST_MS  5000

struct backoff {
    unsigned failures; /* in a row */
};

/* Somewhere in [BACKOFF_LEAST_MS, min(BACKOFF_MOST_MS, 2^failures * 2 * BACKOFF_LEAST_MS)], by `random`. */
uint64_t backoff_next_ms(struct backoff *b, uint32_t random);
void backoff_reset(struct backoff *b);

#endif
