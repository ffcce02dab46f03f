/* Homes: which segments are still needed, how old ones are emptied, how much there is; and what happens when
 * there is no memory. */
#include "tests/unit/journal_rig.h"

#include <stdlib.h>

static uint64_t oldest(const struct jw *w)
{
    return broker_journal_oldest(w->r.b);
}

/* The whole of it at once. How many bytes were noted. */
static uint64_t move(struct jw *w, uint64_t segment)
{
    unsigned budget = UINT32_MAX;
    uint64_t at = 0, bytes;

    assert_true(broker_journal_move(w->r.b, segment, &at, &budget, &bytes));
    jr_check(w->r.b);
    return bytes;
}

static void the_oldest_home_goes_up(void **state)
{
    struct jw *w = jw_new(); /* queues and totals are at home in 1 */
    uint64_t ids[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        w->read.segment = (uint64_t)i + 2;
        ids[i] = jw_put(w, w->plain, "x");
        assert_int_equal(oldest(w), 1);
    }
    move(w, 1);
    assert_int_equal(oldest(w), 1); /* until it is written */
    jw_expect(w, 0, 0, JOURNAL_NO_WAIT);
    for (size_t i = 0; i < 4; i++)
        assert_non_null(read_find(&w->read, OPS_QUEUE, i));
    assert_non_null(read_find(&w->read, OPS_COUNTS, 3));
    assert_int_equal(oldest(w), 2);
    /* Small ops do not make a new home. */
    w->read.segment = 7;
    struct nr_lease l = jw_get(w, w->plain);
    assert_int_equal(l.id, ids[0]);
    assert_int_equal(oldest(w), 2);
    assert_int_equal(nr_about(&w->r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    jw_turn(w);
    assert_int_equal(oldest(w), 2);
    /* What has ended counts until that is written. */
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, ids[0]), BROKER_REPLY_OK);
    assert_int_equal(oldest(w), 2);
    jw_turn(w);
    assert_int_equal(oldest(w), 3);
    /* One in the middle, then the one before it. */
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, ids[2]), BROKER_REPLY_OK);
    jw_turn(w);
    assert_int_equal(oldest(w), 3);
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, ids[1]), BROKER_REPLY_OK);
    jw_turn(w);
    assert_int_equal(oldest(w), 5);
    /* A result has a home of its own; so has what was moved. */
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, w->plain, ids[3]), "r"), BROKER_REPLY_OK);
    jw_turn(w);
    assert_int_equal(oldest(w), 6);
    w->read.segment = 8;
    move(w, 7);
    jw_turn(w);
    assert_non_null(read_find(&w->read, OPS_TOTALS, 0)); /* nothing has changed in them */
    assert_int_equal(oldest(w), 8);
    jw_free(w);
}

/* The totals are at home somewhere, too, even if nothing else is. */
static void the_totals_are_moved_alone(void **state)
{
    struct jw *w = jw_new();

    (void)state;
    w->read.segment = 2;
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, jw_put(w, w->plain, "x")), BROKER_REPLY_OK);
    jw_turn(w);
    w->read.segment = 3;
    move(w, 1);
    jw_turn(w);
    assert_null(read_find(&w->read, OPS_TOTALS, 0));
    assert_int_equal(oldest(w), 2);
    w->read.segment = 4;
    assert_int_equal(move(w, 2), 0);
    jw_expect(w, 0, 0, JOURNAL_NO_WAIT);
    assert_int_equal(w->read.count, 2);
    assert_int_equal(read_find(&w->read, OPS_TOTALS, 0)->totals.puts, 1);
    assert_int_equal(oldest(w), 3);
    /* All there is: a segment that has not been written yet is no other. */
    assert_int_equal(move(w, UINT64_MAX), 4 * JOURNAL_QUEUE_OP_BYTES);
    w->read.segment = 5;
    jw_turn(w);
    assert_int_equal(w->read.count, 1 + 4 * 2 + 1);
    assert_int_equal(oldest(w), 5);
    jw_free(w);
}

