/* The command line of bench_pyload. */
#ifndef TESTS_BENCH_PYLOAD_OPTIONS_H
#define TESTS_BENCH_PYLOAD_OPTIONS_H

#include "tests/bench/measure.h"
#include "tests/bench/pydialect.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>

#define SESSIONS_MAX      19000
#define BODY_NUMBER_BYTES 16 /* a body is its number in 16 hex digits, then x, at least one */
#define BODY_MIN_BYTES    (BODY_NUMBER_BYTES + 1)
#define BODY_MAX_BYTES    16384
#define SECONDS_MAX       600

enum mode { MODE_CYCLE, MODE_CONNECT, MODE_PARKED };

struct options {
    enum mode mode;
    struct sockaddr_in address;
    struct py_client client;
    uint32_t sessions;
    uint32_t window; /* handshakes in flight at once */
    uint32_t producers;
    uint64_t count; /* cycles or connections, 0: until the time is over */
    double seconds;
    double warmup_seconds;
    double timeout_seconds; /* of the whole run */
    size_t body_bytes;
    pid_t server_pid; /* 0: unknown */
    bool burst;
    bool nagle;
    const char *task_typeid;
    const char *result_typeid;
    struct report report;
};

static const char usage[] =
    "bench_pyload --connect 127.0.0.1:PORT [options] cycle|connect|parked\n"
    "  --authkey KEY          the key (default: the environment, TASKQ_AUTHKEY)\n"
    "  --client 3.11|3.13     which age of client to be in the handshake (default 3.13)\n"
    "  --sessions N           sessions at once (64; parked: 10000)\n"
    "  --burst N              connect: N handshakes at the same instant\n"
    "  --window N             cycle, parked: handshakes in flight while opening (64)\n"
    "  --producers N          parked: sessions that put the items (1)\n"
    "  --seconds S            how long to measure (3)\n"
    "  --count N              cycles or connections to stop after (0: by time only)\n"
    "  --warmup S             cycle: not measured, before it (0.5; none with --count)\n"
    "  --timeout S            bound of the whole run (60)\n"
    "  --body-bytes N         17 to 16384 (100)\n"
    "  --server-pid PID       measure that process's CPU time and memory\n"
    "  --task-typeid NAME     get_task_queue      --result-typeid NAME  get_result_queue\n"
    "  --nagle                leave Nagle's algorithm on, as Python does\n"
    "  --json                 one line of JSON\n";

enum {
    OPT_CONNECT = 256,
    OPT_AUTHKEY,
    OPT_CLIENT,
    OPT_SESSIONS,
    OPT_BURST,
    OPT_WINDOW,
    OPT_PRODUCERS,
    OPT_SECONDS,
    OPT_COUNT,
    OPT_WARMUP,
    OPT_TIMEOUT,
    OPT_BODY,
    OPT_PID,
    OPT_TASK,
    OPT_RESULT,
    OPT_NAGLE,
    OPT_JSON,
    OPT_HELP
};

static const struct option long_options[] = {
    {"connect", required_argument, NULL, OPT_CONNECT},
    {"authkey", required_argument, NULL, OPT_AUTHKEY},
    {"client", required_argument, NULL, OPT_CLIENT},
    {"sessions", required_argument, NULL, OPT_SESSIONS},
    {"burst", required_argument, NULL, OPT_BURST},
    {"window", required_argument, NULL, OPT_WINDOW},
    {"producers", required_argument, NULL, OPT_PRODUCERS},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"count", required_argument, NULL, OPT_COUNT},
    {"warmup", required_argument, NULL, OPT_WARMUP},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"body-bytes", required_argument, NULL, OPT_BODY},
    {"server-pid", required_argument, NULL, OPT_PID},
    {"task-typeid", required_argument, NULL, OPT_TASK},
    {"result-typeid", required_argument, NULL, OPT_RESULT},
    {"nagle", no_argument, NULL, OPT_NAGLE},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static _Noreturn void usage_error(const char *why)
{
    fprintf(stderr, "bench_pyload: %s\n%s", why, usage);
    exit(2);
}

