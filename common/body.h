/* A task's body: immutable bytes behind a reference count, shared by the broker, the sockets and
 * (later) the log. One loop thread owns all counts. For a Python item the bytes are the whole reply
 * frame that hands it out (4-byte length, pickle), so that a hand-out copies nothing; the item's own
 * opcodes stand at [item_off, item_off + item_len). */
#ifndef TQ_COMMON_BODY_H
#define TQ_COMMON_BODY_H

#include "common/bytes.h"

enum tq_body_flavor {
    TQ_BODY_PYTHON_REPLY = 1, /* see above */
};

struct tq_body {
    uint32_t refs;
    uint32_t len; /* bytes in data */
    uint32_t item_off;
    uint32_t item_len;
    uint8_t flavor; /* enum tq_body_flavor */
    uint8_t data[];
};

/* Larger ones stand in a pool (pool.h), whose memory goes back to the system bit by bit when they go; smaller
 * ones are soon gone: what is kept of them for long is a copy. With the address sanitizer all are malloc's,
 * so that it sees each byte too far, and those that nobody releases. */
#define TQ_BODY_SMALL_MAX 440u

/* len bytes of data, uninitialised, one reference; NULL when out of memory. */
struct tq_body *tq_body_new(uint32_t len);
struct tq_body *tq_body_ref(struct tq_body *b);
void tq_body_unref(struct tq_body *b); /* NULL is fine */

#endif
