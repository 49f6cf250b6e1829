/* ferry.h: the one public header of the Ferry SDK (libferry).
 *
 * Ferry is a message queue whose acknowledgement means: on disk, fsynced, on a quorum. This header
 * is what a program needs to produce, to consume and to administer. For the outbox and the inbox
 * inside a database transaction see ferry_outbox.h.
 *
 * Conventions, for every function here:
 *
 * - A function that can fail returns `enum ferry_err`, 0 for success; results leave through
 *   pointers and are written only on success. ferry_err_text() says what to do about an error,
 *   ferry_err_class() whether trying again can help.
 * - Text and bytes passed in are borrowed for the call and copied where they must live longer.
 * - `_ms` is milliseconds, `_bytes` bytes. Times of day are Unix milliseconds, UTC.
 * - `*_free` and `*_close` take a pointer to the handle, set it to NULL and accept NULL.
 * - A client may be used from any number of threads. A consumer, a receiver, a source and a batch
 *   are used by one thread at a time. Callbacks run only inside ferry_poll(), ferry_flush(),
 *   ferry_send_sync() and ferry_close(), those of a receiver also in its flush and close, those of
 *   a consumer in its fetch and close; on the calling thread, and may call ferry_send().
 * - After fork() only the parent may use a handle. */
#ifndef FERRY_H
#define FERRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FERRY_VERSION "0.1.0"

/* ---------------------------------------------------------------------------------------------
 * Errors. One table: X(NAME, number on the wire, class, what happened and what to do).
 * Numbers are part of the protocol and never reused. */
#define FERRY_ERR_MAP(X)                                                                           \
    X(INVALID_ARGUMENT, 1, USAGE, "an argument is not valid: the detail names it")                 \
    X(UNKNOWN_OPTION, 2, USAGE, "no option has that name: see conf/ for all of them")              \
    X(BAD_OPTION_VALUE, 3, USAGE, "the option does not take that value: the detail says which")    \
    X(NO_TRANSACTION, 4, USAGE,                                                                    \
      "no transaction is open on this connection: BEGIN one, so that the message commits with "    \
      "your change")                                                                               \
    X(CLOSED, 5, USAGE, "the handle is closing or closed: open a new one")                         \
    X(BAD_NAME, 6, USAGE,                                                                          \
      "the name is not valid: use 1 to 200 of a-z A-Z 0-9 . _ - and start with a letter or digit") \
    X(TOO_LARGE, 7, USAGE, "the message is larger than message.max_bytes: send less or raise it")  \
    X(NO_MEMORY, 10, RETRIABLE, "out of memory: try again later or lower the limits")              \
    X(IO, 11, FATAL, "reading or writing failed: the detail names the file")                       \
    X(STORE_FAILED, 12, RETRIABLE,                                                                 \
      "the broker's store failed a write or an fsync and answers nothing until it is restarted: "  \
      "check the disk, then restart ferryd")                                                       \
    X(STORAGE_FULL, 13, THROTTLED,                                                                 \
      "the broker's disk is full: free space or lower retention; reads and commits go on")         \
    X(CORRUPT, 14, FATAL, "stored bytes do not match their checksum: the detail names the place")  \
    X(LOCKED, 15, FATAL, "another process uses this folder: stop it first")                        \
    X(WRONG_NODE, 16, FATAL, "the data folder belongs to another node or another layout")          \
    X(NEWER_FORMAT, 17, FATAL, "the data was written by a newer Ferry: start that version")        \
    X(TIMEOUT, 20, RETRIABLE, "no answer in time: it may or may not have happened")                \
    X(UNREACHABLE, 21, RETRIABLE, "no broker answers: is ferryd running at that endpoint?")        \
    X(NOT_LEADER, 22, RETRIABLE,                                                                   \
      "that broker does not lead the partition: ask again for metadata")                           \
    X(THROTTLED, 23, THROTTLED, "the broker asks for patience: try again after the given time")    \
    X(QUEUE_FULL, 24, THROTTLED, "the local send queue is full: call ferry_poll and try again")    \
    X(SHUTTING_DOWN, 25, RETRIABLE, "the broker is shutting down: try again")                      \
    X(NOT_READY, 26, RETRIABLE, "the broker is not ready yet: try again")                          \
    X(BAD_FRAME, 30, FATAL, "the frame is malformed: client and broker do not speak alike")        \
    X(BAD_VERSION, 31, FATAL, "the protocol version is not supported: upgrade the older side")     \
    X(BAD_CHECKSUM, 32, RETRIABLE, "the bytes were changed on the way: they are sent again")       \
    X(BAD_BATCH, 33, FATAL, "the record batch is malformed: the producer is at fault")             \
    X(UNKNOWN_COMMAND, 34, FATAL, "the broker does not know the command: upgrade it")              \
    X(UNKNOWN_TOPIC, 40, NOT_FOUND, "no such topic: create it with `ferry topic create`")          \
    X(TOPIC_EXISTS, 41, USAGE, "a topic of that name exists with other settings")                  \
    X(UNKNOWN_PARTITION, 42, NOT_FOUND, "the topic has no such partition")                         \
    X(OFFSET_OUT_OF_RANGE, 43, NOT_FOUND,                                                          \
      "the offset is not in the log: before its start (dropped by retention) or past its end")     \
    X(UNKNOWN_SUBSCRIPTION, 44, NOT_FOUND, "no such subscription on this topic")                   \
    X(SUBSCRIPTION_EXISTS, 45, USAGE, "the subscription exists with another mode")                 \
    X(LIMIT_REACHED, 46, USAGE, "a limit is reached: the detail names it")                         \
    X(UNKNOWN_NODE, 47, NOT_FOUND, "no such node in the cluster: see `ferry node list`")           \
    X(NODE_REPLACED, 48, FATAL,                                                                    \
      "this data folder is no longer a member of the cluster: its node was removed, or lives on "  \
      "in another folder; to join anew, move it away and start with an empty one")                 \
    X(OLD_FOLDER, 49, FATAL,                                                                       \
      "the data folder is older than what this node has acknowledged (a restored copy?): move it " \
      "away and start with an empty one, the node is filled again by its peers")                   \
    X(PRODUCER_FENCED, 50, FATAL, "a newer producer of the same name took over: stop this one")    \
    X(SEQUENCE_GAP, 51, RETRIABLE, "an earlier batch of this producer is missing")                 \
    X(SEQUENCE_STALE, 52, FATAL, "the batch was stored long ago; its offset is no longer known")   \
    X(CURSOR_CONFLICT, 53, RETRIABLE, "the source's cursor has moved: continue from the new one")  \
    X(SOURCE_FENCED, 54, FATAL, "another relay took over this source: stop this one")              \
    X(LEASE_HELD, 55, THROTTLED,                                                                   \
      "somebody else holds the lease: wait, or ask with a longer --wait")                          \
    X(LEASE_LOST, 56, FATAL,                                                                       \
      "the lease is no longer yours: stop what it protected, then acquire it anew")                \
    X(PLAN_CHANGED, 57, RETRIABLE,                                                                 \
      "the cluster has changed since the plan was shown: look at the new plan")                    \
    X(MOVES_RUNNING, 58, USAGE, "moves are under way: wait, or `ferry cluster abort`")             \
    X(NODE_NOT_EMPTY, 59, USAGE, "the node still holds partitions: `ferry node drain` it first")   \
    X(DENIED, 60, DENIED, "not allowed: ask for the permission")                                   \
    X(LEASE_EXPIRED, 61, NOT_FOUND,                                                                \
      "the message's lease has ended: another member has it or will get it, so what you did with " \
      "it may be done again")                                                                      \
    X(MEMBER_FENCED, 62, FATAL,                                                                    \
      "another member has the partition, or a newer instance has this member's name: stop, and "   \
      "open a new consumer")                                                                       \
    X(VERSION_CONFLICT, 63, RETRIABLE,                                                             \
      "the key is at another version than expected: read it again and decide anew")                \
    X(UNKNOWN_MESSAGE, 64, NOT_FOUND,                                                              \
      "no such message: its id is not known within the dedupe window, or it is done with")         \
    X(DB_RETRY, 70, RETRIABLE, "the database asks to repeat the transaction: roll back and retry") \
    X(DB_SCHEMA, 71, USAGE,                                                                        \
      "the outbox tables are missing or of another version: run "                                  \
      "`ferry outbox init`")                                                                       \
    X(DB, 72, FATAL, "the database refused: the detail has its words")

