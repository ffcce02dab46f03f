/* The master's process without a system: its clock, its host of the native dialect, and the order in which
 * things happen. */
#include <inttypes.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_check.h"
#include "master/endpoint.h"
#include "tests/sim/sim.h"

#define CHECK_EVERY 64u     /* steps */
#define DRAIN_MS    240000u /* after the last trouble all is done */
#define HORIZON_MS  3600000u
#define LATE_MS     15000u        /* so much later something may still come out of the net */
#define FLOOR_BYTES (1536u << 10) /* what it keeps for the next tasks */

/* ---- the host ---- */

static uint64_t host_now_ms(void *ctx)
{
    return ((struct sim *)ctx)->now_ms;
}

void sim_run_effects(struct sim *s)
{
    if (s->running_effects)
        return;
    s->running_effects = true;
    for (size_t i = 0; sim_is_up(s) && i < s->effects.count; i++) {
        struct broker_effect fx = s->effects.list[i]; /* the list may move */
        struct endpoint *ep = (struct endpoint *)(void *)fx.session;

        ep->on_effect(ep, &fx);
    }
    broker_effects_clear(&s->effects);
    s->running_effects = false;
}

static int host_step(void *ctx, const struct broker_event *ev)
{
    struct sim *s = ctx;
    int rv = broker_step(s->broker, s->now_ms, ev, &s->effects);

    sim_run_effects(s);
    return rv;
}

/* splitmix64 */
static int host_random(void *ctx, void *out, size_t n)
{
    struct sim *s = ctx;
    uint8_t *p = out;

    for (size_t i = 0; i < n; i++) {
        uint64_t z = s->host_random += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        p[i] = (uint8_t)(z >> 40);
    }
    return TQ_OK;
}

static bool host_allowed(void *ctx, const struct native_conn *c, unsigned any_of, const char *verb,
                         const struct broker_queue *queue, struct tq_span name, char text[NATIVE_TEXT_MAX])
{
    (void)ctx, (void)c, (void)any_of, (void)verb, (void)queue, (void)name, (void)text;
    return true;
}

static int host_declare(void *ctx, const char *name, const struct broker_queue_conf *conf,
                        struct broker_queue **ret_queue)
{
    return broker_declare(((struct sim *)ctx)->broker, name, conf, ret_queue);
}

static int host_reconfigure(void *ctx, struct broker_queue *queue, const struct broker_queue_conf *conf)
{
    struct sim *s = ctx;
    int rv = broker_reconfigure(s->broker, s->now_ms, queue, conf, &s->effects);

    sim_run_effects(s);
    return rv;
}

static int host_remove(void *ctx, struct broker_queue *queue)
{
    (void)ctx, (void)queue;
    return TQ_EINVAL;
}

static void host_describe(void *ctx, const struct native_conn *c, struct native_peer *ret_peer)
{
    (void)ctx, (void)c;
    *ret_peer = (struct native_peer){.peer = "127.0.0.1:1", .key = "default", .role = "admin"};
}

static void host_log(void *ctx, enum native_log_level level, const char *id, const char *text)
{
    (void)level;
    sim_note(ctx, "log %s %s", id, text);
}

static bool host_key_named(void *ctx, struct tq_span name, uint32_t *ret_key)
{
    (void)ctx;
    *ret_key = 0;
    return tq_span_is(name, "default");
}

/* Only Python's items without a number are compared so, and nobody puts any into the priority queue. */
static int less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                char text[BROKER_TEXT_MAX])
{
    (void)text;
    *ret_less = a->len < b->len;
    return 0;
}

