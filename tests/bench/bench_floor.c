/* The floor under the task cycle: what reading a request and writing a reply costs a server that does
 * nothing else. A bare epoll server (the child) and a bare client (this process) exchange messages of the
 * sizes of a cycle with 100-byte items over loopback, one in flight for each session. The kernel's TCP is
 * all that is measured; no server that answers each call with a write of its own can need less.
 *
 *   bench_floor [--json] [SESSIONS [SECONDS]]        64 sessions, 3 s */

#include "tests/bench/measure.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define SESSIONS_MAX 1000
#define PUT_BYTES    147 /* requests: put of 100 bytes, get */
#define GET_BYTES    43
#define NONE_BYTES   20 /* replies: None, an item of 100 bytes */
#define ITEM_BYTES   125
#define EVENTS       256

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench_floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int poll_new(int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0 || (fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0))
        fail("epoll");
    return ep;
}

static void poll_add(int ep, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
        fail("epoll_ctl");
}

static _Noreturn void serve(int listener)
{
    char bytes[4096] = {0};
    struct epoll_event events[EVENTS];
    int ep = poll_new(listener);
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0)
                    fail("accept");
                poll_add(ep, fd);
                continue;
            }
            ssize_t got = recv(fd, bytes, sizeof bytes, 0);
            if (got <= 0 || send(fd, bytes, got == PUT_BYTES ? NONE_BYTES : ITEM_BYTES, MSG_NOSIGNAL) < 0)
                close(fd);
        }
    }
}

static uint64_t exchange(int ep, uint64_t until_ns)
{
    char bytes[4096] = {0};
    struct epoll_event events[EVENTS];
    uint64_t count = 0;
    while (now_ns() < until_ns) {
        int n = epoll_wait(ep, events, EVENTS, 10);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            ssize_t got = recv(fd, bytes, sizeof bytes, 0);
            if (got <= 0 || send(fd, bytes, got == NONE_BYTES ? GET_BYTES : PUT_BYTES, MSG_NOSIGNAL) < 0)
                fail("exchange");
            count++;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    struct report r = {.json = argc > 1 && strcmp(argv[1], "--json") == 0};
    char **args = argv + 1 + (r.json ? 1 : 0);
    int arg_count = argc - 1 - (r.json ? 1 : 0);
    int sessions = arg_count > 0 ? atoi(args[0]) : 64;
    double seconds = arg_count > 1 ? atof(args[1]) : 3;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    struct cpu from;
    struct cpu to;

    if (arg_count > 2 || sessions < 1 || sessions > SESSIONS_MAX || !(seconds >= 0.1 && seconds <= 600)) {
        fputs("usage: bench_floor [--json] [SESSIONS (1 to 1000) [SECONDS (0.1 to 600)]]\n", stderr);
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, len) != 0 ||
        listen(listener, 1024) != 0 || getsockname(listener, (struct sockaddr *)&address, &len) != 0)
        fail("listen");
    pid_t server = fork();
    if (server < 0)
        fail("fork");
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener);
    }
    int ep = poll_new(-1);
    for (int i = 0; i < sessions; i++) {
        char first[PUT_BYTES] = {0};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, len) != 0)
            fail("connect");
        poll_add(ep, fd);
        if (send(fd, first, sizeof first, MSG_NOSIGNAL) < 0)
            fail("send");
    }
    exchange(ep, now_ns() + 200000000);
    if (cpu_read(server, &from) < 0)
        fail("the server's CPU time");
    uint64_t begun_ns = now_ns();
    uint64_t count = exchange(ep, begun_ns + (uint64_t)(seconds * 1e9));
    double wall = (double)(now_ns() - begun_ns) / 1e9;
    if (cpu_read(server, &to) < 0)
        fail("the server's CPU time");
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    double cycles = (double)count / 4;
    report_number(&r, "sessions", sessions, "");
    report_number(&r, "cycles_per_s", cycles / wall, "1/s");
    report_number(&r, "server_cpu_us_per_cycle", (double)(to.total_ns - from.total_ns) / 1000.0 / cycles,
                  "us");
    report_end(&r);
    return 0;
}
