/* task-ctl: what its commands share. A command is one file and one line of the table in commands.c. */
#ifndef CLIENT_CTL_CTL_H
#define CLIENT_CTL_CTL_H

#include "client/ctl/link.h"
#include "common/opt.h"

#define CTL_EXIT_FAILED 1
#define CTL_EXIT_USAGE  2
#define CTL_OPTIONS_MAX 32 /* of one command, those of all commands included */

struct ctl_command;

struct ctl {
    const struct ctl_command *command;
    char host[256];
    uint16_t port;
    const char *authkey_file, *authkey;
    uint64_t timeout_ms;
    bool json;
    int word_count; /* what is no option, behind the command's name */
    char **words;
    char **lists; /* from tq_malloc: what they stand in */
};

struct ctl_command {
    const char *name;    /* "backup", "log check" */
    const char *args;    /* "DIR", or "" */
    const char *summary; /* one line */
    const char *text;    /* paragraphs for `help COMMAND`, each ended by a newline */
    int words_min, words_max;
    /* Its own options, behind those of all commands: appended to `list`, and how many. NULL: none. They may
     * point at what is static: a process runs one command. */
    size_t (*options)(struct tq_opt *list);
    int (*run)(struct ctl *c); /* exit status */
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;

/* The command line. 0: run c->command; else the exit status, plus 1. */
int ctl_parse(struct ctl *c, int argc, char **argv);
/* The whole page of one command, or of all. */
int ctl_help(const struct ctl *c, const struct ctl_command *command);
/* words: its name, one or two; NULL: there is none, and *ret_used words were looked at. */
const struct ctl_command *ctl_find(char **words, int count, int *ret_used);
/* The name of a command that looks like this, or NULL. */
const char *ctl_nearest(const char *typed);

/* Connects and says hello. 0, or the exit status, which has been told. */
int ctl_connect(struct ctl *c, struct link *l);
/* "task-ctl: ..." on stderr, or with --json {"error": {"code": ..., "text": ...}}. Returns the status 1. */
__attribute__((format(printf, 3, 4))) int ctl_fail(const struct ctl *c, const char *code, const char *fmt,
                                                   ...);
/* The link's own failure. */
int ctl_fail_link(const struct ctl *c, const struct link *l);
/* 0, or the status 1: what was printed did not arrive (a full disk, a closed pipe). */
int ctl_flush(const struct ctl *c);

int ctl_run_backup(struct ctl *c);
int ctl_run_help(struct ctl *c);
int ctl_run_log_check(struct ctl *c);
int ctl_run_log_repair(struct ctl *c);
size_t ctl_options_log_repair(struct tq_opt *list);
int ctl_run_ping(struct ctl *c);
size_t ctl_options_ping(struct tq_opt *list);
int ctl_run_queues(struct ctl *c);
int ctl_run_stats(struct ctl *c);

#endif
