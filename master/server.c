#include "master/server.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/access/access.h"
#include "master/demo.h"
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

static void run_effects(struct server *s)
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

    run_effects(s);
    return rv;
}

/* ---- queues: the broker's, and Python's view of them ---- */

static void forget_queue(void *ctx, struct broker_queue *queue)
{
    struct server *s = ctx;
    struct pyobject *object = broker_queue_user(queue);

    s->rights_epoch++; /* another queue may come to stand where it was */
    if (object != NULL)
        pyregistry_drop(s->registry, object);
}

int server_declare_queue(struct server *s, const char *name, const struct broker_queue_conf *conf,
                         struct broker_queue **ret_queue)
{
    struct broker_effects none = {0};
    struct pyobject *object;
    int rv = broker_declare(s->broker, name, conf, ret_queue);

    if (rv != TQ_OK)
        return rv;
    rv = pyregistry_declare(s->registry, *ret_queue, &object);
    if (rv != TQ_OK)
        broker_remove(s->broker, *ret_queue, &none);
    broker_effects_deinit(&none);
    return rv;
}

static bool is_lasting(const struct broker_queue *queue)
{
    const struct pyobject *object = broker_queue_user(queue);

    return object != NULL && object->lasting;
}

int server_reconfigure_queue(struct server *s, struct broker_queue *queue,
                             const struct broker_queue_conf *conf)
{
    int rv;

    if (is_lasting(queue) && conf->expires_ms != broker_queue_conf(queue)->expires_ms)
        return TQ_EINVAL;
    rv = broker_reconfigure(s->broker, server_now_ms(s), queue, conf, &s->effects);
    run_effects(s);
    return rv;
}

int server_remove_queue(struct server *s, struct broker_queue *queue)
{
    if (is_lasting(queue))
        return TQ_EINVAL;
    forget_queue(s, queue);
    broker_remove(s->broker, queue, &s->effects);
    run_effects(s);
    return TQ_OK;
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
    uint64_t next;
    uint64_t now = server_now_ms(s);

    if (s->stopping && !s->natives_told && s->native != NULL) {
        s->natives_told = true;
        native_stop(s->native);
    }
    do { /* output that went out lets input go on, which makes output */
        peer_resume_all(s);
        native_peer_flush_all(s);
    } while (s->resuming != NULL);
    if (s->stopping)
        server_peer_gone(s); /* perhaps there is nothing left to be written */
    next = tq_deadlines_next_ms(&s->deadlines);
    if (next == s->timer_at_ms)
        return;
    s->timer_at_ms = next;
    if (next == UINT64_MAX)
        (void)uv_timer_stop(&s->timer);
    else
        (void)uv_timer_start(&s->timer, on_timer, next > now ? next - now : 0, 0);
}

/* ---- listeners ---- */

static bool is_loopback(const struct sockaddr_storage *ss)
{
    static const uint8_t v4[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};

    if (ss->ss_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)ss)->sin_addr.s_addr) >> 24) == 127;
    if (ss->ss_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)ss)->sin6_addr;

        return IN6_IS_ADDR_LOOPBACK(a) || memcmp(a, v4, sizeof(v4)) == 0;
    }
    return false;
}

static int resolve(struct server *s, const char *host, uint16_t port, struct sockaddr_storage *ret,
                   char err[TQ_OPT_ERROR_MAX])
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t req;
    char service[8];
    int rv;

    snprintf(service, sizeof(service), "%u", port);
    rv = uv_getaddrinfo(s->loop, &req, NULL, *host ? host : "0.0.0.0", service, &hints);
    if (rv != 0) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "cannot listen on '%.100s': unknown host (%s); give an address of this machine", host,
                 uv_strerror(rv));
        return TQ_ENOTFOUND;
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, req.addrinfo->ai_addr, req.addrinfo->ai_addrlen);
    uv_freeaddrinfo(req.addrinfo);
    return TQ_OK;
}

