/* The worker at a task-master: one connection in the native dialect for all jobs. What it has in hand belongs
 * to its session (worker id and token) and outlives the connection: jobs go on running while it dials again,
 * and their results are handed in then. native_link.c is the connection, native_jobs.c what goes over it. */
#ifndef WORKER_NATIVE_LINK_H
#define WORKER_NATIVE_LINK_H

#include "worker/credit.h"
#include "worker/link.h"
#include "worker/runner.h"

struct agent;

/*   NEW --> DOWN <--> UP --> LEAVING --> CLOSING --> GONE
 *            |         |                  ^
 *            '---------'------------------'                                                       */
enum native_state {
    NATIVE_LINK_NEW,
    NATIVE_LINK_DOWN,    /* on its way to hello's answer */
    NATIVE_LINK_UP,      /* hello was answered */
    NATIVE_LINK_LEAVING, /* bye was said */
    NATIVE_LINK_CLOSING,
    NATIVE_LINK_GONE,
};

struct native_link {
    struct agent *agent;
    struct link link;
    enum native_state state;
    struct credit credit;
    struct tq_buf out; /* a request, while it is made */
    uint8_t token[TQ_NATIVE_TOKEN_BYTES];
    bool has_token;
    uint32_t hello_call; /* 0: answered */
    uint32_t to_call;    /* asks whether the queue of --to is there */
    bool to_known;
    uint32_t others;          /* pings and releases that are not answered */
    uint64_t max_frame_bytes; /* the master's limit */
    uint32_t heartbeat_ms;    /* 0: none */
    uint32_t silent_ms;
    uint64_t sent_ms;
    uint64_t beat_ms;  /* when the beat is due */
    struct tick flush; /* what the loop's turn brought goes out together */
    struct tick beat;
    struct tick pause; /* after a refusal nothing is asked for a while */
    bool paused;
    struct backoff refusals;
};

/* TQ_ENOMEM: nothing to deinit. */
int native_link_init(struct native_link *n, struct agent *a);
void native_link_deinit(struct native_link *n); /* new or gone */
void native_link_start(struct native_link *n);
/* No new tasks: what runs is finished and handed in, then it leaves. */
void native_link_stop(struct native_link *n);
/* At once; what is in hand goes back to the master if it can be told. Repeatable. */
void native_link_abort(struct native_link *n);
/* Tasks and results that would be lost or run again. */
unsigned native_link_busy(const struct native_link *n);

/* ---- between the two files ---- */

static inline bool native_link_over(const struct native_link *n)
{
    return n->state == NATIVE_LINK_CLOSING || n->state == NATIVE_LINK_GONE;
}

/* Sends what stands in n->out. TQ_ECLOSED: nothing of it was sent, and the connection is closing. */
int native_link_write(struct native_link *n);
void native_link_no_memory(struct native_link *n);
/* Sets the flush for the end of this turn. */
void native_link_flush_soon(struct native_link *n);
/* Nothing is asked and handed in for a while, longer each time. */
void native_link_pause(struct native_link *n);
/* After jobs ended. */
void native_link_maybe_gone(struct native_link *n);

/* All that can go out now. */
void native_jobs_send(struct native_link *n);
/* The answer to one of credit's calls. */
void native_jobs_answer(struct native_link *n, struct credit_call *call, const struct tq_native_message *m);
/* The answer to the question for --to. */
void native_jobs_answer_to(struct native_link *n, const struct tq_native_message *m);
/* The leases that hello confirmed; all else is dropped. */
void native_jobs_resume(struct native_link *n, struct tq_native_welcome *w);
void native_jobs_lost(struct native_link *n, struct tq_native_list *leases);
/* The connection is gone. */
void native_jobs_cut(struct native_link *n);
/* Cancels and drops everything. */
void native_jobs_abort(struct native_link *n);

#endif
