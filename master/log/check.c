#include "master/log/check.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/err.h"
#include "common/mem.h"

#define FOUND_MAX (1u << 20)

/* ---- findings ---- */

static int add_found(struct log_analysis *a, enum log_fault fault, uint64_t segment, uint64_t index,
                     struct log_finding finding)
{
    if (a->found_count == a->found_cap) {
        size_t cap = a->found_cap == 0 ? 16 : 2 * a->found_cap;
        struct log_found *more = cap > FOUND_MAX ? NULL : tq_realloc(a->found, cap * sizeof(a->found[0]));

        if (more == NULL)
            return log_dir_fail_fs(&a->dir, TQ_ENOMEM);
        a->found = more;
        a->found_cap = cap;
    }
    log_segment_name(finding.file, segment);
    finding.torn = fault == LOG_FAULT_TORN;
    a->found[a->found_count++] = (struct log_found){
        .fault = fault, .segment = segment, .rules = a->rules, .index = index, .finding = finding};
    return TQ_OK;
}

bool log_found_counts(const struct log_analysis *a, const struct log_found *f)
{
    const struct log_dir *d = &a->dir;
    uint64_t needed = a->rules.start;

    if (f->fault == LOG_FAULT_TORN)
        return false;
    /* If all that is needed stands in the run, that is what is read. */
    if (d->run < d->head_count && d->broken.number < needed)
        needed = d->heads[d->run].number;
    return f->segment >= needed;
}

/* ---- one segment ---- */

struct walk {
    struct log_analysis *a;
    const struct log_head *head;
    bool last;
    uint64_t offset, index;
    uint64_t stop; /* the first index of the next segment; 0: not known */
    struct log_scan scan;
    bool scanning;             /* something was bad already: */
    struct log_scan_rest rest; /* what is good behind it */
};

static int found_records(struct walk *w, uint64_t end, uint64_t last_index, const char *why)
{
    uint64_t first = w->index <= last_index ? w->index : 0;

    return add_found(w->a, LOG_FAULT_RECORDS, w->head->number, w->index,
                     (struct log_finding){.offset = w->offset,
                                          .bytes = end - w->offset,
                                          .first_index = first,
                                          .last_index = first != 0 ? last_index : 0,
                                          .what = why});
}

/* The end of the last segment, as nothing behind says that it was synced. If the file was cut, that is what
 * there is to say. */
static int walk_torn(struct walk *w, const char *why)
{
    struct log_end end;
    int rv;

    if (log_head_is_short(w->head))
        return TQ_OK;
    rv = log_file_judge_end(&w->a->file, w->offset, w->index, w->head->header.first_index, &end);
    if (rv != TQ_OK || end.cut_bytes == 0)
        return rv;
    return add_found(w->a, LOG_FAULT_TORN, w->head->number, w->index,
                     (struct log_finding){.offset = w->offset, .bytes = end.cut_bytes, .what = why});
}

/* No good record of the next index is here. 1: go on; 0: the segment ends here. */
static int walk_bad(struct walk *w, const char *why)
{
    struct log_file *file = &w->a->file;
    struct log_record_header h;
    uint64_t at;
    int rv;

    if (!w->scanning) {
        rv = log_file_fill(file, file->bytes);
        if (rv != TQ_OK)
            return rv;
        log_scan_init(&w->scan, tq_span(file->data, (size_t)file->bytes), file->seed, w->offset);
        w->scanning = true;
        rv = log_scan_rest(&w->scan, w->index - 1, &w->rest);
        if (rv != TQ_OK)
            return log_dir_fail_fs(&w->a->dir, rv);
    }
    if (w->last && w->rest.synced < w->index)
        return walk_torn(w, why);
    rv = log_scan_next(&w->scan, w->offset, w->index - 1, &at, &h);
    if (rv < 0)
        return log_dir_fail_fs(&w->a->dir, rv);
    if (rv == 1 && (w->stop == 0 || h.index < w->stop)) {
        rv = found_records(w, at, h.index - 1, why);
        w->offset = at;
        w->index = h.index;
        return rv == TQ_OK ? 1 : rv;
    }
    if (w->stop == 0)
        return 0; /* how far it went, nobody knows: what comes next is bad itself */
    return found_records(w, file->bytes, w->stop - 1, why);
}

