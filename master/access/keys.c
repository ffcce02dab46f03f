#include "master/access/keys.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"

#define NAME_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

static const struct {
    const char *name;
    const char *put;
    const char *get;
} roles[KEY_ROLE_COUNT] = {
    [KEY_PRODUCER] = {"producer", "task_queue", "result_queue"},
    [KEY_WORKER] = {"worker", "result_queue", "task_queue"},
    [KEY_OBSERVER] = {"observer", "", ""},
    [KEY_ADMIN] = {"admin", "", ""},
};

const char *keys_role_name(enum key_role role)
{
    TQ_ASSERT((unsigned)role < KEY_ROLE_COUNT);
    return roles[role].name;
}

__attribute__((format(printf, 2, 3))) static int refuse(char err[KEYS_ERROR_MAX], const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, KEYS_ERROR_MAX, fmt, ap);
    va_end(ap);
    return TQ_EINVAL;
}

static int no_memory(char err[KEYS_ERROR_MAX])
{
    snprintf(err, KEYS_ERROR_MAX, "out of memory");
    return TQ_ENOMEM;
}

/* ---- the set ---- */

void keys_init(struct keys *k)
{
    *k = (struct keys){0};
}

static void wipe(uint8_t *secret, size_t len)
{
    if (secret != NULL)
        explicit_bzero(secret, len);
    tq_free(secret);
}

static void free_key(struct key *key)
{
    wipe(key->secret, key->secret_len);
    tq_free(key->put);
    tq_free(key->get);
    *key = (struct key){0};
}

void keys_deinit(struct keys *k)
{
    for (size_t i = 0; i < k->count; i++)
        free_key(&k->list[i]);
    tq_free(k->list);
    tq_free(k->auth);
    keys_init(k);
}

static bool same_secret(const struct key *key, struct tq_span secret)
{
    return tq_span_eq(tq_span(key->secret, key->secret_len), secret);
}

static int check_new(const struct keys *k, const char *name, struct tq_span secret, char err[KEYS_ERROR_MAX])
{
    for (size_t i = 0; i < k->count; i++) {
        const struct key *other = &k->list[i];

        if (strcmp(other->name, name) == 0)
            return refuse(err, "there is a key '%s' already: give this one another name", name);
        if (same_secret(other, secret))
            return refuse(err, "the keys '%s' and '%s' have the same secret: make another for one of them",
                          other->name, name);
    }
    if (k->count == KEYS_MAX)
        return refuse(err, "more than %d keys: give several programs the same one", KEYS_MAX);
    return TQ_OK;
}

int keys_add(struct keys *k, const char *name, enum key_role role, struct tq_span secret, const char *put,
             const char *get, char err[KEYS_ERROR_MAX])
{
    struct key *list;
    struct key key = {.role = role, .secret_len = secret.len};
    int rv = check_new(k, name, secret, err);

    if (rv != TQ_OK)
        return rv;
    TQ_ASSERT(strlen(name) <= KEYS_NAME_MAX && k->auth == NULL);
    snprintf(key.name, sizeof(key.name), "%s", name);
    key.secret = tq_malloc(secret.len > 0 ? secret.len : 1);
    key.put = tq_strdup(put != NULL ? put : roles[role].put);
    key.get = tq_strdup(get != NULL ? get : roles[role].get);
    list = key.secret != NULL && key.put != NULL && key.get != NULL
               ? tq_realloc(k->list, (k->count + 1) * sizeof(*list))
               : NULL;
    if (list == NULL) {
        key.secret_len = 0; /* nothing in it yet */
        free_key(&key);
        return no_memory(err);
    }
    if (secret.len > 0)
        memcpy(key.secret, secret.data, secret.len);
    list[k->count] = key;
    k->list = list;
    k->count++;
    return TQ_OK;
}

int keys_seal(struct keys *k)
{
    TQ_ASSERT(k->count > 0 && k->auth == NULL);
    k->auth = tq_malloc(k->count * sizeof(*k->auth));
    if (k->auth == NULL)
        return TQ_ENOMEM;
    for (size_t i = 0; i < k->count; i++)
        k->auth[i] = (struct tq_auth_key){.secret = tq_span(k->list[i].secret, k->list[i].secret_len),
                                          .name = k->list[i].name};
    return TQ_OK;
}

