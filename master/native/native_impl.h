/* What the dialect's files share. */
#ifndef MASTER_NATIVE_NATIVE_IMPL_H
#define MASTER_NATIVE_NATIVE_IMPL_H

#include "common/err.h"
#include "common/siphash.h"
#include "master/native/native.h"
#include "proto/native/mp.h"

#define NATIVE_WORKER_MAX  BROKER_WORKER_MAX
#define NATIVE_QUOTED_MAX  100u /* of what a peer sent, in an error's text */
#define NATIVE_PAGE        100u /* `max` of lists */
#define NATIVE_PAGE_MAX    1000u
#define NATIVE_LOOK_BUDGET 20000u     /* pieces of work in one request that looks through tasks */
#define NATIVE_SCRATCH_MAX (1u << 20) /* what buffers keep for the next request */
#define NATIVE_SPARES      8u
#define NATIVE_NO_MEMORY   "task-master is out of memory: later"

enum native_method {
    NATIVE_HELLO,
    NATIVE_PUT,
    NATIVE_GET,
    NATIVE_DONE,
    NATIVE_FAIL,
    NATIVE_EXTEND,
    NATIVE_RELEASE,
    NATIVE_WAIT,
    NATIVE_JOIN,
    NATIVE_CANCEL,
    NATIVE_PING,
    NATIVE_BYE,
    NATIVE_DECLARE,
    NATIVE_DELETE,
    NATIVE_PURGE,
    NATIVE_PAUSE,
    NATIVE_RESUME,
    NATIVE_REMOVE,
    NATIVE_RETRY,
    NATIVE_STATS,
    NATIVE_QUEUES,
    NATIVE_TASKS,
    NATIVE_WORKERS,
    NATIVE_BACKUP,
    NATIVE_METHODS,
};

/* Codes of errors, as section 5.9 names them. */
enum native_code {
    CODE_NONE,
    CODE_PROTOCOL,
    CODE_BAD_REQUEST,
    CODE_UNKNOWN_METHOD,
    CODE_HELLO_FIRST,
    CODE_VERSION,
    CODE_QUEUE_UNKNOWN,
    CODE_QUEUE_EXISTS,
    CODE_QUEUE_CLOSED,
    CODE_FULL,
    CODE_MEMORY,
    CODE_NO_SPACE,
    CODE_TOO_MANY,
    CODE_STALE,
    CODE_UNKNOWN,
    CODE_REFUSED,
    CODE_DENIED,
    CODE_CANCELED,
    CODE_WORKER_TAKEN,
    CODE_EXISTS,
    CODE_PERMISSION,
    CODE_IO,
    CODE_COUNT,
};
extern const char *const native_code_names[CODE_COUNT];

/* ---- requests on their way (calls.c) ---- */

/* What a put still has to do, and what it has done. While it does not wait, it borrows from its frame. */
struct native_put {
    struct tq_mp at;     /* the next task */
    struct tq_span opts; /* options for all, as they came; empty: none */
    struct broker_put_options common;
    uint32_t index; /* tasks that are in */
    uint32_t count;
    uint64_t until_ms; /* UINT64_MAX: for ever; 0: it does not wait */
    struct tq_buf ids; /* encoded */
    struct tq_buf known;
    uint32_t known_count;
    bool stepping; /* its replies are looked at by whoever steps */
    enum native_code refused;
    char refused_text[NATIVE_TEXT_MAX];
    uint8_t *copy; /* what `at` and `opts` borrow from, when it waits */
    size_t copy_bytes;
};

/* Of requests that name many tasks. */
struct native_tally {
    uint32_t ok;
    uint32_t refused_count;
    struct tq_buf refused; /* [id, code] each, encoded */
};

struct native_call {
    struct native_conn *conn;
    struct native_call *prev, *next; /* in conn->calls, when it waits */
    uint64_t token;
    union {
        struct broker_queue *queue; /* put, get, join: they end before it goes. Else NULL */
        char *queue_name;           /* wait: of the key's queue; NULL: by an id */
    };
    uint64_t id; /* wait; and of the event that is just stepped, for the tally */
    struct native_put *put;
    struct native_tally *tally; /* done, fail, extend, release, remove, retry */
    uint32_t msgid;
    uint8_t method; /* enum native_method */
    bool waits;     /* it is on the heap, and in conn->calls */
    bool ended;     /* its reply has been written, or never will be */
    bool checked;   /* native_rights_changed: it may go on waiting */
};

