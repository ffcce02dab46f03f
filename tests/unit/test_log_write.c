/* Writing the log: groups, waits, rest, rotation, what is released, spares. Faults: test_log_faults.c. */
#include "tests/unit/log_rig.h"

#include "master/log/format_impl.h"

#define FIRST_LOG   "0000000000000001.log"
#define SECOND_LOG  "0000000000000002.log"
#define FIRST_SPARE "0000000000000001.spare"
#define NEXT_SPARE  "0000000000000002.spare"
#define HEAD_BYTES  (LOG_SEGMENT_HEADER_BYTES + 64u) /* and the record of the configuration */

static size_t len_of(const struct rig *r, const char *name)
{
    size_t len = 0;

    assert_non_null(fake_fs_bytes(r->fs, name, &len));
    return len;
}

/* The changes from `from` on, in words. */
static void expect_changes(const struct rig *r, size_t from, const char *const *want, size_t count)
{
    char text[FAKE_FS_TEXT_MAX];

    for (size_t i = 0; i < count; i++) {
        assert_true(from + i < fake_fs_point(r->fs));
        fake_fs_describe(r->fs, from + i, text);
        if (strncmp(text, want[i], strlen(want[i])) != 0)
            fail_msg("change %zu is \"%s\", not \"%s\"", i, text, want[i]);
    }
}

/* ---- beginning ---- */

static void test_the_first_start(void **state)
{
    static const char *const changes[] = {
        "create 0000000000000001.spare",
        "sync_dir",
        "create 0000000000000002.spare",
        "sync_dir",
        "resize  inode 0 offset 65536",
        "write  inode 0 offset 0 len 192",
        "sync  inode 0",
        "rename 0000000000000001.spare -> 0000000000000001.log",
        "sync_dir",
    };
    struct log_record_header h;
    struct tq_span payload;
    const uint8_t *bytes;
    const char *why;
    struct rig r;
    size_t len;

    (void)state;
    rig_init(&r);
    expect_changes(&r, 0, changes, sizeof(changes) / sizeof(changes[0]));
    assert_int_equal(fake_fs_count(r.fs), 2);
    assert_int_equal(len_of(&r, NEXT_SPARE), 0);
    bytes = fake_fs_bytes(r.fs, FIRST_LOG, &len);
    assert_non_null(bytes);
    assert_int_equal(len, RIG_SEGMENT);
    assert_int_equal(log_record_get(tq_span(bytes + LOG_SEGMENT_HEADER_BYTES, len - LOG_SEGMENT_HEADER_BYTES),
                                    log_seed((const uint8_t[16]){1, 2, 3, 4}, 1), &h, &payload, &why),
                     TQ_OK);
    assert_int_equal(h.type, LOG_CONFIG);
    assert_int_equal(h.index, 1);
    assert_int_equal(payload.len, 20);
    assert_memory_equal(payload.data, ((const uint8_t[]){1, 0, 0, 0, 1, 2, 3, 4}), 8);
    assert_int_equal(rig_status(&r).next_index, 2);
    assert_int_equal(rig_status(&r).synced, 1);
    assert_int_equal(log_segment(r.log), 1);
    rig_end(&r);
    rig_open(&r); /* and the second */
    assert_int_equal(rig_status(&r).next_index, 2);
    assert_int_equal(rig_status(&r).written, 1);
    rig_deinit(&r);
}

static void test_a_start_that_was_cut_off(void **state)
{
    struct rig r = {.fs = fake_fs_new(), .now_ms = 5000};

    (void)state;
    fake_fs_put(r.fs, FIRST_SPARE, "half a header", 13);
    fake_fs_put(r.fs, NEXT_SPARE, "", 0);
    fake_fs_put(r.fs, "0000000000000003.spare", "x", 1);
    fake_fs_put(r.fs, "notes.txt", "mine", 4);
    rig_open(&r);
    assert_true(fake_fs_has(r.fs, FIRST_LOG));
    assert_false(fake_fs_has(r.fs, FIRST_SPARE));
    assert_false(fake_fs_has(r.fs, "0000000000000003.spare"));
    assert_true(fake_fs_has(r.fs, "notes.txt"));
    rig_expect_readable(&r, 2, 0);
    rig_deinit(&r);
}

/* ---- groups ---- */

