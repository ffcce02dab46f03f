#include "client/ctl/link.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"

#define OUT_MAX_BYTES   INT32_MAX
#define FRAME_MAX_BYTES (UINT64_C(1) << 30)
#define BYE_MS          1000

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

__attribute__((format(printf, 4, 5))) static int fail(struct link *l, int rv, const char *code,
                                                      const char *fmt, ...)
{
    va_list ap;

    if (l->leaving)
        return rv;
    snprintf(l->code, sizeof(l->code), "%s", code);
    va_start(ap, fmt);
    vsnprintf(l->text, sizeof(l->text), fmt, ap);
    va_end(ap);
    return rv;
}

static int out_of_memory(struct link *l)
{
    return fail(l, TQ_ENOMEM, "memory", "out of memory");
}

/* ---- bytes ---- */

/* 0: ready; 1: `until_ms` is over; negative: told. */
static int wait_for(struct link *l, short events, uint64_t until_ms)
{
    for (;;) {
        struct pollfd p = {.fd = l->fd, .events = events};
        uint64_t now = now_ms();
        uint64_t left = until_ms > now ? until_ms - now : 0;
        int n;

        if (left == 0)
            return 1;
        n = poll(&p, 1, left < 60000 ? (int)left : 60000);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return fail(l, TQ_EIO, "io", "poll failed: %s", strerror(errno));
    }
}

static int lost(struct link *l)
{
    if (errno == 0)
        return fail(l, TQ_ECLOSED, "no_connection", "%s closed the connection: has it been stopped?",
                    l->name);
    return fail(l, TQ_ECLOSED, "no_connection", "the connection to %s broke: %s", l->name, strerror(errno));
}

static int silent(struct link *l)
{
    return fail(l, TQ_ETIMEDOUT, "timeout",
                "%s has said nothing for %llu s: is it stopped, or the network cut? (--timeout)", l->name,
                (unsigned long long)(l->timeout_ms + 999) / 1000);
}

