/* What is said of a damaged log, and that a repair keeps what stands before the damage, puts aside what it
 * cuts, and can be interrupted anywhere. */
#include "tests/unit/log_image.h"

#include "common/buf.h"

static char err[LOG_ERROR_MAX];

struct notes {
    struct log_finding list[64];
    unsigned count;
};

static void note(void *ctx, const struct log_finding *f)
{
    struct notes *n = ctx;

    assert_true(n->count < 64 && f->what != NULL && f->what[0] != '\0' && f->file[0] != '\0');
    n->list[n->count++] = *f;
}

static struct notes check(struct log_fs *fs, int want)
{
    struct notes n = {0};
    struct log_state s;
    int rv = log_check(fs, note, &n, &s, err);

    if (rv != want)
        print_error("%d findings, %s\n", rv, err);
    assert_int_equal(rv, want);
    log_state_deinit(&s);
    return n;
}

static void finding_is(const struct log_finding *f, const char *file, uint64_t offset, uint64_t bytes,
                       uint64_t first, uint64_t last)
{
    assert_string_equal(f->file, file);
    assert_true(f->offset == offset && f->bytes == bytes);
    assert_true(f->first_index == first && f->last_index == last);
}

static uint64_t end_of(const struct rig_record *w)
{
    return w->offset + log_record_bytes(w->len);
}

/* The first record of the segment, or one behind it. */
static struct rig_record *record_in(struct rig *r, uint64_t segment, size_t n)
{
    size_t i = 0;

    while (r->records[i].segment != segment)
        i++;
    assert_true(r->records[i + n].segment == segment);
    return &r->records[i + n];
}

static void flip(struct rig *r, const struct rig_record *w, uint64_t at)
{
    rig_segment_file(r, w->segment)->data[w->offset + at] ^= 0x20;
}

static struct rig *five(void)
{
    struct rig *r = rig_new();

    rig_build(r, 1, 5, 2048, 3);
    return r;
}

/* ---- check ---- */

static void test_good(void **state)
{
    struct rig *r = five();
    struct rig *empty = rig_new();

    (void)state;
    check(&r->fs, 0);
    check(&empty->fs, 0);
    rig_free(empty);
    rig_free(r);
}

/* Three places in two segments: each is told, with what is lost there. */
static void test_several(void **state)
{
    struct rig *r = five();
    struct rig_record *a = record_in(r, 2, 3), *b = record_in(r, 2, 7), *c = record_in(r, 4, 5);
    struct notes n;

    (void)state;
    flip(r, a, 4);
    flip(r, b, 40);
    flip(r, b + 1, 12);
    flip(r, c, 0);
    n = check(&r->fs, 3);
    finding_is(&n.list[0], "0000000000000002.log", a->offset, end_of(a) - a->offset, a->index, a->index);
    finding_is(&n.list[1], "0000000000000002.log", b->offset, end_of(b + 1) - b->offset, b->index,
               b->index + 1);
    finding_is(&n.list[2], "0000000000000004.log", c->offset, end_of(c) - c->offset, c->index, c->index);
    assert_string_equal(n.list[0].side, "");
    rig_free(r);
}

/* Up to the end of a segment that is not the last. */
static void test_end_of_a_segment(void **state)
{
    struct rig *r = five();
    struct rig_record *a = record_in(r, 3, 0) - 2; /* the last but one of segment 2 */
    struct notes n;

    (void)state;
    flip(r, a, 9);
    flip(r, a + 1, 9);
    n = check(&r->fs, 1);
    finding_is(&n.list[0], "0000000000000002.log", a->offset, 2048 - a->offset, a->index, a->index + 1);
    rig_free(r);
}

static void test_segments(void **state)
{
    struct rig *r = five();
    struct notes n;

    (void)state;
    rig_drop(r, 2, false);
    rig_segment_file(r, 4)->data[40] ^= 1;
    rig_segment_file(r, 5)->len = 1000;
    rig_drop(r, 6, true);
    n = check(&r->fs, 4);
    finding_is(&n.list[0], "0000000000000002.log", 0, 0, record_in(r, 2, 0)->index,
               record_in(r, 3, 0)->index - 1);
    finding_is(&n.list[1], "0000000000000004.log", 0, 128, 0, 0);
    finding_is(&n.list[2], "0000000000000005.log", 1000, 1048, 0, 0);
    finding_is(&n.list[3], "0000000000000006.log", 0, 0, 0, 0);
    rig_free(r);
}

