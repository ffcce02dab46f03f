#include "master/log/recover.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/dir.h"

#define REMEDY                                                                                               \
    "; `task-ctl log check DIR` lists what is damaged, `task-ctl log repair DIR` gives up what is behind it"
#define NEWER "; use the release that wrote it, or a later one"

#define PROGRESS_STEP_BYTES (4u * 1024 * 1024)

struct recovery {
    struct log_dir dir;
    struct log_file file;
    struct log_rules rules;
    const struct log_reader *reader;
    struct log_state *state;
    uint64_t index; /* of the next record */
    uint64_t done_bytes, all_bytes, told_bytes;
};

void log_state_deinit(struct log_state *s)
{
    tq_free(s->segments);
    tq_free(s->spares);
    tq_free(s->spare_bytes);
    s->segments = NULL;
    s->spares = s->spare_bytes = NULL;
    s->segment_count = s->spare_count = 0;
}

static void progress(struct recovery *r, uint64_t segment_bytes, bool always)
{
    uint64_t done = r->done_bytes + segment_bytes;

    if (r->reader->progress == NULL || (!always && done - r->told_bytes < PROGRESS_STEP_BYTES))
        return;
    r->told_bytes = done;
    r->reader->progress(r->reader->ctx, done, r->all_bytes);
}

/* A good record: looked at, and handed over if it is one of the owner's. */
static int take_record(struct recovery *r, uint64_t segment, uint64_t offset,
                       const struct log_record_header *h, struct tq_span payload)
{
    char cause[LOG_ERROR_MAX];
    const char *why;
    int rv = log_rules_apply(&r->rules, h, payload, &why);

    if (rv != TQ_OK)
        return log_dir_fail(&r->dir, rv, segment, offset, "%s%s", why,
                            rv == TQ_EUNSUPPORTED ? NEWER : REMEDY);
    r->state->records++;
    r->state->bytes += log_record_bytes(h->len);
    if (h->type != LOG_OPS)
        return TQ_OK;
    cause[0] = '\0';
    rv = r->reader->record(r->reader->ctx, h, payload, segment, cause);
    if (rv != TQ_OK)
        return log_dir_fail(&r->dir, rv, segment, offset, "%s", cause);
    return TQ_OK;
}

/* No good record of the next index stands at `offset`, and the segment is the last one. */
static int take_end(struct recovery *r, const struct log_head *h, uint64_t offset, const char *why)
{
    struct log_end end;
    int rv = log_file_judge_end(&r->file, offset, r->index, h->header.first_index, &end);

    if (rv != TQ_OK)
        return rv;
    if (end.damage)
        return log_dir_fail(&r->dir, TQ_EINVAL, h->number, offset,
                            "%s; record %" PRIu64 " is lost, which had been acknowledged: record %" PRIu64
                            " at offset %" PRIu64 " says so%s",
                            why, r->index, end.rest.synced_index, end.rest.synced_offset, REMEDY);
    if (end.cut_bytes > 0) {
        r->state->cut_offset = offset;
        r->state->cut_bytes = end.cut_bytes;
        snprintf(r->state->cut_why, sizeof(r->state->cut_why), "%s", why);
    }
    return TQ_OK;
}

/* The records of one segment; `end_index` is the first one of the next segment, 0 if it is the last. */
static int read_segment(struct recovery *r, const struct log_head *h, uint64_t end_index, uint64_t *ret_end)
{
    uint64_t offset = LOG_SEGMENT_HEADER_BYTES;
    int rv = log_file_open(&r->file, h->number, h->header.bytes, r->dir.uuid);

    r->rules.segment = h->number;
    while (rv == TQ_OK && r->index != end_index) {
        struct log_record_header record;
        struct tq_span payload;
        const char *why;

        rv = log_file_record(&r->file, offset, r->index, &record, &payload, &why);
        if (rv == 0 && end_index == 0) {
            rv = take_end(r, h, offset, why);
            break;
        }
        if (rv == 0)
            return log_dir_fail(&r->dir, TQ_EINVAL, h->number, offset, "%s; record %" PRIu64 " is lost%s",
                                why, r->index, REMEDY);
        if (rv != 1)
            return rv;
        rv = take_record(r, h->number, offset, &record, payload);
        offset += log_record_bytes(record.len);
        r->index++;
        progress(r, offset, false);
    }
    *ret_end = offset;
    r->done_bytes += h->header.bytes;
    return rv;
}

