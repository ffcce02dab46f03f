/* backup: the master copies its log while it runs. */
#include <limits.h>
#include <unistd.h>

#include "client/ctl/show.h"
#include "common/err.h"

static void show(const struct ctl *c, const json_t *v)
{
    char bytes[32];

    if (c->json) {
        show_json(v);
        return;
    }
    printf("%s: %lld files, %s, all up to record %lld\n", c->words[0],
           (long long)json_integer_value(json_object_get(v, "files")),
           show_bytes(bytes, (uint64_t)json_integer_value(json_object_get(v, "bytes"))),
           (long long)json_integer_value(json_object_get(v, "index")));
}

int ctl_run_backup(struct ctl *c)
{
    static struct link l;
    struct tq_native_request r;
    struct tq_span body = {0};
    json_t *v = NULL;
    int rv, status;

    if (c->words[0][0] != '/') {
        (void)ctl_fail(c, "usage",
                       "DIR is a path on the master's machine, and must be absolute: begin it with /");
        return CTL_EXIT_USAGE;
    }
    status = ctl_connect(c, &l);
    if (status != 0)
        return status;
    if (!c->json && isatty(STDERR_FILENO))
        fprintf(stderr, "task-ctl: %s copies its log; this takes as long as its disk needs for it\n", l.name);
    link_begin(&l, &r, "backup", 1);
    tq_mp_put_cstr(&r.o, "dir");
    tq_mp_put_cstr(&r.o, c->words[0]);
    rv = link_call(&l, &r, &body);
    if (rv == TQ_OK)
        v = show_value(body);
    link_close(&l);
    if (rv != TQ_OK)
        return ctl_fail_link(c, &l);
    if (v == NULL)
        return ctl_fail(c, "memory", "out of memory");
    show(c, v);
    json_decref(v);
    return 0;
}
