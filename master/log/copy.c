#include "master/log/copy.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/err.h"
#include "master/log/format_impl.h"

/* One segment on its way. */
struct part {
    struct log_copy *c;
    char *err;
    uint64_t number;
    uint64_t end_before; /* of the segment before this one */
    struct log_segment_header header;
    int in, out;         /* -1: not open */
    uint64_t next_index; /* of the record that is to come */
    uint64_t at;         /* all in front of it has been looked at */
    uint64_t end;        /* behind the last good record */
    bool over;           /* no more records: behind the last one, or what stands there is none */
    /* the record that is being read */
    uint64_t left, pad; /* bytes of its payload, and of the zeros behind it */
    uint32_t crc, wanted_crc;
    bool filled; /* and they are none */
};

static void part_name(char out[LOG_FS_NAME_MAX], uint64_t number)
{
    snprintf(out, LOG_FS_NAME_MAX, "%016" PRIx64 ".copy", number);
}

__attribute__((format(printf, 3, 4))) static int fail(const struct part *p, int rv, const char *fmt, ...)
{
    char name[64];
    va_list ap;
    int n;

    log_segment_name(name, p->number);
    n = snprintf(p->err, LOG_ERROR_MAX, "%s: ", name);
    va_start(ap, fmt);
    vsnprintf(p->err + n, LOG_ERROR_MAX - (size_t)n, fmt, ap);
    va_end(ap);
    return rv;
}

/* The records of the segment before go on no further than this, and should. */
static int fail_before(struct part *p)
{
    p->number--;
    (void)fail(p, TQ_EINVAL, "offset %" PRIu64 ": record %" PRIu64 " is damaged", p->end_before,
               p->next_index);
    p->number++;
    return TQ_EINVAL;
}

static int fail_fs(const struct part *p, const struct log_fs *fs, int rv)
{
    snprintf(p->err, LOG_ERROR_MAX, "%s%s", fs == p->c->to ? "the copy: " : "", fs->error);
    return rv;
}

/* ---- records ---- */

/* Its header says where it ends; whether it is one at all is known then. */
static void begin_record(struct part *p, const uint8_t *at)
{
    uint8_t header[LOG_RECORD_HEADER_BYTES];
    struct log_record_header h;

    log_record_header_load(at, &h);
    if (h.index != p->next_index || !log_record_is_plausible(&h, p->header.bytes - p->at) ||
        h.len > LOG_PAYLOAD_MAX || log_record_bytes(h.len) > p->header.bytes - p->at) {
        p->over = true;
        return;
    }
    memcpy(header, at, sizeof(header));
    memset(header + RECORD_CRC, 0, 4);
    p->crc = log_crc(log_seed(p->header.uuid, p->number), header, sizeof(header));
    p->wanted_crc = h.crc;
    p->filled = false;
    p->left = h.len;
    p->pad = log_record_bytes(h.len) - LOG_RECORD_HEADER_BYTES - h.len;
    p->at += LOG_RECORD_HEADER_BYTES;
}

static bool any_set(const uint8_t *at, size_t n)
{
    uint8_t all = 0;

    for (size_t i = 0; i < n; i++)
        all |= at[i];
    return all != 0;
}

static void end_record(struct part *p)
{
    if (p->crc != p->wanted_crc || p->filled) {
        p->over = true;
        return;
    }
    p->end = p->at;
    p->over = p->next_index == p->c->last_index;
    p->next_index++;
}

/* Looks at bytes from p->at on; how many of them it is done with: what is left is less than a header. */
static size_t look(struct part *p, bool *inside, struct tq_span in)
{
    size_t used = 0;

    while (!p->over) {
        uint64_t n = in.len - used;

        if (!*inside) {
            if (n < LOG_RECORD_HEADER_BYTES)
                break;
            begin_record(p, in.data + used);
            if (p->over)
                break;
            used += LOG_RECORD_HEADER_BYTES;
            *inside = true;
            continue;
        }
        if (p->left > 0) {
            n = n < p->left ? n : p->left;
            p->crc = log_crc(p->crc, in.data + used, (size_t)n);
            p->left -= n;
        } else {
            n = n < p->pad ? n : p->pad;
            p->pad -= n;
            p->filled = p->filled || any_set(in.data + used, (size_t)n);
        }
        used += (size_t)n;
        p->at += n;
        if (p->left == 0 && p->pad == 0) {
            *inside = false;
            end_record(p);
        } else if (n == 0) {
            break;
        }
    }
    return used;
}

/* ---- one segment ---- */

static int copy_header(struct part *p)
{
    struct log_fs *from = p->c->from;
    uint8_t bytes[LOG_SEGMENT_HEADER_BYTES];
    const char *why = "";
    int64_t got = from->read(from, p->in, 0, bytes, sizeof(bytes));

    if (got < 0)
        return fail_fs(p, from, (int)got);
    if ((size_t)got < sizeof(bytes))
        return fail(p, TQ_EINVAL, "offset 0: the header is cut short");
    if (log_segment_header_get(tq_span(bytes, sizeof(bytes)), &p->header, &why) != TQ_OK)
        return fail(p, TQ_EINVAL, "offset 0: %s", why);
    if (p->next_index != 0 && p->header.first_index > p->next_index)
        return fail_before(p);
    if (p->header.number != p->number || p->header.bytes < sizeof(bytes) ||
        (p->next_index != 0 && p->header.first_index < p->next_index))
        return fail(p, TQ_EINVAL, "offset 0: the segment does not follow the one before it");
    p->next_index = p->header.first_index;
    p->at = p->end = sizeof(bytes);
    p->over = p->next_index > p->c->last_index;
    got = p->c->to->write(p->c->to, p->out, 0, tq_span(bytes, sizeof(bytes)));
    return got == 0 ? TQ_OK : fail_fs(p, p->c->to, (int)got);
}