static inline double parse_number(const char *text, double min, double max)
{
    char *end;
    double v = strtod(text, &end);
    if (*end != '\0' || end == text || !(v >= min && v <= max)) {
        fprintf(stderr, "bench_pyload: %s: a number from %g to %g is wanted\n", text, min, max);
        exit(2);
    }
    return v;
}

static inline void parse_address(const char *text, struct sockaddr_in *ret_address)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        usage_error("--connect wants 127.0.0.1:PORT");
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    ret_address->sin_family = AF_INET;
    ret_address->sin_port = htons((uint16_t)parse_number(colon + 1, 1, 65535));
    if (inet_pton(AF_INET, host, &ret_address->sin_addr) != 1 ||
        ntohl(ret_address->sin_addr.s_addr) >> 24 != 127)
        usage_error("--connect: only loopback addresses (127.x.x.x), this program makes load");
}

static inline void parse_option(struct options *o, int option, const char *arg)
{
    switch (option) {
    case OPT_CONNECT:
        parse_address(arg, &o->address);
        break;
    case OPT_AUTHKEY:
        o->client.key = tq_span_str(arg);
        break;
    case OPT_CLIENT:
        if (strncmp(arg, "3.", 2) != 0)
            usage_error("--client wants 3.6 to 3.14");
        o->client.modern = parse_number(arg + 2, 6, 99) >= 12;
        break;
    case OPT_BURST:
        o->burst = true;
        /* fall through */
    case OPT_SESSIONS:
        o->sessions = (uint32_t)parse_number(arg, 1, SESSIONS_MAX);
        break;
    case OPT_WINDOW:
        o->window = (uint32_t)parse_number(arg, 1, SESSIONS_MAX);
        break;
    case OPT_PRODUCERS:
        o->producers = (uint32_t)parse_number(arg, 1, 1000);
        break;
    case OPT_SECONDS:
        o->seconds = parse_number(arg, 0.1, SECONDS_MAX);
        break;
    case OPT_COUNT:
        o->count = (uint64_t)parse_number(arg, 0, 1e9);
        break;
    case OPT_WARMUP:
        o->warmup_seconds = parse_number(arg, 0, SECONDS_MAX);
        break;
    case OPT_TIMEOUT:
        o->timeout_seconds = parse_number(arg, 1, SECONDS_MAX);
        break;
    case OPT_BODY:
        o->body_bytes = (size_t)parse_number(arg, BODY_MIN_BYTES, BODY_MAX_BYTES);
        break;
    case OPT_PID:
        o->server_pid = (pid_t)parse_number(arg, 1, 1 << 30);
        break;
    case OPT_TASK:
        o->task_typeid = arg;
        break;
    case OPT_RESULT:
        o->result_typeid = arg;
        break;
    case OPT_NAGLE:
        o->nagle = true;
        break;
    case OPT_JSON:
        o->report.json = true;
        break;
    case OPT_HELP:
        fputs(usage, stdout);
        exit(0);
    default:
        usage_error("wrong option");
    }
}

static inline void parse_options(struct options *o, int argc, char **argv)
{
    static const char *const modes[] = {"cycle", "connect", "parked"};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(o, option, optarg);
    if (optind + 1 != argc)
        usage_error("one of cycle, connect, parked is wanted");
    unsigned mode = 0;
    while (mode < 3 && strcmp(modes[mode], argv[optind]) != 0)
        mode++;
    if (mode == 3)
        usage_error("the mode is one of cycle, connect, parked");
    o->mode = (enum mode)mode;
    if (o->address.sin_port == 0)
        usage_error("--connect is needed");
    if (!o->client.key.data && getenv("TASKQ_AUTHKEY"))
        o->client.key = tq_span_str(getenv("TASKQ_AUTHKEY"));
    if (!o->client.key.data)
        usage_error("--authkey or TASKQ_AUTHKEY is needed");
    if (strlen(o->task_typeid) > PY_IDENT_MAX || strlen(o->result_typeid) > PY_IDENT_MAX)
        usage_error("a typeid has at most 255 bytes");
    if (o->sessions == 0)
        o->sessions = o->mode == MODE_PARKED ? 10000 : 64;
    if (o->mode == MODE_PARKED)
        o->sessions += o->producers;
}

#endif
