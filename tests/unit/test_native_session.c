/* Sessions: those that outlive their connections, who takes them over, silence, and how they are forgotten.
 */
#include "tests/unit/native_talk.h"

static const char *const hello_w = "{version:1,worker:'w'}";

static void put_three(struct native_client *p)
{
    say(p, "[0,1,'put',{q:'task_queue',tasks:[[1],[2],[3]]}]");
    hear(p, "[1,1,nil,{ids:[1,2,3]}]");
}

static void a_closed_socket_frees_at_once(void **state)
{
    struct native_rig r;
    struct native_client *p, *w, *v;
    struct token token;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    w = native_rig_connect(&r, 0);
    token = hello_token(w, hello_w);
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[[1,1,1,1],[2,1,1,2]]}]");
    v = client(&r, "v");
    say(v, "[0,1,'get',{q:'task_queue',max:1}]");
    hear(v, "[1,1,nil,{tasks:[[3,*]]}]");
    say(v, "[0,2,'get',{q:'task_queue',max:1,wait_ms:-1}]");
    native_rig_close(w, NATIVE_SOCKET_CLOSED);
    hear(v, "[1,2,nil,{tasks:[[1,2,2,1]]}]"); /* attempt 2 */
    /* back again: what nobody was given meanwhile is its own again, under the same epoch */
    w = native_rig_connect(&r, 0);
    say(w, "[0,5,'hello',{version:1,worker:'w',token:%s,leases:[[1,1],[2,1],[77,1]]}]", token.text);
    hear(w, "[1,5,nil,{*,resumed:true,leases:[[2,1]]}]");
    say(w, "[0,6,'done',{done:[[1,1,'late'],[2,1,'good']]}]");
    hear(w, "[1,6,nil,{ok:1,refused:[[1,'stale']]}]");
    say(v, "[0,3,'done',{done:[[1,2,'first']]}]");
    hear(v, "[1,3,nil,{ok:1}]");
    teardown(&r);
}

static void silence_and_grace(void **state)
{
    struct native_rig r;
    struct native_client *p, *w, *v;
    struct token token;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    w = native_rig_connect(&r, 0);
    token = hello_token(w, "{version:1,worker:'w',heartbeat_ms:1000}");
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[*]}]");
    v = client(&r, "v");
    say(v, "[0,1,'get',{q:'task_queue',max:9}]");
    hear(v, "[1,1,nil,{tasks:[[3,*]]}]");
    say(v, "[0,2,'get',{q:'task_queue',max:9,wait_ms:-1}]");
    native_rig_advance(&r, 2999);
    say(w, "[0,2,'ping',{}]"); /* any frame is a sign of life */
    hear(w, "[1,2,nil,*]");
    native_rig_advance(&r, 2500);
    native_heard(&w->conn, r.now_ms); /* and so are bytes */
    native_rig_advance(&r, 2999);
    assert_true(w->open);
    native_rig_advance(&r, 1);
    assert_false(w->open);
    assert_int_equal(native_counters(r.native)->silent, 1);
    hear_nothing(v);
    /* within the grace of 30 s it comes back, and has all */
    native_rig_advance(&r, 29000);
    w = native_rig_connect(&r, 0);
    say(w, "[0,0,'hello',{version:1,worker:'w',token:%s,heartbeat_ms:1000,leases:[[1,1],[2,1]]}]",
        token.text);
    hear(w, "[1,0,nil,{*,resumed:true,leases:[[1,1],[2,1]],*}]");
    hear_nothing(v);
    native_rig_advance(&r, 3000);
    assert_false(w->open);
    native_rig_advance(&r, 29999);
    hear_nothing(v);
    native_rig_advance(&r, 1);
    hear(v, "[1,2,nil,{tasks:[[*,2,2,*]*]}]");
    /* the session is forgotten a little later; its token is void then */
    native_rig_advance(&r, 1000);
    assert_int_equal(native_counters(r.native)->sessions_forgotten, 1);
    w = native_rig_connect(&r, 0);
    say(w, "[0,0,'hello',{version:1,worker:'w',token:%s,leases:[[1,1]]}]", token.text);
    hear(w, "[1,0,nil,{*,resumed:false,leases:[]}]");
    teardown(&r);
}

