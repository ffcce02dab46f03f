/* A session on a blocking socket, for handshakes with real interpreters:
 *
 *   auth_tool serve COUNT [--md5-refused] HEXKEY...   listens on a free port of the loopback, prints
 *                                                     "port N", serves COUNT connections one by one
 *   auth_tool dial PORT [--rhel] HEXKEY               connects, sends two frames, expects them back
 *
 * Frames are echoed by the server side. One line for each connection: "open DIALECT KEY-INDEX FRAMES" at
 * its end, or "fail REASON". An empty HEXKEY is the empty key. */
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "proto/session.h"

enum { KEYS_MAX = 8, KEY_MAX_BYTES = 512, BIG_FRAME_BYTES = 200000, LIMIT_S = 60 };

static const struct tq_session_limits limits = {
    .preauth_frame_bytes = 256,
    .preauth_frames = 6,
    .frame_bytes = 1u << 20,
};
static struct tq_auth_registry registry;
static struct tq_auth_key keys[KEYS_MAX];
static uint8_t key_bytes[KEYS_MAX][KEY_MAX_BYTES];
static size_t key_count;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static void add_key(const char *hex)
{
    size_t n = strlen(hex) / 2;

    if (key_count == KEYS_MAX || n > KEY_MAX_BYTES) {
        fprintf(stderr, "too many keys, or too long\n");
        exit(2);
    }
    for (size_t i = 0; i < n; i++) {
        const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

        key_bytes[key_count][i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    keys[key_count].secret = tq_span(key_bytes[key_count], n);
    keys[key_count].name = "key";
    key_count++;
}

static bool write_all(int fd, struct tq_span bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        bytes = tq_span(bytes.data + n, bytes.len - (size_t)n);
    }
    return true;
}

static bool write_frame(int fd, struct tq_span payload)
{
    uint8_t header[12];
    size_t n = tq_frame_header(header, payload.len);

    return write_all(fd, tq_span(header, n)) && write_all(fd, payload);
}

static void report(const struct tq_session *s, unsigned frames)
{
    static const char *const dialects[] = {"unknown", "legacy", "rhel", "modern"};

    printf("open %s %u %u\n", dialects[s->auth_dialect], (unsigned)s->key_index, frames);
}

/* Runs a session to the end of the connection; a server echoes, a client sends and compares. */
static void run(struct tq_session *s, int fd, bool server)
{
    static uint8_t big[BIG_FRAME_BYTES];
    const struct tq_span first = tq_span_str("hello from auth_tool");
    uint8_t buf[4096];
    unsigned frames = 0;
    struct tq_span out;

    if (tq_session_start(s, &out) != TQ_OK || !write_all(fd, out)) {
        printf("fail start\n");
        return;
    }
    memset(big, 'b', sizeof(big));
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        struct tq_span in = tq_span(buf, n > 0 ? (size_t)n : 0);
        struct tq_session_event ev;

        if (n <= 0) {
            if (s->open)
                report(s, frames);
            else
                printf("fail closed by the peer\n");
            return;
        }
        do {
            tq_session_next(s, &in, &ev);
            if (ev.send.len > 0 && !write_all(fd, ev.send)) {
                printf("fail write\n");
                return;
            }
            if (ev.kind == TQ_SESSION_FAIL) {
                printf("fail %s\n", tq_strerror(ev.err));
                return;
            }
            if (ev.kind == TQ_SESSION_OPEN && !server && !write_frame(fd, first))
                die("send");
            if (ev.kind == TQ_SESSION_FRAME) {
                frames++;
                if (server) {
                    if (!write_frame(fd, ev.frame))
                        die("send");
                } else if (!tq_span_eq(ev.frame, frames == 1 ? first : tq_span(big, sizeof(big)))) {
                    printf("fail wrong echo\n");
                    return;
                } else if (frames == 2) {
                    report(s, frames);
                    return;
                } else if (!write_frame(fd, tq_span(big, sizeof(big)))) {
                    die("send");
                }
            }
        } while (ev.kind != TQ_SESSION_MORE);
    }
}

static void serve(int count, bool md5_refused)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 16) != 0 || getsockname(listener, (struct sockaddr *)&address, &len) != 0)
        die("listen");
    printf("port %u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    while (count-- > 0) {
        struct tq_session s;
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            die("accept");
        if (tq_session_init_server(&s, &limits, &registry, keys, key_count, md5_refused) != TQ_OK)
            die("session");
        run(&s, fd, true);
        fflush(stdout);
        tq_session_deinit(&s);
        close(fd);
    }
    close(listener);
}

static void dial(const char *port, bool rhel)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct tq_session s;

    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("connect");
    if (tq_session_init_client(&s, &limits, &registry, &keys[0], rhel) != TQ_OK)
        die("session");
    run(&s, fd, false);
    tq_session_deinit(&s);
    close(fd);
}

int main(int argc, char **argv)
{
    bool md5_refused = false, rhel = false;

    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--md5-refused") == 0)
            md5_refused = true;
        else if (strcmp(argv[i], "--rhel") == 0)
            rhel = true;
        else
            add_key(argv[i]);
    }
    if (key_count == 0) {
        fprintf(stderr,
                "usage: auth_tool serve COUNT [--md5-refused] HEXKEY... | dial PORT [--rhel] HEXKEY\n");
        return 2;
    }
    alarm(LIMIT_S); /* a peer that hangs must not keep us */
    tq_auth_registry_init(&registry);
    if (strcmp(argv[1], "serve") == 0)
        serve(atoi(argv[2]), md5_refused);
    else
        dial(argv[2], rhel);
    tq_auth_registry_deinit(&registry);
    tq_digest_cleanup();
    return 0;
}
