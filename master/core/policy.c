#include "master/core/policy.h"

#include "common/assert.h"
#include "common/err.h"
#include "master/core/journal_impl.h"
#include "master/core/timer.h"

#define MILLI 1000u

void broker_queue_conf_init(struct broker_queue_conf *c)
{
    *c = (struct broker_queue_conf){
        .durability = BROKER_DURABILITY_FSYNC,
        .max_attempts = 1,
        .grace_ms = 30000,
        .retry_ms = 1000,
        .retry_max_ms = 600000,
        .retention_ms = BROKER_RETENTION_AUTO,
    };
}

bool broker_queue_name_is_good(const char *name, size_t len)
{
    static const char marks[] = "._-";

    if (len == 0 || len > BROKER_QUEUE_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            memchr(marks, c, sizeof(marks) - 1) == NULL)
            return false;
    }
    return true;
}

static bool is_good_name(const char *name)
{
    return name == NULL || broker_queue_name_is_good(name, strnlen(name, BROKER_QUEUE_NAME_MAX + 1));
}

bool broker_conf_is_good(const struct broker_queue_conf *c, const char *name)
{
    if (c->kind != BROKER_FIFO && c->kind != BROKER_LIFO && c->kind != BROKER_PRIORITY)
        return false;
    if (c->ack != BROKER_ACK_AUTO && c->ack != BROKER_ACK_EXPLICIT && c->ack != BROKER_ACK_GET)
        return false;
    if (c->durability != BROKER_DURABILITY_FSYNC && c->durability != BROKER_DURABILITY_INTERVAL &&
        c->durability != BROKER_DURABILITY_MEMORY)
        return false;
    return c->max_attempts <= BROKER_ATTEMPTS_MAX && c->max_deliveries <= BROKER_ATTEMPTS_MAX &&
           is_good_name(c->result) && is_good_name(c->dead) &&
           (c->dead == NULL || strcmp(c->dead, name) != 0);
}

/* The bucket holds thousandths of tokens: rate_per_s of them come in each millisecond, so nothing is ever
 * rounded. It holds at least what comes in one millisecond: finer than that nobody can wait. */
static uint64_t full_bucket(const struct broker_queue_conf *c)
{
    uint64_t burst = c->rate_burst > 0 ? c->rate_burst : c->rate_per_s;
    uint64_t least = ((uint64_t)c->rate_per_s + MILLI - 1) / MILLI;

    return (burst > least ? burst : least) * MILLI;
}

/* Whoever waits for a token is woken in the first millisecond that has it: what came in too much by then is
 * not lost, or the rate would drift. It is less than a token. */
static uint64_t bucket_size(const struct broker_queue_conf *c)
{
    return full_bucket(c) + (c->rate_per_s < MILLI ? c->rate_per_s : MILLI) - 1;
}

static uint64_t millitokens_now(const struct broker *b, const struct broker_queue *q)
{
    uint64_t size = bucket_size(&q->conf), elapsed_ms = b->now_ms - q->rate_at_ms;
    uint64_t missing;

    if (q->rate_millitokens >= size)
        return size;
    missing = size - q->rate_millitokens;
    return elapsed_ms > missing / q->conf.rate_per_s ? size
                                                     : q->rate_millitokens + elapsed_ms * q->conf.rate_per_s;
}

static void fill_bucket(struct broker *b, struct broker_queue *q)
{
    if (q->conf.rate_per_s > 0)
        q->rate_millitokens = millitokens_now(b, q);
    q->rate_at_ms = b->now_ms;
}

static uint32_t concurrency_allowance(const struct broker_queue *q, uint32_t want)
{
    uint32_t limit = q->conf.concurrency;

    if (q->conf.paused)
        return 0;
    if (limit == 0 || q->leased + want <= limit)
        return want;
    return q->leased < limit ? limit - (uint32_t)q->leased : 0;
}

bool broker_queue_may_hand_out(const struct broker *b, const struct broker_queue *q)
{
    return concurrency_allowance(q, 1) == 1 && (q->conf.rate_per_s == 0 || millitokens_now(b, q) >= MILLI);
}

static void move_node(struct broker *b, struct tq_deadline *d, uint64_t at_ms)
{
    int rv;

    if (d->at_ms == at_ms)
        return;
    rv = tq_deadline_set(b->deadlines, d, at_ms);
    TQ_ASSERT(rv == TQ_OK); /* it has its place */
}

