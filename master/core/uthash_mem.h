/* uthash over our allocation hook: a failed insertion leaves hh.tbl NULL. */
#ifndef MASTER_CORE_UTHASH_MEM_H
#define MASTER_CORE_UTHASH_MEM_H

#include "common/mem.h"

#define uthash_malloc(n)  tq_malloc(n)
#define uthash_free(p, n) tq_free(p)
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#endif
