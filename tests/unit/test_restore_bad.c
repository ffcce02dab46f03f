/* Ops that cannot be are refused, by name; whatever the bytes are, no more happens than that. */
#include "tests/lib/guard.h"
#include "tests/unit/ops_rig.h"

/* A record with all that there is. */
static struct ops rich(void)
{
    static char large[700];
    struct broker_queue_conf c = nr_conf("results", "dead");
    struct ops_t t = {.mask = OPS_FULL, .serial = 1, .state = BROKER_TASK_READY, .body = "body"};
    const struct ops_x put = {
        .expires = OPS_NOW + 90, .priority = -7, .key = "k", .key_queue = 1, .trace = "t"};
    const struct ops_x due = {.due = OPS_NOW + 5, .has_result = true, .result = 2, .max_attempts = 3};
    const struct ops_x kept = {.expires = OPS_NOW + 70,
                               .started = OPS_NOW - 9,
                               .ended = OPS_NOW - 8,
                               .from = 1,
                               .has_retention = true,
                               .retention = 78,
                               .outcome = BROKER_OUTCOME_OK,
                               .tries = 1,
                               .gives_way = true,
                               .worker = "w"};
    const struct ops_x dead = {.ended = OPS_NOW - 8,
                               .from = 1,
                               .of = 3,
                               .code = -9,
                               .outcome = BROKER_OUTCOME_FAILED,
                               .has_result = true,
                               .error = "it broke"};
    struct ops o = ops_record();

    memset(large, 'l', sizeof(large) - 1);
    ops_queue(&o, 1, "q", 0, 20, &c);
    ops_counts(&o, 1, 9, 5);
    ops_kind_queue(&o, 2, "results", BROKER_LIFO);
    ops_kind_queue(&o, 3, "dead", BROKER_PRIORITY);
    ops_queue(&o, 4, "old", OPS_QUEUE_REMOVED, 0, &c);
    t.id = 1, t.place = 21, t.x = &put;
    ops_task(&o, &t);
    t.id = 2, t.place = 22, t.x = &due, t.state = BROKER_TASK_DELAYED, t.body = large;
    ops_task(&o, &t);
    t.id = 3, t.place = 5;
    ops_task(&o, &t); /* being purged, and told to queue 2 */
    t.id = 4, t.place = 23, t.serial = 3, t.x = &dead, t.state = BROKER_TASK_READY, t.flags = TASK_DEAD;
    ops_task(&o, &t);
    t.id = 5, t.place = 24, t.is_python = true, t.item_off = 3, t.item_len = 9;
    ops_task(&o, &t);
    t = (struct ops_t){.id = 6,
                       .mask = OPS_FULL,
                       .state = BROKER_TASK_KEPT,
                       .flags = TASK_RESULT | TASK_NO_VALUE,
                       .x = &kept};
    ops_task(&o, &t);
    ops_leased(&o, 7, 1, 30, 77, OPS_NOW - 3);
    ops_leased(&o, 8, 1, 31, 0, OPS_NOW - 4);
    ops_leased(&o, 9, 4, 32, 77, OPS_NOW - 5);
    t = (struct ops_t){.id = 10,
                       .mask = OPS_FULL,
                       .serial = 1,
                       .state = BROKER_TASK_READY,
                       .place = -33,
                       .epoch = 2,
                       .attempts = 1,
                       .body = "freed",
                       .session = 77,
                       .since_ms = OPS_NOW - 6};
    ops_task(&o, &t);
    t.mask = 0, t.place = -34, t.body = NULL, t.x = &due;
    ops_task(&o, &t);
    ops_ready(&o, 11, 1, 40, "ends");
    ops_end(&o, 11);
    ops_totals(&o, 70);
    return o;
}

/* What came of it holds together, if it was taken, and goes on. */
static int try_bytes(struct tq_span bytes, char text[RESTORE_TEXT_MAX])
{
    const char *broken;
    struct nr r;
    int rv;

    ops_init(&r);
    ops_session(&r, 3, 77);
    rv = ops_restore_try(&r, bytes, text);
    if (rv == 0) {
        broken = broker_check(r.b);
        if (broken != NULL)
            fail_msg("broken rule: %s", broken);
        nr_pass(&r, 200);
        nr_pass(&r, 100000);
    } else {
        assert_int_equal(rv, TQ_EINVAL);
        assert_true(strnlen(text, RESTORE_TEXT_MAX) > 0 &&
                    strnlen(text, RESTORE_TEXT_MAX) < RESTORE_TEXT_MAX);
    }
    nr_deinit(&r);
    return rv;
}

