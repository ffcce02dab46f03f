/* Stops one thread of a process and leaves the others alone, which no signal can do.
 *
 *   stop_thread PID NAME    prints "stopped TID"; the thread goes on when this ends: at the end of stdin,
 * when a line comes there, or killed
 *
 * Exit status 3: tracing is not allowed here. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void give_up(const char *what)
{
    int e = errno;

    fprintf(stderr, "stop_thread: %s: %s\n", what, strerror(e));
    exit(e == EPERM || e == ENOSYS || e == EACCES ? 3 : EXIT_FAILURE);
}

static bool has_name(const char *pid, const char *tid, const char *name)
{
    char path[128], line[64] = "";
    FILE *f;

    if (snprintf(path, sizeof(path), "/proc/%s/task/%s/comm", pid, tid) >= (int)sizeof(path))
        return false;
    f = fopen(path, "r");
    if (f == NULL)
        return false;
    if (fgets(line, sizeof(line), f) == NULL)
        line[0] = '\0';
    fclose(f);
    line[strcspn(line, "\n")] = '\0';
    return strcmp(line, name) == 0;
}

static pid_t find_thread(const char *pid, const char *name)
{
    char path[64];
    struct dirent *e;
    pid_t tid = 0;
    DIR *d;

    if (snprintf(path, sizeof(path), "/proc/%s/task", pid) >= (int)sizeof(path))
        give_up("PID");
    d = opendir(path);
    if (d == NULL)
        give_up(path);
    while ((e = readdir(d)) != NULL)
        if (e->d_name[0] != '.' && has_name(pid, e->d_name, name))
            tid = (pid_t)strtol(e->d_name, NULL, 10);
    closedir(d);
    if (tid == 0) {
        errno = ESRCH;
        give_up(name);
    }
    return tid;
}

static void stop(pid_t tid)
{
    int status;

    if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) != 0)
        give_up("PTRACE_INTERRUPT");
    if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
        give_up("the thread has ended");
    printf("stopped %d\n", (int)tid);
    fflush(stdout);
}

static void on_child(int number)
{
    (void)number; /* it ends ppoll */
}

/* A process does not end as long as nobody has heard of the end of a thread that is traced. */
static void await_end(pid_t tid)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    struct sigaction action = {.sa_handler = on_child};
    sigset_t child, none;
    int status;

    (void)sigemptyset(&none);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigaction(SIGCHLD, &action, NULL);
    (void)sigprocmask(SIG_BLOCK, &child, NULL);
    do
        if (waitpid(tid, &status, __WALL | WNOHANG) != 0)
            return;
    while (ppoll(&in, 1, NULL, &none) < 0 && errno == EINTR);
}

int main(int argc, char **argv)
{
    pid_t tid;

    if (argc != 3) {
        fprintf(stderr, "usage: stop_thread PID NAME\n");
        return 2;
    }
    tid = find_thread(argv[1], argv[2]);
    /* When this ends, the thread goes on. */
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0)
        give_up("PTRACE_SEIZE");
    stop(tid);
    await_end(tid);
    return 0;
}
