/* uthash over our allocation hook. A failed insertion does not end the process: it leaves hh.tbl NULL, which
 * whoever adds must check. */
#ifndef TQ_COMMON_HASH_H
#define TQ_COMMON_HASH_H

#include "common/mem.h"

#define uthash_malloc(n)  tq_malloc(n)
#define uthash_free(p, n) tq_free(p)
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#endif
