/* options: what a broker can be told, as one table. conf/ferryd.conf shows each with a paragraph.
 */
#ifndef FERRY_SERVER_OPTIONS_H
#define FERRY_SERVER_OPTIONS_H

#include "base/config.h"
#include "base/option.h"

#define PATH_MAX_BYTES 1024

struct broker_options {
    char data[PATH_MAX_BYTES + 1];
    int64_t node_id;
    int64_t shards;
    char endpoint[256];
    char advertise[256];
    bool insecure;
    int64_t connections_max;
    int64_t inflight_max;
    int64_t message_max_bytes;
    int64_t fetch_max_bytes;
    int64_t turn_bytes;
    int64_t io_threads;
    int64_t store_max_bytes;
    int64_t store_grow_bytes;
    int64_t store_reserve_bytes;
    bool topic_auto_create;
    int64_t topic_partitions;
    int64_t topic_retention_ms;
    int64_t topic_retention_bytes;
    int64_t topic_dedupe_window_ms;
};

const struct option_table *broker_option_table(void);
/* What no single row can say: relations between options, and where it may listen. Each problem is
 * added with its remedy. */
void broker_options_check(const struct broker_options *o, struct config_problems *p);

#endif
