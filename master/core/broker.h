/* The broker: named queues, what stands in them, who waits, who holds what. Pure: no socket, no clock, no
 * descriptor, no log line. broker_step(now, event) changes the state and appends effects (replies and
 * deliveries); the caller carries them out, or, with a journal (journal.h), holds them back until what has
 * changed up to then is on disk.
 *
 *            put                 get                 done, fail (final)
 *   (new) ---------> ready <------------> leased ----------------------> its result, or a dead letter
 *     |  delay        ^  ^   died, silent,  |
 *     +---> delayed --+  |   released       | fail (may be retried)
 *              ^         +------------------+
 *              +----------------------------+
 *
 * A task is named by its id for as long as it, its result or its dead letter is there. Every hand-out is a
 * lease with an epoch of its own: what is said of a lease carries (id, epoch), and an old epoch changes
 * nothing. `done` takes the task out and puts its result in its place, in one step and under the same id.
 *
 * Two kinds of sessions: those of Python clients hold what they took until their next sign of progress
 * (enum broker_ack); native ones name each lease. Queue semantics are those of Python's queue.Queue (order of
 * decisions, fifo, lifo, priority with CPython's heap order, maxsize, task_done/join, shutdown).
 *
 * Waiters are served first come, first served. One loop thread. The same events at the same times give the
 * same effects, always: there is no random; jitter comes from a hash of id and attempt. */
#ifndef MASTER_CORE_BROKER_H
#define MASTER_CORE_BROKER_H

#include "common/body.h"
#include "common/deadline.h"

#define BROKER_QUEUE_NAME_MAX 200 /* bytes; so are the following */
#define BROKER_KEY_MAX        200
#define BROKER_TRACE_MAX      128
#define BROKER_WORKER_MAX     128
#define BROKER_ERROR_MAX      1024 /* longer ones are cut */
#define BROKER_TEXT_MAX       200
#define BROKER_GET_MAX        10000 /* tasks in one get */
#define BROKER_EPOCH_MAX      UINT32_MAX
#define BROKER_ATTEMPTS_MAX   250
#define BROKER_RETENTION_AUTO UINT32_MAX
/* What a body is charged with above its length, against broker_limits.memory_bytes. */
#define BROKER_BODY_OVERHEAD_BYTES 96u

enum broker_kind { BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY };

/* When is an item that a Python session took gone for good? Native sessions say so by (id, epoch). */
enum broker_ack {
    BROKER_ACK_AUTO,     /* at the session's next sign of progress: a put that succeeds, a get, task_done */
    BROKER_ACK_EXPLICIT, /* at task_done on that queue only (oldest held first) */
    BROKER_ACK_GET,      /* once the reply was written: Python's own at-most-once */
};

/* What an OK of a call on the queue promises, if the broker has a journal (journal.h). */
enum broker_durability {
    BROKER_DURABILITY_FSYNC,    /* it is on stable storage: the default */
    BROKER_DURABILITY_INTERVAL, /* it is written: survives the end of the process; a power cut loses the last
                                   moments */
    BROKER_DURABILITY_MEMORY,   /* nothing: its tasks are gone with the process */
};

