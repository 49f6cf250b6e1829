/* store_core: what the files of broker/store share. Nothing outside this folder includes it.
 *
 * store.c opens, identifies and closes; store_file.c knows the folder and reads the file before
 * LMDB maps it; store_layout.c is the bytes on disk; store_tails.c remembers where each log ends;
 * store_write.c, store_read.c and store_room.c are the three parts of store.h. */
#ifndef FERRY_STORE_CORE_H
#define FERRY_STORE_CORE_H

#include <lmdb.h>

#include "store/store.h"

/* ---- Limits ---- */
#define STORE_TABLES          4u
#define STORE_READERS_MAX     16u        /* Our one view, and people with mdb_stat or mdb_copy. */
#define STORE_GRAIN_BYTES     (64 << 10) /* File sizes are multiples: any machine's page fits. */
#define STORE_FIRST_BYTES     (1 << 20)  /* Of a new file, beside the reserve: metas, tables. */
#define STORE_ROOM_RETRY_US   200000     /* A full disk is asked again after this. */
#define STORE_FREE_COUNT_US   1000000    /* A count of free pages is believed this long, */
#define STORE_FREE_RECOUNT_US 10000      /*   and this long when it says no. */
#define STORE_CORRUPT_LOG_US  1000000    /* At most one line about bad bytes in this time. */

/* ---- Bytes on disk (store_layout.c) ---- */
#define STORE_LOG_KEY_BYTES      16u
#define STORE_GROUP_KEY_BYTES    8u
#define STORE_STATE_PREFIX_BYTES 9u
#define STORE_ENTRY_HEADER_BYTES 48u
#define STORE_ENTRY_COVER_BYTES  16u /* Of a batch's payload: magic, size and its own checksum. */
#define STORE_GROUP_BYTES        64u
#define STORE_IDENTITY_BYTES     48u

struct store_identity {
    uint32_t format;
    struct ferry_id cluster_id;
    uint32_t node_id, shard, shards;
    uint32_t incarnation;
};

void layout_log_key(uint8_t key[STORE_LOG_KEY_BYTES], uint64_t group, uint64_t index);
/* Returns the key's size. */
size_t layout_state_key(uint8_t out[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES], uint64_t group,
                        uint8_t table, struct bytes key);
void layout_group_encode(uint8_t out[STORE_GROUP_BYTES], const struct store_group *g);
/* Errors: CORRUPT (also when the row is another group's). */
MUST_CHECK enum ferry_err layout_group_decode(struct bytes key, struct bytes value,
                                              struct store_group *g);
void layout_identity_encode(uint8_t out[STORE_IDENTITY_BYTES], const struct store_identity *id);
/* Errors: CORRUPT, NEWER_FORMAT (only `format` is filled then). */
MUST_CHECK enum ferry_err layout_identity_decode(struct bytes value, struct store_identity *id);

/* ---- Where each group's log ends (store_tails.c) ---- */

/* A hash table with linear probing. A cache: forgetting all of it is always right. */
struct store_tail {
    uint64_t group;
    uint64_t last_index; /* 0: the log is empty. */
    bool known;
};

struct store_tails {
    struct store_tail *slots; /* Owned; `capacity` of them, a power of two. */
    size_t capacity;
    size_t count;
};

void tails_fini(struct store_tails *t);
void tails_forget_all(struct store_tails *t);
/* NULL when the group is not known. The pointer lives until the next tails_add. */
struct store_tail *tails_find(const struct store_tails *t, uint64_t group);
/* Errors: NO_MEMORY. The group must not be there yet. */
MUST_CHECK enum ferry_err tails_add(struct store_tails *t, uint64_t group, uint64_t last_index);

/* ---- Room (store_room.c) ---- */

/* Invariant: file_bytes is the size of the file, allocated, and the size of LMDB's map, so LMDB
 * answers MDB_MAP_FULL before it writes where no disk block is. */
struct store_room {
    int64_t file_bytes;
    int64_t used_bytes; /* Up to the last page in use, as of the last commit. */
    int64_t free_bytes; /* Pages on LMDB's free list, as last counted. */
    int64_t page_bytes;
    int64_t counted_us;       /* When; 0: never. */
    int64_t refused_bytes;    /* The disk refused a file of this size, */
    int64_t refused_until_us; /*   and is not asked for it before this. */
};

