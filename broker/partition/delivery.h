/* delivery: what has become of each message of a partition for one subscription of mode queue or
 * keyed: the replicated part. Which message goes to whom is decided by the leader (pick.h) and
 * comes here as entries.
 *
 * Pure: no I/O but reading and writing its rows, no clock, no network. Every change is the fold of
 * entries: the same on each replica, byte for byte.
 *
 * Offsets from `floor` to the log's end are cut into runs, so that a message is in exactly one
 * state:
 *
 *    FRESH    never handed out (the gaps: no run is kept for it)
 *    LEASED   handed out under lease `lease`
 *    WAITING  came back: by nack, by a lease that ended, or released; not before due_ms
 *    DONE     acked, or a dead letter, or dropped by retention
 *
 * and below `floor` all is DONE. Dead letters that were replayed have a run of their own again,
 * wherever their offset is (below floor too): WAITING or LEASED with `dead` set, which is their
 * number in the table of dead letters, where their record is.
 *
 *    FRESH -> LEASED            hand-out                    (handed 1)
 *    WAITING -> LEASED          hand-out                    (handed + 1)
 *    LEASED -> DONE             ack
 *    LEASED -> WAITING          nack (failed + 1), lease ended (failed + 1), release
 *    LEASED -> dead letter      reject; a nack or an ended lease that reaches max_deliveries (each
 *                               failed + 1)
 *    FRESH, WAITING -> dead letter  of a parked key
 *    dead letter -> WAITING     replayed (handed 0, failed 0, history kept)
 *    WAITING, LEASED -> gone    a revived one whose dead letter is dropped (counts as died)
 *    any -> DONE (expired)      retention has dropped it
 *
 * What is settled is counted once: acked, died, expired; `failed` counts nacks, ended leases and
 * rejects, message by message. A dead letter that died again keeps its number.
 *
 * Histories are bounded: beyond DELIVERY_HISTORY_MAX_BYTES a message that fails keeps only its last
 * failure, without names and reasons.
 *
 * Invariants (delivery_check):
 *  (1) Runs are sorted, disjoint, none is empty; neighbours that are alike are one run; no DONE run
 *      touches `floor`.
 *  (2) LEASED runs name a lease in `leases`; a lease's `left` is the number of messages that name
 *      it. A lease with nothing left is kept among the last DELIVERY_SETTLED_KEPT ones, so that a
 *      repeated settlement is answered as the first time.
 *  (3) handed >= 1 in every run but DONE and revived ones; failed <= handed.
 *  (4) Counters: fresh + leased + waiting + acked + died - revived + expired = enqueued, where
 *      enqueued counts from the position at which it was made or reset.
 *  (5) Lease numbers rise with each hand-out and are never used again in a subscription.
 *  (6) A run of mode keyed that is LEASED or WAITING has its key's hash and one message, if the
 *      message has a key; no two LEASED runs have the same key hash.
 *
 * Time: lease_ms is a duration; only a leader's monotonic clock makes it end, by an entry. A new
 * leader gives every lease its whole duration again. due_ms is time of the log.
 *
 * Limits are the leader's to keep when it proposes (delivery_has_room); apply takes whatever the
 * log says. */
#ifndef FERRY_PARTITION_DELIVERY_H
#define FERRY_PARTITION_DELIVERY_H

#include "base/buf.h"
#include "partition/rows.h"
#include "wire/command.h"

/* Of one subscription in one partition. At one of them nothing fresh is handed out until there is
 * room again: what is out can be settled and come back. */
#define DELIVERY_LEASES_MAX        16384u
#define DELIVERY_RUNS_MAX          131072u
#define DELIVERY_OUTSTANDING_MAX   2000000u /* Leased and waiting. */
#define DELIVERY_HISTORY_MAX_BYTES (8u << 20)
#define DELIVERY_SETTLED_KEPT      8192u
#define DELIVERY_PARKED_MAX        4096u

