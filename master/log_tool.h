/* task-master --log-check DIR and --log-repair DIR: on a data directory whose master is stopped. */
#ifndef MASTER_LOG_TOOL_H
#define MASTER_LOG_TOOL_H

#include "master/config.h"

/* Does what the command line asks for, if it asks for one of the two. Findings go to stdout, one a line, what
 * was done and errors to stderr. -1: it asks for neither; else the exit status: 0 nothing is damaged (any
 * more), 1 something is, or it could not be done. */
int log_tool_run(const struct config *config);

#endif
