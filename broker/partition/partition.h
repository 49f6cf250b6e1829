/* partition: one partition of a topic: the state machine of its log.
 *
 * Takes requests (produce, append_cas, subscriptions), turns them into log entries, applies entries
 * that are committed, and reads the log for consumers. It decides only as leader and only by what
 * is in the log and in the requests: time and ids that it chooses travel in the entry, so that
 * every replica that applies the same entries has the same tables. It never sends, never reads a
 * clock (times are arguments), and never commits a transaction (replica.h does the writing).
 *
 * Invariants (partition_check):
 *  (1) Offsets are dense: an entry's base_offset is the sum of the records kept before it.
 *  (2) A (producer id, epoch, sequence) is in the log at most once; a repeat of one of the last
 *      PRODUCER_BATCHES batches gets its first offset back.
 *  (3) A source's cursor version rises by one with each append_cas, in the same entry; its epoch
 *      never goes back along the log.
 *  (4) A message id that partition_produce stored within the dedupe window is not stored again by
 *      it. Ids of append_cas are kept in the records but not looked up: the cursor keeps repeats
 * out. (5) A subscription's position never goes back by a commit, and is never past the end. (6)
 * Nothing above the commit index is ever read by a consumer. (7) append_time_ms never decreases
 * along the log.
 *
 * A request that needs an entry fills a ticket, which waits until the entry is applied (then it is
 * in partition_next_done with its answer) or the replica loses its office (err NOT_LEADER: the
 * outcome is not known here; the client asks again and is recognised by its sequence).
 *
 * Threads: the shard's. What a request borrows must live until its ticket is done, and if that was
 * within a turn (the replica lost its office), until the turn's replica_stored. */
#ifndef FERRY_PARTITION_PARTITION_H
#define FERRY_PARTITION_PARTITION_H

#include "base/buf.h"
#include "base/id.h"
#include "partition/replica.h"
#include "partition/ticket.h"
#include "wire/batch.h"
#include "wire/command.h"

#define PRODUCER_BATCHES            16u
#define PARTITION_PRODUCERS_MAX     4096u
#define PARTITION_SUBSCRIPTIONS_MAX 1000u
#define PARTITION_CURSORS_MAX       1000u
/* A producer that was silent for so long makes room for a new one when the table is full. */
#define PRODUCER_IDLE_MS (10 * 60 * 1000)

struct partition;

/* Settings of the topic; the same for all its partitions. -1: no limit, or off. */
struct topic_settings {
    int64_t retention_ms;
    int64_t retention_bytes;
    int64_t dedupe_window_ms;
    bool retention_acked; /* Besides: what every subscription is done with, if there is one. */
};

struct partition_config {
    uint64_t group;
    struct ferry_id topic_id;
    int32_t partition;
    raft_id self;
    struct raft_members initial; /* As in replica_config, like these times. */
    int64_t election_min_us, election_max_us, heartbeat_us;
    int64_t *copy_bytes;
    uint64_t seed;
    /* Where lease tokens come from, shared by the shard: from the kernel, or seeded for runs that
     * must be the same again. NULL: made of `seed`, for tests. */
    struct id_gen *random;
    struct store *store;
    struct topic_settings settings;
    /* What the shard's partitions may still append on their own account in this turn (messages that
     * are due), filled up by the shard each turn; spent it may be below 0. NULL: no limit. */
    int64_t *own_bytes;
    size_t message_max_bytes; /* Key, headers and payload of one record. */
    size_t batch_max_bytes;
};

/* A request that waits for its entry. Zero it, then partition_ticket_init. */
struct partition_ticket {
    struct ticket base;
    int64_t base_offset;    /* Produce, append_cas. */
    bool duplicate;         /* Produce: stored before, by sequence. */
    uint64_t version;       /* append_cas. */
    int64_t append_time_ms; /* Publish; 0: of a repeat, not known any more. */
    int64_t position;       /* Subscriptions. */
    uint32_t duplicate_count;
    struct buf duplicates; /* Produce: duplicate_count × {u32 record, u64 offset}. */
    struct buf payload;    /* What the entry holds, where it is not the request's own bytes. */
    struct buf skips;      /* Produce: the entry's skip list. */
    bool scheduled;        /* Produce: base_offset is the first schedule's number, due times are */
    struct buf dues;       /*   these: i64 for each record of the batch (produce_reply). */
    /* Receive: what was handed out. */
    uint64_t subscription, lease;
    struct ferry_id token;
    uint32_t lease_ms;
    uint32_t count;
    bool cut;          /* There was no room for all: partition_read_delivery. */
    struct buf ranges; /* struct delivery_range, ascending. */
    /* Settle: an outcome an item, u16 little-endian; empty: all was carried out. Dead changes: how
     * many were there (count). Reset: from, to (base_offset, position). */
    struct buf statuses;
    bool own; /* Of the partition itself: nobody is told. */
};
void partition_ticket_init(struct partition_ticket *t);
void partition_ticket_fini(struct partition_ticket *t);

