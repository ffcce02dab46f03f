/* A journal for the broker's tests: it is collected every few steps, into segments that fill up, and what is
 * at home in old ones is moved, in slices. After each of it the broker's invariants hold, and nothing is
 * noted any more. BROKER_JOURNAL=1 plays any test of the broker with one. */
#ifndef TESTS_UNIT_BROKER_JOURNAL_RIG_H
#define TESTS_UNIT_BROKER_JOURNAL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/err.h"
#include "master/core/broker_check.h"
#include "master/core/journal.h"

#define JR_SEGMENT_TURNS 8u
#define JR_SEGMENTS      6u /* as many are not emptied */

static bool jr_on; /* the tests that follow have a journal */

struct jr {
    bool is_on;
    struct tq_buf ops; /* of the last collect */
    enum journal_wait wait;
    uint64_t segment, oldest;
    uint64_t target, move_at; /* what is at home up to there is being moved; 0: nothing is */
    uint64_t turns, steps, next;
};

static inline void jr_init(struct jr *j, struct broker *b)
{
    const char *env = getenv("BROKER_JOURNAL");

    *j = (struct jr){.segment = 1};
    tq_buf_init(&j->ops, SIZE_MAX);
    j->is_on = jr_on || (env != NULL && env[0] == '1');
    if (j->is_on)
        assert_int_equal(broker_journal_enable(b), 0);
}

static inline void jr_deinit(struct jr *j)
{
    tq_buf_deinit(&j->ops);
}

static inline void jr_check(const struct broker *b)
{
    const char *broken = broker_check(b);

    if (broken != NULL)
        fail_msg("broken rule: %s", broken);
}

/* Memory may be failing: then nothing has happened, and what is noted stays. */
static inline bool jr_collect(struct jr *j, struct broker *b)
{
    int rv;

    tq_buf_clear(&j->ops);
    rv = broker_journal_collect(b, j->segment, &j->ops, &j->wait);
    jr_check(b);
    if (rv != 0) {
        assert_int_equal(rv, TQ_ENOMEM);
        assert_int_equal(j->ops.len, 0);
        assert_true(broker_journal_has_news(b));
        return false;
    }
    assert_false(broker_journal_has_news(b));
    assert_int_equal(j->ops.len > 0, j->wait != JOURNAL_NOTHING);
    assert_false(broker_journal_failed(b));
    assert_true(broker_journal_oldest(b) >= j->oldest && broker_journal_oldest(b) <= j->segment);
    j->oldest = broker_journal_oldest(b);
    return true;
}

/* A slice of that; once it is through, and written, the segments that it was for are empty. */
static inline void jr_move(struct jr *j, struct broker *b)
{
    unsigned budget = 20;
    uint64_t bytes;

    if (j->target == 0) {
        if (j->segment <= JR_SEGMENTS || j->oldest > j->segment - JR_SEGMENTS)
            return;
        j->target = j->segment - JR_SEGMENTS;
        j->move_at = 0;
    }
    if (!broker_journal_move(b, j->target, &j->move_at, &budget, &bytes))
        return;
    while (!jr_collect(j, b)) /* no memory, for now */
        ;
    assert_true(j->oldest > j->target);
    j->target = 0;
}

/* After each step: every now and then the end of a turn. */
static inline void jr_turn(struct jr *j, struct broker *b)
{
    if (!j->is_on || ++j->steps < j->next)
        return;
    j->turns++;
    j->next = j->steps + j->turns % 5;
    if (j->turns % JR_SEGMENT_TURNS == 0)
        j->segment++;
    if (jr_collect(j, b))
        jr_move(j, b);
}

#endif
