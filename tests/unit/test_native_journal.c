/* Sessions that outlive the master: what is written down of them and when, where it is at home in the log,
 * and a master that begins with it. */
#include <utlist.h>

#include "master/native/native_impl.h"
#include "tests/lib/guard.h"
#include "tests/unit/native_talk.h"

#define OPS_LIST_MAX 4000u

/* One op of a collect, borrowed. */
struct op {
    uint8_t op;
    struct tq_span body;
};

/* What a session's op says. */
struct said {
    uint64_t id, heartbeat_ms, since_ms, next_id;
    struct tq_span worker, client, key;
    uint8_t token[16], token_before[16], unconfirmed;
};

static size_t split(struct tq_span in, struct op *ops)
{
    size_t n = 0;

    while (in.len > 0) {
        assert_true(n < OPS_LIST_MAX);
        assert_true(ops_get_u8(&in, &ops[n].op));
        assert_true(ops_get_text(&in, 4096, &ops[n].body));
        n++;
    }
    return n;
}

static struct said read_session(struct op op)
{
    struct tq_span in = op.body;
    struct said s;

    assert_int_equal(op.op, OPS_SESSION);
    assert_true(ops_get(&in, &s.id) && ops_get_text(&in, 128, &s.worker) &&
                ops_get_text(&in, 128, &s.client) && ops_get_text(&in, 255, &s.key) && in.len > 33);
    memcpy(s.token, in.data, 16);
    memcpy(s.token_before, in.data + 16, 16);
    s.unconfirmed = in.data[32];
    in = tq_span(in.data + 33, in.len - 33);
    assert_true(ops_get(&in, &s.heartbeat_ms) && ops_get(&in, &s.since_ms) && ops_get(&in, &s.next_id));
    assert_int_equal(in.len, 0);
    return s;
}

static uint64_t read_gone(struct op op)
{
    uint64_t id = 0;

    assert_int_equal(op.op, OPS_SESSION_GONE);
    assert_true(ops_get(&op.body, &id));
    assert_int_equal(op.body.len, 0);
    return id;
}

static size_t collect(struct native_rig *r, uint64_t segment, struct tq_buf *buf, struct op *ops)
{
    tq_buf_clear(buf);
    assert_int_equal(native_journal_collect(r->native, segment, buf), TQ_OK);
    return split(tq_buf_span(buf), ops);
}

static void setup_journal(struct native_rig *r)
{
    setup(r);
    native_journal_enable(r->native);
}

/* A master that reads them, and goes on. */
static void restore(struct native_rig *r, const struct tq_buf *log, uint64_t segment)
{
    struct op ops[64];
    size_t n = split(tq_buf_span(log), ops);
    char text[200];

    for (size_t i = 0; i < n; i++)
        assert_int_equal(native_restore_op(r->native, ops[i].op, ops[i].body, segment, text), TQ_OK);
}

static void come_to_life(struct native_rig *r)
{
    assert_int_equal(native_restore_finish(r->native), TQ_OK);
    native_restore_wait(r->native);
    native_rig_flush(r);
}

