/* What the files of broker_check share. */
#ifndef MASTER_CORE_BROKER_CHECK_IMPL_H
#define MASTER_CORE_BROKER_CHECK_IMPL_H

struct broker;

#define RULE(expr)                                                                                           \
    do {                                                                                                     \
        if (!(expr))                                                                                         \
            return #expr;                                                                                    \
    } while (0)

#define ALL(call)                                                                                            \
    do {                                                                                                     \
        const char *broken_ = (call);                                                                        \
        if (broken_ != NULL)                                                                                 \
            return broken_;                                                                                  \
    } while (0)

/* broker_check_journal.c */
const char *broker_check_journal(const struct broker *b);

#endif
