/* A played disk behind struct log_fs: one directory in memory, with what is durable and what is only in the
 * cache kept apart, bytes apart from names. Every change is recorded, so that the disk can be had as it may
 * stand after a power cut, or a kill -9, at any of them. Fails where it is told to; can be full.
 *
 * After a power cut at an operation, what was written since a file's last sync is there, or not, or in part:
 * the test says how (enum fake_fs_loss) or leaves it to the random number. Blocks of a file go their own
 * ways, the last one may be torn at any byte; a file's size goes its own way, too; names that were made,
 * changed or removed since the last sync of the directory are as before or as after. A sync that failed has
 * dropped what it was to write for good, although it can still be read until the power goes: as Linux does.
 *
 * What the disk itself needs comes from malloc, not from tq_malloc: it takes no part in tests that let an
 * allocation fail. One thread at a time. */
#ifndef TESTS_LIB_FAKE_FS_H
#define TESTS_LIB_FAKE_FS_H

#include "master/log/fs.h"

#define FAKE_FS_TEXT_MAX 256

enum fake_fs_call {
    FAKE_FS_LIST,
    FAKE_FS_OPEN,   /* of a file that is there */
    FAKE_FS_CREATE, /* open with LOG_FS_CREATE */
    FAKE_FS_SIZE,
    FAKE_FS_READ,
    FAKE_FS_WRITE,
    FAKE_FS_ALLOCATE,
    FAKE_FS_TRUNCATE,
    FAKE_FS_SYNC,
    FAKE_FS_RENAME,
    FAKE_FS_REMOVE,
    FAKE_FS_SYNC_DIR,
    FAKE_FS_CALLS,
};

struct fake_fs; /* opaque */

struct fake_fs *fake_fs_new(void); /* an empty directory */
void fake_fs_free(struct fake_fs *f);
struct log_fs *fake_fs_table(struct fake_fs *f);

/* ---- a test's own hand in the directory: not counted, not recorded, durable at once ---- */

/* NULL: there is no such file. Borrowed until the next call of anything. */
const uint8_t *fake_fs_bytes(const struct fake_fs *f, const char *name, size_t *ret_len);
/* Makes or replaces the file. */
void fake_fs_put(struct fake_fs *f, const char *name, const void *data, size_t len);
void fake_fs_flip(struct fake_fs *f, const char *name, size_t offset, uint8_t mask);
void fake_fs_drop(struct fake_fs *f, const char *name); /* must be there */
bool fake_fs_has(const struct fake_fs *f, const char *name);
size_t fake_fs_count(const struct fake_fs *f);                /* files */
const char *fake_fs_name(const struct fake_fs *f, size_t at); /* of any order; at < count */
unsigned fake_fs_open_files(const struct fake_fs *f);         /* that nobody has closed yet */

/* ---- faults ---- */

/* The nth call from now on of this kind (0: the next one) and the repeat - 1 calls after it fail with `error`
 * (TQ_EIO, TQ_ENOSPC, ...). A write that fails has written some part. One rule for each kind of call; nth < 0
 * ends it. */
void fake_fs_fail(struct fake_fs *f, enum fake_fs_call call, long nth, unsigned long repeat, int error);
/* The nth call from now on of any kind fails with TQ_EIO, and all after it: the disk is gone. */
void fake_fs_fail_any(struct fake_fs *f, long nth);
/* So many bytes have room, in files rounded up to blocks: above it TQ_ENOSPC. UINT64_MAX: no limit. */
void fake_fs_set_capacity(struct fake_fs *f, uint64_t bytes);
uint64_t fake_fs_used(const struct fake_fs *f);
unsigned long fake_fs_calls(const struct fake_fs *f, enum fake_fs_call call); /* so far, failed ones too */

/* ---- crashes ---- */

/* Changes recorded so far: a point between 0 and this names the moment before that change. */
size_t fake_fs_point(const struct fake_fs *f);
/* What change `at` was, for people. */
void fake_fs_describe(const struct fake_fs *f, size_t at, char out[FAKE_FS_TEXT_MAX]);

enum fake_fs_loss {
    FAKE_FS_LOSE_ANY,    /* one of the following by the random number */
    FAKE_FS_LOSE_ALL,    /* nothing is there that was not synced */
    FAKE_FS_LOSE_NONE,   /* everything is */
    FAKE_FS_LOSE_TAIL,   /* all changes up to some moment, the one after it torn */
    FAKE_FS_LOSE_BLOCKS, /* each block, size and name for itself */
    FAKE_FS_LOSE_NAMES,  /* all bytes are there, names for themselves */
};

/* The disk after a power cut at `point`: a new one, with nothing recorded and no file open. *random is moved
 * on. */
struct fake_fs *fake_fs_power_cut(const struct fake_fs *f, size_t point, enum fake_fs_loss loss,
                                  uint64_t *random);
/* The disk after kill -9 at `point`: everything that was written is there, but what was not durable is not
 * durable now; with `torn`, some part of the change at `point` as well (if it is a write). */
struct fake_fs *fake_fs_kill(const struct fake_fs *f, size_t point, bool torn, uint64_t *random);

#endif
