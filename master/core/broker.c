#include "master/core/broker.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/effects.h"
#include "master/core/queue.h"
#include "master/core/session.h"
#include "master/core/task.h"

struct broker *broker_new(struct tq_deadlines *dl, const struct broker_limits *limits, broker_less_fn less)
{
    struct broker *b = tq_calloc(1, sizeof(*b));

    if (b == NULL)
        return NULL;
    b->deadlines = dl;
    b->limits = *limits;
    b->less = less;
    b->retry.kind = BROKER_DEADLINE;
    if (tq_deadline_set(dl, &b->retry, UINT64_MAX) != TQ_OK) {
        tq_free(b);
        return NULL;
    }
    return b;
}

void broker_free(struct broker *b)
{
    struct broker_queue *q, *next;

    if (b == NULL)
        return;
    while (b->sessions != NULL)
        broker_session_close(b, b->sessions, BROKER_CLOSE_RETURN);
    HASH_ITER(hh, b->by_name, q, next)
    {
        HASH_DEL(b->by_name, q);
        broker_queue_free(b, q);
    }
    TQ_ASSERT(b->stats.tasks == 0 && b->stats.body_bytes == 0 && b->stats.waiting == 0);
    while (b->removed != NULL) {
        q = b->removed;
        DL_DELETE2(b->removed, q, removed_prev, removed_next);
        broker_queue_free(b, q);
    }
    tq_deadline_clear(b->deadlines, &b->retry);
    tq_free(b);
}

static bool name_is_good(const char *name, size_t len)
{
    static const char marks[] = "._-";

    if (len == 0 || len > BROKER_QUEUE_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            memchr(marks, c, sizeof(marks) - 1) == NULL)
            return false;
    }
    return true;
}

int broker_declare(struct broker *b, const char *name, const struct broker_queue_conf *conf,
                   struct broker_queue **ret_queue)
{
    size_t len = strnlen(name, BROKER_QUEUE_NAME_MAX + 1);
    struct broker_queue *q;
    int rv;

    if (!name_is_good(name, len) || (conf->kind == BROKER_PRIORITY && b->less == NULL))
        return TQ_EINVAL;
    if ((conf->kind != BROKER_FIFO && conf->kind != BROKER_LIFO && conf->kind != BROKER_PRIORITY) ||
        (conf->ack != BROKER_ACK_AUTO && conf->ack != BROKER_ACK_EXPLICIT && conf->ack != BROKER_ACK_GET))
        return TQ_EINVAL;
    if (broker_find(b, tq_span(name, len)) != NULL)
        return TQ_EEXISTS;
    if (b->stats.queues >= b->limits.queues)
        return TQ_ELIMIT;
    rv = broker_queue_new(name, len, conf, &q);
    if (rv != TQ_OK)
        return rv;
    HASH_ADD_KEYPTR(hh, b->by_name, q->name, (unsigned)len, q);
    if (q->hh.tbl == NULL) {
        broker_queue_free(b, q);
        return TQ_ENOMEM;
    }
    b->stats.queues++;
    b->stats.steps++;
    *ret_queue = q;
    return TQ_OK;
}

struct broker_queue *broker_find(struct broker *b, struct tq_span name)
{
    struct broker_queue *q = NULL;

    if (name.len == 0 || name.len > BROKER_QUEUE_NAME_MAX)
        return NULL;
    HASH_FIND(hh, b->by_name, name.data, (unsigned)name.len, q);
    return q;
}

const char *broker_queue_name(const struct broker_queue *q)
{
    return q->name;
}

const struct broker_queue_conf *broker_queue_conf(const struct broker_queue *q)
{
    return &q->conf;
}

uint64_t broker_queue_size(const struct broker_queue *q)
{
    return q->ready;
}

bool broker_queue_shut_down(const struct broker_queue *q)
{
    return q->shut_down;
}

void broker_get_stats(const struct broker *b, struct broker_stats *ret_stats)
{
    *ret_stats = b->stats;
}

/* The step is over: its number goes into its effects. */
static void finish_step(struct broker *b, struct broker_effects *out, size_t first)
{
    broker_settle(b, out);
    if (!b->changed)
        return;
    b->stats.steps++;
    b->changed = false;
    for (size_t i = first; i < out->count; i++)
        out->list[i].commit = b->stats.steps;
}

void broker_remove(struct broker *b, struct broker_queue *q, struct broker_effects *out)
{
    size_t first = out->count;

    TQ_ASSERT(!q->removed);
    HASH_DEL(b->by_name, q);
    b->stats.queues--;
    b->changed = true;
    broker_queue_drop_ready(b, q);
    broker_queue_clear_short(b, q);
    q->removed = true;
    DL_APPEND2(b->removed, q, removed_prev, removed_next);
    broker_queue_mark(b, q);
    finish_step(b, out, first);
}

