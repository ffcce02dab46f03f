/* The broker behind lines of text, for comparison with Python's queue module. One queue, one session, one
 * reply line for each line of input:
 *
 *   new fifo|lifo|priority MAXSIZE     put ITEM     get     qsize     empty     full     task_done
 *   shutdown 0|1
 *
 * ITEM: i<number>, s<text>, or k<number>#<name>, which is ordered by its number alone. */
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "master/core/broker.h"
#include "master/core/broker_check.h"

static const char *class_of(const struct broker_payload *p)
{
    return p->data[0] == 'i' ? "int" : p->data[0] == 's' ? "str" : "Keyed";
}

static int item_less(const struct broker_payload *a, const struct broker_payload *b, bool *ret_less,
                     char text[BROKER_TEXT_MAX])
{
    const char *x = (const char *)a->data, *y = (const char *)b->data;

    if (x[0] != y[0]) {
        snprintf(text, BROKER_TEXT_MAX, "'<' not supported between instances of '%s' and '%s'", class_of(a),
                 class_of(b));
        return 1;
    }
    *ret_less = x[0] == 's' ? strcmp(x, y) < 0 : strtoll(x + 1, NULL, 10) < strtoll(y + 1, NULL, 10);
    return 0;
}

struct tool {
    struct tq_deadlines deadlines;
    struct broker *b;
    struct broker_queue *q;
    struct broker_session s;
    struct broker_effects fx;
};

static void step(struct tool *t, const struct broker_event *ev)
{
    int rv = broker_step(t->b, 0, ev, &t->fx);
    const char *broken = broker_check(t->b);

    if (rv != 0 || broken != NULL) {
        fprintf(stderr, "broker_tool: step: %d, broken rule: %s\n", rv, broken != NULL ? broken : "none");
        exit(1);
    }
}

static void start(struct tool *t, const char *kind, long long maxsize)
{
    struct broker_queue_conf conf;

    broker_queue_conf_init(&conf);
    conf.ack = BROKER_ACK_GET;
    conf.maxsize = maxsize;
    conf.kind = strcmp(kind, "lifo") == 0       ? BROKER_LIFO
                : strcmp(kind, "priority") == 0 ? BROKER_PRIORITY
                                                : BROKER_FIFO;
    if (t->b != NULL) {
        broker_free(t->b);
        tq_deadlines_deinit(&t->deadlines);
    }
    tq_deadlines_init(&t->deadlines);
    t->b = broker_new(&t->deadlines, &(struct broker_limits){.queues = 1}, item_less);
    TQ_ASSERT(t->b != NULL);
    TQ_ASSERT(broker_declare(t->b, "q", &conf, &t->q) == 0);
    step(t, &(struct broker_event){.kind = BROKER_SESSION_OPEN, .session = &t->s});
    puts("ok");
}

static void show(struct tool *t)
{
    const struct broker_effect *e = &t->fx.list[0];
    struct broker_view view;

    TQ_ASSERT(t->fx.count == 1);
    switch (e->outcome) {
    case BROKER_REPLY_NONE:
        puts("None");
        break;
    case BROKER_REPLY_BOOL:
        puts(e->number ? "True" : "False");
        break;
    case BROKER_REPLY_INT:
        printf("%lld\n", (long long)e->number);
        break;
    case BROKER_REPLY_ITEM:
        TQ_ASSERT(broker_view_lease(t->b, e, &view));
        puts((const char *)view.payload.data);
        break;
    case BROKER_REPLY_EMPTY:
        puts("Empty");
        break;
    case BROKER_REPLY_FULL:
        puts("Full");
        break;
    case BROKER_REPLY_SHUTDOWN:
        puts("ShutDown");
        break;
    case BROKER_REPLY_TOO_MANY_DONE:
        puts("ValueError: task_done() called too many times");
        break;
    case BROKER_REPLY_TYPE_ERROR:
        printf("TypeError: %s\n", e->text);
        break;
    default:
        printf("outcome %d\n", (int)e->outcome);
    }
    broker_effects_clear(&t->fx);
}

static void call(struct tool *t, const char *method, const char *arg)
{
    static const struct {
        const char *name;
        enum broker_event_kind kind;
    } methods[] = {
        {"put", BROKER_PUT},
        {"get", BROKER_GET},
        {"qsize", BROKER_QSIZE},
        {"empty", BROKER_EMPTY},
        {"full", BROKER_FULL},
        {"shutdown", BROKER_SHUTDOWN},
        {"task_done", BROKER_TASK_DONE},
    };
    struct broker_event ev = {.session = &t->s, .queue = t->q};
    size_t i = 0, count = sizeof(methods) / sizeof(methods[0]);

    while (i < count && strcmp(method, methods[i].name) != 0)
        i++;
    if (i == count || t->b == NULL) {
        fprintf(stderr, "broker_tool: what is '%s'?\n", method);
        exit(2);
    }
    ev.kind = methods[i].kind;
    ev.immediate = strcmp(arg, "1") == 0;
    ev.payload.data = (const uint8_t *)arg;
    ev.payload.len = (uint32_t)strlen(arg) + 1;
    ev.payload.format = BROKER_PYTHON;
    step(t, &ev);
    show(t);
    step(t, &(struct broker_event){.kind = BROKER_DELIVERED, .session = &t->s});
}

int main(void)
{
    static struct tool t;
    char line[300], method[100], arg[100];
    long long maxsize;

    while (fgets(line, sizeof(line), stdin) != NULL) {
        arg[0] = '\0';
        maxsize = 0;
        if (sscanf(line, "%99s %99s %lld", method, arg, &maxsize) < 1)
            continue;
        if (strcmp(method, "new") == 0)
            start(&t, arg, maxsize);
        else
            call(&t, method, arg);
    }
    broker_free(t.b);
    broker_effects_deinit(&t.fx);
    tq_deadlines_deinit(&t.deadlines);
    return 0;
}
