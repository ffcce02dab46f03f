/* A master of which each life has the same disk: broker, native dialect, store, log, and a disk that is
 * played. Jobs of the log run when the test says so. Beside native clients there is a session that is fast to
 * use in large numbers. */
#ifndef TESTS_UNIT_STORE_RIG_H
#define TESTS_UNIT_STORE_RIG_H

#include "master/core/journal.h"
#include "master/store/store.h"
#include "tests/lib/fake_fs.h"
#include "tests/unit/native_talk.h"

#define SEGMENT_BYTES LOG_SEGMENT_MIN_BYTES

struct bulk { /* a native session that ends with its life */
    struct endpoint ep;
    struct broker_effect last;
    uint64_t seen; /* replies */
    struct broker_lease_name *got;
    size_t got_count, got_cap;
};

struct store_rig {
    struct native_rig r;
    struct fake_fs *fs;
    struct store *st;
    struct store_conf conf;
    struct store_report report;
    char err[LOG_ERROR_MAX];
    struct log_job *job;
    unsigned progress;
    bool refused;
    struct bulk bulk;
    uint64_t random, now_ms;
};

static inline void rig_submit(void *ctx, struct log_job *job)
{
    struct store_rig *g = ctx;

    assert_null(g->job);
    g->job = job;
}

static inline void rig_progress(void *ctx)
{
    ((struct store_rig *)ctx)->progress++;
}

static inline void rig_refuse(void *ctx, bool refuse)
{
    struct store_rig *g = ctx;

    assert_true(refuse != g->refused);
    g->refused = refuse;
    native_rig_refuse_new_work(&g->r, refuse);
}

static inline void rig_room(void *ctx, uint64_t new_work_bytes, uint64_t completion_bytes)
{
    native_rig_set_room(&((struct store_rig *)ctx)->r, new_work_bytes, completion_bytes);
}

/* One job, if there is one. */
static inline bool run_job(struct store_rig *g)
{
    struct log_job *job = g->job;

    if (job == NULL)
        return false;
    g->job = NULL;
    log_job_run(job);
    store_done(g->st, g->r.now_ms);
    return true;
}

static inline void turn(struct store_rig *g)
{
    assert_int_equal(store_turn(g->st, g->r.now_ms), 0);
}

/* A turn, and all that the disk has to do for it. */
static inline void flush(struct store_rig *g)
{
    turn(g);
    while (run_job(g))
        turn(g);
}

static inline struct store_status status(const struct store_rig *g)
{
    struct store_status s;

    store_get_status(g->st, &s);
    return s;
}

static inline uint64_t sum_of(const struct store_status *s)
{
    return s->log.disk_bytes;
}

/* ---- lives ---- */

static inline struct store_rig *rig_new(void)
{
    struct store_rig *g = calloc(1, sizeof(*g));

    assert_non_null(g);
    g->fs = fake_fs_new();
    assert_non_null(g->fs);
    g->conf = (struct store_conf){.log = {.segment_bytes = SEGMENT_BYTES,
                                          .group_bytes = 1u << 20,
                                          .interval_ms = 1000,
                                          .uuid = {1, 2, 3}},
                                  .factor_percent = 150,
                                  .move_budget = 200};
    g->random = 1;
    g->now_ms = 1000;
    return g;
}

/* 0, or what store_recover or store_start returned. */
static inline int try_start(struct store_rig *g)
{
    struct store_host host = {.ctx = g,
                              .submit = rig_submit,
                              .on_progress = rig_progress,
                              .refuse_new_work = rig_refuse,
                              .set_room = rig_room};
    int rv = TQ_ENOMEM;

    g->st = NULL;
    g->refused = false;
    g->report = (struct store_report){0};
    if (!native_rig_init_durable(&g->r, NULL))
        return rv;
    g->r.now_ms = g->now_ms;
    g->r.random_state = g->now_ms;
    g->st = store_new(fake_fs_table(g->fs), &g->conf, &host);
    if (g->st == NULL)
        return rv;
    rv = store_recover(g->st, g->r.broker, g->r.native, &g->report, g->err);
    return rv != TQ_OK ? rv : store_start(g->st, g->r.now_ms, &g->report, g->err);
}

static inline struct broker_queue *queue(struct store_rig *g, const char *name)
{
    struct broker_queue *q = broker_find(g->r.broker, tq_span_str(name));

    if (q == NULL)
        fail_msg("the queue %s is not there", name);
    return q;
}

static inline void declare_queue(struct store_rig *g, const char *name, const char *result)
{
    struct broker_queue_conf conf;
    struct broker_queue *q;

    broker_queue_conf_init(&conf);
    conf.result = result;
    assert_int_equal(broker_declare(g->r.broker, name, &conf, &q), 0);
}

