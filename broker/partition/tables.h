/* tables: what a partition keeps besides its log: producers, source cursors, subscriptions, ids.
 *
 * Each is small and in memory, but for message ids, which live in the store. Each holds the applied
 * state (what the log says) and, on a leader, what is proposed and not yet applied; *_forget drops
 * the latter. Rows are made of applied state alone and are the same bytes on every replica that has
 * applied, and flushed, the same entries. Rows are written by *_flush for what changed since the
 * last, and read back by *_load. Row values are msgpack arrays (wire/pack.h); to change one, add
 * elements at its end. */
#ifndef FERRY_PARTITION_TABLES_H
#define FERRY_PARTITION_TABLES_H

#include "base/list.h"
#include "base/map.h"
#include "partition/delivery.h"
#include "partition/members.h"
#include "partition/partition.h"

/* Numbers of the state tables on disk (store.h). Never reused. */
enum partition_table {
    TABLE_BASE = 1,          /* "" -> partition.c */
    TABLE_PRODUCERS = 2,     /* u64 producer id */
    TABLE_CURSORS = 3,       /* source id, u32 lane */
    TABLE_SUBSCRIPTIONS = 4, /* name */
    TABLE_IDS = 5,           /* message id -> {i64 offset, i64 time}, little-endian */
    TABLE_ID_TIMES = 6,      /* i64 time (big-endian), message id -> nothing */
    TABLE_RUNS = 7,          /* u64 subscription, u64 segment -> delivery.c */
    TABLE_LEASES = 8,        /* u64 subscription, u64 lease -> delivery.c */
    TABLE_DEAD = 9,          /* u64 subscription, u64 number -> dead.c; large */
    TABLE_PARKED = 10,       /* u64 subscription, u64 key hash -> delivery.c */
    TABLE_MEMBERS = 11,      /* u64 subscription, name -> members.c; of partition 0 */
    TABLE_EVENTS = 12,       /* u64 subscription, u64 number -> members.c; of partition 0; large */
    TABLE_SCHEDULE = 13,     /* i64 due, u64 number -> schedule.c; large */
    TABLE_RECURRING = 14,    /* name -> schedule.c */
    TABLE_VERSIONS = 15,     /* 16-byte hash of a key -> u64 version; large */
    TABLE_HISTORIES = 16,    /* u64 subscription, u64 number -> delivery.c */
    TABLE_DEAD_NUMBERS = 17, /* u64 subscription, u64 segment -> delivery.c */
};
/* A subscription's number is the index of the entry that made it: made anew it is another one. One
 * from before there were numbers has its name's hash with the top bit set
 * (subscription_old_number).
 */

/* ---- Producers ---- */

struct producers {
    struct map by_id;
    struct list dirty;   /* To flush. */
    struct list removed; /* Rows to delete. */
};

enum producer_verdict {
    PRODUCER_NEXT,   /* The batch is the next one. */
    PRODUCER_REPEAT, /* Stored, or on its way, before: offset and index say where. */
    PRODUCER_GAP,
    PRODUCER_STALE,
    PRODUCER_OLD_EPOCH,
    PRODUCER_TABLE_FULL,
};
struct producer_answer {
    enum producer_verdict verdict;
    int64_t base_offset;
    uint64_t index;
    uint64_t expected_sequence;
};

void producers_init(struct producers *t);
void producers_fini(struct producers *t);
struct producer_answer producers_judge(const struct producers *t, const struct batch_header *h);
/* Makes room for the batch's producer, so that note cannot fail. */
MUST_CHECK enum ferry_err producers_reserve(struct producers *t, uint64_t producer_id);
/* A batch was proposed. */
void producers_note(struct producers *t, const struct batch_header *h, uint64_t index,
                    int64_t base_offset, int64_t time_ms);
/* The batch at `index` is applied, proposed here or not; room was made for its producer. */
void producers_apply(struct producers *t, const struct batch_header *h, uint64_t index,
                     int64_t base_offset, int64_t time_ms);
void producers_forget(struct producers *t);
/* The one longest silent, if silent since `before_ms`: 0 when there is none. */
uint64_t producers_idle(const struct producers *t, int64_t before_ms);
void producers_remove(struct producers *t, uint64_t producer_id);
MUST_CHECK enum ferry_err producers_flush(struct producers *t, struct store *store, uint64_t group);
MUST_CHECK enum ferry_err producers_load(struct producers *t, struct store *store, uint64_t group);

/* ---- Source cursors ---- */

struct source_cursor {
    struct ferry_id source;
    uint32_t lane;
    uint64_t version, epoch; /* Proposed ones included. */
    uint64_t applied_version, applied_epoch;
    uint32_t blob_bytes, applied_blob_bytes;
    bool dirty;
    uint8_t blob[CURSOR_MAX_BYTES];
    uint8_t applied_blob[CURSOR_MAX_BYTES];
};

struct cursors {
    struct source_cursor **items;
    size_t count, capacity;
};

void cursors_init(struct cursors *t);
void cursors_fini(struct cursors *t);
struct source_cursor *cursors_find(const struct cursors *t, const struct ferry_id *source,
                                   uint32_t lane);
/* Finds or makes one at version 0. Errors: LIMIT_REACHED, NO_MEMORY. */
MUST_CHECK enum ferry_err cursors_reserve(struct cursors *t, const struct ferry_id *source,
                                          uint32_t lane, struct source_cursor **cursor);
