/* conf: the client's options, one table (see conf/client.conf for the same with paragraphs).
 *
 * Does no I/O. A ferry_conf is used by one thread; ferry_open copies it. */
#ifndef FERRY_CLIENT_CONF_H
#define FERRY_CLIENT_CONF_H

#include "base/option.h"

#define CONF_SERVERS_BYTES_MAX 4096
#define CONF_NAME_BYTES_MAX    200
#define CONF_ZONE_BYTES_MAX    31

enum conf_partitioner { CONF_STICKY, CONF_ROUND_ROBIN, CONF_LEAST_LOADED };
enum conf_ids { CONF_IDS_NONE, CONF_IDS_UUID7, CONF_IDS_SNOWFLAKE };

/* The values of the options, as the table fills them. Fixed once the client is open. */
struct client_options {
    char servers[CONF_SERVERS_BYTES_MAX + 1];
    char client_name[CONF_NAME_BYTES_MAX + 1];
    char producer_name[CONF_NAME_BYTES_MAX + 1];
    char zone[CONF_ZONE_BYTES_MAX + 1];
    int64_t partitioner; /* enum conf_partitioner */
    int64_t linger_ms;
    int64_t batch_bytes;
    int64_t producer_inflight;
    int64_t queue_bytes;
    int64_t delivery_timeout_ms;
    int64_t request_timeout_ms;
    int64_t backoff_ms;
    int64_t backoff_max_ms;
    int64_t metadata_max_age_ms;
    int64_t message_max_bytes;
    int64_t message_ids; /* enum conf_ids */
    int64_t snowflake_worker_id;
    int64_t fetch_max_wait_ms;
    int64_t fetch_min_bytes;
    int64_t fetch_max_bytes;
    int64_t fetch_queue_bytes;
};

struct ferry_conf {
    struct client_options options;
    ferry_report_cb *report; /* NULL: outcomes are only counted. */
    void *report_arg;
    struct ferry_context *context; /* NULL: the client makes its own. */
};

extern const struct option_table conf_table;

#endif
