/* Which segments and spares there are, and where the next record goes: decided here, on the loop's side,
 * ahead of the disk. Jobs are carried out in the order in which they were decided, so what an earlier one was
 * told to do may be counted upon. */
#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/log/log_impl.h"

static int reserve(void **list, size_t *cap, size_t count, size_t size)
{
    void *p;
    size_t more = *cap < 8 ? 8 : *cap * 2;

    if (count < *cap)
        return TQ_OK;
    p = tq_realloc(*list, more * size);
    if (p == NULL)
        return TQ_ENOMEM;
    *list = p;
    *cap = more;
    return TQ_OK;
}

int log_segments_reserve(struct log *l)
{
    int rv = reserve((void **)&l->segments, &l->segment_cap, l->segment_count, sizeof(*l->segments));

    if (rv == TQ_OK)
        rv = reserve((void **)&l->spares, &l->spare_cap, l->spare_count, sizeof(*l->spares));
    return rv;
}

int log_group_reserve(struct log_group *g)
{
    return reserve((void **)&g->pieces, &g->piece_cap, g->piece_count, sizeof(*g->pieces));
}

/* ---- where a record goes ---- */

static uint64_t bytes_for(const struct log *l, uint64_t record_bytes)
{
    uint64_t need = (LOG_SEGMENT_HEADER_BYTES + record_bytes + LOG_FILE_UNIT - 1) & ~(LOG_FILE_UNIT - 1ull);

    return need > l->conf.segment_bytes ? need : l->conf.segment_bytes;
}

/* The next number becomes a segment, and the one behind it the first of the spares: there always is one. */
static struct log_segment *begin_segment(struct log *l, uint64_t bytes)
{
    struct log_segment *s = &l->segments[l->segment_count];

    TQ_ASSERT(l->spare_count > 0);
    if (l->spares[0] > bytes) /* it was made for a larger one */
        bytes = l->spares[0];
    l->asked_bytes = 0;
    *s = (struct log_segment){.number = log_last_segment(l)->number + 1,
                              .first_index = l->next_index,
                              .bytes = bytes,
                              .end = LOG_SEGMENT_HEADER_BYTES};
    l->segment_count++;
    l->seed = log_seed(l->conf.uuid, s->number);
    l->spare_count--;
    memmove(l->spares, l->spares + 1, l->spare_count * sizeof(*l->spares));
    if (l->spare_count == 0)
        l->spares[l->spare_count++] = 0;
    return s;
}

int log_place(struct log *l, uint64_t record_bytes, struct log_piece **ret)
{
    struct log_segment *s = log_last_segment(l);
    struct log_group *g = &l->fill;
    bool is_new = s->bytes - s->end < record_bytes;
    struct log_piece *p;
    int rv;

    if (!is_new && g->piece_count > 0) {
        *ret = &g->pieces[g->piece_count - 1]; /* the last one is always of the last segment */
        return TQ_OK;
    }
    rv = log_group_reserve(g);
    if (rv == TQ_OK && is_new)
        rv = log_segments_reserve(l);
    if (rv != TQ_OK)
        return rv;
    if (is_new)
        s = begin_segment(l, bytes_for(l, record_bytes));
    p = &g->pieces[g->piece_count++];
    *p = (struct log_piece){.begin = l->begun_at, .end = l->begun_at, .offset = s->end, .begins = is_new};
    if (is_new) {
        p->next_is_named = l->named > s->number;
        p->header = (struct log_segment_header){.number = s->number,
                                                .first_index = s->first_index,
                                                .first_term = l->term,
                                                .bytes = s->bytes,
                                                .created_ms = l->now_ms};
        memcpy(p->header.uuid, l->conf.uuid, LOG_UUID_BYTES);
        if (l->named <= s->number)
            l->named = s->number + 1; /* this piece sees to it, before any that comes later */
    }
    *ret = p;
    return TQ_OK;
}

uint64_t log_segment(const struct log *l)
{
    return log_last_segment(l)->number;
}

/* ---- spares ---- */

/* What the first one is to have: a record that was asked for has to fit. */
static uint64_t first_spare_bytes(const struct log *l)
{
    return l->asked_bytes > 0 ? bytes_for(l, l->asked_bytes) : l->conf.segment_bytes;
}

/* From the first on, without a gap. */
static size_t spares_filled(const struct log *l)
{
    size_t n = 0;

    while (n < l->spare_count && l->spares[n] >= (n == 0 ? first_spare_bytes(l) : l->conf.segment_bytes))
        n++;
    return n;
}

