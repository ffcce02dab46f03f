/* Keys that producers chose: from (queue, key) to the task that has it, for as long as the task, its result
 * or its dead letter is there. The table grows and shrinks by one bucket at a time (linear hashing), so no
 * call ever waits for a rebuild, and its hash is a secret one, so no producer can make its chains long. */
#ifndef MASTER_CORE_KEYS_H
#define MASTER_CORE_KEYS_H

#include "master/core/broker.h"

struct broker_key {
    struct broker_key *next; /* in its bucket */
    uint64_t hash;
    uint64_t id;
    uint32_t queue_serial; /* of the queue that the task was put to */
    uint16_t len;
    char name[];
};

struct broker_keys; /* the table: made by the first key, gone with the last */

/* A new entry for a key that is not there. NULL when out of memory. */
struct broker_key *broker_key_add(struct broker *b, const struct broker_queue *q, struct tq_span key,
                                  uint64_t id);
/* Or NULL. A task that is being purged does not count: its key is forgotten then. */
struct broker_key *broker_key_find(struct broker *b, const struct broker_queue *q, struct tq_span key);
/* NULL is fine. */
void broker_key_remove(struct broker *b, struct broker_key *k);

#endif
