/* Keys: the file as a whole, each line that is refused, patterns against fnmatch, and who may do what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <fnmatch.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/access/keys.h"
#include "tests/lib/guard.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* "@FILE": its secret is the path, backwards; "missing" cannot be read. */
static int read_backwards(void *ctx, const char *path, uint8_t **ret, size_t *ret_len,
                          char err[KEYS_ERROR_MAX])
{
    size_t n = strlen(path);
    uint8_t *secret;

    assert_ptr_equal(ctx, &read_backwards);
    if (strcmp(path, "missing") == 0) {
        snprintf(err, KEYS_ERROR_MAX, "cannot open it");
        return TQ_EIO;
    }
    secret = tq_malloc(n);
    if (secret == NULL) {
        snprintf(err, KEYS_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        secret[i] = (uint8_t)path[n - 1 - i];
    *ret = secret;
    *ret_len = n;
    return TQ_OK;
}

/* The text ends at an unreadable page. */
static int parse_bytes(struct keys *k, const void *text, size_t n, unsigned *line, char err[KEYS_ERROR_MAX])
{
    uint8_t *copy = guard_copy(text, n);
    int rv;

    keys_init(k);
    rv = keys_parse(k, tq_span(copy, n), read_backwards, &read_backwards, line, err);
    guard_free(copy, n);
    return rv;
}

static int parse(struct keys *k, const char *text, unsigned *line, char err[KEYS_ERROR_MAX])
{
    return parse_bytes(k, text, strlen(text), line, err);
}

static void assert_key(const struct key *key, const char *name, enum key_role role, const void *secret,
                       size_t len, const char *put, const char *get)
{
    assert_string_equal(key->name, name);
    assert_int_equal(key->role, role);
    assert_int_equal(key->secret_len, len);
    assert_memory_equal(key->secret, secret, len);
    assert_string_equal(key->put, put);
    assert_string_equal(key->get, get);
}

static const char whole[] = "# keys of the tests\n"
                            "\n"
                            "boss admin boss-secret\n"
                            "  \t w1\tworker   @w1.key  get=mail,mail-*   put= # the mail queues\r\n"
                            "shop producer base64:AAEC/w== put=mail\n"
                            "#shop2 producer secret\n"
                            "eye observer pa#ss=word@3\n"
                            "p.2_x-Y producer base64:aGVsbG8h get=[a-c]?,[!x]*\n"
                            "last worker \xc3\xa9t\xc3\xa9";

static void check_whole(const struct keys *k)
{
    static const uint8_t bytes[] = {0, 1, 2, 0xff};

    assert_int_equal(k->count, 6);
    assert_key(&k->list[0], "boss", KEY_ADMIN, "boss-secret", 11, "", "");
    assert_key(&k->list[1], "w1", KEY_WORKER, "yek.1w", 6, "", "mail,mail-*");
    assert_key(&k->list[2], "shop", KEY_PRODUCER, bytes, 4, "mail", "result_queue");
    assert_key(&k->list[3], "eye", KEY_OBSERVER, "pa#ss=word@3", 12, "", "");
    assert_key(&k->list[4], "p.2_x-Y", KEY_PRODUCER, "hello!", 6, "task_queue", "[a-c]?,[!x]*");
    assert_key(&k->list[5], "last", KEY_WORKER, "\xc3\xa9t\xc3\xa9", 5, "result_queue", "task_queue");
}

static void a_whole_file(void **state)
{
    struct keys k;
    char err[KEYS_ERROR_MAX];
    unsigned line;

    (void)state;
    assert_int_equal(parse(&k, whole, &line, err), TQ_OK);
    assert_string_equal(err, "");
    assert_int_equal(line, 9);
    check_whole(&k);
    assert_int_equal(keys_seal(&k), TQ_OK);
    for (size_t i = 0; i < k.count; i++) {
        assert_ptr_equal(k.auth[i].name, k.list[i].name);
        assert_ptr_equal(k.auth[i].secret.data, k.list[i].secret);
        assert_int_equal(k.auth[i].secret.len, k.list[i].secret_len);
    }
    keys_deinit(&k);
    assert_int_equal(k.count, 0);
    keys_deinit(&k);
}

/* A file cut anywhere is either refused or has the keys of its whole lines, and of a last one that is cut. */
static void cut_at_each_length(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof(whole); n++) {
        struct keys k;
        char err[KEYS_ERROR_MAX];
        unsigned line;
        int rv = parse_bytes(&k, whole, n, &line, err);

        if (rv == TQ_OK) {
            assert_true(k.count >= 1 && k.count <= 6);
            assert_string_equal(k.list[0].name, "boss");
        } else {
            assert_int_equal(rv, TQ_EINVAL);
            assert_true(err[0] != '\0' && line >= 1);
        }
        keys_deinit(&k);
    }
}

static void each_allocation_may_fail(void **state)
{
    unsigned long needed;
    struct keys k;
    char err[KEYS_ERROR_MAX];
    unsigned line;

    (void)state;
    needed = tq_mem_count();
    assert_int_equal(parse(&k, whole, &line, err), TQ_OK);
    assert_int_equal(keys_seal(&k), TQ_OK);
    needed = tq_mem_count() - needed;
    keys_deinit(&k);
    assert_true(needed > 20);
    for (unsigned long n = 0; n < needed; n++) {
        int rv;

        tq_mem_fail_after((long)n, 1);
        rv = parse(&k, whole, &line, err);
        if (rv == TQ_OK)
            rv = keys_seal(&k);
        else
            assert_string_equal(err, "out of memory");
        tq_mem_fail_after(-1, 0);
        assert_int_equal(rv, TQ_ENOMEM);
        keys_deinit(&k);
    }
}

struct bad {
    const char *text;
    unsigned line;
    const char *words;
};

static const struct bad bad[] = {
    {"", 1, "no key in this file"},
    {"\n# a producer s\n\n", 3, "no key in this file"},
    {"a/b worker s", 1, "must begin with the key's name"},
    {"\xc3\xa9 worker s", 1, "must begin with the key's name"},
    {"\xef\xbb\xbf"
     "a worker s",
     1, "must begin with the key's name"},
    {"a123456789b123456789c123456789d123456789e123456789f123456789g1234 worker s", 1, "1 to 64"},
    {"authkey admin s", 1, "'authkey' is that of the key of --authkey-file"},
    {"a", 1, "comes the role: producer, worker, observer or admin"},
    {"a # worker s", 1, "comes the role"},
    {"ok worker s\na works s3cret", 2, "comes the role"},
    {"a Worker s", 1, "comes the role"},
    {"a worker", 1, "the secret is missing"},
    {"a worker # no secret", 1, "begins with # must be given as base64"},
    {"a worker put=q", 1, "the secret is missing"},
    {"a worker get=q s3cret", 1, "the secret is missing"},
    {"a worker @", 1, "@ without a file"},
    {"a worker @missing", 1, "cannot open it"},
    {"a worker base64:", 1, "0 bytes"},
    {"a worker base64:AAE", 1, "no base64"},
    {"a worker base64:AAE*", 1, "no base64"},
    {"a worker base64:A===", 1, "no base64"},
    {"a worker base64:====", 1, "no base64"},
    {"a worker base64:AA=A", 1, "no base64"},
    {"a worker base64:AAF=", 1, "no base64"},
    {"a worker base64:AB==", 1, "no base64"},
    {"a worker base64:AA-_", 1, "no base64"},
    {"a worker s3cret with blanks", 1, "only put= and get="},
    {"a worker s3cret Put=q", 1, "only put= and get="},
    {"a worker s3cret put", 1, "only put= and get="},
    {"a observer s3cret put=q", 1, "an observer puts and gets nothing: leave put= out"},
    {"a observer s3cret get=", 1, "leave get= out"},
    {"a admin s3cret get=q", 1, "an admin may do everything: leave get= out"},
    {"a worker s3cret get=q get=r", 1, "get= is given twice"},
    {"a worker s3cret put=q put=q", 1, "put= is given twice"},
    {"a worker s3cret get=,", 1, "a pattern is empty"},
    {"a worker s3cret get=q,", 1, "a pattern is empty"},
    {"a worker s3cret get=q,,r", 1, "a pattern is empty"},
    {"a worker s3cret get=a/b", 1, "no queue's name has"},
    {"a worker s3cret get=a\\*", 1, "no queue's name has"},
    {"a worker s3cret get=a]", 1, "no queue's name has"},
    {"a worker s3cret get=[a", 1, "a [ has no ]"},
    {"a worker s3cret get=[a,b]", 1, "a [ has no ]"},
    {"a worker s3cret get=[]", 1, "between [ and ]"},
    {"a worker s3cret get=[!]", 1, "between [ and ]"},
    {"a worker s3cret get=[^]", 1, "between [ and ]"},
    {"a worker s3cret get=[a!]", 1, "between [ and ]"},
    {"a worker s3cret get=[[:alpha:]]", 1, "between [ and ]"},
    {"a worker s3cret get=x[z-a]", 1, "runs upwards"},
    {"a worker s3cret get=[a-b-cz-y]", 1, "runs upwards"},
    {"a worker s1\n\n# x\na producer s2", 4, "there is a key 'a' already"},
    {"a worker s3cret\nb producer s3cret", 2, "'a' and 'b' have the same secret"},
    {"a worker base64:czNjcmV0\nb producer s3cret", 2, "'a' and 'b' have the same secret"},
    {"a worker s3\x01rt", 1, "no text"},
    {"a worker s3\x7frt", 1, "no text"},
    {"a worker s3cret\rb worker s2", 1, "no text"},
};

static void assert_refused(const char *text, size_t n, unsigned where, const char *words)
{
    struct keys k;
    char err[KEYS_ERROR_MAX];
    unsigned line;
    int rv = parse_bytes(&k, text, n, &line, err);

    if (rv >= 0 || line != where || strstr(err, words) == NULL)
        fail_msg("'%s': %d, line %u: '%s' does not say '%s'", text, rv, line, err, words);
    assert_null(strchr(err, '\n'));
    assert_true(strlen(err) < 150);     /* a path and a line's number go in front */
    assert_null(strstr(err, "s3cret")); /* no error shows a secret */
    keys_deinit(&k);
}

static void bad_lines(void **state)
{
    char text[8192];
    size_t n;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(bad[i].text, strlen(bad[i].text), bad[i].line, bad[i].words);
    assert_refused("a worker s\0t", 12, 1, "no text");
    n = (size_t)snprintf(text, sizeof(text), "a worker %05000d", 0);
    assert_refused(text, n, 1, "5000 bytes");
    n = (size_t)snprintf(text, sizeof(text), "a worker s put=%01001d", 0);
    assert_refused(text, n, 1, "more than 1000 characters");
    n = (size_t)snprintf(text, sizeof(text), "a worker %04096d put=%01000d", 0, 0);
    {
        struct keys k;
        char err[KEYS_ERROR_MAX];
        unsigned line;

        assert_int_equal(parse_bytes(&k, text, n, &line, err), TQ_OK);
        assert_int_equal(k.list[0].secret_len, 4096);
        keys_deinit(&k);
    }
}

static void too_many_keys(void **state)
{
    struct keys k;
    char err[KEYS_ERROR_MAX];
    char name[16];

    (void)state;
    keys_init(&k);
    for (int i = 0; i < KEYS_MAX; i++) {
        snprintf(name, sizeof(name), "k%d", i);
        assert_int_equal(keys_add(&k, name, KEY_WORKER, tq_span_str(name), NULL, NULL, err), TQ_OK);
    }
    assert_int_equal(keys_add(&k, "more", KEY_WORKER, tq_span_str("more"), NULL, NULL, err), TQ_EINVAL);
    assert_non_null(strstr(err, "more than 1000 keys"));
    assert_int_equal(k.count, KEYS_MAX);
    keys_deinit(&k);
}

static void the_authkey_is_one_more(void **state)
{
    struct keys k;
    char err[KEYS_ERROR_MAX];
    unsigned line;

    (void)state;
    keys_init(&k);
    assert_int_equal(keys_add(&k, KEYS_AUTHKEY_NAME, KEY_ADMIN, tq_span_str("abc"), NULL, NULL, err), TQ_OK);
    assert_int_equal(keys_parse(&k, tq_span_str("a worker abc"), NULL, NULL, &line, err), TQ_EINVAL);
    assert_non_null(strstr(err, "'authkey' and 'a' have the same secret"));
    assert_int_equal(keys_parse(&k, tq_span_str("# none"), NULL, NULL, &line, err), TQ_EINVAL);
    assert_int_equal(keys_parse(&k, tq_span_str("a worker abcd"), NULL, NULL, &line, err), TQ_OK);
    assert_int_equal(k.count, 2);
    keys_deinit(&k);
    /* without any key there is the empty one */
    assert_int_equal(keys_add(&k, KEYS_AUTHKEY_NAME, KEY_ADMIN, tq_span(NULL, 0), NULL, NULL, err), TQ_OK);
    assert_int_equal(keys_seal(&k), TQ_OK);
    assert_int_equal(k.auth[0].secret.len, 0);
    assert_ptr_equal(keys_weakest(&k), &k.list[0]);
    keys_deinit(&k);
}

static void weakest(void **state)
{
    struct keys k;
    char err[KEYS_ERROR_MAX];
    unsigned line;

    (void)state;
    assert_int_equal(
        parse(&k, "a worker 0123456789abcdef\nb worker 0123456789abcde\nc worker 01234\nd worker 012345",
              &line, err),
        TQ_OK);
    assert_string_equal(keys_weakest(&k)->name, "c");
    keys_deinit(&k);
    assert_int_equal(parse(&k, "a worker 0123456789abcdef", &line, err), TQ_OK);
    assert_null(keys_weakest(&k));
    keys_deinit(&k);
}

static void moved(void **state)
{
    struct keys old;
    struct keys now;
    size_t to[5];
    char err[KEYS_ERROR_MAX];
    unsigned line;

    (void)state;
    assert_int_equal(parse(&old,
                           "same worker s1\ngone worker s2\nother worker s3\nrole worker s4\nlist worker s5",
                           &line, err),
                     TQ_OK);
    /* a name that is new for an old secret, and a secret that is new for an old name, are other keys */
    assert_int_equal(
        parse(&now,
              "fresh admin s0\nlist worker s5 get=mail\nrole producer s4\nnamed worker s2\nother worker s33\n"
              "same worker s1",
              &line, err),
        TQ_OK);
    keys_moved(&old, &now, to);
    assert_int_equal(to[0], 5);
    assert_int_equal(to[1], TQ_AUTH_KEY_GONE);
    assert_int_equal(to[2], TQ_AUTH_KEY_GONE);
    assert_int_equal(to[3], 2);
    assert_int_equal(to[4], 1);
    assert_true(keys_same_rights(&old.list[0], &now.list[5]));
    assert_false(keys_same_rights(&old.list[3], &now.list[2]));
    assert_false(keys_same_rights(&old.list[4], &now.list[1]));
    keys_deinit(&old);
    keys_deinit(&now);
}

/* ---- patterns ---- */

static void patterns(void **state)
{
    static const struct {
        const char *pattern;
        const char *name;
        bool match;
    } cases[] = {
        {"mail", "mail", true},
        {"mail", "mails", false},
        {"mail", "mai", false},
        {"mail", "Mail", false},
        {"*", "x", true},
        {"*", "", true},
        {"**", "abc", true},
        {"", "", true},
        {"", "a", false},
        {"?", "a", true},
        {"?", "", false},
        {"a*b*c", "a1b2c", true},
        {"a*b*c", "abc", true},
        {"a*b*c", "acb", false},
        {"*ab", "aab", true},
        {"*aab", "aaaab", true},
        {"a?c", "abc", true},
        {"[a-c]x", "bx", true},
        {"[a-c]x", "dx", false},
        {"[!a-c]x", "dx", true},
        {"[^a-c]x", "ax", false},
        {"[a-]", "-", true},
        {"[-a]", "-", true},
        {"[a-c-e]", "-", true},
        {"[a-c-e]", "d", false},
        {"mail-*", "mail-", true},
        {"mail-*", "mail", false},
        {"*.eu-[0-9]", "a.eu-7", true},
        {"*.eu-[0-9]", "a.eu-x", false},
        {"[a", "a", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n = strlen(cases[i].pattern);
        uint8_t *copy = guard_copy(cases[i].pattern, n);

        if (keys_match((const char *)copy, n, cases[i].name) != cases[i].match)
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].name);
        guard_free(copy, n);
    }
}

