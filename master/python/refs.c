#include "master/python/refs.h"

#include <string.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/hash.h"

struct pyproxy {
    struct pyrefs_key key;
    uint64_t farewell_at_ms;        /* the last of those below */
    uint32_t live;                  /* references that were taken and not given back */
    uint32_t farewells;             /* decrefs that no session's end was matched with */
    uint32_t pins;                  /* sessions that point here */
    bool began;                     /* the creation's incref has come */
    bool made;                      /* the creation's decref has come */
    bool forked;                    /* there were more increfs than that */
    struct pyrefs_session *waiting; /* ended sessions that wait for a decref */
    struct pyproxy *prev, *next;    /* order of last use */
    UT_hash_handle hh;
};

void pyrefs_init(struct pyrefs *r, size_t max_entries)
{
    *r = (struct pyrefs){.max = max_entries};
}

static void forget(struct pyrefs *r, struct pyproxy *x)
{
    TQ_ASSERT(x->pins == 0);
    HASH_DEL(r->table, x);
    DL_DELETE(r->oldest, x);
    r->count--;
    tq_free(x);
}

void pyrefs_deinit(struct pyrefs *r)
{
    struct pyproxy *x;
    struct pyproxy *next;

    DL_FOREACH_SAFE(r->oldest, x, next)
    {
        forget(r, x);
    }
}

static bool begins_with(const void *name, size_t len, const char *prefix)
{
    size_t n = strlen(prefix);

    return len >= n && memcmp(name, prefix, n) == 0;
}

enum pyrefs_class pyrefs_classify(const void *name, size_t len)
{
    static const char pool[] = "PoolWorker-";

    if (memchr(name, '|', len) != NULL)
        return PYREFS_THREAD;
    if (memmem(name, len, pool, sizeof(pool) - 1) != NULL)
        return PYREFS_POOL;
    if ((len == 11 && begins_with(name, len, "MainProcess")) || begins_with(name, len, "ForkProcess-"))
        return PYREFS_MAIN;
    if (begins_with(name, len, "SpawnProcess-") || begins_with(name, len, "ForkServerProcess-"))
        return PYREFS_SPAWNED;
    return PYREFS_CHILD;
}

/* The ceiling: what was not used for longest, and by no session that is open, is forgotten. */
static bool make_room(struct pyrefs *r)
{
    for (unsigned i = 0; i < 64; i++) {
        struct pyproxy *x = r->oldest;

        if (x->pins == 0) {
            forget(r, x);
            return true;
        }
        DL_DELETE(r->oldest, x);
        DL_APPEND(r->oldest, x);
    }
    return false;
}

static struct pyproxy *add(struct pyrefs *r, struct pyrefs_key key)
{
    struct pyproxy *x;

    if (r->count >= r->max && !make_room(r))
        return NULL;
    x = tq_calloc(1, sizeof(*x));
    if (x == NULL)
        return NULL;
    x->key = key;
    HASH_ADD(hh, r->table, key, sizeof(key), x);
    if (x->hh.tbl == NULL) {
        tq_free(x);
        return NULL;
    }
    DL_APPEND(r->oldest, x);
    r->count++;
    return x;
}

/* One that is not known was made before this process started, or has been forgotten: its creation is over. */
static struct pyproxy *find(struct pyrefs *r, struct pyrefs_key key)
{
    struct pyproxy *x;

    HASH_FIND(hh, r->table, &key, sizeof(key), x);
    if (x == NULL) {
        x = add(r, key);
        if (x != NULL)
            x->began = x->made = true;
    } else if (x->next != NULL) {
        DL_DELETE(r->oldest, x);
        DL_APPEND(r->oldest, x);
    }
    return x;
}

static void forget_if_over(struct pyrefs *r, struct pyproxy *x)
{
    if (x->live == 0 && x->pins == 0 && x->made)
        forget(r, x);
}

void pyrefs_create(struct pyrefs *r, struct pyrefs_key key)
{
    (void)add(r, key);
}

