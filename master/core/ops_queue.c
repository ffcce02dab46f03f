#include "master/core/ops_queue.h"

#include "master/core/journal_ops.h"
#include "master/core/policy.h"
#include "master/core/queue.h"

/* ---- counters, in the order in which they are written ---- */

static const size_t queue_counters[] = {
    offsetof(struct broker_queue_stats, puts),    offsetof(struct broker_queue_stats, gets),
    offsetof(struct broker_queue_stats, done),    offsetof(struct broker_queue_stats, failed),
    offsetof(struct broker_queue_stats, retried), offsetof(struct broker_queue_stats, returned),
    offsetof(struct broker_queue_stats, expired), offsetof(struct broker_queue_stats, dead),
    offsetof(struct broker_queue_stats, dropped), offsetof(struct broker_queue_stats, stale),
};

/* Not `steps`: those are this process's own. */
static const size_t totals[] = {
    offsetof(struct broker_stats, puts),         offsetof(struct broker_stats, gets),
    offsetof(struct broker_stats, acked),        offsetof(struct broker_stats, failed),
    offsetof(struct broker_stats, retried),      offsetof(struct broker_stats, returned),
    offsetof(struct broker_stats, bounced),      offsetof(struct broker_stats, resumed),
    offsetof(struct broker_stats, stale),        offsetof(struct broker_stats, expired),
    offsetof(struct broker_stats, dead),         offsetof(struct broker_stats, dropped),
    offsetof(struct broker_stats, kept_dropped), offsetof(struct broker_stats, known),
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static uint8_t *put_counters(uint8_t *at, const void *stats, const size_t *offsets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t v;

        memcpy(&v, (const char *)stats + offsets[i], sizeof(v));
        at = ops_put(at, v);
    }
    return at;
}

static bool get_counters(struct tq_span *in, void *stats, const size_t *offsets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t v;

        if (!ops_get(in, &v))
            return false;
        memcpy((char *)stats + offsets[i], &v, sizeof(v));
    }
    return true;
}

/* ---- out ---- */

/* NULL is empty. */
static uint8_t *put_str(uint8_t *at, const char *s)
{
    struct tq_span text = tq_span_str(s != NULL ? s : "");

    at = ops_put(at, text.len);
    memcpy(at, text.data, text.len);
    return at + text.len;
}

uint8_t *ops_put_time(uint8_t *at, const struct ops_time *t)
{
    *at++ = OPS_TIME;
    at = ops_put(at, t->now_ms);
    at = ops_put(at, t->next_id);
    at = ops_put(at, t->next_place);
    return ops_put(at, t->next_queue_serial);
}

static uint8_t *put_conf(uint8_t *at, const struct broker_queue_conf *c)
{
    *at++ = (uint8_t)c->kind;
    *at++ = (uint8_t)c->ack;
    *at++ = (uint8_t)c->durability;
    at = ops_put(at, ops_zigzag(c->maxsize));
    *at++ = c->max_attempts;
    *at++ = c->max_deliveries;
    at = ops_put(at, c->lease_ms);
    at = ops_put(at, c->grace_ms);
    at = ops_put(at, c->retry_ms);
    at = ops_put(at, c->retry_max_ms);
    at = ops_put(at, c->ttl_ms);
    at = ops_put(at, c->retention_ms);
    at = ops_put(at, c->rate_per_s);
    at = ops_put(at, c->rate_burst);
    at = ops_put(at, c->concurrency);
    at = ops_put(at, c->expires_ms);
    at = put_str(at, c->result);
    return put_str(at, c->dead);
}

size_t ops_queue_bound(const struct broker_queue *q)
{
    (void)q;
    return 7 + 16 * (size_t)OPS_VARINT_MAX + 3 * (size_t)BROKER_QUEUE_NAME_MAX;
}

uint8_t *ops_put_queue(uint8_t *at, const struct broker_queue *q)
{
    unsigned flags = (q->shut_down ? OPS_QUEUE_SHUT_DOWN : 0u) | (q->removed ? OPS_QUEUE_REMOVED : 0u) |
                     (q->conf.factory_made ? OPS_QUEUE_FACTORY : 0u) |
                     (q->conf.paused ? OPS_QUEUE_PAUSED : 0u) |
                     (q->conf.reject_full ? OPS_QUEUE_REJECT_FULL : 0u);

    *at++ = OPS_QUEUE;
    at = ops_put(at, q->serial);
    at = put_str(at, q->name);
    *at++ = (uint8_t)flags;
    at = ops_put(at, q->purged_place);
    return put_conf(at, &q->conf);
}

uint8_t *ops_put_gone(uint8_t *at, uint32_t serial)
{
    *at++ = OPS_GONE;
    return ops_put(at, serial);
}