/* A frame in conn->out: begin, write with o, end. A failure closes the connection; end tells it. */
struct native_out {
    struct tq_mp_out o;
    struct native_conn *conn;
    size_t start;
};

/* A reply to a get is written while its effects come in, which nothing interrupts. */
struct native_delivery {
    uint64_t token; /* of the call; 0: none is being written */
    struct native_out out;
    size_t count_at; /* of the number of tasks */
    uint32_t count;
    bool declined;                     /* the peer is behind: all go back */
    struct broker_lease_name *bounced; /* what went over reply_bytes, or was declined */
    uint32_t bounced_count, bounced_cap;
};

struct native_slot { /* of the tables of calls and sessions */
    void *p;
    uint32_t gen;
    uint32_t next_free;
};

struct native_table {
    struct native_slot *slots;
    uint32_t count, cap, free; /* free: index + 1 */
    uint32_t used;
};

/* ---- sessions (roster.c) ---- */

/* What the journal knows of a session (journal.c). */
struct native_keep {
    uint64_t id;                                  /* its durable_id; 0: it is not recorded */
    uint64_t home;                                /* segment of the log with its last op */
    struct native_session *home_prev, *home_next; /* all that have a home, in the order of homes */
    struct native_session *news_prev, *news_next; /* in the list of those noted, or of those gone */
    uint16_t op_bytes, next_op_bytes;             /* the second: of an op that is just being written */
    bool has_home, noted;
};

struct native_session {
    struct endpoint ep; /* first */
    struct native *native;
    struct native_conn *conn; /* NULL: detached */
    struct native_session *same_bucket;
    struct native_session *prev, *next; /* detached ones, in the order in which they became so */
    struct tq_deadline deadline;        /* always set, so that moving it cannot fail */
    uint64_t since_ms, heard_ms;        /* heard_ms: while detached */
    uint32_t heartbeat_ms;              /* 0: none */
    uint32_t deaf_ms;                   /* broker_deaf_ms, when the deadline was set */
    uint32_t index;                     /* in the table of sessions */
    uint32_t key;
    uint8_t token[NATIVE_TOKEN_BYTES];
    uint8_t token_before[NATIVE_TOKEN_BYTES]; /* good, too, as long as the reply with `token` may be lost */
    bool unconfirmed;                         /* nothing came since that reply */
    uint8_t worker_len;                       /* 0: a session of its connection alone */
    uint8_t client_len;
    uint8_t key_name_len;
    struct native_keep keep;
    char *text; /* worker, client, name of the key */
};

struct native_journal {
    bool on;
    uint64_t next_id;
    uint64_t move_below; /* what is at home in segments below this one is moved, a slice in each collect */
    uint64_t live_bytes, live_count;
    struct native_session *homes;     /* the oldest home first */
    struct native_session *noted;     /* their op is to be written */
    struct native_session *gone;      /* have ended: only `keep` is left of them, until that is written */
    struct native_restored *restored; /* by durable_id, while a log is read */
};

struct native {
    struct native_host *host;
    struct native_counters counters;
    struct native_conn *dirty, *dirty_last; /* list, first come first */
    struct native_table calls;
    struct native_table sessions;
    struct native_session **buckets; /* of sessions that have a worker id */
    uint32_t bucket_count, worker_count;
    uint8_t hash_key[TQ_SIPHASH_KEY_BYTES];
    struct native_session *detached;
    struct native_journal journal;
    bool stopping;
    struct native_delivery delivery;
    struct tq_buf spares[NATIVE_SPARES]; /* empty, with memory */
    uint32_t spare_count;
    uint64_t parked_bytes;
    struct native_call *resuming; /* hello: effects of BROKER_RESUME are written into `scratch` */
    uint32_t resumed_count;
    struct tq_buf scratch;
};

static inline uint64_t native_now(const struct native *n)
{
    return n->host->now_ms(n->host->ctx);
}
static inline struct native_session *native_session_of_endpoint(struct endpoint *ep)
{
    return (struct native_session *)(void *)ep;
}

/* ---- out.c ---- */

/* A buffer that may have memory already, and back. */
void native_buf_take(struct native *n, struct tq_buf *b, size_t max);
void native_buf_give(struct native *n, struct tq_buf *b);
/* The connection has something for the host to do. */
void native_mark_dirty(struct native_conn *c);
void native_unmark_dirty(struct native_conn *c);
void native_close(struct native_conn *c, enum native_closing how, const char *why);

