/* The keys that open this master, each with a name, a role and the queues it is for. The peer's answer in the
 * handshake tells which key it has, so this works for unmodified Python clients. Pure.
 *
 * A keys file has one key a line, words parted by blanks:
 *
 *   NAME ROLE SECRET [put=PATTERN,...] [get=PATTERN,...]
 *
 *   # a word that begins with # begins a comment
 *   mailer   worker   @mailer.key    get=mail,mail-* put=result_queue
 *   shop     producer base64:KXK7BE2W3yhxugNMld4ncLkCS5TdJm+4 put=mail
 *   monitor  observer a-secret-of-16-bytes
 *
 *   NAME     1 to 64 of A-Z a-z 0-9 . _ - ; "authkey" is the name of --authkey-file's key (role admin)
 *
 *   ROLE     producer   puts to task_queue, gets from result_queue
 *            worker     gets from task_queue, puts to result_queue
 *            observer   looks at everything, changes nothing
 *            admin      may do everything
 *
 *   SECRET   1 to 4096 bytes: the text itself; base64:TEXT; or @FILE, whose content it is, without one
 *            newline at its end (a relative path starts at the keys file's folder)
 *
 *   PATTERN  for producer and worker, in place of the role's own: the queues that it may put to, or get
 *            from; names with * ? [a-z] [!a-z]. The list may be empty.
 *
 * What each right lets do, and who has it (P producer, W worker, O observer, A admin):
 *
 *   on a queue
 *   put       P W by put=, A    Python: put, put_nowait, join
 *                               native: put, join; done that names a queue
 *   get       P W by get=, A    Python: get, get_nowait, task_done
 *                               native: get, done, fail, extend, release
 *   look      put or get, O A   Python: qsize, empty, full, __str__, __repr__
 *                               native: stats of the queue, wait; a put that names it for the task's result
 *   inspect   get, O A          native: its tasks, peek: whatever shows bodies
 *   make      get, A            native: declare of a queue that is not there: a reply queue of one's own
 *   manage    A                 Python: shutdown
 *                               native: update, delete, purge, pause, resume; remove and retry of tasks
 *   refer     P W O A           Python: incref, decref
 *
 *   on no queue
 *   make      P W A             Python: Queue(), JoinableQueue()
 *   inspect   O A               Python: debug_info, number_of_objects
 *                               native: queues, workers, stats of the master
 *   stop      A                 Python: shutdown of the master
 *                               native: backup
 *
 * Results and dead letters go where the task or its queue says, and not by a right of the worker: whoever
 * names a queue for them must have the right.
 *
 * Python's Queue() and JoinableQueue() make queues with idents that cannot be guessed: whoever knows one has
 * put, get, look, inspect, manage and refer there, but an observer, who sees all idents, only looks. Native
 * peers go by names, and names are no secrets: on such queues, too, they have what their patterns give them.
 */
#ifndef MASTER_ACCESS_KEYS_H
#define MASTER_ACCESS_KEYS_H

#include "common/opt.h"
#include "proto/auth.h"

#define KEYS_MAX           1000 /* a handshake costs an HMAC for each */
#define KEYS_NAME_MAX      64
#define KEYS_LIST_MAX      1000 /* characters of one put= or get= */
#define KEYS_ERROR_MAX     TQ_OPT_ERROR_MAX
#define KEYS_AUTHKEY_NAME  "authkey"
#define KEYS_STRONG_BYTES  16 /* shorter ones can be guessed from one recorded handshake */
#define KEYS_FILE_MAX_SIZE (1024u * 1024)

enum key_role { KEY_PRODUCER, KEY_WORKER, KEY_OBSERVER, KEY_ADMIN, KEY_ROLE_COUNT };

enum key_right {
    KEY_LOOK = 1 << 0,
    KEY_PUT = 1 << 1,
    KEY_GET = 1 << 2,
    KEY_INSPECT = 1 << 3,
    KEY_MANAGE = 1 << 4,
    KEY_REFER = 1 << 5, /* the last decref of a made queue ends it */
    KEY_MAKE = 1 << 6,
    KEY_STOP = 1 << 7,
    KEY_ALL = (1 << 8) - 1,
};

struct key {
    char name[KEYS_NAME_MAX + 1];
    enum key_role role;
    uint8_t *secret;
    size_t secret_len;
    char *put; /* patterns, separated by commas */
    char *get;
};

/* Filled once, then read only. */
struct keys {
    struct key *list;
    struct tq_auth_key *auth; /* the same keys for the handshake; set by keys_seal */
    size_t count;
};

void keys_init(struct keys *k);
/* Wipes the secrets; the set is empty afterwards. */
void keys_deinit(struct keys *k);

/* Content of a secret's file: *ret_secret from tq_malloc. Negative with cause and remedy in err. */
typedef int (*keys_read_fn)(void *ctx, const char *path, uint8_t **ret_secret, size_t *ret_len,
                            char err[KEYS_ERROR_MAX]);

/* Adds the keys of a file's text. TQ_EINVAL, TQ_ENOMEM, or what `read` gave; *ret_line is the line and err
 * cause and remedy, which quotes nothing that could be a secret. Some keys may have been added then. */
int keys_parse(struct keys *k, struct tq_span text, keys_read_fn read, void *ctx, unsigned *ret_line,
               char err[KEYS_ERROR_MAX]);
/* Adds one key; all is copied, `put` and `get` NULL: the role's own. No two keys have the same name or the
 * same secret. */
int keys_add(struct keys *k, const char *name, enum key_role role, struct tq_span secret, const char *put,
             const char *get, char err[KEYS_ERROR_MAX]);
/* After the last one. TQ_ENOMEM. */
int keys_seal(struct keys *k);

/* Where each key of `old` (same name and same secret) is in `now`, or TQ_AUTH_KEY_GONE: ret_moved has
 * old->count places. */
void keys_moved(const struct keys *old, const struct keys *now, size_t *ret_moved);
/* Are role and patterns the same? */
bool keys_same_rights(const struct key *a, const struct key *b);
/* The shortest key under KEYS_STRONG_BYTES, or NULL. */
const struct key *keys_weakest(const struct keys *k);

/* What the key may do with a queue, as bits of key_right; queue NULL: what needs no queue. `made`: by a
 * client, and the peer knows its secret ident. */
unsigned keys_rights(const struct key *k, const char *queue, bool made);
const char *keys_role_name(enum key_role role);
/* Does the pattern (of n characters) match the name? As fnmatch does. Time is bounded by the product of
 * lengths. */
bool keys_match(const char *pattern, size_t n, const char *name);

#endif
