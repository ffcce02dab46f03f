/* What a Python session is handed for a task, a result or a dead letter, when it is not an item that Python
 * put: a msgpack value as the natural Python value, a result as its value alone, and a result that is not OK
 * as a dict with the fields of its record (proto/PROTOCOL.md, section 5.5). Pure. */
#ifndef MASTER_PYTHON_HANDED_H
#define MASTER_PYTHON_HANDED_H

#include "common/buf.h"
#include "master/core/broker.h"

enum pyhanded_result {
    PYHANDED_VALUE = 0,
    /* It has no Python form (an ext of a pickle that is none, or a pickle that `out` has no room for): the
     * reply is its msgpack as bytes, so that it neither is lost nor blocks its queue. */
    PYHANDED_BYTES = 1,
};

/* Is the body a whole reply frame already, that goes out as it is? */
bool pyhanded_is_frame(const struct broker_view *v);
/* Appends the whole reply frame, for all others. enum pyhanded_result; TQ_ELIMIT (not even the bytes fit
 * into `out`), TQ_ENOMEM: nothing is appended. */
int pyhanded_reply(const struct broker_view *v, struct tq_buf *out);

#endif
