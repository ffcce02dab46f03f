#include "master/access/access.h"

#include <utlist.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/access/keyfile.h"
#include "master/peer.h"

int access_open(struct server *s, char err[TQ_OPT_ERROR_MAX])
{
    return keyfile_load(&s->keys, s->config, false, err);
}

void access_close(struct server *s)
{
    keys_deinit(&s->keys);
}

static bool is_authkey(const struct key *key)
{
    return strcmp(key->name, KEYS_AUTHKEY_NAME) == 0;
}

int access_check_address(const struct config *c, const struct keys *k, const char *address,
                         char err[TQ_OPT_ERROR_MAX])
{
    const struct key *weakest = keys_weakest(k);

    if (weakest == NULL)
        return TQ_OK;
    if (weakest->secret_len == 0) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "will not listen on %.80s without an authkey: give --authkey-file FILE (16 bytes or more), "
                 "or listen on 127.0.0.1",
                 address);
        return TQ_EINVAL;
    }
    if (c->allow_weak_authkey)
        return TQ_OK;
    snprintf(
        err, TQ_OPT_ERROR_MAX,
        "will not listen on %.60s with %s%.40s%s of %zu bytes: it can be guessed; use 16 bytes or more, or "
        "say --allow-weak-authkey",
        address, is_authkey(weakest) ? "an " : "the key '", weakest->name, is_authkey(weakest) ? "" : "'",
        weakest->secret_len);
    return TQ_EINVAL;
}

static void warn_of_weak_keys(const struct keys *k)
{
    for (size_t i = 0; i < k->count; i++) {
        const struct key *key = &k->list[i];

        if (key->secret_len == 0)
            tq_log(TQ_LOG_WARN, "WEAK-KEY",
                   "no authkey: loopback only; Python clients connect with authkey=b''; "
                   "remedy: --authkey-file FILE");
        else if (key->secret_len < KEYS_STRONG_BYTES)
            tq_log(TQ_LOG_WARN, "WEAK-KEY",
                   "key=%s has %zu bytes and can be guessed from one recorded login; "
                   "remedy: 16 random bytes or more, in a file",
                   key->name, key->secret_len);
    }
}

void access_banner(const struct server *s)
{
    unsigned of_role[KEY_ROLE_COUNT] = {0};

    for (size_t i = 0; i < s->keys.count; i++)
        of_role[s->keys.list[i].role]++;
    if (s->config->keys_file != NULL)
        tq_log(TQ_LOG_INFO, "KEYS", "keys=%zu producer=%u worker=%u observer=%u admin=%u", s->keys.count,
               of_role[KEY_PRODUCER], of_role[KEY_WORKER], of_role[KEY_OBSERVER], of_role[KEY_ADMIN]);
    warn_of_weak_keys(&s->keys);
}

/* ---- the check ---- */

/* What would let the key do it. */
static void say_remedy(const struct key *key, enum key_right right, const char *queue, char out[400])
{
    bool fixed = key->role == KEY_OBSERVER;

    switch (right) {
    case KEY_MAKE:
        if (queue == NULL) {
            snprintf(out, 400, "use a key with role producer or worker");
            break;
        } /* fall through */
    case KEY_PUT:
    case KEY_GET:
        snprintf(out, 400, "give it %s%s=%s in the keys file of the task-master, and reload that (SIGHUP)",
                 fixed ? "role producer or worker, and " : "", right == KEY_PUT ? "put" : "get", queue);
        break;
    case KEY_LOOK:
        snprintf(out, 400,
                 "give it role observer, or put=%s or get=%s, in the keys file of the task-master, "
                 "and reload that (SIGHUP)",
                 queue, queue);
        break;
    case KEY_REFER:
        snprintf(out, 400, "use a key with role producer or worker");
        break;
    case KEY_INSPECT:
        if (queue != NULL)
            snprintf(out, 400,
                     "give it role observer, or get=%s, in the keys file of the task-master, and reload that "
                     "(SIGHUP)",
                     queue);
        else
            snprintf(out, 400, "use a key with role observer or admin");
        break;
    default:
        snprintf(out, 400, "use a key with role admin");
    }
}

static const struct key *key_of(const struct peer *p)
{
    return &p->server->keys.list[p->session.key_index];
}

static void refused(struct peer *p, enum key_right right, const char *verb, const char *name,
                    char text[ACCESS_TEXT_MAX])
{
    const struct key *key = key_of(p);
    char remedy[400];

    p->server->counters.access_refused++;
    tq_log(TQ_LOG_WARN, "ACCESS-REFUSED", "key=%s role=%s verb=%s queue=%s peer=%s", key->name,
           keys_role_name(key->role), verb, name != NULL ? name : "-", peer_text(p));
    say_remedy(key, right, name, remedy);
    if (name != NULL)
        snprintf(text, ACCESS_TEXT_MAX, "the key '%s' (%s) may not %s on queue '%s': %s", key->name,
                 keys_role_name(key->role), verb, name, remedy);
    else
        snprintf(text, ACCESS_TEXT_MAX, "the key '%s' (%s) may not %s: %s", key->name,
                 keys_role_name(key->role), verb, remedy);
}