/* Whatever a task is, moved it is written whole. */
static void what_is_moved_is_written_whole(void **state)
{
    struct jw *w = jw_new();
    struct broker_put_options o = {.delay_ms = 5000, .key = tq_span_str("key")};

    (void)state;
    uint64_t leased = jw_put(w, w->work, "leased");
    w->r.now_ms = 1100;
    struct nr_lease l = jw_get(w, w->work);
    assert_int_equal(nr_extend(&w->r, l, 700), BROKER_REPLY_OK);
    jw_turn(w);
    uint64_t failed = jw_put(w, w->work, "failed");
    assert_int_equal(nr_fail(&w->r, jw_get(w, w->work), "why", false), BROKER_REPLY_OK);
    uint64_t delayed = nr_put_with(&w->r, 0, w->work, "delayed", &o);
    uint64_t kept = nr_put(&w->r, 0, w->plain, "1");
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, w->plain, kept), "kept"), BROKER_REPLY_OK);
    jw_turn(w);
    int64_t place = jw_task(w, delayed)->place;
    w->r.now_ms = 1200;
    w->read.segment = 2;
    uint64_t noted = move(w, 1);
    jw_expect(w, 4, 0, JOURNAL_NO_WAIT);
    assert_int_equal(noted, broker_journal_live_bytes(w->r.b));
    const struct read_op *t = jw_task(w, leased);
    assert_int_equal(t->mask, OPS_FULL | OPS_PAYLOAD | OPS_LEASE);
    assert_int_equal(t->put_ms, 1000);
    assert_int_equal(t->since_ms, 1100);
    assert_int_equal(t->limit_ms, 1800 + 1);
    assert_span(t->payload, "leased");
    t = jw_task(w, failed);
    assert_int_equal(t->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    assert_int_equal(t->state, BROKER_TASK_DELAYED);
    assert_span(t->extra.error, "why");
    t = jw_task(w, delayed);
    assert_int_equal(t->place, place);
    assert_int_equal(t->extra.fixed.due_ms, 6100);
    assert_span(t->extra.key, "key");
    t = jw_task(w, kept);
    assert_int_equal(t->state, BROKER_TASK_KEPT);
    assert_span(t->payload, "kept");
    assert_int_equal(oldest(w), 2);
    jw_free(w);
}

/* In slices, while tasks come, change, move from queue to queue and go. */
static void moving_goes_on_between_changes(void **state)
{
    struct jw *w = jw_new();
    uint64_t at = 0, bytes, all = 0;
    unsigned slices = 0;
    bool is_through = false;

    (void)state;
    jw_put_many(w, w->work, "a body of some bytes", 3000);
    jw_turn(w);
    w->read.segment = 2;
    while (!is_through) {
        unsigned budget = 100;

        is_through = broker_journal_move(w->r.b, 1, &at, &budget, &bytes);
        assert_true(is_through || budget == 0);
        assert_true(bytes <= 100 * 60);
        all += bytes;
        slices++;
        if (slices % 3 == 0)
            nr_put(&w->r, 0, w->plain, "new");
        if (slices % 4 == 0)
            assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, w->work, 0), "r"), BROKER_REPLY_OK);
        if (slices % 5 == 0)
            assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, slices * 50), BROKER_REPLY_OK);
        jw_turn(w);
        assert_true(w->read.tasks <= 103);
    }
    assert_true(slices >= 30 && slices < 80);
    assert_true(all > 2900 * 50);
    assert_int_equal(oldest(w), 2);
    assert_int_equal(move(w, 1), 0); /* nothing is at home there */
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    jw_free(w);
}

static void large_bodies_use_the_budget_up(void **state)
{
    struct jw *w = jw_new();
    char *large = malloc(65537);
    uint64_t at = 0, bytes;
    unsigned budget = 100;

    (void)state;
    assert_non_null(large);
    memset(large, 'x', 65536);
    large[65536] = 0;
    jw_put_many(w, w->plain, large, 10);
    jw_turn(w);
    w->read.segment = 2;
    assert_false(broker_journal_move(w->r.b, 1, &at, &budget, &bytes));
    assert_int_equal(budget, 0);
    assert_true(bytes >= 2 * 65536 && bytes < 3 * 65536);
    jw_expect(w, 2, 0, JOURNAL_NO_WAIT);
    /* What is noted already, or at home elsewhere, is not noted again. */
    budget = UINT32_MAX;
    assert_true(broker_journal_move(w->r.b, 1, &at, &budget, &bytes));
    assert_true(bytes >= 8 * 65536 && bytes < 9 * 65536);
    assert_int_equal(move(w, 1), 0);
    jw_expect(w, 8, 0, JOURNAL_NO_WAIT);
    jw_free(w);
    free(large);
}

/* Many tasks that live long, in few segments, and few that are new: a pass over a segment of new ones does
 * not look at the others; nor does one over segments that are empty. */
