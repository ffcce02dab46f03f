/* The whole daemon for a fuzzer, in this process: the real server on a real loop, with a clock that stands
 * still but when it is moved. It stays open from one input to the next; between them it is brought back to
 * where it was, and must be clean then. */
#ifndef TESTS_FUZZ_SERVER_WORLD_H
#define TESTS_FUZZ_SERVER_WORLD_H

#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/mem.h"
#include "master/access/access.h"
#include "master/core/broker_check.h"
#include "master/core/broker_impl.h"
#include "master/native/native_impl.h"
#include "master/peer.h"
#include "tests/fuzz/fuzz.h"

#define WORLD_START_MS   1000000u
#define WORLD_JUMPS_MAX  100000u
#define WORLD_SEND_BYTES 4608 /* the least that the kernel gives: replies are cut, and wait */

static struct {
    uv_loop_t loop;
    struct config config;
    struct server server;
    char keys[2][32]; /* paths of two keys files */
    unsigned keys_in_use;
    uint64_t ms;     /* the clock */
    long fail_after; /* allocations of the server until one fails; -1: none does */
    uint16_t next_port;
    bool frozen;
    bool open;
    bool begun; /* loop and config are there */
} world;

/* libuv's clock. All others go on. */
__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *ts)
{
    if (!world.frozen || (id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE))
        return (int)syscall(SYS_clock_gettime, id, ts);
    ts->tv_sec = (time_t)(world.ms / 1000);
    ts->tv_nsec = (long)(world.ms % 1000) * 1000000;
    return 0;
}

static struct tq_log_time world_log_now(void)
{
    uint64_t ms = world.server.epoch_ms + world.ms;

    return (struct tq_log_time){ms, ms};
}

static void world_log_sink(const char *line, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++) /* what peers sent is quoted */
        TQ_ASSERT(line[i] >= ' ' && line[i] <= '~');
}

/* ---- opening ---- */

static const char *const world_keys_files[2] = {
    "prod producer produces-and-collects put=task_queue,prio get=result_queue,back,mine*\n"
    "work worker works-and-answers get=task_queue,lifo,once,late put=result_queue\n"
    "eye observer only-looks-at-it\n"
    "boss admin another-administrator\n",
    /* prod has other rights, work another secret, eye is gone; the order is another one, too */
    "boss admin another-administrator\n"
    "work worker works-with-a-new-secret\n"
    "prod producer produces-and-collects put=prio get=mine*\n",
};
static const char *const world_secrets[] = {
    "an authkey of the fuzzer", "produces-and-collects",   "works-and-answers", "only-looks-at-it",
    "another-administrator",    "works-with-a-new-secret", "nobody has this"};
#define WORLD_SECRETS (sizeof(world_secrets) / sizeof(world_secrets[0]))

static void world_write_keys(unsigned i)
{
    const char *text = world_keys_files[i];
    int fd = memfd_create("keys", 0);

    TQ_ASSERT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    snprintf(world.keys[i], sizeof(world.keys[i]), "/proc/self/fd/%d", fd);
}

static void world_configure(void)
{
    static char *args[] = {
        "task-master",
        "--listen",
        "127.0.0.1:0",
        "--authkey",
        NULL,
        "--keys-file",
        NULL,
        "--queue",
        "prio,kind=priority,maxsize=6,max_attempts=3",
        "--queue",
        "lifo,kind=lifo,ack=explicit,full=reject,maxsize=4,dead=grave,max_attempts=2,max_deliveries=2",
        "--queue",
        "once,ack=get,rate_per_s=5,concurrency=2,lease_ms=1000,ttl_ms=4000,expires_ms=60000",
        "--queue",
        "late,result=back,retention_ms=2000,grace_ms=100,retry_ms=10,max_attempts=3",
        "--half-open-max",
        "6",
        "--half-open-per-source",
        "5",
        "--max-connections",
        "8",
        "--max-queues",
        "14",
        "--max-frame-bytes",
        "65536",
        "--max-input-bytes",
        "131072",
        "--max-memory-bytes",
        "60000",
        "--max-held-per-session",
        "6",
        "--max-sessions",
        "5",
        "--max-calls",
        "8",
        "--max-batch",
        "30",
        "--max-reply-bytes",
        "4096",
        "--max-output-bytes",
        "65536",
        "--max-parked-bytes",
        "3000",
    };
    char err[TQ_OPT_ERROR_MAX] = "";

    for (unsigned i = 0; i < 2; i++)
        world_write_keys(i);
    args[4] = (char *)(uintptr_t)world_secrets[0];
    args[6] = world.keys[0];
    if (config_parse(&world.config, sizeof(args) / sizeof(args[0]), args, err) != TQ_OK) {
        fprintf(stderr, "%s\n", err);
        abort();
    }
}

