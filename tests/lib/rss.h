/* This process's memory as the system sees it. */
#ifndef TESTS_LIB_RSS_H
#define TESTS_LIB_RSS_H

#include <stdbool.h>
#include <stdint.h>

/* A sanitizer's shadow memory and delayed frees are in it, too: then it says nothing about ours. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RSS_IS_OURS false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RSS_IS_OURS false
#endif
#endif
#ifndef RSS_IS_OURS
#define RSS_IS_OURS true
#endif

/* From /proc/self/statm: what is resident and nobody else's, and all that is mapped. */
void rss_read(int64_t *ret_resident_bytes, int64_t *ret_mapped_bytes);

#endif
