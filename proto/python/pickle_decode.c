/* Values of a scanned pickle, on demand. */
#include <stdlib.h>

#include "proto/python/pickle_ops.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

/* A memo entry may hold a value that is itself a GET; picklers never do that, so a few hops are plenty. */
#define HOPS_MAX 8

/* A value to look at. `open`: it was reached through the memo and may still be filled behind `end`. */
struct target {
    struct tq_pk_range range;
    bool open;
};

static void charge(uint64_t *work, uint32_t bytes)
{
    if (work != NULL)
        *work += bytes;
}

/* ---- scalars ---- */

static uint64_t load_le(const uint8_t *p, uint32_t n, bool sign)
{
    uint64_t v = sign && n > 0 && (p[n - 1] & 0x80) ? UINT64_MAX : 0;

    for (uint32_t i = n; i > 0; i--)
        v = v << 8 | p[i - 1];
    return v;
}

static int scalar_long(const uint8_t *p, uint32_t n, struct tq_pk_value *v)
{
    /* Sign bytes that say nothing; pickle.encode_long leaves at most one. */
    while (n > 1 && ((p[n - 1] == 0 && !(p[n - 2] & 0x80)) || (p[n - 1] == 0xff && (p[n - 2] & 0x80))))
        n--;
    if (n <= 8) {
        v->kind = TQ_PK_INT;
        v->integer = (int64_t)load_le(p, n, true);
    } else {
        v->kind = TQ_PK_BIGINT;
        v->bytes = tq_span(p, n);
    }
    return TQ_OK;
}

/* Decimal text of INT and LONG, without the newline. */
static int scalar_decimal(const uint8_t *p, uint32_t n, bool is_int, struct tq_pk_value *v)
{
    uint64_t magnitude = 0;
    bool negative = n > 0 && p[0] == '-';
    bool big = false;
    uint32_t i = n > 0 && (p[0] == '-' || p[0] == '+') ? 1 : 0;

    if (is_int && n == 2 && p[0] == '0' && (p[1] == '0' || p[1] == '1')) {
        v->kind = TQ_PK_BOOL;
        v->boolean = p[1] == '1';
        return TQ_OK;
    }
    if (!is_int && n > i && p[n - 1] == 'L')
        n--;
    while (n - i > 1 && p[i] == '0')
        i++;
    if (i == n)
        return TQ_EPROTO;
    v->bytes = tq_span(p + i - (negative ? 1 : 0), n - i + (negative ? 1 : 0));
    for (; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return TQ_EPROTO;
        big = big || __builtin_mul_overflow(magnitude, 10u, &magnitude) ||
              __builtin_add_overflow(magnitude, (uint64_t)(p[i] - '0'), &magnitude);
    }
    if (big || magnitude > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        /* The sign stands right before the digits only when no zeros did. */
        if (negative && v->bytes.data[0] != '-')
            return TQ_EPROTO;
        v->kind = TQ_PK_BIGINT;
        v->escaped = true;
        return TQ_OK;
    }
    v->bytes = tq_span(NULL, 0);
    v->kind = TQ_PK_INT;
    v->integer = (int64_t)(negative ? 0 - magnitude : magnitude);
    return TQ_OK;
}

static int scalar_float_text(const uint8_t *p, uint32_t n, struct tq_pk_value *v)
{
    char text[512];
    char *end;

    if (n == 0 || n >= sizeof(text))
        return TQ_EPROTO;
    memcpy(text, p, n);
    text[n] = '\0';
    v->real = strtod(text, &end);
    return end == text + n ? TQ_OK : TQ_EPROTO;
}

/* STRING: text between quotes; UNICODE: raw-unicode-escape, in which bytes from 128 on are Latin-1. */
static int scalar_text(uint8_t opcode, const uint8_t *p, uint32_t n, struct tq_pk_value *v)
{
    if (opcode == 'S') {
        while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\r' || p[n - 1] == '\t'))
            n--;
        if (n < 2 || (p[0] != '\'' && p[0] != '"') || p[n - 1] != p[0])
            return TQ_EPROTO;
        p++;
        n -= 2;
    }
    v->bytes = tq_span(p, n);
    for (uint32_t i = 0; i < n && !v->escaped; i++)
        v->escaped = p[i] == '\\' || p[i] >= 0x80;
    return TQ_OK;
}

