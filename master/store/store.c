#include "master/store/store.h"

#include <stdio.h>
#include <string.h>

#include "common/assert.h"
#include "common/mem.h"
#include "master/store/store_impl.h"

/* Needs from here on are debts: UINT64_MAX minus a debt's number. No index gets that far. */
#define DEBT_MIN (UINT64_MAX / 2)
/* Memory was not there: when it is looked for again. */
#define RETRY_MS 10u

struct store *store_new(struct log_fs *fs, const struct store_conf *conf, const struct store_host *host)
{
    struct store *st = tq_calloc(1, sizeof(*st));

    TQ_ASSERT(conf->factor_percent >= 100 && conf->move_budget > 0);
    if (st == NULL)
        return NULL;
    st->fs = fs;
    st->conf = *conf;
    st->host = *host;
    st->room[0] = st->room[1] = UINT64_MAX;
    return st;
}

void store_free(struct store *st)
{
    if (st == NULL)
        return;
    broker_restore_abandon(st->restore);
    if (st->has_state)
        log_state_deinit(&st->state);
    log_free(st->log);
    tq_free(st);
}

int store_fail(struct store *st, const char *text)
{
    if (!st->failed)
        (void)snprintf(st->error, sizeof(st->error), "%s", text);
    st->failed = true;
    return TQ_EIO;
}

/* ---- a turn ---- */

static bool has_news(const struct store *st)
{
    return broker_journal_has_news(st->broker) || native_journal_has_news(st->native);
}

/* Replies of this turn wait for a record that is not there yet. */
static void owe(struct store *st, uint64_t now_ms)
{
    if (!st->owes)
        st->debt++;
    st->owes = true;
    st->try_ms = now_ms + RETRY_MS;
}

static void repay(struct store *st)
{
    if (st->owes)
        st->debt_repaid = log_need_now(st->log);
    st->owes = false;
}

static enum log_wait wait_of(enum journal_wait wait, bool has_sessions)
{
    if (has_sessions || wait == JOURNAL_SYNCED)
        return LOG_SYNCED;
    return wait == JOURNAL_WRITTEN ? LOG_WRITTEN : LOG_NO_WAIT;
}

static uint64_t unsafe_ids(const struct store *st)
{
    return broker_journal_next_id(st->broker) - st->ids_safe;
}

static void look_at_ids(struct store *st)
{
    if (st->ids_index == 0 || !log_is_met(st->log, (struct log_need){.synced = st->ids_index}))
        return;
    st->ids_safe = st->ids_told;
    st->ids_index = 0;
}

/* All that has changed becomes one record. 0; 1: there is no memory for it now, nothing is forgotten;
 * negative: final. */
static int collect(struct store *st)
{
    struct tq_buf *out = log_begin(st->log);
    uint64_t segment = log_segment(st->log), index = 0;
    enum journal_wait wait = JOURNAL_NOTHING;
    size_t before;
    int rv, native_rv;

    if (out == NULL)
        return 1;
    rv = broker_journal_collect(st->broker, segment, out, &wait);
    if (rv != TQ_OK) {
        log_cancel(st->log);
        if (rv == TQ_ENOMEM)
            return 1;
        return store_fail(st, "the changes of one turn are more than a record of the log can have");
    }
    if (wait != JOURNAL_NOTHING && unsafe_ids(st) > JOURNAL_ID_SKIP / 4)
        wait = JOURNAL_SYNCED; /* it tells them */
    before = out->len;
    native_rv = native_journal_collect(st->native, segment, out);
    rv = log_commit(st->log, LOG_OPS, wait_of(wait, out->len > before), &index);
    /* It is not collected a second time. */
    if (rv != TQ_OK)
        return store_fail(st, "out of memory: a change could not be recorded");
    if (index != 0)
        st->home = segment;
    if (index != 0 && wait != JOURNAL_NOTHING && st->ids_index == 0) {
        st->ids_index = index;
        st->ids_told = broker_journal_next_id(st->broker);
    }
    return native_rv != TQ_OK;
}

static int check_failures(struct store *st)
{
    struct log_status status;

    if (st->failed)
        return TQ_EIO;
    if (broker_journal_failed(st->broker))
        return store_fail(st, "out of memory: a change could not be noted for the log");
    if (!st->has_moved)
        return TQ_OK;
    st->has_moved = false;
    log_get_status(st->log, &status);
    return status.failed ? store_fail(st, status.error) : TQ_OK;
}

static int record_changes(struct store *st, uint64_t now_ms)
{
    int rv;

    if (!st->owes && !has_news(st))
        return TQ_OK;
    rv = collect(st);
    if (rv < 0)
        return rv;
    if (rv > 0)
        owe(st, now_ms);
    else
        repay(st);
    return TQ_OK;
}

