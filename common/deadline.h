/* The deadline heap: everything that waits for a moment stands in one of these, behind one timer.
 * Nodes are embedded in their owners and know their place, so each can be taken out in O(log n).
 * Equal deadlines come out in the order in which they were set, ranked ones before them by their rank. Pure:
 * the clock is the caller's. */
#ifndef TQ_COMMON_DEADLINE_H
#define TQ_COMMON_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tq_deadline {
    uint64_t at_ms; /* the owner's clock */
    uint64_t seq;   /* order of setting; or its rank */
    uint32_t place; /* index in the heap + 1, 0 = not set */
    uint32_t kind;  /* who must act; the owner's enum */
};

struct tq_deadlines {
    struct tq_deadline **heap;
    size_t count;
    size_t cap;
    size_t reserved; /* places that are kept for nodes which are not set */
    uint64_t seq;
};

void tq_deadlines_init(struct tq_deadlines *d);
void tq_deadlines_deinit(struct tq_deadlines *d); /* nodes stay their owners' */

/* Sets or moves a node. TQ_ENOMEM leaves it unset if it was unset, unmoved if it was set. A node that
 * is set can always be moved. */
int tq_deadline_set(struct tq_deadlines *d, struct tq_deadline *n, uint64_t at_ms);
/* The same, but of equal deadlines the one with the smallest rank (n->seq, the owner's, at most
 * TQ_DEADLINE_RANK_MAX) comes out first, however often they are set, and those without a rank after it. */
#define TQ_DEADLINE_RANK_MAX ((uint64_t)INT64_MAX)
int tq_deadline_set_ranked(struct tq_deadlines *d, struct tq_deadline *n, uint64_t at_ms);
void tq_deadline_clear(struct tq_deadlines *d, struct tq_deadline *n); /* fine when not set */

static inline bool tq_deadline_is_set(const struct tq_deadline *n)
{
    return n->place != 0;
}

/* Keeps a place for a node that may be set later, when it must not fail. TQ_ENOMEM. Whoever sets it calls
 * tq_deadlines_unreserve just before. */
int tq_deadlines_reserve(struct tq_deadlines *d, size_t n);
void tq_deadlines_unreserve(struct tq_deadlines *d, size_t n);

/* The next deadline, or UINT64_MAX when there is none. */
uint64_t tq_deadlines_next_ms(const struct tq_deadlines *d);
/* Takes out the first node that is due at now_ms (at_ms <= now_ms); NULL when none is. */
struct tq_deadline *tq_deadlines_pop_due(struct tq_deadlines *d, uint64_t now_ms);

#endif
