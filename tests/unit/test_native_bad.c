/* What is wrong is refused by name: every field of every request with every wrong type, messages that are
 * none, requests that are cut at every byte, names, limits, rights. The connection stays, unless the protocol
 * is broken. */
#include "tests/unit/native_talk.h"

#include "tests/lib/guard.h"

/* One of each type; S: a string that is no name. */
static const char *const values[] = {"nil",  "true",      "-1",       "7",  "18446744073709551615",
                                     "1.5",  "'no name'", "b'\\xff'", "[]", "{}",
                                     "[[]]", "x5'abc'"};

struct field {
    const char *method;
    const char *before; /* params that make the request good but for this field */
    const char *field;
    const char *good; /* letters of types that are taken: n nil, t bool, - negative, 7 small, + any number,
                         s string, a array, m map */
};

static const struct field fields[] = {
    {"put", "tasks:[[1]],", "q", ""},
    {"put", "q:'task_queue',", "tasks", ""},
    {"put", "q:'task_queue',tasks:[[1]],", "opts", "nm"},
    {"put", "q:'task_queue',tasks:[[1]],", "wait_ms", "n-7"},
    {"get", "", "q", ""},
    {"get", "q:'task_queue',", "max", "7"},
    {"get", "q:'task_queue',", "wait_ms", "n-7"},
    {"get", "q:'task_queue',", "take", "t"},
    {"done", "", "done", "a"},
    {"done", "done:[],", "fail", "na"},
    {"done", "done:[],", "to", "n"},
    {"done", "done:[],", "get", "n"},
    {"fail", "", "fail", "a"},
    {"extend", "", "leases", "a"},
    {"extend", "leases:[],", "ms", "n7"},
    {"release", "", "leases", "a"},
    {"wait", "", "id", "7"},
    {"wait", "q:'task_queue',key:'k',", "q", ""},
    {"wait", "q:'task_queue',", "key", "s"},
    {"join", "", "q", ""},
    {"join", "q:'task_queue',", "wait_ms", "n-7"},
    {"cancel", "", "call", "7"},
    {"declare", "", "q", ""},
    {"declare", "q:'task_queue',", "kind", ""},
    {"declare", "q:'task_queue',", "ack", ""},
    {"declare", "q:'task_queue',", "full", ""},
    {"declare", "q:'task_queue',update:true,", "maxsize", "7"},
    {"declare", "q:'task_queue',update:true,", "max_attempts", "7"},
    {"declare", "q:'task_queue',update:true,", "max_deliveries", "7"},
    {"declare", "q:'task_queue',update:true,", "retry_ms", "7"},
    {"declare", "q:'task_queue',update:true,", "retry_max_ms", "7"},
    {"declare", "q:'task_queue',update:true,", "lease_ms", "7"},
    {"declare", "q:'task_queue',update:true,", "grace_ms", "7"},
    {"declare", "q:'task_queue',update:true,", "ttl_ms", "7"},
    {"declare", "q:'task_queue',update:true,", "retention_ms", "-7"},
    {"declare", "q:'task_queue',update:true,", "result", "n"},
    {"declare", "q:'task_queue',update:true,", "dead", "n"},
    {"declare", "q:'task_queue',update:true,", "rate_per_s", "7"},
    {"declare", "q:'task_queue',update:true,", "rate_burst", "7"},
    {"declare", "q:'task_queue',update:true,", "concurrency", "7"},
    {"declare", "q:'task_queue',update:true,", "paused", "t"},
    {"declare", "q:'task_queue',update:true,", "expires_ms", "7"},
    {"declare", "q:'task_queue',", "update", "t"},
    {"delete", "", "q", ""},
    {"purge", "", "q", ""},
    {"pause", "", "q", ""},
    {"resume", "", "q", ""},
    {"remove", "", "ids", "a"},
    {"retry", "", "ids", "a"},
    {"retry", "", "q", ""},
    {"retry", "q:'task_queue',", "from", "n7"},
    {"retry", "q:'task_queue',", "max", "7"},
    {"stats", "", "q", "n"},
    {"queues", "", "from", "n7"},
    {"queues", "", "max", "7"},
    {"tasks", "", "q", ""},
    {"tasks", "q:'task_queue',", "state", "n"},
    {"tasks", "q:'task_queue',", "from", "n7"},
    {"tasks", "q:'task_queue',", "max", "7"},
    {"tasks", "q:'task_queue',", "bodies", "t"},
    {"workers", "", "from", "n7"},
    {"workers", "", "max", "7"},
    {"hello", "version:1,", "version", "7+"},
    {"hello", "version:1,", "client", "ns"},
    {"hello", "version:1,", "worker", "n"},
    {"hello", "version:1,worker:'w',", "token", "n"},
    {"hello", "version:1,worker:'w',token:'0123456789abcdef',", "leases", "na"},
    {"hello", "version:1,", "heartbeat_ms", "n"},
};

