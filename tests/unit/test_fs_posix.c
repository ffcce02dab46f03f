/* The log's files on a real disk: what is refused, the lock, and calls that do less than they were asked to.
 * The system's calls that the latter is about are taken over here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "master/disk/fs_posix.h"

/* ---- the system, as it likes ---- */

static struct {
    unsigned eintr; /* so many calls are interrupted first */
    size_t most;    /* bytes of one read or write; 0: no limit */
    long room;      /* bytes that may still be written; < 0: any */
    int allocate_error, sync_error, no_room;
    unsigned syncs;
} sys;

static bool interrupted(void)
{
    if (sys.eintr == 0)
        return false;
    sys.eintr--;
    errno = EINTR;
    return true;
}

ssize_t pread(int fd, void *out, size_t n, off_t offset)
{
    if (interrupted())
        return -1;
    return syscall(SYS_pread64, fd, out, sys.most > 0 && n > sys.most ? sys.most : n, offset);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    if (interrupted())
        return -1;
    if (sys.most > 0 && n > sys.most)
        n = sys.most;
    if (sys.room >= 0 && n > (size_t)sys.room) {
        n = (size_t)sys.room;
        if (n == 0) {
            errno = sys.no_room;
            return -1;
        }
    }
    if (sys.room >= 0)
        sys.room -= (long)n;
    return syscall(SYS_pwrite64, fd, p, n, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (interrupted())
        return -1;
    if (sys.allocate_error != 0) {
        errno = sys.allocate_error;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int fdatasync(int fd)
{
    sys.syncs++;
    if (sys.sync_error != 0) {
        errno = sys.sync_error;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* ---- a folder for each test ---- */

static char base[64];
static char dir[128];
static char err[LOG_ERROR_MAX];

static const char *at(const char *name)
{
    static char path[4][192];
    static unsigned next;
    char *p = path[next++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static int setup(void **state)
{
    (void)state;
    sys.eintr = sys.syncs = 0;
    sys.most = 0;
    sys.room = -1;
    sys.allocate_error = sys.sync_error = 0;
    sys.no_room = ENOSPC;
    snprintf(base, sizeof(base), "/tmp/test_fs_posix.XXXXXX");
    assert_non_null(mkdtemp(base));
    snprintf(dir, sizeof(dir), "%s/data", base);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): a name of our own */
    return 0;
}

static void opened(struct fs_posix *f, bool create)
{
    int rv = fs_posix_open(f, dir, create, true, err);

    if (rv != TQ_OK)
        print_error("%s\n", err);
    assert_int_equal(rv, TQ_OK);
}

static void refused(const char *path, bool create, int want, const char *words)
{
    struct fs_posix f;

    assert_int_equal(fs_posix_open(&f, path, create, true, err), want);
    if (strstr(err, words) == NULL)
        print_error("%s\n", err);
    assert_non_null(strstr(err, words));
    assert_non_null(strstr(err, "data directory"));
    assert_int_equal(f.dir, -1);
    assert_int_equal(f.lock, -1);
}

static void put(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* ---- the directory ---- */

static void test_made(void **state)
{
    struct fs_posix f;
    struct stat st;
    char path[192];

    (void)state;
    refused(dir, false, TQ_ENOTFOUND, "cannot be opened");
    opened(&f, true);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(at("lock"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    fs_posix_close(&f);
    opened(&f, true);
    fs_posix_close(&f);
    opened(&f, false);
    fs_posix_close(&f);
    snprintf(path, sizeof(path), "%s/no/such", dir);
    refused(path, true, TQ_ENOTFOUND, "make the directory above it first");
    refused("", true, TQ_EIO, "no path");
}

static void test_refused_directories(void **state)
{
    char link[160];

    (void)state;
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chmod(dir, 0770), 0);
    refused(dir, true, TQ_EIO, "chmod 700");
    assert_int_equal(chmod(dir, 0702), 0);
    refused(dir, true, TQ_EIO, "mode 0702");
    assert_int_equal(chmod(dir, 0755), 0);
    snprintf(link, sizeof(link), "%s/link", base);
    assert_int_equal(symlink(dir, link), 0);
    refused(link, true, TQ_EIO, "symbolic link");
    strcat(link, "/"); /* NOLINT: it has room */
    refused(link, true, TQ_EIO, "symbolic link");
    put("file", "x");
    refused(at("file"), true, TQ_EIO, "cannot be opened");
}

/* Root gives one away; for others what is root's is not theirs. */
static void test_owner(void **state)
{
    struct fs_posix f;

    (void)state;
    if (geteuid() != 0) {
        refused("/", false, TQ_EIO, "belongs to user 0");
        return;
    }
    opened(&f, true);
    put("0000000000000001.log", "x");
    assert_int_equal(chown(at("0000000000000001.log"), 12345, 12345), 0);
    assert_int_equal(f.fs.open(&f.fs, "0000000000000001.log", LOG_FS_READ), TQ_EIO);
    assert_non_null(strstr(f.fs.error, "0000000000000001.log: it belongs to another user"));
    fs_posix_close(&f);
    assert_int_equal(chown(dir, 12345, 12345), 0);
    refused(dir, true, TQ_EIO, "belongs to user 12345");
}

/* ---- the lock ---- */

static void test_lock(void **state)
{
    struct fs_posix f, g;
    int ready[2], quit[2], status;
    char byte = 0, want[64];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(quit), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(quit[1]);
        if (fs_posix_open(&f, dir, true, true, err) != TQ_OK || write(ready[1], "x", 1) != 1)
            _exit(1);
        _exit(read(quit[0], &byte, 1) == 0 ? 0 : 2); /* never closed: the lock ends with the process */
    }
    close(quit[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(want, sizeof(want), "another task-master (pid %ld) uses it", (long)child);
    refused(dir, false, TQ_EIO, want);
    assert_int_equal(fs_posix_open(&g, dir, false, false, err), TQ_OK); /* to look needs no lock */
    fs_posix_close(&g);
    close(quit[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ready[0]);
    close(ready[1]);

    opened(&f, false);
    snprintf(want, sizeof(want), "(pid %ld)", (long)getpid());
    refused(dir, false, TQ_EIO, want); /* not from within the same process either */
    assert_int_equal(truncate(at("lock"), 0), 0);
    refused(dir, false, TQ_EIO, "another task-master uses it");
    assert_int_equal(remove(at("lock")), 0); /* nor when somebody cleans up */
    refused(dir, false, TQ_EIO, "another task-master uses it");
    fs_posix_close(&f);
    opened(&f, false);
    fs_posix_close(&f);
}

/* The lock is taken on a disk that is full, too. */
static void test_lock_without_room(void **state)
{
    struct fs_posix f;

    (void)state;
    sys.room = 0;
    opened(&f, true);
    refused(dir, false, TQ_EIO, "another task-master uses it");
    fs_posix_close(&f);
}

static void test_lock_is_no_link(void **state)
{
    char target[160];

    (void)state;
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(target, sizeof(target), "%s/precious", base);
    assert_int_equal(symlink(target, at("lock")), 0);
    refused(dir, false, TQ_EIO, "refusing lock: it is a symbolic link");
    assert_int_equal(access(target, F_OK), -1);
}

/* ---- files ---- */

static void file_refused(struct fs_posix *f, const char *words)
{
    assert_int_equal(f->fs.open(&f->fs, "x.log", LOG_FS_READ), TQ_EIO);
    if (strstr(f->fs.error, words) == NULL)
        print_error("%s\n", f->fs.error);
    assert_non_null(strstr(f->fs.error, words));
    assert_non_null(strstr(f->fs.error, "x.log"));
    assert_int_equal(f->fs.open(&f->fs, "x.log", LOG_FS_WRITE), TQ_EIO);
    assert_int_equal(remove(at("x.log")), 0);
}

static void test_refused_files(void **state)
{
    struct fs_posix f;

    (void)state;
    opened(&f, true);
    assert_int_equal(f.fs.open(&f.fs, "x.log", LOG_FS_READ), TQ_ENOTFOUND);
    put("y", "x");
    assert_int_equal(symlink("y", at("x.log")), 0);
    file_refused(&f, "symbolic link");
    assert_int_equal(link(at("y"), at("x.log")), 0);
    file_refused(&f, "more than one name");
    put("x.log", "x");
    assert_int_equal(chmod(at("x.log"), 0620), 0);
    file_refused(&f, "chmod go-w");
    assert_int_equal(mkfifo(at("x.log"), 0600), 0); /* nobody waits for the other end */
    file_refused(&f, "");
    assert_int_equal(mkdir(at("x.log"), 0700), 0);
    file_refused(&f, "");
    put("x.log", "x");
    assert_int_equal(f.fs.open(&f.fs, "x.log", LOG_FS_WRITE | LOG_FS_CREATE), TQ_EEXISTS);
    fs_posix_close(&f);
}

static void count_name(void *ctx, const char *name)
{
    unsigned *n = ctx;

    assert_true(strcmp(name, "lock") == 0 || strcmp(name, "a.log") == 0 || strcmp(name, "b.log") == 0);
    ++*n;
}

static unsigned names(struct fs_posix *f)
{
    unsigned n = 0;

    assert_int_equal(f->fs.list(&f->fs, count_name, &n), TQ_OK);
    return n;
}

static void test_files(void **state)
{
    struct fs_posix f;
    uint8_t out[20];
    uint64_t size;
    struct stat st;
    int a;

    (void)state;
    opened(&f, true);
    a = f.fs.open(&f.fs, "a.log", LOG_FS_WRITE | LOG_FS_CREATE);
    assert_true(a >= 0 && names(&f) == 2 && names(&f) == 2);
    assert_int_equal(fstat(a, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true((fcntl(a, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(f.fs.allocate(&f.fs, a, 10000), TQ_OK);
    assert_int_equal(f.fs.size(&f.fs, a, &size), TQ_OK);
    assert_int_equal(size, 10000);
    assert_int_equal(f.fs.write(&f.fs, a, 9990, tq_span("0123456789", 10)), TQ_OK);
    assert_int_equal(f.fs.read(&f.fs, a, 9985, out, sizeof(out)), 15);
    assert_memory_equal(out,
                        "\0\0\0\0\0"
                        "0123456789",
                        15);
    assert_int_equal(f.fs.read(&f.fs, a, 10000, out, sizeof(out)), 0);
    assert_int_equal(f.fs.allocate(&f.fs, a, 5000), TQ_OK); /* shorter, too */
    assert_int_equal(f.fs.size(&f.fs, a, &size), TQ_OK);
    assert_int_equal(size, 5000);
    assert_int_equal(f.fs.allocate(&f.fs, a, 10000), TQ_OK);
    assert_int_equal(f.fs.read(&f.fs, a, 9990, out, 10), 10);
    assert_memory_equal(out, "\0\0\0\0\0\0\0\0\0\0", 10);
    assert_int_equal(f.fs.truncate(&f.fs, a, 7), TQ_OK);
    assert_int_equal(f.fs.size(&f.fs, a, &size), TQ_OK);
    assert_int_equal(size, 7);
    assert_int_equal(f.fs.allocate(&f.fs, a, 0), TQ_OK);
    assert_int_equal(f.fs.sync(&f.fs, a), TQ_OK);
    f.fs.close(&f.fs, a);
    assert_int_equal(f.fs.rename(&f.fs, "a.log", "b.log"), TQ_OK);
    assert_int_equal(f.fs.rename(&f.fs, "a.log", "b.log"), TQ_ENOTFOUND);
    assert_int_equal(f.fs.sync_dir(&f.fs), TQ_OK);
    assert_int_equal(f.fs.open(&f.fs, "a.log", LOG_FS_READ), TQ_ENOTFOUND);
    put("a.log", "new");
    assert_int_equal(f.fs.rename(&f.fs, "a.log", "b.log"), TQ_OK); /* takes the place of the other */
    a = f.fs.open(&f.fs, "b.log", LOG_FS_READ);
    assert_int_equal(f.fs.read(&f.fs, a, 0, out, sizeof(out)), 3);
    assert_int_equal(f.fs.write(&f.fs, a, 0, tq_span("x", 1)), TQ_EIO);
    assert_non_null(strstr(f.fs.error, "cannot write to b.log: "));
    f.fs.close(&f.fs, a);
    assert_int_equal(f.fs.remove(&f.fs, "b.log"), TQ_OK);
    assert_int_equal(f.fs.remove(&f.fs, "b.log"), TQ_ENOTFOUND);
    assert_int_equal(names(&f), 1);
    fs_posix_close(&f);
}

static void test_less_than_asked(void **state)
{
    uint8_t bytes[1000], out[1000];
    struct fs_posix f;
    int a;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 3);
    opened(&f, true);
    a = f.fs.open(&f.fs, "a.log", LOG_FS_WRITE | LOG_FS_CREATE);
    sys.eintr = 3;
    sys.most = 7;
    assert_int_equal(f.fs.allocate(&f.fs, a, 2000), TQ_OK);
    sys.eintr = 3;
    assert_int_equal(f.fs.write(&f.fs, a, 11, tq_span(bytes, sizeof(bytes))), TQ_OK);
    sys.eintr = 3;
    assert_int_equal(f.fs.read(&f.fs, a, 11, out, sizeof(out)), sizeof(out));
    assert_memory_equal(out, bytes, sizeof(out));
    f.fs.close(&f.fs, a);
    fs_posix_close(&f);
}

static void test_no_room(void **state)
{
    static const int why[] = {ENOSPC, EDQUOT};
    uint8_t bytes[1000] = {1};
    struct fs_posix f;
    uint64_t size;
    int a;

    (void)state;
    opened(&f, true);
    a = f.fs.open(&f.fs, "a.log", LOG_FS_WRITE | LOG_FS_CREATE);
    for (size_t i = 0; i < 2; i++) {
        sys.no_room = why[i];
        sys.room = 300;
        assert_int_equal(f.fs.write(&f.fs, a, 0, tq_span(bytes, sizeof(bytes))), TQ_ENOSPC);
        assert_non_null(strstr(f.fs.error, "a.log"));
        sys.room = -1;
        sys.allocate_error = why[i];
        assert_int_equal(f.fs.allocate(&f.fs, a, 5000), TQ_ENOSPC);
        sys.allocate_error = EOPNOTSUPP; /* then zeros are written, and what was is as it was */
        sys.room = 100;
        assert_int_equal(f.fs.size(&f.fs, a, &size), TQ_OK);
        assert_int_equal(f.fs.allocate(&f.fs, a, 200000), TQ_ENOSPC);
        assert_non_null(strstr(f.fs.error, "a.log"));
        sys.room = -1;
        uint64_t after = 0;
        assert_int_equal(f.fs.size(&f.fs, a, &after), TQ_OK);
        assert_int_equal(after, size);
        sys.allocate_error = 0;
    }
    sys.allocate_error = EOPNOTSUPP;
    assert_int_equal(f.fs.allocate(&f.fs, a, 200000), TQ_OK);
    assert_int_equal(f.fs.size(&f.fs, a, &size), TQ_OK);
    assert_int_equal(size, 200000);
    assert_int_equal(f.fs.read(&f.fs, a, 0, bytes, 1), 1);
    assert_int_equal(bytes[0], 1);
    sys.allocate_error = EIO;
    assert_int_equal(f.fs.allocate(&f.fs, a, 300000), TQ_EIO);
    f.fs.close(&f.fs, a);
    fs_posix_close(&f);
}

/* Once, and never again: whatever the reason, it is final. */
static void test_sync_fails(void **state)
{
    static const int why[] = {EIO, ENOSPC, EDQUOT, EINTR};
    struct fs_posix f;
    int a;

    (void)state;
    opened(&f, true);
    a = f.fs.open(&f.fs, "a.log", LOG_FS_WRITE | LOG_FS_CREATE);
    for (size_t i = 0; i < sizeof(why) / sizeof(why[0]); i++) {
        sys.sync_error = why[i];
        sys.syncs = 0;
        assert_int_equal(f.fs.sync(&f.fs, a), TQ_EIO);
        assert_int_equal(sys.syncs, 1);
        assert_non_null(strstr(f.fs.error, "cannot sync a.log: "));
    }
    f.fs.close(&f.fs, a);
    fs_posix_close(&f);
}

/* That is over soon, and the log tries again. */
static void test_no_descriptor_now(void **state)
{
    struct rlimit before, none;
    struct fs_posix f;
    int rv;

    (void)state;
    opened(&f, true);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rv = f.fs.open(&f.fs, "x.log", LOG_FS_WRITE | LOG_FS_CREATE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(rv, TQ_ELIMIT);
    assert_non_null(strstr(f.fs.error, "cannot open x.log: "));
    f.fs.close(&f.fs, f.fs.open(&f.fs, "x.log", LOG_FS_WRITE | LOG_FS_CREATE));
    fs_posix_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_directories, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock_is_no_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptor_now, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_less_than_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_fails, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
