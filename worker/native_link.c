#include "worker/native_link.h"

#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/agent.h"

#define CALL_MS       10000 /* for the answer to hello */
#define BYE_MS        1000  /* for the master to close after bye */
#define OUT_MAX_BYTES INT32_MAX
#define OUT_KEEP      65536 /* of the buffer, between requests */

static void connect_again(struct native_link *n);

/* ---- state ---- */

static void enter(struct native_link *n, enum native_state to)
{
#define TO(x) (1u << (NATIVE_LINK_##x))
    static const unsigned allowed[] = {
        [NATIVE_LINK_NEW] = TO(DOWN) | TO(CLOSING),
        [NATIVE_LINK_DOWN] = TO(UP) | TO(CLOSING),
        [NATIVE_LINK_UP] = TO(DOWN) | TO(LEAVING) | TO(CLOSING),
        [NATIVE_LINK_LEAVING] = TO(CLOSING),
        [NATIVE_LINK_CLOSING] = TO(GONE),
    };
#undef TO

    TQ_ASSERT(n->state < NATIVE_LINK_GONE && (allowed[n->state] & 1u << to) != 0);
    n->state = to;
}

void native_link_maybe_gone(struct native_link *n)
{
    if (n->state != NATIVE_LINK_CLOSING || n->credit.busy > 0 || !link_is_idle(&n->link))
        return;
    enter(n, NATIVE_LINK_GONE);
    tick_clear(&n->agent->ticker, &n->flush);
    tick_clear(&n->agent->ticker, &n->beat);
    tick_clear(&n->agent->ticker, &n->pause);
    agent_on_part_gone(n->agent);
}

int native_link_write(struct native_link *n)
{
    int rv = link_send(&n->link, tq_buf_span(&n->out));

    n->sent_ms = uv_now(&n->agent->loop);
    if (n->out.cap > OUT_KEEP)
        tq_buf_deinit(&n->out);
    tq_buf_clear(&n->out);
    return rv;
}

void native_link_abort(struct native_link *n)
{
    if (native_link_over(n))
        return;
    if (n->state == NATIVE_LINK_UP && n->link.state == LINK_UP) {
        tq_buf_clear(&n->out);
        if (tq_native_put_plain(&n->out, credit_msgid(&n->credit), "bye") == TQ_OK)
            (void)native_link_write(n);
    }
    enter(n, NATIVE_LINK_CLOSING);
    native_jobs_abort(n);
    link_close(&n->link);
    native_link_maybe_gone(n);
}

void native_link_no_memory(struct native_link *n)
{
    agent_on_trouble(n->agent, AGENT_TROUBLE_PEER, LINK_OUT_OF_MEMORY, "out of memory");
    native_link_abort(n);
}

unsigned native_link_busy(const struct native_link *n)
{
    const struct credit *c = &n->credit;

    /* Of what was sent the master knows, unless the connection is gone. */
    return c->busy + c->finished_count + (n->state == NATIVE_LINK_DOWN ? credit_unsure(c) : 0);
}

/* ---- leaving ---- */

static void leave(struct native_link *n)
{
    enter(n, NATIVE_LINK_LEAVING);
    tq_buf_clear(&n->out);
    if (tq_native_put_plain(&n->out, credit_msgid(&n->credit), "bye") != TQ_OK) {
        native_link_abort(n);
        return;
    }
    (void)native_link_write(n);
    link_deadline(&n->link, BYE_MS);
}

/* Nothing is wanted, nothing runs, and no result is left that could still be handed in. */
static bool is_finished(const struct native_link *n)
{
    if (n->credit.busy > 0 || n->credit.finished_count > 0)
        return false;
    return !agent_wants_tasks(n->agent) && (n->agent->stopping || n->credit.covered == 0);
}

