/* Reading a log: what is good comes back, what an interrupted write left is cut, and everything else is
 * refused. Every bit and every length: test_log_bits.c. */
#include "tests/unit/log_image.h"

#include "master/log/format_impl.h"

static char err[LOG_ERROR_MAX];

/* Opens, and delivers the rig's records up to this index. */
static struct log_state opens(struct rig *r, uint64_t last)
{
    struct rig_got g = {0};
    struct log_state state;
    int rv = rig_recover(r, &r->fs, &g, &state, err);

    if (rv != TQ_OK)
        print_error("%s\n", err);
    assert_int_equal(rv, TQ_OK);
    assert_true(state.next_index == last + 1);
    while (g.at < r->record_count && r->records[g.at].index <= last)
        assert_true(r->records[g.at++].type != LOG_OPS);
    rig_check_agrees(&r->fs, rv);
    return state;
}

static void opens_up_to(struct rig *r, uint64_t last)
{
    struct log_state state = opens(r, last);

    log_state_deinit(&state);
}

/* Is refused, with these words. */
static void refused(struct rig *r, int want, const char *file, const char *words)
{
    struct rig_got g = {0};
    struct log_state state;
    int rv = rig_recover(r, &r->fs, &g, &state, err);

    if (rv != want || strstr(err, file) != err || strstr(err, words) == NULL)
        print_error("%d: %s\n", rv, err);
    assert_int_equal(rv, want);
    assert_ptr_equal(strstr(err, file), err);
    assert_non_null(strstr(err, words));
    if (want == TQ_EINVAL)
        assert_non_null(strstr(err, "task-ctl log repair"));
    assert_true(state.segments == NULL && state.spares == NULL);
    rig_check_agrees(&r->fs, rv);
}

/* Two segments, and a last one of five records of which `synced` says that the first `n` were synced. */
static struct rig *tailed(unsigned n)
{
    struct rig *r = rig_new();

    rig_build(r, 1, 2, 2048, 3);
    rig_drop(r, 3, true);
    rig_segment(r, 3, 4096, 0);
    for (unsigned i = 0; i < 5; i++) {
        rig_ops(r, 50 + 30 * i);
        if (i < n)
            r->synced = r->index - 1;
    }
    rig_spare(r, 4);
    return r;
}

static struct rig_record *last_but(struct rig *r, size_t n)
{
    return &r->records[r->record_count - 1 - n];
}

/* ---- what is good ---- */

static void test_empty(void **state)
{
    struct rig *r = rig_new();
    struct log_state s = opens(r, 0);

    (void)state;
    assert_true(s.segment_count == 0 && s.spare_count == 0 && s.start == 1 && s.term == 1 && !s.closed);
    log_state_deinit(&s);
    rig_file(r, "lock", 3); /* nothing of ours */
    rig_file(r, "0000000000000001-0.cut", 300);
    opens_up_to(r, 0);
    rig_spare(r, 1); /* the first start was interrupted */
    opens_up_to(r, 0);
    rig_spare(r, 2);
    s = opens(r, 0);
    assert_true(s.spare_count == 2 && s.spares[0] == 1 && s.spares[1] == 2);
    log_state_deinit(&s);
    rig_drop(r, 1, true); /* there was a first segment, and it is gone */
    refused(r, TQ_EINVAL, "0000000000000001.log", "missing");
    rig_free(r);
}