static void test_one_group_is_on_its_way_and_one_fills(void **state)
{
    unsigned long writes, syncs;
    struct log_need first, second;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    writes = fake_fs_calls(r.fs, FAKE_FS_WRITE);
    syncs = fake_fs_calls(r.fs, FAKE_FS_SYNC);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_int_equal(rig_put(&r, 100, LOG_SYNCED), 2);
    assert_int_equal(rig_put(&r, 1, LOG_WRITTEN), 3);
    assert_int_equal(rig_put(&r, 1000, LOG_NO_WAIT), 4);
    first = log_need_now(r.log);
    assert_int_equal(first.synced, 2);
    assert_int_equal(first.written, 3);
    assert_null(r.job);
    assert_int_equal(rig_status(&r).pending_bytes, 144 + 48 + 1040);
    rig_kick(&r);
    assert_non_null(r.job);
    for (int i = 0; i < 100; i++)
        rig_put(&r, 10, LOG_SYNCED);
    rig_kick(&r); /* nothing: one at a time */
    second = log_need_now(r.log);
    assert_int_equal(second.synced, 104);
    assert_int_equal(r.submits, 2); /* the first was for a spare's name */
    assert_false(log_is_met(r.log, first));
    r.progress = 0;
    assert_true(rig_run(&r));
    assert_int_equal(r.progress, 1);
    assert_true(r.submitted_first); /* the disk does not wait for replies to be sent */
    assert_true(log_is_met(r.log, first));
    assert_false(log_is_met(r.log, second));
    assert_int_equal(rig_status(&r).pending_bytes, 100 * 56);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_WRITE), writes + 1);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_SYNC), syncs + 1);
    rig_run(&r);
    assert_null(r.job);
    assert_true(log_is_met(r.log, second));
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_WRITE), writes + 2);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_SYNC), syncs + 2);
    assert_int_equal(rig_status(&r).groups, 2);
    assert_int_equal(rig_status(&r).records, 103);
    assert_int_equal(rig_status(&r).syncs, 2);
    assert_int_equal(rig_status(&r).sync_ns_last, 10);
    rig_expect_readable(&r, 105, 103);
    rig_deinit(&r);
}

static void test_records_are_cancelled_and_empty_ones_are_none(void **state)
{
    uint64_t index = 99;
    struct tq_buf *buf;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    assert_non_null(log_begin(r.log));
    assert_int_equal(log_commit(r.log, LOG_OPS, LOG_SYNCED, &index), TQ_OK);
    assert_int_equal(index, 0);
    buf = log_begin(r.log);
    assert_int_equal(tq_buf_append_str(buf, "never mind"), TQ_OK);
    assert_int_equal(rig_status(&r).pending_bytes, 0);
    log_cancel(r.log);
    rig_kick(&r);
    assert_null(r.job);
    rig_put(&r, 10, LOG_NO_WAIT);
    buf = log_begin(r.log);
    assert_int_equal(tq_buf_append_str(buf, "never mind"), TQ_OK);
    log_cancel(r.log);
    assert_int_equal(rig_put(&r, 20, LOG_SYNCED), 3);
    rig_settle(&r);
    rig_expect_readable(&r, 4, 2);
    rig_deinit(&r);
}

static void test_busy_above_a_group(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    rig_put(&r, 15000, LOG_SYNCED);
    rig_kick(&r);
    rig_put(&r, 14000, LOG_SYNCED);
    assert_false(log_is_busy(r.log));
    rig_put(&r, 1000, LOG_SYNCED);
    assert_true(log_is_busy(r.log));
    assert_true(rig_status(&r).busy);
    rig_run(&r);
    assert_false(log_is_busy(r.log));
    rig_settle(&r);
    assert_int_equal(rig_status(&r).pending_bytes, 0);
    rig_deinit(&r);
}

static void test_a_large_buffer_is_given_back(void **state)
{
    unsigned long before;
    struct rig r;

    (void)state;
    rig_init(&r);
    for (int i = 0; i < 40; i++)
        rig_put(&r, 100000, LOG_NO_WAIT);
    rig_settle(&r);
    before = tq_mem_count();
    for (int i = 0; i < 4; i++) { /* twice each of the two */
        rig_put(&r, 10, LOG_SYNCED);
        rig_settle(&r);
    }
    assert_true(tq_mem_count() > before); /* one has begun anew */
    rig_deinit(&r);
}

