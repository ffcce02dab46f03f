/* The client's half of the native dialect: each request byte for byte, and what a master sends read whole,
 * cut at every byte, at the end of a page, and with every type where another one belongs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/native/client.h"
#include "tests/lib/guard.h"

#define SPAN(text)  tq_span(text, sizeof(text) - 1)
#define COUNT(a)    (sizeof(a) / sizeof((a)[0]))
#define TOKEN_BYTES "0123456789abcdef"

/* ---- requests ---- */

static int hello_first(struct tq_buf *out)
{
    return tq_native_put_hello(
        out, 1, &(struct tq_native_hello){.client = SPAN("c/1"), .worker = SPAN("w"), .heartbeat_ms = 5000});
}

static int hello_least(struct tq_buf *out)
{
    return tq_native_put_hello(out, 1, &(struct tq_native_hello){.client = SPAN("")});
}

static int hello_again(struct tq_buf *out)
{
    static const struct tq_native_lease leases[] = {{1, 2}, {300, 70000}};

    return tq_native_put_hello(
        out, 1,
        &(struct tq_native_hello){
            .worker = SPAN("w"), .token = SPAN(TOKEN_BYTES), .leases = leases, .lease_count = 2});
}

static int put(struct tq_buf *out)
{
    static const struct tq_native_options own = {
        .has_priority = true, .priority = -1, .no_result = true, .has_retention = true, .retention_ms = 0};
    static const struct tq_native_options all = {.key = {(const uint8_t *)"k", 1},
                                                 .delay_ms = 1,
                                                 .ttl_ms = 2,
                                                 .max_attempts = 3,
                                                 .result = {(const uint8_t *)"r", 1},
                                                 .trace = {(const uint8_t *)"t", 1}};
    const struct tq_native_new_task tasks[] = {{.body = SPAN("\x07")},
                                               {.body = SPAN("\xa1x"), .options = &own}};

    return tq_native_put_tasks(out, 1, SPAN("q"), tasks, 2, &all, -1);
}

static int put_plain(struct tq_buf *out)
{
    const struct tq_native_new_task task = {.body = SPAN("\xc0")};

    return tq_native_put_tasks(out, 1, SPAN("q"), &task, 1, NULL, 0);
}

static int get(struct tq_buf *out)
{
    return tq_native_put_get(out, 1,
                             &(struct tq_native_get){.q = SPAN("q"), .max = 4, .wait_ms = 100, .take = true});
}

static int done(struct tq_buf *out)
{
    const struct tq_native_get next = {.q = SPAN("q"), .max = 1};
    const struct tq_native_end ends[] = {
        {.lease = {1, 2}, .value = SPAN("\xa1y")},
        {.lease = {3, 4}, .failed = true, .error = SPAN("e"), .code = -9, .final = true},
        {.lease = {5, 6}},
        {.lease = {7, 8}, .failed = true, .has_delay = true, .delay_ms = 10},
    };

    return tq_native_put_done(out, 1, ends, 4, SPAN("to"), false, &next);
}

static int done_nothing(struct tq_buf *out)
{
    return tq_native_put_done(out, 1, NULL, 0, SPAN("to"), true, NULL);
}

static int extend(struct tq_buf *out)
{
    static const struct tq_native_lease lease = {1, 2};

    return tq_native_put_extend(out, 1, &lease, 1, 500);
}

static int release(struct tq_buf *out)
{
    static const struct tq_native_lease lease = {1, 2};

    return tq_native_put_release(out, 1, &lease, 1);
}

static int cancel(struct tq_buf *out)
{
    return tq_native_put_cancel(out, 9);
}

static int wait_id(struct tq_buf *out)
{
    return tq_native_put_wait(out, 1, 77, -1);
}

static int wait_key(struct tq_buf *out)
{
    return tq_native_put_wait_key(out, 1, SPAN("q"), SPAN("k"), 0);
}

static int join(struct tq_buf *out)
{
    return tq_native_put_join(out, 1, SPAN("q"), 1000);
}

static int ping(struct tq_buf *out)
{
    return tq_native_put_plain(out, UINT32_MAX, "ping");
}

#define Q     "\xa1q\xa1q"
#define LEASE "\xa6leases\x91\x92\x01\x02"

