/* Logs made by hand, record by record: a directory in memory that can be read, damaged and put on a played
 * disk; and a reader that keeps what it is given. */
#ifndef TESTS_UNIT_LOG_IMAGE_H
#define TESTS_UNIT_LOG_IMAGE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/log/recover.h"
#include "tests/lib/fake_fs.h"

#define RIG_FILES_MAX   40u
#define RIG_RECORDS_MAX 4096u

struct rig_file {
    char name[LOG_FS_NAME_MAX];
    uint8_t *data;
    size_t len;
    bool gone;
};

struct rig_record {
    uint64_t index, synced, segment, offset;
    uint16_t type;
    uint32_t len, sum;
};

/* A directory: read by a log_fs of its own that does nothing else, and costs nothing else. */
struct rig {
    struct log_fs fs;
    struct rig_file files[RIG_FILES_MAX];
    size_t file_count;
    uint8_t uuid[LOG_UUID_BYTES];
    struct rig_record records[RIG_RECORDS_MAX];
    size_t record_count;
    uint64_t index, synced, segment, offset, term; /* of the next record */
    unsigned open;
};

static inline int rig_list(struct log_fs *fs, void (*fn)(void *fn_ctx, const char *name), void *fn_ctx)
{
    struct rig *r = fs->ctx;

    for (size_t i = 0; i < r->file_count; i++)
        if (!r->files[i].gone)
            fn(fn_ctx, r->files[i].name);
    return TQ_OK;
}

static inline int rig_find(const struct rig *r, const char *name)
{
    for (size_t i = 0; i < r->file_count; i++)
        if (!r->files[i].gone && strcmp(r->files[i].name, name) == 0)
            return (int)i;
    return TQ_ENOTFOUND;
}

static inline int rig_open(struct log_fs *fs, const char *name, unsigned flags)
{
    struct rig *r = fs->ctx;
    int i = rig_find(r, name);

    assert_int_equal(flags, LOG_FS_READ);
    r->open += i >= 0;
    return i;
}

static inline void rig_close(struct log_fs *fs, int file)
{
    struct rig *r = fs->ctx;

    (void)file;
    r->open--;
}

static inline int rig_size(struct log_fs *fs, int file, uint64_t *ret_bytes)
{
    struct rig *r = fs->ctx;

    *ret_bytes = r->files[file].len;
    return TQ_OK;
}

static inline int64_t rig_read(struct log_fs *fs, int file, uint64_t offset, void *out, size_t n)
{
    struct rig *r = fs->ctx;
    const struct rig_file *f = &r->files[file];

    if (offset >= f->len)
        return 0;
    if (n > f->len - offset)
        n = (size_t)(f->len - offset);
    memcpy(out, f->data + offset, n);
    return (int64_t)n;
}

static inline struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    r->fs = (struct log_fs){
        .ctx = r, .list = rig_list, .open = rig_open, .close = rig_close, .size = rig_size, .read = rig_read};
    for (unsigned i = 0; i < LOG_UUID_BYTES; i++)
        r->uuid[i] = (uint8_t)(0xa0 + i);
    r->index = 1;
    r->term = 1;
    return r;
}

static inline void rig_free(struct rig *r)
{
    assert_int_equal(r->open, 0);
    for (size_t i = 0; i < r->file_count; i++)
        free(r->files[i].data);
    free(r);
}

/* A file of zeros, or made to have another size. */
static inline struct rig_file *rig_file(struct rig *r, const char *name, size_t len)
{
    int i = rig_find(r, name);
    struct rig_file *f = &r->files[i >= 0 ? (size_t)i : r->file_count];

    assert_true(r->file_count < RIG_FILES_MAX);
    if (i < 0)
        r->file_count++;
    snprintf(f->name, sizeof(f->name), "%s", name);
    free(f->data);
    f->data = calloc(1, len + 1);
    f->len = len;
    assert_non_null(f->data);
    return f;
}