static void test_good(void **state)
{
    struct rig *r = rig_new();
    struct rig_got g = {0};
    struct log_state s;

    (void)state;
    rig_build(r, 1, 4, 4096, 3);
    rig_file(r, "0000000000000005.spare", 4096);
    rig_spare(r, 6);
    assert_int_equal(rig_recover(r, &r->fs, &g, &s, err), TQ_OK);
    assert_true(g.count == r->record_count - 1 && s.records == r->record_count && g.progress >= 1 &&
                g.done == g.all && g.all == 4 * 4096);
    assert_true(s.segment_count == 4 && s.spare_count == 2 && s.spare_bytes[0] == 4096 &&
                s.spare_bytes[1] == 0);
    assert_memory_equal(s.uuid, r->uuid, LOG_UUID_BYTES);
    assert_true(s.next_index == r->index && s.synced == last_but(r, 0)->synced && s.cut_bytes == 0);
    for (size_t i = 0, bytes = 0; i < 4; i++) {
        assert_true(s.segments[i].number == i + 1 && s.segments[i].bytes == 4096);
        bytes += s.segments[i].end - LOG_SEGMENT_HEADER_BYTES;
        if (i == 3)
            assert_true(s.bytes == bytes && s.segments[i].end == r->offset);
    }
    log_state_deinit(&s);
    rig_free(r);
}

/* The power went when it had its name and no more; the next record did not fit into it. */
static void test_segments_without_records(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    rig_build(r, 1, 2, 2048, 3);
    rig_segment(r, 3, 2048, 0);
    rig_drop(r, 3, true);
    rig_spare(r, 4);
    opens_up_to(r, r->index - 1);
    rig_segment(r, 4, 4096, 0);
    rig_ops(r, 3000);
    rig_drop(r, 4, true);
    rig_spare(r, 5);
    opens_up_to(r, r->index - 1);
    rig_free(r);
}

/* One record alone in a segment of its own size, up to the last byte. */
static void test_large_record(void **state)
{
    struct rig *r = rig_new();
    uint32_t len = 3u << 20;

    (void)state;
    rig_build(r, 1, 1, 2048, 3);
    rig_segment(r, 2, LOG_SEGMENT_HEADER_BYTES + (size_t)log_record_bytes(len), 0);
    rig_ops(r, len);
    rig_segment(r, 3, 2048, 0);
    rig_ops(r, 5);
    rig_drop(r, 2, true);
    rig_spare(r, 4);
    opens_up_to(r, r->index - 1);
    rig_segment_file(r, 2)->data[2u << 20] ^= 1;
    refused(r, TQ_EINVAL, "0000000000000002.log, offset 128:", "checksum");
    rig_free(r);
}

static void test_closed(void **state)
{
    struct rig *r = tailed(5);
    struct log_state s;

    (void)state;
    rig_record(r, LOG_CLOSED, "", 0);
    s = opens(r, r->index - 1);
    assert_true(s.closed);
    log_state_deinit(&s);
    rig_record(r, LOG_MARK, "", 0);
    s = opens(r, r->index - 1);
    assert_false(s.closed);
    log_state_deinit(&s);
    rig_free(r);
}

/* A file that was another segment before: records of an older life stand behind the last one, at the same
 * places even. */
static void test_recycled(void **state)
{
    for (size_t keep = 0; keep < 12; keep++) {
        struct rig *r = rig_new();
        struct log_state s;
        uint8_t *old;

        (void)state;
        rig_build(r, 1, 3, 2048, 2);
        old = malloc(2048);
        assert_non_null(old);
        memcpy(old, rig_segment_file(r, 3)->data, 2048);
        rig_drop(r, 4, true);
        rig_segment(r, 4, 2048, 0);
        memcpy(rig_segment_file(r, 4)->data, old, 2048);
        rig_head(r, 4, r->index, 2048);
        for (size_t i = 0; i < keep; i++)
            rig_ops(r, (uint32_t)(i * 13 % 70));
        rig_spare(r, 5);
        s = opens(r, r->index - 1);
        assert_true(s.cut_bytes == 0);
        log_state_deinit(&s);
        free(old);
        rig_free(r);
    }
}

/* ---- the end ---- */

static void flip(struct rig *r, const struct rig_record *w, uint64_t at)
{
    rig_segment_file(r, w->segment)->data[w->offset + at] ^= 0x20;
}

static void test_torn_last_record(void **state)
{
    static const uint64_t where[] = {0, 3, 4, 9, 16, 24, 32, 40, 60};

    (void)state;
    for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
        struct rig *r = tailed(4);
        struct log_state s;

        flip(r, last_but(r, 0), where[i]);
        s = opens(r, r->index - 2);
        assert_true(s.cut_bytes > 0 && s.cut_offset == last_but(r, 0)->offset && s.cut_why[0] != '\0');
        assert_true(s.cut_offset == s.segments[2].end);
        log_state_deinit(&s);
        rig_free(r);
    }
}

