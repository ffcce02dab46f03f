#include "proto/session.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

/* The longest message of a handshake is a challenge or an answer; one step sends one of them. */
#define OUT_BYTES (TQ_FRAME_HEADER_BYTES + TQ_AUTH_CHALLENGE_MAX_BYTES)

/* States, by what is set:
 *
 *   handshake          start ... the last message of the handshake is taken
 *   handshake, done    the last message is still to be written (SEND told), then OPEN
 *   open               frames
 *   failed             for good
 */
struct tq_session_handshake {
    const struct tq_session_limits *limits; /* borrowed */
    struct tq_auth auth;
    uint32_t seen; /* frames so far */
    bool done;
    size_t out_len;
    uint8_t out[OUT_BYTES];
};

static int init(struct tq_session *s, const struct tq_session_limits *limits, bool server)
{
    TQ_ASSERT(limits->preauth_frame_bytes <= TQ_AUTH_FRAME_MAX_BYTES);
    *s = (struct tq_session){.server = server};
    tq_frame_reader_init(&s->frames, limits->preauth_frame_bytes);
    s->handshake = tq_calloc(1, sizeof(*s->handshake));
    if (s->handshake == NULL) {
        s->failed = true;
        s->err = TQ_ENOMEM;
        return TQ_ENOMEM;
    }
    s->handshake->limits = limits;
    return TQ_OK;
}

int tq_session_init_server(struct tq_session *s, const struct tq_session_limits *limits,
                           struct tq_auth_registry *reg, const struct tq_auth_key *keys, size_t key_count,
                           bool md5_refused)
{
    int rv = init(s, limits, true);

    if (rv != TQ_OK)
        return rv;
    tq_auth_init_server(&s->handshake->auth, reg, keys, key_count);
    s->handshake->auth.md5_refused = md5_refused;
    return TQ_OK;
}

int tq_session_init_client(struct tq_session *s, const struct tq_session_limits *limits,
                           struct tq_auth_registry *reg, const struct tq_auth_key *key, bool rhel)
{
    int rv = init(s, limits, false);

    if (rv != TQ_OK)
        return rv;
    tq_auth_init_client(&s->handshake->auth, reg, key);
    s->handshake->auth.rhel = rhel;
    return TQ_OK;
}

static void free_handshake(struct tq_session *s)
{
    if (s->handshake == NULL)
        return;
    tq_auth_deinit(&s->handshake->auth);
    tq_free(s->handshake);
    s->handshake = NULL;
}

void tq_session_deinit(struct tq_session *s)
{
    free_handshake(s);
    tq_frame_reader_deinit(&s->frames);
}

/* The handshake's send buffer stays for ev->send; its challenge is no longer outstanding. */
static void fail(struct tq_session *s, int err)
{
    s->failed = true;
    s->err = err;
    if (s->handshake != NULL)
        tq_auth_deinit(&s->handshake->auth);
    tq_frame_reader_deinit(&s->frames);
}

int tq_session_rekey(struct tq_session *s, const struct tq_auth_key *keys, size_t key_count,
                     const size_t *moved)
{
    int rv = TQ_OK;

    if (s->handshake != NULL) {
        rv = tq_auth_rekey(&s->handshake->auth, keys, key_count, moved);
    } else if (s->open) {
        size_t index = moved[s->key_index];

        s->key_index = index != TQ_AUTH_KEY_GONE ? (uint32_t)index : 0;
        rv = index != TQ_AUTH_KEY_GONE ? TQ_OK : TQ_EAUTH;
    }
    if (rv != TQ_OK)
        fail(s, rv);
    return rv;
}

static struct tq_span frames_of(struct tq_session_handshake *h, const struct tq_auth_out *out)
{
    h->out_len = 0;
    for (unsigned i = 0; i < out->count; i++) {
        uint8_t header[12];
        size_t n = tq_frame_header(header, out->msg[i].len);

        TQ_ASSERT(n + out->msg[i].len <= sizeof(h->out) - h->out_len);
        memcpy(h->out + h->out_len, header, n);
        memcpy(h->out + h->out_len + n, out->msg[i].data, out->msg[i].len);
        h->out_len += n + out->msg[i].len;
    }
    return tq_span(h->out, h->out_len);
}

