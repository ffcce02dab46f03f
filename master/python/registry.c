#include "master/python/registry.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/hash.h"

struct entry {
    struct pyobject object;
    UT_hash_handle hh;
    char ident[];
};

struct typeid_entry {
    struct pyobject *object;
    size_t len;
    UT_hash_handle hh;
    char name[];
};

struct pyregistry {
    struct entry *objects; /* by ident */
    struct typeid_entry *typeids;
    uint64_t last_number;
    uint64_t last_serial; /* begins at random, so that those of an earlier run differ */
};

struct pyregistry *pyregistry_new(void)
{
    struct pyregistry *r = tq_calloc(1, sizeof(*r));

    if (r != NULL && tq_random_bytes(&r->last_serial, sizeof(r->last_serial)) != TQ_OK)
        r->last_serial = 0;
    return r;
}

void pyregistry_free(struct pyregistry *r)
{
    struct entry *e;
    struct entry *next_e;
    struct typeid_entry *t;
    struct typeid_entry *next_t;

    if (r == NULL)
        return;
    HASH_ITER(hh, r->typeids, t, next_t)
    {
        HASH_DEL(r->typeids, t);
        tq_free(t);
    }
    HASH_ITER(hh, r->objects, e, next_e)
    {
        HASH_DEL(r->objects, e);
        tq_free(e);
    }
    tq_free(r);
}

static struct pyobject *add_object(struct pyregistry *r, struct broker_queue *queue, const char *ident)
{
    size_t len = strlen(ident);
    struct entry *e = tq_calloc(1, sizeof(*e) + len + 1);

    if (e == NULL)
        return NULL;
    memcpy(e->ident, ident, len + 1);
    e->object =
        (struct pyobject){.number = ++r->last_number, .queue = queue, .ident = e->ident, .ident_len = len};
    HASH_ADD_KEYPTR(hh, r->objects, e->ident, len, e);
    if (e->hh.tbl == NULL) {
        tq_free(e);
        return NULL;
    }
    return &e->object;
}

static int add_typeid(struct pyregistry *r, struct pyobject *object, const char *name)
{
    size_t len = strlen(name);
    struct typeid_entry *t;

    HASH_FIND(hh, r->typeids, name, len, t);
    if (t != NULL)
        return t->object == object ? TQ_OK : TQ_EEXISTS;
    t = tq_calloc(1, sizeof(*t) + len + 1);
    if (t == NULL)
        return TQ_ENOMEM;
    memcpy(t->name, name, len + 1);
    t->len = len;
    t->object = object;
    HASH_ADD_KEYPTR(hh, r->typeids, t->name, len, t);
    if (t->hh.tbl == NULL) {
        tq_free(t);
        return TQ_ENOMEM;
    }
    object->typeid_count++;
    return TQ_OK;
}

static void drop_typeid(struct pyregistry *r, struct pyobject *object, const char *name)
{
    struct typeid_entry *t;

    HASH_FIND(hh, r->typeids, name, strlen(name), t);
    if (t == NULL || t->object != object)
        return;
    HASH_DEL(r->typeids, t);
    tq_free(t);
    object->typeid_count--;
}

static void getter_name(const struct broker_queue *queue, char out[BROKER_QUEUE_NAME_MAX + 8])
{
    snprintf(out, BROKER_QUEUE_NAME_MAX + 8, "get_%s", broker_queue_name(queue));
}

int pyregistry_declare(struct pyregistry *r, struct broker_queue *queue, struct pyobject **ret_object)
{
    char text[BROKER_QUEUE_NAME_MAX + 8];
    const char *name = broker_queue_name(queue);
    struct pyobject *object;
    int rv;

    if (pyregistry_is_factory(tq_span_str(name)))
        return TQ_EEXISTS;
    snprintf(text, sizeof(text), "queue:%s", name);
    object = add_object(r, queue, text);
    if (object == NULL)
        return TQ_ENOMEM;
    object->declared = true;
    rv = add_typeid(r, object, name);
    getter_name(queue, text);
    if (rv == TQ_OK)
        rv = add_typeid(r, object, text);
    if (rv != TQ_OK) {
        pyregistry_drop(r, object);
        return rv;
    }
    broker_queue_set_user(queue, object);
    *ret_object = object;
    return TQ_OK;
}

int pyregistry_add_typeid(struct pyregistry *r, struct broker_queue *queue, const char *typeid_name)
{
    struct pyobject *object = broker_queue_user(queue);

    TQ_ASSERT(object != NULL && object->declared);
    return add_typeid(r, object, typeid_name);
}

struct pyobject *pyregistry_by_typeid(struct pyregistry *r, struct tq_span typeid_name)
{
    struct typeid_entry *t;

    HASH_FIND(hh, r->typeids, typeid_name.data, typeid_name.len, t);
    return t != NULL ? t->object : NULL;
}

bool pyregistry_is_factory(struct tq_span typeid_name)
{
    return tq_span_is(typeid_name, "Queue") || tq_span_is(typeid_name, "JoinableQueue");
}

