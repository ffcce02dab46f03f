#include "worker/link.h"

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

struct link_write {
    uv_write_t req;
    struct link *l;
    uint8_t data[];
};

static void kick(struct link_peer *p);
static void dial(struct link *l);
static void on_tick(struct tick *t);

/* ---- closing ---- */

static void finish_close(struct link *l)
{
    struct link_peer *p = l->peer;

    l->has_tcp = false;
    if (l->has_session) {
        tq_session_deinit(&l->session);
        l->has_session = false;
    }
    if (l->redial && l->failure == LINK_FINE) {
        l->redial = false;
        l->state = LINK_DIALING;
        dial(l);
        return;
    }
    l->redial = false;
    tick_clear(p->ticker, &l->tick);
    if (p->dialing == l)
        p->dialing = NULL;
    l->state = LINK_IDLE;
    l->on_event(l, LINK_CLOSED, tq_span(NULL, 0));
    kick(p);
}

static void on_tcp_closed(uv_handle_t *handle)
{
    finish_close(handle->data);
}

static void begin_close(struct link *l)
{
    if (l->state == LINK_CLOSING)
        return;
    if (l->state == LINK_QUEUED)
        DL_DELETE(l->peer->queue, l);
    l->state = LINK_CLOSING;
    if (l->has_tcp) {
        tick_park(l->peer->ticker, &l->tick, on_tick);
        uv_close((uv_handle_t *)&l->tcp, on_tcp_closed);
    } else {
        tick_move(l->peer->ticker, &l->tick, 0, on_tick);
    }
}

void link_fail(struct link *l, enum link_failure failure, const char *fmt, ...)
{
    va_list ap;

    if (l->state == LINK_CLOSING && !l->redial)
        return;
    l->redial = false;
    l->failure = failure;
    va_start(ap, fmt);
    vsnprintf(l->text, sizeof(l->text), fmt, ap);
    va_end(ap);
    begin_close(l);
}

void link_close(struct link *l)
{
    if (l->state == LINK_IDLE)
        return;
    l->redial = false;
    begin_close(l);
}

static void close_and_redial(struct link *l)
{
    l->redial = true;
    begin_close(l);
}

/* ---- writing ---- */

static void on_written(uv_write_t *req, int status)
{
    struct link_write *w = (struct link_write *)req;
    struct link *l = w->l;

    tq_free(w);
    if (status < 0 && status != UV_ECANCELED)
        link_fail(l, LINK_LOST, "%s: the connection broke (%s)", l->peer->name, uv_strerror(status));
}

/* TQ_ECLOSED: nothing of it was written; the connection is closing. What the kernel does not take at once
 * counts as written: nobody can tell any more. */
static int send_bytes(struct link *l, struct tq_span s)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)s.data, (unsigned)s.len);
    struct link_write *w;
    size_t done;
    int n = uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);

    if (n < 0 && n != UV_EAGAIN) {
        link_fail(l, LINK_LOST, "%s: the connection broke (%s)", l->peer->name, uv_strerror(n));
        return TQ_ECLOSED;
    }
    done = n < 0 ? 0 : (size_t)n;
    if (done == s.len)
        return TQ_OK;
    w = tq_malloc(sizeof(*w) + s.len - done);
    if (w == NULL) {
        link_fail(l, LINK_OUT_OF_MEMORY, "out of memory");
        return done == 0 ? TQ_ECLOSED : TQ_OK;
    }
    w->l = l;
    memcpy(w->data, s.data + done, s.len - done);
    buf = uv_buf_init((char *)w->data, (unsigned)(s.len - done));
    n = uv_write(&w->req, (uv_stream_t *)&l->tcp, &buf, 1, on_written);
    if (n != 0) {
        tq_free(w);
        link_fail(l, LINK_LOST, "%s: the connection broke (%s)", l->peer->name, uv_strerror(n));
        return done == 0 ? TQ_ECLOSED : TQ_OK;
    }
    return TQ_OK;
}

int link_send(struct link *l, struct tq_span frame)
{
    TQ_ASSERT(l->state == LINK_UP || l->state == LINK_CLOSING);
    return l->state == LINK_UP ? send_bytes(l, frame) : TQ_ECLOSED;
}

