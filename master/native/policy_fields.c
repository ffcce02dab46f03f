/* Policies of queues by their names: declare, and what stats tell. */
#include "master/native/native_impl.h"

#include <stdio.h>

struct policies {
    struct tq_span q;
    struct tq_span kind, ack, durability, full, result, dead;
    int64_t maxsize, retention_ms;
    uint32_t max_attempts, max_deliveries, retry_ms, retry_max_ms, lease_ms, grace_ms;
    uint32_t rate_per_s, rate_burst, concurrency, expires_ms;
    uint64_t ttl_ms;
    bool paused, update;
};

enum policy {
    POLICY_Q,
    POLICY_UPDATE,
    POLICY_KIND,
    POLICY_ACK,
    POLICY_DURABILITY,
    POLICY_FULL,
    POLICY_RESULT,
    POLICY_DEAD,
    POLICY_MAXSIZE,
    POLICY_RETENTION,
    POLICY_ATTEMPTS,
    POLICY_DELIVERIES,
    POLICY_RETRY,
    POLICY_RETRY_MAX,
    POLICY_LEASE,
    POLICY_GRACE,
    POLICY_RATE,
    POLICY_BURST,
    POLICY_CONCURRENCY,
    POLICY_EXPIRES,
    POLICY_TTL,
    POLICY_PAUSED,
};

#define SMALL(field_)   NATIVE_FIELD(struct policies, field_, FIELD_U32, .most = UINT32_MAX)
#define WORD(field_)    NATIVE_FIELD(struct policies, field_, FIELD_TEXT, 0)
#define ATTEMPT(field_) NATIVE_FIELD(struct policies, field_, FIELD_U32, .most = BROKER_ATTEMPTS_MAX)

static const struct native_field policy_list[] = {
    [POLICY_Q] = WORD(q),
    [POLICY_UPDATE] = NATIVE_FIELD(struct policies, update, FIELD_BOOL, 0),
    [POLICY_KIND] = WORD(kind),
    [POLICY_ACK] = WORD(ack),
    [POLICY_DURABILITY] = WORD(durability),
    [POLICY_FULL] = WORD(full),
    [POLICY_RESULT] = NATIVE_FIELD(struct policies, result, FIELD_TEXT, .nil_said = true),
    [POLICY_DEAD] = NATIVE_FIELD(struct policies, dead, FIELD_TEXT, .nil_said = true),
    [POLICY_MAXSIZE] = NATIVE_FIELD(struct policies, maxsize, FIELD_I64, .most = INT64_MAX),
    [POLICY_RETENTION] = NATIVE_FIELD(struct policies, retention_ms, FIELD_I64, .least = -1,
                                      .most = (int64_t)BROKER_RETENTION_AUTO - 1),
    [POLICY_ATTEMPTS] = ATTEMPT(max_attempts),
    [POLICY_DELIVERIES] = ATTEMPT(max_deliveries),
    [POLICY_RETRY] = SMALL(retry_ms),
    [POLICY_RETRY_MAX] = SMALL(retry_max_ms),
    [POLICY_LEASE] = SMALL(lease_ms),
    [POLICY_GRACE] = SMALL(grace_ms),
    [POLICY_RATE] = SMALL(rate_per_s),
    [POLICY_BURST] = SMALL(rate_burst),
    [POLICY_CONCURRENCY] = SMALL(concurrency),
    [POLICY_EXPIRES] = SMALL(expires_ms),
    [POLICY_TTL] = NATIVE_FIELD(struct policies, ttl_ms, FIELD_U64, .most = (int64_t)1 << 53),
    [POLICY_PAUSED] = NATIVE_FIELD(struct policies, paused, FIELD_BOOL, 0),
};

_Static_assert(sizeof(policy_list) / sizeof(policy_list[0]) <= 32, "a bit for each");

static const char *const kinds[] = {
    [BROKER_FIFO] = "fifo", [BROKER_LIFO] = "lifo", [BROKER_PRIORITY] = "priority"};
static const char *const acks[] = {
    [BROKER_ACK_AUTO] = "auto", [BROKER_ACK_EXPLICIT] = "explicit", [BROKER_ACK_GET] = "get"};
static const char *const durabilities[] = {[BROKER_DURABILITY_FSYNC] = "fsync",
                                           [BROKER_DURABILITY_INTERVAL] = "interval",
                                           [BROKER_DURABILITY_MEMORY] = "memory"};
static const char *const fulls[] = {"block", "reject"};

