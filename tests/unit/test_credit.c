/* What a native worker says next, against a master that answers in any order, refuses, fails, cuts and
 * resumes: no slot without a get, no result that waits, no hand-out that is forgotten or told of twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "worker/credit.h"

#define PLENTY UINT64_MAX

static void hand(struct credit *c, struct credit_hand *h, uint64_t id)
{
    *h = (struct credit_hand){.lease = {.id = id, .epoch = 1}, .bytes = 20};
    assert_int_equal(credit_add(c, h), TQ_OK);
}

static void finish(struct credit *c, struct credit_hand *h)
{
    credit_job_ended(c);
    credit_finish(c, h);
}

static struct credit_call *expect(struct credit *c, uint64_t allowed, enum credit_step_kind kind,
                                  uint32_t credit, uint32_t sent)
{
    struct credit_step step = credit_next(c, allowed, false);

    assert_int_equal(step.kind, kind);
    if (kind == CREDIT_NOTHING)
        return NULL;
    assert_int_equal(step.call->credit, credit);
    assert_int_equal(step.call->sent_count, sent);
    return step.call;
}

static void settle(struct credit *c, struct credit_call *call)
{
    while (credit_settled(c, call) != NULL)
        ;
}

static void test_a_task_costs_one_frame_each_way(void **state)
{
    struct credit c;
    struct credit_hand h;
    struct credit_call *call;

    (void)state;
    credit_init(&c, 1);
    credit_open(&c, 1000, 64);
    call = expect(&c, PLENTY, CREDIT_GET, 1, 0);
    assert_int_equal(expect(&c, PLENTY, CREDIT_NOTHING, 0, 0), NULL);
    for (uint64_t id = 1; id < 50; id++) {
        settle(&c, call);
        hand(&c, &h, id);
        assert_null(expect(&c, PLENTY, CREDIT_NOTHING, 0, 0));
        finish(&c, &h);
        call = expect(&c, PLENTY, CREDIT_DONE, 1, 1);
        assert_ptr_equal(credit_sent(call, id), &h);
        assert_null(credit_sent(call, id + 1));
        assert_null(expect(&c, PLENTY, CREDIT_NOTHING, 0, 0));
    }
    settle(&c, call);
    credit_deinit(&c);
}

static void test_results_together_and_the_last_get_is_canceled(void **state)
{
    struct credit c;
    struct credit_hand h[8];
    struct credit_call *first, *calls[3], *call;
    struct credit_step step;

    (void)state;
    credit_init(&c, 8);
    credit_open(&c, 1000, 64);
    first = expect(&c, PLENTY, CREDIT_GET, 8, 0);
    settle(&c, first);
    for (uint64_t i = 0; i < 8; i++)
        hand(&c, &h[i], i);
    finish(&c, &h[0]);
    finish(&c, &h[1]);
    calls[0] = expect(&c, PLENTY, CREDIT_DONE, 2, 2);
    for (int i = 0; i < 2; i++) {
        finish(&c, &h[2 + i]);
        calls[1 + i] = expect(&c, PLENTY, CREDIT_DONE, 1, 1);
    }
    finish(&c, &h[4]);
    expect(&c, PLENTY, CREDIT_DONE, 1, 1);
    /* Four gets wait: the result goes out alone, and a small get makes room for a larger one. */
    finish(&c, &h[5]);
    call = expect(&c, PLENTY, CREDIT_DONE, 0, 1);
    step = credit_next(&c, PLENTY, false);
    assert_int_equal(step.kind, CREDIT_CANCEL);
    assert_ptr_equal(step.call, calls[1]);
    assert_null(expect(&c, PLENTY, CREDIT_NOTHING, 0, 0));
    settle(&c, call);
    settle(&c, step.call);
    expect(&c, PLENTY, CREDIT_GET, 2, 0);
    /* Stopped: all gets are canceled, nothing new is asked. */
    finish(&c, &h[6]);
    finish(&c, &h[7]);
    step = credit_next(&c, PLENTY, true);
    assert_int_equal(step.kind, CREDIT_DONE);
    assert_int_equal(step.call->credit, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(credit_next(&c, PLENTY, true).kind, CREDIT_CANCEL);
    assert_int_equal(credit_next(&c, PLENTY, true).kind, CREDIT_NOTHING);
    for (size_t i = 0; i < CREDIT_CALLS; i++)
        if (c.calls[i].used)
            settle(&c, &c.calls[i]);
    credit_deinit(&c);
}

