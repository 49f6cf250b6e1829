/* zones: where the leaders of a topic's partitions are, for a member that says where it is itself.
 *
 * The io thread's alone. Asks a broker for the nodes and their zones (NODE_LIST) before the first
 * heartbeat, then every ZONES_AGE_MS, and sooner when a leader is on a node that was not there.
 * What it does not know yet it leaves out: zones are a preference, nothing waits for them but the
 * first heartbeat, and that not long.
 *
 * States: new → asking → known, and asking again now and then; a failure counts as an answer. */
#ifndef FERRY_CLIENT_ZONES_H
#define FERRY_CLIENT_ZONES_H

#include "client/call.h"

#define ZONES_AGE_MS   300000
#define ZONES_PAUSE_MS 5000 /* Between two questions, at least. */

struct zones;
typedef void zones_told(struct zones *z);

struct zone_of_node {
    uint32_t node_id;
    uint32_t zone_bytes;
    char zone[ZONE_MAX_BYTES];
};

struct zones {
    struct ferry_client *client;
    struct topic *topic;
    zones_told *told; /* An answer has come, or will not; but not when the client is closed. */
    struct call call;
    bool out;         /* The call is on its way. */
    bool heard;       /* Of an answer, or that there is none. */
    int64_t asked_us; /* When it was asked last. */
    uint32_t count;
    struct zone_of_node nodes[NODES_MAX];
    struct buf text; /* As heartbeats carry it. */
};

void zones_init(struct zones *z, struct ferry_client *c, struct topic *t, zones_told *told);
void zones_stop(struct zones *z); /* Asks no more; frees what it has. */
/* Asks if it is time. False: the first answer is out, and `told` will come. */
bool zones_are_known(struct zones *z);
/* "a b - c": the zone of each partition's leader, "-" where it is not known; empty when no zone is,
 * or they are too long for a heartbeat. The bytes are valid until the next call. */
struct bytes zones_text(struct zones *z);

#endif
