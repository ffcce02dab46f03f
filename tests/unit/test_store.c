/* The store: what was told is there after any end of the process, a reply waits for what it tells of, and who
 * cannot record does not tell. */
#include "master/core/broker_impl.h"
#include "tests/unit/store_rig.h"

/* ---- lives ---- */

static void an_empty_directory_is_a_new_log(void **state)
{
    struct store_rig *g = rig_new();

    (void)state;
    start(g);
    assert_true(g->report.empty);
    assert_false(g->report.closed);
    assert_int_equal(g->report.tasks, 0);
    flush(g);
    assert_int_equal(status(g).live_tasks, 0);
    while (store_next_ms(g->st) != UINT64_MAX) {
        g->r.now_ms = store_next_ms(g->st);
        flush(g);
    }
    kill_it(g);
    start(g);
    assert_false(g->report.empty);
    assert_int_equal(g->report.queues, 2);
    assert_string_equal(broker_queue_conf(queue(g, "task_queue"))->result, "result_queue");
    rig_free(g);
}

/* Tasks in every state: three ready, one leased by a worker that lives, one by one that does not, one done.
 */
static struct token some_work(struct store_rig *g)
{
    struct native_client *p, *w, *v;
    struct token token;

    p = client(&g->r, "");
    say(p, "[0,1,'put',{q:'task_queue',tasks:[['a',{key:'k'}],['b'],['c'],['d'],['e'],['f']]}]");
    hear(p, "[1,1,nil,{ids:[1,2,3,4,5,6]}]");
    w = native_rig_connect(&g->r, 0);
    token = hello_token(w, "{version:1,worker:'w'}");
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[[1,1,1,'a',{key:'k'}],[2,1,1,'b']]}]");
    v = client(&g->r, "");
    say(v, "[0,1,'get',{q:'task_queue'}]");
    hear(v, "[1,1,nil,{tasks:[[3,1,1,'c']]}]");
    say(w, "[0,2,'done',{done:[[2,1,'B']]}]");
    hear(w, "[1,2,nil,{ok:1}]");
    return token;
}

static void look_at_work(struct store_rig *g, const struct token *token)
{
    struct native_client *p, *w;

    assert_int_equal(g->report.tasks, 6);
    assert_int_equal(g->report.sessions, 1);
    w = native_rig_connect(&g->r, 0);
    say(w, "[0,1,'hello',{version:1,worker:'w',token:%s,leases:[[1,1]]}]", token->text);
    hear(w, "[1,1,nil,{*,resumed:true,leases:[[1,1]]}]");
    p = client(&g->r, "");
    /* c comes first, it was handed out: attempt 2, or the master's own end was it that took it back. */
    say(p, "[0,1,'get',{q:'task_queue',max:10}]");
    hear(p, "[1,1,nil,{tasks:[[3,2,%d,'c'],[4,1,1,'d'],[5,1,1,'e'],[6,1,1,'f']]}]", g->report.closed ? 1 : 2);
    say(w, "[0,2,'done',{done:[[1,1,'A']]}]");
    hear(w, "[1,2,nil,{ok:1}]");
    say(p, "[0,2,'put',{q:'task_queue',tasks:[['a',{key:'k'}]]}]");
    hear(p, "[1,2,nil,{ids:[1],known:*}]");
    say(p, "[0,3,'get',{q:'result_queue',max:10}]");
    hear(p, "[1,3,nil,{tasks:[[2,3,1,'B',*],[1,3,1,'A',*]]}]");
    check(&g->r);
}

static void what_was_told_outlives_the_process(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct store_rig *g = rig_new();
        struct token token;

        start(g);
        token = some_work(g);
        flush(g);
        if (i == 0)
            kill_it(g);
        else if (i == 3)
            close_it(g);
        else
            power_cut(g, i == 1 ? FAKE_FS_LOSE_ALL : FAKE_FS_LOSE_BLOCKS);
        if (i == 3)
            power_cut(g, FAKE_FS_LOSE_ALL);
        start(g);
        assert_int_equal(g->report.closed, i == 3);
        look_at_work(g, &token);
        rig_free(g);
    }
}

