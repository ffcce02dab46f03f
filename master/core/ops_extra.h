/* struct broker_extra in ops (journal_ops.h: OPS_EXTRA): a number whose bits say which fields are not as in a
 * task of which nothing is known, then those fields, in the order of the bits. Queues are named by serials;
 * where the task stands in lists, its timer and its place in the table of keys are not in it. */
#ifndef MASTER_CORE_OPS_EXTRA_H
#define MASTER_CORE_OPS_EXTRA_H

#include "master/core/task.h"

enum ops_extra_field {
    EXTRA_DUE = 1,                /* due_ms; DELAYED only */
    EXTRA_EXPIRES = 1 << 1,       /* expires_ms */
    EXTRA_STARTED = 1 << 2,       /* started_ms */
    EXTRA_ENDED = 1 << 3,         /* ended_ms */
    EXTRA_OF = 1 << 4,            /* of */
    EXTRA_RESULT = 1 << 5,        /* result: the queue's serial, 0 for TASK_NO_QUEUE. Else TASK_POLICY */
    EXTRA_FROM = 1 << 6,          /* from: the queue's serial */
    EXTRA_RETENTION = 1 << 7,     /* retention_ms. Else BROKER_RETENTION_AUTO */
    EXTRA_PRIORITY = 1 << 8,      /* zigzag */
    EXTRA_CODE = 1 << 9,          /* zigzag */
    EXTRA_OUTCOME = 1 << 10,      /* u8 */
    EXTRA_MAX_ATTEMPTS = 1 << 11, /* u8 */
    EXTRA_TRIES = 1 << 12,        /* u8 */
    EXTRA_GIVES_WAY = 1 << 13,    /* nothing follows */
    EXTRA_KEY = 1 << 14,          /* text */
    EXTRA_KEY_QUEUE = 1 << 15,    /* serial of the queue in which the key is taken by this task */
    EXTRA_TRACE = 1 << 16,        /* text */
    EXTRA_WORKER = 1 << 17,       /* text */
    EXTRA_ERROR = 1 << 18,        /* text */
    EXTRA_ALL = (EXTRA_ERROR << 1) - 1,
};

/* Of a task that has an extra: as many bytes as that takes, or more. */
size_t ops_extra_bound(struct broker_task *t);
/* `at` has so many; returns the byte behind. */
uint8_t *ops_put_extra(uint8_t *at, struct broker_task *t);
/* Takes one off the front of *in; spans are borrowed. False: there is none. ret->fixed.result is TASK_POLICY,
 * TASK_NO_QUEUE or 0 (then result_serial tells); from is 0. *ret_key_serial: 0, or of which queue the key is.
 */
bool ops_get_extra(struct tq_span *in, struct broker_extra_spec *ret, uint32_t *ret_key_serial);

#endif
