#include "master/core/wait.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/idwait.h"
#include "master/core/policy.h"
#include "master/core/queue.h"
#include "master/core/task.h"
#include "master/core/timer.h"

_Static_assert(BROKER_GET_MAX <= UINT16_MAX, "broker_wait.max");

static struct broker_wait **list_of(struct broker_queue *q, uint8_t kind)
{
    TQ_ASSERT(kind != BROKER_WAIT_RESULT);
    return kind == BROKER_WAIT_GET ? &q->getters : kind == BROKER_WAIT_PUT ? &q->putters : &q->joiners;
}

/* Python's join has no time-out. */
static bool has_deadline(enum broker_wait_kind kind, const struct broker_event *ev)
{
    return ev->wait_mode == BROKER_WAIT_MS && (kind != BROKER_WAIT_JOIN || ev->session->native);
}

enum broker_outcome broker_no_room(const struct broker *b, const struct broker_session *s,
                                   const struct broker_queue *q, enum broker_memory_class c)
{
    if (!s->native || broker_queue_is_full(q))
        return BROKER_REPLY_FULL;
    return (b->refuses && c == BROKER_NEW_WORK) || b->room[c] != UINT64_MAX ? BROKER_REPLY_NO_SPACE
                                                                            : BROKER_REPLY_NO_MEMORY;
}

struct broker_wait *broker_wait_new(struct broker *b, enum broker_wait_kind kind,
                                    const struct broker_event *ev)
{
    struct broker_wait *w = tq_malloc(sizeof(*w));

    if (w == NULL)
        return NULL;
    *w = (struct broker_wait){
        .deadline = {.kind = broker_node_kind(NODE_WAIT)},
        .session = ev->session,
        .queue = kind != BROKER_WAIT_RESULT ? ev->queue : NULL,
        .token = ev->token,
        .max = ev->session->native && ev->max > 0 ? (uint16_t)ev->max : 1,
        .kind = (uint8_t)kind,
    };
    if (kind == BROKER_WAIT_GET) {
        w->max_bytes = ev->max_bytes;
        w->take = ev->session->native && ev->take;
    }
    if (has_deadline(kind, ev) &&
        tq_deadline_set(b->deadlines, &w->deadline, broker_after(b->now_ms, ev->wait_ms)) != TQ_OK) {
        tq_free(w);
        return NULL;
    }
    DL_APPEND2(ev->session->waits, w, session_prev, session_next);
    ev->session->wait_count++;
    b->stats.waiting++;
    return w;
}

void broker_wait_free(struct broker *b, struct broker_wait *w)
{
    tq_deadline_clear(b->deadlines, &w->deadline);
    DL_DELETE2(w->session->waits, w, session_prev, session_next);
    w->session->wait_count--;
    b->stats.waiting--;
    tq_free(w);
}

int broker_wait_park(struct broker *b, enum broker_wait_kind kind, const struct broker_event *ev,
                     uint32_t take_slot, enum broker_memory_class memory_class)
{
    struct broker_wait **list = list_of(ev->queue, (uint8_t)kind);
    struct broker_wait *w = broker_wait_new(b, kind, ev);

    if (w == NULL)
        return TQ_ENOMEM;
    if (kind == BROKER_WAIT_PUT) {
        w->memory_class = (uint8_t)memory_class;
        w->slot = take_slot;
        b->stats.parked_bytes += broker_task_cost(b, take_slot);
    }
    DL_APPEND(*list, w);
    broker_queue_touch(b, ev->queue);
    return TQ_OK;
}

uint32_t broker_wait_end(struct broker *b, struct broker_wait *w)
{
    struct broker_wait **list = list_of(w->queue, w->kind);
    uint32_t slot = broker_wait_slot(w);

    DL_DELETE(*list, w);
    if (slot != SLAB_NONE)
        b->stats.parked_bytes -= broker_task_cost(b, slot);
    broker_queue_touch(b, w->queue);
    broker_wait_free(b, w);
    return slot;
}

void broker_wait_drop(struct broker *b, struct broker_wait *w)
{
    struct broker_queue *q = w->queue;

    if (w->kind == BROKER_WAIT_RESULT) {
        broker_idwait_leave(b, w);
        broker_wait_free(b, w);
        return;
    }
    broker_task_discard(b, broker_wait_end(b, w));
    broker_queue_mark(b, q);
}

struct broker_wait *broker_wait_of_deadline(struct tq_deadline *d)
{
    return (struct broker_wait *)(void *)((char *)d - offsetof(struct broker_wait, deadline));
}

struct broker_wait *broker_wait_find(const struct broker_session *s, uint64_t token)
{
    struct broker_wait *w;

    DL_FOREACH2(s->waits, w, session_next)
    {
        if (w->token == token)
            return w;
    }
    return NULL;
}
