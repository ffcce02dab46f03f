#include "master/core/queue.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/idwait.h"
#include "master/core/journal_impl.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/task.h"
#include "master/core/timer.h"

#define SWEEP_STEPS 4 /* for each burial: so that tombstones are never more than a third of the list */

/* ---- queues ---- */

/* The strings of a conf, which broker_conf_is_good has looked at. */
static int copy_strings(struct broker_queue_conf *c)
{
    char *result = c->result != NULL ? tq_strdup(c->result) : NULL;
    char *dead = c->dead != NULL ? tq_strdup(c->dead) : NULL;

    if ((c->result != NULL && result == NULL) || (c->dead != NULL && dead == NULL)) {
        tq_free(result);
        tq_free(dead);
        return TQ_ENOMEM;
    }
    c->result = result;
    c->dead = dead;
    return TQ_OK;
}

static void free_strings(const struct broker_queue_conf *c)
{
    tq_free((void *)(uintptr_t)c->result);
    tq_free((void *)(uintptr_t)c->dead);
}

int broker_queue_set_conf(struct broker_queue *q, const struct broker_queue_conf *conf)
{
    struct broker_queue_conf copy = *conf;
    int rv = copy_strings(&copy);

    if (rv != TQ_OK)
        return rv;
    free_strings(&q->conf);
    q->conf = copy;
    q->names_seen = 0;
    return TQ_OK;
}

/* A place in broker.queues. TQ_ELIMIT, TQ_ENOMEM. */
static int reserve_index(struct broker *b)
{
    uint32_t cap = b->queue_cap > 0 ? b->queue_cap * 2 : 16;
    struct broker_queue **queues;
    uint32_t *free_queues;

    if (b->free_queue_count > 0)
        return TQ_OK;
    if (cap > TASK_QUEUE_MAX)
        return TQ_ELIMIT;
    queues = tq_realloc(b->queues, cap * sizeof(struct broker_queue *));
    if (queues == NULL)
        return TQ_ENOMEM;
    b->queues = queues;
    free_queues = tq_realloc(b->free_queues, cap * sizeof(*free_queues));
    if (free_queues == NULL)
        return TQ_ENOMEM;
    b->free_queues = free_queues;
    for (uint32_t i = cap; i > b->queue_cap; i--) {
        queues[i - 1] = NULL;
        free_queues[b->free_queue_count++] = i - 1;
    }
    b->queue_cap = cap;
    return TQ_OK;
}

int broker_queue_new(struct broker *b, const char *name, size_t name_len,
                     const struct broker_queue_conf *conf, struct broker_queue **ret_queue)
{
    struct broker_queue *q;
    int rv = reserve_index(b);

    TQ_ASSERT(name_len <= BROKER_QUEUE_NAME_MAX);
    if (rv != TQ_OK)
        return rv;
    if (b->queue_next_serial >= BROKER_SERIAL_MAX)
        return TQ_ELIMIT;
    q = tq_calloc(1, sizeof(*q) + name_len + 1);
    if (q == NULL)
        return TQ_ENOMEM;
    rv = broker_queue_set_conf(q, conf);
    if (rv != TQ_OK) {
        tq_free(q);
        return rv;
    }
    memcpy(q->name, name, name_len);
    q->index = b->free_queues[--b->free_queue_count];
    q->serial = ++b->queue_next_serial;
    q->used_ms = b->now_ms;
    b->queues[q->index] = q;
    *ret_queue = q;
    return TQ_OK;
}

void broker_queue_free(struct broker *b, struct broker_queue *q)
{
    TQ_ASSERT(q->leased == 0 && q->getters == NULL && q->putters == NULL && q->joiners == NULL &&
              q->purging == 0);
    q->removed = false; /* so that its last task does not ask for it */
    broker_queue_drop_ready(b, q);
    journal_queue_gone(b, q);
    broker_queue_unmark(b, q);
    broker_queue_clear_short(b, q);
    broker_queue_unwatch(b, q);
    broker_heap_deinit(&q->heap);
    free_strings(&q->conf);
    b->queues[q->index] = NULL;
    b->free_queues[b->free_queue_count++] = q->index;
    tq_free(q);
}

