/* What the journal writes of each event, and what whoever is told of it waits for. */
#include "tests/unit/journal_rig.h"

static void the_first_record_is_the_time_and_the_queues(void **state)
{
    struct tq_buf ops = TQ_BUF_NULL(SIZE_MAX);
    struct read *r = calloc(1, sizeof(*r));
    struct nr n;

    (void)state;
    nr_init(&n);
    assert_non_null(r);
    if (!n.j.is_on)
        assert_int_equal(broker_journal_enable(n.b), 0);
    n.j.is_on = false;
    assert_true(broker_journal_has_news(n.b));
    assert_int_equal(broker_journal_oldest(n.b), 0);
    struct broker_queue_conf c = nr_conf("r", "d");
    c.maxsize = 7;
    c.paused = true;
    struct broker_queue *q = nr_declare(&n, "q", &c);
    r->segment = 5;
    read_turn(&n, r, &ops);
    assert_int_equal(r->count, 4);
    assert_int_equal(r->ops[0].time.now_ms, 1000);
    assert_int_equal(r->ops[0].time.next_id, 1);
    assert_int_equal(r->ops[0].time.next_place, 1);
    assert_int_equal(r->ops[0].time.next_queue_serial, q->serial + 1);
    assert_int_equal(r->ops[1].op, OPS_QUEUE);
    assert_int_equal(r->ops[1].q.serial, q->serial);
    assert_true(tq_span_is(r->ops[1].q.name, "q"));
    assert_int_equal(r->ops[1].q.conf.maxsize, 7);
    assert_true(r->ops[1].q.conf.paused);
    assert_string_equal(r->ops[1].q.conf.result, "r");
    assert_int_equal(r->ops[2].op, OPS_COUNTS);
    assert_int_equal(r->ops[3].op, OPS_TOTALS);
    assert_int_equal(r->wait, JOURNAL_SYNCED);
    assert_int_equal(broker_journal_oldest(n.b), 5);
    read_turn(&n, r, &ops);
    assert_int_equal(r->count, 0);
    assert_int_equal(r->wait, JOURNAL_NOTHING);
    nr_deinit(&n);
    tq_buf_deinit(&ops);
    free(r);
}

static void a_put_is_written_whole(void **state)
{
    struct jw *w = jw_new();
    struct broker_put_options o = {.key = tq_span_str("k"),
                                   .trace = tq_span_str("00-trace"),
                                   .ttl_ms = 9000,
                                   .max_attempts = 3,
                                   .has_result = true,
                                   .result = w->plain};

    (void)state;
    w->r.now_ms = 1234;
    uint64_t id = jw_put(w, w->work, "body");
    const struct read_op *t = jw_task(w, id);
    assert_int_equal(t->queue, w->work->serial);
    assert_int_equal(t->mask, OPS_FULL | OPS_PAYLOAD);
    assert_int_equal(t->state, BROKER_TASK_READY);
    assert_int_equal(t->flags, 0);
    assert_int_equal(t->attempts, 0);
    assert_int_equal(t->epoch, 0);
    assert_int_equal(t->place, 1);
    assert_int_equal(t->put_ms, 1234);
    assert_int_equal(t->format, BROKER_MSGPACK);
    assert_span(t->payload, "body");
    assert_int_equal(w->read.ops[0].time.next_id, id + 1);
    assert_int_equal(w->read.ops[0].time.next_place, 2);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.unfinished, 1);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.stats.puts, 1);
    assert_null(read_find(&w->read, OPS_COUNTS, 1));
    assert_null(read_find(&w->read, OPS_QUEUE, 0));
    assert_int_equal(read_find(&w->read, OPS_TOTALS, 0)->totals.puts, 1);

    id = nr_put_with(&w->r, 0, w->work, "2", &o);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    t = jw_task(w, id);
    assert_int_equal(t->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    assert_span(t->extra.key, "k");
    assert_int_equal(t->key_serial, w->work->serial);
    assert_span(t->extra.trace, "00-trace");
    assert_int_equal(t->extra.fixed.expires_ms, 1234 + 9000);
    assert_int_equal(t->extra.fixed.result_serial, w->plain->serial);
    assert_int_equal(t->extra.fixed.max_attempts, 3);

    o = (struct broker_put_options){.delay_ms = 50};
    id = nr_put_with(&w->r, 0, w->work, "3", &o);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    t = jw_task(w, id);
    assert_int_equal(t->state, BROKER_TASK_DELAYED);
    assert_int_equal(t->extra.fixed.due_ms, 1234 + 50);
    assert_int_equal(t->place, 3);
    /* Nobody waits for the end of a delay. */
    nr_pass(&w->r, 50);
    jw_expect(w, 1, 0, JOURNAL_NO_WAIT);
    t = jw_task(w, id);
    assert_int_equal(t->state, BROKER_TASK_READY);
    assert_int_equal(t->mask, OPS_EXTRA);
    assert_int_equal(t->place, 4);
    jw_free(w);
}

