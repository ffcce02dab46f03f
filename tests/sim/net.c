/* The net: connections are two streams of bytes, each with its delay, which can be cut at any byte, in both
 * directions or in one, or stand still for a while. */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/err.h"
#include "common/mem.h"
#include "tests/lib/mptext.h"
#include "tests/sim/sim.h"

#define KEEPALIVE_MS 60000u /* then the system gives a dead connection up */

static void pipe_init(struct sim_pipe *p)
{
    tq_buf_init(&p->bytes, SIZE_MAX / 2);
    p->eof_at = SIM_NEVER;
}

static void pipe_deinit(struct sim_pipe *p)
{
    tq_buf_deinit(&p->bytes);
    tq_free(p->segments);
    *p = (struct sim_pipe){.black = true, .eof_at = SIM_NEVER};
}

static void must(int rv)
{
    TQ_ASSERT(rv == TQ_OK);
}

struct sim_link *sim_connect(struct sim *s, int actor)
{
    struct sim_link *l = tq_calloc(1, sizeof(*l));

    TQ_ASSERT(l != NULL);
    if (s->link_count == SIM_LINKS)
        sim_fail(s, "more connections than the simulation has room for");
    *l = (struct sim_link){.sim = s,
                           .index = s->link_count,
                           .actor = actor,
                           .used = true,
                           .server_open = true,
                           .client_open = true,
                           .how = NATIVE_SOCKET_CLOSED,
                           .delay_ms = sim_below(s, 12),
                           .jitter_ms = 1 + sim_below(s, s->plan.late && !s->calm ? 60 : 6)};
    pipe_init(&l->up);
    pipe_init(&l->down);
    tq_buf_init(&l->server_in, SIZE_MAX / 2);
    tq_buf_init(&l->client_in, SIZE_MAX / 2);
    tq_buf_init(&l->held_bytes, SIZE_MAX / 2);
    s->links[s->link_count++] = l;
    native_open(s->native, &l->conn, 0);
    m_conn_opened(s->model, l->index);
    sim_note(s, "connect %d: %s", l->index, s->actors[actor].name);
    return l;
}

static void write_pipe(struct sim_link *l, struct sim_pipe *p, enum sim_event_kind kind, struct tq_span bytes)
{
    struct sim *s = l->sim;
    uint64_t at = s->now_ms + l->delay_ms + sim_below(s, l->jitter_ms);

    if (p->black || p->eof_at != SIM_NEVER || bytes.len == 0)
        return;
    if (at < p->last_at)
        at = p->last_at;
    if (p->count == p->cap) {
        p->cap = p->cap > 0 ? p->cap * 2 : 8;
        p->segments = tq_realloc(p->segments, p->cap * sizeof(*p->segments));
        TQ_ASSERT(p->segments != NULL);
    }
    p->segments[p->count++] = (struct sim_segment){.at = at, .len = (uint32_t)bytes.len};
    p->last_at = at;
    must(tq_buf_append(&p->bytes, bytes.data, bytes.len));
    sim_at(s, at, kind, l->index, 0);
}

void sim_send(struct sim_link *l, struct tq_span bytes)
{
    uint32_t first = (uint32_t)bytes.len;

    if (!l->client_open)
        return;
    if (bytes.len > 1 && sim_chance(l->sim, 100)) /* in two pieces */
        first = 1 + sim_below(l->sim, (uint32_t)bytes.len - 1);
    write_pipe(l, &l->up, EV_UP, tq_span(bytes.data, first));
    write_pipe(l, &l->up, EV_UP, tq_span(bytes.data + first, bytes.len - first));
}

/* The bytes that have arrived by now go over to *in. True: so has the end. */
static bool arrive(struct sim_link *l, struct sim_pipe *p, enum sim_event_kind kind, struct tq_buf *in)
{
    struct sim *s = l->sim;
    size_t len = 0;
    uint32_t n = 0;

    if (l->frozen_until > s->now_ms) {
        sim_at(s, l->frozen_until, kind, l->index, 0);
        return false;
    }
    while (n < p->count && p->segments[n].at <= s->now_ms)
        len += p->segments[n++].len;
    if (len > 0) {
        must(tq_buf_append(in, p->bytes.data, len));
        tq_buf_consume(&p->bytes, len);
        memmove(p->segments, p->segments + n, (p->count - n) * sizeof(*p->segments));
        p->count -= n;
    }
    return p->count == 0 && p->eof_at <= s->now_ms;
}

/* Of what is on its way only the first bytes arrive, and then, after a while, the end. */
static void cut_pipe(struct sim_link *l, struct sim_pipe *p, enum sim_event_kind kind, uint64_t eof_in)
{
    struct sim *s = l->sim;
    size_t keep = p->bytes.len > 0 ? sim_below(s, (uint32_t)p->bytes.len + 1) : 0;
    uint32_t n = 0;

    if (p->eof_at != SIM_NEVER)
        return;
    p->bytes.len = keep;
    while (keep > 0) {
        if (p->segments[n].len > keep)
            p->segments[n].len = (uint32_t)keep;
        keep -= p->segments[n++].len;
    }
    p->count = n;
    p->black = true;
    p->eof_at = s->now_ms + eof_in;
    if (p->eof_at < p->last_at)
        p->eof_at = p->last_at;
    sim_at(s, p->eof_at, kind, l->index, 0);
}

