/* The simulation: the shipped broker and native dialect, in a world whose clock, net and clients come out of
 * one number. Whatever happens at the master's sockets is shown to a model (model.h), which says after each
 * step whether that may be so. Nothing here looks into the broker, but for its own check and its memory at
 * the end. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdio.h>

#include "common/buf.h"
#include "master/native/native.h"
#include "master/store/store.h"
#include "proto/native/mp.h"
#include "tests/sim/model.h"

#define SIM_LINKS   768 /* connections in one run */
#define SIM_ACTORS  24
#define SIM_HAND    64
#define SIM_CALLS   32
#define SIM_VALUES  16384
#define SIM_TAG_LEN 8u /* "~" and 7 digits: stands in each body and each result */
#define SIM_NEVER   UINT64_MAX

/* ---- events ---- */

enum sim_event_kind { EV_UP, EV_DOWN, EV_TICK, EV_CUT, EV_CALM, EV_JOB, EV_CRASH, EV_START, EV_ROOM };

struct sim_event {
    uint64_t at, seq;
    enum sim_event_kind kind;
    int who;      /* a link or an actor */
    uint32_t gen; /* of the actor's tick: old ones are void */
};

/* ---- the net ---- */

struct sim_segment {
    uint64_t at;
    uint32_t len;
};

/* One direction. */
struct sim_pipe {
    struct tq_buf bytes; /* on their way */
    struct sim_segment *segments;
    uint32_t count, cap;
    uint64_t last_at; /* bytes do not overtake each other */
    uint64_t eof_at;  /* SIM_NEVER: none on its way */
    bool black;       /* whatever is written vanishes */
};

/* What the master has said and not sent: it waits until the log has what it tells of. */
struct sim_held {
    struct log_need need;
    uint32_t len;
    uint64_t soft, hard; /* see sim_disk */
};

struct sim_link {
    struct native_conn conn; /* first: the master's end */
    struct sim *sim;
    int index, actor;
    bool used, server_open, client_open;
    enum native_closed how; /* what its end will look like to the master */
    struct sim_pipe up, down;
    struct tq_buf server_in, client_in;
    uint32_t delay_ms, jitter_ms;
    uint64_t frozen_until; /* nothing arrives before; then all does */
    struct tq_buf held_bytes;
    struct sim_held *held;
    uint32_t held_count, held_cap;
    uint32_t fresh;     /* of held_bytes: said in this turn */
    bool ends_after_it; /* the master has closed it */
};

/* ---- clients ---- */

struct sim_hand { /* a lease in hand */
    uint64_t id;
    uint32_t epoch;
    int q, task;  /* queue; the body's value */
    bool is_task; /* or a result or dead letter, which wants no value */
    uint64_t ready_at;
};

struct sim_call { /* a request on its way, as the client knows it */
    uint32_t msgid;
    uint64_t sent_at;
    enum m_method method;
    int q; /* of a get */
    bool waits;
};

enum sim_role { ROLE_PRODUCER, ROLE_WORKER, ROLE_COLLECTOR, ROLE_ADMIN, ROLE_PY_PRODUCER, ROLE_PY_WORKER };

struct sim_actor {
    struct sim *sim;
    int index;
    enum sim_role role;
    char name[16];
    uint32_t tick_gen;
    uint64_t frozen_until;
    unsigned pace_ms;
    /* native */
    bool has_session; /* says a worker id in its hello */
    int link;         /* -1: none */
    bool ready;       /* hello was answered */
    bool has_token;
    uint8_t token[NATIVE_TOKEN_BYTES], token_before[NATIVE_TOKEN_BYTES];
    uint32_t heartbeat_ms;
    uint64_t said_ms, retry_ms;
    uint32_t msgid;
    struct sim_call calls[SIM_CALLS];
    int call_count;
    struct sim_hand hand[SIM_HAND];
    int hand_count;
    int queues[M_QUEUES], queue_count; /* where it gets from */
    int puts[M_QUEUES], put_count;     /* where it puts to */
    int own;                           /* its reply queue, or -1 */
    unsigned puts_left;
    unsigned credit;
    bool faithful; /* no failures, crashes, freezes: for order */
    uint64_t ids[32];
    unsigned id_count;
    /* Python */
    struct sim_python *python;
};

/* What a seed makes of the run. */
struct sim_plan {
    bool cuts, freezes, crashes, half_open, duplicates, late;
    bool delays, ttls, keys, priorities, fails, replies, waits, admin, takes, pythons, leases, releases;
    uint32_t loss; /* per mille of ticks at which an actor's connection is cut */
};

/* ---- the disk under the master, and its crashes ---- */

struct fake_fs;

/* What a reply may tell of: `soft` is the record of the last change of any kind before it, `hard` the last
 * one that a power cut must not lose either. The model says which changes are of what kind. */
