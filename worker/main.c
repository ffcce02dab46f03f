#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/opt.h"
#include "worker/agent.h"

#ifndef TASKQ_VERSION
#define TASKQ_VERSION "unknown"
#endif

#define EXIT_USAGE           2
#define WORKER_ID_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@/-"
/* A reply: the largest item that task-master takes by default, and its envelope. */
#define FRAME_BYTES_MAX ((UINT64_C(64) << 20) + (256 << 10))

struct options {
    struct agent_conf conf;
    const char *authkey_file;
    const char *authkey;
    enum tq_log_level log_level;
};

static int refuse(char err[TQ_OPT_ERROR_MAX], const char *text)
{
    snprintf(err, TQ_OPT_ERROR_MAX, "%s", text);
    return TQ_EINVAL;
}

static int set_master(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct options *o = ctx;
    int rv = tq_opt_host_port(value, o->conf.host, sizeof(o->conf.host), &o->conf.port, err);

    if (rv != TQ_OK)
        return rv;
    if (o->conf.port == 0)
        return refuse(err, "port 0 is nobody's; give the port that the master's ready line shows");
    if (o->conf.host[0] == '\0')
        snprintf(o->conf.host, sizeof(o->conf.host), "127.0.0.1");
    return TQ_OK;
}

static int set_peer(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct options *o = ctx;

    if (strcmp(value, "taskq") != 0 && strcmp(value, "python") != 0)
        return refuse(err, "the peer is taskq (a task-master) or python (Python's own manager)");
    o->conf.peer_python = strcmp(value, "python") == 0;
    return TQ_OK;
}

static int set_authkey_file(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct options *o = ctx;

    (void)err;
    o->authkey_file = value;
    return TQ_OK;
}

static int set_authkey(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct options *o = ctx;

    (void)err;
    o->authkey = value;
    return TQ_OK;
}

static int set_name(char out[AGENT_TYPEID_MAX + 1], const char *value, char err[TQ_OPT_ERROR_MAX])
{
    size_t n = strlen(value);

    if (n == 0 || n > AGENT_TYPEID_MAX)
        return refuse(err, "a name has 1 to 200 characters");
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)value[i] <= ' ' || value[i] == 0x7f || value[i] == '|')
            return refuse(err, "a name has no spaces, no control characters and no '|'");
    memcpy(out, value, n + 1);
    return TQ_OK;
}

static int set_from(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_name(((struct options *)ctx)->conf.from, value, err);
}

static int set_to(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    ((struct options *)ctx)->conf.to_given = true;
    return set_name(((struct options *)ctx)->conf.to, value, err);
}

static int set_session_name(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_name(((struct options *)ctx)->conf.name, value, err);
}

static int set_worker_id(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct options *o = ctx;
    size_t n = strlen(value);

    if (n == 0 || n > TQ_NATIVE_WORKER_MAX)
        return refuse(err, "a worker id has 1 to 128 characters");
    if (strspn(value, WORKER_ID_CHARACTERS) != n)
        return refuse(err, "a worker id has the characters A-Z a-z 0-9 . _ : @ / -");
    memcpy(o->conf.worker_id, value, n + 1);
    return TQ_OK;
}

/* 0, or at least what the protocol allows. */
static int check_heartbeat(const struct agent_conf *c, char err[TQ_OPT_ERROR_MAX])
{
    if (c->heartbeat_ms == 0 || c->heartbeat_ms >= AGENT_HEARTBEAT_LEAST_MS)
        return TQ_OK;
    return refuse(err, "--heartbeat: at least 1 second, or 0 for none");
}

/* HOST:PID:4 hex digits; one of a program's own, so that two at one place are two. */
static void make_worker_id(struct agent_conf *c)
{
    char host[64] = "";
    uint16_t random = 0;

    if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
        snprintf(host, sizeof(host), "localhost");
    for (char *p = host; *p != '\0'; p++)
        if (strchr(WORKER_ID_CHARACTERS, *p) == NULL)
            *p = '-';
    (void)tq_random_bytes(&random, sizeof(random));
    snprintf(c->worker_id, sizeof(c->worker_id), "%s:%ld:%04x", host, (long)getpid(), random);
}

