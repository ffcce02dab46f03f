/* Every encoding of msgpack, and the edges of each, as bytes and as what they mean. */
#ifndef TESTS_UNIT_MP_ENCODINGS_H
#define TESTS_UNIT_MP_ENCODINGS_H

#include "proto/native/mp.h"

#define BYTES(text) text, sizeof(text) - 1
#define SPAN(text)  tq_span(text, sizeof(text) - 1)
#define COUNT(a)    (sizeof(a) / sizeof((a)[0]))
#define F_31        "abcdefghijklmnopqrstuvwxyz01234"
#define MINUS(n)    ((uint64_t)0 - (uint64_t)(n))
#define DOUBLE_1_5  0x3ff8000000000000u

static const struct encoding {
    const char *bytes;
    size_t len;
    enum tq_mp_type type;
    uint64_t value; /* integer, bits of the double, bool; length or count */
    int8_t ext_type;
    bool longer; /* than it need be: the writer writes something else */
} encodings[] = {
    {BYTES("\xc0"), TQ_MP_NIL, 0, 0, false},
    {BYTES("\xc2"), TQ_MP_BOOL, 0, 0, false},
    {BYTES("\xc3"), TQ_MP_BOOL, 1, 0, false},
    {BYTES("\0"), TQ_MP_UINT, 0, 0, false},
    {BYTES("\x7f"), TQ_MP_UINT, 127, 0, false},
    {BYTES("\xcc\x80"), TQ_MP_UINT, 128, 0, false},
    {BYTES("\xcc\xff"), TQ_MP_UINT, 255, 0, false},
    {BYTES("\xcd\x01\x00"), TQ_MP_UINT, 256, 0, false},
    {BYTES("\xcd\xff\xff"), TQ_MP_UINT, 65535, 0, false},
    {BYTES("\xce\0\1\0\0"), TQ_MP_UINT, 65536, 0, false},
    {BYTES("\xce\xff\xff\xff\xff"), TQ_MP_UINT, UINT32_MAX, 0, false},
    {BYTES("\xcf\0\0\0\1\0\0\0\0"), TQ_MP_UINT, UINT32_MAX + (uint64_t)1, 0, false},
    {BYTES("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), TQ_MP_UINT, INT64_MAX, 0, false},
    {BYTES("\xcf\x80\0\0\0\0\0\0\0"), TQ_MP_UINT, INT64_MAX + (uint64_t)1, 0, false},
    {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), TQ_MP_UINT, UINT64_MAX, 0, false},
    {BYTES("\xff"), TQ_MP_INT, MINUS(1), 0, false},
    {BYTES("\xe0"), TQ_MP_INT, MINUS(32), 0, false},
    {BYTES("\xd0\xdf"), TQ_MP_INT, MINUS(33), 0, false},
    {BYTES("\xd0\x80"), TQ_MP_INT, MINUS(128), 0, false},
    {BYTES("\xd1\xff\x7f"), TQ_MP_INT, MINUS(129), 0, false},
    {BYTES("\xd1\x80\x00"), TQ_MP_INT, MINUS(32768), 0, false},
    {BYTES("\xd2\xff\xff\x7f\xff"), TQ_MP_INT, MINUS(32769), 0, false},
    {BYTES("\xd2\x80\0\0\0"), TQ_MP_INT, MINUS(2147483648), 0, false},
    {BYTES("\xd3\xff\xff\xff\xff\x7f\xff\xff\xff"), TQ_MP_INT, MINUS(2147483649), 0, false},
    {BYTES("\xd3\x80\0\0\0\0\0\0\0"), TQ_MP_INT, (uint64_t)1 << 63, 0, false},
    /* integers in more bytes than they need, and signed ones that are not negative */
    {BYTES("\xcc\0"), TQ_MP_UINT, 0, 0, true},
    {BYTES("\xcd\0\x05"), TQ_MP_UINT, 5, 0, true},
    {BYTES("\xce\0\0\0\x05"), TQ_MP_UINT, 5, 0, true},
    {BYTES("\xcf\0\0\0\0\0\0\0\x05"), TQ_MP_UINT, 5, 0, true},
    {BYTES("\xd0\0"), TQ_MP_UINT, 0, 0, true},
    {BYTES("\xd0\x7f"), TQ_MP_UINT, 127, 0, true},
    {BYTES("\xd1\x7f\xff"), TQ_MP_UINT, 32767, 0, true},
    {BYTES("\xd2\x7f\xff\xff\xff"), TQ_MP_UINT, INT32_MAX, 0, true},
    {BYTES("\xd3\x7f\xff\xff\xff\xff\xff\xff\xff"), TQ_MP_UINT, INT64_MAX, 0, true},
    {BYTES("\xd0\xff"), TQ_MP_INT, MINUS(1), 0, true},
    {BYTES("\xd1\xff\xff"), TQ_MP_INT, MINUS(1), 0, true},
    {BYTES("\xd2\xff\xff\xff\xe0"), TQ_MP_INT, MINUS(32), 0, true},
    {BYTES("\xd3\xff\xff\xff\xff\xff\xff\xff\xff"), TQ_MP_INT, MINUS(1), 0, true},
    {BYTES("\xcb\x3f\xf8\0\0\0\0\0\0"), TQ_MP_FLOAT, DOUBLE_1_5, 0, false},
    {BYTES("\xcb\x80\0\0\0\0\0\0\0"), TQ_MP_FLOAT, (uint64_t)1 << 63, 0, false}, /* -0.0 */
    {BYTES("\xcb\x7f\xf0\0\0\0\0\0\0"), TQ_MP_FLOAT, 0x7ff0000000000000u, 0, false},
    {BYTES("\xcb\x7f\xf8\0\0\0\0\0\0"), TQ_MP_FLOAT, 0x7ff8000000000000u, 0, false}, /* NaN */
    {BYTES("\xcb\0\0\0\0\0\0\0\1"), TQ_MP_FLOAT, 1, 0, false},
    {BYTES("\xca\x3f\xc0\0\0"), TQ_MP_FLOAT, DOUBLE_1_5, 0, true},
    {BYTES("\xca\xff\x80\0\0"), TQ_MP_FLOAT, 0xfff0000000000000u, 0, true},
    {BYTES("\xa0"), TQ_MP_STR, 0, 0, false},
    {BYTES("\xa1"
           "a"),
     TQ_MP_STR, 1, 0, false},
    {BYTES("\xbf" F_31), TQ_MP_STR, 31, 0, false},
    {BYTES("\xd9\x20" F_31 "x"), TQ_MP_STR, 32, 0, false},
    {BYTES("\xd9\0"), TQ_MP_STR, 0, 0, true},
    {BYTES("\xd9\3abc"), TQ_MP_STR, 3, 0, true},
    {BYTES("\xda\0\3abc"), TQ_MP_STR, 3, 0, true},
    {BYTES("\xdb\0\0\0\3abc"), TQ_MP_STR, 3, 0, true},
    {BYTES("\xa2\xff\xfe"), TQ_MP_STR, 2, 0, false}, /* no UTF-8 */
    {BYTES("\xc4\0"), TQ_MP_BIN, 0, 0, false},
    {BYTES("\xc4\3abc"), TQ_MP_BIN, 3, 0, false},
    {BYTES("\xc5\0\3abc"), TQ_MP_BIN, 3, 0, true},
    {BYTES("\xc6\0\0\0\3abc"), TQ_MP_BIN, 3, 0, true},
    {BYTES("\x90"), TQ_MP_ARRAY, 0, 0, false},
    {BYTES("\x93\1\2\3"), TQ_MP_ARRAY, 3, 0, false},
    {BYTES("\x9f\1\2\3\1\2\3\1\2\3\1\2\3\1\2\3"), TQ_MP_ARRAY, 15, 0, false},
    {BYTES("\xdc\0\x10\1\2\3\1\2\3\1\2\3\1\2\3\1\2\3\4"), TQ_MP_ARRAY, 16, 0, false},
    {BYTES("\xdc\0\0"), TQ_MP_ARRAY, 0, 0, true},
    {BYTES("\xdc\0\2\1\2"), TQ_MP_ARRAY, 2, 0, true},
    {BYTES("\xdd\0\0\0\2\1\2"), TQ_MP_ARRAY, 2, 0, true},
    {BYTES("\x80"), TQ_MP_MAP, 0, 0, false},
    {BYTES("\x81\1\2"), TQ_MP_MAP, 1, 0, false},
    {BYTES("\x82\1\2\1\2"), TQ_MP_MAP, 2, 0, false}, /* the same key twice */
    {BYTES("\xde\0\0"), TQ_MP_MAP, 0, 0, true},
    {BYTES("\xde\0\1\1\2"), TQ_MP_MAP, 1, 0, true},
    {BYTES("\xdf\0\0\0\1\1\2"), TQ_MP_MAP, 1, 0, true},
    {BYTES("\xd4\x50x"), TQ_MP_EXT, 1, 80, false},
    {BYTES("\xd5\xffxy"), TQ_MP_EXT, 2, -1, false},
    {BYTES("\xd6\x80"
           "abcd"),
     TQ_MP_EXT, 4, -128, false},
    {BYTES("\xd7\x7f"
           "abcdefgh"),
     TQ_MP_EXT, 8, 127, false},
    {BYTES("\xd8\0abcdefghijklmnop"), TQ_MP_EXT, 16, 0, false},
    {BYTES("\xc7\0\5"), TQ_MP_EXT, 0, 5, false},
    {BYTES("\xc7\3\5abc"), TQ_MP_EXT, 3, 5, false},
    {BYTES("\xc7\1\5a"), TQ_MP_EXT, 1, 5, true},
    {BYTES("\xc8\0\3\5abc"), TQ_MP_EXT, 3, 5, true},
    {BYTES("\xc9\0\0\0\3\5abc"), TQ_MP_EXT, 3, 5, true},
};

#endif