/* ---- waits and rest ---- */

static void test_who_waits_for_nothing_or_a_write_has_no_sync(void **state)
{
    unsigned long syncs;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_put(&r, 1, LOG_SYNCED);
    rig_settle(&r);
    syncs = fake_fs_calls(r.fs, FAKE_FS_SYNC);
    r.now_ms += 10;
    rig_put(&r, 10, LOG_WRITTEN);
    rig_kick(&r);
    r.now_ms += 5;
    rig_run(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_int_equal(rig_status(&r).written, 3);
    assert_int_equal(rig_status(&r).synced, 2);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_SYNC), syncs);
    assert_int_equal(log_next_ms(r.log), r.now_ms + RIG_INTERVAL);
    r.now_ms += 500;
    rig_put(&r, 10, LOG_NO_WAIT);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).written, 4);
    assert_int_equal(log_next_ms(r.log), r.now_ms + 500); /* the first of them counts */
    r.now_ms += 499;
    rig_kick(&r);
    assert_null(r.job);
    r.now_ms++;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).synced, 4);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_SYNC), syncs + 1);
    rig_put(&r, 10, LOG_NO_WAIT); /* or it comes with the next one that asks */
    rig_settle(&r);
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).synced, 6);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_SYNC), syncs + 2);
    rig_deinit(&r);
}

static void test_written_is_told_before_the_sync(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    r.tell_early = true;
    rig_put(&r, 10, LOG_SYNCED);
    rig_put(&r, 10, LOG_WRITTEN);
    rig_put(&r, 10, LOG_SYNCED);
    rig_kick(&r);
    r.early = r.progress = 0;
    rig_run(&r);
    assert_int_equal(r.early, 1);
    assert_int_equal(r.progress, 2);
    assert_int_equal(r.at_early.written, 4);
    assert_int_equal(r.at_early.synced, 1);
    assert_int_equal(r.at_early.pending_bytes, 0);
    assert_int_equal(rig_status(&r).synced, 4);
    rig_put(&r, 10, LOG_SYNCED); /* nobody waits for less: one word is enough */
    rig_settle(&r);
    assert_int_equal(r.early, 1);
    rig_put(&r, 10, LOG_WRITTEN); /* and here it is the last word anyway */
    rig_settle(&r);
    assert_int_equal(r.early, 1);
    log_done(r.log, r.now_ms); /* once too often */
    assert_int_equal(rig_status(&r).written, 6);
    rig_deinit(&r);
}

static void test_a_mark_after_rest(void **state)
{
    struct log_state s;
    unsigned n;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    r.now_ms += 100;
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).synced, 2);
    assert_int_equal(log_next_ms(r.log), r.now_ms + RIG_INTERVAL);
    r.now_ms += 999;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).next_index, 3);
    r.now_ms += 1;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).next_index, 4);
    assert_int_equal(rig_status(&r).synced, 3);
    assert_true(log_next_ms(r.log) == UINT64_MAX); /* and that was that */
    r.now_ms += 100000;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).next_index, 4);
    assert_int_equal(rig_read(r.fs, &s, &n), TQ_OK);
    assert_int_equal(s.synced, 2);
    assert_int_equal(n, 1);
    log_state_deinit(&s);
    rig_deinit(&r);
}

static void test_a_stop_in_good_order(void **state)
{
    struct log_state s;
    uint64_t index;
    unsigned n;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_put(&r, 10, LOG_NO_WAIT);
    assert_int_equal(log_close_record(r.log, &index), TQ_OK);
    assert_int_equal(index, 3);
    assert_false(log_is_met(r.log, log_need_now(r.log)));
    rig_settle(&r);
    assert_int_equal(rig_status(&r).synced, 3);
    assert_int_equal(rig_try_put(&r, 10, LOG_SYNCED, &index), TQ_ECLOSED);
    log_release(r.log, 1);
    log_set_reserve(r.log, 1000000);
    r.now_ms += 10 * RIG_INTERVAL;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).next_index, 4);
    assert_true(log_next_ms(r.log) == UINT64_MAX);
    rig_end(&r);
    assert_int_equal(rig_read(r.fs, &s, &n), TQ_OK);
    assert_true(s.closed);
    assert_int_equal(s.cut_bytes, 0);
    log_state_deinit(&s);
    rig_open(&r);
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(rig_read(r.fs, &s, &n), TQ_OK);
    assert_false(s.closed);
    assert_int_equal(n, 2);
    log_state_deinit(&s);
    rig_deinit(&r);
}