/* The host could not listen (its disk stood still), so nobody was silent for that time. */
static void silence_while_nobody_listens(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    w = native_rig_connect(&r, 0);
    hello_token(w, "{version:1,worker:'w',heartbeat_ms:1000}");
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[*]}]");
    native_rig_advance(&r, 2900);
    broker_was_deaf(r.broker, 0, true);
    for (unsigned i = 0; i < 100; i++) {
        native_rig_advance(&r, 100);
        broker_was_deaf(r.broker, 100, i < 99);
    }
    native_rig_advance(&r, 1000);
    assert_true(w->open);
    say(w, "[0,2,'ping',{}]"); /* what stood in its socket meanwhile */
    hear(w, "[1,2,nil,*]");
    native_rig_advance(&r, 20000); /* but now it is silent */
    assert_false(w->open);
    assert_int_equal(native_counters(r.native)->silent, 1);
    teardown(&r);
}

/* Its replies wait for the host's log, and so much of them that nothing of it is read. */
static void silence_while_replies_are_held(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    w = native_rig_connect(&r, 0);
    hello_token(w, "{version:1,worker:'w',heartbeat_ms:1000}");
    w->conn.held = true;
    w->conn.unsent = r.host.limits.output_bytes;
    native_rig_advance(&r, 60000);
    assert_true(w->open);
    w->conn.unsent = 1; /* it is read from again */
    native_rig_advance(&r, 6000);
    assert_false(w->open);
    teardown(&r);
}

static void a_session_without_worker_ends_with_its_connection(void **state)
{
    struct native_rig r;
    struct native_client *p, *a;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    a = native_rig_connect(&r, 0);
    say(a, "[0,0,'hello',{version:1,heartbeat_ms:1000}]");
    hear(a, "[1,0,nil,{*silent_ms:3000}]");
    say(a, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(a, "[1,1,nil,{tasks:[*]}]");
    native_rig_advance(&r, 3000);
    assert_false(a->open);
    say(p, "[0,2,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,2,nil,{tasks:[[1,2,2,1],[2,2,2,2],[3,1,1,3]]}]");
    teardown(&r);
}

static void taken_and_taken_over(void **state)
{
    struct native_rig r;
    struct native_client *w, *x, *p;
    struct token token, next;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    w = native_rig_connect(&r, 0);
    token = hello_token(w, hello_w);
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[*]}]");
    say(w, "[0,2,'get',{q:'result_queue',wait_ms:-1}]");
    x = native_rig_connect(&r, 0);
    say(x, "[0,1,'hello',{version:1,worker:'w'}]");
    hear_error(x, 1, "worker_taken", "w");
    say(x, "[0,2,'hello',{version:1,worker:'w',token:b'0123456789abcdef'}]");
    hear_error(x, 2, "worker_taken", "w");
    say(x, "[0,3,'hello',{version:1,worker:'w',token:%s,leases:[[2,1]]}]", token.text);
    hear(x, "[1,3,nil,{*,resumed:true,leases:[[2,1]]}]");
    assert_false(w->open);
    hear_nothing(w);
    /* what it did not name went back to the front, and was never run */
    say(p, "[0,2,'get',{q:'task_queue',max:9}]");
    hear(p, "[1,2,nil,{tasks:[[1,2,1,1],[3,1,1,3]]}]");
    /* each hello makes a new token */
    say(x, "[0,4,'ping',{}]");
    hear(x, "[1,4,*]");
    w = native_rig_connect(&r, 0);
    say(w, "[0,1,'hello',{version:1,worker:'w',token:%s}]", token.text);
    hear_error(w, 1, "worker_taken", "w");
    /* but the old one is good as long as the new one may have been lost on its way */
    token = hello_token(native_rig_connect(&r, 0), "{version:1,worker:'other'}");
    for (unsigned i = 0; i < 3; i++) {
        w = native_rig_connect(&r, 0);
        say(w, "[0,1,'hello',{version:1,worker:'other',token:%s}]", token.text);
        hear(w, "[1,1,nil,{*resumed:true,*}]");
    }
    say(w, "[0,2,'ping',{}]");
    w = native_rig_connect(&r, 0);
    say(w, "[0,1,'hello',{version:1,worker:'other',token:%s}]", token.text);
    hear_error(w, 1, "worker_taken", "other");
    /* with another key it is nobody's business */
    native_rig_close(x, NATIVE_SOCKET_CLOSED);
    x = native_rig_connect(&r, 1);
    say(x, "[0,1,'hello',{version:1,worker:'w'}]");
    hear_error(x, 1, "worker_taken", "another key");
    /* without token: the old session ends */
    next = hello_token(w, hello_w);
    assert_string_not_equal(next.text, token.text);
    say(w, "[0,1,'get',{q:'task_queue'}]");
    hear(w, "[1,1,nil,{tasks:[[2,2,2,2]]}]");
    assert_int_equal(native_counters(r.native)->sessions_taken_over, 1 + 3);
    teardown(&r);
}

