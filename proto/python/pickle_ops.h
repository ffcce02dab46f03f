/* Private to the pickle reader: what each opcode looks like and what it does to the stack. */
#ifndef TQ_PROTO_PYTHON_PICKLE_OPS_H
#define TQ_PROTO_PYTHON_PICKLE_OPS_H

#include "proto/python/pickle.h"

/* Opcodes that the code names; the table has them all. */
#define PK_MARK         '('
#define PK_STOP         '.'
#define PK_POP          '0'
#define PK_POP_MARK     '1'
#define PK_DUP          '2'
#define PK_NONE         'N'
#define PK_REDUCE       'R'
#define PK_BINUNICODE   'X'
#define PK_BINBYTES     'B'
#define PK_GLOBAL       'c'
#define PK_INST         'i'
#define PK_OBJ          'o'
#define PK_PROTO        0x80
#define PK_NEWOBJ       0x81
#define PK_TUPLE1       0x85
#define PK_TUPLE2       0x86
#define PK_FROZENSET    0x91
#define PK_NEWOBJ_EX    0x92
#define PK_STACK_GLOBAL 0x93
#define PK_MEMOIZE      0x94
#define PK_FRAME        0x95
#define PK_BYTEARRAY8   0x96
#define PK_BUILD        'b'

enum tq_pk_arg {
    PK_ARG_UNKNOWN, /* no such opcode */
    PK_ARG_REFUSED,
    PK_ARG_FIXED,  /* `fixed` bytes */
    PK_ARG_COUNT1, /* a count of `fixed` bytes and as many bytes as it says */
    PK_ARG_COUNT4,
    PK_ARG_COUNT4_SIGNED,
    PK_ARG_COUNT8,
    PK_ARG_LINE, /* up to and with a newline */
    PK_ARG_LINE2,
};

enum tq_pk_act {
    PK_ACT_PUSH,
    PK_ACT_PUSH_EMPTY, /* an empty container */
    PK_ACT_GET,
    PK_ACT_PUT,
    PK_ACT_MEMOIZE,
    PK_ACT_FRAME,
    PK_ACT_MARK,
    PK_ACT_POP,
    PK_ACT_DUP,
    PK_ACT_PROTO,
    PK_ACT_STOP,
    /* The rest takes values: */
    PK_ACT_TAKE,      /* the top n become one */
    PK_ACT_TAKE_MARK, /* all since the mark become one */
    PK_ACT_INTO,      /* the top n - 1 go into the one below them */
    PK_ACT_INTO_MARK, /* all since the mark go into the one below it */
    PK_ACT_POP_MARK,
};

struct tq_pk_op {
    uint8_t arg;   /* enum tq_pk_arg */
    uint8_t fixed; /* bytes of argument that are always there */
    uint8_t act;   /* enum tq_pk_act */
    uint8_t n;
    uint8_t kind; /* enum tq_pk_kind of the outcome, or of what the opcode writes into */
    uint8_t proto;
};

extern const struct tq_pk_op tq_pk_ops[256];

#define TQ_PK_CUT 0u         /* the opcode ends behind the limit */
#define TQ_PK_BAD UINT32_MAX /* no such opcode, refused, or a negative length */

uint32_t tq_pk_op_end_slow(const uint8_t *data, uint32_t pos, uint32_t limit, const struct tq_pk_op *op);

/* Offset behind the opcode at pos < limit, or TQ_PK_CUT or TQ_PK_BAD. limit <= INT32_MAX. */
static inline uint32_t tq_pk_op_end(const uint8_t *data, uint32_t pos, uint32_t limit,
                                    const struct tq_pk_op *op)
{
    uint32_t args = pos + 1;

    if (limit - args < op->fixed)
        return TQ_PK_CUT;
    if (op->arg == PK_ARG_FIXED)
        return args + op->fixed;
    if (op->arg == PK_ARG_COUNT1)
        return limit - args - 1 < data[args] ? TQ_PK_CUT : args + 1 + data[args];
    return tq_pk_op_end_slow(data, pos, limit, op);
}