/* So much is unread that large replies are not composed any more. */
bool native_is_behind(const struct native_conn *c);
struct native_out native_reply_begin(struct native_conn *c, uint32_t msgid); /* the result follows */
struct native_out native_notify_begin(struct native_conn *c, const char *method);
bool native_out_end(struct native_out *out);
void native_reply_empty(struct native_conn *c, uint32_t msgid); /* an empty map */
void native_reply_error(struct native_conn *c, uint32_t msgid, enum native_code code, const char *text);
__attribute__((format(printf, 4, 5))) void native_reply_errorf(struct native_conn *c, uint32_t msgid,
                                                               enum native_code code, const char *fmt, ...);
/* [2, "error", ...], then the connection is closed. */
void native_protocol_error(struct native_conn *c, const char *why);
/* A map of at most 15 pairs, or of any number, that is counted while it is written: put the keys with
 * native_key. */
struct native_map {
    struct tq_mp_out *o;
    size_t at;
    uint32_t pairs;
    bool wide;
};
struct native_map native_map_begin(struct tq_mp_out *o, bool wide);
void native_map_end(struct native_map *m);
static inline void native_key(struct native_map *m, const char *key)
{
    m->pairs++;
    tq_mp_put_cstr(m->o, key);
}
/* An array of up to 65535, whose count is written at its end. */
size_t native_array_begin(struct tq_mp_out *o);
void native_array_end(struct tq_mp_out *o, size_t at, uint32_t count);

void native_put_payload(struct tq_mp_out *o, const struct broker_payload *p, size_t max_bytes);
void native_put_ms(struct tq_mp_out *o, const struct native *n, uint64_t broker_ms);
/* A string that may be none: of bytes that are not UTF-8, bin. */
void native_put_text(struct tq_mp_out *o, struct tq_span text);
/* Section 5.5. listed: with `state`, `q` and what tasks have. */
void native_put_record(struct tq_mp_out *o, const struct native *n, const struct broker_view *v, bool listed,
                       bool value);
/* The info of a task that is handed out. */
bool native_has_info(const struct broker_view *v);
void native_put_info(struct tq_mp_out *o, const struct native *n, const struct broker_view *v);

/* What a peer sent, for error texts and log lines; valid until the fourth call after it. */
const char *native_quote(struct tq_span bytes);
__attribute__((format(printf, 4, 5))) void native_log(const struct native *n, enum native_log_level level,
                                                      const char *id, const char *fmt, ...);

/* ---- params.c ---- */

/* Why params are refused. */
struct native_bad {
    enum native_code code;
    char text[NATIVE_TEXT_MAX];
};
__attribute__((format(printf, 3, 4))) bool native_bad(struct native_bad *bad, enum native_code code,
                                                      const char *fmt, ...); /* false */

enum native_field_type {
    FIELD_BOOL,  /* bool */
    FIELD_U32,   /* uint32_t, least to most */
    FIELD_U64,   /* uint64_t */
    FIELD_I64,   /* int64_t, least to most */
    FIELD_BYTES, /* struct tq_span, least to most bytes; str or bin */
    FIELD_RAW,   /* struct tq_span: the value, whatever it is */
    FIELD_ARRAY, /* struct tq_span: one that is an array; of params' last field also what is behind it */
    FIELD_MAP,   /* struct tq_span: one that is a map */
    FIELD_TEXT,  /* struct tq_span: str or bin of any length */
};

struct native_field {
    const char *name;
    uint8_t name_len;
    uint8_t type;  /* enum native_field_type */
    bool nil;      /* nil is taken for: not said; what was there before becomes 0 */
    bool nil_said; /* nil is a value of its own: 0, and `nils` says so */
    uint16_t offset;
    int64_t least, most;
};
#define NATIVE_FIELD(struct_, field, type_, ...)                                                             \
    {                                                                                                        \
        .name = #field, .name_len = sizeof(#field) - 1, .type = (type_), .offset = offsetof(struct_, field), \
        __VA_ARGS__                                                                                          \
    }

struct native_fields {
    const struct native_field *list;
    unsigned count;
};
#define NATIVE_FIELDS(list_) ((struct native_fields){(list_), sizeof(list_) / sizeof((list_)[0])})

/* The map at *in, into the struct `into`; where it is advanced past. *ret_said: a bit for each field that
 * was there, *ret_nils: that was nil (nil_said). May be NULL. False: bad is filled in; `what` names the map,
 * or is "". */
