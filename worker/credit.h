/* What a native worker has in hand, and what it says next: which results go out, how many tasks it asks for,
 * and what an answer, a lost connection or a resumed session means for each. Pure: no socket, no clock.
 *
 * The rules: a result goes out with the next frame, whatever stands waiting; the credits of all gets together
 * are never more than the free slots, and never less once the frames are out, so that no task waits at the
 * master while a slot is free. Results carry the get for the slots that they freed, so a task costs one frame
 * each way. A few gets may wait side by side; where there would be more, the smallest is canceled and asked
 * again together with what is missing. */
#ifndef WORKER_CREDIT_H
#define WORKER_CREDIT_H

#include "common/hash.h"
#include "proto/native/client.h"

#define CREDIT_CALLS        16      /* requests on their way */
#define CREDIT_GETS         4       /* of them with a get that may wait */
#define CREDIT_FRAME_ENDS   128     /* results in one frame */
#define CREDIT_FRAME_BYTES  1048576 /* the same in bytes, but one always fits */
#define CREDIT_HANDS(slots) (2 * (slots) + 16)

/*   RUNNING --finish--> FINISHED --next--> SENT --answered--> (left)
 *      |                   ^   ^-- answered: nothing of it was done; or resumed --|
 *      '------ lose -------'---> (left)                                                           */
enum credit_state {
    CREDIT_RUNNING,
    CREDIT_FINISHED, /* not sent, or for certain not done */
    CREDIT_SENT,     /* not answered */
    CREDIT_LEFT,     /* no longer ours to speak of */
};

/* A hand-out. Embedded in its owner, who fills in `lease`, and `bytes` before credit_finish. */
struct credit_hand {
    struct tq_native_lease lease;
    size_t bytes; /* of its result in a frame, about */
    enum credit_state state;
    bool confirmed; /* by the hello that is being read */
    struct credit_hand *prev, *next;
    UT_hash_handle hh;
};

struct credit_call {
    bool used;
    bool canceled; /* a cancel is out */
    uint32_t msgid;
    uint32_t credit; /* tasks that it may bring */
    uint32_t sent_count;
    struct credit_hand *sent;
};

struct credit {
    uint32_t slots;
    uint32_t busy;      /* slots whose job runs, also for a lease that was lost */
    uint32_t covered;   /* credit of all calls */
    uint32_t max_batch; /* the master's */
    uint32_t max_gets;
    uint32_t msgid;
    uint32_t most_ends; /* in one frame, for now */
    uint32_t finished_count;
    struct credit_call calls[CREDIT_CALLS];
    struct credit_hand *by_lease; /* all but those that left */
    struct credit_hand *running;
    struct credit_hand *finished; /* in the order of their ends */
    struct credit_hand *unsure;   /* SENT on a connection that is gone */
};

void credit_init(struct credit *c, uint32_t slots);
/* Nothing is in hand. */
void credit_deinit(struct credit *c);

static inline uint32_t credit_in_hand(const struct credit *c)
{
    return HASH_COUNT(c->by_lease);
}

/* The id of a request of another kind. */
static inline uint32_t credit_msgid(struct credit *c)
{
    return ++c->msgid;
}

/* ---- the connection ---- */

/* hello was answered: its limits. */
void credit_open(struct credit *c, uint32_t max_batch, uint32_t max_calls);
/* No call will be answered. *ret_credit: what the gets had asked for. */
void credit_cut(struct credit *c, uint64_t *ret_credit);
/* How many were sent on a connection that is gone. */
uint32_t credit_unsure(const struct credit *c);
/* All that is in hand, for a hello: credit_in_hand() of them. */
void credit_leases(const struct credit *c, struct tq_native_lease *leases);
/* The hello's answer names one; false: it is not in hand. */
bool credit_confirm(struct credit *c, const struct tq_native_lease *lease);
/* The answer is read. One that it did not name, taken out of the state that it is in (RUNNING, FINISHED or
 * SENT, told by *ret_was); NULL when all others are confirmed: those that had been sent go out again. */
struct credit_hand *credit_unconfirmed(struct credit *c, enum credit_state *ret_was);

/* ---- tasks ---- */

/* A task was handed out: its slot is busy from now on. TQ_ENOMEM; 1: it is in hand already. */
int credit_add(struct credit *c, struct credit_hand *h);
/* The job of a slot ended, whatever became of its lease. */
void credit_job_ended(struct credit *c);
/* It has a result: of RUNNING only; with credit_job_ended. */
void credit_finish(struct credit *c, struct credit_hand *h);
struct credit_hand *credit_find(struct credit *c, const struct tq_native_lease *lease);
/* From any state to LEFT. */
void credit_leave(struct credit *c, struct credit_hand *h);

/* ---- requests ---- */

enum credit_step_kind {
    CREDIT_NOTHING,
    CREDIT_DONE,   /* call->sent, and a get if call->credit > 0 */
    CREDIT_GET,    /* call->credit */
    CREDIT_CANCEL, /* call->msgid */
};

struct credit_step {
    enum credit_step_kind kind;
    struct credit_call *call; /* valid until the next call of this module */
};

/* The next frame; again until CREDIT_NOTHING. allowed: so many more tasks are wanted than were asked for;
 * stop: not even those, so gets that wait are canceled. If the frame cannot be made: credit_call_failed. */
struct credit_step credit_next(struct credit *c, uint64_t allowed, bool stop);

/* The call with this msgid, or NULL. */
struct credit_call *credit_call_of(struct credit *c, uint32_t msgid);
/* Of what it sent, the one with this id; NULL. */
struct credit_hand *credit_sent(const struct credit_call *call, uint64_t id);
/* It was answered, and this one must be sent again. */
void credit_again(struct credit *c, struct credit_call *call, struct credit_hand *h);
/* It was answered, those refused have been taken out with credit_leave: one after the other of the rest,
 * LEFT; NULL: the call is over. */
struct credit_hand *credit_settled(struct credit *c, struct credit_call *call);
/* Nothing of it was done: what it sent is FINISHED again, in front, and goes out in smaller frames. */
void credit_call_failed(struct credit *c, struct credit_call *call);
/* An answer was good: frames may be large again. */
static inline void credit_relax(struct credit *c)
{
    c->most_ends = CREDIT_FRAME_ENDS;
}

#endif
