#include "master/pyrefs.h"

#include <string.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/hash.h"

struct pyref_key {
    struct pyrefs_addr addr;
    uint64_t object;
};

struct pyref {
    struct pyref_key key;
    uint64_t pending_at_ms;  /* last step of a row of create, incref, decref */
    uint64_t row_done_at_ms; /* a decref was taken for a row's last step */
    uint64_t exits_at_ms;
    uint32_t creates;      /* rows whose incref must still come */
    uint32_t rows;         /* rows whose decref must still come */
    uint32_t bare_increfs; /* increfs without a row: forked children that nobody claimed */
    uint32_t exits;        /* farewells that no close was matched with, fresh */
    uint32_t stale_exits;  /* the same, older than PYREFS_FRESH_MS */
    uint32_t users;        /* judged sessions that use the object, limbo included */
    bool row_done;
    struct pyrefs_session *limbo;
    struct pyref *prev, *next; /* order of last use */
    UT_hash_handle hh;
};

void pyrefs_init(struct pyrefs *r, size_t max_entries)
{
    *r = (struct pyrefs){.max = max_entries};
}

static void forget(struct pyrefs *r, struct pyref *ref)
{
    HASH_DEL(r->table, ref);
    DL_DELETE(r->oldest, ref);
    r->count--;
    tq_free(ref);
}

void pyrefs_deinit(struct pyrefs *r)
{
    struct pyref *ref;
    struct pyref *next;

    DL_FOREACH_SAFE(r->oldest, ref, next)
    {
        forget(r, ref);
    }
}

enum pyrefs_class pyrefs_classify(const void *name, size_t len)
{
    static const char pool[] = "PoolWorker-";

    if (memchr(name, '|', len) != NULL)
        return PYREFS_THREAD;
    if (memmem(name, len, pool, sizeof(pool) - 1) != NULL)
        return PYREFS_POOL;
    if (len == 11 && memcmp(name, "MainProcess", 11) == 0)
        return PYREFS_MAIN;
    return PYREFS_CHILD;
}

/* Rows that were begun long ago died with their process; farewells grow old. */
static void settle(struct pyref *ref, uint64_t now_ms)
{
    if (now_ms - ref->pending_at_ms > PYREFS_SETTLE_MS) {
        ref->creates = 0;
        ref->rows = 0;
    }
    if (now_ms - ref->exits_at_ms > PYREFS_FRESH_MS) {
        ref->stale_exits += ref->exits;
        ref->exits = 0;
    }
}

/* The ceiling: the entry that was not used for longest and that no session needs goes. */
static void make_room(struct pyrefs *r)
{
    struct pyref *ref;
    struct pyref *next;
    unsigned looked = 0;

    DL_FOREACH_SAFE(r->oldest, ref, next)
    {
        if (ref->users == 0 && ref->limbo == NULL) {
            forget(r, ref);
            return;
        }
        if (++looked == 64)
            return;
    }
}

static struct pyref *lookup(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object,
                            uint64_t now_ms, bool create)
{
    struct pyref_key key;
    struct pyref *ref;

    memset(&key, 0, sizeof(key));
    key.addr = *addr;
    key.object = object;
    HASH_FIND(hh, r->table, &key, sizeof(key), ref);
    if (ref == NULL) {
        if (!create)
            return NULL;
        if (r->count >= r->max)
            make_room(r);
        if (r->count >= r->max || (ref = tq_calloc(1, sizeof(*ref))) == NULL)
            return NULL;
        ref->key = key;
        HASH_ADD(hh, r->table, key, sizeof(key), ref);
        if (ref->hh.tbl == NULL) {
            tq_free(ref);
            return NULL;
        }
        DL_APPEND(r->oldest, ref);
        r->count++;
    } else if (ref->next != NULL) {
        DL_DELETE(r->oldest, ref);
        DL_APPEND(r->oldest, ref);
    }
    settle(ref, now_ms);
    return ref;
}

void pyrefs_create(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms)
{
    struct pyref *ref = lookup(r, addr, object, now_ms, true);

    if (ref == NULL)
        return;
    ref->creates++;
    ref->pending_at_ms = now_ms;
}

void pyrefs_incref(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms)
{
    struct pyref *ref = lookup(r, addr, object, now_ms, true);

    if (ref == NULL)
        return;
    if (ref->creates > 0) {
        ref->creates--;
        ref->rows++;
        ref->pending_at_ms = now_ms;
    } else {
        ref->bare_increfs++;
    }
}

/* Takes a judged user off the object. When nobody is left, there is nobody a farewell could belong to. */
static void drop_user(struct pyref *ref)
{
    TQ_ASSERT(ref->users > 0);
    if (--ref->users == 0) {
        ref->exits = 0;
        ref->stale_exits = 0;
    }
}

