/* The broker as it was, from the ops of its journal. Ops come in order, from untrusted bytes: whatever does
 * not decode, or cannot be (a state that is none, a text that is too long, a place that two tasks have), is
 * refused with a text, and no assertion depends on them.
 *
 * Bodies: the broker itself looks at no byte of them but through its `less`, and hands them out as they are.
 * That item_off and item_len lie within a Python body is checked here; that it is one whole msgpack value, or
 * a reply frame with an item at that place, only whoever may see the protocol can check
 * (broker_restore_check_bodies). `less` and the dialects rely on that.
 *
 * limits.memory_bytes and limits.queues do not count here: all that was acknowledged comes back. While bodies
 * take more than the limit, puts wait or are refused as at any full broker. */
#ifndef MASTER_CORE_RESTORE_H
#define MASTER_CORE_RESTORE_H

#include "master/core/journal.h"

#define RESTORE_TEXT_MAX 200

struct broker_restore; /* opaque */

/* Into a new broker with a journal, in which nothing is declared. NULL when out of memory. on_host: an op >=
 * OPS_HOST, with its bytes (borrowed); 0, or negative with text. */
struct broker_restore *broker_restore_begin(struct broker *b,
                                            int (*on_host)(void *ctx, uint8_t op, struct tq_span bytes,
                                                           uint64_t segment, char text[RESTORE_TEXT_MAX]),
                                            void *ctx);
/* Before the first record: who says whether a body (format, data, len, item_off, item_len) is one. */
void broker_restore_check_bodies(struct broker_restore *r,
                                 bool (*is_good)(void *ctx, const struct broker_payload *p), void *ctx);
/* After a repair of the log, which may have cut off what told of a queue, while its tasks are still there:
 * they are dropped and counted in *ret_count by broker_restore_finish, which refuses them otherwise. */
void broker_restore_drop_orphans(struct broker_restore *r, uint64_t *ret_count);
/* One record of the log, out of `segment`. TQ_EINVAL with text: it is no such record; TQ_ENOMEM. */
int broker_restore_ops(struct broker_restore *r, struct tq_span ops, uint64_t segment,
                       char text[RESTORE_TEXT_MAX]);
/* The log ends in good order: what its last TIME says is so, and tasks of session 0 come back with no attempt
 * counted, since their sessions did nothing wrong. Without this word ids go on a good way behind
 * that: what was only written when the power went had some, too, and somebody may still ask for it by them.
 */
void broker_restore_was_closed(struct broker_restore *r);
/* The latest time in any record: the broker's clock must not be set below it. */
uint64_t broker_restore_now_ms(const struct broker_restore *r);
/* All is read. now_ms is not below broker_restore_now_ms. Queues, lists, heaps, timers, leases and counters
 * are made, and purges go on. session_of: the open native session of a durable_id, or NULL (then its tasks
 * come back to the front, attempt + 1, as they do for session 0, see above); leases are its own again and
 * wait out their grace if it is silent. Steps as of now_ms; effects cannot come of it: nobody waits yet.
 * TQ_EINVAL with text (a task in a queue that is not there), TQ_ENOMEM: the broker is only good for
 * broker_free. Ends r in any case. */
int broker_restore_finish(struct broker_restore *r, uint64_t now_ms,
                          struct broker_session *(*session_of)(void *ctx, uint64_t durable_id), void *ctx,
                          char text[RESTORE_TEXT_MAX]);
/* The broker is only good for broker_free. NULL is fine. */
void broker_restore_abandon(struct broker_restore *r);

#endif
