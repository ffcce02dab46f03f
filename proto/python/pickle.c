#include "proto/python/pickle_ops.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

/* A small input may use memo indices up to its length plus this; older versions of pickletools.optimize
 * leave gaps. */
#define MEMO_SLACK 256u

/* ---- what became of the lowest slots ---- */

static void near_note(struct tq_pickle *p, const struct tq_pk_op *op, const struct tq_pk_machine *m,
                      uint32_t base, uint32_t first, uint32_t next)
{
    struct tq_pk_near *near = &p->near[base];
    uint32_t start = m->stack[base];
    bool into = op->act == PK_ACT_INTO || op->act == PK_ACT_INTO_MARK;

    if (op->kind == TQ_PK_OTHER || (into && (near->start != start || near->kind != op->kind))) {
        near->start = TQ_PK_NO_OFFSET;
        return;
    }
    if (!into) {
        near->start = start;
        near->kind = op->kind;
        near->count = 0;
    }
    near->end = next;
    for (uint32_t i = first; i < m->height && near->count + (i - first) < TQ_PK_NEAR_MAX; i++)
        near->elem[near->count + (i - first)] =
            (struct tq_pk_range){m->stack[i], i + 1 < m->height ? m->stack[i + 1] : m->pos};
    near->count += m->height - first;
}

static void shape_children(struct tq_pk_shape *s, const struct tq_pk_machine *m, uint32_t first)
{
    for (uint32_t i = first; i < m->height && s->count + (i - first) < s->list_cap; i++)
        s->list[s->count + (i - first)] =
            (struct tq_pk_range){m->stack[i], i + 1 < m->height ? m->stack[i + 1] : m->pos};
    s->count += m->height - first;
}

/* 1: the value is taken by something else, the run ends here. */
static int shape_note(struct tq_pk_shape *s, const struct tq_pk_op *op, const struct tq_pk_machine *m,
                      uint32_t first, uint32_t next)
{
    const uint32_t *stack = m->stack;

    if (op->act == PK_ACT_INTO || op->act == PK_ACT_INTO_MARK) {
        if (m->data[m->pos] == PK_BUILD) {
            s->kind = TQ_PK_OTHER;
            s->has_state = true;
            s->state = (struct tq_pk_range){stack[first], m->pos};
        } else if (s->kind == op->kind) {
            shape_children(s, m, first);
        } else {
            s->kind = TQ_PK_OTHER;
        }
        return 0;
    }
    if (m->pos >= m->bound_at)
        return 1;
    s->opcode = m->data[m->pos];
    s->kind = op->kind;
    s->op_start = m->pos;
    s->op_end = next;
    s->count = 0;
    s->has_args = false;
    s->has_state = false;
    switch (s->opcode) {
    case PK_REDUCE:
    case PK_NEWOBJ:
    case PK_NEWOBJ_EX:
    case PK_STACK_GLOBAL:
        s->callee = (struct tq_pk_range){stack[0], stack[1]};
        s->args = (struct tq_pk_range){stack[1], m->height > 2 ? stack[2] : m->pos};
        s->has_args = s->opcode != PK_STACK_GLOBAL;
        break;
    case PK_OBJ:
        s->callee = (struct tq_pk_range){stack[1], m->height > 2 ? stack[2] : m->pos};
        break;
    default:
        if (op->kind != TQ_PK_OTHER && first < m->height)
            shape_children(s, m, first);
        break;
    }
    return 0;
}

/* ---- the machine ---- */

static int broken(struct tq_pk_machine *m, const char *why)
{
    m->why = why;
    return TQ_EPROTO;
}

/* In a run over a part the values below are out of sight: it is over then. */
static int below(struct tq_pk_machine *m, const char *why)
{
    return m->scan != NULL ? broken(m, why) : 1;
}

static int find_mark(const struct tq_pk_machine *m, uint32_t *ret_slot)
{
    uint32_t i = m->height;

    while (i > 0) {
        if (m->stack[--i] & TQ_PK_MARK_BIT) {
            *ret_slot = i;
            return 0;
        }
    }
    return 1;
}

/* Is the value at [start, end) nothing but a GET or DUP? */
static bool is_alias(const uint8_t *data, uint32_t start, uint32_t end)
{
    const struct tq_pk_op *op = &tq_pk_ops[data[start]];

    if (op->act != PK_ACT_GET && op->act != PK_ACT_DUP)
        return false;
    return tq_pk_skip_trailing(data, tq_pk_op_end(data, start, end, op), end) == end;
}

