#include "master/halfopen.h"

#include <string.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/hash.h"

#define IDLE_MAX   4096 /* addresses remembered as known good */
#define SPARE_LOOK 64   /* how far the search for somebody unknown goes */

struct halfopen_source {
    struct halfopen_addr key;
    struct halfopen_entry *entries;
    size_t count;
    bool known;
    struct halfopen_source *prev, *next; /* idle list */
    UT_hash_handle hh;
};

void halfopen_init(struct halfopen *h, size_t max, size_t max_per_source)
{
    *h = (struct halfopen){.max = max, .max_per_source = max_per_source};
}

void halfopen_deinit(struct halfopen *h)
{
    struct halfopen_source *s;
    struct halfopen_source *next;

    HASH_ITER(hh, h->sources, s, next)
    {
        HASH_DEL(h->sources, s);
        tq_free(s);
    }
    h->idle = NULL;
}

static struct halfopen_addr source_key(const struct halfopen_addr *addr)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct halfopen_addr key = *addr;

    if (memcmp(key.bytes, mapped, sizeof(mapped)) != 0)
        memset(key.bytes + 8, 0, 8);
    return key;
}

static struct halfopen_source *find_source(struct halfopen *h, const struct halfopen_addr *addr)
{
    struct halfopen_addr key = source_key(addr);
    struct halfopen_source *s;

    HASH_FIND(hh, h->sources, &key, sizeof(key), s);
    if (s == NULL) {
        s = tq_calloc(1, sizeof(*s));
        if (s == NULL)
            return NULL;
        s->key = key;
        HASH_ADD(hh, h->sources, key, sizeof(key), s);
        if (s->hh.tbl == NULL) {
            tq_free(s);
            return NULL;
        }
    } else if (s->count == 0) {
        DL_DELETE(h->idle, s);
        h->idle_count--;
    }
    return s;
}

size_t halfopen_count_of(const struct halfopen *h, const struct halfopen_addr *addr)
{
    struct halfopen_addr key = source_key(addr);
    struct halfopen_source *s;

    HASH_FIND(hh, h->sources, &key, sizeof(key), s);
    return s != NULL ? s->count : 0;
}

static struct halfopen_entry *whom_to_drop(const struct halfopen *h, const struct halfopen_source *s)
{
    struct halfopen_entry *e;
    unsigned looked = 0;

    if (s->count > h->max_per_source)
        return s->entries;
    if (h->count <= h->max)
        return NULL;
    DL_FOREACH(h->oldest, e)
    {
        if (!e->source->known)
            return e;
        if (++looked == SPARE_LOOK)
            break;
    }
    return h->oldest;
}

int halfopen_add(struct halfopen *h, struct halfopen_entry *e, const struct halfopen_addr *addr,
                 struct halfopen_entry **ret_drop)
{
    struct halfopen_source *s = find_source(h, addr);

    if (s == NULL)
        return TQ_ENOMEM;
    e->source = s;
    DL_APPEND(h->oldest, e);
    DL_APPEND2(s->entries, e, source_prev, source_next);
    s->count++;
    h->count++;
    *ret_drop = whom_to_drop(h, s);
    if (*ret_drop == e)
        *ret_drop = NULL; /* alone over a ceiling of 0 cannot be: ceilings are at least 1 */
    return TQ_OK;
}

static void forget_source(struct halfopen *h, struct halfopen_source *s)
{
    HASH_DEL(h->sources, s);
    tq_free(s);
}

void halfopen_remove(struct halfopen *h, struct halfopen_entry *e, bool authenticated)
{
    struct halfopen_source *s = e->source;

    if (s == NULL)
        return;
    e->source = NULL;
    DL_DELETE(h->oldest, e);
    DL_DELETE2(s->entries, e, source_prev, source_next);
    TQ_ASSERT(s->count > 0 && h->count > 0);
    s->count--;
    h->count--;
    s->known |= authenticated;
    if (s->count > 0)
        return;
    if (!s->known) {
        forget_source(h, s);
        return;
    }
    DL_APPEND(h->idle, s);
    if (++h->idle_count > IDLE_MAX) {
        struct halfopen_source *oldest = h->idle;

        DL_DELETE(h->idle, oldest);
        h->idle_count--;
        forget_source(h, oldest);
    }
}
