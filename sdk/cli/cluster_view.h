/* cluster_view: what the nodes of a cluster say, put together: who leads what, who is behind, what
 * a node may be missed for.
 *
 * Building and judging are pure: they look at what was collected and nothing else, so that a test
 * can put any cluster before them. What was not answered is unknown here too, and never zero.
 *
 * The leader's word counts: only it knows how far the others are. Of two shards that both say they
 * lead a group, the one with the higher term does. A voter is in sync when it is the leader, or the
 * leader has heard of it lately (of a quiet group: its node is up), its folder is the one that the
 * group knows, its own node says nothing bad of the replica, and it has the log but for a little.
 */
#ifndef FERRY_CLI_CLUSTER_VIEW_H
#define FERRY_CLI_CLUSTER_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ferry.h"

#define VIEW_SILENT_MS   2000 /* Heartbeats come each 100 ms. */
#define VIEW_LAG_MAX     1000 /* Entries behind the commit, on the way. */
#define VIEW_WORDS_BYTES 160

struct view_partition {
    const char *topic; /* "" for the metadata group. */
    int32_t partition;
    uint64_t group;
    const struct ferry_placement *placement; /* NULL for the metadata group. */
    const struct ferry_group *leader;        /* As the leader itself tells it; NULL: nobody did. */
    uint32_t leader_node;                    /* Who told it; 0 when leader is NULL. */
    bool all_answered; /* Every node that might lead it has told what it has. */
};

struct cluster_view {
    struct ferry_nodes *nodes; /* All owned. */
    struct ferry_groups *groups;
    struct ferry_placements *placements;
    size_t count;
    struct view_partition *partitions; /* [0] is the metadata group; then by topic. */
};

/* Asks all. Errors: those of the calls; a node that is silent is not one. */
enum ferry_err view_collect(struct ferry_client *client, const char *topic, int timeout_ms,
                            struct cluster_view *view);
/* Puts together what is in nodes, groups and placements. Errors: NO_MEMORY. */
enum ferry_err view_build(struct cluster_view *view);
void view_fini(struct cluster_view *view);

const struct ferry_node *view_node(const struct cluster_view *view, uint32_t node_id);
/* Whether all shards of the node have answered; `err` (may be NULL) is of one that has not. */
bool view_node_answers(const struct cluster_view *view, uint32_t node_id, enum ferry_err *err);
/* The node's own word on its replica; NULL: it did not answer, or has none. */
const struct ferry_group *view_replica(const struct cluster_view *view, uint32_t node_id,
                                       uint64_t group);
/* Entries that the member is behind the commit. */
uint64_t view_lag(const struct ferry_group *leader, const struct ferry_group_member *m);
/* False, and why in words. */
bool view_in_sync(const struct cluster_view *view, const struct view_partition *p,
                  const struct ferry_group_member *m, char why[VIEW_WORDS_BYTES]);
/* The greatest lag of the node's replicas; false when it is not known. */
bool view_node_lag(const struct cluster_view *view, uint32_t node_id, uint64_t *lag);

enum view_health {
    VIEW_HEALTHY,
    VIEW_UNDER_REPLICATED, /* Led, and a voter is not in sync, or there are fewer than wanted. */
    VIEW_NO_LEADER,        /* All have answered, and nobody leads it. */
    VIEW_UNKNOWN,          /* Its leader, if there is one, did not answer. */
};
/* With words for all but healthy. */
enum view_health view_health_of(const struct cluster_view *view, const struct view_partition *p,
                                char why[VIEW_WORDS_BYTES]);

enum view_safety { VIEW_SAFE, VIEW_NOT_SAFE, VIEW_SAFETY_UNKNOWN };
/* What becomes of the partition when the node stops now. Words for all but safe. */
enum view_safety view_safety_of(const struct cluster_view *view, const struct view_partition *p,
                                uint32_t node_id, char why[VIEW_WORDS_BYTES]);
/* "orders/3", or "metadata". */
void view_name(const struct view_partition *p, char text[VIEW_WORDS_BYTES]);

#endif
