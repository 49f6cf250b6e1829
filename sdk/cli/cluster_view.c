#include "cli/cluster_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/must.h"
#include "cli/format.h"

/* Silent nodes cost that much of a command's time. */
#define SURVEY_MS 2000

/* ---- Collecting. */

enum ferry_err view_collect(struct ferry_client *client, const char *topic, int timeout_ms,
                            struct cluster_view *view)
{
    *view = (struct cluster_view){.count = 0};
    enum ferry_err err = ferry_nodes_list(client, timeout_ms, &view->nodes);
    if (err == FERRY_OK) {
        err = ferry_placements_list(client, topic, timeout_ms, &view->placements);
    }
    if (err == FERRY_OK) {
        err = ferry_groups_list(client, view->nodes,
                                timeout_ms < SURVEY_MS ? timeout_ms : SURVEY_MS, &view->groups);
    }
    if (err == FERRY_OK) {
        err = view_build(view);
    }
    if (err != FERRY_OK) {
        view_fini(view);
    }
    return err;
}

void view_fini(struct cluster_view *view)
{
    ferry_nodes_free(&view->nodes);
    ferry_placements_free(&view->placements);
    ferry_groups_free(&view->groups);
    mem_free(view->partitions);
    *view = (struct cluster_view){.count = 0};
}

/* ---- Building. */

static bool leads(const struct ferry_group *g)
{
    return g->state == FERRY_GROUP_LEADER || g->state == FERRY_GROUP_LEADER_NOT_READY;
}

static bool may_lead(const struct view_partition *p, const struct ferry_node *node)
{
    if (p->placement == NULL) {
        return node == NULL || node->metadata_role != FERRY_METADATA_LEARNER;
    }
    for (uint32_t i = 0; i < p->placement->replica_count; i++) {
        if (node != NULL && p->placement->replicas[i] == node->node_id) {
            return true;
        }
    }
    return p->placement->replica_count == 0; /* Not told: it could be any. */
}

/* Whether somebody is missing among those that might lead it. */
static void find_missing(const struct cluster_view *view, struct view_partition *p)
{
    p->all_answered = true;
    for (size_t i = 0; i < view->groups->count; i++) {
        const struct ferry_shard_groups *shard = &view->groups->shards[i];
        if (shard->err != FERRY_OK && may_lead(p, view_node(view, shard->node_id))) {
            p->all_answered = false;
        }
    }
}

/* Sorted by group, they are found by halving. */
static struct view_partition *find_partition(struct view_partition **by_group, size_t count,
                                             uint64_t group)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (by_group[middle]->group < group) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && by_group[low]->group == group ? by_group[low] : NULL;
}

static int compare_groups(const void *a, const void *b)
{
    const struct view_partition *x = *(struct view_partition *const *)a;
    const struct view_partition *y = *(struct view_partition *const *)b;
    return x->group < y->group ? -1 : x->group > y->group;
}

static void take_leaders(const struct cluster_view *view, struct view_partition **by_group)
{
    for (size_t i = 0; i < view->groups->count; i++) {
        const struct ferry_shard_groups *shard = &view->groups->shards[i];
        for (size_t k = 0; k < shard->count; k++) {
            const struct ferry_group *g = &shard->groups[k];
            struct view_partition *p =
                leads(g) ? find_partition(by_group, view->count, g->group) : NULL;
            if (p != NULL && (p->leader == NULL || g->term > p->leader->term)) {
                p->leader = g;
                p->leader_node = shard->node_id;
            }
        }
    }
}

enum ferry_err view_build(struct cluster_view *view)
{
    view->count = view->placements->count + 1;
    view->partitions = mem_zalloc(view->count, sizeof(*view->partitions));
    struct view_partition **by_group = mem_zalloc(view->count, sizeof(struct view_partition *));
    if (view->partitions == NULL || by_group == NULL) {
        mem_free(by_group);
        return FERRY_ERR_NO_MEMORY;
    }
    view->partitions[0].topic = "";
    for (size_t i = 1; i < view->count; i++) {
        const struct ferry_placement *placement = &view->placements->placements[i - 1];
        view->partitions[i] = (struct view_partition){.topic = placement->topic,
                                                      .partition = placement->partition,
                                                      .group = placement->group,
                                                      .placement = placement};
    }
    for (size_t i = 0; i < view->count; i++) {
        find_missing(view, &view->partitions[i]);
        by_group[i] = &view->partitions[i];
    }
    qsort(by_group, view->count, sizeof(by_group[0]), compare_groups);
    take_leaders(view, by_group);
    mem_free(by_group);
    return FERRY_OK;
}

/* ---- Asking. */

const struct ferry_node *view_node(const struct cluster_view *view, uint32_t node_id)
{
    for (size_t i = 0; i < view->nodes->count; i++) {
        if (view->nodes->nodes[i].node_id == node_id) {
            return &view->nodes->nodes[i];
        }
    }
    return NULL;
}