void sim_cut(struct sim_link *l)
{
    struct sim *s = l->sim;
    uint64_t up_in = sim_below(s, 30), down_in = sim_below(s, 30);
    unsigned side = s->plan.half_open ? sim_below(s, 4) : 0;

    sim_note(s, "cut %d: %s", l->index,
             side == 2   ? "the master sees nothing"
             : side == 3 ? "the client sees nothing"
                         : "both");
    if (side == 2) {
        up_in = KEEPALIVE_MS / 4 + sim_below(s, KEEPALIVE_MS);
        l->how = NATIVE_FELL_SILENT;
    } else if (side == 3) {
        down_in = KEEPALIVE_MS / 4 + sim_below(s, KEEPALIVE_MS);
    }
    cut_pipe(l, &l->up, EV_UP, up_in);
    cut_pipe(l, &l->down, EV_DOWN, down_in);
}

/* The client's end goes; abrupt: it died, and what it wrote last may be lost. */
void sim_hang_up(struct sim_link *l, bool abrupt)
{
    struct sim *s = l->sim;

    if (!l->client_open)
        return;
    sim_note(s, "hang up %d%s", l->index, abrupt ? ", abruptly" : "");
    l->client_open = false;
    l->down.black = true;
    if (abrupt) {
        cut_pipe(l, &l->up, EV_UP, sim_below(s, 20));
    } else if (l->up.eof_at == SIM_NEVER) {
        l->up.eof_at = s->now_ms + l->delay_ms;
        if (l->up.eof_at < l->up.last_at)
            l->up.eof_at = l->up.last_at;
        sim_at(s, l->up.eof_at, EV_UP, l->index, 0);
    }
}

/* ---- the master's end ---- */

/* < is what the master got, > what it wrote. */
static void show(const struct sim_link *l, char direction, struct tq_span payload)
{
    struct sim *s = l->sim;
    char *text;

    if (s->trace == NULL)
        return;
    text = mptext_decode(payload);
    sim_note(s, "%d %s %c %s", l->index, s->actors[l->actor].name, direction, text);
    free(text);
}

/* The client gets what is on its way, and then the end. */
static void end_down(struct sim_link *l)
{
    l->down.eof_at = l->down.eof_at != SIM_NEVER ? l->down.eof_at : l->sim->now_ms + l->delay_ms;
    if (l->down.eof_at < l->down.last_at)
        l->down.eof_at = l->down.last_at;
    sim_at(l->sim, l->down.eof_at, EV_DOWN, l->index, 0);
}

static void server_gone(struct sim_link *l)
{
    l->server_open = false;
    native_closed(&l->conn, NATIVE_SOCKET_CLOSED); /* again, if the master closed it: nothing then */
    pipe_deinit(&l->up);
    if (l->held_bytes.len > 0)
        l->ends_after_it = true;
    else
        end_down(l);
}

void sim_link_wrote(struct sim_link *l)
{
    struct native_conn *c = &l->conn;
    struct tq_span out = tq_buf_span(&c->out);
    size_t at = 0;

    if (!l->server_open)
        return;
    if (c->closing == NATIVE_CLOSE_NOW)
        out.len = 0;
    while (at + 4 <= out.len) {
        uint32_t len = tq_load_be32(out.data + at);

        TQ_ASSERT(out.len - at - 4 >= len);
        show(l, '>', tq_span(out.data + at + 4, len));
        m_output(l->sim->model, l->index, tq_span(out.data + at + 4, len));
        at += 4 + (size_t)len;
    }
    TQ_ASSERT(at == out.len);
    if (l->sim->disk == NULL) {
        write_pipe(l, &l->down, EV_DOWN, out);
    } else {
        must(tq_buf_append(&l->held_bytes, out.data, out.len));
        l->fresh += (uint32_t)out.len;
        c->unsent = (uint32_t)l->held_bytes.len;
    }
    native_written(c);
    if (c->closing == NATIVE_STAYS)
        return;
    sim_note(l->sim, "the master closes %d: %s", l->index, c->close_why != NULL ? c->close_why : "?");
    server_gone(l);
    m_closed_by_master(l->sim->model, l->index);
}

static void server_frame(struct sim_link *l, struct tq_span payload)
{
    struct sim *s = l->sim;

    if (l->conn.closing != NATIVE_STAYS)
        return;
    show(l, '<', payload);
    m_step_begins(s->model, false);
    m_conn_heard(s->model, l->index);
    m_request(s->model, l->index, payload);
    native_frame(&l->conn, payload);
    sim_after_step(s);
}

