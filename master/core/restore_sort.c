#include "master/core/restore_sort.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"

#define LIST_CAP_MIN 64u

int restore_list_reserve(struct restore_list *l, uint64_t n)
{
    struct restore_item *items;

    if (n <= l->cap)
        return TQ_OK;
    if (n > SIZE_MAX / sizeof(*items))
        return TQ_ENOMEM;
    items = tq_realloc(l->items, (size_t)n * sizeof(*items));
    if (items == NULL)
        return TQ_ENOMEM;
    l->items = items;
    l->cap = (size_t)n;
    return TQ_OK;
}

int restore_list_add(struct restore_list *l, uint64_t key, uint32_t slot)
{
    int rv = TQ_OK;

    if (l->count == l->cap)
        rv = restore_list_reserve(l, l->cap > 0 ? 2 * (uint64_t)l->cap : LIST_CAP_MIN);
    if (rv == TQ_OK)
        l->items[l->count++] = (struct restore_item){.key = key, .slot = slot};
    return rv;
}

static size_t run_end(const struct restore_item *items, size_t from, size_t count)
{
    size_t i = from + 1;

    while (i < count && items[i - 1].key <= items[i].key)
        i++;
    return i < count ? i : count;
}

static void merge(struct restore_item *to, const struct restore_item *a, size_t a_count, size_t b_count)
{
    const struct restore_item *b = a + a_count, *a_end = b, *b_end = b + b_count;

    while (a < a_end && b < b_end)
        *to++ = b->key < a->key ? *b++ : *a++;
    if (a < a_end)
        memcpy(to, a, (size_t)(a_end - a) * sizeof(*a));
    else if (b < b_end)
        memcpy(to, b, (size_t)(b_end - b) * sizeof(*b));
}

int restore_list_sort(struct restore_list *l)
{
    struct restore_item *from = l->items, *to;

    if (l->count < 2 || run_end(from, 0, l->count) == l->count)
        return TQ_OK;
    to = tq_malloc(l->cap * sizeof(*to));
    if (to == NULL)
        return TQ_ENOMEM;
    while (run_end(from, 0, l->count) < l->count) {
        struct restore_item *swap = from;

        for (size_t at = 0; at < l->count;) { /* two runs become one */
            size_t middle = run_end(from, at, l->count);
            size_t end = middle < l->count ? run_end(from, middle, l->count) : middle;

            merge(to + at, from + at, middle - at, end - middle);
            at = end;
        }
        from = to;
        to = swap;
    }
    l->items = from;
    tq_free(to);
    return TQ_OK;
}

void restore_list_deinit(struct restore_list *l)
{
    tq_free(l->items);
    *l = (struct restore_list){0};
}
