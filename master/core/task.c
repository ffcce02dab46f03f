#include "master/core/task.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/journal_impl.h"
#include "master/core/kept.h"
#include "master/core/keys.h"
#include "master/core/lease.h"
#include "master/core/queue.h"
#include "master/core/timer.h"

#define BIT(state) (1u << (unsigned)(state))

/* Payloads up to here stand in the slot. With all that an extra may hold, the slot has room for them. */
#define INLINE_MAX_BYTES 440u
#define SIZE_MASK        0xfffu
#define PREFIX_BYTES     4u /* item_off and item_len of Python's */

/* What a full op takes without payload and texts, about. */
#define OP_BYTES        30u
#define EXTRA_OP_BYTES  12u
#define FAILED_OP_BYTES 14u
#define ENDED_OP_BYTES  16u

_Static_assert(sizeof(struct broker_task) == 22, "there may be a hundred million of them");
_Static_assert(IDS_MAX <= UINT64_MAX >> 8, "an id has 7 bytes");
_Static_assert(JOURNAL_LEAD_BYTES + sizeof(struct broker_task) + sizeof(struct broker_extra) +
                       BROKER_KEY_MAX + BROKER_TRACE_MAX + BROKER_WORKER_MAX + BROKER_ERROR_MAX +
                       PREFIX_BYTES + INLINE_MAX_BYTES <=
                   SLAB_SLOT_MAX_BYTES,
               "any task can get any extra");

_Static_assert(INLINE_MAX_BYTES >= TQ_BODY_SMALL_MAX, "bodies outside of slots go back bit by bit");

static const unsigned allowed_moves[] = {
    [BROKER_TASK_NEW] =
        BIT(BROKER_TASK_READY) | BIT(BROKER_TASK_DELAYED) | BIT(BROKER_TASK_KEPT) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_READY] =
        BIT(BROKER_TASK_LEASED) | BIT(BROKER_TASK_DELAYED) | BIT(BROKER_TASK_KEPT) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_DELAYED] = BIT(BROKER_TASK_READY) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_LEASED] =
        BIT(BROKER_TASK_READY) | BIT(BROKER_TASK_DELAYED) | BIT(BROKER_TASK_KEPT) | BIT(BROKER_TASK_GONE),
    [BROKER_TASK_KEPT] = BIT(BROKER_TASK_GONE),
    [BROKER_TASK_GONE] = 0,
};

/* ---- layout: head, extra, key, trace, worker, error, payload ---- */

static inline size_t payload_size(const struct broker_task *t)
{
    return t->size_flags & SIZE_MASK;
}

static size_t strings_size(const struct broker_extra *x)
{
    return (size_t)x->key_len + x->trace_len + x->worker_len + x->error_len;
}

static inline size_t payload_offset(struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);

    return x == NULL ? sizeof(*t) : sizeof(*t) + sizeof(*x) + strings_size(x);
}

static inline uint8_t *payload_at(struct broker_task *t)
{
    return (uint8_t *)t + payload_offset(t);
}

static inline struct tq_body *external_body(struct broker_task *t)
{
    struct tq_body *body;

    memcpy(&body, payload_at(t), sizeof(body));
    return body;
}

static struct tq_span string_at(struct broker_task *t, unsigned which)
{
    const struct broker_extra *x = broker_task_extra(t);
    const uint8_t *at = (const uint8_t *)t + sizeof(*t) + sizeof(*x);
    uint16_t lens[4];

    if (x == NULL)
        return tq_span("", 0);
    lens[0] = x->key_len, lens[1] = x->trace_len, lens[2] = x->worker_len, lens[3] = x->error_len;
    for (unsigned i = 0; i < which; i++)
        at += lens[i];
    return tq_span(at, lens[which]);
}

struct tq_span broker_task_key(struct broker_task *t)
{
    return string_at(t, 0);
}

struct tq_span broker_task_trace(struct broker_task *t)
{
    return string_at(t, 1);
}