static bool taken(const struct field *f, size_t value)
{
    /* by the place in `values` */
    static const char letters[] = "nt-7+.ssam";

    if (value >= sizeof(letters) - 1)
        return false;
    /* numbers that are ids, versions and the like go up to 2^32 or 2^63 only */
    if (letters[value] == '+')
        return false;
    return strchr(f->good, letters[value]) != NULL;
}

static void every_field_with_every_type(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const struct field *f = &fields[i];
        bool hello = strcmp(f->method, "hello") == 0;

        for (size_t k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
            struct tq_span payload;
            char *got;

            c = hello ? native_rig_connect(&r, 0) : client(&r, "");
            say(c, "[0,%zu,'%s',{%s%s:%s}]", k, f->method, f->before, f->field, values[k]);
            if (!c->open)
                fail_msg("%s.%s=%s closed the connection", f->method, f->field, values[k]);
            if (!native_rig_read(c, &payload)) { /* it waits */
                assert_true(taken(f, k));
                native_rig_forget(c);
                continue;
            }
            got = mptext_decode(payload);
            if (taken(f, k) == mptext_match("*,['bad_request','*", got))
                fail_msg("%s.%s=%s: %s", f->method, f->field, values[k], got);
            if (!taken(f, k) && strstr(got, f->field) == NULL && strstr(got, "missing") == NULL)
                fail_msg("%s.%s=%s is not named: %s", f->method, f->field, values[k], got);
            free(got);
            native_rig_forget(c);
            check(&r);
        }
    }
    native_rig_deinit(&r);
}

