#include "tests/lib/fake_fs.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "tests/lib/fake_fs_impl.h"

/* ---- inodes and names ---- */

void *fake_grow(void *list, size_t count, size_t size)
{
    void *p = list;

    if ((count & (count - 1)) == 0) { /* 0, 1, 2, 4, 8... are full */
        p = realloc(list, (count == 0 ? 1 : count * 2) * size);
        TQ_ASSERT(p != NULL);
    }
    return p;
}

void fake_inode_resize(struct fake_inode *i, size_t len)
{
    if (len > i->cap) {
        size_t cap = len < 2 * i->cap ? 2 * i->cap : len;

        i->data = realloc(i->data, cap);
        TQ_ASSERT(i->data != NULL);
        i->cap = cap;
    }
    if (len > i->len)
        memset(i->data + i->len, 0, len - i->len);
    i->len = len;
}

void fake_inode_write(struct fake_inode *i, uint64_t offset, const uint8_t *data, size_t len)
{
    if (offset + len > i->len)
        fake_inode_resize(i, (size_t)offset + len);
    if (len > 0)
        memcpy(i->data + offset, data, len);
}

size_t fake_disk_add_inode(struct fake_disk *d)
{
    d->inodes = fake_grow(d->inodes, d->inode_count, sizeof(*d->inodes));
    d->inodes[d->inode_count] = (struct fake_inode){0};
    return d->inode_count++;
}

struct fake_entry *fake_disk_find(const struct fake_disk *d, const char *name)
{
    for (size_t i = 0; i < d->entry_count; i++)
        if (strcmp(d->entries[i].name, name) == 0)
            return &d->entries[i];
    return NULL;
}

void fake_disk_link(struct fake_disk *d, const char *name, size_t inode)
{
    struct fake_entry *e = fake_disk_find(d, name);

    if (e == NULL) {
        d->entries = fake_grow(d->entries, d->entry_count, sizeof(*d->entries));
        e = &d->entries[d->entry_count++];
        (void)snprintf(e->name, sizeof(e->name), "%s", name);
    }
    e->inode = inode;
}

void fake_disk_unlink(struct fake_disk *d, const char *name)
{
    struct fake_entry *e = fake_disk_find(d, name);

    if (e != NULL)
        *e = d->entries[--d->entry_count];
}

void fake_disk_copy(struct fake_disk *to, const struct fake_disk *from)
{
    *to = (struct fake_disk){0};
    for (size_t i = 0; i < from->inode_count; i++) {
        size_t at = fake_disk_add_inode(to);

        fake_inode_write(&to->inodes[at], 0, from->inodes[i].data, from->inodes[i].len);
    }
    for (size_t i = 0; i < from->entry_count; i++)
        fake_disk_link(to, from->entries[i].name, from->entries[i].inode);
}

void fake_disk_deinit(struct fake_disk *d)
{
    for (size_t i = 0; i < d->inode_count; i++)
        free(d->inodes[i].data);
    free(d->inodes);
    free(d->entries);
    *d = (struct fake_disk){0};
}

/* A change as the cache sees it: at once. */
void fake_disk_apply(struct fake_disk *d, const struct fake_op *op)
{
    struct fake_entry *e;

    switch (op->kind) {
    case FAKE_OP_CREATE:
        while (d->inode_count <= op->inode)
            (void)fake_disk_add_inode(d);
        fake_disk_link(d, op->name, op->inode);
        break;
    case FAKE_OP_WRITE:
        fake_inode_write(&d->inodes[op->inode], op->offset, op->data, op->len);
        break;
    case FAKE_OP_RESIZE:
        fake_inode_resize(&d->inodes[op->inode], (size_t)op->offset);
        break;
    case FAKE_OP_RENAME:
        e = fake_disk_find(d, op->name);
        if (e != NULL) {
            size_t inode = e->inode;

            fake_disk_unlink(d, op->name);
            fake_disk_link(d, op->to, inode);
        }
        break;
    case FAKE_OP_REMOVE:
        fake_disk_unlink(d, op->name);
        break;
    case FAKE_OP_SYNC:
    case FAKE_OP_SYNC_FAILED:
    case FAKE_OP_SYNC_DIR:
        break;
    }
}

