#include "master/config.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

#define USAGE                                                                                                \
    "Usage: task-master [OPTION]...\n"                                                                       \
    "Holds named task queues for Python's BaseManager clients and for task-worker.\n"

static int set_text(char **field, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    char *copy = tq_strdup(value);

    if (copy == NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    tq_free(*field);
    *field = copy;
    return TQ_OK;
}

static int set_listen(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct config *c = ctx;
    unsigned i = c->listen_count;

    if (i == CONFIG_LISTEN_MAX) {
        snprintf(err, TQ_OPT_ERROR_MAX, "more than %d --listen addresses", CONFIG_LISTEN_MAX);
        return TQ_EINVAL;
    }
    if (tq_opt_host_port(value, c->listen[i].host, sizeof(c->listen[i].host), &c->listen[i].port, err) != 0)
        return TQ_EINVAL;
    c->listen_count++;
    return TQ_OK;
}

static int set_authkey_file(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_text(&((struct config *)ctx)->authkey_file, value, err);
}

static int set_authkey(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_text(&((struct config *)ctx)->authkey_text, value, err);
}

static int set_keys_file(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_text(&((struct config *)ctx)->keys_file, value, err);
}

static int set_data_dir(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_text(&((struct config *)ctx)->data_dir, value, err);
}

static int set_log_check(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_text(&((struct config *)ctx)->log_check, value, err);
}

static int set_log_repair(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return set_text(&((struct config *)ctx)->log_repair, value, err);
}

static int set_durability(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct config *c = ctx;

    c->has_durability = true;
    if (config_parse_durability(value, &c->durability) == TQ_OK)
        return TQ_OK;
    snprintf(err, TQ_OPT_ERROR_MAX, "--durability is fsync, interval or memory, not '%.60s'", value);
    return TQ_EINVAL;
}

static int set_log_level(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct config *c = ctx;

    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(value, names[i]) == 0) {
            c->log_level = (enum tq_log_level)i;
            return TQ_OK;
        }
    }
    snprintf(err, TQ_OPT_ERROR_MAX, "--log-level is debug, info, warn or error, not '%.60s'", value);
    return TQ_EINVAL;
}

static struct config_queue *add_queue(struct config *c)
{
    struct config_queue *list = tq_realloc(c->queues, (c->queue_count + 1) * sizeof(*list));

    if (list == NULL)
        return NULL;
    c->queues = list;
    list[c->queue_count] = (struct config_queue){0};
    return &list[c->queue_count];
}

static struct config_queue *find_queue(const struct config *c, const char *name)
{
    for (unsigned i = 0; i < c->queue_count; i++) {
        if (strcmp(c->queues[i].name, name) == 0)
            return &c->queues[i];
    }
    return NULL;
}

static int new_queue(struct config *c, const char *value, bool said, char err[TQ_OPT_ERROR_MAX])
{
    struct config_queue q;
    struct config_queue *slot;
    int rv = config_queue_parse(&q, value, err);

    if (rv != 0)
        return rv;
    if (find_queue(c, q.name) != NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--queue %.100s is given twice: give all its settings in one option",
                 q.name);
        config_queue_deinit(&q);
        return TQ_EINVAL;
    }
    slot = add_queue(c);
    if (slot == NULL) {
        config_queue_deinit(&q);
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    q.said = said;
    *slot = q;
    c->queue_count++;
    return TQ_OK;
}

static int set_queue(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    return new_queue(ctx, value, true, err);
}

static int add_default_queue(struct config *c, const char *name, char err[TQ_OPT_ERROR_MAX])
{
    return find_queue(c, name) != NULL ? TQ_OK : new_queue(c, name, false, err);
}

/* The i-th name under which Python finds the queue: X, get_X, and further ones; false behind the last. */
static bool queue_typeid(const struct config_queue *q, unsigned i, char out[BROKER_QUEUE_NAME_MAX + 8])
{
    if (i >= 2 + q->typeid_count)
        return false;
    if (i < 2)
        snprintf(out, BROKER_QUEUE_NAME_MAX + 8, "%s%s", i == 1 ? "get_" : "", q->name);
    else
        snprintf(out, BROKER_QUEUE_NAME_MAX + 8, "%s", q->typeids[i - 2]);
    return true;
}

