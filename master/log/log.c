#include "master/log/log.h"

#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/format_impl.h"
#include "master/log/log_impl.h"

/* ---- records ---- */

struct tq_buf *log_begin(struct log *l)
{
    struct tq_buf *buf = &l->fill.buf;

    TQ_ASSERT(!l->begun);
    if (tq_buf_reserve(buf, LOG_RECORD_HEADER_BYTES) != TQ_OK)
        return NULL;
    l->begun = true;
    l->begun_at = buf->len;
    buf->len += LOG_RECORD_HEADER_BYTES;
    return buf;
}

void log_cancel(struct log *l)
{
    TQ_ASSERT(l->begun);
    l->begun = false;
    l->fill.buf.len = l->begun_at;
}

/* Seals what stands behind the header that log_begin left room for. */
static int commit(struct log *l, enum log_type type, uint64_t *ret_index)
{
    struct log_group *g = &l->fill;
    size_t len = g->buf.len - l->begun_at - LOG_RECORD_HEADER_BYTES;
    struct log_record_header h = {
        .index = l->next_index, .synced = l->synced, .term = l->term, .type = (uint16_t)type};
    struct log_piece *p;
    uint64_t bytes;
    int rv = len <= LOG_PAYLOAD_MAX ? TQ_OK : TQ_ELIMIT;

    h.len = (uint32_t)len;
    bytes = log_record_bytes(h.len);
    if (rv == TQ_OK)
        rv = tq_buf_reserve(&g->buf, (size_t)bytes - LOG_RECORD_HEADER_BYTES - len);
    if (rv == TQ_OK)
        rv = log_place(l, bytes, &p);
    if (rv != TQ_OK) {
        log_cancel(l);
        return rv;
    }
    log_record_seal(g->buf.data + l->begun_at, &h, l->seed);
    g->buf.len = l->begun_at + (size_t)bytes;
    l->begun = false;
    p->end = g->buf.len;
    p->last_index = g->last_index = h.index;
    g->records++;
    log_last_segment(l)->end += bytes;
    l->recorded_synced = h.synced;
    l->last_is_mark = type == LOG_MARK;
    l->next_index++;
    l->records++;
    l->bytes += bytes;
    *ret_index = h.index;
    return TQ_OK;
}

int log_commit(struct log *l, enum log_type type, enum log_wait wait, uint64_t *ret_index)
{
    int rv;

    TQ_ASSERT(l->begun);
    if (l->closed) {
        log_cancel(l);
        return TQ_ECLOSED;
    }
    if (l->fill.buf.len == l->begun_at + LOG_RECORD_HEADER_BYTES) {
        log_cancel(l);
        *ret_index = 0;
        return TQ_OK;
    }
    rv = commit(l, type, ret_index);
    if (rv != TQ_OK)
        return rv;
    if (wait == LOG_SYNCED) {
        l->need.synced = *ret_index;
        l->fill.sync = true;
    } else if (wait == LOG_WRITTEN) {
        l->need.written = l->fill.wait_written = *ret_index;
    }
    return TQ_OK;
}

int log_append(struct log *l, enum log_type type, struct tq_span payload, bool sync, uint64_t *ret_index)
{
    struct tq_buf *buf = log_begin(l);
    int rv;

    if (buf == NULL)
        return TQ_ENOMEM;
    rv = tq_buf_append(buf, payload.data, payload.len);
    if (rv != TQ_OK) {
        log_cancel(l);
        return rv;
    }
    rv = commit(l, type, ret_index);
    if (rv == TQ_OK && sync)
        l->fill.sync = true;
    return rv;
}

int log_close_record(struct log *l, uint64_t *ret_index)
{
    int rv = log_append(l, LOG_CLOSED, tq_span(NULL, 0), true, ret_index);

    if (rv != TQ_OK)
        return rv;
    l->need.synced = *ret_index;
    l->closed = true;
    return TQ_OK;
}

/* ---- groups ---- */

static void group_clear(struct log_group *g)
{
    if (g->buf.cap > LOG_KEEP_BYTES && g->buf.len < g->buf.cap / 4)
        tq_buf_deinit(&g->buf);
    tq_buf_clear(&g->buf);
    g->piece_count = 0;
    g->records = 0;
    g->wait_written = 0;
    g->sync = false;
}

static void submit(struct log *l, bool sync)
{
    struct log_job *job = &l->job;

    job->sync = sync;
    job->chores_first = l->stuck;
    job->asks_free = l->stuck || l->now_ms - l->free_ms >= LOG_FREE_MS;
    job->spare_last = log_last_segment(l)->number + l->spare_count;
    atomic_store_explicit(&job->over, false, memory_order_relaxed);
    l->running = true;
    l->host.submit(l->host.ctx, job);
}