/* ---- recording ---- */

struct fake_op *fake_fs_record(struct fake_fs *f, enum fake_op_kind kind)
{
    struct fake_op *op;

    f->ops = fake_grow(f->ops, f->op_count, sizeof(*f->ops));
    op = &f->ops[f->op_count++];
    *op = (struct fake_op){.kind = kind};
    return op;
}

static void record_write(struct fake_fs *f, size_t inode, uint64_t offset, struct tq_span bytes)
{
    struct fake_op *op = fake_fs_record(f, FAKE_OP_WRITE);

    op->inode = inode;
    op->offset = offset;
    op->len = bytes.len;
    op->data = malloc(bytes.len + 1);
    TQ_ASSERT(op->data != NULL);
    if (bytes.len > 0)
        memcpy(op->data, bytes.data, bytes.len);
    fake_disk_apply(&f->now, op);
}

/* ---- faults ---- */

static const char *const call_names[FAKE_FS_CALLS] = {"list", "open",   "create",   "size",
                                                      "read", "write",  "allocate", "truncate",
                                                      "sync", "rename", "remove",   "sync_dir"};

/* Whether this call fails, and with what. */
static int fault(struct fake_fs *f, enum fake_fs_call call, const char *name)
{
    struct fake_rule *r = &f->rules[call];
    int rv = TQ_OK;

    f->calls[call]++;
    if (f->gone_after == 0)
        rv = TQ_EIO;
    else if (f->gone_after > 0)
        f->gone_after--;
    if (rv == TQ_OK && r->repeat > 0) {
        if (r->after > 0) {
            r->after--;
        } else {
            r->repeat--;
            rv = r->error;
        }
    }
    if (rv != TQ_OK)
        (void)snprintf(f->table.error, sizeof(f->table.error), "%s: %s: %s (played)", name, call_names[call],
                       tq_strerror(rv));
    return rv;
}

static int refuse(struct fake_fs *f, enum fake_fs_call call, const char *name, int rv)
{
    (void)snprintf(f->table.error, sizeof(f->table.error), "%s: %s: %s", name, call_names[call],
                   tq_strerror(rv));
    return rv;
}

static uint64_t in_blocks(uint64_t len)
{
    return (len + FAKE_BLOCK - 1) / FAKE_BLOCK * FAKE_BLOCK;
}

uint64_t fake_fs_used(const struct fake_fs *f)
{
    uint64_t used = 0;

    for (size_t i = 0; i < f->now.entry_count; i++)
        used += in_blocks(f->now.inodes[f->now.entries[i].inode].len);
    return used;
}

static bool has_room(const struct fake_fs *f, size_t inode, uint64_t len)
{
    uint64_t before = in_blocks(f->now.inodes[inode].len), after = in_blocks(len);

    return after <= before || f->capacity == UINT64_MAX || fake_fs_used(f) - before + after <= f->capacity;
}

/* ---- the table ---- */

static struct fake_handle *handle_of(struct fake_fs *f, int file)
{
    TQ_ASSERT(file >= 0 && (size_t)file < f->handle_count && f->handles[file].open);
    return &f->handles[file];
}

static int fake_list(struct log_fs *fs, void (*fn)(void *fn_ctx, const char *name), void *fn_ctx)
{
    struct fake_fs *f = fs->ctx;
    int rv = fault(f, FAKE_FS_LIST, ".");

    if (rv != TQ_OK)
        return rv;
    for (size_t i = 0; i < f->now.entry_count; i++)
        fn(fn_ctx, f->now.entries[i].name);
    return TQ_OK;
}

