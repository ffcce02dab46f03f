/* Re-emission of items. See item.h for the rule. */
#include "proto/python/item.h"
#include "proto/python/pickle_ops.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

/* BINUNICODE of 7 bytes: has no memo write, so that the numbering of the entries stays as it was. */
static const uint8_t return_tag[] = "X\x07\0\0\0#RETURN";
#define RETURN_TAG_LEN (sizeof(return_tag) - 1)

/* BYTEARRAY8 is of protocol 5, which 3.6 and 3.7 cannot read. What stands for it makes no memo entry. */
static const uint8_t bytearray_global[] = "cbuiltins\nbytearray\n";
#define BYTEARRAY_GLOBAL_LEN (sizeof(bytearray_global) - 1)
#define BYTEARRAY_HEAD_OLD   9u                             /* BYTEARRAY8 and its count */
#define BYTEARRAY_HEAD_NEW   (BYTEARRAY_GLOBAL_LEN + 1 + 4) /* GLOBAL, BINBYTES and its count */
#define BYTEARRAY_TAIL_NEW   2u                             /* TUPLE1 REDUCE */

/* What stands before the item's opcodes in the reply, so that its memo references mean the same. */
enum prefix {
    PREFIX_NONE,   /* no references, or explicit indices only */
    PREFIX_PAD,    /* references into itself, implicit numbering: as many entries as there were before */
    PREFIX_REPLAY, /* references into the envelope: the request's own opcodes before it */
};

/* The opcodes that a reply does not keep as they are: PROTO and FRAME go, BYTEARRAY8 is rewritten. Where they
 * stand is remembered, so that copying need not look at each opcode again. */
#define CUTS_MAX 128 /* one FRAME in 64 KiB */

struct cuts {
    uint32_t count; /* may be more than CUTS_MAX: the rest is looked for again */
    uint32_t at[CUTS_MAX];
};

struct plan {
    enum prefix prefix;
    uint64_t prefix_len; /* bytes of pad or replay, clean-up included */
    uint32_t pad;        /* entries to make */
    uint32_t marks;      /* left by the replay */
    uint32_t values;     /* left by the replay below the first mark */
    uint64_t item_len;
    struct cuts prefix_cuts;
    struct cuts item_cuts;
};

/* What a walk over opcodes finds. */
struct survey {
    uint64_t len;    /* of what is kept of them */
    uint32_t puts;   /* memo writes */
    bool gets;       /* memo references */
    bool gets_below; /* ... to values that begin before these opcodes */
    bool implicit;   /* MEMOIZE */
};

static bool is_cut(uint8_t opcode)
{
    return opcode == PK_FRAME || opcode == PK_BYTEARRAY8 || opcode == PK_PROTO;
}

static struct survey survey_opcodes(const struct tq_pickle *p, uint32_t start, uint32_t end,
                                    struct cuts *cuts)
{
    const uint8_t *data = p->input.data;
    struct survey found = {.len = end - start};

    cuts->count = 0;
    for (uint32_t pos = start; pos < end;) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);

        if (op->act == PK_ACT_MEMOIZE) {
            found.puts++;
            found.implicit = true;
        } else if (op->act == PK_ACT_PUT) {
            found.puts++;
        } else if (op->act == PK_ACT_GET) {
            /* A value that was memoized before begins before these opcodes, and no other does. */
            found.gets_below |= tq_pk_memo_at(p, tq_pk_memo_index(data, pos, next)) <= start;
            found.gets = true;
        } else if (is_cut(data[pos])) {
            if (cuts->count < CUTS_MAX)
                cuts->at[cuts->count] = pos;
            cuts->count++;
            if (data[pos] == PK_BYTEARRAY8)
                found.len += BYTEARRAY_HEAD_NEW + BYTEARRAY_TAIL_NEW - BYTEARRAY_HEAD_OLD;
            else
                found.len -= next - pos;
        }
        pos = next;
    }
    return found;
}

static uint8_t *put_bytes(uint8_t *out, const void *p, size_t n)
{
    memcpy(out, p, n);
    return out + n;
}

