/* Ops become raw tasks and queues: see restore_impl.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/journal_impl.h"
#include "master/core/ops_extra.h"
#include "master/core/restore_impl.h"

#define SHOWN_FLAGS (TASK_RESULT | TASK_DEAD | TASK_NO_VALUE)

int restore_refuse(char text[RESTORE_TEXT_MAX], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, RESTORE_TEXT_MAX, format, args);
    va_end(args);
    return TQ_EINVAL;
}

/* ---- queues ---- */

/* A place for one more. */
static int reserve_queue(struct broker_restore *r, char text[RESTORE_TEXT_MAX])
{
    uint32_t cap = r->queue_cap > 0 ? 2 * r->queue_cap : 16;
    struct restore_queue **queues;

    if (r->free_queue != NULL || r->queue_count + 1 < r->queue_cap)
        return TQ_OK;
    if (r->queue_cap > TASK_QUEUE_MAX)
        return restore_refuse(text, "too many queues");
    cap = cap < TASK_QUEUE_MAX + 1 ? cap : TASK_QUEUE_MAX + 1;
    queues = tq_realloc(r->queues, cap * sizeof(struct restore_queue *));
    if (queues == NULL)
        return TQ_ENOMEM;
    r->queues = queues;
    r->queue_cap = cap;
    r->queues[0] = NULL;
    return TQ_OK;
}

/* All 0, but for its number. NULL when out of memory. */
static struct restore_queue *take_queue(struct broker_restore *r)
{
    struct restore_queue *rq = r->free_queue;

    if (rq != NULL) {
        r->free_queue = rq->next_free;
        *rq = (struct restore_queue){.number = rq->number};
        return rq;
    }
    rq = tq_calloc(1, sizeof(*rq));
    if (rq == NULL)
        return NULL;
    rq->number = ++r->queue_count;
    r->queues[rq->number] = rq;
    return rq;
}

static void give_queue(struct broker_restore *r, struct restore_queue *rq)
{
    rq->next_free = r->free_queue;
    r->free_queue = rq;
}

static void free_queue_if_unused(struct broker_restore *r, struct restore_queue *rq)
{
    if (rq->def != NULL || rq->tasks > 0)
        return;
    HASH_DEL(r->by_serial, rq);
    if (r->last == rq)
        r->last = NULL;
    give_queue(r, rq);
}

/* A raw task is in none any more. */
static void leave_queue(struct broker_restore *r, uint32_t number)
{
    struct restore_queue *rq = number != 0 ? r->queues[number] : NULL;

    if (rq == NULL)
        return;
    rq->tasks--;
    free_queue_if_unused(r, rq);
}

static struct restore_queue *find_queue(struct broker_restore *r, uint32_t serial)
{
    struct restore_queue *rq = r->last;

    if (rq != NULL && rq->serial == serial)
        return rq;
    HASH_FIND(hh, r->by_serial, &serial, sizeof(serial), rq);
    if (rq != NULL)
        r->last = rq;
    return rq;
}

/* That of the serial; made if it was never named before. */
static int name_queue(struct broker_restore *r, uint32_t serial, struct restore_queue **ret,
                      char text[RESTORE_TEXT_MAX])
{
    struct restore_queue *rq = find_queue(r, serial);
    int rv;

    *ret = rq;
    if (rq != NULL)
        return TQ_OK;
    if (serial >= r->time.next_queue_serial)
        return restore_refuse(text, "queue %" PRIu32 ": its serial was not given out yet", serial);
    rv = reserve_queue(r, text);
    if (rv != TQ_OK)
        return rv;
    rq = take_queue(r);
    if (rq == NULL)
        return TQ_ENOMEM;
    rq->serial = serial;
    HASH_ADD(hh, r->by_serial, serial, sizeof(rq->serial), rq);
    if (rq->hh.tbl == NULL) {
        give_queue(r, rq);
        return TQ_ENOMEM;
    }
    r->last = rq;
    *ret = rq;
    return TQ_OK;
}

/* The op on the heap: its spans and strings are its own. */
static struct ops_queue *copy_def(const struct ops_queue *op)
{
    struct ops_queue *def = tq_malloc(sizeof(*def) + op->name.len);

