#include "master/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "master/disk/fs_posix.h"
#include "master/durable.h"
#include "master/log/copy.h"

struct backup {
    struct server *server;
    uv_async_t done;
    uv_thread_t thread;
    uint64_t token, began_ms;
    struct log_copy copy;
    struct fs_posix from, to;
    atomic_bool canceled;
    struct native_backup result; /* the thread's, until it is done */
    const char *source;
    char dir[NATIVE_PATH_MAX + 1];
    uint8_t buffer[LOG_COPY_BUFFER_BYTES];
};

/* ---- the thread ---- */

__attribute__((format(printf, 3, 4))) static bool fail(struct backup *b, enum native_backup_end end,
                                                       const char *fmt, ...)
{
    va_list ap;

    b->result.end = end;
    va_start(ap, fmt);
    vsnprintf(b->result.text, sizeof(b->result.text), fmt, ap);
    va_end(ap);
    return false;
}

static bool fail_errno(struct backup *b, const char *what, int e)
{
    enum native_backup_end end = e == EACCES || e == EPERM || e == EROFS ? NATIVE_BACKUP_PERMISSION
                                 : e == ENOSPC || e == EDQUOT            ? NATIVE_BACKUP_NO_SPACE
                                                                         : NATIVE_BACKUP_FAILED;
    const char *remedy = end == NATIVE_BACKUP_PERMISSION
                             ? ": the master's own user must be able to write there, and its service to "
                               "see it (ReadWritePaths= of systemd)"
                         : end == NATIVE_BACKUP_NO_SPACE ? ": make room, or take another place"
                         : e == ENOENT                   ? ": the folder above it must be there"
                         : e == ELOOP || e == ENOTDIR    ? ": it must be a folder, and no symbolic link"
                                                         : "";

    return fail(b, end, "%s (%s)%s", what, strerror(e), remedy);
}