/* Are the files such as a crash can leave them? What has to do with `start` comes after the reading. */
static int check_files(struct recovery *r)
{
    const struct log_dir *d = &r->dir;
    const char *why;
    uint64_t number;

    for (size_t i = 0; i < d->head_count; i++)
        if (d->heads[i].rv == TQ_EUNSUPPORTED)
            return log_dir_fail(d, TQ_EUNSUPPORTED, d->heads[i].number, 0, "%s%s", d->heads[i].why, NEWER);
    if (d->head_count > 0 && d->run == d->head_count)
        return log_dir_fail(d, TQ_EINVAL, d->broken.number, 0, "%s%s", d->broken.why, REMEDY);
    why = log_dir_end_why(d, &number);
    if (why != NULL)
        return log_dir_fail(d, TQ_EINVAL, number, 0, "%s%s", why, REMEDY);
    for (size_t i = d->run; i < d->head_count; i++)
        if (log_head_is_short(&d->heads[i]))
            return log_dir_fail(d, TQ_EINVAL, d->heads[i].number, d->heads[i].file_bytes,
                                "the file ends here, and had %" PRIu64 " bytes%s", d->heads[i].header.bytes,
                                REMEDY);
    return TQ_OK;
}

static int make_segments(struct recovery *r)
{
    const struct log_dir *d = &r->dir;
    struct log_segment *list;

    if (d->head_count == 0)
        return TQ_OK;
    list = tq_calloc(d->head_count, sizeof(*list));
    if (list == NULL)
        return log_dir_fail_fs(d, TQ_ENOMEM);
    for (size_t i = 0; i < d->head_count; i++) {
        const struct log_head *h = &d->heads[i];

        list[i].number = h->number;
        list[i].bytes = i >= d->run ? h->header.bytes : h->file_bytes;
        list[i].first_index = i >= d->run ? h->header.first_index : 0;
        if (i >= d->run)
            r->all_bytes += h->header.bytes;
    }
    r->state->segments = list;
    r->state->segment_count = d->head_count;
    return TQ_OK;
}

static int read_all(struct recovery *r)
{
    const struct log_dir *d = &r->dir;
    int rv = TQ_OK;

    for (size_t i = d->run; rv == TQ_OK && i < d->head_count; i++) {
        uint64_t end_index = i + 1 < d->head_count ? d->heads[i + 1].header.first_index : 0;

        if (i == d->run)
            r->index = d->heads[i].header.first_index;
        TQ_ASSERT(r->index == d->heads[i].header.first_index);
        rv = read_segment(r, &d->heads[i], end_index, &r->state->segments[i].end);
    }
    if (rv != TQ_OK)
        return rv;
    if (d->broken.number >= r->rules.start)
        return log_dir_fail(d, TQ_EINVAL, d->broken.number, 0, "%s%s", d->broken.why, REMEDY);
    if (d->head_count > 0)
        progress(r, 0, true);
    return TQ_OK;
}

int log_recover(struct log_fs *fs, const struct log_reader *reader, struct log_state *ret_state,
                char err[LOG_ERROR_MAX])
{
    struct recovery r = {.reader = reader, .state = ret_state, .index = 1, .rules = {.start = 1, .term = 1}};
    int rv;

    *ret_state = (struct log_state){0};
    rv = log_dir_read(&r.dir, fs, err);
    if (rv != TQ_OK)
        return rv;
    r.rules.uuid = r.dir.uuid;
    log_file_init(&r.file, &r.dir);
    rv = check_files(&r);
    if (rv == TQ_OK)
        rv = make_segments(&r);
    if (rv == TQ_OK)
        rv = read_all(&r);
    log_file_deinit(&r.file);
    if (rv == TQ_OK) {
        memcpy(ret_state->uuid, r.dir.uuid, LOG_UUID_BYTES);
        ret_state->next_index = r.index;
        ret_state->synced = r.rules.synced;
        ret_state->term = r.rules.term;
        ret_state->start = r.rules.start;
        ret_state->closed = r.rules.closed;
        ret_state->spares = r.dir.spares;
        ret_state->spare_bytes = r.dir.spare_bytes;
        ret_state->spare_count = r.dir.spare_count;
        r.dir.spares = r.dir.spare_bytes = NULL;
    } else {
        log_state_deinit(ret_state);
    }
    log_dir_deinit(&r.dir);
    return rv;
}