void link_deadline(struct link *l, uint64_t after_ms)
{
    if (l->state != LINK_UP)
        return;
    if (after_ms > 0)
        tick_move(l->peer->ticker, &l->tick, after_ms, on_tick);
    else
        tick_park(l->peer->ticker, &l->tick, on_tick);
}

/* ---- reading ---- */

static void handshake_failed(struct link *l, int err)
{
    const char *name = l->peer->name;
    bool raw_answer = l->answer_bytes == ANSWER_MD5_BYTES || l->answer_bytes == ANSWER_RHEL_BYTES;

    if (err == TQ_EAUTH && l->handshake_sends == 1 && raw_answer && !l->rhel_other) {
        /* Red Hat's builds of Python up to 3.11 mean SHA-256 where others mean MD5; nothing tells. */
        l->rhel_other = true;
        l->rhel = !l->rhel;
        close_and_redial(l);
        return;
    }
    if (err == TQ_EAUTH && l->handshake_sends == 1)
        link_fail(l, LINK_KEY_REFUSED,
                  "%s refused the key: give the master's key by --authkey-file, --authkey or TASKQ_AUTHKEY",
                  name);
    else if (err == TQ_EAUTH)
        link_fail(l, LINK_KEY_UNPROVEN,
                  "%s does not know the key itself: it is not your master; check --master", name);
    else if (err == TQ_EREFLECT)
        link_fail(l, LINK_BAD_PEER,
                  "%s sent our own challenge back, as only an attacker does: check --master", name);
    else if (err == TQ_ENOMEM)
        link_fail(l, LINK_OUT_OF_MEMORY, "out of memory");
    else
        link_fail(l, LINK_BAD_PEER, "%s does not speak the manager protocol (%s): check --master", name,
                  tq_strerror(err));
}

