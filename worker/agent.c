#include "worker/agent.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#define TELL_EVERY_MS 10000 /* the same trouble is told again */

/* ---- speaking ---- */

static void say(const char *line)
{
    /* Whoever closed our output does not want to hear; the work goes on. */
    (void)printf("%s\n", line);
    (void)fflush(stdout);
}

static void complain(const char *text, const char *more)
{
    (void)fprintf(stderr, "task-worker: %s%s\n", text, more);
}

/* ---- the end ---- */

static void on_finish(struct tick *t)
{
    struct agent *a = TICK_OWNER(t, struct agent, finish);

    tick_clear(&a->ticker, &a->drain);
    tick_clear(&a->ticker, &a->give_up);
    a->runner->ops->close(a->runner);
    link_peer_close(&a->peer);
    ticker_close(&a->ticker);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&a->signals[i], NULL);
}

void agent_on_part_gone(struct agent *a)
{
    a->parts_gone++;
    /* Not at once: we stand in a callback of what would be closed. */
    if (a->parts_gone == a->parts)
        tick_move(&a->ticker, &a->finish, 0, on_finish);
}

static void abort_all(struct agent *a)
{
    if (a->slots == NULL)
        native_link_abort(&a->native);
    for (uint64_t i = 0; a->slots != NULL && i < a->parts; i++)
        slot_abort(&a->slots[i]);
}

static unsigned count_busy(const struct agent *a)
{
    unsigned busy = a->slots == NULL ? native_link_busy(&a->native) : 0;

    for (uint64_t i = 0; a->slots != NULL && i < a->parts; i++)
        busy += slot_is_busy(&a->slots[i]);
    return busy;
}

/* Nothing is to be gained by going on. */
static void give_up(struct agent *a, const char *text)
{
    if (a->failed)
        return;
    a->failed = true;
    a->stopping = true;
    complain(text, "");
    abort_all(a);
}

static void on_connect_timeout(struct tick *t)
{
    struct agent *a = TICK_OWNER(t, struct agent, give_up);
    char text[LINK_TEXT_MAX];

    tick_park(&a->ticker, &a->give_up, on_connect_timeout);
    snprintf(text, sizeof(text), "%s could not be reached within --connect-timeout: start the master first",
             a->peer.name);
    give_up(a, text);
}

static void on_drain_timeout(struct tick *t)
{
    struct agent *a = TICK_OWNER(t, struct agent, drain);
    char text[LINK_TEXT_MAX];
    unsigned busy = count_busy(a);

    tick_park(&a->ticker, &a->drain, on_drain_timeout);
    if (busy > 0) {
        snprintf(text, sizeof(text), "gave up %u unfinished task(s) after --drain-timeout: raise it", busy);
        give_up(a, text);
    } else {
        abort_all(a);
    }
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct agent *a = handle->data;

    (void)number;
    if (a->draining) {
        a->failed = true;
        abort_all(a);
        /* The resolver's thread cannot be called back. */
        if (a->peer.resolving)
            _exit(1);
        return;
    }
    a->stopping = true;
    a->draining = true;
    tick_move(&a->ticker, &a->drain, a->conf->drain_timeout_ms, on_drain_timeout);
    if (a->slots == NULL)
        native_link_stop(&a->native);
    for (uint64_t i = 0; a->slots != NULL && i < a->parts; i++)
        slot_stop(&a->slots[i]);
}

/* ---- for the slots and the native link ---- */

void agent_on_up(struct agent *a, bool served)
{
    if (a->told_trouble)
        tq_log(TQ_LOG_INFO, "CONNECTED", "peer=%s", a->peer.name);
    a->ever_up = true;
    a->ever_served |= served;
    a->told_trouble = false;
    tick_park(&a->ticker, &a->give_up, on_connect_timeout);
    a->waiting = false;
}

static bool is_final(const struct agent *a, enum agent_trouble trouble, enum link_failure failure)
{
    if (a->conf->no_retry || failure == LINK_KEY_REFUSED || failure == LINK_KEY_UNPROVEN)
        return true;
    if (failure == LINK_OUT_OF_MEMORY || trouble == AGENT_TROUBLE_FINAL)
        return true;
    /* Likely a typing error as long as it never worked. */
    return (!a->ever_served && trouble == AGENT_TROUBLE_QUEUE) ||
           (!a->ever_up && failure == LINK_UNKNOWN_HOST);
}

void agent_on_trouble(struct agent *a, enum agent_trouble trouble, enum link_failure failure,
                      const char *text)
{
    uint64_t now_ms = uv_now(&a->loop);

    if (a->failed)
        return;
    if (is_final(a, trouble, failure)) {
        give_up(a, text);
        return;
    }
    link_peer_failed(&a->peer);
    if (!a->waiting && a->conf->connect_timeout_ms > 0) {
        a->waiting = true;
        tick_move(&a->ticker, &a->give_up, a->conf->connect_timeout_ms, on_connect_timeout);
    }
    if (a->told_trouble && now_ms - a->told_ms < TELL_EVERY_MS)
        return;
    a->told_trouble = true;
    a->told_ms = now_ms;
    complain(text, a->stopping ? "" : "; trying again");
}

bool agent_wants_tasks(const struct agent *a)
{
    return !a->stopping && (a->conf->count == 0 || a->turns_left > 0);
}

