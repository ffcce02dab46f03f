/* Keys that producers chose: one key, one task, as long as it, its result or its dead letter is there. */
#include "tests/unit/policy_rig.h"

RIG_DEFINE_LESS

#define KEY(text) (&(options){.key = tq_span_str(text)})

static struct broker_queue *keeping(struct rig *r, const char *name)
{
    struct broker_queue_conf c = p_conf();

    c.retention_ms = BROKER_RETENTION_AUTO;
    return p_queue(r, name, &c);
}

static const struct broker_effect *known(struct rig *r, struct broker_queue *q, const options *o, uint64_t id)
{
    const struct broker_effect *e = p_expect(r, 0, p_put_wait(r, 0, q, "again", o, -1), BROKER_REPLY_KNOWN);

    assert_int_equal(e->id, id);
    return e;
}

static void a_repeated_put_is_the_first_one(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, "q"), *other = keeping(&r, "other");
    uint64_t a = p_put(&r, q, "a", KEY("k"));
    assert_null(known(&r, q, KEY("k"), a)->copy);
    uint64_t b = p_put(&r, other, "b", KEY("k")); /* another queue, another key */
    uint64_t c = p_put(&r, q, "c", KEY("kk"));
    assert_int_not_equal(a, b);
    assert_int_not_equal(a, c);
    p_put(&r, q, "d", NULL);
    p_put(&r, q, "e", NULL);
    struct held h = p_take(&r, 1, q, "a");
    assert_null(known(&r, q, KEY("k"), a)->copy); /* leased */
    rig_none(&r);
    p_done(&r, 1, h, "answer");
    rig_none(&r);
    const struct broker_effect *e = known(&r, q, KEY("k"), a);
    assert_non_null(e->copy);
    assert_int_equal(e->copy->outcome, BROKER_OUTCOME_OK);
    p_is(&e->copy->payload, "answer");
    rig_none(&r);
    assert_int_equal(rig_stats(&r).known, 3);
    assert_int_equal(rig_stats(&r).puts, 5);
    rig_pass(&r, 299999); /* AUTO */
    known(&r, q, KEY("k"), a);
    rig_none(&r);
    rig_pass(&r, 1);
    assert_int_not_equal(p_put(&r, q, "new", KEY("k")), a);
    rig_deinit(&r);
}

static void a_key_is_bytes(void **state)
{
    static const char nul[] = "a\0b";
    struct rig r;
    char longest[BROKER_KEY_MAX];

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, "q");
    memset(longest, 'x', sizeof(longest));
    options whole = {.key = tq_span(longest, sizeof(longest))};
    options one_less = {.key = tq_span(longest, sizeof(longest) - 1)};
    options with_nul = {.key = tq_span(nul, 3)}, without = {.key = tq_span(nul, 1)};
    uint64_t a = p_put(&r, q, "a", &whole), b = p_put(&r, q, "b", &one_less);
    uint64_t c = p_put(&r, q, "c", &with_nul), d = p_put(&r, q, "d", &without);
    known(&r, q, &whole, a);
    known(&r, q, &one_less, b);
    known(&r, q, &with_nul, c);
    known(&r, q, &without, d);
    rig_deinit(&r);
}

static void the_key_goes_with_its_task(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    struct broker_queue *dead = p_plain(&r, "dead");
    c.dead = "dead";
    struct broker_queue *q = p_queue(&r, "q", &c);
    uint64_t a = p_put(&r, q, "a", KEY("k"));
    p_expect(&r, 1, p_by_id(&r, BROKER_REMOVE, 1, a, 0), BROKER_REPLY_OK);
    rig_none(&r);
    uint64_t b = p_put(&r, q, "b", KEY("k"));
    assert_int_not_equal(a, b);
    p_fail(&r, 1, p_take(&r, 1, q, "b"), true);
    rig_none(&r);
    const struct broker_effect *e = known(&r, q, KEY("k"), b); /* its dead letter */
    assert_int_equal(e->copy->outcome, BROKER_OUTCOME_FAILED);
    rig_none(&r);
    p_expect(&r, 1, p_by_id(&r, BROKER_RETRY, 1, b, 0), BROKER_REPLY_OK);
    rig_none(&r);
    assert_null(known(&r, q, KEY("k"), b)->copy); /* alive again */
    rig_none(&r);
    p_done(&r, 1, p_take(&r, 1, q, "b"), NULL); /* no retention */
    rig_none(&r);
    assert_int_not_equal(p_put(&r, q, "c", KEY("k")), b);
    assert_int_equal(broker_queue_size(dead), 0);
    rig_deinit(&r);
}

static void a_queue_of_the_same_name_knows_no_old_keys(void **state)
{
    struct rig r;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, "q");
    uint64_t a = p_put(&r, q, "a", KEY("k"));
    struct held h = p_take(&r, 1, q, "a");
    broker_remove(r.b, q, &r.fx);
    q = keeping(&r, "q");
    uint64_t b = p_put(&r, q, "b", KEY("k"));
    assert_int_not_equal(a, b);
    known(&r, q, KEY("k"), b);
    p_done(&r, 1, h, NULL);
    known(&r, q, KEY("k"), b);
    rig_deinit(&r);
}