struct delivery_settings {
    uint32_t lease_ms, max_deliveries, backoff_min_ms, backoff_max_ms;
    uint32_t key_policy, inflight_max, priority_age_ms;
};

enum delivery_state { DELIVERY_FRESH, DELIVERY_LEASED, DELIVERY_WAITING, DELIVERY_DONE };

/* Failures of a message, the latest HISTORY_MAX. Counted and shared by runs; NULL: none. */
struct delivery_history;

struct delivery_run {
    int64_t first;
    uint32_t count;
    enum delivery_state state;
    uint32_t handed, failed;
    uint64_t lease;    /* LEASED. */
    int64_t due_ms;    /* WAITING. */
    uint64_t key_hash; /* Keyed, with a key; else 0. */
    uint64_t dead;     /* Revived: its number; else 0. */
    struct delivery_history *history;
};

struct delivery_lease {
    uint64_t number;
    struct ferry_id token;
    uint32_t lease_ms;
    uint32_t left; /* Messages; 0: it has ended, and is kept for a while for repeats. */
    uint32_t member_bytes;
    char member[NAME_MAX_BYTES];
    /* What it was given, and what of it was settled how: for repeats. Private. */
    struct delivery_ranges *given, *acked, *nacked, *released, *rejected;
};

struct delivery_counters {
    uint64_t acked, died, expired, revived, handed_out, failed, released;
    uint64_t leased, waiting; /* Messages now. */
    uint64_t dead;            /* Dead letters kept. */
};

struct delivery;

/* `number` names the subscription in rows. Everything from `position` on is fresh. NULL: no memory.
 */
struct delivery *delivery_new(uint64_t number, bool keyed, int64_t position,
                              const struct delivery_settings *settings);
void delivery_free(struct delivery **d);

/* ---- What is: for the leader's decisions, for questions and for tests. */
int64_t delivery_floor(const struct delivery *d);
uint64_t delivery_number(const struct delivery *d);
bool delivery_is_keyed(const struct delivery *d);
const struct delivery_settings *delivery_settings(const struct delivery *d);
void delivery_set_settings(struct delivery *d, const struct delivery_settings *settings);
const struct delivery_counters *delivery_counters(const struct delivery *d);
/* The run that holds the offset, or a FRESH one: from after the run before to before the next one
 * or `end` (the log's). */
struct delivery_run delivery_at(const struct delivery *d, int64_t offset, int64_t end);
/* The first fresh offset at or after `from`, and how many follow in a row before `end`; 0: none. */
uint64_t delivery_next_fresh(const struct delivery *d, int64_t from, int64_t end, int64_t *first);
/* Runs one after another, ascending: start with an offset of INT64_MIN; false at the end. */
bool delivery_next_run(const struct delivery *d, int64_t *after, struct delivery_run *run);
const struct delivery_lease *delivery_find_lease(const struct delivery *d, uint64_t number);
/* Leases with something left, ascending: start with 0; NULL at the end. */
const struct delivery_lease *delivery_next_lease(const struct delivery *d, uint64_t after);
/* What is held under the lease, ascending: start with an offset of INT64_MIN. */
bool delivery_next_leased(const struct delivery *d, const struct delivery_lease *l, int64_t *after,
                          struct delivery_run *run);
uint64_t delivery_next_lease_number(const struct delivery *d);
bool delivery_has_room(const struct delivery *d);
/* Messages of the key now; revived ones may be beside others. */
void delivery_key_counts(const struct delivery *d, uint64_t key_hash, uint32_t *leased,
                         uint32_t *waiting);
bool delivery_key_is_parked(const struct delivery *d, uint64_t key_hash);
size_t delivery_parked(const struct delivery *d);
size_t delivery_memory_bytes(const struct delivery *d); /* About. */
/* Messages that a member has under lease. */
uint32_t delivery_held(const struct delivery *d, struct bytes member);
uint64_t delivery_next_dead_number(const struct delivery *d);
bool delivery_dead_is_kept(const struct delivery *d, uint64_t number);
/* Replayed, and not ended since; `offset` is where its run is. */
bool delivery_is_revived(const struct delivery *d, uint64_t number, int64_t *offset);
/* The failures of a run, oldest first; the texts live until the next change. */
uint32_t delivery_failures(const struct delivery_run *run, struct failure out[HISTORY_MAX]);

