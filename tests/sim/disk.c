/* The disk under the master: a store over a log over a disk that is played. Its thread takes its time; and
 * the master is killed, or the power goes, at any moment of that, and it is started again. */
#include <inttypes.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_check.h"
#include "master/core/journal.h"
#include "tests/lib/fake_fs.h"
#include "tests/sim/sim.h"

#define ROOM_SEEN_MS 6000u /* so long after there is room again, that is known */
#define TIGHT_BYTES  24576u

enum crash { CRASH_KILL, CRASH_POWER, CRASH_STOP };

static void submit(void *ctx, struct log_job *job)
{
    struct sim *s = ctx;
    struct sim_disk *d = s->disk;
    uint64_t at = s->now_ms + sim_below(s, 6);

    TQ_ASSERT(d->job == NULL);
    d->job = job;
    d->job_was_run = false;
    sim_at(s, at, EV_JOB, 0, d->life);
}

static void on_progress(void *ctx)
{
    (void)ctx; /* the turn looks */
}

/* Whether new work is refused, or only so little of it may come in that all of it is refused here: one rule,
 * which the model can follow. */
static void apply_refusal(struct sim *s)
{
    struct sim_disk *d = s->disk;
    bool refuse = d->refuse || d->is_tight;

    if (refuse == s->model->no_room)
        return;
    if (refuse && !d->full && s->now_ms > d->room_at + ROOM_SEEN_MS)
        sim_fail(s, "new work is refused, and the disk has room");
    sim_note(s, refuse ? "new work is refused" : "new work is taken again");
    d->refusals += refuse;
    m_step_begins(s->model, false);
    s->model->no_room = refuse;
    broker_refuse_new_work(s->broker, s->now_ms, refuse, &s->effects);
    sim_run_effects(s);
    sim_after_step(s);
}

static void refuse_new_work(void *ctx, bool refuse)
{
    struct sim *s = ctx;

    s->disk->refuse = refuse;
    apply_refusal(s);
}

/* Completions are not limited here: what finds no room waits for it. */
static void set_room(void *ctx, uint64_t new_work_bytes, uint64_t completion_bytes)
{
    struct sim *s = ctx;

    (void)completion_bytes;
    s->disk->is_tight = new_work_bytes < TIGHT_BYTES;
    apply_refusal(s);
}

/* It gets full, and has room again a while later. */
static void change_room(struct sim *s)
{
    struct sim_disk *d = s->disk;

    if (d->full) {
        sim_note(s, "the disk has room");
        fake_fs_set_capacity(d->fs, UINT64_MAX);
        d->full = false;
        d->room_at = s->now_ms;
    } else if (d->up && !s->calm) {
        sim_note(s, "the disk is nearly full");
        fake_fs_set_capacity(d->fs, fake_fs_used(d->fs) + sim_below(s, LOG_SEGMENT_MIN_BYTES / 4));
        d->full = true;
        sim_at(s, s->now_ms + 200 + sim_below(s, 12000), EV_ROOM, 0, 0);
    }
}

/* ---- start ---- */

static int see_record(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                      char err[LOG_ERROR_MAX])
{
    (void)ctx, (void)h, (void)payload, (void)segment, (void)err;
    return TQ_OK;
}

/* The last record that is in the log: what the master has to come back to. */
static uint64_t last_record(struct sim *s)
{
    struct log_reader reader = {.record = see_record};
    struct log_state state;
    char err[LOG_ERROR_MAX] = "";
    uint64_t last;

    if (log_recover(fake_fs_table(s->disk->fs), &reader, &state, err) != TQ_OK)
        sim_fail(s, "the log is not to be read: %s", err);
    last = state.next_index - 1;
    s->disk->was_closed = state.closed;
    log_state_deinit(&state);
    return last;
}

