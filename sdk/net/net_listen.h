/* net_listen: endpoints, and the listening sockets of tcp:// and ipc://.
 *
 * The listening socket is made here and handed to the library (ZMQ_USE_FD), for three reasons: the
 * errors can be told apart and named; an ipc:// path of a living process is never taken from it
 * (the library unlinks without asking); and a duplicate of it stays with us, so that connections
 * can be turned away while the process is out of descriptors (net_watch.c). */
#ifndef FERRY_NET_LISTEN_H
#define FERRY_NET_LISTEN_H

#include <stdbool.h>

#include "base/err.h"

#define NET_ENDPOINT_MAX_BYTES 256
#define NET_PATH_MAX_BYTES     107 /* sun_path without its NUL. */

enum net_transport { NET_TCP, NET_IPC, NET_INPROC };

struct net_endpoint {
    enum net_transport transport;
    char text[NET_ENDPOINT_MAX_BYTES]; /* As given. */
    char host[NET_ENDPOINT_MAX_BYTES]; /* tcp: without brackets; ipc: the path; inproc: the name. */
    char port[8];                      /* tcp: digits; "*" is 0. */
};

/* Errors: BAD_OPTION_VALUE. */
MUST_CHECK enum ferry_err net_endpoint_parse(const char *text, bool may_be_any,
                                             struct net_endpoint *endpoint, struct err_text *e);

struct net_listener {
    int fd; /* Ours; -1 for inproc. The library owns a duplicate of it. */
    char endpoint[NET_ENDPOINT_MAX_BYTES]; /* Resolved. */
    char path[NET_PATH_MAX_BYTES + 1];     /* ipc: unlinked at the end. */
};

/* Listens on a tcp or ipc endpoint. Errors: BAD_OPTION_VALUE, LOCKED, IO. */
MUST_CHECK enum ferry_err net_listener_open(const struct net_endpoint *endpoint,
                                            struct net_listener *listener, struct err_text *e);
void net_listener_close(struct net_listener *listener);

#endif
