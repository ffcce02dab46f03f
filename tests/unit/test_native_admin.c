/* Queues and their policies, looking at them, tasks by their ids; bodies of the other dialect. */
#include "tests/unit/native_talk.h"

#include "proto/native/convert.h"

static void declare_and_policies(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    say(c, "[0,1,'declare',{q:'work',kind:'lifo',ack:'get',durability:'memory',maxsize:9,full:'reject',max_"
           "attempts:0,"
           "max_deliveries:4,retry_ms:5,retry_max_ms:6,lease_ms:7,grace_ms:8,ttl_ms:9,retention_ms:10,"
           "result:'result_queue',dead:'grave',rate_per_s:11,rate_burst:12,concurrency:13,paused:true,"
           "expires_ms:1400}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'stats',{q:'work'}]");
    hear(c, "[1,2,nil,{q:'work',*policies:{kind:'lifo',ack:'get',durability:'memory',maxsize:9,full:'reject',"
            "max_attempts:0,"
            "max_deliveries:4,retry_ms:5,retry_max_ms:6,lease_ms:7,grace_ms:8,ttl_ms:9,retention_ms:10,"
            "result:'result_queue',dead:'grave',rate_per_s:11,rate_burst:12,concurrency:13,paused:true,"
            "expires_ms:1400}}]");
    say(c, "[0,3,'declare',{q:'work',maxsize:9,kind:'lifo',ack:'get',full:'reject',dead:'grave'}]");
    hear(c, "[1,3,nil,{created:false}]");
    say(c, "[0,4,'declare',{q:'work',maxsize:10}]");
    hear_error(c, 4, "queue_exists", "maxsize");
    say(c, "[0,5,'declare',{q:'work',dead:nil}]");
    hear_error(c, 5, "queue_exists", "dead");
    say(c, "[0,6,'declare',{q:'work',kind:'fifo',update:true}]");
    hear_error(c, 6, "queue_exists", "kind cannot be changed");
    say(c, "[0,7,'declare',{q:'work',ack:'auto',update:true}]");
    hear_error(c, 7, "queue_exists", "ack cannot be changed");
    say(c, "[0,12,'declare',{q:'work',dead:'work',update:true}]");
    hear_error(c, 12, "bad_request", "its own dead letters");
    say(c, "[0,13,'declare',{q:'other',dead:'other'}]");
    hear_error(c, 13, "bad_request", "its own dead letters");
    say(c, "[0,8,'declare',{q:'work',dead:nil,retention_ms:-1,paused:false,update:true}]");
    hear(c, "[1,8,nil,{created:false}]");
    say(c, "[0,9,'stats',{q:'work'}]");
    hear(c, "[1,9,nil,{*maxsize:9,*retention_ms:-1,result:'result_queue',dead:nil,*paused:false,*}]");
    say(c, "[0,10,'declare',{q:'plain'}]");
    hear(c, "[1,10,nil,{created:true}]");
    say(c, "[0,11,'stats',{q:'plain'}]");
    hear(c, "[1,11,nil,{*policies:{kind:'fifo',ack:'auto',durability:'memory',maxsize:0,full:'block',max_"
            "attempts:1,"
            "max_deliveries:0,retry_ms:1000,retry_max_ms:600000,lease_ms:0,grace_ms:30000,ttl_ms:0,"
            "retention_ms:-1,result:nil,dead:nil,rate_per_s:0,rate_burst:0,concurrency:0,paused:false,"
            "expires_ms:0}}]");
    native_rig_advance(&r, 1400); /* nobody used it */
    say(c, "[0,12,'get',{q:'work'}]");
    hear_error(c, 12, "queue_unknown", "work");
    teardown(&r);
}