/* A queue's policies. broker_queue_conf_init gives the defaults. */
struct broker_queue_conf {
    enum broker_kind kind;
    enum broker_ack ack;
    enum broker_durability durability; /* a change counts for what comes in from then on */
    bool factory_made;                 /* made by a client (Queue(10)); removable */
    bool paused;                       /* nothing is handed out; puts go on */
    bool reject_full; /* a put that finds it full is refused at once, even if it would wait */
    int64_t maxsize;  /* ready and delayed tasks; <= 0 is unbounded */
    /* Hand-outs that ended in `fail` or in a death, after which a fail is final; 0: a fail is always retried.
     */
    uint8_t max_attempts; /* default 1 */
    /* The same, after which a death or a time-out is final, too; 0 (default): never. */
    uint8_t max_deliveries;
    uint32_t lease_ms; /* a native lease without `extend`; 0 (default): as long as its session lives */
    uint32_t grace_ms; /* how long a silent session's leases wait for it; default 30,000 */
    /* n-th retry: after retry_ms * 2^(n-1), at most retry_max_ms, of which up to half is taken off by jitter.
     * 0: at once, to the front. Defaults 1,000 and 600,000. */
    uint32_t retry_ms;
    uint32_t retry_max_ms;
    uint64_t ttl_ms; /* of a task that was never handed out or came back; 0 (default): for ever */
    /* How long a result that has been taken, or that has no queue to go to, can be had by wait(id), and its
     * key is known. AUTO (default): 300,000 for tasks that have a key or no result queue, 0 for others. */
    uint32_t retention_ms;
    uint32_t rate_per_s;  /* hand-outs, a token bucket of rate_burst (default rate_per_s); 0: no limit */
    uint32_t rate_burst;  /* at least what comes in a millisecond */
    uint32_t concurrency; /* leases at once, all sessions together; 0: no limit */
    uint32_t expires_ms;  /* removed with all that is in it when nobody used it for so long; 0: never */
    const char *result;   /* where results go, by name; NULL: nowhere (they are kept for wait) */
    const char *dead;     /* where dead letters go; NULL: the failure is the task's result */
};

void broker_queue_conf_init(struct broker_queue_conf *c); /* fifo, auto, and the defaults above */

struct broker_queue; /* opaque */
struct broker_lease; /* opaque */
struct broker_wait;  /* opaque: a parked get, put, join or wait for a result */

/* A session of a peer: embedded in the caller's object, zeroed before BROKER_SESSION_OPEN, not moved and not
 * freed before BROKER_SESSION_CLOSE; the fields are the broker's own, but for `native`, `durable_id` and
 * `worker`, which are set before BROKER_SESSION_OPEN. A Python session has at most one parked call: while it
 * has one (broker_session_parked), no other call of it may come in without a BROKER_CANCEL before. A native
 * one may have any number (the caller bounds it), each with a token of its own. */
struct broker_session {
    uint64_t durable_id; /* native: names it in the journal; 0: it ends with its connection. Set before the
                            open, and never used for another one */
    bool native;
    bool open;
    bool silent; /* native: nothing heard of it; its leases wait out their grace */
    uint32_t held_count;
    union {
        uint32_t held_explicit_count;
        uint32_t freed_count;
    };
    uint32_t wait_count;
    struct tq_span worker;     /* name for results; borrowed until the close */
    struct broker_lease *held; /* Python: from ack=auto and ack=get queues; native: all. Oldest first */
    union {
        struct broker_lease *held_explicit; /* Python: from ack=explicit queues, oldest first */
        struct broker_lease *freed;         /* native: given back by BROKER_DETACH, and may be resumed */
    };
    struct broker_wait *waits;
    struct broker_session *prev; /* all open sessions */
    struct broker_session *next;
};

enum broker_format {
    BROKER_MSGPACK, /* one msgpack value */
    BROKER_PYTHON,  /* a whole reply frame, as common/body.h says, and where its item stands */
};

/* A body, borrowed. If `body` is not NULL, data and len are its own, and the broker may keep a reference
 * instead of a copy; small bodies are always copied. */
struct broker_payload {
    const uint8_t *data;
    uint32_t len;
    uint8_t format; /* enum broker_format */
    uint32_t item_off;
    uint32_t item_len;
    struct tq_body *body;
};