static void address_text(const struct sockaddr_storage *ss, char out[80])
{
    char host[64] = "";

    if (ss->ss_family == AF_INET6) {
        (void)uv_ip6_name((const struct sockaddr_in6 *)ss, host, sizeof(host));
        snprintf(out, 80, "[%s]:%u", host, ntohs(((const struct sockaddr_in6 *)ss)->sin6_port));
    } else {
        (void)uv_ip4_name((const struct sockaddr_in *)ss, host, sizeof(host));
        snprintf(out, 80, "%s:%u", host, ntohs(((const struct sockaddr_in *)ss)->sin_port));
    }
}

static void on_connection(void *ctx, int take_fd, const struct sockaddr_storage *from)
{
    peer_accept(ctx, take_fd, from);
}

static void on_accept_failed(void *ctx, int err)
{
    struct server *s = ctx;

    if (err == UV_EMFILE || err == UV_ENFILE)
        s->counters.over_connections++;
    tq_log(TQ_LOG_WARN, "ACCEPT-FAILED", "err=\"%s\"%s", uv_strerror(err),
           err == UV_EMFILE
               ? ": a connection was refused remedy=\"raise the limit of open files (ulimit -n)\""
               : "");
}

static int listen_on(struct server *s, unsigned i, char ret_text[80], char err[TQ_OPT_ERROR_MAX])
{
    const struct config *c = s->config;
    struct sockaddr_storage ss;
    struct listener *l = &s->listeners[i];
    int rv = resolve(s, c->listen[i].host, c->listen[i].port, &ss, err);

    if (rv != TQ_OK)
        return rv;
    address_text(&ss, ret_text);
    if (!is_loopback(&ss)) {
        rv = access_check_address(c, &s->keys, ret_text, err);
        if (rv != TQ_OK)
            return rv;
        if (s->network_address[0] == '\0')
            memcpy(s->network_address, ret_text, sizeof(s->network_address));
    }
    *l = (struct listener){.on_connection = on_connection, .on_error = on_accept_failed, .ctx = s};
    rv = listener_open(l, s->loop, &ss);
    if (rv == 0)
        s->listener_count++;
    if (rv != 0) {
        const char *remedy = rv == UV_EADDRINUSE ? "another program has it: stop that, or take another port"
                             : rv == UV_EADDRNOTAVAIL ? "it is no address of this machine"
                             : rv == UV_EACCES        ? "ports below 1024 need privileges: take a higher one"
                                                      : "choose another --listen";

        snprintf(err, TQ_OPT_ERROR_MAX, "cannot listen on %.80s: %s; %s", ret_text, uv_strerror(rv), remedy);
        return TQ_EIO;
    }
    address_text(&ss, ret_text);
    return TQ_OK;
}

/* ---- opening ---- */

static int declare_queue(struct server *s, const struct config_queue *q, char err[TQ_OPT_ERROR_MAX])
{
    struct broker_queue *queue;
    const char *what = q->name;
    int rv = server_declare_queue(s, q->name, &q->conf, &queue);

    if (rv == TQ_OK)
        ((struct pyobject *)broker_queue_user(queue))->lasting = config_is_standard_queue(q->name);
    for (unsigned i = 0; rv == TQ_OK && i < q->typeid_count; i++) {
        what = q->typeids[i];
        rv = pyregistry_add_typeid(s->registry, queue, what);
    }
    if (rv != TQ_OK)
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot declare queue %.80s: the name '%.80s' %s", q->name, what,
                 rv == TQ_EEXISTS ? "is taken by another queue" : tq_strerror(rv));
    return rv;
}

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
    broker_on_queue_gone(s->broker, forget_queue, s);
    for (unsigned i = 0; rv == TQ_OK && i < s->config->queue_count; i++)
        rv = declare_queue(s, &s->config->queues[i], err);
    return rv;
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