/* Is the name one of queues[0..count)'s? */
static const struct config_queue *owner_of(const struct config *c, unsigned count, const char *name)
{
    char other[BROKER_QUEUE_NAME_MAX + 8];

    for (unsigned k = 0; k < count; k++) {
        for (unsigned i = 0; queue_typeid(&c->queues[k], i, other); i++) {
            if (strcmp(name, other) == 0)
                return &c->queues[k];
        }
    }
    return NULL;
}

static int check_names(const struct config *c, char err[TQ_OPT_ERROR_MAX])
{
    char name[BROKER_QUEUE_NAME_MAX + 8];

    for (unsigned k = 0; k < c->queue_count; k++) {
        const struct config_queue *q = &c->queues[k];

        for (unsigned i = 0; queue_typeid(q, i, name); i++) {
            const struct config_queue *owner = owner_of(c, k, name);

            if (owner != NULL) {
                snprintf(err, TQ_OPT_ERROR_MAX,
                         "--queue %.60s: Python's name '%.60s' for it is taken by queue %.60s: rename one",
                         q->name, name, owner->name);
                return TQ_EINVAL;
            }
            if (strcmp(name, "Queue") == 0 || strcmp(name, "JoinableQueue") == 0) {
                snprintf(err, TQ_OPT_ERROR_MAX,
                         "--queue %.60s: the name '%.60s' makes new queues in Python: take another", q->name,
                         name);
                return TQ_EINVAL;
            }
        }
    }
    return TQ_OK;
}

bool config_is_standard_queue(const char *name)
{
    return strcmp(name, "task_queue") == 0 || strcmp(name, "result_queue") == 0;
}

/* As in Python's example: what a native worker makes of a task is found in result_queue. */
static int add_standard_queues(struct config *c, char err[TQ_OPT_ERROR_MAX])
{
    int rv = add_default_queue(c, "task_queue", err);
    struct config_queue *tasks;

    if (rv == TQ_OK)
        rv = add_default_queue(c, "result_queue", err);
    if (rv != TQ_OK)
        return rv;
    tasks = find_queue(c, "task_queue");
    if (!tasks->has_result) {
        tasks->result = tq_strdup("result_queue");
        if (tasks->result == NULL) {
            snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
            return TQ_ENOMEM;
        }
        tasks->conf.result = tasks->result;
    }
    if (tasks->conf.expires_ms != 0 || find_queue(c, "result_queue")->conf.expires_ms != 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--queue: task_queue and result_queue always exist: no expires_ms");
        return TQ_EINVAL;
    }
    return TQ_OK;
}

/* Queues that others name for results and dead letters, and nobody declares. */
static int add_named_queues(struct config *c, char err[TQ_OPT_ERROR_MAX])
{
    for (unsigned i = 0; i < c->queue_count; i++) {
        const char *names[] = {c->queues[i].result, c->queues[i].dead};

        for (unsigned k = 0; k < 2; k++) {
            int rv = names[k] != NULL ? add_default_queue(c, names[k], err) : TQ_OK;

            if (rv != TQ_OK)
                return rv;
        }
    }
    return TQ_OK;
}

/* Where queues are kept, and what an answer of each promises. */
static int settle_durability(struct config *c, char err[TQ_OPT_ERROR_MAX])
{
    const char *needs = NULL; /* a data directory */

    if (c->data_dir != NULL && (c->memory || c->data_dir[0] == '\0')) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 c->memory ? "--memory and --data-dir contradict each other: leave one of them out"
                           : "--data-dir is the name of a folder, not empty");
        return TQ_EINVAL;
    }
    if (c->data_dir == NULL && c->has_durability && c->durability != BROKER_DURABILITY_MEMORY)
        needs = "--durability";
    if (c->data_dir == NULL)
        c->durability = BROKER_DURABILITY_MEMORY;
    for (unsigned i = 0; i < c->queue_count; i++) {
        struct config_queue *q = &c->queues[i];

        if (!q->has_durability)
            q->conf.durability = c->durability;
        else if (c->data_dir == NULL && q->conf.durability != BROKER_DURABILITY_MEMORY)
            needs = q->name;
    }
    if (needs == NULL)
        return TQ_OK;
    snprintf(err, TQ_OPT_ERROR_MAX,
             "%s%.100s: durability fsync and interval need a place on disk: give --data-dir DIR",
             needs[0] == '-' ? "" : "--queue ", needs);
    return TQ_EINVAL;
}