static double load_be_double(const uint8_t *p)
{
    uint64_t bits = tq_load_be64(p);
    double d;

    memcpy(&d, &bits, sizeof(d));
    return d;
}

int tq_pk_scalar(const uint8_t *data, uint32_t pos, uint32_t next, struct tq_pk_value *v)
{
    const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
    const uint8_t *args = data + pos + 1;
    uint32_t n = next - pos - 1;

    *v = (struct tq_pk_value){.kind = op->kind, .opcode = data[pos]};
    switch (data[pos]) {
    case 'G':
        v->real = load_be_double(args);
        return TQ_OK;
    case 'F':
        return scalar_float_text(args, n - 1, v);
    case 'J':
        v->integer = (int32_t)tq_pk_load_le32(args);
        return TQ_OK;
    case 'K':
    case 'M':
        v->integer = (int64_t)load_le(args, n, false);
        return TQ_OK;
    case 0x8a: /* LONG1 */
        return scalar_long(args + 1, n - 1, v);
    case 0x8b: /* LONG4 */
        return scalar_long(args + 4, n - 4, v);
    case 'I':
    case 'L':
        return scalar_decimal(args, n - 1, data[pos] == 'I', v);
    case 0x88:
    case 0x89:
        v->boolean = data[pos] == 0x88;
        return TQ_OK;
    case 'S':
    case 'V':
        return scalar_text(data[pos], args, n - 1, v);
    default:
        /* Counted bytes, or nothing. */
        if (op->kind == TQ_PK_STR || op->kind == TQ_PK_BYTES)
            v->bytes = tq_span(args + op->fixed, n - op->fixed);
        return TQ_OK;
    }
}

/* ---- shapes ---- */

/* Runs [range.start, limit); TQ_EPROTO when that does not leave one value. */
static int shape_run(const struct tq_pickle *p, const struct target *t, struct tq_pk_shape *s, uint64_t *work)
{
    uint32_t small[TQ_PK_SMALL] = {0}; /* for static analysis: the machine reads only what it wrote */
    uint32_t limit = t->open ? (uint32_t)p->input.len : t->range.end;
    struct tq_pk_machine m = {
        .data = p->input.data,
        .pos = t->range.start,
        .limit = limit,
        .stack = small,
        .cap = TQ_PK_SMALL,
        .shape = s,
        .bound_at = t->open ? t->range.end : TQ_PK_NO_OFFSET,
    };
    uint32_t *owned = NULL;
    int rv;

    if (limit - m.pos > TQ_PK_SMALL) {
        m.cap = tq_pk_count_pushes(m.data, m.pos, limit);
        if (t->open)
            charge(work, limit - m.pos);
        if (m.cap > TQ_PK_SMALL) {
            owned = tq_malloc((size_t)m.cap * sizeof(*owned));
            if (owned == NULL)
                return TQ_ENOMEM;
            m.stack = owned;
        }
    }
    s->kind = TQ_PK_OTHER;
    s->opcode = PK_STOP;
    s->count = 0;
    s->has_args = false;
    s->has_state = false;
    rv = tq_pk_run(&m);
    charge(work, m.pos - t->range.start);
    if (rv == 0 && (m.height != 1 || (m.stack[0] & TQ_PK_MARK_BIT)))
        rv = TQ_EPROTO;
    else if (rv == 1)
        rv = t->open && m.pos >= t->range.end ? TQ_OK : TQ_EPROTO;
    tq_free(owned);
    return rv;
}

/* The shape of a target without following GET: from what the scan kept, from the first opcode alone when
 * the rest are memo writes, else by a run. */
