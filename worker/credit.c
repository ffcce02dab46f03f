#include "worker/credit.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"

#define END_BYTES 64 /* of a result beside its value */

void credit_init(struct credit *c, uint32_t slots)
{
    *c = (struct credit){.slots = slots, .max_batch = 1, .max_gets = 1, .most_ends = CREDIT_FRAME_ENDS};
}

void credit_deinit(struct credit *c)
{
    TQ_ASSERT(c->by_lease == NULL && c->busy == 0);
}

/* ---- lists ---- */

static struct credit_hand **list_of(struct credit *c, const struct credit_hand *h)
{
    TQ_ASSERT(h->state == CREDIT_RUNNING || h->state == CREDIT_FINISHED);
    return h->state == CREDIT_RUNNING ? &c->running : &c->finished;
}

/* Out of the call, or of the connection, that it was sent on. */
static void unlist_sent(struct credit *c, struct credit_hand *h)
{
    struct credit_hand *other;

    for (size_t i = 0; i < CREDIT_CALLS; i++) {
        struct credit_call *call = &c->calls[i];

        DL_FOREACH(call->sent, other)
        {
            if (other != h)
                continue;
            DL_DELETE(call->sent, h);
            call->sent_count--;
            return;
        }
    }
    DL_DELETE(c->unsure, h);
}

static void unlist(struct credit *c, struct credit_hand *h)
{
    if (h->state == CREDIT_SENT) {
        unlist_sent(c, h);
        return;
    }
    c->finished_count -= h->state == CREDIT_FINISHED;
    DL_DELETE(*list_of(c, h), h);
}

void credit_leave(struct credit *c, struct credit_hand *h)
{
    unlist(c, h);
    HASH_DEL(c->by_lease, h);
    h->state = CREDIT_LEFT;
}

struct credit_hand *credit_find(struct credit *c, const struct tq_native_lease *lease)
{
    struct credit_hand *h;

    HASH_FIND(hh, c->by_lease, lease, sizeof(*lease), h);
    return h;
}

/* ---- the connection ---- */

void credit_open(struct credit *c, uint32_t max_batch, uint32_t max_calls)
{
    c->max_batch = max_batch;
    c->max_gets = max_calls < CREDIT_GETS ? max_calls : CREDIT_GETS;
    c->most_ends = CREDIT_FRAME_ENDS;
}

static void end_call(struct credit *c, struct credit_call *call)
{
    TQ_ASSERT(call->used && call->sent == NULL && c->covered >= call->credit);
    c->covered -= call->credit;
    *call = (struct credit_call){0};
}

void credit_cut(struct credit *c, uint64_t *ret_credit)
{
    *ret_credit = c->covered;
    for (size_t i = 0; i < CREDIT_CALLS; i++) {
        struct credit_call *call = &c->calls[i];

        if (!call->used)
            continue;
        DL_CONCAT(c->unsure, call->sent);
        call->sent = NULL;
        end_call(c, call);
    }
}

uint32_t credit_unsure(const struct credit *c)
{
    const struct credit_hand *h;
    uint32_t n = 0;

    DL_COUNT(c->unsure, h, n);
    return n;
}

void credit_leases(const struct credit *c, struct tq_native_lease *leases)
{
    const struct credit_hand *h;
    size_t n = 0;

    for (h = c->by_lease; h != NULL; h = h->hh.next)
        leases[n++] = h->lease;
}

bool credit_confirm(struct credit *c, const struct tq_native_lease *lease)
{
    struct credit_hand *h = credit_find(c, lease);

    if (h != NULL)
        h->confirmed = true;
    return h != NULL;
}

struct credit_hand *credit_unconfirmed(struct credit *c, enum credit_state *ret_was)
{
    struct credit_hand *h;

    for (h = c->by_lease; h != NULL && h->confirmed; h = h->hh.next)
        ;
    if (h != NULL) {
        *ret_was = h->state;
        credit_leave(c, h);
        return h;
    }
    for (h = c->by_lease; h != NULL; h = h->hh.next)
        h->confirmed = false;
    while ((h = c->unsure) != NULL) {
        DL_DELETE(c->unsure, h);
        h->state = CREDIT_FINISHED;
        DL_APPEND(c->finished, h);
        c->finished_count++;
    }
    return NULL;
}

/* ---- tasks ---- */

int credit_add(struct credit *c, struct credit_hand *h)
{
    if (credit_find(c, &h->lease) != NULL)
        return 1;
    HASH_ADD(hh, c->by_lease, lease, sizeof(h->lease), h);
    if (h->hh.tbl == NULL)
        return TQ_ENOMEM;
    h->state = CREDIT_RUNNING;
    h->confirmed = false;
    DL_APPEND(c->running, h);
    c->busy++;
    return TQ_OK;
}

void credit_job_ended(struct credit *c)
{
    TQ_ASSERT(c->busy > 0);
    c->busy--;
}

void credit_finish(struct credit *c, struct credit_hand *h)
{
    TQ_ASSERT(h->state == CREDIT_RUNNING);
    DL_DELETE(c->running, h);
    h->state = CREDIT_FINISHED;
    DL_APPEND(c->finished, h);
    c->finished_count++;
}

