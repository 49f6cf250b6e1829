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
    X(QUOTA_LIST, 55)

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

/* ---- RECEIVE and SETTLE: queue and keyed. ---- */

struct receive_item {
    uint64_t group;
};
/* Waits until one of the partitions has something for this member, or max_wait_ms. The answer is of
 * one partition: the first, counted from the first item, that has something. */
struct receive_request {
    struct bytes subscription;
    struct bytes member;   /* Any name; what it holds is counted by it. */
    uint32_t max_messages; /* 1..RECEIVE_MESSAGES_MAX */
    uint32_t max_bytes;    /* One message comes even if it is larger. */
    uint32_t max_wait_ms;
    uint32_t lease_ms; /* 0: the subscription's. */
    uint32_t count;
    struct receive_item items[FETCH_ITEMS_MAX];
};
struct receive_refusal {
    uint64_t group;
    uint16_t status; /* NOT_LEADER, UNKNOWN_SUBSCRIPTION, … */
};
/* The attachment is fetch entries (batch.h) with the records handed out and no others. */
struct receive_reply {
    uint64_t group;        /* 0: nothing within max_wait_ms. */
    uint64_t lease;        /* Number of this hand-out in the subscription. */
    struct ferry_id token; /* Random: whoever has it may settle. */
    uint32_t lease_ms;     /* From when the request was sent, to be safe. */
    uint32_t count;        /* Messages. */
    struct bytes repeats; /* Of those handed out before: DELIVERY_REPEAT_BYTES each: u64 offset, u32
                             times handed out with this one, u32 times failed. */
    uint32_t refused_count;
    struct receive_refusal refused[FETCH_ITEMS_MAX]; /* Those that are not served here. When all are
                                                        refused the answer comes at once. */
};
#define DELIVERY_REPEAT_BYTES 16u

enum settle_kind {
    SETTLE_ACK = 1,
    SETTLE_NACK = 2,    /* It failed: again after delay_ms, or the back-off (-1). */
    SETTLE_RELEASE = 3, /* It was not tried: again at once, does not count. */
    SETTLE_REJECT = 4,  /* Never again: a dead letter at once. */
    SETTLE_EXTEND =
        5, /* The whole hand-out, for delay_ms from now; first and count are not used. */
};
struct settle_item {
    uint64_t lease;
    struct ferry_id token;
    uint32_t kind;
    int64_t first; /* Offsets first .. first + count - 1. */
    uint32_t count;
    int64_t delay_ms;
    struct bytes reason; /* Of nack and reject. */
};
struct settle_request {
    uint64_t group;
    struct bytes subscription;
    struct bytes member;
    uint32_t count;
    struct settle_item items[SETTLE_ITEMS_MAX];
};
/* An item is carried out whole or not at all. LEASE_EXPIRED: some of it is not held under that
 * lease any more. The same item again is answered as the first time, for a while. */
struct settle_result {
    uint16_t status; /* 0, LEASE_EXPIRED, INVALID_ARGUMENT, THROTTLED (again), CORRUPT. */
};
struct settle_reply {
    uint32_t count; /* 0: all was carried out; else one for each item. */
    struct settle_result results[SETTLE_ITEMS_MAX];
};

/* ---- Members: the leader of the topic's partition 0 coordinates. ---- */

struct assigned_partition {
    uint32_t partition;
    uint64_t epoch; /* It was given with. */
};
/* MEMBER_HEARTBEAT, one at a time: an answer that comes after its timeout is not to be looked at.
 * Joins, stays, and reports what is still held: a partition that the last answer
 * did not name is given to another once it is no longer reported. A member not heard of for its
 * session_ms is out. A name that is in use by another instance: the older instance is fenced
 * (MEMBER_FENCED), the newer keeps its partitions (static members). */
