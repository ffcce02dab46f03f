/* What the fuzzers of the connection share: cutting a stream into pieces, and a peer that knows the key.
 * A MAC cannot be guessed, so that no input would come past the handshake: on request the MAC of an answer
 * that has a good form is made right. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdlib.h>

#include "common/assert.h"
#include "common/digest.h"
#include "common/err.h"

/* Pieces are copies of their own, so that a read behind one is noticed, and so is a span that outlives it. */
struct cutter {
    struct tq_span rest;
    uint32_t state; /* 0: one piece */
    uint8_t *piece;
};

static inline void cutter_init(struct cutter *c, uint8_t seed, struct tq_span stream)
{
    *c = (struct cutter){.rest = stream, .state = seed};
}

/* False, and nothing held, at the end. */
static inline bool cutter_next(struct cutter *c, struct tq_span *ret_piece)
{
    size_t n = c->rest.len;

    free(c->piece);
    c->piece = NULL;
    if (n == 0)
        return false;
    if (c->state != 0) {
        size_t most;

        c->state = c->state * 1664525u + 1013904223u;
        most = (size_t)1 << (c->state >> 29); /* 1 to 128 */
        c->state = c->state * 1664525u + 1013904223u;
        if (n > 1 + (c->state >> 16) % most)
            n = 1 + (c->state >> 16) % most;
        c->state |= 1;
    }
    c->piece = malloc(n);
    TQ_ASSERT(c->piece != NULL);
    memcpy(c->piece, c->rest.data, n);
    c->rest = tq_span(c->rest.data + n, c->rest.len - n);
    *ret_piece = tq_span(c->piece, n);
    return true;
}

/* Where the loop was left before the end. */
static inline void cutter_deinit(struct cutter *c)
{
    free(c->piece);
    c->piece = NULL;
}

/* False when the answer has no form that could be right. */
static inline bool repair_answer(uint8_t *answer, size_t len, struct tq_span challenge, struct tq_span key)
{
    uint8_t *mac = answer;
    enum tq_digest d = TQ_MD5;

    if (len == 32) {
        d = TQ_SHA256;
    } else if (len != 16) {
        uint8_t *brace = memchr(answer, '}', len);

        if (brace == NULL || answer[0] != '{' ||
            tq_digest_by_name(tq_span(answer + 1, (size_t)(brace - answer) - 1), &d) != TQ_OK)
            return false;
        mac = brace + 1;
        if (len - (size_t)(mac - answer) != tq_digest_bytes(d))
            return false;
    }
    TQ_ASSERT(tq_hmac(d, key, challenge, mac) == TQ_OK);
    return true;
}

#endif
