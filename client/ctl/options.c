/* The command line: options, which may stand before and behind the command's name, and words. */
#include "client/ctl/ctl.h"
#include "common/err.h"
#include "common/mem.h"

#ifndef TASKQ_VERSION
#define TASKQ_VERSION "unknown"
#endif

static int refuse(char err[TQ_OPT_ERROR_MAX], const char *text)
{
    snprintf(err, TQ_OPT_ERROR_MAX, "%s", text);
    return TQ_EINVAL;
}

static int set_master(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct ctl *c = ctx;
    int rv = tq_opt_host_port(value, c->host, sizeof(c->host), &c->port, err);

    if (rv != TQ_OK)
        return rv;
    if (c->port == 0)
        return refuse(err, "port 0 is nobody's; give the port that the master's ready line shows");
    if (c->host[0] == '\0')
        snprintf(c->host, sizeof(c->host), "127.0.0.1");
    return TQ_OK;
}

static int set_authkey_file(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    (void)err;
    ((struct ctl *)ctx)->authkey_file = value;
    return TQ_OK;
}

static int set_authkey(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    (void)err;
    ((struct ctl *)ctx)->authkey = value;
    return TQ_OK;
}

/* Those of all commands. */
static size_t common_options(struct ctl *c, struct tq_opt *list)
{
    const struct tq_opt common[] = {
        {.name = "master",
         .type = TQ_OPT_STRING,
         .arg = "HOST:PORT",
         .help = "where the master listens",
         .group = "Master",
         .dflt = "127.0.0.1:5000",
         .set = set_master},
        {.name = "authkey-file",
         .type = TQ_OPT_STRING,
         .arg = "FILE",
         .help = "the key is in this file; else it is taken from TASKQ_AUTHKEY",
         .set = set_authkey_file},
        {.name = "authkey",
         .type = TQ_OPT_STRING,
         .arg = "KEY",
         .help = "the key, for all to see in the list of processes",
         .set = set_authkey},
        {.name = "timeout",
         .type = TQ_OPT_SECONDS,
         .arg = "SECONDS",
         .min = 100,
         .max = 3600000,
         .number = &c->timeout_ms,
         .help = "for connecting; and a master that says nothing for so long is given up"},
        {.name = "json",
         .type = TQ_OPT_FLAG,
         .flag = &c->json,
         .help = "print one line of JSON for programs, errors too",
         .group = "Other"},
    };

    memcpy(list, common, sizeof(common));
    return sizeof(common) / sizeof(common[0]);
}

static size_t all_options(struct ctl *c, const struct ctl_command *command, struct tq_opt *list)
{
    size_t own = command != NULL && command->options != NULL ? command->options(list) : 0;

    return own + common_options(c, list + own);
}

/* Does the next word belong to this option? */
static bool takes_next(const struct tq_opt *list, size_t count, const char *arg)
{
    size_t len = strcspn(arg + 2, "=");

    if (arg[2 + len] == '=')
        return false;
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i].name) == len && memcmp(list[i].name, arg + 2, len) == 0)
            return list[i].type != TQ_OPT_FLAG;
    return false;
}

static bool is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0';
}

/* Options and words of argv[from..], each list in its order; "--" ends the options. */
static void sort_out(const struct tq_opt *list, size_t count, int argc, char **argv, int *opt_count,
                     char **opts, int *word_count, char **words)
{
    bool only_words = false;

    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (only_words || !is_option(argv[i])) {
            words[(*word_count)++] = argv[i];
        } else {
            bool two = strncmp(argv[i], "--", 2) == 0 && takes_next(list, count, argv[i]);

            opts[(*opt_count)++] = argv[i];
            if (two && i + 1 < argc)
                opts[(*opt_count)++] = argv[++i];
        }
    }
}