/* Errors: those of replica_open. */
MUST_CHECK enum ferry_err partition_open(const struct partition_config *config, int64_t now_us,
                                         struct partition **p, struct err_text *e);
void partition_close(struct partition **p); /* No ticket may wait. */
struct replica *partition_replica(struct partition *p);
void partition_configure(struct partition *p, const struct topic_settings *settings);

/* ---- Requests. FERRY_OK: the ticket waits, or is answered (index 0). Errors are answers too and
 * leave the ticket unused. All: NOT_LEADER (the replica follows another), NOT_READY, STORE_FAILED,
 * THROTTLED, NO_MEMORY. */

/* `batch` is checked here. Errors: BAD_BATCH, BAD_CHECKSUM, TOO_LARGE, PRODUCER_FENCED,
 * SEQUENCE_GAP, SEQUENCE_STALE, LIMIT_REACHED, INVALID_ARGUMENT (a due time too far ahead). */
MUST_CHECK enum ferry_err partition_produce(struct partition *p, struct bytes batch, int64_t now_ms,
                                            int64_t now_us, struct partition_ticket *t,
                                            struct err_text *e);

struct append_cas {
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch;
    uint64_t expect_version;
    struct bytes cursor;
    struct bytes batch;
};
/* Errors: as produce, and CURSOR_CONFLICT, SOURCE_FENCED (the present cursor is in `refusal`),
 * TOO_LARGE with refused_index. refusal->cursor lives until the next request. */
MUST_CHECK enum ferry_err partition_append_cas(struct partition *p, const struct append_cas *c,
                                               int64_t now_ms, int64_t now_us,
                                               struct partition_ticket *t,
                                               struct append_cas_refusal *refusal,
                                               struct err_text *e);
/* From here on in the log an append_cas of a lower epoch is SOURCE_FENCED, and one that expects a
 * version below the request's is CURSOR_CONFLICT, whatever was on its way: the cursor's version is
 * raised to that if it was less. The blob stays. Errors: INVALID_ARGUMENT (epoch 0, version above
 * INT64_MAX), SOURCE_FENCED (a higher epoch is known), LIMIT_REACHED. */
MUST_CHECK enum ferry_err partition_source_fence(struct partition *p,
                                                 const struct source_fence_request *q,
                                                 int64_t now_ms, int64_t now_us,
                                                 struct partition_ticket *t, struct err_text *e);
/* The reply's cursor lives until the next request. */
void partition_cursor_get(const struct partition *p, const struct ferry_id *source, uint32_t lane,
                          struct cursor_get_reply *reply);

/* With the default settings. Errors: BAD_NAME, INVALID_ARGUMENT (mode), SUBSCRIPTION_EXISTS,
 * LIMIT_REACHED. One that exists is answered with its position. */
MUST_CHECK enum ferry_err partition_subscription_create(struct partition *p, struct bytes name,
                                                        uint32_t mode, int64_t from, int64_t now_ms,
                                                        int64_t now_us, struct partition_ticket *t);
/* Errors: UNKNOWN_SUBSCRIPTION. */
MUST_CHECK enum ferry_err partition_subscription_delete(struct partition *p, struct bytes name,
                                                        int64_t now_ms, int64_t now_us,
                                                        struct partition_ticket *t);
