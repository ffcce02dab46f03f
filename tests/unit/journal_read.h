/* What a record of the journal says, for tests: its ops in their order. */
#ifndef TESTS_UNIT_JOURNAL_READ_H
#define TESTS_UNIT_JOURNAL_READ_H

#include "master/core/journal.h"
#include "master/core/ops_extra.h"
#include "master/core/ops_queue.h"
#include "tests/unit/broker_native_rig.h"

#define READ_OPS 32768

struct read_op {
    uint8_t op;
    /* TASK, END */
    uint64_t id, queue, put_ms, epoch, attempts;
    uint8_t mask, state, flags, format;
    int64_t place;
    struct broker_extra_spec extra;
    uint32_t key_serial;
    struct tq_span payload;
    uint64_t session, since_ms, limit_ms; /* limit_ms: 0 is never */
    uint8_t delivered;
    /* the others */
    struct ops_time time;
    struct ops_queue q;
    struct ops_counts counts;
    struct broker_stats totals;
    uint32_t serial;
};

struct read {
    struct read_op ops[READ_OPS];
    size_t count;
    size_t tasks, ends; /* of those */
    enum journal_wait wait;
    uint64_t segment; /* for the next record */
    size_t bytes;
};

#define READ_MUST(expr)                                                                                      \
    do {                                                                                                     \
        if (!(expr))                                                                                         \
            fail_msg("the record does not read: %s", #expr);                                                 \
    } while (0)

static inline uint64_t read_number(struct tq_span *in)
{
    uint64_t v = 0;

    READ_MUST(ops_get(in, &v));
    return v;
}

static inline uint8_t read_byte(struct tq_span *in)
{
    uint8_t v = 0;

    READ_MUST(ops_get_u8(in, &v));
    return v;
}

static inline void read_task(struct tq_span *in, struct read_op *o)
{
    o->id = read_number(in);
    o->queue = read_number(in);
    o->mask = read_byte(in);
    o->state = read_byte(in);
    o->flags = read_byte(in);
    o->attempts = read_number(in);
    o->epoch = read_number(in);
    o->place = ops_unzigzag(read_number(in));
    if ((o->mask & OPS_FULL) != 0)
        o->put_ms = read_number(in);
    if ((o->mask & OPS_EXTRA) != 0)
        READ_MUST(ops_get_extra(in, &o->extra, &o->key_serial));
    if ((o->mask & OPS_PAYLOAD) != 0) {
        o->format = read_byte(in);
        if (o->format == BROKER_PYTHON) {
            read_number(in);
            read_number(in);
        }
        READ_MUST(ops_get_text(in, SIZE_MAX, &o->payload));
    }
    if ((o->mask & OPS_LEASE) != 0) {
        o->session = read_number(in);
        o->since_ms = read_number(in);
        o->limit_ms = read_number(in);
        o->delivered = read_byte(in);
    }
}

static inline void read_one(struct tq_span *in, struct read *r)
{
    struct read_op *o = &r->ops[r->count++];

    READ_MUST(r->count < READ_OPS);
    *o = (struct read_op){.op = read_byte(in)};
    switch ((enum ops_op)o->op) {
    case OPS_TIME:
        READ_MUST(ops_get_time(in, &o->time));
        break;
    case OPS_TASK:
        read_task(in, o);
        r->tasks++;
        break;
    case OPS_END:
        o->id = read_number(in);
        r->ends++;
        break;
    case OPS_QUEUE:
        READ_MUST(ops_get_queue(in, &o->q));
        break;
    case OPS_GONE:
        READ_MUST(ops_get_serial(in, &o->serial));
        break;
    case OPS_COUNTS:
        READ_MUST(ops_get_counts(in, &o->counts));
        break;
    case OPS_TOTALS:
        READ_MUST(ops_get_totals(in, &o->totals));
        break;
    default:
        fail_msg("an op that there is not: %u", o->op);
    }
}

/* The end of a turn: what it left in the journal. `keep` holds the bytes. */
static inline void read_turn(struct nr *n, struct read *r, struct tq_buf *keep)
{
    struct tq_span in;

    r->count = r->tasks = r->ends = 0;
    tq_buf_clear(keep);
    assert_int_equal(broker_journal_collect(n->b, r->segment, keep, &r->wait), 0);
    jr_check(n->b);
    assert_false(broker_journal_has_news(n->b));
    assert_int_equal(keep->len > 0, r->wait != JOURNAL_NOTHING);
    r->bytes = keep->len;
    in = tq_buf_span(keep);
    while (in.len > 0)
        read_one(&in, r);
    if (r->count > 0)
        assert_int_equal(r->ops[0].op, OPS_TIME);
    for (size_t i = 1; i < r->count; i++)
        assert_int_not_equal(r->ops[i].op, OPS_TIME);
}

/* The n-th op of that kind, or NULL. */
static inline const struct read_op *read_find(const struct read *r, enum ops_op op, size_t n)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->ops[i].op == op && n-- == 0)
            return &r->ops[i];
    return NULL;
}

/* The only op of a task, or NULL. */
static inline const struct read_op *read_of(const struct read *r, enum ops_op op, uint64_t id)
{
    const struct read_op *found = NULL;

    for (size_t i = 0; i < r->count; i++)
        if (r->ops[i].op == op && r->ops[i].id == id) {
            assert_null(found);
            found = &r->ops[i];
        }
    return found;
}

#endif
