/* relay_options: what can be set of ferry-outbox, as one table. conf/ferry-outbox.conf shows each.
 */
#ifndef FERRY_OUTBOX_RELAY_OPTIONS_H
#define FERRY_OUTBOX_RELAY_OPTIONS_H

#include "base/option.h"

#define RELAY_SERVERS_MAX       1000
#define RELAY_DB_MAX            8000
#define RELAY_WINDOW_MAX        16
#define RELAY_POISON_TOPICS_MAX 2000
#define RELAY_LANES_TEXT        200
#define RELAY_ADDRESS_MAX       200
#define RELAY_COMMAND_MAX       1000

enum relay_poison {
    RELAY_POISON_DEAD,
    RELAY_POISON_PARK_KEY,
    RELAY_POISON_BLOCK,
    RELAY_POISON_CALLBACK
};
enum relay_unknown_topic { RELAY_UNKNOWN_TOPIC_WAIT, RELAY_UNKNOWN_TOPIC_DEAD };

struct relay_options {
    char servers[RELAY_SERVERS_MAX + 1];
    char db[RELAY_DB_MAX + 1]; /* URLs separated by commas; --db adds to it. */
    char lanes[RELAY_LANES_TEXT + 1];
    int64_t poison;                                  /* enum relay_poison */
    char poison_topics[RELAY_POISON_TOPICS_MAX + 1]; /* "topic=policy,…": instead of `poison`. */
    char poison_command[RELAY_COMMAND_MAX + 1];
    int64_t poison_command_ms;
    int64_t unknown_topic; /* enum relay_unknown_topic */
    int64_t lease_ms;
    int64_t call_timeout_ms;
    int64_t page_rows, page_bytes;
    int64_t batch_rows, batch_bytes;
    int64_t window;
    int64_t poll_min_ms, poll_max_ms;
    int64_t pace_ms;
    int64_t retry_min_ms, retry_max_ms;
    int64_t topic_retry_ms;
    int64_t delete_rows, delete_backlog_rows, delete_idle_ms;
    int64_t report_ms;
    int64_t connect_timeout_ms, statement_timeout_ms;
    int64_t copy_rows;
    bool barrier, strict, notify, tidy;
    char http[RELAY_ADDRESS_MAX + 1]; /* Empty: off. */
    int64_t http_stuck_ms;
    bool figures; /* Of inboxes and sagas. */
    int64_t figures_ms;
};

/* Static. */
const struct option_table *relay_options_table(void);

#endif