/* The opcodes that take values from the stack. The result stands at `base`, what went into it from `first`.
 */
static int take(struct tq_pk_machine *m, const struct tq_pk_op *op, uint32_t next)
{
    uint32_t *stack = m->stack;
    bool into = op->act == PK_ACT_INTO || op->act == PK_ACT_INTO_MARK;
    uint32_t base;
    uint32_t first;

    if (op->act == PK_ACT_TAKE || op->act == PK_ACT_INTO) {
        if (m->height < op->n)
            return below(m, "stack underflow");
        base = m->height - op->n;
        for (uint32_t i = base; i < m->height; i++)
            if (stack[i] & TQ_PK_MARK_BIT)
                return broken(m, "stack underflow");
        first = into ? base + 1 : base;
    } else {
        if (find_mark(m, &base) != 0)
            return below(m, "no mark");
        first = base + 1;
        if (op->act == PK_ACT_POP_MARK) {
            m->height = base;
            return 0;
        }
        if (op->act == PK_ACT_INTO_MARK) {
            if (base == 0)
                return below(m, "stack underflow");
            base--;
            if (stack[base] & TQ_PK_MARK_BIT)
                return broken(m, "stack underflow");
        } else {
            stack[base] &= ~TQ_PK_MARK_BIT;
        }
        if (op->kind == TQ_PK_DICT && ((m->height - first) & 1))
            return broken(m, "odd number of items");
        if (m->data[m->pos] == PK_OBJ && m->height == first)
            return broken(m, "stack underflow");
    }
    if (m->scan != NULL) {
        if (base < TQ_PK_NEAR_SLOTS)
            near_note(m->scan, op, m, base, first, next);
        if (into && is_alias(m->data, stack[base], stack[base + 1] & ~TQ_PK_MARK_BIT))
            m->scan->alias_write = m->pos;
    } else if (m->watch != NULL) {
        if (into && base < m->watch_height && m->watch[base] == stack[base])
            m->watch[base] |= TQ_PK_MARK_BIT;
    } else if (m->shape != NULL && base == 0 && shape_note(m->shape, op, m, first, next) != 0) {
        return 1;
    }
    m->height = base + 1;
    return 0;
}

static int memo_grow(struct tq_pickle *p)
{
    /* Only small inputs come here: scan_prepare has counted the others. */
    uint32_t size = (uint32_t)p->input.len + MEMO_SLACK;
    uint32_t *memo;

    TQ_ASSERT(p->memo == NULL && p->input.len <= TQ_PK_SMALL);
    memo = tq_calloc(size, sizeof(*memo));
    if (memo == NULL)
        return TQ_ENOMEM;
    memcpy(memo, p->memo_small, sizeof(p->memo_small));
    p->memo = memo;
    p->memo_size = size;
    return TQ_OK;
}

static int memo_put(struct tq_pk_machine *m, const struct tq_pk_op *op, uint32_t next)
{
    struct tq_pickle *p = m->scan;
    uint32_t *memo;
    uint32_t index;

    if (m->height == 0 || (m->stack[m->height - 1] & TQ_PK_MARK_BIT))
        return below(m, "stack underflow");
    if (p == NULL)
        return 0;
    if (op->act == PK_ACT_MEMOIZE) {
        index = p->memo_count;
        p->memo_implicit = true;
    } else {
        index = tq_pk_memo_index(m->data, m->pos, next);
        p->memo_explicit = true;
    }
    if (index >= p->memo_size) {
        int rv;

        if (p->memo != NULL || p->input.len > TQ_PK_SMALL || index >= p->input.len + MEMO_SLACK)
            return broken(m, "memo index out of range");
        rv = memo_grow(p);
        if (rv != TQ_OK)
            return rv;
    }
    memo = p->memo != NULL ? p->memo : p->memo_small;
    if (memo[index] != 0)
        return broken(m, "memo entry written twice");
    memo[index] = m->stack[m->height - 1] + 1;
    p->memo_count++;
    return 0;
}

static void push(struct tq_pk_machine *m, uint32_t slot)
{
    TQ_ASSERT(m->height < m->cap);
    m->stack[m->height++] = slot;
}

