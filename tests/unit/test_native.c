/* The native dialect, spoken: hello, tasks in and out, results. */
#include "tests/unit/native_talk.h"

static void hello_tells_what_is_agreed(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = native_rig_connect(&r, 3);
    say(c, "[0,7,'hello',{version:9,client:'test/1',heartbeat_ms:2000,unknown:[1,{a:2}]}]");
    hear(c,
         "[1,7,nil,{version:1,server:'task-master/0',features:[],now_ms:1700000001000,key:'k3',role:'admin',"
         "max_frame_bytes:1048576,max_calls:16,max_batch:1000,heartbeat_ms:2000,silent_ms:6000}]");
    say(c, "[0,8,'hello',{version:1}]");
    hear_error(c, 8, "refused", "already");
    c = native_rig_connect(&r, 0);
    say(c, "[0,1,'hello',[{version:1,worker:'host/1:a@b-c.d_e'}]]");
    hear(c, "[1,1,nil,{version:1,*,worker:'host/1:a@b-c.d_e',token:b'*',resumed:false,leases:[]}]");
    teardown(&r);
}

static void nothing_before_hello(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = native_rig_connect(&r, 0);
    say(c, "[0,1,'ping',{}]");
    hear_error(c, 1, "hello_first", "ping");
    say(c, "[0,2,'\\x00\\xff\"',{}]");
    hear_error(c, 2, "hello_first", "\\x00\\\\xff");
    say(c, "[2,'cancel',{call:1}]");
    hear_nothing(c);
    say(c, "[0,3,'hello',{version:0}]");
    hear_error(c, 3, "version", "1 to 1");
    say(c, "[0,4,'hello',{version:1}]");
    hear(c, "[1,4,nil,{version:1,*}]");
    say(c, "[0,5,'nonsense',{}]");
    hear_error(c, 5, "unknown_method", "nonsense");
    say(c, "[0,6,'ping',[]]");
    hear(c, "[1,6,nil,{now_ms:1700000001000}]");
    assert_true(c->open);
    teardown(&r);
}

static void a_whole_cycle(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w1");
    say(p, "[0,1,'put',{q:'task_queue',tasks:[[1],['two'],[{three:[3,nil,1.5]}]]}]");
    hear(p, "[1,1,nil,{ids:[1,2,3]}]");
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[[1,1,1,1],[2,1,1,'two']]}]");
    say(w, "[0,2,'done',{done:[[1,1,'one'],[2,1]],get:{q:'task_queue',max:5}}]");
    hear(w, "[1,2,nil,{ok:2,tasks:[[3,1,1,{three:[3,nil,1.5000000000000000]}]]}]");
    say(w, "[0,3,'done',{done:[[3,1,b'\\x00'],[3,1,'again'],[99,1,nil]]}]");
    hear(w, "[1,3,nil,{ok:1,refused:[[3,'stale'],[99,'*']]}]");
    say(p, "[0,2,'get',{q:'result_queue',max:10,take:true}]");
    hear(p,
         "[1,2,nil,{tasks:[[1,*,1,'one',{outcome:'ok',attempt:1,worker:'w1',from:'task_queue',"
         "put_ms:1700000001000,started_ms:1700000001000,ended_ms:1700000001000}],[2,*],[3,*,b'\\x00',*]]}]");
    say(p, "[0,3,'get',{q:'result_queue'}]");
    hear(p, "[1,3,nil,{tasks:[]}]");
    teardown(&r);
}

