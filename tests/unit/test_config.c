/* The command line of task-master: what is accepted, and one line with cause and remedy for what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
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
    assert_string_equal(c.queues[0].conf.result, "result_queue");
    assert_null(c.queues[1].conf.result);
    assert_true(c.limits.memory_bytes == CONFIG_MEMORY_AUTO);
    config_deinit(&c);
}

static const struct config_queue *queue_of(const struct config *c, const char *name)
{
    for (unsigned i = 0; i < c->queue_count; i++) {
        if (strcmp(c->queues[i].name, name) == 0)
            return &c->queues[i];
    }
    fail_msg("no queue %s", name);
    return NULL;
}

static void policies(void **state)
{
    struct config c;
    char err[TQ_OPT_ERROR_MAX];
    const struct broker_queue_conf *q;

    (void)state;
    assert_int_equal(
        parse(&c, err,
              ARGS("--queue",
                   "jobs,full=reject,max_attempts=5,max_deliveries=250,retry_ms=1500,retry_max_ms=5min,"
                   "lease_ms=30s,grace_ms=250ms,ttl_ms=1000d,retention_ms=2h,rate_per_s=3k,rate_burst=7,"
                   "concurrency=2M,paused=true,expires_ms=1d,result=answers,dead=grave",
                   "--queue", "task_queue,result=,dead=grave", "--max-memory-bytes", "0")),
        TQ_OK);
    q = &queue_of(&c, "jobs")->conf;
    assert_true(q->reject_full);
    assert_int_equal(q->max_attempts, 5);
    assert_int_equal(q->max_deliveries, 250);
    assert_int_equal(q->retry_ms, 1500);
    assert_int_equal(q->retry_max_ms, 300000);
    assert_int_equal(q->lease_ms, 30000);
    assert_int_equal(q->grace_ms, 250);
    assert_true(q->ttl_ms == UINT64_C(86400000000));
    assert_int_equal(q->retention_ms, 7200000);
    assert_int_equal(q->rate_per_s, 3072);
    assert_int_equal(q->rate_burst, 7);
    assert_int_equal(q->concurrency, 2 * 1024 * 1024);
    assert_true(q->paused);
    assert_int_equal(q->expires_ms, 86400000);
    assert_string_equal(q->result, "answers");
    assert_string_equal(q->dead, "grave");
    assert_null(queue_of(&c, "task_queue")->conf.result);
    /* Those that are only named are there, with defaults. */
    assert_int_equal(c.queue_count, 5);
    assert_null(queue_of(&c, "answers")->conf.result);
    q = &queue_of(&c, "grave")->conf;
    assert_int_equal(q->max_attempts, 1);
    assert_int_equal(q->grace_ms, 30000);
    assert_true(q->retention_ms == BROKER_RETENTION_AUTO);
    assert_int_equal(c.limits.memory_bytes, 0);
    config_deinit(&c);
    assert_int_equal(
        parse(&c, err, ARGS("--queue", "q,retention_ms=-1,paused=false,full=block,dead=x,dead=")), TQ_OK);
    q = &queue_of(&c, "q")->conf;
    assert_true(q->retention_ms == BROKER_RETENTION_AUTO);
    assert_false(q->paused);
    assert_false(q->reject_full);
    assert_null(q->dead);
    config_deinit(&c);
}

static enum broker_durability durability_of(const struct config *c, const char *name)
{
    return queue_of(c, name)->conf.durability;
}

static void where_queues_are_kept(void **state)
{
    struct config c;
    char err[TQ_OPT_ERROR_MAX];

    (void)state;
    assert_int_equal(parse(&c, err, ARGS("--queue", "q", "--queue", "m,durability=memory")), TQ_OK);
    assert_null(c.data_dir);
    assert_int_equal(c.durability, BROKER_DURABILITY_MEMORY);
    assert_int_equal(durability_of(&c, "task_queue"), BROKER_DURABILITY_MEMORY);
    assert_int_equal(durability_of(&c, "q"), BROKER_DURABILITY_MEMORY);
    assert_int_equal(durability_of(&c, "m"), BROKER_DURABILITY_MEMORY);
    assert_true(queue_of(&c, "q")->said);
    assert_false(queue_of(&c, "task_queue")->said);
    assert_int_equal(c.limits.stop_timeout_ms, 10000);
    assert_int_equal(c.limits.log_segment_bytes, 16 << 20);
    config_deinit(&c);

    assert_int_equal(parse(&c, err, ARGS("--memory", "--durability", "memory")), TQ_OK);
    config_deinit(&c);

    assert_int_equal(parse(&c, err,
                           ARGS("--data-dir", "/d", "--queue", "m,durability=memory,result=r", "--queue",
                                "i,durability=interval")),
                     TQ_OK);
    assert_string_equal(c.data_dir, "/d");
    assert_int_equal(c.durability, BROKER_DURABILITY_FSYNC);
    assert_int_equal(durability_of(&c, "task_queue"), BROKER_DURABILITY_FSYNC);
    assert_int_equal(durability_of(&c, "m"), BROKER_DURABILITY_MEMORY);
    assert_int_equal(durability_of(&c, "i"), BROKER_DURABILITY_INTERVAL);
    assert_int_equal(durability_of(&c, "r"), BROKER_DURABILITY_FSYNC);
    config_deinit(&c);

    assert_int_equal(parse(&c, err,
                           ARGS("--queue", "f,durability=fsync", "--durability", "interval", "--data-dir",
                                "/d", "--stop-timeout", "0.5", "--log-interval", "2", "--log-group-bytes",
                                "1M", "--log-factor", "200")),
                     TQ_OK);
    assert_int_equal(durability_of(&c, "task_queue"), BROKER_DURABILITY_INTERVAL);
    assert_int_equal(durability_of(&c, "f"), BROKER_DURABILITY_FSYNC);
    assert_int_equal(c.limits.stop_timeout_ms, 500);
    assert_int_equal(c.limits.log_interval_ms, 2000);
    assert_int_equal(c.limits.log_group_bytes, 1 << 20);
    assert_int_equal(c.limits.log_factor_percent, 200);
    config_deinit(&c);

    /* No peers: no key is looked for. */
    assert_int_equal(parse(&c, err, ARGS("--log-check", "/d", "--authkey-file", "/nonexistent/key")), TQ_OK);
    assert_string_equal(c.log_check, "/d");
    assert_null(c.log_repair);
    config_deinit(&c);
}

