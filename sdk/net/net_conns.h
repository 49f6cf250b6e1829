/* net_conns: the connections of a server, by file descriptor and by peer. Does no I/O but fstat,
 * and allocates only when a descriptor is higher than any before.
 *
 * Invariants: (1) a connection is open from its ACCEPTED event to its DISCONNECTED event, which the
 * library queues before it closes the descriptor; (2) a peer belongs to at most one connection and
 * conns->peers knows exactly the peers of open connections; (3) count is the number of open ones.
 */
#ifndef FERRY_NET_NET_CONNS_H
#define FERRY_NET_NET_CONNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/must.h"

struct net_conn {
    bool open;
    bool cut;      /* We shut it down; what still comes from it is dropped. */
    bool has_peer; /* Its first message has come. */
    bool suspect;  /* It held too much when the watch last looked; then also: */
    uint32_t peer;
    ino_t inode; /* Of the socket, so that a reused descriptor is told apart. */
    int64_t accepted_us;
    int64_t delivered;         /* Wire bytes of its messages that were received. */
    int64_t suspect_delivered; /* `delivered`, */
    uint64_t suspect_drains;   /* the server's `drains`, */
    uint64_t suspect_received; /* and its messages received, when it became suspect. */
    int64_t sent;              /* Wire bytes given to the library for it. */
    int64_t acked;             /* Of these, what its kernel had acknowledged last time … */
    int64_t acked_us;          /* … and since when that number has stood still. */
};

struct net_peer_slot {
    uint32_t peer;
    int fd; /* -1: free. */
};

struct net_conns {
    struct net_conn *by_fd;
    size_t capacity;             /* Of by_fd. */
    struct net_peer_slot *peers; /* Open addressing, linear probing. */
    size_t peers_mask;
    size_t peers_count;
    size_t count; /* Open connections. */
};

MUST_CHECK bool net_conns_init(struct net_conns *conns, size_t peers_max);
void net_conns_fini(struct net_conns *conns);
/* NULL when memory is out. A connection that was still open under `fd` ends first. */
struct net_conn *net_conns_open(struct net_conns *conns, int fd, int64_t now_us);
void net_conns_close(struct net_conns *conns, int fd);
struct net_conn *net_conns_of_fd(struct net_conns *conns, int fd); /* NULL when none is open. */
int net_conns_fd_of_peer(const struct net_conns *conns, uint32_t peer); /* -1 when unknown. */
/* False when there is no room for a peer more. Replaces the peer that the connection had. */
MUST_CHECK bool net_conns_bind(struct net_conns *conns, int fd, uint32_t peer);
void net_conns_check(const struct net_conns *conns);

#endif
