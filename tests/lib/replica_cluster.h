/* replica_cluster: the replicas of one partition, each on a real store in a folder of its own, and
 * a network in memory between them: delays, losses, cuts, all from one seed; a clock that only the
 * test moves. A node's turn is the shard's: receive, send, write, commit, stored, send.
 *
 * Nodes are numbered 0..; the member of node i in its n-th life (0: the first) is n << 32 | i + 1.
 */
#ifndef FERRY_TEST_REPLICA_CLUSTER_H
#define FERRY_TEST_REPLICA_CLUSTER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"
#include "base/prng.h"
#include "partition/partition.h"

#define CLUSTER_NODES_MAX 5
#define CLUSTER_GROUP     7u
#define CLUSTER_STEP_US   5000
#define CLUSTER_BOOT      77u

struct cluster_node {
    char folder[300];
    uint32_t life;
    raft_id self;
    struct raft_members initial;
    struct store *store; /* NULL: down. */
    struct partition *p;
    struct peer_outbox *out;
    struct list inbox;     /* Frames that arrived. */
    struct list owned;     /* Batches and tickets of this life's proposals. */
    uint64_t done, failed; /* Tickets answered. */
};

/* Where a node ends within a turn. */
enum replicas_crash { CRASH_NEVER, CRASH_WITHOUT_COMMIT, CRASH_AFTER_COMMIT };

struct cluster {
    char root[256];
    struct prng prng;
    uint64_t seed;
    int count;
    struct cluster_node nodes[CLUSTER_NODES_MAX];
    bool cut[CLUSTER_NODES_MAX][CLUSTER_NODES_MAX]; /* from, to */
    uint32_t loss_percent;
    uint64_t frames;
    struct list wire; /* Frames under way. */
    int64_t now_us, now_ms;
    struct topic_settings settings;
    size_t send_budget;
    /* Looks at every item that is delivered; false drops it. */
    bool (*filter)(struct cluster *c, int from, int to, const struct peer_item *item);
    void *filter_arg;
    uint64_t counter; /* For filters. */
};

struct cluster *replicas_new(int count, uint64_t seed);
void replicas_free(struct cluster *c);
/* Members by node numbers, in the lives they have; old and learners may be empty. */
struct raft_members replicas_members(const struct cluster *c, const int *voters, uint32_t count);

void replicas_start(struct cluster *c, int i); /* Opens from the folder. */
enum ferry_err replicas_try_start(struct cluster *c, int i);
void replicas_crash(struct cluster *c, int i);
/* Empties the folder; the next start is another member. */
void replicas_wipe(struct cluster *c, int i);
void replicas_turn(struct cluster *c, int i, enum replicas_crash crash);
void replicas_run_ms(struct cluster *c, int64_t ms);
/* Runs until somebody leads and is ready; fails the test after 20 seconds. */
int replicas_wait_leader(struct cluster *c);
int replicas_leader(const struct cluster *c); /* -1: none is ready. */
/* Runs until all nodes that are up have applied the same and have flushed it. */
void replicas_settle(struct cluster *c);
void replicas_isolate(struct cluster *c, int i, bool isolated);
struct replica *replicas_replica(const struct cluster *c, int i);

struct cluster_batch {
    uint64_t producer, first_sequence;
    uint32_t count;
    const struct ferry_id *ids;
    size_t payload_bytes;
    uint64_t content;
    int64_t due; /* Of all; 0: not delayed. */
};
/* Proposes at node i; NULL when it is refused (`err`). The ticket lives as long as the node. */
struct partition_ticket *replicas_send(struct cluster *c, int i, const struct cluster_batch *b,
                                       enum ferry_err *err);
struct partition_ticket *replicas_ticket(struct cluster *c, int i);
/* Sends to the leader and runs until it is answered: FERRY_OK. */
void replicas_produce(struct cluster *c, const struct cluster_batch *b);
/* The contents that node i would serve, in order; reads through its store, whoever leads. */
size_t replicas_contents(struct cluster *c, int i, uint64_t *contents, size_t max);

/* Fails unless the state rows of all nodes that are up are the same bytes, and the logs, too. */
void replicas_compare(struct cluster *c);
/* A hash of all state rows of the group at node i, but for the replica's own. */
uint64_t replicas_rows_hash(struct cluster *c, int i, uint64_t *rows);
/* Flips a byte of the batch with this content on node i's disk: of its payload, or of the entry's
 * header. The node may be up or down. */
void replicas_damage(struct cluster *c, int i, uint64_t content, bool header);
/* Flips a byte in the header of the entry at this index. The node must be up. */
void replicas_damage_at(struct cluster *c, int i, uint64_t index);
/* FERRY_OK when every entry on disk from the trim on reads in full. */
enum ferry_err replicas_check_log(struct cluster *c, int i);

#endif
