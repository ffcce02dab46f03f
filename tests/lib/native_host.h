/* A host of the native dialect without sockets: a clock that is set, random that is not, and clients whose
 * bytes stand in buffers. For unit tests, the fuzzer and the simulation. One thing happens at a time. */
#ifndef TESTS_LIB_NATIVE_HOST_H
#define TESTS_LIB_NATIVE_HOST_H

#include "master/native/native.h"
#include "proto/native/mp.h"

#define NATIVE_RIG_KEYS 8

struct native_rig;

/* A client and the master's end of its connection. */
struct native_client {
    struct native_conn conn; /* first */
    struct native_rig *rig;
    struct native_client *prev, *next;
    bool open;
    bool stalled;        /* it reads nothing: what is for it stays in conn.out */
    struct tq_buf in;    /* what reached it and was not read yet */
    struct tq_buf frame; /* the last one that was read */
};

struct native_rig {
    struct native_host host;
    struct tq_deadlines deadlines;
    struct broker *broker;
    struct broker_effects effects;
    bool running_effects;
    struct native *native;
    uint64_t now_ms;
    uint64_t random_state;
    unsigned rights[NATIVE_RIG_KEYS];        /* by key: bits of enum key_right; all from the start */
    const char *only_queue[NATIVE_RIG_KEYS]; /* those rights are for this queue alone; NULL: for all */
    bool gone_keys[NATIVE_RIG_KEYS];         /* no key has this name (k0, k1...) any more */
    struct native_backup backup;             /* what a request for one is answered with at once */
    uint64_t backup_token;                   /* of the last one */
    char backup_dir[64];                     /* and what it named */
    unsigned denied;                         /* refusals so far */
    unsigned logged;
    struct native_client *clients;
    struct broker_queue *kept_queue; /* refuses to be removed */
};

/* With the queues task_queue (results to result_queue) and result_queue. limits: NULL for small ones that
 * tests can reach. False when out of memory: deinit is fine then. */
bool native_rig_init(struct native_rig *r, const struct broker_limits *limits);
/* With both journals, and without a queue: to begin with one's own, or with what a log says. */
bool native_rig_init_durable(struct native_rig *r, const struct broker_limits *limits);
/* Closes all, in this order: clients, dialect, broker. */
void native_rig_deinit(struct native_rig *r);
/* The clock goes on; deadlines on the way come due in their order. */
void native_rig_advance(struct native_rig *r, uint64_t ms);

/* The log has no room for new work, or has again. */
void native_rig_refuse_new_work(struct native_rig *r, bool refuse);
void native_rig_set_room(struct native_rig *r, uint64_t new_work_bytes, uint64_t completion_bytes);

/* NULL when out of memory. */
struct native_client *native_rig_connect(struct native_rig *r, uint32_t key);
/* One payload, from a copy that ends where it ends and goes at once. */
void native_rig_send(struct native_client *c, struct tq_span payload);
/* It reads no more, or again what was kept for it. */
void native_rig_stall(struct native_client *c, bool stalled);
/* Output goes to clients, and connections that are to be closed are. Done by send, close and advance. */
void native_rig_flush(struct native_rig *r);
void native_rig_close(struct native_client *c, enum native_closed how);
/* Closes, and frees. */
void native_rig_forget(struct native_client *c);
/* The next whole frame that the client got; false: there is none. Good until the next one is read. */
bool native_rig_read(struct native_client *c, struct tq_span *ret_payload);

#endif