static int shape_of(const struct tq_pickle *p, const struct target *t, struct tq_pk_shape *s, uint64_t *work)
{
    const uint8_t *data = p->input.data;
    struct tq_pk_range r = t->range;
    const struct tq_pk_op *op = &tq_pk_ops[data[r.start]];

    if (op->act <= PK_ACT_GET && !t->open) {
        uint32_t next = tq_pk_op_end(data, r.start, r.end, op);

        if (next == TQ_PK_CUT || next == TQ_PK_BAD)
            return TQ_EPROTO;
        if (next == r.end || tq_pk_skip_trailing(data, next, r.end) == r.end) {
            *s = (struct tq_pk_shape){.opcode = data[r.start],
                                      .kind = op->kind,
                                      .op_start = r.start,
                                      .op_end = next,
                                      .list = s->list,
                                      .list_cap = s->list_cap};
            return TQ_OK;
        }
    }
    for (unsigned i = 0; i < TQ_PK_NEAR_SLOTS && !t->open; i++) {
        const struct tq_pk_near *near = &p->near[i];
        uint32_t n = near->count < s->list_cap ? near->count : s->list_cap;

        if (near->start != r.start || near->end > r.end || near->count > TQ_PK_NEAR_MAX)
            continue;
        s->opcode = PK_STOP;
        s->kind = near->kind;
        s->count = near->count;
        s->has_args = false;
        s->has_state = false;
        if (n > 0)
            memcpy(s->list, near->elem, n * sizeof(near->elem[0]));
        return TQ_OK;
    }
    return shape_run(p, t, s, work);
}

static bool valid(const struct tq_pickle *p, struct tq_pk_range r)
{
    return r.start < r.end && r.end <= p->input.len;
}

/* The value that the memo entry got: from its first opcode to the memo write. */
static int memo_target(const struct tq_pickle *p, uint32_t index, struct target *ret, uint64_t *work)
{
    const uint8_t *data = p->input.data;
    uint32_t start = tq_pk_memo_at(p, index);
    uint32_t end = (uint32_t)p->input.len;
    uint32_t next_index = 0;
    uint32_t pos = 0;

    if (start == 0)
        return TQ_EPROTO;
    if (!p->memo_explicit) {
        /* Entries are numbered in the order of their writes. Those written since `start` have values that
         * begin there or later, those before do not. */
        next_index = index;
        while (next_index > 0 && tq_pk_memo_at(p, next_index - 1) >= start)
            next_index--;
        charge(work, index - next_index);
        pos = start - 1;
    } else if (!p->memo_implicit) {
        pos = start - 1;
    }
    start--;
    for (uint32_t from = pos; pos < end;) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);

        if (next == TQ_PK_CUT || next == TQ_PK_BAD)
            return TQ_EPROTO;
        if (op->act == PK_ACT_MEMOIZE || op->act == PK_ACT_PUT) {
            uint32_t got = op->act == PK_ACT_PUT ? tq_pk_memo_index(data, pos, next) : next_index;

            if (got == index) {
                charge(work, pos - from);
                *ret = (struct target){.range = {start, pos}, .open = false};
                return TQ_OK;
            }
            next_index++;
        }
        pos = next;
    }
    return TQ_EPROTO;
}

/* The shape of r, memo references followed. *ret_target says where the value stands; *ret_memo whether it
 * was reached through the memo. */
static int follow(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_shape *s,
                  struct target *ret_target, uint64_t *work)
{
    struct target t = {.range = r, .open = false};
    bool through_memo = false;
    int rv;

    if (!valid(p, r))
        return TQ_EPROTO;
    for (int hop = 0;; hop++) {
        const struct tq_pk_op *op;

        rv = shape_of(p, &t, s, work);
        if (rv != TQ_OK)
            return rv;
        op = &tq_pk_ops[s->opcode];
        if (s->opcode == PK_STOP || op->act != PK_ACT_GET || hop == HOPS_MAX)
            break;
        rv = memo_target(p, tq_pk_memo_index(p->input.data, s->op_start, s->op_end), &t, work);
        if (rv != TQ_OK)
            return rv;
        through_memo = true;
    }
    /* What can be filled later was perhaps filled behind its memo write. */
    if (through_memo && (s->kind == TQ_PK_LIST || s->kind == TQ_PK_DICT || s->kind == TQ_PK_SET ||
                         (s->kind == TQ_PK_OTHER && (s->has_args || s->opcode == PK_OBJ)))) {
        t.open = true;
        rv = shape_of(p, &t, s, work);
        if (rv != TQ_OK)
            return rv;
    }
    *ret_target = t;
    return TQ_OK;
}

/* ---- classes ---- */

static int class_of_callee(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret_module,
                           struct tq_span *ret_name, uint64_t *work);

