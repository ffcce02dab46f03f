/* Was the end of a Python session a clean exit or a death? Python closes a session without a word in both
 * cases; the difference is that a process that exits cleanly gives its proxies back first: one `decref` per
 * proxy, each on a connection of its own, before it closes the session. This module counts those per
 * (address, object) and matches each closing session with one of them.
 *
 * Not every decref is a farewell: making a proxy sends create, incref, decref, so a decref that completes
 * such a row is no exit. Rows that a process began and died in are forgotten after PYREFS_SETTLE_MS.
 *
 * Who is judged at all (name is what accept_connection announces):
 *   MainProcess            always: it gives its proxies back when it exits
 *   a child process        if it was forked with the proxy (an incref without a create came from there):
 *                          a spawned child neither increfs nor decrefs, so nothing tells its end apart
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

/* Rows of create, incref, decref take milliseconds; a clean exit's decref precedes the close by as much. */
#define PYREFS_SETTLE_MS 2000
/* How long an exit's decref stays good for the close that belongs to it. */
#define PYREFS_FRESH_MS 5000
#define PYREFS_USED_MAX 8

struct pyrefs_addr {
    uint8_t bytes[16]; /* IPv6, or IPv4 mapped into it */
};

struct pyref; /* one (address, object) */

struct pyrefs {
    struct pyref *table;  /* hash */
    struct pyref *oldest; /* in order of last use, for the ceiling */
    size_t count;
    size_t max;
};

enum pyrefs_class { PYREFS_MAIN, PYREFS_CHILD, PYREFS_THREAD, PYREFS_POOL };

/* The part of it that a session carries. Zeroed before pyrefs_session_open. */
struct pyrefs_session {
    struct {
        uint64_t object;
        struct pyref *ref; /* NULL: not judged by this object */
    } used[PYREFS_USED_MAX];
    struct pyref *waits_for; /* limbo: the object whose decref would clear it */
    struct pyrefs_session *limbo_prev, *limbo_next;
    uint8_t used_count;
    uint8_t kind; /* enum pyrefs_class */
};

enum pyrefs_verdict {
    PYREFS_LEFT, /* cleanly, or not judged */
    PYREFS_DIED,
    PYREFS_UNSURE, /* decided when pyrefs_decref returns it, or by pyrefs_decide at the latest */
};

void pyrefs_init(struct pyrefs *r, size_t max_entries);
void pyrefs_deinit(struct pyrefs *r);

enum pyrefs_class pyrefs_classify(const void *name, size_t len);

/* Requests as they arrive. Without memory they do nothing: the judgement is then "died". */
void pyrefs_create(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms);
void pyrefs_incref(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms);
/* A session in limbo that this decref clears (it left cleanly), or NULL. */
struct pyrefs_session *pyrefs_decref(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object,
                                     uint64_t now_ms);

void pyrefs_session_open(struct pyrefs_session *s, enum pyrefs_class kind);
/* The session called a method of the object. */
void pyrefs_session_use(struct pyrefs *r, struct pyrefs_session *s, const struct pyrefs_addr *addr,
                        uint64_t object, uint64_t now_ms);
/* The session's socket closed while it held an item of `object` (0: nothing held). PYREFS_UNSURE puts it
 * into limbo until *ret_until_ms. In the other cases it is released. */
enum pyrefs_verdict pyrefs_session_close(struct pyrefs *r, struct pyrefs_session *s, uint64_t object,
                                         uint64_t now_ms, uint64_t *ret_until_ms);
/* Ends a limbo at its deadline: PYREFS_LEFT or PYREFS_DIED. */
enum pyrefs_verdict pyrefs_decide(struct pyrefs *r, struct pyrefs_session *s, uint64_t now_ms);
/* Forgets a session in limbo (the daemon stops). */
void pyrefs_session_forget(struct pyrefs *r, struct pyrefs_session *s);

#endif
