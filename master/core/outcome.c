/* Ends of tasks. Each is prepared first, which is all that can fail, and then happens whole: the successor
 * takes the task's id over, so that at any moment an id names a task, or its end, or nothing. */
#include "master/core/outcome.h"

#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker_impl.h"
#include "master/core/idwait.h"
#include "master/core/kept.h"
#include "master/core/lease.h"
#include "master/core/policy.h"
#include "master/core/queue.h"
#include "master/core/task.h"
#include "master/core/timer.h"

#define TASK_ENDED (TASK_RESULT | TASK_DEAD)

/* As much of a text as may be kept, without half a UTF-8 character at its end. */
static struct tq_span cut(struct tq_span text, size_t max)
{
    size_t len = max;

    if (text.len <= max)
        return text;
    while (len > max - 3 && (text.data[len] & 0xc0) == 0x80)
        len--;
    return tq_span(text.data, len);
}

void broker_queue_finished_one(struct broker *b, struct broker_queue *q)
{
    if (q->unfinished > 0 && --q->unfinished == 0 && q->joiners != NULL)
        broker_queue_mark(b, q);
}

/* The result queue of the task's own; *ret_is_own: it said where its result goes, if only that it goes
 * nowhere. */
static struct broker_queue *own_result_queue(const struct broker *b, const struct broker_extra *x,
                                             bool *ret_is_own)
{
    *ret_is_own = x != NULL && x->result != TASK_POLICY;
    return *ret_is_own ? broker_queue_of(b, x->result, x->result_serial) : NULL;
}

static struct broker_queue *result_queue(struct broker *b, struct broker_queue *q,
                                         const struct broker_extra *x, const struct broker_ending *e)
{
    struct broker_queue *to = e->result_to != NULL && !e->result_to->removed ? e->result_to : NULL;
    struct broker_queue *policy;
    bool is_own;
    struct broker_queue *own = own_result_queue(b, x, &is_own);

    if (is_own)
        return own;
    if (to != NULL && !e->result_to_last)
        return to;
    policy = broker_queue_result(b, q);
    return policy != NULL ? policy : to;
}

static uint32_t retention_ms(const struct broker_queue *q, const struct broker_extra *x, bool has_queue)
{
    uint32_t ms = x != NULL ? x->retention_ms : BROKER_RETENTION_AUTO;

    if (ms == BROKER_RETENTION_AUTO)
        ms = q->conf.retention_ms;
    if (ms == BROKER_RETENTION_AUTO)
        ms = !has_queue || (x != NULL && x->key != NULL) ? BROKER_RETENTION_MS : 0;
    return ms;
}

/* Nobody said how long its result is to be there, or needs it to be. */
static bool is_unasked(const struct broker_queue *q, const struct broker_extra *x)
{
    return q->conf.retention_ms == BROKER_RETENTION_AUTO &&
           (x == NULL ||
            (x->key_len == 0 && x->result != TASK_NO_QUEUE && x->retention_ms == BROKER_RETENTION_AUTO));
}

bool broker_task_leaves_result(struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);

    return x != NULL && (broker_task_flags(t) & TASK_ENDED) == 0 &&
           (x->key_len > 0 || x->result == TASK_NO_QUEUE || x->retention_ms != BROKER_RETENTION_AUTO);
}

/* What a result and a dead letter say of the end of a task. x: the task's own extra, or NULL. */
static void describe(const struct broker *b, const struct broker_queue *q, struct broker_task *t,
                     const struct broker_extra *x, const struct broker_ending *e,
                     struct broker_extra_spec *ret)
{
    unsigned tries = t->attempts + (e->outcome == BROKER_OUTCOME_OK ? 1u : 0u);