static uint32_t state_of_dice = 1;

static unsigned dice(unsigned n)
{
    state_of_dice = state_of_dice * 1664525u + 1013904223u;
    return (state_of_dice >> 16) % n;
}

/* Every pattern that a file may have means what it means to fnmatch. */
static void patterns_as_fnmatch(void **state)
{
    static const char *const parts[] = {"a",    "b",     "-",     "*",    "?",     "[ab]",
                                        "[!a]", "[^b-]", "[a-b]", "[-b]", "[.-b]", "*a"};
    unsigned matches = 0;

    (void)state;
    for (unsigned round = 0; round < 200000; round++) {
        char pattern[64] = "";
        char name[12];
        unsigned length = dice(7);
        bool ours;

        for (unsigned i = dice(6); i > 0; i--)
            strcat(pattern, parts[dice(COUNT(parts))]);
        for (unsigned i = 0; i < length; i++)
            name[i] = "aab-"[dice(4)];
        name[length] = '\0';
        ours = keys_match(pattern, strlen(pattern), name);
        matches += ours;
        if (ours != (fnmatch(pattern, name, 0) == 0))
            fail_msg("'%s' and '%s': %d", pattern, name, ours);
    }
    assert_true(matches > 10000);
}

/* Time is bounded: this would take fnmatch for ever. */
static void many_stars(void **state)
{
    char pattern[401];
    char name[201];

    (void)state;
    for (size_t i = 0; i < 200; i++)
        memcpy(pattern + 2 * i, "*a", 2);
    memset(name, 'a', 200);
    name[200] = '\0';
    assert_true(keys_match(pattern, 400, name));
    name[199] = 'b';
    assert_false(keys_match(pattern, 400, name));
}