struct tq_span broker_task_worker(struct broker_task *t)
{
    return string_at(t, 2);
}

struct tq_span broker_task_error(struct broker_task *t)
{
    return string_at(t, 3);
}

static inline void set_flags(struct broker_task *t, unsigned flags)
{
    t->id_state = (t->id_state & ~(uint64_t)(31 << 3)) | (flags & 31) << 3;
    t->size_flags = (uint16_t)((t->size_flags & SIZE_MASK) | flags >> 5 << 12);
}

static inline void write_state(struct broker_task *t, enum broker_task_state to)
{
    t->id_state = (t->id_state & ~(uint64_t)7) | to;
}

static inline void set_id(struct broker_task *t, uint64_t id)
{
    t->id_state = (t->id_state & 0xff) | id << 8;
}

static uint8_t *put_span(uint8_t *at, struct tq_span s)
{
    if (s.len > 0)
        memcpy(at, s.data, s.len);
    return at + s.len;
}

struct broker_queue *broker_queue_of(const struct broker *b, uint32_t index, uint32_t serial)
{
    struct broker_queue *q = index < b->queue_cap ? b->queues[index] : NULL;

    return q != NULL && q->serial == serial && !q->removed ? q : NULL;
}

/* ---- the payload ---- */

static uint32_t body_len(struct broker_task *t)
{
    unsigned flags = broker_task_flags(t);

    if ((flags & (TASK_EXTERNAL | TASK_PYTHON | TASK_NO_VALUE)) == 0)
        return (uint32_t)payload_size(t);
    if ((flags & TASK_EXTERNAL) != 0)
        return external_body(t)->len;
    return (flags & TASK_PYTHON) != 0 ? (uint32_t)payload_size(t) - PREFIX_BYTES : 0;
}

void broker_task_payload(const struct broker *b, uint32_t slot, struct broker_payload *ret_payload)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    unsigned flags = broker_task_flags(t);
    const uint8_t *at = payload_at(t);

    *ret_payload = (struct broker_payload){
        .format = (flags & TASK_PYTHON) != 0 ? BROKER_PYTHON : BROKER_MSGPACK,
    };
    if ((flags & TASK_NO_VALUE) != 0)
        return;
    if ((flags & TASK_EXTERNAL) != 0) {
        struct tq_body *body = external_body(t);

        ret_payload->body = body;
        ret_payload->data = body->data;
        ret_payload->len = body->len;
        ret_payload->item_off = body->item_off;
        ret_payload->item_len = body->item_len;
        return;
    }
    ret_payload->len = body_len(t);
    if ((flags & TASK_PYTHON) != 0) {
        uint16_t item[2];

        memcpy(item, at, sizeof(item));
        ret_payload->item_off = item[0];
        ret_payload->item_len = item[1];
        at += PREFIX_BYTES;
    }
    ret_payload->data = at;
}

uint64_t broker_task_cost(const struct broker *b, uint32_t slot)
{
    return (uint64_t)body_len(broker_task_at(b->slab, slot)) + BROKER_BODY_OVERHEAD_BYTES;
}

uint64_t broker_task_op_bytes(struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);

    uint64_t bytes = OP_BYTES + body_len(t);

    if (x == NULL)
        return bytes;
    bytes += EXTRA_OP_BYTES + strings_size(x);
    if ((broker_task_flags(t) & (TASK_RESULT | TASK_DEAD)) != 0)
        return bytes + ENDED_OP_BYTES;
    return x->worker_len + x->error_len > 0 ? bytes + FAILED_OP_BYTES : bytes;
}

/* A reference to the payload's body, or a new one with its bytes. NULL when out of memory. */
static struct tq_body *make_external(const struct broker_payload *p)
{
    struct tq_body *body;

    if (p->body != NULL)
        return tq_body_ref(p->body);
    body = tq_body_new(p->len);
    if (body == NULL)
        return NULL;
    memcpy(body->data, p->data, p->len);
    body->item_off = p->item_off;
    body->item_len = p->item_len;
    if (p->format == BROKER_PYTHON)
        body->flavor = TQ_BODY_PYTHON_REPLY;
    return body;
}