    *ret = (struct broker_extra_spec){
        .fixed = {.ended_ms = b->now_ms,
                  .started_ms = e->started_ms,
                  .result = TASK_POLICY,
                  .from = q->index,
                  .from_serial = q->serial,
                  .outcome = (uint8_t)e->outcome,
                  .tries = (uint8_t)(tries > UINT8_MAX ? UINT8_MAX : tries)},
        .worker = cut(e->worker, BROKER_WORKER_MAX),
    };
    if (e->failure != NULL) {
        ret->fixed.code = e->failure->code;
        ret->error = cut(e->failure->error, BROKER_ERROR_MAX);
    }
    if (x == NULL)
        return;
    ret->key = broker_task_key(t);
    ret->trace = broker_task_trace(t);
    ret->fixed.priority = x->priority;
    if (e->outcome == BROKER_OUTCOME_OK)
        return;
    if (e->failure == NULL) {
        ret->fixed.code = x->code;
        ret->error = broker_task_error(t);
    }
    if (e->started_ms == 0) {
        ret->fixed.started_ms = x->started_ms;
        ret->worker = broker_task_worker(t);
    }
}

static bool fits_memory(struct broker *b, uint64_t cost, uint64_t instead_of)
{
    uint64_t limit = b->limits.memory_bytes;

    return limit == 0 || cost <= instead_of ||
           broker_kept_give_way(b, b->stats.body_bytes - instead_of, limit, cost);
}

static int prepare_notice(struct broker *b, struct broker_extra_spec spec, uint64_t id, uint64_t instead_of,
                          struct broker_end_plan *plan)
{
    int rv;

    if (!fits_memory(b, instead_of + BROKER_BODY_OVERHEAD_BYTES, instead_of))
        return TQ_ENOMEM;
    spec.fixed.of = id;
    spec.fixed.retention_ms = 0;
    plan->notice = broker_task_new(b, plan->notice_to, NULL, &spec, TASK_RESULT);
    if (plan->notice == SLAB_NONE)
        return TQ_ENOMEM;
    rv = broker_queue_reserve(plan->notice_to);
    return rv == TQ_OK ? broker_task_name(b, plan->notice) : rv;
}

static int prepare_dead_letter(struct broker *b, uint32_t slot, struct broker_queue *dead,
                               struct broker_extra_spec *spec, struct broker_end_plan *plan)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_extra *x = broker_task_extra(t);
    struct broker_payload body;
    bool is_own;
    int rv;

    broker_task_payload(b, slot, &body);
    spec->fixed.retention_ms = BROKER_RETENTION_AUTO;
    if (x != NULL) { /* for the day when it is tried again */
        spec->fixed.result = x->result;
        spec->fixed.result_serial = x->result_serial;
        spec->fixed.retention_ms = x->retention_ms;
        spec->fixed.max_attempts = x->max_attempts;
    }
    plan->to = dead;
    plan->successor = broker_task_new(b, dead, &body, spec, TASK_DEAD);
    if (plan->successor == SLAB_NONE)
        return TQ_ENOMEM;
    rv = broker_queue_reserve(dead);
    if (rv != TQ_OK)
        return rv;
    plan->notice_to = own_result_queue(b, x, &is_own);
    if (plan->notice_to == NULL || plan->notice_to == dead)
        return TQ_OK;
    spec->fixed.result = TASK_POLICY;
    return prepare_notice(b, *spec, broker_task_id(t), broker_task_cost(b, slot), plan);
}

