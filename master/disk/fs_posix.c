#include "master/disk/fs_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"

#define SHOWN_PATH_MAX   200
#define LOCK_NAME        "lock"
#define PIECE_MAX_BYTES  (1u << 30) /* of one read or write */
#define ZERO_PIECE_BYTES (64u * 1024)

/* ---- errors ---- */

static int from_errno(int e)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        return TQ_ENOSPC;
    case ENOENT:
        return TQ_ENOTFOUND;
    case EEXIST:
        return TQ_EEXISTS;
    default:
        return TQ_EIO;
    }
}

/* log_fs.error from errno; a stale descriptor has no name any more, so callers say what they did. */
static int fail(struct log_fs *fs, const char *what, const char *name)
{
    int e = errno;

    snprintf(fs->error, sizeof(fs->error), "%s%s%s: %s", what, name[0] != '\0' ? " " : "", name, strerror(e));
    return from_errno(e);
}

/* The name of an open file, for messages; the name it has now is what one looks for. */
static const char *name_of(int file, char out[LOG_FS_NAME_MAX])
{
    char link[64];
    char path[512];
    ssize_t n;
    const char *slash;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0)
        return "a file";
    path[n] = '\0';
    slash = strrchr(path, '/');
    snprintf(out, LOG_FS_NAME_MAX, "%.63s", slash != NULL ? slash + 1 : path);
    return out;
}

static int fail_file(struct log_fs *fs, const char *what, int file)
{
    char name[LOG_FS_NAME_MAX];
    int e = errno;
    const char *shown = name_of(file, name);

    errno = e;
    return fail(fs, what, shown);
}

static struct fs_posix *self(struct log_fs *fs)
{
    return fs->ctx;
}

/* ---- the table ---- */