enum ferry_err {
    FERRY_OK = 0,
#define FERRY_ERR_ENUM(name, number, class_, text) FERRY_ERR_##name = number,
    FERRY_ERR_MAP(FERRY_ERR_ENUM)
#undef FERRY_ERR_ENUM
};

enum ferry_class {
    FERRY_CLASS_NONE,      /* No error. */
    FERRY_CLASS_RETRIABLE, /* The same call may succeed later. */
    FERRY_CLASS_THROTTLED, /* The same call will succeed once there is room. */
    FERRY_CLASS_USAGE,     /* The caller must change the call. */
    FERRY_CLASS_NOT_FOUND, /* The thing named does not exist. */
    FERRY_CLASS_DENIED,    /* The caller lacks the permission. */
    FERRY_CLASS_FATAL,     /* The handle or the broker cannot go on. */
};

const char *ferry_err_name(enum ferry_err err); /* "UNKNOWN_TOPIC"; "OK" for 0. Static text. */
const char *ferry_err_text(enum ferry_err err); /* A sentence and the remedy. Static text. */
enum ferry_class ferry_err_class(enum ferry_err err);
bool ferry_err_is_retriable(enum ferry_err err); /* Class retriable or throttled. */

/* ---------------------------------------------------------------------------------------------
 * Configuration: options by name. conf/client.conf lists all of them with meaning and bounds. */
struct ferry_conf;

enum ferry_err ferry_conf_new(struct ferry_conf **conf); /* NO_MEMORY. */
void ferry_conf_free(struct ferry_conf **conf);
/* Sets one option. On error `detail` (may be NULL, `detail_bytes` long) says which values are
 * allowed. Errors: UNKNOWN_OPTION, BAD_OPTION_VALUE. */
enum ferry_err ferry_conf_set(struct ferry_conf *conf, const char *name, const char *value,
                              char *detail, size_t detail_bytes);

/* ---------------------------------------------------------------------------------------------
 * Messages. */

/* A message id: UUIDv7, snowflake or the caller's own 16 bytes. All zero means none. */
struct ferry_id {
    uint8_t bytes[16];
};

struct ferry_header {
    const char *name; /* NUL-terminated UTF-8, 1 to 255 bytes; `traceparent`, `ce_type`, … */
    const void *value;
    size_t value_bytes;
};

#define FERRY_PARTITION_ANY (-1)

struct ferry_message {
    const char *topic;
    int32_t partition; /* FERRY_PARTITION_ANY: by the key, or spread when there is none. */
    const void *key;   /* NULL: no key. Messages of one key stay in order. */
    size_t key_bytes;
    const void *payload;
    size_t payload_bytes;
    const struct ferry_header *headers;
    size_t header_count;
    struct ferry_id id;   /* Zero: none, or made by the client if `message.ids` says so. A message
                             with an id is dropped as a duplicate when the topic has seen the id
                             within its dedupe window. */
    int64_t timestamp_ms; /* 0: now. */
    void *opaque;         /* Comes back in the report. */
    int64_t due_ms;       /* 0: at once. Else kept aside and put into the log at that time of day
                             (or `delay_ms` from now), as if sent then: it does not hold back others
                             and keeps no order with them. At most a year ahead. */
    int64_t delay_ms;     /* With due_ms 0. */
    uint32_t priority;    /* 0..7, 7 first; of subscriptions of mode `queue`. */
};

/* A delayed message that waits: for ferry_schedule_cancel(). */
struct ferry_schedule_id {
    int32_t partition;
    int64_t due_ms;
    uint64_t number;
};

/* How a send ended. Every accepted message ends in exactly one of the three, told exactly once. */
enum ferry_outcome {
    FERRY_STORED,     /* On disk on a quorum, at `offset`. */
    FERRY_NOT_STORED, /* Not stored and never will be. */
    FERRY_UNKNOWN,    /* No answer within delivery.timeout_ms: it may be stored, once. */
};

struct ferry_report {
    enum ferry_outcome outcome;
    enum ferry_err err; /* FERRY_OK when stored; the reason otherwise. */
    const char *topic;  /* Lives during the callback. */
    int32_t partition;
    int64_t offset; /* -1 unless stored. For a duplicate, where the first one is. */
    bool duplicate; /* The broker had this message already; it is in the log once. */
    void *opaque;
    struct ferry_schedule_id
        schedule; /* Of a delayed message that is stored; due_ms 0 otherwise. */
};

typedef void ferry_report_cb(const struct ferry_report *report, void *arg);
/* Called for every accepted message; without it outcomes are only counted. Set before open. */
void ferry_conf_on_report(struct ferry_conf *conf, ferry_report_cb *callback, void *arg);

/* ---------------------------------------------------------------------------------------------
 * Client. Owns a thread that talks to the brokers. */
struct ferry_client;

/* Opens a client and takes `*conf` (set to NULL) on success; `conf` may be NULL for the defaults
 * (`servers` = tcp://127.0.0.1:7400). Does not wait for a broker. Errors: NO_MEMORY, IO,
 * BAD_OPTION_VALUE (an endpoint), each with a detail. */
enum ferry_err ferry_open(struct ferry_client **client, struct ferry_conf **conf, char *detail,
                          size_t detail_bytes);
/* Flushes for at most `timeout_ms`, reports what is left as NOT_STORED (never sent) or UNKNOWN,
 * closes. Consumers, receivers and sources of the client must be closed before. */
void ferry_close(struct ferry_client **client, int timeout_ms);

/* Queues a copy of the message. Never blocks, never waits for the network. Errors, after which no
 * report comes: QUEUE_FULL, TOO_LARGE, BAD_NAME, INVALID_ARGUMENT, NO_MEMORY, CLOSED, NOT_READY (it
 * needs a snowflake id, and the cluster has given no worker id yet). An unknown topic or partition
 * is told by the report. */
enum ferry_err ferry_send(struct ferry_client *client, const struct ferry_message *message);
/* Sends and waits for this message's own outcome, which is returned in `report` (its `topic` points
 * to message->topic); other messages' reports are not run. Errors: as ferry_send; FERRY_OK means
 * that `report` holds an outcome, not that it is STORED. Safe from several threads. */
enum ferry_err ferry_send_sync(struct ferry_client *client, const struct ferry_message *message,
                               struct ferry_report *report);
/* Runs the callbacks that are due, waiting at most `timeout_ms` for the first (0: do not wait, -1:
 * for ever). Returns how many ran. */
int ferry_poll(struct ferry_client *client, int timeout_ms);
/* Sends what lingers and runs callbacks until every accepted message has its outcome. Errors:
 * TIMEOUT (call again). */
enum ferry_err ferry_flush(struct ferry_client *client, int timeout_ms);
/* Readable when ferry_poll() has something to run. Do not read from it. Lives with the client. */
int ferry_fd(const struct ferry_client *client);
/* Messages accepted whose outcome has not been told. */
size_t ferry_queued(struct ferry_client *client);
/* A new UUIDv7 from the client's generator, ordered in time, safe when the clock steps back. */
struct ferry_id ferry_id_new(struct ferry_client *client);

#define FERRY_ID_TEXT_BYTES 37
void ferry_id_format(const struct ferry_id *id, char text[FERRY_ID_TEXT_BYTES]);
bool ferry_id_parse(const char *text, struct ferry_id *id);

/* The partition a key goes to: jump consistent hash (Lamping and Veach, 2014) of the XXH3-64 of
 * the key. From n to n+1 partitions 1/(n+1) of the keys move. */
int32_t ferry_partition_of_key(const void *key, size_t key_bytes, int32_t partitions);

