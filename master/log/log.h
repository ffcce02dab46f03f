/* The log: records in, and word when they are written and when they are on stable storage.
 *
 *   loop thread                                   the log's own thread
 *   log_begin, bytes, log_commit: the record
 *   stands in the group that fills
 *   once a turn: log_kick ------- the group ----> log_job_run: write,
 *   the next group fills            <-- on_written   then (if one of its records asks for it) sync,
 *   log_done <---------------------------- over      then chores, if there are any
 *   (written, synced)
 *   log.h tells on_progress
 *
 * One group is on its way at a time, and one fills. A segment that is full is synced before the next one is
 * begun. Segments are allocated ahead by the same thread behind a group or when it has nothing better to do,
 * and old ones are used again. Pure: I/O goes through log_fs, and who runs the jobs is the executor's
 * business (a thread: master/disk/log_thread.h; in a simulation: whenever it likes).
 *
 * A failed write or sync is final: `failed` is set with its reason, nothing is ever reported as written or
 * synced again, and the owner ends the process. No room is not final: what found none is tried again every
 * LOG_RETRY_MS and whenever room was made, nothing is lost or reported meanwhile, and `no_space` says so. No
 * descriptor is treated like that, too, but `no_space` does not say so. */
#ifndef MASTER_LOG_LOG_H
#define MASTER_LOG_LOG_H

#include "common/buf.h"
#include "master/log/recover.h"

#define LOG_RETRY_MS 500u

enum log_wait {              /* who waits for a record? */
                LOG_NO_WAIT, /* nobody: it is synced with the next one that is, or after interval_ms */
                LOG_WRITTEN, /* replies wait until it is written: it survives the end of this process */
                LOG_SYNCED,  /* replies wait until it is on stable storage */
};

struct log_conf {
    uint64_t segment_bytes; /* 16 MiB; a larger record gets a segment of its own size */
    uint64_t group_bytes;   /* log_is_busy above so much that is not written yet; 8 MiB, and no more than
                               half a segment */
    uint32_t interval_ms;   /* what was written is synced after so long at the latest; 1,000 */
    uint8_t uuid[LOG_UUID_BYTES]; /* random, for a directory that is empty */
    uint64_t now_ms;              /* for headers */
};

struct log;     /* opaque */
struct log_job; /* opaque: one round of work for the executor */

struct log_host {
    void *ctx;
    /* A job is there: run log_job_run somewhere, then log_done on the loop's thread. One at a time. */
    void (*submit)(void *ctx, struct log_job *job); /* log_done is not called from within */
    /* Something has moved: written, synced, no_space, failed, busy. On the loop's thread, from within
     * log_done, when the next group is on its way already. */
    void (*on_progress)(void *ctx);
};

/* Goes on where log_recover ended (whose state is taken over, whatever the result): makes the directory's
 * first segment if there is none, zeroes what was cut, removes or takes as spares what is below `start`.
 * Blocks. 0, TQ_EIO, TQ_ENOSPC, TQ_ENOMEM with err. */
int log_open(struct log **ret_log, struct log_fs *fs, const struct log_conf *conf,
             const struct log_host *host, struct log_state *take_state, char err[LOG_ERROR_MAX]);
/* No job is being run; one that was handed over and not run yet is dropped. Writes nothing: see
 * log_close_record. NULL is fine. */
void log_free(struct log *l);

/* The buffer to which the next record's payload is to be appended (never cleared, never shortened by the
 * caller); each begin is ended by log_commit or log_cancel. NULL when out of memory. */
struct tq_buf *log_begin(struct log *l);
/* 0 and the record's index; negative (TQ_ELIMIT, TQ_ENOMEM; TQ_ECLOSED behind log_close_record): it is as if
 * it had not been begun. An empty payload is none: index 0, and nothing happens. */
int log_commit(struct log *l, enum log_type type, enum log_wait wait, uint64_t *ret_index);
void log_cancel(struct log *l);
/* The number of the segment that the next record goes to, or of one before it: never of a later one. */
uint64_t log_segment(const struct log *l);
/* Hands the group over if the last one is done and there is something to do. Once a turn of the loop; also
 * sees to interval_ms. */