/* What can be promised depends on whether there is a log. */
static void durability(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "");
    say(c, "[0,1,'declare',{q:'a',durability:'fsync'}]");
    hear_error(c, 1, "refused", "--data-dir");
    say(c, "[0,2,'declare',{q:'a',durability:'interval'}]");
    hear_error(c, 2, "refused", "keeps all in memory");
    say(c, "[0,3,'declare',{q:'a',durability:'always'}]");
    hear_error(c, 3, "bad_request", "none of fsync, interval, memory");
    say(c, "[0,4,'declare',{q:'a',durability:'memory'}]");
    hear(c, "[1,4,nil,{created:true}]");
    r.host.durable = true;
    r.host.durability = BROKER_DURABILITY_INTERVAL;
    say(c, "[0,5,'declare',{q:'b'}]");
    hear(c, "[1,5,nil,{created:true}]");
    say(c, "[0,6,'stats',{q:'b'}]");
    hear(c, "[1,6,nil,{*durability:'interval',*}]");
    say(c, "[0,7,'declare',{q:'b',durability:'fsync'}]");
    hear_error(c, 7, "queue_exists", "durability");
    say(c, "[0,8,'declare',{q:'b',durability:'fsync',update:true}]");
    hear(c, "[1,8,nil,{created:false}]");
    say(c, "[0,9,'declare',{q:'b',max_attempts:3,update:true}]");
    hear(c, "[1,9,nil,{created:false}]");
    say(c, "[0,10,'stats',{q:'b'}]");
    hear(c, "[1,10,nil,{*durability:'fsync',*max_attempts:3,*}]");
    teardown(&r);
}

static void pause_purge_delete(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "w");
    r.kept_queue = broker_find(r.broker, tq_span_str("task_queue"));
    say(c, "[0,1,'put',{q:'task_queue',tasks:[[1],[2],[3,{delay_ms:9}]]}]");
    hear(c, "[1,1,nil,{ids:[1,2,3]}]");
    say(c, "[0,2,'pause',{q:'task_queue'}]");
    hear(c, "[1,2,nil,{}]");
    say(c, "[0,3,'get',{q:'task_queue'}]");
    hear(c, "[1,3,nil,{tasks:[]}]");
    say(c, "[0,4,'get',{q:'task_queue',wait_ms:-1}]");
    hear_nothing(c);
    say(c, "[0,5,'resume',{q:'task_queue'}]");
    hear(c, "[1,4,nil,{tasks:[[1,1,1,1]]}]");
    hear(c, "[1,5,nil,{}]");
    say(c, "[0,6,'purge',{q:'task_queue'}]");
    hear(c, "[1,6,nil,{dropped:2}]");
    native_rig_advance(&r, 100);
    say(c, "[0,7,'wait',{id:2}]");
    hear_error(c, 7, "unknown", "2");
    say(c, "[0,8,'delete',{q:'task_queue'}]");
    hear_error(c, 8, "refused", "purge");
    say(c, "[0,9,'get',{q:'result_queue',wait_ms:-1}]");
    say(c, "[0,10,'join',{q:'task_queue',wait_ms:-1}]");
    say(c, "[0,11,'delete',{q:'result_queue'}]");
    hear_error(c, 9, "queue_closed", "");
    hear(c, "[1,11,nil,{}]");
    say(c, "[0,12,'done',{done:[[1,1,'kept']]}]"); /* no result queue: it is kept */
    hear(c, "[1,10,nil,{unfinished:0}]");
    hear(c, "[1,12,nil,{ok:1}]");
    say(c, "[0,13,'wait',{id:1}]");
    hear(c, "[1,13,nil,{id:1,state:'done',result:{*value:'kept',*}}]");
    say(c, "[0,14,'tasks',{q:'task_queue',state:'done',bodies:true}]");
    hear(c, "[1,14,nil,{tasks:[{id:1,state:'done',value:'kept',*}],next:nil}]");
    say(c, "[0,15,'remove',{ids:[1]}]");
    hear(c, "[1,15,nil,{ok:1}]");
    teardown(&r);
}

