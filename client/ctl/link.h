/* A connection to a task-master, for a program that waits for each answer: dial, handshake, hello, then one
 * request at a time. Blocking, over poll; silence is noticed. Not for several threads. */
#ifndef CLIENT_CTL_LINK_H
#define CLIENT_CTL_LINK_H

#include "proto/native/client.h"
#include "proto/session.h"

#define LINK_TEXT_MAX 900
#define LINK_CODE_MAX 32

struct link_conf {
    const char *host;
    uint16_t port;
    struct tq_span key;  /* borrowed until link_open is back */
    uint64_t timeout_ms; /* for connecting with all that belongs to it; then: of silence, see link_call */
    const char *client;  /* "task-ctl/0.1.0" */
};

struct link {
    int fd; /* -1: none */
    bool has_session;
    bool leaving; /* what fails now is nobody's business */
    struct tq_session session;
    struct tq_auth_registry registry;
    struct tq_auth_key key;
    struct tq_session_limits limits;
    struct tq_buf out;
    uint64_t timeout_ms;
    uint64_t heard_ms;
    uint32_t msgid;
    uint32_t ping_msgid; /* 0: none is on its way */
    size_t in_at, in_len;
    uint8_t in[65536];
    char name[300]; /* HOST:PORT */
    /* of the welcome */
    char server[128], key_name[128], role[32];
    uint32_t max_batch;
    uint64_t max_frame_bytes;
    /* of the last failure; text: cause and remedy, code: a word for programs (no_connection, bad_key, ...,
     * or one of the master's) */
    char code[LINK_CODE_MAX], text[LINK_TEXT_MAX];
};

/* 0; TQ_ECLOSED, TQ_ETIMEDOUT, TQ_EAUTH, TQ_EPROTO, TQ_ENOMEM, TQ_ENOTFOUND with code and text; link_close is
 * due in any case. *l may hold anything before. */
int link_open(struct link *l, const struct link_conf *conf);
/* Says bye to a master that listens. Repeatable after link_open. */
void link_close(struct link *l);

/* A request, written by the caller between the two: see tq_native_request_begin. */
void link_begin(struct link *l, struct tq_native_request *r, const char *method, uint32_t pairs);
/* Sends it and waits for its reply, as long as that takes; a master that says nothing at all for timeout_ms,
 * though it is asked, is given up (TQ_ETIMEDOUT). 0 and its body, which is valid until the next call;
 * positive 1: the master answered with an error (code, text); negative as above. */
int link_call(struct link *l, struct tq_native_request *r, struct tq_span *ret_body);

#endif