void keys_moved(const struct keys *old, const struct keys *now, size_t *ret_moved)
{
    for (size_t i = 0; i < old->count; i++) {
        const struct key *key = &old->list[i];

        ret_moved[i] = TQ_AUTH_KEY_GONE;
        for (size_t n = 0; n < now->count && ret_moved[i] == TQ_AUTH_KEY_GONE; n++) {
            size_t j = (i + n) % now->count; /* most stay where they are */

            if (strcmp(key->name, now->list[j].name) == 0 &&
                same_secret(key, tq_span(now->list[j].secret, now->list[j].secret_len)))
                ret_moved[i] = j;
        }
    }
}

bool keys_same_rights(const struct key *a, const struct key *b)
{
    return a->role == b->role && strcmp(a->put, b->put) == 0 && strcmp(a->get, b->get) == 0;
}

const struct key *keys_weakest(const struct keys *k)
{
    const struct key *weakest = NULL;

    for (size_t i = 0; i < k->count; i++) {
        const struct key *key = &k->list[i];

        if (key->secret_len < KEYS_STRONG_BYTES && (weakest == NULL || key->secret_len < weakest->secret_len))
            weakest = key;
    }
    return weakest;
}

/* ---- patterns ---- */

static bool in_class(const char *class, size_t n, char c)
{
    bool negated = n > 0 && (class[0] == '!' || class[0] == '^');
    bool hit = false;
    size_t i = negated ? 1 : 0;

    while (i < n) {
        if (i + 2 < n && class[i + 1] == '-') {
            hit = hit || (c >= class[i] && c <= class[i + 2]);
            i += 3;
        } else {
            hit = hit || c == class[i];
            i++;
        }
    }
    return hit != negated;
}

/* Index behind the element at p if it matches c, else 0. The element is none of the stars. */
static size_t match_element(const char *pattern, size_t n, size_t p, char c)
{
    const char *end;

    if (pattern[p] == '?' || pattern[p] == c)
        return p + 1;
    if (pattern[p] != '[')
        return 0;
    end = memchr(pattern + p, ']', n - p);
    if (end == NULL || !in_class(pattern + p + 1, (size_t)(end - pattern) - p - 1, c))
        return 0;
    return (size_t)(end - pattern) + 1;
}

/* Only the last star is tried again: one before it has matched as little as it can, and that is enough. */
bool keys_match(const char *pattern, size_t n, const char *name)
{
    const char *retry_name = NULL;
    size_t retry = 0;
    size_t p = 0;

    while (*name != '\0') {
        size_t behind;

        if (p < n && pattern[p] == '*') {
            retry = ++p;
            retry_name = name;
        } else if (p < n && (behind = match_element(pattern, n, p, *name)) > 0) {
            p = behind;
            name++;
        } else if (retry_name != NULL) {
            p = retry;
            name = ++retry_name;
        } else {
            return false;
        }
    }
    while (p < n && pattern[p] == '*')
        p++;
    return p == n;
}

static bool list_matches(const char *list, const char *name)
{
    while (*list != '\0') {
        size_t n = strcspn(list, ",");

        if (keys_match(list, n, name))
            return true;
        list += list[n] == ',' ? n + 1 : n;
    }
    return false;
}

unsigned keys_rights(const struct key *k, const char *queue, bool made)
{
    unsigned rights = KEY_REFER;

    if (k->role == KEY_ADMIN)
        return KEY_ALL;
    if (queue == NULL)
        return k->role == KEY_OBSERVER ? KEY_INSPECT : KEY_MAKE;
    if (k->role == KEY_OBSERVER) /* its debug_info shows the idents of made queues */
        return made ? KEY_LOOK | KEY_INSPECT : KEY_LOOK | KEY_INSPECT | KEY_REFER;
    if (made)
        return KEY_LOOK | KEY_PUT | KEY_GET | KEY_INSPECT | KEY_MANAGE | KEY_REFER;
    if (list_matches(k->put, queue))
        rights |= KEY_LOOK | KEY_PUT;
    if (list_matches(k->get, queue))
        rights |= KEY_LOOK | KEY_GET | KEY_INSPECT | KEY_MAKE;
    return rights;
}