static void moving_looks_only_at_what_may_be_there(void **state)
{
    struct jw *w = jw_new();
    uint64_t at = 0, bytes;
    unsigned budget = 400;

    (void)state;
    jw_put_many(w, w->plain, "long", 5000);
    jw_turn(w);
    for (uint64_t s = 2; s < 6; s++) {
        w->read.segment = s;
        jw_put_many(w, w->work, "short", 100);
        jw_turn(w);
    }
    w->read.segment = 6;
    move(w, 1);
    jw_expect(w, 5000, 0, JOURNAL_NO_WAIT);
    jw_put_many(w, w->work, "short", 100);
    jw_turn(w);
    assert_int_equal(oldest(w), 2);
    w->read.segment = 7;
    assert_true(broker_journal_move(w->r.b, 4, &at, &budget, &bytes));
    assert_true(budget > 0 && budget < 100);
    jw_expect(w, 300, 0, JOURNAL_NO_WAIT);
    assert_int_equal(oldest(w), 5);
    at = 0;
    budget = 1;
    assert_true(broker_journal_move(w->r.b, 4, &at, &budget, &bytes));
    assert_int_equal(budget, 1);
    assert_int_equal(bytes, 0);
    /* Those that came and those that were moved, in one segment. */
    move(w, 5);
    jw_turn(w);
    w->read.segment = 8;
    move(w, 6);
    jw_turn(w);
    assert_int_equal(w->read.tasks, 5100);
    assert_int_equal(oldest(w), 7);
    jw_free(w);
}

/* What is said to live is about what it takes to write it, of whatever kind, and nothing when it has gone. */
static void live_bytes_are_what_it_takes_to_write_all(void **state)
{
    (void)state;
    for (int kind = 0; kind < 9; kind++) {
        struct jw *w = jw_new();
        struct broker_put_options o = {
            .key = kind == 1 ? tq_span_str("a-key-of-some-length") : tq_span("", 0),
            .delay_ms = kind == 2 ? 100000 : 0,
            .has_result = kind == 3,
            .result = w->results,
        };
        uint64_t before = broker_journal_live_bytes(w->r.b), live, first = 0;

        w->r.now_ms = UINT64_C(1760000000000);
        for (int i = 0; i < 300; i++) {
            char key[40];
            struct broker_queue *q = kind == 6 ? w->plain : w->work;
            uint64_t id;

            snprintf(key, sizeof(key), "a-key-of-some-length-%d", i);
            if (kind == 1)
                o.key = tq_span_str(key);
            id = nr_put_with(&w->r, 0, q, "thirty bytes of a body are here", &o);
            first = first != 0 ? first : id;
            if (kind == 4 || kind == 6)
                assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, q, id), "result"), BROKER_REPLY_OK);
            if (kind == 7 || kind == 8)
                assert_int_equal(nr_fail(&w->r, nr_get(&w->r, 1, q, id), "it broke", kind == 8),
                                 BROKER_REPLY_OK);
            if (kind == 5)
                nr_get(&w->r, 1, w->work, id);
        }
        jw_turn(w);
        live = broker_journal_live_bytes(w->r.b) - before;
        assert_int_equal(broker_journal_live_tasks(w->r.b), 300);
        w->read.segment = 2;
        move(w, 1);
        jw_turn(w);
        /* At most a little too low, and never much too high. */
        if (live < w->read.bytes * 97 / 100 || live > w->read.bytes * 3 / 2)
            fail_msg("kind %d: %u bytes live, %u were written", kind, (unsigned)live,
                     (unsigned)w->read.bytes);
        for (uint64_t id = first; id < first + 300; id++)
            while (!nr_is_gone(&w->r, id)) /* its result, too */
                assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, id), BROKER_REPLY_OK);
        jw_turn(w);
        assert_int_equal(broker_journal_live_bytes(w->r.b), before);
        assert_int_equal(broker_journal_live_tasks(w->r.b), 0);
        jw_free(w);
    }
}

/* ---- no memory, no room ---- */

static void change_much(struct jw *w)
{
    struct broker_put_options o = {.key = tq_span_str("k"), .delay_ms = 50};
    struct broker_queue_conf c = nr_conf(NULL, NULL);

    jw_put_many(w, w->work, "plain", 1200);
    jw_turn(w);
    w->read.segment = 2;
    nr_put_with(&w->r, 0, w->work, "delayed", &o);
    for (int i = 0; i < 40; i++)
        assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, w->work, 0), "result"), BROKER_REPLY_OK);
    for (uint64_t id = 100; id < 140; id++)
        assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, id), BROKER_REPLY_OK);
    nr_get(&w->r, 1, w->work, 0);
    nr_declare(&w->r, "one-more", &c);
    move(w, 1);
}

