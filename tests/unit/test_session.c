/* Sessions: bytes in, events out. What a peer sends is built once and then fed whole, byte by byte and cut
 * at each length; the events are written down as one text and must be the same every time:
 *
 *   s<payload>   send that frame     o   open     f<payload>   a frame     x<error>   failed     , between */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/session.h"
#include "tests/lib/guard.h"

static const struct tq_session_limits limits = {
    .preauth_frame_bytes = 256, .preauth_frames = 6, .frame_bytes = 1000};
static const struct tq_auth_key keys[] = {
    {.secret = {(const uint8_t *)"other", 5}, .name = "other"},
    {.secret = {(const uint8_t *)"abc", 3}, .name = "abc"},
};
static struct tq_auth_registry registry;

struct stream {
    size_t len;
    uint8_t data[4096];
};

struct trace {
    size_t len;
    char text[2048];
};

static void add_frame(struct stream *s, const void *payload, size_t len)
{
    s->len += tq_frame_header(s->data + s->len, len);
    if (len > 0)
        memcpy(s->data + s->len, payload, len);
    s->len += len;
    assert_true(s->len <= sizeof(s->data));
}

static void add_text(struct stream *s, const char *payload)
{
    add_frame(s, payload, strlen(payload));
}

/* The answer of a peer that holds the key "abc" to the challenge frame in `sent`. */
static void add_answer(struct stream *s, struct tq_span sent, enum tq_auth_dialect dialect)
{
    uint8_t answer[8 + 32] = "{sha256}";
    struct tq_span message = tq_span(sent.data + 4 + 11, 48);

    assert_int_equal(sent.len, 4 + 59);
    assert_memory_equal(sent.data, "\0\0\0\73#CHALLENGE#{sha256}", 4 + 19);
    switch (dialect) {
    case TQ_AUTH_LEGACY:
        assert_int_equal(tq_hmac(TQ_MD5, keys[1].secret, message, answer), TQ_OK);
        add_frame(s, answer, 16);
        break;
    case TQ_AUTH_RHEL:
        assert_int_equal(tq_hmac(TQ_SHA256, keys[1].secret, message, answer), TQ_OK);
        add_frame(s, answer, 32);
        break;
    default:
        assert_int_equal(tq_hmac(TQ_SHA256, keys[1].secret, message, answer + 8), TQ_OK);
        add_frame(s, answer, 40);
        break;
    }
}

static void note(struct trace *t, char kind, struct tq_span payload)
{
    bool printable = true;

    assert_true(t->len + payload.len + 8 < sizeof(t->text));
    for (size_t i = 0; i < payload.len; i++)
        printable &= payload.data[i] >= ' ' && payload.data[i] <= '~';
    t->text[t->len++] = kind;
    if (printable && payload.len > 0) {
        memcpy(t->text + t->len, payload.data, payload.len);
        t->len += payload.len;
    } else if (payload.len > 0) { /* MACs and nonces: their length */
        t->len += (size_t)snprintf(t->text + t->len, 8, "%zu", payload.len);
    }
    t->text[t->len++] = ',';
    t->text[t->len] = '\0';
}

/* Whole frames, header included. */
static void note_sends(struct trace *t, struct tq_span send)
{
    while (send.len > 0) {
        size_t n = tq_load_be32(send.data);

        assert_true(send.len >= 4 + n);
        note(t, 's', tq_span(send.data + 4, n));
        send = tq_span(send.data + 4 + n, send.len - 4 - n);
    }
}