enum broker_event_kind {
    /* Sessions. No reply. */
    BROKER_SESSION_OPEN,
    BROKER_SESSION_CLOSE, /* close_mode tells what becomes of what a Python session holds; a native session's
                             leases go back. `freed` is forgotten */
    BROKER_DETACH, /* native: its connection has gone. Parked calls end without a reply. free_now: its leases
                      go to the front at once, and are remembered as freed; else they wait out their grace */
    BROKER_RESUME, /* native: it is back and says what it holds: leases, lease_count. What it does not name
                      goes back to the front (attempt unchanged); freed leases that it names are its own again
                      unless the task was handed out since, or is gone. Effects: BROKER_REPLY_LEASE for each
                      that it has now, then BROKER_REPLY_END */
    BROKER_CANCEL, /* parked calls end without a reply: Python's only one; of a native session the one that
                      has `token`. number of the effect: none */
    BROKER_DELIVERED, /* Python: the reply of the session's last get reached its socket; any later call says
                         so too */
    BROKER_BOUNCE,    /* the lease (id, epoch) of a delivery effect could not be handed over: front, attempt
                         unchanged */
    BROKER_DUE,       /* deadline: a node of kind BROKER_DEADLINE came due */

    /* Calls of Python sessions, each with one reply. */
    BROKER_PUT, /* both kinds of sessions. payload, options (or NULL), wait_mode, wait_ms */
    BROKER_GET, /* both. wait_mode, wait_ms; native: max, take */
    BROKER_QSIZE,
    BROKER_EMPTY,
    BROKER_FULL,
    BROKER_TASK_DONE,
    BROKER_JOIN,     /* both; native: wait_mode, wait_ms */
    BROKER_SHUTDOWN, /* immediate */

    /* Calls of native sessions, each with one reply. */
    BROKER_DONE, /* id, epoch, payload (data NULL: no value), result_to. The task is gone and its result is in
                    place */
    BROKER_FAIL, /* id, epoch, failure, result_to. Retried, or final */
    BROKER_EXTEND,  /* id, epoch, wait_ms: the lease ends so many ms from now; 0: the queue's lease_ms */
    BROKER_RELEASE, /* id, epoch: given back unrun: front, attempt unchanged */
    BROKER_WAIT,    /* id (or queue and key), wait_mode, wait_ms: the result of a task */
    BROKER_REMOVE,  /* id: ready, delayed, leased (its session is told) or a result: gone. Outcome `canceled`
                       for  whoever waits, and as its result if it has a queue of its own for that */
    BROKER_RETRY,   /* id of a dead letter: back to the queue it came from, as new */
    BROKER_PURGE, /* queue: what is ready and delayed goes, in slices; number: how many. What is leased stays
                     its session's, and comes back if that gives it back */
};

enum broker_wait_mode { BROKER_NO_WAIT, BROKER_WAIT_MS, BROKER_WAIT_FOREVER };

enum broker_close_mode {
    BROKER_CLOSE_ACK,    /* left cleanly: what it holds from ack=auto and ack=get queues is done */
    BROKER_CLOSE_RETURN, /* died: what it holds goes back to the front, attempt + 1 */
};
/* In both modes: items of ack=explicit queues go back to the front, and so does an item whose reply was
 * never reported BROKER_DELIVERED (attempt unchanged then). */

/* What a put may say of its task. Zeroed: nothing. */
struct broker_put_options {
    struct tq_span key;          /* unique in its queue; empty: none */
    struct tq_span trace;        /* W3C traceparent, not looked at */
    int32_t priority;            /* smaller first; BROKER_PRIORITY queues only */
    uint64_t delay_ms;           /* not handed out before */
    uint64_t ttl_ms;             /* 0: the queue's */
    uint8_t max_attempts;        /* 0: the queue's */
    bool has_result;             /* `result` was said */
    struct broker_queue *result; /* own reply queue; NULL with has_result: none, kept for wait */
    bool has_retention;
    uint32_t retention_ms;
};

enum broker_task_outcome {
    BROKER_OUTCOME_NONE, /* not ended yet */
    BROKER_OUTCOME_OK,
    BROKER_OUTCOME_FAILED,   /* the worker said so */
    BROKER_OUTCOME_EXPIRED,  /* its time to live ended */
    BROKER_OUTCOME_LOST,     /* max_deliveries hand-outs ended without an answer */
    BROKER_OUTCOME_CANCELED, /* removed */
    BROKER_OUTCOME_PURGED,
};

