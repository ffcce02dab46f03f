/* Space: old segments are emptied, room for completions is kept, and new work is refused when there is none.
 *
 * The disk has at most twice what lives, and two segments (the one that is written, and a spare one): before
 * there is more, the oldest segments are emptied, a sixth of what lives at a time, so that what is written
 * anew before they go is little enough. */
#include "master/store/store_impl.h"

#define KIB                1024u
#define SLACK_SEGMENTS     2u
#define RESERVE_PER_TASK   128u /* a hand-out and an end, each with its share of a record */
#define EXPECT_SHARE       8u   /* of a segment: what is smaller has room for certain, or is refused */
#define PLENTY_BYTES       (4ull << 30) /* with so much free, nothing that comes in is counted */
#define ROOMY_BYTES        (1ull << 30)
#define RESERVE_MAX_BYTES  (1u << 20) /* of the part that is not by task */
#define PASS_SHARE         6u         /* of what lives is emptied in one pass */
#define LOOKS_PER_PIECE    4u
#define LOOKS_MAX          1024u
#define BYTES_PER_PIECE    128u
#define LEAST_SHARE        4u /* so much more than what lives the log may always have */
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

/* So many bytes of records are too much. All counts in whole segments on the disk: beside those, what a pass
 * writes anew (one, at least), and the spare ones. But to keep within that at any price would cost more than
 * it is worth when there are few. */
static uint64_t limit(const struct store *st, uint64_t live)
{
    uint64_t segment = st->conf.log.segment_bytes;
    uint64_t group = st->conf.log.group_bytes < segment / 2 ? st->conf.log.group_bytes : segment / 2;
    uint64_t spares = (st->held_bytes + group) / (segment / 8 * 7) + 1;
    uint64_t all = (2 * live + 2 * segment) / segment, moving = live / PASS_SHARE / segment + 1;
    uint64_t most = all > spares + moving ? (all - spares - moving) * segment : 0;
    uint64_t least = live > segment || st->space.is_idle ? live : segment; /* what is young ends by itself */
    uint64_t bytes = live / 100 * factor_percent(st, live) + segment / 4;

    least += least / LEAST_SHARE;
    if (most < least)
        most = least;
    if (bytes < least)
        bytes = least;
    return bytes < most ? bytes : most;
}

/* So little is left on the disk that room has to come from within. */
static bool is_near_full(const struct store *st, const struct log_status *status)
{
    return status->no_space || (status->free_bytes != UINT64_MAX &&
                                status->free_bytes < SLACK_SEGMENTS * st->conf.log.segment_bytes);
}