void sim_link_up(struct sim_link *l)
{
    struct sim *s = l->sim;
    size_t before = l->server_in.len;
    bool over;

    if (!l->server_open)
        return;
    if (s->disk != NULL && store_is_busy(s->disk->store)) { /* it reads later */
        sim_at(s, s->now_ms + 2, EV_UP, l->index, 0);
        return;
    }
    over = arrive(l, &l->up, EV_UP, &l->server_in);
    if (l->server_in.len > before) {
        native_heard(&l->conn, s->now_ms);
        s->model->now = s->now_ms;
        m_conn_heard(s->model, l->index);
    }
    while (l->server_open && l->server_in.len >= 4) {
        uint32_t len = tq_load_be32(l->server_in.data);
        uint8_t *copy;

        if (l->server_in.len - 4 < len)
            break;
        copy = tq_malloc(len);
        TQ_ASSERT(copy != NULL);
        memcpy(copy, l->server_in.data + 4, len);
        tq_buf_consume(&l->server_in, 4 + (size_t)len);
        server_frame(l, tq_span(copy, len));
        tq_free(copy);
    }
    if (!over || !l->server_open)
        return;
    sim_note(s, "the master sees the end of %d%s", l->index,
             l->how == NATIVE_FELL_SILENT ? ", by keepalive" : "");
    m_step_begins(s->model, false);
    m_conn_ended(s->model, l->index, l->how == NATIVE_FELL_SILENT);
    native_closed(&l->conn, l->how);
    server_gone(l);
    sim_after_step(s);
}

/* ---- the client's end ---- */

void sim_link_down(struct sim_link *l)
{
    struct sim *s = l->sim;
    struct sim_actor *a = &s->actors[l->actor];
    bool over;

    if (!l->client_open)
        return;
    if (a->frozen_until > s->now_ms) { /* it reads later */
        sim_at(s, a->frozen_until, EV_DOWN, l->index, 0);
        return;
    }
    over = arrive(l, &l->down, EV_DOWN, &l->client_in);
    while (l->client_open && l->client_in.len >= 4) {
        uint32_t len = tq_load_be32(l->client_in.data);
        uint8_t *copy;

        if (l->client_in.len - 4 < len)
            break;
        copy = tq_malloc(len);
        TQ_ASSERT(copy != NULL);
        memcpy(copy, l->client_in.data + 4, len);
        tq_buf_consume(&l->client_in, 4 + (size_t)len);
        if (a->link == l->index)
            sim_native_frame(a, tq_span(copy, len));
        tq_free(copy);
    }
    if (!over || !l->client_open)
        return;
    l->client_open = false;
    if (a->link == l->index)
        sim_native_lost(a);
}

void sim_link_free(struct sim_link *l)
{
    if (l->server_open) {
        native_closed(&l->conn, NATIVE_SOCKET_CLOSED);
        l->server_open = false;
    }
    pipe_deinit(&l->up);
    pipe_deinit(&l->down);
    tq_buf_deinit(&l->server_in);
    tq_buf_deinit(&l->client_in);
    tq_buf_deinit(&l->held_bytes);
    tq_free(l->held);
    tq_free(l);
}

/* ---- with a disk ---- */

void sim_link_seal(struct sim_link *l, struct log_need need)
{
    if (l->fresh == 0)
        return;
    if (l->held_count == l->held_cap) {
        l->held_cap = l->held_cap > 0 ? l->held_cap * 2 : 8;
        l->held = tq_realloc(l->held, l->held_cap * sizeof(*l->held));
        TQ_ASSERT(l->held != NULL);
    }
    l->held[l->held_count++] = (struct sim_held){
        .need = need, .len = l->fresh, .soft = l->sim->disk->soft, .hard = l->sim->disk->hard};
    l->fresh = 0;
}

void sim_link_release(struct sim_link *l)
{
    struct sim *s = l->sim;
    uint32_t n = 0;

    while (n < l->held_count && store_is_met(s->disk->store, l->held[n].need)) {
        const struct sim_held *h = &l->held[n++];

        sim_disk_sent(s, h->soft, h->hard);
        write_pipe(l, &l->down, EV_DOWN, tq_span(l->held_bytes.data, h->len));
        tq_buf_consume(&l->held_bytes, h->len);
    }
    if (n == 0)
        return;
    l->conn.unsent = (uint32_t)l->held_bytes.len;
    l->held_count -= n;
    memmove(l->held, l->held + n, l->held_count * sizeof(*l->held));
    if (l->ends_after_it && l->held_bytes.len == 0)
        end_down(l);
}

void sim_link_crash(struct sim_link *l, uint64_t eof_in)
{
    bool was_over = !l->server_open && !l->ends_after_it;

    if (l->server_open)
        native_closed(&l->conn, NATIVE_SOCKET_CLOSED);
    l->server_open = l->ends_after_it = false;
    l->held_count = l->fresh = 0;
    tq_buf_clear(&l->held_bytes);
    pipe_deinit(&l->up);
    if (!was_over)
        cut_pipe(l, &l->down, EV_DOWN, eof_in);
}
