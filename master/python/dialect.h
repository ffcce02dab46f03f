/* Python's manager protocol on a peer: control requests, sessions, and replies from effects. */
#ifndef MASTER_PYTHON_DIALECT_H
#define MASTER_PYTHON_DIALECT_H

#include "master/peer.h"

/* One request frame. May close the peer. */
void pydialect_frame(struct peer *p, struct tq_span frame);
/* The rest is fine for peers that have no Python session. */
/* A reply has reached the socket. */
void pydialect_written(struct peer *p);
/* Does a call of it wait for its reply? */
bool pydialect_waits(const struct peer *p);
/* What accept_connection announced, for the log; NULL: nothing. */
const char *pydialect_name(const struct peer *p);
/* See peer_rights_changed. */
void pydialect_rights_changed(struct peer *p);
/* The peer's socket is gone: ends its broker session, or puts the peer into limbo (true). */
bool pydialect_closed(struct peer *p);
/* Ends a limbo: what the peer holds is acknowledged or returned, then its memory may go. */
void pydialect_limbo_over(struct peer *p, enum broker_close_mode mode);
void pydialect_free(struct peer *p);

#endif