static bool is_too_long(const struct store *st, const struct log_status *status)
{
    uint64_t live = live_bytes(st);

    if (status->last_segment == status->first_segment)
        return false;
    if (is_near_full(st, status)) /* what completions leave is wanted at once */
        return status->log_bytes > live + live / 64 + st->conf.log.segment_bytes / 4;
    return status->log_bytes > limit(st, live);
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
        sp->compact_to = status->last_segment;
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

    if (!is_near_full(st, status))
        return UINT64_MAX;
    /* With more than a segment left the oldest one surely fits, and gives as much back. */
    if (status->room_bytes >= st->conf.log.segment_bytes / 8 * 9)
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
    if (sp->may_note < st->conf.log.segment_bytes / 8 * 9 &&
        sp->may_note / 2 < each / 100 * (live * 100 / (status->log_bytes + 1)))
        return false;
    count = is_near_full(st, status) ? 1 : live / PASS_SHARE / each;
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

/* What was looked at and noted, as pieces of work of about the same time: to write a small task anew is one.
 */
static unsigned cost_of(unsigned looked, uint64_t noted_bytes)
{
    uint64_t cost = looked / LOOKS_PER_PIECE + noted_bytes / BYTES_PER_PIECE + 1;

    return cost < UINT32_MAX ? (unsigned)cost : UINT32_MAX;
}

/* One slice: no more than may be done in a turn, and no record that is much of a segment, but for a body that
 * is more alone. */
static void move_slice(struct store *st)
{
    struct store_space *sp = &st->space;
    unsigned budget = st->conf.move_budget;
    uint64_t slice = 0, most = st->conf.log.segment_bytes / 8;

    while (sp->moving && budget > 0 && slice < most && sp->noted < sp->may_note) {
        unsigned looks = budget / 8 + 1, left, cost;
        uint64_t bytes = 0;

        if (looks > LOOKS_MAX)
            looks = LOOKS_MAX;
        if (looks > (most - slice) / KIB + 1) /* a look notes no more than that, but for a large body */
            looks = (unsigned)((most - slice) / KIB) + 1;
        left = looks;

        if (broker_journal_move(st->broker, sp->pass_to, &sp->at, &left, &bytes))
            sp->moving = false;
        cost = cost_of(looks - left, bytes);
        budget -= cost < budget ? cost : budget;
        slice += bytes;
        sp->noted += bytes;
        sp->moved_bytes += bytes;
    }
    if (sp->noted >= sp->may_note)
        sp->moving = false; /* it goes on when there is room */
}

static void empty_old(struct store *st, const struct log_status *status)
{
    if (status->failed || log_is_busy(st->log))
        return; /* the disk is behind as it is */
    if (st->space.moving || begin_pass(st, status))
        move_slice(st);
}

/* ---- room ---- */

/* Room that is just being made is none that is missing. Once refused, until there is a little more than just
 * enough. */
static bool must_refuse(const struct store *st, const struct log_status *status)
{
    uint64_t least = st->conf.log.segment_bytes / (st->refuse ? 2 : 4);

    return status->no_space || st->room[0] < least || (st->refuse && status->room_bytes < st->held_bytes);
}

static void refuse_or_not(struct store *st, const struct log_status *status)
{
    bool refuse = must_refuse(st, status);

    if (refuse == st->refuse)
        return;
    st->refuse = refuse;
    st->host.refuse_new_work(st->host.ctx, refuse);
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t above(uint64_t bytes, uint64_t keep)
{
    return bytes > keep ? bytes - keep : 0;
}

/* What may come in until the next turn, so that nothing is accepted for which there will be no room: behind
 * it all would have to wait, even what makes room. In one piece it fits where room is allocated, or on a disk
 * that has it: of that, what others may take in the meantime is left, and what was taken since it was
 * asked, or will be for spare segments. What is done with tasks that are there (`reserve`) comes before
 * completions with large values, and these come before new work. */
static void count_room(struct store *st, const struct log_status *status, uint64_t *ret_new,
                       uint64_t *ret_completions)
{
    uint64_t keep = st->reserve_bytes, slack = SLACK_SEGMENTS * st->conf.log.segment_bytes;
    uint64_t disk = UINT64_MAX;
    uint64_t to_move = st->conf.log.segment_bytes / 2 * 3; /* what it takes to empty a segment */
    uint64_t completions =
        least_of(status->record_max, above(status->room_bytes, keep / 2 > to_move ? keep / 2 : to_move));
    uint64_t new_work =
        least_of(status->record_max, above(status->room_bytes, keep > to_move ? keep : to_move));

    if (status->free_bytes != st->free_bytes)
        st->free_since = status->disk_bytes;
    st->free_bytes = status->free_bytes;
    if (status->free_bytes != UINT64_MAX)
        disk = above(status->free_bytes, slack + above(status->disk_bytes, st->free_since) +
                                             above(keep + st->conf.log.segment_bytes, status->room_bytes));
    if (disk >= PLENTY_BYTES && !status->no_space)
        new_work = completions = UINT64_MAX;
    if (new_work < disk && !status->no_space)
        new_work = disk;
    if (completions < disk)
        completions = disk;
    *ret_new = new_work;
    *ret_completions = completions;
}

static void tell_room(struct store *st, uint64_t new_work, uint64_t completions)
{
    if (new_work == st->room[0] && completions == st->room[1] && new_work == UINT64_MAX)
        return;
    st->room[0] = new_work;
    st->room[1] = completions;
    st->host.set_room(st->host.ctx, new_work, completions);
}

/* This turn's record has taken some: never more than before, so nobody goes on by that. */
static void tell_less_room(struct store *st, const struct log_status *status)
{
    uint64_t new_work, completions;

    count_room(st, status, &new_work, &completions);
    tell_room(st, least_of(new_work, st->room[0]), least_of(completions, st->room[1]));
}

/* What this turn has taken by now is not counted, which the slack is for. */
void store_expect(struct store *st, uint64_t bytes)
{
    struct log_status status;
    uint64_t new_work, completions;

    if (st->log == NULL || st->failed || bytes < st->conf.log.segment_bytes / EXPECT_SHARE)
        return;
    log_look_at_disk(st->log);
    log_get_status(st->log, &status);
    count_room(st, &status, &new_work, &completions);
    tell_room(st, new_work, completions);
}

/* For what does not depend on how many tasks there are. */
static uint64_t fixed_reserve(const struct store *st)
{
    uint64_t fixed = st->conf.log.segment_bytes / 8;

    return fixed < RESERVE_MAX_BYTES ? fixed : RESERVE_MAX_BYTES;
}

static uint64_t reserve(const struct store *st)
{
    uint64_t by_task = broker_journal_live_tasks(st->broker) * RESERVE_PER_TASK;
    uint64_t half = broker_journal_live_bytes(st->broker) / 2;

    return fixed_reserve(st) + (by_task < half ? by_task : half); /* little ones end with few bytes */
}

/* As long as the disk has far more than all that may be needed, tasks' part of it is left there, and no spare
 * segments are held for it: the log looks again every 100 ms, and no disk gets full as quickly as that. */
static void tell_reserve(struct store *st)
{
    st->reserve_bytes = st->held_bytes = reserve(st);
    if (st->free_bytes != UINT64_MAX && st->free_bytes >= ROOMY_BYTES + 4 * st->reserve_bytes)
        st->held_bytes = fixed_reserve(st);
    log_set_reserve(st->log, st->held_bytes);
}

/* With little room left, whoever writes waits for what is just being made: each hand-out, too, takes some. */
static void hold_or_not(struct store *st, const struct log_status *status)
{
    const struct store_space *sp = &st->space;

    st->holds = st->is_near_full && (sp->moving || sp->released > status->first_segment) &&
                status->room_bytes < st->held_bytes + st->conf.log.segment_bytes / 2;
}

/* ---- a turn ---- */

bool store_space_has_work(const struct store *st)
{
    return st->space.moving && !log_is_busy(st->log);
}

void store_space_before(struct store *st, bool has_news, uint64_t now_ms)
{
    struct store_space *sp = &st->space;
    struct log_status status;
    uint64_t new_work, completions;

    if (has_news) {
        sp->is_fresh = true;
        sp->active_ms = now_ms;
    }
    /* The log looks after itself so long after the last record: then we come here, too. */
    sp->is_idle = now_ms >= sp->active_ms && now_ms - sp->active_ms >= st->conf.log.interval_ms;
    log_get_status(st->log, &status);
    count_room(st, &status, &new_work, &completions);
    tell_room(st, new_work, completions);
    refuse_or_not(st, &status);
    empty_old(st, &status);
    st->is_near_full = is_near_full(st, &status);
}

static void release(struct store *st)
{
    uint64_t oldest = broker_journal_oldest(st->broker), sessions = native_journal_oldest(st->native);

    if (sessions < oldest)
        oldest = sessions;
    if (st->home < oldest) /* the last record says which ids come next */
        oldest = st->home;
    if (oldest <= st->space.released)
        return;
    st->space.released = oldest;
    log_release(st->log, oldest);
}

void store_space_after(struct store *st)
{
    struct log_status status;

    tell_reserve(st);
    if (!st->owes) /* or something may have its only good copy where it was */
        release(st);
    st->holds = false;
    if (st->room[0] == UINT64_MAX && !st->is_near_full)
        return; /* far from that */
    log_get_status(st->log, &status);
    tell_less_room(st, &status);
    hold_or_not(st, &status);
}
