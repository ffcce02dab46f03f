/* Options: what is accepted, and that each refusal says what would be right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/opt.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

struct seen {
    char listen[64];
    int set_calls;
};

static uint64_t jobs, size, wait_ms;
static bool memory;

static int set_listen(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    struct seen *s = ctx;

    s->set_calls++;
    if (strcmp(value, "bad") == 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "it is bad; write good");
        return TQ_EINVAL;
    }
    if (strcmp(value, "worse") == 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--listen and --memory exclude each other");
        return TQ_EINVAL;
    }
    if (strcmp(value, "silent") == 0)
        return TQ_EINVAL;
    if (strcmp(value, "long") == 0) {
        memset(err, 'x', TQ_OPT_ERROR_MAX - 1);
        err[TQ_OPT_ERROR_MAX - 1] = '\0';
        return TQ_EINVAL;
    }
    snprintf(s->listen, sizeof s->listen, "%s", value);
    return 0;
}

static int set_quiet(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    (void)err;
    assert_null(value);
    ((struct seen *)ctx)->set_calls++;
    return 0;
}

static const struct tq_opt table[] = {
    {.name = "listen",
     .type = TQ_OPT_STRING,
     .arg = "HOST:PORT",
     .group = "Network",
     .dflt = "127.0.0.1:5000",
     .help =
         "where to listen; may be given several times, and port 0 takes any port that is free at the moment",
     .set = set_listen},
    {.name = "jobs",
     .type = TQ_OPT_NUMBER,
     .arg = "N",
     .help = "how many at a time",
     .group = "Work",
     .min = 1,
     .max = 1024,
     .number = &jobs},
    {.name = "max-frame",
     .type = TQ_OPT_NUMBER,
     .arg = "BYTES",
     .help = "largest frame",
     .min = 4096,
     .max = UINT64_C(1) << 30,
     .number = &size},
    {.name = "auth-timeout",
     .type = TQ_OPT_SECONDS,
     .arg = "SECONDS",
     .help = "time for the handshake",
     .min = 100,
     .max = 60000,
     .number = &wait_ms},
    {.name = "memory", .type = TQ_OPT_FLAG, .help = "keep nothing on disk", .flag = &memory},
    {.name = "quiet", .type = TQ_OPT_FLAG, .help = "say less", .set = set_quiet},
};

static struct seen seen;
static char err[TQ_OPT_ERROR_MAX];

#define PARSE(...) parse((const char *[]){"prog", __VA_ARGS__, NULL})

static int parse(const char *const *words)
{
    char *argv[16];
    int argc = 0;

    memset(&seen, 0, sizeof seen);
    memset(err, '#', sizeof err);
    jobs = 1;
    size = UINT64_C(64) << 20;
    wait_ms = 3000;
    memory = false;
    for (; words[argc] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    argv[argc] = NULL;
    return tq_opt_parse(table, COUNT(table), &seen, argc, argv, "Usage: prog [options]", err);
}

#define assert_refused(message, ...)                                                                         \
    do {                                                                                                     \
        assert_int_equal(PARSE(__VA_ARGS__), TQ_EINVAL);                                                     \
        assert_string_equal(err, message);                                                                   \
    } while (0)

static void test_accepts(void **state)
{
    (void)state;
    assert_int_equal(
        PARSE("--listen", "h:1", "--jobs=7", "--max-frame", "16M", "--auth-timeout", "0.25", "--memory"), 0);
    assert_string_equal(err, "");
    assert_string_equal(seen.listen, "h:1");
    assert_int_equal(jobs, 7);
    assert_int_equal(size, 16 << 20);
    assert_int_equal(wait_ms, 250);
    assert_true(memory);
    assert_int_equal(PARSE("--listen", "a:1", "--listen=b=c", "--quiet"), 0);
    assert_string_equal(seen.listen, "b=c");
    assert_int_equal(seen.set_calls, 3);
    assert_int_equal(parse((const char *[]){"prog", NULL}), 0);
    assert_int_equal(jobs, 1);
    /* A value may begin with dashes, as long as it is no option of ours. */
    assert_int_equal(PARSE("--listen", "--x--"), 0);
    assert_string_equal(seen.listen, "--x--");
    assert_int_equal(PARSE("--listen="), 0);
}

