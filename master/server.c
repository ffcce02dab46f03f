#include "master/server_impl.h"

#include <signal.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/access/access.h"
#include "master/backup.h"
#include "master/demo.h"
#include "master/durable.h"
#include "master/memory.h"
#include "master/native_peer.h"
#include "master/peer.h"
#include "proto/python/item.h"

/* Deadlines in one turn of the loop: so many, or so long. */
#define DUE_MAX 2048u
#define DUE_NS  4000000u

uint64_t server_now_ms(const struct server *s)
{
    return s->epoch_ms + uv_now(s->loop);
}

/* ---- the broker and its effects ---- */

void server_run_effects(struct server *s)
{
    if (s->running_effects)
        return;
    s->running_effects = true;
    while (s->effects.count > 0) {
        /* carrying one out may step the broker, whose effects then go to the other list */
        struct broker_effects now = s->effects;

        s->effects = s->effects_spare;
        for (size_t i = 0; i < now.count; i++) {
            struct endpoint *ep = (struct endpoint *)now.list[i].session;

            ep->on_effect(ep, &now.list[i]);
        }
        broker_effects_clear(&now);
        s->effects_spare = now;
    }
    s->running_effects = false;
}

int server_step(struct server *s, const struct broker_event *ev)
{
    int rv = broker_step(s->broker, server_now_ms(s), ev, &s->effects);

    server_run_effects(s);
    return rv;
}

/* ---- the one timer ---- */

static void on_due(struct server *s, struct tq_deadline *d)
{
    struct broker_event ev = {.kind = BROKER_DUE, .deadline = d};

    switch (d->kind & SERVER_DEADLINE_MASK) {
    case SERVER_DEADLINE_BROKER:
        (void)server_step(s, &ev);
        break;
    case SERVER_DEADLINE_PEER:
        peer_on_deadline(d);
        break;
    case SERVER_DEADLINE_NATIVE:
        native_on_deadline(s->native, d);
        break;
    default:
        server_close(s);
    }
}

/* A million tasks may come due at once: peers get their turn in between. What is left over is due already, so
 * on_prepare sets the timer to 0 ms. */
static void on_timer(uv_timer_t *timer)
{
    struct server *s = timer->data;
    uint64_t until_ns = uv_hrtime() + DUE_NS;
    struct tq_deadline *d;

    s->timer_at_ms = UINT64_MAX;
    if (s->busy)
        durable_is_busy(s);
    for (unsigned n = 1; !s->stopped && (d = tq_deadlines_pop_due(&s->deadlines, server_now_ms(s))) != NULL;
         n++) {
        on_due(s, d);
        if (n % 32 == 0 && (n >= DUE_MAX || uv_hrtime() >= until_ns))
            return;
    }
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct server *s = prepare->data;
    uint64_t next, wanted;
    uint64_t now = server_now_ms(s);

    if (s->stopping && !s->natives_told && s->native != NULL) {
        s->natives_told = true;
        native_stop(s->native);
    }
    do { /* output that went out lets input go on, which makes output */
        peer_resume_all(s);
        native_peer_flush_all(s);
        if (s->durable != NULL)
            durable_turn(s);
    } while ((s->resuming != NULL && !s->busy) || s->fresh != NULL ||
             (s->native != NULL && native_has_dirty(s->native)));
    if (s->stopping)
        server_peer_gone(s); /* perhaps there is nothing left to be written */
    next = tq_deadlines_next_ms(&s->deadlines);
    if (s->durable != NULL && (wanted = durable_next_ms(s)) < next)
        next = wanted;
    if (next == s->timer_at_ms)
        return;
    s->timer_at_ms = next;
    if (next == UINT64_MAX)
        (void)uv_timer_stop(&s->timer);
    else
        (void)uv_timer_start(&s->timer, on_timer, next > now ? next - now : 0, 0);
}

/* ---- opening ---- */

static int item_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                     char text[BROKER_TEXT_MAX])
{
    struct tq_item_frame x = {tq_span(a->data, a->len), a->item_off, a->item_len};
    struct tq_item_frame y = {tq_span(b->data, b->len), b->item_off, b->item_len};

    _Static_assert(BROKER_TEXT_MAX == TQ_ITEM_TEXT_MAX, "the text of a TypeError");
    return tq_item_frame_less(&x, &y, ret_less, text);
}

