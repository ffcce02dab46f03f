#include "master/disk/log_thread.h"

#include <pthread.h>
#include <signal.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

struct log_thread {
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct log_job *job; /* handed over, not begun */
    bool stopping;
    uv_async_t async;
    void (*on_done)(void *ctx);
    void *ctx;
};

static void on_written(void *ctx)
{
    struct log_thread *t = ctx;

    TQ_ASSERT(uv_async_send(&t->async) == 0);
}

static uint64_t now_ns(void *ctx)
{
    (void)ctx;
    return uv_hrtime();
}

static void run(void *arg)
{
    struct log_thread *t = arg;
    const struct log_hooks hooks = {.ctx = t, .on_written = on_written, .now_ns = now_ns};
    struct log_job *job;

    (void)pthread_setname_np(pthread_self(), "taskq-log");
    uv_mutex_lock(&t->mutex);
    for (;;) {
        while (t->job == NULL && !t->stopping)
            uv_cond_wait(&t->cond, &t->mutex);
        if (t->stopping)
            break;
        job = t->job;
        t->job = NULL;
        uv_mutex_unlock(&t->mutex);
        log_job_run_with(job, &hooks);
        TQ_ASSERT(uv_async_send(&t->async) == 0);
        uv_mutex_lock(&t->mutex);
    }
    uv_mutex_unlock(&t->mutex);
}

static void on_async(uv_async_t *async)
{
    struct log_thread *t = async->data;

    t->on_done(t->ctx);
}

static void on_closed(uv_handle_t *handle)
{
    tq_free(handle->data);
}

/* Signals are the loop's: whoever is made here inherits that none comes to him. */
static int start(struct log_thread *t)
{
    sigset_t all, before;
    int rv;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rv = uv_thread_create(&t->thread, run, t);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv == 0 ? TQ_OK : TQ_ENOMEM;
}

int log_thread_open(struct log_thread **ret, uv_loop_t *loop, void (*on_done)(void *ctx), void *ctx)
{
    struct log_thread *t = tq_calloc(1, sizeof(*t));

    if (t == NULL)
        return TQ_ENOMEM;
    t->on_done = on_done;
    t->ctx = ctx;
    t->async.data = t;
    if (uv_mutex_init(&t->mutex) != 0)
        goto no_mutex;
    if (uv_cond_init(&t->cond) != 0)
        goto no_cond;
    if (uv_async_init(loop, &t->async, on_async) != 0)
        goto no_async;
    if (start(t) != TQ_OK)
        goto no_thread;
    *ret = t;
    return TQ_OK;

no_thread:
    uv_cond_destroy(&t->cond);
    uv_mutex_destroy(&t->mutex);
    uv_close((uv_handle_t *)&t->async, on_closed);
    return TQ_ENOMEM;
no_async:
    uv_cond_destroy(&t->cond);
no_cond:
    uv_mutex_destroy(&t->mutex);
no_mutex:
    tq_free(t);
    return TQ_ENOMEM;
}

void log_thread_submit(struct log_thread *t, struct log_job *job)
{
    uv_mutex_lock(&t->mutex);
    TQ_ASSERT(t->job == NULL && !t->stopping);
    t->job = job;
    uv_mutex_unlock(&t->mutex);
    uv_cond_signal(&t->cond); /* behind the mutex: it would wake up only to wait for it */
}

void log_thread_close(struct log_thread *t)
{
    if (t == NULL)
        return;
    uv_mutex_lock(&t->mutex);
    t->stopping = true;
    uv_mutex_unlock(&t->mutex);
    uv_cond_signal(&t->cond);
    TQ_ASSERT(uv_thread_join(&t->thread) == 0);
    uv_cond_destroy(&t->cond);
    uv_mutex_destroy(&t->mutex);
    uv_close((uv_handle_t *)&t->async, on_closed);
}
