/* The pickle reader: a scan; every value that can be reached is decoded and opened; the parts of the
 * top-level value are re-emitted as items, which must read as the same values; and items are compared. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "proto/python/item.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VALUES_MAX 400 /* looked at, of one input */
#define ITEMS_MAX  6

struct values {
    struct tq_pk_range list[VALUES_MAX];
    uint32_t count;
};

static void add(struct values *values, struct tq_pk_range r)
{
    if (values->count < VALUES_MAX)
        values->list[values->count++] = r;
}

static void check_inside(const struct tq_pickle *p, struct tq_pk_range r)
{
    TQ_ASSERT(r.start < r.end && r.end <= p->input.len);
}

static void look(const struct tq_pickle *p, struct tq_pk_range r, struct values *values)
{
    struct tq_pk_value v = {.kind = TQ_PK_OTHER};
    struct tq_pk_range *list = NULL;
    struct tq_pk_range part;
    struct tq_span module, name;
    uint32_t count = 0;
    int rv = tq_pk_decode(p, r, &v);

    TQ_ASSERT(rv == TQ_OK || rv == TQ_EPROTO);
    if (rv == TQ_OK && (v.kind == TQ_PK_STR || v.kind == TQ_PK_BYTES || v.kind == TQ_PK_BIGINT))
        TQ_ASSERT(v.bytes.data >= p->input.data &&
                  v.bytes.data + v.bytes.len <= p->input.data + p->input.len);
    tq_pk_truth(p, r);
    TQ_ASSERT(tq_pk_type_name(p, r)[0] != '\0');
    rv = tq_pk_children(p, r, &list, &count);
    TQ_ASSERT((rv == TQ_OK) == (v.kind >= TQ_PK_TUPLE && v.kind != TQ_PK_OTHER) || rv == TQ_ELIMIT);
    for (uint32_t i = 0; rv == TQ_OK && i < count; i++) {
        check_inside(p, list[i]);
        TQ_ASSERT(i == 0 || list[i].start >= list[i - 1].end);
        add(values, list[i]);
    }
    TQ_ASSERT(rv != TQ_OK || v.kind != TQ_PK_DICT || count % 2 == 0);
    tq_free(list);
    rv = tq_pk_class_of(p, r, &module, &name);
    TQ_ASSERT(rv == TQ_OK || rv == TQ_ENOTFOUND);
    for (int want_state = 0; want_state < 2; want_state++) {
        rv = tq_pk_reduce_args(p, r, want_state, &part);
        TQ_ASSERT(rv == TQ_OK || rv == TQ_ENOTFOUND);
        if (rv == TQ_OK) {
            check_inside(p, part);
            add(values, part);
        }
    }
}

static void check_same(const struct tq_pickle *p, struct tq_pk_range r, const struct tq_body *body)
{
    struct tq_pickle q;
    struct tq_pk_value v = {.kind = TQ_PK_OTHER};
    struct tq_pk_value w = {.kind = TQ_PK_OTHER};
    struct tq_pk_range *list = NULL;
    uint32_t count = 0, same_count = 0;
    const char *why = NULL;

    TQ_ASSERT(tq_load_be32(body->data) == body->len - 4);
    TQ_ASSERT((uint64_t)body->item_off + body->item_len + 2 == body->len);
    if (tq_pickle_scan(&q, tq_span(body->data + 4, body->len - 4), &why) != TQ_OK) {
        /* Explicit memo indices may be too high for the shorter pickle, or meet implicit ones. */
        TQ_ASSERT(p->memo_explicit);
        return;
    }
    TQ_ASSERT(q.top_count == 2 && q.top[1].start + 4 == body->item_off);
    TQ_ASSERT(q.top[1].end == body->len - 4 - 2);
    TQ_ASSERT(q.proto >= 2 && q.proto <= 4 && q.highest_proto <= 4);
    TQ_ASSERT(tq_pk_decode(p, r, &v) == tq_pk_decode(&q, q.top[1], &w));
    TQ_ASSERT(v.kind == w.kind && v.integer == w.integer && tq_span_eq(v.bytes, w.bytes));
    if (tq_pk_children(p, r, &list, &count) == TQ_OK) {
        tq_free(list);
        if (tq_pk_children(&q, q.top[1], &list, &same_count) == TQ_OK)
            tq_free(list);
        TQ_ASSERT(count == same_count);
    }
    tq_pickle_deinit(&q);
}

static void compare(const struct tq_body *a, const struct tq_body *b)
{
    char text[TQ_ITEM_TEXT_MAX] = "";
    bool less = false, greater = false;
    int rv = tq_item_less(a, b, &less, text);
    int back = tq_item_less(b, a, &greater, text);

    TQ_ASSERT(rv == TQ_OK || (rv == 1 && text[0] != '\0'));
    TQ_ASSERT(back == TQ_OK || back == 1);
    TQ_ASSERT(rv != TQ_OK || back != TQ_OK || !less || !greater);
    TQ_ASSERT(a != b || !less);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct values values;
    struct tq_body *items[ITEMS_MAX];
    struct tq_pickle p;
    const char *why = NULL;
    uint32_t item_count = 0;
    int rv = tq_pickle_scan(&p, tq_span(data, size), &why);

    TQ_ASSERT(rv == TQ_OK || (rv == TQ_EPROTO && why != NULL));
    if (rv != TQ_OK)
        return 0;
    values.count = 0;
    add(&values, p.value);
    for (uint32_t i = 0; i < p.top_count; i++) {
        check_inside(&p, p.top[i]);
        add(&values, p.top[i]);
    }
    for (uint32_t i = 0; i < values.count; i++)
        look(&p, values.list[i], &values);
    for (uint32_t i = 0; i < values.count && item_count < ITEMS_MAX; i++) {
        rv = tq_item_from_request(&p, values.list[i], &items[item_count]);
        TQ_ASSERT(rv == TQ_OK || rv == TQ_EPROTO);
        if (rv == TQ_OK)
            check_same(&p, values.list[i], items[item_count++]);
    }
    for (uint32_t i = 0; i < item_count; i++)
        for (uint32_t k = i; k < item_count; k++)
            compare(items[i], items[k]);
    for (uint32_t i = 0; i < item_count; i++)
        tq_body_unref(items[i]);
    tq_pickle_deinit(&p);
    return 0;
}
