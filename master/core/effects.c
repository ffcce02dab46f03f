#include "master/core/effects.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/heap.h"

int broker_effects_reserve(struct broker_effects *fx)
{
    struct broker_effect *list;
    size_t cap;

    if (fx->count < fx->cap)
        return TQ_OK;
    cap = fx->cap > 0 ? fx->cap * 2 : 16;
    list = tq_realloc(fx->list, cap * sizeof(*list));
    if (list == NULL)
        return TQ_ENOMEM;
    fx->list = list;
    fx->cap = cap;
    return TQ_OK;
}

struct broker_effect *broker_effects_add(struct broker_effects *fx, struct broker_session *s, uint64_t token,
                                         enum broker_outcome outcome)
{
    struct broker_effect *e;

    TQ_ASSERT(fx->count < fx->cap);
    e = &fx->list[fx->count++];
    *e = (struct broker_effect){.session = s, .token = token, .outcome = outcome};
    return e;
}

struct broker_effect *broker_effects_add_error(struct broker_effects *fx, struct broker_session *s,
                                               uint64_t token, int heap_rv, const char *text)
{
    char *copy = heap_rv == BROKER_HEAP_UNORDERED ? tq_strdup(text) : NULL;
    struct broker_effect *e;

    e = broker_effects_add(fx, s, token, copy != NULL ? BROKER_REPLY_TYPE_ERROR : BROKER_REPLY_NO_MEMORY);
    e->text = copy;
    return e;
}

void broker_effects_clear(struct broker_effects *fx)
{
    for (size_t i = 0; i < fx->count; i++) {
        tq_body_unref(fx->list[i].body);
        tq_free(fx->list[i].text);
    }
    fx->count = 0;
}

void broker_effects_deinit(struct broker_effects *fx)
{
    broker_effects_clear(fx);
    tq_free(fx->list);
    *fx = (struct broker_effects){0};
}
