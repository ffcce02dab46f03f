/* Going on where recovery ended, or beginning a new log. Blocks; what it does to the disk may be cut off by a
 * crash anywhere, and is done again by the next start. */
#include <stdio.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/log/format_impl.h"
#include "master/log/log_impl.h"

#define CHUNK_BYTES (256u * 1024)

struct opening {
    struct log *l;
    struct log_fs *fs;
    const struct log_state *state;
    uint8_t *chunk; /* CHUNK_BYTES */
};

static int sync_names(struct log_fs *fs)
{
    return log_of_sync(fs->sync_dir(fs));
}

/* ---- the first start ---- */

/* The header of segment 1 and record 1 behind it. */
static size_t compose_head(struct log *l, uint8_t *out)
{
    struct log_segment_header segment = {.number = 1,
                                         .first_index = 1,
                                         .first_term = 1,
                                         .bytes = l->conf.segment_bytes,
                                         .created_ms = l->now_ms};
    struct log_record_header record = {.len = 4 + LOG_UUID_BYTES, .index = 1, .term = 1, .type = LOG_CONFIG};
    uint8_t *payload = out + LOG_SEGMENT_HEADER_BYTES + LOG_RECORD_HEADER_BYTES;

    memcpy(segment.uuid, l->conf.uuid, LOG_UUID_BYTES);
    log_segment_header_put(out, &segment);
    log_store32(payload, 1);
    memcpy(payload + 4, l->conf.uuid, LOG_UUID_BYTES);
    log_record_seal(out + LOG_SEGMENT_HEADER_BYTES, &record, log_seed(l->conf.uuid, 1));
    return LOG_SEGMENT_HEADER_BYTES + (size_t)log_record_bytes(record.len);
}

/* 1.spare may be there from a start that was cut off, and stays there: without it what else is left would
 * look like a log whose segments are missing. */
static int make_first(struct opening *o)
{
    struct log *l = o->l;
    char name[64];
    size_t len = compose_head(l, o->chunk);
    int rv = TQ_OK;

    for (size_t i = 0; i < o->state->spare_count && rv == TQ_OK; i++) {
        log_spare_name(name, o->state->spares[i]);
        if (o->state->spares[i] != 1)
            rv = o->fs->remove(o->fs, name);
    }
    if (rv == TQ_OK)
        rv = log_spare_name_it(o->fs, 1);
    if (rv == TQ_OK)
        rv = sync_names(o->fs);
    if (rv == TQ_OK)
        rv = log_spare_name_it(o->fs, 2);
    if (rv == TQ_OK)
        rv = sync_names(o->fs);
    if (rv != TQ_OK)
        return rv;
    log_spare_name(name, 1);
    l->job.file = o->fs->open(o->fs, name, LOG_FS_WRITE);
    if (l->job.file < 0)
        return l->job.file;
    rv = o->fs->truncate(o->fs, l->job.file, 0);
    if (rv == TQ_OK)
        rv = o->fs->allocate(o->fs, l->job.file, l->conf.segment_bytes);
    if (rv == TQ_OK)
        rv = log_segment_name_it(o->fs, l->job.file, 1, tq_span(o->chunk, len));
    if (rv != TQ_OK)
        return rv;
    l->segments[l->segment_count++] =
        (struct log_segment){.number = 1, .first_index = 1, .bytes = l->conf.segment_bytes, .end = len};
    l->spares[l->spare_count++] = 0;
    l->next_index = 2;
    l->named = 2;
    return TQ_OK;
}

/* ---- every other one ---- */

/* What was read of the last segment may be in the system's memory only, even as something that could not be
 * written: it would be read as often as one likes, and be gone when the power goes. So it is written once
 * more. What was cut is overwritten. All of it is synced before anybody hears of it. */
static int settle_last(struct opening *o)
{
    const struct log_state *s = o->state;
    const struct log_segment *last = log_last_segment(o->l);
    int file = o->l->job.file, rv;

    for (uint64_t at = 0; at < last->end;) {
        uint64_t left = last->end - at;
        size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        int64_t got = o->fs->read(o->fs, file, at, o->chunk, n);

        if (got < 0)
            return (int)got;
        if ((size_t)got < n) {
            (void)snprintf(o->fs->error, sizeof(o->fs->error), "segment %llu became shorter meanwhile",
                           (unsigned long long)last->number);
            return TQ_EIO;
        }
        rv = o->fs->write(o->fs, file, at, tq_span(o->chunk, n));
        if (rv == TQ_ENOSPC)
            break; /* a file system that copies on writing, and is full: then it has to do as it is */
        if (rv != TQ_OK)
            return rv;
        at += n;
    }
    memset(o->chunk, 0, CHUNK_BYTES);
    for (uint64_t done = 0; done < s->cut_bytes;) {
        uint64_t left = s->cut_bytes - done;
        size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;

        rv = o->fs->write(o->fs, file, s->cut_offset + done, tq_span(o->chunk, n));
        if (rv != TQ_OK)
            return rv;
        done += n;
    }
    return log_of_sync(o->fs->sync(o->fs, file));
}

