#include "proto/auth.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

/* Keys of the table are nonces that we drew ourselves: their first bytes are as good as any hash. */
#define HASH_FUNCTION(key, key_len, hash) memcpy(&(hash), (key), sizeof(hash))
#include "common/hash.h"

#define CHALLENGE "#CHALLENGE#"
#define WELCOME   "#WELCOME#"
#define FAILURE   "#FAILURE#"

/* Digest of our own challenges. */
#define OWN_PREFIX       "{sha256}"
#define OWN_PREFIX_BYTES (sizeof(OWN_PREFIX) - 1)

/* A challenge of this size is of Python up to 3.11 and takes a raw MAC; shorter ones are refused, as
 * Python 3.12 does: they would let a peer collect MACs of chosen short messages. */
#define LEGACY_NONCE_BYTES 20

struct tq_auth_nonce {
    uint8_t bytes[TQ_AUTH_NONCE_BYTES];
    UT_hash_handle hh;
};

void tq_auth_registry_init(struct tq_auth_registry *r)
{
    r->nonces = NULL;
}

void tq_auth_registry_deinit(struct tq_auth_registry *r)
{
    TQ_ASSERT(r->nonces == NULL);
}

static int draw_nonce(struct tq_auth *a)
{
    struct tq_auth_nonce *nonce = tq_malloc(sizeof(*nonce));
    int rv;

    if (nonce == NULL)
        return TQ_ENOMEM;
    rv = tq_random_bytes(nonce->bytes, sizeof(nonce->bytes));
    if (rv != TQ_OK) {
        tq_free(nonce);
        return rv;
    }
    HASH_ADD(hh, a->registry->nonces, bytes, sizeof(nonce->bytes), nonce);
    if (nonce->hh.tbl == NULL) {
        tq_free(nonce);
        return TQ_ENOMEM;
    }
    a->nonce = nonce;
    return TQ_OK;
}

/* Looks at every place of the challenge, since a prefix of any kind may stand before our nonce. */
static bool is_reflection(const struct tq_auth *a, struct tq_span challenge)
{
    for (size_t i = 0; i + TQ_AUTH_NONCE_BYTES <= challenge.len; i++) {
        struct tq_auth_nonce *own;

        HASH_FIND(hh, a->registry->nonces, challenge.data + i, TQ_AUTH_NONCE_BYTES, own);
        if (own != NULL)
            return true;
    }
    return false;
}

static void put(struct tq_auth_out *out, struct tq_span a, struct tq_span b)
{
    uint8_t *data;

    TQ_ASSERT(out->count < sizeof(out->msg) / sizeof(out->msg[0]));
    TQ_ASSERT(a.len + b.len <= sizeof(out->msg[0].data));
    data = out->msg[out->count].data;
    memcpy(data, a.data, a.len);
    if (b.len > 0)
        memcpy(data + a.len, b.data, b.len);
    out->msg[out->count++].len = (uint8_t)(a.len + b.len);
}

static void put_str(struct tq_auth_out *out, const char *s)
{
    put(out, tq_span_str(s), tq_span(NULL, 0));
}

static void put_challenge(const struct tq_auth *a, struct tq_auth_out *out)
{
    put(out, tq_span_str(CHALLENGE OWN_PREFIX), tq_span(a->nonce->bytes, sizeof(a->nonce->bytes)));
}

/* "{name}" at the head of m, with a name we know. *ret_prefix_bytes is its length with the braces. */
static bool parse_prefix(struct tq_span m, enum tq_digest *ret_d, size_t *ret_prefix_bytes)
{
    const uint8_t *end;

    if (m.len == 0 || m.data[0] != '{')
        return false;
    end = memchr(m.data, '}', m.len);
    if (end == NULL)
        return false;
    *ret_prefix_bytes = (size_t)(end - m.data) + 1;
    return tq_digest_by_name(tq_span(m.data + 1, *ret_prefix_bytes - 2), ret_d) == TQ_OK;
}

struct answer {
    bool well_formed;
    enum tq_digest digest;
    enum tq_auth_dialect dialect;
    uint8_t mac[TQ_DIGEST_MAX_BYTES]; /* zero behind the MAC */
};

