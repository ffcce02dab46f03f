#include "master/core/idwait.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/effects.h"
#include "master/core/keys.h"
#include "master/core/purge.h"
#include "master/core/task.h"

#define NOBODY 1

static struct broker_idwait *find(const struct broker *b, uint64_t id)
{
    struct broker_idwait *iw = NULL;

    HASH_FIND(hh, b->idwaits, &id, sizeof(id), iw);
    return iw;
}

bool broker_idwait_has(const struct broker *b, uint64_t id)
{
    return b->idwaits != NULL && find(b, id) != NULL;
}

static struct broker_idwait *find_or_add(struct broker *b, uint64_t id)
{
    struct broker_idwait *iw = find(b, id);

    if (iw != NULL)
        return iw;
    iw = tq_calloc(1, sizeof(*iw));
    if (iw == NULL)
        return NULL;
    iw->id = id;
    HASH_ADD(hh, b->idwaits, id, sizeof(iw->id), iw);
    if (iw->hh.tbl == NULL) {
        tq_free(iw);
        return NULL;
    }
    return iw;
}

static void drop_if_empty(struct broker *b, struct broker_idwait *iw)
{
    if (iw->waits != NULL)
        return;
    if (iw->ended)
        DL_DELETE2(b->ended, iw, ended_prev, ended_next);
    HASH_DEL(b->idwaits, iw);
    broker_view_free(iw->copy);
    tq_free(iw);
}

static int park(struct broker *b, const struct broker_event *ev, uint64_t id)
{
    struct broker_idwait *iw = find_or_add(b, id);
    struct broker_wait *w;

    if (iw == NULL)
        return TQ_ENOMEM;
    w = broker_wait_new(b, BROKER_WAIT_RESULT, ev);
    if (w == NULL) {
        drop_if_empty(b, iw);
        return TQ_ENOMEM;
    }
    w->idwait = iw;
    DL_APPEND(iw->waits, w);
    return TQ_OK;
}

static uint64_t named_id(struct broker *b, const struct broker_event *ev)
{
    const struct broker_key *k;

    if (ev->queue == NULL)
        return ev->id;
    k = broker_key_find(b, ev->queue, ev->key);
    return k != NULL ? k->id : 0;
}

int broker_on_wait(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    uint64_t id = named_id(b, ev);
    uint32_t slot = id != 0 ? broker_find_task(b, id) : SLAB_NONE;
    enum broker_outcome outcome = BROKER_REPLY_EMPTY;
    struct broker_view *copy = NULL;
    struct broker_effect *e;
    struct broker_view v;

    if (slot == SLAB_NONE) {
        outcome = BROKER_REPLY_UNKNOWN;
    } else {
        broker_view_slot(b, slot, &v);
        if (v.outcome != BROKER_OUTCOME_NONE) {
            copy = broker_view_copy(&v);
            outcome = copy != NULL ? BROKER_REPLY_RESULT : BROKER_REPLY_NO_MEMORY;
        } else if (ev->wait_mode == BROKER_WAIT_FOREVER ||
                   (ev->wait_mode == BROKER_WAIT_MS && ev->wait_ms > 0)) {
            if (park(b, ev, id) == TQ_OK)
                return TQ_OK;
            outcome = BROKER_REPLY_NO_MEMORY;
        }
    }
    e = broker_effects_add(out, ev->session, ev->token, outcome);
    e->id = id;
    e->copy = copy;
    return TQ_OK;
}

/* What is known of a task that ended without a result of its own. */
static void view_of_ended(const struct broker *b, uint32_t slot, enum broker_task_outcome outcome,
                          struct broker_view *ret_view)
{
    broker_view_slot(b, slot, ret_view);
    if (ret_view->outcome != BROKER_OUTCOME_NONE)
        return;
    ret_view->outcome = outcome;
    ret_view->state = "done";
    ret_view->from = ret_view->queue != NULL ? broker_queue_name(ret_view->queue) : "";
    ret_view->payload = (struct broker_payload){0};
    ret_view->due_ms = ret_view->expires_ms = 0;
    ret_view->ended_ms = b->now_ms;
}

void broker_idwait_ended(struct broker *b, uint64_t id, uint32_t slot, enum broker_task_outcome outcome)
{
    struct broker_idwait *iw;
    struct broker_view v;

    if (b->idwaits == NULL)
        return;
    iw = find(b, id);
    if (iw == NULL)
        return;
    if (slot != SLAB_NONE && iw->copy == NULL) {
        view_of_ended(b, slot, outcome, &v);
        iw->copy = broker_view_copy(&v);
    }
    if (iw->ended)
        return; /* it ended twice before anybody was served: a result that was taken at once */
    iw->ended = true;
    iw->outcome = (uint8_t)outcome;
    DL_APPEND2(b->ended, iw, ended_prev, ended_next);
}

/* 0; 1: it is alive again (a dead letter that was retried before there was memory to tell); TQ_ENOMEM. */
static int copy_for(const struct broker *b, struct broker_idwait *iw, struct broker_view **ret_copy)
{
    uint32_t slot = iw->copy == NULL ? broker_find_task(b, iw->id) : SLAB_NONE;
    struct broker_view v = {.id = iw->id,
                            .outcome = (enum broker_task_outcome)iw->outcome,
                            .state = "done",
                            .from = "",
                            .ended_ms = b->now_ms};

    if (iw->copy != NULL)
        v = *iw->copy;
    else if (slot != SLAB_NONE)
        broker_view_slot(b, slot, &v);
    if (v.outcome == BROKER_OUTCOME_NONE)
        return 1;
    *ret_copy = broker_view_copy(&v);
    return *ret_copy != NULL ? TQ_OK : TQ_ENOMEM;
}

int broker_idwait_serve(struct broker *b, struct broker_effects *out)
{
    struct broker_idwait *iw = b->ended;
    struct broker_view *copy = NULL;
    struct broker_effect *e;
    struct broker_wait *w;
    int rv;

    if (iw == NULL)
        return NOBODY;
    rv = broker_effects_reserve(out);
    if (rv == TQ_OK)
        rv = copy_for(b, iw, &copy);
    if (rv < 0)
        return rv;
    if (rv > 0) {
        iw->ended = false;
        DL_DELETE2(b->ended, iw, ended_prev, ended_next);
        return TQ_OK;
    }
    w = iw->waits;
    e = broker_effects_add(out, w->session, w->token, BROKER_REPLY_RESULT);
    e->was_parked = true;
    e->id = iw->id;
    e->copy = copy;
    broker_idwait_leave(b, w);
    broker_wait_free(b, w);
    return TQ_OK;
}

void broker_idwait_leave(struct broker *b, struct broker_wait *w)
{
    struct broker_idwait *iw = w->idwait;

    TQ_ASSERT(iw != NULL);
    DL_DELETE(iw->waits, w);
    w->idwait = NULL;
    drop_if_empty(b, iw);
}
