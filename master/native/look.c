/* Looking: stats, queues, tasks, workers. Lists come in pages, each of bounded work. */
#include "master/native/native_impl.h"

#include <stdio.h>

/* ---- stats ---- */

static void put_u64(struct native_map *m, const char *key, uint64_t v)
{
    native_key(m, key);
    tq_mp_put_u64(m->o, v);
}

static void put_queue(struct tq_mp_out *o, const struct native *n, const struct broker_queue *q)
{
    struct native_map m = native_map_begin(o, true);
    struct broker_queue_stats s;

    broker_get_queue_stats(n->host->broker, q, &s);
    native_key(&m, "q");
    tq_mp_put_cstr(o, broker_queue_name(q));
#define STAT(field_) put_u64(&m, #field_, s.field_)
    STAT(ready);
    STAT(delayed);
    STAT(leased);
    STAT(unfinished);
    STAT(waiting_gets);
    STAT(waiting_puts);
    STAT(puts);
    STAT(gets);
    STAT(done);
    STAT(failed);
    STAT(retried);
    STAT(returned);
    STAT(expired);
    STAT(dead);
    STAT(dropped);
    STAT(stale);
    STAT(body_bytes);
#undef STAT
    if (s.oldest_ms != 0) {
        native_key(&m, "oldest_ms");
        native_put_ms(o, n, s.oldest_ms);
    }
    native_key(&m, "shut_down");
    tq_mp_put_bool(o, s.shut_down);
    native_key(&m, "policies");
    {
        struct native_map policies = native_map_begin(o, true);

        native_put_policies(&policies, broker_queue_conf(q));
        native_map_end(&policies);
    }
    native_map_end(&m);
}

static void put_broker_stats(struct native_map *m, const struct native *n)
{
    struct broker_stats s;

    broker_get_stats(n->host->broker, &s);
#define STAT(field_) put_u64(m, #field_, s.field_)
    STAT(puts);
    STAT(gets);
    STAT(acked);
    STAT(failed);
    STAT(retried);
    STAT(returned);
    STAT(bounced);
    STAT(resumed);
    STAT(stale);
    STAT(expired);
    STAT(dead);
    STAT(dropped);
    STAT(known);
    STAT(waiting);
    STAT(queues);
    STAT(tasks);
    STAT(delayed);
    STAT(leased);
    STAT(kept);
    STAT(kept_dropped);
    STAT(body_bytes);
    STAT(parked_bytes);
    STAT(memory_bytes);
#undef STAT
}

static void put_native_stats(struct native_map *m, const struct native *n)
{
    const struct native_counters *s = &n->counters;

#define STAT(name_, field_) put_u64(m, name_, s->field_)
    STAT("native_requests", requests);
    STAT("native_errors", errors);
    STAT("native_protocol_errors", protocol_errors);
    STAT("sessions_opened", sessions_opened);
    STAT("sessions_resumed", sessions_resumed);
    STAT("sessions_taken_over", sessions_taken_over);
    STAT("sessions_forgotten", sessions_forgotten);
    STAT("sessions_silent", silent);
    STAT("lost_told", lost_told);
    STAT("not_reading", not_reading);
#undef STAT
    put_u64(m, "sessions", n->sessions.used);
}

struct stats_fields {
    struct tq_span q;
};

static const struct native_field stats_list[] = {
    NATIVE_FIELD(struct stats_fields, q, FIELD_TEXT, .nil = true),
};

static void reply_all(struct native_request *r)
{
    struct native *n = r->conn->native;
    struct native_out out = native_reply_begin(r->conn, r->msgid);
    struct native_map m = native_map_begin(&out.o, true);
    struct native_stat more[NATIVE_STATS_MAX];
    unsigned count = n->host->stats != NULL ? n->host->stats(n->host->ctx, more, NATIVE_STATS_MAX) : 0;

    put_broker_stats(&m, n);
    put_native_stats(&m, n);
    for (unsigned i = 0; i < count && i < NATIVE_STATS_MAX; i++)
        put_u64(&m, more[i].name, more[i].value);
    native_map_end(&m);
    (void)native_out_end(&out);
}

