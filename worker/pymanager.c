#include "worker/pymanager.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

#define KEEPALIVE_IDLE_S     15
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES     4

/* Our answers to the challenge, with their frame header: raw MD5, raw SHA-256 (RHEL). Only a challenge of 20
 * bytes is answered raw. */
#define ANSWER_MD5_BYTES  (TQ_FRAME_HEADER_BYTES + 16)
#define ANSWER_RHEL_BYTES (TQ_FRAME_HEADER_BYTES + 32)

struct pym_write {
    uv_write_t req;
    struct pym_conn *c;
    uint8_t data[];
};

static void kick(struct pym_peer *p);
static void dial(struct pym_conn *c);
static void on_tick(struct tick *t);

/* ---- closing ---- */

static void finish_close(struct pym_conn *c)
{
    struct pym_peer *p = c->peer;

    c->has_tcp = false;
    if (c->has_session) {
        tq_session_deinit(&c->session);
        c->has_session = false;
    }
    if (c->redial && c->failure == PYM_FINE) {
        c->redial = false;
        c->state = PYM_DIAL;
        dial(c);
        return;
    }
    c->redial = false;
    tick_clear(p->ticker, &c->tick);
    if (p->dialing == c)
        p->dialing = NULL;
    c->state = PYM_IDLE;
    c->on_event(c, PYM_CLOSED, tq_span(NULL, 0));
    kick(p);
}

static void on_tcp_closed(uv_handle_t *handle)
{
    finish_close(handle->data);
}

static void begin_close(struct pym_conn *c)
{
    if (c->state == PYM_CLOSING)
        return;
    if (c->state == PYM_QUEUED)
        DL_DELETE(c->peer->queue, c);
    c->state = PYM_CLOSING;
    if (c->has_tcp) {
        tick_park(c->peer->ticker, &c->tick, on_tick);
        uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
    } else {
        tick_move(c->peer->ticker, &c->tick, 0, on_tick);
    }
}

/* Why it ends, in words for people; the first reason stays. */
__attribute__((format(printf, 3, 4))) static void fail(struct pym_conn *c, enum pym_failure failure,
                                                       const char *fmt, ...)
{
    va_list ap;

    if (c->state == PYM_CLOSING && !c->redial)
        return;
    c->redial = false;
    c->failure = failure;
    va_start(ap, fmt);
    vsnprintf(c->text, sizeof(c->text), fmt, ap);
    va_end(ap);
    begin_close(c);
}

void pym_conn_close(struct pym_conn *c)
{
    if (c->state == PYM_IDLE)
        return;
    c->redial = false;
    begin_close(c);
}

static void close_and_redial(struct pym_conn *c)
{
    c->redial = true;
    begin_close(c);
}

/* ---- writing ---- */

static void on_written(uv_write_t *req, int status)
{
    struct pym_write *w = (struct pym_write *)req;
    struct pym_conn *c = w->c;

    tq_free(w);
    if (status < 0 && status != UV_ECANCELED)
        fail(c, PYM_LOST, "%s: the connection broke (%s)", c->peer->name, uv_strerror(status));
}

/* TQ_ECLOSED: nothing of it was written; the connection is closing. What the kernel does not take at once
 * counts as written: nobody can tell any more. */
static int send_bytes(struct pym_conn *c, struct tq_span s)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)s.data, (unsigned)s.len);
    struct pym_write *w;
    size_t done;
    int n = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);

    if (n < 0 && n != UV_EAGAIN) {
        fail(c, PYM_LOST, "%s: the connection broke (%s)", c->peer->name, uv_strerror(n));
        return TQ_ECLOSED;
    }
    done = n < 0 ? 0 : (size_t)n;
    if (done == s.len)
        return TQ_OK;
    w = tq_malloc(sizeof(*w) + s.len - done);
    if (w == NULL) {
        fail(c, PYM_OUT_OF_MEMORY, "out of memory");
        return done == 0 ? TQ_ECLOSED : TQ_OK;
    }
    w->c = c;
    memcpy(w->data, s.data + done, s.len - done);
    buf = uv_buf_init((char *)w->data, (unsigned)(s.len - done));
    n = uv_write(&w->req, (uv_stream_t *)&c->tcp, &buf, 1, on_written);
    if (n != 0) {
        tq_free(w);
        fail(c, PYM_LOST, "%s: the connection broke (%s)", c->peer->name, uv_strerror(n));
        return done == 0 ? TQ_ECLOSED : TQ_OK;
    }
    return TQ_OK;
}

