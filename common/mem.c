#include "common/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef TQ_MEM_POISON
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

static long fail_countdown = -1;
static long fail_repeat;
static unsigned long allocations;

bool tq_mem_must_fail(void)
{
    allocations++;
    if (fail_countdown < 0)
        return false;
    if (fail_countdown > 0) {
        fail_countdown--;
        return false;
    }
    if (fail_repeat-- > 0)
        return true;
    fail_countdown = -1;
    return false;
}

void *tq_malloc(size_t n)
{
    return tq_mem_must_fail() ? NULL : malloc(n);
}

void *tq_calloc(size_t count, size_t n)
{
    return tq_mem_must_fail() ? NULL : calloc(count, n);
}

void *tq_realloc(void *p, size_t n)
{
    return tq_mem_must_fail() ? NULL : realloc(p, n);
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

static void *pages_alloc(size_t n, int advice)
{
    void *p;

    if (tq_mem_must_fail())
        return NULL;
    /* cppcheck-suppress invalidFunctionArg ; -1 is what anonymous mappings want */
    p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, n, advice); /* refused by a kernel that has no huge pages */
#ifdef TQ_MEM_POISON
    __lsan_register_root_region(p, n); /* what is only pointed to from there is no leak */
#endif
    return p;
}

void *tq_pages_alloc(size_t n)
{
    return pages_alloc(n, MADV_NOHUGEPAGE);
}

void *tq_pages_alloc_huge(size_t n)
{
    return pages_alloc(n, MADV_HUGEPAGE);
}

void tq_pages_free(void *p, size_t n)
{
#ifdef TQ_MEM_POISON
    __lsan_unregister_root_region(p, n);
    tq_mem_unpoison(p, n);
#endif
    if (munmap(p, n) != 0)   /* the kernel may want memory to cut a mapping in two, */
        tq_pages_drop(p, n); /* then at least the pages go */
}

void tq_pages_populate(void *p, size_t n)
{
#ifdef MADV_POPULATE_WRITE
    (void)madvise(p, n,
                  MADV_POPULATE_WRITE); /* refused by kernels before 5.14: they come as they are touched */
#else
    (void)p, (void)n;
#endif
}

void tq_pages_drop(void *p, size_t n)
{
    (void)madvise(p, n, MADV_DONTNEED);
}

#ifdef TQ_MEM_POISON
void tq_mem_poison(const void *p, size_t n)
{
    __asan_poison_memory_region(p, n);
}

void tq_mem_unpoison(const void *p, size_t n)
{
    __asan_unpoison_memory_region(p, n);
}
#endif

void tq_mem_fail_after(long after, long repeat)
{
    fail_countdown = after;
    fail_repeat = repeat;
}

unsigned long tq_mem_count(void)
{
    return allocations;
}