bool view_node_answers(const struct cluster_view *view, uint32_t node_id, enum ferry_err *err)
{
    bool found = false;
    for (size_t i = 0; i < view->groups->count; i++) {
        const struct ferry_shard_groups *shard = &view->groups->shards[i];
        if (shard->node_id != node_id) {
            continue;
        }
        found = true;
        if (shard->err != FERRY_OK) {
            if (err != NULL) {
                *err = shard->err;
            }
            return false;
        }
    }
    if (!found && err != NULL) {
        *err = FERRY_ERR_UNREACHABLE; /* Nobody knows where it is. */
    }
    return found;
}

const struct ferry_group *view_replica(const struct cluster_view *view, uint32_t node_id,
                                       uint64_t group)
{
    for (size_t i = 0; i < view->groups->count; i++) {
        const struct ferry_shard_groups *shard = &view->groups->shards[i];
        for (size_t k = 0; shard->node_id == node_id && k < shard->count; k++) {
            if (shard->groups[k].group == group) {
                return &shard->groups[k];
            }
        }
    }
    return NULL;
}

void view_name(const struct view_partition *p, char text[VIEW_WORDS_BYTES])
{
    if (p->placement == NULL) {
        (void)snprintf(text, VIEW_WORDS_BYTES, "metadata");
    } else {
        (void)snprintf(text, VIEW_WORDS_BYTES, "%.140s/%d", p->topic, p->partition);
    }
}

uint64_t view_lag(const struct ferry_group *leader, const struct ferry_group_member *m)
{
    return leader->commit > m->match ? leader->commit - m->match : 0;
}

static const char *bad_state(const struct ferry_group *own)
{
    switch (own->state) {
    case FERRY_GROUP_INSTALLING:
        return "takes a snapshot";
    case FERRY_GROUP_DAMAGED:
        return "repairs a damaged entry";
    case FERRY_GROUP_FAILED:
        return "has failed: see its log";
    default:
        return NULL;
    }
}

/* A quiet group hears of its members by their nodes. One that has just been woken has not heard of
 * them for as long as it was quiet, whatever became of the node since. */
static int64_t heard_before_ms(const struct ferry_group *leader, const struct ferry_node *node,
                               const struct ferry_group_member *m)
{
    bool silent = node->state == FERRY_NODE_SILENT;
    if (leader->quiet) {
        return silent ? node->silent_ms : 0;
    }
    bool node_tells = silent && (m->silent_ms < 0 || node->silent_ms < m->silent_ms);
    return node_tells ? node->silent_ms : m->silent_ms;
}

static bool is_heard(const struct cluster_view *view, const struct ferry_group *leader,
                     const struct ferry_group_member *m, char why[VIEW_WORDS_BYTES])
{
    char age[FORMAT_TEXT_BYTES];
    const struct ferry_node *node = view_node(view, m->node_id);
    if (node == NULL) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u is no member of the cluster", m->node_id);
        return false;
    }
    if (node->member != m->member) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u has another data folder now", m->node_id);
        return false;
    }
    int64_t silent_ms = heard_before_ms(leader, node, m);
    if (silent_ms < 0) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u was not heard since %u leads", m->node_id,
                       leader->leader_node);
        return false;
    }
    if (silent_ms >= VIEW_SILENT_MS) {
        format_duration_us(silent_ms * 1000, age);
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u is silent for %s", m->node_id, age);
        return false;
    }
    return true;
}

bool view_in_sync(const struct cluster_view *view, const struct view_partition *p,
                  const struct ferry_group_member *m, char why[VIEW_WORDS_BYTES])
{
    char lag[FORMAT_TEXT_BYTES];
    must(p->leader != NULL);
    why[0] = '\0';
    if (m->node_id == p->leader_node) {
        return true;
    }
    if (!is_heard(view, p->leader, m, why)) {
        return false;
    }
    const struct ferry_group *own = view_replica(view, m->node_id, p->group);
    const char *bad = own != NULL ? bad_state(own) : NULL;
    bad = m->snapshotting && bad == NULL ? "is sent a snapshot" : bad;
    if (bad != NULL) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u %s", m->node_id, bad);
        return false;
    }
    if (view_lag(p->leader, m) > VIEW_LAG_MAX) {
        format_count((int64_t)view_lag(p->leader, m), lag);
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u is %s entries behind", m->node_id, lag);
        return false;
    }
    return true;
}

static const struct ferry_group_member *find_member(const struct ferry_group *leader,
                                                    uint32_t node_id)
{
    for (uint32_t i = 0; i < leader->member_count; i++) {
        if (leader->members[i].node_id == node_id) {
            return &leader->members[i];
        }
    }
    return NULL;
}

