/* The partition's struct, for its own files: partition.c (opening, applying, rows),
 * partition_produce.c, partition_subscribe.c, partition_read.c, partition_retain.c,
 * partition_deliver.c, partition_settle.c, partition_dead.c. */
#ifndef FERRY_PARTITION_INTERNAL_H
#define FERRY_PARTITION_INTERNAL_H

#include "partition/control.h"
#include "partition/dead.h"
#include "partition/partition.h"
#include "partition/pick.h"
#include "partition/recurring.h"
#include "partition/schedule.h"
#include "partition/tables.h"
#include "partition/versions.h"

#define READ_HINTS 32u
/* In a ticket's statuses: as the entry's next item turns out. No error has this number. */
#define STATUS_FROM_ENTRY 0xffffu

/* A place in the log that a reader will likely come back to: where it stopped. */
struct read_hint {
    int64_t offset;
    uint64_t index; /* 0: empty. */
};

/* Of queue and keyed delivery, volatile. */
struct deliver {
    struct prng jitter;
    struct id_gen random;       /* When the config has none. */
    uint64_t picks;             /* Made: where the next one's wake sequence starts. */
    uint64_t appends;           /* Batches applied. */
    int64_t due_us;             /* When deliver_tick has something to do; PICK_NEVER. */
    int64_t retry_us;           /* Not before: something was refused. */
    uint64_t dead_change_index; /* Of the last entry that changes dead letters that are kept. */
    struct partition_totals totals;
    bool forget; /* The office was lost: the indexes are worth nothing. */
    /* Scratch. */
    struct buf decoded, statuses;
    struct buf items, dues, dead, records, piece;
};

struct partition {
    struct partition_config config;
    struct replica *replica;

    /* Applied: the fold of the log up to the replica's applied index. */
    int64_t next_offset;
    int64_t start_offset;
    int64_t size_bytes; /* Of entries not trimmed. */
    struct producers producers;
    struct cursors cursors;
    struct subscriptions subscriptions;
    struct ids ids;
    struct rows dead; /* Dead letters of all subscriptions. */
    struct schedule schedule;
    struct recurring recurring;
    struct versions versions;
    int64_t applied_time_ms; /* Of the last entry applied. */

    /* Leader only: with proposals that are not applied yet. */
    int64_t proposed_next_offset;
    uint64_t proposed_index; /* Of the last entry proposed here; 0: none. Not the replica's own. */
    int64_t last_append_time_ms;
    bool housekeeping; /* A trim or expiry is proposed and not applied. */
    struct buf housekeeping_payload;

    int64_t members_due_us; /* When some member's session may end, or an entry is to be made. */

    /* Volatile. */
    struct ticket_queue tickets;
    struct deliver deliver;
    uint64_t readable_bytes;
    int64_t retention_due_us;    /* RAFT_NEVER: there is nothing to drop. */
    int64_t retention_looked_us; /* When it was looked at last. */
    bool retention_timed;        /* That look found when the first entry gets too old. */
    struct read_hint hints[READ_HINTS];
    uint32_t next_hint;
};

/* What an entry takes of the log, for retention by size. No-ops do not count: a partition is not
 * told of them nor of configurations, so it could not add what a trim subtracts. */
static inline int64_t entry_size(const struct store_entry *entry)
{
    if (entry->type == STORE_ENTRY_NOOP || entry->type == STORE_ENTRY_CONFIG) {
        return 0;
    }
    return 48 + (int64_t)entry->skip_count * 4 + (int64_t)entry->payload.size;
}

/* The batch that an entry adds to the log: all of it, or behind the control part. False when it
 * adds none: a delayed batch adds nothing until it is due. */
bool partition_entry_batch(const struct store_entry *entry, struct bytes *batch);
/* The offset after the entry's records. */
int64_t partition_offset_after(const struct store_entry *entry);
/* The node's number in the cluster. */
static inline uint32_t partition_node(const struct partition *p)
{
    return (uint32_t)p->config.self;
}
bool partition_entry_is_delayed(const struct store_entry *entry);
int64_t partition_next_time(const struct partition *p, int64_t now_ms);
/* Proposes the entry and lets the ticket wait for it. */
enum ferry_err partition_propose(struct partition *p, struct store_entry *entry, int64_t now_us,
                                 struct partition_ticket *t);
enum ferry_err partition_propose_control(struct partition *p, const struct control *c,
                                         int64_t now_ms, int64_t now_us,
                                         struct partition_ticket *t);
