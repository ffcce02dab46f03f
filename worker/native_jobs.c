/* What goes over a native connection: tasks, their jobs, and what became of them. */
#include <stdio.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/agent.h"
#include "worker/native_link.h"

#define RESULT_MAX_BYTES (UINT64_C(64) << 20)
#define ENVELOPE_BYTES   1024  /* of a frame with one result */
#define IDLE_WAIT_MS     60000 /* once it was told that there is nothing */
#define LEAST_WAIT_MS    100   /* of a worker that serves on */

/* From its hand-out until nothing is left to say of it and its job has ended. */
struct native_job {
    struct credit_hand hand;
    struct native_link *n;
    struct runner_job base;
    bool running;
    bool failed; /* base.result is an error's text */
};

static void on_job_done(struct runner_job *base, int status);

static struct native_job *job_of(struct credit_hand *h)
{
    return TICK_OWNER(h, struct native_job, hand);
}

static void job_free(struct native_job *j)
{
    TQ_ASSERT(!j->running && j->hand.state == CREDIT_LEFT);
    tq_buf_deinit(&j->base.result);
    tq_free(j);
}

/* It is nobody's any more; a job that runs is canceled and freed when it has ended. */
static void job_drop(struct native_job *j)
{
    if (j->running)
        j->n->agent->runner->ops->cancel(j->n->agent->runner, &j->base);
    else
        job_free(j);
}

/* ---- sending ---- */

static struct tq_native_get get_of(const struct native_link *n, uint32_t credit)
{
    const struct agent *a = n->agent;
    uint64_t wait_ms = a->conf->poll_timeout_ms;

    /* Nobody waits for the word that there is still nothing, but whoever polls without waiting must not spin.
     */
    if (a->conf->count == 0 && wait_ms < (a->told_empty ? IDLE_WAIT_MS : LEAST_WAIT_MS))
        wait_ms = a->told_empty ? IDLE_WAIT_MS : LEAST_WAIT_MS;
    return (struct tq_native_get){
        .q = tq_span_str(a->conf->from), .max = credit, .wait_ms = (int64_t)wait_ms};
}

static void fill_end(struct tq_native_end *end, const struct native_job *j)
{
    struct tq_span result = tq_buf_span(&j->base.result);

    *end = (struct tq_native_end){.lease = j->hand.lease, .failed = j->failed};
    if (!j->failed) {
        end->value = result;
        return;
    }
    end->error = result;
    end->code = j->base.code;
    end->final = j->base.final;
}

static int make_done(struct native_link *n, const struct credit_call *call)
{
    const struct agent_conf *conf = n->agent->conf;
    struct tq_native_end ends[CREDIT_FRAME_ENDS];
    struct tq_native_get get = get_of(n, call->credit);
    struct credit_hand *h;
    uint32_t count = 0;

    for (h = call->sent; h != NULL; h = h->next)
        fill_end(&ends[count++], job_of(h));
    return tq_native_put_done(&n->out, call->msgid, ends, count, tq_span_str(conf->to), !conf->to_given,
                              call->credit > 0 ? &get : NULL);
}

static int make_step(struct native_link *n, const struct credit_step *step)
{
    struct tq_native_get get;

    tq_buf_clear(&n->out);
    switch (step->kind) {
    case CREDIT_DONE:
        return make_done(n, step->call);
    case CREDIT_GET:
        get = get_of(n, step->call->credit);
        return tq_native_put_get(&n->out, step->call->msgid, &get);
    default:
        return tq_native_put_cancel(&n->out, step->call->msgid);
    }
}

/* Is the queue of --to there? Asked before the first task is taken, so that a typing error costs none. */
static void ask_for_to(struct native_link *n)
{
    n->to_call = credit_msgid(&n->credit);
    tq_buf_clear(&n->out);
    if (tq_native_put_done(&n->out, n->to_call, NULL, 0, tq_span_str(n->agent->conf->to), false, NULL) !=
        TQ_OK)
        native_link_no_memory(n);
    else
        (void)native_link_write(n);
}