/* Three records were on their way; the disk took the last two and not the first. */
static void test_reordered(void **state)
{
    struct rig *r = tailed(2);
    struct log_state s;

    (void)state;
    memset(rig_segment_file(r, 3)->data + last_but(r, 2)->offset, 0, log_record_bytes(last_but(r, 2)->len));
    s = opens(r, r->index - 4);
    assert_true(s.cut_offset == last_but(r, 2)->offset && s.cut_offset + s.cut_bytes == r->offset);
    log_state_deinit(&s);
    rig_free(r);
}

/* The same, but the one behind says that it had been synced. */
static void test_synced_record_is_damage(void **state)
{
    struct rig *r = tailed(3);
    char want[64];

    (void)state;
    flip(r, last_but(r, 2), 41);
    snprintf(want, sizeof(want), "0000000000000003.log, offset %u:", (unsigned)last_but(r, 2)->offset);
    refused(r, TQ_EINVAL, want, "acknowledged");
    rig_free(r);
}

/* A record of the right checksum whose index does not follow is as bad as another. */
static void test_wrong_index(void **state)
{
    for (unsigned synced = 0; synced < 2; synced++) {
        struct rig *r = tailed(5);
        uint64_t last = r->index - 1;

        (void)state;
        r->index += 2;
        r->synced = synced == 0 ? last : last + 1;
        rig_ops(r, 10);
        if (synced == 0)
            opens_up_to(r, last);
        else
            refused(r, TQ_EINVAL, "0000000000000003.log", "acknowledged");
        rig_free(r);
    }
    for (unsigned back = 1; back < 4; back++) { /* what is behind is older: no record that was lost */
        struct rig *r = tailed(5);
        uint64_t last = r->index - 1;

        r->index -= back;
        r->synced = r->index - 1;
        rig_ops(r, 10);
        r->record_count--;
        opens_up_to(r, last);
        rig_free(r);
    }
}

/* A body that looks like a record which says that everything was synced: it does not know the seed. */
static void test_record_in_a_body(void **state)
{
    struct rig *r = tailed(2);
    uint8_t body[96] = {0};
    struct log_record_header h = {
        .len = 8, .index = r->index + 1, .synced = r->index, .term = 1, .type = LOG_OPS};

    (void)state;
    log_record_seal(body + 16, &h, 0);
    rig_record(r, LOG_OPS, body, sizeof(body));
    flip(r, last_but(r, 0), 8);
    opens_up_to(r, r->index - 2);
    rig_free(r);
}

/* ---- damage elsewhere ---- */

static void test_middle_segment(void **state)
{
    struct rig *r = rig_new();
    const struct rig_record *w;
    char want[64];

    (void)state;
    rig_build(r, 1, 3, 4096, 3);
    for (w = r->records; w->segment != 3; w++)
        ;
    w--; /* the last of segment 2: nothing good stands behind it there */
    flip(r, w, 33);
    snprintf(want, sizeof(want), "0000000000000002.log, offset %u:", (unsigned)w->offset);
    refused(r, TQ_EINVAL, want, "checksum");
    rig_free(r);
}

static void test_missing(void **state)
{
    static const struct {
        uint64_t number;
        const char *file;
    } missing[] = {{1, "0000000000000001.log"},
                   {2, "0000000000000002.log"},
                   {3, "0000000000000003.log"},
                   {4, "0000000000000004.log"}};

    (void)state;
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++) {
        struct rig *r = rig_new();

        rig_build(r, 1, 4, 2048, 3);
        rig_drop(r, missing[i].number, false);
        refused(r, TQ_EINVAL, missing[i].file, "missing");
        rig_free(r);
    }
    struct rig *r = rig_new(); /* what must be behind the last one */

    rig_build(r, 1, 2, 2048, 3);
    rig_drop(r, 3, true);
    refused(r, TQ_EINVAL, "0000000000000003.log", "missing");
    rig_spare(r, 4);
    refused(r, TQ_EINVAL, "0000000000000003.log", "missing");
    rig_free(r);
}