/* ---- requests ---- */

static struct credit_call *free_call(struct credit *c)
{
    for (size_t i = 0; i < CREDIT_CALLS; i++)
        if (!c->calls[i].used)
            return &c->calls[i];
    return NULL;
}

static uint32_t gets_out(const struct credit *c)
{
    uint32_t n = 0;

    for (size_t i = 0; i < CREDIT_CALLS; i++)
        n += c->calls[i].used && c->calls[i].credit > 0;
    return n;
}

/* Free slots that no get covers, as far as tasks are wanted for them. */
static uint32_t missing(const struct credit *c, uint64_t allowed)
{
    uint32_t used = c->busy + c->covered;
    uint32_t held = credit_in_hand(c) + c->covered;
    uint32_t n = used < c->slots ? c->slots - used : 0;

    if (held >= CREDIT_HANDS(c->slots))
        return 0;
    if (n > CREDIT_HANDS(c->slots) - held)
        n = CREDIT_HANDS(c->slots) - held;
    if (n > c->max_batch)
        n = c->max_batch;
    return n < allowed ? n : (uint32_t)allowed;
}

static void take_finished(struct credit *c, struct credit_call *call)
{
    uint32_t most = c->most_ends < c->max_batch ? c->most_ends : c->max_batch;
    size_t bytes = 0;
    struct credit_hand *h;

    while ((h = c->finished) != NULL && call->sent_count < most) {
        bytes += h->bytes + END_BYTES;
        if (call->sent_count > 0 && bytes > CREDIT_FRAME_BYTES)
            break;
        DL_DELETE(c->finished, h);
        c->finished_count--;
        h->state = CREDIT_SENT;
        DL_APPEND(call->sent, h);
        call->sent_count++;
    }
}

/* The get to cancel; NULL: none, or one is being canceled, or none could be larger. All of them when `all`,
 * one after the other. */
static struct credit_call *get_to_cancel(struct credit *c, bool all)
{
    struct credit_call *smallest = NULL;

    for (size_t i = 0; i < CREDIT_CALLS; i++) {
        struct credit_call *call = &c->calls[i];

        if (!call->used || call->credit == 0)
            continue;
        if (call->canceled && !all)
            return NULL;
        if (!call->canceled && (smallest == NULL || call->credit < smallest->credit))
            smallest = call;
    }
    return all || (smallest != NULL && smallest->credit < c->max_batch) ? smallest : NULL;
}

static struct credit_step cancel(struct credit_call *call)
{
    if (call == NULL)
        return (struct credit_step){.kind = CREDIT_NOTHING};
    call->canceled = true;
    return (struct credit_step){.kind = CREDIT_CANCEL, .call = call};
}

struct credit_step credit_next(struct credit *c, uint64_t allowed, bool stop)
{
    uint32_t ask = stop ? 0 : missing(c, allowed);
    bool room = gets_out(c) < c->max_gets;
    struct credit_call *call = free_call(c);

    if (call != NULL && (c->finished != NULL || (ask > 0 && room))) {
        *call = (struct credit_call){.used = true, .msgid = ++c->msgid};
        take_finished(c, call);
        /* The get rides on the last of the frames. */
        if (c->finished == NULL && room) {
            call->credit = ask;
            c->covered += ask;
        }
        return (struct credit_step){.kind = call->sent != NULL ? CREDIT_DONE : CREDIT_GET, .call = call};
    }
    if (stop)
        return cancel(get_to_cancel(c, true));
    return cancel(ask > 0 && !room ? get_to_cancel(c, false) : NULL);
}

struct credit_call *credit_call_of(struct credit *c, uint32_t msgid)
{
    for (size_t i = 0; i < CREDIT_CALLS; i++)
        if (c->calls[i].used && c->calls[i].msgid == msgid)
            return &c->calls[i];
    return NULL;
}

struct credit_hand *credit_sent(const struct credit_call *call, uint64_t id)
{
    struct credit_hand *h;

    DL_FOREACH(call->sent, h)
    if (h->lease.id == id)
        return h;
    return NULL;
}

void credit_again(struct credit *c, struct credit_call *call, struct credit_hand *h)
{
    DL_DELETE(call->sent, h);
    call->sent_count--;
    h->state = CREDIT_FINISHED;
    DL_APPEND(c->finished, h);
    c->finished_count++;
}

struct credit_hand *credit_settled(struct credit *c, struct credit_call *call)
{
    struct credit_hand *h = call->sent;

    if (h == NULL) {
        end_call(c, call);
        return NULL;
    }
    DL_DELETE(call->sent, h);
    call->sent_count--;
    HASH_DEL(c->by_lease, h);
    h->state = CREDIT_LEFT;
    return h;
}

void credit_call_failed(struct credit *c, struct credit_call *call)
{
    struct credit_hand *h;

    if (call->sent_count > 1)
        c->most_ends = 1;
    DL_FOREACH(call->sent, h)
    h->state = CREDIT_FINISHED;
    c->finished_count += call->sent_count;
    if (call->sent != NULL) {
        DL_CONCAT(call->sent, c->finished);
        c->finished = call->sent;
        call->sent = NULL;
    }
    end_call(c, call);
}
