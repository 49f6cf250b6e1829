/* net_inner: what the files of this layer share. Nobody else includes it. */
#ifndef FERRY_NET_INNER_H
#define FERRY_NET_INNER_H

#include <stdatomic.h>
#include <zmq.h>

#include "net/net.h"

struct ferry_context {
    void *zmq;
    atomic_uint next_name; /* For the inproc endpoints that servers use inside. */
};

#define NET_INNER_NAME_BYTES 64
/* A name that was never used in this context: the library frees the old ones late. */
void net_context_name(struct ferry_context *context, char name[NET_INNER_NAME_BYTES]);

/* Below this size a frame is copied into the library's message: cheaper than handing its memory
 * over, which costs an allocation for the library's count and a free in another thread. */
#define NET_COPY_MAX_BYTES 2048

#define NET_BACKLOG 256 /* Connections the kernel holds until they are accepted. */

/* A peer whose machine is gone is noticed by TCP itself: no ZMTP heartbeats, because their bytes
 * could not be told from the bytes of a peer that hoards (net_watch.c). */
#define NET_KEEPALIVE_IDLE_S     5
#define NET_KEEPALIVE_INTERVAL_S 2
#define NET_KEEPALIVE_COUNT      3

/* Options whose value is ours: a refusal is a bug. */
void net_set_int(void *socket, int option, int value);
void net_set_keepalive(void *socket, int dead_peer_ms);
/* Makes a message of the buffer's bytes and empties the buffer; on failure (NO_MEMORY) it is
 * unchanged. */
MUST_CHECK enum ferry_err net_message_take(zmq_msg_t *message, struct buf *frame);

void *net_server_socket(struct net_server *server);
void *net_server_monitor(struct net_server *server); /* NULL for inproc. */
void net_server_read_monitor(struct net_server *server);
void *net_link_socket(struct net_link *link);

#endif