static void on_session_event(struct link *l, const struct tq_session_event *ev)
{
    struct link_peer *p = l->peer;

    switch (ev->kind) {
    case TQ_SESSION_SEND:
        if (l->handshake_sends++ == 0)
            l->answer_bytes = ev->send.len;
        send_bytes(l, ev->send);
        break;
    case TQ_SESSION_OPEN:
        p->rhel = l->rhel;
        p->dialing = NULL;
        l->state = LINK_UP;
        tick_park(p->ticker, &l->tick, on_tick);
        l->on_event(l, LINK_OPEN, tq_span(NULL, 0));
        kick(p);
        break;
    case TQ_SESSION_FRAME:
        l->on_event(l, LINK_FRAME, ev->frame);
        break;
    case TQ_SESSION_FAIL:
        /* A server that failed our check is told so, if it still listens. */
        if (ev->send.len > 0) {
            uv_buf_t buf = uv_buf_init((char *)(uintptr_t)ev->send.data, (unsigned)ev->send.len);

            (void)uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);
        }
        if (!l->session.open)
            handshake_failed(l, ev->err);
        else
            link_fail(l, LINK_BAD_PEER, "%s sent a reply that cannot be read (%s)", p->name,
                      tq_strerror(ev->err));
        break;
    case TQ_SESSION_MORE:
        break;
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct link *l = handle->data;

    (void)suggested;
    *buf = uv_buf_init((char *)l->peer->read_buf, LINK_READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct link *l = stream->data;
    struct tq_session_event ev;
    struct tq_span in;

    if (l->state == LINK_CLOSING || n == 0)
        return;
    if (n < 0) {
        if (l->state == LINK_DIALING)
            link_fail(l, LINK_LOST, "%s closed the connection during the handshake", l->peer->name);
        else if (n == UV_EOF)
            link_fail(l, LINK_LOST, "%s closed the connection", l->peer->name);
        else
            link_fail(l, LINK_LOST, "%s: the connection broke (%s)", l->peer->name, uv_strerror((int)n));
        return;
    }
    in = tq_span(buf->base, (size_t)n);
    l->heard_ms = uv_now(l->peer->loop);
    do {
        tq_session_next(&l->session, &in, &ev);
        on_session_event(l, &ev);
    } while (ev.kind != TQ_SESSION_MORE && l->state != LINK_CLOSING);
    if (l->state != LINK_CLOSING)
        tq_frame_reader_trim(&l->session.frames);
}

/* ---- dialing ---- */

static void address_failed(struct link *l, int status)
{
    struct link_peer *p = l->peer;

    p->address_at = (p->address_at + 1) % p->address_count;
    if (++p->address_tries < p->address_count) {
        close_and_redial(l);
        return;
    }
    p->address_count = 0; /* ask the resolver again next time */
    if (status == UV_ECONNREFUSED)
        link_fail(
            l, LINK_NO_ANSWER,
            "nothing listens on %s (connection refused): start the master, or give its address by --master",
            p->name);
    else
        link_fail(l, LINK_NO_ANSWER, "cannot connect to %s (%s): check --master and the network", p->name,
                  uv_strerror(status));
}

static void on_tick(struct tick *t)
{
    struct link *l = TICK_OWNER(t, struct link, tick);

    /* Keep it set: a tick that is set can always be moved. */
    switch (l->state) {
    case LINK_CLOSING:
        finish_close(l);
        return;
    case LINK_DIALING:
        if (l->has_tcp && !l->has_session) {
            address_failed(l, UV_ETIMEDOUT);
            return;
        }
        link_fail(l, LINK_NO_ANSWER,
                  "%s does not answer (no handshake within %d s): is a master running there?", l->peer->name,
                  LINK_HANDSHAKE_MS / 1000);
        return;
    default:
        link_fail(l, LINK_LOST, "%s did not answer in time", l->peer->name);
        return;
    }
}

static void tune(struct link *l)
{
    int interval = KEEPALIVE_INTERVAL_S;
    int probes = KEEPALIVE_PROBES;
    uv_os_fd_t fd;

    /* None of these is worth a connection: without them it is only slower to notice things. */
    (void)uv_tcp_nodelay(&l->tcp, 1);
    (void)uv_tcp_keepalive(&l->tcp, 1, KEEPALIVE_IDLE_S);
    if (uv_fileno((uv_handle_t *)&l->tcp, &fd) == 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    }
}

static void on_connected(uv_connect_t *req, int status)
{
    struct link *l = req->data;
    struct link_peer *p = l->peer;
    struct tq_span nothing;
    int rv;

    if (l->state == LINK_CLOSING)
        return;
    if (status != 0) {
        address_failed(l, status);
        return;
    }
    p->address_tries = 0;
    tune(l);
    l->handshake_sends = 0;
    l->answer_bytes = 0;
    rv = tq_session_init_client(&l->session, &p->limits, &p->registry, &p->key, l->rhel);
    l->has_session = true;
    if (rv == TQ_OK)
        rv = tq_session_start(&l->session, &nothing);
    if (rv != TQ_OK) {
        link_fail(l, LINK_OUT_OF_MEMORY, "cannot begin a handshake: %s", tq_strerror(rv));
        return;
    }
    rv = uv_read_start((uv_stream_t *)&l->tcp, on_alloc, on_read);
    if (rv != 0)
        link_fail(l, LINK_LOST, "cannot read from %s: %s", p->name, uv_strerror(rv));
}

static void connect_to_address(struct link *l)
{
    struct link_peer *p = l->peer;
    int rv = uv_tcp_init(p->loop, &l->tcp);

    if (rv != 0) {
        link_fail(l, LINK_NO_ANSWER, "cannot make a socket: %s", uv_strerror(rv));
        return;
    }
    l->has_tcp = true;
    l->tcp.data = l;
    l->connect.data = l;
    rv = uv_tcp_connect(&l->connect, &l->tcp, (const struct sockaddr *)&p->addresses[p->address_at],
                        on_connected);
    if (rv != 0)
        address_failed(l, rv);
}

static void take_addresses(struct link_peer *p, const struct addrinfo *list)
{
    p->address_count = 0;
    p->address_at = 0;
    for (; list != NULL && p->address_count < LINK_ADDRESSES_MAX; list = list->ai_next)
        if (list->ai_family == AF_INET || list->ai_family == AF_INET6)
            memcpy(&p->addresses[p->address_count++], list->ai_addr, list->ai_addrlen);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct link_peer *p = req->data;
    struct link *l = p->dialing;

    p->resolving = false;
    if (status == 0)
        take_addresses(p, list);
    uv_freeaddrinfo(list);
    if (l == NULL) {
        kick(p);
        return;
    }
    if (l->state == LINK_CLOSING)
        return;
    if (p->address_count == 0)
        link_fail(l, status == UV_EAI_AGAIN ? LINK_NO_ANSWER : LINK_UNKNOWN_HOST,
                  "the host '%s' is unknown (%s): correct --master HOST:PORT", p->host,
                  status != 0 ? uv_strerror(status) : "no address");
    else
        connect_to_address(l);
}

static bool take_numeric_address(struct link_peer *p)
{
    if (uv_ip4_addr(p->host, p->port, (struct sockaddr_in *)(void *)&p->addresses[0]) != 0 &&
        uv_ip6_addr(p->host, p->port, (struct sockaddr_in6 *)(void *)&p->addresses[0]) != 0)
        return false;
    p->address_count = 1;
    p->address_at = 0;
    return true;
}

static void resolve(struct link *l)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct link_peer *p = l->peer;
    char port[8];
    int rv;

    snprintf(port, sizeof(port), "%u", p->port);
    p->resolver.data = p;
    rv = uv_getaddrinfo(p->loop, &p->resolver, on_resolved, p->host, port, &hints);
    if (rv != 0)
        link_fail(l, LINK_NO_ANSWER, "cannot look up the host '%s': %s", p->host, uv_strerror(rv));
    else
        p->resolving = true;
}

