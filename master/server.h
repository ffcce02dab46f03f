/* The daemon: listeners, the one timer, the broker and what its effects do, start and stop.
 *
 * Stop order: listeners close; replies on their way get drain_timeout_ms; peers close (what they hold stays
 * unanswered in memory mode, and is said so); the timer and the signals close; the loop ends. */
#ifndef MASTER_SERVER_H
#define MASTER_SERVER_H

#include <uv.h>

#include "master/config.h"
#include "master/halfopen.h"
#include "master/python/registry.h"
#include "master/python/refs.h"
#include "proto/session.h"

#define SERVER_READ_BUFFER_BYTES (64 * 1024)

struct peer;
struct demo;

/* Somebody whose broker session the effects go to: a peer, or the demo. The session comes first. */
struct endpoint {
    struct broker_session session;
    /* One effect; takes its body reference. May step the broker again. */
    void (*on_effect)(struct endpoint *ep, struct broker_effect *fx);
};

struct server_counters {
    uint64_t accepted, authenticated, closed, control_calls, calls;
    uint64_t preauth_timeouts, preauth_dropped, preauth_protocol, auth_failed, reflected;
    uint64_t protocol_errors, write_timeouts, canceled_calls, returned_items, over_connections;
};

enum server_deadline { SERVER_DEADLINE_PEER = BROKER_DEADLINE + 1, SERVER_DEADLINE_DRAIN };

struct server {
    uv_loop_t *loop;
    const struct config *config;
    uv_tcp_t listeners[CONFIG_LISTEN_MAX];
    unsigned listener_count;
    bool handles_open;
    uv_timer_t timer;
    uv_prepare_t prepare;
    uv_signal_t sigterm;
    uv_signal_t sigint;
    uv_signal_t sighup;   /* its terminal is gone: the same as SIGTERM */
    uint64_t timer_at_ms; /* what the timer is set to; UINT64_MAX: stopped */
    struct tq_deadlines deadlines;
    struct tq_deadline drain_deadline;
    struct broker *broker;
    struct broker_effects effects;
    bool running_effects;
    struct tq_session_limits session_limits;
    struct tq_auth_registry auth_registry;
    struct tq_auth_key key;
    struct pyregistry *registry;
    struct pyrefs refs;
    struct halfopen halfopen;
    struct peer *peers; /* list */
    size_t peer_count;
    struct peer *resuming; /* list: input to be looked at before the loop sleeps */
    struct demo *demo;
    uv_tcp_t shed; /* takes a connection for which there is no memory */
    bool shed_waiting[CONFIG_LISTEN_MAX];
    bool shed_busy;
    struct tq_buf scratch; /* replies are composed here */
    struct server_counters counters;
    bool stopping;
    bool stopped; /* handles are closing */
    int exit_status;
    uint8_t read_buffer[SERVER_READ_BUFFER_BYTES];
};

/* Opens everything and prints the banner and the ready line. 0, or negative with cause and remedy in err.
 * After a failure call server_close and run the loop, too. */
int server_open(struct server *s, uv_loop_t *loop, const struct config *config, char err[TQ_OPT_ERROR_MAX]);
/* Begins the stop: repeatable; the second call does not wait for anything. */
void server_stop(struct server *s, const char *why, int exit_status);
/* Closes all handles at once; run the loop until it is empty, then server_deinit. */
void server_close(struct server *s);
void server_deinit(struct server *s);

/* One event for the broker, and all that follows from it. The same results as broker_step. */
int server_step(struct server *s, const struct broker_event *ev);
/* Removes a queue that a client made, and answers whoever waits there. */
void server_remove_queue(struct server *s, struct broker_queue *queue);
uint64_t server_now_ms(const struct server *s);

/* Called by a peer whose memory is about to go. */
void server_peer_gone(struct server *s);

#endif