int pyregistry_fresh_name(struct pyregistry *r, char out[64])
{
    uint64_t random[2];

    for (;;) {
        struct entry *e;
        int rv = tq_random_bytes(random, sizeof(random));

        if (rv != TQ_OK)
            return rv;
        snprintf(out, 64, "made-%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
        HASH_FIND(hh, r->objects, out, strlen(out), e);
        if (e == NULL)
            return TQ_OK;
    }
}

int pyregistry_make(struct pyregistry *r, struct broker_queue *queue, struct pyobject **ret_object)
{
    struct pyobject *object = add_object(r, queue, broker_queue_name(queue));

    if (object == NULL)
        return TQ_ENOMEM;
    broker_queue_set_user(queue, object);
    *ret_object = object;
    return TQ_OK;
}

#define SERIAL_BYTES 17 /* '#' and 16 hexadecimal digits */

static bool parse_serial(struct tq_span ident, uint64_t *ret_serial)
{
    uint64_t serial = 0;

    if (ident.len <= SERIAL_BYTES || ident.data[ident.len - SERIAL_BYTES] != '#')
        return false;
    for (size_t i = ident.len - SERIAL_BYTES + 1; i < ident.len; i++) {
        uint8_t c = ident.data[i];

        if (c >= '0' && c <= '9')
            serial = serial << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            serial = serial << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *ret_serial = serial;
    return true;
}

struct pyobject *pyregistry_by_ident(struct pyregistry *r, struct tq_span ident, uint64_t *ret_serial)
{
    struct entry *e;

    *ret_serial = 0;
    if (parse_serial(ident, ret_serial)) {
        HASH_FIND(hh, r->objects, ident.data, ident.len - SERIAL_BYTES, e);
        return e != NULL && e->object.declared ? &e->object : NULL;
    }
    HASH_FIND(hh, r->objects, ident.data, ident.len, e);
    return e != NULL ? &e->object : NULL;
}

uint64_t pyregistry_next_ident(struct pyregistry *r, const struct pyobject *o, char out[PYREGISTRY_IDENT_MAX])
{
    if (!o->declared) {
        snprintf(out, PYREGISTRY_IDENT_MAX, "%s", o->ident);
        return 0;
    }
    if (++r->last_serial == 0)
        r->last_serial = 1;
    snprintf(out, PYREGISTRY_IDENT_MAX, "%s#%016llx", o->ident, (unsigned long long)r->last_serial);
    return r->last_serial;
}

static void drop_typeids(struct pyregistry *r, struct pyobject *o)
{
    char getter[BROKER_QUEUE_NAME_MAX + 8];
    struct typeid_entry *t;
    struct typeid_entry *next;

    drop_typeid(r, o, broker_queue_name(o->queue));
    getter_name(o->queue, getter);
    drop_typeid(r, o, getter);
    if (o->typeid_count == 0)
        return;
    HASH_ITER(hh, r->typeids, t, next) /* further names: few queues have any */
    {
        if (t->object != o)
            continue;
        HASH_DEL(r->typeids, t);
        tq_free(t);
    }
}

void pyregistry_drop(struct pyregistry *r, struct pyobject *o)
{
    struct entry *e;

    if (o->declared)
        drop_typeids(r, o);
    broker_queue_set_user(o->queue, NULL);
    HASH_FIND(hh, r->objects, o->ident, o->ident_len, e);
    TQ_ASSERT(e != NULL && &e->object == o);
    HASH_DEL(r->objects, e);
    tq_free(e);
}

uint64_t pyregistry_count(const struct pyregistry *r)
{
    const struct entry *e;
    uint64_t n = 0;

    for (e = r->objects; e != NULL; e = e->hh.next)
        n += e->object.refcount > 0;
    return n;
}

static int by_ident(const void *a, const void *b)
{
    return strcmp((*(const struct pyobject *const *)a)->ident, (*(const struct pyobject *const *)b)->ident);
}

int pyregistry_debug_info(const struct pyregistry *r, struct tq_buf *out)
{
    size_t count = 0;
    size_t max = HASH_COUNT(r->objects);
    const struct pyobject **list;
    const struct entry *e;
    int rv = TQ_OK;

    list = tq_malloc((max + 1) * sizeof(*list));
    if (list == NULL)
        return TQ_ENOMEM;
    for (e = r->objects; e != NULL; e = e->hh.next) {
        if (e->object.refcount > 0)
            list[count++] = &e->object;
    }
    qsort(list, count, sizeof(*list), by_ident);
    for (size_t i = 0; i < count && rv == TQ_OK; i++) {
        char line[2 * BROKER_QUEUE_NAME_MAX + 160];

        snprintf(line, sizeof(line), "%s  %s:       refcount=%lld\n    <taskq queue '%.40s' of %llu items>",
                 i > 0 ? "\n" : "", list[i]->ident, (long long)list[i]->refcount,
                 broker_queue_name(list[i]->queue), (unsigned long long)broker_queue_size(list[i]->queue));
        rv = tq_buf_append_str(out, line);
    }
    tq_free(list);
    return rv;
}
