/* plan: where replicas and voters should be, pure.
 *
 * From the nodes and what is in force it computes what should be; no I/O, no clock, no state. All
 * arithmetic is in integers, and nothing depends on the order in which nodes or topics are named:
 * every node of a cluster computes the same.
 *
 * Invariants:
 *  (1) A placement names distinct, usable nodes (weight > 0, not draining), in as many different
 *      zones as there can be; the first is the preferred leader.
 *  (2) plan_balance goes to the ring's placement (ring.h: bounded load), and a second plan after
 * the first was carried out is empty. A step is made only where the set of nodes or the preferred
 *      leader differs, so what may stay stays.
 *  (3) plan_evacuate moves exactly the replicas on nodes that are not usable, and no other; they go
 *      where the ring would put them unless there is no room or the zones would be worse.
 *  (4) Nodes that are silent or dead are nobody's business here: only people drain and remove.
 *
 * Threads: any. A plan owns its steps. */
#ifndef FERRY_CLUSTER_PLAN_H
#define FERRY_CLUSTER_PLAN_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/id.h"
#include "raft/raft.h"
#include "ring/ring.h"

#define PLAN_STEPS_MAX    4096u /* Of one plan: a larger one is cut, and planned again afterwards. */
#define PLAN_LOAD_PERCENT 125u
#define PLAN_VOTERS_MAX   5u

/* weight, draining: see (1). */
struct plan_node {
    uint32_t id;
    raft_id member;
    uint32_t weight;
    bool draining;
    char zone[RING_ZONE_BYTES];
};

struct plan_topic {
    struct ferry_id id;
    uint64_t first_group;
    uint32_t partitions, replicas;
    const uint32_t *placement; /* In force: partitions × replicas node ids. Borrowed. */
};

/* One partition goes from one set of nodes to another; preferred leaders first. */
struct plan_step {
    uint64_t group;
    uint32_t replicas;
    uint32_t from[RING_REPLICAS_MAX];
    uint32_t to[RING_REPLICAS_MAX];
};

struct plan {
    uint64_t id; /* A hash of all steps; never 0. */
    bool cut;    /* There would be more than PLAN_STEPS_MAX. */
    size_t count, capacity;
    struct plan_step *steps; /* By group, rising. Owned. */
};
void plan_init(struct plan *plan);
void plan_fini(struct plan *plan);

/* The number of nodes that may take replicas. */
size_t plan_usable(const struct plan_node *nodes, size_t count);
/* The placement of a new topic; `placement` has partitions × replicas places. Errors:
 * INVALID_ARGUMENT (replicas more than usable nodes), NO_MEMORY. */
MUST_CHECK enum ferry_err plan_place(const struct plan_node *nodes, size_t count,
                                     const struct ferry_id *topic, uint32_t partitions,
                                     uint32_t replicas, uint32_t *placement);
/* To the ring's placement: what `ferry cluster plan` shows. `plan` is initialised and empty. A
 * topic with more replicas than there are usable nodes is left alone. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err plan_balance(const struct plan_node *nodes, size_t count,
                                       const struct plan_topic *topics, size_t topic_count,
                                       struct plan *plan);
/* Off the nodes that are not usable: what a drain does. */
MUST_CHECK enum ferry_err plan_evacuate(const struct plan_node *nodes, size_t count,
                                        const struct plan_topic *topics, size_t topic_count,
                                        struct plan *plan);
/* Copies in the step: nodes of `to` that are not in `from`. */
uint32_t plan_step_copies(const struct plan_step *step);

/* The members of the metadata group: up to PLAN_VOTERS_MAX voters, an odd number, spread over
 * zones; not draining ones while there are others; present voters when it is the same. The rest are
 * learners. `now` is in force; of it only the voters count. `members` is not joint. */
void plan_members(const struct plan_node *nodes, size_t count, const struct raft_members *now,
                  struct raft_members *members);

#endif
