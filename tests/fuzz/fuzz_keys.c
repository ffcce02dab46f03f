/* A keys file, and what its keys may do. Byte 0: flags; the rest: the file's text. */
#include <fnmatch.h>

#include "common/mem.h"
#include "master/access/keys.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WITH_AUTHKEY = 1, NO_MEMORY = 2 };

static const char *const queues[] = {"task_queue", "result_queue", "mail", "mail-2", "a", "Z.9_-x"};

static int read_secret(void *ctx, const char *path, uint8_t **ret, size_t *ret_len, char err[KEYS_ERROR_MAX])
{
    size_t n = strlen(path);

    (void)ctx;
    if (path[0] == '?') {
        snprintf(err, KEYS_ERROR_MAX, "it cannot be read");
        return TQ_EIO;
    }
    *ret = tq_malloc(n);
    if (*ret == NULL) {
        snprintf(err, KEYS_ERROR_MAX, "out of memory");
        return TQ_ENOMEM;
    }
    memcpy(*ret, path, n);
    *ret_len = n;
    return TQ_OK;
}

/* fnmatch may take exponential time: only patterns with few stars are compared. */
static bool few_stars(const char *list)
{
    unsigned stars = 0;

    for (; *list != '\0'; list++)
        stars += *list == '*';
    return stars <= 4;
}

static bool in_list(const char *list, const char *queue)
{
    char copy[KEYS_LIST_MAX + 1];
    char *rest = copy;
    char *pattern;

    TQ_ASSERT(strlen(list) <= KEYS_LIST_MAX);
    memcpy(copy, list, strlen(list) + 1);
    while ((pattern = strsep(&rest, ",")) != NULL) {
        if (*list != '\0' && fnmatch(pattern, queue, 0) == 0)
            return true;
    }
    return false;
}

static void check_rights(const struct key *key)
{
    unsigned alone = keys_rights(key, NULL, false);

    TQ_ASSERT(key->role == KEY_ADMIN || (alone & KEY_STOP) == 0);
    for (size_t i = 0; i < sizeof(queues) / sizeof(queues[0]); i++) {
        unsigned got = keys_rights(key, queues[i], false);

        if (key->role == KEY_ADMIN) {
            TQ_ASSERT(got == KEY_ALL);
            continue;
        }
        TQ_ASSERT((got & (KEY_MANAGE | KEY_STOP)) == 0 && (got & KEY_REFER) != 0);
        if (key->role == KEY_OBSERVER) {
            TQ_ASSERT((got & (KEY_PUT | KEY_GET)) == 0 && (got & KEY_LOOK) != 0 && (got & KEY_INSPECT) != 0);
            continue;
        }
        TQ_ASSERT(((got & KEY_INSPECT) != 0) == ((got & KEY_GET) != 0));
        TQ_ASSERT(((got & KEY_MAKE) != 0) == ((got & KEY_GET) != 0));
        TQ_ASSERT(((got & KEY_LOOK) != 0) == ((got & (KEY_PUT | KEY_GET)) != 0));
        if (few_stars(key->put))
            TQ_ASSERT(((got & KEY_PUT) != 0) == in_list(key->put, queues[i]));
        if (few_stars(key->get))
            TQ_ASSERT(((got & KEY_GET) != 0) == in_list(key->get, queues[i]));
    }
}

static void check_keys(const struct keys *k, size_t before)
{
    TQ_ASSERT(k->count > before && k->count <= KEYS_MAX);
    for (size_t i = 0; i < k->count; i++) {
        const struct key *key = &k->list[i];

        TQ_ASSERT(key->name[0] != '\0' && strlen(key->name) <= KEYS_NAME_MAX);
        TQ_ASSERT(key->secret_len >= 1 && key->secret_len <= TQ_AUTHKEY_MAX_BYTES);
        TQ_ASSERT((strcmp(key->name, KEYS_AUTHKEY_NAME) == 0) == (i < before));
        for (size_t j = 0; j < i && i < 100; j++)
            TQ_ASSERT(strcmp(key->name, k->list[j].name) != 0);
        check_rights(key);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keys k;
    struct keys again;
    char err[KEYS_ERROR_MAX] = "";
    size_t moved[KEYS_MAX];
    size_t before;
    uint8_t *text;
    unsigned line;
    int rv;

    if (size < 1)
        return 0;
    text = malloc(size); /* of its own, so that a read behind it is noticed */
    TQ_ASSERT(text != NULL);
    memcpy(text, data + 1, size - 1);
    keys_init(&k);
    keys_init(&again);
    if (data[0] & WITH_AUTHKEY)
        TQ_ASSERT(keys_add(&k, KEYS_AUTHKEY_NAME, KEY_ADMIN, tq_span_str("abc"), NULL, NULL, err) == TQ_OK);
    before = k.count;
    if (data[0] & NO_MEMORY)
        tq_mem_fail_after(data[0] >> 2, 1);
    rv = keys_parse(&k, tq_span(text, size - 1), read_secret, NULL, &line, err);
    tq_mem_fail_after(-1, 0);
    TQ_ASSERT(rv == TQ_OK || rv == TQ_EINVAL || rv == TQ_EIO || rv == TQ_ENOMEM);
    TQ_ASSERT((rv == TQ_OK) == (err[0] == '\0') && strchr(err, '\n') == NULL);
    if (rv == TQ_OK) {
        check_keys(&k, before);
        TQ_ASSERT(keys_seal(&k) == TQ_OK);
        TQ_ASSERT(keys_parse(&again, tq_span(text, size - 1), read_secret, NULL, &line, err) == TQ_OK);
        keys_moved(&again, &k, moved);
        for (size_t i = 0; i < again.count; i++)
            TQ_ASSERT(moved[i] == i + before && keys_same_rights(&again.list[i], &k.list[moved[i]]));
    }
    keys_deinit(&again);
    keys_deinit(&k);
    free(text);
    return 0;
}