static void what_is_written_of_a_session(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1u << 20);
    struct native_rig r;
    struct native_client *w;
    struct token token;
    struct op ops[4];
    struct said s, t;

    (void)state;
    setup_journal(&r);
    r.now_ms = 5000;
    (void)client(&r, "");
    assert_false(native_journal_has_news(r.native)); /* it ends with its connection */
    w = native_rig_connect(&r, 3);
    token = hello_token(w, "{version:1,worker:'host/w:1',client:'me',heartbeat_ms:2000}");
    assert_true(native_journal_has_news(r.native));
    assert_int_equal(collect(&r, 7, &buf, ops), 1);
    assert_false(native_journal_has_news(r.native));
    s = read_session(ops[0]);
    assert_int_equal(s.id, 1);
    assert_true(tq_span_is(s.worker, "host/w:1") && tq_span_is(s.client, "me") && tq_span_is(s.key, "k3"));
    assert_int_equal(s.heartbeat_ms, 2000);
    assert_int_equal(s.since_ms, 5000);
    assert_int_equal(s.next_id, 2);
    assert_int_equal(s.unconfirmed, 0);
    assert_int_equal(collect(&r, 7, &buf, ops), 0);
    /* tasks, pings, a lost connection: nothing of the session's own changes */
    say(w, "[0,1,'ping',{}]");
    native_rig_close(w, NATIVE_SOCKET_CLOSED);
    assert_false(native_journal_has_news(r.native));
    /* it comes back: another token, and the one that it has shown is good until it is seen to have the other
     */
    w = native_rig_connect(&r, 3);
    say(w, "[0,0,'hello',{version:1,worker:'host/w:1',token:%s}]", token.text);
    hear(w, "[1,0,nil,{*resumed:true,*}]");
    assert_int_equal(collect(&r, 8, &buf, ops), 1);
    t = read_session(ops[0]);
    assert_int_equal(t.id, 1);
    assert_int_equal(t.unconfirmed, 1);
    assert_int_equal(t.client.len, 0);
    assert_int_equal(t.heartbeat_ms, 0);
    assert_int_equal(t.since_ms, 5000);
    assert_memory_equal(t.token_before, s.token, 16);
    assert_memory_not_equal(t.token, s.token, 16);
    memcpy(s.token, t.token, 16);
    say(w, "[0,1,'ping',{}]");
    assert_int_equal(collect(&r, 8, &buf, ops), 1);
    t = read_session(ops[0]);
    assert_int_equal(t.unconfirmed, 0);
    assert_memory_equal(t.token, s.token, 16);
    say(w, "[0,2,'ping',{}]");
    assert_false(native_journal_has_news(r.native));
    /* its end; and of another one that came and went within a turn nothing is known */
    say(w, "[0,3,'bye',{}]");
    say(client(&r, "short"), "[0,1,'bye',{}]");
    assert_int_equal(collect(&r, 8, &buf, ops), 1);
    assert_int_equal(read_gone(ops[0]), 1);
    assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
    /* a worker whose session ended has another one: the end is told first */
    (void)client(&r, "host/w:1");
    assert_int_equal(collect(&r, 8, &buf, ops), 1);
    assert_int_equal(read_session(ops[0]).id, 3);
    native_rig_close(r.clients->prev, NATIVE_SOCKET_CLOSED);
    (void)client(&r, "host/w:1");
    assert_int_equal(collect(&r, 8, &buf, ops), 2);
    assert_int_equal(read_gone(ops[0]), 3);
    assert_int_equal(read_session(ops[1]).id, 4);
    assert_int_equal(read_session(ops[1]).next_id, 5);
    tq_buf_deinit(&buf);
    teardown(&r);
}

static void without_a_journal_nothing_is_noted(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1000);
    struct native_rig r;
    struct op ops[1];

    (void)state;
    setup(&r);
    say(client(&r, "w"), "[0,1,'bye',{}]");
    (void)client(&r, "v");
    assert_false(native_journal_has_news(r.native));
    assert_int_equal(collect(&r, 1, &buf, ops), 0);
    teardown(&r);
}

/* Until hello's reply has been written, what comes was sent by one who cannot know the new token. */
static void what_came_before_the_reply_confirms_nothing(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1u << 20);
    struct native_rig r;
    struct native_client *w;
    struct token token;
    struct op ops[4];

    (void)state;
    setup_journal(&r);
    w = native_rig_connect(&r, 0);
    token = hello_token(w, "{version:1,worker:'w'}");
    native_rig_close(w, NATIVE_SOCKET_CLOSED);
    w = native_rig_connect(&r, 0);
    native_rig_stall(w, true);
    say(w, "[0,1,'hello',{version:1,worker:'w',token:%s}]", token.text);
    say(w, "[0,2,'ping',{}]");
    assert_int_equal(collect(&r, 1, &buf, ops), 1);
    assert_int_equal(read_session(ops[0]).unconfirmed, 1);
    native_rig_forget(w); /* with the reply */
    w = native_rig_connect(&r, 0);
    say(w, "[0,1,'hello',{version:1,worker:'w',token:%s}]", token.text);
    hear(w, "[1,1,nil,{*resumed:true,*}]");
    say(w, "[0,2,'ping',{}]");
    assert_int_equal(collect(&r, 1, &buf, ops), 1);
    assert_int_equal(read_session(ops[0]).unconfirmed, 0);
    tq_buf_deinit(&buf);
    teardown(&r);
}

