#include "master/core/session.h"

#include <utlist.h>

#include "common/assert.h"
#include "master/core/broker_impl.h"
#include "master/core/queue.h"

void broker_session_open(struct broker *b, struct broker_session *s)
{
    TQ_ASSERT(!s->open && s->held == NULL && s->held_explicit == NULL && s->waits == NULL);
    s->open = true;
    DL_APPEND(b->sessions, s);
}

void broker_session_delivered(struct broker *b, struct broker_session *s)
{
    struct broker_lease *l, *prev;

    /* Newest first, up to those that were reported before: in DL lists the head's prev is the tail. */
    if (s->held_explicit != NULL)
        for (l = s->held_explicit->prev; !l->delivered; l = l->prev)
            l->delivered = true;
    for (l = s->held != NULL ? s->held->prev : NULL; l != NULL && !l->delivered; l = prev) {
        prev = l == s->held ? NULL : l->prev;
        l->delivered = true;
        if (l->queue->conf.ack == BROKER_ACK_GET)
            broker_lease_ack(b, l);
    }
}

void broker_session_progress(struct broker *b, struct broker_session *s)
{
    TQ_ASSERT(!s->native);
    while (s->held != NULL)
        broker_lease_ack(b, s->held);
}

void broker_session_ack_explicit(struct broker *b, struct broker_session *s, const struct broker_queue *q)
{
    struct broker_lease *l;

    for (l = s->held_explicit; l != NULL && l->queue != q; l = l->next)
        ;
    if (l != NULL)
        broker_lease_ack(b, l);
}

void broker_session_close(struct broker *b, struct broker_session *s, enum broker_close_mode mode)
{
    while (s->waits != NULL)
        broker_wait_drop(b, s->waits);
    /* Newest first, each to the front: they stand there in their old order then. */
    while (!s->native && s->held_explicit != NULL)
        broker_lease_return(b, s->held_explicit->prev, false);
    while (s->held != NULL) {
        struct broker_lease *newest = s->held->prev;

        if (!s->native && mode == BROKER_CLOSE_ACK && newest->delivered)
            broker_lease_ack(b, newest);
        else
            broker_lease_return(b, newest, false);
    }
    while (s->native && s->freed != NULL)
        broker_lease_forget(b, s->freed);
    DL_DELETE(b->sessions, s);
    *s = (struct broker_session){0};
}

uint32_t broker_session_held(const struct broker_session *s, const struct broker_queue **ret_queue)
{
    const struct broker_lease *l;
    uint32_t count = 0;

    *ret_queue = NULL;
    for (l = s->held; l != NULL; l = l->next) {
        if (!l->delivered)
            continue;
        if (count++ == 0)
            *ret_queue = l->queue;
    }
    return count;
}

bool broker_session_parked(const struct broker_session *s)
{
    return s->waits != NULL;
}
