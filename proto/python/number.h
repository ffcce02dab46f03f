/* Private: exact comparison of Python's numbers, whatever their types. */
#ifndef TQ_PROTO_PYTHON_NUMBER_H
#define TQ_PROTO_PYTHON_NUMBER_H

#include "proto/python/pickle.h"

enum tq_order { TQ_LESS = -1, TQ_EQUAL = 0, TQ_GREATER = 1, TQ_UNORDERED = 2 };

/* BOOL, INT, BIGINT or FLOAT? */
bool tq_number_is(const struct tq_pk_value *v);

/* 0 and *ret_order (UNORDERED when a NaN is in it); TQ_ELIMIT: decimal text of more digits than Python
 * itself takes (4300). */
int tq_number_compare(const struct tq_pk_value *a, const struct tq_pk_value *b, enum tq_order *ret_order);

#endif
