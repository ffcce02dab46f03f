/* Native put and get: batches, what a reply may hold, who waits, what is handed out for good; and what a
 * failed allocation leaves as it was. */
#include "tests/unit/broker_native_rig.h"

#include "master/core/broker_impl.h"
#include "master/core/queue.h"
#include "master/core/task.h"

/* A get; wait_ms -1 is for ever, 0 none. */
static struct broker_event get_event(struct nr *r, int s, struct broker_queue *q, uint32_t max,
                                     int64_t wait_ms)
{
    struct broker_event ev = nr_event(r, BROKER_GET, s);

    ev.queue = q;
    ev.max = max;
    ev.wait_mode = wait_ms < 0 ? BROKER_WAIT_FOREVER : wait_ms == 0 ? BROKER_NO_WAIT : BROKER_WAIT_MS;
    ev.wait_ms = wait_ms > 0 ? (uint64_t)wait_ms : 0;
    return ev;
}

/* The reply of a get stands at `at` of the effects: so many tasks with those bodies, then the end. */
static size_t expect_tasks(struct nr *r, size_t at, int s, uint64_t token, const char *const *bodies,
                           size_t count)
{
    for (size_t i = 0; i <= count; i++) {
        const struct broker_effect *e = &r->fx.list[at + i];
        struct broker_view view;

        assert_true(at + i < r->fx.count);
        assert_ptr_equal(e->session, &r->s[s]);
        assert_int_equal(e->token, token);
        assert_int_equal(e->was_parked, at > 0);
        if (i == count) {
            assert_int_equal(e->outcome, BROKER_REPLY_END);
            assert_int_equal(e->number, (int64_t)count);
            break;
        }
        assert_int_equal(e->outcome, BROKER_REPLY_TASK);
        if (e->copy != NULL)
            view = *e->copy;
        else
            assert_true(broker_view_lease(r->b, e, &view));
        assert_int_equal(view.id, e->id);
        assert_int_equal(view.epoch, e->epoch);
        assert_int_equal(view.attempt, e->attempt);
        assert_int_equal(view.payload.len, strlen(bodies[i]));
        assert_memory_equal(view.payload.data, bodies[i], view.payload.len);
    }
    return at + count + 1;
}

