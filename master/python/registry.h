/* What Python clients see of the queues: typeids (the names they register), objects (idents, with Python's
 * reference counts), and the factories Queue and JoinableQueue. A declared queue X answers to the typeids X
 * and get_X and to further names; its ident is derived from its name, so it survives restarts, and stays
 * until the queue goes; each create adds a serial to it (queue:X#0123456789abcdef), so that each proxy is
 * known by its own ident, and any serial will do. What a client makes through a factory goes away when its
 * count falls to zero. Pure. */
#ifndef MASTER_PYTHON_REGISTRY_H
#define MASTER_PYTHON_REGISTRY_H

#include "common/bytes.h"
#include "common/buf.h"
#include "master/core/broker.h"

struct pyobject {
    uint64_t number; /* of this process, from 1; names the object to pyrefs */
    struct broker_queue *queue;
    int64_t refcount;
    uint32_t typeid_count;
    bool declared;
    bool lasting;      /* of the command line: it stays whatever peers ask */
    bool orphan;       /* a client made it before a restart: its count says nothing */
    const char *ident; /* NUL-terminated */
    size_t ident_len;
};

struct pyregistry; /* opaque */

struct pyregistry *pyregistry_new(void); /* NULL when out of memory */
void pyregistry_free(struct pyregistry *r);

/* A declared queue under its typeids X and get_X; it is the queue's broker_queue_user. TQ_EEXISTS when a
 * typeid is taken (or is a factory's), TQ_ENOMEM: nothing has changed. */
int pyregistry_declare(struct pyregistry *r, struct broker_queue *queue, struct pyobject **ret_object);
int pyregistry_add_typeid(struct pyregistry *r, struct broker_queue *queue, const char *typeid_name);
/* The declared object of a typeid, or NULL. */
struct pyobject *pyregistry_by_typeid(struct pyregistry *r, struct tq_span typeid_name);
/* Is it the name of a factory (and not of a declared queue)? */
bool pyregistry_is_factory(struct tq_span typeid_name);
/* A factory's object: a fresh unguessable ident. It is the queue's broker_queue_user. TQ_ENOMEM. */
int pyregistry_make(struct pyregistry *r, struct broker_queue *queue, struct pyobject **ret_object);
/* Name for a factory-made queue, unique in this registry; out takes 64 bytes. TQ_ECRYPTO. */
int pyregistry_fresh_name(struct pyregistry *r, char out[64]);

/* The longest ident, with its end. */
#define PYREGISTRY_IDENT_MAX (BROKER_QUEUE_NAME_MAX + 40)

/* *ret_serial: of the create that gave the ident; 0 when it has none. NULL: no such object. */
struct pyobject *pyregistry_by_ident(struct pyregistry *r, struct tq_span ident, uint64_t *ret_serial);
/* The ident that answers a create, and its serial (0 for a factory's object, whose ident is its own). */
uint64_t pyregistry_next_ident(struct pyregistry *r, const struct pyobject *o,
                               char out[PYREGISTRY_IDENT_MAX]);
/* Forgets an object and its typeids; its queue goes. */
void pyregistry_drop(struct pyregistry *r, struct pyobject *o);

/* Objects with a count above zero. */
uint64_t pyregistry_count(const struct pyregistry *r);
/* Python's debug_info: "  <ident>:       refcount=<n>\n    <...>" per object, sorted by ident. */
int pyregistry_debug_info(const struct pyregistry *r, struct tq_buf *out);

#endif
