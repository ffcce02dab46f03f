/* Preloaded into a task-master by tests: a disk that fills up, fails, is slow, or kills the process in the
 * middle of what it does. $DISK_FAULTS names a file of `struct faults`, which the test writes to while this
 * runs (tests/integration/disk.py), and which outlives the process. All calls here are those of the log:
 * nothing else in the program uses them. */
/* Fortified headers define some of these calls themselves. */
#undef _FORTIFY_SOURCE
#undef _FORTIFY_SOURCE /* its inlines are what is replaced here */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum kind { READ, WRITE, SYNC, SYNC_DIR, ALLOCATE, TRUNCATE, RENAME, REMOVE, KIND_COUNT };

struct faults {
    _Atomic uint64_t budget_bytes; /* of all files in the folder; 0: as many as the disk has */
    _Atomic uint64_t fail_kinds;   /* bits of enum kind: */
    _Atomic uint64_t fail_in;      /* the n-th such call from now on fails, and all behind it; 0: none */
    _Atomic uint64_t fail_errno;
    _Atomic uint64_t die_kinds;
    _Atomic uint64_t die_in;  /* the n-th such call from now on is done by half, and SIGKILL; 0: none */
    _Atomic uint64_t failed;  /* so many have failed by fail_in */
    _Atomic uint64_t full;    /* so many have found no room, by budget_bytes */
    _Atomic uint64_t sync_us; /* each sync takes this time longer */
    _Atomic uint64_t pieces;  /* not 0: reads and writes do at most so many bytes in a call */
    _Atomic uint64_t ahead_s; /* the clock */
    _Atomic uint64_t calls[KIND_COUNT];
};

#define SPANS_MAX 4096

static struct faults off; /* without a file nothing is wrong */
static struct faults *faults = &off;

/* Written since the last good sync, of the file that is written, with what was there before: a sync that
 * fails brings that back. One thread. */
static struct {
    int fd;
    unsigned count;
    struct span {
        off_t at;
        size_t n;
        uint8_t *before;
    } spans[SPANS_MAX];
} unsynced;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DISK_FAULTS");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *at;

    if (fd < 0)
        return;
    at = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (at == MAP_FAILED) {
        perror("disk_faults");
        abort();
    }
    faults = at;
}

/* One thread counts: that of the log, or the loop while that one has nothing to do. */
static bool is_due(_Atomic uint64_t *countdown)
{
    uint64_t n = atomic_load(countdown);

    if (n > 1)
        atomic_store(countdown, n - 1);
    return n == 1;
}

/* True: this call fails, errno says how. */
static bool fails(enum kind kind)
{
    atomic_fetch_add(&faults->calls[kind], 1);
    if ((faults->fail_kinds >> kind & 1) == 0 || !is_due(&faults->fail_in))
        return false;
    atomic_fetch_add(&faults->failed, 1);
    errno = (int)faults->fail_errno;
    return true;
}

static bool dies(enum kind kind)
{
    return (faults->die_kinds >> kind & 1) != 0 && is_due(&faults->die_in);
}

static _Noreturn void die(void)
{
    for (;;)
        (void)kill(getpid(), SIGKILL);
}

/* Before or after the call, that is half of it, too. */
static void die_around(enum kind kind, bool is_done)
{
    static bool after;

    if (!is_done) {
        after = dies(kind);
        if (after && (atomic_load(&faults->calls[kind]) & 1) != 0)
            die();
    } else if (after) {
        die();
    }
}

/* ---- room ---- */

static uint64_t in_blocks(off_t bytes)
{
    return ((uint64_t)bytes + 4095) & ~4095ull;
}

static uint64_t folder_bytes(int fd)
{
    char link[64], path[PATH_MAX];
    uint64_t sum = 0;
    struct dirent *e;
    struct stat st;
    ssize_t n;
    DIR *d;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0)
        return 0;
    path[n] = '\0';
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
        while (n > 0 && path[n] != '/')
            path[n--] = '\0';
    d = opendir(path);
    if (d == NULL)
        return 0;
    while ((e = readdir(d)) != NULL)
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += in_blocks(st.st_size);
    (void)closedir(d);
    return sum;
}

/* May the file get so long? */
static bool has_room(int fd, off_t bytes)
{
    uint64_t budget = faults->budget_bytes, more;
    struct stat st;

    if (budget == 0 || fstat(fd, &st) != 0 || bytes <= st.st_size)
        return true;
    more = in_blocks(bytes) - in_blocks(st.st_size);
    if (more == 0 || folder_bytes(fd) + more <= budget)
        return true;
    atomic_fetch_add(&faults->full, 1);
    errno = ENOSPC;
    return false;
}

static uint64_t room_left(int fd)
{
    uint64_t used = folder_bytes(fd), budget = faults->budget_bytes;

    return used < budget ? budget - used : 0;
}

/* ---- the calls ---- */

#define EXPORT __attribute__((visibility("default")))

static size_t piece(size_t n)
{
    uint64_t most = faults->pieces;

    return most > 0 && n > most ? (size_t)most : n;
}