bool native_parse_map(struct tq_mp *in, const struct native_fields *f, void *into, uint32_t *ret_said,
                      uint32_t *ret_nils, const char *what, struct native_bad *bad);
/* Which field a name is, or -1. */
int native_field_find(const struct native_fields *f, struct tq_span name);
/* The params of a request: a map, an array of one map, or an empty array. */
bool native_params(struct tq_mp *in, const struct native_fields *f, void *into, uint32_t *ret_said,
                   struct native_bad *bad);
bool native_name_valid(struct tq_span name);
/* The queue; NULL: bad says why. */
struct broker_queue *native_find_queue(struct native *n, struct tq_span name, const char *field,
                                       struct native_bad *bad);
bool native_may(struct native_conn *c, unsigned any_of, const char *verb, const struct broker_queue *q,
                struct native_bad *bad);
/* The same for a task: on the queue that it was put to, also when it has ended. */
bool native_may_task(struct native_conn *c, unsigned any_of, const char *verb, const struct broker_view *v,
                     struct native_bad *bad);
/* The queue that it was put to, if that is still there. */
const struct broker_queue *native_task_queue(const struct native *n, const struct broker_view *v);
/* -1: for ever; else up to 2^53. */
#define NATIVE_WAIT_FIELD(struct_)                                                                           \
    NATIVE_FIELD(struct_, wait_ms, FIELD_I64, .nil = true, .least = -1, .most = (int64_t)1 << 53)
void native_wait_mode(int64_t wait_ms, enum broker_wait_mode *ret_mode, uint64_t *ret_ms);
/* One element of `leases`: [id, epoch, ...]; *in is advanced past it, *ret_rest is what follows the epoch. */
static inline bool native_parse_lease(struct tq_mp *in, struct broker_lease_name *ret, struct tq_mp *ret_rest,
                                      uint32_t *ret_rest_count)
{
    struct tq_mp at = *in;
    uint32_t count;

    if (!tq_mp_array(&at, &count) || count < 2 || !tq_mp_u64(&at, &ret->id) || !tq_mp_u32(&at, &ret->epoch))
        return false;
    *ret_rest = at;
    *ret_rest_count = count - 2;
    for (uint32_t i = 2; i < count; i++)
        (void)tq_mp_skip(&at);
    *in = at;
    return true;
}

/* ---- calls.c ---- */

int native_table_add(struct native_table *t, void *p, uint32_t *ret_index); /* TQ_ENOMEM */
void native_table_remove(struct native_table *t, uint32_t index);

/* A request that will step the broker: gets its token. TQ_ENOMEM. */
int native_call_begin(struct native_call *call, struct native_conn *c, uint32_t msgid,
                      enum native_method method);
/* After its steps: if it has not ended, it waits from now on, as a copy on the heap. Returns that, or NULL
 * when it has ended (or there was no memory: it ends with an error). *call is not to be used any more. */
struct native_call *native_call_settle(struct native_call *call);
/* Whatever it holds is released. */
void native_call_free(struct native_call *call);
/* The connection goes: its calls end without a word. The broker's side of it is the caller's. */
void native_calls_drop(struct native_conn *c);
/* Room for one more that waits? If not, bad says so. */
bool native_call_may_wait(const struct native_conn *c, struct native_bad *bad);
/* Ends a call that waits, in the broker too, with an error (put: with what is in already). */
void native_call_cancel(struct native_call *call, enum native_code code, const char *text);
/* One that waits, or that is on the stack; NULL: it has ended. */
struct native_call *native_call_by_token(const struct native *n, uint64_t token);
struct native_call *native_call_by_msgid(struct native_conn *c, uint32_t msgid);
void native_on_effect(struct endpoint *ep, struct broker_effect *fx);
enum native_code native_code_of(enum broker_outcome outcome);
const char *native_text_of(const struct broker_effect *fx);

int native_step(struct native_call *call, struct broker_event *ev);

/* ---- the requests; each replies, now or later ---- */

struct native_request {
    struct native_conn *conn;
    uint32_t msgid;
    bool notification; /* no reply */
    struct tq_mp params;
};

