/* The allocation hook: every allocation of ours goes through here, so that tests can count them and
 * make the n-th one fail. Sizes that a peer chose may fail and are handled; see tq_mem_fail_after. */
#ifndef TQ_COMMON_MEM_H
#define TQ_COMMON_MEM_H

#include <stddef.h>

void *tq_malloc(size_t n);
void *tq_calloc(size_t count, size_t n);
void *tq_realloc(void *p, size_t n);
char *tq_strdup(const char *s);
void tq_free(void *p); /* NULL is fine */

/* For tests: after `after` more successful ones, the next `repeat` fail. after < 0 switches
 * it off. Not thread-safe. */
void tq_mem_fail_after(long after, long repeat);
/* For tests: allocations made so far. */
unsigned long tq_mem_count(void);

#endif