void broker_queue_free_if_removed(struct broker *b, struct broker_queue *q)
{
    if (!q->removed || q->ready > 0 || q->delayed > 0 || q->leased > 0 || q->trash_colours != 0 ||
        q->getters != NULL || q->putters != NULL || q->joiners != NULL)
        return;
    DL_DELETE2(b->removed, q, removed_prev, removed_next);
    broker_queue_free(b, q);
}

static struct broker_queue *by_name(struct broker *b, const char *name)
{
    return name != NULL ? broker_find(b, tq_span_str(name)) : NULL;
}

static void look_names_up(struct broker *b, struct broker_queue *q)
{
    if (q->names_seen == b->names_changed)
        return;
    q->result = by_name(b, q->conf.result);
    q->dead = by_name(b, q->conf.dead);
    q->names_seen = b->names_changed;
}

struct broker_queue *broker_queue_result(struct broker *b, struct broker_queue *q)
{
    look_names_up(b, q);
    return q->result;
}

struct broker_queue *broker_queue_dead(struct broker *b, struct broker_queue *q)
{
    look_names_up(b, q);
    return q->dead;
}

/* ---- the list of ready ones ---- */

static inline void set_prev(struct broker *b, uint32_t slot, uint32_t prev)
{
    struct broker_extra *x = broker_task_extra(broker_task_at(b->slab, slot));

    if (x != NULL)
        x->prev = prev;
}

static void append(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    journal_put_last(b, slot);
    broker_task_at(b->slab, slot)->link = SLAB_NONE;
    set_prev(b, slot, q->tail);
    if (q->tail != SLAB_NONE)
        broker_task_at(b->slab, q->tail)->link = slot;
    else
        q->head = slot;
    q->tail = slot;
}

static void prepend(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    journal_put_first(b, slot);
    broker_task_at(b->slab, slot)->link = q->head;
    set_prev(b, slot, SLAB_NONE);
    if (q->head != SLAB_NONE)
        set_prev(b, q->head, slot);
    else
        q->tail = slot;
    q->head = slot;
}

static void unlink_after(struct broker *b, struct broker_queue *q, uint32_t prev, uint32_t slot)
{
    uint32_t next = broker_task_at(b->slab, slot)->link;

    if (prev != SLAB_NONE)
        broker_task_at(b->slab, prev)->link = next;
    else
        q->head = next;
    if (next != SLAB_NONE)
        set_prev(b, next, prev);
    else
        q->tail = prev;
    if (q->sweep == slot)
        q->sweep = prev;
}

static bool is_tombstone(const struct broker *b, uint32_t slot)
{
    return broker_task_state(broker_task_at(b->slab, slot)) == BROKER_TASK_GONE;
}

/* A few tombstones are looked for and taken out, wherever the last look ended. */
static void sweep(struct broker *b, struct broker_queue *q)
{
    for (int i = 0; i < SWEEP_STEPS && q->buried > 0; i++) {
        uint32_t slot = q->sweep != SLAB_NONE ? broker_task_at(b->slab, q->sweep)->link : q->head;

        if (slot == SLAB_NONE) {
            q->sweep = SLAB_NONE;
        } else if (is_tombstone(b, slot)) {
            unlink_after(b, q, q->sweep, slot);
            q->buried--;
            broker_task_drop_tombstone(b, slot);
        } else {
            q->sweep = slot;
        }
    }
}

void broker_queue_entomb(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    if (broker_task_at(b->slab, slot)->link == TASK_IN_HEAP) {
        broker_heap_bury(b, &q->heap);
        return;
    }
    broker_task_strip_tombstone(b, slot);
    q->buried++;
    sweep(b, q);
}