static int open_core(struct server *s, char err[TQ_OPT_ERROR_MAX])
{
    const struct limits *l = &s->config->limits;
    struct broker_limits limits = {.queues = (uint32_t)l->queues,
                                   .memory_bytes = s->memory_bytes,
                                   .held_per_session = (uint32_t)l->held_per_session};
    int rv = tq_random_bytes(limits.hash_key, sizeof(limits.hash_key));

    if (rv != TQ_OK) {
        snprintf(err, TQ_OPT_ERROR_MAX, "no random bytes: %s", tq_strerror(rv));
        return rv;
    }
    s->broker = broker_new(&s->deadlines, &limits, item_less);
    s->registry = pyregistry_new();
    if (s->broker == NULL || s->registry == NULL || native_peer_open(s) != TQ_OK) {
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    broker_on_queue_gone(s->broker, server_forget_queue, s);
    if (s->config->data_dir != NULL)
        rv = durable_open(s, err);
    return rv == TQ_OK ? server_open_queues(s, err) : rv;
}

static void on_signal(uv_signal_t *signal, int number)
{
    server_stop(signal->data, number == SIGINT ? "SIGINT" : "SIGTERM", 0);
}

static void on_sighup(uv_signal_t *signal, int number)
{
    struct server *s = signal->data;

    (void)number;
    if (!s->stopping)
        access_reload(s);
}

static int open_handles(struct server *s, char err[TQ_OPT_ERROR_MAX])
{
    int rv =
        uv_signal_init(s->loop, &s->sigterm); /* the first one takes descriptors; the others cannot fail */

    if (rv != 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot watch signals: %s; raise the limit of open files (ulimit -n)",
                 uv_strerror(rv));
        return TQ_EIO;
    }
    (void)uv_signal_init(s->loop, &s->sigint);
    (void)uv_signal_init(s->loop, &s->sighup);
    (void)uv_timer_init(s->loop, &s->timer);
    (void)uv_prepare_init(s->loop, &s->prepare);
    s->handles_open = true;
    s->timer.data = s->prepare.data = s->sigterm.data = s->sigint.data = s->sighup.data = s;
    rv = uv_prepare_start(&s->prepare, on_prepare);
    if (rv == 0)
        rv = uv_signal_start(&s->sigterm, on_signal, SIGTERM);
    if (rv == 0)
        rv = uv_signal_start(&s->sigint, on_signal, SIGINT);
    if (rv == 0)
        rv = uv_signal_start(&s->sighup, on_sighup, SIGHUP);
    /* Set from the start, so that moving it cannot fail when the stop comes. */
    if (rv == 0 && tq_deadline_set(&s->deadlines, &s->drain_deadline, UINT64_MAX) != TQ_OK)
        rv = UV_ENOMEM;
    if (rv != 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot watch signals: %s", uv_strerror(rv));
        return TQ_EIO;
    }
    return TQ_OK;
}