/* The handlers of events. An effect has been reserved for those that reply; each does what can fail
 * first. 0, or TQ_ENOMEM with nothing changed. */

static int reply(const struct broker_event *ev, struct broker_effects *out, enum broker_outcome outcome,
                 int64_t number)
{
    broker_effects_add(out, ev->session, ev->token, outcome)->number = number;
    return TQ_OK;
}

static bool may_wait(const struct broker_event *ev)
{
    return ev->wait_mode == BROKER_WAIT_FOREVER || (ev->wait_mode == BROKER_WAIT_MS && ev->wait_ms > 0);
}

static int park_put(struct broker *b, const struct broker_event *ev, enum broker_memory_class c,
                    struct broker_effects *out)
{
    struct broker_task *t;

    if (b->limits.memory_bytes > 0 &&
        b->stats.parked_bytes + broker_body_cost(ev->body) > b->limits.memory_bytes)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    t = broker_task_new(ev->queue, ev->body);
    if (t == NULL || broker_wait_park(b, BROKER_WAIT_PUT, ev, t, c) != TQ_OK) {
        broker_task_discard(b, t);
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    }
    /* Who waits for room waits in the queue; who waits for memory is to be found from the broker too. */
    broker_queue_mark(b, ev->queue);
    return TQ_OK;
}

static int on_put(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;
    struct broker_session *s = ev->session;
    enum broker_memory_class c =
        s->held_count + s->held_explicit_count > 0 ? BROKER_COMPLETION : BROKER_NEW_WORK;
    char text[BROKER_TEXT_MAX];
    struct broker_task *t;
    int rv;

    if (q->shut_down)
        return reply(ev, out, BROKER_REPLY_SHUTDOWN, 0);
    if (broker_body_cost(ev->body) > broker_memory_ceiling(b, c))
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    if (q->putters != NULL || broker_queue_is_full(q) || !broker_memory_admits(b, c, s, ev->body)) {
        if (!may_wait(ev))
            return reply(ev, out, BROKER_REPLY_FULL, 0);
        return park_put(b, ev, c, out);
    }
    t = broker_task_new(q, ev->body);
    if (t == NULL)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    rv = broker_queue_push(b, q, t, text);
    if (rv != TQ_OK) {
        broker_task_discard(b, t);
        broker_effects_add_error(out, s, ev->token, rv, text);
        return TQ_OK;
    }
    q->unfinished++;
    b->stats.puts++;
    broker_session_progress(b, s);
    if (q->getters != NULL)
        broker_queue_mark(b, q);
    return reply(ev, out, BROKER_REPLY_NONE, 0);
}

static int on_get(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;
    struct broker_session *s = ev->session;
    enum broker_outcome outcome = BROKER_REPLY_EMPTY;
    char text[BROKER_TEXT_MAX];
    struct broker_effect *e;
    struct broker_task *t;
    int rv;

    if (q->shut_down && q->ready == 0) {
        outcome = BROKER_REPLY_SHUTDOWN;
    } else if (q->conf.ack == BROKER_ACK_EXPLICIT && b->limits.held_per_session > 0 &&
               s->held_explicit_count >= b->limits.held_per_session) {
        outcome = BROKER_REPLY_TOO_MANY_HELD;
    } else if (q->ready > 0 && q->getters == NULL) { /* who waits for memory to be woken is not overtaken */
        rv = broker_queue_take(b, q, &t, text);
        if (rv != TQ_OK) {
            if (rv == BROKER_HEAP_UNORDERED)
                broker_session_progress(b, s);
            broker_effects_add_error(out, s, ev->token, rv, text);
            return TQ_OK;
        }
        broker_session_progress(b, s);
        broker_session_hold(b, s, t);
        b->stats.gets++;
        if (q->putters != NULL)
            broker_queue_mark(b, q);
        e = broker_effects_add(out, s, ev->token, BROKER_REPLY_ITEM);
        e->body = tq_body_ref(t->body);
        e->task = t;
        e->attempt = t->attempt + 1;
        return TQ_OK;
    } else if (may_wait(ev)) {
        if (broker_wait_park(b, BROKER_WAIT_GET, ev, NULL, BROKER_NEW_WORK) != TQ_OK)
            return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
        broker_session_progress(b, s);
        return TQ_OK;
    }
    broker_session_progress(b, s);
    return reply(ev, out, outcome, 0);
}

static int on_qsize(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    (void)b;
    return reply(ev, out, BROKER_REPLY_INT, (int64_t)ev->queue->ready);
}

static int on_empty(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    (void)b;
    return reply(ev, out, BROKER_REPLY_BOOL, ev->queue->ready == 0);
}

