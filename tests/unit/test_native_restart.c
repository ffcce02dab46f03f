/* Masters that end and begin again, as their log says: what becomes of sessions and of what they had in hand.
 * The log is a list of records here; all that was collected is on it. */
#include <utlist.h>

#include "master/core/journal.h"
#include "master/core/restore.h"
#include "tests/unit/native_talk.h"

/* A turn's record is what both journals have to say. */
struct history {
    struct tq_buf records[64];
    size_t count;
};

static void record(struct native_rig *r, struct history *h)
{
    struct tq_buf *buf = &h->records[h->count];
    enum journal_wait wait;

    assert_true(h->count < sizeof(h->records) / sizeof(h->records[0]));
    tq_buf_init(buf, 1u << 24);
    assert_int_equal(broker_journal_collect(r->broker, 1, buf, &wait), TQ_OK);
    assert_int_equal(native_journal_collect(r->native, 1, buf), TQ_OK);
    if (buf->len > 0)
        h->count++;
    assert_false(broker_journal_failed(r->broker));
}

static void forget(struct history *h)
{
    while (h->count > 0)
        tq_buf_deinit(&h->records[--h->count]);
}

static void begin(struct native_rig *r, struct history *h)
{
    struct broker_queue_conf conf;
    struct broker_queue *q;

    *h = (struct history){0};
    assert_true(native_rig_init_durable(r, NULL));
    broker_queue_conf_init(&conf);
    assert_int_equal(broker_declare(r->broker, "result_queue", &conf, &q), TQ_OK);
    conf.result = "result_queue";
    assert_int_equal(broker_declare(r->broker, "task_queue", &conf, &q), TQ_OK);
    record(r, h);
}

static int on_host(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment, char text[RESTORE_TEXT_MAX])
{
    return native_restore_op(((struct native_rig *)ctx)->native, op, bytes, segment, text);
}

static struct broker_session *session_of(void *ctx, uint64_t durable_id)
{
    return native_session_of(((struct native_rig *)ctx)->native, durable_id);
}

static int try_restore(struct native_rig *r, const struct history *h)
{
    char text[RESTORE_TEXT_MAX] = "";
    struct broker_restore *restore = broker_restore_begin(r->broker, on_host, r);
    int rv = restore != NULL ? TQ_OK : TQ_ENOMEM;

    for (size_t i = 0; i < h->count && rv == TQ_OK; i++)
        rv = broker_restore_ops(restore, tq_buf_span(&h->records[i]), 1, text);
    if (rv == TQ_OK)
        rv = native_restore_finish(r->native);
    if (rv != TQ_OK) {
        broker_restore_abandon(restore);
        return rv;
    }
    rv = broker_restore_finish(restore, r->now_ms, session_of, r, text);
    if (rv == TQ_OK)
        native_restore_wait(r->native);
    return rv;
}

/* kill -9, and the next one; gone: a key that it does not have, or -1. */
static void next_life_without(struct native_rig *r, struct history *h, int gone)
{
    uint64_t now = r->now_ms;

    record(r, h);
    native_rig_deinit(r);
    assert_true(native_rig_init_durable(r, NULL));
    r->now_ms = now + 500;
    r->random_state = now; /* other tokens */
    if (gone >= 0)
        r->gone_keys[gone] = true;
    assert_int_equal(try_restore(r, h), TQ_OK);
    check(r);
    record(r, h);
}

static void next_life(struct native_rig *r, struct history *h)
{
    next_life_without(r, h, -1);
}

static void end(struct native_rig *r, struct history *h)
{
    teardown(r);
    forget(h);
}

/* w has two of three, v the third, without an id of its own. */
static struct token hand_out(struct native_rig *r)
{
    struct native_client *p, *w, *v;
    struct token token;