#define EXPECT_TASKS(r, at, s, token, ...)                                                                   \
    expect_tasks((r), (at), (s), (token), (const char *const[]){__VA_ARGS__},                                \
                 sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static enum broker_outcome put_outcome(struct nr *r, int s, struct broker_queue *q,
                                       const struct broker_put_options *o)
{
    struct broker_event ev = nr_event(r, BROKER_PUT, s);

    ev.queue = q;
    ev.payload = nr_payload("x");
    ev.options = o;
    return nr_call(r, &ev);
}

static struct broker_queue_stats queue_stats(const struct nr *r, const struct broker_queue *q)
{
    struct broker_queue_stats st;

    broker_get_queue_stats(r->b, q, &st);
    return st;
}

static struct broker_stats stats(const struct nr *r)
{
    struct broker_stats st;

    broker_get_stats(r->b, &st);
    return st;
}

static void ids_ascend_and_a_get_hands_out_what_is_there(void **state)
{
    struct nr r;
    struct broker_event ev;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    uint64_t first = nr_put(&r, 0, q, "a");

    assert_int_equal(nr_put(&r, 0, q, "b"), first + 1);
    assert_int_equal(nr_put(&r, 1, q, "c"), first + 2);
    assert_int_equal(queue_stats(&r, q).oldest_ms, 1000);
    ev = get_event(&r, 2, q, 2, 0);
    nr_step(&r, &ev);
    assert_int_equal(EXPECT_TASKS(&r, 0, 2, ev.token, "a", "b"), r.fx.count);
    assert_int_equal(r.fx.list[0].epoch, 1);
    assert_int_equal(r.fx.list[0].attempt, 1);
    assert_int_equal(r.fx.list[1].id, first + 1);
    ev = get_event(&r, 3, q, BROKER_GET_MAX, 0);
    nr_step(&r, &ev);
    assert_int_equal(EXPECT_TASKS(&r, 0, 3, ev.token, "c"), r.fx.count);
    nr_step(&r, &ev);
    assert_int_equal(r.fx.list[0].outcome, BROKER_REPLY_EMPTY);
    assert_int_equal(r.s[2].held_count, 2);
    assert_int_equal(stats(&r).gets, 3);
    assert_int_equal(queue_stats(&r, q).gets, 3);
    assert_int_equal(queue_stats(&r, q).puts, 3);
    assert_int_equal(queue_stats(&r, q).leased, 3);
    assert_int_equal(queue_stats(&r, q).oldest_ms, 0);
    nr_deinit(&r);
}

static void a_session_holds_so_many_and_no_more(void **state)
{
    struct nr r;
    struct broker_event ev;

    (void)state;
    nr_init_limits(&r, &(struct broker_limits){.queues = 9, .held_per_session = 3});
    struct broker_queue *q = nr_queue(&r, "q");
    for (int i = 0; i < 8; i++)
        nr_put(&r, 0, q, "x");
    struct nr_lease l = nr_get(&r, 1, q, 0);
    ev = get_event(&r, 1, q, 5, -1);
    nr_step(&r, &ev);
    assert_int_equal(EXPECT_TASKS(&r, 0, 1, ev.token, "x", "x"), r.fx.count);
    nr_step(&r, &ev);
    assert_int_equal(r.fx.list[0].outcome, BROKER_REPLY_TOO_MANY_HELD);
    ev.take = true; /* holds nothing */
    ev.max = 1;
    nr_step(&r, &ev);
    EXPECT_TASKS(&r, 0, 1, ev.token, "x");
    assert_int_equal(nr_done(&r, l, NULL), BROKER_REPLY_OK);
    nr_get(&r, 1, q, 0);
    /* Two calls wait; the first takes all that the session may hold. */
    struct broker_queue *other = nr_queue(&r, "other");
    struct broker_event first = get_event(&r, 2, other, 3, -1), second = get_event(&r, 2, other, 3, -1);
    nr_step(&r, &first);
    nr_step(&r, &second);
    for (int i = 0; i < 4; i++) {
        struct broker_event put = nr_event(&r, BROKER_PUT, 0);

        put.queue = other;
        put.more = i < 3;
        put.payload = nr_payload("y");
        nr_step(&r, &put);
    }
    size_t at = EXPECT_TASKS(&r, 1, 2, first.token, "y", "y", "y");
    assert_int_equal(r.fx.list[at].outcome, BROKER_REPLY_TOO_MANY_HELD);
    assert_int_equal(r.fx.list[at].token, second.token);
    assert_true(r.fx.list[at].was_parked);
    nr_deinit(&r);
}

static void a_reply_ends_after_so_many_bytes(void **state)
{
    struct nr r;
    struct broker_event ev;
    char *big = calloc(1, 5001);

    (void)state;
    assert_non_null(big);
    memset(big, 'x', 5000);
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    nr_put(&r, 0, q, big);
    nr_put(&r, 0, q, "12345");
    nr_put(&r, 0, q, "12345");
    nr_put(&r, 0, q, "1");
    ev = get_event(&r, 1, q, 9, 0);
    ev.max_bytes = 10;
    nr_step(&r, &ev); /* one at least */
    EXPECT_TASKS(&r, 0, 1, ev.token, big);
    nr_step(&r, &ev);
    EXPECT_TASKS(&r, 0, 1, ev.token, "12345", "12345");
    nr_step(&r, &ev);
    EXPECT_TASKS(&r, 0, 1, ev.token, "1");
    ev.wait_mode = BROKER_WAIT_FOREVER; /* a call that waits has the limit, too */
    ev.max_bytes = 4;
    nr_step(&r, &ev);
    for (int i = 0; i < 2; i++) {
        struct broker_event put = nr_event(&r, BROKER_PUT, 0);

        put.queue = q;
        put.more = i == 0;
        put.payload = nr_payload("12345");
        nr_step(&r, &put);
    }
    EXPECT_TASKS(&r, 1, 1, ev.token, "12345");
    assert_int_equal(broker_queue_size(q), 1);
    nr_deinit(&r);
    free(big);
}

static void who_waits_is_served_at_the_end_of_the_request(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    struct broker_event a = get_event(&r, 1, q, 2, -1), b = get_event(&r, 2, q, 5, 1000),
                        c = get_event(&r, 1, q, 5, 1000);

    nr_step(&r, &a);
    nr_step(&r, &b);
    nr_step(&r, &c);
    assert_int_equal(r.fx.count, 0);
    assert_int_equal(r.s[1].wait_count, 2);
    assert_int_equal(queue_stats(&r, q).waiting_gets, 3);
    for (int i = 0; i < 4; i++) {
        struct broker_event put = nr_event(&r, BROKER_PUT, 0);

        put.queue = q;
        put.more = i < 3;
        put.payload = nr_payload(i % 2 ? "odd" : "even");
        nr_step(&r, &put);
        assert_int_equal(r.fx.list[0].outcome, BROKER_REPLY_OK);
        assert_true(i == 3 || r.fx.count == 1);
    }
    size_t at = EXPECT_TASKS(&r, 1, 1, a.token, "even", "odd");
    assert_int_equal(EXPECT_TASKS(&r, at, 2, b.token, "even", "odd"), r.fx.count);
    /* The last one by time. */
    assert_true(nr_due(&r, 2000));
    assert_int_equal(r.fx.list[0].outcome, BROKER_REPLY_EMPTY);
    assert_int_equal(r.fx.list[0].token, c.token);
    assert_int_equal(stats(&r).waiting, 0);
    nr_deinit(&r);
}

static void each_of_a_sessions_waits_is_canceled_by_its_token(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    struct broker_event a = get_event(&r, 1, q, 1, -1), b = get_event(&r, 1, q, 1, 500),
                        c = get_event(&r, 1, q, 1, -1);
    struct broker_event cancel = {.kind = BROKER_CANCEL, .session = &r.s[1], .token = 99999};

    nr_step(&r, &a);
    nr_step(&r, &b);
    nr_step(&r, &c);
    nr_step(&r, &cancel); /* nobody's */
    assert_int_equal(r.s[1].wait_count, 3);
    cancel.token = b.token;
    nr_step(&r, &cancel);
    assert_int_equal(r.fx.count, 0);
    cancel.token = a.token;
    nr_step(&r, &cancel);
    assert_false(nr_due(&r, 5000));
    nr_put(&r, 0, q, "x");
    EXPECT_TASKS(&r, 1, 1, c.token, "x");
    nr_deinit(&r);
}

static void what_is_taken_for_good_is_gone(void **state)
{
    struct nr r;
    struct broker_event ev, join, parked;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    nr_put(&r, 0, q, "a");
    nr_put(&r, 0, q, "b");
    join = nr_event(&r, BROKER_JOIN, 3);
    join.queue = q;
    join.wait_mode = BROKER_WAIT_FOREVER;
    nr_step(&r, &join);
    assert_int_equal(r.fx.count, 0);
    ev = get_event(&r, 1, q, 1, 0);
    ev.take = true;
    nr_step(&r, &ev);
    assert_int_equal(EXPECT_TASKS(&r, 0, 1, ev.token, "a"), r.fx.count);
    assert_non_null(r.fx.list[0].copy);
    assert_int_equal(r.fx.list[0].slot, 0);
    nr_step(&r, &ev);
    size_t at = EXPECT_TASKS(&r, 0, 1, ev.token, "b");
    assert_int_equal(r.fx.list[at].outcome, BROKER_REPLY_OK); /* the join: nothing is unfinished */
    assert_int_equal(r.fx.list[at].token, join.token);
    assert_int_equal(r.s[1].held_count, 0);
    assert_int_equal(stats(&r).tasks, 0);
    assert_int_equal(stats(&r).acked, 2);
    assert_int_equal(queue_stats(&r, q).done, 2);
    /* One that waited. */
    parked = get_event(&r, 2, q, 4, -1);
    parked.take = true;
    nr_step(&r, &parked);
    uint64_t id = nr_put(&r, 0, q, "c");
    EXPECT_TASKS(&r, 1, 2, parked.token, "c");
    assert_int_equal(r.fx.list[1].id, id);
    assert_int_equal(stats(&r).tasks, 0);
    nr_deinit(&r);
}

static void a_put_is_refused_in_words(void **state)
{
    static const char text[BROKER_KEY_MAX + 2];
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    struct broker_queue_conf conf = nr_conf(NULL, NULL);
    conf.kind = BROKER_PRIORITY;
    struct broker_queue *p = nr_declare(&r, "p", &conf);
    struct broker_put_options o = {.priority = 1};

    assert_int_equal(put_outcome(&r, 0, q, &o), BROKER_REPLY_REFUSED);
    assert_non_null(r.fx.list[0].text);
    assert_int_equal(put_outcome(&r, 0, p, &o), BROKER_REPLY_OK);
    o = (struct broker_put_options){.key = tq_span(text, BROKER_KEY_MAX + 1)};
    assert_int_equal(put_outcome(&r, 0, q, &o), BROKER_REPLY_REFUSED);
    o.key.len = BROKER_KEY_MAX;
    o.trace = tq_span(text, BROKER_TRACE_MAX + 1);
    assert_int_equal(put_outcome(&r, 0, q, &o), BROKER_REPLY_REFUSED);
    o.trace.len = BROKER_TRACE_MAX;
    assert_int_equal(put_outcome(&r, 0, q, &o), BROKER_REPLY_OK);
    assert_int_equal(stats(&r).tasks, 2);
    nr_deinit(&r);
}

static void a_full_queue_waits_or_refuses(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf(NULL, NULL);
    conf.maxsize = 1;
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    conf.reject_full = true;
    struct broker_queue *strict = nr_declare(&r, "strict", &conf);
    struct broker_event ev = nr_event(&r, BROKER_PUT, 1);

    nr_put(&r, 0, q, "a");
    nr_put(&r, 0, strict, "a");
    assert_int_equal(put_outcome(&r, 0, q, NULL), BROKER_REPLY_FULL);
    ev.payload = nr_payload("b");
    ev.wait_mode = BROKER_WAIT_FOREVER;
    ev.queue = strict;
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_FULL);
    ev.queue = q;
    nr_step(&r, &ev);
    assert_int_equal(r.fx.count, 0);
    nr_get(&r, 2, q, 0);
    assert_int_equal(r.fx.list[2].outcome, BROKER_REPLY_OK);
    assert_int_equal(r.fx.list[2].token, ev.token);
    assert_true(r.fx.list[2].was_parked);
    struct nr_lease l = nr_get(&r, 2, q, r.fx.list[2].id);
    assert_int_equal(l.attempt, 1);

    struct broker_event shut = nr_event(&r, BROKER_SHUTDOWN, 0);
    shut.queue = q;
    assert_int_equal(nr_call(&r, &shut), BROKER_REPLY_OK);
    assert_int_equal(put_outcome(&r, 0, q, &(struct broker_put_options){.priority = 5}),
                     BROKER_REPLY_SHUTDOWN);
    struct broker_event get = get_event(&r, 3, q, 1, -1);
    assert_int_equal(nr_call(&r, &get), BROKER_REPLY_SHUTDOWN);
    nr_deinit(&r);
}