struct member_heartbeat_request {
    uint64_t group; /* Of partition 0. */
    struct bytes subscription;
    struct bytes member;      /* A name: given (static) or made up. */
    struct ferry_id instance; /* Of this process: random. */
    struct bytes zone;
    uint32_t session_ms;
    uint32_t partitions; /* Of the topic, as the member knows it. */
    uint32_t held_count;
    struct assigned_partition held[PARTITIONS_MAX];
    /* Zones of the partitions' leaders as the member knows them, joined by ' ', "-" for none;
     * empty: not known. */
    struct bytes zones;
};
struct member_heartbeat_reply {
    uint64_t epoch; /* Of the whole assignment: rises with each change. An answer with a lower one
                       than seen before is of a leader that was deposed: not to be looked at. */
    uint32_t heartbeat_ms;
    uint32_t count;
    struct assigned_partition assigned[PARTITIONS_MAX]; /* To read now; one that comes with a new
                                                           epoch is to be claimed anew. Queue,
                                                           keyed: all, with epoch 0. */
    bool paused;                                        /* Of stream: read nothing for now. */
};
/* MEMBER_LEAVE: the reply is empty. */
struct member_leave_request {
    uint64_t group;
    struct bytes subscription;
    struct bytes member;
    struct ferry_id instance;
    struct bytes reason;
};
struct member_list_request {
    uint64_t group;
    struct bytes subscription;
};
struct member_list_item {
    struct bytes member;
    struct bytes zone;
    struct bytes client; /* Its client.name. */
    int64_t joined_ms;
    uint32_t session_ms;
    int64_t silent_ms;
    uint32_t assigned, held; /* Partitions: shall have, has. */
};
struct member_list_reply {
    uint64_t epoch;
    uint32_t count;
    struct member_list_item items[MEMBERS_MAX];
};
/* EVENT_LIST: what happened to the subscription, from partition 0, oldest first, after `after`. */
struct event_list_request {
    uint64_t group;
    struct bytes subscription;
    uint64_t after; /* Number of an event; 0: from the oldest kept. */
};
struct event_list_item {
    uint64_t number;
    int64_t time_ms;
    struct bytes
        kind; /* "created", "joined", "left", "expired", "fenced", "assigned", "moved", … */
    struct bytes who;
    struct bytes why;
    uint64_t epoch;
};
struct event_list_reply {
    bool more;
    uint32_t count;
    struct event_list_item items[EVENT_LIST_MAX];
};

/* ---- Dead letters. ---- */

struct dead_list_request {
    uint64_t group;
    struct bytes subscription;
    uint64_t from; /* Number of the first one wanted. */
    uint32_t count_max;
    bool with_history;
    struct bytes reason; /* Only those; empty: all. */
};
struct failure {
    int64_t time_ms;
    uint32_t kind; /* enum failure_kind */
    struct bytes member;
    struct bytes reason;
};
enum failure_kind {
    FAILURE_NACK = 1,
    FAILURE_EXPIRED = 2, /* The lease ran out. */
    FAILURE_REJECT = 3,
    FAILURE_PARKED = 4, /* Behind a dead letter of its key. */
};
struct dead_item {
    uint64_t number;
    int64_t offset; /* In the log, where it may be no longer. */
    int64_t append_time_ms;
    int64_t died_ms;
    uint32_t handed_out, failed;
    uint32_t record_bytes;
    struct ferry_id id;
    struct bytes reason; /* The last one's. */
    bool revived;        /* Replayed: on its way again, and kept until that has ended. */
    uint32_t failure_count;
    struct failure failures[HISTORY_MAX]; /* Oldest first. */
};
struct dead_list_reply {
    uint64_t next; /* To go on from; 0: that was all. */
    uint64_t total;
    uint32_t count;
    struct dead_item items[DEAD_LIST_MAX];
};
/* DEAD_CHANGE. Replay: handed out again, to this subscription alone, with counters at 0 and the
 * history kept. The attachment, if there is one, is a batch of one record that takes the place of
 * the only one named. What is not there (any more) is not counted in `done`. */
enum dead_change_kind { DEAD_REPLAY = 1, DEAD_DROP = 2 };
struct dead_change_item {
    uint64_t number;
};
struct dead_change_request {
    uint64_t group;
    struct bytes subscription;
    uint32_t kind;
    uint32_t count;
    struct dead_change_item items[DEAD_CHANGE_MAX];
};
struct dead_change_reply {
    uint32_t done;
};

/* ---- Schedules. ---- */

/* Messages of PRODUCE whose batch has due times, not yet due: by due time, then number. */
struct schedule_list_request {
    uint64_t group;
    int64_t after_due_ms; /* The last of the page before; 0, 0: the first page. */
    uint64_t after_number;
};
struct schedule_item {
    int64_t due_ms;
    uint64_t number;
    int64_t added_ms;
    struct ferry_id id;
    struct bytes key; /* Its first REASON_MAX_BYTES. */
    uint32_t record_bytes;
};
struct schedule_list_reply {
    uint64_t total;
    bool more;
    uint32_t count;
    struct schedule_item items[SCHEDULE_LIST_MAX];
};
struct schedule_cancel_item {
    int64_t due_ms;
    uint64_t number;
};
struct schedule_cancel_request {
    uint64_t group;
    uint32_t count;
    struct schedule_cancel_item items[SCHEDULE_CANCEL_MAX];
};
struct schedule_cancel_reply {
    uint32_t done; /* What was due already is not among them. */
};
/* RECURRING_SET: a name in the partition; the attachment is a batch of one record, which is
 * appended each time with the id derived from the name and the time. Without attachment: removed.
 * The reply is empty. spec: "@every 10s" or a cron line of five fields; zone: a name of the tz
 * database. */