struct broker_failure {
    struct tq_span error; /* text; cut at BROKER_ERROR_MAX */
    int32_t code;         /* exit status, or minus the signal; 0 when there is none */
    bool final;           /* not to be retried */
    bool has_delay;       /* delay_ms instead of the backoff */
    uint64_t delay_ms;
};

struct broker_lease_name {
    uint64_t id;
    uint32_t epoch;
};

struct broker_event {
    enum broker_event_kind kind;
    bool more; /* another event of the same request follows at once: whoever waits is served after that */
    struct broker_session *session;
    struct broker_queue *queue;
    uint64_t token; /* the caller's name for the call, given back in its reply */
    struct broker_payload payload;
    const struct broker_put_options *options;
    enum broker_wait_mode wait_mode;
    uint64_t wait_ms;
    uint32_t max; /* native get: tasks, 1 to BROKER_GET_MAX */
    uint32_t
        max_bytes; /* native get: no further task once the bodies of the reply are so many; 0: no limit */
    bool take;     /* native get: handed out for good, no lease */
    bool immediate;
    bool free_now;
    enum broker_close_mode close_mode;
    uint64_t id;
    uint32_t epoch;
    struct tq_span key;
    struct broker_queue *result_to; /* done: where results without a queue of their own go, instead of the
                                       task queue's `result`; NULL: that */
    bool result_to_last; /* result_to is only for what neither the task nor its queue has a queue for */
    const struct broker_failure *failure;
    const struct broker_lease_name *leases;
    uint32_t lease_count;
    struct tq_deadline *deadline; /* BROKER_DUE */
};

enum broker_outcome {
    BROKER_REPLY_NONE,          /* Python's None */
    BROKER_REPLY_BOOL,          /* number 0 or 1 */
    BROKER_REPLY_INT,           /* number */
    BROKER_REPLY_ITEM,          /* Python get: one task, as BROKER_REPLY_TASK */
    BROKER_REPLY_EMPTY,         /* queue.Empty; native get and wait: time is up */
    BROKER_REPLY_FULL,          /* queue.Full */
    BROKER_REPLY_SHUTDOWN,      /* queue.ShutDown; native: also a queue that was removed */
    BROKER_REPLY_TOO_MANY_DONE, /* ValueError: task_done() called too many times */
    BROKER_REPLY_TYPE_ERROR,    /* TypeError with text (items that cannot be ordered) */
    BROKER_REPLY_NO_MEMORY,     /* the call had no effect; also: a body that does not fit the limit */
    BROKER_REPLY_TOO_MANY_HELD, /* limits.held_per_session */
    BROKER_REPLY_NO_SPACE,      /* new work is refused (broker_refuse_new_work), and the call does not wait */
    /* native */
    BROKER_REPLY_OK,    /* join, shutdown; put: id; done, extend, release, remove, retry; fail: number 1 if it
                           will be tried again, else 0; purge: number */
    BROKER_REPLY_KNOWN, /* put: a task with this key is there: id; if it has ended, `copy` is its result */
    BROKER_REPLY_TASK, /* get: one task (slot, id, epoch, attempt). More may follow; BROKER_REPLY_END ends the
                          reply */
    BROKER_REPLY_END,  /* of get and resume: number of those before */
    BROKER_REPLY_LEASE,   /* resume: id, epoch */
    BROKER_REPLY_RESULT,  /* wait: `copy` is the result */
    BROKER_REPLY_STALE,   /* the lease is not the session's (any more) */
    BROKER_REPLY_UNKNOWN, /* no such task, result or dead letter */
    BROKER_REPLY_REFUSED, /* this cannot be done with it: text says why (priority on a fifo queue, retry of
                             what is not dead...) */
    /* no reply: the session is told. token is 0 */
    BROKER_TOLD_LOST, /* its lease (id, epoch) has ended: time was up, or the task was removed */
};

