#include "master/core/kept.h"

#include "common/assert.h"
#include "master/core/idwait.h"
#include "master/core/task.h"

static bool gives_way(struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);

    return x != NULL && x->gives_way;
}

void broker_kept_enter(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);

    if (!gives_way(t))
        return;
    t->link = SLAB_NONE;
    broker_task_extra(t)->prev = b->kept_last;
    if (b->kept_last != SLAB_NONE)
        broker_task_at(b->slab, b->kept_last)->link = slot;
    else
        b->kept_first = slot;
    b->kept_last = slot;
    b->kept_bytes += broker_task_cost(b, slot);
}

void broker_kept_leave(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    uint32_t prev, next = t->link;

    if (!gives_way(t))
        return;
    prev = broker_task_extra(t)->prev;
    if (prev != SLAB_NONE)
        broker_task_at(b->slab, prev)->link = next;
    else
        b->kept_first = next;
    if (next != SLAB_NONE)
        broker_task_extra(broker_task_at(b->slab, next))->prev = prev;
    else
        b->kept_last = prev;
    b->kept_bytes -= broker_task_cost(b, slot);
}

bool broker_kept_give_way(struct broker *b, uint64_t used, uint64_t ceiling, uint64_t body_cost)
{
    if (body_cost > ceiling)
        return false;
    if (used <= ceiling - body_cost)
        return true;
    if (used > b->kept_bytes && used - b->kept_bytes > ceiling - body_cost)
        return false;
    while (used > ceiling - body_cost) {
        uint32_t slot = b->kept_first;
        uint64_t id, cost;

        TQ_ASSERT(slot != SLAB_NONE);
        id = broker_task_id(broker_task_at(b->slab, slot));
        /* Those who have waited for it are served first. */
        if (b->gave_way == BROKER_GIVE_WAY_MAX || broker_idwait_has(b, id)) {
            (void)tq_deadline_set(b->deadlines, &b->retry, b->now_ms + 1); /* it has its place */
            return false;
        }
        cost = broker_task_cost(b, slot);
        used = used > cost ? used - cost : 0;
        b->gave_way++;
        b->stats.kept_dropped++;
        broker_task_end(b, slot);
    }
    return true;
}