static void python_items_and_large_ones_are_written_whole(void **state)
{
    struct jw *w = jw_new();
    struct broker_event ev = nr_event(&w->r, BROKER_PUT, NR_PYTHON);
    char *large = malloc(100001);

    (void)state;
    assert_non_null(large);
    memset(large, 'x', 100000);
    large[100000] = 0;
    ev.queue = w->work;
    ev.payload = nr_payload("python");
    ev.payload.format = BROKER_PYTHON;
    assert_int_equal(nr_call(&w->r, &ev), BROKER_REPLY_NONE);
    uint64_t id = nr_put(&w->r, 0, w->work, large);
    jw_expect(w, 2, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id - 1)->format, BROKER_PYTHON);
    assert_span(jw_task(w, id - 1)->payload, "python");
    assert_span(jw_task(w, id)->payload, large);
    jw_free(w);
    free(large);
}

static void a_hand_out_is_small_and_is_only_written(void **state)
{
    struct jw *w = jw_new();
    struct broker_put_options o = {.key = tq_span_str("a-key-that-is-not-written-again")};

    (void)state;
    nr_put_with(&w->r, 0, w->work, "a body that is not written again either", &o);
    jw_turn(w);
    w->r.now_ms = 2000;
    struct nr_lease l = jw_get(w, w->work);
    const struct read_op *t = jw_task(w, l.id);
    assert_int_equal(t->mask, OPS_LEASE);
    assert_int_equal(t->state, BROKER_TASK_LEASED);
    assert_int_equal(t->epoch, 1);
    assert_int_equal(t->session, w->r.s[1].durable_id);
    assert_int_equal(t->since_ms, 2000);
    assert_int_equal(t->limit_ms, 0);
    assert_int_equal(t->delivered, 1);
    assert_true(w->read.bytes < 70);
    assert_int_equal(nr_extend(&w->r, l, 500), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_WRITTEN);
    t = jw_task(w, l.id);
    assert_int_equal(t->mask, OPS_LEASE);
    assert_int_equal(t->limit_ms, 2500 + 1);
    assert_int_equal(t->epoch, 1);
    jw_free(w);
}

