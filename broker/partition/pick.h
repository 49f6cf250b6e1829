/* pick: which message goes next to whom: a leader's index over one subscription of mode queue or
 * keyed. Volatile: it is made anew from delivery.h's state by each leader, and forgotten with the
 * office.
 *
 * It decides; nothing it says is true before the entry that says so is applied. What it has picked
 * is out of the index at once, so several hand-outs may be on their way; a proposal that is refused
 * is given back (pick_give_back). Never reads a clock, writes nothing; reads the log through the
 * calls it is given.
 *
 * Order: what waits and is due goes first, oldest due time first; then fresh messages: by offset;
 * of mode queue by priority, among the PICK_AHEAD fresh messages looked at: level + time waited /
 * priority_age_ms, highest first, then by offset (so nothing starves); of mode keyed by offset,
 * passing over those whose key has a message out or waiting: they queue behind it in memory,
 * PICK_KEYED_MAX of them; then it stops looking ahead until some are gone.
 *
 * Looks ahead at most PICK_SCAN_ENTRIES entries and, where batches must be opened (keys),
 * PICK_READ_BYTES in one call, and goes on with the next: `pick_wants_more`.
 *
 * Time: leases by the leader's monotonic clock, back-off by the remaining part of due_ms when it
 * was learned, so that a wall clock that jumps moves neither.
 *
 * Invariants (pick_check): (1) a message is in the index at most once, or on its way; (2) of one
 * key at most one message is ready, on its way, or leased; (3) a member's count is what it holds
 * and what is on its way to it; (4) hand-outs on their way have numbers that were not applied yet,
 * ascending.
 *
 * Threads: the shard's. Memory: its own; the delivery must outlive it. */
#ifndef FERRY_PARTITION_PICK_H
#define FERRY_PARTITION_PICK_H

#include "partition/delivery_entry.h"
#include "wire/batch.h"

#define PICK_AHEAD        65536u
#define PICK_KEYED_MAX    1000000u
#define PICK_READ_BYTES   (4u << 20)
#define PICK_SCAN_ENTRIES 1024u
#define PICK_NEVER        INT64_MAX
/* Leases that end, and messages of a parked key, of one entry. */
#define PICK_EXPIRE_MAX 256u
#define PICK_PARK_MAX   256u

struct pick;

struct pick_clock {
    int64_t ms; /* Of the log: what an entry proposed now would have. */
    int64_t us; /* Monotonic. */
};

/* An entry of the log with records. */
struct pick_piece {
    int64_t first;
    uint32_t count; /* Records kept. */
    int64_t append_time_ms;
    struct bytes batch;
    struct batch_header header;
    uint32_t skip_count;
    const uint8_t *skips;
};
/* How the log is read, within a read view. Errors of both: CORRUPT, NOT_READY, NOT_LEADER, … */
struct pick_log {
    int64_t end; /* Offsets before it are readable. */
    void *arg;
    /* The entry that holds the offset. */
    enum ferry_err (*read)(void *arg, int64_t offset, struct pick_piece *piece);
    /* How large a message of the run is, about: runs may be of dead letters. */
    enum ferry_err (*size)(void *arg, const struct delivery_run *run, uint32_t *bytes_each);
};

struct pick_ask {
    struct bytes member;
    uint32_t max_messages, max_bytes;
};
enum pick_answer { PICK_SOME, PICK_NOTHING, PICK_MEMBER_FULL };
struct pick_choice {
    uint64_t lease;
    uint32_t count;     /* Messages. */
    struct buf *ranges; /* The caller's, cleared here: struct delivery_range, ascending. */
    enum pick_answer answer;
};

/* `wake` is where its wake sequence starts. NULL: no memory. */
struct pick *pick_new(struct delivery *d, uint64_t wake, const struct pick_clock *now);
void pick_free(struct pick **k);

/* Entries that concern the delivery were applied: pick_update has something to do. `freed`: members
 * may hold less now. */
void pick_touch(struct pick *k, bool freed);
/* Takes in what was applied and whose time has come. Errors: NO_MEMORY (it makes itself anew). */
MUST_CHECK enum ferry_err pick_update(struct pick *k, const struct pick_clock *now);

/* After pick_update. What it names is on its way until the delivery has applied the lease's number,
 * or it is given back. Errors: those of the log, NO_MEMORY. */
MUST_CHECK enum ferry_err pick_next(struct pick *k, const struct pick_ask *ask,
                                    const struct pick_log *log, const struct pick_clock *now,
                                    struct pick_choice *choice);
/* The latest hand-out was not proposed. */
void pick_give_back(struct pick *k, uint64_t lease);
/* The last pick_next found less than asked, and there is more to look at. */
bool pick_wants_more(const struct pick *k);
int64_t pick_scanned(const struct pick *k); /* Where it looks on. */

/* Leases that have ended by now, PICK_EXPIRE_MAX at most, and are not being ended yet. They are
 * being ended from now on; what could not be proposed is told by pick_expire_later. */
uint32_t pick_expired(struct pick *k, const struct pick_clock *now, uint64_t *leases);
void pick_expire_later(struct pick *k, uint64_t lease, int64_t at_us);
/* An extension is proposed: the lease ends at `until_us`, and not sooner than it did. Returns when.
 */
int64_t pick_extend(struct pick *k, uint64_t lease, int64_t until_us);

/* What mode keyed keeps in order by: 0 of a record without a key. */
uint64_t pick_key_hash(const struct batch_record *r);

/* Fresh messages of parked keys, PICK_PARK_MAX at most: offset and key hash, ascending. They are
 * asked for once; pick_parked tells that the entry was applied (or refused). */
uint32_t pick_to_park(struct pick *k, struct delivery_range *out);
void pick_parked(struct pick *k);

/* When pick_update, pick_expired or pick_to_park has something to do. */
int64_t pick_deadline_us(const struct pick *k);
uint64_t pick_wake(const struct pick *k);
void pick_rouse(struct pick *k); /* Raises the wake sequence: resumed, settings changed. */
/* Messages that a member holds, and that are on their way to it. */
uint32_t pick_held(const struct pick *k, struct bytes member);

void pick_check(const struct pick *k);

#endif