/* ---------------------------------------------------------------------------------------------
 * Consumer: reads the partitions of one topic. */
struct ferry_consumer;
struct ferry_batch;

struct ferry_record {
    const char *topic; /* This and all below live until ferry_batch_free(). */
    int32_t partition;
    int64_t offset;
    int64_t timestamp_ms;   /* From the producer. */
    int64_t append_time_ms; /* From the partition's leader; never decreases in a partition. */
    const void *key;        /* NULL: no key. */
    size_t key_bytes;
    const void *payload;
    size_t payload_bytes;
    const uint8_t *headers; /* As they travel (a msgpack map); see ferry_record_header(). */
    size_t headers_bytes;
    struct ferry_id id; /* Zero: none. */
};

/* Where reading begins when the subscription has no committed position. */
#define FERRY_FROM_START (-2)
#define FERRY_FROM_END   (-1)

/* Opens a reader of `topic`. With a subscription name the position is kept by the broker (created
 * on first use, mode `stream`); with NULL it is the caller's. `from` is FERRY_FROM_START,
 * FERRY_FROM_END or an offset, used where there is no committed position. Waits at most
 * `timeout_ms` for metadata and positions. Errors: UNKNOWN_TOPIC, SUBSCRIPTION_EXISTS (another
 * mode), BAD_NAME, UNREACHABLE, TIMEOUT, LIMIT_REACHED, NO_MEMORY. */
enum ferry_err ferry_consumer_open(struct ferry_consumer **consumer, struct ferry_client *client,
                                   const char *topic, const char *subscription, int64_t from,
                                   int timeout_ms);
void ferry_consumer_close(struct ferry_consumer **consumer);
/* The next records of one partition, in offset order, waiting at most `timeout_ms`. The batch is
 * the caller's: free it once. Batches are read ahead within fetch.queue_bytes. Errors: TIMEOUT
 * (nothing new), OFFSET_OUT_OF_RANGE (told once a jump: the position was dropped by retention;
 * reading goes on at the log's start, or where a seek says), UNKNOWN_TOPIC (deleted), CORRUPT,
 * NO_MEMORY, CLOSED; of TOPIC.dlq.SUBSCRIPTION, UNKNOWN_SUBSCRIPTION and INVALID_ARGUMENT (it is a
 * stream), told again as long as that is so. */
enum ferry_err ferry_consumer_fetch(struct ferry_consumer *consumer, int timeout_ms,
                                    struct ferry_batch **batch);
/* Moves the reading position: an offset, FERRY_FROM_START or FERRY_FROM_END. Read-ahead of that
 * partition is dropped; batches handed out stay valid. Errors: UNKNOWN_PARTITION, TIMEOUT. */
enum ferry_err ferry_consumer_seek(struct ferry_consumer *consumer, int32_t partition,
                                   int64_t offset);
/* Moves to the first record appended at or after the time. Errors: as seek. */
enum ferry_err ferry_consumer_seek_time(struct ferry_consumer *consumer, int32_t partition,
                                        int64_t time_ms, int timeout_ms);
/* Commits: the next reader of the subscription starts at `offset` (one past the last record done).
 * Returns when it is on disk on a quorum. A position never goes back by a commit. Errors:
 * INVALID_ARGUMENT (no subscription), OFFSET_OUT_OF_RANGE, UNKNOWN_SUBSCRIPTION (deleted), TIMEOUT,
 * UNREACHABLE. */
enum ferry_err ferry_consumer_commit(struct ferry_consumer *consumer, int32_t partition,
                                     int64_t offset, int timeout_ms);
int32_t ferry_consumer_partitions(const struct ferry_consumer *consumer);
/* Where the partition will be read next by ferry_consumer_fetch(); -1: not known yet. */
int64_t ferry_consumer_position(const struct ferry_consumer *consumer, int32_t partition);
/* True when everything the broker had at its last answer has been handed out, all partitions. */
bool ferry_consumer_at_end(const struct ferry_consumer *consumer);
/* The topic's identity: a topic deleted and made again is another one. */
struct ferry_id ferry_consumer_topic_id(const struct ferry_consumer *consumer);
const char *ferry_consumer_topic(const struct ferry_consumer *consumer); /* Its name. */

size_t ferry_batch_count(const struct ferry_batch *batch);
int32_t ferry_batch_partition(const struct ferry_batch *batch);
int64_t ferry_batch_first_offset(const struct ferry_batch *batch);
int64_t ferry_batch_next_offset(const struct ferry_batch *batch); /* One past the last. */
/* The i-th record; `i` < count. In order this is O(1). */
void ferry_batch_record(struct ferry_batch *batch, size_t i, struct ferry_record *record);
void ferry_batch_free(struct ferry_batch **batch);

/* Finds a header by name; false when there is none. The value lives as long as the record. */
bool ferry_record_header(const struct ferry_record *record, const char *name, const void **value,
                         size_t *value_bytes);
/* The headers one after another: start with *position = 0; false at the end. Names are not
 * NUL-terminated. */
bool ferry_record_next_header(const struct ferry_record *record, size_t *position,
                              const char **name, size_t *name_bytes, const void **value,
                              size_t *value_bytes);

/* ---------------------------------------------------------------------------------------------
 * Administration. Each call asks the brokers and waits at most `timeout_ms`. Errors of all:
 * UNREACHABLE, TIMEOUT, DENIED, NO_MEMORY, besides those named. */

/* What the broker said of the error of the last call of administration that failed, for a person:
 * "" if nothing. Of calls of several threads it is the latest. */
void ferry_error_detail(struct ferry_client *client, char *detail, size_t detail_bytes);

struct ferry_topic_spec {
    const char *name;
    uint32_t partitions;      /* 0: the broker's default. */
    uint32_t replicas;        /* 0: the broker's default. */
    int64_t retention_ms;     /* 0: the default (7 days); -1: for ever. */
    int64_t retention_bytes;  /* By partition. 0: the default (no limit); -1: no limit. */
    int64_t dedupe_window_ms; /* For message ids. 0: the default (24 h); -1: off. */
    bool retention_acked;     /* Besides: drop what every subscription is done with. */
};

/* Creates a topic; it is durable and served when this returns. Creating one that exists with the
 * same settings succeeds. Errors: TOPIC_EXISTS, BAD_NAME, LIMIT_REACHED, STORAGE_FULL. */
enum ferry_err ferry_topic_create(struct ferry_client *client, const struct ferry_topic_spec *spec,
                                  int timeout_ms);
/* Errors: UNKNOWN_TOPIC. The data is gone when this returns; disk space comes back over time. */
enum ferry_err ferry_topic_delete(struct ferry_client *client, const char *name, int timeout_ms);

struct ferry_partition_info {
    int32_t partition;
    enum ferry_err err; /* FERRY_OK, or why the rest is not known. */
    uint32_t leader_node;
    int64_t start_offset;
    int64_t end_offset; /* One past the last committed record. */
    int64_t size_bytes; /* Stored, with entry headers. */
};

struct ferry_topic_info {
    char name[256];
    struct ferry_id id;
    uint32_t replicas;
    int64_t retention_ms, retention_bytes, dedupe_window_ms;
    bool retention_acked;
    size_t partition_count;
    struct ferry_partition_info *partitions; /* Owned by the info. */
};

/* Errors: UNKNOWN_TOPIC. Free with ferry_topic_info_free(). */
enum ferry_err ferry_topic_info(struct ferry_client *client, const char *name, int timeout_ms,
                                struct ferry_topic_info **info);
void ferry_topic_info_free(struct ferry_topic_info **info);
/* Names, sorted. One allocation: free with ferry_names_free(). */
enum ferry_err ferry_topic_list(struct ferry_client *client, int timeout_ms, char ***names,
                                size_t *count);
void ferry_names_free(char ***names);