static void release(struct pyrefs_session *s)
{
    for (unsigned i = 0; i < s->used_count; i++) {
        struct pyref *ref = s->used[i].ref;

        if (ref == NULL)
            continue;
        if (ref->exits > 0)
            ref->exits--;
        else if (ref->stale_exits > 0)
            ref->stale_exits--;
        drop_user(ref);
    }
    s->used_count = 0;
}

static void leave_limbo(struct pyrefs_session *s)
{
    DL_DELETE2(s->waits_for->limbo, s, limbo_prev, limbo_next);
    s->waits_for = NULL;
}

struct pyrefs_session *pyrefs_decref(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object,
                                     uint64_t now_ms)
{
    struct pyref *ref = lookup(r, addr, object, now_ms, false);
    struct pyrefs_session *s;

    if (ref == NULL)
        return NULL;
    if (ref->rows > 0) {
        ref->rows--;
        ref->pending_at_ms = now_ms;
        ref->row_done_at_ms = now_ms;
        ref->row_done = true;
        return NULL;
    }
    if (ref->users == 0) {
        if (ref->bare_increfs > 0)
            ref->bare_increfs--; /* a forked child that never called anything */
        return NULL;
    }
    ref->exits++;
    ref->exits_at_ms = now_ms;
    s = ref->limbo;
    if (s != NULL) {
        leave_limbo(s);
        release(s); /* takes the farewell */
    }
    return s;
}

void pyrefs_session_open(struct pyrefs_session *s, enum pyrefs_class kind)
{
    *s = (struct pyrefs_session){.kind = (uint8_t)kind};
}

void pyrefs_session_use(struct pyrefs *r, struct pyrefs_session *s, const struct pyrefs_addr *addr,
                        uint64_t object, uint64_t now_ms)
{
    struct pyref *ref;
    bool judged;

    if (s->kind == PYREFS_THREAD || s->kind == PYREFS_POOL)
        return;
    for (unsigned i = 0; i < s->used_count; i++) {
        if (s->used[i].object == object)
            return;
    }
    if (s->used_count == PYREFS_USED_MAX || (ref = lookup(r, addr, object, now_ms, true)) == NULL)
        return;
    judged = s->kind == PYREFS_MAIN;
    if (!judged && ref->bare_increfs > 0) {
        ref->bare_increfs--;
        judged = true;
    }
    s->used[s->used_count].object = object;
    s->used[s->used_count].ref = judged ? ref : NULL;
    s->used_count++;
    ref->users += judged;
}

/* The farewell of this object may be old when the process kept others: believed if one of those is fresh. */
static bool old_farewell_counts(const struct pyrefs_session *s, const struct pyref *held)
{
    if (held->stale_exits == 0)
        return false;
    for (unsigned i = 0; i < s->used_count; i++) {
        if (s->used[i].ref != NULL && s->used[i].ref != held && s->used[i].ref->exits > 0)
            return true;
    }
    return false;
}

enum pyrefs_verdict pyrefs_session_close(struct pyrefs *r, struct pyrefs_session *s, uint64_t object,
                                         uint64_t now_ms, uint64_t *ret_until_ms)
{
    struct pyref *held = NULL;

    (void)r;
    for (unsigned i = 0; i < s->used_count; i++) {
        if (s->used[i].ref == NULL)
            continue;
        settle(s->used[i].ref, now_ms);
        if (object != 0 && s->used[i].object == object)
            held = s->used[i].ref;
    }
    if (held == NULL) {
        /* nothing held, not judged, or (without memory, or past PYREFS_USED_MAX objects) not known */
        bool unknown = object != 0 && s->kind == PYREFS_MAIN;

        release(s);
        return unknown ? PYREFS_DIED : PYREFS_LEFT;
    }
    if (held->exits > 0 || old_farewell_counts(s, held)) {
        release(s);
        return PYREFS_LEFT;
    }
    /* While other processes there make proxies, this one's farewell may have been taken for the last step
     * of such a row: wait until that settles. */
    if (held->rows > 0 || held->creates > 0 ||
        (held->row_done && now_ms - held->row_done_at_ms < PYREFS_SETTLE_MS)) {
        s->waits_for = held;
        DL_APPEND2(held->limbo, s, limbo_prev, limbo_next);
        *ret_until_ms = now_ms + PYREFS_SETTLE_MS;
        return PYREFS_UNSURE;
    }
    release(s);
    return PYREFS_DIED;
}

enum pyrefs_verdict pyrefs_decide(struct pyrefs *r, struct pyrefs_session *s, uint64_t now_ms)
{
    (void)r;
    (void)now_ms;
    TQ_ASSERT(s->waits_for != NULL);
    leave_limbo(s);
    release(s);
    return PYREFS_DIED;
}

void pyrefs_session_forget(struct pyrefs *r, struct pyrefs_session *s)
{
    (void)r;
    if (s->waits_for != NULL)
        leave_limbo(s);
    release(s);
}
