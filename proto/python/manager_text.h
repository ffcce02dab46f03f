/* Shared by the files of manager.h only. */
#ifndef TQ_PROTO_PYTHON_MANAGER_TEXT_H
#define TQ_PROTO_PYTHON_MANAGER_TEXT_H

#include "proto/python/emit.h"
#include "proto/python/pickle.h"

/* The text of a str, quotes of the oldest pickles taken off. TQ_EINVAL when it is no str, or one with
 * escapes: no name of this protocol needs them. */
int tq_py_text(const struct tq_pickle *p, struct tq_pk_range r, struct tq_span *ret_text);

/* The expression that is queue.ShutDown where there is one, else queue.Empty. */
void tq_py_emit_shutdown_class(struct tq_emit *e);

#endif