static inline struct rig_file *rig_segment_file(struct rig *r, uint64_t number)
{
    char name[LOG_FS_NAME_MAX];
    int i;

    log_segment_name(name, number);
    i = rig_find(r, name);
    assert_true(i >= 0);
    return &r->files[i];
}

static inline void rig_drop(struct rig *r, uint64_t number, bool spare)
{
    char name[LOG_FS_NAME_MAX];
    int i;

    (spare ? log_spare_name : log_segment_name)(name, number);
    i = rig_find(r, name);
    assert_true(i >= 0);
    r->files[i].gone = true;
}

static inline void rig_spare(struct rig *r, uint64_t number)
{
    char name[LOG_FS_NAME_MAX];

    log_spare_name(name, number);
    rig_file(r, name, 0);
}

static inline void rig_head(struct rig *r, uint64_t number, uint64_t first_index, uint64_t bytes)
{
    struct log_segment_header h = {
        .number = number, .first_index = first_index, .first_term = r->term, .bytes = bytes};

    memcpy(h.uuid, r->uuid, LOG_UUID_BYTES);
    log_segment_header_put(rig_segment_file(r, number)->data, &h);
}

/* The next segment, with what is behind its records filled with `fill`. */
static inline void rig_segment(struct rig *r, uint64_t number, size_t bytes, uint8_t fill)
{
    char name[LOG_FS_NAME_MAX];
    struct rig_file *f;

    log_segment_name(name, number);
    f = rig_file(r, name, bytes);
    memset(f->data, fill, bytes);
    rig_head(r, number, r->index, bytes);
    r->segment = number;
    r->offset = LOG_SEGMENT_HEADER_BYTES;
}

static inline bool rig_fits(struct rig *r, uint32_t len)
{
    return log_record_bytes(len) <= rig_segment_file(r, r->segment)->len - r->offset;
}

/* Whatever r->index, synced, term say. */
static inline void rig_record(struct rig *r, unsigned type, const void *payload, uint32_t len)
{
    struct log_record_header h = {
        .len = len, .index = r->index, .synced = r->synced, .term = r->term, .type = (uint16_t)type};
    struct rig_file *f = rig_segment_file(r, r->segment);

    assert_true(rig_fits(r, len) && r->record_count < RIG_RECORDS_MAX);
    memcpy(f->data + r->offset + LOG_RECORD_HEADER_BYTES, payload, len);
    log_record_seal(f->data + r->offset, &h, log_seed(r->uuid, r->segment));
    r->records[r->record_count++] = (struct rig_record){.index = r->index,
                                                        .synced = r->synced,
                                                        .segment = r->segment,
                                                        .offset = r->offset,
                                                        .type = (uint16_t)type,
                                                        .len = len,
                                                        .sum = log_crc(0, payload, len)};
    r->offset += log_record_bytes(len);
    r->index++;
}

/* Ops of so many bytes, which are the index's own. */
static inline void rig_ops(struct rig *r, uint32_t len)
{
    uint8_t *payload = malloc(len + 1);

    assert_non_null(payload);
    for (uint32_t i = 0; i < len; i++)
        payload[i] = (uint8_t)(r->index * 7 + i);
    rig_record(r, LOG_OPS, payload, len);
    free(payload);
}

static inline void rig_start(struct rig *r, uint64_t start)
{
    uint8_t payload[8];

    for (unsigned i = 0; i < 8; i++)
        payload[i] = (uint8_t)(start >> (8 * i));
    rig_record(r, LOG_START, payload, 8);
}

static inline void rig_config(struct rig *r)
{
    uint8_t payload[4 + LOG_UUID_BYTES] = {1};

    memcpy(payload + 4, r->uuid, LOG_UUID_BYTES);
    rig_record(r, LOG_CONFIG, payload, sizeof(payload));
}

/* The segments first..last, of records of these sizes in turn, each full; the records of a turn of `group`
 * say that all up to the group before was synced. */