/* l is p->dialing, in state DIAL, without a socket. */
static void dial(struct link *l)
{
    struct link_peer *p = l->peer;

    tick_move(p->ticker, &l->tick, LINK_HANDSHAKE_MS, on_tick);
    if (p->address_count > 0 || take_numeric_address(p))
        connect_to_address(l);
    else
        resolve(l);
}

/* Begins the next dial if there is one and it may begin. */
static void kick(struct link_peer *p)
{
    struct link *l = p->queue;

    if (l == NULL || p->dialing != NULL || p->paused || p->resolving)
        return;
    DL_DELETE(p->queue, l);
    p->dialing = l;
    p->address_tries = 0;
    l->state = LINK_DIALING;
    l->rhel = p->rhel;
    l->rhel_other = false;
    dial(l);
}

int link_open(struct link *l, struct link_peer *p, link_event_fn on_event)
{
    int rv;

    TQ_ASSERT(l->state == LINK_IDLE);
    rv = tick_set(p->ticker, &l->tick, TICK_PARKED_MS, on_tick);
    if (rv != TQ_OK)
        return rv;
    l->peer = p;
    l->on_event = on_event;
    l->failure = LINK_FINE;
    l->text[0] = '\0';
    l->redial = false;
    l->state = LINK_QUEUED;
    DL_APPEND(p->queue, l);
    kick(p);
    return TQ_OK;
}

/* ---- the peer ---- */

static void on_pause_over(struct tick *t)
{
    struct link_peer *p = TICK_OWNER(t, struct link_peer, pause);

    p->paused = false;
    tick_park(p->ticker, &p->pause, on_pause_over);
    kick(p);
}

int link_peer_open(struct link_peer *p, uv_loop_t *loop, struct ticker *ticker, const char *host,
                   uint16_t port, struct tq_span key, uint64_t frame_bytes)
{
    *p = (struct link_peer){
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

void link_peer_close(struct link_peer *p)
{
    TQ_ASSERT(p->queue == NULL && p->dialing == NULL);
    tick_clear(p->ticker, &p->pause);
    tq_auth_registry_deinit(&p->registry);
    if (p->resolving)
        (void)uv_cancel((uv_req_t *)&p->resolver);
}

void link_peer_failed(struct link_peer *p)
{
    uint32_t random = 0;

    if (p->paused)
        return;
    /* Without random bytes there is still a pause, only without jitter. */
    (void)tq_random_bytes(&random, sizeof(random));
    p->paused = true;
    tick_move(p->ticker, &p->pause, backoff_next_ms(&p->backoff, random), on_pause_over);
}

void link_peer_works(struct link_peer *p)
{
    backoff_reset(&p->backoff);
}