/* The length alone tells the raw forms: no tagged answer has 16 or 32 bytes, so a raw MAC that happens to
 * begin with '{' is still taken for what it is. */
static struct answer parse_answer(struct tq_span r)
{
    struct answer answer = {.digest = TQ_SHA256};
    size_t prefix_bytes = 0;

    if (r.len == tq_digest_bytes(TQ_MD5)) {
        answer.digest = TQ_MD5;
        answer.dialect = TQ_AUTH_LEGACY;
    } else if (r.len == tq_digest_bytes(TQ_SHA256)) {
        answer.dialect = TQ_AUTH_RHEL;
    } else if (parse_prefix(r, &answer.digest, &prefix_bytes) &&
               r.len - prefix_bytes == tq_digest_bytes(answer.digest)) {
        answer.dialect = TQ_AUTH_MODERN;
    } else {
        answer.digest = TQ_SHA256;
        return answer;
    }
    answer.well_formed = true;
    memcpy(answer.mac, r.data + prefix_bytes, r.len - prefix_bytes);
    return answer;
}

/* Verifies the peer's answer to our challenge against every key. A wrong answer of any form costs what a
 * wrong MAC costs: an answer without a usable form is compared as well, and then refused. Neither time
 * nor branches tell which key matched. TQ_EAUTH, TQ_ECRYPTO. */
static int verify(struct tq_auth *a, struct tq_span r)
{
    struct answer answer = parse_answer(r);
    uint8_t message[OWN_PREFIX_BYTES + TQ_AUTH_NONCE_BYTES];
    size_t matched = 0; /* index + 1 */
    bool usable = answer.well_formed && !(a->md5_refused && answer.digest == TQ_MD5);

    memcpy(message, OWN_PREFIX, OWN_PREFIX_BYTES);
    memcpy(message + OWN_PREFIX_BYTES, a->nonce->bytes, TQ_AUTH_NONCE_BYTES);
    for (size_t i = 0; i < a->key_count; i++) {
        uint8_t mac[TQ_DIGEST_MAX_BYTES] = {0};
        size_t hit;
        int rv = tq_hmac(answer.digest, a->keys[i].secret, tq_span(message, sizeof(message)), mac);

        if (rv != TQ_OK)
            return rv;
        hit = tq_equal_constant_time(mac, answer.mac, sizeof(mac));
        hit &= (size_t)(matched == 0);
        matched |= (i + 1) & (0 - hit);
    }
    if (matched == 0 || !usable)
        return TQ_EAUTH;
    a->key_index = matched - 1;
    a->dialect = answer.dialect;
    return TQ_OK;
}

/* Answers the peer's challenge. TQ_EPROTO, TQ_EREFLECT, TQ_ECRYPTO. */
static int answer_challenge(const struct tq_auth *a, struct tq_span frame, struct tq_auth_out *out)
{
    const size_t head = sizeof(CHALLENGE) - 1;
    struct tq_span challenge, prefix = {.data = (const uint8_t *)"", .len = 0};
    enum tq_digest digest;
    uint8_t mac[TQ_DIGEST_MAX_BYTES];
    bool rhel = a->server ? a->dialect == TQ_AUTH_RHEL : a->rhel;
    int rv;

    if (frame.len < head || memcmp(frame.data, CHALLENGE, head) != 0)
        return TQ_EPROTO;
    challenge = tq_span(frame.data + head, frame.len - head);
    if (is_reflection(a, challenge))
        return TQ_EREFLECT;
    if (challenge.len < LEGACY_NONCE_BYTES)
        return TQ_EPROTO;
    if (challenge.len == LEGACY_NONCE_BYTES) {
        digest = rhel ? TQ_SHA256 : TQ_MD5;
    } else if (parse_prefix(challenge, &digest, &prefix.len)) {
        prefix.data = challenge.data;
    } else {
        return TQ_EPROTO;
    }
    rv = tq_hmac(digest, a->keys[a->key_index].secret, challenge, mac);
    if (rv != TQ_OK)
        return rv;
    put(out, prefix, tq_span(mac, tq_digest_bytes(digest)));
    return TQ_OK;
}

