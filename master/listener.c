#include "master/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#define BACKLOG    65535 /* the kernel cuts it to its own limit; a small one makes clients hang */
#define ACCEPT_MAX 256u  /* in one turn of the loop */

static int last_error(void)
{
    return uv_translate_sys_error(errno);
}

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* No descriptor is left: the connection is taken and closed, or it would wait for ever, and so would we.
 * False: there was none; the kernel does not look for one before it has a descriptor. */
static bool refuse_one(struct listener *l)
{
    int fd;

    if (l->spare_fd >= 0)
        (void)close(l->spare_fd);
    fd = accept(l->fd, NULL, NULL);
    if (fd >= 0)
        (void)close(fd);
    l->spare_fd = open_spare();
    return fd >= 0;
}

/* False: there is none, or none can be accepted for now. */
static bool accept_one(struct listener *l)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    int fd = accept4(l->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int err;

    if (fd >= 0 && l->fd_limit > 0 && fd >= l->fd_limit) { /* the lowest free one: all below are in use */
        (void)close(fd);
        l->on_error(l->ctx, UV_EMFILE);
        return true;
    }
    if (fd >= 0) {
        l->on_connection(l->ctx, fd, &from);
        return true;
    }
    switch (errno) {
    case EAGAIN:
        return false;
    case EINTR:
    case ECONNABORTED: /* it has gone already */
        return true;
    case EMFILE:
    case ENFILE:
        err = last_error();
        if (!refuse_one(l))
            return false;
        l->on_error(l->ctx, err);
        return true;
    default:
        l->on_error(l->ctx, last_error());
        return false;
    }
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct listener *l = poll->data;

    (void)events;
    if (status < 0) { /* libuv has stopped looking */
        l->on_error(l->ctx, status);
        (void)uv_poll_start(poll, UV_READABLE, on_ready);
    }
    for (unsigned i = 0; i < ACCEPT_MAX && l->fd >= 0; i++) /* a callback may close it */
        if (!accept_one(l))
            return;
}

static int open_socket(const struct sockaddr_storage *at)
{
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1, off = 0;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        (at->ss_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0))
        return fd;
    (void)close(fd);
    return -1;
}

static socklen_t size_of(const struct sockaddr_storage *at)
{
    return at->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

int listener_open(struct listener *l, uv_loop_t *loop, struct sockaddr_storage *at)
{
    socklen_t len = sizeof(*at);
    int rv;

    l->spare_fd = -1;
    l->fd = open_socket(at);
    if (l->fd < 0)
        return last_error();
    if (bind(l->fd, (const struct sockaddr *)at, size_of(at)) != 0 || listen(l->fd, BACKLOG) != 0 ||
        getsockname(l->fd, (struct sockaddr *)at, &len) != 0)
        rv = last_error();
    else
        rv = uv_poll_init(loop, &l->poll, l->fd);
    if (rv != 0) {
        (void)close(l->fd);
        l->fd = -1;
        return rv;
    }
    l->poll.data = l;
    l->spare_fd = open_spare();
    return uv_poll_start(&l->poll, UV_READABLE, on_ready); /* cannot fail: uv_poll_init has tried it */
}

void listener_close(struct listener *l)
{
    if (l->fd < 0)
        return;
    uv_close((uv_handle_t *)&l->poll, NULL);
    (void)close(l->fd);
    l->fd = -1;
    if (l->spare_fd >= 0)
        (void)close(l->spare_fd);
    l->spare_fd = -1;
}
