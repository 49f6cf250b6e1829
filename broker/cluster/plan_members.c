/* Who votes in the metadata group. */
#include "base/must.h"
#include "cluster/plan.h"

_Static_assert(PLAN_VOTERS_MAX <= RAFT_VOTERS_MAX && PLAN_VOTERS_MAX % 2 == 1, "an odd set");

static uint32_t voters_in_zone(const struct plan_node *nodes, size_t count, const bool *chosen,
                               size_t of)
{
    uint32_t voters = 0;
    for (size_t i = 0; i < count; i++) {
        bool same =
            i == of || (nodes[of].zone[0] != '\0' && strcmp(nodes[i].zone, nodes[of].zone) == 0);
        voters += chosen[i] && same ? 1 : 0;
    }
    return voters;
}

/* Better: not draining; in a zone with fewer voters; a voter already; the lower member. Zones
 * before those that vote already, so that voters do spread when a zone is added; with equal zones
 * nobody is exchanged. */
static bool is_better(const struct plan_node *nodes, size_t count, const bool *chosen,
                      const struct raft_members *now, size_t a, size_t b)
{
    if (nodes[a].draining != nodes[b].draining) {
        return nodes[b].draining;
    }
    uint32_t zone_a = voters_in_zone(nodes, count, chosen, a);
    uint32_t zone_b = voters_in_zone(nodes, count, chosen, b);
    if (zone_a != zone_b) {
        return zone_a < zone_b;
    }
    bool votes_a = raft_members_has_voter(now, nodes[a].member);
    bool votes_b = raft_members_has_voter(now, nodes[b].member);
    if (votes_a != votes_b) {
        return votes_a;
    }
    return nodes[a].member < nodes[b].member;
}

static size_t choose(const struct plan_node *nodes, size_t count, const bool *chosen,
                     const struct raft_members *now)
{
    size_t best = count;
    for (size_t i = 0; i < count; i++) {
        if (!chosen[i] && (best == count || is_better(nodes, count, chosen, now, i, best))) {
            best = i;
        }
    }
    must(best < count);
    return best;
}

static uint32_t insert(raft_id *ids, uint32_t count, raft_id id)
{
    uint32_t at = count;
    for (; at > 0 && ids[at - 1] > id; at--) {
        ids[at] = ids[at - 1];
    }
    ids[at] = id;
    return count + 1;
}

void plan_members(const struct plan_node *nodes, size_t count, const struct raft_members *now,
                  struct raft_members *members)
{
    bool chosen[RING_NODES_MAX] = {false};
    must(count <= RING_NODES_MAX);
    *members = (struct raft_members){0};
    size_t wanted = count < PLAN_VOTERS_MAX ? count : PLAN_VOTERS_MAX;
    wanted -= wanted > 0 && wanted % 2 == 0 ? 1 : 0;
    for (size_t i = 0; i < wanted; i++) {
        size_t voter = choose(nodes, count, chosen, now);
        chosen[voter] = true;
        members->voter_count = insert(members->voters, members->voter_count, nodes[voter].member);
    }
    for (size_t i = 0; i < count; i++) {
        if (!chosen[i] && members->learner_count < RAFT_LEARNERS_MAX) {
            members->learner_count =
                insert(members->learners, members->learner_count, nodes[i].member);
        }
    }
}
