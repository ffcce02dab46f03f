#include "master/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

#define WATCH_MS   200u
#define SOURCE_MAX 4096u /* PATH_MAX: a longer one could not be opened */

/* A folder may hang (a network's, a device's), and with it the thread, whatever it is told. So nothing here
 * waits for the thread but the loop: a copy that does not get on for `backup_timeout_ms` is given up (whoever
 * waits is told, and the log is not pinned any more), and a stop goes on without it after `stop_timeout_ms`.
 */
struct backup {
    struct server *server;
    uv_async_t done;
    uv_timer_t watch;
    unsigned handles; /* of these, that are open */
    uv_thread_t thread;
    uint64_t token, began_ms;
    bool given_up;        /* its end has been told, the log is not pinned */
    uint64_t stop_by_ms;  /* the server stops: then it goes on alone; UINT64_MAX: it does not */
    uint64_t progress_ms; /* when it last got on */
    unsigned seen;        /* `progress` then */

    struct log_copy copy;
    struct fs_posix from, to;
    atomic_bool canceled;
    atomic_uint progress;
    pthread_mutex_t lock;        /* of the next */
    bool abandoned;              /* nobody is there any more to be told */
    struct native_backup result; /* the thread's, until it is done */
    char source[SOURCE_MAX];     /* a copy: the configuration may go first */
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
    /* cppcheck-suppress readdirCalled ; nobody else reads this one */
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
    struct backup *b = ctx;

    atomic_fetch_add(&b->progress, 1);
    return atomic_load(&b->canceled);
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

    (void)pthread_setname_np(pthread_self(), "taskq-backup");
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
    (void)pthread_mutex_lock(&b->lock);
    if (!b->abandoned)
        (void)uv_async_send(&b->done);
    (void)pthread_mutex_unlock(&b->lock);
}

/* ---- the loop's side ---- */

static void on_closed(uv_handle_t *handle)
{
    struct backup *b = handle->data;

    if (--b->handles > 0 || b->abandoned)
        return;
    (void)pthread_mutex_destroy(&b->lock);
    tq_free(b);
}

static void close_handles(struct backup *b)
{
    b->server->backup = NULL;
    uv_close((uv_handle_t *)&b->done, on_closed);
    uv_close((uv_handle_t *)&b->watch, on_closed);
}

/* Once: its end is known, whatever the thread still does. */
static void tell(struct backup *b, const struct native_backup *result)
{
    struct server *s = b->server;
    uint64_t ms = server_now_ms(s) - b->began_ms;
    char quoted[300];

    b->given_up = true;
    store_unpin(durable_store(s));
    tq_log_quote(quoted, sizeof(quoted), b->dir, strlen(b->dir));
    if (result->end == NATIVE_BACKUP_GOOD)
        tq_log(TQ_LOG_INFO, "BACKUP-DONE", "dir=\"%s\" index=%llu files=%llu bytes=%llu ms=%llu", quoted,
               (unsigned long long)result->index, (unsigned long long)result->files,
               (unsigned long long)result->bytes, (unsigned long long)ms);
    else
        tq_log(TQ_LOG_WARN, "BACKUP-FAILED", "dir=\"%s\" ms=%llu err=\"%s\"", quoted, (unsigned long long)ms,
               result->text);
    s->counters.backups += result->end == NATIVE_BACKUP_GOOD;
    s->counters.backups_failed += result->end != NATIVE_BACKUP_GOOD;
    native_backup_done(s->native, b->token, result);
}

static void give_up(struct backup *b, const char *text)
{
    struct native_backup result = {.end = NATIVE_BACKUP_FAILED};

    atomic_store(&b->canceled, true);
    if (b->given_up)
        return;
    snprintf(result.text, sizeof(result.text), "%s", text);
    tell(b, &result);
}

static void on_done(uv_async_t *done)
{
    struct backup *b = done->data;

    if (uv_is_closing((uv_handle_t *)done))
        return;
    (void)uv_thread_join(&b->thread);
    if (!b->given_up)
        tell(b, &b->result);
    close_handles(b);
}

/* The process ends without it: what the thread holds is not freed. */
static void abandon(struct backup *b)
{
    static struct backup *lost;

    (void)pthread_mutex_lock(&b->lock);
    b->abandoned = true;
    (void)pthread_mutex_unlock(&b->lock);
    lost = b; /* so that it is seen to be no leak */
    (void)lost;
    tq_log(TQ_LOG_WARN, "BACKUP-ABANDONED", "dir=\"%.200s\": the folder hangs; what is there is no backup",
           b->dir);
    close_handles(b);
}

static void on_watch(uv_timer_t *watch)
{
    struct backup *b = watch->data;
    uint64_t now_ms = server_now_ms(b->server);
    unsigned progress = atomic_load(&b->progress);

    if (progress != b->seen) {
        b->seen = progress;
        b->progress_ms = now_ms;
    }
    if (now_ms >= b->stop_by_ms)
        abandon(b);
    else if (!b->given_up && now_ms - b->progress_ms >= b->server->config->limits.backup_timeout_ms)
        give_up(
            b,
            "the folder, or the data directory, has taken or given nothing for too long (--backup-timeout)");
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
        (void)pthread_mutex_destroy(&b->lock);
        tq_free(b);
        refuse(ret, NATIVE_BACKUP_FAILED, "no descriptor for it: raise the limit of open files (ulimit -n)");
        return;
    }
    (void)uv_timer_init(s->loop, &b->watch);
    b->done.data = b->watch.data = b;
    b->handles = 2;
    s->backup = b;
    store_pin(durable_store(s), &pin);
    b->copy.first_segment = pin.first_segment;
    b->copy.last_index = pin.last_index;
    if (uv_thread_create(&b->thread, run, b) != 0) {
        store_unpin(durable_store(s));
        close_handles(b);
        refuse(ret, NATIVE_BACKUP_FAILED, "no thread for it: too many processes, or no memory");
        return;
    }
    (void)uv_timer_start(&b->watch, on_watch, WATCH_MS, WATCH_MS);
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
    b->began_ms = b->progress_ms = server_now_ms(s);
    b->stop_by_ms = UINT64_MAX;
    snprintf(b->source, sizeof(b->source), "%s", s->config->data_dir);
    atomic_init(&b->canceled, false);
    atomic_init(&b->progress, 0);
    (void)pthread_mutex_init(&b->lock, NULL);
    start(b, ret);
}

void backup_close(struct server *s)
{
    struct backup *b = s->backup;

    if (b == NULL || b->stop_by_ms != UINT64_MAX)
        return;
    b->stop_by_ms = server_now_ms(s) + s->config->limits.stop_timeout_ms;
    give_up(b, "this task-master stops");
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
