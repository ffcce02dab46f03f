#include "master/python/dialect_impl.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "master/access/access.h"
#include "master/python/call.h"

static bool may_control(struct peer *p, enum key_right right, const char *verb,
                        const struct broker_queue *queue)
{
    char text[ACCESS_TEXT_MAX];
    char whole[ACCESS_TEXT_MAX + 32];

    if (access_allowed(p, right, verb, queue, text))
        return true;
    snprintf(whole, sizeof(whole), "PermissionError: %s", text);
    pypeer_traceback(p, whole);
    return false;
}

static bool str_arg(const struct tq_py_request *r, uint32_t i, struct tq_span *ret)
{
    struct tq_pk_value v;

    if (i >= r->arg_count || tq_pk_decode(&r->pickle, r->args[i], &v) != 0 || v.kind != TQ_PK_STR)
        return false;
    *ret = v.bytes;
    return true;
}

static void control_dummy(struct peer *p, const struct tq_py_request *r)
{
    (void)r;
    pypeer_none(p);
}

static void reply_created(struct peer *p, struct pyobject *o)
{
    struct server *s = p->server;
    char ident[PYREGISTRY_IDENT_MAX];
    struct pyrefs_key key = {.object = o->number, .serial = pyregistry_next_ident(s->registry, o, ident)};

    o->refcount++;
    pyrefs_create(&s->refs, key);
    (void)pypeer_send(p, tq_py_reply_created(pypeer_scratch(p), tq_span_str(ident), pymethod_exposed,
                                             PYMETHOD_EXPOSED_COUNT));
}

static void create_made(struct peer *p, const struct tq_py_request *r)
{
    struct server *s = p->server;
    struct broker_queue_conf conf;
    struct broker_queue *queue;
    struct broker_effects none = {0};
    struct pyobject *object;
    char text[PYCALL_TEXT_MAX];
    char whole[PYCALL_TEXT_MAX + 32];
    char name[64];
    int rv;

    if (!may_control(p, KEY_MAKE, "create", NULL))
        return;
    broker_queue_conf_init(&conf);
    conf.factory_made = true;
    conf.durability = s->config->durability;
    if (pycall_bind_factory(r, &conf.maxsize, text) != 0) {
        snprintf(whole, sizeof(whole), "TypeError: %s", text);
        pypeer_traceback(p, whole);
        return;
    }
    rv = pyregistry_fresh_name(s->registry, name);
    if (rv == TQ_OK)
        rv = broker_declare(s->broker, name, &conf, &queue);
    if (rv == TQ_OK) {
        rv = pyregistry_make(s->registry, queue, &object);
        if (rv != TQ_OK)
            broker_remove(s->broker, queue, &none);
    }
    if (rv != TQ_OK) {
        tq_log(TQ_LOG_WARN, "NO-NEW-QUEUE", "peer=%s err=\"%s\" remedy=\"raise --max-queues\"", peer_text(p),
               tq_strerror(rv));
        snprintf(whole, sizeof(whole), "RuntimeError: no queue can be made: %s%s", tq_strerror(rv),
                 rv == TQ_ELIMIT ? " (--max-queues)" : "");
        pypeer_traceback(p, whole);
        return;
    }
    reply_created(p, object);
}

static void control_create(struct peer *p, const struct tq_py_request *r)
{
    struct tq_span typeid_name;
    struct pyobject *o;
    char text[PYPEER_SHOWN_MAX + 120];
    char quoted[PYPEER_SHOWN_MAX];

    if (!str_arg(r, 0, &typeid_name)) {
        pypeer_traceback(p, "TypeError: create() needs the name of a registered type");
        return;
    }
    o = pyregistry_by_typeid(p->server->registry, typeid_name);
    if (o == NULL && pyregistry_is_factory(typeid_name)) {
        create_made(p, r);
        return;
    }
    if (o == NULL) {
        pypeer_key_error(p, typeid_name,
                         "no queue of this task-master answers to this name: start it with --queue NAME "
                         "(it answers to get_NAME, too) or --queue NAME,typeid=...");
        return;
    }
    if (r->arg_count > 1 || r->kwarg_count > 0) {
        snprintf(text, sizeof(text), "TypeError: %s() takes 0 positional arguments but %u was given",
                 pypeer_shown(quoted, typeid_name), r->arg_count - 1 + r->kwarg_count);
        pypeer_traceback(p, text);
        return;
    }
    reply_created(p, o);
}

static struct pyobject *object_arg(struct peer *p, const struct tq_py_request *r, struct pyrefs_key *ret_key)
{
    struct tq_span ident;
    struct pyobject *o;

    if (!str_arg(r, 0, &ident)) {
        pypeer_traceback(p, "TypeError: the ident of an object is missing");
        return NULL;
    }
    o = pyregistry_by_ident(p->server->registry, ident, &ret_key->serial);
    if (o == NULL)
        pypeer_key_error(p, ident, "this task-master has no such object (any more)");
    else
        ret_key->object = o->number;
    return o;
}

static void control_incref(struct peer *p, const struct tq_py_request *r)
{
    struct pyrefs_key key;
    struct pyobject *o = object_arg(p, r, &key);

    if (o == NULL || !may_control(p, KEY_REFER, "incref", o->queue))
        return;
    o->refcount++;
    pyrefs_incref(&p->server->refs, key);
    pypeer_none(p);
}

