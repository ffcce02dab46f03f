/* The store and the room on the disk: old segments are emptied a little at a time, the disk has at most twice
 * what lives and two segments, and a full one stops new work and nothing else. */
#include "tests/lib/effort.h"
#include "tests/unit/store_rig.h"

#define BATCH 20

static void done_all(struct store_rig *g)
{
    for (size_t i = 0; i < g->bulk.got_count; i++)
        bulk_done(g, &g->bulk.got[i]);
}

/* What the disk remembers for crashes is not wanted here. */
static void forget_history(struct store_rig *g)
{
    fake_fs_put(g->fs, "history", "", 0);
}

static void assert_bound(struct store_rig *g, unsigned segments)
{
    struct store_status s = status(g);

    if (s.log.disk_bytes > 2 * s.live_bytes + (uint64_t)segments * SEGMENT_BYTES)
        fail_msg("the disk has %llu bytes for %llu that live (segments %llu to %llu, %llu spare ones)",
                 (unsigned long long)s.log.disk_bytes, (unsigned long long)s.live_bytes,
                 (unsigned long long)s.log.first_segment, (unsigned long long)s.log.last_segment,
                 (unsigned long long)s.log.spares);
}

static unsigned at_most = 3; /* segments beside twice what lives, at any moment */

/* A turn and what the disk does of it: while a segment is emptied, there may be one more. */
static void tick(struct store_rig *g)
{
    g->r.now_ms++;
    do {
        turn(g);
        assert_bound(g, at_most);
    } while (run_job(g));
}

/* Time goes on until nothing is left to be done. */
static void rest(struct store_rig *g)
{
    for (unsigned turns = 0;; turns++) {
        uint64_t next = store_next_ms(g->st);

        if (next == UINT64_MAX && g->job == NULL)
            return;
        if (next != UINT64_MAX && next > g->r.now_ms)
            g->r.now_ms = next;
        turn(g);
        (void)run_job(g);
        assert_true(turns < 5000);
    }
}

/* Puts and completions, results taken for good: all goes that comes, each step in a turn of its own. */
static void cycle(struct store_rig *g, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        bulk_put(g, "task_queue");
    tick(g);
    assert_int_equal(bulk_get(g, "task_queue", n, false), n);
    tick(g);
    done_all(g);
    tick(g);
    assert_int_equal(bulk_get(g, "result_queue", n, true), n);
    tick(g);
}

/* Tasks that stay for long among each so many others, `most` of them. */
static void load(struct store_rig *g, unsigned cycles, unsigned most)
{
    for (unsigned i = 0; i < cycles; i += BATCH) {
        if (i / BATCH % 4 == 0 && most > 0) {
            for (unsigned k = 0; k < 10; k++)
                bulk_put(g, "long");
            bulk_get(g, "long", 10, true);
        }
        cycle(g, BATCH);
        if (i % 1000 == 0)
            forget_history(g);
    }
}

static void a_long_load_keeps_the_bound(void **state)
{
    /* What lives is nothing, less than a segment, about one, several, many. */
    static const unsigned most[] = {0, 200, 600, 2000, 10000};

    (void)state;
    for (size_t i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
        struct store_rig *g = rig_new();
        struct store_status s;

        g->conf.move_budget = 60;
        start(g);
        (void)client(&g->r, "worker"); /* whose session is recorded, and moves like all else */
        declare_queue(g, "long", NULL);
        for (unsigned k = 0; k < most[i]; k++) {
            bulk_put(g, "long");
            if (k % 50 == 0)
                flush(g);
        }
        flush(g);
        load(g, EFFORT(40000, 4000), most[i]);
        rest(g);
        s = status(g);
        assert_bound(g, 2);
        assert_int_equal(s.live_tasks, most[i]);
        assert_true(s.log.last_segment >= EFFORT(20, 2));
        kill_it(g);
        start(g);
        assert_int_equal(size_of(g, "long"), most[i]);
        assert_int_equal(g->report.tasks, most[i]);
        assert_int_equal(g->report.sessions, 1);
        rig_free(g);
    }
}

