/* What the store's files share. */
#ifndef MASTER_STORE_STORE_IMPL_H
#define MASTER_STORE_STORE_IMPL_H

#include "common/err.h"
#include "master/core/restore.h"
#include "master/store/store.h"

/* Emptying: live things in the oldest segments are noted, so that the next records have them again, and the
 * segments are released. In passes, each over a few segments; as many passes as it takes to be below the
 * limit. */
struct store_space {
    bool moving;       /* a pass is on its way: */
    uint64_t pass_to;  /* segments up to this one */
    uint64_t at;       /* broker_journal_move's */
    uint64_t noted;    /* bytes, so far */
    uint64_t may_note; /* at most so many, for lack of room */
    /* What stands in segments up to this one was there when `is_fresh` was taken down. Once they are empty
     * and nothing new has come, the log is as compact as it gets: if that is too long nevertheless, more than
     * `factor_percent` has to be allowed, as long as about so much lives. */
    uint64_t compact_to;
    bool is_fresh;
    uint64_t factor_percent, factor_live;
    bool is_idle; /* nothing has changed for a while, since */
    uint64_t active_ms;
    uint64_t released; /* log_release was told */
    uint64_t moved_bytes;
};

struct store {
    struct log_fs *fs;
    struct store_conf conf;
    struct store_host host;
    struct broker *broker; /* from store_recover on */
    struct native *native;
    struct broker_restore *restore; /* between store_recover and store_start */
    struct log_state state;         /* the same */
    bool has_state;
    uint64_t orphans;
    struct log *log; /* from store_start on */
    /* A turn that could not be recorded for lack of memory: its replies wait for the next one that could. */
    bool owes;
    uint64_t try_ms;             /* then: when it is tried again at the latest */
    uint64_t debt;               /* number of the last such time */
    struct log_need debt_repaid; /* what those before wait for */
    /* Ids below ids_safe are not given again after a crash; nor those below ids_told once this record is
     * synced (0: there is none). */
    uint64_t ids_safe, ids_told, ids_index;
    uint64_t home; /* of what was recorded last */
    struct store_space space;
    bool has_moved;   /* the log has told of progress since the last turn */
    uint64_t room[2]; /* as it was told: for new work, for completions */
    bool refuse;
    uint64_t look_ms;       /* as long as `refuse`: how much room the disk has is asked again by then */
    uint64_t reserve_bytes; /* what completions may need */
    uint64_t free_bytes;    /* of the disk, */
    uint64_t free_since;    /* when the log's files had so much */
    bool is_near_full;
    bool holds;          /* no input is taken until there is room that is being made */
    uint64_t held_bytes; /* so much of it the log holds ready in spare segments */
    bool closing;
    uint64_t closed_index;
    bool failed;
    char error[LOG_ERROR_MAX];
};

/* store.c */
int store_fail(struct store *st, const char *text);
/* space.c */
bool store_space_has_work(const struct store *st);
/* Before a turn's changes are collected: new work is refused or not, and live things are noted. */
void store_space_before(struct store *st, bool has_news, uint64_t now_ms);
/* After: what is empty is released, and the log is told how much room must be kept. */
void store_space_after(struct store *st);

#endif