static void the_times_of_a_put_that_waits_begin_when_it_enters(void **state)
{
    struct nr r;
    struct broker_view v;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf(NULL, NULL);
    conf.maxsize = 1;
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    struct broker_put_options o = {.delay_ms = 100, .ttl_ms = 300, .key = tq_span_str("k")};
    struct broker_event ev = nr_event(&r, BROKER_PUT, 1);

    nr_put(&r, 0, q, "a");
    ev.queue = q;
    ev.payload = nr_payload("b");
    ev.options = &o;
    ev.wait_mode = BROKER_WAIT_FOREVER;
    nr_step(&r, &ev);
    assert_false(nr_due(&r, r.now_ms + 5000));
    r.now_ms += 5000;
    nr_get(&r, 2, q, 0);
    assert_int_equal(r.fx.list[2].token, ev.token);
    assert_true(broker_view_task(r.b, r.fx.list[2].id, &v));
    assert_string_equal(v.state, "delayed");
    assert_int_equal(v.put_ms, r.now_ms);
    assert_int_equal(v.due_ms, r.now_ms + 100);
    assert_int_equal(v.expires_ms, r.now_ms + 300);
    assert_true(tq_span_is(v.key, "k"));
    nr_deinit(&r);
}

static void a_pythons_put_lives_as_long_as_the_queue_says(void **state)
{
    struct nr r;
    struct broker_view v;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf(NULL, NULL);
    conf.ttl_ms = 50;
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    struct broker_event ev = nr_event(&r, BROKER_PUT, NR_PYTHON);

    ev.queue = q;
    ev.payload = nr_payload("item");
    ev.payload.format = BROKER_PYTHON;
    ev.payload.item_off = 1;
    ev.payload.item_len = 2;
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NONE);
    assert_true(broker_view_task(r.b, r.fx.list[0].id, &v));
    assert_int_equal(v.expires_ms, r.now_ms + 50);
    assert_int_equal(v.payload.format, BROKER_PYTHON);
    assert_int_equal(v.payload.item_off, 1);
    assert_int_equal(v.payload.item_len, 2);
    assert_true(nr_due(&r, r.now_ms + 50));
    assert_int_equal(stats(&r).expired, 1);
    nr_deinit(&r);
}

