/* The example's master, in-process: puts N random numbers into task_queue, prints N results from
 * result_queue, and stops the daemon. It is a client of the broker like any peer. */
#ifndef MASTER_DEMO_H
#define MASTER_DEMO_H

#include "master/server.h"

/* Starts it. TQ_ENOMEM, TQ_ECRYPTO. */
int demo_start(struct server *s, uint64_t count);
/* Ends its broker sessions and frees it; fine when there is none. */
void demo_stop(struct server *s);

#endif