static void a_get_waits_and_is_woken(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w1");
    say(w, "[0,1,'get',{q:'task_queue',max:3,wait_ms:500}]");
    say(w, "[0,2,'get',{q:'result_queue',wait_ms:-1}]");
    hear_nothing(w);
    say(p, "[0,1,'put',{q:'task_queue',tasks:[['a'],['b'],['c'],['d']]}]");
    hear(p, "[1,1,nil,{ids:[1,2,3,4]}]");
    hear(w, "[1,1,nil,{tasks:[[1,1,1,'a'],[2,1,1,'b'],[3,1,1,'c']]}]");
    say(w, "[0,3,'get',{q:'task_queue',wait_ms:500}]");
    hear(w, "[1,3,nil,{tasks:[[4,1,1,'d']]}]");
    say(w, "[0,4,'done',{done:[[1,1]],get:{q:'task_queue',wait_ms:500}}]");
    hear(w, "[1,2,nil,{tasks:[[1,*,1,nil,{outcome:'ok',*}]]}]");
    hear_nothing(w);
    native_rig_advance(&r, 499);
    hear_nothing(w);
    native_rig_advance(&r, 1);
    hear(w, "[1,4,nil,{ok:1,tasks:[]}]");
    say(w, "[0,5,'done',{done:[[77,1],[2,1]],get:{q:'task_queue',wait_ms:500}}]");
    say(p, "[0,2,'put',{q:'task_queue',tasks:[['e']]}]");
    hear(w, "[1,5,nil,{ok:1,refused:[[77,'*']],tasks:[[5,1,1,'e']]}]");
    teardown(&r);
}

static void put_options_and_what_they_do(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "w");
    say(c, "[0,1,'put',{q:'task_queue',opts:{trace:'00-ab-cd-01',ttl_ms:500},"
           "tasks:[[1,{key:'k1'}],[2,nil],[3,{key:b'k1',delay_ms:5}],[4,{delay_ms:100,ttl_ms:0}]]}]");
    hear(c, "[1,1,nil,{ids:[1,2,1,3],known:[[2,'ready',nil]]}]");
    say(c, "[0,2,'get',{q:'task_queue',max:9}]");
    hear(c, "[1,2,nil,{tasks:[[1,1,1,1,{key:'k1',trace:'00-ab-cd-01',expires_ms:1700000001500}],"
            "[2,1,1,2,{trace:'00-ab-cd-01',expires_ms:1700000001500}]]}]");
    say(c, "[0,3,'get',{q:'task_queue',max:9,wait_ms:100}]");
    native_rig_advance(&r, 100);
    hear(c, "[1,3,nil,{tasks:[[3,1,1,4,{trace:'00-ab-cd-01'}]]}]");
    say(c, "[0,4,'done',{done:[[1,1,'result']]}]");
    hear(c, "[1,4,nil,{ok:1}]");
    say(c, "[0,5,'put',{q:'task_queue',tasks:[[9,{key:'k1'}]]}]");
    hear(c, "[1,5,nil,{ids:[1],known:[[0,'done',{id:1,value:'result',key:'k1',*outcome:'ok',*}]]}]");
    say(c, "[0,6,'put',{q:'task_queue',tasks:[[5],[6,{priority:-1}],[7]]}]");
    hear(c, "[1,6,nil,{ids:[4],refused:[1,'refused','*']}]");
    say(c, "[0,7,'put',{q:'task_queue',tasks:[[6]],opts:{priority:2}}]");
    hear_error(c, 7, "refused", "");
    teardown(&r);
}

static void a_put_refused_in_its_middle_wakes_who_waits(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w");
    say(w, "[0,1,'get',{q:'task_queue',wait_ms:-1}]");
    hear_nothing(w);
    say(p, "[0,1,'put',{q:'task_queue',tasks:[[5],[6,{priority:-1}],[7]]}]");
    hear(p, "[1,1,nil,{ids:[1],refused:[1,'refused','*']}]");
    hear(w, "[1,1,nil,{tasks:[[1,1,1,5]]}]");
    teardown(&r);
}

