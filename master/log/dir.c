#include "master/log/dir.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/format_impl.h"

#define NAMES_MAX        (1u << 20) /* files of ours in a directory */
#define READ_PIECE_BYTES (256u * 1024)

/* ---- errors ---- */

int log_dir_fail(const struct log_dir *d, int rv, uint64_t number, uint64_t offset, const char *format, ...)
{
    char name[LOG_FS_NAME_MAX];
    va_list args;
    int n;

    log_segment_name(name, number);
    n = snprintf(d->err, LOG_ERROR_MAX, "%s, offset %" PRIu64 ": ", name, offset);
    va_start(args, format);
    vsnprintf(d->err + n, LOG_ERROR_MAX - (size_t)n, format, args);
    va_end(args);
    return rv;
}

int log_dir_fail_fs(const struct log_dir *d, int rv)
{
    snprintf(d->err, LOG_ERROR_MAX, "%s", rv == TQ_ENOMEM ? "out of memory" : d->fs->error);
    return rv;
}

/* ---- the files ---- */

struct listing {
    struct log_dir *d;
    size_t head_cap, spare_cap;
    int rv;
};

/* One more element in a list that doubles. NULL: no memory, or too many. */
static void *grown(void *list, size_t count, size_t *cap, size_t element_bytes)
{
    void *more;

    if (count < *cap)
        return list;
    if (count >= NAMES_MAX)
        return NULL;
    more = tq_realloc(list, (*cap == 0 ? 16 : 2 * *cap) * element_bytes);
    if (more != NULL)
        *cap = *cap == 0 ? 16 : 2 * *cap;
    return more;
}

static void on_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct log_dir *d = l->d;
    uint64_t number;
    bool spare;

    if (l->rv != TQ_OK || !log_name_parse(name, &number, &spare))
        return;
    if (spare) {
        uint64_t *list = grown(d->spares, d->spare_count, &l->spare_cap, sizeof(*list));

        if (list == NULL) {
            l->rv = TQ_ENOMEM;
            return;
        }
        d->spares = list;
        list[d->spare_count++] = number;
    } else {
        struct log_head *list = grown(d->heads, d->head_count, &l->head_cap, sizeof(*list));

        if (list == NULL) {
            l->rv = TQ_ENOMEM;
            return;
        }
        d->heads = list;
        list[d->head_count++] = (struct log_head){.number = number};
    }
}

