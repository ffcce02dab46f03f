/* A task: a body on its way through a queue, or the result or dead letter that took its place. It stands in
 * one slot of the slab: the head, then (TASK_EXTRA) what few tasks need, then the payload. Slots are named by
 * handles (slab.h); a handle is good until the task moves or ends. One function writes the state and the
 * counters with it.
 *
 *   NEW ----> READY <--> LEASED      NEW: made for a put that is not accepted yet; has no id
 *    |  \      |  ^        | |       READY: in its queue
 *    |   `-> DELAYED <-----+ |       DELAYED: waits for its time (put with a delay, or a retry)
 *    |         |  |        | |       LEASED: held by a session
 *    `-> KEPT <+--|--------+ |       KEPT: a result that is in no queue, until its retention ends
 *         |    |  |          |       GONE: the slot is given back; if the queue's list or heap still links
 * it, when
 *         `-> GONE <---------'             that passes it (a tombstone) */
#ifndef MASTER_CORE_TASK_H
#define MASTER_CORE_TASK_H

#include "master/core/broker.h"
#include "master/core/broker_impl.h"
#include "master/core/slab.h"

enum broker_task_state {
    BROKER_TASK_NEW,
    BROKER_TASK_READY,
    BROKER_TASK_DELAYED,
    BROKER_TASK_LEASED,
    BROKER_TASK_KEPT,
    BROKER_TASK_GONE,
};

enum broker_task_flag {
    TASK_EXTRA = 1,    /* a struct broker_extra follows the head */
    TASK_EXTERNAL = 2, /* the payload is a struct tq_body * of which the task has a reference */
    TASK_PYTHON = 4, /* the payload's format; an inline one begins with item_off and item_len, 2 bytes each */
    TASK_RESULT = 8, /* a result */
    TASK_DEAD = 16,  /* a dead letter */
    TASK_NO_VALUE = 32, /* a result without a value */
};
/* The last 3 flags: which of its queue's purges it has lived through (purge.h). */
#define TASK_COLOUR_SHIFT 6u
#define TASK_COLOURS      8u

struct broker_task {   /* 22 bytes: there may be a hundred million of them */
    uint64_t id_state; /* from the lowest bit: enum broker_task_state (3), the first 5 flags, the id (56, 0:
                          NEW). One word, always written as a whole: what is written in parts and soon read
                          as a whole stalls the processor */
    uint32_t link;  /* READY, DELAYED: next slot in its queue's list; LEASED: its lease's handle; KEPT: kept.h
                     */
    uint32_t epoch; /* hand-outs so far */
    uint32_t queue : 24;   /* index in broker.queues */
    uint32_t attempts : 8; /* hand-outs that ended in fail, in a death or by time; stays at 255 */
    uint16_t size_flags;   /* low 12 bits: bytes of the payload in the slot, behind all else; the others: more
                              flags */
} __attribute__((packed, aligned(2)));

#define TASK_IN_HEAP   UINT32_MAX /* READY: its link while it stands in its queue's heap */
#define TASK_QUEUE_MAX ((1u << 24) - 1)
#define TASK_NO_QUEUE  UINT32_MAX       /* in broker_extra.result: none, the result is kept */
#define TASK_POLICY    (UINT32_MAX - 1) /* in broker_extra.result: the queue's policy */

struct broker_timer;
struct broker_key;

/* What a task has only if a put asked for it, if it failed, or if it is a result. Then come, in this order,
 * key, trace, worker and error. */
struct broker_extra {
    struct broker_timer *timer; /* timer.h; NULL: none is set */
    struct broker_key *key;     /* its place in the table of keys; NULL: it has no key */
    uint64_t due_ms;            /* DELAYED: until then. Of a put that waits: ms from its acceptance on */
    uint64_t expires_ms;        /* 0: never. KEPT: the end of its retention. Of a put that waits: as due_ms */
    uint64_t started_ms;        /* of the last hand-out that ended; 0: there was none */
    uint64_t ended_ms;
    uint64_t of;     /* a notice: the id of the task whose end it tells; 0: its own */
    uint32_t prev;   /* READY or DELAYED and in a list: the slot before, SLAB_NONE for the first. The same
                        of a KEPT one that gives way */
    uint32_t result; /* where its result goes: index of a queue, TASK_NO_QUEUE, TASK_POLICY */
    uint32_t result_serial; /* of that queue: another one may have its index by now */
    uint32_t from;          /* results and dead letters: the queue that it stood in, and its serial */
    uint32_t from_serial;
    uint32_t retention_ms; /* BROKER_RETENTION_AUTO: the queue's */
    int32_t priority;
    int32_t code;
    uint8_t outcome;      /* enum broker_task_outcome */
    uint8_t max_attempts; /* 0: the queue's */
    uint8_t tries;        /* results and dead letters: hand-outs of the task that ended */
    bool gives_way;       /* a result that nobody asked to be kept (kept.h) */
    uint16_t key_len, trace_len, worker_len, error_len;
} __attribute__((packed, aligned(2)));

/* What a new extra is made of; spans are copied. */
struct broker_extra_spec {
    struct broker_extra fixed; /* its pointers and lengths are not looked at */
    struct tq_span key, trace, worker, error;
};