static void world_use_keys(unsigned i)
{
    TQ_ASSERT(strlen(world.config.keys_file) <= strlen(world.keys[i]));
    world.keys_in_use = i;
    memcpy(world.config.keys_file, world.keys[i], strlen(world.keys[i]) + 1);
}

/* The server's allocations count, those of the clients do not. */
static unsigned long world_count_allocations(void)
{
    if (world.fail_after >= 0)
        tq_mem_fail_after(world.fail_after, 1);
    return tq_mem_count();
}

static void world_counted_allocations(unsigned long before)
{
    unsigned long made = tq_mem_count() - before;

    if (world.fail_after < 0)
        return;
    tq_mem_fail_after(-1, 0);
    world.fail_after = made > (unsigned long)world.fail_after ? -1 : world.fail_after - (long)made;
}

/* A connection, without the listener's part: this kind is quick, and leaves nothing in the kernel when it is
 * closed. The client's end, or -1. */
static int world_connect(void)
{
    struct server *s = &world.server;
    struct sockaddr_storage from = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&from;
    int bytes = WORLD_SEND_BYTES;
    unsigned long before;
    int ends[2];

    if (s->stopping)
        return -1;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in->sin_port = htons(world.next_port++);
    TQ_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    TQ_ASSERT(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) == 0);
    before = world_count_allocations();
    peer_accept(s, ends[1], &from);
    world_counted_allocations(before);
    return ends[0];
}

static void world_shut(void)
{
    while (uv_run(&world.loop, UV_RUN_NOWAIT) != 0)
        server_close(&world.server);
    server_deinit(&world.server);
    world.open = false;
}

/* All that is found nowhere else is a leak. */
static void world_at_exit(void)
{
    if (world.open) {
        server_close(&world.server);
        world_shut();
    }
    TQ_ASSERT(uv_loop_close(&world.loop) == 0);
    config_deinit(&world.config);
    tq_digest_cleanup();
}

static void world_open(void)
{
    char err[TQ_OPT_ERROR_MAX] = "";
    FILE *out = stdout;

    if (!world.begun) {
        world.begun = true;
        world.ms = WORLD_START_MS;
        world.frozen = true;
        tq_log_init("fuzz_server", TQ_LOG_DEBUG);
        tq_log_hook(world_log_sink, world_log_now);
        world_configure();
        TQ_ASSERT(uv_loop_init(&world.loop) == 0 && uv_now(&world.loop) == WORLD_START_MS);
        TQ_ASSERT(atexit(world_at_exit) == 0);
    }
    stdout = fopen("/dev/null", "w"); /* for the ready line */
    TQ_ASSERT(stdout != NULL);
    if (server_open(&world.server, &world.loop, &world.config, err) != TQ_OK) {
        fprintf(stderr, "%s\n", err);
        abort();
    }
    fclose(stdout);
    stdout = out;
    world.open = true;
}

/* ---- running ---- */

