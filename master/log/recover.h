/* Reading a log from its first record to its last, and telling a torn end from damage.
 *
 * The end is torn when the first bad record of the LAST segment has no good one behind it (in any segment)
 * that says it was synced: then what is bad was never acknowledged, and is cut (the next record is written
 * there; what stands behind is overwritten with zeros before, so that it never comes to life again). All else
 * is refused, with file and offset: a bad or foreign segment header, a bad record in a segment that is not
 * the last, a bad record that was synced, an index or a segment number that does not follow, a first segment
 * above what LOG_START allows, another uuid, a type that is not known. */
#ifndef MASTER_LOG_RECOVER_H
#define MASTER_LOG_RECOVER_H

#include "master/log/format.h"
#include "master/log/fs.h"

#define LOG_ERROR_MAX 512

struct log_segment {
    uint64_t number, first_index, bytes;
    uint64_t end; /* offset behind its last record */
};

/* What is known of a log when it was read. Lists are owned: log_state_deinit. */
struct log_state {
    uint8_t uuid[LOG_UUID_BYTES];
    struct log_segment *segments; /* ascending; the last is the one to go on in. None: an empty directory */
    size_t segment_count;
    uint64_t *spares; /* numbers of the spare files */
    uint64_t *spare_bytes;
    size_t spare_count;
    uint64_t next_index; /* 1 in an empty directory */
    uint64_t synced;     /* what records said of it: those above may be in the system's memory only */
    uint64_t term;
    uint64_t start;          /* segments below it are not needed: they are spares by now, or go */
    bool closed;             /* the last record is LOG_CLOSED */
    uint64_t records, bytes; /* that were read */
    uint64_t cut_bytes;      /* of the torn end: from cut_offset of the last segment on; 0: none */
    uint64_t cut_offset;
    char cut_why[128];
};

struct log_reader {
    void *ctx;
    /* Each record but LOG_CONFIG, LOG_MARK, LOG_START and LOG_CLOSED, in order; payload borrowed. 0, or
     * negative with cause (file and offset are put before it). */
    int (*record)(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                  char err[LOG_ERROR_MAX]);
    /* Now and then: so many of so many bytes are read. May be NULL. */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t all_bytes);
};

/* Reads; changes nothing on disk. 0; TQ_EINVAL: damage, TQ_EUNSUPPORTED: a newer version, TQ_EIO, TQ_ENOMEM,
 * or what the reader returned; err says cause (file and offset) and remedy. */
int log_recover(struct log_fs *fs, const struct log_reader *reader, struct log_state *ret_state,
                char err[LOG_ERROR_MAX]);
void log_state_deinit(struct log_state *s);

/* The bad places of a log, for `log check`: goes on behind each as far as that is possible. Calls fn for each
 * finding, and returns how many there are (0: good), or negative (TQ_EIO, TQ_ENOMEM; err). A torn end is told
 * with `torn`, and is none. */
struct log_finding {
    char file[64];
    uint64_t offset, bytes;           /* bytes that are unreadable; 0: not known */
    uint64_t first_index, last_index; /* of the records that are lost with them; 0: not known */
    bool torn;
    const char *what;
    char side[64]; /* repair: the file that has now what was cut; "" if nothing was */
};
int log_check(struct log_fs *fs, void (*fn)(void *ctx, const struct log_finding *f), void *ctx,
              struct log_state *ret_state, char err[LOG_ERROR_MAX]);
/* Makes a damaged log one that opens: all up to the first finding is kept; what is cut (that and everything
 * behind it) goes to side files before anything is changed, and is told through fn. An operator's explicit
 * decision: what is cut was acknowledged. Works on a directory that nobody has open. */
int log_repair(struct log_fs *fs, void (*fn)(void *ctx, const struct log_finding *f), void *ctx,
               char err[LOG_ERROR_MAX]);

#endif
