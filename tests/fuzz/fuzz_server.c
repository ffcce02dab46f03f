/* The whole daemon and several clients of both dialects at once, over sockets. The input is a script: its
 * first byte sets options, then each entry says what happens next and on which connection; requests are made
 * out of its bytes by a grammar (server_talk.h), or are in it as they are (server_record.py records those of
 * real clients). At the end all connections are closed, and nothing may be left of them. */
#include "tests/fuzz/server_talk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS_MAX = 200, REPEATS_MAX = 40, RELOADS_MAX = 2, FRAME_MAX = 1 << 20 };

enum action {
    CONNECT,
    NATIVE,
    PYTHON_CALL,
    PYTHON_CONTROL,
    FRAME,  /* two bytes of length, payload */
    BYTES,  /* one byte of length, bytes without a header */
    CUT,    /* the next frame is sent in two parts */
    MUTATE, /* a byte of the next frame is another one */
    REPEAT, /* the last frame, several times */
    CLOSE,
    HALF_CLOSE,
    STALL,
    TIME,
    RELOAD,
    FAIL,
    STOP
};

/* bit 7: the loop does not turn after it; bits 4 to 6: the client */
#define NO_TURN 0x80

struct run {
    struct script in;
    struct tq_buf frame; /* the last one, with its header */
    size_t cut;          /* 0: none */
    bool cut_for_good;
    size_t mutate_at;
    uint8_t mutate_by; /* 0: not at all */
    unsigned reloads;
};

/* ---- frames ---- */

static void send_frame(struct run *r, struct client *c)
{
    struct tq_span all;

    if (r->mutate_by != 0 && r->frame.len > 0) {
        r->frame.data[r->mutate_at % r->frame.len] ^= r->mutate_by;
        r->mutate_by = 0;
    }
    all = tq_buf_span(&r->frame);
    if (r->cut != 0 && all.len > 0) {
        size_t n = r->cut % all.len;

        r->cut = 0;
        client_send(c, tq_span(all.data, n));
        clients_settle();
        if (r->cut_for_good) {
            client_close(c);
            return;
        }
        all = tq_span(all.data + n, all.len - n);
    }
    client_send(c, all);
}

/* Ids of a recorded conversation are counted from 1, and are written in 9 bytes. */
static void rebase_ids(uint8_t *p, size_t len)
{
    static const uint8_t mark[7] = {0xcf, 0, 0, 0, 0, 0, 0};
    uint8_t *at;

    while ((at = memmem(p, len, mark, sizeof(mark))) != NULL && (size_t)(p + len - at) >= 9) {
        uint64_t id = clients.first_id - 1 + ((uint64_t)at[7] << 8 | at[8]);

        for (unsigned i = 0; i < 8; i++)
            at[1 + i] = (uint8_t)(id >> (56 - 8 * i));
        len -= (size_t)(at + 9 - p);
        p = at + 9;
    }
}

static void frame_of(struct run *r, struct tq_span payload)
{
    uint8_t header[12];

    tq_buf_clear(&r->frame);
    talk_append(&r->frame, tq_span(header, tq_frame_header(header, payload.len)));
    talk_append(&r->frame, payload);
}

static void connect_if_closed(struct client *c)
{
    if (c->fd >= 0)
        return;
    client_connect(c, 0, false);
    client_shake(c);
}

/* ---- actions ---- */

static void act_connect(struct run *r, struct client *c)
{
    uint8_t b = script_byte(&r->in);

    client_connect(c, b & 7, b & 8);
    if ((b & 0xf0) == 0)
        client_shake(c);
    for (unsigned i = 0; i < b >> 4 && c->fd >= 0; i++) { /* part of a handshake */
        struct tq_span none;

        if (i == 1)
            TQ_ASSERT(tq_session_start(&c->session, &none) == TQ_OK);
        world_turn();
        if (i > 0)
            (void)client_read(c);
    }
}

static void act_native(struct run *r, struct client *c)
{
    struct tq_buf payload = TQ_BUF_NULL(FRAME_MAX);
    struct tq_mp_out o = tq_mp_out(&payload);

    connect_if_closed(c);
    if (!c->talked && r->in.at < r->in.end && *r->in.at % 8 != 7) {
        talk_hello(c, &o, *r->in.at & 8);
        frame_of(r, tq_buf_span(&payload));
        client_send(c, tq_buf_span(&r->frame));
        tq_buf_clear(&payload);
    }
    c->talked = true;
    talk_native(c, &o, &r->in);
    TQ_ASSERT(o.err == 0);
    frame_of(r, tq_buf_span(&payload));
    send_frame(r, c);
    tq_buf_deinit(&payload);
}

