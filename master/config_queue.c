/* --queue NAME,SETTING=VALUE,...: the settings are the policies of proto/PROTOCOL.md, section 5.6. */
#include "master/config.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#define SHOWN_MAX      64
#define MAXSIZE_MOST   1000000000000 /* items */
#define TTL_MOST_MS    (UINT64_C(1) << 53)
#define RETENTION_MOST (BROKER_RETENTION_AUTO - 1)

enum setting_type {
    SETTING_WORD,  /* one of `words` */
    SETTING_BOOL,  /* true or false */
    SETTING_U8,    /* number up to `most` */
    SETTING_U32,   /* the same */
    SETTING_COUNT, /* int64_t */
    SETTING_MS,    /* uint32_t, milliseconds */
    SETTING_MS64,  /* uint64_t, the same */
    SETTING_OTHER, /* parsed by a function of its own */
};

struct setting {
    const char *name;
    enum setting_type type;
    size_t offset; /* in struct config_queue */
    uint64_t most;
    const char *const *words;
    int (*parse)(struct config_queue *q, const char *value);
    const char *allowed; /* for people */
};

static const char *const kind_words[] = {"fifo", "lifo", "priority", NULL};
static const char *const ack_words[] = {"auto", "explicit", "get", NULL};
static const char *const durability_words[] = {"fsync", "interval", "memory", NULL};

const char *config_kind_name(enum broker_kind kind)
{
    return kind_words[kind];
}

const char *config_ack_name(enum broker_ack ack)
{
    return ack_words[ack];
}

const char *config_durability_name(enum broker_durability durability)
{
    return durability_words[durability];
}

static bool name_ok(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return n >= 1 && n <= BROKER_QUEUE_NAME_MAX && name[n] == '\0';
}

/* ---- values ---- */

struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit count_units[] = {{"", 1},        {"k", 1 << 10}, {"K", 1 << 10}, {"m", 1 << 20},
                                          {"M", 1 << 20}, {"g", 1 << 30}, {"G", 1 << 30}, {NULL, 0}};
static const struct unit time_units[] = {{"", 1},        {"ms", 1},       {"s", 1000}, {"min", 60000},
                                         {"h", 3600000}, {"d", 86400000}, {NULL, 0}};

static int parse_number(const char *value, const struct unit *units, uint64_t most, uint64_t *ret)
{
    char *end;
    uint64_t n;

    if (*value < '0' || *value > '9' || strspn(value, "0123456789") > 19)
        return TQ_EINVAL;
    n = strtoull(value, &end, 10);
    for (; units->suffix != NULL; units++) {
        if (strcmp(end, units->suffix) != 0)
            continue;
        if (n > most / units->factor)
            return TQ_EINVAL;
        *ret = n * units->factor;
        return TQ_OK;
    }
    return TQ_EINVAL;
}

static int parse_word(const char *value, const char *const *words, unsigned *ret)
{
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(value, words[i]) == 0) {
            *ret = i;
            return TQ_OK;
        }
    }
    return TQ_EINVAL;
}

/* NULL for an empty value. */
static int parse_name(const char *value, char **field)
{
    char *copy = NULL;

    if (*value != '\0') {
        if (!name_ok(value))
            return TQ_EINVAL;
        copy = tq_strdup(value);
        if (copy == NULL)
            return TQ_ENOMEM;
    }
    tq_free(*field);
    *field = copy;
    return TQ_OK;
}

static int parse_kind(struct config_queue *q, const char *value)
{
    unsigned i;
    int rv = parse_word(value, kind_words, &i);

    if (rv == TQ_OK)
        q->conf.kind = (enum broker_kind)i;
    return rv;
}

static int parse_ack(struct config_queue *q, const char *value)
{
    unsigned i;
    int rv = parse_word(value, ack_words, &i);

    if (rv == TQ_OK)
        q->conf.ack = (enum broker_ack)i;
    return rv;
}

