#include "master/core/deliver.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/effects.h"
#include "master/core/idwait.h"
#include "master/core/keys.h"
#include "master/core/lease.h"
#include "master/core/outcome.h"
#include "master/core/policy.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/session.h"
#include "master/core/task.h"
#include "master/core/timer.h"

/* ---- out ---- */

uint32_t broker_held_left(const struct broker *b, const struct broker_session *s,
                          const struct broker_queue *q)
{
    uint32_t limit = b->limits.held_per_session;
    uint32_t held = s->native ? s->held_count : s->held_explicit_count;

    if (limit == 0 || (!s->native && q->conf.ack != BROKER_ACK_EXPLICIT))
        return UINT32_MAX;
    return held < limit ? limit - held : 0;
}

/* The next task that may still be handed out, out of its queue. 0, BROKER_NOTHING, BROKER_HEAP_UNORDERED with
 * text, TQ_ENOMEM. */
static int take_next(struct broker *b, struct broker_queue *q, uint32_t *ret_slot, char text[BROKER_TEXT_MAX])
{
    struct broker_ending lost = {.outcome = BROKER_OUTCOME_LOST};

    while (q->ready > 0) {
        int rv = broker_queue_take(b, q, ret_slot, text);

        if (rv != TQ_OK)
            return rv;
        if (broker_task_is_overdue(b, *ret_slot)) {
            broker_task_expire(b, *ret_slot);
            continue;
        }
        if (broker_task_at(b->slab, *ret_slot)->epoch < BROKER_EPOCH_MAX)
            return TQ_OK;
        if (broker_task_finish(b, *ret_slot, &lost) != TQ_OK) { /* it has no epochs left */
            broker_queue_return(b, q, *ret_slot, false);
            return TQ_ENOMEM;
        }
    }
    return BROKER_NOTHING;
}

static void hand_out_leased(struct broker *b, const struct broker_want *want, uint32_t slot,
                            struct broker_effects *out)
{
    const struct broker_lease *l = broker_lease_grant(b, want->session, slot);
    struct broker_effect *e = broker_effects_add(
        out, want->session, want->token, want->session->native ? BROKER_REPLY_TASK : BROKER_REPLY_ITEM);

    e->was_parked = want->was_parked;
    e->slot = slot;
    e->id = l->id;
    e->epoch = l->epoch;
    e->attempt = (uint32_t)l->attempts + 1;
}

/* For good: the effect has a copy. TQ_ENOMEM: it is back in its place. */
static int hand_out_taken(struct broker *b, const struct broker_want *want, uint32_t slot,
                          struct broker_effects *out)
{
    struct broker_queue *q = want->queue;
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_end_plan plan;
    struct broker_effect *e;
    struct broker_view view;
    struct broker_view *copy;

    t->epoch++;
    broker_view_slot(b, slot, &view);
    copy = broker_view_copy(&view);
    if (copy == NULL || broker_ack_prepare(b, slot, want->session, b->now_ms, &plan) != TQ_OK) {
        broker_view_free(copy);
        t->epoch--;
        broker_queue_return(b, q, slot, false);
        return TQ_ENOMEM;
    }
    e = broker_effects_add(out, want->session, want->token, BROKER_REPLY_TASK);
    e->was_parked = want->was_parked;
    e->copy = copy;
    e->id = view.id;
    e->epoch = view.epoch;
    e->attempt = view.attempt;
    broker_end_commit(b, slot, &plan);
    return TQ_OK;
}

/* Up to n tasks. *ret_count of them, and why there were no more, as take_next. */
static int hand_out_some(struct broker *b, const struct broker_want *want, uint32_t n, uint32_t *ret_count,
                         char text[BROKER_TEXT_MAX], struct broker_effects *out)
{
    uint64_t bytes = 0;
    uint32_t count;
    int rv = TQ_OK;

    for (count = 0; count < n; count++) {
        uint32_t slot;

        rv = take_next(b, want->queue, &slot, text);
        if (rv != TQ_OK)
            break;
        /* What may end by a word of Python's that cannot fail has the timer of its result before. */
        if (!want->session->native && broker_task_leaves_result(broker_task_at(b->slab, slot)) &&
            broker_timer_prepare(b, slot) != TQ_OK) {
            broker_queue_return(b, want->queue, slot, false);
            rv = TQ_ENOMEM;
            break;
        }
        if (!want->session->native)
            broker_session_progress(b, want->session);
        if (want->max_bytes > 0)
            bytes += broker_task_cost(b, slot) - BROKER_BODY_OVERHEAD_BYTES;
        if (want->take)
            rv = hand_out_taken(b, want, slot, out);
        else
            hand_out_leased(b, want, slot, out);
        if (rv != TQ_OK)
            break;
        if (want->max_bytes > 0 && bytes >= want->max_bytes) {
            count++;
            break;
        }
    }
    *ret_count = count;
    return rv;
}

