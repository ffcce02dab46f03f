#include "client/ctl/show.h"

#include <inttypes.h>

#include "common/log.h"
#include "common/mem.h"

#define COLUMNS_MAX 16
#define TEXT_MAX    256

const char *show_bytes(char out[32], uint64_t n)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    size_t u = 0;

    while (v >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
        v /= 1024;
        u++;
    }
    snprintf(out, 32, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
    return out;
}

/* ---- msgpack to JSON ---- */

static json_t *of_text(struct tq_span s)
{
    json_t *v = json_stringn((const char *)s.data, s.len);
    char *text;
    size_t room;

    if (v != NULL)
        return v;
    room = s.len * 4 + 4; /* each byte as \xNN at most */
    text = tq_malloc(room);
    if (text == NULL)
        return NULL;
    v = json_string(tq_log_quote(text, room, s.data, s.len));
    tq_free(text);
    return v;
}

static json_t *of_bin(struct tq_span s)
{
    char *hex = tq_malloc(s.len * 2 + 1);
    json_t *v;

    if (hex == NULL)
        return NULL;
    for (size_t i = 0; i < s.len; i++)
        snprintf(hex + i * 2, 3, "%02x", s.data[i]);
    v = json_stringn(hex, s.len * 2);
    tq_free(hex);
    return v;
}

/* What is no container. */
static json_t *of_scalar(struct tq_mp *m)
{
    struct tq_span s = {0};
    int8_t type;
    uint64_t u;
    int64_t i;
    double d;
    bool b;

    if (tq_mp_str(m, &s))
        return of_text(s);
    if (tq_mp_i64(m, &i))
        return json_integer(i);
    if (tq_mp_u64(m, &u))
        return json_real((double)u); /* above what JSON's readers keep whole anyway */
    if (tq_mp_bool(m, &b))
        return json_boolean(b);
    if (tq_mp_float(m, &d)) {
        json_t *v = json_real(d);

        return v != NULL ? v : json_null(); /* JSON has no infinities */
    }
    if (tq_mp_bin(m, &s) || tq_mp_ext(m, &type, &s))
        return of_bin(s);
    (void)tq_mp_skip(m);
    return json_null();
}

struct level {
    json_t *container; /* borrowed: it is in the one around it, or the root */
    uint32_t left;
};

/* Puts v (whose reference is taken) where it belongs; a map's key is read from m by the caller. */
static bool add(struct level *at, struct tq_span key, json_t *v)
{
    char name[TEXT_MAX];

    if (v == NULL)
        return false;
    if (json_is_array(at->container))
        return json_array_append_new(at->container, v) == 0;
    tq_log_quote(name, sizeof(name), key.data, key.len);
    return json_object_set_new(at->container, name, v) == 0;
}

static json_t *open_container(struct tq_mp *m, uint32_t *ret_count)
{
    if (tq_mp_map(m, ret_count))
        return json_object();
    if (tq_mp_array(m, ret_count))
        return json_array();
    return NULL;
}

static bool is_container(const struct tq_mp *m)
{
    return tq_mp_peek(m) == TQ_MP_MAP || tq_mp_peek(m) == TQ_MP_ARRAY;
}

json_t *show_value(struct tq_span value)
{
    struct level stack[TQ_MP_DEPTH_MAX + 1];
    struct tq_mp m = tq_mp_of(value);
    size_t depth = 0;
    json_t *root;

    if (!is_container(&m))
        return of_scalar(&m);
    stack[0].container = root = open_container(&m, &stack[0].left);
    if (root == NULL)
        return NULL;
    for (;;) {
        struct level *at = &stack[depth];
        struct tq_span key = tq_span("", 0);
        struct level in;

        if (at->left == 0) {
            if (depth == 0)
                return root;
            depth--;
            continue;
        }
        at->left--;
        if (json_is_object(at->container) && !tq_mp_str(&m, &key) && !tq_mp_bin(&m, &key)) {
            (void)tq_mp_skip(&m);
            key = tq_span_str("?");
        }
        if (!is_container(&m)) {
            if (!add(at, key, of_scalar(&m)))
                break;
            continue;
        }
        in.container = open_container(&m, &in.left);
        if (depth == TQ_MP_DEPTH_MAX || !add(at, key, in.container))
            break;
        stack[++depth] = in;
    }
    json_decref(root);
    return NULL;
}