/* Module and name of the lines of GLOBAL and INST. */
static int class_of_lines(const struct tq_pickle *p, const struct tq_pk_shape *s, struct tq_span *ret_module,
                          struct tq_span *ret_name)
{
    const uint8_t *text = p->input.data + s->op_start + 1;
    const uint8_t *end = p->input.data + s->op_end;
    const uint8_t *nl = memchr(text, '\n', (size_t)(end - text));

    if (nl == NULL)
        return TQ_EPROTO;
    *ret_module = tq_span(text, (size_t)(nl - text));
    *ret_name = tq_span(nl + 1, (size_t)(end - nl) - 2);
    return TQ_OK;
}

static int decode_str(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret, uint64_t *work)
{
    struct tq_pk_shape s = {0};
    struct target t;
    struct tq_pk_value v;
    int rv = follow(p, r, &s, &t, work);

    if (rv != TQ_OK)
        return rv;
    if (s.kind != TQ_PK_STR)
        return TQ_ENOTFOUND;
    rv = tq_pk_scalar(p->input.data, s.op_start, s.op_end, &v);
    if (rv == TQ_OK && v.escaped)
        rv = TQ_ENOTFOUND;
    if (rv == TQ_OK)
        *ret = v.bytes;
    return rv;
}

/* The name of a global, or of the class that made an instance. */
static int class_of_shape(const struct tq_pickle *p, const struct tq_pk_shape *s, struct tq_span *ret_module,
                          struct tq_span *ret_name, uint64_t *work)
{
    int rv;

    switch (s->opcode) {
    case PK_GLOBAL:
    case PK_INST:
        return class_of_lines(p, s, ret_module, ret_name);
    case PK_STACK_GLOBAL:
        rv = decode_str(p, s->callee, ret_module, work);
        return rv == TQ_OK ? decode_str(p, s->args, ret_name, work) : rv;
    case PK_REDUCE:
    case PK_NEWOBJ:
    case PK_NEWOBJ_EX:
    case PK_OBJ:
        return class_of_callee(p, s->callee, ret_module, ret_name, work);
    default:
        return TQ_ENOTFOUND;
    }
}

static int class_of_callee(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret_module,
                           struct tq_span *ret_name, uint64_t *work)
{
    struct tq_pk_shape s = {0};
    struct target t;
    int rv = follow(p, r, &s, &t, work);

    if (rv != TQ_OK)
        return rv;
    if (s.opcode != PK_GLOBAL && s.opcode != PK_STACK_GLOBAL)
        return TQ_ENOTFOUND;
    return class_of_shape(p, &s, ret_module, ret_name, work);
}

/* Up to protocol 3 a set is a call of the class set with a tuple of one list: *ret_list is that list. */
static bool is_reduced_set(const struct tq_pickle *p, const struct tq_pk_shape *s,
                           struct tq_pk_range *ret_list, uint64_t *work)
{
    struct tq_pk_range arg;
    struct tq_pk_shape args = {.list = &arg, .list_cap = 1};
    struct tq_pk_shape list = {0};
    struct target t;
    struct tq_span module;
    struct tq_span name;

    if (s->opcode != PK_REDUCE || s->has_state || class_of_shape(p, s, &module, &name, work) != TQ_OK)
        return false;
    if (!tq_span_is(name, "set") || (!tq_span_is(module, "builtins") && !tq_span_is(module, "__builtin__")))
        return false;
    if (follow(p, s->args, &args, &t, work) != TQ_OK || args.kind != TQ_PK_TUPLE || args.count != 1)
        return false;
    *ret_list = arg;
    return follow(p, arg, &list, &t, work) == TQ_OK && list.kind == TQ_PK_LIST;
}

int tq_pk_class_of(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret_module,
                   struct tq_span *ret_name)
{
    struct tq_pk_shape s = {0};
    struct target t;
    struct tq_span module;
    struct tq_span name;
    int rv = follow(p, r, &s, &t, NULL);

    if (rv == TQ_OK)
        rv = class_of_shape(p, &s, &module, &name, NULL);
    if (rv != TQ_OK)
        return rv == TQ_ENOMEM ? rv : TQ_ENOTFOUND;
    *ret_module = module;
    *ret_name = name;
    return TQ_OK;
}

