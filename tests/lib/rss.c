#include "tests/lib/rss.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/assert.h"

void rss_read(int64_t *ret_resident_bytes, int64_t *ret_mapped_bytes)
{
    char text[128] = {0};
    long mapped = 0, resident = 0, shared = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC); /* no stdio: it would allocate */

    TQ_ASSERT(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    TQ_ASSERT(sscanf(text, "%ld %ld %ld", &mapped, &resident, &shared) == 3);
    *ret_mapped_bytes = mapped * sysconf(_SC_PAGESIZE);
    *ret_resident_bytes = (resident - shared) * sysconf(_SC_PAGESIZE);
}