static void words(void **state)
{
    static const char *const all[] = {"fsync", "interval", "memory"};
    enum broker_durability durability;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(config_parse_durability(all[i], &durability), TQ_OK);
        assert_int_equal(durability, i);
        assert_string_equal(config_durability_name(durability), all[i]);
    }
    assert_int_equal(config_parse_durability("", &durability), TQ_EINVAL);
    assert_string_equal(config_kind_name(BROKER_PRIORITY), "priority");
    assert_string_equal(config_ack_name(BROKER_ACK_EXPLICIT), "explicit");
}

/* No memory at any moment: said, and nothing is left behind. */
static void out_of_memory(void **state)
{
    struct config c;
    char err[TQ_OPT_ERROR_MAX];

    (void)state;
    for (unsigned n = 0;; n++) {
        int rv;

        tq_mem_fail_after((long)n, 1);
        rv = parse(&c, err,
                   ARGS("--queue", "a,result=b,dead=c,typeid=d", "--authkey", "abc", "--data-dir", "/d"));
        tq_mem_fail_after(-1, 0);
        config_deinit(&c);
        if (rv == TQ_OK) {
            assert_true(n > 5);
            return;
        }
        assert_true(rv < 0);
        assert_non_null(strstr(err, "memory"));
    }
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
                   "--allow-shutdown", "--log-level", "error", "--keys-file", "/etc/keys")),
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
    assert_string_equal(c.keys_file, "/etc/keys");
    config_forget_authkey(&c); /* text cannot be read again */
    assert_memory_equal(c.authkey, "abc", 3);
    config_deinit(&c);
}

static void an_authkey_from_a_file(void **state)
{
    char path[] = "/tmp/taskq-test-XXXXXX";
    int fd = mkstemp(path);
    struct config c;
    char err[TQ_OPT_ERROR_MAX];

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "from a file\n", 12), 12);
    assert_int_equal(parse(&c, err, ARGS("--authkey-file", path)), TQ_OK);
    assert_int_equal(c.authkey_len, 11);
    assert_memory_equal(c.authkey, "from a file", 11);
    config_forget_authkey(&c);
    assert_null(c.authkey);
    assert_int_equal(c.authkey_len, 0);
    config_deinit(&c);
    assert_int_equal(unlink(path), 0);
    close(fd);
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
        {{"--queue", "q,color=red"}, "typeid"}, /* all settings are listed */
        {{"--queue", "q,full=maybe"}, "block or reject"},
        {{"--queue", "q,max_attempts=251"}, "up to 250"},
        {{"--queue", "q,dead=q"}, "dead is another queue"},
        {{"--queue", "q,retry_ms=-1"}, "a time"},
        {{"--queue", "q,retry_ms=1w"}, "a time"},
        {{"--queue", "q,retry_ms=4294967296"}, "a time"},
        {{"--queue", "q,retry_ms=50d"}, "a time"},
        {{"--queue", "q,retry_ms="}, "a time"},
        {{"--queue", "q,ttl_ms=99999999999999999999"}, "a time"},
        {{"--queue", "q,retention_ms=-2"}, "-1 (by itself)"},
        {{"--queue", "q,paused=yes"}, "true or false"},
        {{"--queue", "q,dead=a b"}, "the name of a queue"},
        {{"--queue", "q,result=Queue"}, "makes new queues"},
        {{"--queue", "task_queue,expires_ms=1s"}, "always exist"},
        {{"--queue", "result_queue,expires_ms=1s"}, "always exist"},
        {{"--max-output-bytes", "1M"}, "twice --max-reply-bytes"},
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
        {{"--data-dir", "/d", "--memory"}, "contradict each other"},
        {{"--data-dir", ""}, "not empty"},
        {{"--durability", "always"}, "fsync, interval or memory"},
        {{"--durability", "fsync"}, "--data-dir DIR"},
        {{"--durability", "interval"}, "--data-dir DIR"},
        {{"--queue", "q,durability=always"}, "fsync, interval or memory"},
        {{"--queue", "q,durability=fsync"}, "--queue q: durability fsync"},
        {{"--memory", "--queue", "q,durability=interval"}, "--data-dir DIR"},
        {{"--log-segment-bytes", "1k"}, "log-segment-bytes"},
        {{"--log-factor", "100"}, "log-factor"},
        {{"--log-check", "a", "--log-repair", "b"}, "one at a time"},
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
        cmocka_unit_test(policies),
        cmocka_unit_test(where_queues_are_kept),
        cmocka_unit_test(words),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(a_full_command_line),
        cmocka_unit_test(an_authkey_from_a_file),
        cmocka_unit_test(what_is_wrong_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