/* The opcodes that are neither a push, a memo write nor take values. */
static int step_other(struct tq_pk_machine *m, const struct tq_pk_op *op, uint32_t next)
{
    switch (op->act) {
    case PK_ACT_POP:
        if (m->height == 0)
            return below(m, "stack underflow");
        if (m->height == 1 && m->pos >= m->bound_at)
            return 1;
        m->height--;
        return 0;
    case PK_ACT_DUP:
        if (m->height == 0 || (m->stack[m->height - 1] & TQ_PK_MARK_BIT)) {
            /* At the start of a part: the value is a copy of something below. */
            if (m->scan != NULL || m->shape == NULL || m->height > 0)
                return below(m, "stack underflow");
            push(m, m->pos);
            return shape_note(m->shape, op, m, 1, next);
        }
        push(m, m->pos);
        return 0;
    case PK_ACT_PROTO:
        if (m->pos != 0)
            return broken(m, "PROTO inside the pickle");
        if (m->data[1] > 5)
            return broken(m, "unsupported pickle protocol");
        if (m->scan != NULL)
            m->scan->proto = m->data[1];
        return 0;
    default:
        return take(m, op, next);
    }
}

/* A push: one slot. In the lowest slot, and for containers in the lower ones, it is noted. */
static int step_push(struct tq_pk_machine *m, const struct tq_pk_op *op, uint32_t next)
{
    push(m, m->pos);
    if (m->scan == NULL) {
        if (m->height == 1 && m->shape != NULL)
            return shape_note(m->shape, op, m, 1, next);
    } else if (op->act == PK_ACT_PUSH_EMPTY) {
        if (m->height <= TQ_PK_NEAR_SLOTS)
            near_note(m->scan, op, m, m->height - 1, m->height, next);
    } else if (op->act == PK_ACT_GET &&
               tq_pk_memo_at(m->scan, tq_pk_memo_index(m->data, m->pos, next)) == 0) {
        return broken(m, "memo entry not there");
    }
    return 0;
}

int tq_pk_run(struct tq_pk_machine *m)
{
    uint8_t proto = 0;

    while (m->pos < m->limit) {
        const struct tq_pk_op *op = &tq_pk_ops[m->data[m->pos]];
        uint32_t next = tq_pk_op_end(m->data, m->pos, m->limit, op);
        int rv = 0;

        if (next == TQ_PK_CUT || next == TQ_PK_BAD)
            return broken(m, tq_pk_op_why(op, next));
        if (op->proto > proto)
            proto = op->proto;
        switch (op->act) {
        case PK_ACT_PUSH:
        case PK_ACT_PUSH_EMPTY:
        case PK_ACT_GET:
            rv = step_push(m, op, next);
            break;
        case PK_ACT_PUT:
        case PK_ACT_MEMOIZE:
            rv = memo_put(m, op, next);
            break;
        case PK_ACT_FRAME:
            break;
        case PK_ACT_MARK:
            push(m, m->pos | TQ_PK_MARK_BIT);
            break;
        case PK_ACT_STOP:
            if (m->scan != NULL)
                m->scan->highest_proto = proto;
            return 1;
        default:
            rv = step_other(m, op, next);
            break;
        }
        if (rv != 0)
            return rv;
        m->pos = next;
    }
    return 0;
}

/* ---- a scan ---- */

/* Counts what a large input needs, so that all of it is allocated at once and exactly. */
static int scan_prepare(struct tq_pickle *p, uint32_t **ret_stack, uint32_t *ret_cap, const char **ret_why)
{
    const uint8_t *data = p->input.data;
    uint32_t n = (uint32_t)p->input.len;
    uint32_t pos = 0;
    uint32_t pushes = 0;
    uint32_t puts = 0;
    uint32_t highest = 0;

    for (;;) {
        const struct tq_pk_op *op;
        uint32_t next;

        if (pos == n) {
            *ret_why = "truncated";
            return TQ_EPROTO;
        }
        op = &tq_pk_ops[data[pos]];
        next = tq_pk_op_end(data, pos, n, op);
        if (next == TQ_PK_CUT || next == TQ_PK_BAD) {
            *ret_why = tq_pk_op_why(op, next);
            return TQ_EPROTO;
        }
        pushes += op->act <= PK_ACT_GET || op->act == PK_ACT_MARK || op->act == PK_ACT_DUP;
        puts += op->act == PK_ACT_MEMOIZE || op->act == PK_ACT_PUT;
        if (op->act == PK_ACT_PUT) {
            uint32_t index = tq_pk_memo_index(data, pos, next);

            if (index > highest)
                highest = index;
        }
        if (op->act == PK_ACT_STOP)
            break;
        pos = next;
    }
    /* Slots and entries together fit the bound because each took a byte; gaps between indices did not. */
    if (highest >= n - pushes + MEMO_SLACK) {
        *ret_why = "memo index out of range";
        return TQ_EPROTO;
    }
    if (puts <= highest && highest > 0)
        puts = highest + 1;
    if (puts > TQ_PK_MEMO_SMALL) {
        p->memo = tq_calloc(puts, sizeof(*p->memo));
        if (p->memo == NULL)
            return TQ_ENOMEM;
        p->memo_size = puts;
    }
    *ret_stack = tq_malloc((size_t)(pushes + 1) * sizeof(**ret_stack));
    if (*ret_stack == NULL)
        return TQ_ENOMEM;
    *ret_cap = pushes + 1;
    return TQ_OK;
}

