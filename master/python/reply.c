#include "common/err.h"
#include "common/log.h"
#include "master/python/dialect_impl.h"

#define SCRATCH_KEPT_BYTES (1024u * 1024) /* of what a long reply took */

bool pypeer_send(struct peer *p, int rv)
{
    struct tq_buf *buf = &p->server->scratch;
    bool sent;

    if (rv != TQ_OK) {
        peer_close(p, tq_strerror(rv));
        return false;
    }
    sent = peer_send(p, tq_buf_span(buf), NULL);
    if (buf->cap > SCRATCH_KEPT_BYTES)
        tq_buf_deinit(buf);
    return sent;
}

struct tq_buf *pypeer_scratch(struct peer *p)
{
    tq_buf_clear(&p->server->scratch);
    return &p->server->scratch;
}

void pypeer_traceback(struct peer *p, const char *text)
{
    (void)pypeer_send(p, tq_py_reply_traceback(pypeer_scratch(p), text));
}

void pypeer_error(struct peer *p, enum tq_py_exception kind, const char *text)
{
    (void)pypeer_send(p, tq_py_reply_error(pypeer_scratch(p), kind, text));
}

void pypeer_none(struct peer *p)
{
    (void)pypeer_send(p, tq_py_reply_none(pypeer_scratch(p)));
}

const char *pypeer_shown(char out[PYPEER_SHOWN_MAX], struct tq_span name)
{
    return tq_log_quote(out, PYPEER_SHOWN_MAX, name.data, name.len);
}

void pypeer_key_error(struct peer *p, struct tq_span name, const char *hint)
{
    char text[PYPEER_SHOWN_MAX + 200];
    char quoted[PYPEER_SHOWN_MAX];

    snprintf(text, sizeof(text), "%s\nKeyError: '%s'", hint, pypeer_shown(quoted, name));
    pypeer_traceback(p, text);
}
