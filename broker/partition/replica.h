/* replica: one member of a Raft group on this shard: the core, its place in the store, and a state
 * machine.
 *
 * Drives raft_step, keeps the payloads of entries that are being written, sends and takes what
 * members say to each other, and hands committed entries to the machine in order. Knows nothing of
 * messages, topics or clients. Never touches a socket and never commits a transaction: the shard
 * does both, once a turn for all replicas:
 *
 *   replica_receive / replica_propose / replica_tick    during the turn: work collects
 *   replica_send(PEER_NOW)                              before the write: the peers' disks work too
 *   replica_write                                       into the shard's one open transaction
 *   (store_commit)
 *   replica_stored                                      it is on disk: commit index, apply
 *   replica_send(PEER_AFTER_SYNC), replica_send(PEER_NOW)   votes, acks; what the commit made
 * possible
 *
 * Invariants:
 *  (1) applied <= commit <= last index; entries are applied exactly once a life, in index order.
 *  (2) flushed <= applied: the machine's rows on disk are the fold of entries 1..flushed; after a
 *      restart the rest is applied again from the log.
 *  (3) Entries at or below `trim_index` are gone for readers; they are deleted from disk only up to
 *      `flushed`.
 *  (4) A proposal is accepted only from a leader whose own no-op is applied (replica_is_ready), so
 *      a leader's first answer already knows all that its predecessors committed.
 *  (5) Nothing that says "stored" or "voted" is in PEER_NOW.
 *  (6) While a snapshot is being installed (marked on disk first) there is no core: no vote, no
 * ack, nothing read; a restart begins the install anew. (7) With an entry that does not match its
 * checksum the replica is DAMAGED: muted (raft.h) until a peer has given the same entry again.
 *
 * States: OPENING -> FOLLOWING <-> LEADING -> READY (no-op applied); FOLLOWING -> INSTALLING ->
 * FOLLOWING; any of these -> DAMAGED and back; any -> FAILED (the store failed, or what is damaged
 * cannot be repaired from peers because there are none).
 *
 * Threads: the shard's. Payloads of proposals and of received items are borrowed until
 * replica_stored returns. */
#ifndef FERRY_PARTITION_REPLICA_H
#define FERRY_PARTITION_REPLICA_H

#include "partition/peer.h"
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
    /* Forgets everything in memory and reads the rows again: a snapshot has been installed. A view
     * is open. Errors: CORRUPT, NO_MEMORY. */
    enum ferry_err (*load)(void *machine, struct store *store, uint64_t *applied,
                           int64_t *next_offset);
    /* State tables too large to be read in one turn. Their rows are sent by key over many turns, so
     * a snapshot may hold rows that are newer than the rest; the machine's apply must not mind. */
    uint8_t large_tables[8]; /* Ended by 0. */
};