/* ---- rotation ---- */

static void test_the_order_of_a_switch(void **state)
{
    static const char *const changes[] = {
        "write  inode 0 offset 40280 len 5040",
        "sync  inode 0",
        "write  inode 1 offset 0 len 128",
        "sync  inode 1",
        "rename 0000000000000002.spare -> 0000000000000002.log",
        "sync_dir",
        "write  inode 1 offset 128 len 26040",
        "sync  inode 1",
        /* and behind it, for the next time */
        "create 0000000000000004.spare",
        "sync_dir",
    };
    struct rig r;
    size_t from;

    (void)state;
    rig_init(&r);
    rig_put(&r, 40000, LOG_SYNCED);
    rig_settle(&r); /* a spare is ready when a group may not fit any more */
    assert_int_equal(len_of(&r, NEXT_SPARE), RIG_SEGMENT);
    rig_put(&r, 1, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(len_of(&r, "0000000000000003.spare"), 0);
    from = fake_fs_point(r.fs);
    rig_put(&r, 5000, LOG_SYNCED);
    rig_put(&r, 26000, LOG_SYNCED);
    assert_int_equal(log_segment(r.log), 2);
    assert_int_equal(rig_status(&r).last_segment, 2);
    rig_settle(&r);
    expect_changes(&r, from, changes, sizeof(changes) / sizeof(changes[0]));
    assert_int_equal(fake_fs_point(r.fs), from + sizeof(changes) / sizeof(changes[0]));
    assert_int_equal(rig_status(&r).synced, 5);
    assert_int_equal(rig_status(&r).first_segment, 1);
    assert_int_equal(rig_status(&r).used_bytes, 2 * RIG_SEGMENT);
    assert_int_equal(rig_status(&r).disk_bytes, 2 * RIG_SEGMENT);
    assert_int_equal(rig_status(&r).log_bytes, 64 + 40040 + 48 + 5040 + 26040);
    rig_expect_readable(&r, 6, 4);
    rig_deinit(&r);
}

static void test_a_switch_without_anything_ready(void **state)
{
    static const char *const changes[] = {
        "write  inode 0 offset 192 len 40040",
        "sync  inode 0",
        "create 0000000000000003.spare",
        "sync_dir",
        "resize  inode 1 offset 65536",
        "write  inode 1 offset 0 len 128",
        "sync  inode 1",
        "rename 0000000000000002.spare -> 0000000000000002.log",
        "sync_dir",
        "write  inode 1 offset 128 len 60040",
    };
    struct rig r;
    size_t from;

    (void)state;
    rig_init(&r);
    from = fake_fs_point(r.fs);
    rig_put(&r, 40000, LOG_NO_WAIT);
    rig_put(&r, 60000, LOG_NO_WAIT);
    rig_kick(&r);
    log_job_run(r.job);
    r.job = NULL;
    expect_changes(&r, from, changes, sizeof(changes) / sizeof(changes[0]));
    log_done(r.log, r.now_ms);
    assert_int_equal(rig_status(&r).written, 3);
    assert_int_equal(rig_status(&r).synced, 2); /* the first segment is */
    rig_deinit(&r);
}

static void test_the_edge_of_a_segment(void **state)
{
    const uint64_t room = RIG_SEGMENT - HEAD_BYTES;

    (void)state;
    for (int more = 0; more <= 1; more++) {
        struct rig r;

        rig_init(&r);
        assert_int_equal(rig_status(&r).room_bytes, room);
        rig_put(&r, rig_payload_of(room) + (size_t)more, LOG_SYNCED);
        assert_int_equal(log_segment(r.log), more ? 2 : 1);
        if (!more)
            assert_int_equal(rig_status(&r).room_bytes, 0);
        rig_put(&r, 1, LOG_SYNCED);
        assert_int_equal(log_segment(r.log), more ? 2 : 2);
        rig_settle(&r);
        rig_expect_readable(&r, 4, 2);
        rig_deinit(&r);
    }
}

static void test_a_record_larger_than_a_segment(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_put(&r, 10, LOG_SYNCED);
    rig_put(&r, 200000, LOG_SYNCED);
    assert_int_equal(log_segment(r.log), 2);
    rig_put(&r, 40000, LOG_SYNCED);
    assert_int_equal(log_segment(r.log), 3);
    rig_put(&r, RIG_SEGMENT - LOG_SEGMENT_HEADER_BYTES - LOG_RECORD_HEADER_BYTES,
            LOG_SYNCED); /* fits just so */
    rig_put(&r, RIG_SEGMENT - LOG_SEGMENT_HEADER_BYTES - LOG_RECORD_HEADER_BYTES + 1, LOG_SYNCED);
    assert_int_equal(log_segment(r.log), 5);
    rig_settle(&r);
    assert_int_equal(len_of(&r, SECOND_LOG), (LOG_SEGMENT_HEADER_BYTES + 200040 + 4095) / 4096 * 4096);
    assert_int_equal(len_of(&r, "0000000000000003.log"), RIG_SEGMENT);
    assert_int_equal(len_of(&r, "0000000000000004.log"), RIG_SEGMENT);
    assert_int_equal(len_of(&r, "0000000000000005.log"), RIG_SEGMENT + 4096);
    rig_expect_readable(&r, 7, 5);
    rig_deinit(&r);
}

/* ---- release, reserve ---- */

static void fill_segments(struct rig *r, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        rig_put(r, 60000, LOG_SYNCED);
    rig_settle(r);
}

static void test_what_is_released_is_used_again(void **state)
{
    uint64_t start_index;
    struct rig r;

    (void)state;
    rig_init(&r);
    fill_segments(&r, 3);
    assert_int_equal(log_segment(r.log), 3);
    assert_true(fake_fs_has(r.fs, FIRST_LOG));
    log_release(r.log, 2);
    log_release(r.log, 1); /* does not go back */
    start_index = rig_status(&r).next_index;
    rig_kick(&r);
    assert_int_equal(rig_status(&r).next_index, start_index + 1);
    rig_run(&r);
    assert_int_equal(rig_status(&r).written, start_index);
    assert_int_equal(rig_status(&r).first_segment, 1); /* not before that is on disk */
    assert_true(fake_fs_has(r.fs, FIRST_LOG));
    r.now_ms += RIG_INTERVAL;
    rig_settle(&r);
    assert_true(rig_status(&r).synced >= start_index);
    assert_int_equal(rig_status(&r).first_segment, 2);
    assert_false(fake_fs_has(r.fs, FIRST_LOG));
    assert_int_equal(rig_status(&r).spares, 1); /* there was one: the segment is nearly full. So it went */
    assert_int_equal(rig_status(&r).disk_bytes, 3 * RIG_SEGMENT);
    log_release(r.log, 99); /* but not the one that is written */
    rig_put(&r, 50000, LOG_SYNCED);
    rig_settle(&r);
    r.now_ms += RIG_INTERVAL;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).first_segment, 3);
    assert_int_equal(rig_status(&r).last_segment, 4);
    rig_expect_readable(&r, rig_status(&r).next_index, 2);
    rig_deinit(&r);
}

