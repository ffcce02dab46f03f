/* Private: Python's str values by code point, also the escaped texts of protocol 0, and their comparison. */
#ifndef TQ_PROTO_PYTHON_TEXT_H
#define TQ_PROTO_PYTHON_TEXT_H

#include "proto/python/pickle.h"

#define TQ_TEXT_END UINT32_MAX

/* Reads one code point after the other, surrogates included; an escape that Python refuses is read as the
 * characters it has. */
struct tq_text_reader {
    const uint8_t *pos;
    const uint8_t *end;
    uint8_t form; /* 'V' raw-unicode-escape, 'S' repr, else UTF-8 */
    bool literal; /* the next backslash is only that */
};

struct tq_text_reader tq_text_reader(const struct tq_pk_value *v); /* of a TQ_PK_STR */
uint32_t tq_text_next(struct tq_text_reader *r);                   /* TQ_TEXT_END at the end */

/* a and b are TQ_PK_STR. Negative, 0 or positive, as memcmp. */
int tq_text_compare(const struct tq_pk_value *a, const struct tq_pk_value *b);
/* As memcmp, the shorter first. */
int tq_span_compare(struct tq_span a, struct tq_span b);

#endif
