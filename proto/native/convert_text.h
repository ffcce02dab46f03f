/* Private to the conversion of bodies: Python's str as UTF-8 or Latin-1, whatever opcode brought it. */
#ifndef TQ_PROTO_NATIVE_CONVERT_TEXT_H
#define TQ_PROTO_NATIVE_CONVERT_TEXT_H

#include "proto/python/pickle.h"

/* Without surrogates and overlong forms: what every language takes for UTF-8. */
bool tq_utf8_valid(struct tq_span s);

/* v is a TQ_PK_STR. True, and how many bytes of UTF-8 it has; false: it has no UTF-8 (lone surrogates), or
 * Python cannot load it. */
bool tq_text_utf8_len(const struct tq_pk_value *v, uint64_t *ret_len);
/* What Python's encode('latin1') gives of it; false: it raises. */
bool tq_text_latin1_len(const struct tq_pk_value *v, uint64_t *ret_len);

/* Writes as many bytes as the function above said, which was true. */
void tq_text_put_utf8(const struct tq_pk_value *v, uint8_t *out);
void tq_text_put_latin1(const struct tq_pk_value *v, uint8_t *out);

#endif
