/* Reading: the opcodes of plain data as tokens, and their size. */
#include "proto/native/convert_plain_tokens.h"
#include "proto/native/convert_text.h"

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/pickle_ops.h"

#define CLOSED 0x80000000u /* in a slot's token: a tuple, or something else that nothing goes into */
#define MARK   UINT32_MAX  /* as a slot's token */
#define USED   0x80000000u /* in an entry's size: it was referred to, so it must not grow any more */

/* Explicit memo indices may be as high as the pickle reader lets them. */
#define MEMO_SLACK 256u

/* ---- growth ---- */

/* Each opcode needs at most one of each array's elements, so that growing by half ends at the input's length.
 */
static int grow(const struct tq_plain *p, void **array, const void *small, uint32_t *cap, size_t each,
                uint32_t needed)
{
    uint64_t wanted = (uint64_t)*cap + *cap / 2;
    void *grown;

    if (wanted > p->input.len)
        wanted = p->input.len;
    if (wanted < needed)
        wanted = needed;
    if (*array == small) {
        grown = tq_malloc((size_t)wanted * each);
        if (grown != NULL)
            memcpy(grown, small, *cap * each);
    } else {
        grown = tq_realloc(*array, (size_t)wanted * each);
    }
    if (grown == NULL)
        return TQ_ENOMEM;
    *array = grown;
    *cap = (uint32_t)wanted;
    return TQ_OK;
}

static int add_token(struct tq_plain *p, uint32_t token)
{
    if (p->token_count == p->token_cap) {
        void *array = p->tokens;
        int rv = grow(p, &array, p->small_tokens, &p->token_cap, sizeof(*p->tokens), p->token_count + 1);

        if (rv != TQ_OK)
            return rv;
        p->tokens = array;
    }
    p->tokens[p->token_count++] = token;
    return TQ_OK;
}

/* The value whose first token comes next, or MARK. */
static int push(struct tq_plain *p, uint32_t token)
{
    if (p->height == p->slot_cap) {
        void *array = p->slots;
        int rv = grow(p, &array, p->small_slots, &p->slot_cap, sizeof(*p->slots), p->height + 1);

        if (rv != TQ_OK)
            return rv;
        p->slots = array;
    }
    p->slots[p->height++] = (struct tq_plain_slot){.token = token, .before = (uint32_t)p->total};
    return TQ_OK;
}

static int add_size(struct tq_plain *p, uint64_t size)
{
    p->total += size;
    return p->total > p->max ? TQ_PLAIN_NOT : TQ_OK;
}

/* A value of one token. */
static int push_value(struct tq_plain *p, uint32_t token, uint64_t size)
{
    int rv = push(p, p->token_count);

    if (rv == TQ_OK)
        rv = add_token(p, token);
    return rv == TQ_OK ? add_size(p, size) : rv;
}

/* A value that is not plain came to the top of the stack, or the one there stopped to be. In the item that
 * is the end; before it, only a reference to it would be. */
static int not_plain(struct tq_plain *p)
{
    return p->item_at != 0 ? TQ_PLAIN_NOT : add_token(p, TOKEN_MISC(MISC_OTHER));
}

static int push_not_plain(struct tq_plain *p)
{
    int rv = push(p, p->token_count | CLOSED);

    return rv == TQ_OK ? not_plain(p) : rv;
}

/* ---- pushes and the memo ---- */

static int push_global(struct tq_plain *p, uint32_t pos, uint32_t next)
{
    static const char encode[] = "_codecs\nencode\n";
    static const char bytes[] = "__builtin__\nbytes\n";
    static const char bytes_3[] = "builtins\nbytes\n";
    struct tq_span lines = tq_span(p->input.data + pos + 1, next - pos - 1);

    if (p->input.data[pos] != PK_GLOBAL)
        return push_not_plain(p);
    /* A size of one, for the sake of those that are never called. */
    if (tq_span_is(lines, encode))
        return push_value(p, TOKEN_MISC(MISC_ENCODE), 1);
    if (tq_span_is(lines, bytes) || tq_span_is(lines, bytes_3))
        return push_value(p, TOKEN_MISC(MISC_BYTES), 1);
    return push_not_plain(p);
}

static int push_scalar(struct tq_plain *p, const struct tq_pk_op *op, uint32_t pos, uint32_t next)
{
    struct tq_pk_value v;
    uint64_t size;

    if (op->kind == TQ_PK_OTHER)
        return push_global(p, pos, next);
    if (tq_pk_scalar(p->input.data, pos, next, &v) != TQ_OK || !tq_plain_scalar_size(&v, &size))
        return push_not_plain(p);
    return push_value(p, pos, size);
}

