#include "proto/native/client.h"

#include "common/err.h"

enum { REQUEST = 0, REPLY = 1, NOTICE = 2 };

/* ---- requests ---- */

void tq_native_request_begin(struct tq_native_request *r, struct tq_buf *out, uint32_t msgid,
                             const char *method, uint32_t pairs)
{
    r->o = tq_mp_out(out);
    tq_mp_frame_begin(&r->o, &r->start);
    tq_mp_put_array(&r->o, 4);
    tq_mp_put_u64(&r->o, REQUEST);
    tq_mp_put_u64(&r->o, msgid);
    tq_mp_put_cstr(&r->o, method);
    tq_mp_put_map(&r->o, pairs);
}

void tq_native_notice_begin(struct tq_native_request *r, struct tq_buf *out, const char *method,
                            uint32_t pairs)
{
    r->o = tq_mp_out(out);
    tq_mp_frame_begin(&r->o, &r->start);
    tq_mp_put_array(&r->o, 3);
    tq_mp_put_u64(&r->o, NOTICE);
    tq_mp_put_cstr(&r->o, method);
    tq_mp_put_map(&r->o, pairs);
}

int tq_native_request_end(struct tq_native_request *r)
{
    return tq_mp_frame_end(&r->o, r->start);
}

int tq_native_put_plain(struct tq_buf *out, uint32_t msgid, const char *method)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, method, 0);
    return tq_native_request_end(&r);
}

static void field_str(struct tq_mp_out *o, const char *name, struct tq_span text)
{
    if (text.len == 0)
        return;
    tq_mp_put_cstr(o, name);
    tq_mp_put_str(o, text);
}

static void field_u64(struct tq_mp_out *o, const char *name, uint64_t v)
{
    tq_mp_put_cstr(o, name);
    tq_mp_put_u64(o, v);
}

static void field_wait(struct tq_mp_out *o, int64_t wait_ms)
{
    tq_mp_put_cstr(o, "wait_ms");
    tq_mp_put_i64(o, wait_ms);
}

static void field_leases(struct tq_mp_out *o, const struct tq_native_lease *leases, uint32_t count)
{
    tq_mp_put_cstr(o, "leases");
    tq_mp_put_array(o, count);
    for (uint32_t i = 0; i < count; i++) {
        tq_mp_put_array(o, 2);
        tq_mp_put_u64(o, leases[i].id);
        tq_mp_put_u64(o, leases[i].epoch);
    }
}

int tq_native_put_hello(struct tq_buf *out, uint32_t msgid, const struct tq_native_hello *h)
{
    struct tq_span client = h->client;
    struct tq_native_request r;

    if (client.len > TQ_NATIVE_CLIENT_MAX)
        client.len = TQ_NATIVE_CLIENT_MAX;
    tq_native_request_begin(&r, out, msgid, "hello",
                            1u + (client.len > 0) + (h->worker.len > 0) + (h->token.len > 0 ? 2u : 0) +
                                (h->heartbeat_ms > 0));
    field_u64(&r.o, "version", TQ_NATIVE_VERSION);
    field_str(&r.o, "client", client);
    field_str(&r.o, "worker", h->worker);
    if (h->token.len > 0) {
        tq_mp_put_cstr(&r.o, "token");
        tq_mp_put_bin(&r.o, h->token);
        field_leases(&r.o, h->leases, h->lease_count);
    }
    if (h->heartbeat_ms > 0)
        field_u64(&r.o, "heartbeat_ms", h->heartbeat_ms);
    return tq_native_request_end(&r);
}

static void put_options(struct tq_mp_out *o, const struct tq_native_options *t)
{
    tq_mp_put_map(o, 0u + (t->key.len > 0) + t->has_priority + (t->delay_ms > 0) + (t->ttl_ms > 0) +
                         (t->max_attempts > 0) + (t->result.len > 0 || t->no_result) + t->has_retention +
                         (t->trace.len > 0));
    field_str(o, "key", t->key);
    if (t->has_priority) {
        tq_mp_put_cstr(o, "priority");
        tq_mp_put_i64(o, t->priority);
    }
    if (t->delay_ms > 0)
        field_u64(o, "delay_ms", t->delay_ms);
    if (t->ttl_ms > 0)
        field_u64(o, "ttl_ms", t->ttl_ms);
    if (t->max_attempts > 0)
        field_u64(o, "max_attempts", t->max_attempts);
    if (t->no_result) {
        tq_mp_put_cstr(o, "result");
        tq_mp_put_nil(o);
    } else {
        field_str(o, "result", t->result);
    }
    if (t->has_retention)
        field_u64(o, "retention_ms", t->retention_ms);
    field_str(o, "trace", t->trace);
}