/* And again: what recovery itself changed is recorded, too. */
static void several_ends_in_a_row(void **state)
{
    struct store_rig *g = rig_new();
    struct token token;

    (void)state;
    start(g);
    token = some_work(g);
    flush(g);
    for (unsigned i = 0; i < 5; i++) {
        if (i % 2 == 0)
            kill_it(g);
        else
            power_cut(g, FAKE_FS_LOSE_ALL);
        start(g);
        assert_int_equal(g->report.tasks, 6);
        if (i == 3)
            flush(g); /* or nothing comes to the disk but what log_open does */
    }
    look_at_work(g, &token);
    rig_free(g);
}

static void ids_and_counters_go_on(void **state)
{
    struct store_rig *g = rig_new();
    struct broker_stats before, after;

    (void)state;
    start(g);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(bulk_put(g, "task_queue"), i + 1);
    assert_int_equal(bulk_get(g, "task_queue", 10, true), 10);
    broker_get_stats(g->r.broker, &before);
    flush(g);
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    broker_get_stats(g->r.broker, &after);
    assert_int_equal(after.puts, before.puts);
    assert_int_equal(after.gets, before.gets);
    assert_true(bulk_put(g, "task_queue") >
                10); /* it was not closed: none is given again, even if it was lost */
    rig_free(g);
}

/* ---- who waits for what ---- */

static void a_reply_waits_for_its_record(void **state)
{
    struct store_rig *g = rig_new();
    struct log_need none, put, lease, nothing;

    (void)state;
    start(g);
    flush(g);
    none = store_need(g->st);
    assert_true(store_is_met(g->st, none));
    bulk_put(g, "task_queue");
    turn(g);
    put = store_need(g->st);
    assert_false(store_is_met(g->st, put));
    assert_true(store_is_met(g->st, none));
    assert_true(run_job(g));
    assert_true(store_is_met(g->st, put));
    assert_true(g->progress > 0);
    flush(g);

    /* A hand-out only has to be written: no sync is made for it. */
    bulk_get(g, "task_queue", 1, false);
    turn(g);
    lease = store_need(g->st);
    assert_false(store_is_met(g->st, lease));
    assert_true(run_job(g));
    assert_true(store_is_met(g->st, lease));
    assert_true(status(g).log.synced < status(g).log.written);

    /* Who changes nothing waits for what stood there before. */
    bulk_put(g, "task_queue");
    turn(g);
    turn(g);
    nothing = store_need(g->st);
    assert_false(store_is_met(g->st, nothing));
    while (run_job(g))
        ;
    assert_true(store_is_met(g->st, nothing));
    rig_free(g);
}

static void what_was_only_written_may_go_with_the_power(void **state)
{
    struct store_rig *g = rig_new();

    (void)state;
    start(g);
    bulk_put(g, "task_queue");
    flush(g);
    bulk_get(g, "task_queue", 1, false);
    flush(g);
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    assert_int_equal(bulk_get(g, "task_queue", 1, false), 1);
    assert_int_equal(g->bulk.last.outcome, BROKER_REPLY_END);
    flush(g);
    kill_it(g);
    start(g); /* the session has gone with its process */
    assert_int_equal(bulk_get(g, "task_queue", 1, false), 1);
    assert_int_equal(g->bulk.got[0].epoch, 2);
    rig_free(g);
}

static void an_idle_turn_does_nothing(void **state)
{
    struct store_rig *g = rig_new();
    struct store_status before, after;

    (void)state;
    start(g);
    bulk_put(g, "task_queue");
    flush(g);
    g->r.now_ms += 5000;
    flush(g);
    before = status(g);
    for (unsigned i = 0; i < 1000; i++) {
        g->r.now_ms += 5000;
        turn(g);
        assert_null(g->job);
        assert_int_equal(store_next_ms(g->st), UINT64_MAX);
    }
    after = status(g);
    assert_int_equal(after.log.next_index, before.log.next_index);
    rig_free(g);
}

/* ---- failures ---- */

static void after_a_failed_write_nothing_is_told(void **state)
{
    static const enum fake_fs_call calls[] = {FAKE_FS_WRITE, FAKE_FS_SYNC};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct store_rig *g = rig_new();
        struct log_need need, before;

        start(g);
        flush(g);
        before = store_need(g->st);
        fake_fs_fail(g->fs, calls[i], 0, 1, TQ_EIO);
        bulk_put(g, "task_queue");
        turn(g);
        need = store_need(g->st);
        while (run_job(g))
            ;
        assert_true(status(g).failed);
        assert_true(strlen(status(g).error) > 0);
        assert_false(store_is_met(g->st, need));
        assert_false(store_is_met(g->st, before));
        assert_true(store_turn(g->st, g->r.now_ms) < 0);
        assert_true(store_close(g->st, g->r.now_ms) < 0);
        assert_false(store_is_closed(g->st));
        assert_int_equal(store_next_ms(g->st), UINT64_MAX);
        rig_free(g);
    }
}

