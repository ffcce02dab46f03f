/* The data directory of a server: its files and their lock, the thread of the log, the store that runs on
 * them (store/store.h), and what the server has to do in each turn of its loop for that. Without --data-dir
 * there is none: server.durable is NULL. */
#ifndef MASTER_DURABLE_H
#define MASTER_DURABLE_H

#include "master/server.h"
#include "master/store/store.h"

struct fs_posix;
struct durable; /* opaque */

/* Opens the directory and brings back what is in it, into a broker and a dialect that are new and have no
 * journal yet. Sets server.epoch_ms so that the clock goes on. Blocks. Afterwards changes are recorded. 0, or
 * negative with cause and remedy; durable_stop and durable_free are due in any case. */
int durable_open(struct server *s, char err[TQ_OPT_ERROR_MAX]);
/* Once a turn of the loop, when all that was read has been carried out: one record of it, and whatever the
 * log has got to goes out. Does not come back if the log has failed: the process ends. */
void durable_turn(struct server *s);
/* So much input is being carried out: when it is enough for one record, `busy` holds back the rest until the
 * next turn. A record that is larger than a segment would need room of its own, which a full disk does not
 * have. */
void durable_took(struct server *s, size_t n_bytes);
/* While server.busy, before deadlines: whoever is not listened to is not silent. */
void durable_is_busy(struct server *s);
/* May a reply that was composed just now go out at once? If not, it has to wait for what the log needs
 * after the next turn. */
bool durable_may_reply(const struct server *s);
bool durable_is_met(const struct server *s, struct log_need need);
uint64_t durable_next_ms(const struct server *s); /* a turn is wanted by then */

/* The stop: what changes from now on is not recorded. The loop goes on until the log is whole on disk; if
 * that takes longer than limits.stop_timeout_ms, the process ends with status 1. Without a data directory
 * this does nothing, and so does the next. */
void durable_stop(struct server *s);
void durable_free(struct server *s); /* the loop has ended; before the broker goes */

/* For backups; NULL without a data directory. */
struct store *durable_store(const struct server *s);
struct fs_posix *durable_fs(const struct server *s);

/* Up to max counters for `stats`; how many. */
unsigned durable_stats(const struct server *s, struct native_stat *out, unsigned max);

#endif
