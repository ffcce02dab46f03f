/* What a master sends, read by the client's half of the native dialect: whatever the bytes, spans stay within
 * the frame and lists are as long as they say. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "proto/native/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tq_span g_frame;

static void within(struct tq_span s)
{
    if (s.len > 0)
        TQ_ASSERT(s.data >= g_frame.data && s.len <= g_frame.len &&
                  (size_t)(s.data - g_frame.data) <= g_frame.len - s.len);
}

static void read_leases(struct tq_native_list list)
{
    struct tq_native_lease lease;
    uint32_t left = list.left;

    while (tq_native_next_lease(&list, &lease))
        left--;
    TQ_ASSERT(left == 0 && list.left == 0);
}

static void read_answer(struct tq_span body)
{
    struct tq_native_answer a;
    struct tq_native_refusal refusal;
    struct tq_native_task task;
    const char *why = NULL;
    uint32_t left;
    size_t len;

    if (tq_native_read_answer(&a, body, &why) != TQ_OK) {
        TQ_ASSERT(why != NULL);
        return;
    }
    within(a.get_code);
    within(a.get_text);
    for (left = a.refused.left; tq_native_next_refusal(&a.refused, &refusal); left--)
        within(refusal.code);
    TQ_ASSERT(left == 0);
    for (left = a.tasks.left; tq_native_next_task(&a.tasks, &task); left--) {
        within(task.body);
        within(task.key);
        within(task.trace);
        within(task.error);
        TQ_ASSERT(tq_mp_walk(task.body, &len, &why) == TQ_OK && len == task.body.len);
    }
    TQ_ASSERT(left == 0);
}

static void read_body(struct tq_span body)
{
    struct tq_native_welcome w;
    struct tq_native_list lost;
    struct tq_span code, text;
    const char *why = NULL;

    within(body);
    TQ_ASSERT(tq_mp_walk_all(body, &why) == TQ_OK);
    if (tq_native_read_welcome(&w, body, &why) == TQ_OK) {
        within(w.server), within(w.key), within(w.role), within(w.worker), within(w.token);
        TQ_ASSERT(w.version == 1 && w.max_batch > 0 && w.max_calls > 0 && w.max_frame_bytes > 0);
        TQ_ASSERT(w.token.len == 0 || w.token.len == TQ_NATIVE_TOKEN_BYTES);
        read_leases(w.leases);
    }
    if (tq_native_read_lost(&lost, body, &why) == TQ_OK)
        read_leases(lost);
    tq_native_read_words(body, &code, &text);
    within(code), within(text);
    read_answer(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    struct tq_native_message m;
    const char *why = NULL;

    TQ_ASSERT(bytes != NULL);
    if (size > 0)
        memcpy(bytes, data, size);
    g_frame = tq_span(bytes, size);
    if (tq_native_read(&m, g_frame, &why) != TQ_OK) {
        TQ_ASSERT(why != NULL);
    } else {
        within(m.method), within(m.code), within(m.text);
        if (m.kind != TQ_NATIVE_ERROR)
            read_body(m.body);
    }
    free(bytes);
    return 0;
}