static void bounded_rosters(void **state)
{
    struct native_rig r;
    struct native_client *c[40], *holder;

    (void)state;
    setup(&r);
    r.host.limits.sessions = 4;
    holder = client(&r, "holder");
    put_three(holder);
    say(holder, "[0,2,'get',{q:'task_queue',max:2}]");
    hear(holder, "[1,2,nil,{tasks:[*]}]");
    native_rig_close(holder, NATIVE_FELL_SILENT);
    /* those without a connection and without leases make room, the oldest first */
    for (unsigned i = 0; i < 12; i++) {
        char name[8];

        (void)snprintf(name, sizeof(name), "w%u", i);
        native_rig_close(client(&r, name), NATIVE_SOCKET_CLOSED);
    }
    for (unsigned i = 0; i < 3; i++)
        c[i] = client(&r, "");
    c[3] = native_rig_connect(&r, 0);
    say(c[3], "[0,1,'hello',{version:1}]");
    hear_error(c[3], 1, "too_many", "4 sessions");
    native_rig_close(c[0], NATIVE_SOCKET_CLOSED);
    say(c[3], "[0,1,'hello',{version:1}]");
    hear(c[3], "[1,1,nil,*]");
    r.host.limits.sessions = 500;
    for (unsigned i = 0; i < 300; i++) { /* the table of worker ids grows */
        char name[8];

        (void)snprintf(name, sizeof(name), "v%u", i);
        (void)client(&r, name);
    }
    say(c[3], "[0,2,'workers',{max:1000}]");
    hear(c[3], "[1,2,nil,{workers:[{worker:'holder',key:'k0',*leases:2,connected:false},*],next:nil}]");
    say(c[3], "[0,3,'workers',{max:2}]");
    hear(c[3], "[1,3,nil,{workers:[{*},{*}],next:2}]");
    say(c[3], "[0,4,'workers',{from:302,max:100}]");
    hear(c[3], "[1,4,nil,{workers:[{worker:'v298',*},{worker:'v299',*}],next:nil}]");
    teardown(&r);
}

