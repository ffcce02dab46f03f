/* Bodies across the dialects: a Python item as msgpack for native peers, a msgpack value as the reply frame
 * that hands it to Python. Pure.
 *
 *   Python                 msgpack                    back in Python
 *   None, bool             nil, bool                  the same
 *   int, 64 bits           int                        int
 *   int, larger            ext TQ_EXT_PICKLE          the same int
 *   float                  float 64                   float
 *   str                    str (valid UTF-8)          str; with lone surrogates: ext TQ_EXT_PICKLE
 *   bytes                  bin                        bytes
 *   list, tuple            array                      list
 *   dict                   map                        dict; keys that are tuples become tuples again
 *   bytearray, set, classes, cycles, anything else    ext TQ_EXT_PICKLE, byte-faithfully
 *
 * Below protocol 3, where bytes are a call of _codecs.encode, that call is known, never made.
 *
 * An item is converted as a whole or, if any part of it has no msgpack form (or it nests deeper than
 * TQ_MP_DEPTH_MAX, or shares parts so that its expansion would pass max_bytes, or 1 MiB and 16 times the
 * frame's length, lest a small item costs its readers much), is one ext as a whole: the payload
 * is a complete pickle of the item alone, which pickle.loads() of every Python that could load the original
 * loads. The way back of such an ext is byte-faithful; in other places of a value it is loaded where
 * it stands, as part of the value.
 *
 *   msgpack                Python
 *   ext -1 (timestamp)     datetime.datetime, aware, UTC (microseconds, cut); outside of the years 1 to 9999,
 *                          or malformed: the tuple (-1, bytes)
 *   ext TQ_EXT_PICKLE      the object itself, at the top or anywhere inside (there, a pickle of protocols 0
 *                          to 2 that names globals goes as a call of pickle.loads)
 *   ext, other types       the tuple (type, bytes)
 *   str, not UTF-8         bytes
 *   map                    dict; keys that Python cannot hash (map, array) become tuples, of pairs or
 * elements
 */
#ifndef TQ_PROTO_NATIVE_CONVERT_H
#define TQ_PROTO_NATIVE_CONVERT_H

#include "common/body.h"
#include "common/buf.h"

#define TQ_EXT_PICKLE 80 /* 'P' */

/* `frame`: a whole reply frame ('#RETURN', item) as tq_item_from_request makes it, and where its item stands.
 * Appends exactly one msgpack value to `out`, at most max_bytes of it. 0, TQ_ELIMIT (over max_bytes, or out's
 * ceiling), TQ_ENOMEM; out is cut back then. Time and memory are linear in frame and result. */
int tq_convert_to_msgpack(struct tq_span frame, uint32_t item_off, uint32_t item_len, size_t max_bytes,
                          struct tq_buf *out);

/* `value`: one walked msgpack value. Appends the whole reply frame, 4-byte length included, that a Python
 * peer reads as ('#RETURN', value): protocol 3, 4 where an embedded pickle needs it; for one alone, as that
 * of tq_item_from_request. Where the item's own opcodes stand is told as for tq_item_from_request, relative
 * to where the frame begins in `out`, so that the frame can be kept as a Python item. 0, TQ_ELIMIT,
 * TQ_ENOMEM, TQ_EPROTO: an embedded TQ_EXT_PICKLE is no pickle that tq_pickle_scan accepts (then nothing of
 * it can be given to Python); out is cut back then. */
int tq_convert_to_python(struct tq_span value, struct tq_buf *out, uint32_t *ret_item_off,
                         uint32_t *ret_item_len);

#endif
