/* Options as a table: name, argument, default, range, prose. The same table feeds the command line, the
 * help text and (later) the config file and the manual. */
#ifndef TQ_COMMON_OPT_H
#define TQ_COMMON_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TQ_OPT_ERROR_MAX 640

enum tq_opt_type {
    TQ_OPT_FLAG,    /* no argument; set is called with NULL */
    TQ_OPT_STRING,  /* set is called with the text */
    TQ_OPT_NUMBER,  /* a whole number in [min, max], suffixes k M G (1024) allowed; stored through `number` */
    TQ_OPT_SECONDS, /* decimal seconds ("3", "0.25") in [min, max] ms; stored in ms through `number` */
};

struct tq_opt {
    const char *name; /* without the dashes */
    enum tq_opt_type type;
    const char *arg; /* "HOST:PORT"; NULL for a flag */
    const char *help;
    const char *group; /* heading in the help text; NULL: as before */
    uint64_t min;
    uint64_t max;
    uint64_t *number; /* NUMBER, SECONDS: also the default, shown in the help */
    const char *dflt; /* default shown in the help, or NULL: a STRING has none, else what `number` holds */
    bool *flag;       /* FLAG without set */
    /* STRING, FLAG: 0 or negative with the reason (cause and remedy) in err. A reason that does not begin
     * with "--" gets "--name: " in front. */
    int (*set)(void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX]);
};

/* Parses argv[1..], "--name value" or "--name=value"; anything else is refused. --help (-h) and --version
 * (-V) need no entry in the table. 0; 1 when --help was printed to stdout; 2 when --version was asked
 * (nothing printed); TQ_EINVAL with one line in err: what is wrong and what would be right (the nearest
 * option for a typo). */
int tq_opt_parse(const struct tq_opt *table, size_t count, void *ctx, int argc, char **argv,
                 const char *usage_head, char err[TQ_OPT_ERROR_MAX]);
void tq_opt_help(const struct tq_opt *table, size_t count, const char *usage_head, FILE *out);

/* "HOST:PORT", "[V6]:PORT", ":PORT" (host empty). host takes host_size bytes. TQ_EINVAL with the reason. */
int tq_opt_host_port(const char *text, char *host, size_t host_size, uint16_t *ret_port,
                     char err[TQ_OPT_ERROR_MAX]);

#define TQ_AUTHKEY_MAX_BYTES 4096

/* The authkey: from a file (one trailing newline is dropped), the text of an option, or the environment
 * TASKQ_AUTHKEY; the first one that is given. *ret_key is from tq_malloc, *ret_len its length; NULL and 0
 * when none is given. A key that is given has 1 to TQ_AUTHKEY_MAX_BYTES bytes. err: cause and remedy. warn
 * (may be empty): one line to show. TQ_EINVAL, TQ_EIO, TQ_ENOMEM. */
int tq_opt_authkey(const char *file, const char *text, uint8_t **ret_key, size_t *ret_len,
                   char err[TQ_OPT_ERROR_MAX], char warn[TQ_OPT_ERROR_MAX]);

/* A file with secrets in it. */
struct tq_opt_secret_file {
    const char *what; /* "key file" */
    const char *hint; /* what to do when it is empty */
    size_t max_bytes;
    bool regular_only; /* for a running program: a pipe could keep it waiting */
};

/* The key file of tq_opt_authkey. */
extern const struct tq_opt_secret_file tq_opt_key_file;

/* Its content, without one newline at its end: 1 to max_bytes bytes. Results as of tq_opt_authkey. Whoever
 * frees it wipes it. */
int tq_opt_read_secret_file(const struct tq_opt_secret_file *kind, const char *path, uint8_t **ret_bytes,
                            size_t *ret_len, char err[TQ_OPT_ERROR_MAX], char warn[TQ_OPT_ERROR_MAX]);

#endif