static int by_number(const void *a, const void *b)
{
    const struct log_head *x = a, *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static int read_head(struct log_dir *d, struct log_head *h)
{
    uint8_t bytes[LOG_SEGMENT_HEADER_BYTES];
    char name[LOG_FS_NAME_MAX];
    int64_t n;
    int file, rv;

    log_segment_name(name, h->number);
    file = d->fs->open(d->fs, name, LOG_FS_READ);
    if (file < 0)
        return file;
    rv = d->fs->size(d->fs, file, &h->file_bytes);
    n = rv != TQ_OK ? rv : d->fs->read(d->fs, file, 0, bytes, sizeof(bytes));
    d->fs->close(d->fs, file);
    if (n < 0)
        return (int)n;
    h->rv = log_segment_header_get(tq_span(bytes, (size_t)n), &h->header, &h->why);
    if (h->rv == TQ_OK && h->header.number != h->number) {
        h->rv = TQ_EINVAL;
        h->why = "the file was renamed or copied: its header has another segment's number";
    }
    return TQ_OK;
}

static int read_spares(struct log_dir *d)
{
    if (d->spare_count == 0)
        return TQ_OK;
    qsort(d->spares, d->spare_count, sizeof(d->spares[0]), by_value);
    d->spare_bytes = tq_calloc(d->spare_count, sizeof(d->spare_bytes[0]));
    if (d->spare_bytes == NULL)
        return TQ_ENOMEM;
    for (size_t i = 0; i < d->spare_count; i++) {
        char name[LOG_FS_NAME_MAX];
        int file, rv;

        log_spare_name(name, d->spares[i]);
        file = d->fs->open(d->fs, name, LOG_FS_READ);
        if (file < 0)
            return file;
        rv = d->fs->size(d->fs, file, &d->spare_bytes[i]);
        d->fs->close(d->fs, file);
        if (rv != TQ_OK)
            return rv;
    }
    return TQ_OK;
}

static void refuse(struct log_head *h, const char *why)
{
    h->rv = TQ_EINVAL;
    h->why = why;
}

/* What only shows beside the others. The last one is taken for the one that is right. */
static void compare_heads(struct log_dir *d)
{
    for (size_t i = d->head_count; i-- > 0;) {
        struct log_head *h = &d->heads[i];
        const struct log_head *next = i + 1 < d->head_count ? h + 1 : NULL;

        if (h->rv != TQ_OK)
            continue;
        if (!d->uuid_known) {
            memcpy(d->uuid, h->header.uuid, LOG_UUID_BYTES);
            d->uuid_known = true;
        }
        if (memcmp(h->header.uuid, d->uuid, LOG_UUID_BYTES) != 0)
            refuse(h, "the segment belongs to another data directory than the last one");
        else if (h->number == 1 && h->header.first_index != 1)
            refuse(h, "the first segment does not begin with the first record");
        else if (next != NULL && next->rv == TQ_OK && h->header.first_index > next->header.first_index)
            refuse(h, "the segment's first index does not go together with that of the next one");
    }
}

/* From the last one back, as long as each fits to the one behind it. */
static void find_run(struct log_dir *d)
{
    static const char missing[] = "the segment is missing";

    for (d->run = d->head_count; d->run > 0; d->run--) {
        const struct log_head *h = &d->heads[d->run - 1];
        const struct log_head *next = d->run < d->head_count ? h + 1 : NULL;

        if (next != NULL && next->number != h->number + 1) {
            d->broken.number = next->number - 1;
            d->broken.why = missing;
            return;
        }
        if (h->rv != TQ_OK) {
            d->broken.number = h->number;
            d->broken.why = h->why;
            return;
        }
    }
    if (d->head_count > 0 && d->heads[0].number > 1) {
        d->broken.number = d->heads[0].number - 1;
        d->broken.why = missing;
    }
}

int log_dir_read(struct log_dir *d, struct log_fs *fs, char err[LOG_ERROR_MAX])
{
    struct listing l = {.d = d};
    int rv;

    *d = (struct log_dir){.fs = fs, .err = err};
    rv = fs->list(fs, on_name, &l);
    if (rv == TQ_OK)
        rv = l.rv;
    if (rv == TQ_OK && d->head_count > 0)
        qsort(d->heads, d->head_count, sizeof(d->heads[0]), by_number);
    for (size_t i = 0; rv == TQ_OK && i < d->head_count; i++)
        rv = read_head(d, &d->heads[i]);
    if (rv == TQ_OK)
        rv = read_spares(d);
    if (rv != TQ_OK) {
        log_dir_fail_fs(d, rv);
        log_dir_deinit(d);
        return rv;
    }
    compare_heads(d);
    find_run(d);
    return TQ_OK;
}

void log_dir_deinit(struct log_dir *d)
{
    tq_free(d->heads);
    tq_free(d->spares);
    tq_free(d->spare_bytes);
    d->heads = NULL;
    d->spares = d->spare_bytes = NULL;
    d->head_count = d->spare_count = 0;
}

bool log_dir_has_spare(const struct log_dir *d, uint64_t number)
{
    return d->spare_count > 0 &&
           bsearch(&number, d->spares, d->spare_count, sizeof(d->spares[0]), by_value) != NULL;
}

const char *log_dir_end_why(const struct log_dir *d, uint64_t *ret_number)
{
    uint64_t last = d->head_count > 0 ? d->heads[d->head_count - 1].number : 0;

    *ret_number = last + 1;
    if (log_dir_has_spare(d, last + 1) || (last == 0 && d->spare_count == 0))
        return NULL;
    return "the segment is missing: behind the last one there always is a spare one";
}

bool log_head_is_short(const struct log_head *h)
{
    return h->rv == TQ_OK && h->file_bytes < h->header.bytes;
}

/* ---- one segment ---- */

void log_file_init(struct log_file *f, const struct log_dir *d)
{
    *f = (struct log_file){.dir = d, .file = -1};
}

void log_file_close(struct log_file *f)
{
    if (f->file >= 0)
        f->dir->fs->close(f->dir->fs, f->file);
    f->file = -1;
}

void log_file_deinit(struct log_file *f)
{
    log_file_close(f);
    tq_free(f->data);
    f->data = NULL;
}

int log_file_open(struct log_file *f, uint64_t number, uint64_t bytes, const uint8_t uuid[LOG_UUID_BYTES])
{
    struct log_fs *fs = f->dir->fs;
    char name[LOG_FS_NAME_MAX];

    log_file_close(f);
    log_segment_name(name, number);
    f->file = fs->open(fs, name, LOG_FS_READ);
    if (f->file < 0)
        return log_dir_fail_fs(f->dir, f->file);
    f->number = number;
    f->bytes = bytes < LOG_SEGMENT_MAX_BYTES ? bytes : LOG_SEGMENT_MAX_BYTES;
    f->seed = log_seed(uuid, number);
    f->have = 0;
    return TQ_OK;
}

static int make_room(struct log_file *f, uint64_t want)
{
    uint64_t cap = f->cap;
    uint8_t *data;

    if (want <= cap)
        return TQ_OK;
    while (cap < want)
        cap = cap == 0 ? 4 * READ_PIECE_BYTES : 2 * cap;
    if (cap > f->bytes)
        cap = f->bytes > want ? f->bytes : want;
    data = tq_realloc(f->data, (size_t)cap);
    if (data == NULL)
        return log_dir_fail_fs(f->dir, TQ_ENOMEM);
    f->data = data;
    f->cap = cap;
    return TQ_OK;
}

int log_file_fill(struct log_file *f, uint64_t upto)
{
    struct log_fs *fs = f->dir->fs;

    if (upto > f->bytes)
        upto = f->bytes;
    while (f->have < upto) {
        uint64_t n = f->bytes - f->have;
        int64_t got;
        int rv;

        if (n > READ_PIECE_BYTES)
            n = READ_PIECE_BYTES;
        rv = make_room(f, f->have + n);
        if (rv != TQ_OK)
            return rv;
        got = fs->read(fs, f->file, f->have, f->data + f->have, (size_t)n);
        if (got < 0)
            return log_dir_fail_fs(f->dir, (int)got);
        if ((uint64_t)got < n)
            return log_dir_fail(f->dir, TQ_EIO, f->number, f->have + (uint64_t)got,
                                "the file became shorter while it was read");
        f->have += (uint64_t)got;
    }
    return TQ_OK;
}

/* How far the record that begins here says that it goes, within bounds. */
static uint64_t end_of_record(const struct log_file *f, uint64_t offset)
{
    uint32_t len = log_load32(f->data + offset + RECORD_LEN);

    return len <= LOG_PAYLOAD_MAX && log_record_bytes(len) <= f->bytes - offset
               ? offset + log_record_bytes(len)
               : offset;
}

int log_file_record(struct log_file *f, uint64_t offset, uint64_t index, struct log_record_header *ret,
                    struct tq_span *ret_payload, const char **ret_why)
{
    uint64_t end = offset + LOG_RECORD_HEADER_BYTES;
    int rv;

    if (end > f->bytes) {
        *ret_why = "the segment ends here";
        return 0;
    }
    rv = log_file_fill(f, end);
    if (rv == TQ_OK && end_of_record(f, offset) > end)
        rv = log_file_fill(f, end = end_of_record(f, offset));
    if (rv != TQ_OK)
        return rv;
    rv =
        log_record_get(tq_span(f->data + offset, (size_t)(end - offset)), f->seed, ret, ret_payload, ret_why);
    if (rv != TQ_OK)
        return 0;
    if (ret->index != index) {
        *ret_why = "the record's index does not follow the one before it";
        return 0;
    }
    return 1;
}

/* ---- what records may say ---- */

static int check_config(const struct log_rules *r, struct tq_span payload, const char **ret_why)
{
    if (payload.len == 4 + LOG_UUID_BYTES && log_load32(payload.data) == 1) {
        if (memcmp(payload.data + 4, r->uuid, LOG_UUID_BYTES) == 0)
            return TQ_OK;
        *ret_why = "the log's first record is of another data directory";
        return TQ_EINVAL;
    }
    *ret_why = "the log is of a cluster, which this program does not know";
    return TQ_EUNSUPPORTED;
}

int log_rules_apply(struct log_rules *r, const struct log_record_header *h, struct tq_span payload,
                    const char **ret_why)
{
    uint64_t start;

    if (h->flags != 0 || h->reserved != 0) {
        *ret_why = "the record has flags that this program does not know";
        return TQ_EUNSUPPORTED;
    }
    if (h->term < r->term || h->synced < r->synced) {
        *ret_why = "the record's term or `synced` falls behind the one before it";
        return TQ_EINVAL;
    }
    r->term = h->term;
    r->synced = h->synced;
    r->closed = h->type == LOG_CLOSED;
    switch (h->type) {
    case LOG_OPS:
    case LOG_MARK:
    case LOG_CLOSED:
        return TQ_OK;
    case LOG_CONFIG:
        return check_config(r, payload, ret_why);
    case LOG_START:
        start = payload.len == 8 ? log_load64(payload.data) : 0;
        if (start < r->start || start > r->segment) {
            *ret_why = "the record that says where the log begins makes no sense";
            return TQ_EINVAL;
        }
        r->start = start;
        return TQ_OK;
    default:
        if (h->type & LOG_TYPE_OPTIONAL)
            return TQ_OK;
        *ret_why = "the record is of a type that this program does not know";
        return TQ_EUNSUPPORTED;
    }
}

/* ---- the end ---- */

/* Is what stands here the beginning of a record that was to be this one? */
static bool was_begun(const struct log_record_header *h, uint64_t room, uint64_t index, uint64_t first_index)
{
    uint16_t type = h->type & (uint16_t)~LOG_TYPE_OPTIONAL;

    if (h->index == index)
        return true;
    return log_record_is_plausible(h, room) && h->index >= first_index && type >= LOG_CONFIG &&
           type <= LOG_CLOSED && h->flags == 0 && h->reserved == 0;
}

int log_file_judge_end(struct log_file *f, uint64_t offset, uint64_t index, uint64_t first_index,
                       struct log_end *ret)
{
    struct log_record_header h;
    struct log_scan scan;
    int rv = log_file_fill(f, f->bytes);

    *ret = (struct log_end){0};
    if (rv != TQ_OK || offset + LOG_RECORD_HEADER_BYTES > f->bytes)
        return rv;
    log_scan_init(&scan, tq_span(f->data, (size_t)f->bytes), f->seed, offset);
    rv = log_scan_rest(&scan, index - 1, &ret->rest);
    log_scan_deinit(&scan);
    if (rv != TQ_OK)
        return log_dir_fail_fs(f->dir, rv);
    ret->damage = ret->rest.synced >= index;
    log_record_header_load(f->data + offset, &h);
    if (ret->rest.end > 0)
        ret->cut_bytes = ret->rest.end - offset;
    else if (was_begun(&h, f->bytes - offset, index, first_index))
        ret->cut_bytes = h.len <= LOG_PAYLOAD_MAX && log_record_bytes(h.len) <= f->bytes - offset
                             ? log_record_bytes(h.len)
                             : LOG_RECORD_HEADER_BYTES;
    return TQ_OK;
}
