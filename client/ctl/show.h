/* What a master answers, for people and as JSON. */
#ifndef CLIENT_CTL_SHOW_H
#define CLIENT_CTL_SHOW_H

#include <jansson.h>

#include "client/ctl/ctl.h"

/* A walked msgpack value; text that is no UTF-8 with its bytes escaped, bin as hexadecimal digits. NULL: out
 * of memory. */
json_t *show_value(struct tq_span value);
/* One line of JSON. */
void show_json(const json_t *v);
/* Names and values, one a line, aligned; maps within it are told as "outer.inner". */
void show_fields(const json_t *map);

/* A table: numbers to the right, the rest to the left. */
struct show_column {
    const char *head;
    const char *field;
};
void show_table(const struct show_column *columns, size_t count, const json_t *rows);

/* "12.3 MiB" */
const char *show_bytes(char out[32], uint64_t n);

#endif
