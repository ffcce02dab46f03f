/* msgpack on the wire: a bounded walk that every frame passes before anything is read out of it, a cursor
 * that reads a walked value without allocating, and a writer. Pure.
 *
 * Cursor and writer are inline for what most values are (mp_inline.h); everything else is a call. A value
 * costs 1 to 3 ns, so that reading a message is no reason to avoid one.
 *
 * Source of the format: the msgpack specification (github.com/msgpack/msgpack/blob/master/spec.md). The walk
 * refuses what a header merely *declares*: a count or a length that the bytes left cannot hold. Encodings
 * that are longer than they need be are read; the writer makes none. */
#ifndef TQ_PROTO_NATIVE_MP_H
#define TQ_PROTO_NATIVE_MP_H

#include "common/buf.h"

#define TQ_MP_DEPTH_MAX 32 /* containers inside each other; a scalar has depth 0 */

enum tq_mp_type {
    TQ_MP_NIL,
    TQ_MP_BOOL,
    TQ_MP_UINT, /* fits uint64_t; every non-negative integer, whatever its encoding */
    TQ_MP_INT,  /* negative */
    TQ_MP_FLOAT,
    TQ_MP_STR, /* UTF-8 is not checked */
    TQ_MP_BIN,
    TQ_MP_ARRAY,
    TQ_MP_MAP,
    TQ_MP_EXT,
    TQ_MP_END, /* nothing left (or 0xc1, which no walked value has) */
};

/* The value at the start of `in`, whole: *ret_len is its length; bytes may follow. No recursion, no
 * allocation, at most one look at each header; cost is linear in the bytes walked.
 * A container is refused at its header if all the values that it and those around it still owe cannot be in
 * the bytes left, so that a cut value may be refused for its count, too. NaN, duplicate keys, keys of any
 * type and bad UTF-8 pass: who reads the field decides.
 * 0; TQ_EPROTO: truncated, a count beyond the bytes left, 0xc1, or deeper than TQ_MP_DEPTH_MAX; *ret_why says
 * it in a few static words, and *ret_len is untouched. */
int tq_mp_walk(struct tq_span in, size_t *ret_len, const char **ret_why);
/* The same, and nothing may follow. The empty input is truncated. */
int tq_mp_walk_all(struct tq_span in, const char **ret_why);

/* Reads values one after the other out of what was walked. Never reads beyond `end`, whatever it is given.
 * Each reader: true and advanced, or false, not moved and nothing returned (another type, out of range, or at
 * the end). */
struct tq_mp {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct tq_mp tq_mp_of(struct tq_span walked);
static inline enum tq_mp_type tq_mp_peek(const struct tq_mp *c);
static inline bool tq_mp_nil(struct tq_mp *c);
static inline bool tq_mp_bool(struct tq_mp *c, bool *ret);
static inline bool tq_mp_u64(struct tq_mp *c, uint64_t *ret);
static inline bool tq_mp_u32(struct tq_mp *c, uint32_t *ret);
static inline bool tq_mp_i64(struct tq_mp *c, int64_t *ret);  /* any integer that fits */
static inline bool tq_mp_float(struct tq_mp *c, double *ret); /* float 32 and 64 only */
static inline bool tq_mp_str(struct tq_mp *c, struct tq_span *ret);
static inline bool tq_mp_bin(struct tq_mp *c, struct tq_span *ret);
/* How many values follow, never more than there are bytes left for. The values are read next. */
static inline bool tq_mp_array(struct tq_mp *c, uint32_t *ret_count);
static inline bool tq_mp_map(struct tq_mp *c, uint32_t *ret_pairs);
static inline bool tq_mp_ext(struct tq_mp *c, int8_t *ret_type, struct tq_span *ret);
/* The next value whatever it is, as its bytes. It is walked again: once for each level that is opened. */
static inline bool tq_mp_raw(struct tq_mp *c, struct tq_span *ret);
static inline bool tq_mp_skip(struct tq_mp *c);

/* Writes the shortest encoding of each value, whole or not at all. The first failure (TQ_ENOMEM, TQ_ELIMIT)
 * sticks in `err`; what is written after it does nothing. That the counts of array and map are kept is the
 * caller's business. */
struct tq_mp_out {
    struct tq_buf *buf;
    int err;
};

static inline struct tq_mp_out tq_mp_out(struct tq_buf *buf);
static inline void tq_mp_put_nil(struct tq_mp_out *o);
static inline void tq_mp_put_bool(struct tq_mp_out *o, bool v);
static inline void tq_mp_put_u64(struct tq_mp_out *o, uint64_t v);
static inline void tq_mp_put_i64(struct tq_mp_out *o, int64_t v);
void tq_mp_put_float(struct tq_mp_out *o, double v); /* float 64 */
static inline void tq_mp_put_str(struct tq_mp_out *o, struct tq_span utf8);
static inline void tq_mp_put_cstr(struct tq_mp_out *o, const char *utf8);
static inline void tq_mp_put_bin(struct tq_mp_out *o, struct tq_span bytes);
static inline void tq_mp_put_array(struct tq_mp_out *o, uint32_t count);
static inline void tq_mp_put_map(struct tq_mp_out *o, uint32_t pairs);
void tq_mp_put_ext(struct tq_mp_out *o, int8_t type, struct tq_span bytes);
/* Encoded values as they are. */
void tq_mp_put_raw(struct tq_mp_out *o, struct tq_span encoded);

/* The wire's frame: begin leaves room for the 4-byte length, end fills it in. *ret_start is for
 * tq_mp_frame_end, which cuts the buffer back to it on a sticky error and returns that error. A frame is at
 * most 2^31 - 1 bytes (TQ_ELIMIT). */
void tq_mp_frame_begin(struct tq_mp_out *o, size_t *ret_start);
int tq_mp_frame_end(struct tq_mp_out *o, size_t start);

#include "proto/native/mp_inline.h"

#endif
