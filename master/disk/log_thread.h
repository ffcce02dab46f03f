/* The thread of the log's own, which runs its jobs: not one of libuv's pool, where a name that is looked up
 * could keep a sync waiting. */
#ifndef MASTER_DISK_LOG_THREAD_H
#define MASTER_DISK_LOG_THREAD_H

#include <uv.h>

#include "master/log/log.h"

struct log_thread; /* opaque */

/* on_done: on the loop's thread, when a job is over or has come so far that log_done wants to know; may come
 * once too often. All signals are blocked in the thread. 0, TQ_ENOMEM (no thread could be had, too). */
int log_thread_open(struct log_thread **ret, uv_loop_t *loop, void (*on_done)(void *ctx), void *ctx);
/* For log_host.submit: one job at a time. */
void log_thread_submit(struct log_thread *t, struct log_job *job);
/* Waits for a job that is being run; on_done is not called any more. It frees itself when the loop has closed
 * its handle. NULL is fine. */
void log_thread_close(struct log_thread *t);

#endif