static void lists_in_pages(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "w");
    for (unsigned i = 0; i < 10; i++) {
        say(c, "[0,1,'declare',{q:'q%u'}]", i);
        hear(c, "[1,1,nil,{created:true}]");
    }
    say(c, "[0,2,'queues',{max:7}]");
    hear(c, "[1,2,nil,{queues:[{q:'result_queue',*},{q:'task_queue',*},{q:'q0',*},{q:'q1',*},{q:'q2',*},"
            "{q:'q3',*},{q:'q4',*}],next:7}]");
    say(c, "[0,3,'delete',{q:'q5'}]"); /* a list goes on where it was, whatever went meanwhile */
    hear(c, "[1,3,nil,{}]");
    say(c, "[0,4,'queues',{max:7,from:7}]");
    hear(c, "[1,4,nil,{queues:[{q:'q6',*},{q:'q7',*},{q:'q8',*},{q:'q9',*}],next:nil}]");
    say(c, "[0,5,'put',{q:'q0',tasks:[[1],[2],[3,{delay_ms:50,key:'k',trace:'t'}],[4],[5]]}]");
    hear(c, "[1,5,nil,{ids:[1,2,3,4,5]}]");
    say(c, "[0,6,'get',{q:'q0'}]");
    hear(c, "[1,6,nil,{tasks:[[1,*]]}]");
    say(c, "[0,7,'tasks',{q:'q0',max:2}]");
    hear(c, "[1,7,nil,{tasks:[{id:1,attempt:1,state:'leased',q:'q0',put_ms:1700000001000},"
            "{id:2,attempt:1,state:'ready',q:'q0',put_ms:1700000001000}],next:3}]");
    say(c, "[0,8,'tasks',{q:'q0',from:3,bodies:true}]");
    hear(c, "[1,8,nil,{tasks:[{id:3,attempt:1,state:'delayed',q:'q0',due_ms:1700000001050,"
            "put_ms:1700000001000,value:3,key:'k',trace:'t'},{id:4,*value:4},{id:5,*}],next:nil}]");
    say(c, "[0,9,'tasks',{q:'q0',state:'ready'}]");
    hear(c, "[1,9,nil,{tasks:[{id:2,*},{id:4,*},{id:5,*}],next:nil}]");
    say(c, "[0,10,'tasks',{q:'q0',state:'gone'}]");
    hear_error(c, 10, "bad_request", "gone");
    say(c, "[0,11,'stats',{}]");
    hear(c, "[1,11,nil,{puts:5,gets:1,*queues:11,tasks:5,delayed:1,leased:1,*sessions_opened:1,*sessions:1,"
            "denied:0}]");
    say(c, "[0,12,'queues',{from:4294967295}]");
    hear(c, "[1,12,nil,{queues:[],next:nil}]");
    say(c, "[0,13,'queues',{from:9223372036854775807}]");
    hear(c, "[1,13,nil,{queues:[],next:nil}]");
    teardown(&r);
}

