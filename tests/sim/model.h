/* The checker: what a master has to do, told from what goes in and out at its sockets, and from nothing else.
 * Written from the protocol's document. Requests change the model at once, replies have to be what it
 * expects; who waits while there is something for him, is wrong, too. */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"

enum {
    Q_TASK,
    Q_RESULT,
    Q_DEAD,
    Q_PRIO,
    Q_BOUND,
    Q_LIFO,
    Q_SCRATCH,
    Q_EXPLICIT,
    Q_ONCE,
    Q_FIFO, /* one faithful producer, one faithful worker */
    Q_REPLY0,
    Q_REPLY1,
    M_QUEUES
};

enum m_method {
    M_HELLO,
    M_PUT,
    M_GET,
    M_DONE,
    M_EXTEND,
    M_RELEASE,
    M_WAIT,
    M_JOIN,
    M_CANCEL,
    M_PING,
    M_BYE,
    M_PAUSE,
    M_RESUME,
    M_PURGE,
    M_REMOVE,
    M_RETRY,
    M_DECLARE,
    M_STATS,
    M_METHODS
};

#define M_ITEMS    6000
#define M_CALLS    256
#define M_SESSIONS 600
#define M_BATCH    24
#define M_NONE     (-1)
#define M_POLICY   (-2) /* an item's own result queue: the queue's policy */
#define M_NEVER    UINT64_MAX
#define M_AUTO     UINT32_MAX

enum m_kind { M_TASK, M_RESULT, M_DEAD };
enum m_state { M_PENDING, M_READY, M_DELAYED, M_LEASED, M_KEPT, M_GONE, M_STATES };
enum m_outcome { O_NONE, O_OK, O_FAILED, O_EXPIRED, O_LOST, O_CANCELED, O_PURGED };

/* A task, then its result or dead letter. */
struct m_item {
    uint64_t id, of; /* of: a notice; its id is not known before it is handed out */
    uint64_t told;   /* its id, if it is in: as it was told before the master was killed */
    int val, res;    /* values: of the body, of the result */
    enum m_kind kind;
    enum m_state state;
    int q, from;
    int key, key_q, own, prio;
    uint32_t max_attempts, retention;
    uint64_t delay, ttl;
    int64_t lo, hi;                   /* its place is between them; smaller is nearer to the front */
    uint64_t due_lo, due_hi, expires; /* SIM ms; expires 0: never */
    uint32_t epoch, attempts;
    int session;
    uint64_t limit, grace; /* when the lease ends */
    uint64_t held_seq;
    bool delivered;
    int freed_by; /* session, or M_NONE */
    uint32_t freed_attempts;
    enum m_outcome outcome;
    int call;    /* PENDING: its put; M_NONE: that was cut, it is in the queue or not */
    int live_at; /* place in model.live */
    unsigned accepted, ends, lives;
    bool handed_now;
    bool in_step;
};

struct m_call {
    bool used, parked, must_answer;
    int conn;
    uint32_t msgid;
    enum m_method method;
    int q;
    uint64_t id, until;
    uint32_t max;
    bool take, is_get; /* a done with get counts as get, too */
    /* put */
    int items[M_BATCH];
    bool known[M_BATCH];
    bool is_new_work;        /* of a session that held nothing */
    uint32_t count, fail_at; /* fail_at: that one is refused; count: none */
    /* done, remove, retry, ... */
    uint32_t ok;
    uint64_t refused[M_BATCH];
    uint32_t refused_count;
    /* the error it must get, or NULL */
    const char *error;
    /* hello */
    int session;
    bool resumed;
    /* wait */
    bool ended;
    enum m_outcome outcome;
    int value;
    int64_t number;
};

struct m_conn {
    bool open, expect_close;
    int session; /* M_NONE before hello */
};

struct m_session {
    bool used, has_worker, silent, python;
    char worker[16];
    bool has_token;
    uint8_t token[16];
    uint8_t token_before[16]; /* good, too, until anything came after the reply with `token` */
    bool unconfirmed;
    int conn; /* M_NONE: detached */
    uint32_t heartbeat_ms;
    uint64_t heard_ms, detached_ms;
    bool is_restored; /* which of its leases of one moment came first is not recorded */
};

struct m_queue {
    const char *name;
    int kind; /* enum broker_kind */
    int ack;
    int result, dead; /* or M_NONE */
    uint32_t maxsize, max_attempts, max_deliveries, retry_ms, retry_max_ms, lease_ms, grace_ms, retention_ms,
        concurrency, rate_per_s, rate_burst;
    uint64_t ttl_ms;
    bool paused;
    bool interval; /* durability: a power cut may take what was only written */
    uint32_t counts[M_STATES];
    uint32_t orphans; /* PENDING without a call */
    int64_t unfinished;
    uint64_t handed; /* in all; for the rate */
    uint64_t tokens; /* thousandths */
    uint64_t tokens_ms;
    uint32_t handed_now;
    uint64_t stats_gets;
};

struct m_lost {
    int conn;
    uint64_t id;
    uint32_t epoch;
};

struct sim;
struct m_snapshot;

