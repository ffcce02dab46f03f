#include "master/core/task.h"

#include "common/assert.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/queue.h"

#define BIT(state) (1u << (unsigned)(state))

static const unsigned allowed_moves[] = {
    [BROKER_TASK_NEW] = BIT(BROKER_TASK_READY) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_READY] = BIT(BROKER_TASK_LEASED) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_LEASED] = BIT(BROKER_TASK_READY) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_GONE] = 0,
};

struct broker_task *broker_task_new(struct broker_queue *q, struct tq_body *body)
{
    struct broker_task *t = tq_malloc(sizeof(*t));

    if (t == NULL)
        return NULL;
    *t = (struct broker_task){.queue = q, .body = tq_body_ref(body), .state = BROKER_TASK_NEW};
    return t;
}

void broker_task_set_state(struct broker *b, struct broker_task *t, enum broker_task_state to)
{
    struct broker_queue *q = t->queue;
    enum broker_task_state from = t->state;

    TQ_ASSERT(allowed_moves[from] & BIT(to));
    if (from == BROKER_TASK_READY) {
        q->ready--;
    } else if (from == BROKER_TASK_LEASED) {
        q->leased--;
        b->stats.leased--;
    } else if (to != BROKER_TASK_GONE) {
        b->stats.tasks++;
        b->stats.body_bytes += broker_body_cost(t->body);
    }
    if (to == BROKER_TASK_READY) {
        q->ready++;
    } else if (to == BROKER_TASK_LEASED) {
        q->leased++;
        b->stats.leased++;
    } else if (from != BROKER_TASK_NEW) {
        b->stats.tasks--;
        b->stats.body_bytes -= broker_body_cost(t->body);
    }
    if (from != BROKER_TASK_NEW || to != BROKER_TASK_GONE)
        b->changed = true;
    t->state = (uint8_t)to;
}

void broker_task_discard(struct broker *b, struct broker_task *t)
{
    if (t == NULL)
        return;
    TQ_ASSERT(t->state == BROKER_TASK_NEW);
    broker_task_set_state(b, t, BROKER_TASK_GONE);
    tq_body_unref(t->body);
    tq_free(t);
}

void broker_task_end(struct broker *b, struct broker_task *t)
{
    struct broker_queue *q = t->queue;

    broker_task_set_state(b, t, BROKER_TASK_GONE);
    tq_body_unref(t->body);
    tq_free(t);
    broker_queue_trim(q);
    broker_queue_free_if_removed(b, q);
}