static void test_torn(void **state)
{
    struct rig *r = five();
    struct rig_record *last = &r->records[r->record_count - 1];
    struct notes n;
    struct log_state s;

    (void)state;
    flip(r, last, 2);
    n = check(&r->fs, 0);
    assert_true(n.count == 1 && n.list[0].torn);
    assert_true(n.list[0].offset == last->offset && n.list[0].bytes > 0);
    n.count = 0;
    assert_int_equal(log_check(&r->fs, note, &n, &s, err), 0);
    assert_true(s.cut_offset == last->offset && s.next_index == last->index && s.segment_count == 5);
    log_state_deinit(&s);
    rig_free(r);
}

/* What is not needed any more may be as bad as it likes. */
static void test_below_start(void **state)
{
    struct rig *r = five();

    (void)state;
    rig_drop(r, 6, true);
    rig_segment(r, 6, 2048, 0);
    rig_start(r, 4);
    rig_spare(r, 7);
    rig_drop(r, 2, false);
    flip(r, record_in(r, 1, 2), 4);
    check(&r->fs, 0);
    rig_segment_file(r, 3)->data[40] ^= 1;
    check(&r->fs, 0);
    rig_segment_file(r, 4)->data[40] ^= 1;
    check(&r->fs, 1);
    rig_free(r);
}

static void test_later_version(void **state)
{
    struct rig *r = five();
    struct notes n = {0};
    struct log_state s;
    struct fake_fs *f;

    (void)state;
    rig_drop(r, 6, true);
    rig_segment(r, 6, 2048, 0);
    rig_record(r, 99, "", 0);
    rig_spare(r, 7);
    assert_int_equal(log_check(&r->fs, note, &n, &s, err), TQ_EUNSUPPORTED);
    f = rig_disk(r);
    assert_int_equal(log_repair(fake_fs_table(f), note, &n, err), TQ_EUNSUPPORTED);
    assert_true(n.count == 0 && fake_fs_point(f) == 0);
    fake_fs_free(f);
    rig_free(r);
}

/* ---- repair ---- */

static bool is_cut_file(const char *name)
{
    size_t n = strlen(name);

    return n > 4 && strcmp(name + n - 4, ".cut") == 0;
}

/* Are these bytes in one of the side files? */
static bool is_aside(const struct fake_fs *f, const void *bytes, size_t len)
{
    for (size_t i = 0; i < fake_fs_count(f); i++) {
        size_t n;
        const uint8_t *data;

        if (!is_cut_file(fake_fs_name(f, i)))
            continue;
        data = fake_fs_bytes(f, fake_fs_name(f, i), &n);
        if (n >= len && memmem(data, n, bytes, len) != NULL)
            return true;
    }
    return false;
}

/* The log on this disk opens with the rig's records up to `last`, and those behind it are in side files. */
static void is_repaired(struct rig *r, struct fake_fs *f, uint64_t last)
{
    struct rig_got g = {0};
    struct log_state s;
    int rv = rig_recover(r, fake_fs_table(f), &g, &s, err);

    if (rv != TQ_OK)
        print_error("%s\n", err);
    assert_int_equal(rv, TQ_OK);
    check(fake_fs_table(f), 0);
    /* A repair, and one that was interrupted before, each add a record. */
    assert_true(s.next_index >= last + 1 && s.next_index <= last + 3 && g.last <= last);
    assert_true(s.spare_count >= (last > 0));
    log_state_deinit(&s);
    while (g.at < r->record_count && r->records[g.at].index <= last)
        assert_true(r->records[g.at++].type != LOG_OPS);
    for (size_t i = 0; i < r->record_count; i++) {
        const struct rig_record *w = &r->records[i];
        int file;
        char name[LOG_FS_NAME_MAX];

        log_segment_name(name, w->segment);
        file = rig_find(r, name);
        if (w->index <= last || file < 0 || end_of(w) > r->files[file].len)
            continue;
        assert_true(is_aside(f, r->files[file].data + w->offset, (size_t)(end_of(w) - w->offset)));
    }
    assert_int_equal(fake_fs_open_files(f), 0);
}

