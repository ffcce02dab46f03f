/* Space: old segments are emptied, room for completions is kept, and new work is refused when there is none.
 *
 * The disk has at most twice what lives, and two segments (the one that is written, and a spare one): from
 * live * 1.5 on the oldest segments are emptied, an eighth of what lives at a time. So a pass over all tasks
 * is worth its time, and what it writes anew before the old segments go is little enough. */
#include "master/store/store_impl.h"

#define RESERVE_PER_TASK   64u
#define RESERVE_MAX_BYTES  (1u << 20) /* of the part that is not by task */
#define SLICE_BYTES        (1u << 20) /* that are noted in one turn, about */
#define PASS_SHARE         8u         /* of what lives is emptied in one pass */
#define LEAST_SHARE        8u         /* so much more than what lives the log may always have */
#define FACTOR_MAX_PERCENT 1000000u

/* About what it takes to write all that is there. */
static uint64_t live_bytes(const struct store *st)
{
    uint64_t sessions;

    return broker_journal_live_bytes(st->broker) + native_journal_live_bytes(st->native, &sessions);
}

/* ---- how much is too much ---- */

static uint64_t factor_percent(const struct store *st, uint64_t live)
{
    const struct store_space *sp = &st->space;

    if (sp->factor_percent <= st->conf.factor_percent || live > 2 * sp->factor_live ||
        live < sp->factor_live / 2)
        return st->conf.factor_percent;
    return sp->factor_percent;
}

/* With little that lives, the old segment has to go before the next spare one is made: that is when the new
 * one is half full. */
static bool is_too_long(const struct store *st, const struct log_status *status)
{
    uint64_t live = live_bytes(st), segment = st->conf.log.segment_bytes;
    uint64_t limit = live / 100 * factor_percent(st, live) + segment / 4;
    uint64_t least = live + live / LEAST_SHARE + segment / 4, most = 2 * live + segment / 2;

    /* What is reserved has its place on the disk, too. */
    most = most > st->reserve_bytes ? most - st->reserve_bytes : 0;
    if (limit > most)
        limit = most > least ? most : least;
    return status->last_segment > status->first_segment && status->log_bytes > limit;
}

/* False: it is compact, whatever its length. */
static bool may_get_shorter(struct store *st, const struct log_status *status)
{
    struct store_space *sp = &st->space;
    uint64_t live = live_bytes(st);

    if (status->first_segment <= sp->compact_to)
        return true;
    if (sp->is_fresh) {
        sp->is_fresh = false;
        sp->compact_to = status->last_segment - 1;
        return true;
    }
    sp->factor_live = live;
    sp->factor_percent = status->log_bytes * 125 / (live + 1);
    if (sp->factor_percent > FACTOR_MAX_PERCENT)
        sp->factor_percent = FACTOR_MAX_PERCENT;
    return false;
}

/* ---- passes ---- */

/* What the next pass empties may be written anew while the old is still there: is there room for that? */
static uint64_t room_for_move(const struct store *st, const struct log_status *status)
{
    uint64_t keep = st->reserve_bytes / 2;

    if (!status->no_space)
        return UINT64_MAX;
    /* With a whole segment left the oldest one surely fits, and gives as much back. */
    if (status->room_bytes >= st->conf.log.segment_bytes / 8 * 7)
        return status->room_bytes;
    return status->room_bytes > keep ? status->room_bytes - keep : 0;
}

static bool begin_pass(struct store *st, const struct log_status *status)
{
    struct store_space *sp = &st->space;
    uint64_t segments = status->last_segment - status->first_segment, each, live, count;

    if (sp->released > status->first_segment || !is_too_long(st, status))
        return false; /* what the last pass gave back comes first */
    if (!may_get_shorter(st, status))
        return false;
    live = live_bytes(st);
    each = status->log_bytes / (segments + 1) + 1;
    sp->may_note = room_for_move(st, status);
    /* An average segment's live part, twice. */
    if (sp->may_note / 2 < each / 100 * (live * 100 / (status->log_bytes + 1)))
        return false;
    count = status->no_space ? 1 : live / PASS_SHARE / each;
    if (count < 1)
        count = 1;
    if (count > segments)
        count = segments;
    sp->moving = true;
    sp->pass_to = status->first_segment + count - 1;
    sp->at = 0;
    sp->noted = 0;
    native_journal_move(st->native, sp->pass_to);
    return true;
}

