/* The list of effects of a step. Room is reserved before a step changes anything. */
#ifndef MASTER_CORE_EFFECTS_H
#define MASTER_CORE_EFFECTS_H

#include "common/assert.h"
#include "common/err.h"
#include "master/core/broker.h"

/* Room for n more. TQ_ENOMEM. */
int broker_effects_reserve_more(struct broker_effects *fx, size_t n);
/* Room for one more. TQ_ENOMEM. */
static inline int broker_effects_reserve(struct broker_effects *fx)
{
    return fx->count < fx->cap ? TQ_OK : broker_effects_reserve_more(fx, 1);
}
/* There is room. */
static inline struct broker_effect *broker_effects_add(struct broker_effects *fx, struct broker_session *s,
                                                       uint64_t token, enum broker_outcome outcome)
{
    struct broker_effect *e;

    TQ_ASSERT(fx->count < fx->cap);
    e = &fx->list[fx->count++];
    *e = (struct broker_effect){.session = s, .token = token, .outcome = outcome};
    return e;
}
/* For an error of a heap (BROKER_HEAP_UNORDERED or TQ_ENOMEM): TYPE_ERROR or NO_MEMORY. There is room. */
struct broker_effect *broker_effects_add_error(struct broker_effects *fx, struct broker_session *s,
                                               uint64_t token, int heap_rv, const char *text);

#endif
