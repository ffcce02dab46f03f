#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log_tool.h"
#include "master/server.h"

#ifdef __GLIBC__ /* known only now */
#include <malloc.h>
#endif

#define FILES_LEAST 32 /* with fewer the event loop itself cannot start, and says so by abort() */

/* As many descriptors as this process may have; a connection takes one. */
static bool raise_file_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return true;
    if (lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
    return lim.rlim_cur >= FILES_LEAST;
}

/* Bodies and tasks have memory of their own (common/pool.h, master/core/slab.h); this is about the buffers of
 * connections. A freed buffer of some MiB makes glibc raise its thresholds, up to 32 and 64 MiB: so much
 * stays then, and goes in one call that stops the loop. And a mapping for each buffer would be filled with
 * zeroed pages each time: frames of 1 MiB take three times as long. So: no mapping below glibc's own maximum,
 * and of what is free at the heap's end not more than 16 MiB stays, which take little more than a
 * millisecond. */
static void bound_heap(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

static int serve(struct config *config)
{
    char err[TQ_OPT_ERROR_MAX] = "";
    struct server *s = tq_malloc(sizeof(*s));
    uv_loop_t loop;
    int status;

    if (!raise_file_limit()) {
        fprintf(stderr, "task-master: fewer than %d open files are allowed: raise the limit (ulimit -n)\n",
                FILES_LEAST);
        tq_free(s);
        return 1;
    }
    if (s == NULL || uv_loop_init(&loop) != 0) {
        fprintf(stderr, "task-master: no event loop: out of memory or descriptors\n");
        tq_free(s);
        return 1;
    }
    if (server_open(s, &loop, config, err) != TQ_OK) {
        fprintf(stderr, "task-master: %s\n", err);
        s->exit_status = 1;
        server_close(s);
    }
    config_forget_authkey(config); /* the server has it, and may get another one there */
    uv_run(&loop, UV_RUN_DEFAULT);
    status = s->exit_status;
    server_deinit(s);
    tq_free(s);
    if (uv_loop_close(&loop) != 0) {
        fprintf(stderr, "task-master: a handle was left open; please report this\n");
        return 1;
    }
    return status;
}

int main(int argc, char **argv)
{
    char err[TQ_OPT_ERROR_MAX] = "";
    struct config config;
    int status;
    int rv;

    (void)signal(SIGPIPE, SIG_IGN);
    bound_heap();
    rv = config_parse(&config, argc, argv, err);
    tq_log_init("task-master", config.log_level);
    if (rv == TQ_OK) {
        status = log_tool_run(&config);
        if (status < 0)
            status = serve(&config);
    } else if (rv == 1) {
        status = EXIT_SUCCESS;
    } else if (rv == 2) {
        printf("task-master %s\n", TASKQ_VERSION);
        status = EXIT_SUCCESS;
    } else {
        fprintf(stderr, "task-master: %s\n", err);
        status = rv == TQ_EINVAL ? 2 : EXIT_FAILURE;
    }
    config_deinit(&config);
    tq_digest_cleanup();
    if (status == EXIT_SUCCESS && (fflush(stdout) != 0 || ferror(stdout))) {
        fprintf(stderr, "task-master: stdout could not be written to: is its disk full?\n");
        status = EXIT_FAILURE;
    }
    return status;
}
