/* Ids: against plain arrays, over all heights of the tree, without memory; what they cost, alone and with a
 * slot each, and what is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/core/ids.h"
#include "master/core/slab.h"
#include "tests/lib/rss.h"

#define MIB (1 << 20)

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 16) % below);
}

static struct ids_stats stats_of(const struct ids *t)
{
    struct ids_stats st;

    ids_get_stats(t, &st);
    return st;
}

/* All ids that are there from `from` on, in one walk with as much budget. */
static uint64_t walk(const struct ids *t, uint64_t from)
{
    unsigned budget = 1000000;
    uint64_t resume = 1, id = ids_walk(t, from, &budget, &resume);

    assert_true(resume == 0);
    return id;
}

/* ---- the model: some windows of ids, of which the last one is where new ones come ---- */

#define WINDOWS 6u
#define WINDOW_IDS                                                                                           \
    70000u /* more than one node of leaves would be 262,144: windows lie across edges instead */
#define STEPS 400000u

struct window {
    uint64_t base;
    uint32_t slot[WINDOW_IDS]; /* SLAB_NONE: it is not there */
    uint64_t at_ms[WINDOW_IDS];
};

struct play {
    struct ids *t;
    struct window window[WINDOWS]; /* ascending, apart */
    uint64_t next;
    uint64_t count;
    uint64_t now_ms;
    uint64_t digest;
    uint64_t work; /* before the call */
};

static void work_is_bounded(struct play *p)
{
    uint64_t work = stats_of(p->t).work;

    assert_true(work - p->work <= IDS_CALL_WORK_MAX);
    p->work = work;
}

static uint32_t random_slot(void)
{
    return 1 + rng(UINT32_MAX);
}

static void play_add(struct play *p)
{
    struct window *w = &p->window[WINDOWS - 1];
    uint64_t i = p->next - w->base, id = 0;

    if (i == WINDOW_IDS)
        return;
    if (rng(40) == 0)
        p->now_ms += rng(3) == 0 ? rng(UINT32_MAX) : rng(5);
    w->slot[i] = random_slot();
    w->at_ms[i] = p->now_ms;
    assert_true(ids_next(p->t) == p->next);
    assert_int_equal(ids_add(p->t, w->slot[i], p->now_ms, &id), TQ_OK);
    assert_true(id == p->next);
    p->next++;
    p->count++;
}

/* Of a short run or of the whole of an older window; times go anywhere, but are often those of before. */
static void play_restore(struct play *p)
{
    struct window *w = &p->window[rng(WINDOWS)];
    uint32_t i = rng(2) == 0 ? rng(WINDOW_IDS) : rng(600);
    uint64_t id = w->base + i, at_ms = rng(2) == 0 ? 1000 + rng(4) : p->now_ms - rng(1000);
    int rv;

    if (rng(1000) == 0)
        at_ms = rng(2) == 0 ? IDS_MAX : 0;
    rv = ids_restore(p->t, id, 77, at_ms);
    if (id >= p->next) {
        assert_int_equal(rv, TQ_EINVAL);
    } else if (w->slot[i] != SLAB_NONE) {
        assert_int_equal(rv, TQ_EEXISTS);
    } else {
        assert_int_equal(rv, TQ_OK);
        w->slot[i] = 77;
        w->at_ms[i] = at_ms;
        p->count++;
    }
}

static void play_look(struct play *p, const struct window *w, uint32_t i)
{
    assert_int_equal(ids_find(p->t, w->base + i), w->slot[i]);
    if (w->slot[i] != SLAB_NONE)
        assert_true(ids_at_ms(p->t, w->base + i) == w->at_ms[i]);
}

static void play_change(struct play *p, struct window *w, uint32_t i, bool remove)
{
    play_look(p, w, i);
    if (w->slot[i] == SLAB_NONE)
        return;
    if (remove) {
        ids_remove(p->t, w->base + i);
        w->slot[i] = SLAB_NONE;
        p->count--;
    } else {
        w->slot[i] = random_slot();
        ids_move(p->t, w->base + i, w->slot[i]);
    }
}

static uint64_t model_from(const struct play *p, uint64_t from)
{
    for (size_t k = 0; k < WINDOWS; k++) {
        const struct window *w = &p->window[k];

        for (uint64_t i = from > w->base ? from - w->base : 0; i < WINDOW_IDS; i++)
            if (w->slot[i] != SLAB_NONE)
                return w->base + i;
    }
    return 0;
}

/* In pieces of random budgets, each of which gets somewhere. */
static void play_walk(struct play *p, uint64_t from)
{
    uint64_t want = model_from(p, from), id = 0, resume = from;

    while (resume != 0) {
        unsigned given = rng(5), budget = given;
        uint64_t now = resume;

        id = ids_walk(p->t, now, &budget, &resume);
        assert_true(budget <= given);
        assert_true(resume == 0 || (id == 0 && budget == 0 && (given == 0 || resume > now)));
        assert_true(resume >= now || resume == 0);
    }
    assert_true(id == want);
}

