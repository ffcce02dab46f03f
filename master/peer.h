/* One connection to the master.
 *
 *   HANDSHAKE --open--> FIRST --control request--> CLOSING (after its reply)
 *       |                 |----accept_connection--> SESSION --eof--> CLOSING, or LIMBO --> CLOSING
 *       |--wrong answer--> REFUSED --delay--> CLOSING
 *
 * LIMBO: the socket is closed, but whether the client left cleanly is not decided yet (python/refs.h).
 * Any state may go to CLOSING: peer_close is repeatable, and the memory goes in the close callback. */
#ifndef MASTER_PEER_H
#define MASTER_PEER_H

#include "master/server.h"

enum peer_state { PEER_HANDSHAKE, PEER_REFUSED, PEER_FIRST, PEER_SESSION, PEER_LIMBO, PEER_CLOSING };

struct peer_write; /* bytes that the socket did not take at once */

struct peer {
    struct endpoint endpoint; /* first */
    uint32_t tag;             /* checked when a peer comes out of a void pointer */
    uint8_t state;            /* enum peer_state; peer_set_state writes it */
    bool broker_open;         /* BROKER_SESSION_OPEN was sent */
    bool call_overflow;       /* the running call's Empty or Full becomes OverflowError */
    bool close_after_write;
    bool reading;
    bool handle_closed;
    bool resuming;        /* in server.resuming */
    bool wants_delivered; /* the pending write is the reply of a get */
    struct server *server;
    struct peer *prev, *next;
    struct peer *resume_prev, *resume_next;
    uv_tcp_t tcp;
    struct tq_session session;
    struct tq_deadline deadline;
    struct halfopen_entry halfopen;
    struct pyrefs_session refs;
    struct halfopen_addr addr;
    uint16_t port;
    struct peer_write *write; /* NULL: nothing pending */
    struct tq_buf stash;      /* input that waits for the pending write */
    char *name;               /* what accept_connection announced, for the log; or NULL */
};

/* Accepts from a listener. */
void peer_accept(struct server *s, uv_stream_t *listener);
/* Closes; `why` goes to the debug log. Repeatable. */
void peer_close(struct peer *p, const char *why);
/* Goes on with the input of peers whose replies have gone out; called once a turn of the loop. */
void peer_resume_all(struct server *s);
/* The verdict on a peer in limbo has been carried out: its memory may go. */
void peer_limbo_done(struct peer *p);
/* peer_on_deadline comes in so many ms, unless it is set anew. */
void peer_set_deadline(struct peer *p, uint64_t in_ms);
/* A deadline of the peer came due. */
void peer_on_deadline(struct tq_deadline *d);

/* Sends a whole frame: `bytes` are copied as far as the socket does not take them; or `body` (a reference
 * is taken over). At most one frame is on its way: input is not looked at while one is pending.
 * True when all of it reached the socket. */
bool peer_send(struct peer *p, struct tq_span bytes, struct tq_body *take_body);
/* "127.0.0.1:43210 (MainProcess)"; valid until the next call. */
const char *peer_text(const struct peer *p);
/* Does the other side still listen? For replies to calls that had waited: false when its socket has ended,
 * or when it sent something that takes the call's place. */
bool peer_still_waits(const struct peer *p);
/* A session may idle for days: notice a machine that vanished without a word. */
void peer_keepalive(struct peer *p);
void peer_set_state(struct peer *p, enum peer_state state);

#endif