/* Takes the ops: they are refused, for that reason. */
static void refused(struct ops *o, const char *why)
{
    char text[RESTORE_TEXT_MAX] = "";

    if (try_bytes(tq_buf_span(&o->buf), text) == 0)
        fail_msg("taken, but: %s", why);
    if (strstr(text, why) == NULL)
        fail_msg("'%s', expected '%s'", text, why);
    ops_free(o);
}

static void refused_task(const struct ops_t *t, const char *why)
{
    struct ops o = ops_record();

    ops_plain_queue(&o, 1, "q");
    ops_task(&o, t);
    refused(&o, why);
}

static const struct ops_t good = {
    .id = 5, .serial = 1, .mask = OPS_FULL, .state = BROKER_TASK_READY, .place = 3, .body = "x"};

static void tasks_that_cannot_be(void **state)
{
    const struct ops_x ended = {.ended = OPS_NOW + 1}, outcome = {.outcome = BROKER_OUTCOME_OK}, plain = {0};
    struct ops_t t;

    (void)state;
#define WITH(field, value, why)                                                                              \
    do {                                                                                                     \
        t = good;                                                                                            \
        t.field = value;                                                                                     \
        refused_task(&t, why);                                                                               \
    } while (0)
    WITH(id, 0, "id");
    WITH(id, 1000, "id");
    WITH(id, UINT64_MAX, "id");
    WITH(serial, 0, "queue");
    WITH(serial, 100, "not given out");
    WITH(serial, 2, "not there");
    WITH(state, BROKER_TASK_NEW, "state");
    WITH(state, BROKER_TASK_GONE, "state");
    WITH(state, 200, "state");
    WITH(state, BROKER_TASK_DELAYED, "no time");
    WITH(state, BROKER_TASK_LEASED, "lease");
    WITH(state, BROKER_TASK_KEPT, "queue");
    WITH(flags, 1, "flags");
    WITH(flags, TASK_RESULT | TASK_DEAD, "flags");
    WITH(flags, TASK_NO_VALUE, "value");
    WITH(flags, TASK_RESULT, "outcome");
    WITH(attempts, 256, "no such TASK");
    WITH(epoch, (uint64_t)1 << 32, "no such TASK");
    WITH(place, 0, "place");
    WITH(place, 1000, "place");
    WITH(place, -1000, "place");
    WITH(place, INT64_MIN, "place");
    WITH(body, NULL, "value");
    WITH(mask, OPS_FULL | 16, "no such TASK");
    WITH(mask, 0, "value");
    WITH(x, &ended, "future");
    WITH(x, &outcome, "outcome");
    t = good;
    t.is_python = true, t.item_off = 1, t.item_len = 1;
    refused_task(&t, "no such TASK");
    t.item_off = 2, t.item_len = 0;
    refused_task(&t, "no such TASK");
    t.item_off = UINT64_MAX, t.item_len = 2;
    refused_task(&t, "no such TASK");
    t = good;
    t.since_ms = OPS_NOW + 1, t.epoch = 1;
    refused_task(&t, "lease");
    t.since_ms = OPS_NOW, t.epoch = 0;
    refused_task(&t, "lease");
    t.epoch = 1, t.state = BROKER_TASK_DELAYED, t.x = &plain;
    refused_task(&t, "lease");
    t = good;
    t.state = BROKER_TASK_KEPT, t.serial = 0;
    refused_task(&t, "kept");
#undef WITH
}

