/* Sessions in the log: those with a worker id outlive the master. What changed is noted, and written once, as
 * it is when it is collected. */
#include "master/native/native_impl.h"

#include <stdarg.h>
#include <stdio.h>

#include <utlist.h>

#include "common/assert.h"
#include "common/hash.h"
#include "common/mem.h"

#define MOVED_AT_ONCE  1000 /* sessions that a collect moves forward, beside those that have news */
#define KEY_NAME_MAX   UINT8_MAX
#define ID_MAX         ((uint64_t)1 << 62)
#define MS_MAX         ((uint64_t)1 << 53)
#define HEAD_MAX_BYTES (1 + OPS_VARINT_MAX) /* op and length */
#define GONE_MAX_BYTES (HEAD_MAX_BYTES + OPS_VARINT_MAX)
#define SESSION_MAX_BYTES                                                                                    \
    (HEAD_MAX_BYTES + 4 * OPS_VARINT_MAX + 3 * 2 + NATIVE_WORKER_MAX + NATIVE_CLIENT_MAX + KEY_NAME_MAX +    \
     2 * NATIVE_TOKEN_BYTES + 1)

_Static_assert(NATIVE_WORKER_MAX <= UINT8_MAX && NATIVE_CLIENT_MAX <= UINT8_MAX,
               "lengths of a session's texts are bytes");

/* By durable_id, while a log is read and until its tasks have found their sessions. */
struct native_restored {
    uint64_t id;
    struct native_session *session;
    UT_hash_handle hh;
};

void native_journal_init(struct native *n)
{
    n->journal.next_id = 1;
}

void native_journal_enable(struct native *n)
{
    n->journal.on = true;
}

/* ---- what is noted ---- */

void native_journal_name(struct native_session *s)
{
    if (s->native->journal.on && s->worker_len > 0)
        s->keep.id = s->native->journal.next_id++;
}

void native_journal_note(struct native_session *s)
{
    if (s->keep.id == 0 || s->keep.noted)
        return;
    s->keep.noted = true;
    DL_APPEND2(s->native->journal.noted, s, keep.news_prev, keep.news_next);
}

static void forget_note(struct native_session *s)
{
    if (!s->keep.noted)
        return;
    s->keep.noted = false;
    DL_DELETE2(s->native->journal.noted, s, keep.news_prev, keep.news_next);
}

/* Homes only grow, so the list is in order. */
static void set_home(struct native_session *s, uint64_t segment, size_t op_bytes)
{
    struct native_journal *j = &s->native->journal;

    TQ_ASSERT(j->homes == NULL || j->homes->keep.home_prev->keep.home <= segment);
    if (s->keep.has_home)
        DL_DELETE2(j->homes, s, keep.home_prev, keep.home_next);
    j->live_count += !s->keep.has_home;
    DL_APPEND2(j->homes, s, keep.home_prev, keep.home_next);
    j->live_bytes = j->live_bytes - s->keep.op_bytes + op_bytes;
    s->keep.home = segment;
    s->keep.op_bytes = (uint16_t)op_bytes;
    s->keep.has_home = true;
}

static void forget_home(struct native_session *s)
{
    struct native_journal *j = &s->native->journal;

    if (!s->keep.has_home)
        return;
    DL_DELETE2(j->homes, s, keep.home_prev, keep.home_next);
    j->live_bytes -= s->keep.op_bytes;
    j->live_count--;
    s->keep.has_home = false;
}

void native_journal_end(struct native_session *s)
{
    bool written = s->keep.has_home;

    forget_note(s);
    forget_home(s);
    tq_free(s->text);
    s->text = NULL;
    if (written)
        DL_APPEND2(s->native->journal.gone, s, keep.news_prev, keep.news_next);
    else
        tq_free(s);
}

static void free_gone(struct native_journal *j)
{
    struct native_session *s, *next;

    DL_FOREACH_SAFE2(j->gone, s, next, keep.news_next)
    {
        tq_free(s);
    }
    j->gone = NULL;
}

static void forget_restored(struct native_journal *j)
{
    struct native_restored *r, *next;

    HASH_ITER(hh, j->restored, r, next)
    {
        HASH_DEL(j->restored, r);
        tq_free(r);
    }
}