static inline void rig_build(struct rig *r, uint64_t first, uint64_t last, size_t bytes, unsigned group)
{
    static const uint32_t sizes[] = {100, 1, 33, 250, 64, 7, 150, 0};

    for (uint64_t n = first; n <= last; n++) {
        rig_segment(r, n, bytes, 0);
        if (r->index == 1)
            rig_config(r);
        for (;;) {
            uint32_t len = sizes[r->index % (sizeof(sizes) / sizeof(sizes[0]))];

            if (r->index % group == 0)
                r->synced = r->index - 1;
            if (!rig_fits(r, len))
                break;
            rig_ops(r, len);
        }
        r->synced = r->index - 1; /* before a segment is begun */
    }
    rig_spare(r, last + 1);
}

/* The same files on a played disk. */
static inline struct fake_fs *rig_disk(const struct rig *r)
{
    struct fake_fs *f = fake_fs_new();

    for (size_t i = 0; i < r->file_count; i++)
        if (!r->files[i].gone)
            fake_fs_put(f, r->files[i].name, r->files[i].data, r->files[i].len);
    return f;
}

/* ---- reading ---- */

struct rig_got {
    const struct rig *want; /* what is delivered must be its records, from the first to some one */
    size_t at;              /* of want->records */
    uint64_t last;          /* the index of the last one that was delivered */
    uint64_t from;          /* records below are not expected */
    unsigned count;
    unsigned progress;
    uint64_t done, all;
    long fail_after;
    bool wrong;
};

static inline int rig_on_record(void *ctx, const struct log_record_header *h, struct tq_span payload,
                                uint64_t segment, char err[LOG_ERROR_MAX])
{
    struct rig_got *g = ctx;
    const struct rig_record *w;

    if (g->fail_after > 0 && --g->fail_after == 0) {
        snprintf(err, LOG_ERROR_MAX, "the reader does not like it");
        return TQ_EPROTO;
    }
    while (g->at < g->want->record_count &&
           (g->want->records[g->at].index < g->from || g->want->records[g->at].type != LOG_OPS))
        g->at++;
    w = &g->want->records[g->at];
    if (g->at == g->want->record_count || h->index != w->index || segment != w->segment ||
        h->synced != w->synced || h->type != w->type || payload.len != w->len ||
        log_crc(0, payload.data, payload.len) != w->sum)
        g->wrong = true;
    g->at += g->at < g->want->record_count;
    g->last = h->index;
    g->count++;
    return TQ_OK;
}

static inline void rig_on_progress(void *ctx, uint64_t done, uint64_t all)
{
    struct rig_got *g = ctx;

    assert_true(done >= g->done && done <= all);
    g->done = done;
    g->all = all;
    g->progress++;
}

/* What was delivered to one who was refused afterwards is of no matter. */
static inline int rig_recover(struct rig *want, struct log_fs *fs, struct rig_got *g, struct log_state *state,
                              char err[LOG_ERROR_MAX])
{
    struct log_reader reader = {.ctx = g, .record = rig_on_record, .progress = rig_on_progress};
    int rv;

    g->want = want;
    g->done = 0;
    err[0] = '\0';
    rv = log_recover(fs, &reader, state, err);
    assert_false(rv == TQ_OK && g->wrong);
    assert_true((rv == TQ_OK) == (err[0] == '\0'));
    return rv;
}

static inline void rig_count_finding(void *ctx, const struct log_finding *f)
{
    unsigned *count = ctx;

    *count += !f->torn;
}

/* What `log check` says must go together with what happens at the start. */
static inline void rig_check_agrees(struct log_fs *fs, int rv)
{
    char why[LOG_ERROR_MAX];
    struct log_state state;
    unsigned count = 0;
    int found = log_check(fs, rig_count_finding, &count, &state, why);

    if (found < 0) {
        assert_int_equal(found, rv);
    } else {
        assert_int_equal(found, count);
        assert_true((found == 0) == (rv == TQ_OK));
        log_state_deinit(&state);
    }
}

#endif
