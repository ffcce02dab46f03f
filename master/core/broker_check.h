/* Does the broker's state hold together? For tests: it looks at everything. */
#ifndef MASTER_CORE_BROKER_CHECK_H
#define MASTER_CORE_BROKER_CHECK_H

#include "master/core/broker.h"

/* NULL when all is well, else which rule is broken. */
const char *broker_check(const struct broker *b);

#endif
