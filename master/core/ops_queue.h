/* Queues and counters in ops (journal_ops.h: TIME, QUEUE, GONE, COUNTS, TOTALS), with the byte that says
 * which op it is; `get` begins behind that. */
#ifndef MASTER_CORE_OPS_QUEUE_H
#define MASTER_CORE_OPS_QUEUE_H

#include "master/core/broker.h"
#include "master/core/journal_ops.h"

struct ops_time {
    uint64_t now_ms;
    uint64_t next_id;
    uint64_t next_place;
    uint32_t next_queue_serial;
};

struct ops_queue {
    uint32_t serial;
    uint8_t flags; /* enum ops_queue_flag; what the conf has of them is there, too */
    uint64_t purged_place;
    struct tq_span name;
    struct broker_queue_conf conf; /* its strings are those below, or NULL */
    char result[BROKER_QUEUE_NAME_MAX + 1], dead[BROKER_QUEUE_NAME_MAX + 1];
};

struct ops_counts {
    uint32_t serial;
    uint64_t unfinished;
    struct broker_queue_stats stats; /* the counters that only grow */
};

/* Whole ops: `at` has as many bytes as is said; returns the byte behind. */
size_t ops_queue_bound(const struct broker_queue *q);
uint8_t *ops_put_queue(uint8_t *at, const struct broker_queue *q);
#define OPS_TIME_BOUND (1u + 4u * OPS_VARINT_MAX)
uint8_t *ops_put_time(uint8_t *at, const struct ops_time *t);
#define OPS_GONE_BOUND (1u + OPS_VARINT_MAX)
uint8_t *ops_put_gone(uint8_t *at, uint32_t serial);
#define OPS_COUNTS_BOUND (1u + 12u * OPS_VARINT_MAX)
uint8_t *ops_put_counts(uint8_t *at, const struct broker_queue *q, uint64_t unfinished);
#define OPS_TOTALS_BOUND (1u + 14u * OPS_VARINT_MAX)
uint8_t *ops_put_totals(uint8_t *at, const struct broker_stats *s);

/* Takes one off the front of *in. False: there is none. Serials are not 0. */
bool ops_get_time(struct tq_span *in, struct ops_time *ret);
/* The name is borrowed; ret is not to be moved. Names and policies are good in form (broker_declare's
 * EINVAL). */
bool ops_get_queue(struct tq_span *in, struct ops_queue *ret);
bool ops_get_serial(struct tq_span *in, uint32_t *ret_serial);
bool ops_get_counts(struct tq_span *in, struct ops_counts *ret);
bool ops_get_totals(struct tq_span *in, struct broker_stats *ret); /* sets those that only grow */

#endif
