/* Was the end of a Python session a clean exit or a death? A closed socket looks the same in both cases. What
 * tells them apart is what Python does before it (multiprocessing.managers, BaseProxy._decref): it gives back
 * the proxies of a process, one `decref` each, reads the replies, and closes the session with the last one.
 * So that it is known whose proxy came back, each `create` is answered with an ident of its own, which all
 * requests of that proxy carry: its first decref ends its creation (create, incref, decref), every later one
 * is a farewell. A session that ends while it holds an item, taken through a proxy that was given back, has
 * left; otherwise it has died. Both are known at once, but for one case: the garbage collector may close the
 * session while the decref of the proxy that took the item is still on its way; it has connected by then. So,
 * while connections of that address have not said yet what they want, a death is believed only after
 * PYREFS_WAIT_MS.
 *
 * Who is judged at all (name is what accept_connection announces):
 *   MainProcess            always: it gives its proxies back when it exits
 *   ForkProcess-1          always, for the same reason
 *   SpawnProcess-1, ForkServerProcess-1   never: with proxies from its parent such a child neither increfs
 * nor decrefs, so nothing tells its end apart Process-1, other names if the proxy was forked: more increfs
 * than its creation explains NAME|Thread-1          never: a thread that ends closes its session without a
 * decref
 *   ...PoolWorker-N        never: pools kill their workers as a matter of course
 * Who is not judged counts as having left cleanly, because a well-behaved program must never see an item
 * twice. Forked processes share an ident; there a farewell is good for PYREFS_FRESH_MS, for the next session
 * of the family that ends.
 *
 * Pure: the clock is passed in. One loop thread. */
#ifndef MASTER_PYTHON_REFS_H
#define MASTER_PYTHON_REFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PYREFS_FRESH_MS 5000
#define PYREFS_WAIT_MS  500
#define PYREFS_USED_MAX 8

struct pyproxy; /* what is known of one ident */

/* Names an ident: the object, and the serial of the create that made it (0: an ident without one). */
struct pyrefs_key {
    uint64_t object;
    uint64_t serial;
};

struct pyrefs {
    struct pyproxy *table;  /* hash by key */
    struct pyproxy *oldest; /* in order of last use, for the ceiling */
    size_t count;
    size_t max;
    uint64_t farewell_at_ms; /* of anybody; 0: none yet */
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
    struct pyproxy *used[PYREFS_USED_MAX]; /* pinned */
    struct pyproxy *held;                  /* pinned: what the last item was taken through */
    struct pyrefs_session *prev, *next;    /* of those that wait for the decref of `held` */
    bool waiting;
    uint8_t used_count;
    uint8_t kind; /* enum pyrefs_class */
};

enum pyrefs_verdict {
    PYREFS_LEFT, /* cleanly, or not judged */
    PYREFS_DIED,
    PYREFS_UNSURE, /* pyrefs_decref will give it back, or pyrefs_session_over ends it after PYREFS_WAIT_MS */
};

void pyrefs_init(struct pyrefs *r, size_t max_entries);
void pyrefs_deinit(struct pyrefs *r);

enum pyrefs_class pyrefs_classify(const void *name, size_t len);

/* Requests as they arrive. Without memory they do nothing: the judgement is then "died". */
void pyrefs_create(struct pyrefs *r, struct pyrefs_key key);
void pyrefs_incref(struct pyrefs *r, struct pyrefs_key key);
/* Gives a session that waited for this decref: it has left; or NULL. */
struct pyrefs_session *pyrefs_decref(struct pyrefs *r, struct pyrefs_key key, uint64_t now_ms);

void pyrefs_session_open(struct pyrefs_session *s, enum pyrefs_class kind);
/* The session calls a method through the ident; `takes`: an item, perhaps. */
void pyrefs_session_use(struct pyrefs *r, struct pyrefs_session *s, struct pyrefs_key key, bool takes);
/* Did anybody say farewell just now? CPython up to 3.8 may collect garbage in the middle of a proxy's decref,
 * before it connects for it. If that garbage was the process's other proxies, their decrefs come first, the
 * last of them closes the session, and the one that counts comes last of all. */
bool pyrefs_farewell_lately(const struct pyrefs *r, uint64_t now_ms);
/* The session's socket has ended; `holds`: an item that it has not acknowledged; `others_connect`: a decref
 * may still be on its way: connections of its address have not said yet what they want, or
 * pyrefs_farewell_lately. */
enum pyrefs_verdict pyrefs_session_end(struct pyrefs *r, struct pyrefs_session *s, bool holds,
                                       bool others_connect, uint64_t now_ms);
/* Ends the wait of a session that was PYREFS_UNSURE. */
void pyrefs_session_over(struct pyrefs *r, struct pyrefs_session *s);
/* Ends a session, also one that waits, which is judged by others: it takes nobody's farewell with it. */
void pyrefs_session_forget(struct pyrefs *r, struct pyrefs_session *s);

#endif
