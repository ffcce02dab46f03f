/* The client side of Python's manager protocol over libuv: one peer, any number of connections to it.
 *
 * Dials stand in a queue: at most one connection of the process is between connect() and the end of its
 * handshake. A peer that had two of our handshakes open at once could hand us our own challenge back and be
 * let in without the key. After a failure the queue pauses (backoff), so the connections wait together. */
#ifndef WORKER_PYMANAGER_H
#define WORKER_PYMANAGER_H

#include <uv.h>

#include "proto/python/manager.h"
#include "proto/session.h"
#include "worker/backoff.h"
#include "worker/ticker.h"

#define PYM_HANDSHAKE_MS  10000
#define PYM_ADDRESSES_MAX 8
#define PYM_READ_BYTES    65536
#define PYM_TEXT_MAX      640

enum pym_failure {
    PYM_FINE,         /* closed because we asked for it */
    PYM_UNKNOWN_HOST, /* the name has no address */
    PYM_NO_ANSWER,    /* could not connect, or no handshake in time */
    PYM_KEY_REFUSED,  /* it said #FAILURE# to our answer */
    PYM_KEY_UNPROVEN, /* it let us in but does not know the key itself */
    PYM_LOST,         /* the connection ended */
    PYM_BAD_PEER,     /* it broke the protocol */
    PYM_OUT_OF_MEMORY,
};

enum pym_event {
    PYM_OPEN,   /* both sides are authenticated; calls may be made */
    PYM_REPLY,  /* the answer to the call, valid during the event */
    PYM_CLOSED, /* the last event: c->failure and c->text say why; c may be opened again */
};

/*   IDLE --open--> QUEUED --> DIAL --> OPEN <--> CALL
 *    ^               |          |        |         |
 *    +---- CLOSING <-+----------+--------+---------+                                                      */
enum pym_state { PYM_IDLE, PYM_QUEUED, PYM_DIAL, PYM_READY, PYM_CALL, PYM_CLOSING };

struct pym_conn {
    struct pym_peer *peer;
    void (*on_event)(struct pym_conn *c, enum pym_event ev, struct tq_span frame);
    enum pym_state state;
    enum pym_failure failure;
    char text[PYM_TEXT_MAX]; /* for people: the failure, with the peer's name */
    uv_tcp_t tcp;
    uv_connect_t connect;
    bool has_tcp;
    bool has_session;
    bool rhel;       /* answers a 20-byte challenge with raw SHA-256 */
    bool rhel_other; /* both ways of answering it were tried */
    bool redial;     /* close, then dial again at once: next address, or the other way of answering */
    unsigned handshake_sends;
    size_t answer_bytes; /* our answer with its header: tells which challenge it was */
    struct tq_session session;
    struct tick tick; /* set from open to PYM_CLOSED, parked when nothing is due */
    struct pym_conn *prev, *next;
};

struct pym_peer {
    uv_loop_t *loop;
    struct ticker *ticker;
    char host[256];
    uint16_t port;
    char name[272]; /* HOST:PORT */
    struct tq_auth_key key;
    struct tq_auth_registry registry;
    struct tq_session_limits limits;
    bool rhel; /* what worked last */
    struct sockaddr_storage addresses[PYM_ADDRESSES_MAX];
    unsigned address_count;
    unsigned address_at;
    unsigned address_tries;
    uv_getaddrinfo_t resolver;
    bool resolving;
    struct pym_conn *queue;
    struct pym_conn *dialing;
    struct backoff backoff;
    struct tick pause;
    bool paused;
    uint8_t read_buf[PYM_READ_BYTES];
};

/* key is borrowed. TQ_ENOMEM. */
int pym_peer_open(struct pym_peer *p, uv_loop_t *loop, struct ticker *ticker, const char *host, uint16_t port,
                  struct tq_span key, uint64_t frame_bytes);
/* All connections are idle. */
void pym_peer_close(struct pym_peer *p);
/* Something went wrong with it: no dial for a while. Repeated within the pause it counts once. */
void pym_peer_failed(struct pym_peer *p);
/* It serves us: the next pause is short again. */
void pym_peer_works(struct pym_peer *p);
/* In a pause after a failure. */
static inline bool pym_peer_is_down(const struct pym_peer *p)
{
    return p->paused;
}

/* Queues the dial of an idle connection. Each open ends with one PYM_CLOSED, never from inside a call into
 * this module. TQ_ENOMEM: nothing was opened. */
int pym_conn_open(struct pym_conn *c, struct pym_peer *p,
                  void (*on_event)(struct pym_conn *c, enum pym_event ev, struct tq_span frame));
/* Sends one request (a whole frame) on a ready connection; one PYM_REPLY or PYM_CLOSED follows. timeout_ms 0:
 * none. TQ_ECLOSED: not a byte of it was written (PYM_CLOSED follows). */
int pym_conn_call(struct pym_conn *c, struct tq_span frame, uint64_t timeout_ms);
/* Any state; repeatable. */
void pym_conn_close(struct pym_conn *c);

static inline bool pym_conn_is_idle(const struct pym_conn *c)
{
    return c->state == PYM_IDLE;
}

#endif
