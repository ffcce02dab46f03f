/* Binds a Python call of a queue method to its parameters, as CPython does, with its words for what is
 * wrong; and reads `block` and `timeout` as queue.Queue does. Pure. */
#ifndef MASTER_PYTHON_CALL_H
#define MASTER_PYTHON_CALL_H

#include "master/core/broker.h"
#include "proto/python/manager.h"

#define PYCALL_TEXT_MAX 320

enum pymethod {
    PY_METHOD_NONE,
    PY_METHOD_EMPTY,
    PY_METHOD_FULL,
    PY_METHOD_GET,
    PY_METHOD_GET_NOWAIT,
    PY_METHOD_JOIN,
    PY_METHOD_PUT,
    PY_METHOD_PUT_NOWAIT,
    PY_METHOD_QSIZE,
    PY_METHOD_SHUTDOWN,
    PY_METHOD_TASK_DONE,
    /* Python's server answers these for every object */
    PY_METHOD_STR,
    PY_METHOD_REPR,
    PY_METHOD_GETVALUE,
};

/* Names of the exposed methods, sorted, as `create` and `get_methods` answer them. */
#define PYMETHOD_EXPOSED_COUNT 10
extern const char *const pymethod_exposed[PYMETHOD_EXPOSED_COUNT];

enum pymethod pymethod_by_name(struct tq_span name); /* PY_METHOD_NONE when there is none */
const char *pymethod_name(enum pymethod method);

#define PYCALL_PARAMS_MAX 3

struct pycall {
    enum pymethod method;
    bool given[PYCALL_PARAMS_MAX]; /* in the order of the signature */
    struct tq_pk_range value[PYCALL_PARAMS_MAX];
};

/* 0; 1: TypeError with text. */
int pycall_bind(struct pycall *c, const struct tq_py_request *r, enum pymethod method,
                char text[PYCALL_TEXT_MAX]);

enum pycall_wait_result {
    PYCALL_WAIT_OK,
    PYCALL_WAIT_OVERFLOW,    /* a wait would be too long: *ret_mode is BROKER_NO_WAIT, and OverflowError takes
                                the place of Empty and Full */
    PYCALL_WAIT_VALUE_ERROR, /* negative or NaN */
    PYCALL_WAIT_TYPE_ERROR,  /* text */
};

/* How put and get wait. `looks` is false where Python looks at neither (put on an unbounded queue): what is
 * wrong with them is no error then. They hold all the same, for memory or a disk that is full. */
enum pycall_wait_result pycall_wait(const struct pycall *c, const struct tq_py_request *r, bool looks,
                                    enum broker_wait_mode *ret_mode, uint64_t *ret_wait_ms,
                                    char text[PYCALL_TEXT_MAX]);
/* The item of put and put_nowait. */
struct tq_pk_range pycall_item(const struct pycall *c);
/* shutdown(immediate=...) */
bool pycall_immediate(const struct pycall *c, const struct tq_py_request *r);

/* Signature of the factory Queue(maxsize=0). 0 and *ret_maxsize; 1: TypeError with text. */
int pycall_bind_factory(const struct tq_py_request *r, int64_t *ret_maxsize, char text[PYCALL_TEXT_MAX]);

#endif
