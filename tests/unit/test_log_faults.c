/* The log on a disk that fails, is full, or has no memory behind it. */
#include <malloc.h>

#include "tests/unit/log_rig.h"

#define CALLS_OF_A_RUN 400 /* more than a run has */

/* A run that has everything in it: groups, switches, an oversize record, what is released, spares, a mark, an
 * end. Stops at a failure. `wait`: what finds no room is waited for; was there any such time? */
static bool run_all(struct rig *r, bool wait)
{
    bool no_space_seen = false;
    uint64_t index;

    log_set_reserve(r->log, 50000);
    for (unsigned i = 0; i < 30; i++) {
        if (rig_status(r).failed)
            return false;
        assert_int_equal(
            rig_try_put(r, i == 20 ? 90000 : 300 + 1000 * (size_t)i, (enum log_wait)(i % 3), &index), TQ_OK);
        if (i % 7 == 5)
            log_release(r->log, log_segment(r->log));
        r->now_ms += i % 10 == 9 ? RIG_INTERVAL : 1;
        rig_settle(r);
        if (wait) {
            no_space_seen |= rig_status(r).no_space;
            r->now_ms += LOG_RETRY_MS;
            rig_settle(r);
        }
    }
    r->now_ms += RIG_INTERVAL;
    rig_settle(r);
    r->now_ms += RIG_INTERVAL;
    rig_settle(r);
    if (rig_status(r).failed)
        return false;
    assert_int_equal(log_close_record(r->log, &index), TQ_OK);
    rig_settle(r);
    return no_space_seen;
}

static bool is_closed(struct rig *r)
{
    struct log_status s = rig_status(r);

    return !s.failed && s.synced + 1 == s.next_index && log_is_met(r->log, log_need_now(r->log));
}

/* Nothing moves any more, whatever happens. */
static void expect_silence(struct rig *r)
{
    struct log_status s = rig_status(r), t;
    unsigned submits = r->submits;
    uint64_t index;

    assert_true(s.failed);
    assert_non_null(strstr(s.error, "played"));
    assert_true(log_next_ms(r->log) == UINT64_MAX);
    if (rig_try_put(r, 10, LOG_SYNCED, &index) != TQ_OK)
        assert_true(log_need_now(r->log).synced > s.synced); /* it was to be closed */
    r->now_ms += 100000;
    rig_kick(r);
    assert_null(r->job);
    log_done(r->log, r->now_ms);
    t = rig_status(r);
    assert_int_equal(r->submits, submits);
    assert_int_equal(t.written, s.written);
    assert_int_equal(t.synced, s.synced);
    assert_false(log_is_met(r->log, log_need_now(r->log)));
}

/* What was said to be on disk is there after the power has gone, in whatever way. */
static void expect_kept(struct rig *r, uint64_t written, uint64_t synced)
{
    uint64_t random = 88172645463325252u + synced;

    for (int loss = FAKE_FS_LOSE_ALL; loss <= FAKE_FS_LOSE_NAMES; loss++) {
        struct fake_fs *disk =
            fake_fs_power_cut(r->fs, fake_fs_point(r->fs), (enum fake_fs_loss)loss, &random);
        struct log_state s;
        unsigned n;

        assert_int_equal(rig_read(disk, &s, &n), TQ_OK);
        assert_true(s.next_index > synced);
        log_state_deinit(&s);
        fake_fs_free(disk);
    }
    rig_end(r);
    rig_open(r); /* and reading what is in the system's memory gives all that was written */
    assert_true(rig_status(r).next_index > written);
}

static void test_the_nth_call_fails_for_good(void **state)
{
    (void)state;
    for (int call = 0; call < FAKE_FS_CALLS; call++) {
        unsigned long failures = 0;

        for (long n = 0;; n++) {
            struct log_status s;
            struct rig r;

            assert_true(n < CALLS_OF_A_RUN);
            rig_init(&r);
            fake_fs_fail(r.fs, (enum fake_fs_call)call, n, 1, TQ_EIO);
            run_all(&r, false);
            fake_fs_fail(r.fs, (enum fake_fs_call)call, -1, 0, 0);
            s = rig_status(&r);
            if (!s.failed) {
                assert_true(is_closed(&r));
                rig_deinit(&r);
                break;
            }
            failures++;
            expect_silence(&r);
            expect_kept(&r, s.written, s.synced);
            rig_deinit(&r);
        }
        if (call == FAKE_FS_WRITE || call == FAKE_FS_SYNC || call == FAKE_FS_SYNC_DIR)
            assert_true(failures > 10);
        if (call == FAKE_FS_ALLOCATE || call == FAKE_FS_CREATE || call == FAKE_FS_RENAME ||
            call == FAKE_FS_OPEN)
            assert_true(failures > 5);
        if (call == FAKE_FS_REMOVE)
            assert_true(failures > 0);
    }
}