struct ferry_subscription_partition {
    int32_t partition;
    enum ferry_err err; /* FERRY_OK, or why the rest is not known. */
    int64_t position;   /* Next offset to read. */
    int64_t end_offset;
    int64_t lag_messages;
    int64_t lag_ms; /* Age of the oldest message not yet done; 0 when there is none. */
    /* Of queue and keyed; 0 of stream. Enqueued since it was made or reset = acked + died + expired
     * + remaining - revived, where remaining = ready + leased + waiting. */
    uint64_t ready, leased, waiting, dead;
    uint64_t acked, died, expired, revived;
    uint64_t handed_out, failed, released;
};

enum ferry_mode {
    FERRY_MODE_STREAM = 1, /* Each partition to one member, by offset. */
    FERRY_MODE_QUEUE = 2,  /* Each message to one member. */
    FERRY_MODE_KEYED = 3,  /* ... and of each key one message at a time, in order. */
};
enum ferry_key_policy {
    FERRY_KEY_WAIT = 1, /* Messages of a key wait until the one before is acked or dead. */
    FERRY_KEY_PARK = 2, /* Once one is dead, later ones of its key join it, in order, until the
                           key's dead letters are replayed or dropped. */
};
/* How a subscription works. 0 in any field: the default, or (altering) as it is. */
struct ferry_subscription_spec {
    enum ferry_mode mode;    /* stream. Cannot be altered. */
    int64_t from;            /* Where it begins: FERRY_FROM_START, FERRY_FROM_END or an offset; used
                                as given, 0 is an offset. Not looked at when altering. */
    uint32_t lease_ms;       /* 30,000. 100 to 12 hours. */
    uint32_t max_deliveries; /* 10: after so many failures a message is a dead letter. */
    uint32_t backoff_min_ms; /* 1,000: after the first failure, doubled with each further one, */
    uint32_t backoff_max_ms; /* 600,000: up to this, with jitter. */
    enum ferry_key_policy key_policy; /* wait. Of keyed. */
    uint32_t inflight_max;            /* 1,000: held by one member, of one partition. */
    uint32_t priority_age_ms; /* 10,000: waiting so long is worth a level of priority. Of queue. */
};

struct ferry_subscription_info {
    char name[256];
    char mode[16];                       /* "stream", "queue", "keyed". */
    bool paused;                         /* On any partition. */
    struct ferry_subscription_spec spec; /* As partition 0 has it; `from` is its position. */
    size_t partition_count;
    struct ferry_subscription_partition *partitions;
};

/* Errors: UNKNOWN_TOPIC, UNKNOWN_SUBSCRIPTION. Free with ferry_subscription_info_free(). */
enum ferry_err ferry_subscription_info(struct ferry_client *client, const char *topic,
                                       const char *name, int timeout_ms,
                                       struct ferry_subscription_info **info);
void ferry_subscription_info_free(struct ferry_subscription_info **info);
/* Creates it on every partition, at `from`. Succeeds when it exists with the same mode (its
 * position stays). Errors: UNKNOWN_TOPIC, BAD_NAME, SUBSCRIPTION_EXISTS, LIMIT_REACHED. */
enum ferry_err ferry_subscription_create(struct ferry_client *client, const char *topic,
                                         const char *name, int64_t from, int timeout_ms);
/* The same for every mode. Errors: as above, INVALID_ARGUMENT (a value out of bounds). */
enum ferry_err ferry_subscription_make(struct ferry_client *client, const char *topic,
                                       const char *name, const struct ferry_subscription_spec *spec,
                                       int timeout_ms);
/* Changes settings, on every partition; not mode nor `from`. Errors: UNKNOWN_SUBSCRIPTION,
 * INVALID_ARGUMENT. */
enum ferry_err ferry_subscription_alter(struct ferry_client *client, const char *topic,
                                        const char *name,
                                        const struct ferry_subscription_spec *spec, int timeout_ms);
/* Paused, nothing is handed out or read for it; what is out may still be settled. */
enum ferry_err ferry_subscription_pause(struct ferry_client *client, const char *topic,
                                        const char *name, bool pause, int timeout_ms);
struct ferry_reset_partition {
    int32_t partition;
    enum ferry_err err;
    int64_t from, to; /* Positions before and after. */
};
/* Starts it over at `to`: FERRY_FROM_START, FERRY_FROM_END or an offset; with `time_ms` >= 0 at the
 * first message appended then or later. Leases end, acked messages from there on come again, dead
 * letters stay. With `dry_run` nothing changes. `*partitions`, `*count`: what it does or would do;
 * free with ferry_reset_free(). Errors: UNKNOWN_TOPIC, UNKNOWN_SUBSCRIPTION. */
enum ferry_err ferry_subscription_reset(struct ferry_client *client, const char *topic,
                                        const char *name, int64_t to, int64_t time_ms, bool dry_run,
                                        int timeout_ms, struct ferry_reset_partition **partitions,
                                        size_t *count);
void ferry_reset_free(struct ferry_reset_partition **partitions);

struct ferry_member {
    char name[256];
    char zone[32];
    char client[256]; /* Its client.name. */
    int64_t joined_ms, session_ms, silent_ms;
    uint32_t assigned, held; /* Partitions it shall have, and has. */
};
/* Who takes part now. Free with ferry_members_free(). */
enum ferry_err ferry_members_list(struct ferry_client *client, const char *topic, const char *name,
                                  int timeout_ms, struct ferry_member **members, size_t *count);
void ferry_members_free(struct ferry_member **members);
struct ferry_event {
    uint64_t number;
    int64_t time_ms;
    char kind[32]; /* "created", "joined", "left", "expired", "fenced", "assigned", "paused", … */
    char who[256];
    char why[256];
    uint64_t epoch;
};
/* What happened to it, oldest first, after event `after` (0: all that are kept). */
enum ferry_err ferry_events_list(struct ferry_client *client, const char *topic, const char *name,
                                 uint64_t after, int timeout_ms, struct ferry_event **events,
                                 size_t *count);
void ferry_events_free(struct ferry_event **events);

enum ferry_err ferry_subscription_delete(struct ferry_client *client, const char *topic,
                                         const char *name, int timeout_ms);
enum ferry_err ferry_subscription_list(struct ferry_client *client, const char *topic,
                                       int timeout_ms, char ***names, size_t *count);

/* What the broker is and on what it stands, as one JSON object (free with ferry_text_free):
 * version, node, cluster id, shards, durability, file system, kernel, library versions, counters.
 */
enum ferry_err ferry_broker_status(struct ferry_client *client, int timeout_ms, char **json);
void ferry_text_free(char **text);

/* ---------------------------------------------------------------------------------------------
 * Members of a group: the partitions of a topic shared out over the consumers of a subscription of
 * mode `stream`, by the broker. */

struct ferry_join_spec {
    const char *member; /* A name that lasts: after a restart within the session it gets the same
                           partitions back at once. NULL: one is made up. */
    int session_ms;     /* 10,000. Silent for so long, its partitions go to others. */
};
/* Opens a consumer that reads the partitions assigned to it, as they come and go. The subscription
 * is made if it is not there (mode stream, at `from`). Use it as any consumer;
 * ferry_consumer_commit of a partition that has gone to another is MEMBER_FENCED, and so is
 * everything once another instance has its name. Errors: as ferry_consumer_open. */
enum ferry_err ferry_consumer_join(struct ferry_consumer **consumer, struct ferry_client *client,
                                   const char *topic, const char *subscription, int64_t from,
                                   const struct ferry_join_spec *spec, int timeout_ms);
/* True when the partition is this member's now. */
bool ferry_consumer_has(const struct ferry_consumer *consumer, int32_t partition);
/* Called in ferry_consumer_fetch() and ferry_consumer_close() for each partition that comes
 * (`given`) or is to go: commit what is done of it before returning; it is handed on afterwards. */
typedef void ferry_assignment_cb(struct ferry_consumer *consumer, int32_t partition, bool given,
                                 void *arg);
void ferry_consumer_on_assignment(struct ferry_consumer *consumer, ferry_assignment_cb *callback,
                                  void *arg);

