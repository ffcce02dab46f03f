/* The one contract for runners: what turns a task into its result.
 *
 * A runner is opened once and runs any number of jobs at once. For each job that start() accepted,
 * job->on_done is called exactly once: with TQ_OK and job->result filled, or with TQ_ECANCELED after
 * cancel(), or with another error when no result could be made (TQ_ENOMEM). It is never called from inside
 * start() or cancel(). A task that cannot be done is not an error: its result says so, so that whoever
 * submitted it gets an answer. One loop thread. */
#ifndef WORKER_RUNNER_H
#define WORKER_RUNNER_H

#include "common/buf.h"
#include "proto/python/pickle.h"
#include "worker/ticker.h"

/* A task as it came: borrowed, valid while start() runs. */
struct runner_task {
    const struct tq_pickle *pickle;
    struct tq_pk_range value;
};

/* Embedded in its owner, who keeps it until on_done. */
struct runner_job {
    struct tq_buf result; /* UTF-8 text; the owner's, initialised with its ceiling */
    void (*on_done)(struct runner_job *job, int status);
    void *state; /* the runner's, while the job runs */
};

/* Where runners speak: lines of the programs' output. */
typedef void (*runner_say_fn)(const char *line);

struct runner_env {
    struct ticker *ticker;
    runner_say_fn say;
    uint64_t sleep_ms; /* what a built-in runner waits before its result, as the example does */
};

struct runner; /* each kind's own, beginning with struct runner */

struct runner_ops {
    const char *name;
    /* The runner, or TQ_ENOMEM. */
    int (*open)(const struct runner_env *env, struct runner **ret_runner);
    /* TQ_OK: job->on_done follows. TQ_ENOMEM: it does not. Reads all it needs of the task before it returns.
     */
    int (*start)(struct runner *r, struct runner_job *job, const struct runner_task *task);
    /* Only for a job whose on_done is still to come; repeatable. */
    void (*cancel)(struct runner *r, struct runner_job *job);
    /* No job is running. Releases the runner. */
    void (*close)(struct runner *r);
};

struct runner {
    const struct runner_ops *ops;
};

/* `--builtin NAME`; NULL when there is no such one. */
const struct runner_ops *runner_builtin_find(const char *name);

#endif