uint32_t broker_queue_limited_allowance(struct broker *b, struct broker_queue *q, uint32_t want)
{
    uint32_t n = concurrency_allowance(q, want);
    uint32_t rate = q->conf.rate_per_s;
    uint64_t rest;

    if (n == 0 || rate == 0)
        return n;
    fill_bucket(b, q);
    if (q->rate_millitokens / MILLI >= n)
        return n;
    n = (uint32_t)(q->rate_millitokens / MILLI);
    rest = MILLI - q->rate_millitokens % MILLI; /* what the next token lacks once those are spent */
    move_node(b, &q->rate_deadline, broker_after(b->now_ms, (rest + rate - 1) / rate));
    return n;
}

void broker_rate_due(struct broker *b, struct broker_queue *q)
{
    if (q->getters != NULL)
        broker_queue_mark(b, q);
}

/* A node gets its place, at never. TQ_ENOMEM. */
static int place_node(struct broker *b, struct tq_deadline *d, enum broker_node kind)
{
    if (tq_deadline_is_set(d))
        return TQ_OK;
    d->kind = broker_node_kind(kind);
    return tq_deadline_set(b->deadlines, d, BROKER_NEVER);
}

static int place_nodes(struct broker *b, struct broker_queue *q, const struct broker_queue_conf *c)
{
    int rv = TQ_OK;

    if (c->rate_per_s > 0)
        rv = place_node(b, &q->rate_deadline, NODE_RATE);
    if (rv == TQ_OK && c->expires_ms > 0)
        rv = place_node(b, &q->idle_deadline, NODE_IDLE);
    return rv;
}

int broker_queue_watch_idle(struct broker *b, struct broker_queue *q)
{
    int rv = place_nodes(b, q, &q->conf);

    if (rv != TQ_OK) {
        broker_queue_unwatch(b, q);
        return rv;
    }
    q->rate_at_ms = b->now_ms;
    q->rate_millitokens = full_bucket(&q->conf);
    /* The last step may be long ago; what time it is now, the next one tells. */
    q->used_ms = BROKER_NEVER;
    if (q->conf.expires_ms > 0)
        move_node(b, &q->idle_deadline, b->now_ms);
    return TQ_OK;
}

void broker_queue_unwatch(struct broker *b, struct broker_queue *q)
{
    tq_deadline_clear(b->deadlines, &q->rate_deadline);
    tq_deadline_clear(b->deadlines, &q->idle_deadline);
}

static bool is_in_use(const struct broker_queue *q)
{
    return q->getters != NULL || q->putters != NULL || q->joiners != NULL || q->leased > 0;
}

void broker_idle_due(struct broker *b, struct broker_queue *q)
{
    uint64_t at_ms;

    if (q->removed)
        return; /* it goes with its last lease */
    if (q->used_ms == BROKER_NEVER || is_in_use(q))
        broker_queue_touch(b, q);
    at_ms = broker_after(q->used_ms, q->conf.expires_ms);
    if (at_ms > b->now_ms) {
        move_node(b, &q->idle_deadline, at_ms);
        return;
    }
    if (b->on_queue_gone != NULL)
        b->on_queue_gone(b->on_queue_gone_ctx, q);
    broker_queue_detach(b, q);
}

int broker_reconfigure(struct broker *b, uint64_t now_ms, struct broker_queue *q,
                       const struct broker_queue_conf *conf, struct broker_effects *out)
{
    struct broker_queue_conf next = *conf;
    bool had_rate = q->conf.rate_per_s > 0;
    int rv;

    TQ_ASSERT(now_ms >= b->now_ms && !q->removed);
    next.factory_made = q->conf.factory_made;
    if (!broker_conf_is_good(&next, q->name) || next.kind != q->conf.kind || next.ack != q->conf.ack)
        return TQ_EINVAL;
    rv = place_nodes(b, q, &next);
    if (rv != TQ_OK)
        return rv; /* a node more at never does no harm */
    b->now_ms = now_ms;
    fill_bucket(b, q); /* at the old rate */
    rv = broker_queue_set_conf(q, &next);
    if (rv != TQ_OK)
        return rv;
    if (!had_rate)
        q->rate_millitokens = full_bucket(&q->conf);
    if (q->conf.rate_per_s == 0)
        tq_deadline_clear(b->deadlines, &q->rate_deadline);
    broker_queue_touch(b, q);
    if (q->conf.expires_ms > 0)
        move_node(b, &q->idle_deadline, broker_after(now_ms, q->conf.expires_ms));
    else
        tq_deadline_clear(b->deadlines, &q->idle_deadline);
    journal_note_queue(b, q, JOURNAL_SYNCED);
    broker_queue_mark(b, q); /* a new deadline for the next token comes with that, too */
    broker_finish_step(b, out);
    return TQ_OK;
}
