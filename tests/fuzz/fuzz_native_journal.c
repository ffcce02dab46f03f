/* What a log says of sessions, whatever it says: it is refused with a reason, or there are sessions; and what
 * is then written of them makes the same ones again. Input: pieces of [how, length, length, bytes...]. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "tests/lib/native_host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HOW_GONE = 1, HOW_NEXT_SEGMENT = 2, HOW_UNKNOWN_OP = 4 };

static void read_op(struct native_rig *r, uint8_t op, struct tq_span bytes, uint64_t segment)
{
    uint8_t *copy = malloc(bytes.len > 0 ? bytes.len : 1); /* a read behind its end is noticed */
    char text[200] = "";
    int rv;

    TQ_ASSERT(copy != NULL);
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    rv = native_restore_op(r->native, op, tq_span(copy, bytes.len), segment, text);
    TQ_ASSERT(rv == TQ_OK || (rv == TQ_EINVAL && text[0] != '\0' && strlen(text) < sizeof(text)));
    free(copy);
}

static void begin(struct native_rig *r)
{
    bool good = native_rig_init(r, NULL);

    TQ_ASSERT(good);
    native_journal_enable(r->native);
}

/* All that there is, written anew. */
static void write_all(struct native_rig *r, uint64_t segment, struct tq_buf *out)
{
    int rv = native_restore_finish(r->native);

    TQ_ASSERT(rv == TQ_OK);
    native_restore_wait(r->native);
    native_journal_move(r->native, segment - 1);
    while (native_journal_has_news(r->native)) {
        rv = native_journal_collect(r->native, segment, out);
        TQ_ASSERT(rv == TQ_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tq_buf first = TQ_BUF_NULL(1u << 26), second = TQ_BUF_NULL(1u << 26);
    struct tq_span in, body;
    struct native_rig r;
    uint64_t segment = 1, sessions, again;
    size_t gone_bytes = 0;
    uint8_t op = 0;

    begin(&r);
    r.gone_keys[3] = true;
    while (size >= 3) {
        size_t len = (size_t)data[1] << 8 | data[2];
        uint8_t how = data[0];

        data += 3;
        size -= 3;
        if (len > size)
            len = size;
        segment += (how & HOW_NEXT_SEGMENT) != 0;
        op = (how & HOW_GONE) != 0 ? OPS_SESSION_GONE : OPS_SESSION;
        read_op(&r, (how & HOW_UNKNOWN_OP) != 0 ? (uint8_t)(op + 2) : op, tq_span(data, len), segment);
        data += len;
        size -= len;
    }
    write_all(&r, segment + 1, &first);
    TQ_ASSERT(native_journal_live_bytes(r.native, &sessions) <= first.len);
    native_rig_deinit(&r);

    begin(&r);
    for (in = tq_buf_span(&first); in.len > 0;) {
        bool good = ops_get_u8(&in, &op) && ops_get_text(&in, 1000, &body);
        char text[200];

        TQ_ASSERT(good && native_restore_op(r.native, op, body, 1, text) == TQ_OK);
        if (op == OPS_SESSION_GONE) /* it comes first, and is not written again */
            gone_bytes = (size_t)(in.data - first.data);
    }
    tq_buf_consume(&first, gone_bytes);
    write_all(&r, 2, &second);
    (void)native_journal_live_bytes(r.native, &again);
    TQ_ASSERT(again == sessions && tq_span_eq(tq_buf_span(&first), tq_buf_span(&second)));
    native_rig_deinit(&r);
    tq_buf_deinit(&first);
    tq_buf_deinit(&second);
    return 0;
}
