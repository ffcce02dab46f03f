/* The inside of the log. What belongs to the loop and what belongs to a job while it runs are kept apart:
 * struct log is the loop's; struct log_job is the job's from submit until it is over. */
#ifndef MASTER_LOG_LOG_IMPL_H
#define MASTER_LOG_LOG_IMPL_H

#include <stdatomic.h>

#include "common/err.h"
#include "master/log/log.h"

#define LOG_FREE_MS     100u       /* the disk is asked for its room so often */
#define LOG_CHORES_MAX  8u         /* of one job: the group behind it waits for them */
#define LOG_KEEP_BYTES  (1u << 20) /* of a group's buffer: more is given back when it is not used */
#define LOG_BUFFER_MAX  (LOG_PAYLOAD_MAX * 2ull)
#define LOG_RESERVE_MAX (1ull << 40)
#define LOG_NEVER       UINT64_MAX
#define LOG_FILE_UNIT   4096u

/* A run of records of one group that go into one segment. */
struct log_piece {
    size_t begin, end; /* in the group's buffer */
    uint64_t offset;   /* in the segment */
    uint64_t last_index;
    bool begins;        /* the segment is new: */
    bool next_is_named; /* the spare behind it is known to be there, durably */
    struct log_segment_header header;
};

struct log_group {
    struct tq_buf buf;
    struct log_piece *pieces;
    size_t piece_count, piece_cap;
    uint64_t records;
    uint64_t last_index;
    uint64_t wait_written; /* the last of its records that asks for that, 0: none does */
    bool sync;
};

enum log_chore_kind {
    LOG_CHORE_RECYCLE,      /* the segment `number` becomes the spare `to`, whose empty file it may replace */
    LOG_CHORE_DROP_SEGMENT, /* `number` */
    LOG_CHORE_DROP_SPARE,
    LOG_CHORE_NAME_SPARE, /* an empty file, so that the name is there */
    LOG_CHORE_FILL_SPARE, /* the same, and so many bytes are allocated */
};

struct log_chore {
    enum log_chore_kind kind;
    uint64_t number, to, bytes;
};

struct log_job {
    struct log_fs *fs;
    const struct log_hooks *hooks;

    /* What is to be done. */
    struct log_group group;
    bool sync;
    bool chores_first;   /* the group waits for room */
    uint64_t spare_last; /* the highest number of a spare */
    bool asks_free;      /* how much room the disk has */
    struct log_chore chores[LOG_CHORES_MAX];
    unsigned chore_count;

    /* Where it stands; kept from job to job, and when a job is tried again. */
    int file;        /* the segment that is written */
    uint64_t number; /* its number */
    bool dirty;      /* written to since its last sync */
    int next_file;   /* the one that is being made, or -1 */
    size_t piece_done;
    uint64_t last_written, last_synced; /* indexes */

    /* For the loop, in mid-job. */
    _Atomic uint64_t told_written, told_synced;
    atomic_bool over;

    /* For the loop, when it is over. */
    int rv;       /* of the group: 0, log_is_passing (try again), or final */
    int chore_rv; /* of the chores: 0, or log_is_passing */
    unsigned chores_done;
    uint64_t emptied_from; /* spares from this number on have no bytes any more; 0: none was touched */
    unsigned syncs;
    uint64_t sync_ns, sync_ns_max, write_ns;
    uint64_t free_bytes;
    char error[LOG_ERROR_MAX];
};

struct log_freed { /* a segment that is not needed any more, and still has its name */
    uint64_t number, bytes;
};

struct log {
    struct log_fs *fs; /* the job's */
    struct log_conf conf;
    struct log_host host;
    uint64_t term;
    uint64_t now_ms; /* of the last kick or done */

    struct log_group fill;
    bool begun; /* a record stands open at begun_at */
    size_t begun_at;

    struct log_job job;
    bool running;         /* the job is the executor's */
    bool stuck;           /* its group found no room, and is tried again */
    bool sent_is_written; /* its group is, whatever else it does */