void pyrefs_incref(struct pyrefs *r, struct pyrefs_key key)
{
    struct pyproxy *x = find(r, key);

    if (x == NULL)
        return;
    if (x->live < UINT32_MAX)
        x->live++;
    if (x->began)
        x->forked = true;
    x->began = true;
}

struct pyrefs_session *pyrefs_decref(struct pyrefs *r, struct pyrefs_key key, uint64_t now_ms)
{
    struct pyproxy *x = find(r, key);
    struct pyrefs_session *s = NULL;

    if (x == NULL)
        return NULL;
    if (!x->made) {
        x->made = true;
    } else {
        x->farewells++;
        x->farewell_at_ms = now_ms;
        r->farewell_at_ms = now_ms;
        if (x->live > 0)
            x->live--;
        s = x->waiting;
    }
    if (s != NULL)
        pyrefs_session_over(r, s); /* takes the farewell */
    else
        forget_if_over(r, x);
    return s;
}

void pyrefs_session_open(struct pyrefs_session *s, enum pyrefs_class kind)
{
    *s = (struct pyrefs_session){.kind = (uint8_t)kind};
}

static void unpin(struct pyrefs *r, struct pyproxy *x)
{
    TQ_ASSERT(x->pins > 0);
    x->pins--;
    forget_if_over(r, x);
}

void pyrefs_session_use(struct pyrefs *r, struct pyrefs_session *s, struct pyrefs_key key, bool takes)
{
    struct pyproxy *x = NULL;
    unsigned i;

    if (s->kind == PYREFS_THREAD || s->kind == PYREFS_SPAWNED)
        return;
    for (i = 0; i < s->used_count; i++) {
        if (s->used[i]->key.object == key.object && s->used[i]->key.serial == key.serial) {
            x = s->used[i];
            break;
        }
    }
    if (x == NULL) {
        x = find(r, key);
        if (x != NULL && s->used_count < PYREFS_USED_MAX) {
            s->used[s->used_count++] = x;
            x->pins++;
        }
    }
    if (!takes || s->held == x)
        return;
    if (x != NULL)
        x->pins++;
    if (s->held != NULL)
        unpin(r, s->held);
    s->held = x;
}

static bool was_given_back(const struct pyproxy *x, uint64_t now_ms)
{
    return x->farewells > 0 && (!x->forked || now_ms - x->farewell_at_ms <= PYREFS_FRESH_MS);
}

void pyrefs_session_forget(struct pyrefs *r, struct pyrefs_session *s)
{
    struct pyproxy *held = s->held;

    if (s->waiting) {
        TQ_ASSERT(held != NULL && held->waiting != NULL);
        DL_DELETE(held->waiting, s);
    }
    s->waiting = false;
    for (unsigned i = 0; i < s->used_count; i++)
        unpin(r, s->used[i]);
    if (held != NULL)
        unpin(r, held);
    s->used_count = 0;
    s->held = NULL;
}

void pyrefs_session_over(struct pyrefs *r, struct pyrefs_session *s)
{
    /* Each farewell is for one session of its family. */
    for (unsigned i = 0; i < s->used_count; i++) {
        if (s->used[i]->farewells > 0)
            s->used[i]->farewells--;
    }
    pyrefs_session_forget(r, s);
}

bool pyrefs_farewell_lately(const struct pyrefs *r, uint64_t now_ms)
{
    return r->farewell_at_ms != 0 && now_ms - r->farewell_at_ms <= PYREFS_WAIT_MS;
}

enum pyrefs_verdict pyrefs_session_end(struct pyrefs *r, struct pyrefs_session *s, bool holds,
                                       bool others_connect, uint64_t now_ms)
{
    struct pyproxy *held = s->held;
    bool judged = s->kind == PYREFS_MAIN || (s->kind == PYREFS_CHILD && held != NULL && held->forked);
    bool died = holds && judged && (held == NULL || !was_given_back(held, now_ms));

    if (died && held != NULL && others_connect) {
        s->waiting = true;
        DL_APPEND(held->waiting, s);
        return PYREFS_UNSURE;
    }
    pyrefs_session_over(r, s);
    return died ? PYREFS_DIED : PYREFS_LEFT;
}
