/* Queues: the broker's, Python's view of them, and where they come from: the log, the command line, peers. */
#include "common/err.h"
#include "master/server_impl.h"
#include "master/durable.h"

/* A queue that a client made in an earlier life (manager.Queue()): who still refers to it is not known, so it
 * goes when nobody has used it for so long. */
#define ORPHAN_EXPIRES_MS (7u * 24 * 3600 * 1000)

void server_forget_queue(void *ctx, struct broker_queue *queue)
{
    struct server *s = ctx;
    struct pyobject *object = broker_queue_user(queue);

    s->rights_epoch++; /* another queue may come to stand where it was */
    if (object != NULL)
        pyregistry_drop(s->registry, object);
}

int server_declare_queue(struct server *s, const char *name, const struct broker_queue_conf *conf,
                         struct broker_queue **ret_queue)
{
    struct broker_effects none = {0};
    struct pyobject *object;
    int rv = broker_declare(s->broker, name, conf, ret_queue);

    if (rv != TQ_OK)
        return rv;
    rv = pyregistry_declare(s->registry, *ret_queue, &object);
    if (rv != TQ_OK)
        broker_remove(s->broker, *ret_queue, &none);
    broker_effects_deinit(&none);
    return rv;
}

static bool is_lasting(const struct broker_queue *queue)
{
    const struct pyobject *object = broker_queue_user(queue);

    return object != NULL && object->lasting;
}

int server_reconfigure_queue(struct server *s, struct broker_queue *queue,
                             const struct broker_queue_conf *conf)
{
    int rv;

    if (is_lasting(queue) && conf->expires_ms != broker_queue_conf(queue)->expires_ms)
        return TQ_EINVAL;
    rv = broker_reconfigure(s->broker, server_now_ms(s), queue, conf, &s->effects);
    server_run_effects(s);
    return rv;
}

int server_remove_queue(struct server *s, struct broker_queue *queue)
{
    if (is_lasting(queue))
        return TQ_EINVAL;
    server_forget_queue(s, queue);
    broker_remove(s->broker, queue, &s->effects);
    server_run_effects(s);
    return TQ_OK;
}

/* ---- at the start ---- */

static int adopt(struct server *s, struct broker_queue *queue, char err[TQ_OPT_ERROR_MAX])
{
    struct broker_queue_conf conf = *broker_queue_conf(queue);
    struct pyobject *object;
    int rv;

    if (!conf.factory_made) {
        rv = pyregistry_declare(s->registry, queue, &object);
    } else {
        rv = pyregistry_make(s->registry, queue, &object);
        if (rv == TQ_OK) {
            object->orphan = true;
            if (conf.expires_ms == 0) {
                conf.expires_ms = ORPHAN_EXPIRES_MS;
                rv = server_reconfigure_queue(s, queue, &conf);
            }
        }
    }
    if (rv != TQ_OK)
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot take queue %.100s out of the data directory: %s",
                 broker_queue_name(queue),
                 rv == TQ_EEXISTS ? "another one has a name of it in Python" : tq_strerror(rv));
    return rv;
}

static int adopt_recovered(struct server *s, char err[TQ_OPT_ERROR_MAX])
{
    int rv = TQ_OK;

    for (struct broker_queue *q = NULL; rv == TQ_OK && (q = broker_next_queue(s->broker, q)) != NULL;)
        rv = adopt(s, q, err);
    return rv;
}

/* The command line names a queue that is there already: it gets the policies that are said there. Another
 * kind, or other acknowledgements, need another queue: *queue becomes NULL if the old one was empty. */
static int reconfigure(struct server *s, const struct config_queue *q, struct broker_queue **queue,
                       char err[TQ_OPT_ERROR_MAX])
{
    const struct broker_queue_conf *was = broker_queue_conf(*queue);
    struct broker_queue_stats stats;
    unsigned long long count;
    int rv;

    if (was->kind == q->conf.kind && was->ack == q->conf.ack) {
        rv = server_reconfigure_queue(s, *queue, &q->conf);
        if (rv != TQ_OK)
            snprintf(err, TQ_OPT_ERROR_MAX, "cannot configure queue %.100s: %s", q->name, tq_strerror(rv));
        return rv;
    }
    broker_get_queue_stats(s->broker, *queue, &stats);
    count = stats.ready + stats.delayed + stats.leased;
    if (count > 0) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "--queue %.60s,kind=%s,ack=%s: %llu tasks are in it, and it has kind=%s,ack=%s: start with "
                 "those until it is empty, or take another name",
                 q->name, config_kind_name(q->conf.kind), config_ack_name(q->conf.ack), count,
                 config_kind_name(was->kind), config_ack_name(was->ack));
        return TQ_EEXISTS;
    }
    rv = server_remove_queue(s, *queue);
    *queue = NULL;
    return rv;
}

static int declare_queue(struct server *s, const struct config_queue *q, char err[TQ_OPT_ERROR_MAX])
{
    struct broker_queue *queue = broker_find(s->broker, tq_span_str(q->name));
    const char *what = q->name;
    int rv = TQ_OK;

    if (queue != NULL && q->said) {
        rv = reconfigure(s, q, &queue, err);
        if (rv != TQ_OK)
            return rv;
    }
    if (queue == NULL)
        rv = server_declare_queue(s, q->name, &q->conf, &queue);
    if (rv == TQ_OK)
        ((struct pyobject *)broker_queue_user(queue))->lasting = config_is_standard_queue(q->name);
    for (unsigned i = 0; rv == TQ_OK && i < q->typeid_count; i++) {
        what = q->typeids[i];
        rv = pyregistry_add_typeid(s->registry, queue, what);
    }
    if (rv != TQ_OK)
        snprintf(err, TQ_OPT_ERROR_MAX, "cannot declare queue %.80s: the name '%.80s' %s", q->name, what,
                 rv == TQ_EEXISTS ? "is taken by another queue" : tq_strerror(rv));
    return rv;
}

int server_open_queues(struct server *s, char err[TQ_OPT_ERROR_MAX])
{
    int rv = s->durable != NULL ? adopt_recovered(s, err) : TQ_OK;

    for (unsigned i = 0; rv == TQ_OK && i < s->config->queue_count; i++)
        rv = declare_queue(s, &s->config->queues[i], err);
    return rv;
}
