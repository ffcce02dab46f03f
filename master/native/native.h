/* The native dialect of the master (proto/PROTOCOL.md, section 5): requests in, replies out, and the roster
 * of sessions that outlive their connections. Pure: no socket, no clock, no random, no log; whoever carries
 * it (the server, a simulation, a fuzzer) is the host.
 *
 *   host                                          dialect
 *   a frame came             native_frame ------> steps the broker through host.step
 *   host.step: broker_step, then each effect's    endpoint.on_effect writes replies into conn.out
 *   endpoint
 *   writes, closes    <----- native_next_dirty    connections with output, or to be closed
 *   a deadline of kind NATIVE_DEADLINE: native_on_deadline
 *   the socket has gone      native_closed -----> what it leased is freed, or waits; the session may stay
 *
 * Nothing here calls the host about output or closing: it marks the connection as dirty, and the host asks
 * for dirty ones after each call that may have made some (each read, each run of effects). So a connection
 * never goes away within a call of its own. While effects are carried out, nothing here is called but their
 * endpoints. One loop thread. */
#ifndef MASTER_NATIVE_NATIVE_H
#define MASTER_NATIVE_NATIVE_H

#include "common/buf.h"
#include "common/deadline.h"
#include "master/access/keys.h" /* enum key_right */
#include "master/core/broker.h"
#include "master/core/journal_ops.h"
#include "master/endpoint.h"

#define NATIVE_VERSION          1u
#define NATIVE_DEADLINE         64u /* tq_deadline.kind of the roster's nodes */
#define NATIVE_TEXT_MAX         640 /* of an error's text */
#define NATIVE_TOKEN_BYTES      16
#define NATIVE_CLIENT_MAX       128
#define NATIVE_PATH_MAX         4000
#define NATIVE_HEARTBEAT_MIN_MS 1000u
#define NATIVE_HEARTBEAT_MAX_MS 600000u
#define NATIVE_FORGET_MS        30000u /* a session without connection is kept at least so long */

struct native_conn;
struct native;         /* opaque: roster, waiting calls, buffers */
struct native_session; /* opaque */
struct native_call;    /* opaque: a request that waits for its reply */

struct native_limits {
    uint32_t frame_bytes;  /* of one request; told to clients */
    uint32_t calls;        /* waiting requests of one connection; 1024 */
    uint32_t batch;        /* tasks in one put, get, done; up to BROKER_GET_MAX, which is usual */
    uint32_t sessions;     /* with and without connection */
    uint32_t reply_bytes;  /* a reply takes no further task once it is so long; 1 MiB */
    uint32_t output_bytes; /* who leaves so much unread gets no tasks and no results until it has read; after
                              a frame more it is closed; above reply_bytes; 8 MiB. One reply may be longer */
    uint64_t parked_bytes; /* rests of puts that wait for room, all connections together */
};

enum native_log_level { NATIVE_LOG_DEBUG, NATIVE_LOG_INFO, NATIVE_LOG_WARN };

/* For replies and log lines; borrowed until the next call of the host. */
struct native_peer {
    const char *peer; /* "127.0.0.1:40312" */
    const char *key;  /* name of its key */
    const char *role; /* and of the role */
};

struct native_stat {
    const char *name;
    uint64_t value;
};

/* What became of a backup. */
enum native_backup_end {
    NATIVE_BACKUP_GOOD,
    NATIVE_BACKUP_IMPOSSIBLE, /* there is no log: memory mode */
    NATIVE_BACKUP_BUSY,       /* one is being made already */
    NATIVE_BACKUP_EXISTS,     /* the folder is there, and not empty */
    NATIVE_BACKUP_PERMISSION,
    NATIVE_BACKUP_NO_SPACE,
    NATIVE_BACKUP_FAILED,
};
struct native_backup {
    enum native_backup_end end;
    uint64_t index, bytes, files; /* if it is good: up to which record; of the segments copied */
    char text[NATIVE_TEXT_MAX];   /* else cause and remedy */
};

/* What the host does for the dialect. All are called from within calls of native_... or of an effect, and
 * none may call native_... back, but for the endpoints' on_effect out of `step`. */
struct native_host {
    void *ctx;
    struct broker *broker;          /* to look at; it is changed only through the functions here */
    struct tq_deadlines *deadlines; /* outlives the dialect */
    struct native_limits limits;
    int64_t unix_offset_ms;            /* unix time - the broker's time; the host may change it */
    const char *server;                /* "task-master/0.1.0" */
    enum broker_durability durability; /* of queues that are declared without */
    bool durable;                      /* there is a log; else every queue has BROKER_DURABILITY_MEMORY */

