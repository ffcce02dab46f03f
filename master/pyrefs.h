/* Was the end of a Python session a clean exit or a death? A closed socket looks the same in both cases. What
 * tells them apart is what Python does around it (multiprocessing.managers, BaseProxy._decref): to give back
 * the last proxy of a process it opens a connection, sends `decref`, reads the reply, closes the session, and
 * only then drops that connection. So the session that left cleanly is the one that ended between the answer
 * to a decref and the end of that decref's own connection, seen from one address; the latest one if there are
 * several. While such a connection is open, sessions that end are in limbo; without one, a session that ends
 * has died, and that is known at once.
 *
 * Not every decref is a farewell: making a proxy sends create, incref, decref. A decref that may be the last
 * step of such a row is a doubtful farewell; a session that ended amid it is a suspect: cleared if one decref
 * more than the rows explain follows, dead if none does within PYREFS_ROW_MS.
 *
 * Who is judged at all (name is what accept_connection announces):
 *   MainProcess            always: it gives its proxies back when it exits
 *   ForkProcess-1          always, for the same reason
 *   SpawnProcess-1, ForkServerProcess-1   never: with proxies from its parent such a child neither increfs
 *                          nor decrefs, so nothing tells its end apart
 *   Process-1, other names if it was forked: if shortly before it an incref without a create came from there
 *   NAME|Thread-1          never: a thread that ends closes its session without a decref
 *   ...PoolWorker-N        never: pools kill their workers as a matter of course
 * Who is not judged counts as having left cleanly, because a well-behaved program must never see an item
 * twice.
 *
 * Pure: the clock is passed in. One loop thread. */
#ifndef MASTER_PYREFS_H
#define MASTER_PYREFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* To make a proxy takes create, incref, decref, within milliseconds; a row that stays unfinished for longer
 * died with its process. */
#define PYREFS_ROW_MS 2000
/* A forked child takes its references when it starts; it is known as such if it calls within this time. */
#define PYREFS_FORK_MS 5000

struct pyrefs_addr {
    uint8_t bytes[16]; /* IPv6, or IPv4 mapped into it */
};

struct pyref;       /* one (address, object) */
struct pyrefs_host; /* one address */

struct pyrefs {
    struct pyref *table;       /* hash */
    struct pyref *oldest;      /* in order of last use, for the ceiling */
    struct pyrefs_host *hosts; /* hash: addresses with an open farewell */
    struct pyrefs_host *ended; /* where a farewell has just ended */
    size_t count;
    size_t max;
    uint64_t order; /* of what happened */
};

enum pyrefs_class {
    PYREFS_MAIN, /* also a child that says it was forked */
    PYREFS_CHILD,
    PYREFS_SPAWNED,
    PYREFS_THREAD,
    PYREFS_POOL
};

/* The part of it that a session carries. pyrefs_session_open sets it up. */
struct pyrefs_session {
    struct pyrefs_session *prev, *next; /* limbo */
    struct pyrefs_host *limbo;          /* in its limbo; or NULL */
    struct pyref *suspect_of;           /* ended amid a doubtful farewell; or NULL */
    struct pyrefs_session *suspect_prev, *suspect_next;
    uint64_t ended_at; /* in pyrefs.order */
    uint8_t kind;      /* enum pyrefs_class */
    bool judged;
    bool cleared; /* in limbo: a farewell was its own */
    bool asked;   /* it was looked whether it is a forked child */
};

/* The part that the connection of an answered decref carries, until it ends. */
struct pyrefs_farewell {
    struct pyrefs_farewell *prev, *next;
    struct pyrefs_host *host; /* NULL: not listed */
    struct pyref *doubtful;   /* it may be the last step of a row of this object */
    uint64_t answered_at;
};

enum pyrefs_verdict {
    PYREFS_LEFT, /* cleanly, or not judged */
    PYREFS_DIED,
    PYREFS_UNSURE, /* in limbo: pyrefs_next_decided will bring it */
};

void pyrefs_init(struct pyrefs *r, size_t max_entries);
void pyrefs_deinit(struct pyrefs *r);

enum pyrefs_class pyrefs_classify(const void *name, size_t len);

/* Requests as they arrive. Without memory they do nothing: a forked child is not judged then. */
void pyrefs_create(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms);
void pyrefs_incref(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms);

/* A decref has been answered; its connection stays open until the client closes it. TQ_ENOMEM: it is not
 * listed, and its session will count as dead. Then ask pyrefs_next_decided until it gives NULL: the decref
 * may have cleared a suspect. */
int pyrefs_farewell_begin(struct pyrefs *r, struct pyrefs_farewell *f, const struct pyrefs_addr *addr,
                          uint64_t object, uint64_t now_ms);
/* That connection has ended, or lasted too long. Fine when it is not listed. Gives the session that is a
 * suspect from now on, or NULL: it died if nothing has cleared it PYREFS_ROW_MS later. Then ask
 * pyrefs_next_decided until it gives NULL. */
struct pyrefs_session *pyrefs_farewell_end(struct pyrefs *r, struct pyrefs_farewell *f);
/* The next session whose limbo is over: out of it, with its verdict (LEFT or DIED). */
struct pyrefs_session *pyrefs_next_decided(struct pyrefs *r, enum pyrefs_verdict *ret_verdict);

void pyrefs_session_open(struct pyrefs_session *s, enum pyrefs_class kind);
/* The session called a method of the object. */
void pyrefs_session_use(struct pyrefs *r, struct pyrefs_session *s, const struct pyrefs_addr *addr,
                        uint64_t object, uint64_t now_ms);
/* The session's socket has ended. */
enum pyrefs_verdict pyrefs_session_end(struct pyrefs *r, struct pyrefs_session *s,
                                       const struct pyrefs_addr *addr);
/* Takes a session out of its limbo (a suspect's time is over, the daemon stops); fine when it is in none. */
void pyrefs_session_forget(struct pyrefs *r, struct pyrefs_session *s);

#endif