/* 0, or errno. */
static int is_empty(int dir, bool *ret)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *e;
    int err;

    *ret = true;
    if (d == NULL) {
        err = errno;
        if (fd >= 0)
            (void)close(fd);
        return err;
    }
    while (errno = 0, (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            *ret = false;
    err = errno;
    (void)closedir(d);
    return err;
}

/* A folder that is ours alone, and empty. A link in the last place is not followed: who may write to the
 * folder above could point it anywhere. */
static bool make_dir(struct backup *b, bool *ret_made)
{
    struct stat st;
    bool empty;
    int fd, e;

    *ret_made = mkdir(b->dir, 0700) == 0;
    if (!*ret_made && errno != EEXIST)
        return fail_errno(b, "the folder cannot be made", errno);
    fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(b, "the folder cannot be opened", errno);
    if (fstat(fd, &st) != 0 || st.st_uid != geteuid()) {
        (void)close(fd);
        return fail(b, NATIVE_BACKUP_PERMISSION,
                    "the folder belongs to another user: name one that is not there yet");
    }
    e = is_empty(fd, &empty);
    if (e == 0 && empty && fchmod(fd, 0700) != 0)
        e = errno;
    (void)close(fd);
    if (e != 0)
        return fail_errno(b, "the folder cannot be used", e);
    return empty ||
           fail(b, NATIVE_BACKUP_EXISTS,
                "the folder is there and not empty: name one that is not there yet, or an empty one");
}

static bool fail_copy(struct backup *b, int rv, const char *err)
{
    enum native_backup_end end = rv == TQ_ENOSPC ? NATIVE_BACKUP_NO_SPACE : NATIVE_BACKUP_FAILED;

    return fail(b, end, "%s%s", err, rv == TQ_EINVAL ? ": the log itself is damaged there" : "");
}

static bool is_canceled(void *ctx)
{
    return atomic_load(&((struct backup *)ctx)->canceled);
}

static bool copy(struct backup *b)
{
    char err[LOG_ERROR_MAX] = "";
    int rv = fs_posix_open(&b->from, b->source, false, false, err);

    if (rv != TQ_OK)
        return fail_copy(b, rv, err);
    rv = fs_posix_open(&b->to, b->dir, false, true, err);
    if (rv != TQ_OK) {
        fs_posix_close(&b->from);
        return fail_copy(b, rv, err);
    }
    b->copy.from = &b->from.fs;
    b->copy.to = &b->to.fs;
    b->copy.buffer = b->buffer;
    b->copy.canceled = is_canceled;
    b->copy.ctx = b;
    rv = log_copy_run(&b->copy, err);
    fs_posix_close(&b->to);
    fs_posix_close(&b->from);
    return rv == TQ_OK || fail_copy(b, rv, err);
}

/* The name of the folder itself is on stable storage, too. */
static bool sync_above(struct backup *b)
{
    char above[NATIVE_PATH_MAX + 1];
    char *slash;
    int fd, e = 0;

    memcpy(above, b->dir, sizeof(above));
    slash = strrchr(above, '/');
    TQ_ASSERT(slash != NULL);
    slash[slash == above ? 1 : 0] = '\0';
    fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        e = errno;
    if (fd >= 0)
        (void)close(fd);
    /* One that we may write to, but not read, cannot be synced by us. */
    return e == 0 || e == EACCES || fail_errno(b, "the folder above cannot be synced", e);
}

static void run(void *arg)
{
    struct backup *b = arg;
    bool made = false;

    if (make_dir(b, &made) && copy(b) && sync_above(b)) {
        b->result.index = b->copy.last_index;
        b->result.bytes = b->copy.bytes;
        b->result.files = b->copy.files;
    } else if (made) {
        char lock[NATIVE_PATH_MAX + 8];

        snprintf(lock, sizeof(lock), "%s/lock", b->dir);
        (void)unlink(lock);
        (void)rmdir(b->dir);
    }
    (void)uv_async_send(&b->done);
}

/* ---- the loop's side ---- */

static void on_closed(uv_handle_t *handle)
{
    tq_free(handle->data);
}

/* The thread has come to its end, or does so soon. */
static void end(struct backup *b)
{
    struct server *s = b->server;
    uint64_t ms = server_now_ms(s) - b->began_ms;
    char quoted[300];

    (void)uv_thread_join(&b->thread);
    store_unpin(durable_store(s));
    s->backup = NULL;
    tq_log_quote(quoted, sizeof(quoted), b->dir, strlen(b->dir));
    if (b->result.end == NATIVE_BACKUP_GOOD)
        tq_log(TQ_LOG_INFO, "BACKUP-DONE", "dir=\"%s\" index=%llu files=%llu bytes=%llu ms=%llu", quoted,
               (unsigned long long)b->result.index, (unsigned long long)b->result.files,
               (unsigned long long)b->result.bytes, (unsigned long long)ms);
    else
        tq_log(TQ_LOG_WARN, "BACKUP-FAILED", "dir=\"%s\" ms=%llu err=\"%s\"", quoted, (unsigned long long)ms,
               b->result.text);
    s->counters.backups += b->result.end == NATIVE_BACKUP_GOOD;
    s->counters.backups_failed += b->result.end != NATIVE_BACKUP_GOOD;
    native_backup_done(s->native, b->token, &b->result);
    uv_close((uv_handle_t *)&b->done, on_closed);
}

static void on_done(uv_async_t *done)
{
    struct backup *b = done->data;

    if (!uv_is_closing((uv_handle_t *)done))
        end(b);
}

static void refuse(struct native_backup *ret, enum native_backup_end why, const char *text)
{
    ret->end = why;
    snprintf(ret->text, sizeof(ret->text), "%s", text);
}

static void start(struct backup *b, struct native_backup *ret)
{
    struct server *s = b->server;
    struct log_pin pin;

    if (uv_async_init(s->loop, &b->done, on_done) != 0) {
        tq_free(b);
        refuse(ret, NATIVE_BACKUP_FAILED, "no descriptor for it: raise the limit of open files (ulimit -n)");
        return;
    }
    b->done.data = b;
    store_pin(durable_store(s), &pin);
    b->copy.first_segment = pin.first_segment;
    b->copy.last_index = pin.last_index;
    if (uv_thread_create(&b->thread, run, b) != 0) {
        store_unpin(durable_store(s));
        uv_close((uv_handle_t *)&b->done, on_closed);
        refuse(ret, NATIVE_BACKUP_FAILED, "no thread for it: too many processes, or no memory");
        return;
    }
    s->backup = b;
}

void backup_begin(struct server *s, uint64_t token, const char *dir, struct native_backup *ret)
{
    size_t n = strlen(dir);
    struct backup *b;

    if (durable_store(s) == NULL) {
        refuse(ret, NATIVE_BACKUP_IMPOSSIBLE,
               "this task-master keeps all in memory: without --data-dir there is nothing to copy");
        return;
    }
    if (s->backup != NULL || s->stopping) {
        refuse(ret, NATIVE_BACKUP_BUSY,
               s->stopping ? "this task-master stops"
                           : "another backup is being made: wait until it has ended");
        return;
    }
    b = tq_calloc(1, sizeof(*b));
    if (b == NULL) {
        refuse(ret, NATIVE_BACKUP_FAILED, "out of memory");
        return;
    }
    while (n > 1 && dir[n - 1] == '/') /* a slash at the end would follow a link */
        n--;
    TQ_ASSERT(n < sizeof(b->dir));
    memcpy(b->dir, dir, n);
    b->server = s;
    b->token = token;
    b->began_ms = server_now_ms(s);
    b->source = s->config->data_dir;
    atomic_init(&b->canceled, false);
    start(b, ret);
}

void backup_close(struct server *s)
{
    if (s->backup == NULL)
        return;
    atomic_store(&s->backup->canceled, true);
    end(s->backup);
}

unsigned backup_stats(const struct server *s, struct native_stat *out, unsigned max)
{
    const struct native_stat all[] = {
        {"backups", s->counters.backups},
        {"backups_failed", s->counters.backups_failed},
        {"backup_running", s->backup != NULL},
    };
    unsigned n = 0;

    for (; n < max && n < sizeof(all) / sizeof(all[0]); n++)
        out[n] = all[n];
    return n;
}
