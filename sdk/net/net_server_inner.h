/* net_server_inner: a server's state, shared by net_server.c (messages) and net_watch.c
 * (connections). */
#ifndef FERRY_NET_SERVER_INNER_H
#define FERRY_NET_SERVER_INNER_H

#include "net/net_conns.h"
#include "net/net_inner.h"
#include "net/net_listen.h"

enum net_cut {
    NET_CUT_HOARDING,
    NET_CUT_MULTIPART,
    NET_CUT_NOT_READING,
    NET_CUT_LIMIT,
    NET_CUT_PROTOCOL
};

struct net_server {
    struct net_server_config config;
    enum net_transport transport;
    struct net_listener listener; /* Not for inproc. */
    void *socket;                 /* ROUTER. */
    void *monitor;                /* PAIR with the events of the socket; NULL for inproc. */
    struct net_conns conns;       /* Empty for inproc, which has no connections to watch. */
    uint32_t first_peer;          /* The id that the library gave to our own probe at the start. */
    int reserve_fd;               /* Given up to answer a connect when descriptors are out. */
    bool listener_closed;         /* The library has closed its listening socket. */
    uint64_t drains;              /* Times that receive has found nothing more. */
    int watch_from;               /* Descriptor at which the next watch begins. */
    int64_t trim_at_us;           /* When to give memory back to the system; 0: not wanted. */
    struct net_server_stats stats;
};

/* Starts to listen to the socket's events. Errors: NO_MEMORY, IO. */
MUST_CHECK enum ferry_err net_watch_start(struct net_server *server, struct ferry_context *context,
                                          struct err_text *e);
void net_watch_stop(struct net_server *server);
/* True when more than unread_max_bytes wait for the peer to read. */
bool net_watch_is_flooded(const struct net_server *server, const struct net_conn *conn, int fd);
void net_watch_cut(struct net_server *server, int fd, enum net_cut why);

#endif
