/* The handshake as conversations. Lines are parted by "; ", each says who speaks and what:
 *
 *   "P ..."          the peer says it
 *   "U ..."          we must say exactly that, next
 *   <md5:KEY>        MAC of the challenge that the speaker has to answer (also sha256, sha384, ...)
 *   <nonce>          the 40 random bytes of our challenge
 *   <20>, <40> ...   so many bytes, "ABC..."
 *
 * Anything else stands for itself. Peers' frames end at an unreadable page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/auth.h"
#include "tests/lib/guard.h"

enum { CLIENT = 0, SERVER = 1, MD5_REFUSED = 2, RHEL = 4 };

#define HELLO   "U #CHALLENGE#{sha256}<nonce>; "
#define WELCOME "U #WELCOME#; "
#define FAILURE "U #FAILURE#"
#define LEGACY  HELLO "P <md5:abc>; " WELCOME
#define MODERN  HELLO "P {sha256}<sha256:abc>; " WELCOME
#define REDHAT  HELLO "P <sha256:abc>; " WELCOME
/* A client of ours, up to where its own challenge is out. */
#define DIAL "P #CHALLENGE#{sha256}<40>; U {sha256}<sha256:abc>; P #WELCOME#; " HELLO

struct conversation {
    const char *what;
    unsigned who;     /* flags above */
    const char *keys; /* parted by '|' */
    const char *lines;
    int end; /* of the last "P" line */
    enum tq_auth_dialect dialect;
    size_t key_index;
};

