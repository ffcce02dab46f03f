/* What reading, checking and repairing a log share: the segments of a directory with what their headers say,
 * and the records of one of them. */
#ifndef MASTER_LOG_DIR_H
#define MASTER_LOG_DIR_H

#include "master/log/recover.h"
#include "master/log/scan.h"

struct log_head {
    uint64_t number;
    uint64_t file_bytes;
    struct log_segment_header header; /* if rv is 0 */
    int rv;                           /* of reading it: 0, TQ_EINVAL, TQ_EUNSUPPORTED */
    const char *why;
};

struct log_dir {
    struct log_fs *fs;
    char *err; /* LOG_ERROR_MAX, the caller's */
    struct log_head *heads;
    size_t head_count;
    uint64_t *spares;
    uint64_t *spare_bytes;
    size_t spare_count;
    /* The last segments, from this one on, have good headers that follow each other. What is before does not
     * fit to it; `broken` says where and why. */
    size_t run;
    struct {
        uint64_t number; /* 0: nothing is before */
        const char *why;
    } broken;
    uint8_t uuid[LOG_UUID_BYTES]; /* of the last segment with a good header */
    bool uuid_known;
};

/* Lists the files and reads the headers. 0, TQ_EIO, TQ_ENOMEM, with err. */
int log_dir_read(struct log_dir *d, struct log_fs *fs, char err[LOG_ERROR_MAX]);
void log_dir_deinit(struct log_dir *d);
bool log_dir_has_spare(const struct log_dir *d, uint64_t number);
/* The directory is such as nobody's crash leaves it: NULL if not. What comes behind the last segment must be
 * there; ret_number is the file that is missing. */
const char *log_dir_end_why(const struct log_dir *d, uint64_t *ret_number);
bool log_head_is_short(const struct log_head *h); /* the file has less than its header says */
/* "FILE, offset N: " and the cause; returns rv. */
int log_dir_fail(const struct log_dir *d, int rv, uint64_t number, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
int log_dir_fail_fs(const struct log_dir *d, int rv); /* what log_fs.error says, or that memory is out */

/* One segment in memory, as far as it has been asked for. Used for one after another. */
struct log_file {
    const struct log_dir *dir;
    uint64_t number;
    int file; /* -1: none is open */
    uint32_t seed;
    uint64_t bytes; /* of the segment: what its header says, or less if the file is shorter */
    uint8_t *data;
    uint64_t have, cap;
};
void log_file_init(struct log_file *f, const struct log_dir *d);
void log_file_deinit(struct log_file *f);
/* The one before is closed. `bytes`: no more of it is looked at. */
int log_file_open(struct log_file *f, uint64_t number, uint64_t bytes, const uint8_t uuid[LOG_UUID_BYTES]);
void log_file_close(struct log_file *f);
int log_file_fill(struct log_file *f, uint64_t upto); /* as far as there are bytes; 0, TQ_EIO, TQ_ENOMEM */
/* The record here, which must be of this index: 1 and borrowed payload (until the next fill); 0: there is
 * none, with the reason; TQ_EIO, TQ_ENOMEM. */
int log_file_record(struct log_file *f, uint64_t offset, uint64_t index, struct log_record_header *ret,
                    struct tq_span *ret_payload, const char **ret_why);

/* What a good record may say in this version. Keeps `start` and `term`. 0, TQ_EINVAL, TQ_EUNSUPPORTED. */
struct log_rules {
    const uint8_t *uuid;
    uint64_t segment, start, term, synced;
    bool closed;
};
int log_rules_apply(struct log_rules *r, const struct log_record_header *h, struct tq_span payload,
                    const char **ret_why);

/* The end of the last segment: no good record of this index stands at `offset`. */
struct log_end {
    bool damage; /* some record behind says that it was synced: */
    struct log_scan_rest rest;
    uint64_t cut_bytes; /* else: what an interrupted write left */
};
int log_file_judge_end(struct log_file *f, uint64_t offset, uint64_t index, uint64_t first_index,
                       struct log_end *ret);

#endif