static void play_init(struct play *p, uint64_t seed)
{
    uint64_t base = 1 + rng(3);

    *p = (struct play){.now_ms = 5000000 + seed};
    for (size_t k = 0; k < WINDOWS; k++) {
        if (rng(2) == 0) /* across an edge of the tree */
            base += ((uint64_t)1 << (12 + 6 * rng(5))) - base % ((uint64_t)1 << 12) + 4096 * rng(2);
        p->window[k].base = base;
        base += WINDOW_IDS + ((uint64_t)rng(UINT32_MAX) << rng(18));
    }
    p->next = p->window[WINDOWS - 1].base + rng(300);
    p->t = ids_new(p->next);
    assert_non_null(p->t);
}

static void play_step(struct play *p, uint32_t adds)
{
    struct window *w = &p->window[rng(4) == 0 ? rng(WINDOWS) : WINDOWS - 1];
    uint32_t i = rng(3) == 0 ? rng(600) : rng(WINDOW_IDS);

    switch (rng(8)) {
    case 0:
        play_restore(p);
        break;
    case 1:
        play_change(p, w, i, false);
        break;
    case 2:
        if (rng(200) == 0)
            play_walk(p, rng(3) == 0 ? rng(1000) : w->base + i);
        play_look(p, w, i);
        break;
    case 3: /* never given out, or far away */
        assert_int_equal(ids_find(p->t, p->next + rng(100000)), SLAB_NONE);
        assert_int_equal(ids_find(p->t, (uint64_t)random_slot() << rng(32)), SLAB_NONE);
        break;
    default:
        if (rng(100) < adds)
            play_add(p);
        else
            play_change(p, w, i, true);
    }
    assert_true(ids_count(p->t) == p->count);
    work_is_bounded(p);
}

static uint64_t play_from_seed(uint64_t seed)
{
    static struct play p;
    uint32_t adds = 50;

    rng_state = seed * 0x9e3779b97f4a7c15u;
    play_init(&p, seed);
    for (size_t step = 0; step < STEPS; step++) {
        if (step % 5000 == 0) {
            adds = 20 + rng(70);
            p.digest = p.digest * 31 + ids_bytes(p.t) + stats_of(p.t).pieces + p.work;
        }
        play_step(&p, adds);
    }
    for (uint64_t id = 0, last = 0; (id = walk(p.t, last + 1)) != 0; last = id) /* all of them, in order */
        assert_true(id == model_from(&p, last + 1));
    for (size_t k = 0; k < WINDOWS; k++)
        for (uint32_t i = 0; i < WINDOW_IDS; i++)
            play_change(&p, &p.window[k], i, true);
    assert_true(ids_count(p.t) == 0 && p.count == 0);
    assert_true(walk(p.t, 1) == 0);
    assert_true(stats_of(p.t).pieces <= 3); /* the block of the next id */
    ids_free(p.t);
    return p.digest;
}

static void test_they_do_what_arrays_do(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        uint64_t digest = play_from_seed(seed);

        assert_true(seed > 1 || play_from_seed(seed) == digest);
    }
}

/* ---- edges ---- */

static void test_edges(void **state)
{
    struct ids *t = ids_new(1);
    uint64_t id = 0;

    (void)state;
    assert_non_null(t);
    assert_true(ids_next(t) == 1 && ids_count(t) == 0 && walk(t, 0) == 0);
    assert_int_equal(ids_find(t, 0), SLAB_NONE);
    assert_int_equal(ids_find(t, UINT64_MAX), SLAB_NONE);
    assert_int_equal(ids_restore(t, 1, 5, 0), TQ_EINVAL);
    assert_int_equal(ids_restore(t, 0, 5, 0), TQ_EINVAL);
    ids_free(t);

    t = ids_new(IDS_MAX);
    assert_int_equal(ids_add(t, 5, IDS_MAX, &id), TQ_OK);
    assert_true(id == IDS_MAX && ids_at_ms(t, id) == IDS_MAX);
    assert_int_equal(ids_add(t, 6, IDS_MAX, &id), TQ_ELIMIT);
    assert_int_equal(ids_restore(t, 1, 7, IDS_MAX + 1), TQ_EINVAL);
    assert_int_equal(ids_restore(t, 1, 7, 3), TQ_OK); /* the highest tree that there is */
    assert_int_equal(ids_restore(t, 1, 7, 3), TQ_EEXISTS);
    assert_int_equal(ids_restore(t, IDS_MAX + 1, 7, 3), TQ_EINVAL);
    assert_int_equal(ids_restore(t, UINT64_MAX, 7, 3), TQ_EINVAL);
    assert_true(walk(t, 0) == 1 && walk(t, 2) == IDS_MAX && walk(t, IDS_MAX) == IDS_MAX);
    assert_true(walk(t, IDS_MAX + 1) == 0 && walk(t, UINT64_MAX) == 0);
    assert_int_equal(ids_find(t, 1), 7);
    assert_int_equal(ids_find(t, IDS_MAX), 5);
    assert_int_equal(ids_find(t, IDS_MAX - 1), SLAB_NONE);
    assert_int_equal(ids_find(t, IDS_MAX + 2), SLAB_NONE); /* which is 1 in fewer bits */
    ids_remove(t, IDS_MAX);
    ids_remove(t, 1);
    assert_true(ids_count(t) == 0 && stats_of(t).pieces == 0);
    ids_free(t);
    ids_free(NULL);
}