/* What can be seen of a task, a result or a dead letter. Spans are borrowed: see who hands it out. */
struct broker_view {
    uint64_t id;
    uint64_t of; /* the task that this tells of: id, but for a notice that a task ended as a dead letter
                    elsewhere, which has an id of its own */
    const struct broker_queue *queue; /* where it stands, or stood when it was leased; NULL: a result that is
                                         in no queue */
    struct broker_payload payload;    /* the body, or the result's value (data NULL: none) */
    struct tq_span key, trace;
    int32_t priority;
    uint32_t epoch;
    uint32_t attempt;    /* of this hand-out or of the next: 1 for the first */
    uint64_t put_ms;     /* all times: the caller's clock */
    uint64_t due_ms;     /* delayed: until then */
    uint64_t expires_ms; /* 0: never */
    const char *state;   /* "ready", "delayed", "leased", "done", "dead" */
    /* results and dead letters: outcome is not NONE */
    enum broker_task_outcome outcome;
    const char *from;              /* the queue that the task stood in; "" when that is gone */
    uint32_t tries;                /* hand-outs that it took, up to 255; 0: it never was handed out */
    uint64_t started_ms, ended_ms; /* of the last hand-out; 0 when there was none */
    int32_t code;
    struct tq_span worker, error; /* `error`: the last one, also of a task that waits for its retry */
};

struct broker_effect {
    struct broker_session *session;
    uint64_t token;
    enum broker_outcome outcome;
    bool was_parked; /* the call had waited: the peer may be gone by now */
    uint32_t slot;   /* TASK, ITEM: for broker_view_lease */
    uint32_t epoch;
    uint32_t attempt;
    int64_t number;
    uint64_t id;
    struct broker_view *copy; /* RESULT, KNOWN: owned by the effect, in one block with all that it borrows but
                                 a large body, of which it has a reference */
    char *text;               /* TYPE_ERROR, REFUSED: owned by the effect, else NULL */
};

struct broker_effects {
    struct broker_effect *list;
    size_t count;
    size_t cap;
};

/* `a < b` as Python decides it, both of format BROKER_PYTHON. 0 and *ret_less; 1: not comparable, text says
 * so as Python would; TQ_ENOMEM. In a priority queue the smaller priority number comes first; of equal ones
 * Python's items before native ones; Python's by this function, native ones by id. */
typedef int (*broker_less_fn)(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                              char text[BROKER_TEXT_MAX]);

struct broker_limits {
    uint32_t queues; /* queues at once */
    /* Bodies of all queues, leases and kept results, 0 = no limit. For a put that does not fit, what it
     * acknowledges taken off, results give way that are kept although nobody asked for it by key, by
     * retention or by a result of its own (`result` nil), the oldest first, a bounded number in a step; if
     * that is not enough, it waits as if the queue were full, or is answered NO_MEMORY (Python: FULL). The
     * last eighth is kept for sessions that hold a lease: a result that is refused would keep its task in
     * memory for ever. Bodies of parked puts may take as much again. */
    uint64_t memory_bytes;
    uint32_t held_per_session; /* leases one session may hold (ack=explicit, native), 0 = no limit */
    uint8_t hash_key[16];      /* of the table of keys that producers chose: secret; results do not show it */
};

