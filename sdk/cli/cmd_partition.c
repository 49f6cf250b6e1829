/* cmd_partition: partition info and transfer. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/cluster_view.h"
#include "cli/format.h"
#include "cli/output.h"

#define PARTITION_MAX 1023
#define NODE_ID_MAX   65535

static const char *kind_name(enum ferry_member_kind kind)
{
    switch (kind) {
    case FERRY_MEMBER_VOTER:
        return "voter";
    case FERRY_MEMBER_LEARNER:
        return "learner";
    case FERRY_MEMBER_LEAVING:
        return "leaving";
    }
    return "?";
}

static const char *state_name(enum ferry_group_state state)
{
    switch (state) {
    case FERRY_GROUP_FOLLOWER:
        return "follower";
    case FERRY_GROUP_LEADER:
        return "leader";
    case FERRY_GROUP_LEADER_NOT_READY:
        return "leader, not ready";
    case FERRY_GROUP_INSTALLING:
        return "takes a snapshot";
    case FERRY_GROUP_DAMAGED:
        return "repairs itself";
    case FERRY_GROUP_FAILED:
        return "failed";
    }
    return "?";
}

/* ---- Info --------------------------------------------------------------------------------------
 */

static void print_facts(const struct view_partition *p)
{
    char size[FORMAT_TEXT_BYTES];
    const struct ferry_group *g = p->leader;
    printf("%-10s %s/%d\n%-10s %" PRIu64 "\n", "partition", p->topic, p->partition, "group",
           p->group);
    if (g == NULL) {
        printf("%-10s unknown: %s\n", "leader",
               p->all_answered ? "nobody says it leads" : "a node does not answer");
        return;
    }
    format_size(g->size_bytes, size);
    printf("%-10s node %u%s\n", "leader", p->leader_node,
           g->state == FERRY_GROUP_LEADER_NOT_READY ? ", not ready yet" : "");
    printf("%-10s %" PRIu64 "\n%-10s %" PRIu64 " committed, %" PRIu64 " last\n", "term", g->term,
           "log", g->commit, g->last);
    printf("%-10s %" PRId64 " to %" PRId64 "\n%-10s %s\n", "offsets", g->start_offset,
           g->end_offset, "size", size);
}

static void silence_cell(struct output_table *table, const struct view_partition *p,
                         const struct ferry_group_member *m)
{
    char age[FORMAT_TEXT_BYTES];
    if (p->leader->quiet || m->node_id == p->leader_node) {
        output_table_cell(table, "-");
    } else if (m->silent_ms < 0) {
        output_table_cell(table, "not yet");
    } else {
        format_duration_us(m->silent_ms * 1000, age);
        output_table_cell(table, "%s ago", age);
    }
}

static void print_member(struct output_table *table, const struct cluster_view *view,
                         const struct view_partition *p, const struct ferry_group_member *m)
{
    char why[VIEW_WORDS_BYTES];
    const struct ferry_group *own = view_replica(view, m->node_id, p->group);
    bool in_sync = view_in_sync(view, p, m, why);
    output_table_cell(table, "%u", m->node_id);
    output_table_cell(table, "%s", kind_name(m->kind));
    output_table_cell(table, "%s", own != NULL ? state_name(own->state) : "unknown");
    output_table_cell(table, "%" PRIu64, m->node_id == p->leader_node ? p->leader->last : m->match);
    output_table_count(table, m->node_id == p->leader_node ? 0 : (int64_t)view_lag(p->leader, m));
    silence_cell(table, p, m);
    output_table_cell(table, "%.60s", in_sync ? "yes" : why);
}

/* Without a leader's word: what each node says of itself. */
static void print_placed(struct output_table *table, const struct cluster_view *view,
                         const struct view_partition *p)
{
    for (uint32_t i = 0; i < p->placement->replica_count; i++) {
        uint32_t node_id = p->placement->replicas[i];
        const struct ferry_group *own = view_replica(view, node_id, p->group);
        output_table_cell(table, "%u", node_id);
        output_table_cell(table, "unknown");
        output_table_cell(table, "%s", own != NULL ? state_name(own->state) : "unknown");
        if (own != NULL) {
            output_table_cell(table, "%" PRIu64, own->last);
        } else {
            output_table_cell(table, "unknown");
        }
        for (int k = 0; k < 3; k++) {
            output_table_cell(table, "unknown");
        }
    }
}

