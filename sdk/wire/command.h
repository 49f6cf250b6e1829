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
    X(BROKER_STATUS, 21)                                                                           \
    X(NODE_LIST, 22)                                                                               \
    X(NODE_CHANGE, 23)                                                                             \
    X(CLUSTER_PLAN, 24)                                                                            \
    X(CLUSTER_APPLY, 25)                                                                           \
    X(CLUSTER_ABORT, 26)                                                                           \
    X(MOVE_LIST, 27)                                                                               \
    X(GROUP_LIST, 28)                                                                              \
    X(PARTITION_TRANSFER, 29)                                                                      \
    X(LEASE_ACQUIRE, 30)                                                                           \
    X(LEASE_RENEW, 31)                                                                             \
    X(LEASE_RELEASE, 32)                                                                           \
    X(LEASE_LIST, 33)                                                                              \
    X(WORKER_ID, 34)                                                                               \
    X(RECEIVE, 35)                                                                                 \
    X(SETTLE, 36)                                                                                  \
    X(SUBSCRIPTION_ALTER, 37)                                                                      \
    X(SUBSCRIPTION_RESET, 38)                                                                      \
    X(SUBSCRIPTION_CLAIM, 39)                                                                      \
    X(MEMBER_HEARTBEAT, 40)                                                                        \
    X(MEMBER_LEAVE, 41)                                                                            \
    X(MEMBER_LIST, 42)                                                                             \
    X(EVENT_LIST, 43)                                                                              \
    X(DEAD_LIST, 44)                                                                               \
    X(DEAD_CHANGE, 45)                                                                             \
    X(SCHEDULE_LIST, 46)                                                                           \
    X(SCHEDULE_CANCEL, 47)                                                                         \
    X(RECURRING_SET, 48)                                                                           \
    X(RECURRING_LIST, 49)                                                                          \
    X(PUBLISH, 50)                                                                                 \
    X(KEY_VERSION, 51)                                                                             \
    X(MESSAGE_FIND, 52)                                                                            \
    X(TRACE, 53)                                                                                   \
    X(QUOTA_SET, 54)                                                                               \
    X(QUOTA_LIST, 55)                                                                              \
    X(SOURCE_SHOW, 56)                                                                             \
    X(SOURCE_FENCE, 57)

enum command {
#define COMMAND_ENUM(name, number) COMMAND_##name = number,
    COMMAND_MAP(COMMAND_ENUM)
#undef COMMAND_ENUM
};

const char *command_name(uint16_t command); /* "PRODUCE"; "?" when unknown. */

#define NAME_MAX_BYTES           200u /* Topics, subscriptions, producers, holders. */
#define ENDPOINT_MAX_BYTES       255u
#define PARTITIONS_MAX           1024u /* Of a topic. */
#define ENDPOINTS_MAX            256u  /* In a metadata reply: shards of all nodes. */
#define FETCH_ITEMS_MAX          256u
#define LIST_NAMES_MAX           1000u /* A page of names. */
#define CURSOR_MAX_BYTES         4096u
#define CHECKPOINT_MAX_BYTES     4096u
#define DETAIL_MAX_BYTES         512u
#define STATUS_JSON_MAX_BYTES    (64u << 10)
#define NODES_MAX                256u
#define NODE_ID_MAX              65535u /* From 1 on. */
#define NODE_SHARDS_MAX          64u
#define ZONE_MAX_BYTES           31u
#define REPLICAS_MAX             7u
#define GROUP_MEMBERS_MAX        (2u * REPLICAS_MAX) /* Both sets of a joint configuration. */
#define GROUP_LIST_MAX           256u                /* A page. */
#define MOVE_LIST_MAX            256u                /* A page. */
#define LEASE_LIST_MAX           256u                /* A page. */
#define WORKER_IDS_MAX           1024u               /* Ten bits of a snowflake id. */
#define RECEIVE_MESSAGES_MAX     1000u               /* Of one hand-out. */
#define SETTLE_ITEMS_MAX         1000u
#define REASON_MAX_BYTES         200u  /* Why a message was refused; of events: why. */
#define MEMBERS_MAX              1024u /* Of one subscription. */
#define EVENT_LIST_MAX           200u  /* A page. */
#define DEAD_LIST_MAX            100u  /* A page. */
#define DEAD_CHANGE_MAX          100u
#define HISTORY_MAX              8u /* Failures of one message that are remembered: the latest. */
#define SCHEDULE_LIST_MAX        200u
#define SCHEDULE_CANCEL_MAX      200u
#define RECURRING_MAX            100u /* Of one partition. */
#define RECURRING_SPEC_MAX_BYTES 200u
#define PUBLISH_EXPECT_MAX       1000u
#define TRACE_EVENTS_MAX         200u /* A page. */
#define QUOTAS_MAX               1000u
#define QUOTA_LIST_MAX           200u
#define ZONES_MAX_BYTES          4096u /* Of a heartbeat. */
#define VERSION_KEY_MAX_BYTES    800u  /* Longer keys have versions by their hash. */
#define LEASE_MIN_MS             100u  /* Of hand-outs. */
#define LEASE_MAX_MS             (12u * 60u * 60u * 1000u)
#define DELAY_MAX_MS             (365LL * 24 * 60 * 60 * 1000) /* Of schedules and back-offs. */