static void test_turns_and_limits(void **state)
{
    struct credit c;
    struct credit_call *call;

    (void)state;
    credit_init(&c, 1024);
    credit_open(&c, 100, 1);
    call = expect(&c, PLENTY, CREDIT_GET, 100, 0);
    settle(&c, call);
    call = expect(&c, 7, CREDIT_GET, 7, 0);
    assert_null(expect(&c, 0, CREDIT_NOTHING, 0, 0)); /* its own seven stay */
    settle(&c, call);
    assert_null(expect(&c, 0, CREDIT_NOTHING, 0, 0));
    /* More slots than the gets may ask for: nothing is gained by canceling one. */
    credit_open(&c, 100, 64);
    for (size_t i = 0; i < CREDIT_GETS; i++)
        expect(&c, PLENTY, CREDIT_GET, 100, 0);
    assert_null(expect(&c, PLENTY, CREDIT_NOTHING, 0, 0));
    for (size_t i = 0; i < CREDIT_GETS; i++)
        settle(&c, &c.calls[i]);
    credit_deinit(&c);
}

static void test_a_lost_lease_keeps_its_slot_until_the_job_has_ended(void **state)
{
    struct credit c;
    struct credit_hand h;

    (void)state;
    credit_init(&c, 1);
    credit_open(&c, 100, 4);
    settle(&c, expect(&c, PLENTY, CREDIT_GET, 1, 0));
    hand(&c, &h, 5);
    assert_ptr_equal(credit_find(&c, &h.lease), &h);
    assert_null(credit_find(&c, &(struct tq_native_lease){5, 2}));
    assert_int_equal(credit_add(&c, &h), 1);
    credit_leave(&c, &h);
    assert_null(credit_find(&c, &h.lease));
    assert_null(expect(&c, PLENTY, CREDIT_NOTHING, 0, 0));
    credit_job_ended(&c);
    settle(&c, expect(&c, PLENTY, CREDIT_GET, 1, 0));
    credit_deinit(&c);
}

static void test_refused_results_go_out_one_by_one(void **state)
{
    struct credit c;
    struct credit_hand h[3];
    struct credit_call *call;

    (void)state;
    credit_init(&c, 3);
    credit_open(&c, 100, 4);
    settle(&c, expect(&c, PLENTY, CREDIT_GET, 3, 0));
    for (uint64_t i = 0; i < 3; i++)
        hand(&c, &h[i], i);
    for (uint64_t i = 0; i < 3; i++)
        finish(&c, &h[i]);
    credit_call_failed(&c, expect(&c, PLENTY, CREDIT_DONE, 3, 3));
    for (uint64_t i = 0; i < 3; i++) {
        call = expect(&c, PLENTY, CREDIT_DONE, i < 2 ? 0 : 3, 1);
        assert_non_null(credit_sent(call, i));
        settle(&c, call);
    }
    credit_deinit(&c);
}

/* ---- any order ---- */

#define TASKS 4000

struct task {
    struct credit_hand hand;
    bool lost_running; /* its job still holds a slot */
    unsigned told;     /* how often it left */
};

struct world {
    struct credit c;
    uint32_t seed;
    uint32_t slots;
    struct task tasks[TASKS];
    uint32_t given;
    uint32_t busy;
    bool up;
    bool stop;
};

static uint32_t roll(struct world *w, uint32_t n)
{
    w->seed = w->seed * 1664525u + 1013904223u;
    return (w->seed >> 8) % n;
}

static void left(struct world *w, struct credit_hand *h, bool was_running)
{
    struct task *t = (struct task *)h;

    assert_true(t >= w->tasks && t < w->tasks + w->given);
    assert_int_equal(t->told++, 0);
    assert_int_equal(h->state, CREDIT_LEFT);
    t->lost_running = was_running;
}