struct replica_config {
    uint64_t group;
    raft_id self;
    uint64_t seed;
    struct store *store;
    const struct machine_ops *ops;
    void *machine;
    uint64_t applied;    /* What the machine's rows on disk stand for (invariant 2). */
    int64_t next_offset; /* As of `applied`. */
    /* The group's first members, used while the store has no configuration: all that found a group
     * give the same. No voters: a new member that waits to be fed. */
    struct raft_members initial;
    int64_t election_min_us, election_max_us, heartbeat_us; /* All 0: raft.h's defaults. */
    /* Bytes that may still be given to replicas that are being made (snapshots, entries to
     * learners), shared by the shard's replicas and filled up by it; spent it may be below 0. NULL:
     * no limit. */
    int64_t *copy_bytes;
    int64_t notice_us; /* See raft_set_notice. */
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
/* Bytes on the way to one peer, not yet answered. */
#define REPLICA_WINDOW_BYTES (8u << 20)
/* A snapshot's small tables together; more is LIMIT_REACHED, logged. */
#define REPLICA_SNAPSHOT_CORE_MAX_BYTES (64u << 20)
/* Chunks of one snapshot on the way, not yet answered; and silence after which it is given up. */
#define REPLICA_SNAPSHOT_WINDOW     4u
#define REPLICA_SNAPSHOT_SILENCE_MS 10000
/* How far behind the commit index a learner may be that is made a voter. */
#define REPLICA_CAUGHT_UP_ENTRIES 1024u
/* Snapshots that one replica sends at a time. */
#define REPLICA_SNAPSHOTS_MAX 2u

struct replica;

/* Reads the group's marks and log bounds inside a read view of its own. Errors: CORRUPT,
 * NO_MEMORY, STORE_FAILED. */
MUST_CHECK enum ferry_err replica_open(const struct replica_config *config, int64_t now_us,
                                       struct replica **r, struct err_text *e);
void replica_close(struct replica **r);

/* Whether requests are taken: FERRY_OK, NOT_LEADER (it follows another), NOT_READY (no leader is
 * known, or it is not ready yet), or what ended it. */
enum ferry_err replica_check_leader(const struct replica *r);
/* Appends an entry; `index` is where it will be. term is filled in here. Errors: NOT_LEADER,
 * NOT_READY, THROTTLED, NO_MEMORY, STORE_FAILED. */
MUST_CHECK enum ferry_err replica_propose(struct replica *r, struct store_entry *entry,
                                          int64_t now_us, uint64_t *index);
/* Forgets entries up to `index` (applied): the machine decided so in an entry. */
void replica_trim(struct replica *r, uint64_t index);

MUST_CHECK enum ferry_err replica_tick(struct replica *r, int64_t now_us);
int64_t replica_deadline_us(const struct replica *r);

/* ---- Other members ---- */

/* An item for this group from another member; its frame must live until replica_stored. What no
 * correct member sends is dropped and counted. Errors: those that end the replica. */
MUST_CHECK enum ferry_err replica_receive(struct replica *r, const struct peer_item *item,
                                          int64_t now_us);
enum peer_phase { PEER_NOW, PEER_AFTER_SYNC };
/* Puts what is to be sent into the outbox. Call once before the write (PEER_NOW), and after
 * replica_stored (PEER_AFTER_SYNC, then PEER_NOW). Opens a view of its own when it must read
 * entries; no transaction may be open. `budget_bytes` bounds entries and snapshot chunks, and is
 * lowered; what does not fit comes next turn (replica_wants_send). */
MUST_CHECK enum ferry_err replica_send(struct replica *r, enum peer_phase phase, int64_t now_us,
                                       size_t *budget_bytes, struct peer_outbox *out);
bool replica_wants_send(const struct replica *r);
/* A node went silent or restarted: `member` is one of its lives. Quiet groups look around. */
MUST_CHECK enum ferry_err replica_wake(struct replica *r, raft_id member, int64_t now_us);
MUST_CHECK enum ferry_err replica_campaign(struct replica *r, int64_t now_us);
/* Errors: as RAFT_CONFIGURE and RAFT_TRANSFER of raft_step; NOT_READY also while one that is to
 * become a voter is no learner that has caught up. */
MUST_CHECK enum ferry_err replica_configure(struct replica *r, const struct raft_members *members,
                                            int64_t now_us);
MUST_CHECK enum ferry_err replica_transfer(struct replica *r, raft_id to, int64_t now_us);
/* Linearizable reads: a ticket number now; replica_read_done says when the state is at least as new
 * as the moment of asking. Group of one: done at once. Errors: NOT_LEADER, NOT_READY. */
MUST_CHECK enum ferry_err replica_read(struct replica *r, int64_t now_us, uint64_t *number);
enum replica_read_state { REPLICA_READ_WAITING, REPLICA_READ_DONE, REPLICA_READ_LOST };
enum replica_read_state replica_read_done(const struct replica *r, uint64_t number);

/* ---- The transaction ---- */

/* The machine wants its rows written with the next transaction. */
void replica_ask_flush(struct replica *r);
/* True when there is something for a transaction. */
bool replica_wants_write(const struct replica *r, int64_t now_us);
/* `rows_left` is what flushes of this transaction may still write; a flush that is due waits for
 * the next transaction when it is 0. */
MUST_CHECK enum ferry_err replica_write(struct replica *r, int64_t now_us, uint32_t *rows_left);
/* True between replica_write and replica_stored: the transaction holds something of it. */
bool replica_has_written(const struct replica *r);
/* After the commit; also when there was nothing to write and something waits for "stored so far"
 * (replica_wants_stored): applies what is committed now. Never instead of a write that is wanted
 * (must). Errors: STORE_FAILED (the commit failed: nothing of it counts), those of the machine. */
MUST_CHECK enum ferry_err replica_stored(struct replica *r, int64_t now_us);
/* Something is to be done by replica_stored though there is nothing to write: committed entries to
 * apply, answers that wait for an fsync that has long been. */
bool replica_wants_stored(const struct replica *r);
/* Ends it: every later call answers `err`. Tells the machine that it is not ready. */
void replica_fail(struct replica *r, enum ferry_err err);
/* A read met a bad entry: see invariant 7. Anyone who reads the log tells it. In a group of one
 * there is nobody to ask: nothing changes (the reader got its CORRUPT). The time is that of the
 * latest call that told one. */
void replica_damaged(struct replica *r, uint64_t index);

/* ---- Asking ---- */

bool replica_is_ready(const struct replica *r);
enum ferry_err replica_failure(const struct replica *r); /* FERRY_OK while it works. */
uint64_t replica_applied(const struct replica *r);
uint64_t replica_flushed(const struct replica *r); /* Invariant 2. */
uint64_t replica_commit(const struct replica *r);
uint64_t replica_last_index(const struct replica *r);
uint64_t replica_term(const struct replica *r);
uint64_t replica_first_index(const struct replica *r); /* First not trimmed; may be last + 1. */
uint64_t replica_group(const struct replica *r);
raft_id replica_leader(const struct replica *r); /* 0: not known. */
enum replica_state {
    REPLICA_FOLLOWING,
    REPLICA_LEADING,
    REPLICA_READY,
    REPLICA_INSTALLING,
    REPLICA_DAMAGED,
    REPLICA_FAILED
};
enum replica_state replica_state(const struct replica *r);
bool replica_is_quiet(const struct replica *r);
/* In force. Never NULL. */
const struct raft_members *replica_members(const struct replica *r);
/* They are committed. Until then who is not among them any more may still be needed: those who have
 * not heard of it decide by the members before. */
bool replica_members_are_final(const struct replica *r);
size_t replica_progress(const struct replica *r, struct raft_progress *out, size_t max);
/* A member that the leader has seen go back on what it acknowledged; 0: none. */
raft_id replica_regressed(const struct replica *r);
/* Bytes of a snapshot that is being sent or installed: done and, when known, all (else 0). */
bool replica_snapshot_bytes(const struct replica *r, uint64_t *done, uint64_t *all);
/* Items and messages of this group that were dropped: malformed, late, or too many. */
uint64_t replica_dropped(const struct replica *r);
void replica_check(const struct replica *r);

#endif
