/* Each allocation fails in turn, in the middle of whole conversations: nothing is lost track of, nothing
 * leaks, the broker holds together, and whoever can be answered is. */
#include "tests/unit/native_talk.h"

static const char *const producer[] = {
    "[0,1,'declare',{q:'small',maxsize:2,dead:'grave'}]",
    "[0,2,'put',{q:'task_queue',tasks:[[1,{key:'a'}],[2],[3,{delay_ms:5,ttl_ms:50}],[4,{key:'a'}]]}]",
    "[0,3,'put',{q:'small',tasks:[[1],[2],[3],[4]],opts:{key:nil,trace:'x'},wait_ms:100}]",
    "[0,4,'wait',{id:1,wait_ms:-1}]",
    "[0,5,'join',{q:'task_queue',wait_ms:20}]",
    "[0,6,'get',{q:'result_queue',max:5,wait_ms:-1,take:true}]",
    "[0,7,'stats',{}]",
    "[0,8,'queues',{}]",
    "[0,9,'tasks',{q:'task_queue',bodies:true}]",
};
static const char *const worker[] = {
    "[0,1,'get',{q:'task_queue',max:2}]",
    "[0,2,'get',{q:'small',max:3}]",
    "[0,3,'done',{done:[[1,1,'r1']],fail:[[2,1,{error:'no',final:true}]],get:{q:'task_queue',wait_ms:40}}]",
    "[0,4,'extend',{leases:[[5,1],[99,1]],ms:50}]",
    "[0,5,'release',{leases:[[5,1],[6,1]]}]",
    "[0,6,'retry',{ids:[2,3]}]",
    "[0,7,'purge',{q:'small'}]",
    "[0,8,'remove',{ids:[3,4,5]}]",
    "[0,9,'workers',{}]",
};

/* Encoded beforehand: only the master's allocations are counted. */
struct script {
    struct tq_buf frames[16];
    size_t count;
};

static void encode(struct script *s, const char *const *list, size_t count)
{
    s->count = count;
    for (size_t i = 0; i < count; i++) {
        tq_buf_init(&s->frames[i], 4096);
        assert_true(mptext_encode(list[i], &s->frames[i]));
    }
}

static void play(struct native_client *c, const struct script *s)
{
    for (size_t i = 0; i < s->count; i++)
        native_rig_send(c, tq_buf_span(&s->frames[i]));
}

static void deinit(struct script *s)
{
    for (size_t i = 0; i < s->count; i++)
        tq_buf_deinit(&s->frames[i]);
}

static const char *const hello_p[] = {"[0,0,'hello',{version:1,client:'p'}]"};
static const char *const hello_w[] = {"[0,0,'hello',{version:1,worker:'w',heartbeat_ms:1000}]"};

static void a_conversation_with_each_allocation_failing(long repeat)
{
    struct script p, w, hp, hw;
    bool reached = true;

    encode(&p, producer, sizeof(producer) / sizeof(producer[0]));
    encode(&w, worker, sizeof(worker) / sizeof(worker[0]));
    encode(&hp, hello_p, 1);
    encode(&hw, hello_w, 1);
    for (long after = 0; reached; after++) {
        struct native_rig r;
        struct native_client *cp, *cw;
        unsigned long before;

        assert_true(after < 2000);
        assert_true(native_rig_init(&r, NULL));
        cp = native_rig_connect(&r, 0);
        cw = native_rig_connect(&r, 0);
        before = tq_mem_count();
        tq_mem_fail_after(after, repeat);
        play(cp, &hp);
        play(cw, &hw);
        play(cp, &p);
        play(cw, &w);
        native_rig_advance(&r, 60);
        native_rig_close(cw, NATIVE_SOCKET_CLOSED);
        native_rig_advance(&r, 60);
        reached = tq_mem_count() - before > (unsigned long)after;
        tq_mem_fail_after(-1, 0);
        check(&r);
        native_rig_advance(&r, 100);
        check(&r);
        native_rig_deinit(&r);
    }
    deinit(&p);
    deinit(&w);
    deinit(&hp);
    deinit(&hw);
}

static void one_failure(void **state)
{
    (void)state;
    a_conversation_with_each_allocation_failing(1);
}

static void several_failures(void **state)
{
    (void)state;
    a_conversation_with_each_allocation_failing(3);
}

static void resuming_with_each_allocation_failing(void **state)
{
    bool resumed = false;

    (void)state;
    for (long after = 0; !resumed; after++) {
        struct native_rig r;
        struct native_client *p, *w;
        struct token token;
        struct tq_buf frame = TQ_BUF_NULL(4096);
        struct tq_span payload;
        char text[300], *got;

        assert_true(after < 200);
        setup(&r);
        p = client(&r, "");
        say(p, "[0,1,'put',{q:'task_queue',tasks:[[1],[2]]}]");
        w = native_rig_connect(&r, 0);
        token = hello_token(w, "{version:1,worker:'w'}");
        say(w, "[0,1,'get',{q:'task_queue',max:2}]");
        hear(w, "[1,1,nil,{tasks:[*]}]");
        native_rig_close(w, NATIVE_SOCKET_CLOSED);
        w = native_rig_connect(&r, 0);
        (void)snprintf(text, sizeof(text),
                       "[0,1,'hello',{version:1,worker:'w',token:%s,leases:[[1,1],[2,1]]}]", token.text);
        assert_true(mptext_encode(text, &frame));
        tq_mem_fail_after(after, 1);
        native_rig_send(w, tq_buf_span(&frame));
        tq_mem_fail_after(-1, 0);
        tq_buf_deinit(&frame);
        if (w->open && native_rig_read(w, &payload)) {
            got = mptext_decode(payload);
            resumed = mptext_match("*resumed:true,leases:[[1,1],[2,1]]*", got);
            if (!resumed && !mptext_match("*'memory'*", got))
                fail_msg("%s", got);
            free(got);
        }
        if (!resumed && after % 2 == 0) { /* the token is still good */
            native_rig_close(w, NATIVE_SOCKET_CLOSED);
            w = native_rig_connect(&r, 0);
            say(w, "%s", text);
            hear(w, "*resumed:true,leases:[[1,1],[2,1]]*");
        } else if (!resumed) { /* nothing is lost: the tasks come again */
            native_rig_advance(&r, 60000);
            say(p, "[0,2,'get',{q:'task_queue',max:9}]");
            hear(p, "[1,1,nil,*]");
            hear(p, "[1,2,nil,{tasks:[[1,*],[2,*]]}]");
        }
        teardown(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_failure),
        cmocka_unit_test(several_failures),
        cmocka_unit_test(resuming_with_each_allocation_failing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