static int walk_records(struct walk *w)
{
    struct log_analysis *a = w->a;
    int rv = TQ_OK;

    while (w->index != w->stop) {
        struct log_record_header h;
        struct tq_span payload;
        const char *why;

        rv = log_file_record(&a->file, w->offset, w->index, &h, &payload, &why);
        if (rv == 0)
            rv = walk_bad(w, why);
        else if (rv == 1) {
            uint64_t end = w->offset + log_record_bytes(h.len);

            rv = log_rules_apply(&a->rules, &h, payload, &why);
            if (rv == TQ_EUNSUPPORTED)
                return log_dir_fail(&a->dir, rv, w->head->number, w->offset, "%s", why);
            if (rv != TQ_OK)
                rv = found_records(w, end, w->index, why);
            if (rv == TQ_OK)
                rv = 1;
            a->records++;
            a->bytes += end - w->offset;
            w->offset = end;
            w->index++;
        }
        if (rv != 1)
            return rv;
    }
    return TQ_OK;
}

static int walk_segment(struct log_analysis *a, size_t i, const struct log_head *h)
{
    bool last = i + 1 == a->dir.head_count;
    struct walk w = {
        .a = a, .head = h, .last = last, .offset = LOG_SEGMENT_HEADER_BYTES, .index = h->header.first_index};
    uint64_t bytes = h->header.bytes;
    int rv;

    if (!last && h[1].rv == TQ_OK && h[1].number == h->number + 1)
        w.stop = h[1].header.first_index;
    if (log_head_is_short(h)) {
        bytes = h->file_bytes;
        rv = add_found(a, LOG_FAULT_SHORT, h->number, 0,
                       (struct log_finding){.offset = bytes,
                                            .bytes = h->header.bytes - bytes,
                                            .what = "the file ends here, and had more bytes"});
        if (rv != TQ_OK)
            return rv;
    }
    a->rules.segment = h->number;
    rv = log_file_open(&a->file, h->number, bytes, a->dir.uuid);
    if (rv == TQ_OK)
        rv = walk_records(&w);
    if (w.scanning)
        log_scan_deinit(&w.scan);
    a->ends[i] = w.offset;
    a->next_index = w.index;
    return rv;
}

/* ---- all ---- */

static int found_missing(struct log_analysis *a, const struct log_head *before, const struct log_head *h)
{
    uint64_t first = before != NULL ? a->next_index : 0;
    struct log_finding f = {.what = "the segment is missing"};

    if (first != 0 && h->rv == TQ_OK && first < h->header.first_index) {
        f.first_index = first;
        f.last_index = h->header.first_index - 1;
    }
    return add_found(a, LOG_FAULT_MISSING, h->number - 1, first, f);
}

static void reset_rules(struct log_analysis *a)
{
    a->rules = (struct log_rules){.uuid = a->dir.uuid, .start = 1, .term = 1};
}

static int analyse_segments(struct log_analysis *a)
{
    struct log_dir *d = &a->dir;

    for (size_t i = 0; i < d->head_count; i++) {
        const struct log_head *h = &d->heads[i];
        const struct log_head *before = i > 0 ? h - 1 : NULL;
        int rv = TQ_OK;

        if (h->number != (before != NULL ? before->number + 1 : 1))
            rv = found_missing(a, before, h);
        if (rv == TQ_OK && i == d->run)
            reset_rules(a); /* what is before is not read when the log opens */
        if (rv == TQ_OK && h->rv == TQ_EUNSUPPORTED) {
            rv = log_dir_fail(d, h->rv, h->number, 0, "%s", h->why);
        } else if (rv == TQ_OK && h->rv != TQ_OK) {
            rv = add_found(a, LOG_FAULT_HEAD, h->number, a->next_index,
                           (struct log_finding){.bytes = LOG_SEGMENT_HEADER_BYTES, .what = h->why});
            a->next_index = 0;
        } else if (rv == TQ_OK) {
            rv = walk_segment(a, i, h);
        }
        if (rv != TQ_OK)
            return rv;
    }
    return TQ_OK;
}

