/* Error codes. A function returns 0 for good, a negative TQ_E... for "cannot go on, pass it up
 * unchanged", or a positive number for an expected outcome that its own comment lists and its caller
 * handles. The range is our own, so that a stray errno or libuv code is noticed. */
#ifndef TQ_COMMON_ERR_H
#define TQ_COMMON_ERR_H

#define TQ_ERR_LIST(X)                                                                                       \
    X(ENOMEM, -7001, "out of memory")                                                                        \
    X(EINVAL, -7002, "invalid argument")                                                                     \
    X(EPROTO, -7003, "the peer broke the protocol")                                                          \
    X(ELIMIT, -7004, "a limit was exceeded")                                                                 \
    X(EAUTH, -7005, "authentication failed: the keys differ")                                                \
    X(EREFLECT, -7006, "the peer sent one of our own challenges back")                                       \
    X(ETIMEDOUT, -7007, "timed out")                                                                         \
    X(ECLOSED, -7008, "the connection was closed")                                                           \
    X(ECANCELED, -7009, "canceled")                                                                          \
    X(ENOTFOUND, -7010, "not found")                                                                         \
    X(EEXISTS, -7011, "exists already")                                                                      \
    X(EIO, -7012, "input/output error")                                                                      \
    X(ECRYPTO, -7013, "the cryptographic library failed")                                                    \
    X(EUNSUPPORTED, -7014, "not supported")                                                                  \
    X(ENOSPC, -7015, "no room left on the device")

#define TQ_ERR_ENUM(name, code, text) TQ_##name = code,
enum tq_err { TQ_OK = 0, TQ_ERR_LIST(TQ_ERR_ENUM) };
#undef TQ_ERR_ENUM

/* One line for people; never NULL. */
const char *tq_strerror(int err);

#endif
