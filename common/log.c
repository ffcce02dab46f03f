#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/assert.h"

enum {
    LINE_MAX_BYTES = 2048,
    LINES_PER_SECOND = 10, /* of one id */
    SECOND_MS = 1000,
    IDS_MAX = 128, /* the ids are literals of ours; those beyond share the last place */
};

struct id_rate {
    const char *id;
    enum tq_log_level level;
    uint64_t since_ms; /* start of the second that is being counted */
    uint32_t lines;    /* written in it */
    uint64_t suppressed;
};

static const char *program_name = "taskq";
static enum tq_log_level least_level = TQ_LOG_INFO;
static struct id_rate rates[IDS_MAX];
static size_t rates_count;

static void write_stderr(const char *line, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, line, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody left to tell */
        line += n;
        len -= (size_t)n;
    }
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec t;

    if (clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct tq_log_time system_now(void)
{
    return (struct tq_log_time){.wall_ms = clock_ms(CLOCK_REALTIME), .mono_ms = clock_ms(CLOCK_MONOTONIC)};
}

static void (*sink_fn)(const char *line, size_t len) = write_stderr;
static struct tq_log_time (*now_fn)(void) = system_now;

static const char *level_name(enum tq_log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};

    TQ_ASSERT((size_t)level < sizeof names / sizeof names[0]);
    return names[level];
}

/* Appends to the line, never over its end; what is cut is cut at the end of the buffer. */
__attribute__((format(printf, 3, 0))) static size_t append(char *line, size_t at, const char *fmt, va_list ap)
{
    int n = vsnprintf(line + at, LINE_MAX_BYTES - at, fmt, ap);

    if (n < 0)
        return at;
    return (size_t)n < LINE_MAX_BYTES - at ? at + (size_t)n : LINE_MAX_BYTES - 1;
}

__attribute__((format(printf, 3, 4))) static size_t appendf(char *line, size_t at, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    at = append(line, at, fmt, ap);
    va_end(ap);
    return at;
}

static size_t append_head(char *line, struct tq_log_time now, enum tq_log_level level, const char *id)
{
    time_t seconds = (time_t)(now.wall_ms / 1000);
    struct tm tm;
    char date[32];

    if (gmtime_r(&seconds, &tm) == NULL || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(date, sizeof date, "1970-01-01T00:00:00");
    return appendf(line, 0, "%s.%03uZ %s %s %s", date, (unsigned)(now.wall_ms % 1000), program_name,
                   level_name(level), id);
}

/* One line is one write. No value, however it came in, can start a line of its own. */
static void emit(char *line, size_t len)
{
    if (len >= LINE_MAX_BYTES - 1) {
        len = LINE_MAX_BYTES - 2;
        line[len - 3] = line[len - 2] = line[len - 1] = '.';
    }
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[len] = '\n';
    sink_fn(line, len + 1);
}

static struct id_rate *rate_of(const char *id)
{
    for (size_t i = 0; i < rates_count; i++)
        if (rates[i].id == id || strcmp(rates[i].id, id) == 0)
            return &rates[i];
    if (rates_count == IDS_MAX)
        return &rates[IDS_MAX - 1];
    rates[rates_count] = (struct id_rate){.id = id};
    return &rates[rates_count++];
}

static void tell_suppressed(struct id_rate *rate, struct tq_log_time now)
{
    char line[LINE_MAX_BYTES];
    size_t at = append_head(line, now, rate->level, rate->id);

    at = appendf(line, at, " suppressed=%llu", (unsigned long long)rate->suppressed);
    rate->suppressed = 0;
    emit(line, at);
}

static void tell_due(struct tq_log_time now)
{
    for (size_t i = 0; i < rates_count; i++)
        if (rates[i].suppressed > 0 && now.mono_ms - rates[i].since_ms >= SECOND_MS)
            tell_suppressed(&rates[i], now);
}

void tq_log_flush(void)
{
    tell_due(now_fn());
}

static void flush_at_exit(void)
{
    struct tq_log_time now = now_fn();

    for (size_t i = 0; i < rates_count; i++)
        if (rates[i].suppressed > 0)
            tell_suppressed(&rates[i], now);
}

void tq_log_init(const char *program, enum tq_log_level least)
{
    static bool registered;

    program_name = program;
    least_level = least;
    if (!registered)
        registered = atexit(flush_at_exit) == 0;
}

void tq_log_hook(void (*sink)(const char *line, size_t len), struct tq_log_time (*now)(void))
{
    sink_fn = sink != NULL ? sink : write_stderr;
    now_fn = now != NULL ? now : system_now;
}

bool tq_log_enabled(enum tq_log_level level)
{
    return level >= least_level;
}

void tq_log(enum tq_log_level level, const char *id, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    struct tq_log_time now;
    struct id_rate *rate;
    va_list ap;
    size_t at;

    if (!tq_log_enabled(level))
        return;
    now = now_fn();
    tell_due(now);
    rate = rate_of(id);
    if (rate->lines == 0 || now.mono_ms - rate->since_ms >= SECOND_MS) {
        rate->since_ms = now.mono_ms;
        rate->lines = 0;
    }
    rate->level = level;
    if (rate->lines == LINES_PER_SECOND) {
        rate->suppressed++;
        return;
    }
    rate->lines++;

    at = append_head(line, now, level, id);
    if (fmt[0] != '\0') {
        at = appendf(line, at, " ");
        va_start(ap, fmt);
        at = append(line, at, fmt, ap);
        va_end(ap);
    }
    emit(line, at);
}

const char *tq_log_quote(char *out, size_t out_size, const void *bytes, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *in = bytes;
    size_t at = 0;
    size_t safe = 0; /* the longest whole prefix that leaves room for "..." */

    TQ_ASSERT(out_size > 3);
    for (size_t i = 0; i < n; i++) {
        char piece[4];
        size_t len;

        if (in[i] == '"' || in[i] == '\\') {
            memcpy(piece, (char[]){'\\', (char)in[i]}, 2);
            len = 2;
        } else if (in[i] >= 0x20 && in[i] < 0x7f) {
            piece[0] = (char)in[i];
            len = 1;
        } else {
            memcpy(piece, (char[]){'\\', 'x', hex[in[i] >> 4], hex[in[i] & 15]}, 4);
            len = 4;
        }
        if (at + len >= out_size) {
            memcpy(out + safe, "...", 4);
            return out;
        }
        memcpy(out + at, piece, len);
        at += len;
        if (at + 3 < out_size)
            safe = at;
    }
    out[at] = '\0';
    return out;
}