static void test_numbers_and_suffixes(void **state)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {{"4096", 4096},     {"4k", 4096},        {"4K", 4096},           {"1M", 1 << 20},
                {"0001m", 1 << 20}, {"1G", 1 << 30},     {"1g", 1 << 30},        {"1024M", 1 << 30},
                {"5000", 5000},     {"65536", 64 << 10}, {"1073741824", 1 << 30}};

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(PARSE("--max-frame", good[i].text), 0);
        assert_int_equal(size, good[i].want);
    }
    assert_refused("--max-frame: '12q' is no whole number; write it like 100, 64k, 16M or 1G", "--max-frame",
                   "12q");
    assert_refused("--max-frame: '' is no whole number; write it like 100, 64k, 16M or 1G", "--max-frame=");
    assert_refused("--max-frame: '-5' is no whole number; write it like 100, 64k, 16M or 1G", "--max-frame",
                   "-5");
    assert_refused("--max-frame: '1.5M' is no whole number; write it like 100, 64k, 16M or 1G", "--max-frame",
                   "1.5M");
    assert_refused("--max-frame: '1kk' is no whole number; write it like 100, 64k, 16M or 1G", "--max-frame",
                   "1kk");
    assert_refused("--max-frame: 4095 is out of range; allowed are 4k to 1G", "--max-frame", "4095");
    assert_refused("--max-frame: 2G is out of range; allowed are 4k to 1G", "--max-frame", "2G");
    assert_refused("--jobs: 0 is out of range; allowed are 1 to 1k", "--jobs", "0");
    /* 2^64 and what a suffix pushes over it */
    assert_refused("--jobs: 18446744073709551616 is out of range; allowed are 1 to 1k", "--jobs",
                   "18446744073709551616");
    assert_refused("--jobs: 18446744073709551615G is out of range; allowed are 1 to 1k", "--jobs",
                   "18446744073709551615G");
    assert_int_equal(jobs, 1);
}

static void test_seconds(void **state)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {{"3", 3000},   {"0.1", 100},    {"0.100", 100},
                {"1.5", 1500}, {"1.005", 1005}, {"60.000000", 60000}};

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(PARSE("--auth-timeout", good[i].text), 0);
        assert_int_equal(wait_ms, good[i].want);
    }
    assert_refused("--auth-timeout: '3s' is no number of seconds; write it like 3 or 0.25", "--auth-timeout",
                   "3s");
    assert_refused("--auth-timeout: '3.' is no number of seconds; write it like 3 or 0.25", "--auth-timeout",
                   "3.");
    assert_refused("--auth-timeout: '.5' is no number of seconds; write it like 3 or 0.25", "--auth-timeout",
                   ".5");
    assert_refused("--auth-timeout: '0.0001' is no number of seconds; write it like 3 or 0.25",
                   "--auth-timeout", "0.0001");
    assert_refused("--auth-timeout: 0.099 is out of range; allowed are 0.1 to 60 seconds", "--auth-timeout",
                   "0.099");
    assert_refused("--auth-timeout: 60.001 is out of range; allowed are 0.1 to 60 seconds", "--auth-timeout",
                   "60.001");
    assert_refused("--auth-timeout: 18446744073709552 is out of range; allowed are 0.1 to 60 seconds",
                   "--auth-timeout", "18446744073709552");
    assert_refused("--auth-timeout: 99999999999999999999 is out of range; allowed are 0.1 to 60 seconds",
                   "--auth-timeout", "99999999999999999999");
}

static void test_typos(void **state)
{
    (void)state;
    assert_refused("unknown option '--lisen'; did you mean '--listen'? (--help lists all)", "--lisen", "x");
    assert_refused("unknown option '--lsiten'; did you mean '--listen'? (--help lists all)", "--lsiten=x");
    assert_refused("unknown option '--max_frame'; did you mean '--max-frame'? (--help lists all)",
                   "--max_frame", "1");
    assert_refused("unknown option '--job'; did you mean '--jobs'? (--help lists all)", "--job", "1");
    assert_refused("unknown option '--auth'; did you mean '--auth-timeout'? (--help lists all)", "--auth");
    assert_refused("unknown option '--hlep'; did you mean '--help'? (--help lists all)", "--hlep");
    assert_refused("unknown option '--LISTEN'; --help lists all", "--LISTEN");
    assert_refused("unknown option '--zz'; --help lists all", "--zz");
    assert_refused("unknown option '--'; --help lists all", "--=");
    assert_refused("unknown option '--a\\x0ab\\x1b'; --help lists all", "--a\nb\x1b=3");
    assert_refused("'listen' is no option; did you mean '--listen'?", "listen");
    assert_refused("'-listen' is no option; did you mean '--listen'?", "-listen");
    assert_refused("'-x' is not expected here; options begin with -- (--help lists all)", "-x");
    assert_refused("'' is not expected here; options begin with -- (--help lists all)", "");
    assert_refused("'--' is not expected here; options begin with -- (--help lists all)", "--", "listen");
    /* What follows a wrong option is not looked at. */
    assert_refused("unknown option '--nowhere'; --help lists all", "--nowhere", "--listen", "x");
    assert_int_equal(seen.set_calls, 0);
}

