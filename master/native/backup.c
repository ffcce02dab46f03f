/* backup: the host copies its log; whoever asked waits. */
#include "master/native/native_impl.h"

struct backup_fields {
    struct tq_span dir;
};

static const struct native_field backup_list[] = {
    NATIVE_FIELD(struct backup_fields, dir, FIELD_BYTES, .least = 1, .most = NATIVE_PATH_MAX),
};

static void reply(struct native_call *call, const struct native_backup *b)
{
    static const enum native_code codes[] = {
        [NATIVE_BACKUP_IMPOSSIBLE] = CODE_REFUSED,    [NATIVE_BACKUP_BUSY] = CODE_REFUSED,
        [NATIVE_BACKUP_EXISTS] = CODE_EXISTS,         [NATIVE_BACKUP_NO_SPACE] = CODE_NO_SPACE,
        [NATIVE_BACKUP_PERMISSION] = CODE_PERMISSION, [NATIVE_BACKUP_FAILED] = CODE_IO,
    };
    struct native_out out;

    call->ended = true;
    if (b->end != NATIVE_BACKUP_GOOD) {
        native_reply_error(call->conn, call->msgid, codes[b->end], b->text);
        return;
    }
    out = native_reply_begin(call->conn, call->msgid);
    tq_mp_put_map(&out.o, 3);
    tq_mp_put_cstr(&out.o, "index");
    tq_mp_put_u64(&out.o, b->index);
    tq_mp_put_cstr(&out.o, "bytes");
    tq_mp_put_u64(&out.o, b->bytes);
    tq_mp_put_cstr(&out.o, "files");
    tq_mp_put_u64(&out.o, b->files);
    (void)native_out_end(&out);
}

static bool path_valid(struct tq_span dir, char ret[NATIVE_PATH_MAX + 1], struct native_bad *bad)
{
    if (dir.data[0] != '/' || memchr(dir.data, '\0', dir.len) != NULL)
        return native_bad(bad, CODE_BAD_REQUEST,
                          "dir must be an absolute path on the master's machine: begin it with /");
    memcpy(ret, dir.data, dir.len);
    ret[dir.len] = '\0';
    return true;
}

void native_request_backup(struct native_request *r)
{
    struct native_host *h = r->conn->native->host;
    struct backup_fields f = {0};
    char dir[NATIVE_PATH_MAX + 1];
    struct native_backup b = {0};
    struct native_call call;
    struct native_bad bad;
    uint32_t said;

    if (!native_params(&r->params, &NATIVE_FIELDS(backup_list), &f, &said, &bad) ||
        (said == 0 && !native_bad(&bad, CODE_BAD_REQUEST, "dir is missing: a folder for the copy")) ||
        !native_may_backup(r->conn, &bad) || !path_valid(f.dir, dir, &bad) ||
        !native_call_may_wait(r->conn, &bad)) {
        native_bad_reply(r, &bad);
        return;
    }
    if (native_call_begin(&call, r->conn, r->msgid, NATIVE_BACKUP) != TQ_OK) {
        native_reply_error(r->conn, r->msgid, CODE_MEMORY, NATIVE_NO_MEMORY);
        return;
    }
    h->backup(h->ctx, call.token, dir, &b);
    if (b.end != NATIVE_BACKUP_GOOD)
        reply(&call, &b);
    (void)native_call_settle(&call);
}

bool native_may_backup(struct native_conn *c, struct native_bad *bad)
{
    return native_may(c, KEY_STOP, "backup", NULL, bad);
}

void native_backup_done(struct native *n, uint64_t token, const struct native_backup *b)
{
    struct native_call *call = native_call_by_token(n, token);

    if (call == NULL) /* its connection has gone, or it does not wait any more */
        return;
    reply(call, b);
    native_call_free(call);
}
