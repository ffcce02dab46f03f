/* A session's side: what it holds, and what its calls say about that. */
#ifndef MASTER_CORE_SESSION_H
#define MASTER_CORE_SESSION_H

#include "master/core/broker.h"
#include "master/core/lease.h"

void broker_session_open(struct broker *b, struct broker_session *s);
void broker_session_close(struct broker *b, struct broker_session *s, enum broker_close_mode mode);

/* Python sessions. */

/* What it was handed has arrived; items of ack=get queues are done by that. */
void broker_session_delivered(struct broker *b, struct broker_session *s);
/* A sign of progress: what it holds from ack=auto and ack=get queues is done. */
void broker_session_progress(struct broker *b, struct broker_session *s);
/* The oldest that it holds from the ack=explicit queue is done, if there is one. */
void broker_session_ack_explicit(struct broker *b, struct broker_session *s, const struct broker_queue *q);

#endif
