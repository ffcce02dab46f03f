/* Bodies across the dialects, both ways. The first byte says what the rest is: a pickle, of which each part
 * is taken as an item; the opcodes of an item and of what stands in front of it, put into a frame as they
 * are; or a msgpack value. Whatever comes of it is converted there and back again, and must stay. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "proto/native/convert.h"
#include "proto/native/mp.h"
#include "proto/python/item.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_BYTES    (16u << 20)
#define RETURN       "X\7\0\0\0#RETURN"
#define RETURN_BYTES 12u
#define ITEMS_MAX    8

/* A frame, and where its item is. */
struct frame {
    struct tq_buf buf;
    uint32_t item_off;
    uint32_t item_len;
};

static int to_msgpack(const struct frame *f, size_t max_bytes, struct tq_buf *out)
{
    size_t before = out->len;
    /* A copy of its own, so that a read behind it is noticed. */
    uint8_t *copy = malloc(f->buf.len);
    const char *why = NULL;
    int rv;

    TQ_ASSERT(copy != NULL);
    memcpy(copy, f->buf.data, f->buf.len);
    rv = tq_convert_to_msgpack(tq_span(copy, f->buf.len), f->item_off, f->item_len, max_bytes, out);
    free(copy);
    if (rv == TQ_OK) {
        TQ_ASSERT(out->len > before && out->len - before <= max_bytes);
        TQ_ASSERT(tq_mp_walk_all(tq_span(out->data + before, out->len - before), &why) == TQ_OK);
    } else {
        TQ_ASSERT(rv == TQ_ELIMIT && out->len == before);
    }
    return rv;
}

static bool is_pickle(struct tq_span value)
{
    struct tq_mp in = tq_mp_of(value);
    struct tq_span bytes;
    int8_t type = 0;

    return tq_mp_ext(&in, &type, &bytes) && type == TQ_EXT_PICKLE;
}

/* Everything that the master does with a frame. */
static void check_frame(const struct frame *f)
{
    char text[TQ_ITEM_TEXT_MAX];
    struct tq_body *body;
    struct tq_pickle p;
    const char *why = NULL;
    bool less = false;

    TQ_ASSERT(tq_load_be32(f->buf.data) == f->buf.len - 4);
    TQ_ASSERT((uint64_t)f->item_off + f->item_len + 2 == f->buf.len);
    TQ_ASSERT(memcmp(f->buf.data + f->item_off - RETURN_BYTES, RETURN, RETURN_BYTES) == 0);
    TQ_ASSERT(tq_pickle_scan(&p, tq_span(f->buf.data + 4, f->buf.len - 4), &why) == TQ_OK);
    TQ_ASSERT(p.top_count == 2 && p.top[1].start + 4 >= f->item_off && p.top[1].end + 6 == f->buf.len);
    TQ_ASSERT(p.proto >= 2 && p.proto <= 4 && p.highest_proto <= 4);
    tq_pickle_deinit(&p);
    body = tq_body_new((uint32_t)f->buf.len);
    memcpy(body->data, f->buf.data, f->buf.len);
    body->item_off = f->item_off;
    body->item_len = f->item_len;
    TQ_ASSERT(tq_item_less(body, body, &less, text) == 1 || !less);
    tq_body_unref(body);
}

static int to_python(struct tq_span value, struct frame *f)
{
    uint8_t *copy = malloc(value.len);
    int rv;

    TQ_ASSERT(copy != NULL);
    memcpy(copy, value.data, value.len);
    tq_buf_clear(&f->buf);
    rv = tq_convert_to_python(tq_span(copy, value.len), &f->buf, &f->item_off, &f->item_len);
    free(copy);
    if (rv == TQ_OK)
        check_frame(f);
    else
        TQ_ASSERT((rv == TQ_EPROTO || rv == TQ_ELIMIT) && f->buf.len == 0);
    return rv;
}

