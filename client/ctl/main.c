/* task-ctl: asks and administers a task-master from a shell. Exit status 0 good, 1 failed, 2 usage. */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>

#include "client/ctl/ctl.h"
#include "common/digest.h"
#include "common/mem.h"

int main(int argc, char **argv)
{
    struct ctl c = {.host = "127.0.0.1", .port = 5000, .timeout_ms = 10000};
    int status;

    (void)signal(SIGPIPE, SIG_IGN); /* writes tell it */
    json_set_alloc_funcs(tq_malloc, tq_free);
    status = ctl_parse(&c, argc, argv);
    status = status != 0 ? status - 1 : c.command->run(&c);
    if (status == 0)
        status = ctl_flush(&c);
    tq_free(c.lists);
    tq_digest_cleanup();
    return status;
}