static void put_payload(uint8_t *at, const struct broker_payload *p, struct tq_body *external)
{
    if (external != NULL) {
        memcpy(at, &external, sizeof(external));
        return;
    }
    if (p->format == BROKER_PYTHON) {
        uint16_t item[2] = {(uint16_t)p->item_off, (uint16_t)p->item_len};

        memcpy(at, item, sizeof(item));
        at += PREFIX_BYTES;
    }
    if (p->len > 0)
        memcpy(at, p->data, p->len);
}

static void drop_external(struct broker *b, struct broker_task *t)
{
    if ((broker_task_flags(t) & TASK_EXTERNAL) == 0)
        return;
    b->external_bytes -= external_body(t)->len;
    tq_body_unref(external_body(t));
}

/* ---- birth ---- */

static uint8_t *write_extra(struct broker_task *t, const struct broker_extra_spec *spec)
{
    struct broker_extra *x = (struct broker_extra *)(void *)(t + 1);
    uint8_t *at = (uint8_t *)(x + 1);

    *x = spec->fixed;
    x->timer = NULL;
    x->key = NULL;
    x->prev = SLAB_NONE;
    x->key_len = (uint16_t)spec->key.len;
    x->trace_len = (uint16_t)spec->trace.len;
    x->worker_len = (uint16_t)spec->worker.len;
    x->error_len = (uint16_t)spec->error.len;
    at = put_span(at, spec->key);
    at = put_span(at, spec->trace);
    at = put_span(at, spec->worker);
    return put_span(at, spec->error);
}

uint32_t broker_task_new(struct broker *b, struct broker_queue *q, const struct broker_payload *payload,
                         const struct broker_extra_spec *extra, unsigned flags)
{
    size_t inline_bytes = 0, head_bytes = sizeof(struct broker_task);
    struct tq_body *external = NULL;
    struct broker_task *t;
    uint32_t slot;

    if (payload == NULL || payload->data == NULL) {
        flags |= TASK_NO_VALUE;
    } else {
        inline_bytes = payload->len;
        if (payload->format == BROKER_PYTHON) {
            flags |= TASK_PYTHON;
            inline_bytes += PREFIX_BYTES;
        }
        if (payload->len > INLINE_MAX_BYTES) {
            external = make_external(payload);
            if (external == NULL)
                return SLAB_NONE;
            flags |= TASK_EXTERNAL;
            inline_bytes = sizeof(struct tq_body *);
        }
    }
    if (extra != NULL) {
        TQ_ASSERT(extra->key.len <= BROKER_KEY_MAX && extra->trace.len <= BROKER_TRACE_MAX &&
                  extra->worker.len <= BROKER_WORKER_MAX && extra->error.len <= BROKER_ERROR_MAX);
        flags |= TASK_EXTRA;
        head_bytes +=
            sizeof(extra->fixed) + extra->key.len + extra->trace.len + extra->worker.len + extra->error.len;
    }
    slot = slab_take(b->slab, head_bytes + inline_bytes);
    if (slot == SLAB_NONE) {
        tq_body_unref(external);
        return SLAB_NONE;
    }
    journal_clear_lead(b, slot);
    t = broker_task_at(b->slab, slot);
    *t = (struct broker_task){
        .id_state = BROKER_TASK_NEW | (flags & 31) << 3,
        .queue = q->index & TASK_QUEUE_MAX,
        .size_flags = (uint16_t)(inline_bytes | flags >> 5 << 12),
    };
    if (external != NULL)
        b->external_bytes += external->len;
    if (inline_bytes > 0 || extra != NULL) {
        uint8_t *at = extra != NULL ? write_extra(t, extra) : (uint8_t *)(t + 1);

        if (inline_bytes > 0)
            put_payload(at, payload, external);
    }
    return slot;
}

