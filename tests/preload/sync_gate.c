/* Preloaded into a task-master by tests: its fdatasync waits at a gate, or fails, as files say that the test
 * makes and removes. $SYNC_GATE is where they stand:
 *   closed    syncs wait as long as it is there; then
 *   blocked   is there while one waits
 *   fails     syncs fail, without a word to the disk
 * $SYNC_GATE_ONLY: for files whose names end in it only.
 * Its time of day is $SYNC_GATE_LATER_S seconds off. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char closed_path[4096], blocked_path[4096], fails_path[4096];

static long later_s;
static const char *only;

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("SYNC_GATE");
    const char *later = getenv("SYNC_GATE_LATER_S");

    only = getenv("SYNC_GATE_ONLY");
    if (later != NULL)
        later_s = strtol(later, NULL, 10);
    if (folder == NULL)
        return;
    (void)snprintf(closed_path, sizeof(closed_path), "%s/closed", folder);
    (void)snprintf(blocked_path, sizeof(blocked_path), "%s/blocked", folder);
    (void)snprintf(fails_path, sizeof(fails_path), "%s/fails", folder);
}

static bool is_there(const char *path)
{
    return path[0] != '\0' && access(path, F_OK) == 0;
}

static bool is_meant(int fd)
{
    char link[64], path[4096];
    ssize_t n;
    size_t tail = only != NULL ? strlen(only) : 0;

    if (tail == 0)
        return true;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path));
    return n >= (ssize_t)tail && memcmp(path + n - tail, only, tail) == 0;
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    if (!is_meant(fd))
        return (int)syscall(SYS_fdatasync, fd);
    if (is_there(closed_path)) {
        int marker = open(blocked_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        if (marker >= 0)
            (void)close(marker);
        while (is_there(closed_path))
            (void)usleep(500);
        (void)unlink(blocked_path);
    }
    if (is_there(fails_path)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;

    (void)tz;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
        return -1;
    tv->tv_sec = ts.tv_sec + later_s;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}
