/* Who takes part, and in what: all out of the seed. */
#include <stdio.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "tests/sim/sim.h"

/* ---- queues ---- */

static const int results_of[M_QUEUES] = {
    [Q_TASK] = Q_RESULT, [Q_RESULT] = M_NONE, [Q_DEAD] = M_NONE,    [Q_PRIO] = Q_RESULT,
    [Q_BOUND] = M_NONE,  [Q_LIFO] = Q_RESULT, [Q_SCRATCH] = M_NONE, [Q_EXPLICIT] = Q_RESULT,
    [Q_ONCE] = Q_RESULT, [Q_FIFO] = M_NONE,   [Q_REPLY0] = M_NONE,  [Q_REPLY1] = M_NONE};

static void choose_policies(struct sim *s, int i, struct m_queue *q)
{
    bool work = i != Q_RESULT && i != Q_REPLY0 && i != Q_REPLY1 && i != Q_DEAD;

    *q = (struct m_queue){.name = m_queue_names[i],
                          .kind = i == Q_PRIO   ? BROKER_PRIORITY
                                  : i == Q_LIFO ? BROKER_LIFO
                                                : BROKER_FIFO,
                          .ack = i == Q_EXPLICIT ? BROKER_ACK_EXPLICIT
                                 : i == Q_ONCE   ? BROKER_ACK_GET
                                                 : BROKER_ACK_AUTO,
                          .result = results_of[i],
                          .dead =
                              work && i != Q_BOUND && i != Q_SCRATCH && sim_chance(s, 800) ? Q_DEAD : M_NONE,
                          .max_attempts = 1,
                          .retry_ms = sim_chance(s, 200) ? 0 : 1 + sim_below(s, 900),
                          .retry_max_ms = 4000,
                          .grace_ms = 1 + sim_below(s, 9000),
                          .retention_ms = sim_chance(s, 500) ? M_AUTO : 1 + sim_below(s, 30000)};
    if (i == Q_DEAD && sim_chance(s, 500))
        q->maxsize = 1 + sim_below(s, 3); /* no dead letter is refused for that */
    if (!work || i == Q_FIFO)
        return;
    q->max_attempts = 1 + sim_below(s, 3);
    if (sim_chance(s, 300))
        q->max_deliveries = 1 + sim_below(s, 4);
    if (s->plan.leases && sim_chance(s, 400))
        q->lease_ms = 100 + sim_below(s, 3000);
    if (s->plan.ttls && i != Q_BOUND && sim_chance(s, 200))
        q->ttl_ms = 500 + sim_below(s, 8000);
    if (sim_chance(s, 300))
        q->concurrency = 1 + sim_below(s, 4);
    if (i == Q_SCRATCH && sim_chance(s, 500)) {
        q->rate_per_s = 5 + sim_below(s, 60);
        q->rate_burst = 1 + sim_below(s, 5);
    }
    if (i == Q_BOUND)
        q->maxsize = 2 + sim_below(s, 5);
}

static void declare_queues(struct sim *s)
{
    for (int i = 0; i < M_QUEUES; i++) {
        struct m_queue *q = &s->model->q[i];
        struct broker_queue_conf c;
        int rv;

        choose_policies(s, i, q);
        broker_queue_conf_init(&c);
        c.kind = (enum broker_kind)q->kind;
        c.ack = (enum broker_ack)q->ack;
        c.maxsize = q->maxsize;
        c.max_attempts = (uint8_t)q->max_attempts;
        c.max_deliveries = (uint8_t)q->max_deliveries;
        c.lease_ms = q->lease_ms;
        c.grace_ms = q->grace_ms;
        c.retry_ms = q->retry_ms;
        c.retry_max_ms = q->retry_max_ms;
        c.ttl_ms = q->ttl_ms;
        c.retention_ms = q->retention_ms;
        c.rate_per_s = q->rate_per_s;
        c.rate_burst = q->rate_burst;
        c.concurrency = q->concurrency;
        c.result = q->result >= 0 ? m_queue_names[q->result] : NULL;
        c.dead = q->dead >= 0 ? m_queue_names[q->dead] : NULL;
        q->interval = s->disk != NULL && i != Q_RESULT && i != Q_DEAD && sim_chance(s, 150);
        c.durability = q->interval ? BROKER_DURABILITY_INTERVAL : BROKER_DURABILITY_FSYNC;
        rv = s->host.declare(s, q->name, &c, &s->queues[i]);
        TQ_ASSERT(rv == TQ_OK);
        q->tokens = (q->rate_burst > 0 ? q->rate_burst : q->rate_per_s) * 1000;
        q->tokens_ms = s->now_ms;
    }
}

/* ---- actors ---- */

static struct sim_actor *add(struct sim *s, enum sim_role role, const char *name, const int *queues,
                             int queue_count, const int *puts, int put_count)
{
    struct sim_actor *a = &s->actors[s->actor_count];

    TQ_ASSERT(s->actor_count < SIM_ACTORS);
    *a = (struct sim_actor){.sim = s,
                            .index = s->actor_count++,
                            .role = role,
                            .link = -1,
                            .own = M_NONE,
                            .credit = 1 + sim_below(s, 4),
                            .pace_ms = 5 + sim_below(s, 80),
                            .queue_count = queue_count,
                            .put_count = put_count};
    (void)snprintf(a->name, sizeof(a->name), "%s%d", name, a->index);
    if (queue_count > 0)
        memcpy(a->queues, queues, (size_t)queue_count * sizeof(*queues));
    if (put_count > 0)
        memcpy(a->puts, puts, (size_t)put_count * sizeof(*puts));
    if (role != ROLE_PY_PRODUCER && role != ROLE_PY_WORKER && sim_chance(s, 600))
        a->heartbeat_ms = 1000 + sim_below(s, 4000);
    sim_tick_in(a, sim_below(s, 100));
    return a;
}

