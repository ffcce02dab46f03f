/* Private to the conversion of bodies: plain data (None, bool, int of 64 bits, float, str, bytes, list,
 * tuple, dict) out of a pickle's opcodes, as msgpack.
 *
 * Reading runs the opcodes once, on a stack of sizes, and notes those that make values as tokens of 4 bytes.
 * That is the order in which a value's parts come first and the value last; msgpack has it the other way
 * round. So the writing goes backwards, from the last token to the first and from the end of the output to
 * its beginning: a container's count is known when its header's turn comes. A reference to a shared part is a
 * jump to that part's last token. The size of everything, shared parts as often as they are referred to, is
 * known after the reading; what is too large is never written.
 *
 * Memory: some 20 bytes per byte of the opcodes at most (of what no pickler makes; of what they do, 2 to 5).
 */
#ifndef TQ_PROTO_NATIVE_CONVERT_PLAIN_H
#define TQ_PROTO_NATIVE_CONVERT_PLAIN_H

#include "proto/python/pickle.h"

#define TQ_PLAIN_SMALL 64 /* tokens, values on the stack, and memo entries that need no allocation */

/* A value, or a mark, on the stack. Private. */
struct tq_plain_slot {
    uint32_t token;  /* its first one */
    uint32_t before; /* the size of all that comes before it */
};

/* Private. */
struct tq_plain_memo {
    uint32_t last; /* the value's last token + 1; 0: no such entry */
    uint32_t size;
};

struct tq_plain {
    /* Private all. */
    struct tq_span input;
    uint32_t *tokens;
    uint32_t token_count;
    uint32_t token_cap;
    struct tq_plain_slot *slots;
    uint32_t height;
    uint32_t slot_cap;
    struct tq_plain_memo *memo;
    uint32_t memo_count; /* entries in use */
    uint32_t memo_cap;   /* entries that exist */
    uint64_t total;      /* size of all values so far */
    uint64_t max;        /* of that */
    uint32_t item_at;    /* before it stands the part that only leaves memo entries */
    uint32_t item_size;
    uint32_t small_tokens[TQ_PLAIN_SMALL];
    struct tq_plain_slot small_slots[TQ_PLAIN_SMALL];
    struct tq_plain_memo small_memo[TQ_PLAIN_SMALL];
};

#define TQ_PLAIN_NOT 1

/* Reads the opcodes [start, prefix_end), which leave nothing on the stack, and [item.start, item.end), which
 * leave the item; any bytes may stand there.
 * 0: the item seems plain; tq_plain_size() is what its msgpack takes, at most max_bytes (up to INT32_MAX).
 * TQ_PLAIN_NOT: it is not, or it is larger than that. TQ_ENOMEM. Must be deinitialised in each case. */
int tq_plain_read(struct tq_plain *p, struct tq_span input, uint32_t start, uint32_t prefix_end,
                  struct tq_pk_range item, uint32_t max_bytes);
uint32_t tq_plain_size(const struct tq_plain *p);
/* Writes exactly tq_plain_size() bytes, or TQ_PLAIN_NOT: too deep, or a part that is not plain was only
 * referred to; what was written then is meaningless. */
int tq_plain_write(const struct tq_plain *p, uint8_t *out);
void tq_plain_deinit(struct tq_plain *p);

/* A scalar alone. False: it has no msgpack form. */
bool tq_plain_scalar_size(const struct tq_pk_value *v, uint64_t *ret_size);
/* Writes exactly that many bytes. */
void tq_plain_scalar_write(const struct tq_pk_value *v, uint8_t *out, size_t size);

#endif