    p = client(r, "");
    say(p, "[0,1,'put',{q:'task_queue',tasks:[[1],[2],[3]]}]");
    hear(p, "[1,1,nil,{ids:[1,2,3]}]");
    w = native_rig_connect(r, 1);
    token = hello_token(w, "{version:1,worker:'w',heartbeat_ms:1000}");
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[[1,1,1,1],[2,1,1,2]]}]");
    v = client(r, "");
    say(v, "[0,1,'get',{q:'task_queue'}]");
    hear(v, "[1,1,nil,{tasks:[[3,1,1,3]]}]");
    return token;
}

/* With the token, which is another one afterwards. */
static struct native_client *resume(struct native_rig *r, struct token *token, const char *leases,
                                    const char *expected)
{
    struct native_client *w = native_rig_connect(r, 1);
    struct tq_span payload;
    char *got, *text;

    say(w, "[0,0,'hello',{version:1,worker:'w',token:%s,leases:%s}]", token->text, leases);
    assert_true(native_rig_read(w, &payload));
    got = mptext_decode(payload);
    assert_true(asprintf(&text, "[1,0,nil,{*,resumed:true,leases:%s}]", expected) > 0);
    if (!mptext_match(text, got))
        fail_msg("came: %s\nbut should: %s", got, text);
    *token = token_of(got);
    free(text);
    free(got);
    return w;
}

static void leases_go_on(void **state)
{
    struct history h;
    struct native_rig r;
    struct native_client *w, *p;
    struct token token;

    (void)state;
    begin(&r, &h);
    token = hand_out(&r);
    for (unsigned life = 0; life < 3; life++) {
        next_life(&r, &h);
        native_rig_advance(&r, 29000);
    }
    w = resume(&r, &token, "[[1,1],[2,1],[3,1]]", "[[1,1],[2,1]]");
    say(w, "[0,1,'done',{done:[[1,1,'r1'],[3,1,'not mine']]}]");
    hear(w, "[1,1,nil,{ok:1,refused:[[3,'stale']]}]");
    next_life(&r, &h);
    p = client(&r, "");
    say(p, "[0,1,'wait',{id:1}]");
    hear(p, "[1,1,nil,{id:1,state:'done',result:{*value:'r1',*worker:'w',*}}]");
    /* v's went back when the first one ended: it had no session that could come back */
    say(p, "[0,2,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,2,nil,{tasks:[[3,2,2,3]]}]");
    /* what a worker does not name any more was never run */
    (void)resume(&r, &token, "[]", "[]");
    say(p, "[0,3,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,3,nil,{tasks:[[2,2,1,2]]}]");
    end(&r, &h);
}

static void who_does_not_come_is_waited_for_as_long_as_the_queue_says(void **state)
{
    struct history h;
    struct native_rig r;
    struct native_client *p;
    struct token token;

    (void)state;
    begin(&r, &h);
    say(client(&r, ""), "[0,1,'declare',{q:'task_queue',update:true,grace_ms:45000}]");
    token = hand_out(&r);
    next_life(&r, &h);
    p = client(&r, "");
    say(p, "[0,1,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,1,nil,{tasks:[[3,2,2,3]]}]");
    say(p, "[0,2,'get',{q:'task_queue',max:9,wait_ms:-1}]");
    native_rig_advance(&r, 44999);
    hear_nothing(p);
    next_life(&r, &h); /* and the grace begins anew */
    p = client(&r, "");
    say(p, "[0,2,'get',{q:'task_queue',max:9,wait_ms:-1}]");
    hear(p, "[1,2,nil,{tasks:[[3,3,3,3]]}]");
    say(p, "[0,3,'get',{q:'task_queue',max:9,wait_ms:-1}]");
    native_rig_advance(&r, 44999);
    hear_nothing(p);
    native_rig_advance(&r, 1);
    hear(p, "[1,3,nil,{tasks:[[2,2,2,2]]}]");
    say(p, "[0,4,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,4,nil,{tasks:[[1,2,2,1]]}]");
    native_rig_advance(&r, 1);
    assert_int_equal(native_counters(r.native)->sessions_forgotten, 1);
    next_life(&r, &h);
    p = native_rig_connect(&r, 1);
    say(p, "[0,0,'hello',{version:1,worker:'w',token:%s}]", token.text);
    hear(p, "[1,0,nil,{*,resumed:false,leases:[]}]");
    end(&r, &h);
}

