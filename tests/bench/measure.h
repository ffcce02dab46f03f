/* What a load generator measures with: a monotonic clock, a histogram of latencies, and the CPU time and
 * memory of the server, read from outside. Header only: the benchmarks are one program per file. */
#ifndef TESTS_BENCH_MEASURE_H
#define TESTS_BENCH_MEASURE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    if (clock_gettime(id, &ts) != 0)
        return 0;
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* Latencies in ns: 32 steps per power of two, so a value is off by 3 % at most. */
#define HIST_STEPS 32u
#define HIST_SLOTS (40u * HIST_STEPS)

struct hist {
    uint64_t count;
    uint64_t max_ns;
    uint64_t slot[HIST_SLOTS];
};

static inline void hist_add(struct hist *h, uint64_t ns)
{
    uint64_t v = ns < HIST_STEPS ? HIST_STEPS : ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - 5u; /* v >> shift lies in [32, 64) */
    uint64_t at = (uint64_t)shift * HIST_STEPS + ((v >> shift) - HIST_STEPS);
    h->slot[at < HIST_SLOTS ? at : HIST_SLOTS - 1]++;
    h->count++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

/* The value below which the share q of all lies, in us; 0 when there are none. */
static inline double hist_us(const struct hist *h, double q)
{
    uint64_t want = (uint64_t)((double)h->count * q);
    uint64_t seen = 0;
    for (uint64_t at = 0; at < HIST_SLOTS; at++) {
        seen += h->slot[at];
        if (seen > want) {
            unsigned shift = (unsigned)(at / HIST_STEPS);
            return (double)((HIST_STEPS + at % HIST_STEPS) << shift) / 1000.0;
        }
    }
    return (double)h->max_ns / 1000.0;
}

/* CPU time of a process, all its threads, those that ended too. */
struct cpu {
    uint64_t total_ns; /* the kernel's clock of that process */
    uint64_t user_ns;  /* from its stat file, in clock ticks */
    uint64_t system_ns;
};

static inline int cpu_read(pid_t pid, struct cpu *ret_cpu)
{
    char path[64];
    char text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -errno;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    /* The name in parentheses may hold anything; utime and stime are fields 14 and 15. */
    const char *p = strrchr(text, ')');
    unsigned long user = 0;
    unsigned long system = 0;
    if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return -EINVAL;
    uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    ret_cpu->user_ns = user * tick_ns;
    ret_cpu->system_ns = system * tick_ns;
    clockid_t id;
    if (clock_getcpuclockid(pid, &id) == 0)
        ret_cpu->total_ns = clock_ns(id);
    else
        ret_cpu->total_ns = ret_cpu->user_ns + ret_cpu->system_ns;
    return 0;
}

/* A line "<key>:  <number>" of the status file: VmRSS in KiB, Threads as it is. -1: none. */
static inline long status_read(pid_t pid, const char *key)
{
    char path[64];
    char line[256];
    long value = -1;
    size_t key_len = strlen(key);
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    while (value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, key_len) == 0 && line[key_len] == ':')
            value = strtol(line + key_len + 1, NULL, 10);
    fclose(f);
    return value;
}

/* ---- the report: text for people, or one line of JSON for bench_python.py ---- */

struct report {
    bool json;
    bool any;
};

static inline void report_number(struct report *r, const char *name, double value, const char *unit)
{
    if (r->json)
        printf("%s\"%s\": %.6g", r->any ? ", " : "{", name, value);
    else
        printf("%-28s %14.2f %s\n", name, value, unit);
    r->any = true;
}

static inline void report_latency(struct report *r, const char *name, const struct hist *h)
{
    static const struct {
        const char *name;
        double share;
    } points[] = {{"p50", 0.50}, {"p99", 0.99}, {"p999", 0.999}};
    char full[64];
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        snprintf(full, sizeof full, "%s_%s_us", name, points[i].name);
        report_number(r, full, hist_us(h, points[i].share), "us");
    }
    snprintf(full, sizeof full, "%s_max_us", name);
    report_number(r, full, (double)h->max_ns / 1000.0, "us");
}

static inline void report_end(struct report *r)
{
    if (r->json)
        printf("%s}\n", r->any ? "" : "{");
    fflush(stdout);
}

#endif
