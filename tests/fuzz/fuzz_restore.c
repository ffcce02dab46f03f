/* A broker out of ops. Byte 0: flags; then records, each with its length in front (2 bytes, little-endian;
 * the last one is what is left). What is taken has to hold together, to go on, and to be the same once more
 * when it is read from what it writes down itself. */
#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker_check.h"
#include "master/core/journal.h"
#include "master/core/restore.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SESSIONS = 1, DROP_ORPHANS = 2, LATER = 4, SEGMENTS = 8, LIMITED = 16 };

#define KNOWN 3 /* durable ids from 1 on */

struct run {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_effects fx;
    struct broker_session s[KNOWN];
    uint64_t now_ms;
    uint64_t orphans;
};

static int less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                char text[BROKER_TEXT_MAX])
{
    TQ_ASSERT(a->item_off + (uint64_t)a->item_len <= a->len && b->item_off + (uint64_t)b->item_len <= b->len);
    if (a->len == 0 || a->data[0] == 'U') {
        memcpy(text, "no order", 9);
        return 1;
    }
    *ret_less = b->len > 0 && a->data[0] < b->data[0];
    return 0;
}

static void check(const struct run *r)
{
    TQ_ASSERT(broker_check(r->b) == NULL);
}

static void step(struct run *r, const struct broker_event *ev)
{
    int rv = broker_step(r->b, r->now_ms, ev, &r->fx);

    TQ_ASSERT(rv == TQ_OK);
    broker_effects_clear(&r->fx);
}

static void init(struct run *r, uint8_t flags)
{
    struct broker_limits limits = {.queues = 5, .memory_bytes = (flags & LIMITED) != 0 ? 500 : 0};

    *r = (struct run){0};
    tq_deadlines_init(&r->deadlines);
    r->b = broker_new(&r->deadlines, &limits, less);
    TQ_ASSERT(r->b != NULL && broker_journal_enable(r->b) == TQ_OK);
}

static void deinit(struct run *r)
{
    broker_free(r->b);
    TQ_ASSERT(r->deadlines.count == 0);
    broker_effects_deinit(&r->fx);
    tq_deadlines_deinit(&r->deadlines);
}

static int on_host(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment, char text[RESTORE_TEXT_MAX])
{
    (void)ctx, (void)op, (void)segment;
    memcpy(text, "refused", 8);
    return bytes.len > 3 ? TQ_EINVAL : TQ_OK;
}

static struct broker_session *session_of(void *ctx, uint64_t durable_id)
{
    struct run *r = ctx;

    return durable_id >= 1 && durable_id <= KNOWN && r->s[durable_id - 1].open ? &r->s[durable_id - 1] : NULL;
}

static void open_sessions(struct run *r)
{
    for (uint64_t i = 0; i < KNOWN; i++) {
        r->s[i].native = true;
        r->s[i].durable_id = i + 1;
        step(r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &r->s[i]});
        if (i > 0)
            step(r, &(struct broker_event){.kind = BROKER_DETACH, .session = &r->s[i]});
    }
}

/* The next record off the front of *in. */
static struct tq_span next_record(struct tq_span *in)
{
    struct tq_span rec = *in;

    if (in->len >= 2) {
        size_t len = (size_t)(in->data[0] | in->data[1] << 8);

        rec = tq_span(in->data + 2, in->len - 2);
        if (len < rec.len)
            rec.len = len;
    }
    *in = tq_span(rec.data + rec.len, (size_t)(in->data + in->len - (rec.data + rec.len)));
    return rec;
}

static int finish(struct run *r, struct broker_restore *res, uint8_t flags, char text[RESTORE_TEXT_MAX])
{
    uint64_t now_ms = broker_restore_now_ms(res) + ((flags & LATER) != 0 ? 100000 : 0);

    if (now_ms > r->now_ms)
        r->now_ms = now_ms;
    if ((flags & SESSIONS) != 0)
        open_sessions(r);
    return broker_restore_finish(res, r->now_ms, session_of, r, text);
}