static void test_the_disk_is_gone_from_the_nth_call_on(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct log_status s;
        struct rig r;

        assert_true(n < CALLS_OF_A_RUN);
        rig_init(&r);
        fake_fs_fail_any(r.fs, n);
        run_all(&r, false);
        s = rig_status(&r);
        fake_fs_fail_any(r.fs, -1);
        if (!s.failed) {
            assert_true(n > 100);
            assert_true(is_closed(&r));
            rig_deinit(&r);
            break;
        }
        expect_silence(&r);
        expect_kept(&r, s.written, s.synced);
        rig_deinit(&r);
    }
}

/* No room, or no descriptor, at any of the calls, once or for a while: it goes on by itself, and all is
 * there. A sync that finds none is a failed sync. */
static void test_the_nth_call_finds_no_room(void **state)
{
    static const struct {
        enum fake_fs_call call;
        int error;
    } faults[] = {{FAKE_FS_WRITE, TQ_ENOSPC},  {FAKE_FS_ALLOCATE, TQ_ENOSPC}, {FAKE_FS_CREATE, TQ_ENOSPC},
                  {FAKE_FS_RENAME, TQ_ENOSPC}, {FAKE_FS_CREATE, TQ_ELIMIT},   {FAKE_FS_OPEN, TQ_ELIMIT}};

    (void)state;
    for (size_t c = 0; c < sizeof(faults) / sizeof(faults[0]); c++)
        for (unsigned long repeat = 1; repeat <= 2; repeat++) {
            unsigned seen = 0, full = 0;

            for (long n = 0;; n++) {
                enum fake_fs_call call = faults[c].call;
                unsigned long before;
                struct log_status s;
                struct rig r;

                assert_true(n < CALLS_OF_A_RUN);
                rig_init(&r);
                before = fake_fs_calls(r.fs, call);
                fake_fs_fail(r.fs, call, n, repeat, faults[c].error);
                if (run_all(&r, true)) {
                    assert_int_equal(faults[c].error, TQ_ENOSPC); /* no descriptor is another matter */
                    full++;
                }
                for (int i = 0; i < 4; i++) {
                    r.now_ms += LOG_RETRY_MS;
                    rig_settle(&r);
                }
                s = rig_status(&r);
                assert_false(s.failed);
                assert_true(is_closed(&r));
                assert_false(s.no_space);
                before = fake_fs_calls(r.fs, call) - before;
                fake_fs_fail(r.fs, call, -1, 0, 0);
                rig_end(&r);
                rig_open(&r);
                rig_deinit(&r);
                if ((unsigned long)n > before)
                    break;
                seen++;
            }
            assert_true(seen > 3);
            assert_true(faults[c].error != TQ_ENOSPC || full > 0);
        }
}

static void test_a_sync_that_finds_no_room_has_failed(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    rig_put(&r, 10, LOG_SYNCED);
    fake_fs_fail(r.fs, FAKE_FS_SYNC, 0, 1, TQ_ENOSPC);
    rig_settle(&r);
    assert_true(rig_status(&r).failed);
    assert_int_equal(rig_status(&r).synced, 1);
    assert_int_equal(rig_status(&r).written, 1);
    rig_deinit(&r);
}

static void test_a_failure_behind_the_word_that_it_is_written(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    r.tell_early = true;
    rig_put(&r, 10, LOG_WRITTEN);
    rig_put(&r, 10, LOG_SYNCED);
    fake_fs_fail(r.fs, FAKE_FS_SYNC, 0, 1, TQ_EIO);
    rig_settle(&r);
    assert_int_equal(r.at_early.written, 3); /* that was so */
    assert_false(r.at_early.failed);
    assert_int_equal(rig_status(&r).synced, 1);
    expect_silence(&r);
    rig_deinit(&r);

    rig_init(&r); /* whoever has not asked before the failure does not hear of it behind it */
    rig_settle(&r);
    rig_put(&r, 10, LOG_WRITTEN);
    rig_put(&r, 10, LOG_SYNCED);
    fake_fs_fail(r.fs, FAKE_FS_SYNC, 0, 1, TQ_EIO);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).written, 1);
    rig_deinit(&r);
}