static uint8_t *put_bytearray(uint8_t *out, const uint8_t *bytes, uint32_t n)
{
    out = put_bytes(out, bytearray_global, BYTEARRAY_GLOBAL_LEN);
    *out++ = PK_BINBYTES;
    for (unsigned shift = 0; shift < 32; shift += 8)
        *out++ = (uint8_t)(n >> shift);
    out = put_bytes(out, bytes, n);
    *out++ = PK_TUPLE1;
    *out++ = PK_REDUCE;
    return out;
}

static uint32_t next_cut(const uint8_t *data, uint32_t pos, uint32_t end)
{
    while (pos < end && !is_cut(data[pos]))
        pos = tq_pk_op_end(data, pos, end, &tq_pk_ops[data[pos]]);
    return pos;
}

/* The opcodes [start, end) as the reply keeps them. */
static uint8_t *put_kept(uint8_t *out, const uint8_t *data, uint32_t start, uint32_t end,
                         const struct cuts *cuts)
{
    for (uint32_t i = 0; i < cuts->count; i++) {
        uint32_t at = i < CUTS_MAX ? cuts->at[i] : next_cut(data, start, end);
        uint32_t next = tq_pk_op_end(data, at, end, &tq_pk_ops[data[at]]);

        out = put_bytes(out, data + start, at - start);
        if (data[at] == PK_BYTEARRAY8)
            out = put_bytearray(out, data + at + BYTEARRAY_HEAD_OLD, next - at - BYTEARRAY_HEAD_OLD);
        start = next;
    }
    return put_bytes(out, data + start, end - start);
}

static bool contains(const uint32_t *sorted, uint32_t count, uint32_t wanted)
{
    uint32_t low = 0;

    while (low < count) {
        uint32_t middle = low + (count - low) / 2;

        if (sorted[middle] == wanted)
            return true;
        if (sorted[middle] < wanted)
            low = middle + 1;
        else
            count = middle;
    }
    return false;
}

/* Does a memo reference in [0, end) mean one of the values that begin at these offsets? */
static bool refers_to(const struct tq_pickle *p, uint32_t end, const uint32_t *starts, uint32_t count)
{
    const uint8_t *data = p->input.data;

    for (uint32_t pos = 0; pos < end && count > 0;) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);

        if (op->act == PK_ACT_GET &&
            contains(starts, count, tq_pk_memo_at(p, tq_pk_memo_index(data, pos, next)) - 1))
            return true;
        pos = next;
    }
    return false;
}

/* The values on the stack when the item begins: counts what a replay has to drop, and looks whether one that
 * is referred to is filled behind the item: an envelope that holds itself. Only hand-made pickles do. */
static int replay(const struct tq_pickle *p, struct tq_pk_range item, struct tq_pk_machine *m,
                  uint32_t *watch, struct plan *plan)
{
    uint32_t written = 0;

    if (tq_pk_run(m) != 0)
        return TQ_EPROTO;
    plan->marks = 0;
    plan->values = 0;
    for (uint32_t i = 0; i < m->height; i++) {
        watch[i] = m->stack[i];
        if (m->stack[i] & TQ_PK_MARK_BIT)
            plan->marks++;
        else if (plan->marks == 0)
            plan->values++;
    }
    m->watch = watch;
    m->watch_height = m->height;
    for (uint32_t i = 0; i < m->height; i++)
        watch[i] &= ~TQ_PK_MARK_BIT;
    m->limit = (uint32_t)p->input.len;
    if (tq_pk_run(m) != 1)
        return TQ_EPROTO;
    for (uint32_t i = 0; i < m->watch_height; i++)
        if (watch[i] & TQ_PK_MARK_BIT)
            watch[written++] = watch[i] & ~TQ_PK_MARK_BIT;
    return refers_to(p, item.end, watch, written) ? TQ_EPROTO : TQ_OK;
}

