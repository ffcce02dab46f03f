/* The worker as a whole: its slots, its turns, its signals, and what it tells people. */
#ifndef WORKER_AGENT_H
#define WORKER_AGENT_H

#include <uv.h>

#include "worker/pymanager.h"
#include "worker/runner.h"
#include "worker/slot.h"

#define AGENT_TYPEID_MAX 200

struct agent_conf {
    char host[256];
    uint16_t port;
    struct tq_span key;
    bool peer_python; /* a stock Python server: it does not take tasks back */
    char from[AGENT_TYPEID_MAX + 1];
    char to[AGENT_TYPEID_MAX + 1];
    char name[AGENT_TYPEID_MAX + 1]; /* of the sessions */
    uint64_t jobs;
    uint64_t count; /* gets in all; 0: no end */
    uint64_t poll_timeout_ms;
    uint64_t drain_timeout_ms;
    uint64_t connect_timeout_ms; /* 0: no end */
    bool no_retry;
    uint64_t frame_bytes; /* cap of a reply */
    const struct runner_ops *runner;
    uint64_t sleep_ms;
};

struct agent {
    const struct agent_conf *conf;
    uv_loop_t loop;
    struct ticker ticker;
    struct pym_peer peer;
    struct runner *runner;
    uv_signal_t signals[2];
    struct slot *slots;
    uint64_t slots_gone;
    uint64_t turns_left; /* with conf->count */
    bool stopping;       /* no new tasks */
    bool draining;       /* a signal said so */
    bool waiting;        /* for the peer; --connect-timeout runs */
    bool failed;         /* exit status 1 */
    bool ever_up;        /* a session was open once */
    bool told_empty;     /* since the last task */
    bool told_trouble;   /* at told_ms */
    uint64_t told_ms;
    bool from_plain; /* the typeid is X, not get_X */
    bool to_plain;
    struct tick drain;
    struct tick give_up; /* --connect-timeout */
    struct tick finish;
};

/* Runs to the end. 0 good, 1 failed. */
int agent_run(const struct agent_conf *conf);

/* ---- for the slots ---- */

enum agent_trouble {
    AGENT_TROUBLE_PEER,  /* as the connection's failure says */
    AGENT_TROUBLE_QUEUE, /* the peer has no such queue */
    AGENT_TROUBLE_CALL,  /* it refused a call */
};

/* A slot is on line. */
void agent_on_up(struct agent *a);
/* A slot's connection or call failed: tells people, pauses the dials, or ends everything when there is no use
 * in another try. */
void agent_on_trouble(struct agent *a, enum agent_trouble trouble, enum pym_failure failure,
                      const char *text);
/* Is there a turn left, and nobody told us to stop? */
bool agent_wants_tasks(const struct agent *a);
/* May the slot ask for another task? Counts. */
bool agent_take_turn(struct agent *a);
/* The get was never answered: somebody else may have the turn. */
void agent_return_turn(struct agent *a);
void agent_on_task(struct agent *a);
void agent_on_empty(struct agent *a);
void agent_on_slot_gone(struct agent *a);

#endif
