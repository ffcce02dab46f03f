/* A copy of a log that goes on being written meanwhile: its segments from the first one in use (pinned: see
 * log_pin) up to a record that is written. Each record is checked on the way: a copy of damage is none.
 *
 * Files get their names last, and the last segment first: what an interruption leaves is no log, or one that
 * is refused for its missing beginning, never one that only looks whole. Allocates nothing, so that any
 * thread may do it. */
#ifndef MASTER_LOG_COPY_H
#define MASTER_LOG_COPY_H

#include "master/log/recover.h"

#define LOG_COPY_BUFFER_BYTES (1u << 20)

struct log_copy {
    struct log_fs *from, *to; /* `to`: an empty directory */
    uint64_t first_segment, last_index;
    uint8_t *buffer;             /* of LOG_COPY_BUFFER_BYTES */
    bool (*canceled)(void *ctx); /* asked now and then; true stays true; NULL: never */
    void *ctx;
    uint64_t files, bytes; /* that were made; bytes of records and headers */
};

/* 0: all is on stable storage, its names too; TQ_EINVAL: damage; TQ_ECANCELED, TQ_EIO, TQ_ENOSPC, and
 * whatever log_fs returns; err says cause. What was made is removed again, as far as that goes. */
int log_copy_run(struct log_copy *c, char err[LOG_ERROR_MAX]);

#endif