static void long_pages_and_looks_are_cut(void **state)
{
    struct native_rig r;
    struct native_client *c;
    struct tq_span payload;
    char body[30001], *got;
    unsigned long long from = 0;
    unsigned pages = 0;

    (void)state;
    setup(&r);
    r.host.limits.batch = 10000;
    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    c = client(&r, "");
    for (unsigned i = 0; i < 5; i++) {
        say(c, "[0,1,'put',{q:'result_queue',tasks:[['%s']]}]", body);
        hear(c, "[1,1,nil,*]");
    }
    say(c, "[0,2,'tasks',{q:'result_queue',bodies:true}]");
    hear(c, "[1,2,nil,{tasks:[*],next:4}]");
    /* a queue of which nothing is seen for long: pages without anything in them go on */
    for (unsigned i = 0; i < 60; i++) {
        struct tq_buf b = TQ_BUF_NULL(1u << 20);
        struct tq_mp_out o = tq_mp_out(&b);

        tq_mp_put_array(&o, 4);
        tq_mp_put_u64(&o, 0);
        tq_mp_put_u64(&o, 3);
        tq_mp_put_cstr(&o, "put");
        tq_mp_put_map(&o, 2);
        tq_mp_put_cstr(&o, "q");
        tq_mp_put_cstr(&o, "task_queue");
        tq_mp_put_cstr(&o, "tasks");
        tq_mp_put_array(&o, 1000);
        for (unsigned k = 0; k < 1000; k++) {
            tq_mp_put_array(&o, 1);
            tq_mp_put_nil(&o);
        }
        native_rig_send(c, tq_buf_span(&b));
        hear(c, "[1,3,nil,*]");
        tq_buf_deinit(&b);
    }
    say(c, "[0,1,'put',{q:'result_queue',tasks:[[1]]}]");
    hear(c, "[1,1,nil,{ids:[60006]}]");
    for (;; pages++) {
        assert_true(pages < 100);
        say(c, "[0,4,'tasks',{q:'result_queue',from:%llu,max:1000}]", from > 5 ? from : 6);
        assert_true(native_rig_read(c, &payload));
        got = mptext_decode(payload);
        if (strstr(got, "next:nil") != NULL)
            break;
        from = strtoull(strstr(got, "next:") + 5, NULL, 10);
        free(got);
    }
    assert_true(pages > 0);
    assert_non_null(strstr(got, "{id:60006,"));
    free(got);
    teardown(&r);
}

static void dead_letters_of_a_queue_are_retried(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "w");
    say(c, "[0,1,'declare',{q:'work',dead:'grave'}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'declare',{q:'grave'}]");
    hear(c, "[1,2,nil,{created:true}]");
    say(c, "[0,3,'put',{q:'work',tasks:[[1],[2],[3]]}]");
    hear(c, "[1,3,nil,{ids:[1,2,3]}]");
    say(c, "[0,4,'get',{q:'work',max:3}]");
    hear(c, "[1,4,nil,*]");
    say(c, "[0,5,'fail',{fail:[[1,1],[2,1,nil],[3,1,{error:'\xc3\xa4',final:true}]]}]");
    hear(c, "[1,5,nil,{ok:3}]");
    say(c, "[0,6,'tasks',{q:'grave',state:'dead',bodies:true}]");
    hear(c, "[1,6,nil,{tasks:[{id:1,state:'dead',q:'grave',value:1,*outcome:'failed',*from:'work',*},*],next:"
            "nil}]");
    say(c, "[0,7,'retry',{q:'grave',max:2}]");
    hear(c, "[1,7,nil,{ok:2,next:3}]");
    say(c, "[0,8,'retry',{q:'grave',max:2,from:3}]");
    hear(c, "[1,8,nil,{ok:1}]");
    say(c, "[0,9,'get',{q:'work',max:3}]");
    hear(c, "[1,9,nil,{tasks:[[1,*,1,1*],[2,*],[3,*]]}]");
    teardown(&r);
}

/* A master whose batches are smaller than a page. */
static void retry_and_remove_keep_to_a_small_batch(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    r.host.limits.batch = 2;
    c = client(&r, "w");
    say(c, "[0,1,'declare',{q:'work',dead:'grave'}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'declare',{q:'grave'}]");
    hear(c, "[1,2,nil,{created:true}]");
    for (unsigned id = 1; id <= 3; id++) {
        say(c, "[0,3,'put',{q:'work',tasks:[[%u]]}]", id);
        hear(c, "[1,3,nil,{ids:[%u]}]", id);
        say(c, "[0,4,'get',{q:'work'}]");
        hear(c, "[1,4,nil,*]");
        say(c, "[0,5,'fail',{fail:[[%u,1]]}]", id);
        hear(c, "[1,5,nil,{ok:1}]");
    }
    say(c, "[0,6,'retry',{q:'grave'}]");
    hear(c, "[1,6,nil,{ok:2,next:3}]");
    say(c, "[0,7,'remove',{ids:[1,2]}]");
    hear(c, "[1,7,nil,{ok:2}]");
    say(c, "[0,8,'remove',{ids:[1,2,3]}]");
    hear(c, "[1,8,['bad_request','ids must be an array of up to 2 ids'],nil]");
    teardown(&r);
}

