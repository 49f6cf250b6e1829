/* The replica's struct, for its own files:
 *   replica.c           life and asking
 *   replica_open.c      reading the log's marks, configuration and terms from the store
 *   replica_step.c      the core: events in, updates taken in
 *   replica_write.c     into the transaction
 *   replica_apply.c     after the commit
 *   replica_peer.c      what members say to each other
 *   snapshot_send.c, snapshot_install.c, repair.c */
#ifndef FERRY_PARTITION_REPLICA_INTERNAL_H
#define FERRY_PARTITION_REPLICA_INTERNAL_H

#include "partition/peer_item.h"
#include "partition/replica.h"
#include "partition/replica_drop.h"

/* The replica's own state table: "" -> the two configurations, "floor" -> replica_drop.h. Above
 * PEER_ROWS_TABLE_MAX. */
#define REPLICA_TABLE_CONFIG 250u
_Static_assert(REPLICA_TABLE_CONFIG > PEER_ROWS_TABLE_MAX, "it does not travel as a row");

/* A message that waits for its turn, and damaged entries that are remembered; more are dropped:
 * messages as a network would, damage is met again by whoever reads it. */
#define REPLICA_MESSAGES_MAX       4096u
#define REPLICA_DAMAGED_MAX        32u
#define REPLICA_SNAPSHOT_RESEND_US 500000
/* To the next look whether there is something to be copied with again. */
#define REPLICA_COPY_WAIT_US        20000
#define REPLICA_REPAIR_RETRY_US     200000
#define REPLICA_REPAIR_REQUESTS_MAX 16u

/* An entry on its way to the disk; the payload belongs to the proposer, or to the frame it came in,
 * until replica_stored, but for an `owned` one. */
struct pending_entry {
    uint64_t index;
    struct store_entry entry;
    void *owned;
};

struct message_list {
    struct raft_message *items; /* Without runs and configurations. */
    size_t count, capacity;
};

/* ---- A snapshot on its way to a peer (snapshot_send.c) ---- */

enum snapshot_phase {
    SNAPSHOT_BEGIN,
    SNAPSHOT_SMALL,
    SNAPSHOT_LARGE,
    SNAPSHOT_ENTRIES,
    SNAPSHOT_END,
    SNAPSHOT_SENT
};

struct snapshot_chunk {
    uint8_t kind;
    struct buf body; /* Kept until it is answered, to be sent again. */
    bool sent;
};

struct snapshot_out {
    raft_id to; /* 0: this place is free. */
    bool begun; /* What it holds has been read; else it waits for a flush. */
    uint64_t id;
    struct peer_snapshot_begin marks;
    enum snapshot_phase phase;
    struct buf small; /* All rows of the small tables, framed. */
    size_t small_at;
    size_t large;                               /* Which of the machine's large tables. */
    uint8_t large_key[STORE_KEY_MAX_BYTES + 1]; /* Where its next chunk begins. */
    size_t large_key_bytes;
    raft_index next_entry;
    uint64_t rows, entries, bytes_done;
    uint64_t first_chunk; /* Number of chunks[0]; those before are answered. */
    size_t chunk_count;
    struct snapshot_chunk chunks[REPLICA_SNAPSHOT_WINDOW];
    int64_t heard_us, resend_us;
};

/* ---- A snapshot that is being installed (snapshot_install.c) ---- */

struct snapshot_in {
    raft_id from; /* 0: none is under way. */
    struct peer_snapshot name;
    struct peer_snapshot_begin marks;
    bool emptying;         /* Rows or entries of before are still there. */
    bool emptied_written;  /* The last of them went with the open transaction. */
    uint64_t next_chunk;   /* That is taken next, */
    uint64_t stored_chunk; /*   and the first one not on disk: what replies tell. */
    uint64_t rows, entries, bytes_done;
    struct peer_item *taken; /* Chunks for the next transaction; borrowed. */
    size_t taken_count, taken_capacity;
    size_t taken_bytes;
    bool ended; /* The last chunk is among them, or was. */
    bool reply_owed;
    int64_t heard_us;
};

/* ---- Repair (repair.c) ---- */

struct repair {
    raft_index damaged[REPLICA_DAMAGED_MAX]; /* Ascending. */
    size_t damaged_count;
    uint64_t nonce;       /* Of the request that is out. */
    raft_index requested; /* 0: none. */
    uint32_t turn;        /* Which member is asked next. */
    int64_t retry_us;
    bool have; /* `entry` waits for the transaction; borrowed. */
    bool written;
    bool remute;    /* The core is to be told what is the first bad entry now. */
    raft_term term; /* That the entry must have; 0: not known. */
    struct store_entry entry;
};

struct repair_request_in {
    raft_id from;
    struct peer_repair_request request;
};

struct replica {
    struct replica_config config;
    struct raft *raft;        /* NULL while a snapshot is being installed. */
    struct store_group marks; /* As they should be on disk. */
    bool marks_dirty;
    struct raft_config_entry members,
        previous_members; /* The configuration in force, and before. */
    bool members_dirty;
    struct replica_floor floor; /* Of a log that was deleted here before. */
    bool ready_told;            /* The machine was told that it may take requests. */
    enum ferry_err failed;
    int64_t now_us;        /* Of the latest call that told it. */
    uint8_t self_bytes[8]; /* What a no-op holds. */

    uint64_t applied;
    uint64_t flushed;
    uint64_t flushing;      /* Covered by the flush in the open transaction; 0: none. */
    bool flush_asked;       /* By the machine: do not wait until it is due. */
    int64_t dirty_since_us; /* When the first entry after `flushed` was applied; 0: clean. */
    int64_t last_append_time_ms;
    int64_t next_offset;   /* After the last entry, proposed ones included. */
    raft_index noop_index; /* Leader: of its own no-op; ready once it is applied. */