static void start_store(struct sim *s)
{
    struct store_conf conf = {.log = {.segment_bytes = LOG_SEGMENT_MIN_BYTES,
                                      .group_bytes = 16384,
                                      .interval_ms = 200,
                                      .uuid = {7},
                                      .now_ms = s->now_ms},
                              .factor_percent = 150,
                              .move_budget = 50};
    struct store_host host = {.ctx = s,
                              .submit = submit,
                              .on_progress = on_progress,
                              .refuse_new_work = refuse_new_work,
                              .set_room = set_room};
    struct sim_disk *d = s->disk;
    struct store_report report = {0};
    char err[LOG_ERROR_MAX] = "";
    int rv = broker_journal_enable(s->broker);

    TQ_ASSERT(rv == TQ_OK);
    native_journal_enable(s->native);
    d->store = store_new(fake_fs_table(d->fs), &conf, &host);
    TQ_ASSERT(d->store != NULL);
    d->life++;
    TQ_ASSERT(d->job == NULL);
    if (store_recover(d->store, s->broker, s->native, &report, err) != TQ_OK)
        sim_fail(s, "no recovery: %s", err);
    if (report.last_ms > s->now_ms)
        sim_fail(s, "the log is of a time to come, %" PRIu64, report.last_ms);
    d->point = fake_fs_point(d->fs);
    d->up = true;
    if (store_start(d->store, s->now_ms, &report, err) != TQ_OK)
        sim_fail(s, "no start: %s", err);
    d->starts++;
    sim_note(s, "the master is up: %" PRIu64 " tasks, %" PRIu64 " leases, %" PRIu64 " sessions", report.tasks,
             report.leased, report.sessions);
}

void sim_disk_init(struct sim *s)
{
    s->disk->fs = fake_fs_new();
    TQ_ASSERT(s->disk->fs != NULL);
    start_store(s);
}

/* The job that is on its way is over now, and so is what follows it. */
static void finish_jobs(struct sim *s)
{
    struct sim_disk *d = s->disk;

    while (d->job != NULL) {
        if (!d->job_was_run)
            log_job_run(d->job);
        d->job = NULL;
        d->life++;
        store_done(d->store, s->now_ms);
    }
}

/* All that is to be written is; nobody else does anything meanwhile. */
static void settle(struct sim *s)
{
    do {
        finish_jobs(s);
        if (store_turn(s->disk->store, s->now_ms) != TQ_OK)
            sim_fail(s, "the store has failed");
    } while (s->disk->job != NULL);
}

/* Queues are there before anybody comes; then crashes are planned. */
void sim_disk_plan(struct sim *s)
{
    uint32_t crashes = 1 + sim_below(s, 4);
    struct store_status status;

    settle(s);
    store_get_status(s->disk->store, &status);
    m_snapshot(s->model, &s->disk->snapshots, status.log.next_index - 1);
    for (uint32_t i = 0; i < crashes; i++)
        sim_at(s, s->now_ms + 100 + sim_below(s, (uint32_t)(s->chaos_until - s->now_ms)), EV_CRASH, 0, 0);
    for (uint32_t i = sim_below(s, 3); i > 0; i--)
        sim_at(s, s->now_ms + 100 + sim_below(s, (uint32_t)(s->chaos_until - s->now_ms)), EV_ROOM, 0, 0);
}

/* ---- a turn ---- */

void sim_disk_sent(struct sim *s, uint64_t soft, uint64_t hard)
{
    struct sim_disk *d = s->disk;

    if (soft > d->told_soft)
        d->told_soft = soft;
    if (hard > d->told_hard)
        d->told_hard = hard;
}

static void release(struct sim *s)
{
    for (int i = 0; i < s->link_count; i++)
        if (s->links[i]->held_count > 0)
            sim_link_release(s->links[i]);
    for (int i = 0; i < s->actor_count; i++)
        sim_python_release(&s->actors[i]);
}

/* A full disk is told, and no longer than that. */
static void check_refusal(struct sim *s, const struct log_status *before)
{
    struct sim_disk *d = s->disk;

    if (before->no_space && !s->model->no_room)
        sim_fail(s, "the disk is full, and new work is not refused");
    if (s->model->no_room && !d->full && s->now_ms > d->room_at + ROOM_SEEN_MS)
        sim_fail(s, "new work is refused, and the disk has had room for %u ms", ROOM_SEEN_MS);
}

