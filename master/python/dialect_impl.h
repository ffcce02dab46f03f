/* What the files of the dialect share. */
#ifndef MASTER_PYTHON_DIALECT_IMPL_H
#define MASTER_PYTHON_DIALECT_IMPL_H

#include "master/python/dialect.h"
#include "proto/python/manager.h"

/* A session: the connection has said accept_connection. */
struct pypeer {
    struct endpoint endpoint; /* first */
    struct peer *peer;
    struct pyrefs_session refs;
    const struct broker_queue *call_queue; /* of the running call */
    uint8_t call_method;                   /* enum pymethod, of the same */
    bool broker_open;                      /* BROKER_SESSION_OPEN was sent */
    bool call_overflow;                    /* the running call's Empty or Full becomes OverflowError */
    bool wants_delivered;                  /* the pending write is the reply of a get */
    char name[];
};

/* False: the peer was closed. */
bool pypeer_begin_session(struct peer *p, struct tq_span name);

/* control.c: the one request of a connection that is no session (yet). */
void pycontrol_request(struct peer *p, const struct tq_py_request *r);

/* reply.c */

#define PYPEER_SHOWN_MAX 120

/* The server's scratch buffer, empty: replies are composed in it. */
struct tq_buf *pypeer_scratch(struct peer *p);
/* Sends what stands there, where `rv` is what composing it gave; otherwise as peer_send. */
bool pypeer_send(struct peer *p, int rv);
void pypeer_none(struct peer *p);
void pypeer_error(struct peer *p, enum tq_py_exception kind, const char *text);
void pypeer_traceback(struct peer *p, const char *text);
void pypeer_key_error(struct peer *p, struct tq_span name, const char *hint);
/* A name from a peer, for texts. Returns out. */
const char *pypeer_shown(char out[PYPEER_SHOWN_MAX], struct tq_span name);

#endif
