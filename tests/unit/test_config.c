/* The command line of task-master: what is accepted, and one line with cause and remedy for what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "master/config.h"

static int parse(struct config *c, char *err, const char *const *args)
{
    char *argv[32] = {(char *)(uintptr_t) "task-master"};
    int argc = 1;

    for (; args[argc - 1] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)args[argc - 1];
    err[0] = '\0';
    unsetenv("TASKQ_AUTHKEY");
    return config_parse(c, argc, argv, err);
}

#define ARGS(...)                                                                                            \
    (const char *const[])                                                                                    \
    {                                                                                                        \
        __VA_ARGS__, NULL                                                                                    \
    }

static void defaults(void **state)
{
    struct config c;
    char err[TQ_OPT_ERROR_MAX];

    (void)state;
    assert_int_equal(parse(&c, err, (const char *const[]){NULL}), TQ_OK);
    assert_int_equal(c.listen_count, 1);
    assert_string_equal(c.listen[0].host, "127.0.0.1");
    assert_int_equal(c.listen[0].port, 5000);
    assert_int_equal(c.queue_count, 2);
    assert_string_equal(c.queues[0].name, "task_queue");
    assert_string_equal(c.queues[1].name, "result_queue");
    assert_int_equal(c.limits.preauth_timeout_ms, 3000);
    assert_int_equal(c.limits.frame_bytes, 64 * 1024 * 1024 + 65536);
    assert_null(c.authkey);
    config_deinit(&c);
}

static void a_full_command_line(void **state)
{
    struct config c;
    char err[TQ_OPT_ERROR_MAX];

    (void)state;
    assert_int_equal(
        parse(&c, err,
              ARGS("--listen", "[::1]:0", "--listen=127.0.0.1:6000", "--authkey", "abc", "--queue",
                   "jobs,kind=priority,maxsize=10,ack=explicit,typeid=get_queue,typeid=q", "--queue",
                   "task_queue,kind=lifo,ack=get", "--preauth-timeout", "0.5", "--max-frame-bytes", "1M",
                   "--allow-shutdown", "--log-level", "error")),
        TQ_OK);
    assert_int_equal(c.listen_count, 2);
    assert_string_equal(c.listen[0].host, "::1");
    assert_int_equal(c.listen[1].port, 6000);
    assert_int_equal(c.queue_count, 3);
    assert_int_equal(c.queues[0].conf.kind, BROKER_PRIORITY);
    assert_int_equal(c.queues[0].conf.maxsize, 10);
    assert_int_equal(c.queues[0].conf.ack, BROKER_ACK_EXPLICIT);
    assert_int_equal(c.queues[0].typeid_count, 2);
    assert_string_equal(c.queues[0].typeids[0], "get_queue");
    assert_int_equal(c.queues[1].conf.kind, BROKER_LIFO);
    assert_int_equal(c.queues[1].conf.ack, BROKER_ACK_GET);
    assert_string_equal(c.queues[2].name, "result_queue");
    assert_int_equal(c.limits.preauth_timeout_ms, 500);
    assert_int_equal(c.limits.frame_bytes, 1024 * 1024);
    assert_true(c.allow_shutdown);
    assert_int_equal(c.log_level, TQ_LOG_ERROR);
    assert_int_equal(c.authkey_len, 3);
    config_deinit(&c);
}

static void what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *args[4];
        const char *words;
    } cases[] = {
        {{"--queue", "a/b"}, "1 to 200 of the characters"},
        {{"--queue", ""}, "1 to 200 of the characters"},
        {{"--queue", "q,kind=heap"}, "fifo, lifo or priority"},
        {{"--queue", "q,maxsize=-1"}, "whole number"},
        {{"--queue", "q,maxsize=1x"}, "whole number"},
        {{"--queue", "q,ack=never"}, "auto, explicit or get"},
        {{"--queue", "q,typeid="}, "a name of 1 to 200"},
        {{"--queue", "q,color=red"}, "no setting 'color'"},
        {{"--queue", "q,kind"}, "fifo, lifo or priority"},
        {{"--queue", "q", "--queue", "q"}, "given twice"},
        {{"--log-level", "loud"}, "debug, info, warn or error"},
        {{"--listen", "nonsense"}, "nonsense"},
        {{"--listen", "host:99999"}, "99999"},
        {{"--max-frame-bytes", "12"}, "max-frame-bytes"},
        {{"--lisen", "x:1"}, "--listen"},
        {{"stray"}, "stray"},
        {{"--queue", "Queue"}, "makes new queues"},
        {{"--queue", "a,typeid=get_task_queue"}, "taken by queue a"},
        {{"--queue", "get_task_queue"}, "taken by queue get_task_queue"},
        {{"--authkey-file", "/nonexistent/key"}, "/nonexistent/key"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *args[5] = {cases[i].args[0], cases[i].args[1], cases[i].args[2], cases[i].args[3], NULL};
        struct config c;
        char err[TQ_OPT_ERROR_MAX];
        int rv = parse(&c, err, args);

        assert_true(rv < 0);
        if (strstr(err, cases[i].words) == NULL)
            fail_msg("%s %s: '%s' does not say '%s'", args[0], args[1] ? args[1] : "", err, cases[i].words);
        assert_null(strchr(err, '\n'));
        config_deinit(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(a_full_command_line),
        cmocka_unit_test(what_is_wrong_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
