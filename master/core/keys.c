#include "master/core/keys.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/siphash.h"
#include "master/core/broker_impl.h"
#include "master/core/journal_impl.h"
#include "master/core/purge.h"
#include "master/core/queue.h"
#include "master/core/task.h"

#define CHUNK_BUCKETS 512u

/* Linear hashing: there are `base` buckets, a power of two, and `split` more, into which the first ones were
 * split. They stand in chunks, so that growing never moves them. */
struct broker_keys {
    struct broker_key ***chunks;
    size_t chunk_count, chunk_cap;
    size_t base, split;
    size_t count; /* keys */
};

static struct broker_key **bucket(const struct broker_keys *t, size_t i)
{
    return &t->chunks[i / CHUNK_BUCKETS][i % CHUNK_BUCKETS];
}

static struct broker_key **bucket_of(const struct broker_keys *t, uint64_t hash)
{
    size_t i = hash & (t->base - 1);

    return bucket(t, i < t->split ? hash & (2 * t->base - 1) : i);
}

/* Room for n buckets. TQ_ENOMEM. */
static int reserve(struct broker_keys *t, size_t n)
{
    if (n <= t->chunk_count * CHUNK_BUCKETS)
        return TQ_OK;
    if (t->chunk_count == t->chunk_cap) {
        size_t cap = t->chunk_cap > 0 ? 2 * t->chunk_cap : 4;
        struct broker_key ***chunks = tq_realloc(t->chunks, cap * sizeof(struct broker_key **));

        if (chunks == NULL)
            return TQ_ENOMEM;
        t->chunks = chunks;
        t->chunk_cap = cap;
    }
    t->chunks[t->chunk_count] = tq_calloc(CHUNK_BUCKETS, sizeof(struct broker_key *));
    if (t->chunks[t->chunk_count] == NULL)
        return TQ_ENOMEM;
    t->chunk_count++;
    return TQ_OK;
}

static void free_table(struct broker *b)
{
    struct broker_keys *t = b->keys;

    for (size_t i = 0; i < t->chunk_count; i++)
        tq_free(t->chunks[i]);
    tq_free(t->chunks);
    tq_free(t);
    b->keys = NULL;
}

static int make_table(struct broker *b)
{
    b->keys = tq_calloc(1, sizeof(*b->keys));
    if (b->keys == NULL)
        return TQ_ENOMEM;
    b->keys->base = CHUNK_BUCKETS;
    if (reserve(b->keys, CHUNK_BUCKETS) == TQ_OK)
        return TQ_OK;
    free_table(b);
    return TQ_ENOMEM;
}

/* One bucket more; without memory for it the chains get a little longer. */
static void grow(struct broker_keys *t)
{
    struct broker_key **low, **high, *k, *next;

    if (t->count <= t->base + t->split || reserve(t, t->base + t->split + 1) != TQ_OK)
        return;
    low = bucket(t, t->split);
    high = bucket(t, t->base + t->split);
    k = *low;
    *low = NULL;
    for (; k != NULL; k = next) {
        struct broker_key **to = (k->hash & t->base) != 0 ? high : low;

        next = k->next;
        k->next = *to;
        *to = k;
    }
    if (++t->split == t->base) {
        t->base *= 2;
        t->split = 0;
    }
}

/* One bucket less. */
static void shrink(struct broker_keys *t)
{
    struct broker_key **low, **high;
    size_t buckets = t->base + t->split;

    if (buckets == CHUNK_BUCKETS || t->count >= buckets / 2)
        return;
    if (t->split == 0) {
        t->base /= 2;
        t->split = t->base;
    }
    t->split--;
    low = bucket(t, t->split);
    high = bucket(t, t->base + t->split);
    while (*low != NULL)
        low = &(*low)->next;
    *low = *high;
    *high = NULL;
    buckets--;
    /* One chunk more than needed stays, so that a key that comes and goes does not cost an allocation. */
    if (buckets + CHUNK_BUCKETS < (t->chunk_count - 1) * CHUNK_BUCKETS)
        tq_free(t->chunks[--t->chunk_count]);
}

static uint64_t hash_of(const struct broker *b, const struct broker_queue *q, struct tq_span key)
{
    char name[sizeof(q->serial) + BROKER_KEY_MAX];

    memcpy(name, &q->serial, sizeof(q->serial));
    memcpy(name + sizeof(q->serial), key.data, key.len);
    return tq_siphash(b->limits.hash_key, name, sizeof(q->serial) + key.len);
}

struct broker_key *broker_key_add(struct broker *b, const struct broker_queue *q, struct tq_span key,
                                  uint64_t id)
{
    struct broker_key *k, **place;

    TQ_ASSERT(key.len > 0 && key.len <= BROKER_KEY_MAX);
    k = tq_malloc(sizeof(*k) + key.len);
    if (k == NULL || (b->keys == NULL && make_table(b) != TQ_OK)) {
        tq_free(k);
        return NULL;
    }
    k->hash = hash_of(b, q, key);
    k->id = id;
    k->queue_serial = q->serial;
    k->len = (uint16_t)key.len;
    memcpy(k->name, key.data, key.len);
    place = bucket_of(b->keys, k->hash);
    k->next = *place;
    *place = k;
    b->keys->count++;
    grow(b->keys);
    return k;
}

static struct broker_key *look_up(const struct broker *b, const struct broker_queue *q, struct tq_span key)
{
    uint64_t hash = hash_of(b, q, key);

    for (struct broker_key *k = *bucket_of(b->keys, hash); k != NULL; k = k->next)
        if (k->hash == hash && k->queue_serial == q->serial && k->len == key.len &&
            memcmp(k->name, key.data, key.len) == 0)
            return k;
    return NULL;
}

struct broker_key *broker_key_find(struct broker *b, const struct broker_queue *q, struct tq_span key)
{
    struct broker_key *k;
    uint32_t slot;

    if (b->keys == NULL || key.len == 0 || key.len > BROKER_KEY_MAX)
        return NULL;
    k = look_up(b, q, key);
    if (k == NULL)
        return NULL;
    slot = ids_find(b->ids, k->id);
    TQ_ASSERT(slot != SLAB_NONE);
    if (!broker_task_is_purged(b, slot))
        return k;
    broker_task_extra(broker_task_at(b->slab, slot))->key = NULL; /* another task may get it now */
    journal_note_task(b, slot, LEAD_MORE, JOURNAL_NO_WAIT);
    broker_key_remove(b, k);
    return NULL;
}

void broker_key_remove(struct broker *b, struct broker_key *k)
{
    struct broker_key **place;

    if (k == NULL)
        return;
    for (place = bucket_of(b->keys, k->hash); *place != k; place = &(*place)->next)
        ;
    *place = k->next;
    tq_free(k);
    if (--b->keys->count == 0)
        free_table(b);
    else
        shrink(b->keys);
}
