/* store: partition logs and state tables of one shard, in one LMDB environment.
 *
 * The only user of lmdb.h. It knows groups, indexes, tables and bytes; it does not know Raft's
 * rules nor what a batch is. It never retries a failed write: the first error of a write or an
 * fsync is latched, and every call after it answers STORE_FAILED until the store is opened again
 * from disk (fsyncgate; reliability.md rule 1).
 *
 * Invariants:
 *  (1) What a reader sees was committed, that is fsynced (data, then meta; never MDB_NOSYNC,
 *      NOMETASYNC, MAPASYNC or WRITEMAP).
 *  (2) One write transaction at a time, one an event-loop turn, for all groups of the shard.
 *  (3) The entries of a group are consecutive from its first to its last index.
 *  (4) Every entry's header carries a checksum, checked whenever it is read. A batch carries its
 *      own; store_get_entry does not read payloads.
 *  (5) The file is preallocated in steps (grow_bytes) ahead of use, so that a commit does not meet
 *      a full disk; what is refused is refused before, by store_has_room.
 *  (6) A folder belongs to one cluster, node, shard and incarnation, and a format version; another
 *      is refused. A folder made anew is another incarnation: what its node once promised is gone
 *      with the old one, so it must not come back under the old name.
 *
 * States: OPEN (store_open) -> WRITING (store_begin) -> OPEN (store_commit, store_abort);
 * any -> FAILED (a failed commit); FAILED ends by store_close.
 *
 * Disk layout, LMDB tables and keys (big-endian, so that byte order is number order):
 *   log    {u64 group, u64 index}            -> entry header, skip list, payload (below)
 *   state  {u64 group, u8 table, key bytes}  -> value of the layer above
 *   group  {u64 group}                       -> hard state and trim marks, 64 bytes (below)
 *   meta   "identity"                        -> format, cluster id, node id, shard, shards
 *
 *   entry header, little-endian, 48 bytes:
 *    0 u64 term        8 i64 base_offset   16 i64 append_time_ms   24 u8 type  25 u8[3] 0
 *   28 u32 skip_count 32 u32 payload_bytes 36 u32 0                40 u64 checksum: XXH3-64 over
 *      bytes 0..39, the skip list, and the first 16 bytes of the payload when type is a batch
 *      (its own checksum is among them), else the whole payload
 *   group row, little-endian, 64 bytes:
 *    0 u64 term  8 u64 vote  16 u64 commit  24 u64 trim_index  32 u64 trim_term
 *   40 u64 deleted_index    48 u64 flags (bit 0: installing)
 *   56 u64 checksum: XXH3-64 over bytes 0..55 and the key
 *   identity row, little-endian, 48 bytes:
 *    0 u32 "FRID"  4 u32 format  8 cluster id  24 u32 node  28 u32 shard  32 u32 shards
 *   36 u32 incarnation (0 in folders made before there were any)
 *   40 u64 checksum: XXH3-64 over bytes 0..39
 *
 * The folder: data.mdb, LMDB's lock.mdb, LOCK (held by flock while open), and data.new while a
 * first start makes data.mdb, which appears by rename, whole. An empty or shortened data.mdb is
 * therefore never new but CORRUPT: it has lost what it acked.
 *
 * What nobody here can catch: a disk that fails to read a mapped page ends the process (SIGBUS).
 *
 * Threads: one. Bytes read live until store_read_end. */
#ifndef FERRY_STORE_STORE_H
#define FERRY_STORE_STORE_H

#include "base/buf.h"
#include "base/err.h"

#define STORE_FORMAT         1u
#define STORE_KEY_MAX_BYTES  480u        /* Of a state table's key, without group and table. */
#define STORE_TURN_MAX_BYTES (64u << 20) /* What one transaction may add, all together (must). */
#define STORE_TURN_BYTES     (24u << 20) /* What nearly all add less than: so much room is ready. */

struct store;

struct store_config {
    const char *path;           /* A folder; made (0700) when missing, in a parent that exists. */
    struct ferry_id cluster_id; /* Zero: take what the folder has, or make a new one. */
    /* A new folder belongs to no cluster yet (zero id), until store_set_cluster. */
    bool no_cluster;
    uint32_t node_id;
    uint32_t shard, shards;
    /* Of the node's life, the same for all its shards. 0: take what the folder has, or make one. */
    uint32_t incarnation;
    bool must_exist;       /* None is made: WRONG_NODE when there is none. */
    int64_t max_bytes;     /* The file never grows past this. */
    int64_t grow_bytes;    /* Preallocation step. */
    int64_t reserve_bytes; /* Kept free for commits, acks and trims when produce is refused. */
};

