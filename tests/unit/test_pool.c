/* The pool: against a plain array, at the edges of its classes, without memory; what it keeps, what it gives
 * back, and in what pieces. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/mem.h"
#include "common/pool.h"
#include "tests/lib/rss.h"

#define MIB        ((size_t)1 << 20)
#define MODEL_LIVE 400u
#define OWN_BYTES  (TQ_POOL_RUN_MAX_BYTES + 1)

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 16) % below);
}

static int64_t resident(void)
{
    int64_t bytes, mapped;

    rss_read(&bytes, &mapped);
    return bytes;
}

/* Every byte of the first and the last page, and some in between. */
static void fill(unsigned char *at, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i += i < 4096 || i + 4097 > n ? 1 : 509)
        at[i] = (unsigned char)(i * 31 + seed);
}

static void check(const unsigned char *at, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i += i < 4096 || i + 4097 > n ? 1 : 509)
        if (at[i] != (unsigned char)(i * 31 + seed))
            fail_msg("byte %zu of %zu has changed", i, n);
}

static void assert_empty(struct tq_pool *p)
{
    assert_int_equal(p->live, 0);
    tq_pool_trim(p);
    assert_int_equal(p->warm_bytes, 0);
    assert_int_equal(p->mappings, 0);
    assert_int_equal(p->mapped_bytes, 0);
    assert_null(p->warm);
    for (unsigned i = 0; i < TQ_POOL_CELL_CLASSES; i++)
        assert_null(p->cells[i]);
    for (unsigned i = 0; i < TQ_POOL_RUN_CLASSES; i++)
        assert_true(p->blocks[i] == NULL && p->warm_of_class[i] == NULL);
}

/* ---- sizes ---- */

static void one_size(struct tq_pool *p, size_t n)
{
    unsigned char *at[3];

    for (unsigned i = 0; i < 3; i++) {
        at[i] = tq_pool_alloc(p, n);
        assert_non_null(at[i]);
        assert_int_equal((uintptr_t)at[i] % 8, 0);
        fill(at[i], n, i);
    }
    for (unsigned i = 0; i < 3; i++) {
        check(at[i], n, i);
        tq_pool_free(p, at[i]);
    }
    assert_int_equal(p->live, 0);
}

static void test_every_size_has_a_place_of_its_own(void **state)
{
    struct tq_pool p = {0};

    (void)state;
    for (size_t n = 1; n <= TQ_POOL_CELL_MAX_BYTES; n += n < 600 ? 1 : 7)
        one_size(&p, n);
    for (size_t edge = 512; edge <= 32 * MIB; edge *= 2) /* a class ends at each eighth or quarter */
        for (size_t n = edge; n < 2 * edge; n += edge / 8)
            for (size_t head = 0; head <= 3080; head = head == 0 ? 8 : head == 8 ? 3072 : head + 8)
                for (size_t i = 0; i <= 2 && n < 12 * MIB; i++)
                    if (n > head + 1)
                        one_size(&p, n - head + i - 1);
    one_size(&p, TQ_POOL_CELL_MAX_BYTES);
    one_size(&p, TQ_POOL_CELL_MAX_BYTES + 1);
    one_size(&p, TQ_POOL_RUN_MAX_BYTES);
    one_size(&p, OWN_BYTES);
    one_size(&p, 40 * MIB);
    assert_null(tq_pool_alloc(&p, SIZE_MAX));
    assert_null(tq_pool_alloc(&p, SIZE_MAX - 3072));
    assert_null(tq_pool_alloc(&p, SIZE_MAX / 2));
    assert_empty(&p);
}

/* Small ones mostly, and a few of each other kind. */
static size_t some_size(void)
{
    uint32_t kind = rng(1000);

    if (kind < 600)
        return 1 + rng(2000);
    if (kind < 900)
        return 1 + rng(30000);
    if (kind < 995)
        return 1 + rng(300000);
    return 1 + rng(kind < 999 ? (uint32_t)TQ_POOL_RUN_MAX_BYTES : (uint32_t)(16 * MIB));
}