static void act_python_call(struct run *r, struct client *c)
{
    struct tq_buf payload = TQ_BUF_NULL(FRAME_MAX);

    connect_if_closed(c);
    if (!c->talked) {
        talk_python_accept(&payload, &r->in);
        frame_of(r, tq_buf_span(&payload));
        client_send(c, tq_buf_span(&r->frame));
        tq_buf_clear(&payload);
    }
    c->talked = true;
    talk_python_call(&payload, &r->in);
    frame_of(r, tq_buf_span(&payload));
    send_frame(r, c);
    tq_buf_deinit(&payload);
}

static void act_python_control(struct run *r)
{
    struct client *c = &clients.list[CONTROL_CLIENT];
    struct tq_buf payload = TQ_BUF_NULL(FRAME_MAX);
    uint8_t secret = script_byte(&r->in);

    client_connect(c, secret < 0x80 ? 0 : secret, false);
    client_shake(c);
    talk_python_control(&payload, &r->in);
    frame_of(r, tq_buf_span(&payload));
    send_frame(r, c);
    tq_buf_deinit(&payload);
}

static void act_frame(struct run *r, struct client *c)
{
    size_t len = (size_t)script_byte(&r->in) << 8;
    size_t header;

    len |= script_byte(&r->in);
    connect_if_closed(c);
    frame_of(r, script_bytes(&r->in, len));
    header = r->frame.data[0] == 0xff ? 12 : TQ_FRAME_HEADER_BYTES;
    rebase_ids(r->frame.data + header, r->frame.len - header);
    c->talked = true;
    send_frame(r, c);
}

static void act_time(struct run *r)
{
    uint8_t b = script_byte(&r->in);

    if (b & 0x80) {
        for (unsigned i = 0; i <= (b & 7u); i++)
            (void)world_jump();
    } else {
        world.ms += (uint64_t)1 << (b & 31);
    }
}

static void act_reload(void)
{
    unsigned long before;

    world_use_keys(world.keys_in_use ^ 1);
    before = world_count_allocations();
    if (!world.server.stopping)
        access_reload(&world.server);
    world_counted_allocations(before);
}

static void act(struct run *r, uint8_t what)
{
    unsigned who = what >> 4 & 7;
    struct client *c = &clients.list[who];
    struct client *python = &clients.list[who % PYTHON_CLIENTS];
    struct client *native = &clients.list[PYTHON_CLIENTS + who % NATIVE_CLIENTS];

    switch ((enum action)(what & 15)) {
    case CONNECT:
        act_connect(r, c);
        break;
    case NATIVE:
        act_native(r, native);
        break;
    case PYTHON_CALL:
        act_python_call(r, python);
        break;
    case PYTHON_CONTROL:
        act_python_control(r);
        break;
    case FRAME:
        act_frame(r, c);
        break;
    case BYTES:
        connect_if_closed(c);
        c->talked = true;
        client_send(c, script_bytes(&r->in, script_byte(&r->in)));
        break;
    case CUT:
        r->cut = 1 + (size_t)script_byte(&r->in);
        r->cut_for_good = who & 1;
        break;
    case MUTATE:
        r->mutate_at = script_byte(&r->in);
        r->mutate_by = script_byte(&r->in);
        break;
    case REPEAT:
        for (unsigned i = 1 + script_byte(&r->in) % REPEATS_MAX; i > 0; i--)
            client_send(c, tq_buf_span(&r->frame));
        break;
    case CLOSE:
        client_close(c);
        break;
    case HALF_CLOSE:
        if (c->fd >= 0)
            (void)shutdown(c->fd, SHUT_WR);
        break;
    case STALL:
        c->stalled = !c->stalled;
        break;
    case TIME:
        act_time(r);
        break;
    case RELOAD:
        if (r->reloads++ < RELOADS_MAX) /* they cost much */
            act_reload();
        break;
    case FAIL:
        world.fail_after = script_byte(&r->in);
        break;
    case STOP: /* rarely: it costs much */
        if (script_byte(&r->in) == 's')
            server_stop(&world.server, "the script says so", 0);
        break;
    }
    if ((what & NO_TURN) == 0)
        clients_settle();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run r = {.in = {data, data + size}, .frame = TQ_BUF_NULL(FRAME_MAX)};
    uint8_t options;

    if (size == 0)
        return 0;
    if (!world.open)
        world_open();
    clients_begin();
    options = script_byte(&r.in);
    world.config.wait_pipelined = options & 1;
    world.config.allow_shutdown = options & 2;
    world.config.refuse_md5 = options & 4;
    world.fail_after = -1;
    for (unsigned i = 0; i < STEPS_MAX && r.in.at < r.in.end && !world.server.stopped; i++)
        act(&r, script_byte(&r.in));
    if (!world.server.stopped)
        world_check();
    clients_end();
    world_restore();
    tq_buf_deinit(&r.frame);
    return 0;
}
