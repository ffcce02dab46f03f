/* The worker's deadlines: one heap behind one uv_timer. */
#ifndef WORKER_TICKER_H
#define WORKER_TICKER_H

#include <uv.h>

#include "common/deadline.h"

struct tick;
typedef void (*tick_fn)(struct tick *t);

/* Embedded in its owner, zeroed before first use. */
struct tick {
    struct tq_deadline node;
    tick_fn fn; /* called once per tick_set, with the tick no longer set */
};

struct ticker {
    uv_timer_t timer;
    struct tq_deadlines deadlines;
};

void ticker_open(struct ticker *tr, uv_loop_t *loop);
/* Nothing may be set any more. The loop must run once for the handle to go. */
void ticker_close(struct ticker *tr);

/* Sets or moves. TQ_ENOMEM: as it was. Never calls fn from inside. */
int tick_set(struct ticker *tr, struct tick *t, uint64_t after_ms, tick_fn fn);
/* The same for a tick that is set: cannot fail. Inside fn the tick is not set any more, but its place is
 * still there until fn returns: moving it there cannot fail either. */
void tick_move(struct ticker *tr, struct tick *t, uint64_t after_ms, tick_fn fn);
/* Out of the way, but set: it can be moved later whatever the memory. */
#define TICK_PARKED_MS (UINT64_MAX / 4)
static inline void tick_park(struct ticker *tr, struct tick *t, tick_fn fn)
{
    tick_move(tr, t, TICK_PARKED_MS, fn);
}

void tick_clear(struct ticker *tr, struct tick *t); /* fine when not set */

static inline bool tick_is_set(const struct tick *t)
{
    return tq_deadline_is_set(&t->node);
}

#define TICK_OWNER(tick, type, member) ((type *)(void *)((char *)(tick)-offsetof(type, member)))

#endif
