/* Native sessions whose connection went away, and that came back. */
#include <stdlib.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/effects.h"
#include "master/core/lease.h"
#include "master/core/outcome.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/session.h"
#include "master/core/task.h"

void broker_session_detach(struct broker *b, struct broker_session *s, bool free_now)
{
    struct broker_lease *l;

    while (s->waits != NULL)
        broker_wait_drop(b, s->waits);
    /* Newest first, each to the front (as when its grace ends, see lease.h): they stand there in their old
     * order then. */
    if (free_now) {
        while (s->held != NULL)
            broker_lease_return(b, s->held->prev, true);
        return;
    }
    s->silent = true;
    DL_FOREACH(s->held, l)
    broker_lease_sync(b, l);
}

static int compare(const void *a, const void *b)
{
    const struct broker_lease_name *x = a, *y = b;

    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->epoch < y->epoch ? -1 : x->epoch > y->epoch ? 1 : 0;
}

/* What the session says it holds, in order, so that looking up is quick however much that is. */
struct names {
    struct broker_lease_name *list;
    size_t count;
};

static int names_init(struct names *n, const struct broker_event *ev)
{
    *n = (struct names){.count = ev->lease_count};
    if (n->count == 0)
        return TQ_OK;
    n->list = tq_malloc(n->count * sizeof(*n->list));
    if (n->list == NULL)
        return TQ_ENOMEM;
    memcpy(n->list, ev->leases, n->count * sizeof(*n->list));
    qsort(n->list, n->count, sizeof(*n->list), compare);
    return TQ_OK;
}

static bool names_have(const struct names *n, const struct broker_lease *l)
{
    struct broker_lease_name name = {.id = l->id, .epoch = l->epoch};

    return n->count > 0 && bsearch(&name, n->list, n->count, sizeof(name), compare) != NULL;
}

/* A freed lease that is named becomes the session's own again, if nobody was handed the task since: the epoch
 * tells, because what takes a task's place has another one, too. */
static void take_back(struct broker *b, struct broker_session *s, struct broker_lease *freed)
{
    uint32_t slot = ids_find(b->ids, freed->id);
    struct broker_lease *l;
    struct broker_queue *q;
    struct broker_task *t;

    if (slot == SLAB_NONE || (b->limits.held_per_session > 0 && s->held_count >= b->limits.held_per_session))
        return;
    t = broker_task_at(b->slab, slot);
    if (broker_task_state(t) != BROKER_TASK_READY || t->epoch != freed->epoch ||
        broker_task_is_purged(b, slot) || broker_lease_reserve(b, 1) != TQ_OK)
        return;
    q = broker_task_queue(b, t);
    /* Out of a heap it leaves a tombstone there, and may come back: that is one more. */
    if (broker_queue_reserve(q) != TQ_OK || !broker_queue_unlink(b, q, &slot))
        return; /* out of memory: it will be run again, as if it had been handed out already */
    t = broker_task_at(b->slab, slot);
    t->attempts = freed->attempts;
    t->epoch--; /* the lease goes on: it is no new hand-out */
    l = broker_lease_grant(b, s, slot);
    l->since_ms = freed->since_ms;
    b->stats.resumed++;
    if (q->putters != NULL)
        broker_queue_mark(b, q);
}

/* Newest first, each to the front: they stand there in their old order then. */
static void give_back_unnamed(struct broker *b, struct broker_session *s, const struct names *named)
{
    struct broker_lease *l, *prev;

    for (l = s->held != NULL ? s->held->prev : NULL; l != NULL; l = prev) {
        prev = l != s->held ? l->prev : NULL;
        if (!names_have(named, l))
            broker_lease_bounce(b, l);
    }
}

int broker_session_resume(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_session *s = ev->session;
    struct broker_lease *l;
    struct names named;
    int64_t count = 0;
    int rv = broker_effects_reserve_more(out, (size_t)s->held_count + s->freed_count + 1);

    if (rv == TQ_OK)
        rv = names_init(&named, ev);
    if (rv != TQ_OK)
        return rv;
    s->silent = false;
    give_back_unnamed(b, s, &named);
    DL_FOREACH(s->held, l)
    {
        broker_lease_sync(b, l); /* no grace any more */
    }
    while (s->freed != NULL) { /* oldest first: it was freed last */
        l = s->freed->prev;
        if (names_have(&named, l))
            take_back(b, s, l);
        broker_lease_forget(b, l);
    }
    tq_free(named.list);
    DL_FOREACH(s->held, l)
    {
        struct broker_effect *e = broker_effects_add(out, s, ev->token, BROKER_REPLY_LEASE);

        e->id = l->id;
        e->epoch = l->epoch;
        count++;
    }
    broker_effects_add(out, s, ev->token, BROKER_REPLY_END)->number = count;
    return TQ_OK;
}
