#include "common/err.h"

const char *tq_strerror(int err)
{
    switch (err) {
    case TQ_OK:
        return "no error";
#define TQ_ERR_CASE(name, code, text)                                                                        \
    case TQ_##name:                                                                                          \
        return text;
        TQ_ERR_LIST(TQ_ERR_CASE)
#undef TQ_ERR_CASE
    default:
        return "unknown error";
    }
}
