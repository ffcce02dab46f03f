#include "master/log_tool.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

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

    if (rv >= 0 && state.segment_count == 0 && found->damaged == 0) {
        snprintf(err, LOG_ERROR_MAX, "%.300s: there is no log in it; give the folder that --data-dir names",
                 dir);
        rv = TQ_ENOTFOUND;
    }
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

/* Root looks after other users' directories (a service's own user is not even there when it is stopped): as
 * their owner, so that what repair makes is the owner's, and nothing in there can lead root astray. The
 * directory is entered before, as the owner may not be able to reach it. */
static int become_owner(const char *dir, const char **ret_dir, char err[LOG_ERROR_MAX])
{
    struct stat st;

    *ret_dir = dir;
    if (geteuid() != 0 || lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid == 0)
        return TQ_OK; /* what is wrong with it is told when it is opened */
    if (chdir(dir) != 0 || stat(".", &st) != 0 || setgid(st.st_gid) != 0 || setuid(st.st_uid) != 0) {
        snprintf(err, LOG_ERROR_MAX, "%.300s: cannot become its owner, user %lu; run it as that user", dir,
                 (unsigned long)st.st_uid);
        return TQ_EIO;
    }
    *ret_dir = ".";
    return TQ_OK;
}

int log_tool_run(const struct config *config)
{
    const char *dir = config->log_check != NULL ? config->log_check : config->log_repair, *path;
    struct found found = {.repairs = config->log_repair != NULL};
    char err[LOG_ERROR_MAX] = "";
    struct fs_posix fs;
    int rv;

    if (dir == NULL)
        return -1;
    rv = become_owner(dir, &path, err);
    if (rv == TQ_OK)
        rv = fs_posix_open(&fs, path, false, true, err);
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