/* From a value: there, back and there again. Pickles that the reader does not take end here. */
static void check_value(struct tq_span value)
{
    struct frame first = {.buf = TQ_BUF_NULL(MAX_BYTES)};
    struct frame again = {.buf = TQ_BUF_NULL(MAX_BYTES)};
    struct tq_buf back = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf last = TQ_BUF_NULL(MAX_BYTES);

    if (to_python(value, &first) == TQ_OK && to_msgpack(&first, MAX_BYTES, &back) == TQ_OK &&
        to_python(tq_buf_span(&back), &again) == TQ_OK && to_msgpack(&again, MAX_BYTES, &last) == TQ_OK) {
        TQ_ASSERT(tq_span_eq(tq_buf_span(&back), tq_buf_span(&last)));
        if (is_pickle(tq_buf_span(&back)) && !is_pickle(value))
            TQ_ASSERT(tq_span_eq(tq_buf_span(&first.buf), tq_buf_span(&again.buf)));
    }
    tq_buf_deinit(&first.buf);
    tq_buf_deinit(&again.buf);
    tq_buf_deinit(&back);
    tq_buf_deinit(&last);
}

static void check_item(const struct frame *f)
{
    struct tq_buf value = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf small = TQ_BUF_NULL(MAX_BYTES);

    if (to_msgpack(f, MAX_BYTES, &value) == TQ_OK) {
        check_value(tq_buf_span(&value));
        /* The limit is exact: what it cuts off is an ext or nothing. */
        if (to_msgpack(f, value.len - 1, &small) == TQ_OK)
            TQ_ASSERT(is_pickle(tq_buf_span(&small)) && !is_pickle(tq_buf_span(&value)));
    }
    tq_buf_deinit(&value);
    tq_buf_deinit(&small);
}

static void check_part(const struct tq_pickle *p, struct tq_pk_range r)
{
    struct tq_body *body = NULL;
    struct frame f = {.buf = TQ_BUF_NULL(SIZE_MAX)};
    int rv = tq_item_from_request(p, r, &body);

    TQ_ASSERT(rv == TQ_OK || rv == TQ_EPROTO);
    if (rv != TQ_OK)
        return;
    f.buf = (struct tq_buf){.data = body->data, .len = body->len, .cap = body->len, .max = body->len};
    f.item_off = body->item_off;
    f.item_len = body->item_len;
    check_item(&f);
    tq_body_unref(body);
}

static void check_pickle(struct tq_span pickle)
{
    struct tq_pk_range *list = NULL;
    struct tq_pickle p;
    const char *why = NULL;
    uint32_t count = 0;

    if (tq_pickle_scan(&p, pickle, &why) != TQ_OK)
        return;
    check_part(&p, p.value);
    if (tq_pk_children(&p, p.value, &list, &count) == TQ_OK)
        for (uint32_t i = 0; i < count && i < ITEMS_MAX; i++)
            check_part(&p, list[i]);
    tq_free(list);
    tq_pickle_deinit(&p);
}

/* The first byte: the length of what is put in front. */
static void check_opcodes(struct tq_span opcodes)
{
    struct frame f = {.buf = TQ_BUF_NULL(SIZE_MAX)};
    uint8_t length[4];
    size_t front;

    if (opcodes.len < 2)
        return;
    front = opcodes.data[0] % (opcodes.len - 1);
    TQ_ASSERT(tq_buf_append(&f.buf, "\0\0\0\0\x80\4", 6) == TQ_OK);
    TQ_ASSERT(tq_buf_append(&f.buf, opcodes.data + 1, front) == TQ_OK);
    TQ_ASSERT(tq_buf_append(&f.buf, RETURN, RETURN_BYTES) == TQ_OK);
    f.item_off = (uint32_t)f.buf.len;
    f.item_len = (uint32_t)(opcodes.len - 1 - front);
    TQ_ASSERT(tq_buf_append(&f.buf, opcodes.data + 1 + front, f.item_len) == TQ_OK);
    TQ_ASSERT(tq_buf_append(&f.buf, "\x86.", 2) == TQ_OK);
    tq_store_be32(length, (uint32_t)f.buf.len - 4);
    memcpy(f.buf.data, length, sizeof(length));
    check_item(&f);
    tq_buf_deinit(&f.buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *why = NULL;
    struct tq_span rest;

    if (size == 0)
        return 0;
    rest = tq_span(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        check_pickle(rest);
        break;
    case 1:
        check_opcodes(rest);
        break;
    default:
        if (tq_mp_walk_all(rest, &why) == TQ_OK)
            check_value(rest);
        break;
    }
    return 0;
}