void sim_disk_turn(struct sim *s)
{
    struct sim_disk *d = s->disk;
    struct model *m = s->model;
    struct store_status before, after;
    struct log_need need;
    bool has_news;

    if (!d->up)
        return;
    has_news = broker_journal_has_news(s->broker) || native_journal_has_news(s->native);
    store_get_status(d->store, &before);
    if (store_turn(d->store, s->now_ms) != TQ_OK)
        sim_fail(s, "the store has failed");
    store_get_status(d->store, &after);
    check_refusal(s, &before.log);
    /* This turn's record is the first of those that are new. (The turn itself may have made the news: who
     * waited for room.) */
    if ((has_news || m->soft) && after.log.next_index > before.log.next_index)
        m_snapshot(m, &d->snapshots, before.log.next_index);
    else
        before.log.next_index--;
    if (m->soft)
        d->soft = before.log.next_index;
    if (m->hard)
        d->hard = before.log.next_index;
    if (m->soft)
        sim_note(s, "record %" PRIu64 "%s", before.log.next_index, m->hard ? ", for good" : "");
    m->soft = m->hard = false;
    m_snapshot_trim(&d->snapshots, after.log.synced);
    need = store_need(d->store);
    for (int i = 0; i < s->link_count; i++)
        sim_link_seal(s->links[i], need);
    for (int i = 0; i < s->actor_count; i++)
        sim_python_seal(&s->actors[i], need);
    release(s);
}

static void run_job(struct sim *s, uint32_t life)
{
    struct sim_disk *d = s->disk;

    if (!d->up || life != d->life || d->job == NULL)
        return;
    if (!d->job_was_run) { /* what it does takes until then */
        d->point = fake_fs_point(d->fs);
        log_job_run(d->job);
        d->job_was_run = true;
        sim_at(s, s->now_ms + (sim_chance(s, 20) ? sim_below(s, 900) : sim_below(s, 12)), EV_JOB, 0, life);
        return;
    }
    d->job = NULL;
    store_done(d->store, s->now_ms);
}

/* ---- crashes ---- */

static void count(struct sim *s)
{
    struct store_status status;

    store_get_status(s->disk->store, &status);
    s->disk->segments = status.log.last_segment;
    s->disk->moved_bytes += status.moved_bytes;
}

/* The process is gone, and with it all that it knew. */
static void kill_master(struct sim *s, uint64_t eof_in)
{
    struct sim_disk *d = s->disk;

    d->up = false;
    for (int i = 0; i < s->link_count; i++)
        sim_link_crash(s->links[i], eof_in);
    count(s);
    fake_fs_fail_any(d->fs, 0);
    finish_jobs(s);
    store_free(d->store);
    d->store = NULL;
    d->life++;
    sim_master_deinit(s);
    for (int i = 0; i < s->actor_count; i++)
        sim_python_crash(&s->actors[i]);
}

/* The disk as it may be at some moment of what is on its way. */
static struct fake_fs *disk_after(struct sim *s, enum crash how, bool in_start)
{
    struct sim_disk *d = s->disk;
    size_t point = fake_fs_point(d->fs);
    bool is_on_its_way = in_start || (d->job != NULL && d->job_was_run);

    if (is_on_its_way && point > d->point)
        point = d->point + sim_below(s, (uint32_t)(point - d->point + 1));
    if (how == CRASH_POWER)
        return fake_fs_power_cut(d->fs, point, FAKE_FS_LOSE_ANY, &s->host_random);
    return fake_fs_kill(d->fs, point, is_on_its_way && sim_chance(s, 500), &s->host_random);
}

/* In good order: everything that was said is sent. */
static void stop(struct sim *s)
{
    struct sim_disk *d = s->disk;

    do { /* what is told may change something */
        finish_jobs(s);
        sim_disk_turn(s);
    } while (d->job != NULL || broker_journal_has_news(s->broker));
    if (store_close(d->store, s->now_ms) != TQ_OK)
        sim_fail(s, "the store does not close");
    settle(s);
    if (!store_is_closed(d->store))
        sim_fail(s, "the store is not closed");
}