/* Feeds one piece, which ends at an unreadable page. False once the session failed. */
static bool feed(struct tq_session *s, const uint8_t *data, size_t len, struct trace *t, struct stream *sent)
{
    uint8_t *piece = guard_copy(data, len);
    struct tq_span in = tq_span(piece, len);
    struct tq_session_event ev;

    do {
        tq_session_next(s, &in, &ev);
        if (ev.send.len > 0 && sent != NULL) {
            memcpy(sent->data + sent->len, ev.send.data, ev.send.len);
            sent->len += ev.send.len;
        }
        note_sends(t, ev.send);
        if (ev.kind == TQ_SESSION_OPEN)
            note(t, 'o', tq_span(NULL, 0));
        if (ev.kind == TQ_SESSION_FRAME)
            note(t, 'f', ev.frame);
        if (ev.kind == TQ_SESSION_FAIL)
            note(t, 'x',
                 tq_span_str(ev.err == TQ_EAUTH      ? "auth"
                             : ev.err == TQ_EPROTO   ? "proto"
                             : ev.err == TQ_ELIMIT   ? "limit"
                             : ev.err == TQ_EREFLECT ? "reflect"
                             : ev.err == TQ_ENOMEM   ? "nomem"
                                                     : "?"));
        /* No event but SEND and FAIL carries something to send. */
        assert_true(ev.send.len == 0 || ev.kind == TQ_SESSION_SEND || ev.kind == TQ_SESSION_FAIL);
        assert_true(ev.send.len > 0 || ev.kind != TQ_SESSION_SEND);
    } while (ev.kind != TQ_SESSION_MORE && ev.kind != TQ_SESSION_FAIL);
    if (ev.kind == TQ_SESSION_MORE)
        assert_int_equal(in.len, 0);
    guard_free(piece, len);
    return ev.kind == TQ_SESSION_MORE;
}

/* Feeds a stream: cut = 0 byte by byte, else in two pieces. */
static bool feed_cut(struct tq_session *s, const struct stream *in, size_t cut, struct trace *t)
{
    bool good = true;

    if (cut > 0) {
        cut = cut < in->len ? cut : in->len;
        return feed(s, in->data, cut, t, NULL) && feed(s, in->data + cut, in->len - cut, t, NULL);
    }
    for (size_t i = 0; i < in->len && good; i++)
        good = feed(s, in->data + i, 1, t, NULL);
    return good;
}

static void init_server(struct tq_session *s, struct tq_span *send)
{
    assert_int_equal(tq_session_init_server(s, &limits, &registry, keys, 2, false), TQ_OK);
    assert_int_equal(tq_session_start(s, send), TQ_OK);
}

static void init_client(struct tq_session *s)
{
    struct tq_span send;

    assert_int_equal(tq_session_init_client(s, &limits, &registry, &keys[1], false), TQ_OK);
    assert_int_equal(tq_session_start(s, &send), TQ_OK);
    assert_int_equal(send.len, 0);
}

/* An open session costs its struct and nothing else. */
static void check_idle(const struct tq_session *s)
{
    assert_true(s->open);
    assert_null(s->handshake);
    assert_null(s->frames.acc.data);
    assert_null(registry.nonces);
}

static void check_over(struct tq_session *s)
{
    tq_session_deinit(s);
    tq_session_deinit(s);
    assert_null(registry.nonces);
}

static void open_server(struct tq_session *s)
{
    struct stream in = {0};
    struct trace t = {0};
    struct tq_span send;

    init_server(s, &send);
    add_answer(&in, send, TQ_AUTH_LEGACY);
    add_text(&in, "#CHALLENGE#is-twenty-bytes-long");
    add_text(&in, "#WELCOME#");
    assert_true(feed(s, in.data, in.len, &t, NULL));
    assert_string_equal(t.text, "s#WELCOME#,s16,o,");
    check_idle(s);
}

/* ---- servers ---- */

static const struct {
    enum tq_auth_dialect dialect;
    const char *challenge;
    const char *trace;
} ages[] = {
    {TQ_AUTH_LEGACY, "#CHALLENGE#is-twenty-bytes-long", "s#WELCOME#,s16,o,f(first,fsecond,f,"},
    {TQ_AUTH_RHEL, "#CHALLENGE#is-twenty-bytes-long", "s#WELCOME#,s32,o,f(first,fsecond,f,"},
    {TQ_AUTH_MODERN, "#CHALLENGE#{sha256}forty-bytes-of-arbitrary-random-lettersABC",
     "s#WELCOME#,s40,o,f(first,fsecond,f,"},
};

static void test_server_however_cut(void **state)
{
    (void)state;
    for (size_t age = 0; age < 3; age++) {
        for (size_t cut = 0; cut < 250; cut++) {
            struct tq_session s;
            struct tq_span send;
            struct stream in = {0};
            struct trace t = {0};

            init_server(&s, &send);
            add_answer(&in, send, ages[age].dialect);
            add_text(&in, ages[age].challenge);
            add_text(&in, "#WELCOME#");
            add_text(&in, "(first");
            add_text(&in, "second"); /* only the first frame's first byte matters */
            add_frame(&in, NULL, 0);
            assert_true(in.len < 250);
            assert_true(feed_cut(&s, &in, cut, &t));
            assert_string_equal(t.text, ages[age].trace);
            assert_int_equal(s.auth_dialect, ages[age].dialect);
            assert_int_equal(s.key_index, 1);
            assert_int_equal(s.dialect, TQ_DIALECT_PYTHON);
            assert_true(feed(&s, NULL, 0, &t, NULL));
            check_idle(&s);
            check_over(&s);
        }
    }
}

