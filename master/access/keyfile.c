#include "master/access/keyfile.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"

#define SHOWN_PATH_MAX 100

struct reading {
    const char *keys_file;
    bool again;
};

static void wipe(uint8_t *bytes, size_t len)
{
    if (bytes != NULL)
        explicit_bzero(bytes, len);
    tq_free(bytes);
}

static int read_file(struct tq_opt_secret_file kind, const char *path, bool again, uint8_t **ret,
                     size_t *ret_len, char err[TQ_OPT_ERROR_MAX])
{
    char warn[TQ_OPT_ERROR_MAX];
    int rv;

    kind.regular_only = again;
    rv = tq_opt_read_secret_file(&kind, path, ret, ret_len, err, warn);
    if (rv == TQ_OK && warn[0] != '\0')
        tq_log(TQ_LOG_WARN, "KEYS-FILE", "%s", warn);
    return rv;
}

/* A secret of its own file: a relative path starts where the keys file is. */
static int read_secret(void *ctx, const char *path, uint8_t **ret_secret, size_t *ret_len,
                       char err[KEYS_ERROR_MAX])
{
    const struct reading *r = ctx;
    const char *slash = strrchr(r->keys_file, '/');
    size_t folder = path[0] == '/' || slash == NULL ? 0 : (size_t)(slash - r->keys_file) + 1;
    char *whole = tq_malloc(folder + strlen(path) + 1);
    int rv;

    if (whole == NULL) {
        snprintf(err, KEYS_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    memcpy(whole, r->keys_file, folder);
    memcpy(whole + folder, path, strlen(path) + 1);
    rv = read_file(tq_opt_key_file, whole, r->again, ret_secret, ret_len, err);
    tq_free(whole);
    return rv;
}

static int load_keys_file(struct keys *k, const char *path, bool again, char err[TQ_OPT_ERROR_MAX])
{
    static const struct tq_opt_secret_file kind = {.what = "keys file",
                                                   .hint = "write NAME ROLE SECRET, one key a line",
                                                   .max_bytes = KEYS_FILE_MAX_SIZE};
    struct reading reading = {.keys_file = path, .again = again};
    char shown[SHOWN_PATH_MAX];
    char why[KEYS_ERROR_MAX];
    uint8_t *text = NULL;
    size_t len = 0;
    unsigned line;
    int rv = read_file(kind, path, again, &text, &len, err);

    if (rv != TQ_OK)
        return rv;
    rv = keys_parse(k, tq_span(text, len), read_secret, &reading, &line, why);
    wipe(text, len);
    if (rv == TQ_OK)
        return TQ_OK;
    tq_log_quote(shown, sizeof(shown), path, strlen(path));
    if (snprintf(err, TQ_OPT_ERROR_MAX, "%s:%u: %s", shown, line, why) >= TQ_OPT_ERROR_MAX)
        memcpy(err + TQ_OPT_ERROR_MAX - 4, "...", 4);
    return rv;
}

static int add_authkey(struct keys *k, struct tq_span secret, char err[TQ_OPT_ERROR_MAX])
{
    return keys_add(k, KEYS_AUTHKEY_NAME, KEY_ADMIN, secret, NULL, NULL, err);
}

int keyfile_load(struct keys *k, const struct config *c, bool again, char err[TQ_OPT_ERROR_MAX])
{
    int rv = TQ_OK;

    keys_init(k);
    if (again && c->authkey_file != NULL) {
        uint8_t *secret = NULL;
        size_t len = 0;

        rv = read_file(tq_opt_key_file, c->authkey_file, true, &secret, &len, err);
        if (rv == TQ_OK)
            rv = add_authkey(k, tq_span(secret, len), err);
        wipe(secret, len);
    } else if (c->authkey_len > 0 || c->keys_file == NULL) {
        rv = add_authkey(k, tq_span(c->authkey, c->authkey_len), err);
    }
    if (rv == TQ_OK && c->keys_file != NULL)
        rv = load_keys_file(k, c->keys_file, again, err);
    if (rv == TQ_OK && (rv = keys_seal(k)) != TQ_OK)
        snprintf(err, TQ_OPT_ERROR_MAX, "out of memory");
    return rv;
}