/* ---------------------------------------------------------------------------------------------
 * Receivers: subscriptions of mode `queue` and `keyed`. A message is handed to one receiver under a
 * lease; it is settled by ack, nack, release or reject, or comes back when the lease ends. The
 * client extends leases in the background for as long as the process lives and the message is not
 * settled, unless `no_extend` is set. */
struct ferry_receiver;

struct ferry_receiver_spec {
    const char *member;    /* Its name in lists and traces; NULL: one is made up. */
    uint32_t inflight_max; /* 1,000: messages received and not settled. */
    uint32_t batch_max;    /* 256: messages asked for at a time. */
    uint32_t lease_ms;     /* 0: the subscription's. */
    bool no_extend;
};
struct ferry_delivery {
    struct ferry_record record; /* Lives until the delivery is settled or the receiver closed. */
    uint32_t handed_out;        /* This time included: above 1 it was out before. */
    uint32_t failed;            /* Times before that it was nacked, or its lease ended. */
    int64_t lease_ms_left;      /* When it was handed to the application. */
    void *internal;             /* The client's. */
};

/* Errors: UNKNOWN_TOPIC, UNKNOWN_SUBSCRIPTION (make it first), SUBSCRIPTION_EXISTS (its mode is
 * stream), BAD_NAME, INVALID_ARGUMENT, UNREACHABLE, TIMEOUT, NO_MEMORY. */
enum ferry_err ferry_receiver_open(struct ferry_receiver **receiver, struct ferry_client *client,
                                   const char *topic, const char *subscription,
                                   const struct ferry_receiver_spec *spec, int timeout_ms);
/* Sends what is queued, releases what is not settled, and waits for the answers for at most
 * `timeout_ms`. */
void ferry_receiver_close(struct ferry_receiver **receiver, int timeout_ms);
/* The next messages, at least one, at most `max`, waiting at most `timeout_ms`. Errors: TIMEOUT,
 * UNKNOWN_TOPIC, UNKNOWN_SUBSCRIPTION (deleted), CORRUPT, CLOSED, NO_MEMORY. */
enum ferry_err ferry_receive(struct ferry_receiver *receiver, int timeout_ms,
                             struct ferry_delivery *deliveries, size_t max, size_t *count);

enum ferry_settle {
    FERRY_ACK = 1,     /* Done. */
    FERRY_NACK = 2,    /* Failed: again after `delay_ms` (-1: the subscription's back-off). */
    FERRY_RELEASE = 3, /* Not tried: again at once, for anybody; does not count as failed. */
    FERRY_REJECT = 4,  /* Never again: a dead letter now. */
};
/* How a settlement ended: told once for each delivery, in ferry_poll() or ferry_receiver_flush().
 */
struct ferry_settled {
    int32_t partition;
    int64_t offset;
    enum ferry_settle settle;
    enum ferry_err err; /* FERRY_OK: on disk on a quorum, never undone. LEASE_EXPIRED: it was too
                           late. TIMEOUT, UNREACHABLE: not known. */
    void *opaque;
};
typedef void ferry_settled_cb(const struct ferry_settled *settled, void *arg);
void ferry_receiver_on_settled(struct ferry_receiver *receiver, ferry_settled_cb *callback,
                               void *arg);
/* Queues it; the delivery's memory is given back. Settlements are sent together, soon. `reason`
 * (may be NULL) is kept with a nack or reject: at most 200 bytes. Errors: INVALID_ARGUMENT (settled
 * before), NO_MEMORY. */
enum ferry_err ferry_settle(struct ferry_receiver *receiver, struct ferry_delivery *delivery,
                            enum ferry_settle settle, int64_t delay_ms, const char *reason,
                            void *opaque);
enum ferry_err ferry_ack(struct ferry_receiver *receiver, struct ferry_delivery *delivery);
enum ferry_err ferry_nack(struct ferry_receiver *receiver, struct ferry_delivery *delivery,
                          int64_t delay_ms, const char *reason);
/* The lease of this message, and of those that came with it, ends `lease_ms` from now, not sooner
 * than before. Waits for the answer. Errors: LEASE_EXPIRED, TIMEOUT, UNREACHABLE. */
enum ferry_err ferry_extend(struct ferry_receiver *receiver, const struct ferry_delivery *delivery,
                            uint32_t lease_ms, int timeout_ms);
/* Waits until every settlement has its answer; callbacks run here. `failed` (may be NULL): how many
 * had an error since the last flush. Errors: TIMEOUT. */
enum ferry_err ferry_receiver_flush(struct ferry_receiver *receiver, int timeout_ms,
                                    uint64_t *failed);

/* ---------------------------------------------------------------------------------------------
 * Publishing on condition, all or nothing. */

#define FERRY_ANY_VERSION UINT64_MAX

struct ferry_publish_result {
    int64_t base_offset; /* Of the first message kept; of repeats where the first one is, or -1. */
    bool duplicate;      /* All were stored before. */
    size_t conflict;     /* VERSION_CONFLICT: which message, */
    uint64_t version;    /*   and the version its key is at. */
};
/* Stores `count` messages of one partition together or not at all: each with a key goes where the
 * first one's key goes (or to the partition it names). `versions` (NULL: none) has for each message
 * the version its key must be at, 0 for a key that has none yet, or FERRY_ANY_VERSION. A key's
 * version is how many messages were published with an expectation of it: read it with
 * ferry_key_version(). Repeats by id are recognised, so publishing again after TIMEOUT is safe
 * (messages without an id get one for the call's own tries). Errors: VERSION_CONFLICT, TOO_LARGE,
 * INVALID_ARGUMENT, UNKNOWN_TOPIC, TIMEOUT, UNREACHABLE. */
enum ferry_err ferry_publish(struct ferry_client *client, const struct ferry_message *messages,
                             size_t count, const uint64_t *versions, int timeout_ms,
                             struct ferry_publish_result *result);
enum ferry_err ferry_key_version(struct ferry_client *client, const char *topic, const void *key,
                                 size_t key_bytes, int timeout_ms, uint64_t *version);
/* The id of the n-th message made from a record: the same each time, so that reading, processing
 * and publishing again after a crash stores nothing twice. A hash (XXH3-128) of topic id,
 * partition, offset and n, marked as UUIDv8. */
struct ferry_id ferry_id_derive(const struct ferry_id *topic_id, int32_t partition, int64_t offset,
                                uint32_t n);

/* ---------------------------------------------------------------------------------------------
 * Dead letters, schedules, quotas, tracing. Errors of all: as of administration. Lists are the
 * caller's; free them with the function named. */

#define FERRY_REASON_BYTES 201
#define FERRY_HISTORY_MAX  8

enum ferry_failure_kind {
    FERRY_FAILURE_NACK = 1,
    FERRY_FAILURE_EXPIRED = 2,
    FERRY_FAILURE_REJECT = 3,
    FERRY_FAILURE_PARKED = 4
};
struct ferry_failure {
    int64_t time_ms;
    enum ferry_failure_kind kind;
    char member[256];
    char reason[FERRY_REASON_BYTES];
};
/* A message that was given up for one subscription. It is read, whole, as topic
 * "TOPIC.dlq.SUBSCRIPTION" by any consumer without a subscription, at offset `number`. */
struct ferry_dead {
    int32_t partition;
    uint64_t number;
    int64_t offset; /* Where it was in the topic. */
    int64_t append_time_ms, died_ms;
    uint32_t handed_out, failed;
    uint32_t record_bytes;
    struct ferry_id id;
    char reason[FERRY_REASON_BYTES];
    bool revived; /* Replayed, and not settled yet. */
    size_t failure_count;
    struct ferry_failure failures[FERRY_HISTORY_MAX]; /* Oldest first; the latest ones. */
};
struct ferry_dead_place {
    int32_t partition;
    uint64_t number;
};
/* A page of at most `max`, from `*place` on (partition 0, number 0 first), which is moved on;
 * `more` tells whether there may be more. `reason`: only those with exactly it; NULL: all. */