    /* The broker's clock: never goes back. */
    uint64_t (*now_ms)(void *ctx);
    /* broker_step, then each effect is carried out by its endpoint, unless effects are just being carried
     * out: then these come after them. 0, or TQ_ENOMEM as of broker_step. */
    int (*step)(void *ctx, const struct broker_event *ev);
    /* 0, or negative: no random to be had. */
    int (*random)(void *ctx, void *out, size_t n);
    /* May the connection's key do `verb`, which takes one of the rights in `any_of` (bits of enum key_right)?
     * On the queue; or, if that is NULL and the name is not empty, on a queue of this name that is not there;
     * or on none. If not: counted and logged by the host, and text says who may not do what, and the remedy.
     */
    bool (*allowed)(void *ctx, const struct native_conn *c, unsigned any_of, const char *verb,
                    const struct broker_queue *queue, struct tq_span name, char text[NATIVE_TEXT_MAX]);
    /* broker_declare, broker_reconfigure, broker_remove, and what else the host keeps of queues; effects are
     * carried out as of `step`. */
    int (*declare)(void *ctx, const char *name, const struct broker_queue_conf *conf,
                   struct broker_queue **ret_queue);
    int (*reconfigure)(void *ctx, struct broker_queue *queue, const struct broker_queue_conf *conf);
    /* 0; TQ_EINVAL: this one is not to be removed, and stays. */
    int (*remove)(void *ctx, struct broker_queue *queue);
    void (*describe)(void *ctx, const struct native_conn *c, struct native_peer *ret_peer);
    /* id: stable, upper case; text: "key=value ..." with all that came from peers quoted. */
    void (*log)(void *ctx, enum native_log_level level, const char *id, const char *text);
    /* The number of the key of this name, as keys are numbered now; false: there is none. For sessions that
     * outlived the master. */
    bool (*key_named)(void *ctx, struct tq_span name, uint32_t *ret_key);
    /* Begins a copy of the log into this folder (an absolute path), of all that is acknowledged by now: `end`
     * is GOOD, and native_backup_done follows later, not from within this call; or it says why not. */
    void (*backup)(void *ctx, uint64_t token, const char *dir, struct native_backup *ret);
    /* The host's own counters for `stats`; up to `max`, returns how many. */
    unsigned (*stats)(void *ctx, struct native_stat *out, unsigned max);
};

#define NATIVE_STATS_MAX 64u

struct native_counters {
    uint64_t frames, requests, errors; /* errors: replies that are one */
    uint64_t protocol_errors;          /* connections closed for it */
    uint64_t sessions_opened, sessions_resumed, sessions_taken_over, sessions_forgotten, silent;
    uint64_t lost_told, not_reading;
};

enum native_closing {
    NATIVE_STAYS,
    NATIVE_CLOSE_FLUSHED, /* once what is in `out` has been written */
    NATIVE_CLOSE_NOW,     /* nothing of `out` matters any more */
};

/* One connection: embedded in the host's object, not moved between native_open and native_closed. */
struct native_conn {
    struct native *native;          /* NULL: not open */
    struct native_session *session; /* NULL before hello */
    struct tq_buf out;              /* whole frames, for the host to write: see native_written */
    struct native_call *calls;      /* list, oldest first */
    struct native_conn *dirty_next;
    uint64_t heard_ms;     /* see native_heard */
    const char *close_why; /* for the log, when `closing` is set */
    uint32_t unsent;       /* the host's: bytes that it took out of `out` and that are not written yet */
    uint32_t call_count;
    uint32_t key;    /* the host's number of its key: sessions belong to it */
    uint8_t closing; /* enum native_closing */
    bool dirty;
    bool held; /* the host's: what it took out of `out` has not gone because of its log */
};

enum native_closed {
    NATIVE_SOCKET_CLOSED, /* leases are freed at once; a worker that resumes may get them back */
    NATIVE_FELL_SILENT,   /* nothing is heard of the machine: leases wait for the grace of their queue */
    NATIVE_REVOKED,       /* its key is gone: the session ends with the connection */
};

/* `host` is borrowed and must outlive the dialect. NULL when out of memory. */
struct native *native_new(struct native_host *host);
/* All connections are closed before. Sessions end by host.step, so it comes before broker_free. */
void native_free(struct native *n);
const struct native_counters *native_counters(const struct native *n);