static void print_info(const struct cluster_view *view, const struct view_partition *p)
{
    struct output_table table;
    print_facts(p);
    putchar('\n');
    output_table_init(&table, ">NODE|ROLE|STATE|>HAS|>LAG|HEARD|IN SYNC");
    for (uint32_t i = 0; p->leader != NULL && i < p->leader->member_count; i++) {
        print_member(&table, view, p, &p->leader->members[i]);
    }
    if (p->leader == NULL) {
        print_placed(&table, view, p);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static json_t *member_json(const struct cluster_view *view, const struct view_partition *p,
                           const struct ferry_group_member *m)
{
    char why[VIEW_WORDS_BYTES];
    const struct ferry_group *own = view_replica(view, m->node_id, p->group);
    bool leads = m->node_id == p->leader_node;
    json_t *object = output_object();
    output_set_int(object, "node", m->node_id);
    output_set_text(object, "role", kind_name(m->kind));
    output_set_text(object, "state", own != NULL ? state_name(own->state) : NULL);
    output_set_int(object, "match", (int64_t)(leads ? p->leader->last : m->match));
    output_set_int(object, "lag_entries", leads ? 0 : (int64_t)view_lag(p->leader, m));
    output_set(object, "silent_ms", m->silent_ms < 0 ? json_null() : json_integer(m->silent_ms));
    output_set_bool(object, "in_sync", view_in_sync(view, p, m, why));
    output_set_text(object, "reason", why[0] != '\0' ? why : NULL);
    return object;
}

static json_t *number_or_null(const struct ferry_group *g, uint64_t n)
{
    return g != NULL ? json_integer((json_int_t)n) : json_null();
}

static void print_info_json(const struct cluster_view *view, const struct view_partition *p)
{
    const struct ferry_group *g = p->leader;
    json_t *object = output_object();
    json_t *members = json_array();
    json_t *placed = json_array();
    for (uint32_t i = 0; g != NULL && i < g->member_count; i++) {
        json_array_append_new(members, member_json(view, p, &g->members[i]));
    }
    for (uint32_t i = 0; i < p->placement->replica_count; i++) {
        json_array_append_new(placed, json_integer(p->placement->replicas[i]));
    }
    output_set_text(object, "topic", p->topic);
    output_set_int(object, "partition", p->partition);
    output_set_int(object, "group", (int64_t)p->group);
    output_set(object, "leader_node", number_or_null(g, p->leader_node));
    output_set(object, "term", number_or_null(g, g != NULL ? g->term : 0));
    output_set(object, "commit", number_or_null(g, g != NULL ? g->commit : 0));
    output_set(object, "last", number_or_null(g, g != NULL ? g->last : 0));
    output_set(object, "start_offset", g != NULL ? json_integer(g->start_offset) : json_null());
    output_set(object, "end_offset", g != NULL ? json_integer(g->end_offset) : json_null());
    output_set(object, "size_bytes", g != NULL ? json_integer(g->size_bytes) : json_null());
    output_set(object, "placed", placed);
    output_set(object, "members", g != NULL ? members : json_null());
    if (g == NULL) {
        json_decref(members);
    }
    output_json(object);
}

enum cli_exit cmd_partition_info(struct cli *cli)
{
    struct cluster_view view;
    int64_t partition;
    if (!cli_number(cli, 1, "P", 0, PARTITION_MAX, &partition)) {
        return CLI_EXIT_USAGE;
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    const char *topic = cli->args->positionals[0];
    enum ferry_err err = view_collect(cli->client, topic, cli->timeout_ms, &view);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, topic, NULL);
    }
    /* Place 0 is the metadata group. */
    if ((size_t)partition + 1 >= view.count) {
        code = cli_fail(cli, FERRY_ERR_UNKNOWN_PARTITION, topic, NULL);
    } else if (cli->json) {
        print_info_json(&view, &view.partitions[partition + 1]);
    } else {
        print_info(&view, &view.partitions[partition + 1]);
    }
    view_fini(&view);
    return code;
}

/* ---- Transfer ----------------------------------------------------------------------------------
 */

enum cli_exit cmd_partition_transfer(struct cli *cli)
{
    int64_t partition, node_id;
    if (!cli_number(cli, 1, "P", 0, PARTITION_MAX, &partition) ||
        !cli_number(cli, 2, "NODE", 1, NODE_ID_MAX, &node_id)) {
        return CLI_EXIT_USAGE;
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    const char *topic = cli->args->positionals[0];
    enum ferry_err err = ferry_partition_transfer(cli->client, topic, (int32_t)partition,
                                                  (uint32_t)node_id, cli->timeout_ms);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, topic, NULL);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "topic", topic);
        output_set_int(object, "partition", partition);
        output_set_int(object, "leader_node", node_id);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "%s/%d is led by node %d\n", topic, (int)partition, (int)node_id);
    }
    return CLI_EXIT_OK;
}
