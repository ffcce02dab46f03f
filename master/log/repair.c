/* Repair goes from state to state, each of which repair understands if it is interrupted there: it looks for
 * the first finding, deals with that, and looks again. What it takes away it renames, or copies before.
 * Nothing is written over: where a log is cut it goes on in a new segment, which says from where on the log
 * is complete, because the record that said so may be behind the cut. */
#include <inttypes.h>
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/check.h"
#include "master/log/format_impl.h"

#define COPY_PIECE_BYTES (64u * 1024)
#define SIDE_NAMES_MAX   1000u
#define ROUNDS_MORE      64u

typedef void tell_fn(void *ctx, const struct log_finding *f);

struct repair {
    struct log_fs *fs;
    struct log_analysis a;
    tell_fn *tell;
    void *ctx;
    char *err;
    unsigned told;
};

static int fail_fs(struct repair *r, int rv)
{
    return log_dir_fail_fs(&r->a.dir, rv);
}

static void tell(struct repair *r, const struct log_finding *f)
{
    r->told++;
    if (r->tell != NULL)
        r->tell(r->ctx, f);
}

/* ---- side files ---- */

static bool exists(struct repair *r, const char *name, int *ret_rv)
{
    int file = r->fs->open(r->fs, name, LOG_FS_READ);

    if (file >= 0)
        r->fs->close(r->fs, file);
    *ret_rv = file < 0 && file != TQ_ENOTFOUND ? file : TQ_OK;
    return file >= 0;
}

/* A name that is free; what an earlier repair put aside stays. */
static int side_name(struct repair *r, char out[LOG_FS_NAME_MAX], uint64_t segment, uint64_t offset)
{
    int rv;

    snprintf(out, LOG_FS_NAME_MAX, "%016" PRIx64 "-%" PRIu64 ".cut", segment, offset);
    for (unsigned i = 2; exists(r, out, &rv); i++) {
        if (i > SIDE_NAMES_MAX) {
            snprintf(r->err, LOG_ERROR_MAX, "%s: there are too many like it; move some of them away", out);
            return TQ_EEXISTS;
        }
        snprintf(out, LOG_FS_NAME_MAX, "%016" PRIx64 "-%" PRIu64 "-%u.cut", segment, offset, i);
    }
    return rv == TQ_OK ? TQ_OK : fail_fs(r, rv);
}

static int copy_bytes(struct repair *r, int from, int to, uint64_t offset, uint64_t n)
{
    uint8_t *piece = tq_malloc(COPY_PIECE_BYTES);
    uint64_t done = 0;
    int rv = piece == NULL ? TQ_ENOMEM : TQ_OK;

    while (rv == TQ_OK && done < n) {
        size_t most = n - done < COPY_PIECE_BYTES ? (size_t)(n - done) : COPY_PIECE_BYTES;
        int64_t got = r->fs->read(r->fs, from, offset + done, piece, most);

        if (got <= 0) {
            rv = (int)got;
            break;
        }
        rv = r->fs->write(r->fs, to, done, tq_span(piece, (size_t)got));
        done += (uint64_t)got;
    }
    tq_free(piece);
    return rv;
}

/* From here to the end of the segment, into a file of its own. */
static int copy_aside(struct repair *r, uint64_t segment, uint64_t offset, uint64_t n,
                      char side[LOG_FS_NAME_MAX])
{
    char name[LOG_FS_NAME_MAX];
    int from, to, rv;

    rv = side_name(r, side, segment, offset);
    if (rv != TQ_OK)
        return rv;
    log_segment_name(name, segment);
    from = r->fs->open(r->fs, name, LOG_FS_READ);
    if (from < 0)
        return fail_fs(r, from);
    to = r->fs->open(r->fs, side, LOG_FS_WRITE | LOG_FS_CREATE);
    rv = to < 0 ? to : copy_bytes(r, from, to, offset, n);
    if (rv == TQ_OK)
        rv = r->fs->sync(r->fs, to);
    if (to >= 0)
        r->fs->close(r->fs, to);
    r->fs->close(r->fs, from);
    if (rv == TQ_OK)
        rv = r->fs->sync_dir(r->fs);
    return rv == TQ_OK ? TQ_OK : fail_fs(r, rv);
}

/* The index behind the last record that can be read in the segment; 0: none can. */
static uint64_t last_index_of(const struct log_analysis *a, size_t i)
{
    if (a->dir.heads[i].rv != TQ_OK)
        return 0;
    if (i + 1 == a->dir.head_count)
        return a->next_index - 1;
    return a->dir.heads[i + 1].rv == TQ_OK ? a->dir.heads[i + 1].header.first_index - 1 : 0;
}

