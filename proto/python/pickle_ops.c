#include "proto/python/pickle_ops.h"

#define FIXED(bytes)  PK_ARG_FIXED, bytes
#define COUNT1        PK_ARG_COUNT1, 1
#define COUNT4        PK_ARG_COUNT4, 4
#define COUNT4S       PK_ARG_COUNT4_SIGNED, 4
#define COUNT8        PK_ARG_COUNT8, 8
#define LINE          PK_ARG_LINE, 1
#define LINE2         PK_ARG_LINE2, 2
#define REFUSED       PK_ARG_REFUSED, 0
#define PUSH(kind, p) PK_ACT_PUSH, 0, kind, p

/* The last number is the protocol that brought the opcode. */
const struct tq_pk_op tq_pk_ops[256] = {
    ['('] = {FIXED(0), PK_ACT_MARK, 0, TQ_PK_OTHER, 0},
    ['.'] = {FIXED(0), PK_ACT_STOP, 0, TQ_PK_OTHER, 0},
    ['0'] = {FIXED(0), PK_ACT_POP, 0, TQ_PK_OTHER, 0},
    ['1'] = {FIXED(0), PK_ACT_POP_MARK, 0, TQ_PK_OTHER, 1},
    ['2'] = {FIXED(0), PK_ACT_DUP, 0, TQ_PK_OTHER, 0},
    ['F'] = {LINE, PUSH(TQ_PK_FLOAT, 0)},
    ['G'] = {FIXED(8), PUSH(TQ_PK_FLOAT, 1)},
    ['I'] = {LINE, PUSH(TQ_PK_INT, 0)},
    ['J'] = {FIXED(4), PUSH(TQ_PK_INT, 1)},
    ['K'] = {FIXED(1), PUSH(TQ_PK_INT, 1)},
    ['M'] = {FIXED(2), PUSH(TQ_PK_INT, 1)},
    ['L'] = {LINE, PUSH(TQ_PK_INT, 0)},
    ['N'] = {FIXED(0), PUSH(TQ_PK_NONE, 0)},
    ['P'] = {REFUSED, PUSH(TQ_PK_OTHER, 0)},
    ['Q'] = {REFUSED, PUSH(TQ_PK_OTHER, 1)},
    ['R'] = {FIXED(0), PK_ACT_TAKE, 2, TQ_PK_OTHER, 0},
    ['S'] = {LINE, PUSH(TQ_PK_STR, 0)},
    ['T'] = {COUNT4S, PUSH(TQ_PK_STR, 1)},
    ['U'] = {COUNT1, PUSH(TQ_PK_STR, 1)},
    ['V'] = {LINE, PUSH(TQ_PK_STR, 0)},
    ['X'] = {COUNT4, PUSH(TQ_PK_STR, 1)},
    ['B'] = {COUNT4, PUSH(TQ_PK_BYTES, 3)},
    ['C'] = {COUNT1, PUSH(TQ_PK_BYTES, 3)},
    ['a'] = {FIXED(0), PK_ACT_INTO, 2, TQ_PK_LIST, 0},
    ['b'] = {FIXED(0), PK_ACT_INTO, 2, TQ_PK_OTHER, 0},
    ['c'] = {LINE2, PUSH(TQ_PK_OTHER, 0)},
    ['d'] = {FIXED(0), PK_ACT_TAKE_MARK, 0, TQ_PK_DICT, 0},
    ['e'] = {FIXED(0), PK_ACT_INTO_MARK, 0, TQ_PK_LIST, 1},
    ['g'] = {LINE, PK_ACT_GET, 0, TQ_PK_OTHER, 0},
    ['h'] = {FIXED(1), PK_ACT_GET, 0, TQ_PK_OTHER, 1},
    ['i'] = {LINE2, PK_ACT_TAKE_MARK, 0, TQ_PK_OTHER, 0},
    ['j'] = {FIXED(4), PK_ACT_GET, 0, TQ_PK_OTHER, 1},
    ['l'] = {FIXED(0), PK_ACT_TAKE_MARK, 0, TQ_PK_LIST, 0},
    ['o'] = {FIXED(0), PK_ACT_TAKE_MARK, 0, TQ_PK_OTHER, 1},
    ['p'] = {LINE, PK_ACT_PUT, 0, TQ_PK_OTHER, 0},
    ['q'] = {FIXED(1), PK_ACT_PUT, 0, TQ_PK_OTHER, 1},
    ['r'] = {FIXED(4), PK_ACT_PUT, 0, TQ_PK_OTHER, 1},
    ['s'] = {FIXED(0), PK_ACT_INTO, 3, TQ_PK_DICT, 0},
    ['t'] = {FIXED(0), PK_ACT_TAKE_MARK, 0, TQ_PK_TUPLE, 0},
    ['u'] = {FIXED(0), PK_ACT_INTO_MARK, 0, TQ_PK_DICT, 1},
    ['}'] = {FIXED(0), PK_ACT_PUSH_EMPTY, 0, TQ_PK_DICT, 1},
    [']'] = {FIXED(0), PK_ACT_PUSH_EMPTY, 0, TQ_PK_LIST, 1},
    [')'] = {FIXED(0), PK_ACT_PUSH_EMPTY, 0, TQ_PK_TUPLE, 1},
    [0x80] = {FIXED(1), PK_ACT_PROTO, 0, TQ_PK_OTHER, 2},
    [0x81] = {FIXED(0), PK_ACT_TAKE, 2, TQ_PK_OTHER, 2},
    [0x82] = {FIXED(1), PUSH(TQ_PK_OTHER, 2)},
    [0x83] = {FIXED(2), PUSH(TQ_PK_OTHER, 2)},
    [0x84] = {FIXED(4), PUSH(TQ_PK_OTHER, 2)},
    [0x85] = {FIXED(0), PK_ACT_TAKE, 1, TQ_PK_TUPLE, 2},
    [0x86] = {FIXED(0), PK_ACT_TAKE, 2, TQ_PK_TUPLE, 2},
    [0x87] = {FIXED(0), PK_ACT_TAKE, 3, TQ_PK_TUPLE, 2},
    [0x88] = {FIXED(0), PUSH(TQ_PK_BOOL, 2)},
    [0x89] = {FIXED(0), PUSH(TQ_PK_BOOL, 2)},
    [0x8a] = {COUNT1, PUSH(TQ_PK_INT, 2)},
    [0x8b] = {COUNT4S, PUSH(TQ_PK_INT, 2)},
    [0x8c] = {COUNT1, PUSH(TQ_PK_STR, 4)},
    [0x8d] = {COUNT8, PUSH(TQ_PK_STR, 4)},
    [0x8e] = {COUNT8, PUSH(TQ_PK_BYTES, 4)},
    [0x8f] = {FIXED(0), PK_ACT_PUSH_EMPTY, 0, TQ_PK_SET, 4},
    [0x90] = {FIXED(0), PK_ACT_INTO_MARK, 0, TQ_PK_SET, 4},
    [0x91] = {FIXED(0), PK_ACT_TAKE_MARK, 0, TQ_PK_OTHER, 4},
    [0x92] = {FIXED(0), PK_ACT_TAKE, 3, TQ_PK_OTHER, 4},
    [0x93] = {FIXED(0), PK_ACT_TAKE, 2, TQ_PK_OTHER, 4},
    [0x94] = {FIXED(0), PK_ACT_MEMOIZE, 0, TQ_PK_OTHER, 4},
    [0x95] = {FIXED(8), PK_ACT_FRAME, 0, TQ_PK_OTHER, 4},
    [0x96] = {COUNT8, PUSH(TQ_PK_OTHER, 5)},
    [0x97] = {REFUSED, PUSH(TQ_PK_OTHER, 5)},
    [0x98] = {REFUSED, PUSH(TQ_PK_OTHER, 5)},
};

