/* checkers: what must never be seen of groups (reliability.md INV-R).
 *
 * They watch three things from outside: what is durable on each disk (observe.h), what frames leave
 * a node (peer.h), and after each turn what each replica says of itself: role, term, commit, who
 * its members are. They know nothing of how it comes to be.
 *
 *   R01 one leader a term      R03 R05 R11 what was committed is the same for all, for ever
 *   R04 a leader has it all    R06 terms and commits never go back     R08 one vote a term, durable
 *   R09 acks only of what is durable; committed only with a durable majority (R10, R12, R14)
 *   R17 a damaged replica says nothing that counts                     R18 same index, same rows */
#ifndef FERRY_SIM_CHECKERS_H
#define FERRY_SIM_CHECKERS_H

#include "sim/sim_node.h"

/* `frames`: what nodes say to each other is shown (when verbose). */
void checkers_init(struct sim_node **nodes, uint32_t node_count, bool frames);
void checkers_fini(void);
void check_turn(struct sim_node *n, uint32_t shard);
/* The node has started anew: what it knew only in memory may be less. `wiped`: on disk as well. */
void check_started(const struct sim_node *n);
/* Its folder is an older one from now on. */
void check_restored(const struct sim_node *n);
/* After the healed phase: replicas that have applied the same hold the same. */
void check_same_state(void);
void check_caught_up(void); /* ... and all live members have applied the same. */
/* True when each other node has on its disks at least the log that this one has on its own. */
bool check_others_have(const struct sim_node *n);

void check_show(void); /* What every replica says of itself, for people. */

struct check_counters {
    uint64_t elections, commits, snapshots, repairs, transfers, joint, pre_votes, quiet, votes,
        damaged, learners, compared, step_downs, install_crashes;
};
const struct check_counters *check_counters(void);

#endif
