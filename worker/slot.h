/* A slot: one Python process's worth of worker. It joins (create, incref, decref for both queues, each on a
 * connection of its own, then a session), and goes round get -> run -> put until it is told to leave. */
#ifndef WORKER_SLOT_H
#define WORKER_SLOT_H

#include "worker/pymanager.h"
#include "worker/runner.h"

struct agent;

/*            +------------------------- session lost --------------------------+
 *            v                                                                  |
 *          JOIN ----------> POLL --item--> RUN --result--> PUT --answered--> (next: PUT, POLL or LEAVE)
 *            |  \             |             |               |
 *            |   `-- result kept from before the loss ------^
 *            v                v             v               v
 *         CLOSING <-------- LEAVE (decref both, while the session is open) <-- no more turns, or told to stop
 *            |
 *            v
 *          GONE
 */
enum slot_state { SLOT_NEW, SLOT_JOIN, SLOT_POLL, SLOT_RUN, SLOT_PUT, SLOT_LEAVE, SLOT_CLOSING, SLOT_GONE };

struct slot {
    struct agent *agent;
    enum slot_state state;
    unsigned step; /* of JOIN and LEAVE */
    struct pym_conn session;
    struct pym_conn control;
    bool session_up;
    bool refused;     /* the call was answered, and not with #RETURN */
    bool unreadable;  /* not even with what a manager sends */
    char reason[240]; /* in whose words */
    struct tq_buf request;
    struct tq_buf from_ident;
    struct tq_buf to_ident;
    bool from_held; /* incref done: a decref is owed */
    bool to_held;
    struct runner_job job;
    bool running;
    bool has_result;
    bool failed;      /* the result is the text of a failure */
    bool put_written; /* bytes of the put went out: it may have been done */
    bool tried_plain; /* this join has fallen back from get_X to X */
};

void slot_init(struct slot *s, struct agent *a);
void slot_deinit(struct slot *s); /* new or gone */
void slot_start(struct slot *s);
/* No new tasks: what runs is finished, then the slot leaves. */
void slot_stop(struct slot *s);
/* At once, whatever it does. Repeatable. */
void slot_abort(struct slot *s);
/* Holds a task or a result that would be lost or run again. */
bool slot_is_busy(const struct slot *s);

#endif