/* One small request must not make a reply of gigabytes. */
static void many_puts_of_one_known_key(void **state)
{
    enum { RESULT_BYTES = 30000 };
    struct native_rig r;
    struct native_client *c;
    char *text = malloc(RESULT_BYTES + 100);
    int n;

    (void)state;
    assert_non_null(text);
    setup(&r);
    c = client(&r, "w");
    say(c, "[0,1,'put',{q:'task_queue',tasks:[[1,{key:'k'}]]}]");
    hear(c, "[1,1,nil,{ids:[1]}]");
    say(c, "[0,2,'get',{q:'task_queue'}]");
    hear(c, "[1,2,nil,{tasks:[[1,1,1,1,{key:'k'}]]}]");
    n = snprintf(text, RESULT_BYTES, "[0,3,'done',{done:[[1,1,'");
    memset(text + n, 'r', RESULT_BYTES);
    snprintf(text + n + RESULT_BYTES, 20, "']]}]");
    say(c, "%s", text);
    free(text);
    hear(c, "[1,3,nil,{ok:1}]");
    say(c, "[0,4,'put',{q:'task_queue',opts:{key:'k'},tasks:[[1],[2],[3],[4],[5]]}]");
    hear(c, "[1,4,nil,{ids:[1,1,1],known:[*,*,*],refused:[3,'too_many','*']}]");
    say(c, "[0,5,'put',{q:'task_queue',opts:{key:'k'},tasks:[[1],[2],[3]]}]");
    hear(c, "[1,5,nil,{ids:[1,1,1],known:[*,*,*]}]");
    teardown(&r);
}

static void results_by_wait(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w");
    say(p, "[0,1,'put',{q:'task_queue',tasks:[['a',{result:nil,key:'a'}],['b'],['c',{result:'mine'}]]}]");
    hear_error(p, 1, "queue_unknown", "mine");
    say(p, "[0,2,'declare',{q:'mine',expires_ms:60000}]");
    hear(p, "[1,2,nil,{created:true}]");
    say(p, "[0,1,'put',{q:'task_queue',tasks:[['a',{result:nil,key:'a'}],['b'],['c',{result:'mine'}]]}]");
    hear(p, "[1,1,nil,{ids:[1,2,3]}]");
    say(p, "[0,3,'wait',{id:1}]");
    hear(p, "[1,3,nil,{id:1,state:'ready'}]");
    say(p, "[0,4,'wait',{q:'task_queue',key:'a',wait_ms:-1}]");
    say(p, "[0,5,'wait',{id:1,wait_ms:50}]");
    say(p, "[0,6,'wait',{q:'task_queue',key:'b'}]");
    hear_error(p, 6, "unknown", "");
    say(p, "[0,7,'wait',{id:99}]");
    hear_error(p, 7, "unknown", "99");
    say(w, "[0,1,'get',{q:'task_queue',max:3}]");
    hear(w, "[1,1,nil,{tasks:[*]}]");
    native_rig_advance(&r, 50);
    hear(p, "[1,5,nil,{id:1,state:'leased'}]");
    say(w,
        "[0,2,'done',{done:[[1,1,{x:1}],[3,1,'for me']],fail:[[2,1,{error:'broke',code:-9,final:true}]]}]");
    hear(w, "[1,2,nil,{ok:3}]");
    hear(p, "[1,4,nil,{id:1,state:'done',result:{id:1,value:{x:1},key:'a',*}}]");
    say(p, "[0,8,'wait',{id:2}]");
    hear(p, "[1,8,nil,{id:2,state:'done',result:{id:2,error:'broke',code:-9,outcome:'failed',attempt:1,"
            "worker:'w',from:'task_queue',*}}]");
    say(p, "[0,9,'get',{q:'mine',take:true}]");
    hear(p, "[1,9,nil,{tasks:[[3,*,1,'for me',{outcome:'ok',*}]]}]");
    teardown(&r);
}