static void on_flush(struct tick *t)
{
    struct native_link *n = TICK_OWNER(t, struct native_link, flush);

    tick_park(&n->agent->ticker, &n->flush, on_flush);
    if (n->state == NATIVE_LINK_UP)
        native_jobs_send(n);
    if (native_link_over(n) || n->state == NATIVE_LINK_LEAVING || !is_finished(n))
        return;
    if (n->state != NATIVE_LINK_UP)
        native_link_abort(n);
    else if (credit_in_hand(&n->credit) == 0)
        leave(n);
}

void native_link_flush_soon(struct native_link *n)
{
    if (!native_link_over(n))
        tick_move(&n->agent->ticker, &n->flush, 0, on_flush);
}

void native_link_stop(struct native_link *n)
{
    if (n->state == NATIVE_LINK_NEW)
        native_link_abort(n);
    else
        native_link_flush_soon(n);
}

/* ---- signs of life ---- */

static void on_beat(struct tick *t)
{
    struct native_link *n = TICK_OWNER(t, struct native_link, beat);
    uint64_t now_ms = uv_now(&n->agent->loop);
    uint64_t half_ms = n->heartbeat_ms / 2;

    if (n->state != NATIVE_LINK_UP && n->state != NATIVE_LINK_LEAVING) {
        tick_park(&n->agent->ticker, &n->beat, on_beat);
        return;
    }
    /* We were stopped ourselves: what came meanwhile is still to be read. */
    if (now_ms > n->beat_ms + half_ms)
        n->link.heard_ms = now_ms;
    n->beat_ms = now_ms + half_ms;
    tick_move(&n->agent->ticker, &n->beat, half_ms, on_beat);
    if (now_ms - n->link.heard_ms > n->silent_ms) {
        link_fail(&n->link, LINK_LOST, "%s did not answer for %u s", n->link.peer->name,
                  (unsigned)((now_ms - n->link.heard_ms) / 1000));
        return;
    }
    if (n->state != NATIVE_LINK_UP || (now_ms - n->sent_ms < half_ms && now_ms - n->link.heard_ms < half_ms))
        return;
    tq_buf_clear(&n->out);
    if (tq_native_put_plain(&n->out, credit_msgid(&n->credit), "ping") != TQ_OK) {
        native_link_no_memory(n);
        return;
    }
    n->others++;
    (void)native_link_write(n);
}

/* ---- hello ---- */

static void say_hello(struct native_link *n)
{
    const struct agent_conf *conf = n->agent->conf;
    uint32_t count = credit_in_hand(&n->credit);
    struct tq_native_lease *leases = tq_calloc(count + 1, sizeof(*leases));
    struct tq_native_hello h = {.client = tq_span_str(conf->client),
                                .worker = tq_span_str(conf->worker_id),
                                .leases = leases,
                                .lease_count = count,
                                .heartbeat_ms = (uint32_t)conf->heartbeat_ms};
    int rv = TQ_ENOMEM;

    if (n->has_token)
        h.token = tq_span(n->token, sizeof(n->token));
    n->hello_call = credit_msgid(&n->credit);
    tq_buf_clear(&n->out);
    if (leases != NULL) {
        credit_leases(&n->credit, leases);
        rv = tq_native_put_hello(&n->out, n->hello_call, &h);
    }
    tq_free(leases);
    if (rv != TQ_OK) {
        native_link_no_memory(n);
        return;
    }
    link_deadline(&n->link, CALL_MS);
    (void)native_link_write(n);
}

static void hello_refused(struct native_link *n, const struct tq_native_message *m)
{
    char text[LINK_TEXT_MAX], why[300];

    tq_log_quote(why, sizeof(why), m->text.data, m->text.len);
    snprintf(text, sizeof(text), "%s refused this worker: %s", n->link.peer->name, why);
    /* Another connection may go; what else it says of a hello stays true. */
    if (tq_span_is(m->code, "worker_taken") || tq_span_is(m->code, "memory") ||
        tq_span_is(m->code, "no_space") || tq_span_is(m->code, "too_many"))
        link_fail(&n->link, LINK_LOST, "%s", text);
    else
        agent_on_trouble(n->agent, AGENT_TROUBLE_FINAL, LINK_FINE, text);
}

