#include "master/native_peer.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/access/access.h"
#include "master/backup.h"
#include "master/durable.h"

/* What a turn of the loop may gather for one peer before it is written. */
#define FLUSH_BYTES (64u * 1024)

_Static_assert(ACCESS_TEXT_MAX == NATIVE_TEXT_MAX, "a refusal is the text of an error");

struct native_socket {
    struct native_conn conn; /* first */
    struct peer *peer;
    /* With a log, while a write is on its way or held back: of what has gathered in conn.out behind it
     * `settled` bytes have to wait for `need`, those up to `recorded` for the record of this turn (it is in
     * server.unsettled), and those behind them for the next one. */
    struct native_socket *prev, *next;
    bool unsettled;
    uint32_t settled, recorded;
    struct log_need need;
};

static struct peer *peer_of_conn(const struct native_conn *c)
{
    return ((const struct native_socket *)(const void *)c)->peer;
}

/* ---- output ---- */

static void forget_marks(struct native_socket *np)
{
    if (np->unsettled)
        DL_DELETE(np->peer->server->unsettled, np);
    np->unsettled = false;
    np->settled = np->recorded = 0;
}

/* What has been recorded before this turn goes on its own: the rest would keep it waiting. */
static bool hold_settled(struct native_socket *np)
{
    struct native_conn *c = &np->conn;
    struct tq_buf taken;
    uint32_t settled = np->settled;

    if (settled == 0)
        return false;
    native_take_output(c, &taken);
    if (tq_buf_append(&c->out, taken.data + settled, taken.len - settled) != TQ_OK) {
        c->out = taken; /* then the rest does keep it waiting */
        return false;
    }
    taken.len = settled;
    c->unsent = settled;
    c->held = true;
    np->recorded -= settled;
    np->settled = 0;
    peer_send_held(np->peer, &taken, &np->need);
    return true;
}

static void hold_output(struct native_socket *np)
{
    struct native_conn *c = &np->conn;
    struct tq_buf taken;

    if (hold_settled(np))
        return;
    forget_marks(np);
    c->unsent = (uint32_t)c->out.len;
    c->held = true;
    native_take_output(c, &taken);
    peer_send_held(np->peer, &taken, NULL);
}

void native_peer_settle(struct server *s, struct log_need need)
{
    struct native_socket *np;

    while ((np = s->unsettled) != NULL) {
        DL_DELETE(s->unsettled, np);
        np->unsettled = false;
        np->settled = np->recorded;
        np->need = need;
    }
}

/* What is there now will be in the record of this turn. */
static void mark_recorded(struct native_socket *np)
{
    struct server *s = np->peer->server;

    if (s->durable == NULL || np->conn.out.len == 0)
        return;
    np->recorded = (uint32_t)np->conn.out.len; /* a buffer has less than 4 GiB */
    if (!np->unsettled)
        DL_APPEND(s->unsettled, np);
    np->unsettled = true;
}

/* Nothing is on its way. */
static void write_output(struct peer *p)
{
    struct native_conn *c = &p->native->conn;
    struct tq_buf taken;
    size_t len = c->out.len;
    int n;

    if (len == 0)
        return;
    if (peer_must_hold(p)) {
        hold_output(p->native);
        return;
    }
    forget_marks(p->native);
    n = peer_try_write(p, tq_buf_span(&c->out));
    if (n < 0)
        return;
    if ((size_t)n == len) {
        native_written(c);
        return;
    }
    native_take_output(c, &taken);
    c->unsent = (uint32_t)(len - (size_t)n); /* a buffer has less than 4 GiB */
    peer_send_rest(p, &taken, (size_t)n);
}

void native_peer_flush(struct peer *p)
{
    struct native_conn *c;

    if (p->state != PEER_SESSION || !peer_is_native(p))
        return;
    c = &p->native->conn;
    if (c->closing != NATIVE_CLOSE_NOW && p->write == NULL)
        write_output(p);
    if (p->state != PEER_SESSION || c->closing == NATIVE_STAYS)
        return;
    if (c->closing == NATIVE_CLOSE_NOW || (p->write == NULL && c->out.len == 0))
        peer_close(p, c->close_why);
}