static void elements_of_batches(void **state)
{
    static const char *const wrong[][2] = {
        {"'put',{q:'task_queue',tasks:[[1],2]}", "tasks[1]"},
        {"'put',{q:'task_queue',tasks:[[1],[]]}", "tasks[1]"},
        {"'put',{q:'task_queue',tasks:[[1],[2,3]]}", "tasks[1]"},
        {"'put',{q:'task_queue',tasks:[[1,{key:''}]]}", "tasks[0].key"},
        {"'put',{q:'task_queue',tasks:[[1,{key:5}]]}", "tasks[0].key"},
        {"'put',{q:'task_queue',tasks:[[1,{priority:2147483648}]]}", "tasks[0].priority"},
        {"'put',{q:'task_queue',tasks:[[1,{priority:'x'}]]}", "tasks[0].priority"},
        {"'put',{q:'task_queue',tasks:[[1,{delay_ms:-1}]]}", "tasks[0].delay_ms"},
        {"'put',{q:'task_queue',tasks:[[1,{ttl_ms:1.0}]]}", "tasks[0].ttl_ms"},
        {"'put',{q:'task_queue',tasks:[[1,{max_attempts:0}]]}", "tasks[0].max_attempts"},
        {"'put',{q:'task_queue',tasks:[[1,{max_attempts:251}]]}", "tasks[0].max_attempts"},
        {"'put',{q:'task_queue',tasks:[[1,{retention_ms:-1}]]}", "tasks[0].retention_ms"},
        {"'put',{q:'task_queue',tasks:[[1,{result:7}]]}", "tasks[0].result"},
        {"'put',{q:'task_queue',tasks:[[1,{result:'a/b'}]]}", "result"},
        {"'put',{q:'task_queue',tasks:[[1]],opts:{trace:''}}", "opts.trace"},
        {"'done',{done:[[1]]}", "done[0]"},
        {"'done',{done:[[1,1],[1,-1]]}", "done[1]"},
        {"'done',{done:[[1,4294967296]]}", "done[0]"},
        {"'fail',{fail:[[1,1],1]}", "fail[1]"},
        {"'fail',{fail:[[1,1,2]]}", "fail"},
        {"'fail',{fail:[[1,1,{error:1}]]}", "fail.error"},
        {"'fail',{fail:[[1,1,{code:2147483648}]]}", "fail.code"},
        {"'fail',{fail:[[1,1,{final:1}]]}", "fail.final"},
        {"'fail',{fail:[[1,1,{delay_ms:'x'}]]}", "fail.delay_ms"},
        {"'done',{done:[],get:{q:'task_queue',max:0}}", "get.max"},
        {"'done',{done:[],get:{max:1}}", "q"},
        {"'done',{}", "done or fail"},
        {"'extend',{leases:[[1,1],[1]]}", "leases[1]"},
        {"'release',{leases:[7]}", "leases[0]"},
        {"'remove',{ids:[1,'2']}", "ids[1]"},
        {"'retry',{ids:[1,-2]}", "ids[1]"},
        {"'wait',{}", "id"},
        {"'wait',{q:'task_queue'}", "key"},
        {"'wait',{key:'k'}", "q"},
        {"'cancel',{}", "call"},
        {"'ping',7", ""},
        {"'get',[{q:'task_queue'},1]", "params"},
        {"'get',[1]", "params"},
        {"'get',7", "params"},
        {"'get',nil", "params"},
        {"'hello',{version:1}", "already"},
    };
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        say(c, "[0,%zu,%s]", i, wrong[i][0]);
        if (strstr(wrong[i][0], "'ping'") != NULL)
            hear(c, "[1,*,nil,{now_ms:*}]"); /* it has no params */
        else
            hear(c, "[1,%zu,['*','*%s*'],nil]", i, wrong[i][1]);
        hear_nothing(c);
    }
    say(c, "[0,1,'stats',{q:'task_queue'}]"); /* nothing of all that was done */
    hear(c, "[1,1,nil,{q:'task_queue',ready:0,*puts:0,*}]");
    teardown(&r);
}

static void what_is_no_message_closes(void **state)
{
    static const char *const broken[] = {
        "7",
        "nil",
        "{}",
        "[]",
        "[0]",
        "[0,1,'ping']",
        "[0,1,'ping',{},1]",
        "[1,1,nil,{}]",
        "[3,'x',{}]",
        "[2,'x']",
        "[2,'x',{},1]",
        "['0',1,'ping',{}]",
        "[0,-1,'ping',{}]",
        "[0,4294967296,'ping',{}]",
        "[0,1,7,{}]",
        "[2,7,{}]",
        "[0,nil,'ping',{}]",
    };
    static const uint8_t bytes[][6] = {
        {0xdd, 0xff, 0xff, 0xff, 0xff, 0}, {0xc1}, {0x94, 0, 1, 0xa1, 'x', 0xc1}, {0x90, 0}};
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        c = client(&r, "w");
        say(c, "%s", broken[i]);
        hear(c, "[2,'error',{code:'protocol',text:'*'}]");
        assert_false(c->open);
        native_rig_forget(c);
    }
    for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        c = client(&r, "");
        native_rig_send(c, tq_span(bytes[i], sizeof(bytes[i])));
        hear(c, "[2,'error',{code:'protocol',text:'*'}]");
        assert_false(c->open);
    }
    assert_int_equal(native_counters(r.native)->protocol_errors, 17 + 4);
    teardown(&r);
}