uint8_t *ops_put_counts(uint8_t *at, const struct broker_queue *q, uint64_t unfinished)
{
    _Static_assert(OPS_COUNTS_BOUND >= 1 + (2 + COUNT(queue_counters)) * OPS_VARINT_MAX, "room for all");
    *at++ = OPS_COUNTS;
    at = ops_put(at, q->serial);
    at = ops_put(at, unfinished);
    return put_counters(at, &q->stats, queue_counters, COUNT(queue_counters));
}

uint8_t *ops_put_totals(uint8_t *at, const struct broker_stats *s)
{
    _Static_assert(OPS_TOTALS_BOUND >= 1 + COUNT(totals) * OPS_VARINT_MAX, "room for all");
    *at++ = OPS_TOTALS;
    return put_counters(at, s, totals, COUNT(totals));
}

/* ---- in ---- */

static bool get_u32(struct tq_span *in, uint32_t *ret)
{
    uint64_t v;

    if (!ops_get_max(in, UINT32_MAX, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

bool ops_get_serial(struct tq_span *in, uint32_t *ret_serial)
{
    return get_u32(in, ret_serial) && *ret_serial != 0;
}

bool ops_get_time(struct tq_span *in, struct ops_time *ret)
{
    return ops_get(in, &ret->now_ms) && ops_get(in, &ret->next_id) && ops_get(in, &ret->next_place) &&
           ops_get_serial(in, &ret->next_queue_serial);
}

/* A queue's name, or nothing. */
static bool get_name(struct tq_span *in, char copy[BROKER_QUEUE_NAME_MAX + 1], const char **ret)
{
    struct tq_span name;

    if (!ops_get_text(in, BROKER_QUEUE_NAME_MAX, &name))
        return false;
    *ret = NULL;
    if (name.len == 0)
        return true;
    if (memchr(name.data, '\0', name.len) != NULL)
        return false;
    memcpy(copy, name.data, name.len);
    copy[name.len] = '\0';
    *ret = copy;
    return true;
}

static bool get_conf(struct tq_span *in, struct ops_queue *q)
{
    struct broker_queue_conf *c = &q->conf;
    uint8_t kind, ack, durability;
    uint64_t maxsize;

    if (!ops_get_u8(in, &kind) || !ops_get_u8(in, &ack) || !ops_get_u8(in, &durability) ||
        durability > BROKER_DURABILITY_MEMORY || !ops_get(in, &maxsize) ||
        !ops_get_u8(in, &c->max_attempts) || !ops_get_u8(in, &c->max_deliveries) ||
        !get_u32(in, &c->lease_ms) || !get_u32(in, &c->grace_ms) || !get_u32(in, &c->retry_ms) ||
        !get_u32(in, &c->retry_max_ms) || !ops_get(in, &c->ttl_ms) || !get_u32(in, &c->retention_ms) ||
        !get_u32(in, &c->rate_per_s) || !get_u32(in, &c->rate_burst) || !get_u32(in, &c->concurrency) ||
        !get_u32(in, &c->expires_ms) || !get_name(in, q->result, &c->result) ||
        !get_name(in, q->dead, &c->dead))
        return false;
    c->kind = (enum broker_kind)kind;
    c->ack = (enum broker_ack)ack;
    c->durability = (enum broker_durability)durability;
    c->maxsize = ops_unzigzag(maxsize);
    c->factory_made = (q->flags & OPS_QUEUE_FACTORY) != 0;
    c->paused = (q->flags & OPS_QUEUE_PAUSED) != 0;
    c->reject_full = (q->flags & OPS_QUEUE_REJECT_FULL) != 0;
    return true;
}

bool ops_get_queue(struct tq_span *in, struct ops_queue *ret)
{
    const unsigned all_flags = OPS_QUEUE_SHUT_DOWN | OPS_QUEUE_REMOVED | OPS_QUEUE_FACTORY |
                               OPS_QUEUE_PAUSED | OPS_QUEUE_REJECT_FULL;
    char name[BROKER_QUEUE_NAME_MAX + 1];

    *ret = (struct ops_queue){0};
    if (!ops_get_serial(in, &ret->serial) || !ops_get_text(in, BROKER_QUEUE_NAME_MAX, &ret->name) ||
        !broker_queue_name_is_good((const char *)ret->name.data, ret->name.len) ||
        !ops_get_u8(in, &ret->flags) || (ret->flags & ~all_flags) != 0 || !ops_get(in, &ret->purged_place) ||
        !get_conf(in, ret))
        return false;
    memcpy(name, ret->name.data, ret->name.len);
    name[ret->name.len] = '\0';
    return broker_conf_is_good(&ret->conf, name);
}

bool ops_get_counts(struct tq_span *in, struct ops_counts *ret)
{
    *ret = (struct ops_counts){0};
    return ops_get_serial(in, &ret->serial) && ops_get(in, &ret->unfinished) &&
           get_counters(in, &ret->stats, queue_counters, COUNT(queue_counters));
}

bool ops_get_totals(struct tq_span *in, struct broker_stats *ret)
{
    return get_counters(in, ret, totals, COUNT(totals));
}