static uint64_t unix_now_ms(void)
{
    uv_timeval64_t now;

    return uv_gettimeofday(&now) == 0 ? (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_usec / 1000 : 0;
}

int server_open(struct server *s, uv_loop_t *loop, const struct config *config, char err[TQ_OPT_ERROR_MAX])
{
    char texts[CONFIG_LISTEN_MAX][80];
    int rv;

    memset(s, 0, sizeof(*s));
    s->loop = loop;
    s->config = config;
    s->timer_at_ms = UINT64_MAX;
    s->epoch_ms = unix_now_ms() - uv_now(loop);
    s->memory_bytes = config->limits.memory_bytes != CONFIG_MEMORY_AUTO ? config->limits.memory_bytes
                                                                        : memory_available() / 4 * 3;
    s->drain_deadline.kind = SERVER_DEADLINE_DRAIN;
    tq_deadlines_init(&s->deadlines);
    /* a msgpack value may become longer as a pickle */
    tq_buf_init(&s->scratch, (size_t)config->limits.frame_bytes * 4 < INT32_MAX
                                 ? (size_t)config->limits.frame_bytes * 4
                                 : INT32_MAX);
    tq_auth_registry_init(&s->auth_registry);
    pyrefs_init(&s->refs, 262144);
    halfopen_init(&s->halfopen, (size_t)config->limits.half_open_max,
                  (size_t)config->limits.half_open_per_source);
    s->session_limits =
        (struct tq_session_limits){.preauth_frame_bytes = (uint32_t)config->limits.preauth_frame_bytes,
                                   .preauth_frames = (uint32_t)config->limits.preauth_frames,
                                   .frame_bytes = config->limits.frame_bytes};
    rv = open_handles(s, err);
    if (rv == TQ_OK)
        rv = access_open(s, err);
    if (rv == TQ_OK)
        rv = open_core(s, err);
    for (unsigned i = 0; rv == TQ_OK && i < config->listen_count; i++)
        rv = server_listen(s, i, texts[i], err);
    if (rv != TQ_OK)
        return rv;
    server_banner(s, texts);
    tq_log(TQ_LOG_INFO, "READY", "address=%s", texts[0]);
    printf("task-master ready on %s\n", texts[0]);
    fflush(stdout);
    if (config->demo_count > 0 && (rv = demo_start(s, config->demo_count)) != TQ_OK)
        snprintf(err, TQ_OPT_ERROR_MAX, "the demo cannot start: %s", tq_strerror(rv));
    return rv;
}

/* ---- stopping ---- */

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* The stop is under way, and takes its time for the log: a further signal changes nothing, where the system
 * would end the process at it as soon as its handle is closed. */
static void close_signals(struct server *s)
{
    sigset_t stops, before;

    (void)sigemptyset(&stops);
    (void)sigaddset(&stops, SIGTERM);
    (void)sigaddset(&stops, SIGINT);
    (void)sigaddset(&stops, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &stops, &before);
    close_handle((uv_handle_t *)&s->sigterm);
    close_handle((uv_handle_t *)&s->sigint);
    close_handle((uv_handle_t *)&s->sighup);
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void server_close(struct server *s)
{
    struct peer *p;
    struct peer *next;

    if (s->stopped)
        return;
    s->stopped = true;
    s->stopping = true;
    backup_close(s);
    /* Before the peers go: what goes back to the queues by that is theirs again after a restart. */
    durable_stop(s);
    peer_resume_none(s);
    DL_FOREACH_SAFE(s->peers, p, next)
    {
        peer_kill(p, "the daemon stops"); /* frees nobody but p */
    }
    for (unsigned i = 0; i < s->listener_count; i++)
        listener_close(&s->listeners[i]);
    if (!s->handles_open)
        return;
    close_handle((uv_handle_t *)&s->timer);
    close_handle((uv_handle_t *)&s->prepare);
    close_signals(s);
}

static bool replies_pending(const struct server *s)
{
    const struct peer *p;

    DL_FOREACH(s->peers, p)
    {
        if (p->write != NULL || native_peer_is_pending(p))
            return true;
    }
    return s->native != NULL && !s->natives_told && s->peers != NULL;
}

void server_stop(struct server *s, const char *why, int exit_status)
{
    if (s->stopping) {
        (void)tq_deadline_set(&s->deadlines, &s->drain_deadline, server_now_ms(s));
        return;
    }
    s->stopping = true;
    s->exit_status = exit_status;
    tq_log(TQ_LOG_INFO, "STOP", "why=\"%s\"", why);
    server_report(s);
    if (s->durable == NULL)
        server_report_items(s);
    for (unsigned i = 0; i < s->listener_count; i++)
        listener_close(&s->listeners[i]);
    /* Not at once: whoever asked for the stop may stand on the stack, and its reply be on the way. */
    (void)tq_deadline_set(&s->deadlines, &s->drain_deadline,
                          server_now_ms(s) + (replies_pending(s) ? s->config->limits.drain_timeout_ms : 0));
}

void server_peer_gone(struct server *s)
{
    if (s->stopping && !s->stopped && !replies_pending(s))
        (void)tq_deadline_set(&s->deadlines, &s->drain_deadline, server_now_ms(s));
}

void server_deinit(struct server *s)
{
    TQ_ASSERT(s->peers == NULL);
    demo_stop(s);
    native_peer_close(s);
    durable_free(s);
    broker_effects_deinit(&s->effects);
    broker_effects_deinit(&s->effects_spare);
    broker_free(s->broker);
    pyregistry_free(s->registry);
    pyrefs_deinit(&s->refs);
    halfopen_deinit(&s->halfopen);
    tq_auth_registry_deinit(&s->auth_registry);
    access_close(s);
    tq_deadlines_deinit(&s->deadlines);
    tq_buf_deinit(&s->scratch);
}
