/* Looking for good records in bytes that are none, or not known to be: behind the first bad record of a
 * segment. Each multiple of 8 may be the beginning of one, and what stands there may claim any length; so
 * that it takes time in the order of the bytes all the same, checksums of any range come from sums that are
 * made once. */
#ifndef MASTER_LOG_SCAN_H
#define MASTER_LOG_SCAN_H

#include "master/log/format.h"

#define LOG_SCAN_POWERS 40u

struct log_scan {
    struct tq_span segment; /* all of it, borrowed */
    uint32_t seed;
    uint64_t from;  /* a multiple of 8; no search goes in front of it */
    uint32_t *sums; /* NULL until there is something to look at twice */
    uint32_t power[LOG_SCAN_POWERS];
};

void log_scan_init(struct log_scan *s, struct tq_span segment, uint32_t seed, uint64_t from);
void log_scan_deinit(struct log_scan *s);
/* The next good record at or behind `from` with an index > after: 1; 0: there is none; TQ_ENOMEM. */
int log_scan_next(struct log_scan *s, uint64_t from, uint64_t after, uint64_t *ret_offset,
                  struct log_record_header *ret);

/* All good records at or behind s->from with an index > after. */
struct log_scan_rest {
    uint64_t records;
    uint64_t end;          /* behind the last one; 0: none */
    uint64_t last_index;   /* the highest */
    uint64_t synced;       /* the highest `synced` that one of them says */
    uint64_t synced_index; /* who says it, and where it stands */
    uint64_t synced_offset;
};
int log_scan_rest(struct log_scan *s, uint64_t after, struct log_scan_rest *ret); /* 0, TQ_ENOMEM */

#endif