static void revoked_keys_and_moved_ones(void **state)
{
    static const size_t moved[3] = {0, TQ_AUTH_KEY_GONE, 1};
    struct native_rig r;
    struct native_client *gone, *stays, *p;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    gone = native_rig_connect(&r, 1);
    say(gone, "[0,0,'hello',{version:1,worker:'gone'}]");
    hear(gone, "[1,0,nil,*]");
    say(gone, "[0,1,'get',{q:'task_queue'}]");
    hear(gone, "[1,1,nil,{tasks:[[1,*]]}]");
    native_rig_close(gone, NATIVE_FELL_SILENT);
    stays = native_rig_connect(&r, 2);
    say(stays, "[0,0,'hello',{version:1,worker:'stays'}]");
    hear(stays, "[1,0,nil,*]");
    native_rig_close(stays, NATIVE_FELL_SILENT);
    native_keys_moved(r.native, moved, 3);
    assert_int_equal(native_counters(r.native)->sessions_forgotten, 1);
    say(p, "[0,2,'get',{q:'task_queue'}]");
    hear(p, "[1,2,nil,{tasks:[[1,2,2,1]]}]");
    stays = native_rig_connect(&r, 1);
    say(stays, "[0,0,'hello',{version:1,worker:'stays'}]");
    hear(stays, "[1,0,nil,*]");
    /* rights change while requests wait */
    say(stays, "[0,1,'get',{q:'result_queue',wait_ms:-1}]");
    say(stays, "[0,2,'join',{q:'task_queue',wait_ms:-1}]");
    say(stays, "[0,3,'wait',{id:2,wait_ms:-1}]");
    say(stays, "[0,4,'wait',{id:1,wait_ms:-1}]");
    r.rights[1] = KEY_PUT;
    native_rights_changed(&stays->conn, false);
    native_rig_flush(&r);
    hear_error(stays, 1, "denied", "get");
    hear_nothing(stays);
    r.rights[1] = 0;
    native_rights_changed(&stays->conn, true);
    native_rig_flush(&r);
    assert_false(stays->open);
    hear_nothing(stays);
    native_rig_close(stays, NATIVE_REVOKED);
    teardown(&r);
}

static void rights_of_waits_for_results_of_queues_that_went(void **state)
{
    struct native_rig r;
    struct native_client *p;

    (void)state;
    setup(&r);
    p = client(&r, "w");
    for (unsigned i = 0; i < 2; i++) {
        r.rights[0] = KEY_ALL;
        say(p, "[0,1,'declare',{q:'work'}]");
        hear(p, "[1,1,nil,{created:true}]");
        say(p, "[0,2,'put',{q:'work',tasks:[[1,{key:'k'}]]}]");
        hear(p, "[1,2,nil,*]");
        say(p, "[0,3,'get',{q:'work'}]");
        hear(p, "[1,3,nil,{tasks:[[*]]}]");
        say(p, "[0,4,'wait',{q:'work',key:'k',wait_ms:-1}]");
        say(p, "[0,5,'wait',{id:%u,wait_ms:-1}]", i + 1);
        say(p, "[0,6,'delete',{q:'work'}]");
        hear(p, "[1,6,nil,{}]");
        r.rights[0] = i == 0 ? KEY_GET | KEY_MANAGE : KEY_LOOK;
        native_rights_changed(&p->conn, false);
        native_rig_flush(&r);
        if (i == 1) {
            hear_error(p, 4, "denied", "wait");
            hear_error(p, 5, "denied", "wait");
        } else {
            say(p, "[0,7,'done',{done:[[1,1,'late']]}]");
            hear(p, "[1,4,*]");
            hear(p, "[1,5,*]");
            hear(p, "[1,7,nil,{ok:1}]");
        }
        hear_nothing(p);
    }
    teardown(&r);
}

static void a_revoked_session_ends(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    put_three(p);
    w = client(&r, "w");
    say(w, "[0,1,'get',{q:'task_queue'}]");
    hear(w, "[1,1,nil,{tasks:[*]}]");
    native_rig_close(w, NATIVE_REVOKED);
    say(p, "[0,2,'workers',{}]");
    hear(p, "[1,2,nil,{workers:[{key:'k0',peer:'127.0.0.1:1',waiting:0,*}],next:nil}]");
    say(p, "[0,3,'get',{q:'task_queue'}]");
    hear(p, "[1,3,nil,{tasks:[[1,2,2,1]]}]");
    teardown(&r);
}

