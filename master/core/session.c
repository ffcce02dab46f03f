#include "master/core/session.h"

#include <utlist.h>

#include "common/assert.h"
#include "master/core/broker_impl.h"
#include "master/core/queue.h"
#include "master/core/task.h"

void broker_session_open(struct broker *b, struct broker_session *s)
{
    TQ_ASSERT(!s->open && s->held == NULL && s->held_explicit == NULL && s->wait == NULL);
    s->open = true;
    DL_APPEND(b->sessions, s);
}

static bool is_explicit(const struct broker_task *t)
{
    return t->queue->conf.ack == BROKER_ACK_EXPLICIT;
}

void broker_session_hold(struct broker *b, struct broker_session *s, struct broker_task *t)
{
    broker_task_set_state(b, t, BROKER_TASK_LEASED);
    t->session = s;
    t->delivered = false;
    if (is_explicit(t)) {
        DL_APPEND(s->held_explicit, t);
        s->held_explicit_count++;
    } else {
        DL_APPEND(s->held, t);
        s->held_count++;
    }
}

static void let_go(struct broker_session *s, struct broker_task *t)
{
    TQ_ASSERT(t->session == s && t->state == BROKER_TASK_LEASED);
    t->session = NULL;
    if (is_explicit(t)) {
        TQ_ASSERT(s->held_explicit != NULL);
        DL_DELETE(s->held_explicit, t);
        s->held_explicit_count--;
    } else {
        DL_DELETE(s->held, t);
        s->held_count--;
    }
}

static void ack(struct broker *b, struct broker_session *s, struct broker_task *t)
{
    let_go(s, t);
    b->stats.acked++;
    broker_task_end(b, t);
}

void broker_session_delivered(struct broker *b, struct broker_session *s)
{
    struct broker_task *t, *prev;

    /* Newest first, up to those that were reported before: in DL lists the head's prev is the tail. */
    if (s->held_explicit != NULL)
        for (t = s->held_explicit->prev; !t->delivered; t = t->prev)
            t->delivered = true;
    for (t = s->held != NULL ? s->held->prev : NULL; t != NULL && !t->delivered; t = prev) {
        prev = t == s->held ? NULL : t->prev;
        t->delivered = true;
        if (t->queue->conf.ack == BROKER_ACK_GET)
            ack(b, s, t);
    }
}

void broker_session_progress(struct broker *b, struct broker_session *s)
{
    while (s->held != NULL)
        ack(b, s, s->held);
}

void broker_session_ack_explicit(struct broker *b, struct broker_session *s, const struct broker_queue *q)
{
    struct broker_task *t;

    for (t = s->held_explicit; t != NULL && t->queue != q; t = t->next)
        ;
    if (t != NULL)
        ack(b, s, t);
}

void broker_session_bounce(struct broker *b, struct broker_session *s, struct broker_task *t)
{
    let_go(s, t);
    b->stats.bounced++;
    broker_queue_return(b, t->queue, t);
}

static void give_back(struct broker *b, struct broker_session *s, struct broker_task *t)
{
    let_go(s, t);
    if (t->delivered && t->attempt < UINT32_MAX)
        t->attempt++;
    b->stats.returned++;
    broker_queue_return(b, t->queue, t);
}

void broker_session_close(struct broker *b, struct broker_session *s, enum broker_close_mode mode)
{
    if (s->wait != NULL)
        broker_wait_drop(b, s->wait);
    /* Newest first, each to the front: they stand there in their old order then. */
    while (s->held_explicit != NULL)
        give_back(b, s, s->held_explicit->prev);
    while (s->held != NULL) {
        struct broker_task *newest = s->held->prev;

        if (mode == BROKER_CLOSE_ACK && newest->delivered)
            ack(b, s, newest);
        else
            give_back(b, s, newest);
    }
    DL_DELETE(b->sessions, s);
    *s = (struct broker_session){0};
}

uint32_t broker_session_held(const struct broker_session *s, const struct broker_queue **ret_queue)
{
    const struct broker_task *t;
    uint32_t count = 0;

    *ret_queue = NULL;
    for (t = s->held; t != NULL; t = t->next) {
        if (!t->delivered)
            continue;
        if (count++ == 0)
            *ret_queue = t->queue;
    }
    return count;
}

bool broker_session_parked(const struct broker_session *s)
{
    return s->wait != NULL;
}
