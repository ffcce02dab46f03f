/* The broker: named queues, what stands in them, who waits, who holds what. Pure: no socket, no clock, no
 * descriptor, no log line. broker_step(now, event) changes the state and appends effects (replies and
 * deliveries); the caller carries them out, or holds them back until `commit` of the effect is on disk.
 *
 * Queue semantics are those of Python's queue.Queue (order of decisions, fifo, lifo, priority with
 * CPython's heap order, maxsize, task_done/join, shutdown), with leases on top:
 *
 *   ready --get--> leased --ack--> gone          leased --session died--> ready (front, attempt + 1)
 *
 * Waiters are served first come, first served. One loop thread. The same events at the same times give
 * the same effects, always. */
#ifndef MASTER_CORE_BROKER_H
#define MASTER_CORE_BROKER_H

#include "common/body.h"
#include "common/deadline.h"

#define BROKER_QUEUE_NAME_MAX 200
#define BROKER_TEXT_MAX       200
/* What a body is charged with above its length, against broker_limits.memory_bytes. */
#define BROKER_BODY_OVERHEAD_BYTES 96u

enum broker_kind { BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY };

/* When is a taken item gone for good? */
enum broker_ack {
    BROKER_ACK_AUTO,     /* at the session's next sign of progress: a put that succeeds, a get, task_done */
    BROKER_ACK_EXPLICIT, /* at task_done on that queue only (oldest held first) */
    BROKER_ACK_GET,      /* once the reply was written: Python's own at-most-once */
};

struct broker_queue_conf {
    enum broker_kind kind;
    enum broker_ack ack;
    int64_t maxsize;   /* items; <= 0 is unbounded */
    bool factory_made; /* made by a client (Queue(10)); removable */
};

struct broker_queue; /* opaque */
struct broker_task;  /* opaque */
struct broker_wait;  /* opaque: a parked get, put or join */

/* A session of a peer: embedded in the caller's connection, zeroed before BROKER_SESSION_OPEN, not moved
 * and not freed before BROKER_SESSION_CLOSE; the fields are the broker's own. It holds leased tasks and
 * has at most one parked call: while it has one (broker_session_parked), no other call of it may come in
 * without a BROKER_CANCEL before. */
struct broker_session {
    struct broker_task *held;          /* from ack=auto and ack=get queues, oldest first */
    struct broker_task *held_explicit; /* from ack=explicit queues, oldest first */
    struct broker_wait *wait;
    struct broker_session *prev; /* all open sessions */
    struct broker_session *next;
    uint32_t held_count;
    uint32_t held_explicit_count;
    bool open;
};

enum broker_event_kind {
    BROKER_SESSION_OPEN,
    BROKER_SESSION_CLOSE, /* close_mode tells what becomes of what it holds */
    BROKER_PUT,           /* body (borrowed: the broker adds references of its own), wait_mode, wait_ms */
    BROKER_GET,           /* wait_mode, wait_ms */
    BROKER_QSIZE,
    BROKER_EMPTY,
    BROKER_FULL,
    BROKER_TASK_DONE,
    BROKER_JOIN,
    BROKER_SHUTDOWN,  /* immediate */
    BROKER_CANCEL,    /* the session's parked call ends without a reply */
    BROKER_DELIVERED, /* the reply of the session's last get reached its socket; any later call says so too */
    BROKER_BOUNCE,    /* task of a delivery effect could not be handed over: front, attempt unchanged */
    BROKER_DUE,       /* deadline: a node of kind BROKER_DEADLINE came due */
};

enum broker_wait_mode { BROKER_NO_WAIT, BROKER_WAIT_MS, BROKER_WAIT_FOREVER };

enum broker_close_mode {
    BROKER_CLOSE_ACK,    /* left cleanly: what it holds from ack=auto and ack=get queues is done */
    BROKER_CLOSE_RETURN, /* died: what it holds goes back to the front, attempt + 1 */
};
/* In both modes: items of ack=explicit queues go back to the front, and so does an item whose reply was
 * never reported BROKER_DELIVERED (attempt unchanged then). */

struct broker_event {
    enum broker_event_kind kind;
    struct broker_session *session;
    struct broker_queue *queue;
    uint64_t token; /* the caller's name for the call, given back in its reply */
    struct tq_body *body;
    enum broker_wait_mode wait_mode;
    uint64_t wait_ms;
    bool immediate;
    enum broker_close_mode close_mode;
    struct broker_task *task;     /* BROKER_BOUNCE */
    struct tq_deadline *deadline; /* BROKER_DUE */
};

enum broker_outcome {
    BROKER_REPLY_NONE,          /* Python's None */
    BROKER_REPLY_BOOL,          /* number 0 or 1 */
    BROKER_REPLY_INT,           /* number */
    BROKER_REPLY_ITEM,          /* body (a reference for the effect), task, attempt */
    BROKER_REPLY_EMPTY,         /* queue.Empty */
    BROKER_REPLY_FULL,          /* queue.Full */
    BROKER_REPLY_SHUTDOWN,      /* queue.ShutDown */
    BROKER_REPLY_TOO_MANY_DONE, /* ValueError: task_done() called too many times */
    BROKER_REPLY_TYPE_ERROR,    /* TypeError with text (items that cannot be ordered) */
    BROKER_REPLY_NO_MEMORY,     /* the call had no effect; also: a body that can never fit the limit */
    BROKER_REPLY_TOO_MANY_HELD, /* limits.held_per_session */
};