/* ---- a file ---- */

/* The next word of a line; false at its end, or at a comment. */
static bool next_word(struct tq_span *rest, struct tq_span *ret)
{
    size_t i = 0;
    size_t n = 0;

    while (i < rest->len && (rest->data[i] == ' ' || rest->data[i] == '\t'))
        i++;
    while (i + n < rest->len && rest->data[i + n] != ' ' && rest->data[i + n] != '\t')
        n++;
    *ret = tq_span(rest->data + i, n);
    if (n == 0 || rest->data[i] == '#') {
        *rest = tq_span(rest->data + rest->len, 0);
        return false;
    }
    *rest = tq_span(rest->data + i + n, rest->len - i - n);
    return true;
}

static bool is_of(struct tq_span text, const char *allowed)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\0' || strchr(allowed, text.data[i]) == NULL)
            return false;
    }
    return true;
}

static bool begins(struct tq_span text, const char *with)
{
    size_t n = strlen(with);

    return text.len >= n && memcmp(text.data, with, n) == 0;
}

static int take_name(struct tq_span word, char name[KEYS_NAME_MAX + 1], char err[KEYS_ERROR_MAX])
{
    if (word.len > KEYS_NAME_MAX || !is_of(word, NAME_CHARS))
        return refuse(err,
                      "the line must begin with the key's name: 1 to %d of the characters A-Z a-z 0-9 . _ -",
                      KEYS_NAME_MAX);
    memcpy(name, word.data, word.len);
    name[word.len] = '\0';
    if (strcmp(name, KEYS_AUTHKEY_NAME) == 0)
        return refuse(err,
                      "the name '" KEYS_AUTHKEY_NAME "' is that of the key of --authkey-file: take another");
    return TQ_OK;
}

static int take_role(struct tq_span *rest, enum key_role *ret, char err[KEYS_ERROR_MAX])
{
    struct tq_span word;

    if (next_word(rest, &word)) {
        for (unsigned i = 0; i < KEY_ROLE_COUNT; i++) {
            if (tq_span_is(word, roles[i].name)) {
                *ret = (enum key_role)i;
                return TQ_OK;
            }
        }
    }
    return refuse(err,
                  "behind the name comes the role: producer, worker, observer or admin, then the secret");
}

/* Six bits, or negative. */
static int base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 section 4, with padding, and the bits that it leaves over zero: one text for one secret. */
static int decode_base64(struct tq_span text, uint8_t **ret, size_t *ret_len, char err[KEYS_ERROR_MAX])
{
    size_t pad = 0;
    uint8_t *out;
    size_t n = 0;
    uint32_t bits = 0;
    bool good = text.len % 4 == 0;

    while (good && pad < 2 && pad < text.len && text.data[text.len - 1 - pad] == '=')
        pad++;
    out = tq_malloc(text.len / 4 * 3 + 1);
    if (out == NULL)
        return no_memory(err);
    for (size_t i = 0; good && i < text.len; i++) {
        int v = i < text.len - pad ? base64_value(text.data[i]) : 0;

        good = v >= 0;
        bits = bits << 6 | (uint32_t)(v & 63);
        if (i % 4 == 3) {
            out[n++] = (uint8_t)(bits >> 16);
            out[n++] = (uint8_t)(bits >> 8);
            out[n++] = (uint8_t)bits;
        }
    }
    for (size_t i = 0; good && i < pad; i++)
        good = out[--n] == 0;
    if (!good) {
        wipe(out, text.len / 4 * 3);
        return refuse(err, "what stands behind base64: is no base64 (of A-Z a-z 0-9 + /, padded with = to a "
                           "multiple of 4): make one with: head -c 32 /dev/urandom | base64 -w0");
    }
    *ret = out;
    *ret_len = n;
    return TQ_OK;
}

struct secret {
    struct tq_span bytes;
    uint8_t *owned; /* or NULL */
};

static void secret_deinit(struct secret *s)
{
    wipe(s->owned, s->owned != NULL ? s->bytes.len : 0);
}