static bool is_placed(const struct cluster_view *view, const struct view_partition *p,
                      uint32_t node_id)
{
    const struct ferry_node *node = view_node(view, node_id);
    if (p->placement == NULL) {
        return node == NULL || node->metadata_role == FERRY_METADATA_VOTER ||
               node->metadata_role == FERRY_METADATA_LEADER;
    }
    return may_lead(p, node);
}

bool view_node_lag(const struct cluster_view *view, uint32_t node_id, uint64_t *lag)
{
    *lag = 0;
    for (size_t i = 0; i < view->count; i++) {
        const struct view_partition *p = &view->partitions[i];
        if (p->leader == NULL && is_placed(view, p, node_id)) {
            return false; /* It may be behind in that one. */
        }
        const struct ferry_group_member *m =
            p->leader != NULL ? find_member(p->leader, node_id) : NULL;
        if (m != NULL && node_id != p->leader_node && view_lag(p->leader, m) > *lag) {
            *lag = view_lag(p->leader, m);
        }
    }
    return true;
}

/* ---- Judging. */

static enum view_health without_leader(const struct view_partition *p, char why[VIEW_WORDS_BYTES])
{
    if (p->all_answered) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "no leader");
        return VIEW_NO_LEADER;
    }
    (void)snprintf(why, VIEW_WORDS_BYTES, "its leader, if it has one, did not answer");
    return VIEW_UNKNOWN;
}

enum view_health view_health_of(const struct cluster_view *view, const struct view_partition *p,
                                char why[VIEW_WORDS_BYTES])
{
    uint32_t voters = 0;
    why[0] = '\0';
    if (p->leader == NULL) {
        return without_leader(p, why);
    }
    for (uint32_t i = 0; i < p->leader->member_count; i++) {
        const struct ferry_group_member *m = &p->leader->members[i];
        voters += m->kind == FERRY_MEMBER_VOTER;
        if (m->kind == FERRY_MEMBER_VOTER && !view_in_sync(view, p, m, why)) {
            return VIEW_UNDER_REPLICATED;
        }
    }
    if (p->placement != NULL && voters < p->placement->wanted_replicas) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "%u of %u replicas", voters,
                       p->placement->wanted_replicas);
        return VIEW_UNDER_REPLICATED;
    }
    return VIEW_HEALTHY;
}

/* Who would be left of a majority. */
static enum view_safety count_left(const struct cluster_view *view, const struct view_partition *p,
                                   uint32_t node_id, char why[VIEW_WORDS_BYTES])
{
    char words[VIEW_WORDS_BYTES];
    char first[VIEW_WORDS_BYTES] = "";
    uint32_t voters = 0, left = 0;
    for (uint32_t i = 0; i < p->leader->member_count; i++) {
        const struct ferry_group_member *m = &p->leader->members[i];
        if (m->kind != FERRY_MEMBER_VOTER) {
            continue;
        }
        voters++;
        if (m->node_id == node_id) {
            continue;
        }
        /* The leader's word is some seconds old where a node has just gone. */
        if (!view_node_answers(view, m->node_id, NULL)) {
            (void)snprintf(words, sizeof(words), "node %u does not answer", m->node_id);
        } else if (view_in_sync(view, p, m, words)) {
            left++;
            continue;
        }
        if (first[0] == '\0') {
            (void)snprintf(first, sizeof(first), "%s", words);
        }
    }
    uint32_t needed = voters / 2 + 1;
    if (left >= needed) {
        return VIEW_SAFE;
    }
    if (voters == 1) {
        (void)snprintf(why, VIEW_WORDS_BYTES, "node %u has the only replica", node_id);
    } else {
        (void)snprintf(why, VIEW_WORDS_BYTES, "%u of %u would be left, %u are needed%s%.90s", left,
                       voters, needed, first[0] != '\0' ? ": " : "", first);
    }
    return VIEW_NOT_SAFE;
}

enum view_safety view_safety_of(const struct cluster_view *view, const struct view_partition *p,
                                uint32_t node_id, char why[VIEW_WORDS_BYTES])
{
    why[0] = '\0';
    if (p->leader == NULL) {
        if (!is_placed(view, p, node_id)) {
            return VIEW_SAFE; /* Bad enough, but not for this node's sake. */
        }
        return without_leader(p, why) == VIEW_UNKNOWN ? VIEW_SAFETY_UNKNOWN : VIEW_NOT_SAFE;
    }
    const struct ferry_group_member *own = find_member(p->leader, node_id);
    if (own == NULL || own->kind == FERRY_MEMBER_LEARNER) {
        return VIEW_SAFE;
    }
    for (uint32_t i = 0; i < p->leader->member_count; i++) {
        if (p->leader->members[i].kind == FERRY_MEMBER_LEAVING) {
            (void)snprintf(why, VIEW_WORDS_BYTES, "it is changing its members right now");
            return VIEW_NOT_SAFE;
        }
    }
    return count_left(view, p, node_id, why);
}