static void failing_and_retrying(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "w");
    say(c, "[0,1,'declare',{q:'work',max_attempts:2,retry_ms:0,dead:'grave'}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'declare',{q:'grave'}]");
    hear(c, "[1,2,nil,{created:true}]");
    say(c, "[0,3,'put',{q:'work',tasks:[['x']]}]");
    hear(c, "[1,3,nil,{ids:[1]}]");
    say(c, "[0,4,'get',{q:'work'}]");
    hear(c, "[1,4,nil,{tasks:[[1,1,1,'x']]}]");
    say(c, "[0,5,'fail',{fail:[[1,1,{error:'first',delay_ms:20}]],get:{q:'work',wait_ms:100}}]");
    hear_nothing(c);
    native_rig_advance(&r, 20);
    hear(c, "[1,5,nil,{ok:1,tasks:[[1,2,2,'x',{error:'first'}]]}]");
    say(c, "[0,6,'done',{fail:[[1,2,{error:'second',code:3}]]}]");
    hear(c, "[1,6,nil,{ok:1}]");
    say(c, "[0,7,'wait',{id:1}]");
    hear(c, "[1,7,nil,{id:1,state:'dead',result:{id:1,value:'x',error:'second',code:3,outcome:'failed',"
            "attempt:2,worker:'w',from:'work',*}}]");
    say(c, "[0,8,'retry',{ids:[1,1,50]}]");
    hear(c, "[1,8,nil,{ok:1,refused:[[1,'refused'],[50,'unknown']]}]");
    say(c, "[0,9,'get',{q:'work'}]");
    hear(c, "[1,9,nil,{tasks:[[1,*,1,'x',{error:'second',code:3}]]}]");
    teardown(&r);
}

static void lease_extend_release_lost(void **state)
{
    struct native_rig r;
    struct native_client *c;

    (void)state;
    setup(&r);
    c = client(&r, "w");
    say(c, "[0,1,'declare',{q:'work',lease_ms:100}]");
    hear(c, "[1,1,nil,{created:true}]");
    say(c, "[0,2,'put',{q:'work',tasks:[[1],[2],[3]]}]");
    hear(c, "[1,2,nil,{ids:[1,2,3]}]");
    say(c, "[0,3,'get',{q:'work',max:3}]");
    hear(c, "[1,3,nil,{tasks:[*]}]");
    say(c, "[0,4,'extend',{leases:[[1,1],[2,9]],ms:500}]");
    hear(c, "[1,4,nil,{ok:1,refused:[[2,'stale']]}]");
    say(c, "[0,5,'release',{leases:[[2,1]]}]");
    hear(c, "[1,5,nil,{ok:1}]");
    native_rig_advance(&r, 100);
    hear(c, "[2,'lost',{leases:[[3,1]]}]");
    hear_nothing(c);
    say(c, "[0,6,'get',{q:'work',max:3}]");
    hear(c, "[1,6,nil,{tasks:[[3,2,2,3],[2,2,1,2]]}]");
    say(c, "[0,7,'release',{leases:[[3,2],[2,2]]}]");
    hear(c, "[1,7,nil,{ok:2}]");
    say(c, "[0,8,'get',{q:'work',max:3}]");
    hear(c, "[1,8,nil,{tasks:[[3,3,2,3],[2,3,1,2]]}]");
    say(c, "[0,9,'remove',{ids:[2]}]");
    hear(c, "[2,'lost',{leases:[[2,3]]}]");
    hear(c, "[1,9,nil,{ok:1}]");
    teardown(&r);
}

static void a_put_waits_for_room_and_goes_on(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w");
    say(p, "[0,1,'declare',{q:'small',maxsize:2}]");
    hear(p, "[1,1,nil,{created:true}]");
    say(p, "[0,2,'put',{q:'small',tasks:[[1],[2],[3],[4]]}]");
    hear(p, "[1,2,nil,{ids:[1,2],refused:[2,'full','*']}]");
    say(p, "[0,3,'put',{q:'small',tasks:[[3,{key:'k3'}],[4],[5]],opts:{trace:'t'},wait_ms:1000}]");
    say(p, "[0,4,'put',{q:'small',tasks:[[6],[7]],wait_ms:1000}]");
    say(p, "[0,5,'put',{q:'small',tasks:[[8]]}]");
    hear_error(p, 5, "full", "");
    hear_nothing(p);
    say(w, "[0,1,'get',{q:'small',max:9}]");
    hear(w, "[1,1,nil,{tasks:[[1,*],[2,*]]}]");
    say(w, "[0,2,'get',{q:'small',max:9}]");
    hear(w, "[1,2,nil,{tasks:[[*]]}]");
    native_rig_advance(&r, 999);
    say(w, "[0,3,'get',{q:'small',max:9}]");
    hear(w, "[1,3,nil,{tasks:[[*]]}]");
    say(w, "[0,4,'get',{q:'small',max:9}]");
    hear(w, "[1,4,nil,{tasks:[[*]]}]");
    hear(p, "[1,*,nil,{ids:[*]}]");
    hear(p, "[1,*,nil,{ids:[*]}]");
    hear_nothing(p);
    say(p, "[0,6,'put',{q:'small',tasks:[[10],[11],[12],[13]],wait_ms:50}]");
    native_rig_advance(&r, 50);
    hear(p, "[1,6,nil,{ids:[*],refused:[2,'full','*']}]");
    say(p, "[0,7,'put',{q:'small',tasks:[[14],[15]],wait_ms:-1}]");
    say(p, "[0,8,'cancel',{call:7}]");
    hear_error(p, 7, "canceled", "");
    hear(p, "[1,8,nil,{found:true}]");
    say(p, "[0,9,'put',{q:'small',tasks:[[14],[15]],wait_ms:-1}]");
    say(p, "[0,10,'delete',{q:'small'}]");
    hear_error(p, 9, "queue_closed", "");
    hear(p, "[1,10,nil,{}]");
    teardown(&r);
}