int config_parse_durability(const char *value, enum broker_durability *ret)
{
    unsigned i;
    int rv = parse_word(value, durability_words, &i);

    if (rv == TQ_OK)
        *ret = (enum broker_durability)i;
    return rv;
}

static int parse_durability(struct config_queue *q, const char *value)
{
    int rv = config_parse_durability(value, &q->conf.durability);

    q->has_durability = q->has_durability || rv == TQ_OK;
    return rv;
}

static int parse_result(struct config_queue *q, const char *value)
{
    int rv = parse_name(value, &q->result);

    q->has_result = q->has_result || rv == TQ_OK;
    q->conf.result = q->result;
    return rv;
}

static int parse_dead(struct config_queue *q, const char *value)
{
    int rv = parse_name(value, &q->dead);

    q->conf.dead = q->dead;
    return rv;
}

static int parse_retention(struct config_queue *q, const char *value)
{
    uint64_t ms = BROKER_RETENTION_AUTO;

    if (strcmp(value, "-1") != 0 && parse_number(value, time_units, RETENTION_MOST, &ms) != TQ_OK)
        return TQ_EINVAL;
    q->conf.retention_ms = (uint32_t)ms;
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

/* ---- the settings ---- */

#define TIME_PROSE "a time: milliseconds, or with ms, s, min, h or d"

static const char *const full_words[] = {"block", "reject", NULL};

#define AT(field_) offsetof(struct config_queue, conf.field_)
#define OTHER(name_, parse_, prose_)                                                                         \
    {                                                                                                        \
#name_, SETTING_OTHER, .parse = (parse_), .allowed = (prose_)                                        \
    }
#define FLAG(name_, field_, words_, prose_)                                                                  \
    {                                                                                                        \
#name_, SETTING_WORD, .offset = AT(field_), .words = (words_), .allowed = (prose_)                   \
    }
#define MS(field_)                                                                                           \
    {                                                                                                        \
#field_, SETTING_MS, .offset = AT(field_), .most = UINT32_MAX, .allowed = TIME_PROSE                 \
    }
#define NUMBER(field_, type_, most_, prose_)                                                                 \
    {                                                                                                        \
#field_, type_, .offset = AT(field_), .most = (most_), .allowed = (prose_)                           \
    }

static const struct setting settings[] = {
    OTHER(kind, parse_kind, "fifo, lifo or priority"),
    OTHER(ack, parse_ack, "auto, explicit or get"),
    OTHER(durability, parse_durability, "fsync, interval or memory"),
    NUMBER(maxsize, SETTING_COUNT, MAXSIZE_MOST, "a whole number of items, 0 for no limit"),
    FLAG(full, reject_full, full_words, "block or reject"),
    NUMBER(max_attempts, SETTING_U8, BROKER_ATTEMPTS_MAX, "a whole number up to 250, 0 for no limit"),
    NUMBER(max_deliveries, SETTING_U8, BROKER_ATTEMPTS_MAX, "a whole number up to 250, 0 for no limit"),
    MS(retry_ms),
    MS(retry_max_ms),
    MS(lease_ms),
    MS(grace_ms),
    {"ttl_ms", SETTING_MS64, .offset = AT(ttl_ms), .most = TTL_MOST_MS, .allowed = TIME_PROSE},
    OTHER(retention_ms, parse_retention, "-1 (by itself), or " TIME_PROSE),
    OTHER(result, parse_result, "the name of a queue, or nothing for none"),
    OTHER(dead, parse_dead, "the name of a queue, or nothing for none"),
    NUMBER(rate_per_s, SETTING_U32, UINT32_MAX, "a whole number, 0 for no limit"),
    NUMBER(rate_burst, SETTING_U32, UINT32_MAX, "a whole number, 0 for the rate"),
    NUMBER(concurrency, SETTING_U32, UINT32_MAX, "a whole number, 0 for no limit"),
    {"paused", SETTING_BOOL, .offset = AT(paused), .allowed = "true or false"},
    MS(expires_ms),
    OTHER(typeid, parse_typeid, "a name of 1 to 200 characters, at most 16 of them"),
};
#define SETTING_TOTAL (sizeof(settings) / sizeof(settings[0]))

static const char *const bool_words[] = {"false", "true", NULL};

static int parse_value(const struct setting *s, struct config_queue *q, const char *value)
{
    void *field = (char *)q + s->offset;
    unsigned word = 0;
    uint64_t n = 0;
    int rv;

    switch (s->type) {
    case SETTING_OTHER:
        return s->parse(q, value);
    case SETTING_WORD:
    case SETTING_BOOL:
        rv = parse_word(value, s->type == SETTING_BOOL ? bool_words : s->words, &word);
        if (rv == TQ_OK)
            *(bool *)field = word == 1;
        return rv;
    default:
        break;
    }
    rv = parse_number(value, s->type == SETTING_MS || s->type == SETTING_MS64 ? time_units : count_units,
                      s->most, &n);
    if (rv != TQ_OK)
        return rv;
    if (s->type == SETTING_U8)
        *(uint8_t *)field = (uint8_t)n;
    else if (s->type == SETTING_COUNT)
        *(int64_t *)field = (int64_t)n;
    else if (s->type == SETTING_MS64)
        *(uint64_t *)field = n;
    else
        *(uint32_t *)field = (uint32_t)n;
    return TQ_OK;
}

static void list_settings(char out[TQ_OPT_ERROR_MAX])
{
    size_t len = 0;

    for (size_t i = 0; i < SETTING_TOTAL && len < TQ_OPT_ERROR_MAX; i++)
        len +=
            (size_t)snprintf(out + len, TQ_OPT_ERROR_MAX - len, "%s%s", i > 0 ? " " : "", settings[i].name);
}

static int queue_setting(struct config_queue *q, char *part, char err[TQ_OPT_ERROR_MAX])
{
    char *value = strchr(part, '=');
    char typed[SHOWN_MAX];
    char names[TQ_OPT_ERROR_MAX];

    if (value != NULL)
        *value++ = '\0';
    for (size_t i = 0; i < SETTING_TOTAL; i++) {
        int rv;

        if (strcmp(part, settings[i].name) != 0)
            continue;
        rv = value != NULL ? parse_value(&settings[i], q, value) : TQ_EINVAL;
        if (rv == TQ_ENOMEM)
            snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        else if (rv != TQ_OK)
            snprintf(err, TQ_OPT_ERROR_MAX, "--queue %.40s: %s is %s, not '%s'", q->name, part,
                     settings[i].allowed,
                     value != NULL ? tq_log_quote(typed, sizeof(typed), value, strlen(value)) : "");
        return rv;
    }
    list_settings(names);
    snprintf(err, TQ_OPT_ERROR_MAX, "--queue %.20s: no setting '%s'; there are: %.400s", q->name,
             tq_log_quote(typed, 24, part, strlen(part)), names);
    return TQ_EINVAL;
}

int config_queue_parse(struct config_queue *q, const char *spec, char err[TQ_OPT_ERROR_MAX])
{
    char *copy = tq_strdup(spec);
    char *rest = copy;
    char *part;
    int rv = TQ_OK;

    *q = (struct config_queue){0};
    broker_queue_conf_init(&q->conf);
    if (copy == NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    part = strsep(&rest, ",");
    if (!name_ok(part)) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "--queue '%.60s': a queue's name is 1 to 200 of the characters A-Z a-z 0-9 . _ -", part);
        rv = TQ_EINVAL;
    } else {
        memcpy(q->name, part, strlen(part) + 1);
    }
    while (rv == TQ_OK && (part = strsep(&rest, ",")) != NULL)
        rv = queue_setting(q, part, err);
    if (rv == TQ_OK && q->dead != NULL && strcmp(q->dead, q->name) == 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--queue %.40s: dead is another queue, not '%.40s' itself", q->name,
                 q->dead);
        rv = TQ_EINVAL;
    }
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
    tq_free(q->result);
    tq_free(q->dead);
    q->result = q->dead = NULL;
    q->conf.result = q->conf.dead = NULL;
}