/* Segments as they are by default, but for a smaller unit: with little that lives, two files are all. */
static void little_takes_two_segments(void **state)
{
    struct store_rig *g = rig_new();
    struct store_status s;

    (void)state;
    g->conf.log.segment_bytes = 1u << 20;
    g->conf.log.group_bytes = 512u << 10;
    start(g);
    for (unsigned i = 0; i < EFFORT(60000, 6000); i += 100) {
        for (unsigned k = 0; k < 100; k++)
            bulk_put(g, "task_queue");
        flush(g);
        (void)bulk_get(g, "task_queue", 100, false);
        done_all(g);
        flush(g);
        (void)bulk_get(g, "result_queue", 100, true);
        flush(g);
        s = status(g);
        assert_true(s.log.disk_bytes <= 3u << 20);
        if (i % 1000 == 0)
            forget_history(g);
    }
    rest(g);
    s = status(g);
    assert_true(s.log.last_segment >= EFFORT(8, 1));
    assert_true(s.log.disk_bytes <= 2u << 20);
    rig_free(g);
}

/* Nothing that stays in an old segment holds it for ever, though nothing new comes: the log gets shorter, in
 * the end it is quiet. */
static void after_a_burst_the_log_gets_shorter(void **state)
{
    struct store_rig *g = rig_new();
    struct store_status s;

    (void)state;
    start(g);
    declare_queue(g, "long", NULL);
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned k = 0; k < 50; k++)
            bulk_put(g, k == 0 ? "long" : "task_queue");
        turn(g); /* the disk is slow: all this is before the first word of it */
    }
    while (bulk_get(g, "task_queue", 1000, true) > 0)
        turn(g);
    while (run_job(g))
        ;
    rest(g);
    s = status(g);
    assert_int_equal(s.live_tasks, 200);
    assert_true(s.log.first_segment > 10);
    assert_bound(g, 2);
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    assert_int_equal(size_of(g, "long"), 200);
    rig_free(g);
}

/* What is moved has its price, and a limit: so much for each byte that is new. Nothing new, nothing moved. */
static void moving_has_its_price(void **state)
{
    struct store_rig *g = rig_new();
    struct store_status before, after;
    uint64_t moved, fresh;

    (void)state;
    start(g);
    declare_queue(g, "long", NULL);
    for (unsigned i = 0; i < 3000; i++) {
        bulk_put_len(g, "long", i % 7); /* little ones: what is said of them weighs most */
        if (i % 100 == 0)
            flush(g);
    }
    flush(g);
    before = status(g);
    for (unsigned i = 0; i < 3000; i++) {
        if (i % 10 == 0)
            cycle(g, 1);
        g->r.now_ms += 100;
        flush(g);
    }
    rest(g);
    after = status(g);
    moved = after.moved_bytes - before.moved_bytes;
    fresh = after.log.bytes - before.log.bytes - moved;
    assert_true(moved < 6 * fresh + before.live_bytes);
    for (unsigned i = 0; i < 3000; i++) {
        g->r.now_ms += 100;
        flush(g);
        assert_int_equal(status(g).moved_bytes, after.moved_bytes);
    }
    rig_free(g);
}

/* No turn does more than it may: not of looking, and not of writing. */
static void a_slice_is_a_slice(void **state)
{
    struct store_rig *g = rig_new();
    struct store_status before, after;
    unsigned slices = 0;

    (void)state;
    g->conf.move_budget = 64;
    start(g);
    declare_queue(g, "long", NULL);
    for (unsigned i = 0; i < 4000; i++) {
        bulk_put(g, i % 2 == 0 ? "long" : "task_queue");
        if (i % 100 == 0)
            flush(g);
    }
    while (bulk_get(g, "task_queue", 100, true) > 0)
        turn(g);
    for (unsigned i = 0; i < 4000; i++) {
        before = status(g);
        g->r.now_ms += 10;
        turn(g);
        after = status(g);
        assert_true(after.moved_bytes - before.moved_bytes <= 64ull * 200);
        assert_true(after.log.bytes - before.log.bytes <= 64ull * 200 + 1000);
        slices += after.moved_bytes > before.moved_bytes;
        (void)run_job(g);
    }
    assert_true(slices > 10);
    assert_int_equal(status(g).live_tasks, 2000);
    assert_bound(g, 2);
    rig_free(g);
}

