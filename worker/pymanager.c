#include "worker/pymanager.h"

#include "common/assert.h"
#include "common/err.h"

static void on_link_event(struct link *l, enum link_event ev, struct tq_span frame)
{
    struct pym_conn *c = TICK_OWNER(l, struct pym_conn, link);

    switch (ev) {
    case LINK_OPEN:
        c->on_event(c, PYM_OPEN, frame);
        break;
    case LINK_FRAME:
        if (!c->calling) {
            link_fail(l, LINK_BAD_PEER, "%s sent a reply that nobody asked for", l->peer->name);
            break;
        }
        c->calling = false;
        link_deadline(l, 0);
        c->on_event(c, PYM_REPLY, frame);
        break;
    case LINK_CLOSED:
        c->on_event(c, PYM_CLOSED, frame);
        break;
    }
}

int pym_conn_open(struct pym_conn *c, struct link_peer *p, pym_event_fn on_event)
{
    int rv = link_open(&c->link, p, on_link_event);

    if (rv != TQ_OK)
        return rv;
    c->on_event = on_event;
    c->calling = false;
    return TQ_OK;
}

int pym_conn_call(struct pym_conn *c, struct tq_span frame, uint64_t timeout_ms)
{
    TQ_ASSERT(!c->calling || c->link.state == LINK_CLOSING);
    c->calling = true;
    if (timeout_ms > 0)
        link_deadline(&c->link, timeout_ms);
    return link_send(&c->link, frame);
}