static struct notes repaired(struct rig *r, uint64_t last)
{
    struct fake_fs *f = rig_disk(r);
    struct notes n = {0};
    int rv = log_repair(fake_fs_table(f), note, &n, err);

    if (rv <= 0)
        print_error("%d: %s\n", rv, err);
    assert_true(rv > 0);
    assert_int_equal(rv, n.count);
    is_repaired(r, f, last);
    rv = log_repair(fake_fs_table(f), note, &n, err);
    assert_int_equal(rv, 0);
    fake_fs_free(f);
    return n;
}

static void test_repair_of_nothing(void **state)
{
    struct rig *r = five();
    struct fake_fs *f;
    struct notes n = {0};

    (void)state;
    flip(r, &r->records[r->record_count - 1], 3); /* torn: that is none */
    f = rig_disk(r);
    assert_int_equal(log_repair(fake_fs_table(f), note, &n, err), 0);
    assert_true(fake_fs_point(f) == 0 && n.count == 0);
    fake_fs_free(f);
    rig_free(r);
}

static void test_repair_records(void **state)
{
    struct rig *r = five();
    struct rig_record *a = record_in(r, 3, 4);
    struct notes n;

    (void)state;
    flip(r, a, 8);
    n = repaired(r, a->index - 1);
    assert_int_equal(n.count, 3);
    finding_is(&n.list[0], "0000000000000003.log", a->offset, 2048 - a->offset, a->index,
               record_in(r, 4, 0)->index - 1);
    assert_true(is_cut_file(n.list[0].side) && strncmp(n.list[0].side, "0000000000000003-", 17) == 0);
    finding_is(&n.list[1], "0000000000000004.log", 0, 2048, record_in(r, 4, 0)->index,
               record_in(r, 5, 0)->index - 1);
    assert_string_equal(n.list[1].side, "0000000000000004-0.cut");
    finding_is(&n.list[2], "0000000000000005.log", 0, 2048, record_in(r, 5, 0)->index, r->index - 1);
    assert_string_equal(n.list[2].side, "0000000000000005-0.cut");
    rig_free(r);

    r = five(); /* in the last segment, and the first record of one */
    a = record_in(r, 5, 0);
    flip(r, a, 30);
    repaired(r, a->index - 1);
    rig_free(r);

    r = five(); /* the first of all */
    flip(r, r->records, 30);
    repaired(r, 0);
    rig_free(r);
}

static void test_repair_segments(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 5; n++) {
        for (unsigned how = 0; how < 2; how++) {
            struct rig *r = five();
            uint64_t last = record_in(r, n, 0)->index - 1;

            if (how == 0)
                rig_drop(r, n, false);
            else
                rig_segment_file(r, n)->data[40] ^= 1;
            repaired(r, last);
            rig_free(r);
        }
    }
}

/* All records are there, and the file gets the size that it should have. */
static void test_repair_short(void **state)
{
    for (uint64_t n = 1; n <= 5; n++) {
        struct rig *r = five();
        uint64_t last = r->index - 1;
        uint64_t end = n == 5 ? r->offset : end_of(record_in(r, n + 1, 0) - 1);

        (void)state;
        rig_segment_file(r, n)->len = end;
        if (end < 2048)
            repaired(r, last);
        rig_segment_file(r, n)->len = end - 9; /* and one is not */
        if (n < 5)
            repaired(r, record_in(r, n + 1, 0)->index - 2);
        else
            repaired(r, last - 1);
        rig_free(r);
    }
}

static void test_repair_of_the_end(void **state)
{
    struct rig *r = five();

    (void)state;
    rig_drop(r, 6, true);
    repaired(r, r->index - 1);
    rig_free(r);

    r = rig_new();
    rig_spare(r, 4);
    repaired(r, 0);
    rig_free(r);
}

/* The first segments are gone, as they may be, and the record that allows it is behind the damage. */
static void test_repair_keeps_start(void **state)
{
    struct rig *r = five();
    struct rig_got g = {0};
    struct fake_fs *f;
    struct log_state s;
    struct notes n = {0};

    (void)state;
    rig_drop(r, 6, true);
    rig_segment(r, 6, 2048, 0);
    rig_start(r, 3);
    rig_spare(r, 7);
    rig_drop(r, 1, false);
    rig_drop(r, 2, false);
    check(&r->fs, 0);
    flip(r, record_in(r, 4, 2), 8);
    f = rig_disk(r);
    assert_int_equal(log_repair(fake_fs_table(f), note, &n, err), 3);
    g.from = record_in(r, 3, 0)->index;
    assert_int_equal(rig_recover(r, fake_fs_table(f), &g, &s, err), TQ_OK);
    assert_true(s.start == 3 && g.last == record_in(r, 4, 1)->index && s.segments[0].number == 3);
    log_state_deinit(&s);
    fake_fs_free(f);
    rig_free(r);
}

