/* log check, log repair: the work of task-master's own code on a data folder that nobody has open. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/ctl.h"

static bool yes;

size_t ctl_options_log_repair(struct tq_opt *list)
{
    list[0] = (struct tq_opt){.name = "yes",
                              .type = TQ_OPT_FLAG,
                              .flag = &yes,
                              .help = "cut: what is damaged, and everything behind it",
                              .group = "Repair"};
    return 1;
}

/* The one beside this program, so that both are of one version; else the one on the PATH. Comes back only if
 * there is none. */
static void become_master(const char *option, const char *dir)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("task-master"));
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;

    if (slash != NULL) {
        memcpy(slash + 1, "task-master", sizeof("task-master"));
        (void)execl(path, "task-master", option, dir, (char *)NULL);
        if (errno != ENOENT)
            return;
    }
    (void)execlp("task-master", "task-master", option, dir, (char *)NULL);
}

static int no_master(const struct ctl *c)
{
    return ctl_fail(
        c, "no_master",
        "task-master cannot be run (%s): it is neither beside task-ctl nor on the PATH; install it here, "
        "on the machine that has the data",
        strerror(errno));
}

static int no_json(const struct ctl *c)
{
    (void)ctl_fail(c, "usage", "%s has no --json: leave it out, the exit status tells the outcome",
                   c->command->name);
    return CTL_EXIT_USAGE;
}

/* Its exit status; negative: told. */
static int run_master(const struct ctl *c, const char *option)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        become_master(option, c->words[0]);
        _exit(no_master(c) + 126);
    }
    if (pid < 0) {
        (void)ctl_fail(c, "io", "no process can be started: %s", strerror(errno));
        return -1;
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int ctl_run_log_check(struct ctl *c)
{
    if (c->json)
        return no_json(c);
    become_master("--log-check", c->words[0]);
    return no_master(c);
}

int ctl_run_log_repair(struct ctl *c)
{
    int status;

    if (c->json)
        return no_json(c);
    if (yes) {
        become_master("--log-repair", c->words[0]);
        return no_master(c);
    }
    status = run_master(c, "--log-check");
    if (status == 0)
        return 0;
    if (status == 1)
        return ctl_fail(
            c, "damaged",
            "nothing was changed. If the log is damaged: `task-ctl log repair %s --yes` keeps what stands "
            "before the first damage, and cuts the rest into *.cut files; copy the folder before",
            c->words[0]);
    return CTL_EXIT_FAILED;
}