static int prepare_result(struct broker *b, uint32_t slot, const struct broker_ending *e,
                          struct broker_extra_spec *spec, struct broker_end_plan *plan)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    const struct broker_extra *x = broker_task_extra(t);
    uint64_t cost = BROKER_BODY_OVERHEAD_BYTES + (e->value != NULL ? e->value->len : 0);

    plan->to = result_queue(b, q, x, e);
    spec->fixed.retention_ms = retention_ms(q, x, plan->to != NULL);
    spec->fixed.gives_way = is_unasked(q, x);
    if (e->is_ack)
        plan->to = NULL;
    plan->vanish = plan->to == NULL && spec->fixed.retention_ms == 0;
    if (plan->vanish && !broker_idwait_has(b, broker_task_id(t)))
        return TQ_OK;
    if (!fits_memory(b, cost, broker_task_cost(b, slot)))
        return TQ_ENOMEM;
    plan->successor = broker_task_new(b, plan->to != NULL ? plan->to : q, e->value, spec, TASK_RESULT);
    if (plan->successor == SLAB_NONE)
        return TQ_ENOMEM;
    if (spec->fixed.retention_ms > 0 && broker_timer_prepare(b, plan->successor) != TQ_OK)
        return TQ_ENOMEM;
    return plan->to != NULL ? broker_queue_reserve(plan->to) : TQ_OK;
}

int broker_end_prepare(struct broker *b, uint32_t slot, const struct broker_ending *e,
                       struct broker_end_plan *ret_plan)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    const struct broker_extra *x = broker_task_extra(t);
    bool is_drop = e->outcome == BROKER_OUTCOME_CANCELED || e->outcome == BROKER_OUTCOME_PURGED;
    struct broker_queue *dead = NULL;
    struct broker_extra_spec spec;
    bool is_own;
    int rv;

    *ret_plan = (struct broker_end_plan){.outcome = e->outcome};
    if ((broker_task_flags(t) & TASK_ENDED) != 0 || (is_drop && own_result_queue(b, x, &is_own) == NULL))
        return TQ_OK;
    if (!is_drop && e->outcome != BROKER_OUTCOME_OK)
        dead = broker_queue_dead(b, q);
    describe(b, q, t, x, e, &spec);
    rv = dead != NULL ? prepare_dead_letter(b, slot, dead, &spec, ret_plan)
                      : prepare_result(b, slot, e, &spec, ret_plan);
    if (rv != TQ_OK)
        broker_end_discard(b, ret_plan);
    return rv;
}

void broker_end_discard(struct broker *b, const struct broker_end_plan *plan)
{
    broker_task_discard(b, plan->successor);
    broker_task_discard(b, plan->notice);
}

static void count(struct broker *b, struct broker_queue *q, const struct broker_end_plan *plan)
{
    switch (plan->outcome) {
    case BROKER_OUTCOME_OK:
        b->stats.acked++;
        q->stats.done++;
        break;
    case BROKER_OUTCOME_EXPIRED:
        b->stats.expired++;
        q->stats.expired++;
        break;
    case BROKER_OUTCOME_CANCELED:
        b->stats.dropped++;
        q->stats.dropped++;
        break;
    default:
        break;
    }
    if (plan->successor != SLAB_NONE &&
        (broker_task_flags(broker_task_at(b->slab, plan->successor)) & TASK_DEAD) != 0) {
        b->stats.dead++;
        q->stats.dead++;
    }
}

/* A result or dead letter that has its id comes into its queue. */
static void place(struct broker *b, struct broker_queue *q, uint32_t slot)
{
    q->unfinished++;
    q->stats.puts++;
    b->stats.puts++;
    broker_queue_touch(b, q);
    broker_queue_return(b, q, slot, true);
}

static void keep(struct broker *b, uint32_t slot)
{
    struct broker_extra *x = broker_task_extra(broker_task_at(b->slab, slot));

    x->expires_ms = broker_after(b->now_ms, x->retention_ms);
    broker_task_set_state(b, slot, BROKER_TASK_KEPT);
}

/* Nothing takes its place. */
static void end_for_good(struct broker *b, uint32_t slot, enum broker_task_outcome outcome)
{
    bool is_drop = outcome == BROKER_OUTCOME_CANCELED || outcome == BROKER_OUTCOME_PURGED;

    if (!is_drop && broker_task_keep(b, slot))
        return;
    broker_idwait_ended(b, broker_task_id(broker_task_at(b->slab, slot)), slot, outcome);
    broker_task_end(b, slot);
}

