/* The table of commands, and what they all do: connect, fail in words, end. */
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "client/ctl/ctl.h"
#include "client/ctl/show.h"
#include "common/err.h"
#include "common/mem.h"

#ifndef TASKQ_VERSION
#define TASKQ_VERSION "unknown"
#endif

const struct ctl_command ctl_commands[] = {
    {.name = "backup",
     .args = "DIR",
     .summary = "copy the data of a running task-master into DIR, on its machine",
     .text =
         "The master copies its log, as of now, into a folder on its own machine, while it goes on: all "
         "that\n"
         "it had acknowledged when the request came is in the copy. DIR is an absolute path as the master\n"
         "sees it; it must not exist yet, or be an empty folder of the master's own user. The copy is read\n"
         "once to make sure that it is good, and is on stable storage when this command ends.\n"
         "\n"
         "The key must be an administrator's. The master writes with its own rights, so whoever may ask for\n"
         "backups may fill any folder that the master's user can write to; a symbolic link as the last part\n"
         "of DIR is not followed. The copy holds every body that is queued: it is made for its owner only\n"
         "(mode 0700), and wants to be kept that way.\n"
         "\n"
         "To use it: task-master --data-dir DIR. It begins where the copy ends: what was taken or finished\n"
         "since then is handed out again, so do not run it beside the master it was taken from.\n"
         "\n"
         "Example:\n"
         "  task-ctl backup /var/backups/taskq-$(date +%F)\n",
     .words_min = 1,
     .words_max = 1,
     .run = ctl_run_backup},
    {.name = "help",
     .args = "[COMMAND]",
     .summary = "tell all about a command",
     .text = "Without a command: the list of them.\n",
     .words_max = 2,
     .run = ctl_run_help},
    {.name = "log check",
     .args = "DIR",
     .summary = "look for damage in the data folder of a stopped task-master",
     .text = "Runs `task-master --log-check DIR`, of the task-master that is installed beside this program, "
             "else\n"
             "of the one on the PATH: reads every record and tells each place that is damaged, with file,\n"
             "offset and what is lost with it. Changes nothing. A torn end, as a power cut leaves it, is no\n"
             "damage: it was never acknowledged, and is cut off at the next start.\n"
             "\n"
             "Exit status: 0 the log is good; 1 it is damaged, or cannot be read.\n"
             "\n"
             "Example:\n"
             "  systemctl stop task-master && task-ctl log check /var/lib/taskq/queues\n",
     .words_min = 1,
     .words_max = 1,
     .run = ctl_run_log_check},
    {.name = "log repair",
     .args = "DIR",
     .summary = "cut a damaged log where its damage begins",
     .text =
         "Makes the data folder of a stopped task-master one that it starts with again: all that stands\n"
         "before the first damage is kept, everything from there on is cut. What is cut had been\n"
         "acknowledged: it is put into files *.cut in the same folder first, and what is lost is told. Copy\n"
         "the folder before, if there is room.\n"
         "\n"
         "Without --yes it only tells what `task-ctl log check` does, and changes nothing.\n"
         "\n"
         "Exit status: 0 there is nothing to repair, or it is done; 1 there is, or it could not be done.\n",
     .words_min = 1,
     .words_max = 1,
     .options = ctl_options_log_repair,
     .run = ctl_run_log_repair},
    {.name = "ping",
     .args = "",
     .summary = "ask whether the master answers, and how fast",
     .text = "Connects, says hello, and measures the time from a request to its reply.\n",
     .options = ctl_options_ping,
     .run = ctl_run_ping},
    {.name = "queues",
     .args = "",
     .summary = "list the queues with what is in them",
     .text = "One line for each queue: tasks that are ready, delayed and leased; then how many were put, "
             "done and\n"
             "failed since the master's data begins, and how many letters are dead. --json has all counters\n"
             "and the policies.\n",
     .run = ctl_run_queues},
    {.name = "stats",
     .args = "[QUEUE]",
     .summary = "show the counters of the master, or of one queue",
     .text = "Without QUEUE: counters and gauges of the whole master. With one: its own, and its policies.\n",
     .words_max = 1,
     .run = ctl_run_stats},
};
const size_t ctl_command_count = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

/* ---- finding one ---- */

