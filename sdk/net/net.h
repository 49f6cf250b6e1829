/* net: messages over ZeroMQ, the only user of zmq.h.
 *
 * A server (ROUTER) takes requests of many peers; a link (DEALER) goes to one endpoint. Messages
 * are one part each; a peer that sends more parts than one, or a routing id of its own choosing, is
 * cut off. Nothing here promises delivery: a send that returned FERRY_OK may still be lost, and
 * requests carry ids, deadlines and retries above this layer.
 *
 * Invariants: (1) no message larger than the server's limit is ever assembled (ZMQ_MAXMSGSIZE);
 * (2) bytes that a peer has sent and the library holds unfinished are bounded: net_server_watch
 * compares what the kernel received on each connection with what was delivered from it and cuts
 * the peers that hoard (endless multipart); (3) a peer that does not read its replies is cut off,
 * never buffered without bound; (4) out of file descriptors is an answer to the peer's connect, not
 * a busy loop or an abort.
 *
 * What a client in another language must do: be a DEALER without a routing id, send messages of
 * one part which is not empty, and send its first within 2 * handshake_ms of connecting. An empty
 * message may come first, once (ZMQ_PROBE_ROUTER does that; links do). ZMTP heartbeats are not
 * needed; who sends them for days must connect again once they add up to message_max_bytes.
 *
 * What a hostile peer can make a server hold: undelivered, message_max_bytes and 64 KiB, and what
 * it sends between two watches. As empty parts each 2 bytes of that take 64 bytes of memory, until
 * the watch cuts it. connections_max bounds the sum.
 *
 * Threads: a context may be shared; a server or link belongs to one thread. net_wake_signal may be
 * called from any thread and from signal handlers. */
#ifndef FERRY_NET_NET_H
#define FERRY_NET_NET_H

#include "base/buf.h"
#include "base/err.h"

struct ferry_context; /* Public name of the net context, so that ferry.h can pass it on. */
struct net_server;
struct net_link;

/* Errors: NO_MEMORY, IO. */
MUST_CHECK enum ferry_err net_context_new(int io_threads, struct ferry_context **context);
const char *net_library_version(void);                 /* "4.3.4"; static text. */
void net_context_free(struct ferry_context **context); /* Every socket must be closed before. */

/* A received message; may be moved by assignment of ownership only through net_message_move. */
struct net_message {
    _Alignas(8) unsigned char opaque[64];
};
void net_message_init(struct net_message *m);
void net_message_close(struct net_message *m); /* Any number of times after init. */
void net_message_move(struct net_message *to, struct net_message *from);
struct bytes net_message_bytes(struct net_message *m); /* Live until close. */

/* A peer of a server, for as long as it is connected. Ids are given by the server. */
typedef uint32_t net_peer;

struct net_server_config {
    size_t message_max_bytes;
    int connections_max; /* Above it new connections are closed at once. */
    int queue_max;       /* Messages of a connection that wait for net_server_receive. */
    int replies_max;     /* Messages that wait for a peer to read. More: it is cut off. So this is
                            at least the requests that a peer may have without an answer. */
    size_t unread_max_bytes; /* Bytes that wait for a peer to read. More: it is cut off. */
    int handshake_ms;        /* For the greeting; a peer that takes nothing for so long is cut. */
};

/* Binds. `endpoint` is tcp://HOST:PORT (PORT may be *), ipc://PATH or inproc://NAME. Errors:
 * BAD_OPTION_VALUE (malformed endpoint), LOCKED (address in use), IO, NO_MEMORY; with a detail. */
MUST_CHECK enum ferry_err net_server_open(struct ferry_context *context, const char *endpoint,
                                          const struct net_server_config *config,
                                          struct net_server **server, struct err_text *e);
void net_server_close(struct net_server **server);
const char *net_server_endpoint(const struct net_server *server); /* With the port resolved. */
/* Takes the next message without waiting: true and filled, or false when there is none. `m` must be
 * initialised; its former content is released. Malformed deliveries are counted and dropped with
 * their peer, never returned. */
bool net_server_receive(struct net_server *server, net_peer *peer, struct net_message *m);
/* Sends the buffer's bytes, which are taken (the buffer is left empty) whatever is returned.
 * Errors: UNREACHABLE (the peer is gone), THROTTLED (it does not read; it has been cut off),
 * NO_MEMORY. */
enum ferry_err net_server_send(struct net_server *server, net_peer peer, struct buf *frame);
/* Cuts a peer off (closes its connection). For peers that break the protocol. The reason is logged.
 * No effect over inproc, whose peers are this process. */
void net_server_cut(struct net_server *server, net_peer peer, const char *reason);
/* False when the peer is known to be gone, or is being cut off; over inproc it never is. */
bool net_server_has_peer(struct net_server *server, net_peer peer);
/* Housekeeping: call at least each 100 ms. */
void net_server_watch(struct net_server *server);

struct net_server_stats {
    uint64_t received, sent, received_bytes, sent_bytes;
    uint64_t connections_accepted, connections_open;
    uint64_t cut_hoarding, cut_multipart, cut_not_reading, cut_limit, cut_protocol;
};
void net_server_stats(const struct net_server *server, struct net_server_stats *stats);

/* Connects in the background and reconnects by itself with back-off. Errors as net_server_open. */
MUST_CHECK enum ferry_err net_link_open(struct ferry_context *context, const char *endpoint,
                                        size_t message_max_bytes, struct net_link **link,
                                        struct err_text *e);
void net_link_close(struct net_link **link); /* Does not wait; what was not sent is lost. */
/* Takes the buffer's bytes on success (left empty). What is sent before the connection is there, or
 * while it is lost, waits in the queue. Errors (the buffer is unchanged): THROTTLED (queue full),
 * NO_MEMORY; IO (the bytes are taken). */
MUST_CHECK enum ferry_err net_link_send(struct net_link *link, struct buf *frame);
bool net_link_receive(struct net_link *link, struct net_message *m);

/* Wakes a thread that waits in net_poll. */
struct net_wake {
    int fd;
};
MUST_CHECK enum ferry_err net_wake_init(struct net_wake *w);
void net_wake_fini(struct net_wake *w);
void net_wake_signal(struct net_wake *w);
void net_wake_clear(struct net_wake *w);

/* One thing to wait for: exactly one of server, link, fd (>= 0). */
struct net_poll_item {
    struct net_server *server;
    struct net_link *link;
    int fd;
    bool readable; /* Out. */
};
#define NET_POLL_ITEMS_MAX 640 /* More is a bug of the caller. */
/* Waits until an item is readable or timeout_ms passed (-1: for ever); returns how many are. A
 * signal ends the wait early with 0. */
int net_poll(struct net_poll_item *items, size_t count, int timeout_ms);

#endif
