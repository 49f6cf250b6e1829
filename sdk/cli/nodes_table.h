/* nodes_table: the nodes of a cluster, for people and as JSON. Prints, asks nobody. */
#ifndef FERRY_CLI_NODES_TABLE_H
#define FERRY_CLI_NODES_TABLE_H

#include "cli/cluster_view.h"
#include "cli/output.h"

/* "up", "silent", "draining", "drained"; "?" for what is newer than this program. */
const char *nodes_state_name(enum ferry_node_state state);
/* `view` may be NULL: then lag is not shown. */
void nodes_print(const struct ferry_nodes *nodes, const struct cluster_view *view);
json_t *nodes_json(const struct ferry_nodes *nodes, const struct cluster_view *view);

#endif
