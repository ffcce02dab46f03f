/* Bodies across the dialects, for Python to check. Records as in records.h.
 *
 *   convert_tool items   stdin: requests that put something; for each one: V the item as msgpack, then R the
 *                        pickle of the reply frame that was made of that; or X why there is none.
 *   convert_tool values  stdin: msgpack values; for each one R the pickle of its reply frame, or X.
 *
 * On the way: what was converted there and back again must stay the same. */
#include "tests/tools/records.h"

#include "proto/native/convert.h"
#include "proto/native/mp.h"

#define MAX_BYTES (256u << 20)

static void to_msgpack(struct tq_span frame, uint32_t item_off, uint32_t item_len, struct tq_buf *out)
{
    const char *why = "";

    tq_buf_clear(out);
    if (tq_convert_to_msgpack(frame, item_off, item_len, MAX_BYTES, out) != TQ_OK)
        die("no msgpack");
    if (tq_mp_walk_all(tq_buf_span(out), &why) != TQ_OK)
        die(why);
}

static bool is_pickle(struct tq_span value)
{
    struct tq_mp in = tq_mp_of(value);
    struct tq_span bytes;
    int8_t type = 0;

    return tq_mp_ext(&in, &type, &bytes) && type == TQ_EXT_PICKLE;
}

/* `frame` becomes that of `value`. The way back of its item must lead to it again. */
static int to_python(struct tq_span value, struct tq_buf *frame)
{
    struct tq_buf back = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf again = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf last = TQ_BUF_NULL(MAX_BYTES);
    uint32_t item_off, item_len;
    int rv;

    tq_buf_clear(frame);
    rv = tq_convert_to_python(value, frame, &item_off, &item_len);
    if (rv != TQ_OK)
        return rv;
    if (tq_load_be32(frame->data) != frame->len - 4)
        die("the length in front of a reply is wrong");
    to_msgpack(tq_buf_span(frame), item_off, item_len, &back);
    if (tq_convert_to_python(tq_buf_span(&back), &again, &item_off, &item_len) != TQ_OK)
        die("no way back");
    to_msgpack(tq_buf_span(&again), item_off, item_len, &last);
    if (!tq_span_eq(tq_buf_span(&back), tq_buf_span(&last)))
        die("another value after going there and back");
    if (is_pickle(tq_buf_span(&back)) && !tq_span_eq(tq_buf_span(frame), tq_buf_span(&again)))
        die("another pickle after going there and back");
    tq_buf_deinit(&back);
    tq_buf_deinit(&again);
    tq_buf_deinit(&last);
    return TQ_OK;
}

static void answer(struct tq_span frame)
{
    write_record('R', frame.data + 4, frame.len - 4);
}

static void run_item(struct tq_span request, struct tq_buf *value, struct tq_buf *frame)
{
    struct tq_pickle p;
    struct tq_pk_range item;
    struct tq_body *body = NULL;
    const char *why = "";
    int rv = tq_pickle_scan(&p, request, &why);

    if (rv == TQ_OK) {
        why = "no item";
        if (find_item(&p, &item)) {
            rv = tq_item_from_request(&p, item, &body);
            why = tq_strerror(rv);
        }
        tq_pickle_deinit(&p);
    }
    if (body == NULL) {
        write_record('X', why, strlen(why));
        return;
    }
    to_msgpack(tq_span(body->data, body->len), body->item_off, body->item_len, value);
    if (to_python(tq_buf_span(value), frame) != TQ_OK)
        die("the pickle of an item was refused");
    if (is_pickle(tq_buf_span(value)) && !tq_span_eq(tq_buf_span(frame), tq_span(body->data, body->len)))
        die("the way back was not faithful");
    write_record('V', value->data, value->len);
    answer(tq_buf_span(frame));
    tq_body_unref(body);
}

static void run_value(struct tq_span value, struct tq_buf *frame)
{
    const char *why = "";
    int rv = tq_mp_walk_all(value, &why);

    if (rv == TQ_OK) {
        rv = to_python(value, frame);
        why = tq_strerror(rv);
    }
    if (rv == TQ_OK)
        answer(tq_buf_span(frame));
    else
        write_record('X', why, strlen(why));
}

int main(int argc, char **argv)
{
    bool items = argc == 2 && strcmp(argv[1], "items") == 0;
    struct tq_buf value = TQ_BUF_NULL(MAX_BYTES);
    struct tq_buf frame = TQ_BUF_NULL(MAX_BYTES);
    uint8_t *data;
    size_t len;

    if (!items && (argc != 2 || strcmp(argv[1], "values") != 0))
        die("say items or values");
    while (read_record(&data, &len)) {
        if (items)
            run_item(tq_span(data, len), &value, &frame);
        else
            run_value(tq_span(data, len), &frame);
        free(data);
    }
    tq_buf_deinit(&value);
    tq_buf_deinit(&frame);
    return fflush(stdout) == 0 ? 0 : 1;
}
