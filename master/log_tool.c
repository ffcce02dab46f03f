#include "master/log_tool.h"

#include <inttypes.h>

#include "common/err.h"
#include "master/disk/fs_posix.h"
#include "master/log/recover.h"

struct found {
    unsigned damaged, torn;
    bool repairs;
};

/* 0: it is not known. */
static void print_finding(void *ctx, const struct log_finding *f)
{
    struct found *found = ctx;

    if (f->torn)
        found->torn++;
    else
        found->damaged++;
    printf("file=%s offset=%" PRIu64 " bytes=%" PRIu64 " first_index=%" PRIu64 " last_index=%" PRIu64
           " kind=%s what=\"%s\"%s%s\n",
           f->file, f->offset, f->bytes, f->first_index, f->last_index, f->torn ? "torn" : "damage", f->what,
           f->side[0] != '\0' ? " side=" : "", f->side);
}

static int check(struct log_fs *fs, const char *dir, struct found *found, char err[LOG_ERROR_MAX])
{
    struct log_state state = {0};
    int rv = log_check(fs, print_finding, found, &state, err);

    if (rv >= 0)
        fprintf(
            stderr,
            "task-master: %s: %zu segments, %" PRIu64 " records, %" PRIu64 " bytes: %u damaged places%s\n",
            dir, state.segment_count, state.records, state.bytes, found->damaged,
            found->torn > 0 ? ", and a torn end that was never acknowledged: the next start cuts it" : "");
    if (rv >= 0 && found->damaged > 0)
        fprintf(stderr,
                "task-master: remedy: a backup; or --log-repair, which gives up all that stands behind "
                "the first of them\n");
    log_state_deinit(&state);
    return rv;
}

static int repair(struct log_fs *fs, const char *dir, struct found *found, char err[LOG_ERROR_MAX])
{
    int rv = log_repair(fs, print_finding, found, err);

    if (rv >= 0 && found->damaged > 0)
        fprintf(
            stderr,
            "task-master: %s: what is listed above is LOST to the master, and stands in *.cut files there; "
            "the log opens again\n",
            dir);
    else if (rv >= 0)
        fprintf(stderr, "task-master: %s: nothing is damaged, and nothing was changed\n", dir);
    return rv;
}

int log_tool_run(const struct config *config)
{
    const char *dir = config->log_check != NULL ? config->log_check : config->log_repair;
    struct found found = {.repairs = config->log_repair != NULL};
    char err[LOG_ERROR_MAX] = "";
    struct fs_posix fs;
    int rv;

    if (dir == NULL)
        return -1;
    rv = fs_posix_open(&fs, dir, false, true, err);
    if (rv == TQ_OK) {
        rv = found.repairs ? repair(&fs.fs, dir, &found, err) : check(&fs.fs, dir, &found, err);
        fs_posix_close(&fs);
    }
    if (rv < 0) {
        fprintf(stderr, "task-master: %s\n", err);
        return 1;
    }
    return found.damaged > 0 && !found.repairs ? 1 : 0;
}
