/* Private to convert_plain*.c: the tokens, each of them one value's last opcode or a part of it. */
#ifndef TQ_PROTO_NATIVE_CONVERT_PLAIN_TOKENS_H
#define TQ_PROTO_NATIVE_CONVERT_PLAIN_TOKENS_H

#include "proto/native/convert_plain.h"

/* Without the highest bit a token is the offset of a scalar's opcode. Else: */
enum token_type {
    TOKEN_LIST,  /* an empty list, to be filled; the argument counts what is in it at last */
    TOKEN_DICT,  /* the same, in pairs */
    TOKEN_INTO,  /* so many values before it go into the list or dict before them */
    TOKEN_MEMO,  /* behind LIST and DICT: their memo index */
    TOKEN_GET,   /* the value of that memo index */
    TOKEN_ARRAY, /* so many values before it are a tuple */
    TOKEN_MAP,   /* so many pairs are a dict */
    TOKEN_MISC,  /* enum token_misc */
    TOKEN_SCALAR,
};

enum token_misc {
    MISC_OTHER,    /* something that is not plain */
    MISC_ENCODE,   /* the function _codecs.encode */
    MISC_BYTES,    /* the class bytes */
    MISC_LATIN1,   /* bytes: the text is the third token before it, LATIN1_TOKENS belong to it */
    MISC_NO_BYTES, /* b'': NO_BYTES_TOKENS belong to it */
};

#define LATIN1_TOKENS   4 /* ENCODE, the text, 'latin1', their tuple */
#define NO_BYTES_TOKENS 2 /* BYTES, the empty tuple */

#define TOKEN_ARG_MAX    0x0fffffffu
#define INTO_DICT        0x08000000u /* in the argument of INTO */
#define INTO_MAX         0x07ffffffu
#define TOKEN(type, arg) (0x80000000u | (uint32_t)(type) << 28 | (arg))
#define TOKEN_MISC(what) TOKEN(TOKEN_MISC, what)

static inline bool token_is_scalar(uint32_t token)
{
    return token < 0x80000000u;
}

static inline uint32_t token_type(uint32_t token)
{
    return token_is_scalar(token) ? TOKEN_SCALAR : token >> 28 & 7;
}

static inline uint32_t token_arg(uint32_t token)
{
    return token & TOKEN_ARG_MAX;
}

/* The value of a scalar's token; it has been read before. */
void token_value(const struct tq_plain *p, uint32_t token, struct tq_pk_value *v);

/* Of an array or a map. */
static inline uint32_t head_size(uint32_t count)
{
    return count <= 15 ? 1 : count <= 0xffff ? 3 : 5;
}

static inline uint64_t bin_size(uint64_t len)
{
    return len + (len <= 0xff ? 2 : len <= 0xffff ? 3 : 5);
}

#endif