static int take_file_secret(struct tq_span path, keys_read_fn read, void *ctx, struct secret *ret,
                            char err[KEYS_ERROR_MAX])
{
    char *text = tq_malloc(path.len + 1);
    int rv;

    if (text == NULL)
        return no_memory(err);
    memcpy(text, path.data, path.len);
    text[path.len] = '\0';
    rv = read(ctx, text, &ret->owned, &ret->bytes.len, err);
    ret->bytes.data = ret->owned;
    tq_free(text);
    return rv;
}

static int take_secret(struct tq_span *rest, keys_read_fn read, void *ctx, struct secret *ret,
                       char err[KEYS_ERROR_MAX])
{
    struct tq_span word;
    int rv = TQ_OK;

    if (!next_word(rest, &word))
        return refuse(err,
                      "the secret is missing behind the role: its text, base64:TEXT, or @FILE (text that "
                      "begins with # must be given as base64)");
    if (begins(word, "put=") || begins(word, "get="))
        return refuse(err, "the secret is missing: it comes behind the role, before put= and get=");
    if (begins(word, "@")) {
        if (word.len == 1)
            return refuse(err, "@ without a file: write @FILE, without a blank between");
        rv = take_file_secret(tq_span(word.data + 1, word.len - 1), read, ctx, ret, err);
    } else if (begins(word, "base64:")) {
        rv = decode_base64(tq_span(word.data + 7, word.len - 7), &ret->owned, &ret->bytes.len, err);
        ret->bytes.data = ret->owned;
    } else {
        ret->bytes = word;
    }
    if (rv == TQ_OK && (ret->bytes.len == 0 || ret->bytes.len > TQ_AUTHKEY_MAX_BYTES))
        return refuse(err, "the secret has %zu bytes: it must have 1 to %d, and 32 random ones are enough",
                      ret->bytes.len, TQ_AUTHKEY_MAX_BYTES);
    return rv;
}

/* NULL, or what is wrong with it. */
static const char *pattern_fault(struct tq_span pattern)
{
    size_t i = 0;

    if (pattern.len == 0)
        return "a pattern is empty";
    while (i < pattern.len) {
        struct tq_span class;
        const uint8_t *end;

        if (pattern.data[i] != '[') {
            if (!is_of(tq_span(pattern.data + i, 1), NAME_CHARS "*?"))
                return "a pattern has a character that no queue's name has";
            i++;
            continue;
        }
        i++;
        end = memchr(pattern.data + i, ']', pattern.len - i);
        if (end == NULL)
            return "a [ has no ]";
        class = tq_span(pattern.data + i, (size_t)(end - pattern.data) - i);
        i += class.len + 1;
        if (class.len > 0 && (class.data[0] == '!' || class.data[0] == '^'))
            class = tq_span(class.data + 1, class.len - 1);
        if (class.len == 0 || !is_of(class, NAME_CHARS))
            return "between [ and ] stand characters of names, or ranges such as a-z";
        for (size_t k = 0; k + 2 < class.len; k++) {
            if (class.data[k + 1] != '-')
                continue;
            if (class.data[k] > class.data[k + 2])
                return "a range between [ and ] runs upwards, as a-z does";
            k += 2;
        }
    }
    return NULL;
}

static int take_patterns(struct tq_span word, char **list, char err[KEYS_ERROR_MAX])
{
    struct tq_span rest = tq_span(word.data + 4, word.len - 4);

    if (*list != NULL)
        return refuse(err, "%.4s is given twice: put all its patterns into one list, with commas between",
                      (const char *)word.data);
    if (rest.len > KEYS_LIST_MAX)
        return refuse(err, "%.4s has more than %d characters: use patterns with *", (const char *)word.data,
                      KEYS_LIST_MAX);
    *list = tq_calloc(1, rest.len + 1);
    if (*list == NULL)
        return no_memory(err);
    memcpy(*list, rest.data, rest.len);
    while (rest.len > 0) {
        const uint8_t *comma = memchr(rest.data, ',', rest.len);
        size_t n = comma != NULL ? (size_t)(comma - rest.data) : rest.len;
        const char *fault = pattern_fault(tq_span(rest.data, n));

        if (fault == NULL && comma != NULL && n + 1 == rest.len)
            fault = "a pattern is empty";
        if (fault != NULL)
            return refuse(err,
                          "%.4s: %s; write names of queues, with * ? [a-z] [!a-z], and commas between them",
                          (const char *)word.data, fault);
        rest = comma != NULL ? tq_span(comma + 1, rest.len - n - 1) : tq_span(rest.data + n, 0);
    }
    return TQ_OK;
}

