/* The store: what holds the broker, the sessions and the log together. Pure: the disk is a log_fs, the thread
 * an executor, the clock the caller's; so the same code runs in the daemon and in a simulation.
 *
 *   store_recover   reads the log into a broker and a dialect that are new
 *   store_start     from here on what changes is recorded
 *   store_turn      once at the end of each turn of the loop: what changed becomes one record; the log is
 *                   kicked; old segments are emptied a little
 *   store_need      a reply that was composed in this turn may go out when store_is_met says so; asked after
 *                   store_turn: what changed in this turn is in no record before
 *   on_progress     the owner looks again at replies that it held back, and at `busy` and `failed`
 *
 * Recovery is followed by a turn whose record holds what recovery itself changed (leases that went back). */
#ifndef MASTER_STORE_STORE_H
#define MASTER_STORE_STORE_H

#include "master/core/broker.h"
#include "master/log/log.h"
#include "master/native/native.h"

struct store_conf {
    struct log_conf log;
    /* Old segments are emptied when the log takes more than live * factor_percent / 100 + a segment; before
     * that, if the disk would hold more than twice what lives and two segments otherwise. */
    uint32_t factor_percent; /* 200 */
    unsigned move_budget;    /* pieces of work a turn; about a millisecond's: 10,000 */
};

struct store_host {
    void *ctx;
    void (*submit)(void *ctx, struct log_job *job);
    void (*on_progress)(void *ctx);
    /* The log has no room for new work, or has again: broker_refuse_new_work, and its effects are carried
     * out. From within store_turn, before that looks at what has changed. */
    void (*refuse_new_work)(void *ctx, bool refuse);
    /* The same of broker_set_room. */
    void (*set_room)(void *ctx, uint64_t new_work_bytes, uint64_t completion_bytes);
    void (*recovering)(void *ctx, uint64_t done_bytes, uint64_t all_bytes); /* may be NULL */
};

struct store; /* opaque */

struct store_report { /* of a recovery, for the log line and `stats` */
    uint64_t queues, tasks, leased, sessions, records, bytes, cut_bytes, cut_offset;
    uint64_t orphans;   /* dropped: tasks of queues that a repair has cut off */
    uint64_t last_ms;   /* the time of the last record: the clock must not go below it */
    bool closed, empty; /* stopped in good order; there was no log yet */
    char cut_file[LOG_FS_NAME_MAX], cut_why[128];
};

/* fs is borrowed. NULL when out of memory. */
struct store *store_new(struct log_fs *fs, const struct store_conf *conf, const struct store_host *host);
void store_free(struct store *st); /* no job is on its way; NULL is fine. Before the broker goes */
/* Into a broker and a dialect that have their journals enabled and nothing in them; they are borrowed until
 * store_free. They hold raw state afterwards: nothing but store_start may follow. 0, or negative with cause
 * and remedy. */
int store_recover(struct store *st, struct broker *b, struct native *n, struct store_report *ret,
                  char err[LOG_ERROR_MAX]);
/* The clock is at or above report.last_ms by now: sessions and tasks come to life, and the log is opened for
 * writing. *report, as store_recover left it, gets the rest. */
int store_start(struct store *st, uint64_t now_ms, struct store_report *report, char err[LOG_ERROR_MAX]);

/* 0; negative: st has failed (see store_status): no further OK may be sent, and the process has to end. */
int store_turn(struct store *st, uint64_t now_ms);
/* Something large is about to come in: how much room there is, is asked now, as others may have taken it
 * since the last turn. Not from within store_turn. */
void store_expect(struct store *st, uint64_t bytes);
void store_done(struct store *st, uint64_t now_ms); /* the job was run */
uint64_t store_next_ms(const struct store *st);     /* store_turn wants to be called by then */
struct log_need store_need(const struct store *st);
bool store_is_met(const struct store *st, struct log_need need); /* false for ever once it has failed */
/* No more input is to be taken for now: the disk does not keep up. */
bool store_is_busy(const struct store *st);
/* The last words of a stop in good order: record, LOG_CLOSED. Then: run jobs until store_is_closed. What
 * changes afterwards is not recorded. */
int store_close(struct store *st, uint64_t now_ms);
bool store_is_closed(const struct store *st);

/* For a backup: see log_pin. Between store_start and store_free. */
void store_pin(struct store *st, struct log_pin *ret);
void store_unpin(struct store *st);

struct store_status {
    struct log_status log;
    uint64_t live_bytes, live_tasks, moved_bytes, reserve_bytes;
    bool refuse; /* new work is refused: no_space */
    bool failed;
    char error[LOG_ERROR_MAX];
};
void store_get_status(const struct store *st, struct store_status *ret);

#endif