    uint64_t next_index, written, synced;
    struct log_need need;
    uint64_t recorded_synced; /* what the last record says */
    bool last_is_mark;
    bool closed; /* LOG_CLOSED was appended: no marks, no chores */
    bool failed;
    uint64_t seen_index; /* next_index at the last kick */
    uint64_t active_ms;  /* when that last moved */
    uint64_t dirty_ms;   /* since when something is written and not synced, or LOG_NEVER */
    uint64_t try_ms;     /* when to look for room again, or LOG_NEVER */

    /* Segments in use, ascending; the last one is where the next record goes. */
    struct log_segment *segments;
    size_t segment_count, segment_cap;
    uint32_t seed; /* of the last */
    /* The numbers behind it, one after another: bytes that are allocated; 0: there is (or will be) a name. */
    uint64_t *spares;
    size_t spare_count, spare_cap;
    uint64_t named; /* spares up to this number have their names, durably */
    uint64_t reserve_bytes;
    uint64_t asked_bytes; /* for a record of so many bytes the first spare is to have room; 0: nobody asked */
    uint64_t free_bytes;  /* of the disk, as of free_ms */
    uint64_t free_ms;
    bool short_of_room; /* a spare could not be had */
    int wait_rv;        /* why, or why the group is stuck: TQ_ENOSPC or TQ_ELIMIT */
    struct log_freed *freed;
    size_t freed_count, freed_cap;

    uint64_t release_to;  /* as the owner asked */
    uint64_t start;       /* as the last LOG_START says */
    uint64_t start_index; /* that record, while it is not synced; 0: it is */
    bool pinned;          /* none is given back */

    uint64_t groups, records, bytes, syncs;
    uint64_t sync_ns_last, sync_ns_max, write_ns_max;
    char error[LOG_ERROR_MAX];
};

/* ---- segment.c: which there are, which come next; the loop's side ---- */

static inline struct log_segment *log_last_segment(const struct log *l)
{
    return &l->segments[l->segment_count - 1];
}

/* Room for one more in each list. TQ_ENOMEM. */
int log_segments_reserve(struct log *l);
int log_group_reserve(struct log_group *g);
/* The run of bytes of the group to which a record of so many bytes is to be added, in a new segment if it
 * does not fit. 0 and the piece; TQ_ENOMEM, and nothing has changed. */
int log_place(struct log *l, uint64_t record_bytes, struct log_piece **ret);
/* What there is to do beside writing. */
void log_plan_chores(struct log *l);
void log_spares_emptied(struct log *l, uint64_t from);
void log_chores_done(struct log *l);
/* A LOG_START is synced: what is below it is free. */
void log_segments_free(struct log *l);
bool log_wants_room(const struct log *l); /* fewer spares than there should be */
uint64_t log_record_max(const struct log *l);

/* ---- job.c: all that blocks ---- */

/* No room, or no descriptor: not now. */
static inline bool log_is_passing(int rv)
{
    return rv == TQ_ENOSPC || rv == TQ_ELIMIT;
}
/* A sync that did not do what it should has failed, whatever it is called. */
static inline int log_of_sync(int rv)
{
    return log_is_passing(rv) ? TQ_EIO : rv;
}

/* An empty file of this name, if it is not there. 0, TQ_ENOSPC, or final. The name is not synced. */
int log_spare_name_it(struct log_fs *fs, uint64_t number);
/* Writes the segment's header (and what stands behind it) into the open spare, syncs it, and gives it its
 * name, durably. */
int log_segment_name_it(struct log_fs *fs, int file, uint64_t number, struct tq_span head);

/* ---- log.c ---- */

int log_append(struct log *l, enum log_type type, struct tq_span payload, bool sync, uint64_t *ret_index);
/* The time after `ms` by `more`, without wrapping. */
static inline uint64_t log_after(uint64_t ms, uint64_t more)
{
    return ms > UINT64_MAX - more ? UINT64_MAX : ms + more;
}

#endif