static int take_settings(struct tq_span *rest, enum key_role role, char **put, char **get,
                         char err[KEYS_ERROR_MAX])
{
    struct tq_span word;
    int rv = TQ_OK;

    while (rv == TQ_OK && next_word(rest, &word)) {
        /* it may be a secret's second word: not to be shown */
        if (!begins(word, "put=") && !begins(word, "get="))
            return refuse(err,
                          "behind the secret come only put= and get= (a secret with blanks must be given as "
                          "base64:TEXT or @FILE)");
        if (role == KEY_OBSERVER)
            return refuse(err, "an observer puts and gets nothing: leave %.4s out, or take another role",
                          (const char *)word.data);
        if (role == KEY_ADMIN)
            return refuse(err, "an admin may do everything: leave %.4s out, or take another role",
                          (const char *)word.data);
        rv = take_patterns(word, begins(word, "put=") ? put : get, err);
    }
    return rv;
}

/* Behind the name. */
static int take_key(struct keys *k, const char *name, struct tq_span *rest, keys_read_fn read, void *ctx,
                    char err[KEYS_ERROR_MAX])
{
    struct secret secret = {.owned = NULL};
    enum key_role role = KEY_OBSERVER;
    char *put = NULL;
    char *get = NULL;
    int rv = take_role(rest, &role, err);

    if (rv == TQ_OK)
        rv = take_secret(rest, read, ctx, &secret, err);
    if (rv == TQ_OK)
        rv = take_settings(rest, role, &put, &get, err);
    if (rv == TQ_OK)
        rv = keys_add(k, name, role, secret.bytes, put, get, err);
    secret_deinit(&secret);
    tq_free(put);
    tq_free(get);
    return rv;
}

static bool has_control(struct tq_span line)
{
    for (size_t i = 0; i < line.len; i++) {
        if ((line.data[i] < ' ' && line.data[i] != '\t') || line.data[i] == 0x7f)
            return true;
    }
    return false;
}

static int take_line(struct keys *k, struct tq_span line, keys_read_fn read, void *ctx,
                     char err[KEYS_ERROR_MAX])
{
    char name[KEYS_NAME_MAX + 1];
    struct tq_span word;
    int rv;

    if (line.len > 0 && line.data[line.len - 1] == '\r')
        line.len--;
    if (has_control(line))
        return refuse(err, "a character that is no text: is it the right file? Such secrets are given as "
                           "base64:TEXT");
    if (!next_word(&line, &word))
        return TQ_OK;
    rv = take_name(word, name, err);
    return rv != TQ_OK ? rv : take_key(k, name, &line, read, ctx, err);
}

int keys_parse(struct keys *k, struct tq_span text, keys_read_fn read, void *ctx, unsigned *ret_line,
               char err[KEYS_ERROR_MAX])
{
    size_t before = k->count;

    err[0] = '\0';
    *ret_line = 0;
    while (text.len > 0) {
        const uint8_t *newline = memchr(text.data, '\n', text.len);
        size_t n = newline != NULL ? (size_t)(newline - text.data) : text.len;
        int rv;

        ++*ret_line;
        rv = take_line(k, tq_span(text.data, n), read, ctx, err);
        if (rv != TQ_OK)
            return rv;
        n += newline != NULL;
        text = tq_span(text.data + n, text.len - n);
    }
    if (k->count == before) { /* a file that is being written, perhaps: it would lock everybody out */
        *ret_line = *ret_line > 0 ? *ret_line : 1;
        return refuse(err, "there is no key in this file: write NAME ROLE SECRET, one key a line");
    }
    return TQ_OK;
}
