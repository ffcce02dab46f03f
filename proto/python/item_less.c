/* `a < b` for items as Python decides it. */
#include <stdio.h>

#include "proto/python/item.h"
#include "proto/python/number.h"
#include "proto/python/pickle_ops.h"
#include "proto/python/text.h"

#include "common/err.h"
#include "common/mem.h"

#define DEPTH_MAX 200

/* A comparison may look at so many bytes: shared references can make a small item endless, and the caller
 * serves others meanwhile. */
#define WORK_BASE  (16u << 20)
#define WORK_SCALE 16u
#define WORK_STEP  48u /* of each comparison of two values, whatever their size */

/* Positive results inside: there is a text in the comparison. */
#define NOT_COMPARABLE 1

struct comparison {
    struct tq_pickle a;
    struct tq_pickle b;
    uint64_t work;
    uint64_t work_max;
    unsigned depth;
    char *text;
};

static const char *const kind_names[] = {
    [TQ_PK_NONE] = "NoneType", [TQ_PK_BOOL] = "bool", [TQ_PK_INT] = "int",     [TQ_PK_BIGINT] = "int",
    [TQ_PK_FLOAT] = "float",   [TQ_PK_STR] = "str",   [TQ_PK_BYTES] = "bytes", [TQ_PK_TUPLE] = "tuple",
    [TQ_PK_LIST] = "list",     [TQ_PK_DICT] = "dict", [TQ_PK_SET] = "set",     [TQ_PK_OTHER] = "object",
};

static int refuse(struct comparison *c, const char *text)
{
    snprintf(c->text, TQ_ITEM_TEXT_MAX, "%s", text);
    return NOT_COMPARABLE;
}

/* A type's name for the message: that of the class when the item says it. */
static void name_of(const struct tq_pickle *p, struct tq_pk_range r, const struct tq_pk_value *v, char *out,
                    size_t out_size)
{
    const char *name = kind_names[v->kind];
    struct tq_span module;
    struct tq_span cls;
    size_t n = 0;

    if (v->kind == TQ_PK_OTHER)
        name = tq_pk_type_name(p, r);
    snprintf(out, out_size, "%s", name);
    if (v->kind != TQ_PK_OTHER || strcmp(name, "object") != 0 || v->opcode == PK_GLOBAL ||
        v->opcode == PK_STACK_GLOBAL || tq_pk_class_of(p, r, &module, &cls) != TQ_OK)
        return;
    for (size_t i = cls.len; i > 0; i--) { /* the last part of a dotted name */
        if (cls.data[i - 1] == '.') {
            cls = tq_span(cls.data + i, cls.len - i);
            break;
        }
    }
    /* A leading underscore: a helper function of copyreg, _codecs, ..., not a class. */
    if (cls.len == 0 || cls.data[0] == '_' || tq_span_is(module, "_codecs"))
        return;
    for (; n < cls.len && n < out_size - 1; n++) {
        if (cls.data[n] <= ' ' || cls.data[n] >= 0x7f)
            return;
    }
    snprintf(out, out_size, "%.*s", (int)n, (const char *)cls.data);
}

static int refuse_types(struct comparison *c, struct tq_pk_range a, const struct tq_pk_value *va,
                        struct tq_pk_range b, const struct tq_pk_value *vb)
{
    char name_a[64];
    char name_b[64];

    name_of(&c->a, a, va, name_a, sizeof(name_a));
    name_of(&c->b, b, vb, name_b, sizeof(name_b));
    snprintf(c->text, TQ_ITEM_TEXT_MAX, "'<' not supported between instances of '%s' and '%s'", name_a,
             name_b);
    return NOT_COMPARABLE;
}

/* Opens both values; on failure neither needs closing. */
static int open_both(struct comparison *c, struct tq_pk_range a, struct tq_pk_view *va, struct tq_pk_range b,
                     struct tq_pk_view *vb)
{
    int rv;

    c->work += WORK_STEP;
    if (c->work > c->work_max)
        return refuse(c, "items too large to compare");
    rv = tq_pk_view_open(&c->a, a, va, &c->work);
    if (rv != TQ_OK)
        return rv == TQ_ENOMEM ? rv : refuse(c, "item with a malformed value");
    rv = tq_pk_view_open(&c->b, b, vb, &c->work);
    if (rv != TQ_OK) {
        tq_pk_view_close(va);
        return rv == TQ_ENOMEM ? rv : refuse(c, "item with a malformed value");
    }
    return TQ_OK;
}

static int compare_numbers(struct comparison *c, const struct tq_pk_value *a, const struct tq_pk_value *b,
                           enum tq_order *ret_order)
{
    if (tq_number_compare(a, b, ret_order) != TQ_OK)
        return refuse(c, "Exceeds the limit (4300 digits) for integer string conversion");
    return TQ_OK;
}