static int fake_open(struct log_fs *fs, const char *name, unsigned flags)
{
    struct fake_fs *f = fs->ctx;
    bool creates = (flags & LOG_FS_CREATE) != 0;
    enum fake_fs_call call = creates ? FAKE_FS_CREATE : FAKE_FS_OPEN;
    int rv = fault(f, call, name);
    struct fake_entry *e = fake_disk_find(&f->now, name);
    size_t at = 0, inode;

    TQ_ASSERT(strlen(name) < LOG_FS_NAME_MAX && strchr(name, '/') == NULL);
    TQ_ASSERT(!creates || (flags & LOG_FS_WRITE) != 0);
    if (rv != TQ_OK)
        return rv;
    if (creates && e != NULL)
        return refuse(f, call, name, TQ_EEXISTS);
    if (!creates && e == NULL)
        return refuse(f, call, name, TQ_ENOTFOUND);
    if (creates) {
        struct fake_op *op = fake_fs_record(f, FAKE_OP_CREATE);

        inode = op->inode = fake_disk_add_inode(&f->now);
        (void)snprintf(op->name, sizeof(op->name), "%s", name);
        fake_disk_apply(&f->now, op);
    } else {
        inode = e->inode;
    }
    while (at < f->handle_count && f->handles[at].open)
        at++;
    if (at == f->handle_count) {
        f->handles = fake_grow(f->handles, f->handle_count, sizeof(*f->handles));
        f->handle_count++;
    }
    f->handles[at] =
        (struct fake_handle){.open = true, .writes = (flags & LOG_FS_WRITE) != 0, .inode = inode};
    (void)snprintf(f->handles[at].name, sizeof(f->handles[at].name), "%s", name);
    return (int)at;
}

static void fake_close(struct log_fs *fs, int file)
{
    handle_of(fs->ctx, file)->open = false;
}

static int fake_size(struct log_fs *fs, int file, uint64_t *ret_bytes)
{
    struct fake_fs *f = fs->ctx;
    struct fake_handle *h = handle_of(f, file);
    int rv = fault(f, FAKE_FS_SIZE, h->name);

    if (rv == TQ_OK)
        *ret_bytes = f->now.inodes[h->inode].len;
    return rv;
}

static int64_t fake_read(struct log_fs *fs, int file, uint64_t offset, void *out, size_t n)
{
    struct fake_fs *f = fs->ctx;
    struct fake_handle *h = handle_of(f, file);
    const struct fake_inode *i = &f->now.inodes[h->inode];
    int rv = fault(f, FAKE_FS_READ, h->name);

    if (rv != TQ_OK)
        return rv;
    if (offset >= i->len)
        return 0;
    if (n > i->len - offset)
        n = (size_t)(i->len - offset);
    memcpy(out, i->data + offset, n);
    return (int64_t)n;
}

static int fake_write(struct log_fs *fs, int file, uint64_t offset, struct tq_span bytes)
{
    struct fake_fs *f = fs->ctx;
    struct fake_handle *h = handle_of(f, file);
    int rv = fault(f, FAKE_FS_WRITE, h->name);

    TQ_ASSERT(h->writes);
    if (rv == TQ_OK && !has_room(f, h->inode, offset + bytes.len))
        rv = refuse(f, FAKE_FS_WRITE, h->name, TQ_ENOSPC);
    if (rv != TQ_OK) { /* some part of it came through */
        bytes.len = (bytes.len * 7 / 13);
        if (bytes.len == 0 || !has_room(f, h->inode, offset + bytes.len))
            return rv;
    }
    record_write(f, h->inode, offset, bytes);
    return rv;
}

static int resize(struct fake_fs *f, int file, uint64_t bytes, enum fake_fs_call call)
{
    struct fake_handle *h = handle_of(f, file);
    struct fake_inode *i = &f->now.inodes[h->inode];
    int rv = fault(f, call, h->name);
    struct fake_op *op;

    TQ_ASSERT(h->writes);
    if (rv != TQ_OK)
        return rv;
    if (!has_room(f, h->inode, bytes))
        return refuse(f, call, h->name, TQ_ENOSPC);
    if (bytes == i->len || (call == FAKE_FS_ALLOCATE && bytes < i->len))
        return TQ_OK;
    op = fake_fs_record(f, FAKE_OP_RESIZE);
    op->inode = h->inode;
    op->offset = bytes;
    fake_disk_apply(&f->now, op);
    return TQ_OK;
}