static void damage_is_refused_by_name(void **state)
{
    struct store_rig *g = rig_new();
    size_t len;

    (void)state;
    start(g);
    for (unsigned i = 0; i < 20; i++) {
        bulk_put(g, "task_queue");
        flush(g);
    }
    close_it(g);
    kill_it(g);
    assert_non_null(fake_fs_bytes(g->fs, "0000000000000001.log", &len));
    fake_fs_flip(g->fs, "0000000000000001.log", 2000, 1);
    assert_true(try_start(g) < 0);
    assert_non_null(strstr(g->err, "0000000000000001.log"));
    end_life(g);
    rig_free(g);
}

/* A record of the right form with nonsense in it. */
static void nonsense_is_refused(void **state)
{
    struct store_rig *g = rig_new();
    struct broker_event ev = {.kind = BROKER_PUT};

    (void)state;
    start(g);
    ev.queue = queue(g, "task_queue");
    ev.payload = (struct broker_payload){.data = (const uint8_t *)"\xc4\x05x", .len = 3};
    bulk_step(g, &ev); /* no whole msgpack value: the dialect would not have let it in */
    flush(g);
    kill_it(g);
    assert_true(try_start(g) < 0);
    assert_non_null(strstr(g->err, "body"));
    end_life(g);
    rig_free(g);
}

/* Ids of what is in memory only are told, too, before a recovery could not know of them. */
static void ids_wait_for_the_disk(void **state)
{
    struct store_rig *g = rig_new();
    uint64_t first, second;

    (void)state;
    start(g);
    flush(g);
    assert_false(store_is_busy(g->st));
    first = broker_journal_next_id(g->r.broker) + JOURNAL_ID_SKIP / 2 + 1;
    assert_int_equal(ids_skip(g->r.broker->ids, first), 0);
    assert_true(store_is_busy(g->st)); /* nobody is listened to */
    bulk_put(g, "task_queue");
    turn(g);
    assert_true(store_is_busy(g->st));
    assert_false(store_is_met(g->st, store_need(g->st)));
    flush(g);
    assert_false(store_is_busy(g->st));
    /* after a power cut, before anything of this life was synced, the same */
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    second = broker_journal_next_id(g->r.broker);
    assert_int_equal(second, first + 1 + JOURNAL_ID_SKIP);
    assert_true(store_is_busy(g->st));
    flush(g);
    assert_false(store_is_busy(g->st));
    power_cut(g, FAKE_FS_LOSE_ALL);
    start(g);
    assert_int_equal(broker_journal_next_id(g->r.broker), second + JOURNAL_ID_SKIP);
    rig_free(g);
}

/* ---- memory ---- */

static void a_turn_without_memory_is_made_up_for(void **state)
{
    (void)state;
    for (long n = 0; n < 6; n++) {
        struct store_rig *g = rig_new();
        struct log_need need, later;
        int rv;

        start(g);
        flush(g);
        bulk_put_len(g, "task_queue", 3000);
        tq_mem_fail_after(n, 1000);
        rv = store_turn(g->st, g->r.now_ms);
        tq_mem_fail_after(-1, 0);
        need = store_need(g->st);
        if (rv == 0) {
            assert_false(store_is_met(g->st, need));
            assert_true(store_next_ms(g->st) > g->r.now_ms); /* not at once: it would not be there either */
            assert_true(n > 0 || store_next_ms(g->st) <= g->r.now_ms + 100);
            while (run_job(g))
                ;
            flush(g);
            bulk_put(g, "task_queue");
            turn(g);
            later = store_need(g->st);
            assert_true(store_is_met(g->st, need));
            assert_false(store_is_met(g->st, later));
            flush(g);
            assert_true(store_is_met(g->st, later));
        } else {
            assert_true(status(g).failed);
            assert_false(store_is_met(g->st, need));
        }
        power_cut(g, FAKE_FS_LOSE_ALL);
        start(g);
        assert_int_equal(size_of(g, "task_queue"), rv == 0 ? 2 : 0);
        rig_free(g);
    }
}

