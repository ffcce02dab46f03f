/* The files of one directory, as the log needs them: a table of functions, so that the same code runs on the
 * disk (master/disk/fs_posix.h) and on a disk that is played (tests/lib/fake_fs.h), which loses what was not
 * synced and fails when it is told to. Names are plain: no folder in them. May block; called by one thread at
 * a time. 0 or a count is good; negative: TQ_ENOSPC    no room, or no quota; what was there is as it was
 *   TQ_ENOTFOUND, TQ_EEXISTS
 *   TQ_EIO       anything else; log_fs.error says what, with the file's name and the system's words */
#ifndef MASTER_LOG_FS_H
#define MASTER_LOG_FS_H

#include "common/bytes.h"

#define LOG_FS_NAME_MAX  64 /* with its 0 */
#define LOG_FS_ERROR_MAX 256

enum log_fs_open {
    LOG_FS_READ = 0,
    LOG_FS_WRITE = 1,
    LOG_FS_CREATE = 2, /* with WRITE: it must not be there */
};

struct log_fs {
    void *ctx;
    char error[LOG_FS_ERROR_MAX]; /* of the last failure */
    /* Calls fn for each file, in no order. */
    int (*list)(struct log_fs *fs, void (*fn)(void *fn_ctx, const char *name), void *fn_ctx);
    /* A number >= 0 that names the open file. TQ_ELIMIT: no descriptor is free now. Refused (TQ_EIO): what is
     * no plain file, a link, somebody else's, or writable by others. Created files: mode 0600. */
    int (*open)(struct log_fs *fs, const char *name, unsigned flags);
    void (*close)(struct log_fs *fs, int file);
    int (*size)(struct log_fs *fs, int file, uint64_t *ret_bytes);
    /* How many bytes were read, less than n only at the end of the file. */
    int64_t (*read)(struct log_fs *fs, int file, uint64_t offset, void *out, size_t n);
    /* All of it, or negative (then any part of it may have been written). */
    int (*write)(struct log_fs *fs, int file, uint64_t offset, struct tq_span bytes);
    /* The file has `bytes` now, and writing into them needs no more room. What is new reads as 0. */
    int (*allocate)(struct log_fs *fs, int file, uint64_t bytes);
    int (*truncate)(struct log_fs *fs, int file, uint64_t bytes);
    /* The file's bytes and size are on stable storage. A failure is final: what was written since the last
     * good one may be lost, whatever a later call says. */
    int (*sync)(struct log_fs *fs, int file);
    int (*rename)(struct log_fs *fs, const char *from, const char *to); /* replaces `to` */
    int (*remove)(struct log_fs *fs, const char *name);
    int (*sync_dir)(struct log_fs *fs); /* names: created, renamed, removed */
    /* About how much can still be allocated; UINT64_MAX: not known. Others may take it, too. Any thread, also
     * while another call runs. */
    uint64_t (*free_bytes)(struct log_fs *fs);
};

#endif
