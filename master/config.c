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

static const struct config_queue *find_queue(const struct config *c, const char *name)
{
    for (unsigned i = 0; i < c->queue_count; i++) {
        if (strcmp(c->queues[i].name, name) == 0)
            return &c->queues[i];
    }
    return NULL;
}

static int set_queue(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct config *c = ctx;
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
    *slot = q;
    c->queue_count++;
    return TQ_OK;
}

static int parse_kind(struct config_queue *q, const char *value)
{
    static const char *const names[] = {"fifo", "lifo", "priority"};

    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            q->conf.kind = (enum broker_kind)i;
            return TQ_OK;
        }
    }
    return TQ_EINVAL;
}

static int parse_ack(struct config_queue *q, const char *value)
{
    static const char *const names[] = {"auto", "explicit", "get"};

    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            q->conf.ack = (enum broker_ack)i;
            return TQ_OK;
        }
    }
    return TQ_EINVAL;
}

static int parse_maxsize(struct config_queue *q, const char *value)
{
    char *end;
    long long n;

    if (*value < '0' || *value > '9')
        return TQ_EINVAL;
    n = strtoll(value, &end, 10);
    if (*end != '\0' || n > 1000000000000LL)
        return TQ_EINVAL;
    q->conf.maxsize = n;
    return TQ_OK;
}

static int parse_typeid(struct config_queue *q, const char *value)
{
    if (*value == '\0' || strlen(value) > BROKER_QUEUE_NAME_MAX || q->typeid_count == CONFIG_TYPEIDS_MAX)
        return TQ_EINVAL;
    q->typeids[q->typeid_count] = tq_strdup(value);
    if (q->typeids[q->typeid_count] == NULL)
        return TQ_ENOMEM;
    q->typeid_count++;
    return TQ_OK;
}

static const struct {
    const char *name;
    int (*parse)(struct config_queue *q, const char *value);
    const char *values;
} queue_settings[] = {
    {"kind", parse_kind, "fifo, lifo or priority"},
    {"maxsize", parse_maxsize, "a whole number of items, 0 for no limit"},
    {"ack", parse_ack, "auto, explicit or get"},
    {"typeid", parse_typeid, "a name of 1 to 200 characters, at most 16 of them"},
};

static int queue_setting(struct config_queue *q, char *part, char err[TQ_OPT_ERROR_MAX])
{
    char *value = strchr(part, '=');

    if (value != NULL)
        *value++ = '\0';
    for (size_t i = 0; i < sizeof(queue_settings) / sizeof(queue_settings[0]); i++) {
        if (strcmp(part, queue_settings[i].name) != 0)
            continue;
        if (value == NULL || queue_settings[i].parse(q, value) != TQ_OK) {
            snprintf(err, TQ_OPT_ERROR_MAX, "--queue %.60s: %s is %s, not '%.60s'", q->name, part,
                     queue_settings[i].values, value ? value : "");
            return TQ_EINVAL;
        }
        return TQ_OK;
    }
    snprintf(err, TQ_OPT_ERROR_MAX,
             "--queue %.60s: no setting '%.60s'; the settings are kind=, maxsize=, ack=, typeid=", q->name,
             part);
    return TQ_EINVAL;
}

static bool queue_name_ok(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return n >= 1 && n <= BROKER_QUEUE_NAME_MAX && name[n] == '\0';
}

int config_queue_parse(struct config_queue *q, const char *spec, char err[TQ_OPT_ERROR_MAX])
{
    char *copy = tq_strdup(spec);
    char *rest = copy;
    char *part;
    int rv = TQ_OK;

    *q = (struct config_queue){0};
    if (copy == NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    part = strsep(&rest, ",");
    if (!queue_name_ok(part)) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "--queue '%.60s': a queue's name is 1 to 200 of the characters A-Z a-z 0-9 . _ -", part);
        rv = TQ_EINVAL;
    } else {
        memcpy(q->name, part, strlen(part) + 1);
    }
    while (rv == TQ_OK && (part = strsep(&rest, ",")) != NULL)
        rv = queue_setting(q, part, err);
    tq_free(copy);
    if (rv != TQ_OK)
        config_queue_deinit(q);
    return rv;
}

void config_queue_deinit(struct config_queue *q)
{
    for (unsigned i = 0; i < q->typeid_count; i++)
        tq_free(q->typeids[i]);
    q->typeid_count = 0;
}

static int add_default_queue(struct config *c, const char *name, char err[TQ_OPT_ERROR_MAX])
{
    return find_queue(c, name) != NULL ? TQ_OK : set_queue(c, name, err);
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

static int finish(struct config *c, char err[TQ_OPT_ERROR_MAX])
{
    int rv = add_default_queue(c, "task_queue", err);

    if (rv == TQ_OK)
        rv = add_default_queue(c, "result_queue", err);
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
        {.name = "allow-weak-authkey",
         .type = TQ_OPT_FLAG,
         .flag = &c->allow_weak_authkey,
         .help = "let a key of less than 16 bytes protect an address other than loopback"},
        {.name = "refuse-md5",
         .type = TQ_OPT_FLAG,
         .flag = &c->refuse_md5,
         .help = "refuse HMAC-MD5 answers: Python 3.11 and older cannot log in then"},
        {.name = "queue",
         .type = TQ_OPT_STRING,
         .arg = "NAME[,SETTING=VALUE]...",
         .set = set_queue,
         .help =
             "declare a queue: kind=fifo|lifo|priority, maxsize=N, ack=auto|explicit|get, "
             "typeid=ID (a further name for Python's register); task_queue and result_queue always exist"},
        {.name = "memory",
         .type = TQ_OPT_FLAG,
         .flag = &c->memory,
         .help = "keep all in memory, which is what this version does in any case"},
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
    }
    rv = tq_opt_parse(table, count, c, argc, argv, USAGE, err);
    return rv != TQ_OK ? rv : finish(c, err);
}

void config_deinit(struct config *c)
{
    for (unsigned i = 0; i < c->queue_count; i++)
        config_queue_deinit(&c->queues[i]);
    tq_free(c->queues);
    tq_free(c->authkey_file);
    tq_free(c->authkey_text);
    tq_free(c->authkey);
    *c = (struct config){0};
}