static void python_items_reach_native_clients(void **state)
{
    struct native_rig r;
    struct native_client *c;
    struct broker_session python = {0};
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN, .session = &python};
    struct broker_effects fx = {0};
    struct tq_buf value = TQ_BUF_NULL(100), frame = TQ_BUF_NULL(1000);

    (void)state;
    setup(&r);
    c = client(&r, "w");
    assert_int_equal(broker_step(r.broker, r.now_ms, &ev, &fx), TQ_OK);
    ev.kind = BROKER_PUT;
    ev.queue = broker_find(r.broker, tq_span_str("task_queue"));
    assert_true(mptext_encode("[1,'a',b'\\x00']", &value));
    assert_int_equal(
        tq_convert_to_python(tq_buf_span(&value), &frame, &ev.payload.item_off, &ev.payload.item_len), TQ_OK);
    ev.payload.data = frame.data;
    ev.payload.len = (uint32_t)frame.len;
    ev.payload.format = BROKER_PYTHON;
    assert_int_equal(broker_step(r.broker, r.now_ms, &ev, &fx), TQ_OK);
    broker_effects_clear(&fx);
    say(c, "[0,1,'tasks',{q:'task_queue',bodies:true}]");
    hear(c, "[1,1,nil,{tasks:[{*value:[1,'a',b'\\x00']*}],next:nil}]");
    say(c, "[0,2,'get',{q:'task_queue'}]");
    hear(c, "[1,2,nil,{tasks:[[1,1,1,[1,'a',b'\\x00']]]}]");
    ev = (struct broker_event){
        .kind = BROKER_SESSION_CLOSE, .session = &python, .close_mode = BROKER_CLOSE_ACK};
    assert_int_equal(broker_step(r.broker, r.now_ms, &ev, &fx), TQ_OK);
    broker_effects_deinit(&fx);
    tq_buf_deinit(&value);
    tq_buf_deinit(&frame);
    teardown(&r);
}

/* A small Python item that becomes a long value: a list with one string in it many times over. */
static struct broker_payload repeating_item(struct tq_buf *frame)
{
    struct tq_buf value = TQ_BUF_NULL(200);
    struct broker_payload p = {.format = BROKER_PYTHON};
    char text[120];

    (void)snprintf(text, sizeof(text), "[1,'%0100d']", 0);
    assert_true(mptext_encode(text, &value));
    assert_int_equal(tq_convert_to_python(tq_buf_span(&value), frame, &p.item_off, &p.item_len), TQ_OK);
    frame->len = p.item_off + p.item_len - 1; /* before the list's end */
    assert_int_equal(tq_buf_append_str(frame, "q\1"), TQ_OK);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(tq_buf_append_str(frame, "h\1"), TQ_OK);
    assert_int_equal(tq_buf_append_str(frame, "e\x86."), TQ_OK);
    tq_store_be32(frame->data, (uint32_t)frame->len - 4);
    p.item_len = (uint32_t)frame->len - 2 - p.item_off;
    p.data = frame->data;
    p.len = (uint32_t)frame->len;
    tq_buf_deinit(&value);
    return p;
}