void native_jobs_send(struct native_link *n)
{
    struct agent *a = n->agent;
    struct credit_step step;

    if (a->conf->to_given && !n->to_known && n->to_call == 0 && !n->paused)
        ask_for_to(n);
    while (n->state == NATIVE_LINK_UP && n->link.state == LINK_UP && !n->paused) {
        bool may_ask = n->to_known || !a->conf->to_given;

        step = credit_next(&n->credit, may_ask ? agent_turns(a) : 0, a->stopping);
        if (step.kind == CREDIT_NOTHING)
            return;
        if (make_step(n, &step) != TQ_OK) {
            native_link_no_memory(n);
            return;
        }
        if (native_link_write(n) != TQ_OK) {
            /* For certain not sent; the rest of the calls ends with the connection. */
            if (step.kind != CREDIT_CANCEL)
                credit_call_failed(&n->credit, step.call);
            return;
        }
        if (step.kind != CREDIT_CANCEL)
            agent_take_turns(a, step.call->credit);
    }
}

/* Tasks that are not wanted any more. */
static void release(struct native_link *n, struct tq_native_list *tasks)
{
    uint32_t count = 0;
    struct tq_native_lease *leases = tq_calloc((size_t)tasks->left + 1, sizeof(*leases));
    struct tq_native_task task;
    int rv = TQ_ENOMEM;

    if (leases != NULL) {
        while (tq_native_next_task(tasks, &task))
            leases[count++] = task.lease;
        tq_buf_clear(&n->out);
        rv = tq_native_put_release(&n->out, credit_msgid(&n->credit), leases, count);
    }
    tq_free(leases);
    if (rv != TQ_OK) {
        native_link_no_memory(n);
        return;
    }
    n->others++;
    (void)native_link_write(n);
}

/* ---- jobs ---- */

/* There is no answer of the job's own. */
static void fail_job(struct native_job *j, bool final, const char *text)
{
    j->failed = true;
    j->base.code = 0;
    j->base.final = final;
    tq_buf_clear(&j->base.result);
    (void)tq_buf_append_str(&j->base.result, text); /* without memory it is a failure without words */
}

static void check_size(struct native_job *j)
{
    uint64_t most = j->n->max_frame_bytes;
    size_t len = j->base.result.len;
    char text[200];

    if (j->failed || len + ENVELOPE_BYTES <= most)
        return;
    snprintf(text, sizeof(text),
             "the result has %zu bytes and the master takes %llu: raise its --max-frame-bytes", len,
             (unsigned long long)most);
    tq_log(TQ_LOG_ERROR, "RESULT-TOO-LARGE", "id=%llu bytes=%zu", (unsigned long long)j->hand.lease.id, len);
    fail_job(j, true, text);
}

static void finish_job(struct native_job *j)
{
    struct native_link *n = j->n;

    check_size(j);
    j->hand.bytes = j->base.result.len;
    credit_finish(&n->credit, &j->hand);
    native_link_flush_soon(n);
}

static void on_job_done(struct runner_job *base, int status)
{
    struct native_job *j = TICK_OWNER(base, struct native_job, base);
    struct native_link *n = j->n;

    j->running = false;
    credit_job_ended(&n->credit);
    if (j->hand.state == CREDIT_LEFT) {
        job_free(j);
        native_link_flush_soon(n); /* its slot is free */
        native_link_maybe_gone(n);
        return;
    }
    j->failed = status == RUNNER_FAILED;
    if (status < 0) {
        tq_log(TQ_LOG_ERROR, "TASK-FAILED", "id=%llu reason=\"%s\"", (unsigned long long)j->hand.lease.id,
               tq_strerror(status));
        fail_job(j, false, tq_strerror(status));
    }
    finish_job(j);
}

/* TQ_ENOMEM; 1: it is in hand already. */
static int start_job(struct native_link *n, const struct tq_native_task *t)
{
    struct agent *a = n->agent;
    struct native_job *j = tq_calloc(1, sizeof(*j));
    struct runner_task task = {.body = t->body,
                               .id = t->lease.id,
                               .epoch = t->lease.epoch,
                               .attempt = t->attempt,
                               .priority = t->priority,
                               .key = t->key,
                               .trace = t->trace,
                               .error = t->error,
                               .expires_ms = t->expires_ms};
    int rv;

    if (j == NULL)
        return TQ_ENOMEM;
    j->n = n;
    j->hand.lease = t->lease;
    j->base.on_done = on_job_done;
    tq_buf_init(&j->base.result, RESULT_MAX_BYTES);
    rv = credit_add(&n->credit, &j->hand);
    if (rv != TQ_OK) {
        tq_free(j);
        return rv;
    }
    agent_on_task(a);
    rv = a->runner->ops->start(a->runner, &j->base, &task);
    j->running = rv == TQ_OK;
    if (rv == TQ_OK)
        return TQ_OK;
    credit_job_ended(&n->credit);
    fail_job(j, false, tq_strerror(rv));
    finish_job(j);
    return TQ_OK;
}

