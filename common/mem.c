#include "common/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static long fail_countdown = -1;
static long fail_repeat;
static unsigned long allocations;

static int must_fail(void)
{
    allocations++;
    if (fail_countdown < 0)
        return 0;
    if (fail_countdown > 0) {
        fail_countdown--;
        return 0;
    }
    if (fail_repeat-- > 0)
        return 1;
    fail_countdown = -1;
    return 0;
}

void *tq_malloc(size_t n)
{
    return must_fail() ? NULL : malloc(n);
}

void *tq_calloc(size_t count, size_t n)
{
    return must_fail() ? NULL : calloc(count, n);
}

void *tq_realloc(void *p, size_t n)
{
    return must_fail() ? NULL : realloc(p, n);
}

char *tq_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = tq_malloc(n);

    if (copy != NULL)
        memcpy(copy, s, n);
    return copy;
}

void tq_free(void *p)
{
    free(p);
}

void tq_mem_fail_after(long after, long repeat)
{
    fail_countdown = after;
    fail_repeat = repeat;
}

unsigned long tq_mem_count(void)
{
    return allocations;
}
