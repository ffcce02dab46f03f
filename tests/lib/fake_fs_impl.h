/* The inside of the played disk: fake_fs.c has the calls, fake_crash.c what a crash leaves. */
#ifndef TESTS_LIB_FAKE_FS_IMPL_H
#define TESTS_LIB_FAKE_FS_IMPL_H

#include "tests/lib/fake_fs.h"

#define FAKE_BLOCK 512u

enum fake_op_kind {
    FAKE_OP_CREATE,
    FAKE_OP_WRITE,
    FAKE_OP_RESIZE, /* to `offset` bytes */
    FAKE_OP_RENAME,
    FAKE_OP_REMOVE,
    FAKE_OP_SYNC,
    FAKE_OP_SYNC_FAILED,
    FAKE_OP_SYNC_DIR,
};

struct fake_op {
    enum fake_op_kind kind;
    char name[LOG_FS_NAME_MAX], to[LOG_FS_NAME_MAX];
    size_t inode;
    uint64_t offset;
    uint8_t *data;
    size_t len;
};

struct fake_inode {
    uint8_t *data;
    size_t len, cap;
};

struct fake_entry {
    char name[LOG_FS_NAME_MAX];
    size_t inode;
};

/* Inodes are never given back: a crash may bring a name of theirs to life again. */
struct fake_disk {
    struct fake_inode *inodes;
    size_t inode_count;
    struct fake_entry *entries;
    size_t entry_count;
};

struct fake_handle {
    bool open, writes;
    size_t inode;
    char name[LOG_FS_NAME_MAX];
};

struct fake_rule {
    long after;
    unsigned long repeat;
    int error;
};

struct fake_fs {
    struct log_fs table;
    struct fake_disk base; /* durable, before the first of ops */
    struct fake_disk now;  /* as it is read: base and all ops */
    struct fake_op *ops;
    size_t op_count;
    struct fake_handle *handles;
    size_t handle_count;
    struct fake_rule rules[FAKE_FS_CALLS];
    unsigned long calls[FAKE_FS_CALLS];
    long gone_after;
    uint64_t capacity;
};

void *fake_grow(void *list, size_t count, size_t size); /* room for one more than count */
void fake_inode_resize(struct fake_inode *i, size_t len);
void fake_inode_write(struct fake_inode *i, uint64_t offset, const uint8_t *data, size_t len);
size_t fake_disk_add_inode(struct fake_disk *d);
struct fake_entry *fake_disk_find(const struct fake_disk *d, const char *name);
void fake_disk_link(struct fake_disk *d, const char *name, size_t inode);
void fake_disk_unlink(struct fake_disk *d, const char *name);
void fake_disk_copy(struct fake_disk *to, const struct fake_disk *from);
void fake_disk_deinit(struct fake_disk *d);
void fake_disk_apply(struct fake_disk *d, const struct fake_op *op);
struct fake_op *fake_fs_record(struct fake_fs *f, enum fake_op_kind kind);

#endif