/* clang-format off */
static const struct conversation conversations[] = {
    /* We are the server: peers of every age. */
    {"Python up to 3.11", SERVER, "abc",
     LEGACY "P #CHALLENGE#is-twenty-bytes-long; U <md5:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_LEGACY, 0},
    {"Python since 3.12", SERVER, "abc",
     MODERN "P #CHALLENGE#{sha256}<40>; U {sha256}<sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"Red Hat's builds", SERVER, "abc",
     REDHAT "P #CHALLENGE#is-twenty-bytes-long; U <sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_RHEL, 0},
    {"named md5", SERVER, "abc",
     HELLO "P {md5}<md5:abc>; " WELCOME "P #CHALLENGE#{md5}<40>; U {md5}<md5:abc>; P #WELCOME#",
     TQ_OK, TQ_AUTH_MODERN, 0},
    {"sha384", SERVER, "abc",
     HELLO "P {sha384}<sha384:abc>; " WELCOME "P #CHALLENGE#{sha384}<40>; U {sha384}<sha384:abc>; P #WELCOME#",
     TQ_OK, TQ_AUTH_MODERN, 0},
    {"sha3_256", SERVER, "abc",
     HELLO "P {sha3_256}<sha3_256:abc>; " WELCOME
     "P #CHALLENGE#{sha3_256}<40>; U {sha3_256}<sha3_256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"sha3_384", SERVER, "abc",
     HELLO "P {sha3_384}<sha3_384:abc>; " WELCOME
     "P #CHALLENGE#{sha3_384}<40>; U {sha3_384}<sha3_384:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"a challenge of 20 bytes takes a raw MAC even when it has a prefix", SERVER, "abc",
     MODERN "P #CHALLENGE#{sha256}<12>; U <md5:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"the longest challenge", SERVER, "abc",
     MODERN "P #CHALLENGE#{sha256}<237>; U {sha256}<sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"an old peer with a new challenge", SERVER, "abc",
     LEGACY "P #CHALLENGE#{sha384}<40>; U {sha384}<sha384:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_LEGACY, 0},
    {"empty key", SERVER, "",
     HELLO "P {sha256}<sha256:>; " WELCOME "P #CHALLENGE#<20>; U <md5:>; P #WELCOME#",
     TQ_OK, TQ_AUTH_MODERN, 0},
    {"the second of three keys", SERVER, "first|abc|third",
     LEGACY "P #CHALLENGE#<20>; U <md5:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_LEGACY, 1},
    {"the last of three keys", SERVER, "first|second|abc",
     MODERN "P #CHALLENGE#{sha256}<40>; U {sha256}<sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 2},
    {"equal keys: the first counts", SERVER, "other|abc|abc",
     REDHAT "P #CHALLENGE#<20>; U <sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_RHEL, 1},
    {"md5 refused, sha256 is good", SERVER | MD5_REFUSED, "abc",
     MODERN "P #CHALLENGE#{sha256}<40>; U {sha256}<sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"md5 refused, Red Hat is good", SERVER | MD5_REFUSED, "abc",
     REDHAT "P #CHALLENGE#<20>; U <sha256:abc>; P #WELCOME#", TQ_OK, TQ_AUTH_RHEL, 0},

    /* Wrong answers. */
    {"md5 refused", SERVER | MD5_REFUSED, "abc", HELLO "P <md5:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"named md5 refused", SERVER | MD5_REFUSED, "abc", HELLO "P {md5}<md5:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"wrong key, md5", SERVER, "abc", HELLO "P <md5:abd>; " FAILURE, TQ_EAUTH, 0, 0},
    {"wrong key, sha256", SERVER, "abc", HELLO "P {sha256}<sha256:ab>; " FAILURE, TQ_EAUTH, 0, 0},
    {"wrong key, Red Hat", SERVER, "abc", HELLO "P <sha256:>; " FAILURE, TQ_EAUTH, 0, 0},
    {"none of three keys", SERVER, "first|second|third", HELLO "P <md5:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"nothing", SERVER, "abc", HELLO "P ; " FAILURE, TQ_EAUTH, 0, 0},
    {"15 bytes", SERVER, "abc", HELLO "P <15>; " FAILURE, TQ_EAUTH, 0, 0},
    {"16 bytes", SERVER, "abc", HELLO "P <16>; " FAILURE, TQ_EAUTH, 0, 0},
    {"17 bytes", SERVER, "abc", HELLO "P <md5:abc>A; " FAILURE, TQ_EAUTH, 0, 0},
    {"20 bytes", SERVER, "abc", HELLO "P <md5:abc>ABCD; " FAILURE, TQ_EAUTH, 0, 0},
    {"31 bytes", SERVER, "abc", HELLO "P <31>; " FAILURE, TQ_EAUTH, 0, 0},
    {"33 bytes", SERVER, "abc", HELLO "P <sha256:abc>A; " FAILURE, TQ_EAUTH, 0, 0},
    {"48 raw bytes", SERVER, "abc", HELLO "P <sha384:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"200 bytes", SERVER, "abc", HELLO "P <200>; " FAILURE, TQ_EAUTH, 0, 0},
    {"256 bytes", SERVER, "abc", HELLO "P <256>; " FAILURE, TQ_EAUTH, 0, 0},
    {"unknown digest", SERVER, "abc", HELLO "P {sha999}<sha256:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"digest that Python does not allow", SERVER, "abc", HELLO "P {sha1}<20>; " FAILURE, TQ_EAUTH, 0, 0},
    {"no closing brace", SERVER, "abc", HELLO "P {sha256<sha256:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"empty name", SERVER, "abc", HELLO "P {}<sha256:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"two names", SERVER, "abc", HELLO "P {sha256}{sha256}<sha256:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"brace alone", SERVER, "abc", HELLO "P {; " FAILURE, TQ_EAUTH, 0, 0},
    {"name alone", SERVER, "abc", HELLO "P {sha256}; " FAILURE, TQ_EAUTH, 0, 0},
    {"MAC cut by one", SERVER, "abc", HELLO "P {sha256}<31>; " FAILURE, TQ_EAUTH, 0, 0},
    {"MAC of another digest", SERVER, "abc", HELLO "P {sha3_256}<sha256:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"name and a MAC that is too short for it", SERVER, "abc", HELLO "P {sha384}<sha256:abc>; " FAILURE,
     TQ_EAUTH, 0, 0},
    {"capital letters", SERVER, "abc", HELLO "P {SHA256}<sha256:abc>; " FAILURE, TQ_EAUTH, 0, 0},
    {"our challenge itself", SERVER, "abc", HELLO "P {sha256}<nonce>; " FAILURE, TQ_EAUTH, 0, 0},
    {"16 bytes that begin with a brace", SERVER, "abc", HELLO "P {md5}<11>; " FAILURE, TQ_EAUTH, 0, 0},
    {"32 bytes that begin with a name", SERVER, "abc", HELLO "P {sha256}<24>; " FAILURE, TQ_EAUTH, 0, 0},
    {"a request at once", SERVER, "abc", HELLO "P \x80\x03(NX\5; " FAILURE, TQ_EAUTH, 0, 0},
    {"#WELCOME# for an answer", SERVER, "abc", HELLO "P #WELCOME#; " FAILURE, TQ_EAUTH, 0, 0},
    {"a challenge for an answer", SERVER, "abc", HELLO "P #CHALLENGE#{sha256}<40>; " FAILURE, TQ_EAUTH, 0, 0},

    /* Wrong challenges. */
    {"empty challenge", SERVER, "abc", LEGACY "P #CHALLENGE#", TQ_EPROTO, 0, 0},
    {"19 bytes", SERVER, "abc", LEGACY "P #CHALLENGE#<19>", TQ_EPROTO, 0, 0},
    {"19 bytes with a name", SERVER, "abc", MODERN "P #CHALLENGE#{sha256}<11>", TQ_EPROTO, 0, 0},
    {"21 bytes", SERVER, "abc", LEGACY "P #CHALLENGE#<21>", TQ_EPROTO, 0, 0},
    {"40 bytes without a name", SERVER, "abc", MODERN "P #CHALLENGE#<40>", TQ_EPROTO, 0, 0},
    {"a name we do not know", SERVER, "abc", MODERN "P #CHALLENGE#{sha512}<40>", TQ_EPROTO, 0, 0},
    {"a name without an end", SERVER, "abc", MODERN "P #CHALLENGE#{sha256<40>", TQ_EPROTO, 0, 0},
    {"another word", SERVER, "abc", MODERN "P #CHALLENGED{sha256}<40>", TQ_EPROTO, 0, 0},
    {"the word cut", SERVER, "abc", MODERN "P #CHALLENGE", TQ_EPROTO, 0, 0},
    {"nothing for a challenge", SERVER, "abc", MODERN "P ", TQ_EPROTO, 0, 0},
    {"a request for a challenge", SERVER, "abc", MODERN "P \x80\x04\x95", TQ_EPROTO, 0, 0},
    {"#WELCOME# twice", SERVER, "abc", MODERN "P #WELCOME#", TQ_EPROTO, 0, 0},
    {"#FAILURE# for a challenge", SERVER, "abc", MODERN "P #FAILURE#", TQ_EPROTO, 0, 0},
    {"our own challenge back", SERVER, "abc", MODERN "P #CHALLENGE#{sha256}<nonce>", TQ_EREFLECT, 0, 0},
    {"our own nonce alone", SERVER, "abc", MODERN "P #CHALLENGE#<nonce>", TQ_EREFLECT, 0, 0},
    {"our own nonce inside", SERVER, "abc", MODERN "P #CHALLENGE#{md5}<7><nonce><9>", TQ_EREFLECT, 0, 0},
    {"our own nonce behind much else", SERVER, "abc", MODERN "P #CHALLENGE#{sha256}<197><nonce>",
     TQ_EREFLECT, 0, 0},

    /* Wrong verdicts. */
    {"the client rejects us", SERVER, "abc", MODERN "P #CHALLENGE#<20>; U <md5:abc>; P #FAILURE#",
     TQ_EAUTH, 0, 0},
    {"no verdict", SERVER, "abc", MODERN "P #CHALLENGE#<20>; U <md5:abc>; P ", TQ_EPROTO, 0, 0},
    {"a verdict with a tail", SERVER, "abc", MODERN "P #CHALLENGE#<20>; U <md5:abc>; P #WELCOME#x",
     TQ_EPROTO, 0, 0},
    {"a verdict cut", SERVER, "abc", MODERN "P #CHALLENGE#<20>; U <md5:abc>; P #WELCOME", TQ_EPROTO, 0, 0},
    {"a second challenge for a verdict", SERVER, "abc",
     MODERN "P #CHALLENGE#<20>; U <md5:abc>; P #CHALLENGE#<20>", TQ_EPROTO, 0, 0},
    {"a frame behind the end", SERVER, "abc",
     MODERN "P #CHALLENGE#<20>; U <md5:abc>; P #WELCOME#; P #WELCOME#", TQ_EPROTO, 0, 0},

    /* We are the client: servers of every age. */
    {"server up to 3.11", CLIENT, "abc",
     "P #CHALLENGE#is-twenty-bytes-long; U <md5:abc>; P #WELCOME#; " HELLO "P <md5:abc>; U #WELCOME#",
     TQ_OK, TQ_AUTH_LEGACY, 0},
    {"server since 3.12", CLIENT, "abc", DIAL "P {sha256}<sha256:abc>; U #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"Red Hat's server", CLIENT | RHEL, "abc",
     "P #CHALLENGE#is-twenty-bytes-long; U <sha256:abc>; P #WELCOME#; " HELLO "P <sha256:abc>; U #WELCOME#",
     TQ_OK, TQ_AUTH_RHEL, 0},
    {"rhel set, and the server is a modern one", CLIENT | RHEL, "abc",
     DIAL "P {sha256}<sha256:abc>; U #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"server that wants sha3_384", CLIENT, "abc",
     "P #CHALLENGE#{sha3_384}<48>; U {sha3_384}<sha3_384:abc>; P #WELCOME#; " HELLO
     "P {sha3_384}<sha3_384:abc>; U #WELCOME#", TQ_OK, TQ_AUTH_MODERN, 0},
    {"empty key, as a client", CLIENT, "",
     "P #CHALLENGE#<20>; U <md5:>; P #WELCOME#; " HELLO "P <md5:>; U #WELCOME#", TQ_OK, TQ_AUTH_LEGACY, 0},
    {"the server refuses us", CLIENT, "abc",
     "P #CHALLENGE#{sha256}<40>; U {sha256}<sha256:abc>; P #FAILURE#", TQ_EAUTH, 0, 0},
    {"the server has another key", CLIENT, "abc", DIAL "P {sha256}<sha256:abd>; " FAILURE, TQ_EAUTH, 0, 0},
    {"the server answers with noise", CLIENT, "abc", DIAL "P <100>; " FAILURE, TQ_EAUTH, 0, 0},
    {"the server answers with nothing", CLIENT, "abc", DIAL "P ; " FAILURE, TQ_EAUTH, 0, 0},
    {"the server does not greet with a challenge", CLIENT, "abc", "P SSH-2.0-OpenSSH", TQ_EPROTO, 0, 0},
    {"the server greets with nothing", CLIENT, "abc", "P ", TQ_EPROTO, 0, 0},
    {"the server's challenge is short", CLIENT, "abc", "P #CHALLENGE#<19>", TQ_EPROTO, 0, 0},
    {"two challenges", CLIENT, "abc",
     "P #CHALLENGE#<20>; U <md5:abc>; P #CHALLENGE#<20>", TQ_EPROTO, 0, 0},
    {"a frame behind the end, as a client", CLIENT, "abc",
     DIAL "P {sha256}<sha256:abc>; U #WELCOME#; P #WELCOME#", TQ_EPROTO, 0, 0},
    {"a traceback for a verdict", CLIENT, "abc",
     "P #CHALLENGE#<20>; U <md5:abc>; P \x80\x04\x95", TQ_EPROTO, 0, 0},
};
/* clang-format on */

/* ---- the player ---- */

struct message {
    size_t len;
    uint8_t data[512];
};

struct player {
    const struct conversation *c;
    struct tq_auth auth;
    struct tq_auth_out out;
    unsigned out_seen;
    uint8_t nonce[TQ_AUTH_NONCE_BYTES];
    struct message ours; /* challenge payloads */
    struct message theirs;
    char key_text[64];
    struct tq_auth_key keys[4];
};

static void split_keys(struct player *p, const char *text, size_t *ret_count)
{
    char *at = p->key_text;
    size_t n = 0;

    snprintf(p->key_text, sizeof(p->key_text), "%s", text);
    for (char *part; (part = strsep(&at, "|")) != NULL; n++)
        p->keys[n] = (struct tq_auth_key){.secret = tq_span_str(part), .name = part};
    *ret_count = n;
}

/* One "<...>" of a template; returns its length in the template. */
static size_t expand_token(const struct player *p, const char *t, const struct message *answered,
                           struct message *m)
{
    size_t len = strcspn(t, ">") + 1;
    const char *colon = memchr(t, ':', len);
    enum tq_digest digest;

    if (strncmp(t, "<nonce>", len) == 0) {
        memcpy(m->data + m->len, p->nonce, sizeof(p->nonce));
        m->len += sizeof(p->nonce);
    } else if (colon != NULL) {
        struct tq_span key = tq_span(colon + 1, len - 2 - (size_t)(colon - t));

        assert_int_equal(tq_digest_by_name(tq_span(t + 1, (size_t)(colon - t - 1)), &digest), TQ_OK);
        assert_int_equal(tq_hmac(digest, key, tq_span(answered->data, answered->len), m->data + m->len),
                         TQ_OK);
        m->len += tq_digest_bytes(digest);
    } else {
        for (int i = 0, n = atoi(t + 1); i < n; i++)
            m->data[m->len++] = (uint8_t)('A' + i % 26);
    }
    return len;
}

static void expand(const struct player *p, const char *t, size_t len, const struct message *answered,
                   struct message *m)
{
    m->len = 0;
    for (size_t i = 0; i < len;) {
        if (t[i] == '<')
            i += expand_token(p, t + i, answered, m);
        else
            m->data[m->len++] = (uint8_t)t[i++];
    }
}

static void remember_challenge(const struct message *m, struct message *to)
{
    if (m->len < 11 || memcmp(m->data, "#CHALLENGE#", 11) != 0)
        return;
    to->len = m->len - 11;
    memcpy(to->data, m->data + 11, to->len);
}

static void we_say(struct player *p, const char *t, size_t len)
{
    struct message m;

    if (p->out_seen >= p->out.count)
        fail_msg("%s: silence instead of %.*s", p->c->what, (int)len, t);
    m.len = p->out.msg[p->out_seen].len;
    memcpy(m.data, p->out.msg[p->out_seen].data, m.len);
    if (m.len == TQ_AUTH_NONCE_BYTES + 19 && memcmp(m.data, "#CHALLENGE#{sha256}", 19) == 0)
        memcpy(p->nonce, m.data + 19, sizeof(p->nonce));
    remember_challenge(&m, &p->ours);
    expand(p, t, len, &p->theirs, &m);
    if (!tq_span_eq(tq_span(m.data, m.len),
                    tq_span(p->out.msg[p->out_seen].data, p->out.msg[p->out_seen].len)))
        fail_msg("%s: something else than %.*s", p->c->what, (int)len, t);
    p->out_seen++;
}

static int peer_says(struct player *p, const char *t, size_t len)
{
    struct message m;
    uint8_t *frame;
    int rv;

    assert_int_equal(p->out_seen, p->out.count);
    expand(p, t, len, &p->ours, &m);
    remember_challenge(&m, &p->theirs);
    frame = guard_copy(m.data, m.len);
    rv = tq_auth_feed(&p->auth, tq_span(frame, m.len), &p->out);
    guard_free(frame, m.len);
    p->out_seen = 0;
    return rv;
}

static void play(const struct conversation *c)
{
    struct tq_auth_registry registry;
    struct player p = {.c = c};
    const char *line = c->lines;
    size_t key_count;
    int rv = TQ_OK;

    tq_auth_registry_init(&registry);
    split_keys(&p, c->keys, &key_count);
    if (c->who & SERVER)
        tq_auth_init_server(&p.auth, &registry, p.keys, key_count);
    else
        tq_auth_init_client(&p.auth, &registry, p.keys);
    p.auth.md5_refused = c->who & MD5_REFUSED;
    p.auth.rhel = c->who & RHEL;
    assert_int_equal(tq_auth_start(&p.auth, &p.out), TQ_OK);
    while (*line != '\0') {
        const char *end = strstr(line, "; ");
        size_t len = end ? (size_t)(end - line) : strlen(line);

        if (line[0] == 'U') {
            we_say(&p, line + 2, len - 2);
        } else {
            if (rv != TQ_OK)
                fail_msg("%s: failed early: %s", c->what, tq_strerror(rv));
            rv = peer_says(&p, line + 2, len - 2);
        }
        line += len + (end ? 2 : 0);
    }
    if (rv != c->end)
        fail_msg("%s: ends with: %s", c->what, tq_strerror(rv));
    if (p.out_seen != p.out.count)
        fail_msg("%s: we say too much", c->what);
    if (rv == TQ_OK) {
        assert_int_equal(p.auth.state, TQ_AUTH_DONE);
        assert_int_equal(p.auth.dialect, c->dialect);
        assert_int_equal(p.auth.key_index, c->key_index);
    } else { /* whatever comes now, it stays failed and says nothing */
        assert_int_equal(p.auth.state, TQ_AUTH_FAILED);
        assert_int_equal(peer_says(&p, "{sha256}<sha256:abc>", 20), TQ_EPROTO);
        assert_int_equal(p.out.count, 0);
        assert_int_equal(p.auth.state, TQ_AUTH_FAILED);
    }
    tq_auth_deinit(&p.auth);
    tq_auth_deinit(&p.auth);
    tq_auth_registry_deinit(&registry);
}

static void test_conversations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(conversations) / sizeof(conversations[0]); i++)
        play(&conversations[i]);
}

/* ---- what a table cannot say ---- */

static const struct tq_auth_key abc = {.secret = {(const uint8_t *)"abc", 3}, .name = "abc"};

/* A raw SHA-256 MAC begins with '{' once in 256 times; it must be taken all the same. */
static void test_raw_mac_that_begins_with_a_brace(void **state)
{
    struct tq_auth_registry registry;
    unsigned braces = 0;

    (void)state;
    tq_auth_registry_init(&registry);
    for (int i = 0; i < 4000 || braces == 0; i++) {
        struct tq_auth auth;
        struct tq_auth_out out;
        uint8_t mac[32];

        tq_auth_init_server(&auth, &registry, &abc, 1);
        assert_int_equal(tq_auth_start(&auth, &out), TQ_OK);
        assert_int_equal(tq_hmac(TQ_SHA256, abc.secret, tq_span(out.msg[0].data + 11, 48), mac), TQ_OK);
        braces += mac[0] == '{';
        assert_int_equal(tq_auth_feed(&auth, tq_span(mac, 32), &out), TQ_OK);
        assert_int_equal(auth.dialect, TQ_AUTH_RHEL);
        tq_auth_deinit(&auth);
    }
    tq_auth_registry_deinit(&registry);
}

/* The challenge of one connection handed back on another, both roles; and no longer once its handshake
 * is over. */
static void test_reflection_through_another_connection(void **state)
{
    struct tq_auth_registry registry, other_process;
    struct tq_auth_out theirs, out;
    uint8_t challenge[TQ_AUTH_CHALLENGE_MAX_BYTES];
    struct tq_auth server, client;
    size_t len;

    (void)state;
    tq_auth_registry_init(&registry);
    tq_auth_registry_init(&other_process);
    tq_auth_init_server(&server, &registry, &abc, 1);
    assert_int_equal(tq_auth_start(&server, &theirs), TQ_OK);
    len = theirs.msg[0].len;
    memcpy(challenge, theirs.msg[0].data, len);

    tq_auth_init_client(&client, &registry, &abc);
    assert_int_equal(tq_auth_start(&client, &out), TQ_OK);
    assert_int_equal(out.count, 0);
    assert_int_equal(tq_auth_feed(&client, tq_span(challenge, len), &out), TQ_EREFLECT);
    assert_int_equal(out.count, 0); /* above all: no MAC */
    tq_auth_deinit(&client);

    tq_auth_init_client(&client, &other_process, &abc);
    assert_int_equal(tq_auth_start(&client, &out), TQ_OK);
    assert_int_equal(tq_auth_feed(&client, tq_span(challenge, len), &out), TQ_OK);
    tq_auth_deinit(&client);

    /* The same with a client's challenge, which a server without the key gets for a #WELCOME#. */
    tq_auth_init_client(&client, &registry, &abc);
    assert_int_equal(tq_auth_start(&client, &out), TQ_OK);
    assert_int_equal(tq_auth_feed(&client, tq_span("#CHALLENGE#is-twenty-bytes-long", 31), &out), TQ_OK);
    assert_int_equal(tq_auth_feed(&client, tq_span_str("#WELCOME#"), &out), TQ_OK);
    len = out.msg[0].len;
    memcpy(challenge, out.msg[0].data, len);
    tq_auth_deinit(&server);
    tq_auth_init_client(&server, &registry, &abc);
    assert_int_equal(tq_auth_start(&server, &out), TQ_OK);
    assert_int_equal(tq_auth_feed(&server, tq_span(challenge, len), &out), TQ_EREFLECT);
    assert_int_equal(out.count, 0);
    tq_auth_deinit(&server);

    tq_auth_deinit(&client);
    tq_auth_init_client(&client, &registry, &abc);
    assert_int_equal(tq_auth_start(&client, &out), TQ_OK);
    assert_int_equal(tq_auth_feed(&client, tq_span(challenge, len), &out), TQ_OK);
    tq_auth_deinit(&client);
    tq_auth_registry_deinit(&registry);
    tq_auth_registry_deinit(&other_process);
}

/* A wrong answer costs one MAC for each key, whatever its form, and a right one the same, whichever key
 * matches: nothing is left out that a clock could see. */
static void test_the_same_work_for_every_answer(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    struct tq_auth_key keys[4];
    struct tq_auth_registry registry;
    uint8_t noise[256];

    (void)state;
    for (size_t k = 0; k < 4; k++)
        keys[k] = (struct tq_auth_key){.secret = tq_span_str(names[k]), .name = names[k]};
    memset(noise, 'x', sizeof(noise));
    memcpy(noise, "{sha256}", 8);
    tq_auth_registry_init(&registry);
    for (size_t len = 0; len <= sizeof(noise); len++) {
        struct tq_auth auth;
        struct tq_auth_out out;
        unsigned long before;

        tq_auth_init_server(&auth, &registry, keys, 4);
        auth.md5_refused = len % 2;
        assert_int_equal(tq_auth_start(&auth, &out), TQ_OK);
        before = tq_hmac_count();
        assert_int_equal(tq_auth_feed(&auth, tq_span(noise, len), &out), TQ_EAUTH);
        assert_int_equal(tq_hmac_count() - before, 4);
        assert_int_equal(out.count, 1);
        assert_true(tq_span_is(tq_span(out.msg[0].data, out.msg[0].len), "#FAILURE#"));
        tq_auth_deinit(&auth);
    }
    for (size_t k = 0; k < 4; k++) {
        struct tq_auth auth;
        struct tq_auth_out out;
        unsigned long before;
        uint8_t mac[16];

        tq_auth_init_server(&auth, &registry, keys, 4);
        assert_int_equal(tq_auth_start(&auth, &out), TQ_OK);
        assert_int_equal(tq_hmac(TQ_MD5, keys[k].secret, tq_span(out.msg[0].data + 11, 48), mac), TQ_OK);
        before = tq_hmac_count();
        assert_int_equal(tq_auth_feed(&auth, tq_span(mac, 16), &out), TQ_OK);
        assert_int_equal(tq_hmac_count() - before, 4);
        assert_int_equal(auth.key_index, k);
        tq_auth_deinit(&auth);
    }
    tq_auth_registry_deinit(&registry);
}

/* Every single wrong bit of a MAC is noticed. */
static void test_each_bit_counts(void **state)
{
    static const size_t prefix[] = {0, 8};
    struct tq_auth_registry registry;

    (void)state;
    tq_auth_registry_init(&registry);
    for (size_t form = 0; form < 2; form++) {
        for (size_t bit = 0; bit < 32 * 8; bit++) {
            struct tq_auth auth;
            struct tq_auth_out out;
            uint8_t answer[40] = "{sha256}";
            uint8_t *mac = answer + prefix[form];

            tq_auth_init_server(&auth, &registry, &abc, 1);
            assert_int_equal(tq_auth_start(&auth, &out), TQ_OK);
            assert_int_equal(tq_hmac(TQ_SHA256, abc.secret, tq_span(out.msg[0].data + 11, 48), mac), TQ_OK);
            mac[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(tq_auth_feed(&auth, tq_span(answer, prefix[form] + 32), &out), TQ_EAUTH);
            tq_auth_deinit(&auth);
        }
    }
    tq_auth_registry_deinit(&registry);
}

static int compare_nonces(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

static void test_nonces_never_repeat(void **state)
{
    enum { DRAWS = 1 << 20 };
    uint8_t(*seen)[16] = malloc((size_t)DRAWS * 16);
    struct tq_auth_registry registry;

    (void)state;
    assert_non_null(seen);
    tq_auth_registry_init(&registry);
    for (size_t i = 0; i < DRAWS; i++) {
        struct tq_auth auth;
        struct tq_auth_out out;

        tq_auth_init_server(&auth, &registry, &abc, 1);
        if (tq_auth_start(&auth, &out) != TQ_OK || out.msg[0].len != 59)
            fail();
        memcpy(seen[i], out.msg[0].data + 19, 16); /* if these differ, the whole does */
        tq_auth_deinit(&auth);
    }
    qsort(seen, DRAWS, sizeof(seen[0]), compare_nonces);
    for (size_t i = 1; i < DRAWS; i++) {
        if (memcmp(seen[i - 1], seen[i], 16) == 0)
            fail_msg("a nonce came twice");
    }
    free(seen);
    tq_auth_registry_deinit(&registry);
}

/* Many handshakes open at once: each knows its own, deinit in any order. */
static void test_many_outstanding(void **state)
{
    enum { N = 10000 };
    struct tq_auth *auths = calloc(N, sizeof(*auths));
    uint8_t(*challenges)[59] = malloc(sizeof(*challenges) * N);
    struct tq_auth_registry registry;
    struct tq_auth_out out;

    (void)state;
    tq_auth_registry_init(&registry);
    for (size_t i = 0; i < N; i++) {
        tq_auth_init_server(&auths[i], &registry, &abc, 1);
        assert_int_equal(tq_auth_start(&auths[i], &out), TQ_OK);
        memcpy(challenges[i], out.msg[0].data, 59);
    }
    for (size_t k = 0; k < N; k++) {
        size_t i = k * 7919 % N;
        struct tq_auth client;

        for (int gone = 0; gone < 2; gone++) {
            tq_auth_init_client(&client, &registry, &abc);
            assert_int_equal(tq_auth_start(&client, &out), TQ_OK);
            assert_int_equal(tq_auth_feed(&client, tq_span(challenges[i], 59), &out),
                             gone ? TQ_OK : TQ_EREFLECT);
            tq_auth_deinit(&client);
            tq_auth_deinit(&auths[i]);
        }
    }
    tq_auth_registry_deinit(&registry);
    free(challenges);
    free(auths);
}

static void test_without_memory(void **state)
{
    struct tq_auth_registry registry;
    unsigned failures = 0;

    (void)state;
    tq_auth_registry_init(&registry);
    /* On an empty table, then on one that must grow. */
    for (size_t held_count = 0; held_count < 600; held_count += 599) {
        struct tq_auth held[600], auth;
        struct tq_auth_out out;
        int rv = TQ_ENOMEM;

        for (size_t i = 0; i < held_count; i++) {
            tq_auth_init_server(&held[i], &registry, &abc, 1);
            tq_mem_fail_after((long)i % 3, 1);
            rv = tq_auth_start(&held[i], &out);
            tq_mem_fail_after(-1, 0);
            if (rv != TQ_OK) {
                failures++;
                assert_int_equal(rv, TQ_ENOMEM);
                assert_int_equal(held[i].state, TQ_AUTH_FAILED);
                assert_null(held[i].nonce);
                tq_auth_init_server(&held[i], &registry, &abc, 1);
                assert_int_equal(tq_auth_start(&held[i], &out), TQ_OK);
            }
        }
        rv = TQ_ENOMEM;
        for (long n = 0; rv != TQ_OK; n++) {
            tq_auth_init_client(&auth, &registry, &abc);
            tq_mem_fail_after(n, 1);
            rv = tq_auth_start(&auth, &out);
            tq_mem_fail_after(-1, 0);
            assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
            failures += rv != TQ_OK;
            tq_auth_deinit(&auth);
        }
        for (size_t i = 0; i < held_count; i++)
            tq_auth_deinit(&held[i]);
    }
    assert_true(failures > 200);
    tq_auth_registry_deinit(&registry);
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
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_raw_mac_that_begins_with_a_brace),
        cmocka_unit_test(test_reflection_through_another_connection),
        cmocka_unit_test(test_the_same_work_for_every_answer),
        cmocka_unit_test(test_each_bit_counts),
        cmocka_unit_test(test_nonces_never_repeat),
        cmocka_unit_test(test_many_outstanding),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, end);
}
