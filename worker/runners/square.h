/* n * n, in the words of the example: what Python's '%d * %d = %d' % (n, n, n * n) gives. Pure. */
#ifndef WORKER_RUNNERS_SQUARE_H
#define WORKER_RUNNERS_SQUARE_H

#include "common/buf.h"

/* Larger ints are refused: decimal text costs the square of the length, and this is the loop's thread.
 * Python itself refuses to print more than 4,300 digits from 3.11 on. */
#define SQUARE_INT_MAX_BYTES  16384
#define SQUARE_INT_MAX_DIGITS 39457 /* of so many bytes */

/* body: one walked msgpack value. 0: `shown` is n as %d prints it, `result` the line of the example, as text.
 * 1: cannot be squared; `result` says why ("error: cannot square 'abc' (str)"), `shown` is empty. Both are
 * cleared first and get no NUL. TQ_ENOMEM, TQ_ELIMIT (of the buffers). */
int square_task(struct tq_span body, struct tq_buf *shown, struct tq_buf *result);

#endif
