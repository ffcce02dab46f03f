/* A native peer: carries the dialect of master/native on a connection. Requests go in as they come, many out
 * of one read; output is written once a turn of the loop, in one write. */
#ifndef MASTER_NATIVE_PEER_H
#define MASTER_NATIVE_PEER_H

#include "master/peer.h"

/* One request frame; the first one makes it a native peer. May close it. */
void native_peer_frame(struct peer *p, struct tq_span frame);
/* The following are fine for peers that are no native ones. */
/* Bytes came, and their frames have been looked at. */
void native_peer_read(struct peer *p);
/* Writes what there is now, without waiting for the end of the turn. May close the peer. */
void native_peer_flush(struct peer *p);
/* What was on its way has been written. May close the peer. */
void native_peer_sent(struct peer *p);
/* The socket is gone. */
void native_peer_closed(struct peer *p);
void native_peer_free(struct peer *p);
/* The other side sends nothing more, but waits for a reply that is held back; and nothing else of it waits.
 */
bool native_peer_lingers(const struct peer *p);
/* Something is still to be written. */
bool native_peer_is_pending(const struct peer *p);
/* For native peers only: see peer_rights_changed. */
void native_peer_rights_changed(struct peer *p);
/* For native peers only: may the next request come? */
bool native_peer_wants_input(const struct peer *p);

/* Once a turn of the loop, behind everything that may have made output. */
void native_peer_flush_all(struct server *s);
/* All that was there then is in a record of the log that is met by `need`. */
void native_peer_settle(struct server *s, struct log_need need);
/* The dialect on this server (server.native). TQ_ENOMEM. */
int native_peer_open(struct server *s);
void native_peer_close(struct server *s);

#endif