enum ferry_err ferry_dead_list(struct ferry_client *client, const char *topic,
                               const char *subscription, const char *reason,
                               struct ferry_dead_place *place, size_t max, int timeout_ms,
                               struct ferry_dead **dead, size_t *count, bool *more);
void ferry_dead_free(struct ferry_dead **dead);
/* Hands them out again, to this subscription alone. `edited` (NULL: as it is): takes the place of
 * the only one named; its key, headers and payload count. `done`: how many were there. */
enum ferry_err ferry_dead_replay(struct ferry_client *client, const char *topic,
                                 const char *subscription, const struct ferry_dead_place *places,
                                 size_t count, const struct ferry_message *edited, int timeout_ms,
                                 size_t *done);
enum ferry_err ferry_dead_drop(struct ferry_client *client, const char *topic,
                               const char *subscription, const struct ferry_dead_place *places,
                               size_t count, int timeout_ms, size_t *done);

struct ferry_scheduled {
    struct ferry_schedule_id schedule;
    int64_t added_ms;
    struct ferry_id id;
    char key[FERRY_REASON_BYTES]; /* Its beginning, for people. */
    uint32_t record_bytes;
};
/* Delayed messages that wait, by partition and due time: a page of at most `max`, after `*after`
 * (all 0 first), which is moved on. `total` (may be NULL): how many wait in that topic. */
enum ferry_err ferry_schedule_list(struct ferry_client *client, const char *topic,
                                   struct ferry_schedule_id *after, size_t max, int timeout_ms,
                                   struct ferry_scheduled **scheduled, size_t *count, bool *more,
                                   uint64_t *total);
void ferry_scheduled_free(struct ferry_scheduled **scheduled);
/* `done`: how many were still waiting; they will not come. */
enum ferry_err ferry_schedule_cancel(struct ferry_client *client, const char *topic,
                                     const struct ferry_schedule_id *schedules, size_t count,
                                     int timeout_ms, size_t *done);
struct ferry_recurring {
    int32_t partition;
    char name[256];
    char spec[FERRY_REASON_BYTES]; /* "@every 10s", or minute hour day month weekday. */
    char zone[256];                /* Of the tz database: "Europe/Berlin"; "" with @every. */
    int64_t next_ms;
    uint64_t fired;
};
/* A message that comes again and again, stored once for each time. A cron line is in the zone's
 * wall clock: a time that a change of clocks leaves out comes at the change, one that it repeats
 * comes once. While the broker is down times pass: after it the latest one comes, once. Setting a
 * name again replaces it. Errors: INVALID_ARGUMENT (spec or zone; the detail says what). */
enum ferry_err ferry_recurring_set(struct ferry_client *client, const char *name, const char *spec,
                                   const char *zone, const struct ferry_message *message,
                                   int timeout_ms);
enum ferry_err ferry_recurring_remove(struct ferry_client *client, const char *topic,
                                      const char *name, int timeout_ms);
enum ferry_err ferry_recurring_list(struct ferry_client *client, const char *topic, int timeout_ms,
                                    struct ferry_recurring **recurring, size_t *count);
void ferry_recurring_free(struct ferry_recurring **recurring);

/* Where the message with this id is, in whichever partition. Errors: UNKNOWN_MESSAGE. */
enum ferry_err ferry_message_find(struct ferry_client *client, const char *topic,
                                  const struct ferry_id *id, int timeout_ms, int32_t *partition,
                                  int64_t *offset);
enum ferry_trace_kind {
    FERRY_TRACE_APPENDED = 1,
    FERRY_TRACE_HANDED_OUT = 2,
    FERRY_TRACE_ACKED = 3,
    FERRY_TRACE_NACKED = 4,
    FERRY_TRACE_RELEASED = 5,
    FERRY_TRACE_REJECTED = 6,
    FERRY_TRACE_LEASE_EXPIRED = 7,
    FERRY_TRACE_DEAD = 8,
    FERRY_TRACE_REVIVED = 9,
    FERRY_TRACE_DROPPED = 10,
    FERRY_TRACE_EXTENDED = 11,
    FERRY_TRACE_TRIMMED = 12,
    FERRY_TRACE_SCHEDULED = 13,
    FERRY_TRACE_COMMITTED = 14,
};
struct ferry_trace_event {
    enum ferry_trace_kind kind;
    uint64_t index; /* Of the log entry that says so. */
    int64_t time_ms;
    uint32_t node; /* That led; 0: not known any more. */
    char subscription[256];
    char member[256];
    char reason[FERRY_REASON_BYTES];
    uint64_t lease;
    int64_t due_ms;
};
/* The life of one message, from the log itself: what retention has dropped is not told. Goes on
 * after
 * `*next` (0 first; 0 again: the end was reached), which is moved on, up to entry `*end`. */
enum ferry_err ferry_trace(struct ferry_client *client, const char *topic, int32_t partition,
                           int64_t offset, int timeout_ms, uint64_t *next, uint64_t *end,
                           struct ferry_trace_event **events, size_t *count);
void ferry_trace_free(struct ferry_trace_event **events);

/* What one client (by client.name) may do to one topic, a second, at each broker shard; what is
 * above it is THROTTLED, which the client waits out by itself. "" for any client or topic; the most
 * specific row counts. 0: no limit; all three 0: the row goes. */
struct ferry_quota {
    char client[256];
    char topic[256];
    uint64_t bytes_per_second, messages_per_second, requests_per_second;
};
enum ferry_err ferry_quota_set(struct ferry_client *client, const struct ferry_quota *quota,
                               int timeout_ms);
enum ferry_err ferry_quota_list(struct ferry_client *client, int timeout_ms,
                                struct ferry_quota **quotas, size_t *count);
void ferry_quotas_free(struct ferry_quota **quotas);

/* ---------------------------------------------------------------------------------------------
 * The cluster. Errors of all: as of administration. Lists are the caller's: free them with the
 * function named; `*list` is written on success only. What a node does not answer is told as such,
 * never as zero. */

enum ferry_node_state {
    FERRY_NODE_UP = 1,
    FERRY_NODE_SILENT = 2,   /* Not heard of for longer than an election takes. */
    FERRY_NODE_DRAINING = 3, /* Up, and being emptied. */
    FERRY_NODE_DRAINED = 4,  /* Up, and empty: it may be stopped for good, and removed. */
};
enum ferry_metadata_role {
    FERRY_METADATA_NONE = 0, /* Has joined, and not got the metadata yet. */
    FERRY_METADATA_VOTER = 1,
    FERRY_METADATA_LEARNER = 2,
    FERRY_METADATA_LEADER = 3,
};

#define FERRY_ZONE_BYTES     32
#define FERRY_ENDPOINT_BYTES 256
#define FERRY_REPLICAS_MAX   7

struct ferry_node {
    uint32_t node_id;
    uint64_t
        member; /* This life of its data folder; a folder that was lost comes back as another. */
    char zone[FERRY_ZONE_BYTES]; /* "": none. */
    uint32_t weight;
    enum ferry_node_state state; /* As the node that answered sees it. */
    bool draining;
    enum ferry_metadata_role metadata_role;
    uint32_t shards;
    char endpoint[FERRY_ENDPOINT_BYTES]; /* Of its first shard. */
    uint32_t replicas;                   /* Of partitions, placed on it. */
    uint32_t leaders;                    /* Of partitions, led by it as far as is known. */
    uint32_t ring_permille;              /* Its share of the ring. */
    int64_t silent_ms; /* Since it was heard of; 0: it is the one that answered. */
};
struct ferry_shard {
    uint32_t node_id;
    uint32_t shard;
    char endpoint[FERRY_ENDPOINT_BYTES];
};
struct ferry_nodes {
    struct ferry_id cluster_id;
    uint32_t leader_node; /* Of the metadata group; 0: not known. */
    size_t count;
    struct ferry_node *nodes; /* By node id. */
    size_t shard_count;
    struct ferry_shard *shards; /* Of all nodes: where each answers. */
};
enum ferry_err ferry_nodes_list(struct ferry_client *client, int timeout_ms,
                                struct ferry_nodes **nodes);