int broker_task_name(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    uint64_t id;
    int rv = ids_add(b->ids, slot, b->now_ms, &id);

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_NEW && broker_task_id(t) == 0);
    if (rv != TQ_OK)
        return TQ_ENOMEM;
    set_id(t, id);
    return TQ_OK;
}

void broker_task_unname(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_extra *x = broker_task_extra(t);

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_NEW && broker_task_id(t) != 0);
    ids_remove(b->ids, broker_task_id(t));
    set_id(t, 0);
    if (x != NULL) {
        broker_key_remove(b, x->key);
        x->key = NULL;
    }
}

/* ---- life ---- */

/* Whoever waits for that is marked. */
static void leave_state(struct broker *b, struct broker_queue *q, enum broker_task_state from)
{
    if (from == BROKER_TASK_LEASED) {
        q->leased--;
        b->stats.leased--;
        if (q->conf.concurrency > 0 && q->getters != NULL)
            broker_queue_mark(b, q);
        return;
    }
    if (from == BROKER_TASK_READY) {
        if (--q->ready == 0 && q->shut_down)
            broker_queue_mark(b, q);
    } else {
        q->delayed--;
        b->stats.delayed--;
    }
    if (q->putters != NULL)
        broker_queue_mark(b, q);
}

static void enter_state(struct broker *b, struct broker_queue *q, enum broker_task_state to)
{
    if (to == BROKER_TASK_READY) {
        q->ready++;
    } else if (to == BROKER_TASK_DELAYED) {
        q->delayed++;
        b->stats.delayed++;
    } else {
        q->leased++;
        b->stats.leased++;
    }
}

static inline bool stands_in_queue(enum broker_task_state s)
{
    return s == BROKER_TASK_READY || s == BROKER_TASK_DELAYED || s == BROKER_TASK_LEASED;
}

void broker_task_set_state(struct broker *b, uint32_t slot, enum broker_task_state to)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    enum broker_task_state from = broker_task_state(t);
    bool was_counted = from != BROKER_TASK_NEW, is_counted = to != BROKER_TASK_GONE;
    bool was_inside = stands_in_queue(from), is_inside = stands_in_queue(to);
    struct broker_queue *q =
        was_inside || is_inside ? broker_task_queue(b, t) : NULL; /* else it may be gone */
    struct broker_extra *x;

    TQ_ASSERT(allowed_moves[from] & BIT(to));
    if (was_inside)
        leave_state(b, q, from);
    if (is_inside)
        enter_state(b, q, to);
    if (was_inside != is_inside || was_counted != is_counted) {
        uint64_t cost = (uint64_t)body_len(t) + BROKER_BODY_OVERHEAD_BYTES;

        if (was_inside != is_inside)
            q->stats.body_bytes += is_inside ? cost : 0 - cost;
        if (was_counted != is_counted) {
            b->stats.tasks += is_counted ? 1 : UINT64_MAX;
            b->stats.body_bytes += is_counted ? cost : 0 - cost;
        }
    }
    if (from == BROKER_TASK_KEPT) {
        b->stats.kept--;
        broker_kept_leave(b, slot);
    }
    if (to == BROKER_TASK_KEPT) {
        b->stats.kept++;
        broker_kept_enter(b, slot);
    }
    write_state(t, to);
    x = broker_task_extra(t);
    if (x != NULL && x->timer != NULL && to != BROKER_TASK_GONE)
        broker_timer_sync(b, slot);
    if (b->journal != NULL)
        journal_note_state(b, slot, from, to, q);
}