    struct pending_entry *pending; /* Consecutive, ending at the last index. */
    size_t pending_count, pending_capacity;
    size_t written;           /* Of pending, in the open transaction. */
    raft_index truncate_from; /* Entries on disk from here on are to be dropped first; 0: none. */
    bool in_transaction;      /* The open transaction holds something of this replica. */

    /* Messages: for now; for after the next fsync; vouched for by the last one. */
    struct message_list now, after_sync, durable;
    uint64_t dropped;
    uint32_t entry_bytes; /* Average, for the core's window. */
    uint32_t window;

    uint64_t read_asked, read_confirmed, read_done, read_lost;
    raft_index read_index; /* Of read_confirmed. */
    raft_id regressed;

    struct snapshot_out out[REPLICA_SNAPSHOTS_MAX];
    raft_id wanted[RAFT_PEERS_MAX]; /* Peers that wait for a place in `out`. */
    size_t wanted_count;
    uint64_t snapshot_ids;
    bool limit_told; /* That the small tables are too large for a snapshot. */
    struct snapshot_in in;
    raft_id install_leader;   /* While installing: who was heard as leader last, */
    int64_t install_heard_us; /*   and when; 0: nobody. */
    /* An answer about another snapshot than `in`. */
    struct peer_snapshot refuse;
    struct peer_snapshot_reply refusal;
    raft_id refuse_to; /* 0: none. */
    /* The last one that was installed in this life: its end may be asked for again. */
    raft_id installed_from;
    struct peer_snapshot installed;
    raft_index installed_index;

    struct repair repair;
    struct repair_request_in asked[REPLICA_REPAIR_REQUESTS_MAX];
    size_t asked_count;
};

/* ---- replica_open.c ---- */

/* Within a view: marks, configuration and core (unless installing). */
enum ferry_err replica_read_store(struct replica *r, int64_t now_us);
/* With a view of its own; the core there is, if any, is dropped. */
enum ferry_err replica_reopen_core(struct replica *r, int64_t now_us);
void replica_free_core(struct replica *r);

/* ---- replica_step.c ---- */

/* Steps the core and takes its update in. Errors: as raft_step. */
enum ferry_err replica_step(struct replica *r, const struct raft_event *event);
/* As replica_step, and gives the update; its arrays are taken care of. */
enum ferry_err replica_step_update(struct replica *r, const struct raft_event *event,
                                   struct raft_update *update);
/* An append's entries are handed to the update through this. */
enum ferry_err replica_step_received(struct replica *r, const struct raft_event *event,
                                     struct bytes entries, uint32_t entry_count);
bool replica_is_leader(const struct replica *r);
/* What the shard lets new replicas be given is spent for now. */
bool replica_must_not_copy(const struct replica *r);
/* The group has other members. */
bool replica_has_peers(const struct replica *r);
void replica_lose_office(struct replica *r);
/* Reads that are confirmed and whose index is applied are done. */
void replica_settle_reads(struct replica *r);
/* Drops pending entries from `index` on. */
void replica_drop_pending(struct replica *r, size_t keep);
const struct store_entry *replica_pending_entry(const struct replica *r, raft_index index);
/* What waited for an fsync that has been: it may leave now. */
void replica_release_after_sync(struct replica *r);
void replica_queue_message(struct replica *r, struct message_list *l, const struct raft_message *m);

/* ---- snapshot_send.c ---- */
void snapshot_want(struct replica *r, raft_id peer);
void snapshot_cancel_all(struct replica *r);
void snapshot_fini(struct replica *r);
/* Entries up to here may be deleted from disk: what a snapshot still needs stays. */
raft_index snapshot_delete_bound(const struct replica *r);
bool snapshot_wants_send(const struct replica *r);
void snapshot_send(struct replica *r, int64_t now_us, size_t *budget, struct peer_outbox *out);
void snapshot_take_reply(struct replica *r, raft_id from, const struct peer_snapshot *name,
                         const struct peer_snapshot_reply *reply, int64_t now_us);
int64_t snapshot_deadline_us(const struct replica *r);
void snapshot_tick(struct replica *r, int64_t now_us);

/* ---- snapshot_install.c ---- */
enum ferry_err install_receive(struct replica *r, const struct peer_item *item, int64_t now_us);
/* A raft message while there is no core. */
void install_hear(struct replica *r, const struct raft_message *m);
bool install_wants_write(const struct replica *r);
enum ferry_err install_write(struct replica *r);
enum ferry_err install_stored(struct replica *r, int64_t now_us);
void install_send(struct replica *r, struct peer_outbox *out);
void install_tick(struct replica *r, int64_t now_us);
int64_t install_deadline_us(const struct replica *r);

/* ---- repair.c ---- */
bool repair_is_damaged(const struct replica *r);
/* Remembers it, without telling the core. */
void repair_note(struct replica *r, raft_index index);
/* Tells the core what is the first bad entry now. */
enum ferry_err repair_mute(struct replica *r, int64_t now_us);
/* The log was cut back to before `from`, or trimmed up to `to`. */
void repair_truncated(struct replica *r, raft_index from);
void repair_trimmed(struct replica *r, raft_index to);
void repair_receive(struct replica *r, const struct peer_item *item);
enum ferry_err repair_write(struct replica *r);
enum ferry_err repair_stored(struct replica *r, int64_t now_us);
bool repair_wants_send(const struct replica *r, int64_t now_us);
/* Answers what was asked and asks for what is missing. */
void repair_send(struct replica *r, int64_t now_us, size_t *budget, struct peer_outbox *out);
int64_t repair_deadline_us(const struct replica *r);

#endif
