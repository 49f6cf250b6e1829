/* delivery_entry: the log entries of hand-outs and settlements. Pure. Entries carry decisions,
 * never questions: which offsets, which lease, which due time, which record is dead. So replicas of
 * different versions cannot decide differently.
 *
 * Every entry names the subscription by its number: one for a subscription that is gone is passed
 * over. Msgpack arrays [kind, fields…]; fields are only added at the end. */
#ifndef FERRY_PARTITION_DELIVERY_ENTRY_H
#define FERRY_PARTITION_DELIVERY_ENTRY_H

#include "partition/control.h"
#include "partition/delivery.h"

/* Of one entry: a hand-out gives at most RECEIVE_MESSAGES_MAX messages to one member; an entry may
 * have several. */
#define HAND_OUTS_MAX       64u
#define HAND_OUT_RANGES_MAX RECEIVE_MESSAGES_MAX
/* Records that become dead letters in one entry, together; more come with the next. */
#define DEAD_ENTRY_MAX_BYTES    (4u << 20)
#define SETTLE_DUES_MAX         65536u
#define SETTLE_DEAD_MAX         4096u
#define ENTRY_SCRATCH_MAX_BYTES (2u << 20) /* What the lists of one entry take, decoded. */

struct delivery_range {
    int64_t first;
    uint32_t count;
    uint64_t key_hash; /* Keyed, with a key: count is 1. */
};
struct delivery_hand_out {
    uint64_t lease;
    struct ferry_id token;
    uint32_t lease_ms;
    struct bytes member;
    uint32_t range_count;
    const struct delivery_range *ranges; /* Ascending, disjoint. */
};
/* CONTROL_HAND_OUT: [kind, subscription, node, [lease, token, lease_ms, member, ranges]…], ranges a
 * bin of varints: gap after the range before, count, key hash. */
struct hand_out_entry {
    uint64_t subscription;
    uint32_t node; /* That led: for traces. */
    uint32_t count;
    struct delivery_hand_out hand_outs[HAND_OUTS_MAX];
};

/* A record that becomes a dead letter if the item that names it is carried out. */
struct delivery_dead {
    int64_t offset;
    int64_t append_time_ms;
    uint64_t key_hash;   /* Parks the key, if the policy says so when the entry is made; else 0. */
    struct bytes record; /* A batch of one record, as it is kept; of revived ones as in their row,
                            so that no replica must read one to apply an entry. */
};
/* CONTROL_SETTLE (asked by a member) and CONTROL_EXPIRE_LEASES (the leader). Beside enum
 * settle_kind:
 *   EXPIRE  what is left of a lease comes back: all (count 0), or of a range, where the dead
 *           letters of all are too much for one entry
 *   PARK    a range that is fresh or waiting becomes dead letters: of a parked key */
enum { DELIVERY_EXPIRE = 6, DELIVERY_PARK = 7 };
struct delivery_settle_item {
    uint32_t kind;
    uint64_t lease;
    struct ferry_id token; /* Of EXPIRE and PARK: zero. */
    int64_t first;
    uint32_t count;
    uint32_t extend_ms; /* EXTEND: the lease's new duration. */
    int64_t due_ms;     /* NACK with a delay of its own: for all of it. Else see `dues`. */
    struct bytes reason;
};
/* Back-off grows with each failure, so it is told by runs that are alike: what NACK and EXPIRE give
 * back is due when the run here that holds it says, else at the item's due_ms. */
struct delivery_due {
    int64_t first;
    uint32_t count;
    int64_t due_ms;
};
/* [kind, subscription, node, member, [item…], dues, [dead…]], dues a bin of varints: gap, count,
 * zigzag of the difference to the due time before. */
struct delivery_settlement {
    uint64_t subscription;
    uint32_t node;
    struct bytes member; /* Who asked; empty: the leader. */
    uint32_t count;
    const struct delivery_settle_item *items;
    uint32_t due_count;
    const struct delivery_due *dues; /* Ascending, disjoint. */
    uint32_t dead_count;
    const struct delivery_dead *dead; /* Ascending by offset. */
};

/* Encoders cannot fail but by the buffer. Decoders put lists into `scratch` (emptied first; limit
 * ENTRY_SCRATCH_MAX_BYTES), which must outlive what is decoded; texts and records point into the
 * payload. Errors: CORRUPT,
 * NO_MEMORY. */
void hand_out_encode(struct buf *b, const struct hand_out_entry *e);
MUST_CHECK enum ferry_err hand_out_decode(struct bytes payload, struct buf *scratch,
                                          struct hand_out_entry *e);
void settlement_encode(struct buf *b, enum control_kind kind, const struct delivery_settlement *s);
MUST_CHECK enum ferry_err settlement_decode(struct bytes payload, struct buf *scratch,
                                            struct delivery_settlement *s);

/* CONTROL_DEAD_CHANGE: [kind, subscription, node, change, member, [number, key hash, parked,
 * letter]…]. It says all that apply must know of a dead letter, which therefore reads no rows: in a
 * snapshot those may be newer than the rest. The leader has one such entry of a subscription on its
 * way at a time, so that what it read of a letter is still so when the entry is applied. */
struct dead_change_part {
    uint64_t number;
    uint64_t key_hash;   /* Replay, keyed, with a key: of the record that is handed out. */
    uint64_t parked;     /* The letter's key_hash. */
    struct bytes letter; /* Replay: as dead_encode makes it; without its record, or with the one
                            that takes its place. Drop: for traces alone, without record and
                            failures. */
};
struct dead_change_entry {
    uint64_t subscription;
    uint32_t node;
    uint32_t change;     /* enum dead_change_kind */
    struct bytes member; /* Who asked: client.name. */
    uint32_t count;
    struct dead_change_part parts[DEAD_CHANGE_MAX];
};
void dead_change_encode(struct buf *b, const struct dead_change_entry *e);
MUST_CHECK enum ferry_err dead_change_decode(struct bytes payload, struct dead_change_entry *e);

#endif
