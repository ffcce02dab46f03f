/* Reading params: maps by tables of fields. What is wrong is said by the field's name. */
#include "master/native/native_impl.h"

#include <stdarg.h>
#include <stdio.h>

bool native_bad(struct native_bad *bad, enum native_code code, const char *fmt, ...)
{
    va_list ap;

    bad->code = code;
    va_start(ap, fmt);
    (void)vsnprintf(bad->text, sizeof(bad->text), fmt, ap);
    va_end(ap);
    return false;
}

void native_bad_reply(struct native_request *r, const struct native_bad *bad)
{
    if (!r->notification)
        native_reply_error(r->conn, r->msgid, bad->code, bad->text);
}

int native_field_find(const struct native_fields *f, struct tq_span name)
{
    for (unsigned i = 0; i < f->count; i++) {
        const struct native_field *field = &f->list[i];

        if (field->name_len == name.len && memcmp(field->name, name.data, name.len) == 0)
            return (int)i;
    }
    return -1;
}

static bool read_bytes(struct tq_mp *in, struct tq_span *ret)
{
    return tq_mp_str(in, ret) || tq_mp_bin(in, ret);
}

static bool out_of_range(const struct native_field *f, const char *what, struct native_bad *bad)
{
    return native_bad(bad, CODE_BAD_REQUEST, "%s%s%s must be %lld to %lld", what, *what ? "." : "", f->name,
                      (long long)f->least, (long long)f->most);
}

static bool wrong_type(const struct native_field *f, const char *what, const char *right,
                       struct native_bad *bad)
{
    return native_bad(bad, CODE_BAD_REQUEST, "%s%s%s must be %s", what, *what ? "." : "", f->name, right);
}

static bool read_raw(struct tq_mp *in, const struct native_field *f, void *at, bool last, const char *what,
                     struct native_bad *bad)
{
    enum tq_mp_type type = tq_mp_peek(in);

    if (f->type == FIELD_RAW)
        last = false; /* its end matters */
    if (f->type == FIELD_ARRAY && type != TQ_MP_ARRAY)
        return wrong_type(f, what, "an array", bad);
    if (f->type == FIELD_MAP && type != TQ_MP_MAP)
        return wrong_type(f, what, "a map", bad);
    if (last) { /* nothing is read behind it: no need to look for its end */
        *(struct tq_span *)at = tq_span(in->at, (size_t)(in->end - in->at));
        return true;
    }
    if (!tq_mp_raw(in, at))
        return wrong_type(f, what, "a value", bad);
    return true;
}

static bool read_number(struct tq_mp *in, const struct native_field *f, void *at, const char *what,
                        struct native_bad *bad)
{
    int64_t i = 0;
    uint64_t u = 0;

    if (f->type == FIELD_U64) {
        if (!tq_mp_u64(in, &u))
            return wrong_type(f, what, "a whole number from 0 on", bad);
        if (u > (uint64_t)f->most)
            return out_of_range(f, what, bad);
        memcpy(at, &u, sizeof(u));
        return true;
    }
    if (!tq_mp_i64(in, &i)) {
        if (tq_mp_peek(in) == TQ_MP_UINT)
            return out_of_range(f, what, bad);
        return wrong_type(f, what, "a whole number", bad);
    }
    if (i < f->least || i > f->most)
        return out_of_range(f, what, bad);
    if (f->type == FIELD_I64) {
        memcpy(at, &i, sizeof(i));
    } else {
        uint32_t small = (uint32_t)i;

        memcpy(at, &small, sizeof(small));
    }
    return true;
}

static bool read_field(struct tq_mp *in, const struct native_field *f, void *at, bool last, const char *what,
                       struct native_bad *bad)
{
    struct tq_span *span = at;

    switch ((enum native_field_type)f->type) {
    case FIELD_BOOL:
        return tq_mp_bool(in, at) || wrong_type(f, what, "true or false", bad);
    case FIELD_U32:
    case FIELD_U64:
    case FIELD_I64:
        return read_number(in, f, at, what, bad);
    case FIELD_BYTES:
        if (!read_bytes(in, span))
            return wrong_type(f, what, "a string", bad);
        if (span->len < (size_t)f->least || span->len > (size_t)f->most)
            return native_bad(bad, CODE_BAD_REQUEST, "%s%s%s must have %lld to %lld bytes, not %zu", what,
                              *what ? "." : "", f->name, (long long)f->least, (long long)f->most, span->len);
        return true;
    case FIELD_TEXT:
        return read_bytes(in, span) || wrong_type(f, what, "a string", bad);
    case FIELD_RAW:
    case FIELD_ARRAY:
    case FIELD_MAP:
        break;
    }
    return read_raw(in, f, at, last, what, bad);
}