static void a_result_takes_its_tasks_place_in_one_op(void **state)
{
    struct jw *w = jw_new();

    (void)state;
    uint64_t id = jw_put(w, w->work, "1");
    struct nr_lease l = jw_get(w, w->work);
    assert_int_equal(nr_done(&w->r, l, "value"), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    const struct read_op *t = jw_task(w, id);
    assert_int_equal(t->queue, w->results->serial);
    assert_int_equal(t->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    assert_int_equal(t->flags, TASK_RESULT);
    assert_int_equal(t->state, BROKER_TASK_READY);
    assert_span(t->payload, "value");
    assert_span(t->extra.worker, "w1");
    assert_int_equal(t->extra.fixed.outcome, BROKER_OUTCOME_OK);
    assert_int_equal(t->extra.fixed.from_serial, w->work->serial);
    assert_int_equal(t->epoch, 2);
    /* Both queues' counters, and the totals. */
    const struct read_op *c = read_find(&w->read, OPS_COUNTS, 0);
    const struct read_op *d = read_find(&w->read, OPS_COUNTS, 1);
    if (c->counts.serial != w->work->serial) {
        const struct read_op *other = c;
        c = d;
        d = other;
    }
    assert_int_equal(c->counts.unfinished, 0);
    assert_int_equal(c->counts.stats.done, 1);
    assert_int_equal(d->counts.unfinished, 1);
    assert_int_equal(d->counts.stats.puts, 1);
    assert_int_equal(read_find(&w->read, OPS_TOTALS, 0)->totals.acked, 1);
    /* Taken for good, it leaves its end. */
    l = jw_get(w, w->results);
    assert_int_equal(nr_done(&w->r, l, NULL), BROKER_REPLY_OK);
    jw_expect(w, 0, 1, JOURNAL_SYNCED);
    assert_non_null(read_of(&w->read, OPS_END, id));
    assert_int_equal(broker_journal_live_tasks(w->r.b), 0);
    jw_free(w);
}

static void a_result_without_a_queue_is_kept_until_its_end(void **state)
{
    struct jw *w = jw_new();

    (void)state;
    uint64_t id = jw_put(w, w->plain, "1"), other = jw_put(w, w->plain, "2");
    assert_int_equal(nr_done(&w->r, jw_get(w, w->plain), NULL), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    const struct read_op *t = jw_task(w, id);
    assert_int_equal(t->queue, 0);
    assert_int_equal(t->state, BROKER_TASK_KEPT);
    assert_int_equal(t->mask, OPS_FULL | OPS_EXTRA);
    assert_int_equal(t->flags, TASK_RESULT | TASK_NO_VALUE);
    assert_true(t->extra.fixed.expires_ms > w->r.now_ms);
    assert_true(t->extra.fixed.gives_way);
    assert_int_equal(nr_done(&w->r, jw_get(w, w->plain), "v"), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    /* Whoever removes it is told; the end of its retention tells nobody. */
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, other), BROKER_REPLY_OK);
    jw_expect(w, 0, 1, JOURNAL_SYNCED);
    assert_non_null(read_of(&w->read, OPS_END, other));
    nr_pass(&w->r, 1000000);
    assert_true(nr_is_gone(&w->r, id));
    jw_expect(w, 0, 1, JOURNAL_NO_WAIT);
    assert_non_null(read_of(&w->read, OPS_END, id));
    jw_free(w);
}

static void a_failure_is_noted_without_the_body(void **state)
{
    struct jw *w = jw_new();

    (void)state;
    uint64_t id = jw_put(w, w->work, "the body");
    assert_int_equal(nr_fail(&w->r, jw_get(w, w->work), "it broke", false), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    const struct read_op *t = jw_task(w, id);
    assert_int_equal(t->mask, OPS_EXTRA);
    assert_int_equal(t->state, BROKER_TASK_DELAYED);
    assert_int_equal(t->attempts, 1);
    assert_int_equal(t->extra.fixed.code, 7);
    assert_span(t->extra.error, "it broke");
    assert_span(t->extra.worker, "w1");
    nr_pass(&w->r, 1000);
    jw_turn(w);
    /* The second one is the last: a dead letter, with the body, which may be tried anew. */
    assert_int_equal(nr_fail(&w->r, jw_get(w, w->work), "again", false), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    t = jw_task(w, id);
    assert_int_equal(t->queue, w->dead->serial);
    assert_int_equal(t->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    assert_int_equal(t->flags, TASK_DEAD);
    assert_span(t->payload, "the body");
    assert_span(t->extra.error, "again");
    assert_int_equal(nr_by_id(&w->r, BROKER_RETRY, 0, id), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    t = jw_task(w, id);
    assert_int_equal(t->queue, w->work->serial);
    assert_int_equal(t->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    assert_int_equal(t->flags, 0);
    assert_int_equal(t->attempts, 0);
    jw_free(w);
}

static void long_texts_have_room(void **state)
{
    struct jw *w = jw_new();
    struct broker_put_options o = {.has_retention = true, .retention_ms = UINT32_MAX - 1};
    char key[BROKER_KEY_MAX], trace[BROKER_TRACE_MAX], error[BROKER_ERROR_MAX + 10];
    struct broker_failure f = {.error = tq_span(error, sizeof(error)), .code = INT32_MIN, .has_delay = true};

    (void)state;
    memset(key, 'k', sizeof(key));
    memset(trace, 't', sizeof(trace));
    memset(error, 'e', sizeof(error));
    o.key = tq_span(key, sizeof(key));
    o.trace = tq_span(trace, sizeof(trace));
    uint64_t id = nr_put_with(&w->r, 0, w->work, "x", &o);
    tq_buf_deinit(&w->ops); /* so that it has no room left over */
    jw_turn(w);
    assert_int_equal(jw_task(w, id)->extra.trace.len, sizeof(trace));
    struct nr_lease l = jw_get(w, w->work);
    assert_int_equal(nr_fail_with(&w->r, l, &f), BROKER_REPLY_OK);
    tq_buf_deinit(&w->ops);
    jw_turn(w);
    assert_int_equal(jw_task(w, id)->extra.key.len, sizeof(key));
    assert_int_equal(jw_task(w, id)->extra.error.len, BROKER_ERROR_MAX);
    assert_int_equal(jw_task(w, id)->extra.fixed.code, INT32_MIN);
    assert_int_equal(jw_task(w, id)->extra.fixed.retention_ms, UINT32_MAX - 1);
    jw_free(w);
}

static void a_dead_letter_and_its_notice_are_two_tasks(void **state)
{
    struct jw *w = jw_new();
    struct broker_put_options o = {.has_result = true, .result = w->plain, .key = tq_span_str("k")};

    (void)state;
    uint64_t id = nr_put_with(&w->r, 0, w->work, "1", &o);
    jw_turn(w);
    assert_int_equal(nr_fail(&w->r, jw_get(w, w->work), "no", true), BROKER_REPLY_OK);
    jw_expect(w, 2, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id)->flags, TASK_DEAD);
    assert_int_equal(jw_task(w, id)->key_serial, w->work->serial);
    const struct read_op *notice = jw_task(w, id + 1);
    assert_int_equal(notice->queue, w->plain->serial);
    assert_int_equal(notice->extra.fixed.of, id);
    assert_span(notice->extra.key, "k");
    assert_int_equal(notice->key_serial, 0); /* the key is the dead letter's */
    jw_free(w);
}

static void what_comes_back_stands_at_the_front(void **state)
{
    struct jw *w = jw_new();

    (void)state;
    uint64_t id = jw_put(w, w->work, "1");
    jw_put(w, w->work, "2");
    struct nr_lease l = jw_get(w, w->work);
    assert_int_equal(nr_about(&w->r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    const struct read_op *t = jw_task(w, id);
    assert_int_equal(t->mask, 0);
    assert_int_equal(t->state, BROKER_TASK_READY);
    assert_int_equal(t->place, -3);
    assert_int_equal(t->attempts, 0);
    assert_int_equal(t->epoch, 1);
    jw_get(w, w->work);
    nr_close(&w->r, 1);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    t = jw_task(w, id);
    assert_int_equal(t->place, -4);
    assert_int_equal(t->attempts, 1);
    assert_int_equal(t->mask, 0); /* its session has gone: nobody resumes it */
    jw_free(w);
}

static void a_freed_lease_may_be_resumed(void **state)
{
    struct jw *w = jw_new();
    struct broker_lease_name name;
    uint64_t at = 0, bytes;
    unsigned budget = 1000;

    (void)state;
    w->r.now_ms = 1500;
    uint64_t id = jw_put(w, w->work, "1");
    struct nr_lease l = jw_get(w, w->work);
    w->r.now_ms = 1700;
    nr_detach(&w->r, 1, true);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    const struct read_op *t = jw_task(w, id);
    assert_int_equal(t->mask, OPS_LEASE);
    assert_int_equal(t->state, BROKER_TASK_READY);
    assert_int_equal(t->session, w->r.s[1].durable_id);
    assert_int_equal(t->since_ms, 1500);
    assert_int_equal(t->attempts, 1);
    assert_int_equal(t->epoch, l.epoch);
    /* Moved, it is there, too. */
    w->read.segment = 2;
    assert_true(broker_journal_move(w->r.b, 1, &at, &budget, &bytes));
    jw_expect(w, 1, 0, JOURNAL_NO_WAIT);
    assert_int_equal(jw_task(w, id)->mask, OPS_FULL | OPS_PAYLOAD | OPS_LEASE);
    assert_int_equal(jw_task(w, id)->session, w->r.s[1].durable_id);
    name = (struct broker_lease_name){.id = l.id, .epoch = l.epoch};
    assert_int_equal(nr_resume(&w->r, 1, &name, 1), 1);
    jw_expect(w, 1, 0, JOURNAL_WRITTEN);
    t = jw_task(w, id);
    assert_int_equal(t->state, BROKER_TASK_LEASED);
    assert_int_equal(t->mask, OPS_LEASE);
    assert_int_equal(t->attempts, 0);
    assert_int_equal(t->epoch, l.epoch);
    /* Freed, handed to another who frees it, too: it is that one's. */
    nr_detach(&w->r, 1, true);
    nr_get(&w->r, 2, w->work, id);
    nr_detach(&w->r, 2, true);
    jw_turn(w);
    assert_int_equal(jw_task(w, id)->session, w->r.s[2].durable_id);
    assert_int_equal(nr_resume(&w->r, 1, &name, 1), 0);
    at = 0;
    assert_true(broker_journal_move(w->r.b, 2, &at, &budget, &bytes));
    jw_turn(w);
    assert_int_equal(jw_task(w, id)->session, w->r.s[2].durable_id);
    nr_close(&w->r, 2);
    at = 0;
    assert_true(broker_journal_move(w->r.b, 2, &at, &budget, &bytes));
    jw_turn(w);
    assert_int_equal(jw_task(w, id)->mask, OPS_FULL | OPS_PAYLOAD);
    jw_free(w);
}

static void python_acknowledgements_are_synced(void **state)
{
    struct jw *w = jw_new();
    struct broker_event get = nr_event(&w->r, BROKER_GET, NR_PYTHON), done, put;

    (void)state;
    get.queue = w->plain;
    uint64_t id = jw_put(w, w->plain, "1");
    jw_put(w, w->work, "2");
    assert_int_equal(nr_call(&w->r, &get), BROKER_REPLY_ITEM);
    jw_expect(w, 1, 0, JOURNAL_WRITTEN);
    assert_int_equal(jw_task(w, id)->session, 0);
    assert_int_equal(jw_task(w, id)->delivered, 0);
    done = nr_event(&w->r, BROKER_TASK_DONE, NR_PYTHON);
    done.queue = w->plain;
    assert_int_equal(nr_call(&w->r, &done), BROKER_REPLY_NONE);
    jw_expect(w, 0, 1, JOURNAL_SYNCED);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.unfinished, 0);
    /* Only the count: that is somebody's promise as well. */
    done.queue = w->work;
    assert_int_equal(nr_call(&w->r, &done), BROKER_REPLY_NONE);
    jw_expect(w, 0, 0, JOURNAL_SYNCED);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.unfinished, 0);
    /* A put to the result queue is the result. */
    get.queue = w->work;
    assert_int_equal(nr_call(&w->r, &get), BROKER_REPLY_ITEM);
    jw_turn(w);
    put = nr_event(&w->r, BROKER_PUT, NR_PYTHON);
    put.queue = w->results;
    put.payload = nr_payload("result");
    put.payload.format = BROKER_PYTHON;
    assert_int_equal(nr_call(&w->r, &put), BROKER_REPLY_NONE);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id + 1)->flags, TASK_RESULT);
    assert_int_equal(jw_task(w, id + 1)->queue, w->results->serial);
    jw_free(w);
}

static void queues_are_written_when_they_change(void **state)
{
    struct jw *w = jw_new();
    struct broker_queue_conf c = *broker_queue_conf(w->plain);
    uint32_t serial = w->plain->serial;
    struct broker_event ev;

    (void)state;
    c.maxsize = 3;
    c.durability = BROKER_DURABILITY_INTERVAL;
    assert_int_equal(broker_reconfigure(w->r.b, w->r.now_ms, w->plain, &c, &w->r.fx), 0);
    jw_expect(w, 0, 0, JOURNAL_SYNCED);
    const struct read_op *q = read_find(&w->read, OPS_QUEUE, 0);
    assert_int_equal(q->q.serial, serial);
    assert_int_equal(q->q.conf.maxsize, 3);
    assert_int_equal(q->q.conf.durability, BROKER_DURABILITY_INTERVAL);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.serial, serial);
    assert_null(read_find(&w->read, OPS_TOTALS, 0));
    ev = nr_event(&w->r, BROKER_SHUTDOWN, 0);
    ev.queue = w->plain;
    nr_put(&w->r, 0, w->plain, "1");
    struct nr_lease l = nr_get(&w->r, 1, w->plain, 0);
    assert_int_equal(nr_call(&w->r, &ev), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    assert_true((read_find(&w->read, OPS_QUEUE, 0)->q.flags & OPS_QUEUE_SHUT_DOWN) != 0);
    /* Removed, it stays for its leases; then it has gone. */
    broker_remove(w->r.b, w->plain, &w->r.fx);
    jw_expect(w, 0, 0, JOURNAL_SYNCED);
    assert_true((read_find(&w->read, OPS_QUEUE, 0)->q.flags & OPS_QUEUE_REMOVED) != 0);
    assert_int_equal(nr_about(&w->r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    jw_expect(w, 0, 1, JOURNAL_WRITTEN);
    assert_int_equal(read_find(&w->read, OPS_GONE, 0)->serial, serial);
    assert_int_equal(w->read.ops[w->read.count - 1].op, OPS_GONE); /* behind its last task */
    /* Declared and removed between two records: nothing but the time and the serial that was used. */
    struct broker_queue *brief = jw_queue(w, "brief", BROKER_FIFO, BROKER_DURABILITY_FSYNC, NULL, NULL);
    serial = brief->serial;
    broker_remove(w->r.b, brief, &w->r.fx);
    jw_expect(w, 0, 0, JOURNAL_SYNCED);
    assert_null(read_find(&w->read, OPS_QUEUE, 0));
    assert_null(read_find(&w->read, OPS_GONE, 0));
    assert_int_equal(w->read.ops[0].time.next_queue_serial, serial + 1);
    jw_free(w);
}

static void a_purge_is_one_number_and_the_ends_follow(void **state)
{
    struct jw *w = jw_new();
    struct broker_put_options o = {.delay_ms = 50, .key = tq_span_str("k")};
    struct broker_event ev = nr_event(&w->r, BROKER_PURGE, 0);
    size_t ends;

    (void)state;
    ev.queue = w->plain;
    nr_put_with(&w->r, 0, w->plain, "delayed", &o);
    jw_put_many(w, w->plain, "x", 6000);
    struct nr_lease l = nr_get(&w->r, 1, w->plain, 0);
    jw_expect(w, 6001, 0, JOURNAL_SYNCED);
    assert_int_equal(nr_call(&w->r, &ev), BROKER_REPLY_OK);
    jw_turn(w);
    ends = w->read.ends;
    assert_int_equal(w->read.wait, JOURNAL_SYNCED);
    assert_true(ends > 3000 && ends < 6000);
    assert_int_equal(read_find(&w->read, OPS_QUEUE, 0)->q.purged_place, 6001);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.unfinished, 1);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.stats.dropped, 6000);
    /* What comes now stands behind it; so does what is given back. A key that is taken over is noted. */
    o.delay_ms = 0;
    uint64_t id = nr_put_with(&w->r, 0, w->plain, "new", &o);
    assert_int_equal(nr_about(&w->r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    jw_expect(w, 3, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id)->place, 6002);
    assert_int_equal(jw_task(w, id)->key_serial, w->plain->serial);
    assert_int_equal(jw_task(w, l.id)->place, -6003);
    assert_int_equal(jw_task(w, 1)->mask, OPS_EXTRA); /* the delayed one is among the last that go */
    assert_int_equal(jw_task(w, 1)->key_serial, 0);
    nr_pass(&w->r, 10);
    jw_turn(w);
    assert_int_equal(ends + w->read.ends, 6000);
    assert_int_equal(w->read.tasks, 0);
    assert_int_equal(broker_journal_live_tasks(w->r.b), 2);
    jw_free(w);
}

static void what_came_and_went_within_a_turn_leaves_nothing(void **state)
{
    struct jw *w = jw_new();
    struct broker_event take = nr_event(&w->r, BROKER_GET, 1);

    (void)state;
    take.queue = w->work;
    take.max = 1;
    take.take = true;
    nr_put(&w->r, 0, w->work, "1");
    assert_int_equal(nr_call(&w->r, &take), BROKER_REPLY_TASK);
    jw_turn(w);
    assert_int_equal(w->read.tasks + w->read.ends, 0);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.stats.puts, 1);
    /* Put, handed out, done, its result taken by another and given back: one op. */
    uint64_t id = nr_put(&w->r, 0, w->work, "2");
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, w->work, id), "r"), BROKER_REPLY_OK);
    assert_int_equal(nr_about(&w->r, BROKER_RELEASE, nr_get(&w->r, 2, w->results, id)), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id)->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    /* One that was known and ends: its end only, whatever happened to it before. */
    nr_get(&w->r, 1, w->results, id);
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, id), BROKER_REPLY_OK);
    jw_expect(w, 0, 1, JOURNAL_SYNCED);
    /* A change that is refused is none, and counters alone wait for the next record. */
    assert_int_equal(nr_by_id(&w->r, BROKER_REMOVE, 0, id), BROKER_REPLY_UNKNOWN);
    assert_int_equal(nr_done(&w->r, (struct nr_lease){.s = 1, .id = id, .epoch = 1}, NULL),
                     BROKER_REPLY_STALE);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    id = jw_put(w, w->work, "3");
    assert_int_equal(read_find(&w->read, OPS_TOTALS, 0)->totals.stale, 1);
    assert_int_equal(nr_done(&w->r, (struct nr_lease){.s = 1, .id = id, .epoch = 1}, NULL),
                     BROKER_REPLY_STALE);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    jw_put(w, w->plain, "4");
    assert_non_null(read_find(&w->read, OPS_COUNTS, 1)); /* of the other queue, where it was counted */
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.stats.stale +
                         read_find(&w->read, OPS_COUNTS, 1)->counts.stats.stale,
                     1);
    jw_free(w);
}

