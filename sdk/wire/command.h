/* command: the requests and replies that travel in frames, each one msgpack array.
 *
 * Encoding is positional; a decoder takes the elements it knows, in this order, and ignores further
 * ones, so fields are only ever added at the end. Text is msgpack str, ids and blobs are bin.
 * Decoders allocate nothing that outlives the call: `struct bytes` fields point into the frame.
 * Every count from the wire is checked against its named maximum and against the bytes there are,
 * before anything is done with it. All decoders: errors BAD_FRAME. Encoders cannot fail but by the
 * buffer (buf_ok). */
#ifndef FERRY_WIRE_COMMAND_H
#define FERRY_WIRE_COMMAND_H

#include "base/buf.h"
#include "base/err.h"

/* X(NAME, number). Numbers are never reused. */
#define COMMAND_MAP(X)                                                                             \
    X(HELLO, 1)                                                                                    \
    X(METADATA, 2)                                                                                 \
    X(TOPIC_CREATE, 3)                                                                             \
    X(TOPIC_DELETE, 4)                                                                             \
    X(TOPIC_LIST, 5)                                                                               \
    X(PRODUCER_INIT, 6)                                                                            \
    X(PRODUCE, 7)                                                                                  \
    X(APPEND_CAS, 8)                                                                               \
    X(CURSOR_GET, 9)                                                                               \
    X(FETCH, 10)                                                                                   \
    X(OFFSET_FIND, 11)                                                                             \
    X(SUBSCRIPTION_CREATE, 12)                                                                     \
    X(SUBSCRIPTION_DELETE, 13)                                                                     \
    X(SUBSCRIPTION_COMMIT, 14)                                                                     \
    X(SUBSCRIPTION_GET, 15)                                                                        \
    X(SUBSCRIPTION_LIST, 16)                                                                       \
    X(PARTITION_INFO, 17)                                                                          \
    X(SOURCE_ELECT, 18)                                                                            \
    X(SOURCE_RESIGN, 19)                                                                           \
    X(SOURCE_CHECKPOINT, 20)                                                                       \
    X(BROKER_STATUS, 21)

enum command {
#define COMMAND_ENUM(name, number) COMMAND_##name = number,
    COMMAND_MAP(COMMAND_ENUM)
#undef COMMAND_ENUM
};

const char *command_name(uint16_t command); /* "PRODUCE"; "?" when unknown. */

#define NAME_MAX_BYTES        200u /* Topics, subscriptions, producers, holders. */
#define ENDPOINT_MAX_BYTES    255u
#define PARTITIONS_MAX        1024u /* Of a topic. */
#define ENDPOINTS_MAX         256u  /* In a metadata reply: shards of all nodes. */
#define FETCH_ITEMS_MAX       256u
#define LIST_NAMES_MAX        1000u /* A page of names. */
#define CURSOR_MAX_BYTES      4096u
#define CHECKPOINT_MAX_BYTES  4096u
#define DETAIL_MAX_BYTES      512u
#define STATUS_JSON_MAX_BYTES (64u << 10)

/* A valid topic, subscription or producer name: 1 to 200 of [A-Za-z0-9._-], first a letter or a
 * digit. */
bool name_is_valid(struct bytes name);

/* Body of a reply whose status is not 0. */
struct error_reply {
    struct bytes detail;     /* For a person; may be empty. */
    uint32_t retry_after_ms; /* With THROTTLED; else 0. */
};

/* HELLO: the first request on a connection, and after a long silence. */
struct hello_request {
    struct bytes client_name;
    struct bytes client_version;
};
struct hello_reply {
    struct bytes broker_version;
    uint32_t node_id;
    struct ferry_id cluster_id;
    uint64_t message_max_bytes; /* Key, headers and payload together. */
    uint64_t batch_max_bytes;
    uint64_t fetch_max_bytes;
    uint32_t inflight_max; /* Requests without a reply, of one connection. */
};

/* METADATA: where things are. An empty topic name asks for the endpoints alone. The decoder of the
 * reply refuses a partition whose endpoint is not one of endpoints[]. */