/* Damage in a segment that is not needed costs nothing. */
static void test_repair_below_start(void **state)
{
    struct rig *r = five();
    struct rig_got g = {0};
    struct fake_fs *f;
    struct log_state s;
    struct notes n = {0};

    (void)state;
    rig_drop(r, 6, true);
    rig_segment(r, 6, 2048, 0);
    rig_start(r, 4);
    rig_spare(r, 7);
    flip(r, record_in(r, 2, 2), 8);
    check(&r->fs, 1);
    f = rig_disk(r);
    assert_int_equal(log_repair(fake_fs_table(f), note, &n, err), 2);
    g.from = record_in(r, 3, 0)->index;
    assert_int_equal(rig_recover(r, fake_fs_table(f), &g, &s, err), TQ_OK);
    assert_true(s.start == 4 && s.next_index == r->index && g.last == record_in(r, 6, 0)->index - 1);
    log_state_deinit(&s);
    fake_fs_free(f);
    rig_free(r);
}

/* What an earlier repair put aside is not written over. */
static void test_side_files_stay(void **state)
{
    struct rig *r = five();
    struct rig_record *a = record_in(r, 4, 4);
    char name[LOG_FS_NAME_MAX];
    struct fake_fs *f;
    struct notes n = {0};
    size_t len;

    (void)state;
    flip(r, a, 8);
    snprintf(name, sizeof(name), "0000000000000004-%u.cut", (unsigned)a->offset);
    memcpy(rig_file(r, name, 3)->data, "one", 3);
    memcpy(rig_file(r, "0000000000000005-0.cut", 3)->data, "two", 3);
    memcpy(rig_file(r, "0000000000000005-0-2.cut", 3)->data, "six", 3);
    f = rig_disk(r);
    assert_int_equal(log_repair(fake_fs_table(f), note, &n, err), 2);
    assert_memory_equal(fake_fs_bytes(f, name, &len), "one", 3);
    assert_memory_equal(fake_fs_bytes(f, "0000000000000005-0.cut", &len), "two", 3);
    assert_memory_equal(fake_fs_bytes(f, "0000000000000005-0-2.cut", &len), "six", 3);
    assert_string_equal(n.list[1].side, "0000000000000005-0-3.cut");
    is_repaired(r, f, a->index - 1);
    fake_fs_free(f);
    rig_free(r);
}

/* ---- interrupted, and without this and that ---- */

/* Several kinds of damage at once. */
static struct rig *damaged(unsigned kind, uint64_t *ret_last)
{
    struct rig *r = five();
    struct rig_record *a = record_in(r, kind == 0 ? 2 : 4, 3);

    *ret_last = a->index - 1;
    if (kind == 2) {
        *ret_last = record_in(r, 3, 0)->index - 1;
        rig_segment_file(r, 3)->data[50] ^= 1;
        rig_segment_file(r, 2)->len = 2047;
    } else {
        flip(r, a, 8);
        if (kind == 1)
            flip(r, record_in(r, 5, 2), 1);
    }
    return r;
}

static void test_power_cut(void **state)
{
    uint64_t random = 4711;

    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        uint64_t last;
        struct rig *r = damaged(kind, &last);
        struct fake_fs *f = rig_disk(r);
        size_t points;

        assert_true(log_repair(fake_fs_table(f), NULL, NULL, err) > 0);
        points = fake_fs_point(f);
        assert_true(points > 10);
        for (size_t p = 0; p <= points; p++) {
            for (unsigned loss = FAKE_FS_LOSE_ANY; loss <= FAKE_FS_LOSE_NAMES; loss++) {
                struct fake_fs *cut = fake_fs_power_cut(f, p, (enum fake_fs_loss)loss, &random);
                int rv = log_repair(fake_fs_table(cut), NULL, NULL, err);

                if (rv < 0)
                    print_error("kind %u, point %zu, loss %u: %s\n", kind, p, loss, err);
                assert_true(rv >= 0);
                is_repaired(r, cut, last);
                fake_fs_free(cut);
            }
        }
        fake_fs_free(f);
        rig_free(r);
    }
}

