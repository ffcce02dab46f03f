/* The crash simulator of the log: the shipped code on a disk that is played, everything else out of a seed. A
 * writer with records of all sizes, waits of all kinds, releases, reserves, full disks, stops in good order
 * and failing syncs; then the power goes, or the process is killed, at random moments of what it did; the
 * disk is read with the shipped reader, and held against what the log had said until that moment:
 *   - what was reported as synced is there after a power cut, what was written is there after a kill;
 *   - what is missing is a suffix, what is there is what was written, in order, in its segment, once;
 *   - only what was released is missing at the front;
 *   - the log opens, and goes on: the next life is written on such a disk, and ends the same way.
 * usage: test_log_crash [--trace] [--seed N | --seeds FIRST LAST] [--points N]
 * A run that fails says its seed and the change at which the power went. The same seed is the same run. */
#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "master/log/log.h"
#include "tests/lib/effort.h"
#include "tests/lib/fake_fs.h"

#define LIVES_MAX   4u
#define RECORDS_MAX 4000u
#define EVENTS_MAX  8000u
#define LEN_MAX     160000u
#define NOISE_BYTES 262144u

struct record { /* that was committed */
    uint32_t len;
    uint32_t tag;     /* its bytes come from this */
    uint64_t segment; /* it went there, or behind */
    bool is_ops;
};

/* What the log had said by the time when the disk had seen so many changes. */
struct event {
    size_t point;
    uint64_t next_index, written, synced, released;
};

struct world {
    uint64_t seed, random;
    bool trace;
    struct fake_fs *fs;
    struct log *log;
    struct log_job *job; /* handed over, not run */
    uint64_t now_ms;
    struct record records[RECORDS_MAX]; /* by index */
    struct event events[EVENTS_MAX];
    size_t event_count;
    size_t born;        /* point at which this life begins: a kill keeps what was not durable before */
    struct event floor; /* of the lives before */
    uint64_t released;
    uint32_t tags;
    bool has_failed; /* its log; nothing may move any more */
    struct log_status at_failure;
    uint64_t limit;    /* room on the disk */
    uint32_t same_len; /* of all records; 0: of all sizes */
    uint64_t crashes, recovered, lives, cut, kills;
    size_t at; /* of the crash that is looked at */
    const char *kind;
};

__attribute__((format(printf, 2, 3))) static void fail(struct world *w, const char *fmt, ...)
{
    char what[FAKE_FS_TEXT_MAX] = "the end";
    va_list ap;

    for (size_t i = 0; w->trace && w->fs != NULL && i < w->at; i++) {
        fake_fs_describe(w->fs, i, what);
        printf("%s%zu %s\n", i == w->born ? "-- this life:\n" : "", i, what);
    }
    fflush(stdout);
    (void)snprintf(what, sizeof(what), "the end");
    if (w->fs != NULL && w->at < fake_fs_point(w->fs))
        fake_fs_describe(w->fs, w->at, what);
    fprintf(stderr, "seed %" PRIu64 ", life %" PRIu64 ", %s before change %zu (%s): ", w->seed, w->lives,
            w->kind, w->at, what);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nagain: test_log_crash --trace --seed %" PRIu64 "\n", w->seed);
    exit(1);
}

