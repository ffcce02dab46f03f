/* The broker and its sessions, out of the log. */
#include <stdio.h>
#include <string.h>

#include "common/assert.h"
#include "master/store/store_impl.h"
#include "proto/native/mp.h"

static int on_host_op(void *ctx, uint8_t op, struct tq_span bytes, uint64_t segment,
                      char text[RESTORE_TEXT_MAX])
{
    struct store *st = ctx;

    return native_restore_op(st->native, op, bytes, segment, text);
}

static int on_record(void *ctx, const struct log_record_header *h, struct tq_span payload, uint64_t segment,
                     char err[LOG_ERROR_MAX])
{
    struct store *st = ctx;
    char text[RESTORE_TEXT_MAX] = "";
    int rv;

    if (h->type != LOG_OPS) {
        if ((h->type & LOG_TYPE_OPTIONAL) != 0)
            return TQ_OK;
        (void)snprintf(err, LOG_ERROR_MAX, "a record of type %u, which this version does not know", h->type);
        return TQ_EUNSUPPORTED;
    }
    rv = broker_restore_ops(st->restore, payload, segment, text);
    if (rv != TQ_OK)
        (void)snprintf(err, LOG_ERROR_MAX, "%s", text[0] != '\0' ? text : tq_strerror(rv));
    return rv;
}

static void on_read(void *ctx, uint64_t done_bytes, uint64_t all_bytes)
{
    struct store *st = ctx;

    if (st->host.recovering != NULL)
        st->host.recovering(st->host.ctx, done_bytes, all_bytes);
}

#define PYTHON_LENGTH_BYTES 4u
#define PYTHON_FRONT_BYTES  (PYTHON_LENGTH_BYTES + 2u + 12u) /* length, PROTO, '#RETURN' */

/* Bodies go out into frames as they are. What Python's say is between Python and Python; whoever reads them
 * here does so within these bounds. */
static bool is_good_body(void *ctx, const struct broker_payload *p)
{
    const char *why;

    (void)ctx;
    if (p->format != BROKER_PYTHON)
        return tq_mp_walk_all(tq_span(p->data, p->len), &why) == TQ_OK;
    return p->len > PYTHON_FRONT_BYTES && p->len - PYTHON_LENGTH_BYTES <= INT32_MAX &&
           tq_load_be32(p->data) == p->len - PYTHON_LENGTH_BYTES && p->item_off >= PYTHON_FRONT_BYTES &&
           p->item_len > 0 && p->item_off < p->len && p->item_len <= p->len - p->item_off;
}

static void report_log(const struct store *st, struct store_report *ret)
{
    const struct log_state *s = &st->state;

    *ret = (struct store_report){.records = s->records,
                                 .bytes = s->bytes,
                                 .cut_bytes = s->cut_bytes,
                                 .cut_offset = s->cut_offset,
                                 .last_ms = broker_restore_now_ms(st->restore),
                                 .closed = s->closed,
                                 .empty = s->segment_count == 0};
    if (s->cut_bytes == 0)
        return;
    TQ_ASSERT(s->segment_count > 0);
    log_segment_name(ret->cut_file, s->segments[s->segment_count - 1].number);
    memcpy(ret->cut_why, s->cut_why, sizeof(ret->cut_why));
}

int store_recover(struct store *st, struct broker *b, struct native *n, struct store_report *ret,
                  char err[LOG_ERROR_MAX])
{
    struct log_reader reader = {.ctx = st, .record = on_record, .progress = on_read};
    int rv;

    TQ_ASSERT(st->broker == NULL);
    st->broker = b;
    st->native = n;
    st->restore = broker_restore_begin(b, on_host_op, st);
    if (st->restore == NULL) {
        (void)snprintf(err, LOG_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    broker_restore_check_bodies(st->restore, is_good_body, NULL);
    broker_restore_drop_orphans(st->restore, &st->orphans);
    rv = log_recover(st->fs, &reader, &st->state, err);
    if (rv != TQ_OK)
        return rv;
    st->has_state = true;
    if (st->state.closed)
        broker_restore_was_closed(st->restore);
    report_log(st, ret);
    return TQ_OK;
}

static struct broker_session *session_of(void *ctx, uint64_t durable_id)
{
    return native_session_of(ctx, durable_id);
}

/* What was read comes to life. */
static int finish(struct store *st, uint64_t now_ms, char err[LOG_ERROR_MAX])
{
    struct broker_restore *restore = st->restore;
    char text[RESTORE_TEXT_MAX] = "";
    int rv = native_restore_finish(st->native);

    if (rv == TQ_OK) {
        st->restore = NULL;
        rv = broker_restore_finish(restore, now_ms, session_of, st->native, text);
    }
    if (rv != TQ_OK) {
        (void)snprintf(err, LOG_ERROR_MAX, "%s%s", text[0] != '\0' ? text : tq_strerror(rv),
                       rv == TQ_EINVAL ? ": the log contradicts itself" : "");
        return rv;
    }
    native_restore_wait(st->native);
    return TQ_OK;
}

static void report_state(const struct store *st, struct store_report *report)
{
    struct broker_stats s;

    broker_get_stats(st->broker, &s);
    report->queues = s.queues;
    report->tasks = s.tasks;
    report->leased = s.leased;
    report->orphans = st->orphans;
    (void)native_journal_live_bytes(st->native, &report->sessions);
}

static void submit(void *ctx, struct log_job *job)
{
    struct store *st = ctx;

    st->host.submit(st->host.ctx, job);
}

/* store_done looks at what it was. */
static void on_log_progress(void *ctx)
{
    ((struct store *)ctx)->has_moved = true;
}

int store_start(struct store *st, uint64_t now_ms, struct store_report *report, char err[LOG_ERROR_MAX])
{
    struct log_host log_host = {.ctx = st, .submit = submit, .on_progress = on_log_progress};
    int rv;

    TQ_ASSERT(st->restore != NULL && st->has_state && now_ms >= report->last_ms);
    st->ids_safe = broker_journal_next_id(st->broker); /* what the log says */
    rv = finish(st, now_ms, err);
    if (rv != TQ_OK)
        return rv;
    report_state(st, report);
    st->conf.log.now_ms = now_ms;
    st->has_state = false;
    rv = log_open(&st->log, st->fs, &st->conf.log, &log_host, &st->state, err);
    if (rv != TQ_OK)
        return rv;
    st->has_moved = true;
    st->space.is_fresh = true;
    rv = store_turn(st, now_ms);
    if (rv != TQ_OK)
        (void)snprintf(err, LOG_ERROR_MAX, "%s", st->error);
    return rv;
}