static int finish(struct config *c, char err[TQ_OPT_ERROR_MAX])
{
    int rv = add_standard_queues(c, err);

    if (rv == TQ_OK)
        rv = add_named_queues(c, err);
    if (rv == TQ_OK)
        rv = settle_durability(c, err);
    if (rv == TQ_OK && c->log_check != NULL && c->log_repair != NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--log-check and --log-repair: one at a time");
        rv = TQ_EINVAL;
    }
    if (rv == TQ_OK && (c->log_check != NULL || c->log_repair != NULL))
        return TQ_OK; /* there will be no peers, so no key is asked for */
    if (rv == TQ_OK && c->limits.output_bytes < 2 * c->limits.reply_bytes) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--max-output-bytes is at least twice --max-reply-bytes");
        rv = TQ_EINVAL;
    }
    if (rv == TQ_OK)
        rv = check_names(c, err);
    if (rv == TQ_OK && c->listen_count == 0)
        rv = set_listen(c, "127.0.0.1:5000", err);
    if (rv == TQ_OK && tq_opt_authkey(c->authkey_file, c->authkey_text, &c->authkey, &c->authkey_len, err,
                                      c->authkey_warning) != TQ_OK)
        rv = TQ_EIO; /* the command line is right, the key is not to be had */
    return rv;
}