static size_t spares_for(const struct log *l, uint64_t bytes)
{
    uint64_t each = (l->conf.segment_bytes - LOG_SEGMENT_HEADER_BYTES) / 8 * 7;

    return (size_t)(bytes / each + (bytes % each != 0));
}

/* So many hold the reserve, and a group that comes before anybody can say that there is no room. */
static size_t spares_most(const struct log *l)
{
    return spares_for(l, l->reserve_bytes + l->conf.group_bytes);
}

/* A group that fits the rest of the segment leaves something there; one that does not leaves nothing. */
static size_t spares_wanted(const struct log *l)
{
    const struct log_segment *s = log_last_segment(l);
    uint64_t rest = s->bytes - s->end, reserve = l->reserve_bytes;
    size_t wanted;

    if (rest < l->conf.group_bytes)
        return spares_most(l);
    rest = (rest - l->conf.group_bytes) / 8 * 7;
    wanted = spares_for(l, reserve > rest ? reserve - rest : 0);
    return wanted == 0 && l->asked_bytes > 0 ? 1 : wanted;
}

/* As many names are kept: the one behind the next, too, so that a switch does not have to wait for it. */
static size_t spares_kept(const struct log *l)
{
    size_t most = spares_most(l);

    return most < 2 ? 2 : most;
}

bool log_wants_room(const struct log *l)
{
    return spares_filled(l) < spares_wanted(l);
}

static void look_at_room(struct log *l)
{
    if (!log_wants_room(l))
        l->short_of_room = false;
}

void log_set_reserve(struct log *l, uint64_t bytes)
{
    l->reserve_bytes = bytes < LOG_RESERVE_MAX ? bytes : LOG_RESERVE_MAX;
    look_at_room(l);
}

void log_ask_room(struct log *l, uint64_t payload_bytes)
{
    if (payload_bytes > LOG_PAYLOAD_MAX)
        payload_bytes = LOG_PAYLOAD_MAX;
    l->asked_bytes = payload_bytes > 0 ? log_record_bytes((uint32_t)payload_bytes) : 0;
    if (!l->stuck)
        l->try_ms = LOG_NEVER; /* at once */
    look_at_room(l);
}

uint64_t log_record_max(const struct log *l)
{
    const struct log_segment *s = log_last_segment(l);
    uint64_t room = s->bytes - s->end;

    if (l->spare_count > 0 && l->spares[0] > LOG_SEGMENT_HEADER_BYTES &&
        l->spares[0] - LOG_SEGMENT_HEADER_BYTES > room)
        room = l->spares[0] - LOG_SEGMENT_HEADER_BYTES;
    return room > LOG_RECORD_HEADER_BYTES ? (room - LOG_RECORD_HEADER_BYTES) & ~7ull : 0;
}

static uint64_t spare_number(const struct log *l, size_t at)
{
    return log_last_segment(l)->number + 1 + at;
}

/* ---- chores ---- */

static void plan(struct log *l, enum log_chore_kind kind, uint64_t number, uint64_t to, uint64_t bytes)
{
    l->job.chores[l->job.chore_count++] =
        (struct log_chore){.kind = kind, .number = number, .to = to, .bytes = bytes};
}

/* What a freed segment becomes: a spare, if one is missing; but while a group waits for room, room. */
static void plan_freed(struct log *l)
{
    size_t filled = spares_filled(l), wanted = spares_most(l);

    for (size_t i = 0; i < l->freed_count && l->job.chore_count < LOG_CHORES_MAX; i++) {
        const struct log_freed *f = &l->freed[i];

        if (!l->stuck && f->bytes == l->conf.segment_bytes && filled < wanted &&
            log_segments_reserve(l) == TQ_OK) {
            if (filled == l->spare_count)
                l->spares[l->spare_count++] = 0;
            plan(l, LOG_CHORE_RECYCLE, f->number, spare_number(l, filled++), f->bytes);
        } else {
            plan(l, LOG_CHORE_DROP_SEGMENT, f->number, 0, 0);
        }
    }
}

static void plan_spares(struct log *l)
{
    size_t filled = spares_filled(l), wanted = spares_wanted(l);

    if (l->try_ms != LOG_NEVER && l->now_ms < l->try_ms)
        return;
    if (filled < wanted && log_segments_reserve(l) == TQ_OK) {
        if (filled == l->spare_count)
            l->spares[l->spare_count++] = 0;
        plan(l, LOG_CHORE_FILL_SPARE, spare_number(l, filled), 0,
             filled == 0 ? first_spare_bytes(l) : l->conf.segment_bytes);
    } else if (l->named < log_last_segment(l)->number + 2 && log_segments_reserve(l) == TQ_OK) {
        if (l->spare_count < 2)
            l->spares[l->spare_count++] = 0;
        plan(l, LOG_CHORE_NAME_SPARE, spare_number(l, 1), 0, 0);
    }
}

