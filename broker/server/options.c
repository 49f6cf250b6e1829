#include "server/options.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "raft/raft.h"
#include "ring/ring.h"
#include "store/store.h"
#include "wire/batch.h"
#include "wire/frame.h"

#define AT(field) offsetof(struct broker_options, field)
#define KIB       1024LL
#define MIB       (1024 * KIB)
#define GIB       (1024 * MIB)
#define DAY_MS    (24LL * 60 * 60 * 1000)

static const struct option_row rows[] = {
    {"node.data", OPTION_TEXT, AT(data), 0, PATH_MAX_BYTES, "", NULL,
     "The folder with everything this node keeps. Made when missing; one ferryd at a time."},
    {"node.id", OPTION_INT, AT(node_id), 1, NODE_ID_MAX, "1", NULL,
     "This node's number in the cluster. A folder belongs to one number."},
    {"node.shards", OPTION_INT, AT(shards), 1, 64, "1", NULL,
     "Threads that each own a part of the partitions, with a store and a port of their own. One "
     "keeps one disk busy; more help when the processor is the limit. Fixed once the folder is "
     "made."},
    {"node.io_threads", OPTION_INT, AT(io_threads), 1, 16, "1", NULL,
     "Threads that move bytes between sockets and shards. One carries about 1 GB/s."},
    {"node.peer_listen", OPTION_TEXT, AT(peer_listen), 0, 255, "", NULL,
     "Where the cluster's other nodes connect: tcp://HOST:PORT. Shard n listens on the port n "
     "higher. Empty: a node of its own, which no other can join."},
    {"node.peer_advertise", OPTION_TEXT, AT(peer_advertise), 0, 255, "", NULL,
     "What other nodes are told to connect to, when that differs from node.peer_listen."},
    {"node.bootstrap", OPTION_TEXT, AT(bootstrap), 0, SEEDS_MAX_BYTES, "", NULL,
     "The nodes that found a cluster, ID=ENDPOINT with commas between, the same on each of them. "
     "With a cluster that lives already, a node with an empty folder joins that."},
    {"node.join", OPTION_TEXT, AT(join), 0, SEEDS_MAX_BYTES, "", NULL,
     "Peer endpoints of nodes of a living cluster, with commas between: this node joins it."},
    {"node.zone", OPTION_TEXT, AT(zone), 0, ZONE_MAX_BYTES, "", NULL,
     "What fails together: a rack, a room, a data centre. The replicas of a partition go to "
     "different zones where there are any."},
    {"node.weight", OPTION_INT, AT(weight), 1, RING_WEIGHT_MAX, "1", NULL,
     "This node's share of the partitions, against the weights of the others."},
    {"listen.endpoint", OPTION_TEXT, AT(endpoint), 1, 255, "tcp://127.0.0.1:7400", NULL,
     "Where clients connect: tcp://HOST:PORT, ipc://PATH or inproc://NAME. Shard n listens on the "
     "port n higher."},
    {"listen.advertise", OPTION_TEXT, AT(advertise), 0, 255, "", NULL,
     "What clients are told to connect to, when that differs from listen.endpoint (behind "
     "address translation, or when listening on all addresses)."},
    {"listen.insecure", OPTION_BOOL, AT(insecure), 0, 0, "false", NULL,
     "Allows listening beyond this machine. Whoever reaches the port may then read and write "
     "everything: set it only inside a network that you trust."},
    {"listen.connections_max", OPTION_INT, AT(connections_max), 1, 100000, "4096", NULL,
     "Connections of a shard. More are closed at once. Needs as many file descriptors."},
    {"limit.inflight_max", OPTION_INT, AT(inflight_max), 1, 65536, "256", NULL,
     "Requests of one connection that have no answer yet. More are refused with THROTTLED."},
    {"limit.topic_inflight_bytes", OPTION_BYTES, AT(topic_inflight_bytes), MIB, 64 * GIB, "256M",
     NULL,
     "Bytes of messages sent to one topic that a shard has not answered yet. More are refused with "
     "THROTTLED, so that one topic cannot take the memory of all."},
    {"limit.message_max_bytes", OPTION_BYTES, AT(message_max_bytes), KIB, 8 * MIB, "1M", NULL,
     "Key, headers and payload of one message together. Larger ones are refused with TOO_LARGE."},
    {"limit.fetch_max_bytes", OPTION_BYTES, AT(fetch_max_bytes), 64 * KIB, 16 * MIB, "8M", NULL,
     "The most that one fetch answers with, whatever the client asks for."},
    {"limit.turn_bytes", OPTION_BYTES, AT(turn_bytes), 256 * KIB, 8 * MIB, "4M", NULL,
     "What a shard takes in before it writes and answers. More a turn is more a fsync and more "
     "memory."},
    {"store.max_bytes", OPTION_BYTES, AT(store_max_bytes), 64 * MIB, 64 * 1024 * GIB, "1024G", NULL,
     "A shard's file never grows past this; full means that produce is refused, and reads, commits "
     "and retention go on."},
    {"store.grow_bytes", OPTION_BYTES, AT(store_grow_bytes), MIB, 4 * GIB, "64M", NULL,
     "The file is extended ahead of use in such steps: appending to an extended file is faster, "
     "and a full disk is met before a write, not in one."},
    {"store.reserve_bytes", OPTION_BYTES, AT(store_reserve_bytes), MIB, GIB, "16M", NULL,
     "Kept back for commits and retention when messages are refused because the disk is full."},
    {"topic.auto_create", OPTION_BOOL, AT(topic_auto_create), 0, 0, "false", NULL,
     "Makes a topic when it is first asked for. Off, so that a misspelt name is an error."},
    {"topic.partitions", OPTION_INT, AT(topic_partitions), 1, 1024, "1", NULL,
     "Partitions of a topic when `topic create` does not say. Order holds within one."},
    {"topic.retention_ms", OPTION_MS, AT(topic_retention_ms), 0, 36500 * DAY_MS, "7d", NULL,
     "How long messages are kept when the topic does not say. 0: for ever."},
    {"topic.retention_bytes", OPTION_BYTES, AT(topic_retention_bytes), 0, 1024 * 1024 * GIB, "0",
     NULL, "How much a partition keeps when the topic does not say. 0: no limit."},
    {"topic.dedupe_window_ms", OPTION_MS, AT(topic_dedupe_window_ms), 0, 366 * DAY_MS, "24h", NULL,
     "How long a message id is remembered and its repeats are dropped, when the topic does not "
     "say. 0: not at all."},
    {"raft.heartbeat_ms", OPTION_MS, AT(heartbeat_ms), 10, 10000, "100", NULL,
     "How often a leader tells the others that it is there. The same on all nodes."},
    {"raft.election_min_ms", OPTION_MS, AT(election_min_ms), 50, 60000, "500", NULL,
     "The shortest silence after which a leader counts as gone. At least three heartbeats."},
    {"raft.election_max_ms", OPTION_MS, AT(election_max_ms), 50, 120000, "1000", NULL,
     "The longest such silence: each node draws its own between the two, so that not all campaign "
     "at once."},
    {"cluster.move_bytes_per_second", OPTION_BYTES, AT(move_bytes_per_second), 64 * KIB, 64 * GIB,
     "64M", NULL,
     "What a shard gives at most to replicas that are being made, so that moving partitions leaves "
     "the disk and the network to those who work."},
    {"cluster.active_moves", OPTION_INT, AT(active_moves), 1, 256, "8", NULL,
     "Partitions that a shard as leader brings to new replicas at a time."},
};

