/* sim_net: net.h in memory, over virtual time, and what can go wrong on the way.
 *
 * A server has an endpoint; a link connects to it by itself, again and again. A message is lost,
 * late, doubled, overtaken or damaged as the conditions say. Two kinds of connection:
 *   stream     as TCP: in order; what is lost takes the connection with it, and all behind it
 *   datagrams  harsher than any TCP: each message fares by itself
 * Messages are kept from the moment a host is dead (it says nothing any more, not even what it was
 * about to say), and a message that left a busy task later than its host's end never left. */
#ifndef FERRY_SIM_SIM_NET_H
#define FERRY_SIM_SIM_NET_H

#include "net/net.h"
#include "sim/world.h"

/* Conditions of one kind of path: between nodes, or between clients and nodes. */
struct net_path {
    int64_t delay_min_us, delay_mean_us; /* The mean of what is added to the minimum. */
    int64_t tail_permille, tail_us;      /* Some take up to so much longer. */
    int64_t loss_permille, double_permille, old_permille, flip_permille;
    bool datagrams;
};

struct net_counters {
    uint64_t sent, delivered, lost, cut, doubled, old, flipped, resets, bytes;
};

void sim_net_init(void);
void sim_net_fini(void);
struct net_path *sim_net_path(bool between_nodes);
struct net_counters *sim_net_counters(void);
/* `from` cannot be heard by `to`. Places are hosts' numbers. */
void sim_net_cut(uint32_t from, uint32_t to, bool cut);
void sim_net_heal(void); /* No cuts, no slow hosts. */
void sim_net_slow(uint32_t host, int64_t us);
/* The host is gone: its servers and links with all connections; nothing it had sent later than
 * `when` arrives. */
void sim_net_host_died(struct host *h, int64_t when_us);

/* Looks at every message that leaves: `to_node` says which side it goes to. Set once. */
typedef void sim_net_watch(const struct host *from, const struct host *to, struct bytes message,
                           bool to_server);
void sim_net_on_send(sim_net_watch *watch);

#endif