static void fields_that_cannot_be(void **state)
{
    const struct ops_x bad[] = {
        {.outcome = BROKER_OUTCOME_PURGED + 1}, {.max_attempts = 251}, {.key = ""}, {.trace = ""},
        {.key_queue = 3, .key = NULL},          {.error = ""},
    };
    static char text[BROKER_ERROR_MAX + 2];
    const struct ops_x largest[] = {{.key = text + BROKER_ERROR_MAX + 1 - BROKER_KEY_MAX},
                                    {.trace = text + BROKER_ERROR_MAX + 1 - BROKER_TRACE_MAX},
                                    {.worker = text + BROKER_ERROR_MAX + 1 - BROKER_WORKER_MAX},
                                    {.error = text + 1}};
    const struct ops_x too_large[] = {{.key = text + BROKER_ERROR_MAX - BROKER_KEY_MAX},
                                      {.trace = text + BROKER_ERROR_MAX - BROKER_TRACE_MAX},
                                      {.worker = text + BROKER_ERROR_MAX - BROKER_WORKER_MAX},
                                      {.error = text}};
    struct ops_t t = good;

    (void)state;
    memset(text, 'e', sizeof(text) - 1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        t.x = &bad[i];
        refused_task(&t, "no such TASK");
    }
    for (size_t i = 0; i < 4; i++) {
        struct ops o = ops_record();
        char why[RESTORE_TEXT_MAX];

        ops_plain_queue(&o, 1, "q");
        t.x = &largest[i];
        ops_task(&o, &t);
        assert_int_equal(try_bytes(tq_buf_span(&o.buf), why), 0);
        ops_free(&o);
        t.x = &too_large[i];
        refused_task(&t, "no such TASK");
    }
}

static void two_that_cannot_be_together(void **state)
{
    const struct ops_x key = {.key = "k", .key_queue = 1};
    struct ops o = ops_record();
    struct ops_t t = good;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_ready(&o, 1, 1, 7, "x");
    ops_ready(&o, 2, 1, -7, "x");
    refused(&o, "place 7");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    t.x = &key;
    ops_task(&o, &t);
    t.id = 6, t.place = 9;
    ops_task(&o, &t);
    refused(&o, "key");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    ops_plain_queue(&o, 2, "q");
    refused(&o, "one name");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    ops_plain_queue(&o, 1, "p");
    refused(&o, "another name");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    ops_kind_queue(&o, 1, "q", BROKER_LIFO);
    refused(&o, "kind");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    ops_ready(&o, 1, 1, 7, "x");
    ops_gone(&o, 1);
    ops_plain_queue(&o, 1, "q");
    refused(&o, "had gone");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    ops_ready(&o, 1, 1, 7, "x");
    ops_gone(&o, 1);
    refused(&o, "not there");
    o = ops_record();
    ops_plain_queue(&o, 1, "q");
    ops_task(&o, &good);
    t = good;
    t.mask = 0, t.body = NULL, t.flags = TASK_RESULT;
    ops_task(&o, &t);
    refused(&o, "other flags");
}

static void queues_that_cannot_be(void **state)
{
    static char name[BROKER_QUEUE_NAME_MAX + 2];
    const char *const names[] = {"", "a/b", "a b", name};
    struct broker_queue_conf confs[5];
    struct ops o;

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        o = ops_record();
        ops_plain_queue(&o, 1, names[i]);
        refused(&o, "no such QUEUE");
    }
    for (size_t i = 0; i < 5; i++)
        confs[i] = nr_conf(NULL, NULL);
    confs[0].kind = (enum broker_kind)3;
    confs[1].ack = (enum broker_ack)3;
    confs[2].durability = (enum broker_durability)3;
    confs[3].dead = "q"; /* itself */
    confs[4].result = "not a name";
    for (size_t i = 0; i < 5; i++) {
        o = ops_record();
        ops_queue(&o, 1, "q", 0, 0, &confs[i]);
        refused(&o, "no such QUEUE");
    }
    o = ops_record();
    confs[0] = nr_conf(NULL, NULL);
    ops_queue(&o, 1, "q", 32, 0, &confs[0]);
    refused(&o, "no such QUEUE");
    o = ops_record();
    ops_queue(&o, 1, "q", 0, 1000, &confs[0]);
    refused(&o, "purged");
    o = ops_record();
    ops_plain_queue(&o, 0, "q");
    refused(&o, "no such QUEUE");
    o = ops_record();
    ops_plain_queue(&o, 100, "q");
    refused(&o, "not given out");
}

