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

#include "master/log/log.h"
#include "master/server.h"

enum peer_state { PEER_HANDSHAKE, PEER_REFUSED, PEER_FIRST, PEER_SESSION, PEER_LIMBO, PEER_CLOSING };

#define ACCESS_CACHE 2 /* a worker gets from one queue and puts to another */

/* What the peer's key may do with the queues that it used last; access/access.c's own. */
struct access_cache {
    const struct broker_queue *queue[ACCESS_CACHE];
    uint32_t epoch; /* server.rights_epoch */
    uint8_t rights[ACCESS_CACHE];
    uint8_t next;
};

struct peer_write;    /* bytes that the socket did not take at once */
struct pypeer;        /* python/dialect.h */
struct native_socket; /* native_peer.h */

struct peer {
    uint32_t tag;    /* checked when a peer comes out of a void pointer */
    uint16_t port;   /* of the other side */
    uint8_t state;   /* enum peer_state; peer_set_state writes it */
    uint8_t gone_by; /* native: enum native_closed */
    int fd;          /* read and written here; the loop only tells when it is ready */
    uint8_t watched; /* enum uv_poll_event: what the loop looks for */
    bool close_after_write : 1;
    bool reading : 1;
    bool handle_closed : 1;
    bool resuming : 1;  /* in server.resuming */
    bool revoked : 1;   /* its key is gone: it is about to be closed */
    bool is_native : 1; /* from its first native request on */
    struct server *server;
    struct peer *prev, *next;
    struct halfopen_addr addr;
    uv_poll_t poll;
    struct tq_session session;
    struct tq_deadline deadline;
    struct peer_write *write; /* NULL: nothing pending */
    struct tq_buf *stash;     /* input that waits for the pending write; NULL: none */
    union {
        struct halfopen_entry halfopen; /* before it is authenticated */
        struct {                        /* after that */
            struct access_cache access;
            struct peer *resume_next;
            union {
                struct pypeer *python;        /* its session; NULL: it has none */
                struct native_socket *native; /* if is_native */
            };
        };
    };
};

/* Which half of the union it uses. */
static inline bool peer_is_half_open(const struct peer *p)
{
    return p->state == PEER_HANDSHAKE || p->state == PEER_REFUSED;
}
static inline bool peer_is_native(const struct peer *p)
{
    return p->is_native;
}

/* A connection that was accepted; the descriptor is taken over. */
void peer_accept(struct server *s, int take_fd, const struct sockaddr_storage *from);
/* Closes; `why` goes to the debug log. Repeatable. */
void peer_close(struct peer *p, const char *why);
/* Closes without waiting for a verdict; p may be freed. */
void peer_kill(struct peer *p, const char *why);
/* The keys were reloaded: a call that waits and that access_allowed refuses now ends with that error; if
 * `revoked`, all that wait end without a word (the peer is closed soon). Gives nothing back to a queue. */
void peer_rights_changed(struct peer *p);
/* Its call is over: the input behind it is looked at before the loop sleeps. */
void peer_resume_later(struct peer *p);
/* Goes on with the input of peers whose replies have gone out, unless server.busy; called once a turn of the
 * loop. */
void peer_resume_all(struct server *s);
/* The end: nobody's input is looked at any more. */
void peer_resume_none(struct server *s);
/* The verdict on a peer in limbo has been carried out: its memory may go. */
void peer_limbo_done(struct peer *p);
/* peer_on_deadline comes in so many ms, unless it is set anew. */
void peer_set_deadline(struct peer *p, uint64_t in_ms);
/* A deadline of the peer came due. */
void peer_on_deadline(struct tq_deadline *d);

/* Sends a whole frame: `bytes` are copied as far as the socket does not take them; or `body` (a reference
 * is taken over). At most one frame is on its way: input is not looked at while one is pending.
 * True when all of it reached the socket. With a log it may have to wait before it is tried. */
bool peer_send(struct peer *p, struct tq_span bytes, struct tq_body *take_body);
/* What is composed now has to wait for the log. */
bool peer_must_hold(const struct peer *p);
/* A whole buffer that has to, until the log has got to *need; NULL: it is in no record yet. The buffer is
 * taken over. Nothing is on its way. */
void peer_send_held(struct peer *p, struct tq_buf *take_buf, const struct log_need *need);
/* The rest of a buffer that was tried, from `offset`; the buffer is taken over. Nothing is on its way. */
void peer_send_rest(struct peer *p, struct tq_buf *take_buf, size_t offset);
/* All that was composed so far is in a record now: it may go out when the log has got to `need`, which never
 * goes back. */
void peer_record_fresh(struct server *s, struct log_need need);
/* Those stand behind all others that wait. */
void peer_hold_recorded(struct server *s);
/* Whatever the log has got to goes out, in the order of needs. May close peers, and make them go on. */
void peer_release_met(struct server *s);
/* Writes what the socket takes at once: how many bytes, or negative (the peer is closed then). */
int peer_try_write(struct peer *p, struct tq_span bytes);
/* `127.0.0.1:43210 name="MainProcess"`, as log lines have it; valid until the next call. */
const char *peer_text(const struct peer *p);
/* Does the other side still listen? For replies to calls that had waited: false when its socket has ended,
 * or when it sent something that takes the call's place. */
bool peer_still_waits(const struct peer *p);
/* A session may idle for days: notice a machine that vanished without a word. */
void peer_keepalive(struct peer *p);
void peer_set_state(struct peer *p, enum peer_state state);

#endif