static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

const struct option_table *broker_option_table(void)
{
    return &table;
}

/* Loopback by the words of the endpoint; a name other than localhost may resolve to anything. */
static bool stays_on_this_machine(const char *endpoint)
{
    static const char *const ours[] = {"ipc://", "inproc://", "tcp://127.",
                                       "tcp://localhost:", "tcp://[::1]:"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (strncmp(endpoint, ours[i], strlen(ours[i])) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_known_scheme(const char *endpoint)
{
    return strncmp(endpoint, "tcp://", 6) == 0 || strncmp(endpoint, "ipc://", 6) == 0 ||
           strncmp(endpoint, "inproc://", 9) == 0;
}

bool broker_options_clustered(const struct broker_options *o)
{
    return o->peer_listen[0] != '\0';
}

/* ---- Seeds ---- */

static enum ferry_err read_seed(const char *name, bool with_id, const char *word, size_t length,
                                struct seed_option *seed, struct err_text *e)
{
    *seed = (struct seed_option){0};
    const char *endpoint = word;
    if (with_id) {
        char *end = NULL;
        long id = strtol(word, &end, 10);
        if (end == word || *end != '=' || id < 1 || id > (long)NODE_ID_MAX) {
            return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                           "%s: %.*s: write ID=ENDPOINT, as 1=tcp://10.0.0.1:7500", name,
                           (int)length, word);
        }
        seed->node_id = (uint32_t)id;
        endpoint = end + 1;
    }
    size_t bytes = length - (size_t)(endpoint - word);
    if (bytes >= sizeof(seed->endpoint) || strncmp(endpoint, "tcp://", 6) != 0) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "%s: %.*s: write tcp://HOST:PORT", name,
                       (int)bytes, endpoint);
    }
    memcpy(seed->endpoint, endpoint, bytes);
    return FERRY_OK;
}

static enum ferry_err read_seeds(const char *name, bool with_id, const char *text,
                                 struct seed_option *seeds, size_t *count, struct err_text *e)
{
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        if (*count == SEEDS_MAX) {
            return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "%s: at most %d endpoints", name,
                           SEEDS_MAX);
        }
        enum ferry_err err = read_seed(name, with_id, text, length, &seeds[*count], e);
        if (err != FERRY_OK) {
            return err;
        }
        (*count)++;
        text += length + (text[length] == ',' ? 1 : 0);
    }
    return FERRY_OK;
}