static void start_jobs(struct native_link *n, struct tq_native_list *tasks)
{
    struct tq_native_task t;

    while (!native_link_over(n) && tq_native_next_task(tasks, &t)) {
        int rv = start_job(n, &t);

        if (rv == 1)
            link_fail(&n->link, LINK_BAD_PEER, "%s handed out one task twice", n->link.peer->name);
        else if (rv != TQ_OK)
            native_link_no_memory(n);
        if (rv != TQ_OK)
            return;
    }
}

/* ---- answers ---- */

/* What a get, or a whole request, was refused with. */
static void refused(struct native_link *n, bool to, struct tq_span code, struct tq_span text)
{
    const struct agent_conf *conf = n->agent->conf;
    bool queue = tq_span_is(code, "queue_unknown") || tq_span_is(code, "denied");
    char line[LINK_TEXT_MAX], why[300];

    tq_log_quote(why, sizeof(why), text.data, text.len);
    if (tq_span_is(code, "queue_unknown"))
        snprintf(line, sizeof(line), "%s has no queue '%s' (%.100s): name one that it has by --%s",
                 n->link.peer->name, to ? conf->to : conf->from, why, to ? "to" : "from");
    else
        snprintf(line, sizeof(line), "%s refused a request: %s", n->link.peer->name, why);
    native_link_pause(n);
    agent_on_trouble(n->agent, queue ? AGENT_TROUBLE_QUEUE : AGENT_TROUBLE_CALL, LINK_FINE, line);
}

void native_jobs_answer_to(struct native_link *n, const struct tq_native_message *m)
{
    n->to_call = 0;
    if (m->kind == TQ_NATIVE_ERROR) {
        refused(n, true, m->code, m->text);
        return;
    }
    n->to_known = true;
    native_link_flush_soon(n);
}

/* A result that the master does not take: it is another's by now, or was answered before. */
static void drop_stale(struct native_link *n, struct credit_hand *h, struct tq_span code)
{
    char quoted[64];

    n->agent->stale++;
    tq_log(TQ_LOG_WARN, "RESULT-STALE", "id=%llu epoch=%llu code=\"%s\" count=%llu",
           (unsigned long long)h->lease.id, (unsigned long long)h->lease.epoch,
           tq_log_quote(quoted, sizeof(quoted), code.data, code.len), (unsigned long long)n->agent->stale);
    credit_leave(&n->credit, h);
    job_drop(job_of(h));
}

/* False: the answer is about something else than what was sent. */
static bool take_refusals(struct native_link *n, struct credit_call *call, struct tq_native_list *list)
{
    struct tq_native_refusal r;

    if (list->left > call->sent_count)
        return false;
    while (tq_native_next_refusal(list, &r)) {
        struct credit_hand *h = credit_sent(call, r.id);

        if (h == NULL)
            return false;
        if (tq_span_is(r.code, "stale") || tq_span_is(r.code, "unknown")) {
            drop_stale(n, h, r.code);
        } else { /* memory, no_space, full: later */
            credit_again(&n->credit, call, h);
            refused(n, true, r.code, r.code);
            if (native_link_over(n))
                return true;
        }
    }
    return true;
}

static void settle(struct native_link *n, struct credit_call *call)
{
    struct credit_hand *h;

    while ((h = credit_settled(&n->credit, call)) != NULL)
        job_drop(job_of(h));
}

static void take_answer(struct native_link *n, struct credit_call *call, const struct tq_native_message *m)
{
    struct agent *a = n->agent;
    uint32_t credit = call->credit;
    struct tq_native_answer answer;
    const char *why;
    uint32_t count;

    if (tq_native_read_answer(&answer, m->body, &why) != TQ_OK) {
        link_fail(&n->link, LINK_BAD_PEER, "%s sent a reply that cannot be read (%s)", n->link.peer->name,
                  why);
        return;
    }
    count = answer.tasks.left;
    if (count > credit) {
        link_fail(&n->link, LINK_BAD_PEER, "%s sent more tasks than were asked for", n->link.peer->name);
        return;
    }
    if (!take_refusals(n, call, &answer.refused)) {
        link_fail(&n->link, LINK_BAD_PEER, "%s refused what was not sent", n->link.peer->name);
        return;
    }
    if (native_link_over(n))
        return;
    settle(n, call);
    credit_relax(&n->credit);
    if (answer.get_code.len > 0 || count > 0)
        agent_return_turns(a, credit - count);
    else if (credit > 0 && !a->stopping)
        agent_on_empty(a, credit);
    if (answer.get_code.len > 0 && !tq_span_is(answer.get_code, "canceled")) {
        refused(n, false, answer.get_code, answer.get_text);
    } else if (credit > 0 && n->refusals.failures > 0) {
        backoff_reset(&n->refusals);
        agent_on_up(a, true); /* the trouble is over */
    }
    if (count > 0 && a->stopping)
        release(n, &answer.tasks);
    else
        start_jobs(n, &answer.tasks);
}

