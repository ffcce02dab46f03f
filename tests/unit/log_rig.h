/* A log on a played disk, whose jobs run when the test says so. */
#ifndef TESTS_UNIT_LOG_RIG_H
#define TESTS_UNIT_LOG_RIG_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/log/log.h"
#include "tests/lib/fake_fs.h"

#define RIG_SEGMENT  65536u
#define RIG_GROUP    30000u
#define RIG_INTERVAL 1000u

struct rig {
    struct fake_fs *fs;
    struct log *log;
    struct log_job *job; /* handed over, not run */
    uint64_t now_ms;
    unsigned submits, progress;
    bool submitted_first; /* at the last on_progress: the next job was on its way already */
    bool tell_early;      /* runs log_done from the hook, as the daemon's loop does */
    unsigned early;
    struct log_status at_early;
    uint64_t ns;
};

static inline struct log_status rig_status(const struct rig *r)
{
    struct log_status s;

    log_get_status(r->log, &s);
    return s;
}

static inline void rig_submit(void *ctx, struct log_job *job)
{
    struct rig *r = ctx;

    assert_null(r->job);
    r->job = job;
    r->submits++;
}

static inline void rig_progress(void *ctx)
{
    struct rig *r = ctx;

    r->progress++;
    r->submitted_first = r->job != NULL;
}

static inline void rig_written(void *ctx)
{
    struct rig *r = ctx;

    r->early++;
    if (!r->tell_early)
        return;
    log_done(r->log, r->now_ms);
    r->at_early = rig_status(r);
}

static inline uint64_t rig_now_ns(void *ctx)
{
    struct rig *r = ctx;

    return r->ns += 10;
}

/* Runs the job that is on its way, if there is one. */
static inline bool rig_run(struct rig *r)
{
    struct log_hooks hooks = {.ctx = r, .on_written = rig_written, .now_ns = rig_now_ns};
    struct log_job *job = r->job;

    if (job == NULL)
        return false;
    r->job = NULL;
    log_job_run_with(job, &hooks);
    log_done(r->log, r->now_ms);
    return true;
}

static inline void rig_kick(struct rig *r)
{
    log_kick(r->log, r->now_ms);
}

/* Until there is nothing more to do at this time. */
static inline void rig_settle(struct rig *r)
{
    rig_kick(r);
    for (int i = 0; rig_run(r); i++)
        assert_true(i < 1000);
}

static inline int rig_ignore(void *ctx, const struct log_record_header *h, struct tq_span payload,
                             uint64_t segment, char err[LOG_ERROR_MAX])
{
    (void)h, (void)payload, (void)segment, (void)err;
    (*(unsigned *)ctx)++;
    return TQ_OK;
}

/* Reads the disk; the number of records is counted. */
static inline int rig_read(struct fake_fs *fs, struct log_state *ret, unsigned *ret_records)
{
    struct log_reader reader = {.ctx = ret_records, .record = rig_ignore};
    char err[LOG_ERROR_MAX] = "";

    *ret_records = 0;
    return log_recover(fake_fs_table(fs), &reader, ret, err);
}

static inline int rig_open_with(struct rig *r, const struct log_conf *conf, char err[LOG_ERROR_MAX])
{
    struct log_host host = {.ctx = r, .submit = rig_submit, .on_progress = rig_progress};
    struct log_state state;
    unsigned records;
    int rv = rig_read(r->fs, &state, &records);

    if (rv != TQ_OK)
        return rv;
    r->job = NULL;
    return log_open(&r->log, fake_fs_table(r->fs), conf, &host, &state, err);
}

static inline struct log_conf rig_conf(const struct rig *r)
{
    return (struct log_conf){.segment_bytes = RIG_SEGMENT,
                             .group_bytes = RIG_GROUP,
                             .interval_ms = RIG_INTERVAL,
                             .uuid = {1, 2, 3, 4},
                             .now_ms = r->now_ms};
}

static inline int rig_try_open(struct rig *r)
{
    char err[LOG_ERROR_MAX] = "";
    struct log_conf conf = rig_conf(r);

    return rig_open_with(r, &conf, err);
}

static inline void rig_open(struct rig *r)
{
    assert_int_equal(rig_try_open(r), TQ_OK);
}

static inline void rig_init(struct rig *r)
{
    *r = (struct rig){.fs = fake_fs_new(), .now_ms = 5000};
    rig_open(r);
}

/* The process ends; the disk stays as it is. */
static inline void rig_end(struct rig *r)
{
    log_free(r->log);
    r->log = NULL;
    r->job = NULL;
    assert_int_equal(fake_fs_open_files(r->fs), 0);
}

static inline void rig_deinit(struct rig *r)
{
    rig_end(r);
    fake_fs_free(r->fs);
}

/* A record of so many bytes, each of which is the length's last byte. */
static inline int rig_try_put(struct rig *r, size_t len, enum log_wait wait, uint64_t *ret_index)
{
    struct tq_buf *buf = log_begin(r->log);

    if (buf == NULL)
        return TQ_ENOMEM;
    if (tq_buf_reserve(buf, len) != TQ_OK) {
        log_cancel(r->log);
        return TQ_ENOMEM;
    }
    memset(buf->data + buf->len, (int)(len & 0xff), len);
    buf->len += len;
    return log_commit(r->log, LOG_OPS, wait, ret_index);
}

static inline uint64_t rig_put(struct rig *r, size_t len, enum log_wait wait)
{
    uint64_t index = 0;

    assert_int_equal(rig_try_put(r, len, wait, &index), TQ_OK);
    return index;
}

/* What reading gives now, with all that is in the system's memory. */
static inline void rig_expect_readable(struct rig *r, uint64_t next_index, unsigned records)
{
    struct log_state state;
    unsigned n;

    assert_int_equal(rig_read(r->fs, &state, &n), TQ_OK);
    assert_int_equal(state.next_index, next_index);
    assert_int_equal(n, records);
    log_state_deinit(&state);
}

/* The largest payload for which a record still fits into so many bytes. */
static inline size_t rig_payload_of(uint64_t room)
{
    return (size_t)room - LOG_RECORD_HEADER_BYTES;
}

#endif
