#include "master/durable.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal.h"
#include "master/disk/fs_posix.h"
#include "master/disk/log_thread.h"
#include "master/native_peer.h"
#include "master/peer.h"
#include "master/server_impl.h"

#define MOVE_BUDGET 10000u /* pieces of work in a turn, about a millisecond's */
#define TURN_SHARE  4u     /* of a segment may come in one turn */
#define SECOND_NS   1000000000u

struct durable {
    struct server *server;
    struct fs_posix fs;
    bool fs_open;
    struct log_thread *thread;
    struct store *store;
    struct store_report report; /* of the recovery */
    uint64_t began_ns, told_ns; /* the same */
    uint64_t recovery_ms;
    uv_timer_t stop_timer; /* open as long as `thread` is */
    uint64_t turn_bytes;   /* of input, since the last record */
    uint64_t busy_ms;      /* when server.busy was looked at last */
    bool started;          /* changes are recorded */
    bool stopping;
};

/* Nothing that was not acknowledged may look as if it had been: not another byte goes out. */
static _Noreturn void give_up(const char *id, const char *text)
{
    tq_log(TQ_LOG_ERROR, id, "%s", text);
    _exit(EXIT_FAILURE);
}

static _Noreturn void give_up_failed(const struct durable *d)
{
    struct store_status status;
    char text[LOG_ERROR_MAX + 200];

    store_get_status(d->store, &status);
    snprintf(text, sizeof(text),
             "err=\"%s\": nothing more is acknowledged, and task-master ends at once; remedy: look after the "
             "disk, then start it again; what was acknowledged is there",
             status.error);
    give_up("LOG-FAILED", text);
}

/* ---- the thread ---- */

static void submit(void *ctx, struct log_job *job)
{
    struct durable *d = ctx;

    log_thread_submit(d->thread, job);
}

static void close_thread(struct durable *d)
{
    if (d->thread == NULL)
        return;
    log_thread_close(d->thread);
    d->thread = NULL;
    uv_close((uv_handle_t *)&d->stop_timer, NULL);
}

static void go_on_stopping(struct durable *d)
{
    struct server *s = d->server;

    if (store_turn(d->store, server_now_ms(s)) != TQ_OK)
        give_up_failed(d);
    if (!store_is_closed(d->store))
        return;
    tq_log(TQ_LOG_INFO, "LOG-CLOSED", "data_dir=\"%s\": all is on disk", s->config->data_dir);
    close_thread(d);
}

static void on_done(void *ctx)
{
    struct durable *d = ctx;

    store_done(d->store, server_now_ms(d->server));
    if (d->stopping)
        go_on_stopping(d);
}

/* Peers are not listened to while it is, and the broker knows for how long. */
static void set_busy(struct durable *d)
{
    struct server *s = d->server;
    uint64_t now_ms = server_now_ms(s);
    bool was = s->busy;

    s->busy = store_is_busy(d->store) || d->turn_bytes > s->config->limits.log_segment_bytes / TURN_SHARE;
    if (was || s->busy)
        broker_was_deaf(s->broker, was ? now_ms - d->busy_ms : 0, s->busy);
    d->busy_ms = now_ms;
}

/* The end of the turn does the rest. */
static void on_progress(void *ctx)
{
    set_busy(ctx);
}

static void refuse_new_work(void *ctx, bool refuse)
{
    struct durable *d = ctx;
    struct server *s = d->server;

    if (refuse)
        tq_log(TQ_LOG_WARN, "NO-SPACE",
               "data_dir=\"%s\": its disk has no room for another file of the log (--log-segment-bytes "
               "%llu); new "
               "work is refused until there is, what is begun goes on; remedy: make room",
               s->config->data_dir, (unsigned long long)s->config->limits.log_segment_bytes);
    else
        tq_log(TQ_LOG_INFO, "SPACE-AGAIN", "data_dir=\"%s\": new work is taken again", s->config->data_dir);
    broker_refuse_new_work(s->broker, server_now_ms(s), refuse, &s->effects);
    server_run_effects(s);
}

static void set_room(void *ctx, uint64_t new_work_bytes, uint64_t completion_bytes)
{
    const struct durable *d = ctx;

    broker_set_room(d->server->broker, server_now_ms(d->server), new_work_bytes, completion_bytes,
                    &d->server->effects);
    server_run_effects(d->server);
}

/* ---- opening ---- */

static void recovering(void *ctx, uint64_t done_bytes, uint64_t all_bytes)
{
    struct durable *d = ctx;
    uint64_t now_ns = uv_hrtime();

    if (now_ns - d->told_ns < SECOND_NS)
        return;
    d->told_ns = now_ns;
    tq_log(TQ_LOG_INFO, "RECOVERING", "done=%u%% bytes=%llu of=%llu",
           all_bytes > 0 ? (unsigned)((double)done_bytes / (double)all_bytes * 100) : 100,
           (unsigned long long)done_bytes, (unsigned long long)all_bytes);
}

