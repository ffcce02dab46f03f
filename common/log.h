/* Log lines for programs, on stderr: `<time> <program> <level> <MSG-ID> key=value ...`, the time in UTC
 * (RFC 3339, milliseconds). Libraries and the pure cores do not log, they return errors. Rate limit per id:
 * what comes after the tenth line of a second is counted and told later (suppressed=N). Values from peers
 * are written key="%s" with tq_log_quote. Never keys, bodies or environments. One loop thread. */
#ifndef TQ_COMMON_LOG_H
#define TQ_COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tq_log_level { TQ_LOG_DEBUG, TQ_LOG_INFO, TQ_LOG_WARN, TQ_LOG_ERROR };

void tq_log_init(const char *program, enum tq_log_level least);
/* id: stable, upper case, "AUTH-FAILED". */
__attribute__((format(printf, 3, 4))) void tq_log(enum tq_log_level level, const char *id, const char *fmt,
                                                  ...);
bool tq_log_enabled(enum tq_log_level level);
/* Tells now what the rate limit held back in seconds that are over; at exit all of it is told. */
void tq_log_flush(void);
/* Printable copy of n bytes in out: quotes, backslashes and all that is not printable ASCII are escaped, no
 * quotes are put round it; what does not fit is cut and ends in "...". out_size > 3. Returns out. */
const char *tq_log_quote(char *out, size_t out_size, const void *bytes, size_t n);

/* For tests: where lines go and what time it is. NULL: stderr and the system's clocks. */
struct tq_log_time {
    uint64_t wall_ms; /* since 1970 */
    uint64_t mono_ms; /* never goes back */
};
void tq_log_hook(void (*sink)(const char *line, size_t len), struct tq_log_time (*now)(void));

#endif
