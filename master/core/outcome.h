/* How a task ends: its result, its dead letter, its retry. */
#ifndef MASTER_CORE_OUTCOME_H
#define MASTER_CORE_OUTCOME_H

#include "master/core/broker.h"

struct broker_task;

/* Retention of AUTO. */
#define BROKER_RETENTION_MS 300000u

/* What is known when a task ends. */
struct broker_ending {
    enum broker_task_outcome outcome;
    const struct broker_payload *value; /* of OK; NULL: none */
    struct tq_span worker;
    uint64_t started_ms; /* 0: it was never handed out, or what the task itself notes counts */
    const struct broker_failure *failure; /* or NULL: the last error that the task itself has */
    struct broker_queue *result_to;       /* as broker_event.result_to */
    bool result_to_last;                  /* as broker_event.result_to_last */
    bool is_ack; /* acknowledged without a result: no queue gets one, but it is kept where it would be */
};

/* Ends a task, which is out of list, heap and lease (READY and taken, LEASED and let go, DELAYED): its
 * result, its dead letter, or nothing takes its place under its id: OK, CANCELED: the result goes to the
 * task's own result queue; else result_to; else its queue's `result` (with result_to_last: the other way
 * round); else it is KEPT if it has retention; else nothing stays. One whose own result queue has gone, or
 * who wants none, is KEPT: no other queue gets its result. CANCELED and PURGED without a result queue of the
 * task's own: nothing stays. FAILED, EXPIRED, LOST: to the queue's `dead`, as a dead letter: the task's body,
 * as a new task there (attempts 0) with reason and last error; and if the task has a result queue of its own,
 * a notice goes there (a result with an id of its own, without value; broker_view.of names the task). Without
 * `dead`: a result as above, without a value. `unfinished` of the queue goes down by one, of the result's
 * queue up; whoever waits for the id, for the result's queue, or for room is marked. Never blocked by
 * maxsize. Everything that can fail is done first: TQ_ENOMEM (also: the result is larger than its task and
 * does not fit limits.memory_bytes), nothing has changed then. A task that is itself a result is KEPT if it
 * has retention (but for CANCELED, PURGED), or ends; a dead letter ends.
 *
 * The successor's epoch goes on from the task's, one further: what was said of a lease of the task is stale
 * for the result, too.
 *
 * Counted here: acked and done (OK), expired, dead, dropped (CANCELED), puts of the result's queue. The
 * attempts of the task have been counted before. */
int broker_task_finish(struct broker *b, uint32_t slot, const struct broker_ending *e);
/* The same for a READY or DELAYED task that still stands in its queue. */
int broker_task_finish_linked(struct broker *b, uint32_t slot, const struct broker_ending *e);

/* The same in two steps, for those who have more that can fail. */
struct broker_end_plan {
    struct broker_queue *to; /* NULL: the successor is KEPT */
    struct broker_queue *notice_to;
    uint32_t successor; /* NEW; SLAB_NONE: nothing stays */
    uint32_t notice;    /* NEW, with its id; SLAB_NONE: none */
    enum broker_task_outcome outcome;
    bool vanish;    /* the successor is only shown to those who wait for it now */
    bool uncounted; /* `unfinished` of the task's queue stays: task_done will be said */
};

/* TQ_ENOMEM. */
int broker_end_prepare(struct broker *b, uint32_t slot, const struct broker_ending *e,
                       struct broker_end_plan *ret_plan);
/* The task is out of list, heap and lease now; its slot may have changed. */
void broker_end_commit(struct broker *b, uint32_t slot, const struct broker_end_plan *plan);
void broker_end_discard(struct broker *b, const struct broker_end_plan *plan);

/* A task or a result that is acknowledged without a word on its result: by a Python session, or by a get that
 * takes it for good. If its put gave it a key or a retention, or wanted its result kept, then what is kept
 * for its retention is a result OK without a value; and if somebody waits for it, that is what they are
 * shown; else nothing stays. */
bool broker_task_leaves_result(struct broker_task *t);
/* As broker_end_prepare. TQ_ENOMEM. */
int broker_ack_prepare(struct broker *b, uint32_t slot, const struct broker_session *s, uint64_t started_ms,
                       struct broker_end_plan *ret_plan);
/* LEASED and let go by a Python session. Cannot fail: without memory for the result, the task itself becomes
 * it, and all that it lacks is the worker's name. */
void broker_task_ack(struct broker *b, uint32_t slot, const struct broker_session *s, uint64_t started_ms);

/* A fail that is not final: LEASED (its lease is over) -> DELAYED by the backoff, or READY at the front. The
 * error is noted, but for results and dead letters, which tell of their task; when there is no memory for
 * that, it goes on without the note, and at once. */
void broker_task_retry(struct broker *b, uint32_t slot, const struct broker_ending *e);
/* Backoff of the task's attempt (1 for the first retry), with jitter from its id. */
uint64_t broker_backoff_ms(const struct broker_queue_conf *c, uint64_t id, uint32_t attempt);
/* What a result that was taken and acknowledged does: stays as KEPT (true) or is for the caller to end
 * (false; so is whatever is no result). */
bool broker_task_keep(struct broker *b, uint32_t slot);
/* One of the queue's tasks is finished, as by task_done. */
void broker_queue_finished_one(struct broker *b, struct broker_queue *q);

/* Calls of native sessions: 0, TQ_ENOMEM. A reply has been reserved. A result or a dead letter that is leased
 * ends by `done` without a result of its own; `fail` gives it back, by backoff, as often as it comes: only
 * a result ends by a fail that is final by its own word, a dead letter never by failing. */
int broker_on_done(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
int broker_on_fail(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
int broker_on_extend(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
int broker_on_release(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
int broker_on_remove(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
int broker_on_retry(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
/* DETACH and RESUME. */
void broker_session_detach(struct broker *b, struct broker_session *s, bool free_now);
int broker_session_resume(struct broker *b, const struct broker_event *ev, struct broker_effects *out);
/* A Python session that holds exactly one task of ack=auto puts to that task's result queue, or to that of
 * the task's queue: this is its result, and goes where the task says. The task ends with it in one step, as
 * by `done`, but that its queue still expects task_done. 0: done so, counted too; 1: not such a put (also:
 * the result queue is a priority queue, where a put may be refused because its item has no order); TQ_ENOMEM.
 */
int broker_put_as_result(struct broker *b, const struct broker_event *ev);

#endif