static const struct {
    int (*make)(struct tq_buf *out);
    const char *bytes;
    size_t len;
} requests[] = {
#define REQUEST(make, bytes)                                                                                 \
    {                                                                                                        \
        make, bytes, sizeof(bytes) - 1                                                                       \
    }
    REQUEST(hello_first, "\x94\0\x01\xa5hello\x84\xa7version\x01\xa6"
                         "client\xa3"
                         "c/1\xa6worker\xa1w\xacheartbeat_ms\xcd\x13\x88"),
    REQUEST(hello_least, "\x94\0\x01\xa5hello\x81\xa7version\x01"),
    REQUEST(hello_again, "\x94\0\x01\xa5hello\x84\xa7version\x01\xa6worker\xa1w\xa5token\xc4\x10" TOKEN_BYTES
                         "\xa6leases\x92\x92\x01\x02\x92\xcd\x01\x2c\xce\0\x01\x11\x70"),
    REQUEST(put,
            "\x94\0\x01\xa3put\x84" Q "\xa5tasks\x92\x91\x07\x92\xa1x\x83\xa8priority\xff\xa6result\xc0\xac"
            "retention_ms\0\xa4opts\x86\xa3key\xa1k\xa8"
            "delay_ms\x01\xa6ttl_ms\x02\xacmax_attempts\x03\xa6result\xa1r\xa5trace\xa1t\xa7wait_ms\xff"),
    REQUEST(put_plain, "\x94\0\x01\xa3put\x82" Q "\xa5tasks\x91\x91\xc0"),
    REQUEST(get, "\x94\0\x01\xa3get\x84" Q "\xa3max\x04\xa7wait_ms\x64\xa4take\xc3"),
    REQUEST(done, "\x94\0\x01\xa4"
                  "done\x84\xa4"
                  "done\x92\x93\x01\x02\xa1y\x92\x05\x06\xa4"
                  "fail\x92\x93\x03\x04\x83\xa5"
                  "error\xa1"
                  "e\xa4"
                  "code\xf7\xa5"
                  "final\xc3\x93\x07\x08\x81\xa8"
                  "delay_ms\x0a\xa2to\xa2to\xa3get\x82" Q "\xa3max\x01"),
    REQUEST(done_nothing, "\x94\0\x01\xa4"
                          "done\x82\xa4"
                          "done\x90\xa5or_to\xa2to"),
    REQUEST(extend, "\x94\0\x01\xa6"
                    "extend\x82" LEASE "\xa2ms\xcd\x01\xf4"),
    REQUEST(release, "\x94\0\x01\xa7release\x81" LEASE),
    REQUEST(cancel, "\x93\x02\xa6"
                    "cancel\x81\xa4"
                    "call\x09"),
    REQUEST(wait_id, "\x94\0\x01\xa4wait\x82\xa2id\x4d\xa7wait_ms\xff"),
    REQUEST(wait_key, "\x94\0\x01\xa4wait\x83" Q "\xa3key\xa1k\xa7wait_ms\0"),
    REQUEST(join, "\x94\0\x01\xa4join\x82" Q "\xa7wait_ms\xcd\x03\xe8"),
    REQUEST(ping, "\x94\0\xce\xff\xff\xff\xff\xa4ping\x80"),
#undef REQUEST
};

static void test_requests(void **state)
{
    const char *why;

    (void)state;
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct tq_buf out = TQ_BUF_NULL(1 << 20);

        assert_int_equal(tq_buf_append_str(&out, "before"), TQ_OK);
        assert_int_equal(requests[i].make(&out), TQ_OK);
        assert_int_equal(out.len, 6 + 4 + requests[i].len);
        assert_memory_equal(out.data, "before", 6);
        assert_int_equal(tq_load_be32(out.data + 6), requests[i].len);
        assert_memory_equal(out.data + 10, requests[i].bytes, requests[i].len);
        assert_int_equal(tq_mp_walk_all(tq_span(out.data + 10, out.len - 10), &why), TQ_OK);
        tq_buf_deinit(&out);
    }
}

static void test_requests_without_room(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(requests); i++) {
        for (size_t room = 0; room < requests[i].len + 4; room++) {
            struct tq_buf out = TQ_BUF_NULL(2 + room);

            assert_int_equal(tq_buf_append_str(&out, "ab"), TQ_OK);
            assert_int_equal(requests[i].make(&out), TQ_ELIMIT);
            assert_int_equal(out.len, 2);
            tq_buf_deinit(&out);
        }
        for (long n = 0, rv = TQ_ENOMEM; rv != TQ_OK; n++) {
            struct tq_buf out = TQ_BUF_NULL(1 << 20);

            tq_mem_fail_after(n, 1);
            rv = requests[i].make(&out);
            tq_mem_fail_after(-1, 0);
            assert_true(rv == TQ_OK || (rv == TQ_ENOMEM && out.len == 0));
            tq_buf_deinit(&out);
            assert_true(n < 20);
        }
    }
}