/* The size of a file, too, may be something that a failed sync has lost, and is told all the same. */
static int settle_size(struct opening *o, int file, uint64_t bytes)
{
    static const uint8_t end[8];
    int rv;

    if (o->state->closed)
        return TQ_OK;
    rv = o->fs->write(o->fs, file, bytes - sizeof(end), tq_span(end, sizeof(end)));
    if (rv != TQ_OK)
        return rv;
    return log_of_sync(o->fs->sync(o->fs, file));
}

/* A spare that is ready, or is emptied: it has not the size that segments have now, or a header of a life to
 * come, which a crash has cut off before the segment got its name. */
static int look_at_spare(struct opening *o, uint64_t number, uint64_t *ret_bytes)
{
    uint64_t bytes = o->l->conf.segment_bytes, size;
    struct log_segment_header h;
    const char *why;
    char name[64];
    int64_t got;
    int rv, file;

    log_spare_name(name, number);
    file = o->fs->open(o->fs, name, LOG_FS_WRITE);
    if (file < 0)
        return file;
    *ret_bytes = 0;
    rv = o->fs->size(o->fs, file, &size);
    got = rv == TQ_OK ? o->fs->read(o->fs, file, 0, o->chunk, LOG_SEGMENT_HEADER_BYTES) : rv;
    if (got < 0) {
        rv = (int)got;
    } else if (size != bytes || (log_segment_header_get(tq_span(o->chunk, (size_t)got), &h, &why) == TQ_OK &&
                                 h.number > log_last_segment(o->l)->number)) {
        rv = o->fs->truncate(o->fs, file, 0);
    } else {
        rv = o->fs->allocate(o->fs, file, bytes); /* its size says nothing of its blocks */
        if (rv == TQ_OK)
            rv = settle_size(o, file, bytes);
        if (rv == TQ_OK)
            *ret_bytes = bytes;
        else if (rv == TQ_ENOSPC)
            rv = TQ_OK;
    }
    o->fs->close(o->fs, file);
    return rv;
}

static bool has_spare(const struct log_state *s, uint64_t number)
{
    for (size_t i = 0; i < s->spare_count; i++)
        if (s->spares[i] == number)
            return true;
    return false;
}

/* Those that follow the last segment without a gap are kept. */
static int take_spares(struct opening *o)
{
    struct log *l = o->l;
    uint64_t last = log_last_segment(l)->number;
    char name[64];
    int rv = TQ_OK;

    while (has_spare(o->state, last + 1 + l->spare_count)) {
        rv = log_segments_reserve(l);
        if (rv == TQ_OK)
            rv = look_at_spare(o, last + 1 + l->spare_count, &l->spares[l->spare_count]);
        if (rv != TQ_OK)
            return rv;
        l->spare_count++;
    }
    for (size_t i = 0; i < o->state->spare_count && rv == TQ_OK; i++) {
        uint64_t number = o->state->spares[i];

        log_spare_name(name, number);
        if (number <= last || number > last + l->spare_count)
            rv = o->fs->remove(o->fs, name);
    }
    if (rv == TQ_OK && l->spare_count == 0) {
        rv = log_spare_name_it(o->fs, last + 1);
        l->spares[l->spare_count++] = 0;
    }
    if (rv == TQ_OK) /* the last segment's own name may be in the system's memory only */
        rv = sync_names(o->fs);
    l->named = last + l->spare_count;
    return rv;
}

static int take_segments(struct opening *o)
{
    const struct log_state *s = o->state;
    struct log *l = o->l;

    l->freed = tq_malloc((s->segment_count + 1) * sizeof(*l->freed));
    if (l->freed == NULL)
        return TQ_ENOMEM;
    l->freed_cap = s->segment_count + 1;
    for (size_t i = 0; i < s->segment_count; i++) {
        const struct log_segment *from = &s->segments[i];
        int rv = log_segments_reserve(l);

        if (rv != TQ_OK)
            return rv;
        if (from->number < l->start && i + 1 < s->segment_count)
            l->freed[l->freed_count++] =
                (struct log_freed){.number = from->number, .bytes = from->end > 0 ? from->bytes : 0};
        else
            l->segments[l->segment_count++] = *from;
    }
    return TQ_OK;
}