static int fake_allocate(struct log_fs *fs, int file, uint64_t bytes)
{
    return resize(fs->ctx, file, bytes, FAKE_FS_ALLOCATE);
}

static int fake_truncate(struct log_fs *fs, int file, uint64_t bytes)
{
    return resize(fs->ctx, file, bytes, FAKE_FS_TRUNCATE);
}

static int fake_sync(struct log_fs *fs, int file)
{
    struct fake_fs *f = fs->ctx;
    struct fake_handle *h = handle_of(f, file);
    int rv = fault(f, FAKE_FS_SYNC, h->name);

    fake_fs_record(f, rv == TQ_OK ? FAKE_OP_SYNC : FAKE_OP_SYNC_FAILED)->inode = h->inode;
    return rv;
}

static int fake_rename(struct log_fs *fs, const char *from, const char *to)
{
    struct fake_fs *f = fs->ctx;
    int rv = fault(f, FAKE_FS_RENAME, from);
    struct fake_op *op;

    if (rv != TQ_OK)
        return rv;
    if (fake_disk_find(&f->now, from) == NULL)
        return refuse(f, FAKE_FS_RENAME, from, TQ_ENOTFOUND);
    op = fake_fs_record(f, FAKE_OP_RENAME);
    (void)snprintf(op->name, sizeof(op->name), "%s", from);
    (void)snprintf(op->to, sizeof(op->to), "%s", to);
    fake_disk_apply(&f->now, op);
    return TQ_OK;
}

static int fake_remove(struct log_fs *fs, const char *name)
{
    struct fake_fs *f = fs->ctx;
    int rv = fault(f, FAKE_FS_REMOVE, name);
    struct fake_op *op;

    if (rv != TQ_OK)
        return rv;
    if (fake_disk_find(&f->now, name) == NULL)
        return refuse(f, FAKE_FS_REMOVE, name, TQ_ENOTFOUND);
    op = fake_fs_record(f, FAKE_OP_REMOVE);
    (void)snprintf(op->name, sizeof(op->name), "%s", name);
    fake_disk_apply(&f->now, op);
    return TQ_OK;
}

static int fake_sync_dir(struct log_fs *fs)
{
    struct fake_fs *f = fs->ctx;
    int rv = fault(f, FAKE_FS_SYNC_DIR, ".");

    if (rv == TQ_OK)
        (void)fake_fs_record(f, FAKE_OP_SYNC_DIR);
    return rv;
}

static uint64_t fake_free_bytes(struct log_fs *fs)
{
    const struct fake_fs *f = fs->ctx;
    uint64_t used = fake_fs_used(f);

    if (f->capacity == UINT64_MAX)
        return UINT64_MAX;
    return f->capacity > used ? f->capacity - used : 0;
}

/* ---- a test's own hand ---- */

struct fake_fs *fake_fs_new(void)
{
    struct fake_fs *f = calloc(1, sizeof(*f));

    TQ_ASSERT(f != NULL);
    f->table = (struct log_fs){.ctx = f,
                               .list = fake_list,
                               .open = fake_open,
                               .close = fake_close,
                               .size = fake_size,
                               .read = fake_read,
                               .write = fake_write,
                               .allocate = fake_allocate,
                               .truncate = fake_truncate,
                               .sync = fake_sync,
                               .rename = fake_rename,
                               .remove = fake_remove,
                               .sync_dir = fake_sync_dir,
                               .free_bytes = fake_free_bytes};
    f->capacity = UINT64_MAX;
    f->gone_after = -1;
    return f;
}