static int push_empty(struct tq_plain *p, uint8_t kind)
{
    int rv;

    switch (kind) {
    case TQ_PK_LIST:
        return push_value(p, TOKEN(TOKEN_LIST, 0), 1);
    case TQ_PK_DICT:
        return push_value(p, TOKEN(TOKEN_DICT, 0), 1);
    case TQ_PK_TUPLE:
        rv = push_value(p, TOKEN(TOKEN_ARRAY, 0), 1);
        if (rv == TQ_OK)
            p->slots[p->height - 1].token |= CLOSED;
        return rv;
    default:
        return push_not_plain(p);
    }
}

static int memo_get(struct tq_plain *p, uint32_t pos, uint32_t next)
{
    uint32_t index = tq_pk_memo_index(p->input.data, pos, next);

    if (index >= p->memo_cap || p->memo[index].last == 0)
        return TQ_PLAIN_NOT;
    p->memo[index].size |= USED;
    return push_value(p, TOKEN(TOKEN_GET, index), p->memo[index].size & ~USED);
}

static int memo_room(struct tq_plain *p, uint32_t index)
{
    uint32_t had = p->memo_cap;
    void *array = p->memo;
    int rv;

    if (index < had)
        return TQ_OK;
    if (index >= p->input.len + MEMO_SLACK || index > TOKEN_ARG_MAX)
        return TQ_PLAIN_NOT;
    rv = grow(p, &array, p->small_memo, &p->memo_cap, sizeof(*p->memo), index + 1);
    if (rv != TQ_OK)
        return rv;
    p->memo = array;
    memset(p->memo + had, 0, (p->memo_cap - had) * sizeof(*p->memo));
    return TQ_OK;
}

static int memo_put(struct tq_plain *p, uint32_t index)
{
    const struct tq_plain_slot *top;
    uint32_t type;
    int rv = memo_room(p, index);

    if (rv != TQ_OK)
        return rv;
    if (p->height == 0 || p->slots[p->height - 1].token == MARK || p->memo[index].last != 0)
        return TQ_PLAIN_NOT;
    top = &p->slots[p->height - 1];
    type = top->token & CLOSED ? TOKEN_ARRAY : token_type(p->tokens[top->token]);
    if (type == TOKEN_LIST || type == TOKEN_DICT) {
        /* Picklers memoize before they fill. */
        if (top->token != p->token_count - 1)
            return TQ_PLAIN_NOT;
        rv = add_token(p, TOKEN(TOKEN_MEMO, index));
    }
    p->memo[index].last = p->token_count;
    p->memo[index].size = (uint32_t)(p->total - top->before);
    p->memo_count++;
    return rv;
}

/* ---- what takes values ---- */

static int find_mark(const struct tq_plain *p, uint32_t *ret_slot)
{
    uint32_t i = p->height;

    while (i > 0) {
        if (p->slots[--i].token == MARK) {
            *ret_slot = i;
            return TQ_OK;
        }
    }
    return TQ_PLAIN_NOT;
}

/* The slots from `first` on become one value of `count` elements or pairs; its slot is `base`. */
static int close_container(struct tq_plain *p, uint32_t base, uint32_t first, uint32_t type, uint32_t count)
{
    uint32_t start = first < p->height ? p->slots[first].token & ~CLOSED : p->token_count;

    if (count > TOKEN_ARG_MAX)
        return TQ_PLAIN_NOT;
    p->slots[base].token = start | CLOSED;
    p->height = base + 1;
    if (add_token(p, TOKEN(type, count)) != TQ_OK)
        return TQ_ENOMEM;
    return add_size(p, head_size(count));
}

/* Elements or pairs go into the list or dict below them. */
static int fill(struct tq_plain *p, uint32_t base, uint32_t first, uint32_t type)
{
    uint32_t n = p->height - first;
    struct tq_plain_slot *slot = &p->slots[base];
    uint32_t *start;
    uint32_t count;
    uint32_t grown;
    struct tq_plain_memo *entry = NULL;

    if (slot->token & CLOSED || token_type(p->tokens[slot->token]) != type)
        return TQ_PLAIN_NOT;
    p->height = first;
    if (n == 0)
        return TQ_OK;
    if (n > INTO_MAX)
        return TQ_PLAIN_NOT;
    if (add_token(p, TOKEN(TOKEN_INTO, type == TOKEN_DICT ? n | INTO_DICT : n)) != TQ_OK)
        return TQ_ENOMEM;
    start = &p->tokens[slot->token];
    count = token_arg(*start);
    grown = count + (type == TOKEN_DICT ? n / 2 : n);
    if (grown > TOKEN_ARG_MAX)
        return TQ_PLAIN_NOT;
    *start = TOKEN(type, grown);
    if (add_size(p, head_size(grown) - head_size(count)) != TQ_OK)
        return TQ_PLAIN_NOT;
    /* Its own memo entry can only be right behind it. */
    if (token_type(start[1]) == TOKEN_MEMO)
        entry = &p->memo[token_arg(start[1])];
    if (entry != NULL) {
        if (entry->size & USED)
            return TQ_PLAIN_NOT; /* it is in itself */
        entry->last = p->token_count;
        entry->size = (uint32_t)(p->total - slot->before);
    }
    return TQ_OK;
}