static void a_collect_that_fails_forgets_nothing(void **state)
{
    struct tq_buf all = TQ_BUF_NULL(1u << 20);
    struct op ops[4];
    struct native_rig r;
    size_t n;

    (void)state;
    setup_journal(&r);
    (void)client(&r, "a");
    (void)client(&r, "b");
    assert_int_equal(collect(&r, 1, &all, ops), 2);
    say(r.clients, "[0,1,'bye',{}]");
    native_rig_close(r.clients->next, NATIVE_SOCKET_CLOSED);
    (void)client(&r, "b");
    (void)client(&r, "c");
    assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
    for (size_t max = 0; max < 1200; max += 7) { /* it reserves room for the longest ops that there are */
        struct tq_buf buf = TQ_BUF_NULL(max);

        if (native_journal_collect(r.native, 2, &buf) == TQ_OK) {
            assert_true(max > 100);
            tq_buf_deinit(&buf);
            break;
        }
        assert_int_equal(buf.len, 0);
        assert_true(native_journal_has_news(r.native));
        assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
        tq_buf_deinit(&buf);
        assert_true(max < 1190);
    }
    assert_false(native_journal_has_news(r.native));
    assert_int_equal(native_journal_oldest(r.native), 2);
    for (long after = 0;; after++) {
        struct tq_buf buf = TQ_BUF_NULL(1u << 20);
        int rv;

        (void)client(&r, "d");
        tq_mem_fail_after(after, 1);
        rv = native_journal_collect(r.native, 3, &buf);
        tq_mem_fail_after(-1, 0);
        if (rv == TQ_OK) {
            assert_true(after > 0);
            n = split(tq_buf_span(&buf), ops);
            assert_int_equal(n, 1);
            assert_true(tq_span_is(read_session(ops[0]).worker, "d"));
            tq_buf_deinit(&buf);
            break;
        }
        assert_int_equal(rv, TQ_ENOMEM);
        assert_int_equal(buf.len, 0);
        tq_buf_deinit(&buf);
        assert_true(native_journal_has_news(r.native));
        native_rig_close(r.clients->prev, NATIVE_REVOKED);
    }
    tq_buf_deinit(&all);
    teardown(&r);
}

static void homes(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1u << 20);
    uint64_t sessions, bytes;
    struct native_rig r;
    struct native_client *a, *b;
    struct op ops[4];
    size_t a_bytes;

    (void)state;
    setup_journal(&r);
    assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
    assert_int_equal(native_journal_live_bytes(r.native, &sessions), 0);
    a = client(&r, "a");
    assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
    assert_int_equal(collect(&r, 0, &buf, ops), 1);
    a_bytes = buf.len;
    b = client(&r, "bb");
    assert_int_equal(collect(&r, 5, &buf, ops), 1);
    assert_int_equal(native_journal_live_bytes(r.native, &sessions), a_bytes + buf.len);
    assert_int_equal(sessions, 2);
    assert_int_equal(native_journal_oldest(r.native), 0);
    /* moved forward: as it is then; once */
    native_journal_move(r.native, 3);
    assert_true(native_journal_has_news(r.native));
    assert_int_equal(collect(&r, 6, &buf, ops), 1);
    assert_true(tq_span_is(read_session(ops[0]).worker, "a"));
    assert_false(native_journal_has_news(r.native));
    assert_int_equal(native_journal_oldest(r.native), 5);
    /* not into the segment that it stands in already, but out of it as soon as there is another one */
    native_journal_move(r.native, 6);
    assert_int_equal(collect(&r, 6, &buf, ops), 1);
    assert_true(tq_span_is(read_session(ops[0]).worker, "bb"));
    assert_false(native_journal_has_news(r.native));
    assert_int_equal(native_journal_oldest(r.native), 6);
    native_journal_move(r.native, UINT64_MAX - 1);
    assert_int_equal(collect(&r, 7, &buf, ops), 2);
    assert_int_equal(native_journal_oldest(r.native), 7);
    bytes = native_journal_live_bytes(r.native, &sessions);
    assert_int_equal(sessions, 2);
    assert_int_equal(bytes, buf.len);
    native_rig_close(a, NATIVE_REVOKED);
    native_rig_close(b, NATIVE_REVOKED);
    assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
    assert_int_equal(native_journal_live_bytes(r.native, &sessions), 0);
    assert_int_equal(sessions, 0);
    assert_int_equal(collect(&r, 7, &buf, ops), 2);
    assert_int_equal(read_gone(ops[0]), 1);
    assert_int_equal(read_gone(ops[1]), 2);
    tq_buf_deinit(&buf);
    teardown(&r);
}

