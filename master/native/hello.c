/* hello and bye. */
#include "master/native/native_impl.h"

#include "common/assert.h"
#include "common/digest.h"
#include "common/mem.h"

#define LEASES_MAX 1000000u

struct hello_fields {
    uint32_t version;
    struct tq_span client, worker, token, leases;
    uint32_t heartbeat_ms;
};

enum { HELLO_VERSION, HELLO_CLIENT, HELLO_WORKER, HELLO_TOKEN, HELLO_LEASES, HELLO_HEARTBEAT };

static const struct native_field hello_list[] = {
    [HELLO_VERSION] = NATIVE_FIELD(struct hello_fields, version, FIELD_U32, .most = UINT32_MAX),
    [HELLO_CLIENT] =
        NATIVE_FIELD(struct hello_fields, client, FIELD_BYTES, .nil = true, .most = NATIVE_CLIENT_MAX),
    [HELLO_WORKER] = NATIVE_FIELD(struct hello_fields, worker, FIELD_BYTES, .nil = true, .least = 1,
                                  .most = NATIVE_WORKER_MAX),
    [HELLO_TOKEN] = NATIVE_FIELD(struct hello_fields, token, FIELD_BYTES, .nil = true,
                                 .least = NATIVE_TOKEN_BYTES, .most = NATIVE_TOKEN_BYTES),
    [HELLO_LEASES] = NATIVE_FIELD(struct hello_fields, leases, FIELD_ARRAY, .nil = true),
    [HELLO_HEARTBEAT] = NATIVE_FIELD(struct hello_fields, heartbeat_ms, FIELD_U32, .nil = true,
                                     .most = NATIVE_HEARTBEAT_MAX_MS),
};

bool native_worker_valid(struct tq_span worker)
{
    for (size_t i = 0; i < worker.len; i++) {
        uint8_t c = worker.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '-' && c <= ':') || c == '_' ||
              c == '@')) /* - . / 0-9 : */
            return false;
    }
    return true;
}

static bool parse_hello(struct native_request *r, struct hello_fields *f, struct native_bad *bad)
{
    uint32_t said;

    if (!native_params(&r->params, &NATIVE_FIELDS(hello_list), f, &said, bad))
        return false;
    if (!(said & 1u << HELLO_VERSION))
        return native_bad(bad, CODE_BAD_REQUEST, "version is missing: the newest that you speak");
    if (f->version == 0)
        return native_bad(bad, CODE_VERSION, "this task-master speaks versions 1 to %u", NATIVE_VERSION);
    if (!native_worker_valid(f->worker))
        return native_bad(bad, CODE_BAD_REQUEST,
                          "worker: \"%s\" has other characters than A-Z a-z 0-9 . _ : @ / -",
                          native_quote(f->worker));
    if ((f->token.len > 0 && f->worker.len == 0) || (f->leases.len > 0 && f->token.len == 0))
        return native_bad(bad, CODE_BAD_REQUEST, "token comes with worker, leases come with token");
    if (f->heartbeat_ms > 0 && f->heartbeat_ms < NATIVE_HEARTBEAT_MIN_MS)
        return native_bad(bad, CODE_BAD_REQUEST, "heartbeat_ms must be 0, or %u to %u",
                          NATIVE_HEARTBEAT_MIN_MS, NATIVE_HEARTBEAT_MAX_MS);
    return true;
}

/* What the worker says that it has in hand; *ret is from tq_malloc. */
static bool parse_in_hand(struct tq_span array, struct broker_lease_name **ret, uint32_t *ret_count,
                          struct native_bad *bad)
{
    struct tq_mp at = tq_mp_of(array), rest;
    uint32_t parts;

    *ret = NULL;
    *ret_count = 0;
    if (array.len == 0)
        return true;
    (void)tq_mp_array(&at, ret_count);
    if (*ret_count > LEASES_MAX)
        return native_bad(bad, CODE_BAD_REQUEST, "leases must have at most %u elements", LEASES_MAX);
    *ret = tq_malloc((*ret_count + 1) * sizeof(**ret));
    if (*ret == NULL)
        return native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
    for (uint32_t i = 0; i < *ret_count; i++) {
        if (!native_parse_lease(&at, &(*ret)[i], &rest, &parts))
            return native_bad(bad, CODE_BAD_REQUEST, "leases[%u] must be [id, epoch]", i);
    }
    return true;
}