static void test_it_does_what_an_array_does(void **state)
{
    static struct {
        unsigned char *at;
        size_t n;
    } model[MODEL_LIVE];
    struct tq_pool p = {0};
    size_t live = 0;

    (void)state;
    rng_state = 88172645463325252u;
    memset(model, 0, sizeof(model));
    for (unsigned step = 0; step < 60000; step++) {
        uint32_t i = rng(MODEL_LIVE);

        if (model[i].at != NULL) {
            check(model[i].at, model[i].n, i);
            tq_pool_free(&p, model[i].at);
            model[i].at = NULL;
            live--;
        } else if (step % 20000 < 12000) { /* then it shrinks */
            model[i].n = some_size();
            model[i].at = tq_pool_alloc(&p, model[i].n);
            assert_non_null(model[i].at);
            fill(model[i].at, model[i].n, i);
            live++;
        }
        assert_int_equal(p.live, live);
        assert_true(p.warm_bytes <= TQ_POOL_RUN_MAX_BYTES + 3072); /* one single run may be larger */
    }
    for (uint32_t i = 0; i < MODEL_LIVE; i++)
        if (model[i].at != NULL) {
            check(model[i].at, model[i].n, i);
            tq_pool_free(&p, model[i].at);
        }
    assert_empty(&p);
}

/* ---- what it gives back ---- */

static const size_t sizes[] = {500, 3100, 16413, 65600, 1048600};

enum { IN_ORDER, BACKWARDS, ANY_ORDER, ORDERS };

static void shuffle(unsigned char **at, size_t count, int order)
{
    for (size_t i = 0; i < count; i++) {
        size_t j = order == BACKWARDS ? count - 1 - i : order == ANY_ORDER ? rng((uint32_t)count) : i;
        unsigned char *x = at[i];

        if (order == BACKWARDS && j <= i)
            return;
        at[i] = at[j];
        at[j] = x;
    }
}

/* 64 MiB of one size: as much as that, and a little; and after it next to nothing. */
static void one_backlog(size_t n, int order)
{
    size_t count = 64 * MIB / n;
    unsigned char **at = malloc(count * sizeof(*at));
    int64_t piece = (int64_t)(n > TQ_POOL_CELLS_BYTES ? n + 65536 : TQ_POOL_CELLS_BYTES + 65536);
    int64_t before, full, last;
    struct tq_pool p = {0};

    assert_non_null(at);
    memset(at, 0, count * sizeof(*at));
    before = resident();
    for (size_t i = 0; i < count; i++) {
        at[i] = tq_pool_alloc(&p, n);
        assert_non_null(at[i]);
        memset(at[i], 1, n);
    }
    full = last = resident();
    assert_true(!RSS_IS_OURS || full - before < (int64_t)(count * n) * 5 / 4);
    assert_true(p.mappings <= (n < 1000000 ? 20 : 6));
    shuffle(at, count, order);
    for (size_t i = 0; i < count; i++) {
        tq_pool_free(&p, at[i]);
        if (i % 16 == 0) {
            int64_t now = resident();

            assert_true(!RSS_IS_OURS || last - now <= 16 * piece);
            last = now;
        }
    }
    assert_true(!RSS_IS_OURS || resident() - before < (int64_t)TQ_POOL_WARM_BYTES + (int64_t)MIB);
    assert_true(p.warm_bytes <= TQ_POOL_WARM_BYTES);
    assert_empty(&p);
    assert_true(!RSS_IS_OURS || resident() - before < (int64_t)MIB);
    free(at);
}

static void test_a_backlog_goes_back_in_small_pieces(void **state)
{
    (void)state;
    rng_state = 362436069;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int order = 0; order < ORDERS; order++)
            one_backlog(sizes[i], order);
}

/* No single call gives up more than one piece for what it frees. */
static void test_one_call_asks_the_system_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t count = 32 * MIB / sizes[i];
        unsigned char **at = malloc(count * sizeof(*at));
        struct tq_pool p = {0};

        assert_non_null(at);
        for (size_t k = 0; k < count; k++)
            at[k] = tq_pool_alloc(&p, sizes[i]);
        for (size_t k = 0; k < count; k++) {
            uint64_t before = p.system_calls;

            assert_non_null(at[k]);
            tq_pool_free(&p, at[k]);
            assert_true(p.system_calls - before <= 1);
        }
        assert_empty(&p);
        free(at);
    }
}

