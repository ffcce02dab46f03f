#include "master/core/effects.h"

#include "common/err.h"
#include "common/mem.h"
#include "master/core/heap.h"
#include "master/core/idwait.h"

int broker_effects_reserve_more(struct broker_effects *fx, size_t n)
{
    struct broker_effect *list;
    size_t cap = fx->cap > 0 ? fx->cap : 16;

    if (n <= fx->cap - fx->count)
        return TQ_OK;
    while (cap - fx->count < n)
        cap *= 2;
    list = tq_realloc(fx->list, cap * sizeof(*list));
    if (list == NULL)
        return TQ_ENOMEM;
    fx->list = list;
    fx->cap = cap;
    return TQ_OK;
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
        if (fx->list[i].copy != NULL)
            broker_view_free(fx->list[i].copy);
        if (fx->list[i].text != NULL)
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