/* Of stream. `epoch` is that of the member's assignment, as it claimed the partition with; older
 * than what the partition has seen: MEMBER_FENCED. 0 is a commit by nobody's member: allowed only
 * as long as no member ever claimed the partition, or none has since it was reset; else
 * MEMBER_FENCED. A reset takes the claim away: what the member commits without a new claim (the
 * same epoch will do) is MEMBER_FENCED, as it may be of before. Errors: UNKNOWN_SUBSCRIPTION,
 * OFFSET_OUT_OF_RANGE, INVALID_ARGUMENT (not of stream), MEMBER_FENCED (also of the ticket: the
 * order in the log counts).
 */
MUST_CHECK enum ferry_err partition_subscription_commit_as(struct partition *p, struct bytes name,
                                                           int64_t position, uint64_t epoch,
                                                           int64_t now_ms, int64_t now_us,
                                                           struct partition_ticket *t);
/* With epoch 0. */
MUST_CHECK enum ferry_err partition_subscription_commit(struct partition *p, struct bytes name,
                                                        int64_t position, int64_t now_ms,
                                                        int64_t now_us, struct partition_ticket *t);
/* Needs a read view (for the lag). Errors: UNKNOWN_SUBSCRIPTION, CORRUPT. */
MUST_CHECK enum ferry_err partition_subscription_get(struct partition *p, struct bytes name,
                                                     int64_t now_ms,
                                                     struct subscription_get_reply *reply);
/* Names sorted, after `after`; they live until the next request. */
void partition_subscription_list(const struct partition *p, struct bytes after,
                                 struct names_reply *reply);

/* ---- Queue and keyed (partition_deliver.c, pick.h) ---- */

struct receive {
    struct bytes subscription;
    struct bytes member;
    uint32_t max_messages, max_bytes;
    uint32_t lease_ms; /* 0: the subscription's. */
};
enum receive_answer {
    RECEIVE_PROPOSED,    /* The ticket waits; its ranges are handed out once it is done. */
    RECEIVE_NOTHING,     /* Nothing for anybody now: partition_wake_sequence tells when to ask. */
    RECEIVE_MEMBER_FULL, /* The member holds inflight_max. */
};
/* Needs a read view. Errors: UNKNOWN_SUBSCRIPTION, INVALID_ARGUMENT (its mode is stream), BAD_NAME
 * (member), CORRUPT. */
MUST_CHECK enum ferry_err partition_receive(struct partition *p, const struct receive *r,
                                            int64_t now_ms, int64_t now_us,
                                            struct partition_ticket *t,
                                            enum receive_answer *answer);
/* The records of a receive that is done, as fetch entries in `out`, and what was out before in
 * `repeats` (receive_reply); t->count says how many came. Needs a read view. What the lease does
 * not hold (trimmed or reset meanwhile) is left out, and so is what `out` has no room for: t->cut
 * then, and partition_release_rest gives it back. Errors: CORRUPT, NO_MEMORY, NOT_READY,
 * NOT_LEADER. */
MUST_CHECK enum ferry_err partition_read_delivery(struct partition *p, struct partition_ticket *t,
                                                  struct buf *repeats, struct buf *out);
/* Others may have what is behind the first t->count messages of the hand-out. Errors: THROTTLED,
 * NOT_LEADER, NO_MEMORY: it comes back when the lease ends. */
MUST_CHECK enum ferry_err partition_release_rest(struct partition *p,
                                                 const struct partition_ticket *t, int64_t now_ms,
                                                 int64_t now_us);
/* Rises whenever something may have become available for receives of the subscription: fresh
 * messages, back-offs that are over, leases that ended, room at a member, resumed, a free key. 0:
 * no such subscription here. */
uint64_t partition_wake_sequence(const struct partition *p, struct bytes subscription);

/* Needs a read view (dead letters are made of records). Errors: UNKNOWN_SUBSCRIPTION,
 * INVALID_ARGUMENT, CORRUPT. Items have their outcomes in t->statuses. */
MUST_CHECK enum ferry_err partition_settle(struct partition *p, const struct settle_request *q,
                                           int64_t now_ms, int64_t now_us,
                                           struct partition_ticket *t);
/* Need a read view; what they return lives until it ends. Errors: UNKNOWN_SUBSCRIPTION, CORRUPT. */
MUST_CHECK enum ferry_err partition_dead_list(struct partition *p,
                                              const struct dead_list_request *q,
                                              struct dead_list_reply *reply);