/* What a token stands for, a reference followed once. */
static uint32_t resolved(const struct tq_plain *p, uint32_t token)
{
    return token_type(token) == TOKEN_GET ? p->tokens[p->memo[token_arg(token)].last - 1] : token;
}

static bool token_str(const struct tq_plain *p, uint32_t token, struct tq_pk_value *v)
{
    token = resolved(p, token);
    if (!token_is_scalar(token))
        return false;
    token_value(p, token, v);
    return v->kind == TQ_PK_STR;
}

/* Below protocol 3, bytes are _codecs.encode(text, 'latin1'), and bytes() when there are none. */
static int close_bytes(struct tq_plain *p, uint32_t base)
{
    const uint32_t *end = p->tokens + p->token_count;
    struct tq_plain_slot *callee = &p->slots[base];
    uint32_t args = p->slots[base + 1].token;
    struct tq_pk_value text;
    struct tq_pk_value codec;
    uint32_t misc = MISC_OTHER;
    uint64_t len = 0;

    if (p->token_count >= 4 && callee->token == p->token_count - 4 &&
        args == ((p->token_count - 3) | CLOSED) && end[-1] == TOKEN(TOKEN_ARRAY, 2) &&
        resolved(p, end[-4]) == TOKEN_MISC(MISC_ENCODE) && token_str(p, end[-3], &text) &&
        token_str(p, end[-2], &codec) && tq_span_is(codec.bytes, "latin1") && tq_text_latin1_len(&text, &len))
        misc = MISC_LATIN1;
    else if (p->token_count >= 2 && callee->token == p->token_count - 2 &&
             args == ((p->token_count - 1) | CLOSED) && end[-1] == TOKEN(TOKEN_ARRAY, 0) &&
             resolved(p, end[-2]) == TOKEN_MISC(MISC_BYTES))
        misc = MISC_NO_BYTES;
    p->total = callee->before;
    callee->token |= CLOSED;
    p->height = base + 1;
    if (misc == MISC_OTHER)
        return not_plain(p);
    if (add_token(p, TOKEN_MISC(misc)) != TQ_OK)
        return TQ_ENOMEM;
    return add_size(p, bin_size(len));
}

/* The opcodes that take a fixed number of values. */
static int take(struct tq_plain *p, const struct tq_pk_op *op, uint8_t opcode)
{
    uint32_t base;

    if (p->height < op->n)
        return TQ_PLAIN_NOT;
    base = p->height - op->n;
    for (uint32_t i = base; i < p->height; i++)
        if (p->slots[i].token == MARK)
            return TQ_PLAIN_NOT;
    if (op->act == PK_ACT_INTO) {
        if (op->kind != TQ_PK_OTHER)
            return fill(p, base, base + 1, op->kind == TQ_PK_DICT ? TOKEN_DICT : TOKEN_LIST);
    } else if (op->kind == TQ_PK_TUPLE) {
        return close_container(p, base, base, TOKEN_ARRAY, op->n);
    } else if (opcode == PK_REDUCE) {
        return close_bytes(p, base);
    }
    p->slots[base].token |= CLOSED;
    p->height = base + 1;
    return not_plain(p);
}

/* ... all since the mark. */
static int take_mark(struct tq_plain *p, const struct tq_pk_op *op)
{
    bool into = op->act == PK_ACT_INTO_MARK;
    bool dict = op->kind == TQ_PK_DICT;
    uint32_t mark;
    uint32_t n;
    int rv = find_mark(p, &mark);

    if (rv != TQ_OK || (into && (mark == 0 || p->slots[mark - 1].token == MARK)))
        return TQ_PLAIN_NOT;
    n = p->height - mark - 1;
    if (dict && n % 2 != 0)
        return TQ_PLAIN_NOT;
    if (into && (dict || op->kind == TQ_PK_LIST)) {
        /* The mark goes; what is above it needs no room of its own. */
        rv = fill(p, mark - 1, mark + 1, dict ? TOKEN_DICT : TOKEN_LIST);
        p->height = mark;
        return rv;
    }
    if (!into && op->kind != TQ_PK_OTHER) {
        if (n == 0 && op->kind != TQ_PK_TUPLE) {
            p->height = mark;
            return push_empty(p, op->kind);
        }
        return close_container(p, mark, mark + 1, dict ? TOKEN_MAP : TOKEN_ARRAY, dict ? n / 2 : n);
    }
    if (into)
        p->height = mark;
    else
        p->height = mark + 1;
    p->slots[p->height - 1].token = p->token_count | CLOSED;
    return not_plain(p);
}