uint64_t agent_turns(const struct agent *a)
{
    if (a->stopping)
        return 0;
    return a->conf->count == 0 ? UINT64_MAX : a->turns_left;
}

void agent_take_turns(struct agent *a, uint64_t n)
{
    if (a->conf->count > 0)
        a->turns_left -= n;
}

void agent_return_turns(struct agent *a, uint64_t n)
{
    if (a->conf->count > 0)
        a->turns_left += n;
}

/* A get was answered: the next connection need not wait, and the queues are there. */
static void on_served(struct agent *a)
{
    link_peer_works(&a->peer);
    a->ever_served = true;
}

void agent_on_task(struct agent *a)
{
    on_served(a);
    a->told_empty = false;
}

void agent_on_empty(struct agent *a, uint64_t turns)
{
    on_served(a);
    if (a->conf->count > 0) {
        /* Each turn says what became of it, as in the example. */
        while (turns-- > 0)
            say("task queue is empty.");
        return;
    }
    /* A server of tasks says it when it runs out of them, not every second. */
    if (a->told_empty || count_busy(a) > 0)
        return;
    a->told_empty = true;
    say("task queue is empty.");
}

/* ---- the beginning ---- */

static void open_signals(struct agent *a)
{
    static const int numbers[2] = {SIGINT, SIGTERM};

    for (size_t i = 0; i < 2; i++) {
        int rv = uv_signal_init(&a->loop, &a->signals[i]);

        TQ_ASSERT(rv == 0);
        a->signals[i].data = a;
        rv = uv_signal_start(&a->signals[i], on_signal, numbers[i]);
        TQ_ASSERT(rv == 0);
    }
}

/* TQ_ENOMEM: what was opened is released, but for the loop. */
static int open_parts(struct agent *a)
{
    const struct agent_conf *conf = a->conf;
    struct runner_env env = {.ticker = &a->ticker, .say = say, .sleep_ms = conf->sleep_ms};
    int rv = TQ_ENOMEM;

    a->parts = conf->peer_python ? conf->jobs : 1;
    if (conf->peer_python) {
        a->slots = tq_calloc(conf->jobs, sizeof(*a->slots));
        if (a->slots == NULL)
            return TQ_ENOMEM;
    }
    ticker_open(&a->ticker, &a->loop);
    rv = tick_set(&a->ticker, &a->finish, TICK_PARKED_MS, on_finish);
    if (rv == TQ_OK)
        rv = tick_set(&a->ticker, &a->drain, TICK_PARKED_MS, on_drain_timeout);
    if (rv == TQ_OK)
        rv = tick_set(&a->ticker, &a->give_up, TICK_PARKED_MS, on_connect_timeout);
    if (rv == TQ_OK)
        rv = link_peer_open(&a->peer, &a->loop, &a->ticker, conf->host, conf->port, conf->key,
                            conf->frame_bytes);
    if (rv == TQ_OK && a->slots == NULL)
        rv = native_link_init(&a->native, a);
    if (rv == TQ_OK) {
        rv = conf->runner->open(&env, &a->runner);
        if (rv != TQ_OK && a->slots == NULL)
            native_link_abort(&a->native);
    }
    if (rv != TQ_OK) {
        tick_clear(&a->ticker, &a->peer.pause);
        tick_clear(&a->ticker, &a->give_up);
        tick_clear(&a->ticker, &a->drain);
        tick_clear(&a->ticker, &a->finish);
        ticker_close(&a->ticker);
        tq_free(a->slots);
        return rv;
    }
    for (uint64_t i = 0; a->slots != NULL && i < a->parts; i++)
        slot_init(&a->slots[i], a);
    open_signals(a);
    return TQ_OK;
}

static void run(struct agent *a)
{
    char line[300];

    snprintf(line, sizeof(line), "Connect to server %s...", a->conf->host);
    say(line);
    if (a->conf->connect_timeout_ms > 0) {
        a->waiting = true;
        tick_move(&a->ticker, &a->give_up, a->conf->connect_timeout_ms, on_connect_timeout);
    }
    if (a->slots == NULL)
        native_link_start(&a->native);
    for (uint64_t i = 0; a->slots != NULL && i < a->parts; i++)
        slot_start(&a->slots[i]);
    uv_run(&a->loop, UV_RUN_DEFAULT);
    if (a->slots == NULL)
        native_link_deinit(&a->native);
    for (uint64_t i = 0; a->slots != NULL && i < a->parts; i++)
        slot_deinit(&a->slots[i]);
    tq_free(a->slots);
    if (!a->failed)
        say("worker exit.");
}

int agent_run(const struct agent_conf *conf)
{
    struct agent *a = tq_calloc(1, sizeof(*a));
    bool failed = true;
    int rv;

    if (a == NULL) {
        complain("out of memory", "");
        return 1;
    }
    rv = uv_loop_init(&a->loop);
    if (rv != 0) {
        complain("cannot make an event loop: ", uv_strerror(rv));
        tq_free(a);
        return 1;
    }
    a->conf = conf;
    a->turns_left = conf->count;
    if (open_parts(a) == TQ_OK) {
        run(a);
        failed = a->failed;
    } else {
        complain("out of memory", "");
        uv_run(&a->loop, UV_RUN_DEFAULT);
    }
    rv = uv_loop_close(&a->loop);
    TQ_ASSERT(rv == 0);
    tq_free(a);
    return failed ? 1 : 0;
}
