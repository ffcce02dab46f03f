/* A bounded reader of pickles that never runs anything: no global is ever resolved, nothing is called.
 * One pass over the opcodes with an explicit stack (no recursion) yields the shape of the top-level value
 * as ranges of the input; values are decoded on demand from their ranges.
 *
 * Source of the format: CPython's Lib/pickletools.py; protocols 0 to 5. Refused: PERSID, BINPERSID,
 * NEXT_BUFFER, READONLY_BUFFER, unknown opcodes, memo indices that do not fit the input, rewriting a memo
 * entry, a get of an entry that is not there, stack underflow, a PROTO that is not the first opcode, values
 * left on the stack at STOP, bytes behind STOP, a length beyond the end.
 *
 * Memory: at most 4 bytes per input byte plus 4 KiB (stack slots, marks and memo entries are 32-bit
 * offsets, and each input byte makes at most one of them). */
#ifndef TQ_PROTO_PYTHON_PICKLE_H
#define TQ_PROTO_PYTHON_PICKLE_H

#include "common/bytes.h"

/* A value inside a pickle: whole opcodes [start, end) that leave exactly this value on the stack. It ends
 * where the next value's first opcode (or the opcode that takes it) stands, so the memo and FRAME opcodes
 * behind it belong to it. */
struct tq_pk_range {
    uint32_t start;
    uint32_t end;
};

#define TQ_PK_TOP_MAX    8
#define TQ_PK_NEAR_SLOTS 6
#define TQ_PK_NEAR_MAX   8
#define TQ_PK_MEMO_SMALL 32

/* The container that was completed last at one of the lowest stack heights. In a request these are the
 * message itself, its args tuple and its kwds dict, whose children then need no second pass. Private. */
struct tq_pk_near {
    uint32_t start; /* UINT32_MAX: nothing known here */
    uint32_t end;   /* behind the opcode that changed it last */
    uint32_t count;
    uint8_t kind;                            /* enum tq_pk_kind */
    struct tq_pk_range elem[TQ_PK_NEAR_MAX]; /* all of them when count <= TQ_PK_NEAR_MAX */
};

/* The outcome of a scan. Borrows the input; may be copied as long as only one copy is deinitialised. */
struct tq_pickle {
    struct tq_span input;
    uint8_t proto;         /* PROTO argument, 0 when there is no PROTO opcode */
    uint8_t highest_proto; /* of the opcodes that occur: 0 to 5 */
    bool top_is_list;
    uint32_t
        top_count; /* elements of the top-level tuple or list; 0 when it is neither or has more than MAX */
    struct tq_pk_range top[TQ_PK_TOP_MAX];
    struct tq_pk_range value; /* the top-level value itself */
    /* Private from here on. */
    bool memo_explicit;   /* PUT, BINPUT or LONG_BINPUT occur */
    bool memo_implicit;   /* MEMOIZE occurs */
    uint32_t alias_write; /* offset of the last opcode that writes into a value reached by GET or DUP; or 0 */
    uint32_t memo_count;  /* entries in use */
    uint32_t memo_size;   /* indices that exist */
    uint32_t *memo;       /* index -> start offset of the value + 1, 0 = unused; NULL: memo_small */
    uint32_t memo_small[TQ_PK_MEMO_SMALL];
    struct tq_pk_near near[TQ_PK_NEAR_SLOTS];
};

/* TQ_EPROTO malformed or refused (*ret_why says it in a few static words), TQ_ELIMIT (input over 2 GiB - 1),
 * TQ_ENOMEM; nothing to deinit then. A truncated pickle is TQ_EPROTO with why "truncated": Python's servers
 * end the session then. */
int tq_pickle_scan(struct tq_pickle *p, struct tq_span input, const char **ret_why);
void tq_pickle_deinit(struct tq_pickle *p);

enum tq_pk_kind {
    TQ_PK_NONE,
    TQ_PK_BOOL,
    TQ_PK_INT,    /* fits 64 bits */
    TQ_PK_BIGINT, /* little-endian two's complement of any length, or decimal text (protocol 0) */
    TQ_PK_FLOAT,
    TQ_PK_STR, /* UTF-8 (surrogates allowed, as Python's surrogatepass); protocol-0 text is escaped */
    TQ_PK_BYTES,
    TQ_PK_TUPLE,
    TQ_PK_LIST,
    TQ_PK_DICT,
    TQ_PK_SET,
    TQ_PK_OTHER, /* needs Python: globals, reduces, bytearray, frozenset, DUP, ... */
};

/* A decoded scalar. bytes borrows the input, except for escaped text (see tq_pk_decode). */
struct tq_pk_value {
    enum tq_pk_kind kind;
    bool boolean;
    int64_t integer;
    double real;
    struct tq_span bytes; /* STR, BYTES; BIGINT: two's complement little-endian */
    /* STR: raw-unicode-escape (opcode 'V') or repr text (opcode 'S') that has something to decode; plain
     * ASCII text is not escaped. BIGINT: decimal text. */
    bool escaped;
    uint8_t opcode; /* that made the value */
};

/* Kind and, for scalars, the value of range r; memo references are followed. 0, TQ_EPROTO when r is not a
 * value of this pickle. */
int tq_pk_decode(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_value *ret_value);

/* Elements of a tuple, list or set, or key, value, key, value... of a dict: ranges in order. *ret_list is
 * from tq_malloc, the caller frees it with tq_free; NULL when the count is 0. TQ_EINVAL when r is no such
 * container (or is built in a way that only a hand-made pickle does), TQ_ENOMEM; TQ_ELIMIT when the list
 * would take more than 4 bytes per byte of input plus 4 KiB.
 * Cost: at most two passes over the opcodes of r. */
int tq_pk_children(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_range **ret_list,
                   uint32_t *ret_count);

/* Truth value as Python's bool(x); kinds that need Python count as true. */
bool tq_pk_truth(const struct tq_pickle *p, struct tq_pk_range r);
/* type(x).__name__ for messages: "int", "str", ...; "object" for what needs Python. Static. */
const char *tq_pk_type_name(const struct tq_pickle *p, struct tq_pk_range r);
/* For TQ_PK_OTHER built by GLOBAL or STACK_GLOBAL (and a REDUCE, NEWOBJ or BUILD of it): module and name of
 * the class. TQ_ENOTFOUND when it is built otherwise. */
int tq_pk_class_of(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret_module,
                   struct tq_span *ret_name);
/* The argument ranges of such a REDUCE, or the state of such a BUILD when want_state. TQ_ENOTFOUND. */
int tq_pk_reduce_args(const struct tq_pickle *p, struct tq_pk_range r, bool want_state,
                      struct tq_pk_range *ret_args);

#endif
