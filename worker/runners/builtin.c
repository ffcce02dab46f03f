/* Runners that need no program: --builtin square. A job's answer is computed at once and handed over when
 * the time that the example sleeps is over. */
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/native/mp.h"
#include "worker/runner.h"
#include "worker/runners/square.h"

struct square_runner {
    struct runner base;
    struct runner_env env;
};

struct square_job {
    struct tick tick;
    struct square_runner *runner;
    struct runner_job *job;
    bool failed;
    bool canceled;
};

static int square_open(const struct runner_env *env, struct runner **ret_runner);

static void on_tick(struct tick *t)
{
    struct square_job *sj = TICK_OWNER(t, struct square_job, tick);
    struct runner_job *job = sj->job;
    int status = sj->canceled ? TQ_ECANCELED : sj->failed ? RUNNER_FAILED : TQ_OK;

    job->state = NULL;
    tq_free(sj);
    job->on_done(job, status);
}

/* "run task N * N..." */
static int tell(const struct square_runner *r, const struct tq_buf *shown)
{
    struct tq_buf line = TQ_BUF_NULL(2 * shown->max + 64);
    int rv = tq_buf_append_str(&line, "run task ");

    if (rv == TQ_OK)
        rv = tq_buf_append(&line, shown->data, shown->len);
    if (rv == TQ_OK)
        rv = tq_buf_append_str(&line, " * ");
    if (rv == TQ_OK)
        rv = tq_buf_append(&line, shown->data, shown->len);
    if (rv == TQ_OK)
        rv = tq_buf_append(&line, "...", sizeof("..."));
    if (rv == TQ_OK)
        r->env.say((const char *)line.data);
    tq_buf_deinit(&line);
    return rv;
}

/* 0; 1: it cannot be squared. job->result is what the contract wants of either. */
static int answer(const struct square_runner *r, struct runner_job *job, struct tq_span body)
{
    struct tq_buf shown = TQ_BUF_NULL(4 * SQUARE_INT_MAX_BYTES);
    struct tq_buf text = TQ_BUF_NULL(job->result.max);
    struct tq_mp_out o = tq_mp_out(&job->result);
    char quoted[512];
    int rv = square_task(body, &shown, &text);

    tq_buf_clear(&job->result);
    if (rv == 1) {
        tq_log(TQ_LOG_WARN, "TASK-REFUSED", "answer=\"%s\"",
               tq_log_quote(quoted, sizeof(quoted), text.data, text.len));
        if (tq_buf_append(&job->result, text.data, text.len) != TQ_OK)
            rv = TQ_ENOMEM;
    } else if (rv == TQ_OK) {
        tq_mp_put_str(&o, tq_buf_span(&text));
        rv = o.err != TQ_OK ? o.err : tell(r, &shown);
    }
    tq_buf_deinit(&text);
    tq_buf_deinit(&shown);
    return rv;
}

static int square_start(struct runner *base, struct runner_job *job, const struct runner_task *task)
{
    struct square_runner *r = (struct square_runner *)base;
    struct square_job *sj = tq_calloc(1, sizeof(*sj));
    int rv = sj != NULL ? answer(r, job, task->body) : TQ_ENOMEM;

    if (rv >= 0) {
        *sj = (struct square_job){.runner = r, .job = job, .failed = rv == 1};
        job->code = 0;
        job->final = true;
        rv = tick_set(r->env.ticker, &sj->tick, r->env.sleep_ms, on_tick);
    }
    if (rv != TQ_OK) {
        tq_free(sj);
        return rv;
    }
    job->state = sj;
    return TQ_OK;
}

static void square_cancel(struct runner *base, struct runner_job *job)
{
    struct square_job *sj = job->state;
    int rv;

    (void)base;
    TQ_ASSERT(sj != NULL);
    sj->canceled = true;
    rv = tick_set(sj->runner->env.ticker, &sj->tick, 0, on_tick);
    TQ_ASSERT(rv == TQ_OK); /* it is set, so moving it cannot fail */
}

static void square_close(struct runner *base)
{
    tq_free(base);
}

static const struct runner_ops square_ops = {
    .name = "square",
    .open = square_open,
    .start = square_start,
    .cancel = square_cancel,
    .close = square_close,
};

static int square_open(const struct runner_env *env, struct runner **ret_runner)
{
    struct square_runner *r = tq_calloc(1, sizeof(*r));

    if (r == NULL)
        return TQ_ENOMEM;
    *r = (struct square_runner){.base = {.ops = &square_ops}, .env = *env};
    *ret_runner = &r->base;
    return TQ_OK;
}

const struct runner_ops *runner_builtin_find(const char *name)
{
    return strcmp(name, square_ops.name) == 0 ? &square_ops : NULL;
}