/* ---- the machine ---- */

/* Only before the item, and only hand-made but for the last ones. What is left below is not to be taken for
 * something that it is not. */
static int pop(struct tq_plain *p, bool to_mark)
{
    uint32_t mark = 0;

    if (p->item_at != 0 || p->height == 0 || (to_mark && find_mark(p, &mark) != TQ_OK))
        return TQ_PLAIN_NOT;
    p->height = to_mark ? mark : p->height - 1;
    return not_plain(p);
}

static int step(struct tq_plain *p, const struct tq_pk_op *op, uint32_t pos, uint32_t next)
{
    switch (op->act) {
    case PK_ACT_PUSH:
        return push_scalar(p, op, pos, next);
    case PK_ACT_PUSH_EMPTY:
        return push_empty(p, op->kind);
    case PK_ACT_GET:
        return memo_get(p, pos, next);
    case PK_ACT_PUT:
        return memo_put(p, tq_pk_memo_index(p->input.data, pos, next));
    case PK_ACT_MEMOIZE:
        return memo_put(p, p->memo_count);
    case PK_ACT_FRAME:
        return TQ_OK;
    case PK_ACT_MARK:
        return push(p, MARK);
    case PK_ACT_TAKE:
    case PK_ACT_INTO:
        return take(p, op, p->input.data[pos]);
    case PK_ACT_TAKE_MARK:
    case PK_ACT_INTO_MARK:
        return take_mark(p, op);
    case PK_ACT_POP:
    case PK_ACT_POP_MARK:
        return pop(p, op->act == PK_ACT_POP_MARK);
    default: /* DUP, PROTO, STOP */
        return TQ_PLAIN_NOT;
    }
}

static int run(struct tq_plain *p, uint32_t pos, uint32_t end)
{
    const uint8_t *data = p->input.data;

    while (pos < end) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);
        int rv;

        if (next == TQ_PK_CUT || next == TQ_PK_BAD)
            return TQ_PLAIN_NOT;
        rv = step(p, op, pos, next);
        if (rv != TQ_OK)
            return rv;
        pos = next;
    }
    return TQ_OK;
}

int tq_plain_read(struct tq_plain *p, struct tq_span input, uint32_t start, uint32_t prefix_end,
                  struct tq_pk_range item, uint32_t max_bytes)
{
    int rv;

    p->input = input;
    p->tokens = p->small_tokens;
    p->token_count = 0;
    p->token_cap = TQ_PLAIN_SMALL;
    p->slots = p->small_slots;
    p->height = 0;
    p->slot_cap = TQ_PLAIN_SMALL;
    p->memo = p->small_memo;
    p->memo_count = 0;
    p->memo_cap = TQ_PLAIN_SMALL;
    p->total = 0;
    p->max = INT32_MAX;
    p->item_at = 0;
    p->item_size = 0;
    memset(p->small_memo, 0, sizeof(p->small_memo));
    rv = run(p, start, prefix_end);
    if (rv != TQ_OK)
        return rv;
    if (p->height != 0)
        return TQ_PLAIN_NOT;
    p->item_at = item.start;
    p->max = p->total + max_bytes;
    rv = run(p, item.start, item.end);
    if (rv != TQ_OK)
        return rv;
    if (p->height != 1 || p->slots[0].token == MARK)
        return TQ_PLAIN_NOT;
    p->item_size = (uint32_t)(p->total - p->slots[0].before);
    /* A reference to something that is not plain, and has no size. */
    return p->item_size == 0 ? TQ_PLAIN_NOT : TQ_OK;
}

uint32_t tq_plain_size(const struct tq_plain *p)
{
    return p->item_size;
}

void tq_plain_deinit(struct tq_plain *p)
{
    if (p->tokens != p->small_tokens)
        tq_free(p->tokens);
    if (p->slots != p->small_slots)
        tq_free(p->slots);
    if (p->memo != p->small_memo)
        tq_free(p->memo);
}
