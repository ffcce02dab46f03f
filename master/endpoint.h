/* Somebody whose broker session the effects go to: a Python peer, a native worker's session, the demo. */
#ifndef MASTER_ENDPOINT_H
#define MASTER_ENDPOINT_H

#include "master/core/broker.h"

struct endpoint {
    struct broker_session session; /* first */
    /* One effect; may step the broker again. What the effect owns is released after it. */
    void (*on_effect)(struct endpoint *ep, struct broker_effect *fx);
};

#endif