static int compare_seeds(const void *a, const void *b)
{
    const struct seed_option *x = a, *y = b;
    return (x->node_id > y->node_id) - (x->node_id < y->node_id);
}

enum ferry_err broker_options_seeds(const struct broker_options *o,
                                    struct seed_option seeds[SEEDS_MAX], size_t *count,
                                    struct err_text *e)
{
    *count = 0;
    enum ferry_err err = read_seeds("node.bootstrap", true, o->bootstrap, seeds, count, e);
    if (err != FERRY_OK) {
        return err;
    }
    qsort(seeds, *count, sizeof(*seeds), compare_seeds);
    bool listed = *count == 0;
    for (size_t i = 0; i < *count; i++) {
        listed = listed || seeds[i].node_id == (uint32_t)o->node_id;
        if (i > 0 && seeds[i].node_id == seeds[i - 1].node_id) {
            return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "node.bootstrap: node %u is named twice",
                           seeds[i].node_id);
        }
    }
    if (!listed) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "node.bootstrap: it does not name this node, %lld: add it, or use node.join",
                       (long long)o->node_id);
    }
    if (*count > RAFT_VOTERS_MAX) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "node.bootstrap: at most %d nodes found a cluster: let the others join",
                       RAFT_VOTERS_MAX);
    }
    return read_seeds("node.join", false, o->join, seeds, count, e);
}

static void check_peers(const struct broker_options *o, struct config_problems *p)
{
    struct seed_option seeds[SEEDS_MAX];
    size_t count = 0;
    struct err_text e;
    if (!broker_options_clustered(o)) {
        if (o->bootstrap[0] != '\0' || o->join[0] != '\0') {
            config_problem(p, "node.peer_listen: without it the node meets no other: give "
                              "--peer-listen tcp://HOST:PORT");
        }
        return;
    }
    if (strncmp(o->peer_listen, "tcp://", 6) != 0) {
        config_problem(p, "node.peer_listen: %s: begin with tcp://", o->peer_listen);
    } else if (!stays_on_this_machine(o->peer_listen) && !o->insecure) {
        config_problem(p,
                       "node.peer_listen: %s is reachable from other machines, and nothing checks "
                       "who connects: listen on 127.0.0.1, or set listen.insecure=true in a "
                       "network that you trust",
                       o->peer_listen);
    }
    if (o->bootstrap[0] != '\0' && o->join[0] != '\0') {
        config_problem(p, "node.join: a node founds a cluster or joins one: leave out "
                          "node.bootstrap or node.join");
    }
    if (broker_options_seeds(o, seeds, &count, &e) != FERRY_OK) {
        config_problem(p, "%s", e.text);
    }
}

static void check_raft(const struct broker_options *o, struct config_problems *p)
{
    if (o->election_max_ms <= o->election_min_ms) {
        config_problem(p, "raft.election_max_ms: not above raft.election_min_ms: raise it");
    }
    if (o->election_min_ms < 3 * o->heartbeat_ms) {
        config_problem(p, "raft.election_min_ms: less than three heartbeats: raise it, or lower "
                          "raft.heartbeat_ms");
    }
}

void broker_options_check(const struct broker_options *o, struct config_problems *p)
{
    if (o->data[0] == '\0') {
        config_problem(p, "node.data: no data folder: give --data DIR, or node.data in the file");
    }
    if (!has_known_scheme(o->endpoint)) {
        config_problem(p, "listen.endpoint: %s: begin with tcp://, ipc:// or inproc://",
                       o->endpoint);
    } else if (!stays_on_this_machine(o->endpoint) && !o->insecure) {
        config_problem(p,
                       "listen.endpoint: %s is reachable from other machines, and nothing checks "
                       "who connects: listen on 127.0.0.1, or set listen.insecure=true in a "
                       "network that you trust",
                       o->endpoint);
    }
    if (o->store_reserve_bytes * 2 > o->store_max_bytes) {
        config_problem(p, "store.reserve_bytes: more than half of store.max_bytes: lower it");
    }
    if (o->fetch_max_bytes < o->message_max_bytes) {
        config_problem(p, "limit.fetch_max_bytes: less than limit.message_max_bytes: raise it");
    }
    check_peers(o, p);
    check_raft(o, p);
}

/* A turn ends with the frame that crosses its budget; entries' headers, rows and a flush come on
 * top. */
_Static_assert(8 * MIB + 8 * MIB + 4 * MIB <= STORE_TURN_MAX_BYTES,
               "a turn fits into one transaction");
_Static_assert(BATCH_MAX_BYTES + FRAME_BODY_MAX_BYTES + FRAME_HEADER_BYTES <= FRAME_MAX_BYTES,
               "a frame holds the largest batch");