static void tasks_of_memory_queues_are_not_written(void **state)
{
    struct jw *w = jw_new();
    struct broker_queue *memory =
        jw_queue(w, "memory", BROKER_FIFO, BROKER_DURABILITY_MEMORY, "results", "mdead");
    struct broker_queue *mdead = jw_queue(w, "mdead", BROKER_FIFO, BROKER_DURABILITY_MEMORY, NULL, NULL);
    struct broker_queue *safe = jw_queue(w, "safe", BROKER_FIFO, BROKER_DURABILITY_FSYNC, "mdead", "mdead");

    (void)state;
    jw_turn(w);
    assert_non_null(read_find(&w->read, OPS_QUEUE, 2));
    assert_null(read_find(&w->read, OPS_COUNTS, 1)); /* those of `safe` only */
    uint64_t id = nr_put(&w->r, 0, memory, "1"), id2 = nr_put(&w->r, 0, memory, "2");
    struct nr_lease l = nr_get(&w->r, 1, memory, id);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    /* Its result goes to a queue that is recorded: new there. */
    assert_int_equal(nr_done(&w->r, l, "r"), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id)->queue, w->results->serial);
    assert_int_equal(jw_task(w, id)->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    /* Its dead letter goes to a memory queue: nothing. */
    assert_int_equal(nr_fail(&w->r, nr_get(&w->r, 1, memory, id2), "no", true), BROKER_REPLY_OK);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    /* The other way round: for the log it has gone. */
    id = jw_put(w, safe, "1");
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, safe, id), "r"), BROKER_REPLY_OK);
    jw_expect(w, 0, 1, JOURNAL_SYNCED);
    assert_non_null(read_of(&w->read, OPS_END, id));
    nr_get(&w->r, 1, mdead, id2);
    nr_get(&w->r, 1, mdead, id);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    /* All of it within a turn: the log never hears of it. */
    id = nr_put(&w->r, 0, safe, "1");
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, safe, id), "r"), BROKER_REPLY_OK);
    jw_turn(w);
    assert_int_equal(w->read.tasks + w->read.ends, 0);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    /* And back: a dead letter that is tried again. */
    id = jw_put(w, safe, "2");
    assert_int_equal(nr_fail(&w->r, nr_get(&w->r, 1, safe, id), "no", true), BROKER_REPLY_OK);
    assert_int_equal(nr_by_id(&w->r, BROKER_RETRY, 0, id), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED); /* within a turn: it is there */
    assert_int_equal(jw_task(w, id)->mask, OPS_FULL | OPS_EXTRA | OPS_PAYLOAD);
    assert_int_equal(nr_fail(&w->r, nr_get(&w->r, 1, safe, id), "no", true), BROKER_REPLY_OK);
    jw_expect(w, 0, 1, JOURNAL_SYNCED);
    assert_int_equal(nr_by_id(&w->r, BROKER_RETRY, 0, id), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_SYNCED);
    assert_int_equal(jw_task(w, id)->queue, safe->serial);
    jw_free(w);
}