static int move_aside(struct repair *r, size_t i, const char *what)
{
    const struct log_head *h = &r->a.dir.heads[i];
    struct log_finding f = {.bytes = h->file_bytes, .what = what};
    int rv = side_name(r, f.side, h->number, 0);

    if (rv != TQ_OK)
        return rv;
    log_segment_name(f.file, h->number);
    if (h->rv == TQ_OK && last_index_of(&r->a, i) >= h->header.first_index) {
        f.first_index = h->header.first_index;
        f.last_index = last_index_of(&r->a, i);
    }
    rv = r->fs->rename(r->fs, f.file, f.side);
    if (rv != TQ_OK)
        return fail_fs(r, rv);
    tell(r, &f);
    return TQ_OK;
}

static int sync_dir(struct repair *r)
{
    int rv = r->fs->sync_dir(r->fs);

    return rv == TQ_OK ? TQ_OK : fail_fs(r, rv);
}

/* ---- what is put in place ---- */

/* An empty spare, if it is not there. */
static int need_spare(struct repair *r, uint64_t number)
{
    char name[LOG_FS_NAME_MAX];
    int file;

    if (log_dir_has_spare(&r->a.dir, number))
        return TQ_OK;
    log_spare_name(name, number);
    file = r->fs->open(r->fs, name, LOG_FS_WRITE | LOG_FS_CREATE);
    if (file < 0 && file != TQ_EEXISTS)
        return fail_fs(r, file);
    if (file >= 0)
        r->fs->close(r->fs, file);
    return TQ_OK;
}

static int drop_spares(struct repair *r, uint64_t but)
{
    const struct log_dir *d = &r->a.dir;

    for (size_t i = 0; i < d->spare_count; i++) {
        char name[LOG_FS_NAME_MAX];
        int rv;

        if (d->spares[i] == but)
            continue;
        log_spare_name(name, d->spares[i]);
        rv = r->fs->remove(r->fs, name);
        if (rv != TQ_OK && rv != TQ_ENOTFOUND)
            return fail_fs(r, rv);
    }
    return sync_dir(r);
}

/* All of the segment's bytes are there and on stable storage. */
static int settle_file(struct repair *r, const struct log_head *h)
{
    char name[LOG_FS_NAME_MAX];
    int file, rv = TQ_OK;

    log_segment_name(name, h->number);
    file = r->fs->open(r->fs, name, LOG_FS_WRITE);
    if (file < 0)
        return fail_fs(r, file);
    if (log_head_is_short(h))
        rv = r->fs->allocate(r->fs, file, h->header.bytes);
    if (rv == TQ_OK)
        rv = r->fs->sync(r->fs, file);
    r->fs->close(r->fs, file);
    return rv == TQ_OK ? TQ_OK : fail_fs(r, rv);
}

/* A segment with one record in it, still under its spare name. */
static int write_restart(struct repair *r, const struct log_segment_header *h,
                         struct log_record_header record, uint64_t start)
{
    uint8_t bytes[LOG_SEGMENT_HEADER_BYTES + LOG_RECORD_HEADER_BYTES + 8];
    char name[LOG_FS_NAME_MAX];
    int file, rv;

    log_segment_header_put(bytes, h);
    log_store64(bytes + LOG_SEGMENT_HEADER_BYTES + LOG_RECORD_HEADER_BYTES, start);
    log_record_seal(bytes + LOG_SEGMENT_HEADER_BYTES, &record, log_seed(h->uuid, h->number));
    log_spare_name(name, h->number);
    rv = r->fs->remove(r->fs, name);
    if (rv != TQ_OK && rv != TQ_ENOTFOUND)
        return fail_fs(r, rv);
    file = r->fs->open(r->fs, name, LOG_FS_WRITE | LOG_FS_CREATE);
    if (file < 0)
        return fail_fs(r, file);
    rv = r->fs->allocate(r->fs, file, h->bytes);
    if (rv == TQ_OK)
        rv = r->fs->write(r->fs, file, 0, tq_span(bytes, sizeof(bytes)));
    if (rv == TQ_OK)
        rv = r->fs->sync(r->fs, file);
    r->fs->close(r->fs, file);
    return rv == TQ_OK ? TQ_OK : fail_fs(r, rv);
}

/* ---- what is done about a finding ---- */

static size_t count_below(const struct log_dir *d, uint64_t number)
{
    size_t n = 0;

    while (n < d->head_count && d->heads[n].number < number)
        n++;
    return n;
}

/* Everything: what is left is an empty directory. */
static int cut_all(struct repair *r, const struct log_found *f)
{
    int rv = TQ_OK;

    for (size_t i = r->a.dir.head_count; rv == TQ_OK && i-- > 0;)
        rv = move_aside(r, i, "nothing that stands before it can be read");
    if (rv == TQ_OK)
        rv = sync_dir(r);
    if (rv == TQ_OK)
        rv = drop_spares(r, 0);
    if (rv == TQ_OK && r->a.dir.head_count == 0)
        tell(r, &f->finding);
    return rv;
}

/* The log ends with the first `keep` segments, the last of which ends in front of f->index, and goes on in a
 * new segment behind them. */