struct metadata_request {
    struct bytes topic;
};
struct metadata_endpoint {
    uint32_t node_id;
    uint32_t shard;
    struct bytes endpoint;
};
struct metadata_partition {
    uint64_t group;    /* The Raft group; never used again for another partition. */
    uint32_t endpoint; /* Place in endpoints[]: where the leader is. */
};
struct metadata_reply {
    struct ferry_id cluster_id;
    uint32_t endpoint_count;
    struct metadata_endpoint endpoints[ENDPOINTS_MAX]; /* [0] takes the commands on topics,
                                                          producers and sources. */
    struct ferry_id topic_id;                          /* Zero when no topic was asked for. */
    uint32_t replicas;
    int64_t retention_ms, retention_bytes, dedupe_window_ms;
    uint32_t partition_count;
    struct metadata_partition partitions[PARTITIONS_MAX];
};

struct topic_create_request {
    struct bytes name;
    uint32_t partitions, replicas;
    int64_t retention_ms, retention_bytes, dedupe_window_ms;
};
struct topic_create_reply {
    struct ferry_id topic_id;
};
struct topic_delete_request {
    struct bytes name;
};
struct topic_list_request {
    struct bytes after; /* The last name of the page before; empty for the first page. */
};
/* Replies with names (TOPIC_LIST, SUBSCRIPTION_LIST): sorted; `more` when another page follows. */
struct names_reply {
    bool more;
    uint32_t count;
    struct bytes names[LIST_NAMES_MAX];
};

/* PRODUCER_INIT: a named producer gets its old id and a new epoch, which fences the one before; an
 * empty name gets a new id. */
struct producer_init_request {
    struct bytes name;
};
struct producer_init_reply {
    uint64_t producer_id;
    uint32_t epoch;
};

/* PRODUCE: the attachment is one batch. Reply attachment: duplicate_count × {u32 record index, u64
 * offset of the first one}, for records dropped by their id. */
struct produce_request {
    uint64_t group;
};
struct produce_reply {
    int64_t base_offset;      /* Of the first record kept; -1 when all were dropped by id. */
    bool duplicate;           /* The whole batch was stored before, by sequence. */
    uint32_t duplicate_count; /* Records dropped by id. */
};
#define PRODUCE_DUPLICATE_BYTES 12u

/* APPEND_CAS: the attachment is one batch. */
struct append_cas_request {
    uint64_t group;
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch;
    uint64_t expect_version;
    struct bytes cursor; /* At most CURSOR_MAX_BYTES. */
};
struct append_cas_reply {
    uint64_t version;
    int64_t base_offset;
};
/* Body with status CURSOR_CONFLICT, SOURCE_FENCED or a refusal: an error_reply with more behind. */
struct append_cas_refusal {
    struct error_reply error;
    uint64_t version; /* The present cursor. */
    uint64_t epoch;
    struct bytes cursor;
    int64_t refused_index; /* -1: the refusal is not of one record. */
};
struct cursor_get_request {
    uint64_t group;
    struct ferry_id source;
    uint32_t lane;
};
struct cursor_get_reply {
    uint64_t version; /* 0: none. */
    uint64_t epoch;
    struct bytes cursor;
};

/* FETCH: waits until min_bytes are there, or max_wait_ms. The reply has one item for each asked, in
 * the same order; the attachment is the items' fetch entries (batch.h) one after another. An item
 * gives whole batches; the first may begin before the offset asked for. At least one batch comes
 * even if it is larger than max_bytes. */
struct fetch_item {
    uint64_t group;
    int64_t offset;
};
struct fetch_request {
    uint32_t max_wait_ms;
    uint32_t min_bytes;
    uint32_t max_bytes;
    uint32_t count;
    struct fetch_item items[FETCH_ITEMS_MAX];
};
struct fetch_reply_item {
    uint64_t group;
    uint16_t status; /* FERRY_ERR number: OFFSET_OUT_OF_RANGE, UNKNOWN_PARTITION, CORRUPT, … */
    int64_t start_offset;
    int64_t end_offset;
    uint32_t data_bytes; /* Of the attachment. */
};
struct fetch_reply {
    uint32_t count;
    struct fetch_reply_item items[FETCH_ITEMS_MAX];
};

enum offset_kind { OFFSET_START = 0, OFFSET_END = 1, OFFSET_TIME = 2 };
struct offset_find_request {
    uint64_t group;
    uint32_t kind;
    int64_t time_ms;
};
struct offset_find_reply {
    int64_t offset;
    int64_t start_offset;
    int64_t end_offset;
};