/* ---- in and out ---- */

int broker_queue_reserve(struct broker_queue *q)
{
    if (q->conf.kind != BROKER_PRIORITY)
        return TQ_OK;
    return broker_heap_reserve(&q->heap, q->ready + q->delayed + q->leased + q->heap.buried + 1);
}

static int push_heap(const struct broker *b, struct broker_queue *q, uint32_t slot,
                     char text[BROKER_TEXT_MAX])
{
    int rv = broker_heap_push(b, &q->heap, slot, text);

    if (rv == TQ_OK) {
        broker_task_at(b->slab, slot)->link = TASK_IN_HEAP;
        journal_put_last(b, slot);
    }
    return rv;
}

int broker_queue_push(struct broker *b, struct broker_queue *q, uint32_t slot, char text[BROKER_TEXT_MAX])
{
    int rv;

    switch (q->conf.kind) {
    case BROKER_FIFO:
        append(b, q, slot);
        break;
    case BROKER_LIFO:
        prepend(b, q, slot);
        break;
    case BROKER_PRIORITY:
        rv = broker_queue_reserve(q);
        if (rv == TQ_OK)
            rv = push_heap(b, q, slot, text);
        if (rv != TQ_OK)
            return rv;
        break;
    }
    broker_task_set_colour(broker_task_at(b->slab, slot), q->colour);
    broker_task_set_state(b, slot, BROKER_TASK_READY);
    return TQ_OK;
}

int broker_queue_take(struct broker *b, struct broker_queue *q, uint32_t *ret_slot,
                      char text[BROKER_TEXT_MAX])
{
    TQ_ASSERT(q->ready > 0);
    for (;;) {
        uint32_t slot = q->head;

        if (slot != SLAB_NONE) {
            unlink_after(b, q, SLAB_NONE, slot);
            if (is_tombstone(b, slot))
                q->buried--;
        } else {
            int rv = broker_heap_pop(b, &q->heap, &slot, text);

            if (rv != TQ_OK)
                return rv;
            if (is_tombstone(b, slot))
                q->heap.buried--;
        }
        if (!is_tombstone(b, slot)) {
            broker_task_at(b->slab, slot)->link = SLAB_NONE;
            *ret_slot = slot;
            return TQ_OK;
        }
        broker_task_drop_tombstone(b, slot);
    }
}

/* What was comparable when it was put need not be so with what came since; it must not be lost, so it stands
 * before the heap. The heap has room: see broker_queue_reserve. */
static bool goes_into_heap(const struct broker *b, struct broker_queue *q, uint32_t slot)
{
    char text[BROKER_TEXT_MAX];

    return q->conf.kind == BROKER_PRIORITY && broker_heap_reserve(&q->heap, q->heap.count + 1) == TQ_OK &&
           push_heap(b, q, slot, text) == TQ_OK;
}

void broker_queue_return(struct broker *b, struct broker_queue *q, uint32_t slot, bool at_end)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    enum broker_task_state state = broker_task_state(t);

    if (q->removed) {
        broker_purge_returned(b, slot);
        return;
    }
    if (q->getters != NULL)
        broker_queue_mark(b, q);
    if (state != BROKER_TASK_NEW && broker_task_is_overdue(b, slot)) {
        broker_task_expire(b, slot);
        return;
    }
    broker_task_set_colour(t, q->colour);
    if (!goes_into_heap(b, q, slot)) {
        if (at_end && q->conf.kind == BROKER_FIFO)
            append(b, q, slot);
        else
            prepend(b, q, slot);
    }
    if (state != BROKER_TASK_READY)
        broker_task_set_state(b, slot, BROKER_TASK_READY);
    else
        journal_note_task(b, slot, 0, JOURNAL_NO_WAIT); /* it stands elsewhere */
}