/* ---- printing ---- */

void show_json(const json_t *v)
{
    if (json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6)) == 0)
        putchar('\n');
}

static const char *text_of(const json_t *v, char out[TEXT_MAX])
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return tq_log_quote(out, TEXT_MAX, json_string_value(v), json_string_length(v));
    case JSON_INTEGER:
        snprintf(out, TEXT_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return out;
    case JSON_REAL:
        snprintf(out, TEXT_MAX, "%g", json_real_value(v));
        return out;
    case JSON_TRUE:
        return "yes";
    case JSON_FALSE:
        return "no";
    case JSON_NULL:
        return "-";
    default:
        return json_is_array(v) ? "[...]" : "{...}";
    }
}

static bool ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), t = strlen(tail);

    return n >= t && memcmp(s + n - t, tail, t) == 0;
}

static void field_line(const char *outer, const char *name, const json_t *v, int width)
{
    char text[TEXT_MAX], full[TEXT_MAX], bytes[32] = "";

    snprintf(full, sizeof(full), "%s%s%s", outer, outer[0] != '\0' ? "." : "", name);
    if (ends_in(name, "_bytes") && json_is_integer(v) && json_integer_value(v) >= 1024)
        show_bytes(bytes, (uint64_t)json_integer_value(v));
    printf("%-*s  %s%s%s%s\n", width, full, text_of(v, text), bytes[0] != '\0' ? "  (" : "", bytes,
           bytes[0] != '\0' ? ")" : "");
}

void show_fields(const json_t *map)
{
    const char *name, *inner;
    json_t *v, *of_inner;
    size_t width = 0;

    /* jansson's loops take no const */
    json_object_foreach((json_t *)(uintptr_t)map, name, v)
    {
        size_t n = strlen(name);

        json_object_foreach(v, inner, of_inner) if (n + 1 + strlen(inner) > width) width =
            n + 1 + strlen(inner);
        if (n > width && !json_is_object(v))
            width = n;
    }
    if (width > 40)
        width = 40;
    json_object_foreach((json_t *)(uintptr_t)map, name, v)
    {
        if (!json_is_object(v)) {
            field_line("", name, v, (int)width);
            continue;
        }
        json_object_foreach(v, inner, of_inner) field_line(name, inner, of_inner, (int)width);
    }
}

void show_table(const struct show_column *columns, size_t count, const json_t *rows)
{
    size_t width[COLUMNS_MAX];
    char text[TEXT_MAX];
    json_t *row;
    size_t i;

    if (count > COLUMNS_MAX)
        count = COLUMNS_MAX;
    for (size_t k = 0; k < count; k++)
        width[k] = strlen(columns[k].head);
    json_array_foreach(rows, i, row) for (size_t k = 0; k < count; k++)
    {
        const json_t *v = json_object_get(row, columns[k].field);
        size_t n = v != NULL ? strlen(text_of(v, text)) : 1;

        if (n > width[k])
            width[k] = n;
    }
    for (size_t k = 0; k < count; k++)
        printf(k == 0 ? "%-*s" : "  %*s", (int)width[k], columns[k].head);
    putchar('\n');
    json_array_foreach(rows, i, row)
    {
        for (size_t k = 0; k < count; k++) {
            const json_t *v = json_object_get(row, columns[k].field);

            printf(k == 0 ? "%-*s" : "  %*s", (int)width[k], v != NULL ? text_of(v, text) : "-");
        }
        putchar('\n');
    }
}