static void test_taken_and_given_in_turn_asks_the_system_for_nothing(void **state)
{
    static const size_t all[] = {1,     500,    3100,    16413,   20473,
                                 65600, 262144, 1048600, 4 * MIB, TQ_POOL_RUN_MAX_BYTES};

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        unsigned depth = all[i] <= 1048600 ? 3 : 1; /* all of them fit into what is kept */
        struct tq_pool p = {0};
        void *standing = tq_pool_alloc(&p, all[i]), *at[3];
        uint64_t calls = 0;

        for (unsigned k = 0; k < 1000; k++) {
            for (unsigned d = 0; d < depth; d++)
                at[d] = tq_pool_alloc(&p, all[i]);
            for (unsigned d = 0; d < depth; d++) {
                assert_non_null(at[d]);
                tq_pool_free(&p, at[d]);
            }
            if (k == 0)
                calls = p.system_calls;
        }
        assert_int_equal(p.system_calls, calls);
        tq_pool_free(&p, standing);
        assert_empty(&p);
    }
}

/* The system allows 65,530 of them: so many bodies of any size up to 16 GiB in all have their place. */
static void test_mappings_are_few(void **state)
{
    static unsigned char *at[1000];
    struct tq_pool p = {0};

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        at[i] = tq_pool_alloc(&p, 65600);
        assert_non_null(at[i]);
    }
    assert_true(p.mappings <= 1000 / 64 + 1);
    for (unsigned i = 0; i < 1000; i += 2)
        tq_pool_free(&p, at[i]);
    assert_true(p.mappings <= 1000 / 64 + 1);
    for (unsigned i = 1; i < 1000; i += 2)
        tq_pool_free(&p, at[i]);
    assert_empty(&p);
}

/* ---- without memory ---- */

static void test_without_memory_nothing_is_lost(void **state)
{
    static const size_t all[] = {100, 3100, 65600, 1048600, OWN_BYTES};

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct tq_pool p = {0};
        unsigned long before;
        unsigned char *at = NULL, *second;
        long failed = 0;

        for (; at == NULL; failed++) {
            tq_mem_fail_after(failed, 1);
            at = tq_pool_alloc(&p, all[i]);
            tq_mem_fail_after(-1, 0);
            if (at == NULL)
                assert_empty(&p);
        }
        assert_true(failed > 2); /* its own, and the mapping's */
        fill(at, all[i], 1);
        before = tq_mem_count();
        tq_mem_fail_after(0, 1);
        assert_null(tq_pool_alloc(&p, all[i]));
        assert_int_equal(tq_mem_count() - before, 1);
        second = tq_pool_alloc(&p, all[i]);
        assert_non_null(second);
        fill(second, all[i], 2);
        check(at, all[i], 1);
        tq_pool_free(&p, at);
        tq_pool_free(&p, second);
        assert_empty(&p);
    }
}

/* ---- misuse ---- */

static void misuse(struct tq_pool *p, unsigned what)
{
    static const size_t of[] = {100, 16413, 65600};
    unsigned char *at = tq_pool_alloc(p, of[what % 3]), *other = tq_pool_alloc(p, of[what % 3]);

    if (what < 3) { /* freed twice */
        tq_pool_free(p, at);
        tq_pool_free(p, at);
    } else if (what < 6) { /* in the middle of it */
        memset(at, 0xff, 64);
        tq_pool_free(p, at + 16);
    } else if (what == 6) {
        tq_pool_alloc(p, 0);
    }
#ifdef TQ_MEM_POISON
    if (what >= 7 && what < 10) /* used after it was freed */
        tq_pool_free(p, at), at[40] = 1;
    else if (what >= 10) /* beyond its end */
        at[of[what % 3] + 8] = 1;
#endif
    (void)other;
}

static void test_misuse_ends_the_process(void **state)
{
#ifdef TQ_MEM_POISON
    const unsigned kinds = 13;
#else
    const unsigned kinds = 7;
#endif

    (void)state;
    for (unsigned what = 0; what < kinds; what++) {
        int status = 0;
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            struct tq_pool p = {0};

            signal(SIGABRT, SIG_DFL); /* not cmocka's */
            close(STDERR_FILENO);
            misuse(&p, what);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status == 0)
            fail_msg("misuse %u was not noticed", what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size_has_a_place_of_its_own),
        cmocka_unit_test(test_it_does_what_an_array_does),
        cmocka_unit_test(test_a_backlog_goes_back_in_small_pieces),
        cmocka_unit_test(test_one_call_asks_the_system_once),
        cmocka_unit_test(test_taken_and_given_in_turn_asks_the_system_for_nothing),
        cmocka_unit_test(test_mappings_are_few),
        cmocka_unit_test(test_without_memory_nothing_is_lost),
        cmocka_unit_test(test_misuse_ends_the_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
