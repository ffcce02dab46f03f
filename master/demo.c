#include "master/demo.h"

#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/python/handed.h"
#include "proto/python/manager.h"

#define RESULT_TIMEOUT_MS 10000 /* the example's result.get(timeout=10) */
#define NUMBER_MOST       10000

struct demo {
    struct endpoint endpoint; /* first */
    struct server *server;
    struct broker_queue *tasks;
    struct broker_queue *results;
    uint64_t to_put;
    uint64_t left; /* results to come */
    bool asking;
    bool ended;
};

/* The request that a Python producer would send, so that the item is what a producer's would be. */
static int number_item(uint64_t number, struct tq_body **ret_body)
{
    struct tq_buf buf = TQ_BUF_NULL(256);
    struct tq_emit e;
    struct tq_py_request r;
    const char *why;
    int rv;

    tq_emit_begin(&e, &buf);
    tq_emit_mark(&e);
    tq_emit_cstr(&e, "demo");
    tq_emit_cstr(&e, "put");
    tq_emit_int(&e, (int64_t)number);
    tq_emit_tuple_n(&e, 1);
    tq_emit_empty_dict(&e);
    tq_emit_tuple(&e);
    rv = tq_emit_end(&e);
    if (rv == TQ_OK)
        rv = tq_py_request_parse(&r, tq_span(buf.data + 4, buf.len - 4), &why);
    if (rv == TQ_OK) {
        rv = tq_item_from_request(&r.pickle, r.args[0], ret_body);
        tq_py_request_deinit(&r);
    }
    tq_buf_deinit(&buf);
    return rv;
}

static void end(struct demo *d, int status)
{
    struct broker_event close = {
        .kind = BROKER_SESSION_CLOSE, .session = &d->endpoint.session, .close_mode = BROKER_CLOSE_ACK};

    if (d->ended)
        return;
    d->ended = true;
    (void)server_step(d->server, &close);
    server_stop(d->server, "the demo is over", status);
}

static void ask(struct demo *d)
{
    struct broker_event ev = {.kind = BROKER_GET,
                              .session = &d->endpoint.session,
                              .queue = d->results,
                              .wait_mode = BROKER_WAIT_MS,
                              .wait_ms = RESULT_TIMEOUT_MS};

    d->asking = true;
    if (server_step(d->server, &ev) != 0)
        end(d, 1);
}

/* One at a time: a bounded queue makes it wait, as it makes any producer. */
static void put_next(struct demo *d)
{
    struct broker_event ev = {.kind = BROKER_PUT,
                              .session = &d->endpoint.session,
                              .queue = d->tasks,
                              .wait_mode = BROKER_WAIT_FOREVER};
    struct tq_body *body = NULL;
    uint32_t number;
    int rv;

    if (d->to_put == 0) {
        printf("Try get results...\n");
        fflush(stdout);
        ask(d);
        return;
    }
    d->to_put--;
    rv = tq_random_bytes(&number, sizeof(number));
    if (rv == TQ_OK)
        rv = number_item(number % (NUMBER_MOST + 1), &body);
    if (rv == TQ_OK) {
        printf("Put task %u...\n", number % (NUMBER_MOST + 1));
        fflush(stdout);
        ev.payload = (struct broker_payload){.data = body->data,
                                             .len = body->len,
                                             .format = BROKER_PYTHON,
                                             .item_off = body->item_off,
                                             .item_len = body->item_len,
                                             .body = body};
        rv = server_step(d->server, &ev);
        tq_body_unref(body);
    }
    if (rv != TQ_OK) {
        fprintf(stderr, "task-master: the demo cannot put its tasks: %s\n", tq_strerror(rv));
        end(d, 1);
    }
}

/* `frame`: what a Python collector would be sent. */
static void print_frame(struct tq_span frame)
{
    struct tq_pickle pickle;
    struct tq_pk_value v;
    const char *why;

    if (tq_pickle_scan(&pickle, tq_span(frame.data + 4, frame.len - 4), &why) != 0) {
        printf("Result: <unreadable>\n");
        return;
    }
    if (tq_pk_decode(&pickle, pickle.top[1], &v) != 0)
        v = (struct tq_pk_value){.kind = TQ_PK_OTHER};
    if (v.kind == TQ_PK_STR)
        printf("Result: %.*s\n", (int)v.bytes.len, (const char *)v.bytes.data);
    else if (v.kind == TQ_PK_INT)
        printf("Result: %lld\n", (long long)v.integer);
    else
        printf("Result: <%s>\n", tq_pk_type_name(&pickle, pickle.top[1]));
    tq_pickle_deinit(&pickle);
}

static void print_result(struct demo *d, const struct broker_effect *fx)
{
    struct broker_view v;
    struct tq_buf *buf = &d->server->scratch;

    tq_buf_clear(buf);
    if (!broker_view_lease(d->server->broker, fx, &v))
        printf("Result: <removed>\n");
    else if (pyhanded_is_frame(&v))
        print_frame(tq_span(v.payload.data, v.payload.len));
    else if (pyhanded_reply(&v, buf) >= 0)
        print_frame(tq_buf_span(buf));
    else
        printf("Result: <too large>\n");
    fflush(stdout);
}

static void on_effect(struct endpoint *ep, struct broker_effect *fx)
{
    struct demo *d = (struct demo *)ep;
    struct broker_event delivered = {.kind = BROKER_DELIVERED, .session = &ep->session};

    switch (fx->outcome) {
    case BROKER_REPLY_ITEM:
        print_result(d, fx);
        (void)server_step(d->server, &delivered);
        if (--d->left > 0) {
            ask(d);
            return;
        }
        printf("master exit.\n");
        fflush(stdout);
        end(d, 0);
        break;
    case BROKER_REPLY_EMPTY:
        fprintf(stderr, "task-master: no result came within %d s; is a task-worker running?\n",
                RESULT_TIMEOUT_MS / 1000);
        end(d, 1);
        break;
    case BROKER_REPLY_NONE:
        put_next(d);
        break;
    default:
        fprintf(stderr,
                "task-master: the demo's %s was refused: is the queue shut down, or its memory used up?\n",
                d->asking ? "get" : "put");
        end(d, 1);
    }
}

int demo_start(struct server *s, uint64_t count)
{
    struct demo *d = tq_calloc(1, sizeof(*d));
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN};
    int rv;

    if (d == NULL)
        return TQ_ENOMEM;
    s->demo = d;
    d->server = s;
    d->endpoint.on_effect = on_effect;
    d->to_put = count;
    d->left = count;
    d->tasks = broker_find(s->broker, tq_span_str("task_queue"));
    d->results = broker_find(s->broker, tq_span_str("result_queue"));
    ev.session = &d->endpoint.session;
    rv = server_step(s, &ev);
    if (rv == TQ_OK)
        put_next(d);
    return rv;
}

void demo_stop(struct server *s)
{
    struct broker_event ev = {.kind = BROKER_SESSION_CLOSE, .close_mode = BROKER_CLOSE_ACK};

    if (s->demo == NULL)
        return;
    ev.session = &s->demo->endpoint.session;
    if (s->demo->endpoint.session.open)
        (void)server_step(s, &ev);
    tq_free(s->demo);
    s->demo = NULL;
}