enum subscription_mode { SUBSCRIPTION_STREAM = 1 };
struct subscription_create_request {
    uint64_t group;
    struct bytes name;
    uint32_t mode;
    int64_t from; /* FERRY_FROM_START, FERRY_FROM_END or an offset. */
};
struct subscription_create_reply {
    int64_t position;
};
struct subscription_delete_request {
    uint64_t group;
    struct bytes name;
};
struct subscription_commit_request {
    uint64_t group;
    struct bytes name;
    int64_t position;
    uint64_t epoch; /* Of the assignment; 0 outside a group of members. */
};
struct subscription_commit_reply {
    int64_t position; /* The greatest committed. */
};
struct subscription_get_request {
    uint64_t group;
    struct bytes name;
};
struct subscription_get_reply {
    uint32_t mode;
    int64_t position;
    int64_t start_offset;
    int64_t end_offset;
    int64_t lag_ms;
};
struct subscription_list_request {
    uint64_t group;
    struct bytes after;
};
struct partition_info_request {
    uint64_t group;
};
struct partition_info_reply {
    uint32_t leader_node;
    uint64_t term;
    uint64_t commit_index;
    int64_t start_offset;
    int64_t end_offset;
    int64_t size_bytes;
};

struct source_elect_request {
    struct ferry_id source;
    uint32_t lane;
    struct bytes holder;
    uint32_t ttl_ms;
    uint64_t epoch; /* The epoch held, to renew; 0 to ask anew. */
};
struct source_elect_reply {
    bool granted;
    uint64_t epoch;    /* Granted: the holder's. Otherwise the present holder's. */
    uint32_t retry_ms; /* Not granted: when the present lease ends. */
    struct bytes checkpoint;
    struct bytes holder; /* The present holder's name. */
};
struct source_resign_request {
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch;
};
struct source_checkpoint_request {
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch;
    struct bytes checkpoint; /* At most CHECKPOINT_MAX_BYTES. */
};
struct broker_status_reply {
    struct bytes json;
};

/* For each struct above: void NAME_encode(struct buf *, const struct NAME *) and
 * enum ferry_err NAME_decode(struct bytes body, struct NAME *). Requests and replies without fields
 * are an empty array: empty_encode, empty_decode. */
#define COMMAND_STRUCT_MAP(X)                                                                      \
    X(error_reply)                                                                                 \
    X(hello_request)                                                                               \
    X(hello_reply)                                                                                 \
    X(metadata_request)                                                                            \
    X(metadata_reply)                                                                              \
    X(topic_create_request)                                                                        \
    X(topic_create_reply)                                                                          \
    X(topic_delete_request)                                                                        \
    X(topic_list_request)                                                                          \
    X(names_reply)                                                                                 \
    X(producer_init_request)                                                                       \
    X(producer_init_reply)                                                                         \
    X(produce_request)                                                                             \
    X(produce_reply)                                                                               \
    X(append_cas_request)                                                                          \
    X(append_cas_reply)                                                                            \
    X(append_cas_refusal)                                                                          \
    X(cursor_get_request)                                                                          \
    X(cursor_get_reply)                                                                            \
    X(fetch_request)                                                                               \
    X(fetch_reply)                                                                                 \
    X(offset_find_request)                                                                         \
    X(offset_find_reply)                                                                           \
    X(subscription_create_request)                                                                 \
    X(subscription_create_reply)                                                                   \
    X(subscription_delete_request)                                                                 \
    X(subscription_commit_request)                                                                 \
    X(subscription_commit_reply)                                                                   \
    X(subscription_get_request)                                                                    \
    X(subscription_get_reply)                                                                      \
    X(subscription_list_request)                                                                   \
    X(partition_info_request)                                                                      \
    X(partition_info_reply)                                                                        \
    X(source_elect_request)                                                                        \
    X(source_elect_reply)                                                                          \
    X(source_resign_request)                                                                       \
    X(source_checkpoint_request)                                                                   \
    X(broker_status_reply)

#define COMMAND_DECLARE(name)                                                                      \
    void name##_encode(struct buf *b, const struct name *v);                                       \
    MUST_CHECK enum ferry_err name##_decode(struct bytes body, struct name *v);
COMMAND_STRUCT_MAP(COMMAND_DECLARE)
#undef COMMAND_DECLARE

void empty_encode(struct buf *b);
MUST_CHECK enum ferry_err empty_decode(struct bytes body);

#endif