void cursor_note(struct source_cursor *c, uint64_t version, uint64_t epoch, struct bytes blob);
void cursor_apply(struct source_cursor *c, uint64_t version, uint64_t epoch, struct bytes blob);
/* Raises epoch and version to at least these, and nothing else: proposed, and applied. */
void cursor_note_fence(struct source_cursor *c, uint64_t version, uint64_t epoch);
void cursor_apply_fence(struct source_cursor *c, uint64_t version, uint64_t epoch);
void cursors_forget(struct cursors *t);
MUST_CHECK enum ferry_err cursors_flush(struct cursors *t, struct store *store, uint64_t group);
MUST_CHECK enum ferry_err cursors_load(struct cursors *t, struct store *store, uint64_t group);

/* ---- Subscriptions: applied state only; an entry's outcome does not depend on what is proposed.
 *
 * Rows: name -> [mode, position, number, paused, epoch, claimed, settings…, delivery's base (bin;
 * stream: empty)]; from before: [mode, position]. {0, u64 number} -> nothing: that one was deleted,
 * its rows in other tables are being deleted. */

struct subscription {
    uint64_t number; /* Index of the entry that made it. */
    uint32_t mode;
    int64_t position; /* Of stream; of the others it is delivery_floor. */
    bool paused;
    uint64_t epoch; /* Of stream: the greatest that claimed or committed; 0: none. */
    bool claimed;   /* Of stream: by a member, since it was made or reset. */
    struct delivery_settings settings;
    struct delivery *delivery; /* NULL: stream. Owned. */
    struct members *members;   /* Partition 0 only; NULL while nothing happened. Owned. */
    struct pick *pick;         /* Leader only; NULL: not made. Owned. */
    bool dirty;
    uint32_t name_bytes;
    char name[NAME_MAX_BYTES];
};

/* One that was deleted and whose rows in other tables still are: they go in steps, a flush each. */
struct subscription_leaving {
    uint64_t number;
    bool flushed; /* All that it had is on disk, and so is the mark that it is leaving. */
};

struct subscriptions {
    struct subscription **items; /* Sorted by name. */
    size_t count, capacity;
    struct buf removed; /* Names to delete: u8 length, bytes. */
    struct subscription_leaving *leaving;
    size_t leaving_count, leaving_capacity;
    /* Of deleted ones: what they have proposed is borrowed until the turn's end, so they go with
     * the next flush. */
    struct members *retired;
};

/* Rows of deleted subscriptions that one flush deletes, and bytes after which it stops. */
#define SUBSCRIPTION_DELETE_MAX       2048u
#define SUBSCRIPTION_DELETE_MAX_BYTES (16u << 20)

void subscriptions_init(struct subscriptions *t);
void subscriptions_fini(struct subscriptions *t);
struct subscription *subscriptions_find(const struct subscriptions *t, struct bytes name);
/* The place of the first name greater than `after`. */
size_t subscriptions_after(const struct subscriptions *t, struct bytes after);
struct subscription *subscriptions_by_number(const struct subscriptions *t, uint64_t number);
MUST_CHECK enum ferry_err subscriptions_create(struct subscriptions *t, struct bytes name,
                                               uint64_t number, uint32_t mode, int64_t position,
                                               const struct delivery_settings *settings);
uint64_t subscription_old_number(struct bytes name);
/* Of queue and keyed: the first offset that is not done. */
int64_t subscription_position(const struct subscription *s);
MUST_CHECK enum ferry_err subscriptions_remove(struct subscriptions *t, struct bytes name);
MUST_CHECK enum ferry_err subscriptions_flush(struct subscriptions *t, struct store *store,
                                              uint64_t group);
/* Rows of deleted ones are left to delete: another flush is wanted. */
bool subscriptions_are_leaving(const struct subscriptions *t);
/* That a flush would write, about. */
uint32_t subscriptions_dirty_rows(const struct subscriptions *t);
MUST_CHECK enum ferry_err subscriptions_load(struct subscriptions *t, struct store *store,
                                             uint64_t group);

/* ---- Message ids: in the store; what the store does not have yet, in memory. ---- */

/* Ids that are not in the store yet, above which a partition takes no more batches with ids until
 * they are (THROTTLED). */
#define IDS_PENDING_MAX 16384u
/* Expired rows deleted in one transaction. */
#define IDS_EXPIRE_MAX 2048u

struct ids {
    struct map recent; /* struct recent_id, by id */
    struct list queue; /* ... in order of index */
    size_t count;
    int64_t expire_before_ms; /* Rows older than this no longer count, and are being deleted. */
    bool expiring;            /* There may be such rows. */
    bool disk_has_rows;       /* The store holds ids: look-ups must ask it. */
};

void ids_init(struct ids *t);
void ids_fini(struct ids *t);
/* Needs a read view when disk_has_rows. */
MUST_CHECK enum ferry_err ids_find(const struct ids *t, struct store *store, uint64_t group,
                                   const struct ferry_id *id, int64_t not_before_ms, bool *found,
                                   int64_t *offset);
MUST_CHECK enum ferry_err ids_note(struct ids *t, const struct ferry_id *id, int64_t offset,
                                   int64_t time_ms, uint64_t index);
void ids_forget(struct ids *t, uint64_t applied);
MUST_CHECK enum ferry_err ids_flush(struct ids *t, struct store *store, uint64_t group,
                                    uint64_t applied);
MUST_CHECK enum ferry_err ids_load(struct ids *t, struct store *store, uint64_t group);

#endif
