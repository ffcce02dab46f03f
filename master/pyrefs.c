#include "master/pyrefs.h"

#include <string.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/hash.h"

struct pyref_key {
    struct pyrefs_addr addr;
    uint64_t object;
};

struct pyref {
    struct pyref_key key;
    uint64_t row_at_ms;              /* last step of a row of create, incref, decref */
    uint32_t creates;                /* rows whose incref must still come */
    uint32_t rows;                   /* rows whose decref must still come */
    uint64_t bare_at_ms;             /* the last of those below */
    uint32_t bare_increfs;           /* increfs without a row: forked children that have not called yet */
    uint32_t pins;                   /* doubtful farewells and suspects that point here */
    struct pyrefs_session *suspects; /* oldest first */
    struct pyref *prev, *next;       /* order of last use */
    UT_hash_handle hh;
};

struct pyrefs_host {
    struct pyrefs_addr addr;
    struct pyrefs_farewell *farewells; /* open, oldest first */
    struct pyrefs_session *limbo;      /* oldest first */
    UT_hash_handle hh;
};

void pyrefs_init(struct pyrefs *r, size_t max_entries)
{
    *r = (struct pyrefs){.max = max_entries};
}

void pyrefs_deinit(struct pyrefs *r)
{
    struct pyref *ref;
    struct pyref *next;

    TQ_ASSERT(r->hosts == NULL);
    HASH_CLEAR(hh, r->table);
    DL_FOREACH_SAFE(r->oldest, ref, next)
    {
        tq_free(ref);
    }
    r->oldest = NULL;
    r->count = 0;
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

/* ---- who was forked: increfs that no create came before ---- */

/* The ceiling: who was not seen for longest is forgotten. */
static bool make_room(struct pyrefs *r)
{
    for (unsigned i = 0; i < 64; i++) {
        struct pyref *ref = r->oldest;

        DL_DELETE(r->oldest, ref);
        if (ref->pins == 0) {
            HASH_DEL(r->table, ref);
            r->count--;
            tq_free(ref);
            return true;
        }
        DL_APPEND(r->oldest, ref);
    }
    return false;
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
        if (r->count >= r->max && !make_room(r))
            return NULL;
        ref = tq_calloc(1, sizeof(*ref));
        if (ref == NULL)
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
    if (now_ms - ref->row_at_ms > PYREFS_ROW_MS) {
        ref->creates = 0;
        ref->rows = 0;
    }
    if (now_ms - ref->bare_at_ms > PYREFS_FORK_MS)
        ref->bare_increfs = 0;
    return ref;
}

void pyrefs_create(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms)
{
    struct pyref *ref = lookup(r, addr, object, now_ms, true);

    if (ref == NULL)
        return;
    ref->creates++;
    ref->row_at_ms = now_ms;
}

void pyrefs_incref(struct pyrefs *r, const struct pyrefs_addr *addr, uint64_t object, uint64_t now_ms)
{
    struct pyref *ref = lookup(r, addr, object, now_ms, true);

    if (ref == NULL)
        return;
    if (ref->creates > 0) {
        ref->creates--;
        ref->rows++;
        ref->row_at_ms = now_ms;
    } else {
        ref->bare_increfs++;
        ref->bare_at_ms = now_ms;
    }
}

/* ---- farewells and limbo ---- */

static struct pyrefs_host *find_host(struct pyrefs *r, const struct pyrefs_addr *addr)
{
    struct pyrefs_host *host;

    HASH_FIND(hh, r->hosts, addr, sizeof(*addr), host);
    return host;
}

static void drop_host_if_idle(struct pyrefs *r, struct pyrefs_host *host)
{
    if (host->farewells != NULL || host->limbo != NULL)
        return;
    HASH_DEL(r->hosts, host);
    if (r->ended == host)
        r->ended = NULL;
    tq_free(host);
}

static void clear_suspect(struct pyrefs *r, struct pyref *ref)
{
    struct pyrefs_session *s = ref->suspects;

    DL_DELETE2(ref->suspects, s, suspect_prev, suspect_next);
    ref->pins--;
    s->suspect_of = NULL;
    s->cleared = true;
    r->ended = s->limbo; /* pyrefs_next_decided brings it */
}

/* One decref more than the rows explain: one of those that were taken for a row's last step was a farewell.
 * Whose, is not known; the one that waited longest has it. */
static void clear_doubt(struct pyrefs *r, struct pyrefs_host *host, struct pyref *ref)
{
    struct pyrefs_farewell *f;

    if (ref->suspects != NULL) {
        clear_suspect(r, ref);
        return;
    }
    DL_FOREACH(host->farewells, f)
    {
        if (f->doubtful == ref) {
            f->doubtful = NULL;
            ref->pins--;
            return;
        }
    }
}

/* The object of which this decref may be the last step of a row; NULL: it is a farewell. */
static struct pyref *row_ended_by(struct pyrefs *r, struct pyrefs_host *host, uint64_t object,
                                  uint64_t now_ms)
{
    struct pyref *ref = lookup(r, &host->addr, object, now_ms, false);

    if (ref == NULL)
        return NULL;
    if (ref->rows > 0) {
        ref->rows--;
        ref->row_at_ms = now_ms;
        return ref;
    }
    if (ref->pins > 0)
        clear_doubt(r, host, ref);
    if (ref->bare_increfs > 0)
        ref->bare_increfs--; /* perhaps a forked child that never called anything: one less to be judged */
    return NULL;
}

static struct pyrefs_host *get_host(struct pyrefs *r, const struct pyrefs_addr *addr)
{
    struct pyrefs_host *host = find_host(r, addr);

    if (host != NULL)
        return host;
    host = tq_calloc(1, sizeof(*host));
    if (host == NULL)
        return NULL;
    host->addr = *addr;
    HASH_ADD(hh, r->hosts, addr, sizeof(host->addr), host);
    if (host->hh.tbl == NULL) {
        tq_free(host);
        return NULL;
    }
    return host;
}

int pyrefs_farewell_begin(struct pyrefs *r, struct pyrefs_farewell *f, const struct pyrefs_addr *addr,
                          uint64_t object, uint64_t now_ms)
{
    struct pyrefs_host *host = get_host(r, addr);

    if (host == NULL)
        return TQ_ENOMEM;
    f->doubtful = row_ended_by(r, host, object, now_ms);
    f->host = host;
    f->answered_at = ++r->order;
    if (f->doubtful != NULL)
        f->doubtful->pins++;
    DL_APPEND(host->farewells, f);
    return TQ_OK;
}

/* Whose farewell was it? The latest session that ended since the answer and is not spoken for: between a
 * leaver's close and the end of its farewell lie microseconds. But several may leave at once: one that
 * another farewell could be for as well stands back behind one that only this can be for. */
static struct pyrefs_session *whose(const struct pyrefs_host *host, const struct pyrefs_farewell *f)
{
    const struct pyrefs_farewell *other;
    struct pyrefs_session *latest = NULL;
    struct pyrefs_session *only = NULL;
    struct pyrefs_session *s;

    DL_FOREACH(host->farewells, other)
    {
        if (other->doubtful == NULL)
            break; /* the first answered of those that are open, and certain */
    }
    DL_FOREACH(host->limbo, s)
    {
        if (s->cleared || s->suspect_of != NULL || s->ended_at < f->answered_at)
            continue;
        latest = s;
        if (other == NULL || other->answered_at > s->ended_at)
            only = s;
    }
    return only != NULL ? only : latest;
}

struct pyrefs_session *pyrefs_farewell_end(struct pyrefs *r, struct pyrefs_farewell *f)
{
    struct pyrefs_host *host = f->host;
    struct pyrefs_session *latest;

    if (host == NULL)
        return NULL;
    f->host = NULL;
    DL_DELETE(host->farewells, f);
    if (f->doubtful != NULL)
        f->doubtful->pins--;
    latest = whose(host, f);
    r->ended = host;
    if (latest != NULL && f->doubtful == NULL) {
        latest->cleared = true;
        latest = NULL;
    } else if (latest != NULL) {
        latest->suspect_of = f->doubtful;
        f->doubtful->pins++;
        DL_APPEND2(f->doubtful->suspects, latest, suspect_prev, suspect_next);
    }
    drop_host_if_idle(r, host);
    return latest;
}

/* Could a farewell that is still open be this session's? */
static bool may_have_left(const struct pyrefs_session *s)
{
    const struct pyrefs_farewell *first = s->limbo->farewells; /* the one answered first */

    return first != NULL && first->answered_at < s->ended_at;
}

void pyrefs_session_forget(struct pyrefs *r, struct pyrefs_session *s)
{
    struct pyrefs_host *host = s->limbo;

    if (host == NULL)
        return;
    if (s->suspect_of != NULL) {
        DL_DELETE2(s->suspect_of->suspects, s, suspect_prev, suspect_next);
        s->suspect_of->pins--;
        s->suspect_of = NULL;
    }
    s->limbo = NULL;
    DL_DELETE(host->limbo, s);
    drop_host_if_idle(r, host);
}

struct pyrefs_session *pyrefs_next_decided(struct pyrefs *r, enum pyrefs_verdict *ret_verdict)
{
    struct pyrefs_session *s;

    if (r->ended == NULL)
        return NULL;
    DL_FOREACH(r->ended->limbo, s)
    {
        if (s->cleared || (s->suspect_of == NULL && !may_have_left(s))) {
            *ret_verdict = s->judged && !s->cleared ? PYREFS_DIED : PYREFS_LEFT;
            pyrefs_session_forget(r, s);
            return s;
        }
    }
    r->ended = NULL;
    return NULL;
}

/* ---- sessions ---- */

void pyrefs_session_open(struct pyrefs_session *s, enum pyrefs_class kind)
{
    *s = (struct pyrefs_session){.kind = (uint8_t)kind, .judged = kind == PYREFS_MAIN};
}

void pyrefs_session_use(struct pyrefs *r, struct pyrefs_session *s, const struct pyrefs_addr *addr,
                        uint64_t object, uint64_t now_ms)
{
    struct pyref *ref;

    if (s->asked || s->kind == PYREFS_SPAWNED || s->kind == PYREFS_THREAD)
        return;
    s->asked = true;
    ref = lookup(r, addr, object, now_ms, false);
    if (ref == NULL || ref->bare_increfs == 0 || s->kind == PYREFS_MAIN)
        return;
    ref->bare_increfs--; /* a pool's worker uses its own up, too: nobody else shall be taken for forked by it
                          */
    s->judged = s->kind == PYREFS_CHILD;
}

enum pyrefs_verdict pyrefs_session_end(struct pyrefs *r, struct pyrefs_session *s,
                                       const struct pyrefs_addr *addr)
{
    struct pyrefs_host *host = find_host(r, addr);

    if (host == NULL || host->farewells == NULL)
        return s->judged ? PYREFS_DIED : PYREFS_LEFT;
    /* Also one that is not judged or holds nothing: a farewell must find its own session here. */
    s->ended_at = ++r->order;
    s->limbo = host;
    DL_APPEND(host->limbo, s);
    return PYREFS_UNSURE;
}
