#include "master/peer.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/native_peer.h"
#include "master/peer_impl.h"
#include "master/durable.h"
#include "master/python/dialect.h"

#define PEER_TAG 0x70656572u

static struct peer *peer_of(void *data)
{
    struct peer *p = data;

    TQ_ASSERT(p != NULL && p->tag == PEER_TAG);
    return p;
}

/* ---- state ---- */

static const uint8_t allowed_moves[] = {
    [PEER_HANDSHAKE] = 1 << PEER_REFUSED | 1 << PEER_FIRST | 1 << PEER_CLOSING,
    [PEER_REFUSED] = 1 << PEER_CLOSING,
    [PEER_FIRST] = 1 << PEER_SESSION | 1 << PEER_CLOSING,
    [PEER_SESSION] = 1 << PEER_LIMBO | 1 << PEER_CLOSING,
    [PEER_LIMBO] = 1 << PEER_CLOSING,
    [PEER_CLOSING] = 0,
};

void peer_set_state(struct peer *p, enum peer_state state)
{
    TQ_ASSERT((allowed_moves[p->state] & 1 << state) != 0);
    p->state = (uint8_t)state;
}

const char *peer_text(const struct peer *p)
{
    static char text[192];
    const char *said;
    char host[64];
    char name[64];
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (memcmp(p->addr.bytes, mapped, 12) == 0)
        snprintf(host, sizeof(host), "%u.%u.%u.%u", p->addr.bytes[12], p->addr.bytes[13], p->addr.bytes[14],
                 p->addr.bytes[15]);
    else if (uv_inet_ntop(AF_INET6, p->addr.bytes, host, sizeof(host)) != 0)
        host[0] = '\0';
    said = pydialect_name(p);
    if (said == NULL)
        snprintf(text, sizeof(text), "%s:%u", host, p->port);
    else
        snprintf(text, sizeof(text), "%s:%u name=\"%s\"", host, p->port,
                 tq_log_quote(name, sizeof(name), said, strlen(said)));
    return text;
}

void peer_set_deadline(struct peer *p, uint64_t in_ms)
{
    if (tq_deadline_set(&p->server->deadlines, &p->deadline, server_now_ms(p->server) + in_ms) != TQ_OK)
        peer_close(p, "out of memory");
}