int tq_native_put_tasks(struct tq_buf *out, uint32_t msgid, struct tq_span q,
                        const struct tq_native_new_task *tasks, uint32_t count,
                        const struct tq_native_options *opts, int64_t wait_ms)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "put", 2u + (opts != NULL) + (wait_ms != 0));
    tq_mp_put_cstr(&r.o, "q");
    tq_mp_put_str(&r.o, q);
    tq_mp_put_cstr(&r.o, "tasks");
    tq_mp_put_array(&r.o, count);
    for (uint32_t i = 0; i < count; i++) {
        tq_mp_put_array(&r.o, tasks[i].options != NULL ? 2 : 1);
        tq_mp_put_raw(&r.o, tasks[i].body);
        if (tasks[i].options != NULL)
            put_options(&r.o, tasks[i].options);
    }
    if (opts != NULL) {
        tq_mp_put_cstr(&r.o, "opts");
        put_options(&r.o, opts);
    }
    if (wait_ms != 0)
        field_wait(&r.o, wait_ms);
    return tq_native_request_end(&r);
}

static uint32_t get_pairs(const struct tq_native_get *get)
{
    return 2u + (get->wait_ms != 0) + get->take;
}

static void put_get_fields(struct tq_mp_out *o, const struct tq_native_get *get)
{
    tq_mp_put_cstr(o, "q");
    tq_mp_put_str(o, get->q);
    field_u64(o, "max", get->max);
    if (get->wait_ms != 0)
        field_wait(o, get->wait_ms);
    if (get->take) {
        tq_mp_put_cstr(o, "take");
        tq_mp_put_bool(o, true);
    }
}

int tq_native_put_get(struct tq_buf *out, uint32_t msgid, const struct tq_native_get *get)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "get", get_pairs(get));
    put_get_fields(&r.o, get);
    return tq_native_request_end(&r);
}

static void put_failure(struct tq_mp_out *o, const struct tq_native_end *end)
{
    struct tq_span error = end->error;

    if (error.len > TQ_NATIVE_ERROR_MAX) {
        error.len = TQ_NATIVE_ERROR_MAX;
        while (error.len > TQ_NATIVE_ERROR_MAX - 4 && (error.data[error.len] & 0xc0) == 0x80)
            error.len--;
    }
    tq_mp_put_array(o, 3);
    tq_mp_put_u64(o, end->lease.id);
    tq_mp_put_u64(o, end->lease.epoch);
    tq_mp_put_map(o, 0u + (error.len > 0) + (end->code != 0) + end->final + end->has_delay);
    field_str(o, "error", error);
    if (end->code != 0) {
        tq_mp_put_cstr(o, "code");
        tq_mp_put_i64(o, end->code);
    }
    if (end->final) {
        tq_mp_put_cstr(o, "final");
        tq_mp_put_bool(o, true);
    }
    if (end->has_delay)
        field_u64(o, "delay_ms", end->delay_ms);
}

static void put_success(struct tq_mp_out *o, const struct tq_native_end *end)
{
    tq_mp_put_array(o, end->value.len > 0 ? 3 : 2);
    tq_mp_put_u64(o, end->lease.id);
    tq_mp_put_u64(o, end->lease.epoch);
    if (end->value.len > 0)
        tq_mp_put_raw(o, end->value);
}

int tq_native_put_done(struct tq_buf *out, uint32_t msgid, const struct tq_native_end *ends, uint32_t count,
                       struct tq_span to, bool to_last, const struct tq_native_get *get)
{
    struct tq_native_request r;
    uint32_t failed = 0;

