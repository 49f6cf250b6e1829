/* command_delivery: the part of command.h that is about handing out: receiving and settling,
 * members, dead letters, schedules, conditions, traces, quotas. Include command.h, whose limits it
 * needs. */
#ifndef FERRY_WIRE_COMMAND_DELIVERY_H
#define FERRY_WIRE_COMMAND_DELIVERY_H

#ifndef FERRY_WIRE_COMMAND_H
#error "include wire/command.h"
#endif

/* ---- RECEIVE and SETTLE: queue and keyed. ---- */

struct receive_item {
    uint64_t group;
};
/* Waits until one of the partitions has something for this member, or max_wait_ms. The answer is of
 * one partition: the first, counted from the first item, that has something. With max_messages and
 * max_bytes 0: takes back those of this connection and member that wait at the partitions. */
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
/* The attachment is one batch without producer id. Repeated ids are dropped as by PRODUCE, with
 * what is expected of them; when all are repeats base_offset is -1 and the duplicates name the
 * first ones. */
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

#endif