/* Proposes the control entry that is in t->payload. */
enum ferry_err partition_propose_payload(struct partition *p, int64_t now_ms, int64_t now_us,
                                         struct partition_ticket *t);
/* The ticket that waits for the entry that is being applied; NULL: none, as on every replica but
 * the one that proposed it. For answers that depend on the order in the log. */
struct partition_ticket *partition_waiting(const struct partition *p, uint64_t index);
/* It is done, with this error; t may be NULL. */
void partition_refuse(struct partition *p, struct partition_ticket *t, enum ferry_err err);
/* An entry of subscription_entry.h (partition_subscribe.c). */
enum ferry_err partition_apply_subscription(struct partition *p, uint64_t index,
                                            const struct store_entry *entry);
/* ---- partition_members.c */
enum ferry_err partition_apply_members(struct partition *p, uint64_t index,
                                       const struct store_entry *entry);
/* Something happened to the subscription; only partition 0 keeps it. */
enum ferry_err partition_note_event(struct partition *p, struct subscription *s,
                                    enum member_event_kind kind, int64_t time_ms, struct bytes who,
                                    struct bytes why);
void partition_members_role(struct partition *p, bool ready);
enum ferry_err partition_members_tick(struct partition *p, int64_t now_ms, int64_t now_us);

/* An entry of the partition itself: nobody waits, one at a time. */
enum ferry_err partition_propose_housekeeping(struct partition *p, const struct control *c,
                                              int64_t now_ms, int64_t now_us);
/* Something was appended: looks at retention when that may be due. */
void partition_retain_soon(struct partition *p);
/* An entry at or before the record at `offset`, and not before the batch before. Needs a read view.
 */
enum ferry_err partition_index_of(const struct partition *p, int64_t offset, uint64_t *index);
/* A subscription has moved on. */
void partition_retain_acked(struct partition *p);
/* When the record at `offset` was appended. Needs a read view. */
enum ferry_err partition_time_of(const struct partition *p, int64_t offset, int64_t *time_ms);
/* Whether ids of the batch are looked up and kept. */
bool partition_looks_up_ids(const struct partition *p, const struct batch_header *h);
/* Notes the ids of the batch as those of entry `index`, with offsets from first_offset on (-1: of
 * all, they are delayed); fills the ticket's skips and duplicates. After an error, or when the
 * entry is not proposed after all: ids_forget(index - 1). THROTTLED: too many are on their way. */
enum ferry_err partition_judge_ids(struct partition *p, struct bytes batch,
                                   const struct batch_header *h, int64_t time_ms, uint64_t index,
                                   int64_t first_offset, struct partition_ticket *t);
enum ferry_err partition_check_batch(const struct partition *p, struct bytes batch,
                                     struct batch_header *h, struct err_text *e);
/* Takes in the ids of what the entry keeps. */
enum ferry_err partition_apply_ids(struct partition *p, uint64_t index,
                                   const struct store_entry *entry, struct bytes batch);

/* ---- Delayed and recurring messages (partition_schedule.c, partition_recurring.c) ---- */

/* A delayed batch on its way in: whether it may. Errors: INVALID_ARGUMENT, BAD_BATCH, TOO_LARGE,
 * THROTTLED. */
enum ferry_err partition_schedule_judge(struct partition *p, struct bytes batch,
                                        const struct batch_header *h, int64_t now_ms,
                                        struct err_text *e);
/* Errors: INVALID_ARGUMENT (record `i` is due too late). */
enum ferry_err partition_schedule_judge_due(struct bytes batch, const struct batch_header *h,
                                            uint32_t i, int64_t now_ms, struct err_text *e);
/* Errors: THROTTLED. */
enum ferry_err partition_schedule_room(struct partition *p);
/* Fills the ticket's due times; records in its duplicates have none. */
enum ferry_err partition_schedule_tell(struct bytes batch, const struct batch_header *h,
                                       int64_t append_ms, struct partition_ticket *t);
int64_t partition_schedule_deadline_us(const struct partition *p);
/* Releases what is due, as leader. */
enum ferry_err partition_schedule_tick(struct partition *p, int64_t now_ms, int64_t now_us);
enum ferry_err partition_recurring_tick(struct partition *p, int64_t now_ms, int64_t now_us);
/* What an entry {control, batch} of these modules, or a control entry of theirs, says. */
enum ferry_err partition_schedule_apply(struct partition *p, uint64_t index, enum control_kind kind,
                                        struct bytes control);