static bool choose(const char *const *of, unsigned count, struct tq_span word, const char *field,
                   unsigned *ret, struct native_bad *bad)
{
    for (unsigned i = 0; i < count; i++) {
        if (tq_span_is(word, of[i])) {
            *ret = i;
            return true;
        }
    }
    return native_bad(bad, CODE_BAD_REQUEST, "%s: \"%s\" is none of %s, %s%s%s", field, native_quote(word),
                      of[0], of[1], count > 2 ? ", " : "", count > 2 ? of[2] : "");
}

/* A copy of the name, which the conf borrows. */
static bool name_of_queue(struct tq_span name, const char *field, char copy[BROKER_QUEUE_NAME_MAX + 1],
                          struct native_bad *bad)
{
    if (!native_name_valid(name))
        return native_bad(bad, CODE_BAD_REQUEST, "%s: \"%s\" is no name of a queue", field,
                          native_quote(name));
    memcpy(copy, name.data, name.len);
    copy[name.len] = '\0';
    return true;
}

struct declared {
    struct policies p;
    uint32_t said, nils;
    char result[BROKER_QUEUE_NAME_MAX + 1], dead[BROKER_QUEUE_NAME_MAX + 1];
};

static bool apply_durability(struct declared *d, struct broker_queue_conf *conf, bool durable,
                             struct native_bad *bad)
{
    unsigned choice = 0;

    if ((d->said & 1u << POLICY_DURABILITY) == 0)
        return true;
    if (!choose(durabilities, 3, d->p.durability, "durability", &choice, bad))
        return false;
    if (!durable && choice != BROKER_DURABILITY_MEMORY)
        return native_bad(
            bad, CODE_REFUSED,
            "durability: this task-master keeps all in memory, and cannot promise \"%s\": start "
            "it with --data-dir",
            durabilities[choice]);
    conf->durability = (enum broker_durability)choice;
    return true;
}

/* The policies that were given, over those in *conf, which borrows from *d. */
static bool apply_words(struct declared *d, struct broker_queue_conf *conf, struct native_bad *bad)
{
    const struct policies *p = &d->p;
    unsigned choice = 0;

    if (d->said & 1u << POLICY_KIND) {
        if (!choose(kinds, 3, p->kind, "kind", &choice, bad))
            return false;
        conf->kind = (enum broker_kind)choice;
    }
    if (d->said & 1u << POLICY_ACK) {
        if (!choose(acks, 3, p->ack, "ack", &choice, bad))
            return false;
        conf->ack = (enum broker_ack)choice;
    }
    if (d->said & 1u << POLICY_FULL) {
        if (!choose(fulls, 2, p->full, "full", &choice, bad))
            return false;
        conf->reject_full = choice == 1;
    }
    if (d->said & 1u << POLICY_RESULT) {
        bool nil = (d->nils & 1u << POLICY_RESULT) != 0;

        if (!nil && !name_of_queue(p->result, "result", d->result, bad))
            return false;
        conf->result = nil ? NULL : d->result;
    }
    if (d->said & 1u << POLICY_DEAD) {
        bool nil = (d->nils & 1u << POLICY_DEAD) != 0;

        if (!nil && !name_of_queue(p->dead, "dead", d->dead, bad))
            return false;
        if (!nil && p->q.len == p->dead.len && memcmp(p->q.data, p->dead.data, p->q.len) == 0)
            return native_bad(bad, CODE_BAD_REQUEST,
                              "dead: a queue cannot be the one for its own dead letters");
        conf->dead = nil ? NULL : d->dead;
    }
    return true;
}

static bool apply(struct declared *d, struct broker_queue_conf *conf, bool durable, struct native_bad *bad)
{
    const struct policies *p = &d->p;
    uint32_t said = d->said;

    if (!apply_words(d, conf, bad) || !apply_durability(d, conf, durable, bad))
        return false;
#define APPLY(policy_, field_)                                                                               \
    if (said & 1u << (policy_))                                                                              \
    conf->field_ = p->field_
    APPLY(POLICY_MAXSIZE, maxsize);
    APPLY(POLICY_RETRY, retry_ms);
    APPLY(POLICY_RETRY_MAX, retry_max_ms);
    APPLY(POLICY_LEASE, lease_ms);
    APPLY(POLICY_GRACE, grace_ms);
    APPLY(POLICY_RATE, rate_per_s);
    APPLY(POLICY_BURST, rate_burst);
    APPLY(POLICY_CONCURRENCY, concurrency);
    APPLY(POLICY_EXPIRES, expires_ms);
    APPLY(POLICY_TTL, ttl_ms);
    APPLY(POLICY_PAUSED, paused);
#undef APPLY
    if (said & 1u << POLICY_ATTEMPTS)
        conf->max_attempts = (uint8_t)p->max_attempts;
    if (said & 1u << POLICY_DELIVERIES)
        conf->max_deliveries = (uint8_t)p->max_deliveries;
    if (said & 1u << POLICY_RETENTION)
        conf->retention_ms = p->retention_ms < 0 ? BROKER_RETENTION_AUTO : (uint32_t)p->retention_ms;
    return true;
}

