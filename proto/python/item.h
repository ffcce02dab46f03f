/* Items: what Python put into a queue, kept opaque and handed back byte-faithfully, and compared as
 * Python would compare it.
 *
 * Re-emission: an item may refer to memo entries that the envelope of its request made, so the reply
 * first replays the request's opcodes before the item, drops what they left on the stack, and then gives
 * '#RETURN', the item's own opcodes, TUPLE2, STOP. An item without references into the envelope needs no
 * replay: at most as many empty memo entries as the envelope had made (NONE MEMOIZE... POP), so that the
 * implicit numbers of its own stay right. */
#ifndef TQ_PROTO_PYTHON_ITEM_H
#define TQ_PROTO_PYTHON_ITEM_H

#include "common/body.h"
#include "proto/python/pickle.h"

/* `item` is a range of the request: a child, however deep, or an element of top[].
 * The whole reply frame ('#RETURN', item), 4-byte length included, as a body with one reference; item_off
 * and item_len mark the item's opcodes (FRAME opcodes removed). Protocol of the reply: the source's, but 5
 * becomes 4 when no protocol-5 opcode is kept (BYTEARRAY8 is rewritten as a call of builtins.bytearray, so
 * that 3.6 and 3.7 can load it too); never lowered below 4; 2 and 3 are kept, and below 2 it is 2, which
 * readers treat alike.
 * TQ_EPROTO when opcodes behind the item write into it or into a part of the envelope that it refers to (only
 * hand-made pickles can), TQ_ELIMIT when the reply would pass 2^31 - 1 bytes, TQ_ENOMEM. */
int tq_item_from_request(const struct tq_pickle *request, struct tq_pk_range item, struct tq_body **ret_body);

#define TQ_ITEM_TEXT_MAX 200

/* `a < b` as Python decides it for None, bool, int, float, str, bytes, tuple, list (dict, set only where
 * equality decides), exactly: 2^53 + 1 against 2.0^53, 10^400 against inf, str by code point. 0 and
 * *ret_less; 1: TypeError, `text` holds Python's words ("'<' not supported between instances of 'A' and
 * 'B'"); TQ_ENOMEM. Items that need Python (custom classes) are not comparable: 1. Nesting deeper than 200
 * is 1 with text "maximum recursion depth exceeded in comparison". */
int tq_item_less(const struct tq_body *a, const struct tq_body *b, bool *ret_less,
                 char text[TQ_ITEM_TEXT_MAX]);

/* The same of items that stand somewhere else than in a body: the whole reply frame, and where in it. */
struct tq_item_frame {
    struct tq_span frame;
    uint32_t item_off;
    uint32_t item_len;
};
int tq_item_frame_less(const struct tq_item_frame *a, const struct tq_item_frame *b, bool *ret_less,
                       char text[TQ_ITEM_TEXT_MAX]);

#endif