const struct ctl_command *ctl_find(char **words, int count, int *ret_used)
{
    for (size_t i = 0; i < ctl_command_count; i++) {
        const char *name = ctl_commands[i].name;
        const char *blank = strchr(name, ' ');
        size_t first = blank != NULL ? (size_t)(blank - name) : strlen(name);

        if (count < 1 || strlen(words[0]) != first || memcmp(words[0], name, first) != 0)
            continue;
        if (blank == NULL || (count > 1 && strcmp(words[1], blank + 1) == 0)) {
            *ret_used = blank == NULL ? 1 : 2;
            return &ctl_commands[i];
        }
    }
    *ret_used = 0;
    return NULL;
}

static bool letters_in_order(const char *typed, const char *name)
{
    for (; *typed != '\0'; typed++) {
        name = strchr(name, *typed);
        if (name == NULL)
            return false;
        name++;
    }
    return true;
}

/* One that it begins, or that it becomes by adding letters, or one letter apart. */
const char *ctl_nearest(const char *typed)
{
    size_t n = strlen(typed);

    for (size_t i = 0; i < ctl_command_count && n >= 2; i++) {
        const char *name = ctl_commands[i].name;
        size_t len = strlen(name), same = 0;

        if (strncasecmp(typed, name, n) == 0 || (n >= 3 && letters_in_order(typed, name)))
            return name;
        while (same < n && same < len && typed[same] == name[same])
            same++;
        if (n >= 3 && same + 1 < n + 1 && len > same && n - same <= 3 && len - same <= 3 && same >= 2)
            return name;
    }
    return NULL;
}

int ctl_run_help(struct ctl *c)
{
    const struct ctl_command *command;
    int used;

    if (c->word_count == 0)
        return ctl_help(c, NULL);
    command = ctl_find(c->words, c->word_count, &used);
    if (command == NULL || used != c->word_count) {
        (void)ctl_fail(c, "usage", "there is no command '%.60s%s%.60s'; `task-ctl --help` lists all",
                       c->words[0], c->word_count > 1 ? " " : "", c->word_count > 1 ? c->words[1] : "");
        return CTL_EXIT_USAGE;
    }
    return ctl_help(c, command);
}

/* ---- connecting ---- */

int ctl_connect(struct ctl *c, struct link *l)
{
    struct link_conf conf = {
        .host = c->host, .port = c->port, .timeout_ms = c->timeout_ms, .client = "task-ctl/" TASKQ_VERSION};
    char err[TQ_OPT_ERROR_MAX], warn[TQ_OPT_ERROR_MAX];
    uint8_t *key = NULL;
    size_t key_len = 0;
    int rv;

    if (tq_opt_authkey(c->authkey_file, c->authkey, &key, &key_len, err, warn) != TQ_OK)
        return ctl_fail(c, "bad_key", "%s", err);
    if (warn[0] != '\0' && !c->json)
        fprintf(stderr, "task-ctl: warning: %s\n", warn);
    /* No key is the empty key, which is what a master without one has. */
    conf.key = tq_span(key != NULL ? (const void *)key : "", key_len);
    rv = link_open(l, &conf);
    if (key != NULL)
        explicit_bzero(key, key_len);
    tq_free(key);
    if (rv == TQ_OK)
        return 0;
    link_close(l);
    return ctl_fail_link(c, l);
}

/* ---- the end ---- */

int ctl_fail(const struct ctl *c, const char *code, const char *fmt, ...)
{
    char text[LINK_TEXT_MAX + 100];
    json_t *v;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)fflush(stdout);
    v = c->json ? json_pack("{s:{s:s,s:s+}}", "error", "code", code, "text", text, "") : NULL;
    if (v == NULL || json_dumpf(v, stderr, JSON_COMPACT) != 0)
        fprintf(stderr, "task-ctl: %s", text);
    fputc('\n', stderr);
    json_decref(v);
    return CTL_EXIT_FAILED;
}

int ctl_fail_link(const struct ctl *c, const struct link *l)
{
    return ctl_fail(c, l->code, "%s", l->text);
}

int ctl_flush(const struct ctl *c)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return 0;
    return ctl_fail(c, "io", "stdout could not be written to: is its disk full, or its reader gone?");
}
