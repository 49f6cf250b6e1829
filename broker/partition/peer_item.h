/* peer_item: what replicas of one group say to each other, as bytes.
 *
 * Pure. Bodies are little-endian with a fixed layout; each field is bounded and checked when it is
 * read, and an entry is believed only when its checksum, and that of the batch in it, holds.
 *
 *   members:  u32 voters  u32 old voters  u32 learners  u32 0, then u64 ids in that order
 *   config:   u64 index, members
 *   entry:    u32 bytes, then the entry as on disk (store.h)
 *   snapshot: u64 term  u64 snapshot id  u64 chunk: begins every body of the SNAPSHOT kinds
 *
 *   RAFT             0 u8 type  1 u8 flags (1 success, 2 quiet, 4 transfer)  2 u16 0
 *                    4 u32 entries  8 u64 term  16 u64 prev_index  24 u64 prev_term  32 u64 commit
 *                   40 u64 match_index  48 u64 match_term  56 u64 sequence  64 entries
 *   SNAPSHOT_BEGIN   snapshot, u64 index  u64 term there  u64 trim_index  u64 trim_term
 *                    u64 bytes about, config in force, config before it
 *   SNAPSHOT_ROWS    snapshot, u32 rows  u32 0, then {u8 table  u8 0  u16 key  u32 value, bytes}
 *   SNAPSHOT_ENTRIES snapshot, u32 entries  u32 0  u64 first index, entries
 *   SNAPSHOT_END     snapshot, u64 rows  u64 entries, of the whole snapshot
 *   SNAPSHOT_REPLY   snapshot (chunk: the one that comes next), u32 status  u32 0  u64 index
 *   REPAIR_REQUEST   u64 nonce  u64 index  u64 witness index  u64 witness term  u64 previous term
 *   REPAIR_REPLY     u64 nonce  u64 index  u32 given  u32 0, entry if given
 */
#ifndef FERRY_PARTITION_PEER_ITEM_H
#define FERRY_PARTITION_PEER_ITEM_H

#include "partition/peer.h"

#define PEER_RAFT_BYTES         64u
#define PEER_ENTRY_PREFIX_BYTES 4u
#define PEER_ROW_PREFIX_BYTES   8u
#define PEER_ROWS_TABLE_MAX     249u /* Greater ones are the replica's own and do not travel. */

/* ---- Members ---- */

void peer_put_members(struct buf *b, const struct raft_members *m);
void peer_put_config(struct buf *b, const struct raft_config_entry *c);
/* Take from the front of `rest`. Errors: BAD_FRAME (also when raft_members_check refuses). */
MUST_CHECK enum ferry_err peer_take_members(struct bytes *rest, struct raft_members *m);
MUST_CHECK enum ferry_err peer_take_config(struct bytes *rest, struct raft_config_entry *c);
/* The members in a CONFIG entry. Errors: CORRUPT. */
MUST_CHECK enum ferry_err peer_config_members(const struct store_entry *entry,
                                              struct raft_members *m);

/* ---- Entries ---- */

size_t peer_entry_bytes(const struct store_entry *entry); /* With its prefix. */
void peer_put_entry(struct buf *b, const struct store_entry *entry);
/* Takes the next entry. Errors: BAD_FRAME (cut), CORRUPT (checksum). */
MUST_CHECK enum ferry_err peer_take_entry(struct bytes *rest, struct store_entry *entry);
/* What the entry's own checksum leaves to the batch's. Errors: CORRUPT. */
MUST_CHECK enum ferry_err peer_entry_check(const struct store_entry *entry);

/* ---- Raft ---- */

struct peer_raft {
    struct raft_message message; /* Its arrays are those below. */
    struct bytes entries;        /* message.entry_count of them, checked. */
    struct raft_run runs[RAFT_APPEND_RUNS_MAX];
    struct raft_config_entry configs[2];
};
/* The fixed part; the entries follow. */
void peer_put_raft(struct buf *b, const struct raft_message *m);
/* Says afterwards how many entries followed the fixed part that begins at `at`. */
void peer_set_raft_entries(struct buf *b, size_t at, uint32_t count);
/* Errors: BAD_FRAME, CORRUPT (an entry). `m` points into itself: not to be copied. */
MUST_CHECK enum ferry_err peer_take_raft(const struct peer_item *item, raft_id self,
                                         struct peer_raft *m);

/* ---- Snapshots ---- */

struct peer_snapshot {
    raft_term term;
    uint64_t id;
    uint64_t chunk;
};
struct peer_snapshot_begin {
    raft_index index; /* The rows are the fold up to here. */
    raft_term index_term;
    raft_index trim_index;
    raft_term trim_term;
    uint64_t bytes; /* About. */
    struct raft_config_entry config, previous_config;
};
enum peer_snapshot_status {
    PEER_SNAPSHOT_GOING = 1,
    PEER_SNAPSHOT_DONE = 2,    /* It has all up to `index`. */
    PEER_SNAPSHOT_REFUSED = 3, /* Not wanted, or given up. */
};
struct peer_snapshot_reply {
    enum peer_snapshot_status status;
    raft_index index;
};
struct peer_row {
    uint8_t table;
    struct bytes key, value;
};

void peer_put_snapshot(struct buf *b, const struct peer_snapshot *s);
void peer_put_snapshot_begin(struct buf *b, const struct peer_snapshot_begin *s);
void peer_put_row(struct buf *b, const struct peer_row *row);
void peer_put_snapshot_reply(struct buf *b, const struct peer_snapshot_reply *r);
/* All: BAD_FRAME. Rows and entries: what is left of `rest` is exactly `count` of them, each
 * checked (entries: CORRUPT); walk them with peer_take_row and peer_take_entry. */
MUST_CHECK enum ferry_err peer_take_snapshot(struct bytes *rest, struct peer_snapshot *s);
MUST_CHECK enum ferry_err peer_take_snapshot_begin(struct bytes rest,
                                                   struct peer_snapshot_begin *s);
MUST_CHECK enum ferry_err peer_take_rows(struct bytes *rest, uint32_t *count);
MUST_CHECK enum ferry_err peer_take_row(struct bytes *rest, struct peer_row *row);
MUST_CHECK enum ferry_err peer_take_entries(struct bytes *rest, uint32_t *count, raft_index *first);
MUST_CHECK enum ferry_err peer_take_snapshot_end(struct bytes rest, uint64_t *rows,
                                                 uint64_t *entries);
MUST_CHECK enum ferry_err peer_take_snapshot_reply(struct bytes rest,
                                                   struct peer_snapshot_reply *r);

/* ---- Repair ---- */

struct peer_repair_request {
    uint64_t nonce;
    raft_index index;
    /* An entry at or after `index` that the asker can read the term of: who has the same one has
     * the same at `index` (log matching, paper 5.3). 0: there is none. */
    raft_index witness_index;
    raft_term witness_term;
    raft_term previous_term; /* Of the entry before `index`. */
};
struct peer_repair_reply {
    uint64_t nonce;
    raft_index index;
    bool given;
    struct store_entry entry;
};
void peer_put_repair_request(struct buf *b, const struct peer_repair_request *r);
MUST_CHECK enum ferry_err peer_take_repair_request(struct bytes body,
                                                   struct peer_repair_request *r);
void peer_put_repair_reply(struct buf *b, const struct peer_repair_reply *r);
/* Errors: BAD_FRAME, CORRUPT (the entry). */
MUST_CHECK enum ferry_err peer_take_repair_reply(struct bytes body, struct peer_repair_reply *r);

#endif
