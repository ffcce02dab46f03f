/* What it costs to keep a task: a slot of 22 + 100 bytes and an id, in nanoseconds per operation, with so
 * many of them alive all the time, first in and first out; and malloc and free in the same order. Each round
 * of BATCH tasks does one operation for all of them before the next one, so that each has a time of its own.
 */
#include <inttypes.h>

#include "common/assert.h"
#include "master/core/ids.h"
#include "master/core/slab.h"
#include "tests/bench/measure.h"

#define TASK_BYTES 122u
#define BATCH      64u
#define CYCLES     8000000u

enum op { ALLOC, FILL, ADD, FIND, READ, REMOVE, RELEASE, OPS };

struct bench {
    struct slab *slab;
    struct ids *ids;
    void **ring; /* malloc: the oldest at head */
    size_t live;
    size_t head;
    uint64_t oldest_id;
    uint64_t cycles;
    uint64_t checksum;
    uint64_t ns[OPS];
};

static uint64_t lap(struct bench *b, enum op op, uint64_t since)
{
    uint64_t now = now_ns();

    b->ns[op] += now - since;
    return now;
}

static void fill(void *at, uint64_t cycle)
{
    memset(at, (int)cycle, TASK_BYTES);
}

static void grow_slab(struct bench *b, uint32_t *slot)
{
    uint64_t t = now_ns(), id;

    for (size_t i = 0; i < BATCH; i++)
        slot[i] = slab_take(b->slab, TASK_BYTES);
    t = lap(b, ALLOC, t);
    for (size_t i = 0; i < BATCH; i++)
        fill(slab_at(b->slab, slot[i]), b->cycles);
    t = lap(b, FILL, t);
    for (size_t i = 0; i < BATCH; i++)
        TQ_ASSERT(ids_add(b->ids, slot[i], b->cycles / 1000, &id) == 0);
    lap(b, ADD, t);
}

static void shrink_slab(struct bench *b, uint32_t *slot)
{
    uint64_t t = now_ns();

    for (size_t i = 0; i < BATCH; i++)
        slot[i] = ids_find(b->ids, b->oldest_id + i);
    t = lap(b, FIND, t);
    for (size_t i = 0; i < BATCH; i++)
        b->checksum += *(const unsigned char *)slab_at(b->slab, slot[i]);
    t = lap(b, READ, t);
    for (size_t i = 0; i < BATCH; i++)
        ids_remove(b->ids, b->oldest_id + i);
    t = lap(b, REMOVE, t);
    for (size_t i = 0; i < BATCH; i++)
        slab_give(b->slab, slot[i]);
    lap(b, RELEASE, t);
    b->oldest_id += BATCH;
}

static void grow_malloc(struct bench *b, uint32_t *unused)
{
    uint64_t t = now_ns();
    void **at = b->ring + b->head;

    (void)unused;
    for (size_t i = 0; i < BATCH; i++)
        at[i] = malloc(TASK_BYTES);
    t = lap(b, ALLOC, t);
    for (size_t i = 0; i < BATCH; i++)
        fill(at[i], b->cycles);
    lap(b, FILL, t);
    b->head = (b->head + BATCH) % (b->live + BATCH);
}

static void shrink_malloc(struct bench *b, uint32_t *unused)
{
    void **at = b->ring + b->head; /* the oldest is where the next one comes */
    uint64_t t = now_ns();

    (void)unused;
    for (size_t i = 0; i < BATCH; i++)
        b->checksum += *(unsigned char *)at[i];
    t = lap(b, READ, t);
    for (size_t i = 0; i < BATCH; i++)
        free(at[i]);
    lap(b, RELEASE, t);
}

typedef void (*step_fn)(struct bench *b, uint32_t *slot);

static void run(const char *name, size_t live, step_fn grow, step_fn shrink)
{
    static const char *const names[OPS] = {"alloc", "fill", "add", "find", "read", "remove", "release"};
    struct bench b = {.live = live / BATCH * BATCH, .oldest_id = 1, .slab = slab_new(), .ids = ids_new(1)};
    struct slab_stats st;
    uint32_t slot[BATCH];
    uint64_t start = now_ns(), up, whole = 0;
    long before = status_read(getpid(), "VmRSS");

    b.ring = calloc(b.live + BATCH, sizeof(*b.ring));
    TQ_ASSERT(b.slab != NULL && b.ids != NULL && b.ring != NULL);
    for (; b.cycles < b.live; b.cycles += BATCH)
        grow(&b, slot);
    up = now_ns() - start;
    slab_get_stats(b.slab, &st);
    printf("%-8s %8zu live: first put %5.1f ns, %.2f bytes each (RSS %.2f)\n", name, b.live,
           (double)up / (double)b.live, (double)(st.mapped_bytes + ids_bytes(b.ids)) / (double)b.live,
           (double)(status_read(getpid(), "VmRSS") - before) * 1024.0 / (double)b.live);
    memset(b.ns, 0, sizeof(b.ns));
    for (uint64_t i = 0; i < CYCLES; i += BATCH, b.cycles += BATCH) {
        grow(&b, slot);
        shrink(&b, slot);
    }
    for (int op = 0; op < OPS; op++) {
        whole += b.ns[op];
        if (b.ns[op] > 0)
            printf("    %-8s %6.2f ns\n", names[op], (double)b.ns[op] / CYCLES);
    }
    start = now_ns();
    memset(b.ns, 0, sizeof(b.ns));
    for (size_t i = 0; i < b.live; i += BATCH) {
        b.head = (b.head + BATCH) % (b.live + BATCH);
        shrink(&b, slot);
    }
    printf("    cycle    %6.2f ns; drained in %.1f ns each, RSS then %+ld KiB (checksum %" PRIx64 ")\n",
           (double)whole / CYCLES, (double)(now_ns() - start) / (double)b.live,
           status_read(getpid(), "VmRSS") - before, b.checksum);
    slab_free(b.slab);
    ids_free(b.ids);
    free(b.ring);
}

int main(void)
{
    run("slab", 1000000, grow_slab, shrink_slab);
    run("slab", 1000, grow_slab, shrink_slab);
    run("malloc", 1000000, grow_malloc, shrink_malloc);
    run("malloc", 1000, grow_malloc, shrink_malloc);
    return 0;
}