    for (uint32_t i = 0; i < count; i++)
        failed += ends[i].failed;
    tq_native_request_begin(&r, out, msgid, "done", 1u + (failed > 0) + (to.len > 0) + (get != NULL));
    tq_mp_put_cstr(&r.o, "done");
    tq_mp_put_array(&r.o, count - failed);
    for (uint32_t i = 0; i < count; i++)
        if (!ends[i].failed)
            put_success(&r.o, &ends[i]);
    if (failed > 0) {
        tq_mp_put_cstr(&r.o, "fail");
        tq_mp_put_array(&r.o, failed);
    }
    for (uint32_t i = 0; i < count; i++)
        if (ends[i].failed)
            put_failure(&r.o, &ends[i]);
    field_str(&r.o, to_last ? "or_to" : "to", to);
    if (get != NULL) {
        tq_mp_put_cstr(&r.o, "get");
        tq_mp_put_map(&r.o, get_pairs(get));
        put_get_fields(&r.o, get);
    }
    return tq_native_request_end(&r);
}

int tq_native_put_extend(struct tq_buf *out, uint32_t msgid, const struct tq_native_lease *leases,
                         uint32_t count, uint64_t ms)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "extend", 1u + (ms > 0));
    field_leases(&r.o, leases, count);
    if (ms > 0)
        field_u64(&r.o, "ms", ms);
    return tq_native_request_end(&r);
}

int tq_native_put_release(struct tq_buf *out, uint32_t msgid, const struct tq_native_lease *leases,
                          uint32_t count)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "release", 1);
    field_leases(&r.o, leases, count);
    return tq_native_request_end(&r);
}

int tq_native_put_cancel(struct tq_buf *out, uint32_t call)
{
    struct tq_native_request r;

    tq_native_notice_begin(&r, out, "cancel", 1);
    field_u64(&r.o, "call", call);
    return tq_native_request_end(&r);
}

int tq_native_put_wait(struct tq_buf *out, uint32_t msgid, uint64_t id, int64_t wait_ms)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "wait", 2);
    field_u64(&r.o, "id", id);
    field_wait(&r.o, wait_ms);
    return tq_native_request_end(&r);
}

int tq_native_put_wait_key(struct tq_buf *out, uint32_t msgid, struct tq_span q, struct tq_span key,
                           int64_t wait_ms)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "wait", 3);
    tq_mp_put_cstr(&r.o, "q");
    tq_mp_put_str(&r.o, q);
    tq_mp_put_cstr(&r.o, "key");
    tq_mp_put_str(&r.o, key);
    field_wait(&r.o, wait_ms);
    return tq_native_request_end(&r);
}

int tq_native_put_join(struct tq_buf *out, uint32_t msgid, struct tq_span q, int64_t wait_ms)
{
    struct tq_native_request r;

    tq_native_request_begin(&r, out, msgid, "join", 2);
    tq_mp_put_cstr(&r.o, "q");
    tq_mp_put_str(&r.o, q);
    field_wait(&r.o, wait_ms);
    return tq_native_request_end(&r);
}

/* ---- values of fields ---- */

static int bad(const char **ret_why, const char *why)
{
    *ret_why = why;
    return TQ_EPROTO;
}

static bool read_text(struct tq_mp *c, struct tq_span *ret)
{
    return tq_mp_str(c, ret) || tq_mp_bin(c, ret);
}

static bool has(const struct tq_native_field *f)
{
    struct tq_mp c = tq_mp_of(f->value);

    return f->value.len > 0 && !tq_mp_nil(&c);
}

/* Each: true with the value, or with *ret untouched when the field is not there or nil. */
static bool text_field(const struct tq_native_field *f, struct tq_span *ret)
{
    struct tq_mp c = tq_mp_of(f->value);

    return !has(f) || read_text(&c, ret);
}

static bool u64_field(const struct tq_native_field *f, uint64_t *ret)
{
    struct tq_mp c = tq_mp_of(f->value);

    return !has(f) || tq_mp_u64(&c, ret);
}

static bool u32_field(const struct tq_native_field *f, uint32_t *ret)
{
    struct tq_mp c = tq_mp_of(f->value);

    return !has(f) || tq_mp_u32(&c, ret);
}

static bool bool_field(const struct tq_native_field *f, bool *ret)
{
    struct tq_mp c = tq_mp_of(f->value);

    return !has(f) || tq_mp_bool(&c, ret);
}