    if (def == NULL)
        return NULL;
    *def = *op;
    memcpy(def + 1, op->name.data, op->name.len);
    def->name.data = (const uint8_t *)(def + 1);
    def->conf.result = op->conf.result != NULL ? def->result : NULL;
    def->conf.dead = op->conf.dead != NULL ? def->dead : NULL;
    return def;
}

/* The segment of its QUEUE op is needed, or is not any more. */
static void count_home(struct broker_restore *r, const struct restore_queue *rq, uint64_t n)
{
    if (rq->def != NULL)
        *journal_count_at(&r->b->journal->homes, rq->home) += n;
}

static int on_queue(struct broker_restore *r, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    struct restore_queue *rq;
    struct ops_queue op, *def;
    int rv;

    if (!ops_get_queue(in, &op))
        return restore_refuse(text, "no such QUEUE");
    if (op.conf.kind == BROKER_PRIORITY && r->b->less == NULL)
        return restore_refuse(text, "queue %" PRIu32 ": a priority queue, and there is no order", op.serial);
    if (op.purged_place >= r->time.next_place)
        return restore_refuse(text, "queue %" PRIu32 ": purged up to a place that is not given out yet",
                              op.serial);
    rv = name_queue(r, op.serial, &rq, text);
    if (rv != TQ_OK)
        return rv;
    if (rq->gone)
        return restore_refuse(text, "queue %" PRIu32 ": it had gone", op.serial);
    if (rq->def != NULL && (!tq_span_eq(rq->def->name, op.name) || rq->def->conf.kind != op.conf.kind))
        return restore_refuse(text, "queue %" PRIu32 ": it has another name or kind", op.serial);
    def = copy_def(&op);
    if (def == NULL)
        return TQ_ENOMEM;
    count_home(r, rq, 0 - UINT64_C(1));
    tq_free(rq->def);
    rq->def = def;
    rq->home = r->segment;
    count_home(r, rq, 1);
    return TQ_OK;
}

static int on_gone(struct broker_restore *r, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    struct restore_queue *rq;
    uint32_t serial;

    if (!ops_get_serial(in, &serial))
        return restore_refuse(text, "no such GONE");
    rq = find_queue(r, serial);
    if (rq == NULL)
        return TQ_OK;
    count_home(r, rq, 0 - UINT64_C(1));
    tq_free(rq->def);
    rq->def = NULL;
    rq->gone = true;
    free_queue_if_unused(r, rq);
    return TQ_OK;
}

static int on_counts(struct broker_restore *r, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    struct restore_queue *rq;
    struct ops_counts op;

    if (!ops_get_counts(in, &op) || op.unfinished > IDS_MAX)
        return restore_refuse(text, "no such COUNTS");
    rq = find_queue(r, op.serial);
    if (rq != NULL && rq->def != NULL) {
        rq->counts = op;
        rq->has_counts = true;
    }
    return TQ_OK;
}

static int on_time(struct broker_restore *r, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    struct ops_time op, *now = &r->time;

    if (!ops_get_time(in, &op) || r->has_time)
        return restore_refuse(text, "no such TIME");
    if (op.now_ms > RESTORE_MS_MAX || op.next_id < now->next_id || op.next_id > IDS_MAX ||
        op.next_place < now->next_place || op.next_place > JOURNAL_PLACE_MAX ||
        op.next_queue_serial < now->next_queue_serial)
        return restore_refuse(text, "a TIME that is out of order");
    if (op.now_ms < now->now_ms)
        op.now_ms = now->now_ms;
    *now = op;
    r->has_time = r->has_times = true;
    return ids_skip(r->b->ids, op.next_id);
}

/* ---- tasks ---- */

/* A TASK as it stands in the record. */
struct op_task {
    uint64_t id, epoch, place_abs, put_ms;
    int64_t place;
    uint64_t serial, attempts;
    uint8_t mask, state, flags;
    struct broker_extra_spec extra;
    uint32_t key_serial;
    struct broker_payload payload;
    struct restore_lease lease;
};

