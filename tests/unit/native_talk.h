/* Conversations with the native dialect, as text: say what the client sends, hear what it gets. */
#ifndef TESTS_UNIT_NATIVE_TALK_H
#define TESTS_UNIT_NATIVE_TALK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_check.h"
#include "tests/lib/mptext.h"
#include "tests/lib/native_host.h"

/* One message. */
__attribute__((format(printf, 2, 3))) static inline void say(struct native_client *c, const char *fmt, ...)
{
    struct tq_buf payload = TQ_BUF_NULL(1u << 26);
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    assert_true(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    if (!mptext_encode(text, &payload))
        fail_msg("not to be encoded: %s", text);
    native_rig_send(c, tq_buf_span(&payload));
    tq_buf_deinit(&payload);
    free(text);
}

/* The next frame matches. */
__attribute__((format(printf, 2, 3))) static inline void hear(struct native_client *c, const char *fmt, ...)
{
    struct tq_span payload;
    char *text = NULL, *got;
    const char *why;
    va_list ap;

    va_start(ap, fmt);
    assert_true(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    if (!native_rig_read(c, &payload))
        fail_msg("nothing came, but should: %s", text);
    assert_int_equal(tq_mp_walk_all(payload, &why), TQ_OK);
    got = mptext_decode(payload);
    if (!mptext_match(text, got))
        fail_msg("came: %s\nbut should: %s", got, text);
    free(got);
    free(text);
}

static inline void hear_nothing(struct native_client *c)
{
    struct tq_span payload;

    if (native_rig_read(c, &payload))
        fail_msg("came: %s", mptext_decode(payload));
}

/* It is an error of this code, and its text holds the word. */
static inline void hear_error(struct native_client *c, unsigned msgid, const char *code, const char *word)
{
    hear(c, "[1,%u,['%s','*%s*'],nil]", msgid, code, word);
}

/* A connection that has said hello; worker: "" for none. */
static inline struct native_client *client(struct native_rig *r, const char *worker)
{
    struct native_client *c = native_rig_connect(r, 0);

    assert_non_null(c);
    if (worker[0] != '\0')
        say(c, "[0,0,'hello',{version:1,worker:'%s'}]", worker);
    else
        say(c, "[0,0,'hello',{version:1}]");
    hear(c, "[1,0,nil,{version:1,*}]");
    return c;
}

/* A session's token, out of a hello's reply. */
struct token {
    char text[64 + 16];
};

static inline struct token token_of(const char *reply)
{
    const char *at = strstr(reply, "token:b'");
    struct token token;

    if (at == NULL) {
        fail_msg("no token in %s", reply);
        abort();
    }
    (void)snprintf(token.text, sizeof(token.text), "%.*s", (int)(strstr(at, ",resumed") - at - 6), at + 6);
    return token;
}

static inline struct token hello_token(struct native_client *c, const char *params)
{
    struct tq_span payload;
    struct token token;
    char *got;

    say(c, "[0,0,'hello',%s]", params);
    assert_true(native_rig_read(c, &payload));
    got = mptext_decode(payload);
    token = token_of(got);
    free(got);
    return token;
}

static inline void check(struct native_rig *r)
{
    const char *wrong = broker_check(r->broker);

    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static inline void setup(struct native_rig *r)
{
    assert_true(native_rig_init(r, NULL));
}

static inline void teardown(struct native_rig *r)
{
    check(r);
    native_rig_deinit(r);
}

#endif