static void test_long_words(void **state)
{
    char word[5000];

    (void)state;
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    word[0] = word[1] = '-';
    for (size_t n = sizeof word - 1; n >= 3; n = n > 100 ? n - 97 : n - 1) {
        word[n] = '\0';
        assert_int_equal(PARSE(word), TQ_EINVAL);
        assert_int_equal(strncmp(err, "unknown option '--aa", n > 4 ? 20 : 18), 0);
        assert_true(strlen(err) < sizeof err);
    }
}

static void test_values(void **state)
{
    (void)state;
    assert_refused("--jobs needs a value: --jobs N", "--jobs");
    assert_refused("--listen needs a value: --listen HOST:PORT", "--listen", "--jobs", "3");
    assert_refused("--listen needs a value: --listen HOST:PORT", "--listen", "--jobs=3");
    assert_refused("--memory takes no value; write just --memory", "--memory=yes");
    assert_refused("--listen: it is bad; write good", "--listen", "bad");
    assert_refused("--listen and --memory exclude each other", "--listen", "worse");
    assert_refused("--listen: the value is not allowed", "--listen", "silent");
    assert_int_equal(PARSE("--listen", "long"), TQ_EINVAL);
    assert_int_equal(strlen(err), TQ_OPT_ERROR_MAX - 1);
    assert_string_equal(err + TQ_OPT_ERROR_MAX - 5, "x...");
}