__attribute__((format(printf, 2, 3))) static void note(const struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (!w->trace)
        return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* xorshift64* */
static uint32_t below(struct world *w, uint32_t n)
{
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return (uint32_t)((w->random * 0x2545f4914f6cdd1du >> 32) * n >> 32);
}

static bool chance(struct world *w, uint32_t per_mille)
{
    return below(w, 1000) < per_mille;
}

/* What a record says: a piece of noise that begins where its tag says. */
static const uint8_t *bytes_of(uint32_t tag)
{
    static uint8_t noise[NOISE_BYTES + LEN_MAX];
    static uint64_t x;

    for (size_t i = 0; x == 0 || (i > 0 && i < sizeof(noise)); i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        noise[i] = (uint8_t)(x >> 56);
    }
    return noise + tag * 977u % NOISE_BYTES;
}

/* ---- what the log says ---- */

static void look(struct world *w)
{
    struct event *last = w->event_count > 0 ? &w->events[w->event_count - 1] : NULL;
    struct log_status s;
    struct event e;

    if (w->log == NULL)
        return;
    log_get_status(w->log, &s);
    e = (struct event){.point = fake_fs_point(w->fs),
                       .next_index = s.next_index,
                       .written = s.written,
                       .synced = s.synced,
                       .released = w->released};
    w->at = e.point;
    w->kind = "while it ran";
    if (s.synced > s.written || s.written >= s.next_index)
        fail(w, "%" PRIu64 " synced, %" PRIu64 " written, %" PRIu64 " next", s.synced, s.written,
             s.next_index);
    if (last != NULL && (s.synced < last->synced || s.written < last->written))
        fail(w, "synced or written went back");
    if (w->has_failed && (s.synced != w->at_failure.synced || s.written != w->at_failure.written))
        fail(w, "something was reported after a failure: synced %" PRIu64 ", written %" PRIu64, s.synced,
             s.written);
    if (s.failed && !w->has_failed) {
        w->has_failed = true;
        w->at_failure = s;
        note(w, "failed: %s", s.error);
    }
    TQ_ASSERT(w->event_count < EVENTS_MAX);
    w->events[w->event_count++] = e;
}

static void host_submit(void *ctx, struct log_job *job)
{
    struct world *w = ctx;

    TQ_ASSERT(w->job == NULL);
    w->job = job;
}

static void host_progress(void *ctx)
{
    look(ctx);
}

static void hook_written(void *ctx)
{
    struct world *w = ctx;

    if (chance(w, 700)) {
        log_done(w->log, w->now_ms);
        look(w);
    }
}

static void run_job(struct world *w)
{
    struct log_hooks hooks = {.ctx = w, .on_written = hook_written};
    struct log_job *job = w->job;

    if (job == NULL)
        return;
    w->job = NULL;
    log_job_run_with(job, &hooks);
    log_done(w->log, w->now_ms);
    look(w);
}

/* ---- the writer ---- */

static uint32_t random_len(struct world *w)
{
    if (w->same_len > 0)
        return w->same_len;
    switch (below(w, 40)) {
    case 0:
        return 60000 + below(w, 30000); /* about a segment */
    case 1:
        return 65536 - LOG_SEGMENT_HEADER_BYTES - LOG_RECORD_HEADER_BYTES - 8 +
               below(w, 17); /* its very edge */
    case 2:
        return 100000 + below(w, LEN_MAX - 100000);
    case 3:
    case 4:
    case 5:
        return 5000 + below(w, 20000);
    default:
        return 1 + below(w, chance(w, 500) ? 64 : 1500);
    }
}

static void put(struct world *w)
{
    uint32_t len = random_len(w), tag = ++w->tags;
    enum log_wait wait = (enum log_wait)below(w, 3);
    uint64_t index, segment = log_segment(w->log);
    struct tq_buf *buf = log_begin(w->log);
    size_t at;

    TQ_ASSERT(buf != NULL && tq_buf_reserve(buf, len) == TQ_OK);
    memcpy(buf->data + buf->len, bytes_of(tag), len);
    buf->len += len;
    if (chance(w, 30)) {
        log_cancel(w->log);
        return;
    }
    TQ_ASSERT(log_commit(w->log, LOG_OPS, wait, &index) == TQ_OK);
    at = (size_t)index;
    TQ_ASSERT(at < RECORDS_MAX);
    w->records[at] = (struct record){.len = len, .tag = tag, .segment = segment, .is_ops = true};
    look(w);
}

static void kick(struct world *w)
{
    log_kick(w->log, w->now_ms);
    look(w);
}

static void release_some(struct world *w)
{
    struct log_status s;
    uint64_t to;

    log_get_status(w->log, &s);
    to = s.first_segment + below(w, (uint32_t)(s.last_segment - s.first_segment) + 1);
    if (to > w->released)
        w->released = to;
    log_release(w->log, to);
    note(w, "released below %" PRIu64, w->released);
    look(w);
}

static void trouble(struct world *w)
{
    enum fake_fs_call call;
    struct log_status s;
    long nth;

    if (chance(w, 12)) {
        static const enum fake_fs_call calls[] = {FAKE_FS_SYNC,   FAKE_FS_WRITE,  FAKE_FS_SYNC_DIR,
                                                  FAKE_FS_CREATE, FAKE_FS_RENAME, FAKE_FS_SYNC};

        call = calls[below(w, 6)];
        fake_fs_fail(w->fs, call, (long)below(w, 4), 1, TQ_EIO);
    }
    if (chance(w, 20)) {
        static const enum fake_fs_call calls[] = {FAKE_FS_WRITE, FAKE_FS_ALLOCATE, FAKE_FS_CREATE,
                                                  FAKE_FS_RENAME, FAKE_FS_SYNC};

        call = calls[below(w, chance(w, 100) ? 5 : 4)];
        nth = (long)below(w, 4);
        fake_fs_fail(w->fs, call, nth, 1 + below(w, 3), TQ_ENOSPC);
    }
    if (chance(w, 25)) {
        log_get_status(w->log, &s);
        w->limit = fake_fs_used(w->fs) + below(w, 100000);
        fake_fs_set_capacity(w->fs, w->limit);
        note(w, "%" PRIu64 " bytes have room", w->limit);
    } else if (chance(w, 60)) {
        fake_fs_set_capacity(w->fs, UINT64_MAX);
        w->now_ms += LOG_RETRY_MS;
    }
}

static bool step(struct world *w, bool has_trouble)
{
    struct log_status s;

    log_get_status(w->log, &s);
    if (s.failed && chance(w, 300))
        return false;
    if (has_trouble)
        trouble(w);
    w->now_ms += below(w, chance(w, 50) ? 1500 : 3);
    switch (below(w, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (s.next_index + 8 < RECORDS_MAX && s.pending_bytes < 400000)
            put(w);
        break;
    case 4:
    case 5:
        kick(w);
        break;
    case 6:
        if (chance(w, 300))
            release_some(w);
        break;
    case 7:
        if (chance(w, 100))
            log_set_reserve(w->log, below(w, 4) * 50000u);
        break;
    default:
        run_job(w);
    }
    return true;
}

/* Runs jobs until the log has nothing to do, or for so many. */
static void drain(struct world *w)
{
    for (int i = 0; i < 100 && w->job != NULL; i++)
        run_job(w);
}

static void close_well(struct world *w)
{
    struct log_status s;
    uint64_t index;

    for (int call = 0; call < FAKE_FS_CALLS; call++)
        fake_fs_fail(w->fs, (enum fake_fs_call)call, -1, 0, 0);
    fake_fs_set_capacity(w->fs, UINT64_MAX);
    w->now_ms += 2 * LOG_RETRY_MS;
    kick(w);
    drain(w);
    TQ_ASSERT(log_close_record(w->log, &index) == TQ_OK);
    look(w);
    kick(w);
    drain(w);
    log_get_status(w->log, &s);
    if (!s.failed && s.synced < index)
        fail(w, "closing does not end");
    note(w, "closed");
}

/* ---- reading ---- */

struct reading {
    struct world *w;
    struct event want; /* what must be there */
    uint64_t last;     /* index that was delivered */
    uint64_t first;
};

static int on_record(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                     char err[LOG_ERROR_MAX])
{
    struct reading *r = ctx;
    struct world *w = r->w;
    const struct record *m;

    (void)err;
    if (h->index <= r->last || h->index >= r->want.next_index)
        fail(w, "record %" PRIu64 " behind %" PRIu64 "; %" PRIu64 " was never written", h->index, r->last,
             r->want.next_index);
    m = &w->records[h->index];
    if (!m->is_ops || h->type != LOG_OPS || payload.len != m->len)
        fail(w, "record %" PRIu64 " has %zu bytes of type %u, not %u", h->index, payload.len, h->type,
             m->len);
    if (memcmp(payload.data, bytes_of(m->tag), m->len) != 0)
        fail(w, "record %" PRIu64 " is not what was written", h->index);
    if (segment < m->segment)
        fail(w, "record %" PRIu64 " is in segment %" PRIu64 ", before %" PRIu64, h->index, segment,
             m->segment);
    for (uint64_t i = r->last + 1; i < h->index; i++)
        if (w->records[i].is_ops && (r->last > 0 || w->records[i].segment >= r->want.released))
            fail(w, "record %" PRIu64 " is missing before %" PRIu64, i, h->index);
    r->last = h->index;
    return TQ_OK;
}

static void recover(struct world *w, struct fake_fs *disk, const struct event *want, bool is_kill,
                    struct log_state *ret)
{
    struct reading r = {.w = w, .want = *want};
    struct log_reader reader = {.ctx = &r, .record = on_record};
    char err[LOG_ERROR_MAX] = "";
    uint64_t must = is_kill ? want->written : want->synced;
    int rv = log_recover(fake_fs_table(disk), &reader, ret, err);

    w->crashes++;
    if (rv != TQ_OK)
        fail(w, "it does not open: %s (%s)", err, tq_strerror(rv));
    if (ret->next_index - 1 < must || ret->next_index > want->next_index)
        fail(w, "read up to %" PRIu64 " of %" PRIu64 "; must be %" PRIu64 " at least", ret->next_index - 1,
             want->next_index - 1, must);
    for (uint64_t i = r.last + 1; i < ret->next_index; i++)
        if (w->records[i].is_ops && (r.last > 0 || w->records[i].segment >= want->released))
            fail(w, "record %" PRIu64 " is missing at the end", i);
    w->recovered += ret->records;
    w->cut += ret->cut_bytes > 0;
}

/* What the log had said when the disk had seen `point` changes, the last of them done; and what may be on the
 * disk: the records that were committed before a write that is part of it began. */
static struct event event_at(const struct world *w, size_t point)
{
    struct event e = w->floor;

    for (size_t i = 0; i < w->event_count && w->events[i].point <= point; i++)
        e = w->events[i];
    return e;
}

static size_t some_point(struct world *w)
{
    return w->born + below(w, (uint32_t)(fake_fs_point(w->fs) - w->born) + 1);
}

static void look_at_crash(struct world *w, size_t point, bool is_kill)
{
    struct event want = event_at(w, point);
    struct log_state state = {0};
    struct fake_fs *disk;

    w->at = point;
    w->kind = is_kill ? "killed" : "power gone";
    disk = is_kill ? fake_fs_kill(w->fs, point, chance(w, 500), &w->random)
                   : fake_fs_power_cut(w->fs, point, FAKE_FS_LOSE_ANY, &w->random);
    recover(w, disk, &want, is_kill, &state);
    log_state_deinit(&state);
    fake_fs_free(disk);
}

/* ---- lives ---- */

static void open_log(struct world *w, struct log_state *state)
{
    static const struct log_conf conf = {
        .segment_bytes = 65536, .group_bytes = 200000, .interval_ms = 1000, .uuid = {7, 7, 7}};
    struct log_host host = {.ctx = w, .submit = host_submit, .on_progress = host_progress};
    char err[LOG_ERROR_MAX] = "";
    struct log_conf c = conf;
    int rv;

    c.now_ms = w->now_ms;
    rv = log_open(&w->log, fake_fs_table(w->fs), &c, &host, state, err);
    if (rv != TQ_OK)
        fail(w, "log_open: %s", err);
    look(w);
}

static void live(struct world *w)
{
    unsigned steps = 30 + below(w, chance(w, 200) ? 600 : 150);
    bool has_trouble = chance(w, 300);

    for (unsigned i = 0; i < steps && step(w, has_trouble); i++)
        ;
    if (!w->has_failed && chance(w, 200))
        close_well(w);
}

/* The life ends: for good, or with kill -9, or with the power. The next one begins on what is left. */
static void end_life(struct world *w, struct log_state *state)
{
    /* A process whose disk has failed ends by itself, and is started again. */
    bool is_kill = chance(w, w->has_failed ? 850 : 400);
    size_t end = fake_fs_point(w->fs), point = chance(w, w->has_failed ? 850 : 300) ? end : some_point(w);
    bool is_whole = point == end && is_kill;
    struct event want = event_at(w, point);
    struct fake_fs *next;

    w->at = point;
    w->kind = is_kill ? "killed, and on" : "power gone, and on";
    next = is_kill ? fake_fs_kill(w->fs, point, !is_whole && chance(w, 500), &w->random)
                   : fake_fs_power_cut(w->fs, point, FAKE_FS_LOSE_ANY, &w->random);
    recover(w, next, &want, is_kill, state);
    note(w, "%s at %zu of %zu: up to record %" PRIu64 " of %" PRIu64 " (%" PRIu64 " synced)", w->kind, point,
         end, state->next_index - 1, want.next_index - 1, want.synced);
    log_free(w->log);
    if (fake_fs_open_files(w->fs) != 0)
        fail(w, "files are left open");
    fake_fs_free(w->fs);
    w->fs = next;
    w->born = fake_fs_point(next);
    fake_fs_set_capacity(w->fs, UINT64_MAX);
    w->log = NULL;
    w->job = NULL;
    w->kills += is_kill;
    w->floor = (struct event){.next_index = state->next_index > 2 ? state->next_index : 2,
                              .written = state->next_index - 1,
                              .synced = is_kill ? want.synced : state->next_index - 1,
                              .released = want.released};
    w->released = want.released;
    memset(w->records + state->next_index, 0, (RECORDS_MAX - state->next_index) * sizeof(*w->records));
    w->event_count = 0;
    w->has_failed = false;
    w->lives++;
}

static void run(struct world *w, uint64_t seed, unsigned points, bool trace)
{
    uint64_t totals[] = {w->crashes, w->recovered, w->lives, w->cut, w->kills};
    struct log_state state = {.next_index = 1};
    unsigned lives;

    *w = (struct world){
        .seed = seed, .trace = trace, .random = (seed + 1) * 0x9e3779b97f4a7c15u, .kind = "start"};
    w->crashes = totals[0], w->recovered = totals[1], w->cut = totals[3], w->kills = totals[4];
    for (int i = 0; i < 8; i++)
        (void)below(w, 2);
    w->fs = fake_fs_new();
    w->floor.next_index = 2; /* log_open writes the first one */
    w->now_ms = 1000;
    lives = 1 + below(w, LIVES_MAX);
    w->same_len = chance(w, 250) ? 1 + below(w, 1500) : 0;
    for (unsigned life = 0; life < lives; life++) {
        open_log(w, &state);
        live(w);
        for (unsigned i = 0; i < points; i++) {
            size_t point = some_point(w);

            look_at_crash(w, point, chance(w, 250));
        }
        end_life(w, &state);
    }
    log_state_deinit(&state);
    fake_fs_free(w->fs);
    w->lives += totals[2];
}

static uint64_t number(const char *text)
{
    char *end = NULL;
    uint64_t n = text != NULL ? strtoull(text, &end, 10) : 0;

    if (text == NULL || *text == '\0' || *end != '\0') {
        fprintf(stderr, "usage: test_log_crash [--trace] [--seed N | --seeds FIRST LAST] [--points N]\n");
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    uint64_t first = 1, last = EFFORT(500, 20);
    unsigned points = 16;
    struct world *w = calloc(1, sizeof(*w));
    bool trace = false;

    TQ_ASSERT(w != NULL);
    (void)mallopt(M_MMAP_THRESHOLD,
                  1 << 30); /* pages that come and go with each disk take most of the time */
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--seed") == 0) {
            first = last = number(argv[++i]);
        } else if (strcmp(argv[i], "--points") == 0) {
            points = (unsigned)number(argv[++i]);
        } else if (strcmp(argv[i], "--seeds") == 0) {
            first = number(argv[++i]);
            last = number(argv[++i]);
        } else {
            (void)number(NULL);
        }
    }
    for (uint64_t seed = first; seed <= last; seed++)
        run(w, seed, points, trace);
    printf("%" PRIu64 " crashes in %" PRIu64 " lives: %" PRIu64 " records read, %" PRIu64
           " torn ends, %" PRIu64 " kills that went on\n",
           w->crashes, w->lives, w->recovered, w->cut, w->kills);
    free(w);
    return 0;
}
