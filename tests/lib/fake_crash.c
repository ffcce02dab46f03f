/* What a crash leaves of the played disk. */
#include <stdlib.h>

#include "common/assert.h"
#include "tests/lib/fake_fs_impl.h"

struct pending { /* operations that are not synced, oldest first */
    size_t *ops;
    size_t count;
};

struct replay {
    const struct fake_fs *f;
    struct fake_disk disk; /* what is durable */
    struct pending *bytes; /* of each inode */
    size_t inode_count;
    struct pending names;
    uint64_t *random;
};

/* xorshift64* */
static uint32_t below(uint64_t *random, size_t n)
{
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return (uint32_t)((*random * 0x2545f4914f6cdd1du >> 32) * n >> 32);
}

static void pending_add(struct pending *p, size_t op)
{
    p->ops = fake_grow(p->ops, p->count, sizeof(*p->ops));
    p->ops[p->count++] = op;
}

static void pending_clear(struct pending *p)
{
    free(p->ops);
    *p = (struct pending){0};
}

/* ---- bytes ---- */

static void lose_none(struct replay *r, struct pending *p)
{
    for (size_t i = 0; i < p->count; i++)
        fake_disk_apply(&r->disk, &r->f->ops[p->ops[i]]);
}

/* All operations before `moment`; some first part of the one at it. */
static void lose_tail(struct replay *r, struct pending *p, size_t moment)
{
    for (size_t i = 0; i < p->count && p->ops[i] <= moment; i++) {
        struct fake_op op = r->f->ops[p->ops[i]];

        if (p->ops[i] == moment && op.kind == FAKE_OP_WRITE)
            op.len = below(r->random, op.len + 1);
        if (p->ops[i] < moment || op.kind == FAKE_OP_WRITE)
            fake_disk_apply(&r->disk, &op);
    }
}

/* How far one block has come: the operations before this one of the list are in it. */
static size_t block_cut(struct replay *r, const struct pending *p, unsigned keep_percent)
{
    if (below(r->random, 4) == 0)
        return below(r->random, p->count + 1);
    return below(r->random, 100) < keep_percent ? p->count : 0;
}

/* One change's share in one block; `last`: the next one of the list is not in it, so this may be torn. */
static void apply_part(struct replay *r, struct fake_inode *i, const struct fake_op *op, uint64_t from,
                       uint64_t to, bool last)
{
    if (op->kind == FAKE_OP_RESIZE) { /* what is cut off reads as 0 if the file grows again */
        if (from < op->offset)
            from = op->offset;
        if (to > i->len)
            to = i->len;
        if (from < to)
            memset(i->data + from, 0, (size_t)(to - from));
        return;
    }
    if (from < op->offset)
        from = op->offset;
    if (to > op->offset + op->len)
        to = op->offset + op->len;
    if (from >= to)
        return;
    if (last && below(r->random, 4) == 0)
        to = from + below(r->random, (size_t)(to - from) + 1);
    fake_inode_write(i, from, op->data + (from - op->offset), (size_t)(to - from));
}

static void lose_blocks(struct replay *r, struct pending *p, struct fake_inode *i)
{
    static const unsigned percents[] = {5, 50, 95};
    size_t block = below(r->random, 2) == 0 ? 512 : 4096, size_cut = block_cut(r, p, 50);
    unsigned keep_percent = percents[below(r->random, 3)];
    uint64_t size = i->len, end = i->len;

    for (size_t k = 0; k < p->count; k++) {
        const struct fake_op *op = &r->f->ops[p->ops[k]];
        uint64_t op_end = op->kind == FAKE_OP_RESIZE ? op->offset : op->offset + op->len;

        if (k < size_cut && (op->kind == FAKE_OP_RESIZE || op_end > size))
            size = op_end;
        if (op_end > end)
            end = op_end;
    }
    for (uint64_t from = 0; from < end; from += block) {
        size_t cut = block_cut(r, p, keep_percent);

        for (size_t k = 0; k < cut; k++)
            apply_part(r, i, &r->f->ops[p->ops[k]], from, from + block, k + 1 == cut);
    }
    fake_inode_resize(i, (size_t)size);
}

/* ---- names ---- */

static void lose_names(struct replay *r)
{
    bool ordered = below(r->random, 2) == 0;
    size_t cut = below(r->random, r->names.count + 1);

    for (size_t i = 0; i < r->names.count; i++)
        if (ordered ? i < cut : below(r->random, 2) == 0)
            fake_disk_apply(&r->disk, &r->f->ops[r->names.ops[i]]);
}

