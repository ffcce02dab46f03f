/* The messages of multiprocessing.managers: requests (ident, function, args, kwds), replies (kind, value).
 * Both directions, for the master (server) and for the worker facing a Python server (client). Pure. */
#ifndef TQ_PROTO_PYTHON_MANAGER_H
#define TQ_PROTO_PYTHON_MANAGER_H

#include "proto/python/emit.h"
#include "proto/python/item.h"

/* ---- requests, read by a server ---- */

#define TQ_PY_ARGS_MAX 16

struct tq_py_kwarg {
    struct tq_span name;
    struct tq_pk_range value;
};

struct tq_py_request {
    struct tq_pickle pickle; /* borrows the frame */
    bool ident_none;
    struct tq_span ident;
    struct tq_span function;
    uint32_t arg_count;
    struct tq_pk_range args[TQ_PY_ARGS_MAX];
    uint32_t kwarg_count;
    struct tq_py_kwarg kwargs[TQ_PY_ARGS_MAX];
};

/* 0; TQ_EPROTO with *ret_why in a few static words (not such a tuple, refused opcode, more than
 * TQ_PY_ARGS_MAX arguments, "truncated"); TQ_ENOMEM. On success deinit the request. */
int tq_py_request_parse(struct tq_py_request *r, struct tq_span frame, const char **ret_why);
void tq_py_request_deinit(struct tq_py_request *r);

/* ---- replies, written by a server: whole frames appended to buf ---- */

int tq_py_reply_none(struct tq_buf *buf);
int tq_py_reply_bool(struct tq_buf *buf, bool v);
int tq_py_reply_int(struct tq_buf *buf, int64_t v);
int tq_py_reply_str(struct tq_buf *buf, struct tq_span utf8);
/* ('#RETURN', (ident, (names...))): the answer to create. */
int tq_py_reply_created(struct tq_buf *buf, struct tq_span ident, const char *const *exposed, size_t count);
int tq_py_reply_names(struct tq_buf *buf, const char *const *names, size_t count);
/* ('#ERROR', exception): */
enum tq_py_exception {
    TQ_PY_EMPTY,
    TQ_PY_FULL,
    TQ_PY_SHUTDOWN, /* queue.ShutDown where the client has it (3.13), queue.Empty where it does not */
    TQ_PY_VALUE_ERROR,
    TQ_PY_TYPE_ERROR,
    TQ_PY_OVERFLOW_ERROR,
    TQ_PY_RUNTIME_ERROR,
    TQ_PY_MEMORY_ERROR,
    TQ_PY_PERMISSION_ERROR,
};
/* text is the exception's argument; NULL for none (Empty, Full and ShutDown have none). */
int tq_py_reply_error(struct tq_buf *buf, enum tq_py_exception kind, const char *text);
/* ('#TRACEBACK', text): RemoteError at the client. */
int tq_py_reply_traceback(struct tq_buf *buf, const char *text);
/* ('#UNSERIALIZABLE', text) */
int tq_py_reply_unserializable(struct tq_buf *buf, const char *text);

/* ---- requests, written by a client ---- */

/* (None, function, (str...), {}) */
int tq_py_call_control(struct tq_buf *buf, const char *function, const struct tq_span *args, size_t count);
/* (ident, 'get', (), {'timeout': seconds}); timeout_s < 0: no timeout. */
int tq_py_call_get(struct tq_buf *buf, struct tq_span ident, double timeout_s);
/* (ident, 'put', (utf8,), {}) */
int tq_py_call_put_str(struct tq_buf *buf, struct tq_span ident, struct tq_span utf8);
/* (ident, 'put', (item,), {}): the item of a whole reply frame, as tq_convert_to_python makes one. */
int tq_py_call_put_item(struct tq_buf *buf, struct tq_span ident, const struct tq_item_frame *item);
/* (ident, method, (), {}) */
int tq_py_call_method(struct tq_buf *buf, struct tq_span ident, const char *method);

/* ---- replies, read by a client ---- */

enum tq_py_reply_kind {
    TQ_PY_REPLY_RETURN,
    TQ_PY_REPLY_ERROR,     /* exception: module and name below */
    TQ_PY_REPLY_TRACEBACK, /* text */
    TQ_PY_REPLY_OTHER,     /* #PROXY, #UNSERIALIZABLE, unknown: `kind_text` */
};

struct tq_py_reply {
    struct tq_pickle pickle; /* borrows the frame */
    enum tq_py_reply_kind kind;
    struct tq_span kind_text;
    struct tq_pk_range value;
    struct tq_span error_module; /* "_queue", "queue", "builtins", ... as the server wrote it */
    struct tq_span error_name;   /* "Empty", "Full", ... */
};

int tq_py_reply_parse(struct tq_py_reply *r, struct tq_span frame, const char **ret_why);
void tq_py_reply_deinit(struct tq_py_reply *r);
/* Is it queue.Empty (under any of its names)? */
bool tq_py_reply_is_empty_error(const struct tq_py_reply *r);

#endif
