#include "cli/nodes_table.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/format.h"

const char *nodes_state_name(enum ferry_node_state state)
{
    switch (state) {
    case FERRY_NODE_UP:
        return "up";
    case FERRY_NODE_SILENT:
        return "silent";
    case FERRY_NODE_DRAINING:
        return "draining";
    case FERRY_NODE_DRAINED:
        return "drained";
    }
    return "?";
}

static const char *role_name(enum ferry_metadata_role role)
{
    switch (role) {
    case FERRY_METADATA_NONE:
        return "none";
    case FERRY_METADATA_VOTER:
        return "voter";
    case FERRY_METADATA_LEARNER:
        return "learner";
    case FERRY_METADATA_LEADER:
        return "leader";
    }
    return "?";
}

/* "up", "silent 1 min 13 s", "up, no answer". */
static void state_cell(struct output_table *table, const struct ferry_node *node,
                       const struct cluster_view *view)
{
    char age[FORMAT_TEXT_BYTES] = "";
    bool silent = node->state == FERRY_NODE_SILENT;
    bool mute = !silent && view != NULL && !view_node_answers(view, node->node_id, NULL);
    if (silent) {
        format_duration_us(node->silent_ms * 1000, age);
    }
    output_table_cell(table, "%s%s%s%s%s", nodes_state_name(node->state), silent ? " " : "", age,
                      silent && node->draining ? ", draining" : "",
                      mute ? ", does not answer" : "");
}

static void print_row(struct output_table *table, const struct ferry_node *node,
                      const struct cluster_view *view)
{
    uint64_t lag;
    output_table_cell(table, "%u", node->node_id);
    state_cell(table, node, view);
    output_table_cell(table, "%s", node->zone[0] != '\0' ? node->zone : "-");
    output_table_cell(table, "%u", node->weight);
    output_table_cell(table, "%u.%u %%", node->ring_permille / 10, node->ring_permille % 10);
    output_table_cell(table, "%u", node->leaders);
    output_table_cell(table, "%u", node->replicas);
    if (view != NULL && view_node_lag(view, node->node_id, &lag)) {
        output_table_count(table, (int64_t)lag);
    } else if (view != NULL) {
        output_table_cell(table, "unknown");
    }
    output_table_cell(table, "%s", role_name(node->metadata_role));
    output_table_cell(table, "%.60s", node->endpoint);
}

void nodes_print(const struct ferry_nodes *nodes, const struct cluster_view *view)
{
    struct output_table table;
    output_table_init(&table, view != NULL ? ">NODE|STATE|ZONE|>WEIGHT|>RING|>LEADERS|>REPLICAS|"
                                             ">LAG|METADATA|ENDPOINT"
                                           : ">NODE|STATE|ZONE|>WEIGHT|>RING|>LEADERS|>REPLICAS|"
                                             "METADATA|ENDPOINT");
    for (size_t i = 0; i < nodes->count; i++) {
        print_row(&table, &nodes->nodes[i], view);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static json_t *node_json(const struct ferry_node *node, const struct cluster_view *view)
{
    char member[20];
    uint64_t lag;
    json_t *object = output_object();
    (void)snprintf(member, sizeof(member), "%016" PRIx64, node->member);
    output_set_int(object, "node", node->node_id);
    output_set_text(object, "member", member);
    output_set_text(object, "state", nodes_state_name(node->state));
    output_set_bool(object, "draining", node->draining);
    output_set_int(object, "silent_ms", node->silent_ms);
    output_set_text(object, "zone", node->zone[0] != '\0' ? node->zone : NULL);
    output_set_int(object, "weight", node->weight);
    output_set_int(object, "ring_permille", node->ring_permille);
    output_set_int(object, "leaders", node->leaders);
    output_set_int(object, "replicas", node->replicas);
    output_set_text(object, "metadata", role_name(node->metadata_role));
    output_set_int(object, "shards", node->shards);
    output_set_text(object, "endpoint", node->endpoint);
    if (view != NULL) {
        bool known = view_node_lag(view, node->node_id, &lag);
        output_set_bool(object, "answers", view_node_answers(view, node->node_id, NULL));
        output_set(object, "lag_entries", known ? json_integer((json_int_t)lag) : json_null());
    }
    return object;
}

json_t *nodes_json(const struct ferry_nodes *nodes, const struct cluster_view *view)
{
    json_t *array = json_array();
    for (size_t i = 0; i < nodes->count; i++) {
        json_array_append_new(array, node_json(&nodes->nodes[i], view));
    }
    return array;
}