/* One that is there for its name only has its room taken away by being made anew, when there is time for it.
 */
static bool has_spare_too_many(const struct log *l)
{
    size_t n = l->spare_count;

    return n > spares_kept(l) ||
           (n > 1 && n > spares_most(l) && l->spares[n - 1] > 0 && l->fill.records == 0);
}

void log_plan_chores(struct log *l)
{
    TQ_ASSERT(!l->running);
    l->job.chore_count = 0;
    if (l->closed)
        return;
    plan_freed(l);
    if (l->stuck)
        return;
    while (has_spare_too_many(l) && l->job.chore_count < LOG_CHORES_MAX) {
        uint64_t number = spare_number(l, --l->spare_count);

        if (number <= l->named) {
            plan(l, LOG_CHORE_DROP_SPARE, number, 0, 0);
            l->named = number - 1;
        }
    }
    if (l->job.chore_count == 0)
        plan_spares(l);
}

static void forget_freed(struct log *l, uint64_t number)
{
    for (size_t i = 0; i < l->freed_count; i++)
        if (l->freed[i].number == number) {
            l->freed_count--;
            memmove(l->freed + i, l->freed + i + 1, (l->freed_count - i) * sizeof(*l->freed));
            return;
        }
}

/* The spare of this number has a name now and so many bytes; it may have been given away meanwhile. */
static void spare_is(struct log *l, uint64_t number, uint64_t bytes)
{
    uint64_t first = spare_number(l, 0);

    if (number == l->named + 1)
        l->named = number;
    if (number >= first && number - first < l->spare_count && l->spares[number - first] < bytes)
        l->spares[number - first] = bytes;
}

void log_spares_emptied(struct log *l, uint64_t from)
{
    for (size_t i = 0; from > 0 && i < l->spare_count; i++)
        if (spare_number(l, i) >= from)
            l->spares[i] = 0;
}

void log_chores_done(struct log *l)
{
    struct log_job *job = &l->job;

    for (unsigned i = 0; i < job->chores_done; i++) {
        const struct log_chore *c = &job->chores[i];

        switch (c->kind) {
        case LOG_CHORE_RECYCLE:
            forget_freed(l, c->number);
            spare_is(l, c->to, c->bytes);
            break;
        case LOG_CHORE_DROP_SEGMENT:
            forget_freed(l, c->number);
            break;
        case LOG_CHORE_DROP_SPARE:
            break;
        case LOG_CHORE_NAME_SPARE:
            spare_is(l, c->number, 0);
            break;
        case LOG_CHORE_FILL_SPARE:
            spare_is(l, c->number, c->bytes);
            break;
        }
        if (c->kind != LOG_CHORE_NAME_SPARE && l->try_ms != LOG_NEVER)
            l->try_ms = 0; /* there may be room now */
    }
    if (job->chore_rv != TQ_OK) {
        l->wait_rv = job->chore_rv;
        l->short_of_room = true;
        l->try_ms = log_after(l->now_ms, LOG_RETRY_MS);
    } else if (!log_wants_room(l)) {
        l->short_of_room = false;
    }
    if (!l->short_of_room && !l->stuck)
        l->try_ms = LOG_NEVER;
    job->chore_count = job->chores_done = 0;
    job->chore_rv = TQ_OK;
}

/* ---- giving back ---- */

void log_release(struct log *l, uint64_t segment)
{
    uint64_t last = log_last_segment(l)->number;

    if (segment > last)
        segment = last;
    if (segment > l->release_to)
        l->release_to = segment;
}

void log_pin(struct log *l, struct log_pin *ret)
{
    TQ_ASSERT(!l->pinned);
    l->pinned = true;
    *ret = (struct log_pin){.first_segment = l->segments[0].number, .last_index = l->written};
}

void log_unpin(struct log *l)
{
    l->pinned = false;
}

void log_segments_free(struct log *l)
{
    size_t n = 0;

    if (l->pinned)
        return; /* some time later */
    while (n < l->segment_count && l->segments[n].number < l->start) {
        if (reserve((void **)&l->freed, &l->freed_cap, l->freed_count, sizeof(*l->freed)) != TQ_OK)
            break; /* the next time */
        l->freed[l->freed_count++] =
            (struct log_freed){.number = l->segments[n].number, .bytes = l->segments[n].bytes};
        n++;
    }
    l->segment_count -= n;
    memmove(l->segments, l->segments + n, l->segment_count * sizeof(*l->segments));
}
