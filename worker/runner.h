/* The one contract for runners: what turns a task into its result.
 *
 * A runner is opened once and runs any number of jobs at once. For each job that start() accepted,
 * job->on_done is called exactly once: TQ_OK with a result, RUNNER_FAILED with an error (the task could not
 * be done, which its submitter is told), TQ_ECANCELED after cancel(), or another error when there is no
 * answer at all (TQ_ENOMEM). It is never called from inside start() or cancel(). One loop thread. */
#ifndef WORKER_RUNNER_H
#define WORKER_RUNNER_H

#include "common/buf.h"
#include "worker/ticker.h"

/* A task as it came: borrowed, valid while start() runs. */
struct runner_task {
    struct tq_span body; /* one walked msgpack value; what only Python can make is TQ_EXT_PICKLE
                            (proto/native/convert.h) */
    /* Of a task-master only; else 0 and empty. */
    uint64_t id;
    uint64_t epoch;
    uint32_t attempt;     /* 1 at first */
    int32_t priority;     /* smaller first */
    struct tq_span key;   /* the producer's */
    struct tq_span trace; /* W3C traceparent */
    struct tq_span error; /* of the attempt before */
    uint64_t expires_ms;  /* unix time; 0: never */
};

#define RUNNER_FAILED 1

/* Embedded in its owner, who keeps it until on_done. */
struct runner_job {
    /* The owner's, initialised with its ceiling. TQ_OK: one msgpack value. RUNNER_FAILED: text for people. */
    struct tq_buf result;
    int32_t code; /* RUNNER_FAILED: exit status, or minus the signal; 0: neither */
    bool final;   /* RUNNER_FAILED: another attempt cannot help */
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
