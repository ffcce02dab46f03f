/* The worker as a whole: its slots, its turns, its signals, and what it tells people. */
#ifndef WORKER_AGENT_H
#define WORKER_AGENT_H

#include <uv.h>

#include "worker/native_link.h"
#include "worker/runner.h"
#include "worker/slot.h"

#define AGENT_TYPEID_MAX         200
#define AGENT_HEARTBEAT_LEAST_MS 1000

struct agent_conf {
    char host[256];
    uint16_t port;
    struct tq_span key;
    bool peer_python; /* a BaseManager server: slots; else a task-master: one native link */
    char from[AGENT_TYPEID_MAX + 1];
    char to[AGENT_TYPEID_MAX + 1];
    bool to_given;                   /* else a task-master decides where results go */
    char name[AGENT_TYPEID_MAX + 1]; /* of Python's sessions */
    char client[64];                 /* of a native session: program and version */
    char worker_id[TQ_NATIVE_WORKER_MAX + 1];
    uint64_t heartbeat_ms; /* 0: none */
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
    struct link_peer peer;
    struct runner *runner;
    uv_signal_t signals[2];
    struct slot *slots;        /* of --peer python; else NULL */
    struct native_link native; /* of --peer taskq */
    uint64_t parts;            /* slots, or the link */
    uint64_t parts_gone;
    uint64_t turns_left; /* with conf->count */
    bool stopping;       /* no new tasks */
    bool draining;       /* a signal said so */
    bool waiting;        /* for the peer; --connect-timeout runs */
    bool failed;         /* exit status 1 */
    bool ever_up;        /* a session was open once */
    bool ever_served;    /* and a get on it was answered, or its queues are known to be there */
    bool told_empty;     /* since the last task */
    bool told_trouble;   /* at told_ms */
    uint64_t told_ms;
    uint64_t stale;  /* results that came too late */
    bool from_plain; /* the typeid is X, not get_X */
    bool to_plain;
    struct tick drain;
    struct tick give_up; /* --connect-timeout */
    struct tick finish;
};

/* Runs to the end. 0 good, 1 failed. */
int agent_run(const struct agent_conf *conf);

/* ---- for the slots and the native link ---- */

enum agent_trouble {
    AGENT_TROUBLE_PEER,  /* as the connection's failure says */
    AGENT_TROUBLE_QUEUE, /* the peer has no such queue */
    AGENT_TROUBLE_CALL,  /* it refused a call */
    AGENT_TROUBLE_FINAL, /* whatever is tried again will fail again */
};

/* A session is open; `served`: its queues are there, too. */
void agent_on_up(struct agent *a, bool served);
/* A connection or a call failed: tells people, pauses the dials, or ends everything when there is no use
 * in another try. */
void agent_on_trouble(struct agent *a, enum agent_trouble trouble, enum link_failure failure,
                      const char *text);
/* Is there a turn left, and nobody told us to stop? */
bool agent_wants_tasks(const struct agent *a);
/* How many more tasks may be asked for. */
uint64_t agent_turns(const struct agent *a);
/* They are asked for (no more than agent_turns). */
void agent_take_turns(struct agent *a, uint64_t n);
/* They were not answered: others may have them. */
void agent_return_turns(struct agent *a, uint64_t n);
void agent_on_task(struct agent *a);
/* So many turns found nothing. */
void agent_on_empty(struct agent *a, uint64_t turns);
void agent_on_part_gone(struct agent *a);

#endif
