/* Writing pickles of protocol 2, which every Python from 2.7 on loads: the frames that the master and
 * the worker compose themselves. Strings are written without memo entries. All return 0, TQ_ELIMIT or
 * TQ_ENOMEM; after the first failure the rest may be called and does nothing (check tq_emit_end). */
#ifndef TQ_PROTO_PYTHON_EMIT_H
#define TQ_PROTO_PYTHON_EMIT_H

#include "common/buf.h"

struct tq_emit {
    struct tq_buf *buf;
    size_t start; /* where the frame header stands */
    int err;
};

/* Begins a frame: 4 header bytes (filled in by tq_emit_end) and PROTO 2. */
void tq_emit_begin(struct tq_emit *e, struct tq_buf *buf);
/* STOP and the length. 0, or the first error; the buffer is cut back to where the frame began then. */
int tq_emit_end(struct tq_emit *e);

void tq_emit_none(struct tq_emit *e);
void tq_emit_bool(struct tq_emit *e, bool v);
void tq_emit_int(struct tq_emit *e, int64_t v);
void tq_emit_float(struct tq_emit *e, double v);
/* Bytes that Python could not decode go out as U+FFFD, so that whatever a peer named can be quoted. */
void tq_emit_str(struct tq_emit *e, struct tq_span utf8);
void tq_emit_cstr(struct tq_emit *e, const char *utf8);
void tq_emit_mark(struct tq_emit *e);
void tq_emit_tuple(struct tq_emit *e);               /* of all since the mark */
void tq_emit_tuple_n(struct tq_emit *e, unsigned n); /* 0 to 3, of the top n */
void tq_emit_empty_dict(struct tq_emit *e);
void tq_emit_setitems(struct tq_emit *e); /* key, value, ... since the mark, into the dict below */
/* module.name(*args): GLOBAL now; then emit an args tuple; then tq_emit_reduce. */
void tq_emit_global(struct tq_emit *e, const char *module, const char *name);
void tq_emit_reduce(struct tq_emit *e);
/* Opcodes as they are. */
void tq_emit_raw(struct tq_emit *e, struct tq_span opcodes);

#endif
