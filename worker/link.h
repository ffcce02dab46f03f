/* Connections to one peer over libuv: dialing, handshake, frames; what the dialects of the worker stand on.
 *
 * Dials stand in a queue: at most one connection of the process is between connect() and the end of its
 * handshake. A peer that had two of our handshakes open at once could hand us our own challenge back and be
 * let in without the key. After a failure the queue pauses (backoff), so the connections wait together. */
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include <uv.h>

#include "proto/session.h"
#include "worker/backoff.h"
#include "worker/ticker.h"

#define LINK_HANDSHAKE_MS  10000
#define LINK_ADDRESSES_MAX 8
#define LINK_READ_BYTES    65536
#define LINK_TEXT_MAX      640

enum link_failure {
    LINK_FINE,         /* closed because we asked for it */
    LINK_UNKNOWN_HOST, /* the name has no address */
    LINK_NO_ANSWER,    /* could not connect, or no handshake in time */
    LINK_KEY_REFUSED,  /* it said #FAILURE# to our answer */
    LINK_KEY_UNPROVEN, /* it let us in but does not know the key itself */
    LINK_LOST,         /* the connection ended */
    LINK_BAD_PEER,     /* it broke the protocol */
    LINK_OUT_OF_MEMORY,
};

enum link_event {
    LINK_OPEN,   /* both sides are authenticated; frames may be sent */
    LINK_FRAME,  /* one payload, valid during the event */
    LINK_CLOSED, /* the last event: l->failure and l->text say why; l may be opened again */
};

/*   IDLE --open--> QUEUED --> DIAL --> UP
 *    ^               |          |      |
 *    +---- CLOSING <-+----------+------+                                                      */
enum link_state { LINK_IDLE, LINK_QUEUED, LINK_DIALING, LINK_UP, LINK_CLOSING };

struct link;
typedef void (*link_event_fn)(struct link *l, enum link_event ev, struct tq_span frame);

struct link {
    struct link_peer *peer;
    link_event_fn on_event;
    enum link_state state;
    enum link_failure failure;
    char text[LINK_TEXT_MAX]; /* for people: the failure, with the peer's name */
    uv_tcp_t tcp;
    uv_connect_t connect;
    bool has_tcp;
    bool has_session;
    bool rhel;       /* answers a 20-byte challenge with raw SHA-256 */
    bool rhel_other; /* both ways of answering it were tried */
    bool redial;     /* close, then dial again at once: next address, or the other way of answering */
    unsigned handshake_sends;
    size_t answer_bytes; /* our answer with its header: tells which challenge it was */
    uint64_t heard_ms;   /* when bytes came last */
    struct tq_session session;
    struct tick tick; /* set from open to LINK_CLOSED, parked when nothing is due */
    struct link *prev, *next;
};

struct link_peer {
    uv_loop_t *loop;
    struct ticker *ticker;
    char host[256];
    uint16_t port;
    char name[272]; /* HOST:PORT */
    struct tq_auth_key key;
    struct tq_auth_registry registry;
    struct tq_session_limits limits;
    bool rhel; /* what worked last */
    struct sockaddr_storage addresses[LINK_ADDRESSES_MAX];
    unsigned address_count;
    unsigned address_at;
    unsigned address_tries;
    uv_getaddrinfo_t resolver;
    bool resolving;
    struct link *queue;
    struct link *dialing;
    struct backoff backoff;
    struct tick pause;
    bool paused;
    uint8_t read_buf[LINK_READ_BYTES];
};

/* key is borrowed. TQ_ENOMEM. */
int link_peer_open(struct link_peer *p, uv_loop_t *loop, struct ticker *ticker, const char *host,
                   uint16_t port, struct tq_span key, uint64_t frame_bytes);
/* All links are idle. */
void link_peer_close(struct link_peer *p);
/* Something went wrong with it: no dial for a while. Repeated within the pause it counts once. */
void link_peer_failed(struct link_peer *p);
/* It serves us: the next pause is short again. */
void link_peer_works(struct link_peer *p);
/* In a pause after a failure. */
static inline bool link_peer_is_down(const struct link_peer *p)
{
    return p->paused;
}

/* Queues the dial of an idle link. Each open ends with one LINK_CLOSED, never from inside a call into this
 * module. TQ_ENOMEM: nothing was opened. */
int link_open(struct link *l, struct link_peer *p, link_event_fn on_event);
/* Sends one whole frame on a link that is up or closing. TQ_ECLOSED: not a byte of it was written, and
 * LINK_CLOSED follows. */
int link_send(struct link *l, struct tq_span frame);
/* A link that is up: LINK_LOST after so many ms, unless it is called again; 0: no limit (any more). */
void link_deadline(struct link *l, uint64_t after_ms);
/* Why it ends, in words for people; the first reason stays. Nothing when it is closing. */
__attribute__((format(printf, 3, 4))) void link_fail(struct link *l, enum link_failure failure,
                                                     const char *fmt, ...);
/* Any state; repeatable. */
void link_close(struct link *l);

static inline bool link_is_idle(const struct link *l)
{
    return l->state == LINK_IDLE;
}

#endif
