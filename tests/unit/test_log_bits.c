/* Every bit of a log flipped, every length of its files, every tail of zeros: noticed, or it is the end that
 * was never acknowledged; never silently something else. */
#include "tests/unit/log_image.h"

static char err[LOG_ERROR_MAX];

/* Nothing that is not a beginning of what was written; and at least what any record that is whole says to
 * have been synced, and no record that stands before the damage is left out. */
static void judge(struct rig *r, uint64_t file, uint64_t from, uint64_t to, struct rig_got *g, int rv,
                  const struct log_state *s)
{
    uint64_t promised = 0;
    bool hit = false;

    if (rv != TQ_OK) {
        assert_true(rv == TQ_EINVAL || rv == TQ_EUNSUPPORTED);
        return;
    }
    for (size_t i = 0; i < r->record_count; i++) {
        const struct rig_record *w = &r->records[i];
        uint64_t end = w->offset + log_record_bytes(w->len);

        if (w->index < g->from)
            continue;
        if (w->segment == file && w->offset < to && from < end) {
            if (!hit)
                assert_true(s->next_index == w->index); /* the first that is damaged */
            hit = true;
        } else if (w->synced > promised) {
            promised = w->synced;
        }
    }
    if (!hit)
        assert_true(s->next_index == r->index);
    assert_true(promised < s->next_index);
    while (g->at < r->record_count && r->records[g->at].index < s->next_index)
        assert_true(r->records[g->at++].type != LOG_OPS);
}

/* 64 KiB in 16 segments. A flip in one of them is judged beside the next one only, which saves reading the
 * others half a million times; LOG_START in the next makes that a log of its own. */
static struct rig *pair(uint64_t which, uint64_t *ret_first)
{
    struct rig *r = rig_new();

    *ret_first = r->index = which == 1 ? 1 : 50 * which;
    r->synced = r->index - 1;
    rig_segment(r, which, 4096, 0);
    if (which == 1)
        rig_config(r);
    else if (which == 16)
        rig_start(r, which);
    for (uint32_t i = 0; rig_fits(r, (uint32_t)(97 * which + 131 * i) % 300); i++) {
        rig_ops(r, (uint32_t)(97 * which + 131 * i) % 300);
        if (i % 4 == which % 4)
            r->synced = r->index - 2;
    }
    if (which < 16) {
        r->synced = r->index - 1;
        rig_segment(r, which + 1, 512, 0);
        rig_start(r, which);
        rig_ops(r, 20);
    }
    rig_spare(r, r->segment + 1);
    return r;
}

static void test_every_bit(void **state)
{
    unsigned good = 0, cut = 0, refusals = 0;

    (void)state;
    for (uint64_t which = 1; which <= 16; which++) {
        uint64_t first;
        struct rig *r = pair(which, &first);
        uint8_t *data = rig_segment_file(r, which)->data;

        for (uint64_t bit = 0; bit < UINT64_C(8) * 4096; bit++) {
            struct rig_got g = {.from = first};
            struct log_state s;
            int rv;

            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            rv = rig_recover(r, &r->fs, &g, &s, err);
            judge(r, which, bit / 8, bit / 8 + 1, &g, rv, &s);
            if (rv == TQ_OK) {
                good += s.next_index == r->index;
                cut += s.next_index != r->index;
                log_state_deinit(&s);
            } else {
                refusals++;
            }
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        rig_free(r);
    }
    assert_true(good + cut + refusals == 8 * 65536);
    assert_true(cut > 1000 && refusals > 8 * 55000); /* of the last segment; free room */
}

/* The whole of a log, some of its bits; and what `log check` says of the same. */
static void test_bits_of_a_whole_log(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    rig_build(r, 1, 4, 4096, 5);
    for (uint64_t bit = 0; bit < UINT64_C(8) * 4 * 4096; bit += 53) {
        uint64_t n = 1 + bit / (UINT64_C(8) * 4096), at = bit / 8 % 4096;
        uint8_t *data = rig_segment_file(r, n)->data;
        struct rig_got g = {0};
        struct log_state s;
        int rv;

        data[at] ^= (uint8_t)(1u << bit % 8);
        rv = rig_recover(r, &r->fs, &g, &s, err);
        judge(r, n, at, at + 1, &g, rv, &s);
        rig_check_agrees(&r->fs, rv);
        if (rv == TQ_OK)
            log_state_deinit(&s);
        data[at] ^= (uint8_t)(1u << bit % 8);
    }
    rig_free(r);
}

/* A file that somebody made shorter is refused at any length. */
static void test_every_length(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    rig_build(r, 1, 3, 4096, 5);
    for (uint64_t n = 1; n <= 3; n++) {
        struct rig_file *f = rig_segment_file(r, n);

        for (f->len = 0; f->len < 4096; f->len++) {
            struct rig_got g = {0};
            struct log_state s;

            assert_int_equal(rig_recover(r, &r->fs, &g, &s, err), TQ_EINVAL);
            if (f->len % 29 == 0)
                rig_check_agrees(&r->fs, TQ_EINVAL);
        }
    }
    rig_free(r);
}

/* Nothing of the last segment from here on was written: an end, unless it is a header. In others, damage. */
static void test_every_tail_of_zeros(void **state)
{
    struct rig *r = rig_new();

    (void)state;
    rig_build(r, 1, 3, 4096, 5);
    for (uint64_t n = 2; n <= 3; n++) {
        uint8_t *data = rig_segment_file(r, n)->data;
        uint8_t *whole = malloc(4096);

        assert_non_null(whole);
        memcpy(whole, data, 4096);
        for (uint64_t from = 0; from < 4096; from++) {
            struct rig_got g = {0};
            struct log_state s;
            uint64_t end = 0;
            int rv;

            for (size_t i = 0; i < r->record_count; i++)
                if (r->records[i].segment == n)
                    end = r->records[i].offset + log_record_bytes(r->records[i].len);
            memset(data + from, 0, 4096 - from);
            while (end > from && whole[end - 1] == 0)
                end--; /* what is zero already is no loss */
            rv = rig_recover(r, &r->fs, &g, &s, err);
            assert_true((rv == TQ_OK) == (n == 3 ? from >= 58 : from >= end));
            if (rv == TQ_OK && n == 3 && from < end) {
                uint64_t kept = 0;

                for (size_t i = 0; i < r->record_count; i++) {
                    const struct rig_record *w = &r->records[i];
                    bool whole_record =
                        memcmp(data + w->offset, whole + w->offset, log_record_bytes(w->len)) == 0;

                    if (w->segment < 3 || whole_record)
                        kept = w->index;
                    else
                        break;
                }
                assert_true(s.next_index == kept + 1);
            }
            if (rv == TQ_OK)
                log_state_deinit(&s);
            memcpy(data, whole, 4096);
        }
        free(whole);
    }
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_bits_of_a_whole_log),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_tail_of_zeros),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