static void both_kinds_of_sessions_share_a_queue(void **state)
{
    struct nr r;
    struct broker_view v;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    struct broker_event ev = nr_event(&r, BROKER_PUT, NR_PYTHON);

    nr_put(&r, 0, q, "native");
    ev.queue = q;
    ev.payload = nr_payload("python");
    ev.payload.format = BROKER_PYTHON;
    assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_NONE);
    ev = get_event(&r, NR_PYTHON, q, 7, 0); /* one for Python, whatever max says */
    nr_step(&r, &ev);
    assert_int_equal(r.fx.count, 1);
    assert_int_equal(r.fx.list[0].outcome, BROKER_REPLY_ITEM);
    assert_true(broker_view_lease(r.b, &r.fx.list[0], &v));
    assert_int_equal(v.payload.format, BROKER_MSGPACK);
    ev = get_event(&r, 1, q, 7, 0);
    nr_step(&r, &ev);
    EXPECT_TASKS(&r, 0, 1, ev.token, "python");
    nr_deinit(&r);
}

/* The number, then Python's items before native ones, Python's by their order, native ones as they came. */
static void priorities_come_in_their_order(void **state)
{
    static const struct {
        int32_t priority;
        bool python;
        const char *body;
    } puts[] = {
        {5, false, "5-first"},  {0, false, "0-first"},  {0, true, "z"}, {-7, false, "-7"},
        {0, false, "0-second"}, {5, false, "5-second"}, {0, true, "a"}, {INT32_MIN, false, "min"},
    };
    struct nr r;
    struct broker_event ev;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf(NULL, NULL);
    conf.kind = BROKER_PRIORITY;
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    for (size_t i = 0; i < sizeof(puts) / sizeof(puts[0]); i++) {
        struct broker_put_options o = {.priority = puts[i].priority};

        ev = nr_event(&r, BROKER_PUT, puts[i].python ? NR_PYTHON : 0);
        ev.queue = q;
        ev.payload = nr_payload(puts[i].body);
        ev.payload.format = puts[i].python ? BROKER_PYTHON : BROKER_MSGPACK;
        ev.options = puts[i].python ? NULL : &o;
        nr_step(&r, &ev);
    }
    ev = get_event(&r, 1, q, 100, 0);
    nr_step(&r, &ev);
    EXPECT_TASKS(&r, 0, 1, ev.token, "min", "-7", "a", "z", "0-first", "0-second", "5-first", "5-second");
    nr_deinit(&r);
}