static void replies_end_and_input_waits(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;
    char body[4001];

    (void)state;
    setup(&r);
    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    p = client(&r, "");
    w = client(&r, "w");
    for (unsigned i = 0; i < 400; i++)
        say(p, "[0,1,'put',{q:'task_queue',tasks:[['%s']]}]", body);
    /* a reply takes no more once it is long enough */
    say(w, "[0,1,'get',{q:'task_queue',max:400}]");
    hear(w, "[1,1,nil,{tasks:[*[17,1,1,*]]}]");
    hear_nothing(w);
    native_rig_stall(w, true);
    for (unsigned i = 0; i < 8; i++)
        say(w, "[0,%u,'get',{q:'task_queue',max:400}]", i);
    assert_true(w->open);
    assert_false(native_wants_input(&w->conn));
    native_rig_stall(w, false);
    assert_true(native_wants_input(&w->conn));
    for (unsigned i = 0; i < 4; i++)
        hear(w, "[1,%u,nil,{tasks:[*]}]", i);
    teardown(&r);
}

/* 64 KB to each of 12 gets that wait, of which 512 KiB may stand unread. */
static void put_64k(struct native_client *p, unsigned times)
{
    char body[4001];

    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    for (unsigned i = 0; i < times; i++)
        say(p,
            "[0,1,'put',{q:'result_queue',tasks:[['%s'],['%s'],['%s'],['%s'],['%s'],['%s'],['%s'],['%s'],"
            "['%s'],['%s'],['%s'],['%s'],['%s'],['%s'],['%s'],['%s']]}]",
            body, body, body, body, body, body, body, body, body, body, body, body, body, body, body, body);
}

static void who_is_behind_gets_no_large_replies(void **state)
{
    struct broker_queue_stats q;
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w");
    for (unsigned i = 0; i < 12; i++)
        say(w, "[0,%u,'get',{q:'result_queue',max:100,wait_ms:-1}]", i);
    native_rig_stall(w, true);
    put_64k(p, 12);
    assert_true(w->open);
    broker_get_queue_stats(r.host.broker, broker_find(r.host.broker, tq_span_str("result_queue")), &q);
    assert_int_equal(q.leased, 9 * 16); /* the ninth passed the limit */
    assert_int_equal(q.ready, 3 * 16);  /* these went back, unrun */
    native_rig_stall(w, false);
    for (unsigned i = 0; i < 9; i++)
        hear(w, "[1,%u,nil,{tasks:[*]}]", i);
    for (unsigned i = 9; i < 12; i++)
        hear(w, "[1,%u,nil,{tasks:[]}]", i);
    teardown(&r);
}

/* What is handed out for good cannot go back: beyond one frame more, the connection ends. */
static void who_does_not_read_is_closed_at_last(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    r.host.limits.calls = 40;
    p = client(&r, "");
    w = client(&r, "w");
    for (unsigned i = 0; i < 30; i++)
        say(w, "[0,%u,'get',{q:'result_queue',max:16,wait_ms:-1,take:true}]", i);
    native_rig_stall(w, true);
    put_64k(p, 20);
    assert_true(w->open);
    put_64k(p, 10);
    assert_false(w->open);
    assert_int_equal(native_counters(r.native)->not_reading, 1);
    teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_socket_frees_at_once),
        cmocka_unit_test(silence_and_grace),
        cmocka_unit_test(silence_while_nobody_listens),
        cmocka_unit_test(silence_while_replies_are_held),
        cmocka_unit_test(a_session_without_worker_ends_with_its_connection),
        cmocka_unit_test(taken_and_taken_over),
        cmocka_unit_test(bounded_rosters),
        cmocka_unit_test(revoked_keys_and_moved_ones),
        cmocka_unit_test(rights_of_waits_for_results_of_queues_that_went),
        cmocka_unit_test(a_revoked_session_ends),
        cmocka_unit_test(replies_end_and_input_waits),
        cmocka_unit_test(who_is_behind_gets_no_large_replies),
        cmocka_unit_test(who_does_not_read_is_closed_at_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