/* A LOG_START frees segments. It comes to the disk with the next sync, or at once if room is short. */
static void append_start(struct log *l)
{
    uint8_t payload[8];
    uint64_t index;

    if (l->release_to <= l->start || l->start_index != 0 || l->pinned)
        return;
    log_store64(payload, l->release_to);
    if (log_append(l, LOG_START, tq_span(payload, sizeof(payload)), l->stuck || log_wants_room(l), &index) !=
        TQ_OK)
        return; /* no memory: the next time */
    l->start = l->release_to;
    l->start_index = index;
}

/* So that a reader knows of the last records that they were acknowledged. */
static uint64_t mark_due_ms(const struct log *l)
{
    bool is_told = l->recorded_synced == l->synced || l->last_is_mark;

    if (l->closed || is_told || l->synced + 1 != l->next_index)
        return LOG_NEVER;
    return log_after(l->active_ms, l->conf.interval_ms);
}

static uint64_t sync_due_ms(const struct log *l)
{
    return l->dirty_ms == LOG_NEVER ? LOG_NEVER : log_after(l->dirty_ms, l->conf.interval_ms);
}

void log_kick(struct log *l, uint64_t now_ms)
{
    bool sync, dirty;
    uint64_t index;

    TQ_ASSERT(!l->begun);
    l->now_ms = now_ms;
    if (l->seen_index != l->next_index) {
        l->seen_index = l->next_index;
        l->active_ms = now_ms;
    }
    if (l->running || l->failed)
        return;
    if (l->stuck && now_ms < l->try_ms && l->freed_count == 0)
        return;
    if (l->short_of_room && !log_wants_room(l)) {
        l->short_of_room = false;
        if (!l->stuck)
            l->try_ms = LOG_NEVER;
    }
    if (l->start_index == 0)
        log_segments_free(l);
    if (!l->closed)
        append_start(l);
    if (now_ms >= mark_due_ms(l))
        (void)log_append(l, LOG_MARK, tq_span(NULL, 0), true, &index); /* no memory: the next time */
    log_plan_chores(l);
    if (l->stuck) {
        submit(l, l->job.sync);
        return;
    }
    dirty = now_ms >= sync_due_ms(l);
    sync = l->fill.sync || dirty;
    if (l->fill.records > 0) {
        struct log_group spare = l->job.group;

        l->job.group = l->fill;
        l->fill = spare;
        l->job.piece_done = 0;
        l->sent_is_written = false;
        l->groups++;
    } else if (!dirty && l->job.chore_count == 0) {
        return;
    }
    submit(l, sync);
}

static bool take_progress(struct log *l)
{
    uint64_t written = atomic_load_explicit(&l->job.told_written, memory_order_acquire);
    uint64_t synced = atomic_load_explicit(&l->job.told_synced, memory_order_acquire);
    bool has_moved = written > l->written || synced > l->synced;

    if (written > l->written)
        l->written = written;
    if (synced > l->synced)
        l->synced = synced;
    if (l->job.group.piece_count > 0 && l->written >= l->job.group.last_index)
        l->sent_is_written = true;
    return has_moved;
}

static void fail(struct log *l)
{
    l->failed = true;
    (void)snprintf(l->error, sizeof(l->error), "%s", l->job.error);
}

/* What the job found out, but for how far it came. */
static void take_results(struct log *l)
{
    struct log_job *job = &l->job;

    if (job->asks_free) {
        l->free_bytes = job->free_bytes;
        l->free_ms = l->now_ms;
    }
    l->syncs += job->syncs;
    if (job->sync_ns > 0)
        l->sync_ns_last = job->sync_ns;
    if (job->sync_ns_max > l->sync_ns_max)
        l->sync_ns_max = job->sync_ns_max;
    if (job->write_ns > l->write_ns_max)
        l->write_ns_max = job->write_ns;
    l->stuck = job->rv != TQ_OK;
    if (l->stuck)
        l->wait_rv = job->rv;
    log_spares_emptied(l, job->emptied_from);
    log_chores_done(l);
    if (l->stuck) /* chores that made room came first */
        l->try_ms = log_after(l->now_ms, LOG_RETRY_MS);
    if (l->stuck || l->short_of_room)
        (void)snprintf(l->error, sizeof(l->error), "%s", job->error);
    if (!l->stuck) {
        group_clear(&job->group);
        job->piece_done = 0;
    }
    if (l->written == l->synced)
        l->dirty_ms = LOG_NEVER;
    else if (l->dirty_ms == LOG_NEVER)
        l->dirty_ms = l->now_ms;
    if (l->start_index != 0 && l->synced >= l->start_index)
        l->start_index = 0;
}