struct sim_disk {
    struct fake_fs *fs;
    struct store *store;
    bool up;
    struct log_job *job;
    bool job_was_run;
    uint32_t life; /* events of jobs of earlier ones are void */
    size_t point;  /* of fs, when the last job, or the recovery, began */
    uint64_t soft, hard;
    uint64_t told_soft, told_hard; /* of all that was sent */
    bool refuse, is_tight;         /* as the store says */
    bool full;                     /* until `room_at`, or a little later */
    uint64_t room_at;
    struct m_snapshot *snapshots; /* oldest first */
    uint64_t back_to;             /* the last record, when it is down */
    bool was_closed;              /* the same: it is the word that all is well */
    uint64_t starts, crashes[3];
    uint64_t undone; /* records */
    uint64_t segments, moved_bytes, refusals;
};

struct sim {
    uint64_t seed, random, host_random;
    uint64_t now_ms, chaos_until, end_ms;
    bool calm;
    FILE *trace; /* or NULL */
    struct sim_plan plan;
    /* the master */
    struct native_host host;
    struct tq_deadlines deadlines;
    struct broker *broker;
    struct broker_effects effects;
    bool running_effects;
    struct native *native;
    struct broker_queue *queues[M_QUEUES];
    /* the world */
    struct sim_event *heap;
    size_t heap_count, heap_cap;
    uint64_t event_seq;
    struct sim_link *links[SIM_LINKS];
    int link_count;
    struct sim_actor actors[SIM_ACTORS];
    int actor_count;
    uint32_t value_count;
    uint64_t steps;
    struct model *model;
    struct sim_disk *disk; /* NULL: the master has none */
    struct tq_buf out;     /* the frame that a client is just making */
};

extern bool sim_checks; /* with the broker's own check */

/* sim.c: the first thing that is wrong ends the program, after it said how to see it again. */
__attribute__((format(printf, 2, 3), noreturn)) void sim_fail(struct sim *s, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) void sim_note(struct sim *s, const char *fmt, ...);
uint32_t sim_below(struct sim *s, uint32_t n);      /* 0 to n - 1 */
bool sim_chance(struct sim *s, uint32_t per_mille); /* true so often */

/* world.c */
void sim_world_init(struct sim *s);
/* The master's memory: a new one, and away with it. */
void sim_master_init(struct sim *s);
void sim_master_deinit(struct sim *s);
void sim_run_effects(struct sim *s);
void sim_run_timers(struct sim *s);
void sim_world_deinit(struct sim *s);
void sim_at(struct sim *s, uint64_t at, enum sim_event_kind kind, int who, uint32_t gen);
void sim_run(struct sim *s);
/* Whatever the master did is shown to the model, and what it wrote is on its way. After each step. */
void sim_after_step(struct sim *s);

/* net.c */
struct sim_link *sim_connect(struct sim *s, int actor);
void sim_send(struct sim_link *l, struct tq_span bytes);
void sim_hang_up(struct sim_link *l, bool abrupt);
void sim_cut(struct sim_link *l);
void sim_link_up(struct sim_link *l);
void sim_link_down(struct sim_link *l);
void sim_link_wrote(struct sim_link *l); /* the master has output for it, or closes it */
void sim_link_free(struct sim_link *l);
/* With a disk: what was said in this turn needs so much; and what needs no more than there is, is sent. */
void sim_link_seal(struct sim_link *l, struct log_need need);
void sim_link_release(struct sim_link *l);
void sim_link_crash(struct sim_link *l, uint64_t eof_in); /* the master's end has gone with its process */

/* disk.c: with a disk under it, the master can be killed and started again. */
static inline bool sim_is_up(const struct sim *s)
{
    return s->disk == NULL || s->disk->up;
}
void sim_disk_init(struct sim *s);
void sim_disk_deinit(struct sim *s);
void sim_disk_plan(struct sim *s);
void sim_disk_turn(struct sim *s); /* the end of a turn of the master's loop */
void sim_disk_event(struct sim *s, const struct sim_event *e);
void sim_disk_sent(struct sim *s, uint64_t soft, uint64_t hard);
void sim_disk_check_end(struct sim *s);

/* native_client.c */
void sim_native_tick(struct sim_actor *a);
void sim_native_frame(struct sim_actor *a, struct tq_span payload);
void sim_native_lost(struct sim_actor *a); /* its connection has ended */
void sim_tick_in(struct sim_actor *a, uint32_t ms);
/* native_moves.c: what it says when it has something to say. */
void sim_native_moves(struct sim_actor *a);
void sim_hello(struct sim_actor *a);
void sim_begin(struct sim_actor *a, const char *method, enum m_method m, int q, bool waits, uint32_t pairs,
               struct tq_mp_out *o);
void sim_finish(struct sim_actor *a, struct tq_mp_out *o);

/* python_client.c */
void sim_python_open(struct sim_actor *a);
void sim_python_tick(struct sim_actor *a);
void sim_python_close(struct sim_actor *a);
void sim_python_shut(struct sim *s);
void sim_python_seal(struct sim_actor *a, struct log_need need);
void sim_python_release(struct sim_actor *a);
void sim_python_crash(struct sim_actor *a);

/* actors.c */
void sim_actors_init(struct sim *s);
void sim_calm_down(struct sim *s);

/* A new value, which stands in a body or a result; *ret_text is for the wire. */
int sim_value(struct sim *s, char text[SIM_TAG_LEN + 1]);
/* The value that stands in there; -1: none. */
int sim_value_in(const void *data, size_t len);

#endif