void native_hello(struct native_request *r);
void native_bye(struct native_request *r);
void native_request_put(struct native_request *r);
void native_request_get(struct native_request *r);
void native_request_done(struct native_request *r, enum native_method method);
void native_request_leases(struct native_request *r, enum native_method method); /* extend, release */
void native_request_wait(struct native_request *r);
void native_request_join(struct native_request *r);
void native_request_cancel(struct native_request *r);
void native_request_ping(struct native_request *r);
void native_request_declare(struct native_request *r);
void native_request_queue(struct native_request *r, enum native_method method); /* delete, purge, pause... */
void native_request_ids(struct native_request *r, enum native_method method);   /* remove, retry */
void native_request_stats(struct native_request *r);
void native_request_queues(struct native_request *r);
void native_request_tasks(struct native_request *r);
void native_request_workers(struct native_request *r);
void native_request_backup(struct native_request *r);
bool native_may_backup(struct native_conn *c, struct native_bad *bad);
const char *native_method_name(enum native_method method);
void native_bad_reply(struct native_request *r, const struct native_bad *bad);

/* Effects of calls, by their kind. */
void native_put_effect(struct native_call *call, struct broker_effect *fx);
/* Its reply: what is in, and why the rest is not. */
void native_put_cut(struct native_call *call, enum native_code code, const char *text);
/* The reply to done with get, when there are no tasks; code NONE: time is up. */
void native_get_none(struct native_call *call, enum native_code code, const char *text);
void native_get_effect(struct native_call *call, struct broker_effect *fx);
void native_tally_effect(struct native_call *call, struct broker_effect *fx);
void native_wait_effect(struct native_call *call, struct broker_effect *fx);
void native_join_effect(struct native_call *call, struct broker_effect *fx);
void native_purge_effect(struct native_call *call, struct broker_effect *fx);
/* The tally's part of a reply: "ok", and "refused" if any. */
unsigned native_tally_pairs(const struct native_tally *t);
void native_tally_put(struct tq_mp_out *o, const struct native_tally *t);
void native_tally_refuse(struct native_call *call, enum native_code code); /* call->id */
/* One of them: its reply has come when this returns. */
void native_tally_step(struct native_call *call, struct broker_event *ev);
void native_tally_reply(struct native_call *call);
void native_put_state_free(struct native *n, struct native_put *put);

/* A policy by its name, as in declare and in --queue. */
void native_put_policies(struct native_map *m, const struct broker_queue_conf *c);

/* ---- roster.c ---- */

int native_roster_init(struct native *n);
void native_roster_deinit(struct native *n);
struct native_session *native_roster_find(const struct native *n, struct tq_span worker);
struct native_session *native_roster_at(const struct native *n, uint32_t from, uint32_t *ret_index);
/* A new one on the connection, opened in the broker. Negative: bad says why. */
int native_session_begin(struct native_conn *c, struct tq_span worker, struct tq_span client,
                         uint32_t heartbeat_ms, struct native_bad *bad);
/* An earlier one goes over to this connection (from another one, if it has one). The broker is told by the
 * caller. */
int native_session_attach(struct native_session *s, struct native_conn *c, struct tq_span client,
                          uint32_t heartbeat_ms, struct native_bad *bad);
/* The connection leaves its session: it is detached (if it has a worker), or ends. */
void native_session_leave(struct native_conn *c, enum native_closed how);
/* It ends: its leases go back. */
void native_session_end(struct native_session *s);
bool native_worker_valid(struct tq_span worker);
/* One that outlived the master, with key and text: opened in the broker, silent. TQ_ENOMEM: as it was. */
int native_session_revive(struct native_session *s);
/* When it is forgotten depends on what it holds. It has no connection. */
void native_session_await(struct native_session *s);
void native_roster_add_worker(struct native *n, struct native_session *s);
void native_roster_remove_worker(struct native *n, struct native_session *s);
static inline struct tq_span native_session_worker(const struct native_session *s)
{
    return tq_span(s->text, s->worker_len);
}
static inline struct tq_span native_session_client(const struct native_session *s)
{
    return tq_span(s->text + s->worker_len, s->client_len);
}
static inline struct tq_span native_session_key_name(const struct native_session *s)
{
    return tq_span(s->text + s->worker_len + s->client_len, s->key_name_len);
}

/* ---- journal.c ---- */

void native_journal_init(struct native *n);
void native_journal_deinit(struct native *n); /* after the roster: raw sessions, and what is left of others */
/* A new session, before it is opened in the broker: gets its durable_id, if it is to outlive the master. */
void native_journal_name(struct native_session *s);
/* What is recorded of it has changed. Cannot fail. */
void native_journal_note(struct native_session *s);
/* It has ended in the broker and stands nowhere any more: this frees it, now or when that is recorded. */
void native_journal_end(struct native_session *s);

#endif
