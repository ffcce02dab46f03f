/* Replies of a peer on their way to its socket; with a log (server.durable) they are held back until what
 * they tell of is in it. */
#include <errno.h>
#include <sys/socket.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/native_peer.h"
#include "master/peer_impl.h"
#include "master/python/dialect.h"
#include "master/durable.h"

/* ---- writing ---- */

static void leave_list(struct server *s, struct peer_write *w)
{
    if (w->hold == PEER_FRESH)
        DL_DELETE(s->fresh, w);
    else if (w->hold == PEER_RECORDED)
        DL_DELETE(s->recorded, w);
    else if (w->hold == PEER_HELD)
        DL_DELETE(s->held, w);
    w->hold = PEER_GOES;
}

void peer_free_write(struct peer *p)
{
    struct peer_write *w = p->write;

    if (w == NULL)
        return;
    p->write = NULL;
    leave_list(p->server, w);
    tq_body_unref(w->body);
    native_give_back(p->server->native, &w->buf);
    tq_free(w);
}

static void written(struct peer *p)
{
    pydialect_written(p);
    if (p->close_after_write)
        peer_close(p, "answered");
}

/* All that was on its way is written. */
static void on_sent(struct peer *p)
{
    peer_free_write(p);
    if (p->state == PEER_SESSION)
        tq_deadline_clear(&p->server->deadlines, &p->deadline);
    native_peer_sent(p); /* may write what has come in meanwhile */
    if (p->state < PEER_LIMBO && p->write == NULL)
        written(p);
    if (p->state >= PEER_LIMBO)
        return;
    peer_go_on(p);
    server_peer_gone(p->server); /* a stop may have waited for this reply */
}

