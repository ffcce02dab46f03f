#include "common/opt.h"

#include <inttypes.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/log.h"

enum {
    NAME_MAX_CHARS = 48,   /* longer words are no typo of an option */
    TYPO_MAX_EDITS = 3,    /* further away is no suggestion */
    SHOWN_MAX_CHARS = 80,  /* of what the user typed, in a message */
    HELP_TEXT_COLUMN = 30, /* where prose starts */
    HELP_WIDTH = 79,
};

/* Every program has these two; they need no place in its table. */
static const struct tq_opt common_options[] = {
    {.name = "help", .type = TQ_OPT_FLAG, .help = "show this and stop"},
    {.name = "version", .type = TQ_OPT_FLAG, .help = "show the version and stop"},
};
static const size_t common_count = sizeof common_options / sizeof common_options[0];

static const char *shown(char out[SHOWN_MAX_CHARS], const char *text)
{
    return tq_log_quote(out, SHOWN_MAX_CHARS, text, strlen(text));
}

/* ---- suggestions ---- */

static size_t least3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Edit distance, a swap of neighbours counting as one. Both words are at most NAME_MAX_CHARS long. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][NAME_MAX_CHARS + 1];
    size_t a_len = strlen(a), b_len = strlen(b);

    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            row[j] = least3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < row[j])
                row[j] = above2[j - 2] + 1;
        }
    }
    return rows[a_len % 3][b_len];
}

static void consider(const char *typed, const char *name, const char **best, size_t *best_distance)
{
    size_t d;

    if (strlen(name) > NAME_MAX_CHARS)
        return;
    d = edit_distance(typed, name);
    /* A word that begins an option's name is an abbreviation: near, whatever is missing. */
    if (d > 1 && strlen(typed) >= 3 && strncmp(typed, name, strlen(typed)) == 0)
        d = 1;
    if (d < *best_distance) {
        *best = name;
        *best_distance = d;
    }
}

static const char *nearest_option(const struct tq_opt *table, size_t count, const char *typed)
{
    const char *best = NULL;
    /* At most a third of the word may be wrong, or everything would be near a short name. */
    size_t len = strlen(typed);
    size_t limit = len / 3 < TYPO_MAX_EDITS ? len / 3 + 1 : TYPO_MAX_EDITS + 1;

    if (len > NAME_MAX_CHARS)
        return NULL;
    for (size_t i = 0; i < count; i++)
        consider(typed, table[i].name, &best, &limit);
    for (size_t i = 0; i < common_count; i++)
        consider(typed, common_options[i].name, &best, &limit);
    return best;
}

/* ---- numbers ---- */

/* The shortest exact way to write it: "64M", "1000". */
static const char *number_text(char out[32], uint64_t n)
{
    static const char suffixes[] = {'G', 'M', 'k'};

    for (size_t i = 0; i < sizeof suffixes; i++) {
        unsigned shift = (unsigned)(3 - i) * 10;

        if (n >> shift != 0 && (n & ((UINT64_C(1) << shift) - 1)) == 0) {
            snprintf(out, 32, "%" PRIu64 "%c", n >> shift, suffixes[i]);
            return out;
        }
    }
    snprintf(out, 32, "%" PRIu64, n);
    return out;
}

static const char *seconds_text(char out[32], uint64_t ms)
{
    int n;

    if (ms % 1000 == 0) {
        snprintf(out, 32, "%" PRIu64, ms / 1000);
        return out;
    }
    n = snprintf(out, 32, "%" PRIu64 ".%03u", ms / 1000, (unsigned)(ms % 1000));
    while (n > 0 && out[n - 1] == '0')
        out[--n] = '\0';
    return out;
}

static const char *value_text(const struct tq_opt *o, char out[32], uint64_t v)
{
    return o->type == TQ_OPT_SECONDS ? seconds_text(out, v) : number_text(out, v);
}

/* Digits at *p, which moves behind them. TQ_EINVAL: none; TQ_ELIMIT: more than 64 bits. */
static int take_digits(const char **p, uint64_t *ret)
{
    uint64_t v = 0;
    bool over = false;

    if (**p < '0' || **p > '9')
        return TQ_EINVAL;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        over = over || __builtin_mul_overflow(v, UINT64_C(10), &v) ||
               __builtin_add_overflow(v, (uint64_t)(**p - '0'), &v);
    *ret = v;
    return over ? TQ_ELIMIT : 0;
}

/* TQ_EINVAL: not a number with a known suffix; TQ_ELIMIT: too large for 64 bits. */
static int parse_number(const char *text, uint64_t *ret)
{
    const char *p = text;
    unsigned shift = 0;
    uint64_t v = 0;
    int r = take_digits(&p, &v);

    if (r == TQ_EINVAL)
        return r;
    switch (*p) {
    case 'k':
    case 'K':
        shift = 10;
        break;
    case 'm':
    case 'M':
        shift = 20;
        break;
    case 'g':
    case 'G':
        shift = 30;
        break;
    default:
        break;
    }
    if (shift != 0)
        p++;
    if (*p != '\0')
        return TQ_EINVAL;
    if (r != 0 || v > UINT64_MAX >> shift)
        return TQ_ELIMIT;
    *ret = v << shift;
    return 0;
}

