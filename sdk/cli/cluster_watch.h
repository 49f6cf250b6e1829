/* cluster_watch: looks on while the cluster moves partitions, and says how far it is.
 *
 * It only watches: the moves go on when it ends, and it goes on when a node that it asked dies. */
#ifndef FERRY_CLI_CLUSTER_WATCH_H
#define FERRY_CLI_CLUSTER_WATCH_H

#include "cli/cli.h"

/* Watches until no move is left; with a node (not 0), until that one is drained too. Tells the user
 * how it ended. */
enum cli_exit watch_moves(struct cli *cli, uint32_t node_id, uint64_t moves, uint64_t bytes);

#endif