struct broker_stats {
    uint64_t puts;     /* accepted */
    uint64_t gets;     /* hand-outs */
    uint64_t acked;    /* leases that ended well */
    uint64_t failed;   /* leases that ended in `fail` */
    uint64_t retried;  /* of those: not final */
    uint64_t returned; /* leases that ended with their session, with its silence, or by time */
    uint64_t bounced;  /* given back unrun */
    uint64_t resumed;  /* leases that came back to their session */
    uint64_t stale;    /* refused: an old epoch or somebody else's lease */
    uint64_t expired;
    uint64_t dead;         /* dead letters made */
    uint64_t dropped;      /* by shutdown(immediate), purge, remove and broker_remove */
    uint64_t kept_dropped; /* kept results that gave way at limits.memory_bytes */
    uint64_t known;        /* puts answered with the first id of their key */
    uint64_t waiting;      /* parked calls now */
    uint64_t queues;
    uint64_t tasks; /* ready, delayed, leased, and results that are kept */
    uint64_t delayed;
    uint64_t leased;
    uint64_t kept;         /* results that are in no queue */
    uint64_t body_bytes;   /* of tasks, with BROKER_BODY_OVERHEAD_BYTES each */
    uint64_t parked_bytes; /* the same of parked puts */
    uint64_t memory_bytes; /* that tasks, ids and bodies really take */
};

struct broker_queue_stats {
    uint64_t puts, gets, done, body_bytes;
    uint64_t failed, retried, returned, expired, dead, dropped, stale;
    uint64_t ready, delayed, leased, unfinished, waiting_gets, waiting_puts;
    uint64_t oldest_ms; /* when the task that has stood ready longest at the front was put; 0 when empty */
    bool paused, shut_down;
};

struct broker; /* opaque */

#define BROKER_DEADLINE 1u /* tq_deadline.kind of the broker's own nodes */

/* Deadlines are set in `dl`, which outlives the broker; whoever pops a node of kind BROKER_DEADLINE sends
 * it in at once as BROKER_DUE. `less` may be NULL when there are no priority queues. NULL when out of
 * memory. */
struct broker *broker_new(struct tq_deadlines *dl, const struct broker_limits *limits, broker_less_fn less);
/* Sessions that are still open (and still in place) are closed without effects; bodies are released. */
void broker_free(struct broker *b);

/* conf is copied, strings too. `result` and `dead` may name queues that are not there (yet): while they are
 * not, results are kept for wait and failures are results. TQ_EINVAL bad name ([A-Za-z0-9._-]{1,200}) or
 * conf (also: `dead` is the queue itself, where a dead letter could not be told from a task), TQ_EEXISTS,
 * TQ_ELIMIT, TQ_ENOMEM. */
int broker_declare(struct broker *b, const char *name, const struct broker_queue_conf *conf,
                   struct broker_queue **ret_queue);
/* Other policies for a queue; kind, ack and factory_made stay. Whoever may go on by that is served. TQ_EINVAL
 * (kind or ack differ, bad conf), TQ_ENOMEM. */
int broker_reconfigure(struct broker *b, uint64_t now_ms, struct broker_queue *q,
                       const struct broker_queue_conf *conf, struct broker_effects *out);
struct broker_queue *broker_find(struct broker *b, struct tq_span name); /* NULL when there is none */
const char *broker_queue_name(const struct broker_queue *q);
const struct broker_queue_conf *broker_queue_conf(const struct broker_queue *q);
uint64_t broker_queue_size(const struct broker_queue *q);
/* The log has no room for new work (yes), or has again: puts of sessions that hold nothing wait as if the
 * queue were full, or are answered NO_SPACE (Python: FULL); completions go on. Whoever waits is served in the
 * next step or by `out`. */
void broker_refuse_new_work(struct broker *b, uint64_t now_ms, bool refuse, struct broker_effects *out);
/* Room in the log: until the next call the bodies of new work may cost so many bytes, and completions
 * (results, dead letters, puts of whoever holds something) so many; what comes in takes from both.
 * UINT64_MAX (the default): no limit. A put that does not fit waits or is answered as above; a `done` or a
 * final `fail` is answered NO_SPACE, and its lease stays. A value of up to BROKER_SMALL_VALUE_BYTES is always
 * taken: that is what the log's reserve is for. */
#define BROKER_SMALL_VALUE_BYTES 64u
void broker_set_room(struct broker *b, uint64_t now_ms, uint64_t new_work_bytes, uint64_t completion_bytes,
                     struct broker_effects *out);
