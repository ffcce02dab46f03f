#include "worker/ticker.h"

#include "common/assert.h"
#include "common/err.h"

static void on_timer(uv_timer_t *timer);

/* The timer stands at the earliest deadline; a later one costs no system call, only a wake-up too many. */
static void arm(struct ticker *tr)
{
    uint64_t next_ms = tq_deadlines_next_ms(&tr->deadlines);
    uint64_t now_ms = uv_now(tr->timer.loop);

    if (next_ms == UINT64_MAX)
        uv_timer_stop(&tr->timer);
    else
        uv_timer_start(&tr->timer, on_timer, next_ms > now_ms ? next_ms - now_ms : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct ticker *tr = timer->data;
    uint64_t now_ms = uv_now(timer->loop);
    struct tq_deadline *node;

    while ((node = tq_deadlines_pop_due(&tr->deadlines, now_ms)) != NULL) {
        struct tick *t = TICK_OWNER(node, struct tick, node);

        t->fn(t);
    }
    if (!uv_is_closing((uv_handle_t *)timer))
        arm(tr);
}

void ticker_open(struct ticker *tr, uv_loop_t *loop)
{
    int rv = uv_timer_init(loop, &tr->timer);

    TQ_ASSERT(rv == 0);
    tr->timer.data = tr;
    tq_deadlines_init(&tr->deadlines);
}

void ticker_close(struct ticker *tr)
{
    TQ_ASSERT(tr->deadlines.count == 0);
    tq_deadlines_deinit(&tr->deadlines);
    uv_close((uv_handle_t *)&tr->timer, NULL);
}

int tick_set(struct ticker *tr, struct tick *t, uint64_t after_ms, tick_fn fn)
{
    uint64_t now_ms = uv_now(tr->timer.loop);
    int rv = tq_deadline_set(&tr->deadlines, &t->node,
                             after_ms < UINT64_MAX - 1 - now_ms ? now_ms + after_ms : UINT64_MAX - 1);

    if (rv != TQ_OK)
        return rv;
    t->fn = fn;
    arm(tr);
    return TQ_OK;
}

void tick_move(struct ticker *tr, struct tick *t, uint64_t after_ms, tick_fn fn)
{
    int rv = tick_set(tr, t, after_ms, fn);

    TQ_ASSERT(rv == TQ_OK);
}

void tick_clear(struct ticker *tr, struct tick *t)
{
    tq_deadline_clear(&tr->deadlines, &t->node);
    if (tr->deadlines.count == 0)
        uv_timer_stop(&tr->timer);
}