static void test_dialects(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        struct tq_session s;
        struct stream in = {0};
        struct trace t = {0};
        uint8_t payload[2] = {(uint8_t)first, 'x'};
        unsigned want = TQ_DIALECT_NONE;

        if (first == 0x80 || first == 0x28)
            want = TQ_DIALECT_PYTHON;
        if ((first >= 0x90 && first <= 0x9f) || first == 0xdc || first == 0xdd)
            want = TQ_DIALECT_NATIVE;
        open_server(&s);
        assert_int_equal(s.dialect, TQ_DIALECT_NONE);
        add_frame(&in, payload, first % 2 + 1);
        assert_int_equal(feed(&s, in.data, in.len, &t, NULL), want != TQ_DIALECT_NONE);
        assert_int_equal(s.dialect, want);
        assert_true(want != TQ_DIALECT_NONE ? t.text[0] == 'f' : strcmp(t.text, "xproto,") == 0);
        check_over(&s);
    }
}

/* What may not come first after OPEN, and what may not come at all. */
static void test_after_open(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *trace;
    } cases[] = {
        {"\0\0\0\0", 4, "xproto,"},
        {"\0\0\0\1(\0\0\0\0\0\0\0\1?", 14, "f(,f,f?,"},
        {"\0\0\3\xe9", 4, "xlimit,"}, /* 1,001 */
        {"\0\0\0\1(\0\0\3\xe9", 9, "f(,xlimit,"},
        {"\xff\xff\xff\xfe", 4, "xproto,"},
        {"\x80\0\0\0", 4, "xproto,"},
        {"\xff\xff\xff\xff\0\0\0\0\0\0\0\1(", 13, "f(,"},
        {"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 12, "xlimit,"},
        {"\0\0\0\11#WELCOME#", 13, "xproto,"},
    };

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        for (size_t cut = 0; cut <= cases[c].len; cut++) {
            struct tq_session s;
            struct trace t = {0};
            struct stream in = {.len = cases[c].len};

            memcpy(in.data, cases[c].bytes, in.len);
            open_server(&s);
            feed_cut(&s, &in, cut, &t);
            assert_string_equal(t.text, cases[c].trace);
            check_over(&s);
        }
    }
}

/* Before OPEN: whatever is no next step ends the session, at the header where the header tells. */
static void test_before_open(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *trace;
        bool at_header; /* nothing may be allocated */
    } cases[] = {
        {"\x7f\xff\xff\xff", 4, "xlimit,", true},
        {"\0\0\1\1", 4, "xlimit,", true},
        {"\x80\0\0\0", 4, "xproto,", true},
        {"\xff\xff\xff\xfe", 4, "xproto,", true},
        {"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 12, "xlimit,", true},
        {"\xff\xff\xff\xff\0\0\1\0\0\0\0\0", 12, "xlimit,", true},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, "xlimit,", true},
        {"\x16\x03\x01\x02\0\1\0\1\xfc\3\3", 11, "xlimit,", true},
        {"SSH-2.0-OpenSSH_9.2\r\n", 21, "xlimit,", true},
        {"\0\0\0\0", 4, "s#FAILURE#,xauth,", false},
        {"\0\0\0\0\0\0\0\0\0\0\0\0", 12, "s#FAILURE#,xauth,", false},
        {"\0\0\0\5\x80\3(N.", 9, "s#FAILURE#,xauth,", false},
        {"\0\0\0\5\x94\0\1\xc0\x90", 9, "s#FAILURE#,xauth,", false},
        {"\0\0\0\11#WELCOME#", 13, "s#FAILURE#,xauth,", false},
        {"\0\0\0\20sixteen-bytes---", 20, "s#FAILURE#,xauth,", false},
        {"\xff\xff\xff\xff\0\0\0\0\0\0\0\1x", 13, "s#FAILURE#,xauth,", false},
    };

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        for (size_t cut = 0; cut <= cases[c].len; cut++) {
            struct tq_session s;
            struct tq_span send, again;
            struct tq_session_event ev;
            struct trace t = {0};
            struct stream in = {.len = cases[c].len};
            unsigned long before;

            memcpy(in.data, cases[c].bytes, in.len);
            init_server(&s, &send);
            before = tq_mem_count();
            assert_false(feed_cut(&s, &in, cut, &t));
            assert_string_equal(t.text, cases[c].trace);
            if (cases[c].at_header)
                assert_int_equal(tq_mem_count(), before);
            assert_null(registry.nonces);
            again = tq_span("\0\0\0\1(", 5);
            for (int i = 0; i < 2; i++) { /* it stays failed, and says nothing more */
                tq_session_next(&s, &again, &ev);
                assert_int_equal(ev.kind, TQ_SESSION_FAIL);
                assert_int_equal(ev.err, s.err);
                assert_int_equal(ev.send.len, 0);
            }
            check_over(&s);
        }
    }
}

