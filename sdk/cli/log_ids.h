/* log_ids: the message ids of a topic's log, from its start to the ends it has at the beginning. */
#ifndef FERRY_CLI_LOG_IDS_H
#define FERRY_CLI_LOG_IDS_H

#include "cli/cli.h"
#include "cli/id_list.h"

struct log_ids {
    struct id_list ids; /* Every id as often as it is there. */
    int64_t records;    /* Read. */
    int64_t without_id; /* Records that carry none. */
    int64_t dropped;    /* Records that retention had dropped before they could be read. */
};

void log_ids_fini(struct log_ids *log);
/* Adds to `log`: several topics may be read, one after the other. Tells the user when it fails.
 * CLI_EXIT_FAILED when interrupted. */
MUST_CHECK enum cli_exit log_ids_read(struct cli *cli, const char *topic, struct log_ids *log);

#endif
