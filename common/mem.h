/* The allocation hook: every allocation of ours goes through here, so that tests can count them and
 * make the n-th one fail. Sizes that a peer chose may fail and are handled; see tq_mem_fail_after. */
#ifndef TQ_COMMON_MEM_H
#define TQ_COMMON_MEM_H

#include <stdbool.h>
#include <stddef.h>

void *tq_malloc(size_t n);
void *tq_calloc(size_t count, size_t n);
void *tq_realloc(void *p, size_t n);
char *tq_strdup(const char *s);
void tq_free(void *p); /* NULL is fine */

/* Whole pages from the system, zeroed, each of which takes memory only once it is touched: never merged into
 * huge pages, which would be touched, and kept, by their first byte. n is a multiple of
 * TQ_PAGES_UNIT_BYTES. */
#define TQ_PAGES_UNIT_BYTES 65536u /* a multiple of every page size that we meet */
void *tq_pages_alloc(size_t n);
/* The same for one large thing that is filled at once: huge pages are welcome, they are quicker to get and to
 * give back. */
void *tq_pages_alloc_huge(size_t n);
void tq_pages_free(void *p, size_t n); /* all that one tq_pages_alloc gave */
/* They are about to be filled: to get them all at once is quicker than one by one. n needs no rounding. */
void tq_pages_populate(void *p, size_t n);
/* Gives the memory of some of them back; they stay, and their contents are undefined. */
void tq_pages_drop(void *p, size_t n);

/* The address sanitizer reports a use of poisoned bytes; other builds do nothing. What allocators of our own
 * have taken back, they poison. At the edges up to 7 bytes stay as they are. */
#if defined(__SANITIZE_ADDRESS__)
#define TQ_MEM_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TQ_MEM_POISON 1
#endif
#endif
#ifdef TQ_MEM_POISON
void tq_mem_poison(const void *p, size_t n);
void tq_mem_unpoison(const void *p, size_t n);
#else
static inline void tq_mem_poison(const void *p, size_t n)
{
    (void)p, (void)n;
}
static inline void tq_mem_unpoison(const void *p, size_t n)
{
    (void)p, (void)n;
}
#endif

/* For tests: after `after` more successful ones, the next `repeat` fail. after < 0 switches
 * it off. Not thread-safe. */
void tq_mem_fail_after(long after, long repeat);
/* For tests: allocations made so far. */
unsigned long tq_mem_count(void);
/* For allocators of our own, at each of their allocations: counts one; true: it must fail. */
bool tq_mem_must_fail(void);

#endif
