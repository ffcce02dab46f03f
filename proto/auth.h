/* The mutual HMAC handshake of Python's multiprocessing.connection, both sides, all ages. Pure: frames
 * in, frames out, no socket and no clock.
 *
 *   server -> #CHALLENGE#{sha256}<40 random>        client answers: 16 raw bytes (MD5, Python <= 3.11),
 *                                                   "{name}"+MAC (>= 3.12), 32 raw bytes (RHEL builds)
 *   server -> #WELCOME# or #FAILURE# (and closes)
 *   client -> #CHALLENGE#<...>                      server answers in the dialect that the client showed
 *   client -> #WELCOME#
 *
 * The MAC covers everything behind #CHALLENGE#. Comparisons take constant time. A challenge that equals
 * one of this process's own outstanding ones is refused (TQ_EREFLECT): the registry below is shared by
 * all handshakes of the process, both roles. */
#ifndef TQ_PROTO_AUTH_H
#define TQ_PROTO_AUTH_H

#include "common/bytes.h"
#include "common/digest.h"

#define TQ_AUTH_FRAME_MAX_BYTES 256
#define TQ_AUTH_NONCE_BYTES     40
#define TQ_AUTH_KEY_GONE        SIZE_MAX
/* "#CHALLENGE#{sha256}" + nonce */
#define TQ_AUTH_CHALLENGE_MAX_BYTES 64

enum tq_auth_dialect {
    TQ_AUTH_UNKNOWN,
    TQ_AUTH_LEGACY, /* raw HMAC-MD5: Python up to 3.11 */
    TQ_AUTH_RHEL,   /* raw HMAC-SHA-256: Red Hat's builds of 3.6 to 3.11 */
    TQ_AUTH_MODERN, /* "{name}" tagged: Python 3.12 and later */
};

/* One key that may be used. Several may be valid at once; the peer's answer tells which it has.
 * Borrowed: keys outlive the handshakes that use them. */
struct tq_auth_key {
    struct tq_span secret;
    const char *name; /* for logs and rights; never the secret */
};

/* Own challenges that are outstanding, process-wide. */
struct tq_auth_registry {
    struct tq_auth_nonce *nonces; /* hash by nonce */
};

struct tq_auth_nonce; /* private */

void tq_auth_registry_init(struct tq_auth_registry *r);
void tq_auth_registry_deinit(struct tq_auth_registry *r); /* after every handshake's deinit */

enum tq_auth_state {
    TQ_AUTH_START,
    TQ_AUTH_WAIT_ANSWER,    /* our challenge is out */
    TQ_AUTH_WAIT_VERDICT,   /* our answer is out, #WELCOME# or #FAILURE# must come */
    TQ_AUTH_WAIT_CHALLENGE, /* the peer's challenge must come */
    TQ_AUTH_DONE,
    TQ_AUTH_FAILED,
};

struct tq_auth {
    bool server;
    bool md5_refused; /* server: refuse MD5 answers */
    bool rhel;        /* client: answer 20-byte challenges with raw SHA-256 */
    enum tq_auth_state state;
    enum tq_auth_dialect dialect;
    const struct tq_auth_key *keys;
    size_t key_count;
    size_t key_index; /* server: which key the peer proved; client: 0 */
    struct tq_auth_registry *registry;
    struct tq_auth_nonce *nonce; /* own challenge while outstanding; from start to deinit */
};

/* What one step wants sent: up to two payloads (without frame headers), in order. */
struct tq_auth_out {
    unsigned count;
    struct {
        uint8_t len;
        uint8_t data[TQ_AUTH_FRAME_MAX_BYTES - 1];
    } msg[2];
};

void tq_auth_init_server(struct tq_auth *a, struct tq_auth_registry *reg, const struct tq_auth_key *keys,
                         size_t key_count);
void tq_auth_init_client(struct tq_auth *a, struct tq_auth_registry *reg, const struct tq_auth_key *key);
/* Server: from now on these keys. moved[i]: where the old i-th key is among them, or TQ_AUTH_KEY_GONE.
 * TQ_EAUTH: the peer has proved a key that is gone, and the handshake has failed. */
int tq_auth_rekey(struct tq_auth *a, const struct tq_auth_key *keys, size_t key_count, const size_t *moved);
void tq_auth_deinit(struct tq_auth *a); /* takes its challenge out of the registry; repeatable */

/* Begins. Server: out holds the challenge. Client: out is empty. TQ_ENOMEM, TQ_ECRYPTO. */
int tq_auth_start(struct tq_auth *a, struct tq_auth_out *out);

/* One whole frame from the peer. 0: send `out`; see a->state for TQ_AUTH_DONE. Negative: the handshake
 * failed and stays failed; `out` is still to be sent (a server's #FAILURE#, or nothing) before the close.
 *   TQ_EAUTH     wrong answer, or the peer said #FAILURE#
 *   TQ_EREFLECT  the peer's challenge is one of ours
 *   TQ_EPROTO    anything else that is not the next message; any frame before start or after the end
 *   TQ_ECRYPTO   the library failed
 * A server sends #FAILURE# for any wrong answer, whatever its length or form, after the same work: one
 * HMAC for each key. */
int tq_auth_feed(struct tq_auth *a, struct tq_span frame, struct tq_auth_out *out);

#endif