static void cut_at_every_byte(void **state)
{
    static const char *const whole[] = {
        "[0,1,'hello',{version:1,worker:'w',token:b'0123456789abcdef',leases:[[1,2],[3,4]],heartbeat_ms:1000}"
        "]",
        "[0,1,'put',{q:'task_queue',tasks:[[{a:[1,2.5]},{key:'k',result:nil}],[b'x']],opts:{ttl_ms:9},wait_"
        "ms:5}]",
        "[0,1,'done',{done:[[1,1,{x:1}]],fail:[[2,1,{error:'e',code:-1}]],get:{q:'task_queue',max:3}}]",
        "[0,1,'wait',{q:'task_queue',key:'k',wait_ms:-1}]",
        "[2,'cancel',{call:1}]",
    };
    struct native_rig r;

    (void)state;
    setup(&r);
    for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
        struct tq_buf payload = TQ_BUF_NULL(4096);

        assert_true(mptext_encode(whole[i], &payload));
        for (size_t n = 0; n < payload.len; n++) {
            struct native_client *c = i == 0 ? native_rig_connect(&r, 0) : client(&r, "");
            uint8_t *guarded = guard_copy(payload.data, n);

            native_frame(&c->conn, tq_span(guarded, n));
            native_rig_flush(&r);
            hear(c, "[2,'error',{code:'protocol',*}]");
            assert_false(c->open);
            guard_free(guarded, n);
            native_rig_forget(c);
        }
        tq_buf_deinit(&payload);
    }
    teardown(&r);
}

static void names_are_checked_and_quoted(void **state)
{
    static const char *const names[] = {"\\x00",        "a/b",        "..%2f", "a b",
                                        "a\\x0d\\x0ab", "\\xff\\xfe", "\"",    "\\'"};
    struct native_rig r;
    struct native_client *c;
    char longest[400];

    (void)state;
    setup(&r);
    c = client(&r, "");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        say(c, "[0,1,'get',{q:'%s'}]", names[i]);
        hear_error(c, 1, "bad_request", "no name of a queue");
        say(c, "[0,2,'declare',{q:'%s'}]", names[i]);
        hear_error(c, 2, "bad_request", "no name of a queue");
        say(c, "[0,3,'declare',{q:'x%zu',result:'%s'}]", i, names[i]);
        hear_error(c, 3, "bad_request", "no name of a queue");
    }
    memset(longest, 'n', sizeof(longest));
    say(c, "[0,4,'declare',{q:'%.200s'}]", longest);
    hear(c, "[1,4,nil,{created:true}]");
    say(c, "[0,5,'declare',{q:'%.201s'}]", longest);
    hear_error(c, 5, "bad_request", "...");
    say(c, "[0,6,'put',{q:'task_queue',tasks:[[1,{key:'%.200s',trace:'%.128s'}]]}]", longest, longest);
    hear(c, "[1,6,nil,{ids:[1]}]");
    say(c, "[0,7,'put',{q:'task_queue',tasks:[[1,{key:'%.201s'}]]}]", longest);
    hear_error(c, 7, "bad_request", "1 to 200 bytes, not 201");
    say(c, "[0,8,'put',{q:'task_queue',tasks:[[1,{trace:'%.129s'}]]}]", longest);
    hear_error(c, 8, "bad_request", "trace");
    c = native_rig_connect(&r, 0);
    say(c, "[0,1,'hello',{version:1,worker:'%.129s'}]", longest);
    hear_error(c, 1, "bad_request", "worker");
    say(c, "[0,2,'hello',{version:1,worker:'a b'}]");
    hear_error(c, 2, "bad_request", "worker");
    say(c, "[0,3,'hello',{version:1,token:b'0123456789abcdef'}]");
    hear_error(c, 3, "bad_request", "token");
    say(c, "[0,4,'hello',{version:1,heartbeat_ms:999}]");
    hear_error(c, 4, "bad_request", "heartbeat_ms");
    say(c, "[0,5,'hello',{version:1,worker:'%.128s',client:'%.128s'}]", longest, longest);
    hear(c, "[1,5,nil,*]");
    teardown(&r);
}