struct store {
    char *path;  /* Owned. The folder. */
    int lock_fd; /* LOCK, held by flock while the store is open. */
    int data_fd; /* data.mdb, for fallocate only. */
    MDB_env *env;
    MDB_dbi log, state, group, meta;
    struct store_identity identity;
    int64_t max_bytes, grow_bytes, reserve_bytes;

    MDB_txn *write;        /* NULL unless WRITING. */
    MDB_cursor *write_log; /* Of `write`, over the log; LMDB frees it with the transaction. */
    uint64_t top_group;    /* A hint: the greatest id that has entries. */
    size_t turn_bytes;     /* Added by this transaction. */

    MDB_txn *view;        /* Kept for ever, reset while no view is open. */
    MDB_cursor *view_log; /* Over the log, renewed with the view. */
    bool viewing;
    uintptr_t map_start; /* Where LMDB has the file, ... */
    bool map_known;      /*   if it could be found out, */
    size_t map_bytes;    /*   and how much of it the view may touch. */

    bool failed; /* Latched. */
    struct err_text failure;
    struct store_tails tails;
    struct store_room room;
    uint64_t commits, commit_us_total, commit_us_max, written_bytes;
    int64_t corrupt_logged_us;
};

/* Reads sizes after a commit. */
void room_refresh(struct store *s);
/* Gives the file `tail` bytes past the last page in use, if disk and max_bytes allow; false when
 * there are fewer in the end. Does nothing while a view or a write transaction is open. */
bool room_ensure(struct store *s, int64_t tail);
/* Sees to it that the end of the file has blocks: a copied file may have holes there. */
void room_claim(struct store *s);
/* Takes what a commit wrote off the count of free pages, until they are counted again. */
void room_used(struct store *s, size_t bytes);
/* Gives a file blocks up to `to` bytes, or leaves it at `from`. Errors: STORAGE_FULL, IO. */
MUST_CHECK enum ferry_err room_allocate(int fd, int64_t from, int64_t to, struct err_text *e,
                                        const char *path);

/* ---- Views (store_read.c) ---- */

/* Finds out where LMDB has mapped the file: after opening and after every growth. */
void read_find_map(struct store *s);

/* ---- The folder (store_file.c) ---- */

/* Makes the folder when missing and takes its lock. Errors: LOCKED, STORAGE_FULL, IO. */
MUST_CHECK enum ferry_err file_lock_folder(const char *path, int *lock_fd, struct err_text *e);
/* Finds out, with reads only, whether data.mdb is there and whole enough to map. Errors: CORRUPT,
 * IO. */
MUST_CHECK enum ferry_err file_check_data(const char *path, bool *exists, struct err_text *e);
/* Makes names in the folder durable. Needed at every open: the process may have died between the
 * rename of data.mdb and this. Errors: IO. */
MUST_CHECK enum ferry_err file_sync_folder(const char *path, struct err_text *e);
/* Makes data.mdb with its identity fsynced, or not at all. Errors: STORAGE_FULL, IO, NO_MEMORY. */
MUST_CHECK enum ferry_err file_create_data(const struct store_config *config,
                                           const struct store_identity *id, struct err_text *e);
/* Opens data.mdb for fallocate and tells its size. Errors: IO. */
MUST_CHECK enum ferry_err file_open_data(const char *path, int *fd, int64_t *bytes,
                                         struct err_text *e);

/* ---- Errors (store.c) ---- */

/* What an LMDB return code means; MDB_NOTFOUND is the caller's. */
enum ferry_err store_err_of(int rc);
/* Latches the first failure; returns `err`. */
enum ferry_err store_latch(struct store *s, enum ferry_err err, const char *what, const char *why);
/* The names of LMDB's tables, in the order log, state, group, meta. */
MUST_CHECK int store_open_tables(MDB_txn *txn, unsigned flags, MDB_dbi tables[STORE_TABLES]);

static inline MDB_val store_val(const void *data, size_t size)
{
    return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)data};
}

#endif