void tq_native_fields(struct tq_span body, struct tq_native_field *fields, size_t count)
{
    struct tq_mp c = tq_mp_of(body);
    struct tq_span key, value;
    uint32_t pairs = 0;

    for (size_t i = 0; i < count; i++)
        fields[i].value = tq_span(NULL, 0);
    if (!tq_mp_map(&c, &pairs))
        return;
    for (uint32_t n = 0; n < pairs; n++) {
        if (!read_text(&c, &key)) {
            key = tq_span(NULL, 0); /* of no field */
            (void)tq_mp_skip(&c);
        }
        if (!tq_mp_raw(&c, &value))
            return;
        for (size_t i = 0; i < count; i++)
            if (tq_span_is(key, fields[i].name))
                fields[i].value = value;
    }
}

/* ---- lists ---- */

static bool read_lease(struct tq_mp *c, struct tq_native_lease *ret)
{
    uint32_t count;

    if (!tq_mp_array(c, &count) || count < 2 || !tq_mp_u64(c, &ret->id) || !tq_mp_u64(c, &ret->epoch))
        return false;
    for (uint32_t i = 2; i < count; i++)
        if (!tq_mp_skip(c))
            return false;
    return true;
}

static bool read_refusal(struct tq_mp *c, struct tq_native_refusal *ret)
{
    uint32_t count;

    if (!tq_mp_array(c, &count) || count < 2 || !tq_mp_u64(c, &ret->id) || !read_text(c, &ret->code))
        return false;
    for (uint32_t i = 2; i < count; i++)
        if (!tq_mp_skip(c))
            return false;
    return true;
}

static bool read_info(struct tq_span info, struct tq_native_task *ret)
{
    enum { KEY, TRACE, ERROR, PRIORITY, EXPIRES };
    struct tq_native_field f[] = {[KEY] = {.name = "key"},
                                  [TRACE] = {.name = "trace"},
                                  [ERROR] = {.name = "error"},
                                  [PRIORITY] = {.name = "priority"},
                                  [EXPIRES] = {.name = "expires_ms"}};
    struct tq_mp c;
    int64_t priority = 0;

    tq_native_fields(info, f, sizeof(f) / sizeof(f[0]));
    c = tq_mp_of(f[PRIORITY].value);
    if (has(&f[PRIORITY]) && (!tq_mp_i64(&c, &priority) || priority < INT32_MIN || priority > INT32_MAX))
        return false;
    ret->priority = (int32_t)priority;
    return text_field(&f[KEY], &ret->key) && text_field(&f[TRACE], &ret->trace) &&
           text_field(&f[ERROR], &ret->error) && u64_field(&f[EXPIRES], &ret->expires_ms);
}

static bool read_task(struct tq_mp *c, struct tq_native_task *ret)
{
    struct tq_span info;
    struct tq_mp inside;
    uint32_t count;

    *ret = (struct tq_native_task){0};
    if (!tq_mp_array(c, &count) || count < 4 || !tq_mp_u64(c, &ret->lease.id) ||
        !tq_mp_u64(c, &ret->lease.epoch) || !tq_mp_u32(c, &ret->attempt) || !tq_mp_raw(c, &ret->body))
        return false;
    for (uint32_t i = 4; i < count; i++) {
        if (!tq_mp_raw(c, &info))
            return false;
        inside = tq_mp_of(info);
        if (i == 4 && !tq_mp_nil(&inside) && (tq_mp_peek(&inside) != TQ_MP_MAP || !read_info(info, ret)))
            return false;
    }
    return true;
}

bool tq_native_next_lease(struct tq_native_list *list, struct tq_native_lease *ret)
{
    if (list->left == 0)
        return false;
    list->left--;
    return read_lease(&list->at, ret);
}

bool tq_native_next_refusal(struct tq_native_list *list, struct tq_native_refusal *ret)
{
    if (list->left == 0)
        return false;
    list->left--;
    return read_refusal(&list->at, ret);
}

bool tq_native_next_task(struct tq_native_list *list, struct tq_native_task *ret)
{
    if (list->left == 0)
        return false;
    list->left--;
    return read_task(&list->at, ret);
}

