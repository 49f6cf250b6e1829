/* raft_cluster: a group of Raft cores in one thread, from one seed, with faults.
 *
 * The network loses, delays, doubles and reorders; the disk is asynchronous (an fsync takes time
 * while the core goes on) and forgets at a crash what was not synced, or keeps it unannounced;
 * nodes crash, restart and are cut off. How much of each is drawn from the seed. Then everything
 * heals, and the group must commit again and agree. Every step is followed by raft_check and the
 * checkers. */
#ifndef FERRY_TEST_RAFT_CLUSTER_H
#define FERRY_TEST_RAFT_CLUSTER_H

#include <stddef.h>
#include <stdint.h>

struct raft_cluster_result {
    char violation[200]; /* Empty: all held. */
    uint64_t trace_hash; /* Over every step and its update. */
    uint64_t steps;
    uint64_t committed; /* Entries. */
    uint64_t elections; /* Won. */
    uint64_t crashes;
    uint64_t truncations;
    uint64_t refusals;    /* Append replies that refused. */
    uint64_t late_stored; /* RAFT_STORED of an fsync that began before a truncation (ABA). */
    uint64_t trims;
};

void raft_cluster_run(uint64_t seed, size_t node_count, struct raft_cluster_result *result);

#endif
