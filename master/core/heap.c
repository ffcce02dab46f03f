#include "master/core/heap.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "master/core/task.h"

#define HEAP_CAP_MIN   16u
#define HEAP_DEPTH_MAX 64u

int broker_heap_reserve(struct broker_heap *h, size_t n)
{
    struct broker_task **list;
    size_t cap;

    if (n <= h->cap)
        return TQ_OK;
    cap = h->cap > 0 ? h->cap * 2 : HEAP_CAP_MIN;
    TQ_ASSERT(n <= cap); /* one more than there was room for, at most */
    list = tq_realloc(h->list, cap * sizeof(*list));
    if (list == NULL)
        return TQ_ENOMEM;
    h->list = list;
    h->cap = cap;
    return TQ_OK;
}

static int is_less(const struct broker_task *a, const struct broker_task *b, broker_less_fn less,
                   bool *ret_less, char text[BROKER_TEXT_MAX])
{
    int rv = less(a->body, b->body, ret_less, text);

    if (rv > 0)
        text[BROKER_TEXT_MAX - 1] = '\0';
    return rv > 0 ? BROKER_HEAP_UNORDERED : rv;
}

/* heapq's _siftdown: from the end towards the root. All comparisons come first, then the moves. */
int broker_heap_push(struct broker_heap *h, struct broker_task *t, broker_less_fn less,
                     char text[BROKER_TEXT_MAX])
{
    size_t place = h->count;
    size_t i;

    TQ_ASSERT(h->count < h->cap);
    while (place > 0) {
        size_t parent = (place - 1) / 2;
        bool smaller = false;
        int rv = is_less(t, h->list[parent], less, &smaller, text);

        if (rv != TQ_OK)
            return rv;
        if (!smaller)
            break;
        place = parent;
    }
    for (i = h->count; i > place; i = (i - 1) / 2)
        h->list[i] = h->list[(i - 1) / 2];
    h->list[place] = t;
    h->count++;
    return TQ_OK;
}

/* heapq's heappop: the last item goes to the root, smaller children move up until a leaf is free
 * (_siftup), then the item climbs from that leaf (_siftdown). The path of smaller children does not
 * depend on the moves, so it is found first. */
int broker_heap_pop(struct broker_heap *h, broker_less_fn less, struct broker_task **ret_task,
                    char text[BROKER_TEXT_MAX])
{
    size_t path[HEAP_DEPTH_MAX];
    size_t depth = 0, i;
    size_t count = h->count - 1;
    struct broker_task *last, *top;
    bool smaller = false;
    int rv;

    TQ_ASSERT(h->count > 0);
    top = h->list[0];
    last = h->list[count];
    path[0] = 0;
    for (size_t child = 1; child < count; child = 2 * child + 1) {
        if (child + 1 < count) {
            rv = is_less(h->list[child], h->list[child + 1], less, &smaller, text);
            if (rv != TQ_OK)
                return rv;
            if (!smaller)
                child++;
        }
        path[++depth] = child;
    }
    for (; depth > 0; depth--) {
        rv = is_less(last, h->list[path[depth]], less, &smaller, text);
        if (rv != TQ_OK)
            return rv;
        if (!smaller)
            break;
    }
    for (i = 0; i < depth; i++)
        h->list[path[i]] = h->list[path[i + 1]];
    h->list[path[depth]] = last; /* the slot of `last` itself when the heap is empty now */
    h->count = count;
    *ret_task = top;
    return TQ_OK;
}

void broker_heap_trim(struct broker_heap *h, size_t keep)
{
    struct broker_task **list;
    size_t cap = h->cap / 2;

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