void ferry_nodes_free(struct ferry_nodes **nodes);

enum ferry_node_change {
    FERRY_NODE_DRAIN = 1,   /* Nothing new is placed on it, and what it has is moved away. */
    FERRY_NODE_UNDRAIN = 2, /* It takes part again; what is moving goes back. */
    FERRY_NODE_REMOVE = 3,  /* It is a member no more. It must hold nothing (NODE_NOT_EMPTY). */
    FERRY_NODE_WEIGHT = 4,  /* `weight`, for the plans from now on. */
};
/* Asks for the change of one node; returns when it is decided, not when moves have ended (see
 * ferry_moves_list). Asking twice is as asking once. Errors: UNKNOWN_NODE, NODE_NOT_EMPTY,
 * INVALID_ARGUMENT (of a drain: too few nodes would be left for the replicas of a topic). */
enum ferry_err ferry_node_change(struct ferry_client *client, uint32_t node_id,
                                 enum ferry_node_change change, uint32_t weight, int timeout_ms);

enum ferry_move_state {
    FERRY_MOVE_PROPOSED = 0, /* In a plan that is not applied. */
    FERRY_MOVE_PLANNED = 1,  /* Will begin. */
    FERRY_MOVE_ACTIVE = 2,
    FERRY_MOVE_REVERTING = 3, /* Aborted, on its way back. */
};
/* A partition on its way from one set of nodes to another. */
struct ferry_move {
    uint64_t group; /* The partition's number in the cluster. */
    char topic[256];
    int32_t partition;
    uint32_t from_count, to_count;
    uint32_t from[FERRY_REPLICAS_MAX]; /* Node ids, the preferred leader first. */
    uint32_t to[FERRY_REPLICAS_MAX];
    uint64_t bytes; /* To be copied, as far as is known. */
    enum ferry_move_state state;
};
struct ferry_moves {
    uint64_t plan_id;     /* Of a plan; for ferry_cluster_apply. */
    uint64_t total_bytes; /* Of all moves. */
    uint64_t done;        /* Of a list: moves that have ended since the last apply. */
    size_t count;
    struct ferry_move *moves; /* By group. */
};
/* What the cluster would move now to be even; changes nothing. */
enum ferry_err ferry_cluster_plan(struct ferry_client *client, int timeout_ms,
                                  struct ferry_moves **plan);
/* Starts exactly that plan. The cluster carries it out, whoever crashes meanwhile, the caller
 * included. `moves` (may be NULL) is how many. Errors: PLAN_CHANGED (ask for the plan again),
 * MOVES_RUNNING. */
enum ferry_err ferry_cluster_apply(struct ferry_client *client, uint64_t plan_id, int timeout_ms,
                                   uint32_t *moves);
/* Drops the moves that have not begun and takes back those that have; says how many of each. */
enum ferry_err ferry_cluster_abort(struct ferry_client *client, int timeout_ms, uint32_t *dropped,
                                   uint32_t *reverting);
/* The moves that have not ended. */
enum ferry_err ferry_moves_list(struct ferry_client *client, int timeout_ms,
                                struct ferry_moves **moves);
void ferry_moves_free(struct ferry_moves **moves);

/* Where a partition is placed, says the metadata. */
struct ferry_placement {
    char topic[256];
    int32_t partition;
    uint64_t group;
    uint32_t leader_node; /* As last known to whom was asked. */
    uint32_t replica_count;
    uint32_t replicas[FERRY_REPLICAS_MAX]; /* Node ids, the preferred leader first. */
    uint32_t wanted_replicas;              /* What the topic asks for. */
};
struct ferry_placements {
    size_t count;
    struct ferry_placement *placements; /* By topic and partition. */
};
/* Of one topic, or of all with NULL. Errors: UNKNOWN_TOPIC. */
enum ferry_err ferry_placements_list(struct ferry_client *client, const char *topic, int timeout_ms,
                                     struct ferry_placements **placements);
void ferry_placements_free(struct ferry_placements **placements);

enum ferry_group_state {
    FERRY_GROUP_FOLLOWER = 1,
    FERRY_GROUP_LEADER = 2,
    FERRY_GROUP_LEADER_NOT_READY = 3, /* Just elected. */
    FERRY_GROUP_INSTALLING = 4,       /* Takes a snapshot. */
    FERRY_GROUP_DAMAGED = 5,          /* Repairs a damaged entry by the others. */
    FERRY_GROUP_FAILED = 6,           /* Stopped by an error: see the node's log. */
};
enum ferry_member_kind {
    FERRY_MEMBER_VOTER = 1,
    FERRY_MEMBER_LEARNER = 2, /* Gets everything, has no vote yet. */
    FERRY_MEMBER_LEAVING = 3, /* A voter of the old set, while a move has both. */
};
struct ferry_group_member {
    uint32_t node_id;
    uint64_t member;
    enum ferry_member_kind kind;
    uint64_t match;    /* How far it has the log. The leader's word; 0 otherwise. */
    int64_t silent_ms; /* The leader's word; -1: not heard since it leads. */
    bool snapshotting; /* It is being sent a snapshot. */
};
/* A replica as its own node tells it. */
struct ferry_group {
    uint64_t group; /* 0: the metadata group. */
    char topic[256];
    int32_t partition;
    enum ferry_group_state state;
    uint64_t term, commit, applied, last; /* Of the log. */
    uint32_t leader_node;                 /* 0: not known. */
    int64_t start_offset, end_offset, size_bytes;
    bool quiet;                              /* Nothing to do: no heartbeats. */
    uint64_t copied_bytes, copy_total_bytes; /* Of a snapshot being taken or sent. */
    uint32_t member_count;
    struct ferry_group_member members[2 * FERRY_REPLICAS_MAX];
};
struct ferry_shard_groups {
    uint32_t node_id;
    uint32_t shard;
    enum ferry_err err; /* FERRY_OK, or why its groups are not known. */
    size_t count;
    struct ferry_group *groups;
};
struct ferry_groups {
    size_t count;
    struct ferry_shard_groups *shards; /* As in the nodes' list. */
};
/* Asks every shard of every node, at the same time, what it has. A shard that does not answer in
 * time has its `err`. */
enum ferry_err ferry_groups_list(struct ferry_client *client, const struct ferry_nodes *nodes,
                                 int timeout_ms, struct ferry_groups **groups);
void ferry_groups_free(struct ferry_groups **groups);

/* Makes a node that has a replica the leader of the partition; returns when it is. Errors:
 * UNKNOWN_TOPIC, UNKNOWN_PARTITION, UNKNOWN_NODE (it has no vote there). */
enum ferry_err ferry_partition_transfer(struct ferry_client *client, const char *topic,
                                        int32_t partition, uint32_t node_id, int timeout_ms);

/* ---------------------------------------------------------------------------------------------
 * Leases: a name that one holder has at a time, for as long as it renews. The token rises with each
 * holder: give it to what the lease protects, and let that refuse a lower one than it has seen, for
 * a holder may sleep past the end of its lease without knowing. */
struct ferry_lease {
    char name[256];
    char holder[256];
    uint64_t token;
    int64_t ttl_ms;
    int64_t left_ms;  /* Until it ends, if nobody renews it. */
    uint32_t waiting; /* How many wait in line behind the holder. */
};
/* Takes the lease for `ttl_ms`, or waits in line for it, first come first served, for at most
 * `wait_ms` and the `timeout_ms` that an answer may take. Who holds it already renews it. Errors:
 * LEASE_HELD (`*lease` tells of the present holder then), BAD_NAME, INVALID_ARGUMENT,
 * LIMIT_REACHED. */
enum ferry_err ferry_lease_acquire(struct ferry_client *client, const char *name,
                                   const char *holder, int64_t ttl_ms, int64_t wait_ms,
                                   int timeout_ms, struct ferry_lease *lease);
/* For another `ttl_ms` from now. Errors: LEASE_LOST, BAD_NAME, INVALID_ARGUMENT. */
enum ferry_err ferry_lease_renew(struct ferry_client *client, const char *name, const char *holder,
                                 uint64_t token, int64_t ttl_ms, int timeout_ms,
                                 struct ferry_lease *lease);