static void job_ends(struct world *w)
{
    uint32_t at = w->given > 0 ? roll(w, w->given) : 0;

    for (uint32_t i = 0; i < w->given; i++) {
        struct task *t = &w->tasks[(at + i) % w->given];

        if (t->lost_running) {
            t->lost_running = false;
            credit_job_ended(&w->c);
            w->busy--;
            return;
        }
        if (t->told == 0 && t->hand.state == CREDIT_RUNNING) {
            credit_job_ended(&w->c);
            t->hand.bytes = roll(w, 20) == 0 ? CREDIT_FRAME_BYTES : roll(w, 5000);
            credit_finish(&w->c, &t->hand);
            w->busy--;
            return;
        }
    }
}

static void give(struct world *w, uint32_t n)
{
    while (n-- > 0 && w->given < TASKS) {
        struct task *t = &w->tasks[w->given++];

        /* The same id again, too, of a later epoch. */
        t->hand.lease = (struct tq_native_lease){.id = w->given / 2, .epoch = w->given};
        assert_int_equal(credit_add(&w->c, &t->hand), TQ_OK);
        w->busy++;
    }
}

static void answer(struct world *w)
{
    uint32_t at = roll(w, CREDIT_CALLS);
    struct credit_call *call = NULL;
    struct credit_hand *h;
    uint32_t credit;
    unsigned how = roll(w, 12);

    for (uint32_t i = 0; i < CREDIT_CALLS && call == NULL; i++)
        if (w->c.calls[(at + i) % CREDIT_CALLS].used)
            call = &w->c.calls[(at + i) % CREDIT_CALLS];
    if (call == NULL)
        return;
    assert_ptr_equal(credit_call_of(&w->c, call->msgid), call);
    if (how == 0) {
        credit_call_failed(&w->c, call);
        return;
    }
    if (how == 1 && call->sent != NULL) {
        h = call->sent;
        credit_leave(&w->c, h);
        left(w, h, false);
    }
    if (how == 2 && call->sent != NULL)
        credit_again(&w->c, call, call->sent);
    credit = call->credit;
    while ((h = credit_settled(&w->c, call)) != NULL)
        left(w, h, false);
    credit_relax(&w->c);
    if (credit > 0 && !w->stop)
        give(w, roll(w, credit + 1));
}

static void lose(struct world *w)
{
    uint32_t at = w->given > 0 ? roll(w, w->given) : 0;

    for (uint32_t i = 0; i < w->given; i++) {
        struct task *t = &w->tasks[(at + i) % w->given];
        bool running = t->hand.state == CREDIT_RUNNING;

        if (t->told > 0 || t->hand.state == CREDIT_SENT)
            continue;
        credit_leave(&w->c, &t->hand);
        left(w, &t->hand, running);
        return;
    }
}

static void cut(struct world *w)
{
    uint64_t credit, covered = w->c.covered;

    credit_cut(&w->c, &credit);
    assert_int_equal(credit, covered);
    assert_int_equal(w->c.covered, 0);
    for (size_t i = 0; i < CREDIT_CALLS; i++)
        assert_false(w->c.calls[i].used);
    w->up = false;
}

static void resume(struct world *w)
{
    uint32_t count = credit_in_hand(&w->c), kept = 0;
    struct tq_native_lease *leases = calloc(count + 1, sizeof(*leases));
    struct credit_hand *h;
    enum credit_state was;

    assert_non_null(leases);
    credit_open(&w->c, 1 + roll(w, 40), 1 + roll(w, 8));
    credit_leases(&w->c, leases);
    for (uint32_t i = 0; i < count; i++) {
        if (roll(w, 4) == 0)
            continue;
        assert_true(credit_confirm(&w->c, &leases[i]));
        kept++;
    }
    assert_false(credit_confirm(&w->c, &(struct tq_native_lease){UINT64_MAX, 1}));
    while ((h = credit_unconfirmed(&w->c, &was)) != NULL)
        left(w, h, was == CREDIT_RUNNING);
    assert_int_equal(credit_in_hand(&w->c), kept);
    assert_int_equal(credit_unsure(&w->c), 0);
    free(leases);
    w->up = true;
}