/* Static words for an opcode whose end is TQ_PK_CUT or TQ_PK_BAD. */
const char *tq_pk_op_why(const struct tq_pk_op *op, uint32_t end);

static inline uint32_t tq_pk_load_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | (uint32_t)p[0];
}

/* The memo index of the GET or PUT opcode at [pos, next); UINT32_MAX when its text is no such number. */
uint32_t tq_pk_memo_index(const uint8_t *data, uint32_t pos, uint32_t next);

/* First opcode at or behind pos that is neither a memo write nor FRAME, at most end. Whole opcodes. */
uint32_t tq_pk_skip_trailing(const uint8_t *data, uint32_t pos, uint32_t end);

/* ---- the machine: runs opcodes on a stack of offsets ---- */

#define TQ_PK_MARK_BIT  0x80000000u /* in a stack slot: this is a mark */
#define TQ_PK_SMALL     512u        /* inputs up to here need no allocation for the stack */
#define TQ_PK_NO_OFFSET UINT32_MAX

/* What made the value in the machine's lowest slot. */
struct tq_pk_shape {
    uint8_t opcode;
    uint8_t kind; /* enum tq_pk_kind; TQ_PK_OTHER for GET opcodes */
    bool has_args;
    bool has_state;
    uint32_t op_start; /* of that opcode */
    uint32_t op_end;
    uint32_t count;            /* children of a container */
    struct tq_pk_range callee; /* REDUCE, NEWOBJ, NEWOBJ_EX, OBJ; STACK_GLOBAL: the module */
    struct tq_pk_range args;   /* STACK_GLOBAL: the name */
    struct tq_pk_range state;
    struct tq_pk_range *list; /* children go here as far as there is room; or NULL */
    uint32_t list_cap;
};

struct tq_pk_machine {
    const uint8_t *data;
    uint32_t pos;
    uint32_t limit;
    uint32_t *stack; /* offsets of the values' first opcodes */
    uint32_t height;
    uint32_t cap;
    struct tq_pickle *scan;    /* a scan of a whole pickle; or NULL: */
    struct tq_pk_shape *shape; /* a run over a part, or NULL for a run that only moves the stack */
    uint32_t bound_at;         /* from here on the lowest value may only be written into; else the run ends */
    /* Slots that were there at one time: those that are written into later get TQ_PK_MARK_BIT. */
    uint32_t *watch;
    uint32_t watch_height;
    const char *why;
};

/* Runs to the limit: 0. 1: STOP, or something reached below where the run began (not in a scan), pos stands
 * on that opcode. TQ_EPROTO with why; TQ_ENOMEM (only in a scan). */
int tq_pk_run(struct tq_pk_machine *m);

/* Stack slots that the opcodes of [pos, end) can need, at most. */
uint32_t tq_pk_count_pushes(const uint8_t *data, uint32_t pos, uint32_t end);

/* Memo entry: start offset + 1, 0 when there is none. */
static inline uint32_t tq_pk_memo_at(const struct tq_pickle *p, uint32_t index)
{
    if (index >= p->memo_size)
        return 0;
    return p->memo != NULL ? p->memo[index] : p->memo_small[index];
}

/* ---- inside view for comparisons: as the public functions, and *work grows by the bytes walked ---- */

#define TQ_PK_VIEW_SMALL 16

/* A decoded value with its children. */
struct tq_pk_view {
    struct tq_pk_value value;
    const struct tq_pk_range *list; /* children of containers */
    uint32_t count;
    struct tq_pk_range *owned;
    struct tq_pk_range small[TQ_PK_VIEW_SMALL];
};

int tq_pk_view_open(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_view *v, uint64_t *work);
void tq_pk_view_close(struct tq_pk_view *v);

/* The value of the scalar opcode at [pos, next). TQ_EPROTO: its text is no value of its kind. */
int tq_pk_scalar(const uint8_t *data, uint32_t pos, uint32_t next, struct tq_pk_value *v);

#endif