static void a_task_without_epochs_left_is_lost(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue_conf conf = nr_conf(NULL, "dead");
    struct broker_queue *q = nr_declare(&r, "q", &conf);
    struct broker_queue *dead = nr_queue(&r, "dead");
    uint64_t id = nr_put(&r, 0, q, "a");
    uint64_t other = nr_put(&r, 0, q, "b");

    broker_task_at(r.b->slab, ids_find(r.b->ids, id))->epoch = BROKER_EPOCH_MAX - 1;
    struct nr_lease l = nr_get(&r, 1, q, id);
    assert_int_equal(l.epoch, BROKER_EPOCH_MAX);
    assert_int_equal(nr_about(&r, BROKER_RELEASE, l), BROKER_REPLY_OK);
    nr_get(&r, 1, q, other);
    nr_get_nothing(&r, 1, q);
    assert_int_equal(broker_queue_size(dead), 1);
    struct broker_view v;
    assert_true(broker_view_task(r.b, id, &v));
    assert_int_equal(v.outcome, BROKER_OUTCOME_LOST);
    nr_deinit(&r);
}

static void a_bounce_gives_a_native_lease_back(void **state)
{
    struct nr r;

    (void)state;
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    uint64_t id = nr_put(&r, 0, q, "a");
    struct nr_lease l = nr_get(&r, 1, q, id);
    struct broker_event ev = {.kind = BROKER_BOUNCE, .session = &r.s[1], .id = l.id, .epoch = l.epoch + 1};

    nr_step(&r, &ev); /* not that one */
    assert_int_equal(r.s[1].held_count, 1);
    ev.epoch = l.epoch;
    nr_step(&r, &ev);
    assert_int_equal(r.s[1].held_count, 0);
    nr_step(&r, &ev); /* it is over */
    l = nr_get(&r, 2, q, id);
    assert_int_equal(l.epoch, 2);
    assert_int_equal(l.attempt, 1);
    assert_int_equal(stats(&r).bounced, 1);
    nr_deinit(&r);
}