/* Seconds to milliseconds, without floating point. Same outcomes. */
static int parse_seconds(const char *text, uint64_t *ret)
{
    const char *p = text;
    uint64_t whole = 0, ms = 0;
    int r = take_digits(&p, &whole);

    if (r == TQ_EINVAL)
        return r;
    if (*p == '.') {
        p++;
        if (*p == '\0')
            return TQ_EINVAL;
        for (uint64_t unit = 100; unit > 0 && *p >= '0' && *p <= '9'; unit /= 10, p++)
            ms += unit * (uint64_t)(*p - '0');
        while (*p == '0')
            p++;
    }
    if (*p != '\0')
        return TQ_EINVAL;
    if (r != 0 || __builtin_mul_overflow(whole, UINT64_C(1000), &whole) ||
        __builtin_add_overflow(whole, ms, &whole))
        return TQ_ELIMIT;
    *ret = whole;
    return 0;
}

static int set_number(const struct tq_opt *o, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    bool seconds = o->type == TQ_OPT_SECONDS;
    char low[32], high[32], typed[SHOWN_MAX_CHARS];
    uint64_t v = 0;
    int r = seconds ? parse_seconds(value, &v) : parse_number(value, &v);

    TQ_ASSERT(o->number != NULL && o->min <= o->max);
    if (r == TQ_EINVAL) {
        if (seconds)
            snprintf(err, TQ_OPT_ERROR_MAX, "--%s: '%s' is no number of seconds; write it like 3 or 0.25",
                     o->name, shown(typed, value));
        else
            snprintf(err, TQ_OPT_ERROR_MAX,
                     "--%s: '%s' is no whole number; write it like 100, 64k, 16M or 1G", o->name,
                     shown(typed, value));
        return TQ_EINVAL;
    }
    if (r != 0 || v < o->min || v > o->max) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--%s: %s is out of range; allowed are %s to %s%s", o->name,
                 shown(typed, value), value_text(o, low, o->min), value_text(o, high, o->max),
                 seconds ? " seconds" : "");
        return TQ_EINVAL;
    }
    *o->number = v;
    return 0;
}

/* ---- the command line ---- */

static int call_set(const struct tq_opt *o, void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    char reason[TQ_OPT_ERROR_MAX] = "";

    TQ_ASSERT(o->set != NULL);
    if (o->set(ctx, value, reason) >= 0)
        return 0;
    if (reason[0] == '\0')
        snprintf(reason, sizeof reason, "the value is not allowed");
    if (strncmp(reason, "--", 2) == 0)
        memcpy(err, reason, TQ_OPT_ERROR_MAX);
    else if (snprintf(err, TQ_OPT_ERROR_MAX, "--%s: %s", o->name, reason) >= TQ_OPT_ERROR_MAX)
        memcpy(err + TQ_OPT_ERROR_MAX - 4, "...", 4);
    return TQ_EINVAL;
}

static int apply(const struct tq_opt *o, void *ctx, const char *value, char err[TQ_OPT_ERROR_MAX])
{
    switch (o->type) {
    case TQ_OPT_FLAG:
        if (o->set != NULL)
            return call_set(o, ctx, NULL, err);
        TQ_ASSERT(o->flag != NULL);
        *o->flag = true;
        return 0;
    case TQ_OPT_STRING:
        return call_set(o, ctx, value, err);
    case TQ_OPT_NUMBER:
    case TQ_OPT_SECONDS:
    default:
        return set_number(o, value, err);
    }
}