/* The leases that the session has from now on are written into n->scratch. */
static bool resume(struct native_request *r, const struct broker_lease_name *leases, uint32_t count,
                   struct native_bad *bad)
{
    struct native *n = r->conn->native;
    struct broker_event ev = {.kind = BROKER_RESUME, .leases = leases, .lease_count = count};
    struct native_call call;
    bool failed;

    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_HELLO) != TQ_OK)
        return native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
    n->resuming = &call;
    failed = native_step(&call, &ev) != TQ_OK || call.ended;
    n->resuming = NULL;
    native_call_free(&call);
    return !failed || native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
}

/* The session of a worker that is known; false: begin a new one, or (bad->code) refuse. */
static bool find_session(struct native_conn *c, const struct hello_fields *f, struct native_session **ret,
                         struct native_bad *bad)
{
    struct native_session *s = native_roster_find(c->native, f->worker);

    bad->code = CODE_NONE;
    if (s == NULL)
        return false;
    if (s->key != c->key)
        return native_bad(bad, CODE_WORKER_TAKEN, "the worker id \"%s\" is in use with another key",
                          native_quote(f->worker));
    if (f->token.len == NATIVE_TOKEN_BYTES &&
        (tq_equal_constant_time(f->token.data, s->token, NATIVE_TOKEN_BYTES) ||
         (s->unconfirmed && tq_equal_constant_time(f->token.data, s->token_before, NATIVE_TOKEN_BYTES)))) {
        *ret = s;
        return true;
    }
    if (s->conn != NULL)
        return native_bad(bad, CODE_WORKER_TAKEN,
                          "another connection has the worker id \"%s\": give each worker one of its own",
                          native_quote(f->worker));
    native_session_end(s);
    return false;
}

static void reply(struct native_request *r, const struct hello_fields *f, bool resumed)
{
    struct native_conn *c = r->conn;
    struct native *n = c->native;
    struct native_host *h = n->host;
    struct native_session *s = c->session;
    struct native_peer peer;
    struct native_out out;
    struct native_map m;

    h->describe(h->ctx, c, &peer);
    out = native_reply_begin(c, r->msgid);
    m = native_map_begin(&out.o, false);
    native_key(&m, "version");
    tq_mp_put_u64(&out.o, f->version < NATIVE_VERSION ? f->version : NATIVE_VERSION);
    native_key(&m, "server");
    tq_mp_put_cstr(&out.o, h->server);
    native_key(&m, "features");
    tq_mp_put_array(&out.o, 0);
    native_key(&m, "now_ms");
    native_put_ms(&out.o, n, native_now(n));
    native_key(&m, "key");
    tq_mp_put_cstr(&out.o, peer.key);
    native_key(&m, "role");
    tq_mp_put_cstr(&out.o, peer.role);
    native_key(&m, "max_frame_bytes");
    tq_mp_put_u64(&out.o, h->limits.frame_bytes);
    native_key(&m, "max_calls");
    tq_mp_put_u64(&out.o, h->limits.calls);
    native_key(&m, "max_batch");
    tq_mp_put_u64(&out.o, h->limits.batch);
    if (f->worker.len > 0) {
        native_key(&m, "worker");
        tq_mp_put_str(&out.o, f->worker);
        native_key(&m, "token");
        tq_mp_put_bin(&out.o, tq_span(s->token, NATIVE_TOKEN_BYTES));
        native_key(&m, "resumed");
        tq_mp_put_bool(&out.o, resumed);
        native_key(&m, "leases");
        tq_mp_put_array(&out.o, n->resumed_count);
        tq_mp_put_raw(&out.o, tq_buf_span(&n->scratch));
    }
    if (f->heartbeat_ms > 0) {
        native_key(&m, "heartbeat_ms");
        tq_mp_put_u64(&out.o, f->heartbeat_ms);
        native_key(&m, "silent_ms");
        tq_mp_put_u64(&out.o, (uint64_t)f->heartbeat_ms * 3);
    }
    native_map_end(&m);
    (void)native_out_end(&out);
}