/* ---- bodies of all sizes ---- */

static void bodies_of_all_sizes_come_out_as_they_went_in(void **state)
{
    enum { MOST = 3000 };
    uint8_t *bytes = malloc(MOST);
    struct nr r;

    (void)state;
    assert_non_null(bytes);
    nr_init(&r);
    struct broker_queue *q = nr_queue(&r, "q");
    for (uint32_t len = 0; len <= MOST; len += len < 500 ? 1 : 97)
        for (int form = 0; form < 4; form++) { /* both formats, with and without a body of its own */
            struct broker_put_options o = {
                .trace = tq_span_str("trace"), .key = tq_span_str("key"), .has_retention = true};
            struct broker_event ev = nr_event(&r, BROKER_PUT, 0);
            struct tq_body *body = tq_body_new(len);
            struct broker_view v;

            for (uint32_t i = 0; i < len; i++)
                body->data[i] = bytes[i] = (uint8_t)(i * 7 + len);
            body->item_off = len / 3;
            body->item_len = len / 2;
            ev.payload = (struct broker_payload){.data = form < 2 ? body->data : bytes,
                                                 .len = len,
                                                 .format = form % 2 ? BROKER_PYTHON : BROKER_MSGPACK,
                                                 .item_off = len / 3,
                                                 .item_len = len / 2,
                                                 .body = form < 2 ? body : NULL};
            ev.queue = q;
            ev.options = len % 2 ? &o : NULL;
            assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_OK);
            memset(bytes, 0, MOST);
            tq_body_unref(body);
            assert_true(broker_view_task(r.b, r.fx.list[0].id, &v));
            assert_int_equal(v.payload.len, len);
            assert_int_equal(v.payload.format, form % 2 ? BROKER_PYTHON : BROKER_MSGPACK);
            for (uint32_t i = 0; i < len; i++)
                assert_int_equal(v.payload.data[i], (uint8_t)(i * 7 + len));
            if (form % 2) {
                assert_int_equal(v.payload.item_off, len / 3);
                assert_int_equal(v.payload.item_len, len / 2);
            }
            assert_int_equal(tq_span_is(v.key, "key"), len % 2);
            assert_int_equal(tq_span_is(v.trace, "trace"), len % 2);
            assert_int_equal(stats(&r).body_bytes, len + BROKER_BODY_OVERHEAD_BYTES);
            ev = get_event(&r, 1, q, 1, 0);
            ev.take = true;
            assert_int_equal(nr_call(&r, &ev), BROKER_REPLY_TASK);
            assert_int_equal(r.fx.list[0].copy->payload.len, len);
            for (uint32_t i = 0; i < len; i++)
                assert_int_equal(r.fx.list[0].copy->payload.data[i], (uint8_t)(i * 7 + len));
        }
    assert_int_equal(r.b->external_bytes, 0);
    nr_deinit(&r);
    free(bytes);
}