void broker_task_become_result(struct broker *b, uint32_t slot, const struct broker_extra_spec *spec)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_extra *x = broker_task_extra(t);
    uint32_t len = body_len(t);

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_LEASED && x != NULL && x->timer != NULL);
    journal_before_rewrite(b, slot);
    drop_external(b, t);
    broker_task_queue(b, t)->stats.body_bytes -= len;
    b->stats.body_bytes -= len;
    t->size_flags &= (uint16_t)~SIZE_MASK;
    set_flags(t, (broker_task_flags(t) & ~(unsigned)(TASK_EXTERNAL | TASK_PYTHON)) | TASK_RESULT |
                     TASK_NO_VALUE);
    if (t->epoch < BROKER_EPOCH_MAX)
        t->epoch++;
    t->attempts = 0;
    x->started_ms = spec->fixed.started_ms;
    x->ended_ms = spec->fixed.ended_ms;
    x->result = spec->fixed.result;
    x->from = spec->fixed.from;
    x->from_serial = spec->fixed.from_serial;
    x->retention_ms = spec->fixed.retention_ms;
    x->code = 0;
    x->outcome = spec->fixed.outcome;
    x->tries = spec->fixed.tries;
    x->gives_way = spec->fixed.gives_way;
    x->worker_len = x->error_len = 0;
    journal_after_rewrite(b, slot);
}

static void move_slot(struct broker *b, struct broker_task *t, uint32_t new_slot)
{
    struct broker_extra *x = broker_task_extra(t);

    if (broker_task_id(t) != 0)
        ids_move(b->ids, broker_task_id(t), new_slot);
    if (broker_task_state(t) == BROKER_TASK_LEASED && t->link != 0)
        broker_lease_at(b, t->link)->slot = new_slot;
    if (x != NULL)
        broker_timer_move(x->timer, new_slot);
}

/* The longest part of a text that fits and does not end in the middle of a character. */
static struct tq_span cut_text(struct tq_span s, size_t max)
{
    size_t len = s.len;

    if (len <= max)
        return s;
    len = max;
    while (len > 0 && (s.data[len] & 0xc0) == 0x80)
        len--;
    return tq_span(s.data, len);
}

int broker_task_note_failure(struct broker *b, uint32_t *slot, struct tq_span worker, uint64_t started_ms,
                             const struct broker_failure *f)
{
    struct broker_task *old = broker_task_at(b->slab, *slot), *t;
    const struct broker_extra *old_x = broker_task_extra(old);
    struct broker_extra_spec spec = {.fixed = {.result = TASK_POLICY, .retention_ms = BROKER_RETENTION_AUTO}};
    struct broker_extra *x;
    uint32_t new_slot;
    uint8_t *at;

    if (old_x != NULL)
        spec.fixed = *old_x;
    spec.key = broker_task_key(old);
    spec.trace = broker_task_trace(old);
    spec.worker = cut_text(worker, BROKER_WORKER_MAX);
    spec.error = f != NULL ? cut_text(f->error, BROKER_ERROR_MAX) : tq_span("", 0);
    spec.fixed.started_ms = started_ms;
    spec.fixed.ended_ms = b->now_ms;
    spec.fixed.code = f != NULL ? f->code : 0;
    new_slot = slab_take(b->slab, sizeof(*t) + sizeof(*x) + spec.key.len + spec.trace.len + spec.worker.len +
                                      spec.error.len + payload_size(old));
    if (new_slot == SLAB_NONE)
        return TQ_ENOMEM;
    t = broker_task_at(b->slab, new_slot);
    *t = *old;
    set_flags(t, broker_task_flags(old) | TASK_EXTRA);
    at = write_extra(t, &spec);
    memcpy(at, payload_at(old), payload_size(old));
    x = broker_task_extra(t);
    if (old_x != NULL) {
        x->timer = old_x->timer;
        x->key = old_x->key;
    }
    journal_move_lead(b, *slot, new_slot);
    move_slot(b, t, new_slot);
    slab_give(b->slab, *slot);
    *slot = new_slot;
    return TQ_OK;
}