static void log_session(const struct native_conn *c, bool resumed)
{
    struct native *n = c->native;
    struct native_peer peer;

    n->host->describe(n->host->ctx, c, &peer);
    native_log(n, NATIVE_LOG_DEBUG, "NATIVE-SESSION", "peer=%s key=%s worker=\"%s\" client=\"%s\" resumed=%d",
               peer.peer, peer.key, native_quote(native_session_worker(c->session)),
               native_quote(native_session_client(c->session)), resumed);
}

static bool open_session(struct native_request *r, const struct hello_fields *f,
                         const struct broker_lease_name *leases, uint32_t count, bool *ret_resumed,
                         struct native_bad *bad)
{
    struct native_conn *c = r->conn;
    struct native_session *s = NULL;
    bool good;

    *ret_resumed = false;
    if (f->worker.len > 0) {
        *ret_resumed = find_session(c, f, &s, bad);
        if (!*ret_resumed && bad->code != CODE_NONE)
            return false;
    }
    if (!*ret_resumed)
        return native_session_begin(c, f->worker, f->client, f->heartbeat_ms, bad) == TQ_OK;
    TQ_ASSERT(s != NULL && f->token.data != NULL);
    if (native_session_attach(s, c, f->client, f->heartbeat_ms, bad) != TQ_OK)
        return false;
    good = resume(r, leases, count, bad);
    /* The one that it has shown is good until it has shown that it knows the new one, too. */
    memcpy(s->token_before, f->token.data, NATIVE_TOKEN_BYTES);
    s->unconfirmed = true;
    if (!good)
        native_session_leave(c, NATIVE_FELL_SILENT); /* as if it had not come: it may try again */
    return good;
}

void native_hello(struct native_request *r)
{
    struct native *n = r->conn->native;
    struct broker_lease_name *leases = NULL;
    struct hello_fields f = {0};
    struct native_bad bad;
    uint32_t count = 0;
    bool resumed = false;

    native_buf_give(n, &n->scratch);
    native_buf_take(n, &n->scratch, (size_t)LEASES_MAX * 16);
    n->resumed_count = 0;
    if (r->conn->session != NULL) {
        native_reply_error(r->conn, r->msgid, CODE_REFUSED, "hello was said already on this connection");
    } else if (!parse_hello(r, &f, &bad) || !parse_in_hand(f.leases, &leases, &count, &bad) ||
               !open_session(r, &f, leases, count, &resumed, &bad)) {
        native_bad_reply(r, &bad);
    } else {
        log_session(r->conn, resumed);
        reply(r, &f, resumed);
    }
    native_buf_give(n, &n->scratch);
    tq_free(leases);
}

/* ---- bye ---- */

struct lease_list {
    struct broker_lease_name *list;
    uint32_t count, cap;
};

static void note_lease(void *ctx, const struct broker_view *v)
{
    struct lease_list *l = ctx;

    if (l->count < l->cap)
        l->list[l->count++] = (struct broker_lease_name){.id = v->id, .epoch = v->epoch};
}

/* What it holds was not run: attempts stay as they are. The newest first, so that the oldest is in front. */
static void release_all(struct native_session *s)
{
    struct native_host *h = s->native->host;
    struct lease_list l = {.cap = s->ep.session.held_count};
    struct broker_event ev = {.kind = BROKER_RELEASE, .more = true, .session = &s->ep.session};

    l.list = tq_malloc((l.cap + 1) * sizeof(*l.list));
    if (l.list == NULL)
        return; /* the close gives them back */
    broker_session_leases(h->broker, &s->ep.session, note_lease, &l);
    while (l.count > 0) {
        l.count--;
        ev.id = l.list[l.count].id;
        ev.epoch = l.list[l.count].epoch;
        (void)h->step(h->ctx, &ev);
    }
    tq_free(l.list);
}

void native_bye(struct native_request *r)
{
    struct native_conn *c = r->conn;

    native_calls_drop(c);
    release_all(c->session);
    native_session_end(c->session);
    if (!r->notification)
        native_reply_empty(c, r->msgid);
    native_close(c, NATIVE_CLOSE_FLUSHED, "it said bye");
}