/* Whether the shard's turn has room for what a partition appends on its own account, and that it
 * did. */
bool partition_may_spend(const struct partition *p);
void partition_spend(struct partition *p, size_t bytes);
enum ferry_err partition_check_leader(const struct partition *p);
/* The entry there cannot be read. CORRUPT, or NOT_LEADER, NOT_READY while peers repair it. */
enum ferry_err partition_damaged(const struct partition *p, uint64_t index);

/* ---- Entries by offset (partition_read.c), ascending best. Zero it with `p`; needs a read view,
 * within which what it shows lives. */
struct log_reader {
    struct partition *p;
    struct store_cursor cursor;
    const struct subscription *subscription; /* Of picks: whose dead letters. */
    bool opens;                              /* Of picks: records must be opened, for their keys. */
    bool open, has_entry;
    uint64_t index;
    struct store_entry entry;
    struct pick_piece piece; /* Of the entry that was sought last. */
};
/* The entry that holds the offset. Only when `whole`, or its records must be opened to know their
 * priorities, is its checksum verified. Errors: CORRUPT, NOT_READY, NOT_LEADER. */
enum ferry_err log_reader_seek(struct log_reader *r, int64_t offset, bool whole);
/* Appends the records from `first` on, `count` of them (within the entry), as one batch. */
enum ferry_err log_reader_repack(const struct log_reader *r, int64_t first, uint32_t count,
                                 struct buf *out);
/* Closes it; who reads on from `offset`, the next after what it was used for, finds the place. */
void log_reader_leave(struct log_reader *r, int64_t offset);
void log_reader_close(struct log_reader *r);

/* ---- Queue and keyed (partition_deliver.c, partition_settle.c, partition_dead.c) ---- */

void deliver_init(struct partition *p);
void deliver_fini(struct partition *p);
/* After its use: a partition keeps no large scratch. */
void deliver_release(struct buf *b);
void deliver_role_changed(struct partition *p, bool ready);
/* An entry is going to be applied: indexes of an office that was lost are freed. They are not at
 * once: a damaged entry that an index meets costs the office. */
void deliver_forget(struct partition *p);
bool deliver_applies(enum control_kind kind); /* One of delivery_entry.h. */
enum ferry_err deliver_apply(struct partition *p, uint64_t index, enum control_kind kind,
                             const struct store_entry *entry);
enum ferry_err deliver_apply_trim(struct partition *p, int64_t start_offset);
/* An entry of subscription_entry.h was applied. */
void deliver_subscription_applied(struct partition *p, enum control_kind kind);
int64_t deliver_deadline_us(const struct partition *p);
/* Ends leases, parks, wakes. No view may be open. */
enum ferry_err deliver_tick(struct partition *p, int64_t now_ms, int64_t now_us);
void deliver_check(const struct partition *p);
/* The least offset that a subscription is not done with; INT64_MAX: there is none. */
int64_t deliver_least_position(const struct partition *p);

/* The subscription of mode queue or keyed. Errors: UNKNOWN_SUBSCRIPTION, INVALID_ARGUMENT. */
enum ferry_err deliver_find(const struct partition *p, struct bytes name, struct subscription **s);
struct pick_clock deliver_clock(const struct partition *p, int64_t now_ms, int64_t now_us);
/* The subscription's index, made if need be, up to date. Errors: NO_MEMORY. */
enum ferry_err deliver_pick(struct partition *p, struct subscription *s,
                            const struct pick_clock *now);
/* After calls of pick: when the next tick is due. */
void deliver_look_again(struct partition *p, const struct subscription *s);
/* Entries of the partition itself that wait for nobody: a ticket that frees itself. */
struct partition_ticket *deliver_own_ticket(void);
void deliver_free_ticket(struct partition_ticket *t);
/* Ends leases whose time has come, and parks; one entry each. Needs a view. */
enum ferry_err settle_expired(struct partition *p, struct subscription *s, int64_t now_ms,
                              int64_t now_us);
enum ferry_err settle_parked(struct partition *p, struct subscription *s, int64_t now_ms,
                             int64_t now_us);
/* The letter's row. Needs a view. Errors: CORRUPT (it is not there). */
enum ferry_err dead_read(struct partition *p, const struct subscription *s, uint64_t number,
                         struct dead_letter *d);

#endif