static void flush(struct world *w)
{
    uint32_t gets = 0, canceled = 0, used = 0, credit = 0, most;
    struct credit_step step;

    do {
        step = credit_next(&w->c, PLENTY, w->stop);
        if (step.kind == CREDIT_NOTHING)
            break;
        assert_true(step.call->used);
        assert_true(step.call->sent_count <= w->c.max_batch && step.call->credit <= w->c.max_batch);
        assert_true(step.kind == CREDIT_CANCEL || (step.kind == CREDIT_DONE) == (step.call->sent != NULL));
        assert_true(step.kind != CREDIT_GET || step.call->credit > 0);
    } while (true);
    for (size_t i = 0; i < CREDIT_CALLS; i++) {
        used += w->c.calls[i].used;
        gets += w->c.calls[i].used && w->c.calls[i].credit > 0;
        canceled += w->c.calls[i].used && w->c.calls[i].canceled;
        credit += w->c.calls[i].credit;
    }
    assert_int_equal(w->c.busy, w->busy);
    assert_int_equal(w->c.covered, credit);
    assert_true(w->busy + credit <= w->slots);
    assert_true(gets <= w->c.max_gets);
    assert_true(w->c.finished == NULL || used == CREDIT_CALLS);
    if (w->stop) {
        assert_int_equal(canceled, gets);
        return;
    }
    most = w->slots - w->busy < w->c.max_gets * w->c.max_batch ? w->slots - w->busy
                                                               : w->c.max_gets * w->c.max_batch;
    if (credit < most && used < CREDIT_CALLS && credit_in_hand(&w->c) + credit < CREDIT_HANDS(w->slots))
        assert_int_equal(gets, w->c.max_gets);
    if (credit < most && gets == w->c.max_gets && credit_in_hand(&w->c) + credit < CREDIT_HANDS(w->slots))
        assert_int_equal(canceled, 1); /* on its way to one larger get */
}

static void play(struct world *w, uint32_t seed)
{
    *w = (struct world){.seed = seed, .slots = 1 + seed % 40};
    credit_init(&w->c, w->slots);
    resume(w);
    for (uint32_t n = 0; n < 3000; n++) {
        unsigned what = roll(w, 100);

        if (what < 40)
            job_ends(w);
        else if (what < 80 && w->up)
            answer(w);
        else if (what < 83)
            lose(w);
        else if (what < 84 && w->up)
            cut(w);
        else if (what < 90 && !w->up)
            resume(w);
        if (w->up && roll(w, 3) > 0)
            flush(w);
    }
    /* The end: what runs is finished, what is finished goes out, all of it is settled. */
    w->stop = true;
    if (!w->up)
        resume(w);
    while (credit_in_hand(&w->c) > 0 || w->busy > 0) {
        job_ends(w);
        flush(w);
        answer(w);
    }
    for (uint32_t i = 0; i < w->given; i++)
        assert_int_equal(w->tasks[i].told, 1);
    while (w->c.covered > 0)
        answer(w);
    credit_deinit(&w->c);
}

static void test_any_order(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    uint32_t most = 0;

    (void)state;
    assert_non_null(w);
    for (uint32_t seed = 1; seed <= 200; seed++) {
        play(w, seed);
        most = w->given > most ? w->given : most;
    }
    assert_true(most > 500);
    free(w);
}

static void test_each_allocation_failing(void **state)
{
    struct credit c;
    struct credit_hand h = {.lease = {1, 1}};
    int rv = TQ_ENOMEM;

    (void)state;
    for (long n = 0; rv != TQ_OK; n++) {
        credit_init(&c, 1);
        tq_mem_fail_after(n, 1);
        rv = credit_add(&c, &h);
        tq_mem_fail_after(-1, 0);
        assert_true(rv == TQ_OK || rv == TQ_ENOMEM);
        assert_int_equal(credit_in_hand(&c), rv == TQ_OK);
        assert_int_equal(c.busy, rv == TQ_OK);
        if (rv == TQ_OK) {
            credit_leave(&c, &h);
            credit_job_ended(&c);
        }
        credit_deinit(&c);
        assert_true(n < 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_task_costs_one_frame_each_way),
        cmocka_unit_test(test_results_together_and_the_last_get_is_canceled),
        cmocka_unit_test(test_turns_and_limits),
        cmocka_unit_test(test_a_lost_lease_keeps_its_slot_until_the_job_has_ended),
        cmocka_unit_test(test_refused_results_go_out_one_by_one),
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_each_allocation_failing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