static void items_that_grow_are_left_for_the_next_get(void **state)
{
    struct native_rig r;
    struct native_client *c;
    struct broker_session python = {0};
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN, .session = &python};
    struct broker_effects fx = {0};
    struct tq_buf frame = TQ_BUF_NULL(1000);

    (void)state;
    setup(&r);
    r.host.limits.reply_bytes = 1000;
    c = client(&r, "w");
    assert_int_equal(broker_step(r.broker, r.now_ms, &ev, &fx), TQ_OK);
    ev.kind = BROKER_PUT;
    ev.queue = broker_find(r.broker, tq_span_str("task_queue"));
    ev.payload = repeating_item(&frame);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(broker_step(r.broker, r.now_ms, &ev, &fx), TQ_OK);
    /* what went over the reply's length was not handed out: in front, in order, and no attempt */
    say(c, "[0,1,'get',{q:'task_queue',max:4}]");
    hear(c, "[1,1,nil,{tasks:[[1,1,1,[1,'%0100d','%0100d',*]]]}]", 0, 0);
    say(c, "[0,2,'tasks',{q:'task_queue'}]");
    hear(c, "[1,2,nil,{tasks:[{id:1,attempt:1,state:'leased',*},{id:2,attempt:1,state:'ready',*},{id:3,*},"
            "{id:4,*}],next:nil}]");
    say(c, "[0,3,'get',{q:'task_queue',max:1}]");
    hear(c, "[1,3,nil,{tasks:[[2,2,1,[1,'000*]]]}]");
    /* what is taken cannot go back: it comes as the pickle that it is */
    say(c, "[0,4,'get',{q:'task_queue',max:4,take:true}]");
    hear(c, "[1,4,nil,{tasks:[[3,*,1,[1,'%0100d','%0100d',*]],[4,*,1,x80'*']]}]", 0, 0);
    broker_effects_clear(&fx);
    ev = (struct broker_event){
        .kind = BROKER_SESSION_CLOSE, .session = &python, .close_mode = BROKER_CLOSE_ACK};
    assert_int_equal(broker_step(r.broker, r.now_ms, &ev, &fx), TQ_OK);
    broker_effects_deinit(&fx);
    tq_buf_deinit(&frame);
    teardown(&r);
}

static void text_that_is_no_utf8_is_bin(void **state)
{
    struct native_rig r;
    struct native_client *c;
    char error[1030];

    (void)state;
    setup(&r);
    memset(error, 'e', sizeof(error));
    c = client(&r, "w");
    say(c, "[0,1,'put',{q:'task_queue',tasks:[[1,{key:'\\xff',result:nil}],[2,{key:'\\xc3\\xa4',result:nil}],"
           "[3,{result:nil,retention_ms:1000}]]}]");
    hear(c, "[1,1,nil,{ids:[1,2,3]}]");
    say(c, "[0,2,'get',{q:'task_queue',max:3}]");
    hear(c, "[1,2,nil,{tasks:[[1,1,1,1,{key:b'\\xff'}],[2,1,1,2,{key:'\\xc3\\xa4'}],[3,1,1,3]]}]");
    /* errors are cut between characters */
    say(c,
        "[0,3,'fail',{fail:[[3,1,{error:'%.1023s\\xc3\\xa4'}],[2,1,{error:'%.1022s\\xc3\\xa4'}],"
        "[1,1,{error:b'%.1022s\\x80\\x80\\x80\\x80'}]]}]",
        error, error, error);
    hear(c, "[1,3,nil,{ok:3}]");
    say(c, "[0,4,'wait',{id:3}]");
    hear(c, "[1,4,nil,{*error:'%.1023s',*}]", error);
    say(c, "[0,5,'wait',{id:2}]");
    hear(c, "[1,5,nil,{*error:'%.1022s\\xc3\\xa4',*}]", error);
    say(c, "[0,6,'wait',{id:1}]");
    hear(c, "[1,6,nil,{*error:*'*}]");
    teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(declare_and_policies),
        cmocka_unit_test(durability),
        cmocka_unit_test(pause_purge_delete),
        cmocka_unit_test(lists_in_pages),
        cmocka_unit_test(long_pages_and_looks_are_cut),
        cmocka_unit_test(dead_letters_of_a_queue_are_retried),
        cmocka_unit_test(retry_and_remove_keep_to_a_small_batch),
        cmocka_unit_test(python_items_reach_native_clients),
        cmocka_unit_test(items_that_grow_are_left_for_the_next_get),
        cmocka_unit_test(text_that_is_no_utf8_is_bin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