/* Every id of a block restored with a time of its own, backwards and forwards, in the same and in mixed
 * order: each keeps its own. */
static void test_restored_times(void **state)
{
    static const unsigned steps[] = {1, 255, 77, 129, 3}; /* odd: all places are met once */
    const size_t orders = sizeof(steps) / sizeof(steps[0]);

    (void)state;
    for (size_t k = 0; k < 4 * orders; k++) {
        struct ids *t = ids_new(100000);
        uint64_t at[IDS_BLOCK], base = 90000 / IDS_BLOCK * IDS_BLOCK;

        rng_state = k + 1;
        for (unsigned i = 0; i < IDS_BLOCK; i++)
            at[i] = k / orders == 0 ? i : k / orders == 1 ? 1000 - i : rng(k / orders == 2 ? 3 : 1000000);
        for (unsigned i = 0, place = 9; i < IDS_BLOCK; i++, place = (place + steps[k % orders]) % IDS_BLOCK)
            assert_int_equal(ids_restore(t, base + place, 1 + i, at[place]), TQ_OK);
        for (unsigned i = 0; i < IDS_BLOCK; i++)
            assert_true(ids_at_ms(t, base + i) == at[i]);
        assert_int_equal(stats_of(t).pieces, 3); /* leaf, ids, marks */
        ids_free(t);
    }
}

/* ---- memory ---- */

/* Over blocks, leaves and nodes; at each allocation that fails nothing has changed, and then it works. */
static bool script(struct ids *t, uint64_t first)
{
    const uint64_t old[] = {1, first - 1, first - 256, first - 4096, first - 262144, first / 2, 70000, 3, 2};
    const size_t count = sizeof(old) / sizeof(old[0]);
    bool failed = false;

    for (uint64_t i = 0; i < 600 + 2 * count; i++) {
        bool adds = i < 600;
        uint64_t id = adds ? 0 : old[(i - 600) % count] + (i - 600) / count * 5, next = ids_next(t);
        uint64_t ids = ids_count(t), at_ms = adds ? 500 + i / 7 : 2 * i;
        struct ids_stats before = stats_of(t);
        int rv;

        id = !adds && id >= first ? first - 100000 - i : id;
        rv = adds ? ids_add(t, 1 + (uint32_t)i, at_ms, &id) : ids_restore(t, id, 1 + (uint32_t)i, at_ms);
        if (rv != TQ_OK) {
            assert_int_equal(rv, TQ_ENOMEM);
            assert_false(failed);
            failed = true;
            assert_true(ids_next(t) == next && ids_count(t) == ids);
            assert_true(stats_of(t).pieces == before.pieces);
            for (uint64_t k = 0; k < i && k < 600; k++)
                assert_int_equal(ids_find(t, first + k), 1 + k);
            rv = adds ? ids_add(t, 1 + (uint32_t)i, at_ms, &id) : ids_restore(t, id, 1 + (uint32_t)i, at_ms);
        }
        assert_int_equal(rv, TQ_OK);
        assert_int_equal(ids_find(t, id), 1 + i);
        assert_true(ids_at_ms(t, id) == at_ms);
        assert_true(!adds || id == next);
    }
    return failed;
}

static void test_without_memory_nothing_is_lost(void **state)
{
    static const uint64_t firsts[] = {600000, ((uint64_t)1 << 40) + 100, IDS_MAX - 1000};

    (void)state;
    for (long n = 0; n < 2; n++) {
        tq_mem_fail_after(n, 1);
        assert_null(ids_new(1));
    }
    tq_mem_fail_after(-1, 0);
    for (size_t k = 0; k < sizeof(firsts) / sizeof(firsts[0]); k++) {
        long n = 0;
        bool failed = true;

        for (; failed; n++) {
            struct ids *t = ids_new(firsts[k]);
            uint64_t id;

            tq_mem_fail_after(n, 1);
            failed = script(t, firsts[k]);
            tq_mem_fail_after(-1, 0);
            while ((id = walk(t, 1)) != 0)
                ids_remove(t, id);
            assert_true(ids_count(t) == 0 && stats_of(t).pieces <= 3);
            ids_free(t);
        }
        assert_true(n > 30);
    }
}

