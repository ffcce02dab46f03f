/* Items from requests, and comparisons of items, for Python to check.
 *
 *   item_tool items  stdin: requests, each with 4 bytes of length (big-endian); for each one on stdout a
 *                    letter, 4 bytes of length, and: R the pickle of the reply, X why there is none.
 *   item_tool less   the same with pairs of requests: < or - (without bytes), or T and the TypeError's text.
 *
 * A request is what a manager's client sends for put: (ident, method, args, kwds). */
#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/item.h"

static void die(const char *what)
{
    fprintf(stderr, "item_tool: %s\n", what);
    exit(1);
}

/* False at the end of the input. */
static bool read_record(uint8_t **ret_data, size_t *ret_len)
{
    uint8_t head[4];
    size_t got = fread(head, 1, sizeof(head), stdin);
    size_t len;

    if (got == 0)
        return false;
    if (got < sizeof(head))
        die("truncated input");
    len = tq_load_be32(head);
    *ret_data = malloc(len > 0 ? len : 1); /* exactly, so that sanitizers see a read behind it */
    if (*ret_data == NULL || fread(*ret_data, 1, len, stdin) != len)
        die("truncated input");
    *ret_len = len;
    return true;
}

static void write_record(char letter, const void *data, size_t len)
{
    uint8_t head[5] = {(uint8_t)letter};

    tq_store_be32(head + 1, (uint32_t)len);
    if (fwrite(head, 1, sizeof(head), stdout) != sizeof(head) || fwrite(data, 1, len, stdout) != len)
        die("cannot write");
}

/* The first positional argument, or the keyword argument `item`. */
static bool find_item(const struct tq_pickle *p, struct tq_pk_range *ret_item)
{
    struct tq_pk_range *list = NULL;
    struct tq_pk_value key;
    uint32_t count = 0;
    bool found = false;

    if (p->top_count != 4 || tq_pk_children(p, p->top[2], &list, &count) != TQ_OK)
        return false;
    if (count > 0) {
        *ret_item = list[0];
        found = true;
    }
    tq_free(list);
    if (found || tq_pk_children(p, p->top[3], &list, &count) != TQ_OK)
        return found;
    for (uint32_t i = 0; i + 1 < count && !found; i += 2) {
        if (tq_pk_decode(p, list[i], &key) == TQ_OK && key.kind == TQ_PK_STR &&
            tq_span_is(key.bytes, "item")) {
            *ret_item = list[i + 1];
            found = true;
        }
    }
    tq_free(list);
    return found;
}

static struct tq_body *read_item(bool *ret_end, const char **ret_why)
{
    struct tq_pickle p;
    struct tq_pk_range item;
    struct tq_body *body = NULL;
    uint8_t *data;
    size_t len;
    int rv;

    *ret_end = !read_record(&data, &len);
    if (*ret_end)
        return NULL;
    rv = tq_pickle_scan(&p, tq_span(data, len), ret_why);
    if (rv == TQ_OK) {
        *ret_why = "no item";
        if (find_item(&p, &item)) {
            rv = tq_item_from_request(&p, item, &body);
            *ret_why = tq_strerror(rv);
        }
        tq_pickle_deinit(&p);
    }
    free(data);
    return body;
}

static void run_items(void)
{
    for (;;) {
        const char *why = "";
        bool end;
        struct tq_body *body = read_item(&end, &why);

        if (end)
            return;
        if (body == NULL) {
            write_record('X', why, strlen(why));
            continue;
        }
        if (tq_load_be32(body->data) != body->len - 4)
            die("the length in front of a reply is wrong");
        write_record('R', body->data + 4, body->len - 4);
        tq_body_unref(body);
    }
}

static void run_less(void)
{
    for (;;) {
        char text[TQ_ITEM_TEXT_MAX];
        const char *why = "";
        bool end, less = false;
        struct tq_body *a = read_item(&end, &why);
        struct tq_body *b;
        int rv;

        if (end)
            return;
        b = read_item(&end, &why);
        if (a == NULL || b == NULL)
            die(why);
        rv = tq_item_less(a, b, &less, text);
        if (rv < 0)
            die(tq_strerror(rv));
        if (rv > 0)
            write_record('T', text, strlen(text));
        else
            write_record(less ? '<' : '-', "", 0);
        tq_body_unref(a);
        tq_body_unref(b);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "items") == 0)
        run_items();
    else if (argc == 2 && strcmp(argv[1], "less") == 0)
        run_less();
    else
        die("say items or less");
    return fflush(stdout) == 0 ? 0 : 1;
}