void sim_master_init(struct sim *s)
{
    static const struct broker_limits limits = {.queues = 50};

    tq_deadlines_init(&s->deadlines);
    s->broker = broker_new(&s->deadlines, &limits, less);
    TQ_ASSERT(s->broker != NULL);
    s->host = (struct native_host){.ctx = s,
                                   .broker = s->broker,
                                   .deadlines = &s->deadlines,
                                   .limits = {.frame_bytes = 1u << 20,
                                              .calls = SIM_CALLS,
                                              .batch = 1000,
                                              .sessions = 1000,
                                              .reply_bytes = 1u << 20,
                                              .output_bytes = 8u << 20,
                                              .parked_bytes = 1u << 20},
                                   .unix_offset_ms = 1700000000000,
                                   .server = "task-master/0",
                                   .now_ms = host_now_ms,
                                   .step = host_step,
                                   .random = host_random,
                                   .allowed = host_allowed,
                                   .declare = host_declare,
                                   .reconfigure = host_reconfigure,
                                   .remove = host_remove,
                                   .describe = host_describe,
                                   .log = host_log,
                                   .key_named = host_key_named};
    s->native = native_new(&s->host);
    TQ_ASSERT(s->native != NULL);
}

void sim_master_deinit(struct sim *s)
{
    while (native_next_dirty(s->native) != NULL)
        ;
    native_free(s->native);
    broker_free(s->broker);
    broker_effects_clear(&s->effects);
    tq_deadlines_deinit(&s->deadlines);
}

void sim_world_init(struct sim *s)
{
    sim_master_init(s);
    if (s->disk != NULL)
        sim_disk_init(s);
    tq_buf_init(&s->out, SIZE_MAX / 2);
}

void sim_world_deinit(struct sim *s)
{
    for (int i = 0; i < s->link_count; i++)
        sim_link_free(s->links[i]);
    if (s->disk != NULL)
        sim_disk_deinit(s);
    sim_master_deinit(s);
    sim_python_shut(s);
    broker_effects_deinit(&s->effects);
    tq_buf_deinit(&s->out);
    tq_free(s->heap);
}

/* ---- what happens when ---- */