static void join_cancel_and_bye(void **state)
{
    struct native_rig r;
    struct native_client *p, *w;

    (void)state;
    setup(&r);
    p = client(&r, "");
    w = client(&r, "w");
    say(p, "[0,1,'join',{q:'task_queue',wait_ms:-1}]");
    hear(p, "[1,1,nil,{unfinished:0}]");
    say(p, "[0,2,'put',{q:'task_queue',tasks:[[1],[2]]}]");
    hear(p, "[1,2,nil,{ids:[1,2]}]");
    say(p, "[0,3,'join',{q:'task_queue'}]");
    hear(p, "[1,3,nil,{unfinished:2}]");
    say(p, "[0,4,'join',{q:'task_queue',wait_ms:-1}]");
    say(w, "[0,1,'get',{q:'task_queue',max:2}]");
    hear(w, "[1,1,nil,{tasks:[*]}]");
    say(w, "[0,2,'done',{done:[[1,1]],get:{q:'task_queue',wait_ms:-1}}]");
    say(w, "[2,'cancel',{call:2}]");
    hear(w, "[1,2,nil,{ok:1,tasks:[],get_error:['canceled','*']}]");
    say(w, "[0,3,'cancel',{call:2}]");
    hear(w, "[1,3,nil,{found:false}]");
    say(w, "[0,4,'get',{q:'result_queue'}]");
    hear(w, "[1,4,nil,{tasks:[[1,*]]}]");
    say(w, "[0,5,'bye',{}]");
    hear(w, "[1,5,nil,{}]");
    assert_false(w->open);
    w = client(&r, "w");
    say(w, "[0,1,'get',{q:'task_queue'}]");
    hear(w, "[1,1,nil,{tasks:[[2,2,1,2]]}]");
    say(w, "[0,2,'done',{done:[[2,2]]}]");
    hear(w, "[1,2,nil,{ok:1}]");
    hear(p, "[1,4,nil,{unfinished:0}]");
    native_stop(r.native);
    native_rig_flush(&r);
    hear(p, "[2,'bye',{text:'*'}]");
    hear(w, "[2,'bye',{text:'*'}]");
    teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_options_and_what_they_do),
        cmocka_unit_test(a_put_refused_in_its_middle_wakes_who_waits),
        cmocka_unit_test(many_puts_of_one_known_key),
        cmocka_unit_test(results_by_wait),
        cmocka_unit_test(failing_and_retrying),
        cmocka_unit_test(lease_extend_release_lost),
        cmocka_unit_test(a_put_waits_for_room_and_goes_on),
        cmocka_unit_test(join_cancel_and_bye),
        cmocka_unit_test(hello_tells_what_is_agreed),
        cmocka_unit_test(nothing_before_hello),
        cmocka_unit_test(a_whole_cycle),
        cmocka_unit_test(a_get_waits_and_is_woken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