/* What a million tasks of 100 bytes with heads of 22 cost, and that it comes back. */
static void test_a_million_tasks(void **state)
{
    enum { COUNT = 1000000, TASK_BYTES = 122, DECI_BYTES_EACH = 1265, ROUNDS = 2 };
    struct slab *s = slab_new();
    struct ids *t = ids_new(1);
    struct slab_stats st;
    int64_t start, full, end, mapped;

    (void)state;
    rss_read(&start, &mapped);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t id = 0, first = ids_next(t);

        for (uint32_t i = 0; i < COUNT; i++) {
            uint32_t h = slab_take(s, TASK_BYTES);

            assert_int_not_equal(h, SLAB_NONE);
            memset(slab_at(s, h), (int)i, TASK_BYTES);
            assert_int_equal(ids_add(t, h, 1 + i / 1000, &id), TQ_OK); /* a million a second */
        }
        rss_read(&full, &mapped);
        slab_get_stats(s, &st);
        assert_true((st.mapped_bytes + ids_bytes(t)) * 10 <= (uint64_t)COUNT * DECI_BYTES_EACH);
        assert_true(!RSS_IS_OURS || (full - start) * 10 <= (int64_t)COUNT * DECI_BYTES_EACH);
        for (; first <= id; first++) {
            uint32_t h = ids_find(t, first);

            assert_int_not_equal(h, SLAB_NONE);
            ids_remove(t, first);
            slab_give(s, h);
        }
        rss_read(&end, &mapped);
        slab_get_stats(s, &st);
        assert_true(!RSS_IS_OURS || end - start < 2 * MIB);
        assert_true(!RSS_IS_OURS || full - end > (int64_t)COUNT * TASK_BYTES);
        assert_true(st.mapped_bytes + ids_bytes(t) < 2 * MIB);
    }
    ids_free(t);
    slab_free(s);
}

/* Of many blocks every tenth keeps one id, and just those blocks stay. */
static void test_a_straggler_keeps_its_block_only(void **state)
{
    enum { BLOCKS = 40000, KEEP = 10, PER_STRAGGLER_BYTES = 1600 };
    struct ids *t = ids_new(1);
    uint64_t full, id = 0, before;

    (void)state;
    for (uint32_t i = 0; i < BLOCKS * IDS_BLOCK; i++) {
        assert_int_equal(ids_add(t, 1 + i, 9, &id), TQ_OK);
        if (id > 100000) /* first in, first out */
            if ((id - 100000) % (KEEP * IDS_BLOCK) != 77)
                ids_remove(t, id - 100000);
    }
    full = ids_bytes(t);
    assert_true(ids_count(t) == 100000 + (id - 100000 - 77) / (KEEP * IDS_BLOCK) + 1);
    assert_true(full < ids_count(t) / 100000 * 600000 + BLOCKS / KEEP * PER_STRAGGLER_BYTES);
    for (before = id - 100000; before < id; before++)
        ids_remove(t, before + 1);
    assert_true(ids_bytes(t) < BLOCKS / KEEP * (uint64_t)PER_STRAGGLER_BYTES + MIB);
    for (uint64_t k = 77; k <= id - 100000; k += KEEP * IDS_BLOCK) {
        assert_true(walk(t, k - 76) == k);
        assert_int_equal(ids_find(t, k), k);
        ids_remove(t, k);
    }
    assert_true(ids_count(t) == 0 && stats_of(t).pieces <= 3);
    ids_free(t);
}

/* One task at a time: the block of the next id is not thrown away and made again each time. */
static void test_a_put_and_a_get_in_turn_are_cheap(void **state)
{
    enum { TURNS = 100 * IDS_BLOCK };
    struct ids *t = ids_new(1);
    uint64_t work, id = 0;

    (void)state;
    for (int i = 0; i < TURNS; i++) {
        assert_int_equal(ids_add(t, 5, 100, &id), TQ_OK);
        ids_remove(t, id);
    }
    work = stats_of(t).work;
    /* For each block: its ids are cleared, and a leaf is cleared and looked through. */
    assert_true(work <= (TURNS / IDS_BLOCK + 1) * (4 * IDS_BLOCK + 2 * 512));
    assert_true(stats_of(t).pieces <= 3);
    ids_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_they_do_what_arrays_do),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_restored_times),
        cmocka_unit_test(test_without_memory_nothing_is_lost),
        cmocka_unit_test(test_a_million_tasks),
        cmocka_unit_test(test_a_straggler_keeps_its_block_only),
        cmocka_unit_test(test_a_put_and_a_get_in_turn_are_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