static int on_full(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    (void)b;
    return reply(ev, out, BROKER_REPLY_BOOL, broker_queue_is_full(ev->queue));
}

static int on_task_done(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;

    /* What the session has finished is finished, even if the count says otherwise. */
    broker_session_progress(b, ev->session);
    if (q->conf.ack == BROKER_ACK_EXPLICIT)
        broker_session_ack_explicit(b, ev->session, q);
    if (q->unfinished == 0)
        return reply(ev, out, BROKER_REPLY_TOO_MANY_DONE, 0);
    b->changed = true;
    if (--q->unfinished == 0 && q->joiners != NULL)
        broker_queue_mark(b, q);
    return reply(ev, out, BROKER_REPLY_NONE, 0);
}

static int on_join(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    if (ev->queue->unfinished == 0)
        return reply(ev, out, BROKER_REPLY_NONE, 0);
    if (broker_wait_park(b, BROKER_WAIT_JOIN, ev, NULL, BROKER_NEW_WORK) != TQ_OK)
        return reply(ev, out, BROKER_REPLY_NO_MEMORY, 0);
    return TQ_OK;
}

static int on_shutdown(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_queue *q = ev->queue;

    b->changed = true;
    q->shut_down = true;
    if (ev->immediate) {
        q->unfinished -= q->ready < q->unfinished ? q->ready : q->unfinished;
        broker_queue_drop_ready(b, q);
    }
    broker_queue_mark(b, q);
    return reply(ev, out, BROKER_REPLY_NONE, 0);
}

static int on_due(struct broker *b, const struct broker_event *ev, struct broker_effects *out)
{
    struct broker_wait *w;
    struct broker_effect *e;

    if (ev->deadline == &b->retry) {
        (void)tq_deadline_set(b->deadlines, &b->retry, UINT64_MAX); /* its place in the heap is still free */
        return TQ_OK;
    }
    w = broker_wait_of_deadline(ev->deadline);
    if (broker_effects_reserve(out) != TQ_OK) {
        (void)tq_deadline_set(b->deadlines, ev->deadline, b->now_ms + BROKER_RETRY_MS);
        return TQ_ENOMEM;
    }
    e = broker_effects_add(out, w->session, w->token,
                           w->kind == BROKER_WAIT_PUT ? BROKER_REPLY_FULL : BROKER_REPLY_EMPTY);
    e->was_parked = true;
    broker_wait_drop(b, w);
    return TQ_OK;
}

static int on_other(struct broker *b, const struct broker_event *ev)
{
    struct broker_session *s = ev->session;

    switch (ev->kind) {
    case BROKER_SESSION_OPEN:
        broker_session_open(b, s);
        return TQ_OK;
    case BROKER_SESSION_CLOSE:
        broker_session_close(b, s, ev->close_mode);
        return TQ_OK;
    case BROKER_CANCEL:
        if (s->wait != NULL)
            broker_wait_drop(b, s->wait);
        return TQ_OK;
    case BROKER_DELIVERED:
        broker_session_delivered(b, s);
        return TQ_OK;
    default:
        TQ_ASSERT(ev->kind == BROKER_BOUNCE);
        broker_session_bounce(b, s, ev->task);
        return TQ_OK;
    }
}

typedef int (*call_fn)(struct broker *b, const struct broker_event *ev, struct broker_effects *out);

/* Calls of the peer: those get a reply. */
static const call_fn calls[] = {
    [BROKER_PUT] = on_put,     [BROKER_GET] = on_get,           [BROKER_QSIZE] = on_qsize,
    [BROKER_EMPTY] = on_empty, [BROKER_FULL] = on_full,         [BROKER_TASK_DONE] = on_task_done,
    [BROKER_JOIN] = on_join,   [BROKER_SHUTDOWN] = on_shutdown,
};

int broker_step(struct broker *b, uint64_t now_ms, const struct broker_event *ev, struct broker_effects *out)
{
    size_t first = out->count;
    size_t kind = (size_t)ev->kind;
    int rv;

    TQ_ASSERT(now_ms >= b->now_ms);
    b->now_ms = now_ms;
    if (kind < sizeof(calls) / sizeof(calls[0]) && calls[kind] != NULL) {
        TQ_ASSERT(ev->session->open && ev->session->wait == NULL);
        rv = broker_effects_reserve(out);
        if (rv != TQ_OK)
            return rv;
        broker_session_delivered(b, ev->session); /* or it would not ask for more */
        rv = calls[kind](b, ev, out);
    } else if (ev->kind == BROKER_DUE) {
        rv = on_due(b, ev, out);
    } else {
        TQ_ASSERT(ev->session->open || ev->kind == BROKER_SESSION_OPEN);
        rv = on_other(b, ev);
    }
    if (rv == TQ_OK)
        finish_step(b, out, first);
    return rv;
}