/* Whatever allocation fails: nothing is forgotten, and the record is the same in the end. */
static void a_collect_that_fails_has_not_been(void **state)
{
    struct jw *reference = jw_new();
    struct tq_buf ops = TQ_BUF_NULL(SIZE_MAX);
    enum journal_wait wait;
    unsigned failures = 0;
    int rv = TQ_ENOMEM;

    (void)state;
    change_much(reference);
    uint64_t live = broker_journal_live_bytes(reference->r.b);
    jw_turn(reference);
    assert_true(reference->read.bytes > 20000);
    struct jw *w = jw_new();
    change_much(w);
    assert_int_equal(broker_journal_live_bytes(w->r.b), live);
    for (long n = 0; rv != TQ_OK; n++) {
        assert_int_equal(tq_buf_append_str(&ops, "before"), 0);
        tq_mem_fail_after(n, 1);
        rv = broker_journal_collect(w->r.b, 2, &ops, &wait);
        tq_mem_fail_after(-1, 0);
        jr_check(w->r.b);
        if (rv == TQ_OK)
            break;
        assert_int_equal(rv, TQ_ENOMEM);
        assert_int_equal(ops.len, 6);
        assert_int_equal(wait, JOURNAL_NOTHING);
        assert_true(broker_journal_has_news(w->r.b));
        assert_int_equal(broker_journal_live_bytes(w->r.b), live);
        assert_int_equal(oldest(w), 1);
        tq_buf_deinit(&ops);
        failures++;
    }
    assert_true(failures > 5);
    assert_int_equal(ops.len, 6 + reference->ops.len);
    assert_memory_equal(ops.data + 6, reference->ops.data, reference->ops.len);
    assert_int_equal(wait, reference->read.wait);
    assert_int_equal(broker_journal_live_bytes(w->r.b), broker_journal_live_bytes(reference->r.b));
    assert_int_equal(oldest(w), 2);
    tq_buf_deinit(&ops);
    jw_free(w);
    jw_free(reference);
}

static void a_buffer_that_is_too_small_is_told(void **state)
{
    struct jw *w = jw_new();
    struct jw *reference = jw_new();
    enum journal_wait wait;

    (void)state;
    change_much(w);
    change_much(reference);
    jw_turn(reference);
    for (size_t max = 0; max < reference->read.bytes; max += 1 + max / 4) {
        struct tq_buf ops = TQ_BUF_NULL(max);

        assert_int_equal(broker_journal_collect(w->r.b, 2, &ops, &wait), TQ_ELIMIT);
        jr_check(w->r.b);
        assert_int_equal(ops.len, 0);
        tq_buf_deinit(&ops);
    }
    jw_turn(w);
    assert_int_equal(w->ops.len, reference->ops.len);
    assert_memory_equal(w->ops.data, reference->ops.data, w->ops.len);
    jw_free(w);
    jw_free(reference);
}

static void segments_that_are_too_far_apart_are_told(void **state)
{
    struct jw *w = jw_new();
    enum journal_wait wait;

    (void)state;
    tq_buf_clear(&w->ops);
    nr_put(&w->r, 0, w->plain, "x");
    assert_int_equal(broker_journal_collect(w->r.b, UINT64_C(1) << 40, &w->ops, &wait), TQ_ELIMIT);
    jr_check(w->r.b);
    /* A million of them are none too many. */
    w->read.segment = 1000000;
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    assert_int_equal(oldest(w), 1);
    move(w, 1);
    jw_turn(w);
    assert_int_equal(oldest(w), 1000000);
    for (uint64_t s = 1000001; s < 1000300; s++) { /* places of the table come round */
        w->read.segment = s;
        jw_put(w, w->plain, "y");
        move(w, s - 5);
        jw_turn(w);
        assert_true(oldest(w) > s - 5);
    }
    /* Nothing is left behind at that distance: all has been moved on the way. */
    w->read.segment = 1000300 + JOURNAL_HOME_MASK / 2;
    move(w, 1000300);
    tq_mem_fail_after(0, 1); /* the table would grow */
    assert_int_equal(broker_journal_collect(w->r.b, w->read.segment, &w->ops, &wait), TQ_ENOMEM);
    tq_mem_fail_after(-1, 0);
    jw_free(w);
}

