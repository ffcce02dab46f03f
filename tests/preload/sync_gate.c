/* Preloaded into a task-master by tests: its fdatasync waits at a gate, or fails, as files say that the test
 * makes and removes. $SYNC_GATE is where they stand:
 *   closed    syncs wait as long as it is there; then
 *   blocked   is there while one waits
 *   fails     syncs fail, without a word to the disk */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static char closed_path[4096], blocked_path[4096], fails_path[4096];

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("SYNC_GATE");

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

__attribute__((visibility("default"))) int fdatasync(int fd)
{
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
