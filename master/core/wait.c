#include "master/core/wait.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/queue.h"
#include "master/core/task.h"

static struct broker_wait **list_of(struct broker_queue *q, uint8_t kind)
{
    return kind == BROKER_WAIT_GET ? &q->getters : kind == BROKER_WAIT_PUT ? &q->putters : &q->joiners;
}

int broker_wait_park(struct broker *b, enum broker_wait_kind kind, const struct broker_event *ev,
                     struct broker_task *take_task, enum broker_memory_class memory_class)
{
    struct broker_wait *w = tq_malloc(sizeof(*w));
    struct broker_wait **list = list_of(ev->queue, (uint8_t)kind);

    if (w == NULL)
        return TQ_ENOMEM;
    *w = (struct broker_wait){
        .deadline = {.kind = BROKER_DEADLINE},
        .session = ev->session,
        .queue = ev->queue,
        .token = ev->token,
        .kind = (uint8_t)kind,
        .memory_class = (uint8_t)memory_class,
    };
    if (kind != BROKER_WAIT_JOIN && ev->wait_mode == BROKER_WAIT_MS) {
        uint64_t at_ms = ev->wait_ms > UINT64_MAX - b->now_ms ? UINT64_MAX : b->now_ms + ev->wait_ms;

        if (tq_deadline_set(b->deadlines, &w->deadline, at_ms) != TQ_OK) {
            tq_free(w);
            return TQ_ENOMEM;
        }
    }
    w->task = take_task;
    if (take_task != NULL)
        b->stats.parked_bytes += broker_body_cost(take_task->body);
    DL_APPEND(*list, w);
    TQ_ASSERT(ev->session->wait == NULL);
    ev->session->wait = w;
    b->stats.waiting++;
    return TQ_OK;
}

struct broker_task *broker_wait_end(struct broker *b, struct broker_wait *w)
{
    struct broker_wait **list = list_of(w->queue, w->kind);
    struct broker_task *t = w->task;

    TQ_ASSERT(w->session->wait == w);
    tq_deadline_clear(b->deadlines, &w->deadline);
    DL_DELETE(*list, w);
    w->session->wait = NULL;
    b->stats.waiting--;
    if (t != NULL)
        b->stats.parked_bytes -= broker_body_cost(t->body);
    tq_free(w);
    return t;
}

void broker_wait_drop(struct broker *b, struct broker_wait *w)
{
    struct broker_queue *q = w->queue;

    broker_task_discard(b, broker_wait_end(b, w));
    broker_queue_mark(b, q);
}

struct broker_wait *broker_wait_of_deadline(struct tq_deadline *d)
{
    return (struct broker_wait *)((char *)d - offsetof(struct broker_wait, deadline));
}
