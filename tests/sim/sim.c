/* usage: test_sim [--durable] [--trace] [--no-check] [--seed N | --seeds FIRST LAST]... (1 to 1000 without).
 * A run that fails says which seed it was; the same seed is the same run, byte for byte of its trace.
 * --durable: with a log on a disk, and a master that is killed and started again. --no-check leaves out the
 * broker's own check of its state: the model alone has to notice. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/mem.h"
#include "tests/lib/mptext.h"

#define TOTALS 19

bool sim_checks = true;
static bool is_durable;
static char running[40]; /* which seed, for the signal handler */

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (s->trace != NULL)
        fflush(s->trace);
    fprintf(stderr, "seed %" PRIu64 ", at %" PRIu64 " ms: ", s->seed, s->now_ms);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\nthe whole history: test_sim%s --trace --seed %" PRIu64 "\n",
            is_durable ? " --durable" : "", s->seed);
    va_end(ap);
    exit(1);
}

void sim_note(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (s->trace == NULL)
        return;
    va_start(ap, fmt);
    fprintf(s->trace, "%8" PRIu64 " ", s->now_ms);
    vfprintf(s->trace, fmt, ap);
    fputc('\n', s->trace);
    va_end(ap);
}

/* xorshift64* */
uint32_t sim_below(struct sim *s, uint32_t n)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return (uint32_t)((s->random * 0x2545f4914f6cdd1du >> 32) * n >> 32);
}

bool sim_chance(struct sim *s, uint32_t per_mille)
{
    return sim_below(s, 1000) < per_mille;
}

int sim_value(struct sim *s, char text[SIM_TAG_LEN + 1])
{
    if (s->value_count == SIM_VALUES)
        sim_fail(s, "the simulation has no room for more values");
    (void)snprintf(text, SIM_TAG_LEN + 1, "~%07u", s->value_count);
    return (int)s->value_count++;
}

int sim_value_in(const void *data, size_t len)
{
    const char *at = len > 0 ? memchr(data, '~', len) : NULL;
    int value = 0;

    if (at == NULL || (size_t)((const char *)data + len - at) < SIM_TAG_LEN)
        return -1;
    for (unsigned i = 1; i < SIM_TAG_LEN; i++)
        value = value * 10 + (at[i] - '0');
    return value >= 0 && value < (int)SIM_VALUES ? value : -1;
}

static void run(uint64_t seed, FILE *trace, uint64_t *total)
{
    struct sim *s = tq_calloc(1, sizeof(*s));

    TQ_ASSERT(s != NULL);
    s->model = tq_calloc(1, sizeof(*s->model));
    TQ_ASSERT(s->model != NULL);
    s->seed = seed;
    (void)snprintf(running, sizeof(running), "seed %-33" PRIu64 "\n", seed);
    s->random = (seed + 1) * 0x9e3779b97f4a7c15u;
    s->host_random = seed;
    s->trace = trace;
    s->now_ms = 1000;
    for (int i = 0; i < 8; i++)
        (void)sim_below(s, 2);
    m_init(s->model, s);
    if (is_durable) {
        s->disk = tq_calloc(1, sizeof(*s->disk));
        TQ_ASSERT(s->disk != NULL);
    }
    sim_world_init(s);
    sim_actors_init(s);
    sim_run(s);
    sim_world_deinit(s);
    total[0] += s->steps;
    total[1] += s->model->accepted;
    total[2] += s->model->handouts;
    total[3] += s->model->ends;
    total[4] += s->model->stale;
    total[5] += s->model->resumed;
    total[6] += s->model->dead;
    total[7] += s->model->known;
    total[8] += s->model->removed;
    total[9] += s->model->silences;
    total[10] += s->model->retried;
    if (s->disk != NULL) {
        for (int i = 0; i < 3; i++)
            total[11 + i] += s->disk->crashes[i];
        total[14] += s->disk->starts;
        total[15] += s->disk->undone;
        total[16] += s->disk->segments;
        total[17] += s->disk->moved_bytes;
        total[18] += s->disk->refusals;
    }
    tq_free(s->disk);
    tq_free(s->model);
    tq_free(s);
}

static void on_abort(int signo)
{
    (void)!write(STDERR_FILENO, running, sizeof(running));
    signal(signo, SIG_DFL);
    raise(signo);
}

static uint64_t number(const char *text)
{
    char *end = NULL;
    uint64_t n = text != NULL ? strtoull(text, &end, 10) : 0;

    if (text == NULL || *text == '\0' || *end != '\0') {
        fprintf(stderr,
                "usage: test_sim [--durable] [--trace] [--no-check] [--seed N | --seeds FIRST LAST]...\n");
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    uint64_t total[TOTALS] = {0};
    FILE *trace = NULL;
    bool any = false;

    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);
    for (int i = 1; i < argc; i++) {
        uint64_t first, last;

        if (strcmp(argv[i], "--trace") == 0) {
            trace = stdout;
            continue;
        }
        if (strcmp(argv[i], "--durable") == 0) {
            is_durable = true;
            continue;
        }
        if (strcmp(argv[i], "--no-check") == 0) {
            sim_checks = false;
            continue;
        }
        if (strcmp(argv[i], "--seed") == 0) {
            first = last = number(argv[++i]);
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 2 < argc) {
            first = number(argv[i + 1]);
            last = number(argv[i + 2]);
            i += 2;
        } else {
            first = last = number(argv[i]);
        }
        any = true;
        for (uint64_t seed = first; seed <= last; seed++)
            run(seed, trace, total);
    }
    for (uint64_t seed = 1; !any && seed <= 1000; seed++)
        run(seed, trace, total);
    printf("%" PRIu64 " steps, %" PRIu64 " tasks, %" PRIu64 " hand-outs, %" PRIu64 " ends, %" PRIu64
           " stale, %" PRIu64 " resumed, %" PRIu64 " dead, %" PRIu64 " known, %" PRIu64 " removed, %" PRIu64
           " silences, %" PRIu64 " retried\n",
           total[0], total[1], total[2], total[3], total[4], total[5], total[6], total[7], total[8], total[9],
           total[10]);
    if (is_durable)
        printf("%" PRIu64 " kill -9, %" PRIu64 " power cuts, %" PRIu64 " stops, %" PRIu64 " starts, %" PRIu64
               " records undone that nobody was told of, %" PRIu64 " segments, %" PRIu64
               " bytes moved, %" PRIu64 " times no room\n",
               total[11], total[12], total[13], total[14], total[15], total[16], total[17], total[18]);
    return 0;
}