static int set_builtin(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct options *o = ctx;

    o->conf.runner = runner_builtin_find(value);
    return o->conf.runner != NULL ? TQ_OK : refuse(err, "there is no such built-in runner; there is: square");
}

static int set_log_level(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct options *o = ctx;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(value, names[i]) == 0) {
            o->log_level = (enum tq_log_level)i;
            return TQ_OK;
        }
    return refuse(err, "the level is debug, info, warn or error");
}

/* 0: go on; otherwise what main returns, plus 1. */
static int parse(struct options *o, int argc, char **argv)
{
    static const char head[] =
        "usage: task-worker --master HOST:PORT --builtin square [OPTION...]\n"
        "Takes tasks from a master's queue, runs them, and puts the results into another queue.";
    struct agent_conf *c = &o->conf;
    const struct tq_opt table[] = {
        {.name = "master",
         .type = TQ_OPT_STRING,
         .arg = "HOST:PORT",
         .help = "where the master listens",
         .group = "Master",
         .dflt = "127.0.0.1:5000",
         .set = set_master},
        {.name = "peer",
         .type = TQ_OPT_STRING,
         .arg = "KIND",
         .help = "what the master is: taskq for a task-master, python for a BaseManager server",
         .dflt = "taskq",
         .set = set_peer},
        {.name = "authkey-file",
         .type = TQ_OPT_STRING,
         .arg = "FILE",
         .help = "the master's key is in this file; else it is taken from TASKQ_AUTHKEY",
         .set = set_authkey_file},
        {.name = "authkey",
         .type = TQ_OPT_STRING,
         .arg = "KEY",
         .help = "the master's key, for all to see in the list of processes",
         .set = set_authkey},
        {.name = "connect-timeout",
         .type = TQ_OPT_SECONDS,
         .arg = "SECONDS",
         .min = 0,
         .max = 86400000,
         .number = &c->connect_timeout_ms,
         .help = "end with status 1 when the master stays away for so long; 0: never"},
        {.name = "no-retry",
         .type = TQ_OPT_FLAG,
         .flag = &c->no_retry,
         .help = "end with status 1 when the master is away or goes away"},
        {.name = "name",
         .type = TQ_OPT_STRING,
         .arg = "NAME",
         .dflt = "MainProcess",
         .set = set_session_name,
         .help = "what the sessions are called at a --peer python"},
        {.name = "worker-id",
         .type = TQ_OPT_STRING,
         .arg = "ID",
         .dflt = "HOST:PID:xxxx",
         .set = set_worker_id,
         .help = "who this is at a task-master; one of its own for each worker that runs"},
        {.name = "heartbeat",
         .type = TQ_OPT_SECONDS,
         .arg = "SECONDS",
         .min = 0,
         .max = 600000,
         .number = &c->heartbeat_ms,
         .help = "a sign of life so often; after three without one, either side gives the other up; 0: none"},
        {.name = "from",
         .type = TQ_OPT_STRING,
         .arg = "QUEUE",
         .dflt = "task_queue",
         .set = set_from,
         .group = "Work",
         .help = "take tasks from this queue; registered as get_QUEUE or QUEUE"},
        {.name = "to",
         .type = TQ_OPT_STRING,
         .arg = "QUEUE",
         .dflt = "where the task or its queue says, else result_queue",
         .set = set_to,
         .help = "put results into this queue"},
        {.name = "jobs",
         .type = TQ_OPT_NUMBER,
         .arg = "N",
         .min = 1,
         .max = 1024,
         .number = &c->jobs,
         .help = "tasks at a time"},
        {.name = "builtin",
         .type = TQ_OPT_STRING,
         .arg = "NAME",
         .set = set_builtin,
         .help = "what to do with a task: square answers n with 'n * n = m'"},
        {.name = "sleep",
         .type = TQ_OPT_SECONDS,
         .arg = "SECONDS",
         .min = 0,
         .max = 86400000,
         .number = &c->sleep_ms,
         .help = "how long a built-in task pretends to take"},
        {.name = "count",
         .type = TQ_OPT_NUMBER,
         .arg = "N",
         .min = 0,
         .max = UINT32_MAX,
         .number = &c->count,
         .help = "stop after so many gets, empty ones counted; 0: serve on"},
        {.name = "poll-timeout",
         .type = TQ_OPT_SECONDS,
         .arg = "SECONDS",
         .min = 0,
         .max = 3600000,
         .number = &c->poll_timeout_ms,
         .help = "how long one get waits for a task"},
        {.name = "drain-timeout",
         .type = TQ_OPT_SECONDS,
         .arg = "SECONDS",
         .min = 0,
         .max = 86400000,
         .number = &c->drain_timeout_ms,
         .help = "after SIGTERM or SIGINT, time for running tasks to end; a second signal ends at once"},
        {.name = "log-level",
         .type = TQ_OPT_STRING,
         .arg = "LEVEL",
         .dflt = "info",
         .set = set_log_level,
         .group = "Other",
         .help = "debug, info, warn or error"},
    };
    char err[TQ_OPT_ERROR_MAX];
    int rv = tq_opt_parse(table, sizeof(table) / sizeof(table[0]), o, argc, argv, head, err);

    if (rv == 1)
        return 1 + 0;
    if (rv == 2) {
        printf("task-worker %s\n", TASKQ_VERSION);
        return 1 + 0;
    }
    if (rv == TQ_OK && o->conf.runner == NULL) {
        rv = TQ_EINVAL;
        snprintf(err, sizeof(err), "nothing to do with a task is given: add --builtin square");
    }
    if (rv == TQ_OK)
        rv = check_heartbeat(c, err);
    if (rv != TQ_OK) {
        fprintf(stderr, "task-worker: %s\n", err);
        return 1 + EXIT_USAGE;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {
        .conf = {.host = "127.0.0.1",
                 .port = 5000,
                 .from = "task_queue",
                 .to = "result_queue",
                 .name = "MainProcess",
                 .client = "task-worker/" TASKQ_VERSION,
                 .heartbeat_ms = 5000,
                 .jobs = 1,
                 .poll_timeout_ms = 1000,
                 .drain_timeout_ms = 10000,
                 .frame_bytes = FRAME_BYTES_MAX},
        .log_level = TQ_LOG_INFO,
    };
    char err[TQ_OPT_ERROR_MAX];
    char warn[TQ_OPT_ERROR_MAX];
    uint8_t *key = NULL;
    size_t key_len = 0;
    int status = parse(&o, argc, argv);

    if (status != 0)
        return status - 1;
    if (tq_opt_authkey(o.authkey_file, o.authkey, &key, &key_len, err, warn) != TQ_OK) {
        fprintf(stderr, "task-worker: %s\n", err);
        return EXIT_FAILURE; /* the command line is right, the key is not to be had */
    }
    if (warn[0] != '\0')
        fprintf(stderr, "task-worker: warning: %s\n", warn);
    tq_log_init("task-worker", o.log_level);
    signal(SIGPIPE, SIG_IGN);
    /* No key is the empty key, which is what a master without one has. */
    o.conf.key = tq_span(key != NULL ? (const void *)key : "", key_len);
    if (o.conf.worker_id[0] == '\0')
        make_worker_id(&o.conf);
    status = agent_run(&o.conf);
    if (key != NULL)
        explicit_bzero(key, key_len);
    tq_free(key);
    tq_digest_cleanup();
    tq_log_flush();
    return status;
}
