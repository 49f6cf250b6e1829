/* replica: one Raft group on this shard: the core, its place in the store, and a state machine.
 *
 * Drives raft_step, keeps the payloads of entries that are being written, and hands committed
 * entries to the machine in order. Knows nothing of messages, topics or clients. Never sends and
 * never commits a transaction: the shard does both, once a turn for all replicas:
 *
 *   replica_propose / replica_tick      during the turn: work collects
 *   replica_write                       into the shard's one open transaction
 *   (store_commit)
 *   replica_stored                      what was written is on disk: commit index, apply
 *
 * Invariants:
 *  (1) applied <= commit <= last index; entries are applied exactly once a life, in index order.
 *  (2) flushed <= applied: the machine's rows on disk are the fold of entries 1..flushed; after a
 *      restart the rest is applied again from the log.
 *  (3) Entries at or below `trim_index` are gone for readers; they are deleted from disk only up to
 *      `flushed`.
 *  (4) A proposal is accepted only from a leader whose own no-op is applied (replica_is_ready), so
 *      a leader's first answer already knows all that its predecessors committed.
 *
 * States: OPENING (after replica_open) -> FOLLOWING <-> LEADING -> READY (no-op applied);
 * any -> FAILED (the store failed, or an entry on disk does not match its checksum).
 *
 * Threads: the shard's. The payload of a proposal is borrowed until replica_stored returns. */
#ifndef FERRY_PARTITION_REPLICA_H
#define FERRY_PARTITION_REPLICA_H

#include "raft/raft.h"
#include "store/store.h"

/* What a state machine is to its replica. Each call happens on the shard's thread. */
struct machine_ops {
    /* Takes in one committed entry. Must not fail for a well-formed entry: room is made when it is
     * proposed. Errors stop the replica: CORRUPT, NO_MEMORY. */
    enum ferry_err (*apply)(void *machine, uint64_t index, const struct store_entry *entry);
    /* The leader may take requests (ready), or no longer (not ready): requests that wait must be
     * answered and what was only proposed forgotten. */
    void (*role_changed)(void *machine, bool ready);
    /* Writes the rows that changed since the last flush into the open transaction. Errors: those of
     * store_put. */
    enum ferry_err (*flush)(void *machine, struct store *store);
    /* How many rows a flush would write now: large tables are flushed sooner than others. */
    uint32_t (*flush_rows)(const void *machine);
    /* The offset of the record after this entry: a pure function of the entry. */
    int64_t (*next_offset)(const struct store_entry *entry);
};

struct replica_config {
    uint64_t group;
    uint32_t self;
    uint64_t seed;
    struct store *store;
    const struct machine_ops *ops;
    void *machine;
    uint64_t applied;    /* What the machine's rows on disk stand for (invariant 2). */
    int64_t next_offset; /* As of `applied`. */
};

/* Entries applied, and bytes, after which the rows are written with the next transaction; and the
 * time after which they are written by one of their own. A restart replays at most so much. */
#define REPLICA_FLUSH_ENTRIES 4096u
#define REPLICA_FLUSH_MS      1000
/* Rows of a machine that ask for a flush, and rows that all flushes of one transaction may write
 * together, but for the last of them. Rows of random keys dirty a page each. */
#define REPLICA_FLUSH_ROWS      4096u
#define REPLICA_FLUSH_ROWS_TURN 16384u
/* Deletions of one replica in one transaction. */
#define REPLICA_DELETE_MAX 512u

struct replica;

/* Reads the group's marks and log bounds inside a read view of its own. Errors: CORRUPT,
 * NO_MEMORY, STORE_FAILED. */
MUST_CHECK enum ferry_err replica_open(const struct replica_config *config, int64_t now_us,
                                       struct replica **r, struct err_text *e);
void replica_close(struct replica **r);

/* Appends an entry; `index` is where it will be. term is filled in here. Errors: NOT_LEADER,
 * NOT_READY, THROTTLED, NO_MEMORY, STORE_FAILED. */
MUST_CHECK enum ferry_err replica_propose(struct replica *r, struct store_entry *entry,
                                          int64_t now_us, uint64_t *index);
/* Forgets entries up to `index` (applied): the machine decided so in an entry. */
void replica_trim(struct replica *r, uint64_t index);

MUST_CHECK enum ferry_err replica_tick(struct replica *r, int64_t now_us);
int64_t replica_deadline_us(const struct replica *r);

/* The machine wants its rows written with the next transaction. */
void replica_ask_flush(struct replica *r);

/* True when there is something for a transaction. */
bool replica_wants_write(const struct replica *r, int64_t now_us);
/* `rows_left` is what flushes of this transaction may still write; a flush that is due waits for
 * the next transaction when it is 0. */
MUST_CHECK enum ferry_err replica_write(struct replica *r, int64_t now_us, uint32_t *rows_left);
/* True between replica_write and replica_stored: the transaction holds something of it. */
bool replica_has_written(const struct replica *r);
/* After the commit. Applies what is committed now. */
MUST_CHECK enum ferry_err replica_stored(struct replica *r, int64_t now_us);
/* Ends it: every later call answers `err`. Tells the machine that it is not ready. */
void replica_fail(struct replica *r, enum ferry_err err);

bool replica_is_ready(const struct replica *r);
enum ferry_err replica_failure(const struct replica *r); /* FERRY_OK while it works. */
uint64_t replica_applied(const struct replica *r);
uint64_t replica_commit(const struct replica *r);
uint64_t replica_last_index(const struct replica *r);
uint64_t replica_term(const struct replica *r);
uint64_t replica_first_index(const struct replica *r); /* First not trimmed; may be last + 1. */
uint64_t replica_group(const struct replica *r);
void replica_check(const struct replica *r);

#endif
