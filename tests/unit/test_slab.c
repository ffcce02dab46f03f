/* The slab: against a plain array, at the edges of its classes, without memory; what it costs and what it
 * gives back. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/mem.h"
#include "master/core/slab.h"
#include "tests/lib/rss.h"

#define TASK_BYTES  122u
#define MODEL_SLOTS 20000u
#define MODEL_STEPS 150000u
#define MIB         (1 << 20)

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 16) % below);
}

static struct slab_stats stats_of(const struct slab *s)
{
    struct slab_stats st;

    slab_get_stats(s, &st);
    return st;
}

/* ---- pages ---- */

static void test_pages_are_zero_counted_and_fail_where_told(void **state)
{
    const size_t n = 4 * TQ_PAGES_UNIT_BYTES;
    unsigned long before = tq_mem_count();
    int64_t resident[3], mapped;
    unsigned char *p;

    (void)state;
    tq_mem_fail_after(0, 1);
    assert_null(tq_pages_alloc(n));
    p = tq_pages_alloc(n);
    assert_non_null(p);
    assert_int_equal(tq_mem_count() - before, 2);
    rss_read(&resident[0], &mapped);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p[i], 0);
    memset(p, 1, n);
    rss_read(&resident[1], &mapped);
    tq_pages_drop(p + TQ_PAGES_UNIT_BYTES, n - TQ_PAGES_UNIT_BYTES);
    rss_read(&resident[2], &mapped);
    assert_int_equal(p[TQ_PAGES_UNIT_BYTES - 1], 1);
    p[n - 1] = 2; /* still there */
    tq_pages_free(p, n);
    assert_true(!RSS_IS_OURS || resident[1] - resident[2] >= (int64_t)(n - TQ_PAGES_UNIT_BYTES));
    assert_true(!RSS_IS_OURS || resident[1] - resident[0] <= (int64_t)n + 65536);
}

/* ---- classes ---- */

/* How much larger than asked for a slot may be. */
static size_t waste_max(size_t n)
{
    if (n < SLAB_SLOT_MIN_BYTES)
        return SLAB_SLOT_MIN_BYTES - n;
    return n <= 256 ? n % 2 : n / 8;
}

static void test_every_size_has_a_slot_of_its_own(void **state)
{
    struct slab *s = slab_new();
    size_t last_cost = 0;

    (void)state;
    assert_non_null(s);
    assert_int_equal(slab_cost(TASK_BYTES), 123); /* 65536 / 537, up */
    assert_int_equal(slab_cost(1), 16);
    assert_int_equal(slab_cost(2048), 2048);
    for (size_t n = 1; n <= SLAB_SLOT_MAX_BYTES; n++) {
        uint32_t h = slab_take(s, n);
        size_t size = slab_size(s, h), cost = slab_cost(n);
        uintptr_t unit = size & (~size + 1); /* the greatest power of two that divides it */

        assert_int_not_equal(h, SLAB_NONE);
        assert_true(size >= n && size - n <= waste_max(n));
        assert_int_equal((uintptr_t)slab_at(s, h) % unit, 0);
        assert_true(size % 2 == 0 && unit >= 2);
        assert_true(cost >= size && cost - size <= size / 16 && cost >= last_cost);
        memset(slab_at(s, h), 0xff, size);
        slab_give(s, h);
        last_cost = cost;
    }
    assert_int_equal(stats_of(s).slots, 0);
    assert_true(stats_of(s).chunks <= SLAB_IDLE_CHUNKS);
    slab_free(s);
    slab_free(NULL);
}

/* Two chunks of each class, to the last byte: no slot lies over another one, and none is lost. */
static void test_chunks_are_filled_to_the_last_slot(void **state)
{
    (void)state;
    for (size_t n = SLAB_SLOT_MIN_BYTES; n <= SLAB_SLOT_MAX_BYTES;) {
        struct slab *s = slab_new();
        uint32_t h[2 * SLAB_CHUNK_BYTES / SLAB_SLOT_MIN_BYTES];
        uint32_t first = slab_take(s, n);
        size_t size = slab_size(s, first), each = SLAB_CHUNK_BYTES / size;

        h[0] = first;
        for (size_t i = 1; i < 2 * each; i++)
            h[i] = slab_take(s, i % 2 != 0 ? size : n);
        for (size_t i = 0; i < 2 * each; i++) {
            assert_int_equal(slab_size(s, h[i]), size);
            memset(slab_at(s, h[i]), (int)(i * 7 % 251), size);
        }
        assert_int_equal(stats_of(s).chunks, 2);
        for (size_t i = 0; i < 2 * each; i++) {
            const unsigned char *at = slab_at(s, h[i]);

            for (size_t k = 0; k < size; k++)
                if (at[k] != i * 7 % 251)
                    fail_msg("slot %zu of %zu bytes, byte %zu", i, size, k);
        }
        assert_int_not_equal(slab_take(s, n), SLAB_NONE);
        assert_int_equal(stats_of(s).chunks, 3);
        slab_free(s);
        n = size + 1;
    }
}

