/* The client side of Python's manager protocol: one call at a time on a link. */
#ifndef WORKER_PYMANAGER_H
#define WORKER_PYMANAGER_H

#include "proto/python/manager.h"
#include "worker/link.h"

enum pym_event {
    PYM_OPEN,   /* both sides are authenticated; calls may be made */
    PYM_REPLY,  /* the answer to the call, valid during the event */
    PYM_CLOSED, /* the last event: c->link.failure and text say why; c may be opened again */
};

struct pym_conn;
typedef void (*pym_event_fn)(struct pym_conn *c, enum pym_event ev, struct tq_span frame);

struct pym_conn {
    struct link link;
    pym_event_fn on_event;
    bool calling; /* an answer is owed */
};

/* As link_open. */
int pym_conn_open(struct pym_conn *c, struct link_peer *p, pym_event_fn on_event);
/* Sends one request (a whole frame) on a connection that is up and owes nothing; one PYM_REPLY or PYM_CLOSED
 * follows. timeout_ms 0: none. TQ_ECLOSED: not a byte of it was written (PYM_CLOSED follows). */
int pym_conn_call(struct pym_conn *c, struct tq_span frame, uint64_t timeout_ms);
/* Any state; repeatable. */
static inline void pym_conn_close(struct pym_conn *c)
{
    link_close(&c->link);
}

static inline bool pym_conn_is_idle(const struct pym_conn *c)
{
    return link_is_idle(&c->link);
}

#endif
