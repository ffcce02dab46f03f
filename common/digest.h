/* HMAC over OpenSSL, random bytes, and comparison in constant time. MD5 is needed for Python up to
 * 3.11; it comes from a library context of our own with the default provider, so that a system-wide
 * FIPS setting does not take it away. OpenSSL 3, or 1.1.1. One loop thread. */
#ifndef TQ_COMMON_DIGEST_H
#define TQ_COMMON_DIGEST_H

#include "common/bytes.h"

enum tq_digest { TQ_MD5, TQ_SHA256, TQ_SHA384, TQ_SHA3_256, TQ_SHA3_384, TQ_DIGEST_COUNT };

#define TQ_DIGEST_MAX_BYTES 48

/* "md5", "sha256", "sha384", "sha3_256", "sha3_384": the names that Python puts between braces. */
const char *tq_digest_name(enum tq_digest d);
size_t tq_digest_bytes(enum tq_digest d);
/* 0 and *ret_d, or TQ_ENOTFOUND. */
int tq_digest_by_name(struct tq_span name, enum tq_digest *ret_d);

/* out takes tq_digest_bytes(d). An empty key is legal. TQ_ECRYPTO. The library's contexts are made at
 * the first use of each digest and kept. */
int tq_hmac(enum tq_digest d, struct tq_span key, struct tq_span message, uint8_t *out);
/* For tests: HMACs computed so far. */
unsigned long tq_hmac_count(void);
/* Fills with bytes from the kernel (getrandom). TQ_ECRYPTO. */
int tq_random_bytes(void *out, size_t n);
/* Time depends on n only. */
bool tq_equal_constant_time(const void *a, const void *b, size_t n);
/* Frees what is kept here, for leak checkers, at exit. tq_hmac works again afterwards. */
void tq_digest_cleanup(void);

#endif