MUST_CHECK enum ferry_err partition_dead_change(struct partition *p,
                                                const struct dead_change_request *q,
                                                struct bytes record, struct bytes who,
                                                int64_t now_ms, int64_t now_us,
                                                struct partition_ticket *t, struct err_text *e);
/* As partition_read, of a subscription's dead letters: `number` on. `*next` is what to ask from
 * then; `*end` one past the last. */
MUST_CHECK enum ferry_err partition_read_dead(struct partition *p, struct bytes subscription,
                                              int64_t number, uint32_t max_bytes, struct buf *out,
                                              int64_t *next, int64_t *end);

/* ---- Subscriptions' settings and members (partition_subscribe.c, partition_members.c) ---- */

/* As partition_subscription_create, with all that a request may say. Errors: also INVALID_ARGUMENT
 * (a setting out of bounds). `who`, here and below, is for the events: client.name; may be empty.
 */
MUST_CHECK enum ferry_err partition_subscription_make(struct partition *p,
                                                      const struct subscription_create_request *q,
                                                      struct bytes who, int64_t now_ms,
                                                      int64_t now_us, struct partition_ticket *t);
/* Errors: UNKNOWN_SUBSCRIPTION, INVALID_ARGUMENT. Settings of stream are passed over. */
MUST_CHECK enum ferry_err partition_subscription_alter(struct partition *p,
                                                       const struct subscription_alter_request *q,
                                                       struct bytes who, int64_t now_ms,
                                                       int64_t now_us, struct partition_ticket *t);
/* A dry run is answered at once. From and to are base_offset and position of the ticket. Errors:
 * UNKNOWN_SUBSCRIPTION, INVALID_ARGUMENT (to). */
MUST_CHECK enum ferry_err partition_subscription_reset(struct partition *p,
                                                       const struct subscription_reset_request *q,
                                                       struct bytes who, int64_t now_ms,
                                                       int64_t now_us, struct partition_ticket *t);
/* Errors: UNKNOWN_SUBSCRIPTION, BAD_NAME (member), INVALID_ARGUMENT (not of stream, epoch 0),
 * MEMBER_FENCED (also of the ticket). */
MUST_CHECK enum ferry_err partition_subscription_claim(struct partition *p,
                                                       const struct subscription_claim_request *q,
                                                       int64_t now_ms, int64_t now_us,
                                                       struct partition_ticket *t);
/* Partition 0 only (INVALID_ARGUMENT elsewhere). The reply is to be made when the ticket is done,
 * or at once when it does not wait, by partition_member_assignment. Errors: UNKNOWN_SUBSCRIPTION,
 * MEMBER_FENCED, LIMIT_REACHED, BAD_NAME, INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err partition_member_heartbeat(struct partition *p,
                                                     const struct member_heartbeat_request *q,
                                                     struct bytes client, int64_t now_ms,
                                                     int64_t now_us, struct partition_ticket *t);
/* What it names counts as told: call it once for each answer that is sent. One whose entry is not
 * applied yet is told of nothing, and to come back soon. Errors: UNKNOWN_SUBSCRIPTION,
 * MEMBER_FENCED, NOT_LEADER, NOT_READY. */
MUST_CHECK enum ferry_err
partition_member_assignment(struct partition *p, struct bytes subscription, struct bytes member,
                            const struct ferry_id *instance, struct member_heartbeat_reply *reply);
/* One that is out already: FERRY_OK. Errors: UNKNOWN_SUBSCRIPTION, INVALID_ARGUMENT, MEMBER_FENCED.
 */
MUST_CHECK enum ferry_err partition_member_leave(struct partition *p,
                                                 const struct member_leave_request *q,
                                                 int64_t now_ms, int64_t now_us,
                                                 struct partition_ticket *t);
/* Texts live until the next request. Errors: UNKNOWN_SUBSCRIPTION, INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err partition_member_list(const struct partition *p,
                                                const struct member_list_request *q, int64_t now_us,
                                                struct member_list_reply *reply);
MUST_CHECK enum ferry_err partition_event_list(const struct partition *p,
                                               const struct event_list_request *q,
                                               struct event_list_reply *reply);

/* ---- Schedules, publishing on condition (partition_schedule.c, partition_publish.c) ---- */

