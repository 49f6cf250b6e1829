/* raft_cluster: a group of Raft cores in one thread, from one seed, with faults.
 *
 * The network loses, delays, doubles, reorders and cuts in one direction or both; the disk is
 * asynchronous (an fsync takes time while the core goes on) and forgets at a crash what was not
 * synced, or keeps it unannounced; nodes crash, restart, are paused and cut off, and find entries
 * that they cannot read. Meanwhile somebody proposes, reads, changes members, hands leadership
 * over, trims, and stops all that until groups go quiet. How much of each is drawn from the seed.
 * Then everything heals, but perhaps for one node that no quorum needs, and the group must commit
 * again, agree, and keep its leader. Every step is followed by raft_check and the checkers. */
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
    uint64_t configs;      /* Configurations proposed. */
    uint64_t rolled_back;  /* Configurations cut away. */
    uint64_t not_in_new;   /* Leaders that a configuration left out. */
    uint64_t transfers;    /* Asked for. */
    uint64_t timeout_nows; /* TIMEOUT_NOW sent. */
    uint64_t reads;        /* Confirmed. */
    uint64_t reads_failed;
    uint64_t snapshots; /* Installed. */
    uint64_t quiet;     /* Times that a leader went quiet. */
    uint64_t wakes;     /* RAFT_WAKE told. */
    uint64_t mutes;
    uint64_t lost_leads; /* Leaderships lost. */
};

/* `node_count` nodes, the first `voter_count` of which are the group at first. */
void raft_cluster_run(uint64_t seed, size_t node_count, size_t voter_count,
                      struct raft_cluster_result *result);

#endif
