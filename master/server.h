/* The daemon: listeners, the one timer, the broker and what its effects do, start and stop.
 *
 * Each turn of the loop: what came in is carried out; then (with a data directory) what it changed becomes
 * one record of the log, and replies go out when the log has got to what they tell of (durable.h,
 * peer_write.c).
 *
 * Stop order: listeners close; replies on their way get drain_timeout_ms; with a data directory the log gets
 * its last record; peers close, which is not recorded any more; the timer and the signals close; the log is
 * waited for, stop_timeout_ms at most; the loop ends. */
#ifndef MASTER_SERVER_H
#define MASTER_SERVER_H

#include <uv.h>

#include "master/access/keys.h"
#include "master/config.h"
#include "master/endpoint.h"
#include "master/halfopen.h"
#include "master/listener.h"
#include "master/native/native.h"
#include "master/python/registry.h"
#include "master/python/refs.h"
#include "proto/session.h"

#define SERVER_READ_BUFFER_BYTES (64 * 1024)

struct peer;
struct peer_write;
struct durable;
struct backup;
struct demo;

struct server_counters {
    uint64_t accepted, authenticated, closed, control_calls, calls;
    uint64_t preauth_timeouts, preauth_dropped, preauth_protocol, auth_failed, reflected;
    uint64_t protocol_errors, write_timeouts, canceled_calls, returned_items, over_connections;
    uint64_t access_refused, reloads, reloads_failed;
    uint64_t backups, backups_failed;
};

/* The low byte of a deadline's kind; the broker keeps more of its own in the others. */
enum server_deadline {
    SERVER_DEADLINE_BROKER = BROKER_DEADLINE,
    SERVER_DEADLINE_PEER,
    SERVER_DEADLINE_DRAIN,
    SERVER_DEADLINE_NATIVE = NATIVE_DEADLINE,
};
#define SERVER_DEADLINE_MASK 0xffu

struct server {
    uv_loop_t *loop;
    const struct config *config;
    struct listener listeners[CONFIG_LISTEN_MAX];
    unsigned listener_count;
    bool handles_open;
    uv_timer_t timer;
    uv_prepare_t prepare;
    uv_signal_t sigterm;
    uv_signal_t sigint;
    uv_signal_t sighup;   /* read the keys again */
    uint64_t timer_at_ms; /* what the timer is set to; UINT64_MAX: stopped */
    uint64_t epoch_ms;    /* unix time when the loop's clock was 0, as of the start */
    struct tq_deadlines deadlines;
    struct tq_deadline drain_deadline;
    struct broker *broker;
    struct broker_effects effects;
    struct broker_effects effects_spare; /* empty */
    bool running_effects;
    uint64_t memory_bytes; /* what bodies may take; 0: no limit */
    struct native *native;
    struct native_host native_host;
    struct tq_session_limits session_limits;
    struct tq_auth_registry auth_registry;
    struct keys keys;
    uint32_t rights_epoch; /* grows when rights change, or a queue goes: peer.access is out of date then */
    /* The keys were reloaded: for whoever keeps something under a key without a connection. moved: as of
     * keys_moved, for the index that a peer's session had. NULL: nobody does. */
    void (*on_keys_moved)(struct server *s, const size_t *moved, size_t count);
    char network_address[80]; /* the first listener that is none of the loopback's; or empty */
    struct pyregistry *registry;
    struct pyrefs refs;
    struct halfopen halfopen;
    struct peer *peers; /* list */
    size_t peer_count;
    struct peer *resuming; /* list by resume_next: input to be looked at before the loop sleeps */
    struct peer *resuming_last;
    struct durable *durable;                    /* NULL: all is in memory only, and nothing is held back */
    struct backup *backup;                      /* that is being made, or NULL */
    struct peer_write *fresh, *recorded, *held; /* lists: replies that wait for the log (peer_impl.h) */
    struct native_socket *unsettled;            /* list: see native_peer.c */
    bool busy;                                  /* the log does not keep up: no input but of handshakes */
    struct demo *demo;
    struct tq_buf scratch; /* replies are composed here */
    struct server_counters counters;
    bool stopping;
    bool natives_told; /* that it stops */
    bool stopped;      /* handles are closing */
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
/* Declares a queue, for Python, too. As broker_declare; TQ_EEXISTS also when Python's names are taken. */
int server_declare_queue(struct server *s, const char *name, const struct broker_queue_conf *conf,
                         struct broker_queue **ret_queue);
/* As broker_reconfigure; TQ_EINVAL also for what would make one of the standard queues go. */
int server_reconfigure_queue(struct server *s, struct broker_queue *queue,
                             const struct broker_queue_conf *conf);
/* Removes a queue, also as Python's object, and answers whoever waits there. TQ_EINVAL: one of the
 * standard queues, which stay. */
int server_remove_queue(struct server *s, struct broker_queue *queue);
/* Unix time as of the start, and what has passed since: it never goes back, whatever the system's clock does.
 */
uint64_t server_now_ms(const struct server *s);

/* Called by a peer whose memory is about to go. */
void server_peer_gone(struct server *s);

#endif
