/* Connections that are not authenticated yet: how many there are, in all and from one address, and who is
 * dropped when there are too many. The oldest goes first, because an honest handshake takes milliseconds;
 * addresses that have logged in before are spared while others can be found. Pure; one loop thread. */
#ifndef MASTER_HALFOPEN_H
#define MASTER_HALFOPEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct halfopen_addr {
    uint8_t bytes[16]; /* IPv6 (its /64 counts as one source), or IPv4 mapped into it */
};

struct halfopen_source;

/* Embedded in a connection. */
struct halfopen_entry {
    struct halfopen_entry *prev, *next;               /* all, oldest first */
    struct halfopen_entry *source_prev, *source_next; /* of one source, oldest first */
    struct halfopen_source *source;                   /* NULL: not listed */
};

struct halfopen {
    struct halfopen_source *sources; /* hash */
    struct halfopen_source *idle;    /* sources without entries, kept for what is known of them */
    struct halfopen_entry *oldest;
    size_t count;
    size_t idle_count;
    size_t max;
    size_t max_per_source;
};

void halfopen_init(struct halfopen *h, size_t max, size_t max_per_source);
void halfopen_deinit(struct halfopen *h);

/* Lists a new connection. *ret_drop is somebody else who must be dropped for it (take him out with
 * halfopen_remove), or NULL. TQ_ENOMEM. */
int halfopen_add(struct halfopen *h, struct halfopen_entry *e, const struct halfopen_addr *addr,
                 struct halfopen_entry **ret_drop);
/* Connections of that source that are listed. */
size_t halfopen_count_of(const struct halfopen *h, const struct halfopen_addr *addr);
/* Takes it out; fine when not listed. `authenticated`: the address is known good from now on. */
void halfopen_remove(struct halfopen *h, struct halfopen_entry *e, bool authenticated);

#endif