/* A valid topic, subscription or producer name: 1 to 200 of [A-Za-z0-9._-], first a letter or a
 * digit. */
bool name_is_valid(struct bytes name);

/* TOPIC.dlq.SUBSCRIPTION reads like a topic and is none: no topic's name has the mark in it. */
#define DEAD_NAME_MARK      ".dlq."
#define DEAD_NAME_MAX_BYTES (2 * NAME_MAX_BYTES + sizeof(DEAD_NAME_MARK) - 1)
/* Splits at the first mark at or behind place `from` of the name; *next is where the one after it
 * may be. False: there is none (any more). */
bool dead_name_split(struct bytes name, size_t from, struct bytes *topic,
                     struct bytes *subscription, size_t *next);
bool name_is_of_dead(struct bytes name);

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
    struct bytes topic; /* Or TOPIC.dlq.SUBSCRIPTION. */
};
struct metadata_endpoint {
    uint32_t node_id;
    uint32_t shard;
    struct bytes endpoint;
};
struct metadata_partition {
    uint64_t group;    /* The Raft group; never used again for another partition. */
    uint32_t endpoint; /* Place in endpoints[]: where the leader is. */
    uint32_t replica_count;
    uint32_t replicas[REPLICAS_MAX]; /* Node ids as placed, the preferred leader first. */
};
struct metadata_reply {
    struct ferry_id cluster_id;
    uint32_t endpoint_count;
    struct metadata_endpoint endpoints[ENDPOINTS_MAX]; /* [0] is shard 0 of the metadata group's
                                                          leader, or of the node asked while none is
                                                          known. A node's stand together, in order
                                                          of its shards. */
    struct ferry_id topic_id;                          /* Zero when no topic was asked for. */
    uint32_t replicas;
    int64_t retention_ms, retention_bytes, dedupe_window_ms;
    uint32_t partition_count;
    struct metadata_partition partitions[PARTITIONS_MAX];
    bool retention_acked;
    struct bytes dead_of; /* The name asked for is TOPIC.dlq.THIS, and this answer is TOPIC's. */
};

