/* Values that several programs take: an address, and the authkey. */
#include "common/opt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    HOST_MAX_CHARS = 253,
    SHOWN_MAX_CHARS = 80,
};

#define AUTHKEY_ENV "TASKQ_AUTHKEY"
#define KEYGEN_HINT "make one with: head -c 32 /dev/urandom | base64"

static int refuse(char err[TQ_OPT_ERROR_MAX], const char *text, const char *reason)
{
    char typed[SHOWN_MAX_CHARS];

    snprintf(err, TQ_OPT_ERROR_MAX, "'%s' is no address: %s",
             tq_log_quote(typed, sizeof typed, text, strlen(text)), reason);
    return TQ_EINVAL;
}

static int parse_port(const char *text, uint16_t *ret)
{
    unsigned v = 0;

    if (text[0] == '\0')
        return TQ_EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return TQ_EINVAL;
        v = v * 10 + (unsigned)(*text - '0');
        if (v > UINT16_MAX)
            return TQ_EINVAL;
    }
    *ret = (uint16_t)v;
    return 0;
}

/* Is it an IPv6 address, with or without a zone (fe80::1%eth0)? */
static bool is_ipv6(const char *host, size_t len)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    const char *zone = memchr(host, '%', len);
    size_t n = zone != NULL ? (size_t)(zone - host) : len;

    if (n >= sizeof address || (zone != NULL && n + 1 == len))
        return false;
    memcpy(address, host, n);
    address[n] = '\0';
    return inet_pton(AF_INET6, address, &ignored) == 1;
}

static bool is_host_name(const char *host, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)host[i] <= ' ' || host[i] == 0x7f || strchr("[]/@%\"'\\", host[i]) != NULL)
            return false;
    return true;
}

int tq_opt_host_port(const char *text, char *host, size_t host_size, uint16_t *ret_port,
                     char err[TQ_OPT_ERROR_MAX])
{
    const char *start = text, *end, *port;
    uint16_t port_number;
    size_t len;

    if (text[0] == '[') {
        start = text + 1;
        end = strchr(start, ']');
        if (end == NULL)
            return refuse(err, text, "the ']' is missing; write [::1]:5000");
        if (!is_ipv6(start, (size_t)(end - start)))
            return refuse(err, text, "between [ and ] stands an IPv6 address, as in [::1]:5000");
        port = end[1] == ':' ? end + 2 : NULL;
        if (port == NULL && end[1] != '\0')
            return refuse(err, text, "after ']' comes the port, as in [::1]:5000");
    } else {
        const char *last = strrchr(text, ':');

        if (strstr(text, "://") != NULL)
            return refuse(err, text, "write HOST:PORT, without a scheme, as in 127.0.0.1:5000");
        end = last != NULL ? last : text + strlen(text);
        port = last != NULL ? last + 1 : NULL;
        if (memchr(text, ':', (size_t)(end - text)) != NULL)
            return refuse(err, text, "put an IPv6 address in brackets, as in [::1]:5000");
        if (!is_host_name(text, (size_t)(end - text)))
            return refuse(err, text, "a host name has no such characters; write HOST:PORT");
    }
    if (port == NULL)
        return refuse(err, text, "the port is missing; write HOST:PORT, as in 127.0.0.1:5000");
    if (parse_port(port, &port_number) != 0)
        return refuse(err, text, "the port is a number from 0 to 65535");
    len = (size_t)(end - start);
    if (len > HOST_MAX_CHARS || len >= host_size)
        return refuse(err, text, "the host name is too long");
    memcpy(host, start, len);
    host[len] = '\0';
    *ret_port = port_number;
    return 0;
}

/* ---- the authkey ---- */

static int keep_key(const char *what, const void *bytes, size_t n, uint8_t **ret_key, size_t *ret_len,
                    char err[TQ_OPT_ERROR_MAX])
{
    uint8_t *key = tq_malloc(n);

    if (key == NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "no memory for the %s", what);
        return TQ_ENOMEM;
    }
    memcpy(key, bytes, n);
    *ret_key = key;
    *ret_len = n;
    return 0;
}

static int key_from_text(const char *source, const char *text, uint8_t **ret_key, size_t *ret_len,
                         char err[TQ_OPT_ERROR_MAX])
{
    size_t n = strlen(text);

    if (n == 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "the authkey in %s is empty; leave it out for no key, or %s", source,
                 KEYGEN_HINT);
        return TQ_EINVAL;
    }
    if (n > TQ_AUTHKEY_MAX_BYTES) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "the authkey in %s is longer than %d bytes; 32 random bytes are enough", source,
                 TQ_AUTHKEY_MAX_BYTES);
        return TQ_EINVAL;
    }
    return keep_key("authkey", text, n, ret_key, ret_len, err);
}