static void rename_segment(struct rig *r, uint64_t from, uint64_t to)
{
    log_segment_name(rig_segment_file(r, from)->name, to);
}

static void test_renamed(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    rig_build(r, 1, 3, 2048, 3);
    rename_segment(r, 2, 9);
    rename_segment(r, 1, 2);
    rename_segment(r, 9, 1);
    refused(r, TQ_EINVAL, "0000000000000002.log, offset 0:", "renamed");
    rig_free(r);

    r = rig_new(); /* a copy of a segment under the next number */
    rig_build(r, 1, 3, 2048, 3);
    memcpy(rig_file(r, "0000000000000004.log", 2048)->data, rig_segment_file(r, 3)->data, 2048);
    rig_spare(r, 5);
    refused(r, TQ_EINVAL, "0000000000000004.log, offset 0:", "copied");
    rig_free(r);
}

static void test_foreign(void **state)
{
    for (uint64_t n = 1; n <= 3; n++) {
        struct rig *r = rig_new();

        (void)state;
        rig_build(r, 1, 3, 2048, 3);
        r->uuid[3] ^= 1;
        for (size_t i = 0; i < r->record_count; i++)
            if (r->records[i].segment == n) {
                rig_head(r, n, r->records[i].index, 2048);
                break;
            }
        refused(r, TQ_EINVAL, n == 1 ? "0000000000000001.log" : "0000000000000002.log",
                "another data directory");
        rig_free(r);
    }
}

static void test_header(void **state)
{
    for (uint64_t n = 1; n <= 3; n++) {
        struct rig *r = rig_new();
        struct rig_file *f;
        char want[32];

        (void)state;
        rig_build(r, 1, 3, 2048, 3);
        snprintf(want, sizeof(want), "000000000000000%u.log, offset 0:", (unsigned)n);
        f = rig_segment_file(r, n);
        f->data[n * 10] ^= 4;
        refused(r, TQ_EINVAL, want, "");
        f->data[n * 10] ^= 4;
        log_store32(f->data + 8, 7);
        log_store32(f->data + 12, 0);
        log_store32(f->data + 12, log_crc(0, f->data, LOG_SEGMENT_HEADER_BYTES));
        refused(r, TQ_EUNSUPPORTED, want, "version");
        rig_free(r);
    }
    struct rig *r = rig_new(); /* it begins too late */

    r->index = 5;
    rig_segment(r, 1, 2048, 0);
    rig_ops(r, 5);
    rig_spare(r, 2);
    refused(r, TQ_EINVAL, "0000000000000001.log, offset 0:", "first record");
    rig_free(r);
}

/* The header of the second says a first index that the end of the first does not reach, or is beyond. */
static void test_first_index(void **state)
{
    struct rig *r = rig_new();
    uint64_t first;

    (void)state;
    rig_build(r, 1, 1, 2048, 3);
    first = r->index;
    r->index += 2;
    rig_build(r, 2, 2, 2048, 3);
    rig_drop(r, 2, true);
    refused(r, TQ_EINVAL, "0000000000000001.log", "lost");
    rig_head(r, 2, 1, 2048);
    refused(r, TQ_EINVAL, "0000000000000002.log, offset 128:", "index");
    rig_head(r, 2, first, 2048);
    refused(r, TQ_EINVAL, "0000000000000002.log, offset 128:", "index");
    rig_free(r);

    r = rig_new();
    rig_build(r, 1, 3, 2048, 3);
    rig_head(r, 2, r->index + 9, 2048);
    refused(r, TQ_EINVAL, "0000000000000002.log, offset 0:", "first index");
    rig_free(r);
}