struct recurring_set_request {
    uint64_t group;
    struct bytes name;
    struct bytes spec;
    struct bytes zone;
};
struct recurring_list_request {
    uint64_t group;
};
struct recurring_item {
    struct bytes name, spec, zone;
    int64_t next_ms;
    uint64_t fired;
};
struct recurring_list_reply {
    uint32_t count;
    struct recurring_item items[RECURRING_MAX];
};

/* ---- PUBLISH: one batch, all of it or nothing, on condition. ---- */

/* Record `record`'s key must be at this version (0: none yet), and is at the next one after it. A
 * key's version is raised by PUBLISH with an expectation of that key alone. */
struct publish_expect {
    uint32_t record;
    uint64_t version;
};
/* The attachment is one batch without producer id. Repeated ids are dropped as by PRODUCE; when all
 * are repeats nothing is expected any more and the answer is the first one's. */
struct publish_request {
    uint64_t group;
    uint32_t count;
    struct publish_expect expect[PUBLISH_EXPECT_MAX];
};
struct publish_reply { /* And the duplicates as an attachment, as of PRODUCE. */
    int64_t base_offset;
    uint32_t duplicate_count;
    int64_t append_time_ms;
};
/* Body with status VERSION_CONFLICT: an error_reply with more behind. */
struct publish_refusal {
    struct error_reply error;
    int64_t record;   /* The first whose key is not there; -1: not of one record. */
    uint64_t version; /* Its key's present version. */
};
struct key_version_request {
    uint64_t group;
    struct bytes key; /* At most VERSION_KEY_MAX_BYTES; longer ones by their hash, which is the
                         client's to make: see PROTOCOL.md. */
};
struct key_version_reply {
    uint64_t version;
};

/* ---- Finding and tracing. ---- */

struct message_find_request {
    uint64_t group;
    struct ferry_id id;
};
struct message_find_reply {
    bool found;
    int64_t offset;
};
/* TRACE: what the log still says of one offset, in log order, after entry `after`. */
enum trace_kind {
    TRACE_APPENDED = 1,
    TRACE_HANDED_OUT = 2,
    TRACE_ACKED = 3,
    TRACE_NACKED = 4,
    TRACE_RELEASED = 5,
    TRACE_REJECTED = 6,
    TRACE_LEASE_EXPIRED = 7,
    TRACE_DEAD = 8,
    TRACE_REVIVED = 9,
    TRACE_DROPPED = 10, /* A dead letter was dropped. */
    TRACE_EXTENDED = 11,
    TRACE_TRIMMED = 12,   /* Retention has dropped it. */
    TRACE_SCHEDULED = 13, /* Of scheduled ones: kept until due. */
    TRACE_COMMITTED = 14, /* A stream's position passed it. */
};
struct trace_request {
    uint64_t group;
    int64_t offset;
    uint64_t after; /* 0: from the message's own entry; else `next` of the answer before. */
};
struct trace_event {
    uint64_t index; /* Of the entry. */
    uint32_t kind;
    int64_t time_ms;
    uint32_t node; /* That led; 0: not known. */
    struct bytes subscription;
    struct bytes member;
    struct bytes reason;
    uint64_t lease;
    int64_t due_ms; /* Nacked: handed out again not before. */
};
struct trace_reply {
    uint64_t next; /* To be given back as `after`, as it is; 0: the log's end was reached. A later
                      answer may tell of a commit once more. */
    uint64_t end;  /* The last entry applied. */
    uint32_t count;
    struct trace_event events[TRACE_EVENTS_MAX];
};

/* ---- Quotas: what one client may do to one topic, a second, at each shard. ---- */

/* QUOTA_SET: to the metadata leader; the reply is empty. "" stands for any. The most specific row
 * counts: client and topic, then client, then topic, then neither. All three 0: the row goes. */
struct quota {
    struct bytes client;
    struct bytes topic;
    uint64_t bytes_per_second;    /* Produced and fetched; 0: no limit. */
    uint64_t messages_per_second; /* Produced and handed out. */
    uint64_t requests_per_second;
};
struct quota_set_request {
    struct quota quota;
};
struct quota_list_request {
    struct bytes after_client, after_topic;
};
struct quota_list_reply {
    bool more;
    uint32_t count;
    struct quota items[QUOTA_LIST_MAX]; /* By client, then topic. */
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
