/* The roster: sessions, which have a connection or wait for their worker to come back. */
#include "master/native/native_impl.h"

#include <utlist.h>

#include "common/assert.h"
#include "common/mem.h"

#define BUCKETS_FIRST 64u

/* ---- by worker id ---- */

static struct native_session **bucket_of(const struct native *n, struct tq_span worker)
{
    return &n->buckets[tq_siphash(n->hash_key, worker.data, worker.len) & (n->bucket_count - 1)];
}

struct native_session *native_roster_find(const struct native *n, struct tq_span worker)
{
    struct native_session *s = *bucket_of(n, worker);

    while (s != NULL && !tq_span_eq(native_session_worker(s), worker))
        s = s->same_bucket;
    return s;
}

static void grow_buckets(struct native *n)
{
    struct native_session **old = n->buckets, *s, *next;
    uint32_t old_count = n->bucket_count;

    n->buckets = tq_calloc((size_t)old_count * 2, sizeof(struct native_session *));
    if (n->buckets == NULL) { /* chains get longer, that is all */
        n->buckets = old;
        return;
    }
    n->bucket_count = old_count * 2;
    for (uint32_t i = 0; i < old_count; i++) {
        for (s = old[i]; s != NULL; s = next) {
            struct native_session **b = bucket_of(n, native_session_worker(s));

            next = s->same_bucket;
            s->same_bucket = *b;
            *b = s;
        }
    }
    tq_free(old);
}

void native_roster_add_worker(struct native *n, struct native_session *s)
{
    struct native_session **b;

    if (n->worker_count++ >= n->bucket_count)
        grow_buckets(n);
    b = bucket_of(n, native_session_worker(s));
    s->same_bucket = *b;
    *b = s;
}

void native_roster_remove_worker(struct native *n, struct native_session *s)
{
    struct native_session **b = bucket_of(n, native_session_worker(s));

    while (*b != s)
        b = &(*b)->same_bucket;
    *b = s->same_bucket;
    n->worker_count--;
}

struct native_session *native_roster_at(const struct native *n, uint32_t from, uint32_t *ret_index)
{
    for (uint32_t i = from; i < n->sessions.count; i++) {
        if (n->sessions.slots[i].p != NULL) {
            *ret_index = i;
            return n->sessions.slots[i].p;
        }
    }
    return NULL;
}

/* ---- deadlines: silence while there is a connection, forgetting while there is none ---- */

static void set_deadline(struct native_session *s, uint64_t at_ms)
{
    const struct native_host *h = s->native->host;
    int rv = tq_deadline_set(h->deadlines, &s->deadline, at_ms);

    (void)broker_deaf_ms(h->broker, &s->deaf_ms);
    TQ_ASSERT(rv == TQ_OK); /* it stands in the heap, or did until just now */
}

static uint64_t silent_ms(const struct native_session *s)
{
    return (uint64_t)s->heartbeat_ms * 3;
}

static void watch_silence(struct native_session *s)
{
    set_deadline(s, s->heartbeat_ms > 0 ? s->conn->heard_ms + silent_ms(s) : UINT64_MAX);
}

static struct native_session *session_of_deadline(struct tq_deadline *d)
{
    return (struct native_session *)(void *)((char *)d - offsetof(struct native_session, deadline));
}

static void on_silence(struct native_session *s)
{
    struct native_conn *c = s->conn;
    struct native *n = s->native;
    struct native_peer peer;

    n->counters.silent++;
    n->host->describe(n->host->ctx, c, &peer);
    native_log(n, NATIVE_LOG_INFO, "WORKER-SILENT", "peer=%s worker=\"%s\" ms=%llu leases=%u", peer.peer,
               native_quote(native_session_worker(s)), (unsigned long long)silent_ms(s),
               s->ep.session.held_count);
    native_session_leave(c, NATIVE_FELL_SILENT);
    native_close(c, NATIVE_CLOSE_NOW, "nothing was heard of it");
}

void native_on_deadline(struct native *n, struct tq_deadline *d)
{
    struct native_session *s = session_of_deadline(d);
    uint64_t deaf_ms = broker_deaf_ms(n->host->broker, &s->deaf_ms);
    uint64_t now = native_now(n);

    set_deadline(s, deaf_ms > 0 ? now + deaf_ms : UINT64_MAX); /* its place in the heap is its own again */
    if (deaf_ms > 0)
        return;
    if (s->conn == NULL) {
        if (s->ep.session.held_count > 0) {
            set_deadline(s, now + NATIVE_FORGET_MS);
            return;
        }
        n->counters.sessions_forgotten++;
        native_session_end(s);
        return;
    }
    if (s->conn->held && !native_wants_input(s->conn))
        native_heard(s->conn, now); /* it is not listened to as long as its replies wait for the log */
    if (s->conn->heard_ms + silent_ms(s) <= now)
        on_silence(s);
    else
        watch_silence(s);
}

/* ---- beginning ---- */

