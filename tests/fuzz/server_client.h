/* Clients of the server in server_world.h: real sockets, the real handshake, and a look at each reply. What
 * replies name (tasks, leases, tokens, idents) is remembered, so that requests can name it. */
#ifndef TESTS_FUZZ_SERVER_CLIENT_H
#define TESTS_FUZZ_SERVER_CLIENT_H

#include "proto/python/manager.h"
#include "tests/fuzz/server_world.h"

enum {
    PYTHON_CLIENTS = 4,
    NATIVE_CLIENTS = 4,
    CONTROL_CLIENT = PYTHON_CLIENTS + NATIVE_CLIENTS, /* Python's short connections */
    CLIENTS,
    KNOWN = 16,
    IDENTS = 4,
    IDENT_BYTES = 96,
    TURNS_MAX = 2000,
    SEND_TRIES = 50
};

struct client {
    int fd; /* -1: closed */
    bool open, failed, stalled;
    bool talked;     /* a frame has gone out */
    uint8_t dialect; /* of its replies */
    uint32_t msgid;
    struct tq_session session;
    struct tq_auth_key key;
    uint8_t token[NATIVE_TOKEN_BYTES];
};

static struct {
    struct client list[CLIENTS];
    struct tq_auth_registry registry;
    struct broker_lease_name leases[KNOWN]; /* the newest ones, round and round */
    uint64_t ids[KNOWN];
    char idents[IDENTS][IDENT_BYTES];
    unsigned lease_count, id_count, ident_count;
    uint64_t first_id; /* of this input */
} clients;

/* ---- replies ---- */

static void client_note_lease(uint64_t id, uint32_t epoch)
{
    clients.leases[clients.lease_count++ % KNOWN] = (struct broker_lease_name){id, epoch};
}

static void client_note_ids(struct tq_mp *m, bool leases)
{
    uint32_t count, parts, epoch;
    uint64_t id;

    if (!tq_mp_array(m, &count)) {
        (void)tq_mp_skip(m);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (leases && tq_mp_array(m, &parts)) {
            TQ_ASSERT(parts >= 2 && tq_mp_u64(m, &id) && tq_mp_u32(m, &epoch));
            client_note_lease(id, epoch);
            for (uint32_t k = 2; k < parts; k++)
                TQ_ASSERT(tq_mp_skip(m));
        } else if (!leases && tq_mp_u64(m, &id)) {
            clients.ids[clients.id_count++ % KNOWN] = id;
        } else {
            TQ_ASSERT(tq_mp_skip(m));
        }
    }
}

static void client_note_result(struct client *c, struct tq_mp *m)
{
    struct tq_span key, bytes;
    uint32_t pairs;

    TQ_ASSERT(tq_mp_map(m, &pairs));
    for (uint32_t i = 0; i < pairs; i++) {
        TQ_ASSERT(tq_mp_str(m, &key));
        if (tq_span_is(key, "leases") || (tq_span_is(key, "tasks") && tq_mp_peek(m) == TQ_MP_ARRAY)) {
            client_note_ids(m, true);
        } else if (tq_span_is(key, "ids")) {
            client_note_ids(m, false);
        } else if (tq_span_is(key, "token") && tq_mp_bin(m, &bytes)) {
            TQ_ASSERT(bytes.len == NATIVE_TOKEN_BYTES);
            memcpy(c->token, bytes.data, bytes.len);
        } else {
            TQ_ASSERT(tq_mp_skip(m));
        }
    }
}

/* Whole messages of the dialect, and nothing else. */
static void client_native_reply(struct client *c, struct tq_span frame)
{
    struct tq_mp m = tq_mp_of(frame);
    struct tq_span text;
    const char *why;
    uint32_t count, msgid;
    uint64_t type;

    TQ_ASSERT(tq_mp_walk_all(frame, &why) == TQ_OK);
    TQ_ASSERT(tq_mp_array(&m, &count) && tq_mp_u64(&m, &type));
    if (type == 2) {
        TQ_ASSERT(count == 3 && tq_mp_str(&m, &text) && tq_mp_peek(&m) == TQ_MP_MAP);
        return;
    }
    TQ_ASSERT(type == 1 && count == 4 && tq_mp_u32(&m, &msgid));
    if (tq_mp_nil(&m)) {
        client_note_result(c, &m);
        return;
    }
    TQ_ASSERT(tq_mp_array(&m, &count) && count == 2 && tq_mp_str(&m, &text) && tq_mp_str(&m, &text));
    TQ_ASSERT(tq_mp_nil(&m) && m.at == m.end);
}

static void client_python_reply(struct tq_span frame)
{
    static const char start[] = "queue:";
    struct tq_py_reply r;
    const char *why = "";
    const uint8_t *at;
    int rv = tq_py_reply_parse(&r, frame, &why);

    if (rv != TQ_OK)
        fprintf(stderr, "reply: %s\n", why);
    TQ_ASSERT(rv == TQ_OK);
    tq_py_reply_deinit(&r);
    at = memmem(frame.data, frame.len, start, sizeof(start) - 1);
    if (at != NULL && at - frame.data >= 4 && at[-4] < IDENT_BYTES && at[-3] == 0 && at[-2] == 0 &&
        at[-1] == 0 && (size_t)(frame.data + frame.len - at) >= at[-4]) {
        char *ident = clients.idents[clients.ident_count++ % IDENTS];

        memcpy(ident, at, at[-4]);
        ident[at[-4]] = '\0';
    }
}