void native_peer_sent(struct peer *p)
{
    if (p->state != PEER_SESSION || !peer_is_native(p))
        return;
    p->native->conn.unsent = 0;
    p->native->conn.held = false;
    native_heard(&p->native->conn, server_now_ms(p->server)); /* its requests may have had to wait */
    native_peer_flush(p);
}

bool native_peer_lingers(const struct peer *p)
{
    return p->server->durable != NULL && native_peer_is_pending(p) && p->native->conn.call_count == 0;
}

bool native_peer_is_pending(const struct peer *p)
{
    return p->state == PEER_SESSION && peer_is_native(p) && (p->write != NULL || p->native->conn.out.len > 0);
}

void native_peer_flush_all(struct server *s)
{
    struct native_conn *c;

    while (s->native != NULL && (c = native_next_dirty(s->native)) != NULL) {
        struct peer *p = peer_of_conn(c);

        native_peer_flush(p);
        if (p->state == PEER_SESSION && p->write == NULL)
            peer_resume_later(p); /* its input may have waited for this */
        else if (p->state == PEER_SESSION)
            mark_recorded(p->native);
    }
}

/* ---- input ---- */

void native_peer_rights_changed(struct peer *p)
{
    if (!p->revoked)
        p->native->conn.key = p->session.key_index;
    native_rights_changed(&p->native->conn, p->revoked);
}

static bool open_dialect(struct peer *p)
{
    struct native_socket *np = tq_calloc(1, sizeof(*np));

    if (np == NULL) {
        peer_close(p, "out of memory");
        return false;
    }
    np->peer = p;
    p->native = np;
    p->is_native = true;
    native_open(p->server->native, &np->conn, p->session.key_index);
    peer_set_state(p, PEER_SESSION);
    tq_deadline_clear(&p->server->deadlines, &p->deadline);
    peer_keepalive(p);
    return true;
}

void native_peer_frame(struct peer *p, struct tq_span frame)
{
    if (!peer_is_native(p) && !open_dialect(p))
        return;
    p->server->counters.calls++;
    native_frame(&p->native->conn, frame);
}

void native_peer_read(struct peer *p)
{
    struct native_conn *c = &p->native->conn;

    native_heard(c, server_now_ms(p->server));
    if (c->out.len >= FLUSH_BYTES && p->write == NULL && p->server->durable == NULL)
        native_peer_flush(p);
}

bool native_peer_wants_input(const struct peer *p)
{
    return native_wants_input(&p->native->conn);
}

/* ---- the end ---- */

void native_peer_closed(struct peer *p)
{
    if (peer_is_native(p))
        native_closed(&p->native->conn, p->revoked ? NATIVE_REVOKED : (enum native_closed)p->gone_by);
}

void native_peer_free(struct peer *p)
{
    if (!peer_is_native(p))
        return;
    forget_marks(p->native);
    tq_buf_deinit(&p->native->conn.out);
    tq_free(p->native);
    p->native = NULL;
    p->is_native = false;
}

/* ---- the host ---- */

static uint64_t host_now_ms(void *ctx)
{
    return server_now_ms(ctx);
}

static int host_step(void *ctx, const struct broker_event *ev)
{
    return server_step(ctx, ev);
}

static int host_random(void *ctx, void *out, size_t n)
{
    (void)ctx;
    return tq_random_bytes(out, n);
}

static bool host_allowed(void *ctx, const struct native_conn *c, unsigned any_of, const char *verb,
                         const struct broker_queue *queue, struct tq_span name, char text[NATIVE_TEXT_MAX])
{
    struct peer *p = peer_of_conn(c);
    /* of several rights, the refusal speaks of the least one */
    enum key_right right = (enum key_right)(any_of & ~(any_of - 1));
    char copy[BROKER_QUEUE_NAME_MAX + 1];

    (void)ctx;
    if (queue != NULL || name.len == 0)
        return (any_of != right && (access_rights(p, queue) & any_of) != 0) ||
               access_allowed(p, right, verb, queue, text);
    TQ_ASSERT(name.len < sizeof(copy));
    memcpy(copy, name.data, name.len);
    copy[name.len] = '\0';
    return access_allowed_name(p, right, verb, copy, text);
}

static int host_declare(void *ctx, const char *name, const struct broker_queue_conf *conf,
                        struct broker_queue **ret_queue)
{
    return server_declare_queue(ctx, name, conf, ret_queue);
}