static const char *const kind_names[] = {"fifo", "lifo", "priority"};
static const char *const ack_names[] = {"auto", "explicit", "get"};

static void banner_queue(const struct config_queue *q)
{
    char more[512] = "";
    size_t len = 0;
    char quoted[BROKER_QUEUE_NAME_MAX + 1];

    for (unsigned t = 0; t < q->typeid_count && len < sizeof(more); t++)
        len += (size_t)snprintf(more + len, sizeof(more) - len, ",%s",
                                tq_log_quote(quoted, sizeof(quoted), q->typeids[t], strlen(q->typeids[t])));
    tq_log(TQ_LOG_INFO, "QUEUE", "name=%s kind=%s ack=%s maxsize=%lld result=%s dead=%s typeids=%s,get_%s%s",
           q->name, kind_names[q->conf.kind], ack_names[q->conf.ack], (long long)q->conf.maxsize,
           q->conf.result != NULL ? q->conf.result : "-", q->conf.dead != NULL ? q->conf.dead : "-", q->name,
           q->name, more);
}

static void banner(const struct server *s, char texts[CONFIG_LISTEN_MAX][80])
{
    const struct config *c = s->config;

    for (unsigned i = 0; i < s->listener_count; i++)
        tq_log(TQ_LOG_INFO, "LISTEN", "address=%s", texts[i]);
    for (unsigned i = 0; i < c->queue_count; i++)
        banner_queue(&c->queues[i]);
    if (s->memory_bytes == 0)
        tq_log(TQ_LOG_INFO, "MEMORY", "max_bytes=none: queues may take all the memory there is");
    else
        tq_log(TQ_LOG_INFO, "MEMORY", "max_bytes=%llu%s", (unsigned long long)s->memory_bytes,
               c->limits.memory_bytes == CONFIG_MEMORY_AUTO
                   ? ": three quarters of what there is; --max-memory-bytes says otherwise"
                   : "");
    tq_log(TQ_LOG_INFO, "MODE", "durability=memory: what is queued is gone when this process ends");
    if (c->authkey_warning[0] != '\0')
        tq_log(TQ_LOG_WARN, "AUTHKEY", "%s", c->authkey_warning);
    access_banner(s);
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
        rv = listen_on(s, i, texts[i], err);
    if (rv != TQ_OK)
        return rv;
    banner(s, texts);
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

void server_close(struct server *s)
{
    struct peer *p;
    struct peer *next;

    if (s->stopped)
        return;
    s->stopped = true;
    s->stopping = true;
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
    close_handle((uv_handle_t *)&s->sigterm);
    close_handle((uv_handle_t *)&s->sigint);
    close_handle((uv_handle_t *)&s->sighup);
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

static void report(const struct server *s)
{
    const struct server_counters *c = &s->counters;
    struct broker_stats b;

    broker_get_stats(s->broker, &b);
    tq_log(TQ_LOG_INFO, "STATS",
           "connections=%llu authenticated=%llu calls=%llu puts=%llu gets=%llu acked=%llu returned=%llu "
           "auth_failed=%llu preauth_timeouts=%llu preauth_dropped=%llu protocol_errors=%llu "
           "access_refused=%llu",
           (unsigned long long)c->accepted, (unsigned long long)c->authenticated,
           (unsigned long long)c->calls, (unsigned long long)b.puts, (unsigned long long)b.gets,
           (unsigned long long)b.acked, (unsigned long long)b.returned, (unsigned long long)c->auth_failed,
           (unsigned long long)c->preauth_timeouts, (unsigned long long)c->preauth_dropped,
           (unsigned long long)(c->protocol_errors + c->preauth_protocol +
                                native_counters(s->native)->protocol_errors),
           (unsigned long long)c->access_refused);
    if (b.tasks > 0)
        tq_log(TQ_LOG_WARN, "ITEMS-DROPPED", "items=%llu: they were in memory only",
               (unsigned long long)b.tasks);
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
    report(s);
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