int config_parse(struct config *c, int argc, char **argv, char err[TQ_OPT_ERROR_MAX])
{
    *c = (struct config){.log_level = TQ_LOG_INFO};
#define LIMIT_DEFAULT(field, option, type, unit, dflt, min, max, prose) c->limits.field = (dflt);
    LIMITS_LIST(LIMIT_DEFAULT)
#undef LIMIT_DEFAULT
    struct tq_opt table[] = {
        {.name = "listen",
         .type = TQ_OPT_STRING,
         .arg = "HOST:PORT",
         .dflt = "127.0.0.1:5000",
         .set = set_listen,
         .group = "Service",
         .help = "serve here; may be given more than once; port 0 takes any free one"},
        {.name = "authkey-file",
         .type = TQ_OPT_STRING,
         .arg = "FILE",
         .set = set_authkey_file,
         .help = "the key that peers must have; also from TASKQ_AUTHKEY; without a key: loopback only"},
        {.name = "authkey",
         .type = TQ_OPT_STRING,
         .arg = "KEY",
         .set = set_authkey,
         .help = "the key as text (other users can see it in the process list)"},
        {.name = "keys-file",
         .type = TQ_OPT_STRING,
         .arg = "FILE",
         .set = set_keys_file,
         .help =
             "further keys with names and rights, one a line: NAME ROLE SECRET [put=QUEUE,...] "
             "[get=QUEUE,...]; "
             "the role is producer, worker, observer or admin; read again, like --authkey-file, at SIGHUP"},
        {.name = "allow-weak-authkey",
         .type = TQ_OPT_FLAG,
         .flag = &c->allow_weak_authkey,
         .help = "let keys of less than 16 bytes protect an address other than loopback"},
        {.name = "refuse-md5",
         .type = TQ_OPT_FLAG,
         .flag = &c->refuse_md5,
         .help = "refuse HMAC-MD5 answers: Python 3.11 and older cannot log in then"},
        {.name = "queue",
         .type = TQ_OPT_STRING,
         .arg = "NAME[,SETTING=VALUE]...",
         .set = set_queue,
         .help =
             "declare a queue: kind=fifo|lifo|priority, maxsize=N, full=block|reject, result=QUEUE, "
             "dead=QUEUE (for what failed for good), max_attempts=N, max_deliveries=N, retry_ms=, "
             "retry_max_ms=, lease_ms=, grace_ms=, ttl_ms=, retention_ms=, expires_ms= (times: 1500, 30s, "
             "5min, 1h, 2d), rate_per_s=N, rate_burst=N, concurrency=N, paused=true, "
             "ack=auto|explicit|get, durability=fsync|interval|memory, typeid=ID (a further name for "
             "Python's register); task_queue and "
             "result_queue always exist"},
        {.name = "data-dir",
         .type = TQ_OPT_STRING,
         .arg = "DIR",
         .set = set_data_dir,
         .help =
             "keep queues in this folder, of which nobody else may write: what was answered outlives this "
             "process; without it all is in memory, and gone with the process"},
        {.name = "memory",
         .type = TQ_OPT_FLAG,
         .flag = &c->memory,
         .help = "keep all in memory, as without --data-dir"},
        {.name = "durability",
         .type = TQ_OPT_STRING,
         .arg = "WORD",
         .dflt = "fsync with --data-dir",
         .set = set_durability,
         .help =
             "what an answer promises, for queues that do not say it: fsync (it is on disk), interval (it "
             "outlives this process; a power cut takes what is younger than --log-interval), memory "
             "(nothing)"},
        {.name = "allow-shutdown",
         .type = TQ_OPT_FLAG,
         .flag = &c->allow_shutdown,
         .help = "obey manager.shutdown() of an authenticated client"},
        {.name = "wait-pipelined",
         .type = TQ_OPT_FLAG,
         .flag = &c->wait_pipelined,
         .help = "a request sent behind a waiting call waits for it; by default it cancels the call, "
                 "as a Python client does that send only after Ctrl-C"},
        {.name = "demo",
         .type = TQ_OPT_NUMBER,
         .arg = "N",
         .number = &c->demo_count,
         .min = 0,
         .max = 1000000,
         .help = "put N random numbers into task_queue, print N results, exit: the example's master"},
        {.name = "log-check",
         .type = TQ_OPT_STRING,
         .arg = "DIR",
         .set = set_log_check,
         .help = "read all of the log in this data directory, whose master is stopped, say what is damaged, "
                 "and exit: 0 nothing, 1 something"},
        {.name = "log-repair",
         .type = TQ_OPT_STRING,
         .arg = "DIR",
         .set = set_log_repair,
         .help =
             "make a damaged log one that opens: what is behind the first damage is LOST to the master, and "
             "goes into files beside it"},
        {.name = "log-level",
         .type = TQ_OPT_STRING,
         .arg = "LEVEL",
         .dflt = "info",
         .set = set_log_level,
         .help = "debug, info, warn or error"},
#define LIMIT_OPTION(field, option, type_, unit, dflt_, min_, max_, prose)                                   \
    {.name = option,                                                                                         \
     .type = type_,                                                                                          \
     .arg = unit,                                                                                            \
     .number = &c->limits.field,                                                                             \
     .min = min_,                                                                                            \
     .max = max_,                                                                                            \
     .help = prose},
        LIMITS_LIST(LIMIT_OPTION)
#undef LIMIT_OPTION
    };
    size_t count = sizeof(table) / sizeof(table[0]);
    int rv;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, "preauth-timeout") == 0)
            table[i].group = "Limits";
        if (strcmp(table[i].name, "max-memory-bytes") == 0)
            table[i].dflt = "three quarters of this system's memory";
    }
    rv = tq_opt_parse(table, count, c, argc, argv, USAGE, err);
    return rv != TQ_OK ? rv : finish(c, err);
}

static void wipe_authkey(struct config *c)
{
    if (c->authkey != NULL)
        explicit_bzero(c->authkey, c->authkey_len);
    tq_free(c->authkey);
    c->authkey = NULL;
    c->authkey_len = 0;
}

void config_forget_authkey(struct config *c)
{
    if (c->authkey_file != NULL)
        wipe_authkey(c);
}

void config_deinit(struct config *c)
{
    for (unsigned i = 0; i < c->queue_count; i++)
        config_queue_deinit(&c->queues[i]);
    tq_free(c->queues);
    tq_free(c->authkey_file);
    if (c->authkey_text != NULL)
        explicit_bzero(c->authkey_text, strlen(c->authkey_text));
    tq_free(c->authkey_text);
    wipe_authkey(c);
    tq_free(c->keys_file);
    tq_free(c->data_dir);
    tq_free(c->log_check);
    tq_free(c->log_repair);
    *c = (struct config){0};
}