static void client_reply(struct client *c, struct tq_span frame)
{
    TQ_ASSERT(frame.len > 0);
    if (c->dialect == TQ_DIALECT_NONE)
        c->dialect = frame.data[0] == 0x80 ? TQ_DIALECT_PYTHON : TQ_DIALECT_NATIVE;
    if (c->dialect == TQ_DIALECT_NATIVE)
        client_native_reply(c, frame);
    else
        client_python_reply(frame);
}

/* ---- sockets ---- */

static void client_close(struct client *c)
{
    if (c->fd < 0)
        return;
    TQ_ASSERT(close(c->fd) == 0);
    c->fd = -1;
    tq_session_deinit(&c->session);
}

static bool client_send_bytes(struct client *c, struct tq_span bytes);

/* The sessions's events. False: it has ended. */
static bool client_take(struct client *c, struct tq_span in)
{
    struct tq_session_event ev;

    for (;;) {
        tq_session_next(&c->session, &in, &ev);
        switch (ev.kind) {
        case TQ_SESSION_MORE:
            return true;
        case TQ_SESSION_SEND:
            if (!client_send_bytes(c, ev.send))
                return false;
            break;
        case TQ_SESSION_OPEN:
            c->open = true;
            break;
        case TQ_SESSION_FRAME:
            client_reply(c, ev.frame);
            break;
        case TQ_SESSION_FAIL:
            TQ_ASSERT(!c->open); /* the server keeps to the protocol */
            return false;
        }
    }
}

/* Did anything come? */
static bool client_read(struct client *c)
{
    static uint8_t buffer[65536];
    bool any = false;

    while (c->fd >= 0 && !c->stalled) {
        ssize_t n = recv(c->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN)
            break;
        any = true;
        if (n <= 0 || !client_take(c, tq_span(buffer, (size_t)n)))
            client_close(c);
    }
    return any;
}

static bool clients_read(void)
{
    bool any = false;

    for (unsigned i = 0; i < CLIENTS; i++)
        any = client_read(&clients.list[i]) || any;
    return any;
}

/* Until nothing moves. */
static void clients_settle(void)
{
    unsigned quiet = 0;

    for (unsigned i = 0; i < TURNS_MAX && quiet < 2; i++) {
        world_turn();
        quiet = clients_read() ? 0 : quiet + 1;
    }
    TQ_ASSERT(quiet == 2);
}

/* False: it has been closed, for the server is gone, or does not read. */
static bool client_send_bytes(struct client *c, struct tq_span bytes)
{
    for (unsigned i = 0; i < SEND_TRIES && c->fd >= 0 && bytes.len > 0; i++) {
        ssize_t n = send(c->fd, bytes.data, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            bytes = tq_span(bytes.data + n, bytes.len - (size_t)n);
            continue;
        }
        if (errno != EAGAIN)
            break;
        world_turn();
    }
    return c->fd >= 0 && bytes.len == 0;
}

static void client_send(struct client *c, struct tq_span bytes)
{
    if (c->fd >= 0 && bytes.len > 0 && !client_send_bytes(c, bytes))
        client_close(c);
}

static void client_connect(struct client *c, unsigned secret, bool rhel)
{
    static const struct tq_session_limits limits = {256, 6, 1u << 26};

    client_close(c);
    c->fd = world_connect();
    if (c->fd < 0)
        return;
    c->open = c->talked = c->stalled = false;
    c->dialect = TQ_DIALECT_NONE;
    c->key.secret = tq_span_str(world_secrets[secret % WORLD_SECRETS]);
    c->key.name = "";
    TQ_ASSERT(tq_session_init_client(&c->session, &limits, &clients.registry, &c->key, rhel) == TQ_OK);
}

static void client_shake(struct client *c)
{
    struct tq_span none;

    if (c->fd < 0)
        return;
    TQ_ASSERT(tq_session_start(&c->session, &none) == TQ_OK);
    for (unsigned i = 0; i < 8 && c->fd >= 0 && !c->open; i++) {
        world_turn();
        (void)client_read(c);
    }
}

static void clients_begin(void)
{
    if (clients.first_id == 0) {
        for (unsigned i = 0; i < CLIENTS; i++)
            clients.list[i].fd = -1;
        tq_auth_registry_init(&clients.registry);
    }
    clients.first_id = ids_next(world.server.broker->ids);
    clients.lease_count = clients.id_count = clients.ident_count = 0;
    memset(clients.leases, 0, sizeof(clients.leases));
    memset(clients.ids, 0, sizeof(clients.ids));
    memset(clients.idents, 0, sizeof(clients.idents));
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients.list[i].msgid = 0;
        memset(clients.list[i].token, 0, NATIVE_TOKEN_BYTES);
    }
}

static void clients_end(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        client_close(&clients.list[i]);
    TQ_ASSERT(clients.registry.nonces == NULL);
}

#endif