/* A get for good that fails puts the task back where it stood, with a number of its own. */
static void what_goes_back_for_lack_of_memory_is_noted(void **state)
{
    struct jw *w = jw_new();
    struct broker_event take = nr_event(&w->r, BROKER_GET, 1);
    unsigned failures = 0;

    (void)state;
    take.queue = w->work;
    take.max = 1;
    take.take = true;
    uint64_t id = jw_put(w, w->work, "1");
    jw_put(w, w->work, "2");
    for (long n = 0; failures < 1 && n < 10; n++) {
        tq_mem_fail_after(n, 1);
        assert_int_equal(nr_call(&w->r, &take), BROKER_REPLY_NO_MEMORY);
        failures += broker_journal_has_news(w->r.b);
    }
    assert_int_equal(failures, 1);
    jw_expect(w, 1, 0, JOURNAL_NO_WAIT);
    assert_int_equal(jw_task(w, id)->place, -3);
    assert_int_equal(jw_task(w, id)->mask, 0);
    jw_free(w);
}

static void note_some(struct jw *w, uint64_t from, uint64_t to)
{
    for (uint64_t id = from; id < to; id++)
        journal_note_task(w->r.b, ids_find(w->r.b->ids, id), 0, JOURNAL_NO_WAIT);
}

/* Notes have room beforehand: it takes memory that fails for long until one is lost. Then the journal says
 * so, for ever. */
static void a_note_that_is_lost_is_told(void **state)
{
    struct jw *w = jw_new();
    uint64_t first = 1, half = first + JOURNAL_CHUNK_ENTRIES / 2 + 1,
             both = first + 2 * JOURNAL_CHUNK_ENTRIES;

    (void)state;
    jw_put_many(w, w->plain, "x", 3 * JOURNAL_CHUNK_ENTRIES);
    jw_turn(w);
    assert_true(w->r.b->journal->spare != NULL);
    while (w->r.b->journal->spare != NULL) { /* as if it had never been so much */
        struct journal_chunk *c = w->r.b->journal->spare;

        w->r.b->journal->spare = c->next;
        w->r.b->journal->spare_count--;
        tq_free(c);
    }
    assert_int_equal(w->r.b->journal->spare_count, 0);
    note_some(w, first, half);
    tq_mem_fail_after(0, 1000000);
    note_some(w, half, both);
    assert_false(broker_journal_failed(w->r.b));
    note_some(w, both, both + 1);
    assert_true(broker_journal_failed(w->r.b));
    tq_mem_fail_after(-1, 0);
    note_some(w, both + 1, both + 2);
    jr_check(w->r.b);
    assert_true(broker_journal_failed(w->r.b));
    jw_free(w);
}

/* However much a turn changes, and however often: what is kept for the next one is bounded. */
static void chunks_are_used_again(void **state)
{
    struct jw *w = jw_new();
    unsigned long count;

    (void)state;
    jw_put_many(w, w->plain, "x", 18 * JOURNAL_CHUNK_ENTRIES);
    jw_turn(w);
    assert_int_equal(w->r.b->journal->spare_count, JOURNAL_SPARE_CHUNKS);
    count = tq_mem_count();
    for (int i = 0; i < 5; i++) {
        note_some(w, 1, 10 * JOURNAL_CHUNK_ENTRIES);
        jw_turn(w);
    }
    assert_int_equal(tq_mem_count(), count);
    jw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_home_goes_up),
        cmocka_unit_test(the_totals_are_moved_alone),
        cmocka_unit_test(what_is_moved_is_written_whole),
        cmocka_unit_test(moving_goes_on_between_changes),
        cmocka_unit_test(large_bodies_use_the_budget_up),
        cmocka_unit_test(moving_looks_only_at_what_may_be_there),
        cmocka_unit_test(live_bytes_are_what_it_takes_to_write_all),
        cmocka_unit_test(a_collect_that_fails_has_not_been),
        cmocka_unit_test(a_buffer_that_is_too_small_is_told),
        cmocka_unit_test(segments_that_are_too_far_apart_are_told),
        cmocka_unit_test(what_goes_back_for_lack_of_memory_is_noted),
        cmocka_unit_test(a_note_that_is_lost_is_told),
        cmocka_unit_test(chunks_are_used_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