static int send_all(struct link *l, struct tq_span s)
{
    uint64_t until_ms = now_ms() + l->timeout_ms;

    while (s.len > 0) {
        ssize_t n = send(l->fd, s.data, s.len, MSG_NOSIGNAL);
        int rv;

        if (n >= 0) {
            s = tq_span(s.data + n, s.len - (size_t)n);
            until_ms = now_ms() + l->timeout_ms; /* it takes something */
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            return lost(l);
        rv = wait_for(l, POLLOUT, until_ms);
        if (rv != 0)
            return rv < 0 ? rv : silent(l);
    }
    return TQ_OK;
}

/* Some bytes behind those that are there; 1: not until then. */
static int receive(struct link *l, uint64_t until_ms)
{
    if (l->in_at == l->in_len)
        l->in_at = l->in_len = 0;
    for (;;) {
        ssize_t n = recv(l->fd, l->in + l->in_len, sizeof(l->in) - l->in_len, 0);
        int rv;

        if (n > 0) {
            l->in_len += (size_t)n;
            l->heard_ms = now_ms();
            return TQ_OK;
        }
        if (n == 0) {
            errno = 0;
            return lost(l);
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            return lost(l);
        rv = wait_for(l, POLLIN, until_ms);
        if (rv != 0)
            return rv;
    }
}

/* The next event but MORE. 1: not until then. */
static int next_event(struct link *l, uint64_t until_ms, struct tq_session_event *ev)
{
    for (;;) {
        struct tq_span in = tq_span(l->in + l->in_at, l->in_len - l->in_at);
        int rv;

        tq_session_next(&l->session, &in, ev);
        l->in_at = l->in_len - in.len;
        if (ev->kind != TQ_SESSION_MORE)
            return TQ_OK;
        rv = receive(l, until_ms);
        if (rv != TQ_OK)
            return rv;
    }
}

/* ---- dialing ---- */

static int dial(struct link *l, const struct addrinfo *a, uint64_t until_ms)
{
    int err = 0, on = 1;
    socklen_t len = sizeof(err);

    l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return -errno;
    if (connect(l->fd, a->ai_addr, a->ai_addrlen) != 0) {
        if (errno != EINPROGRESS && errno != EINTR)
            err = errno;
        else if (wait_for(l, POLLOUT, until_ms) != 0)
            err = ETIMEDOUT;
        else if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
            err = errno;
    }
    if (err != 0) {
        (void)close(l->fd);
        l->fd = -1;
        return -err;
    }
    (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

static int connect_any(struct link *l, const struct link_conf *conf, uint64_t until_ms)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char port[8];
    int rv;

    snprintf(port, sizeof(port), "%u", conf->port);
    rv = getaddrinfo(conf->host, port, &hints, &list);
    if (rv != 0)
        return fail(l, TQ_ENOTFOUND, "no_connection", "the host %s is not known (%s): check --master",
                    conf->host, gai_strerror(rv));
    rv = -EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a != NULL && rv != 0; a = a->ai_next)
        rv = dial(l, a, until_ms);
    freeaddrinfo(list);
    if (rv == -ECONNREFUSED)
        return fail(l, TQ_ECLOSED, "no_connection",
                    "nothing listens on %s (connection refused): start task-master, or give its address by "
                    "--master",
                    l->name);
    if (rv != 0)
        return fail(l, TQ_ECLOSED, "no_connection",
                    "cannot connect to %s (%s): check --master and the network", l->name, strerror(-rv));
    return TQ_OK;
}

static int handshake_failed(struct link *l, int err, unsigned sends)
{
    if (err == TQ_EAUTH && sends == 1)
        return fail(l, err, "bad_key",
                    "%s refused the key: give the master's key by --authkey-file, --authkey or TASKQ_AUTHKEY",
                    l->name);
    if (err == TQ_EAUTH)
        return fail(l, err, "bad_key",
                    "%s does not know the key itself: it is not your task-master; check --master", l->name);
    if (err == TQ_ENOMEM)
        return out_of_memory(l);
    return fail(l, TQ_EPROTO, "bad_peer", "%s is no task-master (%s): check --master", l->name,
                tq_strerror(err));
}

static int handshake(struct link *l, uint64_t until_ms)
{
    struct tq_session_event ev;
    struct tq_span nothing;
    unsigned sends = 0;
    int rv = tq_session_init_client(&l->session, &l->limits, &l->registry, &l->key, false);

    l->has_session = true;
    if (rv == TQ_OK)
        rv = tq_session_start(&l->session, &nothing);
    if (rv != TQ_OK)
        return handshake_failed(l, rv, 0);
    do {
        rv = next_event(l, until_ms, &ev);
        if (rv == 1)
            return fail(l, TQ_ETIMEDOUT, "timeout",
                        "%s does not answer (no handshake within %llu s): is a task-master running there?",
                        l->name, (unsigned long long)(l->timeout_ms + 999) / 1000);
        if (rv != TQ_OK)
            return rv;
        if (ev.send.len > 0) {
            sends++;
            rv = send_all(l, ev.send);
            if (rv != TQ_OK && ev.kind != TQ_SESSION_FAIL)
                return rv;
        }
        if (ev.kind == TQ_SESSION_FAIL)
            return handshake_failed(l, ev.err, sends);
    } while (ev.kind != TQ_SESSION_OPEN);
    return TQ_OK;
}

/* ---- requests ---- */

static uint32_t new_msgid(struct link *l)
{
    if (++l->msgid == 0)
        l->msgid = 1;
    return l->msgid;
}

void link_begin(struct link *l, struct tq_native_request *r, const char *method, uint32_t pairs)
{
    tq_buf_clear(&l->out);
    tq_native_request_begin(r, &l->out, new_msgid(l), method, pairs);
}

/* Text of a master, as one printable line. */
static void take_words(struct link *l, struct tq_span code, struct tq_span text)
{
    char quoted[LINK_TEXT_MAX];

    tq_log_quote(l->code, sizeof(l->code), code.data, code.len);
    tq_log_quote(quoted, sizeof(quoted), text.data, text.len);
    snprintf(l->text, sizeof(l->text), "%s", quoted);
}

/* Something that is not the reply. 0: go on. */
static int take_other(struct link *l, const struct tq_native_message *m)
{
    struct tq_span code, text;
    char quoted[400];

    if (m->kind != TQ_NATIVE_NOTICE) {
        if (l->ping_msgid == 0 || m->msgid != l->ping_msgid)
            return fail(l, TQ_EPROTO, "bad_peer", "%s sent a reply that nobody asked for", l->name);
        l->ping_msgid = 0;
        return TQ_OK;
    }
    if (!tq_span_is(m->method, "error"))
        return TQ_OK; /* a bye is followed by the end of the connection */
    tq_native_read_words(m->body, &code, &text);
    tq_log_quote(quoted, sizeof(quoted), text.data, text.len);
    return fail(l, TQ_EPROTO, "bad_peer", "%s could not read us: %s", l->name, quoted);
}

/* When there is to be some sign of life; asks for one if nothing has been heard for half of the time. */
static int keep_asking(struct link *l, uint64_t *ret_until_ms)
{
    uint64_t now = now_ms(), half_ms = l->timeout_ms / 2;
    int rv;

    if (now >= l->heard_ms + l->timeout_ms)
        return silent(l);
    if (now >= l->heard_ms + half_ms && l->ping_msgid == 0) {
        l->ping_msgid = new_msgid(l);
        tq_buf_clear(&l->out);
        if (tq_native_put_plain(&l->out, l->ping_msgid, "ping") != TQ_OK)
            return out_of_memory(l);
        rv = send_all(l, tq_buf_span(&l->out));
        if (rv != TQ_OK)
            return rv;
    }
    *ret_until_ms = l->heard_ms + (l->ping_msgid == 0 ? half_ms : l->timeout_ms);
    return TQ_OK;
}

static int read_reply(struct link *l, uint32_t msgid, struct tq_span *ret_body)
{
    struct tq_session_event ev;
    struct tq_native_message m;
    const char *why = "";
    uint64_t until_ms = 0;
    int rv;

    for (;;) {
        rv = keep_asking(l, &until_ms);
        if (rv != TQ_OK)
            return rv;
        rv = next_event(l, until_ms, &ev);
        if (rv == 1)
            continue;
        if (rv != TQ_OK)
            return rv;
        if (ev.kind == TQ_SESSION_FAIL)
            return fail(l, ev.err, "bad_peer", "%s sent a reply that cannot be read (%s)", l->name,
                        tq_strerror(ev.err));
        if (ev.kind != TQ_SESSION_FRAME)
            continue;
        if (tq_native_read(&m, ev.frame, &why) != TQ_OK)
            return fail(l, TQ_EPROTO, "bad_peer", "%s sent a message that cannot be read (%s)", l->name, why);
        if (m.kind == TQ_NATIVE_NOTICE || m.msgid != msgid) {
            rv = take_other(l, &m);
            if (rv != TQ_OK)
                return rv;
            continue;
        }
        if (m.kind == TQ_NATIVE_ERROR) {
            take_words(l, m.code, m.text);
            return 1;
        }
        *ret_body = m.body;
        return TQ_OK;
    }
}

int link_call(struct link *l, struct tq_native_request *r, struct tq_span *ret_body)
{
    uint32_t msgid = l->msgid;
    int rv = tq_native_request_end(r);

    if (rv != TQ_OK)
        return rv == TQ_ENOMEM ? out_of_memory(l)
                               : fail(l, rv, "bad_request", "the request is too long: %s", tq_strerror(rv));
    rv = send_all(l, tq_buf_span(&l->out));
    if (rv != TQ_OK)
        return rv;
    l->heard_ms = now_ms(); /* the silence counts from here */
    return read_reply(l, msgid, ret_body);
}

static int hello(struct link *l, const struct link_conf *conf)
{
    struct tq_native_hello h = {.client = tq_span_str(conf->client)};
    struct tq_native_welcome w;
    const char *why = "";
    struct tq_span body = {0};
    uint32_t msgid = new_msgid(l);
    int rv;

    tq_buf_clear(&l->out);
    if (tq_native_put_hello(&l->out, msgid, &h) != TQ_OK)
        return out_of_memory(l);
    rv = send_all(l, tq_buf_span(&l->out));
    if (rv != TQ_OK)
        return rv;
    l->heard_ms = now_ms();
    rv = read_reply(l, msgid, &body);
    if (rv == 1)
        return TQ_ECLOSED; /* refused: code and text are the master's */
    if (rv == TQ_ECLOSED || rv == TQ_EPROTO)
        return fail(l, TQ_EPROTO, "bad_peer",
                    "%s knows the key, but does not answer as a task-master: is it Python's own manager?",
                    l->name);
    if (rv != TQ_OK)
        return rv;
    if (tq_native_read_welcome(&w, body, &why) != TQ_OK)
        return fail(l, TQ_EPROTO, "bad_peer", "%s sent a reply that cannot be read (%s)", l->name, why);
    tq_log_quote(l->server, sizeof(l->server), w.server.data, w.server.len);
    tq_log_quote(l->key_name, sizeof(l->key_name), w.key.data, w.key.len);
    tq_log_quote(l->role, sizeof(l->role), w.role.data, w.role.len);
    l->max_batch = w.max_batch;
    l->max_frame_bytes = w.max_frame_bytes;
    return TQ_OK;
}

/* ---- the beginning and the end ---- */

int link_open(struct link *l, const struct link_conf *conf)
{
    uint64_t until_ms = now_ms() + conf->timeout_ms;
    int rv;

    memset(l, 0, offsetof(struct link, in));
    l->fd = -1;
    l->code[0] = l->text[0] = l->server[0] = l->key_name[0] = l->role[0] = '\0';
    l->timeout_ms = conf->timeout_ms;
    l->limits = (struct tq_session_limits){TQ_AUTH_FRAME_MAX_BYTES, 6, FRAME_MAX_BYTES};
    l->key = (struct tq_auth_key){.secret = conf->key, .name = "authkey"};
    snprintf(l->name, sizeof(l->name), strchr(conf->host, ':') != NULL ? "[%s]:%u" : "%s:%u", conf->host,
             conf->port);
    tq_buf_init(&l->out, OUT_MAX_BYTES);
    tq_auth_registry_init(&l->registry);
    rv = connect_any(l, conf, until_ms);
    if (rv == TQ_OK)
        rv = handshake(l, until_ms);
    if (rv == TQ_OK)
        rv = hello(l, conf);
    return rv;
}

/* Until the master closes: closing over its answer would look to it like a broken connection. */
static void take_leave(struct link *l)
{
    uint64_t until_ms = now_ms() + BYE_MS;

    l->leaving = true;
    if (send_all(l, tq_buf_span(&l->out)) != TQ_OK)
        return;
    do
        l->in_at = l->in_len = 0;
    while (receive(l, until_ms) == TQ_OK);
}

void link_close(struct link *l)
{
    if (l->has_session && l->session.open && !l->session.failed) {
        tq_buf_clear(&l->out);
        if (tq_native_put_plain(&l->out, new_msgid(l), "bye") == TQ_OK)
            take_leave(l);
    }
    if (l->has_session)
        tq_session_deinit(&l->session);
    l->has_session = false;
    if (l->fd >= 0)
        (void)close(l->fd);
    l->fd = -1;
    tq_buf_deinit(&l->out);
    tq_auth_registry_deinit(&l->registry);
}