void broker_end_commit(struct broker *b, uint32_t slot, const struct broker_end_plan *plan)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    uint64_t id = broker_task_id(t);
    uint32_t epoch = t->epoch;

    count(b, q, plan);
    if (!plan->uncounted)
        broker_queue_finished_one(b, q);
    if (plan->successor == SLAB_NONE) {
        end_for_good(b, slot, plan->outcome);
        return;
    }
    broker_take_room(b, broker_task_cost(b, plan->successor));
    broker_task_at(b->slab, plan->successor)->epoch = epoch < BROKER_EPOCH_MAX ? epoch + 1 : epoch;
    broker_task_succeed(b, slot, plan->successor); /* q may be gone now */
    if (plan->to != NULL)
        place(b, plan->to, plan->successor);
    else
        keep(b, plan->successor);
    if (plan->vanish)
        end_for_good(b, plan->successor, plan->outcome);
    else
        broker_idwait_ended(b, id, SLAB_NONE, plan->outcome);
    if (plan->notice != SLAB_NONE)
        place(b, plan->notice_to, plan->notice);
}

int broker_task_finish(struct broker *b, uint32_t slot, const struct broker_ending *e)
{
    struct broker_end_plan plan;
    int rv = broker_end_prepare(b, slot, e, &plan);

    if (rv == TQ_OK)
        broker_end_commit(b, slot, &plan);
    return rv;
}

int broker_task_finish_linked(struct broker *b, uint32_t slot, const struct broker_ending *e)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    struct broker_end_plan plan;
    int rv = broker_end_prepare(b, slot, e, &plan);

    if (rv != TQ_OK)
        return rv;
    if (broker_task_state(t) == BROKER_TASK_DELAYED) {
        broker_queue_undelay(b, q, slot);
    } else if (!broker_queue_unlink(b, q, &slot)) {
        broker_end_discard(b, &plan);
        return TQ_ENOMEM;
    }
    if (q->putters != NULL)
        broker_queue_mark(b, q);
    broker_end_commit(b, slot, &plan);
    return TQ_OK;
}

/* Without memory for another: the task itself becomes its result, which has the room that it needs, but for
 * the worker. It has its timer since it was handed out. */
static void become_result(struct broker *b, uint32_t slot, const struct broker_extra_spec *spec)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);

    broker_task_become_result(b, slot, spec);
    keep(b, slot);
    broker_idwait_ended(b, broker_task_id(t), SLAB_NONE, BROKER_OUTCOME_OK);
    if (q->removed)
        broker_queue_mark(b, q); /* it may go now */
}

int broker_ack_prepare(struct broker *b, uint32_t slot, const struct broker_session *s, uint64_t started_ms,
                       struct broker_end_plan *ret_plan)
{
    struct broker_task *t = broker_task_at(b->slab, slot);

    *ret_plan = (struct broker_end_plan){.outcome = BROKER_OUTCOME_OK};
    if (!broker_task_leaves_result(t) && !broker_idwait_has(b, broker_task_id(t)))
        return TQ_OK;
    return broker_end_prepare(
        b, slot,
        &(struct broker_ending){
            .outcome = BROKER_OUTCOME_OK, .is_ack = true, .worker = s->worker, .started_ms = started_ms},
        ret_plan);
}

void broker_task_ack(struct broker *b, uint32_t slot, const struct broker_session *s, uint64_t started_ms)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    const struct broker_ending e = {.outcome = BROKER_OUTCOME_OK, .started_ms = started_ms};
    const struct broker_extra *x = broker_task_extra(t);
    struct broker_end_plan plan;
    struct broker_extra_spec spec;
    uint32_t ms;

    if (broker_ack_prepare(b, slot, s, started_ms, &plan) != TQ_OK) {
        plan = (struct broker_end_plan){.outcome = BROKER_OUTCOME_OK};
        ms = broker_task_leaves_result(t) ? retention_ms(q, x, result_queue(b, q, x, &e) != NULL) : 0;
        if (ms > 0) {
            describe(b, q, t, x, &e, &spec);
            spec.fixed.retention_ms = ms;
            count(b, q, &plan);
            become_result(b, slot, &spec);
            return;
        }
    }
    plan.uncounted = true; /* task_done will be said */
    broker_end_commit(b, slot, &plan);
}