struct topic_create_request {
    struct bytes name; /* Without ".dlq.". */
    uint32_t partitions, replicas;
    int64_t retention_ms, retention_bytes, dedupe_window_ms;
    bool retention_acked; /* Also dropped: what every subscription is done with, if there is one. */
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
    /* Added. The batch has due times and its records wait: base_offset is the first one's number,
     * record i kept has base_offset + i - (dropped ones below i), as with offsets. Behind the
     * duplicates the attachment has a due time (i64, ms) for each record of the batch: 0 for those
     * dropped, and for all of a repeat whose first answer is known no more. */
    bool scheduled;
};
#define PRODUCE_DUPLICATE_BYTES 12u
#define PRODUCE_DUE_BYTES       8u

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
/* SOURCE_FENCE: the reply is empty. */
struct source_fence_request {
    uint64_t group;
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch;
    uint64_t version; /* The cursor's is at least this from there on. */
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
    struct bytes dead_of; /* A subscription: its dead letters are read instead of the log; offsets
                             are then their numbers, and some may be missing. */
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

enum subscription_mode { SUBSCRIPTION_STREAM = 1, SUBSCRIPTION_QUEUE = 2, SUBSCRIPTION_KEYED = 3 };
enum key_policy {
    KEY_POLICY_WAIT = 0, /* A key's messages wait until the one before is acked or dead. */
    KEY_POLICY_PARK = 1, /* Once one of a key is dead, those after it become dead letters too, until
                            the key has none left (replayed, dropped). */
};
/* In requests 0 (of priority_age_ms: -1) means: the default, or as it is. */
struct subscription_create_request {
    uint64_t group;
    struct bytes name;
    uint32_t mode;
    int64_t from;             /* FERRY_FROM_START, FERRY_FROM_END or an offset. */
    uint32_t lease_ms;        /* 30,000. */
    uint32_t max_deliveries;  /* 10: failures after which a message is dead. */
    uint32_t backoff_min_ms;  /* 1,000: after the first failure; doubles with each, */
    uint32_t backoff_max_ms;  /* 600,000: up to this; with jitter of up to a half less. */
    uint32_t key_policy;      /* enum key_policy; of keyed. */
    uint32_t inflight_max;    /* 1,000: messages that one member may hold of one partition. */
    uint32_t priority_age_ms; /* 10,000: of queue: waiting so long raises a message by one level. */
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
    uint64_t epoch; /* Of the assignment; 0 outside a group of members: MEMBER_FENCED while a member
                       has claimed the partition and it was not reset since. */
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
    int64_t position; /* Of queue and keyed: the first offset that is not done. */
    int64_t start_offset;
    int64_t end_offset;
    int64_t lag_ms;
    /* Added. Of stream the settings and counts are 0. */
    bool paused;
    uint32_t lease_ms, max_deliveries, backoff_min_ms, backoff_max_ms, key_policy, inflight_max,
        priority_age_ms;
    uint64_t ready;   /* Messages that may be handed out now (paused or not). */
    uint64_t leased;  /* Handed out, not settled. */
    uint64_t waiting; /* Failed, until their back-off is over. */
    uint64_t dead;    /* Dead letters kept. */
    /* Since it was made or reset: enqueued = acked + died + expired + remaining, where remaining is
     * ready, leased and waiting, and died counts each message once per death, less revived. */
    uint64_t acked, died, expired, revived;
    uint64_t handed_out, failed, released; /* Hand-outs of messages; ends of them. */
    uint64_t number; /* Of this subscription in its partition; made anew it has another. */
    uint64_t epoch;  /* Of stream: the greatest that claimed the partition. */
};

/* SUBSCRIPTION_ALTER: the reply is empty. */
struct subscription_alter_request {
    uint64_t group;
    struct bytes name;
    uint32_t pause; /* 0 as it is, 1 pause: nothing is handed out or fetched for it, 2 resume. */
    uint32_t lease_ms, max_deliveries, backoff_min_ms, backoff_max_ms, inflight_max,
        priority_age_ms;
    uint32_t key_policy; /* 0 as it is, 1 wait, 2 park. */
};
/* SUBSCRIPTION_RESET: everything before `to` is done, everything from it on is not; leases end.
 * Dead letters stay. Of stream: what a member commits without a new claim is MEMBER_FENCED.
 * Partition 0 last: its reset makes members claim all partitions anew, and so learn where to go on.
 */
struct subscription_reset_request {
    uint64_t group;
    struct bytes name;
    int64_t to; /* As `from` of SUBSCRIPTION_CREATE. */
    bool dry_run;
};
struct subscription_reset_reply {
    int64_t from, to; /* The position before and after. */
};
/* SUBSCRIPTION_CLAIM, of stream: the member that was assigned the partition with this epoch takes
 * it. Commits with an older epoch are refused from now on (MEMBER_FENCED), also this. */
struct subscription_claim_request {
    uint64_t group;
    struct bytes name;
    struct bytes member;
    uint64_t epoch;
};
struct subscription_claim_reply {
    int64_t position;
};

#include "wire/command_delivery.h"

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
/* SOURCE_SHOW: the reply is a source_elect_reply that grants nothing; epoch 0: no such source. */
struct source_show_request {
    struct ferry_id source;
    uint32_t lane;
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

/* ---- Nodes of the cluster. Answered by shard 0 of any node, from its copy of the metadata. ----
 */

enum node_state {
    NODE_UP = 1,
    NODE_SILENT = 2,
    NODE_DRAINING = 3, /* And up. */
    NODE_DRAINED = 4,  /* Draining, up, and placement names it no more. */
};
enum metadata_role {
    METADATA_NONE = 0,
    METADATA_VOTER = 1,
    METADATA_LEARNER = 2,
    METADATA_LEADER = 3
};
/* NODE_LIST: the request is empty. */
struct node_list_item {
    uint32_t node_id;
    uint64_t member; /* This life of its data folder. */
    struct bytes zone;
    uint32_t weight;
    uint32_t state; /* enum node_state, as the answering node sees it. */
    bool draining;
    uint32_t metadata_role; /* enum metadata_role. */
    uint32_t shards;
    struct bytes endpoint;  /* Of its shard 0, for clients; METADATA has all. */
    uint32_t replicas;      /* Of partitions, placed on it. */
    uint32_t leaders;       /* Of partitions, led by it as far as is known. */
    uint32_t ring_permille; /* Its share of the ring. */
    int64_t silent_ms;      /* Since the answering node heard of it; 0: itself. */
};
struct node_list_reply {
    struct ferry_id cluster_id;
    uint32_t leader_node; /* Of the metadata group; 0 unknown. */
    uint32_t count;
    struct node_list_item items[NODES_MAX]; /* By node id. */
};

/* NODE_CHANGE, CLUSTER_*, LEASE_* and WORKER_ID: shard 0 of the metadata group's leader; another
 * answers NOT_LEADER with its endpoint in the detail. The reply to NODE_CHANGE is empty. */
enum node_change_kind {
    NODE_CHANGE_DRAIN = 1, /* Marks it, and plans and starts the moves that empty it. */
    NODE_CHANGE_UNDRAIN = 2,
    NODE_CHANGE_REMOVE = 3, /* NODE_NOT_EMPTY while placement names it. */
    NODE_CHANGE_WEIGHT = 4,
};
struct node_change_request {
    uint32_t node_id;
    uint32_t kind;
    uint32_t weight; /* With WEIGHT; else 0. */
};

/* CLUSTER_PLAN: what an apply would do now; nothing is changed. A page of the moves from place
 * `after` on (0 first). */
struct cluster_plan_request {
    uint32_t after;
};
struct plan_move {
    uint64_t group;
    struct bytes topic;
    uint32_t partition;
    uint32_t from_count, to_count;
    uint32_t from[REPLICAS_MAX]; /* Node ids, the preferred leader first. */
    uint32_t to[REPLICAS_MAX];
    uint64_t bytes; /* To be copied, as far as is known. */
};
struct cluster_plan_reply {
    uint64_t plan_id; /* A hash of the whole plan: what was shown is what CLUSTER_APPLY does. */
    uint32_t total;   /* Moves in all. */
    uint64_t total_bytes;
    uint32_t count;
    struct plan_move moves[MOVE_LIST_MAX];
};
/* CLUSTER_APPLY: logs the moves as planned. Errors: PLAN_CHANGED, MOVES_RUNNING. */
struct cluster_apply_request {
    uint64_t plan_id;
};
struct cluster_apply_reply {
    uint32_t moves;
};
/* CLUSTER_ABORT: the request is empty. */
struct cluster_abort_reply {
    uint32_t dropped;   /* Planned moves that will not begin. */
    uint32_t reverting; /* Active ones on their way back. */
};

/* MOVE_LIST: moves that are not done, of groups above after_group. Any node's shard 0. */
enum move_state { MOVE_PLANNED = 1, MOVE_ACTIVE = 2, MOVE_REVERTING = 3 };
struct move_list_request {
    uint64_t after_group;
};
struct move_list_item {
    struct plan_move move;
    uint32_t state; /* enum move_state. */
};
struct move_list_reply {
    uint32_t total; /* Moves not done, on all pages. */
    uint64_t done_since_apply;
    bool more;
    uint32_t count;
    struct move_list_item items[MOVE_LIST_MAX]; /* By group. */
};

/* GROUP_LIST: the groups on the shard asked, with numbers above `after`, and before them the
 * metadata group when asked for and there. */
enum group_state {
    GROUP_FOLLOWER = 1,
    GROUP_LEADER = 2,
    GROUP_LEADER_NOT_READY = 3, /* Elected, has not committed an entry of its term. */
    GROUP_INSTALLING = 4,       /* Takes a snapshot: has no vote. */
    GROUP_DAMAGED = 5,          /* Repairs an entry: has no vote. */
    GROUP_FAILED = 6,           /* Stopped by an error; the node's log says which. */
};
struct group_list_request {
    uint64_t after;
    bool include_metadata;
};
enum group_member_kind {
    GROUP_VOTER = 1,
    GROUP_LEARNER = 2,
    GROUP_LEAVING = 3 /* Old voter, joint. */
};
struct group_member {
    uint32_t node_id;
    uint64_t member;
    uint32_t kind;     /* enum group_member_kind. */
    uint64_t match;    /* In the leader's answer; else 0. */
    int64_t silent_ms; /* In the leader's answer; -1: not heard in this term. Else 0. */
    bool snapshotting; /* In the leader's answer: it is being sent a snapshot. */
};
struct group_list_item {
    uint64_t group;
    struct bytes topic; /* Empty: the metadata group. */
    uint32_t partition;
    uint32_t state; /* enum group_state. */
    uint64_t term, commit, applied, last;
    uint32_t leader_node; /* 0 unknown. */
    int64_t start_offset, end_offset, size_bytes;
    bool quiet;
    uint64_t copied_bytes, copy_total_bytes; /* Of a snapshot being installed or sent. */
    uint32_t member_count;
    struct group_member members[GROUP_MEMBERS_MAX];
};
struct group_list_reply {
    uint32_t node_id;
    uint32_t shard;
    bool more;
    uint32_t count;
    struct group_list_item items[GROUP_LIST_MAX];
};

/* PARTITION_TRANSFER: to the leader of the group. The reply is empty, once the other leads; TIMEOUT
 * when it did not come to that. */
struct partition_transfer_request {
    uint64_t group;
    uint32_t to_node;
};

/* ---- Leases: a name, one holder at a time, a fencing token that rises with each holder. ---- */

/* LEASE_ACQUIRE: free: granted. Held: waits in line, first come first served, for at most wait_ms;
 * then the reply is not granted and tells of the present holder. The same holder asking again keeps
 * its place, or renews what it has. */
struct lease_acquire_request {
    struct bytes name, holder;
    uint32_t ttl_ms, wait_ms;
};
/* Of ACQUIRE and RENEW. */
struct lease_reply {
    bool granted;
    uint64_t token;
    uint32_t ttl_ms;
    struct bytes holder; /* The present one. */
    uint32_t left_ms;    /* Until its lease ends. */
    uint32_t waiting;    /* Holders in line behind it. */
};
struct lease_renew_request { /* LEASE_LOST when another has it. */
    struct bytes name, holder;
    uint64_t token;
    uint32_t ttl_ms;
};
struct lease_release_request { /* The reply is empty. LEASE_LOST when another has it. */
    struct bytes name, holder;
    uint64_t token;
};
struct lease_list_request {
    struct bytes after; /* The last name of the page before; empty for the first page. */
};
struct lease_list_item {
    struct bytes name, holder;
    uint64_t token;
    uint32_t ttl_ms, left_ms, waiting;
};
struct lease_list_reply {
    bool more;
    uint32_t count;
    struct lease_list_item items[LEASE_LIST_MAX]; /* By name. */
};

/* WORKER_ID: a number below WORKER_IDS_MAX that nobody else has, kept by asking again (same holder)
 * within ttl_ms. LIMIT_REACHED when all are taken. */
struct worker_id_request {
    struct bytes holder;
    uint32_t ttl_ms;
};
struct worker_id_reply {
    uint32_t worker_id;
    uint32_t ttl_ms;
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
    X(source_fence_request)                                                                        \
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
    X(source_show_request)                                                                         \
    X(source_resign_request)                                                                       \
    X(source_checkpoint_request)                                                                   \
    X(broker_status_reply)                                                                         \
    X(node_list_reply)                                                                             \
    X(node_change_request)                                                                         \
    X(cluster_plan_request)                                                                        \
    X(cluster_plan_reply)                                                                          \
    X(cluster_apply_request)                                                                       \
    X(cluster_apply_reply)                                                                         \
    X(cluster_abort_reply)                                                                         \
    X(move_list_request)                                                                           \
    X(move_list_reply)                                                                             \
    X(group_list_request)                                                                          \
    X(group_list_reply)                                                                            \
    X(partition_transfer_request)                                                                  \
    X(lease_acquire_request)                                                                       \
    X(lease_reply)                                                                                 \
    X(lease_renew_request)                                                                         \
    X(lease_release_request)                                                                       \
    X(lease_list_request)                                                                          \
    X(lease_list_reply)                                                                            \
    X(worker_id_request)                                                                           \
    X(worker_id_reply)                                                                             \
    X(subscription_alter_request)                                                                  \
    X(subscription_reset_request)                                                                  \
    X(subscription_reset_reply)                                                                    \
    X(subscription_claim_request)                                                                  \
    X(subscription_claim_reply)                                                                    \
    X(receive_request)                                                                             \
    X(receive_reply)                                                                               \
    X(settle_request)                                                                              \
    X(settle_reply)                                                                                \
    X(member_heartbeat_request)                                                                    \
    X(member_heartbeat_reply)                                                                      \
    X(member_leave_request)                                                                        \
    X(member_list_request)                                                                         \
    X(member_list_reply)                                                                           \
    X(event_list_request)                                                                          \
    X(event_list_reply)                                                                            \
    X(dead_list_request)                                                                           \
    X(dead_list_reply)                                                                             \
    X(dead_change_request)                                                                         \
    X(dead_change_reply)                                                                           \
    X(schedule_list_request)                                                                       \
    X(schedule_list_reply)                                                                         \
    X(schedule_cancel_request)                                                                     \
    X(schedule_cancel_reply)                                                                       \
    X(recurring_set_request)                                                                       \
    X(recurring_list_request)                                                                      \
    X(recurring_list_reply)                                                                        \
    X(publish_request)                                                                             \
    X(publish_reply)                                                                               \
    X(publish_refusal)                                                                             \
    X(key_version_request)                                                                         \
    X(key_version_reply)                                                                           \
    X(message_find_request)                                                                        \
    X(message_find_reply)                                                                          \
    X(trace_request)                                                                               \
    X(trace_reply)                                                                                 \
    X(quota_set_request)                                                                           \
    X(quota_list_request)                                                                          \
    X(quota_list_reply)

#define COMMAND_DECLARE(name)                                                                      \
    void name##_encode(struct buf *b, const struct name *v);                                       \
    MUST_CHECK enum ferry_err name##_decode(struct bytes body, struct name *v);
COMMAND_STRUCT_MAP(COMMAND_DECLARE)
#undef COMMAND_DECLARE

void empty_encode(struct buf *b);
MUST_CHECK enum ferry_err empty_decode(struct bytes body);

#endif