static void limits(void **state)
{
    struct native_rig r;
    struct native_client *c;
    struct tq_buf payload = TQ_BUF_NULL(1u << 20);
    struct tq_mp_out o = tq_mp_out(&payload);

    (void)state;
    setup(&r);
    c = client(&r, "");
    for (unsigned i = 0; i < 16; i++)
        say(c, "[0,%u,'get',{q:'task_queue',wait_ms:-1}]", i);
    say(c, "[0,16,'get',{q:'task_queue',wait_ms:1}]");
    hear_error(c, 16, "too_many", "16 requests");
    say(c, "[0,17,'done',{done:[],get:{q:'task_queue',wait_ms:1}}]");
    hear_error(c, 17, "too_many", "16 requests");
    say(c, "[0,18,'get',{q:'task_queue'}]");
    hear(c, "[1,18,nil,{tasks:[]}]");
    say(c, "[0,19,'get',{q:'task_queue',max:1001}]");
    hear_error(c, 19, "bad_request", "1 to 1000");
    c = client(&r, "");
    for (unsigned count = 1000; count <= 1001; count++) {
        tq_buf_clear(&payload);
        o = tq_mp_out(&payload);
        tq_mp_put_array(&o, 4);
        tq_mp_put_u64(&o, 0);
        tq_mp_put_u64(&o, count);
        tq_mp_put_cstr(&o, "put");
        tq_mp_put_map(&o, 2);
        tq_mp_put_cstr(&o, "tasks");
        tq_mp_put_array(&o, count);
        for (unsigned i = 0; i < count; i++) {
            tq_mp_put_array(&o, 1);
            tq_mp_put_u64(&o, i);
        }
        tq_mp_put_cstr(&o, "q");
        tq_mp_put_cstr(&o, "result_queue");
        native_rig_send(c, tq_buf_span(&payload));
    }
    hear(c, "[1,1000,nil,{ids:[1,2,*,1000]}]");
    hear_error(c, 1001, "bad_request", "1 to 1000 tasks");
    say(c, "[0,2,'get',{q:'result_queue',max:1000}]");
    hear(c, "[1,2,nil,{tasks:[[1,1,1,0],*,[500,1,1,499]]}]"); /* held_per_session */
    say(c, "[0,3,'get',{q:'result_queue',max:1}]");
    hear_error(c, 3, "too_many", "leases");
    say(c, "[0,4,'done',{done:[],get:{q:'result_queue',max:1}}]");
    hear(c, "[1,4,nil,{ok:0,tasks:[],get_error:['too_many','*']}]");
    for (unsigned i = 0; i < 48; i++) {
        say(c, "[0,5,'declare',{q:'q%u'}]", i);
        hear(c, "[1,5,nil,{created:true}]");
    }
    say(c, "[0,6,'declare',{q:'more'}]");
    hear_error(c, 6, "too_many", "max-queues");
    tq_buf_deinit(&payload);
    teardown(&r);
}

static void rests_of_puts_that_wait_are_bounded(void **state)
{
    struct native_rig r;
    struct native_client *c;
    char body[3000];

    (void)state;
    setup(&r);
    r.host.limits.parked_bytes = 10000;
    memset(body, 'x', sizeof(body));
    c = client(&r, "");
    say(c, "[0,1,'declare',{q:'s',maxsize:1}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'put',{q:'s',tasks:[[0]]}]");
    hear(c, "[1,2,nil,{ids:[1]}]");
    for (unsigned i = 0; i < 3; i++)
        say(c, "[0,%u,'put',{q:'s',tasks:[[1],['%.2999s']],wait_ms:-1}]", 10 + i, body);
    hear_nothing(c);
    say(c, "[0,20,'put',{q:'s',tasks:[[1],['%.2999s']],wait_ms:-1}]", body);
    hear_error(c, 20, "memory", "rest");
    say(c, "[0,21,'put',{q:'s',tasks:[['%.2999s']],wait_ms:-1}]", body); /* it has no rest */
    hear_nothing(c);
    say(c, "[0,22,'cancel',{call:11}]");
    hear_error(c, 11, "canceled", "");
    hear(c, "[1,22,nil,{found:true}]");
    say(c, "[0,23,'put',{q:'s',tasks:[[1],['%.2999s']],wait_ms:-1}]", body);
    hear_nothing(c);
    native_rig_close(c, NATIVE_SOCKET_CLOSED);
    teardown(&r);
}

