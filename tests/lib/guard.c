#include "tests/lib/guard.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/assert.h"

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Readable bytes before the guard page: at least one page, so that the pointer of n = 0 is mapped too. */
static size_t room_for(size_t n)
{
    size_t page = page_bytes();

    return n == 0 ? page : (n + page - 1) / page * page;
}

uint8_t *guard_copy(const void *data, size_t n)
{
    size_t room = room_for(n);
    uint8_t *base =
        mmap(NULL, room + page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    TQ_ASSERT(base != MAP_FAILED);
    TQ_ASSERT(mprotect(base + room, page_bytes(), PROT_NONE) == 0);
    if (n > 0)
        memcpy(base + room - n, data, n);
    return base + room - n;
}

void guard_free(uint8_t *p, size_t n)
{
    size_t room = room_for(n);

    TQ_ASSERT(munmap(p + n - room, room + page_bytes()) == 0);
}
