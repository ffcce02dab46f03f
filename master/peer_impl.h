/* What peer.c and peer_write.c share. */
#ifndef MASTER_PEER_IMPL_H
#define MASTER_PEER_IMPL_H

#include "master/log/log.h"
#include "master/peer.h"

enum peer_hold {
    PEER_GOES,     /* on its way: the loop tells when the socket has room */
    PEER_FRESH,    /* in server.fresh: what it tells of may be in no record of the log yet */
    PEER_RECORDED, /* in server.recorded: it is in the record of this turn */
    PEER_HELD,     /* in server.held: until the log has got to `need` */
};

struct peer_write {
    struct tq_body *body; /* what is written: this, or buf, or data */
    struct tq_buf buf;
    const uint8_t *at;
    size_t left;
    size_t left_before; /* at the last look of the write deadline */
    struct peer *peer;
    struct peer_write *prev, *next; /* while it is held back */
    struct log_need need;
    uint8_t hold; /* enum peer_hold */
    uint8_t data[];
};

static inline bool peer_is_held(const struct peer *p)
{
    return p->write != NULL && p->write->hold != PEER_GOES;
}

/* Tells the loop what to look for now. */
void peer_watch(struct peer *p);
void peer_close_broken(struct peer *p, int err);
/* A reply of it has gone out: what came behind the request is looked at, and more is read. */
void peer_go_on(struct peer *p);

/* peer_write.c */
void peer_free_write(struct peer *p);
/* The socket has room for what is on its way. */
void peer_write_more(struct peer *p);
void peer_on_write_deadline(struct peer *p);

#endif