/* ---- all of it ---- */

static void replay_op(struct replay *r, size_t at)
{
    const struct fake_op *op = &r->f->ops[at];

    switch (op->kind) {
    case FAKE_OP_CREATE:
        pending_add(&r->names, at);
        break;
    case FAKE_OP_RENAME:
    case FAKE_OP_REMOVE:
        pending_add(&r->names, at);
        break;
    case FAKE_OP_WRITE:
    case FAKE_OP_RESIZE:
        pending_add(&r->bytes[op->inode], at);
        break;
    case FAKE_OP_SYNC:
        lose_none(r, &r->bytes[op->inode]);
        pending_clear(&r->bytes[op->inode]);
        break;
    case FAKE_OP_SYNC_FAILED:
        lose_blocks(r, &r->bytes[op->inode], &r->disk.inodes[op->inode]);
        pending_clear(&r->bytes[op->inode]);
        break;
    case FAKE_OP_SYNC_DIR:
        lose_none(r, &r->names);
        pending_clear(&r->names);
        break;
    }
}

static struct fake_fs *settle(struct replay *r)
{
    struct fake_fs *out = fake_fs_new();

    out->now = r->disk;
    fake_disk_copy(&out->base, &out->now);
    out->capacity = r->f->capacity;
    for (size_t i = 0; i < r->inode_count; i++)
        pending_clear(&r->bytes[i]);
    free(r->bytes);
    pending_clear(&r->names);
    return out;
}

struct fake_fs *fake_fs_power_cut(const struct fake_fs *f, size_t point, enum fake_fs_loss loss,
                                  uint64_t *random)
{
    struct replay r = {.f = f, .random = random, .inode_count = f->now.inode_count};
    size_t moment;

    TQ_ASSERT(point <= f->op_count);
    fake_disk_copy(&r.disk, &f->base);
    while (r.disk.inode_count < r.inode_count)
        (void)fake_disk_add_inode(&r.disk);
    r.bytes = calloc(r.inode_count + 1, sizeof(*r.bytes));
    TQ_ASSERT(r.bytes != NULL);
    for (size_t at = 0; at < point; at++)
        replay_op(&r, at);
    if (loss == FAKE_FS_LOSE_ANY)
        loss = (enum fake_fs_loss)(FAKE_FS_LOSE_ALL + below(random, 5));
    moment = loss == FAKE_FS_LOSE_TAIL ? below(random, point + 1) : point;
    for (size_t i = 0; i < r.inode_count; i++) {
        if (loss == FAKE_FS_LOSE_BLOCKS)
            lose_blocks(&r, &r.bytes[i], &r.disk.inodes[i]);
        else if (loss == FAKE_FS_LOSE_TAIL)
            lose_tail(&r, &r.bytes[i], moment);
        else if (loss != FAKE_FS_LOSE_ALL)
            lose_none(&r, &r.bytes[i]);
    }
    if (loss == FAKE_FS_LOSE_BLOCKS || loss == FAKE_FS_LOSE_NAMES)
        lose_names(&r);
    else if (loss == FAKE_FS_LOSE_TAIL)
        lose_tail(&r, &r.names, moment);
    else if (loss == FAKE_FS_LOSE_NONE)
        lose_none(&r, &r.names);
    return settle(&r);
}

struct fake_fs *fake_fs_kill(const struct fake_fs *f, size_t point, bool torn, uint64_t *random)
{
    struct fake_fs *out = fake_fs_new();

    TQ_ASSERT(point <= f->op_count);
    fake_disk_copy(&out->base, &f->base);
    fake_disk_copy(&out->now, &f->base);
    out->capacity = f->capacity;
    while (out->now.inode_count < f->now.inode_count)
        (void)fake_disk_add_inode(&out->now);
    for (size_t at = 0; at <= point && at < f->op_count; at++) {
        const struct fake_op *from = &f->ops[at];
        size_t len = from->len;
        struct fake_op *op;

        if (at == point) {
            if (!torn || from->kind != FAKE_OP_WRITE)
                break;
            len = below(random, len + 1);
        }
        op = fake_fs_record(out, from->kind);
        *op = *from;
        op->len = len;
        if (from->data != NULL) {
            op->data = malloc(len + 1);
            TQ_ASSERT(op->data != NULL);
            memcpy(op->data, from->data, len);
        }
        fake_disk_apply(&out->now, op);
    }
    return out;
}
