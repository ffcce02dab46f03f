#include "master/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define PATH_BYTES 4096

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* memory.max of one group; UINT64_MAX: no limit, or none that can be read. */
static uint64_t group_limit(const char *folder)
{
    char path[PATH_BYTES + 32];
    char text[32] = "";
    uint64_t limit = UINT64_MAX;
    FILE *f;

    snprintf(path, sizeof(path), "%s/memory.max", folder);
    f = fopen(path, "re");
    if (f == NULL)
        return UINT64_MAX;
    if (fgets(text, sizeof(text), f) != NULL && text[0] >= '0' && text[0] <= '9')
        limit = strtoull(text, NULL, 10);
    fclose(f);
    return limit;
}

/* The groups of version 2 that this process is in, from its own up to the root. (libuv looks at those of
 * version 1.) */
static uint64_t groups_limit(void)
{
    static const char root[] = "/sys/fs/cgroup";
    char line[PATH_BYTES];
    char path[sizeof(root) + PATH_BYTES];
    uint64_t limit = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");

    if (f == NULL)
        return limit;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(path, sizeof(path), "%s%s", root, line + 3);
        while (strlen(path) > strlen(root)) {
            limit = least(limit, group_limit(path));
            *strrchr(path, '/') = '\0';
        }
        limit = least(limit, group_limit(root));
    }
    fclose(f);
    return limit;
}

uint64_t memory_available(void)
{
    uint64_t bytes = uv_get_total_memory();
    uint64_t constrained = uv_get_constrained_memory();

    if (constrained > 0)
        bytes = least(bytes, constrained);
    return least(bytes, groups_limit());
}
