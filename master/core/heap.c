#include "master/core/heap.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/broker_impl.h"
#include "master/core/task.h"

#define HEAP_CAP_MIN   16u
#define HEAP_DEPTH_MAX 64u
#define BURIED_MIN     64u /* fewer tombstones than this are not worth the work */

int broker_heap_reserve(struct broker_heap *h, size_t n)
{
    uint32_t *list;
    size_t cap;

    if (n <= h->cap)
        return TQ_OK;
    cap = h->cap > 0 ? h->cap : HEAP_CAP_MIN;
    while (cap < n)
        cap *= 2;
    list = tq_realloc(h->list, cap * sizeof(*list));
    if (list == NULL)
        return TQ_ENOMEM;
    h->list = list;
    h->cap = cap;
    return TQ_OK;
}

static inline int32_t priority_of(struct broker_task *t)
{
    const struct broker_extra *x = broker_task_extra(t);

    return x != NULL ? x->priority : 0;
}

static int is_less(const struct broker *b, uint32_t slot_a, uint32_t slot_c, bool *ret_less,
                   char text[BROKER_TEXT_MAX])
{
    struct broker_task *a = broker_task_at(b->slab, slot_a), *c = broker_task_at(b->slab, slot_c);
    bool a_python = (broker_task_flags(a) & TASK_PYTHON) != 0;
    bool c_python = (broker_task_flags(c) & TASK_PYTHON) != 0;
    int32_t a_priority = priority_of(a), c_priority = priority_of(c);
    struct broker_payload x, y;
    int rv;

    if (a_priority != c_priority) {
        *ret_less = a_priority < c_priority;
        return TQ_OK;
    }
    if (a_python != c_python) {
        *ret_less = a_python;
        return TQ_OK;
    }
    if (!a_python) {
        *ret_less = broker_task_id(a) < broker_task_id(c);
        return TQ_OK;
    }
    broker_task_payload(b, slot_a, &x);
    broker_task_payload(b, slot_c, &y);
    rv = b->less(&x, &y, ret_less, text);
    if (rv > 0)
        text[BROKER_TEXT_MAX - 1] = '\0';
    return rv > 0 ? BROKER_HEAP_UNORDERED : rv;
}

/* heapq's _siftdown: from the end towards the root. All comparisons come first, then the moves. */
int broker_heap_push(const struct broker *b, struct broker_heap *h, uint32_t slot, char text[BROKER_TEXT_MAX])
{
    size_t place = h->count;
    size_t i;

    TQ_ASSERT(h->count < h->cap);
    while (place > 0) {
        size_t parent = (place - 1) / 2;
        bool smaller = false;
        int rv = is_less(b, slot, h->list[parent], &smaller, text);

        if (rv != TQ_OK)
            return rv;
        if (!smaller)
            break;
        place = parent;
    }
    for (i = h->count; i > place; i = (i - 1) / 2)
        h->list[i] = h->list[(i - 1) / 2];
    h->list[place] = slot;
    h->count++;
    return TQ_OK;
}

/* heapq's heappop: the last item goes to the root, smaller children move up until a leaf is free
 * (_siftup), then the item climbs from that leaf (_siftdown). The path of smaller children does not
 * depend on the moves, so it is found first. */
int broker_heap_pop(const struct broker *b, struct broker_heap *h, uint32_t *ret_slot,
                    char text[BROKER_TEXT_MAX])
{
    size_t path[HEAP_DEPTH_MAX];
    size_t depth = 0, i;
    size_t count = h->count - 1;
    uint32_t last, top;
    bool smaller = false;
    int rv;

    TQ_ASSERT(h->count > 0);
    top = h->list[0];
    last = h->list[count];
    path[0] = 0;
    for (size_t child = 1; child < count; child = 2 * child + 1) {
        if (child + 1 < count) {
            rv = is_less(b, h->list[child], h->list[child + 1], &smaller, text);
            if (rv != TQ_OK)
                return rv;
            if (!smaller)
                child++;
        }
        path[++depth] = child;
    }
    for (; depth > 0; depth--) {
        rv = is_less(b, last, h->list[path[depth]], &smaller, text);
        if (rv != TQ_OK)
            return rv;
        if (!smaller)
            break;
    }
    for (i = 0; i < depth; i++)
        h->list[path[i]] = h->list[path[i + 1]];
    h->list[path[depth]] = last; /* the place of `last` itself when the heap is empty now */
    h->count = count;
    *ret_slot = top;
    return TQ_OK;
}

bool broker_heap_is_before(const struct broker *b, uint32_t x, uint32_t y)
{
    char text[BROKER_TEXT_MAX];
    bool smaller = false;

    return is_less(b, x, y, &smaller, text) == TQ_OK && smaller;
}

static void sift(const struct broker *b, struct broker_heap *h, size_t place)
{
    uint32_t slot = h->list[place];

    for (;;) {
        size_t child = 2 * place + 1;

        if (child >= h->count)
            break;
        if (child + 1 < h->count && broker_heap_is_before(b, h->list[child + 1], h->list[child]))
            child++;
        if (!broker_heap_is_before(b, h->list[child], slot))
            break;
        h->list[place] = h->list[child];
        place = child;
    }
    h->list[place] = slot;
}

void broker_heap_bury(struct broker *b, struct broker_heap *h)
{
    size_t kept = 0;

    h->buried++;
    if (h->buried < BURIED_MIN || h->buried <= h->count / 2)
        return;
    for (size_t i = 0; i < h->count; i++) {
        uint32_t slot = h->list[i];

        if (broker_task_state(broker_task_at(b->slab, slot)) == BROKER_TASK_GONE)
            broker_task_drop_tombstone(b, slot);
        else
            h->list[kept++] = slot;
    }
    h->count = kept;
    h->buried = 0;
    for (size_t i = kept / 2; i > 0; i--)
        sift(b, h, i - 1);
}

void broker_heap_trim(struct broker_heap *h, size_t keep)
{
    uint32_t *list;
    size_t cap = h->cap / 2;

    keep += h->buried;
    if (cap < HEAP_CAP_MIN || keep > cap / 2)
        return;
    TQ_ASSERT(h->count <= keep);
    list = tq_realloc(h->list, cap * sizeof(*list));
    if (list == NULL)
        return; /* more memory than needed does no harm */
    h->list = list;
    h->cap = cap;
}

void broker_heap_deinit(struct broker_heap *h)
{
    tq_free(h->list);
    *h = (struct broker_heap){0};
}