/* Since it said this last the host has not listened to its peers for `ms`; and does it listen now? Who could
 * not be heard was not silent: native leases do not end for that time (nor do native sessions). */
void broker_was_deaf(struct broker *b, uint64_t ms, bool is_deaf);
/* How much longer a deadline has to wait for that, which was set when so much was *at (a count of the
 * broker's, brought up to date by this); 0: it is over. */
uint64_t broker_deaf_ms(const struct broker *b, uint32_t *at);
bool broker_queue_shut_down(const struct broker_queue *q); /* after BROKER_SHUTDOWN */
/* All queues in the order of declaration: NULL gives the first; NULL after the last. */
struct broker_queue *broker_next_queue(struct broker *b, const struct broker_queue *q);
/* For lists in pages: the first queue whose index is >= from, or NULL; indexes are small numbers, and those
 * of queues that were removed are given again. */
struct broker_queue *broker_queue_from(struct broker *b, uint32_t from, uint32_t *ret_index);
/* A caller's pointer of its own at a queue. broker_on_queue_gone is told before a queue that expires goes;
 * its handler must not step the broker. */
void broker_queue_set_user(struct broker_queue *q, void *user);
void *broker_queue_user(const struct broker_queue *q);
void broker_on_queue_gone(struct broker *b, void (*fn)(void *ctx, struct broker_queue *q), void *ctx);
/* Removes a queue with all that stands in it. Parked calls on it get BROKER_REPLY_SHUTDOWN.
 * Leases of it stay valid until they end; none comes back. q is not to be named in events any more. */
void broker_remove(struct broker *b, struct broker_queue *q, struct broker_effects *out);
void broker_get_stats(const struct broker *b, struct broker_stats *ret_stats);
void broker_get_queue_stats(const struct broker *b, const struct broker_queue *q,
                            struct broker_queue_stats *ret_stats);

/* The task of a TASK or ITEM effect, as it is handed out; false when the lease has ended since. Borrowed
 * until the next step. */
bool broker_view_lease(const struct broker *b, const struct broker_effect *e, struct broker_view *ret_view);
/* Any task, result or dead letter by its id. Borrowed until the next step. */
bool broker_view_task(const struct broker *b, uint64_t id, struct broker_view *ret_view);
/* For lists: the first one with an id >= from; at most *budget pieces of work are done (taken down). False:
 * there is none
 * (*ret_resume 0), or the budget is used up (go on from *ret_resume). */
bool broker_view_next(const struct broker *b, uint64_t from, unsigned *budget, struct broker_view *ret_view,
                      uint64_t *ret_resume);
/* The leases of a session, oldest first: calls fn for each. */
void broker_session_leases(const struct broker *b, const struct broker_session *s,
                           void (*fn)(void *ctx, const struct broker_view *v), void *ctx);

/* Number of tasks that a Python session holds and that a close with BROKER_CLOSE_ACK would acknowledge, and
 * the queue of the oldest of them (for the question whether the close was clean). */
uint32_t broker_session_held(const struct broker_session *s, const struct broker_queue **ret_queue);
bool broker_session_parked(const struct broker_session *s);

/* One event. Appends to `out` (never clears it); the reply of the event's own call comes first. 0, or
 * TQ_ENOMEM when not even the reply could be recorded (the event had no effect then; a due node is set again
 * a little later). A step that ends other sessions' waits appends their replies too, after its own, in the
 * order in which they were served; if there is no memory for one of them, it waits until there is. `now_ms`
 * never goes back. */
int broker_step(struct broker *b, uint64_t now_ms, const struct broker_event *ev, struct broker_effects *out);

void broker_effects_deinit(struct broker_effects *fx); /* releases what the effects own, and the list */
/* Releases what the effects own and forgets them, keeping the memory. */
void broker_effects_clear(struct broker_effects *fx);

#endif