static bool is_earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void sim_at(struct sim *s, uint64_t at, enum sim_event_kind kind, int who, uint32_t gen)
{
    struct sim_event e = {.at = at, .seq = ++s->event_seq, .kind = kind, .who = who, .gen = gen};
    size_t i = s->heap_count;

    if (s->heap_count == s->heap_cap) {
        s->heap_cap = s->heap_cap > 0 ? s->heap_cap * 2 : 256;
        s->heap = tq_realloc(s->heap, s->heap_cap * sizeof(*s->heap));
        TQ_ASSERT(s->heap != NULL);
    }
    s->heap_count++;
    for (; i > 0 && is_earlier(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = e;
}

static struct sim_event pop_event(struct sim *s)
{
    struct sim_event first = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= s->heap_count)
            break;
        if (child + 1 < s->heap_count && is_earlier(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!is_earlier(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return first;
}

void sim_after_step(struct sim *s)
{
    struct native_conn *dirty[SIM_LINKS], *c;
    const char *broken;
    int n;

    do {
        n = 0;
        while ((c = native_next_dirty(s->native)) != NULL)
            dirty[n++] = c;
        for (int i = 0; i < n; i++)
            sim_link_wrote((struct sim_link *)(void *)dirty[i]);
    } while (n > 0);
    m_step_ended(s->model);
    if (++s->steps % CHECK_EVERY != 0 || !sim_checks)
        return;
    broken = broker_check(s->broker);
    if (broken != NULL)
        sim_fail(s, "the broker's check: %s", broken);
}

void sim_run_timers(struct sim *s)
{
    struct tq_deadline *d;

    m_step_begins(s->model, true);
    while ((d = tq_deadlines_pop_due(&s->deadlines, s->now_ms)) != NULL) {
        struct broker_event ev = {.kind = BROKER_DUE, .deadline = d};

        if (d->kind == NATIVE_DEADLINE)
            native_on_deadline(s->native, d);
        else
            (void)host_step(s, &ev);
    }
    sim_after_step(s);
}

/* Calm: once all is done, everybody goes. */
static void on_calm(struct sim *s)
{
    if (s->end_ms != 0)
        return;
    if (!sim_is_up(s)) {
        sim_at(s, s->now_ms + 500, EV_CALM, 0, 0);
        return;
    }
    if (!s->calm)
        sim_calm_down(s);
    if (!m_is_drained(s->model) || s->now_ms < s->chaos_until + LATE_MS) {
        if (s->now_ms > s->chaos_until + DRAIN_MS) {
            m_explain(s->model);
        }
        sim_at(s, s->now_ms + 500, EV_CALM, 0, 0);
        return;
    }
    sim_note(s, "all is done");
    s->end_ms = s->now_ms;
    for (int i = 0; i < s->link_count; i++)
        sim_hang_up(s->links[i], false);
    for (int i = 0; i < s->actor_count; i++) {
        s->actors[i].link = -1;
        if (s->actors[i].python != NULL)
            sim_python_close(&s->actors[i]);
    }
}

static void run_event(struct sim *s, const struct sim_event *e)
{
    switch (e->kind) {
    case EV_UP:
        sim_link_up(s->links[e->who]);
        break;
    case EV_DOWN:
        sim_link_down(s->links[e->who]);
        break;
    case EV_CALM:
        on_calm(s);
        break;
    case EV_CUT:
        break;
    case EV_JOB:
    case EV_CRASH:
    case EV_START:
    case EV_ROOM:
        sim_disk_event(s, e);
        break;
    case EV_TICK: {
        struct sim_actor *a = &s->actors[e->who];

        if (e->gen != a->tick_gen || s->end_ms != 0)
            break;
        if (a->frozen_until > s->now_ms)
            sim_at(s, a->frozen_until, EV_TICK, e->who, e->gen);
        else if (a->role == ROLE_PY_PRODUCER || a->role == ROLE_PY_WORKER)
            sim_python_tick(a);
        else
            sim_native_tick(a);
        break;
    }
    }
}

static void check_floor(struct sim *s)
{
    struct broker_stats st;

    broker_get_stats(s->broker, &st);
    if (st.tasks + st.leased + st.delayed + st.kept + st.waiting + st.body_bytes + st.parked_bytes > 0)
        sim_fail(s,
                 "at the end there are %" PRIu64 " tasks, %" PRIu64 " leases, %" PRIu64 " waiting, %" PRIu64
                 " bytes",
                 st.tasks, st.leased, st.waiting, st.body_bytes);
    if (st.memory_bytes > FLOOR_BYTES)
        sim_fail(s, "at the end %" PRIu64 " bytes of memory are in use", st.memory_bytes);
}

void sim_run(struct sim *s)
{
    for (;;) {
        uint64_t next = tq_deadlines_next_ms(&s->deadlines);
        bool is_late;

        if (s->disk != NULL && s->disk->up && store_next_ms(s->disk->store) < next)
            next = store_next_ms(s->disk->store);
        if (s->heap_count > 0 && s->heap[0].at < next)
            next = s->heap[0].at;
        if (next > s->now_ms + HORIZON_MS)
            break;
        s->now_ms = next > s->now_ms ? next : s->now_ms;
        /* What is due and what has come at the same moment may be seen in either order. */
        is_late = sim_chance(s, 300) && !m_expiry_at(s->model, s->now_ms);
        if (!is_late && sim_is_up(s))
            sim_run_timers(s);
        while (s->heap_count > 0 && s->heap[0].at <= s->now_ms) {
            struct sim_event e = pop_event(s);

            run_event(s, &e);
            if (s->disk != NULL && sim_chance(s, 500))
                sim_disk_turn(s);
        }
        if ((is_late && sim_is_up(s)) || tq_deadlines_next_ms(&s->deadlines) <= s->now_ms)
            sim_run_timers(s);
        if (s->disk != NULL)
            sim_disk_turn(s);
    }
    m_check_end(s->model);
    check_floor(s);
    if (s->disk != NULL)
        sim_disk_check_end(s);
}