/* Its first frame is native. *c is zeroed by this. */
void native_open(struct native *n, struct native_conn *c, uint32_t key);
/* One payload, borrowed. Not from within an effect, and not while native_wants_input says no. */
void native_frame(struct native_conn *c, struct tq_span payload);
/* Bytes came (also parts of frames): a sign of life, cheap. native_frame says so too. */
static inline void native_heard(struct native_conn *c, uint64_t now_ms)
{
    c->heard_ms = now_ms;
}
/* The connection is not there any more; *c may go afterwards, and so may what `out` holds. Repeatable. */
void native_closed(struct native_conn *c, enum native_closed how);
/* False: it is to be closed, or it leaves too much of its output unread; the host asks again when it has
 * written some. */
bool native_wants_input(const struct native_conn *c);

/* The next connection that has output or is to be closed, and is not marked any more; NULL: none. */
struct native_conn *native_next_dirty(struct native *n);
bool native_has_dirty(const struct native *n);
/* All of `out` was written: it is empty now. */
void native_written(struct native_conn *c);
/* The host takes `out` away, to write it in its own time; it counts it in c->unsent until that is done, and
 * gives the buffer back. Its bytes do not move meanwhile. */
void native_take_output(struct native_conn *c, struct tq_buf *ret_buf);
void native_give_back(struct native *n, struct tq_buf *buf);

/* The backup of this token has ended. */
void native_backup_done(struct native *n, uint64_t token, const struct native_backup *b);

/* A node of kind NATIVE_DEADLINE came due. */
void native_on_deadline(struct native *n, struct tq_deadline *d);
/* Rights have changed: waiting requests that are not allowed any more end with `denied`; revoked: all end
 * without a word, and native_closed(NATIVE_REVOKED) follows soon. */
void native_rights_changed(struct native_conn *c, bool revoked);
/* Keys have other numbers: of number i now moved[i], or TQ_AUTH_KEY_GONE: sessions without connection of such
 * a key end. c->key of connections is the host's to change, before. */
void native_keys_moved(struct native *n, const size_t *moved, size_t count);

/* ---- sessions that outlive the master ----
 * Those with a worker id do: the log gets their ops (core/journal_ops.h), after native_journal_enable, which
 * comes before the first connection.
 *
 * Their texts are:
 *   OPS_SESSION       durable_id; texts worker, client, name of the key; 16 bytes token, 16 bytes
 *                     token_before; u8 unconfirmed; heartbeat_ms, since_ms, next_durable_id
 *   OPS_SESSION_GONE  durable_id */
enum { OPS_SESSION = OPS_HOST, OPS_SESSION_GONE };
void native_journal_enable(struct native *n);
bool native_journal_has_news(const struct native *n);
/* Appends the ops of all changes, as at home in `segment` (never a lower one than before); whoever is told of
 * a session waits until they are synced. TQ_ENOMEM, TQ_ELIMIT: `out` is as it was, nothing is forgotten. */
int native_journal_collect(struct native *n, uint64_t segment, struct tq_buf *out);
uint64_t native_journal_oldest(const struct native *n); /* UINT64_MAX: none */
/* What is at home in segments <= `segment` moves forward from now on, with each collect a bounded part of it:
 * there are news until all has. */
void native_journal_move(struct native *n, uint64_t segment);
/* How many bytes of ops it takes to write all that is recorded. Cheap. */
uint64_t native_journal_live_bytes(const struct native *n, uint64_t *ret_sessions);
/* An op of the two above, out of `segment` (never a lower one than before): TQ_EINVAL with text, TQ_ENOMEM.
 * The sessions are raw: */
int native_restore_op(struct native *n, uint8_t op, struct tq_span bytes, uint64_t segment, char text[200]);
/* Then this opens them (host.step), silent and without a connection: they wait for their workers as if those
 * had fallen silent now. Those whose key is gone end, and that is news. TQ_ENOMEM: n is only good for
 * native_free. */
int native_restore_finish(struct native *n);
/* Of a session that was restored; NULL: there is none of this id. Between restore_finish and restore_wait. */
struct broker_session *native_session_of(struct native *n, uint64_t durable_id);
/* After broker_restore_finish: how long each waits depends on what it holds. */
void native_restore_wait(struct native *n);

/* The master stops: `bye` to all who have said hello. The host closes them when that is written; what
 * sessions that are recorded hold stays theirs then. */
void native_stop(struct native *n);

#endif