void native_journal_deinit(struct native *n)
{
    struct native_journal *j = &n->journal;
    struct native_session *s, *next;

    forget_restored(j);
    DL_FOREACH_SAFE2(j->homes, s, next, keep.home_next) /* raw: of a recovery that failed */
    {
        tq_free(s->text);
        tq_free(s);
    }
    j->homes = NULL;
    free_gone(j);
    TQ_ASSERT(j->noted == NULL);
}

/* ---- written down ---- */

/* Ops that are not the broker's are texts: `body` was written at `at` + HEAD_MAX_BYTES, up to `end`. */
static uint8_t *put_op(uint8_t *at, uint8_t op, const uint8_t *end)
{
    const uint8_t *body = at + HEAD_MAX_BYTES;
    size_t len = (size_t)(end - body);

    *at++ = op;
    at = ops_put(at, len);
    memmove(at, body, len);
    return at + len;
}

static uint8_t *put_gone(uint8_t *at, const struct native_session *s)
{
    return put_op(at, OPS_SESSION_GONE, ops_put(at + HEAD_MAX_BYTES, s->keep.id));
}

static uint8_t *put_text(uint8_t *at, struct tq_span text)
{
    at = ops_put(at, text.len);
    if (text.len > 0)
        memcpy(at, text.data, text.len);
    return at + text.len;
}

static uint8_t *put_session(uint8_t *op, const struct native_session *s)
{
    uint8_t *at = ops_put(op + HEAD_MAX_BYTES, s->keep.id);

    at = put_text(at, native_session_worker(s));
    at = put_text(at, native_session_client(s));
    at = put_text(at, native_session_key_name(s));
    memcpy(at, s->token, NATIVE_TOKEN_BYTES);
    memcpy(at + NATIVE_TOKEN_BYTES, s->token_before, NATIVE_TOKEN_BYTES);
    at += 2 * NATIVE_TOKEN_BYTES;
    *at++ = s->unconfirmed;
    at = ops_put(at, s->heartbeat_ms);
    at = ops_put(at, s->since_ms);
    return put_op(op, OPS_SESSION, ops_put(at, s->native->journal.next_id));
}

bool native_journal_has_news(const struct native *n)
{
    const struct native_journal *j = &n->journal;

    return j->noted != NULL || j->gone != NULL || (j->homes != NULL && j->homes->keep.home < j->move_below);
}

static void note_moving(struct native_journal *j, uint64_t segment)
{
    struct native_session *s = j->homes;
    unsigned count = 0;

    if (j->move_below > segment) /* there is nowhere to move to yet */
        j->move_below = segment;
    while (s != NULL && s->keep.home < j->move_below && count < MOVED_AT_ONCE) {
        count += !s->keep.noted;
        native_journal_note(s);
        s = s->keep.home_next;
    }
}

/* Of a worker whose session ended and who has another one, the end comes first. */
int native_journal_collect(struct native *n, uint64_t segment, struct tq_buf *out)
{
    struct native_journal *j = &n->journal;
    struct native_session *s;
    size_t before = out->len;
    int rv = TQ_OK;

    note_moving(j, segment);
    DL_FOREACH2(j->gone, s, keep.news_next)
    {
        rv = tq_buf_reserve(out, GONE_MAX_BYTES);
        if (rv != TQ_OK)
            break;
        out->len = (size_t)(put_gone(out->data + out->len, s) - out->data);
    }
    for (s = j->noted; rv == TQ_OK && s != NULL; s = s->keep.news_next) {
        size_t at = out->len;

        rv = tq_buf_reserve(out, SESSION_MAX_BYTES);
        if (rv != TQ_OK)
            break;
        out->len = (size_t)(put_session(out->data + at, s) - out->data);
        s->keep.next_op_bytes = (uint16_t)(out->len - at);
    }
    if (rv != TQ_OK) {
        out->len = before;
        return rv;
    }
    free_gone(j);
    while ((s = j->noted) != NULL) {
        forget_note(s);
        set_home(s, segment, s->keep.next_op_bytes);
    }
    return TQ_OK;
}

uint64_t native_journal_oldest(const struct native *n)
{
    return n->journal.homes != NULL ? n->journal.homes->keep.home : UINT64_MAX;
}

void native_journal_move(struct native *n, uint64_t segment)
{
    if (segment >= n->journal.move_below && segment < UINT64_MAX)
        n->journal.move_below = segment + 1;
}