static void many_move_in_slices(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1u << 20);
    struct native_rig r;
    struct op *ops = calloc(OPS_LIST_MAX, sizeof(*ops));
    size_t moved = 0;
    unsigned collects = 0;

    (void)state;
    assert_non_null(ops);
    setup_journal(&r);
    r.host.limits.sessions = 5000;
    for (unsigned i = 0; i < 2500; i++) {
        char name[8];

        (void)snprintf(name, sizeof(name), "w%u", i);
        native_rig_forget(client(&r, name));
    }
    assert_int_equal(collect(&r, 1, &buf, ops), 2500);
    native_journal_move(r.native, 1);
    while (native_journal_has_news(r.native)) {
        size_t n;

        if (++collects == 2)
            (void)client(&r, "new"); /* what has news is written with each of them */
        n = collect(&r, 2, &buf, ops);
        assert_true(n > 0 && n <= 1001);
        moved += n;
    }
    assert_int_equal(moved, 2501);
    assert_int_equal(collects, 3);
    assert_int_equal(native_journal_oldest(r.native), 2);
    tq_buf_deinit(&buf);
    teardown(&r);
    free(ops);
}

/* Three workers: one with a lease, one that has come back, one whose key will be gone. */
struct history {
    struct native_rig r;
    struct tq_buf log;
    struct token a, b, b_before;
};

static void make_history(struct history *h)
{
    struct native_client *w;
    struct op ops[8];
    struct tq_buf turn = TQ_BUF_NULL(1u << 20);

    tq_buf_init(&h->log, 1u << 20);
    setup_journal(&h->r);
    w = native_rig_connect(&h->r, 0);
    h->a = hello_token(w, "{version:1,worker:'a',client:'first',heartbeat_ms:5000}");
    w = native_rig_connect(&h->r, 1);
    h->b_before = hello_token(w, "{version:1,worker:'b'}");
    assert_int_equal(native_journal_collect(h->r.native, 3, &h->log), TQ_OK);
    w = native_rig_connect(&h->r, 2);
    (void)hello_token(w, "{version:1,worker:'gone'}");
    w = native_rig_connect(&h->r, 1);
    {
        char params[200];

        (void)snprintf(params, sizeof(params), "{version:1,worker:'b',token:%s}", h->b_before.text);
        h->b = hello_token(w, params);
    }
    say(client(&h->r, "ended"), "[0,1,'bye',{}]");
    assert_int_equal(collect(&h->r, 3, &turn, ops), 2);
    assert_int_equal(tq_buf_append(&h->log, turn.data, turn.len), TQ_OK);
    tq_buf_deinit(&turn);
}

static void drop_history(struct history *h)
{
    tq_buf_deinit(&h->log);
    teardown(&h->r);
}

