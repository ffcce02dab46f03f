/* What is said at the start and at the stop. */
#include "common/err.h"
#include "master/access/access.h"
#include "master/server_impl.h"
#include "master/core/journal.h"
#include "master/durable.h"

static void banner_queue(const struct server *s, const struct config_queue *q)
{
    /* as it is: one that was recovered may have other policies than the defaults */
    const struct broker_queue_conf *c = broker_queue_conf(broker_find(s->broker, tq_span_str(q->name)));
    char more[512] = "";
    size_t len = 0;
    char quoted[BROKER_QUEUE_NAME_MAX + 1];

    for (unsigned t = 0; t < q->typeid_count && len < sizeof(more); t++)
        len += (size_t)snprintf(more + len, sizeof(more) - len, ",%s",
                                tq_log_quote(quoted, sizeof(quoted), q->typeids[t], strlen(q->typeids[t])));
    tq_log(TQ_LOG_INFO, "QUEUE",
           "name=%s kind=%s ack=%s durability=%s maxsize=%lld result=%s dead=%s typeids=%s,get_%s%s", q->name,
           config_kind_name(c->kind), config_ack_name(c->ack), config_durability_name(c->durability),
           (long long)c->maxsize, c->result != NULL ? c->result : "-", c->dead != NULL ? c->dead : "-",
           q->name, q->name, more);
}

static void banner_mode(const struct config *c)
{
    static const char *const promises[] = {
        [BROKER_DURABILITY_FSYNC] = "what was answered is on disk",
        [BROKER_DURABILITY_INTERVAL] =
            "what was answered outlives this process; a power cut takes the last moments",
        [BROKER_DURABILITY_MEMORY] = "what is queued is gone when this process ends",
    };
    char quoted[256];

    if (c->data_dir == NULL)
        tq_log(TQ_LOG_INFO, "MODE", "durability=memory: %s", promises[BROKER_DURABILITY_MEMORY]);
    else
        tq_log(TQ_LOG_INFO, "MODE", "durability=%s data_dir=\"%s\": %s; queues may say otherwise",
               config_durability_name(c->durability),
               tq_log_quote(quoted, sizeof(quoted), c->data_dir, strlen(c->data_dir)),
               promises[c->durability]);
}

void server_banner(const struct server *s, char texts[CONFIG_LISTEN_MAX][80])
{
    const struct config *c = s->config;

    for (unsigned i = 0; i < s->listener_count; i++)
        tq_log(TQ_LOG_INFO, "LISTEN", "address=%s", texts[i]);
    for (unsigned i = 0; i < c->queue_count; i++)
        banner_queue(s, &c->queues[i]);
    if (s->memory_bytes == 0)
        tq_log(TQ_LOG_INFO, "MEMORY", "max_bytes=none: queues may take all the memory there is");
    else
        tq_log(TQ_LOG_INFO, "MEMORY", "max_bytes=%llu%s", (unsigned long long)s->memory_bytes,
               c->limits.memory_bytes == CONFIG_MEMORY_AUTO
                   ? ": three quarters of what there is; --max-memory-bytes says otherwise"
                   : "");
    banner_mode(c);
    if (c->authkey_warning[0] != '\0')
        tq_log(TQ_LOG_WARN, "AUTHKEY", "%s", c->authkey_warning);
    access_banner(s);
}

void server_report(const struct server *s)
{
    const struct server_counters *c = &s->counters;
    struct broker_stats b;

    broker_get_stats(s->broker, &b);
    tq_log(TQ_LOG_INFO, "STATS",
           "connections=%llu authenticated=%llu calls=%llu puts=%llu gets=%llu acked=%llu returned=%llu "
           "auth_failed=%llu preauth_timeouts=%llu preauth_dropped=%llu protocol_errors=%llu "
           "access_refused=%llu",
           (unsigned long long)c->accepted, (unsigned long long)c->authenticated,
           (unsigned long long)c->calls, (unsigned long long)b.puts, (unsigned long long)b.gets,
           (unsigned long long)b.acked, (unsigned long long)b.returned, (unsigned long long)c->auth_failed,
           (unsigned long long)c->preauth_timeouts, (unsigned long long)c->preauth_dropped,
           (unsigned long long)(c->protocol_errors + c->preauth_protocol +
                                native_counters(s->native)->protocol_errors),
           (unsigned long long)c->access_refused);
}

void server_report_items(const struct server *s)
{
    struct broker_stats b;
    uint64_t recorded = 0;

    broker_get_stats(s->broker, &b);
    if (s->durable != NULL) {
        recorded = broker_journal_live_tasks(s->broker);
        tq_log(TQ_LOG_INFO, "ITEMS-KEPT", "items=%llu data_dir=\"%s\"", (unsigned long long)recorded,
               s->config->data_dir);
    }
    if (b.tasks > recorded)
        tq_log(TQ_LOG_WARN, "ITEMS-DROPPED", "items=%llu: they were in memory only",
               (unsigned long long)(b.tasks - recorded));
}