static size_t size_of(const struct native_field *f)
{
    switch ((enum native_field_type)f->type) {
    case FIELD_BOOL:
        return sizeof(bool);
    case FIELD_U32:
        return sizeof(uint32_t);
    case FIELD_U64:
    case FIELD_I64:
        return sizeof(uint64_t);
    default:
        return sizeof(struct tq_span);
    }
}

bool native_parse_map(struct tq_mp *in, const struct native_fields *f, void *into, uint32_t *ret_said,
                      uint32_t *ret_nils, const char *what, struct native_bad *bad)
{
    uint32_t said = 0, nils = 0, pairs;

    if (!tq_mp_map(in, &pairs))
        return native_bad(bad, CODE_BAD_REQUEST, "%s must be a map", *what ? what : "params");
    for (uint32_t i = 0; i < pairs; i++) {
        struct tq_span name = {0};
        int at = -1;

        if (read_bytes(in, &name))
            at = native_field_find(f, name);
        else
            (void)tq_mp_skip(in);
        if (at < 0) {
            (void)tq_mp_skip(in);
            continue;
        }
        if ((f->list[at].nil || f->list[at].nil_said) && tq_mp_nil(in)) {
            memset((char *)into + f->list[at].offset, 0, size_of(&f->list[at]));
            said = f->list[at].nil ? said & ~(1u << at) : said | 1u << at;
            nils |= 1u << at;
            continue;
        }
        if (!read_field(in, &f->list[at], (char *)into + f->list[at].offset, *what == '\0' && i + 1 == pairs,
                        what, bad))
            return false;
        said |= 1u << at;
        nils &= ~(1u << at);
    }
    if (ret_said != NULL)
        *ret_said = said;
    if (ret_nils != NULL)
        *ret_nils = nils;
    return true;
}

bool native_params(struct tq_mp *in, const struct native_fields *f, void *into, uint32_t *ret_said,
                   struct native_bad *bad)
{
    uint32_t count;

    if (ret_said != NULL)
        *ret_said = 0;
    if (tq_mp_array(in, &count)) {
        if (count == 0)
            return true;
        if (count > 1)
            return native_bad(bad, CODE_BAD_REQUEST, "params must be a map, or an array of one map");
    }
    return native_parse_map(in, f, into, ret_said, NULL, "", bad);
}

bool native_name_valid(struct tq_span name)
{
    if (name.len == 0 || name.len > BROKER_QUEUE_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
              c == '_' || c == '-'))
            return false;
    }
    return true;
}

struct broker_queue *native_find_queue(struct native *n, struct tq_span name, const char *field,
                                       struct native_bad *bad)
{
    struct broker_queue *q;

    if (name.data == NULL) {
        (void)native_bad(bad, CODE_BAD_REQUEST, "%s is missing: the name of a queue", field);
        return NULL;
    }
    if (!native_name_valid(name)) {
        (void)native_bad(bad, CODE_BAD_REQUEST,
                         "%s: \"%s\" is no name of a queue: those have 1 to 200 of A-Z a-z 0-9 . _ -", field,
                         native_quote(name));
        return NULL;
    }
    q = broker_find(n->host->broker, name);
    if (q == NULL)
        (void)native_bad(bad, CODE_QUEUE_UNKNOWN,
                         "%s: there is no queue \"%s\": declare it, or start task-master with --queue", field,
                         native_quote(name));
    return q;
}

bool native_may(struct native_conn *c, unsigned any_of, const char *verb, const struct broker_queue *q,
                struct native_bad *bad)
{
    struct native_host *h = c->native->host;

    if (h->allowed(h->ctx, c, any_of, verb, q, tq_span(NULL, 0), bad->text))
        return true;
    bad->code = CODE_DENIED;
    return false;
}

const struct broker_queue *native_task_queue(const struct native *n, const struct broker_view *v)
{
    if (v->outcome != BROKER_OUTCOME_NONE && v->from != NULL && v->from[0] != '\0')
        return broker_find(n->host->broker, tq_span_str(v->from));
    return v->queue;
}

bool native_may_task(struct native_conn *c, unsigned any_of, const char *verb, const struct broker_view *v,
                     struct native_bad *bad)
{
    struct native_host *h = c->native->host;
    const struct broker_queue *q = native_task_queue(c->native, v);
    struct tq_span name = {0};

    if (q == NULL && v->from != NULL)
        name = tq_span_str(v->from);
    if (q == NULL && name.len == 0)
        any_of = KEY_MANAGE; /* nobody knows any more who might have been asked */
    if (h->allowed(h->ctx, c, any_of, verb, q, name, bad->text))
        return true;
    bad->code = CODE_DENIED;
    return false;
}

void native_wait_mode(int64_t wait_ms, enum broker_wait_mode *ret_mode, uint64_t *ret_ms)
{
    *ret_mode = wait_ms < 0 ? BROKER_WAIT_FOREVER : wait_ms == 0 ? BROKER_NO_WAIT : BROKER_WAIT_MS;
    *ret_ms = wait_ms > 0 ? (uint64_t)wait_ms : 0;
}
