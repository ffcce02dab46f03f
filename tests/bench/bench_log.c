/* The log on this disk: records of 150 bytes in groups of so many, each group waited for, through the loop
 * and the log's thread; beside a bare loop of pwrite and fdatasync of as many bytes into a file that was
 * allocated before, which is what the disk itself takes. Rounds of the two take turns; medians of them are
 * printed. usage: bench_log [DIRECTORY] [SECONDS-A-ROUND] */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <uv.h>

#include "common/assert.h"
#include "common/err.h"
#include "master/disk/fs_posix.h"
#include "master/disk/log_thread.h"
#include "tests/bench/measure.h"

#define RECORD_BYTES 150u
#define ROUNDS       3
#define FILE_BYTES   (16u << 20)

struct round {
    double groups_per_s, p50_us, p99_us;
    double loop_ns, thread_ns; /* CPU a record */
};

struct bench {
    uv_loop_t loop;
    struct log_thread *thread;
    struct fs_posix fs;
    struct log *log;
    unsigned group;
    struct log_need need;
    uint64_t began_ns, end_ns, now_ms;
    uint64_t groups;
    struct hist hist;
};

static void submit(void *ctx, struct log_job *job)
{
    log_thread_submit(((struct bench *)ctx)->thread, job);
}

static void put_group(struct bench *b)
{
    static const uint8_t payload[RECORD_BYTES];
    uint64_t index;

    b->began_ns = now_ns();
    for (unsigned i = 0; i < b->group; i++) {
        struct tq_buf *buf = log_begin(b->log);

        TQ_ASSERT(buf != NULL && tq_buf_append(buf, payload, sizeof(payload)) == TQ_OK);
        TQ_ASSERT(log_commit(b->log, LOG_OPS, LOG_SYNCED, &index) == TQ_OK);
    }
    b->need = log_need_now(b->log);
    log_release(b->log, log_segment(b->log));
    log_kick(b->log, ++b->now_ms);
}

static void on_progress(void *ctx)
{
    struct bench *b = ctx;
    struct log_status s;

    log_get_status(b->log, &s);
    TQ_ASSERT(!s.failed && !s.no_space);
    if (!log_is_met(b->log, b->need))
        return;
    hist_add(&b->hist, now_ns() - b->began_ns);
    b->groups++;
    if (now_ns() < b->end_ns)
        put_group(b);
    else
        uv_stop(&b->loop);
}

static void on_done(void *ctx)
{
    struct bench *b = ctx;

    log_done(b->log, b->now_ms);
}

static uint64_t cpu_of_process(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static struct round with_log(struct bench *b, unsigned group, double seconds)
{
    uint64_t cpu = cpu_of_process(), mine = clock_ns(CLOCK_THREAD_CPUTIME_ID), start = now_ns();
    struct round r;
    double records;

    b->group = group;
    b->groups = 0;
    memset(&b->hist, 0, sizeof(b->hist));
    b->end_ns = start + (uint64_t)(seconds * 1e9);
    put_group(b);
    (void)uv_run(&b->loop, UV_RUN_DEFAULT);
    cpu = cpu_of_process() - cpu;
    mine = clock_ns(CLOCK_THREAD_CPUTIME_ID) - mine;
    records = (double)b->groups * group;
    r.groups_per_s = (double)b->groups * 1e9 / (double)(now_ns() - start);
    r.p50_us = hist_us(&b->hist, 0.5);
    r.p99_us = hist_us(&b->hist, 0.99);
    r.loop_ns = (double)mine / records;
    r.thread_ns = (double)(cpu - mine) / records;
    return r;
}

static struct round bare(int fd, unsigned group, double seconds)
{
    size_t len = (size_t)group * 192; /* as in a log */
    uint8_t *bytes = calloc(1, len);
    struct hist *h = calloc(1, sizeof(*h));
    uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID), start = now_ns(),
             end = start + (uint64_t)(seconds * 1e9);
    uint64_t offset = 0, groups = 0, before;
    struct round r = {0};

    TQ_ASSERT(bytes != NULL && h != NULL);
    while (now_ns() < end) {
        before = now_ns();
        memset(bytes, (int)groups, len);
        TQ_ASSERT(pwrite(fd, bytes, len, (off_t)offset) == (ssize_t)len && fdatasync(fd) == 0);
        hist_add(h, now_ns() - before);
        groups++;
        offset = offset + 2 * len > FILE_BYTES ? 0 : offset + len;
    }
    r.groups_per_s = (double)groups * 1e9 / (double)(now_ns() - start);
    r.p50_us = hist_us(h, 0.5);
    r.p99_us = hist_us(h, 0.99);
    r.thread_ns = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) / ((double)groups * group);
    free(bytes);
    free(h);
    return r;
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct round *)a)->groups_per_s, y = ((const struct round *)b)->groups_per_s;

    return (x > y) - (x < y);
}