static void a_master_that_begins_with_them(void **state)
{
    struct tq_buf buf = TQ_BUF_NULL(1u << 20);
    struct history h;
    struct native_rig r;
    struct native_client *c;
    struct op ops[8];
    uint64_t sessions;

    (void)state;
    make_history(&h);
    setup_journal(&r);
    r.random_state = 99; /* not the other one's tokens */
    r.now_ms = 100000;
    r.gone_keys[2] = true;
    restore(&r, &h.log, 3);
    come_to_life(&r);
    assert_int_equal(native_journal_live_bytes(r.native, &sessions) > 0, 1);
    assert_int_equal(sessions, 2);
    assert_int_equal(native_journal_oldest(r.native), 3);
    assert_int_equal(collect(&r, 4, &buf, ops), 1); /* the only news: nobody can resume it any more */
    assert_int_equal(read_gone(ops[0]), 3);
    c = client(&r, "");
    say(c, "[0,1,'workers',{}]");
    hear(c, "[1,1,nil,{workers:[{worker:'a',client:'first',key:'k0',since_ms:1700000001000,"
            "heard_ms:1700000100000,leases:0,connected:false},"
            "{worker:'b',key:'k1',since_ms:1700000001000,heard_ms:1700000100000,leases:0,connected:false},"
            "{*}],next:nil}]");
    /* of another key it is taken; with its token it goes on; of b both tokens are good */
    c = native_rig_connect(&r, 1);
    say(c, "[0,1,'hello',{version:1,worker:'a',token:%s}]", h.a.text);
    hear_error(c, 1, "worker_taken", "another key");
    c = native_rig_connect(&r, 0);
    say(c, "[0,1,'hello',{version:1,worker:'a',token:%s,leases:[[1,1]]}]", h.a.text);
    hear(c, "[1,1,nil,{*resumed:true,leases:[]}]");
    for (unsigned i = 0; i < 2; i++) {
        struct native_rig again;

        setup_journal(&again);
        restore(&again, &h.log, 3);
        come_to_life(&again);
        c = native_rig_connect(&again, 1);
        say(c, "[0,1,'hello',{version:1,worker:'b',token:%s}]", i == 0 ? h.b.text : h.b_before.text);
        hear(c, "[1,1,nil,{*resumed:true,*}]");
        teardown(&again);
    }
    /* ids go on */
    (void)client(&r, "new");
    assert_int_equal(collect(&r, 4, &buf, ops), 2);
    assert_int_equal(read_session(ops[0]).id, 1);
    assert_int_equal(read_session(ops[1]).id, 5); /* 4 was said of one that came and went */
    /* who does not come is forgotten */
    native_rig_advance(&r, 29999);
    assert_int_equal(native_counters(r.native)->sessions_forgotten, 1);
    native_rig_advance(&r, 2);
    assert_int_equal(native_counters(r.native)->sessions_forgotten, 2);
    assert_int_equal(collect(&r, 4, &buf, ops), 1);
    assert_int_equal(read_gone(ops[0]), 2);
    tq_buf_deinit(&buf);
    teardown(&r);
    drop_history(&h);
}

/* Once a worker was seen to have the new token, the old one is of no use, in the next master's life too. */
static void a_confirmed_token_is_the_only_one(void **state)
{
    struct history h;
    struct native_rig r;
    struct native_client *c;

    (void)state;
    make_history(&h);
    DL_FOREACH(h.r.clients, c)
    {
        if (c->open && c->conn.session != NULL && tq_span_is(native_session_worker(c->conn.session), "b"))
            say(c, "[0,1,'ping',{}]");
    }
    assert_int_equal(native_journal_collect(h.r.native, 3, &h.log), TQ_OK);
    setup_journal(&r);
    restore(&r, &h.log, 3);
    come_to_life(&r);
    c = native_rig_connect(&r, 1);
    say(c, "[0,1,'hello',{version:1,worker:'b',token:%s}]", h.b.text);
    hear(c, "[1,1,nil,{*resumed:true,*}]");
    native_rig_close(c, NATIVE_SOCKET_CLOSED);
    c = native_rig_connect(&r, 1);
    say(c, "[0,1,'hello',{version:1,worker:'b',token:%s}]", h.b_before.text);
    hear(c, "[1,1,nil,{*resumed:false,*}]");
    teardown(&r);
    drop_history(&h);
}