/* Up to `size` bytes; the number, or a negative errno. */
static ssize_t read_up_to(int fd, uint8_t *into, size_t size)
{
    size_t at = 0;

    while (at < size) {
        ssize_t n = read(fd, into + at, size - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        at += (size_t)n;
    }
    return (ssize_t)at;
}

/* A service manager guards what it hands over by other means than the mode; its mode says nothing. */
static bool is_service_credential(const char *path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    size_t n = dir != NULL ? strlen(dir) : 0;

    return n > 0 && strncmp(path, dir, n) == 0 && path[n] == '/';
}

const struct tq_opt_secret_file tq_opt_key_file = {
    .what = "key file", .hint = KEYGEN_HINT, .max_bytes = TQ_AUTHKEY_MAX_BYTES};

/* The content is in `bytes`, which takes kind->max_bytes and three more. */
static int secret_from_fd(const struct tq_opt_secret_file *kind, int fd, const char *name, uint8_t *bytes,
                          uint8_t **ret_bytes, size_t *ret_len, char err[TQ_OPT_ERROR_MAX])
{
    size_t size = kind->max_bytes + 3; /* "\r\n" and one too many */
    ssize_t got = read_up_to(fd, bytes, size);
    size_t n;

    if (got < 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot read the %s '%s': %s", kind->what, name, strerror((int)-got));
        return TQ_EIO;
    }
    n = (size_t)got;
    if (n > 0 && n < size && bytes[n - 1] == '\n') {
        n--;
        if (n > 0 && bytes[n - 1] == '\r')
            n--;
    }
    if (n == 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "the %s '%s' is empty; %s", kind->what, name, kind->hint);
        return TQ_EINVAL;
    }
    if (n > kind->max_bytes) {
        snprintf(err, TQ_OPT_ERROR_MAX, "the %s '%s' is longer than %zu bytes; is it the right file?",
                 kind->what, name, kind->max_bytes);
        return TQ_EINVAL;
    }
    return keep_key(kind->what, bytes, n, ret_bytes, ret_len, err);
}

int tq_opt_read_secret_file(const struct tq_opt_secret_file *kind, const char *path, uint8_t **ret_bytes,
                            size_t *ret_len, char err[TQ_OPT_ERROR_MAX], char warn[TQ_OPT_ERROR_MAX])
{
    char name[SHOWN_MAX_CHARS * 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (kind->regular_only ? O_NONBLOCK : 0));
    size_t size = kind->max_bytes + 3;
    uint8_t *bytes;
    struct stat st;
    int r;

    err[0] = '\0';
    warn[0] = '\0';
    tq_log_quote(name, sizeof name, path, strlen(path));
    if (fd < 0 || fstat(fd, &st) != 0) {
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot open the %s '%s': %s", kind->what, name, strerror(errno));
        if (fd >= 0)
            close(fd);
        return TQ_EIO;
    }
    bytes = tq_malloc(size);
    /* of a folder the read itself says so */
    if (kind->regular_only && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        snprintf(err, TQ_OPT_ERROR_MAX, "the %s '%s' is no regular file, and may keep one waiting; write one",
                 kind->what, name);
        r = TQ_EIO;
    } else if (bytes == NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "no memory for the %s", kind->what);
        r = TQ_ENOMEM;
    } else {
        r = secret_from_fd(kind, fd, name, bytes, ret_bytes, ret_len, err);
        explicit_bzero(bytes, size);
    }
    tq_free(bytes);
    close(fd);
    if (r == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0077) != 0 && !is_service_credential(path))
        snprintf(warn, TQ_OPT_ERROR_MAX, "the %s '%s' is open to other users (mode %04o): chmod 600 it",
                 kind->what, name, (unsigned)(st.st_mode & 07777));
    return r;
}

int tq_opt_authkey(const char *file, const char *text, uint8_t **ret_key, size_t *ret_len,
                   char err[TQ_OPT_ERROR_MAX], char warn[TQ_OPT_ERROR_MAX])
{
    const char *env = getenv(AUTHKEY_ENV);
    int r;

    err[0] = '\0';
    warn[0] = '\0';
    if (file != NULL)
        return tq_opt_read_secret_file(&tq_opt_key_file, file, ret_key, ret_len, err, warn);
    if (text != NULL) {
        r = key_from_text("--authkey", text, ret_key, ret_len, err);
        if (r == 0)
            snprintf(warn, TQ_OPT_ERROR_MAX,
                     "every user of this machine can see the --authkey in `ps`; give it by --authkey-file or "
                     "in " AUTHKEY_ENV);
        return r;
    }
    if (env != NULL)
        return key_from_text(AUTHKEY_ENV, env, ret_key, ret_len, err);
    *ret_key = NULL;
    *ret_len = 0;
    return 0;
}
