/* The log on its own thread, on real files, under a real loop. Meant for the thread sanitizer above all. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"
#include "master/disk/fs_posix.h"
#include "master/disk/log_thread.h"
#include "master/log/log.h"

#define RECORDS 3000u

struct daemon {
    uv_loop_t loop;
    uv_prepare_t turn;
    uv_idle_t busy; /* as long as there is something to put */
    struct log_thread *thread;
    struct fs_posix fs;
    struct log *log;
    char dir[64];
    uint64_t now_ms;
    unsigned put, puts_wanted, done, submits, progress;
    bool closing;
    struct log_need needs[RECORDS + 1]; /* replies that wait, in order */
    unsigned need_count, met;
    uint64_t last_written, last_synced;
    size_t len;
};

static void submit(void *ctx, struct log_job *job)
{
    struct daemon *d = ctx;

    d->submits++;
    log_thread_submit(d->thread, job);
}

static void on_progress(void *ctx)
{
    struct daemon *d = ctx;
    struct log_status s;

    d->progress++;
    log_get_status(d->log, &s);
    assert_false(s.failed);
    assert_true(s.written >= d->last_written && s.synced >= d->last_synced && s.synced <= s.written);
    d->last_written = s.written;
    d->last_synced = s.synced;
    while (d->met < d->need_count && log_is_met(d->log, d->needs[d->met]))
        d->met++;
}

static void on_done(void *ctx)
{
    struct daemon *d = ctx;

    d->done++;
    log_done(d->log, d->now_ms);
}

static void on_turn(uv_prepare_t *p)
{
    struct daemon *d = p->data;

    for (unsigned i = 0; i < 5 && d->put < d->puts_wanted && !log_is_busy(d->log); i++, d->put++) {
        struct tq_buf *buf = log_begin(d->log);
        size_t len = d->len + d->put % 7 * 100;
        uint64_t index;

        assert_non_null(buf);
        assert_int_equal(tq_buf_reserve(buf, len), TQ_OK);
        memset(buf->data + buf->len, (int)(d->put & 0xff), len);
        buf->len += len;
        assert_int_equal(log_commit(d->log, LOG_OPS, (enum log_wait)(d->put % 3), &index), TQ_OK);
        d->needs[d->need_count++] = log_need_now(d->log);
    }
    d->now_ms++;
    if (d->put % 100 == 99)
        log_release(d->log, log_segment(d->log));
    if (d->put == d->puts_wanted && !d->closing) {
        uint64_t index;

        d->closing = true;
        assert_int_equal(log_close_record(d->log, &index), TQ_OK);
        d->needs[d->need_count++] = log_need_now(d->log);
        uv_idle_stop(&d->busy);
    }
    log_kick(d->log, d->now_ms);
    if (d->closing && d->met == d->need_count) {
        log_thread_close(d->thread);
        uv_close((uv_handle_t *)&d->turn, NULL);
        uv_close((uv_handle_t *)&d->busy, NULL);
    }
}

static void on_idle(uv_idle_t *unused)
{
    (void)unused;
}

struct count {
    unsigned records;
    uint64_t last;
};

static int on_record(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                     char err[LOG_ERROR_MAX])
{
    struct count *c = ctx;

    (void)segment, (void)err;
    for (size_t i = 1; i < payload.len; i++)
        assert_int_equal(payload.data[i], payload.data[0]);
    c->records++;
    c->last = h->index;
    return TQ_OK;
}

static void make_dir(struct daemon *d)
{
    char err[LOG_ERROR_MAX];

    strcpy(d->dir, "/tmp/test_log_thread.XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    assert_int_equal(fs_posix_open(&d->fs, d->dir, false, true, err), TQ_OK);
}

static void remove_dir(struct daemon *d)
{
    DIR *dir = opendir(d->dir);
    struct dirent *e;
    char path[400];

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", d->dir, e->d_name);
        if (e->d_name[0] != '.')
            assert_int_equal(unlink(path), 0);
    }
    closedir(dir);
    assert_int_equal(rmdir(d->dir), 0);
}