bool broker_queue_unlink(struct broker *b, struct broker_queue *q, uint32_t *slot)
{
    struct broker_task *t = broker_task_at(b->slab, *slot);
    const struct broker_extra *x = broker_task_extra(t);
    uint32_t moved;

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_READY);
    if (t->link != TASK_IN_HEAP && (x != NULL || q->head == *slot)) {
        unlink_after(b, q, x != NULL ? x->prev : SLAB_NONE, *slot);
        t->link = SLAB_NONE;
        return true;
    }
    moved = broker_task_move_out(b, *slot);
    if (moved == SLAB_NONE)
        return false;
    *slot = moved;
    return true;
}

void broker_queue_relink_delayed(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);

    t->link = q->delayed_head;
    broker_task_extra(t)->prev = SLAB_NONE;
    if (q->delayed_head != SLAB_NONE)
        set_prev(b, q->delayed_head, slot);
    q->delayed_head = slot;
}

void broker_queue_delay(struct broker *b, struct broker_queue *q, uint32_t slot, uint64_t due_ms)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_extra *x = broker_task_extra(t);

    TQ_ASSERT(x != NULL && x->timer != NULL);
    if (q->removed) {
        broker_purge_returned(b, slot);
        return;
    }
    x->due_ms = due_ms;
    broker_task_set_colour(t, q->colour);
    broker_queue_relink_delayed(b, q, slot);
    journal_put_last(b, slot);
    broker_task_set_state(b, slot, BROKER_TASK_DELAYED);
}

void broker_queue_undelay(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    uint32_t prev = broker_task_extra(t)->prev, next = t->link;

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_DELAYED);
    if (prev != SLAB_NONE)
        broker_task_at(b->slab, prev)->link = next;
    else
        q->delayed_head = next;
    if (next != SLAB_NONE)
        set_prev(b, next, prev);
    t->link = SLAB_NONE;
}

/* ---- all at once ---- */

int broker_queue_give_up(struct broker *b, struct broker_queue *q, struct broker_queue_lists *ret)
{
    struct broker_heap heap = {0};
    int rv = q->conf.kind == BROKER_PRIORITY && q->leased > 0 ? broker_heap_reserve(&heap, q->leased) : TQ_OK;

    if (rv != TQ_OK)
        return rv;
    *ret = (struct broker_queue_lists){.head = q->head, .delayed = q->delayed_head, .heap = q->heap};
    q->head = q->tail = q->delayed_head = q->sweep = SLAB_NONE;
    q->buried = 0;
    q->heap = heap;
    q->purging += q->ready + q->delayed;
    b->stats.delayed -= q->delayed;
    q->ready = q->delayed = 0;
    return TQ_OK;
}

static void drop(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    if (is_tombstone(b, slot)) {
        broker_task_drop_tombstone(b, slot);
        return;
    }
    b->stats.dropped++;
    q->stats.dropped++;
    broker_idwait_ended(b, broker_task_id(broker_task_at(b->slab, slot)), slot, BROKER_OUTCOME_PURGED);
    broker_task_end(b, slot);
}

void broker_queue_drop_ready(struct broker *b, struct broker_queue *q)
{
    while (q->head != SLAB_NONE) {
        uint32_t slot = q->head;

        q->head = broker_task_at(b->slab, slot)->link;
        drop(b, q, slot);
    }
    while (q->delayed_head != SLAB_NONE) {
        uint32_t slot = q->delayed_head;

        q->delayed_head = broker_task_at(b->slab, slot)->link;
        drop(b, q, slot);
    }
    while (q->heap.count > 0) {
        uint32_t slot = q->heap.list[--q->heap.count];

        q->heap.buried -= is_tombstone(b, slot);
        drop(b, q, slot);
    }
    q->tail = q->sweep = SLAB_NONE;
    q->buried = 0;
    TQ_ASSERT(q->ready == 0 && q->delayed == 0);
}

/* ---- lists of queues ---- */

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