static void test_disk_fails(void **state)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        uint64_t last;
        struct rig *r = damaged(kind, &last);
        int rv = TQ_EIO;

        (void)state;
        for (long n = 0; rv < 0; n++) {
            struct fake_fs *f = rig_disk(r);

            fake_fs_fail_any(f, n);
            rv = log_repair(fake_fs_table(f), NULL, NULL, err);
            assert_true(rv == TQ_EIO || (rv > 0 && n > 20));
            fake_fs_fail_any(f, -1);
            assert_true(log_repair(fake_fs_table(f), NULL, NULL, err) >= 0);
            is_repaired(r, f, last);
            fake_fs_free(f);
        }
        rig_free(r);
    }
}

static void test_no_memory(void **state)
{
    uint64_t last;
    struct rig *r = damaged(1, &last);
    int rv = TQ_ENOMEM;

    (void)state;
    for (long n = 0; rv < 0; n++) {
        struct fake_fs *f = rig_disk(r);

        tq_mem_fail_after(n, 1);
        rv = log_repair(fake_fs_table(f), NULL, NULL, err);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == TQ_ENOMEM || (rv > 0 && n > 6));
        assert_true(log_repair(fake_fs_table(f), NULL, NULL, err) >= 0);
        is_repaired(r, f, last);
        fake_fs_free(f);
    }
    rig_free(r);
}

static void test_no_room(void **state)
{
    uint64_t last;
    struct rig *r = damaged(0, &last);
    struct fake_fs *f = rig_disk(r);

    (void)state;
    fake_fs_set_capacity(f, fake_fs_used(f));
    assert_int_equal(log_repair(fake_fs_table(f), NULL, NULL, err), TQ_ENOSPC);
    fake_fs_set_capacity(f, UINT64_MAX);
    assert_true(log_repair(fake_fs_table(f), NULL, NULL, err) > 0);
    is_repaired(r, f, last);
    fake_fs_free(f);
    rig_free(r);
}

/* One bit anywhere: after the repair the log opens, with all that stands before. */
static void test_repair_after_any_bit(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    rig_build(r, 1, 3, 2048, 4);
    for (uint64_t bit = 0; bit < UINT64_C(8) * 3 * 2048; bit += 19) {
        uint64_t segment = 1 + bit / (8 * 2048), at = bit / 8 % 2048;
        uint8_t *data = rig_segment_file(r, segment)->data;
        struct rig_got g = {0};
        struct log_state s;
        struct fake_fs *f;
        uint64_t hit = r->index, before;

        for (size_t i = r->record_count; i-- > 0;)
            if (r->records[i].segment > segment ||
                (r->records[i].segment == segment && end_of(&r->records[i]) > at))
                hit = r->records[i].index;
        before = at < LOG_SEGMENT_HEADER_BYTES ? record_in(r, segment, 0)->index : hit;
        data[at] ^= (uint8_t)(1u << bit % 8);
        f = rig_disk(r);
        assert_true(log_repair(fake_fs_table(f), NULL, NULL, err) >= 0);
        assert_int_equal(rig_recover(r, fake_fs_table(f), &g, &s, err), TQ_OK);
        assert_true(s.next_index >= before);
        log_state_deinit(&s);
        fake_fs_free(f);
        data[at] ^= (uint8_t)(1u << bit % 8);
    }
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_end_of_a_segment),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_torn),
        cmocka_unit_test(test_below_start),
        cmocka_unit_test(test_later_version),
        cmocka_unit_test(test_repair_of_nothing),
        cmocka_unit_test(test_repair_records),
        cmocka_unit_test(test_repair_segments),
        cmocka_unit_test(test_repair_short),
        cmocka_unit_test(test_repair_of_the_end),
        cmocka_unit_test(test_repair_keeps_start),
        cmocka_unit_test(test_repair_below_start),
        cmocka_unit_test(test_side_files_stay),
        cmocka_unit_test(test_power_cut),
        cmocka_unit_test(test_disk_fails),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_repair_after_any_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
