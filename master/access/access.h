/* Who may do what in a running master: its keys, the one check that every call passes, and the change of keys
 * while it runs. */
#ifndef MASTER_ACCESS_ACCESS_H
#define MASTER_ACCESS_ACCESS_H

#include "master/access/keys.h"
#include "master/server.h"

#define ACCESS_TEXT_MAX 640

/* Reads the keys. Negative with cause and remedy in err. */
int access_open(struct server *s, char err[TQ_OPT_ERROR_MAX]);
void access_close(struct server *s);
/* May the keys protect this address, which is none of the loopback's? TQ_EINVAL with cause and remedy. */
int access_check_address(const struct config *c, const struct keys *k, const char *address,
                         char err[TQ_OPT_ERROR_MAX]);
/* Says which keys there are, and which of them are weak. */
void access_banner(const struct server *s);

/* May the peer do `verb`, which takes `right` (keys.h says which)? `queue` is NULL for what needs none. If
 * not: it is counted and logged, and text says who may not do what, and the remedy. It is cheap: a peer's
 * last queues are remembered until server.rights_epoch changes. */
bool access_allowed(struct peer *p, enum key_right right, const char *verb, const struct broker_queue *queue,
                    char text[ACCESS_TEXT_MAX]);
/* The same for a queue that is not there (yet): a valid name. */
bool access_allowed_name(struct peer *p, enum key_right right, const char *verb, const char *name,
                         char text[ACCESS_TEXT_MAX]);
/* All rights of the peer there, as bits of enum key_right. Neither counts nor logs. */
unsigned access_rights(struct peer *p, const struct broker_queue *queue);

/* Reads the keys again. If the files cannot be used, the old keys stay, and one line says why. Else, in this
 * order, each step for all peers:
 *   1. peer.session.key_index is the new index; who has no key any more is marked `revoked`
 *   2. peer_rights_changed: waits of the revoked end, and those that others may not make any more
 *   3. server.on_keys_moved: what is kept under a key without a connection
 *   4. peer_kill of the revoked: what they hold goes back to the front
 * Nobody else is touched. */
void access_reload(struct server *s);

#endif
