/* Backups: a copy of the log into another folder, made while the server runs, by a thread of its own. One at
 * a time. */
#ifndef MASTER_BACKUP_H
#define MASTER_BACKUP_H

#include "master/server.h"

struct backup; /* opaque */

/* Begins one (native_host.backup): its end is told by native_backup_done. */
void backup_begin(struct server *s, uint64_t token, const char *dir, struct native_backup *ret);
/* The server stops: what is under way is given up, and removed. The loop goes on until that is done, or
 * stop_timeout_ms have passed. */
void backup_close(struct server *s);
/* Up to max counters for `stats`; how many. */
unsigned backup_stats(const struct server *s, struct native_stat *out, unsigned max);

#endif