static void what_a_closed_socket_freed_can_be_resumed(void **state)
{
    struct history h;
    struct native_rig r;
    struct native_client *p;
    struct token token;

    (void)state;
    begin(&r, &h);
    token = hand_out(&r);
    native_rig_close(r.clients->next, NATIVE_SOCKET_CLOSED);
    next_life(&r, &h);
    p = client(&r, "");
    say(p, "[0,1,'get',{q:'task_queue'}]");
    hear(p, "[1,1,nil,{tasks:[[*]]}]");
    say(p, "[0,2,'get',{q:'task_queue'}]");
    hear(p, "[1,2,nil,{tasks:[[*]]}]");
    say(p, "[0,3,'tasks',{q:'task_queue',state:'ready'}]");
    hear(p, "[1,3,nil,{tasks:[{id:2,*}],next:nil}]");
    p = resume(&r, &token, "[[1,1],[2,1]]", "[[2,1]]"); /* what nobody was given meanwhile */
    say(p, "[0,1,'done',{done:[[1,1],[2,1]]}]");
    hear(p, "[1,1,nil,{ok:1,refused:[[1,'stale']]}]");
    end(&r, &h);
}

static void a_key_that_is_gone(void **state)
{
    struct history h;
    struct native_rig r;
    struct native_client *p;

    (void)state;
    begin(&r, &h);
    (void)hand_out(&r);
    next_life_without(&r, &h, 1);
    p = client(&r, "");
    say(p, "[0,1,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,1,nil,{tasks:[[1,2,2,1],[2,2,2,2],[3,2,2,3]]}]");
    next_life(&r, &h); /* the key is there again: its sessions are not */
    say(client(&r, ""), "[0,1,'workers',{}]");
    hear(r.clients, "[1,1,nil,{workers:[{key:'k0',*}],next:nil}]");
    end(&r, &h);
}

static void a_stop_in_good_order(void **state)
{
    struct history h;
    struct native_rig r;
    struct native_client *c;
    struct token token;

    (void)state;
    begin(&r, &h);
    token = hand_out(&r);
    native_stop(r.native);
    native_rig_flush(&r);
    DL_FOREACH(r.clients, c)
    {
        native_rig_close(c, NATIVE_SOCKET_CLOSED);
    }
    next_life(&r, &h);
    c = client(&r, "");
    say(c, "[0,1,'get',{q:'task_queue',max:9}]");
    hear(c, "[1,1,nil,{tasks:[[3,2,2,3]]}]");
    (void)resume(&r, &token, "[[1,1],[2,1]]", "[[1,1],[2,1]]");
    end(&r, &h);
}

static void each_allocation_fails(void **state)
{
    struct history h;
    struct native_rig r;
    bool good = false;

    (void)state;
    begin(&r, &h);
    (void)hand_out(&r);
    record(&r, &h);
    teardown(&r);
    for (long after = 0; !good; after++) {
        int rv;

        assert_true(after < 2000);
        assert_true(native_rig_init_durable(&r, NULL));
        r.now_ms = 5000;
        tq_mem_fail_after(after, 1);
        rv = try_restore(&r, &h);
        tq_mem_fail_after(-1, 0);
        good = rv == TQ_OK;
        assert_true(good || rv == TQ_ENOMEM);
        if (good)
            check(&r);
        native_rig_deinit(&r);
    }
    forget(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_go_on),
        cmocka_unit_test(who_does_not_come_is_waited_for_as_long_as_the_queue_says),
        cmocka_unit_test(what_a_closed_socket_freed_can_be_resumed),
        cmocka_unit_test(a_key_that_is_gone),
        cmocka_unit_test(a_stop_in_good_order),
        cmocka_unit_test(each_allocation_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