static void report_recovery(struct durable *d)
{
    const struct store_report *r = &d->report;

    d->recovery_ms = (uv_hrtime() - d->began_ns) / 1000000;
    if (r->cut_bytes > 0)
        tq_log(
            TQ_LOG_WARN, "LOG-CUT",
            "file=%s offset=%llu bytes=%llu why=\"%s\": the torn end of the log, none of it was acknowledged",
            r->cut_file, (unsigned long long)r->cut_offset, (unsigned long long)r->cut_bytes, r->cut_why);
    if (r->orphans > 0)
        tq_log(TQ_LOG_WARN, "ORPHANS-DROPPED",
               "tasks=%llu: their queues were told of in a part of the log that a repair has cut off",
               (unsigned long long)r->orphans);
    tq_log(TQ_LOG_INFO, "RECOVERED",
           "queues=%llu tasks=%llu leased=%llu sessions=%llu ms=%llu records=%llu bytes=%llu stopped=%s",
           (unsigned long long)r->queues, (unsigned long long)r->tasks, (unsigned long long)r->leased,
           (unsigned long long)r->sessions, (unsigned long long)d->recovery_ms,
           (unsigned long long)r->records, (unsigned long long)r->bytes,
           r->empty    ? "never"
           : r->closed ? "cleanly"
                       : "suddenly");
}

static int open_parts(struct durable *d, char err[LOG_ERROR_MAX])
{
    struct server *s = d->server;
    const struct limits *l = &s->config->limits;
    struct store_conf conf = {.log = {.segment_bytes = l->log_segment_bytes,
                                      .group_bytes = l->log_group_bytes,
                                      .interval_ms = (uint32_t)l->log_interval_ms},
                              .factor_percent = (uint32_t)l->log_factor_percent,
                              .move_budget = MOVE_BUDGET};
    struct store_host host = {.ctx = d,
                              .submit = submit,
                              .on_progress = on_progress,
                              .refuse_new_work = refuse_new_work,
                              .set_room = set_room,
                              .recovering = recovering};
    int rv = tq_random_bytes(conf.log.uuid, sizeof(conf.log.uuid));

    if (rv == TQ_OK)
        rv = broker_journal_enable(s->broker);
    if (rv == TQ_OK) {
        native_journal_enable(s->native);
        rv = log_thread_open(&d->thread, s->loop, on_done, d);
    }
    if (rv != TQ_OK) {
        snprintf(err, LOG_ERROR_MAX, "no thread or memory for the log: %s", tq_strerror(rv));
        return rv;
    }
    (void)uv_timer_init(s->loop, &d->stop_timer);
    d->stop_timer.data = d;
    rv = fs_posix_open(&d->fs, s->config->data_dir, true, true, err);
    if (rv != TQ_OK)
        return rv;
    d->fs_open = true;
    d->store = store_new(&d->fs.fs, &conf, &host);
    if (d->store != NULL)
        return TQ_OK;
    snprintf(err, LOG_ERROR_MAX, "out of memory");
    return TQ_ENOMEM;
}

/* Times in the log are never ahead of the clock: if the system's was set back, ours goes on. */
static void set_clock(struct server *s, uint64_t last_ms)
{
    uint64_t now_ms;

    uv_update_time(s->loop);
    now_ms = server_now_ms(s);
    if (now_ms >= last_ms)
        return;
    tq_log(TQ_LOG_WARN, "CLOCK-BACK",
           "by_ms=%llu: since the last stop the system's clock was set back; ours goes on",
           (unsigned long long)(last_ms - now_ms));
    s->epoch_ms += last_ms - now_ms;
}

static int recover(struct durable *d, char err[LOG_ERROR_MAX])
{
    struct server *s = d->server;
    int rv = open_parts(d, err);

    if (rv == TQ_OK)
        rv = store_recover(d->store, s->broker, s->native, &d->report, err);
    if (rv != TQ_OK)
        return rv;
    set_clock(s, d->report.last_ms);
    d->started = true;
    rv = store_start(d->store, server_now_ms(s), &d->report, err);
    d->started = rv == TQ_OK;
    return rv;
}