static void page_head(const struct ctl_command *command, char *out, size_t size)
{
    size_t n;

    if (command != NULL) {
        snprintf(out, size, "usage: task-ctl %s%s%s [OPTION...]\n%s\n\n%s", command->name,
                 command->args[0] != '\0' ? " " : "", command->args, command->summary, command->text);
        return;
    }
    n = (size_t)snprintf(out, size,
                         "usage: task-ctl [OPTION...] COMMAND [ARGUMENT...]\n"
                         "Asks and administers a task-master.\n\nCommands:\n");
    for (size_t i = 0; i < ctl_command_count && n < size; i++) {
        char both[64];

        snprintf(both, sizeof(both), "%s %s", ctl_commands[i].name, ctl_commands[i].args);
        n += (size_t)snprintf(out + n, size - n, "  %-24s  %s\n", both, ctl_commands[i].summary);
    }
    if (n < size)
        snprintf(
            out + n, size - n,
            "\n`task-ctl help COMMAND` tells all about one of them.\n\n"
            "Exit status: 0 good; 1 failed, stderr says why and what to do; 2 the command line is wrong.");
}

int ctl_help(const struct ctl *c, const struct ctl_command *command)
{
    struct tq_opt list[CTL_OPTIONS_MAX];
    char head[4096];

    /* it is looked at only */
    page_head(command, head, sizeof(head));
    tq_opt_help(list, all_options((struct ctl *)(uintptr_t)c, command, list), head, stdout);
    return 0;
}

static int usage(const struct ctl *c, const char *text)
{
    (void)ctl_fail(c, "usage", "%s", text);
    return 1 + CTL_EXIT_USAGE;
}

static int check_words(struct ctl *c)
{
    const struct ctl_command *command = c->command;
    char text[TQ_OPT_ERROR_MAX];

    if (c->word_count >= command->words_min && c->word_count <= command->words_max)
        return 0;
    snprintf(text, sizeof(text), "usage: task-ctl %s%s%s [OPTION...]; `task-ctl help %s` tells more",
             command->name, command->args[0] != '\0' ? " " : "", command->args, command->name);
    return usage(c, text);
}

static int no_command(const struct ctl *c, char **words, int count)
{
    char text[TQ_OPT_ERROR_MAX], typed[80] = "", word[40];
    const char *near;

    if (count == 0)
        return usage(c, "which command? `task-ctl --help` lists all");
    for (int i = 0; i < count && i < 2; i++) {
        snprintf(word, sizeof(word), "%s", words[i]);
        snprintf(typed + strlen(typed), sizeof(typed) - strlen(typed), "%s%s", i > 0 ? " " : "", word);
    }
    near = ctl_nearest(typed);
    if (near != NULL)
        snprintf(text, sizeof(text),
                 "there is no command '%s'; did you mean '%s'? (`task-ctl --help` lists all)", words[0],
                 near);
    else
        snprintf(text, sizeof(text), "there is no command '%.60s'; `task-ctl --help` lists all", words[0]);
    return usage(c, text);
}

static int parse(struct ctl *c, int argc, char **argv, char **opts, char **words)
{
    struct tq_opt list[CTL_OPTIONS_MAX];
    char err[TQ_OPT_ERROR_MAX], head[4096];
    int opt_count = 1, word_count = 0, used = 0;
    size_t count;
    int rv;

    /* The command decides what options there are, and options decide which words are none of theirs; those of
     * all commands tell where its name stands, unless one of its own with a value stands before it. */
    sort_out(list, all_options(c, NULL, list), argc, argv, &opt_count, opts, &word_count, words);
    c->command = ctl_find(words, word_count, &used);
    count = all_options(c, c->command, list);
    opt_count = 1;
    word_count = 0;
    opts[0] = argv[0];
    sort_out(list, count, argc, argv, &opt_count, opts, &word_count, words);
    c->words = words + used;
    c->word_count = word_count - used;
    page_head(c->command, head, sizeof(head));
    rv = tq_opt_parse(list, count, c, opt_count, opts, head, err);
    if (rv == 1)
        return 1 + 0;
    if (rv == 2) {
        printf("task-ctl %s\n", TASKQ_VERSION);
        return 1 + 0;
    }
    if (rv != TQ_OK)
        return usage(c, err);
    return c->command != NULL ? check_words(c) : no_command(c, words, word_count);
}

int ctl_parse(struct ctl *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        c->json = c->json || strcmp(argv[i], "--json") == 0; /* for what is wrong before it is parsed */
    c->lists = tq_calloc((size_t)argc * 2 + 2, sizeof(char *));
    if (c->lists == NULL)
        return 1 + ctl_fail(c, "memory", "out of memory");
    return parse(c, argc, argv, c->lists, c->lists + argc + 1);
}