static void test_the_start_fails_at_the_nth_call(void **state)
{
    (void)state;
    for (int second = 0; second <= 1; second++)
        for (int call = 0; call < FAKE_FS_CALLS; call++)
            for (long n = 0;; n++) {
                struct rig r = {.fs = fake_fs_new(), .now_ms = 5000};
                struct log_state s;
                unsigned records;
                int rv;

                assert_true(n < CALLS_OF_A_RUN);
                if (second) {
                    rig_open(&r);
                    run_all(&r, false);
                    rig_end(&r);
                    fake_fs_put(r.fs, "0000000000000001.spare", "", 0); /* one to be removed */
                }
                assert_int_equal(rig_read(r.fs, &s, &records), TQ_OK);
                log_state_deinit(&s);
                fake_fs_fail(r.fs, (enum fake_fs_call)call, n, 1,
                             call == FAKE_FS_ALLOCATE ? TQ_ENOSPC : TQ_EIO);
                rv = rig_try_open(&r);
                fake_fs_fail(r.fs, (enum fake_fs_call)call, -1, 0, 0);
                assert_true(rv == TQ_OK || rv == TQ_EIO || rv == TQ_ENOSPC);
                if (rv != TQ_OK) {
                    assert_null(r.log);
                    assert_int_equal(fake_fs_open_files(r.fs), 0);
                    rig_open(&r); /* the next one goes well */
                }
                rig_put(&r, 100, LOG_SYNCED);
                rig_settle(&r);
                rig_expect_readable(&r, rig_status(&r).next_index, records + 1);
                rig_deinit(&r);
                if (rv == TQ_OK && n > 12)
                    break;
            }
}

/* ---- full ---- */

static void test_full_and_the_reserve_lets_completions_through(void **state)
{
    struct log_need need;
    struct rig r;

    (void)state;
    rig_init(&r);
    log_set_reserve(r.log, 20000);
    rig_settle(&r);
    assert_false(rig_status(&r).no_space);
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs));
    r.progress = 0;
    rig_put(&r, 15500,
            LOG_SYNCED); /* a group and the reserve do not fit the rest: a spare is wanted, in vain */
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_true(rig_status(&r).no_space);
    assert_true(rig_status(&r).room_bytes > 20000 + RIG_GROUP - 15540);
    assert_true(r.progress > 0);
    assert_non_null(strstr(rig_status(&r).error, "no room"));
    rig_put(&r, 29000, LOG_SYNCED); /* the last group of new work before anybody could know */
    for (int i = 0; i < 20; i++)    /* and all of the reserve */
        rig_put(&r, 950, LOG_SYNCED);
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_int_equal(log_segment(r.log), 1);
    rig_put(&r, 10000, LOG_WRITTEN); /* and now there is nothing left */
    need = log_need_now(r.log);
    rig_settle(&r);
    assert_false(log_is_met(r.log, need));
    assert_true(rig_status(&r).no_space);
    assert_int_equal(rig_status(&r).pending_bytes, 10040);
    assert_int_equal(log_next_ms(r.log), r.now_ms + LOG_RETRY_MS);
    rig_put(&r, 10, LOG_SYNCED); /* waits behind it */
    r.now_ms += LOG_RETRY_MS - 1;
    rig_kick(&r);
    assert_null(r.job);
    r.now_ms++;
    rig_settle(&r); /* tried, in vain */
    assert_false(log_is_met(r.log, need));
    assert_false(rig_status(&r).failed);
    assert_int_equal(log_next_ms(r.log), r.now_ms + LOG_RETRY_MS);
    fake_fs_set_capacity(r.fs, UINT64_MAX);
    r.now_ms += LOG_RETRY_MS;
    r.progress = 0;
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_false(rig_status(&r).no_space);
    assert_string_equal(rig_status(&r).error, "");
    assert_true(r.progress > 0);
    rig_expect_readable(&r, rig_status(&r).next_index, 24);
    rig_deinit(&r);
}

static void test_full_and_what_is_released_makes_room(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    log_set_reserve(r.log, 50000);
    for (int i = 0; i < 3; i++)
        rig_put(&r, 60000, LOG_SYNCED);
    rig_settle(&r);
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs));
    rig_put(&r, 60000, LOG_SYNCED);
    rig_put(&r, 10000, LOG_SYNCED);
    rig_settle(&r);
    assert_true(rig_status(&r).no_space);
    log_release(r.log, 3); /* the record that says so is synced at once, and not after the interval */
    rig_settle(&r);
    assert_int_equal(rig_status(&r).first_segment, 3);
    assert_false(rig_status(&r).no_space);
    assert_int_equal(rig_status(&r).disk_bytes, fake_fs_used(r.fs));
    rig_put(&r, 60000, LOG_SYNCED);
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    rig_deinit(&r);
}

