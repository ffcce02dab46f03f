/* The client's half of the native dialect: requests written, what a master sends read. Pure; no message is
 * kept, nothing is allocated but the output's own room. */
#ifndef TQ_PROTO_NATIVE_CLIENT_H
#define TQ_PROTO_NATIVE_CLIENT_H

#include "proto/native/mp.h"

#define TQ_NATIVE_VERSION     1
#define TQ_NATIVE_TOKEN_BYTES 16
#define TQ_NATIVE_WORKER_MAX  128
#define TQ_NATIVE_CLIENT_MAX  128
#define TQ_NATIVE_ERROR_MAX   1024 /* of a failure's text; the master cuts there */

/* A hand-out: what is said of it carries both. */
struct tq_native_lease {
    uint64_t id;
    uint64_t epoch;
};

/* ---- requests: each function appends one whole frame, 4-byte length included ----
 * 0, TQ_ENOMEM, TQ_ELIMIT (out's ceiling); out is as it was then. A span of no bytes leaves its field out,
 * unless said otherwise. */

/* Any method: params are a map of `pairs`, which the caller writes through `o` between the two. */
struct tq_native_request {
    struct tq_mp_out o;
    size_t start;
};
void tq_native_request_begin(struct tq_native_request *r, struct tq_buf *out, uint32_t msgid,
                             const char *method, uint32_t pairs);
void tq_native_notice_begin(struct tq_native_request *r, struct tq_buf *out, const char *method,
                            uint32_t pairs);
int tq_native_request_end(struct tq_native_request *r);

/* One without params: ping, bye, stats. */
int tq_native_put_plain(struct tq_buf *out, uint32_t msgid, const char *method);

struct tq_native_hello {
    struct tq_span client; /* cut at TQ_NATIVE_CLIENT_MAX */
    struct tq_span worker;
    struct tq_span token; /* of an earlier hello; only then are leases sent, also when there are none */
    const struct tq_native_lease *leases;
    uint32_t lease_count;
    uint32_t heartbeat_ms; /* 0: none */
};
int tq_native_put_hello(struct tq_buf *out, uint32_t msgid, const struct tq_native_hello *h);

struct tq_native_options {
    struct tq_span key;
    bool has_priority;
    int32_t priority;
    uint64_t delay_ms;     /* 0: none */
    uint64_t ttl_ms;       /* 0: the queue's */
    uint32_t max_attempts; /* 0: the queue's */
    struct tq_span result;
    bool no_result; /* `result` nil: kept for wait */
    bool has_retention;
    uint64_t retention_ms;
    struct tq_span trace;
};

struct tq_native_new_task {
    struct tq_span body;                     /* one msgpack value */
    const struct tq_native_options *options; /* NULL: none of its own */
};
/* opts: for all of them, or NULL. */
int tq_native_put_tasks(struct tq_buf *out, uint32_t msgid, struct tq_span q,
                        const struct tq_native_new_task *tasks, uint32_t count,
                        const struct tq_native_options *opts, int64_t wait_ms);

struct tq_native_get {
    struct tq_span q;
    uint32_t max;
    int64_t wait_ms;
    bool take;
};
int tq_native_put_get(struct tq_buf *out, uint32_t msgid, const struct tq_native_get *get);

/* What became of a hand-out. */
struct tq_native_end {
    struct tq_native_lease lease;
    bool failed;
    /* unless failed */
    struct tq_span value; /* one msgpack value; no bytes: done without a value */
    /* if failed */
    struct tq_span error; /* cut at TQ_NATIVE_ERROR_MAX, between characters */
    int32_t code;         /* 0: none */
    bool final;
    bool has_delay;
    uint64_t delay_ms;
};
/* `to`: empty, or the queue for the results; to_last: only for those that neither task nor queue has a queue
 * for. get: NULL, or the tasks to come with the reply. `done` is there even when it is empty. */
int tq_native_put_done(struct tq_buf *out, uint32_t msgid, const struct tq_native_end *ends, uint32_t count,
                       struct tq_span to, bool to_last, const struct tq_native_get *get);