static char *help_text(void)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    jobs = 4;
    size = UINT64_C(64) << 20;
    wait_ms = 2500;
    tq_opt_help(table, COUNT(table), "Usage: prog [options]", out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_help(void **state)
{
    char *text = help_text();

    (void)state;
    assert_string_equal(text,
                        "Usage: prog [options]\n"
                        "\n"
                        "Network:\n"
                        "  --listen HOST:PORT          where to listen; may be given several times, and\n"
                        "                              port 0 takes any port that is free at the moment\n"
                        "                              (default 127.0.0.1:5000)\n"
                        "\n"
                        "Work:\n"
                        "  --jobs N                    how many at a time (default 4)\n"
                        "  --max-frame BYTES           largest frame (default 64M)\n"
                        "  --auth-timeout SECONDS      time for the handshake (default 2.5 s)\n"
                        "  --memory                    keep nothing on disk\n"
                        "  --quiet                     say less\n"
                        "\n"
                        "  --help                      show this and stop\n"
                        "  --version                   show the version and stop\n");
    free(text);
}

/* --help and --version win over what comes later, even if that is wrong. */
static void test_help_and_version_outcomes(void **state)
{
    int saved = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    char *want = help_text();
    char got[4096];
    size_t n;

    (void)state;
    assert_true(saved >= 0 && file != NULL);
    fflush(stdout);
    assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
    int long_form = PARSE("--jobs", "4", "--auth-timeout", "2.5", "--help", "--nonsense");
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    n = fread(got, 1, sizeof got - 1, file);
    got[n] = '\0';
    fclose(file);
    assert_int_equal(long_form, 1);
    assert_string_equal(got, want);
    free(want);

    assert_int_equal(PARSE("--version", "--nonsense"), 2);
    assert_int_equal(PARSE("-V"), 2);
}

/* ---- HOST:PORT ---- */

static void test_host_port_good(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {
        {"127.0.0.1:5000", "127.0.0.1", 5000},
        {"node-7.example:65535", "node-7.example", 65535},
        {":5000", "", 5000},
        {"h:0", "h", 0},
        {"h:00080", "h", 80},
        {"[::1]:5000", "::1", 5000},
        {"[::]:0", "::", 0},
        {"[2001:db8::1]:1", "2001:db8::1", 1},
        {"[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1},
        {"[fe80::1%eth0]:1", "fe80::1%eth0", 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        char host[64];
        uint16_t port = 9;

        assert_int_equal(tq_opt_host_port(good[i].text, host, sizeof host, &port, err), 0);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
}

static void test_host_port_bad(void **state)
{
    static const struct {
        const char *text, *reason;
    } bad[] = {
        {"", "'' is no address: the port is missing; write HOST:PORT, as in 127.0.0.1:5000"},
        {"host", "'host' is no address: the port is missing; write HOST:PORT, as in 127.0.0.1:5000"},
        {"[::1]", "'[::1]' is no address: the port is missing; write HOST:PORT, as in 127.0.0.1:5000"},
        {"host:", "'host:' is no address: the port is a number from 0 to 65535"},
        {"host:http", "'host:http' is no address: the port is a number from 0 to 65535"},
        {"host:-1", "'host:-1' is no address: the port is a number from 0 to 65535"},
        {"host:65536", "'host:65536' is no address: the port is a number from 0 to 65535"},
        {"host:4294967376", "'host:4294967376' is no address: the port is a number from 0 to 65535"},
        {"host: 80", "'host: 80' is no address: the port is a number from 0 to 65535"},
        {"[::1]:", "'[::1]:' is no address: the port is a number from 0 to 65535"},
        {"::1:5000", "'::1:5000' is no address: put an IPv6 address in brackets, as in [::1]:5000"},
        {"::1", "'::1' is no address: put an IPv6 address in brackets, as in [::1]:5000"},
        {"[::1:5000", "'[::1:5000' is no address: the ']' is missing; write [::1]:5000"},
        {"[::1]5000", "'[::1]5000' is no address: after ']' comes the port, as in [::1]:5000"},
        {"[127.0.0.1]:1",
         "'[127.0.0.1]:1' is no address: between [ and ] stands an IPv6 address, as in [::1]:5000"},
        {"[]:1", "'[]:1' is no address: between [ and ] stands an IPv6 address, as in [::1]:5000"},
        {"[::1%]:1", "'[::1%]:1' is no address: between [ and ] stands an IPv6 address, as in [::1]:5000"},
        {"tcp://h:1", "'tcp://h:1' is no address: write HOST:PORT, without a scheme, as in 127.0.0.1:5000"},
        {"a b:1", "'a b:1' is no address: a host name has no such characters; write HOST:PORT"},
        {"me@h:1", "'me@h:1' is no address: a host name has no such characters; write HOST:PORT"},
        {"0123456789012345:1", "'0123456789012345:1' is no address: the host name is too long"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char host[16] = "untouched";
        uint16_t port = 9;

        assert_int_equal(tq_opt_host_port(bad[i].text, host, sizeof host, &port, err), TQ_EINVAL);
        assert_string_equal(err, bad[i].reason);
        assert_string_equal(host, "untouched");
        assert_int_equal(port, 9);
    }
}

/* ---- the authkey ---- */

static char dir[] = "/tmp/taskq-test-opt-XXXXXX";
static char key_path[64];
static uint8_t *key;
static size_t key_len;
static char warn[TQ_OPT_ERROR_MAX];

static int make_dir(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(key_path, sizeof key_path, "%s/key", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(key_path);
    return rmdir(dir);
}

static int clean_env(void **state)
{
    (void)state;
    unsetenv("TASKQ_AUTHKEY");
    unsetenv("CREDENTIALS_DIRECTORY");
    return 0;
}

static void write_key(const void *bytes, size_t n, mode_t mode)
{
    FILE *f = fopen(key_path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(key_path, mode), 0);
}

static void assert_key(const void *want, size_t n, const char *want_warn)
{
    assert_int_equal(key_len, n);
    assert_memory_equal(key, want, n);
    assert_string_equal(err, "");
    assert_string_equal(warn, want_warn);
    tq_free(key);
    key = NULL;
}

static int read_key(void)
{
    return tq_opt_authkey(key_path, NULL, &key, &key_len, err, warn);
}

static void test_key_file(void **state)
{
    static const struct {
        const char *content;
        size_t n, want; /* how much of it is the key */
    } good[] = {
        {"secret", 6, 6}, {"secret\n", 7, 6}, {"secret\r\n", 8, 6}, {"secret\n\n", 8, 7}, {"secret\r", 7, 7},
        {"\nx", 2, 2},    {" x \n", 4, 3},    {"a\0b\xff\n", 5, 4}, {"\r\n\r\n", 4, 2},   {"x", 1, 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        write_key(good[i].content, good[i].n, 0600);
        assert_int_equal(read_key(), 0);
        assert_key(good[i].content, good[i].want, "");
    }
}

/* An @ in the wanted message stands for the path. */
static void assert_key_refused(int code, const char *fmt)
{
    char want[TQ_OPT_ERROR_MAX];

    key = (uint8_t *)dir;
    key_len = 77;
    assert_int_equal(read_key(), code);
    if (strchr(fmt, '@') != NULL)
        snprintf(want, sizeof want, "%.*s%s%s", (int)strcspn(fmt, "@"), fmt, key_path, strchr(fmt, '@') + 1);
    else
        snprintf(want, sizeof want, "%s", fmt);
    assert_string_equal(err, want);
    assert_string_equal(warn, "");
    assert_ptr_equal(key, dir); /* results stay untouched on failure */
    assert_int_equal(key_len, 77);
}

static void test_key_file_refused(void **state)
{
    static const char *const empty[] = {"", "\n", "\r\n"};
    char big[TQ_AUTHKEY_MAX_BYTES + 8];

    (void)state;
    for (size_t i = 0; i < COUNT(empty); i++) {
        write_key(empty[i], strlen(empty[i]), 0600);
        assert_key_refused(TQ_EINVAL,
                           "the key file '@' is empty; make one with: head -c 32 /dev/urandom | base64");
    }
    unlink(key_path);
    assert_key_refused(TQ_EIO, "cannot open the key file '@': No such file or directory");
    assert_int_equal(mkdir(key_path, 0700), 0);
    assert_key_refused(TQ_EIO, "cannot read the key file '@': Is a directory");
    assert_int_equal(rmdir(key_path), 0);

    memset(big, 'k', sizeof big);
    for (size_t n = TQ_AUTHKEY_MAX_BYTES + 1; n <= sizeof big; n++) {
        write_key(big, n, 0600);
        assert_key_refused(TQ_EINVAL, "the key file '@' is longer than 4096 bytes; is it the right file?");
    }
    write_key(big, TQ_AUTHKEY_MAX_BYTES, 0600);
    assert_int_equal(read_key(), 0);
    assert_key(big, TQ_AUTHKEY_MAX_BYTES, "");
    big[TQ_AUTHKEY_MAX_BYTES] = '\r';
    big[TQ_AUTHKEY_MAX_BYTES + 1] = '\n';
    write_key(big, TQ_AUTHKEY_MAX_BYTES + 2, 0600);
    assert_int_equal(read_key(), 0);
    assert_key(big, TQ_AUTHKEY_MAX_BYTES, "");
    big[TQ_AUTHKEY_MAX_BYTES + 2] = '\n';
    write_key(big, TQ_AUTHKEY_MAX_BYTES + 3, 0600);
    assert_key_refused(TQ_EINVAL, "the key file '@' is longer than 4096 bytes; is it the right file?");
}

static void test_key_file_mode(void **state)
{
    static const mode_t open_modes[] = {0644, 0640, 0604, 0620, 0601};
    char want[TQ_OPT_ERROR_MAX];

    (void)state;
    for (size_t i = 0; i < COUNT(open_modes); i++) {
        write_key("secret", 6, open_modes[i]);
        assert_int_equal(read_key(), 0);
        snprintf(want, sizeof want, "the key file '%s' is open to other users (mode %04o): chmod 600 it",
                 key_path, (unsigned)open_modes[i]);
        assert_key("secret", 6, want);
    }
    /* A service manager's credential carries its rights elsewhere. */
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", dir, 1), 0);
    assert_int_equal(read_key(), 0);
    assert_key("secret", 6, "");
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", "/tmp/taskq", 1), 0);
    assert_int_equal(read_key(), 0);
    assert_key("secret", 6, want);
}

/* A running program reads plain files only: a pipe without a writer would keep it waiting for ever. */
static void test_regular_files_only(void **state)
{
    struct tq_opt_secret_file kind = {
        .what = "list", .hint = "fill it", .max_bytes = 10, .regular_only = true};
    char pipe_path[sizeof dir + 16];

    (void)state;
    snprintf(pipe_path, sizeof pipe_path, "%s/pipe", dir);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(tq_opt_read_secret_file(&kind, pipe_path, &key, &key_len, err, warn), TQ_EIO);
    assert_non_null(strstr(err, "is no regular file"));
    assert_int_equal(tq_opt_read_secret_file(&kind, "/dev/null", &key, &key_len, err, warn), TQ_EIO);
    assert_non_null(strstr(err, "the list '/dev/null' is no regular file"));
    assert_int_equal(tq_opt_read_secret_file(&kind, dir, &key, &key_len, err, warn), TQ_EIO);
    assert_non_null(strstr(err, "cannot read the list"));
    assert_int_equal(unlink(pipe_path), 0);
    write_key("0123456789\n", 11, 0600);
    assert_int_equal(tq_opt_read_secret_file(&kind, key_path, &key, &key_len, err, warn), 0);
    assert_key("0123456789", 10, "");
    write_key("01234567890", 11, 0600);
    assert_int_equal(tq_opt_read_secret_file(&kind, key_path, &key, &key_len, err, warn), TQ_EINVAL);
    assert_non_null(strstr(err, "is longer than 10 bytes"));
    write_key("\n", 1, 0600);
    assert_int_equal(tq_opt_read_secret_file(&kind, key_path, &key, &key_len, err, warn), TQ_EINVAL);
    assert_non_null(strstr(err, "is empty; fill it"));
    kind.regular_only = false;
    assert_int_equal(tq_opt_read_secret_file(&kind, "/dev/null", &key, &key_len, err, warn), TQ_EINVAL);
}

static void test_key_order(void **state)
{
    char big[TQ_AUTHKEY_MAX_BYTES + 2];

    (void)state;
    assert_int_equal(tq_opt_authkey(NULL, NULL, &key, &key_len, err, warn), 0);
    assert_null(key);
    assert_int_equal(key_len, 0);

    assert_int_equal(setenv("TASKQ_AUTHKEY", "from env\n", 1), 0);
    assert_int_equal(tq_opt_authkey(NULL, NULL, &key, &key_len, err, warn), 0);
    assert_key("from env\n", 9, "");
    assert_int_equal(tq_opt_authkey(NULL, "from text", &key, &key_len, err, warn), 0);
    assert_key("from text", 9,
               "every user of this machine can see the --authkey in `ps`; give it by --authkey-file or in "
               "TASKQ_AUTHKEY");
    write_key("from file", 9, 0600);
    assert_int_equal(tq_opt_authkey(key_path, "from text", &key, &key_len, err, warn), 0);
    assert_key("from file", 9, "");

    assert_int_equal(tq_opt_authkey(NULL, "", &key, &key_len, err, warn), TQ_EINVAL);
    assert_string_equal(
        err, "the authkey in --authkey is empty; leave it out for no key, or make one with: head -c "
             "32 /dev/urandom | base64");
    assert_int_equal(setenv("TASKQ_AUTHKEY", "", 1), 0);
    assert_int_equal(tq_opt_authkey(NULL, NULL, &key, &key_len, err, warn), TQ_EINVAL);
    assert_non_null(strstr(err, "the authkey in TASKQ_AUTHKEY is empty"));

    memset(big, 'k', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(tq_opt_authkey(NULL, big, &key, &key_len, err, warn), TQ_EINVAL);
    assert_string_equal(err,
                        "the authkey in --authkey is longer than 4096 bytes; 32 random bytes are enough");
}

static void test_key_without_memory(void **state)
{
    (void)state;
    write_key("secret", 6, 0600);
    for (long n = 0; n < 2; n++) {
        tq_mem_fail_after(n, 1);
        assert_key_refused(TQ_ENOMEM, "no memory for the key file");
    }
    tq_mem_fail_after(-1, 0);
    assert_int_equal(read_key(), 0);
    assert_key("secret", 6, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_numbers_and_suffixes),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_typos),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_help_and_version_outcomes),
        cmocka_unit_test(test_host_port_good),
        cmocka_unit_test(test_host_port_bad),
        cmocka_unit_test_setup(test_key_file, clean_env),
        cmocka_unit_test_setup(test_key_file_refused, clean_env),
        cmocka_unit_test_setup(test_key_file_mode, clean_env),
        cmocka_unit_test_setup(test_key_order, clean_env),
        cmocka_unit_test_setup(test_regular_files_only, clean_env),
        cmocka_unit_test_setup(test_key_without_memory, clean_env),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