static void take_welcome(struct native_link *n, const struct tq_native_message *m)
{
    struct tq_native_welcome w;
    const char *why;

    n->hello_call = 0;
    link_deadline(&n->link, 0);
    if (m->kind == TQ_NATIVE_ERROR) {
        hello_refused(n, m);
        return;
    }
    if (tq_native_read_welcome(&w, m->body, &why) != TQ_OK) {
        link_fail(&n->link, LINK_BAD_PEER, "%s sent a reply that cannot be read (%s)", n->link.peer->name,
                  why);
        return;
    }
    n->has_token = w.token.len == sizeof(n->token);
    if (n->has_token)
        memcpy(n->token, w.token.data, sizeof(n->token));
    n->max_frame_bytes = w.max_frame_bytes;
    n->heartbeat_ms = (uint32_t)n->agent->conf->heartbeat_ms;
    if (w.heartbeat_ms >= AGENT_HEARTBEAT_LEAST_MS && w.heartbeat_ms < n->heartbeat_ms)
        n->heartbeat_ms = w.heartbeat_ms;
    n->silent_ms = 3 * n->heartbeat_ms;
    n->others = 0;
    enter(n, NATIVE_LINK_UP);
    credit_open(&n->credit, w.max_batch, w.max_calls);
    native_jobs_resume(n, &w);
    if (n->heartbeat_ms > 0) {
        n->beat_ms = uv_now(&n->agent->loop) + n->heartbeat_ms / 2;
        tick_move(&n->agent->ticker, &n->beat, n->heartbeat_ms / 2, on_beat);
    }
    agent_on_up(n->agent, false);
    native_link_flush_soon(n);
}

/* ---- frames ---- */

static void take_notice(struct native_link *n, const struct tq_native_message *m)
{
    const char *name = n->link.peer->name;
    struct tq_native_list leases;
    struct tq_span code, text;
    char quoted[300];
    const char *why;

    if (tq_span_is(m->method, "lost")) {
        if (tq_native_read_lost(&leases, m->body, &why) == TQ_OK)
            native_jobs_lost(n, &leases);
        else
            link_fail(&n->link, LINK_BAD_PEER, "%s sent a message that cannot be read (%s)", name, why);
        return;
    }
    tq_native_read_words(m->body, &code, &text);
    tq_log_quote(quoted, sizeof(quoted), text.data, text.len);
    if (tq_span_is(m->method, "error"))
        link_fail(&n->link, LINK_BAD_PEER, "%s could not read us: %s", name, quoted);
    else if (tq_span_is(m->method, "bye"))
        tq_log(TQ_LOG_INFO, "MASTER-BYE", "peer=%s text=\"%s\"", name, quoted);
}

static void take_reply(struct native_link *n, const struct tq_native_message *m)
{
    struct credit_call *call;

    if (n->hello_call != 0) {
        if (m->msgid == n->hello_call)
            take_welcome(n, m);
        else
            link_fail(&n->link, LINK_BAD_PEER, "%s sent a reply that nobody asked for", n->link.peer->name);
        return;
    }
    if (n->state != NATIVE_LINK_UP)
        return; /* leaving: it will close */
    call = credit_call_of(&n->credit, m->msgid);
    if (call != NULL) {
        native_jobs_answer(n, call, m);
    } else if (n->to_call != 0 && m->msgid == n->to_call) {
        native_jobs_answer_to(n, m);
    } else if (n->others > 0) {
        n->others--;
    } else {
        link_fail(&n->link, LINK_BAD_PEER, "%s sent a reply that nobody asked for", n->link.peer->name);
    }
}