static void records_that_cannot_be(void **state)
{
    struct ops o = {.buf = TQ_BUF_NULL(1000)};

    (void)state;
    ops_plain_queue(&o, 1, "q");
    refused(&o, "before the TIME");
    o = ops_record();
    ops_time(&o, 1000, 1000, 100);
    refused(&o, "no such TIME");
    for (unsigned op = 0; op < OPS_HOST; op++)
        if (op < OPS_TIME || op > OPS_TOTALS) {
            o = ops_record();
            ops_byte(&o, op);
            refused(&o, "not known");
        }
    o = ops_record();
    ops_byte(&o, OPS_HOST);
    refused(&o, "no text");
    o = ops_record();
    ops_end(&o, 1000);
    refused(&o, "no such END");
    o = ops_record();
    ops_counts(&o, 0, 1, 1);
    refused(&o, "no such COUNTS");
    o = ops_record();
    ops_counts(&o, 1, UINT64_MAX, 1);
    refused(&o, "no such COUNTS");
    o = ops_record();
    ops_gone(&o, 0);
    refused(&o, "no such GONE");
}

/* A second record whose counters stand below those of the first, or too high for all that comes. */
static void times_that_cannot_be(void **state)
{
    static const uint64_t times[][4] = {
        {OPS_NOW, 999, 1000, 100},
        {OPS_NOW, 1000, 999, 100},
        {OPS_NOW, 1000, 1000, 99},
        {IDS_MAX, 1000, 1000, 100},
        {OPS_NOW, IDS_MAX + 1, 1000, 100},
        {OPS_NOW, 1000, (uint64_t)1 << 47, 100},
        {OPS_NOW, 1000, 1000, (uint64_t)UINT32_MAX + 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        struct ops first = ops_record(), o = {.buf = TQ_BUF_NULL(1000)};
        struct broker_restore *res;
        char text[RESTORE_TEXT_MAX];
        struct nr r;

        ops_byte(&o, OPS_TIME);
        for (size_t k = 0; k < 4; k++)
            ops_number(&o, times[i][k]);
        ops_init(&r);
        res = broker_restore_begin(r.b, world_no_host, NULL);
        assert_int_equal(broker_restore_ops(res, tq_buf_span(&first.buf), 1, text), 0);
        assert_int_equal(broker_restore_now_ms(res), OPS_NOW);
        assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 1, text), TQ_EINVAL);
        assert_non_null(strstr(text, "TIME"));
        broker_restore_abandon(res);
        ops_free(&first);
        ops_free(&o);
        nr_deinit(&r);
    }
}

/* No longer than needed, no more than 64 bits. */
static void numbers(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        bool good;
        uint64_t v;
    } cases[] = {
        {"\x00", 1, true, 0},
        {"\x7f", 1, true, 127},
        {"\x80\x01", 2, true, 128},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, true, UINT64_MAX},
        {"", 0, false, 0},
        {"\x80", 1, false, 0},
        {"\x80\x00", 2, false, 0},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, false, 0},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11, false, 0},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *copy = guard_copy(cases[i].bytes, cases[i].len);
        struct tq_span in = tq_span(copy, cases[i].len);
        uint64_t v = 0;

        assert_int_equal(ops_get(&in, &v), cases[i].good);
        if (cases[i].good) {
            assert_true(v == cases[i].v);
            assert_int_equal(in.len, 0);
        }
        guard_free(copy, cases[i].len);
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        const int64_t both[] = {(int64_t)((uint64_t)1 << bit), -(int64_t)((uint64_t)1 << bit % 63)};
        uint8_t bytes[OPS_VARINT_MAX];

        for (int i = 0; i < 2; i++) {
            struct tq_span in = tq_span(bytes, (size_t)(ops_put(bytes, ops_zigzag(both[i])) - bytes));
            uint64_t v = 0;

            assert_true(ops_get(&in, &v) && ops_unzigzag(v) == both[i]);
        }
    }
}

static void cut_at_each_length(void **state)
{
    struct ops o = rich();
    size_t taken = 0;

    (void)state;
    for (size_t len = 0; len <= o.buf.len; len++) {
        uint8_t *copy = guard_copy(o.buf.data, len);
        char text[RESTORE_TEXT_MAX];

        taken += try_bytes(tq_span(copy, len), text) == 0;
        guard_free(copy, len);
    }
    assert_int_equal(taken, 21); /* where an op ends, and nothing at all */
    ops_free(&o);
}

