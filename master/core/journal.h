/* The journal: what changed since it was last collected, as ops for the log (journal_ops.h). It notes ids
 * while steps go on, and writes each down once, as it is then: a task that was put, handed out and done
 * within a turn is one op, and one that came and went leaves nothing. Off (the default) it costs a test of
 * one pointer where a state changes.
 *
 * With it each slot has JOURNAL_LEAD_BYTES before the task: its place (journal_ops.h), the segment of the log
 * that has its last full op (its home), and what is to be written. So the log can tell which segments are
 * still needed (journal_oldest), and old ones are emptied by noting what is at home there (journal_move).
 *
 * What is not recorded: parked calls, rate limits, tasks of queues with durability=memory (of those only the
 * queue, without its counters), who is told what. What a queue's durability is counts when a task comes into
 * it: a task that goes from a recorded queue to one with memory (a result, a dead letter) has gone for the
 * log, one that goes the other way is new; a result that is in no queue is recorded if its task was.
 *
 * Limits: homes are told apart within 2^27 segments; collect says TQ_ELIMIT when more than that would be
 * needed at once. There are 2^47 placements (a million a second for four and a half years); then it fails.
 * Pure. */
#ifndef MASTER_CORE_JOURNAL_H
#define MASTER_CORE_JOURNAL_H

#include "common/buf.h"
#include "master/core/broker.h"

#define JOURNAL_LEAD_BYTES 10u

/* Turns it on, before anything is declared. TQ_ENOMEM. */
int broker_journal_enable(struct broker *b);

enum journal_wait { JOURNAL_NOTHING, JOURNAL_NO_WAIT, JOURNAL_WRITTEN, JOURNAL_SYNCED };

/* Appends the ops of all changes to `out`, as at home in `segment` (or one behind it), which never is lower
 * than before. Nothing changed: appends nothing. *ret_wait: what a reply that tells of them waits for:
 *   JOURNAL_NO_WAIT  nobody is told: what was moved, ends of retention, delays that are over, counters
 *   JOURNAL_WRITTEN  hand-outs, extensions, and changes of queues with durability=interval
 *   JOURNAL_SYNCED   all else
 * or the greatest of these. TQ_ENOMEM, TQ_ELIMIT: `out` is as it was, nothing is forgotten. */
int broker_journal_collect(struct broker *b, uint64_t segment, struct tq_buf *out,
                           enum journal_wait *ret_wait);
bool broker_journal_has_news(const struct broker *b); /* after enable, too: the first record */
/* A change could not be noted for lack of memory: the log would not be true any more, and the process has to
 * end (what was collected is true). */
bool broker_journal_failed(const struct broker *b);

/* The lowest segment that something which is still there has its home in; what has ended counts until that
 * is collected. 0 before the first collect; then there always is one: the totals have a home, too. O(1),
 * amortised. */
uint64_t broker_journal_oldest(struct broker *b);
/* Notes what has its home in segments <= `segment`, so that the next collects move it forward: at most
 * *budget pieces of work (taken down; a task is one, and each KiB that is noted one more). From *at on (0:
 * from the beginning), which is moved; true: it is through, and nothing is at home there after the next
 * collect. Between two calls things may come and go. *ret_noted_bytes: how much about that is. */
bool broker_journal_move(struct broker *b, uint64_t segment, uint64_t *at, unsigned *budget,
                         uint64_t *ret_noted_bytes);
/* About how many bytes of ops it takes to write all that is there. */
uint64_t broker_journal_live_bytes(const struct broker *b);
uint64_t broker_journal_live_tasks(const struct broker *b); /* that are recorded */
/* The id of the next task, which each record that is collected tells. So many ids may be given out that no
 * record on stable storage knows of: after a crash they go on behind them. */
#define JOURNAL_ID_SKIP ((uint64_t)1 << 24)
uint64_t broker_journal_next_id(const struct broker *b);

#endif