static void kept_results_are_recorded_as_their_tasks_were(void **state)
{
    struct jw *w = jw_new();
    struct broker_queue *memory = jw_queue(w, "memory", BROKER_FIFO, BROKER_DURABILITY_MEMORY, NULL, NULL);
    struct broker_queue *interval =
        jw_queue(w, "interval", BROKER_FIFO, BROKER_DURABILITY_INTERVAL, NULL, NULL);
    struct broker_queue_conf c = *broker_queue_conf(memory);

    (void)state;
    jw_turn(w);
    uint64_t id = nr_put(&w->r, 0, memory, "1"), left = nr_put(&w->r, 0, memory, "2");
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, memory, id), "r"), BROKER_REPLY_OK);
    assert_int_equal(nr_view(&w->r, id).outcome, BROKER_OUTCOME_OK);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    /* A change of durability counts for what comes in from then on. */
    c.durability = BROKER_DURABILITY_FSYNC;
    assert_int_equal(broker_reconfigure(w->r.b, w->r.now_ms, memory, &c, &w->r.fx), 0);
    jw_turn(w);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.stats.puts, 2);
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.unfinished, 0); /* nobody can finish that */
    id = jw_put(w, memory, "3");
    assert_int_equal(read_find(&w->read, OPS_COUNTS, 0)->counts.unfinished, 1);
    struct nr_lease l = nr_get(&w->r, 1, memory, left);
    jw_turn(w);
    assert_int_equal(w->read.tasks, 0);
    assert_int_equal(nr_done(&w->r, l, "r"), BROKER_REPLY_OK);
    jw_turn(w);
    assert_int_equal(w->read.tasks + w->read.ends, 0);
    c.durability = BROKER_DURABILITY_MEMORY;
    assert_int_equal(broker_reconfigure(w->r.b, w->r.now_ms, memory, &c, &w->r.fx), 0);
    jw_turn(w);
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, memory, id), "r"), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_WRITTEN); /* it came in when that was said */
    assert_int_equal(jw_task(w, id)->state, BROKER_TASK_KEPT);
    /* interval: only written. */
    id = nr_put(&w->r, 0, interval, "1");
    jw_expect(w, 1, 0, JOURNAL_WRITTEN);
    assert_int_equal(nr_done(&w->r, nr_get(&w->r, 1, interval, id), "r"), BROKER_REPLY_OK);
    jw_expect(w, 1, 0, JOURNAL_WRITTEN);
    nr_put(&w->r, 0, interval, "1");
    nr_put(&w->r, 0, w->work, "1");
    jw_expect(w, 2, 0, JOURNAL_SYNCED); /* the greatest of them */
    jw_free(w);
}

