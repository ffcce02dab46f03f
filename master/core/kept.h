/* Results that are kept although nobody asked for it: neither did the put name a key or a retention or want
 * the result kept, nor has the queue a retention of its own. They give way, the oldest first, when a body
 * does not fit limits.memory_bytes. They stand in one list, in the order of their ends; its links are those
 * of the tasks (task.h: link, prev). */
#ifndef MASTER_CORE_KEPT_H
#define MASTER_CORE_KEPT_H

#include "master/core/broker_impl.h"

/* At most so many give way in one step. */
#define BROKER_GIVE_WAY_MAX 16384u

/* For broker_task_set_state: the task becomes KEPT, or was KEPT until now. Those that stay are passed over.
 */
void broker_kept_enter(struct broker *b, uint32_t slot);
void broker_kept_leave(struct broker *b, uint32_t slot);
/* Kept results give way until body_cost more fits under the ceiling, `used` bytes being taken now and
 * counting; none does if all of them were not enough. False: it does not fit, or not yet: whoever waits for
 * memory is looked at again in the next millisecond then. */
bool broker_kept_give_way(struct broker *b, uint64_t used, uint64_t ceiling, uint64_t body_cost);

#endif
