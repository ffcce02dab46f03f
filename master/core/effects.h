/* The list of effects of a step. Room is reserved before a step changes anything. */
#ifndef MASTER_CORE_EFFECTS_H
#define MASTER_CORE_EFFECTS_H

#include "master/core/broker.h"

/* Room for one more. TQ_ENOMEM. */
int broker_effects_reserve(struct broker_effects *fx);
/* There is room. */
struct broker_effect *broker_effects_add(struct broker_effects *fx, struct broker_session *s, uint64_t token,
                                         enum broker_outcome outcome);
/* For an error of a heap (BROKER_HEAP_UNORDERED or TQ_ENOMEM): TYPE_ERROR or NO_MEMORY. There is room. */
struct broker_effect *broker_effects_add_error(struct broker_effects *fx, struct broker_session *s,
                                               uint64_t token, int heap_rv, const char *text);

#endif