static int analyse(struct log_analysis *a)
{
    const char *why;
    uint64_t number;
    int rv;

    if (a->dir.head_count > 0) {
        a->ends = tq_calloc(a->dir.head_count, sizeof(a->ends[0]));
        if (a->ends == NULL)
            return log_dir_fail_fs(&a->dir, TQ_ENOMEM);
    }
    rv = analyse_segments(a);
    if (rv != TQ_OK)
        return rv;
    why = log_dir_end_why(&a->dir, &number);
    return why == NULL
               ? TQ_OK
               : add_found(a, LOG_FAULT_END, number, a->next_index, (struct log_finding){.what = why});
}

int log_analyse(struct log_analysis *a, struct log_fs *fs, char err[LOG_ERROR_MAX])
{
    int rv;

    *a = (struct log_analysis){.next_index = 1};
    rv = log_dir_read(&a->dir, fs, err);
    if (rv != TQ_OK)
        return rv;
    log_file_init(&a->file, &a->dir);
    reset_rules(a);
    rv = analyse(a);
    log_file_deinit(&a->file);
    if (rv != TQ_OK)
        log_analysis_deinit(a);
    return rv;
}

void log_analysis_deinit(struct log_analysis *a)
{
    tq_free(a->found);
    tq_free(a->ends);
    a->found = NULL;
    a->ends = NULL;
    a->found_count = 0;
    log_dir_deinit(&a->dir);
}

static int make_state(struct log_analysis *a, struct log_state *s, char *err)
{
    const struct log_dir *d = &a->dir;

    *s = (struct log_state){.next_index = a->next_index,
                            .synced = a->rules.synced,
                            .term = a->rules.term,
                            .start = a->rules.start,
                            .closed = a->rules.closed,
                            .records = a->records,
                            .bytes = a->bytes};
    memcpy(s->uuid, d->uuid, LOG_UUID_BYTES);
    if (d->head_count > 0) {
        s->segments = tq_calloc(d->head_count, sizeof(s->segments[0]));
        if (s->segments == NULL) {
            snprintf(err, LOG_ERROR_MAX, "out of memory");
            return TQ_ENOMEM;
        }
    }
    s->segment_count = d->head_count;
    for (size_t i = 0; i < d->head_count; i++) {
        const struct log_head *h = &d->heads[i];

        s->segments[i] = (struct log_segment){.number = h->number,
                                              .first_index = h->rv == TQ_OK ? h->header.first_index : 0,
                                              .bytes = h->rv == TQ_OK ? h->header.bytes : h->file_bytes,
                                              .end = a->ends[i]};
    }
    s->spares = d->spares;
    s->spare_bytes = d->spare_bytes;
    s->spare_count = d->spare_count;
    return TQ_OK;
}

int log_check(struct log_fs *fs, void (*fn)(void *ctx, const struct log_finding *f), void *ctx,
              struct log_state *ret_state, char err[LOG_ERROR_MAX])
{
    struct log_analysis a;
    int rv, count = 0;

    *ret_state = (struct log_state){0};
    rv = log_analyse(&a, fs, err);
    if (rv != TQ_OK)
        return rv;
    rv = make_state(&a, ret_state, err);
    if (rv == TQ_OK) {
        a.dir.spares = a.dir.spare_bytes = NULL; /* the state's now */
        for (size_t i = 0; i < a.found_count; i++) {
            const struct log_found *f = &a.found[i];

            if (f->fault == LOG_FAULT_TORN) {
                ret_state->cut_offset = f->finding.offset;
                ret_state->cut_bytes = f->finding.bytes;
                snprintf(ret_state->cut_why, sizeof(ret_state->cut_why), "%s", f->finding.what);
            }
            if (f->fault != LOG_FAULT_TORN && !log_found_counts(&a, f))
                continue;
            count += f->fault != LOG_FAULT_TORN;
            fn(ctx, &f->finding);
        }
    }
    log_analysis_deinit(&a);
    return rv == TQ_OK ? count : rv;
}