/* Gives it up: the next in line has it at once. Errors: LEASE_LOST, BAD_NAME. */
enum ferry_err ferry_lease_release(struct ferry_client *client, const char *name,
                                   const char *holder, uint64_t token, int timeout_ms);
/* All leases that are held, by name. Free with ferry_leases_free(). */
enum ferry_err ferry_leases_list(struct ferry_client *client, int timeout_ms,
                                 struct ferry_lease **leases, size_t *count);
void ferry_leases_free(struct ferry_lease **leases);
/* A number below 1024 that no other holder in the cluster has; the same holder asking again within
 * `ttl_ms` keeps it. `snowflake.worker_id = -1` does this by itself. Errors: BAD_NAME,
 * INVALID_ARGUMENT, LIMIT_REACHED (all are taken). */
enum ferry_err ferry_worker_id(struct ferry_client *client, const char *holder, int64_t ttl_ms,
                               int timeout_ms, uint32_t *worker_id);

/* ---------------------------------------------------------------------------------------------
 * Sources: for relays. A source is anything read in order (an outbox table, a file). Its cursor
 * lives in each partition and moves in the same log entry as the records it stands for, compare
 * and set; so a record is in the log once however often the relay dies. A relay that lost its
 * election is refused by its epoch. */
struct ferry_source;

#define FERRY_CURSOR_MAX_BYTES 4096

struct ferry_source_grant {
    uint64_t epoch; /* Fencing token of this election; rises with each. */
    bool standby;   /* Another holder is active; its lease ends after retry_ms. */
    int64_t retry_ms;
    const uint8_t *checkpoint; /* What ferry_source_checkpoint() kept last. Lives until the next */
    size_t checkpoint_bytes;   /* call on the source. */
};

/* Opens (source, lane); `holder` names this process for people. No election yet. */
enum ferry_err ferry_source_open(struct ferry_source **source, struct ferry_client *client,
                                 const struct ferry_id *source_id, uint32_t lane,
                                 const char *holder);
void ferry_source_close(struct ferry_source **source);
/* Asks to be, or to remain, the one active holder for `ttl_ms` of the broker's clock. FERRY_OK with
 * grant->standby set means: another is. Errors: UNREACHABLE, TIMEOUT. */
enum ferry_err ferry_source_elect(struct ferry_source *source, int64_t ttl_ms, int timeout_ms,
                                  struct ferry_source_grant *grant);
/* Gives the lease up so that another can start at once. Errors: UNREACHABLE, TIMEOUT. */
enum ferry_err ferry_source_resign(struct ferry_source *source, int timeout_ms);

struct ferry_cursor {
    uint64_t version; /* 0: the partition has no cursor of this source. */
    uint64_t epoch;   /* Of the last append or fence. */
    size_t blob_bytes;
    uint8_t blob[FERRY_CURSOR_MAX_BYTES];
};

/* Reads the cursor in one partition. Errors: UNKNOWN_TOPIC, UNKNOWN_PARTITION, UNREACHABLE,
 * TIMEOUT. */
enum ferry_err ferry_source_cursor(struct ferry_source *source, const char *topic,
                                   int32_t partition, int timeout_ms, struct ferry_cursor *cursor);

struct ferry_append_result {
    enum ferry_err err;   /* OK; CURSOR_CONFLICT (cursor holds the present one); SOURCE_FENCED;
                             TIMEOUT, UNREACHABLE (unknown: read the cursor); a refusal of one
                             message (TOO_LARGE, UNKNOWN_TOPIC, UNKNOWN_PARTITION, BAD_BATCH,
                             DENIED), named by refused_index. */
    size_t refused_index; /* SIZE_MAX when the refusal is of the whole. */
    int64_t base_offset;  /* Of the first message, when OK; -1 of delayed ones. */
    uint64_t version;     /* The cursor's version after it, when OK or in conflict. */
    const struct ferry_cursor *cursor; /* On CURSOR_CONFLICT; lives during the callback. */
    const char *detail;                /* Lives during the callback. */
};

typedef void ferry_append_cb(const struct ferry_append_result *result, void *arg);

/* Appends `count` messages (their topic and partition fields are not looked at, ids are kept but
 * not looked up; all of them are delayed or none is) to one partition and moves its cursor from
 * `expect_version` to `cursor_blob`, in one log entry, or does neither. The callback runs once, in
 * ferry_poll(), if and only if this returns FERRY_OK. Several appends may be in flight, for
 * different partitions or chained on one (each expecting the version before it plus one: they are
 * kept in order). Errors: QUEUE_FULL, TOO_LARGE (the batch), INVALID_ARGUMENT, NO_MEMORY, CLOSED.
 */
enum ferry_err ferry_source_append(struct ferry_source *source, const char *topic,
                                   int32_t partition, uint64_t expect_version,
                                   const void *cursor_blob, size_t cursor_bytes,
                                   const struct ferry_message *messages, size_t count,
                                   ferry_append_cb *callback, void *arg);
/* Ends all earlier elections of the source in one partition: once this returns FERRY_OK, an append
 * of an older epoch is SOURCE_FENCED there, also one that was on its way, and what is in the log is
 * all there will be of them. (Without it a partition learns of a new epoch only by its next
 * append.) And ends appends of this election whose outcome is not known: with a `version` above
 * what each of them expects they are CURSOR_CONFLICT when they arrive after all, because the
 * cursor's version is raised to that (0: it stays as it is). Its blob stays; where there is no
 * cursor, one is made. Read the cursor after it. To do it again changes nothing. Needs an election
 * that was won. Errors: INVALID_ARGUMENT (not elected; partition below 0; version above INT64_MAX),
 * SOURCE_FENCED (another was elected meanwhile, and wrote or fenced), LIMIT_REACHED (the partition
 * keeps cursors of as many sources as it can), UNKNOWN_TOPIC, UNKNOWN_PARTITION, UNREACHABLE,
 * TIMEOUT (it may have happened), STORE_FAILED, NO_MEMORY, CLOSED, UNKNOWN_COMMAND (an older
 * broker). */
enum ferry_err ferry_source_fence(struct ferry_source *source, const char *topic, int32_t partition,
                                  uint64_t version, int timeout_ms);
/* Keeps "every partition has at least this" in the metadata group, so that a restart knows where
 * to begin. Errors: SOURCE_FENCED, UNREACHABLE, TIMEOUT. */
enum ferry_err ferry_source_checkpoint(struct ferry_source *source, const void *blob,
                                       size_t blob_bytes, int timeout_ms);

/* What the brokers know of a source, for people. */
struct ferry_source_info {
    bool known;       /* False: no relay was ever elected for it; the rest is then empty. */
    uint64_t epoch;   /* Of the last election. */
    char holder[256]; /* Who won it. */
    int64_t left_ms;  /* Until the holder's lease ends; 0: nobody is active. */
    size_t checkpoint_bytes;
    uint8_t checkpoint[FERRY_CURSOR_MAX_BYTES];
};
/* Changes nothing. Errors: UNREACHABLE, TIMEOUT, UNKNOWN_COMMAND (an older broker). */
enum ferry_err ferry_source_show(struct ferry_client *client, const struct ferry_id *source_id,
                                 uint32_t lane, int timeout_ms, struct ferry_source_info *info);
/* How many partitions a topic has; asks the broker when it is not known. Errors: UNKNOWN_TOPIC,
 * UNREACHABLE, TIMEOUT. */
enum ferry_err ferry_topic_partitions(struct ferry_client *client, const char *topic,
                                      int timeout_ms, int32_t *partitions);

/* ---------------------------------------------------------------------------------------------
 * Embedded mode: a client of a broker in the same process. See ferry_broker.h. The context is the
 * broker's and must outlive the client. */
struct ferry_context;
void ferry_conf_set_context(struct ferry_conf *conf, struct ferry_context *context);

#ifdef __cplusplus
}
#endif

#endif