static void test_long_texts_are_cut(void **state)
{
    struct tq_buf out = TQ_BUF_NULL(1 << 20);
    uint8_t text[2000] = {0};
    struct tq_native_end end = {.lease = {1, 1}, .failed = true, .error = tq_span(text, sizeof(text))};
    struct tq_native_hello h = {.client = tq_span(text, sizeof(text))};

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text + TQ_NATIVE_ERROR_MAX - 2, "\xe2\x82\xac", 3); /* across the limit */
    assert_int_equal(tq_native_put_done(&out, 1, &end, 1, tq_span(NULL, 0), false, NULL), TQ_OK);
    assert_non_null(memmem(out.data, out.len, "\xda\x03\xfexxx", 6)); /* 1,022 bytes */
    tq_buf_clear(&out);
    assert_int_equal(tq_native_put_hello(&out, 1, &h), TQ_OK);
    assert_non_null(memmem(out.data, out.len, "\xd9\x80xxx", 5)); /* 128 */
    tq_buf_deinit(&out);
}

/* ---- messages ---- */

/* All that can be read of a frame, summed up, so that each reader runs over all of it. */
struct all {
    int rv;
    struct tq_native_message m;
    int welcome_rv, answer_rv, lost_rv;
    struct tq_native_welcome welcome;
    struct tq_native_answer answer;
    struct tq_native_list lost;
};

static uint8_t touch(struct tq_span s)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < s.len; i++)
        sum = (uint8_t)(sum + s.data[i]);
    return sum;
}

static struct all read_all(struct tq_span frame)
{
    struct all a = {.rv = 0};
    struct tq_native_refusal refusal;
    struct tq_native_lease lease;
    struct tq_native_task task;
    struct tq_native_list list;
    struct tq_span code, text;
    const char *why = NULL;
    uint32_t n;

    a.rv = tq_native_read(&a.m, frame, &why);
    assert_true(a.rv == TQ_OK || (a.rv == TQ_EPROTO && why != NULL));
    if (a.rv != TQ_OK)
        return a;
    touch(a.m.code), touch(a.m.text), touch(a.m.method), touch(a.m.body);
    a.welcome_rv = tq_native_read_welcome(&a.welcome, a.m.body, &why);
    a.answer_rv = tq_native_read_answer(&a.answer, a.m.body, &why);
    a.lost_rv = tq_native_read_lost(&a.lost, a.m.body, &why);
    tq_native_read_words(a.m.body, &code, &text);
    touch(code), touch(text);
    if (a.welcome_rv == TQ_OK) {
        touch(a.welcome.token), touch(a.welcome.server), touch(a.welcome.key);
        for (list = a.welcome.leases, n = 0; tq_native_next_lease(&list, &lease); n++)
            ;
        assert_int_equal(n, a.welcome.leases.left);
    }
    if (a.lost_rv == TQ_OK) {
        for (list = a.lost, n = 0; tq_native_next_lease(&list, &lease); n++)
            ;
        assert_int_equal(n, a.lost.left);
    }
    if (a.answer_rv != TQ_OK)
        return a;
    for (list = a.answer.tasks, n = 0; tq_native_next_task(&list, &task); n++)
        touch(task.body), touch(task.key), touch(task.trace), touch(task.error);
    assert_int_equal(n, a.answer.tasks.left);
    for (list = a.answer.refused, n = 0; tq_native_next_refusal(&list, &refusal); n++)
        touch(refusal.code);
    assert_int_equal(n, a.answer.refused.left);
    return a;
}

#define WELCOME                                                                                              \
    "\x94\x01\x05\xc0\x8b\xa7version\x01\xa6server\xa1s\xa6now_"                                             \
    "ms\xcf\0\0\1\x90\0\0\0\0\xa3key\xa1k\xa4role\xa1"                                                       \
    "a\xafmax_frame_bytes\xce\4\1\0\0\xa9max_calls\x40\xa9max_"                                              \
    "batch\xcd\x03\xe8\xa5token\xc4\x10" TOKEN_BYTES                                                         \
    "\xa7resumed\xc3\xa6leases\x92\x92\x01\x02\x93\x03\x04\xc0"