static int cut_behind(struct repair *r, const struct log_found *f, size_t keep, uint64_t next_index)
{
    const struct log_dir *d = &r->a.dir;
    const struct log_head *last = &d->heads[keep - 1];
    struct log_segment_header h = last->header;
    struct log_record_header record = {
        .len = 8, .index = next_index, .synced = next_index - 1, .term = f->rules.term, .type = LOG_START};
    char spare[LOG_FS_NAME_MAX], name[LOG_FS_NAME_MAX];
    uint64_t start = last->number;
    int rv;

    for (size_t i = keep - 1; i > 0 && d->heads[i - 1].rv == TQ_OK && d->heads[i - 1].number + 1 == start;
         i--)
        start--;
    if (start < f->rules.start)
        start = f->rules.start;
    h.number = last->number + 1;
    h.first_index = next_index;
    h.first_term = f->rules.term;
    h.bytes = LOG_SEGMENT_MIN_BYTES;
    rv = settle_file(r, last);
    if (rv == TQ_OK)
        rv = write_restart(r, &h, record, start);
    if (rv == TQ_OK)
        rv = need_spare(r, h.number + 1);
    if (rv == TQ_OK)
        rv = sync_dir(r);
    for (size_t i = keep; rv == TQ_OK && i < d->head_count && d->heads[i].number == h.number; i++)
        rv = move_aside(r, i, "it is behind the place where the log is cut");
    if (rv != TQ_OK)
        return rv;
    log_spare_name(spare, h.number);
    log_segment_name(name, h.number);
    rv = r->fs->rename(r->fs, spare, name);
    if (rv != TQ_OK)
        return fail_fs(r, rv);
    rv = sync_dir(r);
    for (size_t i = d->head_count; rv == TQ_OK && i-- > keep;)
        if (d->heads[i].number != h.number)
            rv = move_aside(r, i, "it is behind the place where the log is cut");
    if (rv == TQ_OK)
        rv = sync_dir(r);
    return rv == TQ_OK ? drop_spares(r, h.number + 1) : rv;
}

static int fix_records(struct repair *r, const struct log_found *f)
{
    const struct log_dir *d = &r->a.dir;
    size_t keep = count_below(d, f->segment) + 1;
    struct log_finding told = f->finding;
    int rv;

    if (f->segment < r->a.rules.start) { /* nothing in it is needed, nor in what is before */
        for (size_t i = 0; i < keep; i++)
            if ((rv = move_aside(r, i, "nothing in it is needed any more")) != TQ_OK)
                return rv;
        return sync_dir(r);
    }
    told.bytes = d->heads[keep - 1].file_bytes - told.offset;
    told.first_index = f->index;
    told.last_index = last_index_of(&r->a, keep - 1);
    if (told.last_index < told.first_index)
        told.first_index = told.last_index = 0;
    rv = copy_aside(r, f->segment, told.offset, told.bytes, told.side);
    if (rv != TQ_OK)
        return rv;
    tell(r, &told);
    return cut_behind(r, f, keep, f->index);
}

static int fix(struct repair *r, const struct log_found *f)
{
    const struct log_dir *d = &r->a.dir;
    size_t below = count_below(d, f->segment);
    int rv;

    switch (f->fault) {
    case LOG_FAULT_RECORDS:
        return fix_records(r, f);
    case LOG_FAULT_SHORT:
        rv = settle_file(r, &d->heads[below]);
        break;
    case LOG_FAULT_END:
        if (d->head_count == 0)
            return cut_all(r, f);
        rv = need_spare(r, f->segment);
        if (rv == TQ_OK)
            rv = sync_dir(r);
        break;
    default:
        if (below == 0 || f->index == 0 || d->heads[below - 1].rv != TQ_OK)
            return cut_all(r, f);
        tell(r, &f->finding);
        return cut_behind(r, f, below, f->index);
    }
    if (rv == TQ_OK)
        tell(r, &f->finding);
    return rv;
}

static const struct log_found *first_that_counts(const struct log_analysis *a)
{
    for (size_t i = 0; i < a->found_count; i++)
        if (log_found_counts(a, &a->found[i]))
            return &a->found[i];
    return NULL;
}

int log_repair(struct log_fs *fs, void (*fn)(void *ctx, const struct log_finding *f), void *ctx,
               char err[LOG_ERROR_MAX])
{
    struct repair r = {.fs = fs, .tell = fn, .ctx = ctx, .err = err};
    size_t rounds = ROUNDS_MORE;

    for (size_t i = 0; i < rounds; i++) {
        const struct log_found *f;
        int rv = log_analyse(&r.a, fs, err);

        if (rv != TQ_OK)
            return rv;
        f = first_that_counts(&r.a);
        if (f == NULL) {
            log_analysis_deinit(&r.a);
            return (int)r.told;
        }
        if (i == 0)
            rounds += 2 * r.a.dir.head_count;
        rv = fix(&r, f);
        log_analysis_deinit(&r.a);
        if (rv != TQ_OK)
            return rv;
    }
    snprintf(err, LOG_ERROR_MAX, "the directory changes while it is repaired: is it in use?");
    return TQ_EIO;
}