/* A request that comes before the client's #WELCOME# is never looked at. */
static void test_request_during_handshake(void **state)
{
    for (int after = 1; after <= 2; after++) {
        struct tq_session s;
        struct tq_span send;
        struct stream in = {0};
        struct trace t = {0};

        (void)state;
        init_server(&s, &send);
        add_answer(&in, send, TQ_AUTH_MODERN);
        if (after == 2)
            add_text(&in, "#CHALLENGE#is-twenty-bytes-long");
        add_text(&in, "(request");
        add_text(&in, "#WELCOME#");
        assert_false(feed(&s, in.data, in.len, &t, NULL));
        assert_string_equal(t.text, after == 2 ? "s#WELCOME#,s16,xproto," : "s#WELCOME#,xproto,");
        check_over(&s);
    }
}

static void test_frame_budget(void **state)
{
    (void)state;
    for (uint32_t budget = 0; budget <= 3; budget++) {
        static const char *const traces[] = {"xlimit,", "s#WELCOME#,xlimit,", "s#WELCOME#,s16,xlimit,",
                                             "s#WELCOME#,s16,o,"};
        struct tq_session_limits tight = limits;
        struct tq_session s;
        struct tq_span send;
        struct stream in = {0};
        struct trace t = {0};

        tight.preauth_frames = budget;
        assert_int_equal(tq_session_init_server(&s, &tight, &registry, keys, 2, false), TQ_OK);
        assert_int_equal(tq_session_start(&s, &send), TQ_OK);
        add_answer(&in, send, TQ_AUTH_MODERN);
        add_text(&in, "#CHALLENGE#is-twenty-bytes-long");
        add_text(&in, "#WELCOME#");
        feed(&s, in.data, in.len, &t, NULL);
        assert_string_equal(t.text, traces[budget]);
        check_over(&s);
    }
}

static void test_frame_cap_before_and_after(void **state)
{
    struct tq_session_limits tight = {.preauth_frame_bytes = 40, .preauth_frames = 6, .frame_bytes = 41};
    struct tq_session s;
    struct tq_span send;
    struct stream in = {0};
    struct trace t = {0};
    uint8_t bytes[42];

    (void)state;
    memset(bytes, '(', sizeof(bytes));
    assert_int_equal(tq_session_init_server(&s, &tight, &registry, keys, 2, false), TQ_OK);
    assert_int_equal(tq_session_start(&s, &send), TQ_OK);
    add_answer(&in, send, TQ_AUTH_MODERN); /* 40 bytes */
    add_text(&in, "#CHALLENGE#is-twenty-bytes-long");
    add_text(&in, "#WELCOME#");
    add_frame(&in, bytes, 41);
    add_frame(&in, bytes, 42);
    assert_false(feed(&s, in.data, in.len, &t, NULL));
    assert_string_equal(t.text, "s#WELCOME#,s16,o,f(((((((((((((((((((((((((((((((((((((((((,xlimit,");
    check_over(&s);
}

static void test_md5_refused(void **state)
{
    struct tq_session s;
    struct tq_span send;
    struct stream in = {0};
    struct trace t = {0};

    (void)state;
    assert_int_equal(tq_session_init_server(&s, &limits, &registry, keys, 2, true), TQ_OK);
    assert_int_equal(tq_session_start(&s, &send), TQ_OK);
    add_answer(&in, send, TQ_AUTH_LEGACY);
    assert_false(feed(&s, in.data, in.len, &t, NULL));
    assert_string_equal(t.text, "s#FAILURE#,xauth,");
    check_over(&s);
}