static int one_op(struct native_rig *r, uint8_t op, const uint8_t *body, size_t len, uint64_t segment,
                  char text[200])
{
    uint8_t *copy = guard_copy(body, len);
    int rv = native_restore_op(r->native, op, tq_span(copy, len), segment, text);

    guard_free(copy, len);
    return rv;
}

static void ops_that_are_damaged(void **state)
{
    struct history h;
    struct op ops[8];
    char text[200];
    size_t n;

    (void)state;
    make_history(&h);
    n = split(tq_buf_span(&h.log), ops);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < n; i++) {
        struct tq_span body = ops[i].body;
        struct native_rig r;

        setup_journal(&r);
        for (size_t len = 0; len < body.len; len++) { /* cut */
            text[0] = '\0';
            assert_int_equal(one_op(&r, ops[i].op, body.data, len, 1, text), TQ_EINVAL);
            assert_true(text[0] != '\0');
        }
        come_to_life(&r); /* of none of them anything is left */
        assert_null(native_session_of(r.native, 1));
        assert_int_equal(native_journal_oldest(r.native), UINT64_MAX);
        teardown(&r);
        for (size_t bit = 0; bit < body.len * 8; bit++) { /* any bit: another session, or none */
            uint8_t *copy = malloc(body.len);

            assert_non_null(copy);
            memcpy(copy, body.data, body.len);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            setup_journal(&r);
            (void)one_op(&r, ops[i].op, copy, body.len, 1, text);
            come_to_life(&r);
            teardown(&r);
            free(copy);
        }
    }
    drop_history(&h);
}

struct made {
    uint64_t id, next_id, heartbeat_ms, since_ms;
    const char *worker;
    uint8_t unconfirmed;
    bool longer;
};

static int restore_made(struct native_rig *r, const struct made *m, uint64_t segment, char text[200])
{
    uint8_t body[600], *at = ops_put(body, m->id);
    size_t worker = strlen(m->worker);

    at = ops_put(at, worker);
    memcpy(at, m->worker, worker);
    at = ops_put(at + worker, 0);
    at = ops_put(at, 2);
    memcpy(at, "k0", 2);
    memset(at + 2, 7, 32);
    at += 34;
    *at++ = m->unconfirmed;
    at = ops_put(at, m->heartbeat_ms);
    at = ops_put(at, m->since_ms);
    at = ops_put(at, m->next_id);
    if (m->longer)
        *at++ = 0;
    return one_op(r, OPS_SESSION, body, (size_t)(at - body), segment, text);
}