static int scan_finish(struct tq_pickle *p, const struct tq_pk_machine *m, const char **ret_why)
{
    const struct tq_pk_near *near = &p->near[0];

    if (m->height == 0 || (m->stack[m->height - 1] & TQ_PK_MARK_BIT)) {
        *ret_why = "stack underflow";
        return TQ_EPROTO;
    }
    if (m->height > 1) {
        *ret_why = "values left at STOP";
        return TQ_EPROTO;
    }
    if (m->pos + 1 != m->limit) {
        *ret_why = "bytes behind STOP";
        return TQ_EPROTO;
    }
    p->value = (struct tq_pk_range){m->stack[0], m->pos};
    if (near->start != m->stack[0] || (near->kind != TQ_PK_TUPLE && near->kind != TQ_PK_LIST) ||
        near->count > TQ_PK_TOP_MAX)
        return TQ_OK;
    _Static_assert(TQ_PK_TOP_MAX <= TQ_PK_NEAR_MAX, "the top-level elements come from there");
    p->top_is_list = near->kind == TQ_PK_LIST;
    p->top_count = near->count;
    memcpy(p->top, near->elem, near->count * sizeof(near->elem[0]));
    return TQ_OK;
}

static void pickle_init(struct tq_pickle *p, struct tq_span input)
{
    p->input = input;
    p->proto = 0;
    p->highest_proto = 0;
    p->top_is_list = false;
    p->top_count = 0;
    p->value = (struct tq_pk_range){0, 0};
    p->memo_explicit = false;
    p->memo_implicit = false;
    p->alias_write = 0;
    p->memo_count = 0;
    p->memo_size = TQ_PK_MEMO_SMALL;
    p->memo = NULL;
    memset(p->memo_small, 0, sizeof(p->memo_small));
    for (unsigned i = 0; i < TQ_PK_NEAR_SLOTS; i++)
        p->near[i].start = TQ_PK_NO_OFFSET;
}

int tq_pickle_scan(struct tq_pickle *p, struct tq_span input, const char **ret_why)
{
    uint32_t small[TQ_PK_SMALL] = {0}; /* for static analysis: the machine reads only what it wrote */
    struct tq_pk_machine m = {.data = input.data, .scan = p, .bound_at = TQ_PK_NO_OFFSET};
    uint32_t *owned = NULL;
    int rv = TQ_OK;

    *ret_why = "too large";
    if (input.len > INT32_MAX)
        return TQ_ELIMIT;
    pickle_init(p, input);
    m.limit = (uint32_t)input.len;
    m.stack = small;
    m.cap = TQ_PK_SMALL;
    if (m.limit > TQ_PK_SMALL) {
        rv = scan_prepare(p, &owned, &m.cap, ret_why);
        m.stack = owned;
    }
    if (rv == TQ_OK) {
        rv = tq_pk_run(&m);
        if (rv == 0) {
            *ret_why = "truncated";
            rv = TQ_EPROTO;
        } else if (rv == 1) {
            rv = scan_finish(p, &m, ret_why);
        } else if (m.why != NULL) {
            *ret_why = m.why;
        }
    }
    tq_free(owned);
    if (rv != TQ_OK)
        tq_pickle_deinit(p);
    return rv;
}

void tq_pickle_deinit(struct tq_pickle *p)
{
    tq_free(p->memo);
    p->memo = NULL;
    p->memo_size = 0;
}