static unsigned rights_of(struct peer *p, const struct key *key, const struct broker_queue *queue)
{
    struct access_cache *c = &p->access;
    unsigned i;

    if (queue == NULL)
        return keys_rights(key, NULL, false);
    if (c->epoch != p->server->rights_epoch)
        *c = (struct access_cache){.epoch = p->server->rights_epoch};
    for (i = 0; i < ACCESS_CACHE; i++) {
        if (c->queue[i] == queue)
            return c->rights[i];
    }
    i = c->next;
    c->next = (uint8_t)((i + 1) % ACCESS_CACHE);
    c->queue[i] = queue;
    /* Only Python's idents are secrets: a native peer names queues, and may have read the name somewhere. */
    c->rights[i] = (uint8_t)keys_rights(key, broker_queue_name(queue),
                                        broker_queue_conf(queue)->factory_made &&
                                            p->session.dialect == TQ_DIALECT_PYTHON);
    return c->rights[i];
}

unsigned access_rights(struct peer *p, const struct broker_queue *queue)
{
    return rights_of(p, key_of(p), queue);
}

bool access_allowed(struct peer *p, enum key_right right, const char *verb, const struct broker_queue *queue,
                    char text[ACCESS_TEXT_MAX])
{
    const struct key *key = key_of(p);

    if (key->role == KEY_ADMIN || (rights_of(p, key, queue) & right) != 0)
        return true;
    refused(p, right, verb, queue != NULL ? broker_queue_name(queue) : NULL, text);
    return false;
}

bool access_allowed_name(struct peer *p, enum key_right right, const char *verb, const char *name,
                         char text[ACCESS_TEXT_MAX])
{
    if ((keys_rights(key_of(p), name, false) & right) != 0)
        return true;
    refused(p, right, verb, name, text);
    return false;
}

/* ---- other keys ---- */

struct change {
    size_t added, removed, changed;
    size_t closed; /* peers */
};

static void count_change(struct change *ch, const struct keys *old, const struct keys *now,
                         const size_t *moved)
{
    *ch = (struct change){.added = now->count};
    for (size_t i = 0; i < old->count; i++) {
        if (moved[i] == TQ_AUTH_KEY_GONE) {
            ch->removed++;
            continue;
        }
        ch->added--;
        ch->changed += !keys_same_rights(&old->list[i], &now->list[moved[i]]);
    }
}

static void mark_revoked(struct server *s, const struct keys *old, const size_t *moved)
{
    struct peer *p;

    DL_FOREACH(s->peers, p)
    {
        const char *name;

        if (p->state == PEER_CLOSING)
            continue;
        name = p->session.open ? old->list[p->session.key_index].name : "-";
        if (tq_session_rekey(&p->session, s->keys.auth, s->keys.count, moved) == TQ_OK)
            continue;
        p->revoked = true;
        tq_log(TQ_LOG_INFO, "KEY-REVOKED", "key=%s peer=%s: its connection is closed", name, peer_text(p));
    }
}

/* Nothing may be handed to somebody who may not have it any more: all are marked, and all waits looked at,
 * before the first one gives its items back. */
static void carry_out(struct server *s, const struct keys *old, const size_t *moved, struct change *ch)
{
    struct peer *p;
    struct peer *next;

    mark_revoked(s, old, moved);
    DL_FOREACH(s->peers, p)
    {
        peer_rights_changed(p);
    }
    if (s->on_keys_moved != NULL)
        s->on_keys_moved(s, moved, old->count);
    DL_FOREACH_SAFE(s->peers, p, next)
    {
        if (p->revoked && p->state != PEER_CLOSING) {
            ch->closed++;
            peer_kill(p, "its key was revoked");
        }
    }
}

static void replace_keys(struct server *s, struct keys *now, size_t *moved)
{
    struct keys old = s->keys;
    struct change ch;

    keys_moved(&old, now, moved);
    count_change(&ch, &old, now, moved);
    s->keys = *now;
    s->rights_epoch++;
    carry_out(s, &old, moved, &ch);
    keys_deinit(&old);
    s->counters.reloads++;
    warn_of_weak_keys(&s->keys);
    tq_log(TQ_LOG_INFO, "RELOADED", "keys=%zu added=%zu removed=%zu changed=%zu connections_closed=%zu",
           s->keys.count, ch.added, ch.removed, ch.changed, ch.closed);
}

void access_reload(struct server *s)
{
    const struct config *c = s->config;
    char err[TQ_OPT_ERROR_MAX] = "";
    struct keys now;
    size_t *moved = NULL;
    int rv;

    if (c->keys_file == NULL && c->authkey_file == NULL) {
        tq_log(TQ_LOG_INFO, "NOTHING-TO-RELOAD",
               "SIGHUP reads keys again, and this master has none from a file (--authkey-file, --keys-file)");
        return;
    }
    rv = keyfile_load(&now, c, true, err);
    if (rv == TQ_OK && s->network_address[0] != '\0')
        rv = access_check_address(c, &now, s->network_address, err);
    if (rv == TQ_OK && (moved = tq_malloc(s->keys.count * sizeof(*moved))) == NULL) {
        snprintf(err, sizeof(err), "out of memory");
        rv = TQ_ENOMEM;
    }
    if (rv == TQ_OK) {
        replace_keys(s, &now, moved);
    } else {
        keys_deinit(&now);
        s->counters.reloads_failed++;
        tq_log(TQ_LOG_ERROR, "RELOAD-FAILED", "the old keys stay in force: %s; then send SIGHUP again", err);
    }
    tq_free(moved);
}