#define ANSWER                                                                                               \
    "\x94\x01\x07\xc0\x84\xa2ok\x02\xa7refused\x91\x92\x09\xa5stale\xa5tasks\x92\x94\x01\x02\x03\xa3odd\x95" \
    "\x04"                                                                                                   \
    "\x05\x06\x92\x07\x08\x85\xa3key\xa1k\xa5trace\xa1t\xa8priority\xd0\x80\xaa"                             \
    "expires_ms\xcd\xff\xff\xa5"                                                                             \
    "error\xa1"                                                                                              \
    "e\xa5other\x80"
#define LOST     "\x93\x02\xa4lost\x81\xa6leases\x91\x92\x01\x02"
#define LOST_ARR "\x93\x02\xa4lost\x91\x81\xa6leases\x91\x92\x01\x02"
#define ERROR    "\x94\x01\x08\x92\xa5stale\xa3why\xc0"
#define GET_ERR                                                                                              \
    "\x94\x01\x08\xc0\x83\xa2ok\x01\xa5tasks\x90\xa9get_error\x92\xa8"                                       \
    "canceled\xa0"

static void test_welcome(void **state)
{
    struct all a = read_all(SPAN(WELCOME));
    struct tq_native_lease lease;

    (void)state;
    assert_int_equal(a.rv, TQ_OK);
    assert_int_equal(a.m.kind, TQ_NATIVE_RESULT);
    assert_int_equal(a.m.msgid, 5);
    assert_int_equal(a.welcome_rv, TQ_OK);
    assert_int_equal(a.welcome.version, 1);
    assert_true(tq_span_is(a.welcome.server, "s") && tq_span_is(a.welcome.key, "k") &&
                tq_span_is(a.welcome.role, "a") && a.welcome.worker.len == 0);
    assert_int_equal(a.welcome.now_ms, UINT64_C(0x19000000000));
    assert_int_equal(a.welcome.max_frame_bytes, 0x4010000);
    assert_int_equal(a.welcome.max_calls, 64);
    assert_int_equal(a.welcome.max_batch, 1000);
    assert_true(tq_span_is(a.welcome.token, TOKEN_BYTES) && a.welcome.resumed);
    assert_int_equal(a.welcome.heartbeat_ms + a.welcome.silent_ms, 0);
    assert_true(tq_native_next_lease(&a.welcome.leases, &lease) && lease.id == 1 && lease.epoch == 2);
    assert_true(tq_native_next_lease(&a.welcome.leases, &lease) && lease.id == 3 && lease.epoch == 4);
    assert_false(tq_native_next_lease(&a.welcome.leases, &lease));
    /* The least that a master says. */
    a = read_all(SPAN("\x94\x01\x05\xc0\x81\xa7version\x01"));
    assert_int_equal(a.welcome_rv, TQ_OK);
    assert_int_equal(a.welcome.max_batch, 1);
    assert_int_equal(a.welcome.max_calls, 1);
    assert_int_equal(a.welcome.token.len, 0);
}

static void test_answer(void **state)
{
    struct all a = read_all(SPAN(ANSWER));
    struct tq_native_refusal refusal;
    struct tq_native_task task;

    (void)state;
    assert_int_equal(a.answer_rv, TQ_OK);
    assert_int_equal(a.answer.ok, 2);
    assert_true(tq_native_next_refusal(&a.answer.refused, &refusal) && refusal.id == 9 &&
                tq_span_is(refusal.code, "stale"));
    assert_false(tq_native_next_refusal(&a.answer.refused, &refusal));
    assert_int_equal(a.answer.tasks.left, 2);
    assert_true(tq_native_next_task(&a.answer.tasks, &task));
    assert_true(task.lease.id == 1 && task.lease.epoch == 2 && task.attempt == 3 &&
                tq_span_is(task.body, "\xa3odd") && task.key.len == 0 && task.priority == 0);
    assert_true(tq_native_next_task(&a.answer.tasks, &task));
    assert_true(task.lease.id == 4 && task.lease.epoch == 5 && task.attempt == 6 &&
                tq_span_is(task.body, "\x92\x07\x08"));
    assert_true(tq_span_is(task.key, "k") && tq_span_is(task.trace, "t") && tq_span_is(task.error, "e") &&
                task.priority == -128 && task.expires_ms == 65535);
    assert_false(tq_native_next_task(&a.answer.tasks, &task));
    a = read_all(SPAN(GET_ERR));
    assert_true(a.answer_rv == TQ_OK && a.answer.ok == 1 && tq_span_is(a.answer.get_code, "canceled"));
    /* Of a field that comes twice the last one counts; none at all is an empty answer. */
    a = read_all(SPAN("\x94\x01\x05\xc0\x82\xa2ok\x01\xa2ok\x02"));
    assert_true(a.answer_rv == TQ_OK && a.answer.ok == 2);
    a = read_all(SPAN("\x94\x01\x05\xc0\x80"));
    assert_true(a.answer_rv == TQ_OK && a.answer.ok == 0 && a.answer.tasks.left == 0);
    a = read_all(SPAN("\x94\x01\x05\xc0\x82\x07\xc0\xc4\x02ok\x03")); /* a key that is none, a bin key */
    assert_true(a.answer_rv == TQ_OK && a.answer.ok == 3);
}

