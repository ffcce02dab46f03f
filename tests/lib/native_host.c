#include "tests/lib/native_host.h"

#include <stdlib.h>
#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal.h"

/* ---- what the dialect asks of its host ---- */

static uint64_t now_ms(void *ctx)
{
    return ((struct native_rig *)ctx)->now_ms;
}

static void run_effects(struct native_rig *r)
{
    if (r->running_effects)
        return;
    r->running_effects = true;
    for (size_t i = 0; i < r->effects.count; i++) {
        struct broker_effect fx = r->effects.list[i]; /* the list may move */
        struct endpoint *ep = (struct endpoint *)(void *)fx.session;

        ep->on_effect(ep, &fx);
    }
    broker_effects_clear(&r->effects);
    r->running_effects = false;
}

static int step(void *ctx, const struct broker_event *ev)
{
    struct native_rig *r = ctx;
    int rv = broker_step(r->broker, r->now_ms, ev, &r->effects);

    run_effects(r);
    return rv;
}

/* splitmix64 */
static int random_bytes(void *ctx, void *out, size_t n)
{
    struct native_rig *r = ctx;
    uint8_t *p = out;

    for (size_t i = 0; i < n; i++) {
        uint64_t z = r->random_state += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        p[i] = (uint8_t)(z >> 40);
    }
    return TQ_OK;
}

static bool allowed(void *ctx, const struct native_conn *c, unsigned any_of, const char *verb,
                    const struct broker_queue *queue, struct tq_span name, char text[NATIVE_TEXT_MAX])
{
    struct native_rig *r = ctx;
    uint32_t key = c->key % NATIVE_RIG_KEYS;
    const char *only = r->only_queue[key];
    bool here = only == NULL || (queue == NULL && name.len == 0) ||
                (queue != NULL ? strcmp(broker_queue_name(queue), only) == 0 : tq_span_is(name, only));

    if (here && (r->rights[key] & any_of) != 0)
        return true;
    r->denied++;
    (void)snprintf(text, NATIVE_TEXT_MAX, "the key 'k%u' may not %s", key, verb);
    return false;
}

static int declare(void *ctx, const char *name, const struct broker_queue_conf *conf,
                   struct broker_queue **ret_queue)
{
    return broker_declare(((struct native_rig *)ctx)->broker, name, conf, ret_queue);
}

static int reconfigure(void *ctx, struct broker_queue *queue, const struct broker_queue_conf *conf)
{
    struct native_rig *r = ctx;
    int rv = broker_reconfigure(r->broker, r->now_ms, queue, conf, &r->effects);

    run_effects(r);
    return rv;
}

static int remove_queue(void *ctx, struct broker_queue *queue)
{
    struct native_rig *r = ctx;

    if (queue == r->kept_queue)
        return TQ_EINVAL;
    broker_remove(r->broker, queue, &r->effects);
    run_effects(r);
    return TQ_OK;
}

static void backup(void *ctx, uint64_t token, const char *dir, struct native_backup *ret)
{
    struct native_rig *r = ctx;

    r->backup_token = token;
    (void)snprintf(r->backup_dir, sizeof(r->backup_dir), "%.60s", dir);
    *ret = r->backup;
}

static const char *const key_names[NATIVE_RIG_KEYS] = {"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"};

static bool key_named(void *ctx, struct tq_span name, uint32_t *ret_key)
{
    const struct native_rig *r = ctx;

    for (uint32_t i = 0; i < NATIVE_RIG_KEYS; i++) {
        if (tq_span_is(name, key_names[i])) {
            *ret_key = i;
            return !r->gone_keys[i];
        }
    }
    return false;
}

static void describe(void *ctx, const struct native_conn *c, struct native_peer *ret_peer)
{
    (void)ctx;
    *ret_peer = (struct native_peer){
        .peer = "127.0.0.1:1", .key = key_names[c->key % NATIVE_RIG_KEYS], .role = "admin"};
}