/* Worker, client and the key's name, in one block. */
static char *make_text(struct native_conn *c, struct tq_span worker, struct tq_span client,
                       uint8_t *ret_key_len)
{
    struct native_host *h = c->native->host;
    struct native_peer peer;
    size_t key_len;
    char *text;

    h->describe(h->ctx, c, &peer);
    key_len = strlen(peer.key);
    if (key_len > UINT8_MAX)
        key_len = UINT8_MAX;
    text = tq_malloc(worker.len + client.len + key_len + 1);
    if (text == NULL)
        return NULL;
    if (worker.len > 0)
        memcpy(text, worker.data, worker.len);
    if (client.len > 0)
        memcpy(text + worker.len, client.data, client.len);
    memcpy(text + worker.len + client.len, peer.key, key_len);
    text[worker.len + client.len + key_len] = '\0';
    *ret_key_len = (uint8_t)key_len;
    return text;
}

/* Room for one more; the one that has been without a connection longest, and holds nothing, makes it. */
static bool make_room(struct native *n, struct native_bad *bad)
{
    struct native_session *s = n->detached;

    if (n->sessions.used < n->host->limits.sessions)
        return true;
    for (unsigned looked = 0; s != NULL && looked < 64; looked++, s = s->next) {
        if (s->ep.session.held_count == 0) {
            n->counters.sessions_forgotten++;
            native_session_end(s);
            return true;
        }
    }
    return native_bad(bad, CODE_TOO_MANY, "%u sessions are all that this task-master has room for",
                      n->host->limits.sessions);
}

static int new_token(struct native_session *s)
{
    struct native_host *h = s->native->host;

    return h->random(h->ctx, s->token, sizeof(s->token));
}

/* In the table and the heap, so that nothing can fail any more. */
static int register_session(struct native_session *s)
{
    struct native *n = s->native;
    int rv = native_table_add(&n->sessions, s, &s->index);

    if (rv != TQ_OK)
        return rv;
    s->deadline.kind = NATIVE_DEADLINE;
    rv = tq_deadline_set(n->host->deadlines, &s->deadline, UINT64_MAX);
    if (rv != TQ_OK)
        native_table_remove(&n->sessions, s->index);
    return rv;
}

static void unregister_session(struct native_session *s)
{
    tq_deadline_clear(s->native->host->deadlines, &s->deadline);
    native_table_remove(&s->native->sessions, s->index);
}

static int open_session(struct native_session *s)
{
    struct native_host *h = s->native->host;
    struct broker_event ev = {.kind = BROKER_SESSION_OPEN, .session = &s->ep.session};
    int rv = register_session(s);

    if (rv != TQ_OK)
        return rv;
    s->ep.session.native = true;
    s->ep.session.durable_id = s->keep.id;
    s->ep.session.worker = native_session_worker(s);
    s->ep.on_effect = native_on_effect;
    rv = h->step(h->ctx, &ev);
    if (rv != TQ_OK)
        unregister_session(s);
    return rv;
}

int native_session_begin(struct native_conn *c, struct tq_span worker, struct tq_span client,
                         uint32_t heartbeat_ms, struct native_bad *bad)
{
    struct native *n = c->native;
    struct native_session *s;

    if (!make_room(n, bad))
        return TQ_ELIMIT;
    s = tq_calloc(1, sizeof(*s));
    if (s != NULL) {
        s->native = n;
        s->text = make_text(c, worker, client, &s->key_name_len);
        s->worker_len = (uint8_t)worker.len;
        s->client_len = (uint8_t)client.len;
        native_journal_name(s);
    }
    if (s == NULL || s->text == NULL || new_token(s) != TQ_OK || open_session(s) != TQ_OK) {
        if (s != NULL)
            tq_free(s->text);
        tq_free(s);
        (void)native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
        return TQ_ENOMEM;
    }
    if (worker.len > 0)
        native_roster_add_worker(n, s);
    n->counters.sessions_opened++;
    s->since_ms = native_now(n);
    s->heartbeat_ms = heartbeat_ms;
    s->key = c->key;
    s->conn = c;
    c->session = s;
    watch_silence(s);
    native_journal_note(s);
    return TQ_OK;
}

/* ---- to another connection ---- */

static void leave_detached(struct native_session *s)
{
    TQ_ASSERT(s->prev == s || s != s->native->detached || s->next != NULL); /* said to the analyzer */
    DL_DELETE(s->native->detached, s);
}

/* Its old connection has nothing to say any more. */
static void take_from(struct native_session *s)
{
    struct native_conn *old = s->conn;
    struct native_host *h = s->native->host;
    struct broker_event ev = {.kind = BROKER_DETACH, .session = &s->ep.session};

    s->native->counters.sessions_taken_over++;
    native_calls_drop(old);
    old->session = NULL;
    s->conn = NULL;
    (void)h->step(h->ctx, &ev);
    native_close(old, NATIVE_CLOSE_NOW, "its worker has another connection now");
}