static void ops_that_cannot_be(void **state)
{
    char longest[130];
    const struct made bad[] = {
        {.id = 0, .next_id = 2, .worker = "w"},
        {.id = 2, .next_id = 2, .worker = "w"},
        {.id = 1, .next_id = UINT64_MAX, .worker = "w"},
        {.id = 1, .next_id = 2, .worker = ""},
        {.id = 1, .next_id = 2, .worker = "w w"},
        {.id = 1, .next_id = 2, .worker = longest},
        {.id = 1, .next_id = 2, .worker = "w", .unconfirmed = 2},
        {.id = 1, .next_id = 2, .worker = "w", .heartbeat_ms = 999},
        {.id = 1, .next_id = 2, .worker = "w", .heartbeat_ms = 600001},
        {.id = 1, .next_id = 2, .worker = "w", .since_ms = UINT64_MAX},
        {.id = 1, .next_id = 2, .worker = "w", .longer = true},
    };
    struct made good = {.id = 1, .next_id = 9, .worker = "w"}, other = {.id = 2, .next_id = 9, .worker = "w"};
    struct native_rig r;
    uint8_t gone[OPS_VARINT_MAX];
    char text[200];

    (void)state;
    memset(longest, 'w', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    setup_journal(&r);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        text[0] = '\0';
        if (restore_made(&r, &bad[i], 1, text) != TQ_EINVAL || text[0] == '\0')
            fail_msg("bad[%zu] was taken", i);
    }
    longest[128] = '\0';
    assert_int_equal(restore_made(&r, &good, 5, text), TQ_OK);
    assert_int_equal(restore_made(&r, &good, 5, text), TQ_OK);
    assert_int_equal(restore_made(&r, &good, 4, text), TQ_EINVAL);  /* homes only grow */
    assert_int_equal(restore_made(&r, &other, 5, text), TQ_EINVAL); /* the worker's other session is there */
    other.worker = longest;
    assert_int_equal(restore_made(&r, &other, 5, text), TQ_OK);
    other.worker = "v"; /* a session's worker does not change */
    assert_int_equal(restore_made(&r, &other, 5, text), TQ_EINVAL);
    other.worker = "w";
    assert_int_equal(restore_made(&r, &other, 5, text), TQ_EINVAL);
    assert_int_equal(one_op(&r, OPS_SESSION_GONE + 1, gone, 1, 5, text), TQ_EINVAL);
    assert_int_equal(one_op(&r, OPS_SESSION_GONE, gone, (size_t)(ops_put(gone, 0) - gone), 5, text),
                     TQ_EINVAL);
    assert_int_equal(one_op(&r, OPS_SESSION_GONE, gone, (size_t)(ops_put(gone, UINT64_MAX) - gone), 5, text),
                     TQ_EINVAL);
    /* the end of one that is not known: it was moved forward, and what it was moved from is not read */
    assert_int_equal(one_op(&r, OPS_SESSION_GONE, gone, (size_t)(ops_put(gone, 77) - gone), 5, text), TQ_OK);
    assert_int_equal(one_op(&r, OPS_SESSION_GONE, gone, (size_t)(ops_put(gone, 1) - gone), 5, text), TQ_OK);
    other.id = 3; /* now its id is free */
    other.next_id = 78;
    assert_int_equal(restore_made(&r, &other, 6, text), TQ_OK);
    assert_int_equal(native_restore_finish(r.native), TQ_OK);
    assert_null(native_session_of(r.native, 1));
    assert_non_null(native_session_of(r.native, 2));
    assert_int_equal(native_session_of(r.native, 3)->durable_id, 3);
    assert_true(native_session_of(r.native, 3)->silent);
    native_restore_wait(r.native);
    assert_int_equal(native_journal_oldest(r.native), 5);
    assert_int_equal(r.native->journal.next_id, 78);
    teardown(&r);
}

static void a_recovery_that_is_given_up(void **state)
{
    struct history h;
    struct native_rig r;

    (void)state;
    make_history(&h);
    setup_journal(&r);
    restore(&r, &h.log, 3);
    native_rig_deinit(&r); /* raw sessions go with it */
    drop_history(&h);
}

static void a_recovery_with_each_allocation_failing(void **state)
{
    struct history h;
    struct op ops[8];
    size_t n;
    bool good = false;

    (void)state;
    make_history(&h);
    n = split(tq_buf_span(&h.log), ops);
    for (long after = 0; !good; after++) {
        struct native_rig r;
        char text[200];
        int rv = TQ_OK;

        assert_true(after < 500);
        setup_journal(&r);
        tq_mem_fail_after(after, 1);
        for (size_t i = 0; i < n && rv == TQ_OK; i++)
            rv = native_restore_op(r.native, ops[i].op, ops[i].body, 3, text);
        if (rv == TQ_OK)
            rv = native_restore_finish(r.native);
        good = rv == TQ_OK;
        if (good)
            native_restore_wait(r.native);
        tq_mem_fail_after(-1, 0);
        assert_true(good || rv == TQ_ENOMEM);
        check(&r);
        native_rig_deinit(&r);
    }
    drop_history(&h);
}