static void test_a_released_segment_becomes_the_spare_that_is_missing(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_put(&r, 60000, LOG_SYNCED);
    rig_settle(&r);
    rig_put(&r, 10000, LOG_SYNCED); /* the second segment is not nearly full: no spare is made */
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 0);
    log_release(r.log, 2);
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 1);
    assert_int_equal(rig_status(&r).disk_bytes, 2 * RIG_SEGMENT);
    assert_int_equal(fake_fs_calls(r.fs, FAKE_FS_REMOVE), 0);
    assert_int_equal(len_of(&r, "0000000000000003.spare"), RIG_SEGMENT);
    fill_segments(&r, 3); /* goes through the file with its old bytes, which mean nothing */
    rig_expect_readable(&r, rig_status(&r).next_index, 6);
    rig_end(&r);
    rig_open(&r);
    rig_deinit(&r);
}

static void test_the_reserve_is_held_ready(void **state)
{
    uint64_t room = RIG_SEGMENT - LOG_SEGMENT_HEADER_BYTES, rest = RIG_SEGMENT - HEAD_BYTES;
    uint64_t each = room / 8 * 7, here = (rest - RIG_GROUP) / 8 * 7; /* that count */
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 0);
    log_set_reserve(r.log, here); /* beside a group it just fits what is left */
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 0);
    log_set_reserve(r.log, here + 1);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 1);
    log_set_reserve(r.log, here + 3 * each);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 3);
    assert_int_equal(rig_status(&r).room_bytes, rest + 3 * room);
    log_set_reserve(r.log, here + 3 * each + 1);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 4);
    fill_segments(&r, 2); /* not even a group fits the rest */
    assert_int_equal(log_segment(r.log), 2);
    assert_int_equal(rig_status(&r).spares, 5);
    assert_false(rig_status(&r).no_space);
    log_set_reserve(r.log, 0);
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 1);
    assert_int_equal(rig_status(&r).disk_bytes, fake_fs_used(r.fs));
    assert_true(fake_fs_has(r.fs, "0000000000000004.spare")); /* for the name */
    rig_end(&r);
    rig_open(&r);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 1); /* it is found again */
    log_set_reserve(r.log, UINT64_MAX);         /* as much as anybody has */
    assert_true(log_next_ms(r.log) > 0);
    rig_deinit(&r);
}

