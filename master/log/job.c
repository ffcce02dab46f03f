/* A job: all the I/O of one round. Runs on any thread; has no part in what the loop does meanwhile. */
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "master/log/log_impl.h"

static uint64_t clock_of(const struct log_job *job)
{
    return job->hooks != NULL && job->hooks->now_ns != NULL ? job->hooks->now_ns(job->hooks->ctx) : 0;
}

static int sync_file(struct log_job *job, int file)
{
    uint64_t began = clock_of(job);
    int rv = job->fs->sync(job->fs, file);

    job->sync_ns = clock_of(job) - began;
    if (job->sync_ns > job->sync_ns_max)
        job->sync_ns_max = job->sync_ns;
    job->syncs++;
    return log_of_sync(rv);
}

static int sync_names(struct log_fs *fs)
{
    return log_of_sync(fs->sync_dir(fs));
}

/* ---- a new segment ---- */

int log_spare_name_it(struct log_fs *fs, uint64_t number)
{
    char name[64];
    int file;

    log_spare_name(name, number);
    file = fs->open(fs, name, LOG_FS_WRITE | LOG_FS_CREATE);
    if (file >= 0)
        fs->close(fs, file);
    return file >= 0 || file == TQ_EEXISTS ? TQ_OK : file;
}

int log_segment_name_it(struct log_fs *fs, int file, uint64_t number, struct tq_span head)
{
    char from[64], to[64];
    int rv = fs->write(fs, file, 0, head);

    if (rv != TQ_OK)
        return rv;
    rv = fs->sync(fs, file);
    if (rv != TQ_OK)
        return log_of_sync(rv);
    log_spare_name(from, number);
    log_segment_name(to, number);
    rv = fs->rename(fs, from, to);
    return rv != TQ_OK ? rv : sync_names(fs);
}

static int empty_spare(struct log_fs *fs, uint64_t number)
{
    char name[64];
    int file, rv;

    log_spare_name(name, number);
    file = fs->open(fs, name, LOG_FS_WRITE);
    if (file < 0)
        return file == TQ_ENOTFOUND ? TQ_OK : file; /* one that is planned */
    rv = fs->truncate(fs, file, 0);
    fs->close(fs, file);
    return rv;
}

/* What does not fit any spare may need more room than there is: then it takes that of the spares behind, from
 * the last one on, for which they are held. All would wait for it otherwise. */
static int allocate(struct log_job *job, const struct log_piece *p)
{
    int rv = job->fs->allocate(job->fs, job->next_file, p->header.bytes), done;

    for (uint64_t n = job->spare_last; rv == TQ_ENOSPC && n > p->header.number; n--) {
        if (job->emptied_from != 0 && n >= job->emptied_from)
            continue;
        done = empty_spare(job->fs, n);
        if (done != TQ_OK)
            return done;
        job->emptied_from = n;
        rv = job->fs->allocate(job->fs, job->next_file, p->header.bytes);
    }
    return rv;
}

/* The segment of this piece takes over from the one that is full. May find no room at any of its steps, and
 * is begun again from the first then: each of them may be done twice. */
static int begin_segment(struct log_job *job, const struct log_piece *p)
{
    uint8_t head[LOG_SEGMENT_HEADER_BYTES];
    uint64_t number = p->header.number;
    char name[64];
    int rv;

    if (job->dirty) {
        rv = sync_file(job, job->file);
        if (rv != TQ_OK)
            return rv;
        job->dirty = false;
        job->last_synced = job->last_written;
    }
    if (!p->next_is_named) {
        rv = log_spare_name_it(job->fs, number + 1);
        if (rv != TQ_OK)
            return rv;
        rv = sync_names(job->fs);
        if (rv != TQ_OK)
            return rv;
    }
    if (job->next_file < 0) {
        log_spare_name(name, number);
        job->next_file = job->fs->open(job->fs, name, LOG_FS_WRITE);
        if (job->next_file < 0)
            return job->next_file;
    }
    rv = allocate(job, p);
    if (rv != TQ_OK)
        return rv;
    log_segment_header_put(head, &p->header);
    rv = log_segment_name_it(job->fs, job->next_file, number, tq_span(head, sizeof(head)));
    if (rv != TQ_OK)
        return rv;
    job->syncs++;
    job->fs->close(job->fs, job->file);
    job->file = job->next_file;
    job->number = number;
    job->next_file = -1;
    return TQ_OK;
}

/* ---- chores ---- */

static int fill_spare(struct log_fs *fs, uint64_t number, uint64_t bytes)
{
    char name[64];
    int rv = log_spare_name_it(fs, number), file;

    if (rv != TQ_OK)
        return rv;
    log_spare_name(name, number);
    file = fs->open(fs, name, LOG_FS_WRITE);
    if (file < 0)
        return file;
    rv = fs->allocate(fs, file, bytes);
    if (rv == TQ_OK) /* now, and not when a group waits for it */
        rv = log_of_sync(fs->sync(fs, file));
    fs->close(fs, file);
    return rv;
}