void native_request_stats(struct native_request *r)
{
    struct native *n = r->conn->native;
    struct stats_fields f = {0};
    struct broker_queue *q = NULL;
    struct native_bad bad;
    struct native_out out;

    if (!native_params(&r->params, &NATIVE_FIELDS(stats_list), &f, NULL, &bad) ||
        (f.q.data != NULL && (q = native_find_queue(n, f.q, "q", &bad)) == NULL) ||
        !native_may(r->conn, q != NULL ? KEY_LOOK : KEY_INSPECT, "stats", q, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (q == NULL) {
        reply_all(r);
        return;
    }
    out = native_reply_begin(r->conn, r->msgid);
    put_queue(&out.o, n, q);
    (void)native_out_end(&out);
}

/* ---- pages ---- */

struct page_fields {
    struct tq_span q, state;
    uint64_t from;
    uint32_t max;
    bool bodies;
};

static const struct native_field page_list[] = {
    NATIVE_FIELD(struct page_fields, q, FIELD_TEXT, .nil = true),
    NATIVE_FIELD(struct page_fields, state, FIELD_TEXT, .nil = true),
    NATIVE_FIELD(struct page_fields, from, FIELD_U64, .nil = true, .most = INT64_MAX),
    NATIVE_FIELD(struct page_fields, max, FIELD_U32, .least = 1, .most = NATIVE_PAGE_MAX),
    NATIVE_FIELD(struct page_fields, bodies, FIELD_BOOL, 0),
};

struct page {
    struct native_out out;
    size_t count_at;
    uint32_t count, max;
    size_t bytes_max;
};

static struct page page_begin(struct native_request *r, const char *what, uint32_t max)
{
    struct page p = {.out = native_reply_begin(r->conn, r->msgid),
                     .max = max,
                     .bytes_max = r->conn->native->host->limits.reply_bytes};

    tq_mp_put_map(&p.out.o, 2);
    tq_mp_put_cstr(&p.out.o, what);
    p.count_at = native_array_begin(&p.out.o);
    return p;
}

static bool page_full(const struct page *p)
{
    return p->count == p->max || p->out.o.err != 0 ||
           (p->count > 0 && p->out.conn->out.len - p->out.start > p->bytes_max);
}

/* next 0: there are no more. */
static void page_end(struct page *p, uint64_t next)
{
    native_array_end(&p->out.o, p->count_at, p->count);
    tq_mp_put_cstr(&p->out.o, "next");
    if (next != 0)
        tq_mp_put_u64(&p->out.o, next);
    else
        tq_mp_put_nil(&p->out.o);
    (void)native_out_end(&p->out);
}

static bool parse_page(struct native_request *r, struct page_fields *f, const char *verb,
                       struct native_bad *bad)
{
    f->max = NATIVE_PAGE;
    if (!native_params(&r->params, &NATIVE_FIELDS(page_list), f, NULL, bad))
        return false;
    return verb == NULL || native_may(r->conn, KEY_INSPECT, verb, NULL, bad);
}

void native_request_queues(struct native_request *r)
{
    struct native *n = r->conn->native;
    struct page_fields f = {0};
    struct native_bad bad;
    struct broker_queue *q;
    struct page page;
    uint32_t i;

    if (!parse_page(r, &f, "queues", &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    page = page_begin(r, "queues", f.max);
    i = f.from < UINT32_MAX ? (uint32_t)f.from : UINT32_MAX;
    while ((q = broker_queue_from(n->host->broker, i, &i)) != NULL && !page_full(&page)) {
        put_queue(&page.out.o, n, q);
        page.count++;
        i++;
    }
    /* the first queue has index 0, which is where a list begins, so it is never the next */
    page_end(&page, q != NULL ? i : 0);
}

static bool wanted(const struct page_fields *f, const struct broker_queue *q, const struct broker_view *v)
{
    bool of_it =
        v->queue == q || (v->queue == NULL && v->from != NULL && strcmp(v->from, broker_queue_name(q)) == 0);

    return of_it && (f->state.data == NULL || tq_span_is(f->state, v->state));
}

static bool state_valid(struct tq_span state, struct native_bad *bad)
{
    static const char *const states[] = {"ready", "delayed", "leased", "done", "dead"};

    if (state.data == NULL)
        return true;
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        if (tq_span_is(state, states[i]))
            return true;
    }
    return native_bad(bad, CODE_BAD_REQUEST, "state: \"%s\" is none of ready, delayed, leased, done, dead",
                      native_quote(state));
}

void native_request_tasks(struct native_request *r)
{
    struct native *n = r->conn->native;
    unsigned budget = NATIVE_LOOK_BUDGET;
    struct page_fields f = {0};
    struct native_bad bad;
    struct broker_queue *q;
    struct broker_view v;
    struct page page;
    uint64_t from, next = 0;

    if (!parse_page(r, &f, NULL, &bad) || !state_valid(f.state, &bad) ||
        (q = native_find_queue(n, f.q, "q", &bad)) == NULL ||
        !native_may(r->conn, KEY_INSPECT, "tasks", q, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    page = page_begin(r, "tasks", f.max);
    for (from = f.from; broker_view_next(n->host->broker, from, &budget, &v, &next); from = v.id + 1) {
        if (!wanted(&f, q, &v))
            continue;
        if (page_full(&page)) {
            next = v.id;
            break;
        }
        native_put_record(&page.out.o, n, &v, true, f.bodies);
        page.count++;
    }
    page_end(&page, next);
}

static void put_session(struct tq_mp_out *o, const struct native *n, const struct native_session *s)
{
    struct native_map m = native_map_begin(o, false);
    struct native_peer peer;

    if (s->worker_len > 0) {
        native_key(&m, "worker");
        tq_mp_put_str(o, native_session_worker(s));
    }
    if (s->client_len > 0) {
        native_key(&m, "client");
        native_put_text(o, native_session_client(s));
    }
    native_key(&m, "key");
    tq_mp_put_str(o, native_session_key_name(s));
    if (s->conn != NULL) {
        n->host->describe(n->host->ctx, s->conn, &peer);
        native_key(&m, "peer");
        tq_mp_put_cstr(o, peer.peer);
        put_u64(&m, "waiting", s->conn->call_count);
    }
    native_key(&m, "since_ms");
    native_put_ms(o, n, s->since_ms);
    native_key(&m, "heard_ms");
    native_put_ms(o, n, s->conn != NULL ? s->conn->heard_ms : s->heard_ms);
    put_u64(&m, "leases", s->ep.session.held_count);
    native_key(&m, "connected");
    tq_mp_put_bool(o, s->conn != NULL);
    native_map_end(&m);
}

void native_request_workers(struct native_request *r)
{
    struct native *n = r->conn->native;
    struct page_fields f = {0};
    struct native_session *s;
    struct native_bad bad;
    struct page page;
    uint32_t i;

    if (!parse_page(r, &f, "workers", &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    page = page_begin(r, "workers", f.max);
    i = f.from < UINT32_MAX ? (uint32_t)f.from : UINT32_MAX;
    while ((s = native_roster_at(n, i, &i)) != NULL && !page_full(&page)) {
        put_session(&page.out.o, n, s);
        page.count++;
        i++;
    }
    page_end(&page, s != NULL ? i : 0);
}