static void test_errors_and_notices(void **state)
{
    struct all a = read_all(SPAN(ERROR));
    struct tq_native_lease lease;
    struct tq_span code, text;

    (void)state;
    assert_int_equal(a.m.kind, TQ_NATIVE_ERROR);
    assert_true(a.m.msgid == 8 && tq_span_is(a.m.code, "stale") && tq_span_is(a.m.text, "why"));
    for (int i = 0; i < 2; i++) {
        a = read_all(i == 0 ? SPAN(LOST) : SPAN(LOST_ARR));
        assert_true(a.m.kind == TQ_NATIVE_NOTICE && tq_span_is(a.m.method, "lost") && a.lost_rv == TQ_OK);
        assert_true(tq_native_next_lease(&a.lost, &lease) && lease.id == 1 && lease.epoch == 2);
    }
    a = read_all(SPAN("\x93\x02\xa5"
                      "error\x82\xa4"
                      "code\xa1x\xa4text\xa1y"));
    tq_native_read_words(a.m.body, &code, &text);
    assert_true(tq_span_is(code, "x") && tq_span_is(text, "y"));
    a = read_all(SPAN("\x93\x02\xa3"
                      "bye\x81\xa4text\x05"));
    tq_native_read_words(a.m.body, &code, &text);
    assert_true(code.len == 0 && text.len == 0);
}

static const struct {
    const char *bytes;
    size_t len;
} good[] = {
#define GOOD(b)                                                                                              \
    {                                                                                                        \
        b, sizeof(b) - 1                                                                                     \
    }
    GOOD(WELCOME), GOOD(ANSWER), GOOD(LOST), GOOD(LOST_ARR), GOOD(ERROR), GOOD(GET_ERR),
#undef GOOD
};

static void test_cut_at_each_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        for (size_t n = 0; n <= good[i].len; n++) {
            uint8_t *copy = guard_copy(good[i].bytes, n);

            assert_int_equal(read_all(tq_span(copy, n)).rv, n == good[i].len ? TQ_OK : TQ_EPROTO);
            guard_free(copy, n);
        }
}

/* Each byte in turn is each other one: nothing is read beyond the end, and lists say no more than there is.
 */
static void test_each_byte_otherwise(void **state)
{
    size_t read = 0, refused = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        uint8_t *copy = guard_copy(good[i].bytes, good[i].len);

        for (size_t at = 0; at < good[i].len; at++) {
            uint8_t was = copy[at];

            for (unsigned v = 0; v < 256; v++) {
                copy[at] = (uint8_t)v;
                if (read_all(tq_span(copy, good[i].len)).rv == TQ_OK)
                    read++;
                else
                    refused++;
            }
            copy[at] = was;
        }
        guard_free(copy, good[i].len);
    }
    assert_true(read > 1000 && refused > 1000);
}