static void each_byte_changed(void **state)
{
    static const uint8_t values[] = {0, 1, 2, 5, 0x7f, 0x80, 0xff};
    struct ops o = rich();
    char text[RESTORE_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < o.buf.len; i++) {
        uint8_t was = o.buf.data[i];

        if (was == 'l') /* of a body */
            continue;
        for (size_t k = 0; k < sizeof(values); k++) {
            o.buf.data[i] = values[k];
            (void)try_bytes(tq_buf_span(&o.buf), text);
        }
        o.buf.data[i] = was ^ 4;
        (void)try_bytes(tq_buf_span(&o.buf), text);
        o.buf.data[i] = was;
    }
    assert_int_equal(try_bytes(tq_buf_span(&o.buf), text), 0);
    ops_free(&o);
}

static void without_memory(void **state)
{
    struct ops o = rich();
    long n = 0;
    int rv;

    (void)state;
    do {
        char text[RESTORE_TEXT_MAX];
        struct nr r;

        ops_init(&r);
        ops_session(&r, 3, 77);
        tq_mem_fail_after(n++, 1);
        rv = ops_restore_try(&r, tq_buf_span(&o.buf), text);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == 0 || rv == TQ_ENOMEM);
        if (rv == 0)
            assert_null(broker_check(r.b));
        nr_deinit(&r);
    } while (rv != 0);
    assert_true(n > 50);
    ops_free(&o);
}

/* ---- what the caller decides ---- */

static bool has_no_z(void *ctx, const struct broker_payload *p)
{
    ++*(unsigned *)ctx;
    return p->len == 0 || memchr(p->data, 'z', p->len) == NULL;
}

static void bodies_are_checked(void **state)
{
    const char *const bodies[] = {"abc", "xyz"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct ops o = ops_record();
        struct broker_restore *res;
        char text[RESTORE_TEXT_MAX];
        unsigned asked = 0;
        struct nr r;

        ops_ready(&o, 1, 1, 1, bodies[i]);
        ops_init(&r);
        res = broker_restore_begin(r.b, world_no_host, NULL);
        broker_restore_check_bodies(res, has_no_z, &asked);
        assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 1, text), i == 0 ? 0 : TQ_EINVAL);
        assert_int_equal(asked, 1);
        broker_restore_abandon(res);
        ops_free(&o);
        nr_deinit(&r);
    }
}

/* After a repair. */
static void orphans_are_dropped(void **state)
{
    struct ops o = ops_record();
    struct broker_restore *res;
    char text[RESTORE_TEXT_MAX];
    uint64_t count = 9;
    struct nr r;

    (void)state;
    ops_plain_queue(&o, 1, "q");
    ops_ready(&o, 1, 1, 1, "x");
    ops_ready(&o, 2, 2, 2, "its queue is lost");
    ops_leased(&o, 3, 3, 3, 0, OPS_NOW - 5);
    ops_init(&r);
    res = broker_restore_begin(r.b, world_no_host, NULL);
    broker_restore_drop_orphans(res, &count);
    assert_int_equal(broker_restore_ops(res, tq_buf_span(&o.buf), 1, text), 0);
    assert_int_equal(broker_restore_finish(res, r.now_ms, ops_session_of, &r, text), 0);
    assert_int_equal(count, 2);
    assert_null(broker_check(r.b));
    assert_int_equal(nr_stats(&r).tasks, 1);
    ops_free(&o);
    nr_deinit(&r);
}

static void a_priority_queue_needs_an_order(void **state)
{
    struct ops o = ops_record();
    char text[RESTORE_TEXT_MAX];
    struct nr r;

    (void)state;
    ops_kind_queue(&o, 1, "p", BROKER_PRIORITY);
    ops_init(&r);
    r.b->less = NULL;
    assert_int_equal(ops_restore_try(&r, tq_buf_span(&o.buf), text), TQ_EINVAL);
    assert_non_null(strstr(text, "order"));
    ops_free(&o);
    nr_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_that_cannot_be),
        cmocka_unit_test(fields_that_cannot_be),
        cmocka_unit_test(two_that_cannot_be_together),
        cmocka_unit_test(queues_that_cannot_be),
        cmocka_unit_test(records_that_cannot_be),
        cmocka_unit_test(times_that_cannot_be),
        cmocka_unit_test(numbers),
        cmocka_unit_test(cut_at_each_length),
        cmocka_unit_test(each_byte_changed),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(bodies_are_checked),
        cmocka_unit_test(orphans_are_dropped),
        cmocka_unit_test(a_priority_queue_needs_an_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