static void open_log(struct daemon *d, struct count *ret)
{
    struct log_conf conf = {.segment_bytes = 128 * 1024,
                            .group_bytes = 64 * 1024,
                            .interval_ms = 1000,
                            .uuid = {9},
                            .now_ms = d->now_ms};
    struct log_host host = {.ctx = d, .submit = submit, .on_progress = on_progress};
    struct log_reader reader = {.ctx = ret, .record = on_record};
    struct log_state state;
    char err[LOG_ERROR_MAX];

    *ret = (struct count){0};
    assert_int_equal(log_recover(&d->fs.fs, &reader, &state, err), TQ_OK);
    assert_int_equal(log_open(&d->log, &d->fs.fs, &conf, &host, &state, err), TQ_OK);
    log_set_reserve(d->log, 200000);
}

static void run(struct daemon *d, unsigned puts, size_t len)
{
    d->puts_wanted = puts;
    d->len = len;
    d->put = d->need_count = d->met = 0;
    d->last_written = d->last_synced = 0;
    d->closing = false;
    assert_int_equal(uv_loop_init(&d->loop), 0);
    assert_int_equal(log_thread_open(&d->thread, &d->loop, on_done, d), TQ_OK);
    assert_int_equal(uv_prepare_init(&d->loop, &d->turn), 0);
    assert_int_equal(uv_idle_init(&d->loop, &d->busy), 0);
    d->turn.data = d;
    assert_int_equal(uv_prepare_start(&d->turn, on_turn), 0);
    assert_int_equal(uv_idle_start(&d->busy, on_idle), 0);
    assert_int_equal(uv_run(&d->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&d->loop), 0);
    log_free(d->log);
}

static void test_records_go_through_the_thread(void **state)
{
    struct daemon *d = calloc(1, sizeof(*d));
    struct count c;

    (void)state;
    assert_non_null(d);
    make_dir(d);
    open_log(d, &c);
    assert_int_equal(c.records, 0);
    run(d, RECORDS, 20);
    assert_int_equal(d->met, RECORDS + 1);
    assert_true(d->done >= d->submits - 1); /* and sometimes two words for one */
    open_log(d, &c);
    assert_true(c.last >= RECORDS);
    run(d, 300, 5000); /* through many segments, which are used again */
    assert_int_equal(d->met, 301);
    open_log(d, &c);
    assert_true(c.records > 0);
    log_free(d->log);
    fs_posix_close(&d->fs);
    remove_dir(d);
    free(d);
}

/* ---- the thread itself, and being closed in the middle of a job ---- */

struct gate { /* an fs whose sync waits until it is let go */
    struct log_fs fs;
    struct log_fs *under;
    uv_sem_t entered, go_on;
    char name[32];
    sigset_t mask;
    bool armed;
};

static int gate_sync(struct log_fs *fs, int file)
{
    struct gate *g = fs->ctx;

    if (g->armed) {
        (void)pthread_getname_np(pthread_self(), g->name, sizeof(g->name));
        (void)pthread_sigmask(SIG_SETMASK, NULL, &g->mask);
        uv_sem_post(&g->entered);
        uv_sem_wait(&g->go_on);
    }
    return g->under->sync(g->under, file);
}

static int gate_write(struct log_fs *fs, int file, uint64_t offset, struct tq_span bytes)
{
    struct gate *g = fs->ctx;

    return g->under->write(g->under, file, offset, bytes);
}

static int gate_open(struct log_fs *fs, const char *name, unsigned flags)
{
    struct gate *g = fs->ctx;

    return g->under->open(g->under, name, flags);
}

static int gate_allocate(struct log_fs *fs, int file, uint64_t bytes)
{
    struct gate *g = fs->ctx;

    return g->under->allocate(g->under, file, bytes);
}

static int gate_truncate(struct log_fs *fs, int file, uint64_t bytes)
{
    struct gate *g = fs->ctx;

    return g->under->truncate(g->under, file, bytes);
}

static int gate_rename(struct log_fs *fs, const char *from, const char *to)
{
    struct gate *g = fs->ctx;

    return g->under->rename(g->under, from, to);
}

static int gate_sync_dir(struct log_fs *fs)
{
    struct gate *g = fs->ctx;

    return g->under->sync_dir(g->under);
}

static uint64_t gate_free_bytes(struct log_fs *fs)
{
    struct gate *g = fs->ctx;

    return g->under->free_bytes(g->under);
}

