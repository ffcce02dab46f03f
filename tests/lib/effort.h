/* How long random histories are tried under which build. The thread sanitizer makes everything some 20 times
 * slower and finds only races: what has one thread (all but the log's I/O and the simulated ones) is played
 * there for a few seeds, so that it is built and run at all, and at full length in every other build. */
#ifndef TESTS_LIB_EFFORT_H
#define TESTS_LIB_EFFORT_H

#if defined(__SANITIZE_THREAD__)
#define EFFORT_OF_THREADS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define EFFORT_OF_THREADS 1
#endif
#endif

#ifdef EFFORT_OF_THREADS
#define EFFORT(full, with_threads) (with_threads)
#else
#define EFFORT(full, with_threads) (full)
#endif

#endif