enum entry { ENTRY_LEASE, ENTRY_REFUSAL, ENTRY_TASK };

/* An array whose entries are all good; or no such field, which is the empty list. */
static bool list_field(const struct tq_native_field *f, enum entry entry, struct tq_native_list *ret)
{
    struct tq_native_refusal refusal;
    struct tq_native_lease lease;
    struct tq_native_task task;
    struct tq_native_list list = {.at = tq_mp_of(f->value)};
    bool good = true;

    *ret = (struct tq_native_list){0};
    if (!has(f))
        return true;
    if (!tq_mp_array(&list.at, &list.left))
        return false;
    *ret = list;
    for (uint32_t n = list.left; n > 0 && good; n--)
        good = entry == ENTRY_LEASE     ? tq_native_next_lease(&list, &lease)
               : entry == ENTRY_REFUSAL ? tq_native_next_refusal(&list, &refusal)
                                        : tq_native_next_task(&list, &task);
    if (!good)
        *ret = (struct tq_native_list){0};
    return good;
}

/* ---- messages ---- */

static bool read_error(struct tq_mp *c, struct tq_native_message *m)
{
    uint32_t count;

    if (!tq_mp_array(c, &count) || count < 2 || !read_text(c, &m->code) || !read_text(c, &m->text))
        return false;
    for (uint32_t i = 2; i < count; i++)
        if (!tq_mp_skip(c))
            return false;
    return true;
}

static bool read_map(struct tq_mp *c, struct tq_span *ret)
{
    return tq_mp_peek(c) == TQ_MP_MAP && tq_mp_raw(c, ret);
}

static int read_reply(struct tq_native_message *m, struct tq_mp *c, const char **ret_why)
{
    if (!tq_mp_u32(c, &m->msgid))
        return bad(ret_why, "a reply whose msgid is none");
    if (tq_mp_nil(c)) {
        m->kind = TQ_NATIVE_RESULT;
        return read_map(c, &m->body) ? TQ_OK : bad(ret_why, "a result that is no map");
    }
    m->kind = TQ_NATIVE_ERROR;
    return read_error(c, m) ? TQ_OK : bad(ret_why, "an error that is not [code, text]");
}

static int read_notice(struct tq_native_message *m, struct tq_mp *c, const char **ret_why)
{
    uint32_t count;

    m->kind = TQ_NATIVE_NOTICE;
    if (!read_text(c, &m->method))
        return bad(ret_why, "a notification without a name");
    if (tq_mp_peek(c) == TQ_MP_ARRAY && (!tq_mp_array(c, &count) || count != 1))
        return bad(ret_why, "a notification's params are no map");
    return read_map(c, &m->body) ? TQ_OK : bad(ret_why, "a notification's params are no map");
}

int tq_native_read(struct tq_native_message *m, struct tq_span frame, const char **ret_why)
{
    struct tq_mp c = tq_mp_of(frame);
    uint64_t kind;
    uint32_t count;
    int rv = tq_mp_walk_all(frame, ret_why);

    *m = (struct tq_native_message){0};
    if (rv != TQ_OK)
        return rv;
    if (!tq_mp_array(&c, &count) || count == 0 || !tq_mp_u64(&c, &kind))
        return bad(ret_why, "no message");
    if (kind == REPLY && count == 4)
        return read_reply(m, &c, ret_why);
    if (kind == NOTICE && count == 3)
        return read_notice(m, &c, ret_why);
    return bad(ret_why, kind == REQUEST ? "a request, which a master does not send" : "no message");
}