static void print(const char *name, unsigned group, struct round *r)
{
    qsort(r, ROUNDS, sizeof(*r), by_rate);
    r += ROUNDS / 2;
    printf("%-5s %5u a group: %9.0f records/s %7.0f syncs/s, p50 %6.0f us, p99 %6.0f us; CPU a record: loop "
           "%6.0f ns, "
           "disk %6.0f ns\n",
           name, group, r->groups_per_s * group, r->groups_per_s, r->p50_us, r->p99_us, r->loop_ns,
           r->thread_ns);
}

/* ---- the directory ---- */

static int on_record(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                     char err[LOG_ERROR_MAX])
{
    (void)ctx, (void)h, (void)payload, (void)segment, (void)err;
    return TQ_OK;
}

static void open_log(struct bench *b, const char *dir)
{
    struct log_conf conf = {
        .segment_bytes = FILE_BYTES, .group_bytes = 8u << 20, .interval_ms = 1000, .uuid = {1}, .now_ms = 1};
    struct log_host host = {.ctx = b, .submit = submit, .on_progress = on_progress};
    struct log_reader reader = {.record = on_record};
    char err[LOG_ERROR_MAX] = "";
    struct log_state state;

    TQ_ASSERT(uv_loop_init(&b->loop) == 0 && log_thread_open(&b->thread, &b->loop, on_done, b) == TQ_OK);
    if (fs_posix_open(&b->fs, dir, true, true, err) != TQ_OK ||
        log_recover(&b->fs.fs, &reader, &state, err) != TQ_OK ||
        log_open(&b->log, &b->fs.fs, &conf, &host, &state, err) != TQ_OK) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
}

static void close_log(struct bench *b)
{
    log_thread_close(b->thread);
    (void)uv_run(&b->loop, UV_RUN_DEFAULT);
    TQ_ASSERT(uv_loop_close(&b->loop) == 0);
    log_free(b->log);
    fs_posix_close(&b->fs);
}

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL)
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), e->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    (void)rmdir(path);
}

static int open_bare(const char *dir)
{
    char path[4200];
    uint8_t *zero = calloc(1, FILE_BYTES);
    int fd;

    (void)snprintf(path, sizeof(path), "%s/bare", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    TQ_ASSERT(fd >= 0 && zero != NULL && pwrite(fd, zero, FILE_BYTES, 0) == FILE_BYTES && fsync(fd) == 0);
    free(zero);
    return fd;
}

int main(int argc, char **argv)
{
    static const unsigned groups[] = {1, 10, 64, 1000};
    static struct bench b;
    char dir[4096];
    double seconds = argc > 2 ? atof(argv[2]) : 1; /* NOLINT(cert-err34-c): 0 is as good as anything */
    int fd;

    (void)snprintf(dir, sizeof(dir), "%s/bench_log.XXXXXX", argc > 1 ? argv[1] : ".");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    fd = open_bare(dir);
    open_log(&b, dir);
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        struct round log[ROUNDS], disk[ROUNDS];

        for (int i = 0; i < ROUNDS; i++) {
            disk[i] = bare(fd, groups[g], seconds);
            log[i] = with_log(&b, groups[g], seconds);
        }
        print("bare", groups[g], disk);
        print("log", groups[g], log);
    }
    close_log(&b);
    close(fd);
    remove_dir(dir);
    return 0;
}