static void the_journal_says_the_time_for_ids_that_it_does_not_know(void **state)
{
    struct jw *w = jw_new();
    struct broker_queue *memory = jw_queue(w, "memory", BROKER_FIFO, BROKER_DURABILITY_MEMORY, NULL, NULL);
    struct broker_event put = nr_event(&w->r, BROKER_PUT, 0), take = nr_event(&w->r, BROKER_GET, 0);
    uint64_t before;

    (void)state;
    jw_turn(w);
    before = w->read.ops[0].time.next_id;
    put.queue = take.queue = memory;
    put.payload = nr_payload("x");
    take.take = true;
    take.max = 1;
    for (unsigned i = 0; i < 70000; i++) { /* without the checks of each step */
        broker_effects_clear(&w->r.fx);
        assert_int_equal(broker_step(w->r.b, w->r.now_ms, &put, &w->r.fx), 0);
        assert_int_equal(broker_step(w->r.b, w->r.now_ms, &take, &w->r.fx), 0);
        assert_int_equal(broker_journal_has_news(w->r.b), i >= JOURNAL_ID_STEP - 1);
    }
    jw_expect(w, 0, 0, JOURNAL_NO_WAIT);
    assert_int_equal(w->read.ops[0].time.next_id, before + 70000);
    jw_expect(w, 0, 0, JOURNAL_NOTHING);
    jw_free(w);
}