static inline void on_bulk_effect(struct endpoint *ep, struct broker_effect *fx)
{
    struct bulk *k = (struct bulk *)(void *)ep;

    k->last = *fx;
    k->seen++;
    if (fx->outcome != BROKER_REPLY_TASK)
        return;
    if (k->got_count == k->got_cap) {
        k->got_cap = k->got_cap > 0 ? k->got_cap * 2 : 64;
        k->got = realloc(k->got, k->got_cap * sizeof(*k->got));
        assert_non_null(k->got);
    }
    k->got[k->got_count++] = (struct broker_lease_name){.id = fx->id, .epoch = fx->epoch};
}

static inline void bulk_step(struct store_rig *g, struct broker_event *ev)
{
    ev->session = &g->bulk.ep.session;
    assert_int_equal(g->r.host.step(&g->r, ev), 0);
}

static inline void bulk_open(struct store_rig *g)
{
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN};

    free(g->bulk.got);
    g->bulk = (struct bulk){.ep = {.on_effect = on_bulk_effect}};
    g->bulk.ep.session.native = true;
    bulk_step(g, &ev);
}

static inline void start(struct store_rig *g)
{
    int rv = try_start(g);

    if (rv != TQ_OK)
        fail_msg("%d: %s", rv, g->err);
    check(&g->r);
    if (g->report.empty) {
        declare_queue(g, "result_queue", NULL);
        declare_queue(g, "task_queue", "result_queue");
    }
    bulk_open(g);
}

/* The process is gone: the disk as it is then has been taken before. */
static inline void end_life(struct store_rig *g)
{
    fake_fs_fail_any(g->fs, 0);
    while (run_job(g))
        ;
    g->now_ms = g->r.now_ms;
    store_free(g->st);
    g->st = NULL;
    g->refused = false;
    native_rig_deinit(&g->r);
}

static inline void next_disk(struct store_rig *g, struct fake_fs *fs)
{
    assert_non_null(fs);
    end_life(g);
    fake_fs_free(g->fs);
    g->fs = fs;
}

static inline void kill_it(struct store_rig *g)
{
    next_disk(g, fake_fs_kill(g->fs, fake_fs_point(g->fs), false, &g->random));
}

static inline void power_cut(struct store_rig *g, enum fake_fs_loss loss)
{
    next_disk(g, fake_fs_power_cut(g->fs, fake_fs_point(g->fs), loss, &g->random));
}

static inline void close_it(struct store_rig *g)
{
    assert_int_equal(store_close(g->st, g->r.now_ms), 0);
    while (!store_is_closed(g->st))
        assert_true(run_job(g));
}

static inline void rig_free(struct store_rig *g)
{
    if (g->st != NULL)
        end_life(g);
    fake_fs_free(g->fs);
    free(g->bulk.got);
    free(g);
}

/* ---- the bulk session's calls ---- */

static inline uint64_t bulk_put_len(struct store_rig *g, const char *name, size_t len)
{
    uint8_t *body = malloc(len + 5);
    struct broker_event ev = {.kind = BROKER_PUT, .queue = queue(g, name)};

    assert_non_null(body);
    body[0] = 0xc6; /* bin 32 */
    tq_store_be32(body + 1, (uint32_t)len);
    memset(body + 5, 'x', len);
    ev.payload = (struct broker_payload){.data = body, .len = (uint32_t)len + 5, .format = BROKER_MSGPACK};
    bulk_step(g, &ev);
    free(body);
    return g->bulk.last.outcome == BROKER_REPLY_OK ? g->bulk.last.id : 0;
}

static inline uint64_t bulk_put(struct store_rig *g, const char *name)
{
    return bulk_put_len(g, name, 100);
}

/* Leases stand in bulk.got. */
static inline size_t bulk_get(struct store_rig *g, const char *name, uint32_t max, bool take)
{
    struct broker_event ev = {.kind = BROKER_GET, .queue = queue(g, name), .max = max, .take = take};

    g->bulk.got_count = 0;
    bulk_step(g, &ev);
    return g->bulk.got_count;
}

static inline void bulk_done(struct store_rig *g, const struct broker_lease_name *l)
{
    static const uint8_t value = 7;
    struct broker_event ev = {.kind = BROKER_DONE,
                              .id = l->id,
                              .epoch = l->epoch,
                              .payload = {.data = &value, .len = 1, .format = BROKER_MSGPACK}};

    bulk_step(g, &ev);
    assert_int_equal(g->bulk.last.outcome, BROKER_REPLY_OK);
}

static inline uint64_t size_of(struct store_rig *g, const char *name)
{
    return broker_queue_size(queue(g, name));
}

#endif