static bool get_payload(struct tq_span *in, struct broker_payload *p)
{
    uint64_t item_off = 0, item_len = 0;
    struct tq_span bytes;

    if (!ops_get_u8(in, &p->format) || p->format > BROKER_PYTHON)
        return false;
    if (p->format == BROKER_PYTHON &&
        (!ops_get_max(in, UINT32_MAX, &item_off) || !ops_get_max(in, UINT32_MAX, &item_len)))
        return false;
    if (!ops_get_text(in, UINT32_MAX, &bytes) || item_off > bytes.len || item_len > bytes.len - item_off)
        return false;
    *p = (struct broker_payload){
        .data = bytes.data,
        .len = (uint32_t)bytes.len,
        .format = p->format,
        .item_off = (uint32_t)item_off,
        .item_len = (uint32_t)item_len,
    };
    return true;
}

static bool get_lease(struct tq_span *in, struct restore_lease *l)
{
    uint8_t delivered;

    if (!ops_get(in, &l->session) || !ops_get(in, &l->since_ms) || !ops_get(in, &l->limit_ms) ||
        !ops_get_u8(in, &delivered) || delivered > 1)
        return false;
    l->limit_ms--; /* 0: never, which is UINT64_MAX */
    l->delivered = delivered != 0;
    return true;
}

static bool get_task(struct tq_span *in, struct op_task *o)
{
    uint64_t place;

    if (!ops_get(in, &o->id) || !ops_get_max(in, UINT32_MAX, &o->serial) || !ops_get_u8(in, &o->mask) ||
        !ops_get_u8(in, &o->state) || !ops_get_u8(in, &o->flags) ||
        !ops_get_max(in, UINT8_MAX, &o->attempts) || !ops_get_max(in, BROKER_EPOCH_MAX, &o->epoch) ||
        !ops_get(in, &place) || o->mask > (OPS_FULL | OPS_EXTRA | OPS_PAYLOAD | OPS_LEASE))
        return false;
    o->place = ops_unzigzag(place);
    o->place_abs = o->place < 0 ? 0 - (uint64_t)o->place : (uint64_t)o->place;
    if ((o->mask & OPS_FULL) != 0 && !ops_get(in, &o->put_ms))
        return false;
    if ((o->mask & OPS_EXTRA) != 0 && !ops_get_extra(in, &o->extra, &o->key_serial))
        return false;
    if ((o->mask & OPS_PAYLOAD) != 0 && !get_payload(in, &o->payload))
        return false;
    return (o->mask & OPS_LEASE) == 0 || get_lease(in, &o->lease);
}

static bool is_good_lease(const struct broker_restore *r, const struct op_task *o)
{
    bool has_lease = (o->mask & OPS_LEASE) != 0;

    if (o->state == BROKER_TASK_LEASED || (o->state == BROKER_TASK_READY && has_lease))
        return has_lease && o->epoch > 0 && o->lease.since_ms <= r->time.now_ms;
    return !has_lease;
}

/* What the op says must fit together; why not, or NULL. */
static const char *wrong_with(const struct broker_restore *r, const struct op_task *o)
{
    bool is_full = (o->mask & OPS_FULL) != 0, has_value = (o->mask & OPS_PAYLOAD) != 0;
    const struct broker_extra *x = &o->extra.fixed;

    if (o->id == 0 || o->id >= r->time.next_id)
        return "its id was not given out yet";
    if (o->state != BROKER_TASK_READY && o->state != BROKER_TASK_DELAYED && o->state != BROKER_TASK_LEASED &&
        o->state != BROKER_TASK_KEPT)
        return "its state is none";
    if ((o->serial == 0) != (o->state == BROKER_TASK_KEPT))
        return "its queue is none";
    if ((o->flags & ~(unsigned)SHOWN_FLAGS) != 0 ||
        (o->flags & (TASK_RESULT | TASK_DEAD)) == (TASK_RESULT | TASK_DEAD))
        return "its flags are none";
    if (o->place_abs >= r->time.next_place || (o->place == 0 && o->state == BROKER_TASK_READY) ||
        (o->place <= 0 && o->state == BROKER_TASK_DELAYED))
        return "its place is none";
    if (has_value ? !is_full || (o->flags & TASK_NO_VALUE) != 0 : is_full && (o->flags & TASK_NO_VALUE) == 0)
        return "a value is there and not there";
    if (is_full && o->put_ms > r->time.now_ms)
        return "it comes from the future";
    if ((o->mask & OPS_EXTRA) != 0 && (x->started_ms > r->time.now_ms || x->ended_ms > r->time.now_ms))
        return "it ended in the future";
    if (!is_good_lease(r, o))
        return "its lease is none";
    if (has_value && r->is_good_body != NULL && !r->is_good_body(r->is_good_body_ctx, &o->payload))
        return "its body is none";
    return NULL;
}

