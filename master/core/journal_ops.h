/* What a LOG_OPS record is made of: changes of the broker's state, one after another, each whole in itself.
 * A record is one turn of the loop, and is applied whole. Version 1.
 *
 * Numbers are varints (7 bits a byte, the lowest first, the highest bit says that more follows, at most 10
 * bytes, no longer than needed); signed ones are zigzag. Texts are a varint length and the bytes. Times are
 * ms of unix time. Queues and sessions are named by serials, which are never used again.
 *
 *   u8 op, then:
 *   TIME     now_ms, next_id, next_place, next_queue_serial: first in each record, and once
 *   TASK     what a task is now, see below
 *   END      id: it has gone, with no trace
 *   QUEUE    what a queue is now: serial, text name, u8 flags (enum ops_queue_flag), purged_place; then its
 *            policies (struct broker_queue_conf): u8 kind, u8 ack, u8 durability, zigzag maxsize,
 *            u8 max_attempts, u8 max_deliveries, lease_ms, grace_ms, retry_ms, retry_max_ms, ttl_ms,
 *            retention_ms, rate_per_s, rate_burst, concurrency, expires_ms, texts result and dead (empty for
 *            NULL)
 *   GONE     serial: the queue has gone; its tasks have ended or moved before, or do so in this record
 *   COUNTS   serial, unfinished, then the counters of struct broker_queue_stats that only grow, in its order:
 *            those of the queue, as they are now
 *   TOTALS   the counters of struct broker_stats that only grow, in its order, but for `steps`
 *   from OPS_HOST on: text: not the broker's: whoever keeps something else in the log (sessions: native.h)
 *
 * TASK: id, queue serial (KEPT: 0), u8 mask, u8 state (enum broker_task_state: READY, DELAYED, LEASED or
 * KEPT), u8 flags (RESULT, DEAD, NO_VALUE of enum broker_task_flag), attempts, epoch, zigzag place; then if
 * `mask` says so, in this order:
 *   OPS_FULL     put_ms. All that is known of the task is in this op, and it may be new. Without it the task
 *                is known already, and what is not said stays as it was (an id that is not known then was
 *                moved forward in the log or ended later on: the op is passed over)
 *   OPS_EXTRA    struct broker_extra, see ops_extra.h. With FULL and without EXTRA it has none
 *   OPS_PAYLOAD  u8 format, [item_off, item_len if Python's], text: with FULL only, and unless NO_VALUE
 *   OPS_LEASE    session (its durable_id; 0: one that does not outlive its connection), since_ms,
 *                limit_ms + 1 (0: never), u8 delivered. State LEASED always has it. READY: a lease that was
 *                freed, and that its session may resume (epoch is that lease's)
 *
 * The place: READY and DELAYED tasks came where they are one after another, and their places say in which
 * order: n, the n-th of all, at the end of its queue's list or into its heap; -n at the front of the list.
 * So a list has ascending places. No two of those have the same n. LEASED ones have the place that they had
 * before. A READY or DELAYED task whose |place| is <= its queue's purged_place is being purged. */
#ifndef MASTER_CORE_JOURNAL_OPS_H
#define MASTER_CORE_JOURNAL_OPS_H

#include "common/bytes.h"

enum ops_op { OPS_TIME = 1, OPS_TASK, OPS_END, OPS_QUEUE, OPS_GONE, OPS_COUNTS, OPS_TOTALS, OPS_HOST = 64 };

enum ops_mask { OPS_FULL = 1, OPS_EXTRA = 2, OPS_PAYLOAD = 4, OPS_LEASE = 8 };

enum ops_queue_flag {
    OPS_QUEUE_SHUT_DOWN = 1,
    OPS_QUEUE_REMOVED = 2, /* only its leases are left */
    OPS_QUEUE_FACTORY = 4,
    OPS_QUEUE_PAUSED = 8,
    OPS_QUEUE_REJECT_FULL = 16,
};

#define OPS_VARINT_MAX 10u

/* `at` has OPS_VARINT_MAX bytes; returns the byte behind. */
static inline uint8_t *ops_put(uint8_t *at, uint64_t v)
{
    while (v >= 0x80) {
        *at++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *at++ = (uint8_t)v;
    return at;
}

static inline uint64_t ops_zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t ops_unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

/* Takes a number off the front of *in; false: there is none (cut short, longer than needed or than 64 bits),
 * and *in is not to be used any more. */
bool ops_get(struct tq_span *in, uint64_t *ret);
bool ops_get_max(struct tq_span *in, uint64_t max, uint64_t *ret); /* greater than max: false */
bool ops_get_u8(struct tq_span *in, uint8_t *ret);
bool ops_get_text(struct tq_span *in, size_t max, struct tq_span *ret); /* borrowed; longer than max: false */

#endif