static void on_frame(struct native_link *n, struct tq_span frame)
{
    struct tq_native_message m;
    const char *why;

    if (n->state != NATIVE_LINK_DOWN && n->state != NATIVE_LINK_UP && n->state != NATIVE_LINK_LEAVING)
        return;
    if (tq_native_read(&m, frame, &why) != TQ_OK)
        link_fail(&n->link, LINK_BAD_PEER, "%s sent a message that cannot be read (%s)", n->link.peer->name,
                  why);
    else if (m.kind == TQ_NATIVE_NOTICE)
        take_notice(n, &m);
    else
        take_reply(n, &m);
}

static void on_closed(struct native_link *n)
{
    struct agent *a = n->agent;
    const struct link *l = &n->link;
    bool at_hello = n->hello_call != 0 && (l->failure == LINK_LOST || l->failure == LINK_BAD_PEER);
    char text[LINK_TEXT_MAX];

    n->hello_call = 0;
    n->to_call = 0;
    n->others = 0;
    native_jobs_cut(n);
    if (n->state == NATIVE_LINK_LEAVING)
        enter(n, NATIVE_LINK_CLOSING);
    if (native_link_over(n)) {
        native_link_maybe_gone(n);
        return;
    }
    if (n->state == NATIVE_LINK_UP)
        enter(n, NATIVE_LINK_DOWN);
    /* A master that ends once it has its last result is no trouble for a worker that wanted no more. */
    if (is_finished(n)) {
        native_link_abort(n);
        return;
    }
    snprintf(text, sizeof(text), "%.400s%s", l->text,
             at_hello && !a->ever_up ? "; if it is no task-master but Python's own manager, add --peer python"
                                     : "");
    agent_on_trouble(a, AGENT_TROUBLE_PEER, l->failure, text);
    if (!native_link_over(n))
        connect_again(n);
}

static void on_link_event(struct link *l, enum link_event ev, struct tq_span frame)
{
    struct native_link *n = TICK_OWNER(l, struct native_link, link);

    switch (ev) {
    case LINK_OPEN:
        say_hello(n);
        break;
    case LINK_FRAME:
        on_frame(n, frame);
        break;
    case LINK_CLOSED:
        on_closed(n);
        break;
    }
}

static void connect_again(struct native_link *n)
{
    if (link_open(&n->link, &n->agent->peer, on_link_event) != TQ_OK)
        native_link_no_memory(n);
}

/* ---- the beginning and the end ---- */

static void on_pause_over(struct tick *t)
{
    struct native_link *n = TICK_OWNER(t, struct native_link, pause);

    n->paused = false;
    tick_park(&n->agent->ticker, &n->pause, on_pause_over);
    native_link_flush_soon(n);
}

void native_link_pause(struct native_link *n)
{
    uint32_t random = 0;

    if (n->paused || native_link_over(n))
        return;
    n->paused = true;
    (void)tq_random_bytes(&random, sizeof(random));
    tick_move(&n->agent->ticker, &n->pause, backoff_next_ms(&n->refusals, random), on_pause_over);
}

int native_link_init(struct native_link *n, struct agent *a)
{
    int rv;

    *n = (struct native_link){.agent = a};
    tq_buf_init(&n->out, OUT_MAX_BYTES);
    credit_init(&n->credit, (uint32_t)a->conf->jobs);
    rv = tick_set(&a->ticker, &n->flush, TICK_PARKED_MS, on_flush);
    if (rv == TQ_OK)
        rv = tick_set(&a->ticker, &n->beat, TICK_PARKED_MS, on_beat);
    if (rv == TQ_OK)
        rv = tick_set(&a->ticker, &n->pause, TICK_PARKED_MS, on_pause_over);
    if (rv != TQ_OK) {
        tick_clear(&a->ticker, &n->beat);
        tick_clear(&a->ticker, &n->flush);
    }
    return rv;
}

void native_link_deinit(struct native_link *n)
{
    TQ_ASSERT(n->state == NATIVE_LINK_NEW || n->state == NATIVE_LINK_GONE);
    credit_deinit(&n->credit);
    tq_buf_deinit(&n->out);
}

void native_link_start(struct native_link *n)
{
    enter(n, NATIVE_LINK_DOWN);
    connect_again(n);
}