/* ---- Entries (delivery_entry.h has their layout). They are applied in log order; what does not
 * fit the state (a lease that has ended, an offset below the floor) is passed over, the same
 * everywhere. Errors: CORRUPT, NO_MEMORY. `time_ms` is the entry's. */
struct delivery_hand_out;
struct delivery_settlement;
MUST_CHECK enum ferry_err delivery_apply_hand_out(struct delivery *d,
                                                  const struct delivery_hand_out *h);
/* `status` has one place an item: the outcome, as of SETTLE's results. Each message of an item must
 * be held under the lease, or have been settled under it in the same way before. Dead letters that
 * it makes go to `dead_rows`; a reject without the record is answered CORRUPT. */
MUST_CHECK enum ferry_err delivery_apply_settlement(struct delivery *d,
                                                    const struct delivery_settlement *s,
                                                    int64_t time_ms, struct rows *dead_rows,
                                                    uint16_t *status);
/* Retention has dropped everything before `start`. */
MUST_CHECK enum ferry_err delivery_apply_trim(struct delivery *d, int64_t start);
/* Replay, drop. `done` counts those that were there and were not on their way already; a replayed
 * one's offset must be done with (after a reset it may be fresh again, and comes anyway). */
struct dead_change_entry;
MUST_CHECK enum ferry_err delivery_apply_dead_change(struct delivery *d,
                                                     const struct dead_change_entry *e,
                                                     int64_t time_ms, struct rows *dead_rows,
                                                     uint32_t *done);
/* Everything from `to` on is fresh, everything before is done; leases end; counters start anew; no
 * key is parked. Dead letters stay; those that were revived are as before their replay. */
MUST_CHECK enum ferry_err delivery_apply_reset(struct delivery *d, int64_t to);

/* What changed by entries since it was asked last, for the leader's index; kept only while watched.
 * `overflowed`: too much changed, look at everything. */
enum delivery_change_kind {
    DELIVERY_CHANGED_WAITING, /* first .. first + count - 1 came back, or were replayed. */
    DELIVERY_CHANGED_LEASED,  /* Lease `lease` has begun, or was extended. */
    DELIVERY_CHANGED_ENDED,   /* Lease `lease` has nothing left. */
    DELIVERY_CHANGED_KEY, /* Nothing of `key_hash` is leased any more, or nothing is waiting, or it
                             was parked or unparked. */
    DELIVERY_CHANGED_RESET, /* Everything. */
};
struct delivery_change {
    enum delivery_change_kind kind;
    int64_t first;
    uint32_t count;
    uint64_t lease;
    uint64_t key_hash;
};
void delivery_watch(struct delivery *d, bool watched); /* Forgets what is queued. */
bool delivery_next_change(struct delivery *d, struct delivery_change *change);

/* ---- Rows. A base part goes into the subscription's own row, written by whoever flushes it, in
 * the same transaction. The rest has tables of its own; runs by segments of 4,096 offsets. */
void delivery_encode_base(const struct delivery *d, struct buf *b); /* One msgpack array. */
bool delivery_is_dirty(const struct delivery *d);
/* That a flush would write; large ones count as several. */
uint32_t delivery_dirty_rows(const struct delivery *d);
MUST_CHECK enum ferry_err delivery_flush(struct delivery *d, struct store *store, uint64_t group);
/* In a view. `base` as delivery_encode_base made it. Errors: CORRUPT, NO_MEMORY. */
MUST_CHECK enum ferry_err delivery_load(uint64_t number, bool keyed,
                                        const struct delivery_settings *settings, struct bytes base,
                                        struct store *store, uint64_t group, struct delivery **d);

void delivery_check(const struct delivery *d, int64_t end);

#endif
