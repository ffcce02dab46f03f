/* What can be seen of tasks. */
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/idwait.h"
#include "master/core/lease.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/task.h"

static const char *state_name(const struct broker_task *t)
{
    unsigned flags = broker_task_flags(t);

    switch (broker_task_state(t)) {
    case BROKER_TASK_LEASED:
        return "leased";
    case BROKER_TASK_DELAYED:
        return "delayed";
    default:
        return (flags & TASK_DEAD) != 0 ? "dead" : (flags & TASK_RESULT) != 0 ? "done" : "ready";
    }
}

void broker_view_slot(const struct broker *b, uint32_t slot, struct broker_view *ret_view)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_extra *x = broker_task_extra(t);
    const struct broker_queue *from;
    uint64_t id = broker_task_id(t);

    *ret_view = (struct broker_view){
        .id = id,
        .of = id,
        .epoch = t->epoch,
        .attempt = t->attempts + 1u,
        .put_ms = ids_at_ms(b->ids, id),
        .state = state_name(t),
        .from = "",
    };
    if (broker_task_state(t) != BROKER_TASK_KEPT) /* that one's queue may have gone */
        ret_view->queue = broker_task_queue(b, t);
    broker_task_payload(b, slot, &ret_view->payload);
    if (x == NULL)
        return;
    ret_view->key = broker_task_key(t);
    ret_view->trace = broker_task_trace(t);
    ret_view->worker = broker_task_worker(t);
    ret_view->error = broker_task_error(t);
    ret_view->priority = x->priority;
    ret_view->expires_ms = x->expires_ms;
    ret_view->started_ms = x->started_ms;
    ret_view->ended_ms = x->ended_ms;
    ret_view->code = x->code;
    ret_view->outcome = (enum broker_task_outcome)x->outcome;
    ret_view->tries = x->tries;
    if (broker_task_state(t) == BROKER_TASK_DELAYED)
        ret_view->due_ms = x->due_ms;
    if (x->of != 0)
        ret_view->of = x->of;
    if ((broker_task_flags(t) & (TASK_RESULT | TASK_DEAD)) == 0)
        return;
    from = broker_queue_of(b, x->from, x->from_serial);
    if (from != NULL)
        ret_view->from = from->name;
}

bool broker_view_lease(const struct broker *b, const struct broker_effect *e, struct broker_view *ret_view)
{
    uint32_t slot = ids_find(b->ids, e->id); /* not e->slot: the task may have moved, its slot be another's */
    const struct broker_task *t;

    if (slot == SLAB_NONE)
        return false;
    t = broker_task_at(b->slab, slot);
    if (broker_task_state(t) != BROKER_TASK_LEASED || t->epoch != e->epoch)
        return false;
    broker_view_slot(b, slot, ret_view);
    return true;
}

bool broker_view_task(const struct broker *b, uint64_t id, struct broker_view *ret_view)
{
    uint32_t slot = broker_find_task(b, id);

    if (slot == SLAB_NONE)
        return false;
    broker_view_slot(b, slot, ret_view);
    return true;
}

bool broker_view_next(const struct broker *b, uint64_t from, unsigned *budget, struct broker_view *ret_view,
                      uint64_t *ret_resume)
{
    for (;;) {
        uint64_t id = ids_walk(b->ids, from, budget, ret_resume);

        if (id == 0)
            return false;
        if (broker_view_task(b, id, ret_view)) {
            *ret_resume = id + 1;
            return true;
        }
        from = id + 1; /* that one is being purged */
        if (*budget <= 1) {
            *budget = 0;
            *ret_resume = from;
            return false;
        }
        --*budget;
    }
}

void broker_session_leases(const struct broker *b, const struct broker_session *s,
                           void (*fn)(void *ctx, const struct broker_view *v), void *ctx)
{
    const struct broker_lease *lists[] = {s->held, s->native ? NULL : s->held_explicit};
    struct broker_view v;

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        for (const struct broker_lease *l = lists[i]; l != NULL; l = l->next) {
            broker_view_slot(b, l->slot, &v);
            fn(ctx, &v);
        }
}

static uint8_t *copy_span(uint8_t *at, struct tq_span *s)
{
    if (s->len > 0)
        memcpy(at, s->data, s->len);
    s->data = at;
    return at + s->len;
}

struct broker_view *broker_view_copy(const struct broker_view *v)
{
    bool is_shared = v->payload.body != NULL;
    struct tq_span body =
        tq_span(v->payload.data, v->payload.data != NULL && !is_shared ? v->payload.len : 0);
    struct tq_span from = tq_span(v->from, strlen(v->from) + 1);
    size_t size = sizeof(*v) + body.len + from.len + v->key.len + v->trace.len + v->worker.len + v->error.len;
    struct broker_view *copy = tq_malloc(size);
    uint8_t *at;

    if (copy == NULL)
        return NULL;
    *copy = *v;
    at = (uint8_t *)(copy + 1);
    at = copy_span(at, &body);
    at = copy_span(at, &from);
    at = copy_span(at, &copy->key);
    at = copy_span(at, &copy->trace);
    at = copy_span(at, &copy->worker);
    (void)copy_span(at, &copy->error);
    if (is_shared)
        tq_body_ref(copy->payload.body); /* however many wait for a large result: it is there once */
    else if (v->payload.data != NULL)
        copy->payload.data = body.data;
    copy->from = (const char *)from.data;
    return copy;
}

void broker_view_free(struct broker_view *copy)
{
    if (copy == NULL)
        return;
    tq_body_unref(copy->payload.body);
    tq_free(copy);
}
