#include "master/core/queue.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/task.h"

int broker_queue_new(const char *name, size_t name_len, const struct broker_queue_conf *conf,
                     struct broker_queue **ret_queue)
{
    struct broker_queue *q = tq_calloc(1, sizeof(*q) + name_len + 1);

    if (q == NULL)
        return TQ_ENOMEM;
    TQ_ASSERT(name_len <= BROKER_QUEUE_NAME_MAX);
    q->conf = *conf;
    memcpy(q->name, name, name_len);
    *ret_queue = q;
    return TQ_OK;
}

void broker_queue_free(struct broker *b, struct broker_queue *q)
{
    TQ_ASSERT(q->leased == 0 && q->getters == NULL && q->putters == NULL && q->joiners == NULL);
    q->removed = false; /* so that its last task does not take it away under us */
    broker_queue_drop_ready(b, q);
    broker_queue_unmark(b, q);
    broker_queue_clear_short(b, q);
    broker_heap_deinit(&q->heap);
    tq_free(q);
}

void broker_queue_free_if_removed(struct broker *b, struct broker_queue *q)
{
    if (!q->removed || q->ready > 0 || q->leased > 0 || q->getters != NULL || q->putters != NULL ||
        q->joiners != NULL)
        return;
    DL_DELETE2(b->removed, q, removed_prev, removed_next);
    broker_queue_free(b, q);
}

int broker_queue_push(struct broker *b, struct broker_queue *q, struct broker_task *t,
                      char text[BROKER_TEXT_MAX])
{
    int rv;

    switch (q->conf.kind) {
    case BROKER_FIFO:
        DL_APPEND(q->list, t);
        break;
    case BROKER_LIFO:
        DL_PREPEND(q->list, t);
        break;
    case BROKER_PRIORITY:
        rv = broker_heap_reserve(&q->heap, q->ready + q->leased + 1);
        if (rv == TQ_OK)
            rv = broker_heap_push(&q->heap, t, b->less, text);
        if (rv != TQ_OK)
            return rv;
        break;
    }
    broker_task_set_state(b, t, BROKER_TASK_READY);
    return TQ_OK;
}

int broker_queue_take(struct broker *b, struct broker_queue *q, struct broker_task **ret_task,
                      char text[BROKER_TEXT_MAX])
{
    struct broker_task *t = q->list;

    if (t == NULL)
        return broker_heap_pop(&q->heap, b->less, ret_task, text);
    DL_DELETE(q->list, t);
    *ret_task = t;
    return TQ_OK;
}

void broker_queue_return(struct broker *b, struct broker_queue *q, struct broker_task *t)
{
    char text[BROKER_TEXT_MAX];

    if (q->removed) {
        b->stats.dropped++;
        broker_task_end(b, t);
        return;
    }
    /* What was comparable when it was put need not be so with what came since; it must not be lost, so
     * it stands before the heap. The heap has room: see broker_queue_push. */
    if (q->conf.kind != BROKER_PRIORITY || broker_heap_push(&q->heap, t, b->less, text) != TQ_OK)
        DL_PREPEND(q->list, t);
    broker_task_set_state(b, t, BROKER_TASK_READY);
    broker_queue_mark(b, q);
}

void broker_queue_drop_ready(struct broker *b, struct broker_queue *q)
{
    b->stats.dropped += q->ready;
    while (q->list != NULL) {
        struct broker_task *t = q->list;

        DL_DELETE(q->list, t);
        broker_task_end(b, t);
    }
    while (q->heap.count > 0)
        broker_task_end(b, q->heap.list[--q->heap.count]);
    TQ_ASSERT(q->ready == 0);
}

void broker_queue_mark(struct broker *b, struct broker_queue *q)
{
    if (q->marked)
        return;
    q->marked = true;
    DL_APPEND2(b->marked, q, marked_prev, marked_next);
}

void broker_queue_unmark(struct broker *b, struct broker_queue *q)
{
    if (!q->marked)
        return;
    q->marked = false;
    DL_DELETE2(b->marked, q, marked_prev, marked_next);
}

void broker_queue_set_short(struct broker *b, struct broker_queue *q, enum broker_memory_class c)
{
    if (q->is_short && q->short_class == c)
        return;
    broker_queue_clear_short(b, q);
    q->is_short = true;
    q->short_class = (uint8_t)c;
    DL_APPEND2(b->short_of_memory[c], q, short_prev, short_next);
}

void broker_queue_clear_short(struct broker *b, struct broker_queue *q)
{
    if (!q->is_short)
        return;
    q->is_short = false;
    DL_DELETE2(b->short_of_memory[q->short_class], q, short_prev, short_next);
}