/* ---- every allocation of a step fails once ---- */

/* What a step may not change when it fails. */
static char *dump(const struct nr *r)
{
    struct broker_stats st = stats(r);
    uint64_t from = 1, resume;
    struct broker_view v;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    fprintf(out, "puts %d gets %d acked %d known %d waiting %d parked %d\n", (int)st.puts, (int)st.gets,
            (int)st.acked, (int)st.known, (int)st.waiting, (int)st.parked_bytes);
    do {
        unsigned budget = UINT32_MAX;

        if (!broker_view_next(r->b, from, &budget, &v, &resume))
            break;
        fprintf(out, "%s %.*s epoch %u attempt %u key %.*s\n", v.state, (int)v.payload.len,
                (const char *)v.payload.data, v.epoch, v.attempt, (int)v.key.len,
                v.key.len > 0 ? (const char *)v.key.data : "");
        from = resume;
    } while (true);
    for (struct broker_queue *q = broker_next_queue(r->b, NULL); q != NULL; q = broker_next_queue(r->b, q))
        fprintf(out, "%s ready %d delayed %d leased %d unfinished %d\n", broker_queue_name(q), (int)q->ready,
                (int)q->delayed, (int)q->leased, (int)q->unfinished);
    fclose(out);
    return text;
}

static void fill(struct nr *r, struct broker_queue **ret_q, struct broker_queue **ret_p)
{
    struct broker_queue_conf conf = nr_conf(NULL, NULL);

    nr_init(r);
    conf.retention_ms = 1000;
    *ret_q = nr_declare(r, "q", &conf);
    conf.kind = BROKER_PRIORITY;
    *ret_p = nr_declare(r, "p", &conf);
    nr_put_with(r, 0, *ret_q, "one", &(struct broker_put_options){.key = tq_span_str("one")});
    nr_put(r, 0, *ret_q, "two");
    nr_put(r, 0, *ret_p, "one");
    nr_put(r, 0, *ret_p, "two");
    nr_put_with(r, 0, *ret_q, "ended", &(struct broker_put_options){.key = tq_span_str("ended")});
    for (int i = 0; i < 3; i++) {
        struct nr_lease l = nr_get(r, 1, *ret_q, 0);

        assert_int_equal(i < 2 ? nr_about(r, BROKER_RELEASE, l) : nr_done(r, l, "result"), BROKER_REPLY_OK);
        if (i < 2)
            nr_get(r, 2, *ret_q, l.id);
    }
    nr_close(r, 2);
}

static void a_failed_allocation_changes_nothing(void **state)
{
    static const char big[1000] = "a body that is kept by reference";
    const struct broker_put_options options[] = {
        {.key = tq_span_str("new"), .trace = tq_span_str("t")},
        {.key = tq_span_str("new"), .delay_ms = 100, .ttl_ms = 1000},
        {.key = tq_span_str("ended")},
        {.priority = 3, .delay_ms = 4},
    };
    enum { PLAIN, BIG, KEYED, TIMED, KNOWN, PRIORITY, GET, TAKE, PARKED_GET, LINES };
    bool failed[LINES] = {false};

    (void)state;
    for (int line = 0; line < LINES; line++)
        for (long n = 0;; n++) {
            struct broker_queue *q, *p;
            struct broker_event ev;
            struct nr r;
            char *before, *after;
            bool done;
            int rv;

            fill(&r, &q, &p);
            ev = nr_event(&r, line < GET ? BROKER_PUT : BROKER_GET, line < GET ? 0 : 3);
            ev.queue = line == PRIORITY ? p : q;
            ev.payload = nr_payload("three");
            ev.max = 5;
            if (line == BIG)
                ev.payload = (struct broker_payload){.data = (const uint8_t *)big, .len = sizeof(big)};
            if (line >= KEYED && line <= PRIORITY)
                ev.options = &options[line - KEYED];
            ev.take = line == TAKE;
            if (line == PARKED_GET) {
                ev.queue = nr_queue(&r, "empty");
                ev.wait_mode = BROKER_WAIT_MS;
                ev.wait_ms = 1000;
            }
            broker_effects_deinit(&r.fx);
            before = dump(&r);
            tq_mem_fail_after(n, 1);
            rv = nr_try(&r, &ev);
            assert_true(rv == 0 || rv == TQ_ENOMEM);
            assert_true(rv != 0 ? r.fx.count == 0 : r.fx.count > 0 || line == PARKED_GET);
            done = rv == 0 && (r.fx.count == 0 || r.fx.list[0].outcome != BROKER_REPLY_NO_MEMORY);
            /* A get may hand out less. */
            if (done && line == TAKE && r.fx.list[r.fx.count - 1].number < 2)
                failed[line] = true;
            else if (!done) {
                after = dump(&r);
                assert_string_equal(before, after);
                free(after);
                failed[line] = true;
            }
            free(before);
            if (!done) {
                nr_step(&r, &ev); /* and now it is as it would have been */
                assert_true(r.fx.count == 0 || r.fx.list[0].outcome != BROKER_REPLY_NO_MEMORY);
            }
            nr_deinit(&r);
            if (done && n > 12)
                break;
        }
    for (int line = 0; line < LINES; line++)
        assert_true(failed[line]);
}