static void test_segments_of_another_size(void **state)
{
    struct log_conf conf;
    char err[LOG_ERROR_MAX];
    struct rig r;

    (void)state;
    rig_init(&r);
    log_set_reserve(r.log, 50000);
    fill_segments(&r, 3);
    rig_end(&r);
    conf = rig_conf(&r);
    conf.segment_bytes = 2 * RIG_SEGMENT;
    assert_int_equal(rig_open_with(&r, &conf, err), TQ_OK);
    log_set_reserve(r.log, 50000);
    rig_put(&r, 100000, LOG_SYNCED);
    assert_int_equal(log_segment(r.log), 4);
    log_release(r.log, 4);
    rig_settle(&r);
    rig_put(&r, 10, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).first_segment, 4);
    assert_int_equal(rig_status(&r).used_bytes, 2 * RIG_SEGMENT);
    assert_int_equal(rig_status(&r).disk_bytes, rig_status(&r).spares * 2 * RIG_SEGMENT + 2 * RIG_SEGMENT);
    assert_int_equal(fake_fs_used(r.fs), rig_status(&r).disk_bytes); /* the small ones are gone */
    rig_end(&r);
    conf.segment_bytes = 1; /* as small as they may be */
    assert_int_equal(rig_open_with(&r, &conf, err), TQ_OK);
    rig_put(&r, 60000, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(len_of(&r, "0000000000000005.log"), LOG_SEGMENT_MIN_BYTES);
    rig_deinit(&r);
}

static void test_what_is_pinned_stays(void **state)
{
    struct log_pin pin;
    uint64_t next;
    struct rig r;

    (void)state;
    rig_init(&r);
    fill_segments(&r, 3);
    log_release(r.log, 2);
    rig_put(&r, 10, LOG_SYNCED);
    rig_kick(&r); /* the record that says so is on its way */
    log_pin(r.log, &pin);
    assert_int_equal(pin.first_segment, 1);
    assert_int_equal(pin.last_index, 4);
    log_release(r.log, 3);
    rig_settle(&r);
    r.now_ms += 2 * RIG_INTERVAL;
    rig_settle(&r);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).first_segment, 1);
    assert_true(fake_fs_has(r.fs, FIRST_LOG));
    next = rig_status(&r).next_index;
    log_unpin(r.log);
    rig_settle(&r); /* nothing else has to happen for it */
    assert_int_equal(rig_status(&r).first_segment, 2);
    assert_false(fake_fs_has(r.fs, FIRST_LOG));
    assert_int_equal(rig_status(&r).next_index, next + 1);
    r.now_ms += RIG_INTERVAL;
    rig_settle(&r);
    assert_int_equal(rig_status(&r).first_segment, 3);
    rig_deinit(&r);
}