struct broker_effect {
    struct broker_session *session;
    uint64_t token;
    enum broker_outcome outcome;
    int64_t number;
    struct tq_body *body;     /* BROKER_REPLY_ITEM: the effect owns one reference */
    struct broker_task *task; /* BROKER_REPLY_ITEM: for BROKER_BOUNCE, valid while the session holds it */
    uint32_t attempt;         /* 1 for the first hand-out */
    bool was_parked;          /* the call had waited: the peer may be gone by now */
    uint64_t commit;          /* may be carried out once this step number is committed; 0 = at once */
    char *text;               /* BROKER_REPLY_TYPE_ERROR: owned by the effect, else NULL */
};

struct broker_effects {
    struct broker_effect *list;
    size_t count;
    size_t cap;
};

/* `a < b` as Python decides it. 0 and *ret_less; 1: not comparable, text says so as Python would;
 * TQ_ENOMEM. */
typedef int (*broker_less_fn)(const struct tq_body *a, const struct tq_body *b, bool *ret_less,
                              char text[BROKER_TEXT_MAX]);

struct broker_limits {
    uint32_t queues; /* queues at once */
    /* Bodies of all queues and leases, 0 = no limit. A put that does not fit, what it
     * acknowledges taken off, finds the queue full. The last eighth is kept for sessions that hold a lease:
     * a result that is refused would keep its task in memory for ever. Bodies of parked puts may take as
     * much again. */
    uint64_t memory_bytes;
    uint32_t held_per_session; /* leases one session may hold (ack=explicit), 0 = no limit */
};

struct broker_stats {
    uint64_t puts;     /* accepted */
    uint64_t gets;     /* hand-outs */
    uint64_t acked;    /* leases that ended well */
    uint64_t returned; /* leases that ended with their session */
    uint64_t bounced;
    uint64_t dropped; /* by shutdown(immediate) and broker_remove */
    uint64_t waiting; /* parked calls now */
    uint64_t queues;
    uint64_t tasks; /* ready and leased */
    uint64_t leased;
    uint64_t body_bytes;   /* of tasks, with BROKER_BODY_OVERHEAD_BYTES each */
    uint64_t parked_bytes; /* the same of parked puts */
    uint64_t steps;        /* that changed what a log has to keep: the number of the last such step */
};

struct broker; /* opaque */

#define BROKER_DEADLINE 1u /* tq_deadline.kind of the broker's own nodes */

/* Deadlines are set in `dl`, which outlives the broker; whoever pops a node of kind BROKER_DEADLINE sends
 * it in at once as BROKER_DUE. `less` may be NULL when there are no priority queues. NULL when out of
 * memory. */
struct broker *broker_new(struct tq_deadlines *dl, const struct broker_limits *limits, broker_less_fn less);
/* Sessions that are still open (and still in place) are closed without effects; bodies are released. */
void broker_free(struct broker *b);

/* conf is copied. TQ_EINVAL bad name or kind ([A-Za-z0-9._-]{1,200}), TQ_EEXISTS, TQ_ELIMIT, TQ_ENOMEM. */
int broker_declare(struct broker *b, const char *name, const struct broker_queue_conf *conf,
                   struct broker_queue **ret_queue);
struct broker_queue *broker_find(struct broker *b, struct tq_span name); /* NULL when there is none */
const char *broker_queue_name(const struct broker_queue *q);
const struct broker_queue_conf *broker_queue_conf(const struct broker_queue *q);
uint64_t broker_queue_size(const struct broker_queue *q);
bool broker_queue_shut_down(const struct broker_queue *q); /* after BROKER_SHUTDOWN */
/* Removes a factory-made queue with all that stands in it. Parked calls on it get BROKER_REPLY_SHUTDOWN.
 * Tasks that sessions hold from it stay valid until they end; none comes back. q is not to be named in
 * events any more. */
void broker_remove(struct broker *b, struct broker_queue *q, struct broker_effects *out);
void broker_get_stats(const struct broker *b, struct broker_stats *ret_stats);

/* Number of tasks that the session holds and that a close with BROKER_CLOSE_ACK would acknowledge, and
 * the queue of the oldest of them (for the question whether the close was clean). */
uint32_t broker_session_held(const struct broker_session *s, const struct broker_queue **ret_queue);
bool broker_session_parked(const struct broker_session *s);

/* One event. Appends to `out` (never clears it). 0, or TQ_ENOMEM when not even the reply could be
 * recorded (the event had no effect then; a due node is set again a little later). A step that ends other
 * sessions' waits appends their replies too, after its own, in the order in which they were served; if
 * there is no memory for one of them, it waits until there is. `now_ms` never goes back. */
int broker_step(struct broker *b, uint64_t now_ms, const struct broker_event *ev, struct broker_effects *out);

void broker_effects_deinit(struct broker_effects *fx); /* releases bodies and the list */
/* Releases the bodies and forgets the effects, keeping the memory. */
void broker_effects_clear(struct broker_effects *fx);

#endif