/* ms 0: the queue's lease_ms */
int tq_native_put_extend(struct tq_buf *out, uint32_t msgid, const struct tq_native_lease *leases,
                         uint32_t count, uint64_t ms);
int tq_native_put_release(struct tq_buf *out, uint32_t msgid, const struct tq_native_lease *leases,
                          uint32_t count);
/* A notification: the request `call` answers for both. */
int tq_native_put_cancel(struct tq_buf *out, uint32_t call);
int tq_native_put_wait(struct tq_buf *out, uint32_t msgid, uint64_t id, int64_t wait_ms);
int tq_native_put_wait_key(struct tq_buf *out, uint32_t msgid, struct tq_span q, struct tq_span key,
                           int64_t wait_ms);
int tq_native_put_join(struct tq_buf *out, uint32_t msgid, struct tq_span q, int64_t wait_ms);

/* ---- what a master sends: spans point into the frame ---- */

enum tq_native_kind {
    TQ_NATIVE_RESULT, /* msgid, body */
    TQ_NATIVE_ERROR,  /* msgid, code, text */
    TQ_NATIVE_NOTICE, /* method, body */
};

struct tq_native_message {
    enum tq_native_kind kind;
    uint32_t msgid;
    struct tq_span method;
    struct tq_span code, text;
    struct tq_span body; /* a walked map with string keys: result, or params */
};

/* Walks the frame and takes it apart. TQ_EPROTO: it is none of the three; *ret_why in a few static words. */
int tq_native_read(struct tq_native_message *m, struct tq_span frame, const char **ret_why);

/* The fields of a body by name, in one pass: the last one of a name counts, others are ignored. value: the
 * encoded value; no bytes if there is no such field. */
struct tq_native_field {
    const char *name;
    struct tq_span value;
};
void tq_native_fields(struct tq_span body, struct tq_native_field *fields, size_t count);

/* Lists that were read once, entry by entry, before they were given out: next cannot fail. */
struct tq_native_list {
    struct tq_mp at;
    uint32_t left;
};

bool tq_native_next_lease(struct tq_native_list *list, struct tq_native_lease *ret);

struct tq_native_refusal {
    uint64_t id;
    struct tq_span code;
};
bool tq_native_next_refusal(struct tq_native_list *list, struct tq_native_refusal *ret);

struct tq_native_task {
    struct tq_native_lease lease;
    uint32_t attempt;
    struct tq_span body; /* one msgpack value */
    /* of the info, if there is one */
    struct tq_span key, trace, error;
    int32_t priority;
    uint64_t expires_ms; /* 0: does not */
};
bool tq_native_next_task(struct tq_native_list *list, struct tq_native_task *ret);

/* The readers below: TQ_EPROTO with *ret_why when a field that they name has a wrong type or is out of range,
 * or a required one is missing. */

/* The result of hello. What the master leaves out is empty, 0 or false, but the limits are at least 1. */
struct tq_native_welcome {
    uint32_t version; /* required; 1 to TQ_NATIVE_VERSION */
    struct tq_span server, key, role, worker;
    uint64_t now_ms;
    uint64_t max_frame_bytes;
    uint32_t max_calls;
    uint32_t max_batch;
    struct tq_span token; /* of TQ_NATIVE_TOKEN_BYTES, or none */
    bool resumed;
    struct tq_native_list leases;
    uint32_t heartbeat_ms;
    uint32_t silent_ms;
};
int tq_native_read_welcome(struct tq_native_welcome *w, struct tq_span body, const char **ret_why);

/* The result of get, done, fail, extend and release. */
struct tq_native_answer {
    uint64_t ok;
    struct tq_native_list refused;
    struct tq_native_list tasks;
    struct tq_span get_code, get_text; /* the ends were taken, only the get behind them was not */
};
int tq_native_read_answer(struct tq_native_answer *a, struct tq_span body, const char **ret_why);

/* The params of the notification `lost`. */
int tq_native_read_lost(struct tq_native_list *leases, struct tq_span body, const char **ret_why);

/* "error" and "bye" of the master: what it says to people; empty if it says nothing. */
void tq_native_read_words(struct tq_span body, struct tq_span *ret_code, struct tq_span *ret_text);

#endif
