/* Who waits is served here, at the end of each step: each hand-out, each put that gets its place, is one
 * small change that either happens whole or, for lack of memory, later. */
#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker_impl.h"
#include "master/core/deliver.h"
#include "master/core/effects.h"
#include "master/core/idwait.h"
#include "master/core/kept.h"
#include "master/core/keys.h"
#include "master/core/outcome.h"
#include "master/core/queue.h"
#include "master/core/session.h"
#include "master/core/task.h"

#define DONE 1 /* nobody can be served any more */

uint64_t broker_memory_ceiling(const struct broker *b, enum broker_memory_class c)
{
    uint64_t limit = b->limits.memory_bytes;

    if (limit == 0)
        return UINT64_MAX;
    return c == BROKER_COMPLETION ? limit : limit - limit / 8;
}

/* What bodies take when the session's next call has acknowledged what it does by that. */
static uint64_t used_bytes(const struct broker *b, const struct broker_session *s)
{
    uint64_t used = b->stats.body_bytes;
    const struct broker_lease *l;

    if (s != NULL && !s->native)
        DL_FOREACH(s->held, l)
        {
            used -= broker_task_cost(b, l->slot);
        }
    return used;
}

bool broker_memory_fits(const struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                        uint64_t body_cost)
{
    uint64_t ceiling = broker_memory_ceiling(b, c);

    if ((b->refuses && c == BROKER_NEW_WORK) || body_cost > b->room[c])
        return false;
    if (b->limits.memory_bytes == 0)
        return true;
    return body_cost <= ceiling && used_bytes(b, s) <= ceiling - body_cost;
}

static bool make_room(struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                      uint64_t body_cost)
{
    if ((b->refuses && c == BROKER_NEW_WORK) || body_cost > b->room[c])
        return false;
    if (b->limits.memory_bytes == 0)
        return true;
    return broker_kept_give_way(b, used_bytes(b, s), broker_memory_ceiling(b, c), body_cost);
}

bool broker_memory_admits(struct broker *b, enum broker_memory_class c, const struct broker_session *s,
                          uint64_t body_cost)
{
    return b->short_of_memory[c] == NULL && make_room(b, c, s, body_cost);
}

struct broker_wait *broker_next_putter(const struct broker *b, const struct broker_queue *q)
{
    struct broker_wait *w = q->putters;

    while (b->refuses && w != NULL && w->memory_class != BROKER_COMPLETION)
        w = w->next;
    return w != NULL ? w : q->putters;
}

static bool putter_fits(struct broker *b, const struct broker_wait *w)
{
    return make_room(b, w->memory_class, w->session, broker_task_cost(b, w->slot));
}

static struct broker_effect *answer(struct broker_effects *out, const struct broker_wait *w,
                                    enum broker_outcome outcome)
{
    struct broker_effect *e = broker_effects_add(out, w->session, w->token, outcome);

    e->was_parked = true;
    return e;
}

static int serve_shutdown(struct broker *b, struct broker_wait *w, struct broker_effects *out)
{
    int rv = broker_effects_reserve(out);

    if (rv != TQ_OK)
        return rv;
    answer(out, w, BROKER_REPLY_SHUTDOWN);
    broker_task_discard(b, broker_wait_end(b, w));
    return TQ_OK;
}

/* The first getter: what is ready and allowed, at least one. BROKER_NOTHING. */
static int serve_getter(struct broker *b, struct broker_queue *q, struct broker_effects *out)
{
    struct broker_wait *w = q->getters;
    struct broker_want want = {
        .session = w->session,
        .queue = q,
        .token = w->token,
        .max = w->max,
        .max_bytes = w->max_bytes,
        .take = w->take,
        .was_parked = true,
    };
    int rv = TQ_OK;

    if (!w->take && broker_held_left(b, w->session, q) == 0) { /* another of its calls was served before */
        rv = broker_effects_reserve(out);
        if (rv == TQ_OK)
            answer(out, w, BROKER_REPLY_TOO_MANY_HELD);
    } else {
        rv = broker_hand_out(b, &want, out);
    }
    if (rv == TQ_OK)
        broker_wait_end(b, w);
    return rv;
}

/* The put's task enters; or it is a Python worker's result, which goes another way. */
static int accept_parked(struct broker *b, struct broker_wait *w, bool *ret_as_result,
                         char text[BROKER_TEXT_MAX])
{
    struct broker_event ev = {.kind = BROKER_PUT, .session = w->session, .queue = w->queue};
    int rv = 1;

    if (!w->session->native && w->session->held_count == 1) {
        broker_task_payload(b, w->slot, &ev.payload);
        rv = broker_put_as_result(b, &ev);
    }
    *ret_as_result = rv != 1;
    return rv != 1 ? rv : broker_put_accept(b, w->queue, w->slot, text);
}

