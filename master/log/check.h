/* All bad places of a log, in order, with what repair needs to know of each. */
#ifndef MASTER_LOG_CHECK_H
#define MASTER_LOG_CHECK_H

#include "master/log/dir.h"

enum log_fault {
    LOG_FAULT_HEAD,    /* the segment's header, or the whole segment is none of this log's */
    LOG_FAULT_MISSING, /* a segment is */
    LOG_FAULT_END,     /* what must be behind the last segment is not there */
    LOG_FAULT_SHORT,   /* the file is */
    LOG_FAULT_RECORDS, /* some cannot be read */
    LOG_FAULT_TORN,    /* is none */
};

struct log_found {
    enum log_fault fault;
    uint64_t segment;
    struct log_rules rules; /* as they are in front of it */
    uint64_t index;         /* of the record that ought to be here; 0: not known */
    struct log_finding finding;
};

struct log_analysis {
    struct log_dir dir;
    struct log_file file;
    struct log_rules rules;
    struct log_found *found;
    size_t found_count, found_cap;
    uint64_t *ends; /* of each segment: behind its last good record; 0: it could not be read */
    uint64_t next_index, records, bytes;
};

/* 0, and the findings; TQ_EUNSUPPORTED, TQ_EIO, TQ_ENOMEM with err. */
int log_analyse(struct log_analysis *a, struct log_fs *fs, char err[LOG_ERROR_MAX]);
void log_analysis_deinit(struct log_analysis *a);
/* Does the log not open for it? */
bool log_found_counts(const struct log_analysis *a, const struct log_found *f);

#endif