static void test_what_is_none(void **state)
{
    static const char *const messages[] = {"\xc0",
                                           "\x80",
                                           "\x90",
                                           "\x91\x01",
                                           "\x93\x01\x05\xc0",
                                           "\x95\x01\x05\xc0\x80\xc0",
                                           "\x94\x03\x05\xc0\x80",
                                           "\x94\x01\xff\xc0\x80",
                                           "\x94\x01\xa1\x35\xc0\x80",
                                           "\x94\x01\x05\xc0\xc0",
                                           "\x94\x01\x05\xc0\x91\x80",
                                           "\x94\x01\x05\xa1x\xc0",
                                           "\x94\x01\x05\x91\xa1x\xc0",
                                           "\x94\x01\x05\x92\x05\xa1x\xc0",
                                           "\x93\x02\x05\x80",
                                           "\x93\x02\xa1x\xc0",
                                           "\x93\x02\xa1x\x92\x80\x80",
                                           "\x93\x02\xa1x\x90",
                                           "\x94\x02\xa1x\x80\xc0",
                                           "\x94\xff\x05\xc0\x80",
                                           "\xc1"};
    static const char *const welcomes[] = {"\x80",
                                           "\x81\xa7version\x02",
                                           "\x81\xa7version\xa1"
                                           "1",
                                           "\x81\xa7version\xff",
                                           "\x82\xa7version\x01\xa5token\xa3"
                                           "abc",
                                           "\x82\xa7version\x01\xa5token\x05",
                                           "\x82\xa7version\x01\xa9max_batch\xff",
                                           "\x82\xa7version\x01\xa9max_calls\xc3",
                                           "\x82\xa7version\x01\xafmax_frame_bytes\xa1x",
                                           "\x82\xa7version\x01\xa6leases\x80",
                                           "\x82\xa7version\x01\xa6leases\x91\x91\x01",
                                           "\x82\xa7version\x01\xa6leases\x91\x92\x01\xff",
                                           "\x82\xa7version\x01\xa7resumed\x01",
                                           "\x82\xa7version\x01\xacheartbeat_ms\xcf\1\1\1\1\1\1\1\1",
                                           "\x82\xa7version\x01\xa6server\x05"};
    static const char *const answers[] = {
        "\x81\xa2ok\xff",
        "\x81\xa7refused\x05",
        "\x81\xa7refused\x91\x91\x01",
        "\x81\xa7refused\x91\x92\x01\x02",
        "\x81\xa5tasks\x80",
        "\x81\xa5tasks\x91\x93\x01\x01\x01",
        "\x81\xa5tasks\x91\x94\xff\x01\x01\x01",
        "\x81\xa5tasks\x91\x94\x01\xa1"
        "1\x01\x01",
        "\x81\xa5tasks\x91\x94\x01\x01\xc0\x01",
        "\x81\xa5tasks\x91\x95\x01\x01\x01\x01\x05",
        "\x81\xa5tasks\x91\x95\x01\x01\x01\x01\x81\xa3key\x05",
        "\x81\xa5tasks\x91\x95\x01\x01\x01\x01\x81\xa8priority\xce\x80\1\1\1",
        "\x81\xa5tasks\x91\x95\x01\x01\x01\x01\x81\xa8priority\xa1x",
        "\x81\xa5tasks\x91\x95\x01\x01\x01\x01\x81\xaa"
        "expires_ms\xff",
        "\x81\xa5tasks\x92\x94\x01\x01\x01\x01\x05",
        "\x81\xa9get_error\xa1x",
        "\x81\xa9get_error\x91\xa1x"};
    struct tq_native_welcome w;
    struct tq_native_answer a;
    const char *why;

    (void)state;
    for (size_t i = 0; i < COUNT(messages); i++)
        assert_int_equal(read_all(tq_span_str(messages[i])).rv, TQ_EPROTO);
    for (size_t i = 0; i < COUNT(welcomes); i++) {
        assert_int_equal(tq_mp_walk_all(tq_span_str(welcomes[i]), &why), TQ_OK);
        assert_int_equal(tq_native_read_welcome(&w, tq_span_str(welcomes[i]), &why), TQ_EPROTO);
    }
    for (size_t i = 0; i < COUNT(answers); i++) {
        assert_int_equal(tq_mp_walk_all(tq_span_str(answers[i]), &why), TQ_OK);
        assert_int_equal(tq_native_read_answer(&a, tq_span_str(answers[i]), &why), TQ_EPROTO);
    }
    assert_int_equal(read_all(SPAN("\x93\x02\xa4lost\x81\xa6leases\x05")).lost_rv, TQ_EPROTO);
    /* A zero that a C string cannot hold. */
    assert_int_equal(tq_native_read_welcome(&w, SPAN("\x81\xa7version\0"), &why), TQ_EPROTO);
    assert_int_equal(tq_native_read_welcome(&w, SPAN("\x82\xa7version\x01\xa9max_batch\0"), &why), TQ_EPROTO);
    assert_int_equal(read_all(SPAN("\x94\0\x05\xa1x\x80")).rv, TQ_EPROTO); /* a request */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_requests_without_room),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_welcome),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_errors_and_notices),
        cmocka_unit_test(test_cut_at_each_byte),
        cmocka_unit_test(test_each_byte_otherwise),
        cmocka_unit_test(test_what_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