static uint32_t line_end(const uint8_t *data, uint32_t pos, uint32_t limit)
{
    const uint8_t *nl = pos < limit ? memchr(data + pos, '\n', limit - pos) : NULL;

    return nl == NULL ? TQ_PK_CUT : (uint32_t)(nl - data) + 1;
}

uint32_t tq_pk_op_end_slow(const uint8_t *data, uint32_t pos, uint32_t limit, const struct tq_pk_op *op)
{
    uint32_t args = pos + 1;
    uint32_t end;
    uint64_t n = 0;

    switch (op->arg) {
    case PK_ARG_COUNT4:
        n = tq_pk_load_le32(data + args);
        break;
    case PK_ARG_COUNT4_SIGNED:
        n = tq_pk_load_le32(data + args);
        if (n > INT32_MAX)
            return TQ_PK_BAD;
        break;
    case PK_ARG_COUNT8:
        n = (uint64_t)tq_pk_load_le32(data + args + 4) << 32 | tq_pk_load_le32(data + args);
        break;
    case PK_ARG_LINE:
        return line_end(data, args, limit);
    case PK_ARG_LINE2:
        end = line_end(data, args, limit);
        return end == TQ_PK_CUT ? TQ_PK_CUT : line_end(data, end, limit);
    default:
        return TQ_PK_BAD;
    }
    args += op->fixed;
    return limit - args < n ? TQ_PK_CUT : args + (uint32_t)n;
}

const char *tq_pk_op_why(const struct tq_pk_op *op, uint32_t end)
{
    if (end == TQ_PK_CUT)
        return "truncated";
    if (op->arg == PK_ARG_UNKNOWN)
        return "unknown opcode";
    return op->arg == PK_ARG_REFUSED ? "refused opcode" : "negative length";
}

uint32_t tq_pk_memo_index(const uint8_t *data, uint32_t pos, uint32_t next)
{
    uint64_t n = 0;

    switch (next - pos) {
    case 2: /* BINGET, BINPUT; a text line of one byte is empty and no number */
        if (data[pos] == 'h' || data[pos] == 'q')
            return data[pos + 1];
        return UINT32_MAX;
    case 5:
        if (data[pos] == 'j' || data[pos] == 'r')
            return tq_pk_load_le32(data + pos + 1);
        break;
    default:
        break;
    }
    for (pos++; pos < next - 1; pos++) {
        if (data[pos] < '0' || data[pos] > '9')
            return UINT32_MAX;
        n = n * 10 + (uint64_t)(data[pos] - '0');
        if (n >= UINT32_MAX)
            return UINT32_MAX;
    }
    return (uint32_t)n;
}

uint32_t tq_pk_skip_trailing(const uint8_t *data, uint32_t pos, uint32_t end)
{
    while (pos < end) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next;

        if (op->act != PK_ACT_MEMOIZE && op->act != PK_ACT_PUT && op->act != PK_ACT_FRAME)
            break;
        next = tq_pk_op_end(data, pos, end, op);
        if (next == TQ_PK_CUT || next == TQ_PK_BAD)
            break;
        pos = next;
    }
    return pos;
}

uint32_t tq_pk_count_pushes(const uint8_t *data, uint32_t pos, uint32_t end)
{
    uint32_t count = 0;

    while (pos < end) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);

        if (next == TQ_PK_CUT || next == TQ_PK_BAD)
            break;
        count += op->act <= PK_ACT_GET || op->act == PK_ACT_MARK || op->act == PK_ACT_DUP;
        pos = next;
    }
    return count;
}
