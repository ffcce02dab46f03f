/* What restore.c (ops) and restore_finish.c (all is read) share.
 *
 * Raw tasks: they have slot, id, place and home, but stand nowhere. Their state is NEW, so that nothing
 * counts them and broker_task_discard ends them; what they will be is in their colour. `queue` is the number
 * of a restore_queue, `link` that of a restore_lease (0: none); in an extra, `prev` is the serial of the
 * key's queue, and `result` is 0 if result_serial tells. */
#ifndef MASTER_CORE_RESTORE_IMPL_H
#define MASTER_CORE_RESTORE_IMPL_H

#include "common/hash.h"
#include "master/core/broker_impl.h"
#include "master/core/ops_queue.h"
#include "master/core/queue.h"
#include "master/core/restore.h"
#include "master/core/task.h"

/* Clocks above this (in the year 1,141,709) are none: there must be room above them for ids_add. */
#define RESTORE_MS_MAX (IDS_MAX / 2)

struct broker_trash;

/* It is there as long as its QUEUE op counts or a task is in it; then its number is for another one. */
struct restore_queue {
    uint32_t serial;
    uint32_t number; /* in broker_restore.queues, from 1 on */
    uint64_t tasks;  /* raw ones that are in it */
    bool gone;
    bool has_counts;
    struct ops_queue *def; /* with its name behind it; NULL: named by a task only, so far, or gone */
    uint64_t home;
    struct ops_counts counts;
    struct broker_queue *queue; /* once it is made */
    struct broker_trash *trash;
    struct restore_queue *next_free;
    UT_hash_handle hh;
};

struct restore_lease {
    uint64_t session, since_ms, limit_ms;
    bool delivered;
    uint32_t next_free;
};

struct broker_restore {
    struct broker *b;
    int (*on_host)(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment,
                   char text[RESTORE_TEXT_MAX]);
    void *ctx;
    bool (*is_good_body)(void *ctx, const struct broker_payload *p);
    void *is_good_body_ctx;
    uint64_t *orphans;    /* or NULL: there must be none */
    struct ops_time time; /* as high as any record has it */
    uint64_t segment;     /* of this record */
    bool has_time;        /* this record has told it */
    bool has_times;       /* some record has */
    bool was_closed;      /* broker_restore_was_closed */
    struct restore_queue *by_serial;
    struct restore_queue **queues; /* by number; [0] is none */
    uint32_t queue_count, queue_cap;
    struct restore_queue *free_queue; /* list: in queues, and not in by_serial */
    struct restore_queue *last;       /* named last */
    struct restore_lease *leases;     /* from 1 on */
    uint32_t lease_count, lease_cap, free_lease;
    struct broker_queue stand_in; /* for broker_task_new, which wants an index only */
};

static inline enum broker_task_state restore_state(const struct broker_task *t)
{
    return (enum broker_task_state)broker_task_colour(t);
}

/* text, and TQ_EINVAL. */
__attribute__((format(printf, 2, 3))) int restore_refuse(char text[RESTORE_TEXT_MAX], const char *format,
                                                         ...);
/* The raw task ends; its lease is free again. */
void restore_drop(struct broker_restore *r, uint32_t slot);
void restore_free_lease(struct broker_restore *r, struct broker_task *t);
/* All raw tasks that are left. */
void restore_drop_raw(struct broker_restore *r);
void restore_free(struct broker_restore *r);

#endif
