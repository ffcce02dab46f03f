/* SipHash-2-4: a hash under a secret key, for tables whose keys peers choose. */
#ifndef TQ_COMMON_SIPHASH_H
#define TQ_COMMON_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define TQ_SIPHASH_KEY_BYTES 16u

uint64_t tq_siphash(const uint8_t key[TQ_SIPHASH_KEY_BYTES], const void *data, size_t len);

#endif
