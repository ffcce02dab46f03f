/* A broker with queues for work, results and dead letters, for the tests of how tasks end. */
#ifndef TESTS_UNIT_BROKER_WORLD_H
#define TESTS_UNIT_BROKER_WORLD_H

#include "tests/unit/broker_native_rig.h"

struct world {
    struct nr r;
    struct broker_queue *work;    /* result -> results, dead -> dead */
    struct broker_queue *nowhere; /* neither */
    struct broker_queue *results;
    struct broker_queue *dead;
    struct broker_queue *reply;
};

static inline void init(struct world *w)
{
    struct broker_queue_conf c = nr_conf("results", "dead");

    nr_init(&w->r);
    w->work = nr_declare(&w->r, "work", &c);
    w->nowhere = nr_queue(&w->r, "nowhere");
    w->results = nr_queue(&w->r, "results");
    w->dead = nr_queue(&w->r, "dead");
    w->reply = nr_queue(&w->r, "reply");
}

static inline uint64_t put_own(struct world *w, struct broker_queue *q, const char *body,
                               struct broker_queue *own)
{
    struct broker_put_options o = {.has_result = true, .result = own};

    return nr_put_with(&w->r, 0, q, body, &o);
}

#endif
