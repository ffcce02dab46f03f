/* Private: comparison of Python's str values by code point, also of the escaped texts of protocol 0. */
#ifndef TQ_PROTO_PYTHON_TEXT_H
#define TQ_PROTO_PYTHON_TEXT_H

#include "proto/python/pickle.h"

/* a and b are TQ_PK_STR. Negative, 0 or positive, as memcmp. */
int tq_text_compare(const struct tq_pk_value *a, const struct tq_pk_value *b);
/* As memcmp, the shorter first. */
int tq_span_compare(struct tq_span a, struct tq_span b);

#endif
