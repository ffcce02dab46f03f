/* One authenticated connection, without its socket: framing, handshake, and the choice of dialect by the
 * first byte of the first frame. Bytes in, events out. A session that failed stays failed. Pure. */
#ifndef TQ_PROTO_SESSION_H
#define TQ_PROTO_SESSION_H

#include "proto/auth.h"
#include "proto/frame.h"

enum tq_dialect {
    TQ_DIALECT_NONE,   /* no request seen yet */
    TQ_DIALECT_PYTHON, /* first byte 0x80, or '(' of the oldest pickles */
    TQ_DIALECT_NATIVE, /* a msgpack array header: 0x90-0x9f, 0xdc, 0xdd */
};

enum tq_session_event_kind {
    TQ_SESSION_MORE,  /* all input is used up */
    TQ_SESSION_SEND,  /* write ev->send now (whole frames, header included) */
    TQ_SESSION_OPEN,  /* both sides are authenticated; frames may follow */
    TQ_SESSION_FRAME, /* ev->frame: one payload, borrowed as tq_frame_next says */
    TQ_SESSION_FAIL,  /* ev->err; write ev->send if not empty, then close */
};

struct tq_session_event {
    enum tq_session_event_kind kind;
    int err;             /* TQ_E... with TQ_SESSION_FAIL */
    struct tq_span send; /* valid until the next call for this session */
    struct tq_span frame;
};

struct tq_session_limits {
    uint32_t preauth_frame_bytes; /* <= TQ_AUTH_FRAME_MAX_BYTES */
    uint32_t preauth_frames;      /* frames before the handshake must be done */
    uint64_t frame_bytes;         /* cap afterwards */
};

struct tq_session_handshake; /* private */

/* 80 bytes and no heap while an authenticated connection idles. */
struct tq_session {
    struct tq_session_handshake *handshake; /* heap: its state and send buffer, until OPEN is told */
    struct tq_frame_reader frames;
    uint32_t key_index;   /* which key the peer proved, valid after OPEN */
    int err;              /* of the failure */
    uint8_t dialect;      /* enum tq_dialect */
    uint8_t auth_dialect; /* enum tq_auth_dialect, valid after OPEN */
    bool server;
    bool open;
    bool failed;
};

/* TQ_ENOMEM (deinit is fine then). Limits, registry and keys are borrowed; the registry and the keys
 * must live until OPEN or deinit, the limits until deinit. */
int tq_session_init_server(struct tq_session *s, const struct tq_session_limits *limits,
                           struct tq_auth_registry *reg, const struct tq_auth_key *keys, size_t key_count,
                           bool md5_refused);
int tq_session_init_client(struct tq_session *s, const struct tq_session_limits *limits,
                           struct tq_auth_registry *reg, const struct tq_auth_key *key, bool rhel);
/* A server's keys changed (see tq_auth_rekey): the handshake goes on with the new ones, key_index of an open
 * session (also one after its deinit) is the new one. TQ_EAUTH: its key is gone, and it has failed. */
int tq_session_rekey(struct tq_session *s, const struct tq_auth_key *keys, size_t key_count,
                     const size_t *moved);
void tq_session_deinit(struct tq_session *s); /* repeatable */

/* First thing to write: a server's challenge; empty for a client. Valid until the next call for this
 * session. TQ_ENOMEM, TQ_ECRYPTO: the session failed. */
int tq_session_start(struct tq_session *s, struct tq_span *ret_send);

/* The next event out of *in (advanced past what was used). Call until TQ_SESSION_MORE or
 * TQ_SESSION_FAIL. On a server the first frame after OPEN fixes the dialect; a first byte of neither
 * dialect, or an empty frame, is TQ_SESSION_FAIL with TQ_EPROTO. Before OPEN no request is looked at. A
 * pre-auth failure of length or of frame count sends nothing. A failed session tells TQ_SESSION_FAIL with
 * the same error again, and nothing more to send. */
void tq_session_next(struct tq_session *s, struct tq_span *in, struct tq_session_event *ev);

#endif