/* A group that is stuck while segments wait to be given up: they are removed for it, at once. */
static void test_stuck_and_room_is_made(void **state)
{
    struct log_need need;
    struct rig r;

    (void)state;
    rig_init(&r);
    for (int i = 0; i < 2; i++)
        rig_put(&r, 60000, LOG_SYNCED);
    rig_settle(&r);
    log_release(r.log, 2);
    rig_put(&r, 10, LOG_SYNCED);
    rig_kick(&r);
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs));
    rig_put(&r, 150000, LOG_SYNCED); /* does not even fit what will be free */
    need = log_need_now(r.log);
    while (rig_run(&r))
        ;
    assert_false(log_is_met(r.log, need));
    assert_true(rig_status(&r).no_space);
    assert_int_equal(rig_status(&r).first_segment, 2);
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs) + 150000);
    r.now_ms += LOG_RETRY_MS;
    rig_settle(&r);
    assert_true(log_is_met(r.log, need));
    rig_expect_readable(&r, rig_status(&r).next_index, 3);
    rig_deinit(&r);
}

/* A record larger than a segment on a full disk: it gets the room of spares, from the last one on. */
static void test_full_and_an_oversize_record(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    log_set_reserve(r.log, 230000);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).spares, 4);
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs));
    rig_put(&r, 2 * RIG_SEGMENT + 1000, LOG_SYNCED); /* three of them */
    rig_put(&r, 100, LOG_SYNCED);
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_int_equal(rig_status(&r).last_segment, 2);
    assert_true(rig_status(&r).no_space); /* the reserve is not what it was */
    assert_int_equal(rig_status(&r).spares, 1);
    assert_int_equal(rig_status(&r).disk_bytes, fake_fs_used(r.fs));
    rig_put(&r, 50000, LOG_SYNCED); /* into the last one */
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    rig_expect_readable(&r, 5, 3);
    rig_put(&r, 2 * RIG_SEGMENT, LOG_SYNCED);
    rig_settle(&r);
    assert_false(log_is_met(r.log, log_need_now(r.log)));
    fake_fs_set_capacity(r.fs, UINT64_MAX);
    r.now_ms += LOG_RETRY_MS;
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_false(rig_status(&r).no_space);
    assert_int_equal(rig_status(&r).spares, 5);
    rig_expect_readable(&r, 6, 4);
    rig_deinit(&r);
}

static void test_room_for_a_large_record_is_asked_for(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_settle(&r);
    assert_int_equal(rig_status(&r).record_max,
                     RIG_SEGMENT - LOG_SEGMENT_HEADER_BYTES - 64 - LOG_RECORD_HEADER_BYTES);
    log_ask_room(r.log, 200000);
    assert_true(rig_status(&r).record_max < 200000);
    assert_false(rig_status(&r).no_space); /* nobody has tried */
    rig_settle(&r);
    assert_true(rig_status(&r).record_max >= 200000);
    assert_int_equal(rig_status(&r).disk_bytes,
                     RIG_SEGMENT + (200040 + LOG_SEGMENT_HEADER_BYTES + 4095) / 4096 * 4096);
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs));
    rig_put(&r, (size_t)rig_status(&r).record_max, LOG_SYNCED);
    rig_settle(&r);
    assert_true(log_is_met(r.log, log_need_now(r.log)));
    assert_int_equal(log_segment(r.log), 2);
    fake_fs_set_capacity(r.fs, UINT64_MAX);
    r.now_ms += LOG_RETRY_MS;
    rig_settle(&r);

    log_ask_room(r.log, 300000); /* in vain */
    fake_fs_set_capacity(r.fs, fake_fs_used(r.fs) + 10000);
    rig_settle(&r);
    assert_true(rig_status(&r).no_space);
    assert_true(rig_status(&r).record_max < 300000);
    log_ask_room(r.log, 0);
    assert_false(rig_status(&r).no_space);
    log_ask_room(r.log, UINT64_MAX);
    rig_settle(&r);
    assert_true(rig_status(&r).no_space);
    log_ask_room(r.log, 0);
    fake_fs_set_capacity(r.fs, UINT64_MAX);

    r.now_ms += RIG_INTERVAL;
    rig_settle(&r);
    assert_int_equal(log_segment(r.log), 3); /* a mark, after rest, had to go there */
    log_ask_room(r.log, 150000);             /* what was made for one holds others, if it does not come */
    rig_settle(&r);
    log_ask_room(r.log, 0);
    for (int i = 0; i < 3; i++)
        rig_put(&r, 60000, LOG_SYNCED);
    rig_settle(&r);
    assert_int_equal(log_segment(r.log), 4);
    rig_expect_readable(&r, rig_status(&r).next_index, 4);
    rig_deinit(&r);
}