void fake_fs_free(struct fake_fs *f)
{
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->op_count; i++)
        free(f->ops[i].data);
    free(f->ops);
    free(f->handles);
    fake_disk_deinit(&f->base);
    fake_disk_deinit(&f->now);
    free(f);
}

struct log_fs *fake_fs_table(struct fake_fs *f)
{
    return &f->table;
}

const uint8_t *fake_fs_bytes(const struct fake_fs *f, const char *name, size_t *ret_len)
{
    const struct fake_entry *e = fake_disk_find(&f->now, name);

    if (e == NULL)
        return NULL;
    *ret_len = f->now.inodes[e->inode].len;
    return *ret_len > 0 ? f->now.inodes[e->inode].data : (const uint8_t *)"";
}

/* What stands now becomes the ground on which crashes are played: a hand in the directory has no past. */
static void forget(struct fake_fs *f)
{
    for (size_t i = 0; i < f->op_count; i++)
        free(f->ops[i].data);
    f->op_count = 0;
    free(f->ops);
    f->ops = NULL;
    fake_disk_deinit(&f->base);
    fake_disk_copy(&f->base, &f->now);
}

void fake_fs_put(struct fake_fs *f, const char *name, const void *data, size_t len)
{
    size_t inode = fake_disk_add_inode(&f->now);

    fake_inode_write(&f->now.inodes[inode], 0, data, len);
    fake_disk_link(&f->now, name, inode);
    forget(f);
}

void fake_fs_flip(struct fake_fs *f, const char *name, size_t offset, uint8_t mask)
{
    struct fake_entry *e = fake_disk_find(&f->now, name);

    TQ_ASSERT(e != NULL && offset < f->now.inodes[e->inode].len);
    f->now.inodes[e->inode].data[offset] ^= mask;
    forget(f);
}

void fake_fs_drop(struct fake_fs *f, const char *name)
{
    TQ_ASSERT(fake_fs_has(f, name));
    fake_disk_unlink(&f->now, name);
    forget(f);
}

bool fake_fs_has(const struct fake_fs *f, const char *name)
{
    return fake_disk_find(&f->now, name) != NULL;
}

size_t fake_fs_count(const struct fake_fs *f)
{
    return f->now.entry_count;
}

const char *fake_fs_name(const struct fake_fs *f, size_t at)
{
    TQ_ASSERT(at < f->now.entry_count);
    return f->now.entries[at].name;
}

unsigned fake_fs_open_files(const struct fake_fs *f)
{
    unsigned n = 0;

    for (size_t i = 0; i < f->handle_count; i++)
        n += f->handles[i].open;
    return n;
}

void fake_fs_fail(struct fake_fs *f, enum fake_fs_call call, long nth, unsigned long repeat, int error)
{
    f->rules[call] = (struct fake_rule){.after = nth, .repeat = nth < 0 ? 0 : repeat, .error = error};
}

void fake_fs_fail_any(struct fake_fs *f, long nth)
{
    f->gone_after = nth;
}

void fake_fs_set_capacity(struct fake_fs *f, uint64_t bytes)
{
    f->capacity = bytes;
}

unsigned long fake_fs_calls(const struct fake_fs *f, enum fake_fs_call call)
{
    return f->calls[call];
}

size_t fake_fs_point(const struct fake_fs *f)
{
    return f->op_count;
}

void fake_fs_describe(const struct fake_fs *f, size_t at, char out[FAKE_FS_TEXT_MAX])
{
    static const char *const kinds[] = {"create", "write", "resize",      "rename",
                                        "remove", "sync",  "failed sync", "sync_dir"};
    const struct fake_op *op = &f->ops[at];

    TQ_ASSERT(at < f->op_count);
    (void)snprintf(out, FAKE_FS_TEXT_MAX, "%s %s%s%s inode %zu offset %llu len %zu", kinds[op->kind],
                   op->name, op->to[0] != '\0' ? " -> " : "", op->to, op->inode,
                   (unsigned long long)op->offset, op->len);
}