static bool is_canceled(const struct log_copy *c)
{
    return c->canceled != NULL && c->canceled(c->ctx);
}

static int copy_records(struct part *p)
{
    struct log_copy *c = p->c;
    uint64_t read_at = p->at; /* behind what is in the buffer */
    size_t have = 0;          /* of a header that is not whole */
    bool inside = false;

    while (!p->over && read_at < p->header.bytes) {
        uint64_t want = p->header.bytes - read_at;
        size_t used;
        int64_t got;
        int rv;

        if (want > LOG_COPY_BUFFER_BYTES - have)
            want = LOG_COPY_BUFFER_BYTES - have;
        got = c->from->read(c->from, p->in, read_at, c->buffer + have, (size_t)want);
        if (got < 0)
            return fail_fs(p, c->from, (int)got);
        if (got == 0)
            break;
        rv = c->to->write(c->to, p->out, read_at, tq_span(c->buffer + have, (size_t)got));
        if (rv != TQ_OK)
            return fail_fs(p, c->to, rv);
        used = look(p, &inside, tq_span(c->buffer, have + (size_t)got));
        read_at += (uint64_t)got;
        have = have + (size_t)got - used;
        memmove(c->buffer, c->buffer + used, have < LOG_RECORD_HEADER_BYTES ? have : 0);
        if (have >= LOG_RECORD_HEADER_BYTES)
            break; /* it is over */
        if (is_canceled(c))
            break; /* which is seen again */
    }
    return TQ_OK;
}

/* Behind the last record are zeros, and the file is as long as it says; the one that is gone on with has its
 * room. */
static int close_copy(struct part *p)
{
    struct log_fs *to = p->c->to;
    bool last = p->next_index > p->c->last_index;
    int rv = to->truncate(to, p->out, p->end);

    if (rv == TQ_OK)
        rv = last ? to->allocate(to, p->out, p->header.bytes) : to->truncate(to, p->out, p->header.bytes);
    if (rv == TQ_OK)
        rv = to->sync(to, p->out);
    if (rv != TQ_OK)
        return fail_fs(p, to, rv);
    p->c->files++;
    p->c->bytes += p->end;
    return TQ_OK;
}

static int copy_segment(struct part *p)
{
    struct log_copy *c = p->c;
    char name[64];
    int rv;

    log_segment_name(name, p->number);
    p->in = c->from->open(c->from, name, LOG_FS_READ);
    if (p->in == TQ_ENOTFOUND && p->next_index != 0)
        return fail_before(p);
    if (p->in < 0)
        return fail_fs(p, c->from, p->in);
    part_name(name, p->number);
    p->out = c->to->open(c->to, name, LOG_FS_WRITE | LOG_FS_CREATE);
    rv = p->out < 0 ? fail_fs(p, c->to, p->out) : copy_header(p);
    if (rv == TQ_OK)
        rv = copy_records(p);
    if (rv == TQ_OK)
        rv = close_copy(p);
    if (p->out >= 0)
        c->to->close(c->to, p->out);
    c->from->close(c->from, p->in);
    return rv;
}

/* ---- all of it ---- */

static void remove_all(struct log_copy *c, uint64_t behind)
{
    char name[64];

    for (uint64_t n = c->first_segment; n < behind; n++) {
        part_name(name, n);
        (void)c->to->remove(c->to, name);
        log_segment_name(name, n);
        (void)c->to->remove(c->to, name);
    }
    log_spare_name(name, behind);
    (void)c->to->remove(c->to, name);
    (void)c->to->sync_dir(c->to);
}

/* Behind the last segment there always is the name of the next one. */
static int make_spare(const struct part *p, uint64_t number)
{
    struct log_fs *to = p->c->to;
    char name[64];
    int file, rv;

    log_spare_name(name, number);
    file = to->open(to, name, LOG_FS_WRITE | LOG_FS_CREATE);
    if (file < 0)
        return fail_fs(p, to, file);
    to->close(to, file);
    rv = to->sync_dir(to);
    return rv == TQ_OK ? TQ_OK : fail_fs(p, to, rv);
}

static int name_all(const struct part *p, uint64_t behind)
{
    struct log_fs *to = p->c->to;
    char part[64], name[64];
    int rv = TQ_OK;

    for (uint64_t n = behind; rv == TQ_OK && n-- > p->c->first_segment;) {
        part_name(part, n);
        log_segment_name(name, n);
        rv = to->rename(to, part, name);
        if (rv == TQ_OK && n + 1 == behind)
            rv = to->sync_dir(to); /* the last one is the first to be there */
    }
    if (rv == TQ_OK)
        rv = to->sync_dir(to);
    return rv == TQ_OK ? TQ_OK : fail_fs(p, to, rv);
}

int log_copy_run(struct log_copy *c, char err[LOG_ERROR_MAX])
{
    struct part p = {.c = c, .err = err, .number = c->first_segment};
    int rv = TQ_OK;

    c->files = c->bytes = 0;
    if (c->last_index == 0)
        return TQ_OK; /* nothing is written yet */
    do {
        p.in = p.out = -1;
        p.end_before = p.end;
        rv = copy_segment(&p);
        if (rv == TQ_OK && is_canceled(c))
            rv = fail(&p, TQ_ECANCELED, "the copy was canceled");
        p.number++;
    } while (rv == TQ_OK && p.next_index <= c->last_index);
    if (rv == TQ_OK)
        rv = make_spare(&p, p.number);
    if (rv == TQ_OK)
        rv = name_all(&p, p.number);
    if (rv != TQ_OK)
        remove_all(c, p.number);
    return rv;
}