/* From first to last as a queue hands them out, by what is written of them. */
static void places_tell_the_order(void **state)
{
    static const enum broker_kind kinds[] = {BROKER_FIFO, BROKER_LIFO, BROKER_PRIORITY};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        struct jw *w = jw_new();
        struct broker_queue *q = jw_queue(w, "q", kinds[k], BROKER_DURABILITY_FSYNC, NULL, NULL);
        struct broker_put_options o = {.delay_ms = 10};
        struct nr_lease l[3];
        int64_t places[7] = {0};

        for (int i = 1; i <= 5; i++)
            nr_put(&w->r, 0, q, "x");
        nr_put_with(&w->r, 0, q, "x", &o);
        for (int i = 0; i < 3; i++)
            l[i] = nr_get(&w->r, 1, q, 0);
        for (int i = 2; i >= 0; i--)
            assert_int_equal(nr_about(&w->r, BROKER_RELEASE, l[i]), BROKER_REPLY_OK);
        nr_pass(&w->r, 10);
        jw_turn(w);
        for (int i = 1; i <= 6; i++)
            places[i] = jw_task(w, (uint64_t)i)->place;
        for (int i = 0; i < 6; i++) {
            uint64_t next = 0;

            for (uint64_t id = 1; id <= 6; id++) {
                assert_true(kinds[k] != BROKER_PRIORITY || places[id] > 0); /* in the heap */
                if (places[id] != INT64_MAX && (next == 0 || places[id] < places[next]))
                    next = id;
            }
            if (kinds[k] != BROKER_PRIORITY)
                nr_get(&w->r, 1, q, next);
            places[next] = INT64_MAX;
        }
        jw_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_record_is_the_time_and_the_queues),
        cmocka_unit_test(a_put_is_written_whole),
        cmocka_unit_test(python_items_and_large_ones_are_written_whole),
        cmocka_unit_test(a_hand_out_is_small_and_is_only_written),
        cmocka_unit_test(a_result_takes_its_tasks_place_in_one_op),
        cmocka_unit_test(a_result_without_a_queue_is_kept_until_its_end),
        cmocka_unit_test(a_failure_is_noted_without_the_body),
        cmocka_unit_test(long_texts_have_room),
        cmocka_unit_test(a_dead_letter_and_its_notice_are_two_tasks),
        cmocka_unit_test(what_comes_back_stands_at_the_front),
        cmocka_unit_test(a_freed_lease_may_be_resumed),
        cmocka_unit_test(python_acknowledgements_are_synced),
        cmocka_unit_test(queues_are_written_when_they_change),
        cmocka_unit_test(a_purge_is_one_number_and_the_ends_follow),
        cmocka_unit_test(what_came_and_went_within_a_turn_leaves_nothing),
        cmocka_unit_test(tasks_of_memory_queues_are_not_written),
        cmocka_unit_test(kept_results_are_recorded_as_their_tasks_were),
        cmocka_unit_test(the_journal_says_the_time_for_ids_that_it_does_not_know),
        cmocka_unit_test(places_tell_the_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