static void gate_close(struct log_fs *fs, int file)
{
    struct gate *g = fs->ctx;

    g->under->close(g->under, file);
}

static void gate_init(struct gate *g, struct log_fs *under)
{
    *g = (struct gate){.under = under};
    g->fs = (struct log_fs){.ctx = g,
                            .open = gate_open,
                            .close = gate_close,
                            .write = gate_write,
                            .allocate = gate_allocate,
                            .truncate = gate_truncate,
                            .sync = gate_sync,
                            .rename = gate_rename,
                            .sync_dir = gate_sync_dir,
                            .free_bytes = gate_free_bytes};
    assert_int_equal(uv_sem_init(&g->entered, 0), 0);
    assert_int_equal(uv_sem_init(&g->go_on, 0), 0);
}

/* A reply that only waits for the write goes out while the sync still runs; the other one when that is over.
 */
static void test_the_loop_goes_on_while_the_disk_syncs(void **state)
{
    struct daemon *d = calloc(1, sizeof(*d));
    struct log_conf conf = {
        .segment_bytes = 128 * 1024, .group_bytes = 64 * 1024, .interval_ms = 1000, .uuid = {9}};
    struct log_host host = {.ctx = d, .submit = submit, .on_progress = on_progress};
    struct log_state fresh = {.next_index = 1};
    struct log_need written = {0}, synced;
    char err[LOG_ERROR_MAX];
    struct log_status s;
    struct tq_buf *buf;
    struct gate g;
    uint64_t index;

    (void)state;
    assert_non_null(d);
    make_dir(d);
    gate_init(&g, &d->fs.fs);
    assert_int_equal(log_open(&d->log, &g.fs, &conf, &host, &fresh, err), TQ_OK);
    g.armed = true;
    assert_int_equal(uv_loop_init(&d->loop), 0);
    assert_int_equal(log_thread_open(&d->thread, &d->loop, on_done, d), TQ_OK);
    for (int i = 0; i < 2; i++) {
        buf = log_begin(d->log);
        assert_int_equal(tq_buf_append_str(buf, "record"), TQ_OK);
        assert_int_equal(log_commit(d->log, LOG_OPS, i == 0 ? LOG_SYNCED : LOG_WRITTEN, &index), TQ_OK);
    }
    synced = log_need_now(d->log);
    written.written = index;
    log_kick(d->log, 1);
    uv_sem_wait(&g.entered);
    assert_string_equal(g.name, "taskq-log");
    assert_int_equal(sigismember(&g.mask, SIGTERM), 1);
    assert_int_equal(sigismember(&g.mask, SIGCHLD), 1);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &g.mask);
    assert_int_equal(sigismember(&g.mask, SIGTERM), 0); /* here they still come */
    while (d->progress == 0)
        (void)uv_run(&d->loop, UV_RUN_ONCE);
    assert_true(log_is_met(d->log, written));
    assert_false(log_is_met(d->log, synced));
    log_get_status(d->log, &s);
    assert_int_equal(s.synced, 1);
    uv_sem_post(&g.go_on);
    while (!log_is_met(d->log, synced))
        (void)uv_run(&d->loop, UV_RUN_ONCE);
    /* Chores may have been behind it: closing waits for what is being run. */
    uv_sem_post(&g.go_on);
    uv_sem_post(&g.go_on);
    log_thread_close(d->thread);
    assert_int_equal(uv_run(&d->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&d->loop), 0);
    log_free(d->log);
    fs_posix_close(&d->fs);
    remove_dir(d);
    uv_sem_destroy(&g.entered);
    uv_sem_destroy(&g.go_on);
    free(d);
}

static void test_a_thread_without_work(void **state)
{
    struct daemon d = {0};

    (void)state;
    assert_int_equal(uv_loop_init(&d.loop), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(log_thread_open(&d.thread, &d.loop, on_done, &d), TQ_OK);
        log_thread_close(d.thread);
    }
    log_thread_close(NULL);
    assert_int_equal(uv_run(&d.loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&d.loop), 0);
    assert_int_equal(d.done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_go_through_the_thread),
        cmocka_unit_test(test_the_loop_goes_on_while_the_disk_syncs),
        cmocka_unit_test(test_a_thread_without_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