static int host_reconfigure(void *ctx, struct broker_queue *queue, const struct broker_queue_conf *conf)
{
    return server_reconfigure_queue(ctx, queue, conf);
}

static int host_remove(void *ctx, struct broker_queue *queue)
{
    return server_remove_queue(ctx, queue);
}

static void host_describe(void *ctx, const struct native_conn *c, struct native_peer *ret)
{
    const struct peer *p = peer_of_conn(c);
    const struct server *s = ctx;
    const struct key *key = &s->keys.list[p->session.key_index];

    *ret = (struct native_peer){.peer = peer_text(p), .key = key->name, .role = keys_role_name(key->role)};
}

static void host_log(void *ctx, enum native_log_level level, const char *id, const char *text)
{
    static const enum tq_log_level levels[] = {
        [NATIVE_LOG_DEBUG] = TQ_LOG_DEBUG, [NATIVE_LOG_INFO] = TQ_LOG_INFO, [NATIVE_LOG_WARN] = TQ_LOG_WARN};

    (void)ctx;
    tq_log(levels[level], id, "%s", text);
}

static bool host_key_named(void *ctx, struct tq_span name, uint32_t *ret_key)
{
    const struct server *s = ctx;

    for (size_t i = 0; i < s->keys.count; i++) {
        if (tq_span_is(name, s->keys.list[i].name)) {
            *ret_key = (uint32_t)i;
            return true;
        }
    }
    return false;
}

static void host_backup(void *ctx, uint64_t token, const char *dir, struct native_backup *ret)
{
    backup_begin(ctx, token, dir, ret);
}

static unsigned host_stats(void *ctx, struct native_stat *out, unsigned max)
{
    const struct server *s = ctx;
    const struct server_counters *c = &s->counters;
    const struct native_stat all[] = {
        {"connections", s->peer_count},
        {"accepted", c->accepted},
        {"authenticated", c->authenticated},
        {"auth_failed", c->auth_failed},
        {"preauth_timeouts", c->preauth_timeouts},
        {"preauth_dropped", c->preauth_dropped},
        {"preauth_protocol_errors", c->preauth_protocol},
        {"protocol_errors", c->protocol_errors},
        {"write_timeouts", c->write_timeouts},
        {"over_connections", c->over_connections},
        {"access_refused", c->access_refused},
        {"reloads", c->reloads},
        {"max_memory_bytes", s->memory_bytes},
    };
    unsigned n = 0;

    while (n < max && n < sizeof(all) / sizeof(all[0])) {
        out[n] = all[n];
        n++;
    }
    if (s->durable != NULL) {
        n += durable_stats(s, out + n, max - n);
        n += backup_stats(s, out + n, max - n);
    }
    return n;
}

static void on_keys_moved(struct server *s, const size_t *moved, size_t count)
{
    native_keys_moved(s->native, moved, count);
}

static uint32_t at_most(uint64_t n)
{
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

int native_peer_open(struct server *s)
{
    const struct limits *l = &s->config->limits;

    s->native_host = (struct native_host){
        .ctx = s,
        .broker = s->broker,
        .deadlines = &s->deadlines,
        .limits = {.frame_bytes = at_most(l->frame_bytes),
                   .calls = (uint32_t)l->calls,
                   .batch = (uint32_t)l->batch,
                   .sessions = (uint32_t)l->sessions,
                   .reply_bytes = at_most(l->reply_bytes),
                   .output_bytes = at_most(l->output_bytes),
                   .parked_bytes = l->parked_bytes},
        .server = "task-master/" TASKQ_VERSION,
        .durability = s->config->durability,
        .durable = s->config->data_dir != NULL,
        .now_ms = host_now_ms,
        .step = host_step,
        .random = host_random,
        .allowed = host_allowed,
        .declare = host_declare,
        .reconfigure = host_reconfigure,
        .remove = host_remove,
        .describe = host_describe,
        .log = host_log,
        .key_named = host_key_named,
        .backup = host_backup,
        .stats = host_stats,
    };
    s->native = native_new(&s->native_host);
    if (s->native == NULL)
        return TQ_ENOMEM;
    s->on_keys_moved = on_keys_moved;
    return TQ_OK;
}

void native_peer_close(struct server *s)
{
    native_free(s->native);
    s->native = NULL;
}