static const struct tq_opt *find_option(const struct tq_opt *table, size_t count, const char *name,
                                        size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

static int unknown_option(const struct tq_opt *table, size_t count, const char *arg, size_t name_len,
                          char err[TQ_OPT_ERROR_MAX])
{
    char typed[SHOWN_MAX_CHARS], name[NAME_MAX_CHARS + 2];
    const char *near = NULL;

    if (name_len < sizeof name) {
        memcpy(name, arg + 2, name_len);
        name[name_len] = '\0';
        near = nearest_option(table, count, name);
    }
    tq_log_quote(typed, sizeof typed, arg, name_len + 2);
    if (near != NULL)
        snprintf(err, TQ_OPT_ERROR_MAX, "unknown option '%s'; did you mean '--%s'? (--help lists all)", typed,
                 near);
    else
        snprintf(err, TQ_OPT_ERROR_MAX, "unknown option '%s'; --help lists all", typed);
    return TQ_EINVAL;
}

static int no_option(const struct tq_opt *table, size_t count, const char *arg, char err[TQ_OPT_ERROR_MAX])
{
    char typed[SHOWN_MAX_CHARS];
    const char *bare = arg + strspn(arg, "-");
    const char *near =
        strlen(bare) > 1 && find_option(table, count, bare, strlen(bare)) != NULL ? bare : NULL;

    if (near != NULL)
        snprintf(err, TQ_OPT_ERROR_MAX, "'%s' is no option; did you mean '--%s'?", shown(typed, arg), near);
    else
        snprintf(err, TQ_OPT_ERROR_MAX, "'%s' is not expected here; options begin with -- (--help lists all)",
                 shown(typed, arg));
    return TQ_EINVAL;
}

/* One option and, where it takes one, its argument, which may be the next word (*used becomes 2). */
static int parse_one(const struct tq_opt *table, size_t count, void *ctx, const char *arg, const char *next,
                     int *used, char err[TQ_OPT_ERROR_MAX])
{
    size_t name_len = strcspn(arg + 2, "=");
    const char *value = arg[2 + name_len] == '=' ? arg + 2 + name_len + 1 : NULL;
    const struct tq_opt *o = find_option(table, count, arg + 2, name_len);

    *used = 1;
    if (o == NULL)
        return unknown_option(table, count, arg, name_len, err);
    if (o->type == TQ_OPT_FLAG && value != NULL) {
        snprintf(err, TQ_OPT_ERROR_MAX, "--%s takes no value; write just --%s", o->name, o->name);
        return TQ_EINVAL;
    }
    if (o->type != TQ_OPT_FLAG && value == NULL) {
        /* A word that is an option of ours is more likely a forgotten value than a value. */
        if (next == NULL || (strncmp(next, "--", 2) == 0 &&
                             find_option(table, count, next + 2, strcspn(next + 2, "=")) != NULL)) {
            snprintf(err, TQ_OPT_ERROR_MAX, "--%s needs a value: --%s %s", o->name, o->name,
                     o->arg != NULL ? o->arg : "VALUE");
            return TQ_EINVAL;
        }
        value = next;
        *used = 2;
    }
    return apply(o, ctx, value, err);
}

int tq_opt_parse(const struct tq_opt *table, size_t count, void *ctx, int argc, char **argv,
                 const char *usage_head, char err[TQ_OPT_ERROR_MAX])
{
    err[0] = '\0';
    for (int i = 1; i < argc;) {
        const char *arg = argv[i];
        int used = 1, r;

        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            tq_opt_help(table, count, usage_head, stdout);
            return 1;
        }
        if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0)
            return 2;
        if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0')
            return no_option(table, count, arg, err);
        r = parse_one(table, count, ctx, arg, i + 1 < argc ? argv[i + 1] : NULL, &used, err);
        if (r != 0)
            return r;
        i += used;
    }
    return 0;
}

/* ---- help ---- */

/* Prose from the text column on, broken between words; the cursor stands at column `at`. */
static void print_wrapped(FILE *out, int at, const char *text)
{
    bool first = true;

    while (*text != '\0') {
        int len = (int)strcspn(text, " \n");

        if (first || at + 1 + len > HELP_WIDTH) {
            if (at >= HELP_TEXT_COLUMN || !first) {
                fputc('\n', out);
                at = 0;
            }
            at += fprintf(out, "%*s", HELP_TEXT_COLUMN - at, "");
            first = false;
        } else {
            at += fprintf(out, " ");
        }
        at += fprintf(out, "%.*s", len, text);
        text += len;
        text += strspn(text, " \n");
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const struct tq_opt *o)
{
    char prose[1024], value[32];
    const char *dflt = o->dflt;
    int at = o->arg != NULL ? fprintf(out, "  --%s %s", o->name, o->arg) : fprintf(out, "  --%s", o->name);

    if (dflt == NULL && (o->type == TQ_OPT_NUMBER || o->type == TQ_OPT_SECONDS))
        dflt = value_text(o, value, *o->number);
    if (dflt != NULL)
        snprintf(prose, sizeof prose, "%s (default %s%s)", o->help, dflt,
                 o->type == TQ_OPT_SECONDS && o->dflt == NULL ? " s" : "");
    else
        snprintf(prose, sizeof prose, "%s", o->help);
    print_wrapped(out, at, prose);
}

void tq_opt_help(const struct tq_opt *table, size_t count, const char *usage_head, FILE *out)
{
    size_t head_len = strlen(usage_head);

    fprintf(out, "%s%s", usage_head, head_len > 0 && usage_head[head_len - 1] == '\n' ? "" : "\n");
    for (size_t i = 0; i < count; i++) {
        if (table[i].group != NULL)
            fprintf(out, "\n%s:\n", table[i].group);
        else if (i == 0)
            fprintf(out, "\n");
        print_option(out, &table[i]);
    }
    fprintf(out, "\n");
    for (size_t i = 0; i < common_count; i++)
        print_option(out, &common_options[i]);
}