/* Good records of a later release. */
static void test_types(void **state)
{
    struct rig *r = tailed(5);

    (void)state;
    rig_record(r, LOG_TYPE_OPTIONAL | 77, "later", 5);
    opens_up_to(r, r->index - 1);
    rig_record(r, 77, "later", 5);
    refused(r, TQ_EUNSUPPORTED, "0000000000000003.log", "type");
    rig_free(r);

    r = tailed(5);
    rig_record(r, LOG_CONFIG, "\3\0\0\0", 4);
    refused(r, TQ_EUNSUPPORTED, "0000000000000003.log", "cluster");
    rig_free(r);

    r = tailed(5);
    r->uuid[0] ^= 1;
    uint8_t other[20] = {1};
    memcpy(other + 4, r->uuid, 16);
    r->uuid[0] ^= 1;
    rig_record(r, LOG_CONFIG, other, sizeof(other));
    refused(r, TQ_EINVAL, "0000000000000003.log", "another data directory");
    rig_free(r);

    r = tailed(5);
    r->term = 3;
    rig_ops(r, 5);
    opens_up_to(r, r->index - 1);
    r->term = 2;
    rig_ops(r, 5);
    refused(r, TQ_EINVAL, "0000000000000003.log", "term");
    rig_free(r);

    r = tailed(5);
    r->synced -= 2;
    rig_ops(r, 5);
    refused(r, TQ_EINVAL, "0000000000000003.log", "synced");
    rig_free(r);
}

/* ---- the beginning ---- */

static void test_start(void **state)
{
    struct rig *r = rig_new();
    struct log_state s;

    (void)state;
    rig_build(r, 1, 3, 2048, 3);
    rig_drop(r, 4, true);
    rig_segment(r, 4, 2048, 0);
    rig_start(r, 3);
    rig_ops(r, 9);
    rig_spare(r, 5);
    s = opens(r, r->index - 1); /* all of them may still be there */
    assert_true(s.start == 3 && s.segment_count == 4);
    log_state_deinit(&s);

    struct rig_got g = {.from = 1};

    rig_drop(r, 1, false); /* or some */
    for (size_t i = 0; r->records[i].segment == 1; i++)
        g.from = r->records[i].index + 1;
    assert_int_equal(rig_recover(r, &r->fs, &g, &s, err), TQ_OK);
    assert_true(s.start == 3 && s.segment_count == 3 && s.segments[0].number == 2 && g.count > 5);
    log_state_deinit(&s);
    rig_drop(r, 2, false); /* or none that is not needed */
    for (size_t i = 0; r->records[i].segment < 3; i++)
        g.from = r->records[i].index + 1;
    g.at = 0;
    assert_int_equal(rig_recover(r, &r->fs, &g, &s, err), TQ_OK);
    assert_true(s.segments[0].number == 3);
    log_state_deinit(&s);
    rig_check_agrees(&r->fs, TQ_OK);
    rig_drop(r, 3, false); /* and this one is */
    refused(r, TQ_EINVAL, "0000000000000003.log", "missing");
    rig_free(r);
}

/* The files of segments that are not needed are renamed and written to in any order as far as the disk is
 * concerned: a hole, a stranger or another segment's header below `start` is nothing. */
static void test_below_start(void **state)
{
    static const uint64_t start = 4;

    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        struct rig *r = rig_new();
        struct rig_got g = {0};
        struct log_state s;

        rig_build(r, 1, 5, 2048, 3);
        rig_drop(r, 6, true);
        rig_segment(r, 6, 2048, 0);
        rig_start(r, start);
        rig_spare(r, 7);
        for (size_t i = 0; r->records[i].segment < (how == 3 ? 2 : start); i++)
            g.from = r->records[i].index + 1;
        if (how == 0) {
            rig_drop(r, 3, false);
        } else if (how == 1) {
            rig_head(r, 7 - 4, 0x1000, 2048);
            rig_segment_file(r, 3)->data[33] ^= 1;
        } else if (how == 2) {
            rig_segment_file(r, 3)->len = 0;
        } else {
            rig_segment_file(r, 1)->len = 5;
        }
        assert_int_equal(rig_recover(r, &r->fs, &g, &s, err), TQ_OK);
        assert_true(s.start == start && s.segments[0].number == 1 && s.segments[0].end == (how == 3 ? 0 : 0));
        assert_true(s.next_index == r->index);
        log_state_deinit(&s);
        rig_check_agrees(&r->fs, TQ_OK);
        rig_free(r);
    }
}