int pym_conn_call(struct pym_conn *c, struct tq_span frame, uint64_t timeout_ms)
{
    TQ_ASSERT(c->state == PYM_READY || c->state == PYM_CLOSING);
    if (c->state == PYM_CLOSING)
        return TQ_ECLOSED;
    c->state = PYM_CALL;
    if (timeout_ms > 0)
        tick_move(c->peer->ticker, &c->tick, timeout_ms, on_tick);
    return send_bytes(c, frame);
}

/* ---- reading ---- */

static void handshake_failed(struct pym_conn *c, int err)
{
    const char *name = c->peer->name;
    bool raw_answer = c->answer_bytes == ANSWER_MD5_BYTES || c->answer_bytes == ANSWER_RHEL_BYTES;

    if (err == TQ_EAUTH && c->handshake_sends == 1 && raw_answer && !c->rhel_other) {
        /* Red Hat's builds of Python up to 3.11 mean SHA-256 where others mean MD5; nothing tells. */
        c->rhel_other = true;
        c->rhel = !c->rhel;
        close_and_redial(c);
        return;
    }
    if (err == TQ_EAUTH && c->handshake_sends == 1)
        fail(c, PYM_KEY_REFUSED,
             "%s refused the key: give the master's key by --authkey-file, --authkey or TASKQ_AUTHKEY", name);
    else if (err == TQ_EAUTH)
        fail(c, PYM_KEY_UNPROVEN, "%s does not know the key itself: it is not your master; check --master",
             name);
    else if (err == TQ_EREFLECT)
        fail(c, PYM_BAD_PEER, "%s sent our own challenge back, as only an attacker does: check --master",
             name);
    else if (err == TQ_ENOMEM)
        fail(c, PYM_OUT_OF_MEMORY, "out of memory");
    else
        fail(c, PYM_BAD_PEER, "%s does not speak the manager protocol (%s): check --master", name,
             tq_strerror(err));
}

static void on_session_event(struct pym_conn *c, const struct tq_session_event *ev)
{
    struct pym_peer *p = c->peer;

    switch (ev->kind) {
    case TQ_SESSION_SEND:
        if (c->handshake_sends++ == 0)
            c->answer_bytes = ev->send.len;
        send_bytes(c, ev->send);
        break;
    case TQ_SESSION_OPEN:
        p->rhel = c->rhel;
        p->dialing = NULL;
        c->state = PYM_READY;
        tick_park(p->ticker, &c->tick, on_tick);
        c->on_event(c, PYM_OPEN, tq_span(NULL, 0));
        kick(p);
        break;
    case TQ_SESSION_FRAME:
        if (c->state != PYM_CALL) {
            fail(c, PYM_BAD_PEER, "%s sent a reply that nobody asked for", p->name);
            break;
        }
        c->state = PYM_READY;
        tick_park(p->ticker, &c->tick, on_tick);
        c->on_event(c, PYM_REPLY, ev->frame);
        break;
    case TQ_SESSION_FAIL:
        /* A server that failed our check is told so, if it still listens. */
        if (ev->send.len > 0) {
            uv_buf_t buf = uv_buf_init((char *)(uintptr_t)ev->send.data, (unsigned)ev->send.len);

            (void)uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
        }
        if (!c->session.open)
            handshake_failed(c, ev->err);
        else
            fail(c, PYM_BAD_PEER, "%s sent a reply that cannot be read (%s)", p->name, tq_strerror(ev->err));
        break;
    case TQ_SESSION_MORE:
        break;
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct pym_conn *c = handle->data;

    (void)suggested;
    *buf = uv_buf_init((char *)c->peer->read_buf, PYM_READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct pym_conn *c = stream->data;
    struct tq_session_event ev;
    struct tq_span in;

    if (c->state == PYM_CLOSING || n == 0)
        return;
    if (n < 0) {
        if (c->state == PYM_DIAL)
            fail(c, PYM_LOST, "%s closed the connection during the handshake", c->peer->name);
        else if (n == UV_EOF)
            fail(c, PYM_LOST, "%s closed the connection", c->peer->name);
        else
            fail(c, PYM_LOST, "%s: the connection broke (%s)", c->peer->name, uv_strerror((int)n));
        return;
    }
    in = tq_span(buf->base, (size_t)n);
    do {
        tq_session_next(&c->session, &in, &ev);
        on_session_event(c, &ev);
    } while (ev.kind != TQ_SESSION_MORE && c->state != PYM_CLOSING);
    if (c->state != PYM_CLOSING)
        tq_frame_reader_trim(&c->session.frames);
}

/* ---- dialing ---- */

static void address_failed(struct pym_conn *c, int status)
{
    struct pym_peer *p = c->peer;

    p->address_at = (p->address_at + 1) % p->address_count;
    if (++p->address_tries < p->address_count) {
        close_and_redial(c);
        return;
    }
    p->address_count = 0; /* ask the resolver again next time */
    if (status == UV_ECONNREFUSED)
        fail(c, PYM_NO_ANSWER,
             "nothing listens on %s (connection refused): start the master, or give its address by --master",
             p->name);
    else
        fail(c, PYM_NO_ANSWER, "cannot connect to %s (%s): check --master and the network", p->name,
             uv_strerror(status));
}

static void on_tick(struct tick *t)
{
    struct pym_conn *c = TICK_OWNER(t, struct pym_conn, tick);

    /* Keep it set: a tick that is set can always be moved. */
    switch (c->state) {
    case PYM_CLOSING:
        finish_close(c);
        return;
    case PYM_DIAL:
        if (c->has_tcp && !c->has_session) {
            address_failed(c, UV_ETIMEDOUT);
            return;
        }
        fail(c, PYM_NO_ANSWER, "%s does not answer (no handshake within %d s): is a master running there?",
             c->peer->name, PYM_HANDSHAKE_MS / 1000);
        return;
    default:
        fail(c, PYM_LOST, "%s did not answer a call in time", c->peer->name);
        return;
    }
}

static void tune(struct pym_conn *c)
{
    int interval = KEEPALIVE_INTERVAL_S;
    int probes = KEEPALIVE_PROBES;
    uv_os_fd_t fd;

    /* None of these is worth a connection: without them it is only slower to notice things. */
    (void)uv_tcp_nodelay(&c->tcp, 1);
    (void)uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_IDLE_S);
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    }
}