int tq_session_start(struct tq_session *s, struct tq_span *ret_send)
{
    struct tq_auth_out out;
    int rv;

    TQ_ASSERT(s->handshake != NULL);
    rv = tq_auth_start(&s->handshake->auth, &out);
    if (rv != TQ_OK) {
        fail(s, rv);
        return rv;
    }
    *ret_send = frames_of(s->handshake, &out);
    return TQ_OK;
}

static void tell_failure(struct tq_session *s, int err, struct tq_span send, struct tq_session_event *ev)
{
    fail(s, err);
    ev->kind = TQ_SESSION_FAIL;
    ev->err = err;
    ev->send = send;
}

static void tell_open(struct tq_session *s, struct tq_session_event *ev)
{
    uint64_t frame_bytes = s->handshake->limits->frame_bytes;

    s->key_index = (uint32_t)s->handshake->auth.key_index;
    s->auth_dialect = (uint8_t)s->handshake->auth.dialect;
    s->open = true;
    free_handshake(s);
    tq_frame_reader_set_max(&s->frames, frame_bytes > SIZE_MAX ? SIZE_MAX : (size_t)frame_bytes);
    ev->kind = TQ_SESSION_OPEN;
}

/* One frame of the handshake. False when it calls for no event and the next frame is to be read. */
static bool take_handshake(struct tq_session *s, struct tq_span frame, struct tq_session_event *ev)
{
    struct tq_session_handshake *h = s->handshake;
    const struct tq_span nothing = {0};
    struct tq_auth_out out;
    struct tq_span send;
    int rv;

    if (++h->seen > h->limits->preauth_frames) {
        tell_failure(s, TQ_ELIMIT, nothing, ev);
        return true;
    }
    rv = tq_auth_feed(&h->auth, frame, &out);
    send = frames_of(h, &out);
    if (rv != TQ_OK) {
        tell_failure(s, rv, send, ev);
        return true;
    }
    h->done = h->auth.state == TQ_AUTH_DONE;
    if (send.len > 0) {
        ev->kind = TQ_SESSION_SEND;
        ev->send = send;
        return true;
    }
    if (h->done) {
        tell_open(s, ev);
        return true;
    }
    return false;
}

static uint8_t dialect_of(struct tq_span frame)
{
    uint8_t first;

    if (frame.len == 0)
        return TQ_DIALECT_NONE;
    first = frame.data[0];
    if (first == 0x80 || first == '(')
        return TQ_DIALECT_PYTHON;
    if ((first & 0xf0) == 0x90 || first == 0xdc || first == 0xdd)
        return TQ_DIALECT_NATIVE;
    return TQ_DIALECT_NONE;
}

static void take_frame(struct tq_session *s, struct tq_span frame, struct tq_session_event *ev)
{
    const struct tq_span nothing = {0};

    if (s->server && s->dialect == TQ_DIALECT_NONE) {
        s->dialect = dialect_of(frame);
        if (s->dialect == TQ_DIALECT_NONE) {
            tell_failure(s, TQ_EPROTO, nothing, ev);
            return;
        }
    }
    ev->kind = TQ_SESSION_FRAME;
    ev->frame = frame;
}

void tq_session_next(struct tq_session *s, struct tq_span *in, struct tq_session_event *ev)
{
    const struct tq_span nothing = {0};
    struct tq_span frame;
    int rv;

    *ev = (struct tq_session_event){.kind = TQ_SESSION_MORE};
    if (s->failed) {
        free_handshake(s);
        ev->kind = TQ_SESSION_FAIL;
        ev->err = s->err;
        return;
    }
    if (!s->open && s->handshake->done) {
        tell_open(s, ev);
        return;
    }
    do {
        rv = tq_frame_next(&s->frames, in, &frame);
        if (rv == TQ_FRAME_MORE)
            return;
        if (rv != TQ_FRAME_OK) {
            tell_failure(s, rv, nothing, ev);
            return;
        }
        if (s->open) {
            take_frame(s, frame, ev);
            return;
        }
    } while (!take_handshake(s, frame, ev));
}