static void test_bad_start(void **state)
{
    static const uint64_t bad[] = {0, 5, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rig *r = tailed(5);

        rig_start(r, bad[i]);
        refused(r, TQ_EINVAL, "0000000000000003.log", "begins");
        rig_free(r);
    }
    struct rig *r = tailed(5);

    rig_start(r, 3);
    rig_start(r, 2);
    refused(r, TQ_EINVAL, "0000000000000003.log", "begins");
    rig_free(r);
}

/* ---- what fails around it ---- */

static void test_reader_refuses(void **state)
{
    struct rig *r = tailed(3);
    struct rig_got g = {.fail_after = 4};
    struct log_state s;

    (void)state;
    assert_int_equal(rig_recover(r, &r->fs, &g, &s, err), TQ_EPROTO);
    assert_non_null(strstr(err, "0000000000000001.log, offset "));
    assert_non_null(strstr(err, "the reader does not like it"));
    rig_free(r);
}

static void test_no_memory(void **state)
{
    struct rig *r = tailed(2);
    int rv = TQ_ENOMEM;

    (void)state;
    flip(r, last_but(r, 1), 20); /* so that the search takes part */
    for (long n = 0; rv == TQ_ENOMEM; n++) {
        struct rig_got g = {0};
        struct log_state s;

        tq_mem_fail_after(n, 1);
        rv = rig_recover(r, &r->fs, &g, &s, err);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK)
            log_state_deinit(&s);
        else
            assert_string_equal(err, "out of memory");
        assert_true(rv == TQ_ENOMEM || n >= 6);
    }
    assert_int_equal(rv, TQ_OK);
    rv = TQ_ENOMEM;
    flip(r, last_but(r, 5), 20);
    for (long n = 0; rv == TQ_ENOMEM; n++) {
        unsigned count = 0;
        struct log_state s;

        tq_mem_fail_after(n, 1);
        rv = log_check(&r->fs, rig_count_finding, &count, &s, err);
        tq_mem_fail_after(-1, 0);
        if (rv >= 0)
            log_state_deinit(&s);
        assert_true(rv == TQ_ENOMEM || n >= 6);
    }
    assert_int_equal(rv, 1);
    rig_free(r);
}

static void test_disk_fails(void **state)
{
    static const enum fake_fs_call calls[] = {FAKE_FS_LIST, FAKE_FS_OPEN, FAKE_FS_SIZE, FAKE_FS_READ};
    struct rig *r = tailed(3);

    (void)state;
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
        int rv = TQ_EIO;

        for (long n = 0; rv == TQ_EIO; n++) {
            struct fake_fs *f = rig_disk(r);
            struct rig_got g = {0};
            struct log_state s;

            fake_fs_fail(f, calls[c], n, 1, TQ_EIO);
            rv = rig_recover(r, fake_fs_table(f), &g, &s, err);
            assert_true(rv == TQ_EIO || n > 0);
            if (rv == TQ_OK)
                log_state_deinit(&s);
            assert_int_equal(fake_fs_open_files(f), 0);
            fake_fs_free(f);
        }
        assert_int_equal(rv, TQ_OK);
    }
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_segments_without_records),
        cmocka_unit_test(test_large_record),
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_recycled),
        cmocka_unit_test(test_torn_last_record),
        cmocka_unit_test(test_reordered),
        cmocka_unit_test(test_synced_record_is_damage),
        cmocka_unit_test(test_wrong_index),
        cmocka_unit_test(test_record_in_a_body),
        cmocka_unit_test(test_middle_segment),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_renamed),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_first_index),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_below_start),
        cmocka_unit_test(test_bad_start),
        cmocka_unit_test(test_reader_refuses),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_disk_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