bool broker_task_keep(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    const struct broker_extra *x = broker_task_extra(t);
    struct broker_queue *q = broker_task_queue(b, t);

    if ((broker_task_flags(t) & TASK_RESULT) == 0 || x == NULL || x->retention_ms == 0)
        return false;
    keep(b, slot);
    if (q->removed)
        broker_queue_mark(b, q); /* it may go now */
    return true;
}

/* splitmix64: spreads ids and attempts that follow each other. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t broker_backoff_ms(const struct broker_queue_conf *c, uint64_t id, uint32_t attempt)
{
    uint32_t doublings = attempt > 1 ? attempt - 1 : 0;
    uint64_t ms = c->retry_ms;

    if (doublings >= 32 || ms << doublings > c->retry_max_ms)
        ms = ms > 0 ? c->retry_max_ms : 0;
    else
        ms <<= doublings;
    return ms - mix(id ^ (uint64_t)attempt << 56) % (ms / 2 + 1);
}

void broker_task_retry(struct broker *b, uint32_t slot, const struct broker_ending *e)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q = broker_task_queue(b, t);
    const struct broker_failure *f = e->failure;
    uint64_t delay_ms =
        f->has_delay ? f->delay_ms : broker_backoff_ms(&q->conf, broker_task_id(t), t->attempts);
    int rv = TQ_OK;

    if ((broker_task_flags(t) & TASK_ENDED) == 0)
        rv = broker_task_note_failure(b, &slot, e->worker, e->started_ms, f);
    if (rv == TQ_OK && delay_ms > 0)
        rv = broker_timer_prepare(b, slot);
    if (rv == TQ_OK && delay_ms > 0)
        broker_queue_delay(b, q, slot, broker_after(b->now_ms, delay_ms));
    else
        broker_queue_return(b, q, slot, false);
}

/* A stock worker knows one queue for results, that of its tasks' queue: what it puts there is the result of
 * its task even if that one said where its own result goes, and then goes there. */
static bool brings_result(struct broker *b, struct broker_queue *q, const struct broker_extra *x,
                          const struct broker_queue *to)
{
    return to == broker_queue_result(b, q) || to == result_queue(b, q, x, &(struct broker_ending){0});
}

int broker_put_as_result(struct broker *b, const struct broker_event *ev)
{
    struct broker_session *s = ev->session;
    struct broker_lease *l = s->held;
    struct broker_end_plan plan;
    struct broker_queue *q;
    struct broker_task *t;
    uint32_t slot;
    int rv;

    if (s->native || s->held_count != 1 || !l->delivered || ev->queue->conf.kind == BROKER_PRIORITY)
        return 1;
    slot = l->slot;
    t = broker_task_at(b->slab, slot);
    q = broker_task_queue(b, t);
    if (q->conf.ack != BROKER_ACK_AUTO || (broker_task_flags(t) & TASK_ENDED) != 0 ||
        !brings_result(b, q, broker_task_extra(t), ev->queue))
        return 1;
    rv = broker_end_prepare(b, slot,
                            &(struct broker_ending){.outcome = BROKER_OUTCOME_OK,
                                                    .value = &ev->payload,
                                                    .worker = s->worker,
                                                    .started_ms = l->since_ms},
                            &plan);
    if (rv != TQ_OK)
        return rv;
    plan.uncounted = true;
    broker_end_commit(b, broker_lease_end(b, l), &plan);
    return TQ_OK;
}