static void on_connected(uv_connect_t *req, int status)
{
    struct pym_conn *c = req->data;
    struct pym_peer *p = c->peer;
    struct tq_span nothing;
    int rv;

    if (c->state == PYM_CLOSING)
        return;
    if (status != 0) {
        address_failed(c, status);
        return;
    }
    p->address_tries = 0;
    tune(c);
    c->handshake_sends = 0;
    c->answer_bytes = 0;
    rv = tq_session_init_client(&c->session, &p->limits, &p->registry, &p->key, c->rhel);
    c->has_session = true;
    if (rv == TQ_OK)
        rv = tq_session_start(&c->session, &nothing);
    if (rv != TQ_OK) {
        fail(c, PYM_OUT_OF_MEMORY, "cannot begin a handshake: %s", tq_strerror(rv));
        return;
    }
    rv = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (rv != 0)
        fail(c, PYM_LOST, "cannot read from %s: %s", p->name, uv_strerror(rv));
}

static void connect_to_address(struct pym_conn *c)
{
    struct pym_peer *p = c->peer;
    int rv = uv_tcp_init(p->loop, &c->tcp);

    if (rv != 0) {
        fail(c, PYM_NO_ANSWER, "cannot make a socket: %s", uv_strerror(rv));
        return;
    }
    c->has_tcp = true;
    c->tcp.data = c;
    c->connect.data = c;
    rv = uv_tcp_connect(&c->connect, &c->tcp, (const struct sockaddr *)&p->addresses[p->address_at],
                        on_connected);
    if (rv != 0)
        address_failed(c, rv);
}

static void take_addresses(struct pym_peer *p, const struct addrinfo *list)
{
    p->address_count = 0;
    p->address_at = 0;
    for (; list != NULL && p->address_count < PYM_ADDRESSES_MAX; list = list->ai_next)
        if (list->ai_family == AF_INET || list->ai_family == AF_INET6)
            memcpy(&p->addresses[p->address_count++], list->ai_addr, list->ai_addrlen);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct pym_peer *p = req->data;
    struct pym_conn *c = p->dialing;

    p->resolving = false;
    if (status == 0)
        take_addresses(p, list);
    uv_freeaddrinfo(list);
    if (c == NULL) {
        kick(p);
        return;
    }
    if (c->state == PYM_CLOSING)
        return;
    if (p->address_count == 0)
        fail(c, status == UV_EAI_AGAIN ? PYM_NO_ANSWER : PYM_UNKNOWN_HOST,
             "the host '%s' is unknown (%s): correct --master HOST:PORT", p->host,
             status != 0 ? uv_strerror(status) : "no address");
    else
        connect_to_address(c);
}

