/* Every ceiling of task-master: field, option, type, unit, default, least, most, prose. */
#ifndef MASTER_LIMITS_LIST_H
#define MASTER_LIMITS_LIST_H

#define LIMITS_LIST(X)                                                                                       \
    X(preauth_timeout_ms, "preauth-timeout", TQ_OPT_SECONDS, "SECONDS", 3000, 100, 600000,                   \
      "from accept to authenticated, an absolute deadline")                                                  \
    X(preauth_frame_bytes, "preauth-frame-bytes", TQ_OPT_NUMBER, "BYTES", 256, 64, 256,                      \
      "one frame before authentication")                                                                     \
    X(preauth_frames, "preauth-frames", TQ_OPT_NUMBER, "N", 6, 3, 64, "frames before authentication")        \
    X(half_open_max, "half-open-max", TQ_OPT_NUMBER, "N", 16384, 1, 1000000,                                 \
      "connections before authentication; over it the oldest is dropped")                                    \
    X(half_open_per_source, "half-open-per-source", TQ_OPT_NUMBER, "N", 12288, 1, 1000000,                   \
      "the same from one address")                                                                           \
    X(auth_failure_delay_ms, "auth-failure-delay", TQ_OPT_SECONDS, "SECONDS", 100, 0, 10000,                 \
      "a wrong answer is refused only after this time")                                                      \
    X(first_request_timeout_ms, "first-request-timeout", TQ_OPT_SECONDS, "SECONDS", 10000, 100, 600000,      \
      "from authenticated to the first request")                                                             \
    X(frame_bytes, "max-frame-bytes", TQ_OPT_NUMBER, "BYTES", 64ull * 1024 * 1024 + 65536, 1024, 1ull << 30, \
      "one request: an item and its envelope")                                                               \
    X(write_timeout_ms, "write-timeout", TQ_OPT_SECONDS, "SECONDS", 10000, 100, 3600000,                     \
      "a peer that reads nothing of its reply for this long is cut")                                         \
    X(input_bytes, "max-input-bytes", TQ_OPT_NUMBER, "BYTES", 1024 * 1024, 131072, 1ull << 30,               \
      "input kept of a peer whose reply is still being written")                                             \
    X(connections, "max-connections", TQ_OPT_NUMBER, "N", 65536, 1, 1000000, "connections at once")          \
    X(queues, "max-queues", TQ_OPT_NUMBER, "N", 100000, 2, 10000000, "queues at once, made by clients too")  \
    X(memory_bytes, "max-memory-bytes", TQ_OPT_NUMBER, "BYTES", UINT64_MAX, 0, 1ull << 50,                   \
      "items of all queues; over it a queue counts as full; 0: no limit")                                    \
    X(held_per_session, "max-held-per-session", TQ_OPT_NUMBER, "N", 10000, 1, 10000000,                      \
      "items that one session may hold unacknowledged (native workers, ack=explicit)")                       \
    X(sessions, "max-sessions", TQ_OPT_NUMBER, "N", 100000, 1, 10000000,                                     \
      "native sessions, with and without a connection")                                                      \
    X(calls, "max-calls", TQ_OPT_NUMBER, "N", 1024, 1, 1000000,                                              \
      "requests of one native connection that wait for their reply")                                         \
    X(batch, "max-batch", TQ_OPT_NUMBER, "N", BROKER_GET_MAX, 1, BROKER_GET_MAX,                             \
      "tasks in one native put, get or done")                                                                \
    X(reply_bytes, "max-reply-bytes", TQ_OPT_NUMBER, "BYTES", 1024 * 1024, 4096, 1ull << 30,                 \
      "a reply to a native get takes no further task once it is so long")                                    \
    X(output_bytes, "max-output-bytes", TQ_OPT_NUMBER, "BYTES", 8 * 1024 * 1024, 65536, 1ull << 31,          \
      "replies that a native peer leaves unread: over half of it its requests wait, over it it is cut")      \
    X(parked_bytes, "max-parked-bytes", TQ_OPT_NUMBER, "BYTES", 256 * 1024 * 1024, 0, 1ull << 50,            \
      "rests of native puts that wait for room, of all connections")                                         \
    X(drain_timeout_ms, "drain-timeout", TQ_OPT_SECONDS, "SECONDS", 2000, 0, 3600000,                        \
      "at SIGTERM: replies on their way may take this long")                                                 \
    X(stop_timeout_ms, "stop-timeout", TQ_OPT_SECONDS, "SECONDS", 10000, 100, 3600000,                       \
      "then the log may take this long to be whole on disk")                                                 \
    X(backup_timeout_ms, "backup-timeout", TQ_OPT_SECONDS, "SECONDS", 60000, 100, 3600000,                   \
      "a backup whose folder takes nothing for this long is given up")                                       \
    X(log_segment_bytes, "log-segment-bytes", TQ_OPT_NUMBER, "BYTES", 16 * 1024 * 1024, 65536, 1ull << 30,   \
      "one file of the log")                                                                                 \
    X(log_group_bytes, "log-group-bytes", TQ_OPT_NUMBER, "BYTES", 8 * 1024 * 1024, 65536, 1ull << 30,        \
      "changes that the disk has not taken yet; over it no more input is read")                              \
    X(log_interval_ms, "log-interval", TQ_OPT_SECONDS, "SECONDS", 1000, 10, 3600000,                         \
      "durability=interval: what was written is synced after so long at the latest")                         \
    X(log_factor_percent, "log-factor", TQ_OPT_NUMBER, "PERCENT", 200, 110, 1000,                            \
      "the log is emptied from its old end when it has more than so much of what lives")

#endif
