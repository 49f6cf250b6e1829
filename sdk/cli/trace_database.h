/* trace_database: what databases know of one message: its row in an outbox, and what an inbox has
 * done of it. For `ferry trace --db`. */
#ifndef FERRY_CLI_TRACE_DATABASE_H
#define FERRY_CLI_TRACE_DATABASE_H

#include "cli/cli.h"

/* Where the message is. */
struct traced {
    struct ferry_id id;       /* Zero: it has none, or it is not known. */
    struct ferry_id topic_id; /* Zero: not known. */
    int32_t partition;
    int64_t offset; /* -1: not known. */
};

/* Each goes through all --db, tells what is found and sets *found when something was. Tells the
 * user of the first database that cannot be asked, and returns its exit code when all are done. */
MUST_CHECK enum cli_exit trace_outboxes(const struct cli *cli, const struct traced *traced,
                                        bool *found);
MUST_CHECK enum cli_exit trace_inboxes(const struct cli *cli, const struct traced *traced,
                                       bool *found);

#endif
