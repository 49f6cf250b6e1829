/* log_walk: the records of a topic's log, from its start to the ends it has at the beginning. */
#ifndef FERRY_CLI_LOG_WALK_H
#define FERRY_CLI_LOG_WALK_H

#include "cli/cli.h"

struct log_walk {
    int64_t from_ms; /* Given: records stored before it are passed over; 0: none are. */
    bool stop;       /* The callback may set it: enough was seen. */
    struct ferry_id topic_id;
    int64_t records; /* Read. */
    int64_t dropped; /* Records that retention had dropped before they could be read. */
    /* What was stored later is all there; 0: nothing was dropped. INT64_MAX: what was dropped may
     * be of any time. */
    int64_t dropped_until_ms;
};

/* An error ends the walk and is its result. */
typedef enum ferry_err log_record_cb(const struct ferry_record *record, void *arg);
/* With a progress bar. Tells the user when it fails. CLI_EXIT_FAILED when interrupted: `undone`
 * says what was not done then. */
MUST_CHECK enum cli_exit log_walk(struct cli *cli, const char *topic, const char *undone,
                                  log_record_cb *take, void *arg, struct log_walk *walk);

#endif