/* Each allocation fails in a life with sessions: what is written then, a new master reads. */
static void a_life_with_each_allocation_failing(void **state)
{
    bool reached = true;

    (void)state;
    for (long after = 0; reached; after++) {
        struct tq_buf log = TQ_BUF_NULL(1u << 20);
        struct native_rig r, next;
        struct native_client *c[3];
        struct tq_buf hello[3], ping = TQ_BUF_NULL(100);
        unsigned long before;

        assert_true(after < 500);
        setup_journal(&r);
        assert_true(mptext_encode("[0,1,'ping',{}]", &ping));
        for (unsigned i = 0; i < 3; i++) {
            char text[80];

            tq_buf_init(&hello[i], 200);
            (void)snprintf(text, sizeof(text), "[0,0,'hello',{version:1,worker:'w%u'}]", i % 2);
            assert_true(mptext_encode(text, &hello[i]));
            c[i] = native_rig_connect(&r, 0);
        }
        before = tq_mem_count();
        tq_mem_fail_after(after, 1);
        native_rig_send(c[0], tq_buf_span(&hello[0]));
        native_rig_send(c[1], tq_buf_span(&hello[1]));
        (void)native_journal_collect(r.native, 1, &log);
        native_rig_close(c[0], NATIVE_SOCKET_CLOSED);
        native_rig_send(c[2], tq_buf_span(&hello[2])); /* w0 again, without its token */
        (void)native_journal_collect(r.native, 1, &log);
        native_rig_send(c[1], tq_buf_span(&ping));
        native_rig_close(c[1], NATIVE_REVOKED);
        reached = tq_mem_count() - before > (unsigned long)after;
        tq_mem_fail_after(-1, 0);
        assert_int_equal(native_journal_collect(r.native, 1, &log), TQ_OK);
        setup_journal(&next);
        restore(&next, &log, 1);
        come_to_life(&next);
        assert_int_equal(next.native->sessions.used, r.native->sessions.used);
        teardown(&next);
        for (unsigned i = 0; i < 3; i++)
            tq_buf_deinit(&hello[i]);
        tq_buf_deinit(&ping);
        tq_buf_deinit(&log);
        check(&r);
        native_rig_deinit(&r);
    }
}

/* A master that stops closes the sockets of those who live. */
static void a_stop_takes_no_leases(void **state)
{
    (void)state;
    for (unsigned journal = 0; journal < 2; journal++) {
        struct broker_queue_stats q;
        struct native_rig r;
        struct native_client *w, *n;

        setup(&r);
        if (journal)
            native_journal_enable(r.native);
        w = client(&r, "w");
        n = client(&r, ""); /* ends with its connection, in any case */
        say(w, "[0,1,'put',{q:'task_queue',tasks:[[1],[2]]}]");
        hear(w, "[1,1,*]");
        say(w, "[0,2,'get',{q:'task_queue'}]");
        hear(w, "[1,2,nil,{tasks:[[1,1,1,1]]}]");
        say(n, "[0,2,'get',{q:'task_queue'}]");
        hear(n, "[1,2,nil,{tasks:[[2,1,1,2]]}]");
        native_stop(r.native);
        native_rig_flush(&r);
        hear(w, "[2,'bye',{*}]");
        native_rig_close(w, NATIVE_SOCKET_CLOSED);
        native_rig_close(n, NATIVE_SOCKET_CLOSED);
        broker_get_queue_stats(r.broker, broker_find(r.broker, tq_span_str("task_queue")), &q);
        assert_int_equal(q.leased, journal);
        assert_int_equal(q.ready, 2 - journal);
        teardown(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_of_a_session),
        cmocka_unit_test(without_a_journal_nothing_is_noted),
        cmocka_unit_test(what_came_before_the_reply_confirms_nothing),
        cmocka_unit_test(a_collect_that_fails_forgets_nothing),
        cmocka_unit_test(homes),
        cmocka_unit_test(many_move_in_slices),
        cmocka_unit_test(a_master_that_begins_with_them),
        cmocka_unit_test(a_confirmed_token_is_the_only_one),
        cmocka_unit_test(ops_that_are_damaged),
        cmocka_unit_test(ops_that_cannot_be),
        cmocka_unit_test(a_recovery_that_is_given_up),
        cmocka_unit_test(a_recovery_with_each_allocation_failing),
        cmocka_unit_test(a_life_with_each_allocation_failing),
        cmocka_unit_test(a_stop_takes_no_leases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