int tq_native_read_welcome(struct tq_native_welcome *w, struct tq_span body, const char **ret_why)
{
    enum {
        VERSION,
        SERVER,
        KEY,
        ROLE,
        WORKER,
        NOW,
        FRAME,
        CALLS,
        BATCH,
        TOKEN,
        RESUMED,
        LEASES,
        BEAT,
        SILENT
    };
    struct tq_native_field f[] = {
        [VERSION] = {.name = "version"},
        [SERVER] = {.name = "server"},
        [KEY] = {.name = "key"},
        [ROLE] = {.name = "role"},
        [WORKER] = {.name = "worker"},
        [NOW] = {.name = "now_ms"},
        [FRAME] = {.name = "max_frame_bytes"},
        [CALLS] = {.name = "max_calls"},
        [BATCH] = {.name = "max_batch"},
        [TOKEN] = {.name = "token"},
        [RESUMED] = {.name = "resumed"},
        [LEASES] = {.name = "leases"},
        [BEAT] = {.name = "heartbeat_ms"},
        [SILENT] = {.name = "silent_ms"},
    };

    *w = (struct tq_native_welcome){.max_frame_bytes = UINT64_MAX, .max_calls = 1, .max_batch = 1};
    tq_native_fields(body, f, sizeof(f) / sizeof(f[0]));
    if (!u32_field(&f[VERSION], &w->version) || w->version == 0 || w->version > TQ_NATIVE_VERSION)
        return bad(ret_why, "hello: not a version that was offered");
    if (!text_field(&f[SERVER], &w->server) || !text_field(&f[KEY], &w->key) ||
        !text_field(&f[ROLE], &w->role) || !text_field(&f[WORKER], &w->worker))
        return bad(ret_why, "hello: a name that is no text");
    if (!u64_field(&f[FRAME], &w->max_frame_bytes) || w->max_frame_bytes == 0 ||
        !u32_field(&f[CALLS], &w->max_calls) || w->max_calls == 0 || !u32_field(&f[BATCH], &w->max_batch) ||
        w->max_batch == 0)
        return bad(ret_why, "hello: a limit that is none");
    if (!text_field(&f[TOKEN], &w->token) || (w->token.len != 0 && w->token.len != TQ_NATIVE_TOKEN_BYTES))
        return bad(ret_why, "hello: a token that is none");
    if (!u64_field(&f[NOW], &w->now_ms) || !u32_field(&f[BEAT], &w->heartbeat_ms) ||
        !u32_field(&f[SILENT], &w->silent_ms))
        return bad(ret_why, "hello: a time that is none");
    if (!bool_field(&f[RESUMED], &w->resumed) || !list_field(&f[LEASES], ENTRY_LEASE, &w->leases))
        return bad(ret_why, "hello: leases that are none");
    return TQ_OK;
}

int tq_native_read_answer(struct tq_native_answer *a, struct tq_span body, const char **ret_why)
{
    enum { OK, REFUSED, TASKS, GET_ERROR };
    struct tq_native_field f[] = {[OK] = {.name = "ok"},
                                  [REFUSED] = {.name = "refused"},
                                  [TASKS] = {.name = "tasks"},
                                  [GET_ERROR] = {.name = "get_error"}};
    struct tq_native_message error = {0};
    struct tq_mp c;

    *a = (struct tq_native_answer){0};
    tq_native_fields(body, f, sizeof(f) / sizeof(f[0]));
    if (!u64_field(&f[OK], &a->ok) || !list_field(&f[REFUSED], ENTRY_REFUSAL, &a->refused))
        return bad(ret_why, "a list of refusals that is none");
    if (!list_field(&f[TASKS], ENTRY_TASK, &a->tasks))
        return bad(ret_why, "a task that is none");
    c = tq_mp_of(f[GET_ERROR].value);
    if (has(&f[GET_ERROR]) && !read_error(&c, &error))
        return bad(ret_why, "an error that is not [code, text]");
    a->get_code = error.code;
    a->get_text = error.text;
    return TQ_OK;
}

int tq_native_read_lost(struct tq_native_list *leases, struct tq_span body, const char **ret_why)
{
    struct tq_native_field f = {.name = "leases"};

    tq_native_fields(body, &f, 1);
    return list_field(&f, ENTRY_LEASE, leases) ? TQ_OK : bad(ret_why, "lost leases that are none");
}

void tq_native_read_words(struct tq_span body, struct tq_span *ret_code, struct tq_span *ret_text)
{
    struct tq_native_field f[] = {{.name = "code"}, {.name = "text"}};

    tq_native_fields(body, f, 2);
    *ret_code = *ret_text = tq_span(NULL, 0);
    if (!text_field(&f[0], ret_code))
        *ret_code = tq_span(NULL, 0);
    if (!text_field(&f[1], ret_text))
        *ret_text = tq_span(NULL, 0);
}
