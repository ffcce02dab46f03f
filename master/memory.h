/* How much memory this process may use: the machine's, or less where its control group says so. */
#ifndef MASTER_MEMORY_H
#define MASTER_MEMORY_H

#include <stdint.h>

uint64_t memory_available(void); /* bytes */

#endif