/* The same of the task as it is now. */
static const char *wrong_with_task(struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);
    enum broker_task_state state = restore_state(t);
    bool has_ended = (broker_task_flags(t) & (TASK_RESULT | TASK_DEAD)) != 0;

    if (has_ended != (x != NULL && x->outcome != BROKER_OUTCOME_NONE))
        return "its outcome does not fit";
    if (state == BROKER_TASK_DELAYED && x == NULL)
        return "it waits for no time";
    if (state == BROKER_TASK_KEPT &&
        ((broker_task_flags(t) & TASK_RESULT) == 0 || x == NULL || x->expires_ms == 0))
        return "it is kept and no result";
    return NULL;
}

void restore_free_lease(struct broker_restore *r, struct broker_task *t)
{
    uint32_t number = t->link;

    if (number == 0)
        return;
    t->link = 0;
    r->leases[number].next_free = r->free_lease;
    r->free_lease = number;
}

static int reserve_lease(struct broker_restore *r)
{
    uint32_t cap = r->lease_cap > 0 ? 2 * r->lease_cap : 64;
    struct restore_lease *leases;

    if (r->free_lease != 0 || r->lease_count + 1 < r->lease_cap)
        return TQ_OK;
    if (cap > UINT32_MAX / 2)
        return TQ_ENOMEM;
    leases = tq_realloc(r->leases, cap * sizeof(*leases));
    if (leases == NULL)
        return TQ_ENOMEM;
    r->leases = leases;
    r->lease_cap = cap;
    return TQ_OK;
}

/* Room was reserved. */
static void set_lease(struct broker_restore *r, struct broker_task *t, const struct restore_lease *l)
{
    uint32_t number = r->free_lease;

    if (number != 0)
        r->free_lease = r->leases[number].next_free;
    else
        number = ++r->lease_count;
    r->leases[number] = *l;
    t->link = number;
}

static void set_id(struct broker_task *t, uint64_t id)
{
    t->id_state = (t->id_state & 0xff) | id << 8;
}

void restore_drop(struct broker_restore *r, uint32_t slot)
{
    leave_queue(r, broker_task_at(r->b->slab, slot)->queue);
    restore_free_lease(r, broker_task_at(r->b->slab, slot));
    journal_unset_home(r->b, slot);
    broker_task_discard(r->b, slot);
}

static uint32_t new_task(struct broker_restore *r, const struct broker_payload *payload,
                         struct broker_extra_spec *extra, uint32_t key_serial, unsigned flags)
{
    uint32_t slot = broker_task_new(r->b, &r->stand_in, payload, extra, flags);
    struct broker_extra *x;

    if (slot == SLAB_NONE)
        return SLAB_NONE;
    x = broker_task_extra(broker_task_at(r->b->slab, slot));
    if (x != NULL)
        x->prev = key_serial;
    return slot;
}

/* All of the task is in the op. */
static int replace(struct broker_restore *r, struct op_task *o, uint32_t *slot)
{
    bool has_extra = (o->mask & OPS_EXTRA) != 0;
    uint32_t old = *slot;
    int rv;

    *slot = new_task(r, (o->mask & OPS_PAYLOAD) != 0 ? &o->payload : NULL, has_extra ? &o->extra : NULL,
                     o->key_serial, o->flags & (TASK_RESULT | TASK_DEAD));
    if (*slot == SLAB_NONE)
        return TQ_ENOMEM;
    if (old != SLAB_NONE) {
        ids_move(r->b->ids, o->id, *slot);
        set_id(broker_task_at(r->b->slab, old), 0);
        broker_task_at(r->b->slab, old)->queue = 0; /* apply_task counts it out */
        restore_drop(r, old);
    } else {
        rv = ids_restore(r->b->ids, o->id, *slot, o->put_ms);
        if (rv != TQ_OK) {
            broker_task_discard(r->b, *slot);
            return rv; /* out of memory: id and time were looked at */
        }
    }
    set_id(broker_task_at(r->b->slab, *slot), o->id);
    journal_set_home(r->b, *slot, r->segment);
    return TQ_OK;
}