/* With a lead, slots have bytes of their owner's before them; they cost them, too, and nothing else is
 * different. */
static void test_a_lead_is_the_owners_too(void **state)
{
    enum { LEAD = 10, SLOTS = 700 };
    struct slab *s = slab_new();
    uint32_t *h = calloc(SLOTS, sizeof(*h));

    (void)state;
    assert_non_null(s);
    assert_non_null(h);
    slab_set_lead(s, LEAD);
    for (size_t n = 1; n + LEAD <= SLAB_SLOT_MAX_BYTES; n += n < 300 ? 13 : 397) {
        for (size_t i = 0; i < SLOTS; i++) {
            h[i] = slab_take(s, n);
            assert_int_not_equal(h[i], SLAB_NONE);
            assert_true(slab_size(s, h[i]) >= n && slab_size(s, h[i]) - n <= waste_max(n + LEAD));
            memset((char *)slab_at(s, h[i]) - LEAD, (int)(i % 251), slab_size(s, h[i]) + LEAD);
        }
        for (size_t i = 0; i < SLOTS; i++) {
            const unsigned char *at = (const unsigned char *)slab_at(s, h[i]) - LEAD;

            for (size_t k = 0; k < slab_size(s, h[i]) + LEAD; k++)
                if (at[k] != i % 251)
                    fail_msg("slot %zu of %zu bytes, byte %zu", i, n, k);
            slab_give(s, h[i]);
        }
    }
    assert_int_equal(stats_of(s).slots, 0);
    assert_true(stats_of(s).chunks <= SLAB_IDLE_CHUNKS);
    slab_free(s);
    free(h);
}

/* ---- the model ---- */

struct held {
    uint32_t handle;
    uint16_t bytes;
    uint8_t pattern;
};

struct play {
    struct slab *s;
    struct held held[MODEL_SLOTS];
    size_t count;
    uint64_t digest; /* of all handles in their order */
};

static size_t random_bytes(void)
{
    switch (rng(4)) {
    case 0:
        return TASK_BYTES;
    case 1:
        return 1 + rng(SLAB_SLOT_MAX_BYTES);
    case 2:
        return 1 + rng(300);
    default:
        return 16u << rng(8);
    }
}

static void play_take(struct play *p)
{
    size_t n = random_bytes();
    struct held *h = &p->held[p->count++];
    uint64_t calls = stats_of(p->s).system_calls;

    *h = (struct held){.handle = slab_take(p->s, n), .bytes = (uint16_t)n, .pattern = (uint8_t)rng(256)};
    assert_int_not_equal(h->handle, SLAB_NONE);
    assert_true(slab_size(p->s, h->handle) >= n);
    memset(slab_at(p->s, h->handle), h->pattern, n);
    p->digest = (p->digest ^ h->handle) * 0x100000001b3u;
    assert_true(stats_of(p->s).system_calls - calls <= 1);
}

static void play_give(struct play *p, size_t i)
{
    struct held h = p->held[i];
    const unsigned char *at = slab_at(p->s, h.handle);
    uint64_t calls = stats_of(p->s).system_calls;

    for (size_t k = 0; k < h.bytes; k++)
        assert_int_equal(at[k], h.pattern);
    slab_give(p->s, h.handle);
    p->held[i] = p->held[--p->count];
    assert_true(stats_of(p->s).system_calls - calls <= 1);
}

static uint64_t play_from_seed(uint64_t seed)
{
    static struct play p;
    uint32_t takes = 500; /* of 1000 steps: there is less and more of everything in turns */

    p = (struct play){.s = slab_new()};
    rng_state = seed;
    for (size_t step = 0; step < MODEL_STEPS; step++) {
        if (step % 4096 == 0)
            takes = 100 + rng(800);
        if (p.count < MODEL_SLOTS && (p.count == 0 || rng(1000) < takes))
            play_take(&p);
        else
            play_give(&p, rng((uint32_t)p.count));
        assert_int_equal(stats_of(p.s).slots, p.count);
    }
    while (p.count > 0)
        play_give(&p, p.count - 1);
    assert_int_equal(stats_of(p.s).slots, 0);
    assert_true(stats_of(p.s).chunks <= SLAB_IDLE_CHUNKS);
    slab_free(p.s);
    return p.digest;
}

static void test_it_does_what_an_array_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        uint64_t digest = play_from_seed(seed * 0x9e3779b97f4a7c15u);

        /* And the same again: handles depend on the calls alone. */
        assert_true(seed > 2 || play_from_seed(seed * 0x9e3779b97f4a7c15u) == digest);
    }
}

