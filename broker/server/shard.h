/* shard: one thread with its own store, sockets and timers, and the replicas that live on it.
 *
 * The turn, always in this order:
 *   1. mail from other shards; then what has arrived of peers and clients (up to turn_bytes each):
 *      decode, let replicas step and partitions propose
 *   2. timers that are due; members that are to be brought elsewhere
 *   3. send what needs no disk: above all appends, so that the followers' disks work meanwhile
 *   4. one store transaction for all replicas touched; its commit is the group commit
 *   5. apply what became committed; send votes and acknowledgements, and what the commit allowed
 *   6. answer
 * Nothing that claims durability leaves before the commit of its turn returned.
 *
 * Invariants: (1) a partition is on one shard: group % shards; (2) a request is answered exactly
 * once, or its peer is gone; (3) when the store fails, nothing is acknowledged any more and the
 * shard says so (shard_failure); (4) frames of peers live until the commit of the turn they came
 * in; (5) what a turn takes in fits into one transaction (STORE_TURN_MAX_BYTES); (6) no turn and no
 * heartbeat looks at all groups: work is by what was touched, what is due, and what changed.
 *
 * Without threads (the simulator, tests): shard_new for each shard, shard_connect, then shard_turn
 * again and again, whenever something has arrived or shard_wait_ms has passed; shard_free at the
 * end. The shards of a node may be stepped in any order by one thread. With a seed in the
 * configuration a shard asks nobody for random numbers, but the store for the incarnation of a new
 * folder unless that is given too.
 *
 * Threads: shard_new and shard_free on the broker's; all else on the shard's own; shard_stop,
 * shard_leave and what is said to be asked from any thread. */
#ifndef FERRY_SERVER_SHARD_H
#define FERRY_SERVER_SHARD_H

#include "net/net.h"
#include "server/mailbox.h"
#include "server/options.h"

struct shard;

struct shard_config {
    const struct broker_options *options;
    struct ferry_context *context;
    uint32_t index;
    struct ferry_id cluster_id; /* Zero for shard 0: taken from the folder. */
    /* Of the node's life. 0 for shard 0: taken from the folder, or made by the store. */
    uint32_t incarnation;
    bool must_exist; /* The folder has been there before: see shard_is_whole. */
    uint64_t seed;   /* 0: from the system. The same for all shards of a node. */
};

/* Opens the store and binds. Errors: of store_open and net_server_open, with a detail. */
MUST_CHECK enum ferry_err shard_new(const struct shard_config *config, struct shard **s,
                                    struct err_text *e);
void shard_free(struct shard **s);
/* The other shards, once all are made: peers[i] is shard i. */
void shard_connect(struct shard *s, struct shard *const *peers, uint32_t count);
MUST_CHECK enum ferry_err shard_start(struct shard *s);
void shard_stop(struct shard *s); /* Asks; shard_join waits. */
void shard_join(struct shard *s);
/* Asks it to hand its leaderships over; shard_has_left tells when it has. */
void shard_leave(struct shard *s);

/* One turn, and how long it may wait for the next when nothing arrives. For who steps a shard
 * without its thread. */
void shard_turn(struct shard *s);
int shard_wait_ms(const struct shard *s);

/* ---- From any thread ---- */

/* Shard 0: the node serves clients. Alone: every partition is open and led; in a cluster: it knows
 * its cluster and has opened what is placed on it, led by whomever. */
bool shard_is_ready(const struct shard *s);
bool shard_has_left(
    const struct shard *s); /* After shard_leave: others lead now, where others can. */
/* Shard 0: how many of them could not be opened; the log says why. */
uint32_t shard_unserved(const struct shard *s);
/* FERRY_OK while it works; then what ended it. */
enum ferry_err shard_failure(const struct shard *s);

/* ---- Once it is made ---- */

struct ferry_id shard_cluster_id(const struct shard *s); /* Zero: of none yet. */
uint32_t shard_incarnation(const struct shard *s);
/* Of shard 0: all shards of the node have had their folders. From then on a missing one is a loss:
 * made anew, it would be the same member without what it has promised by. Before the shards are
 * started. */
bool shard_is_whole(const struct shard *s);
MUST_CHECK enum ferry_err shard_remember_whole(struct shard *s);
const char *shard_endpoint(const struct shard *s);      /* As clients are told. */
const char *shard_peer_endpoint(const struct shard *s); /* As nodes are told; "" for none. */

#endif