uint64_t native_journal_live_bytes(const struct native *n, uint64_t *ret_sessions)
{
    *ret_sessions = n->journal.live_count;
    return n->journal.live_bytes;
}

/* ---- read again ---- */

struct session_op {
    uint64_t id, heartbeat_ms, since_ms, next_id;
    struct tq_span worker, client, key_name;
    const uint8_t *tokens;
    uint8_t unconfirmed;
};

__attribute__((format(printf, 2, 3))) static int bad_op(char text[200], const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, 200, fmt, ap);
    va_end(ap);
    return TQ_EINVAL;
}

static bool get_bytes(struct tq_span *in, size_t n, const uint8_t **ret)
{
    if (in->len < n)
        return false;
    *ret = in->data;
    *in = tq_span(in->data + n, in->len - n);
    return true;
}

static int parse_session(struct tq_span in, struct session_op *o, char text[200])
{
    if (!ops_get(&in, &o->id) || !ops_get_text(&in, NATIVE_WORKER_MAX, &o->worker) ||
        !ops_get_text(&in, NATIVE_CLIENT_MAX, &o->client) || !ops_get_text(&in, KEY_NAME_MAX, &o->key_name) ||
        !get_bytes(&in, (size_t)2 * NATIVE_TOKEN_BYTES, &o->tokens) || !ops_get_u8(&in, &o->unconfirmed) ||
        !ops_get(&in, &o->heartbeat_ms) || !ops_get(&in, &o->since_ms) || !ops_get(&in, &o->next_id) ||
        in.len > 0)
        return bad_op(text, "a session that cannot be read");
    if (o->id == 0 || o->id >= o->next_id || o->next_id > ID_MAX)
        return bad_op(text, "session %llu, where the next one is %llu", (unsigned long long)o->id,
                      (unsigned long long)o->next_id);
    if (o->worker.len == 0 || !native_worker_valid(o->worker))
        return bad_op(text, "session %llu has the worker id \"%s\"", (unsigned long long)o->id,
                      native_quote(o->worker));
    if (o->unconfirmed > 1 || o->since_ms > MS_MAX || o->heartbeat_ms > NATIVE_HEARTBEAT_MAX_MS ||
        (o->heartbeat_ms > 0 && o->heartbeat_ms < NATIVE_HEARTBEAT_MIN_MS))
        return bad_op(text, "session %llu has a state, a time or a heartbeat that none has",
                      (unsigned long long)o->id);
    return TQ_OK;
}

static struct native_restored *find_restored(const struct native *n, uint64_t id)
{
    struct native_restored *r;

    HASH_FIND(hh, n->journal.restored, &id, sizeof(id), r);
    return r;
}

/* A raw session: in the list of homes, in the table of worker ids, and nowhere else. */
static struct native_restored *add_raw(struct native *n, const struct session_op *o)
{
    struct native_restored *r = tq_calloc(1, sizeof(*r));
    struct native_session *s = tq_calloc(1, sizeof(*s));

    if (r != NULL && s != NULL) {
        r->id = o->id;
        r->session = s;
        s->native = n;
        s->keep.id = o->id;
        HASH_ADD(hh, n->journal.restored, id, sizeof(r->id), r);
        if (r->hh.tbl != NULL)
            return r;
    }
    tq_free(r);
    tq_free(s);
    return NULL;
}

static void fill_raw(struct native_session *s, const struct session_op *o, char *text)
{
    memcpy(text, o->worker.data, o->worker.len);
    if (o->client.len > 0)
        memcpy(text + o->worker.len, o->client.data, o->client.len);
    if (o->key_name.len > 0)
        memcpy(text + o->worker.len + o->client.len, o->key_name.data, o->key_name.len);
    text[o->worker.len + o->client.len + o->key_name.len] = '\0';
    tq_free(s->text);
    s->text = text;
    s->worker_len = (uint8_t)o->worker.len;
    s->client_len = (uint8_t)o->client.len;
    s->key_name_len = (uint8_t)o->key_name.len;
    memcpy(s->token, o->tokens, NATIVE_TOKEN_BYTES);
    memcpy(s->token_before, o->tokens + NATIVE_TOKEN_BYTES, NATIVE_TOKEN_BYTES);
    s->unconfirmed = o->unconfirmed != 0;
    s->heartbeat_ms = (uint32_t)o->heartbeat_ms;
    s->since_ms = o->since_ms;
}