static int plan_replay(const struct tq_pickle *p, struct tq_pk_range item, struct plan *plan)
{
    uint32_t small[2 * TQ_PK_SMALL];
    struct tq_pk_machine m = {
        .data = p->input.data,
        .limit = item.start,
        .stack = small,
        .cap = TQ_PK_SMALL,
        .bound_at = TQ_PK_NO_OFFSET,
    };
    uint32_t watch_max = TQ_PK_SMALL;
    uint32_t *owned = NULL;
    int rv;

    if (p->input.len > TQ_PK_SMALL) {
        m.cap = tq_pk_count_pushes(m.data, 0, (uint32_t)p->input.len);
        watch_max = tq_pk_count_pushes(m.data, 0, item.start);
        owned = tq_malloc(((size_t)m.cap + watch_max) * sizeof(*owned));
        if (owned == NULL)
            return TQ_ENOMEM;
        m.stack = owned;
    }
    rv = replay(p, item, &m, m.stack + m.cap, plan);
    tq_free(owned);
    return rv;
}

static int make_plan(const struct tq_pickle *p, struct tq_pk_range item, struct plan *plan)
{
    struct survey found = survey_opcodes(p, item.start, item.end, &plan->item_cuts);
    int rv;

    plan->prefix = PREFIX_NONE;
    plan->prefix_len = 0;
    plan->item_len = found.len;
    if (found.gets_below || (found.gets && found.implicit && p->memo_explicit)) {
        /* In the second case the pad's indices could collide with explicit ones. */
        plan->prefix = PREFIX_REPLAY;
        rv = plan_replay(p, item, plan);
        if (rv != TQ_OK)
            return rv;
        found = survey_opcodes(p, 0, item.start, &plan->prefix_cuts);
        plan->prefix_len = found.len + plan->marks + plan->values;
    } else if (found.gets && found.implicit) {
        plan->pad = survey_opcodes(p, 0, item.start, &plan->prefix_cuts).puts;
        if (plan->pad > 0) {
            plan->prefix = PREFIX_PAD;
            plan->prefix_len = (uint64_t)plan->pad + 2;
        }
    }
    return TQ_OK;
}

static uint8_t *put_prefix(uint8_t *out, const struct tq_pickle *p, uint32_t item_start,
                           const struct plan *plan)
{
    if (plan->prefix == PREFIX_PAD) {
        *out++ = PK_NONE;
        memset(out, PK_MEMOIZE, plan->pad);
        out += plan->pad;
        *out++ = PK_POP;
    } else if (plan->prefix == PREFIX_REPLAY) {
        out = put_kept(out, p->input.data, 0, item_start, &plan->prefix_cuts);
        memset(out, PK_POP_MARK, plan->marks);
        out += plan->marks;
        memset(out, PK_POP, plan->values);
        out += plan->values;
    }
    return out;
}

int tq_item_from_request(const struct tq_pickle *request, struct tq_pk_range item, struct tq_body **ret_body)
{
    const uint8_t *data = request->input.data;
    struct plan plan;
    struct tq_body *body;
    uint64_t len;
    uint8_t *out;
    int rv;

    if (item.start >= item.end || item.end > request->input.len)
        return TQ_EPROTO;
    /* A copy of something below the item; and what only a hand-made pickle does behind it. */
    if (data[item.start] == PK_DUP || request->alias_write >= item.end)
        return TQ_EPROTO;
    rv = make_plan(request, item, &plan);
    if (rv != TQ_OK)
        return rv;
    len = 2 + plan.prefix_len + RETURN_TAG_LEN + plan.item_len + 2;
    if (len > INT32_MAX)
        return TQ_ELIMIT;
    body = tq_body_new((uint32_t)len + 4);
    if (body == NULL)
        return TQ_ENOMEM;
    tq_store_be32(body->data, (uint32_t)len);
    out = body->data + 4;
    *out++ = PK_PROTO;
    if (request->proto == 5)
        *out++ = 4; /* nothing of protocol 5 is kept */
    else
        *out++ = request->proto < 2 ? 2 : request->proto; /* TUPLE2; a reader treats 0 to 2 alike */
    out = put_prefix(out, request, item.start, &plan);
    out = put_bytes(out, return_tag, RETURN_TAG_LEN);
    body->item_off = (uint32_t)(out - body->data);
    body->item_len = (uint32_t)plan.item_len;
    body->flavor = TQ_BODY_PYTHON_REPLY;
    out = put_kept(out, data, item.start, item.end, &plan.item_cuts);
    *out++ = PK_TUPLE2;
    *out++ = PK_STOP;
    TQ_ASSERT(out == body->data + body->len);
    *ret_body = body;
    return TQ_OK;
}