static void quickack(const struct peer *p)
{
    /* Stock clients write twice in a row (the verdict, then the request; the header, then a large body):
     * with a delayed acknowledgement and their Nagle that costs 40 ms. The setting does not last. */
    int on = 1;

    (void)setsockopt(p->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

void peer_keepalive(struct peer *p)
{
    unsigned user_timeout_ms = 120000;
    int on = 1, idle_s = 60;

    (void)setsockopt(p->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(p->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(p->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

/* ---- closing ---- */

static void stop_resuming(struct peer *p)
{
    struct server *s = p->server;
    struct peer **at = &s->resuming;
    struct peer *before = NULL;

    if (!p->resuming)
        return;
    p->resuming = false;
    while (*at != p) { /* it is short: those of one turn of the loop */
        before = *at;
        at = &before->resume_next;
    }
    *at = p->resume_next;
    if (s->resuming_last == p)
        s->resuming_last = before;
}

static void resume_soon(struct peer *p)
{
    struct server *s = p->server;

    if (p->resuming)
        return;
    p->resuming = true;
    p->resume_next = NULL;
    *(s->resuming != NULL ? &s->resuming_last->resume_next : &s->resuming) = p;
    s->resuming_last = p;
}

static size_t stash_len(const struct peer *p)
{
    return p->stash != NULL ? p->stash->len : 0;
}

static void free_stash(struct peer *p)
{
    if (p->stash == NULL)
        return;
    tq_buf_deinit(p->stash);
    tq_free(p->stash);
    p->stash = NULL;
}

static void free_peer(struct peer *p)
{
    struct server *s = p->server;

    TQ_ASSERT(p->write == NULL);
    DL_DELETE(s->peers, p);
    s->peer_count--;
    s->counters.closed++;
    tq_deadline_clear(&s->deadlines, &p->deadline);
    pydialect_free(p);
    native_peer_free(p);
    p->tag = 0;
    tq_free(p);
    server_peer_gone(s);
}

static void on_closed(uv_handle_t *handle)
{
    struct peer *p = peer_of(handle->data);

    p->handle_closed = true;
    if (p->state == PEER_CLOSING)
        free_peer(p);
}

/* From here on the union has what the dialects keep. */
static void begin_authenticated(struct peer *p)
{
    p->access = (struct access_cache){0};
    p->python = NULL;
}

void peer_close(struct peer *p, const char *why)
{
    if (p->state >= PEER_LIMBO)
        return;
    if (tq_log_enabled(TQ_LOG_DEBUG))
        tq_log(TQ_LOG_DEBUG, "PEER-CLOSE", "peer=%s why=\"%s\"", peer_text(p), why);
    tq_deadline_clear(&p->server->deadlines, &p->deadline);
    stop_resuming(p);
    if (peer_is_half_open(p)) {
        halfopen_remove(&p->server->halfopen, &p->halfopen, false);
        begin_authenticated(p);
    }
    native_peer_closed(p);
    peer_set_state(p, pydialect_closed(p) ? PEER_LIMBO : PEER_CLOSING);
    tq_session_deinit(&p->session);
    free_stash(p);
    peer_free_write(p);
    uv_close((uv_handle_t *)&p->poll, on_closed);
    (void)close(p->fd);
    p->fd = -1;
}

void peer_kill(struct peer *p, const char *why)
{
    peer_close(p, why);
    if (p->state == PEER_LIMBO)
        pydialect_limbo_over(p, BROKER_CLOSE_RETURN);
}

void peer_limbo_done(struct peer *p)
{
    tq_deadline_clear(&p->server->deadlines, &p->deadline);
    peer_set_state(p, PEER_CLOSING);
    if (p->handle_closed)
        free_peer(p);
}

void peer_rights_changed(struct peer *p)
{
    if (p->state != PEER_SESSION)
        return;
    if (peer_is_native(p))
        native_peer_rights_changed(p);
    else
        pydialect_rights_changed(p);
}

/* The connection broke: has the other side closed it, or is nothing heard of it? */
void peer_close_broken(struct peer *p, int err)
{
    if (err == UV_ETIMEDOUT || err == UV_EHOSTUNREACH || err == UV_ENETUNREACH || err == UV_ENETDOWN)
        p->gone_by = NATIVE_FELL_SILENT;
    peer_close(p, err == UV_EOF ? "end of file" : uv_strerror(err));
}

static void on_ready(uv_poll_t *poll, int status, int events);

/* The loop looks for input while the peer is read from, and for room while something waits to be written. A
 * session that is neither (a call waits, and too much input behind it) must not outlive its client; but what
 * is held back for the log, or is about to go on with its input, is looked at soon in any case. */
void peer_watch(struct peer *p)
{
    bool writing = p->write != NULL && !peer_is_held(p);
    int events = (p->reading ? UV_READABLE : 0) | (writing ? UV_WRITABLE : 0);

    if (events == 0 && p->state == PEER_SESSION && p->write == NULL && !p->resuming)
        events = UV_DISCONNECT;
    if (events == p->watched)
        return;
    p->watched = (uint8_t)events;
    if (events == 0)
        (void)uv_poll_stop(&p->poll);
    else
        (void)uv_poll_start(&p->poll, events, on_ready); /* cannot fail: uv_poll_init has tried it */
}

bool peer_still_waits(const struct peer *p)
{
    bool may_pipeline = p->server->config->wait_pipelined;
    char byte;
    ssize_t n;

    if (!may_pipeline && tq_frame_partial(&p->session.frames))
        return false;
    n = recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        return may_pipeline;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

/* ---- reading ---- */

static void on_open(struct peer *p)
{
    struct server *s = p->server;

    s->counters.authenticated++;
    halfopen_remove(&s->halfopen, &p->halfopen, true);
    begin_authenticated(p);
    peer_set_state(p, PEER_FIRST);
    peer_set_deadline(p, s->config->limits.first_request_timeout_ms);
    if (tq_log_enabled(TQ_LOG_DEBUG))
        tq_log(TQ_LOG_DEBUG, "PEER-OPEN", "peer=%s key=%s", peer_text(p),
               s->keys.list[p->session.key_index].name);
}

/* A wrong answer is refused only after a while: guessing is slow, and all refusals look alike. */
static void refuse(struct peer *p)
{
    peer_set_state(p, PEER_REFUSED);
    p->reading = false;
    peer_watch(p);
    peer_set_deadline(p, p->server->config->limits.auth_failure_delay_ms);
}

static void on_fail(struct peer *p, const struct tq_session_event *ev)
{
    struct server *s = p->server;

    if (p->state == PEER_HANDSHAKE && ev->err == TQ_EAUTH) {
        s->counters.auth_failed++;
        tq_log(TQ_LOG_WARN, "AUTH-FAILED", "peer=%s remedy=\"give that program the authkey of this master\"",
               peer_text(p));
        refuse(p);
        return;
    }
    if (ev->err == TQ_EREFLECT) {
        s->counters.reflected++;
        tq_log(TQ_LOG_WARN, "AUTH-REFLECTED", "peer=%s: it sent one of our own challenges back",
               peer_text(p));
    } else if (p->state == PEER_HANDSHAKE) {
        s->counters.preauth_protocol++;
        tq_log(TQ_LOG_WARN, "PREAUTH-PROTOCOL", "peer=%s err=\"%s\": not a Python manager's client?",
               peer_text(p), tq_strerror(ev->err));
    } else {
        s->counters.protocol_errors++;
        tq_log(TQ_LOG_WARN, "PEER-PROTOCOL", "peer=%s err=\"%s\"%s", peer_text(p), tq_strerror(ev->err),
               ev->err == TQ_ELIMIT ? " remedy=\"raise --max-frame-bytes, or send less at once\"" : "");
    }
    if (ev->send.len > 0 && !peer_send(p, ev->send, NULL))
        return;
    peer_close(p, tq_strerror(ev->err));
}

static bool may_process(const struct peer *p)
{
    if (p->state >= PEER_LIMBO || p->state == PEER_REFUSED || p->close_after_write)
        return false;
    if (peer_is_native(p))
        return native_peer_wants_input(p);
    return p->write == NULL && !(p->server->config->wait_pipelined && pydialect_waits(p));
}

static bool stash_is_long(const struct peer *p)
{
    return stash_len(p) >= p->server->config->limits.input_bytes / 2;
}

/* Does its input go on arriving? Python's is kept while a reply is on its way; a native peer is not read from
 * while something of it is still to be looked at. */
static bool may_read(const struct peer *p)
{
    if (peer_is_native(p))
        return stash_len(p) == 0 && may_process(p);
    return p->write == NULL && !stash_is_long(p);
}

static void on_frame(struct peer *p, struct tq_span frame)
{
    if (p->server->durable != NULL)
        durable_took(p->server, frame.len);
    if (p->session.dialect == TQ_DIALECT_NATIVE)
        native_peer_frame(p, frame);
    else
        pydialect_frame(p, frame);
}

static void process(struct peer *p, struct tq_span *in)
{
    struct tq_session_event ev;

    while (may_process(p)) {
        tq_session_next(&p->session, in, &ev);
        switch (ev.kind) {
        case TQ_SESSION_MORE:
            return;
        case TQ_SESSION_SEND:
            (void)peer_send(p, ev.send, NULL);
            break;
        case TQ_SESSION_OPEN:
            on_open(p);
            break;
        case TQ_SESSION_FRAME:
            on_frame(p, ev.frame);
            break;
        case TQ_SESSION_FAIL:
            on_fail(p, &ev);
            return;
        }
    }
}

/* 0, TQ_ELIMIT, TQ_ENOMEM. */
static int add_to_stash(struct peer *p, struct tq_span in)
{
    if (p->stash == NULL) {
        p->stash = tq_malloc(sizeof(*p->stash));
        if (p->stash == NULL)
            return TQ_ENOMEM;
        tq_buf_init(p->stash, p->server->config->limits.input_bytes);
    }
    return tq_buf_append(p->stash, in.data, in.len);
}

static void keep_rest(struct peer *p, struct tq_span in)
{
    if (in.len == 0 || p->state >= PEER_LIMBO || p->state == PEER_REFUSED || p->close_after_write)
        return;
    if (add_to_stash(p, in) != TQ_OK) {
        p->server->counters.protocol_errors++;
        peer_close(p, "it sends without reading its replies");
    }
}

static void process_stash(struct peer *p)
{
    struct tq_buf *taken = p->stash;
    struct tq_span in;

    if (taken == NULL)
        return;
    p->stash = NULL;
    in = tq_buf_span(taken);
    process(p, &in);
    keep_rest(p, in);
    tq_buf_deinit(taken);
    tq_free(taken);
}

/* What waits for the log would have gone out by now without it. */
static bool lingers(const struct peer *p)
{
    if (p->state >= PEER_LIMBO || p->revoked)
        return false;
    return peer_is_native(p) ? native_peer_lingers(p) : peer_is_held(p);
}

static void read_ended(struct peer *p, int err)
{
    if (err == UV_EOF) { /* it may still read what it asked for */
        native_peer_flush(p);
        if (lingers(p)) {
            p->reading = false; /* the end is met again when that has gone out */
            return;
        }
    }
    peer_close_broken(p, err);
}

static void take_input(struct peer *p, struct tq_span in)
{
    if (stash_len(p) > 0) {
        keep_rest(p, in);
        if (p->state < PEER_LIMBO && may_process(p))
            process_stash(p);
    } else {
        process(p, &in);
        keep_rest(p, in);
    }
}

static bool must_pause(const struct peer *p)
{
    return peer_is_native(p) ? !may_read(p) : stash_is_long(p);
}

/* Once a turn of the loop: whoever sends much does not keep others waiting. */
static void read_some(struct peer *p)
{
    struct server *s = p->server;
    ssize_t n = recv(p->fd, s->read_buffer, sizeof(s->read_buffer), 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        read_ended(p, n == 0 ? UV_EOF : uv_translate_sys_error(errno));
        return;
    }
    take_input(p, tq_span(s->read_buffer, (size_t)n));
    if (p->state >= PEER_LIMBO)
        return;
    if (peer_is_native(p))
        native_peer_read(p);
    else if (p->state != PEER_SESSION || tq_frame_partial(&p->session.frames))
        quickack(p);
    if (p->state < PEER_LIMBO && must_pause(p)) { /* it goes on when the reply is out */
        p->reading = false;
        peer_watch(p);
    }
}

static void start_reading(struct peer *p)
{
    p->reading = true;
    peer_watch(p);
}

/* The disk does not keep up: it is read from again when that is over. */
static void stall(struct peer *p)
{
    p->reading = false;
    resume_soon(p);
}

void peer_go_on(struct peer *p)
{
    if (p->server->busy && !peer_is_half_open(p)) {
        resume_soon(p);
        return;
    }
    process_stash(p);
    if (p->state < PEER_LIMBO && may_read(p))
        start_reading(p);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct peer *p = peer_of(poll->data);

    if (status < 0) { /* the socket has an error: the call meets it; the loop has stopped looking */
        events = p->watched;
        p->watched = 0;
    }
    if ((events & UV_DISCONNECT) != 0 && !p->reading && p->write == NULL)
        read_ended(p, UV_EOF);
    if (p->state < PEER_LIMBO && (events & UV_READABLE) != 0 && p->reading) {
        if (p->server->busy && !peer_is_half_open(p))
            stall(p);
        else
            read_some(p);
    }
    if (p->state < PEER_LIMBO && (events & UV_WRITABLE) != 0 && p->write != NULL && !peer_is_held(p))
        peer_write_more(p);
    if (p->state < PEER_LIMBO)
        peer_watch(p);
}

/* ---- effects, deadlines ---- */

/* Input that waited for a reply is looked at from the loop, never from within an effect: the broker's later
 * effects must not be overtaken. */
void peer_resume_later(struct peer *p)
{
    if (p->state == PEER_SESSION && (stash_len(p) > 0 || !p->reading))
        resume_soon(p);
}

void peer_resume_all(struct server *s)
{
    struct peer *p;

    while ((p = s->resuming) != NULL && !s->busy) {
        stop_resuming(p);
        peer_go_on(p);
        if (p->state < PEER_LIMBO)
            peer_watch(p);
    }
}

void peer_resume_none(struct server *s)
{
    while (s->resuming != NULL)
        stop_resuming(s->resuming);
}

void peer_on_deadline(struct tq_deadline *d)
{
    struct peer *p = peer_of((char *)d - offsetof(struct peer, deadline));
    static const uint8_t failure[] = {0, 0, 0, 9, '#', 'F', 'A', 'I', 'L', 'U', 'R', 'E', '#'};

    switch ((enum peer_state)p->state) {
    case PEER_HANDSHAKE:
        p->server->counters.preauth_timeouts++;
        tq_log(TQ_LOG_INFO, "PREAUTH-TIMEOUT", "peer=%s: not authenticated in time", peer_text(p));
        peer_close(p, "not authenticated in time");
        break;
    case PEER_REFUSED:
        if (peer_send(p, tq_span(failure, sizeof(failure)), NULL))
            peer_close(p, "wrong key");
        else if (p->state == PEER_REFUSED)
            peer_close(p, "wrong key, and it does not read");
        break;
    case PEER_FIRST:
        if (p->resuming) /* it has asked: so far it was not listened to */
            peer_set_deadline(p, p->server->config->limits.first_request_timeout_ms);
        else
            peer_close(p, "no request in time");
        break;
    case PEER_SESSION:
        peer_on_write_deadline(p);
        break;
    case PEER_LIMBO:
        pydialect_limbo_over(p, BROKER_CLOSE_RETURN);
        break;
    case PEER_CLOSING:
        break;
    }
}

/* ---- accepting ---- */

static void read_address(struct peer *p, const struct sockaddr_storage *ss)
{
    memset(p->addr.bytes, 0, sizeof(p->addr.bytes));
    if (ss->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

        p->addr.bytes[10] = p->addr.bytes[11] = 0xff;
        memcpy(p->addr.bytes + 12, &in->sin_addr, 4);
        p->port = ntohs(in->sin_port);
    } else if (ss->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)ss;

        memcpy(p->addr.bytes, &in->sin6_addr, 16);
        p->port = ntohs(in->sin6_port);
    }
}

static int begin_handshake(struct peer *p)
{
    struct server *s = p->server;
    struct halfopen_entry *drop = NULL;
    struct tq_span send;
    int rv;

    rv = halfopen_add(&s->halfopen, &p->halfopen, &p->addr, &drop);
    if (rv != TQ_OK)
        return rv;
    if (drop != NULL) {
        struct peer *other = peer_of((char *)drop - offsetof(struct peer, halfopen));

        s->counters.preauth_dropped++;
        tq_log(TQ_LOG_WARN, "PREAUTH-DROPPED",
               "peer=%s: too many connections that are not authenticated; the oldest goes", peer_text(other));
        peer_close(other, "dropped for a newer one");
    }
    rv = tq_session_start(&p->session, &send);
    if (rv != TQ_OK)
        return rv;
    peer_set_deadline(p, s->config->limits.preauth_timeout_ms);
    if (p->state == PEER_HANDSHAKE && send.len > 0)
        (void)peer_send(p, send, NULL);
    if (p->state == PEER_HANDSHAKE)
        start_reading(p);
    return TQ_OK;
}

/* Its memory; NULL when there is none. */
static struct peer *new_peer(struct server *s, int fd)
{
    struct peer *p = tq_calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    if (tq_session_init_server(&p->session, &s->session_limits, &s->auth_registry, s->keys.auth,
                               s->keys.count, s->config->refuse_md5) != TQ_OK ||
        uv_poll_init(s->loop, &p->poll, fd) != 0) {
        tq_session_deinit(&p->session);
        tq_free(p);
        return NULL;
    }
    p->tag = PEER_TAG;
    p->server = s;
    p->fd = fd;
    p->poll.data = p;
    p->deadline.kind = SERVER_DEADLINE_PEER;
    return p;
}

void peer_accept(struct server *s, int take_fd, const struct sockaddr_storage *from)
{
    struct peer *p = NULL;
    int on = 1;
    int rv;

    s->counters.accepted++;
    if (s->peer_count >= s->config->limits.connections)
        tq_log(TQ_LOG_WARN, "TOO-MANY-CONNECTIONS",
               "max=%llu: a connection was refused remedy=\"raise --max-connections\"",
               (unsigned long long)s->config->limits.connections);
    else
        p = new_peer(s, take_fd);
    if (p == NULL) {
        s->counters.over_connections++;
        (void)close(take_fd);
        return;
    }
    DL_APPEND(s->peers, p);
    s->peer_count++;
    (void)setsockopt(take_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    quickack(p);
    read_address(p, from);
    rv = begin_handshake(p);
    if (rv != TQ_OK)
        peer_close(p, tq_strerror(rv));
}