/* Bodies above a segment's size have one of their own, and that goes again, too. */
static void large_records(void **state)
{
    struct store_rig *g = rig_new();
    struct store_status s;
    uint64_t id;

    (void)state;
    start(g);
    declare_queue(g, "long", NULL);
    id = bulk_put_len(g, "long", 5 * SEGMENT_BYTES);
    flush(g);
    for (unsigned i = 0; i < 30; i++) {
        bulk_put_len(g, "task_queue", (i % 4 + 1) * SEGMENT_BYTES);
        flush(g);
        assert_int_equal(bulk_get(g, "task_queue", 1, true), 1);
        g->r.now_ms += 1500;
        flush(g);
    }
    for (unsigned i = 0; i < 20; i++) {
        g->r.now_ms += 1500;
        flush(g);
    }
    s = status(g);
    assert_true(s.log.disk_bytes < 8 * SEGMENT_BYTES + s.live_bytes);
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    assert_int_equal(g->report.tasks, 1);
    assert_int_equal(bulk_get(g, "long", 1, false), 1);
    assert_int_equal(g->bulk.got[0].id, id);
    rig_free(g);
}

/* ---- a full disk ---- */

static void fill_with(struct store_rig *g, const char *name, size_t bytes)
{
    for (unsigned i = 0; i < 100000 && !g->refused; i++) {
        bulk_put_len(g, name, bytes);
        if (i % 10 == 0)
            flush(g);
    }
    assert_true(g->refused);
    flush(g);
}

static void fill(struct store_rig *g, const char *name)
{
    fill_with(g, name, 100);
}

/* All that was accepted is done, though there is no room for new work; one by one, which takes most. */
static void a_full_disk_lets_completions_through(void **state)
{
    struct store_rig *g = rig_new();
    struct native_client *c;
    struct log_need need;
    uint64_t tasks;

    (void)state;
    fake_fs_set_capacity(g->fs, 12 * SEGMENT_BYTES);
    start(g);
    fill(g, "task_queue");
    c = client(&g->r, "");
    say(c, "[0,1,'put',{q:'task_queue',tasks:[[1]]}]");
    hear_error(c, 1, "no_space", "");
    tasks = size_of(g, "task_queue");
    assert_true(tasks > 1000);
    for (uint64_t i = 0; i < tasks; i++) {
        assert_int_equal(bulk_get(g, "task_queue", 1, false), 1);
        done_all(g);
        assert_int_equal(bulk_get(g, "result_queue", 1, true), 1);
        turn(g);
        need = store_need(g->st);
        while (run_job(g))
            turn(g);
        if (!store_is_met(g->st, need))
            fail_msg("after %llu of %llu completions there is no room", (unsigned long long)i,
                     (unsigned long long)tasks);
        if (i % 1000 == 0)
            forget_history(g);
    }
    for (unsigned i = 0; i < 10 && g->refused; i++) { /* it looks again now and then */
        g->r.now_ms += 2000;
        flush(g);
    }
    assert_false(g->refused);
    say(c, "[0,2,'put',{q:'task_queue',tasks:[[1]]}]");
    hear(c, "[1,2,nil,{ids:*}]");
    flush(g);
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    assert_int_equal(g->report.tasks, 1);
    rig_free(g);
}