static bool take_numeric_address(struct pym_peer *p)
{
    if (uv_ip4_addr(p->host, p->port, (struct sockaddr_in *)(void *)&p->addresses[0]) != 0 &&
        uv_ip6_addr(p->host, p->port, (struct sockaddr_in6 *)(void *)&p->addresses[0]) != 0)
        return false;
    p->address_count = 1;
    p->address_at = 0;
    return true;
}

static void resolve(struct pym_conn *c)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct pym_peer *p = c->peer;
    char port[8];
    int rv;

    snprintf(port, sizeof(port), "%u", p->port);
    p->resolver.data = p;
    rv = uv_getaddrinfo(p->loop, &p->resolver, on_resolved, p->host, port, &hints);
    if (rv != 0)
        fail(c, PYM_NO_ANSWER, "cannot look up the host '%s': %s", p->host, uv_strerror(rv));
    else
        p->resolving = true;
}

/* c is p->dialing, in state DIAL, without a socket. */
static void dial(struct pym_conn *c)
{
    struct pym_peer *p = c->peer;

    tick_move(p->ticker, &c->tick, PYM_HANDSHAKE_MS, on_tick);
    if (p->address_count > 0 || take_numeric_address(p))
        connect_to_address(c);
    else
        resolve(c);
}

/* Begins the next dial if there is one and it may begin. */
static void kick(struct pym_peer *p)
{
    struct pym_conn *c = p->queue;

    if (c == NULL || p->dialing != NULL || p->paused || p->resolving)
        return;
    DL_DELETE(p->queue, c);
    p->dialing = c;
    p->address_tries = 0;
    c->state = PYM_DIAL;
    c->rhel = p->rhel;
    c->rhel_other = false;
    dial(c);
}

int pym_conn_open(struct pym_conn *c, struct pym_peer *p,
                  void (*on_event)(struct pym_conn *c, enum pym_event ev, struct tq_span frame))
{
    int rv;

    TQ_ASSERT(c->state == PYM_IDLE);
    rv = tick_set(p->ticker, &c->tick, TICK_PARKED_MS, on_tick);
    if (rv != TQ_OK)
        return rv;
    c->peer = p;
    c->on_event = on_event;
    c->failure = PYM_FINE;
    c->text[0] = '\0';
    c->redial = false;
    c->state = PYM_QUEUED;
    DL_APPEND(p->queue, c);
    kick(p);
    return TQ_OK;
}

/* ---- the peer ---- */

static void on_pause_over(struct tick *t)
{
    struct pym_peer *p = TICK_OWNER(t, struct pym_peer, pause);

    p->paused = false;
    tick_park(p->ticker, &p->pause, on_pause_over);
    kick(p);
}

int pym_peer_open(struct pym_peer *p, uv_loop_t *loop, struct ticker *ticker, const char *host, uint16_t port,
                  struct tq_span key, uint64_t frame_bytes)
{
    *p = (struct pym_peer){
        .loop = loop,
        .ticker = ticker,
        .port = port,
        .key = {.secret = key, .name = "authkey"},
        .limits = {.preauth_frame_bytes = TQ_AUTH_FRAME_MAX_BYTES,
                   .preauth_frames = 3, /* challenge, verdict, answer */
                   .frame_bytes = frame_bytes},
    };
    snprintf(p->host, sizeof(p->host), "%s", host);
    snprintf(p->name, sizeof(p->name), strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, port);
    tq_auth_registry_init(&p->registry);
    return tick_set(ticker, &p->pause, TICK_PARKED_MS, on_pause_over);
}

void pym_peer_close(struct pym_peer *p)
{
    TQ_ASSERT(p->queue == NULL && p->dialing == NULL);
    tick_clear(p->ticker, &p->pause);
    tq_auth_registry_deinit(&p->registry);
    if (p->resolving)
        (void)uv_cancel((uv_req_t *)&p->resolver);
}

void pym_peer_failed(struct pym_peer *p)
{
    uint32_t random = 0;

    if (p->paused)
        return;
    /* Without random bytes there is still a pause, only without jitter. */
    (void)tq_random_bytes(&random, sizeof(random));
    p->paused = true;
    tick_move(p->ticker, &p->pause, backoff_next_ms(&p->backoff, random), on_pause_over);
}

void pym_peer_works(struct pym_peer *p)
{
    backoff_reset(&p->backoff);
}
