/* Copies of a log that is being written: every prefix of it, whatever the sizes of records; no copy of
 * damage; nothing that looks like a log when it is interrupted, by a failure or by a power cut. */
#include "tests/unit/log_rig.h"

#include "master/log/copy.h"
#include "tests/lib/effort.h"

static uint8_t buffer[LOG_COPY_BUFFER_BYTES];

static struct log_copy copy_of(struct fake_fs *from, struct fake_fs *to, uint64_t last_index)
{
    return (struct log_copy){.from = fake_fs_table(from),
                             .to = fake_fs_table(to),
                             .first_segment = 1,
                             .last_index = last_index,
                             .buffer = buffer};
}

/* Records of all sizes over some segments, written and synced. */
static uint64_t fill(struct rig *r, unsigned records)
{
    static const size_t sizes[] = {1, 7, 8, 100, 333, 4000, 60000, 9, 200000, 64, 30000};
    uint64_t index = 0;

    for (unsigned i = 0; i < records; i++) {
        index = rig_put(r, sizes[i % (sizeof(sizes) / sizeof(sizes[0]))], LOG_SYNCED);
        rig_settle(r);
    }
    return index;
}

/* What stands in a directory is a log up to this record. */
static void assert_log(struct fake_fs *fs, uint64_t last_index)
{
    struct log_state state;
    unsigned records;

    assert_int_equal(rig_read(fs, &state, &records), TQ_OK);
    assert_int_equal(state.next_index, last_index + 1);
    assert_int_equal(state.cut_bytes, 0);
    log_state_deinit(&state);
}

/* Of every prefix; and the log that is gone on with there is like any other. */
static void every_prefix_is_a_log(void **state)
{
    struct rig r;
    uint64_t last;

    (void)state;
    rig_init(&r);
    last = fill(&r, 24);
    for (uint64_t index = 1; index <= last; index++) {
        struct rig other = {.fs = fake_fs_new(), .now_ms = 9000};
        struct log_copy c = copy_of(r.fs, other.fs, index);
        char err[LOG_ERROR_MAX] = "";

        assert_int_equal(log_copy_run(&c, err), TQ_OK);
        assert_int_equal(fake_fs_count(other.fs), c.files + 1); /* and a spare */
        assert_int_equal(fake_fs_open_files(other.fs), 0);
        assert_log(other.fs, index);
        rig_open(&other);
        (void)rig_put(&other, 500, LOG_SYNCED);
        rig_settle(&other);
        rig_end(&other);
        fake_fs_free(other.fs);
    }
    rig_deinit(&r);
}

static void nothing_written_is_nothing_to_copy(void **state)
{
    struct fake_fs *from = fake_fs_new(), *to = fake_fs_new();
    struct log_copy c = copy_of(from, to, 0);
    char err[LOG_ERROR_MAX] = "";

    (void)state;
    assert_int_equal(log_copy_run(&c, err), TQ_OK);
    assert_int_equal(c.files, 0);
    assert_int_equal(fake_fs_count(to), 0);
    fake_fs_free(from);
    fake_fs_free(to);
}

/* While it is pinned nothing goes, whatever is released; then it goes. */
static void a_pin_keeps_segments(void **state)
{
    struct fake_fs *to = fake_fs_new();
    char err[LOG_ERROR_MAX] = "";
    struct log_copy c;
    struct log_pin pin;
    struct rig r;
    uint64_t last;

    (void)state;
    rig_init(&r);
    last = fill(&r, 24);
    log_release(r.log, 3);
    log_pin(r.log, &pin);
    assert_int_equal(pin.first_segment, 1);
    assert_true(pin.last_index >= last);
    log_release(r.log, log_segment(r.log));
    (void)fill(&r, 24);
    assert_int_equal(rig_status(&r).first_segment, 1);
    c = copy_of(r.fs, to, pin.last_index);
    assert_int_equal(log_copy_run(&c, err), TQ_OK);
    assert_log(to, pin.last_index);
    log_unpin(r.log);
    (void)fill(&r, 2);
    assert_true(rig_status(&r).first_segment > 3);
    log_pin(r.log, &pin); /* from a later segment on */
    assert_int_equal(pin.first_segment, rig_status(&r).first_segment);
    fake_fs_free(to);
    to = fake_fs_new();
    c = copy_of(r.fs, to, pin.last_index);
    c.first_segment = pin.first_segment;
    assert_int_equal(log_copy_run(&c, err), TQ_OK);
    assert_log(to, pin.last_index);
    fake_fs_free(to);
    rig_deinit(&r); /* pinned or not */
}

/* A flipped byte anywhere in what would be copied: no copy; behind it: no matter. */
static void damage_is_not_copied(void **state)
{
    struct rig r;
    uint64_t last;
    size_t step = EFFORT(997, 9973);

    (void)state;
    rig_init(&r);
    last = fill(&r, 13);
    rig_end(&r);
    for (size_t f = 0; f < fake_fs_count(r.fs); f++) {
        char name[LOG_FS_NAME_MAX];
        struct log_segment_header h;
        const char *why;
        size_t len, end;
        const uint8_t *bytes;

        snprintf(name, sizeof(name), "%s", fake_fs_name(r.fs, f));
        bytes = fake_fs_bytes(r.fs, name, &len);
        if (strstr(name, ".log") == NULL || log_segment_header_get(tq_span(bytes, len), &h, &why) != TQ_OK)
            continue;
        for (end = len; end > 0 && bytes[end - 1] == 0; end--)
            ;
        for (size_t at = 0; at < end; at += at < 200 ? 1 : step) {
            struct fake_fs *to = fake_fs_new();
            struct log_copy c = copy_of(r.fs, to, last);
            char err[LOG_ERROR_MAX] = "";
            int rv;

            fake_fs_flip(r.fs, name, at, 0x20);
            rv = log_copy_run(&c, err);
            fake_fs_flip(r.fs, name, at, 0x20);
            if (rv == TQ_OK) { /* then it was in no byte of a record: zeros behind one, or reserved ones */
                assert_log(to, last);
            } else {
                assert_true(rv == TQ_EINVAL || rv == TQ_EIO || rv == TQ_EUNSUPPORTED);
                assert_non_null(strstr(err, ".log"));
                assert_int_equal(fake_fs_count(to), 0);
            }
            fake_fs_free(to);
        }
    }
    fake_fs_free(r.fs);
}