static inline struct broker_task *broker_task_at(const struct slab *s, uint32_t slot)
{
    return slab_at(s, slot);
}
static inline uint64_t broker_task_id(const struct broker_task *t)
{
    return t->id_state >> 8;
}
static inline uint32_t broker_task_queue_index(const struct broker_task *t)
{
    return t->queue;
}
static inline struct broker_queue *broker_task_queue(const struct broker *b, const struct broker_task *t)
{
    return b->queues[broker_task_queue_index(t)];
}
static inline enum broker_task_state broker_task_state(const struct broker_task *t)
{
    return (enum broker_task_state)(t->id_state & 7);
}
static inline unsigned broker_task_flags(const struct broker_task *t)
{
    return (unsigned)(t->id_state >> 3 & 31) | (unsigned)t->size_flags >> 12 << 5;
}
static inline unsigned broker_task_colour(const struct broker_task *t)
{
    return (unsigned)t->size_flags >> 13;
}
static inline void broker_task_set_colour(struct broker_task *t, unsigned colour)
{
    t->size_flags = (uint16_t)((t->size_flags & 0x1fff) | colour << 13);
}
/* NULL when it has none. Not aligned; good as long as the slot. */
static inline struct broker_extra *broker_task_extra(struct broker_task *t)
{
    return (broker_task_flags(t) & TASK_EXTRA) != 0 ? (struct broker_extra *)(void *)(t + 1) : NULL;
}

/* A new task: state NEW, no id, of queue q; extra: NULL for none; flags: RESULT, DEAD. A small payload is
 * copied, a large one kept by reference (made a body first if it is none). payload NULL: no value. SLAB_NONE
 * when out of memory. */
uint32_t broker_task_new(struct broker *b, struct broker_queue *q, const struct broker_payload *payload,
                         const struct broker_extra_spec *extra, unsigned flags);
/* Gives a NEW task its id. TQ_ENOMEM. */
int broker_task_name(struct broker *b, uint32_t slot);
/* Takes id and key from it again. */
void broker_task_unname(struct broker *b, uint32_t slot);
/* A NEW task takes over the id of one that is not linked anywhere (LEASED and let go, DELAYED, KEPT or READY
 * and taken out), which ends without a trace: counters, timer; its key goes over to the new one, which has
 * the same key in its extra. Its epoch is its own. Cannot fail. */
void broker_task_succeed(struct broker *b, uint32_t old_slot, uint32_t new_slot);
/* Makes sure that the task, which is not linked in a list or heap, has an extra, with this worker, error,
 * started_ms, ended_ms and code in it: its slot changes (the ids, its lease and timer know).
 * TQ_ENOMEM: unchanged. */
int broker_task_note_failure(struct broker *b, uint32_t *slot, struct tq_span worker, uint64_t started_ms,
                             const struct broker_failure *f);
/* A LEASED task that has an extra is a result without a value now, in its own slot: what the spec has, but
 * for its texts; key and trace stay. The caller gives it its state. */
void broker_task_become_result(struct broker *b, uint32_t slot, const struct broker_extra_spec *spec);
void broker_task_set_state(struct broker *b, uint32_t slot, enum broker_task_state to);
/* Out of list, heap and lease -> GONE: id, key, timer and slot are given back. If its queue was removed, it
 * goes before the step ends. */
void broker_task_end(struct broker *b, uint32_t slot);
/* READY and still linked where it cannot be unlinked at once: as broker_task_end, but the slot stays as a
 * tombstone; broker_queue_take and the heap pass over it. */
void broker_task_bury(struct broker *b, uint32_t slot);
/* A tombstone that nothing links any more. */
void broker_task_drop_tombstone(struct broker *b, uint32_t slot);
/* Its body, if it has one outside of the slot, is not needed any more. */
void broker_task_strip_tombstone(struct broker *b, uint32_t slot);
/* The task with all that it is in a new slot, READY and in no list or heap, as if it had been taken; the old
 * one is a tombstone. SLAB_NONE when out of memory. */
uint32_t broker_task_move_out(struct broker *b, uint32_t slot);
/* NEW -> GONE: it never was in its queue; its id, if it had one, was for nothing. SLAB_NONE is fine. */
void broker_task_discard(struct broker *b, uint32_t slot);

/* The payload; data NULL when it has none. */
void broker_task_payload(const struct broker *b, uint32_t slot, struct broker_payload *ret_payload);
/* key, trace, worker, error: empty when it has none. */
struct tq_span broker_task_key(struct broker_task *t);
struct tq_span broker_task_trace(struct broker_task *t);
struct tq_span broker_task_worker(struct broker_task *t);
struct tq_span broker_task_error(struct broker_task *t);
/* Body length + BROKER_BODY_OVERHEAD_BYTES. */
uint64_t broker_task_cost(const struct broker *b, uint32_t slot);
/* The one that an extra names, or NULL when it has gone (or was TASK_NO_QUEUE, TASK_POLICY). */
struct broker_queue *broker_queue_of(const struct broker *b, uint32_t index, uint32_t serial);

static inline uint64_t broker_payload_cost(const struct broker_payload *p)
{
    return (uint64_t)p->len + BROKER_BODY_OVERHEAD_BYTES;
}

#endif