int native_session_attach(struct native_session *s, struct native_conn *c, struct tq_span client,
                          uint32_t heartbeat_ms, struct native_bad *bad)
{
    uint8_t key_name_len = 0;
    uint8_t token[NATIVE_TOKEN_BYTES];
    char *text = make_text(c, native_session_worker(s), client, &key_name_len);

    memcpy(token, s->token, sizeof(token));
    if (text == NULL || new_token(s) != TQ_OK) {
        memcpy(s->token, token, sizeof(token));
        tq_free(text);
        (void)native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
        return TQ_ENOMEM;
    }
    if (s->conn != NULL)
        take_from(s);
    else
        leave_detached(s);
    tq_free(s->text);
    s->text = text;
    s->client_len = (uint8_t)client.len;
    s->key_name_len = key_name_len;
    s->ep.session.worker = native_session_worker(s);
    s->heartbeat_ms = heartbeat_ms;
    s->conn = c;
    c->session = s;
    s->native->counters.sessions_resumed++;
    watch_silence(s);
    native_journal_note(s);
    return TQ_OK;
}

/* ---- ending ---- */

static void note_grace(void *ctx, const struct broker_view *v)
{
    uint64_t *longest = ctx;

    if (v->queue != NULL && broker_queue_conf(v->queue)->grace_ms > *longest)
        *longest = broker_queue_conf(v->queue)->grace_ms;
}

static uint64_t longest_grace_ms(const struct native_session *s)
{
    uint64_t longest = NATIVE_FORGET_MS;

    broker_session_leases(s->native->host->broker, &s->ep.session, note_grace, &longest);
    return longest;
}

/* The session waits for its worker, for the longest of its graces. */
static void detach(struct native_session *s, bool free_now)
{
    struct native *n = s->native;
    struct broker_event ev = {.kind = BROKER_DETACH, .session = &s->ep.session, .free_now = free_now};
    uint64_t longest = longest_grace_ms(s);

    (void)n->host->step(n->host->ctx, &ev);
    DL_APPEND(n->detached, s);
    set_deadline(s, native_now(n) + longest + 1);
}

int native_session_revive(struct native_session *s)
{
    struct native_host *h = s->native->host;
    struct broker_event ev = {.kind = BROKER_DETACH, .session = &s->ep.session};
    int rv = open_session(s);

    if (rv != TQ_OK)
        return rv;
    s->heard_ms = native_now(s->native);
    (void)h->step(h->ctx, &ev); /* it has nothing yet: what it gets waits out its grace */
    DL_APPEND(s->native->detached, s);
    return TQ_OK;
}

void native_session_await(struct native_session *s)
{
    set_deadline(s, native_now(s->native) + longest_grace_ms(s) + 1);
}

void native_session_leave(struct native_conn *c, enum native_closed how)
{
    struct native_session *s = c->session;

    if (s == NULL)
        return;
    native_calls_drop(c);
    c->session = NULL;
    s->heard_ms = c->heard_ms;
    s->conn = NULL;
    if (s->worker_len > 0 && how != NATIVE_REVOKED) {
        /* When the master stops it is not its worker who has gone: that goes on, and is waited for. */
        bool waits = s->native->stopping && s->keep.id != 0;

        detach(s, how == NATIVE_SOCKET_CLOSED && !waits);
        return;
    }
    DL_APPEND(s->native->detached, s); /* where native_session_end looks for it */
    native_session_end(s);
}

void native_session_end(struct native_session *s)
{
    struct native *n = s->native;
    struct broker_event ev = {
        .kind = BROKER_SESSION_CLOSE, .session = &s->ep.session, .close_mode = BROKER_CLOSE_RETURN};

    if (s->conn != NULL) {
        native_calls_drop(s->conn);
        s->conn->session = NULL;
        s->conn = NULL;
    } else {
        leave_detached(s);
    }
    (void)n->host->step(n->host->ctx, &ev);
    if (s->worker_len > 0)
        native_roster_remove_worker(n, s);
    unregister_session(s);
    native_journal_end(s);
}

void native_keys_moved(struct native *n, const size_t *moved, size_t count)
{
    uint32_t i = 0;
    struct native_session *s;

    for (; (s = native_roster_at(n, i, &i)) != NULL; i++) {
        if (s->conn != NULL) {
            s->key = s->conn->key;
        } else if (s->key >= count || moved[s->key] == TQ_AUTH_KEY_GONE) {
            n->counters.sessions_forgotten++;
            native_session_end(s);
        } else {
            s->key = (uint32_t)moved[s->key];
        }
    }
}

int native_roster_init(struct native *n)
{
    int rv = n->host->random(n->host->ctx, n->hash_key, sizeof(n->hash_key));

    if (rv != TQ_OK)
        return rv;
    n->bucket_count = BUCKETS_FIRST;
    n->buckets = tq_calloc(n->bucket_count, sizeof(struct native_session *));
    return n->buckets != NULL ? TQ_OK : TQ_ENOMEM;
}

void native_roster_deinit(struct native *n)
{
    uint32_t i = 0;
    struct native_session *s;

    while ((s = native_roster_at(n, i, &i)) != NULL)
        native_session_end(s);
    tq_free(n->buckets);
    tq_free(n->sessions.slots);
}