/* A parked put stays parked when there is no memory for its entry, and enters later. */
static void a_put_that_waits_enters_when_there_is_memory(void **state)
{
    (void)state;
    for (long n = 0; n < 8; n++) {
        struct broker_queue_conf conf = nr_conf(NULL, NULL);
        struct broker_put_options o = {.key = tq_span_str("k"), .ttl_ms = 500, .delay_ms = n % 2 ? 20 : 0};
        struct broker_event ev;
        struct broker_view v;
        bool entered;
        struct nr r;

        nr_init(&r);
        conf.maxsize = 1;
        struct broker_queue *q = nr_declare(&r, "q", &conf);
        nr_put(&r, 0, q, "first");
        ev = nr_event(&r, BROKER_PUT, 1);
        ev.queue = q;
        ev.payload = nr_payload("second");
        ev.options = &o;
        ev.wait_mode = BROKER_WAIT_FOREVER;
        nr_step(&r, &ev);
        struct broker_event get = get_event(&r, 2, q, 1, 0);
        tq_mem_fail_after(n, 50);
        assert_int_equal(nr_try(&r, &get), 0);
        entered = nr_find(&r, ev.token) != NULL;
        if (!entered) {
            if (r.fx.list[0].outcome == BROKER_REPLY_NO_MEMORY)
                nr_step(&r, &get);
            else
                assert_true(nr_due(&r, r.now_ms + BROKER_RETRY_MS));
        }
        assert_non_null(nr_find(&r, ev.token));
        assert_int_equal(nr_find(&r, ev.token)->outcome, BROKER_REPLY_OK);
        assert_true(broker_view_task(r.b, nr_find(&r, ev.token)->id, &v));
        assert_int_equal(v.expires_ms, r.now_ms + 500);
        assert_true(tq_span_is(v.key, "k"));
        nr_deinit(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_ascend_and_a_get_hands_out_what_is_there),
        cmocka_unit_test(a_session_holds_so_many_and_no_more),
        cmocka_unit_test(a_reply_ends_after_so_many_bytes),
        cmocka_unit_test(who_waits_is_served_at_the_end_of_the_request),
        cmocka_unit_test(each_of_a_sessions_waits_is_canceled_by_its_token),
        cmocka_unit_test(what_is_taken_for_good_is_gone),
        cmocka_unit_test(a_put_is_refused_in_words),
        cmocka_unit_test(a_full_queue_waits_or_refuses),
        cmocka_unit_test(the_times_of_a_put_that_waits_begin_when_it_enters),
        cmocka_unit_test(a_pythons_put_lives_as_long_as_the_queue_says),
        cmocka_unit_test(both_kinds_of_sessions_share_a_queue),
        cmocka_unit_test(priorities_come_in_their_order),
        cmocka_unit_test(a_task_without_epochs_left_is_lost),
        cmocka_unit_test(a_bounce_gives_a_native_lease_back),
        cmocka_unit_test(bodies_of_all_sizes_come_out_as_they_went_in),
        cmocka_unit_test(a_failed_allocation_changes_nothing),
        cmocka_unit_test(a_put_that_waits_enters_when_there_is_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
