/* options: what a broker can be told, as one table. conf/ferryd.conf shows each with a paragraph.
 */
#ifndef FERRY_SERVER_OPTIONS_H
#define FERRY_SERVER_OPTIONS_H

#include "base/config.h"
#include "base/option.h"
#include "wire/command.h"

#define PATH_MAX_BYTES  1024
#define SEEDS_MAX       16 /* Peer endpoints that a node is told at its start. */
#define SEEDS_MAX_BYTES 4095

struct broker_options {
    char data[PATH_MAX_BYTES + 1];
    int64_t node_id;
    int64_t shards;
    char peer_listen[256];
    char peer_advertise[256];
    char bootstrap[SEEDS_MAX_BYTES + 1];
    char join[SEEDS_MAX_BYTES + 1];
    char zone[ZONE_MAX_BYTES + 1];
    int64_t weight;
    char endpoint[256];
    char advertise[256];
    bool insecure;
    int64_t connections_max;
    int64_t inflight_max;
    int64_t topic_inflight_bytes;
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
    int64_t election_min_ms;
    int64_t election_max_ms;
    int64_t heartbeat_ms;
    int64_t move_bytes_per_second;
    int64_t active_moves;
};

/* A peer endpoint that a node is told at its start. */
struct seed_option {
    uint32_t node_id; /* 0: not known (node.join). */
    char endpoint[256];
};

const struct option_table *broker_option_table(void);
/* What no single row can say: relations between options, and where it may listen. Each problem is
 * added with its remedy. */
void broker_options_check(const struct broker_options *o, struct config_problems *p);
/* True when the node talks to others. */
bool broker_options_clustered(const struct broker_options *o);
/* Reads node.bootstrap and node.join: fills at most SEEDS_MAX, those of node.bootstrap first,
 * sorted by node id. Errors, with a detail: BAD_OPTION_VALUE. */
MUST_CHECK enum ferry_err broker_options_seeds(const struct broker_options *o,
                                               struct seed_option seeds[SEEDS_MAX], size_t *count,
                                               struct err_text *e);

#endif
