/* The log's files in a real directory (log/fs.h). The directory and what is in it must be the effective
 * user's own and writable by nobody else, and no links: what a log says is believed. */
#ifndef MASTER_DISK_FS_POSIX_H
#define MASTER_DISK_FS_POSIX_H

#include "master/log/recover.h"

struct fs_posix {
    struct log_fs fs; /* the table: hand &f->fs to the log */
    int dir;
    int lock; /* -1: not asked for */
};

/* With `create`, a directory that is not there is made (mode 0700; the one above it must be there). With
 * `lock_it`, its file `lock` is held until the close, so that nobody else opens it so. 0; TQ_ENOTFOUND,
 * TQ_EIO (refused, or in use), TQ_ENOSPC: err has cause and remedy. Not to be moved while it is open. */
int fs_posix_open(struct fs_posix *f, const char *dir, bool create, bool lock_it, char err[LOG_ERROR_MAX]);
void fs_posix_close(struct fs_posix *f);

#endif