/* ---- clients ---- */

static void test_client_however_cut(void **state)
{
    (void)state;
    for (size_t age = 0; age < 3; age++) {
        for (size_t cut = 0; cut < 150; cut++) {
            static const char *const traces[] = {
                "s16,s#CHALLENGE#,s#WELCOME#,o,f?reply,f,",
                "s32,s#CHALLENGE#,s#WELCOME#,o,f?reply,f,",
                "s40,s#CHALLENGE#,s#WELCOME#,o,f?reply,f,",
            };
            struct tq_session s;
            struct stream first = {0}, second = {0}, sent = {0};
            struct trace t = {0};
            struct tq_span send;

            assert_int_equal(tq_session_init_client(&s, &limits, &registry, &keys[1], age == 1), TQ_OK);
            assert_int_equal(tq_session_start(&s, &send), TQ_OK);
            assert_int_equal(send.len, 0);
            add_text(&first, ages[age].challenge);
            assert_true(feed_cut(&s, &first, cut, &t));
            first.len = 0;
            add_text(&first, "#WELCOME#");
            assert_true(feed(&s, first.data, 3, &t, &sent));
            assert_true(feed(&s, first.data + 3, first.len - 3, &t, &sent));
            t.len -= 3; /* "59," */
            memcpy(t.text + t.len, "#CHALLENGE#,", 13);
            t.len += 12;
            add_answer(&second, tq_span(sent.data, sent.len), ages[age].dialect);
            add_text(&second, "?reply"); /* no dialect check on this side */
            add_frame(&second, NULL, 0);
            assert_true(feed_cut(&s, &second, cut, &t));
            assert_string_equal(t.text, traces[age]);
            assert_int_equal(s.auth_dialect, ages[age].dialect);
            assert_true(feed(&s, NULL, 0, &t, NULL));
            check_idle(&s);
            check_over(&s);
        }
    }
}

static void test_client_refusals(void **state)
{
    static const struct {
        const char *frames[3];
        const char *trace;
    } cases[] = {
        {{"#CHALLENGE#is-twenty-bytes-long", "#FAILURE#"}, "s16,xauth,"},
        {{"#CHALLENGE#is-twenty-bytes-long", "#CHALLENGE#is-twenty-bytes-long"}, "s16,xproto,"},
        {{"#CHALLENGE#short"}, "xproto,"},
        {{"220 mail ESMTP"}, "xproto,"},
        {{"#CHALLENGE#is-twenty-bytes-long", "#WELCOME#", "sixteen bytes---"}, "s16,s59,s#FAILURE#,xauth,"},
        {{"#CHALLENGE#is-twenty-bytes-long", "#WELCOME#", "nonsense"}, "s16,s59,s#FAILURE#,xauth,"},
    };

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct tq_session s;
        struct stream in = {0};
        struct trace t = {0};

        init_client(&s);
        for (size_t i = 0; i < 3 && cases[c].frames[i] != NULL; i++)
            add_text(&in, cases[c].frames[i]);
        assert_false(feed(&s, in.data, in.len, &t, NULL));
        assert_string_equal(t.text, cases[c].trace);
        check_over(&s);
    }
}

static void test_reflection_between_sessions(void **state)
{
    struct tq_session server, client;
    struct tq_span send;
    struct stream in = {0};
    struct trace t = {0};

    (void)state;
    init_server(&server, &send);
    memcpy(in.data, send.data, send.len);
    in.len = send.len;
    init_client(&client);
    assert_false(feed(&client, in.data, in.len, &t, NULL));
    assert_string_equal(t.text, "xreflect,");
    tq_session_deinit(&client);
    check_over(&server);
}

/* ---- ours against ours ---- */