static void a_put_that_waits_is_looked_up_again(void **state)
{
    struct rig r;
    struct broker_queue_conf c = p_conf();

    (void)state;
    p_init(&r);
    c.maxsize = 1;
    struct broker_queue *q = p_queue(&r, "q", &c);
    p_put(&r, q, "full", NULL);
    uint64_t w1 = p_put_wait(&r, 1, q, "a", KEY("k"), -1), w2 = p_put_wait(&r, 2, q, "b", KEY("k"), -1);
    rig_none(&r);
    uint64_t t = p_get(&r, 3, q, 1, 0);
    p_task(&r, 3, t, "full");
    p_end(&r, 3, t, 1);
    uint64_t id = p_expect(&r, 1, w1, BROKER_REPLY_OK)->id;
    rig_none(&r);
    t = p_get(&r, 3, q, 1, 0);
    struct held h = p_task(&r, 3, t, "a");
    p_end(&r, 3, t, 1);
    assert_int_equal(p_expect(&r, 2, w2, BROKER_REPLY_KNOWN)->id, id);
    rig_none(&r);
    assert_int_equal(h.id, id);
    rig_deinit(&r);
}

/* Each that is there is found, and has its id. */
static void all_known(struct rig *r, struct broker_queue *q, const uint64_t *there, int n)
{
    for (int k = 0; k < n; k++) {
        struct broker_event ev = rig_call(r, BROKER_PUT, 0, q, 0);
        char key[16];
        options o = {.key = tq_span(key, (size_t)snprintf(key, sizeof(key), "key-%d", k))};

        if (there[k] == 0)
            continue;
        ev.payload = p_text("x");
        ev.options = &o;
        assert_int_equal(broker_step(r->b, r->now_ms, &ev, &r->fx), 0);
        assert_int_equal(p_expect(r, 0, ev.token, BROKER_REPLY_KNOWN)->id, there[k]);
        rig_none(r);
    }
}

/* Many keys come and go, in an order of their own; a table of what should be there tells. */
static void many_keys(void **state)
{
    enum { KEYS = 20000, PHASE = 50000 };
    static uint64_t there[KEYS];
    struct rig r;
    uint32_t seed = 1;
    int count = 0, most = 0;

    (void)state;
    p_init(&r);
    struct broker_queue *q = keeping(&r, "q");
    memset(there, 0, sizeof(there));
    for (int i = 0; i < 4 * PHASE; i++) {
        char key[16];
        bool is_filling = i / PHASE % 2 == 0;

        if (i % PHASE == 0)
            all_known(&r, q, there, KEYS);

        seed = seed * 1664525 + 1013904223;
        int k = (int)(seed >> 8) % KEYS;
        snprintf(key, sizeof(key), "key-%d", k);
        if (there[k] == 0 || (is_filling && (seed >> 4 & 3) != 0)) {
            struct broker_event ev = rig_call(&r, BROKER_PUT, 0, q, 0);
            options o = {.key = tq_span_str(key)};

            if (!is_filling)
                continue;
            ev.payload = p_text("x");
            ev.options = &o;
            assert_int_equal(broker_step(r.b, r.now_ms, &ev, &r.fx), 0);
            const struct broker_effect *e =
                p_expect(&r, 0, ev.token, there[k] != 0 ? BROKER_REPLY_KNOWN : BROKER_REPLY_OK);
            if (there[k] != 0)
                assert_int_equal(e->id, there[k]);
            else
                count++;
            there[k] = e->id;
        } else {
            struct broker_event ev = rig_call(&r, BROKER_REMOVE, 0, NULL, 0);

            ev.id = there[k];
            assert_int_equal(broker_step(r.b, r.now_ms, &ev, &r.fx), 0);
            p_expect(&r, 0, ev.token, BROKER_REPLY_OK);
            there[k] = 0;
            count--;
        }
        most = count > most ? count : most;
        rig_none(&r);
    }
    rig_check(&r);
    all_known(&r, q, there, KEYS);
    assert_true(most > 12000 && count < most / 4);
    assert_int_equal(rig_stats(&r).tasks, count);
    rig_deinit(&r);
}

static void a_key_without_memory_is_no_put(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct rig r;

        p_init(&r);
        struct broker_queue *q = keeping(&r, "q");
        struct broker_event ev = rig_call(&r, BROKER_PUT, 0, q, 0);

        ev.payload = p_text("a");
        ev.options = KEY("k");
        tq_mem_fail_after(n, 1);
        int rv = rig_try(&r, &ev);
        tq_mem_fail_after(-1, 0);
        bool is_ok = rv == 0 && r.fx.list[r.seen].outcome == BROKER_REPLY_OK;

        r.seen = r.fx.count;
        rig_none(&r);
        assert_int_equal(rig_stats(&r).tasks, is_ok ? 1 : 0);
        if (!is_ok)
            p_put(&r, q, "a", KEY("k")); /* it is free */
        else
            known(&r, q, KEY("k"), 1);
        rig_deinit(&r);
        if (is_ok) {
            assert_true(n > 3);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_repeated_put_is_the_first_one),
        cmocka_unit_test(a_key_is_bytes),
        cmocka_unit_test(the_key_goes_with_its_task),
        cmocka_unit_test(a_queue_of_the_same_name_knows_no_old_keys),
        cmocka_unit_test(a_put_that_waits_is_looked_up_again),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(a_key_without_memory_is_no_put),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