/* What ends nothing is written, too: room for that comes back from what it leaves. */
static void hand_out_for_ever(size_t fill_bytes)
{
    struct store_rig *g = rig_new();

    g->conf.move_budget = 2000;
    g->conf.log.group_bytes = SEGMENT_BYTES / 2;
    fake_fs_set_capacity(g->fs, (fill_bytes == 100 ? 12 : 48) * SEGMENT_BYTES);
    start(g);
    fill_with(g, "task_queue", fill_bytes);
    fake_fs_set_capacity(g->fs, fake_fs_used(g->fs)); /* others have taken the rest */
    for (unsigned i = 0; i < EFFORT(1000, 100); i++) {
        struct broker_event ev = {.kind = BROKER_RELEASE};

        assert_int_equal(bulk_get(g, "task_queue", 200, false), 200);
        turn(g);
        for (size_t k = 0; k < 200; k++) {
            ev.id = g->bulk.got[k].id;
            ev.epoch = g->bulk.got[k].epoch;
            bulk_step(g, &ev);
        }
        turn(g);
        for (unsigned turns = 0; store_is_busy(g->st); turns++) {
            if (turns > 1000)
                fail_msg("after %u hand-outs nobody is listened to any more", i);
            g->r.now_ms++;
            (void)run_job(g);
            turn(g);
        }
        g->r.now_ms++;
        (void)run_job(g);
        if (i % 20 == 0) {
            struct log_need need = store_need(g->st);

            flush(g);
            if (!store_is_met(g->st, need))
                fail_msg("after %u hand-outs nothing is told any more", i);
            forget_history(g);
        }
    }
    rig_free(g);
}

static void a_full_disk_takes_hand_outs_for_ever(void **state)
{
    (void)state;
    hand_out_for_ever(100);
    hand_out_for_ever(1000);
}

static void room_that_comes_back_is_found(void **state)
{
    struct store_rig *g = rig_new();
    struct native_client *c;
    uint64_t tasks;

    (void)state;
    fake_fs_set_capacity(g->fs, 8 * SEGMENT_BYTES);
    start(g);
    fill(g, "task_queue");
    c = client(&g->r, "");
    say(c, "[0,1,'put',{q:'task_queue',tasks:[[1]],wait_ms:-1}]");
    hear_nothing(c);
    tasks = size_of(g, "task_queue");
    fake_fs_set_capacity(g->fs, 40 * SEGMENT_BYTES);
    assert_true(store_next_ms(g->st) != UINT64_MAX);
    for (unsigned i = 0; i < 10 && g->refused; i++) {
        g->r.now_ms = store_next_ms(g->st) > g->r.now_ms ? store_next_ms(g->st) : g->r.now_ms;
        flush(g);
    }
    assert_false(g->refused);
    hear(c, "[1,1,nil,{ids:*}]");
    kill_it(g);
    start(g);
    assert_int_equal(size_of(g, "task_queue"), tasks + 1);
    rig_free(g);
}

/* The disk is full of what has gone, which tasks that stay hold in place: there is room to move those. */
static void a_full_disk_is_emptied(void **state)
{
    struct store_rig *g = rig_new();
    unsigned long stay = 0;

    (void)state;
    fake_fs_set_capacity(g->fs, 12 * SEGMENT_BYTES);
    start(g);
    declare_queue(g, "long", NULL);
    for (unsigned i = 0; i < 100000 && !g->refused; i++) {
        bulk_put(g, i % 20 == 0 ? "long" : "task_queue");
        stay += i % 20 == 0 && g->bulk.last.outcome == BROKER_REPLY_OK;
        if (i % 10 == 0)
            flush(g);
    }
    assert_true(g->refused);
    while (bulk_get(g, "task_queue", 20, true) > 0) {
        g->r.now_ms++;
        flush(g);
    }
    for (unsigned i = 0; i < 100 && g->refused; i++) {
        g->r.now_ms += 1000;
        flush(g);
    }
    assert_false(g->refused);
    rest(g);
    assert_bound(g, 2);
    at_most = 4; /* and a spare one more, for what is reserved: the disk is small */
    for (unsigned i = 0; i < 100; i++) {
        cycle(g, 100);
        flush(g);
        assert_false(g->refused);
    }
    at_most = 3;
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    assert_int_equal(size_of(g, "long"), stay);
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_load_keeps_the_bound),
        cmocka_unit_test(little_takes_two_segments),
        cmocka_unit_test(after_a_burst_the_log_gets_shorter),
        cmocka_unit_test(moving_has_its_price),
        cmocka_unit_test(a_slice_is_a_slice),
        cmocka_unit_test(large_records),
        cmocka_unit_test(a_full_disk_lets_completions_through),
        cmocka_unit_test(a_full_disk_takes_hand_outs_for_ever),
        cmocka_unit_test(room_that_comes_back_is_found),
        cmocka_unit_test(a_full_disk_is_emptied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
