/* What the tools that convert items share: records on stdin and stdout, and the item of a request. */
#ifndef TESTS_TOOLS_RECORDS_H
#define TESTS_TOOLS_RECORDS_H

#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/item.h"

static inline void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* False at the end of the input. */
static inline bool read_record(uint8_t **ret_data, size_t *ret_len)
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

static inline void write_record(char letter, const void *data, size_t len)
{
    uint8_t head[5] = {(uint8_t)letter};

    tq_store_be32(head + 1, (uint32_t)len);
    if (fwrite(head, 1, sizeof(head), stdout) != sizeof(head) || fwrite(data, 1, len, stdout) != len)
        die("cannot write");
}

/* The first positional argument, or the keyword argument `item`. */
static inline bool find_item(const struct tq_pickle *p, struct tq_pk_range *ret_item)
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

#endif