static bool is_waiting(const struct log *l)
{
    return l->stuck || (l->short_of_room && log_wants_room(l));
}

static bool has_no_space(const struct log *l)
{
    return is_waiting(l) && l->wait_rv == TQ_ENOSPC;
}

void log_done(struct log *l, uint64_t now_ms)
{
    bool no_space = has_no_space(l), busy = log_is_busy(l), has_moved;
    uint64_t first = l->segments[0].number;

    if (!l->running || l->failed)
        return;
    if (!atomic_load_explicit(&l->job.over, memory_order_acquire)) {
        if (take_progress(l))
            l->host.on_progress(l->host.ctx);
        return;
    }
    l->running = false;
    l->now_ms = now_ms;
    if (l->job.rv != TQ_OK && !log_is_passing(l->job.rv)) {
        fail(l);
        l->host.on_progress(l->host.ctx);
        return;
    }
    has_moved = take_progress(l);
    take_results(l);
    if (!l->begun)
        log_kick(l, now_ms); /* the next group is on its way before anybody hears of this one */
    if (has_moved || no_space != has_no_space(l) || busy != log_is_busy(l) || first != l->segments[0].number)
        l->host.on_progress(l->host.ctx);
}

uint64_t log_next_ms(const struct log *l)
{
    uint64_t next = LOG_NEVER, mark = mark_due_ms(l), sync = sync_due_ms(l);

    if (l->running || l->failed)
        return LOG_NEVER;
    if (is_waiting(l))
        next = l->try_ms;
    if (!l->stuck && mark < next)
        next = mark;
    if (!l->stuck && sync < next)
        next = sync;
    return next;
}

/* ---- looking ---- */

static uint64_t pending_bytes(const struct log *l)
{
    bool is_sent = (l->running || l->stuck) && !l->sent_is_written;

    return (l->begun ? l->begun_at : l->fill.buf.len) + (is_sent ? l->job.group.buf.len : 0);
}

struct log_need log_need_now(const struct log *l)
{
    return l->need;
}

bool log_is_met(const struct log *l, struct log_need need)
{
    return l->written >= need.written && l->synced >= need.synced;
}

bool log_is_busy(const struct log *l)
{
    return pending_bytes(l) > l->conf.group_bytes;
}

void log_look_at_disk(struct log *l)
{
    l->free_bytes = l->fs->free_bytes(l->fs);
    l->free_ms = l->now_ms;
}

void log_get_status(const struct log *l, struct log_status *ret)
{
    const struct log_segment *last = log_last_segment(l);

    *ret = (struct log_status){
        .next_index = l->next_index,
        .written = l->written,
        .synced = l->synced,
        .wait_written = l->need.written,
        .wait_synced = l->need.synced,
        .pending_bytes = pending_bytes(l),
        .busy = log_is_busy(l),
        .no_space = has_no_space(l),
        .failed = l->failed,
        .room_bytes = last->bytes - last->end,
        .record_max = log_record_max(l),
        .free_bytes = l->free_bytes,
        .first_segment = l->segments[0].number,
        .last_segment = last->number,
        .groups = l->groups,
        .records = l->records,
        .bytes = l->bytes,
        .syncs = l->syncs,
        .sync_ns_last = l->sync_ns_last,
        .sync_ns_max = l->sync_ns_max,
        .write_ns_max = l->write_ns_max,
    };
    for (size_t i = 0; i < l->segment_count; i++) {
        ret->log_bytes += l->segments[i].end - LOG_SEGMENT_HEADER_BYTES;
        ret->used_bytes += l->segments[i].bytes;
    }
    ret->disk_bytes = ret->used_bytes;
    for (size_t i = 0; i < l->spare_count; i++) {
        ret->disk_bytes += l->spares[i];
        if (l->spares[i] > 0) {
            ret->spares++;
            ret->room_bytes += l->spares[i] - LOG_SEGMENT_HEADER_BYTES;
        }
    }
    for (size_t i = 0; i < l->freed_count; i++)
        ret->disk_bytes += l->freed[i].bytes;
    if (l->failed || ret->no_space)
        (void)snprintf(ret->error, sizeof(ret->error), "%s", l->error);
}