static bool restore(struct run *r, struct tq_span in, uint8_t flags)
{
    struct broker_restore *res = broker_restore_begin(r->b, on_host, r);
    char text[RESTORE_TEXT_MAX] = "";
    uint64_t segment = 1;
    int rv = TQ_OK;

    TQ_ASSERT(res != NULL);
    if ((flags & DROP_ORPHANS) != 0)
        broker_restore_drop_orphans(res, &r->orphans);
    while (rv == TQ_OK && in.len > 0) {
        struct tq_span rec = next_record(&in);

        rv = broker_restore_ops(res, rec, segment, text);
        segment += (flags & SEGMENTS) != 0;
    }
    if (rv == TQ_OK)
        rv = finish(r, res, flags, text);
    else
        broker_restore_abandon(res);
    TQ_ASSERT(rv == TQ_OK || (rv == TQ_EINVAL && text[0] != '\0'));
    return rv == TQ_OK;
}

static void pass(struct run *r, uint64_t ms)
{
    struct tq_deadline *d;

    r->now_ms += ms;
    for (int i = 0; i < 200 && (d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL; i++) {
        step(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
        check(r);
    }
    while ((d = tq_deadlines_pop_due(&r->deadlines, r->now_ms)) != NULL)
        step(r, &(struct broker_event){.kind = BROKER_DUE, .deadline = d});
}

/* What changed since, as one record behind its length. */
static void collect(struct run *r, struct tq_buf *log)
{
    enum journal_wait wait;
    int rv = broker_journal_collect(r->b, 1u << 20, log, &wait);

    TQ_ASSERT(rv == TQ_OK && !broker_journal_failed(r->b));
}

/* All of it written anew: the old log is not needed then. */
static void restore_again(const struct run *r, struct tq_span ops)
{
    struct broker_stats was, is;
    struct broker_restore *res;
    char text[RESTORE_TEXT_MAX];
    struct run again;
    int rv;

    init(&again, 0);
    res = broker_restore_begin(again.b, on_host, &again);
    TQ_ASSERT(res != NULL);
    rv = broker_restore_ops(res, ops, 1, text);
    TQ_ASSERT(rv == TQ_OK);
    again.now_ms = r->now_ms;
    rv = broker_restore_finish(res, r->now_ms, session_of, &again, text);
    TQ_ASSERT(rv == TQ_OK);
    check(&again);
    broker_get_stats(r->b, &was);
    broker_get_stats(again.b, &is);
    TQ_ASSERT(was.queues == is.queues && was.puts <= is.puts);
    deinit(&again);
}

static void live(struct run *r)
{
    struct tq_buf log = TQ_BUF_NULL(1u << 26);
    struct broker_session worker = {.native = true};
    struct broker_queue *q;
    unsigned budget = UINT32_MAX;
    uint64_t at = 0, noted;

    step(r, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &worker});
    collect(r, &log);
    pass(r, 1);
    for (q = broker_next_queue(r->b, NULL); q != NULL; q = broker_next_queue(r->b, q)) {
        step(r, &(struct broker_event){.kind = BROKER_GET, .session = &worker, .queue = q, .max = 3});
        check(r);
    }
    pass(r, 50000);
    log.len = 0;
    (void)broker_journal_move(r->b, UINT64_MAX >> 1, &at, &budget, &noted);
    collect(r, &log);
    TQ_ASSERT(broker_journal_oldest(r->b) == 1u << 20);
    check(r);
    restore_again(r, tq_buf_span(&log));
    step(r, &(struct broker_event){.kind = BROKER_SESSION_CLOSE, .session = &worker});
    check(r);
    tq_buf_deinit(&log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run r;

    if (size < 1)
        return 0;
    init(&r, data[0]);
    if (restore(&r, tq_span(data + 1, size - 1), data[0])) {
        check(&r);
        live(&r);
    }
    deinit(&r);
    return 0;
}
