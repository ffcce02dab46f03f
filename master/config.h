/* What task-master was told on its command line: one table of options, checked here once. */
#ifndef MASTER_CONFIG_H
#define MASTER_CONFIG_H

#include "common/log.h"
#include "common/opt.h"
#include "master/core/broker.h"
#include "master/limits_list.h"

#define CONFIG_LISTEN_MAX  16
#define CONFIG_TYPEIDS_MAX 16

struct config_queue {
    char name[BROKER_QUEUE_NAME_MAX + 1];
    struct broker_queue_conf conf;
    char *typeids[CONFIG_TYPEIDS_MAX]; /* beyond NAME and get_NAME */
    unsigned typeid_count;
    char *result; /* what conf.result points at, or NULL */
    char *dead;   /* the same of conf.dead */
    bool has_result;
    bool has_durability;
    bool said; /* by --queue */
};

#define CONFIG_MEMORY_AUTO UINT64_MAX /* limits.memory_bytes: it was not given */

/* Every cap of the daemon, in one table with unit and default: limits_list.h. */
struct limits {
#define LIMIT_FIELD(field, option, type, unit, dflt, min, max, prose) uint64_t field;
    LIMITS_LIST(LIMIT_FIELD)
#undef LIMIT_FIELD
};

struct config {
    struct {
        char host[256];
        uint16_t port;
    } listen[CONFIG_LISTEN_MAX];
    unsigned listen_count;
    char *authkey_file;
    char *authkey_text;
    char *keys_file;
    uint8_t *authkey; /* NULL when there is none: the empty key, loopback only */
    size_t authkey_len;
    char authkey_warning[TQ_OPT_ERROR_MAX];
    bool allow_weak_authkey;
    bool allow_shutdown;
    char *data_dir;                    /* NULL: all is in memory only */
    bool memory;                       /* said so */
    enum broker_durability durability; /* of queues that do not say it; without data_dir always MEMORY */
    bool has_durability;
    char *log_check, *log_repair; /* do that to this directory, instead of serving */
    bool refuse_md5;
    bool wait_pipelined; /* a request behind a parked call waits instead of canceling it */
    uint64_t demo_count;
    enum tq_log_level log_level;
    struct config_queue *queues;
    unsigned queue_count;
    struct limits limits;
};

/* 0; 1: help was printed; 2: version was asked; TQ_EINVAL (usage) or another (failure) with one line in err
 * (cause and remedy). task_queue and result_queue are always among the queues afterwards, and so are
 * those that `result` and `dead` name. Deinit in every
 * case. */
int config_parse(struct config *c, int argc, char **argv, char err[TQ_OPT_ERROR_MAX]);
/* task_queue and result_queue: they always exist. */
bool config_is_standard_queue(const char *name);
/* Wipes the authkey if it is in a file, from which it can be read again. */
void config_forget_authkey(struct config *c);
void config_deinit(struct config *c);

const char *config_kind_name(enum broker_kind kind);
const char *config_ack_name(enum broker_ack ack);
const char *config_durability_name(enum broker_durability durability);
int config_parse_durability(const char *value, enum broker_durability *ret); /* TQ_EINVAL: it is none */

/* "NAME[,SETTING=VALUE]..." into *q: policies by their names, and typeid=ID. */
int config_queue_parse(struct config_queue *q, const char *spec, char err[TQ_OPT_ERROR_MAX]);
void config_queue_deinit(struct config_queue *q);

#endif