static void test_both_ends(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= 80; piece++) {
        struct tq_auth_registry far; /* another process */
        struct tq_session server, client;
        struct stream up = {0}, down = {0};
        struct trace at_server = {0}, at_client = {0};
        struct tq_span send;
        size_t up_seen = 0, down_seen = 0;

        tq_auth_registry_init(&far);
        init_server(&server, &send);
        memcpy(down.data, send.data, send.len);
        down.len = send.len;
        assert_int_equal(tq_session_init_client(&client, &limits, &far, &keys[1], false), TQ_OK);
        assert_int_equal(tq_session_start(&client, &send), TQ_OK);
        while (down_seen < down.len || up_seen < up.len) {
            size_t n = down.len - down_seen < piece ? down.len - down_seen : piece;

            assert_true(feed(&client, down.data + down_seen, n, &at_client, &up));
            down_seen += n;
            n = up.len - up_seen < piece ? up.len - up_seen : piece;
            assert_true(feed(&server, up.data + up_seen, n, &at_server, &down));
            up_seen += n;
        }
        assert_string_equal(at_client.text, "s40,s59,s#WELCOME#,o,");
        assert_string_equal(at_server.text, "s#WELCOME#,s40,o,");
        assert_int_equal(server.auth_dialect, TQ_AUTH_MODERN);
        assert_int_equal(client.auth_dialect, TQ_AUTH_MODERN);
        check_idle(&server);
        check_idle(&client);
        tq_session_deinit(&client);
        check_over(&server);
        tq_auth_registry_deinit(&far);
    }
}

/* A big frame in pieces leaves nothing behind. */
static void test_idle_after_a_big_frame(void **state)
{
    struct tq_session s;
    struct stream in = {0};
    struct trace t = {0};
    uint8_t payload[1000];

    (void)state;
    memset(payload, '(', sizeof(payload));
    open_server(&s);
    add_frame(&in, payload, sizeof(payload));
    assert_true(feed_cut(&s, &in, 500, &t));
    assert_int_equal(t.len, 1002);
    check_idle(&s);
    check_over(&s);
    assert_true(sizeof(struct tq_session) <= 112);
}

/* ---- other keys while it runs ---- */

#define AT(secret_text, key_name)                                                                            \
    {                                                                                                        \
        .secret = {(const uint8_t *)(secret_text), sizeof(secret_text) - 1}, .name = (key_name)              \
    }

static const struct tq_auth_key later[] = {AT("abc", "abc"), AT("new", "new"), AT("other", "other")};
static const size_t kept[] = {2, 0};
static const struct tq_auth_key without[] = {AT("new", "new"), AT("other", "other")};
static const size_t gone[] = {1, TQ_AUTH_KEY_GONE};

/* The keys change before the handshake's step `when`: 0 the answer, 1 the challenge, 2 the last word, 3 the
 * first request. The peer's key, keys[1], is then the first one, or gone. */
static void change_keys(unsigned when, bool revoke, struct tq_session *s, struct trace *t)
{
    struct stream steps[4] = {{0}};
    struct tq_span send;

    init_server(s, &send);
    add_answer(&steps[0], send, TQ_AUTH_MODERN);
    add_text(&steps[1], "#CHALLENGE#is-twenty-bytes-long");
    add_text(&steps[2], "#WELCOME#");
    add_text(&steps[3], "(request");
    for (unsigned step = 0; step < 4; step++) {
        if (step == when) {
            int rv = revoke ? tq_session_rekey(s, without, 2, gone) : tq_session_rekey(s, later, 3, kept);

            assert_int_equal(rv, revoke && step > 0 ? TQ_EAUTH : TQ_OK);
        }
        if (!feed(s, steps[step].data, steps[step].len, t, NULL))
            return;
    }
}

static void test_a_key_that_stays(void **state)
{
    (void)state;
    for (unsigned when = 0; when < 4; when++) {
        struct tq_session s;
        struct trace t = {0};

        change_keys(when, false, &s, &t);
        assert_string_equal(t.text, "s#WELCOME#,s16,o,f(request,");
        assert_int_equal(s.key_index, 0);
        assert_int_equal(tq_session_rekey(&s, keys, 2, (const size_t[]){1, 0, 0}), TQ_OK);
        assert_int_equal(s.key_index, 1);
        check_over(&s);
        /* whoever has an open session's rights to account for needs its key after the socket is gone, too */
        assert_int_equal(tq_session_rekey(&s, later, 3, kept), TQ_OK);
        assert_int_equal(s.key_index, 0);
        assert_int_equal(tq_session_rekey(&s, without, 2, (const size_t[]){TQ_AUTH_KEY_GONE, 0, 1}),
                         TQ_EAUTH);
        check_over(&s);
    }
}