/* The task gets another extra. */
static int change_extra(struct broker_restore *r, struct op_task *o, uint32_t *slot)
{
    uint32_t old_slot = *slot;
    struct broker_task *old = broker_task_at(r->b->slab, old_slot), *t;
    struct broker_payload payload;

    broker_task_payload(r->b, old_slot, &payload);
    *slot = new_task(r, &payload, &o->extra, o->key_serial, o->flags & (TASK_RESULT | TASK_DEAD));
    if (*slot == SLAB_NONE)
        return TQ_ENOMEM;
    t = broker_task_at(r->b->slab, *slot);
    journal_move_lead(r->b, old_slot, *slot);
    ids_move(r->b->ids, o->id, *slot);
    set_id(t, o->id);
    t->link = old->link;
    set_id(old, 0);
    old->link = 0;
    broker_task_discard(r->b, old_slot);
    return TQ_OK;
}

static int apply_task(struct broker_restore *r, struct op_task *o, struct restore_queue *rq, uint32_t slot)
{
    bool is_full = (o->mask & OPS_FULL) != 0;
    uint32_t was_in = slot != SLAB_NONE ? broker_task_at(r->b->slab, slot)->queue : 0;
    struct broker_task *t;
    int rv = TQ_OK;

    if ((o->mask & OPS_LEASE) != 0)
        rv = reserve_lease(r);
    r->stand_in.index = rq != NULL ? rq->number : 0;
    if (rv == TQ_OK && is_full)
        rv = replace(r, o, &slot);
    else if (rv == TQ_OK && (o->mask & OPS_EXTRA) != 0)
        rv = change_extra(r, o, &slot);
    if (rv != TQ_OK)
        return rv;
    t = broker_task_at(r->b->slab, slot);
    t->queue = r->stand_in.index & TASK_QUEUE_MAX;
    t->epoch = (uint32_t)o->epoch;
    t->attempts = (uint8_t)o->attempts;
    broker_task_set_colour(t, o->state);
    journal_set_place(r->b, slot, o->place);
    restore_free_lease(r, t);
    if ((o->mask & OPS_LEASE) != 0)
        set_lease(r, t, &o->lease);
    if (rq != NULL)
        rq->tasks++;
    leave_queue(r, was_in);
    return TQ_OK;
}

static int on_task(struct broker_restore *r, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    struct restore_queue *rq = NULL;
    struct op_task o;
    const char *wrong;
    uint32_t slot;
    int rv;

    if (!get_task(in, &o))
        return restore_refuse(text, "no such TASK");
    wrong = wrong_with(r, &o);
    if (wrong != NULL)
        return restore_refuse(text, "task %" PRIu64 ": %s", o.id, wrong);
    slot = ids_find(r->b->ids, o.id);
    if (slot == SLAB_NONE && (o.mask & OPS_FULL) == 0)
        return TQ_OK;
    if ((o.mask & OPS_FULL) == 0 &&
        (broker_task_flags(broker_task_at(r->b->slab, slot)) & SHOWN_FLAGS) != o.flags)
        return restore_refuse(text, "task %" PRIu64 ": it has other flags", o.id);
    if (o.serial != 0) {
        rv = name_queue(r, (uint32_t)o.serial, &rq, text);
        if (rv != TQ_OK)
            return rv;
    }
    rv = apply_task(r, &o, rq, slot);
    if (rv != TQ_OK)
        return rv;
    wrong = wrong_with_task(broker_task_at(r->b->slab, ids_find(r->b->ids, o.id)));
    return wrong == NULL ? TQ_OK : restore_refuse(text, "task %" PRIu64 ": %s", o.id, wrong);
}

static int on_end(struct broker_restore *r, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    uint32_t slot;
    uint64_t id;

    if (!ops_get(in, &id) || id == 0 || id >= r->time.next_id)
        return restore_refuse(text, "no such END");
    slot = ids_find(r->b->ids, id);
    if (slot != SLAB_NONE)
        restore_drop(r, slot);
    return TQ_OK;
}

/* ---- records ---- */

