/* Requests that are mostly good, of both dialects, made out of the bytes of a script: so that a few bytes say
 * what would take a fuzzer long to find. */
#ifndef TESTS_FUZZ_SERVER_TALK_H
#define TESTS_FUZZ_SERVER_TALK_H

#include "tests/fuzz/server_client.h"

struct script {
    const uint8_t *at;
    const uint8_t *end;
};

/* 0 at its end. */
static uint8_t script_byte(struct script *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static struct tq_span script_bytes(struct script *in, size_t n)
{
    struct tq_span s = tq_span(in->at, n < (size_t)(in->end - in->at) ? n : (size_t)(in->end - in->at));

    in->at += s.len;
    return s;
}

#define PICK(list, n) (list)[(n) % (sizeof(list) / sizeof((list)[0]))]

static const char *const talk_queues[] = {"task_queue", "result_queue", "prio",  "lifo",
                                          "once",       "late",         "back",  "grave",
                                          "mine",       "mine2",        "other", "not a name!"};
static const char *const talk_words[] = {"",       "a",        "b",    "key",   "ready", "delayed",
                                         "leased", "done",     "dead", "fifo",  "lifo",  "priority",
                                         "auto",   "explicit", "get",  "block", "reject"};
static const int64_t talk_numbers[] = {
    0,     1,   2,     3,         5,         10,   50,    100,        1000,      -1,  -2,
    30000, 255, 60000, INT32_MAX, INT32_MIN, 4096, 65536, UINT32_MAX, INT64_MAX, 250, (int64_t)1 << 53};

/* ---- the native dialect ---- */

/* A body of any type; one byte of 8 a long one. */
static void talk_value(struct tq_mp_out *o, struct script *in)
{
    static const uint8_t zeros[3000];
    uint8_t b = script_byte(in);

    switch (b & 15) {
    case 0:
        tq_mp_put_nil(o);
        break;
    case 1:
        tq_mp_put_bool(o, b & 16);
        break;
    case 2:
        tq_mp_put_float(o, (double)b / 7);
        break;
    case 3:
        tq_mp_put_cstr(o, PICK(talk_words, b >> 4));
        break;
    case 4:
        tq_mp_put_bin(o, tq_span(zeros, (size_t)b * 10));
        break;
    case 5:
        tq_mp_put_array(o, 2);
        tq_mp_put_u64(o, b);
        tq_mp_put_cstr(o, "in a list");
        break;
    case 6:
        tq_mp_put_map(o, 1);
        tq_mp_put_cstr(o, "k");
        tq_mp_put_u64(o, b);
        break;
    case 7: /* what only Python can read */
        tq_mp_put_ext(o, 80,
                      b & 16 ? tq_span("\x80\x02"
                                       "cq\nA\n)\x81.",
                                       10)
                             : tq_span("no pickle", 9));
        break;
    case 8:
        tq_mp_put_ext(o, b & 16 ? -1 : 5, tq_span(zeros, b & 32 ? 4 : 12));
        break;
    case 9:
        tq_mp_put_str(o, tq_span("\xff\xfe", 2));
        break;
    default:
        tq_mp_put_i64(o, PICK(talk_numbers, b >> 4));
    }
}

static void talk_lease(struct tq_mp_out *o, struct script *in, bool more)
{
    uint8_t b = script_byte(in);
    const struct broker_lease_name *l = &clients.leases[(clients.lease_count - 1 - (b & 7)) % KNOWN];

    tq_mp_put_array(o, more ? 3 : 2);
    tq_mp_put_u64(o, b & 16 ? clients.first_id + (b & 7) : l->id);
    tq_mp_put_u64(o, l->epoch - (b >> 7 & (l->epoch != 0)));
}

static void talk_id(struct tq_mp_out *o, struct script *in)
{
    uint8_t b = script_byte(in);

    if (b & 64)
        tq_mp_put_u64(o, clients.first_id + (b & 63));
    else if (b & 32)
        tq_mp_put_u64(o, clients.leases[(clients.lease_count - 1 - (b & 7)) % KNOWN].id);
    else
        tq_mp_put_u64(o, clients.ids[(clients.id_count - 1 - (b & 7)) % KNOWN]);
}

static void talk_map(struct tq_mp_out *o, struct script *in, const char *fields, unsigned needed);

/* One field: its name and a value that may be right. Names that stand for several are in talk_map. */
static void talk_field(struct tq_mp_out *o, struct script *in, char field)
{
    static const struct {
        char field;
        char type;
        const char *name;
    } names[] = {
        {'q', 'q', "q"},
        {'T', 'T', "tasks"},
        {'o', 'o', "opts"},
        {'w', 'n', "wait_ms"},
        {'x', 'n', "max"},
        {'t', 'b', "take"},
        {'D', 'D', "done"},
        {'F', 'F', "fail"},
        {'g', 'g', "get"},
        {'a', 'q', "to"},
        {'l', 'l', "leases"},
        {'M', 'n', "ms"},
        {'i', 'i', "id"},
        {'K', 's', "key"},
        {'c', 'm', "call"},
        {'I', 'I', "ids"},
        {'f', 'n', "from"},
        {'S', 's', "state"},
        {'B', 'b', "bodies"},
        {'v', 'v', "version"},
        {'C', 's', "client"},
        {'W', 'W', "worker"},
        {'k', 'k', "token"},
        {'h', 'n', "heartbeat_ms"},
        {'u', 'b', "update"},
        {'P', 'n', "priority"},
        {'d', 'n', "delay_ms"},
        {'L', 'n', "ttl_ms"},
        {'A', 'n', "max_attempts"},
        {'R', 'q', "result"},
        {'r', 'n', "retention_ms"},
        {'Z', 's', "trace"},
        {'1', 's', "kind"},
        {'2', 's', "ack"},
        {'3', 'n', "maxsize"},
        {'4', 's', "full"},
        {'5', 'n', "max_deliveries"},
        {'6', 'n', "retry_ms"},
        {'7', 'n', "retry_max_ms"},
        {'8', 'n', "lease_ms"},
        {'9', 'n', "grace_ms"},
        {'0', 'q', "dead"},
        {'+', 'n', "rate_per_s"},
        {'-', 'n', "rate_burst"},
        {'*', 'n', "concurrency"},
        {'p', 'b', "paused"},
        {'e', 'n', "expires_ms"},
        {'E', 's', "error"},
        {'!', 'n', "code"},
        {'$', 'b', "final"},
    };
    unsigned i = 0;
    uint8_t b;
    unsigned count;

    while (names[i].field != field)
        i++;
    tq_mp_put_cstr(o, names[i].name);
    switch (names[i].type) {
    case 'q':
        b = script_byte(in);
        if (b == 255)
            tq_mp_put_nil(o);
        else
            tq_mp_put_cstr(o, PICK(talk_queues, b));
        return;
    case 'n':
        tq_mp_put_i64(o, PICK(talk_numbers, script_byte(in)));
        return;
    case 'b':
        tq_mp_put_bool(o, script_byte(in) & 1);
        return;
    case 's':
        tq_mp_put_cstr(o, PICK(talk_words, script_byte(in)));
        return;
    case 'v':
        tq_mp_put_u64(o, 1);
        return;
    case 'm':
        tq_mp_put_u64(o, script_byte(in));
        return;
    case 'i':
        talk_id(o, in);
        return;
    case 'W':
        tq_mp_put_cstr(o, script_byte(in) & 1 ? "w1" : "w2");
        return;
    case 'k':
        b = script_byte(in);
        tq_mp_put_bin(o,
                      tq_span(clients.list[PYTHON_CLIENTS + b % NATIVE_CLIENTS].token, NATIVE_TOKEN_BYTES));
        return;
    case 'o':
        talk_map(o, in, "KPdLARrZ", 0);
        return;
    case 'g':
        talk_map(o, in, "qxwt", 1);
        return;
    }
    count = script_byte(in) & 7;
    tq_mp_put_array(o, count);
    for (unsigned k = 0; k < count; k++) {
        switch (names[i].type) {
        case 'I':
            talk_id(o, in);
            break;
        case 'l':
            talk_lease(o, in, false);
            break;
        case 'D':
            talk_lease(o, in, true);
            talk_value(o, in);
            break;
        case 'F':
            talk_lease(o, in, true);
            talk_map(o, in, "E!$d", 0);
            break;
        default: /* T */
            b = script_byte(in);
            tq_mp_put_array(o, b & 1 ? 2 : 1);
            talk_value(o, in);
            if (b & 1)
                talk_map(o, in, "KPdLARrZ", 0);
        }
    }
}

/* The first `needed` fields are there, the others if a bit says so. */
static void talk_map(struct tq_mp_out *o, struct script *in, const char *fields, unsigned needed)
{
    unsigned count = (unsigned)strlen(fields);
    uint32_t mask = 0;

    for (unsigned i = needed; i < count; i += 8)
        mask |= (uint32_t)script_byte(in) << i;
    for (unsigned i = 0; i < needed; i++)
        mask |= UINT32_C(1) << i;
    mask &= (UINT32_C(1) << count) - 1;
    tq_mp_put_map(o, (uint32_t)__builtin_popcount(mask));
    for (unsigned i = 0; i < count; i++) {
        if (mask >> i & 1)
            talk_field(o, in, fields[i]);
    }
}

static const struct {
    const char *name;
    const char *fields;
    unsigned needed;
} talk_methods[] = {
    {"put", "qTow", 2},
    {"get", "qxwt", 3},
    {"done", "Dga", 1},
    {"done", "gDFa", 1},
    {"fail", "FDga", 1},
    {"extend", "lM", 1},
    {"release", "l", 1},
    {"wait", "iwqK", 2},
    {"wait", "qKw", 2},
    {"join", "qw", 1},
    {"cancel", "c", 1},
    {"ping", "", 0},
    {"bye", "", 0},
    {"declare", "quLARr1234567890+-*pe", 1},
    {"declare", "qe3uLARr124567890+-*p", 2},
    {"delete", "q", 1},
    {"purge", "q", 1},
    {"pause", "q", 1},
    {"resume", "q", 1},
    {"remove", "I", 1},
    {"retry", "Iqfx", 0},
    {"stats", "q", 0},
    {"queues", "fx", 0},
    {"tasks", "qSfxB", 1},
    {"workers", "fx", 0},
    {"hello", "vWkhlC", 3},
    {"nothing", "q", 0},
};

static void talk_hello(struct client *c, struct tq_mp_out *o, bool worker)
{
    unsigned i = (unsigned)(c - clients.list);

    tq_mp_put_array(o, 4);
    tq_mp_put_u64(o, 0);
    tq_mp_put_u64(o, c->msgid++);
    tq_mp_put_cstr(o, "hello");
    tq_mp_put_map(o, worker ? 2 : 1);
    tq_mp_put_cstr(o, "version");
    tq_mp_put_u64(o, 1);
    if (worker) {
        tq_mp_put_cstr(o, "worker");
        tq_mp_put_cstr(o, i & 1 ? "w1" : "w2");
    }
}

static void talk_native(struct client *c, struct tq_mp_out *o, struct script *in)
{
    uint8_t method = script_byte(in);
    unsigned i = method % (sizeof(talk_methods) / sizeof(talk_methods[0]));

    tq_mp_put_array(o, method >= 250 ? 3 : 4);
    tq_mp_put_u64(o, method >= 250 ? 2 : 0);
    if (method < 250)
        tq_mp_put_u64(o, c->msgid++);
    tq_mp_put_cstr(o, talk_methods[i].name);
    talk_map(o, in, talk_methods[i].fields, talk_methods[i].needed);
}

/* ---- Python's dialect ---- */

static void talk_append(struct tq_buf *b, struct tq_span s)
{
    TQ_ASSERT(s.len == 0 || tq_buf_append(b, s.data, s.len) == TQ_OK);
}

static void talk_pickled_text(struct tq_buf *b, const char *text)
{
    size_t n = strlen(text);
    uint8_t head[5] = {'X', (uint8_t)n, (uint8_t)(n >> 8), 0, 0};

    talk_append(b, tq_span(head, 5));
    talk_append(b, tq_span_str(text));
}

static void talk_pickled_value(struct tq_buf *b, struct script *in)
{
#define LIT(s)                                                                                               \
    {                                                                                                        \
        s, sizeof(s) - 1                                                                                     \
    }
    static const struct {
        const char *text;
        size_t len;
    } values[] = {
        LIT("N"),
        LIT("\x88"),
        LIT("\x89"),
        LIT("K\x00"),
        LIT("K\x05"),
        LIT("J\xff\xff\xff\xff"),
        LIT("G\x3f\xe0\x00\x00\x00\x00\x00\x00"), /* 0.5 */
        LIT("G\x7f\xf8\x00\x00\x00\x00\x00\x00"), /* nan */
        LIT("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        LIT("X\x03\x00\x00\x00"
            "abc"),
        LIT("C\x02\x00\xff"),
        LIT("K\x01"
            "X\x01\x00\x00\x00"
            "b\x86"), /* (1, 'b') */
        LIT("K\x02X\x01\x00\x00\x00"
            "a\x86"),
        LIT("](K\x01K\x02"
            "e"),
        LIT("}X\x01\x00\x00\x00kK\x01s"),
        LIT("cqueue\nA\n)\x81"), /* an object */
        LIT("cqueue\nA\n)\x81}X\x01\x00\x00\x00xK\x01sb"),
        LIT("]q\x05h\x05"
            "a"),     /* a list in itself */
        LIT("h\x00"), /* what the envelope may have kept */
        LIT("\x8f(K\x01\x90"),
        LIT("F1.5\n"),
    };
#undef LIT
    uint8_t n = script_byte(in);

    if (n >= 0xf8) { /* a long one */
        static const uint8_t zeros[4096];
        uint32_t len = (uint32_t)(n & 7) * 512;
        uint8_t head[5] = {'B', (uint8_t)len, (uint8_t)(len >> 8), 0, 0};

        talk_append(b, tq_span(head, 5));
        talk_append(b, tq_span(zeros, len));
        return;
    }
    talk_append(b, tq_span(PICK(values, n).text, PICK(values, n).len));
}

/* (ident, function, args, kwds); `first` is an argument of its own, or NULL. */
static void talk_pickled_request(struct tq_buf *b, const char *ident, const char *function, const char *first,
                                 struct script *in)
{
    static const char *const names[] = {"item", "block", "timeout", "immediate", "maxsize", "other"};
    uint8_t more =
        script_byte(in); /* 2 bits: arguments, 2 bits: by keyword, 1: protocol, 1: framed in tuples */

    talk_append(b, tq_span(more & 16 ? "\x80\x04" : "\x80\x02", 2));
    talk_append(b, tq_span("(", 1));
    if (ident != NULL)
        talk_pickled_text(b, ident);
    else
        talk_append(b, tq_span("N", 1));
    talk_append(b, tq_span("q\x00", 2));
    talk_pickled_text(b, function);
    talk_append(b, tq_span("(", 1));
    if (first != NULL)
        talk_pickled_text(b, first);
    for (unsigned i = 0; i < (more & 3u); i++)
        talk_pickled_value(b, in);
    talk_append(b, tq_span("t}", 2));
    for (unsigned i = 0; i < (more >> 2 & 3u); i++) {
        talk_pickled_text(b, PICK(names, script_byte(in)));
        talk_pickled_value(b, in);
        talk_append(b, tq_span("s", 1));
    }
    talk_append(b, tq_span("t.", 2));
}

static const char *talk_ident(struct script *in)
{
    static const char *const idents[] = {"queue:task_queue",
                                         "queue:result_queue",
                                         "queue:prio",
                                         "queue:lifo",
                                         "queue:once",
                                         "queue:late",
                                         "queue:grave",
                                         "nothing",
                                         "queue:task_queue#00000000000000aa"};
    uint8_t n = script_byte(in);

    if (n < 0x80 || clients.ident_count == 0)
        return PICK(idents, n);
    n = n % IDENTS;
    return clients.idents[n < clients.ident_count ? n : 0];
}

static void talk_python_call(struct tq_buf *b, struct script *in)
{
    static const char *const methods[] = {"put",     "get",      "put_nowait", "get_nowait", "qsize",
                                          "empty",   "full",     "task_done",  "join",       "shutdown",
                                          "__str__", "__repr__", "#GETVALUE",  "clear"};
    const char *ident = talk_ident(in);

    talk_pickled_request(b, ident, PICK(methods, script_byte(in)), NULL, in);
}

static void talk_python_accept(struct tq_buf *b, struct script *in)
{
    static const char *const names[] = {"MainProcess", "MainProcess|Thread-1", "ForkProcess-1",
                                        "Process-2",   "SpawnPoolWorker-1",    "a \"name\"\n"};
    struct script none = {0};

    talk_pickled_request(b, NULL, "accept_connection", PICK(names, script_byte(in)), &none);
}

static void talk_python_control(struct tq_buf *b, struct script *in)
{
    static const char *const typeids[] = {"get_task_queue", "get_result_queue", "prio", "get_lifo",
                                          "Queue",          "JoinableQueue",    "once", "get_nothing"};
    static const char *const functions[] = {"create",      "incref",     "decref",
                                            "dummy",       "debug_info", "number_of_objects",
                                            "get_methods", "shutdown",   "nothing"};
    uint8_t n = script_byte(in);
    const char *function = PICK(functions, n);
    const char *first = NULL;

    if (strcmp(function, "create") == 0)
        first = PICK(typeids, script_byte(in));
    else if (strcmp(function, "incref") == 0 || strcmp(function, "decref") == 0)
        first = talk_ident(in);
    talk_pickled_request(b, NULL, function, first, in);
}

#endif
