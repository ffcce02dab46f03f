#include "master/core/broker_check.h"

#include <utlist.h>

#include "master/core/broker_impl.h"
#include "master/core/queue.h"
#include "master/core/task.h"

#define RULE(expr)                                                                                           \
    do {                                                                                                     \
        if (!(expr))                                                                                         \
            return #expr;                                                                                    \
    } while (0)

struct sums {
    uint64_t ready, leased, waiting, body_bytes, parked_bytes, queues;
};

static const char *check_waits(const struct broker *b, const struct broker_queue *q,
                               const struct broker_wait *list, enum broker_wait_kind kind, struct sums *sums)
{
    const struct broker_wait *w;

    DL_FOREACH(list, w)
    {
        RULE(w->kind == kind);
        RULE(w->queue == q);
        RULE(w->session->wait == w);
        RULE(w->session->open);
        RULE((w->task != NULL) == (kind == BROKER_WAIT_PUT));
        RULE(w->deadline.kind == BROKER_DEADLINE);
        RULE(!tq_deadline_is_set(&w->deadline) || b->deadlines->heap[w->deadline.place - 1] == &w->deadline);
        if (w->task != NULL) {
            RULE(w->task->state == BROKER_TASK_NEW);
            RULE(w->task->queue == q);
            sums->parked_bytes += broker_body_cost(w->task->body);
        }
        sums->waiting++;
    }
    return NULL;
}

static const char *check_ready(const struct broker_queue *q, const struct broker_task *t, struct sums *sums)
{
    RULE(t->state == BROKER_TASK_READY);
    RULE(t->queue == q);
    RULE(t->body->refs > 0);
    RULE(!q->removed);
    sums->ready++;
    sums->body_bytes += broker_body_cost(t->body);
    return NULL;
}

static const char *check_heap(const struct broker *b, const struct broker_queue *q, struct sums *sums)
{
    char text[BROKER_TEXT_MAX];
    const char *broken;

    RULE(q->heap.count <= q->heap.cap);
    RULE(q->conf.kind == BROKER_PRIORITY || q->heap.cap == 0);
    RULE(q->conf.kind != BROKER_PRIORITY || q->heap.cap >= q->ready + q->leased);
    for (size_t i = 0; i < q->heap.count; i++) {
        bool smaller = false;

        broken = check_ready(q, q->heap.list[i], sums);
        if (broken != NULL)
            return broken;
        if (i > 0 && b->less(q->heap.list[i]->body, q->heap.list[(i - 1) / 2]->body, &smaller, text) == 0)
            RULE(!smaller);
    }
    return NULL;
}

/* Nobody waits who could be served, except after a failed allocation. */
static const char *check_served(const struct broker *b, const struct broker_queue *q)
{
    if (q->marked)
        return NULL;
    RULE(q->getters == NULL || q->ready == 0);
    RULE(!q->shut_down || (q->getters == NULL && q->putters == NULL));
    RULE(q->joiners == NULL || q->unfinished > 0);
    RULE(q->putters == NULL || broker_queue_is_full(q) || q->is_short);
    RULE(!q->removed || (q->getters == NULL && q->putters == NULL && q->joiners == NULL));
    RULE(!q->removed || q->leased > 0);
    if (q->is_short && b->retry.at_ms == UINT64_MAX && q->putters != NULL && !broker_queue_is_full(q) &&
        b->short_of_memory[q->short_class] == q)
        RULE(!broker_memory_fits(b, q->putters->memory_class, q->putters->session, q->putters->task->body));
    return NULL;
}

static const char *check_queue(const struct broker *b, const struct broker_queue *q, struct sums *sums)
{
    uint64_t ready_before = sums->ready;
    const struct broker_task *t;
    const char *broken;

    DL_FOREACH(q->list, t)
    {
        broken = check_ready(q, t, sums);
        if (broken != NULL)
            return broken;
    }
    broken = check_heap(b, q, sums);
    if (broken == NULL)
        broken = check_waits(b, q, q->getters, BROKER_WAIT_GET, sums);
    if (broken == NULL)
        broken = check_waits(b, q, q->putters, BROKER_WAIT_PUT, sums);
    if (broken == NULL)
        broken = check_waits(b, q, q->joiners, BROKER_WAIT_JOIN, sums);
    if (broken == NULL)
        broken = check_served(b, q);
    if (broken != NULL)
        return broken;
    RULE(sums->ready - ready_before == q->ready);
    sums->leased += q->leased;
    return NULL;
}

static const char *check_held(const struct broker_session *s, const struct broker_task *list,
                              bool is_explicit, uint32_t count, uint64_t *leased, struct sums *sums)
{
    const struct broker_task *t;
    uint32_t n = 0;

    DL_FOREACH(list, t)
    {
        RULE(t->state == BROKER_TASK_LEASED);
        RULE(t->session == s);
        RULE((t->queue->conf.ack == BROKER_ACK_EXPLICIT) == is_explicit);
        RULE(t->queue->conf.ack != BROKER_ACK_GET || !t->delivered);
        sums->body_bytes += broker_body_cost(t->body);
        n++;
    }
    RULE(n == count);
    *leased += n;
    return NULL;
}

static const char *check_lists(const struct broker *b)
{
    const struct broker_queue *q;

    DL_FOREACH2(b->marked, q, marked_next)
    {
        RULE(q->marked);
        RULE(tq_deadline_is_set(&b->retry) && b->retry.at_ms <= b->now_ms + BROKER_RETRY_MS);
    }
    for (int c = 0; c < BROKER_MEMORY_CLASSES; c++)
        DL_FOREACH2(b->short_of_memory[c], q, short_next)
        {
            RULE(q->is_short);
            RULE(q->short_class == c);
            RULE(!q->removed);
        }
    return NULL;
}

const char *broker_check(const struct broker *b)
{
    struct sums sums = {0};
    uint64_t held = 0;
    const struct broker_queue *q;
    const struct broker_session *s;
    const char *broken = check_lists(b);

    if (broken != NULL)
        return broken;
    for (q = b->by_name; q != NULL; q = q->hh.next) {
        RULE(!q->removed);
        broken = check_queue(b, q, &sums);
        if (broken != NULL)
            return broken;
        sums.queues++;
    }
    DL_FOREACH2(b->removed, q, removed_next)
    {
        RULE(q->removed);
        broken = check_queue(b, q, &sums);
        if (broken != NULL)
            return broken;
    }
    DL_FOREACH(b->sessions, s)
    {
        RULE(s->open);
        broken = check_held(s, s->held, false, s->held_count, &held, &sums);
        if (broken == NULL)
            broken = check_held(s, s->held_explicit, true, s->held_explicit_count, &held, &sums);
        if (broken != NULL)
            return broken;
    }
    RULE(held == sums.leased);
    RULE(b->stats.leased == sums.leased);
    RULE(b->stats.tasks == sums.ready + sums.leased);
    RULE(b->stats.waiting == sums.waiting);
    RULE(b->stats.body_bytes == sums.body_bytes);
    RULE(b->stats.parked_bytes == sums.parked_bytes);
    RULE(b->stats.queues == sums.queues);
    RULE(b->limits.memory_bytes == 0 || b->stats.body_bytes <= b->limits.memory_bytes);
    RULE(!b->changed);
    return NULL;
}