static void test_spares_that_cannot_be_used_as_they_are(void **state)
{
    uint8_t zero[LOG_SEGMENT_HEADER_BYTES] = {0}, *big = calloc(1, RIG_SEGMENT);
    struct log_segment_header h = {
        .uuid = {1, 2, 3, 4}, .number = 2, .first_index = 2, .first_term = 1, .bytes = RIG_SEGMENT};
    struct rig r;

    (void)state;
    assert_non_null(big);
    rig_init(&r);
    rig_end(&r);
    log_segment_header_put(big, &h); /* a life to come, which a crash has cut off */
    memset(big + LOG_SEGMENT_HEADER_BYTES, 0x55, 1000);
    fake_fs_put(r.fs, NEXT_SPARE, big, RIG_SEGMENT);
    fake_fs_put(r.fs, "0000000000000003.spare", zero, sizeof(zero)); /* too small */
    fake_fs_put(r.fs, "0000000000000005.spare", zero, sizeof(zero)); /* behind a gap */
    rig_open(&r);
    assert_int_equal(len_of(&r, NEXT_SPARE), 0);
    assert_int_equal(len_of(&r, "0000000000000003.spare"), 0);
    assert_false(fake_fs_has(r.fs, "0000000000000005.spare"));
    rig_end(&r);
    h.number = 1; /* an old life: may stay, its records are none in the next one */
    log_segment_header_put(big, &h);
    fake_fs_put(r.fs, NEXT_SPARE, big, RIG_SEGMENT);
    rig_open(&r);
    assert_int_equal(len_of(&r, NEXT_SPARE), RIG_SEGMENT);
    assert_int_equal(rig_status(&r).spares, 1);
    fill_segments(&r, 2);
    rig_expect_readable(&r, 4, 2);
    rig_deinit(&r);
    free(big);
}

static void test_the_torn_end_is_overwritten(void **state)
{
    const uint8_t *bytes;
    struct log_state s;
    struct rig r;
    size_t len;
    unsigned n;

    (void)state;
    rig_init(&r);
    for (int i = 0; i < 3; i++)
        rig_put(&r, 300, LOG_WRITTEN);
    rig_settle(&r);
    rig_end(&r);
    fake_fs_flip(r.fs, FIRST_LOG, HEAD_BYTES + 344 + 100, 1); /* the second of them; the third is good */
    assert_int_equal(rig_read(r.fs, &s, &n), TQ_OK);
    assert_true(s.cut_bytes > 0);
    assert_int_equal(n, 1);
    log_state_deinit(&s);
    rig_open(&r);
    assert_int_equal(rig_status(&r).next_index, 3);
    bytes = fake_fs_bytes(r.fs, FIRST_LOG, &len);
    for (size_t i = HEAD_BYTES + 344; i < len; i++)
        assert_int_equal(bytes[i], 0);
    rig_put(&r, 300, LOG_SYNCED); /* where the second was: the third would follow */
    rig_settle(&r);
    rig_expect_readable(&r, 4, 2);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_start),
        cmocka_unit_test(test_a_start_that_was_cut_off),
        cmocka_unit_test(test_one_group_is_on_its_way_and_one_fills),
        cmocka_unit_test(test_records_are_cancelled_and_empty_ones_are_none),
        cmocka_unit_test(test_busy_above_a_group),
        cmocka_unit_test(test_a_large_buffer_is_given_back),
        cmocka_unit_test(test_who_waits_for_nothing_or_a_write_has_no_sync),
        cmocka_unit_test(test_written_is_told_before_the_sync),
        cmocka_unit_test(test_a_mark_after_rest),
        cmocka_unit_test(test_a_stop_in_good_order),
        cmocka_unit_test(test_the_order_of_a_switch),
        cmocka_unit_test(test_a_switch_without_anything_ready),
        cmocka_unit_test(test_the_edge_of_a_segment),
        cmocka_unit_test(test_a_record_larger_than_a_segment),
        cmocka_unit_test(test_what_is_released_is_used_again),
        cmocka_unit_test(test_a_released_segment_becomes_the_spare_that_is_missing),
        cmocka_unit_test(test_the_reserve_is_held_ready),
        cmocka_unit_test(test_segments_of_another_size),
        cmocka_unit_test(test_what_is_pinned_stays),
        cmocka_unit_test(test_spares_that_cannot_be_used_as_they_are),
        cmocka_unit_test(test_the_torn_end_is_overwritten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