static bool is_canceled(void *ctx)
{
    return ++*(unsigned *)ctx >= 3;
}

/* Each call fails in turn, on either disk: nothing is left that a master would start with, and no file is
 * open. */
static void each_failure_leaves_nothing(void **state)
{
    struct rig r;
    uint64_t last;
    bool over[2] = {false, false};

    (void)state;
    rig_init(&r);
    last = fill(&r, 13);
    for (long nth = 0; !over[0] || !over[1]; nth++) {
        for (int which = 0; which < 2; which++) {
            struct fake_fs *to = fake_fs_new();
            struct fake_fs *bad = which == 0 ? to : r.fs;
            struct log_copy c = copy_of(r.fs, to, last);
            char err[LOG_ERROR_MAX] = "";
            int rv;

            fake_fs_fail_any(bad, nth);
            rv = log_copy_run(&c, err);
            fake_fs_fail_any(bad, -1);
            if (rv == TQ_OK) {
                assert_log(to, last);
                over[which] = true;
            } else {
                assert_true(err[0] != '\0');
                /* the disk is gone, so it could not be cleaned up: but a log that looks whole it is not */
                for (size_t i = 0; i < fake_fs_count(to); i++) {
                    struct log_state s;
                    unsigned records;

                    if (strstr(fake_fs_name(to, i), ".log") == NULL)
                        continue;
                    rv = rig_read(to, &s, &records);
                    if (rv == TQ_OK) {
                        assert_int_equal(s.next_index, last + 1);
                        log_state_deinit(&s);
                    }
                }
            }
            assert_int_equal(fake_fs_open_files(to), 0);
            fake_fs_free(to);
        }
        assert_true(nth < 1000);
    }
    rig_deinit(&r);
}

static void no_room_and_cancel_leave_nothing(void **state)
{
    char err[LOG_ERROR_MAX] = "";
    struct fake_fs *to;
    struct log_copy c;
    struct rig r;
    uint64_t last;
    unsigned asked = 0;

    (void)state;
    rig_init(&r);
    last = fill(&r, 24);
    to = fake_fs_new();
    fake_fs_set_capacity(to, 300000);
    c = copy_of(r.fs, to, last);
    assert_int_equal(log_copy_run(&c, err), TQ_ENOSPC);
    assert_int_equal(fake_fs_count(to), 0);
    fake_fs_set_capacity(to, UINT64_MAX);
    c.canceled = is_canceled;
    c.ctx = &asked;
    assert_int_equal(log_copy_run(&c, err), TQ_ECANCELED);
    assert_int_equal(fake_fs_count(to), 0);
    c.canceled = NULL;
    assert_int_equal(log_copy_run(&c, err), TQ_OK);
    assert_log(to, last);
    fake_fs_free(to);
    rig_deinit(&r);
}

/* The power goes at each moment: either nobody starts with what is there, or all of it is. */
static void a_power_cut_leaves_no_half(void **state)
{
    uint64_t random = 88172645463325252u;
    char err[LOG_ERROR_MAX] = "";
    struct fake_fs *to = fake_fs_new();
    unsigned whole = 0, refused = 0, empty = 0;
    struct log_copy c;
    struct rig r;
    uint64_t last;

    (void)state;
    rig_init(&r);
    last = fill(&r, 22);
    c = copy_of(r.fs, to, last);
    assert_int_equal(log_copy_run(&c, err), TQ_OK);
    assert_true(c.files > 3);
    for (size_t point = 0; point <= fake_fs_point(to); point++) {
        for (unsigned k = 0; k < EFFORT(20, 3); k++) {
            struct fake_fs *cut = fake_fs_power_cut(to, point, FAKE_FS_LOSE_ANY, &random);
            struct log_state s;
            unsigned records;

            if (rig_read(cut, &s, &records) != TQ_OK) {
                refused++;
            } else {
                bool is_whole = s.next_index == last + 1;

                whole += is_whole;
                empty += s.next_index == 1;
                assert_true(is_whole || s.segment_count == 0);
                log_state_deinit(&s);
            }
            fake_fs_free(cut);
        }
    }
    assert_true(whole > 0 && refused > 0 && empty > 0);
    for (unsigned k = 0; k < 100; k++) { /* and when it had ended, all is there */
        struct fake_fs *cut = fake_fs_power_cut(to, fake_fs_point(to), FAKE_FS_LOSE_ANY, &random);

        assert_log(cut, last);
        fake_fs_free(cut);
    }
    fake_fs_free(to);
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prefix_is_a_log),       cmocka_unit_test(nothing_written_is_nothing_to_copy),
        cmocka_unit_test(a_pin_keeps_segments),        cmocka_unit_test(damage_is_not_copied),
        cmocka_unit_test(each_failure_leaves_nothing), cmocka_unit_test(no_room_and_cancel_leave_nothing),
        cmocka_unit_test(a_power_cut_leaves_no_half),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