/* ---- memory ---- */

static uint32_t *takes(struct slab *s, size_t count, size_t n)
{
    uint32_t *h = test_malloc(count * sizeof(*h));

    for (size_t i = 0; i < count; i++) {
        h[i] = slab_take(s, n);
        assert_int_not_equal(h[i], SLAB_NONE);
        memset(slab_at(s, h[i]), (int)i, n);
    }
    return h;
}

static void test_what_is_given_back_goes_back_to_the_system(void **state)
{
    enum { COUNT = 300000, ROUNDS = 3 };
    struct slab *s = slab_new();
    int64_t start, full, end, mapped_start, mapped_full, mapped_end;

    (void)state;
    rss_read(&start, &mapped_start);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t *h = takes(s, COUNT, TASK_BYTES + (size_t)round);

        rss_read(&full, &mapped_full);
        assert_true(!RSS_IS_OURS || full - start > COUNT * (int64_t)TASK_BYTES);
        for (size_t i = 0; i < COUNT; i++) /* in an order that empties many chunks late */
            slab_give(s, h[i * 7919 % COUNT]);
        test_free(h);
        rss_read(&end, &mapped_end);
        assert_int_equal(stats_of(s).slots, 0);
        assert_true(stats_of(s).chunks <= SLAB_IDLE_CHUNKS);
        assert_true(!RSS_IS_OURS || end - start < 2 * MIB);
        assert_true(mapped_full - mapped_end > COUNT * (int64_t)TASK_BYTES / 2); /* whole regions went */
    }
    slab_free(s);
}

static void test_a_put_and_a_get_in_turn_ask_the_system_for_nothing(void **state)
{
    static const size_t sizes[] = {TASK_BYTES, 60, 1024, 300, 2048, 16};
    const size_t kinds = sizeof(sizes) / sizeof(sizes[0]);
    struct slab *s = slab_new();
    uint64_t calls;

    (void)state;
    for (size_t i = 0; i < kinds; i++)
        slab_give(s, slab_take(s, sizes[i]));
    calls = stats_of(s).system_calls;
    for (size_t i = 0; i < 100000; i++)
        slab_give(s, slab_take(s, sizes[i % kinds]));
    assert_true(stats_of(s).system_calls == calls);

    /* First in, first out, over many chunks. */
    {
        enum { COUNT = 5000 };
        uint32_t *h = takes(s, COUNT, TASK_BYTES);

        calls = stats_of(s).system_calls;
        for (size_t i = 0; i < 20 * (size_t)COUNT; i++) {
            slab_give(s, h[i % COUNT]);
            h[i % COUNT] = slab_take(s, TASK_BYTES);
        }
        assert_true(stats_of(s).system_calls == calls);
        test_free(h);
    }
    slab_free(s);
}

/* Tasks come and go, but two go for each that comes: what has gone must not be held by what came. */
static void test_a_shrinking_queue_shrinks(void **state)
{
    enum { COUNT = 200000, LEFT = 20000 };
    struct slab *s = slab_new();
    uint32_t *h = takes(s, COUNT, TASK_BYTES);
    size_t head = 0, count = COUNT;
    uint64_t ideal = (uint64_t)LEFT * slab_cost(TASK_BYTES) / SLAB_CHUNK_BYTES + 1;

    (void)state;
    for (; count > LEFT; count--) {
        slab_give(s, h[head % COUNT]);
        slab_give(s, h[(head + 1) % COUNT]);
        h[(head + count) % COUNT] = slab_take(s, TASK_BYTES);
        head += 2;
    }
    assert_int_equal(stats_of(s).slots, LEFT);
    assert_true(stats_of(s).chunks <= ideal + SLAB_IDLE_CHUNKS + 2);
    test_free(h);
    slab_free(s);
}

/* Takes of all sizes. One of them may fail; then nothing has changed, and it is asked again. Where a region
 * was mapped, how many allocations there had been. */
static bool script(struct slab *s, uint32_t *h, size_t count, long *mapped_after, size_t *mapped)
{
    unsigned long start = tq_mem_count();
    bool failed = false;

    *mapped = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = i % 3 == 0 ? 2048 : i % 3 == 1 ? TASK_BYTES : 1 + i * 131 % SLAB_SLOT_MAX_BYTES;
        struct slab_stats before = stats_of(s);

        h[i] = slab_take(s, n);
        if (h[i] == SLAB_NONE) {
            assert_false(failed); /* it was to fail once */
            failed = true;
            assert_int_equal(stats_of(s).slots, before.slots);
            assert_int_equal(stats_of(s).chunks, before.chunks);
            h[i] = slab_take(s, n);
        }
        if (stats_of(s).system_calls != before.system_calls)
            mapped_after[(*mapped)++] = (long)(tq_mem_count() - start) - 1;
        memset(slab_at(s, h[i]), 1, n);
    }
    return failed;
}