int broker_hand_out(struct broker *b, const struct broker_want *want, struct broker_effects *out)
{
    struct broker_queue *q = want->queue;
    struct broker_session *s = want->session;
    uint32_t left = want->take ? UINT32_MAX : broker_held_left(b, s, q);
    uint32_t n = want->max < left ? want->max : left, count;
    char text[BROKER_TEXT_MAX];
    struct broker_effect *e;
    int rv;

    n = n < q->ready ? n : (uint32_t)q->ready;
    n = n > 0 ? broker_queue_allowance(b, q, n) : 0;
    if (n == 0)
        return BROKER_NOTHING;
    if (broker_effects_reserve_more(out, (size_t)n + 1) != TQ_OK ||
        (!want->take && broker_lease_reserve(b, n) != TQ_OK))
        return TQ_ENOMEM;
    rv = hand_out_some(b, want, n, &count, text, out);
    if (count == 0) {
        if (rv != BROKER_HEAP_UNORDERED)
            return rv;
        if (!s->native)
            broker_session_progress(b, s);
        e = broker_effects_add_error(out, s, want->token, rv, text);
        e->was_parked = want->was_parked;
        return TQ_OK;
    }
    b->stats.gets += count;
    q->stats.gets += count;
    broker_queue_spend(b, q, count);
    broker_queue_touch(b, q);
    if (s->native) {
        e = broker_effects_add(out, s, want->token, BROKER_REPLY_END);
        e->was_parked = want->was_parked;
        e->number = count;
    }
    return TQ_OK;
}

/* ---- in ---- */

const char *broker_put_refusal(const struct broker_event *ev)
{
    const struct broker_put_options *o = ev->options;

    if (o == NULL)
        return NULL;
    if (o->priority != 0 && ev->queue->conf.kind != BROKER_PRIORITY)
        return "this queue has no priorities";
    if (o->key.len > BROKER_KEY_MAX)
        return "the key is too long";
    if (o->trace.len > BROKER_TRACE_MAX)
        return "the trace is too long";
    return NULL;
}

static bool needs_extra(const struct broker_queue *q, const struct broker_put_options *o)
{
    if (q->conf.ttl_ms > 0)
        return true;
    return o != NULL && (o->key.len > 0 || o->trace.len > 0 || o->priority != 0 || o->delay_ms > 0 ||
                         o->ttl_ms > 0 || o->max_attempts > 0 || o->has_result || o->has_retention);
}

uint32_t broker_put_make(struct broker *b, const struct broker_event *ev)
{
    static const struct broker_put_options nothing;
    const struct broker_put_options *o = ev->options != NULL ? ev->options : &nothing;
    struct broker_queue *q = ev->queue;
    struct broker_extra_spec spec;
    struct broker_extra *x = &spec.fixed;
    uint32_t slot;

    if (!needs_extra(q, o))
        return broker_task_new(b, q, &ev->payload, NULL, 0);
    spec = (struct broker_extra_spec){.key = o->key, .trace = o->trace};
    x->due_ms = o->delay_ms;
    x->expires_ms = o->ttl_ms > 0 ? o->ttl_ms : q->conf.ttl_ms;
    x->priority = o->priority;
    x->max_attempts = o->max_attempts;
    x->retention_ms = o->has_retention ? o->retention_ms : BROKER_RETENTION_AUTO;
    x->result = TASK_POLICY;
    if (o->has_result) {
        x->result = o->result != NULL ? o->result->index : TASK_NO_QUEUE;
        x->result_serial = o->result != NULL ? o->result->serial : 0;
    }
    slot = broker_task_new(b, q, &ev->payload, &spec, 0);
    if (slot == SLAB_NONE)
        return SLAB_NONE;
    if ((x->due_ms > 0 || x->expires_ms > 0) && broker_timer_prepare(b, slot) != TQ_OK) {
        broker_task_discard(b, slot);
        return SLAB_NONE;
    }
    return slot;
}

int broker_put_accept(struct broker *b, struct broker_queue *q, uint32_t slot, char text[BROKER_TEXT_MAX])
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_extra *x = broker_task_extra(t);
    uint64_t delay_ms = x != NULL ? x->due_ms : 0, ttl_ms = x != NULL ? x->expires_ms : 0;
    int rv = broker_task_name(b, slot);

    if (rv != TQ_OK)
        return rv;
    if (x != NULL && x->key_len > 0) {
        x->key = broker_key_add(b, q, broker_task_key(t), broker_task_id(t));
        if (x->key == NULL)
            rv = TQ_ENOMEM;
    }
    if (ttl_ms > 0)
        x->expires_ms = broker_after(b->now_ms, ttl_ms);
    if (rv == TQ_OK)
        rv = delay_ms > 0 ? broker_queue_reserve(q) : broker_queue_push(b, q, slot, text);
    if (rv != TQ_OK) {
        broker_task_unname(b, slot);
        if (ttl_ms > 0)
            x->expires_ms = ttl_ms;
        return rv;
    }
    if (delay_ms > 0)
        broker_queue_delay(b, q, slot, broker_after(b->now_ms, delay_ms));
    broker_take_room(b, broker_task_cost(b, slot));
    q->unfinished++;
    q->stats.puts++;
    b->stats.puts++;
    broker_queue_touch(b, q);
    if (q->getters != NULL)
        broker_queue_mark(b, q);
    return TQ_OK;
}

int broker_put_known(struct broker *b, struct broker_queue *q, struct tq_span key, struct broker_session *s,
                     uint64_t token, bool was_parked, struct broker_effects *out)
{
    const struct broker_key *k = key.len > 0 ? broker_key_find(b, q, key) : NULL;
    struct broker_view *copy = NULL;
    struct broker_effect *e;
    struct broker_view view;
    bool is_there;

    if (k == NULL)
        return BROKER_NOTHING;
    is_there = broker_view_task(b, k->id, &view);
    TQ_ASSERT(is_there);
    if (view.outcome != BROKER_OUTCOME_NONE) {
        copy = broker_view_copy(&view);
        if (copy == NULL)
            return TQ_ENOMEM;
    }
    e = broker_effects_add(out, s, token, BROKER_REPLY_KNOWN);
    e->was_parked = was_parked;
    e->id = view.id;
    e->copy = copy;
    b->stats.known++;
    return TQ_OK;
}