static int do_chore(struct log_job *job, const struct log_chore *c)
{
    char from[64], to[64];

    log_segment_name(from, c->number);
    switch (c->kind) {
    case LOG_CHORE_RECYCLE:
        log_spare_name(to, c->to);
        return job->fs->rename(job->fs, from, to);
    case LOG_CHORE_DROP_SEGMENT:
        return job->fs->remove(job->fs, from);
    case LOG_CHORE_DROP_SPARE:
        log_spare_name(from, c->number);
        return job->fs->remove(job->fs, from);
    case LOG_CHORE_NAME_SPARE:
        return log_spare_name_it(job->fs, c->number);
    case LOG_CHORE_FILL_SPARE:
        return fill_spare(job->fs, c->number, c->bytes);
    }
    return TQ_EINVAL;
}

/* No room for one of them is no failure: they are planned anew. Names are synced before anybody counts on
 * them, above all before a recycled segment gets the header of its next life. */
static int do_chores(struct log_job *job)
{
    int rv = TQ_OK;

    while (rv == TQ_OK && job->chores_done < job->chore_count) {
        rv = do_chore(job, &job->chores[job->chores_done]);
        if (rv == TQ_OK)
            job->chores_done++;
    }
    if (rv != TQ_OK && !log_is_passing(rv))
        return rv;
    job->chore_rv = rv;
    if (rv != TQ_OK) {
        (void)snprintf(job->error, sizeof(job->error), "%s", job->fs->error);
        rv = TQ_OK;
    }
    if (job->chores_done > 0 || job->chore_rv != TQ_OK) /* what found no room may have made a name */
        rv = sync_names(job->fs);
    return rv;
}

/* ---- the group ---- */

static int write_pieces(struct log_job *job)
{
    uint64_t began = clock_of(job);
    int rv;

    for (; job->piece_done < job->group.piece_count; job->piece_done++) {
        const struct log_piece *p = &job->group.pieces[job->piece_done];

        if (p->begins && job->number != p->header.number) {
            rv = begin_segment(job, p);
            if (rv != TQ_OK)
                return rv;
        }
        rv = job->fs->write(job->fs, job->file, p->offset,
                            tq_span(job->group.buf.data + p->begin, p->end - p->begin));
        job->dirty = true; /* in part, perhaps, if it failed */
        if (rv != TQ_OK)
            return rv;
        job->last_written = p->last_index;
    }
    job->write_ns = clock_of(job) - began;
    return TQ_OK;
}

/* Tells the loop how far it is; `now`: somebody waits for that, and what comes next takes its time. */
static void tell(struct log_job *job, bool now)
{
    atomic_store_explicit(&job->told_synced, job->last_synced, memory_order_release);
    atomic_store_explicit(&job->told_written, job->last_written, memory_order_release);
    if (now && job->hooks != NULL && job->hooks->on_written != NULL)
        job->hooks->on_written(job->hooks->ctx);
}

static int run(struct log_job *job)
{
    bool has_group = job->group.piece_count > 0, has_chores = job->chore_count > 0 && !job->chores_first;
    int rv;

    if (job->chores_first) {
        rv = do_chores(job);
        if (rv != TQ_OK)
            return rv;
    }
    rv = write_pieces(job);
    if (rv != TQ_OK)
        return rv;
    tell(job, job->sync && job->group.wait_written > 0);
    if (job->sync && job->dirty) {
        rv = sync_file(job, job->file);
        if (rv != TQ_OK)
            return rv;
        job->dirty = false;
    }
    if (!job->dirty)
        job->last_synced = job->last_written;
    tell(job, has_group && has_chores);
    return has_chores ? do_chores(job) : TQ_OK;
}

void log_job_run_with(struct log_job *job, const struct log_hooks *hooks)
{
    job->hooks = hooks;
    job->chores_done = 0;
    job->emptied_from = 0;
    job->chore_rv = TQ_OK;
    job->syncs = 0;
    job->sync_ns = job->sync_ns_max = job->write_ns = 0;
    job->rv = run(job);
    if (job->asks_free)
        job->free_bytes = job->fs->free_bytes(job->fs);
    if (job->rv != TQ_OK)
        (void)snprintf(job->error, sizeof(job->error), "%s", job->fs->error);
    job->hooks = NULL;
    atomic_store_explicit(&job->over, true, memory_order_release); /* from here on it is the loop's again */
}

void log_job_run(struct log_job *job)
{
    log_job_run_with(job, NULL);
}