/* The item of a putter of the queue enters. */
static int serve_putter(struct broker *b, struct broker_queue *q, struct broker_wait *w,
                        struct broker_effects *out)
{
    struct broker_session *s = w->session;
    bool as_result = false;
    char text[BROKER_TEXT_MAX];
    struct broker_effect *e;
    uint32_t slot;
    int rv = broker_effects_reserve(out);

    if (rv != TQ_OK)
        return rv;
    rv = broker_put_known(b, q, broker_task_key(broker_task_at(b->slab, w->slot)), s, w->token, true, out);
    if (rv == TQ_OK) {
        broker_task_discard(b, broker_wait_end(b, w));
        return TQ_OK;
    }
    if (rv == BROKER_NOTHING)
        rv = accept_parked(b, w, &as_result, text);
    if (rv == BROKER_HEAP_UNORDERED) {
        e = broker_effects_add_error(out, s, w->token, rv, text);
        e->was_parked = true;
        broker_task_discard(b, broker_wait_end(b, w));
        return TQ_OK;
    }
    if (rv != TQ_OK)
        return rv;
    e = answer(out, w, s->native ? BROKER_REPLY_OK : BROKER_REPLY_NONE);
    if (!s->native)
        broker_session_progress(b, s);
    slot = broker_wait_end(b, w);
    if (as_result)
        broker_task_discard(b, slot);
    else
        e->id = broker_task_id(broker_task_at(b->slab, slot));
    return TQ_OK;
}

static int serve_joiner(struct broker *b, struct broker_queue *q, struct broker_effects *out)
{
    int rv = broker_effects_reserve(out);

    if (rv != TQ_OK)
        return rv;
    answer(out, q->joiners, q->joiners->session->native ? BROKER_REPLY_OK : BROKER_REPLY_NONE);
    broker_wait_end(b, q->joiners);
    return TQ_OK;
}

/* One waiter of the queue is served. 0, DONE, TQ_ENOMEM. */
static int serve_one(struct broker *b, struct broker_queue *q, struct broker_effects *out)
{
    if (q->removed) {
        struct broker_wait *w = q->getters != NULL   ? q->getters
                                : q->putters != NULL ? q->putters
                                                     : q->joiners;

        return w != NULL ? serve_shutdown(b, w, out) : DONE;
    }
    if (q->getters != NULL && q->ready > 0) {
        int rv = serve_getter(b, q, out);

        if (rv != BROKER_NOTHING)
            return rv;
    }
    if (q->shut_down && q->putters != NULL)
        return serve_shutdown(b, q->putters, out);
    if (q->shut_down && q->getters != NULL && q->ready == 0)
        return serve_shutdown(b, q->getters, out);
    if (q->joiners != NULL && q->unfinished == 0)
        return serve_joiner(b, q, out);
    if (q->putters != NULL && !broker_queue_is_full(q)) {
        struct broker_wait *w = broker_next_putter(b, q);
        enum broker_memory_class c = w->memory_class;

        if (b->short_of_memory[c] == NULL && putter_fits(b, w))
            return serve_putter(b, q, w, out);
        broker_queue_set_short(b, q, c);
        return DONE;
    }
    return DONE;
}

/* The next queue whose first putter waits for memory, if that fits now. 0, DONE, TQ_ENOMEM. */
static int serve_memory(struct broker *b, struct broker_effects *out)
{
    for (int i = 0; i < BROKER_MEMORY_CLASSES; i++) {
        enum broker_memory_class c = (enum broker_memory_class)i;
        struct broker_queue *q = b->short_of_memory[c];
        struct broker_wait *w;
        int rv;

        if (q == NULL)
            continue;
        w = broker_next_putter(b, q);
        if (w == NULL || q->shut_down || broker_queue_is_full(q) || w->memory_class != c) {
            broker_queue_clear_short(b, q);
            broker_queue_mark(b, q); /* it stands elsewhere, or nowhere */
            return TQ_OK;
        }
        if (!putter_fits(b, w))
            continue;
        rv = serve_putter(b, q, w, out);
        if (rv != TQ_OK)
            return rv;
        broker_queue_clear_short(b, q); /* its next putter queues up behind the other queues */
        broker_queue_mark(b, q);
        return TQ_OK;
    }
    return DONE;
}

void broker_settle(struct broker *b, struct broker_effects *out)
{
    int rv = TQ_OK;

    while (rv == TQ_OK) {
        struct broker_queue *q = b->marked;

        if (q == NULL) {
            rv = b->ended != NULL ? broker_idwait_serve(b, out) : DONE;
            if (rv == DONE)
                rv = serve_memory(b, out);
            continue;
        }
        do {
            rv = serve_one(b, q, out);
        } while (rv == TQ_OK);
        broker_queue_unmark(b, q);
        if (rv == DONE) {
            broker_queue_free_if_removed(b, q);
            rv = TQ_OK;
        } else {
            broker_queue_mark(b,
                              q); /* at the end: one that asks for much does not stop the others for ever */
        }
    }
    if (rv != DONE)
        (void)tq_deadline_set(b->deadlines, &b->retry, b->now_ms + BROKER_RETRY_MS);
}
