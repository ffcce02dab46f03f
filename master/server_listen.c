/* The addresses that the server listens on. */
#include <limits.h>
#include <sys/resource.h>

#include "common/err.h"
#include "master/access/access.h"
#include "master/peer.h"
#include "master/server_impl.h"

#define LOG_FILES 16 /* at once, and some of a backup */

static bool is_loopback(const struct sockaddr_storage *ss)
{
    static const uint8_t v4[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};

    if (ss->ss_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)ss)->sin_addr.s_addr) >> 24) == 127;
    if (ss->ss_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)ss)->sin6_addr;

        return IN6_IS_ADDR_LOOPBACK(a) || memcmp(a, v4, sizeof(v4)) == 0;
    }
    return false;
}

static int resolve(struct server *s, const char *host, uint16_t port, struct sockaddr_storage *ret,
                   char err[TQ_OPT_ERROR_MAX])
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t req;
    char service[8];
    int rv;

    snprintf(service, sizeof(service), "%u", port);
    rv = uv_getaddrinfo(s->loop, &req, NULL, *host ? host : "0.0.0.0", service, &hints);
    if (rv != 0) {
        snprintf(err, TQ_OPT_ERROR_MAX,
                 "cannot listen on '%.100s': unknown host (%s); give an address of this machine", host,
                 uv_strerror(rv));
        return TQ_ENOTFOUND;
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, req.addrinfo->ai_addr, req.addrinfo->ai_addrlen);
    uv_freeaddrinfo(req.addrinfo);
    return TQ_OK;
}

static void address_text(const struct sockaddr_storage *ss, char out[80])
{
    char host[64] = "";

    if (ss->ss_family == AF_INET6) {
        (void)uv_ip6_name((const struct sockaddr_in6 *)ss, host, sizeof(host));
        snprintf(out, 80, "[%s]:%u", host, ntohs(((const struct sockaddr_in6 *)ss)->sin6_port));
    } else {
        (void)uv_ip4_name((const struct sockaddr_in *)ss, host, sizeof(host));
        snprintf(out, 80, "%s:%u", host, ntohs(((const struct sockaddr_in *)ss)->sin_port));
    }
}

static void on_connection(void *ctx, int take_fd, const struct sockaddr_storage *from)
{
    peer_accept(ctx, take_fd, from);
}

static void on_accept_failed(void *ctx, int err)
{
    struct server *s = ctx;

    if (err == UV_EMFILE || err == UV_ENFILE)
        s->counters.over_connections++;
    tq_log(TQ_LOG_WARN, "ACCEPT-FAILED", "err=\"%s\"%s", uv_strerror(err),
           err == UV_EMFILE
               ? ": a connection was refused remedy=\"raise the limit of open files (ulimit -n)\""
               : "");
}

/* A log that cannot open its next file is the end: connections leave it what it needs. */
static int connection_fd_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur > INT_MAX)
        return 0;
    return (int)lim.rlim_cur - LOG_FILES;
}

int server_listen(struct server *s, unsigned i, char ret_text[80], char err[TQ_OPT_ERROR_MAX])
{
    const struct config *c = s->config;
    struct sockaddr_storage ss;
    struct listener *l = &s->listeners[i];
    int rv = resolve(s, c->listen[i].host, c->listen[i].port, &ss, err);

    if (rv != TQ_OK)
        return rv;
    address_text(&ss, ret_text);
    if (!is_loopback(&ss)) {
        rv = access_check_address(c, &s->keys, ret_text, err);
        if (rv != TQ_OK)
            return rv;
        if (s->network_address[0] == '\0')
            memcpy(s->network_address, ret_text, sizeof(s->network_address));
    }
    *l = (struct listener){.on_connection = on_connection,
                           .on_error = on_accept_failed,
                           .ctx = s,
                           .fd_limit = s->durable != NULL ? connection_fd_limit() : 0};
    rv = listener_open(l, s->loop, &ss);
    if (rv == 0)
        s->listener_count++;
    if (rv != 0) {
        const char *remedy = rv == UV_EADDRINUSE ? "another program has it: stop that, or take another port"
                             : rv == UV_EADDRNOTAVAIL ? "it is no address of this machine"
                             : rv == UV_EACCES        ? "ports below 1024 need privileges: take a higher one"
                                                      : "choose another --listen";

        snprintf(err, TQ_OPT_ERROR_MAX, "cannot listen on %.80s: %s; %s", ret_text, uv_strerror(rv), remedy);
        return TQ_EIO;
    }
    address_text(&ss, ret_text);
    return TQ_OK;
}