void log_kick(struct log *l, uint64_t now_ms);
/* The job was run, or its executor was told on_written. Once too often does no harm. */
void log_done(struct log *l, uint64_t now_ms);

/* What an executor may give to a job; each may be NULL. Called on the thread that runs it. */
struct log_hooks {
    void *ctx;
    /* Some of the job is done that somebody waits for (the write before a sync; all before chores): log_done
     * may be called now to tell them, while the job goes on. Without it they are told when the job is over.
     */
    void (*on_written)(void *ctx);
    uint64_t (*now_ns)(void *ctx); /* for log_status's times, which stay 0 without it */
};
/* The executor's part: all the I/O. Any thread. Touches nothing that the loop does not leave alone until the
 * job is over, allocates nothing, and does not touch the job any more once log_done may see that it is over.
 */
void log_job_run(struct log_job *job);
void log_job_run_with(struct log_job *job, const struct log_hooks *hooks);
/* When log_kick wants to be called at the latest; UINT64_MAX: not before there is something new. */
uint64_t log_next_ms(const struct log *l);

/* Segments below this one are not needed any more (the one that is written stays). They are used again or
 * removed once a LOG_START record that says so is on stable storage: then first_segment goes up. */
void log_release(struct log *l, uint64_t segment);
/* For a copy (copy.h) while the log goes on: until log_unpin no segment from the first one in use on is used
 * again, renamed or removed, whatever log_release says (that is done later). One pin at a time. */
struct log_pin {
    uint64_t first_segment;
    uint64_t last_index; /* up to which all is written: whatever has been acknowledged */
};
void log_pin(struct log *l, struct log_pin *ret);
void log_unpin(struct log *l);
/* So many bytes must always be left for records that may not fail (completions). As soon as the segment that
 * is written cannot hold them and a group, spares that can are allocated. If that finds no room, `no_space`
 * is told while they are still there: what came in meanwhile was a group at most. An eighth of all that
 * counts as lost to records that do not fit an end. */
void log_set_reserve(struct log *l, uint64_t bytes);
/* A record larger than record_max needs room that is not allocated: where there is none it has to wait, and
 * all behind it, unless the other spares, which it takes, are enough. So whoever can, asks before: the next
 * spare is made large enough for such a payload (record_max says when it is), or `no_space` is told. Counts
 * until a segment is begun; 0 takes it back. */
void log_ask_room(struct log *l, uint64_t payload_bytes);
/* Asks the disk for free_bytes now, on the loop's thread. */
void log_look_at_disk(struct log *l);
/* Appends the LOG_CLOSED record; kick and wait until log_status.synced has reached it. */
int log_close_record(struct log *l, uint64_t *ret_index);

struct log_status {
    uint64_t next_index;
    uint64_t written, synced; /* all up to this index */
    /* What whoever sends a reply now has to wait for: the last records committed so far that ask for it. */
    uint64_t wait_written, wait_synced;
    uint64_t pending_bytes; /* committed and not written */
    bool busy;              /* more than group_bytes of those: take no more input until on_progress */
    bool no_space;          /* a spare segment, or a write, finds no room: take no new work. Tried again */
    bool failed;            /* final */
    uint64_t room_bytes;    /* left in the segment that is written and in the spare ones */
    uint64_t record_max;    /* the largest payload of a next record for which room is allocated */
    uint64_t free_bytes;    /* of the disk, as of some 100 ms ago; UINT64_MAX: not known */
    uint64_t first_segment, last_segment; /* that are in use */
    uint64_t log_bytes;                   /* of records from first_segment on */
    uint64_t used_bytes;                  /* of the files of these segments */
    uint64_t disk_bytes; /* of all files: segments, those that are on their way out, spares */
    unsigned spares;     /* that are allocated */
    uint64_t groups, records, bytes, syncs; /* counters: since the start */
    uint64_t sync_ns_last, sync_ns_max, write_ns_max;
    char error[LOG_ERROR_MAX]; /* of failed, or of no_space */
};
void log_get_status(const struct log *l, struct log_status *ret);
/* The cheap ones of those, for every reply. */
struct log_need {
    uint64_t written, synced;
};
struct log_need log_need_now(const struct log *l);
bool log_is_met(const struct log *l, struct log_need need);
bool log_is_busy(const struct log *l);

#endif