static bool same_name(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Which policy differs, or NULL. */
static const char *differs(const struct broker_queue_conf *a, const struct broker_queue_conf *b)
{
    if (a->kind != b->kind)
        return "kind";
    if (a->ack != b->ack)
        return "ack";
    if (a->durability != b->durability)
        return "durability";
    if (a->reject_full != b->reject_full)
        return "full";
    if (!same_name(a->result, b->result))
        return "result";
    if (!same_name(a->dead, b->dead))
        return "dead";
#define DIFFERS(field_)                                                                                      \
    if (a->field_ != b->field_)                                                                              \
    return #field_
    DIFFERS(maxsize);
    DIFFERS(max_attempts);
    DIFFERS(max_deliveries);
    DIFFERS(retry_ms);
    DIFFERS(retry_max_ms);
    DIFFERS(lease_ms);
    DIFFERS(grace_ms);
    DIFFERS(ttl_ms);
    DIFFERS(retention_ms);
    DIFFERS(rate_per_s);
    DIFFERS(rate_burst);
    DIFFERS(concurrency);
    DIFFERS(paused);
    DIFFERS(expires_ms);
#undef DIFFERS
    return NULL;
}

/* ---- declare ---- */

static void reply_created(struct native_request *r, bool created)
{
    struct native_out out = native_reply_begin(r->conn, r->msgid);

    tq_mp_put_map(&out.o, 1);
    tq_mp_put_cstr(&out.o, "created");
    tq_mp_put_bool(&out.o, created);
    (void)native_out_end(&out);
}

static bool bad_result(int rv, struct native_bad *bad)
{
    switch (rv) {
    case TQ_ENOMEM:
        return native_bad(bad, CODE_MEMORY, NATIVE_NO_MEMORY);
    case TQ_ELIMIT:
        return native_bad(bad, CODE_TOO_MANY,
                          "there are as many queues as this task-master may have (--max-queues)");
    case TQ_EEXISTS:
        return native_bad(bad, CODE_QUEUE_EXISTS,
                          "Python's clients know another queue by this name: choose another one");
    default:
        return native_bad(bad, CODE_REFUSED, "these policies do not go together");
    }
}

/* Whoever names a queue for results and dead letters sees to it that something comes in there. */
static bool may_name(struct native_conn *c, struct declared *d, const struct broker_queue_conf *conf,
                     struct native_bad *bad)
{
    struct native_host *h = c->native->host;
    const char *names[2] = {d->said & 1u << POLICY_RESULT ? conf->result : NULL,
                            d->said & 1u << POLICY_DEAD ? conf->dead : NULL};

    for (unsigned i = 0; i < 2; i++) {
        struct broker_queue *q;

        if (names[i] == NULL)
            continue;
        q = broker_find(h->broker, tq_span_str(names[i]));
        if (!h->allowed(h->ctx, c, KEY_LOOK, "declare with results to it", q, tq_span_str(names[i]),
                        bad->text)) {
            bad->code = CODE_DENIED;
            return false;
        }
    }
    return true;
}

/* A queue that goes by itself may be made by whoever may get from it: a reply queue of one's own. */
static bool may_declare(struct native_conn *c, struct declared *d, const struct broker_queue_conf *conf,
                        struct native_bad *bad)
{
    struct native_host *h = c->native->host;
    bool own = conf->expires_ms > 0 && conf->result == NULL && conf->dead == NULL;

    if (own && h->allowed(h->ctx, c, KEY_MAKE | KEY_MANAGE, "declare", NULL, tq_span(NULL, 0), bad->text) &&
        h->allowed(h->ctx, c, KEY_GET, "declare", NULL, d->p.q, bad->text))
        return true;
    if (!own && native_may(c, KEY_MANAGE, "declare", NULL, bad))
        return may_name(c, d, conf, bad);
    bad->code = CODE_DENIED;
    return false;
}

static bool declare_new(struct native_conn *c, struct declared *d, struct native_bad *bad)
{
    struct native_host *h = c->native->host;
    struct broker_queue_conf conf;
    struct broker_queue *q;
    char name[BROKER_QUEUE_NAME_MAX + 1];
    int rv;

    broker_queue_conf_init(&conf);
    conf.durability = h->durability;
    if (!name_of_queue(d->p.q, "q", name, bad) || !apply(d, &conf, h->durable, bad) ||
        !may_declare(c, d, &conf, bad))
        return false;
    rv = h->declare(h->ctx, name, &conf, &q);
    return rv == TQ_OK || bad_result(rv, bad);
}

static bool declare_again(struct native_conn *c, struct declared *d, struct broker_queue *q,
                          struct native_bad *bad)
{
    struct native_host *h = c->native->host;
    const struct broker_queue_conf *now = broker_queue_conf(q);
    struct broker_queue_conf conf = *now;
    const char *what;
    int rv;

    if (!native_may(c, d->p.update ? KEY_MANAGE : KEY_LOOK, "declare", q, bad) ||
        !apply(d, &conf, h->durable, bad))
        return false;
    what = differs(now, &conf);
    if (what == NULL)
        return true;
    if (!d->p.update)
        return native_bad(bad, CODE_QUEUE_EXISTS,
                          "the queue is there, and its %s is another: leave it out, or say update", what);
    if (conf.kind != now->kind || conf.ack != now->ack)
        return native_bad(bad, CODE_QUEUE_EXISTS, "the queue is there, and its %s cannot be changed", what);
    if (!may_name(c, d, &conf, bad))
        return false;
    rv = h->reconfigure(h->ctx, q, &conf);
    return rv == TQ_OK || bad_result(rv, bad);
}

void native_request_declare(struct native_request *r)
{
    struct declared d = {0};
    struct native_bad bad;
    struct broker_queue *q = NULL;
    bool good;

    good = native_params(&r->params, &NATIVE_FIELDS(policy_list), &d.p, &d.said, &bad);
    if (good) {
        d.nils = d.p.result.data == NULL ? 1u << POLICY_RESULT : 0;
        d.nils |= d.p.dead.data == NULL ? 1u << POLICY_DEAD : 0;
        q = native_find_queue(r->conn->native, d.p.q, "q", &bad);
        good = q != NULL                        ? declare_again(r->conn, &d, q, &bad)
               : bad.code == CODE_QUEUE_UNKNOWN ? declare_new(r->conn, &d, &bad)
                                                : false;
    }
    if (!good)
        native_bad_reply(r, &bad);
    else
        reply_created(r, q == NULL);
}

/* ---- what they are ---- */

static void put_u64(struct native_map *m, const char *key, uint64_t v)
{
    native_key(m, key);
    tq_mp_put_u64(m->o, v);
}

static void put_word(struct native_map *m, const char *key, const char *v)
{
    native_key(m, key);
    if (v != NULL)
        tq_mp_put_cstr(m->o, v);
    else
        tq_mp_put_nil(m->o);
}

void native_put_policies(struct native_map *m, const struct broker_queue_conf *c)
{
    put_word(m, "kind", kinds[c->kind]);
    put_word(m, "ack", acks[c->ack]);
    put_word(m, "durability", durabilities[c->durability]);
    put_u64(m, "maxsize", c->maxsize > 0 ? (uint64_t)c->maxsize : 0);
    put_word(m, "full", fulls[c->reject_full]);
    put_u64(m, "max_attempts", c->max_attempts);
    put_u64(m, "max_deliveries", c->max_deliveries);
    put_u64(m, "retry_ms", c->retry_ms);
    put_u64(m, "retry_max_ms", c->retry_max_ms);
    put_u64(m, "lease_ms", c->lease_ms);
    put_u64(m, "grace_ms", c->grace_ms);
    put_u64(m, "ttl_ms", c->ttl_ms);
    native_key(m, "retention_ms");
    tq_mp_put_i64(m->o, c->retention_ms == BROKER_RETENTION_AUTO ? -1 : (int64_t)c->retention_ms);
    put_word(m, "result", c->result);
    put_word(m, "dead", c->dead);
    put_u64(m, "rate_per_s", c->rate_per_s);
    put_u64(m, "rate_burst", c->rate_burst);
    put_u64(m, "concurrency", c->concurrency);
    native_key(m, "paused");
    tq_mp_put_bool(m->o, c->paused);
    put_u64(m, "expires_ms", c->expires_ms);
}