/* Need a read view. */
MUST_CHECK enum ferry_err partition_schedule_list(struct partition *p,
                                                  const struct schedule_list_request *q,
                                                  struct schedule_list_reply *reply);
MUST_CHECK enum ferry_err partition_schedule_cancel(struct partition *p,
                                                    const struct schedule_cancel_request *q,
                                                    int64_t now_ms, int64_t now_us,
                                                    struct partition_ticket *t);
/* `record` empty: removes it. Errors: INVALID_ARGUMENT (spec, zone: `e` says what), LIMIT_REACHED,
 * UNKNOWN_MESSAGE (nothing to remove). */
MUST_CHECK enum ferry_err partition_recurring_set(struct partition *p,
                                                  const struct recurring_set_request *q,
                                                  struct bytes record, int64_t now_ms,
                                                  int64_t now_us, struct partition_ticket *t,
                                                  struct err_text *e);
MUST_CHECK enum ferry_err partition_recurring_list(const struct partition *p,
                                                   struct recurring_list_reply *reply);
/* What repeats stored ids is left out, and so are its expectations; when all is, base_offset is -1
 * and the duplicates say where the first ones are (t->duplicate). Errors: as produce,
 * INVALID_ARGUMENT (of the expectations: `refusal` names the record), VERSION_CONFLICT (`refusal`).
 */
MUST_CHECK enum ferry_err partition_publish(struct partition *p, const struct publish_request *q,
                                            struct bytes batch, int64_t now_ms, int64_t now_us,
                                            struct partition_ticket *t,
                                            struct publish_refusal *refusal, struct err_text *e);
MUST_CHECK enum ferry_err partition_key_version(struct partition *p, struct bytes key,
                                                uint64_t *version);

/* ---- Finding and tracing (partition_trace.c). Need a read view. ---- */

/* By the ids of the dedupe window. A delayed message that waits, or was cancelled, has offset -1.
 */
MUST_CHECK enum ferry_err partition_message_find(struct partition *p, const struct ferry_id *id,
                                                 bool *found, int64_t *offset);
/* Looks at a bounded stretch of the log a call; reply->next is to be given back as it is. Of a
 * message that was trimmed there is what the log still has. Texts live until the view ends. Errors:
 * OFFSET_OUT_OF_RANGE (below 0, or nothing is there yet), CORRUPT. */
MUST_CHECK enum ferry_err partition_trace(struct partition *p, const struct trace_request *q,
                                          struct trace_reply *reply);

/* The next ticket that is answered; NULL when there is none. */
struct partition_ticket *partition_next_done(struct partition *p);

/* ---- Reading. All need a read view of the store, opened after the last commit. */

/* Appends fetch entries from `offset` on: whole batches, up to max_bytes together, at least one if
 * there is one. Every batch's checksum is verified. Errors: OFFSET_OUT_OF_RANGE, CORRUPT (before
 * the first entry; otherwise the good ones come first and the error with the next call; in a group
 * with peers the replica gives up its office instead, NOT_READY, until it is repaired), NO_MEMORY,
 * NOT_READY, NOT_LEADER. */
MUST_CHECK enum ferry_err partition_read(struct partition *p, int64_t offset, uint32_t max_bytes,
                                         struct buf *out);
/* Errors: CORRUPT. */
MUST_CHECK enum ferry_err partition_find_time(struct partition *p, int64_t time_ms,
                                              int64_t *offset);

int64_t partition_start_offset(const struct partition *p);
int64_t partition_end_offset(const struct partition *p);
int64_t partition_size_bytes(const struct partition *p);
/* Rises with every byte of records that becomes readable: for waiting fetches. */
uint64_t partition_readable_bytes(const struct partition *p);

/* ---- Time ---- */

/* When partition_tick has something to do; RAFT_NEVER when nothing. */
int64_t partition_deadline_us(const struct partition *p);
/* Raft's timers and, when due, retention and expiry. Opens a read view of its own. */
MUST_CHECK enum ferry_err partition_tick(struct partition *p, int64_t now_ms, int64_t now_us);

/* What happened here while it led, since it was opened; for people. */
struct partition_totals {
    uint64_t leases_ended; /* By time. */
    uint64_t died;         /* Messages that became dead letters. */
};
struct partition_totals partition_totals(const struct partition *p);

void partition_check(const struct partition *p);

#endif