static void control_decref(struct peer *p, const struct tq_py_request *r)
{
    struct server *s = p->server;
    struct pyrefs_key key;
    struct pyobject *o = object_arg(p, r, &key);
    struct pyrefs_session *waited;

    if (o == NULL || !may_control(p, KEY_REFER, "decref", o->queue))
        return;
    if (o->refcount > 0)
        o->refcount--;
    waited = pyrefs_decref(&s->refs, key, server_now_ms(s));
    if (waited != NULL)
        pydialect_limbo_over(
            ((struct pypeer *)(void *)((char *)waited - offsetof(struct pypeer, refs)))->peer,
            BROKER_CLOSE_ACK);
    if (o->refcount == 0 && !o->declared && !o->orphan)
        (void)server_remove_queue(s, o->queue); /* before the reply, which waits for what it tells of */
    pypeer_none(p);
}

static void control_accept(struct peer *p, const struct tq_py_request *r)
{
    struct tq_span name;

    if (!str_arg(r, 0, &name))
        name = tq_span("", 0);
    if (pypeer_begin_session(p, name))
        pypeer_none(p);
}

static void control_get_methods(struct peer *p, const struct tq_py_request *r)
{
    struct tq_pk_range state;
    struct tq_pk_range *parts = NULL;
    struct tq_pk_value v = {.kind = TQ_PK_NONE};
    uint32_t count = 0;
    uint64_t serial;

    /* the argument is a Token: an object whose state is (typeid, address, id) */
    if (r->arg_count != 1 || tq_pk_reduce_args(&r->pickle, r->args[0], true, &state) != 0 ||
        tq_pk_children(&r->pickle, state, &parts, &count) != 0 || count != 3 ||
        tq_pk_decode(&r->pickle, parts[2], &v) != 0 || v.kind != TQ_PK_STR)
        pypeer_traceback(p, "TypeError: get_methods() needs a Token");
    else if (pyregistry_by_ident(p->server->registry, v.bytes, &serial) == NULL)
        pypeer_key_error(p, v.bytes, "this task-master has no such object (any more)");
    else
        (void)pypeer_send(p, tq_py_reply_names(pypeer_scratch(p), pymethod_exposed, PYMETHOD_EXPOSED_COUNT));
    tq_free(parts);
}

static void control_number_of_objects(struct peer *p, const struct tq_py_request *r)
{
    (void)r;
    if (!may_control(p, KEY_INSPECT, "number_of_objects", NULL))
        return;
    (void)pypeer_send(p, tq_py_reply_int(pypeer_scratch(p), (int64_t)pyregistry_count(p->server->registry)));
}

static void control_debug_info(struct peer *p, const struct tq_py_request *r)
{
    struct tq_buf text = TQ_BUF_NULL(16 * 1024 * 1024);
    int rv;

    (void)r;
    if (!may_control(p, KEY_INSPECT, "debug_info", NULL))
        return;
    rv = pyregistry_debug_info(p->server->registry, &text);
    if (rv == TQ_OK)
        rv = tq_py_reply_str(pypeer_scratch(p), tq_buf_span(&text));
    tq_buf_deinit(&text);
    (void)pypeer_send(p, rv);
}

static void control_shutdown(struct peer *p, const struct tq_py_request *r)
{
    struct tq_buf *buf;
    int rv;

    (void)r;
    if (!may_control(p, KEY_STOP, "shutdown", NULL))
        return;
    if (!p->server->config->allow_shutdown) {
        tq_log(TQ_LOG_WARN, "SHUTDOWN-REFUSED", "peer=%s", peer_text(p));
        pypeer_traceback(p,
                         "PermissionError: this task-master is shared and does not obey shutdown(): stop it "
                         "where it runs, or start it with --allow-shutdown");
        return;
    }
    tq_log(TQ_LOG_INFO, "SHUTDOWN", "peer=%s", peer_text(p));
    buf = pypeer_scratch(p);
    rv = tq_py_reply_none(buf); /* Python's server sends the reply twice, and its clients expect no less */
    if (rv == TQ_OK)
        rv = tq_py_reply_none(buf);
    (void)pypeer_send(p, rv);
    server_stop(p->server, "a client asked for it", 0);
}

static const struct {
    const char *name;
    unsigned least; /* arguments */
    unsigned most;
    void (*handle)(struct peer *p, const struct tq_py_request *r);
} controls[] = {
    {"dummy", 0, 0, control_dummy},
    {"create", 1, TQ_PY_ARGS_MAX, control_create},
    {"incref", 1, 1, control_incref},
    {"decref", 1, 1, control_decref},
    {"accept_connection", 1, 1, control_accept},
    {"get_methods", 1, 1, control_get_methods},
    {"number_of_objects", 0, 0, control_number_of_objects},
    {"debug_info", 0, 0, control_debug_info},
    {"shutdown", 0, 0, control_shutdown},
};

void pycontrol_request(struct peer *p, const struct tq_py_request *r)
{
    char text[PYPEER_SHOWN_MAX + 80];
    char quoted[PYPEER_SHOWN_MAX];

    p->server->counters.control_calls++;
    for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
        if (!tq_span_is(r->function, controls[i].name))
            continue;
        if (r->arg_count >= controls[i].least && r->arg_count <= controls[i].most) {
            controls[i].handle(p, r);
            return;
        }
        snprintf(text, sizeof(text), "TypeError: %s() takes %u argument%s but %u were given",
                 controls[i].name, controls[i].least, controls[i].least == 1 ? "" : "s", r->arg_count);
        pypeer_traceback(p, text);
        return;
    }
    snprintf(text, sizeof(text), "AssertionError: '%s' unrecognized", pypeer_shown(quoted, r->function));
    pypeer_traceback(p, text);
}