static void init(struct tq_auth *a, bool server, struct tq_auth_registry *reg, const struct tq_auth_key *keys,
                 size_t key_count)
{
    TQ_ASSERT(key_count > 0);
    *a = (struct tq_auth){
        .server = server,
        .keys = keys,
        .key_count = key_count,
        .registry = reg,
    };
}

void tq_auth_init_server(struct tq_auth *a, struct tq_auth_registry *reg, const struct tq_auth_key *keys,
                         size_t key_count)
{
    init(a, true, reg, keys, key_count);
}

void tq_auth_init_client(struct tq_auth *a, struct tq_auth_registry *reg, const struct tq_auth_key *key)
{
    init(a, false, reg, key, 1);
}

int tq_auth_rekey(struct tq_auth *a, const struct tq_auth_key *keys, size_t key_count, const size_t *moved)
{
    bool proved =
        a->state == TQ_AUTH_WAIT_CHALLENGE || a->state == TQ_AUTH_WAIT_VERDICT || a->state == TQ_AUTH_DONE;
    size_t index = proved ? moved[a->key_index] : 0;

    TQ_ASSERT(a->server && key_count > 0);
    a->keys = keys;
    a->key_count = key_count;
    a->key_index = index != TQ_AUTH_KEY_GONE ? index : 0;
    if (index != TQ_AUTH_KEY_GONE)
        return TQ_OK;
    a->state = TQ_AUTH_FAILED;
    return TQ_EAUTH;
}

void tq_auth_deinit(struct tq_auth *a)
{
    if (a->nonce == NULL)
        return;
    HASH_DEL(a->registry->nonces, a->nonce);
    tq_free(a->nonce);
    a->nonce = NULL;
}

int tq_auth_start(struct tq_auth *a, struct tq_auth_out *out)
{
    int rv;

    TQ_ASSERT(a->state == TQ_AUTH_START);
    out->count = 0;
    rv = draw_nonce(a);
    if (rv != TQ_OK) {
        a->state = TQ_AUTH_FAILED;
        return rv;
    }
    if (a->server) {
        put_challenge(a, out);
        a->state = TQ_AUTH_WAIT_ANSWER;
    } else {
        a->state = TQ_AUTH_WAIT_CHALLENGE;
    }
    return TQ_OK;
}

static int take_answer(struct tq_auth *a, struct tq_span frame, struct tq_auth_out *out)
{
    int rv = verify(a, frame);

    if (rv == TQ_EAUTH)
        put_str(out, FAILURE);
    if (rv != TQ_OK)
        return rv;
    put_str(out, WELCOME);
    a->state = a->server ? TQ_AUTH_WAIT_CHALLENGE : TQ_AUTH_DONE;
    return TQ_OK;
}

static int take_verdict(struct tq_auth *a, struct tq_span frame, struct tq_auth_out *out)
{
    if (tq_span_is(frame, FAILURE))
        return TQ_EAUTH;
    if (!tq_span_is(frame, WELCOME))
        return TQ_EPROTO;
    if (a->server) {
        a->state = TQ_AUTH_DONE;
    } else {
        put_challenge(a, out);
        a->state = TQ_AUTH_WAIT_ANSWER;
    }
    return TQ_OK;
}

int tq_auth_feed(struct tq_auth *a, struct tq_span frame, struct tq_auth_out *out)
{
    int rv;

    out->count = 0;
    switch (a->state) {
    case TQ_AUTH_WAIT_ANSWER:
        rv = take_answer(a, frame, out);
        break;
    case TQ_AUTH_WAIT_CHALLENGE:
        rv = answer_challenge(a, frame, out);
        if (rv == TQ_OK)
            a->state = TQ_AUTH_WAIT_VERDICT;
        break;
    case TQ_AUTH_WAIT_VERDICT:
        rv = take_verdict(a, frame, out);
        break;
    case TQ_AUTH_START:
    case TQ_AUTH_DONE:
    case TQ_AUTH_FAILED:
    default:
        rv = TQ_EPROTO;
        break;
    }
    if (rv != TQ_OK)
        a->state = TQ_AUTH_FAILED;
    return rv;
}