int durable_open(struct server *s, char err[TQ_OPT_ERROR_MAX])
{
    char why[LOG_ERROR_MAX] = "";
    struct durable *d = tq_calloc(1, sizeof(*d));
    int rv;

    if (d == NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    s->durable = d;
    d->server = s;
    d->began_ns = d->told_ns = uv_hrtime();
    rv = recover(d, why);
    if (rv == TQ_OK)
        report_recovery(d);
    else
        snprintf(err, TQ_OPT_ERROR_MAX, "%s", why);
    return rv;
}

/* ---- turns ---- */

void durable_took(struct server *s, size_t n_bytes)
{
    store_expect(s->durable->store, n_bytes);
    s->durable->turn_bytes += n_bytes;
    set_busy(s->durable);
}

void durable_is_busy(struct server *s)
{
    set_busy(s->durable);
}

/* Something has changed that is in no record yet. */
static bool has_news(const struct server *s)
{
    return broker_journal_has_news(s->broker) || native_journal_has_news(s->native);
}

bool durable_is_met(const struct server *s, struct log_need need)
{
    return store_is_met(s->durable->store, need);
}

bool durable_may_reply(const struct server *s)
{
    const struct durable *d = s->durable;

    return !has_news(s) && store_is_met(d->store, store_need(d->store));
}

uint64_t durable_next_ms(const struct server *s)
{
    return store_next_ms(s->durable->store);
}

void durable_turn(struct server *s)
{
    struct durable *d = s->durable;
    struct log_need need;

    if (store_turn(d->store, server_now_ms(s)) != TQ_OK)
        give_up_failed(d);
    d->turn_bytes = 0;
    set_busy(d);
    need = store_need(d->store);
    /* Behind what goes out now there may be more that was recorded before this turn: it must not have to wait
     * for this turn's record, too. And what goes out may make more, which is in no record yet. */
    peer_record_fresh(s, need);
    peer_release_met(s);
    peer_hold_recorded(s);
    native_peer_settle(s, need);
    peer_release_met(s);
}

/* ---- the end ---- */

static void on_stop_timeout(uv_timer_t *timer)
{
    const struct durable *d = timer->data;
    char text[200];

    snprintf(text, sizeof(text),
             "seconds=%g: the disk has not taken the end of the log in this time; what was acknowledged is "
             "there; remedy: look after the disk, or raise --stop-timeout",
             (double)d->server->config->limits.stop_timeout_ms / 1000);
    give_up("STOP-TIMEOUT", text);
}

void durable_stop(struct server *s)
{
    struct durable *d = s->durable;

    if (d == NULL || d->stopping)
        return;
    d->stopping = true;
    if (!d->started) { /* it was not opened, and nothing is on its way */
        close_thread(d);
        return;
    }
    (void)uv_timer_start(&d->stop_timer, on_stop_timeout, s->config->limits.stop_timeout_ms, 0);
    if (store_close(d->store, server_now_ms(s)) != TQ_OK)
        give_up_failed(d);
    server_report_items(s);
    go_on_stopping(d);
}

void durable_free(struct server *s)
{
    struct durable *d = s->durable;

    if (d == NULL)
        return;
    store_free(d->store);
    if (d->fs_open)
        fs_posix_close(&d->fs);
    s->durable = NULL;
    tq_free(d);
}

struct store *durable_store(const struct server *s)
{
    return s->durable != NULL ? s->durable->store : NULL;
}

struct fs_posix *durable_fs(const struct server *s)
{
    return s->durable != NULL ? &s->durable->fs : NULL;
}

/* ---- stats ---- */

unsigned durable_stats(const struct server *s, struct native_stat *out, unsigned max)
{
    const struct durable *d = s->durable;
    const struct store_report *r;
    struct store_status st;
    unsigned n = 0;

    if (d == NULL)
        return 0;
    r = &d->report;
    store_get_status(d->store, &st);
    {
        const struct native_stat all[] = {
            {"log_index", st.log.next_index - 1},
            {"log_written_index", st.log.written},
            {"log_synced_index", st.log.synced},
            {"log_pending_bytes", st.log.pending_bytes},
            {"log_bytes", st.log.log_bytes},
            {"log_live_bytes", st.live_bytes},
            {"log_live_tasks", st.live_tasks},
            {"log_moved_bytes", st.moved_bytes},
            {"log_room_bytes", st.log.room_bytes},
            {"log_segments", st.log.last_segment - st.log.first_segment + 1},
            {"disk_bytes", st.log.disk_bytes},
            {"log_groups", st.log.groups},
            {"log_records", st.log.records},
            {"log_written_bytes", st.log.bytes},
            {"log_syncs", st.log.syncs},
            {"sync_ns_last", st.log.sync_ns_last},
            {"sync_ns_max", st.log.sync_ns_max},
            {"write_ns_max", st.log.write_ns_max},
            {"refuse", st.refuse},
            {"recovered_queues", r->queues},
            {"recovered_tasks", r->tasks},
            {"recovered_leased", r->leased},
            {"recovered_sessions", r->sessions},
            {"recovered_ms", d->recovery_ms},
            {"recovered_cut_bytes", r->cut_bytes},
            {"recovered_orphans", r->orphans},
        };

        for (; n < max && n < sizeof(all) / sizeof(all[0]); n++)
            out[n] = all[n];
    }
    return n;
}