static int equal(struct comparison *c, struct tq_pk_range a, struct tq_pk_range b, bool *ret_equal);

static int equal_sequences(struct comparison *c, const struct tq_pk_view *a, const struct tq_pk_view *b,
                           bool *ret_equal)
{
    *ret_equal = a->count == b->count;
    for (uint32_t i = 0; i < a->count && *ret_equal; i++) {
        int rv = equal(c, a->list[i], b->list[i], ret_equal);

        if (rv != TQ_OK)
            return rv;
    }
    return TQ_OK;
}

/* Each key (and its value, with step 2) of a is in b. They mostly stand in the same order, so the search
 * begins where the last one ended. */
static int equal_unordered(struct comparison *c, const struct tq_pk_view *a, const struct tq_pk_view *b,
                           uint32_t step, bool *ret_equal)
{
    uint32_t k = 0;

    *ret_equal = a->count == b->count;
    for (uint32_t i = 0; i < a->count && *ret_equal; i += step) {
        bool found = false;

        for (uint32_t tries = 0; tries < b->count && !found; tries += step) {
            int rv = equal(c, a->list[i], b->list[k], &found);

            if (rv == TQ_OK && found && step == 2)
                rv = equal(c, a->list[i + 1], b->list[k + 1], ret_equal);
            if (rv != TQ_OK)
                return rv;
            k = k + step < b->count ? k + step : 0;
        }
        *ret_equal = *ret_equal && found;
    }
    return TQ_OK;
}

static int equal_views(struct comparison *c, const struct tq_pk_view *a, const struct tq_pk_view *b,
                       bool *ret_equal)
{
    enum tq_order order;
    int rv;

    *ret_equal = false;
    if (tq_number_is(&a->value) && tq_number_is(&b->value)) {
        rv = compare_numbers(c, &a->value, &b->value, &order);
        if (rv == TQ_OK)
            *ret_equal = order == TQ_EQUAL;
        return rv;
    }
    if (a->value.kind != b->value.kind)
        return TQ_OK;
    switch (a->value.kind) {
    case TQ_PK_NONE:
        *ret_equal = true;
        return TQ_OK;
    case TQ_PK_STR:
        *ret_equal = tq_text_compare(&a->value, &b->value) == 0;
        return TQ_OK;
    case TQ_PK_BYTES:
        *ret_equal = tq_span_eq(a->value.bytes, b->value.bytes);
        return TQ_OK;
    case TQ_PK_TUPLE:
    case TQ_PK_LIST:
        return equal_sequences(c, a, b, ret_equal);
    case TQ_PK_DICT:
        return equal_unordered(c, a, b, 2, ret_equal);
    case TQ_PK_SET:
        return equal_unordered(c, a, b, 1, ret_equal);
    default:
        return TQ_OK; /* two objects of which only Python knows; by default they differ */
    }
}

static int enter(struct comparison *c)
{
    if (c->depth == DEPTH_MAX)
        return refuse(c, "maximum recursion depth exceeded in comparison");
    c->depth++;
    return TQ_OK;
}

static int equal(struct comparison *c, struct tq_pk_range a, struct tq_pk_range b, bool *ret_equal)
{
    struct tq_pk_view va;
    struct tq_pk_view vb;
    int rv = enter(c);

    if (rv != TQ_OK)
        return rv;
    rv = open_both(c, a, &va, b, &vb);
    if (rv == TQ_OK) {
        rv = equal_views(c, &va, &vb, ret_equal);
        tq_pk_view_close(&va);
        tq_pk_view_close(&vb);
    }
    c->depth--;
    return rv;
}

static bool is_sequence(const struct tq_pk_value *v)
{
    return v->kind == TQ_PK_TUPLE || v->kind == TQ_PK_LIST;
}

/* The first pair that is not equal: 0 and *ret_index, which is the shorter one's count when all are. */
static int first_difference(struct comparison *c, const struct tq_pk_view *a, const struct tq_pk_view *b,
                            uint32_t *ret_index)
{
    uint32_t n = a->count < b->count ? a->count : b->count;
    uint32_t i = 0;

    for (; i < n; i++) {
        bool same = false;
        int rv = equal(c, a->list[i], b->list[i], &same);

        if (rv != TQ_OK)
            return rv;
        if (!same)
            break;
    }
    *ret_index = i;
    return TQ_OK;
}