/* Opens or makes the folder. Errors, each with a detail naming the path and the remedy: LOCKED
 * (another process), WRONG_NODE, NEWER_FORMAT, CORRUPT (not an LMDB file, truncated, bad identity),
 * STORAGE_FULL (no room for the first step), IO, NO_MEMORY. */
MUST_CHECK enum ferry_err store_open(const struct store_config *config, struct store **store,
                                     struct err_text *e);
void store_close(struct store **store);
struct ferry_id store_cluster_id(const struct store *store); /* Zero: of none yet. */
uint32_t store_incarnation(const struct store *store);       /* 0: a folder from before. */
/* Writes into the open transaction that the folder, which is of no cluster yet (must), belongs to
 * this one. store_cluster_id tells it at once: forget the store if the commit fails. */
MUST_CHECK enum ferry_err store_set_cluster(struct store *store, const struct ferry_id *cluster_id);
/* STORE_FAILED once a write has failed, with what failed; else FERRY_OK. */
enum ferry_err store_failure(const struct store *store, struct err_text *e);

/* ---- Entries ---- */

enum store_entry_type {
    STORE_ENTRY_NOOP = 1,
    STORE_ENTRY_BATCH = 2,     /* The payload is a record batch. */
    STORE_ENTRY_CONTROL = 3,   /* The payload is msgpack of the state machine. */
    STORE_ENTRY_BATCH_CAS = 4, /* {u32 control_bytes, control, batch}: records and a cursor. */
    STORE_ENTRY_CONFIG = 5,    /* The group's members, laid out by the layer above. */
};

struct store_entry {
    uint64_t term;
    int64_t base_offset;    /* Of the first record kept; for others the next record's. */
    int64_t append_time_ms; /* Chosen by the leader; never decreases within a group. */
    enum store_entry_type type;
    uint32_t skip_count;
    const uint8_t *skips; /* u32 little-endian each. */
    struct bytes payload;
};

/* An entry as bytes, as it is on disk (header, skip list, payload): what one replica gives another.
 * The checksum goes with it, so it is believed only when it decodes. */
size_t store_entry_bytes(const struct store_entry *entry);
void store_entry_encode(uint8_t *out,
                        const struct store_entry *entry); /* store_entry_bytes long. */
/* Errors: CORRUPT. The entry points into `value`. A batch's payload has its own checksum beside. */
MUST_CHECK enum ferry_err store_entry_decode(struct bytes value, struct store_entry *entry);

/* ---- Writing: between store_begin and store_commit. A failing put poisons nothing by itself: call
 * store_abort, or store_commit, which then fails. */
MUST_CHECK enum ferry_err store_begin(struct store *store);
/* Appends after the group's last index (must). Errors: IO, STORAGE_FULL (map full). */
MUST_CHECK enum ferry_err store_append(struct store *store, uint64_t group, uint64_t index,
                                       const struct store_entry *entry);
/* Overwrites an entry that is there (CORRUPT when it is not) with a good copy of the same one. */
MUST_CHECK enum ferry_err store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                              const struct store_entry *entry);
/* Deletes entries `first`.. up to `last`, at most `max_count`, in index order; `deleted` of them,
 * `bytes` together. For trims, spread over transactions. */
MUST_CHECK enum ferry_err store_delete_entries(struct store *store, uint64_t group, uint64_t first,
                                               uint64_t last, uint32_t max_count, uint32_t *deleted,
                                               uint64_t *bytes);

/* Deletes the group's entries >= `first`, at most `max_count`, from the last one down, so that what
 * is left is still consecutive. Done when `deleted` < `max_count`. For a follower whose log departs
 * from its leader's. */
MUST_CHECK enum ferry_err store_truncate(struct store *store, uint64_t group, uint64_t first,
                                         uint32_t max_count, uint32_t *deleted);

/* Raft's and the log's marks of one group, 64 bytes on disk with a checksum. */
struct store_group {
    uint64_t group;
    uint64_t term, vote;
    uint64_t commit;                /* Lower bound. */
    uint64_t trim_index, trim_term; /* Entries up to here are dropped, logically. */
    uint64_t deleted_index;         /* ... and physically up to here (<= trim_index). */
    bool installing;                /* Half a snapshot: nothing but term and vote is to be used. */
};
MUST_CHECK enum ferry_err store_put_group(struct store *store, const struct store_group *g);
/* Removes the group row, for a deleted topic, after its entries and tables are gone. */
MUST_CHECK enum ferry_err store_delete_group(struct store *store, uint64_t group);