int peer_try_write(struct peer *p, struct tq_span bytes)
{
    ssize_t n;

    do
        n = send(p->fd, bytes.data, bytes.len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return (int)n; /* the kernel takes less than 2 GiB at once */
    if (errno == EAGAIN || errno == ENOBUFS)
        return 0;
    n = uv_translate_sys_error(errno);
    peer_close_broken(p, (int)n);
    return (int)n;
}

/* False: some of it is left. */
static bool write_some(struct peer *p)
{
    struct peer_write *w = p->write;
    int n = peer_try_write(p, tq_span(w->at, w->left));

    if (n < 0)
        return true;
    w->at += n;
    w->left -= (size_t)n;
    if (w->left > 0)
        return false;
    on_sent(p);
    return true;
}

void peer_write_more(struct peer *p)
{
    (void)write_some(p);
}

/* The rest goes when the socket has room. */
static void await_room(struct peer *p)
{
    p->write->left_before = p->write->left;
    peer_watch(p);
    if (p->state == PEER_SESSION || (p->state == PEER_FIRST && p->server->durable != NULL))
        peer_set_deadline(p, p->server->config->limits.write_timeout_ms);
}

void peer_on_write_deadline(struct peer *p)
{
    if (p->write != NULL && p->write->left < p->write->left_before) {
        p->write->left_before = p->write->left;
        peer_set_deadline(p, p->server->config->limits.write_timeout_ms);
        return;
    }
    p->server->counters.write_timeouts++;
    tq_log(TQ_LOG_WARN, "PEER-NOT-READING", "peer=%s: it reads nothing of its reply; closed", peer_text(p));
    peer_close(p, "it reads nothing of its reply");
}

/* ---- sending ---- */

/* A write with nothing in it yet but `copy` bytes of room, and of what will be written from `at` (NULL: that
 * room) on `left` bytes. NULL: the peer is closed. */
static struct peer_write *begin_write(struct peer *p, size_t copy, const uint8_t *at, size_t left)
{
    struct peer_write *w = tq_malloc(sizeof(*w) + copy);

    TQ_ASSERT(p->write == NULL);
    if (w == NULL) {
        peer_close(p, "out of memory");
        return NULL;
    }
    w->body = NULL;
    w->buf = (struct tq_buf){0};
    w->at = at != NULL ? at : w->data;
    w->left = left;
    w->peer = p;
    w->hold = PEER_GOES;
    p->write = w;
    return w;
}

/* What the socket did not take, or is not to have yet: from `offset` of bytes or body. False: the peer is
 * closed. */
static bool keep_rest(struct peer *p, struct tq_span all, size_t offset, struct tq_body *take_body)
{
    size_t left = all.len - offset;
    size_t copy = take_body == NULL ? left : 0;
    struct peer_write *w = begin_write(p, copy, take_body == NULL ? NULL : take_body->data + offset, left);

    if (w == NULL) {
        tq_body_unref(take_body);
        return false;
    }
    w->body = take_body;
    if (copy > 0)
        memcpy(w->data, all.data + offset, copy);
    return true;
}

static bool keep_buf(struct peer *p, struct tq_buf *take_buf, size_t offset)
{
    struct peer_write *w = begin_write(p, 0, take_buf->data + offset, take_buf->len - offset);

    if (w == NULL) {
        native_give_back(p->server->native, take_buf);
        return false;
    }
    w->buf = *take_buf;
    *take_buf = (struct tq_buf){.max = w->buf.max};
    return true;
}

/* It is neither tried nor watched for before peer_release_met. */
static void hold(struct peer *p, enum peer_hold how)
{
    struct server *s = p->server;

    p->write->hold = (uint8_t)how;
    if (how == PEER_FRESH)
        DL_APPEND(s->fresh, p->write);
    else
        DL_APPEND(s->held, p->write);
    tq_deadline_clear(&p->server->deadlines, &p->deadline);
    peer_watch(p);
}

bool peer_must_hold(const struct peer *p)
{
    const struct server *s = p->server;

    return s->durable != NULL && !peer_is_half_open(p) && !durable_may_reply(s);
}

void peer_send_rest(struct peer *p, struct tq_buf *take_buf, size_t offset)
{
    if (keep_buf(p, take_buf, offset))
        await_room(p);
}

void peer_send_held(struct peer *p, struct tq_buf *take_buf, const struct log_need *need)
{
    if (!keep_buf(p, take_buf, 0))
        return;
    if (need != NULL)
        p->write->need = *need;
    hold(p, need != NULL ? PEER_HELD : PEER_FRESH);
}

bool peer_send(struct peer *p, struct tq_span bytes, struct tq_body *take_body)
{
    struct tq_span all = take_body != NULL ? tq_span(take_body->data, take_body->len) : bytes;
    int n;

    TQ_ASSERT(p->write == NULL);
    if (peer_must_hold(p)) {
        if (keep_rest(p, all, 0, take_body))
            hold(p, PEER_FRESH);
        return false;
    }
    n = peer_try_write(p, all);
    if (n < 0) {
        tq_body_unref(take_body);
        return false;
    }
    if ((size_t)n < all.len) {
        if (keep_rest(p, all, (size_t)n, take_body))
            await_room(p);
        return false;
    }
    tq_body_unref(take_body);
    return true;
}

/* ---- what is held back ---- */

void peer_record_fresh(struct server *s, struct log_need need)
{
    struct peer_write *w;

    TQ_ASSERT(s->recorded == NULL);
    DL_FOREACH(s->fresh, w)
    {
        w->need = need;
        w->hold = PEER_RECORDED;
    }
    s->recorded = s->fresh;
    s->fresh = NULL;
}

void peer_hold_recorded(struct server *s)
{
    struct peer_write *w;

    DL_FOREACH(s->recorded, w)
    {
        w->hold = PEER_HELD;
    }
    DL_CONCAT(s->held, s->recorded);
    s->recorded = NULL;
}

void peer_release_met(struct server *s)
{
    while (s->held != NULL && durable_is_met(s, s->held->need)) {
        struct peer_write *w = s->held;
        struct peer *p = w->peer;

        leave_list(s, w);
        if (!write_some(p) && p->state < PEER_LIMBO)
            await_room(p);
    }
}