static void a_start_without_memory_fails_and_harms_nothing(void **state)
{
    struct store_rig *g = rig_new();
    struct token token;
    unsigned failures = 0;
    int rv = TQ_ENOMEM;

    (void)state;
    start(g);
    token = some_work(g);
    flush(g);
    kill_it(g);
    for (long n = 0; rv != 0; n++) {
        struct fake_fs *copy = fake_fs_kill(g->fs, fake_fs_point(g->fs), false, &g->random), *kept = g->fs;

        assert_non_null(copy);
        g->fs = copy;
        tq_mem_fail_after(n, 1);
        rv = try_start(g);
        tq_mem_fail_after(-1, 0);
        if (rv == 0) {
            flush(g);
            look_at_work(g, &token);
        } else {
            failures++;
        }
        end_life(g);
        fake_fs_free(copy);
        g->fs = kept;
    }
    assert_true(failures > 20);
    rig_free(g);
}

/* ---- any moment ---- */

/* Puts and completions; after each, what was told by then. The power goes at every change of the disk. */
#define TOLD 64

struct told {
    size_t point;
    uint64_t put, done;
};

static void nothing_told_is_lost_at_any_moment(void **state)
{
    struct store_rig *g = rig_new();
    struct told told[TOLD] = {{0}};
    struct fake_fs *all;
    uint64_t done = 0;
    size_t first, last, points = 0;

    (void)state;
    start(g);
    flush(g);
    first = fake_fs_point(g->fs);
    told[0].point = first;
    for (unsigned i = 1; i < TOLD; i++) {
        size_t got;

        bulk_put_len(g, "task_queue", i % 5 == 0 ? 3000 : 100);
        bulk_put(g, "task_queue");
        got = bulk_get(g, "task_queue", i % 2 + 1, false);
        for (size_t k = 0; k < got; k++)
            bulk_done(g, &g->bulk.got[k]);
        done += got;
        flush(g);
        told[i] = (struct told){.point = fake_fs_point(g->fs), .put = 2ull * i, .done = done};
    }
    all = g->fs;
    last = fake_fs_point(all);
    g->fs = fake_fs_kill(all, last, false, &g->random);
    store_free(g->st);
    g->st = NULL;
    native_rig_deinit(&g->r);
    for (size_t point = first; point <= last; point++) {
        const struct told *t = &told[TOLD - 1];
        struct broker_stats stats;

        while (t->point > point)
            t--;
        fake_fs_free(g->fs);
        g->fs = point % 3 == 0 ? fake_fs_kill(all, point, true, &g->random)
                               : fake_fs_power_cut(all, point, FAKE_FS_LOSE_ANY, &g->random);
        start(g);
        broker_get_stats(g->r.broker, &stats);
        assert_true(stats.puts >= t->put + t->done); /* a result is a put, too */
        assert_true(size_of(g, "result_queue") >= t->done);
        assert_int_equal(size_of(g, "task_queue") + size_of(g, "result_queue") + stats.leased, stats.tasks);
        assert_true(stats.tasks >= t->put && stats.tasks <= t->put + 2);
        store_free(g->st);
        g->st = NULL;
        native_rig_deinit(&g->r);
        g->job = NULL;
        points++;
    }
    assert_true(points > 100);
    fake_fs_free(all);
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_directory_is_a_new_log),
        cmocka_unit_test(what_was_told_outlives_the_process),
        cmocka_unit_test(several_ends_in_a_row),
        cmocka_unit_test(ids_and_counters_go_on),
        cmocka_unit_test(a_reply_waits_for_its_record),
        cmocka_unit_test(what_was_only_written_may_go_with_the_power),
        cmocka_unit_test(an_idle_turn_does_nothing),
        cmocka_unit_test(after_a_failed_write_nothing_is_told),
        cmocka_unit_test(damage_is_refused_by_name),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(ids_wait_for_the_disk),
        cmocka_unit_test(a_turn_without_memory_is_made_up_for),
        cmocka_unit_test(a_start_without_memory_fails_and_harms_nothing),
        cmocka_unit_test(nothing_told_is_lost_at_any_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
