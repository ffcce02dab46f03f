/* Reads the keys: those of --keys-file, and the one of --authkey-file, --authkey or TASKQ_AUTHKEY, which is
 * named "authkey" and has the role admin. Without any: the empty key, admin. Warns of files that others can
 * read. */
#ifndef MASTER_ACCESS_KEYFILE_H
#define MASTER_ACCESS_KEYFILE_H

#include "master/config.h"
#include "master/access/keys.h"

/* Fills *k, which is empty, and seals it. `again`: while the master runs; the authkey's file is read anew,
 * and nothing is read that could keep it waiting. TQ_EINVAL, TQ_EIO, TQ_ENOMEM with FILE:LINE, cause and
 * remedy in err; *k is to be deinited in every case. */
int keyfile_load(struct keys *k, const struct config *c, bool again, char err[TQ_OPT_ERROR_MAX]);

#endif
