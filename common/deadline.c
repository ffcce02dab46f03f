#include "common/deadline.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

static bool before(const struct tq_deadline *a, const struct tq_deadline *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

static void put_at(struct tq_deadlines *d, size_t i, struct tq_deadline *n)
{
    d->heap[i] = n;
    n->place = (uint32_t)i + 1;
}

static void sift_up(struct tq_deadlines *d, size_t i, struct tq_deadline *n)
{
    while (i > 0 && before(n, d->heap[(i - 1) / 2])) {
        put_at(d, i, d->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put_at(d, i, n);
}

static void sift_down(struct tq_deadlines *d, size_t i, struct tq_deadline *n)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= d->count)
            break;
        if (child + 1 < d->count && before(d->heap[child + 1], d->heap[child]))
            child++;
        if (!before(d->heap[child], n))
            break;
        put_at(d, i, d->heap[child]);
        i = child;
    }
    put_at(d, i, n);
}

static void place(struct tq_deadlines *d, size_t i, struct tq_deadline *n)
{
    if (i > 0 && before(n, d->heap[(i - 1) / 2]))
        sift_up(d, i, n);
    else
        sift_down(d, i, n);
}

void tq_deadlines_init(struct tq_deadlines *d)
{
    *d = (struct tq_deadlines){0};
}

void tq_deadlines_deinit(struct tq_deadlines *d)
{
    tq_free(d->heap);
    *d = (struct tq_deadlines){0};
}

int tq_deadlines_reserve(struct tq_deadlines *d, size_t n)
{
    size_t need = d->count + d->reserved + n;
    size_t cap = d->cap ? d->cap : 64;
    struct tq_deadline **heap;

    if (need > d->cap) {
        while (cap < need)
            cap *= 2;
        heap = tq_realloc(d->heap, cap * sizeof(*heap));
        if (heap == NULL)
            return TQ_ENOMEM;
        d->heap = heap;
        d->cap = cap;
    }
    d->reserved += n;
    return TQ_OK;
}

void tq_deadlines_unreserve(struct tq_deadlines *d, size_t n)
{
    TQ_ASSERT(n <= d->reserved);
    d->reserved -= n;
}

static int set(struct tq_deadlines *d, struct tq_deadline *n, uint64_t at_ms, uint64_t seq)
{
    if (n->place == 0) {
        if (d->count + d->reserved == d->cap) {
            int rv = tq_deadlines_reserve(d, 1);

            if (rv != TQ_OK)
                return rv;
            tq_deadlines_unreserve(d, 1);
        }
        n->at_ms = at_ms;
        n->seq = seq;
        sift_up(d, d->count++, n);
    } else {
        TQ_ASSERT(n->place <= d->count && d->heap[n->place - 1] == n);
        n->at_ms = at_ms;
        n->seq = seq;
        place(d, n->place - 1, n);
    }
    return TQ_OK;
}

int tq_deadline_set(struct tq_deadlines *d, struct tq_deadline *n, uint64_t at_ms)
{
    return set(d, n, at_ms, TQ_DEADLINE_RANK_MAX + ++d->seq);
}

int tq_deadline_set_ranked(struct tq_deadlines *d, struct tq_deadline *n, uint64_t at_ms)
{
    TQ_ASSERT(n->seq <= TQ_DEADLINE_RANK_MAX);
    return set(d, n, at_ms, n->seq);
}

void tq_deadline_clear(struct tq_deadlines *d, struct tq_deadline *n)
{
    struct tq_deadline *last;
    size_t i;

    if (n->place == 0)
        return;
    i = n->place - 1;
    TQ_ASSERT(i < d->count && d->heap[i] == n);
    n->place = 0;
    last = d->heap[--d->count];
    if (last != n)
        place(d, i, last);
}

uint64_t tq_deadlines_next_ms(const struct tq_deadlines *d)
{
    return d->count > 0 ? d->heap[0]->at_ms : UINT64_MAX;
}

struct tq_deadline *tq_deadlines_pop_due(struct tq_deadlines *d, uint64_t now_ms)
{
    struct tq_deadline *n;

    if (d->count == 0 || d->heap[0]->at_ms > now_ms)
        return NULL;
    n = d->heap[0];
    tq_deadline_clear(d, n);
    return n;
}
