/* ping: does it answer, and how fast? */
#include <time.h>

#include "client/ctl/show.h"
#include "common/err.h"

static uint64_t count = 1;

size_t ctl_options_ping(struct tq_opt *list)
{
    list[0] = (struct tq_opt){.name = "count",
                              .type = TQ_OPT_NUMBER,
                              .arg = "N",
                              .min = 1,
                              .max = 1000000000,
                              .number = &count,
                              .help = "so many, one after the other",
                              .group = "Ping"};
    return 1;
}

static uint64_t now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void show(const struct ctl *c, const struct link *l, uint64_t least_us, uint64_t sum_us,
                 uint64_t most_us)
{
    double mean_ms = (double)sum_us / (double)count / 1000;
    json_t *v;

    if (c->json) {
        v = json_pack("{s:s,s:s,s:s,s:s,s:I,s:f,s:f,s:f}", "master", l->name, "server", l->server, "key",
                      l->key_name, "role", l->role, "count", (json_int_t)count, "least_ms",
                      (double)least_us / 1000, "mean_ms", mean_ms, "most_ms", (double)most_us / 1000);
        if (v != NULL)
            show_json(v);
        json_decref(v);
        return;
    }
    printf("%s (%s) answers in %.3f ms", l->name, l->server, mean_ms);
    if (count > 1)
        printf(" (%llu times: least %.3f, most %.3f)", (unsigned long long)count, (double)least_us / 1000,
               (double)most_us / 1000);
    printf("; key %s, role %s\n", l->key_name, l->role);
}

int ctl_run_ping(struct ctl *c)
{
    static struct link l;
    uint64_t least = UINT64_MAX, sum = 0, most = 0;
    struct tq_native_request r;
    struct tq_span body = {0};
    int rv = TQ_OK, status = ctl_connect(c, &l);

    if (status != 0)
        return status;
    for (uint64_t i = 0; rv == TQ_OK && i < count; i++) {
        uint64_t start = now_us(), took;

        link_begin(&l, &r, "ping", 0);
        rv = link_call(&l, &r, &body);
        took = now_us() - start;
        sum += took;
        least = took < least ? took : least;
        most = took > most ? took : most;
    }
    link_close(&l);
    if (rv != TQ_OK)
        return ctl_fail_link(c, &l);
    show(c, &l, least, sum, most);
    return 0;
}