int store_turn(struct store *st, uint64_t now_ms)
{
    bool has_moved = st->has_moved, is_new, looks;
    int rv = check_failures(st);

    if (rv != TQ_OK)
        return rv;
    is_new = has_news(st);
    if (st->closing) {
        if (is_new) /* it is not recorded, and not told */
            owe(st, now_ms);
        log_kick(st->log, now_ms);
        return TQ_OK;
    }
    looks = st->refuse && now_ms >= st->look_ms;
    if (looks) {
        st->look_ms = now_ms + LOG_RETRY_MS;
        log_look_at_disk(st->log);
    }
    /* Nothing has happened, and nothing is to be done: this is called in each turn of the loop. */
    if (is_new || has_moved || looks || st->owes || store_space_has_work(st)) {
        store_space_before(st, is_new, now_ms);
        rv = record_changes(st, now_ms);
        if (rv != TQ_OK)
            return rv;
        store_space_after(st);
    }
    if (broker_journal_failed(st->broker)) /* what refuse_new_work or a note needed */
        return store_fail(st, "out of memory: a change could not be noted for the log");
    log_kick(st->log, now_ms);
    return TQ_OK;
}

void store_done(struct store *st, uint64_t now_ms)
{
    struct log_status status;

    log_done(st->log, now_ms);
    look_at_ids(st);
    log_get_status(st->log, &status);
    if (status.failed)
        (void)store_fail(st, status.error);
    st->has_moved = true;
    st->host.on_progress(st->host.ctx);
}

uint64_t store_next_ms(const struct store *st)
{
    uint64_t next_ms;

    if (st->log == NULL || st->failed)
        return UINT64_MAX;
    /* Word of the log, or emptying: as soon as the loop comes to it; memory that was not there: a while
     * later.
     */
    if (!st->closing && (st->has_moved || (!st->owes && (has_news(st) || store_space_has_work(st)))))
        return 0;
    next_ms = log_next_ms(st->log);
    if (st->refuse && !st->closing && st->look_ms < next_ms) /* others may have made room */
        next_ms = st->look_ms;
    return st->owes && !st->closing && st->try_ms < next_ms ? st->try_ms : next_ms;
}

/* ---- who waits for what ---- */

struct log_need store_need(const struct store *st)
{
    if (st->log == NULL)
        return (struct log_need){0};
    if (st->owes)
        return (struct log_need){.synced = UINT64_MAX - st->debt};
    return log_need_now(st->log);
}

bool store_is_met(const struct store *st, struct log_need need)
{
    if (st->failed)
        return false;
    if (st->log == NULL)
        return true;
    if (need.synced >= DEBT_MIN) {
        if (st->owes && UINT64_MAX - need.synced == st->debt)
            return false;
        need = st->debt_repaid; /* or of a later debt: that is later than needed */
    }
    return log_is_met(st->log, need);
}

bool store_is_busy(const struct store *st)
{
    return st->log != NULL && (log_is_busy(st->log) || st->holds || unsafe_ids(st) > JOURNAL_ID_SKIP / 2);
}

/* ---- the end ---- */

int store_close(struct store *st, uint64_t now_ms)
{
    int rv = check_failures(st);

    if (rv != TQ_OK || st->closing)
        return rv;
    rv = record_changes(st, now_ms);
    if (rv != TQ_OK)
        return rv;
    if (st->owes)
        return store_fail(st, "out of memory: the last changes could not be recorded");
    rv = log_close_record(st->log, &st->closed_index);
    if (rv != TQ_OK)
        return store_fail(st, "out of memory: the end could not be recorded");
    st->closing = true;
    log_kick(st->log, now_ms);
    return TQ_OK;
}

bool store_is_closed(const struct store *st)
{
    return st->closing && !st->failed && log_is_met(st->log, (struct log_need){.synced = st->closed_index});
}

void store_get_status(const struct store *st, struct store_status *ret)
{
    *ret = (struct store_status){.moved_bytes = st->space.moved_bytes,
                                 .reserve_bytes = st->reserve_bytes,
                                 .refuse = st->refuse,
                                 .failed = st->failed};
    if (st->log != NULL) {
        log_get_status(st->log, &ret->log);
        ret->live_bytes = broker_journal_live_bytes(st->broker);
        ret->live_tasks = broker_journal_live_tasks(st->broker);
    }
    memcpy(ret->error, st->error, sizeof(ret->error));
}

/* ---- backups ---- */

void store_pin(struct store *st, struct log_pin *ret)
{
    log_pin(st->log, ret);
}

void store_unpin(struct store *st)
{
    log_unpin(st->log);
}
