/* The framing of Python's multiprocessing.connection, incremental, with a cap per phase.
 *
 *   4 bytes big-endian signed length n, then n bytes;
 *   n = -1: 8 bytes big-endian unsigned length follow (the long form, legal for any length);
 *   any other negative n breaks the protocol.
 *
 * Pure: no socket. A header is checked against the cap before anything is allocated. */
#ifndef TQ_PROTO_FRAME_H
#define TQ_PROTO_FRAME_H

#include "common/buf.h"

#define TQ_FRAME_HEADER_BYTES 4

enum tq_frame_result {
    TQ_FRAME_OK = 0,   /* *ret_payload is a whole frame */
    TQ_FRAME_MORE = 1, /* all input is consumed, the frame is not whole */
};

struct tq_frame_reader {
    size_t max_bytes;     /* cap of the next frame's payload */
    uint8_t header[12];   /* header bytes seen so far */
    uint8_t header_len;   /* 0 between frames */
    bool have_length : 1; /* header complete: length is valid */
    bool delivered : 1;   /* acc holds a frame already handed out */
    int16_t err;          /* once set it stays */
    uint64_t length;      /* payload bytes of the current frame */
    struct {
        uint8_t *data;
        size_t len, cap;
    } acc; /* payload of a frame that arrives in pieces */
};

void tq_frame_reader_init(struct tq_frame_reader *r, size_t max_bytes);
void tq_frame_reader_deinit(struct tq_frame_reader *r);
/* The cap of the frames that follow; call it between frames only. */
void tq_frame_reader_set_max(struct tq_frame_reader *r, size_t max_bytes);

/* Takes bytes from *in (advancing it) until one frame is whole. TQ_FRAME_OK: *ret_payload is valid
 * until the next call or deinit, or, where it lies inside *in's memory, as long as that is.
 * TQ_FRAME_MORE. Negative: TQ_EPROTO (negative length), TQ_ELIMIT (over the cap), TQ_ENOMEM; the reader
 * stays failed, and for a bad header has allocated nothing. Memory for a frame that arrives in pieces
 * grows with the bytes that really arrived (at most doubling), never with the announced length alone;
 * the call that follows its delivery frees it. */
int tq_frame_next(struct tq_frame_reader *r, struct tq_span *in, struct tq_span *ret_payload);

/* True while part of a frame (or of its header) is held: more bytes must come. */
bool tq_frame_partial(const struct tq_frame_reader *r);
/* Frees the memory of a delivered frame before the next call would; that frame is invalid then. A frame
 * that is still arriving is kept. */
void tq_frame_reader_trim(struct tq_frame_reader *r);

/* Writes the header of a payload of n bytes; returns its size, 4 or 12. */
size_t tq_frame_header(uint8_t out[12], uint64_t n);

#endif