/* The whole request was refused: nothing of it was done. */
static void take_error(struct native_link *n, struct credit_call *call, const struct tq_native_message *m)
{
    struct credit_hand *h = call->sent;
    bool alone = call->sent_count == 1;

    agent_return_turns(n->agent, call->credit);
    if (tq_span_is(m->code, "canceled")) {
        settle(n, call); /* the results that came with the get were taken with it */
        return;
    }
    credit_call_failed(&n->credit, call);
    if (alone && tq_span_is(m->code, "bad_request")) {
        /* It will not be taken tomorrow either. */
        struct native_job *j = job_of(h);
        char text[300], why[200];

        tq_log_quote(why, sizeof(why), m->text.data, m->text.len);
        tq_log(TQ_LOG_ERROR, "RESULT-REFUSED", "id=%llu text=\"%s\"", (unsigned long long)h->lease.id, why);
        if (j->failed) {
            credit_leave(&n->credit, h);
            job_drop(j);
        } else {
            snprintf(text, sizeof(text), "the master refused the result: %s", why);
            fail_job(j, true, text);
            h->bytes = j->base.result.len;
        }
    }
    refused(n, m->text.len > 3 && memcmp(m->text.data, "to:", 3) == 0, m->code, m->text);
}

void native_jobs_answer(struct native_link *n, struct credit_call *call, const struct tq_native_message *m)
{
    if (m->kind == TQ_NATIVE_ERROR)
        take_error(n, call, m);
    else
        take_answer(n, call, m);
    native_link_flush_soon(n);
}

/* ---- what ends leases ---- */

void native_jobs_resume(struct native_link *n, struct tq_native_welcome *w)
{
    struct tq_native_lease lease;
    enum credit_state was;
    struct credit_hand *h;
    unsigned lost = 0, settled = 0;

    while (tq_native_next_lease(&w->leases, &lease))
        (void)credit_confirm(&n->credit, &lease);
    while ((h = credit_unconfirmed(&n->credit, &was)) != NULL) {
        if (was == CREDIT_SENT)
            settled++;
        else
            lost++;
        job_drop(job_of(h));
    }
    if (lost > 0)
        tq_log(TQ_LOG_WARN, "LEASES-LOST",
               "peer=%s resumed=%d tasks=%u effect=\"the master gives them to others\"", n->link.peer->name,
               w->resumed, lost);
    if (settled > 0)
        tq_log(TQ_LOG_INFO, "RESULTS-SETTLED",
               "peer=%s resumed=%d results=%u effect=\"sent before the connection ended: the master has "
               "them, or gave "
               "their tasks to others\"",
               n->link.peer->name, w->resumed, settled);
}

void native_jobs_lost(struct native_link *n, struct tq_native_list *leases)
{
    struct tq_native_lease lease;
    unsigned lost = 0;

    while (tq_native_next_lease(leases, &lease)) {
        struct credit_hand *h = credit_find(&n->credit, &lease);

        /* Of what is on its way to the master the answer tells. */
        if (h == NULL || h->state == CREDIT_SENT)
            continue;
        credit_leave(&n->credit, h);
        job_drop(job_of(h));
        lost++;
    }
    if (lost > 0)
        tq_log(TQ_LOG_WARN, "LEASES-LOST", "peer=%s tasks=%u effect=\"the master took them back; dropped\"",
               n->link.peer->name, lost);
    native_link_flush_soon(n);
}

void native_jobs_cut(struct native_link *n)
{
    uint64_t credit;

    credit_cut(&n->credit, &credit);
    agent_return_turns(n->agent, credit);
}

void native_jobs_abort(struct native_link *n)
{
    struct credit_hand *h;

    while ((h = n->credit.by_lease) != NULL) {
        credit_leave(&n->credit, h);
        job_drop(job_of(h));
    }
}
