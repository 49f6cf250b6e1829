#include "server/options.h"

#include <stddef.h>

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
    {"node.id", OPTION_INT, AT(node_id), 1, 1000000, "1", NULL,
     "This node's number in the cluster. A folder belongs to one number."},
    {"node.shards", OPTION_INT, AT(shards), 1, 64, "1", NULL,
     "Threads that each own a part of the partitions, with a store and a port of their own. One "
     "keeps one disk busy; more help when the processor is the limit. Fixed once the folder is "
     "made."},
    {"node.io_threads", OPTION_INT, AT(io_threads), 1, 16, "1", NULL,
     "Threads that move bytes between sockets and shards. One carries about 1 GB/s."},
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
}

/* A turn ends with the frame that crosses its budget; entries' headers, rows and a flush come on
 * top. */
_Static_assert(8 * MIB + 8 * MIB + 4 * MIB <= STORE_TURN_MAX_BYTES,
               "a turn fits into one transaction");
_Static_assert(BATCH_MAX_BYTES + FRAME_BODY_MAX_BYTES + FRAME_HEADER_BYTES <= FRAME_MAX_BYTES,
               "a frame holds the largest batch");
