/* stats, queues: the master's counters. */
#include "client/ctl/show.h"
#include "common/err.h"

static int out_of_memory(const struct ctl *c)
{
    return ctl_fail(c, "memory", "out of memory");
}

int ctl_run_stats(struct ctl *c)
{
    static struct link l;
    struct tq_native_request r;
    struct tq_span body = {0};
    json_t *v = NULL;
    int rv, status = ctl_connect(c, &l);

    if (status != 0)
        return status;
    link_begin(&l, &r, "stats", c->word_count > 0 ? 1 : 0);
    if (c->word_count > 0) {
        tq_mp_put_cstr(&r.o, "q");
        tq_mp_put_cstr(&r.o, c->words[0]);
    }
    rv = link_call(&l, &r, &body);
    if (rv == TQ_OK)
        v = show_value(body);
    link_close(&l);
    if (rv != TQ_OK)
        return ctl_fail_link(c, &l);
    if (v == NULL)
        return out_of_memory(c);
    if (c->json)
        show_json(v);
    else
        show_fields(v);
    json_decref(v);
    return 0;
}

/* One page, appended to all. 0 and where the next one begins, 0: there is none; 1: told by the link; 2:
 * memory. */
static int page(struct link *l, json_t *all, json_int_t *from)
{
    struct tq_native_request r;
    struct tq_span body = {0};
    json_t *v;
    bool good;

    link_begin(l, &r, "queues", 2);
    tq_mp_put_cstr(&r.o, "from");
    tq_mp_put_i64(&r.o, *from);
    tq_mp_put_cstr(&r.o, "max");
    tq_mp_put_u64(&r.o, 1000);
    if (link_call(l, &r, &body) != TQ_OK)
        return 1;
    v = show_value(body);
    if (v == NULL)
        return 2;
    good = json_array_extend(all, json_object_get(v, "queues")) == 0;
    *from = json_integer_value(json_object_get(v, "next")); /* 0 if it is null */
    json_decref(v);
    return good ? 0 : 2;
}

static int by_name(const void *a, const void *b)
{
    const char *x = json_string_value(json_object_get(*(json_t *const *)a, "q"));
    const char *y = json_string_value(json_object_get(*(json_t *const *)b, "q"));

    return strcmp(x != NULL ? x : "", y != NULL ? y : "");
}

static json_t *sorted(const json_t *all)
{
    size_t n = json_array_size(all);
    json_t **list = n > 0 ? calloc(n, sizeof(json_t *)) : NULL;
    json_t *out = json_array();

    for (size_t i = 0; list != NULL && i < n; i++)
        list[i] = json_array_get(all, i);
    if (list != NULL)
        qsort(list, n, sizeof(json_t *), by_name);
    for (size_t i = 0; list != NULL && i < n; i++)
        if (json_array_append(out, list[i]) != 0)
            break;
    free(list);
    if (json_array_size(out) == n)
        return out;
    json_decref(out);
    return NULL;
}

int ctl_run_queues(struct ctl *c)
{
    static const struct show_column columns[] = {
        {"QUEUE", "q"},       {"READY", "ready"}, {"DELAYED", "delayed"},
        {"LEASED", "leased"}, {"PUT", "puts"},    {"DONE", "done"},
        {"FAILED", "failed"}, {"DEAD", "dead"},   {"WAITING", "waiting_gets"},
    };
    static struct link l;
    json_t *all = json_array(), *list;
    json_int_t from = 0, before;
    int rv = 0, status = ctl_connect(c, &l);

    if (status != 0) {
        json_decref(all);
        return status;
    }
    do {
        before = from;
        rv = all != NULL ? page(&l, all, &from) : 2;
    } while (rv == 0 && from > before);
    link_close(&l);
    list = rv == 0 ? sorted(all) : NULL;
    json_decref(all);
    if (rv == 1)
        return ctl_fail_link(c, &l);
    if (list == NULL)
        return out_of_memory(c);
    if (c->json)
        show_json(list);
    else
        show_table(columns, sizeof(columns) / sizeof(columns[0]), list);
    json_decref(list);
    return 0;
}