#define LIST(list_) (list_), (int)(sizeof(list_) / sizeof((list_)[0]))

static void add_natives(struct sim *s)
{
    static const int work[] = {Q_TASK, Q_PRIO, Q_BOUND, Q_LIFO, Q_SCRATCH, Q_EXPLICIT, Q_ONCE};
    static const int native_work[] = {Q_TASK, Q_PRIO, Q_BOUND, Q_LIFO, Q_SCRATCH};
    static const int results[] = {Q_RESULT, Q_DEAD};
    static const int fifo[] = {Q_FIFO};
    int own[1];
    struct sim_actor *a;

    for (uint32_t i = 0; i < 2; i++) {
        own[0] = Q_REPLY0 + (int)i;
        a = add(s, ROLE_PRODUCER, "producer", LIST(own), LIST(work));
        a->own = own[0];
        a->puts_left = 20 + sim_below(s, 60);
    }
    for (uint32_t i = 0; i < 2 + sim_below(s, 3); i++) {
        bool all = i == 0 || sim_chance(s, 300);

        a = add(s, ROLE_WORKER, "worker", all ? work : native_work,
                all ? (int)(sizeof(work) / sizeof(work[0])) : 5, NULL, 0);
        a->has_session = sim_chance(s, 850);
    }
    for (uint32_t i = 0; i < 1 + sim_below(s, 2); i++) {
        a = add(s, ROLE_COLLECTOR, "collector", LIST(results), NULL, 0);
        a->has_session = sim_chance(s, 500);
    }
    a = add(s, ROLE_PRODUCER, "faithful", NULL, 0, LIST(fifo));
    a->faithful = true;
    a->puts_left = 10 + sim_below(s, 30);
    a = add(s, ROLE_WORKER, "fifo", LIST(fifo), NULL, 0);
    a->faithful = true;
    a->has_session = true;
    (void)add(s, ROLE_ADMIN, "admin", results + 1, s->plan.admin ? 1 : 0, NULL, 0);
}

static void add_pythons(struct sim *s)
{
    static const int puts[] = {Q_TASK, Q_EXPLICIT, Q_ONCE, Q_BOUND};
    static const int work[] = {Q_TASK, Q_EXPLICIT, Q_ONCE, Q_BOUND, Q_LIFO};
    static const int results[] = {Q_RESULT, Q_REPLY0};
    struct sim_actor *a;

    a = add(s, ROLE_PY_PRODUCER, "pyproducer", NULL, 0, LIST(puts));
    a->puts_left = 20 + sim_below(s, 40);
    for (uint32_t i = 0; i < 1 + sim_below(s, 2); i++)
        (void)add(s, ROLE_PY_WORKER, "pyworker", LIST(work), NULL, 0);
    if (sim_chance(s, 500))
        (void)add(s, ROLE_PY_WORKER, "pycollector", results, 1, NULL, 0);
}

/* Each run has some of it all: what is left out lets the rest be seen. */
static void choose_plan(struct sim *s)
{
    struct sim_plan *p = &s->plan;
    bool *flags[] = {&p->cuts,   &p->freezes, &p->crashes, &p->half_open,  &p->duplicates, &p->late,
                     &p->delays, &p->ttls,    &p->keys,    &p->priorities, &p->fails,      &p->replies,
                     &p->waits,  &p->admin,   &p->takes,   &p->pythons,    &p->leases,     &p->releases};

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        *flags[i] = sim_chance(s, 700);
    p->loss = sim_chance(s, 200) ? 0 : 2 + sim_below(s, 30);
}

void sim_actors_init(struct sim *s)
{
    choose_plan(s);
    declare_queues(s);
    add_natives(s);
    if (s->plan.pythons)
        add_pythons(s);
    s->chaos_until = s->now_ms + 5000 + sim_below(s, 25000);
    if (s->disk != NULL)
        sim_disk_plan(s);
    sim_at(s, s->chaos_until, EV_CALM, 0, 0);
}

/* The net heals, and everybody is well: what is there gets done. */
void sim_calm_down(struct sim *s)
{
    sim_note(s, "calm");
    s->calm = true;
    for (int i = 0; i < s->link_count; i++) {
        struct sim_link *l = s->links[i];

        if (s->actors[l->actor].link != i)
            sim_hang_up(l, false);
    }
    for (int i = 0; i < s->actor_count; i++) {
        struct sim_actor *a = &s->actors[i];

        if (a->python != NULL)
            sim_python_close(a); /* what it forgot to acknowledge comes back */
        a->pace_ms = 40;
        a->retry_ms = s->now_ms;
        if (a->frozen_until > s->now_ms)
            a->frozen_until = s->now_ms + 1;
        if (a->role == ROLE_ADMIN)
            a->queue_count = 0;
        sim_tick_in(a, 1 + sim_below(s, 20));
    }
}
