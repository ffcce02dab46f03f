#include "master/peer.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/native_peer.h"
#include "master/python/dialect.h"

#define PEER_TAG 0x70656572u

struct peer_write {
    uv_write_t req;
    struct peer *peer;
    struct tq_body *body; /* what is written: this, or buf, or data */
    struct tq_buf buf;
    size_t left_before; /* bytes unsent at the last look of the write deadline */
    uint8_t data[];
};

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

static int peer_fd(const struct peer *p)
{
    uv_os_fd_t fd;

    return uv_fileno((const uv_handle_t *)&p->tcp, &fd) == 0 ? fd : -1;
}

static void quickack(const struct peer *p)
{
    /* Stock clients write twice in a row (the verdict, then the request; the header, then a large body):
     * with a delayed acknowledgement and their Nagle that costs 40 ms. The setting does not last. */
    int on = 1;
    int fd = peer_fd(p);

    if (fd >= 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

void peer_keepalive(struct peer *p)
{
    unsigned user_timeout_ms = 120000;
    int fd = peer_fd(p);

    (void)uv_tcp_keepalive(&p->tcp, 1, 60);
    if (fd >= 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

/* ---- closing ---- */

static void stop_resuming(struct peer *p)
{
    if (!p->resuming)
        return;
    p->resuming = false;
    DL_DELETE2(p->server->resuming, p, resume_prev, resume_next);
}

static void free_peer(struct peer *p)
{
    struct server *s = p->server;

    TQ_ASSERT(p->write == NULL);
    DL_DELETE(s->peers, p);
    s->peer_count--;
    s->counters.closed++;
    tq_deadline_clear(&s->deadlines, &p->deadline);
    tq_buf_deinit(&p->stash);
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
    p->on_rights_changed = NULL;
    p->python = NULL;
    p->native = NULL;
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
    tq_buf_deinit(&p->stash);
    uv_close((uv_handle_t *)&p->tcp, on_closed);
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

/* ---- writing ---- */

static void process_stash(struct peer *p);
static bool may_read(const struct peer *p);
static void start_reading(struct peer *p);

static void written(struct peer *p)
{
    pydialect_written(p);
    if (p->close_after_write)
        peer_close(p, "answered");
}

/* The connection broke: has the other side closed it, or is nothing heard of it? */
static void close_broken(struct peer *p, int err)
{
    if (err == UV_ETIMEDOUT || err == UV_EHOSTUNREACH || err == UV_ENETUNREACH || err == UV_ENETDOWN)
        p->gone_by = NATIVE_FELL_SILENT;
    peer_close(p, err == UV_EOF ? "end of file" : uv_strerror(err));
}

static void free_write(struct peer *p, struct peer_write *w)
{
    tq_body_unref(w->body);
    native_give_back(p->server->native, &w->buf);
    tq_free(w);
}

static void on_write(uv_write_t *req, int status)
{
    struct peer_write *w = req->data;
    struct peer *p = w->peer;

    p->write = NULL;
    free_write(p, w);
    if (p->state >= PEER_LIMBO)
        return;
    if (status < 0) {
        close_broken(p, status);
        return;
    }
    if (p->state == PEER_SESSION)
        tq_deadline_clear(&p->server->deadlines, &p->deadline);
    native_peer_sent(p); /* may write what has come in meanwhile */
    if (p->state < PEER_LIMBO && p->write == NULL)
        written(p);
    if (p->state >= PEER_LIMBO)
        return;
    process_stash(p);
    if (p->state < PEER_LIMBO && may_read(p))
        start_reading(p);
    server_peer_gone(p->server); /* a stop may have waited for this reply */
}

/* Begins to write w, whose bytes begin at `data`. */
static void begin_write(struct peer *p, struct peer_write *w, const uint8_t *data, size_t len)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    int rv;

    w->peer = p;
    w->req.data = w;
    w->left_before = len;
    rv = uv_write(&w->req, (uv_stream_t *)&p->tcp, &buf, 1, on_write);
    if (rv != 0) {
        free_write(p, w);
        close_broken(p, rv);
        return;
    }
    p->write = w;
    if (p->state == PEER_SESSION)
        peer_set_deadline(p, p->server->config->limits.write_timeout_ms);
}

/* What the socket did not take: from `offset` of bytes or body. */
static void write_rest(struct peer *p, struct tq_span all, size_t offset, struct tq_body *take_body)
{
    size_t copy = take_body == NULL ? all.len - offset : 0;
    struct peer_write *w = tq_malloc(sizeof(*w) + copy);

    if (w == NULL) {
        tq_body_unref(take_body);
        peer_close(p, "out of memory");
        return;
    }
    w->body = take_body;
    w->buf = (struct tq_buf){0};
    if (take_body == NULL)
        memcpy(w->data, all.data + offset, copy);
    begin_write(p, w, take_body == NULL ? w->data : take_body->data + offset, all.len - offset);
}

void peer_send_rest(struct peer *p, struct tq_buf *take_buf, size_t offset)
{
    struct peer_write *w = tq_malloc(sizeof(*w));

    TQ_ASSERT(p->write == NULL);
    if (w == NULL) {
        native_give_back(p->server->native, take_buf);
        peer_close(p, "out of memory");
        return;
    }
    w->body = NULL;
    w->buf = *take_buf;
    *take_buf = (struct tq_buf){.max = w->buf.max};
    begin_write(p, w, w->buf.data + offset, w->buf.len - offset);
}

int peer_try_write(struct peer *p, struct tq_span bytes)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes.data, (unsigned)bytes.len);
    int n = uv_try_write((uv_stream_t *)&p->tcp, &buf, 1);

    if (n == UV_EAGAIN)
        return 0;
    if (n < 0)
        close_broken(p, n);
    return n;
}

bool peer_send(struct peer *p, struct tq_span bytes, struct tq_body *take_body)
{
    struct tq_span all = take_body != NULL ? tq_span(take_body->data, take_body->len) : bytes;
    int n;

    TQ_ASSERT(p->write == NULL);
    n = peer_try_write(p, all);
    if (n < 0) {
        tq_body_unref(take_body);
        return false;
    }
    if ((size_t)n < all.len) {
        write_rest(p, all, (size_t)n, take_body);
        return false;
    }
    tq_body_unref(take_body);
    return true;
}

bool peer_still_waits(const struct peer *p)
{
    bool may_pipeline = p->server->config->wait_pipelined;
    char byte;
    ssize_t n;

    if (!may_pipeline && tq_frame_partial(&p->session.frames))
        return false;
    n = recv(peer_fd(p), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
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
    if (p->reading) {
        uv_read_stop((uv_stream_t *)&p->tcp);
        p->reading = false;
    }
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

/* Does its input go on arriving? Python's is kept while a reply is on its way; a native peer is not read from
 * while something of it is still to be looked at. */
static bool may_read(const struct peer *p)
{
    if (peer_is_native(p))
        return p->stash.len == 0 && may_process(p);
    return p->write == NULL && p->stash.len < p->stash.max / 2;
}

static void on_frame(struct peer *p, struct tq_span frame)
{
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

static void keep_rest(struct peer *p, struct tq_span in)
{
    if (in.len == 0 || p->state >= PEER_LIMBO || p->state == PEER_REFUSED || p->close_after_write)
        return;
    if (tq_buf_append(&p->stash, in.data, in.len) != TQ_OK) {
        p->server->counters.protocol_errors++;
        peer_close(p, "it sends without reading its replies");
    }
}

static void process_stash(struct peer *p)
{
    struct tq_buf taken = p->stash;
    struct tq_span in = tq_buf_span(&taken);

    if (taken.len == 0)
        return;
    tq_buf_init(&p->stash, taken.max);
    process(p, &in);
    keep_rest(p, in);
    tq_buf_deinit(&taken);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct server *s = peer_of(handle->data)->server;

    (void)suggested;
    *buf = uv_buf_init((char *)s->read_buffer, sizeof(s->read_buffer));
}

static void read_ended(struct peer *p, int err)
{
    if (err == UV_EOF) /* it may still read what it asked for */
        native_peer_flush(p);
    close_broken(p, err);
}

static void take_input(struct peer *p, struct tq_span in)
{
    if (p->stash.len > 0) {
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
    return peer_is_native(p) ? !may_read(p) : p->stash.len >= p->stash.max / 2;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer *p = peer_of(stream->data);

    if (n == 0)
        return;
    if (n < 0) {
        read_ended(p, (int)n);
        return;
    }
    take_input(p, tq_span(buf->base, (size_t)n));
    if (p->state >= PEER_LIMBO)
        return;
    if (peer_is_native(p))
        native_peer_read(p);
    else if (p->state != PEER_SESSION || tq_frame_partial(&p->session.frames))
        quickack(p);
    if (p->state < PEER_LIMBO && p->reading && must_pause(p)) { /* it goes on when the reply is out */
        uv_read_stop(stream);
        p->reading = false;
    }
}

static void start_reading(struct peer *p)
{
    int rv;

    if (p->reading)
        return;
    rv = uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read);
    if (rv != 0)
        peer_close(p, uv_strerror(rv));
    else
        p->reading = true;
}

/* ---- effects, deadlines ---- */

/* Input that waited for a reply is looked at from the loop, never from within an effect: the broker's later
 * effects must not be overtaken. */
void peer_resume_later(struct peer *p)
{
    if (p->state != PEER_SESSION || p->resuming || (p->stash.len == 0 && p->reading))
        return;
    p->resuming = true;
    DL_APPEND2(p->server->resuming, p, resume_prev, resume_next);
}

void peer_resume_all(struct server *s)
{
    struct peer *p;

    while ((p = s->resuming) != NULL) {
        stop_resuming(p);
        process_stash(p);
        if (p->state < PEER_LIMBO && may_read(p))
            start_reading(p);
    }
}

static void on_write_deadline(struct peer *p)
{
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&p->tcp);

    if (p->write != NULL && left < p->write->left_before) {
        p->write->left_before = left;
        peer_set_deadline(p, p->server->config->limits.write_timeout_ms);
        return;
    }
    p->server->counters.write_timeouts++;
    tq_log(TQ_LOG_WARN, "PEER-NOT-READING", "peer=%s: it reads nothing of its reply; closed", peer_text(p));
    peer_close(p, "it reads nothing of its reply");
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
        peer_close(p, "no request in time");
        break;
    case PEER_SESSION:
        on_write_deadline(p);
        break;
    case PEER_LIMBO:
        pydialect_limbo_over(p, BROKER_CLOSE_RETURN);
        break;
    case PEER_CLOSING:
        break;
    }
}

/* ---- accepting ---- */

static void read_address(struct peer *p)
{
    struct sockaddr_storage ss;
    int len = sizeof(ss);

    memset(p->addr.bytes, 0, sizeof(p->addr.bytes));
    if (uv_tcp_getpeername(&p->tcp, (struct sockaddr *)&ss, &len) != 0)
        return;
    if (ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;

        p->addr.bytes[10] = p->addr.bytes[11] = 0xff;
        memcpy(p->addr.bytes + 12, &in->sin_addr, 4);
        p->port = ntohs(in->sin_port);
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&ss;

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

static void free_unopened(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    struct server *s = p->server;

    DL_DELETE(s->peers, p);
    s->peer_count--;
    tq_free(p);
    server_peer_gone(s);
}

static void on_shed(uv_handle_t *handle)
{
    struct server *s = handle->data;

    s->shed_busy = false;
    for (unsigned i = 0; i < s->listener_count && !s->stopping; i++) {
        if (s->shed_waiting[i]) {
            s->shed_waiting[i] = false;
            peer_accept(s, (uv_stream_t *)&s->listeners[i]);
        }
    }
}

/* No memory for a peer: the connection must be taken all the same, or the listener would stay silent. */
static void shed(struct server *s, uv_stream_t *listener)
{
    if (s->shed_busy) {
        s->shed_waiting[(uv_tcp_t *)listener - s->listeners] = true;
        return;
    }
    (void)uv_tcp_init(s->loop, &s->shed); /* cannot fail without an address family */
    s->shed.data = s;
    s->shed_busy = true;
    s->counters.over_connections++;
    (void)uv_accept(listener, (uv_stream_t *)&s->shed);
    uv_close((uv_handle_t *)&s->shed, on_shed);
}

void peer_accept(struct server *s, uv_stream_t *listener)
{
    struct peer *p = tq_calloc(1, sizeof(*p));
    int rv;

    if (p == NULL || uv_tcp_init(s->loop, &p->tcp) != 0) {
        tq_free(p);
        shed(s, listener);
        return;
    }
    p->tag = PEER_TAG;
    p->server = s;
    p->tcp.data = p;
    p->deadline.kind = SERVER_DEADLINE_PEER;
    DL_APPEND(s->peers, p);
    s->peer_count++;
    s->counters.accepted++;
    rv = uv_accept(listener, (uv_stream_t *)&p->tcp);
    if (rv == 0 && s->peer_count > s->config->limits.connections) {
        s->counters.over_connections++;
        tq_log(TQ_LOG_WARN, "TOO-MANY-CONNECTIONS",
               "max=%llu: a connection was refused remedy=\"raise --max-connections\"",
               (unsigned long long)s->config->limits.connections);
        rv = UV_EMFILE;
    }
    if (rv == 0) {
        tq_buf_init(&p->stash, s->config->limits.input_bytes);
        rv = tq_session_init_server(&p->session, &s->session_limits, &s->auth_registry, s->keys.auth,
                                    s->keys.count, s->config->refuse_md5);
    }
    if (rv != 0) {
        peer_set_state(p, PEER_CLOSING);
        uv_close((uv_handle_t *)&p->tcp, free_unopened);
        return;
    }
    (void)uv_tcp_nodelay(&p->tcp, 1);
    quickack(p);
    read_address(p);
    rv = begin_handshake(p);
    if (rv != TQ_OK)
        peer_close(p, tq_strerror(rv));
}
