/* Policies of queues: who may be handed something now, and queues that nobody uses. */
#ifndef MASTER_CORE_POLICY_H
#define MASTER_CORE_POLICY_H

#include "master/core/broker.h"
#include "master/core/broker_impl.h"
#include "master/core/queue.h"

bool broker_queue_name_is_good(const char *name, size_t len);
/* Of a queue of that name. */
bool broker_conf_is_good(const struct broker_queue_conf *c, const char *name);

/* How many of `want` tasks the queue may hand out now: pause, concurrency, rate. When it is the rate that
 * says no (or not all), the queue's rate deadline is set, and it is marked when that comes due. Python's
 * ack=get leases count for concurrency until delivered. */
uint32_t broker_queue_limited_allowance(struct broker *b, struct broker_queue *q, uint32_t want);
static inline uint32_t broker_queue_allowance(struct broker *b, struct broker_queue *q, uint32_t want)
{
    const struct broker_queue_conf *c = &q->conf;

    return !c->paused && c->rate_per_s == 0 && c->concurrency == 0
               ? want
               : broker_queue_limited_allowance(b, q, want);
}
/* The same question for one task; nothing is set. */
bool broker_queue_may_hand_out(const struct broker *b, const struct broker_queue *q);
/* n tasks were handed out, as allowed in this step. */
static inline void broker_queue_spend(struct broker *b, struct broker_queue *q, uint32_t n)
{
    (void)b;
    if (q->conf.rate_per_s > 0)
        q->rate_millitokens -= (uint64_t)n * 1000; /* allowance has filled it up to now */
}
/* The queue is used: puts, hand-outs, parked calls, and when a parked call or a lease ends. Cheap. */
static inline void broker_queue_touch(struct broker *b, struct broker_queue *q)
{
    q->used_ms = b->now_ms;
}

/* At declare: the nodes of a queue with a rate or expires_ms get their place in the heap, and the bucket is
 * full. TQ_ENOMEM. */
int broker_queue_watch_idle(struct broker *b, struct broker_queue *q);
/* Before the queue is freed. */
void broker_queue_unwatch(struct broker *b, struct broker_queue *q);
/* Nodes NODE_RATE and NODE_IDLE came due. An unused queue (no waiters, no leases) is removed. */
void broker_rate_due(struct broker *b, struct broker_queue *q);
void broker_idle_due(struct broker *b, struct broker_queue *q);

#endif