static int restore_session(struct native *n, struct tq_span bytes, uint64_t segment, char text[200])
{
    struct native_journal *j = &n->journal;
    struct native_session *other;
    struct native_restored *r;
    struct session_op o = {0};
    char *texts;
    bool is_new;

    if (parse_session(bytes, &o, text) != TQ_OK)
        return TQ_EINVAL;
    if (j->homes != NULL && j->homes->keep.home_prev->keep.home > segment)
        return bad_op(text, "session %llu stands in segment %llu, behind later ones",
                      (unsigned long long)o.id, (unsigned long long)segment);
    r = find_restored(n, o.id);
    is_new = r == NULL;
    other = native_roster_find(n, o.worker);
    if (is_new ? other != NULL : other != r->session)
        return bad_op(text, "session %llu has the worker id \"%s\" of another one", (unsigned long long)o.id,
                      native_quote(o.worker));
    texts = tq_malloc(o.worker.len + o.client.len + o.key_name.len + 1);
    if (texts == NULL || (is_new && (r = add_raw(n, &o)) == NULL)) {
        tq_free(texts);
        return TQ_ENOMEM;
    }
    fill_raw(r->session, &o, texts);
    if (is_new)
        native_roster_add_worker(n, r->session);
    set_home(r->session, segment, 1 + bytes.len + (bytes.len < 0x80 ? 1 : 2));
    if (o.next_id > j->next_id)
        j->next_id = o.next_id;
    return TQ_OK;
}

/* Out of the tables of what is restored; the session is raw. */
static void drop_restored(struct native *n, struct native_restored *r)
{
    struct native_session *s = r->session;

    HASH_DEL(n->journal.restored, r);
    tq_free(r);
    native_roster_remove_worker(n, s);
}

/* One that is not known was moved forward before it ended, and what it was moved from is not read. */
static int restore_gone(struct native *n, struct tq_span bytes, char text[200])
{
    struct native_restored *r;
    uint64_t id = 0;

    if (!ops_get(&bytes, &id) || id == 0 || id >= ID_MAX || bytes.len > 0)
        return bad_op(text, "the end of a session that cannot be read");
    if (id >= n->journal.next_id)
        n->journal.next_id = id + 1;
    r = find_restored(n, id);
    if (r != NULL) {
        struct native_session *s = r->session;

        drop_restored(n, r);
        forget_home(s);
        native_journal_end(s);
    }
    return TQ_OK;
}

int native_restore_op(struct native *n, uint8_t op, struct tq_span bytes, uint64_t segment, char text[200])
{
    if (op == OPS_SESSION)
        return restore_session(n, bytes, segment, text);
    if (op == OPS_SESSION_GONE)
        return restore_gone(n, bytes, text);
    return bad_op(text, "an op %u, which this task-master does not know", op);
}

int native_restore_finish(struct native *n)
{
    struct native_host *h = n->host;
    struct native_session *s, *next;
    struct native_restored *r;

    DL_FOREACH_SAFE2(n->journal.homes, s, next, keep.home_next)
    {
        if (h->key_named(h->ctx, native_session_key_name(s), &s->key)) {
            int rv = native_session_revive(s);

            if (rv != TQ_OK)
                return rv;
            continue;
        }
        native_log(n, NATIVE_LOG_INFO, "SESSION-DROPPED", "worker=\"%s\" key=\"%s\" reason=\"no such key\"",
                   native_quote(native_session_worker(s)), native_quote(native_session_key_name(s)));
        n->counters.sessions_forgotten++;
        r = find_restored(n, s->keep.id);
        TQ_ASSERT(r != NULL);
        drop_restored(n, r);
        native_journal_end(s);
    }
    return TQ_OK;
}

struct broker_session *native_session_of(struct native *n, uint64_t durable_id)
{
    struct native_restored *r = find_restored(n, durable_id);

    return r != NULL ? &r->session->ep.session : NULL;
}

void native_restore_wait(struct native *n)
{
    struct native_restored *r, *next;

    HASH_ITER(hh, n->journal.restored, r, next)
    {
        native_session_await(r->session);
    }
    forget_restored(&n->journal);
}