int tq_pk_reduce_args(const struct tq_pickle *p, struct tq_pk_range r, bool want_state,
                      struct tq_pk_range *ret_args)
{
    struct tq_pk_shape s = {0};
    struct target t;
    int rv = follow(p, r, &s, &t, NULL);

    if (rv != TQ_OK)
        return rv == TQ_ENOMEM ? rv : TQ_ENOTFOUND;
    if (want_state ? !s.has_state : !s.has_args)
        return TQ_ENOTFOUND;
    *ret_args = want_state ? s.state : s.args;
    return TQ_OK;
}

/* ---- values with their children ---- */

/* Children of more than the view's own room: a second run into a list of the right size. */
static int view_list(const struct tq_pickle *p, struct target t, struct tq_pk_view *v, uint32_t count,
                     uint64_t *work)
{
    struct tq_pk_shape s = {0};
    int rv;

    v->owned = tq_malloc((size_t)count * sizeof(*v->owned));
    if (v->owned == NULL)
        return TQ_ENOMEM;
    s.list = v->owned;
    s.list_cap = count;
    rv = shape_run(p, &t, &s, work);
    if (rv == TQ_OK && s.count != count)
        rv = TQ_EPROTO;
    if (rv != TQ_OK) {
        tq_free(v->owned);
        v->owned = NULL;
        return rv;
    }
    v->list = v->owned;
    return TQ_OK;
}

/* list_max: more children than that are TQ_ELIMIT; UINT32_MAX for any number. */
static int view_open(const struct tq_pickle *p, struct tq_pk_range r, bool want_list, uint32_t list_max,
                     struct tq_pk_view *v, uint64_t *work)
{
    struct tq_pk_shape s = {.list = v->small, .list_cap = TQ_PK_VIEW_SMALL};
    struct tq_pk_range set_list;
    struct target t;
    int rv = follow(p, r, &s, &t, work);

    v->owned = NULL;
    v->list = v->small;
    v->count = 0;
    if (rv != TQ_OK)
        return rv;
    if (s.kind == TQ_PK_OTHER && is_reduced_set(p, &s, &set_list, work)) {
        rv = follow(p, set_list, &s, &t, work);
        if (rv != TQ_OK)
            return rv;
        s.kind = TQ_PK_SET;
    }
    if (s.kind < TQ_PK_TUPLE)
        return tq_pk_scalar(p->input.data, s.op_start, s.op_end, &v->value);
    v->value = (struct tq_pk_value){.kind = s.kind, .opcode = s.opcode};
    if (s.kind == TQ_PK_OTHER)
        return TQ_OK;
    v->count = s.count;
    if (s.count <= TQ_PK_VIEW_SMALL || !want_list)
        return TQ_OK;
    if (s.count > list_max)
        return TQ_ELIMIT;
    return view_list(p, t, v, s.count, work);
}

int tq_pk_view_open(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_view *v, uint64_t *work)
{
    return view_open(p, r, true, UINT32_MAX, v, work);
}

void tq_pk_view_close(struct tq_pk_view *v)
{
    tq_free(v->owned);
    v->owned = NULL;
}

int tq_pk_decode(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_value *ret_value)
{
    struct tq_pk_view v;
    int rv = view_open(p, r, false, 0, &v, NULL);

    if (rv == TQ_OK)
        *ret_value = v.value;
    return rv;
}

int tq_pk_children(const struct tq_pickle *p, struct tq_pk_range r, struct tq_pk_range **ret_list,
                   uint32_t *ret_count)
{
    struct tq_pk_view v;
    /* 4 bytes per byte of input plus 4 KiB, of which the run's own stack has had as much again. */
    uint32_t list_max = (uint32_t)p->input.len / 2 + 4096 / sizeof(**ret_list);
    int rv = view_open(p, r, true, list_max, &v, NULL);

    if (rv == TQ_EPROTO)
        rv = TQ_EINVAL;
    if (rv != TQ_OK)
        return rv;
    if (v.value.kind < TQ_PK_TUPLE || v.value.kind == TQ_PK_OTHER)
        return TQ_EINVAL;
    if (v.owned == NULL && v.count > 0) {
        v.owned = tq_malloc(v.count * sizeof(*v.owned));
        if (v.owned == NULL)
            return TQ_ENOMEM;
        memcpy(v.owned, v.list, v.count * sizeof(*v.owned));
    }
    *ret_list = v.owned;
    *ret_count = v.count;
    return TQ_OK;
}

