/* The log's reader, `log check` and `log repair` on a directory as an enemy would leave it. Byte 0: flags;
 * then files: kind, number, u16 length (little-endian), bytes. Checksums cannot be guessed: on request they
 * are made right, and files get the length that their header says. */
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/format_impl.h"
#include "master/log/recover.h"
#include "tests/lib/fake_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEAL = 1, EXTEND = 2, NO_MEMORY = 4 };
enum { FILE_LOG, FILE_SPARE, FILE_CUT, FILE_KINDS };

#define FILES_MAX       12u
#define FILE_BYTES_MAX  20000u
#define DISK_BYTES      (2u << 20) /* a header may ask for gigabytes */
#define HEADER_CRC_AT   12u
#define HEADER_UUID_AT  16u
#define HEADER_BYTES_AT 56u

struct seen {
    uint64_t index, bytes;
};

static int on_record(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                     char err[LOG_ERROR_MAX])
{
    struct seen *s = ctx;

    (void)err;
    TQ_ASSERT(segment > 0 && h->index > s->index && h->synced < h->index && payload.len == h->len);
    s->index = h->index;
    s->bytes += log_crc(0, payload.data, payload.len) & 1; /* all of it can be read */
    return TQ_OK;
}

static void on_finding(void *ctx, const struct log_finding *f)
{
    unsigned *n = ctx;

    TQ_ASSERT(f->what != NULL && f->file[0] != '\0' && f->first_index <= f->last_index);
    *n += !f->torn;
}

/* Makes good what is a segment in all but its checksums, as far as its records go on. */
static void seal(uint8_t *p, size_t len)
{
    struct log_segment_header h;
    const char *why;

    if (len < LOG_SEGMENT_HEADER_BYTES)
        return;
    log_store32(p + HEADER_CRC_AT, 0);
    log_store32(p + HEADER_CRC_AT, log_crc(0, p, LOG_SEGMENT_HEADER_BYTES));
    if (log_segment_header_get(tq_span(p, len), &h, &why) != TQ_OK)
        return;
    for (size_t at = LOG_SEGMENT_HEADER_BYTES; at + LOG_RECORD_HEADER_BYTES <= len;) {
        struct log_record_header r;

        log_record_header_load(p + at, &r);
        if (!log_record_is_plausible(&r, len - at)) {
            at += 8;
            continue;
        }
        log_record_seal(p + at, &r, log_seed(h.uuid, h.number));
        at += (size_t)log_record_bytes(r.len);
    }
}

static void put_file(struct fake_fs *f, unsigned flags, unsigned kind, uint64_t number, const uint8_t *bytes,
                     size_t len)
{
    char name[LOG_FS_NAME_MAX];
    size_t full = len;
    uint8_t *p;

    if (kind == FILE_LOG)
        log_segment_name(name, number);
    else if (kind == FILE_SPARE)
        log_spare_name(name, number);
    else
        snprintf(name, sizeof(name), "%016llx-0.cut", (unsigned long long)number);
    if ((flags & EXTEND) && len >= LOG_SEGMENT_HEADER_BYTES) {
        uint64_t says = log_load64(bytes + HEADER_BYTES_AT);

        full = says > len && says <= FILE_BYTES_MAX ? (size_t)says : len;
    }
    p = calloc(1, full + 1);
    TQ_ASSERT(p != NULL);
    memcpy(p, bytes, len);
    if (flags & SEAL)
        seal(p, full);
    fake_fs_put(f, name, p, full);
    free(p);
}

static struct fake_fs *make_disk(const uint8_t *data, size_t size)
{
    struct fake_fs *f = fake_fs_new();
    size_t at = 1;

    for (unsigned i = 0; i < FILES_MAX && at + 4 <= size; i++) {
        unsigned kind = data[at] % FILE_KINDS;
        uint64_t number = data[at + 1];
        size_t len = (size_t)data[at + 2] | (size_t)data[at + 3] << 8;

        at += 4;
        if (len > size - at)
            len = size - at;
        put_file(f, data[0], kind, number, data + at, len);
        at += len;
    }
    return f;
}

static int recover(struct fake_fs *f)
{
    struct seen seen = {0};
    struct log_reader reader = {.ctx = &seen, .record = on_record};
    char err[LOG_ERROR_MAX] = "";
    struct log_state s;
    int rv = log_recover(fake_fs_table(f), &reader, &s, err);

    TQ_ASSERT((rv == TQ_OK) == (err[0] == '\0') && strchr(err, '\n') == NULL);
    TQ_ASSERT(rv == TQ_OK || rv == TQ_EINVAL || rv == TQ_EUNSUPPORTED || rv == TQ_ENOMEM);
    if (rv == TQ_OK) {
        TQ_ASSERT(s.next_index > seen.index && s.synced < s.next_index && s.term >= 1);
        for (size_t i = 0; i < s.segment_count; i++)
            TQ_ASSERT(s.segments[i].end <= s.segments[i].bytes &&
                      (i == 0 || s.segments[i].number > s.segments[i - 1].number));
        if (s.cut_bytes > 0)
            TQ_ASSERT(s.cut_offset + s.cut_bytes <= s.segments[s.segment_count - 1].bytes + 7);
        log_state_deinit(&s);
    }
    return rv;
}

static int check(struct fake_fs *f)
{
    char err[LOG_ERROR_MAX] = "";
    struct log_state s;
    unsigned n = 0;
    int rv = log_check(fake_fs_table(f), on_finding, &n, &s, err);

    TQ_ASSERT((rv < 0) == (err[0] != '\0'));
    if (rv >= 0) {
        TQ_ASSERT(n == (unsigned)rv);
        log_state_deinit(&s);
    }
    return rv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[LOG_ERROR_MAX] = "";
    struct fake_fs *f;
    int opened, found, repaired;
    unsigned n = 0;

    if (size < 1)
        return 0;
    f = make_disk(data, size);
    if (data[0] & NO_MEMORY) {
        tq_mem_fail_after(data[0] >> 3, 1);
        (void)recover(f);
        tq_mem_fail_after(data[0] >> 3, 1);
        (void)check(f);
        tq_mem_fail_after(-1, 0);
    }
    opened = recover(f);
    found = check(f);
    TQ_ASSERT((opened == TQ_OK) == (found == 0));
    fake_fs_set_capacity(f, DISK_BYTES);
    repaired = log_repair(fake_fs_table(f), on_finding, &n, err);
    if (repaired >= 0) {
        TQ_ASSERT((repaired == 0) == (found == 0));
        TQ_ASSERT(recover(f) == TQ_OK && check(f) == 0);
    } else {
        TQ_ASSERT((repaired == TQ_EUNSUPPORTED || repaired == TQ_ENOSPC) && err[0] != '\0');
    }
    TQ_ASSERT(fake_fs_open_files(f) == 0);
    fake_fs_free(f);
    return 0;
}
