/* A listening socket on the loop. Connections that are accepted are its owner's, as descriptors: libuv's own
 * accept would bind each to a stream, which is larger than all that an idle worker needs besides. */
#ifndef MASTER_LISTENER_H
#define MASTER_LISTENER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

struct listener {
    uv_poll_t poll;
    /* Takes the descriptor over, which does not block and is closed on exec. */
    void (*on_connection)(void *ctx, int take_fd, const struct sockaddr_storage *from);
    /* One could not be accepted; err is a UV_E... */
    void (*on_error)(void *ctx, int err);
    void *ctx;
    int fd;
    int fd_limit; /* connections get no descriptor from this one on: those are for others; 0: all */
    int spare_fd; /* given up for a moment, to accept and close what there is no descriptor for */
};

/* Listens on an address; *at becomes the one that it got. 0, or UV_E...: nothing is open then. The callbacks,
 * ctx and fd_limit are set before. */
int listener_open(struct listener *l, uv_loop_t *loop, struct sockaddr_storage *at);
void listener_close(struct listener *l); /* repeatable */

#endif