static void test_without_memory_nothing_is_lost(void **state)
{
    enum { COUNT = 9000, REGIONS_MAX = 8, FIRST = 40 };
    static uint32_t want[COUNT], got[COUNT];
    long mapped_after[REGIONS_MAX], unused[REGIONS_MAX];
    int64_t resident, mapped_before, mapped_then;
    size_t regions, regions_then;
    struct slab *s;

    (void)state;
    tq_mem_fail_after(0, 1);
    assert_null(slab_new());
    s = slab_new();
    assert_false(script(s, want, COUNT, mapped_after, &regions));
    slab_free(s);
    assert_true(regions >= 3 && regions <= REGIONS_MAX);
    rss_read(&resident, &mapped_before);
    for (size_t i = 0; i < FIRST + regions; i++) {
        s = slab_new();
        tq_mem_fail_after(i < FIRST ? (long)i : mapped_after[i - FIRST], 1);
        assert_true(script(s, got, COUNT, unused, &regions_then));
        tq_mem_fail_after(-1, 0);
        assert_memory_equal(got, want, sizeof(got));
        for (size_t k = 0; k < COUNT; k++)
            slab_give(s, got[k]);
        assert_int_equal(stats_of(s).slots, 0);
        slab_free(s);
    }
    rss_read(&resident, &mapped_then);
    assert_true(mapped_then - mapped_before < MIB); /* no region was left behind */
}

/* All numbers but the last two are in use, as far as the slab can see. */
static void test_out_of_handles_is_out_of_memory(void **state)
{
    struct slab *s = slab_new();
    const uint32_t each = SLAB_CHUNK_BYTES / 2048;
    uint32_t h = SLAB_NONE, mine = slab_take(s, 16);

    (void)state;
    memset(s->full, 0xff, sizeof(s->full));
    s->full[SLAB_REGIONS / 64 - 1] &= ~((uint64_t)1 << 63);
    s->used[SLAB_REGIONS - 1] = ~((uint64_t)3 << 62);
    for (uint32_t i = 0; i < 2 * each; i++) {
        h = slab_take(s, 2048);
        assert_int_equal(h >> SLAB_INDEX_BITS, SLAB_CHUNKS - 2 + i / each);
        memset(slab_at(s, h), 1, 2048);
    }
    assert_int_equal(slab_take(s, 2048), SLAB_NONE);
    assert_int_equal(slab_take(s, 1024), SLAB_NONE);
    assert_int_not_equal(slab_take(s, 16), SLAB_NONE); /* there is room in its chunk */
    slab_give(s, h);
    assert_int_equal(slab_take(s, 2048), h);
    slab_give(s, mine);
    slab_free(s);
}

/* ---- our own bugs ---- */

static void misuse(struct slab *s, uint32_t h, int what)
{
    switch (what) {
    case 0: /* given twice */
        slab_give(s, h);
        slab_give(s, h);
        break;
    case 1: /* never taken */
        slab_give(s, h + 100);
        break;
    case 2: /* of a chunk that there is not */
        slab_give(s, h + (1u << 20));
        break;
    case 3:
        slab_give(s, SLAB_NONE);
        break;
    case 4:
        slab_take(s, 0);
        break;
    default:
        slab_take(s, SLAB_SLOT_MAX_BYTES + 1);
        break;
    }
}

static void test_misuse_ends_the_process(void **state)
{
    (void)state;
    for (int what = 0; what <= 5; what++) {
        int status = 0;
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            struct slab *s = slab_new();
            uint32_t h;

            signal(SIGABRT, SIG_DFL); /* not cmocka's */
            close(STDERR_FILENO);
            slab_take(s, TASK_BYTES);
            h = slab_take(s, TASK_BYTES);
            misuse(s, h, what);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("misuse %d was not noticed: status %x", what, (unsigned)status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_are_zero_counted_and_fail_where_told),
        cmocka_unit_test(test_every_size_has_a_slot_of_its_own),
        cmocka_unit_test(test_chunks_are_filled_to_the_last_slot),
        cmocka_unit_test(test_a_lead_is_the_owners_too),
        cmocka_unit_test(test_it_does_what_an_array_does),
        cmocka_unit_test(test_what_is_given_back_goes_back_to_the_system),
        cmocka_unit_test(test_a_put_and_a_get_in_turn_ask_the_system_for_nothing),
        cmocka_unit_test(test_a_shrinking_queue_shrinks),
        cmocka_unit_test(test_without_memory_nothing_is_lost),
        cmocka_unit_test(test_out_of_handles_is_out_of_memory),
        cmocka_unit_test(test_misuse_ends_the_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