static int fs_list(struct log_fs *fs, void (*fn)(void *fn_ctx, const char *name), void *fn_ctx)
{
    int fd = openat(self(fs)->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    int rv = TQ_OK;

    if (d == NULL) {
        rv = fail(fs, "cannot list the directory", "");
        if (fd >= 0)
            close(fd);
        return rv == TQ_ENOTFOUND ? TQ_EIO : rv;
    }
    /* cppcheck-suppress readdirCalled ; a stream of our own */
    while (errno = 0, (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            fn(fn_ctx, e->d_name);
    if (errno != 0)
        rv = fail(fs, "cannot list the directory", "");
    closedir(d);
    return rv;
}

/* Why the file is none that we trust, or NULL. */
static const char *distrust(const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return "it is not a plain file";
    if (st->st_uid != geteuid())
        return "it belongs to another user";
    if (st->st_nlink > 1)
        return "it has more than one name (a hard link)";
    if (st->st_mode & (S_IWGRP | S_IWOTH))
        return "others may write to it: chmod go-w";
    return NULL;
}

static int open_trusted(struct log_fs *fs, const char *name, int flags)
{
    struct stat st;
    const char *why;
    int file;

    do
        file = openat(self(fs)->dir, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    while (file < 0 && errno == EINTR);
    if (file < 0 && errno == ELOOP) {
        snprintf(fs->error, sizeof(fs->error), "refusing %s: it is a symbolic link", name);
        return TQ_EIO;
    }
    if (file < 0) {
        bool may_pass = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
        int rv = fail(fs, "cannot open", name);

        return may_pass ? TQ_ELIMIT : rv;
    }
    if (fstat(file, &st) != 0) {
        int rv = fail(fs, "cannot look at", name);

        close(file);
        return rv;
    }
    why = distrust(&st);
    if (why == NULL)
        return file;
    snprintf(fs->error, sizeof(fs->error), "refusing %s: %s", name, why);
    close(file);
    return TQ_EIO;
}

static int fs_open(struct log_fs *fs, const char *name, unsigned flags)
{
    int how = flags & LOG_FS_WRITE ? O_RDWR : O_RDONLY;

    TQ_ASSERT(name[0] != '\0' && strchr(name, '/') == NULL);
    if (flags & LOG_FS_CREATE)
        how |= O_CREAT | O_EXCL;
    return open_trusted(fs, name, how);
}

static void fs_close(struct log_fs *fs, int file)
{
    (void)fs;
    close(file); /* what counts was synced */
}

static int fs_size(struct log_fs *fs, int file, uint64_t *ret_bytes)
{
    struct stat st;

    if (fstat(file, &st) != 0)
        return fail_file(fs, "cannot look at", file);
    *ret_bytes = (uint64_t)st.st_size;
    return TQ_OK;
}

static int64_t fs_read(struct log_fs *fs, int file, uint64_t offset, void *out, size_t n)
{
    uint8_t *at = out;
    size_t done = 0;

    while (done < n) {
        size_t piece = n - done < PIECE_MAX_BYTES ? n - done : PIECE_MAX_BYTES;
        ssize_t got = pread(file, at + done, piece, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_file(fs, "cannot read", file);
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (int64_t)done;
}

static int fs_write(struct log_fs *fs, int file, uint64_t offset, struct tq_span bytes)
{
    while (bytes.len > 0) {
        size_t piece = bytes.len < PIECE_MAX_BYTES ? bytes.len : PIECE_MAX_BYTES;
        ssize_t done = pwrite(file, bytes.data, piece, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done == 0)
            errno = EIO; /* and no reason: not to be tried for ever */
        if (done <= 0)
            return fail_file(fs, "cannot write to", file);
        bytes = tq_span(bytes.data + done, bytes.len - (size_t)done);
        offset += (uint64_t)done;
    }
    return TQ_OK;
}

/* For file systems that cannot reserve room: what is new is written. */
static int write_zeros(struct log_fs *fs, int file, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[ZERO_PIECE_BYTES];

    while (from < to) {
        size_t n = to - from < sizeof(zeros) ? (size_t)(to - from) : sizeof(zeros);
        int rv = fs_write(fs, file, from, tq_span(zeros, n));

        if (rv != TQ_OK)
            return rv;
        from += n;
    }
    return TQ_OK;
}

static int fs_allocate(struct log_fs *fs, int file, uint64_t bytes)
{
    uint64_t now = 0;
    int rv, e;

    if (bytes == 0)
        return fs->truncate(fs, file, 0);
    do
        e = fallocate(file, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    while (e == EINTR);
    if (e != 0 && e != EOPNOTSUPP && e != ENOSYS) {
        errno = e;
        return fail_file(fs, "cannot allocate room for", file);
    }
    rv = fs_size(fs, file, &now);
    if (rv != TQ_OK)
        return rv;
    if (e == 0)
        return now > bytes ? fs->truncate(fs, file, bytes) : TQ_OK;
    rv = write_zeros(fs, file, now, bytes);
    if (rv != TQ_OK) { /* as it was: no room that is neither used nor given back */
        char error[LOG_FS_ERROR_MAX];

        memcpy(error, fs->error, sizeof(error));
        (void)fs->truncate(fs, file, now);
        memcpy(fs->error, error, sizeof(error));
        return rv;
    }
    return now > bytes ? fs->truncate(fs, file, bytes) : TQ_OK;
}

static int fs_truncate(struct log_fs *fs, int file, uint64_t bytes)
{
    int e;

    do
        e = ftruncate(file, (off_t)bytes) == 0 ? 0 : errno;
    while (e == EINTR);
    errno = e;
    return e == 0 ? TQ_OK : fail_file(fs, "cannot set the size of", file);
}

/* No retry after EINTR either: a failed sync says nothing of what a second one would have to do. */
static int fs_sync(struct log_fs *fs, int file)
{
    if (fdatasync(file) != 0) {
        int rv = fail_file(fs, "cannot sync", file);

        return rv == TQ_ENOSPC ? TQ_EIO : rv; /* it is final, whatever the reason */
    }
    return TQ_OK;
}

static int fs_rename(struct log_fs *fs, const char *from, const char *to)
{
    int dir = self(fs)->dir;

    return renameat(dir, from, dir, to) == 0 ? TQ_OK : fail(fs, "cannot rename", from);
}

static int fs_remove(struct log_fs *fs, const char *name)
{
    return unlinkat(self(fs)->dir, name, 0) == 0 ? TQ_OK : fail(fs, "cannot remove", name);
}

static int fs_sync_dir(struct log_fs *fs)
{
    if (fsync(self(fs)->dir) != 0) {
        fail(fs, "cannot sync the directory", "");
        return TQ_EIO;
    }
    return TQ_OK;
}

/* ---- opening ---- */

static int refuse(char err[LOG_ERROR_MAX], int rv, const char *dir, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int refuse(char err[LOG_ERROR_MAX], int rv, const char *dir, const char *format, ...)
{
    char shown[SHOWN_PATH_MAX];
    va_list args;
    int n;

    tq_log_quote(shown, sizeof(shown), dir, strlen(dir));
    n = snprintf(err, LOG_ERROR_MAX, "data directory %s: ", shown);
    va_start(args, format);
    vsnprintf(err + n, LOG_ERROR_MAX - (size_t)n, format, args);
    va_end(args);
    return rv;
}

/* A slash at the end would follow a link. */
static bool without_slashes(const char *dir, char out[PATH_MAX])
{
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 0 || n >= PATH_MAX)
        return false;
    memcpy(out, dir, n);
    out[n] = '\0';
    return true;
}

/* A new directory lasts only once the one above it is synced. */
static int sync_parent(int dir)
{
    int above = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rv;

    if (above < 0)
        return errno == EACCES ? TQ_OK : TQ_EIO; /* may be passed through, but not read */
    rv = fsync(above) == 0 ? TQ_OK : TQ_EIO;
    close(above);
    return rv;
}

/* What to do about a directory that cannot be had. */
static const char *remedy_of(int e, bool make)
{
    switch (e) {
    case ENOENT:
        return make ? "; make the directory above it first" : "; give the name of one that is there";
    case ENOTDIR:
        return "; give the name of a directory";
    case EACCES:
    case EPERM:
        return "; run it as the owner, or take another directory";
    default:
        return "";
    }
}

static int open_dir(struct fs_posix *f, const char *dir, bool create, char err[LOG_ERROR_MAX])
{
    char path[PATH_MAX];
    bool made = false;
    struct stat st;

    if (!without_slashes(dir, path))
        return refuse(err, TQ_EIO, dir, "this is no path");
    if (create && mkdir(path, 0700) == 0)
        made = true;
    else if (create && errno != EEXIST)
        return refuse(err, from_errno(errno), dir, "cannot be made: %s%s", strerror(errno),
                      remedy_of(errno, true));
    f->dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (f->dir < 0) {
        int e = errno;

        if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
            return refuse(err, TQ_EIO, dir, "it is a symbolic link; name the directory itself");
        return refuse(err, from_errno(e), dir, "cannot be opened: %s%s", strerror(e), remedy_of(e, false));
    }
    if (fstat(f->dir, &st) != 0)
        return refuse(err, TQ_EIO, dir, "cannot be looked at: %s", strerror(errno));
    if (st.st_uid != geteuid())
        return refuse(err, TQ_EIO, dir,
                      "it belongs to user %lu, and this process runs as %lu; run it as the owner",
                      (unsigned long)st.st_uid, (unsigned long)geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return refuse(err, TQ_EIO, dir, "others may write to it (mode %04o); chmod 700",
                      (unsigned)(st.st_mode & 07777));
    if (made && sync_parent(f->dir) != TQ_OK)
        return refuse(err, TQ_EIO, dir, "cannot be synced: %s", strerror(errno));
    return TQ_OK;
}

/* Who holds it wrote its number there. */
static int in_use(int lock, const char *dir, char err[LOG_ERROR_MAX])
{
    char text[32];
    char *end;
    long pid;
    ssize_t n = pread(lock, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    pid = strtol(text, &end, 10);
    if (pid > 0 && *end == '\n')
        return refuse(err, TQ_EIO, dir, "another task-master (pid %ld) uses it; stop that one first", pid);
    return refuse(err, TQ_EIO, dir, "another task-master uses it; stop that one first");
}

/* 0 or errno. */
static int lock_now(int file)
{
    int e;

    do
        e = flock(file, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
    while (e == EINTR);
    return e;
}

static int take_lock(struct fs_posix *f, const char *dir, char err[LOG_ERROR_MAX])
{
    char text[32];
    int n, e;

    f->lock = open_trusted(&f->fs, LOCK_NAME, O_RDWR | O_CREAT);
    if (f->lock < 0) {
        int rv = f->lock;

        f->lock = -1;
        return refuse(err, rv, dir, "%s", f->fs.error);
    }
    /* The directory itself, too: somebody may remove the file. Not all systems can (NFS). */
    if (lock_now(f->dir) == EWOULDBLOCK)
        return in_use(f->lock, dir, err);
    e = lock_now(f->lock);
    if (e == EWOULDBLOCK)
        return in_use(f->lock, dir, err);
    if (e != 0)
        return refuse(err, TQ_EIO, dir, "cannot be locked: %s", strerror(e));
    /* For people and for the message above only: a full disk is no reason to stay away. */
    n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (fs_truncate(&f->fs, f->lock, 0) == TQ_OK)
        (void)fs_write(&f->fs, f->lock, 0, tq_span(text, (size_t)n));
    return TQ_OK;
}

static uint64_t fs_free_bytes(struct log_fs *fs)
{
    const struct fs_posix *f = fs->ctx;
    struct statvfs st;

    if (fstatvfs(f->dir, &st) != 0)
        return UINT64_MAX;
    return (uint64_t)st.f_bavail * st.f_frsize;
}

int fs_posix_open(struct fs_posix *f, const char *dir, bool create, bool lock_it, char err[LOG_ERROR_MAX])
{
    int rv;

    *f = (struct fs_posix){.dir = -1, .lock = -1};
    f->fs = (struct log_fs){
        .ctx = f,
        .list = fs_list,
        .open = fs_open,
        .close = fs_close,
        .size = fs_size,
        .read = fs_read,
        .write = fs_write,
        .allocate = fs_allocate,
        .truncate = fs_truncate,
        .sync = fs_sync,
        .rename = fs_rename,
        .remove = fs_remove,
        .sync_dir = fs_sync_dir,
        .free_bytes = fs_free_bytes,
    };
    rv = open_dir(f, dir, create, err);
    if (rv == TQ_OK && lock_it)
        rv = take_lock(f, dir, err);
    if (rv != TQ_OK)
        fs_posix_close(f);
    return rv;
}

void fs_posix_close(struct fs_posix *f)
{
    if (f->lock >= 0)
        close(f->lock);
    if (f->dir >= 0)
        close(f->dir);
    f->lock = f->dir = -1;
}
