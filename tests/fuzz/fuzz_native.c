/* Native sessions as a whole: two workers and a producer without a worker id, with the broker behind them.
 * The input is a list of frames and of what else happens: byte 0 of each entry says what, two bytes give the
 * length of its frame. The broker is looked through at the end, and so are the frames that came out. */
#include "master/core/broker_check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/native_host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENTS = 3, STEPS_MAX = 400 };

enum {
    FRAME = 0,
    CLOSE = 4,
    SILENT = 5,
    STALL = 6,
    ADVANCE = 7,
    RIGHTS = 8,
    STOP = 9,
    KEYS = 10,
    RESUME = 11,
    ACTIONS = 12
};

static const uint8_t hellos[CLIENTS][40] = {
    "\x94\x00\x00\xa5hello\x82\xa7version\x01\xa6worker\xa1"
    "a",
    "\x94\x00\x00\xa5hello\x82\xa7version\x01\xa6worker\xa1"
    "b",
    "\x94\x00\x00\xa5hello\x81\xa7version\x01",
};
static const size_t hello_lens[CLIENTS] = {28, 28, 19};

struct run {
    struct native_rig r;
    struct native_client *c[CLIENTS];
    uint8_t token[CLIENTS][NATIVE_TOKEN_BYTES]; /* the newest that each was told */
};

static void note_token(struct tq_span payload, uint8_t token[NATIVE_TOKEN_BYTES])
{
    static const uint8_t key[8] = "\xa5token\xc4\x10";
    const uint8_t *at = memmem(payload.data, payload.len, key, sizeof(key));

    if (at != NULL && (size_t)(payload.data + payload.len - at) >= sizeof(key) + NATIVE_TOKEN_BYTES)
        memcpy(token, at + sizeof(key), NATIVE_TOKEN_BYTES);
}

/* Frames are whole messages, and replies are those of requests. */
static void read_all(struct run *run, unsigned i)
{
    struct native_client *c = run->c[i];
    struct tq_span payload;

    while (native_rig_read(c, &payload)) {
        struct tq_mp m = tq_mp_of(payload);
        const char *why;
        uint32_t count, msgid;
        uint64_t type;

        TQ_ASSERT(tq_mp_walk_all(payload, &why) == TQ_OK);
        TQ_ASSERT(tq_mp_array(&m, &count) && tq_mp_u64(&m, &type));
        TQ_ASSERT((type == 1 && count == 4 && tq_mp_u32(&m, &msgid)) || (type == 2 && count == 3));
        TQ_ASSERT(type == 2 || tq_mp_nil(&m) || tq_mp_peek(&m) == TQ_MP_ARRAY);
        note_token(payload, run->token[i]);
    }
}

static void connect(struct run *run, unsigned i, struct tq_span hello)
{
    if (run->c[i] != NULL) {
        read_all(run, i);
        native_rig_forget(run->c[i]);
    }
    run->c[i] = native_rig_connect(&run->r, i);
    TQ_ASSERT(run->c[i] != NULL);
    native_rig_send(run->c[i], hello);
}

/* Comes back with the token of its session, and says that it has these leases. */
static void resume(struct run *run, unsigned i, struct tq_span leases)
{
    struct tq_buf b = TQ_BUF_NULL(1u << 17);
    struct tq_mp_out o = tq_mp_out(&b);
    const char *why;

    tq_mp_put_raw(&o, tq_span("\x94\x00\x00\xa5hello\x84\xa7version\x01\xa6worker\xa1", 27));
    tq_mp_put_raw(&o, tq_span(i == 0 ? "a" : "b", 1));
    tq_mp_put_cstr(&o, "token");
    tq_mp_put_bin(&o, tq_span(run->token[i], NATIVE_TOKEN_BYTES));
    tq_mp_put_cstr(&o, "leases");
    if (tq_mp_walk_all(leases, &why) == TQ_OK)
        tq_mp_put_raw(&o, leases);
    else
        tq_mp_put_array(&o, 0);
    connect(run, i, tq_buf_span(&b));
    tq_buf_deinit(&b);
}

static void act(struct run *run, uint8_t what, struct tq_span frame)
{
    static const size_t moved[2] = {0, TQ_AUTH_KEY_GONE};
    unsigned i = what >> 4 & 1 ? 2 : what >> 5 & 1;
    struct native_client *c;

    if (run->c[i] == NULL || !run->c[i]->open)
        connect(run, i, tq_span(hellos[i], hello_lens[i]));
    c = run->c[i];
    switch (what % ACTIONS) {
    case CLOSE:
        native_rig_close(c, NATIVE_SOCKET_CLOSED);
        break;
    case SILENT:
        native_rig_close(c, NATIVE_FELL_SILENT);
        break;
    case STALL:
        native_rig_stall(c, !c->stalled);
        break;
    case ADVANCE:
        native_rig_advance(&run->r, (uint64_t)1 << (what >> 4));
        break;
    case RIGHTS:
        run->r.rights[c->conn.key] ^= frame.len > 0 ? frame.data[0] : KEY_GET;
        native_rights_changed(&c->conn, what >> 6 == 3);
        native_rig_flush(&run->r);
        break;
    case STOP:
        native_stop(run->r.native);
        native_rig_flush(&run->r);
        break;
    case KEYS:
        native_keys_moved(run->r.native, moved, 2);
        break;
    case RESUME:
        resume(run, i % 2, frame);
        break;
    default:
        native_rig_send(c, frame);
    }
    if (run->c[i] != NULL)
        read_all(run, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct broker_limits limits = {.queues = 8, .held_per_session = 20, .memory_bytes = 100000};
    struct run run = {0};
    const char *wrong;

    TQ_ASSERT(native_rig_init(&run.r, &limits));
    run.r.host.limits.batch = 50;
    run.r.host.limits.sessions = 6;
    run.r.host.limits.parked_bytes = 500;
    run.r.host.limits.reply_bytes = 300;
    run.r.host.limits.output_bytes = 3000;
    for (unsigned steps = 0; size >= 3 && steps < STEPS_MAX; steps++) {
        size_t len = (size_t)data[1] << 8 | data[2];
        uint8_t what = data[0];

        data += 3;
        size -= 3;
        if (len > size)
            len = size;
        act(&run, what, tq_span(data, len));
        data += len;
        size -= len;
    }
    wrong = broker_check(run.r.broker);
    TQ_ASSERT(wrong == NULL);
    native_rig_advance(&run.r, 1000000);
    TQ_ASSERT(broker_check(run.r.broker) == NULL);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (run.c[i] != NULL)
            read_all(&run, i);
    }
    native_rig_deinit(&run.r);
    return 0;
}