struct model {
    struct sim *sim;
    uint64_t now;
    int64_t place;  /* grows with each step, and within */
    bool timers;    /* this step is the clock's */
    bool to_last;   /* result_to is only for what has no queue for its result otherwise */
    bool piecemeal; /* this request is several steps, after each of which somebody may be served */
    /* With a disk: since it was last asked something has changed that a kill must not undo once anybody was
     * told; hard: nor a power cut. */
    bool soft, hard;
    bool no_room; /* the disk is full: new work waits or is refused */
    struct m_item items[M_ITEMS];
    int item_count;
    int live[M_ITEMS];
    int live_count;
    int of_value[16384]; /* item whose body it is */
    struct {
        uint64_t id;
        uint32_t epoch;
        int task;
    } computed[16384]; /* results: what they were computed from */
    int by_id[16384];  /* hash of ids: item + 1 */
    struct m_call calls[M_CALLS];
    int call_count; /* high-water mark */
    struct m_conn conns[768];
    struct m_session sessions[M_SESSIONS];
    int session_count;
    struct m_queue q[M_QUEUES];
    struct m_lost lost[256];
    int lost_count;
    int handed[512];
    int handed_q[512];
    int handed_count;
    uint64_t held_seq;
    uint64_t accepted, handouts, ends, resumed, stale, removed, dead, known, retried, silences;
};

extern const char *const m_queue_names[M_QUEUES];

/* model.c: items and how they go on. */
void m_init(struct model *m, struct sim *s);
struct m_item *m_new(struct model *m, int q, int val);
struct m_item *m_by_id(struct model *m, uint64_t id);
/* The same of what a client says: it knows an id only if the task is in. */
struct m_item *m_known(struct model *m, uint64_t id);
void m_name(struct model *m, struct m_item *t, uint64_t id);
struct m_item *m_by_key(struct model *m, int q, int key);
void m_move(struct model *m, struct m_item *t, enum m_state to, int q);
void m_accept(struct model *m, struct m_item *t);
void m_to_front(struct model *m, struct m_item *t);
void m_return(struct model *m, struct m_item *t, bool as_freed);
void m_end(struct model *m, struct m_item *t, enum m_outcome outcome, int value, int result_to);
void m_end_uncounted(struct model *m, struct m_item *t, int value);
void m_acknowledge(struct model *m, struct m_item *t); /* Python's */
void m_fail(struct model *m, struct m_item *t, bool final, bool has_delay, uint64_t delay_ms, int result_to);
void m_remove(struct model *m, struct m_item *t);
bool m_retry(struct model *m, struct m_item *t, int session);
uint32_t m_purge(struct model *m, int q);
struct m_item *m_lease(struct model *m, int session, uint64_t id, uint32_t epoch);
void m_unfinish(struct model *m, int q);
/* The clock has come to m->now: whatever is due happens. */
void m_on_time(struct model *m);

/* What a hand-out says. */
struct m_handout {
    uint64_t id, of;
    uint32_t epoch, attempt;
    int value;
    const char *outcome; /* NULL: a task */
    bool take;
};
struct m_item *m_hand_out(struct model *m, int q, int session, const struct m_handout *h);

/* sessions.c */
int m_session_new(struct model *m);
int m_session_of(const struct model *m, int conn);
bool m_holds(const struct model *m, int session); /* any lease */
struct m_session *m_worker(struct model *m, struct tq_span worker);
void m_session_end(struct model *m, int session, bool released);
void m_conn_opened(struct model *m, int conn);
void m_conn_heard(struct model *m, int conn);
/* The master has seen it end; fell_silent: it has given it up. */
void m_conn_ended(struct model *m, int conn, bool fell_silent);
void m_leave(struct model *m, int conn, bool fell_silent);
void m_detach(struct model *m, int session, bool free_now);
/* named: [id, epoch] pairs. */
struct m_named {
    uint64_t id;
    uint32_t epoch;
};
void m_resume(struct model *m, int session, const struct m_named *named, uint32_t count);
void m_sessions_on_time(struct model *m);

/* tap.c: a request is about to be handled; a frame came out. */
void m_request(struct model *m, int conn, struct tq_span payload);
/* replies.c */
void m_output(struct model *m, int conn, struct tq_span payload);
struct m_call *m_call_new(struct model *m, int conn, uint32_t msgid, enum m_method method);
struct m_call *m_call_find(struct model *m, int conn, uint32_t msgid);
void m_call_drop(struct model *m, struct m_call *c);

/* rollback.c: a master that was killed comes back as it was at some earlier moment. */
void m_changed(struct model *m, int q, bool is_hard);
/* As it is now, at the record `label`. */
void m_snapshot(struct model *m, struct m_snapshot **list, uint64_t label);
/* Drops those that nobody can come back to any more: all before the last one at or below `label`. */
void m_snapshot_trim(struct m_snapshot **list, uint64_t label);
void m_snapshot_drop(struct m_snapshot **list);
/* Back to the last one at or below `label`, and on from there as a master that starts; false: there is none.
 * Later ones are dropped. */
bool m_rollback(struct model *m, struct m_snapshot **list, uint64_t label, bool was_closed);

/* after.c */
void m_step_begins(struct model *m, bool timers);
void m_step_ended(struct model *m);
void m_closed_by_master(struct model *m, int conn);
bool m_expiry_at(const struct model *m, uint64_t at);
/* Nothing is left but what the policies keep. */
bool m_is_drained(const struct model *m);
/* What is not done, and fails. */
void m_explain(struct model *m);
void m_check_end(struct model *m);

#endif