/* One slice: no more pieces of work than there may be in a turn. */
static void move_slice(struct store *st)
{
    struct store_space *sp = &st->space;
    unsigned budget = st->conf.move_budget;
    uint64_t noted = 0;

    while (sp->moving && budget > 0 && noted < SLICE_BYTES && sp->noted < sp->may_note) {
        unsigned piece = budget < 256 ? budget : 256, left = piece;
        uint64_t bytes = 0;

        if (broker_journal_move(st->broker, sp->pass_to, &sp->at, &left, &bytes))
            sp->moving = false;
        noted += bytes;
        sp->noted += bytes;
        budget -= left < piece ? piece - left : piece;
    }
    if (sp->noted >= sp->may_note)
        sp->moving = false; /* it goes on when there is room */
    sp->moved_bytes += noted;
}

static void empty_old(struct store *st, const struct log_status *status)
{
    if (status->failed || log_is_busy(st->log))
        return; /* the disk is behind as it is */
    if (st->space.moving || begin_pass(st, status))
        move_slice(st);
}

/* ---- room ---- */

/* Room that is just being made is none that is missing. */
static bool must_refuse(const struct store *st, const struct log_status *status)
{
    return status->no_space || (st->refuse && status->room_bytes < st->reserve_bytes);
}

static void refuse_or_not(struct store *st, const struct log_status *status)
{
    bool refuse = must_refuse(st, status);

    if (refuse == st->refuse)
        return;
    st->refuse = refuse;
    st->host.refuse_new_work(st->host.ctx, refuse);
}

static uint64_t reserve(const struct store *st)
{
    uint64_t fixed = st->conf.log.segment_bytes / 8;
    uint64_t by_task = broker_journal_live_tasks(st->broker) * RESERVE_PER_TASK;
    uint64_t half = broker_journal_live_bytes(st->broker) / 2;

    if (fixed > RESERVE_MAX_BYTES)
        fixed = RESERVE_MAX_BYTES;
    return fixed + (by_task < half ? by_task : half); /* little ones end with few bytes */
}

/* The log holds spare segments for what it is told, and one more from the moment when the one that is written
 * is half full. What they and the rest of that one have does not need to be held a second time. */
static void tell_reserve(struct store *st)
{
    struct log_status status;
    uint64_t each = st->conf.log.segment_bytes - LOG_SEGMENT_HEADER_BYTES, rest, there;

    st->reserve_bytes = reserve(st);
    log_get_status(st->log, &status);
    rest = status.room_bytes > status.spares * each ? status.room_bytes - status.spares * each : 0;
    there = rest + (rest < each / 2 ? each / 8 * 7 : 0);
    log_set_reserve(st->log, st->reserve_bytes > there ? st->reserve_bytes - there : 0);
}

/* ---- a turn ---- */

bool store_space_has_work(const struct store *st)
{
    return st->space.moving && !log_is_busy(st->log);
}

void store_space_before(struct store *st, bool has_news)
{
    struct log_status status;

    if (has_news)
        st->space.is_fresh = true;
    log_get_status(st->log, &status);
    refuse_or_not(st, &status);
    empty_old(st, &status);
}

void store_space_after(struct store *st)
{
    uint64_t oldest, sessions;

    tell_reserve(st);
    if (st->owes)
        return; /* something may have its only good copy where it was */
    oldest = broker_journal_oldest(st->broker);
    sessions = native_journal_oldest(st->native);
    if (sessions < oldest)
        oldest = sessions;
    if (st->home < oldest) /* the last record says which ids come next */
        oldest = st->home;
    if (oldest <= st->space.released)
        return;
    st->space.released = oldest;
    log_release(st->log, oldest);
}