static int go_on(struct opening *o)
{
    const struct log_state *s = o->state;
    struct log *l = o->l;
    char name[64];
    int rv;

    memcpy(l->conf.uuid, s->uuid, LOG_UUID_BYTES);
    l->next_index = s->next_index;
    l->recorded_synced = s->synced;
    if (s->term > 0)
        l->term = s->term;
    if (s->start > 0)
        l->start = l->release_to = s->start;
    rv = take_segments(o);
    if (rv != TQ_OK)
        return rv;
    log_segment_name(name, log_last_segment(l)->number);
    l->job.file = o->fs->open(o->fs, name, LOG_FS_WRITE);
    if (l->job.file < 0)
        return l->job.file;
    rv = settle_last(o);
    return rv != TQ_OK ? rv : take_spares(o);
}

/* ---- both ---- */

static void begin_here(struct log *l)
{
    const struct log_segment *last = log_last_segment(l);

    l->seed = log_seed(l->conf.uuid, last->number);
    l->job.number = last->number;
    l->written = l->synced = l->next_index - 1;
    l->seen_index = l->next_index;
    l->job.last_written = l->job.last_synced = l->written;
    atomic_store(&l->job.told_written, l->written);
    atomic_store(&l->job.told_synced, l->synced);
}

static struct log *log_new(struct log_fs *fs, const struct log_conf *conf, const struct log_host *host)
{
    struct log *l = tq_calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->fs = l->job.fs = fs;
    l->host = *host;
    l->conf = *conf;
    if (l->conf.segment_bytes < LOG_SEGMENT_MIN_BYTES)
        l->conf.segment_bytes = LOG_SEGMENT_MIN_BYTES;
    if (l->conf.segment_bytes > LOG_SEGMENT_MAX_BYTES)
        l->conf.segment_bytes = LOG_SEGMENT_MAX_BYTES;
    l->conf.segment_bytes &= ~(LOG_FILE_UNIT - 1ull);
    if (l->conf.group_bytes > l->conf.segment_bytes / 2)
        l->conf.group_bytes = l->conf.segment_bytes / 2;
    l->now_ms = l->active_ms = conf->now_ms;
    l->dirty_ms = l->try_ms = LOG_NEVER;
    l->term = 1;
    l->start = l->release_to = 1;
    l->job.file = l->job.next_file = -1;
    tq_buf_init(&l->fill.buf, LOG_BUFFER_MAX);
    tq_buf_init(&l->job.group.buf, LOG_BUFFER_MAX);
    return l;
}

int log_open(struct log **ret_log, struct log_fs *fs, const struct log_conf *conf,
             const struct log_host *host, struct log_state *take_state, char err[LOG_ERROR_MAX])
{
    struct opening o = {.fs = fs, .state = take_state, .l = log_new(fs, conf, host)};
    int rv = TQ_ENOMEM;

    fs->error[0] = '\0';
    o.chunk = tq_malloc(CHUNK_BYTES);
    if (o.l != NULL && o.chunk != NULL)
        rv = log_segments_reserve(o.l);
    if (rv == TQ_OK)
        rv = take_state->segment_count == 0 ? make_first(&o) : go_on(&o);
    tq_free(o.chunk);
    log_state_deinit(take_state);
    if (rv != TQ_OK) {
        (void)snprintf(err, LOG_ERROR_MAX, "the log cannot be opened for writing: %s",
                       rv == TQ_ENOMEM || fs->error[0] == '\0' ? tq_strerror(rv) : fs->error);
        log_free(o.l);
        return rv == TQ_ENOMEM || rv == TQ_ENOSPC ? rv : TQ_EIO;
    }
    begin_here(o.l);
    o.l->free_bytes = fs->free_bytes(fs);
    o.l->free_ms = conf->now_ms;
    *ret_log = o.l;
    return TQ_OK;
}

static void group_deinit(struct log_group *g)
{
    tq_buf_deinit(&g->buf);
    tq_free(g->pieces);
}

void log_free(struct log *l)
{
    if (l == NULL)
        return;
    if (l->job.file >= 0)
        l->fs->close(l->fs, l->job.file);
    if (l->job.next_file >= 0)
        l->fs->close(l->fs, l->job.next_file);
    group_deinit(&l->fill);
    group_deinit(&l->job.group);
    tq_free(l->segments);
    tq_free(l->spares);
    tq_free(l->freed);
    tq_free(l);
}