static void world_turn(void)
{
    unsigned long before = world_count_allocations();

    (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    world_counted_allocations(before);
}

/* To the next deadline. False: there is none. */
static bool world_jump(void)
{
    uint64_t next = tq_deadlines_next_ms(&world.server.deadlines);
    uint64_t now = world.server.epoch_ms + world.ms;

    if (next == UINT64_MAX)
        return false;
    if (next > now)
        world.ms += next - now;
    world_turn(); /* the timer */
    world_turn(); /* what follows, and the timer is set anew */
    return true;
}

/* ---- back to the start ---- */

static void world_ignore_effect(struct endpoint *ep, struct broker_effect *fx)
{
    (void)ep, (void)fx;
}

static void world_step(struct endpoint *ep, enum broker_event_kind kind, struct broker_queue *q)
{
    struct broker_event ev = {
        .kind = kind, .session = &ep->session, .queue = q, .close_mode = BROKER_CLOSE_RETURN};

    TQ_ASSERT(server_step(&world.server, &ev) == TQ_OK);
}

/* Queues that stay get their policies back and are emptied; the others go. */
static void world_empty_queues(void)
{
    struct server *s = &world.server;
    struct endpoint native = {.session = {.native = true}, .on_effect = world_ignore_effect};
    struct endpoint python = {.on_effect = world_ignore_effect};
    struct broker_queue *q, *next;

    world_step(&native, BROKER_SESSION_OPEN, NULL);
    world_step(&python, BROKER_SESSION_OPEN, NULL);
    for (q = broker_next_queue(s->broker, NULL); q != NULL; q = next) {
        struct pyobject *object = broker_queue_user(q);
        struct broker_queue_stats stats;

        next = broker_next_queue(s->broker, q);
        TQ_ASSERT(object != NULL && object->queue == q);
        if (!object->lasting) {
            TQ_ASSERT(server_remove_queue(s, q) == TQ_OK);
            continue;
        }
        object->refcount = 0;
        world_step(&native, BROKER_PURGE, q);
        broker_get_queue_stats(s->broker, q, &stats);
        for (uint64_t i = 0; i < stats.unfinished; i++)
            world_step(&python, BROKER_TASK_DONE, q);
    }
    world_step(&python, BROKER_SESSION_CLOSE, NULL);
    world_step(&native, BROKER_SESSION_CLOSE, NULL);
}

/* True: a queue that stays was shut down for good, so the server must be opened anew. */
static bool world_restore_queues(void)
{
    struct server *s = &world.server;
    bool worn = false;

    for (unsigned i = 0; i < world.config.queue_count; i++) {
        const struct config_queue *c = &world.config.queues[i];
        struct broker_queue *q = broker_find(s->broker, tq_span_str(c->name));

        if (q == NULL) {
            TQ_ASSERT(server_declare_queue(s, c->name, &c->conf, &q) == TQ_OK);
            continue;
        }
        TQ_ASSERT(server_reconfigure_queue(s, q, &c->conf) == TQ_OK);
        worn = worn || broker_queue_shut_down(q);
    }
    return worn;
}

static bool world_is_quiet(void)
{
    const struct server *s = &world.server;

    return s->peer_count == 0 && s->native->sessions.used == 0 && s->broker->stats.tasks == 0 &&
           s->broker->removed == NULL;
}

static void world_check(void)
{
    const char *wrong = broker_check(world.server.broker);

    if (wrong != NULL)
        fprintf(stderr, "broker_check: %s\n", wrong);
    TQ_ASSERT(wrong == NULL);
}

/* Nobody is connected, and nothing is left of those who were. */
static void world_check_empty(void)
{
    const struct server *s = &world.server;
    const struct native *n = s->native;
    struct broker_stats b;

    TQ_ASSERT(s->peers == NULL && s->resuming == NULL && !s->running_effects && s->effects.count == 0);
    TQ_ASSERT(s->halfopen.count == 0 && s->halfopen.oldest == NULL && s->auth_registry.nonces == NULL);
    TQ_ASSERT(n->dirty == NULL && n->detached == NULL && n->calls.used == 0 && n->worker_count == 0);
    TQ_ASSERT(n->parked_bytes == 0 && n->delivery.token == 0 && n->resuming == NULL);
    broker_get_stats(s->broker, &b);
    TQ_ASSERT(b.tasks == 0 && b.leased == 0 && b.delayed == 0 && b.kept == 0 && b.waiting == 0);
    TQ_ASSERT(b.body_bytes == 0 && b.parked_bytes == 0 && b.queues == 2);
    TQ_ASSERT(s->broker->external_bytes == 0 && ids_count(s->broker->ids) == 0);
    TQ_ASSERT(s->broker->sessions == NULL && s->broker->trash == NULL && s->broker->idwaits == NULL);
    TQ_ASSERT(s->broker->ended == NULL);
    world_check();
}

/* The clock as it was, without going back for the server. */
static void world_rewind(void)
{
    struct server *s = &world.server;

    s->epoch_ms += world.ms - WORLD_START_MS;
    world.ms = WORLD_START_MS;
    uv_update_time(&world.loop);
    (void)uv_timer_stop(&s->timer);
    s->timer_at_ms = UINT64_MAX;
    pyrefs_deinit(&s->refs);
    pyrefs_init(&s->refs, 262144);
}

/* All clients have closed. */
static void world_restore(void)
{
    struct server *s = &world.server;
    unsigned jumps = 0, stuck = 0;

    world.fail_after = -1;
    for (unsigned i = 0; i < 3; i++)
        world_turn();
    while (!s->stopping && s->peer_count > 0 && jumps++ < WORLD_JUMPS_MAX)
        TQ_ASSERT(world_jump());
    while (s->stopping && !s->stopped && jumps++ < WORLD_JUMPS_MAX)
        TQ_ASSERT(world_jump());
    world_check();
    if (s->stopping) {
        TQ_ASSERT(s->stopped);
        world_shut();
        return;
    }
    if (world.keys_in_use != 0) {
        world_use_keys(0);
        access_reload(s);
    }
    world_empty_queues();
    while (!world_is_quiet() && jumps++ < WORLD_JUMPS_MAX) {
        /* results of what was purged may stand in a queue that was empty before */
        if (s->broker->stats.tasks > s->broker->stats.kept)
            world_empty_queues();
        if (!world_jump())
            TQ_ASSERT(++stuck < 4);
    }
    world_check_empty();
    world_rewind();
    if (world_restore_queues()) {
        server_close(s);
        world_shut();
    }
}

#endif
