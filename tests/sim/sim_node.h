/* sim_node: one broker: its shards, stepped in the world instead of threads.
 *
 * A crash needs no thrown-away memory: from the moment of death the host says nothing, its commits
 * do not happen, and once the turn is over the shards are freed. What a crash can be seen by are
 * only messages and disks, so it is a crash at that very point. */
#ifndef FERRY_SIM_SIM_NODE_H
#define FERRY_SIM_SIM_NODE_H

#include "server/shard_internal.h"
#include "sim/sim_net.h"
#include "sim/world.h"

#define SIM_NODES_MAX  7
#define SIM_SHARDS_MAX 4

/* Where in a turn the node dies. */
enum doom { DOOM_NONE, DOOM_BEFORE_COMMIT, DOOM_AFTER_COMMIT };

struct sim_node {
    uint32_t id; /* From 1. */
    struct host *host;
    struct broker_options options;
    struct ferry_context *context;
    struct shard *shards[SIM_SHARDS_MAX];
    struct task *tasks[SIM_SHARDS_MAX];
    uint32_t shard_count;
    bool up;
    enum doom doom;
    bool keeps; /* A commit that is under way when it dies becomes durable. */
    uint64_t starts;
    raft_id member;       /* Of the folder it has open, or had. */
    enum ferry_err ended; /* Why its process ended by itself; FERRY_OK: it did not. */
};

/* `founders`: who founds the cluster together, as node.bootstrap has it; "": a node alone. */
struct sim_node *sim_node_new(uint32_t id, uint32_t shards, const char *founders);
/* Node i's entry in such a list. */
void sim_node_founder(uint32_t id, char *text, size_t bytes);
void sim_node_free(struct sim_node **n);
/* Starts it, as after a crash or for the first time. False: it could not; why is said. */
bool sim_node_start(struct sim_node *n);
void sim_node_crash(struct sim_node *n);                /* Now, between turns. */
void sim_node_doom(struct sim_node *n, enum doom doom); /* At the next such point. */
void sim_node_path(const struct sim_node *n, uint32_t shard, char *path, size_t bytes);
const char *sim_node_endpoint(const struct sim_node *n);
void sim_node_wipe(struct sim_node *n); /* Its folder; it must be down. */

/* The node whose task runs; NULL: none. */
struct sim_node *sim_node_current(void);

#endif