static void take_log(void *ctx, enum native_log_level level, const char *id, const char *text)
{
    (void)level;
    ((struct native_rig *)ctx)->logged++;
    TQ_ASSERT(id[0] >= 'A' && id[0] <= 'Z');
    for (const char *p = text; *p != '\0'; p++)
        TQ_ASSERT(*p >= ' ' && *p <= '~');
}

static unsigned stats(void *ctx, struct native_stat *out, unsigned max)
{
    const struct native_rig *r = ctx;

    TQ_ASSERT(max > 0);
    out[0] = (struct native_stat){.name = "denied", .value = r->denied};
    return 1;
}

/* ---- the rig ---- */

static bool init(struct native_rig *r, const struct broker_limits *limits)
{
    static const struct broker_limits small = {.queues = 50, .held_per_session = 500};

    *r = (struct native_rig){.now_ms = 1000};
    r->host = (struct native_host){.ctx = r,
                                   .deadlines = &r->deadlines,
                                   .limits = {.frame_bytes = 1u << 20,
                                              .calls = 16,
                                              .batch = 1000,
                                              .sessions = 32,
                                              .reply_bytes = 64 * 1024,
                                              .output_bytes = 512 * 1024,
                                              .parked_bytes = 256 * 1024},
                                   .unix_offset_ms = 1700000000000,
                                   .server = "task-master/0",
                                   .now_ms = now_ms,
                                   .step = step,
                                   .random = random_bytes,
                                   .allowed = allowed,
                                   .declare = declare,
                                   .reconfigure = reconfigure,
                                   .remove = remove_queue,
                                   .describe = describe,
                                   .log = take_log,
                                   .key_named = key_named,
                                   .backup = backup,
                                   .stats = stats};
    for (unsigned i = 0; i < NATIVE_RIG_KEYS; i++)
        r->rights[i] = KEY_ALL;
    tq_deadlines_init(&r->deadlines);
    r->broker = broker_new(&r->deadlines, limits != NULL ? limits : &small, NULL);
    if (r->broker == NULL)
        return false;
    r->host.broker = r->broker;
    r->native = native_new(&r->host);
    return r->native != NULL;
}

bool native_rig_init_durable(struct native_rig *r, const struct broker_limits *limits)
{
    if (!init(r, limits) || broker_journal_enable(r->broker) != TQ_OK)
        return false;
    native_journal_enable(r->native);
    r->host.durable = true;
    return true;
}

bool native_rig_init(struct native_rig *r, const struct broker_limits *limits)
{
    struct broker_queue_conf conf;
    struct broker_queue *q;

    if (!init(r, limits))
        return false;
    r->host.durability = BROKER_DURABILITY_MEMORY;
    broker_queue_conf_init(&conf);
    if (broker_declare(r->broker, "result_queue", &conf, &q) != TQ_OK)
        return false;
    conf.result = "result_queue";
    return broker_declare(r->broker, "task_queue", &conf, &q) == TQ_OK;
}

void native_rig_deinit(struct native_rig *r)
{
    while (r->clients != NULL)
        native_rig_forget(r->clients);
    native_free(r->native);
    if (r->broker != NULL)
        broker_free(r->broker);
    broker_effects_deinit(&r->effects);
    tq_deadlines_deinit(&r->deadlines);
}