static void test_a_key_that_goes(void **state)
{
    static const char *const traces[] = {"s#FAILURE#,xauth,", "s#WELCOME#,xauth,", "s#WELCOME#,s16,xauth,",
                                         "s#WELCOME#,s16,o,xauth,"};

    (void)state;
    for (unsigned when = 0; when < 4; when++) {
        struct tq_session s;
        struct trace t = {0};

        change_keys(when, true, &s, &t);
        assert_string_equal(t.text, traces[when]);
        assert_int_equal(tq_session_rekey(&s, later, 3, (const size_t[]){2, 0}),
                         TQ_OK); /* what is over stays so */
        assert_true(s.failed);
        check_over(&s);
    }
}

/* A key that is new is good for a handshake that began before it was there. */
static void test_a_key_that_comes(void **state)
{
    struct tq_session s;
    struct tq_session peer;
    struct tq_auth_registry far;
    struct stream down = {0};
    struct stream up = {0};
    struct trace t = {0};
    struct tq_span send;

    (void)state;
    tq_auth_registry_init(&far);
    init_server(&s, &send);
    memcpy(down.data, send.data, send.len);
    down.len = send.len;
    assert_int_equal(tq_session_rekey(&s, later, 3, kept), TQ_OK);
    assert_int_equal(tq_session_init_client(&peer, &limits, &far, &later[1], false), TQ_OK);
    assert_int_equal(tq_session_start(&peer, &send), TQ_OK);
    while (!s.open) {
        up.len = 0;
        assert_true(feed(&peer, down.data, down.len, &t, &up));
        down.len = 0;
        assert_true(feed(&s, up.data, up.len, &t, &down));
    }
    assert_int_equal(s.key_index, 1);
    tq_session_deinit(&peer);
    check_over(&s);
    tq_auth_registry_deinit(&far);
}

/* Each allocation fails once, on both sides; nothing leaks, nothing half-open stays. */
static void test_without_memory(void **state)
{
    unsigned failures = 0;

    (void)state;
    for (int side = 0; side < 2; side++) {
        bool done = false;

        for (long n = 0; !done; n++) {
            struct tq_session s;
            struct tq_span send = {0};
            struct stream in = {0};
            struct trace t = {0};
            bool good = false;
            int rv;

            tq_mem_fail_after(n, 1);
            rv = side == 0 ? tq_session_init_server(&s, &limits, &registry, keys, 2, false)
                           : tq_session_init_client(&s, &limits, &registry, &keys[1], false);
            if (rv == TQ_OK)
                rv = tq_session_start(&s, &send);
            if (rv == TQ_OK) {
                if (side == 0)
                    add_answer(&in, send, TQ_AUTH_MODERN);
                add_text(&in, "#CHALLENGE#is-twenty-bytes-long");
                add_text(&in, "#WELCOME#");
                good = feed_cut(&s, &in, 0, &t);
            } else {
                assert_int_equal(rv, TQ_ENOMEM);
            }
            done = good && s.err == TQ_OK;
            tq_mem_fail_after(-1, 0);
            if (!done) {
                struct tq_session_event ev;
                struct tq_span none = {0};

                failures++;
                assert_int_equal(s.err, TQ_ENOMEM);
                tq_session_next(&s, &none, &ev);
                assert_int_equal(ev.kind, TQ_SESSION_FAIL);
                assert_int_equal(ev.err, TQ_ENOMEM);
            }
            check_over(&s);
        }
    }
    assert_true(failures >= 10);
}

static int end(void **state)
{
    (void)state;
    tq_digest_cleanup();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_however_cut),
        cmocka_unit_test(test_dialects),
        cmocka_unit_test(test_after_open),
        cmocka_unit_test(test_before_open),
        cmocka_unit_test(test_request_during_handshake),
        cmocka_unit_test(test_frame_budget),
        cmocka_unit_test(test_frame_cap_before_and_after),
        cmocka_unit_test(test_md5_refused),
        cmocka_unit_test(test_client_however_cut),
        cmocka_unit_test(test_client_refusals),
        cmocka_unit_test(test_reflection_between_sessions),
        cmocka_unit_test(test_both_ends),
        cmocka_unit_test(test_idle_after_a_big_frame),
        cmocka_unit_test(test_a_key_that_stays),
        cmocka_unit_test(test_a_key_that_goes),
        cmocka_unit_test(test_a_key_that_comes),
        cmocka_unit_test(test_without_memory),
    };

    tq_auth_registry_init(&registry);
    return cmocka_run_group_tests(tests, NULL, end);
}