/* frozenset(), bytearray() and their like: a call of a builtin with nothing, or with one empty thing. */
static bool is_empty_builtin(const struct tq_pickle *p, struct tq_pk_range r)
{
    struct tq_pk_range args;
    struct tq_pk_range *list = NULL;
    struct tq_span module;
    struct tq_span name;
    struct tq_pk_view v;
    uint32_t count = 0;
    bool empty = false;

    if (tq_pk_class_of(p, r, &module, &name) != TQ_OK || tq_pk_reduce_args(p, r, false, &args) != TQ_OK ||
        (!tq_span_is(module, "builtins") && !tq_span_is(module, "__builtin__")) ||
        (!tq_span_is(name, "frozenset") && !tq_span_is(name, "bytearray")) ||
        tq_pk_children(p, args, &list, &count) != TQ_OK)
        return false;
    if (count == 0) {
        empty = true;
    } else if (view_open(p, list[0], false, 0, &v, NULL) == TQ_OK) {
        empty = (v.value.kind == TQ_PK_LIST || v.value.kind == TQ_PK_TUPLE)
                    ? v.count == 0
                    : (v.value.kind == TQ_PK_BYTES || v.value.kind == TQ_PK_STR) && v.value.bytes.len == 0;
    }
    tq_free(list);
    return empty;
}

bool tq_pk_truth(const struct tq_pickle *p, struct tq_pk_range r)
{
    static const uint8_t empty_frozenset[] = {PK_MARK, PK_FROZENSET};
    struct tq_pk_view v;

    if (view_open(p, r, false, 0, &v, NULL) != TQ_OK)
        return true;
    switch (v.value.kind) {
    case TQ_PK_NONE:
        return false;
    case TQ_PK_BOOL:
        return v.value.boolean;
    case TQ_PK_INT:
        return v.value.integer != 0;
    case TQ_PK_FLOAT:
        return v.value.real != 0.0;
    case TQ_PK_STR:
    case TQ_PK_BYTES:
        return v.value.bytes.len > 0;
    case TQ_PK_TUPLE:
    case TQ_PK_LIST:
    case TQ_PK_DICT:
    case TQ_PK_SET:
        return v.count > 0;
    default:
        return (r.end - r.start < sizeof(empty_frozenset) ||
                memcmp(p->input.data + r.start, empty_frozenset, sizeof(empty_frozenset)) != 0) &&
               !is_empty_builtin(p, r);
    }
}

static const char *other_name(const struct tq_pickle *p, struct tq_pk_range r, uint8_t opcode)
{
    static const char *const known[] = {"bytearray", "frozenset", "complex", "range", "slice", "object"};
    struct tq_span module;
    struct tq_span name;

    if (opcode == PK_BYTEARRAY8)
        return "bytearray";
    if (opcode == PK_FROZENSET)
        return "frozenset";
    if (opcode != PK_REDUCE || tq_pk_class_of(p, r, &module, &name) != TQ_OK ||
        (!tq_span_is(module, "builtins") && !tq_span_is(module, "__builtin__")))
        return "object";
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (tq_span_is(name, known[i]))
            return known[i];
    return "object";
}

const char *tq_pk_type_name(const struct tq_pickle *p, struct tq_pk_range r)
{
    static const char *const names[] = {
        [TQ_PK_NONE] = "NoneType", [TQ_PK_BOOL] = "bool", [TQ_PK_INT] = "int",     [TQ_PK_BIGINT] = "int",
        [TQ_PK_FLOAT] = "float",   [TQ_PK_STR] = "str",   [TQ_PK_BYTES] = "bytes", [TQ_PK_TUPLE] = "tuple",
        [TQ_PK_LIST] = "list",     [TQ_PK_DICT] = "dict", [TQ_PK_SET] = "set",
    };
    struct tq_pk_view v;

    if (view_open(p, r, false, 0, &v, NULL) != TQ_OK)
        return "object";
    return v.value.kind == TQ_PK_OTHER ? other_name(p, r, v.value.opcode) : names[v.value.kind];
}
