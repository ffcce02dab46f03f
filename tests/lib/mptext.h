/* msgpack as text, for tests: [0,1,'put',{q:'work',tasks:[[nil],[b'\x01']]}]. Written are nil, true, false,
 * integers, floats (with a point), 'str', b'bin', x7'ext of type 7', arrays and maps; keys that are words
 * need no quotes; blanks do not count. Read back without blanks, and in this form alone. */
#ifndef TESTS_LIB_MPTEXT_H
#define TESTS_LIB_MPTEXT_H

#include "proto/native/mp.h"

/* Appends the value. False: that is no such text. */
bool mptext_encode(const char *text, struct tq_buf *out);
/* The value as text with a NUL, from malloc. It was walked. */
char *mptext_decode(struct tq_span value);
/* Does it match? `*` stands for anything. */
bool mptext_match(const char *pattern, const char *text);

#endif