static void test_no_room_for_the_first_start(void **state)
{
    struct rig r = {.fs = fake_fs_new(), .now_ms = 5000};

    (void)state;
    fake_fs_set_capacity(r.fs, RIG_SEGMENT - 1);
    assert_int_equal(rig_try_open(&r), TQ_ENOSPC);
    fake_fs_set_capacity(r.fs, UINT64_MAX);
    rig_open(&r);
    rig_deinit(&r);
}

/* ---- memory ---- */

static void test_no_memory_for_the_start(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct rig r;
        int rv;

        rig_init(&r);
        for (int i = 0; i < 3; i++)
            rig_put(&r, 60000, LOG_SYNCED);
        rig_settle(&r);
        rig_end(&r);
        tq_mem_fail_after(n, 1);
        rv = rig_try_open(&r);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
        if (rv != TQ_OK) {
            assert_int_equal(fake_fs_open_files(r.fs), 0);
            rig_open(&r);
        }
        rig_expect_readable(&r, rig_status(&r).next_index, 3);
        rig_deinit(&r);
        if (rv == TQ_OK)
            break;
        assert_true(n < CALLS_OF_A_RUN);
    }
}

/* Each allocation of a run fails once: that record is as if it had not been begun, all else goes on. */
static void test_no_memory_for_a_record(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        unsigned long before;
        unsigned put = 0;
        struct rig r;

        assert_true(n < CALLS_OF_A_RUN);
        rig_init(&r);
        before = tq_mem_count();
        tq_mem_fail_after(n, 1);
        for (unsigned i = 0; i < 40; i++) {
            uint64_t next = rig_status(&r).next_index, index = 0;
            int rv = rig_try_put(&r, 20000, LOG_SYNCED, &index);

            if (rv == TQ_OK) {
                assert_int_equal(index, next);
                put++;
            } else {
                assert_int_equal(rv, TQ_ENOMEM);
                assert_int_equal(rig_status(&r).next_index, next);
            }
            if (i % 4 == 3)
                log_release(r.log, log_segment(r.log) - (i > 20));
            if (i % 5 == 4)
                rig_settle(&r);
        }
        rig_settle(&r);
        before = tq_mem_count() - before;
        tq_mem_fail_after(-1, 0);
        assert_true(put >= 39);
        rig_put(&r, 10, LOG_SYNCED);
        rig_settle(&r);
        rig_settle(&r);
        assert_int_equal(rig_status(&r).first_segment, rig_status(&r).last_segment - 1);
        assert_true(log_is_met(r.log, log_need_now(r.log)));
        rig_end(&r);
        rig_open(&r);
        rig_deinit(&r);
        if ((unsigned long)n > before)
            break;
    }
}

int main(void)
{
    (void)mallopt(M_MMAP_THRESHOLD,
                  1 << 30); /* pages that come and go with each disk take most of the time */
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_nth_call_fails_for_good),
        cmocka_unit_test(test_the_disk_is_gone_from_the_nth_call_on),
        cmocka_unit_test(test_the_nth_call_finds_no_room),
        cmocka_unit_test(test_a_sync_that_finds_no_room_has_failed),
        cmocka_unit_test(test_a_failure_behind_the_word_that_it_is_written),
        cmocka_unit_test(test_the_start_fails_at_the_nth_call),
        cmocka_unit_test(test_full_and_the_reserve_lets_completions_through),
        cmocka_unit_test(test_full_and_what_is_released_makes_room),
        cmocka_unit_test(test_stuck_and_room_is_made),
        cmocka_unit_test(test_full_and_an_oversize_record),
        cmocka_unit_test(test_room_for_a_large_record_is_asked_for),
        cmocka_unit_test(test_no_room_for_the_first_start),
        cmocka_unit_test(test_no_memory_for_the_start),
        cmocka_unit_test(test_no_memory_for_a_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