static void back_up(struct sim *s, enum crash how)
{
    static const char *const names[] = {"kill -9", "power cut", "stop"};
    struct sim_disk *d = s->disk;
    uint64_t must = how != CRASH_POWER && d->told_soft > d->told_hard ? d->told_soft : d->told_hard;

    d->back_to = last_record(s);
    sim_note(s, "%s: %" PRIu64 " is the last record; %" PRIu64 " was told", names[how], d->back_to, must);
    if (d->back_to < must)
        sim_fail(s, "%s: record %" PRIu64 " was told of, and is lost: %" PRIu64 " is the last", names[how],
                 must, d->back_to);
    if (d->soft > d->back_to) {
        d->undone += d->soft - d->back_to;
        d->soft = d->back_to;
    }
    if (d->hard > d->back_to)
        d->hard = d->back_to;
    if (d->told_soft > d->back_to)
        d->told_soft = d->back_to;
}

static void crash(struct sim *s, bool in_start)
{
    struct sim_disk *d = s->disk;
    enum crash how = sim_chance(s, 400) ? CRASH_POWER : CRASH_KILL;
    uint64_t down_ms = 1 + sim_below(s, sim_chance(s, 800) ? 2000 : 20000);
    struct fake_fs *fs;

    if (!d->up || s->calm)
        return;
    if (!in_start && !s->model->no_room && !d->full && sim_chance(s, 150)) {
        how = CRASH_STOP;
        stop(s);
    }
    fs = disk_after(s, how, in_start);
    kill_master(s, how == CRASH_POWER ? down_ms + sim_below(s, 1000) : sim_below(s, 30));
    fake_fs_free(d->fs);
    d->fs = fs;
    fake_fs_set_capacity(fs, UINT64_MAX); /* somebody has made room meanwhile */
    d->full = d->refuse = d->is_tight = s->model->no_room = false;
    d->crashes[how]++;
    back_up(s, how);
    if (s->chaos_until < s->now_ms + down_ms)
        s->chaos_until = s->now_ms + down_ms;
    sim_at(s, s->now_ms + down_ms, EV_START, 0, 0);
}

static void find_queues(struct sim *s)
{
    for (int i = 0; i < M_QUEUES; i++) {
        s->queues[i] = broker_find(s->broker, tq_span_str(m_queue_names[i]));
        if (s->queues[i] == NULL)
            sim_fail(s, "the queue %s is lost", m_queue_names[i]);
    }
}

static void start(struct sim *s)
{
    struct sim_disk *d = s->disk;
    const char *broken;

    sim_master_init(s);
    if (!m_rollback(s->model, &d->snapshots, d->back_to, d->was_closed))
        sim_fail(s, "record %" PRIu64 " was on stable storage, and is lost", d->back_to);
    s->model->soft = s->model->hard = false;
    m_snapshot(s->model, &d->snapshots, d->back_to + 1);
    start_store(s);
    find_queues(s);
    broken = sim_checks ? broker_check(s->broker) : NULL;
    if (broken != NULL)
        sim_fail(s, "the broker's check, after recovery: %s", broken);
    if (sim_chance(s, 100)) {
        crash(s, true);
        return;
    }
    sim_run_timers(s);
    if (sim_chance(s, 200))
        sim_at(s, s->now_ms + sim_below(s, 40), EV_CRASH, 0, 0);
}

void sim_disk_event(struct sim *s, const struct sim_event *e)
{
    if (e->kind == EV_JOB)
        run_job(s, e->gen);
    else if (e->kind == EV_CRASH)
        crash(s, false);
    else if (e->kind == EV_START)
        start(s);
    else
        change_room(s);
}

/* ---- the end ---- */

/* All that there was is gone, from the disk, too; and after a last start. */
void sim_disk_check_end(struct sim *s)
{
    struct sim_disk *d = s->disk;
    struct store_status status;

    stop(s);
    store_get_status(d->store, &status);
    if (status.live_tasks > 0)
        sim_fail(s, "at the end %" PRIu64 " tasks are in the log", status.live_tasks);
    kill_master(s, 0);
    fake_fs_fail_any(d->fs, -1);
    sim_master_init(s);
    start_store(s);
    find_queues(s);
}

void sim_disk_deinit(struct sim *s)
{
    struct sim_disk *d = s->disk;

    settle(s);
    d->up = false;
    store_free(d->store);
    fake_fs_free(d->fs);
    m_snapshot_trim(&d->snapshots, UINT64_MAX);
    m_snapshot_drop(&d->snapshots);
}