/* New work waits, or is refused by name; what is in hand is finished. */
static void a_disk_without_room(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w");
    say(p, "[0,1,'put',{q:'task_queue',tasks:[[1,{key:'k'}],[2]]}]");
    hear(p, "[1,1,nil,{ids:[1,2]}]");
    say(w, "[0,1,'get',{q:'task_queue'}]");
    hear(w, "[1,1,nil,{tasks:[[1,*]]}]");
    native_rig_refuse_new_work(&r, true);
    say(p, "[0,2,'put',{q:'task_queue',tasks:[[3],[4]]}]");
    hear_error(p, 2, "no_space", "disk");
    say(p, "[0,3,'put',{q:'task_queue',tasks:[[1,{key:'k'}],[4]]}]"); /* the first is no new work */
    hear(p, "[1,3,nil,{ids:[1],known:[[0,'leased',nil]],refused:[1,'no_space','*']}]");
    say(p, "[0,4,'put',{q:'task_queue',tasks:[[5]],wait_ms:100}]");
    say(p, "[0,5,'put',{q:'task_queue',tasks:[[6],[7]],wait_ms:-1}]");
    hear_nothing(p);
    native_rig_advance(&r, 100);
    hear_error(p, 4, "no_space", "later");
    say(w, "[0,2,'done',{done:[[1,1,'r']],get:{q:'task_queue'}}]");
    hear(w, "[1,2,nil,{ok:1,tasks:[[2,*]]}]");
    say(w, "[0,3,'fail',{fail:[[2,1,{error:'no'}]]}]");
    hear(w, "[1,3,nil,{ok:1}]");
    say(p, "[0,6,'get',{q:'result_queue',max:9,take:true}]");
    hear(p, "[1,6,nil,{tasks:[[1,*],[2,*]]}]");
    hear_nothing(p);
    native_rig_refuse_new_work(&r, false);
    hear(p, "[1,5,nil,{ids:[*]}]");
    say(p, "[0,8,'put',{q:'task_queue',tasks:[[8]]}]");
    hear(p, "[1,8,nil,{ids:[*]}]");
    teardown(&r);
}