void native_rig_advance(struct native_rig *r, uint64_t ms)
{
    uint64_t end = r->now_ms + ms;

    for (;;) {
        uint64_t next = tq_deadlines_next_ms(&r->deadlines);
        struct tq_deadline *d;

        if (next > end)
            break;
        if (next > r->now_ms)
            r->now_ms = next;
        while ((d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL) {
            struct broker_event ev = {.kind = BROKER_DUE, .deadline = d};

            if (d->kind == NATIVE_DEADLINE)
                native_on_deadline(r->native, d);
            else
                (void)step(r, &ev);
        }
        native_rig_flush(r);
    }
    r->now_ms = end;
}

void native_rig_refuse_new_work(struct native_rig *r, bool refuse)
{
    broker_refuse_new_work(r->broker, r->now_ms, refuse, &r->effects);
    run_effects(r);
    native_rig_flush(r);
}

void native_rig_set_room(struct native_rig *r, uint64_t new_work_bytes, uint64_t completion_bytes)
{
    broker_set_room(r->broker, r->now_ms, new_work_bytes, completion_bytes, &r->effects);
    run_effects(r);
    native_rig_flush(r);
}

struct native_client *native_rig_connect(struct native_rig *r, uint32_t key)
{
    struct native_client *c = tq_calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->rig = r;
    c->open = true;
    tq_buf_init(&c->in, SIZE_MAX / 2);
    tq_buf_init(&c->frame, SIZE_MAX / 2);
    native_open(r->native, &c->conn, key);
    DL_APPEND(r->clients, c);
    return c;
}

void native_rig_send(struct native_client *c, struct tq_span payload)
{
    uint8_t *copy;

    if (!c->open || !native_wants_input(&c->conn))
        return;
    copy = malloc(payload.len > 0 ? payload.len : 1); /* not tq_malloc: no test makes it fail */
    TQ_ASSERT(copy != NULL);
    if (payload.len > 0)
        memcpy(copy, payload.data, payload.len);
    native_frame(&c->conn, tq_span(copy, payload.len));
    free(copy);
    native_rig_flush(c->rig);
}

void native_rig_close(struct native_client *c, enum native_closed how)
{
    if (!c->open)
        return;
    c->open = false;
    native_closed(&c->conn, how);
    native_rig_flush(c->rig);
}

void native_rig_forget(struct native_client *c)
{
    native_rig_close(c, NATIVE_SOCKET_CLOSED);
    DL_DELETE(c->rig->clients, c);
    tq_buf_deinit(&c->in);
    tq_buf_deinit(&c->frame);
    tq_free(c);
}

/* In one of the two ways that hosts have. False when out of memory. */
static bool write_output(struct native_client *c)
{
    struct native_conn *conn = &c->conn;
    struct tq_buf taken;
    bool good;

    if (conn->out.len % 2 == 0) {
        good = tq_buf_append(&c->in, conn->out.data, conn->out.len) == TQ_OK;
        native_written(conn);
        return good;
    }
    native_take_output(conn, &taken);
    good = tq_buf_append(&c->in, taken.data, taken.len) == TQ_OK;
    native_give_back(c->rig->native, &taken);
    return good;
}

static void attend(struct native_client *c)
{
    struct native_conn *conn = &c->conn;
    bool close = conn->closing != NATIVE_STAYS;

    if (conn->closing != NATIVE_CLOSE_NOW && !c->stalled && conn->out.len > 0)
        close |= !write_output(c);
    if (close)
        native_rig_close(c, NATIVE_SOCKET_CLOSED);
}

void native_rig_flush(struct native_rig *r)
{
    struct native_conn *conn;

    while ((conn = native_next_dirty(r->native)) != NULL)
        attend((struct native_client *)(void *)conn);
}

void native_rig_stall(struct native_client *c, bool stalled)
{
    c->stalled = stalled;
    if (c->open)
        attend(c);
    native_rig_flush(c->rig);
}

bool native_rig_read(struct native_client *c, struct tq_span *ret_payload)
{
    uint32_t len;

    if (c->in.len < 4)
        return false;
    len = tq_load_be32(c->in.data);
    TQ_ASSERT(len > 0 && len <= INT32_MAX && c->in.len - 4 >= len);
    tq_buf_clear(&c->frame);
    if (tq_buf_append(&c->frame, c->in.data + 4, len) != TQ_OK)
        return false;
    tq_buf_consume(&c->in, 4 + (size_t)len);
    *ret_payload = tq_buf_span(&c->frame);
    return true;
}
