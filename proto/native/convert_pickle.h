/* Private to the conversion of bodies: pickles of others inside a pickle of ours. */
#ifndef TQ_PROTO_NATIVE_CONVERT_PICKLE_H
#define TQ_PROTO_NATIVE_CONVERT_PICKLE_H

#include "proto/python/emit.h"

/* What the pickle that is being written needs to know of itself. */
struct tq_embed {
    struct tq_emit *e;
    uint32_t memo_count; /* entries that were made, all of them explicit */
    uint8_t proto;       /* that it must begin with */
};

/* Writes the opcodes that leave the pickle's value on the stack. 0, TQ_EPROTO: tq_pickle_scan does not accept
 * it; TQ_ENOMEM. What the emission finds is left in e->err. */
int tq_embed_pickle(struct tq_embed *embed, struct tq_span pickle);

/* BINPUT and BINGET or their long forms. */
void tq_embed_put(struct tq_embed *embed, uint32_t index);
void tq_embed_get(struct tq_embed *embed, uint32_t index);

/* A run of bytes, as BINBYTES or its short form: of protocol 3. */
void tq_embed_bytes(struct tq_embed *embed, struct tq_span bytes);

#endif