/* 1 with *ret_index: the comparison goes on between these elements. */
static int less_views(struct comparison *c, struct tq_pk_range a, const struct tq_pk_view *va,
                      struct tq_pk_range b, const struct tq_pk_view *vb, bool *ret_less, bool *ret_deeper,
                      uint32_t *ret_index)
{
    const struct tq_pk_value *x = &va->value;
    const struct tq_pk_value *y = &vb->value;
    enum tq_order order;
    int rv;

    if (tq_number_is(x) && tq_number_is(y)) {
        rv = compare_numbers(c, x, y, &order);
        if (rv == TQ_OK)
            *ret_less = order == TQ_LESS;
        return rv;
    }
    if (x->kind == y->kind && x->kind == TQ_PK_STR) {
        *ret_less = tq_text_compare(x, y) < 0;
        return TQ_OK;
    }
    if (x->kind == y->kind && x->kind == TQ_PK_BYTES) {
        *ret_less = tq_span_compare(x->bytes, y->bytes) < 0;
        return TQ_OK;
    }
    if (x->kind != y->kind || !is_sequence(x))
        return refuse_types(c, a, x, b, y);
    rv = first_difference(c, va, vb, ret_index);
    if (rv != TQ_OK)
        return rv;
    if (*ret_index < va->count && *ret_index < vb->count)
        *ret_deeper = true;
    else
        *ret_less = va->count < vb->count;
    return TQ_OK;
}

static int less(struct comparison *c, struct tq_pk_range a, struct tq_pk_range b, bool *ret_less)
{
    for (;;) {
        struct tq_pk_view va;
        struct tq_pk_view vb;
        bool deeper = false;
        uint32_t index = 0;
        int rv = enter(c);

        if (rv != TQ_OK)
            return rv;
        rv = open_both(c, a, &va, b, &vb);
        if (rv != TQ_OK)
            return rv;
        rv = less_views(c, a, &va, b, &vb, ret_less, &deeper, &index);
        if (deeper) {
            a = va.list[index];
            b = vb.list[index];
        }
        tq_pk_view_close(&va);
        tq_pk_view_close(&vb);
        if (rv != TQ_OK || !deeper)
            return rv;
    }
}

/* The item itself when it is one scalar: no scan is needed. */
static bool quick_scalar(const struct tq_item_frame *item, struct tq_pk_value *v)
{
    uint32_t end = item->item_off + item->item_len;
    const struct tq_pk_op *op = &tq_pk_ops[item->frame.data[item->item_off]];
    uint32_t next;

    if (op->act != PK_ACT_PUSH || op->kind == TQ_PK_OTHER)
        return false;
    next = tq_pk_op_end(item->frame.data, item->item_off, end, op);
    return next != TQ_PK_CUT && next != TQ_PK_BAD &&
           tq_pk_skip_trailing(item->frame.data, next, end) == end &&
           tq_pk_scalar(item->frame.data, item->item_off, next, v) == TQ_OK;
}

static int scan_frame(struct comparison *c, struct tq_pickle *p, const struct tq_item_frame *item)
{
    const char *why;
    int rv = tq_pickle_scan(p, tq_span(item->frame.data + 4, item->frame.len - 4), &why);

    if (rv == TQ_OK && p->top_count != 2) {
        tq_pickle_deinit(p);
        rv = TQ_EPROTO;
    }
    if (rv == TQ_OK || rv == TQ_ENOMEM)
        return rv;
    return refuse(c, "item with a malformed value");
}

int tq_item_frame_less(const struct tq_item_frame *a, const struct tq_item_frame *b, bool *ret_less,
                       char text[TQ_ITEM_TEXT_MAX])
{
    struct comparison c;
    struct tq_pk_value x;
    struct tq_pk_value y;
    int rv;

    c.text = text;
    c.depth = 0;
    c.work = 0;
    c.work_max = WORK_BASE + (uint64_t)WORK_SCALE * ((uint64_t)a->frame.len + b->frame.len);
    if (quick_scalar(a, &x) && quick_scalar(b, &y)) {
        enum tq_order order;

        if (tq_number_is(&x) && tq_number_is(&y)) {
            rv = compare_numbers(&c, &x, &y, &order);
            if (rv == TQ_OK)
                *ret_less = order == TQ_LESS;
            return rv;
        }
        if (x.kind == y.kind && (x.kind == TQ_PK_STR || x.kind == TQ_PK_BYTES)) {
            *ret_less =
                (x.kind == TQ_PK_STR ? tq_text_compare(&x, &y) : tq_span_compare(x.bytes, y.bytes)) < 0;
            return TQ_OK;
        }
    }
    rv = scan_frame(&c, &c.a, a);
    if (rv != TQ_OK)
        return rv;
    rv = scan_frame(&c, &c.b, b);
    if (rv == TQ_OK) {
        rv = less(&c, c.a.top[1], c.b.top[1], ret_less);
        tq_pickle_deinit(&c.b);
    }
    tq_pickle_deinit(&c.a);
    return rv;
}

int tq_item_less(const struct tq_body *a, const struct tq_body *b, bool *ret_less,
                 char text[TQ_ITEM_TEXT_MAX])
{
    struct tq_item_frame x = {tq_span(a->data, a->len), a->item_off, a->item_len};
    struct tq_item_frame y = {tq_span(b->data, b->len), b->item_off, b->item_len};

    return tq_item_frame_less(&x, &y, ret_less, text);
}