EXPORT ssize_t pread(int fd, void *out, size_t n, off_t at)
{
    if (fails(READ))
        return -1;
    die_around(READ, false);
    n = (size_t)syscall(SYS_pread64, fd, out, piece(n), at);
    die_around(READ, true);
    return (ssize_t)n;
}

EXPORT ssize_t __pread_chk(int fd, void *out, size_t n, off_t at, size_t size);
EXPORT ssize_t __pread_chk(int fd, void *out, size_t n, off_t at, size_t size)
{
    if (n > size)
        abort();
    return pread(fd, out, n, at);
}

static void forget_unsynced(void)
{
    while (unsynced.count > 0)
        free(unsynced.spans[--unsynced.count].before);
}

static void note_unsynced(int fd, size_t n, off_t at)
{
    struct span *s;

    if (unsynced.fd != fd)
        forget_unsynced();
    unsynced.fd = fd;
    if (faults->fail_kinds == 0 || unsynced.count == SPANS_MAX)
        return;
    s = &unsynced.spans[unsynced.count++];
    *s = (struct span){.at = at, .n = n, .before = calloc(1, n + 1)};
    if (s->before == NULL || syscall(SYS_pread64, fd, s->before, n, at) < 0)
        abort();
}

/* As Linux does: what could not be written is forgotten; and here nobody sees it any more. */
static void lose_unsynced(int fd)
{
    for (unsigned i = unsynced.count; unsynced.fd == fd && i > 0; i--) {
        const struct span *s = &unsynced.spans[i - 1];

        if (syscall(SYS_pwrite64, fd, s->before, s->n, s->at) != (ssize_t)s->n)
            abort();
    }
    forget_unsynced();
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    if (fails(WRITE) || !has_room(fd, at + (off_t)n))
        return -1;
    n = piece(n);
    if (dies(WRITE)) {
        (void)syscall(SYS_pwrite64, fd, data, n / 2, at);
        die();
    }
    note_unsynced(fd, n, at);
    return syscall(SYS_pwrite64, fd, data, n, at);
}

EXPORT int fdatasync(int fd)
{
    int rv;

    if (fails(SYNC)) {
        int e = errno;

        lose_unsynced(fd);
        errno = e;
        return -1;
    }
    die_around(SYNC, false);
    if (faults->sync_us > 0)
        (void)usleep((useconds_t)faults->sync_us);
    rv = (int)syscall(SYS_fdatasync, fd);
    die_around(SYNC, true);
    if (rv == 0 && unsynced.fd == fd)
        forget_unsynced();
    return rv;
}

EXPORT int fsync(int fd)
{
    int rv;

    if (fails(SYNC_DIR))
        return -1;
    die_around(SYNC_DIR, false);
    rv = (int)syscall(SYS_fsync, fd);
    die_around(SYNC_DIR, true);
    return rv;
}

EXPORT int fallocate(int fd, int mode, off_t at, off_t n)
{
    int rv;

    if (fails(ALLOCATE) || !has_room(fd, at + n))
        return -1;
    die_around(ALLOCATE, false);
    rv = (int)syscall(SYS_fallocate, fd, mode, at, n);
    die_around(ALLOCATE, true);
    return rv;
}

EXPORT int ftruncate(int fd, off_t n)
{
    int rv;

    if (fails(TRUNCATE))
        return -1;
    die_around(TRUNCATE, false);
    rv = (int)syscall(SYS_ftruncate, fd, n);
    die_around(TRUNCATE, true);
    return rv;
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int rv;

    if (fails(RENAME))
        return -1;
    die_around(RENAME, false);
    rv = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
    die_around(RENAME, true);
    return rv;
}

EXPORT int unlinkat(int dir, const char *name, int flags)
{
    int rv;

    if (fails(REMOVE))
        return -1;
    die_around(REMOVE, false);
    rv = (int)syscall(SYS_unlinkat, dir, name, flags);
    die_around(REMOVE, true);
    return rv;
}

EXPORT int fstatvfs(int fd, struct statvfs *out)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) != 0)
        return -1;
    *out = (struct statvfs){.f_bsize = (unsigned long)fs.f_bsize,
                            .f_frsize = (unsigned long)fs.f_frsize,
                            .f_blocks = fs.f_blocks,
                            .f_bfree = fs.f_bfree,
                            .f_bavail = fs.f_bavail,
                            .f_files = fs.f_files,
                            .f_ffree = fs.f_ffree,
                            .f_favail = fs.f_ffree,
                            .f_namemax = (unsigned long)fs.f_namelen};
    return 0;
}

EXPORT int fstatfs(int fd, struct statfs *out)
{
    int rv = (int)syscall(SYS_fstatfs, fd, out);

    if (rv == 0 && faults->budget_bytes > 0)
        out->f_bfree = out->f_bavail = room_left(fd) / (uint64_t)out->f_bsize;
    return rv;
}

EXPORT int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    int rv = (int)syscall(SYS_gettimeofday, tv, tz);

    if (rv == 0)
        tv->tv_sec += (time_t)faults->ahead_s;
    return rv;
}