static int host_op(struct broker_restore *r, uint8_t op, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    struct tq_span bytes;

    if (!ops_get_text(in, in->len, &bytes))
        return restore_refuse(text, "op %u: no text", op);
    return r->on_host(r->ctx, op, bytes, r->segment, text);
}

static int on_op(struct broker_restore *r, uint8_t op, struct tq_span *in, char text[RESTORE_TEXT_MAX])
{
    if (op != OPS_TIME && op < OPS_HOST && !r->has_time)
        return restore_refuse(text, "op %u before the TIME of its record", op);
    switch (op) {
    case OPS_TIME:
        return on_time(r, in, text);
    case OPS_TASK:
        return on_task(r, in, text);
    case OPS_END:
        return on_end(r, in, text);
    case OPS_QUEUE:
        return on_queue(r, in, text);
    case OPS_GONE:
        return on_gone(r, in, text);
    case OPS_COUNTS:
        return on_counts(r, in, text);
    case OPS_TOTALS:
        return ops_get_totals(in, &r->b->stats) ? TQ_OK : restore_refuse(text, "no such TOTALS");
    default:
        return op >= OPS_HOST ? host_op(r, op, in, text) : restore_refuse(text, "op %u is not known", op);
    }
}

int broker_restore_ops(struct broker_restore *r, struct tq_span ops, uint64_t segment,
                       char text[RESTORE_TEXT_MAX])
{
    int rv = journal_reserve_segment(r->b, segment);

    if (rv == TQ_ELIMIT)
        return restore_refuse(text, "segment %" PRIu64 " is too far from the others", segment);
    text[0] = '\0';
    r->segment = segment;
    r->has_time = false;
    while (rv == TQ_OK && ops.len > 0) {
        uint8_t op = ops.data[0];

        ops = tq_span(ops.data + 1, ops.len - 1);
        rv = on_op(r, op, &ops, text);
    }
    return rv;
}

struct broker_restore *broker_restore_begin(struct broker *b,
                                            int (*on_host)(void *ctx, uint8_t op, struct tq_span bytes,
                                                           uint64_t segment, char text[RESTORE_TEXT_MAX]),
                                            void *ctx)
{
    struct broker_restore *r;

    TQ_ASSERT(b->journal != NULL && b->by_name == NULL && ids_next(b->ids) == 1);
    r = tq_calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->b = b;
    r->on_host = on_host;
    r->ctx = ctx;
    r->time = (struct ops_time){.next_id = 1, .next_place = 1, .next_queue_serial = 1};
    return r;
}

void broker_restore_check_bodies(struct broker_restore *r,
                                 bool (*is_good)(void *ctx, const struct broker_payload *p), void *ctx)
{
    r->is_good_body = is_good;
    r->is_good_body_ctx = ctx;
}

void broker_restore_drop_orphans(struct broker_restore *r, uint64_t *ret_count)
{
    *ret_count = 0;
    r->orphans = ret_count;
}

void broker_restore_was_closed(struct broker_restore *r)
{
    r->was_closed = true;
}

uint64_t broker_restore_now_ms(const struct broker_restore *r)
{
    return r->time.now_ms;
}

void restore_drop_raw(struct broker_restore *r)
{
    uint64_t id, from = 1;

    do {
        unsigned budget = UINT32_MAX;
        uint64_t resume;
        uint32_t slot;

        id = ids_walk(r->b->ids, from, &budget, &resume);
        from = id != 0 ? id + 1 : resume;
        slot = id != 0 ? ids_find(r->b->ids, id) : SLAB_NONE;
        if (slot != SLAB_NONE && broker_task_state(broker_task_at(r->b->slab, slot)) == BROKER_TASK_NEW) {
            journal_unset_home(r->b, slot);
            broker_task_discard(r->b, slot);
        }
    } while (from != 0);
}

void restore_free(struct broker_restore *r)
{
    HASH_CLEAR(hh, r->by_serial);
    for (uint32_t i = 1; i <= r->queue_count; i++) {
        tq_free(r->queues[i]->def);
        tq_free(r->queues[i]);
    }
    tq_free(r->queues);
    tq_free(r->leases);
    tq_free(r);
}

void broker_restore_abandon(struct broker_restore *r)
{
    if (r == NULL)
        return;
    restore_drop_raw(r);
    restore_free(r);
}