uint32_t broker_task_move_out(struct broker *b, uint32_t slot)
{
    struct broker_task *old = broker_task_at(b->slab, slot), *t;
    struct broker_extra *x = broker_task_extra(old);
    size_t size = payload_offset(old) + payload_size(old);
    uint32_t new_slot = slab_take(b->slab, size);

    if (new_slot == SLAB_NONE)
        return SLAB_NONE;
    t = broker_task_at(b->slab, new_slot);
    memcpy(t, old, size);
    t->link = SLAB_NONE;
    journal_move_lead(b, slot, new_slot);
    move_slot(b, t, new_slot);
    if (x != NULL) {
        broker_task_extra(t)->prev = SLAB_NONE;
        x->timer = NULL;
        x->key = NULL;
    }
    if ((broker_task_flags(old) & TASK_EXTERNAL) != 0) {
        tq_body_ref(external_body(old));
        b->external_bytes += external_body(old)->len;
    }
    write_state(old, BROKER_TASK_GONE);
    broker_queue_entomb(b, broker_task_queue(b, t), slot);
    return new_slot;
}

/* ---- death ---- */

/* Id, key and timer. */
static void give_names_back(struct broker *b, struct broker_task *t)
{
    struct broker_extra *x = broker_task_extra(t);

    if (broker_task_id(t) != 0)
        ids_remove(b->ids, broker_task_id(t));
    if (x != NULL) {
        broker_key_remove(b, x->key);
        broker_timer_free(b, x->timer);
        x->key = NULL;
        x->timer = NULL;
    }
}

void broker_task_discard(struct broker *b, uint32_t slot)
{
    struct broker_task *t;

    if (slot == SLAB_NONE)
        return;
    t = broker_task_at(b->slab, slot);
    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_NEW);
    give_names_back(b, t);
    drop_external(b, t);
    slab_give(b->slab, slot);
}

/* The queue is looked at before the step ends: what it had for the task may be given back, and it itself. */
static void leave_queue(struct broker *b, struct broker_queue *q)
{
    if (q->removed)
        broker_queue_mark(b, q);
    else
        broker_queue_trim(q);
}

void broker_task_end(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);
    struct broker_queue *q =
        broker_task_state(t) != BROKER_TASK_KEPT ? broker_task_queue(b, t) : NULL; /* it may be gone */

    broker_task_set_state(b, slot, BROKER_TASK_GONE);
    give_names_back(b, t);
    drop_external(b, t);
    slab_give(b->slab, slot);
    if (q != NULL)
        leave_queue(b, q);
}

void broker_task_bury(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);

    broker_task_set_state(b, slot, BROKER_TASK_GONE);
    give_names_back(b, t);
    broker_queue_entomb(b, broker_task_queue(b, t), slot);
}

void broker_task_strip_tombstone(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);

    drop_external(b, t);
    set_flags(t, broker_task_flags(t) & ~(unsigned)TASK_EXTERNAL);
}

void broker_task_drop_tombstone(struct broker *b, uint32_t slot)
{
    struct broker_task *t = broker_task_at(b->slab, slot);

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_GONE);
    drop_external(b, t);
    slab_give(b->slab, slot);
}

void broker_task_succeed(struct broker *b, uint32_t old_slot, uint32_t new_slot)
{
    struct broker_task *old = broker_task_at(b->slab, old_slot);
    struct broker_task *t = broker_task_at(b->slab, new_slot);
    struct broker_extra *old_x = broker_task_extra(old), *x = broker_task_extra(t);
    struct broker_queue *q = broker_task_state(old) != BROKER_TASK_KEPT ? broker_task_queue(b, old) : NULL;

    TQ_ASSERT(broker_task_state(t) == BROKER_TASK_NEW && broker_task_id(t) == 0);
    journal_succeed(b, old_slot, new_slot);
    broker_task_set_state(b, old_slot, BROKER_TASK_GONE);
    set_id(t, broker_task_id(old));
    ids_move(b->ids, broker_task_id(t), new_slot);
    if (old_x != NULL) {
        if (old_x->key != NULL && x != NULL) {
            x->key = old_x->key;
            old_x->key = NULL;
        }
        broker_key_remove(b, old_x->key);
        broker_timer_free(b, old_x->timer);
    }
    drop_external(b, old);
    slab_give(b->slab, old_slot);
    if (q != NULL)
        leave_queue(b, q);
}