static void rights(void **state)
{
    static const struct {
        const char *request;
        unsigned right;
        bool queue; /* it takes the right on task_queue, not on no queue */
    } needs[] = {
        {"'put',{q:'task_queue',tasks:[[1]]}", KEY_PUT, true},
        {"'get',{q:'task_queue'}", KEY_GET, true},
        {"'join',{q:'task_queue'}", KEY_PUT, true},
        {"'wait',{q:'task_queue',key:'k'}", KEY_PUT, true},
        {"'wait',{q:'task_queue',key:'k'}", KEY_GET, true},
        {"'wait',{id:1}", KEY_PUT, true},
        {"'done',{done:[],to:'task_queue'}", KEY_PUT, true},
        {"'done',{done:[],get:{q:'task_queue'}}", KEY_GET, true},
        {"'declare',{q:'task_queue'}", KEY_LOOK, true},
        {"'declare',{q:'task_queue',update:true}", KEY_MANAGE, true},
        {"'declare',{q:'new'}", KEY_MANAGE, false},
        {"'purge',{q:'task_queue'}", KEY_MANAGE, true},
        {"'pause',{q:'task_queue'}", KEY_MANAGE, true},
        {"'resume',{q:'task_queue'}", KEY_MANAGE, true},
        {"'retry',{q:'task_queue'}", KEY_MANAGE, true},
        {"'stats',{q:'task_queue'}", KEY_LOOK, true},
        {"'stats',{}", KEY_INSPECT, false},
        {"'queues',{}", KEY_INSPECT, false},
        {"'tasks',{q:'task_queue'}", KEY_INSPECT, true},
        {"'workers',{}", KEY_INSPECT, false},
    };
    struct native_rig r;
    struct native_client *c;

    (void)state;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        setup(&r);
        c = client(&r, "");
        say(c, "[0,1,'put',{q:'task_queue',tasks:[[1,{key:'k'}]]}]");
        hear(c, "[1,1,nil,*]");
        r.rights[0] =
            KEY_ALL & ~needs[i].right & ~(needs[i].right & (KEY_PUT | KEY_GET) ? KEY_PUT | KEY_GET : 0u);
        say(c, "[0,1,%s]", needs[i].request);
        hear_error(c, 1, "denied", "may not");
        assert_int_equal(r.denied, 1);
        r.rights[0] = needs[i].right;
        say(c, "[0,2,%s]", needs[i].request);
        hear(c, "[1,2,nil,*]");
        if (needs[i].queue) {
            r.only_queue[0] = "another";
            say(c, "[0,3,%s]", needs[i].request);
            hear_error(c, 3, "denied", "may not");
        }
        teardown(&r);
    }
    /* a reply queue of one's own; results to queues that one may look at */
    setup(&r);
    c = client(&r, "");
    r.rights[0] = KEY_MAKE | KEY_GET;
    r.only_queue[0] = "mine";
    say(c, "[0,1,'declare',{q:'mine',expires_ms:1000}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'declare',{q:'other',expires_ms:1000}]");
    hear_error(c, 2, "denied", "");
    say(c, "[0,3,'declare',{q:'mine2'}]");
    hear_error(c, 3, "denied", "");
    r.rights[0] = KEY_PUT;
    r.only_queue[0] = "task_queue";
    say(c, "[0,4,'put',{q:'task_queue',tasks:[[1,{result:'mine'}]]}]");
    hear_error(c, 4, "denied", "put with a result");
    r.rights[0] = KEY_MANAGE;
    r.only_queue[0] = NULL;
    say(c, "[0,5,'declare',{q:'task_queue',update:true,dead:'mine'}]");
    hear_error(c, 5, "denied", "");
    r.rights[0] = KEY_PUT;
    say(c, "[0,6,'put',{q:'task_queue',tasks:[[1],[2]]}]");
    hear(c, "[1,6,nil,{ids:[1,2]}]");
    say(c, "[0,7,'remove',{ids:[1,2,3]}]");
    hear(c, "[1,7,nil,{ok:0,refused:[[1,'denied'],[2,'denied'],[3,'unknown']]}]");
    teardown(&r);
}

static void the_last_of_two_keys_counts(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    say(c, "[0,1,'put',{q:'nowhere',tasks:[[1],[2]],q:'task_queue',tasks:[[3]],7:8,[1]:2,nil:3}]");
    hear(c, "[1,1,nil,{ids:[1]}]");
    say(c, "[0,2,'get',{q:'task_queue',wait_ms:-1,wait_ms:nil,max:7}]");
    hear(c, "[1,2,nil,{tasks:[[1,1,1,3]]}]");
    say(c, "[0,3,'get',{q:'task_queue',wait_ms:-1,wait_ms:nil}]");
    hear(c, "[1,3,nil,{tasks:[]}]");
    say(c, "[0,4,'declare',{q:'task_queue',update:true,dead:'result_queue',dead:nil}]");
    hear(c, "[1,4,nil,{created:false}]");
    say(c, "[0,5,'stats',{q:'task_queue'}]");
    hear(c, "[1,5,nil,{*dead:nil,*}]");
    teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_with_every_type),
        cmocka_unit_test(elements_of_batches),
        cmocka_unit_test(what_is_no_message_closes),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(names_are_checked_and_quoted),
        cmocka_unit_test(limits),
        cmocka_unit_test(rests_of_puts_that_wait_are_bounded),
        cmocka_unit_test(rights),
        cmocka_unit_test(a_disk_without_room),
        cmocka_unit_test(the_last_of_two_keys_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