/* ---- rights ---- */

/* What comes with get. */
#define OF_GET (KEY_LOOK | KEY_INSPECT | KEY_GET | KEY_MAKE)

static void rights(void **state)
{
    static const struct {
        const char *line;
        const char *queue;
        bool made;
        unsigned rights;
    } cases[] = {
        {"a admin s", "any", false, KEY_ALL},
        {"a admin s", NULL, false, KEY_ALL},
        {"a admin s", "made-1", true, KEY_ALL},
        {"a observer s", "any", false, KEY_LOOK | KEY_INSPECT | KEY_REFER},
        {"a observer s", "made-1", true, KEY_LOOK | KEY_INSPECT},
        {"a observer s", NULL, false, KEY_INSPECT},
        {"a producer s", "task_queue", false, KEY_LOOK | KEY_PUT | KEY_REFER},
        {"a producer s", "result_queue", false, OF_GET | KEY_REFER},
        {"a producer s", "mail", false, KEY_REFER},
        {"a producer s", "made-1", true, KEY_LOOK | KEY_PUT | KEY_GET | KEY_INSPECT | KEY_MANAGE | KEY_REFER},
        {"a producer s", NULL, false, KEY_MAKE},
        {"a worker s", "task_queue", false, OF_GET | KEY_REFER},
        {"a worker s", "result_queue", false, KEY_LOOK | KEY_PUT | KEY_REFER},
        {"a worker s", NULL, false, KEY_MAKE},
        {"a worker s get=mail", "task_queue", false, KEY_REFER},
        {"a worker s get=mail", "mail", false, OF_GET | KEY_REFER},
        {"a worker s get=mail", "result_queue", false, KEY_LOOK | KEY_PUT | KEY_REFER},
        {"a worker s get=mail put=", "result_queue", false, KEY_REFER},
        {"a worker s get=x,mail-?,y* put=y1", "mail-2", false, OF_GET | KEY_REFER},
        {"a worker s get=x,mail-?,y* put=y1", "y1", false, OF_GET | KEY_PUT | KEY_REFER},
        {"a worker s get=x,mail-?,y* put=y1", "mail-22", false, KEY_REFER},
        {"a worker s get=*", "made-1", false, OF_GET | KEY_REFER},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct keys k;
        char err[KEYS_ERROR_MAX];
        unsigned line;
        unsigned got;

        assert_int_equal(parse(&k, cases[i].line, &line, err), TQ_OK);
        got = keys_rights(&k.list[0], cases[i].queue, cases[i].made);
        if (got != cases[i].rights)
            fail_msg("%s: %s: %u, not %u", cases[i].line, cases[i].queue, got, cases[i].rights);
        keys_deinit(&k);
    }
    assert_string_equal(keys_role_name(KEY_PRODUCER), "producer");
    assert_string_equal(keys_role_name(KEY_ADMIN), "admin");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_file),
        cmocka_unit_test(cut_at_each_length),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(too_many_keys),
        cmocka_unit_test(the_authkey_is_one_more),
        cmocka_unit_test(weakest),
        cmocka_unit_test(moved),
        cmocka_unit_test(patterns),
        cmocka_unit_test(patterns_as_fnmatch),
        cmocka_unit_test(many_stars),
        cmocka_unit_test(rights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