MUST_CHECK enum ferry_err store_put(struct store *store, uint64_t group, uint8_t table,
                                    struct bytes key, struct bytes value);
MUST_CHECK enum ferry_err store_delete(struct store *store, uint64_t group, uint8_t table,
                                       struct bytes key); /* Not there: FERRY_OK. */
/* Deletes at most max_count rows of one table of the group (or of all, table 0), keys ascending. */
MUST_CHECK enum ferry_err store_delete_rows(struct store *store, uint64_t group, uint8_t table,
                                            uint32_t max_count, uint32_t *deleted);
/* Makes all of it durable, in one fsynced transaction. Any error is final: STORE_FAILED. */
MUST_CHECK enum ferry_err store_commit(struct store *store);
void store_abort(struct store *store);

/* ---- Reading: a snapshot of what is committed. One view at a time, within a turn. */
MUST_CHECK enum ferry_err store_read_begin(struct store *store);
void store_read_end(struct store *store); /* No effect when none is open. */

/* Errors: UNKNOWN_PARTITION (no such group). */
MUST_CHECK enum ferry_err store_get_group(struct store *store, uint64_t group,
                                          struct store_group *g);
/* Calls back for every group, ids ascending. */
typedef enum ferry_err store_group_cb(const struct store_group *g, void *arg);
MUST_CHECK enum ferry_err store_each_group(struct store *store, store_group_cb *callback,
                                           void *arg);
/* Errors: OFFSET_OUT_OF_RANGE (no such entry), CORRUPT. */
MUST_CHECK enum ferry_err store_get_entry(struct store *store, uint64_t group, uint64_t index,
                                          struct store_entry *entry);
/* First and last index on disk; both 0 when there are none. */
MUST_CHECK enum ferry_err store_log_bounds(struct store *store, uint64_t group, uint64_t *first,
                                           uint64_t *last);

/* Walks entries in index order. Zeroed memory is a closed cursor. */
struct store_cursor {
    void *cursor;
    struct store *store;
    uint64_t group;
    uint64_t next_index;
};
MUST_CHECK enum ferry_err store_cursor_open(struct store *store, uint64_t group, uint64_t index,
                                            struct store_cursor *c);
/* Errors: OFFSET_OUT_OF_RANGE (the end), CORRUPT. */
MUST_CHECK enum ferry_err store_cursor_next(struct store_cursor *c, uint64_t *index,
                                            struct store_entry *entry);
void store_cursor_close(struct store_cursor *c);

/* Errors: UNKNOWN_PARTITION never; `found` tells. The value lives until store_read_end. */
MUST_CHECK enum ferry_err store_get(struct store *store, uint64_t group, uint8_t table,
                                    struct bytes key, bool *found, struct bytes *value);
/* Rows of a table with keys >= from, ascending, until the callback returns an error (which is
 * returned) or sets *stop. */
typedef enum ferry_err store_row_cb(struct bytes key, struct bytes value, bool *stop, void *arg);
MUST_CHECK enum ferry_err store_each_row(struct store *store, uint64_t group, uint8_t table,
                                         struct bytes from, store_row_cb *callback, void *arg);

/* ---- Room ---- */

/* True when `bytes` more of messages may be accepted: the file has, or can be given, that much and
 * the reserve. Grows the file in steps; cheap when there is room (no system call). Call outside a
 * write transaction, and best outside a view: while one is open the file cannot grow, and the
 * answer is by what there is. Becomes true again by itself when the disk or the log gets room. */
bool store_has_room(struct store *store, size_t bytes);

struct store_stats {
    int64_t file_bytes;      /* Preallocated. */
    int64_t used_bytes;      /* Up to the last page in use. */
    int64_t free_page_bytes; /* Reusable pages within used_bytes, as last counted. */
    uint64_t commits, commit_us_total, commit_us_max;
    uint64_t written_bytes; /* Entries and rows, before LMDB. */
};
const char *store_library_version(void); /* LMDB's own words; static text. */
void store_stats(const struct store *store, struct store_stats *stats);

/* Asserts what must hold between any two calls. For tests and the simulator. */
void store_check(const struct store *store);

#endif
