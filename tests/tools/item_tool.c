/* Items from requests, and comparisons of items, for Python to check.
 *
 *   item_tool items  stdin: requests, each with 4 bytes of length (big-endian); for each one on stdout a
 *                    letter, 4 bytes of length, and: R the pickle of the reply, X why there is none.
 *   item_tool less   the same with pairs of requests: < or - (without bytes), or T and the TypeError's text.
 *
 * A request is what a manager's client sends for put: (ident, method, args, kwds). */
#include "tests/tools/records.h"

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
